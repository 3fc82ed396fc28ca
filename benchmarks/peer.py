"""Our end of the benchmarks: a node whose process ``sink`` answers what ``bench_peer`` of rebar_fixtures answers.

    python -m benchmarks.peer --process inline py@127.0.0.1  (ZENMON_COOKIE holds the cookie, ERL_EPMD_PORT epmd's port)

Two kinds of that process: an inline server, as the node's own services are, and a task with a mailbox, as users write
them. Prints ``ready``; ends when its standard input does.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from benchmarks.syn_peer import SynPeer
from benchmarks.zen_peer import ZenPeer
from erlang_interop import Atom, Exit, InlineServer, Pid, Reference, etf, open_node
from erlang_interop.otp import gen

if TYPE_CHECKING:
    from collections.abc import Callable

    from erlang_interop import LocalProcess, Process, Term

GEN_CALL: Final = Atom("$gen_call")
GEN_CAST: Final = Atom("$gen_cast")
WORK: Final = Atom("work")
ECHO: Final = Atom("echo")
DOWN: Final = Atom("DOWN")
NORMAL: Final = Atom("normal")
OK: Final = Atom("ok")
PAYLOAD: Final = b"payload"
FINISH: Final = (Atom("finish"), NORMAL)

#: As in ``bench_load``.
REPETITIONS: Final = 7
REPETITION_NS: Final = 10_000_000

SLICE: Final = 1000
"""Bulk work takes a checkpoint after so many items, as the node's own does."""
SEND_SLICE: Final = 64
"""An inline server's task asks after so many messages whether the peer is busy."""


