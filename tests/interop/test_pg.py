"""``pg`` with one BEAM: members of both nodes for both nodes, whatever they do, whether we are hidden or visible."""

from __future__ import annotations

import logging
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from erlang_interop import Atom, InlineServer, Node, PgJoin, PgLeave, open_pg
from tests.interop.collectors import PATIENCE, collecting, has_lost, is_among_nodes, until
from tests.interop.pg_peer import BeamScope, all_have, has, new_scope, scope_on, wait

if TYPE_CHECKING:
    from erlang_interop import Pg, Pid, Term
    from erlang_interop.testing.beam import Beam
    from tests.conftest import BeamFactory
    from tests.interop.conftest import NodeOpener

G = Atom("g")
OK, JOIN, LEAVE = Atom("ok"), Atom("join"), Atom("leave")
#: What a group can be called: as we say it, and as Erlang source.
NAMES: list[tuple[Term, str]] = [
    (G, "g"),
    ("room é", '<<"room é"/utf8>>'),
    (1, "1"),
    (1.0, "1.0"),
    (True, "true"),
    (None, "nil"),
    (("room", 1), '{<<"room">>, 1}'),
    ([{Atom("a"): 1}], "[#{a => 1}]"),
    ({1: Atom("x"), 2: []}, "#{1 => x, 2 => []}"),
]


async def test_members_of_both_nodes(either_node: Node, beam: Beam) -> None:
    node = either_node
    async with scope_on(beam) as there, open_pg(node, there.name) as pg:
        await node.connect(beam.name)
        (theirs,), ours = await there.spawn(), node.spawn(wait)
        for name, source in NAMES:
            pg.join(name, [ours, ours])
            assert await beam.eval(f"pg:join(S, {source}, P)", S=there.name, P=theirs) == OK
        for name, source in NAMES:
            await has(pg, name, [ours, ours, theirs])
            expected = f"lists:sort(pg:get_members(S, {source})) =:= lists:sort([O, O, P])"
            await until_true(beam, expected, S=there.name, O=ours, P=theirs)
            assert pg.local_members(name) == [ours, ours]
            assert await beam.eval(f"pg:get_local_members(S, {source})", S=there.name) == [theirs]
        assert len(pg.which_groups()) == len(NAMES)
        await until_true(beam, f"length(pg:which_groups(S)) =:= {len(NAMES)}", S=there.name)
        for name, source in NAMES:
            assert pg.leave(name, [ours, ours])
            assert not pg.leave(name, ours)
            assert await beam.eval(f"pg:leave(S, {source}, P)", S=there.name, P=theirs) == OK
            assert await beam.eval(f"pg:leave(S, {source}, P)", S=there.name, P=theirs) == Atom("not_joined")
        await until(lambda: not pg.which_groups())
        await there.has_groups()


async def until_true(beam: Beam, source: str, **bindings: Term) -> None:
    async def so() -> bool:
        return await beam.eval(source, **bindings) is True

    await until(so)


async def test_who_has_joined_twice_leaves_twice(either_node: Node, beam: Beam) -> None:
    node = either_node
    async with scope_on(beam) as there, open_pg(node, there.name) as pg:
        await node.connect(beam.name)
        both: list[Pg | BeamScope] = [pg, there]
        ours = node.spawn(wait)
        (one, two) = await there.spawn(2)
        pg.join(G, [ours] * 3)
        await there.call("join", G, [one, one, two])
        await all_have(both, G, [ours, ours, ours, one, one, two])
        assert pg.leave(G, ours)
        await there.call("leave", G, one)
        await all_have(both, G, [ours, ours, one, two])
        assert pg.leave(G, [ours, ours])
        await there.call("leave", G, [one, two])
        await all_have(both, G, [])


async def test_leaving_what_was_never_joined_harms_nobody(either_node: Node, beam: Beam) -> None:
    """A BEAM tells its peers of all that were named in a leave of which one has left."""
    node = either_node
    async with scope_on(beam) as there, open_pg(node, there.name) as pg:
        await node.connect(beam.name)
        ours, other = node.spawn(wait), node.spawn(wait)
        one, two = await there.spawn(2)
        pg.join(G, ours)
        await there.call("join", G, one)
        await all_have([pg, there], G, [ours, one])
        async with pg.watch(G) as events:
            assert pg.leave(G, [other, ours, ours])
            await there.call("leave", G, [two, one, one])
            await all_have([pg, there], G, [])
            assert [await anext(events) for _ in range(2)] == [PgLeave(G, (ours,)), PgLeave(G, (one,))]


