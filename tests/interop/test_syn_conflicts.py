"""One name, two processes: what becomes of them when a split of ``{a, b}`` and ``c`` ends, wherever ours is.

Before, ``a`` has registered ``pa`` and ``c`` has registered ``pc``; ``b`` has seen the former.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from erlang_interop import Atom, Pid
from tests.interop.collectors import until
from tests.interop.syn_members import (
    ERROR,
    OK,
    RESOLVED,
    UNDEFINED,
    node_up,
    placed,
    registered,
    unregistered,
)

if TYPE_CHECKING:
    from tests.interop.syn_members import Cluster, Event, Member

pytestmark = placed("a-hidden", "a-visible", "b-hidden", "c-hidden", "c-visible")

NAME = Atom("leader")
KEEP, LOSE = Atom("keep"), Atom("lose")


async def claimed_twice(cluster: Cluster, meta_a: Any, meta_c: Any, *, first: str = "a") -> tuple[Pid, Pid]:
    """Split, and register both, ``first`` first; the processes of ``a`` and ``c``."""
    a, b, c = cluster.members
    await cluster.isolate_c()
    pa, pc = await a.spawn(), await c.spawn()
    claims = [(a, pa, meta_a), (c, pc, meta_c)]
    (one, *entry_of_one), (other, *entry_of_other) = claims if first == "a" else reversed(claims)
    assert await one.call("register", NAME, *entry_of_one) == OK
    await cluster.pass_time(one, other)
    assert await other.call("register", NAME, *entry_of_other) == OK
    await cluster.settle(a, b)
    return pa, pc


async def has_ended(member: Member, pid: Pid) -> None:
    async def so() -> bool:
        return not await member.is_alive(pid)

    await until(so)


async def all_agree(cluster: Cluster, entry: Any, name: Atom = NAME) -> None:
    for member in cluster.members:
        assert await member.call("lookup", name) == entry


def on_third(a: Member, c: Member, pa: Pid, pc: Pid, meta_a: Any, meta_c: Any) -> list[Event]:
    """What ``b`` sees when ``pa`` loses: syn 3.3 does not tell it who has lost, so it finds out by itself."""
    return [
        unregistered(NAME, pa, meta_a, RESOLVED if a.says_goodbye else node_up(c)),
        registered(NAME, pc, meta_c, node_up(c)),
    ]


async def test_the_newer_one_stays_when_it_is_c(cluster: Cluster) -> None:
    a, b, c = cluster.members
    pa, pc = await claimed_twice(cluster, 1, 2)
    await cluster.heal()
    await all_agree(cluster, (pc, 2))
    await has_ended(a, pa)
    assert await c.is_alive(pc)
    gained = [unregistered(NAME, pa, 1, RESOLVED), registered(NAME, pc, 2, RESOLVED)]
    assert await cluster.events(a) == [registered(NAME, pa, 1), *gained]
    assert await cluster.events(b) == [registered(NAME, pa, 1), *on_third(a, c, pa, pc, 1, 2)]
    assert await cluster.events(c) == [registered(NAME, pc, 2)]


async def test_the_newer_one_stays_when_it_is_a(cluster: Cluster) -> None:
    """The loser had another name, and loses it by its end, which says why."""
    a, b, c = cluster.members
    pa, pc = await claimed_twice(cluster, 1, 2, first="c")
    other = Atom("other")
    assert await c.call("register", other, pc, 3) == OK
    await cluster.heal()
    await has_ended(c, pc)
    await cluster.settle()
    await all_agree(cluster, (pa, 1))
    assert await a.is_alive(pa)
    killed = Atom("syn_resolve_kill"), NAME, 2
    assert await cluster.events(c) == [
        *(registered(NAME, pc, 2), registered(other, pc, 3)),
        *(unregistered(NAME, pc, 2, RESOLVED), registered(NAME, pa, 1, RESOLVED)),
        unregistered(other, pc, 3, killed),
    ]
    for member in (a, b):
        events = await cluster.events(member)
        # b may be connected to c when the loser is long dead: then it has never heard of its other name.
        seen = [registered(other, pc, 3, node_up(c)), unregistered(other, pc, 3, killed)]
        assert events[0] == registered(NAME, pa, 1)
        assert events[1:] in ([seen] if member is a else [seen, []])


async def test_kept_by_a_resolver_when_it_is_c(cluster: Cluster) -> None:
    """The older one: nobody is killed."""
    a, _, c = cluster.members
    await resolving(cluster)
    pa, pc = await claimed_twice(cluster, LOSE, KEEP, first="c")
    await cluster.heal()
    await all_agree(cluster, (pc, KEEP))
    assert await a.is_alive(pa)
    assert await c.is_alive(pc)
    gained = [unregistered(NAME, pa, LOSE, RESOLVED), registered(NAME, pc, KEEP, RESOLVED)]
    events = [timeless(await cluster.events(member)) for member in cluster.members]
    assert events[0] == [registered(NAME, pa, LOSE), resolve((pc, KEEP), (pa, LOSE)), *gained]
    assert events[2] == [registered(NAME, pc, KEEP), resolve((pa, LOSE), (pc, KEEP))]
    third = [registered(NAME, pa, LOSE), *on_third(a, c, pa, pc, LOSE, KEEP)]
    assert events[1] == third


async def test_kept_by_a_resolver_when_it_is_a(cluster: Cluster) -> None:
    a, b, c = cluster.members
    await resolving(cluster)
    pa, pc = await claimed_twice(cluster, KEEP, LOSE)
    await cluster.heal()
    await all_agree(cluster, (pa, KEEP))
    assert await a.is_alive(pa)
    assert await c.is_alive(pc)
    gained = [unregistered(NAME, pc, LOSE, RESOLVED), registered(NAME, pa, KEEP, RESOLVED)]
    assert timeless(await cluster.events(a)) == [registered(NAME, pa, KEEP), resolve((pc, LOSE), (pa, KEEP))]
    assert await cluster.events(b) == [registered(NAME, pa, KEEP)]
    assert timeless(await cluster.events(c)) == [registered(NAME, pc, LOSE), resolve((pa, KEEP), (pc, LOSE)), *gained]


async def test_kept_by_nobody(cluster: Cluster) -> None:
    """The resolver answers no pid, or that of a third process, or fails: the name is free, and nobody is killed."""
    a, b, c = cluster.members
    await resolving(cluster)
    await cluster.isolate_c()
    names = [Atom("undefined"), Atom("third"), Atom("raise")]
    pids = {(member.name, name): await member.spawn() for member in (a, c) for name in names}
    for (owner, name), pid in pids.items():
        assert await {a.name: a, c.name: c}[owner].call("register", name, pid, name) == OK
    await cluster.settle(a, b)
    await cluster.heal()
    for name in names:
        pa, pc = pids[a.name, name], pids[c.name, name]
        await all_agree(cluster, UNDEFINED, name)
        for member, own, other in ((a, pa, pc), (c, pc, pa)):
            assert await member.is_alive(own)
            assert [event for event in timeless(await cluster.events(member)) if event[1] == name] == [
                registered(name, own, name),
                resolve((other, name), (own, name), name),
                unregistered(name, own, name, RESOLVED),
            ]
        assert [event for event in await cluster.events(b) if event[1] == name] == [
            registered(name, pa, name),
            unregistered(name, pa, name, RESOLVED),
        ]
    # Both may have it again, and their ends concern nobody.
    await a.end(pids[a.name, names[0]], Atom("normal"))
    pc = pids[c.name, names[0]]
    assert await b.call("register", NAME, pc) == OK
    await cluster.settle()
    await all_agree(cluster, (pc, UNDEFINED))


async def test_b_is_connected_first(cluster: Cluster) -> None:
    """The third node decides by the time alone, and the owners as always."""
    a, b, c = cluster.members
    pa, pc = await claimed_twice(cluster, 1, 2)
    await cluster.heal_first(b, a)
    await all_agree(cluster, (pc, 2))
    await has_ended(a, pa)
    assert await cluster.events(b) == [
        registered(NAME, pa, 1),
        unregistered(NAME, pa, 1, node_up(c)),
        registered(NAME, pc, 2, node_up(c)),
    ]


async def test_registered_everywhere_at_once(cluster: Cluster) -> None:
    """Of each name one process is left, the same for all; and none when those have ended."""
    names = [(Atom("at once"), number) for number in range(20)]
    pids = {member.name: await member.spawn() for member in cluster.members}

    async def register_all(member: Member) -> None:
        for name in names:
            pid = pids[member.name] = await member.spawn()
            answer = await member.call("register", name, pid)
            assert answer in (OK, (ERROR, Atom("taken")))

    async with trio.open_nursery() as nursery:
        for member in cluster.members:
            nursery.start_soon(register_all, member)

    async def are_agreed() -> bool:
        for name in names:
            entries = [await member.call("lookup", name) for member in cluster.members]
            if entries[0] == UNDEFINED or any(entry != entries[0] for entry in entries):
                return False
            (owner,) = (member for member in cluster.members if member.name == entries[0][0].node)
            if not await owner.is_alive(entries[0][0]):
                return False
        return True

    await until(are_agreed)
    for name in names:
        pid, _ = await cluster.a.call("lookup", name)
        (owner,) = (member for member in cluster.members if member.name == pid.node)
        await owner.kill(pid)
    for member in cluster.members:
        await until(lambda: is_empty(member))  # noqa: B023 - it is awaited here


async def is_empty(member: Member) -> bool:
    count: int = await member.call("registry_count")
    return count == 0


async def resolving(cluster: Cluster) -> None:
    """Decide by metadata on all nodes."""
    for member in cluster.members:
        await member.resolve_by("metadata")
    await cluster.are_members()


def resolve(remote: tuple[Pid, Any], local: tuple[Pid, Any], name: Atom = NAME) -> Event:
    return "resolve_registry_conflict", name, remote, local


def timeless(events: list[Event]) -> list[Event]:
    """Without the times that a resolver is told."""
    out = []
    for event in events:
        if event[0] == "resolve_registry_conflict":
            callback, name, remote, local = event
            assert isinstance(remote[2], int)
            assert isinstance(local[2], int)
            event = (callback, name, remote[:2], local[:2])
        out.append(event)
    return out
