"""What a Connector decides: everything this node monitors on one remote node. Pure. One process per remote runs it.

It asks the remote Proxy once whether it speaks ZenMonitor, sends it subscriptions in batches, and turns the deaths it
reports into work for the Dispatcher. When the node or its Proxy goes, all its monitors fire with ``nodedown``.

The state of the remote, as the original keeps it::

    UNKNOWN ----- sweep: ping -----> PINGING -- pong --> COMPATIBLE
                                        |                    | Proxy gone: attempt 1
                                        +-- else: attempt+1  v
    UNAVAILABLE (not connected)         +------------> INCOMPATIBLE until T, then ping again
         ^---- the node goes: from every state; when it comes back: UNKNOWN, attempts forgotten

While INCOMPATIBLE or UNAVAILABLE, every monitor fires ``nodedown`` at the next sweep. A ping does not make the
Connector deaf: monitors made meanwhile wait for its outcome. The own node's Connector talks to the own Proxy the same
way. The process is in ``servers.py``.
"""

from __future__ import annotations

import enum
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol

from erlang_interop.terms import Reference

from .. import messages as m
from ..complaints import Complaints
from ..counters import Counters
from ..memory import compacted
from ..pacing import SLICE, Pacer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from erlang_interop.terms import Atom, Term

    from ..config import Settings
    from ..messages import Instruction, References, Target
    from .dispatcher import DispatcherCore

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
    INCOMPATIBLE = "incompatible"
    UNAVAILABLE = "unavailable"


def penalty(attempt: int) -> float:
    """Seconds for which a remote counts as incompatible after ``attempt`` failures in a row (1 and up)."""
    return min(MAXIMUM_PENALTY, BASE_PENALTY * (1 << min(attempt, 10)))


class ConnectorPort(Protocol):
    """What the core asks of the process it runs in."""

    def is_connected(self) -> bool:
        """True if the remote is the own node or connected, hidden or visible."""

    def is_busy(self) -> bool:
        """True while the connection holds more than it should."""

    def ping(self) -> Reference:
        """Monitor the Proxy by its name and send it a ping tagged with the monitor's reference, which is returned."""

    def release_proxy(self, ref: Reference) -> None:
        """Give the monitor on the Proxy back."""

    def cast(self, instructions: list[Instruction]) -> None:
        """Send a batch of instructions."""


