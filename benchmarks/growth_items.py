"""What an entry costs in the tables of a node, with few of them and with very many: names, links, monitors, mailboxes.

Each group is an async function of a number of entries that times its steps. The nodes are those of a cluster in memory:
what is counted is the processor time of all that happens, on both nodes where there are two, and no socket is in it.
"""

from __future__ import annotations

import gc
import time
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import trio

from erlang_interop import Atom, InlineServer, Pid
from erlang_interop.flags import DFlag
from erlang_interop.otp import gen
from erlang_interop.testing.cluster import Network, open_cluster, settled
from erlang_interop.wire.channel import FRAGMENT_SIZE, DistChannel
from erlang_interop.wire.control import Op

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator

    from erlang_interop import LocalProcess, Node, Term

GONE: Final = Atom("gone")
#: What waits in a mailbox, and what is looked for behind it.
OTHER: Final = (Atom("other"), 1)
WANTED: Final = (Atom("wanted"), 1)
AGREED: Final = DFlag.DIST_HDR_ATOM_CACHE | DFlag.FRAGMENTS | DFlag.SEND_SENDER | DFlag.BIG_CREATION | DFlag.UTF8_ATOMS
CALLS: Final = 1000
_PID: Final = Pid(Atom("two@growth"), 1, 0, 1)


@dataclass
class Steps:
    """The clock of one run of a group.

    Attributes:
        cost: Step to its microseconds of processor time for each item.
        collecting: Step to what of them was Python's garbage collector.
    """

    cost: dict[str, float] = field(default_factory=dict)
    collecting: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str, items: int) -> Iterator[None]:
        """Time what the block does with so many items. What was garbage before it is collected first."""
        spent = began_collecting = 0.0

        def collecting(phase: str, info: dict[str, int]) -> None:
            nonlocal spent, began_collecting
            if phase == "start":
                began_collecting = time.thread_time()
            else:
                spent += time.thread_time() - began_collecting

        gc.collect()
        gc.callbacks.append(collecting)
        began = time.process_time()
        try:
            yield
        finally:
            self.cost[name] = (time.process_time() - began) / items * 1e6
            self.collecting[name] = spent / items * 1e6
            gc.callbacks.remove(collecting)


class Idle(InlineServer):
    """A process that waits for its end."""

    def handle_message(self, message: Term) -> None:
        """Whatever it is."""


class Echo(InlineServer):
    """Answers a call with its request, at once."""

    def handle_message(self, message: Term) -> None:
        _call, from_, request = message
        gen.reply(self.process, from_, request)


@asynccontextmanager
async def one_node() -> AsyncIterator[Node]:
    """A node by itself."""
    async with open_cluster("one@growth") as (node,):
        yield node


def start(node: Node, count: int) -> list[LocalProcess]:
    """So many processes that do nothing."""
    servers = [Idle() for _ in range(count)]
    for server in servers:
        node.start_inline(server)
    return [server.process for server in servers]


def pids_of(processes: Iterable[LocalProcess]) -> list[Pid]:
    """Their pids."""
    return [process.pid for process in processes]


# ------------------------------------------------------------------------------------------------------------- names
async def names(steps: Steps, count: int) -> None:
    """Names of many processes, and many names of one."""
    async with one_node() as node:
        processes = start(node, count)
        mine = [Atom(f"growth_{number}") for number in range(count)]
        with steps.step("a name for each process: registered", count):
            for name, process in zip(mine, processes, strict=True):
                process.register(name)
        with steps.step("… looked up", count):
            for name in mine:
                node.whereis(name)
        with steps.step("… unregistered", count):
            for name in mine:
                node.unregister(name)
        (one,) = start(node, 1)
        for order, ordered in (("oldest", mine), ("newest", mine[::-1])):
            for name in mine:
                one.register(name)
            with steps.step(f"all names of one process unregistered, {order} first", count):
                for name in ordered:
                    one.unregister(name)
        for name in mine:
            one.register(name)
        with steps.step("… it ends with all its names", count):
            node.exit(one.pid, GONE)
        assert not set(mine) & set(node.registered())


