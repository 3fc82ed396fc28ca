from __future__ import annotations

import pickle
from typing import Any

import pytest

from erlang_interop import Atom, ErlangInteropError, Pid, RemoteError, RemoteException, RemoteExit, RemoteThrow
from zenmon_node import InvalidRemoteScope, InvalidScope, NameUndefined, NotAlive, NotInGroup, RaceCondition, Taken
from zenmon_node.syn.errors import SynError, invalid_remote_scope, invalid_scope, refusal

ERROR, RAISE, UNDEFINED, USERS = map(Atom, ("error", "raise", "undefined", "users"))
PID = Pid(Atom("a@test"), 8, 0, 1)


@pytest.mark.parametrize(
    ("atom", "class_"),
    [
        ("taken", Taken),
        ("not_alive", NotAlive),
        ("race_condition", RaceCondition),
        ("not_in_group", NotInGroup),
        ("undefined", NameUndefined),
        ("something_new", SynError),
    ],
)
def test_each_refusal_of_syn_has_a_class_and_keeps_its_atom(atom: str, class_: type[SynError]) -> None:
    error = refusal((ERROR, Atom(atom)), "register", Atom("alice"), PID, "registry")
    assert type(error) is class_
    assert isinstance(error, ErlangInteropError)
    assert error.reason == Atom(atom)
    assert str(error).startswith("cannot register alice, <a@test.8.0>: ")


def test_undefined_is_about_the_group_where_groups_are_and_33_says_it_in_its_own_way() -> None:
    old = ((ERROR, UNDEFINED), UNDEFINED)
    for reply in ((ERROR, UNDEFINED), old):
        for where, class_ in (("registry", NameUndefined), ("pg", NotInGroup)):
            error: Any = refusal(reply, "update", 1, PID, where)  # type: ignore[arg-type]
            assert (type(error), error.reason) == (class_, UNDEFINED)


def test_what_a_function_has_raised() -> None:
    def of(class_: str, **options: Any) -> Any:
        return refusal(
            (RAISE, Atom(class_), Atom("badarith"), [1]), "update", Atom("alice"), PID, "registry", **options
        )

    for class_, expected in (("error", RemoteError), ("exit", RemoteExit), ("throw", RemoteThrow)):
        error = of(class_)
        assert type(error) is expected
        assert isinstance(error, RemoteException)
        assert error.reason == Atom("badarith")
        assert f"{class_}: badarith" in str(error)
    assert of("error").stack == [1]
    assert refusal((RAISE, ERROR, 1, 2), "update", 1, PID, "pg").stack == []  # type: ignore[attr-defined]
    mine = ValueError("mine")
    assert of("error", failure=mine) is mine


def test_scopes_that_a_node_is_not_in() -> None:
    here, there = invalid_scope(USERS, "why"), invalid_remote_scope(USERS, PID.node)
    assert (type(here), here.reason) == (InvalidScope, (Atom("invalid_scope"), USERS))
    assert (type(there), there.reason) == (InvalidRemoteScope, (Atom("invalid_remote_scope"), USERS, PID.node))
    assert "why" in str(here)
    assert "syn:add_node_to_scopes([users])" in str(there)


def test_errors_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(Taken("text", Atom("taken"))))
    assert (type(error), str(error), error.reason) == (Taken, "text", Atom("taken"))
