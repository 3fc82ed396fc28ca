"""EPMD, Erlang's port mapper: its requests and replies, as bytes, for both ends.

A node tells the EPMD of its host on which port it listens (``ALIVE2_REQ``) and keeps that connection open for as long
as it lives; others ask for the port (``PORT_PLEASE2_REQ``). Every request is a 2-byte length and a body that starts
with a tag; a connection carries one request. Replies have no length: some are of fixed form, some are text that ends
where EPMD closes the connection.

:class:`RequestReader` is the server's half, :class:`ReplyReader` the client's; both take bytes in any portions.
Neighbours: ``runtime/epmd.py`` and ``runtime/epmd_server.py`` move these bytes, ``runtime/epmd_names.py`` answers them.
Spec: erl_dist_protocol, "EPMD Protocol"; ``epmd_srv.c``. What the spec leaves open is as the epmd of OTP 25 to 29 does.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from ..errors import LocalProtocolError, RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "EPMD_PORT",
    "VERSION",
    "Alive2Reply",
    "Alive2Request",
    "DumpRequest",
    "KillRequest",
    "NamesRequest",
    "NodeEntry",
    "NodeType",
    "PortPlease2Reply",
    "PortPlease2Request",
    "Reply",
    "ReplyReader",
    "Request",
    "RequestReader",
    "StopRequest",
    "TextReply",
    "UnfitAlive2Request",
    "encode_alive2_reply",
    "encode_dump_reply",
    "encode_names_reply",
    "encode_port2_reply",
    "encode_request",
]

#: Where EPMD listens unless ``ERL_EPMD_PORT`` says otherwise.
EPMD_PORT: Final = 4369
#: Distribution protocol version: 6 is the handshake of OTP 23, and since OTP 25 the only one.
VERSION: Final = 6

_ALIVE2_REQ: Final = 120
_PORT_PLEASE2_REQ: Final = 122
_NAMES_REQ: Final = 110
_DUMP_REQ: Final = 100
_KILL_REQ: Final = 107
_STOP_REQ: Final = 115
_ALIVE2_X_RESP: Final = 118
_PORT2_RESP: Final = 119
_ALIVE2_RESP: Final = 121

#: Port, node type, protocol, highest version, lowest version: common to ALIVE2_REQ and PORT2_RESP.
_NODE: Final = struct.Struct(">HBBHH")
_U16: Final = struct.Struct(">H")
_U32: Final = struct.Struct(">I")

#: The longest name, and extra field, that EPMD takes, in bytes (``epmd_int.h``: MAXSYMLEN).
_MAX_NAME: Final = 255 * 4
#: The longest name in characters: as long as an atom may be.
_MAX_CHARACTERS: Final = 255
#: The longest body of a request: epmd's buffer, less the length, less one byte (measured; INBUF_SIZE).
_MAX_REQUEST: Final = 3 * _MAX_NAME - 3
#: Text replies of a host with more nodes than this are somebody's joke.
_MAX_TEXT: Final = 16 * 1024 * 1024


class NodeType(enum.IntEnum):
    """What a node says of itself to EPMD. EPMD only stores it."""

    #: A hidden node: C nodes, JInterface, this library by default.
    HIDDEN = 72
    #: A normal Erlang node.
    NORMAL = 77


# ------------------------------------------------------------------------------------------------------------ messages


@dataclass(frozen=True, slots=True)
class Alive2Request:
    """``ALIVE2_REQ``: register ``name`` (the part before the ``@``) for as long as this connection lives."""

    port: int
    name: str
    node_type: int = NodeType.HIDDEN
    #: Version 6 makes EPMD answer with 32 bits of creation.
    highest_version: int = VERSION
    lowest_version: int = VERSION
    #: 0 is TCP/IPv4; nothing else was ever assigned.
    protocol: int = 0
    #: Up to 1,020 bytes that EPMD hands to whoever looks the node up.
    extra: bytes = b""


@dataclass(frozen=True, slots=True)
class UnfitAlive2Request:
    """A well-formed ``ALIVE2_REQ`` whose name or extra field EPMD does not take: it answers that it refuses."""

    highest_version: int
    #: What is the matter with it.
    why: str


@dataclass(frozen=True, slots=True)
class PortPlease2Request:
    """``PORT_PLEASE2_REQ``: where does ``name`` (the part before the ``@``) listen?"""

    name: str


@dataclass(frozen=True, slots=True)
class NamesRequest:
    """``NAMES_REQ``: all registered nodes."""


@dataclass(frozen=True, slots=True)
class DumpRequest:
    """``DUMP_REQ``: the same and more, for debugging."""


@dataclass(frozen=True, slots=True)
class KillRequest:
    """``KILL_REQ``: end. A genuine EPMD obeys only when no node is registered, or it was started with permission."""


@dataclass(frozen=True, slots=True)
class StopRequest:
    """``STOP_REQ``: forget ``name``. Off by default in a genuine EPMD.

    What a client sends may be no UTF-8: then ``name`` has surrogates, and no node is called so.
    """

    name: str


@dataclass(frozen=True, slots=True)
class Alive2Reply:
    """``ALIVE2_X_RESP`` or the older ``ALIVE2_RESP``."""

    #: 0: registered; anything else: refused, in practice because the name is taken.
    result: int
    #: 32 bits from the former (1 to 2**32-1), 16 from the latter.
    creation: int


@dataclass(frozen=True, slots=True)
class PortPlease2Reply:
    """``PORT2_RESP``. With a ``result`` other than 0 the node is unknown and the rest is empty."""

    result: int
    port: int = 0
    node_type: int = NodeType.NORMAL
    protocol: int = 0
    highest_version: int = VERSION
    lowest_version: int = VERSION
    name: str = ""
    extra: bytes = b""


@dataclass(frozen=True, slots=True)
class NodeEntry:
    """One line of a ``NAMES_REQ``'s reply."""

    name: str
    port: int