# ------------------------------------------------------------------------------------------------------------- links
async def links(steps: Steps, count: int) -> None:
    """Links within a node: a star, and a chain."""
    async with one_node() as node:
        others = start(node, count)
        (hub,) = start(node, 1)
        hub.trap_exit = True
        with steps.step("one process links to all others", count):
            for other in others:
                hub.link(other.pid)
        with steps.step("… and unlinks", count):
            for other in others:
                hub.unlink(other.pid)
        for other in others:
            hub.link(other.pid)
        with steps.step("… all others end, one by one; it traps exits", count):
            for other in others:
                node.exit(other.pid, GONE)
        others = start(node, count)
        for other in others:
            hub.link(other.pid)
        with steps.step("… it ends itself, and all others with it", count):
            node.exit(hub.pid, Atom("kill"))
        assert not any(other.alive for other in others)
        chain = start(node, count)
        with steps.step("a chain of linked processes: set", count):
            for one, next_one in pairwise(chain):
                one.link(next_one.pid)
        with steps.step("… its first one ends, and so do all", count):
            node.exit(chain[0].pid, GONE)
        assert not any(process.alive for process in chain)


async def remote_links(steps: Steps, count: int) -> None:
    """Links from one process to many of another node."""
    network = Network()
    async with open_cluster("one@growth", "two@growth", network=network) as (here, there):
        await here.connect("two@growth")
        (hub,) = start(here, 1)
        hub.trap_exit = True
        others = start(there, count)
        with steps.step("one process links to processes of another node", count):
            for other in others:
                hub.link(other.pid)
            await settled()
        with steps.step("… and unlinks", count):
            for other in others:
                hub.unlink(other.pid)
            await settled()
        for other in others:
            hub.link(other.pid)
        await settled()
        with steps.step("… these end", count):
            for other in others:
                there.exit(other.pid, GONE)
            await settled()
        assert not hub.links
        others = start(there, count)
        for other in others:
            hub.link(other.pid)
        await settled()
        with steps.step("… the connection is lost", count):
            network.wire("one@growth", "two@growth").cut()
            await settled()
        assert not hub.links
        assert not any(other.alive for other in others)


# ---------------------------------------------------------------------------------------------------------- monitors
async def monitors(steps: Steps, count: int) -> None:
    """Monitors within a node: one process that holds all, and one that is watched by all."""
    async with one_node() as node:
        targets = start(node, count)
        (one,) = start(node, 1)
        for order, step in (("oldest", 1), ("newest", -1)):
            with steps.step("one process monitors all others", count):
                refs = [one.monitor(target.pid) for target in targets]
            with steps.step(f"… and demonitors, {order} first", count):
                for ref in refs[::step]:
                    one.demonitor(ref)
        for target in targets:
            one.monitor(target.pid)
        with steps.step("… all others end: DOWNs", count):
            for target in targets:
                node.exit(target.pid, GONE)
        assert not one.monitors
        watchers = start(node, count)
        for order, step in (("oldest", 1), ("newest", -1)):
            with steps.step("all others monitor one process", count):
                held = [(watcher, watcher.monitor(one.pid)) for watcher in watchers]
            with steps.step(f"… and demonitor, {order} first", count):
                for watcher, ref in held[::step]:
                    watcher.demonitor(ref)
        for watcher in watchers:
            watcher.monitor(one.pid)
        with steps.step("… it ends: DOWNs to all", count):
            node.exit(one.pid, GONE)
        assert not any(watcher.monitors for watcher in watchers)


