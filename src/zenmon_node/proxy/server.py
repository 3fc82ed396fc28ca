"""``Elixir.ZenMonitor.Proxy``, the process: carries out what its core decides."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from erlang_interop.errors import EncodeError

from .. import messages as m
from ..complaints import shortened
from ..memory import Table
from ..sweeping import SweepingServer
from ..truncator import TRUNCATED
from .core import ProxyCore

if TYPE_CHECKING:
    from typing import Any

    from erlang_interop.terms import Atom, Pid, Reference, Term

    from ..config import Settings
    from ..counters import Counters

_log = structlog.get_logger("zenmon_node")


class Proxy(SweepingServer):
    """The process ``Elixir.ZenMonitor.Proxy``: carries out what its core decides.

    Args:
        settings: ZenMonitor's settings.
        counters: What is counted.
    """

    core: ProxyCore
    #: The monitors of the process: on names and on processes elsewhere. There may be very many.
    _monitors: Table[Reference, Any]

    def __init__(self, settings: Settings, counters: Counters) -> None:
        super().__init__(counters)
        self._settings = settings
        self._counters = counters

    def started(self) -> None:
        """Start empty: with the process before this one its native monitors have gone, and its clients were told."""
        observer = self.process.observe(self._deaths_wait)
        self.core = ProxyCore(self.node.name, self, observer, self._settings, self._counters)
        self.process.monitors = self._monitors = Table()
        self._set_idle_after()

    def _set_idle_after(self) -> None:
        self.idle_after(self._settings.hibernation_threshold * self._settings.batcher_sweep_interval / 1000)

    def configure(self, settings: Settings) -> None:
        """Take other settings from now on."""
        self._settings = settings
        self.core.configure(settings)
        self._set_idle_after()
        self.wake_at(self.core.next_due(self.now()))

    def receive(self, message: Term) -> None:
        """A ping, instructions, or a death."""
        if self.core.handle(message, self.sender):
            self.wake_at(self.core.next_due(self.now()))

    def _deaths_wait(self) -> None:
        """A process that is watched has ended. At the next turn of the loop all that have by then are dealt with."""
        self.wake_at(self.now())

    def tick(self) -> None:
        """Deal with the dead, go on with long work, send the summaries that are due."""
        now = self.now()
        self.core.work()
        self.core.sweep(now)
        self.wake_at(self.core.next_due(now))

    def recover(self) -> None:
        """Go on after an exception in one of the above."""
        self.core.recover()
        self.wake_at(self.core.next_due(self.now()))

    def idle(self) -> None:
        """Give back memory."""
        self.core.tables.compact()
        self._monitors.compact()

    # -- ProxyPort

    def monitor(self, target: m.Target) -> Reference:
        """Monitor natively."""
        return self.process.monitor(target)

    def demonitor(self, ref: Reference) -> None:
        """Give a native monitor back; a DOWN that is on its way finds no row."""
        self.process.demonitor(ref)

    def can_reach(self, node: Atom) -> bool:
        """True for the own node and connected ones."""
        return node == self.node.name or self.node.is_connected(node)

    def is_busy(self, node: Atom) -> bool:
        """True while the connection holds more than it should."""
        return node != self.node.name and self.node.is_busy(node)

    def send(self, dest: Pid | Reference, message: Term) -> None:
        """Answer a call; who asked and is not reachable any more is not dialled for it."""
        if self.can_reach(dest.node):
            self.process.send(dest, message)

    def send_summary(self, subscriber: Pid, certificates: list[m.Certificate]) -> None:
        """Send a batch; a reason that no external term can carry, or none for that node, costs itself, not the others.

        What cannot be sent is found by halves: its other halves are summaries of their own, in order.
        """
        try:
            self.process.send(subscriber, m.dead_summary(self.node.name, certificates))
        except EncodeError as error:
            if len(certificates) > 1:
                middle = len(certificates) // 2
                self.send_summary(subscriber, certificates[:middle])
                self.send_summary(subscriber, certificates[middle:])
                return
            target, reason = certificates[0]
            if reason is TRUNCATED:
                _log.error(
                    "a death cannot be reported", subscriber=str(subscriber), target=shortened(target), error=str(error)
                )
            else:
                self.send_summary(subscriber, [(target, TRUNCATED)])

    def held_monitors(self) -> list[Reference]:
        """All monitors of the process."""
        return list(self.process.monitors)
