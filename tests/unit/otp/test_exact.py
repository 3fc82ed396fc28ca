from __future__ import annotations

import itertools

import pytest

from erlang_interop import Atom, ErlMap, Pid
from erlang_interop.otp.exact import Exact

DIFFERENT = [1, 1.0, True, Atom("a"), b"a", (Atom("a"),), [1], [1.0], {}, ErlMap([(1, 0), (1.0, 0)]), None, 0.0, -0.0]


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