async def remote_monitors(steps: Steps, count: int) -> None:
    """Monitors of one process on many of another node."""
    network = Network()
    async with open_cluster("one@growth", "two@growth", network=network) as (here, there):
        await here.connect("two@growth")
        (one,) = start(here, 1)
        targets = start(there, count)
        with steps.step("one process monitors processes of another node", count):
            refs = [one.monitor(target.pid) for target in targets]
            await settled()
        with steps.step("… and demonitors", count):
            for ref in refs:
                one.demonitor(ref)
            await settled()
        for target in targets:
            one.monitor(target.pid)
        await settled()
        with steps.step("… these end: DOWNs", count):
            for target in targets:
                there.exit(target.pid, GONE)
            await settled()
        assert not one.monitors
        targets = start(there, count)
        for target in targets:
            one.monitor(target.pid)
        await settled()
        with steps.step("… the connection is lost: DOWNs", count):
            network.wire("one@growth", "two@growth").cut()
            await settled()
        assert not one.monitors


async def flushes(steps: Steps, count: int) -> None:
    """``demonitor(flush=True)`` of monitors whose DOWNs wait in the mailbox."""
    async with one_node() as node, node.open_process() as me:
        targets = start(node, count)
        refs = [me.monitor(target.pid) for target in targets]
        for target in targets:
            node.exit(target.pid, GONE)
        with steps.step("DOWNs that wait in a mailbox flushed, oldest first", count):
            for ref in refs:
                me.demonitor(ref, flush=True)
        assert not len(me.mailbox)


# ----------------------------------------------------------------------------------------------------------- aliases
async def aliases(steps: Steps, count: int) -> None:
    """Aliases of one process."""
    async with one_node() as node:
        (one,) = start(node, 1)
        for order, step in (("oldest", 1), ("newest", -1)):
            with steps.step("aliases of one process made", count):
                made = [one.alias() for _ in range(count)]
            with steps.step(f"… and ended, {order} first", count):
                for ref in made[::step]:
                    one.unalias(ref)
        made = [one.alias(reply=True) for _ in range(count)]
        with steps.step("… ended by their first message", count):
            for ref in made:
                node.send(ref, OTHER)
        assert not one.aliases
        for _ in range(count):
            one.alias()
        with steps.step("… the process ends with all of them", count):
            node.exit(one.pid, GONE)


# --------------------------------------------------------------------------------------------------------- mailboxes
async def mailbox(steps: Steps, count: int) -> None:
    """A mailbox filled and emptied in order."""
    async with one_node() as node, node.open_process() as me:
        pid = me.pid
        with steps.step("a mailbox filled", count):
            for _ in range(count):
                node.send(pid, OTHER)
        with steps.step("… and emptied in order", count):
            for _ in range(count):
                await me.receive()
        assert not len(me.mailbox)