async def test_who_ends_has_left(either_node: Node, beam: Beam) -> None:
    node = either_node
    async with scope_on(beam) as there, open_pg(node, there.name) as pg:
        await node.connect(beam.name)
        ours, stays = node.spawn(wait), node.spawn(wait)
        one, two = await there.spawn(2)
        groups: list[Any] = [G, 1, ("x",)]
        for group in groups:
            pg.join(group, [ours, ours, stays])
            await there.call("join", group, [one, two, two])
        for group in groups:
            await all_have([pg, there], group, [ours, ours, stays, one, two, two])
        node.exit(ours, Atom("kill"))
        await there.kill(two)
        for group in groups:
            await all_have([pg, there], group, [stays, one])


async def test_members_from_before_the_connection_and_after_the_next(either_node: Node, beam: Beam) -> None:
    node = either_node
    async with scope_on(beam) as there, open_pg(node, there.name) as pg:
        ours, (theirs,) = node.spawn(wait), await there.spawn()
        pg.join(G, [ours, ours])
        await there.call("join", G, theirs)
        for _ in range(3):
            await node.connect(beam.name)
            await all_have([pg, there], G, [ours, ours, theirs])
            await node.disconnect(beam.name)
            await has_lost(beam, node.name)
            await has(pg, G, [ours, ours])
            await there.has(G, [theirs])
        await node.connect(beam.name)
        await all_have([pg, there], G, [ours, ours, theirs])


async def test_the_beam_connects_to_us(either_node: Node, beam: Beam) -> None:
    node = either_node
    async with scope_on(beam) as there, open_pg(node, there.name) as pg:
        ours, (theirs,) = node.spawn(wait), await there.spawn()
        pg.join(G, ours)
        await there.call("join", G, theirs)
        assert await beam.eval("net_kernel:connect_node(N)", N=node.name) is True
        await all_have([pg, there], G, [ours, theirs])


async def test_a_process_there_monitors_a_group(either_node: Node, beam: Beam) -> None:
    node = either_node
    async with scope_on(beam) as there, open_pg(node, there.name) as pg, collecting(beam) as watcher:
        await node.connect(beam.name)
        ours = node.spawn(wait)
        pg.join(G, ours)
        await there.has(G, [ours])
        ref, members = await watcher.run("pg", "monitor", there.name, G)
        assert members == [ours]
        pg.join(G, [ours, ours])
        pg.join("another", ours)
        pg.leave(G, ours)
        node.exit(ours, Atom("kill"))
        assert await watcher.take(3) == [
            (ref, JOIN, G, [ours, ours]),
            (ref, LEAVE, G, [ours]),
            (ref, LEAVE, G, [ours, ours]),
        ]


async def test_a_process_here_monitors_the_scope(either_node: Node, beam: Beam) -> None:
    node = either_node
    async with scope_on(beam) as there, open_pg(node, there.name) as pg, node.open_process() as me:
        await node.connect(beam.name)
        one, two = await there.spawn(2)
        await there.call("join", G, one)
        await has(pg, G, [one])
        ref, members = pg.monitor(G, me)
        every, groups = pg.monitor_scope(me)
        assert (members, groups) == ([one], {G: [one]})
        await there.call("join", G, [two, two])
        await there.call("join", Atom("other"), two)
        await there.kill(two)
        mine: list[Any] = [await me.receive(lambda message: message[0] == ref, timeout=PATIENCE) for _ in range(2)]
        assert mine == [(ref, JOIN, G, [two, two]), (ref, LEAVE, G, [two])]
        assert await me.receive(lambda message: message[0] == ref, timeout=PATIENCE) == mine[1]
        of_all = [await me.receive(lambda message: message[0] == every, timeout=PATIENCE) for _ in range(5)]
        assert Counter((m[1], m[2]) for m in of_all) == {
            (JOIN, G): 1,
            (JOIN, Atom("other")): 1,
            (LEAVE, G): 2,
            (LEAVE, Atom("other")): 1,
        }
        assert pg.demonitor(ref)
        assert pg.demonitor(every)
        async with pg.watch_scope() as events:
            await there.call("join", 1, one)
            assert await anext(events) == PgJoin(1, (one,))


