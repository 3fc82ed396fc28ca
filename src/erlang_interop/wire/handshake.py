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

States are tables: a message without a row for the present state is the peer's error. Spec: erl_dist_protocol,
"Distribution Handshake"; ``dist_util.erl``. Dynamic node names (flag NAME_ME) are neither asked for nor given out.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias

from ..errors import (
    CookieMismatch,
    HandshakeError,
    LocalProtocolError,
    MissingFlags,
    NotAllowed,
    RemoteProtocolError,
    Superseded,
    TlsError,
)
from ..flags import MANDATORY, DFlag, announced
from ..terms import MAX_ATOM_CHARACTERS
from .buffer import MessageBuffer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "Acceptor",
    "AliveConfirmed",
    "Established",
    "Event",
    "Initiator",
    "NameReceived",
    "State",
    "StatusReceived",
    "Verdict",
    "digest",
]

_RULE: Final = "Distribution Handshake"

_NAME: Final = struct.Struct(">cQIH")  # N, flags, creation, length of the name
_CHALLENGE: Final = struct.Struct(">cQIIH")  # N, flags, challenge, creation, length of the name
_OLD_NAME: Final = struct.Struct(">cHI")  # n, version, low 32 flags; the name is the rest
_COMPLEMENT: Final = struct.Struct(">cII")  # c, high 32 flags, creation
_REPLY: Final = struct.Struct(">cI16s")  # r, challenge, digest
_ACK: Final = struct.Struct(">c16s")  # a, digest
_LOW: Final = 0xFFFFFFFF

#: The first byte of a TLS record with an alert, and of one with a handshake message; the second is 3.
_TLS_ALERT: Final = 21
_TLS_HANDSHAKE: Final = 22

#: The longest message that is waited for. The longest that is allowed has a name of 255 characters.
_LONGEST: Final = 4096


class State(enum.Enum):
    """What is awaited; "RECV" from the peer, the others from the shell. Initiator and Acceptor share the words."""

    RECV_NAME = enum.auto()
    AWAIT_VERDICT = enum.auto()
    RECV_ALIVE_ANSWER = enum.auto()
    RECV_COMPLEMENT = enum.auto()
    RECV_REPLY = enum.auto()
    RECV_STATUS = enum.auto()
    AWAIT_ALIVE_ANSWER = enum.auto()
    RECV_CHALLENGE = enum.auto()
    RECV_ACK = enum.auto()
    ESTABLISHED = enum.auto()
    FAILED = enum.auto()


class Tag(enum.Enum):
    """First byte of a handshake message."""

    NAME = b"N"
    OLD_NAME = b"n"
    STATUS = b"s"
    COMPLEMENT = b"c"
    REPLY = b"r"
    ACK = b"a"


class Verdict(enum.StrEnum):
    """The status words an acceptor may answer a name with."""

    #: The connection goes on.
    OK = "ok"
    #: It goes on, and an attempt of the acceptor in the other direction is given up for it.
    OK_SIMULTANEOUS = "ok_simultaneous"
    #: The acceptor's own attempt in the other direction goes on instead; this one ends.
    NOK = "nok"
    #: The node is not let in; this one ends.
    NOT_ALLOWED = "not_allowed"
    #: A connection between the two is up already; does the initiator mean it? It answers true or false.
    ALIVE = "alive"


# -------------------------------------------------------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class NameReceived:
    """To an acceptor: someone introduced itself. The shell must call :meth:`Acceptor.accept` next."""

    peer: str
    flags: DFlag
    #: 0 when the peer used the old message; :class:`Established` has it in any case.
    creation: int


@dataclass(frozen=True, slots=True)
class AliveConfirmed:
    """To an acceptor that said ALIVE: the peer means it. The shell must take the old connection down now."""

    peer: str


@dataclass(frozen=True, slots=True)
class StatusReceived:
    """To an initiator: ``OK``, ``OK_SIMULTANEOUS``, or ``ALIVE``: then the shell must call ``answer_alive``."""

    status: Verdict


@dataclass(frozen=True, slots=True)
class Established:
    """The connection is up; the rest of the stream belongs to a :class:`~erlang_interop.wire.channel.DistChannel`."""

    peer: str
    #: What the peer can do.
    flags: DFlag
    #: What both can do.
    agreed: DFlag
    #: The peer's, 32 bits.
    creation: int
    #: Bytes already received behind the last handshake message: the first the channel must be given.
    trailing_data: bytes


Event: TypeAlias = NameReceived | AliveConfirmed | StatusReceived | Established


