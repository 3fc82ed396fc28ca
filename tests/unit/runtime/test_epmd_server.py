import contextlib
import logging

import pytest
import trio

from erlang_interop.runtime import EpmdServer
from erlang_interop.runtime.transport import open_stream
from erlang_interop.wire.epmd import (
    Alive2Reply,
    Alive2Request,
    DumpRequest,
    KillRequest,
    NamesRequest,
    PortPlease2Reply,
    PortPlease2Request,
    Reply,
    ReplyReader,
    Request,
    StopRequest,
    TextReply,
    encode_request,
)


@pytest.fixture
async def port(nursery: trio.Nursery) -> int:
    listening: int = await nursery.start(EpmdServer().serve)
    return listening


async def ask(port: int, request: Request) -> Reply:
    stream = await open_stream("127.0.0.1", port)
    reader = ReplyReader(request)
    await stream.send_all(encode_request(request))
    try:
        with trio.fail_after(5):
            while data := await stream.receive_some():
                reply = reader.receive_data(data)
                if reply is not None:
                    return reply
        return reader.receive_eof()
    finally:
        stream.close()


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
    for request in (KillRequest(), StopRequest("one")):
        refused = await ask(port, request)
        assert isinstance(refused, TextReply)
        assert refused.text in ("NO", "NOEXIST")
    assert await ask(port, NamesRequest()) == names, "nobody may take it down"
    stream.close()


async def test_the_old_reply_for_old_nodes(port: int) -> None:
    stream = await open_stream("127.0.0.1", port)
    await stream.send_all(encode_request(Alive2Request(4711, "old", highest_version=5, lowest_version=5)))
    assert (await stream.receive_some())[0] == 121
    stream.close()


@pytest.mark.parametrize("junk", [b"\0\1\xff", b"\0\0", b"GET / HTTP/1.1\r\n\r\n" + bytes(20000), b"\0\3x\0\0"])
async def test_junk_costs_its_sender_the_connection_and_nobody_else(
    port: int, junk: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        stream = await open_stream("127.0.0.1", port)
        await stream.send_all(junk)
        with trio.fail_after(5):
            with contextlib.suppress(ConnectionResetError):
                assert await stream.receive_some() == b""
        stream.close()
        assert await ask(port, NamesRequest()) == TextReply(port, "")
    assert [record for record in caplog.records if "EPMD: closing" in record.getMessage()]
