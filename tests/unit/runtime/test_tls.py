"""``runtime/tls.py``: streams and transports against each other, on the loopback address."""

from __future__ import annotations

import logging
import random
import socket
import ssl
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from erlang_interop.errors import TlsError, TlsOptionsError
from erlang_interop.flags import OFFERED
from erlang_interop.runtime import tls
from erlang_interop.runtime.tls import TlsTransport
from erlang_interop.runtime.transport import Stream, Transport
from erlang_interop.wire.handshake import Acceptor, Initiator, Verdict
from tests.certificates import HOST, Authority, options
from tests.secured import NODE, attempt, pair

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.mark.parametrize("version", ["tlsv1.2", "tlsv1.3"])
async def test_bytes_go_both_ways(authority: Authority, version: str) -> None:
    async with pair(options(authority, authority.issue(), versions=(version,))) as (client, server):
        assert client.version == server.version == version.replace("tls", "TLS")
        await client.send_all(b"to the server")
        assert await server.receive_some() == b"to the server"
        await server.send_all(b"and back")
        assert await client.receive_some() == b"and back"


async def test_what_is_not_taken_is_offered_again_and_comes_once(authority: Authority) -> None:
    """More than the sockets take, both ways at once, in pieces of every size, through buffers of every size."""
    chance = random.Random(7)
    data = chance.randbytes(12_000_000)

    async def send(stream: Stream) -> None:
        refused = 0
        rest = memoryview(data)
        while len(rest):
            piece = rest[: chance.choice((1, 100, 16_384, 65_536, 200_000, 5_000_000))]
            while len(piece):
                taken = stream.send_nowait(piece)
                piece, rest = piece[taken:], rest[taken:]
                if len(piece):
                    refused += 1
                    await stream.wait_writable()
        assert refused > 20, "the socket took everything: nothing was shown"

    async def receive(stream: Stream) -> None:
        received = bytearray()
        buffers = [memoryview(bytearray(size)) for size in (1, 65_536, 7, 4096, 300_000)]
        while len(received) < len(data):
            await stream.wait_readable()
            for buffer in buffers:
                size = stream.receive_nowait(buffer)
                if not size:
                    assert size is None
                    break
                received += buffer[:size]
        assert received == data

    async with pair(authority.options()) as (client, server), trio.open_nursery() as nursery:
        for stream in (client, server):
            for buffer in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                stream._socket.setsockopt(socket.SOL_SOCKET, buffer, 1 << 16)
            nursery.start_soon(send, stream)
            nursery.start_soon(receive, stream)


async def test_one_read_takes_many_records(authority: Authority) -> None:
    async with pair(authority.options()) as (client, server):
        for number in range(100):
            client._tls.write(b"%3d" % number)
        client._socket.send(client._outgoing.read())
        buffer = memoryview(bytearray(65_536))
        with trio.fail_after(30):
            await server.wait_readable()
        assert server.receive_nowait(buffer) == 300
        assert bytes(buffer[:300]) == b"".join(b"%3d" % number for number in range(100))


async def test_nothing_waits_for_the_socket_while_something_is_here(authority: Authority) -> None:
    async with pair(authority.options()) as (client, server):
        await client.send_all(bytes(1000))
        one = memoryview(bytearray(1))
        for _ in range(1000):
            with trio.fail_after(30):
                await server.wait_readable()  # the socket itself was emptied by the first of them
            assert server.receive_nowait(one) == 1
        assert server.receive_nowait(one) is None


async def test_half_a_record_is_nothing_yet(authority: Authority) -> None:
    async with pair(authority.options()) as (client, server):
        client._tls.write(b"in two parts")
        record = client._outgoing.read()
        client._socket.send(record[:10])
        await server.wait_readable()
        buffer = memoryview(bytearray(100))
        assert server.receive_nowait(buffer) is None
        client._socket.send(record[10:])
        assert await server.receive_some() == b"in two parts"


@pytest.mark.parametrize("goodbye", [True, False], ids=["close_notify", "without"])
async def test_the_end_of_the_stream(authority: Authority, goodbye: bool) -> None:
    async with pair(authority.options()) as (client, server):
        await client.send_all(b"last words")
        if goodbye:
            client.abort()
            assert await client.receive_some() == b""
            client.abort()
        else:
            client.close()
        assert await server.receive_some() == b"last words"
        assert await server.receive_some() == b""
        assert await server.receive_some() == b""


