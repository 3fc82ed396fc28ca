"""What a Connector decides: everything this node monitors on one remote node. Pure. One process per remote runs it.

It asks the remote Proxy once whether it speaks ZenMonitor, sends it subscriptions in batches, and turns the deaths it
reports into work for the Dispatcher. What is known of the remote is in ``remote.py``.

When the node goes, or does not speak ZenMonitor, all its monitors fire with ``nodedown``. When its Proxy goes and comes
back, only those of names do, for which process a name was bound to is not known any more; pids are subscribed to anew,
and who has died meanwhile is reported as ``noproc``. A name that may be bound already is watched natively, and that has
nothing to do with the Proxy: see ``names.py``.

A ping does not make the Connector deaf: monitors made meanwhile wait for its outcome. The own node's Connector talks to
the own Proxy the same way. When nothing is monitored there any more, a Connector goes. The process is in
``servers.py``.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from erlang_interop.terms import Pid, Reference

from .. import messages as m
from ..complaints import Complaints
from ..counters import Counters
from ..memory import Table
from ..pacing import SLICE, Pacer
from ..truncator import truncate_safely
from .names import NativeNames, NativePort
from .remote import News, RemotePort, RemoteProxy, State
from .steps import Monitors, Summary

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from erlang_interop.terms import Atom, Term

    from ..config import Settings
    from ..messages import Instruction, References, Target
    from .dispatcher import DispatcherCore
    from .names import Watch
    from .steps import Death


class ConnectorPort(RemotePort, NativePort, Protocol):
    """What the core asks of the process it runs in."""

    def is_busy(self) -> bool:
        """True while the connection holds more than it should."""

    def cast(self, instructions: list[Instruction]) -> None:
        """Send a batch of instructions."""

    def leave(self) -> None:
        """Forget this core: nothing is monitored there, and nothing has been for a while."""


class ConnectorCore:
    """The decisions of a Connector.

    Args:
        remote: The node it is for.
        dispatcher: Where deaths go.
        settings: Chunk size and interval of the subscriptions; how long it stays when it is not needed.
        counters: What is counted.

    Attributes:
        proxy: What is known of the remote.
        batches: Casts of instructions sent.
        instructions: Instructions in them.
        summaries: Summaries of deaths received.
        certificates: Certificates in them.
        slice_size: Most certificates fanned out between two turns of the loop.
    """

    slice_size = SLICE

    def __init__(
        self, remote: Atom, dispatcher: DispatcherCore, settings: Settings, counters: Counters | None = None
    ) -> None:
        self._counters = counters if counters is not None else Counters()
        self.remote = remote
        self.proxy = RemoteProxy()
        self.batches = self.instructions = self.summaries = self.certificates = 0
        self.complaints = Complaints(f"ZenMonitor.Local.Connector of {remote.name}", self._counters)
        self._dispatcher = dispatcher
        self._port: ConnectorPort
        self._pacer = Pacer(0.0)
        self._chunk_size = 0
        self._stay = 0.0
        self.configure(settings)
        self._monitors = Monitors()
        self._names = NativeNames()
        self._instructions: deque[Instruction] = deque()
        #: Targets to be subscribed to before any of these, for the Proxy has forgotten them; and about how many.
        self._anew: Iterator[Target] = iter(())
        self._anew_left = 0
        #: Since when nothing has been monitored there.
        self._idle_since: float | None = None
        #: Fan-outs not finished, oldest first.
        self._jobs: deque[Summary | Table[Target, References]] = deque()

    def __len__(self) -> int:
        """Targets monitored."""
        names = self._monitors.names
        return len(self._monitors.pids) + len(names) + sum(name not in names for name in self._names.targets())

    @property
    def waiting_instructions(self) -> int:
        """Subscriptions and their withdrawals, and native monitors, that have not been sent."""
        return len(self._instructions) + self._anew_left + self._names.waiting

    @property
    def port(self) -> ConnectorPort:
        """What carries the decisions out; set by whoever runs the core, before anything else."""
        return self._port

    @port.setter
    def port(self, port: ConnectorPort) -> None:
        self._port = self.proxy.port = port

    def configure(self, settings: Settings) -> None:
        """Take other settings from now on."""
        self._chunk_size = settings.connector_chunk_size
        self._pacer.interval = settings.connector_sweep_interval / 1000
        self._stay = settings.hibernation_threshold * self._pacer.interval
        self._settings = settings

    # -- monitors

    def monitor(self, target: Target, ref: Reference) -> bool:
        """Add a monitor; the first one of a target subscribes to it.

        Returns:
            True if there was nothing to send before and there is now, so that :meth:`next_due` has changed.
        """
        if type(target) is tuple:
            if self._names.may_be_bound(target, subscribed=target in self._monitors.names):
                return self._names.add(target, ref) and self.waiting_instructions == 1
            self._names.subscribed(target)
        if not self._monitors.add(target, ref):
            return False
        self._counters.enqueued_subscribes += 1
        return self._instruct(m.SUBSCRIBE, target)

    def demonitor(self, target: Target, ref: Reference) -> bool:
        """Remove a monitor if it is there; with the last one of a target its subscription is withdrawn.

        Returns:
            As :meth:`monitor`.
        """
        if type(target) is tuple and self._names.remove(ref, self._port):
            return False
        if not self._monitors.remove(target, ref):
            return False
        if type(target) is tuple:
            self._names.unsubscribed(target)
        self._counters.enqueued_unsubscribes += 1
        return self._instruct(m.UNSUBSCRIBE, target)

    def _instruct(self, op: Atom, target: Target) -> bool:
        self._instructions.append((op, target))
        return len(self._instructions) == 1

    # -- the remote

    def check(self) -> None:
        """Have the remote looked at now, whether or not there is something to send."""
        if self.proxy.state is not State.COMPATIBLE and not self.proxy.is_waiting:
            self.proxy.wanted = True
            self._pacer.hurry()

    def node_up(self, connection: int) -> None:
        """The remote node is connected, by the connection of this number."""
        self._act(self.proxy.node_up(connection))

    def node_down(self, connection: int) -> None:
        """The connection of this number is lost."""
        self._act(self.proxy.node_down(connection))

    def failed(self, now: float) -> None:
        """It cannot be talked to, for reasons that lie here."""
        self._act(self.proxy.failed(now))

    def _act(self, news: News) -> None:
        if news is News.LOST:
            self._lose_all()
        elif news is News.FORGOTTEN:
            self._subscribe_anew()
        elif news is News.COMPATIBLE and self.waiting_instructions:
            self._pacer.hurry()  # they have waited long enough

    def message(self, message: Term, now: float, sender: Pid | Atom | None = None) -> None:
        """One message, from whomever; ``sender`` is who is to be blamed for it."""
        parsed = m.parse_connector_message(message)
        match parsed:
            case m.DeadSummary():
                if parsed.node != self.remote:
                    self.complaints.add("a summary of another node", sender, message)
                    return
                if parsed.problem:
                    self.complaints.add(parsed.problem, sender, message)
                self.summaries += 1
                self.certificates += len(parsed.certificates)
                certificates = parsed.certificates
                if self.proxy.state is State.RECOVERING:
                    # Of the Proxy that has gone: a name that is monitored since then is not the one it means.
                    certificates = list(filter(_is_not_of_a_name, certificates))
                self._add_job(Summary(self._monitors, certificates, sender))
            case m.Reply():
                self._act(self.proxy.reply(parsed.ref, parsed.answer, now))
            case m.Down():
                watch = self._names.fired(parsed.ref)
                if watch is None:
                    self._act(self.proxy.down(parsed.ref, parsed.reason, now))
                else:
                    self._name_down(watch, parsed.reason)
            case m.Malformed():
                self._counters.unhandled_messages += 1
                self.complaints.add(parsed.problem, sender, message)

    def _name_down(self, watch: Watch, reason: Term) -> None:
        lost = reason == m.NOCONNECTION  # then as for all else that was monitored there
        shown = m.NODEDOWN if lost else truncate_safely(reason, self._settings, watch.target)
        self._dispatcher.enqueue([(watch.target, watch.monitors, shown)])

    # -- sweeps

    def next_due(self, now: float) -> float | None:
        """When :meth:`sweep` wants to run; None if nothing is to be done until something happens."""
        if self._jobs:
            return now
        due = self.proxy.due
        if self.proxy.wants_look or (self.waiting_instructions and not self.proxy.is_waiting):
            sweep = self._pacer.due(now)
            due = sweep if due is None else min(due, sweep)
        leaving = self._leaving(now)
        return due if leaving is None else leaving if due is None else min(due, leaving)

    def _leaving(self, now: float) -> float | None:
        """When the Connector may go; None while it is needed."""
        monitors = self._monitors
        is_needed = monitors.pids or monitors.names or self._names
        if is_needed or self.waiting_instructions or self._jobs or self.proxy.wanted:
            self._idle_since = None
            return None
        if self._idle_since is None:
            self._idle_since = now
        if self.proxy.is_waiting:
            return None
        leaving = self._idle_since + self._stay
        # The penalty has to be remembered as long as it holds.
        return max(leaving, self.proxy.deadline) if self.proxy.state is State.INCOMPATIBLE else leaving

    def sweep(self, now: float) -> None:
        """Send a batch, ask the remote, or fire what cannot be monitored; whatever is due."""
        self.work()
        leaving = self._leaving(now)
        if leaving is not None and now >= leaving:
            self._port.leave()
            return
        has_work = self.proxy.wants_look or (self.waiting_instructions and not self.proxy.is_waiting)
        if self.proxy.is_due(now) or (has_work and self._pacer.is_due(now)):
            self._act(self.proxy.look(now))
            if self.proxy.state is State.COMPATIBLE:
                self._send()
            self._pacer.swept(now, more=self.waiting_instructions > 0)

    def _send(self) -> None:
        if self.waiting_instructions and not self._port.is_busy():
            self._names.send(self._port, self._chunk_size)
            anew = list(islice(self._anew, self._chunk_size))
            self._anew_left = max(1, self._anew_left - len(anew)) if len(anew) == self._chunk_size else 0
            batch = [(m.SUBSCRIBE, target) for target in anew if target in self._monitors.pids]
            waiting = self._instructions
            count = min(self._chunk_size - len(batch), len(waiting))
            batch += islice(waiting, count)
            if batch:
                self._port.cast(batch)
                self._counters.swept_instructions += len(batch)
                self.batches += 1
                self.instructions += len(batch)
                self._names.sent(batch)
            for _ in range(count):  # not before: what could not be cast has to be made good
                waiting.popleft()

    # -- fan-out

    @property
    def busy(self) -> bool:
        """True while a fan-out is not finished."""
        return bool(self._jobs)

    def _lose_all(self) -> None:
        """Every monitor fires ``nodedown``; nothing is sent for them."""
        lost, self._monitors = self._monitors, Monitors()
        self._drop_instructions()
        self._lose(lost.pids)
        self._lose(lost.names)
        self._lose_watches(self._names.take_waiting())  # those that are set fire of themselves when the node is lost

    def _lose(self, lost: Table[Target, References]) -> None:
        if self._jobs:
            # Deaths that are already being fanned out keep their own reason, and their place.
            self._add_job(lost)
        else:
            self._dispatcher.enqueue_lost(lost, m.NODEDOWN)

    def _lose_watches(self, watches: list[Watch]) -> None:
        self._dispatcher.enqueue([(watch.target, watch.monitors, m.NODEDOWN) for watch in watches])

    def _subscribe_anew(self) -> None:
        """The remote Proxy has nothing from us any more; whom names were bound to nobody knows."""
        names, self._monitors.names = self._monitors.names, Table()
        self._lose(names)
        self._drop_instructions()
        self._anew, self._anew_left = self._monitors.pids.keys(), len(self._monitors.pids)

    def _drop_instructions(self) -> None:
        self._instructions.clear()
        self._anew, self._anew_left = iter(()), 0
        self._names.forgotten()

    def _add_job(self, job: Summary | Table[Target, References]) -> None:
        self._jobs.append(job)
        if len(self._jobs) == 1:
            self.work()

    def work(self) -> None:
        """Fan out one slice of the oldest summaries."""
        limit = self.slice_size
        while self._jobs and limit > 0:
            job = self._jobs[0]
            limit -= 1
            if isinstance(job, Table):
                self._jobs.popleft()
                self._dispatcher.enqueue_lost(job, m.NODEDOWN)
                continue
            before = len(job)
            deaths: list[Death] = []
            is_other = job.look_up(limit, deaths)
            self._dispatcher.enqueue(deaths)
            limit -= before - len(job)
            if is_other:
                self._look_up(job)
            if limit > 0 and not len(job):
                self._jobs.popleft()

    def _look_up(self, job: Summary) -> None:
        """A certificate that is not about a pid."""
        certificate = job.latest
        if type(certificate) is not tuple or len(certificate) != 2 or not m.is_target(certificate[0]):
            self.complaints.add("a malformed certificate", job.sender, certificate)
            return
        target, reason = certificate
        references = job.monitors.names.pop(target)
        self._names.certified(target)
        if references is not None:
            self._dispatcher.enqueue([(target, references, reason)])

    def compact(self) -> None:
        """Give back memory that the monitors of the past have taken."""
        self._monitors.pids.compact()
        self._monitors.names.compact()
        self._dispatcher.compact()

    # -- after a crash

    def restarted(self) -> None:
        """The process that ran this core has ended and another runs it now, with another pid.

        The remote Proxy drops the subscriptions of the old pid, and its native monitors have gone with it.
        """
        self._lose_watches(self._names.take_all())
        self.proxy.process_changed()
        self._subscribe_anew()

    def lost_references(self) -> Iterator[Reference]:
        """Monitors that fire when the summaries before them are fanned out, and are none of the remote's any more."""
        for job in self._jobs:
            if isinstance(job, Table):
                for references in job.values():
                    yield from (references,) if type(references) is Reference else references

    def mend(self, rows: Iterable[tuple[Reference, Target]], now: float) -> None:
        """An exception has interrupted something: monitor exactly ``rows``, whatever is in the tables.

        The remote is asked anew, for news of it may have been lost as well. To subscribe to what is subscribed to does
        no harm; who has died meanwhile is reported once more.
        """
        monitors = self._monitors
        before = {*monitors.pids, *monitors.names, *(target for _, target in self._instructions)}
        monitors.pids, monitors.names = Table(), Table()
        self._drop_instructions()
        rows = list(rows)
        self._names.mend({ref for ref, target in rows if type(target) is tuple}, self._port)
        for ref, target in rows:
            if ref not in self._names:
                self.monitor(target, ref)
        for target in before:
            if target not in monitors.pids and target not in monitors.names:
                self._counters.enqueued_unsubscribes += 1
                self._instruct(m.UNSUBSCRIBE, target)
        self._act(self.proxy.mend(now))


def _is_not_of_a_name(certificate: Any) -> bool:
    """False for a certificate of a name; malformed ones are for others to complain about."""
    return not (type(certificate) is tuple and certificate and type(certificate[0]) is tuple)
