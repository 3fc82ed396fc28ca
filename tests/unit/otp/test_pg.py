from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import trio

from erlang_interop import Atom, EncodeError, InlineServer, NameAlreadyRegistered, Node, NoProcess, Pid, Process, Term
from erlang_interop.otp.pg import Pg, PgJoin, PgLeave, open_pg
from erlang_interop.otp.supervisor import RESTARTS
from erlang_interop.testing.cluster import Network, open_cluster, settled
from tests.unit.otp.monitoring import KillerAtALoss

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

G = Atom("g")
JOIN, LEAVE = Atom("join"), Atom("leave")


async def wait(process: Process) -> None:
    await trio.sleep_forever()


@pytest.fixture
async def cluster() -> AsyncIterator[tuple[Node, Node]]:
    async with open_cluster("a@test", "b@test") as (a, b):
        yield a, b


@pytest.fixture
async def pair(cluster: tuple[Node, Node]) -> AsyncIterator[tuple[Pg, Pg]]:
    """The same scope on two nodes that are connected."""
    a, b = cluster
    async with open_pg(a) as pg_a, open_pg(b) as pg_b:
        await a.connect(b.name)
        await settled()
        yield pg_a, pg_b


async def test_members_of_both_nodes(cluster: tuple[Node, Node], pair: tuple[Pg, Pg]) -> None:
    (a, b), (pg_a, pg_b) = cluster, pair
    one, two = a.spawn(wait), b.spawn(wait)
    pg_a.join("room", [one, one])
    pg_b.join(b"room", two)
    await settled()
    for pg in pair:
        assert sorted(pg.members("room"), key=str) == [one, one, two]
        assert pg.which_groups() == [b"room"]
    assert pg_a.local_members("room") == [one, one]
    assert (pg_a.peers(), pg_b.peers()) == ([b.name], [a.name])
    assert pg_a.leave("room", [one, one])
    await settled()
    assert pg_b.members("room") == [two]
    assert (pg_a.which_local_groups(), pg_b.which_local_groups()) == ([], [b"room"])
    assert not pg_a.leave("room", one)


async def test_who_ends_leaves_everywhere(cluster: tuple[Node, Node], pair: tuple[Pg, Pg]) -> None:
    pid = cluster[0].spawn(wait)
    for group in (G, 1, "x"):
        pair[0].join(group, [pid, pid])
    await settled()
    assert len(pair[1].which_groups()) == 3
    cluster[0].exit(pid, Atom("kill"))
    await settled()
    assert pair[0].which_groups() == pair[1].which_groups() == []


async def test_a_process_that_has_ended_does_not_join(cluster: tuple[Node, Node], pair: tuple[Pg, Pg]) -> None:
    async with cluster[0].open_process() as process:
        pass
    pair[0].join(G, process.pid)
    assert pair[0].which_groups() == []


async def test_only_processes_of_this_node_join_and_leave(cluster: tuple[Node, Node], pair: tuple[Pg, Pg]) -> None:
    here, there = (node.spawn(wait) for node in cluster)
    for function in (pair[0].join, pair[0].leave):
        with pytest.raises(ValueError, match=r"is not of this node.*b@test"):
            function(G, [here, there])
        with pytest.raises(TypeError, match="no pid"):
            function(G, ["name"])  # type: ignore[list-item]
    with pytest.raises(EncodeError):
        pair[0].join(object(), here)
    assert pair[0].which_groups() == []


async def test_the_members_of_a_scope_that_ends_leave(cluster: tuple[Node, Node]) -> None:
    a, b = cluster
    pid = a.spawn(wait)
    async with open_pg(b) as pg_b:
        await a.connect(b.name)
        async with open_pg(a) as pg_a:
            pg_a.join(G, pid)
            await settled()
            assert pg_b.members(G) == [pid]
        await settled()
        assert (pg_b.members(G), pg_b.peers()) == ([], [])
        assert a.is_alive(pid)
        async with open_pg(a) as pg_a:
            pg_a.join(G, pid)
            await settled()
            assert pg_b.members(G) == [pid]