async def test_a_member_that_also_monitors_ends(either_node: Node, beam: Beam) -> None:
    """Its scope has several monitors on it; pg of OTP 25 took one for the other, and ended (erlang/otp#7625)."""
    node = either_node
    async with scope_on(beam) as there, open_pg(node, there.name) as pg:
        await node.connect(beam.name)
        async with node.open_process() as me:
            pg.monitor(G, me)
            pg.join(G, [me.pid, me.pid])
            pg.monitor_scope(me)
            await all_have([pg, there], G, [me.pid, me.pid])
        await all_have([pg, there], G, [])
        assert node.is_alive(pg.pid)
        assert pg.which_groups() == []
        await there.has_groups()


async def test_a_scope_of_ours_that_ends_and_is_opened_again(either_node: Node, beam: Beam) -> None:
    node = either_node
    async with scope_on(beam) as there:
        await node.connect(beam.name)
        ours, (theirs,) = node.spawn(wait), await there.spawn()
        await there.call("join", G, theirs)
        for _ in range(3):
            async with open_pg(node, there.name) as pg:
                pg.join(G, ours)
                await all_have([pg, there], G, [ours, theirs])
            await there.has(G, [theirs])


@pytest.mark.parametrize("visible", [False, "passive"], ids=["hidden", "visible"])
async def test_a_scope_that_starts_there_later_and_is_killed(opened: NodeOpener, beam: Beam, visible: Any) -> None:
    """A BEAM looks for visible nodes alone; a hidden one of ours asks it again every ``discover_interval`` seconds."""
    there = BeamScope(beam, new_scope())
    async with opened(visible=visible) as node, open_pg(node, there.name, discover_interval=0.2) as pg:
        await node.connect(beam.name)
        assert await is_among_nodes(beam, node.name)
        ours = node.spawn(wait)
        pg.join(G, ours)
        for _ in range(3):
            pid = await there.start()
            (theirs,) = await there.spawn()
            await there.call("join", G, theirs)
            await all_have([pg, there], G, [ours, theirs])
            await there.kill(pid)
            await has(pg, G, [ours])
            await until(lambda: pg.peers() == [])


async def test_a_hidden_beam(either_node: Node, fresh_beam: BeamFactory) -> None:
    """It takes all nodes for hidden ones, and never looks for anybody itself."""
    node, beam = either_node, fresh_beam(hidden=True)
    there = BeamScope(beam, new_scope())
    async with open_pg(node, there.name, discover_interval=0.2) as pg:
        ours = node.spawn(wait)
        pg.join(G, ours)
        await node.connect(beam.name)
        await there.start()
        (theirs,) = await there.spawn()
        await there.call("join", G, theirs)
        await all_have([pg, there], G, [ours, theirs])
        await node.disconnect(beam.name)
        await has_lost(beam, node.name)
        await there.has(G, [theirs])
        await node.connect(beam.name)
        await all_have([pg, there], G, [ours, theirs])


async def test_any_history(either_node: Node, beam: Beam) -> None:
    """Both sides join, leave and end at random, without waiting for each other; in the end they agree."""
    node, chance = either_node, random.Random(29)
    async with scope_on(beam) as there, open_pg(node, there.name) as pg:
        await node.connect(beam.name)
        ours, theirs = [node.spawn(wait) for _ in range(6)], await there.spawn(6)
        truth: Counter[tuple[str, Pid]] = Counter()
        for _ in range(200):
            group = chance.choice([Atom("a"), Atom("b"), Atom("c")])
            here = chance.random() < 0.5
            at = chance.randrange(6)
            pid, count = (ours if here else theirs)[at], chance.choice([1, 1, 2])
            what = chance.choices(["join", "leave", "kill"], [6, 5, 1])[0]
            if what == "join":
                truth[group.name, pid] += count
                pg.join(group, [pid] * count) if here else await there.call("join", group, [pid] * count)
            elif what == "leave":
                truth[group.name, pid] -= min(count, truth[group.name, pid])
                pg.leave(group, [pid] * count) if here else await there.call("leave", group, [pid] * count)
            else:
                truth = Counter({key: n for key, n in truth.items() if key[1] != pid})
                if here:
                    node.exit(pid, Atom("kill"))
                    ours[at] = node.spawn(wait)
                else:
                    await there.kill(pid)
                    (theirs[at],) = await there.spawn()
        for name in ("a", "b", "c"):
            members = [pid for (group, pid), n in truth.items() if group == name for _ in range(n)]
            await all_have([pg, there], Atom(name), members)


