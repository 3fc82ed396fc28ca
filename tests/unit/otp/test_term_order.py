from __future__ import annotations

import itertools
import random

import pytest

from erlang_interop import Atom, BitString, ErlMap, Export, Fun, ImproperList, LocalTerm, Pid, Port, Record, Reference
from erlang_interop.otp.term_order import order_key, pid_key, sorted_pids

A, B = Atom("a@h"), Atom("b@h")


def fun(module: str, index: int, *free: object) -> Fun:
    return Fun(Atom(module), index, b"u" * 16, index, 7, 1, Pid(A, 1, 0, 1), free)


#: As a BEAM sorts them (tests/interop/test_term_order.py asks one); those in one row are equal by ``==``.
IN_ORDER: list[list[object]] = [
    [-(2**70)],
    [-1, -1.0],
    [0, 0.0, -0.0],
    [1, 1.0],
    [1.5],
    [2**53, float(2**53)],
    [2**53 + 1],
    [2**70, 2.0**70],
    [1e300],
    [Atom("")],
    [Atom("Z")],
    [Atom("a")],
    [Atom("aa")],
    [False],
    [None],
    [True],
    [Atom("\u00e9")],
    [Atom("\u65e5")],
    [Reference(A, 1, b"\0\0\0\x07" * 3)],
    [Reference(A, 1, b"\0\0\0\x08\0\0\0\x07\0\0\0\x07")],
    [Reference(A, 1, b"\0\0\0\x06\0\0\0\x08\0\0\0\x07")],
    [Reference(A, 2, b"\0\0\0\x01" * 3)],
    [Reference(B, 1, b"\0\0\0\x01" * 3)],
    [fun("m", 0, 1)],
    [fun("m", 0, 2)],
    [fun("m", 0, 1, 1)],
    [fun("m", 1)],
    [fun("n", 0)],
    [Export(Atom("m"), Atom("f"), 0)],
    [Export(Atom("m"), Atom("f"), 2)],
    [Export(Atom("m"), Atom("g"), 1)],
    [Port(A, 1, 1)],
    [Port(A, 2**33, 1)],
    [Port(A, 1, 2)],
    [Port(B, 1, 1)],
    [Pid(A, 1, 0, 1)],
    [Pid(A, 1, 0, 2)],
    [Pid(B, 1, 0, 1)],
    [Pid(A, 2, 0, 1)],
    [Pid(A, 1, 1, 1)],
    [()],
    [(9,)],
    [(1, 2), (1.0, 2.0)],
    [(1, Atom("a"))],
    [(1, (1,))],
    [{}],
    [ErlMap([(1, 9)])],
    [ErlMap([(2, 1)]), ErlMap([(2, 1.0)])],
    [ErlMap([(1.0, 1)])],
    [ErlMap([(Atom("a"), 1)])],
    [ErlMap([([1], 1)])],
    [ErlMap([(1, 1), (2, 9)])],
    [ErlMap([(2, 9), (1, 2)])],
    [ErlMap([(1, 0), (1.0, 0)])],
    [[]],
    [ImproperList([1], 2)],
    [ImproperList([1], Atom("a"))],
    [[1], [1.0]],
    [ImproperList([1, 2], 3)],
    [[1, 2]],
    [ImproperList([1], b"")],
    [[2]],
    [[[]]],
    [[[1]]],
    [b""],
    [b"a", "a"],
    [b"aa"],
    [BitString(b"\x80", 1)],
    [BitString(b"\x80", 7)],
    [b"\x80"],
    [BitString(b"\x80\x00", 1)],
    [b"\x80\x00"],
    [b"\x80\x01"],
    [BitString(b"\xa0", 3)],
    [b"\xa0"],
]


def test_the_order_is_erlangs() -> None:
    keys = [[order_key(term) for term in row] for row in IN_ORDER]
    for row in keys:
        assert all(key == row[0] for key in row)
    for (one, *_), (other, *_) in itertools.pairwise(keys):
        assert one < other
    shuffled = [row[0] for row in IN_ORDER]
    random.Random(1).shuffle(shuffled)
    assert sorted(shuffled, key=order_key) == [row[0] for row in IN_ORDER]


def test_native_records_stand_between_tuples_and_maps() -> None:
    records = [
        Record(Atom("l"), Atom("a"), True, ((Atom("z"), 0),)),
        Record(Atom("m"), Atom("a"), True, ()),
        Record(Atom("m"), Atom("a"), True, ((Atom("x"), 1),)),
        Record(Atom("m"), Atom("a"), True, ((Atom("x"), 2),)),
        Record(Atom("m"), Atom("a"), True, ((Atom("x"), 9), (Atom("b"), 1))),
        Record(Atom("m"), Atom("a"), True, ((Atom("x"), 1), (Atom("y"), 1))),
        Record(Atom("m"), Atom("b"), True, ()),
    ]
    terms = [(1, 2), *records, {}]
    assert sorted(random.Random(1).sample(terms, len(terms)), key=order_key) == terms


def test_pids_alone() -> None:
    pids = [row[0] for row in IN_ORDER if isinstance(row[0], Pid)]
    shuffled = random.Random(1).sample(pids, len(pids))
    assert sorted(shuffled, key=pid_key) == sorted_pids(shuffled) == pids


def test_deep_terms_have_their_order() -> None:
    def deep(inner: object) -> object:
        for _ in range(5_000):
            inner = ([inner],)
        return inner

    assert order_key(deep(1)) < order_key(deep(2))


def test_what_is_no_term_has_no_order() -> None:
    for what in (object(), LocalTerm(b"x")):
        with pytest.raises(TypeError, match="no order is known"):
            order_key(what)
