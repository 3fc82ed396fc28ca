"""The frames themselves: ours are those of a BEAM, and we take and refuse what a BEAM takes and refuses."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final

import pytest

from erlang_interop import Atom, Pid
from erlang_interop.etf import encode
from erlang_interop.flags import OFFERED, DFlag
from erlang_interop.wire.channel import FRAGMENT_SIZE, DistChannel
from tests.interop.raw_peer import HEADER, RawPeer, Signal, fragment, framed, header_of
from tests.parsing import frames_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from erlang_interop.testing.beam import Beam

NO_CACHE: Final = OFFERED & ~DFlag.DIST_HDR_ATOM_CACHE
NO_FRAGMENTS: Final = OFFERED & ~DFlag.FRAGMENTS
PASSED_THROUGH: Final = OFFERED & ~HEADER

# ------------------------------------------------------------------------------------------------------ the same frames


def shape(frames: list[bytes]) -> tuple[list[tuple[int, int, int]], bytes]:
    """Kind, number and size of each frame without its header, and all that is behind the headers."""
    shapes = []
    data = b""
    for frame in frames:
        kind = frame[1]
        number = int.from_bytes(frame[10:18], "big") if kind != 68 else 1
        start = header_of(frame)[0] if kind != 70 else 18
        shapes.append((kind, number, len(frame) - start))
        data += frame[start:]
    return shapes, data


def sent_by(beam: Beam, source: str) -> tuple[RawPeer, Atom, list[bytes], Signal]:
    """What a BEAM sends for ``source``, in which ``A`` is an atom: to whom, that atom, the frames, and their signal.

    Of two atoms that need the same slot of the cache one is in full. Which atoms do is chance, by the numbers that the
    BEAM gave them: where that is so another peer is sent the message, with another atom.
    """
    for _ in range(20):
        word = Atom(f"word_{secrets.token_hex(4)}")
        with RawPeer(beam) as peer:
            peer.run(f"Pid ! {source}", A=word)
            frames: list[bytes] = []
            signals: list[Signal] = []
            while not signals:
                frames.append(peer.frame())
                signals = peer.channel.receive_data(framed(frames[-1]))
        behind_headers = shape(frames)[1]
        if not any(name.encode() in behind_headers for name in (beam.name, peer.name.name, word.name)):
            return peer, word, frames, signals[0]
    pytest.fail("each time two atoms need the same slot")


@pytest.mark.rule("Fragments and atom cache: a message is cut where a BEAM cuts it")
@pytest.mark.parametrize(
    "source",
    [
        "binary:copy(<<1>>, 65400)",
        "binary:copy(<<1>>, 65498)",  # one byte more than a fragment takes
        "binary:copy(<<1>>, 65536)",
        "binary:copy(<<1>>, 200000)",
        "binary:copy(<<1>>, 1000000)",
        "lists:seq(1000, 60000)",
        '[{I, A, I / 8, <<"row ", I:32>>} || I <- lists:seq(1, 9000)]',
        'maps:from_list([{{A, I}, <<"value ", I:32>>} || I <- lists:seq(1, 5000)])',
        "lists:duplicate(8000, <<1:800>>)",
        "lists:duplicate(30, binary:copy(<<1>>, 10000))",
        "lists:duplicate(70000, A)",
    ],
)
def test_frames_are_those_of_a_beam(beam: Beam, source: str) -> None:
    """The same signal, sent by us, makes the same frames byte for byte, but for sequence ids and cache slots."""
    peer, word, theirs, signal = sent_by(beam, source)
    channel = DistChannel(peer.agreed, peer=beam.name)
    channel.send(*signal)
    ours = [frame[4:] for frame in frames_of(channel.data_to_send())]
    assert shape(ours) == shape(theirs)
    assert beam.eval_sync(f"X =:= {source}", X=signal[1], A=word) is True


@pytest.mark.rule("Fragments and atom cache: a message of less than a fragment may be called one")
def test_a_beam_that_expected_more_sends_one_fragment(beam: Beam) -> None:
    """It reckons with more bytes than it then writes, and has chosen the header of fragments already."""
    _, _, (frame,), (_, payload) = sent_by(beam, "binary:copy(<<1>>, 65490)")
    assert frame[1] == 69
    assert len(frame) < FRAGMENT_SIZE + 100
    assert payload == b"\x01" * 65490


# ------------------------------------------------------------------------------------------- what is taken, what is not


def bare(term: Any) -> bytes:
    """A term without its version byte."""
    return encode(term)[1:]


def message_to(peer: RawPeer, echo: Pid) -> bytes:
    return bare((22, peer.pid, echo))


def unlink(peer: RawPeer, echo: Pid) -> bytes:
    """A control message without a payload."""
    return bare((35, 5, peer.pid, echo))


def words(peer: RawPeer) -> bytes:
    """A payload the echo answers."""
    return bare((peer.pid, 1))


def first(number: int, body: bytes, sequence: int = 5) -> bytes:
    return fragment(69, sequence, number, b"\0" + body)


def more(number: int, body: bytes = b"", sequence: int = 5) -> bytes:
    return fragment(70, sequence, number, body)


def headed(header: bytes, peer: RawPeer, echo: Pid) -> bytes:
    return framed(b"\x83D" + header + message_to(peer, echo) + words(peer))


#: What is agreed, and bytes for the process that echoes. None of them is known to harm a BEAM.
TAKEN: Final[dict[str, tuple[DFlag, Callable[[RawPeer, Pid], bytes]]]] = {
    "ticks": (OFFERED, lambda p, e: bytes(12) + framed(b"\x83D\0" + message_to(p, e) + words(p)) + bytes(4)),
    "bytes behind a signal": (OFFERED, lambda p, e: framed(b"\x83D\0" + unlink(p, e) + b"junk")),
    "bytes behind a payload": (OFFERED, lambda p, e: framed(b"\x83D\0" + message_to(p, e) + words(p) + b"junk")),
    "a payload nobody asked for": (OFFERED, lambda p, e: framed(b"\x83D\0" + unlink(p, e) + words(p))),
    "an operation in 32 bits": (
        OFFERED,
        lambda p, e: framed(b"\x83D\0h\3b\0\0\0\x16" + bare(p.pid) + bare(e) + words(p)),
    ),
    "a large tuple": (OFFERED, lambda p, e: framed(b"\x83D\0i\0\0\0\3a\x16" + bare(p.pid) + bare(e) + words(p))),
    "an atom of 1,020 bytes": (
        OFFERED,
        lambda p, e: headed(b"\x01\x18\x05\x03\xfc" + "\N{GRINNING FACE}".encode() * 255, p, e),
    ),
    "the empty atom": (OFFERED, lambda p, e: headed(b"\x01\x08\x05\0", p, e)),
    "a slot filled twice in a header": (OFFERED, lambda p, e: headed(b"\x02\x88\0\x05\x01a\x05\x01b", p, e)),
    "a message in one fragment": (OFFERED, lambda p, e: first(1, message_to(p, e) + words(p))),
    "a message in one fragment, sequence 0": (OFFERED, lambda p, e: first(1, message_to(p, e) + words(p), 0)),
    "a sequence id again": (OFFERED, lambda p, e: (first(2, message_to(p, e)) + more(1, words(p))) * 2),
    "empty fragments": (OFFERED, lambda p, e: first(4, message_to(p, e)) + more(3) + more(2, words(p)) + more(1)),
    "ticks between fragments": (
        OFFERED,
        lambda p, e: first(2, message_to(p, e)) + bytes(8) + more(1, words(p)) + bytes(4),
    ),
    "bytes behind a payload in fragments": (
        OFFERED,
        lambda p, e: first(2, message_to(p, e) + words(p)) + more(1, b"junk"),
    ),
    "a signal without a payload in fragments": (OFFERED, lambda p, e: first(2, unlink(p, e) + b"x") + more(1, b"y")),
    "a header, but no atom cache": (NO_CACHE, lambda p, e: framed(b"\x83D\0" + message_to(p, e) + words(p))),
    "fragments, but no atom cache": (NO_CACHE, lambda p, e: first(2, message_to(p, e)) + more(1, words(p))),
    "passed through": (PASSED_THROUGH, lambda p, e: p.plain((22, p.pid, e), (p.pid, 1))),
    "passed through behind any byte": (
        PASSED_THROUGH,
        lambda p, e: framed(b"\0" + p.plain((22, p.pid, e), (p.pid, 1))[5:]),
    ),
    "bytes behind what is passed through": (
        PASSED_THROUGH,
        lambda p, e: framed(p.plain((22, p.pid, e), (p.pid, 1))[4:] + b"junk"),
    ),
    "SEND_SENDER that was not agreed on": (
        OFFERED & ~DFlag.SEND_SENDER,
        lambda p, e: p.plain((22, p.pid, e), (p.pid, 1)),
    ),
    "MONITOR_P that was not agreed on": (
        OFFERED & ~DFlag.DIST_MONITOR,
        lambda p, e: p.plain((19, p.pid, e, p.reference())),
    ),
    "ALIAS_SEND that was not agreed on": (OFFERED & ~DFlag.ALIAS, lambda p, e: p.plain((33, p.pid, p.reference()), 1)),
    "PAYLOAD_EXIT2 that was not agreed on": (
        OFFERED & ~DFlag.EXIT_PAYLOAD,
        lambda p, e: p.plain((26, p.pid, p.run("plain_processes:dead_pid()")), 1),
    ),
    "SPAWN_REQUEST that was not agreed on": (
        OFFERED & ~DFlag.SPAWN,
        lambda p, e: p.plain((29, p.reference(), p.pid, p.pid, (Atom("erlang"), Atom("node"), 0), []), []),
    ),
}

#: The same, and what our side says of it.
REFUSED: Final[dict[str, tuple[DFlag, Callable[[RawPeer, Pid], bytes], str]]] = {
    "one byte": (OFFERED, lambda _p, _e: framed(b"\x83"), "no frame begins with"),
    "two bytes": (OFFERED, lambda _p, _e: framed(b"\x83D"), "no frame begins with"),
    "another kind of frame": (OFFERED, lambda _p, _e: framed(b"\x83G\0"), "no frame begins with"),
    "a version byte behind the header": (
        OFFERED,
        lambda p, e: framed(b"\x83D\0\x83" + message_to(p, e) + words(p)),
        "unknown tag 131",
    ),
    "no payload": (OFFERED, lambda p, e: framed(b"\x83D\0" + message_to(p, e)), "SEND_SENDER without its message"),
    "a compressed payload": (
        OFFERED,
        lambda p, e: framed(b"\x83D\0" + message_to(p, e) + b"P" + bytes(8)),
        "compressed term cannot stand here",
    ),
    "a slot that was never filled": (
        OFFERED,
        lambda _p, _e: framed(b"\x83D\x01\x00\x05R\0"),
        "slot 5 was never filled",
    ),
    "an atom of no UTF-8": (OFFERED, lambda p, e: headed(b"\x01\x08\x05\x02\xff\xfe", p, e), "not UTF-8"),
    "an atom of 256 characters": (
        OFFERED,
        lambda p, e: headed(b"\x01\x18\x05\x01\0" + b"a" * 256, p, e),
        "at most 255 characters",
    ),
    "a header that is cut": (OFFERED, lambda _p, _e: framed(b"\x83D\xff\0"), "cut short"),
    "an atom that is cut": (OFFERED, lambda _p, _e: framed(b"\x83D\x01\x08\x05\x20abc"), "cut short"),
    "a fragment's header that is cut": (OFFERED, lambda _p, _e: framed(b"\x83E" + bytes(15)), "cut short"),
    "a fragment of nothing": (OFFERED, lambda p, _e: more(1, words(p)), "sequence 5 was never begun"),
    "a sequence begun twice": (OFFERED, lambda p, e: first(3, message_to(p, e)) * 2, "begins a second time"),
    "a sequence begun again with its last": (
        OFFERED,
        lambda p, e: first(3, message_to(p, e)) + first(1, message_to(p, e) + words(p)),
        "begins a second time",
    ),
    "a fragment left out": (
        OFFERED,
        lambda p, e: first(3, message_to(p, e)) + more(1, words(p)),
        "fragment 1 of sequence 5 where 2 is due",
    ),
    "a number twice": (
        OFFERED,
        lambda p, e: first(3, message_to(p, e)) + more(3, words(p)),
        "fragment 3 of sequence 5 where 2 is due",
    ),
    "a control tuple in two fragments": (
        OFFERED,
        lambda p, e: first(2, message_to(p, e)[:9]) + more(1, message_to(p, e)[9:] + words(p)),
        "truncated",
    ),
    "passed through behind a header's agreement": (
        OFFERED,
        lambda p, e: framed(b"p" + encode((22, p.pid, e)) + encode((p.pid, 1))),
        "passed through, but a distribution header was agreed on",
    ),
    "passed through where fragments were agreed on": (
        NO_CACHE,
        lambda p, e: framed(b"p" + encode((22, p.pid, e)) + encode((p.pid, 1))),
        "passed through, but a distribution header was agreed on",
    ),
    "a fragment that was not agreed on": (
        NO_FRAGMENTS,
        lambda p, e: first(1, message_to(p, e) + words(p)),
        "fragments were not agreed on",
    ),
    "a header that was not agreed on": (
        PASSED_THROUGH,
        lambda p, e: framed(b"\x83D\0" + message_to(p, e) + words(p)),
        "no frame begins with",
    ),
    "a header behind 112": (
        PASSED_THROUGH,
        lambda p, e: framed(b"p\x83D\0" + message_to(p, e) + words(p)),
        "no frame begins with",
    ),
    "a payload passed through without its version": (
        PASSED_THROUGH,
        lambda p, e: framed(b"p" + encode((22, p.pid, e)) + words(p)),
        "no version byte",
    ),
}


@pytest.fixture
def echo(beam: Beam) -> Pid:
    pid = beam.eval_sync("plain_processes:spawn_echo()")
    assert isinstance(pid, Pid)
    return pid


def ours(peer: RawPeer, said: bytes) -> DistChannel:
    """Our side of the same connection, having heard the same."""
    channel = DistChannel(peer.agreed, peer=peer.name.name)
    channel.receive_data(said)
    return channel


@pytest.mark.rule("Fragments and atom cache: what a BEAM takes is taken")
@pytest.mark.parametrize("case", TAKEN)
def test_what_a_beam_takes_we_take(beam: Beam, echo: Pid, case: str) -> None:
    flags, frames = TAKEN[case]
    with RawPeer(beam, flags) as peer:
        said = frames(peer, echo)
        peer.say(said)
        assert peer.still_heard(echo)
        assert ours(peer, said).failure is None


@pytest.mark.rule("Fragments and atom cache: what a BEAM refuses is refused")
@pytest.mark.parametrize("case", REFUSED)
def test_what_a_beam_refuses_we_refuse(beam: Beam, echo: Pid, case: str) -> None:
    flags, frames, complaint = REFUSED[case]
    with RawPeer(beam, flags) as peer:
        said = frames(peer, echo)
        failure = ours(peer, said).failure
        assert failure is not None
        assert complaint in failure.message
        assert failure.peer == peer.name.name
        assert failure.offset is not None
        assert failure.rule is not None
        peer.say(said)
        assert not peer.still_heard(echo)


@pytest.mark.rule("Fragments and atom cache: without an atom cache all atoms are in full, both ways")
@pytest.mark.parametrize(
    "flags", [NO_CACHE, NO_FRAGMENTS, PASSED_THROUGH], ids=["fragments alone", "cache alone", "neither"]
)
def test_channels_of_other_agreements(beam: Beam, flags: DFlag) -> None:
    terms = [bytes(300_000), [Atom(f"fixture_atom_{n}") for n in range(1, 700)], Atom("é" * 255), 1, True]
    with RawPeer(beam, flags) as peer:
        echo = peer.run("plain_processes:spawn_echo()")
        for term in terms * 2:
            peer.send((22, peer.pid, echo), (peer.pid, term))
            control, payload = peer.signal()
            assert (control, payload) == ((22, echo, peer.pid), (Atom("echo"), echo, term))
        frames: list[bytes] = []
        peer.run("Pid ! {hello, big_terms:binary(100000)}")
        while not frames or not peer.channel.receive_data(framed(frames[-1])):
            frames.append(peer.frame())
    kinds = {NO_CACHE: [b"\x83E", b"\x83F"], NO_FRAGMENTS: [b"\x83D"], PASSED_THROUGH: [b"p\x83"]}
    assert [frame[:2] for frame in frames] == kinds[flags]
