import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from erlang_interop.errors import AddressInUse, HostNotFound, NodeUnreachable
from erlang_interop.runtime import transport
from erlang_interop.runtime.transport import Stream, format_address, listen, open_stream
from erlang_interop.testing.ports import free_port


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Stream, Stream]]:
    listener = await listen("127.0.0.1")
    send, receive = trio.open_memory_channel[Stream](1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listener.serve, send.send, nursery)
        client = await open_stream("127.0.0.1", listener.port)
        server = await receive.receive()
        yield client, server
        client.close()
        server.close()
        nursery.cancel_scope.cancel()
    listener.close()


async def test_bytes_go_both_ways() -> None:
    async with pair() as (client, server):
        await client.send_all(b"to the server")
        assert await server.receive_some() == b"to the server"
        await server.send_all(b"and back")
        assert await client.receive_some() == b"and back"
        client.close()
        client.close()
        assert await server.receive_some() == b""


async def test_nothing_waits_where_nowait_is_said() -> None:
    async with pair() as (client, server):
        assert server.receive_nowait(memoryview(bytearray(10))) is None
        sent = 0
        block = memoryview(bytes(1 << 20))
        while size := client.send_nowait(block):
            sent += size
        received = 0
        buffer = memoryview(bytearray(1 << 20))
        while received < sent:
            await server.wait_readable()
            received += server.receive_nowait(buffer) or 0
        await client.wait_writable()
        assert client.send_nowait(block) > 0


async def test_abort_is_the_end_of_the_stream_for_both() -> None:
    async with pair() as (client, server):
        client.abort()
        assert await client.receive_some() == b""
        assert await server.receive_some() == b""
        client.abort()


@pytest.mark.usefixtures("no_dns")
async def test_what_cannot_be_reached_says_so() -> None:
    port = free_port()
    with pytest.raises(NodeUnreachable, match=rf"no connection to 127\.0\.0\.1:{port}: Connection refused"):
        await open_stream("127.0.0.1", port)
    with pytest.raises(HostNotFound, match=r"'no-such-host\.invalid' does not resolve"):
        await open_stream("no-such-host.invalid", port)


async def test_a_port_that_is_taken_says_so() -> None:
    first = await listen("127.0.0.1")
    with pytest.raises(AddressInUse, match="choose another port"):
        await listen("127.0.0.1", first.port)
    first.close()


@pytest.mark.parametrize(("address", "text"), [(("127.0.0.1", 80), "127.0.0.1:80"), (("::1", 80, 0, 0), "[::1]:80")])
def test_addresses_print_as_people_write_them(address: tuple[object, ...], text: str) -> None:
    assert format_address(address) == text


async def test_any_port_is_one_that_is_free_on_all_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system chooses it for the first address, and something else may use it on the second."""
    refused: list[int] = []

    class Crowded(socket.socket):
        def bind(self, address: tuple[str, int]) -> None:  # type: ignore[override]
            if address[0] == "127.0.0.2" and len(refused) < 3:
                refused.append(address[1])
                raise OSError(errno.EADDRINUSE, "taken")
            super().bind(address)

    async def two_addresses(_host: str) -> list[tuple[int, str]]:
        return [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "127.0.0.2")]

    monkeypatch.setattr(transport, "resolve", two_addresses)
    monkeypatch.setattr(socket, "socket", Crowded)
    listener = await listen("here")
    assert len(refused) == 3
    assert listener.addresses == [f"127.0.0.1:{listener.port}", f"127.0.0.2:{listener.port}"]
    listener.close()
    refused.clear()
    port = free_port()
    with pytest.raises(AddressInUse, match=f"cannot listen on here:{port}: "):
        await listen("here", port)
    assert refused == [port]


async def test_a_listener_takes_all_addresses_of_its_host_on_one_port() -> None:
    listener = await listen("localhost", free_port())
    assert {address.rpartition(":")[2] for address in listener.addresses} == {str(listener.port)}
    assert len(listener.addresses) == len({family for family, *_ in socket.getaddrinfo("localhost", None)})
    listener.close()
