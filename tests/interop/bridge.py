"""A node of ours and a BEAM with a gate between them: every frame crosses when the test says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from erlang_interop import Atom, Pid
from erlang_interop.etf import encode
from erlang_interop.runtime.transport import Stream, Transport
from erlang_interop.testing.cluster import settled
from erlang_interop.testing.memory import Wire

if TYPE_CHECKING:
    from erlang_interop import Term

#: What a gate calls the other end, whatever its node is called.
BEAM = "beam"
US = "us"


class GatedTransport(Transport):
    """TCP, behind a wire in memory. Handshakes pass; frames behind them wait.

    Args:
        tasks: Runs what copies between wire and socket.
    """

    def __init__(self, tasks: trio.Nursery) -> None:
        self._tasks = tasks
        self.wire: Wire | None = None
        self._socket: Stream | None = None

    async def open(self, host: str, port: int, node: str) -> Stream:
        return self._gate(await super().open(host, port, node), dialler=US, acceptor=BEAM)

    async def secure(self, stream: Stream) -> Stream:
        return self._gate(stream, dialler=BEAM, acceptor=US)

    def _gate(self, socket: Stream, *, dialler: str, acceptor: str) -> Stream:
        wire = self.wire = Wire(dialler, acceptor, keep=True)
        for name in (US, BEAM):
            wire.to(name).held, wire.to(name).holds_handshake = True, False
        self._socket = socket
        far_end = wire.end_of(BEAM)
        self._tasks.start_soon(_copy, far_end, socket)
        self._tasks.start_soon(_copy, socket, far_end)
        return wire.end_of(US)

    async def send_mark(self, sender: Pid, name: str, message: Term) -> None:
        """Send ``message`` to the process ``name`` of the BEAM, behind all that was let through, past the gate.

        The frame says REG_SEND and refers to no atom of the cache, so it fits between any two others.
        """
        await settled()  # what was let through is in the socket
        assert self._socket is not None
        terms = b"".join(encode(term)[1:] for term in ((6, sender, Atom(""), Atom(name)), message))
        await self._socket.send_all((len(terms) + 3).to_bytes(4, "big") + b"\x83\x44\x00" + terms)


async def _copy(source: Stream, sink: Stream) -> None:
    """Bytes, and at last the end."""
    try:
        while data := await source.receive_some(65536):
            await sink.send_all(data)
    except (OSError, trio.ClosedResourceError):
        pass  # the other direction has closed both: the connection was cut
    finally:
        source.close()
        sink.close()
