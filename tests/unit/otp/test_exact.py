from __future__ import annotations

import itertools

import pytest

from erlang_interop import Atom, EncodeError, ErlMap, Pid, Record
from erlang_interop.otp.exact import Exact, carried, exact_key

DIFFERENT = [1, 1.0, True, Atom("a"), b"a", (Atom("a"),), [1], [1.0], {}, ErlMap([(1, 0), (1.0, 0)]), None, 0.0, -0.0]
DIFFERENT += [(1,), (1.0,), (True,), (1, (1,)), (1, (1.0,)), (), b"1", (b"1",)]


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(DIFFERENT, 2)), ids=repr)
def test_different_terms_are_different_keys(one: object, other: object) -> None:
    assert Exact(one) != Exact(other)
    assert len({Exact(one): 1, Exact(other): 2}) == 2


@pytest.mark.parametrize("term", DIFFERENT, ids=repr)
def test_the_same_term_is_the_same_key(term: object) -> None:
    assert {Exact(term): 1}[Exact(term)] == 1
    assert Exact(term).term is term
    assert repr(Exact(term)) == f"Exact({term!r})"


def test_a_pid_is_the_same_key_whoever_made_it() -> None:
    assert Exact(Pid(Atom("n@h"), 1, 2, 3)) == Exact(Pid(Atom("n@h"), 1, 2, 3))
    assert Exact(Pid(Atom("n@h"), 1, 2, 3)) != Exact(Pid(Atom("n@h"), 1, 2, 4))


def test_what_is_no_term_is_no_key() -> None:
    with pytest.raises(TypeError, match="not an Erlang term"):
        Exact(object())
    assert Exact(1) != 1


def test_text_is_the_binary_that_it_is_sent_as() -> None:
    assert exact_key("x") == exact_key(b"x")
    assert exact_key(("x", 1.0)) == exact_key((b"x", 1.0))
    assert exact_key(("x", 1)) == exact_key((b"x", 1))


@pytest.mark.parametrize("term", [Atom("a"), 1, b"x", (Atom("a"), 1), Pid(Atom("n@h"), 1, 2, 3)], ids=repr)
def test_most_terms_are_their_own_keys(term: object) -> None:
    assert exact_key(term) is term


def test_terms_are_carried_as_others_see_them() -> None:
    assert carried(("x", Atom("true"), [1])) == (b"x", True, [1])
    assert carried(Atom("nil")) is None
    changed = {Atom("at"): [1]}
    seen = carried(changed)
    changed[Atom("at")].append(2)
    assert seen == {Atom("at"): [1]}


def test_what_no_message_can_carry() -> None:
    deep: list[object] = []
    for _ in range(10_000):
        deep = [deep]
    record = Record(Atom("m"), Atom("r"), True, ())
    for term in (object(), float("nan"), deep):
        with pytest.raises(EncodeError):
            carried(term)
    assert carried(record) == record
    with pytest.raises(EncodeError, match="because I say so"):
        carried(record, "because I say so")
