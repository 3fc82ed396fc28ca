"""``wire/channel.py``: genuine frames, two channels back to back, and everything a peer can do wrong."""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest

from erlang_interop.errors import EncodeError, RemoteProtocolError
from erlang_interop.etf import encode
from erlang_interop.flags import OFFERED, DFlag
from erlang_interop.terms import Atom, Pid, Record, Reference
from erlang_interop.wire.channel import FRAGMENT_SIZE, DistChannel, Limits
from erlang_interop.wire.control import BY_OP, LAYOUTS, NO_PAYLOAD, Layout, Op
from tests.parsing import frames_of, interleaved, portions
from tests.unit.wire.test_control import GOOD

A, B = Atom("a@h"), Atom("b@h")
FROM, TO = Pid(A, 1, 2, 3), Pid(B, 4, 5, 6)
NO_CACHE = OFFERED & ~DFlag.DIST_HDR_ATOM_CACHE
UNCUT = OFFERED & ~DFlag.FRAGMENTS
PASS_THROUGH = NO_CACHE & UNCUT
#: What nodes may agree on, as far as the bytes of frames depend on it.
AGREED = {"cache": OFFERED, "no fragments": UNCUT, "no cache": NO_CACHE, "pass through": PASS_THROUGH}

Signal = tuple[tuple[Any, ...], Any]
HEADER = b"\x83\x44\x00"


def row(op: Op) -> Layout:
    found = BY_OP[op]
    assert found is not None
    return found


REG_SEND = row(Op.REG_SEND).pack(FROM, Atom("logger"))


def pair(agreed: DFlag = OFFERED, limits: Limits | None = None) -> tuple[DistChannel, DistChannel]:
    """The channel of node a, which sends, and that of node b."""
    return DistChannel(agreed, peer="b@h"), DistChannel(agreed, peer="a@h", limits=limits)


def transfer(a: DistChannel, b: DistChannel, size: int = 65536) -> list[Signal]:
    signals = [signal for portion in portions(a.data_to_send(), size) for signal in b.receive_data(portion)]
    assert b.failure is None, b.failure
    return signals


def frame(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def fragment(kind: int, sequence: int, number: int, body: bytes) -> bytes:
    return frame(struct.pack(">BBQQ", 131, kind, sequence, number) + body)


def plain(agreed: DFlag, *terms: Any) -> bytes:
    """The body of a frame in the form agreed on, all atoms in full."""
    if agreed == PASS_THROUGH:
        return b"p" + b"".join(encode(term) for term in terms)
    return HEADER + b"".join(encode(term)[1:] for term in terms)


# -------------------------------------------------------------------------------------------------------- genuine bytes

# Genuine: what an OTP 27 node sent first on a connection, {echoed, 1} and {echoed, -5} to pid 1 of py@127.0.0.1.
GENUINE = bytes.fromhex(
    "00000052834403f90e6f0d783237403132372e302e302e31d50c7079403132372e302e302e3109066563686f6564"
    "6803611658520000000059000000006b0101e5585201000000010000000000000007680252026101"
    "0000003383440371066fd5096803611658520000000059000000006b0101e5"
    "5852010000000100000000000000076802520262fffffffb"
)
X27 = Pid(Atom("x27@127.0.0.1"), 0x59, 0, 0x6B0101E5)
PY = Pid(Atom("py@127.0.0.1"), 1, 0, 7)
GENUINE_SIGNALS = [((22, X27, PY), (Atom("echoed"), 1)), ((22, X27, PY), (Atom("echoed"), -5))]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 50, 87, 1000])
def test_genuine_frames_in_any_portions(size: int) -> None:
    channel = DistChannel(OFFERED, peer="x27@127.0.0.1")
    received = []
    for portion in portions(GENUINE + bytes(4) + GENUINE[86:], size):
        received += channel.receive_data(portion)
    assert channel.failure is None
    assert received == [*GENUINE_SIGNALS, GENUINE_SIGNALS[1]]
    assert channel.frames_received == 4
    assert channel.bytes_received == len(GENUINE) + 4 + 55


def test_the_same_signals_make_frames_of_the_same_form() -> None:
    """Slots are for the sender to choose; everything else is as in the genuine frames."""
    channel = DistChannel(OFFERED, peer="py@127.0.0.1")
    for control, payload in GENUINE_SIGNALS:
        channel.send(control, payload)
    data = channel.data_to_send()
    assert data[:86] == GENUINE[:7] + bytes.fromhex("880800") + GENUINE[10:24] + b"\1" + GENUINE[25:38] + (
        b"\2" + GENUINE[39:86]
    )
    assert data[86:] == GENUINE[86:93] + bytes.fromhex("0000000102") + GENUINE[98:]


