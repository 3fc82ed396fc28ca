"""What the Local decides: ``monitor`` and ``demonitor`` for the processes of this node. Pure.

A monitor gets a reference and goes to the Connector of its target's node; its DOWN comes back through the Dispatcher.
The Local watches the processes that have monitors and cleans up after those that die. It starts a Connector for each
node when the first monitor needs one, another one when that process should crash, and forgets it when it goes. The
processes are in ``servers.py``.

What is monitored stands in ``tables``. All else (the Connectors' tables, what waits in queues) follows from it, and is
made anew from it when an exception has left it half done.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final, Protocol

from erlang_interop.terms import Atom, Pid

from .. import messages as m
from ..complaints import Complaints
from ..counters import Counters
from ..pacing import SLICE
from .connector import ConnectorCore
from .dispatcher import DispatcherCore
from .remote import State
from .tables import LocalTables

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from erlang_interop.terms import Reference

    from ..config import Settings
    from ..messages import Target
    from .remote import RemoteProxy


class Compatibility(enum.Enum):
    """Whether processes of a node can be monitored through ZenMonitor."""

    COMPATIBLE = "compatible"
    INCOMPATIBLE = "incompatible"


class Cached(enum.Enum):
    """What is known of a node, in the original's words."""

    COMPATIBLE = "compatible"
    INCOMPATIBLE = "incompatible"
    """It did not answer as it should; it is not asked again before the penalty is over."""
    EXPIRED = "expired"
    """The penalty is over; it will be asked again."""
    UNAVAILABLE = "unavailable"
    """It is not connected."""
    MISS = "miss"
    """It has not been asked."""


@dataclass(frozen=True, slots=True)
class CachedCompatibility:
    """A row of the compatibility cache."""

    status: Cached
    attempts: int = 0
    """How often in a row it has failed."""


class LocalPort(Protocol):
    """What the core asks of the process it runs in."""

    def make_ref(self) -> Reference:
        """A new reference."""

    def watch(self, subscriber: Pid) -> None:
        """Monitor a subscriber natively. Its DOWN may arrive during the call, if it is dead."""

    def start_connector(self, core: ConnectorCore) -> None:
        """Run a Connector."""

    def update_connector(self, core: ConnectorCore) -> None:
        """Something was done to a Connector's core."""