async def test_abort_with_bytes_that_were_not_taken(authority: Authority) -> None:
    """No goodbye in the middle of a record; the reader wakes up all the same."""
    async with pair(authority.options()) as (client, server):
        while client.send_nowait(memoryview(bytes(1 << 20))):
            pass
        with trio.fail_after(30):
            client.abort()
            assert await client.receive_some() == b""
            while await server.receive_some(1 << 16):
                pass


async def test_a_record_that_was_changed_ends_the_connection(authority: Authority) -> None:
    async with pair(authority.options()) as (client, server):
        client._tls.write(b"secret")
        record = bytearray(client._outgoing.read())
        record[-1] ^= 1
        client._socket.send(record)
        await server.wait_readable()
        with pytest.raises(ssl.SSLError, match=r"(?i)bad.record.mac"):
            server.receive_nowait(memoryview(bytearray(100)))
        with pytest.raises(TlsError, match=r"broke off the TLS handshake \(alert bad_record_mac\)"):
            await client.receive_some()


# ---------------------------------------------------------------------------------------------- who speaks no TLS


async def secured(authority: Authority, data: bytes, *, ending: bool = False) -> Exception:
    """The error for a connection on which ``data`` comes."""
    transport = TlsTransport(authority.options())
    listener = socket.create_server((HOST, 0))
    theirs = socket.create_connection(listener.getsockname())
    accepted, _ = listener.accept()
    listener.close()
    theirs.sendall(data)
    if ending:
        theirs.shutdown(socket.SHUT_WR)
    try:
        with trio.fail_after(30), pytest.raises(TlsError) as caught:
            await transport.secure(Stream(accepted))
    finally:
        theirs.close()
    return caught.value


async def test_a_plain_node_dials_a_tls_port(authority: Authority) -> None:
    plain = Initiator("plain@127.0.0.1", NODE, OFFERED, 5, "secret", 1).data_to_send()
    for message in (plain, b"\x00\x16n\x00\x05\x00\x03\x7f\xbdplain@127.0.0.1"):
        assert str(await secured(authority, message)) == (
            "plain@127.0.0.1 dials without TLS, and this node speaks TLS alone: start plain@127.0.0.1 with -proto_dist "
            "inet_tls and its certificates, or open this node without tls="
        )


async def test_something_else_dials_a_tls_port(authority: Authority) -> None:
    assert str(await secured(authority, b"GET / HTTP/1.1\r\n\r\n")).startswith(
        "it sent b'GET / HTTP/1.1\\r\\n', which is no"
    )
    assert str(await secured(authority, b"\x00\x40N\xff\xff\xff\xff\xff\xff\xff\xff" + bytes(20))).startswith(
        "it sent b"
    )
    assert "unexpected message" in str(await secured(authority, b"\x16\x03\x01\x00\x05\x00\x00\x00\x01\xff"))
    for beginning in (b"", b"\x16", b"\x16\x03\x01\x00\x99"):
        assert "hung up in the TLS handshake" in str(await secured(authority, beginning, ending=True))


def hello(authority: Authority) -> bytes:
    """The first message of a TLS handshake."""
    arrived, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = authority.options().client.context().wrap_bio(arrived, sent, server_hostname=HOST)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return sent.read()


async def test_wrong_bytes_raise_nothing_else(authority: Authority) -> None:
    """Random ones, random ones that look like records, and a genuine greeting with wrong bytes in it."""
    chance, genuine = random.Random(11), hello(authority)
    for number in range(300):
        match number % 3:
            case 0:
                data = chance.randbytes(chance.randrange(200))
            case 1:
                body = chance.randbytes(chance.randrange(1, 100))
                tag, length = chance.choice((20, 21, 22, 23)), len(body) + chance.choice((0, 0, -1, 5))
                data = bytes((tag, 3, chance.randrange(5))) + length.to_bytes(2, "big") + body
            case _:
                changed = bytearray(genuine)
                for _ in range(chance.randrange(1, 4)):
                    changed[chance.randrange(len(changed))] = chance.randrange(256)
                data = bytes(changed)
        await secured(authority, data, ending=True)  # a TlsError, or the test fails


async def test_a_greeting_in_single_bytes(authority: Authority) -> None:
    transport = TlsTransport(authority.options())
    listener = socket.create_server((HOST, 0))
    theirs = socket.create_connection(listener.getsockname())
    accepted, _ = listener.accept()
    listener.close()
    theirs.setblocking(False)
    hung_up = False

    async def secure() -> None:
        nonlocal hung_up
        with pytest.raises(TlsError, match="hung up"):
            await transport.secure(Stream(accepted))
        hung_up = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(secure)
        for byte in hello(authority):
            theirs.send(bytes((byte,)))
            await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(30):
            await trio.lowlevel.wait_readable(theirs)
        assert theirs.recv(5)[:2] == b"\x16\x03"  # it has understood
        theirs.shutdown(socket.SHUT_WR)
    theirs.close()
    assert hung_up