# --------------------------------------------------------------------------------------------------------- back to back


@pytest.mark.parametrize("agreed", AGREED.values(), ids=AGREED)
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_every_row_travels(layout: Layout, agreed: DFlag) -> None:
    a, b = DistChannel(agreed, peer="py@h"), DistChannel(agreed, peer="beam@h")
    sent: list[Signal] = []
    for choice in range(6):
        slots = [GOOD[kind][choice % len(GOOD[kind])] for kind in layout.kind_names]
        sent.append(((layout.op, *slots), (Atom("message"), choice) if layout.has_payload else NO_PAYLOAD))
    for control, payload in sent:
        a.send(control, payload)
    assert transfer(a, b, 7) == sent
    assert a.frames_sent == b.frames_received == 6
    assert a.bytes_sent == b.bytes_received


@pytest.mark.parametrize("agreed", AGREED.values(), ids=AGREED)
def test_order_ticks_and_counters(agreed: DFlag) -> None:
    a, b = pair(agreed)
    a.send(REG_SEND, 1)
    a.send_tick()
    a.send(REG_SEND, None)
    pending = a.pending
    data = a.data_to_send()
    assert (len(data), a.pending, a.data_to_send()) == (pending, 0, b"")
    assert [payload for _, payload in b.receive_data(data)] == [1, None]
    assert (a.frames_sent, a.bytes_sent) == (b.frames_received, b.bytes_received) == (3, len(data))


def test_atoms_are_announced_once_and_then_referred_to() -> None:
    a, b = pair()
    sizes = []
    for _ in range(3):
        a.send(REG_SEND, (Atom("a_rather_long_name"), True, False, None))
        sizes.append(a.pending)
        assert transfer(a, b) == [(REG_SEND, (Atom("a_rather_long_name"), True, False, None))]
    assert sizes[0] > sizes[1] == sizes[2]
    data = sizes[1]
    a.send(REG_SEND, Atom("logger"))
    assert a.pending < data


@pytest.mark.parametrize("agreed", AGREED.values(), ids=AGREED)
def test_more_atoms_than_the_cache_holds(agreed: DFlag) -> None:
    a, b = pair(agreed)
    rng = random.Random(1)
    names = [Atom(f"atom_{i}" + "中" * (i % 100)) for i in range(5000)]
    sent: list[Signal] = []
    for _ in range(3):
        rng.shuffle(names)
        start = 0
        while start < len(names):
            count = rng.choice([1, 2, 3, 30, 254, 255, 256, 400])
            sent.append((REG_SEND, names[start : start + count]))
            start += count
    for control, payload in sent:
        a.send(control, payload)
    assert transfer(a, b) == sent


@pytest.mark.parametrize("agreed", [OFFERED, NO_CACHE], ids=["cache", "no cache"])
def test_five_megabytes_in_fragments(agreed: DFlag) -> None:
    a, b = pair(agreed)
    message = [(Pid(A, i, 0, 1), bytes(100), Atom(f"a{i % 3000}")) for i in range(40_000)]
    a.send(REG_SEND, message)
    a.send(REG_SEND, b"behind")
    size = a.pending
    assert size > 5_000_000
    assert a.frames_sent > size // (FRAGMENT_SIZE + 100)
    assert transfer(a, b, 60_000) == [(REG_SEND, message), (REG_SEND, b"behind")]


def test_five_megabytes_in_one_frame() -> None:
    for agreed in (UNCUT, PASS_THROUGH):
        a, b = pair(agreed)
        message = random.Random(2).randbytes(5_000_000)
        a.send(REG_SEND, message)
        assert a.frames_sent == 1
        assert transfer(a, b, 65536) == [(REG_SEND, message)]


def test_a_control_tuple_beyond_a_fragment_stays_whole() -> None:
    """Without a payload nothing is cut; with one the first fragment is as long as the control tuple needs."""
    a, b = pair()
    exit_control = row(Op.EXIT).pack(FROM, TO, bytes(200_000))
    a.send(exit_control)
    assert a.frames_sent == 1
    spawn = row(Op.SPAWN_REQUEST).pack(
        Reference(A, 1, bytes(12)), FROM, FROM, (Atom("m"), Atom("f"), 1), [bytes(100_000)]
    )
    a.send(spawn, [1, b"x" * 70_000])
    assert a.frames_sent == 1 + 3
    assert transfer(a, b) == [(exit_control, NO_PAYLOAD), (spawn, [1, b"x" * 70_000])]


