"""Names of a scope of syn on three nodes, one of them ours: results, tables and events, wherever the process lives."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from erlang_interop import Atom
from erlang_interop.terms import Export
from tests.interop.collectors import until
from tests.interop.syn_members import (
    ENTRIES,
    ERROR,
    OK,
    UNDEFINED,
    exact,
    node_down,
    node_up,
    placed,
    registered,
    unordered,
    unregistered,
    updated,
)

if TYPE_CHECKING:
    from tests.interop.syn_members import Cluster

pytestmark = placed("a-hidden", "b-visible", "c-hidden")

NAME = Atom("alice")
TAKEN, NOT_ALIVE, KILLED = (ERROR, Atom("taken")), (ERROR, Atom("not_alive")), Atom("killed")
#: ``Fun(Pid, Meta)``: gives ``{marked, Meta}``, and raises ``{refused, Meta}``. All nodes have them.
MARK, REFUSE = (Export(Atom("fixture_syn_driver"), Atom(name), 2) for name in ("mark", "refuse"))
MARKED, REFUSED = Atom("marked"), Atom("refused")
#: No two of them are the same term.
TERMS: list[Any] = [
    *(1, 1.0, True, b"1", 1 << 80, -0.5),
    *((), (1,), (1.0,), (1, (1, (1,)))),
    *([], [1], [1.0], ["no", "improper"]),
    *({}, {1: 1}, {Atom("k"): [1.0]}),
    *(Atom("1"), Atom("Elixir.Users.Registry"), Atom("ünï"), "ünï".encode()),
]


async def test_asked_by_another_node(cluster: Cluster) -> None:
    """``a`` owns the process, ``b`` asks, ``c`` looks on: all three see the same."""
    pid = await cluster.a.spawn()
    b = cluster.b
    assert await b.call("register", NAME, pid, 1) == OK
    assert await b.call("lookup", NAME) == (pid, 1)
    assert await b.call("register", NAME, pid, 1) == OK
    assert await b.call("register", NAME, pid, 2) == OK
    assert await b.call("update_registry", NAME, MARK) == (OK, (pid, (MARKED, 2)))
    assert await b.call("lookup", NAME) == (pid, (MARKED, 2))
    assert await b.call("unregister", NAME) == OK
    assert await b.call("lookup", NAME) == UNDEFINED
    await cluster.settle()
    for member in cluster.members:
        assert await member.call("lookup", NAME) == UNDEFINED
        assert await cluster.events(member) == [
            registered(NAME, pid, 1),
            *updated(NAME, pid, 1, 2),
            *updated(NAME, pid, 2, (MARKED, 2)),
            unregistered(NAME, pid, (MARKED, 2)),
        ]


async def test_asked_by_the_owner(cluster: Cluster) -> None:
    a = cluster.a
    pid = await a.spawn()
    assert await a.call("register", NAME, pid) == OK
    assert await a.call("register", NAME, pid, UNDEFINED) == OK
    assert await a.call("update_registry", NAME, MARK) == (OK, (pid, (MARKED, UNDEFINED)))
    await cluster.settle()
    for member in cluster.members:
        assert await member.call("lookup", NAME) == (pid, (MARKED, UNDEFINED))
        assert await member.call("registry_count") == 1
        assert await member.call("registry_count", a.name) == 1
        assert await member.call("registry_count", cluster.c.name) == 0
        assert await member.call("local_registry_count") == (1 if member is a else 0)
    assert await a.call("unregister", NAME) == OK
    await cluster.settle()
    for member in cluster.members:
        assert await member.call("registry_count") == 0
        assert await cluster.events(member) == [
            registered(NAME, pid, UNDEFINED),
            *updated(NAME, pid, UNDEFINED, (MARKED, UNDEFINED)),
            unregistered(NAME, pid, (MARKED, UNDEFINED)),
        ]


async def test_what_is_refused(cluster: Cluster) -> None:
    a, _, c = cluster.members
    pid, second, theirs, dead = await a.spawn(), await a.spawn(), await c.spawn(), await a.spawn()
    await a.kill(dead)
    assert await a.call("register", NAME, pid, 1) == OK
    await cluster.settle()
    for member in cluster.members:
        assert await member.call("register", NAME, second, 2) == TAKEN
        assert await member.call("register", NAME, theirs, 2) == TAKEN
        assert await member.call("register", Atom("bob"), dead) == NOT_ALIVE
        assert await member.call("unregister", Atom("bob")) == (ERROR, UNDEFINED)
        assert await member.call("update_registry", Atom("bob"), MARK) == (ERROR, UNDEFINED)
        assert await member.call("lookup", Atom("bob")) == UNDEFINED
        assert await member.call("update_registry", NAME, REFUSE) == ("exit", (REFUSED, 1))
    await cluster.settle()
    for member in cluster.members:
        assert await member.call("lookup", NAME) == (pid, 1)
        assert await cluster.events(member) == [registered(NAME, pid, 1)]


async def test_a_process_that_ends(cluster: Cluster) -> None:
    """With all its names, by itself or killed, and with any reason."""
    a, b, _ = cluster.members
    reasons = [Atom("normal"), (Atom("failed"), [b"why", 1])]
    expected = []
    for number, reason in enumerate([*reasons, KILLED]):
        pid = await a.spawn()
        names = [(Atom("name"), number, each) for each in range(3)]
        for name in names:
            assert await b.call("register", name, pid, number) == OK
        expected.append(unordered(registered(name, pid, number) for name in names))
        if reason == KILLED:
            await b.kill(pid)
        else:
            await a.end(pid, reason)
        expected.append(unordered(unregistered(name, pid, number, reason) for name in names))
        await cluster.settle()
    for member in cluster.members:
        events = await cluster.events(member)
        assert [unordered(events[at : at + 3]) for at in range(0, len(events), 3)] == expected
        assert await member.call("registry_count") == 0


async def test_names_and_metadata_of_any_term(cluster: Cluster) -> None:
    a, b, _ = cluster.members
    pid = await a.spawn()
    for term in TERMS:
        assert await b.call("register", term, pid, term) == OK
    await cluster.settle()
    for member in cluster.members:
        assert await member.call("registry_count") == len(TERMS)
        for term in TERMS:
            assert exact(await member.call("lookup", term)) == exact((pid, term))
    assert await b.call("unregister", 1.0) == OK
    # Metadata are compared exactly too: this is a change.
    assert await b.call("register", 1, pid, 1.0) == OK
    await cluster.settle()
    for member in cluster.members:
        assert await member.call("lookup", 1.0) == UNDEFINED
        assert exact(await member.call("lookup", 1)) == exact((pid, 1.0))
        events = await cluster.events(member)
        wanted = [
            *(registered(term, pid, term) for term in TERMS),
            unregistered(1.0, pid, 1.0),
            *updated(1, pid, 1, 1.0),
        ]
        assert exact(events) == exact(wanted)


async def test_a_name_that_goes_from_one_process_to_another(cluster: Cluster) -> None:
    a, b, c = cluster.members
    first, second = await a.spawn(), await c.spawn()
    for owner, pid in ((a, first), (c, second), (a, first)):
        assert await b.call("register", NAME, pid, owner.name) == OK
        await cluster.settle()
        assert await c.call("unregister", NAME) == OK
        await cluster.settle()
    once = [
        [registered(NAME, pid, owner.name), unregistered(NAME, pid, owner.name)]
        for owner, pid in ((a, first), (c, second))
    ]
    for member in cluster.members:
        assert await cluster.events(member) == [*once[0], *once[1], *once[0]]
    # It has no name any more, so its end is nobody's concern.
    await a.end(first, Atom("normal"))
    await cluster.settle()
    for member in cluster.members:
        assert len(await cluster.events(member)) == 6


async def test_many_names_when_a_node_comes(cluster: Cluster) -> None:
    """All of both sides' names cross at once, and go at once when the connection does."""
    a, _, c = cluster.members
    await cluster.isolate_c()
    await a.register_many(ENTRIES)
    await cluster.connect((a, c))
    await until(lambda: c.has_many("registry", ENTRIES), timeout=60 + ENTRIES / 1000)
    assert await c.call("registry_count", a.name) == ENTRIES
    await cluster.disconnect((a, c))
    assert await c.call("registry_count") == 0
    events = await cluster.events(c)
    assert Counter((event[0], event[-1]) for event in events) == {
        ("on_process_registered", node_up(a)): ENTRIES,
        ("on_process_unregistered", node_down(a)): ENTRIES,
    }
