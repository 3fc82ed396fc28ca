"""Bad bytes cost their sender its connection, and nobody else anything.

Each test has a genuine BEAM connected to the node that is attacked: it must go on exchanging messages, and see neither
DOWN nor nodedown. What follows a correct handshake is sent by our own side of it (``wire.handshake.Initiator``) over a
plain socket, so that any bytes can come next.
"""

from __future__ import annotations

import random
import re
import struct
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import pytest
import trio

from erlang_interop import Atom, CookieMismatch, NodeDown, NodeUp, Pid, Reference
from erlang_interop.etf import encode
from erlang_interop.flags import MANDATORY, OFFERED, DFlag
from erlang_interop.runtime.handshakes import MAX_HANDSHAKES
from erlang_interop.wire.channel import NO_PAYLOAD, DistChannel
from tests.interop.collectors import PATIENCE, until
from tests.interop.hostile import (
    EVIL,
    EVIL_PID,
    Attacked,
    complaints,
    introduction,
    say,
    what_it_says_until_it_hangs_up,
)
from tests.wrong_bytes import message

if TYPE_CHECKING:
    from erlang_interop.testing.beam import Beam

# ---------------------------------------------------------------------------------------------------- in the handshake


NAME: Final = introduction(EVIL.name.encode())
REPLY: Final = message(b"r" + bytes(4) + bytes(16))

#: What is said, whether the line is closed behind it, and what the node logs.
OPENINGS: Final[dict[str, tuple[bytes, bool, str]]] = {
    "nothing": (b"", True, "left without a name"),
    "nothing for ever": (b"", False, "did not finish the handshake within"),
    "half a name": (NAME[:9], True, "left without a name"),
    "half a name for ever": (NAME[:9], False, "did not finish the handshake within"),
    "a name": (NAME, True, "hung up on our challenge"),
    "a name for ever": (NAME, False, "did not finish the handshake within"),
    "random bytes": (random.Random(1).randbytes(100_000), False, "is none of a handshake"),
    "zeros": (bytes(1000), False, "is no handshake message"),
    "HTTP": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", True, "is none of a handshake"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), True, "it speaks TLS"),
    "a reply first": (REPLY, False, "REPLY not allowed in RECV_NAME"),
    "a status first": (message(b"sok"), False, "STATUS not allowed in RECV_NAME"),
    "a name twice": (NAME + NAME, False, "NAME not allowed in"),
    "a name that is cut": (message(NAME[2:-3]), False, "a name of 14 bytes is cut short"),
    "a name too short for its form": (message(b"N1234"), False, "a message of 5 bytes where 15 are the least"),
    "a name without a host": (introduction(b"evil"), False, "a node name is 'name@host'"),
    "an empty name": (introduction(b""), False, "a node name is 'name@host'"),
    "two hosts": (introduction(b"evil@one@two"), False, "a node name is 'name@host'"),
    "a name of 60,000 bytes": (introduction(b"e" * 60_000 + b"@127.0.0.1"), False, "is none of a handshake"),
    "a name of 300 characters": (introduction(b"e" * 290 + b"@127.0.0.1"), False, "at most 255 characters"),
    "a name of two lines": (introduction(b"evil\nall is well@h"), False, r"'evil\nall is well@h' at offset 15 "),
    "no flags": (introduction(EVIL.name.encode(), 0), False, "it cannot do"),
    "one flag less": (
        introduction(EVIL.name.encode(), MANDATORY & ~DFlag.UNLINK_ID & ~DFlag.MANDATORY_25_DIGEST),
        False,
        "it cannot do UNLINK_ID",
    ),
    "a request for a name": (
        introduction(b"127.0.0.1", OFFERED | DFlag.NAME_ME),
        False,
        "@127.0.0.1: it did not finish the handshake within",
    ),
    "a request for a name with a name": (introduction(EVIL.name.encode(), OFFERED | DFlag.NAME_ME), False, "its host"),
}