def digest(cookie: str, challenge: int) -> bytes:
    """Return what proves knowledge of ``cookie``: 16 bytes of MD5 over the cookie and the challenge in decimal.

    Raises:
        LocalProtocolError: The cookie has characters beyond Latin-1; no BEAM could compute its digest either.
    """
    try:
        secret = cookie.encode("latin-1")
    except UnicodeEncodeError:
        raise LocalProtocolError("a cookie consists of Latin-1 characters; this one has others") from None
    return hashlib.md5(secret + str(challenge).encode(), usedforsecurity=False).digest()


# --------------------------------------------------------------------------------------------------------- both roles

if TYPE_CHECKING:
    _Table: TypeAlias = Mapping[tuple[State, Tag], Callable[[Any, bytes], list[Event]]]


class _Handshake:
    """What the two roles share: the buffer, the table's look-up, the message layouts."""

    _HANDLERS: ClassVar[_Table] = {}

    def __init__(self, name: str, flags: DFlag, creation: int, challenge: int, state: State, length_bytes: int) -> None:
        self.state = state
        self.peer = ""
        self._name = _name_bytes(name)
        self._flags = flags
        self._creation = creation
        self._challenge = challenge & _LOW
        self._length_bytes = length_bytes
        self._buffer = MessageBuffer(length_bytes)
        self._out = bytearray()
        self._peer_flags = DFlag(0)
        self._peer_creation = 0

    def data_to_send(self) -> bytes:
        """Return, once, the bytes to send now; also after an error, when the last word is in it."""
        data = bytes(self._out)
        self._out.clear()
        return data

    def receive_data(self, data: bytes) -> list[Event]:
        """Take the next bytes of the stream, in portions of any size, and return what they mean.

        After :class:`Established` this object is done: the stream belongs to the channel.

        Raises:
            HandshakeError: The peer says no, or we do; the subclass says why.
            RemoteProtocolError: What came is no handshake. Nothing else is ever raised for what a peer sends.
        """
        if self.state in (State.ESTABLISHED, State.FAILED):
            raise LocalProtocolError(f"the handshake is over ({self.state.name}); its bytes belong elsewhere")
        self._buffer.add(data)
        events: list[Event] = []
        try:
            while not (events and isinstance(events[-1], Established)):
                message = self._buffer.next()
                if message is None:
                    if self._buffer.announced > _LONGEST:
                        raise self._too_long()
                    break
                events += self._message_received(message)
        except RemoteProtocolError:
            self.state = State.FAILED
            raise
        return events

    def _too_long(self) -> RemoteProtocolError:
        length = self._buffer.announced
        if self._length_bytes == 2 and length >> 8 in (_TLS_ALERT, _TLS_HANDSHAKE) and length & 0xFF == 3:
            return TlsError(
                "it speaks TLS (-proto_dist inet_tls) and this node does not: open this one with tls= as well, "
                "or start that one without",
                self.peer or None,
                0,
                _RULE,
            )
        return self._wrong(f"a message of {length} bytes is none of a handshake; is this an Erlang node?", 0)

    def _message_received(self, message: bytes) -> list[Event]:
        try:
            tag = Tag(message[:1])
        except ValueError:
            raise self._wrong(f"{message[:20]!r} is no handshake message; is this an Erlang node?", 0) from None
        handler = self._HANDLERS.get((self.state, tag))
        if handler is None:
            raise self._wrong(f"{tag.name} not allowed in {self.state.name}", 0)
        return handler(self, message)

    def _send(self, body: bytes) -> None:
        self._out += len(body).to_bytes(self._length_bytes, "big") + body

    def _send_status(self, word: str) -> None:
        self._send(b"s" + word.encode())

    def _unpack(self, layout: struct.Struct, message: bytes) -> tuple[Any, ...]:
        if len(message) < layout.size:
            raise self._wrong(f"a message of {len(message)} bytes where {layout.size} are the least", len(message))
        return layout.unpack_from(message)

    def _unpack_name(self, message: bytes, offset: int, length: int) -> str:
        """A name of ``length`` bytes. What follows it is ignored: the manual reserves it for future use."""
        if len(message) < offset + length:
            raise self._wrong(f"a name of {length} bytes is cut short", len(message))
        # dist_util.erl makes the atom of the bytes as they are (list_to_atom): Latin-1, in which nothing is malformed
        return message[offset : offset + length].decode("latin-1")

    def _check_flags(self, flags: DFlag, mask: int = -1) -> None:
        missing = MANDATORY & ~flags & mask
        if missing:
            names = ", ".join(flag.name or hex(flag) for flag in DFlag if flag & missing)
            raise MissingFlags(
                f"it cannot do {names}, without which no connection is possible; Erlang/OTP 25 and later can",
                missing,
                self.peer,
                rule="Distribution Flags, mandatory since OTP 25 and 26",
            )

    def _established(self) -> list[Event]:
        self.state = State.ESTABLISHED
        flags = self._peer_flags
        return [Established(self.peer, flags, flags & self._flags, self._peer_creation, self._buffer.rest())]

    def _wrong(self, message: str, offset: int | None = None) -> RemoteProtocolError:
        return RemoteProtocolError(message, self.peer or None, offset, _RULE)