@dataclass(frozen=True, slots=True)
class TextReply:
    """What came until EPMD closed the connection: the replies to NAMES, DUMP, KILL and STOP."""

    #: EPMD's own port; 0 where the reply has none (KILL, STOP).
    epmd_port: int
    text: str

    @property
    def names(self) -> list[NodeEntry]:
        """The lines ``name NAME at port PORT`` of a reply to NAMES, in EPMD's order. Others are passed over."""
        entries = []
        for line in self.text.split("\n"):
            name, at_port, port = line.removeprefix("name ").rpartition(" at port ")
            if line.startswith("name ") and at_port and port.isdecimal():
                entries.append(NodeEntry(name, int(port)))
        return entries


Request: TypeAlias = Alive2Request | PortPlease2Request | NamesRequest | DumpRequest | KillRequest | StopRequest
Received: TypeAlias = Request | UnfitAlive2Request
Reply: TypeAlias = Alive2Reply | PortPlease2Reply | TextReply

_BARE: Final[dict[int, type[NamesRequest | DumpRequest | KillRequest]]] = {
    _NAMES_REQ: NamesRequest,
    _DUMP_REQ: DumpRequest,
    _KILL_REQ: KillRequest,
}
_TAGS: Final[dict[type, int]] = {
    Alive2Request: _ALIVE2_REQ,
    PortPlease2Request: _PORT_PLEASE2_REQ,
    StopRequest: _STOP_REQ,
    **{kind: tag for tag, kind in _BARE.items()},
}


# ------------------------------------------------------------------------------------------------------------ encoding


def encode_request(request: Request) -> bytes:
    """Return the bytes of ``request``, length included.

    Raises:
        LocalProtocolError: A number or name does not fit its field.
    """
    body = bytes((_TAGS[type(request)],))
    if isinstance(request, Alive2Request):
        if len(request.extra) > _MAX_NAME:
            raise LocalProtocolError(f"EPMD takes extra fields of up to {_MAX_NAME} bytes, not {len(request.extra)}")
        body += _node(request) + _counted(_name(request.name)) + _counted(request.extra)
    elif isinstance(request, PortPlease2Request | StopRequest):
        body += _name(request.name)
    return _counted(body)


def encode_alive2_reply(reply: Alive2Reply, *, highest_version: int = VERSION) -> bytes:
    """Return the answer to an ``ALIVE2_REQ`` that announced ``highest_version``: below 6 it is the old, 16-bit form."""
    if highest_version >= VERSION:
        return bytes((_ALIVE2_X_RESP, reply.result)) + _U32.pack(reply.creation)
    return bytes((_ALIVE2_RESP, reply.result)) + _U16.pack(reply.creation & 0xFFFF)


def encode_port2_reply(reply: PortPlease2Reply) -> bytes:
    """Return the answer to a ``PORT_PLEASE2_REQ``; of an unknown name only the result is sent."""
    head = bytes((_PORT2_RESP, reply.result))
    if reply.result:
        return head
    return head + _node(reply) + _counted(_name(reply.name)) + _counted(reply.extra)


def encode_names_reply(epmd_port: int, nodes: Iterable[NodeEntry]) -> bytes:
    """Return the answer to a ``NAMES_REQ``; the server closes the connection after it."""
    return _U32.pack(epmd_port) + "".join(f"name {n.name} at port {n.port}\n" for n in nodes).encode()


