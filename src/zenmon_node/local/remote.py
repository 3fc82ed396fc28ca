"""What a Connector knows of the remote Proxy: whether it speaks ZenMonitor, and when to ask it again. Pure.

::

    UNKNOWN ----- look: ping -----> PINGING -- pong --> COMPATIBLE <----- pong ------+
                                       |                    | Proxy gone             |
                                       |                    +-----------------> RECOVERING
                                       +-- else: attempt+1                           |
    UNAVAILABLE (not connected)        +---> INCOMPATIBLE until T, then ping <-------+ not back: attempt 2
         ^---- the node goes: from every state; when it comes back: UNKNOWN, attempts forgotten

The original knows no RECOVERING: there every monitor fires when the Proxy goes, though all processes live.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, Protocol

from .. import messages as m

if TYPE_CHECKING:
    from erlang_interop.terms import Reference, Term

#: The penalty after the n-th failure in a row is ``min(MAXIMUM, BASE * 2 ** n)`` seconds.
BASE_PENALTY: Final = 1.0
MAXIMUM_PENALTY: Final = 60.0
#: Seconds a Proxy has to answer a ping (the default of ``GenServer.call``, which the original uses).
PING_TIMEOUT: Final = 5.0


class State(enum.Enum):
    """What is known of the remote node."""

    UNKNOWN = "unknown"
    PINGING = "pinging"
    COMPATIBLE = "compatible"
    RECOVERING = "recovering"
    INCOMPATIBLE = "incompatible"
    UNAVAILABLE = "unavailable"


class News(enum.Enum):
    """What a change means for the monitors of the remote."""

    NONE = enum.auto()
    """Nothing."""
    COMPATIBLE = enum.auto()
    """They can be subscribed to."""
    FORGOTTEN = enum.auto()
    """The Proxy has gone, and with it all subscriptions; the processes may live."""
    LOST = enum.auto()
    """They cannot be monitored: all of them fire."""


def penalty(attempt: int) -> float:
    """Seconds for which a remote counts as incompatible after ``attempt`` failures in a row (1 and up)."""
    return min(MAXIMUM_PENALTY, BASE_PENALTY * (1 << min(attempt, 10)))


class RemotePort(Protocol):
    """How the remote is asked."""

    def is_connected(self) -> bool:
        """True if the remote is the own node or connected, hidden or visible."""

    def connection(self) -> int:
        """The number of the connection to the remote, when it is connected; 0 for the own node."""

    def ping(self) -> Reference:
        """Monitor the Proxy by its name and send it a ping tagged with the monitor's reference, which is returned."""

    def demonitor(self, ref: Reference) -> None:
        """Give the monitor on the Proxy back."""


