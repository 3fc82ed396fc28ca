"""``make growth``: what a message and an entry cost with few of everything and with very many.

    python -m benchmarks.growth [--messages connections,monitors,processes] [--items names,links,...] [--write]

Each figure comes from a program of its own. Exit status: 0 done, 1 a measurement failed, 2 usage.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.growth_items import GROUPS, measure
from benchmarks.growth_node import BURST, SERIES
from benchmarks.report import as_markdown, as_text
from zenmon_node.build import describe_build

PROJECT: Final = Path(__file__).resolve().parent.parent
DOCUMENT: Final = PROJECT / "docs" / "growth.md"
FIGURES: Final = PROJECT / "docs" / "growth.json"
#: What may be more at the right end of a line than at its left: the processor's caches hold a thousand entries, not a
#: hundred thousand.
FLAT: Final = 1.5
LIMIT_S: Final = 600.0


class GrowthError(Exception):
    """A measurement failed; what it printed is on standard error."""


@dataclass(frozen=True)
class Line:
    """One step or kind of message.

    Attributes:
        table: The title of its table.
        unit: What the numbers count.
        name: What is done.
        sizes: Of how many there are.
        cost: Microseconds of processor time each, for each of the numbers.
        collecting: What of them was Python's garbage collector.
    """

    table: str
    unit: str
    name: str
    sizes: list[int]
    cost: list[float]
    collecting: list[float]

    @property
    def growth(self) -> float:
        """The last cost to the first."""
        return self.cost[-1] / self.cost[0]

    @property
    def own_growth(self) -> float:
        """The same without the garbage collector."""
        first, last = (self.cost[at] - self.collecting[at] for at in (0, -1))
        return last / first


def messages(series: str) -> list[Line]:
    """Measure the cost of messages with more and more of one thing."""
    sizes, _ = SERIES[series]
    runs = [_in_program("benchmarks.growth_node", series, str(size)) for size in sizes]
    return [
        Line(f"Messages and {series}", series, row, list(sizes), [run[row] for run in runs], [0.0] * len(sizes))
        for row in runs[0]
    ]


def items(key: str) -> list[Line]:
    """Measure one group of steps."""
    group = GROUPS[key]
    runs = [
        _in_program("benchmarks.growth", "--one", key, str(size), str(repeats))
        for size, repeats in zip(group.sizes, group.repeats, strict=True)
    ]
    return [
        Line(
            group.title,
            group.unit,
            name,
            list(group.sizes),
            [run[name][0] for run in runs],
            [run[name][1] for run in runs],
        )
        for name in runs[0]
    ]


def _in_program(module: str, *arguments: str) -> dict[str, Any]:
    """Run a program that prints one line of JSON, so that nothing inherits a heap from what was measured before."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True, timeout=LIMIT_S, check=False)
    if done.returncode != 0:
        raise GrowthError(f"{' '.join(command[1:])} ended with status {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def table(lines: list[Line]) -> list[list[str]]:
    """The cells of the table of these lines, which have their sizes in common."""
    sizes = [f"{size:,}" for size in lines[0].sizes]
    cells = [[f"µs of CPU each; {lines[0].unit}:", *sizes, "growth", "GC", "without"]]
    for line in lines:
        costs = [f"{cost:.2f}" if cost < 100 else f"{cost:.0f}" for cost in line.cost]
        of_collector = (
            [f"{line.collecting[-1]:.2f}", f"{line.own_growth:.2f}"] if line.collecting[-1] > 0.01 else ["", ""]
        )
        cells.append([line.name, *costs, f"{line.growth:.2f}", *of_collector])
    return cells


def by_table(lines: list[Line]) -> dict[str, list[Line]]:
    """The lines of each table, in order."""
    tables: dict[str, list[Line]] = {}
    for line in lines:
        tables.setdefault(line.table, []).append(line)
    return tables


def document(lines: list[Line], build: str) -> str:
    """The text of ``docs/growth.md``."""
    tables = "\n".join(f"## {title}\n\n{as_markdown(table(own))}\n" for title, own in by_table(lines).items())
    more = [f"- {line.table}: *{line.name}*, {line.own_growth:.1f}" for line in lines if line.own_growth > FLAT]
    steep = "\n".join(more) if more else "- nothing."
    return f"""# What more of everything costs

Written by `make growth WRITE=1` ({build}, {os.cpu_count()} processors). The cost of a message must not depend on how
many connections, monitors and processes there are, and that of an entry not on how many others the table has.
*Growth* is the right figure to the left one; where Python's garbage collector took part on the right, *GC* is its share
of that figure, and *without* the growth of the rest. Processor time, medians; each figure is from a program of its own.

![growth of the cost of messages](plots/growth-messages.svg)

![growth of the cost of entries](plots/growth-items.svg)

Quadratic would show as a growth of 100. What grows by more than {FLAT}, the garbage collector left out:

{steep}

What makes it grow:

- *Caches of the processor.* A thousand entries fit into them, a hundred thousand do not, and what is in none costs some
  hundred nanoseconds each time. The lines that begin with "always the same" show it: with as many processes, of which
  ten have something to do, a message costs what it costs with ten.
- *Memory that was never used before* comes from the system page by page, in the first step of a group above all.
- *A heap of timers* is a logarithm: to fire one costs a few comparisons more with 100,000 than with 1,000.
- *The garbage collector* looks at all objects that may be part of a cycle each time that their number has grown by a
  quarter: never with a few thousand new ones, and from then on at a cost that is the same for each, however many there
  are. Pids, references, links and monitors are invisible to it in the compiled build; timers and processes are not.

Two costs are proportional to the messages that wait, by their nature and as on a BEAM:

- A *selective receive* looks at each message in front of the one it wants, once: {_looked_at(lines)} µs for each, and
  when it has to wait it looks at those that come meanwhile alone. A call (`gen.call`, `spawn_remote`) does not look at
  any message that was there before the question, as a BEAM with its receive markers.
- `demonitor(flush=True)` of a monitor that has fired looks for the DOWN from the oldest message on.

Messages are measured in bursts of {BURST} for each connection over real sockets, by one node against nodes in another
program, whose time does not count; entries in clusters in memory, with the time of both nodes.

{tables}"""


def _looked_at(lines: list[Line]) -> str:
    costs = [line.cost[-1] for line in lines if "passed over" in line.name]
    return f"{costs[0]:.2f}" if costs else "?"


def save(lines: list[Line], path: Path) -> None:
    """Write the figures as JSON: a list of what :class:`Line` has."""
    path.write_text(json.dumps([asdict(line) for line in lines], indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load(path: Path) -> list[Line]:
    """Read what :func:`save` wrote."""
    return [Line(**line) for line in json.loads(path.read_text(encoding="utf-8"))]


def arguments_of(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line; ends the program on nonsense."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.growth", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--messages", default=",".join(SERIES), help=f"a list from {','.join(SERIES)}; '' for none")
    parser.add_argument("--items", default=",".join(GROUPS), help=f"a list from {','.join(GROUPS)}; '' for none")
    parser.add_argument("--write", action="store_true", help="write docs/growth.md, docs/growth.json and the plots")
    parser.add_argument("--one", nargs=3, metavar=("GROUP", "SIZE", "REPEATS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    for name, known in (("messages", SERIES), ("items", GROUPS)):
        chosen = [word for word in getattr(arguments, name).split(",") if word]
        if unknown := [word for word in chosen if word not in known]:
            parser.error(f"{', '.join(unknown)}: none of {', '.join(known)}")
        setattr(arguments, name, chosen)
    if arguments.write and (set(arguments.messages) != set(SERIES) or set(arguments.items) != set(GROUPS)):
        parser.error("--write needs all of --messages and --items")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Run; the exit status."""
    arguments = arguments_of(argv)
    if arguments.one:
        key, size, repeats = arguments.one
        print(json.dumps(measure(GROUPS[key], int(size), int(repeats))))
        return 0
    lines: list[Line] = []
    try:
        for measured, keys in ((messages, arguments.messages), (items, arguments.items)):
            for key in keys:
                found = measured(key)
                lines += found
                print(f"{found[0].table}\n{as_text(table(found))}\n", flush=True)
    except (GrowthError, subprocess.TimeoutExpired) as error:
        print(error, file=sys.stderr)
        return 1
    if arguments.write:
        from benchmarks import plots  # its library is in the extra `bench` alone

        save(lines, FIGURES)
        DOCUMENT.write_text(
            document(lines, f"Python {platform.python_version()}, {describe_build()}"), encoding="utf-8"
        )
        plots.growth(lines, DOCUMENT.parent / "plots")
        print(f"written: {os.path.relpath(DOCUMENT)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
