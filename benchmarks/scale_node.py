"""Our node in the measurements at scale: one part of them, in a program of its own.

    python -m benchmarks.scale_node PART '{"name": ..., "epmd_port": ..., "beams": [[NODE, OS_PID], ...], ...}'

``ZENMON_COOKIE`` holds the cookie. Prints a line of JSON for each phase and for what was found besides. Each monitor
must have fired exactly once in the end, and every table must be empty: if not, it says so and ends with status 1. The
BEAMs run already, with the role that the part needs; some parts kill them.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any, Final

import trio

from benchmarks.scale_meter import LoopMeter, Phase, full_collection, resident, size_of
from erlang_interop import Atom, EpmdAddress, InlineServer, Node, Pid, open_node
from zenmon_node import Settings, ZenMonitor, open_zen_monitor
from zenmon_node import messages as m
from zenmon_node.build import describe_build
from zenmon_node.service import settle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

    from erlang_interop import Term

#: As fast as can be; the chunks stay, as they bound what is done at a time.
UNTHROTTLED: Final = Settings(
    connector_sweep_interval=1, batcher_sweep_interval=1, demand_interval=1, demand_amount=1_000_000
)
#: Calls of monitor, starts and exits of processes between two checkpoints: those are the user's loops.
SLICE: Final = 1000
#: Pids in one remote call.
CHUNK: Final = 5000
KILLED: Final = Atom("killed")
#: Phases for which there are targets.
COLLECTION: Final = "a full garbage collection with so many monitors in place"
NODEDOWN: Final = "the rest of them, unthrottled"
LIMIT_S: Final = 600.0
#: Seconds for which a nodedown is paced as by default.
PACED_S: Final = 1.0


class CheckError(Exception):
    """Something was lost, came twice, or stayed behind."""


class Downs(InlineServer):
    """The subscriber: keeps what comes, in the order in which it comes.

    In tables made beforehand, of things that the garbage collector need not look at: a list or a growing table of a
    million would stall the loop by itself, and the node would be blamed for it.
    """

    def __init__(self, count: int) -> None:
        self.count = 0
        self.refs: dict[int, Any] = dict.fromkeys(range(count))
        self.objects: dict[int, Any] = dict.fromkeys(range(count))
        self.reasons: dict[int, Any] = dict.fromkeys(range(count))

    def handle_message(self, message: Term) -> None:
        tag, ref, kind, object_, (zen_monitor, reason) = message
        if (tag, kind, zen_monitor) != (m.DOWN, m.PROCESS, m.ZEN_MONITOR):
            raise ValueError(f"no DOWN: {message!r}")
        self.refs[self.count], self.objects[self.count], self.reasons[self.count] = ref, object_, reason
        self.count += 1


class Idle(InlineServer):
    """A process that waits for its end."""

    def handle_message(self, message: Term) -> None:
        """Nobody sends any."""


class Part:
    """What the parts have in common.

    Args:
        node: Our node.
        zen: Its ZenMonitor, unthrottled.
        options: The JSON of the command line.
    """

    def __init__(self, node: Node, zen: ZenMonitor, options: dict[str, Any]) -> None:
        self.node = node
        self.zen = zen
        self.count: int = options["monitors"]
        self.kills: int = min(options["kills"], self.count // 2)
        self.names: list[str] = [name for name, _ in options["beams"]]
        self._os_pids: list[int] = [os_pid for _, os_pid in options["beams"]]
        self.meter = LoopMeter()
        trio.lowlevel.add_instrument(self.meter)

    async def on(self, beam: str, module: str, function: str, *args: Term) -> Term:
        """Call a function on a BEAM."""
        return await self.node.rpc(beam, module, function, args, timeout=LIMIT_S)

    async def on_all(self, call: Callable[..., Awaitable[None]], *arguments: Iterable[Any]) -> None:
        """Call it for each of the arguments, side by side."""
        async with trio.open_nursery() as nursery:
            for one in zip(*arguments, strict=True):
                nursery.start_soon(call, *one)

    async def subscribed(self, beam: str, count: int) -> None:
        """Wait until a BEAM's Proxy has so many subscriptions."""
        if await self.on(beam, "zen_proxy", "await_subscriptions", count, int(LIMIT_S * 1000)) is not True:
            raise CheckError(f"{beam} has not {count} subscriptions")

    async def fired(self, beam: str, count: int) -> None:
        """Wait until a BEAM's subscriber has got so many DOWNs or certificates."""
        if await self.on(beam, "zen_scale", "await_fired", count, int(LIMIT_S * 1000)) is not True:
            raise CheckError(f"{beam} has not got {count}: {await self.on(beam, 'zen_scale', 'counts')}")

    async def check_counts(self, beam: str, waiting: int, fired: int) -> None:
        """What a BEAM's subscriber waits for and has got; nothing came that it did not wait for."""
        counts = await self.on(beam, "zen_scale", "counts")
        if counts != (waiting, fired, 0):
            raise CheckError(f"{beam}: {counts} wait, have fired, came for nothing; not {(waiting, fired, 0)}")

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for it: no event tells."""
        with trio.move_on_after(LIMIT_S):
            while not condition():  # noqa: ASYNC110 - see above
                await trio.sleep(0.002)
            return
        raise CheckError(f"{what}: not within {LIMIT_S:.0f} s; {self.zen.statistics()}")

    async def tables_empty(self) -> None:
        """Nothing may stay behind."""

        def is_empty() -> bool:
            now = self.zen.statistics()
            return not (now.monitors or now.subscriptions or now.waiting_instructions or now.waiting_certificates)

        await self.until(is_empty, "the tables are not empty")

    def kill_beams(self) -> None:
        """As when their machines lose power."""
        for os_pid in self._os_pids:
            os.kill(os_pid, signal.SIGKILL)

    def split(self, count: int) -> list[int]:
        """How many fall to each BEAM."""
        return [count // len(self.names) + (index < count % len(self.names)) for index in range(len(self.names))]


# ------------------------------------------------------------------------------------------------------ our Local
async def local(part: Part) -> None:
    """Monitors of distinct processes of several BEAMs, made by one process."""
    zen, meter, count, killed = part.zen, part.meter, part.count, part.kills
    show(full_collection(COLLECTION, 0))
    targets, doomed = await _spawn(part, killed)
    downs = Downs(count)
    part.node.start_inline(downs)
    refs: dict[int, Any] = dict.fromkeys(targets)
    before = resident()
    with meter.phase("monitor calls", count) as calls:
        for index, target in targets.items():
            refs[index] = zen.monitor(target, subscriber=downs.process)
            if index % SLICE == 0:
                await trio.lowlevel.checkpoint()
    with meter.phase("until all are subscribed at the Proxies", count) as subscribed:
        await part.on_all(part.subscribed, part.names, part.split(count))
    subscribed.seconds += calls.seconds
    subscribed.cpu += calls.cpu
    show(calls, subscribed, full_collection(COLLECTION, count))
    found(bytes_per_monitor=(resident() - before) / count, of_it_tables=size_of(zen._core) / count)

    async def kill(name: str) -> None:
        for pids in chunks(doomed[name]):
            await part.on(name, "plain_processes", "kill_all", pids)

    with meter.phase("kill processes, until the last DOWN", killed) as killing:
        await part.on_all(kill, part.names)
        await part.until(lambda: downs.count >= killed, "the DOWNs of those killed")
    show(killing)

    default = Settings()
    zen.configure(demand_amount=default.demand_amount, demand_interval=default.demand_interval)
    with meter.phase("nodedown of all, paced as by default", 0) as paced:
        part.kill_beams()
        await trio.sleep(PACED_S)
        paced.items = downs.count - killed
    show(paced)
    with meter.phase(NODEDOWN, count - downs.count) as lost:
        zen.configure(demand_amount=UNTHROTTLED.demand_amount, demand_interval=UNTHROTTLED.demand_interval)
        await part.until(lambda: downs.count >= count, "the DOWNs of the nodes")
    show(lost)
    await part.tables_empty()
    await trio.sleep(0.1)  # one that comes twice would come now
    _check_downs(downs, {refs[index]: target for index, target in targets.items()}, {*chain(*doomed.values())})


async def _spawn(part: Part, doomed: int) -> tuple[dict[int, Pid], dict[str, list[Pid]]]:
    """Waiting processes on the BEAMs: all, numbered from 1, those of the nodes by turns, and some of each node."""
    there: dict[str, list[Pid]] = {name: [] for name in part.names}

    async def spawn(name: str, number: int) -> None:
        for done in range(0, number, CHUNK):
            there[name] += await part.on(name, "plain_processes", "spawn_many", min(CHUNK, number - done))

    await part.on_all(spawn, part.names, part.split(part.count))
    in_turns = (pid for pid in chain.from_iterable(zip_longest(*there.values())) if pid is not None)
    chosen = {name: there[name][:number] for name, number in zip(part.names, part.split(doomed), strict=True)}
    return dict(enumerate(in_turns, start=1)), chosen


def _check_downs(downs: Downs, expected: dict[Any, Pid], killed: set[Pid]) -> None:
    """Each monitor exactly once, with its target and the reason."""
    if downs.count != len(expected):
        raise CheckError(f"{downs.count} DOWNs for {len(expected)} monitors")
    for index, ref in downs.refs.items():
        target, reason = downs.objects[index], downs.reasons[index]
        if expected.pop(ref, None) != target:
            raise CheckError(f"a DOWN that nobody waits for: {ref} {target} {reason}")
        if reason != (KILLED if target in killed else m.NODEDOWN):
            raise CheckError(f"{target} fired with {reason}")


# ------------------------------------------------------------------------------------------------------ our Proxy
async def proxy(part: Part) -> None:
    """Subscriptions of the Locals of several BEAMs on distinct processes of ours."""
    pids = await _start(part, part.count)
    numbers = part.split(part.count)
    ends = [sum(numbers[: index + 1]) for index in range(len(numbers))]
    await _proxy(part, pids, [pids[end - number : end] for number, end in zip(numbers, ends, strict=True)])


async def shared(part: Part) -> None:
    """As many subscriptions; every process of ours is subscribed by every BEAM."""
    pids = await _start(part, part.count // len(part.names))
    await _proxy(part, pids, [pids] * len(part.names))


async def _proxy(part: Part, pids: list[Pid], watched: list[list[Pid]]) -> None:
    zen, meter, count = part.zen, part.meter, sum(map(len, watched))
    tables = zen._proxy.core.tables
    settle()  # as the page advises where very much lives on

    async def watch(name: str, mine: list[Pid]) -> None:
        for chunk in chunks(mine):
            await part.on(name, "zen_scale", "monitor_all", chunk)

    before = resident()
    with meter.phase("subscriptions of BEAMs' Locals", count) as subscribe:
        await part.on_all(watch, part.names, watched)
        await part.until(lambda: tables.rows == count, "subscriptions")
    show(subscribe)
    found(bytes_per_subscription=(resident() - before) / count, of_it_tables=size_of(tables, Pid) / count)

    ended = pids[:: len(pids) // min(part.kills, len(pids))]
    gone = set(ended)
    fired = [sum(pid in gone for pid in mine) for mine in watched]
    with meter.phase("processes of ours end, until the last DOWN there", sum(fired)) as ending:
        await _end(part, ended)
        await part.on_all(part.fired, part.names, fired)
    show(ending)
    await part.on_all(part.check_counts, part.names, [len(m) - n for m, n in zip(watched, fired, strict=True)], fired)

    with meter.phase("the subscribing BEAMs are killed, until nothing is left of them", tables.rows) as purge:
        part.kill_beams()
        await part.tables_empty()
    show(purge)
    processes = map(part.node._router.processes.get, pids)
    if left := sum(len(process.watchers) for process in processes if process is not None):
        raise CheckError(f"{left} native monitors were not released")


async def pure(part: Part) -> None:
    """Casts of many instructions in one piece, by one subscriber."""
    zen, meter, name, count = part.zen, part.meter, part.names[0], part.kills
    pids = await _start(part, count)
    tables = zen._proxy.core.tables

    async def cast(op: Atom, what: str, expected: int) -> None:
        with meter.phase(f"one cast: {what}", count) as figures:
            await part.on(name, "zen_scale", "cast", part.node.name, op, pids)
            await part.until(lambda: len(tables) == expected and not zen._proxy.core.busy, what)
        show(figures)

    await cast(m.SUBSCRIBE, "subscribe", count)
    await cast(m.SUBSCRIBE, "subscribe, all known", count)
    await cast(m.UNSUBSCRIBE, "unsubscribe", 0)
    await cast(m.SUBSCRIBE, "subscribe again", count)
    with meter.phase("processes of ours end, until the last certificate there", count) as ending:
        await _end(part, pids)
        await part.fired(name, count)
    show(ending)
    await part.check_counts(name, 0, count)
    await part.tables_empty()


async def _start(part: Part, count: int) -> list[Pid]:
    """Processes of ours."""
    pids: list[Pid] = []
    before = resident()
    for index in range(count):
        pids.append(part.node.start_inline(Idle()))
        if index % SLICE == 0:
            await trio.lowlevel.checkpoint()
    found(bytes_per_process_of_ours=(resident() - before) / count)
    return pids


async def _end(part: Part, pids: Sequence[Pid]) -> None:
    """End processes of ours."""
    for index, pid in enumerate(pids, start=1):
        part.node.exit(pid, KILLED)
        if index % SLICE == 0:
            await trio.lowlevel.checkpoint()


PARTS: Final = {"local": local, "proxy": proxy, "shared": shared, "pure": pure}


def chunks(pids: Sequence[Pid]) -> Iterator[Sequence[Pid]]:
    """As many as go into one call."""
    return (pids[begin : begin + CHUNK] for begin in range(0, len(pids), CHUNK))


def show(*phases: Phase) -> None:
    """Print the figures of phases."""
    for phase in phases:
        print(json.dumps({"phase": phase.as_dict()}), flush=True)


def found(**values: float | str) -> None:
    """Print what was found."""
    print(json.dumps({"found": values}), flush=True)


async def run(which: str, options: dict[str, Any]) -> None:
    """Open the node and do one part."""
    python = ".".join(map(str, sys.version_info[:2]))
    found(build=f"Python {python}, {describe_build()}")
    epmd = EpmdAddress(port=options["epmd_port"])
    async with open_node(options["name"], epmd=epmd, visible="passive") as node:
        async with open_zen_monitor(node, UNTHROTTLED) as zen:
            if which == "local":
                show(full_collection("a full garbage collection of a program that has just started", 0))
            settle()  # as `zenmon-node run` does
            part = Part(node, zen, options)
            for name in part.names:
                await zen.connect(name) if which == "local" else await node.connect(name)
            await PARTS[which](part)
    found(checked="every monitor fired exactly once, all tables are empty")


def main() -> None:
    """Read the arguments and do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("options", type=json.loads)
    arguments = parser.parse_args()
    trio.run(run, arguments.part, arguments.options)


if __name__ == "__main__":
    main()
