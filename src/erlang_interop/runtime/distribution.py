"""Connections: dialled or accepted, arbitrated, served, ticked, lost.

What one connection goes through: ``Handshakes.dial`` or ``accept`` (``handshakes.py``), then here, in order,
``connected``, ``_serve`` (one reader task, one writer task), ``_connection_lost``. Signals do not stop here: the reader
hands them to the router.

Source: kernel/src/net_kernel.erl, kernel/src/dist_util.erl.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import trio

from ..errors import BadName, ConnectError, NodeUnreachable, RemoteProtocolError
from ..flags import OFFERED, DFlag
from ..terms import Atom
from ..wire.channel import DistChannel
from .addresses import parse_address, split_name
from .atoms import KILLED, NOCONNECTION
from .connections import ConnectionTable, Row
from .events import NodeDown, NodeUp
from .gathering import Gathering
from .handshakes import Handshakes
from .peer import Peer, PeerState
from .signals import Router, atom_of
from .ticking import NetTicker

if TYPE_CHECKING:
    from ..terms import Term
    from ..wire.channel import Limits
    from ..wire.handshake import Established
    from .access import AllowList, Cookies
    from .addresses import Addresses, AddressLike
    from .handshakes import StatusCount
    from .transport import Stream, Transport

log = logging.getLogger("erlang_interop.node")

#: One read from a socket: bigger ones push the decoded terms out of the processor's cache.
READ_SIZE: Final = 64 * 1024
#: Entries of a lost connection that are worked off between two checkpoints.
SLICE: Final = 10_000
#: Nodes whose last failure to be connected is remembered.
MAX_FAILURES: Final = 100
_CONNECTION_CLOSED: Final = Atom("connection_closed")
_DISCONNECT: Final = Atom("disconnect")
_NET_KERNEL_TERMINATED: Final = Atom("net_kernel_terminated")


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
    connection_id: int
    """What nodeup and nodedown call this connection; another one to the same node has another."""


class Distribution:
    """All connections of one node.

    Args:
        name: The node's full name.
        cookies: The secrets shared with its peers.
        visible: Whether it announces itself as published.
        net_ticktime: Seconds without a sign of life after which a peer is taken for dead.
        net_tickintensity: Ticks within that time.
        addresses: Where other nodes listen.
        transport: What carries the bytes.
        allowed: The nodes that may connect to it, or be dialled.
        connect_timeout: Seconds for a dial or an accepted handshake, look-up included.
        max_handshakes: Accepted connections that may be in their handshake at once.
        limits: What each peer may make this node hold.
        dirty: Peers with something to send, which the node flushes at the end of each pass.
    """

    def __init__(
        self,
        name: str,
        cookies: Cookies,
        *,
        visible: bool,
        net_ticktime: float,
        net_tickintensity: int,
        addresses: Addresses,
        transport: Transport,
        allowed: AllowList,
        connect_timeout: float,
        max_handshakes: int,
        limits: Limits | None,
        dirty: list[Peer],
    ) -> None:
        self.name = Atom(name)
        self.creation = 0
        self.router = Router(self.name, self.peer_for)
        self.events = self.router.events
        self.table: ConnectionTable[Peer] = ConnectionTable(name)
        self.ticking = NetTicker(net_ticktime, self.router.peers.values, net_tickintensity)
        self.stopping = False
        #: Whether another node gave this one its name.
        self.was_named = False
        self.dirty = dirty
        self._limits = limits
        #: Why the latest attempt to connect a node failed, oldest first.
        self.failures: dict[Atom, ConnectError] = {}
        self._addresses = addresses
        self._handshakes = Handshakes(
            self,
            cookies,
            OFFERED | (DFlag.PUBLISHED if visible else DFlag(0)),
            addresses=addresses,
            transport=transport,
            allowed=allowed,
            connect_timeout=connect_timeout,
            max_handshakes=max_handshakes,
        )
        self._tasks: trio.Nursery | None = None

    def start(self, tasks: trio.Nursery, creation: int) -> None:
        """From now on dials and connections run in ``tasks``."""
        self._tasks = tasks
        self.creation = self.router.creation = creation
        tasks.start_soon(self.ticking.run)

    async def start_named_by(self, tasks: trio.Nursery, namer: str) -> None:
        """As ``start``, with the name and the creation that the node ``namer`` gives; it is connected then.

        Nothing that it sends is taken in before the caller awaits something.

        Raises:
            ConnectError: it cannot be reached, or gives no name.
        """
        host = self.name.name.partition("@")[2]
        given, stream, event = await self._handshakes.be_named(Atom(namer), host)
        self.name = self.router.name = Atom(given.name)
        self.table.me = given.name
        self.was_named = True
        self.start(tasks, given.creation)
        name = Atom(namer)
        peer = self.router.peers[name] = Peer(name, self.dirty)
        peer.conn_id = self.table.begin(name, peer, dialled=True).conn_id
        self.connected(peer, peer.conn_id, stream, event)

    async def close(self, patience: float) -> None:
        """Let the peers take what waits for them, ``patience`` seconds at most, then close every connection."""
        self.stopping = True
        peers = list(self.router.peers.values())
        with trio.move_on_after(patience):
            for peer in peers:
                await peer.drained()
        for peer in peers:
            peer.closing = _NET_KERNEL_TERMINATED
            if peer.stream is not None:
                peer.stream.abort()
        with trio.move_on_after(patience):
            for peer in peers:
                if peer.state is not PeerState.PENDING:
                    await peer.gone.wait()
        heirs = [row.heir for row in self.table.rows() if row.heir is not None]
        for peer in {*peers, *self.router.peers.values(), *heirs}:
            peer.down()
            if not peer.settled.is_set():
                peer.failure = _closing(self.name, peer.name)
                peer.settled.set()

    async def connect(self, peer: Atom | str, address: AddressLike | None = None) -> None:
        """See ``Node.connect``."""
        name = atom_of(peer)
        if name == self.name:
            raise BadName(f"{name.name} is this node itself")
        split_name(name.name)
        given = None if address is None else parse_address(address)
        before = None if given is None else self._addresses.fix(name.name, given)
        link = self.router.peers.get(name) or self.peer_for(name)
        try:
            await link.settled.wait()
            row = self.table.get(name)
            if row is not None and row.link is link and row.heir is not None:
                # That node has forgotten this connection and makes a new one: net_kernel's callers wait for it as well.
                link = row.heir
                await link.settled.wait()
        finally:
            if given not in (None, before) and link.state is not PeerState.UP:
                self._addresses.fix(name.name, before)  # nobody was there: what was known before holds again
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
        peer = Peer(name, self.dirty)
        if self.stopping or self._tasks is None:
            peer.down()
            peer.failure = _closing(self.name, name)
            peer.settled.set()
            return peer
        self.router.peers[name] = peer
        conn_id: int | None = None
        if self.table.get(name) is None:
            conn_id = peer.conn_id = self.table.begin(name, peer, dialled=True).conn_id
        self._tasks.start_soon(self._handshakes.dial, peer, conn_id)
        return peer

    async def accept(self, stream: Stream) -> None:
        """One accepted connection, from its first byte to its end."""
        await self._handshakes.accept(stream)

    def connected(self, peer: Peer, conn_id: int, stream: Stream, event: Established) -> bool:
        """The handshake is through. False: the attempt was superseded, or the node ends; its stream is to be closed."""
        if self.stopping or not self.table.set_node(peer.name, conn_id):
            return False
        self.failures.pop(peer.name, None)
        assert self._tasks is not None
        peer.flags, peer.agreed, peer.creation = event.flags, event.agreed, event.creation
        peer.hidden = not event.flags & DFlag.PUBLISHED
        peer.address = stream.address
        peer.since = trio.current_time()
        wire = DistChannel(event.agreed, peer=peer.name.name, limits=self._limits)
        peer.up(stream, wire, self.ticking.new_ticker(hidden=not event.agreed & DFlag.PUBLISHED))
        log.info("%s is connected (%s, %s)", peer.name.name, peer.type, peer.address)
        # What waited goes first: who sends at once on the nodeup may not overtake what it sent before.
        peer.release_queue()
        self.events.fire(NodeUp(peer.name, peer.type, conn_id))
        peer.settled.set()
        self._tasks.start_soon(self._serve, peer, event.trailing_data)
        return True

    def remember_failure(self, peer: Atom, failure: ConnectError) -> None:
        """Keep it for who asks later; not for ever, since strangers can fail under any name."""
        self.failures.pop(peer, None)
        self.failures[peer] = failure
        if len(self.failures) > MAX_FAILURES:
            del self.failures[next(iter(self.failures))]

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
        gathering = Gathering()
        try:
            if received:
                dispatch(peer, wire.receive_data(received))
            while wire.failure is None:
                await stream.wait_readable()
                size = stream.receive_nowait(buffer)
                while size:
                    signals = wire.receive_data(bytes(buffer[:size]))
                    dispatch(peer, signals)
                    peer.flush()
                    if size < READ_SIZE or wire.failure is not None:
                        if gathering.is_flood(len(signals), wire.frames_sent, trio.current_time):
                            await stream.let_more_come()
                        break
                    await trio.lowlevel.checkpoint()  # there is more, but others are to run as well
                    size = stream.receive_nowait(buffer)
                if size == 0:
                    return _CONNECTION_CLOSED
            raise wire.failure
        except OSError as error:
            log.info("the connection to %s broke: %s", peer.name.name, error)
        except trio.ClosedResourceError:
            pass  # this node stops, and waits for its connections no longer
        except RemoteProtocolError as error:
            if error.offset is None:
                error.offset = 0  # of a signal that is wrong as a whole: its frame's start, as in the channel
            log.error("closing the connection to %s (%s): %s", peer.name.name, peer.address, error)
            return KILLED  # what a BEAM's net_kernel says when its emulator closes a connection
        return _CONNECTION_CLOSED

    async def _connection_lost(self, peer: Peer, reason: Term) -> None:
        row = self.table.exiting(peer.name, peer.conn_id)
        if row is None:
            return
        log.info("%s is disconnected: %s", peer.name.name, reason)
        await self.hand_out_losses(row, peer)
        self.events.fire(NodeDown(peer.name, peer.type, reason, peer.conn_id))

    async def hand_out_losses(self, row: Row[Peer], peer: Peer) -> None:
        """What the end of a connection, or of an attempt, owes: exits, DOWNs; then its row goes."""
        if row.heir is not None:
            self.router.peers[peer.name] = row.heir  # what is sent from now on waits for the new connection
        elif self.router.peers.get(peer.name) is peer:
            del self.router.peers[peer.name]
        peer.down()
        while not self.router.connection_lost(peer, NOCONNECTION, SLICE):
            await trio.lowlevel.checkpoint()
        self._handshakes.connection_lost(peer)
        heritage = self.table.remove(row)
        if heritage is not None:
            self._handshakes.inherited(heritage)
        peer.gone.set()

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
    def handshakes(self) -> dict[StatusCount, int]:
        """See ``Node.handshakes``."""
        return dict(self._handshakes.statuses)

    @property
    def connections(self) -> list[ConnectionInfo]:
        """See ``Node.connections``."""
        return [_connection_info(row) for row in self.table.rows()]

    def peer_flags(self, peer: Atom | str) -> DFlag | None:
        """See ``Node.peer_flags``."""
        link = self.router.peers.get(atom_of(peer))
        return link.agreed if link is not None and link.state is PeerState.UP else None


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
        connection_id=row.conn_id,
    )


def _closing(name: Atom, peer: Atom) -> ConnectError:
    return NodeUnreachable(f"{name.name} is closing, and connects to nobody any more", peer.name)


def _copy(error: Exception) -> Exception:
    copy = type(error)(*error.args)
    copy.__dict__.update(error.__dict__)
    copy.__cause__ = error.__cause__
    return copy
