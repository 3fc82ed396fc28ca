"""The terms of the golden files: what Erlang is asked to encode, and what must come out of our decoder.

``tools/make_golden.py`` evaluates ``source`` on each OTP and keeps what ``term_to_binary`` makes of it; the files lie
beside this one. Change the table, then run ``make golden``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Golden:
    """One line of a golden file.

    Attributes:
        label: Its name.
        source: An Erlang expression.
        value: What it is in Python; a class where it differs from run to run.
        options: Of ``term_to_binary/2``.
        canonical: Whether our encoder makes the same bytes.
        since: The OTP release that has it first.
    """

    label: str
    source: str
    value: Any
    options: str = "[]"
    canonical: bool = True
    since: int = 25


def _external(tag_and_rest: str) -> str:
    """Erlang source of a term that only another node could have made; ``a@b`` is its node."""
    return f"binary_to_term(<<131,{tag_and_rest}>>)"


_NODE = "119,3,97,64,98"  # SMALL_ATOM_UTF8_EXT 'a@b'
_AB = Atom("a@b")
_CREATION = 0xFEDCBA98
_CREATION_BYTES = "254,220,186,152"

TERMS = [
    *[
        Golden(f"integer {number}"[:40], str(number), number)
        for number in (0, 255, 256, -1, -256, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**59, 2**63, 2**64, -(2**64))
    ],
    Golden("the greatest SMALL_BIG_EXT", "(1 bsl 2040) - 1", 2**2040 - 1),
    Golden("the least LARGE_BIG_EXT", "1 bsl 2040", 2**2040),
    Golden("a negative LARGE_BIG_EXT", "-(1 bsl 9999)", -(2**9999)),
    *[
        Golden(f"float {source}", source, float(source))
        for source in ("0.0", "-0.0", "1.5", "-1.0e-3", "1.7976931348623157e308", "5.0e-324")
    ],
    Golden("FLOAT_EXT", "3.25", 3.25, "[{minor_version,0}]", canonical=False),
    Golden("atom", "ok", Atom("ok")),
    Golden("the empty atom", "''", Atom("")),
    Golden("an atom with a space", "'Hello World'", Atom("Hello World")),
    Golden("a latin-1 atom", r"'\x{e9}t\x{e9}'", Atom("été")),
    Golden("a cyrillic atom", r"'\x{41f}\x{440}'", Atom("Пр")),
    Golden("the longest ascii atom", "list_to_atom(lists:duplicate(255, $x))", Atom("x" * 255)),
    Golden("the longest latin-1 atom", "list_to_atom(lists:duplicate(255, 233))", Atom("é" * 255)),
    Golden("the longest utf-8 atom", "list_to_atom(lists:duplicate(255, 16#20ac))", Atom("€" * 255)),
    Golden("ATOM_EXT", "[ok, 'A b']", [Atom("ok"), Atom("A b")], "[{minor_version,1}]", canonical=False),
    Golden("true", "true", True),
    Golden("false", "false", False),
    Golden("nil", "nil", None),
    Golden("undefined", "undefined", Atom("undefined")),
    Golden("the empty binary", "<<>>", b""),
    Golden("a binary", '<<"abc">>', b"abc"),
    Golden("a binary of all bytes", "list_to_binary(lists:seq(0, 255))", bytes(range(256))),
    Golden("an Elixir string", '<<"\\x{e9}"/utf8>>', "é".encode()),
    Golden("one bit", "<<1:1>>", BitString(b"\x80", 1)),
    Golden("nineteen bits", "<<1,2,3:3>>", BitString(b"\x01\x02\x60", 3)),
    Golden("the empty list", "[]", []),
    Golden("a string", '"abc"', charlist("abc")),
    Golden("the ends of a byte", "[0,255]", [0, 255]),
    Golden("no string", "[0,256]", [0, 256]),
    Golden("a unicode string", "[16#20ac]", [0x20AC]),
    Golden("no string, an atom among bytes", "[1,true]", [1, True]),
    Golden("a list", "[a,[b],[[]],{}]", [Atom("a"), [Atom("b")], [[]], ()]),
    Golden("an improper list", "[1,2|3]", ImproperList([1, 2], 3)),
    Golden("an improper list of a binary", '[a|<<"b">>]', ImproperList([Atom("a")], b"b")),
    Golden("the empty tuple", "{}", ()),
    Golden("a tuple", "{ok,1,{2.5}}", (Atom("ok"), 1, (2.5,))),
    Golden("the longest SMALL_TUPLE_EXT", "list_to_tuple(lists:duplicate(255, a))", (Atom("a"),) * 255),
    Golden("the shortest LARGE_TUPLE_EXT", "list_to_tuple(lists:duplicate(256, a))", (Atom("a"),) * 256),
    Golden("the empty map", "#{}", {}),
    Golden("a map", '#{a => 1, <<"b">> => [2], {c} => #{}}', {Atom("a"): 1, b"b": [2], (Atom("c"),): {}}),
    Golden("a large map", "maps:from_list([{N, N * N} || N <- lists:seq(1, 100)])", {n: n * n for n in range(1, 101)}),
    Golden(
        "keys that Python merges",
        "#{1 => a, 1.0 => b, true => c}",
        ErlMap([(1, Atom("a")), (1.0, Atom("b")), (True, Atom("c"))]),
    ),
    Golden("keys that Python cannot hash", "#{[1000] => 2, #{} => 3}", ErlMap([([1000], 2), ({}, 3)])),
    Golden(
        "pid",
        _external(f"88,{_NODE},255,255,255,254,128,0,0,1,{_CREATION_BYTES}"),
        Pid(_AB, 2**32 - 2, 2**31 + 1, _CREATION),
    ),
    Golden("a pid of its own", "self()", Pid),
    Golden(
        "port", _external(f"120,{_NODE},255,0,0,0,0,0,0,1,{_CREATION_BYTES}"), Port(_AB, 0xFF00000000000001, _CREATION)
    ),
    Golden("a port with a small id", _external(f"89,{_NODE},0,0,0,7,{_CREATION_BYTES}"), Port(_AB, 7, _CREATION)),
    Golden("a port of its own", "hd(erlang:ports())", Port),
    *[
        Golden(
            f"a reference of {count} words",
            _external(f"90,0,{count},{_NODE},{_CREATION_BYTES},0,0,0,1{',255,254,253,252' * (count - 1)}"),
            Reference(_AB, _CREATION, b"\0\0\0\1" + b"\xff\xfe\xfd\xfc" * (count - 1)),
        )
        for count in (1, 2, 3, 5)
    ],
    Golden("a reference of its own", "make_ref()", Reference),
    Golden("an alias", "alias()", Reference),
    Golden("export", "fun erlang:node/0", Export(Atom("erlang"), Atom("node"), 0)),
    Golden("fun", "fun(X) -> X end", Fun),
    Golden("a fun that closes over a term", "begin Y = {a,[1000]}, fun(X) -> {X,Y} end end", Fun),
    Golden("an export of a module that is no plain atom", "fun 'A b':'+'/2", Export(Atom("A b"), Atom("+"), 2)),
    Golden("an export of the module true", "fun true:false/2", Export(Atom("true"), Atom("false"), 2)),
    Golden("compressed", "lists:duplicate(1000, abc)", [Atom("abc")] * 1000, "[compressed]", canonical=False),
    Golden("compressed more", "lists:seq(256, 512)", list(range(256, 513)), "[{compressed,9}]", canonical=False),
    Golden("deterministic", "#{c => 1, a => 2}", {Atom("a"): 2, Atom("c"): 1}, "[deterministic]", since=27),
    Golden("LOCAL_EXT", "{self(), make_ref()}", LocalTerm, "[local]", since=26),
    Golden(
        "a record",
        "records:create(geometry, point, [{y, 1}, {x, <<\"2\">>}], #{is_exported => true})",
        Record(Atom("geometry"), Atom("point"), True, ((Atom("y"), 1), (Atom("x"), b"2"))),
        since=29,
    ),
    Golden(
        "a private record",
        "records:create(geometry, 'a point', [{x, {1}}], #{is_exported => false})",
        Record(Atom("geometry"), Atom("a point"), False, ((Atom("x"), (1,)),)),
        since=29,
    ),
]  # fmt: skip


def path_of(release: int) -> Path:
    """The golden file of an OTP release: ``label <tab> source <tab> base64`` on each line."""
    return FOLDER / f"otp{release}.tsv"