async def test_an_ended_scope_says_so(cluster: tuple[Node, Node]) -> None:
    async with open_pg(cluster[0], "mine") as pg, pg.watch(G) as events:
        assert repr(pg).startswith("<Pg mine <a@test.")
        for _ in range(RESTARTS + 1):
            cluster[0].exit(pg.pid, Atom("kill"))
        assert [event async for event in events] == []
        for use in (pg.which_groups, lambda: pg.members(G), lambda: pg.join(G, []), lambda: pg.watch(G)):
            with pytest.raises(NoProcess, match="the scope 'mine' has ended"):
                use()
        assert repr(pg).endswith("(ended)>")


@pytest.mark.parametrize("killed", [0, 1])
async def test_a_scope_that_is_killed_has_a_successor_that_knows_all(
    cluster: tuple[Node, Node], pair: tuple[Pg, Pg], killed: int
) -> None:
    """Of its own node; what others have told it hears again, and whoever is told of changes hears those alone."""
    pids = [node.spawn(wait) for node in cluster]
    for pg, pid in zip(pair, pids, strict=True):
        pg.join(G, [pid, pid])
    node, pg, other = cluster[killed], pair[killed], pair[1 - killed]
    await settled()
    async with node.open_process() as me, node.open_process() as ends, pg.watch(G) as events:
        ref, members = pg.monitor(G, me)
        assert sorted(members, key=str) == sorted(pids * 2, key=str)
        pg.monitor(G, ends)
        pg.monitor_scope(ends)
        old = pg.pid
        cluster[1 - killed].exit(old, Atom("kill"))
        other.join(b"missed", pids[1 - killed])  # it is told the old process
        other.leave(G, pids[1 - killed])
        await settled()
        assert node.whereis("pg") == pg.pid != old
        for each in pair:
            assert sorted(each.members(G), key=str) == sorted([pids[killed]] * 2 + [pids[1 - killed]], key=str)
            assert each.members(b"missed") == [pids[1 - killed]]
            assert len(each.peers()) == 1
        left = (pids[1 - killed],)
        assert await anext(events) == PgLeave(G, left)
        assert await me.receive(timeout=1) == (ref, Atom("leave"), G, list(left))

        node.exit(pids[killed], Atom("kill"))
        await settled()
        assert other.members(G) == pg.members(G) == [pids[1 - killed]]
        assert await anext(events) == PgLeave(G, (pids[killed],) * 2)
        assert await me.receive(timeout=1) == (ref, Atom("leave"), G, [pids[killed]] * 2)
        node.exit(ends.pid, Atom("normal"))
        assert pg.demonitor(ref)
        assert not pg.demonitor(ref)


async def test_subscriptions_end_with_their_process_also_after_a_restart(
    cluster: tuple[Node, Node], pair: tuple[Pg, Pg]
) -> None:
    a, pg = cluster[0], pair[0]
    subscriber = a.processes[a.spawn(wait)]
    ref, _ = pg.monitor(G, subscriber)
    a.exit(pg.pid, Atom("kill"))
    a.exit(subscriber.pid, Atom("kill"))
    assert pg.demonitor(ref) is False


async def test_a_scope_that_is_killed_while_a_loss_is_told(cluster: tuple[Node, Node], pair: tuple[Pg, Pg]) -> None:
    """A peer that is not connected any more is dropped: to ask for it would dial its node."""
    a, b = cluster
    pid = b.spawn(wait)
    pair[1].join(G, pid)
    await settled()
    a.start_inline(KillerAtALoss(pid, pair[0].pid))
    await a.disconnect(b.name)
    await settled()
    assert (pair[0].members(G), pair[0].peers(), a.nodes("connected")) == ([], [], [])


async def test_scopes_have_nothing_to_do_with_each_other(cluster: tuple[Node, Node], pair: tuple[Pg, Pg]) -> None:
    async with open_pg(cluster[0], "other") as other:
        other.join(G, cluster[0].spawn(wait))
        await settled()
        assert other.peers() == pair[0].which_groups() == pair[1].which_groups() == []


