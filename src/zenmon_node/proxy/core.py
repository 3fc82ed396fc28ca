"""What a Proxy decides: monitors on behalf of other nodes, and certificates of deaths in batches. Pure.

A Connector of another node (or our own) asks ``ping`` once, then casts ordered instructions to subscribe and
unsubscribe. The Proxy has each target watched once, pids of its own node by an observer and all else by a native
monitor, and answers each death with one certificate to each subscriber, through that subscriber's Batcher. The process
it runs in is in ``server.py``, what is done for each subscription and for each death in ``steps.py``.

What the original does not do, and this one does: it releases the native monitor with the last subscriber; it watches
every subscriber from its first subscription, so that nothing is left behind by a Connector that is gone; a bare name
can be subscribed; a name that has moved gets a monitor of its own; no message makes it crash; and after an exception it
goes on where it was (:meth:`ProxyCore.recover`).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from erlang_interop.terms import Pid

from .. import messages as m
from ..complaints import Complaints
from ..counters import Counters
from ..pacing import SLICE
from ..truncator import truncate_safely
from .batcher import BatcherCore
from .steps import Cast, certify
from .tables import ProxyTables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from erlang_interop.runtime.observer import Observer
    from erlang_interop.terms import Atom, Reference, Term

    from ..config import Settings


#: What summaries weigh, as ``batcher.weigh`` has it, after which the loop has a turn: some ten milliseconds' work.
SWEEP_WEIGHT: Final = 1024 * 1024

_log = structlog.get_logger("zenmon_node")


class ProxyPort(Protocol):
    """What the core asks of the process it runs in."""

    def monitor(self, target: m.Target) -> Reference:
        """Monitor natively. The DOWN arrives later, never during the call; ``noproc`` too."""

    def demonitor(self, ref: Reference) -> None:
        """Give a native monitor back, if it has not fired."""

    def can_reach(self, node: Atom) -> bool:
        """True for the own node and connected ones. The Proxy never makes a connection."""

    def is_busy(self, node: Atom) -> bool:
        """True while the connection to ``node`` holds more than it should."""

    def send(self, dest: Pid | Reference, message: Term) -> None:
        """Answer a call."""

    def send_summary(self, subscriber: Pid, certificates: list[m.Certificate]) -> None:
        """Send a batch of certificates."""

    def held_monitors(self) -> list[Reference]:
        """Those that :meth:`monitor` has made and that have neither fired nor been given back."""


@dataclass(slots=True)
class _Purge:
    """The release of all rows of a subscriber that is gone: work that may need several slices, as a cast may."""

    subscriber: Pid
    rows: Iterator[tuple[m.Target, m.Guard]] | None = None
    """Those that are left; None while it has not begun."""


class ProxyCore:
    """The decisions of a Proxy.

    Args:
        node: This node.
        port: What carries them out.
        observer: What watches the processes of this node.
        settings: Chunk size and interval of the Batchers, limits of the truncator.
        counters: What is counted.

    Attributes:
        tables: The subscriptions.
        complaints: What had to be ignored.
        slice_size: Most instructions carried out between two turns of the loop.
    """

    slice_size = SLICE

    def __init__(
        self, node: Atom, port: ProxyPort, observer: Observer, settings: Settings, counters: Counters | None = None
    ) -> None:
        self._counters = counters if counters is not None else Counters()
        self._node = node
        self._port = port
        self._observer = observer
        self._settings = settings
        self.tables = ProxyTables()
        self.complaints = Complaints(m.PROXY.name, self._counters)
        self._batchers: dict[Pid, BatcherCore] = {}
        #: Batchers with something to send.
        self._loaded: dict[Pid, BatcherCore] = {}
        #: Subscriber -> the native monitor on it.
        self._watched: dict[Pid, Reference] = {}
        #: Casts and purges not finished, oldest first.
        self._jobs: deque[Cast | _Purge] = deque()

    @property
    def waiting_certificates(self) -> int:
        """Deaths not reported yet."""
        return sum(len(batcher) for batcher in self._loaded.values()) + len(self._observer.deaths)

    @property
    def waiting_instructions(self) -> int:
        """Instructions of casts that have arrived and are not carried out yet."""
        return sum(len(job) for job in self._jobs if isinstance(job, Cast))

    def configure(self, settings: Settings) -> None:
        """Take other settings from now on."""
        self._settings = settings
        for batcher in self._batchers.values():
            batcher.pacer.interval = settings.batcher_sweep_interval / 1000
            batcher.chunk_size = settings.batcher_chunk_size

    # -- messages

    def handle(self, message: Term, sender: Pid | Atom | None = None) -> bool:
        """One message, from whomever; ``sender`` is who is to be blamed for it.

        Returns:
            False if :meth:`next_due` is what it was: so with most deaths, of which very many may come at once.
        """
        down = m.parse_down(message)
        if down is not None:
            self._take_deaths()  # those before this one
            loaded = len(self._loaded)
            self._down(*down)
            return len(self._loaded) != loaded or bool(self._jobs)
        parsed = m.parse_proxy_message(message)
        match parsed:
            case m.ProcessCast():
                if parsed.problem:
                    self.complaints.add(parsed.problem, sender, message)
                self._add_job(Cast(parsed.subscriber, parsed.instructions, sender))
            case m.PingCall():
                self._port.send(parsed.reply_to, m.pong_reply(parsed.tag))
            case m.Malformed():
                self.complaints.add(parsed.problem, sender, message)
        return True

    def _down(self, ref: Reference, target: m.Target, reason: Term) -> None:
        told = self.tables.consume(target, ref)
        if told:
            self._certify(target, reason, told)
        elif type(target) is Pid:
            if self._watched.get(target) == ref:
                self._subscriber_gone(target)
        elif type(target) is tuple and target[1] == self._node:
            # A bare name is subscribed under itself; the DOWN names it with its node.
            told = self.tables.consume(target[0], ref)
            if told:
                self._certify(target[0], reason, told)

    def _take_deaths(self) -> None:
        """Certify the deaths that the observer has written down."""
        if self._observer.deaths:
            self._counters.enqueued_certificates += certify(
                self._observer,
                self.tables,
                self._loaded,
                self._load,
                self._truncated,
                keep_atoms=self._settings.truncation_depth > 0,
            )

    def _truncated(self, target: m.Target, reason: Term) -> Term:
        return truncate_safely(reason, self._settings, target)

    def _certify(self, target: m.Target, reason: Term, subscribers: list[Pid]) -> None:
        reason = self._truncated(target, reason)
        for subscriber in subscribers:
            batcher = self._loaded.get(subscriber)
            if batcher is None:
                batcher = self._load(subscriber)
            batcher.enqueue(target, reason)
        self._counters.enqueued_certificates += len(subscribers)

    def _load(self, subscriber: Pid) -> BatcherCore:
        """The Batcher of a subscriber, as one that has something to send."""
        batcher = self._batchers.get(subscriber)
        if batcher is None:
            batcher = self._batchers[subscriber] = BatcherCore(
                subscriber,
                interval=self._settings.batcher_sweep_interval / 1000,
                chunk_size=self._settings.batcher_chunk_size,
            )
        self._loaded[subscriber] = batcher
        return batcher

    def _subscriber_gone(self, subscriber: Pid) -> None:
        """A subscriber has died or its node is not connected any more: nothing of it may stay."""
        del self._watched[subscriber]
        self._drop_batcher(subscriber)
        # In line behind its casts that wait, ahead of those that come when its node is connected again.
        self._add_job(_Purge(subscriber))

    # -- jobs: casts and purges, in order, in slices

    @property
    def busy(self) -> bool:
        """True while a job is not finished: call :meth:`work` again, after a turn of the loop."""
        return bool(self._jobs)

    def _add_job(self, job: Cast | _Purge) -> None:
        self._jobs.append(job)
        if len(self._jobs) == 1:
            self.work()

    def work(self) -> None:
        """Deal with the dead, then do one slice of the oldest jobs."""
        self._take_deaths()
        limit = self.slice_size
        while self._jobs and limit > 0:
            job = self._jobs[0]
            limit -= 1
            limit = self._carry_out(job, limit) if isinstance(job, Cast) else self._purge(job, limit)
            if limit > 0:
                self._jobs.popleft()

    def _purge(self, job: _Purge, limit: int) -> int:
        """Release rows of a subscriber that is gone, ``limit`` at most. The result is what is left of the limit."""
        if job.rows is None:
            # All rows at once, so that a death from now on finds none; what guards them step by step.
            job.rows = self.tables.take_rows(job.subscriber)
            self._drop_batcher(job.subscriber)  # of deaths since it has gone
        for target, guard in islice(job.rows, limit):
            limit -= 1
            free = self.tables.release(target, job.subscriber, guard)
            if free is not None:
                self._release(free)
        return limit

    def _carry_out(self, cast: Cast, limit: int) -> int:
        """Carry out instructions, ``limit`` at most. The result is what is left of the limit."""
        if not self._watch(cast.subscriber):
            if cast.sender is not None and cast.sender != cast.subscriber:
                self.complaints.add("instructions for a process that cannot be reached", cast.sender, cast.subscriber)
            return limit
        left = len(cast) - limit
        try:
            while cast.carry_out(len(cast) - left, self._node, self.tables, self._observer):
                if m.parse_instruction(cast.latest) is None:
                    self._malformed(cast, cast.latest)
                else:
                    self._apply(cast.subscriber, cast.latest)
        except Exception:
            self._give_up(cast.subscriber, cast.latest)
            raise
        return len(cast) - left

    def _watch(self, subscriber: Pid) -> bool:
        """Make sure the subscriber is watched; False if its node cannot be reached, so that nobody is there to tell."""
        if subscriber not in self._watched:
            if not self._port.can_reach(subscriber.node):
                return False
            self._watched[subscriber] = self._port.monitor(subscriber)
        return True

    def _malformed(self, job: Cast, term: object) -> None:
        if type(term) is tuple and len(term) == 2 and term[0] == m.SUBSCRIBE:
            self._certify(term[1], m.NOPROC, [job.subscriber])  # whatever it is, nothing of that kind lives
        self.complaints.add("a malformed instruction", job.sender, term)

    def _apply(self, subscriber: Pid, instruction: m.Instruction) -> None:
        op, target = instruction
        if op == m.UNSUBSCRIBE:
            free = self.tables.remove(target, subscriber)
            if free is not None:
                self._release(free)
        elif not self.tables.share(target, subscriber):
            node = target.node if type(target) is Pid else target[1] if type(target) is tuple else self._node
            if node != self._node and not self._port.can_reach(node):
                self._certify(target, m.NOCONNECTION, [subscriber])
            else:
                self.tables.add(target, subscriber, self._guard(target))

    def _guard(self, target: m.Target) -> m.Guard:
        """Have a target watched."""
        if type(target) is Pid and target.node == self._node:
            return self._observer.watch(target)
        return self._port.monitor(target)

    def _release(self, guard: m.Guard) -> None:
        """Have a target watched no longer."""
        if type(guard) is Pid:
            self._observer.release(guard)
        else:
            self._port.demonitor(guard)

    def _give_up(self, subscriber: Pid, term: object) -> None:
        """An instruction has raised and is not repeated: who has subscribed with it learns that it is not served."""
        instruction = m.parse_instruction(term)
        if instruction is not None and instruction[0] == m.SUBSCRIBE:
            self.tables.remove(instruction[1], subscriber)
            self._certify(instruction[1], m.NOPROC, [subscriber])

    # -- sweeps

    def next_due(self, now: float) -> float | None:
        """When :meth:`sweep` or :meth:`work` wants to run; None if there is nothing to do."""
        if self._jobs or self._observer.deaths:
            return now
        return min((batcher.pacer.due(now) for batcher in self._loaded.values()), default=None)

    def sweep(self, now: float) -> None:
        """Send the summaries that are due, those that have waited longest first, as many as one turn of the loop bears.

        Those that are left are still due: call it again, after a turn of the loop.
        """
        room = SWEEP_WEIGHT
        for batcher in list(self._loaded.values()):
            subscriber = batcher.subscriber
            if room <= 0:
                return
            if not batcher.pacer.is_due(now):
                continue
            if not self._port.can_reach(subscriber.node):
                # Its DOWN is on the way; sending would open a connection that somebody may have closed on purpose.
                self._drop_batcher(subscriber)
            elif self._port.is_busy(subscriber.node):
                batcher.pacer.swept(now, more=True)
            else:
                room -= self._send_summary(batcher, now)
                del self._loaded[subscriber]
                if len(batcher):
                    self._loaded[subscriber] = batcher  # behind the others

    def _send_summary(self, batcher: BatcherCore, now: float) -> int:
        """Send the next summary of a batcher. The result is what it weighs."""
        certificates = batcher.sweep(now)
        try:
            self._port.send_summary(batcher.subscriber, certificates)
        except Exception:
            if batcher.failed:
                _log.error(
                    "a summary is lost: it could not be sent twice",
                    subscriber=str(batcher.subscriber),
                    certificates=len(certificates),
                )
            else:
                batcher.put_back(certificates)
            batcher.failed = not batcher.failed
            raise
        batcher.failed = False
        self._counters.swept_certificates += len(certificates)
        return batcher.weight

    def _drop_batcher(self, subscriber: Pid) -> None:
        self._batchers.pop(subscriber, None)
        self._loaded.pop(subscriber, None)

    # -- after an exception

    def recover(self) -> None:
        """Go on after an exception in any other method: to be called once the exception has been logged.

        What has raised is not repeated, but for a summary, which is tried once more. An instruction that has raised is
        dealt with by then, see :meth:`work`. Here all tables are made to fit the rows of the subscribers and the
        watches on them: whatever guards none of these is released, and a row that has lost its guard is certified. It
        takes time for each row, and for each process of the node, and nothing else happens meanwhile.
        """
        self.tables.rebuild()
        observer = self._observer
        held: set[m.Guard] = {*self._port.held_monitors(), *observer.watched(), *[pid for pid, _ in observer.deaths]}
        # A guard that has fired and is still there: it was its DOWN that raised, or its DOWN comes too late now.
        for target, guard in self.tables.unguarded(held):
            self._certify(target, m.NOPROC, self.tables.consume(target, guard))
        for subscriber in [pid for pid, ref in self._watched.items() if ref not in held]:
            self._subscriber_gone(subscriber)
        for guard in held.difference(self.tables.guards(), self._watched.values()):
            self._release(guard)
        self._loaded = {subscriber: batcher for subscriber, batcher in self._batchers.items() if len(batcher)}
