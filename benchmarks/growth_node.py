"""What a message costs with few or many connections, monitors and processes in place. Real sockets over loopback.

    python -m benchmarks.growth_node SERIES NUMBER        (prints one line of JSON: row to microseconds; see SERIES)
    python -m benchmarks.growth_node feed PORT NUMBER     (the other end, started by the former: so many nodes)

The measured node and its peers are two operating-system processes; only the former's processor time counts, all of it.
Traffic goes in bursts: the other end sends one, says so, and only then the measured loop reads. So the cost of a read
from a socket is shared by the same number of messages, however many there are of anything else.
"""

from __future__ import annotations

import gc
import json
import random
import subprocess
import sys
import time
from contextlib import AsyncExitStack, contextmanager
from statistics import median
from typing import IO, TYPE_CHECKING, Any, Final

import trio

from erlang_interop import Atom, InlineServer, Pid, open_node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from erlang_interop import Destination, LocalProcess, Node, Process, Term

COOKIE: Final = "growth"
NAME: Final = "growth@127.0.0.1"
#: Messages of one connection in one burst: they fit into the buffers of a socket that nobody reads yet.
BURST: Final = 100
#: Processes with a mailbox that one burst wakes.
WOKEN: Final = 10
#: Messages of one measurement, in as many bursts as that makes, and bursts at most.
MESSAGES: Final = 20_000
BURSTS: Final = 400
REPEATS: Final = 5
MESSAGE: Final = (Atom("message"), b"payload", 1)
PING: Final = Atom("ping")
SLICE: Final = 1000
LIMIT_S: Final = 120.0


class Counter(InlineServer):
    """Counts messages, and answers who asks; an event tells when there were as many as are waited for."""

    def __init__(self) -> None:
        self.left = 0
        self.done = trio.Event()
        self.pids: list[Pid] = []

    def expect(self, count: int) -> None:
        """Wait for so many from now on."""
        self.left, self.done = count, trio.Event()

    def handle_message(self, message: Term) -> None:
        if type(message) is tuple and message[0] is PING:
            self.process.send(message[1], MESSAGE)
        elif type(message) is Pid:
            self.pids.append(message)
        self.left -= 1
        if not self.left:
            self.done.set()


