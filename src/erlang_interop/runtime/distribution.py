"""Connections: dialled or accepted, arbitrated, served, ticked, lost.

What one connection goes through stands here in order: ``_dial`` or ``accept`` (handshake, arbitration by the
connection table), ``_connected``, ``_serve`` (one reader task, one writer task), ``_connection_lost``. Signals do not
stop here: the reader hands them to the router.

Source: kernel/src/net_kernel.erl, kernel/src/dist_util.erl.
"""

from __future__ import annotations

import logging
import secrets
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import trio

from ..errors import (
    BadName,
    ConnectError,
    ConnectRefused,
    ConnectTimeout,
    HandshakeError,
    NodeUnreachable,
    RemoteProtocolError,
    Superseded,
)
from ..flags import OFFERED, DFlag
from ..terms import Atom
from ..wire.channel import DistChannel
from ..wire.handshake import Acceptor, Established, Initiator, NameReceived, StatusReceived, Verdict
from ..wire.handshake import State as HandshakeState
from ..wire.ticks import Ticker, TickVerdict
from . import epmd
from .atoms import NOCONNECTION
from .connections import ConnectionTable, Row
from .events import NodeDown, NodeEvents, NodeUp
from .peer import Peer, PeerState
from .signals import Router, atom_of
from .transport import Stream, open_stream

if TYPE_CHECKING:
    from collections.abc import Collection

    from ..terms import Term

log = logging.getLogger("erlang_interop.node")

#: One read from a socket: bigger ones push the decoded terms out of the processor's cache.
READ_SIZE: Final = 64 * 1024
#: Entries of a lost connection that are worked off between two checkpoints.
SLICE: Final = 10_000
#: Accepted connections that may be in their handshake at once; one more is closed at once.
MAX_HANDSHAKES: Final = 128

#: Stands for the conn_id of a handshake with a node whose connection is up: it gets one of its own when it is through.
_OF_OLD_CONNECTION: Final = -1
_CONNECTION_CLOSED: Final = Atom("connection_closed")
_DISCONNECT: Final = Atom("disconnect")
_NET_TICK_TIMEOUT: Final = Atom("net_tick_timeout")


@dataclass(frozen=True, slots=True)
class ConnectionInfo:
    """One row of ``node.connections``."""

    name: Atom
    state: str
    """``pending``, ``up``, ``up_pending`` or ``exiting``."""
    type: Literal["visible", "hidden"]
    address: str
    """``host:port`` of the other end, once there is one."""
    flags: DFlag
    """Those both sides announced."""
    creation: int
    """The peer's incarnation."""
    since: float
    """The loop's time at which it came up, in seconds (``trio.current_time``)."""
    bytes_in: int
    bytes_out: int
    messages_in: int
    messages_out: int
    unsent: int
    """Bytes that the socket has not taken yet."""


