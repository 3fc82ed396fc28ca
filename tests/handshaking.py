"""A peer made by hand: it says in a handshake what it is told to, step by step, to a node of ours or to a BEAM."""

from __future__ import annotations

import math
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Self

import trio

from erlang_interop.flags import OFFERED, DFlag
from erlang_interop.runtime import epmd
from erlang_interop.wire.handshake import digest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from erlang_interop import EpmdAddress

#: Seconds after which a peer stops waiting for what should have come at once.
PATIENCE = 20.0

NOT_ALLOWED = b"snot_allowed"


def name_message(name: str, flags: int = OFFERED, creation: int = 77, behind: bytes = b"") -> bytes:
    """``N``: what a node that dials begins with."""
    encoded = name.encode("latin-1")
    return struct.pack(">cQIH", b"N", flags, creation, len(encoded)) + encoded + behind


def old_name_message(name: str, flags: int = OFFERED) -> bytes:
    """``n``: what a node of OTP 23 or 24 may begin with."""
    return struct.pack(">cHI", b"n", 5, flags & 0xFFFFFFFF) + name.encode("latin-1")


def complement_message(flags: int = OFFERED, creation: int = 77) -> bytes:
    """``c``: the rest of it."""
    return struct.pack(">cII", b"c", flags >> 32, creation)


def challenge_message(name: str, flags: int = OFFERED, challenge: int = 1, creation: int = 77) -> bytes:
    """``N`` of the node that was dialled."""
    encoded = name.encode("latin-1")
    return struct.pack(">cQIIH", b"N", flags, challenge, creation, len(encoded)) + encoded


class Raw:
    """One connection of such a peer. Messages are bodies, without their length."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._received = b""

    @classmethod
    async def dial(cls, port: int) -> Self:
        """Connect to a node on this machine."""
        return cls(await trio.open_tcp_stream("127.0.0.1", port))

    @property
    def address(self) -> str:
        """How the other side calls this connection."""
        host, port = self._stream.socket.getsockname()
        return f"{host}:{port}"

    async def send(self, body: bytes) -> None:
        """Send one message of the handshake."""
        await self.send_bytes(struct.pack(">H", len(body)) + body)

    async def send_bytes(self, data: bytes) -> None:
        """Send bytes as they are."""
        with trio.fail_after(PATIENCE):
            await self._stream.send_all(data)

    async def receive(self) -> bytes | None:
        """The next message of the handshake; None at the end of the stream."""
        head = await self.receive_bytes(2)
        return None if head is None else await self.receive_bytes(struct.unpack(">H", head)[0])

    async def receive_bytes(self, size: int) -> bytes | None:
        """``size`` bytes, or None at the end of the stream."""
        with trio.fail_after(PATIENCE):
            while len(self._received) < size:
                try:
                    data = await self._stream.receive_some()
                except trio.BrokenResourceError:
                    return None
                if not data:
                    return None
                self._received += data
        taken, self._received = self._received[:size], self._received[size:]
        return taken

    async def introduce(self, name: str, flags: int = OFFERED, creation: int = 77) -> str | None:
        """Say one's name, and return the status word that comes back; None if it hangs up."""
        await self.send(name_message(name, flags, creation))
        status = await self.receive()
        assert status is None or status[:1] == b"s", status
        return None if status is None else status[1:].decode()

    async def finish(self, cookie: str) -> bool:
        """The rest of the handshake of a node that dialled; whether the other side lets it in."""
        challenge = await self.receive()
        if challenge is None:
            return False
        assert challenge[:1] == b"N", challenge
        number = struct.unpack_from(">I", challenge, 9)[0]
        await self.send(struct.pack(">cI16s", b"r", 12345, digest(cookie, number)))
        ack = await self.receive()
        assert ack is None or ack == b"a" + digest(cookie, 12345)
        return ack is not None

    async def shake_hands(self, name: str, cookie: str) -> str | None:
        """A whole handshake as the node ``name``; the status word. It means it, if it is asked."""
        status = await self.introduce(name)
        if status == "alive":
            await self.send(b"strue")
        assert await self.finish(cookie), status
        return status

    async def accept_as(self, name: str, cookie: str, flags: int = OFFERED) -> None:
        """The rest of the handshake, from the challenge on, as the node ``name`` that was dialled."""
        await self.send(challenge_message(name, flags))
        reply = await self.receive()
        assert reply is not None
        assert reply[:1] == b"r"
        assert reply[5:] == digest(cookie, 1), "it shows another cookie"
        await self.send(b"a" + digest(cookie, struct.unpack_from(">I", reply, 1)[0]))

    async def ended(self) -> None:
        """Return when the other side has hung up; ticks and frames are dropped."""
        while await self.receive_bytes(1) is not None:
            pass

    async def close(self) -> None:
        await self._stream.aclose()


@asynccontextmanager
async def dialling() -> AsyncIterator[Callable[[int], Awaitable[Raw]]]:
    """``dial(port)`` for as long as the block runs; all that was dialled is closed at its end."""
    dialled: list[Raw] = []

    async def dial(port: int) -> Raw:
        dialled.append(await Raw.dial(port))
        return dialled[-1]

    yield dial
    for raw in dialled:
        await raw.close()


class RawListener:
    """A port on which such a peer waits to be dialled."""

    def __init__(self, port: int, incoming: trio.MemoryReceiveChannel[Raw]) -> None:
        self.port = port
        self._incoming = incoming

    async def accept(self) -> Raw:
        """The next one that dials."""
        with trio.fail_after(PATIENCE):
            return await self._incoming.receive()

    async def accept_name(self) -> Raw:
        """As ``accept``, after its name was received."""
        raw = await self.accept()
        message = await raw.receive()
        assert message is not None
        assert message[:1] == b"N"
        return raw

    @property
    def waiting(self) -> int:
        """How many dialled and were not accepted yet."""
        return self._incoming.statistics().current_buffer_used


@asynccontextmanager
async def listening(address: EpmdAddress, name: str) -> AsyncIterator[RawListener]:
    """A peer that EPMD knows as the node ``name``, for as long as the block runs."""
    put, incoming = trio.open_memory_channel[Raw](math.inf)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    open_streams: list[trio.SocketStream] = []

    async def take(stream: trio.SocketStream) -> None:
        open_streams.append(stream)
        put.send_nowait(Raw(stream))
        await trio.sleep_forever()  # trio closes the stream when this returns

    registration = await epmd.register(address, name.partition("@")[0], port, visible=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, take, [listener])
        yield RawListener(port, incoming)
        nursery.cancel_scope.cancel()
    registration.stream.close()
    for stream in open_streams:
        await stream.aclose()


def without(*flags: DFlag) -> DFlag:
    """What we offer, less these; and not the one bit that stands for many."""
    offered = OFFERED & ~DFlag.MANDATORY_25_DIGEST
    for flag in flags:
        offered &= ~flag
    return offered