async def selective(steps: Steps, count: int) -> None:
    """Selective receives by a process in whose mailbox very many other messages wait."""

    def wanted(message: Any) -> bool:
        return message is WANTED

    async with one_node() as node, node.open_process() as me:
        echo = node.start_inline(Echo())
        for _ in range(count):
            node.send(me.pid, OTHER)
        receives = max(10, min(CALLS, 10_000_000 // count))
        with steps.step("the last message of a full mailbox received, for each message passed over", receives * count):
            for _ in range(receives):
                node.send(me.pid, WANTED)
                await me.receive(wanted)
        with steps.step("gen_server:call by a process with a full mailbox", CALLS):
            for number in range(CALLS):
                assert await gen.call(me, echo, number) == number

        async def sends() -> None:
            for number in range(CALLS):
                await settled()
                node.send(me.pid, OTHER if number < CALLS - 1 else WANTED)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(sends)
            with steps.step("a message arrives that a selective receive does not want, with a full mailbox", CALLS):
                await me.receive(wanted)
        assert len(me.mailbox) == count + CALLS - 1


# ------------------------------------------------------------------------------------------------------------ timers
async def timers(steps: Steps, count: int) -> None:
    """Timers set, taken back, and due."""
    async with one_node() as node:
        fired: list[int] = []
        for order, step in (("oldest", 1), ("newest", -1)):
            with steps.step("timers set", count):
                made = [node.call_later(1000.0 + number, int) for number in range(count)]
            with steps.step(f"… and taken back, {order} first", count):
                for timer in made[::step]:
                    timer.cancel()
        with steps.step("timers set and fired", count):
            for number in range(count):
                node.call_later(0.0, partial(fired.append, number))
            while len(fired) < count:
                await trio.lowlevel.checkpoint()
        assert fired == sorted(fired)


# --------------------------------------------------------------------------------------------------------- fragments
def _channels() -> tuple[DistChannel, DistChannel]:
    return DistChannel(AGREED, peer="one@growth"), DistChannel(AGREED, peer="two@growth")


async def one_message(steps: Steps, fragments: int) -> None:
    """One message in so many fragments of 64 KiB, sent and received."""
    sender, receiver = _channels()
    control, payload = (int(Op.REG_SEND), _PID, Atom(""), Atom("sink")), bytes(fragments * FRAGMENT_SIZE - 100)
    with steps.step("one message in fragments of 64 KiB: sent", fragments):
        sender.send(control, payload)
        data = sender.data_to_send()
    portions = [data[at : at + 65536] for at in range(0, len(data), 65536)]
    got: list[Any] = []
    with steps.step("… received, 64 KiB at a time", fragments):
        for portion in portions:
            got += receiver.receive_data(portion)
    assert receiver.failure is None
    assert got == [(control, payload)]


async def interleaved(steps: Steps, sequences: int) -> None:
    """So many messages of three fragments each, that arrive by turns.

    The fragments are small: those of 64 KiB would show what memory costs that is in no cache, not the tables.
    """
    sender, receiver = _channels()
    rounds: list[list[bytes]] = [[], [], []]
    for sequence in range(1, sequences + 1):
        sender.send((int(Op.REG_SEND), _PID, Atom(""), Atom("sink")), b"cut to pieces")
        whole = sender.data_to_send()[6:]  # behind length, version and tag
        for number, part in ((3, whole[:-6]), (2, whole[-6:-3]), (1, whole[-3:])):
            ids = sequence.to_bytes(8, "big") + number.to_bytes(8, "big")
            fragment = bytes([131, 69 if number == 3 else 70]) + ids + part
            rounds[3 - number].append(len(fragment).to_bytes(4, "big") + fragment)
    done = 0
    with steps.step("small fragments of messages that arrive by turns", sequences * len(rounds)):
        for frames in rounds:
            for frame in frames:
                done += len(receiver.receive_data(frame))
    assert receiver.failure is None
    assert done == sequences


@dataclass(frozen=True)
class Group:
    """Steps that are timed with the same numbers of entries.

    Attributes:
        title: Of its table.
        unit: What the numbers count.
        run: Times them for one number.
        sizes: The numbers.
        repeats: How often each is measured; the median is shown.
    """

    title: str
    unit: str
    run: Callable[[Steps, int], Awaitable[None]]
    sizes: tuple[int, int, int] = (1_000, 10_000, 100_000)
    repeats: tuple[int, int, int] = (9, 5, 3)


GROUPS: Final = {
    group.run.__name__: group
    for group in (
        Group("Names", "names", names),
        Group("Links within a node", "links", links),
        Group("Links between nodes", "links", remote_links),
        Group("Monitors within a node", "monitors", monitors),
        Group("Monitors between nodes", "monitors", remote_monitors),
        Group("Flushed DOWNs", "monitors", flushes),
        Group("Aliases", "aliases", aliases),
        Group("A mailbox in order", "messages", mailbox, (10_000, 100_000, 1_000_000)),
        Group("Selective receive", "messages that wait", selective),
        Group("Timers", "timers", timers),
        Group("A message in fragments", "fragments", one_message, (10, 100, 1_000)),
        Group("Fragments by turns", "messages", interleaved, (100, 1_000, 10_000)),
    )
}


def measure(group: Group, size: int, repeats: int) -> dict[str, tuple[float, float]]:
    """Step to median microseconds of processor time for each item, and what of them was the garbage collector."""
    runs: list[Steps] = []
    for _ in range(repeats):
        runs.append(Steps())
        trio.run(group.run, runs[-1], size)
    return {
        name: (median(run.cost[name] for run in runs), median(run.collecting[name] for run in runs))
        for name in runs[0].cost
    }
