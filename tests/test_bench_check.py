"""The guard of the benchmarks: what counts as fallen, and what it says. Nothing is measured."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from benchmarks import check
from benchmarks.results import ContenderInfo, Figure, MeasuredRow, Run, Spread

if TYPE_CHECKING:
    from pathlib import Path

#: Rows of the stored run, with the ratio's median, least and greatest.
RATE = ("receive_casts", "per_second", True, Spread(2.0, 1.8, 2.2))
WIDE = ("send_casts", "per_second", True, Spread(2.0, 1.0, 4.0))
TIME = ("answer_calls", "p50_us", False, Spread(1.0, 0.9, 1.1))


def run_of(*rows: tuple[str, str, bool, Spread | None], contender: str = "inline") -> Run:
    measured = [
        MeasuredRow("W1", "group", workload, metric, f"{workload}, title", better, {contender: figure_of(ratio)})
        for workload, metric, better, ratio in rows
    ]
    return replace(empty(), contenders={contender: ContenderInfo("Ours", "compiled")}, rows=measured)


def figure_of(ratio: Spread | None) -> Figure:
    return Figure(Spread(1.0, 1.0, 1.0), ratio)


def empty() -> Run:
    return Run("2026-01-31", "3.11.2", 25, 2, 5, {}, [], {}, 0.0, [])


def now(row: tuple[str, str, bool, Spread], median: float) -> Run:
    workload, metric, better, _ = row
    return run_of((workload, metric, better, Spread(median, median, median)))


@pytest.mark.parametrize(
    ("row", "median", "fell"),
    [
        (RATE, 2.5, False),
        (RATE, 1.75, False),  # worse than all stored rounds, by less than 15 %
        (RATE, 1.65, True),
        (WIDE, 1.65, False),  # by more than 15 %, within the stored rounds
        (WIDE, 0.95, True),
        (TIME, 0.5, False),
        (TIME, 1.15, False),
        (TIME, 1.25, True),  # a time falls by becoming longer
    ],
)
def test_what_has_fallen(row: tuple[str, str, bool, Spread], median: float, fell: bool) -> None:
    assert bool(check.fallen(run_of(row), now(row, median))) is fell


def test_what_is_not_compared() -> None:
    assert check.changes(run_of(RATE), run_of(TIME)) == []
    assert check.changes(run_of(RATE), run_of((*RATE[:3], None))) == []
    library = run_of(RATE, contender="libei")
    assert check.changes(library, library) == []


def test_each_that_fell_has_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored, later = tmp_path / "stored.json", tmp_path / "later.json"
    run_of(RATE, TIME).save(stored)
    run_of((*RATE[:3], Spread(1.5, 1.4, 1.6)), (*TIME[:3], Spread(2.0, 2.0, 2.0))).save(later)
    assert check.main(["--stored", str(stored), "--run", str(later)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "W1 receive_casts, title (Ours): ratio 2.00 (1.80 to 2.20) stored, 1.50 now, -25%",
        "W1 answer_calls, title (Ours): ratio 1.00 (0.90 to 1.10) stored, 2.00 now, -50%",
        "2 of 2 ratios fell by more than 15%, beyond all stored rounds",
    ]
    assert check.main(["--stored", str(stored), "--run", str(stored)]) == 0
    assert capsys.readouterr().out == "2 ratios compared with benchmarks.json: none fell by more than 15%\n"


def test_who_fell_once_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = tmp_path / "stored.json"
    run_of(RATE, WIDE).save(stored)
    asked = []
    results = [run_of((*RATE[:3], Spread(1.0, 1.0, 1.0)), (*WIDE[:3], Spread(0.5, 0.5, 0.5))), now(WIDE, 0.5)]

    def measure(arguments: object, groups: str) -> Run:
        asked.append(groups)
        return results[len(asked) - 1]

    monkeypatch.setattr(check, "_measure", measure)
    assert check.main(["--stored", str(stored), "--groups", "one,group"]) == 1
    assert asked == ["one,group", "group"]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[1].startswith("W1 send_casts, title (Ours): ")


def test_a_file_that_is_none_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "stored.json").write_text("{}")
    assert check.main(["--stored", str(tmp_path / "stored.json")]) == 1
    assert "is no file of figures that `make bench WRITE=1` wrote" in capsys.readouterr().err
