"""``wire/handshake.py``: the two roles against each other, against genuine bytes, and against nonsense."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest

from erlang_interop.errors import (
    CookieMismatch,
    HandshakeError,
    LocalProtocolError,
    MissingFlags,
    NotAllowed,
    RemoteProtocolError,
    Superseded,
    TlsError,
)
from erlang_interop.flags import MANDATORY, MANDATORY_25, OFFERED, DFlag
from erlang_interop.wire.handshake import (
    Acceptor,
    AliveConfirmed,
    Established,
    Event,
    Initiator,
    NameGiven,
    NameReceived,
    State,
    StatusReceived,
    Verdict,
    digest,
)
from tests.parsing import portions

if TYPE_CHECKING:
    from collections.abc import Callable

A, B = "a@127.0.0.1", "b@127.0.0.1"
A_CREATION, B_CREATION = 0xAAAA0001, 0xBBBB0002
A_FLAGS, B_FLAGS = OFFERED, OFFERED | DFlag.PUBLISHED | DFlag.SPAWN


def initiator(cookie: str = "secret", flags: DFlag = A_FLAGS, peer: str = B) -> Initiator:
    return Initiator(A, peer, flags, A_CREATION, cookie, 0x11111111)


def acceptor(cookie: str | Callable[[str], str] = "secret", flags: DFlag = B_FLAGS) -> Acceptor:
    return Acceptor(B, flags, B_CREATION, cookie, 0x22222222)


def shake(a: Initiator, b: Acceptor, verdict: Verdict = Verdict.OK, size: int = 1 << 20) -> list[Event]:
    """Let the two talk, in portions of ``size`` bytes, until nobody has anything to say. Return all events in order."""
    events: list[Event] = []
    while True:
        to_b = a.data_to_send()
        for portion in portions(to_b, size):
            got = b.receive_data(portion)
            if any(isinstance(event, NameReceived) for event in got):
                b.accept(verdict)
            events += got
        to_a = b.data_to_send()
        for portion in portions(to_a, size):
            got = a.receive_data(portion)
            if StatusReceived(Verdict.ALIVE) in got:
                a.answer_alive(True)
            events += got
        if not to_a and not to_b:
            return events


@pytest.mark.parametrize("size", [1, 3, 1 << 20])
@pytest.mark.parametrize("verdict", [Verdict.OK, Verdict.OK_SIMULTANEOUS, Verdict.ALIVE])
def test_back_to_back(verdict: Verdict, size: int) -> None:
    a, b = initiator(), acceptor()
    agreed = OFFERED
    alive: list[Event] = [AliveConfirmed(A)] if verdict is Verdict.ALIVE else []
    assert shake(a, b, verdict, size) == [
        NameReceived(A, A_FLAGS, A_CREATION),
        StatusReceived(verdict),
        *alive,
        Established(A, A_FLAGS, agreed, A_CREATION, b""),
        Established(B, B_FLAGS, agreed, B_CREATION, b""),
    ]
    assert a.state is b.state is State.ESTABLISHED


@pytest.mark.parametrize("size", [1, 3, 1 << 20])
def test_over_tls_lengths_have_four_bytes(size: int) -> None:
    a = Initiator(A, B, A_FLAGS, A_CREATION, "secret", 1, length_bytes=4)
    b = Acceptor(B, B_FLAGS, B_CREATION, "secret", 2, length_bytes=4)
    sent = a.data_to_send()
    assert sent[:5] == len(sent[4:]).to_bytes(4, "big") + b"N"
    events: list[Event] = []
    for portion in portions(sent, size):
        events = b.receive_data(portion)
    assert events == [NameReceived(A, A_FLAGS, A_CREATION)]
    b.accept(Verdict.OK)
    assert isinstance(shake(a, b, size=size)[-1], Established)
    assert a.state is b.state is State.ESTABLISHED


@pytest.mark.parametrize(
    "record", [b"\x16\x03\x01\x02\x00\x01", b"\x15\x03\x03\x00\x02\x02\x28"], ids=["hello", "alert"]
)
@pytest.mark.parametrize("make", [initiator, acceptor], ids=["initiator", "acceptor"])
def test_tls_where_there_should_be_none_is_named_at_once(make: Callable[[], Any], record: bytes) -> None:
    with pytest.raises(
        TlsError, match=r"speaks TLS \(-proto_dist inet_tls\) and this node does not: open this one with"
    ):
        make().receive_data(record)


@pytest.mark.parametrize(("length_bytes", "data"), [(2, b"GE"), (4, b"\x00\x00\x10\x01"), (4, b"\x16\x03\x01\x02")])
def test_a_message_that_is_too_long_is_not_waited_for(length_bytes: int, data: bytes) -> None:
    b = Acceptor(B, B_FLAGS, B_CREATION, "secret", 2, length_bytes)
    length = int.from_bytes(data, "big")
    with pytest.raises(RemoteProtocolError, match=rf"^a message of {length} bytes is none of a handshake") as caught:
        b.receive_data(data)
    assert not isinstance(caught.value, TlsError)
    assert b.state is State.FAILED


def test_the_messages_byte_by_byte() -> None:
    """As erl_dist_protocol draws them; the numbers are written out here, not computed by the module."""
    a, b = initiator(flags=DFlag(0x0000_0004_0703_7FBD)), acceptor(flags=DFlag(0x0000_0004_0703_7FBD))
    assert a.data_to_send().hex() == "001a4e" + "0000000407037fbd" + "aaaa0001" + "000b" + A.encode().hex()
    b.receive_data(bytes.fromhex("001a4e" + "0000000407037fbd" + "aaaa0001" + "000b" + A.encode().hex()))
    b.accept(Verdict.OK)
    challenge = "001e4e" + "0000000407037fbd" + "22222222" + "bbbb0002" + "000b" + B.encode().hex()
    assert b.data_to_send().hex() == "0003736f6b" + challenge
    a.receive_data(bytes.fromhex("0003736f6b" + challenge))
    proof = hashlib.md5(b"secret" + str(0x22222222).encode()).hexdigest()
    assert a.data_to_send().hex() == "001572" + "11111111" + proof
    b.receive_data(bytes.fromhex("001572" + "11111111" + proof))
    assert b.data_to_send().hex() == "001161" + hashlib.md5(b"secret" + str(0x11111111).encode()).hexdigest()


def test_the_first_frame_may_ride_along() -> None:
    a, b = initiator(), acceptor()
    b.receive_data(a.data_to_send())
    b.accept(Verdict.OK)
    a.receive_data(b.data_to_send())
    (established,) = b.receive_data(a.data_to_send() + b"\x00\x00\x00\x00\x00\x00")
    assert isinstance(established, Established)
    assert established.trailing_data == b"\x00\x00\x00\x00\x00\x00"
    (established,) = a.receive_data(b.data_to_send() + b"\x00\x00\x00\x01\x83\x00")
    assert isinstance(established, Established)
    assert established.trailing_data == b"\x00\x00\x00\x01\x83\x00"
    with pytest.raises(LocalProtocolError, match="over"):
        a.receive_data(b"")


def test_bytes_behind_the_name_are_ignored() -> None:
    def longer(message: bytes) -> bytes:
        return (len(message) - 2 + 7).to_bytes(2, "big") + message[2:] + b"\xffreserv"

    a, b = initiator(), acceptor()
    assert b.receive_data(longer(a.data_to_send())) == [NameReceived(A, A_FLAGS, A_CREATION)]
    b.accept(Verdict.OK)
    answer = b.data_to_send()
    assert a.receive_data(answer[:5] + longer(answer[5:])) == [StatusReceived(Verdict.OK)]
    assert a.state is State.RECV_ACK


def test_a_cookie_for_each_peer() -> None:
    asked = []

    def cookie_of(peer: str) -> str:
        asked.append(peer)
        return "secret"

    shake(initiator(), acceptor(cookie_of))
    assert asked == [A]


def test_wrong_cookie_at_the_acceptor() -> None:
    a, b = initiator("other"), acceptor()
    with pytest.raises(CookieMismatch, match=r"a@127.0.0.1.*cookies differ"):
        shake(a, b)
    assert b.data_to_send() == b"", "it learns nothing about ours"
    assert b.state is State.FAILED
    # The initiator sees no more than the end of the stream.
    error = a.connection_lost()
    assert isinstance(error, CookieMismatch)
    assert "cookies differ" in str(error)


def test_wrong_cookie_at_the_initiator() -> None:
    a, b = initiator(), acceptor()
    b.receive_data(a.data_to_send())
    b.accept(Verdict.OK)
    a.receive_data(b.data_to_send())
    with pytest.raises(CookieMismatch, match=B):
        a.receive_data(b"\x00\x11a" + digest("other", 0x11111111))


@pytest.mark.parametrize(
    ("verdict", "error", "match"),
    [(Verdict.NOK, Superseded, "same moment"), (Verdict.NOT_ALLOWED, NotAllowed, "allow")],
)
def test_refusals(verdict: Verdict, error: type[HandshakeError], match: str) -> None:
    a, b = initiator(), acceptor()
    with pytest.raises(error, match=match):
        shake(a, b, verdict)
    assert a.state is b.state is State.FAILED


def test_alive_answered_with_false() -> None:
    a, b = initiator(), acceptor()
    b.receive_data(a.data_to_send())
    b.accept(Verdict.ALIVE)
    assert a.receive_data(b.data_to_send()) == [StatusReceived(Verdict.ALIVE)]
    a.answer_alive(False)
    assert a.state is State.FAILED
    with pytest.raises(Superseded, match="no longer wants"):
        b.receive_data(a.data_to_send())


def test_alive_answered_with_something_else() -> None:
    a, b = initiator(), acceptor()
    b.receive_data(a.data_to_send())
    b.accept(Verdict.ALIVE)
    with pytest.raises(RemoteProtocolError, match="true or false"):
        b.receive_data(b"\x00\x03sok")


@pytest.mark.parametrize("absent", list(MANDATORY), ids=lambda flag: flag.name)
def test_a_missing_flag_is_named(absent: DFlag) -> None:
    flags = (OFFERED & ~absent) & ~DFlag.MANDATORY_25_DIGEST
    b = acceptor()
    with pytest.raises(MissingFlags, match=str(absent.name)) as caught:
        b.receive_data(initiator(flags=flags).data_to_send())
    assert caught.value.missing == absent
    assert caught.value.peer == A
    # dist_util tells the peer before it closes
    assert b.data_to_send() == b"\x00\x0csnot_allowed"

    b = acceptor(flags=flags)
    a = initiator()
    b.receive_data(a.data_to_send())
    b.accept(Verdict.OK)
    with pytest.raises(MissingFlags, match=str(absent.name)):
        a.receive_data(b.data_to_send())
    assert a.data_to_send() == b""


def test_the_digest_bit_stands_for_the_flags_of_otp_25() -> None:
    flags = OFFERED & ~MANDATORY_25 | DFlag.MANDATORY_25_DIGEST
    shaken = [event for event in shake(initiator(flags=flags), acceptor()) if isinstance(event, Established)]
    assert [event.flags & MANDATORY_25 for event in shaken] == [MANDATORY_25, MANDATORY_25]
    assert shaken[0].agreed & MANDATORY_25 == MANDATORY_25


def test_another_node_lives_at_that_address() -> None:
    a, b = initiator(peer="B@127.0.0.1"), acceptor()
    with pytest.raises(HandshakeError, match=r"calls itself 'b@127.0.0.1'"):
        shake(a, b)


def old_name(flags: DFlag, name: str = A) -> bytes:
    body = b"n\x00\x05" + (flags & 0xFFFFFFFF).to_bytes(4, "big") + name.encode()
    return len(body).to_bytes(2, "big") + body


def test_the_old_name_message_with_its_complement() -> None:
    """OTP 23 and 24 begin so with a node that EPMD says supports version 5."""
    b = acceptor()
    (event,) = b.receive_data(old_name(OFFERED))
    assert isinstance(event, NameReceived)
    assert (event.peer, event.creation) == (A, 0)
    b.accept(Verdict.OK)
    assert b.data_to_send().startswith(b"\x00\x03sok\x00\x1eN")
    complement = b"\x00\x09c" + (OFFERED >> 32).to_bytes(4, "big") + A_CREATION.to_bytes(4, "big")
    reply = b"\x00\x15r\x00\x00\x00\x07" + digest("secret", 0x22222222)
    assert b.receive_data(complement + reply) == [Established(A, OFFERED, OFFERED, A_CREATION, b"")]
    assert b.data_to_send() == b"\x00\x11a" + digest("secret", 7)


def test_the_old_name_message_of_a_node_without_the_new_flags() -> None:
    b = acceptor()
    b.receive_data(old_name(OFFERED))
    b.accept(Verdict.OK)
    b.data_to_send()
    with pytest.raises(MissingFlags, match="V4_NC"):
        b.receive_data(b"\x00\x09c" + bytes(8))
    assert b.data_to_send() == b"\x00\x0csnot_allowed"
    b = acceptor()
    with pytest.raises(MissingFlags, match="HANDSHAKE_23"):
        b.receive_data(old_name(OFFERED & ~DFlag.HANDSHAKE_23 & ~DFlag.MANDATORY_25_DIGEST))


def name_message(name: bytes, flags: int = OFFERED, length: int | None = None) -> bytes:
    size = len(name) if length is None else length
    body = b"N" + flags.to_bytes(8, "big") + bytes(4) + size.to_bytes(2, "big") + name
    return len(body).to_bytes(2, "big") + body


@pytest.mark.parametrize("name", [b"", b"a", b"@", b"a@", b"@h", b"a@b@c"])
def test_names_that_are_none(name: bytes) -> None:
    b = acceptor()
    with pytest.raises(RemoteProtocolError, match="name@host"):
        b.receive_data(name_message(name))
    assert b.data_to_send() == b"", "dist_util hangs up without a word"


def test_names_that_are_too_long_for_an_atom() -> None:
    b = acceptor()
    assert len(b.receive_data(name_message(b"a" * 253 + b"@h"))) == 1
    b = acceptor()
    with pytest.raises(RemoteProtocolError, match="at most 255 characters, this one 256"):
        b.receive_data(name_message(b"a" * 254 + b"@h"))
    assert b.data_to_send() == b""


HOST = "127.0.0.1"
ASKING = OFFERED | DFlag.NAME_ME


def asker() -> Initiator:
    return Initiator(HOST, B, ASKING, 0, "secret", 0x11111111)


def test_a_name_is_asked_for_and_given() -> None:
    a, b = asker(), acceptor()
    hello = a.data_to_send()
    assert hello.hex() == "00184e" + f"{ASKING:016x}" + "00000000" + "0009" + HOST.encode().hex()
    (event,) = b.receive_data(hello)
    assert event == NameReceived(HOST, ASKING, 0)
    assert event.asks_for_name
    b.give_name("X1@127.0.0.1", 0xCCCC0003)
    answer = b.data_to_send()
    status = b"snamed:\x00\x0cX1@127.0.0.1\xcc\xcc\x00\x03"
    echoed = (B_FLAGS & ~DFlag.PUBLISHED) | DFlag.NAME_ME
    assert answer.startswith(len(status).to_bytes(2, "big") + status + b"\x00\x1eN" + echoed.to_bytes(8, "big"))
    assert a.receive_data(answer) == [NameGiven("X1@127.0.0.1", 0xCCCC0003)]
    agreed = OFFERED | DFlag.NAME_ME
    assert b.receive_data(a.data_to_send()) == [Established("X1@127.0.0.1", ASKING, agreed, 0xCCCC0003, b"")]
    assert a.receive_data(b.data_to_send()) == [Established(B, echoed, agreed, B_CREATION, b"")]


def test_the_cookie_is_that_of_the_name_given() -> None:
    asked = []

    def cookie_of(peer: str) -> str:
        asked.append(peer)
        return "secret"

    a, b = asker(), acceptor(cookie_of)
    b.receive_data(a.data_to_send())
    b.give_name("X1@127.0.0.1", 5)
    a.receive_data(b.data_to_send())
    b.receive_data(a.data_to_send())
    assert asked == ["X1@127.0.0.1"]


@pytest.mark.parametrize("host", [b"", b"a@127.0.0.1", b"@", b"a@"])
def test_what_asks_for_a_name_sends_its_host(host: bytes) -> None:
    b = acceptor()
    with pytest.raises(RemoteProtocolError, match="sends its host"):
        b.receive_data(name_message(host, ASKING))
    assert b.data_to_send() == b""


def test_what_asks_for_a_name_may_be_not_allowed() -> None:
    a, b = asker(), acceptor()
    b.receive_data(a.data_to_send())
    b.accept(Verdict.NOT_ALLOWED)
    with pytest.raises(NotAllowed):
        a.receive_data(b.data_to_send())
    assert b.state is State.FAILED


GIVEN: list[tuple[bytes, str]] = [
    (b"\x00\x03sok", "asked for a name and answers 'ok'"),
    (b"\x00\x04snok", "asked for a name and answers 'nok'"),
    (b"\x00\x06salive", "asked for a name and answers 'alive'"),
    (b"\x00\x07snamed:", "cut short"),
    (b"\x00\x0asnamed:\x00\x05a", "cut short"),
    (b"\x00\x17snamed:\x00\x0cX1@127.0.0.1\x00\x00", "cut short"),
    (b"\x00\x0fsnamed:\x00\x02\xff@\x00\x00\x00\x05", "not utf-8"),
    (b"\x00\x12snamed:\x00\x05X@ho2\x00\x00\x00\x05", "none on our host"),
    (b"\x00\x16snamed:\x00\x09127.0.0.1\x00\x00\x00\x05", "none on our host"),
    (b"\x00\x17snamed:\x00\x0a@127.0.0.1\x00\x00\x00\x05", "none on our host"),
]


@pytest.mark.parametrize(("answer", "match"), GIVEN)
def test_names_that_nobody_can_be_given(answer: bytes, match: str) -> None:
    a = asker()
    with pytest.raises(RemoteProtocolError, match=match):
        a.receive_data(answer)
    assert a.state is State.FAILED


def test_the_end_of_the_stream_instead_of_a_name() -> None:
    assert "hung up when asked for a name" in str(asker().connection_lost())


def test_names_are_given_to_those_who_ask() -> None:
    b = acceptor()
    b.receive_data(initiator().data_to_send())
    with pytest.raises(LocalProtocolError, match="nobody asked for a name"):
        b.give_name("X1@127.0.0.1", 5)
    b = acceptor()
    b.receive_data(asker().data_to_send())
    with pytest.raises(LocalProtocolError, match="is given one"):
        b.accept(Verdict.OK)


@pytest.mark.parametrize("state", list(State))
def test_every_state_says_what_the_peer_owes(state: State) -> None:
    assert bool(state.owed) == state.name.startswith("RECV_")


def test_a_host_beyond_ascii_travels_as_latin_1() -> None:
    b = acceptor()
    (event,) = b.receive_data(name_message("a@blåbær".encode("latin-1")))
    assert isinstance(event, NameReceived)
    assert event.peer == "a@blåbær"
    assert "a@blåbær".encode("latin-1") in Initiator("a@blåbær", B, OFFERED, 1, "c", 1).data_to_send()


RECV_STATUS: list[tuple[bytes, str]] = [
    (b"\x00\x00", "no handshake message"),
    (b"\x00\x02sx", "unknown status"),
    (b"\x00\x01s", "unknown status"),
    (b"\x00\x0esnamed:\x00\x01a\x00\x00\x00\x01", "gives us a name"),
    (b"\x00\x11a" + bytes(16), "ACK not allowed in RECV_STATUS"),
    (b"\x00\x01N", "NAME not allowed in RECV_STATUS"),
    (b"HTTP/1.1 400 Bad Request\r\n" + bytes(20000), "no handshake message"),
]


@pytest.mark.parametrize(("data", "match"), RECV_STATUS)
def test_nonsense_instead_of_a_status(data: bytes, match: str) -> None:
    a = initiator()
    with pytest.raises(RemoteProtocolError, match=match) as caught:
        a.receive_data(data)
    assert caught.value.rule == "Distribution Handshake"
    assert caught.value.peer == B
    assert a.state is State.FAILED


@pytest.mark.parametrize("cut", range(1, 26))
def test_a_name_message_that_is_too_short(cut: int) -> None:
    body = initiator().data_to_send()[2 : 2 + cut]
    with pytest.raises(RemoteProtocolError, match=r"cut short|are the least"):
        acceptor().receive_data(len(body).to_bytes(2, "big") + body)


def test_messages_out_of_turn() -> None:
    b = acceptor()
    b.receive_data(initiator().data_to_send())
    with pytest.raises(RemoteProtocolError, match="NAME not allowed in AWAIT_VERDICT"):
        b.receive_data(initiator().data_to_send())
    a = initiator()
    a.receive_data(b"\x00\x06salive")
    with pytest.raises(RemoteProtocolError, match="not allowed in AWAIT_ALIVE_ANSWER"):
        a.receive_data(b"\x00\x03sok")


def test_the_shell_is_told_when_it_errs() -> None:
    with pytest.raises(LocalProtocolError):
        acceptor().accept(Verdict.OK)
    with pytest.raises(LocalProtocolError):
        initiator().answer_alive(True)
    with pytest.raises(LocalProtocolError, match="name@host"):
        Initiator("a", B, OFFERED, 1, "c", 1)
    with pytest.raises(LocalProtocolError, match="Latin-1"):
        Initiator("a@ł", B, OFFERED, 1, "c", 1)
    with pytest.raises(LocalProtocolError, match="Latin-1") as caught:
        digest("gehe\u0142m", 1)
    assert "gehe" not in str(caught.value), "a cookie is never printed"


@pytest.mark.parametrize(
    ("make", "feed", "match"),
    [
        (initiator, b"", "hung up on our name"),
        (initiator, b"\x00\x03sok", "hung up in RECV_CHALLENGE"),
        (acceptor, b"", "without a name"),
        (acceptor, b"\x00", "without a name"),
    ],
)
def test_the_end_of_the_stream_is_explained(make: Callable[[], Any], feed: bytes, match: str) -> None:
    side = make()
    side.receive_data(feed)
    error = side.connection_lost()
    assert isinstance(error, HandshakeError)
    assert match in str(error)


def test_the_end_of_the_stream_after_the_challenge() -> None:
    b = acceptor()
    b.receive_data(initiator().data_to_send())
    b.accept(Verdict.OK)
    assert "hung up on our challenge" in str(b.connection_lost())
