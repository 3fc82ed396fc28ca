"""Handshakes of a node: dialled and accepted, arbitrated, bounded in time and number.

Whichever way it came, a handshake that is through ends in ``Distribution.connected``; one that is not, in
``_attempt_failed``, which tells everybody who waited. The bytes are ``wire/handshake.py``'s, the arbitration is the
connection table's.

Source: kernel/src/net_kernel.erl, kernel/src/dist_util.erl.
"""

from __future__ import annotations

import logging
import secrets
from typing import TYPE_CHECKING, Final

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
from ..terms import Atom
from ..wire.handshake import Acceptor, Established, Initiator, NameReceived, StatusReceived, Verdict
from ..wire.handshake import State as HandshakeState
from .peer import Peer, PeerState

if TYPE_CHECKING:
    from collections.abc import Collection

    from ..flags import DFlag
    from .addresses import Addresses
    from .distribution import Distribution
    from .transport import Stream, Transport

log = logging.getLogger("erlang_interop.node")

#: Accepted connections that may be in their handshake at once; one more is closed at once.
MAX_HANDSHAKES: Final = 128

#: Stands for the conn_id of a handshake with a node whose connection is up: it gets one of its own when it is through.
_OF_OLD_CONNECTION: Final = -1
_CONNECTION_CLOSED: Final = Atom("connection_closed")


class Handshakes:
    """All handshakes of one node.

    Args:
        distribution: Whose connections they make.
        cookie: The secret shared with its peers.
        flags: What this node announces.
        addresses: Where other nodes listen.
        transport: What carries the bytes.
        allow: The only nodes that may connect; None lets everybody with the cookie in.
        connect_timeout: Seconds for a dial or an accepted handshake, look-up included.
    """

    def __init__(
        self,
        distribution: Distribution,
        cookie: str,
        flags: DFlag,
        *,
        addresses: Addresses,
        transport: Transport,
        allow: Collection[str] | None,
        connect_timeout: float,
    ) -> None:
        self._dist = distribution
        self._cookie = cookie
        self._flags = flags
        self._addresses = addresses
        self._transport = transport
        self._allow = None if allow is None else frozenset(allow)
        self._connect_timeout = connect_timeout
        self._handshakes = 0

    async def dial(self, peer: Peer) -> None:
        """One attempt to connect ``peer``, from the look-up to its end."""
        row = self._dist.table.get(peer.name)
        if row is not None and row.link is not peer:
            await row.link.gone.wait()  # the last connection still hands out its losses
            if self._dist.table.get(peer.name) is not None or peer.state is not PeerState.PENDING:
                return  # the other side was quicker; its attempt carries this peer
            peer.conn_id = self._dist.table.begin(peer.name, peer, dialled=True).conn_id
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
                f"{self._transport.doubts}",
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
        host, port = await self._addresses.find(name)
        stream = await self._transport.open(host, port, name)
        try:
            initiator = Initiator(
                self._dist.name.name,
                name,
                self._flags,
                self._dist.creation,
                self._cookie,
                secrets.randbits(32),
                self._transport.length_bytes,
            )
            while True:
                await stream.send_all(initiator.data_to_send())
                data = await stream.receive_some()
                if not data:
                    raise initiator.connection_lost()
                for event in initiator.receive_data(data):
                    if isinstance(event, Established):
                        if not self._dist.connected(peer, conn_id, stream, event):
                            stream.close()
                        return
                    if isinstance(event, StatusReceived) and event.status is Verdict.ALIVE:
                        row = self._dist.table.get(peer.name)
                        initiator.answer_alive(row is not None and row.conn_id == conn_id)
        except Superseded:
            stream.close()  # the peer's dial to us goes on instead, and settles this one
        except BaseException:
            stream.close()
            raise

    async def _attempt_failed(self, peer: Peer, conn_id: int, failure: ConnectError) -> None:
        """Everything that waited for this connection hears that there is none."""
        row = self._dist.table.exiting(peer.name, conn_id)
        if row is None:
            return
        log.info("no connection to %s: %s", peer.name.name, failure)
        peer.failure = failure
        await self._dist.hand_out_losses(row, peer)
        peer.settled.set()

    async def accept(self, stream: Stream) -> None:
        """One accepted connection, from its first byte to its end."""
        if self._handshakes >= MAX_HANDSHAKES or self._dist.stopping:
            log.warning(
                "closing a connection from %s: %d handshakes are under way already", stream.address, self._handshakes
            )
            stream.close()
            return
        self._handshakes += 1
        acceptor = Acceptor(
            self._dist.name.name,
            self._flags,
            self._dist.creation,
            self._cookie,
            secrets.randbits(32),
            self._transport.length_bytes,
        )
        attempt: list[tuple[Peer, int]] = []
        failure: Exception | None = None
        try:
            with trio.fail_after(self._connect_timeout):
                stream = await self._transport.secure(stream)
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
                self._dist.table.still_up(peer.name)
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
                    if not self._dist.connected(*attempt[0], stream, event):
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
        if name == self._dist.name:
            log.warning("refusing %s: it calls itself %s, which is this node", stream.address, event.peer)
            acceptor.accept(Verdict.NOT_ALLOWED)
            return
        verdict = self._dist.table.incoming(name)
        acceptor.accept(verdict)
        if verdict is Verdict.OK:
            attempt.append(await self._begin_incoming(name))
        elif verdict is Verdict.OK_SIMULTANEOUS:
            row = self._dist.table.get(name)
            assert row is not None
            attempt.append((row.link, self._dist.table.supersede(row)))
            row.link.conn_id = row.conn_id
        elif verdict is Verdict.ALIVE:
            row = self._dist.table.get(name)
            assert row is not None
            attempt.append((row.link, _OF_OLD_CONNECTION))

    async def _begin_incoming(self, name: Atom) -> tuple[Peer, int]:
        """A pending row for a node that dials us, taking over a peer that waits to be dialled."""
        row = self._dist.table.get(name)
        while row is not None:
            await row.link.gone.wait()
            row = self._dist.table.get(name)
        peer = self._dist.router.peers.get(name)
        if peer is None:
            peer = self._dist.router.peers[name] = Peer(name, self._dist.dirty)
        peer.conn_id = self._dist.table.begin(name, peer, dialled=False).conn_id
        return peer, peer.conn_id

    async def _replace(self, old: Peer) -> tuple[Peer, int]:
        """The node whose connection we hold dialled anew, and means it: the old connection goes first.

        dist_util takes the old one down before the cookie is checked; here a stranger cannot cost anybody a connection.
        """
        if old.stream is not None and old.state is PeerState.UP:
            old.closing = _CONNECTION_CLOSED
            old.stream.abort()
        return await self._begin_incoming(old.name)
