"""The server on sockets; tests/interop/test_epmd_server.py has genuine programs as its clients."""

from __future__ import annotations

import contextlib
import logging
import resource
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from erlang_interop.errors import AddressInUse, EpmdError
from erlang_interop.runtime import EpmdAddress, EpmdServer
from erlang_interop.runtime import epmd as client
from erlang_interop.runtime.epmd_server import epmd_hosts
from erlang_interop.runtime.transport import Stream, open_stream
from erlang_interop.testing.ports import free_port
from erlang_interop.wire.epmd import (
    Alive2Reply,
    Alive2Request,
    DumpRequest,
    KillRequest,
    NamesRequest,
    NodeEntry,
    PortPlease2Reply,
    PortPlease2Request,
    Reply,
    ReplyReader,
    Request,
    StopRequest,
    TextReply,
    encode_request,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture
async def port(nursery: trio.Nursery) -> int:
    listening: int = await nursery.start(EpmdServer(relaxed=False).serve)
    return listening


async def ask(port: int, request: Request) -> Reply:
    stream = await open_stream("127.0.0.1", port)
    reader = ReplyReader(request)
    await stream.send_all(encode_request(request))
    try:
        with trio.fail_after(30):
            while data := await stream.receive_some():
                reply = reader.receive_data(data)
                if reply is not None:
                    return reply
        return reader.receive_eof()
    finally:
        stream.close()


async def until_ended(stream: Stream) -> bytes:
    """What comes until the server closes the connection, in whichever way."""
    received = b""
    with trio.fail_after(30), contextlib.suppress(ConnectionResetError):
        while data := await stream.receive_some():
            received += data
    return received


@asynccontextmanager
async def registered(port: int, name: str) -> AsyncIterator[Stream]:
    registration = await client.register(EpmdAddress(port=port), name, 4711, visible=True)
    yield registration.stream
    registration.stream.close()


async def test_every_request_has_its_answer(port: int) -> None:
    stream = await open_stream("127.0.0.1", port)
    await stream.send_all(encode_request(Alive2Request(4711, "one", extra=b"more")))
    reply = ReplyReader(Alive2Request(4711, "one")).receive_data(await stream.receive_some())
    assert isinstance(reply, Alive2Reply)
    assert reply.result == 0
    found = await ask(port, PortPlease2Request("one"))
    assert isinstance(found, PortPlease2Reply)
    assert (found.result, found.port, found.name, found.extra) == (0, 4711, "one", b"more")
    unknown = await ask(port, PortPlease2Request("two"))
    assert isinstance(unknown, PortPlease2Reply)
    assert unknown.result == 1
    names = await ask(port, NamesRequest())
    assert names == TextReply(port, "name one at port 4711\n")
    dump = await ask(port, DumpRequest())
    assert isinstance(dump, TextReply)
    assert "<one> at port 4711" in dump.text
    assert await ask(port, KillRequest()) == TextReply(0, "NO")
    assert await ask(port, StopRequest("one")) == TextReply(0, "")
    assert await ask(port, NamesRequest()) == names, "nobody may take it down"
    stream.close()


async def test_the_old_reply_for_old_nodes(port: int) -> None:
    stream = await open_stream("127.0.0.1", port)
    await stream.send_all(encode_request(Alive2Request(4711, "old", highest_version=5, lowest_version=5)))
    assert (await stream.receive_some())[0] == 121
    stream.close()


async def test_kill_ends_it(nursery: trio.Nursery, caplog: pytest.LogCaptureFixture) -> None:
    ended = trio.Event()

    async def serve(task_status: trio.TaskStatus[int]) -> None:
        await EpmdServer(relaxed=False).serve(task_status=task_status)
        ended.set()

    port: int = await nursery.start(serve)
    async with registered(port, "one"):
        assert await ask(port, KillRequest()) == TextReply(0, "NO")
    with trio.fail_after(30):
        while await ask(port, KillRequest()) != TextReply(0, "OK"):
            await trio.lowlevel.checkpoint()
        await ended.wait()
    assert f"EPMD: told to end; it serves no more on 127.0.0.1:{port}" in caplog.text
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port)).close()


