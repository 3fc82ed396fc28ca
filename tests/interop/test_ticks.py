"""Ticks with genuine BEAMs: who is kept, who is given up, when, and what it costs to change the time.

Times are as short as they can be: on a machine with other things to do a node or a BEAM may stand still for two
seconds, and must not be given up for that. So each test waits for a few seconds; what can wait at once does.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest
import trio

from erlang_interop import Atom, NodeDown, NodeUp
from erlang_interop.testing.ports import free_port
from tests.interop.collectors import PATIENCE, collecting, leftovers, until
from tests.interop.strangers import STRANGER, shake_hands

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from erlang_interop import Node, NodeEvent
    from erlang_interop.testing.beam import Beam
    from tests.conftest import BeamFactory
    from tests.interop.conftest import NodeOpener

NODEDOWN, NODEUP = Atom("nodedown"), Atom("nodeup")
REASON, TIMEOUT, CLOSED = Atom("nodedown_reason"), Atom("net_tick_timeout"), Atom("connection_closed")
NOCONNECTION = Atom("noconnection")
#: The shortest net_ticktime of nodes and BEAMs that must be kept.
SHORT: Final = 3
#: Seconds that a machine with other things to do may be late where something is to happen.
SLACK: Final = PATIENCE
TICK: Final = bytes(4)


def ticktime(seconds: int) -> tuple[str, ...]:
    """The arguments of a BEAM that ticks for this time, and connects to nobody by itself."""
    return ("-connect_all", "false", "-kernel", "dist_auto_connect", "never", "-kernel", "net_ticktime", str(seconds))


async def connect(beam: Beam, name: str) -> None:
    assert await beam.eval("net_kernel:connect_node(N)", N=Atom(name)) is True


class Watched:
    """What a node heard of others, and when, from the start of the watching on."""

    def __init__(self) -> None:
        self.started = trio.current_time()
        self.events: list[tuple[float, NodeEvent]] = []

    def put(self, event: NodeEvent) -> None:
        self.events.append((trio.current_time() - self.started, event))

    @property
    def downs(self) -> dict[str, Any]:
        """Nodes that were lost, and why."""
        return {event.name.name: event.reason for _, event in self.events if isinstance(event, NodeDown)}


def watch(node: Node) -> Watched:
    watched = Watched()
    node.watch_nodes(watched.put)
    return watched


@asynccontextmanager
async def downs_at(beam: Beam, at_least: int = 0) -> AsyncIterator[dict[str, Any]]:
    """Nodes that ``beam`` lost while the block ran, and why; to be read behind the block, which waits for as many."""
    downs: dict[str, Any] = {}
    async with collecting(beam) as there:
        options = await beam.eval("[nodedown_reason, {node_type, all}]")
        assert await there.run("net_kernel", "monitor_nodes", True, options) == Atom("ok")
        yield downs
        while len(downs) < at_least or await there.waiting():
            for message in await there.take(await there.waiting() or 1):
                if message[0] == NODEDOWN:
                    assert message[1].name not in downs
                    downs[message[1].name] = dict(message[2])[REASON]


def bytes_in(node: Node) -> int:
    """Bytes that came over its only connection."""
    (row,) = node.connections
    return row.bytes_in


# -- being given up


@pytest.mark.rule("Ticks: a peer silent for net_ticktime is given up, and costs what a lost connection costs")
async def test_a_suspended_beam_is_given_up_in_time_and_may_come_back(
    opened: NodeOpener, fresh_beam: BeamFactory
) -> None:
    beam = fresh_beam(args=ticktime(SHORT))
    async with (
        opened(net_ticktime=float(SHORT)) as idle,
        opened(net_ticktime=float(SHORT), visible="passive") as busy,
        idle.open_process() as me,
        collecting(beam) as there,
    ):
        await there.run("net_kernel", "monitor_nodes", True, await beam.eval("[{node_type, all}]"))
        watched = watch(idle), watch(busy)
        me.trap_exit = True
        me.monitor_nodes(nodedown_reason=True)
        await idle.connect(beam.name)
        await busy.connect(beam.name)
        ref = me.monitor(there.pid)
        await there.trap_exit()
        me.link(there.pid)
        me.monitor_node(beam.name)
        await there.monitor(me.pid)
        await there.round_trip(me)
        heard = bytes_in(idle)
        await until(lambda: bytes_in(idle) > heard)
        ticked = trio.current_time()
        beam.suspend()
        # The socket of one of them is full: its peer is as silent, and the sender that waits is let go.
        while not busy.is_busy(beam.name):
            busy.send(there.address, bytes(100_000))
        with trio.fail_after(PATIENCE):
            await busy.send(there.address, b"one more")
        await until(lambda: not idle.connections and not busy.connections)
        for seen in watched:
            assert [event for _, event in seen.events] == [
                NodeUp(Atom(beam.name), "visible"),
                NodeDown(Atom(beam.name), "visible", TIMEOUT),
            ]
            assert seen.started + seen.events[-1][0] - ticked <= 1.25 * SHORT + SLACK
        # The next look finds this tick and four find none; where time stood still, one of them may come at once.
        assert watched[0].started + watched[0].events[-1][0] - ticked >= 0.5 * SHORT
        got = [await me.receive(timeout=PATIENCE) for _ in range(5)]
        assert got[0] == (NODEUP, Atom(beam.name), [])
        assert (Atom("EXIT"), there.pid, NOCONNECTION) in got
        assert (Atom("DOWN"), ref, Atom("process"), there.pid, NOCONNECTION) in got
        assert (NODEDOWN, Atom(beam.name)) in got
        assert got[-1] == (NODEDOWN, Atom(beam.name), [(REASON, TIMEOUT)])
        assert leftovers(idle) == {"node_subscriptions": 1}

        beam.resume()
        await idle.connect(beam.name)
        await there.round_trip(me)
        told = [message[:2] for message in await there.take(await there.waiting()) if type(message) is tuple]
        assert [what for what, node in told if node == idle.name] == [NODEUP, NODEDOWN, NODEUP]


@pytest.mark.rule("Ticks: a peer that never says anything is ticked, and given up")
async def test_a_peer_that_says_nothing_is_given_up(opened: NodeOpener, cookie: str) -> None:
    port = free_port()
    async with opened(net_ticktime=0.4, listen_port=port) as node:
        watched = watch(node)
        async with await shake_hands(port, node.name.name, cookie) as stream:
            said = b""
            with trio.fail_after(PATIENCE):
                while data := await stream.receive_some():
                    said += data
        await until(lambda: len(watched.events) == 2)
        (up, came), (down, went) = watched.events
        assert came == NodeUp(STRANGER, "hidden")
        assert went == NodeDown(STRANGER, "hidden", TIMEOUT)
        # Its first look is 0 to 0.1 s behind the nodeup, or together with it when it was late.
        assert 0.3 - 0.05 <= down - up <= 0.5 + SLACK
        assert said == TICK * 4


# -- who is kept


@pytest.mark.rule("Ticks: another net_ticktime than the peer's is survived as between two BEAMs")
@pytest.mark.rule("Ticks: a node that does not tick is given up by a BEAM")
@pytest.mark.rule("Ticks: ticks alone keep a connection up, and so does data alone")
async def test_what_keeps_a_connection_and_what_does_not(opened: NodeOpener, fresh_beam: BeamFactory) -> None:
    short, long = fresh_beam(args=ticktime(SHORT)), fresh_beam(args=ticktime(60))
    # Another time, but ticks often enough. (A BEAM that has just sent something may be silent for two of its ticks.)
    within = fresh_beam(args=(*ticktime(9), "-kernel", "net_tickintensity", "24"))
    async with (
        opened(net_ticktime=float(SHORT)) as same,
        opened(net_ticktime=9.0, net_tickintensity=24, visible="passive") as ours_within,
        opened(net_ticktime=60.0, visible="passive") as ours_long,
        opened(net_ticktime=3600.0) as talks,
        opened(net_ticktime=float(SHORT)) as listens,
        talks.open_process() as talker,
        listens.open_process("listener") as listener,
        collecting(short) as hears,
        trio.open_nursery() as nursery,
    ):
        nodes = (same, ours_within, ours_long, talks, listens)
        watched = {node: watch(node) for node in nodes}

        async def talk() -> None:
            while True:
                talker.send(hears.address, b"data")
                await trio.sleep(0.2)

        async with downs_at(short, 2) as lost_by_short:  # to its end all that talk go on: who falls silent is given up
            # The judges: two BEAMs whose times differ from the short one's as those of two nodes of ours do.
            for beam in (within, long):
                await connect(short, beam.name)
            for node in (same, ours_within, ours_long, talks):
                await node.connect(short.name)
            await same.connect(long.name)  # here it is the BEAM that does not tick in time
            await listens.connect(long.name)
            nursery.start_soon(talk)
            source = "spawn(fun Talk() -> {listener, Node} ! data, timer:sleep(200), Talk() end)"
            speaker = await long.eval(source, Node=listens.name)
            (before,) = [row for row in same.connections if row.name.name == short.name]
            started = trio.current_time()
            await trio.sleep(2.0 * SHORT)  # that nothing happens takes time
            # What does happen takes up to 1.25 times SHORT, longer if who ticks too seldom does so in the midst of it.
            await until(lambda: bool(watched[same].downs) and bool(watched[ours_long].downs))
            (after,) = [row for row in same.connections if row.name.name == short.name]
            took = trio.current_time() - started

            # Ticks alone, four in the ticktime, both ways; some may be late.
            ticks = 4 * took / SHORT
            for sent in (after.bytes_in - before.bytes_in, after.bytes_out - before.bytes_out):
                assert sent % len(TICK) == 0
                assert ticks / 2 <= sent // len(TICK) <= ticks + 6
            # Data alone: neither of the two that talk has ticked yet.
            assert await hears.waiting() > 5
            assert await listener.receive(timeout=0) == Atom("data")
            ours = {node.name.name: seen.downs for node, seen in watched.items()}
        await long.eval("exit(Speaker, kill)", Speaker=speaker)
        nursery.cancel_scope.cancel()
    assert ours == {
        same.name.name: {long.name: TIMEOUT},
        ours_within.name.name: {},
        ours_long.name.name: {short.name: CLOSED},
        talks.name.name: {},
        listens.name.name: {},
    }
    assert lost_by_short == {long.name: TIMEOUT, ours_long.name.name: TIMEOUT}


# -- changing the time


@pytest.mark.rule("Ticks: the answers of set_net_ticktime and get_net_ticktime")
async def test_the_answers_are_those_of_a_beam(opened: NodeOpener, fresh_beam: BeamFactory) -> None:
    beam = fresh_beam(args=ticktime(8))
    get = "net_kernel:get_net_ticktime()"
    async with opened(net_ticktime=8.0) as node:

        async def both(new: int, *transition: int) -> Any:
            call = f"net_kernel:set_net_ticktime({', '.join(map(str, (new, *transition)))})"
            answer = node.set_net_ticktime(new, *transition)
            assert in_python(await beam.eval(call)) == answer
            return answer

        async def both_have(time: Any) -> None:
            assert in_python(await beam.eval(get)) == node.get_net_ticktime() == time

        assert await both(8, 1) == "unchanged"
        await both_have(8)
        assert await both(4, 1) == "change_initiated"
        await until(lambda: node.get_net_ticktime() == 4.0)
        await beam.eval(f"true = polling:until(fun() -> {get} =:= 4 end, 20000)")
        assert await both(4, 60) == "unchanged"
        await both_have(4)
        assert await both(16) == "change_initiated"  # within a minute
        for new, transition in ((16, 1), (9, 1), (4, 60)):
            await both_have(("ongoing_change_to", 16))
            assert await both(new, transition) == ("ongoing_change_to", 16)
        assert await both(3) == ("ongoing_change_to", 16)


def in_python(term: Any) -> Any:
    """``{ongoing_change_to, 4}`` as ``("ongoing_change_to", 4)``."""
    if isinstance(term, tuple):
        return tuple(in_python(part) for part in term)
    return term.name if isinstance(term, Atom) else term


@pytest.mark.rule("Ticks: set_net_ticktime in a live cluster costs no connection, longer and shorter")
async def test_a_change_costs_no_connection_but_of_those_that_do_not_change(
    opened: NodeOpener, fresh_beam: BeamFactory
) -> None:
    async with trio.open_nursery() as nursery:
        for old, new in ((SHORT, 8 * SHORT), (8 * SHORT, SHORT)):
            nursery.start_soon(
                change_the_time, opened, fresh_beam(args=ticktime(old)), fresh_beam(args=ticktime(old)), old, new
            )


async def change_the_time(opened: NodeOpener, beam: Beam, judge: Beam, old: int, new: int) -> None:
    """Nodes that are idle change within one transition; the judge is a BEAM that does not, as ``stays`` does not."""
    async with (
        opened(net_ticktime=float(old)) as first,
        opened(net_ticktime=float(old), visible="passive") as last,
        opened(net_ticktime=float(old), visible="passive") as stays,
        downs_at(beam, 2) as lost_by_beam,
        downs_at(judge, 1) as lost_by_judge,
    ):
        watched = {node: watch(node) for node in (first, last, stays)}
        await connect(beam, judge.name)
        for node in watched:
            await node.connect(beam.name)
        await first.connect(last.name)
        # Each transition is longer than what is left to be done, by seconds: a machine that is busy takes its time.
        assert first.set_net_ticktime(new, 9.0) == "change_initiated"
        await trio.sleep(1.5 * SHORT)  # the shorter of the two times, and more: who has it must be ticked for it
        assert await beam.eval(f"net_kernel:set_net_ticktime({new}, 4)") == Atom("change_initiated")
        await trio.sleep(1.0)
        assert last.set_net_ticktime(new, 1.0) == "change_initiated"
        await until(lambda: first.get_net_ticktime() == last.get_net_ticktime() == new)
        await beam.eval(f"true = polling:until(fun() -> net_kernel:get_net_ticktime() =:= {new} end, 20000)")
        await trio.sleep(1.5 * SHORT)  # and as long again, behind the transition
        # Who ticks every 6 s now may do so in the middle of these: then it is given up only before its next tick.
        await until(lambda: bool(watched[stays].downs))
        lost = {node: seen.downs for node, seen in watched.items()}
    # The one with the shorter time gives the other up.
    of_the_changed, of_the_others = (CLOSED, TIMEOUT) if old < new else (TIMEOUT, CLOSED)
    assert lost == {first: {}, last: {}, stays: {beam.name: of_the_others}}
    assert lost_by_beam == {judge.name: of_the_changed, stays.name.name: of_the_changed}
    assert lost_by_judge == {beam.name: of_the_others}
