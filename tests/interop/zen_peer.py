"""A node that is nothing but a socket, in the part of a remote Connector or Proxy: it sees each signal as it came."""

from __future__ import annotations

import itertools
import secrets
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

import trio

from erlang_interop.flags import OFFERED, DFlag
from erlang_interop.runtime.epmd import look_up
from erlang_interop.terms import Atom, Pid, Reference
from erlang_interop.wire.channel import DistChannel
from erlang_interop.wire.control import NO_PAYLOAD, Op
from erlang_interop.wire.handshake import Established, Initiator
from tests.interop.collectors import PATIENCE, until
from zenmon_node import Settings
from zenmon_node import messages as m

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from erlang_interop import Node, Term

    Signal = tuple[tuple[Any, ...], Any]

CREATION: Final = 9
#: Short intervals, for tests that are not about them; Connectors stay, however slow the machine is.
FAST: Final = Settings(
    connector_sweep_interval=5, batcher_sweep_interval=5, demand_interval=5, hibernation_threshold=1_000_000
)
#: What makes a node a visible one.
VISIBLE: Final = OFFERED | DFlag.PUBLISHED


class ZenPeer:
    """Connected to a node of ours.

    Attributes:
        name: Of this node.
        pid: One of its processes, which exists in name only: the Connector, the Proxy, a Batcher.
        on_proxy: Our Connector's monitor on the Proxy here, since the last ping that was answered.
    """

    def __init__(self, name: str, stream: trio.SocketStream, established: Established) -> None:
        self.name = Atom(name)
        self.pid = Pid(self.name, 1, 0, CREATION)
        self.on_proxy: Reference
        self._refs = itertools.count(1)
        self._stream = stream
        self._channel = DistChannel(established.agreed, peer=established.peer)
        self._signals = self._channel.receive_data(established.trailing_data)

    def process(self, number: int) -> Pid:
        """Another of its processes."""
        return Pid(self.name, number, 0, CREATION)

    def reference(self) -> Reference:
        """One that it has not used before."""
        return Reference(self.name, CREATION, struct.pack(">III", next(self._refs), 0, 0))

    # -- saying

    async def say(self, control: tuple[Any, ...], payload: Any = NO_PAYLOAD) -> None:
        """Send a signal."""
        self._channel.send(control, payload)
        await self._stream.send_all(self._channel.data_to_send())

    async def tell(self, dest: Pid, message: Term) -> None:
        """Send a message to a process."""
        await self.say((Op.SEND_SENDER, self.pid, dest), message)

    async def tell_proxy(self, message: Term) -> None:
        """Send a message to our node's Proxy, by its name."""
        await self.say((Op.REG_SEND, self.pid, Atom(""), m.PROXY), message)

    async def cast(self, *instructions: Term, subscriber: Pid | None = None) -> None:
        """A batch of instructions, as a Connector sends it."""
        await self.tell_proxy((m.GEN_CAST, (m.PROCESS, subscriber or self.pid, list(instructions))))

    # -- hearing

    async def hear(self) -> Signal:
        """The next signal that is for a process of this node, or for its Proxy."""
        with trio.fail_after(PATIENCE):
            while True:
                while self._signals:
                    control, payload = self._signals.pop(0)
                    if any(self._is_concerned(slot) for slot in control):
                        return control, payload
                data = await self._stream.receive_some()
                assert data, "our node has closed the connection"
                self._signals += self._channel.receive_data(data)
                assert self._channel.failure is None, self._channel.failure

    def _is_concerned(self, slot: Any) -> bool:
        """Whether a slot of a control tuple says that the signal is no other service's."""
        return slot == m.PROXY or (isinstance(slot, (Pid, Reference)) and slot.node == self.name)

    async def hear_until_pong(self) -> list[Signal]:
        """Ask our Proxy, and give what came before its answer: all that our node had to say until it was asked."""
        marker = self.reference()
        await self.tell_proxy(m.ping_call(self.pid, marker))
        heard = []
        while (signal := await self.hear())[1] != (marker, m.PONG):
            heard.append(signal)
        return heard

    async def hear_instructions(self, count: int) -> list[tuple[str, Term]]:
        """The next instructions, so many of them, all of one Connector: ``("subscribe", target)``."""
        heard: list[tuple[str, Term]] = []
        while len(heard) < count:
            (op, connector, _, name), (tag, (kind, subscriber, batch)) = await self.hear()
            assert (op, name, tag, kind) == (Op.REG_SEND, m.PROXY, m.GEN_CAST, m.PROCESS)
            assert subscriber == connector
            heard += [(instruction[0].name, instruction[1]) for instruction in batch]
        assert len(heard) == count, heard
        return heard

    async def hear_certificates(self, count: int) -> list[tuple[Term, Term]]:
        """The next certificates, so many of them, from summaries of the node they came from."""
        heard: list[tuple[Term, Term]] = []
        while len(heard) < count:
            control, payload = await self.hear()
            if control[0] == Op.MONITOR_P:
                continue  # our Proxy's, on its subscriber
            assert control[0] == Op.SEND_SENDER, (control, payload)
            assert payload[:2] == (m.DEAD, control[1].node), payload
            heard += payload[2]
        assert len(heard) == count, heard
        return heard

    async def answer_ping(self, answer: Term = m.PONG) -> Pid:
        """Take a ping of our Connector, with the monitor that goes before it, and answer it.

        Returns:
            The Connector.
        """
        monitor, _ = await self.hear()
        assert (Op(monitor[0]), monitor[2]) == (Op.MONITOR_P, m.PROXY), monitor
        control, call = await self.hear()
        assert call == (m.GEN_CALL, (monitor[1], call[1][1]), m.PING), (control, call)
        self.on_proxy = monitor[3]
        connector: Pid = monitor[1]
        await self.tell(connector, (call[1][1], answer))
        return connector

    async def hang_up(self) -> None:
        """Close the connection."""
        await self._stream.aclose()


class Dial(Protocol):
    """``dialling``, to the node under test."""

    def __call__(self, **options: Any) -> AbstractAsyncContextManager[ZenPeer]: ...


@asynccontextmanager
async def dialling(
    node: Node, epmd_port: int, cookie: str, *, name: str | None = None, flags: DFlag = OFFERED
) -> AsyncIterator[ZenPeer]:
    """A peer that is connected to ``node``, and known there; ``flags`` without PUBLISHED: a hidden one."""
    name = name or f"peer_{secrets.token_hex(4)}@127.0.0.1"
    port = await look_up("127.0.0.1", epmd_port, node.short_name)
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        handshake = Initiator(name, node.name.name, flags, CREATION, cookie, secrets.randbits(32))
        established = None
        while established is None:
            await stream.send_all(handshake.data_to_send())
            data = await stream.receive_some()
            assert data, handshake.connection_lost()
            for event in handshake.receive_data(data):
                if isinstance(event, Established):
                    established = event
        await until(lambda: node.is_connected(Atom(name)))
        yield ZenPeer(name, stream, established)
