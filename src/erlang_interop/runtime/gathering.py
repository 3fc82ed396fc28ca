"""When the reader of a connection lets more come in before it reads again. Pure: the clock is passed in.

A BEAM whose socket takes every message at once makes a system call for each, and so does a reader that is as quick: a
stream of small messages then costs both several times what it costs in blocks. So after a read that has emptied the
socket the reader waits for a moment, if very many signals a second come in and none goes out. One that answers is never
kept waiting: where something goes out, somebody may wait for it before the next signal comes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

#: Signals a second from which on they are a flood.
FLOOD: Final = 64_000
#: Signals after which the rate is looked at.
_ENOUGH: Final = 64


class Gathering:
    """One connection's incoming rate."""

    __slots__ = ("_sent", "_signals", "_since")

    def __init__(self) -> None:
        self._signals = 0
        self._sent = 0
        self._since = -math.inf

    def is_flood(self, signals: int, sent: int, clock: Callable[[], float]) -> bool:
        """Whether to wait for a moment before the next read.

        Args:
            signals: How many the last read has brought.
            sent: All frames that were sent until now.
            clock: The time in seconds; asked for only when it matters.
        """
        self._signals += signals
        if self._signals < _ENOUGH:
            return False
        now = clock()
        flood = sent == self._sent and self._signals > FLOOD * (now - self._since)
        self._signals, self._sent, self._since = 0, sent, now
        return flood
