"""``wire/header.py``: headers as drawn in the manual, genuine ones, the writer against the reader."""

from __future__ import annotations

import pytest

from erlang_interop.errors import RemoteProtocolError
from erlang_interop.terms import Atom
from erlang_interop.wire.header import CACHE_SLOTS, HeaderReader, HeaderWriter

# Genuine: the first and the second header an OTP 27 node sent on a connection, up to the terms.
FIRST = bytes.fromhex("03f90e6f0d783237403132372e302e302e31d50c7079403132372e302e302e3109066563686f6564")
FIRST_ATOMS = [Atom("x27@127.0.0.1"), Atom("py@127.0.0.1"), Atom("echoed")]
SECOND = bytes.fromhex("0371066fd509")


def refs(*names: str) -> dict[bytes, int]:
    return {Atom(name).wire: index for index, name in enumerate(names)}


def test_genuine_headers() -> None:
    reader = HeaderReader()
    assert reader.read(FIRST + b"h\3", 0, len(FIRST) + 2) == FIRST_ATOMS
    assert reader.position == len(FIRST)
    for _ in range(3):
        assert reader.read(b"\x83\x44" + SECOND, 2, 2 + len(SECOND)) == FIRST_ATOMS
        assert reader.position == 2 + len(SECOND)


def test_no_atoms() -> None:
    reader = HeaderReader()
    assert reader.read(b"\x00h", 0, 2) == []
    assert reader.position == 1


def test_an_odd_and_an_even_number_of_references() -> None:
    """LongAtoms is in the high half of the last byte for an odd number, in a byte of its own for an even one."""
    reader = HeaderReader()
    assert reader.read(bytes.fromhex("01 18 05 0001 61"), 0, 6) == [Atom("a")]
    assert reader.read(bytes.fromhex("01 08 06 01 61"), 0, 5) == [Atom("a")]
    assert reader.read(bytes.fromhex("02 80 01 05 07 0001 62"), 0, 8) == [Atom("a"), Atom("b")]
    assert reader.read(bytes.fromhex("02 00 00 05 07"), 0, 5) == [Atom("a"), Atom("b")]
    assert reader.read(bytes.fromhex("01 0f ff 01 63"), 0, 5) == [Atom("c")]
    assert reader.read(bytes.fromhex("01 07 ff"), 0, 3) == [Atom("c")]


def test_true_false_and_nil() -> None:
    header = HeaderWriter().header(refs("true", "false", "nil", "undefined"))
    assert HeaderReader().read(header, 0, len(header)) == [True, False, None, Atom("undefined")]


def test_a_slot_filled_anew_forgets_the_headers_read() -> None:
    reader = HeaderReader()
    again = bytes.fromhex("01 00 05")
    reader.read(bytes.fromhex("01 08 05 01 61"), 0, 5)
    assert [reader.read(again, 0, 3) for _ in range(2)] == [[Atom("a")]] * 2
    reader.read(bytes.fromhex("01 08 05 01 62"), 0, 5)
    assert reader.read(again, 0, 3) == [Atom("b")]


def test_a_header_that_was_seen_before_may_still_be_cut_short() -> None:
    reader = HeaderReader()
    reader.read(FIRST, 0, len(FIRST))
    reader.read(SECOND, 0, len(SECOND))
    with pytest.raises(RemoteProtocolError):
        reader.read(SECOND, 0, len(SECOND) - 1)


@pytest.mark.parametrize("end", range(len(FIRST)))
def test_truncated_at_every_offset(end: int) -> None:
    for data in (FIRST, FIRST[:end]):  # more bytes behind the frame must not be read
        with pytest.raises(RemoteProtocolError, match="cut short") as caught:
            HeaderReader().read(data, 0, end)
        assert caught.value.offset is not None
        assert 0 <= caught.value.offset <= end


@pytest.mark.parametrize(
    ("data", "match", "offset"),
    [
        ("01 00 05", "slot 5 was never filled", 2),
        ("02 08 00 05 01 61 07", "slot 7 was never filled", 6),
        ("01 08 05 02 ff fe", "not UTF-8", 4),
        ("01 18 05 0100" + "61" * 256, "255", 5),
    ],
)
def test_malformed(data: str, match: str, offset: int) -> None:
    raw = bytes.fromhex(data)
    with pytest.raises(RemoteProtocolError, match=match) as caught:
        HeaderReader().read(raw, 0, len(raw))
    assert caught.value.offset == offset
    assert caught.value.rule == "Distribution Header"


@pytest.mark.parametrize("count", [0, 1, 2, 3, 24, 254, 255])
@pytest.mark.parametrize("text", ["atom{}", "{}" + "中" * 100])
def test_writer_against_reader(count: int, text: str) -> None:
    names = [text.format(i) for i in range(count)]
    writer, reader = HeaderWriter(), HeaderReader()
    first = writer.header(refs(*names))
    again = writer.header(refs(*names))
    mixed = writer.header(refs(*names[: count // 2], "new"))
    for header, expected in ((first, names), (again, names), (mixed, [*names[: count // 2], "new"])):
        assert reader.read(header, 0, len(header)) == [Atom(name) for name in expected]
        assert reader.position == len(header)
    assert len(again) == (1 if count == 0 else 2 + (count >> 1) + count), "nothing is announced twice"


def test_more_atoms_than_slots() -> None:
    writer, reader = HeaderWriter(), HeaderReader()
    names = [f"a{i}" for i in range(3 * CACHE_SLOTS + 17)]
    for _ in range(2):
        for start in range(0, len(names), 200):
            part = names[start : start + 200]
            header = writer.header(refs(*part, "always"))
            assert reader.read(header, 0, len(header)) == [Atom(name) for name in [*part, "always"]]


def test_a_slot_taken_over_within_one_header() -> None:
    """255 atoms of which the first keeps the slot that the last new one takes: the order of the references decides."""
    writer, reader = HeaderWriter(), HeaderReader()
    for start in range(0, CACHE_SLOTS, 128):
        header = writer.header(refs(*(f"a{i}" for i in range(start, start + 128))))
        reader.read(header, 0, len(header))
    names = ["a0", "x", "a1", "a0", "y"]
    wanted = dict.fromkeys(names)
    header = writer.header(refs(*wanted))
    assert reader.read(header, 0, len(header)) == [Atom(name) for name in wanted]
    header = writer.header(refs("a0", "a1", "a2", "x", "y"))
    assert reader.read(header, 0, len(header)) == [Atom(name) for name in ("a0", "a1", "a2", "x", "y")]


def test_knows() -> None:
    writer = HeaderWriter()
    assert writer.knows({})
    assert not writer.knows(refs("a"))
    writer.header(refs("a", "b"))
    assert writer.knows(refs("b", "a"))
    for start in range(0, CACHE_SLOTS, 128):
        writer.header(refs(*(f"x{i}" for i in range(start, start + 128))))
    assert not writer.knows(refs("b", "a"))
