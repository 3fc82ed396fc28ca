"""Two TLS streams against each other, on the loopback address."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from erlang_interop.errors import TlsError
from erlang_interop.runtime.tls import TlsStream, TlsTransport
from erlang_interop.runtime.transport import Stream, Transport, listen
from tests.certificates import HOST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from erlang_interop.runtime.tls_options import TlsOptions

#: The node that is dialled.
NODE: Final = "node@127.0.0.1"


async def attempt(
    client: Transport, server: Transport, node: str = NODE
) -> tuple[Stream | Exception, Stream | Exception]:
    """Dial, accept, do both handshakes: for each side its stream, or its error."""
    listener = await listen(HOST)
    send, receive = trio.open_memory_channel[Stream](1)
    outcome: dict[str, Stream | Exception] = {}

    async def dial() -> None:
        try:
            outcome["client"] = await client.secure_dialled(await client.open(HOST, listener.port, node), node)
        except (TlsError, OSError) as error:
            outcome["client"] = error

    async def accept() -> None:
        plain = await receive.receive()
        try:
            outcome["server"] = await server.secure(plain)
        except (TlsError, OSError) as error:
            outcome["server"] = error
            plain.close()

    with trio.fail_after(30):
        async with trio.open_nursery() as serving:
            serving.start_soon(listener.serve, send.send, serving)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(dial)
                nursery.start_soon(accept)
            serving.cancel_scope.cancel()
    listener.close()
    return outcome["client"], outcome["server"]


@asynccontextmanager
async def pair(client: TlsOptions, server: TlsOptions | None = None) -> AsyncIterator[tuple[TlsStream, TlsStream]]:
    one, other = await attempt(TlsTransport(client), TlsTransport(server or client))
    assert isinstance(one, TlsStream), one
    assert isinstance(other, TlsStream), other
    yield one, other
    one.close()
    other.close()