def test_interleaved_fragments_of_several_senders() -> None:
    a, b = pair()
    messages = [(Atom(f"message_{i}"), bytes([i]) * (FRAGMENT_SIZE * (1 + i % 3) + i)) for i in range(5)]
    sequences = []
    for message in messages:
        a.send(REG_SEND, message)
        sequences.append(frames_of(a.data_to_send()))
    stream = interleaved(sequences, random.Random(3).randrange)
    assert [number for number, _ in stream] != sorted(number for number, _ in stream)
    received = [payload for _, frame in stream for _, payload in b.receive_data(frame)]
    assert b.failure is None
    assert sorted(received, key=lambda message: message[0].name) == messages


def test_a_header_without_an_atom_cache() -> None:
    """FRAGMENTS alone brings the header, but no atoms into it; with neither, a frame is passed through."""
    frames = {}
    for name, agreed in AGREED.items():
        a, _ = pair(agreed)
        a.send(REG_SEND, Atom("hello"))
        frames[name] = a.data_to_send()[4:]
    control = encode(REG_SEND)
    assert frames["no cache"] == b"\x83D\0" + control[1:] + b"w\5hello"
    assert frames["pass through"] == b"p" + control + b"\x83w\5hello"
    assert frames["cache"] == frames["no fragments"] != frames["no cache"]


def test_bytes_behind_the_last_term_are_ignored_as_by_a_beam() -> None:
    link = (35, 1, FROM, TO)
    for agreed in AGREED.values():
        _, b = pair(agreed)
        data = b""
        for terms in ([link], [REG_SEND, 1], [link, 2], [REG_SEND, 3]):
            data += frame(plain(agreed, *terms) + b"junk") + bytes(4)
        assert b.receive_data(data) == [(link, NO_PAYLOAD), (REG_SEND, 1), (link, NO_PAYLOAD), (REG_SEND, 3)]
        assert b.failure is None


def test_a_frame_passed_through_begins_with_any_byte() -> None:
    _, b = pair(PASS_THROUGH)
    for first in (b"p", b"\0", b"\x83"):
        assert b.receive_data(frame(first + encode(REG_SEND) + encode(1))) == [(REG_SEND, 1)]
    assert b.failure is None


def test_an_operation_in_an_odd_form() -> None:
    _, b = pair()
    slots = b"".join(encode(slot)[1:] for slot in REG_SEND[1:]) + b"a\1"
    for head in (b"h\4b\0\0\0\6", b"i\0\0\0\4a\6", b"i\0\0\0\4n\1\0\6"):
        assert b.receive_data(frame(HEADER + head + slots)) == [(REG_SEND, 1)]
    assert b.failure is None


# ------------------------------------------------------------------------------------------------------------- records

RECORD = Record(Atom("geometry"), Atom("point"), True, ((Atom("x"), 1), (Atom("y"), b"2")))


@pytest.mark.parametrize("agreed", AGREED.values(), ids=AGREED)
def test_a_record_goes_only_to_who_knows_records(agreed: DFlag) -> None:
    a, b = pair(agreed)
    deep: Any = RECORD
    for _ in range(200):
        deep = (deep,)
    for message in (RECORD, [Atom("rec"), {1: (RECORD, RECORD)}], deep, [bytes(100_000), RECORD]):
        a.send(REG_SEND, message)
        assert transfer(a, b) == [(REG_SEND, message)]
    old, b = pair(agreed & ~DFlag.NATIVE_RECORDS)
    old.send(REG_SEND, Atom("before"))
    pending = old.pending
    for message in (RECORD, [Atom("rec"), {1: (RECORD, RECORD)}], deep, (bytes(5_000_000), RECORD)):
        with pytest.raises(EncodeError, match=r"#geometry:point cannot be sent: b@h has no flag NATIVE_RECORDS"):
            old.send(REG_SEND, message)
        with pytest.raises(EncodeError, match="#geometry:point cannot be sent"):
            old.send(row(Op.EXIT).pack(FROM, TO, message))
        assert old.pending == pending
    old.send(REG_SEND, bytes(5_000_000))  # of which a buffer of its own is made
    assert [payload for _, payload in transfer(old, b)] == [Atom("before"), bytes(5_000_000)]
    with pytest.raises(EncodeError, match="#geometry:point cannot be sent"):
        old.send(REG_SEND, RECORD)


# -------------------------------------------------------------------------------------------------------------- cutting


def test_one_fragment_is_a_whole_message() -> None:
    a, b = pair()
    a.send(REG_SEND, 1)
    body = a.data_to_send()[6:]
    assert b.receive_data(frame(b"\x83\x45" + struct.pack(">QQ", 1, 1) + body)) == [(REG_SEND, 1)]
    assert b.failure is None


