from __future__ import annotations

import struct
import threading
import time
import tracemalloc
import zlib
from typing import Any

import pytest

from erlang_interop.errors import DecodeError
from erlang_interop.etf import decode, encode
from erlang_interop.etf._decode import atom_from_bytes, decode_terms
from erlang_interop.terms import (
    Atom,
    BitString,
    ErlMap,
    Export,
    Fun,
    ImproperList,
    LocalTerm,
    Pid,
    Port,
    Record,
    Reference,
)

NODE = b"w\x03a@b"
OLD_NODE = b"d\x00\x03a@b"
AB = Atom("a@b")
FUN_REST = b"w\x01m" + b"a\x02" + b"a\x03" + b"X" + NODE + bytes(12) + b"a\x09"
FUN = b"p" + struct.pack(">IB16sII", 29 + len(FUN_REST), 1, b"u" * 16, 7, 1) + FUN_REST
#: One of each tag, so that all tests below go through all of them.
SAMPLES: dict[str, tuple[bytes, Any]] = {
    "SMALL_INTEGER_EXT": (b"a\xff", 255),
    "INTEGER_EXT": (b"b\xff\xff\xff\xfe", -2),
    "SMALL_BIG_EXT": (b"n\x05\x01\0\0\0\0\1", -(1 << 32)),
    "LARGE_BIG_EXT": (b"o\0\0\1\4\0" + bytes(259) + b"\1", 1 << (259 * 8)),
    "a big of no bytes": (b"n\0\0", 0),
    "NEW_FLOAT_EXT": (b"F" + struct.pack(">d", 1.5), 1.5),
    "FLOAT_EXT": (b"c" + b"1.50000000000000000000e+00".ljust(31, b"\0"), 1.5),
    "SMALL_ATOM_UTF8_EXT": (b"w\x02ok", Atom("ok")),
    "ATOM_UTF8_EXT": (b"v\x00\x02\xc3\xa9", Atom("é")),
    "ATOM_EXT": (b"d\x00\x01\xe9", Atom("é")),
    "SMALL_ATOM_EXT": (b"s\x01\xe9", Atom("é")),
    "true": (b"d\x00\x04true", True),
    "false": (b"s\x05false", False),
    "nil": (b"w\x03nil", None),
    "BINARY_EXT": (b"m\0\0\0\x03abc", b"abc"),
    "BIT_BINARY_EXT": (b"M\0\0\0\x02\x05\x01\xff", BitString(b"\x01\xf8", 5)),
    "BIT_BINARY_EXT of whole bytes": (b"M\0\0\0\x01\x08a", b"a"),
    "NIL_EXT": (b"j", []),
    "STRING_EXT": (b"k\0\x02\x00\xff", [0, 255]),
    "LIST_EXT": (b"l\0\0\0\x02a\1a\2j", [1, 2]),
    "LIST_EXT, improper": (b"l\0\0\0\x01a\1a\2", ImproperList([1], 2)),
    "LIST_EXT in two pieces": (b"l\0\0\0\x01a\1l\0\0\0\1a\2j", [1, 2]),
    "LIST_EXT with a string behind": (b"l\0\0\0\x01a\1k\0\1\2", [1, 2]),
    "LIST_EXT without elements": (b"l\0\0\0\0j", []),
    "SMALL_TUPLE_EXT": (b"h\x02a\1j", (1, [])),
    "LARGE_TUPLE_EXT": (b"i\0\0\0\1a\1", (1,)),
    "MAP_EXT": (b"t\0\0\0\x01a\1a\2", {1: 2}),
    "MAP_EXT that needs an ErlMap": (b"t\0\0\0\x02a\1a\2w\x04truea\3", ErlMap([(1, 2), (True, 3)])),
    "NEW_PID_EXT": (b"X" + NODE + b"\xff\0\0\1\0\0\0\2\xff\0\0\3", Pid(AB, 0xFF000001, 2, 0xFF000003)),
    "PID_EXT": (b"g" + OLD_NODE + b"\0\0\0\1\0\0\0\2\3", Pid(AB, 1, 2, 3)),
    "NEW_PORT_EXT": (b"Y" + NODE + b"\0\0\0\1\0\0\0\2", Port(AB, 1, 2)),
    "PORT_EXT": (b"f" + OLD_NODE + b"\0\0\0\1\2", Port(AB, 1, 2)),
    "V4_PORT_EXT": (b"x" + NODE + b"\xff\0\0\0\0\0\0\1\0\0\0\2", Port(AB, 0xFF << 56 | 1, 2)),
    "NEWER_REFERENCE_EXT": (b"Z\0\2" + NODE + b"\xff\0\0\1" + b"abcdefgh", Reference(AB, 0xFF000001, b"abcdefgh")),
    "NEW_REFERENCE_EXT": (b"r\0\2" + OLD_NODE + b"\1" + b"abcdefgh", Reference(AB, 1, b"abcdefgh")),
    "REFERENCE_EXT": (b"e" + OLD_NODE + b"abcd" + b"\2", Reference(AB, 2, b"abcd")),
    "NEW_FUN_EXT": (FUN, Fun(Atom("m"), 7, b"u" * 16, 2, 3, 1, Pid(AB, 0, 0, 0), (9,))),
    "EXPORT_EXT": (b"qw\1mw\1fa\2", Export(Atom("m"), Atom("f"), 2)),
    "EXPORT_EXT of true": (b"qw\4truew\3nila\2", Export(Atom("true"), Atom("nil"), 2)),
    "RECORD_EXT": (
        b"C\0\0\0\2\1w\1mw\1rw\1xw\1ya\1j",
        Record(Atom("m"), Atom("r"), True, ((Atom("x"), 1), (Atom("y"), []))),
    ),
}
each_sample = pytest.mark.parametrize(("data", "value"), SAMPLES.values(), ids=list(SAMPLES))


def careful(term: bytes) -> bytes:
    """Wrap a term so deep that the way with the explicit stack has to read it."""
    return b"h\1" * 150 + term


def unwrap(value: Any) -> Any:
    for _ in range(150):
        (value,) = value
    return value


@each_sample
def test_decodes(data: bytes, value: Any) -> None:
    got, end = decode(b"\x83" + data)
    assert end == 1 + len(data)
    assert got == value
    assert type(got) is type(value)


@each_sample
def test_decodes_the_same_with_an_explicit_stack(data: bytes, value: Any) -> None:
    got, end = decode(b"\x83" + careful(data) + b"rest")
    assert end == 1 + 300 + len(data)
    got = unwrap(got)
    assert got == value
    assert type(got) is type(value)


@each_sample
def test_truncated_anywhere(data: bytes, value: Any) -> None:
    for cut in range(len(data)):
        for whole, start in ((b"\x83" + data[:cut], 1), (b"\x83" + careful(data[:cut]), 299)):
            with pytest.raises(DecodeError) as caught:
                decode(whole)
            assert start <= caught.value.offset <= len(whole)
            assert "truncated" in str(caught.value)


@each_sample
def test_stays_inside_its_frame(data: bytes, value: Any) -> None:
    """Bytes behind the frame belong to another, even where they would make a good term."""
    for cut in range(len(data)):
        with pytest.raises(DecodeError, match="truncated"):
            decode_terms(b"a\1" + data, 2, 2 + cut, 1, [])


@each_sample
def test_reads_several_terms_one_behind_the_other(data: bytes, value: Any) -> None:
    terms, end = decode_terms(b"xx" + data * 3, 2, 2 + len(data) * 3, 3, [])
    assert terms == [value] * 3
    assert end == 2 + len(data) * 3


def test_atoms_come_from_the_header() -> None:
    atoms = [atom_from_bytes(raw) for raw in (b"a@b", b"true", b"ok")]
    assert atoms == [AB, True, Atom("ok")]
    data = b"h\x03R\2R\1XR\0" + bytes(12) + b"ZR"
    assert decode_terms(data, 0, len(data), 1, atoms)[0] == [(Atom("ok"), True, Pid(AB, 0, 0, 0))]
    reference = b"Z\0\1R\0\0\0\0\1abcd"
    assert decode_terms(reference, 0, len(reference), 1, atoms)[0] == [Reference(AB, 1, b"abcd")]


def test_the_table_may_hold_a_boolean_where_a_node_is_needed() -> None:
    data = b"XR\0" + bytes(12)
    assert decode_terms(data, 0, len(data), 1, [True])[0] == [Pid(Atom("true"), 0, 0, 0)]


@pytest.mark.parametrize(
    ("data", "offset", "message"),
    [
        (b"", 0, "the data ends"),
        (b"a\1", 0, "starts with 131"),
        (b"\x83", 1, "truncated"),
        (b"\x83\x00", 1, "unknown tag 0"),
        (b"\x83u" + bytes(50), 1, "FUN_EXT cannot stand here"),
        (b"\x83h\1\x83a\1", 3, "unknown tag 131"),
        (b"\x83h\1P" + bytes(50), 3, "compressed term cannot stand here"),
        (b"\x83h\1y" + bytes(50), 3, "LOCAL_EXT cannot stand here"),
        (b"\x83R\0", 1, "lists 0 atoms"),
        (b"\x83h\2a\1XR\7" + bytes(12), 6, "ATOM_CACHE_REF 7, but the distribution header lists 0 atoms"),
        (b"\x83w\1\xff", 1, "not UTF-8"),
        (b"\x83v\1\0" + b"x" * 256, 1, "at most 255 characters"),
        (b"\x83F\x7f\xf0\0\0\0\0\0\0", 1, "nan or infinite"),
        (b"\x83F\x7f\xf8\0\0\0\0\0\0", 1, "nan or infinite"),
        (b"\x83c" + b"nan".ljust(31, b"\0"), 1, "nan or infinite"),
        (b"\x83c" + b"1e999".ljust(31, b"\0"), 1, "nan or infinite"),
        (b"\x83c" + b"one".ljust(31, b"\0"), 1, "no decimal number"),
        (b"\x83M\0\0\0\1\x09a", 1, "BIT_BINARY_EXT"),
        (b"\x83M\0\0\0\0\1", 1, "BIT_BINARY_EXT"),
        (b"\x83M\0\0\0\1\0a", 1, "BIT_BINARY_EXT"),
        (b"\x83Xa\1" + bytes(12), 2, "an atom was expected, not SMALL_INTEGER_EXT"),
        (b"\x83X" + b"X" * 2000, 2, "an atom was expected, not NEW_PID_EXT"),
        (b"\x83Z\0\0" + NODE + bytes(4), 1, "one to five words"),
        (b"\x83Z\0\6" + NODE + bytes(28), 1, "one to five words"),
        (b"\x83r\0\6" + NODE + bytes(28), 1, "one to five words"),
        (b"\x83qw\1mw\1fb\0\0\0\1", 1, "arity"),
        (b"\x83qw\1ma\1a\1", 5, "an atom was expected"),
        (b"\x83h\1l\0\0\0\0a\1", 3, "tail that is no list"),
        (b"\x83h\1t\0\0\0\2a\1a\1a\1a\2", 3, "same key twice"),
        (b"\x83t\0\0\0\2ja\1ja\2", 1, "same key twice"),
        (b"\x83h\1" + FUN[:4] + b"\xff" + FUN[5:], 3, "not as long as it says"),
        (b"\x83" + FUN.replace(b"a\2", b"j\2", 1)[:30] + FUN[30:].replace(b"a\2a\3", b"jja\3", 1), 1, "."),
        (b"\x83" + FUN.replace(b"w\1m", b"a\1j", 1), 1, "."),
        (b"\x83C\0\0\0\0\2w\1mw\1r", 1, "flags"),
        (b"\x83C\0\0\0\2\1w\1mw\1rw\1xw\1xjj", 1, "same field twice"),
        (b"\x83C\0\0\0\1\1w\1mw\1ra\1a\1", 1, "an atom was expected, not a int"),
    ],
)
def test_malformed(data: bytes, offset: int, message: str) -> None:
    with pytest.raises(DecodeError, match=message) as caught:
        decode(data)
    assert caught.value.offset == offset
    if data[:1] == b"\x83" and data[1:2] not in (b"", b"P", b"y"):
        with pytest.raises(DecodeError, match=message) as caught:
            decode(b"\x83" + careful(data[1:]))
        assert caught.value.offset == offset + 300


@pytest.mark.parametrize(
    "data",
    [
        *[tag + b"\xff\xff\xff\xff" for tag in (b"i", b"l", b"t", b"m")],
        *[tag + b"\xff\xff\xff\xff\0" for tag in (b"C", b"o", b"M")],
        FUN[:26] + b"\xff\xff\xff\xff",
    ],
)
def test_a_length_field_alone_takes_no_memory_and_no_time(data: bytes) -> None:
    whole = b"\x83" + (data + b"a\1" * 100) * 100
    tracemalloc.start()
    try:
        started = time.thread_time()
        with pytest.raises(DecodeError, match="truncated"):
            decode(whole)
        assert time.thread_time() - started < 1.0
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


LAYERS: dict[str, bytes] = {
    "tuples": b"h\1",
    "large tuples": b"i\0\0\0\1",
    "lists": b"l\0\0\0\1",
    "maps": b"t\0\0\0\1a\1",
    "maps as keys": b"t\0\0\0\1",
    "funs": FUN[:30] + b"w\1m" + b"a\2" + b"a\3" + b"X" + NODE + bytes(12),
    "records": b"C\0\0\0\1\1w\1mw\1rw\1x",
    "pids": b"X",
    "exports": b"q",
}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=list(LAYERS))
def test_nesting_ten_million_deep(layer: bytes) -> None:
    data = b"\x83" + layer * (20_000_000 // len(layer))
    started = time.thread_time()
    with pytest.raises(DecodeError, match=r"nested deeper than 10000 terms|an atom was expected"):
        decode(data)
    assert time.thread_time() - started < 2.0


@pytest.mark.parametrize("stack", [512 * 1024, 8 * 1024 * 1024])  # CPython 3.13 needs 300 kB to free such a tuple
def test_the_depth_allowed_needs_no_big_stack(stack: int) -> None:
    """A thread's stack may be much smaller than the main thread's."""
    deep = b"\x83" + b"h\1" * 9_999 + b"j"
    results: list[Any] = []
    before = threading.stack_size(stack)
    try:
        thread = threading.Thread(target=lambda: results.append(encode(decode(deep)[0])))
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    assert results == [deep]


def test_depth_is_counted_exactly() -> None:
    for depth in (0, 1, 2, 99, 100, 101, 102, 150):
        data = b"\x83" + b"h\1" * depth + b"a\1"
        assert decode(data, max_depth=depth)[1] == len(data)
        if depth:
            with pytest.raises(DecodeError, match=f"deeper than {depth - 1} terms") as caught:
                decode(data, max_depth=depth - 1)
            assert caught.value.offset == 1 + 2 * (depth - 1)


def test_deep_map_keys_do_not_recurse() -> None:
    """Two equal tuples are compared by recursion in Python, 1,000 deep at most."""
    key = b"h\1" * 5_000 + b"a\1"
    other = b"h\1" * 5_000 + b"a\2"
    with pytest.raises(DecodeError, match="same key twice"):
        decode(b"\x83t\0\0\0\2" + key + b"a\1" + key + b"a\2")
    value, _ = decode(b"\x83t\0\0\0\2" + key + b"a\1" + other + b"a\2")
    assert sorted(value.values()) == [1, 2]


def compressed(inner: bytes, size: int | None = None) -> bytes:
    return b"\x83P" + struct.pack(">I", len(inner) if size is None else size) + zlib.compress(inner)


def test_compressed() -> None:
    inner = b"l\0\0\0\x64" + b"a\1" * 100 + b"j"
    data = compressed(inner)
    assert decode(data) == ([1] * 100, len(data))
    assert decode(b"xx" + data + b"behind", offset=2) == ([1] * 100, 2 + len(data))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x83P\0\0", "truncated a compressed term"),
        (b"\x83P\0\0\0\1garbage", "cannot be inflated"),
        (compressed(b"a\1", 3), "not the 3 bytes it announces"),
        (compressed(b"a\1", 1), "not the 1 bytes it announces"),
        (compressed(b"a\1")[:-1], "not the 2 bytes it announces"),
        (compressed(b""), "truncated"),
        (compressed(b"a\1a\1"), "2 bytes too many"),
        (compressed(b"a"), "inside the compressed term, at its byte 0: truncated SMALL_INTEGER_EXT"),
        (compressed(compressed(b"a\1")[1:]), "cannot stand here"),
        (compressed(b"a\1", 0xFFFFFFFF), "more than the 16777216 allowed"),
    ],
)
def test_compressed_wrongly(data: bytes, message: str) -> None:
    with pytest.raises(DecodeError, match=message) as caught:
        decode(data)
    assert caught.value.offset == 1


@pytest.mark.parametrize("announced", [100, 1 << 20, 0xFFFFFFFF])
def test_a_bomb_is_inflated_no_further_than_allowed(announced: int) -> None:
    bomb = compressed(b"m\xff\xff\xff\xff" + bytes(200_000_000), announced)
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            decode(bomb)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_max_size_is_the_callers() -> None:
    data = compressed(b"m\0\0\1\0" + bytes(256))
    assert decode(data, max_size=261)[0] == bytes(256)
    with pytest.raises(DecodeError, match="more than the 260 allowed"):
        decode(data, max_size=260)


def test_local_ext_takes_all_the_rest() -> None:
    data = b"\x83y\x01\x02\x03a\1"
    assert decode(data) == (LocalTerm(b"\x01\x02\x03a\1"), len(data))
    assert encode(decode(data)[0]) == data


def test_any_buffer_and_offset() -> None:
    data = b"\x83h\1a\1"
    for buffer in (bytearray(b"xx" + data), memoryview(b"xx" + data)):
        assert decode(buffer, offset=2) == ((1,), 7)
    for offset in (-1, 5, 6):
        with pytest.raises(DecodeError):
            decode(data, offset=offset)


def test_a_huge_integer_takes_linear_time() -> None:
    size = 4_000_000
    data = b"\x83o" + struct.pack(">I", size) + b"\0" + b"\xff" * size
    started = time.thread_time()
    value, _ = decode(data)
    assert time.thread_time() - started < 1.0
    assert value == (1 << (8 * size)) - 1


def test_values_do_not_share_what_can_be_changed() -> None:
    data = b"\x83h\2jj"
    (first, second), _ = decode(data)
    assert first is not second


@pytest.mark.parametrize("layer", ["tuples", "large tuples", "lists", "maps", "maps as keys", "records"])
def test_a_deep_value_can_be_made_and_thrown_away(layer: str) -> None:
    depth = 100_000
    data = b"\x83" + LAYERS[layer] * depth + b"j" * (1 + depth)
    started = time.thread_time()
    value, _ = decode(data, max_depth=depth)
    del value
    assert time.thread_time() - started < 30.0


def test_a_list_in_pieces_is_one_list_and_takes_linear_time() -> None:
    count = 200_000
    started = time.thread_time()
    assert decode(b"\x83" + b"l\0\0\0\1a\1" * count + b"k\0\1\2")[0] == [1] * count + [2]
    assert decode(b"\x83" + b"l\0\0\0\1a\1" * count + b"a\2")[0] == ImproperList([1] * count, 2)
    assert time.thread_time() - started < 30.0