def encode_dump_reply(epmd_port: int, nodes: Iterable[NodeEntry], former: Iterable[NodeEntry] = ()) -> bytes:
    """Return the answer to a ``DUMP_REQ``: the nodes that are registered, and those that were.

    Each line ends with a zero byte behind the line feed. The file descriptor it tells is nobody's business: -1.
    """
    lines = [f"active name     <{n.name}> at port {n.port}, fd = -1\n\0" for n in nodes]
    lines += [f"old/unused name <{n.name}>, port = {n.port}, fd = -1 \n\0" for n in former]
    return _U32.pack(epmd_port) + "".join(lines).encode()


def _node(message: Alive2Request | PortPlease2Reply) -> bytes:
    m = message
    try:
        return _NODE.pack(m.port, m.node_type, m.protocol, m.highest_version, m.lowest_version)
    except struct.error as error:
        raise LocalProtocolError(f"{m!r} does not fit an EPMD message: {error}") from error


def _name(name: str) -> bytes:
    if not 0 < len(name) <= _MAX_CHARACTERS:
        raise LocalProtocolError(f"EPMD takes names of 1 to {_MAX_CHARACTERS} characters, not {name!r}")
    try:
        return name.encode()
    except UnicodeEncodeError as error:
        raise LocalProtocolError(f"the name {name!r} has no UTF-8 form") from error


def _counted(data: bytes) -> bytes:
    if len(data) > 0xFFFF:
        raise LocalProtocolError(f"{len(data)} bytes do not fit an EPMD message; 65535 do")
    return _U16.pack(len(data)) + data


# ------------------------------------------------------------------------------------------------------------- parsing


class RequestReader:
    """The server's side of one connection: bytes in any portions in, one request out."""

    def __init__(self) -> None:
        self._buffer = b""
        self._complete = False

    def receive_data(self, data: bytes) -> list[Received]:
        """Return the request that ``data`` completes, or nothing yet.

        Raises:
            RemoteProtocolError: Unknown tag, a body that is not what its tag says or has no end, or bytes behind the
                request. EPMD answers none of these.
        """
        self._buffer += data
        if self._complete:
            raise _wrong("more than one request on a connection", len(self._buffer) - len(data))
        if len(self._buffer) < 2:
            return []
        size = _U16.unpack_from(self._buffer)[0]
        if size > _MAX_REQUEST:
            raise _wrong(f"a request of {size} bytes; {_MAX_REQUEST} are the most", 0)
        end = 2 + size
        if len(self._buffer) > end:
            raise _wrong("bytes behind the request", end)
        if len(self._buffer) < end:
            return []
        self._complete = True
        return [_request(self._buffer[2:])]