# ------------------------------------------------------------------------------------------------------- errors of ours


@pytest.mark.parametrize("agreed", AGREED.values(), ids=AGREED)
def test_what_cannot_be_encoded_leaves_no_trace(agreed: DFlag) -> None:
    a, b = pair(agreed)
    a.send(REG_SEND, Atom("before"))
    pending, frames = a.pending, a.frames_sent
    cyclic: list[Any] = [Atom("never_announced")]
    cyclic.append(cyclic)
    for bad in (object(), (Atom("never_announced"), float("nan")), [Atom("n2"), {1, 2}], cyclic):
        with pytest.raises(EncodeError):
            a.send(REG_SEND, bad)
        with pytest.raises(EncodeError):
            a.send(row(Op.EXIT).pack(FROM, TO, bad))
        assert (a.pending, a.frames_sent) == (pending, frames)
    a.send(REG_SEND, (Atom("never_announced"), Atom("n2"), Atom("after")))
    assert transfer(a, b) == [
        (REG_SEND, Atom("before")),
        (REG_SEND, (Atom("never_announced"), Atom("n2"), Atom("after"))),
    ]


# ------------------------------------------------------------------------------------------------------ errors of peers

PID_A = b"X" + A.wire + struct.pack(">III", 1, 2, 3)
PID_B = b"X" + B.wire + struct.pack(">III", 4, 5, 6)
REG_X = (6, FROM, Atom(""), Atom("x"))


def failure_of(data: bytes, limits: Limits | None = None, agreed: DFlag = OFFERED) -> RemoteProtocolError:
    """What ``data`` behind a good frame is refused with; however it is cut, and with the good frame delivered."""
    good = frame(plain(agreed, REG_X, 7))
    texts = set()
    failure = None
    for size in (1, 4, 65536):
        channel = DistChannel(agreed, peer="a@h", limits=limits)
        signals = [s for portion in portions(good + data, size) for s in channel.receive_data(portion)]
        assert signals == [(REG_X, 7)]
        failure = channel.failure
        assert failure is not None
        texts.add(str(failure))
        assert channel.receive_data(good) == [], "nothing is taken after a fault"
        assert channel.failure is failure
    assert len(texts) == 1, texts
    assert failure is not None
    assert failure.peer == "a@h"
    assert failure.rule
    return failure


@pytest.mark.parametrize(
    ("body", "match", "offset"),
    [
        (b"\x83", "no frame begins with", 0),
        (b"GET / HTTP/1.1", "no frame begins with", 0),
        (b"\x83\x47\x00\x00", "no frame begins with", 0),
        (b"\x83\x50" + bytes(20), "no frame begins with", 0),
        (HEADER, "truncated", 3),
        (HEADER + b"h\x04a\x06", "truncated", 3),
        (HEADER + b"h\x04a\x06" + PID_A + b"w\0w\1x", "REG_SEND without its message", 3),
        (HEADER + b"h\x04a\x06" + PID_A + b"w\0w\1xl", "truncated", 30),
        (HEADER + b"R\x00", "ATOM_CACHE_REF 0", 3),
        (HEADER + b"j", "no control message", 3),
        (HEADER + b"h\x00", "no control message", 3),
        (HEADER + b"h\x01a\x04", "unknown operation 4", 3),
        (HEADER + b"h\x03a\x01" + PID_B + PID_B, "LINK whose from_pid is <b@h.4.5>", 3),
        (HEADER + b"h\x04a\x23a\0" + PID_A + PID_B, "UNLINK_ID whose id is 0", 3),
        (b"\x83\x44\x01\x00\x05h\x01a\x01", "slot 5 was never filled", 4),
        (b"\x83\x44\x01\x08\x05\x02\xff\xfeh\x01", "UTF-8", 6),
        (b"\x83\x45" + bytes(15), "fragment's header is cut short", 0),
        (b"\x83\x45" + struct.pack(">QQ", 5, 0) + b"\x00h\x01a\x01", "numbered down to 1", 0),
        (b"\x83\x45" + struct.pack(">QQ", 5, 2) + b"\x00h\x03a\x02w\0X", "truncated", 26),
        (b"\x83\x45" + struct.pack(">QQ", 5, 2) + b"\x00h\x03a\x02w\0w\0", "SEND whose to_pid is ''", 19),
        (b"\x83\x46" + struct.pack(">QQ", 5, 1), "never begun", 0),
        (b"\x70\x83h\x03a\x02w\0" + PID_B + b"\x83a\x01", "passed through, but a distribution header", 0),
    ],
)
def test_malformed_frames(body: bytes, match: str, offset: int | None) -> None:
    refused(failure_of(frame(body)), match, offset)


