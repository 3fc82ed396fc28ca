"""The shell that Proxy, Local, Connector and Dispatcher have in common: an inline server that sweeps when told to.

A core is pure: it is given messages and the time, and says what to send and when it wants to run again. A shell carries
that out. Long work is done in slices of at most ``pacing.SLICE`` steps; between two of them the loop runs all the rest.

An exception in a handler does not end the process, for its end would be known on other nodes and cost monitors there.
It is logged, what it has left half done is mended, and work goes on. Only when it happens again and again, the process
ends and its supervisor acts.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import TYPE_CHECKING, Final

import structlog
import trio

from erlang_interop.errors import Exit
from erlang_interop.runtime.inline import InlineServer

if TYPE_CHECKING:
    from erlang_interop.runtime.timers import Timer
    from erlang_interop.terms import Term

    from .counters import Counters

#: Exceptions contained within ``PERIOD`` seconds; so many more and the process ends.
RESTARTS: Final = 10
PERIOD: Final = 5.0

_log = structlog.get_logger("zenmon_node")


class _Tick(enum.Enum):
    """What a server sends itself; no peer can forge it, for it is no term."""

    TICK = enum.auto()
    IDLE = enum.auto()


class SweepingServer(InlineServer):
    """Subclass this and override :meth:`receive` and :meth:`tick`; call :meth:`wake_at` after anything that adds work.

    A tick is a message to the server itself, so an exception in it is contained like one in any other handler.

    Args:
        counters: Where contained exceptions are counted.
    """

    _idle_after: float | None = None
    _timer: Timer | None = None
    _due: float
    _idle_timer: Timer | None = None
    _worked = False

    def __init__(self, counters: Counters) -> None:
        self._crash_counters = counters
        #: When the latest exceptions were, oldest first.
        self._crashes: deque[float] = deque()

    def receive(self, message: Term) -> None:
        """One message from somebody else."""
        raise NotImplementedError

    def tick(self) -> None:
        """It is time: sweep, do the next slice, and say when to be woken again."""
        raise NotImplementedError

    def idle(self) -> None:
        """There has been work, and there is none now: tidy up."""

    def recover(self) -> None:
        """A handler has raised, which is logged: mend what it has left half done, and arrange for what is due."""
        raise NotImplementedError

    @staticmethod
    def now() -> float:
        """Seconds, monotonic."""
        return trio.current_time()

    def idle_after(self, seconds: float) -> None:
        """Have :meth:`idle` called when there was work and then none for about so long."""
        self._idle_after = seconds
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None

    def wake_at(self, due: float | None) -> None:
        """Call :meth:`tick` at ``due`` (seconds as :meth:`now`), or earlier if that is arranged already; None: no."""
        if not self.process.alive:
            return
        self._worked = True
        if due is None:
            if self._idle_timer is None:
                self._wait_idle()
            return
        if self._timer is not None:
            if self._due <= due:
                return
            self._timer.cancel()
        # Not the timer's own deadline, which is a little later: each of many calls for one time would set it anew.
        self._due = due
        self._timer = self.process.send_after(due - self.now(), self.process.pid, _Tick.TICK)

    def _wait_idle(self) -> None:
        self._worked = False
        if self._idle_after is not None:
            self._idle_timer = self.process.send_after(self._idle_after, self.process.pid, _Tick.IDLE)

    def handle_message(self, message: Term) -> None:
        """Tell ticks from messages; contain what they raise."""
        try:
            if message is _Tick.TICK:
                self._timer = None
                self.tick()
            elif message is _Tick.IDLE:
                self._idle_timer = None
                self._look_idle()
            else:
                self.receive(message)
        except Exit:
            raise
        except Exception:
            self._crashed()
            if self.has_given_up:
                raise

    def _look_idle(self) -> None:
        if self._timer is not None:
            return  # there is work again; when it is done the waiting begins anew
        if self._worked:
            self._wait_idle()
        else:
            self.idle()

    @property
    def has_given_up(self) -> bool:
        """True if there were more exceptions than are contained."""
        return len(self._crashes) > RESTARTS

    def _crashed(self) -> None:
        """To be called while the exception is handled."""
        now = self.now()
        self._crashes.append(now)
        while self._crashes[0] < now - PERIOD:
            self._crashes.popleft()
        self._crash_counters.contained_crashes += 1
        if not self.has_given_up:
            _log.exception(
                "a handler crashed; its process mends what it has left and goes on", server=repr(self.process)
            )
        self.recover()

    def terminated(self, reason: Term) -> None:
        """Let no tick outlive the process."""
        for timer in (self._timer, self._idle_timer):
            if timer is not None:
                timer.cancel()