def _name_bytes(name: str) -> bytes:
    """The name as ``send_name`` of ``dist_util.erl`` writes it: Latin-1."""
    if not _is_node_name(name):
        raise LocalProtocolError(f"a node name is 'name@host', not {name!r}")
    try:
        return name.encode("latin-1")
    except UnicodeEncodeError:
        raise LocalProtocolError(f"node names travel as Latin-1; {name!r} has other characters") from None


def _is_node_name(name: str) -> bool:
    """``is_node_name/1``: one ``@`` with something on either side of it."""
    head, _, host = name.partition("@")
    return bool(head and host) and "@" not in host


# ---------------------------------------------------------------------------------------------------------- initiator


class Initiator(_Handshake):
    """The node that dials.

    Args:
        name: Our full name, ``name@host``.
        peer: The full name of the node that was dialled; one that calls itself otherwise is refused, as by a BEAM.
        flags: What we announce: ``OFFERED``, with PUBLISHED for a visible node.
        creation: Ours, 32 bits, as EPMD gave it.
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
        self._send(_NAME.pack(b"N", flags, creation, len(self._name)) + self._name)

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
            return CookieMismatch("it hung up on our digest: the two nodes' cookies differ", self.peer, None, _RULE)
        if state is State.RECV_STATUS:
            return HandshakeError("it hung up on our name: is this port an Erlang node's?", self.peer, None, _RULE)
        return HandshakeError(f"it hung up in {state.name}: its log says why", self.peer, None, _RULE)

    def _status_received(self, message: bytes) -> list[Event]:
        word = message[1:].decode("latin-1")
        if word == Verdict.NOK:
            raise Superseded("it dials this node at the same moment, and its call goes on", self.peer, None, _RULE)
        if word == Verdict.NOT_ALLOWED:
            raise NotAllowed(
                "it does not let us in: its net_kernel:allow/1 does not list this node, or it misses a flag of ours",
                self.peer,
                None,
                _RULE,
            )
        if word.startswith("named:"):
            raise self._wrong("it gives us a name although we have one", 1)
        try:
            status = Verdict(word)
        except ValueError:
            raise self._wrong(f"unknown status {word[:20]!r}", 1) from None
        self.state = State.AWAIT_ALIVE_ANSWER if status is Verdict.ALIVE else State.RECV_CHALLENGE
        return [StatusReceived(status)]

    def _challenge_received(self, message: bytes) -> list[Event]:
        _, flags, challenge, self._peer_creation, length = self._unpack(_CHALLENGE, message)
        name = self._unpack_name(message, _CHALLENGE.size, length)
        if name != self.peer:
            raise HandshakeError(
                f"the node at this address calls itself {name!r}: dial it by exactly that name", self.peer, None, _RULE
            )
        self._peer_flags = announced(flags)
        self._check_flags(self._peer_flags)
        self._send(_REPLY.pack(b"r", self._challenge, digest(self._cookie, challenge)))
        self.state = State.RECV_ACK
        return []

    def _ack_received(self, message: bytes) -> list[Event]:
        _, proof = self._unpack(_ACK, message)
        if not hmac.compare_digest(proof, digest(self._cookie, self._challenge)):
            raise CookieMismatch("its digest is not one of our cookie: the cookies differ", self.peer, None, _RULE)
        return self._established()

    _HANDLERS: ClassVar[_Table] = {
        (State.RECV_STATUS, Tag.STATUS): _status_received,
        (State.RECV_CHALLENGE, Tag.NAME): _challenge_received,
        (State.RECV_ACK, Tag.ACK): _ack_received,
    }


# ----------------------------------------------------------------------------------------------------------- acceptor


class Acceptor(_Handshake):
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

    def accept(self, verdict: Verdict) -> None:
        """Answer :class:`NameReceived`. After NOK and NOT_ALLOWED the handshake is over: flush and close."""
        if self.state is not State.AWAIT_VERDICT:
            raise LocalProtocolError(f"nobody asked to be accepted: {self.state.name}")
        self._send_status(verdict)
        if verdict is Verdict.ALIVE:
            self.state = State.RECV_ALIVE_ANSWER
        elif verdict is Verdict.NOK or verdict is Verdict.NOT_ALLOWED:
            self.state = State.FAILED
        else:
            self._send_challenge()

    def connection_lost(self) -> HandshakeError:
        """Explain an end of the stream that came before :class:`Established`."""
        state, self.state = self.state, State.FAILED
        peer = self.peer or None
        if state is State.RECV_NAME:
            return HandshakeError("somebody connected and left without a name", peer, None, _RULE)
        if state is State.RECV_REPLY:
            return HandshakeError(
                "it hung up on our challenge: it knows this node by another name, misses a flag of ours, or gave up",
                peer,
                None,
                _RULE,
            )
        return HandshakeError(f"it hung up in {state.name}", peer, None, _RULE)

    def _name_received(self, message: bytes) -> list[Event]:
        _, flags, self._peer_creation, length = self._unpack(_NAME, message)
        return self._introduced(self._unpack_name(message, _NAME.size, length), announced(flags), -1)

    def _old_name_received(self, message: bytes) -> list[Event]:
        # Sent by OTP 23 and 24 to a node whose versions in EPMD begin with 5; the rest follows as a complement.
        _, _version, flags = self._unpack(_OLD_NAME, message)
        self._old_name = True
        name = self._unpack_name(message, _OLD_NAME.size, len(message) - _OLD_NAME.size)
        return self._introduced(name, announced(flags), _LOW)

    def _introduced(self, name: str, flags: DFlag, known: int) -> list[Event]:
        self.peer = name
        try:
            if flags & DFlag.NAME_ME:
                raise HandshakeError(
                    "it wants to be given a name (NAME_ME), which this node does not do: start it with its own",
                    name,
                    None,
                    _RULE,
                )
            if not _is_node_name(name):
                raise self._wrong("a node name is 'name@host'")
            if len(name) > MAX_ATOM_CHARACTERS:
                raise self._wrong(f"a node name has at most {MAX_ATOM_CHARACTERS} characters, this one {len(name)}")
            self._check_flags(flags, known)
        except RemoteProtocolError:
            self._send_status(Verdict.NOT_ALLOWED)
            raise
        self._peer_flags = flags
        self.state = State.AWAIT_VERDICT
        return [NameReceived(name, flags, self._peer_creation)]

    def _alive_answered(self, message: bytes) -> list[Event]:
        if message == b"strue":
            self._send_challenge()
            return [AliveConfirmed(self.peer)]
        if message == b"sfalse":
            raise Superseded("it no longer wants this connection; the one that is up stays", self.peer, None, _RULE)
        raise self._wrong(f"status {message[1:20]!r} where true or false was due", 1)

    def _send_challenge(self) -> None:
        self._send(_CHALLENGE.pack(b"N", self._flags, self._challenge, self._creation, len(self._name)) + self._name)
        self.state = State.RECV_COMPLEMENT if self._old_name else State.RECV_REPLY

    def _complement_received(self, message: bytes) -> list[Event]:
        _, high, self._peer_creation = self._unpack(_COMPLEMENT, message)
        self._peer_flags = announced(self._peer_flags | high << 32)
        self._check_flags(self._peer_flags)
        self.state = State.RECV_REPLY
        return []

    def _reply_received(self, message: bytes) -> list[Event]:
        _, challenge, proof = self._unpack(_REPLY, message)
        cookie = self._cookie_of(self.peer)
        if not hmac.compare_digest(proof, digest(cookie, self._challenge)):
            raise CookieMismatch("its digest is not one of our cookie: the cookies differ", self.peer, None, _RULE)
        self._send(_ACK.pack(b"a", digest(cookie, challenge)))
        return self._established()

    _HANDLERS: ClassVar[_Table] = {
        (State.RECV_NAME, Tag.NAME): _name_received,
        (State.RECV_NAME, Tag.OLD_NAME): _old_name_received,
        (State.RECV_ALIVE_ANSWER, Tag.STATUS): _alive_answered,
        (State.RECV_COMPLEMENT, Tag.COMPLEMENT): _complement_received,
        (State.RECV_REPLY, Tag.REPLY): _reply_received,
    }