async def test_a_name_that_is_taken(cluster: tuple[Node, Node], pair: tuple[Pg, Pg]) -> None:
    with pytest.raises(NameAlreadyRegistered):
        async with open_pg(cluster[0]):
            pass
    with pytest.raises(ValueError, match="discover_interval"):
        async with open_pg(cluster[0], "other", discover_interval=0):
            pass


async def test_a_lost_connection_and_its_return() -> None:
    network = Network()
    async with open_cluster("a@test", "b@test", network=network) as (a, b), open_pg(a) as pg_a, open_pg(b) as pg_b:
        one, two = a.spawn(wait), b.spawn(wait)
        pg_a.join(G, one)
        pg_b.join(G, two)
        await a.connect(b.name)
        await settled()
        network.part("a@test", "b@test")
        await settled()
        assert (pg_a.members(G), pg_b.members(G)) == ([one], [two])
        pg_a.join(G, one)
        network.heal("a@test", "b@test")
        await b.connect(a.name)
        await settled()
        assert sorted(pg_a.members(G), key=str) == sorted(pg_b.members(G), key=str) == [one, one, two]


# -- changes


async def test_a_process_is_told_of_a_group(cluster: tuple[Node, Node], pair: tuple[Pg, Pg]) -> None:
    (a, b), (pg_a, pg_b) = cluster, pair
    one, two = a.spawn(wait), b.spawn(wait)
    pg_a.join(G, one)
    async with a.open_process() as me:
        ref, members = pg_a.monitor(G, me)
        assert members == [one]
        pg_b.join(G, [two, two])
        pg_b.join("other", two)
        assert await me.receive() == (ref, JOIN, G, [two, two])
        b.exit(two, Atom("kill"))
        assert await me.receive() == (ref, LEAVE, G, [two, two])
        pg_a.join(G, one)
        assert pg_a.demonitor(ref)
        assert not pg_a.demonitor(ref)
        pg_a.join(G, one)
        with pytest.raises(trio.WouldBlock):
            me.receive_nowait()


async def test_a_process_is_told_of_a_scope(cluster: tuple[Node, Node], pair: tuple[Pg, Pg]) -> None:
    (a, b), (pg_a, pg_b) = cluster, pair
    one, two = a.spawn(wait), b.spawn(wait)
    pg_a.join([1], one)
    async with a.open_process() as me:
        ref, groups = pg_a.monitor_scope(me)
        assert [*groups.items()] == [([1], [one])]
        pg_b.join(G, two)
        assert await me.receive() == (ref, JOIN, G, [two])
        await b.disconnect(a.name)
        assert await me.receive() == (ref, LEAVE, G, [two])


async def test_subscriptions_end_with_their_process(cluster: tuple[Node, Node], pair: tuple[Pg, Pg]) -> None:
    (a, _), (pg_a, _) = cluster, pair
    before = a.statistics()
    async with a.open_process() as me:
        refs = [pg_a.monitor(G, me)[0], pg_a.monitor_scope(me)[0]]
    assert a.statistics() == before
    assert [pg_a.demonitor(ref) for ref in refs] == [False, False]
    with pytest.raises(ValueError, match="ended"):
        pg_a.monitor(G, me)


async def test_events_for_code_that_is_no_process(cluster: tuple[Node, Node], pair: tuple[Pg, Pg]) -> None:
    (a, b), (pg_a, pg_b) = cluster, pair
    one, two = a.spawn(wait), b.spawn(wait)
    async with pg_a.watch(G) as events, pg_b.watch_scope() as everything:
        pg_a.join(G, one)
        pg_b.join("other", two)
        pg_b.join(G, two)
        await settled()
        b.exit(two, Atom("kill"))
        assert [await anext(events) for _ in range(3)] == [
            PgJoin(G, (one,)),
            PgJoin(G, (two,)),
            PgLeave(G, (two,)),
        ]
        seen = [await anext(everything) for _ in range(5)]
    assert {(type(event), event.group) for event in seen[-2:]} == {(PgLeave, G), (PgLeave, b"other")}
    assert sorted(str(event.group) for event in seen[:3]) == ["b'other'", "g", "g"]
    pg_a.join(G, one)  # nobody watches


