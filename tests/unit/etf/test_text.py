from __future__ import annotations

from typing import Any

import pytest

from erlang_interop.errors import TermSyntaxError
from erlang_interop.etf.text import format_term, parse_term
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
    charlist,
)

HOST = Atom("py@host.example")
BOTH_WAYS: list[tuple[Any, str]] = [
    (0, "0"),
    (-(2**70), "-1180591620717411303424"),
    (2**5000, "16#1" + "0" * 1250),
    (1.5, "1.5"),
    (-0.0, "-0.0"),
    (1e100, "1.0e100"),
    (1.5e-7, "1.5e-7"),
    (100.0, "100.0"),
    (1000.0, "1.0e3"),
    (0.001, "0.001"),
    (-0.0001, "-0.0001"),
    (-0.00001, "-1.0e-5"),
    (-0.0, "-0.0"),
    (123456.789, "123456.789"),
    (9007199254740991.0, "9007199254740991.0"),
    (9007199254740992.0, "9.007199254740992e15"),
    (Atom("ok"), "ok"),
    (Atom("a_B1@x"), "a_B1@x"),
    (Atom(""), "''"),
    (Atom("Hello World"), "'Hello World'"),
    (Atom("it's\n\\"), r"'it\'s\n\\'"),
    (Atom("été"), "'été'"),
    (Atom("\x00\u200b"), r"'\x{0}\x{200B}'"),
    (Atom("receive"), "'receive'"),
    (Atom("Elixir.ZenMonitor"), "'Elixir.ZenMonitor'"),
    (Atom("undefined"), "undefined"),
    (True, "true"),
    (False, "false"),
    (None, "nil"),
    (b"", "<<>>"),
    (b'a"b', r'<<"a\"b">>'),
    (b"\xff\x00", "<<255,0>>"),
    ("é€".encode(), '<<"é€"/utf8>>'),
    (BitString(b"\x01\xa0", 3), "<<1,5:3>>"),
    ([], "[]"),
    ([97, 0x20AC, 10], '"a€\\n"'),
    ([0, 1], "[0,1]"),
    ([[], [1], Atom("a")], "[[],[1],a]"),
    (ImproperList([1, 2], Atom("x")), "[1,2|x]"),
    ((), "{}"),
    ((1, (b"a",)), '{1,{<<"a">>}}'),
    ({}, "#{}"),
    ({Atom("a"): 1, b"b": [{}]}, '#{a => 1,<<"b">> => [#{}]}'),
    (ErlMap([(1, 2), (1.0, 3), ([1], 4)]), "#{1 => 2,1.0 => 3,[1] => 4}"),
    (Pid(HOST, 12, 3, 0), "<py@host.example.12.3>"),
    (Pid(Atom("py@127.0.0.1"), 12, 0, 0), "<py@127.0.0.1.12.0>"),
    (Port(HOST, 1 << 40, 0), "#Port<py@host.example.1099511627776>"),
    (Reference(HOST, 0, b"\0\0\0\1\0\0\0\2\0\0\0\3"), "#Ref<py@host.example.3.2.1>"),
    (Reference(Atom("py@127.0.0.1"), 0, b"\0\0\0\1\0\0\0\2\0\0\0\3"), "#Ref<py@127.0.0.1.3.2.1>"),
    (Export(Atom("lists"), Atom("map"), 2), "fun lists:map/2"),
    (Export(Atom("A"), Atom("+"), 2), "fun 'A':'+'/2"),
]


@pytest.mark.parametrize(("term", "source"), BOTH_WAYS, ids=[source[:30] for _, source in BOTH_WAYS])
def test_written_and_read(term: Any, source: str) -> None:
    assert format_term(term) == source
    again = parse_term(source)
    assert again == term
    assert type(again) is type(term)
    assert repr(again) == repr(term)


