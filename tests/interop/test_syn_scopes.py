"""A scope of syn through splits, crashes and restarts of its members, one of them ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from erlang_interop import Atom, Pid
from tests.interop.syn_members import (
    OK,
    SERVICES,
    UNDEFINED,
    joined,
    left,
    node_down,
    node_up,
    of_groups,
    of_names,
    placed,
    registered,
    unordered,
    unregistered,
)

if TYPE_CHECKING:
    from tests.interop.syn_members import Cluster, Event, Member

pytestmark = placed("a-hidden", "a-visible", "b-hidden", "c-hidden", "c-visible")


@pytest.fixture
def discover_interval() -> float:
    """A BEAM whose scope is started anew does not speak to a hidden node."""
    return 0.1


class Entries:
    """Of each member of a cluster one process, that has a name and is in a group; both are the name of the node."""

    def __init__(self, cluster: Cluster, pids: dict[Atom, Pid]) -> None:
        self.cluster = cluster
        self.pids = pids

    @classmethod
    async def made(cls, cluster: Cluster) -> Entries:
        entries = cls(cluster, {member.name: await member.spawn() for member in cluster.members})
        for member in cluster.members:
            for function in ("register", "join"):
                assert await member.call(function, member.name, entries.pids[member.name], 1) == OK
        await cluster.settle()
        return entries

    def _each(self, callbacks: Any, members: tuple[Member, ...], reason: Any) -> list[Event]:
        return [callback(each.name, self.pids[each.name], 1, reason) for each in members for callback in callbacks]

    def came(self, *members: Member, reason: Any = None) -> list[Event]:
        """What is called when their entries are learnt of."""
        return [
            event for each in members for event in self._each((registered, joined), (each,), reason or node_up(each))
        ]

    def went(self, *members: Member, reason: Any = None) -> list[Event]:
        """What is called when their entries are forgotten."""
        return [
            event for each in members for event in self._each((unregistered, left), (each,), reason or node_down(each))
        ]

    async def are_everywhere(self) -> None:
        for member in self.cluster.members:
            for each in self.cluster.members:
                entry = self.pids[each.name], 1
                assert await member.call("lookup", each.name) == entry
                assert await member.call("members", each.name) == [entry]
            for service in SERVICES:
                others = {other.name for other in self.cluster.members} - {member.name}
                assert await member.peers(service) == others

    async def happened(self, member: Member, *phases: list[Event]) -> None:
        """After its three first registrations and joins, a member saw these events; the order of a phase is free.

        Names and groups are kept by two processes, so only the order of each of both is looked at.
        """
        events = await self.cluster.events(member)
        for own in (of_names, of_groups):
            seen = own(events)[3:]
            for phase in map(own, phases):
                assert unordered(seen[: len(phase)]) == unordered(phase)
                seen = seen[len(phase) :]
            assert seen == []


async def test_a_split_and_its_end(cluster: Cluster) -> None:
    a, b, c = cluster.members
    entries = await Entries.made(cluster)
    await cluster.isolate_c()
    await cluster.settle(a, b)
    for member, own in ((a, {a, b}), (b, {a, b}), (c, {c})):
        assert await member.call("registry_count") == len(own)
        assert set(await member.call("group_names")) == {each.name for each in own}
    await cluster.heal()
    await entries.are_everywhere()
    for member in (a, b):
        await entries.happened(member, entries.went(c), entries.came(c))
    await entries.happened(c, entries.went(a), entries.went(b), entries.came(a), entries.came(b))


async def test_what_has_changed_during_a_split(cluster: Cluster) -> None:
    """The others see only how it is in the end: what has died, left or been replaced meanwhile does not come back."""
    a, b, c = cluster.members
    kept, dying, changing, leaving = Atom("kept"), Atom("dying"), Atom("changing"), Atom("leaving")
    pids = {key: await c.spawn() for key in (kept, dying, changing, leaving)}
    for key, pid in pids.items():
        for function in ("register", "join"):
            assert await c.call(function, key, pid, 1) == OK
    await cluster.settle()
    before = {member.name: len(await cluster.events(member)) for member in cluster.members}
    await cluster.isolate_c()
    await c.kill(pids[dying])
    assert await c.call("register", changing, pids[changing], 2) == OK
    assert await c.call("join", changing, pids[changing], 2) == OK
    assert await c.call("unregister", leaving) == OK
    assert await c.call("leave", leaving, pids[leaving]) == OK
    new, again = Atom("new"), await c.spawn()
    assert await c.call("register", new, again, 3) == OK
    assert await c.call("register", dying, again, 3) == OK
    await cluster.settle(c)
    own = len(await cluster.events(c))
    await cluster.heal()
    assert len(await cluster.events(c)) == own
    for member in (a, b):
        events = (await cluster.events(member))[before[member.name] :]
        gone = [event for key, pid in pids.items() for event in of_both(unregistered, left, key, pid, 1, node_down(c))]
        back = [
            *of_both(registered, joined, kept, pids[kept], 1, node_up(c)),
            *of_both(registered, joined, changing, pids[changing], 2, node_up(c)),
            registered(new, again, 3, node_up(c)),
            registered(dying, again, 3, node_up(c)),
        ]
        for own_of in (of_names, of_groups):
            assert unordered(own_of(events)[:4]) == unordered(own_of(gone))
            assert unordered(own_of(events)[4:]) == unordered(own_of(back))
        assert await member.call("lookup", leaving) == UNDEFINED
        assert await member.call("lookup", changing) == (pids[changing], 2)
        assert await member.call("members", dying) == []


def of_both(of_name: Any, of_group: Any, *arguments: Any) -> list[Event]:
    return [of_name(*arguments), of_group(*arguments)]


async def test_the_scope_process_of_a_crashes(cluster: Cluster) -> None:
    a, b, c = cluster.members
    entries = await Entries.made(cluster)
    for service in SERVICES:
        await a.crash(service)
    await cluster.are_members()
    await cluster.settle()
    await entries.are_everywhere()
    await entries.happened(a, entries.went(b, c), entries.came(b, c))
    for member in (b, c):
        await entries.happened(member, entries.went(a), entries.came(a))
    # Its processes are watched again.
    await a.end(entries.pids[a.name], Atom("done"))
    await cluster.settle()
    for member, first in ((a, []), (b, entries.came(a)), (c, entries.came(a))):
        events = await cluster.events(member)
        ended = entries.went(a, reason=Atom("done"))
        assert [of_names(events)[-1], of_groups(events)[-1]] == ended, first


async def test_a_process_ends_while_its_scope_process_is_down(cluster: Cluster) -> None:
    a, b, c = cluster.members
    entries = await Entries.made(cluster)
    others = {service: await a.spawn_idle() for service in SERVICES}
    for function, pid in zip(("register", "join"), others.values(), strict=True):
        assert await a.call(function, Atom("short"), pid, 2) == OK
    await cluster.settle()
    for service in SERVICES:
        await a.crash(service, while_down=others[service])
    await cluster.are_members()
    await cluster.settle()
    await entries.are_everywhere()
    short = Atom("short")
    came = [registered(short, others["registry"], 2), joined(short, others["pg"], 2)]
    # Only a says that it has ended; the others have forgotten it as all of a's.
    ended = [unregistered(short, others["registry"], 2, UNDEFINED), left(short, others["pg"], 2, UNDEFINED)]
    await entries.happened(a, came, [*entries.went(b, c), *ended], entries.came(b, c))
    down = node_down(a)
    forgotten = [unregistered(short, others["registry"], 2, down), left(short, others["pg"], 2, down)]
    for member in (b, c):
        await entries.happened(member, came, [*entries.went(a), *forgotten], entries.came(a))


async def test_a_leaves_and_comes_back(cluster: Cluster) -> None:
    """Whoever leaves forgets all, its own names too; asking it for anything then is an error."""
    a, b, c = cluster.members
    entries = await Entries.made(cluster)
    before = len(await cluster.events(a))
    await a.leave_scope()
    for member in (b, c):
        await member.await_member(a, is_member=False)
    pid = entries.pids[a.name]
    no_scope = Atom("invalid_remote_scope"), a.scope, a.name
    assert await b.call("register", Atom("x"), pid) == ("error", no_scope)
    assert await b.call("join", Atom("x"), pid) == ("error", no_scope)
    assert await b.call("leave", Atom("x"), pid) == ("error", no_scope)
    assert len(await cluster.events(a)) == before
    await a.enter_scope()
    await cluster.are_members()
    await cluster.settle()
    assert await a.is_alive(pid)
    for member in cluster.members:
        assert await member.call("lookup", a.name) == UNDEFINED
        assert await member.call("members", a.name) == []
        assert await member.call("registry_count") == await member.call("group_count") == 2
    await entries.happened(a, entries.came(b, c))
    for member in (b, c):
        await entries.happened(member, entries.went(a))
    assert await c.call("register", a.name, pid, 2) == OK
    await cluster.settle()
    for member in cluster.members:
        assert await member.call("lookup", a.name) == (pid, 2)
