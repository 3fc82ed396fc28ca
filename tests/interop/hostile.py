"""A node of ours under attack, connected to a genuine BEAM that must not notice: what tests of wrong bytes share."""

from __future__ import annotations

import logging
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from erlang_interop import Atom, Pid
from erlang_interop.flags import OFFERED
from erlang_interop.runtime.epmd import look_up
from erlang_interop.wire.handshake import Established, Initiator
from tests.interop.collectors import PATIENCE, Collector, collecting, until

if TYPE_CHECKING:
    import pytest

    from erlang_interop import Node, Process
    from erlang_interop.testing.beam import Beam
    from tests.interop.conftest import NodeOpener

EVIL: Final = Atom("evil@127.0.0.1")
EVIL_PID: Final = Pid(EVIL, 7, 0, 5)
#: Seconds that the attacked node allows for a handshake: enough for a machine under test that stands still.
TIME_LIMIT: Final = 30.0


class Attacked:
    """A node of ours that listens on ``port``, one of its processes, and a collector on the BEAM it is connected to."""

    def __init__(self, node: Node, victim: Process, port: int, cookie: str, friend: Collector) -> None:
        self.node = node
        self.victim = victim
        self.friend = friend
        self.cookie = cookie
        self._port = port

    def allow(self, seconds: float) -> None:
        """Have the node allow so much for a handshake that begins from now on."""
        self.node._distribution._handshakes._connect_timeout = seconds

    async def dial(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self._port)

    async def shake_hands(self, name: str = EVIL.name, cookie: str | None = None) -> trio.SocketStream:
        """A connection behind a correct handshake."""
        stream = await self.dial()
        initiator = Initiator(name, self.node.name.name, OFFERED, EVIL_PID.creation, cookie or self.cookie, 12345)
        while True:
            await stream.send_all(initiator.data_to_send())
            data = await stream.receive_some()
            if not data:
                await stream.aclose()
                raise initiator.connection_lost()
            for event in initiator.receive_data(data):
                if isinstance(event, Established):
                    return stream

    async def has_forgotten(self) -> None:
        """Return when nobody but the friend is in the connection table."""
        friend = self.friend.beam.name
        await until(lambda: [row.name.name for row in self.node.connections] == [friend])


@asynccontextmanager
async def attacking(
    opened: NodeOpener, beam: Beam, epmd_port: int, cookie: str, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[Attacked]:
    """The node under attack; at the end its friend must not have noticed."""
    async with (
        opened(connect_timeout=TIME_LIMIT) as node,
        node.open_process("victim") as victim,
        collecting(beam) as friend,
    ):
        await node.connect(beam.name)
        (before,) = node.connections
        await friend.run("net_kernel", "monitor_nodes", True, [(Atom("node_type"), Atom("all"))])
        watching = await friend.monitor(victim.pid)
        await friend.round_trip(victim)
        port = await look_up("127.0.0.1", epmd_port, node.short_name)
        caplog.clear()
        attacked = Attacked(node, victim, port, cookie, friend)
        yield attacked
        await friend.round_trip(victim)
        noticed = await friend.take(await friend.waiting())
        lost = [(Atom("nodedown"), node.name), (Atom("DOWN"), watching)]
        assert [event for event in noticed if event[:2] in lost] == []
        await attacked.has_forgotten()
        (after,) = node.connections
        assert (after.state, after.since) == ("up", before.since)
        assert len(victim.mailbox) == 0


async def say(stream: trio.SocketStream, data: bytes, *, hang_up: bool = False) -> None:
    """Send what the node may not want to hear to its end."""
    with trio.fail_after(PATIENCE):
        try:
            await stream.send_all(data)
            if hang_up:
                await stream.send_eof()
        except trio.BrokenResourceError:
            pass  # it has closed the connection


async def what_it_says_until_it_hangs_up(stream: trio.SocketStream) -> bytes:
    """Everything the node sends until it closes the connection."""
    said = b""
    with trio.fail_after(PATIENCE):
        try:
            while data := await stream.receive_some():
                said += data
        except trio.BrokenResourceError:
            pass  # closed while bytes of ours were unread: TCP tells it so
    await stream.aclose()
    return said


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines of the log that an operator looks at."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def introduction(name: bytes, flags: int = OFFERED) -> bytes:
    """The first message of a handshake, with its length."""
    body = struct.pack(">cQIH", b"N", flags, 5, len(name)) + name
    return struct.pack(">H", len(body)) + body