@pytest.mark.rule("Hostile input: a handshake that is none costs its connection alone")
@pytest.mark.parametrize(("said", "hang_up", "complaint"), OPENINGS.values(), ids=OPENINGS)
async def test_what_is_no_handshake(
    attacked: Attacked, caplog: pytest.LogCaptureFixture, said: bytes, hang_up: bool, complaint: str
) -> None:
    if complaint.endswith("within"):
        attacked.allow(1.0)
    stream = await attacked.dial()
    host, port = stream.socket.getsockname()
    await say(stream, said, hang_up=hang_up)
    await what_it_says_until_it_hangs_up(stream)
    (line,) = complaints(caplog)
    assert line.startswith(f"handshake with {host}:{port} failed: ")
    assert complaint in line


@pytest.mark.rule("Hostile input: a handshake that is none costs its connection alone")
@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (REPLY, "its digest is not one of our cookie: the cookies differ"),
        (message(b"r123"), "a message of 4 bytes where 21 are the least"),
        (NAME, "NAME not allowed in RECV_REPLY"),
        (message(b"strue"), "STATUS not allowed in RECV_REPLY"),
    ],
    ids=["a wrong digest", "one that is cut", "a name", "a status"],
)
async def test_what_is_no_answer_to_the_challenge(
    attacked: Attacked, caplog: pytest.LogCaptureFixture, answer: bytes, complaint: str
) -> None:
    stream = await attacked.dial()
    await stream.send_all(NAME)
    with trio.fail_after(PATIENCE):
        said = b""
        while len(said) < 10:
            said += await stream.receive_some()
    assert said.startswith(message(b"sok"))
    await stream.send_all(answer)
    await what_it_says_until_it_hangs_up(stream)
    (line,) = complaints(caplog)
    assert f"{EVIL.name}: {complaint}" in line


@pytest.mark.rule("Handshake: a wrong cookie is named on the side that notices")
async def test_a_wrong_cookie(attacked: Attacked, caplog: pytest.LogCaptureFixture) -> None:
    with trio.fail_after(PATIENCE), pytest.raises(CookieMismatch):
        await attacked.shake_hands(cookie="a guess")
    (line,) = complaints(caplog)
    assert "evil@127.0.0.1: its digest is not one of our cookie" in line


@pytest.mark.rule("Handshake: a node of this node's own name is not let in")
async def test_a_name_that_is_ours(attacked: Attacked, caplog: pytest.LogCaptureFixture) -> None:
    stream = await attacked.dial()
    await stream.send_all(introduction(attacked.node.name.name.encode()))
    assert await what_it_says_until_it_hangs_up(stream) == message(b"snok"), "as a BEAM's net_kernel"
    (line,) = complaints(caplog)
    assert "which is this node" in line


@pytest.mark.rule("Hostile input: without the cookie nobody costs a node its connection")
@pytest.mark.parametrize(
    "rest",
    [b"", message(b"strue"), message(b"sfalse"), message(b"strue") + REPLY, message(b"smaybe")],
    ids=["no answer", "true", "false", "true and a wrong digest", "nonsense"],
)
async def test_a_stranger_under_the_name_of_a_connected_node(attacked: Attacked, rest: bytes) -> None:
    """It is asked whether it means it; without the cookie it cannot cost the real one its connection."""
    if rest == message(b"strue"):
        attacked.allow(4.0)  # nothing else ends it
    stream = await attacked.dial()
    await stream.send_all(introduction(attacked.friend.beam.name.encode()))
    assert await stream.receive_some(8) == message(b"salive")
    if rest:
        await stream.send_all(rest)
    else:
        await stream.send_eof()
    await what_it_says_until_it_hangs_up(stream)