@pytest.mark.parametrize(
    ("term", "source"),
    [
        ("é", '<<"é"/utf8>>'),
        (bytearray(b"a"), '<<"a">>'),
        (Fun(Atom("m"), 1, b"u" * 16, 2, 3, 1, Pid(HOST, 1, 2, 3), ()), "#Fun<m.1>"),
        (Record(Atom("m"), Atom("R"), True, ((Atom("x"), [1]), (Atom("y"), ()))), "#m:'R'{x = [1],y = {}}"),
        (LocalTerm(b"abc"), "#Local<3 bytes>"),
        ({1}, "{1}"),
        ([True, 97], "[true,97]"),
        ([97, 0x110000], "[97,1114112]"),
    ],
)
def test_written(term: Any, source: str) -> None:
    assert format_term(term) == source


@pytest.mark.parametrize(
    ("source", "term"),
    [
        (" { ok , [ ] } . ", (Atom("ok"), [])),
        ("% a comment\n ok", Atom("ok")),
        ("+1", 1),
        ("- 1", -1),
        ("1_000_000", 1_000_000),
        ("16#Ff_00", 0xFF00),
        ("-2#101", -5),
        ("1_0.5e+1", 105.0),
        ("$a", 97),
        (r"$\n", 10),
        ("$ ", 32),
        (r'"\x41\x{42}\103\^A\s\e\d\q"', [65, 66, 67, 1, 32, 27, 127, 113]),
        ('"a" "b"', [97, 98]),
        ("[1|[2,3]]", [1, 2, 3]),
        ('[1|"a"]', [1, 97]),
        ('<<"é">>', b"\xe9"),
        ("<<1, $b, \"cd\", ~\"é\", 300:16, -1, 8364/utf8>>", b"\x01bcd\xc3\xa9\x01\x2c\xff\xe2\x82\xac"),
        ("<<1:4,2:4>>", b"\x12"),
        ('~"é"', "é".encode()),
        ("#{1=>a,1.0=>b}", ErlMap([(1, Atom("a")), (1.0, Atom("b"))])),
        ("fun true:'nil'/0", Export(Atom("true"), Atom("nil"), 0)),
        ("écrit", Atom("écrit")),
        ("'true'", True),
    ],
)  # fmt: skip
def test_read(source: str, term: Any) -> None:
    again = parse_term(source)
    assert again == term
    assert type(again) is type(term)


EMOJI = "\N{GRINNING FACE}".encode()
BIG: list[tuple[Any, str]] = [
    (bytes(30_000_000), "<<0,0,0,0,"),
    (b"text " * 6_000_000, '<<"text text'),
    (EMOJI * 5_000_000, '<<"\N{GRINNING FACE}'),
    (b"\xff" + b"a" * 1000, "<<255,97"),
    ("str" * 1_000_000, '<<"strstr'),
    ([1] * 1_000_000, "[1,1"),
    ([97] * 1_000_000, '"aaaa'),
    (tuple(range(1_000_000)), "{0,1,2"),
    (ImproperList([1] * 1_000_000, 2), "[1,1"),
    (dict.fromkeys(range(1_000_000), 1), "#{0 => 1,"),
    (BitString(bytes(1_000_001), 3), "<<0,0"),
    ((1 << 40_000_000) - 1, "16#FFFF"),
    (-(1 << 40_000_000) + 1, "-16#FFFF"),
]


@pytest.mark.parametrize(("term", "beginning"), BIG, ids=[beginning for _, beginning in BIG])
def test_a_text_is_cut_at_its_limit_without_a_look_at_the_rest(term: Any, beginning: str) -> None:
    text = format_term(term, limit=200)
    assert (len(text), text[-3:], text[: len(beginning)]) == (200, "...", beginning)


def test_a_text_within_its_limit_is_whole() -> None:
    for term, source in BOTH_WAYS:
        assert format_term(term, limit=len(source)) == source
        if len(source) > 3:
            assert format_term(term, limit=len(source) - 1) == source[:-4] + "..."
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    assert format_term(deep, limit=10) == "[[[[[[[..."


