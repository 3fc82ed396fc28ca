"""Round trips, the two ways through the codec against each other, and junk."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from erlang_interop.errors import DecodeError, TermSyntaxError
from erlang_interop.etf import decode, encode, tags
from erlang_interop.etf._decode import decode_terms
from erlang_interop.etf._encode import TermWriter
from erlang_interop.etf.text import format_term, parse_term
from erlang_interop.terms import (
    Atom,
    BitString,
    ErlMap,
    Export,
    Fun,
    ImproperList,
    Pid,
    Port,
    Record,
    Reference,
)

u8 = st.integers(0, 255)
u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
names = st.text(st.characters(codec="utf-8"), max_size=20).filter(lambda name: name not in ("true", "false", "nil"))
atoms = names.map(Atom)
#: The empty name stands for the receiving node itself, so a BEAM puts its own in its place.
nodes = names.filter(bool).map(Atom)
pids = st.builds(Pid, nodes, u32, u32, u32)
words = st.integers(1, 5).flatmap(lambda count: st.binary(min_size=4 * count, max_size=4 * count))
leaves = st.one_of(
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    atoms,
    st.booleans(),
    st.none(),
    st.binary(max_size=40),
    st.builds(BitString, st.binary(min_size=1, max_size=10), st.integers(1, 7)),
    pids,
    st.builds(Port, nodes, u64, u32),
    st.builds(Reference, nodes, u32, words),
    st.builds(Export, atoms, atoms, u8),
    st.lists(u8, max_size=20),
)


def as_decoded(pairs: list[tuple[Any, Any]]) -> Any:
    """A map as the decoder makes it: a dict where that loses nothing. Keys that Erlang takes for one are left out."""
    different = {}
    for key, value in pairs:
        different[ErlMap([(key, None)]).identity] = (key, value)
    pairs = list(different.values())
    try:
        plain = dict(pairs)
    except TypeError:
        return ErlMap(pairs)
    return plain if len(plain) == len(pairs) else ErlMap(pairs)


@st.composite
def terms(draw: st.DrawFn, depth: int = 3, leaf: st.SearchStrategy[Any] = leaves, *, readable: bool = False) -> Any:
    """Any term; with ``readable`` only those whose source form says everything."""
    kind = draw(st.integers(0, 4 if readable else 6)) if depth else 0
    if kind == 0:
        return draw(leaf)
    parts = [draw(terms(depth - 1, leaf, readable=readable)) for _ in range(draw(st.integers(0, 4)))]
    if kind == 1:
        return parts
    if kind == 2:
        return tuple(parts)
    if kind == 3:
        return ImproperList(parts, draw(no_list(depth - 1, leaf, readable=readable))) if parts else parts
    if kind == 4:
        return as_decoded(list(zip(parts[::2], parts[1::2], strict=False)))
    if kind == 5:
        uniq = draw(st.binary(min_size=16, max_size=16))
        return Fun(draw(atoms), draw(u32), uniq, draw(u32), draw(u64), draw(u8), draw(pids), tuple(parts))
    fields = draw(st.lists(atoms, min_size=len(parts), max_size=len(parts), unique=True))
    return Record(draw(atoms), draw(atoms), draw(st.booleans()), tuple(zip(fields, parts, strict=True)))


def no_list(depth: int, leaf: st.SearchStrategy[Any], *, readable: bool) -> st.SearchStrategy[Any]:
    return terms(depth, leaf, readable=readable).filter(lambda tail: not isinstance(tail, list))


readable_leaves = st.one_of(
    st.integers(), st.floats(allow_nan=False, allow_infinity=False), atoms, st.booleans(), st.binary(max_size=20)
)


@given(terms())
def test_decode_undoes_encode(term: Any) -> None:
    data = encode(term)
    again, end = decode(data)
    assert end == len(data)
    assert type(again) is type(term)
    assert again == term
    assert repr(again) == repr(term)
    assert encode(again) == data


@given(terms(), terms())
def test_both_ways_through_the_codec_agree(first: Any, second: Any) -> None:
    """160 tuples around a term force the way with an explicit stack; the rest must be the same."""
    deep = (first, second)
    for _ in range(160):
        deep = (deep,)  # type: ignore[assignment]
    data = encode((first, second))[1:]
    assert encode(deep) == b"\x83" + b"h\1" * 160 + data
    again = decode(b"\x83" + b"h\1" * 160 + data)[0]
    for _ in range(160):
        (again,) = again
    assert repr(again) == repr((first, second))


@given(st.lists(terms(), max_size=3))
def test_header_atoms_change_nothing(several: list[Any]) -> None:
    writer, refs = TermWriter(), dict[bytes, int]()
    for term in several:
        writer.write_term(term, refs)
    body = writer.take()
    header = [decode(b"\x83" + wire)[0] for wire in refs]
    again, end = decode_terms(b"x" + body + b"xx", 1, 1 + len(body), len(several), header)
    assert end == 1 + len(body)
    assert repr(again) == repr(several)


@given(terms(), st.data())
def test_cut_anywhere(term: Any, data: st.DataObject) -> None:
    whole = encode(term)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(DecodeError) as caught:
        decode(whole[:cut])
    assert 0 <= caught.value.offset <= cut


@given(terms(), st.data())
def test_one_byte_changed(term: Any, data: st.DataObject) -> None:
    """Either it is still a term, and then a stable one, or it is a DecodeError."""
    whole = bytearray(encode(term))
    at = data.draw(st.integers(1, len(whole) - 1))
    whole[at] = data.draw(u8)
    check_junk(bytes(whole))


def check_junk(junk: bytes) -> None:
    term, end = None, 0
    try:
        term, end = decode(junk)
    except DecodeError as error:
        end = error.offset
    assert 0 <= end <= len(junk)
    again, _ = decode(encode(term))
    assert repr(again) == repr(term)
    format_term(term)


TAGS = sorted(tags.NAMES)


@settings(max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(TAGS), st.binary(max_size=8)), min_size=1, max_size=12))
@example([(tags.SMALL_BIG_EXT, b"")])
def test_junk_that_begins_like_terms(pieces: list[tuple[int, bytes]]) -> None:
    check_junk(b"\x83" + b"".join(bytes((tag,)) + rest for tag, rest in pieces))
    check_junk(b"\x83" + b"h\1" * 120 + b"".join(bytes((tag,)) + rest for tag, rest in pieces))


@given(st.binary(), st.integers(0, 20), st.integers(0, 4), st.lists(atoms, max_size=3))
def test_junk_in_a_frame(junk: bytes, start: int, count: int, header: list[Atom]) -> None:
    try:
        _, end = decode_terms(junk, min(start, len(junk)), len(junk), count, header)
    except DecodeError as error:
        end = error.offset
    assert min(start, len(junk)) <= end <= len(junk)


@given(terms(leaf=readable_leaves, readable=True))
def test_parse_undoes_format(term: Any) -> None:
    again = parse_term(format_term(term))
    assert repr(again) == repr(term)


@given(terms())
def test_every_term_has_a_text(term: Any) -> None:
    assert format_term(term).isprintable()


@given(st.text(st.sampled_from("aZ_09.,|<>[]{}#=$\"'\\-+~:/ @\n\x00éfun")))
def test_any_text_is_a_term_or_a_syntax_error(source: str) -> None:
    try:
        encode(parse_term(source))
    except TermSyntaxError as error:
        offset = error.offset
    else:
        offset = 0
    assert 0 <= offset <= len(source)