async def test_a_server_that_answers_changes_at_once(cluster: tuple[Node, Node], pair: tuple[Pg, Pg]) -> None:
    """An inline server is run inside the change; what it does to the group comes after it, everywhere."""
    (a, _), (pg_a, pg_b) = cluster, pair

    class Bouncer(InlineServer):
        def handle_message(self, message: Term) -> None:
            if message[1] == JOIN:
                pg_a.leave(message[2], message[3])

    bouncer = Bouncer()
    a.start_inline(bouncer)
    async with pg_b.watch(G) as there, pg_a.watch(G) as here:
        pg_a.monitor(G, bouncer.process)
        pid = a.spawn(wait)
        pg_a.join(G, pid)
        for events in (there, here):
            assert [await anext(events) for _ in range(2)] == [PgJoin(G, (pid,)), PgLeave(G, (pid,))]
    assert pg_a.members(G) == pg_b.members(G) == []


# -- peers that do not look for us


async def test_who_did_not_answer_is_looked_for_again(autojump_clock: MockClock) -> None:
    """As a scope that starts on a BEAM later than the connection: it does not look for hidden nodes."""
    async with open_cluster("a@test", "b@test") as (a, b), open_pg(a, discover_interval=3) as pg_a:
        pid = a.spawn(wait)
        pg_a.join(G, pid)
        async with b.open_process("pg") as silent:
            await a.connect(b.name)
            begin = trio.current_time()
            for _ in range(3):
                assert await silent.receive(timeout=10) == (Atom("discover"), pg_a.pid)
            assert 6 <= trio.current_time() - begin < 7
            silent.send(pg_a.pid, (Atom("discover"), silent.pid))
            everything = (Atom("$gen_cast"), (Atom("sync"), pg_a.pid, [(G, [pid])]))
            assert await silent.receive(timeout=10) == everything
            assert await silent.receive(timeout=10) == (Atom("discover"), pg_a.pid)
            with pytest.raises(TimeoutError):
                await silent.receive(timeout=10)


async def test_visible_nodes_look_for_us_themselves(autojump_clock: MockClock) -> None:
    async with open_cluster("a@test", "b@test", visible="passive") as (a, b), open_pg(a, discover_interval=3) as pg_a:
        async with b.open_process("pg") as silent:
            await a.connect(b.name)
            assert await silent.receive(timeout=10) == (Atom("discover"), pg_a.pid)
            with pytest.raises(TimeoutError):
                await silent.receive(timeout=10)


# -- bad input


async def test_what_is_no_message_of_pg_is_logged_once(
    cluster: tuple[Node, Node], pair: tuple[Pg, Pg], caplog: pytest.LogCaptureFixture
) -> None:
    (a, b), (pg_a, _) = cluster, pair
    async with b.open_process() as stranger:
        bad: list[Term] = [
            Atom("what"),
            (Atom("join"), 1, 2, 3),
            (Atom("discover"), Pid(a.name, 1, 0, a.creation)),
            (Atom("update"), stranger.pid, [(G, [], 1)]),
            (Atom("$gen_cast"), (Atom("sync"), stranger.pid, [[]])),
            (Atom("nodeup"), Atom("nobody@test"), []),
            (Atom("nodedown"), b.name, []),
            (Atom("DOWN"), stranger.make_ref(), Atom("process"), stranger.pid, Atom("normal")),
            (Atom("discover"), Pid(Atom("nobody@test"), 1, 0, 1)),
        ]
        with caplog.at_level(logging.WARNING, "erlang_interop.pg"):
            for _ in range(2):
                for message in bad:
                    stranger.send(("pg", a.name), message)
            await settled()
        lines = [record.getMessage() for record in caplog.records]
        assert len(lines) == 5 - 1, "the first two have the same fault"
        assert all(f"the scope pg ignores a message from {stranger.pid}" in line for line in lines)
        assert a.whereis("pg") == pg_a.pid
        assert "nobody@test" not in [name.name for name in a.nodes("known")]


async def test_a_call_by_hand_is_answered(cluster: tuple[Node, Node], pair: tuple[Pg, Pg]) -> None:
    assert await cluster[1].call(("pg", "a@test"), Atom("monitor")) == (Atom("error"), Atom("unsupported"))
