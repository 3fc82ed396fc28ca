"""The plots of ``docs/benchmarks.md`` and ``docs/growth.md``: SVG files in ``docs/plots``. Needs the extra ``bench``.

python -m benchmarks.plots          (draws them anew from docs/benchmarks.json and docs/growth.json)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.growth import FIGURES as GROWTH
from benchmarks.growth import Line, load
from benchmarks.results import Run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.results import MeasuredRow

PROJECT: Final = Path(__file__).resolve().parent.parent
FOLDER: Final = PROJECT / "docs" / "plots"
#: Text stays text, so that the files are small; the same figures give the same file.
_SETTINGS: Final[dict[str, Any]] = {"svg.fonttype": "none", "svg.hashsalt": "zenmon-node", "font.size": 9.0}
_METADATA: Final[dict[str, Any]] = {"Date": None, "Creator": None}
#: Our node's builds and kinds of process, of which each has bars where it was measured.
CONTENDERS: Final = ("inline", "mailbox", "pure")


def benchmarks(run: Run, folder: Path = FOLDER) -> list[Path]:
    """Draw the ratios to a BEAM, a bar for each contender and row: how many times better our node is.

    Returns:
        The files written.
    """
    chosen = [key for key in CONTENDERS if key in run.contenders]
    rows = [row for row in run.rows if any(_better(row, key) is not None for key in chosen)]
    figure = Figure(figsize=(9, 1.2 + 0.16 * len(rows) * max(1, len(chosen))), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / max(1, len(chosen))
    for number, key in enumerate(chosen):
        places = [index + height * number for index, row in enumerate(rows) if _better(row, key) is not None]
        widths = [better - 1 for row in rows if (better := _better(row, key)) is not None]
        axes.barh(places, widths, height, left=1, label=run.contenders[key].title)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xticks([0.1, 0.25, 0.5, 1, 2, 4, 8], ["0.1", "0.25", "0.5", "as a BEAM", "2", "4", "8"], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_yticks(
        [index + height * (len(chosen) - 1) / 2 for index in range(len(rows))],
        [f"{row.label} {row.title}" for row in rows],
    )
    axes.invert_yaxis()
    axes.set_xlabel("how many times better than a BEAM in the same run\n(of times and memory: how many times less)")
    axes.legend(loc="best")
    return [_save(figure, folder / "benchmarks.svg")]


def _better(row: MeasuredRow, contender: str) -> float | None:
    """How many times better than a BEAM; None where there is no ratio."""
    figure = row.figures.get(contender)
    if figure is None or figure.ratio is None:
        return None
    return figure.ratio.median if row.more_is_better else 1 / figure.ratio.median


def growth(lines: Sequence[Line], folder: Path = FOLDER) -> list[Path]:
    """Draw what messages and entries cost with more and more of everything, relative to what they cost with few.

    Returns:
        The files written.
    """
    messages = [line for line in lines if line.table.startswith("Messages and ")]
    items = [line for line in lines if not line.table.startswith("Messages and ")]
    return [
        _curves(messages, folder / "growth-messages.svg", "connections, monitors, processes"),
        _curves(items, folder / "growth-items.svg", "entries"),
    ]


def _curves(lines: Sequence[Line], path: Path, what: str) -> Path:
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    colours = mpl.color_sequences["tab20"]
    tables = list(dict.fromkeys(line.table for line in lines))
    for line in lines:
        number = tables.index(line.table)
        first = next(other for other in lines if other.table == line.table)
        own = [cost / line.cost[0] for cost in line.cost]
        label = line.table if line is first else None
        axes.plot(line.sizes, own, linewidth=1, color=colours[number % len(colours)], label=label)
    axes.set_xscale("log")
    axes.set_ylim(0, max(3.0, *(line.growth * 1.05 for line in lines)) if lines else 3.0)
    axes.set_xlabel(f"number of {what}")
    axes.set_ylabel("cost of one, relative to the first")
    axes.grid(visible=True, linewidth=0.3)
    axes.legend(loc="upper left", fontsize=7)
    return _save(figure, path)


def _save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(_SETTINGS):
        figure.savefig(path, metadata=_METADATA)
    return path


def main() -> None:
    """Draw all anew."""
    for path in [*benchmarks(Run.load(PROJECT / "docs" / "benchmarks.json")), *growth(load(GROWTH))]:
        print(path.relative_to(PROJECT), f"{path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