async def test_a_tls_node_dials_a_plain_node(authority: Authority) -> None:
    """The one that is dialled knows at the first bytes, and the other hears of it."""

    class Plain(Transport):
        async def secure(self, stream: Stream) -> Stream:
            acceptor = Acceptor("plain@127.0.0.1", OFFERED, 5, "secret", 1)
            acceptor.receive_data(await stream.receive_some())
            return stream

    client, server = await attempt(TlsTransport(authority.options()), Plain())
    assert isinstance(server, TlsError)
    assert "it speaks TLS (-proto_dist inet_tls) and this node does not" in str(server)
    assert isinstance(client, TlsError)
    assert "speak TLS (-proto_dist inet_tls)" in str(client)


async def test_what_answers_a_dial_is_no_tls(authority: Authority) -> None:
    class Talker(Transport):
        async def secure(self, stream: Stream) -> Stream:
            await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n")
            return stream

    client, server = await attempt(TlsTransport(authority.options()), Talker())
    assert (
        str(client) == f"{NODE} does not speak TLS: start it with -proto_dist inet_tls, or open this node without tls="
    )
    assert isinstance(server, Stream)
    server.close()


async def test_a_host_that_no_certificate_can_name(authority: Authority) -> None:
    client, _ = await attempt(TlsTransport(authority.options()), TlsTransport(authority.options()), "n@" + "x" * 70)
    assert isinstance(client, TlsError)
    assert "is no host name that a certificate can have" in str(client)


async def test_the_length_of_handshake_messages_is_that_of_packet_4(authority: Authority) -> None:
    transport = TlsTransport(authority.options())
    assert (transport.length_bytes, Transport().length_bytes) == (4, 2)
    assert Verdict.OK  # the words are the same


# ------------------------------------------------------------------------------------------------- certificates


@pytest.mark.parametrize(
    ("issued", "good", "bad"),
    [
        ((HOST,), ["a@127.0.0.1"], ["a@127.0.0.2", "a@localhost", "a@::1"]),
        (("one.example", "::1"), ["a@one.example", "a@ONE.example", "a@::1"], ["a@two.example", "a@example"]),
        (("*.one.example",), ["a@a.one.example"], ["a@one.example", "a@b.a.one.example", "a@a.two.example"]),
        (("*.example",), [], ["a@one.example", "a@example"]),
    ],
)
async def test_what_a_certificate_vouches_for(
    authority: Authority, issued: tuple[str, ...], good: list[str], bad: list[str]
) -> None:
    async with pair(authority.options(*issued), authority.options()) as (_, accepted):
        assert [name for name in good + bad if accepted.vouches_for(name)] == good


async def test_a_certificate_without_alternative_names_vouches_for_its_common_name() -> None:
    certificate = {"subject": ((("organizationName", "x"),), (("commonName", "one.example"),))}
    assert tls._is_for(certificate, "one.example")
    assert not tls._is_for(certificate, "two.example")
    assert not tls._is_for(certificate | {"subjectAltName": (("DNS", "two.example"),)}, "one.example")


async def test_renewed_certificates_are_taken_with_the_next_connection(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    certificate = authority.issue("old.example")
    client, server = TlsTransport(authority.options()), TlsTransport(options(authority, certificate))

    async def host_is(host: str) -> bool:
        one, other = await attempt(client, server, f"n@{host}")
        for stream in (one, other):
            if isinstance(stream, Stream):
                stream.close()
        return isinstance(one, Stream)

    assert await host_is("old.example")
    assert not await host_is("new.example")
    authority.issue("new.example").replace(certificate)
    assert await host_is("new.example")
    assert "the certificates of the server side were read again" in caplog.text
    certificate.write_text("no certificate")
    assert await host_is("new.example")
    assert await host_is("new.example")
    certificate.unlink()
    assert await host_is("new.example")
    complaints = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(complaints) == 2, "once for each change, not for each connection"
    assert all(line.endswith("what was read before stays in use") for line in complaints)


async def test_files_that_cannot_be_used_are_found_at_the_start(authority: Authority, tmp_path: Path) -> None:
    with pytest.raises(
        TlsOptionsError, match=r"TLS options of the server: certfile '.*gone.pem' cannot be read: No such"
    ):
        TlsTransport(options(authority, tmp_path / "gone.pem"))
