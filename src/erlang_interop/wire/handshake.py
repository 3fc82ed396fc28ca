"""The distribution handshake, version 6, from both ends.

::

    Initiator                                     Acceptor
        N  flags, creation, name        ─►
                                        ◄─        s  ok | ok_simultaneous | nok | not_allowed | alive
        s  true | false                 ─►            (only after alive)
                                        ◄─        N  flags, challenge, creation, name
        r  own challenge, MD5(cookie + challenge)  ─►
                                        ◄─        a  MD5(cookie + challenge of r)

Each message is a length, of 2 bytes (over TLS 4), and a body that starts with a tag. Both classes take bytes in any
portions with ``receive_data``, which returns events, and give what is to be sent with ``data_to_send``. The shell's
part: sockets, time limits, and the answers that need knowledge of other connections (``accept``, ``answer_alive``).
After an error there may be a last word to send (``not_allowed``): flush ``data_to_send``, then close.

A node that has no name yet sets the flag NAME_ME and sends its host in place of a name. The status it gets is then
``named:`` with a name and a creation, which are its own from then on (``Acceptor.give_name``, :class:`NameGiven`).

States are tables: a message without a row for the present state is the peer's error. Spec: erl_dist_protocol,
"Distribution Handshake"; ``dist_util.erl``.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, ClassVar

from ..errors import CookieMismatch, HandshakeError, LocalProtocolError, MissingFlags, NotAllowed, Superseded
from ..flags import DFlag, announced
from ..terms import MAX_ATOM_CHARACTERS
from ._handshake import (
    ACK,
    CHALLENGE,
    COMPLEMENT,
    LOW,
    NAME,
    NAMED,
    OLD_NAME,
    REPLY,
    RULE,
    AliveConfirmed,
    Established,
    Event,
    Handshake,
    NameGiven,
    NameReceived,
    State,
    StatusReceived,
    Tag,
    Verdict,
    digest,
    is_dynamic,
    is_node_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._handshake import Table

__all__ = [
    "Acceptor",
    "AliveConfirmed",
    "Established",
    "Event",
    "Initiator",
    "NameGiven",
    "NameReceived",
    "State",
    "StatusReceived",
    "Verdict",
    "digest",
]


# ---------------------------------------------------------------------------------------------------------- initiator


class Initiator(Handshake):
    """The node that dials.

    Args:
        name: Our full name, ``name@host``; with the flag NAME_ME our host, to be given a name behind it.
        peer: The full name of the node that was dialled; one that calls itself otherwise is refused, as by a BEAM.
        flags: What we announce: ``OFFERED``, with PUBLISHED for a visible node.
        creation: Ours, 32 bits, as EPMD gave it; with NAME_ME 0.
        cookie: The secret shared with ``peer``.
        challenge: 32 bits from ``secrets``: fresh ones for each handshake.
        length_bytes: The bytes of each message's length: 2 over TCP, 4 over TLS.
    """

    def __init__(
        self,
        name: str,
        peer: str,
        flags: DFlag,
        creation: int,
        cookie: str,
        challenge: int,
        length_bytes: int = 2,
    ) -> None:
        super().__init__(name, flags, creation, challenge, State.RECV_STATUS, length_bytes)
        self.peer = peer
        self._cookie = cookie
        self._send(NAME.pack(b"N", flags, creation, len(self._name)) + self._name)

    def answer_alive(self, still_wanted: bool) -> None:
        """Answer the question of ``StatusReceived(ALIVE)``. With False the handshake is over: flush and close."""
        if self.state is not State.AWAIT_ALIVE_ANSWER:
            raise LocalProtocolError(f"the peer asked nothing: {self.state.name}")
        self._send_status("true" if still_wanted else "false")
        self.state = State.RECV_CHALLENGE if still_wanted else State.FAILED

    def connection_lost(self) -> HandshakeError:
        """Explain an end of the stream that came before :class:`Established`."""
        state, self.state = self.state, State.FAILED
        if state is State.RECV_ACK:
            # dist_util: recv_challenge_reply logs on its side and closes; this is all an initiator ever sees of it
            return CookieMismatch("it hung up on our digest: the two nodes' cookies differ", self.peer, None, RULE)
        if state is State.RECV_STATUS and is_dynamic(self._flags):
            return HandshakeError(
                "it hung up when asked for a name: nodes of OTP 23 and later give names, others do not",
                self.peer,
                None,
                RULE,
            )
        if state is State.RECV_STATUS:
            return HandshakeError("it hung up on our name: is this port an Erlang node's?", self.peer, None, RULE)
        return HandshakeError(f"it hung up in {state.name}: its log says why", self.peer, None, RULE)

    def _status_received(self, message: bytes) -> list[Event]:
        if message.startswith(NAMED):
            return [self._named(message)]
        word = message[1:].decode("latin-1")
        if is_dynamic(self._flags) and word != Verdict.NOT_ALLOWED:
            raise self._wrong(f"it was asked for a name and answers {word[:20]!r}", 1)
        if word == Verdict.NOK:
            raise Superseded("it dials this node at the same moment, and its call goes on", self.peer, None, RULE)
        if word == Verdict.NOT_ALLOWED:
            raise NotAllowed(
                "it does not let us in: its net_kernel:allow/1 does not list this node, or it misses a flag of ours",
                self.peer,
                None,
                RULE,
            )
        try:
            status = Verdict(word)
        except ValueError:
            raise self._wrong(f"unknown status {word[:20]!r}", 1) from None
        self.state = State.AWAIT_ALIVE_ANSWER if status is Verdict.ALIVE else State.RECV_CHALLENGE
        return [StatusReceived(status)]

    def _named(self, message: bytes) -> NameGiven:
        """``snamed:`` with a name on our host; what follows the creation is ignored, as by ``recv_status``."""
        if not is_dynamic(self._flags):
            raise self._wrong("it gives us a name although we have one", 1)
        begin = len(NAMED) + 2
        end = begin + int.from_bytes(message[len(NAMED) : begin], "big")
        if len(message) < end + 4:
            raise self._wrong("the name that it gives us is cut short", len(message))
        try:
            name = message[begin:end].decode()
        except UnicodeDecodeError:
            raise self._wrong("the name that it gives us is not utf-8", begin) from None
        host = self._name.decode("latin-1")
        if not is_node_name(name) or name.partition("@")[2] != host or len(name) > MAX_ATOM_CHARACTERS:
            raise self._wrong(f"it gives us the name {name[:80]!r}, which is none on our host {host!r}", begin)
        self.state = State.RECV_CHALLENGE
        return NameGiven(name, int.from_bytes(message[end : end + 4], "big"))

    def _challenge_received(self, message: bytes) -> list[Event]:
        _, flags, challenge, self._peer_creation, length = self._unpack(CHALLENGE, message)
        name = self._unpack_name(message, CHALLENGE.size, length)
        if name != self.peer:
            raise HandshakeError(
                f"the node at this address calls itself {name[:255]!r}: dial it by exactly that name",
                self.peer,
                None,
                RULE,
            )
        self._peer_flags = announced(flags)
        self._check_flags(self._peer_flags)
        self._send(REPLY.pack(b"r", self._challenge, digest(self._cookie, challenge)))
        self.state = State.RECV_ACK
        return []

    def _ack_received(self, message: bytes) -> list[Event]:
        _, proof = self._unpack(ACK, message)
        if not hmac.compare_digest(proof, digest(self._cookie, self._challenge)):
            raise CookieMismatch("its digest is not one of our cookie: the cookies differ", self.peer, None, RULE)
        return self._established()

    _HANDLERS: ClassVar[Table] = {
        (State.RECV_STATUS, Tag.STATUS): _status_received,
        (State.RECV_CHALLENGE, Tag.NAME): _challenge_received,
        (State.RECV_ACK, Tag.ACK): _ack_received,
    }


# ----------------------------------------------------------------------------------------------------------- acceptor


class Acceptor(Handshake):
    """The node that was dialled.

    Args:
        name: Our full name, ``name@host``.
        flags: What we announce: ``OFFERED``, with PUBLISHED for a visible node.
        creation: Ours, 32 bits.
        cookie: The secret, or a function from the peer's name to the secret shared with that peer.
        challenge: 32 bits from ``secrets``: fresh ones for each handshake.
        length_bytes: The bytes of each message's length: 2 over TCP, 4 over TLS.
    """

    def __init__(
        self,
        name: str,
        flags: DFlag,
        creation: int,
        cookie: str | Callable[[str], str],
        challenge: int,
        length_bytes: int = 2,
    ) -> None:
        super().__init__(name, flags, creation, challenge, State.RECV_NAME, length_bytes)
        self._cookie_of = cookie if callable(cookie) else lambda _peer: cookie
        self._old_name = False
        #: Whether the peer has its name from us.
        self.named = False

    def accept(self, verdict: Verdict) -> None:
        """Answer :class:`NameReceived`. After NOK and NOT_ALLOWED the handshake is over: flush and close."""
        if self.state is not State.AWAIT_VERDICT:
            raise LocalProtocolError(f"nobody asked to be accepted: {self.state.name}")
        if is_dynamic(self._peer_flags) and verdict is not Verdict.NOT_ALLOWED:
            raise LocalProtocolError("a peer that asks for a name is given one, or not allowed")
        self._send_status(verdict)
        if verdict is Verdict.ALIVE:
            self.state = State.RECV_ALIVE_ANSWER
        elif verdict is Verdict.NOK or verdict is Verdict.NOT_ALLOWED:
            self.state = State.FAILED
        else:
            self._send_challenge()

    def give_name(self, name: str, creation: int) -> None:
        """Answer :class:`NameReceived` of a peer that asks for a name: it is ``name`` now, of that creation."""
        if self.state is not State.AWAIT_VERDICT or not is_dynamic(self._peer_flags):
            raise LocalProtocolError(f"nobody asked for a name: {self.state.name}")
        self.peer, self._peer_creation, self.named = name, creation, True
        # publish_flag/3 of dist_util.erl: the flag is echoed, and a connection to such a node is always a hidden one
        self._flags = self._flags & ~DFlag.PUBLISHED | DFlag.NAME_ME
        encoded = name.encode()
        self._send(NAMED + len(encoded).to_bytes(2, "big") + encoded + creation.to_bytes(4, "big"))
        self._send_challenge()

    def connection_lost(self) -> HandshakeError:
        """Explain an end of the stream that came before :class:`Established`."""
        state, self.state = self.state, State.FAILED
        peer = self.peer or None
        if state is State.RECV_NAME:
            return HandshakeError("somebody connected and left without a name", peer, None, RULE)
        if state is State.RECV_REPLY:
            return HandshakeError(
                "it hung up on our challenge: it knows this node by another name, misses a flag of ours, or gave up",
                peer,
                None,
                RULE,
            )
        return HandshakeError(f"it hung up in {state.name}", peer, None, RULE)

    def _name_received(self, message: bytes) -> list[Event]:
        _, flags, self._peer_creation, length = self._unpack(NAME, message)
        return self._introduced(self._unpack_name(message, NAME.size, length), announced(flags), -1)

    def _old_name_received(self, message: bytes) -> list[Event]:
        # Sent by OTP 23 and 24 to a node whose versions in EPMD begin with 5; the rest follows as a complement.
        # OTP 25.0 to 25.2 hang up on it; later releases (erlang/otp#6625) take it, as this node does.
        _, _version, flags = self._unpack(OLD_NAME, message)
        self._old_name = True
        name = self._unpack_name(message, OLD_NAME.size, len(message) - OLD_NAME.size)
        return self._introduced(name, announced(flags), LOW)

    def _introduced(self, name: str, flags: DFlag, known: int) -> list[Event]:
        """``recv_name``: a name that is none gets no answer, one of a node that lacks flags gets ``not_allowed``."""
        offset = NAME.size if known < 0 else OLD_NAME.size
        # What is no name is nobody's: it stands in the message alone, shortened, its control characters escaped.
        shown = repr(name[:80])
        if len(name) > MAX_ATOM_CHARACTERS:
            raise self._wrong(
                f"a node name has at most {MAX_ATOM_CHARACTERS} characters, this one {len(name)}: {shown}", offset
            )
        if not name.isprintable() or " " in name:  # validate_hostname/1 and valid_name_head/1 of net_kernel.erl
            raise self._wrong(f"a node name has neither spaces nor control characters: {shown}", offset)
        if is_dynamic(flags):
            if not name or "@" in name:
                raise self._wrong(f"a node that asks for a name sends its host, not {shown}", offset)
        elif not is_node_name(name):
            raise self._wrong(f"a node name is 'name@host', not {shown}", offset)
        self.peer = name
        self._check_peer_flags(flags, known)
        self._peer_flags = flags
        self.state = State.AWAIT_VERDICT
        return [NameReceived(name, flags, self._peer_creation)]

    def _check_peer_flags(self, flags: DFlag, known: int) -> None:
        try:
            self._check_flags(flags, known)
        except MissingFlags:
            self._send_status(Verdict.NOT_ALLOWED)
            raise

    def _alive_answered(self, message: bytes) -> list[Event]:
        if message == b"strue":
            self._send_challenge()
            return [AliveConfirmed(self.peer)]
        if message == b"sfalse":
            raise Superseded("it no longer wants this connection; the one that is up stays", self.peer, None, RULE)
        raise self._wrong(f"status {message[1:20]!r} where true or false was due", 1)

    def _send_challenge(self) -> None:
        self._send(CHALLENGE.pack(b"N", self._flags, self._challenge, self._creation, len(self._name)) + self._name)
        self.state = State.RECV_COMPLEMENT if self._old_name else State.RECV_REPLY

    def _complement_received(self, message: bytes) -> list[Event]:
        _, high, self._peer_creation = self._unpack(COMPLEMENT, message)
        self._peer_flags = announced(self._peer_flags | high << 32)
        self._check_peer_flags(self._peer_flags, -1)
        self.state = State.RECV_REPLY
        return []

    def _reply_received(self, message: bytes) -> list[Event]:
        _, challenge, proof = self._unpack(REPLY, message)
        cookie = self._cookie_of(self.peer)
        if not hmac.compare_digest(proof, digest(cookie, self._challenge)):
            raise CookieMismatch("its digest is not one of our cookie: the cookies differ", self.peer, None, RULE)
        self._send(ACK.pack(b"a", digest(cookie, challenge)))
        return self._established()

    _HANDLERS: ClassVar[Table] = {
        (State.RECV_NAME, Tag.NAME): _name_received,
        (State.RECV_NAME, Tag.OLD_NAME): _old_name_received,
        (State.RECV_ALIVE_ANSWER, Tag.STATUS): _alive_answered,
        (State.RECV_COMPLEMENT, Tag.COMPLEMENT): _complement_received,
        (State.RECV_REPLY, Tag.REPLY): _reply_received,
    }
