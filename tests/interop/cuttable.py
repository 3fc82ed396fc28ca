"""Links between nodes that a test can cut: each node has an EPMD of its own, which tells it relays in place of ports.

A node registers with its own EPMD, so that one knows who asks there for the port of another node, and answers with the
port of a relay for these two. All relays of a pair of nodes, whoever dialled, are one :class:`Link`; it is up, silent
(a cable was pulled: what is sent waits, and nobody learns anything), or cut (connections are reset, new ones too). No
network namespace is needed, and no privilege; BEAMs and nodes of ours are treated alike.
"""

from __future__ import annotations

import enum
import itertools
import socket
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from erlang_interop.wire.epmd import (
    Alive2Reply,
    Alive2Request,
    PortPlease2Reply,
    PortPlease2Request,
    RequestReader,
    encode_alive2_reply,
    encode_port2_reply,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

LOOPBACK: Final = "127.0.0.1"
#: SO_LINGER: closing resets the connection.
_RESET: Final = struct.pack("ii", 1, 0)


class State(enum.Enum):
    """What a link does with bytes, and with who dials."""

    UP = "up"
    SILENT = "silent"
    CUT = "cut"


class Link:
    """The relayed connections between two nodes."""

    def __init__(self) -> None:
        self.state = State.UP
        self._sockets: set[trio.SocketStream] = set()
        self._passing = trio.Event()
        self._passing.set()

    def cut(self) -> None:
        """Reset all connections, and each new one."""
        self.state = State.CUT
        self._passing.set()
        for stream in list(self._sockets):
            _reset(stream)

    def silence(self) -> None:
        """Let nothing through, not even the end of a connection."""
        self.state = State.SILENT
        self._passing = trio.Event()

    def heal(self) -> None:
        """Let everything through again, first what has waited."""
        self.state = State.UP
        self._passing.set()

    async def relay(self, dialler: trio.SocketStream, port: int | None) -> None:
        """Join ``dialler`` with ``port`` of this machine until one of them ends. None: nobody listens."""
        self._sockets.add(dialler)
        try:
            await self._passing.wait()
            target = None if port is None or self.state is State.CUT else await _dialled(port)
            if target is None:
                _reset(dialler)
            else:
                await self._join(dialler, target)
        finally:
            self._sockets.discard(dialler)
            dialler.socket.close()

    async def _join(self, dialler: trio.SocketStream, target: trio.SocketStream) -> None:
        self._sockets.add(target)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pump, dialler, target)
                nursery.start_soon(self._pump, target, dialler)
        finally:
            self._sockets.discard(target)
            target.socket.close()

    async def _pump(self, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        """Carry bytes one way. Their end, and a reset, close the other connection once that may pass."""
        try:
            while True:
                data = await source.receive_some(65536)
                await self._passing.wait()
                if not data:
                    await sink.send_eof()
                    return
                await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await self._passing.wait()
            _reset(source)
            _reset(sink)


async def _dialled(port: int) -> trio.SocketStream | None:
    try:
        return await trio.open_tcp_stream(LOOPBACK, port)
    except OSError:  # who listened there has ended, and its EPMD not learned it yet
        return None


def _reset(stream: trio.SocketStream) -> None:
    """Close with a reset: the other end learns it at once, and so do the tasks that wait for this one."""
    if stream.socket.fileno() != -1:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        stream.socket.close()


class Network:
    """Nodes, by the part of their names before the at sign, and the links between them. Use :func:`open_network`.

    Args:
        relayed: False: nodes are told each other's true ports, and no link can be cut. For measurements.
    """

    def __init__(self, nursery: trio.Nursery, *, relayed: bool = True) -> None:
        self._nursery = nursery
        self._relayed = relayed
        self._ports: dict[str, int] = {}
        self._epmds: dict[str, int] = {}
        self._relays: dict[tuple[str, str], int] = {}
        self._links: dict[frozenset[str], Link] = {}
        self._creations = itertools.count(1)

    def link(self, one: str, other: str) -> Link:
        """What joins two nodes."""
        return self._links.setdefault(frozenset((one, other)), Link())

    async def epmd_of(self, name: str) -> int:
        """The port of the EPMD for the node ``name`` alone; it stays the same when the node starts again."""
        if name not in self._epmds:
            self._epmds[name] = await self._listen(lambda stream: self._answer(name, stream))
        return self._epmds[name]

    async def _listen(self, serve: Callable[[trio.SocketStream], Awaitable[None]]) -> int:
        listeners = await trio.open_tcp_listeners(0, host=LOOPBACK)
        port: int = listeners[0].socket.getsockname()[1]
        self._nursery.start_soon(trio.serve_listeners, serve, listeners)
        return port

    async def _answer(self, asker: str, stream: trio.SocketStream) -> None:
        """One connection to the EPMD of ``asker``."""
        reader = RequestReader()
        async with stream:
            request = None
            while request is None:
                try:
                    data = await stream.receive_some()
                except trio.BrokenResourceError:
                    return
                if not data:
                    return
                request = next(iter(reader.receive_data(data)), None)
            if isinstance(request, Alive2Request):
                await self._hold(request, stream)
            elif isinstance(request, PortPlease2Request):
                reply = encode_port2_reply(await self._look_up(asker, request.name))
                try:
                    await stream.send_all(reply)
                except trio.BrokenResourceError:
                    return  # who has asked was killed

    async def _hold(self, request: Alive2Request, stream: trio.SocketStream) -> None:
        """Register a node for as long as the connection lasts. A later one of that name goes before it."""
        self._ports[request.name] = request.port
        reply = Alive2Reply(0, next(self._creations))
        try:
            await stream.send_all(encode_alive2_reply(reply, highest_version=request.highest_version))
            await stream.receive_some()
        except trio.BrokenResourceError:
            pass  # the end of a node that was killed; an orderly one ends the stream
        if self._ports.get(request.name) == request.port:
            del self._ports[request.name]

    async def _look_up(self, asker: str, name: str) -> PortPlease2Reply:
        if name not in self._ports:
            return PortPlease2Reply(1)
        port = self._ports[name]
        if self._relayed:
            port = await self._relay(asker, name)
        return PortPlease2Reply(0, port, name=name)

    async def _relay(self, dialler: str, target: str) -> int:
        """The port on which ``dialler`` reaches ``target``, also when that has another port by now."""
        pair = (dialler, target)
        if pair not in self._relays:
            link = self.link(dialler, target)
            self._relays[pair] = await self._listen(lambda stream: link.relay(stream, self._ports.get(target)))
        return self._relays[pair]


@asynccontextmanager
async def open_network(*, relayed: bool = True) -> AsyncIterator[Network]:
    """A network without nodes; it ends with the block, and all its connections with it."""
    async with trio.open_nursery() as nursery:
        yield Network(nursery, relayed=relayed)
        nursery.cancel_scope.cancel()
