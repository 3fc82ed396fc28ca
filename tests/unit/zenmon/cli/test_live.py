"""The table of ``monitor``: which columns, rows and lines fit into which terminal, and how it is drawn."""

from __future__ import annotations

import io
import itertools
from typing import TYPE_CHECKING

import pytest
import trio
from rich.console import Console

from erlang_interop import Atom, Pid
from zenmon_node.cli.live import REFRESH, LiveReport, render
from zenmon_node.cli.targets import Target
from zenmon_node.cli.watching import Via, Watching

if TYPE_CHECKING:
    from trio.testing import MockClock

HEADS = ["node", "how", "state", "targets", "alive", "gone", "batches", "DOWN/s"]


def watching(nodes: int) -> Watching:
    """So many nodes; the first is the only one that has ZenMonitor, and the last one is lost."""
    made = Watching(0.0)
    for number in range(nodes):
        made.add(f"beam{number}@host.example.org", Via.NATIVE if number else Via.ZENMON, 12_000)
    first = next(iter(made.rows.values()))
    first.batches_sent, first.batches_received = 3, 14
    for _ in range(4_500):
        first.down(9.0)
    list(made.rows.values())[-1].lost()
    return made


def lines(what: Watching, width: int, height: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height)
    with console.capture() as capture:
        console.print(render(what, 10.0, width, height))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_one_node_on_a_wide_terminal() -> None:
    made = Watching(0.0)
    made.add("beam@127.0.0.1", Via.ZENMON, 2)
    made.rows["beam@127.0.0.1"].down(9.0)
    made.last.append("12:00:00.123Z worker@beam@127.0.0.1 killed")
    shown = lines(made, 120, 24)
    assert shown[0] == "1 of 2 gone after 10.0 s, 1 left"
    assert shown[2].split() == HEADS
    assert shown[3].split() == [
        "beam@127.0.0.1",
        "ZenMonitor",
        "compatible",
        "2",
        "1",
        "1",
        *["0", "out,", "0", "in"],
        "0",
    ]
    assert shown[5:] == ["12:00:00.123Z worker@beam@127.0.0.1 killed"]


def test_figures_of_nodes() -> None:
    shown = lines(watching(3), 120, 24)
    assert shown[3].endswith("12,000   7,500  4,500  3 out, 14 in   1,500")
    assert shown[4].split()[1:] == ["native", "connected", "12,000", "12,000", "0", "-", "0"]
    assert "nodedown" in shown[5]


@pytest.mark.parametrize("width", [20, 30, 40, 60, 80, 100, 200])
@pytest.mark.parametrize("height", [5, 8, 24, 60])
@pytest.mark.parametrize("nodes", [1, 3, 20, 200])
def test_it_fits_into_any_terminal(width: int, height: int, nodes: int) -> None:
    made = watching(nodes)
    for number in range(20):
        made.last.append(f"12:00:00.123Z worker{number}@beam@127.0.0.1 {'x' * 300}")
    shown = lines(made, width, height)
    assert max(map(len, shown)) <= width
    assert len(shown) < max(height, 6)  # with one left for the cursor; of the smallest nothing can be left out
    assert shown[3].startswith("beam0@host.exam")
    if height == 24:
        assert shown[-1].startswith("12:00:00.123Z work")
        assert ("... and" in "".join(shown)) == (nodes >= 20)
    # A name may be cut, but never a figure: a column is shown whole or not at all.
    assert "…" not in shown[2]
    assert "…" not in "".join(shown[3].split()[1:])


def test_the_least_important_columns_go_first() -> None:
    heads = [lines(watching(1), width, 24)[2].split() for width in (200, 80, 70, 60, 40, 20)]
    assert heads[0] == HEADS
    for wide, narrow in itertools.pairwise(heads):
        assert set(narrow) < set(wide)
    assert heads[3] == ["node", "state", "alive", "gone", "DOWN/s"]
    assert heads[-1] == ["node"]


async def test_it_is_drawn_a_few_times_a_second_and_stays(autojump_clock: MockClock) -> None:
    out = io.StringIO()
    made = Watching(trio.current_time())
    made.add("beam@127.0.0.1", Via.ZENMON, 10_000)
    row = made.rows["beam@127.0.0.1"]
    refreshed: list[float] = []
    console = Console(file=out, force_terminal=True, width=100, height=24)
    report = LiveReport(made, lambda: refreshed.append(trio.current_time()), console)
    pid = Pid(Atom("beam@127.0.0.1"), 85, 0, 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(report.show)
        report.monitoring()
        for number in range(10_000):
            row.down(trio.current_time())
            report.down(Target(f"w{number}@beam@127.0.0.1", "beam@127.0.0.1", f"w{number}"), row, pid, Atom("killed"))
            if number % 1000 == 0:
                await report.flush()
                await trio.sleep(0.1)
        await report.ended(trio.current_time())
        nursery.cancel_scope.cancel()
    assert len(refreshed) <= 1 + 1.0 / REFRESH + 2
    text = out.getvalue()
    assert text.removesuffix("\x1b[?25h").splitlines()[-1].endswith("w9999@beam@127.0.0.1 killed")
    assert "10,000 of 10,000 gone after" in text
    assert "w123@" not in text  # most are never shown: nobody could read them
    assert "\x1b[?25h" in text  # the cursor is there again