class Sink(InlineServer):
    """The messages of ``bench_peer`` and their answers: an inline server, and what :func:`mailbox_sink` hands them to.

    Args:
        zen: What ZenMonitor's requests are handed to.
        syn: What syn's are handed to.
        mailbox: The process that takes the messages, if it is one with a mailbox; None: it is an inline server.
    """

    def __init__(self, zen: ZenPeer, syn: SynPeer, mailbox: Process | None = None) -> None:
        self._mailbox = mailbox is not None
        if mailbox is not None:
            self._me: LocalProcess = mailbox
        self._count = 0
        self._bulk: Term = None
        self._pids: list[Pid] = []
        self._downs = 0
        self._awaited_downs = -1
        self._watcher: Pid | None = None
        self._tasks: dict[Atom, Callable[..., Any]] = {
            Atom("blast"): self._blast,
            Atom("call_me"): self._call_me,
            Atom("bulk_back"): self._bulk_back,
            Atom("mkpids"): partial(self._make_pids, self._start_idle),
            Atom("mkown"): partial(self._make_pids, self._spawn_idle if self._mailbox else self._start_idle),
            Atom("monitor_all"): self._monitor_all,
            Atom("watch"): self._monitor_all,
        }
        self._zen = zen
        self._syn = syn

    def started(self) -> None:
        self._me = self.process

    def handle_message(self, message: Term) -> None:
        """One message. What takes long becomes a task, and this returns."""
        if type(message) is not tuple:
            if message != Atom("killall"):
                raise Exit(NORMAL)
            self._me.node.start_task(self._kill_all)
            return
        tag = message[0]
        if tag == GEN_CAST:
            self._count += 1
            if message[1][0] != WORK:
                self._bulk = message[1]
        elif tag == GEN_CALL:
            gen.reply(self._me, message[1], message[2][1])
        elif tag == DOWN:
            self._downs += 1
            if self._downs == self._awaited_downs:
                assert self._watcher is not None
                self._me.send(self._watcher, (Atom("downs"), self._downs))
        elif tag == Atom("report"):
            self._me.send(message[1], (message[2], self._count))
            self._count = 0
        elif tag == Atom("bulk"):
            self._bulk = message[3]
            self._me.send(message[1], (message[2], OK))
        elif tag == Atom("codec"):
            self._me.send(message[1], (message[2], codec(message[3])))
        elif tag == Atom("zen"):
            self._zen.handle(*message[1:])
        elif tag == Atom("syn"):
            self._syn.handle(*message[1:])
        else:
            self._me.node.start_task(self._tasks[tag], *message[1:])

    async def _blast(self, dest: Pid, _ref: Reference, count: int) -> None:
        send = self._me.send
        if self._mailbox:
            for index in range(count, 0, -1):
                await send(dest, (GEN_CAST, (WORK, index, PAYLOAD)))
            return
        while count > 0:
            below = max(0, count - SEND_SLICE)
            for index in range(count, below + 1, -1):
                send(dest, (GEN_CAST, (WORK, index, PAYLOAD)))
            await send(dest, (GEN_CAST, (WORK, below + 1, PAYLOAD)))
            count = below

    async def _call_me(self, sender: Pid, ref: Reference, calls: int, callers: int) -> None:
        latencies = await self._calls(("echo", sender.node), calls, callers)
        self._me.send(sender, (ref, percentile(50, latencies), percentile(99, latencies)))

    async def _calls(self, dest: tuple[str, Atom], calls: int, callers: int) -> list[float]:
        """``callers`` processes ask side by side, ``calls`` times in all; latencies in microseconds."""
        latencies: list[float] = []
        done = trio.Event()
        each = max(1, calls // callers)

        def finished() -> None:
            if len(latencies) == each * callers:
                done.set()

        for _ in range(callers):
            if self._mailbox:
                self._me.node.spawn(ask, dest, each, latencies, finished)
            else:
                self._me.node.start_inline(Asker(dest, each, latencies, finished))
        await done.wait()
        return latencies

    async def _bulk_back(self, sender: Pid, ref: Reference, times: int) -> None:
        for _ in range(times):
            await self._me.send(sender, (ref, self._bulk))

    def _start_idle(self) -> Pid:
        return self._me.node.start_inline(Idle())

    def _spawn_idle(self) -> Pid:
        return self._me.node.spawn(idle)

    async def _make_pids(self, make: Callable[[], Pid], sender: Pid, ref: Reference, count: int) -> None:
        for index in range(count):
            self._pids.append(make())
            if index % SLICE == 0:
                await trio.lowlevel.checkpoint()
        self._me.send(sender, (ref, self._pids))

    async def _kill_all(self) -> None:
        pids, self._pids = self._pids, []
        for index, pid in enumerate(pids):
            self._me.send(pid, FINISH)
            if index % SLICE == 0:
                await trio.lowlevel.checkpoint()

    async def _monitor_all(self, sender: Pid, ref: Reference, pids: list[Pid]) -> None:
        self._downs, self._awaited_downs, self._watcher = 0, len(pids), sender
        for index, pid in enumerate(pids):
            self._me.monitor(pid)
            if index % SLICE == 0:
                await trio.lowlevel.checkpoint()
        # An answer comes after the monitors, which travel on the same connection, are in place.
        await self._calls(("echo", sender.node), 1, 1)
        self._me.send(sender, (ref, Atom("set")))


async def mailbox_sink(process: Process, zen: ZenPeer, syn: SynPeer) -> None:
    """The sink as a task with a mailbox."""
    sink = Sink(zen, syn, process)
    while True:
        sink.handle_message(await process.receive())


class Idle(InlineServer):
    """A process that waits for its end."""

    def handle_message(self, message: Term) -> None:
        if message == FINISH:
            raise Exit(NORMAL)


async def idle(process: Process) -> None:
    """The same as a task."""
    while await process.receive() != FINISH:
        pass


class Asker(InlineServer):
    """Asks, takes the answer, asks again: an inline server's way of calling."""

    def __init__(
        self, dest: tuple[str, Atom], calls: int, latencies: list[float], finished: Callable[[], None]
    ) -> None:
        self._dest = dest
        self._left = calls
        self._latencies = latencies
        self._finished = finished

    def started(self) -> None:
        self._ask()

    def _ask(self) -> None:
        self._asked = time.perf_counter_ns()
        self._ref = self.process.make_ref()
        self.process.send(self._dest, (GEN_CALL, (self.process.pid, self._ref), (ECHO, self._left)))

    def handle_message(self, message: Term) -> None:
        if message != (self._ref, self._left):
            raise ValueError(f"no answer to call {self._left}: {message!r}")
        self._latencies.append((time.perf_counter_ns() - self._asked) / 1000)
        self._left -= 1
        if self._left:
            self._ask()
            return
        self._finished()
        raise Exit(NORMAL)


async def ask(
    process: Process, dest: tuple[str, Atom], calls: int, latencies: list[float], finished: Callable[[], None]
) -> None:
    """The same as a task that waits for each answer in its mailbox."""
    for left in range(calls, 0, -1):
        asked = time.perf_counter_ns()
        ref = process.make_ref()
        process.send(dest, (GEN_CALL, (process.pid, ref), (ECHO, left)))
        answer = await process.receive(partial(is_answer, ref))
        if answer[1] != left:
            raise ValueError(f"no answer to call {left}: {answer!r}")
        latencies.append((time.perf_counter_ns() - asked) / 1000)
    finished()


def is_answer(ref: Reference, message: Term) -> bool:
    """Whether ``message`` is ``{ref, Answer}``."""
    return bool(message[0] == ref)


def codec(data: bytes) -> tuple[float, float, bytes]:
    """What decoding ``data`` and encoding its term take in nanoseconds, and what came out of the latter."""
    decode_ns = least_ns(lambda: etf.decode(data))
    term, _ = etf.decode(data)
    return decode_ns, least_ns(lambda: etf.encode(term)), etf.encode(term)


def least_ns(work: Callable[[], object]) -> float:
    """As ``bench_load:least_ns/1``."""
    times = 1
    while (spent := repeated_ns(work, times)) < REPETITION_NS:
        times *= 2
    return min(spent, *(repeated_ns(work, times) for _ in range(REPETITIONS - 1))) / times


def repeated_ns(work: Callable[[], object], times: int) -> int:
    """Nanoseconds for so many times."""
    start = time.perf_counter_ns()
    for _ in range(times):
        work()
    return time.perf_counter_ns() - start


def percentile(percent: int, values: list[float]) -> float:
    """As ``bench_load:percentile/2``."""
    return sorted(values)[max(1, round(len(values) * percent / 100)) - 1]


async def serve(name: str, process: str) -> None:
    """Be the peer until standard input ends."""
    async with open_node(name) as node:
        zen, syn = ZenPeer(node, mailbox=process == "mailbox"), SynPeer(node)
        if process == "mailbox":
            node.spawn(mailbox_sink, zen, syn, name="sink")
        else:
            node.start_inline(Sink(zen, syn), name="sink")
        print("ready", flush=True)
        await trio.lowlevel.wait_readable(0)


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--process", choices=["inline", "mailbox"], default="inline")
    arguments = parser.parse_args()
    trio.run(serve, arguments.name, arguments.process)


if __name__ == "__main__":
    main()