async def test_leaving_while_the_two_meet(either_node: Node, beam: Beam) -> None:
    """pg of OTP 25 to 28 ends (badkey) when a peer leaves before it has said what it is in; ours says that first."""
    node = either_node
    async with scope_on(beam) as there, open_pg(node, there.name) as pg:

        class Leaver(InlineServer):
            """Leaves as soon as it hears of the members there: between their ``sync`` and their ``discover``."""

            def handle_message(self, message: Term) -> None:
                if message[1] == JOIN:
                    pg.leave(G, self.process.pid)

        leaver = Leaver()
        node.start_inline(leaver)
        (theirs,) = await there.spawn()
        await there.call("join", Atom("theirs"), theirs)
        pg.monitor(Atom("theirs"), leaver.process)
        for _ in range(5):
            pg.join(G, leaver.process.pid)
            await node.connect(beam.name)
            await has(pg, G, [])
            pg.join(1, leaver.process.pid)
            await there.has_groups(1, Atom("theirs"))
            await node.disconnect(beam.name)
            await has_lost(beam, node.name)
            await has(pg, Atom("theirs"), [])
            await there.has_groups(Atom("theirs"))
            pg.leave(1, leaver.process.pid)


async def test_messages_of_unknown_form(either_node: Node, beam: Beam, caplog: pytest.LogCaptureFixture) -> None:
    """They are said in the log once, with who sent them; the scope goes on, and who calls it is answered."""
    node = either_node
    async with scope_on(beam) as there, open_pg(node, there.name) as pg, collecting(beam) as stranger:
        await node.connect(beam.name)
        to = (there.name, node.name)
        bad: list[Term] = [
            Atom("hello"),
            (JOIN, stranger.pid, G, [1]),
            (LEAVE, stranger.pid, G, G),
            (Atom("update"), stranger.pid, {}),
            (Atom("$gen_cast"), (Atom("sync"), stranger.pid, [G])),
            (Atom("$gen_cast"), (Atom("local_data"), stranger.pid, 1, [])),
            (Atom("discover"), pg.pid),
            (JOIN, stranger.pid, {1: 2, Atom("1"): 3}, Atom("x")),
        ]
        with caplog.at_level(logging.WARNING, "erlang_interop.pg"):
            for message in [*bad, *bad]:
                await stranger.run("erlang", "send", to, message)
            assert await beam.eval("gen_server:call(To, monitor)", To=to) == (Atom("error"), Atom("unsupported"))
        lines = [record.getMessage() for record in caplog.records]
        assert all(f"the scope {there.name.name} ignores a message from {stranger.pid}" in line for line in lines)
        assert 1 <= len(lines) == len(set(lines)) <= len(bad)
        ours, (theirs,) = node.spawn(wait), await there.spawn()
        pg.join(G, ours)
        await there.call("join", G, theirs)
        await all_have([pg, there], G, [ours, theirs])


async def test_ten_thousand_members_at_nodeup(either_node: Node, beam: Beam) -> None:
    """In one group and in a group each; both ways, and gone again with the connection."""
    node, count = either_node, 10_000
    async with scope_on(beam) as there, open_pg(node, there.name) as pg:
        ours, (theirs,) = [node.spawn(wait) for _ in range(100)], await there.spawn()
        pg.join(G, [ours[n % 100] for n in range(count)])
        for n in range(count):
            pg.join((Atom("ours"), n), ours[n % 100])
        joins = "pg:join(S, G, [P || _ <- lists:seq(1, N)]), [pg:join(S, {theirs, I}, P) || I <- lists:seq(1, N)], ok"
        assert await beam.eval(joins, S=there.name, G=G, P=theirs, N=count) == OK
        await node.connect(beam.name)
        await until(lambda: len(pg.members(G)) == 2 * count and len(pg.which_groups()) == 2 * count + 1)
        sizes = "{length(pg:get_members(S, G)), length(pg:which_groups(S))} =:= {2 * N, 2 * N + 1}"
        await until_true(beam, sizes, S=there.name, G=G, N=count)
        assert pg.members((Atom("theirs"), count)) == [theirs]
        assert await there.call("get_members", (Atom("ours"), 1)) == [ours[1]]
        await node.disconnect(beam.name)
        await until(lambda: len(pg.which_groups()) == count + 1)
        await until_true(beam, "length(pg:which_groups(S)) =:= N + 1", S=there.name, N=count)
        await beam.eval("exit(P, kill)", P=theirs)
        await there.has_groups()
