"""Timers of one node: a heap and one task that sleeps until the earliest is due.

``erlang:send_after/3`` for processes, and plain callbacks for servers that sweep. A timer costs no task of its own,
so a hundred thousand of them are a list, not a scheduler's load.
"""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable


#: Timers taken back that the heap holds at least before it is swept.
SWEEP_AT: Final = 1000


class Timer:
    """One pending call. ``cancel()`` is all a holder does with it."""

    __slots__ = ("_callback", "_timers", "deadline")

    def __init__(self, timers: Timers, deadline: float, callback: Callable[[], object]) -> None:
        self.deadline = deadline
        self._timers = timers
        self._callback: Callable[[], object] | None = callback

    @property
    def pending(self) -> bool:
        """Neither fired nor taken back."""
        return self._callback is not None

    def cancel(self) -> bool:
        """True if the timer had not fired; it never will now."""
        if self._callback is None:
            return False
        self._callback = None
        self._timers.taken_back()
        return True

    def fire(self) -> None:
        """Call back, unless that was done or taken back."""
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class Timers:
    """The heap and its task (``run``). Callbacks are synchronous and must not raise."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._sequence = 0
        self._taken_back = 0
        self._scope: trio.CancelScope | None = None

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Call ``callback()`` on the loop in ``delay`` seconds (at the next pass if that is not positive)."""
        timer = Timer(self, trio.current_time() + max(delay, 0.0), callback)
        self._sequence += 1  # equal deadlines fire in the order they were set
        heapq.heappush(self._heap, (timer.deadline, self._sequence, timer))
        if self._scope is not None and timer.deadline < self._scope.deadline:
            self._scope.deadline = timer.deadline
        return timer

    def taken_back(self) -> None:
        """One in the heap will not fire. Most timers of calls end so, long before they are due: they are swept out."""
        self._taken_back += 1
        if self._taken_back >= SWEEP_AT and 2 * self._taken_back >= len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].pending]
            heapq.heapify(self._heap)
            self._taken_back = 0

    def __len__(self) -> int:
        return len(self._heap)

    async def run(self) -> None:
        """Fire timers as they fall due, until cancelled."""
        while True:
            with trio.CancelScope(deadline=self._heap[0][0] if self._heap else math.inf) as self._scope:
                await trio.sleep_forever()
            now = trio.current_time()
            # Only those due now: a callback that sets a timer of zero seconds waits for the next round, so that a
            # server which re-arms itself cannot hold the loop.
            due: list[Timer] = []
            while self._heap and self._heap[0][0] <= now:
                timer = heapq.heappop(self._heap)[2]
                if timer.pending:
                    due.append(timer)
                else:
                    self._taken_back -= 1
            for timer in due:
                timer.fire()
