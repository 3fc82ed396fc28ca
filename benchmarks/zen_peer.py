"""Our end of ZenMonitor's workloads: what ``bench_zen_peer`` of rebar_fixtures does, with ``zenmon_node``.

:mod:`benchmarks.peer` hands the requests over; ``bench_zen_peer`` lists them with their answers.
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from typing import TYPE_CHECKING, Final

import trio

from erlang_interop import Atom, InlineServer
from zenmon_node import Settings, ZenMonitor, open_zen_monitor

if TYPE_CHECKING:
    from erlang_interop import LocalProcess, Node, Pid, Process, Reference, Term

DOWN: Final = Atom("DOWN")
KILL: Final = Atom("kill")
OK: Final = Atom("ok")
SLICE: Final = 1000
"""Monitors set between two checkpoints, as a program that is not alone sets them."""


class Subscriber(InlineServer):
    """Takes the DOWNs and says when they came. An inline server, or what :func:`mailbox_subscriber` hands them to."""

    def __init__(self) -> None:
        self.me: LocalProcess
        self._downs: list[tuple[Term, Term]] = []
        # The DOWNs that are awaited, counted from the first one of all.
        self._begin = self._end = -1
        self._first = 0
        self._asker: tuple[Pid, Reference] | None = None
        self._forward_to: Pid | None = None

    def started(self) -> None:
        self.me = self.process

    def handle_message(self, message: Term) -> None:
        """One DOWN; anything else is an error, and ends the process."""
        down, _ref, _process, target, (_zen_monitor, reason) = message
        if down != DOWN:
            raise ValueError(f"no DOWN: {message!r}")
        downs = self._downs
        downs.append((target, reason))
        if len(downs) == self._begin + 1:
            self._first = now()
        if len(downs) == self._end:
            assert self._asker is not None
            self.me.send(self._asker[0], (self._asker[1], (self._first, now())))
        if self._forward_to is not None:
            self.me.send(self._forward_to, (Atom("down"), target))

    def await_downs(self, sender: Pid, ref: Reference, count: int) -> None:
        """Answer when so many more have come."""
        self._begin = len(self._downs)
        self._end = self._begin + count
        self._asker = (sender, ref)

    def forward_downs(self, to: Pid) -> None:
        """Tell ``to`` of each DOWN from now on."""
        self._forward_to = to

    def outcome(self) -> Term:
        """How many came, of how many targets, and for which reasons."""
        targets = {target for target, _ in self._downs}
        return (len(self._downs), len(targets), list({reason for _, reason in self._downs}))


async def mailbox_subscriber(process: Process, subscriber: Subscriber) -> None:
    """The subscriber as a task with a mailbox."""
    subscriber.me = process
    while True:
        subscriber.handle_message(await process.receive())


class ZenPeer:
    """The requests of ``bench_zen``.

    Args:
        node: The node.
        mailbox: Make the subscriber a task with a mailbox.
    """

    def __init__(self, node: Node, *, mailbox: bool) -> None:
        self._node = node
        self._mailbox = mailbox
        self._zen: ZenMonitor
        self._stopping = trio.Event()
        #: To whom and how the end of the roles is to be told.
        self._stopped: tuple[Pid, Term]
        self._subscriber: Subscriber
        self._subscriber_pid: Pid
        self._targets: list[Pid] = []

    def handle(self, sender: Pid, ref: Reference, request: Term) -> None:
        """Carry out one request and answer it. What takes long becomes a task; what does not is done on return."""
        answer: Term = OK
        match request:
            case (Atom("start"), _, settings):
                self._node.start_task(self._run, Settings(**{k.name: v for k, v in settings.items()}), sender, ref)
                return
            case (Atom("stop"), _):
                self._stopped = (sender, (ref, OK))
                self._stopping.set()
                return
            case (Atom("targets"), targets):
                self._start_subscriber(targets)
            case Atom("monitor_all"):
                self._node.start_task(self._monitor_all, sender, ref)
                return
            case (Atom("await_downs"), count):
                self._subscriber.await_downs(sender, ref, count)
                return
            case Atom("forward_downs"):
                self._subscriber.forward_downs(sender)
            case Atom("finish"):
                answer = self._subscriber.outcome()
                self._node.exit(self._subscriber_pid, KILL)
            case Atom("memory_begin"):
                tracemalloc.start()
                answer = memory()
            case Atom("memory_end"):
                self._targets = []
                answer = memory()
                tracemalloc.stop()
            case _:
                raise ValueError(f"no request of bench_zen: {request!r}")
        self._node.send(sender, (ref, answer))

    async def _run(self, settings: Settings, sender: Pid, ref: Reference) -> None:
        """Be both roles until the driver stops them; answer it at the beginning and at the end."""
        self._stopping = trio.Event()
        async with open_zen_monitor(self._node, settings) as self._zen:
            self._node.send(sender, (ref, OK))
            await self._stopping.wait()
        self._node.send(*self._stopped)

    def _start_subscriber(self, targets: list[Pid]) -> None:
        self._targets = targets
        self._subscriber = Subscriber()
        if self._mailbox:
            self._subscriber_pid = self._node.spawn(mailbox_subscriber, self._subscriber)
        else:
            self._subscriber_pid = self._node.start_inline(self._subscriber)

    async def _monitor_all(self, sender: Pid, ref: Reference) -> None:
        """Monitor all targets, and answer how many microseconds that took."""
        started = time.perf_counter_ns()
        for number, target in enumerate(self._targets, start=1):
            self._zen.monitor(target, subscriber=self._subscriber_pid)
            if number % SLICE == 0:
                await trio.lowlevel.checkpoint()
        self._node.send(sender, (ref, (time.perf_counter_ns() - started) // 1000))


def memory() -> int:
    """Bytes of all objects made since tracing began that are still there."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def now() -> int:
    """The system's time in microseconds, as ``os:system_time(microsecond)``."""
    return time.time_ns() // 1000
