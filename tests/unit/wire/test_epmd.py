"""``wire/epmd.py``. The bytes marked "genuine" were exchanged with the epmd of OTP 25, 27 and 29."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from erlang_interop.errors import LocalProtocolError, RemoteProtocolError
from erlang_interop.wire.epmd import (
    Alive2Reply,
    Alive2Request,
    DumpRequest,
    KillRequest,
    NamesRequest,
    NodeEntry,
    NodeType,
    PortPlease2Reply,
    PortPlease2Request,
    ReplyReader,
    Request,
    RequestReader,
    StopRequest,
    TextReply,
    UnfitAlive2Request,
    encode_alive2_reply,
    encode_dump_reply,
    encode_names_reply,
    encode_port2_reply,
    encode_request,
)
from tests.parsing import check_parser, portions

if TYPE_CHECKING:
    from collections.abc import Callable

# Genuine: each was answered by epmd as below.
REQUESTS: list[tuple[Request, str]] = [
    (Alive2Request(4711, "py", extra=b"\x01\x02"), "00117812674800000600060002707900020102"),
    (Alive2Request(4713, "old", highest_version=5, lowest_version=5), "001078126948000005000500036f6c640000"),
    (PortPlease2Request("nobody"), "00077a6e6f626f6479"),
    (NamesRequest(), "00016e"),
    (DumpRequest(), "000164"),
    (KillRequest(), "00016b"),
    (StopRequest("py"), "0003737079"),
]
NAMES = "000038216e616d65206f6c6420617420706f727420343731330a6e616d6520707920617420706f727420343731310a"
PY = PortPlease2Reply(0, 4711, NodeType.HIDDEN, 0, 6, 6, "py", b"\x01\x02")


@pytest.mark.parametrize(("request_", "wire"), REQUESTS, ids=lambda value: str(value)[:30])
def test_requests_are_what_epmd_understands(request_: Request, wire: str) -> None:
    assert encode_request(request_).hex() == wire


@pytest.mark.parametrize(("request_", "wire"), REQUESTS, ids=lambda value: str(value)[:30])
def test_requests_are_read_in_any_portions(request_: Request, wire: str) -> None:
    check_parser(lambda: RequestReader().receive_data, bytes.fromhex(wire), [request_])


@pytest.mark.parametrize(("request_", "wire"), REQUESTS, ids=lambda value: str(value)[:30])
def test_a_connection_carries_one_request(request_: Request, wire: str) -> None:
    data = bytes.fromhex(wire)
    with pytest.raises(RemoteProtocolError, match="bytes behind the request"):
        RequestReader().receive_data(data + data)
    reader = RequestReader()
    assert reader.receive_data(data) == [request_]
    with pytest.raises(RemoteProtocolError, match="more than one request"):
        reader.receive_data(b"\0")


@pytest.mark.parametrize(
    ("body", "received"),
    [
        # genuine: all of these were answered as if only the first bytes had been there
        (b"n and more", NamesRequest()),
        (b"d\0", DumpRequest()),
        (b"k123", KillRequest()),
        (b"spy\0more", StopRequest("py")),
        (b"s\xff", StopRequest("\udcff")),
        (b"zpy\0", PortPlease2Request("py")),
        (b"z" + b"a" * 254, PortPlease2Request("a" * 254)),
        (bytes.fromhex("78126748000006000600027079000001"), Alive2Request(4711, "py")),
        (bytes.fromhex("7812674800000600060000000101"), Alive2Request(4711, "", extra=b"\x01")),
    ],
)
def test_what_epmd_is_lenient_about(body: bytes, received: Request) -> None:
    assert RequestReader().receive_data(len(body).to_bytes(2, "big") + body) == [received]


def alive2(name: bytes, extra: bytes = b"") -> bytes:
    """An ALIVE2_REQ that may be wrong."""
    head = bytes.fromhex("781267480000060006")
    body = b"".join((head, len(name).to_bytes(2, "big"), name, len(extra).to_bytes(2, "big"), extra))
    return len(body).to_bytes(2, "big") + body


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (alive2("ñ".encode() * 256), "a name of 256 characters"),
        (alive2(b"a" * 1021), "a name of 1021 bytes"),
        (alive2(b"py\xff"), r"the name b'py\xff', which is not UTF-8"),
        (alive2(b"py", bytes(1021)), "an extra field of 1021 bytes"),
    ],
)
def test_what_epmd_answers_to_and_does_not_take(data: bytes, why: str) -> None:
    assert RequestReader().receive_data(data) == [UnfitAlive2Request(6, why)]


@pytest.mark.parametrize("data", [alive2("ñ".encode() * 255), alive2("𝄞".encode() * 255), alive2(b"a", bytes(1020))])
def test_the_longest_that_epmd_takes(data: bytes) -> None:
    (request,) = RequestReader().receive_data(data)
    assert isinstance(request, Alive2Request)
    assert encode_request(request) == data


def receiver(request: Request) -> Callable[[], Callable[[bytes], list[Any]]]:
    """Make receive functions out of reply readers: a list of none or one reply."""

    def make() -> Callable[[bytes], list[Any]]:
        reader = ReplyReader(request)
        done = False

        def receive(data: bytes) -> list[Any]:
            nonlocal done
            reply = None if done else reader.receive_data(data)
            done = done or reply is not None
            return [] if reply is None else [reply]

        return receive

    return make


@pytest.mark.parametrize(
    ("request_", "wire", "reply"),
    [
        (Alive2Request(4711, "py"), "76006b00fd28", Alive2Reply(0, 0x6B00FD28)),  # genuine
        (Alive2Request(4712, "py"), "760100000063", Alive2Reply(1, 99)),  # genuine: the name is taken
        (Alive2Request(4713, "old"), "79000002", Alive2Reply(0, 2)),  # genuine: the answer to version 5
        (PortPlease2Request("py"), "770012674800000600060002707900020102", PY),  # genuine
        (PortPlease2Request("nobody"), "7701", PortPlease2Reply(1)),  # genuine
    ],
)
def test_fixed_replies(request_: Request, wire: str, reply: Any) -> None:
    check_parser(receiver(request_), bytes.fromhex(wire), [reply])
    # bytes behind a reply are nobody's
    assert ReplyReader(request_).receive_data(bytes.fromhex(wire) + b"more") == reply


def test_replies_are_encoded_as_epmd_does() -> None:
    assert encode_alive2_reply(Alive2Reply(0, 0x6B00FD28)).hex() == "76006b00fd28"
    assert encode_alive2_reply(Alive2Reply(1, 99)).hex() == "760100000063"
    assert encode_alive2_reply(Alive2Reply(0, 2), highest_version=5).hex() == "79000002"
    assert encode_port2_reply(PY).hex() == "770012674800000600060002707900020102"
    assert encode_port2_reply(PortPlease2Reply(1)).hex() == "7701"
    assert encode_names_reply(14369, [NodeEntry("old", 4713), NodeEntry("py", 4711)]).hex() == NAMES
    assert encode_dump_reply(4369, [NodeEntry("py", 1)], [NodeEntry("old", 2)]) == (
        b"\0\0\x11\x11active name     <py> at port 1, fd = -1\n\0old/unused name <old>, port = 2, fd = -1 \n\0"
    )


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_names_end_with_the_connection(size: int) -> None:
    reader = ReplyReader(NamesRequest())
    for portion in portions(bytes.fromhex(NAMES), size):
        assert reader.receive_data(portion) is None
    reply = reader.receive_eof()
    assert isinstance(reply, TextReply)
    assert reply.epmd_port == 14369
    assert reply.names == [NodeEntry("old", 4713), NodeEntry("py", 4711)]


def test_lines_that_are_no_names_are_passed_over() -> None:
    text = "name a at port 1\nname b at port x\n\nnonsense\nname c at port 2 \nname d at port 3\nname e\x0bf at port 4"
    assert TextReply(4369, text).names == [NodeEntry("a", 1), NodeEntry("d", 3), NodeEntry("e\x0bf", 4)]


@pytest.mark.parametrize(("data", "text"), [(b"OK", "OK"), (b"NO", "NO"), (b"", "")])
def test_kill_is_answered_by_words(data: bytes, text: str) -> None:
    reader = ReplyReader(KillRequest())
    assert reader.receive_data(data) is None
    assert reader.receive_eof() == TextReply(0, text)


@pytest.mark.parametrize(
    ("request_", "data"),
    [
        (Alive2Request(1, "a"), b""),
        (Alive2Request(1, "a"), b"\x76\x00\x01"),
        (PortPlease2Request("a"), b"\x77\x00\x12\x67"),
        (NamesRequest(), b"\x00\x00\x11"),
    ],
)
def test_a_reply_cut_short_is_an_error(request_: Request, data: bytes) -> None:
    reader = ReplyReader(request_)
    assert reader.receive_data(data) is None
    with pytest.raises(RemoteProtocolError, match="EPMD"):
        reader.receive_eof()


@pytest.mark.parametrize("request_", [Alive2Request(1, "a"), PortPlease2Request("a")])
def test_another_server_on_the_port(request_: Request) -> None:
    with pytest.raises(RemoteProtocolError, match="really EPMD's") as caught:
        ReplyReader(request_).receive_data(b"SSH-2.0-OpenSSH_9.2\r\n")
    assert caught.value.offset == 0


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"\x00\x00", "without a tag"),
        (b"\x00\x01\x05", "unknown request 5"),
        (b"GET / HTTP/1.1\r\n", "a request of 18245 bytes; 3057 are the most"),
        (b"\x0b\xf2n" + bytes(3057), "a request of 3058 bytes"),
        (b"\x00\x01s", "name of 0 bytes"),
        (b"\x00\x02z\x00", "name of 0 bytes"),
        (b"\x00\x04za\x00b", "zero byte in the name"),
        (alive2(b"a\0b"), "zero byte in the name"),
        (alive2(b""), "name of 0 bytes"),
        (b"\x01\x00z" + b"a" * 255, "name of 255 characters"),
        (b"\x00\x01z", "name of 0 bytes"),
        (b"\x00\x02z\xff", "not UTF-8"),
        (b"\x00\x05x\x12\x67\x48\x00", "fields missing"),
        (bytes.fromhex("000a78126748000006000600"), "length is missing"),
        (bytes.fromhex("000d78126748000006000600037079"), "cut short"),
        (bytes.fromhex("000d78126748000006000600027079"), "length is missing"),
        (bytes.fromhex("000f781267480000060006000270790003"), "cut short"),
    ],
)
def test_malformed_requests(data: bytes, match: str) -> None:
    with pytest.raises(RemoteProtocolError, match=match) as caught:
        RequestReader().receive_data(data)
    assert caught.value.rule == "EPMD Protocol"
    assert caught.value.offset is not None


def test_names_beyond_ascii_and_a_long_extra_field() -> None:
    request = Alive2Request(1, "blå_ñ", extra=bytes(1020))
    assert RequestReader().receive_data(encode_request(request)) == [request]
    reply = PortPlease2Reply(0, 1, name="blå_ñ", extra=bytes(65535))
    check = ReplyReader(PortPlease2Request("blå_ñ"))
    got = [check.receive_data(portion) for portion in portions(encode_port2_reply(reply), 10000)]
    assert got[-1] == reply
    assert set(got[:-1]) == {None}


@pytest.mark.parametrize(
    "request_",
    [
        Alive2Request(65536, "a"),
        Alive2Request(1, ""),
        Alive2Request(1, "a" * 256),
        Alive2Request(1, "\ud800"),
        Alive2Request(1, "a", extra=bytes(1021)),
    ],
)
def test_what_does_not_fit_is_refused(request_: Alive2Request) -> None:
    with pytest.raises(LocalProtocolError):
        encode_request(request_)
