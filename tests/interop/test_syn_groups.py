"""Groups of a scope of syn on three nodes, one of them ours: membership, events, and messages to members."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from erlang_interop import Atom
from erlang_interop.terms import Export
from tests.interop.collectors import until
from tests.interop.syn_members import (
    ENTRIES,
    ERROR,
    GENUINE,
    OK,
    UNDEFINED,
    exact,
    joined,
    left,
    member_updated,
    node_down,
    node_up,
    placed,
    unordered,
)

if TYPE_CHECKING:
    from tests.interop.syn_members import Cluster

pytestmark = placed("a-visible", "b-hidden", "c-visible")

GROUP, OTHER = Atom("room"), b"other room"
NOT_IN_GROUP = ERROR, Atom("not_in_group")
#: ``Fun(Meta)``: gives ``{marked, Meta}``, and raises ``{refused, Meta}``. All nodes have them.
MARK, REFUSE = (Export(Atom("fixture_syn_driver"), Atom(name), 1) for name in ("mark", "refuse"))
MARKED, REFUSED = Atom("marked"), Atom("refused")


async def test_asked_by_another_node(cluster: Cluster) -> None:
    """``a`` owns the process, ``b`` asks, ``c`` looks on: all three see the same."""
    pid = await cluster.a.spawn()
    b = cluster.b
    assert await b.call("join", GROUP, pid, 1) == OK
    assert await b.call("members", GROUP) == [(pid, 1)]
    assert await b.call("join", GROUP, pid, 1) == OK
    assert await b.call("join", GROUP, pid, 2) == OK
    assert await b.call("update_member", GROUP, pid, MARK) == (OK, (pid, (MARKED, 2)))
    assert await b.call("member", GROUP, pid) == (pid, (MARKED, 2))
    assert await b.call("leave", GROUP, pid) == OK
    assert await b.call("members", GROUP) == []
    await cluster.settle()
    for member in cluster.members:
        assert await member.call("members", GROUP) == []
        assert await cluster.events(member) == [
            joined(GROUP, pid, 1),
            *member_updated(GROUP, pid, 1, 2),
            *member_updated(GROUP, pid, 2, (MARKED, 2)),
            left(GROUP, pid, (MARKED, 2)),
        ]


async def test_tables(cluster: Cluster) -> None:
    """Each function that reads, on every node: members in the order of pids, names in the order of terms."""
    a, b, c = cluster.members
    in_group = [(await a.spawn(), 1), (await c.spawn(), 2), (await a.spawn(), 3)]
    for pid, meta in in_group:
        assert await a.call("join", GROUP, pid, meta) == OK
    assert await b.call("join", OTHER, in_group[1][0]) == OK
    await cluster.settle()
    in_order = await b.call("members", GROUP)
    assert Counter(in_order) == Counter(in_group)
    for member, own in ((a, [1, 3]), (b, []), (c, [2])):
        assert await member.call("members", GROUP) == in_order
        assert await member.call("local_members", GROUP) == [entry for entry in in_order if entry[1] in own]
        assert await member.call("member_count", GROUP) == 3
        assert await member.call("member_count", GROUP, a.name) == 2
        assert await member.call("local_member_count", GROUP) == len(own)
        for pid, meta in in_group:
            assert await member.call("member", GROUP, pid) == (pid, meta)
            assert await member.call("is_member", GROUP, pid) is True
            assert await member.call("is_local_member", GROUP, pid) is (meta in own)
        assert await member.call("is_member", OTHER, in_group[0][0]) is False
        assert await member.call("member", OTHER, in_group[0][0]) == UNDEFINED
        assert await member.call("group_names") == [GROUP, OTHER]
        assert await member.call("group_names", a.name) == [GROUP]
        assert await member.call("local_group_names") == {a: [GROUP], b: [], c: [GROUP, OTHER]}[member]
        assert await member.call("group_count") == 2
        assert await member.call("group_count", b.name) == 0
        assert await member.call("local_group_count") == {a: 1, b: 0, c: 2}[member]
        assert await member.call("members", Atom("nobody")) == []
        assert await member.call("member_count", Atom("nobody")) == 0


async def test_what_is_refused(cluster: Cluster) -> None:
    a = cluster.a
    pid, stranger, dead = await a.spawn(), await a.spawn(), await a.spawn()
    await a.kill(dead)
    assert await a.call("join", GROUP, pid, 1) == OK
    await cluster.settle()
    for member in cluster.members:
        assert await member.call("join", GROUP, dead) == (ERROR, Atom("not_alive"))
        assert await member.call("leave", GROUP, stranger) == NOT_IN_GROUP
        assert await member.call("leave", OTHER, pid) == NOT_IN_GROUP
        assert await member.call("update_member", GROUP, stranger, MARK) == (ERROR, UNDEFINED)
        assert await member.call("update_member", GROUP, pid, REFUSE) == ("exit", (REFUSED, 1))
    await cluster.settle()
    for member in cluster.members:
        assert await member.call("members", GROUP) == [(pid, 1)]
        assert await cluster.events(member) == [joined(GROUP, pid, 1)]


async def test_a_process_that_ends(cluster: Cluster) -> None:
    a, b, _ = cluster.members
    pid, other = await a.spawn(), await a.spawn()
    reason = Atom("crashed"), [b"why", 1.5]
    for group in (GROUP, OTHER):
        assert await b.call("join", group, pid, group) == OK
    assert await b.call("join", GROUP, other) == OK
    await a.end(pid, reason)
    await cluster.settle()
    await a.kill(other)
    await cluster.settle()
    for member in cluster.members:
        events = await cluster.events(member)
        assert events[:3] == [joined(GROUP, pid, GROUP), joined(OTHER, pid, OTHER), joined(GROUP, other, UNDEFINED)]
        wanted = [left(GROUP, pid, GROUP, reason), left(OTHER, pid, OTHER, reason)]
        assert unordered(events[3:5]) == unordered(wanted)
        assert events[5:] == [left(GROUP, other, UNDEFINED, Atom("killed"))]
        assert await member.call("group_names") == []


async def test_groups_and_metadata_of_any_term(cluster: Cluster) -> None:
    """The original takes 1 and 1.0 for one group: there the second is left out."""
    a, b, _ = cluster.members
    pid = await a.spawn()
    groups: list[Any] = [
        1,
        *([] if GENUINE else [1.0]),
        True,
        b"1",
        (1, [b"two"]),
        [],
        {Atom("k"): 1.5},
        Atom("Elixir.Rooms"),
    ]
    for group in groups:
        assert await b.call("join", group, pid, group) == OK
    await cluster.settle()
    for member in cluster.members:
        assert set(exact(await member.call("group_names"))) == set(exact(groups))
        for group in groups:
            assert exact(await member.call("members", group)) == exact([(pid, group)])
    assert await b.call("leave", 1, pid) == OK
    await cluster.settle()
    for member in cluster.members:
        assert await member.call("group_count") == len(groups) - 1
        wanted = [*(joined(group, pid, group) for group in groups), left(1, pid, 1)]
        assert exact(await cluster.events(member)) == exact(wanted)


async def test_publishing(cluster: Cluster) -> None:
    """Each member gets what each node publishes, in its order; with local_publish those of the node alone."""
    a = cluster.a
    pids = {member.name: await member.spawn() for member in cluster.members}
    for member in cluster.members:
        assert await a.call("join", GROUP, pids[member.name], member.name) == OK
    await cluster.settle()
    for member in cluster.members:
        for number in range(3):
            assert await member.call("publish", GROUP, (member.name, number)) == (OK, 3)
        assert await member.call("local_publish", GROUP, (Atom("local"), member.name)) == (OK, 1)
        assert await member.call("publish", Atom("nobody"), 1) == (OK, 0)
    for member in cluster.members:
        messages = await member.messages(pids[member.name], 10)
        for sender in cluster.members:
            assert [message for message in messages if message[0] == sender.name] == [
                (sender.name, n) for n in range(3)
            ]
        assert [message for message in messages if message[0] == Atom("local")] == [(Atom("local"), member.name)]


async def test_calling_all_members(cluster: Cluster) -> None:
    """Those who answer, and those who do not in time or have ended."""
    for member in cluster.members:
        members = [(await each.spawn(), each.name) for each in cluster.members]
        for pid, meta in members:
            assert await member.call("join", GROUP, pid, meta) == OK
        await cluster.settle()
        replies, bad = await member.call("multi_call", GROUP, b"hello", 20_000)
        assert Counter(replies) == Counter([(entry, (b"hello", entry[1])) for entry in members])
        assert bad == []
        replies, bad = await member.call("multi_call", GROUP, Atom("silence"), 50)
        assert replies == []
        assert Counter(bad) == Counter(members)
        replies, bad = await member.call("multi_call", GROUP, Atom("end"), 20_000)
        assert replies == []
        assert Counter(bad) == Counter(members)
        await cluster.settle()
        assert await member.call("multi_call", Atom("nobody"), 1) == ([], [])


async def test_many_members_when_a_node_comes(cluster: Cluster) -> None:
    a, _, c = cluster.members
    await cluster.isolate_c()
    await a.join_many(ENTRIES)
    await cluster.connect((a, c))
    await until(lambda: c.has_many("pg", ENTRIES), timeout=60 + ENTRIES / 1000)
    assert await c.call("group_count") == ENTRIES
    await cluster.disconnect((a, c))
    assert await c.call("group_count") == 0
    assert Counter((event[0], event[-1]) for event in await cluster.events(c)) == {
        ("on_process_joined", node_up(a)): ENTRIES,
        ("on_process_left", node_down(a)): ENTRIES,
    }