def test_the_creation_is_the_callers_to_know() -> None:
    creations = {"a@b": 7}
    assert parse_term("<a@b.1.2>", creations=creations) == Pid(Atom("a@b"), 1, 2, 7)
    assert parse_term("{#Port<a@b.1>,#Ref<a@b.1>,<c@d.1.2>}", creations=creations) == (
        Port(Atom("a@b"), 1, 7),
        Reference(Atom("a@b"), 7, b"\0\0\0\1"),
        Pid(Atom("c@d"), 1, 2, 0),
    )


@pytest.mark.parametrize(
    ("source", "column", "message"),
    [
        ("", 1, "expected a term, found the end"),
        ("  ", 3, "expected a term, found the end"),
        ("X", 1, "variable"),
        ("_", 1, "variable"),
        ("{a, B}", 5, "variable"),
        ("{a", 3, "expected ',' or '}', found the end"),
        ("{a,}", 4, "expected a term, found '}'"),
        ("[a;b]", 3, r"expected ',', '\|' or ']', found ';'"),
        ("[1|2,3]", 5, "expected ']', found ','"),
        ("foo bar", 5, "nothing can follow"),
        ("ok..", 4, "nothing can follow"),
        ("end", 1, "reserved word"),
        ("<1.2>", 1, "a pid is written"),
        ("<py@h.4294967296.0>", 1, "32 bits"),
        ("<py@h.99999999999999999999999.0>", 1, "32 bits"),
        ("#Ref<a@b>", 1, "expected a map"),
        ("#{a => 1 b => 2}", 10, "expected ','"),
        ("#{a, 1}", 4, "expected '=>'"),
        ("#{1 => a, 1 => b}", 1, "same key twice"),
        ('"abc', 1, 'closing " is missing'),
        (r'"\x{110000}"', 2, "no such character"),
        (r'"\xg"', 2, "escape sequence"),
        ("'" + "x" * 256 + "'", 1, "at most 255 characters"),
        ("x" * 256, 1, "at most 255 characters"),
        ("fun " + "x" * 256 + ":a/1", 5, "at most 255 characters"),
        ("fun lists", 10, "expected ':'"),
        ("fun a:b/256", 9, "0 to 255 arguments"),
        ("$", 2, "character after"),
        ("99#1", 1, "base"),
        ("2#3", 1, "not an integer"),
        ("1" * 5000, 1, "not an integer"),
        ("1.0e999", 1, "too large"),
        ("-a", 2, "expected a number"),
        ("<<a>>", 3, "expected a number"),
        ("<<1.5>>", 3, "float"),
        ("<<1:99999999>>", 5, "size of a segment"),
        ('<<"€">>', 3, "need /utf8"),
        ("<<1 2>>", 5, "expected ',' or '>>'"),
        ("{" * 300, 202, "nested deeper than 200"),
        ("\x00", 1, "expected a term"),
    ],
)
def test_unreadable(source: str, column: int, message: str) -> None:
    with pytest.raises(TermSyntaxError, match=message) as caught:
        parse_term(source)
    assert caught.value.offset == column - 1
    assert str(caught.value).endswith(f", column {column}")


def test_writes_terms_of_any_depth() -> None:
    term: Any = []
    for _ in range(100_000):
        term = [term]
    assert format_term(term) == "[" * 100_001 + "]" * 100_001


def test_text_as_numbers() -> None:
    term = [charlist("ab"), b"ab", "ż", [], {Atom("a"): (b"", [])}]
    assert format_term(term, strings=False) == "[[97,98],<<97,98>>,<<197,188>>,[],#{a => {<<>>,[]}}]"
    assert format_term(term, limit=12, strings=False) == "[[97,98],..."


def test_floats_that_are_no_terms() -> None:
    assert [format_term(number) for number in (float("inf"), float("-inf"), float("nan"))] == ["inf", "-inf", "nan"]