class ReplyReader:
    """The client's side: the reply to one ``request``, out of bytes in any portions."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._buffer = b""

    def receive_data(self, data: bytes) -> Reply | None:
        """Return the reply once it is complete; None before, and for text replies, which end with :meth:`receive_eof`.

        Raises:
            RemoteProtocolError: This is not EPMD, or not the reply to that request.
        """
        self._buffer += data
        if isinstance(self._request, Alive2Request):
            return _alive2_reply(self._buffer)
        if isinstance(self._request, PortPlease2Request):
            return _port2_reply(self._buffer)
        if len(self._buffer) > _MAX_TEXT:
            raise _wrong(f"a reply of more than {_MAX_TEXT} bytes")
        return None

    def receive_eof(self) -> Reply:
        """EPMD closed the connection: return the text it sent.

        Raises:
            RemoteProtocolError: The reply is of fixed form and cut short. To ALIVE2_REQ this is how EPMD refuses what
                it finds malformed, a name with forbidden characters for instance.
        """
        request = self._request
        if isinstance(request, Alive2Request | PortPlease2Request):
            raise _wrong(f"EPMD closed the connection instead of answering {request!r}", len(self._buffer))
        if isinstance(request, KillRequest | StopRequest):
            return TextReply(0, self._buffer.decode(errors="replace"))
        if len(self._buffer) < 4:
            raise _wrong("a list of names without EPMD's port in front", len(self._buffer))
        return TextReply(_U32.unpack_from(self._buffer)[0], self._buffer[4:].decode(errors="replace"))


def _request(body: bytes) -> Received:
    if not body:
        raise _wrong("a request without a tag", 0)
    tag = body[0]
    if tag == _ALIVE2_REQ:
        return _alive2_request(body)
    if tag == _PORT_PLEASE2_REQ:
        return PortPlease2Request(_sought_name(body))
    if tag == _STOP_REQ:
        if len(body) == 1:
            raise _wrong("a name of 0 bytes", 1)
        return StopRequest(body[1:].partition(b"\0")[0].decode(errors="surrogateescape"))
    if tag in _BARE:
        return _BARE[tag]()  # whatever else is in the body: epmd does not look
    raise _wrong(f"unknown request {tag}", 0)


def _alive2_request(body: bytes) -> Alive2Request | UnfitAlive2Request:
    port, node_type, protocol, highest, lowest, name, extra = _node_fields(body, 1)
    if len(body) <= 13:
        raise _wrong("a name of 0 bytes", 11)
    if b"\0" in name:
        raise _wrong("a zero byte in the name", 11 + name.index(b"\0"))
    if len(name) > _MAX_NAME:
        return UnfitAlive2Request(highest, f"a name of {len(name)} bytes")
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return UnfitAlive2Request(highest, f"the name {name!r}, which is not UTF-8")
    if len(text) > _MAX_CHARACTERS:
        return UnfitAlive2Request(highest, f"a name of {len(text)} characters")
    if len(extra) > _MAX_NAME:
        return UnfitAlive2Request(highest, f"an extra field of {len(extra)} bytes")
    return Alive2Request(port, text, node_type, highest, lowest, protocol, extra)


def _sought_name(body: bytes) -> str:
    """The name in a PORT_PLEASE2_REQ, which may end with a zero byte, as in C."""
    name = body[1:].removesuffix(b"\0")
    if b"\0" in name:
        raise _wrong("a zero byte in the name", 1 + name.index(b"\0"))
    text = _text(name, 1)
    if len(text) >= _MAX_CHARACTERS:  # one less than in ALIVE2_REQ: epmd counts the zero byte as well
        raise _wrong(f"a name of {len(text)} characters", 1)
    return text


def _alive2_reply(data: bytes) -> Alive2Reply | None:
    if data[:1] not in (b"", b"v", b"y"):
        raise _wrong(f"tag {data[0]} in answer to ALIVE2_REQ; is this port really EPMD's?", 0)
    if data[:1] == b"v" and len(data) >= 6:
        return Alive2Reply(data[1], _U32.unpack_from(data, 2)[0])
    if data[:1] == b"y" and len(data) >= 4:
        return Alive2Reply(data[1], _U16.unpack_from(data, 2)[0])
    return None


def _port2_reply(data: bytes) -> PortPlease2Reply | None:
    if len(data) >= 1 and data[0] != _PORT2_RESP:
        raise _wrong(f"tag {data[0]} in answer to PORT_PLEASE2_REQ; is this port really EPMD's?", 0)
    if len(data) < 2:
        return None
    if data[1]:
        return PortPlease2Reply(data[1])
    # Complete once both counted fields at the end are: the name's length stands at 10, the extra's behind the name.
    end = 2 + _NODE.size
    for _field in ("name", "extra"):
        if len(data) < end + 2:
            return None
        end += 2 + _U16.unpack_from(data, end)[0]
    if len(data) < end:
        return None
    port, node_type, protocol, highest, lowest, name, extra = _node_fields(data, 2)
    return PortPlease2Reply(0, port, node_type, protocol, highest, lowest, _text(name, 2 + _NODE.size + 2), extra)


def _node_fields(data: bytes, offset: int) -> tuple[int, int, int, int, int, bytes, bytes]:
    """Port, type, protocol, versions, name, extra. Bytes after the extra field are ignored, as EPMD does."""
    if len(data) < offset + _NODE.size:
        raise _wrong("fields missing", len(data))
    port, node_type, protocol, highest, lowest = _NODE.unpack_from(data, offset)
    name, offset = _take(data, offset + _NODE.size)
    extra, _ = _take(data, offset)
    return port, node_type, protocol, highest, lowest, name, extra


def _take(data: bytes, offset: int) -> tuple[bytes, int]:
    if len(data) < offset + 2:
        raise _wrong("a length is missing", len(data))
    end = offset + 2 + _U16.unpack_from(data, offset)[0]
    if len(data) < end:
        raise _wrong(f"a field of {end - offset - 2} bytes is cut short", len(data))
    return data[offset + 2 : end], end


def _text(data: bytes, offset: int) -> str:
    if not 0 < len(data) <= _MAX_NAME:
        raise _wrong(f"a name of {len(data)} bytes", offset)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _wrong(f"name {data!r} is not UTF-8", offset + error.start) from error


def _wrong(message: str, offset: int | None = None) -> RemoteProtocolError:
    return RemoteProtocolError(message, "EPMD", offset, "EPMD Protocol")
