"""The Truncator against the genuine one: its answers to 185 terms, and what Python adds."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from erlang_interop.etf import decode, encode
from erlang_interop.terms import Atom, BitString, ErlMap, Export, Fun, ImproperList, Pid, Term
from zenmon_node.truncator import TRUNCATED, truncate

VECTORS = Path(__file__).parents[2] / "data" / "truncator-vectors.tsv"


def vectors() -> list[tuple[str, bytes, bytes]]:
    rows = [line.split("\t") for line in VECTORS.read_text().splitlines() if line and not line.startswith("#")]
    return [(row[0], base64.b64decode(row[1]), base64.b64decode(row[2])) for row in rows]


def test_vectors_are_there() -> None:
    assert len(vectors()) > 150


@pytest.mark.parametrize(("before", "after"), [v[1:] for v in vectors()], ids=[v[0] for v in vectors()])
def test_genuine_vector(before: bytes, after: bytes) -> None:
    truncated = truncate(decode(before)[0])
    # Compared as bytes, so that 1, 1.0 and true stay apart; the order of a map's pairs is no part of it.
    assert truncated == decode(after)[0]
    assert len(encode(truncated)) == len(encode(decode(after)[0]))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"x" * 1024, b"x" * 1024),
        (b"x" * 1025, b"x" * 1021 + b"..."),
        (BitString(b"\xa0", 3), TRUNCATED),
        (BitString(b"x" * 1020 + b"\x80", 1), TRUNCATED),
        (BitString(b"x" * 1021 + b"\x80", 1), b"x" * 1021 + b"..."),
        (ImproperList([1], 2), TRUNCATED),
        ([1, 2, 3, 4, 5], TRUNCATED),
        (((Atom("shutdown"), [1] * 9), Atom("x")), ((Atom("shutdown"), TRUNCATED), Atom("x"))),
        ((Atom("shutdown"), 1, [1] * 9), (Atom("shutdown"), 1, TRUNCATED)),
        ({b"x" * 3000: 1}, {b"x" * 3000: 1}),
        (Export(Atom("erlang"), Atom("node"), 0), TRUNCATED),
        ({Atom("__struct__"): None, 1: 1, 2: 2, 3: 3, 4: 4}, {Atom("__struct__"): None, 1: 1, 2: 2, 3: 3, 4: 4}),
        ({Atom("__struct__"): b"s", 1: 1, 2: 2, 3: 3, 4: 4}, TRUNCATED),
        ((((Atom("leaf"),),),), (((TRUNCATED,),),)),
    ],
)
def test_rule(before: Term, after: Term) -> None:
    assert truncate(before) == after


K = Atom("k")


def struct(module: str, **fields: Term) -> Term:
    """An Elixir struct."""
    return {Atom("__struct__"): Atom(module)} | {Atom(name): value for name, value in fields.items()}


CRASH = struct("Elixir.RuntimeError", message=b"boom")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"x" * 5000, b"x" * 1021 + b"..."),
        ((1, 2, 3, 4), (1, 2, 3, 4)),
        ((1, 2, 3, 4, 5), TRUNCATED),
        ([1, 2, 3, 4], [1, 2, 3, 4]),
        (ImproperList([1, 2, 3, 4], 5), TRUNCATED),
        (dict.fromkeys("abcd"), dict.fromkeys("abcd")),
        (dict.fromkeys("abcde"), TRUNCATED),
        ({(1, 2, 3, 4, 5, 6): (1, 2, 3, 4, 5, 6)}, {(1, 2, 3, 4, 5, 6): TRUNCATED}),
        (struct("Elixir.S4", a=1, b=2, c=3, d=[1, 2, 3, 4, 5]), struct("Elixir.S4", a=1, b=2, c=3, d=TRUNCATED)),
        (struct("Elixir.S5", a=1, b=2, c=3, d=4, e=5), TRUNCATED),
        (struct("Elixir.NoSuchModule", a=1, b=(1, 2, 3, 4, 5)), struct("Elixir.NoSuchModule", a=1, b=TRUNCATED)),
        ([[[K]]], [[[TRUNCATED]]]),
        ({K: {K: {K: K}}}, {K: {K: {K: TRUNCATED}}}),
        ((((), [], {}),), (((), [], {}),)),
        (((((), [], {}, b""),),), (((TRUNCATED,) * 4,),)),
        ((K, (K, (K, (K, 1)))), (K, (K, (TRUNCATED, TRUNCATED)))),
        ((Atom("error"), (Atom("shutdown"), (1, 2, 3, 4, 5))), (Atom("error"), (Atom("shutdown"), TRUNCATED))),
        ((Atom("timeout"), (K, K, [K, K, 5000])), (Atom("timeout"), (K, K, [TRUNCATED] * 3))),
        ((CRASH, [(K, K, 1, [])]), (CRASH, [(TRUNCATED,) * 4])),
        ((CRASH, [(K, K, 1, [])] * 5), (CRASH, TRUNCATED)),
        (Fun(K, 0, bytes(16), 0, 0, 0, Pid(Atom("a@h"), 1, 0, 1), ()), TRUNCATED),
        (2**4000, 2**4000),
    ],
)
def test_what_the_genuine_one_was_seen_to_do(before: Term, after: Term) -> None:
    assert truncate(before) == after


def test_shutdown_passes_whole() -> None:
    reason = (Atom("shutdown"), [b"x" * 10_000] * 100)
    assert truncate(reason) is reason


def test_depth_zero_keeps_only_shutdown() -> None:
    assert truncate(Atom("x"), depth=0) == TRUNCATED
    assert truncate((Atom("shutdown"), Atom("x")), depth=0) == (Atom("shutdown"), Atom("x"))


def test_limits_are_arguments() -> None:
    assert truncate(b"abcdef", max_binary_size=5) == b"ab..."
    assert truncate([[[[1]]]], depth=4) == [[[[TRUNCATED]]]]
    assert truncate([[[1]]], depth=4) == [[[1]]]


def test_a_map_that_needs_erlmap_keeps_its_pairs() -> None:
    before = ErlMap([(1, b"a"), (1.0, b"b"), (True, [1] * 9)])
    assert truncate(before) == ErlMap([(1, b"a"), (1.0, b"b"), (True, TRUNCATED)])


@pytest.mark.parametrize("reason", [float("nan"), float("inf"), object(), {1, 2}, range(3), "\ud800"])
def test_what_cannot_be_sent_is_truncated(reason: object) -> None:
    assert truncate(reason) == TRUNCATED
    assert encode(truncate((Atom("error"), reason)))


def test_str_counts_as_its_utf8() -> None:
    assert truncate("é" * 512) == "é" * 512
    assert truncate("é" * 513) == ("é" * 513).encode()[:1021] + b"..."


def test_pid_of_a_deep_term_is_cut_quickly() -> None:
    deep: Term = Pid(Atom("a@h"), 1, 0, 1)
    for _ in range(100_000):
        deep = (deep,)
    assert truncate(deep) == (((TRUNCATED,),),)
