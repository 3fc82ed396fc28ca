"""An EPMD of our own, for machines where none runs. It serves any Erlang node on this machine.

Names are held as long as the connection that registered them. Requests are answered as the genuine one answers them
(erts/epmd/src/epmd_srv.c); KILL and STOP are refused, since nobody who asks has shown a right to it.
"""

from __future__ import annotations

import logging
import secrets
from typing import TYPE_CHECKING, Final

import trio

from ..errors import RemoteProtocolError
from ..wire.epmd import (
    Alive2Reply,
    Alive2Request,
    DumpRequest,
    KillRequest,
    NamesRequest,
    NodeEntry,
    PortPlease2Reply,
    PortPlease2Request,
    RequestReader,
    StopRequest,
    encode_alive2_reply,
    encode_dump_reply,
    encode_names_reply,
    encode_port2_reply,
)
from .transport import Stream, listen

if TYPE_CHECKING:
    from ..wire.epmd import Request

log = logging.getLogger("erlang_interop.epmd")

#: A connection that has registered nothing and asks nothing for so many seconds is closed (epmd: IDLE_TIMEOUT).
_IDLE: Final = 60.0


class EpmdServer:
    """The names of one machine. ``serve`` runs until cancelled."""

    def __init__(self) -> None:
        self.port = 0
        self._nodes: dict[str, Alive2Request] = {}
        self._creation = secrets.randbelow(0xFFFF_FFFC) + 4

    async def serve(
        self, host: str = "127.0.0.1", port: int = 0, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Listen and answer. ``nursery.start`` returns the port. Raises AddressInUse, HostNotFound."""
        listener = await listen(host, port)
        self.port = listener.port
        try:
            async with trio.open_nursery() as nursery:
                task_status.started(listener.port)
                await listener.serve(self._connection, nursery)
        finally:
            listener.close()

    async def _connection(self, stream: Stream) -> None:
        reader = RequestReader()
        registered: Alive2Request | None = None
        try:
            while True:
                with trio.fail_after(_IDLE) if registered is None else trio.CancelScope():
                    data = await stream.receive_some()
                if not data:
                    return
                for request in reader.receive_data(data):
                    if isinstance(request, Alive2Request) and registered is None:
                        reply, accepted = self._register(request)
                        await stream.send_all(reply)
                        if not accepted:
                            return
                        registered = request
                    else:
                        await stream.send_all(self._answer(request))
                        if registered is None:
                            return
        except RemoteProtocolError as error:
            log.warning("EPMD: closing %s: %s", stream.address, error)
        except OSError as error:
            log.info("EPMD: %s went away: %s", stream.address, error)
        except trio.TooSlowError:
            log.info("EPMD: %s asked nothing for %.0f s", stream.address, _IDLE)
        finally:
            if registered is not None:
                self._nodes.pop(registered.name, None)
                log.info("EPMD: %s is gone", registered.name)
            stream.close()

    def _register(self, request: Alive2Request) -> tuple[bytes, bool]:
        taken = request.name in self._nodes
        if not taken:
            self._nodes[request.name] = request
            log.info("EPMD: %s listens on port %d", request.name, request.port)
        self._creation = self._creation % 0xFFFF_FFFF + 1
        reply = Alive2Reply(1 if taken else 0, max(self._creation, 4))
        return encode_alive2_reply(reply, highest_version=request.highest_version), not taken

    def _answer(self, request: Request) -> bytes:
        entries = [NodeEntry(node.name, node.port) for node in self._nodes.values()]
        match request:
            case PortPlease2Request(name):
                node = self._nodes.get(name)
                if node is None:
                    return encode_port2_reply(PortPlease2Reply(1))
                return encode_port2_reply(
                    PortPlease2Reply(
                        0,
                        node.port,
                        node.node_type,
                        node.protocol,
                        node.highest_version,
                        node.lowest_version,
                        node.name,
                        node.extra,
                    )
                )
            case NamesRequest():
                return encode_names_reply(self.port, entries)
            case DumpRequest():
                return encode_dump_reply(self.port, entries)
            case KillRequest():
                return b"NO"
            case StopRequest():
                return b"NOEXIST"
        raise RemoteProtocolError("a second ALIVE2_REQ on a connection that registered a node", rule="EPMD Protocol")