class Distribution:
    """All connections of one node.

    Args:
        name: The node's full name.
        cookie: The secret shared with its peers.
        visible: Whether it announces itself as published.
        net_ticktime: Seconds without a sign of life after which a peer is taken for dead.
        epmd_port: Where the EPMDs of other hosts are asked.
        allow: The only nodes that may connect to it; None lets everybody with the cookie in.
        connect_timeout: Seconds for a dial or an accepted handshake, look-up included.
        dirty: Peers with something to send, which the node flushes at the end of each pass.
    """

    def __init__(
        self,
        name: str,
        cookie: str,
        *,
        visible: bool,
        net_ticktime: float,
        epmd_port: int,
        allow: Collection[str] | None,
        connect_timeout: float,
        dirty: list[Peer],
    ) -> None:
        self.name = Atom(name)
        self.creation = 0
        self.net_ticktime = net_ticktime
        self.router = Router(self.name, self.peer_for)
        self.events = NodeEvents()
        self.table: ConnectionTable[Peer] = ConnectionTable(name)
        self.stopping = False
        self._cookie = cookie
        self._flags = OFFERED | (DFlag.PUBLISHED if visible else DFlag(0))
        self._epmd_port = epmd_port
        self._allow = None if allow is None else frozenset(allow)
        self._connect_timeout = connect_timeout
        self._dirty = dirty
        self._handshakes = 0
        self._tasks: trio.Nursery | None = None

    def start(self, tasks: trio.Nursery, creation: int) -> None:
        """From now on dials and connections run in ``tasks``."""
        self._tasks = tasks
        self.creation = self.router.creation = creation
        tasks.start_soon(self._tick)

    async def close(self, patience: float) -> None:
        """Let the peers take what waits for them, ``patience`` seconds at most, then close every connection."""
        self.stopping = True
        peers = list(self.router.peers.values())
        with trio.move_on_after(patience):
            for peer in peers:
                await peer.drained()
        for peer in peers:
            peer.closing = _DISCONNECT
            if peer.stream is not None:
                peer.stream.abort()
        with trio.move_on_after(patience):
            for peer in peers:
                if peer.state is not PeerState.PENDING:
                    await peer.gone.wait()
        for peer in peers:
            peer.down()
            peer.settled.set()

    async def connect(self, peer: Atom | str) -> None:
        """See ``Node.connect``."""
        name = atom_of(peer)
        if name == self.name:
            raise BadName(f"{name.name} is this node itself")
        split_name(name.name)
        link = self.router.peers.get(name) or self.peer_for(name)
        await link.settled.wait()
        if link.state is not PeerState.UP and link.failure is not None:
            # One error object may be raised to many callers: each gets its own copy, with its own traceback.
            raise _copy(link.failure)
        await trio.lowlevel.checkpoint_if_cancelled()

    async def disconnect(self, peer: Atom | str) -> bool:
        """See ``Node.disconnect``."""
        link = self.router.peers.get(atom_of(peer))
        if link is None or link.state is not PeerState.UP or link.stream is None:
            return False
        link.flush()
        link.closing = _DISCONNECT
        link.stream.abort()
        await link.gone.wait()
        return True

    def peer_for(self, name: Atom) -> Peer:
        """The router's way to a node that it has no peer for: a new one, which is dialled."""
        peer = Peer(name, self._dirty)
        if self.stopping or self._tasks is None:
            peer.down()
            return peer
        self.router.peers[name] = peer
        row = self.table.get(name)
        if row is None:
            peer.conn_id = self.table.begin(name, peer, dialled=True).conn_id
        self._tasks.start_soon(self._dial, peer)
        return peer

    async def _dial(self, peer: Peer) -> None:
        row = self.table.get(peer.name)
        if row is not None and row.link is not peer:
            await row.link.gone.wait()  # the last connection still hands out its losses
            if self.table.get(peer.name) is not None or peer.state is not PeerState.PENDING:
                return  # the other side was quicker; its attempt carries this peer
            peer.conn_id = self.table.begin(peer.name, peer, dialled=True).conn_id
        conn_id = peer.conn_id
        try:
            with trio.fail_after(self._connect_timeout):
                await self._dial_once(peer, conn_id)
                # A handshake that gave way to the peer's own is settled by that one.
                await peer.settled.wait()
            return
        except trio.TooSlowError as error:
            failure: ConnectError = ConnectTimeout(
                f"{peer.name.name} did not finish the handshake within {self._connect_timeout} s: "
                f"is the node suspended, or something else listening there?",
                peer.name.name,
            )
            failure.__cause__ = error
        except HandshakeError as error:
            failure = ConnectRefused(f"{peer.name.name} and this node do not agree: {error}", peer.name.name)
            failure.__cause__ = error
        except (OSError, RemoteProtocolError) as error:
            failure = NodeUnreachable(
                f"the connection to {peer.name.name} broke during the handshake: {error}", peer.name.name
            )
            failure.__cause__ = error
        except ConnectError as error:
            failure = error
        except BadName as error:
            failure = NodeUnreachable(str(error), peer.name.name)
        await self._attempt_failed(peer, conn_id, failure)

    async def _dial_once(self, peer: Peer, conn_id: int) -> None:
        name = peer.name.name
        short, host = split_name(name)
        port = await epmd.look_up(host, self._epmd_port, short, node=name)
        stream = await open_stream(host, port)
        try:
            initiator = Initiator(self.name.name, name, self._flags, self.creation, self._cookie, secrets.randbits(32))
            while True:
                await stream.send_all(initiator.data_to_send())
                data = await stream.receive_some()
                if not data:
                    raise initiator.connection_lost()
                for event in initiator.receive_data(data):
                    if isinstance(event, Established):
                        if not self._connected(peer, conn_id, stream, event):
                            stream.close()
                        return
                    if isinstance(event, StatusReceived) and event.status is Verdict.ALIVE:
                        row = self.table.get(peer.name)
                        initiator.answer_alive(row is not None and row.conn_id == conn_id)
        except Superseded:
            stream.close()  # the peer's dial to us goes on instead, and settles this one
        except BaseException:
            stream.close()
            raise

    async def _attempt_failed(self, peer: Peer, conn_id: int, failure: ConnectError) -> None:
        """Everything that waited for this connection hears that there is none."""
        row = self.table.exiting(peer.name, conn_id)
        if row is None:
            return
        log.info("no connection to %s: %s", peer.name.name, failure)
        peer.failure = failure
        await self._hand_out_losses(row, peer)
        peer.settled.set()

    async def accept(self, stream: Stream) -> None:
        """One accepted connection, from its first byte to its end."""
        if self._handshakes >= MAX_HANDSHAKES or self.stopping:
            log.warning(
                "closing a connection from %s: %d handshakes are under way already", stream.address, self._handshakes
            )
            stream.close()
            return
        self._handshakes += 1
        acceptor = Acceptor(self.name.name, self._flags, self.creation, self._cookie, secrets.randbits(32))
        attempt: list[tuple[Peer, int]] = []
        failure: Exception | None = None
        try:
            with trio.fail_after(self._connect_timeout):
                await self._accept_handshake(stream, acceptor, attempt)
        except trio.TooSlowError:
            failure = ConnectTimeout(f"it did not finish the handshake within {self._connect_timeout} s", acceptor.peer)
        except (OSError, RemoteProtocolError) as error:
            failure = error
            last_word = acceptor.data_to_send()  # "not_allowed", for a peer that will want to know
            if last_word:
                stream.try_send(last_word)
        finally:
            self._handshakes -= 1
            if not attempt or attempt[0][0].stream is not stream:
                stream.close()
        if failure is None:
            return
        log.warning("handshake with %s failed: %s", stream.address, failure)
        for peer, conn_id in attempt:
            if conn_id == _OF_OLD_CONNECTION:
                self.table.still_up(peer.name)
            else:
                lost = NodeUnreachable(f"its handshake with this node failed: {failure}", peer.name.name)
                await self._attempt_failed(peer, conn_id, lost)

    async def _accept_handshake(self, stream: Stream, acceptor: Acceptor, attempt: list[tuple[Peer, int]]) -> None:
        """``attempt`` holds the row that this handshake is for, as soon as there is one."""
        while True:
            data = await stream.receive_some()
            if not data:
                raise acceptor.connection_lost()
            for event in acceptor.receive_data(data):
                if isinstance(event, NameReceived):
                    await self._name_received(event, acceptor, stream, attempt)
                elif isinstance(event, Established):
                    await stream.send_all(acceptor.data_to_send())
                    if attempt[0][1] == _OF_OLD_CONNECTION:
                        attempt[:] = [await self._replace(attempt[0][0])]
                    if not self._connected(*attempt[0], stream, event):
                        attempt.clear()
                    return
            await stream.send_all(acceptor.data_to_send())
            if acceptor.state is HandshakeState.FAILED:
                return

    async def _name_received(
        self, event: NameReceived, acceptor: Acceptor, stream: Stream, attempt: list[tuple[Peer, int]]
    ) -> None:
        name = Atom(event.peer)
        if self._allow is not None and event.peer not in self._allow:
            log.warning("refusing %s (%s): it is not in the list of allowed nodes", event.peer, stream.address)
            acceptor.accept(Verdict.NOT_ALLOWED)
            return
        if name == self.name:
            log.warning("refusing %s: it calls itself %s, which is this node", stream.address, event.peer)
            acceptor.accept(Verdict.NOT_ALLOWED)
            return
        verdict = self.table.incoming(name)
        acceptor.accept(verdict)
        if verdict is Verdict.OK:
            attempt.append(await self._begin_incoming(name))
        elif verdict is Verdict.OK_SIMULTANEOUS:
            row = self.table.get(name)
            assert row is not None
            attempt.append((row.link, self.table.supersede(row)))
            row.link.conn_id = row.conn_id
        elif verdict is Verdict.ALIVE:
            row = self.table.get(name)
            assert row is not None
            attempt.append((row.link, _OF_OLD_CONNECTION))

    async def _begin_incoming(self, name: Atom) -> tuple[Peer, int]:
        """A pending row for a node that dials us, taking over a peer that waits to be dialled."""
        row = self.table.get(name)
        while row is not None:
            await row.link.gone.wait()
            row = self.table.get(name)
        peer = self.router.peers.get(name)
        if peer is None:
            peer = self.router.peers[name] = Peer(name, self._dirty)
        peer.conn_id = self.table.begin(name, peer, dialled=False).conn_id
        return peer, peer.conn_id

    async def _replace(self, old: Peer) -> tuple[Peer, int]:
        """The node whose connection we hold dialled anew, and means it: the old connection goes first.

        dist_util takes the old one down before the cookie is checked; here a stranger cannot cost anybody a connection.
        """
        if old.stream is not None and old.state is PeerState.UP:
            old.closing = _CONNECTION_CLOSED
            old.stream.abort()
        return await self._begin_incoming(old.name)

    def _connected(self, peer: Peer, conn_id: int, stream: Stream, event: Established) -> bool:
        """The handshake is through. False: this attempt was superseded and its stream is to be closed."""
        if not self.table.set_node(peer.name, conn_id):
            return False
        assert self._tasks is not None
        peer.flags, peer.agreed, peer.creation = event.flags, event.agreed, event.creation
        peer.hidden = not event.flags & DFlag.PUBLISHED
        peer.address = stream.address
        peer.since = trio.current_time()
        wire = DistChannel(event.agreed, peer=peer.name.name)
        peer.up(stream, wire, Ticker(self.net_ticktime, now=peer.since))
        log.info("%s is connected (%s, %s)", peer.name.name, peer.type, peer.address)
        self.events.fire(NodeUp(peer.name, peer.type))
        peer.release_queue()
        peer.settled.set()
        self._tasks.start_soon(self._serve, peer, event.trailing_data)
        return True

    async def _serve(self, peer: Peer, received: bytes) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.write)
            reason = await self._read(peer, received)
            nursery.cancel_scope.cancel()
        await self._connection_lost(peer, peer.closing if peer.closing is not None else reason)

    async def _read(self, peer: Peer, received: bytes) -> Term:
        """Everything this peer ever says enters through here. Returns why it ended.

        One read, one decoding, one dispatch, without an await in between: order is the protocol.
        """
        wire, stream, dispatch = peer.wire, peer.stream, self.router.dispatch
        assert wire is not None
        assert stream is not None
        buffer = memoryview(bytearray(READ_SIZE))
        try:
            if received:
                dispatch(peer, wire.receive_data(received))
            while wire.failure is None:
                await stream.wait_readable()
                size = stream.receive_nowait(buffer)
                while size:
                    dispatch(peer, wire.receive_data(bytes(buffer[:size])))
                    peer.flush()
                    if size < READ_SIZE or wire.failure is not None:
                        break
                    await trio.lowlevel.checkpoint()  # there is more, but others are to run as well
                    size = stream.receive_nowait(buffer)
                if size == 0:
                    return _CONNECTION_CLOSED
            raise wire.failure
        except OSError as error:
            log.info("the connection to %s broke: %s", peer.name.name, error)
        except RemoteProtocolError as error:
            log.error("closing the connection to %s (%s): %s", peer.name.name, peer.address, error)
        return _CONNECTION_CLOSED

    async def _connection_lost(self, peer: Peer, reason: Term) -> None:
        row = self.table.exiting(peer.name, peer.conn_id)
        if row is None:
            return
        log.info("%s is disconnected: %s", peer.name.name, reason)
        await self._hand_out_losses(row, peer)
        self.events.fire(NodeDown(peer.name, peer.type, reason))

    async def _hand_out_losses(self, row: Row[Peer], peer: Peer) -> None:
        if self.router.peers.get(peer.name) is peer:
            del self.router.peers[peer.name]
        peer.down()
        while not self.router.connection_lost(peer, NOCONNECTION, SLICE):
            await trio.lowlevel.checkpoint()
        self.table.remove(row)
        peer.gone.set()

    async def _tick(self) -> None:
        """One ticker for all connections."""
        while True:
            await trio.sleep(self.net_ticktime / 4 / 4)
            now = trio.current_time()
            for peer in list(self.router.peers.values()):
                wire, ticker, stream = peer.wire, peer.ticker, peer.stream
                if wire is None or ticker is None or stream is None:
                    continue
                verdict = ticker.advance(now, wire.bytes_received, wire.bytes_sent - peer.unsent)
                if verdict is TickVerdict.SEND_TICK:
                    peer.emit_tick()
                elif verdict is TickVerdict.TIMEOUT:
                    log.warning("%s has not been heard of for %.0f s", peer.name.name, self.net_ticktime)
                    peer.closing = _NET_TICK_TIMEOUT
                    stream.abort()

    # -- what is known of the peers

    def nodes(self, kind: Literal["visible", "hidden", "connected", "known"]) -> list[Atom]:
        """See ``Node.nodes``."""
        if kind not in ("visible", "hidden", "connected", "known"):
            raise ValueError(f"kind is 'visible', 'hidden', 'connected' or 'known', not {kind!r}")
        return [
            peer.name
            for peer in self.router.peers.values()
            if kind == "known" or (peer.state is PeerState.UP and kind in ("connected", peer.type))
        ]

    @property
    def connections(self) -> list[ConnectionInfo]:
        """See ``Node.connections``."""
        return [_connection_info(row) for row in self.table.rows()]

    def peer_flags(self, peer: Atom | str) -> DFlag | None:
        """See ``Node.peer_flags``."""
        link = self.router.peers.get(atom_of(peer))
        return link.agreed if link is not None and link.state is PeerState.UP else None


def split_name(name: str) -> tuple[str, str]:
    """``"py@host"`` as ``("py", "host")``.

    Raises:
        BadName: it is not of that form.
    """
    short, at, host = name.partition("@")
    if not short or not at or not host or "@" in host:
        example = f"{short or 'py'}@{socket.gethostname()}"
        raise BadName(f"{name!r} is no node name: one has the form name@host, for example {example}")
    return short, host


def _connection_info(row: Row[Peer]) -> ConnectionInfo:
    peer, wire = row.link, row.link.wire
    return ConnectionInfo(
        name=peer.name,
        state=row.state.value,
        type=peer.type,
        address=peer.address,
        flags=peer.agreed,
        creation=peer.creation,
        since=peer.since,
        bytes_in=wire.bytes_received if wire is not None else 0,
        bytes_out=wire.bytes_sent if wire is not None else 0,
        messages_in=wire.frames_received if wire is not None else 0,
        messages_out=wire.frames_sent if wire is not None else 0,
        unsent=peer.unsent,
    )


def _copy(error: Exception) -> Exception:
    copy = type(error)(*error.args)
    copy.__dict__.update(error.__dict__)
    copy.__cause__ = error.__cause__
    return copy