@pytest.mark.rule("Hostile input: connections that say nothing keep nobody out")
async def test_two_hundred_connections_that_say_nothing(
    attacked: Attacked, caplog: pytest.LogCaptureFixture, beam: Beam
) -> None:
    """The oldest give way to newcomers, the others are closed when their time is over."""
    attacked.allow(4.0)  # for all that follows until the last one has shaken hands
    silent = [await attacked.dial() for _ in range(200)]
    await attacked.friend.round_trip(attacked.victim)
    await (await attacked.shake_hands()).aclose()
    for stream in silent:
        assert await what_it_says_until_it_hangs_up(stream) == b""
    lines = complaints(caplog)
    gave_way = ["handshakes are under way already" in line for line in lines]
    assert len(lines) == 200
    # One more than those beyond the limit: for the one that shook hands.
    assert sum(gave_way) == 201 - MAX_HANDSHAKES
    assert all(gave_way[: sum(gave_way)])
    assert sum("did not finish the handshake within" in line for line in lines) == MAX_HANDSHAKES - 1
    await until(lambda: not attacked.node.is_connected(EVIL))


# ------------------------------------------------------------------------------------------------- behind the handshake


def framed(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body


def terms(*values: Any) -> bytes:
    """A frame's body: a header without atoms, and terms."""
    return b"\x83D\x00" + b"".join(encode(value)[1:] for value in values)


def send(victim: Pid, raw: bytes) -> bytes:
    """A frame that sends ``victim`` a term of these bytes."""
    return framed(terms((22, EVIL_PID, victim)) + raw)


def fragment(kind: int, sequence: int, number: int, body: bytes) -> bytes:
    return framed(struct.pack(">BBQQ", 131, kind, sequence, number) + body)


def first_fragment(victim: Pid, sequence: int, number: int) -> bytes:
    return fragment(69, sequence, number, b"\0" + encode((22, EVIL_PID, victim))[1:] + b"m")


def bomb() -> bytes:
    """64 MB of zeros in 64 kB."""
    deflated = zlib.compressobj(9)
    zeros = bytes(1 << 20)
    data = b"m" + struct.pack(">I", 64 << 20)
    packed = deflated.compress(data) + b"".join(deflated.compress(zeros) for _ in range(64)) + deflated.flush()
    return b"P" + struct.pack(">I", len(data) + (64 << 20)) + packed


FOREIGN: Final = Pid(Atom("other@127.0.0.1"), 1, 0, 1)
REF: Final = Reference(EVIL, 5, bytes(12))


def own(pid: Pid) -> Reference:
    """A reference of the node that ``pid`` is of."""
    return Reference(pid.node, pid.creation, bytes(12))


OFFSET: Final = r" at offset \d+ "

#: Bytes that depend on the pid they are aimed at, and what the log says of them, behind the name of the peer.
BREACHES: Final[dict[str, tuple[Callable[[Pid], bytes], str]]] = {
    "a term that is cut": (lambda pid: send(pid, encode([1, 2, b"three"])[1:-2]), OFFSET + r"\(External Term Format\)"),
    "no term": (lambda pid: send(pid, b""), "SEND_SENDER without its message" + OFFSET),
    "an unknown tag": (lambda pid: send(pid, b"\x01"), OFFSET + r"\(External Term Format\)"),
    "an atom that is no UTF-8": (lambda pid: send(pid, b"w\x02\xff\xff"), OFFSET + r"\(External Term Format\)"),
    "2**32 - 1 elements": (lambda pid: send(pid, b"i\xff\xff\xff\xff"), OFFSET + r"\(External Term Format\)"),
    "a list of 2**32 - 1": (lambda pid: send(pid, b"l\xff\xff\xff\xff"), OFFSET + r"\(External Term Format\)"),
    "a map of 2**32 - 1": (lambda pid: send(pid, b"t\xff\xff\xff\xff"), OFFSET + r"\(External Term Format\)"),
    "a binary of 4 GB": (lambda pid: send(pid, b"m\xff\xff\xff\xff"), OFFSET + r"\(External Term Format\)"),
    "a bignum of 4 GB": (lambda pid: send(pid, b"o\xff\xff\xff\xff\0"), OFFSET + r"\(External Term Format\)"),
    "a nesting of a million": (
        lambda pid: send(pid, b"h\x01" * 1_000_000 + b"j"),
        OFFSET + r"\(External Term Format\)",
    ),
    "lists a million deep": (lambda pid: send(pid, b"l\0\0\0\1" * 1_000_000), OFFSET + r"\(External Term Format\)"),
    "a compressed bomb": (lambda pid: send(pid, bomb()), OFFSET + r"\(External Term Format\)"),
    "a bomb passed through": (
        lambda pid: framed(b"p" + encode((22, EVIL_PID, pid)) + b"\x83" + bomb()),
        "passed through, but a distribution header was agreed on" + OFFSET,
    ),
    "an atom of no header": (lambda pid: send(pid, b"R\x05"), OFFSET + r"\(External Term Format\)"),
    "a frame of 4 GB": (lambda _: b"\xff\xff\xff\xff", r"a frame of 4294967295 bytes; \d+ are allowed at offset 0 \("),
    "no frame": (lambda _: framed(b"\x01\x02\x03"), "no frame begins with .*" + OFFSET),
    "a slot that was never filled": (
        lambda _: framed(b"\x83D\x01\x00\x05R\x00"),
        "cache slot 5 was never filled" + OFFSET,
    ),
    "a header that is cut": (lambda _: framed(b"\x83D\xff\x00"), "cut short" + OFFSET + r"\(Distribution Header\)"),
    "an atom of a header that is cut": (lambda _: framed(b"\x83D\x01\x08\x05\x20abc"), "cut short" + OFFSET),
    "an unknown operation": (lambda pid: framed(terms((99, EVIL_PID, pid))), r"unknown operation 99"),
    "a negative operation": (lambda pid: framed(terms((-1, EVIL_PID, pid))), r"unknown operation -1"),
    "no tuple": (lambda _: framed(terms([1, 2, 3])), "is no control message"),
    "an empty tuple": (lambda _: framed(terms(())), "is no control message"),
    "UNLINK": (lambda pid: framed(terms((4, EVIL_PID, pid))), r"unknown operation 4, which OTP 26 removed"),
    "LINK to nobody": (
        lambda _: framed(terms((1, EVIL_PID))),
        r"LINK of 2 elements at offset 3 \(LINK \{1, from_pid, to_pid\}\)",
    ),
    "LINK from a foreign pid": (lambda pid: framed(terms((1, FOREIGN, pid))), r"LINK whose from_pid is .*other@.*"),
    "LINK for another node": (lambda _: framed(terms((1, EVIL_PID, FOREIGN))), "LINK .* is meant for another node"),
    "UNLINK_ID for another node": (lambda _: framed(terms((35, 1, EVIL_PID, FOREIGN))), "is meant for another node"),
    "MONITOR_P for another node": (lambda _: framed(terms((19, EVIL_PID, FOREIGN, REF))), "is meant for another node"),
    "LINK to an atom": (lambda _: framed(terms((1, EVIL_PID, Atom("me")))), r"LINK whose to_pid is me"),
    "MONITOR_P from a foreign pid": (
        lambda pid: framed(terms((19, FOREIGN, pid, REF))),
        r"MONITOR_P whose from_pid is",
    ),
    "MONITOR_P without a reference": (lambda pid: framed(terms((19, EVIL_PID, pid, 1))), r"MONITOR_P whose ref is 1"),
    "one reference for two monitors": (
        lambda pid: framed(terms((19, EVIL_PID, pid, REF))) * 2,
        "MONITOR_P .* has the reference of another monitor",
    ),
    "EXIT from a foreign pid": (lambda pid: framed(terms((3, FOREIGN, pid, 1))), r"EXIT whose from_pid is"),
    "an exit without its reason": (lambda pid: framed(terms((24, EVIL_PID, pid))), OFFSET),
    "UNLINK_ID 0": (lambda pid: framed(terms((35, 0, EVIL_PID, pid))), r"UNLINK_ID whose id is 0"),
    "UNLINK_ID 2**64": (
        lambda pid: framed(terms((35, 1 << 64, EVIL_PID, pid))),
        r"UNLINK_ID whose id is 18446744073709551616",
    ),
    "SEND to a number": (lambda _: framed(terms((2, Atom(""), 5), 1)), r"SEND whose to_pid is 5"),
    "REG_SEND to a binary": (lambda _: framed(terms((6, EVIL_PID, Atom(""), b"x"), 1)), r"REG_SEND whose to_name is"),
    "SPAWN_REQUEST with a reference of ours": (
        lambda pid: framed(terms((29, own(pid), EVIL_PID, EVIL_PID, (Atom("m"), Atom("f"), 0), []), [])),
        "SPAWN_REQUEST .* has a reference of our own",
    ),
    "SPAWN_REPLY to a request of another node": (
        lambda pid: framed(terms((31, REF, pid, 0, EVIL_PID))),
        "SPAWN_REPLY .* is no answer to a spawn request of this node",
    ),
    "an operation of a thousand digits": (
        lambda _: framed(terms((1 << 40_000, EVIL_PID))),
        "unknown operation 16#1000",
    ),
    "twenty megabytes in the wrong place": (
        lambda _: framed(terms((1, EVIL_PID, bytes(20_000_000)))),
        r"LINK whose to_pid is <<0,0,0,[0,]*\.\.\., not a pid",
    ),
    "a fragment of nothing": (lambda _: fragment(70, 9, 1, b"x"), "sequence 9 was never begun"),
    "a fragment that is cut": (lambda _: framed(b"\x83F\0\0\0"), "a fragment's header is cut short"),
    "a fragment numbered 0": (lambda pid: first_fragment(pid, 1, 0), "numbered down to 1"),
    "a sequence begun twice": (lambda pid: first_fragment(pid, 1, 3) * 2, "sequence 1 begins a second time"),
    "a fragment out of order": (
        lambda pid: first_fragment(pid, 1, 3) + fragment(70, 1, 1, b""),
        "fragment 1 of sequence 1 where 2 is due",
    ),
    "ten thousand messages begun, and one more": (
        lambda pid: b"".join(first_fragment(pid, number, 2) for number in range(10_001)),
        "more than 10000 messages under way in fragments" + OFFSET,
    ),
    "a fragment passed off as 2**64 - 1": (
        lambda pid: first_fragment(pid, 1, 2**64 - 1) + fragment(70, 1, 2**64 - 1, b""),
        f"fragment {2**64 - 1} of sequence 1 where {2**64 - 2} is due" + OFFSET,
    ),
    "fragments of no term": (
        lambda pid: first_fragment(pid, 1, 2) + fragment(70, 1, 1, b"\xff\xff\xff\xff"),
        OFFSET + r"\(External Term Format\)",
    ),
}


@pytest.mark.rule("Hostile input: a breach of the protocol costs its connection alone")
@pytest.mark.parametrize(("breach", "complaint"), BREACHES.values(), ids=BREACHES)
async def test_a_breach_of_the_protocol(
    attacked: Attacked, caplog: pytest.LogCaptureFixture, breach: Callable[[Pid], bytes], complaint: str
) -> None:
    node, victim = attacked.node, attacked.victim
    async with node.monitor_nodes() as events:
        stream = await attacked.shake_hands()
        host, port = stream.socket.getsockname()
        ref = victim.monitor(EVIL_PID)
        # What came before the breach counts, in the same read as well; what comes behind it does not.
        good = send(victim.pid, b"a\x01")
        await say(stream, good + breach(victim.pid) + send(victim.pid, b"a\x02"))
        assert await victim.receive(timeout=PATIENCE) == 1
        await what_it_says_until_it_hangs_up(stream)
        assert await victim.receive(timeout=PATIENCE) == (
            Atom("DOWN"),
            ref,
            Atom("process"),
            EVIL_PID,
            Atom("noconnection"),
        )
        with trio.fail_after(PATIENCE):
            assert await anext(events) == NodeUp(EVIL, "hidden")
            assert await anext(events) == NodeDown(EVIL, "hidden", Atom("killed"))
    (line,) = complaints(caplog)
    assert line.startswith(f"closing the connection to {EVIL.name} ({host}:{port}): {EVIL.name}: ")
    assert re.search(complaint, line), line
    assert re.search(OFFSET, line), "it says where"
    assert len(line) < 1000
    assert re.search(r"\([^()]*(\([^()]*\))?[^()]*\)$", line), "it names the rule that was broken"


@pytest.mark.rule("Hostile input: signals for what is gone or never was are answered or ignored")
async def test_what_is_odd_but_no_breach_is_answered_or_ignored(
    attacked: Attacked, caplog: pytest.LogCaptureFixture
) -> None:
    """Signals for what is gone, never was, or is elsewhere: each may have crossed another one on its way."""
    victim = attacked.victim.pid
    unborn = Pid(victim.node, victim.id + 1000, victim.serial, victim.creation)
    older = Pid(victim.node, victim.id, victim.serial, victim.creation - 1)
    nobody, nothing = Atom("nobody"), Atom("")
    refs = [Reference(EVIL, 5, bytes(11) + bytes((number,))) for number in range(3)]
    stream = await attacked.shake_hands()
    async with stream:
        for control, payload in (
            ((3, EVIL_PID, victim, Atom("boom")), None),  # an exit without a link
            ((24, EVIL_PID, victim), [b"boom"]),
            ((36, 77, EVIL_PID, victim), None),  # an acknowledgement of no unlink
            ((20, EVIL_PID, victim, REF), None),  # the end of no monitor
            ((28, EVIL_PID, victim, REF), [Atom("boom")]),  # the down of no monitor
            ((21, EVIL_PID, victim, REF, Atom("boom")), None),
            ((22, EVIL_PID, unborn), [b"message"]),
            ((22, EVIL_PID, FOREIGN), [b"message"]),
            ((6, EVIL_PID, nothing, nobody), [b"message"]),
            ((33, EVIL_PID, REF), [b"message"]),
            ((8, EVIL_PID, unborn, Atom("boom")), None),
            ((7, EVIL_PID, victim), None),
            ((35, 3, EVIL_PID, victim), None),  # an unlink without a link: acknowledged
            ((1, EVIL_PID, unborn), None),  # links and monitors to nobody: noproc
            ((19, EVIL_PID, unborn, refs[0]), None),
            ((19, EVIL_PID, older, refs[1]), None),
            ((19, EVIL_PID, nobody, refs[2]), None),
        ):
            await stream.send_all(bytes(4) + framed(terms(control, *(payload or []))))
        channel = DistChannel(OFFERED, peer=attacked.node.name.name)
        answers: list[Any] = []
        with trio.fail_after(PATIENCE):
            while len(answers) < 5:
                answers += channel.receive_data(await stream.receive_some())
    noproc = Atom("noproc")
    assert channel.failure is None
    assert answers == [
        ((36, 3, victim, EVIL_PID), NO_PAYLOAD),
        ((24, unborn, EVIL_PID), noproc),
        ((28, unborn, EVIL_PID, refs[0]), noproc),
        ((28, older, EVIL_PID, refs[1]), noproc),
        ((28, nobody, EVIL_PID, refs[2]), noproc),
    ]
    assert complaints(caplog) == []
    await until(lambda: not attacked.node.is_connected(EVIL))