def refused(failure: RemoteProtocolError, match: str, offset: int | None) -> None:
    with pytest.raises(RemoteProtocolError, match=match):
        raise failure
    if offset is not None:
        assert failure.offset == offset


@pytest.mark.parametrize(
    ("body", "match", "offset"),
    [
        (b"p", "no frame begins with b'p'", 0),
        (b"p\x82h\x01a\x01", "no frame begins with", 0),
        (b"p\x83", "no frame begins with", 0),
        (HEADER + b"h\x03a\x02w\0" + PID_B + b"a\x01", "no frame begins with", 0),
        (b"p" + HEADER + b"h\x03a\x02w\0" + PID_B + b"a\x01", "no frame begins with", 0),
        (b"p\x83\x45" + bytes(16), "no frame begins with", 0),
        (b"p\x83h\x03a\x02w\0" + PID_B + b"\x82a\x01", "no version byte", 26),
        (b"p\x83h\x03a\x02w\0" + PID_B, "SEND without its message", 2),
        (b"p\x83h\x03a\x02w\0" + PID_B + b"\x83", "truncated", 27),
        (b"p\x83R\0", "ATOM_CACHE_REF 0", 2),
    ],
)
def test_malformed_frames_that_are_passed_through(body: bytes, match: str, offset: int) -> None:
    refused(failure_of(frame(body), agreed=PASS_THROUGH), match, offset)


def test_frames_that_were_not_agreed_on() -> None:
    message = b"h\x03a\x02w\0" + PID_B + b"a\x01"
    atoms = b"\1\x08\5\1x"
    refused(failure_of(frame(b"\x83D" + atoms + message), agreed=NO_CACHE), "no atom cache was agreed on", 2)
    refused(failure_of(fragment(69, 5, 2, atoms + message), agreed=NO_CACHE), "no atom cache was agreed on", 18)
    refused(failure_of(fragment(69, 5, 1, b"\0" + message), agreed=UNCUT), "fragments were not agreed on", 0)
    refused(failure_of(fragment(70, 5, 1, b"\0" + message), agreed=UNCUT), "fragments were not agreed on", 0)
    for agreed in (NO_CACHE, UNCUT):
        refused(failure_of(frame(b"p\x83" + message), agreed=agreed), "passed through", 0)


def test_a_frame_beyond_the_limit_is_refused_before_it_comes() -> None:
    limits = Limits(max_message=1000)
    assert "a frame of 1001 bytes; 1000 are allowed" in str(failure_of((1001).to_bytes(4, "big"), limits))
    assert "4294967295 bytes" in str(failure_of(b"\xff\xff\xff\xff"))


def test_too_much_in_fragments_is_refused() -> None:
    a, _ = pair()
    a.send(REG_SEND, bytes(3 * FRAGMENT_SIZE))
    failure = failure_of(a.data_to_send(), Limits(max_message=2 * FRAGMENT_SIZE))
    assert failure.message == f"a message of more than {2 * FRAGMENT_SIZE} bytes"
    assert failure.offset == 0


def test_nesting_beyond_the_limit_is_refused() -> None:
    body = HEADER + b"h\x04a\x06" + PID_A + b"w\0w\1x" + b"h\1" * 50 + b"a\1"
    assert "nested deeper than 20" in str(failure_of(frame(body), Limits(max_depth=20)))
    deep = HEADER + b"h\x04a\x06" + PID_A + b"w\0w\1x" + b"h\1" * 100_000 + b"a\1"
    assert "nested deeper than 10000" in str(failure_of(frame(deep)))


def test_a_genuine_stream_cut_anywhere_waits() -> None:
    for cut in range(len(GENUINE)):
        channel = DistChannel(OFFERED, peer="x27@127.0.0.1")
        early = channel.receive_data(GENUINE[:cut])
        assert len(early) == (cut >= 86)
        assert early + channel.receive_data(GENUINE[cut:]) == GENUINE_SIGNALS
        assert channel.failure is None


def test_a_genuine_frame_shortened_anywhere_is_a_fault() -> None:
    for cut in range(1, 82):
        channel = DistChannel(OFFERED, peer="x27@127.0.0.1")
        assert channel.receive_data(frame(GENUINE[4 : 4 + cut]) + GENUINE[86:]) == []
        assert isinstance(channel.failure, RemoteProtocolError)
        assert channel.failure.offset is None or 0 <= channel.failure.offset <= cut
