"""A cluster in memory: real nodes in one program, joined without sockets, EPMD or waiting.

    async with open_cluster("a@test", "b@test") as (a, b):
        async with a.open_process() as me:
            me.send(("worker", "b@test"), Atom("hello"))

The nodes are those of ``open_node``, down to the handshake and the bytes of every frame; only what carries the bytes is
another. What one node sends the other has at once, unless the test takes delivery into its own hands::

    network = Network()
    async with open_cluster("a@test", "b@test", network=network) as (a, b):
        await a.connect("b@test")
        network.hold()                                # from now on, what is sent stays under way
        ...
        wire = network.wire("a@test", "b@test")
        wire.to("b@test").deliver(1)                  # one frame, which is one signal, crosses
        await settled()                               # and b has done what follows from it
        wire.cut()                                    # what is under way is lost; both nodes notice

All of it runs in one trio loop, in one task step after the other: there is no race that the test did not order. Where a
program sleeps or uses timeouts, trio's ``MockClock(autojump_threshold=0)`` lets that time pass at once.
"""

from __future__ import annotations

import math
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio
import trio.testing

from ..errors import NameTaken, NodeUnreachable, NoSuchNode
from ..otp.node import Node, run_node
from ..runtime.addresses import Addresses, split_name
from ..runtime.transport import Listener, Stream, Transport
from .memory import MemoryStream, Pipe, Wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

__all__ = ["MemoryStream", "MemoryTransport", "Network", "Pipe", "Wire", "open_cluster", "settled"]


async def settled() -> None:
    """Return when every node, and every task of the test but this one, waits for something."""
    await trio.testing.wait_all_tasks_blocked()


class Network:
    """What joins the nodes of a cluster, and what a test does to it.

    Args:
        keep: Keep the bytes of each direction in ``Pipe.log``.

    Attributes:
        wires: All connections that were ever made, oldest first.
    """

    def __init__(self, *, keep: bool = False) -> None:
        self.wires: list[Wire] = []
        self._keep = keep
        self._held = False
        self._holds_handshakes = True
        self._parted: set[frozenset[str]] = set()
        self._listeners: dict[str, trio.MemorySendChannel[MemoryStream]] = {}

    def wire(self, one: str, other: str) -> Wire:
        """The youngest connection between two nodes, whether it is still open or not. Raises LookupError."""
        for wire in reversed(self.wires):
            if {wire.dialler, wire.acceptor} == {one, other}:
                return wire
        raise LookupError(f"{one} and {other} were never connected")

    def hold(self, *, handshakes: bool = True) -> None:
        """From now on what nodes send waits until the test delivers it.

        Args:
            handshakes: Hold the handshakes of new connections as well; a handshake has five messages or more.
        """
        self._held, self._holds_handshakes = True, handshakes
        for pipe in self._pipes():
            self._set_up(pipe)

    def release(self) -> None:
        """Deliver all that is under way, and from now on everything at once."""
        self._held = False
        for pipe in self._pipes():
            self._set_up(pipe)
            pipe.deliver()

    def _pipes(self) -> Iterator[Pipe]:
        for wire in self.wires:
            yield wire.to(wire.acceptor)
            yield wire.to(wire.dialler)

    def _set_up(self, pipe: Pipe) -> None:
        pipe.held, pipe.holds_handshake = self._held, self._holds_handshakes

    def part(self, one: str, other: str) -> None:
        """Cut what connects two nodes, and let no new connection be made, until :meth:`heal`: a network partition."""
        self._parted.add(frozenset((one, other)))
        for wire in self.wires:
            if {wire.dialler, wire.acceptor} == {one, other}:
                wire.cut()

    def heal(self, one: str, other: str) -> None:
        """Let two nodes reach each other again; they connect when one of them wants something of the other."""
        self._parted.discard(frozenset((one, other)))

    # -- what the nodes do with it

    def knows(self, name: str) -> bool:
        """Whether a node of that name listens."""
        return name in self._listeners

    def dial(self, dialler: str, acceptor: str) -> MemoryStream:
        """Make a connection. Raises NodeUnreachable when nobody listens there, or the two were parted."""
        listener = self._listeners.get(acceptor)
        if listener is None or frozenset((dialler, acceptor)) in self._parted:
            raise NodeUnreachable(f"no connection from {dialler} to {acceptor} in this network", acceptor)
        wire = Wire(dialler, acceptor, keep=self._keep)
        self._set_up(wire.to(dialler))
        self._set_up(wire.to(acceptor))
        self.wires.append(wire)
        listener.send_nowait(wire.end_of(acceptor))
        return wire.end_of(dialler)

    def listen(self, name: str) -> trio.MemoryReceiveChannel[MemoryStream]:
        """Give the connections that others make to ``name``. Raises NameTaken."""
        if name in self._listeners:
            raise NameTaken(f"the network has a node {name} already")
        self._listeners[name], streams = trio.open_memory_channel[MemoryStream](math.inf)
        return streams

    def stop_listening(self, name: str) -> None:
        """Nobody can connect to ``name`` any more."""
        listener = self._listeners.pop(name, None)
        if listener is not None:
            listener.close()


