"""When to tick and when to give a silent peer up, decided from a clock that is passed in.

A tick is a frame of length 0. Each node sends one when it has sent nothing else since its last look, and takes the
connection for dead when it has received nothing at all during ``intensity`` looks in a row; a look happens each
``net_ticktime / intensity`` seconds. So a dead peer is noticed after 1 to 1.25 times ``net_ticktime`` at the default
intensity of 4. Spec: kernel's application manual, ``net_ticktime``; ``dist_util.erl``, ``send_tick/2``.
"""

from __future__ import annotations

import enum
from typing import Final

__all__ = ["TICK_SIZE", "TickVerdict", "Ticker"]

#: Bytes of a tick: a frame's length, and that is 0.
TICK_SIZE: Final = 4


class TickVerdict(enum.Enum):
    """What the owner of the connection is to do now."""

    #: Ask again at the next deadline.
    NOTHING = "nothing"
    #: Call ``DistChannel.send_tick`` and flush.
    SEND_TICK = "send_tick"
    #: Close the connection; the reason Erlang gives is ``net_tick_timeout``.
    TIMEOUT = "timeout"


class Ticker:
    """The ticks of one connection.

    Args:
        net_ticktime: Seconds; the peer's should be the same, or a connection may be cut that is alive.
        intensity: Looks within that time, 4 to 1000 (kernel's ``net_tickintensity``).
        now: Time of the connection's start, in seconds of any monotonic clock. Without it the first :meth:`advance`
            starts the clock, and :meth:`next_deadline` asks for that at once.
    """

    def __init__(self, net_ticktime: float, intensity: int = 4, *, now: float | None = None) -> None:
        if net_ticktime <= 0:
            raise ValueError(f"net_ticktime is a number of seconds above 0, not {net_ticktime!r}")
        if not 4 <= intensity <= 1000:
            raise ValueError(f"the tick intensity is 4 to 1000, not {intensity!r}")
        self.interval: Final = net_ticktime / intensity
        self._intensity = intensity
        self._deadline = float("-inf") if now is None else now + self.interval
        self._started = now is not None
        # The handshake's bytes count as a sign of life in dist_util; they are not among ours: the first look is free.
        self._received = -1
        self._sent = 0
        self._silent = 0

    def next_deadline(self) -> float:
        """Return when :meth:`advance` has something to decide, in the clock's seconds."""
        return self._deadline

    def advance(self, now: float, bytes_received: int, bytes_sent: int) -> TickVerdict:
        """Look at the counters of the connection. Before the deadline nothing is decided and nothing changes.

        Args:
            now: The clock, in seconds.
            bytes_received: Total of the connection; ticks count.
            bytes_sent: Total handed to the socket; our own ticks count.
        """
        if not self._started:
            self._started = True
            self._deadline = now + self.interval
            return TickVerdict.NOTHING
        if now < self._deadline:
            return TickVerdict.NOTHING
        # A look that comes late is one look: that we stood still is no sign of the peer's death.
        self._deadline += self.interval
        if self._deadline <= now:
            self._deadline = now + self.interval
        if bytes_received != self._received:
            self._received = bytes_received
            self._silent = 0
        else:
            self._silent += 1
            if self._silent >= self._intensity:
                return TickVerdict.TIMEOUT
        # "Not more": a tick we ordered may still wait behind a full socket.
        if bytes_sent <= self._sent:
            self._sent = bytes_sent + TICK_SIZE
            return TickVerdict.SEND_TICK
        self._sent = bytes_sent
        return TickVerdict.NOTHING
