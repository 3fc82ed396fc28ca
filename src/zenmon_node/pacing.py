"""When a server that works in sweeps may sweep next. Pure: the time is passed in.

ZenMonitor's Connector, Batcher and Dispatcher gather work and do it once per interval, at most so much at a time. The
original ticks for ever, work or not. A :class:`Pacer` keeps the same upper bound (never two sweeps within one
interval) but is armed only when there is work; a server that has been idle sweeps after a tenth of the interval, long
enough to take a burst in one go, and much sooner than a tick that is already on its way somewhere.
"""

from __future__ import annotations

import math
from typing import Final

#: Steps of long work (instructions, certificates, DOWN messages) between two turns of the loop. A step costs 0.3
#: (a subscription to a process here) to 15 us, a turn some 50.
SLICE: Final = 1000
#: The part of an interval for which an idle server gathers before it sweeps.
GATHERING: Final = 0.1
#: Seconds by which a timer may seem early: sums of floats are not exact.
ROUNDING: Final = 1e-6


class Pacer:
    """Decides when the next sweep is due. Times in seconds, of any monotonic clock.

    Attributes:
        interval: Least time between two sweeps. May be changed at any time.
        gathering: The part of ``interval`` to wait after the first work arrived at an idle server.
    """

    __slots__ = ("_last", "_work_since", "gathering", "interval")

    def __init__(self, interval: float, gathering: float = GATHERING) -> None:
        self.interval = interval
        self.gathering = gathering
        self._last = -math.inf
        self._work_since: float | None = None

    def due(self, now: float) -> float:
        """When the next sweep may run, given that there is work at ``now``."""
        if self._work_since is None:
            self._work_since = now
        return max(self._work_since + self.interval * self.gathering, self._last + self.interval)

    def is_due(self, now: float) -> bool:
        """True if a sweep may run at ``now``, given that there is work."""
        return self.due(now) <= now + ROUNDING

    def swept(self, now: float, *, more: bool) -> None:
        """A sweep has run at ``now``; ``more`` if it left work for the next one."""
        self._last = now
        self._work_since = now - self.interval if more else None

    def hurry(self) -> None:
        """Let the next sweep run at once: what kept the work waiting is over."""
        self._last = -math.inf
        self._work_since = -math.inf