class MemoryListener(Listener):
    """A node's place in the network."""

    def __init__(self, network: Network, name: str) -> None:
        # Not Listener's own __init__, which is for sockets.
        self.port = 0
        self._network = network
        self._name = name
        self._streams = network.listen(name)

    @property
    def addresses(self) -> list[str]:
        """The name of the place."""
        return [f"memory:{self._name}"]

    async def serve(self, handler: Callable[[Stream], Awaitable[None]], nursery: trio.Nursery) -> None:
        """See Listener."""
        async for stream in self._streams:
            nursery.start_soon(handler, stream)

    def close(self) -> None:
        """See Listener."""
        self._network.stop_listening(self._name)
        self._streams.close()


class MemoryTransport(Transport):
    """What carries the bytes of the node ``name``."""

    def __init__(self, network: Network, name: str) -> None:
        self._network = network
        self._name = name

    async def listen(self, host: str, port: int) -> Listener:
        """See Transport; host and port mean nothing here."""
        return MemoryListener(self._network, self._name)

    async def open(self, host: str, port: int, node: str) -> Stream:
        """See Transport."""
        await trio.lowlevel.checkpoint()
        return self._network.dial(self._name, node)


class MemoryAddresses(Addresses):
    """Where the nodes of a network listen."""

    def __init__(self, network: Network) -> None:
        super().__init__(None)
        self._network = network

    async def find(self, name: str) -> tuple[str, int]:
        """See Addresses; the network asks for the name alone."""
        _, host = split_name(name)
        if not self._network.knows(name):
            raise NoSuchNode(f"the network has no node {name}", name)
        return host, 0


@asynccontextmanager
async def open_cluster(
    *names: str, network: Network | None = None, cookie: str = "cluster", **options: Any
) -> AsyncIterator[tuple[Node, ...]]:
    """Nodes joined in memory, for as long as the block runs. They connect as nodes do: when one wants something.

    Args:
        names: Their full names, ``a@test``; the host may be any.
        network: What joins them; None: one of their own. Nodes opened with the same network later can join in, also
            under the name of one that has left.
        cookie: Their cookie.
        options: Of ``open_node``: ``visible``, ``cookies``, ``net_ticktime``, ``allow``, ``output``, ...

    Raises:
        BadName: one of ``names`` is no node name.
        NameTaken: the network has a node of that name.
    """
    network = network or Network()
    full = options.get("visible") == "full"
    if "visible" in options:
        options["visible"] = bool(options["visible"])
    output = options.pop("output", None)
    async with AsyncExitStack() as stack:
        nodes = []
        for name in names:
            transport, addresses = MemoryTransport(network, name), MemoryAddresses(network)
            node = Node(name, cookie, epmd_address=False, transport=transport, addresses=addresses, **options)
            await stack.enter_async_context(run_node(node, output, full=full))
            nodes.append(node)
        yield tuple(nodes)
