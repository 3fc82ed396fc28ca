"""When to tick and when to give a silent peer up: net_kernel's rules, decided from a clock that is passed in.

A tick is a frame of length 0. Each ``net_ticktime / net_tickintensity`` seconds a node looks at all its connections at
once. It ticks those over which it sent nothing since the last look, and gives those up over which it has received
nothing in as many looks in a row as the intensity says. So a dead peer is noticed between 1 and 1 + 1/intensity times
``net_ticktime`` after its last byte: after 60 to 75 seconds with the defaults.

:class:`TickSchedule` says when a node looks; :class:`Ticker` is what it knows of one connection.

While the time is being changed (``set_net_ticktime``), the old and the new one are both right: other nodes still use
the old one, or use the new one already. A node that changes then

* sends as often as the *shorter* of the two demands, from now to the end of the transition: that is the auxiliary
  ticker, which ticks without looking at what was sent;
* gives up as late as the *longer* of the two allows: a longer time counts at once, a shorter one from the end on.

So nobody is given up, as long as all nodes begin within one transition period.

Source: kernel/src/net_kernel.erl (``ticker_loop/2``, ``aux_ticker1/3``, ``handle_call({new_ticktime, ...})``);
kernel/src/dist_util.erl (``send_tick/2``, ``need_to_tick/4``, ``send_aux_tick/2``), the same from OTP 25 to OTP 29;
kernel's application manual, ``net_ticktime`` and ``net_tickintensity``.
"""

from __future__ import annotations

import enum
import math
from typing import Final, final

__all__ = ["TickSchedule", "TickVerdict", "Ticker"]

#: The default of kernel's ``net_tickintensity``.
DEFAULT_INTENSITY: Final = 4


class TickVerdict(enum.Enum):
    """What the owner of the connection is to do now."""

    #: Nothing: wait for the next look.
    NOTHING = "nothing"
    #: Call ``DistChannel.send_tick`` and flush.
    SEND_TICK = "send_tick"
    #: Close the connection; the reason Erlang gives is ``net_tick_timeout``.
    TIMEOUT = "timeout"


@final
class Ticker:
    """What is known of one connection.

    Args:
        hidden: Whether one of the two is a hidden node. Among those are C nodes, which do not tick by themselves but
            answer ticks: they are ticked whenever nothing was received, whatever was sent.
    """

    def __init__(self, *, hidden: bool) -> None:
        self._hidden = hidden
        # The handshake's bytes count as a sign of life in dist_util; they are not among ours: the first look is free.
        self._received = -1
        self._sent = 0
        self._silent = 0

    def look(self, intensity: int, received: int, sent: int, pending: int) -> TickVerdict:
        """One look, at the counters of the connection.

        Args:
            intensity: Silent looks in a row after which the peer is given up.
            received: Bytes received so far; ticks count. OTP counts whole packets; here half of one is a sign of life.
            sent: Frames put under way so far, whether the socket took them or not; our own ticks count.
            pending: Bytes that the socket has not taken yet. While some wait, a tick behind them would say nothing.
        """
        silent = received == self._received
        self._received = received
        self._silent = self._silent + 1 if silent else 0
        if self._silent >= intensity:
            return TickVerdict.TIMEOUT
        idle = sent == self._sent
        self._sent = sent
        if (idle and pending == 0) or (self._hidden and silent):
            self._sent += 1  # the tick that is now sent
            return TickVerdict.SEND_TICK
        return TickVerdict.NOTHING

    def aux_tick(self, pending: int) -> TickVerdict:
        """The auxiliary ticker's turn: it sends a tick, unless bytes for a visible peer wait already."""
        if pending > 0 and not self._hidden:
            return TickVerdict.NOTHING
        return TickVerdict.SEND_TICK


@final
class TickSchedule:
    """When a node looks at its connections.

    Times are kept in whole milliseconds, and so that a look happens each whole number of them, as on a BEAM: a time
    that does not divide by the intensity is rounded up.

    Args:
        net_ticktime: Seconds without a sign of life after which a peer is taken for dead.
        intensity: Looks within that time, 4 to 1000 (kernel's ``net_tickintensity``).

    Raises:
        ValueError: one of them is out of its range.
    """

    def __init__(self, net_ticktime: float, intensity: int = DEFAULT_INTENSITY) -> None:
        if not 4 <= intensity <= 1000:
            raise ValueError(f"net_tickintensity is a number from 4 to 1000, not {intensity!r}")
        self.intensity: Final = intensity
        self._interval = self._interval_ms(net_ticktime)
        self._next_look = math.inf
        self._aux_interval = 0.0
        self._aux_left = 0
        self._next_aux = math.inf
        self._becomes = 0

    def _interval_ms(self, net_ticktime: float) -> int:
        if not 0 < net_ticktime < math.inf:
            raise ValueError(f"net_ticktime is a number of seconds above 0, not {net_ticktime!r}")
        return max(1, -(-round(net_ticktime * 1000) // self.intensity))

    @property
    def net_ticktime(self) -> float:
        """The time in seconds; during a transition the one that is changed to."""
        return (self._becomes or self._interval) * self.intensity / 1000

    @property
    def changing(self) -> bool:
        """Whether a transition is under way."""
        return self._aux_left > 0

    @property
    def interval(self) -> float:
        """Seconds between two looks now. During a transition this belongs to the longer of the two times."""
        return self._interval / 1000

    def start(self, now: float) -> None:
        """The clock runs from ``now``, in seconds of any monotonic clock."""
        self._next_look = now + self.interval

    def next_deadline(self) -> float:
        """Return when :meth:`advance` has something to say, in the clock's seconds."""
        return min(self._next_look, self._next_aux)

    def change(self, net_ticktime: float, transition: float, now: float) -> bool:
        """Begin to change the time; its first auxiliary tick is due at once.

        Args:
            net_ticktime: Seconds.
            transition: Seconds within which all nodes connected to this one begin to change as well.
            now: The clock, in seconds.

        Returns:
            False if that is the time already.

        Raises:
            ValueError: one of them is out of its range.
        """
        interval = self._interval_ms(net_ticktime)
        if not 0 <= transition < math.inf:
            raise ValueError(f"a transition period is a number of seconds from 0 on, not {transition!r}")
        if interval == self._interval:
            return False
        shorter = min(interval, self._interval)
        self._aux_interval = shorter / 1000
        self._aux_left = 1 + -(-round(transition * 1000) // shorter)
        self._next_aux = now
        self._becomes = interval
        if interval > self._interval:
            self._interval = interval
            self._next_look = now + self.interval
        return True

    def advance(self, now: float) -> tuple[bool, bool]:
        """Say what is due, and count it as done: ``(look, auxiliary tick)``.

        What is due late is due once: that we stood still is no sign of a peer's death.
        """
        aux = now >= self._next_aux
        if aux:
            self._aux_left -= 1
            self._next_aux = _next(self._next_aux, self._aux_interval, now)
            if self._aux_left == 0:
                self._end_transition(now)
        look = now >= self._next_look
        if look:
            self._next_look = _next(self._next_look, self.interval, now)
        return look, aux

    def _end_transition(self, now: float) -> None:
        self._next_aux = math.inf
        if self._becomes < self._interval:
            self._interval = self._becomes
            self._next_look = now + self.interval
        self._becomes = 0


def _next(due: float, interval: float, now: float) -> float:
    """The time after ``due``; where that has passed as well, the clock starts anew at ``now``."""
    following = due + interval
    return following if following > now else now + interval
