"""``wire/fragments.py``: sequences that interleave, that are out of order, and that take too much."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from erlang_interop.errors import RemoteProtocolError
from erlang_interop.etf import encode
from erlang_interop.flags import OFFERED
from erlang_interop.terms import Atom, Reference
from erlang_interop.wire.channel import DistChannel, Limits
from erlang_interop.wire.control import NO_PAYLOAD
from erlang_interop.wire.fragments import FragmentReader
from erlang_interop.wire.header import HeaderWriter
from tests.parsing import portions
from tests.unit.wire.test_channel import FROM, PASS_THROUGH, REG_SEND, TO, A, fragment, frame, pair, plain, refused


def fragments() -> FragmentReader:
    return FragmentReader(max_message=1000, max_sequences=3, max_bytes=3000)


def first(reader: FragmentReader, sequence: int, fragment: int, control: object, atoms: list[Any], part: bytes) -> None:
    """A first fragment, with a control tuple that is taken to cost nothing."""
    reader.check_first(sequence, fragment)
    reader.first(sequence, fragment, control, 0, atoms, part)


def test_interleaved_sequences() -> None:
    reader = fragments()
    first(reader, 7, 3, ("control", 7), [Atom("seven")], b"7c")
    first(reader, 9, 2, ("control", 9), [Atom("nine")], b"9b")
    assert reader.further(7, 2, b"7b") is None
    assert reader.further(9, 1, b"9a") == b"9b9a"
    assert (reader.control, reader.atoms) == (("control", 9), [Atom("nine")])
    assert len(reader) == 1
    assert reader.further(7, 1, b"") == b"7c7b"
    assert (reader.control, reader.atoms) == (("control", 7), [Atom("seven")])
    assert len(reader) == 0
    first(reader, 7, 2, (), [], b"")  # an id is free again


@pytest.mark.parametrize(
    ("sequence", "fragment", "match"),
    [(8, 1, "never begun"), (7, 3, "where 2 is due"), (7, 1, "where 2 is due"), (7, 0, "where 2 is due")],
)
def test_fragments_out_of_order(sequence: int, fragment: int, match: str) -> None:
    reader = fragments()
    first(reader, 7, 3, (), [], b"")
    with pytest.raises(RemoteProtocolError, match=match) as caught:
        reader.further(sequence, fragment, b"")
    assert caught.value.rule == "Distribution Header, fragmented messages"


def test_limits_of_fragments() -> None:
    reader = fragments()
    first(reader, 1, 9, (), [], bytes(900))
    with pytest.raises(RemoteProtocolError, match="a second time"):
        first(reader, 1, 9, (), [], b"")
    first(reader, 2, 9, (), [], bytes(900))
    first(reader, 3, 9, (), [], b"")
    with pytest.raises(RemoteProtocolError, match="more than 3 messages"):
        first(reader, 4, 9, (), [], b"")
    with pytest.raises(RemoteProtocolError, match="more than 1000 bytes"):
        reader.further(1, 8, bytes(101))
    reader = fragments()
    for sequence in (1, 2, 3):
        first(reader, sequence, 9, (), [], bytes(900))
    assert reader.held == 3 * 964
    with pytest.raises(RemoteProtocolError, match="more than 3000 bytes"):
        reader.further(3, 8, bytes(100))


def test_empty_fragments_are_not_free() -> None:
    reader = fragments()
    first(reader, 1, 1000, (), [], b"")
    with pytest.raises(RemoteProtocolError, match="more than 3000 bytes"):
        for fragment in range(999, 0, -1):
            reader.further(1, fragment, b"")


def test_a_finished_message_gives_its_bytes_back() -> None:
    reader = fragments()
    for _ in range(100):
        first(reader, 1, 2, (), [], bytes(500))
        assert reader.further(1, 1, bytes(400)) == bytes(900)
        assert (reader.held, len(reader)) == (0, 0)


def test_what_is_decoded_already_counts() -> None:
    reader = fragments()
    reader.first(1, 2, ("control",), 10, [Atom("a"), True], b"")
    assert reader.held == 10 * 64 + 2 * 160 + 4 * len(Atom("a").wire) + 64
    assert reader.further(1, 1, b"") == b""
    assert reader.held == 0


def test_what_can_be_no_first_fragment() -> None:
    reader = fragments()
    with pytest.raises(RemoteProtocolError, match="numbered down to 1"):
        reader.check_first(1, 0)
    first(reader, 1, 2, (), [], b"")
    for count in (1, 2, 3):
        with pytest.raises(RemoteProtocolError, match="sequence 1 begins a second time"):
            reader.check_first(1, count)
    first(reader, 2, 2, (), [], b"")
    first(reader, 3, 2, (), [], b"")
    reader.check_first(4, 1)  # whole at once: nothing is held
    with pytest.raises(RemoteProtocolError, match="more than 3 messages"):
        reader.check_first(4, 2)


# --------------------------------------------------------------------------------------------------------- in a channel


def test_ticks_between_fragments_and_empty_fragments() -> None:
    _, b = pair()
    body = b"\0" + encode(REG_SEND)[1:]
    stream = [
        bytes(4),
        fragment(69, 7, 4, body),
        bytes(8),
        fragment(70, 7, 3, b""),
        frame(plain(OFFERED, REG_SEND, 1)),
        fragment(70, 7, 2, b"a\2"),
        bytes(4),
        fragment(70, 7, 1, b"junk"),
        fragment(69, 7, 1, body + b"a\3"),
        fragment(69, 0, 1, body + b"a\4"),
    ]
    assert b.receive_data(b"".join(stream)) == [(REG_SEND, 1), (REG_SEND, 2), (REG_SEND, 3), (REG_SEND, 4)]
    assert b.failure is None


def test_a_control_message_without_a_payload_in_fragments() -> None:
    """Odd, but a BEAM takes it: the signal counts with the last fragment."""
    _, b = pair()
    link = (35, 1, FROM, TO)
    assert b.receive_data(fragment(69, 7, 2, b"\0" + encode(link)[1:])) == []
    assert b.receive_data(fragment(70, 7, 1, b"junk")) == [(link, NO_PAYLOAD)]
    assert b.failure is None


def test_an_atom_announced_in_a_first_fragment_is_known_to_the_next_frame() -> None:
    """And one that takes its slot over in between does not change the message under way."""
    _, b = pair()
    announcing = b"\1\x08\5\5first" + encode(REG_SEND)[1:]
    assert b.receive_data(fragment(69, 7, 2, announcing)) == []
    assert b.receive_data(frame(b"\x83D\1\0\5" + encode(REG_SEND)[1:] + b"R\0")) == [(REG_SEND, Atom("first"))]
    assert b.receive_data(frame(b"\x83D\1\x08\5\6second" + encode(REG_SEND)[1:] + b"R\0")) == [
        (REG_SEND, Atom("second"))
    ]
    assert b.receive_data(fragment(70, 7, 1, b"R\0")) == [(REG_SEND, Atom("first"))]


@pytest.mark.parametrize(
    ("frames", "match", "offset"),
    [
        ([(69, 5, 3), (69, 5, 3)], "sequence 5 begins a second time", 0),
        ([(69, 5, 3), (69, 5, 1)], "sequence 5 begins a second time", 0),
        ([(69, 5, 3), (70, 5, 1)], "fragment 1 of sequence 5 where 2 is due", 0),
        ([(69, 5, 3), (70, 5, 3)], "fragment 3 of sequence 5 where 2 is due", 0),
        ([(69, 5, 2), (70, 5, 0)], "fragment 0 of sequence 5 where 1 is due", 0),
        ([(69, 5, 2), (70, 6, 1)], "sequence 6 was never begun", 0),
        ([(69, 5, 1), (70, 5, 0)], "sequence 5 was never begun", 0),
        ([(69, 5, 0)], "numbered down to 1", 0),
    ],
)
def test_fragments_that_do_not_fit(frames: list[tuple[int, int, int]], match: str, offset: int) -> None:
    control = b"\0" + encode(REG_SEND)[1:]
    _, b = pair()
    for kind, sequence, number in frames:
        assert b.failure is None
        b.receive_data(fragment(kind, sequence, number, control + b"a\1" if kind == 69 else b"\xff"))
    assert b.failure is not None
    refused(b.failure, match, offset)
    assert b.failure.peer == "a@h"
    assert b.failure.rule


def test_what_is_wrong_in_a_payload_of_fragments_is_told_from_its_start() -> None:
    body = b"\0" + encode(REG_SEND)[1:]
    data = fragment(69, 5, 3, body + b"h\2") + fragment(70, 5, 2, b"a\1") + fragment(70, 5, 1, b"\xff")
    _, b = pair()
    assert b.receive_data(data) == []
    assert b.failure is not None
    refused(b.failure, "unknown tag 255", 4)


# --------------------------------------------------------------------------------------------------------------- memory


@contextmanager
def traced() -> Iterator[Callable[[], int]]:
    """A function that tells how many bytes more are held than at the beginning."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    try:
        yield lambda: (gc.collect(), tracemalloc.get_traced_memory()[0] - before)[1]
    finally:
        tracemalloc.stop()