class RemoteProxy:
    """What is known, and since when.

    Attributes:
        port: How it is asked; set by whoever runs it, before anything else.
        state: What is known.
        attempt: Failures in a row.
        deadline: When the ping, the recovery or the penalty ends, in seconds; without meaning in other states.
        wanted: A look at the remote is wanted although there is nothing to send.
    """

    port: RemotePort

    def __init__(self) -> None:
        self.state = State.UNKNOWN
        self.attempt = 0
        self.deadline = 0.0
        self.wanted = False
        #: The monitor on the Proxy: of the ping that is not answered, or of the Proxy that has answered.
        self._monitor: Reference | None = None
        #: The connection over which the Proxy was asked last; later ones have greater numbers.
        self._connection = 0

    @property
    def settled(self) -> bool:
        """True if no question to the remote is open."""
        return not self.wanted and self.state not in (State.UNKNOWN, State.PINGING, State.RECOVERING)

    @property
    def is_waiting(self) -> bool:
        """True while nothing can be sent for the answer is not there."""
        return self.state in (State.PINGING, State.RECOVERING)

    @property
    def wants_look(self) -> bool:
        """True if :meth:`look` is to be called at the next sweep, whether or not there is something to send."""
        return self.wanted or (self.state is State.RECOVERING and self._monitor is None)

    @property
    def due(self) -> float | None:
        """When the time of the present state is over; None if it is not limited."""
        return self.deadline if self.is_waiting or self.state is State.INCOMPATIBLE else None

    def is_due(self, now: float) -> bool:
        """True if the time of the present state is over."""
        return self.due is not None and now >= self.deadline

    # -- asking

    def look(self, now: float) -> News:
        """It is time to sweep, or :attr:`due`: see what there is, and ask if that helps."""
        self.wanted = False
        if self.is_waiting and now >= self.deadline:
            return self.failed(now)
        if not self.port.is_connected():
            return self._disconnected()
        if self.state is State.COMPATIBLE or (self.is_waiting and self._monitor is not None):
            return News.NONE
        if self.state is State.INCOMPATIBLE and now < self.deadline:
            return News.LOST
        if self.state is not State.RECOVERING:
            self.state = State.PINGING
            self.deadline = now + PING_TIMEOUT
        self._connection = self.port.connection()
        self._monitor = self.port.ping()
        return News.NONE

    def reply(self, ref: Reference, answer: Term, now: float) -> News:
        """An answer to a call."""
        if not self.is_waiting or ref != self._monitor:
            return News.NONE
        if answer != m.PONG:
            return self.failed(now)
        self.state = State.COMPATIBLE
        self.attempt = 0
        return News.COMPATIBLE

    def down(self, ref: Reference, reason: Term, now: float) -> News:
        """A native monitor has fired."""
        if ref != self._monitor:
            return News.NONE
        self._monitor = None
        if reason == m.NOCONNECTION:
            return self._disconnected()  # the node is going; the node's own news may come just after this
        if self.state is State.COMPATIBLE:
            self.attempt = 1
            self.deadline = now + penalty(1)
            self.state = State.RECOVERING
            return News.FORGOTTEN
        return News.NONE if self.state is State.RECOVERING else self.failed(now)

    def failed(self, now: float) -> News:
        """It is not as it should be: leave it alone for a while."""
        self._let_go()
        self.attempt += 1
        self.deadline = now + penalty(self.attempt)
        self.state = State.INCOMPATIBLE
        return News.LOST

    # -- the node

    def node_up(self, connection: int) -> News:
        """The node is connected, perhaps another one than before: what was known of it is forgotten."""
        if connection <= self._connection:
            return News.NONE  # late: a sweep has found it connected before
        was_compatible = self.state in (State.COMPATIBLE, State.RECOVERING)
        self.forget()
        return News.FORGOTTEN if was_compatible else News.NONE

    def node_down(self, connection: int) -> News:
        """The connection of this number is lost."""
        if connection < self._connection:
            return News.NONE  # late: the remote has been asked over a later one
        if self.state in (State.UNKNOWN, State.UNAVAILABLE):
            # What is monitored now was not subscribed to over that connection: the next look decides about it.
            self.state = State.UNAVAILABLE
            return News.NONE
        return self._disconnected()

    def _disconnected(self) -> News:
        self._let_go()
        self.state = State.UNAVAILABLE
        self.attempt = 0
        return News.LOST

    # -- beginning anew

    def forget(self) -> None:
        """Whatever was known does not count any more: ask at the next sweep."""
        self._let_go()
        self.state = State.UNKNOWN
        self.attempt = 0
        self.wanted = True

    def process_changed(self) -> None:
        """Another process asks from now on; the monitor of the one before it has gone with it."""
        self._monitor = None
        self.forget()

    def mend(self, now: float) -> News:
        """An exception has interrupted one of these methods, or the one that called it."""
        if self.state is State.PINGING and self._monitor is None:
            return self.failed(now)  # it could not even be asked
        if self.state is not State.INCOMPATIBLE:
            self.forget()
        return News.NONE

    def _let_go(self) -> None:
        if self._monitor is not None:
            ref, self._monitor = self._monitor, None
            self.port.demonitor(ref)