class LocalCore:
    """The decisions of a Local, and everything it knows. It outlives the processes that run it.

    Args:
        node: This node.
        settings: ZenMonitor's settings.
        counters: What is counted.

    Attributes:
        port: What carries the decisions out; set by whoever runs the core, before anything else.
        tables: The references.
        dispatcher: The queue of DOWN messages.
        connectors: By node.
        settings: ZenMonitor's settings.
        slice_size: Most monitors cleaned up between two turns of the loop.
    """

    port: LocalPort
    slice_size = SLICE

    def __init__(self, node: Atom, settings: Settings, counters: Counters | None = None) -> None:
        self.node = node
        self.counters = counters if counters is not None else Counters()
        self.tables = LocalTables()
        self.dispatcher = DispatcherCore(self.tables, settings, self.counters)
        self.connectors: dict[Atom, ConnectorCore] = {}
        self.complaints = Complaints(m.LOCAL.name, self.counters)
        self.settings = settings
        #: Processes that had a monitor at some time and live: their death will be noticed.
        self._watched: set[Pid] = set()
        #: What was known of a node when :meth:`changed_verdict` was asked last.
        self._told: dict[Atom, CachedCompatibility] = {}
        #: Monitors of dead subscribers that are not cleaned up yet.
        self._cleanup: deque[Iterator[tuple[Reference, Target]]] = deque()
        self.waiting_cleanups = 0

    def configure(self, settings: Settings) -> None:
        """Take other settings from now on."""
        self.settings = settings
        self.dispatcher.configure(settings)
        for connector in self.connectors.values():
            connector.configure(settings)

    def find_node(self, target: Target) -> Atom:
        """The node of a target; a bare name is one of this node."""
        if type(target) is Pid:
            return target.node
        return target[1] if type(target) is tuple else self.node

    # -- monitors

    def monitor(self, target: Target, subscriber: Pid) -> Reference:
        """Monitor ``target`` for ``subscriber``."""
        if type(target) is Pid:
            node = target.node
        else:
            node = self.find_node(target)
            if type(target) is Atom:
                target = (target, node)  # as Erlang reports it; the Proxy could not tell whose bare name it is
        self.counters.monitors += 1
        ref = self.port.make_ref()
        self.tables.add(ref, subscriber, target)
        connector = self.connectors.get(node)
        if connector is None:
            connector = self.connector(node)
        if connector.monitor(target, ref):
            self.port.update_connector(connector)
        if subscriber not in self._watched:
            self._watched.add(subscriber)
            self.port.watch(subscriber)  # last, for if it is dead its DOWN may be handled before this returns
        return ref

    def demonitor(self, ref: Reference, subscriber: Pid | None = None) -> bool:
        """Take a monitor back: it will not fire.

        Args:
            ref: The monitor.
            subscriber: If given, only a monitor of this process is taken back.

        Returns:
            True if it was active: no DOWN of it has been delivered.
        """
        self.counters.demonitors += 1
        owner = self.tables.owner(ref)
        if owner is None or (subscriber is not None and owner != subscriber):
            return False
        row = self.tables.take(ref)
        if row is None:
            return False
        self._withdraw(ref, row[1])
        return True

    def _withdraw(self, ref: Reference, target: Target) -> None:
        connector = self.connectors.get(self.find_node(target))
        # There may be none any more: references whose DOWN waits in the queue are no concern of a Connector.
        if connector is not None and connector.demonitor(target, ref):
            self.port.update_connector(connector)

    def connector(self, node: Atom) -> ConnectorCore:
        """The Connector of a node, started if there is none."""
        connector = self.connectors.get(node)
        if connector is None:
            connector = self.connectors[node] = ConnectorCore(node, self.dispatcher, self.settings, self.counters)
            self.port.start_connector(connector)
        return connector

    def forget(self, connector: ConnectorCore) -> None:
        """A Connector has gone, for nothing is monitored there."""
        del self.connectors[connector.remote]

    def cached_compatibility(self, node: Atom, now: float) -> CachedCompatibility:
        """What is known of a node; nothing is asked."""
        connector = self.connectors.get(node)
        return _UNKNOWN if connector is None else _verdict(connector.proxy, now)

    def changed_verdict(self, node: Atom, now: float) -> CachedCompatibility | None:
        """What is known of a node, if it is something else than at the last call."""
        verdict = self.cached_compatibility(node, now)
        if verdict == self._told.get(node, _UNKNOWN):
            return None
        if verdict == _UNKNOWN:
            del self._told[node]
        else:
            self._told[node] = verdict
        return verdict

    # -- subscribers that die

    def subscriber_down(self, subscriber: Pid) -> None:
        """A subscriber has died: none of its monitors fires any more, and all are withdrawn."""
        self._watched.discard(subscriber)
        rows = self.tables.take_subscriber(subscriber)
        if rows is not None:
            self.waiting_cleanups += len(rows)
            self._cleanup.append(rows.drain())

    @property
    def busy(self) -> bool:
        """True while something is to be cleaned up."""
        return bool(self._cleanup)

    def work(self) -> None:
        """Clean up one slice of monitors."""
        limit = self.slice_size
        while self._cleanup and limit > 0:
            for ref, target in islice(self._cleanup[0], limit):
                limit -= 1
                self.waiting_cleanups -= 1
                self.tables.forget(ref)
                self._withdraw(ref, target)
            if limit > 0:
                self._cleanup.popleft()

    def idle_after(self) -> float:
        """Seconds without work after which memory is given back."""
        return self.settings.hibernation_threshold * self.settings.connector_sweep_interval / 1000

    # -- after a crash

    def mend(self, connectors: Iterable[ConnectorCore], now: float) -> None:
        """An exception has interrupted something: bring these Connectors in line with the tables.

        Monitors that are neither known to a Connector nor on their way to be fired were lost by it; they are subscribed
        to anew.
        """
        rows: dict[Atom, list[tuple[Reference, Target]]] = {}
        firing = set(self.dispatcher.references())
        for connector in connectors:
            rows[connector.remote] = []
            firing.update(connector.lost_references())
        for row in self.tables.rows():
            of_its_node = rows.get(self.find_node(row[1]))
            if of_its_node is not None and row[0] not in firing:
                of_its_node.append(row)
        for node, monitored in rows.items():
            self.connectors[node].mend(monitored, now)

    def restarted(self) -> None:
        """Whatever ran this core has crashed, its Connectors with it; another runs it now and starts them anew."""
        self._watched = set(self.tables.subscriber_pids())
        for subscriber in list(self._watched):
            self.port.watch(subscriber)
        for connector in self.connectors.values():
            connector.restarted()
            self.port.start_connector(connector)


_UNKNOWN: Final = CachedCompatibility(Cached.MISS)


def _verdict(proxy: RemoteProxy, now: float) -> CachedCompatibility:
    match proxy.state:
        case State.COMPATIBLE:
            return CachedCompatibility(Cached.COMPATIBLE)
        case State.INCOMPATIBLE:
            over = proxy.deadline < now
            return CachedCompatibility(Cached.EXPIRED if over else Cached.INCOMPATIBLE, proxy.attempt)
        case State.RECOVERING:
            return CachedCompatibility(Cached.INCOMPATIBLE, proxy.attempt)
        case State.UNAVAILABLE:
            return CachedCompatibility(Cached.UNAVAILABLE)
        case State.PINGING if proxy.attempt:
            return CachedCompatibility(Cached.EXPIRED, proxy.attempt)
        case _:
            return _UNKNOWN
