"""Sockets: dialling, listening, and a non-blocking stream. The only module that opens one.

A :class:`Stream` is a thin skin over a non-blocking socket: ``receive_nowait`` and ``send_nowait`` never wait, and
``wait_readable``/``wait_writable`` do nothing else. trio's ``SocketStream`` would cost a lock and an allocation for
every read of the hot path.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
from typing import TYPE_CHECKING, ClassVar, Final

import trio

from ..errors import AddressInUse, HostNotFound, NodeUnreachable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

#: Seconds for which to let more come in; the loop rounds it up to a millisecond, the least that its epoll can wait.
MOMENT: Final = 0.0002
#: Ports that are tried where any will do: one that is free on the first address of a host may be taken on the second.
_TRIES: Final = 10
#: Accepting goes on after these: they concern one connection, or a shortage that passes.
_PASSING: Final = frozenset({errno.ECONNABORTED, errno.EPROTO, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Stream:
    """A connected, non-blocking TCP socket."""

    __slots__ = ("_socket", "address")

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._socket = sock
        #: ``host:port`` of the other end.
        self.address = format_address(sock.getpeername())

    def receive_nowait(self, buffer: memoryview) -> int | None:
        """Bytes read into ``buffer``; 0 at the end of the stream, None if nothing is there. Raises OSError."""
        try:
            return self._socket.recv_into(buffer)
        except (BlockingIOError, InterruptedError):
            return None

    def send_nowait(self, data: bytes | memoryview) -> int:
        """Bytes that the socket took, possibly none. Raises OSError."""
        try:
            return self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            return 0

    def wait_readable(self) -> Awaitable[None]:
        """Wait until there is something to read, or the end. Trio's own coroutine: each around it costs a call."""
        return trio.lowlevel.wait_readable(self._socket)  # noqa: ASYNC105 - whoever calls this awaits it

    async def let_more_come(self) -> None:
        """Wait for a moment, so that the next read brings more."""
        await trio.sleep(MOMENT)

    async def wait_writable(self) -> None:
        """Return when the socket takes data again."""
        await trio.lowlevel.wait_writable(self._socket)

    async def receive_some(self, limit: int = 4096) -> bytes:
        """At least one byte, or ``b""`` at the end of the stream. Raises OSError."""
        buffer = memoryview(bytearray(limit))
        while True:
            await self.wait_readable()
            size = self.receive_nowait(buffer)
            if size is not None:
                return bytes(buffer[:size])

    async def send_all(self, data: bytes) -> None:
        """Return when the socket took everything. Raises OSError."""
        rest = memoryview(data)
        while len(rest):
            rest = rest[self.send_nowait(rest) :]
            if len(rest):
                await self.wait_writable()
        await trio.lowlevel.checkpoint_if_cancelled()

    def vouches_for(self, node: str) -> bool:
        """Whether what is known of the other end allows it to be ``node``; plain TCP knows nothing."""
        return True

    def try_send(self, data: bytes) -> None:
        """A last word before ``close``: what the socket takes at once, and no error if it takes nothing."""
        with contextlib.suppress(OSError):
            self.send_nowait(memoryview(data))

    def abort(self) -> None:
        """End both directions: whoever reads sees the end of the stream. The socket stays open until ``close``."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            if error.errno not in (errno.ENOTCONN, errno.EBADF):
                raise

    def end(self) -> None:
        """End our direction: the other side reads the end of the stream. Raises OSError."""
        self._socket.shutdown(socket.SHUT_WR)

    @property
    def is_local(self) -> bool:
        """Whether the other end is on this machine: its address is a loopback one, or the one it connected to."""
        try:
            peer = ipaddress.ip_address(self._socket.getpeername()[0].partition("%")[0])
            own = ipaddress.ip_address(self._socket.getsockname()[0].partition("%")[0])
        except OSError:  # it went away; epmd takes such a peer for a stranger as well
            return False
        return peer.is_loopback or peer == own

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._socket.fileno() < 0

    def close(self) -> None:
        """Close the socket; may be called again."""
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()


def format_address(address: tuple[object, ...]) -> str:
    """``host:port``, or ``[host]:port`` for IPv6."""
    host, port = str(address[0]), address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def resolve(host: str) -> list[tuple[int, str]]:
    """The addresses of ``host`` as (family, address), in the resolver's order.

    Raises:
        HostNotFound: the name does not resolve.
    """
    try:
        found = await trio.socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise HostNotFound(
            f"the host name {host!r} does not resolve ({error}): "
            f"check the part behind the @ of the node name, and /etc/hosts or DNS"
        ) from error
    return list(dict.fromkeys((int(family), str(address[0])) for family, _, _, _, address in found))


async def open_stream(host: str, port: int) -> Stream:
    """Connect to ``host:port``, trying each of its addresses in turn.

    Raises:
        HostNotFound: the name does not resolve.
        NodeUnreachable: no address took the connection; the message says why.
    """
    refusal: OSError | None = None
    for family, address in await resolve(host):
        sock = socket.socket(socket.AddressFamily(family), socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await trio.socket.from_stdlib_socket(sock).connect((address, port))
            return Stream(sock)
        except OSError as error:
            sock.close()
            refusal = error
        except BaseException:
            sock.close()
            raise
    reason = os.strerror(refusal.errno) if refusal is not None and refusal.errno else str(refusal)
    raise NodeUnreachable(f"no connection to {host}:{port}: {reason}") from refusal


class Transport:
    """What carries distribution between nodes: TCP as it is. ``tls.py`` has another, ``testing/cluster.py`` a third."""

    #: Bytes of the length in front of each message of the distribution handshake.
    length_bytes: ClassVar[int] = 2
    #: What to look at when a node that was dialled does not answer.
    doubts: ClassVar[str] = "is the node suspended, or something else listening there?"

    async def listen(self, host: str, port: int) -> Listener:
        """Listen on every address of ``host``. Raises HostNotFound, AddressInUse."""
        return await listen(host, port)

    async def open(self, host: str, port: int, node: str) -> Stream:
        """Connect to the node ``node`` on ``host:port``. Raises HostNotFound, NodeUnreachable."""
        return await open_stream(host, port)

    async def secure_dialled(self, stream: Stream, node: str) -> Stream:
        """Make a connection that ``open`` gave ready for the distribution handshake. Closes it when that fails."""
        return stream

    async def secure(self, stream: Stream) -> Stream:
        """Make an accepted connection ready for the distribution handshake. Closes it when that fails."""
        return stream


class Listener:
    """Listening sockets on one port. ``serve`` accepts until cancelled."""

    def __init__(self, sockets: list[socket.socket]) -> None:
        self._sockets = sockets
        self.port: int = sockets[0].getsockname()[1]

    @property
    def addresses(self) -> list[str]:
        """``host:port`` of each socket."""
        return [format_address(sock.getsockname()) for sock in self._sockets]

    async def serve(self, handler: Callable[[Stream], Awaitable[None]], nursery: trio.Nursery) -> None:
        """Start ``handler(stream)`` in ``nursery`` for each connection."""
        async with trio.open_nursery() as accepting:
            for sock in self._sockets:
                accepting.start_soon(self._accept, sock, handler, nursery)

    async def _accept(
        self, sock: socket.socket, handler: Callable[[Stream], Awaitable[None]], nursery: trio.Nursery
    ) -> None:
        while True:
            await trio.lowlevel.wait_readable(sock)
            try:
                accepted, _ = sock.accept()
            except (BlockingIOError, InterruptedError):
                continue
            except OSError as error:
                if error.errno in _PASSING:
                    await trio.sleep(0.05)  # file descriptors run out: give others the time to close theirs
                    continue
                raise
            try:
                stream = Stream(accepted)
            except OSError:  # gone before we looked: nobody is there to be told
                accepted.close()
                continue
            nursery.start_soon(handler, stream)

    def close(self) -> None:
        """Accept nothing more."""
        for sock in self._sockets:
            sock.close()


async def listen(host: str, port: int = 0) -> Listener:
    """Listen on every address that ``host`` resolves to, on one port (0: any free one).

    Raises:
        HostNotFound: the name does not resolve.
        AddressInUse: the port is taken, or the address is not of this machine.
    """
    addresses = await resolve(host)
    tries = _TRIES if port == 0 else 1
    while True:
        tries -= 1
        try:
            return Listener(_listening(addresses, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE and tries:
                continue
            what = os.strerror(error.errno) if error.errno else str(error)
            raise AddressInUse(
                f"cannot listen on {host}:{port}: {what}; choose another port, or a host name that is this machine's"
            ) from error


def _listening(addresses: list[tuple[int, str]], port: int) -> list[socket.socket]:
    """A socket for each of the addresses, all on one port. Raises OSError, and leaves none open then."""
    sockets: list[socket.socket] = []
    try:
        for family, address in addresses:
            sock = socket.socket(socket.AddressFamily(family), socket.SOCK_STREAM)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setblocking(False)
            sock.bind((address, port))
            sock.listen(128)
            port = sock.getsockname()[1]
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets
