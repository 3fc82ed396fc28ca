from __future__ import annotations

import collections
import enum
import struct
import sys
import threading
from typing import Any, NamedTuple

import pytest

from erlang_interop.errors import EncodeError
from erlang_interop.etf import decode, encode
from erlang_interop.etf._decode import decode_terms
from erlang_interop.etf._encode import TermWriter
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

AB = Atom("a@b")
NODE = b"w\x03a@b"
PID = Pid(AB, 0xFF000001, 2, 0xFF000003)
PID_BYTES = b"X" + NODE + b"\xff\0\0\1\0\0\0\2\xff\0\0\3"
FUN = Fun(Atom("m"), 7, b"u" * 16, 2, 3, 1, PID, (9, [Atom("x")]))
FUN_REST = b"w\x01m" + b"a\x02" + b"a\x03" + PID_BYTES + b"a\x09" + b"l\0\0\0\1w\1xj"


class Colour(enum.IntEnum):
    RED = 7


class Shade(enum.StrEnum):
    DARK = "dark"


class Plain(enum.Enum):
    ONE = 1


class Point(NamedTuple):
    x: int
    y: int


class Text(str):
    __slots__ = ()


class Number(float):
    __slots__ = ()


SAMPLES: dict[str, tuple[Any, bytes]] = {
    "0": (0, b"a\0"),
    "255": (255, b"a\xff"),
    "256": (256, b"b\0\0\1\0"),
    "-1": (-1, b"b\xff\xff\xff\xff"),
    "2**31 - 1": (2**31 - 1, b"b\x7f\xff\xff\xff"),
    "-2**31": (-(2**31), b"b\x80\0\0\0"),
    "2**31": (2**31, b"n\4\0\0\0\0\x80"),
    "-2**64": (-(2**64), b"n\x09\1" + bytes(8) + b"\1"),
    "2**2040": (2**2040, b"o\0\0\1\0\0" + bytes(255) + b"\1"),
    "float": (1.5, b"F" + struct.pack(">d", 1.5)),
    "-0.0": (-0.0, b"F" + struct.pack(">d", -0.0)),
    "atom": (Atom("ok"), b"w\2ok"),
    "long atom": (Atom("é" * 200), b"v\1\x90" + "é".encode() * 200),
    "true": (True, b"w\4true"),
    "false": (False, b"w\5false"),
    "nil": (None, b"w\3nil"),
    "Atom true": (Atom("true"), b"w\4true"),
    "bytes": (b"abc", b"m\0\0\0\3abc"),
    "bytearray": (bytearray(b"abc"), b"m\0\0\0\3abc"),
    "memoryview": (memoryview(b"xabc")[1:], b"m\0\0\0\3abc"),
    "str": ("é", b"m\0\0\0\2\xc3\xa9"),
    "bits": (BitString(b"\x01\xf8", 5), b"M\0\0\0\2\5\x01\xf8"),
    "empty list": ([], b"j"),
    "string": ([0, 255], b"k\0\2\0\xff"),
    "not quite a string": ([1, 256], b"l\0\0\0\2a\1b\0\0\1\0j"),
    "not a string either": ([1, True], b"l\0\0\0\2a\1w\4truej"),
    "list": ([[], AB], b"l\0\0\0\2j" + NODE + b"j"),
    "improper": (ImproperList([1], 2), b"l\0\0\0\1a\1a\2"),
    "tuple": ((1, ()), b"h\2a\1h\0"),
    "large tuple": ((1,) * 256, b"i\0\0\1\0" + b"a\1" * 256),
    "dict": ({1: (2,)}, b"t\0\0\0\1a\1h\1a\2"),
    "ErlMap": (ErlMap([(1, 2), (1.0, 3)]), b"t\0\0\0\2a\1a\2F" + struct.pack(">d", 1.0) + b"a\3"),
    "pid": (PID, PID_BYTES),
    "port": (Port(AB, 1 << 63, 2), b"x" + NODE + b"\x80" + bytes(7) + b"\0\0\0\2"),
    "reference": (Reference(AB, 1, b"abcdefgh"), b"Z\0\2" + NODE + b"\0\0\0\1abcdefgh"),
    "export": (Export(Atom("m"), Atom("f"), 2), b"qw\1mw\1fa\2"),
    "fun": (FUN, b"p" + struct.pack(">IB16sII", 29 + len(FUN_REST), 1, b"u" * 16, 7, 2) + FUN_REST),
    "record": (Record(Atom("m"), Atom("r"), True, ((Atom("x"), 1),)), b"C\0\0\0\1\1w\1mw\1rw\1xa\1"),
    "IntEnum": (Colour.RED, b"a\7"),
    "StrEnum": (Shade.DARK, b"m\0\0\0\4dark"),
    "str subclass": (Text("a"), b"m\0\0\0\1a"),
    "float subclass": (Number(1.5), b"F" + struct.pack(">d", 1.5)),
    "NamedTuple": (Point(1, 2), b"h\2a\1a\2"),
    "list subclass": (collections.UserList([1]).data, b"k\0\1\1"),
    "dict subclass": (collections.OrderedDict({1: 2}), b"t\0\0\0\1a\1a\2"),
}
each_sample = pytest.mark.parametrize(("term", "data"), SAMPLES.values(), ids=list(SAMPLES))


@each_sample
def test_encodes(term: Any, data: bytes) -> None:
    assert encode(term) == b"\x83" + data


@each_sample
def test_encodes_the_same_with_an_explicit_stack(term: Any, data: bytes) -> None:
    for wrap in (tuple, list):
        deep: Any = term
        for _ in range(150):
            deep = wrap([deep, [[]]])
        expected = encode(wrap([0, [[]]]))[1:]
        head, tail = expected.split(b"a\0", 1)
        assert encode(deep) == b"\x83" + head * 150 + data + tail * 150


@each_sample
def test_encodes_with_atoms_in_a_header(term: Any, data: bytes) -> None:
    writer, refs = TermWriter(), dict[bytes, int]()
    writer.write_term((term, term), refs)
    assert list(refs.values()) == list(range(len(refs)))
    atoms = [decode(b"\x83" + wire)[0] for wire in refs]
    body = writer.take()
    for wire in refs:
        assert wire not in body
    again = TermWriter()
    again.write_term(decode_terms(body, 0, len(body), 1, atoms)[0][0])
    assert again.getvalue() == b"h\2" + data * 2


def test_no_more_than_255_atoms_go_into_a_header() -> None:
    writer, refs = TermWriter(), dict[bytes, int]()
    names = [Atom(f"atom {number}") for number in range(300)]
    writer.write_term(names + names, refs)
    assert list(refs) == [atom.wire for atom in names[:255]]
    body = writer.take()
    assert decode_terms(body, 0, len(body), 1, names[:255])[0] == [names + names]


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (float("nan"), "no float nan"),
        (float("-inf"), "no float -inf"),
        (object(), "no Erlang form for builtins.object"),
        ({1}, "builtins.set: send a list"),
        (range(3), "send a list"),
        (collections.deque(), "collections.deque: send a list"),
        (1j, "two floats"),
        (Plain.ONE, "send its .value"),
        ("\ud800", "surrogate"),
        (Pid(AB, 1 << 32, 0, 0), "32 bits"),
        (Pid(AB, 0, -1, 0), "32 bits"),
        (Port(AB, 1 << 64, 0), "64 bits"),
        (Port(AB, 0, 1 << 32), "32 bits"),
        (Reference(AB, 0, b""), "one to five words"),
        (Reference(AB, 0, b"abc"), "one to five words"),
        (Reference(AB, 0, bytes(24)), "one to five words"),
        (Reference(AB, 1 << 32, bytes(4)), "32 bits"),
        (Export(AB, AB, 256), "0 to 255 arguments"),
        (Fun(AB, 0, b"short", 0, 0, 0, PID, ()), "16 bytes"),
        (Fun(AB, -1, b"u" * 16, 0, 0, 0, PID, ()), "32 bits"),
        (Fun(AB, 0, b"u" * 16, 0, 0, 0, PID, (object(),)), "no Erlang form"),
        ((LocalTerm(b"a"),), "cannot be part"),
    ],
)
def test_refuses_and_leaves_everything_as_it_was(term: Any, message: str) -> None:
    with pytest.raises(EncodeError, match=message):
        encode(term)
    deep = term
    for _ in range(150):
        deep = (AB, deep)
    for value in ([Atom("first"), (term,)], {1: term}, deep):
        writer, refs = TermWriter(), {Atom("known").wire: 0}
        writer.write(b"before")
        with pytest.raises(EncodeError, match=message):
            writer.write_term(value, refs)
        assert writer.getvalue() == b"before"
        assert refs == {Atom("known").wire: 0}


def cyclic() -> list[Any]:
    one: list[Any] = []
    one.append(one)
    two: dict[Any, Any] = {}
    two["me"] = (two,)
    three: list[Any] = [1, 2]
    three.append(ImproperList([three], 1))
    return [one, two, three]


@pytest.mark.parametrize("term", cyclic(), ids=["list", "dict", "improper"])
def test_a_structure_that_contains_itself_is_refused(term: Any) -> None:
    with pytest.raises(EncodeError, match="contains itself"):
        encode(term)


@pytest.mark.parametrize("depth", [0, 1, 2, 99, 100, 101, 102, 150])
def test_depth_is_counted_as_in_the_decoder(depth: int) -> None:
    def nested(levels: int) -> Any:
        term: Any = 1
        for level in range(levels):
            term = (term,) if level % 2 else {1: term}
        return term

    data = encode(nested(depth), max_depth=depth)
    assert decode(data, max_depth=depth)[1] == len(data)
    with pytest.raises(EncodeError, match=f"deeper than {depth} terms"):
        encode(nested(depth + 1), max_depth=depth)


def test_works_where_little_of_the_stack_is_left() -> None:
    """A caller deep in recursion of its own gets the same answer."""
    term: Any = 1
    for _ in range(90):
        term = (term,)
    data = encode(term)

    def descend(levels: int) -> tuple[bytes, Any]:
        if levels:
            return descend(levels - 1)
        return encode(term), decode(data)[0]

    here = len(list(iter_frames()))
    assert descend(sys.getrecursionlimit() - here - 30) == (data, term)


def iter_frames() -> Any:
    frame = sys._getframe()
    while frame is not None:
        yield frame
        frame = frame.f_back  # type: ignore[assignment]


def test_a_deep_term_needs_no_big_stack() -> None:
    term: Any = []
    for _ in range(9_990):
        term = [term, Atom("x")]
    results: list[Any] = []
    before = threading.stack_size(256 * 1024)
    try:
        thread = threading.Thread(target=lambda: results.append(encode(term)))
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    assert results == [b"\x83" + b"l\0\0\0\2" * 9_990 + b"j" + b"w\1xj" * 9_990]


def test_the_writer_is_a_buffer() -> None:
    writer = TermWriter()
    writer.write(b"\0\0\0\1")
    writer.write(b"abc")
    writer.write(b"\xff" * 4)
    writer.patch_u32(0, 0x80000001)
    assert len(writer) == 11
    assert writer.getvalue() == b"\x80\0\0\1abc\xff\xff\xff\xff"
    writer.truncate(7)
    assert writer.take() == b"\x80\0\0\1abc"
    assert len(writer) == 0
    assert writer.take() == b""


def test_a_local_term_stands_alone() -> None:
    assert encode(LocalTerm(b"abc")) == b"\x83yabc"
