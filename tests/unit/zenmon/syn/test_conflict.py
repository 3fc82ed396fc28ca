"""Who keeps a name."""

from __future__ import annotations

from typing import Any

import pytest

from erlang_interop import Atom, Pid
from zenmon_node.syn.conflict import Claim, Kept, by_choice, by_default

A, C = Atom("a@test"), Atom("c@test")
MIRROR = {Kept.REMOTE: Kept.LOCAL, Kept.LOCAL: Kept.REMOTE, Kept.NEITHER: Kept.NEITHER}


def claim(node: Atom, time: int, *, id_: int = 1, serial: int = 0, creation: int = 1) -> Claim:
    return Claim(Pid(node, id_, serial, creation), Atom("meta"), time)


def both_decide(one: Claim, other: Claim) -> Kept:
    """What the owner of ``other`` decides; the owner of ``one`` comes to the same end."""
    here, there = by_default(one, other), by_default(other, one)
    assert there is MIRROR[here]
    return here


def test_the_later_stays() -> None:
    assert both_decide(claim(A, 2), claim(C, 1)) is Kept.REMOTE
    assert both_decide(claim(A, 1), claim(C, 2)) is Kept.LOCAL


def test_times_are_compared_exactly() -> None:
    now = 1_700_000_000_000_000_001  # as a float it would be the same as the one before
    assert both_decide(claim(A, now), claim(C, now - 1)) is Kept.REMOTE


@pytest.mark.parametrize(
    ("less", "greater"),
    [
        ({"serial": 0, "id_": 9}, {"serial": 1, "id_": 1}),
        ({"id_": 1}, {"id_": 2}),
        ({}, {"creation": 2}),
    ],
)
def test_of_the_same_time_the_greater_pid_stays(less: dict[str, int], greater: dict[str, int]) -> None:
    assert both_decide(claim(A, 1, **greater), claim(A, 1, **less)) is Kept.REMOTE


def test_of_the_same_time_and_number_the_greater_node_stays() -> None:
    assert both_decide(claim(C, 1), claim(A, 1)) is Kept.REMOTE


def test_a_resolver_keeps_whom_it_names() -> None:
    remote, local = claim(A, 1), claim(C, 2)
    assert by_choice(remote.pid, remote, local) is Kept.REMOTE
    assert by_choice(local.pid, remote, local) is Kept.LOCAL


@pytest.mark.parametrize("said", [None, Atom("undefined"), claim(A, 1, id_=7).pid, 1, [claim(A, 1).pid]])
def test_a_resolver_that_names_neither_frees_the_name(said: Any) -> None:
    assert by_choice(said, claim(A, 1), claim(C, 2)) is Kept.NEITHER
