"""Handshakes of a node: dialled and accepted, arbitrated, bounded in time and number.

Whichever way it came, a handshake that is through ends in ``Distribution.connected``; one that is not, in
``_attempt_failed``, which tells everybody who waited. The bytes are ``wire/handshake.py``'s, the arbitration is the
connection table's. Each is an ``Attempt`` (``attempts.py``) with a cancel scope of its own, so that one can be
ended for another: for one in the other direction (``ok_simultaneous``), or for a newcomer when too many are under way.

Source: kernel/src/net_kernel.erl, kernel/src/dist_util.erl.
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import trio

from ..errors import (
    BadName,
    ConnectError,
    ConnectRefused,
    ConnectTimeout,
    HandshakeError,
    NodeUnreachable,
    NotAllowed,
    RemoteProtocolError,
    Superseded,
)
from ..flags import DFlag
from ..terms import Atom
from ..wire.handshake import Acceptor, Established, Initiator, NameGiven, NameReceived, State, StatusReceived, Verdict
from .attempts import Accepting, Attempt
from .connections import ConnectionState
from .dynamic_names import DynamicNames
from .peer import Peer, PeerState

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from ..wire.handshake import Event
    from .access import AllowList, Cookies
    from .addresses import Addresses
    from .connections import Row
    from .distribution import Distribution
    from .transport import Stream, Transport

log = logging.getLogger("erlang_interop.node")

#: Accepted connections that may be in their handshake at once.
MAX_HANDSHAKES: Final = 128

#: Why a connection ends that gives way to a new one of the same node: what a BEAM's ``nodedown_reason`` says.
_WAIT_PENDING: Final = Atom("wait_pending")
#: Seconds before a node that was given its name dials again one that says `alive`.
_ALIVE_PAUSE: Final = 0.05

#: Who said a status word, and the word.
StatusCount: TypeAlias = tuple[Literal["sent", "received"], str]


class Handshakes:
    """All handshakes of one node.

    Args:
        distribution: Whose connections they make.
        cookies: The secrets shared with its peers.
        flags: What this node announces.
        addresses: Where other nodes listen.
        transport: What carries the bytes.
        allowed: The nodes that may connect, or be dialled.
        connect_timeout: Seconds for a dial or an accepted handshake, look-up included.
        max_handshakes: Accepted connections that may be in their handshake at once.
    """

    def __init__(
        self,
        distribution: Distribution,
        cookies: Cookies,
        flags: DFlag,
        *,
        addresses: Addresses,
        transport: Transport,
        allowed: AllowList,
        connect_timeout: float,
        max_handshakes: int = MAX_HANDSHAKES,
    ) -> None:
        self._dist = distribution
        self._cookies = cookies
        self._flags = flags
        self._addresses = addresses
        self._transport = transport
        self._allowed = allowed
        self._connect_timeout = connect_timeout
        self._names = DynamicNames()
        #: Peers that have their name from this node.
        self._named: set[Peer] = set()
        self._accepting = Accepting(max_handshakes)
        #: Whose news count for a pending row, by its conn_id.
        self._owners: dict[int, Attempt] = {}
        #: Attempts that take over when the connection that they are to replace is lost, by their peer.
        self._heirs: dict[Peer, Attempt] = {}
        #: The status words of all handshakes since the node was opened.
        self.statuses: Counter[StatusCount] = Counter()

    # -- dialling

    async def dial(self, peer: Peer, conn_id: int | None) -> None:
        """One attempt to connect ``peer``, from the look-up to its end.

        Args:
            peer: Who is dialled.
            conn_id: Of its row; None if the row of the last connection stands there, whose losses are handed out.
        """
        if conn_id is None:
            row = self._dist.table.get(peer.name)
            if row is not None and row.link is not peer:
                await row.link.gone.wait()
            if self._dist.table.get(peer.name) is not None or peer.state is not PeerState.PENDING:
                return  # the other side was quicker; its attempt carries this peer
            conn_id = peer.conn_id = self._dist.table.begin(peer.name, peer, dialled=True).conn_id
        elif not self._dist.table.is_pending(peer.name, conn_id):
            return  # it called before this task ran
        attempt = Attempt()
        attempt.peer, attempt.conn_id = peer, conn_id
        self._owners[conn_id] = attempt
        failure: ConnectError | None = None
        try:
            with attempt.scope:
                failure = await self._try_to_connect(attempt, peer)
        finally:
            self._owners.pop(conn_id, None)
        if attempt.scope.cancelled_caught:
            log.debug("the call to %s gives way to its own call to this node", peer.name.name)
        elif failure is not None:
            if attempt.address and isinstance(failure.__cause__, RemoteProtocolError):
                log.warning("handshake with %s failed: %s", attempt.address, failure.__cause__)
            await self._attempt_failed(peer, conn_id, failure)

    async def _try_to_connect(self, attempt: Attempt, peer: Peer) -> ConnectError | None:
        """Dial; the result is why it failed."""
        name = peer.name.name
        if not self._allowed.permits(name):
            refusal = NotAllowed("this node's list of allowed nodes does not have it", name)
            return _caused(
                ConnectRefused(
                    f"{name} is not in the list of nodes that this node allows; node.allow([...]) adds to it", name
                ),
                refusal,
            )
        return await self._bounded(attempt, name, self._dial_once(attempt, peer))

    async def _bounded(self, attempt: Attempt, name: str, dialling: Coroutine[None, None, None]) -> ConnectError | None:
        """Await ``dialling`` for as long as connecting may take; the result is why it failed."""
        attempt.awaiting = "its address was not found in that time: does EPMD on its host answer, and DNS?"
        try:
            with trio.fail_after(self._connect_timeout):
                await dialling
            return None
        except trio.TooSlowError as error:
            where = f"{name} at {attempt.address}" if attempt.address else name
            owed = attempt.owes()
            if attempt.handshake is not None:
                owed += f"; {self._transport.doubts} ({self._addresses.source(name)})"
            late = f"{where} did not finish the handshake within {self._connect_timeout:g} s: {owed}"
            return _caused(ConnectTimeout(late, name), error)
        except HandshakeError as error:
            return _caused(ConnectRefused(f"{name} and this node do not agree: {error}", name), error)
        except (OSError, RemoteProtocolError) as error:
            return _caused(
                NodeUnreachable(
                    f"the connection to {name} broke during the handshake: {error}; {self._addresses.source(name)}",
                    name,
                ),
                error,
            )
        except ConnectError as error:
            return error
        except BadName as error:
            return NodeUnreachable(str(error), name)

    async def _open(self, attempt: Attempt, name: str) -> Stream:
        host, port = await self._addresses.find(name)
        attempt.address = f"{host}:{port}"
        attempt.awaiting = f"nothing took the connection: is a firewall in the way? ({self._addresses.source(name)})"
        try:
            stream = await self._transport.open(host, port, name)
        except NodeUnreachable as error:
            raise NodeUnreachable(f"{name}: {error}; {self._addresses.source(name)}", name) from error
        attempt.address = stream.address
        attempt.awaiting = f"TLS with it did not come about; {self._transport.doubts} ({self._addresses.source(name)})"
        return await self._transport.secure_dialled(stream, name)

    def _initiator(self, own_name: str, name: str, flags: DFlag, creation: int) -> Initiator:
        return Initiator(
            own_name,
            name,
            flags,
            creation,
            self._cookies.of(name),
            secrets.randbits(32),
            self._transport.length_bytes,
        )

    async def _dial_once(self, attempt: Attempt, peer: Peer) -> None:
        """Dial; return when the connection is up, or was superseded. May be ended from outside while it waits."""
        name = peer.name.name
        while True:
            stream = await self._open(attempt, name)
            peer.address = stream.address
            try:
                initiator = self._initiator(self._dist.name.name, name, self._flags, self._dist.creation)
                attempt.handshake = initiator
                if await self._shake_hands(attempt, peer, stream, initiator):
                    return
            except Superseded:
                stream.close()
                # dist_util waits to be killed as well: the peer's own call takes the row over, or time is up
                attempt.handshake = None
                attempt.awaiting = (
                    "it answered that it calls this node itself, and that call did not come through: "
                    "can it reach the port that this node listens on?"
                )
                await trio.sleep_forever()
            except BaseException:
                stream.close()
                raise
            attempt.handshake = None
            attempt.awaiting = (
                f"it says that a node called {self._dist.name.name} is connected to it already: that name was given to "
                f"this node, and may have been given to another since its connection was lost; open the node anew"
            )
            await trio.sleep(_ALIVE_PAUSE)

    async def _shake_hands(self, attempt: Attempt, peer: Peer, stream: Stream, initiator: Initiator) -> bool:
        """Return when nothing more is to be said here; False if the peer is to be dialled again."""
        while True:
            for event in await self._receive(stream, initiator):
                if isinstance(event, Established):
                    attempt.up = self._dist.connected(peer, attempt.conn_id, stream, event)
                    if not attempt.up:
                        stream.close()
                    return True
                if isinstance(event, StatusReceived) and event.status is Verdict.ALIVE:
                    # Whoever chose its own name means it: the peer has not noticed yet that its connection is lost. A
                    # name that was given may meanwhile be another node's, and the connection as well.
                    wanted = not self._dist.was_named and self._dist.table.is_pending(peer.name, attempt.conn_id)
                    initiator.answer_alive(wanted)
                    if not wanted:
                        await stream.send_all(initiator.data_to_send())
                        stream.close()
                        return not self._dist.was_named

    async def _receive(self, stream: Stream, handshake: Initiator | Acceptor) -> list[Event]:
        """Send what the handshake has to say, and return what came in answer."""
        await stream.send_all(handshake.data_to_send())
        data = await stream.receive_some()
        if not data:
            raise handshake.connection_lost()
        try:
            events = handshake.receive_data(data)
        except Superseded:
            if isinstance(handshake, Initiator):
                self.statuses["received", Verdict.NOK] += 1
            raise
        for event in events:
            if isinstance(event, StatusReceived):
                self.statuses["received", event.status] += 1
        return events

    async def be_named(self, namer: Atom, host: str) -> tuple[NameGiven, Stream, Established]:
        """Connect to the node ``namer`` as a node on ``host`` that has no name yet, to be given one.

        Raises:
            ConnectError: it cannot be reached, or gives none.
        """
        attempt = Attempt()
        outcome: list[tuple[NameGiven, Stream, Established]] = []

        async def ask() -> None:
            stream = await self._open(attempt, namer.name)
            try:
                flags = self._flags & ~DFlag.PUBLISHED | DFlag.NAME_ME
                attempt.handshake = self._initiator(host, namer.name, flags, 0)
                given: NameGiven | None = None
                while not outcome:
                    for event in await self._receive(stream, attempt.handshake):
                        if isinstance(event, NameGiven):
                            given = event
                        elif isinstance(event, Established):
                            assert given is not None
                            outcome.append((given, stream, event))
            except BaseException:
                stream.close()
                raise

        failure = await self._bounded(attempt, namer.name, ask())
        if failure is not None:
            raise failure
        return outcome[0]

    async def _attempt_failed(self, peer: Peer, conn_id: int, failure: ConnectError) -> None:
        """Everything that waited for this connection hears that there is none."""
        row = self._dist.table.exiting(peer.name, conn_id)
        if row is None:
            return
        log.info("no connection to %s: %s", peer.name.name, failure)
        peer.failure = failure
        self._dist.remember_failure(peer.name, failure)
        await self._dist.hand_out_losses(row, peer)
        peer.settled.set()

    # -- accepting

    async def accept(self, stream: Stream) -> None:
        """One accepted connection, from its first byte to its end."""
        if self._dist.stopping:
            stream.close()
            return
        attempt = Attempt(stream.address)
        if not self._accepting.admit(attempt):
            stream.close()
            return
        acceptor = Acceptor(
            self._dist.name.name,
            self._flags,
            self._dist.creation,
            self._cookies.of,
            secrets.randbits(32),
            self._transport.length_bytes,
        )
        failure: Exception | None = None
        try:
            with attempt.scope, trio.fail_after(self._connect_timeout):
                stream = await self._transport.secure(stream)
                attempt.handshake = acceptor
                await self._accept_handshake(stream, acceptor, attempt)
        except trio.TooSlowError:
            owed = attempt.owes() if attempt.handshake is not None else "it still owes its part of the TLS handshake"
            known = f"{acceptor.peer}: " if acceptor.peer else ""
            late = f"{known}it did not finish the handshake within {self._connect_timeout:g} s: {owed}"
            failure = ConnectTimeout(late, acceptor.peer or None)
        except (OSError, RemoteProtocolError) as error:
            failure = error
            last_word = acceptor.data_to_send()  # "not_allowed", for a peer that will want to know
            if last_word:
                stream.try_send(last_word)
        finally:
            self._accepting.leave(attempt)
            self._owners.pop(attempt.conn_id, None)
            if not attempt.up:
                stream.close()
        if attempt.evicted:
            failure = HandshakeError("it had not shown the cookie when others needed its place", acceptor.peer or None)
        elif failure is not None:
            log.warning("handshake with %s failed: %s", attempt.address, failure)
        if not attempt.up and attempt.peer is not None:
            await self._accept_failed(attempt, attempt.peer, failure)

    async def _accept_failed(self, attempt: Attempt, peer: Peer, failure: Exception | None) -> None:
        """An accepted handshake for a row did not become a connection: superseded if there is no ``failure``."""
        if attempt.replaces is not None:
            if self._dist.table.still_up(attempt.replaces, peer):
                # As if it had never been; those who waited for it are content with the old connection.
                del self._heirs[peer]
                peer.down()
                peer.settled.set()
                return
            # It inherits the row as soon as the losses of the old connection are handed out, and then loses it.
            await attempt.replaces.link.gone.wait()
            self._owners.pop(attempt.conn_id, None)
        if failure is not None:
            lost = NodeUnreachable(f"its handshake with this node failed: {failure}", peer.name.name)
            await self._attempt_failed(peer, attempt.conn_id, _caused(lost, failure))

    async def _accept_handshake(self, stream: Stream, acceptor: Acceptor, attempt: Attempt) -> None:
        """``attempt`` holds the row that this handshake is for, as soon as there is one."""
        while acceptor.state is not State.FAILED:
            for event in await self._receive(stream, acceptor):
                if isinstance(event, NameReceived):
                    await self._name_received(event, acceptor, stream, attempt)
                elif isinstance(event, Established):
                    attempt.proved = True
                    await self._take_over(attempt)
                    await stream.send_all(acceptor.data_to_send())
                    assert attempt.peer is not None
                    if acceptor.named:
                        self._named.add(attempt.peer)
                    attempt.up = self._dist.connected(attempt.peer, attempt.conn_id, stream, event)
                    return
        await stream.send_all(acceptor.data_to_send())

    async def _name_received(self, event: NameReceived, acceptor: Acceptor, stream: Stream, attempt: Attempt) -> None:
        name = Atom(event.peer)
        reason = self._reason_against(event, stream)
        if reason:
            log.warning("refusing %s (%s): %s", event.peer, stream.address, reason)
            self._answer(acceptor, Verdict.NOT_ALLOWED)
        elif event.asks_for_name:
            name, creation = self._names.take(event.peer, self._is_taken)
            self._begin(attempt, name)
            acceptor.give_name(name.name, creation)
            log.info("%s asks for a name, and is %s now", stream.address, name.name)
        elif name == self._dist.name:
            # net_kernel gets no connection id for its own name, and answers so.
            log.warning("refusing %s: it calls itself %s, which is this node", stream.address, event.peer)
            self._answer(acceptor, Verdict.NOK)
        else:
            row = self._dist.table.get(name)
            while row is not None and row.state is ConnectionState.EXITING:
                await row.link.gone.wait()
                row = self._dist.table.get(name)
            self._arbitrate(name, acceptor, attempt)

    def _reason_against(self, event: NameReceived, stream: Stream) -> str:
        if not self._allowed.permits(event.peer):
            return "it is not in the list of allowed nodes"
        if not self._allowed.is_open and not stream.vouches_for(event.peer):
            # As allowed_nodes/2 of inet_tls_dist.erl has it: a name in the list is worth what its certificate is.
            return "its certificate is not for the host in its name"
        return ""

    def _is_taken(self, name: Atom) -> bool:
        return name == self._dist.name or self._dist.table.get(name) is not None

    def _answer(self, acceptor: Acceptor, verdict: Verdict) -> None:
        self.statuses["sent", verdict] += 1
        acceptor.accept(verdict)

    def _arbitrate(self, name: Atom, acceptor: Acceptor, attempt: Attempt) -> None:
        """Answer a node that introduced itself, as the connection table has it."""
        verdict = self._dist.table.incoming(name)
        row = self._dist.table.get(name)
        if verdict is None:
            raise Superseded("an earlier call of it, to replace its connection, is under way already", name.name)
        if verdict is Verdict.OK:
            self._begin(attempt, name)
        elif verdict is Verdict.OK_SIMULTANEOUS:
            assert row is not None
            loser = self._owners.pop(row.conn_id, None)
            peer = row.link
            peer.conn_id = self._dist.table.supersede(row)
            self._carry(attempt, peer)
            if loser is not None:
                loser.scope.cancel()
        elif verdict is Verdict.ALIVE:
            assert row is not None
            heir = row.heir = attempt.peer = Peer(name, self._dist.dirty)
            attempt.replaces = row
            self._heirs[heir] = attempt
        self._answer(acceptor, verdict)

    def _begin(self, attempt: Attempt, name: Atom) -> None:
        """A pending row for a node that dials us, taking over a peer that waits to be dialled."""
        peer = self._dist.router.peers.get(name)
        if peer is None:
            peer = self._dist.router.peers[name] = Peer(name, self._dist.dirty)
        peer.conn_id = self._dist.table.begin(name, peer, dialled=False).conn_id
        self._carry(attempt, peer)

    def _carry(self, attempt: Attempt, peer: Peer) -> None:
        """From now on the news of ``attempt`` are those of the peer's row."""
        attempt.peer, attempt.conn_id = peer, peer.conn_id
        peer.address = attempt.address
        self._owners[attempt.conn_id] = attempt

    async def _take_over(self, attempt: Attempt) -> None:
        """The node whose connection we hold dialled anew, means it, and has the cookie: the old connection goes."""
        row = attempt.replaces
        if row is None:
            return
        old = row.link
        if row.state is ConnectionState.UP_PENDING and old.stream is not None:
            old.closing = _WAIT_PENDING
            old.stream.abort()
        await old.gone.wait()

    def inherited(self, row: Row[Peer]) -> None:
        """The connection that an attempt was to replace is gone: ``row`` is that attempt's now."""
        attempt = self._heirs.pop(row.link)
        row.link.conn_id = row.conn_id
        self._carry(attempt, row.link)

    # -- afterwards

    def connection_lost(self, peer: Peer) -> None:
        """A connection is over: a name that was given for it is free again."""
        if peer in self._named:
            self._named.discard(peer)
            self._names.give_back(peer.name, peer.creation)


def _caused(failure: ConnectError, cause: Exception) -> ConnectError:
    failure.__cause__ = cause
    return failure
