from __future__ import annotations

from typing import Any

import pytest

from erlang_interop import Atom, EncodeError, ErlMap, ImproperList, Pid, Record, Term
from erlang_interop.etf import decode, encode
from erlang_interop.otp._pg_messages import (
    CURRENT,
    LEGACY,
    Change,
    Changes,
    Discover,
    Group,
    Holds,
    Malformed,
    as_map,
    discover,
    holds,
    parse,
    updates,
)

PEER = Pid(Atom("a@test"), 1, 0, 1)
ONE, TWO = Pid(Atom("a@test"), 2, 0, 1), Pid(Atom("a@test"), 3, 0, 1)
G, H = Group(Atom("g")), Group(Atom("h"))
CAST = Atom("$gen_cast")


def carried(message: Term) -> Any:
    """As it arrives at another node."""
    return decode(encode(message))[0]


# -- groups


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("room", b"room"),
        (("room", 1), (b"room", 1)),
        (Atom("true"), True),
        (Atom("nil"), None),
        ({Atom("a"): 1, Atom("b"): 2}, {Atom("b"): 2, Atom("a"): 1}),
        ([1, 2], [1, 2]),
    ],
)
def test_the_same_name_for_the_whole_cluster(one: Term, other: Term) -> None:
    assert Group.of(one) == Group.of(other) == Group(carried(one))
    assert hash(Group.of(one)) == hash(Group(carried(other)))


def test_names_that_python_takes_for_equal_are_not() -> None:
    names: list[Term] = [1, 1.0, True, Atom("1"), b"1", [1], (1,), {1: 1}, {1.0: 1}, 0.0, -0.0, None, Atom("None"), b""]
    assert len({Group.of(name) for name in names}) == len(names)
    assert Atom("g") != G


def test_a_group_keeps_the_term_as_others_see_it() -> None:
    assert Group.of(("é", [1])).term == ("é".encode(), [1])
    assert repr(G) == "Group(Atom('g'))"


def test_a_group_does_not_change_with_what_it_was_made_of() -> None:
    name = [1]
    group = Group.of(name)
    name.append(2)
    assert group == Group.of([1])
    assert group.term == [1]


@pytest.mark.parametrize("name", [object(), float("nan"), Record(Atom("m"), Atom("r"), True, ())])
def test_a_group_that_not_every_node_can_be_told_of(name: Any) -> None:
    with pytest.raises(EncodeError):
        Group.of(name)


# -- there and back


@pytest.mark.parametrize("version", [LEGACY, CURRENT])
def test_discover_there_and_back(version: int) -> None:
    assert parse(carried(discover(PEER, version))) == Discover(PEER, version)


@pytest.mark.parametrize("version", [LEGACY, CURRENT])
@pytest.mark.parametrize("other", [Atom("h"), [1], 1.0])
def test_everything_there_and_back(version: int, other: Term) -> None:
    everything = [(G, [ONE, ONE, TWO]), (Group(1), [TWO]), (Group(other), [ONE])]
    assert parse(carried(holds(PEER, version, everything))) == Holds(PEER, version, dict(everything))


def test_changes_there_and_back_in_the_form_of_otp_29() -> None:
    changes = [Change(G, [ONE], []), Change(H, [], [ONE, TWO])]
    (message,) = updates(PEER, CURRENT, changes)
    assert message == (Atom("update"), PEER, [(Atom("g"), [ONE], []), (Atom("h"), [], [ONE, TWO])])
    assert parse(carried(message)) == Changes(PEER, changes)


def test_changes_in_the_form_of_otp_28() -> None:
    changes = [
        Change(G, [], [ONE]),
        Change(H, [], [ONE]),
        Change(Group(1), [], [ONE, ONE]),
        Change(Group(2), [TWO], []),
    ]
    messages = updates(PEER, LEGACY, changes)
    assert messages == [
        (Atom("leave"), PEER, [ONE], [Atom("g"), Atom("h")]),
        (Atom("leave"), PEER, [ONE, ONE], [1]),
        (Atom("join"), PEER, 2, [TWO]),
    ]
    parsed = [parse(carried(message)) for message in messages]
    assert [change for message in parsed if isinstance(message, Changes) for change in message.changes] == changes


def test_the_exact_words() -> None:
    assert discover(PEER, LEGACY) == (Atom("discover"), PEER)
    assert discover(PEER, CURRENT) == (Atom("discover"), PEER, 1)
    assert holds(PEER, LEGACY, [(G, [ONE])]) == (CAST, (Atom("sync"), PEER, [(Atom("g"), [ONE])]))
    assert holds(PEER, CURRENT, [(G, [ONE])]) == (CAST, (Atom("local_data"), PEER, 1, {Atom("g"): [ONE]}))


def test_a_pid_or_a_list_of_them() -> None:
    assert parse((Atom("join"), PEER, Atom("g"), ONE)) == Changes(PEER, [Change(G, [ONE], [])])
    assert parse((Atom("leave"), PEER, ONE, [Atom("g"), Atom("g")])) == Changes(PEER, [Change(G, [], [ONE])] * 2)


def test_a_map_that_python_cannot_hold() -> None:
    table = as_map([(Group(1), [ONE]), (Group(True), [TWO])])
    assert isinstance(table, ErlMap)
    assert table[1] == [ONE]


@pytest.mark.parametrize(
    "message",
    [
        1,
        (),
        (Atom("discover"),),
        (Atom("discover"), 1),
        (Atom("discover"), PEER, 1, 2),
        (Atom("join"), PEER, Atom("g"), Atom("no_pid")),
        (Atom("join"), PEER, Atom("g"), [ONE, 1]),
        (Atom("join"), PEER, Atom("g"), ImproperList([ONE], ONE)),
        (Atom("join"), Atom("g"), ONE),
        (Atom("join"), PEER, ..., ONE),
        (Atom("leave"), PEER, ONE, Atom("g")),
        (Atom("leave"), PEER, 1, [Atom("g")]),
        (Atom("update"), PEER, [1]),
        (Atom("update"), PEER, [(Atom("g"), [])]),
        (Atom("update"), PEER, [(Atom("g"), ONE, [])]),
        (CAST, 1),
        (CAST, (Atom("sync"), PEER, 1)),
        (CAST, (Atom("sync"), PEER, [1])),
        (CAST, (Atom("sync"), PEER, [(Atom("g"), ONE)])),
        (CAST, (Atom("local_data"), PEER, 1, [])),
        (CAST, (Atom("local_data"), PEER, 1, {Atom("g"): 1})),
        (CAST, (CAST, (Atom("sync"), PEER, []))),
    ],
    ids=repr,
)
def test_a_message_of_unknown_form(message: Any) -> None:
    with pytest.raises(Malformed):
        parse(message)
