from __future__ import annotations

import json

import pytest

from erlang_interop import Atom, BitString, ErlMap, Export, ImproperList, Pid, Term
from zenmon_node.cli.jsonable import jsonable

PID = Pid(Atom("beam@127.0.0.1"), 85, 0, 1)


@pytest.mark.parametrize(
    ("term", "text"),
    [
        (7, "7"),
        (1 << 70, str(1 << 70)),
        (2.5, "2.5"),
        (True, "true"),
        (None, "null"),
        (Atom("null"), "null"),
        (Atom("undefined"), '"undefined"'),
        (b"text", '"text"'),
        ("ü".encode(), '"ü"'),
        (b"\xff\x00", '"<<255,0>>"'),
        (b"", '""'),
        ([1, [2, ()]], "[1, [2, []]]"),
        ((Atom("ok"), b"x"), '["ok", "x"]'),
        ({Atom("a"): 1, b"b": [None]}, '{"a": 1, "b": [null]}'),
        ({1: 2, None: 4}, '{"1": 2, "nil": 4}'),
        (ErlMap([(1, 2), (True, 3)]), '{"1": 2, "true": 3}'),
        ({(Atom("a"), 1): 2}, '{"{a,1}": 2}'),
        (PID, '"<beam@127.0.0.1.85.0>"'),
        (Export(Atom("lists"), Atom("sum"), 1), '"fun lists:sum/1"'),
        (ImproperList([1], 2), '"[1|2]"'),
        (BitString(b"\x80", 1), '"<<1:1>>"'),
    ],
)
def test_terms(term: Term, text: str) -> None:
    assert json.dumps(jsonable(term), ensure_ascii=False) == text
