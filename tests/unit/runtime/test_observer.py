"""Watching processes of one's own node without a monitor for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from erlang_interop import Atom, InlineServer, Node, Pid
from erlang_interop.testing.cluster import open_cluster

if TYPE_CHECKING:
    from erlang_interop.runtime.observer import Observer
    from erlang_interop.terms import Term

DIED = Atom("died")


class Idle(InlineServer):
    def handle_message(self, message: Term) -> None:
        pass


class Watching(Idle):
    """It counts how often it was told that there is something to take."""

    observer: Observer
    notified = 0

    def started(self) -> None:
        self.observer = self.process.observe(self.notify)

    def notify(self) -> None:
        self.notified += 1


def watchers(node: Node, pid: Pid) -> int:
    return len(node._router.processes[pid].watchers)


async def test_deaths_are_written_down_in_order_and_told_of_once() -> None:
    async with open_cluster("a@test") as (node,):
        watching = Watching()
        node.start_inline(watching)
        before = node.statistics()["monitors"]
        first, second, third = (node.start_inline(Idle()) for _ in range(3))
        same = Pid(first.node, first.id, first.serial, first.creation)
        assert watching.observer.watch(same) is first  # the process's own
        watching.observer.watch(second)
        watching.observer.watch(third)
        assert node.statistics()["monitors"] == before + 3
        assert watching.observer.watched() == [first, second, third]
        watching.observer.release(second)
        for pid in (third, second, first):
            node.exit(pid, DIED)
        assert (watching.observer.deaths, watching.notified) == ([(third, DIED), (first, DIED)], 1)
        assert (watching.observer.count, watching.observer.watched()) == (0, [])
        assert node.statistics()["monitors"] == before


async def test_whoever_is_not_there_is_dead() -> None:
    async with open_cluster("a@test") as (node,):
        watching = Watching()
        node.start_inline(watching)
        gone = node.start_inline(Idle())
        node.exit(gone, DIED)
        assert watching.observer.watch(gone) == gone
        watching.observer.release(gone)
        assert (watching.observer.deaths, watching.observer.count) == ([(gone, Atom("noproc"))], 0)


async def test_it_stands_beside_monitors_by_reference() -> None:
    async with open_cluster("a@test") as (node,):
        watching = Watching()
        own = node.start_inline(watching)
        pid = node.start_inline(Idle())
        ref = watching.process.monitor(pid)
        watching.observer.watch(pid)
        assert watchers(node, pid) == 2
        watching.process.demonitor(ref)
        assert (watchers(node, pid), watching.observer.watched()) == (1, [pid])
        watching.observer.watch(own)  # one's own end is nothing that one could learn of
        node.exit(own, DIED)
        assert (watchers(node, pid), watching.observer.count, watching.observer.deaths) == (0, 0, [])
        node.exit(pid, DIED)
        assert watching.observer.deaths == []


async def test_a_process_has_one_observer() -> None:
    async with open_cluster("a@test") as (node,):
        watching = Watching()
        node.start_inline(watching)
        with pytest.raises(RuntimeError, match="has an observer already"):
            watching.process.observe(watching.notify)