class Receiver(InlineServer):
    """One of many processes: hands on to the counter that something has come."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter

    def handle_message(self, message: Term) -> None:
        self._counter.handle_message(message)


class Bench:
    """The measured node, and the other end.

    Args:
        node: The node.
        port: Where it listens.
        connections: How many nodes there are at the other end.
    """

    def __init__(self, node: Node, port: int, connections: int) -> None:
        self.node = node
        self.connections = connections
        self.counter = Counter()
        self.costs: dict[str, list[float]] = {}
        node.start_inline(self.counter, name="sink")
        self._feeder = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.growth_node", "feed", str(port), str(connections)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        """End the other end."""
        with self._feeder:  # which closes its pipes, and waits for it
            pass

    def tell(self, *command: Any) -> None:
        """Have the other end do something. The loop stands still until that is done."""
        self.say(*command)
        self.hear()

    def say(self, *command: Any) -> None:
        """Begin something at the other end."""
        assert self._feeder.stdin is not None
        self._feeder.stdin.write(json.dumps(command) + "\n")
        self._feeder.stdin.flush()

    def hear(self) -> None:
        """Wait for the other end, while the loop stands still."""
        assert self._feeder.stdout is not None
        if not self._feeder.stdout.readline():
            raise RuntimeError("the other end has ended; what it printed says why")

    async def connected(self) -> list[Pid]:
        """Wait for the other end's nodes: a process of each."""
        self.counter.expect(self.connections)
        self.say("connect")
        await self.counter.done.wait()
        self.hear()
        return self.counter.pids

    @contextmanager
    def clock(self, row: str, items: int) -> Iterator[None]:
        """Add a part of one measurement of a row: what so many messages cost."""
        began = time.process_time()
        yield
        self.costs.setdefault(row, []).append((time.process_time() - began) / items * 1e6)

    async def rounds(self, burst: int, one_round: Callable[[], Awaitable[None]]) -> None:
        """Repeat a burst until there were messages enough, and that several times: medians come from these."""
        count = max(1, min(MESSAGES // burst, BURSTS))
        for _ in range(REPEATS):
            gc.collect()
            before = {row: len(values) for row, values in self.costs.items()}
            for _ in range(count):
                await one_round()
            for row, values in self.costs.items():
                first = before.get(row, 0)
                if len(values) > first:
                    values[first:] = [sum(values[first:]) / (len(values) - first)]

    async def received(self, row: str, burst: int, *command: Any) -> None:
        """What the measured node spends to receive what ``command`` makes the other end send."""

        async def one_round() -> None:
            self.counter.expect(burst)
            self.tell(*command)
            with self.clock(row, burst):
                await self.counter.done.wait()

        await self.rounds(burst, one_round)

    async def sent(self, row: str, dests: Sequence[Destination], process: LocalProcess) -> None:
        """What it spends to send a burst to each of the other end's nodes, until the sockets have all of it."""
        burst = BURST * len(dests)
        peers = list(self.node._router.peers.values())

        async def one_round() -> None:
            self.tell("expect", BURST)
            with self.clock(row, burst):
                for dest in dests:
                    for _ in range(BURST):
                        process.send(dest, MESSAGE)
                while any(peer.unsent for peer in peers):
                    await trio.lowlevel.checkpoint()
            self.tell("arrived")

        await self.rounds(burst, one_round)

    async def traffic(self, dests: Sequence[Destination]) -> None:
        """The rows that all series have."""
        await self.received(f"received, {BURST} at a time from each connection", BURST * self.connections, "casts")
        await self.sent(f"sent, {BURST} at a time to each connection", dests, self.counter.process)
        await self.received("received and answered, one at a time from each connection", self.connections, "ping")


async def connections(bench: Bench, number: int) -> None:
    """Messages of so many connections."""
    await bench.traffic(await bench.connected())


async def monitors(bench: Bench, number: int) -> None:
    """Messages of one connection, over which so many monitors are held."""
    (there,) = await bench.connected()
    process = bench.counter.process
    for index in range(number):
        process.monitor(there)
        if index % SLICE == 0:
            await trio.lowlevel.checkpoint()
    bench.counter.expect(1)
    process.send(there, (PING, process.pid))  # its answer comes when all monitors are in place there
    await bench.counter.done.wait()
    await bench.traffic([there])
    burst: list[Any] = []

    async def one_round() -> None:
        with bench.clock("a monitor set and taken back, besides", BURST):
            burst[:] = [process.monitor(there) for _ in range(BURST)]
            for ref in burst:
                process.demonitor(ref)
            await trio.lowlevel.checkpoint()

    await bench.rounds(BURST, one_round)


async def processes(bench: Bench, number: int) -> None:
    """Messages of one connection to any of so many processes."""
    await bench.connected()
    inline = [bench.node.start_inline(Receiver(bench.counter)) for _ in range(number)]
    await bench.received(f"to inline servers, {BURST} at a time", BURST, *_to(inline, BURST))
    await bench.received(f"… always to the same {WOKEN} of them", BURST, *_to(inline[:WOKEN], BURST))

    async def counting(process: Process) -> None:
        while True:
            bench.counter.handle_message(await process.receive())

    with_mailbox = []
    for index in range(number):
        with_mailbox.append(bench.node.spawn(counting))
        if index % SLICE == 0:
            await trio.lowlevel.checkpoint()
    await bench.received(f"to tasks with a mailbox, {WOKEN} woken at a time", WOKEN, *_to(with_mailbox, WOKEN))
    await bench.received(f"… always the same {WOKEN} of them", WOKEN, *_to(with_mailbox[:WOKEN], WOKEN))


def _to(pids: list[Pid], burst: int) -> tuple[Any, ...]:
    """The command that sends one message to each of ``burst`` of these, which are numbered in a row."""
    assert [pid.id for pid in pids] == list(range(pids[0].id, pids[0].id + len(pids)))
    return "pids", pids[0].id, len(pids), pids[0].creation, burst


#: What there is more and more of: name, numbers, and what measures one of them.
SERIES: Final[dict[str, tuple[tuple[int, int, int], Callable[[Bench, int], Awaitable[None]]]]] = {
    "connections": ((1, 10, 100), connections),
    "monitors": ((1, 1_000, 1_000_000), monitors),
    "processes": ((10, 1_000, 100_000), processes),
}


async def run(series: str, number: int) -> dict[str, float]:
    """Measure one series with one number: row to microseconds of processor time for each message."""
    async with open_node(NAME, cookie=COOKIE, epmd=False, listen_host="127.0.0.1", net_ticktime=600) as node:
        assert node._listener is not None
        bench = Bench(node, node._listener.port, number if series == "connections" else 1)
        try:
            with trio.fail_after(LIMIT_S):
                await SERIES[series][1](bench, number)
        finally:
            bench.close()
    return {row: median(values) for row, values in bench.costs.items()}


# ---------------------------------------------------------------------------------------------------- the other end
async def feed(port: int, number: int) -> None:
    """So many nodes that do what standard input says, and print a line whenever it is done."""
    async with AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(
                open_node(
                    f"feeder{index}@127.0.0.1",
                    cookie=COOKIE,
                    epmd=False,
                    addresses={NAME: f"127.0.0.1:{port}"},
                    net_ticktime=600,
                )
            )
            for index in range(number)
        ]
        counters = [Counter() for _ in nodes]
        for node, counter in zip(nodes, counters, strict=True):
            node.start_inline(counter)
        async for line in _lines(sys.stdin):
            match json.loads(line):
                case ["connect"]:
                    for node, counter in zip(nodes, counters, strict=True):
                        await node.connect(NAME)
                        counter.process.send(("sink", NAME), counter.process.pid)
                case ["casts"]:
                    for counter in counters:
                        for _ in range(BURST):
                            counter.process.send(("sink", NAME), MESSAGE)
                case ["ping"]:
                    for counter in counters:
                        counter.process.send(("sink", NAME), (PING, counter.process.pid))
                case ["pids", first, count, creation, burst]:
                    for index in random.sample(range(count), burst) if count >= burst else range(burst):
                        counters[0].process.send(Pid(Atom(NAME), first + index % count, 0, creation), MESSAGE)
                case ["expect", count]:
                    for counter in counters:
                        counter.expect(count)
                case ["arrived"]:
                    for counter in counters:
                        await counter.done.wait()
            for node in nodes:
                await node._router.peers[Atom(NAME)].drained()
            print("done", flush=True)


async def _lines(stream: IO[str]) -> AsyncIterator[str]:
    received = b""
    async with trio.lowlevel.FdStream(stream.fileno()) as stdin:
        async for part in stdin:
            *lines, received = (received + part).split(b"\n")
            for line in lines:
                yield line.decode()


def main(argv: list[str]) -> None:
    """Be one or the other."""
    if argv[0] == "feed":
        trio.run(feed, int(argv[1]), int(argv[2]))
    else:
        print(json.dumps(trio.run(run, argv[0], int(argv[1]))))


if __name__ == "__main__":
    main(sys.argv[1:])
