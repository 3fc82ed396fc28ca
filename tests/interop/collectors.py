"""A process on a BEAM whose mailbox the test reads (``collector.erl``), and what tests of signals share."""

from __future__ import annotations

import itertools
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import trio

from erlang_interop import Atom, EpmdAddress, Node, Pid, Process, Term
from erlang_interop.runtime import epmd

if TYPE_CHECKING:
    from erlang_interop.testing.beam import Beam

#: Seconds after which a test stops waiting for what should have come at once.
PATIENCE = 20.0

#: Whether a BEAM's connection to ``N`` is up for its ``net_kernel``, and for the process that made it.
IS_UP: Final = """(
    [up] =:= [element(4, Row) || Row <- ets:lookup(sys_dist, N)] andalso element(1, net_kernel:node_info(N)) =:= ok
)"""

_numbers = itertools.count(1)


class Collector:
    """A collector on ``beam``; ``name`` is registered there, ``address`` is what it is sent to by."""

    def __init__(self, beam: Beam, name: str, pid: Pid) -> None:
        self.beam = beam
        self.name = Atom(name)
        self.pid = pid

    @property
    def address(self) -> tuple[Atom, str]:
        return self.name, self.beam.name

    async def take(self, count: int, timeout: float = PATIENCE) -> list[Any]:
        """The next ``count`` messages; it fails when they do not come in time."""
        messages = await self.take_up_to(count, timeout)
        assert len(messages) == count, f"{len(messages)} of {count} messages came: {messages!r:.2000}"
        return messages

    async def take_up_to(self, count: int, timeout: float) -> list[Any]:
        """As ``take``, and those that came when the time is over."""
        source = "collector:take(Name, Count, Timeout)"
        limit = {"Count": count, "Timeout": math.ceil(timeout * 1000)}
        taken = await self.beam.eval(source, timeout=timeout + 30, Name=self.name, **limit)
        assert isinstance(taken, list)
        return taken

    async def waiting(self) -> int:
        """How many messages are in its mailbox."""
        count = await self.beam.eval("collector:waiting(Name)", Name=self.name)
        assert isinstance(count, int)
        return count

    async def run(self, module: str, function: str, *arguments: Term) -> Any:
        """Call a function inside the collector: it is the one who monitors, links, sends."""
        return await self.beam.eval(
            "collector:run(Name, M, F, A)", Name=self.name, M=Atom(module), F=Atom(function), A=list(arguments)
        )

    async def monitor(self, target: Term) -> Any:
        """``monitor(process, target)`` by the collector."""
        return await self.run("erlang", "monitor", Atom("process"), target)

    async def trap_exit(self) -> None:
        await self.run("erlang", "process_flag", Atom("trap_exit"), True)

    async def round_trip(self, process: Process) -> None:
        """Return when all that ``process`` sent the collector before, and the other way round, was taken in."""
        marker = process.make_ref()
        process.send(self.pid, (Atom("$round_trip"), process.pid, marker))
        source = "collector:take_if(Name, '$round_trip', 1, 20000), collector:run(Name, erlang, send, [P, M])"
        await self.beam.eval(source, Name=self.name, P=process.pid, M=marker)
        await process.receive(lambda message: message == marker, timeout=PATIENCE)


async def is_among_nodes(beam: Beam, name: Atom | str, kind: str = "connected") -> bool:
    """Whether ``beam`` has ``name`` among its ``nodes(kind)``, now or soon: this side is up before that one is.

    Its emulator is up before its ``net_kernel`` knows that, and the process of the connection has still something to do
    then. Here all of them are done (that process answers ``node_info``): the connection can be asked about, and ended.
    """

    async def there() -> bool:
        source = f"lists:member(N, nodes({kind})) andalso {IS_UP}"
        return await beam.eval(source, N=name if isinstance(name, Atom) else Atom(name)) is True

    with trio.move_on_after(PATIENCE):
        await until(there, math.inf)
        return True
    return False


async def has_lost(beam: Beam, name: Atom | str) -> None:
    """Return when ``beam`` has no connection to ``name`` any more: this side knows sooner that there is none."""

    async def gone() -> bool:
        source = "lists:member(N, nodes(connected)) orelse ets:member(sys_dist, N)"
        return await beam.eval(source, N=name if isinstance(name, Atom) else Atom(name)) is False

    await until(gone)


async def is_forgotten(beam: Beam) -> None:
    """Return when EPMD has noticed the end of ``beam``: it may answer who asks at once before it looks."""
    address, short = EpmdAddress(port=beam.epmd_port), beam.name.partition("@")[0]

    async def so() -> bool:
        return short not in {entry.name for entry in await epmd.names(address)}

    await until(so)


@asynccontextmanager
async def collecting(beam: Beam) -> AsyncIterator[Collector]:
    """A collector that ends with the block."""
    name = f"collector_{next(_numbers)}"
    pid = await beam.eval("collector:start(Name)", Name=Atom(name))
    assert isinstance(pid, Pid)
    yield Collector(beam, name, pid)
    # Not after a failure: the BEAM may be suspended or gone then, and that would hide what failed.
    await beam.eval("exit(Pid, kill)", Pid=pid)


async def until(condition: Callable[[], bool | Awaitable[bool]], timeout: float = PATIENCE) -> None:
    """Return when ``condition()`` is true, for what sends no message when it becomes so. Fails after ``timeout``."""
    with trio.fail_after(timeout):
        while True:
            so = condition()
            if so if isinstance(so, bool) else await so:
                return
            await trio.sleep(0.002)


async def disconnected_by(beam: Beam, node: Node) -> None:
    """``erlang:disconnect_node/1`` on the BEAM; it is false for a moment after messages come through already."""
    source = "polling:until(fun() -> erlang:disconnect_node(N) end, 20000)"
    assert await beam.eval(source, N=node.name) is True


async def wait_for_ever(_process: Process) -> None:
    await trio.sleep_forever()


async def end_when_told(process: Process) -> None:
    """End as the next message says: ``(exit, reason)``, ``(crash, text)`` or ``normal``."""
    from erlang_interop import Exit

    match await process.receive():
        case (Atom("exit"), reason):
            raise Exit(reason)
        case (Atom("crash"), text):
            raise RuntimeError(text.decode() if isinstance(text, bytes) else text)


def links(node: Node) -> int:
    """How many links the processes of a node have, without those of ``kernel_sup`` and what it has started."""
    kernel_sup = node.whereis("kernel_sup")
    count: int = node.statistics()["links"]
    return count if kernel_sup is None else count - 2 * len(node.processes[kernel_sup].links)


def leftovers(node: Node) -> dict[str, int]:
    """What processes left behind in the node's tables: empty when all is cleared up."""
    tables = {**node.statistics(), "links": links(node)}
    names = ("links", "monitors", "watchers", "aliases", "peer_entries", "node_subscriptions")
    return {name: tables[name] for name in names if tables[name]}