async def test_what_a_relaxed_one_permits(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ERL_EPMD_RELAXED_COMMAND_CHECK", "")
    port: int = await nursery.start(EpmdServer().serve)
    async with registered(port, "one") as one, registered(port, "two") as two:
        assert await ask(port, StopRequest("three")) == TextReply(0, "NOEXISTSTOPPED")
        assert await ask(port, StopRequest("one")) == TextReply(0, "STOPPED")
        assert await until_ended(one) == b""
        assert await ask(port, NamesRequest()) == TextReply(port, "name two at port 4711\n")
        assert "EPMD: one is forgotten, as 127.0.0.1:" in caplog.text
        assert await ask(port, KillRequest()) == TextReply(0, "OK")
        assert await until_ended(two) == b""


JUNK = [
    (b"\0\1\xff", "unknown request 255"),
    (b"\0\0", "without a tag"),
    (b"GET / HTTP/1.1\r\n\r\n" + bytes(20000), "18245 bytes"),
    (b"\0\3x\0\0", "fields missing"),
    (b"\0\1n\0", "bytes behind"),
]


@pytest.mark.parametrize(("junk", "why"), JUNK)
async def test_junk_costs_its_sender_the_connection_and_nobody_else(
    port: int, junk: bytes, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with registered(port, "one"):
        stream = await open_stream("127.0.0.1", port)
        own = stream._socket.getsockname()
        await stream.send_all(junk)
        assert await until_ended(stream) == b""
        stream.close()
        assert await ask(port, NamesRequest()) == TextReply(port, "name one at port 4711\n")
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert line.startswith(f"EPMD: closing 127.0.0.1:{own[1]}: ")
    assert why in line


async def test_a_request_cut_short_is_logged_and_an_idle_connection_is_not(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    for data in (b"", b"\0", b"\0\5zo"):
        stream = await open_stream("127.0.0.1", port)
        await stream.send_all(data)
        stream.end()
        assert await until_ended(stream) == b""
        stream.close()
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) == 2
    assert all("the connection ended within a request" in line for line in lines)


async def test_a_node_that_says_more_is_forgotten(port: int, caplog: pytest.LogCaptureFixture) -> None:
    async with registered(port, "one") as stream:
        await stream.send_all(b"x")
        assert await until_ended(stream) == b""
        assert await ask(port, NamesRequest()) == TextReply(port, "")
    assert "bytes behind the request that registered 'one', which is forgotten" in caplog.text


async def test_who_never_finishes_is_closed(
    port: int, mock_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Slow loris: one byte now and then, for ever."""
    async with registered(port, "one") as held:
        slow, mute = await open_stream("127.0.0.1", port), await open_stream("127.0.0.1", port)
        await slow.send_all(b"\0\x64z")
        names = await ask(port, NamesRequest())  # the server has accepted those before it
        with contextlib.suppress(OSError):
            for _ in range(6):
                mock_clock.jump(10)
                await slow.send_all(b"o")
        assert await until_ended(mute) == b""
        assert await until_ended(slow) == b""
        mock_clock.jump(500)
        assert await ask(port, NamesRequest()) == names, "who has registered may be silent for ever"
        assert held.receive_nowait(memoryview(bytearray(1))) is None
        slow.close()
        mute.close()
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len([line for line in lines if "did not finish its request within 60 s" in line]) == 2


@pytest.fixture
def many_files() -> Iterator[None]:
    """Each connection has both of its ends in this process; 1024 files are the usual limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.slow
@pytest.mark.usefixtures("many_files")
async def test_a_thousand_connections_at_once(port: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    async with registered(port, "one"):
        mute = [await open_stream("127.0.0.1", port) for _ in range(1000)]
        try:
            with trio.fail_after(30):
                assert await ask(port, NamesRequest()) == TextReply(port, "name one at port 4711\n")
                async with registered(port, "two"), trio.open_nursery() as nursery:
                    for _ in range(200):
                        nursery.start_soon(expect_port, port, "two", 4711)
        finally:
            for stream in mute:
                stream.close()
        assert await client.names(EpmdAddress(port=port)) == [NodeEntry("one", 4711)]


async def expect_port(port: int, name: str, expected: int) -> None:
    assert await client.look_up("127.0.0.1", port, name) == expected


# ---------------------------------------------------------------------------------------------------- where it listens


@pytest.mark.parametrize(
    ("variable", "given", "hosts"),
    [
        ("", [], ["127.0.0.1", "::1"]),
        ("192.0.2.1,192.0.2.2", [], ["127.0.0.1", "::1", "192.0.2.1", "192.0.2.2"]),
        (" 192.0.2.1 , ", [], ["127.0.0.1", "::1", "192.0.2.1"]),
        ("127.0.0.1", [], ["127.0.0.1", "::1"]),
        ("192.0.2.1", ["2001:db8::1"], ["127.0.0.1", "::1", "2001:db8::1"]),
        ("0.0.0.0", [], ["::1", "0.0.0.0"]),
        ("::,0.0.0.0", [], ["::", "0.0.0.0"]),
    ],
)
def test_the_addresses_an_epmd_listens_on(
    monkeypatch: pytest.MonkeyPatch, variable: str, given: list[str], hosts: list[str]
) -> None:
    monkeypatch.setenv("ERL_EPMD_ADDRESS", variable)
    assert epmd_hosts(given) == hosts


def test_an_address_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERL_EPMD_ADDRESS", "localhost")
    with pytest.raises(EpmdError, match="ERL_EPMD_ADDRESS is 'localhost'; it must be an IP address"):
        epmd_hosts()
    with pytest.raises(EpmdError, match="an address to listen on is 'x'"):
        epmd_hosts(["x"])


async def test_it_listens_where_it_is_told_and_nowhere_else(nursery: trio.Nursery) -> None:
    server = EpmdServer()
    port = free_port()
    await nursery.start(server.serve, ["127.0.0.1", "::1", "127.0.0.2"], port)
    assert {"127.0.0.1", "127.0.0.2"} <= {address.rpartition(":")[0] for address in server.addresses}
    for host in ("127.0.0.1", "127.0.0.2"):
        assert await client.names(EpmdAddress(host, port)) == []
    with pytest.raises(EpmdError, match="no EPMD answers"):
        await client.names(EpmdAddress("127.0.0.3", port))


async def test_a_port_that_is_taken(nursery: trio.Nursery) -> None:
    port = free_port()
    await nursery.start(EpmdServer().serve, "127.0.0.2", port)
    with pytest.raises(AddressInUse):
        await EpmdServer().serve(["127.0.0.1", "127.0.0.2"], port)
    assert await nursery.start(EpmdServer().serve, "127.0.0.1", port) == port, "nothing of the first attempt is left"


async def test_loopback_peers_are_local() -> None:
    for source, target in (("127.0.0.1", "127.0.0.1"), ("127.0.0.3", "127.0.0.2")):
        with socket.create_server((target, 0)) as server:
            with socket.create_connection(server.getsockname(), source_address=(source, 0)):
                accepted = Stream(server.accept()[0])
                assert accepted.is_local
                accepted.close()
                assert not accepted.is_local, "who is gone is a stranger"