def test_a_frame_that_trickles_in_takes_no_more_than_its_bytes() -> None:
    _, b = pair(PASS_THROUGH)
    size = 200_000
    b.receive_data((1 << 29).to_bytes(4, "big"))
    with traced() as held:
        for number in range(size // 2):
            b.receive_data((number & 65535).to_bytes(2, "big"))
        assert b.failure is None
        assert held() < 1.2 * size
        del b
        assert held() < size / 10


def begin_sequences(b: DistChannel, part: bytes, header: bytes = b"\0", control: tuple[Any, ...] = REG_SEND) -> int:
    """Begin messages of fragments until it is too much; how many that were."""
    tuple_ = encode(control)[1:]
    for sequence in range(1, 1_000_000):
        b.receive_data(fragment(69, sequence, 2**60, header + tuple_ + part))
        if b.failure is not None:
            assert b.failure.rule == "Distribution Header, fragmented messages"
            return sequence
    raise AssertionError("there is no limit")


def test_the_fragments_a_peer_may_make_us_hold_are_limited_by_number_and_by_bytes() -> None:
    _, b = pair(limits=Limits(max_sequences=500))
    assert begin_sequences(b, b"") == 501
    limit = 1_000_000
    for part in (b"", b"x", bytes(1000), bytes(50_000)):
        with traced() as held:
            _, b = pair(limits=Limits(max_sequences=1_000_000, max_fragmented=limit))
            assert begin_sequences(b, part) > 1
            assert held() < 1.3 * limit
            del b
            assert held() < limit / 10


def test_control_tuples_and_atoms_of_messages_under_way_count_as_well() -> None:
    """A term takes many times its bytes, and an atom of few bytes in the header may be one of a thousand."""
    limit = 4_000_000
    spawn: tuple[Any, ...] = (
        29,
        Reference(A, 1, bytes(12)),
        FROM,
        FROM,
        (Atom("m"), Atom("f"), 1),
        [[] for _ in range(2000)],
    )
    with traced() as held:
        _, b = pair(limits=Limits(max_sequences=1_000_000, max_fragmented=limit))
        assert begin_sequences(b, b"", control=spawn) > 1
        assert held() < 1.3 * limit
        del b
    long = "\N{GRINNING FACE}" * 251
    with traced() as held:
        _, b = pair(limits=Limits(max_sequences=1_000_000, max_fragmented=limit))
        sequence = 0
        while b.failure is None:
            sequence += 1
            writer = HeaderWriter()  # a cache of its own: it announces all of them each time
            header = writer.header({Atom(f"{sequence:03}{i}{long}"[:255]).wire: i for i in range(255)})
            b.receive_data(fragment(69, sequence, 2, header + encode(REG_SEND)[1:]))
        assert "bytes under way in fragments" in b.failure.message
        # Beside what is under way there are the 2,048 slots of the cache; here 255 of them are in use.
        assert held() < 1.3 * limit + 255 * 3000
        del b


def test_a_lost_connection_leaves_nothing_held() -> None:
    a, _ = pair()
    a.send(REG_SEND, bytes(20_000_000))
    data = a.data_to_send()[:-1_000_000]
    with traced() as held:
        _, b = pair()
        for portion in portions(data, 65536):
            assert b.receive_data(portion) == []
        assert held() > 15_000_000
        del b, portion
        assert held() < 200_000
