from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from structlog.testing import capture_logs

from erlang_interop import (
    Atom,
    CallTimeout,
    EncodeError,
    Exit,
    Export,
    NameAlreadyRegistered,
    Node,
    NodeDownError,
    Pid,
    Process,
    Record,
    RemoteError,
    RemoteExit,
)
from erlang_interop.testing.cluster import Network, open_cluster, settled
from zenmon_node import (
    EventHandler,
    InvalidRemoteScope,
    InvalidScope,
    Member,
    NameUndefined,
    NotAlive,
    NotInGroup,
    NotSelf,
    RaceCondition,
    Scope,
    Taken,
    add_node_to_scopes,
    node_scopes,
    open_scope,
)
from zenmon_node.pacing import SLICE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from zenmon_node import Claim
    from zenmon_node.syn.server import ScopeServer

ALICE, ROOM, NORMAL, UNDEFINED, KILL = map(Atom, ("alice", "room", "normal", "undefined", "kill"))
Pair = tuple[Scope, Scope]


async def wait(process: Process) -> None:
    await trio.sleep_forever()


class Told(EventHandler):
    """Keeps every callback, with its arguments behind the scope."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("on_"):
            return lambda scope, *arguments: self.told.append((name, *arguments))
        return super().__getattribute__(name)

    def take(self) -> list[tuple[Any, ...]]:
        told, self.told = self.told, []
        return told


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
async def cluster(network: Network) -> AsyncIterator[tuple[Node, Node]]:
    async with open_cluster("a@test", "b@test", network=network) as (a, b):
        yield a, b


@asynccontextmanager
async def opened(cluster: tuple[Node, Node], **options: Any) -> AsyncIterator[Pair]:
    """The same scope on two nodes that are connected."""
    a, b = cluster
    async with open_scope(a, "users", **options) as one, open_scope(b, "users", **options) as other:
        await a.connect(b.name)
        await settled()
        assert (one.subcluster_nodes(), other.subcluster_nodes("pg")) == ([b.name], [a.name])
        yield one, other


@pytest.fixture
async def pair(cluster: tuple[Node, Node]) -> AsyncIterator[Pair]:
    async with opened(cluster) as pair:
        yield pair


# ------------------------------------------------------------------------------------------------------------- names


async def test_names_of_processes_of_this_node_and_of_another(pair: Pair) -> None:
    one, other = pair
    here, there = one.node.spawn(wait), other.node.spawn(wait)
    await one.register(ALICE, here, {"since": 1})
    await one.register("bob", there)
    await settled()
    for scope in pair:
        assert scope.lookup(ALICE) == (here, {b"since": 1})
        assert scope.lookup(b"bob") == (there, UNDEFINED)
        assert scope.lookup("bob") == (there, UNDEFINED)
        assert scope.whereis_name("bob") == there
        assert scope.whereis_name(Atom("bob")) is None
        assert scope.lookup(1) is None
        assert scope.registry_count() == 2
        assert [scope.registry_count(node) for node in ("a@test", other.node.name, "c@test")] == [1, 1, 0]
        assert scope.local_registry_count() == 1
        assert sorted(scope.registered_names(), key=repr) == [ALICE, b"bob"]
        assert scope.registered_names("b@test") == [b"bob"]
    await one.unregister("bob")
    await other.unregister(ALICE)
    await settled()
    assert [scope.registry_count() for scope in pair] == [0, 0]


async def test_what_cannot_be_registered(pair: Pair) -> None:
    one, other = pair
    here, there, dead = one.node.spawn(wait), other.node.spawn(wait), other.node.spawn(wait)
    await one.register(ALICE, here, 1)
    other.node.exit(dead, KILL)
    await settled()
    for scope, pid in ((one, there), (other, there)):
        with pytest.raises(NotAlive) as not_alive:
            await scope.register("bob", dead)
        assert not_alive.value.reason == Atom("not_alive")
        await scope.register("carol", pid)
    with pytest.raises(Taken, match=r"cannot register alice, <a@test\.") as taken:
        await other.register(ALICE, one.node.spawn(wait))
    assert taken.value.reason == Atom("taken")
    for scope in pair:
        with pytest.raises(NameUndefined) as undefined:
            await scope.unregister("nobody")
        assert undefined.value.reason == UNDEFINED
        with pytest.raises(NameUndefined):
            await scope.update_registry("nobody", lambda pid, meta: 1)
        with pytest.raises(NameUndefined):
            scope.send("nobody", 1)
    assert one.lookup(ALICE) == (here, 1)


async def test_what_is_no_term_or_no_pid_is_refused(pair: Pair) -> None:
    one, _ = pair
    pid = one.node.spawn(wait)
    for wrong in (object(), float("nan"), Record(Atom("m"), Atom("r"), True, ())):
        with pytest.raises(EncodeError):
            await one.register(wrong, pid)
        with pytest.raises(EncodeError):
            await one.join(ROOM, pid, wrong)
        with pytest.raises(EncodeError):
            one.lookup(wrong)
    for function in (one.register, one.join):
        with pytest.raises(TypeError, match="no pid"):
            await function(ALICE, "no pid")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="metadata cannot be a function"):
            await function(ALICE, pid, lambda: 1)
    assert (one.registry_count(), one.group_count()) == (0, 0)


async def test_metadata_do_not_change_behind_the_scopes_back(pair: Pair) -> None:
    one, _ = pair
    meta = {Atom("at"): [1]}
    await one.register(ALICE, one.node.spawn(wait), meta)
    meta[Atom("at")].append(2)
    assert one.lookup(ALICE)[1] == {Atom("at"): [1]}  # type: ignore[index]


async def test_metadata_of_ten_megabytes(pair: Pair) -> None:
    one, other = pair
    meta = b"x" * 10_000_000
    await one.register(ALICE, one.node.spawn(wait), meta)
    await other.join(ROOM, pid := one.node.spawn(wait), [meta])
    await settled()
    for scope in pair:
        assert scope.lookup(ALICE)[1] == meta  # type: ignore[index]
        assert scope.members(ROOM) == [(pid, [meta])]


async def test_a_name_that_has_changed_hands(pair: Pair, network: Network) -> None:
    one, other = pair
    old, new = other.node.spawn(wait), other.node.spawn(wait)
    await other.register(ALICE, old)
    await settled()
    network.hold()
    await other.unregister(ALICE)
    await other.register(ALICE, new)

    async def unregister() -> None:
        with pytest.raises(RaceCondition) as race:
            await one.unregister(ALICE)
        assert race.value.reason == Atom("race_condition")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(unregister)
        await settled()  # it has looked at what this node knows
        network.release()
    assert one.whereis_name(ALICE) == new


async def test_messages_to_names(pair: Pair) -> None:
    one, other = pair
    async with other.node.open_process() as process:
        await one.register(ALICE, process.pid)
        assert one.send(ALICE, (Atom("hello"), 1)) == process.pid
        assert await process.receive() == (Atom("hello"), 1)


# ------------------------------------------------------------------------------------------------------------ groups


async def test_groups_of_processes_of_both_nodes(pair: Pair) -> None:
    one, other = pair
    here, there = one.node.spawn(wait), other.node.spawn(wait)
    await one.join("room", here, 1)
    await one.join("room", there)
    await other.join(ROOM, there)
    await settled()
    everybody = [Member(here, 1), Member(there, UNDEFINED)]
    for scope, local in zip(pair, everybody, strict=True):
        assert scope.members("room") == sorted(everybody, key=lambda member: member.pid.id)
        assert scope.local_members("room") == [local]
        assert scope.members("nobody") == []
        assert scope.member("room", here) == (here, 1)
        assert scope.member(ROOM, here) is None
        assert (scope.is_member("room", here), scope.is_member(ROOM, here)) == (True, False)
        assert [scope.is_local_member("room", member.pid) for member in everybody] == [scope is one, scope is other]
        assert scope.member_count("room") == 2
        assert [scope.member_count("room", node) for node in ("a@test", "b@test", "c@test")] == [1, 1, 0]
        assert (scope.local_member_count("room"), scope.member_count("nobody")) == (1, 0)
        assert scope.group_names() == [ROOM, b"room"]
        assert [scope.group_names(node) for node in ("a@test", "b@test")] == [[b"room"], [ROOM, b"room"]]
        assert scope.local_group_names() == scope.group_names(scope.node.name)
        assert (scope.group_count(), scope.group_count("a@test"), scope.group_count("c@test")) == (2, 1, 0)
        assert scope.local_group_count() == len(scope.local_group_names())
    await one.leave("room", there)
    with pytest.raises(NotInGroup) as not_in_group:
        await one.leave("room", there)
    assert not_in_group.value.reason == Atom("not_in_group")
    await settled()
    assert other.members("room") == [Member(here, 1)]


async def test_messages_to_members(pair: Pair) -> None:
    one, other = pair
    async with one.node.open_process() as here, other.node.open_process() as there:
        for process in (here, there):
            await one.join(ROOM, process.pid)
        assert await one.publish(ROOM, Atom("hello")) == 2
        assert await one.local_publish(ROOM, Atom("you")) == 1
        assert await one.publish("nobody", Atom("hello")) == 0
        assert [await here.receive(), await here.receive(), await there.receive()] == [
            *(Atom("hello"), Atom("you")),
            Atom("hello"),
        ]
        replies, bad = await one.multi_call(ROOM, Atom("hello"), 0.01)
        assert (replies, bad) == ([], one.members(ROOM))


# --------------------------------------------------------------------------------------------------- metadata anew


async def test_metadata_are_made_of_the_old_ones_on_the_node_of_the_process(pair: Pair) -> None:
    one, other = pair
    here = one.node.spawn(wait)
    await one.register(ALICE, here, 1)
    await one.join(ROOM, here, 1)
    assert await one.update_registry(ALICE, lambda pid, meta: (pid, meta + 1)) == (here, (here, 2))
    assert await one.update_member(ROOM, here, lambda meta: "two") == (here, b"two")
    assert await one.update_member(ROOM, here, lambda meta: meta) == (here, b"two")
    functions: dict[str, Any] = {
        "add": lambda pid, meta: [meta],
        "more": lambda meta: [meta],
        "bad": lambda meta: 1 / 0,
    }
    one.node.expose("counters", functions)
    await settled()
    assert await other.update_registry(ALICE, Export(Atom("counters"), Atom("add"), 2)) == (here, [(here, 2)])
    assert await one.update_member(ROOM, here, Export(Atom("counters"), Atom("more"), 1)) == (here, [b"two"])
    await settled()
    assert (other.lookup(ALICE), other.member(ROOM, here)) == ((here, [(here, 2)]), (here, [b"two"]))
    with pytest.raises(RemoteError) as failed:
        await other.update_member(ROOM, here, Export(Atom("counters"), Atom("bad"), 1))
    assert failed.value.reason == (Atom("ZeroDivisionError"), b"division by zero")
    with pytest.raises(RemoteError, match="undef"):
        await one.update_member(ROOM, here, Export(Atom("counters"), Atom("what"), 1))
    with pytest.raises(NotInGroup) as undefined:
        await other.update_member("nobody", here, Export(Atom("counters"), Atom("more"), 1))
    assert undefined.value.reason == UNDEFINED


async def test_functions_that_fail(pair: Pair) -> None:
    one, other = pair
    here = one.node.spawn(wait)
    await one.register(ALICE, here, 1)
    await one.join(ROOM, here, 1)
    with pytest.raises(ZeroDivisionError):
        await one.update_registry(ALICE, lambda pid, meta: 1 / 0)
    with pytest.raises(Exit):

        def leave(meta: object) -> object:
            raise Exit(NORMAL)

        await one.update_member(ROOM, here, leave)
    with pytest.raises(EncodeError):
        await one.update_member(ROOM, here, lambda meta: object())
    with pytest.raises(TypeError, match="cannot be a function"):
        await one.update_member(ROOM, here, lambda meta: print)
    await settled()
    with pytest.raises(TypeError, match=r"cannot be sent.*Export"):
        await other.update_registry(ALICE, lambda pid, meta: 1)
    wrong: Any = 1
    with pytest.raises(TypeError, match="is no function"):
        await one.update_registry(ALICE, wrong)

    def bye(meta: object) -> object:
        raise Exit(Atom("bye"))

    one.node.expose("counters", {"bye": bye})
    with pytest.raises(RemoteExit) as exited:
        await other.update_member(ROOM, here, Export(Atom("counters"), Atom("bye"), 1))
    assert exited.value.reason == Atom("bye")
    assert (one.lookup(ALICE), one.member(ROOM, here)) == ((here, 1), (here, 1))


# ------------------------------------------------------------------------------------------------------------- events


async def test_every_event_reaches_both_nodes(cluster: tuple[Node, Node]) -> None:
    handlers = Told(), Told()
    a, b = cluster
    async with open_scope(a, "users", handler=handlers[0]) as one, open_scope(b, "users", handler=handlers[1]) as other:
        await a.connect(b.name)
        await settled()
        pid = a.spawn(wait)
        await other.register(ALICE, pid, 1)
        await one.register(ALICE, pid, 1)
        await one.register(ALICE, pid, 2)
        await one.unregister(ALICE)
        await one.join(ROOM, pid, 1)
        await other.join(ROOM, pid, 2)
        a.exit(pid, KILL)
        await settled()
        for handler in handlers:
            assert handler.take() == [
                ("on_process_registered", ALICE, pid, 1, NORMAL),
                ("on_registry_process_updated", ALICE, pid, 2, NORMAL),
                ("on_registry_process_updated_from", ALICE, pid, 1, 2, NORMAL),
                ("on_process_unregistered", ALICE, pid, 2, NORMAL),
                ("on_process_joined", ROOM, pid, 1, NORMAL),
                ("on_group_process_updated", ROOM, pid, 2, NORMAL),
                ("on_group_process_updated_from", ROOM, pid, 1, 2, NORMAL),
                ("on_process_left", ROOM, pid, 2, Atom("killed")),
            ]


async def test_a_resolver_decides_and_may_take_its_time(cluster: tuple[Node, Node]) -> None:
    class Oldest(EventHandler):
        async def resolve_registry_conflict(self, scope: Atom, name: object, remote: Claim, local: Claim) -> Pid:
            await trio.lowlevel.checkpoint()
            return min(remote, local, key=lambda claim: claim.time).pid

    a, b = cluster
    async with open_scope(a, "users", handler=Oldest()) as one, open_scope(b, "users", handler=Oldest()) as other:
        first, second = a.spawn(wait), b.spawn(wait)
        await one.register(ALICE, first)
        await other.register(ALICE, second)
        await a.connect(b.name)
        await settled()
        assert [scope.whereis_name(ALICE) for scope in (one, other)] == [first, first]
        assert b.is_alive(second)


async def test_without_a_resolver_the_later_one_stays_and_the_other_is_killed(cluster: tuple[Node, Node]) -> None:
    a, b = cluster
    async with open_scope(a, "users") as one, open_scope(b, "users") as other:
        await one.register(ALICE, first := a.spawn(wait), 1)
        await other.register(ALICE, second := b.spawn(wait))
        await a.connect(b.name)
        await settled()
        assert [scope.whereis_name(ALICE) for scope in (one, other)] == [second, second]
        assert not a.is_alive(first)


# ---------------------------------------------------------------------------------------------------- what goes wrong


async def test_a_node_that_is_not_in_the_scope(cluster: tuple[Node, Node]) -> None:
    a, b = cluster
    await a.connect(b.name)
    async with open_scope(a, "users") as one:
        for request in (one.register, one.join, one.leave):
            with pytest.raises(InvalidRemoteScope, match="b@test is not in the scope 'users'") as invalid:
                await request(ALICE, b.spawn(wait))
            assert invalid.value.reason == (Atom("invalid_remote_scope"), Atom("users"), b.name)


async def test_a_node_that_does_not_answer(pair: Pair, network: Network, autojump_clock: MockClock) -> None:
    one, other = pair
    there = other.node.spawn(wait)
    network.hold()
    with pytest.raises(CallTimeout):
        await one.register(ALICE, there, timeout=0.5)
    network.release()
    await settled()
    # Its answer is applied when it comes: the others were told, this node was not.
    assert one.whereis_name(ALICE) == other.whereis_name(ALICE) == there


async def test_a_node_that_is_gone(pair: Pair, network: Network) -> None:
    one, other = pair
    there = other.node.spawn(wait)
    network.part("a@test", "b@test")
    await settled()
    with pytest.raises(NodeDownError):
        await one.register(ALICE, there)


async def test_strict_scopes(cluster: tuple[Node, Node]) -> None:
    async with opened(cluster, strict=True) as (one, other), one.node.open_process() as process:
        pid = process.pid
        # Whoever does not say who it is, and whoever is another.
        for target, caller in ((pid, None), (other.node.spawn(wait), process)):
            with pytest.raises(NotSelf, match="caller=process") as not_self:
                await one.register(ALICE, target, caller=caller)
            assert not_self.value.reason == Atom("not_self")
            with pytest.raises(NotSelf):
                await one.join(ROOM, target, caller=caller)
            with pytest.raises(NotSelf):
                await one.update_member(ROOM, target, lambda meta: meta, caller=caller)
        await one.register(ALICE, pid, 1, caller=process)
        await one.join(ROOM, pid, caller=process)
        with pytest.raises(NotSelf):
            await one.update_registry(ALICE, lambda pid, meta: 2)
        assert await one.update_registry(ALICE, lambda pid, meta: 2, caller=process) == (pid, 2)
        await one.leave(ROOM, pid)
        await one.unregister(ALICE)


async def test_members_of_members_are_found_and_connected(network: Network) -> None:
    names = [f"{name}@test" for name in "abcde"]
    async with open_cluster(*names, network=network) as (a, b, c, d, e):
        # In the scope are a, b, c, d; a knows b, b knows c and e, c knows d.
        scopes = [add_node_to_scopes(node, ["users"])[Atom("users")] for node in (a, b, c, d)]
        await d.connect(c.name)
        for node in (a, c, e):
            await node.connect(b.name)
        await scopes[3].register(ALICE, d.spawn(wait))
        network.part("a@test", "c@test")
        await settled()
        with capture_logs() as logs:
            assert await scopes[0].connect_members() == []
        assert [(log["event"], log["node"]) for log in logs] == [("a member cannot be reached", "c@test")]
        network.heal("a@test", "c@test")
        assert await scopes[0].connect_members() == [c.name, d.name]
        await settled()
        assert set(scopes[0].subcluster_nodes()) == {b.name, c.name, d.name}
        assert scopes[0].lookup(ALICE) is not None
        assert await scopes[0].connect_members() == []


async def test_what_the_members_have_is_waited_for(cluster: tuple[Node, Node]) -> None:
    """Also if it is more than is taken over at once; not for nodes that are not in the scope."""
    a, b = cluster
    async with open_scope(b, "users") as theirs:
        pid = b.spawn(wait)
        for number in range(SLICE + 1):
            await theirs.join(number, pid)
        await a.connect(b.name)
        async with open_scope(a, "users") as scope:
            await scope.wait_synced()
            assert scope.group_count() == SLICE + 1
            await scope.wait_synced()
        async with open_scope(a, "guests") as alone:
            await alone.wait_synced()


async def test_members_that_do_not_tell_in_time_are_named(cluster: tuple[Node, Node], network: Network) -> None:
    a, b = cluster
    async with open_scope(b, "users"):
        await a.connect(b.name)
        network.hold()
        async with open_scope(a, "users") as scope:
            with pytest.raises(CallTimeout, match="b@test did not tell within"):
                await scope.wait_synced(timeout=0.05)
            network.release()
            await scope.wait_synced()
        with pytest.raises(InvalidScope):
            await scope.wait_synced()


# -------------------------------------------------------------------------------------------------------- opening


async def test_a_scope_is_left_with_its_block(cluster: tuple[Node, Node]) -> None:
    a, b = cluster
    handler = Told()
    async with open_scope(b, "users", handler=handler) as other:
        async with open_scope(a, "users") as one:
            await a.connect(b.name)
            await settled()
            assert node_scopes(a) == {Atom("users"): one}
            await one.register(ALICE, pid := a.spawn(wait))
            await one.join(ROOM, pid)
            await settled()
            handler.take()
            with pytest.raises(NameAlreadyRegistered):
                async with open_scope(a, "users"):
                    pass
            assert node_scopes(a) == {Atom("users"): one}
        await settled()
        down = (Atom("syn_remote_scope_node_down"), Atom("users"), a.name)
        assert sorted(handler.take()) == [
            ("on_process_left", ROOM, pid, UNDEFINED, down),
            ("on_process_unregistered", ALICE, pid, UNDEFINED, down),
        ]
        assert other.subcluster_nodes() == []
    assert (node_scopes(a), node_scopes(b)) == ({}, {})
    assert a.is_alive(pid)
    assert repr(one) == "<Scope users of a@test (closed)>"
    for use in (lambda: one.lookup(ALICE), lambda: one.members(ROOM), one.group_names, one.subcluster_nodes):
        with pytest.raises(InvalidScope, match="open it again") as invalid:
            use()
        assert invalid.value.reason == (Atom("invalid_scope"), Atom("users"))
    for request in (one.register, one.join, one.leave):
        with pytest.raises(InvalidScope):
            await request(ALICE, pid)
    # What it knew is gone with it.
    async with open_scope(a, "users") as again:
        assert (again.registry_count(), again.group_count()) == (0, 0)


async def test_closing_waits_for_the_handler(cluster: tuple[Node, Node], autojump_clock: MockClock) -> None:
    told = []

    class Slow(EventHandler):
        async def on_process_registered(self, scope: Atom, name: Any, *rest: Any) -> None:
            await trio.sleep(1)
            told.append(name)

    async with open_scope(cluster[0], "users", handler=Slow()) as scope:
        for name in (1, 2):
            await scope.register(name, cluster[0].spawn(wait))
    assert told == [1, 2]


async def test_many_scopes_on_a_node(cluster: tuple[Node, Node]) -> None:
    a, _ = cluster
    scopes = add_node_to_scopes(a, ["users", Atom("Elixir.My.Devices")])
    assert list(scopes) == [Atom("users"), Atom("Elixir.My.Devices")]
    users, devices = scopes.values()
    await users.register(ALICE, a.spawn(wait))
    assert devices.lookup(ALICE) is None
    again = add_node_to_scopes(a, ["users", "rooms"])
    assert again[Atom("users")] is users
    assert list(node_scopes(a)) == [Atom("users"), Atom("Elixir.My.Devices"), Atom("rooms")]
    await users.close()
    await users.wait_closed()
    await users.close()
    assert list(node_scopes(a)) == [Atom("Elixir.My.Devices"), Atom("rooms")]
    assert a.whereis("syn_registry_users") is None
    assert a.whereis("syn_pg_Elixir.My.Devices") is not None


async def test_what_cannot_be_opened(cluster: tuple[Node, Node]) -> None:
    a, _ = cluster
    for interval in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="discover_interval"):
            add_node_to_scopes(a, ["users"], discover_interval=interval)
    with pytest.raises(EncodeError):
        add_node_to_scopes(a, ["x" * 250])
    a.register("syn_pg_users", a.spawn(wait))
    with pytest.raises(NameAlreadyRegistered):
        add_node_to_scopes(a, ["users"])
    assert node_scopes(a) == {}
    assert a.whereis("syn_registry_users") is None
    with pytest.raises(ValueError, match="'registry' and a 'pg'"):
        add_node_to_scopes(a, ["rooms"])[Atom("rooms")].subcluster_nodes("what")  # type: ignore[arg-type]


def kill(server: ScopeServer) -> None:
    server.node.exit(server.process.pid, KILL)


async def test_a_scope_outlives_its_processes(pair: Pair) -> None:
    one, other = pair
    here, there = one.node.spawn(wait), other.node.spawn(wait)
    for scope, pid in ((one, here), (other, there)):
        await scope.register((Atom("name"), pid.node), pid)
        await scope.join(ROOM, pid)
    await settled()
    for server in one.servers:
        kill(server)
        await settled()
    for scope in pair:
        assert (scope.registry_count(), scope.member_count(ROOM)) == (2, 2)
    assert (one.subcluster_nodes(), other.subcluster_nodes("pg")) == ([other.node.name], [one.node.name])
    one.node.exit(here, KILL)
    await settled()
    for scope in pair:
        assert (scope.registry_count(), scope.member_count(ROOM)) == (1, 1)


async def test_a_scope_whose_processes_crash_too_often_is_closed(pair: Pair, mock_clock: MockClock) -> None:
    """Within some seconds, of a clock that stands still here."""
    one, other = pair
    for _ in range(11):
        kill(one.servers[1])
        await settled()
    await one.wait_closed()
    with pytest.raises(InvalidScope, match="crashed too often"):
        await one.join(ROOM, one.node.spawn(wait))
    assert node_scopes(one.node) == {}
    assert other.subcluster_nodes() == []
