"""What ``zenmon-node monitor`` knows while it runs: of each node how many targets are left, and how fast they go. Pure.

It is fed with what happens, and with the time it happened at; ``live.py`` draws it, ``monitoring.py`` feeds it. What
it keeps does not grow with the number of targets that have gone.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import TYPE_CHECKING, Final

from ..local.api import Cached, CachedCompatibility

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..status import Remote

#: Seconds over which a rate is taken.
WINDOW: Final = 3.0
#: Seconds within which events are counted as one: the resolution of :data:`WINDOW`.
SLOT: Final = 0.25
#: The last targets that have gone, kept to be shown.
KEPT: Final = 10


class Via(enum.Enum):
    """How a node's processes are monitored."""

    ZENMON = "zenmon"
    """Through its ZenMonitor."""
    NATIVE = "native"
    """Each by Erlang's own monitor."""


class Rate:
    """How many a second, over the last seconds.

    Args:
        started: When counting began, in seconds of any monotonic clock. A rate is never taken over less than a second.
    """

    __slots__ = ("_slots", "_started")

    def __init__(self, started: float) -> None:
        self._started = started
        #: Number of the slot, and events in it. Oldest first, none older than the window.
        self._slots: deque[tuple[int, int]] = deque()

    def add(self, now: float) -> None:
        """One more."""
        slot = int(now / SLOT)
        if self._slots and self._slots[-1][0] == slot:
            self._slots[-1] = (slot, self._slots[-1][1] + 1)
        else:
            self._forget(now)
            self._slots.append((slot, 1))

    def per_second(self, now: float) -> float:
        """The rate at ``now``."""
        self._forget(now)
        return sum(count for _, count in self._slots) / min(WINDOW, max(1.0, now - self._started))

    def _forget(self, now: float) -> None:
        while self._slots and self._slots[0][0] * SLOT < now - WINDOW:
            self._slots.popleft()


class Row:
    """What is known of one node.

    Attributes:
        node: Its name.
        via: How its processes are monitored.
        targets: How many.
        gone: How many of them have gone.
        batches_sent: Batches of subscriptions sent to its Proxy; 0 where there is none.
        batches_received: Batches of deaths received from it.
    """

    def __init__(self, node: str, via: Via, targets: int, started: float) -> None:
        self.node = node
        self.via = via
        self.targets = targets
        self.gone = 0
        self.batches_sent = 0
        self.batches_received = 0
        self._rate = Rate(started)
        self._connected = True
        self._verdict = CachedCompatibility(Cached.COMPATIBLE)

    @property
    def alive(self) -> int:
        """Targets that have not gone, as far as is known."""
        return self.targets - self.gone

    @property
    def state(self) -> str:
        """In a word: ``nodedown``, ``done``, ``connected`` (natively) or what the node's ZenMonitor is found to be.

        After the first failure of a Proxy that has answered before, monitors may survive; after the next they do not.
        """
        if not self._connected:
            return "nodedown"
        if not self.alive:
            return "done"
        if self.via is Via.NATIVE:
            return "connected"
        if self._verdict.status is Cached.COMPATIBLE:
            return "compatible"
        return "recovering" if self._verdict.attempts <= 1 else "incompatible"

    def rate(self, now: float) -> float:
        """DOWNs a second over the last seconds."""
        return self._rate.per_second(now)

    def down(self, now: float) -> None:
        """One of its targets has gone."""
        self.gone += 1
        self._rate.add(now)

    def lost(self) -> None:
        """The node is not connected any more. What it had goes one by one."""
        self._connected = False

    def found(self, verdict: CachedCompatibility) -> bool:
        """What is known of its ZenMonitor now. True if that is news, and matters."""
        if self.via is Via.NATIVE or not self._connected or verdict == self._verdict:
            return False
        self._verdict = verdict
        return True


class Watching:
    """All nodes of one run.

    Args:
        started: When it began, in seconds of any monotonic clock.
    """

    def __init__(self, started: float) -> None:
        self.started = started
        #: By the names of the nodes, in the order in which they are shown.
        self.rows: dict[str, Row] = {}
        #: The last targets that have gone, oldest first, as they are to be shown.
        self.last: deque[str] = deque(maxlen=KEPT)

    def add(self, node: str, via: Via, targets: int) -> None:
        """One more node, with so many targets."""
        self.rows[node] = Row(node, via, targets, self.started)

    @property
    def targets(self) -> int:
        """How many there are on all nodes."""
        return sum(row.targets for row in self.rows.values())

    @property
    def gone(self) -> int:
        """How many of them have gone."""
        return sum(row.gone for row in self.rows.values())

    def update(self, remotes: Iterable[Remote]) -> None:
        """Take over how many batches there were. A remote that is not among them any more keeps what it had."""
        for remote in remotes:
            row = self.rows.get(remote.node.name)
            if row is not None:
                row.batches_sent, row.batches_received = remote.batches, remote.summaries

    def summary(self, now: float) -> str:
        """How it stands, in a line."""
        targets, gone = self.targets, self.gone
        return f"{gone:,} of {targets:,} gone after {now - self.started:.1f} s, {targets - gone:,} left"
