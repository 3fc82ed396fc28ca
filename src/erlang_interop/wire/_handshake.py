"""What both roles of the handshake share: states, status words, events, layouts. Import from ``handshake.py``."""

from __future__ import annotations

import enum
import hashlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias

from ..errors import (
    LocalProtocolError,
    MissingFlags,
    RemoteProtocolError,
    TlsError,
)
from ..flags import MANDATORY, DFlag
from .buffer import MessageBuffer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

RULE: Final = "Distribution Handshake"

NAME: Final = struct.Struct(">cQIH")  # N, flags, creation, length of the name
CHALLENGE: Final = struct.Struct(">cQIIH")  # N, flags, challenge, creation, length of the name
OLD_NAME: Final = struct.Struct(">cHI")  # n, version, low 32 flags; the name is the rest
COMPLEMENT: Final = struct.Struct(">cII")  # c, high 32 flags, creation
REPLY: Final = struct.Struct(">cI16s")  # r, challenge, digest
ACK: Final = struct.Struct(">c16s")  # a, digest
NAMED: Final = b"snamed:"  # then the length of the name in 2 bytes, the name in utf-8, the creation in 4 bytes
LOW: Final = 0xFFFFFFFF

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

    @property
    def owed(self) -> str:
        """What the peer has not sent yet, in words; empty where nothing is awaited from it."""
        return _OWED.get(self, "")


_OWED: Final = {
    State.RECV_NAME: "its name",
    State.RECV_ALIVE_ANSWER: "whether it means this connection, as another one is up",
    State.RECV_COMPLEMENT: "the other half of its flags",
    State.RECV_REPLY: "its answer to our challenge",
    State.RECV_STATUS: "its answer to our name",
    State.RECV_CHALLENGE: "its challenge",
    State.RECV_ACK: "its answer to our digest",
}


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
    """To an acceptor: someone introduced itself. The shell must call ``accept`` or ``give_name`` next."""

    #: Its name; its host if it asks for a name.
    peer: str
    flags: DFlag
    #: 0 when the peer used the old message, or asks for a name; :class:`Established` has it in any case.
    creation: int

    @property
    def asks_for_name(self) -> bool:
        """Whether the peer has no name yet and wants to be given one: ``give_name``, or ``accept(NOT_ALLOWED)``."""
        return bool(self.flags & DFlag.NAME_ME)


@dataclass(frozen=True, slots=True)
class AliveConfirmed:
    """To an acceptor that said ALIVE: the peer means it. The shell must take the old connection down now."""

    peer: str


@dataclass(frozen=True, slots=True)
class StatusReceived:
    """To an initiator: ``OK``, ``OK_SIMULTANEOUS``, or ``ALIVE``: then the shell must call ``answer_alive``."""

    status: Verdict


@dataclass(frozen=True, slots=True)
class NameGiven:
    """To an initiator that asked for a name: this is who we are now."""

    name: str
    creation: int


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


Event: TypeAlias = NameReceived | AliveConfirmed | StatusReceived | NameGiven | Established


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
    Table: TypeAlias = Mapping[tuple[State, Tag], Callable[[Any, bytes], list[Event]]]


class Handshake:
    """What the two roles share: the buffer, the table's look-up, the message layouts."""

    _HANDLERS: ClassVar[Table] = {}

    def __init__(self, name: str, flags: DFlag, creation: int, challenge: int, state: State, length_bytes: int) -> None:
        self.state = state
        self.peer = ""
        self._name = name.encode("latin-1") if is_dynamic(flags) else _name_bytes(name)
        self._flags = flags
        self._creation = creation
        self._challenge = challenge & LOW
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
                RULE,
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
        return RemoteProtocolError(message, self.peer or None, offset, RULE)


def _name_bytes(name: str) -> bytes:
    """The name as ``send_name`` of ``dist_util.erl`` writes it: Latin-1."""
    if not is_node_name(name):
        raise LocalProtocolError(f"a node name is 'name@host', not {name!r}")
    try:
        return name.encode("latin-1")
    except UnicodeEncodeError:
        raise LocalProtocolError(f"node names travel as Latin-1; {name!r} has other characters") from None


def is_dynamic(flags: int) -> bool:
    return bool(flags & DFlag.NAME_ME)


def is_node_name(name: str) -> bool:
    """``is_node_name/1``: one ``@`` with something on either side of it."""
    head, _, host = name.partition("@")
    return bool(head and host) and "@" not in host
