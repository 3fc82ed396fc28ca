"""The Dispatcher: pace, order, and references that were given back while their DOWN waited."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from erlang_interop.terms import Atom, Reference
from tests.unit.zenmon.ports import THERE, pid, ref
from zenmon_node import messages as m
from zenmon_node.config import Settings
from zenmon_node.local.dispatcher import DispatcherCore
from zenmon_node.local.tables import LocalTables
from zenmon_node.memory import Table
from zenmon_node.pacing import SLICE

if TYPE_CHECKING:
    from collections.abc import Iterator

ME = pid(1)


class Bench:
    def __init__(self, settings: Settings | None = None) -> None:
        self.tables = LocalTables()
        self.core = DispatcherCore(self.tables, settings or Settings())
        self.now = 50.0

    def dies(self, *numbers: int, reason: object = m.NOPROC) -> None:
        for number in numbers:
            self.tables.add(ref(number), ME, pid(number, THERE))
            self.core.enqueue([(pid(number, THERE), ref(number), reason)])

    def run(self) -> list[tuple[float, int]]:
        """When how many were delivered, seconds since the start and messages."""
        start, batches = self.now, []
        while (due := self.core.next_due(self.now)) is not None:
            self.now = max(due, self.now)
            out = self.core.deliver(self.now)
            if out:
                batches.append((round(self.now - start, 3), len(out)))
        return batches


def test_the_message() -> None:
    bench = Bench()
    bench.dies(7, reason=Atom("boom"))
    assert bench.core.deliver(bench.now) == [
        (ME, (m.DOWN, ref(7), m.PROCESS, pid(7, THERE), (m.ZEN_MONITOR, Atom("boom"))))
    ]
    assert bench.core.next_due(bench.now) is None


def test_5500_deaths_come_as_the_original_delivers_them() -> None:
    bench = Bench()
    bench.dies(*range(5500))
    assert bench.run() == [(0.0, 1000), (0.1, 1000), (0.2, 1000), (0.3, 1000), (0.4, 1000), (0.5, 500)]


def test_unused_demand_is_not_saved_up() -> None:
    bench = Bench()
    bench.dies(*range(10))
    assert bench.run() == [(0.0, 10)]
    bench.dies(*range(100, 2100))
    assert bench.run() == [(0.1, 1000), (0.2, 1000)]


def test_demonitored_ones_use_no_demand() -> None:
    bench = Bench()
    bench.dies(*range(4000))
    for number in range(3000):
        bench.tables.take(ref(number))
    assert bench.run() == [(0.0, 1000)]


def test_large_demand_goes_in_slices() -> None:
    bench = Bench(Settings(demand_amount=1_000_000, demand_interval=1))
    bench.dies(*range(2 * SLICE + 500))
    assert bench.run() == [(0.0, SLICE), (0.0, SLICE), (0.0, 500)]


def test_skipping_goes_in_slices_too() -> None:
    bench = Bench()
    bench.dies(*range(5_000))
    for number in range(4_999):
        bench.tables.take(ref(number))
    assert bench.core.deliver(bench.now) == []
    assert bench.core.next_due(bench.now) == bench.now
    assert bench.run() == [(0.0, 1)]


def test_several_references_and_a_lost_node_keep_their_order() -> None:
    bench = Bench()
    for number in range(1, 7):
        bench.tables.add(ref(number), ME, pid(9, THERE))
    bench.core.enqueue([(pid(1, THERE), {ref(2): None, ref(1): None}, m.NOPROC)])
    lost: Table[m.Target, m.References] = Table()
    lost[pid(3, THERE)] = ref(3)
    lost[pid(4, THERE)] = {ref(4): None, ref(5): None}
    bench.core.enqueue_lost(lost, m.NODEDOWN)
    bench.core.enqueue_lost(Table(), m.NODEDOWN)
    bench.core.enqueue([(pid(6, THERE), ref(6), m.NOPROC)])
    out = bench.core.deliver(bench.now)
    assert [message[1] for _, message in out] == [ref(n) for n in (2, 1, 3, 4, 5, 6)]
    assert [message[3] for _, message in out] == [pid(n, THERE) for n in (1, 1, 3, 4, 4, 6)]
    assert [message[4][1] for _, message in out] == [m.NOPROC] * 2 + [m.NODEDOWN] * 3 + [m.NOPROC]


def test_work_that_arrives_in_the_middle_follows() -> None:
    bench = Bench(Settings(demand_amount=2))
    bench.dies(1, 2, 3)
    assert len(bench.core.deliver(bench.now)) == 2
    bench.dies(4)
    assert bench.run() == [(0.1, 2)]


def test_settings_change_while_running() -> None:
    bench = Bench()
    bench.dies(*range(3000))
    bench.core.deliver(bench.now)
    bench.core.configure(Settings(demand_amount=100, demand_interval=1000))
    due = bench.core.next_due(bench.now)
    assert due == bench.now + 1.0
    assert len(bench.core.deliver(due)) == 100


def test_after_an_exception_what_waits_is_counted_as_before() -> None:
    bench = Bench(Settings(demand_amount=2))
    lost: Table[m.Target, m.References] = Table()
    for number in (1, 4):
        lost[pid(number, THERE)] = {ref(number): None, ref(number + 1): None, ref(number + 2): None}
        for one in (number, number + 1, number + 2):
            bench.tables.add(ref(one), ME, pid(number, THERE))
    bench.core.enqueue_lost(lost, m.NODEDOWN)
    bench.dies(7)
    bench.core.deliver(bench.now)
    bench.core.recover()
    assert sum(count for _, count in bench.run()) == 5
    assert bench.core.waiting_downs == 0


def test_an_exception_in_the_middle_loses_nothing() -> None:
    class Broken(Exception):
        pass

    class FailsOnce(dict[Reference, None]):
        failed = False

        def __iter__(self) -> Iterator[Reference]:
            if not self.failed:
                self.failed = True
                raise Broken
            return super().__iter__()

    bench = Bench()
    bench.dies(1)
    several: dict[Reference, None] = FailsOnce({ref(2): None, ref(3): None})
    for one in several.keys():  # noqa: SIM118 - its iteration is what fails
        bench.tables.add(one, ME, pid(2, THERE))
    bench.core.enqueue([(pid(2, THERE), several, m.NOPROC)])
    bench.dies(4)
    with pytest.raises(Broken):
        bench.core.deliver(bench.now)
    bench.core.recover()
    assert [message[1] for _, message in bench.core.deliver(bench.now)] == [ref(number) for number in (1, 2, 3, 4)]
    assert bench.core.waiting_downs == 0