class ConnectorCore:
    """The decisions of a Connector.

    Args:
        remote: The node it is for.
        dispatcher: Where deaths go.
        settings: Chunk size and interval of the subscriptions.
        counters: What is counted.

    Attributes:
        port: What carries the decisions out; set by whoever runs the core, before anything else.
        state: What is known of the remote.
        attempt: Failures in a row.
        retry_at: When the penalty ends, in seconds.
        batches: Casts of instructions sent.
        instructions: Instructions in them.
        summaries: Summaries of deaths received.
        certificates: Certificates in them.
        slice_size: Most certificates fanned out between two turns of the loop.
    """

    port: ConnectorPort
    slice_size = SLICE

    def __init__(
        self, remote: Atom, dispatcher: DispatcherCore, settings: Settings, counters: Counters | None = None
    ) -> None:
        self._counters = counters if counters is not None else Counters()
        self.remote = remote
        self.state = State.UNKNOWN
        self.attempt = 0
        self.retry_at = 0.0
        self.batches = self.instructions = self.summaries = self.certificates = 0
        self.complaints = Complaints(f"ZenMonitor.Local.Connector of {remote.name}")
        self._dispatcher = dispatcher
        self._chunk_size = settings.connector_chunk_size
        self._pacer = Pacer(settings.connector_sweep_interval / 1000)
        #: Target -> its monitors, for all that is monitored on the remote.
        self._monitors: dict[Target, References] = {}
        self._instructions: deque[Instruction] = deque()
        self._proxy: Reference | None = None
        #: A check of the remote is wanted although no instruction waits.
        self._wanted = False
        #: Fan-outs not finished, oldest first.
        self._jobs: deque[_FanOut] = deque()

    def __len__(self) -> int:
        """Targets monitored."""
        return len(self._monitors)

    @property
    def waiting_instructions(self) -> int:
        """Subscriptions and their withdrawals that have not been sent."""
        return len(self._instructions)

    def configure(self, settings: Settings) -> None:
        """Take other settings from now on."""
        self._chunk_size = settings.connector_chunk_size
        self._pacer.interval = settings.connector_sweep_interval / 1000

    # -- monitors

    def monitor(self, target: Target, ref: Reference) -> bool:
        """Add a monitor; the first one of a target subscribes to it.

        Returns:
            True if there was nothing to send before and there is now, so that :meth:`next_due` has changed.
        """
        known = self._monitors.get(target)
        if known is None:
            self._monitors[target] = ref
            return self._instruct(m.SUBSCRIBE, target)
        if isinstance(known, Reference):
            self._monitors[target] = {known: None, ref: None}
        else:
            known[ref] = None
        return False

    def demonitor(self, target: Target, ref: Reference) -> bool:
        """Remove a monitor if it is there; with the last one of a target its subscription is withdrawn.

        Returns:
            As :meth:`monitor`.
        """
        known = self._monitors.get(target)
        if known is None:
            return False
        if isinstance(known, Reference):
            if known != ref:
                return False  # of a target that was lost and is monitored anew
        else:
            known.pop(ref, None)
            if known:
                return False
        del self._monitors[target]
        return self._instruct(m.UNSUBSCRIBE, target)

    def _instruct(self, op: Atom, target: Target) -> bool:
        if op is m.SUBSCRIBE:
            self._counters.enqueued_subscribes += 1
        else:
            self._counters.enqueued_unsubscribes += 1
        self._instructions.append((op, target))
        return len(self._instructions) == 1

    # -- the remote

    def check(self) -> None:
        """Have the remote looked at now, whether or not there is something to send."""
        if self.state not in (State.COMPATIBLE, State.PINGING):
            self._wanted = True
            self._pacer.hurry()

    @property
    def settled(self) -> bool:
        """True if no question to the remote is open."""
        return not self._wanted and self.state not in (State.UNKNOWN, State.PINGING)

    def node_up(self) -> None:
        """The remote node is connected, perhaps another one than before: what was known of it is forgotten."""
        if self.state in (State.COMPATIBLE, State.PINGING):
            return  # a sweep has found it connected before we were told
        self.state = State.UNKNOWN
        self.attempt = 0
        self._wanted = True

    def node_down(self) -> None:
        """The remote node is not connected any more."""
        self._let_go_of_proxy()
        self.state = State.UNAVAILABLE
        self.attempt = 0
        self._lose_all()

    def message(self, message: Term, now: float) -> None:
        """One message, from whomever."""
        parsed = m.parse_connector_message(message)
        match parsed:
            case m.DeadSummary():
                if parsed.node != self.remote:
                    self.complaints.add("a summary of another node", None, message)
                    return
                if parsed.problem:
                    self.complaints.add(parsed.problem, None, message)
                self.summaries += 1
                self.certificates += len(parsed.certificates)
                self._add_job(_FanOut(self._monitors, iter(parsed.certificates)))
            case m.Reply():
                if self.state is State.PINGING and parsed.ref == self._proxy:
                    self._answered(parsed.answer, now)
            case m.Down():
                if parsed.ref == self._proxy:
                    self._proxy_gone(parsed.reason, now)
            case m.Malformed():
                self._counters.unhandled_messages += 1
                self.complaints.add(parsed.problem, parsed.sender, message)

    def _answered(self, answer: Term, now: float) -> None:
        if answer == m.PONG:
            self.state = State.COMPATIBLE
            self.attempt = 0
            if self._instructions:
                self._pacer.hurry()  # they have waited long enough
        else:
            self._failed(now)

    def _proxy_gone(self, reason: Term, now: float) -> None:
        self._proxy = None
        if reason == m.NOCONNECTION:
            # The node is going; the node's own news may come just after this.
            self.node_down()
        else:
            self._failed(now)

    def _failed(self, now: float) -> None:
        self._let_go_of_proxy()
        self.attempt += 1
        self.retry_at = now + penalty(self.attempt)
        self.state = State.INCOMPATIBLE
        self._lose_all()

    def _let_go_of_proxy(self) -> None:
        if self._proxy is not None:
            self.port.release_proxy(self._proxy)
            self._proxy = None

    # -- sweeps

    def next_due(self, now: float) -> float | None:
        """When :meth:`sweep` wants to run; None if nothing is to be done until something happens."""
        if self._jobs:
            return now
        due: float | None = None
        if self.state is State.PINGING or self.state is State.INCOMPATIBLE:
            due = self.retry_at  # of the ping, or of the penalty
        if self._wanted or (self._instructions and self.state is not State.PINGING):
            sweep = self._pacer.due(now)
            due = sweep if due is None else min(due, sweep)
        return due

    def sweep(self, now: float) -> None:
        """Send a batch, ask the remote, or fire what cannot be monitored; whatever is due."""
        self.work()
        if self.state is State.PINGING:
            if now >= self.retry_at:
                self._failed(now)
            return
        if self.state is State.INCOMPATIBLE and now >= self.retry_at:
            self._wanted = True
        elif not (self._wanted or self._instructions) or not self._pacer.is_due(now):
            return
        wanted, self._wanted = self._wanted, False
        if not self.port.is_connected():
            self.state = State.UNAVAILABLE
            self._lose_all()
        elif self.state is State.COMPATIBLE:
            self._send(now)
            return
        elif self.state is State.INCOMPATIBLE and now < self.retry_at:
            self._lose_all()
        elif wanted or self._instructions:
            self.state = State.PINGING
            self.retry_at = now + PING_TIMEOUT
            self._proxy = self.port.ping()
        self._pacer.swept(now, more=False)

    def _send(self, now: float) -> None:
        if self._instructions and not self.port.is_busy():
            waiting = self._instructions
            batch = [waiting.popleft() for _ in range(min(self._chunk_size, len(waiting)))]
            self._counters.swept_instructions += len(batch)
            self.batches += 1
            self.instructions += len(batch)
            self.port.cast(batch)
        self._pacer.swept(now, more=bool(self._instructions))

    # -- fan-out

    @property
    def busy(self) -> bool:
        """True while a fan-out is not finished."""
        return bool(self._jobs)

    def _lose_all(self) -> None:
        """Every monitor fires ``nodedown``; nothing is sent for them."""
        lost, self._monitors = self._monitors, {}
        self._instructions.clear()
        if self._jobs:
            # Deaths that are already being fanned out keep their own reason, and their place.
            self._add_job(_FanOut(lost, None))
        else:
            self._dispatcher.enqueue_lost(lost, m.NODEDOWN)

    def _add_job(self, job: _FanOut) -> None:
        self._jobs.append(job)
        if len(self._jobs) == 1:
            self.work()

    def work(self) -> None:
        """Fan out one slice of the oldest summaries."""
        limit = self.slice_size
        while self._jobs and limit > 0:
            job = self._jobs[0]
            limit -= 1
            if job.certificates is None:
                self._dispatcher.enqueue_lost(job.monitors, m.NODEDOWN)
            else:
                for certificate in islice(job.certificates, limit):
                    limit -= 1
                    self._fan_out(certificate, job.monitors)
            if limit > 0:
                self._jobs.popleft()

    def _fan_out(self, certificate: Any, monitors: dict[Target, References]) -> None:
        if type(certificate) is not tuple or len(certificate) != 2 or not m.is_target(certificate[0]):
            self.complaints.add("a malformed certificate", None, certificate)
            return
        references = monitors.pop(certificate[0], None)
        if references is not None:
            self._dispatcher.enqueue(certificate[0], references, certificate[1])

    def compact(self) -> None:
        """Give back memory that the monitors of the past have taken."""
        if not self._jobs:  # they hold the table as it is
            self._monitors = compacted(self._monitors)
        self._dispatcher.compact()

    # -- a new process takes over

    def restarted(self) -> None:
        """Whatever ran this core has crashed and another runs it now, with another pid: subscribe to everything anew.

        The remote Proxy drops the subscriptions of the old pid; deaths in between are reported as ``noproc``.
        """
        self.state = State.UNKNOWN
        self._proxy = None
        self._instructions = deque((m.SUBSCRIBE, target) for target in self._monitors)
        self._wanted = bool(self._instructions)


class _FanOut:
    """Certificates to be looked up in the table that held when they came; None: everything in it is lost."""

    __slots__ = ("certificates", "monitors")

    def __init__(self, monitors: dict[Target, References], certificates: Iterator[Any] | None) -> None:
        self.monitors = monitors
        self.certificates = certificates
