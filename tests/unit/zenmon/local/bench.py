"""A Connector's core on the bench: its remote, the time and the Dispatcher are played by the test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from erlang_interop.terms import Atom
from tests.unit.zenmon.ports import THERE, FakeConnectorPort, pid, ref
from zenmon_node import messages as m
from zenmon_node.config import Settings
from zenmon_node.local.connector import ConnectorCore
from zenmon_node.local.dispatcher import DispatcherCore
from zenmon_node.local.tables import LocalTables

if TYPE_CHECKING:
    from erlang_interop.terms import Reference, Term
    from zenmon_node.local.remote import State

ME = pid(1)
DIED = Atom("died")
NAME = (Atom("worker"), THERE)


def target(number: int) -> m.Target:
    return pid(number, THERE)


class Bench:
    """A Connector whose remote is played by the test."""

    def __init__(self, settings: Settings | None = None, *, compatible: bool = False) -> None:
        self.tables = LocalTables()
        settings = settings or Settings()
        self.dispatcher = DispatcherCore(self.tables, settings)
        self.core = ConnectorCore(THERE, self.dispatcher, settings)
        self.port = self.core.port = FakeConnectorPort()
        self.now = 1000.0
        if compatible:
            self.core.check()
            self.go(0.0)
            self.pong()

    def monitor(self, *numbers: int, of: m.Target | None = None) -> None:
        for number in numbers:
            self.tables.add(ref(number), ME, of or target(number))
            self.core.monitor(of or target(number), ref(number))

    def demonitor(self, *numbers: int) -> None:
        for number in numbers:
            row = self.tables.take(ref(number))
            assert row is not None
            self.core.demonitor(row[1], ref(number))

    def node_down(self) -> None:
        self.port.connected = False
        self.core.node_down(self.port.number)

    def node_up(self) -> None:
        self.port.connected = True
        self.port.number += 1
        self.core.node_up(self.port.number)

    @property
    def state(self) -> State:
        return self.core.proxy.state

    def fan_out(self) -> int:
        """Slices until every summary is fanned out."""
        slices = 0
        while self.core.busy:
            self.core.work()
            slices += 1
        return slices

    def go(self, seconds: float) -> None:
        """Let time pass, and the core run whenever it wants to."""
        end = self.now + seconds
        while not self.port.left and (due := self.core.next_due(self.now)) is not None and due <= end:
            self.now = max(due, self.now)
            self.core.sweep(self.now)
        self.now = end

    def pong(self, answer: Term = m.PONG) -> None:
        self.core.message((self.port.pings[-1], answer), self.now)
        self.go(0.0)

    def proxy_down(self, reason: Term, ref: Reference | None = None) -> None:
        message = (m.DOWN, ref or self.port.pings[-1], m.PROCESS, (m.PROXY, THERE), reason)
        self.core.message(message, self.now)

    def dead(self, *certificates: tuple[Term, ...], node: Atom = THERE) -> None:
        self.core.message(m.dead_summary(node, list(certificates)), self.now)

    def fired(self) -> list[tuple[int, Term]]:
        """Number and reason of all that has fired, in order; pacing is another test's business."""
        out: list[tuple[int, Term]] = []
        now = self.now
        while (due := self.dispatcher.next_due(now)) is not None:
            now = max(now, due)
            for _, (_, reference, _, _, (_, reason)) in self.dispatcher.deliver(now):
                out.append((int.from_bytes(reference.words, "big"), reason))
        return out
