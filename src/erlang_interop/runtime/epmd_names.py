"""What an EPMD knows, and what it answers: the names of one machine, without sockets.

The rules are those of the genuine one (erts/epmd/src/epmd_srv.c), compared byte for byte in
tests/interop/test_epmd_server.py: who may ask for what, which names can be had, how creations are counted.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..errors import RemoteProtocolError
from ..wire.epmd import (
    VERSION,
    Alive2Reply,
    Alive2Request,
    DumpRequest,
    KillRequest,
    NamesRequest,
    NodeEntry,
    PortPlease2Reply,
    PortPlease2Request,
    StopRequest,
    UnfitAlive2Request,
    encode_alive2_reply,
    encode_dump_reply,
    encode_names_reply,
    encode_port2_reply,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..wire.epmd import Received

#: Names of nodes that are gone, of which DUMP tells (epmd_int.h: MAX_UNREG_COUNT).
_MAX_FORMER: Final = 1000
#: What stands in the place of a creation when a registration is refused.
_NO_CREATION: Final = 99
#: 0 to 3 have special meanings: creations of 32 bits start here.
_FIRST_CREATION: Final = 4


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A registered name, for as long as the connection that asked for it lives."""

    request: Alive2Request
    creation: int

    @property
    def name(self) -> str:
        """The part before the ``@``."""
        return self.request.name


@dataclass(frozen=True, slots=True)
class Answer:
    """What becomes of a request."""

    reply: bytes = b""
    #: The name it registered. Such a connection stays open.
    held: Held | None = None
    #: The name it took away: the connection that held it is to be closed.
    stopped: Held | None = None
    #: Whether the EPMD is to end.
    killed: bool = False
    #: What to log of a request that was not fulfilled.
    refusal: str = ""


class EpmdNames:
    """The names of one machine.

    Args:
        creation: The creation of the first node; each later one gets the next.
        relaxed: Permit KILL while nodes are registered, and STOP (``epmd -relaxed_command_check``).
    """

    def __init__(self, creation: int, *, relaxed: bool = False) -> None:
        self.port = 0
        """The EPMD's own port, which it tells with its names."""
        self._relaxed = relaxed
        self._creations = itertools.count(creation)
        self._nodes: dict[str, Held] = {}
        self._former: OrderedDict[str, Held] = OrderedDict()

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[Held]:
        """The newest first, as EPMD lists them."""
        return reversed(self._nodes.values())

    def answer(self, request: Received, *, local: bool) -> Answer:
        """Fulfil a request.

        Args:
            request: What came.
            local: Whether it came from this machine. From others come look-ups alone.

        Raises:
            RemoteProtocolError: It may not ask that; it gets no answer.
        """
        match request:
            case PortPlease2Request(name):
                return Answer(self._port2(name))
            case NamesRequest():
                return Answer(encode_names_reply(self.port, self._entries()))
        if not local:
            raise RemoteProtocolError(f"{type(request).__name__} from another machine", rule="EPMD Protocol")
        match request:
            case Alive2Request():
                return self._register(request)
            case UnfitAlive2Request(highest_version, why):
                return _refused(highest_version, why)
            case DumpRequest():
                former = (_entry(held) for held in self._former.values())
                return Answer(encode_dump_reply(self.port, self._entries(), former))
            case KillRequest():
                return self._kill()
            case StopRequest(name):
                return self._stop(name)
        raise AssertionError(request)

    def release(self, held: Held) -> bool:
        """Forget a name whose connection has ended. False: it was taken away before."""
        if self._nodes.get(held.name) is not held:
            return False
        del self._nodes[held.name]
        self._former[held.name] = held
        if len(self._former) > _MAX_FORMER:
            self._former.popitem(last=False)
        return True

    def _register(self, request: Alive2Request) -> Answer:
        if request.name in self._nodes:
            return _refused(request.highest_version, f"the name {request.name!r}, which a node has")
        self._former.pop(request.name, None)
        creation = _FIRST_CREATION + next(self._creations) % (2**32 - _FIRST_CREATION)
        held = self._nodes[request.name] = Held(request, creation)
        # Nodes before OTP 23 know the creations 1 to 3.
        told = creation if request.highest_version >= VERSION else creation % 3 + 1
        reply = encode_alive2_reply(Alive2Reply(0, told), highest_version=request.highest_version)
        return Answer(reply, held=held)

    def _port2(self, name: str) -> bytes:
        held = self._nodes.get(name)
        if held is None:
            return encode_port2_reply(PortPlease2Reply(1))
        r = held.request
        return encode_port2_reply(
            PortPlease2Reply(0, r.port, r.node_type, r.protocol, r.highest_version, r.lowest_version, r.name, r.extra)
        )

    def _kill(self) -> Answer:
        if self._nodes and not self._relaxed:
            return Answer(b"NO", refusal="to end while nodes are registered")
        return Answer(b"OK", killed=True)

    def _stop(self, name: str) -> Answer:
        if not self._relaxed:
            raise RemoteProtocolError("StopRequest, which this EPMD does not permit", rule="EPMD Protocol")
        held = self._nodes.get(name)
        if held is None:
            # Both words: epmd says that there is no such node, then goes on as if there had been one. Its own
            # `epmd -stop` reads the first seven bytes.
            return Answer(b"NOEXISTSTOPPED", refusal=f"to forget {name!r}, which no node is called")
        self.release(held)
        return Answer(b"STOPPED", stopped=held)

    def _entries(self) -> Iterator[NodeEntry]:
        return (_entry(held) for held in self)


def _entry(held: Held) -> NodeEntry:
    return NodeEntry(held.name, held.request.port)


def _refused(highest_version: int, why: str) -> Answer:
    reply = encode_alive2_reply(Alive2Reply(1, _NO_CREATION), highest_version=highest_version)
    return Answer(reply, refusal=f"to register {why}")
