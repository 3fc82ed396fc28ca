"""The benchmarks' tables, without measuring anything: names exist on both sides, and figures land where they belong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from benchmarks import report
from benchmarks.bare import frame
from benchmarks.contenders import CONTENDERS, PROJECT, MissingPeerError, library_command
from benchmarks.contest import Results
from benchmarks.micro import PEER, READ_SIZE
from benchmarks.outside import MEASUREMENTS, Load
from benchmarks.results import Cost, Run
from benchmarks.targets import TARGETS
from benchmarks.workloads import ALL_ROWS, CODEC_ROWS, GROUPS, OUTSIDE, ZEN_ROWS

from erlang_interop.flags import OFFERED
from erlang_interop.terms import Atom, Pid
from erlang_interop.wire.channel import DistChannel

if TYPE_CHECKING:
    from pathlib import Path

DRIVERS = PROJECT / "rebar_fixtures" / "apps" / "fixture_bench" / "src"
DRIVER_MODULES = ("bench_driver", "bench_zen", "bench_syn", "bench_memory")
DRIVER = "".join((DRIVERS / f"{module}.erl").read_text() for module in DRIVER_MODULES)


def test_driver_knows_every_group_and_workload() -> None:
    groups = DRIVER.partition("\nworkloads() ->")[2].partition("].")[0]
    assert set(groups.replace("[", "").replace(" ", "").replace("\n", "").split(",")) == set(GROUPS) - set(OUTSIDE)
    for row in ALL_ROWS:
        if row.group not in OUTSIDE:
            assert f"%% | {row.workload}" in DRIVER or f", {row.workload}" in DRIVER, row
    assert set(MEASUREMENTS) == set(OUTSIDE)


def test_group_of_proxies_is_measured_once() -> None:
    measured = [key for key, contender in CONTENDERS.items() if contender.takes_part_in("zen_proxy")]
    assert measured == ["beam", "inline", "pure"]
    assert all(contender.takes_part_in("zen_local") != contender.is_library for contender in CONTENDERS.values())


def of_two_rounds() -> Run:
    """A BEAM is as fast in both rounds; our node is twice, then four times as fast, and takes half the memory.

    Interpreted it is a quarter as fast as compiled; libei is as fast as the BEAM.
    """
    contenders = [CONTENDERS[key] for key in ("beam", "inline", "pure", "libei")]
    results = Results(contenders, builds={contender.key: "built" for contender in contenders})
    results.missing["JInterface (Java)"] = "no java and javac here"
    for speed in (2, 4):
        rates = {"beam": 1e5, "inline": speed * 1e5, "pure": speed * 1e5 / 4, "libei": 1e5}
        results.rounds.append(
            {key: {"send_casts": {"per_second": rate, "peer_cpu_us": 2.0}} for key, rate in rates.items()}
        )
        for key, rate in list(rates.items())[:3]:
            results.rounds[-1][key]["zen_downs"] = {"per_second": rate, "peer_cpu_us": 3.0, "driver_cpu_us": 1.0}
            results.rounds[-1][key]["zen_monitor_bytes"] = {"bytes_each": 400.0 if key == "beam" else 200.0}
    return results.run(25, [Cost("casts", 60.0, 250.0, 200.0, compiled=True)], 4e7)


def test_groups_that_are_measured_again_take_the_place_of_their_own() -> None:
    first = of_two_rounds()
    again = Results([CONTENDERS["beam"], CONTENDERS["mailbox"]], builds={"beam": "newer", "mailbox": "built"})
    again.rounds.append({key: {"send_casts": {"per_second": 7.0}} for key in ("beam", "mailbox")})
    both = first.with_groups_of(again.run(29, [], 4e7), [(row.workload, row.metric) for row in ALL_ROWS])
    sent = both.row("send_casts", "per_second")
    assert sent is not None
    assert {key: figure.value.median for key, figure in sent.figures.items()} == {"beam": 7.0, "mailbox": 7.0}
    assert both.row("zen_downs", "per_second") == first.row("zen_downs", "per_second")
    assert [row.key for row in both.rows] == [row.key for row in first.rows]
    assert list(both.contenders) == [*first.contenders, "mailbox"]
    assert (both.contenders["beam"].build, both.rounds, both.missing) == ("newer", 1, first.missing)


def test_table_has_what_was_measured_and_its_ratios() -> None:
    head, downs, memory = report.table(of_two_rounds(), ZEN_ROWS, ["inline"])
    assert head == ["", "workload", "BEAM", "Python, inline server", "ratio to BEAM"]
    assert [downs[0], *downs[2:]] == ["W7", "100 k", "300 k", "3.00 (2.00 to 4.00)"]
    assert [memory[0], *memory[2:]] == ["W7", "400", "200", "0.50 (0.50 to 0.50)"]


def test_table_of_cpu_has_one_line_for_each_workload_in_order() -> None:
    lines = report.cpu_table(of_two_rounds())
    assert [line[:4] for line in lines[1:]] == [
        ["W2", "send_casts", "2.00 / -", "2.00 / -"],
        ["W7", "zen_downs", "3.00 / 1.00", "3.00 / 1.00"],
    ]


def test_table_of_nothing_is_its_head() -> None:
    assert len(report.table(of_two_rounds(), CODEC_ROWS, ["inline"])) == 1


def test_tables_of_libraries_and_of_the_interpreted_build() -> None:
    run = of_two_rounds()
    assert [line[2:] for line in report.library_table(run)[1:]] == [["100 k", "300 k", "100 k", "3.00"]]
    assert [line[2:] for line in report.interpreted_table(run)[1:]] == [
        ["300 k", "75.0 k", "0.25"],
        ["300 k", "75.0 k", "0.25"],
        ["200", "200", "1.00"],
    ]


def test_targets_are_met_or_missed_by_so_much() -> None:
    lines = {line[1]: line[2:] for line in report.target_table(of_two_rounds())[1:]}
    assert len(lines) == len(TARGETS)
    assert lines["small casts sent"] == ["at least 4 x BEAM", "3.00", "no, by 25 %"]
    assert lines["small casts received live"][1:] == ["-", "not measured"]
    assert lines["memory of a monitor in the peer, bytes"] == ["at most 305 bytes", "200", "yes"]
    assert lines["DOWNs when all targets are killed"][1:] == ["1.00", "yes"]
    assert lines["ahead of libei in each rate of W1 to W3 (on W4 it builds no tree)"][1:] == [
        "3.00 (send_casts; 1 of 1 reach it)",
        "yes",
    ]
    assert lines["ahead of JInterface in each rate that it has"][1:] == ["-", "not measured"]
    assert lines["interpreted, beside compiled, in each rate"][1:] == ["0.25 (send_casts; 2 of 2 reach it)", "yes"]


def test_document_has_a_section_on_zenmonitor_and_says_who_is_missing() -> None:
    document = report.document(of_two_rounds())
    assert "\n## ZenMonitor\n" in document
    assert "| W7 | … these end: DOWNs to the peer's subscriber, /s | 100 k | 300 k | 3.00 (2.00 to 4.00) |" in document
    assert "\nJInterface (Java) took no part: no java and javac here.\n" in document


def test_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    run = of_two_rounds()
    run.save(tmp_path / "figures.json")
    assert Run.load(tmp_path / "figures.json") == run
    figure = run.figure("inline", "send_casts", "per_second")
    assert figure is not None
    assert (figure.value, figure.ratio) == ((3e5, 2e5, 4e5), (3.0, 2.0, 4.0))
    assert run.figure("libei", "zen_downs", "per_second") is None
    assert run.figure("inline", "receive_casts", "per_second") is None


def test_file_that_is_no_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    for text in ("{}", "[]", "nonsense", '{"contenders": {}, "rows": [], "wire": [], "colour": "blue"}'):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"no file of figures|Expecting value"):
            Run.load(path)


def test_recorded_casts_are_told_apart_by_what_they_announce() -> None:
    load = Load()
    assert load.announced >= 1
    assert len(load.block) > 0.9 * READ_SIZE
    wire = DistChannel(OFFERED, peer=PEER)
    assert len(wire.receive_data(load.announcement)) == load.announced
    assert len(wire.receive_data(load.block)) == load.casts
    assert wire.failure is None


def test_frame_with_all_atoms_written_out_can_be_read() -> None:
    wire = DistChannel(OFFERED, peer=PEER)
    control, message = (6, Pid(Atom(PEER), 1, 0, 7), Atom(""), Atom("sink")), (Atom("report"), 1)
    assert wire.receive_data(frame(control, message)) == [(control, message)]


def test_library_that_cannot_be_built_is_named_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(MissingPeerError, match=r"^no ei\.h and libei\.a below .* \(Debian: erlang-dev\)$"):
        library_command("libei", tmp_path, tmp_path)
