"""A node of ours among BEAMs: visible, it is seen and disturbs nobody; hidden, it is not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from erlang_interop import Atom, Node
from tests.interop.collectors import PATIENCE, Collector, collecting, disconnected_by, has_lost, is_among_nodes, until

if TYPE_CHECKING:
    from erlang_interop.testing.beam import Beam
    from tests.conftest import BeamFactory
    from tests.interop.conftest import NodeOpener

NODEUP, NODEDOWN = Atom("nodeup"), Atom("nodedown")
#: Seconds within which an answer counts as prompt: ``global`` waits for one that never comes without any limit.
PROMPT = 20.0


@pytest.fixture
async def pair(fresh_beam: BeamFactory) -> tuple[Beam, Beam]:
    """Two BEAMs that are connected, and have synchronised their global names."""
    one, two = fresh_beam(), fresh_beam()
    assert await one.eval("net_adm:ping(N)", N=Atom(two.name)) == Atom("pong")
    for beam in (one, two):
        assert await beam.eval("global:sync()") == Atom("ok")
    return one, two


async def nodes(beam: Beam, kind: str = "visible") -> set[str]:
    names = await beam.eval(f"nodes({kind})")
    assert isinstance(names, list)
    return {name.name for name in names}


async def watch_nodes(there: Collector, *options: Any) -> None:
    await there.run("net_kernel", "monitor_nodes", True, list(options))


async def names_and_locks_work(beams: tuple[Beam, Beam], name: str) -> None:
    """``global`` does on both what it does for a cluster without us, promptly."""
    one, two = beams
    with trio.fail_after(PROMPT):
        registered = f"P = spawn(fun() -> receive stop -> ok end end), {{global:register_name({name}, P), P}}"
        done, pid = await one.eval(registered)
        assert done == Atom("yes")
        assert await two.eval(f"global:whereis_name({name})") == pid
        # Given back before this returns: a lock whose owner has ended is free only a moment later.
        locked = f"Id = {{{name}, self()}}, {{global:set_lock(Id), global:del_lock(Id)}}"
        assert await two.eval(locked) == (True, True)
        source = f"global:trans({{{name}, self()}}, fun() -> done end, [node() | nodes()], 3)"
        assert await one.eval(source) == Atom("done")
        await one.eval(f"global:unregister_name({name}), P ! stop", P=pid)


@pytest.mark.rule("Visible nodes: PUBLISHED makes a node one of nodes()")
async def test_a_visible_node_among_two_beams(opened: NodeOpener, pair: tuple[Beam, Beam]) -> None:
    one, two = pair
    async with collecting(one) as at_one, collecting(two) as at_two:
        for there in (at_one, at_two):
            await watch_nodes(there)
        async with opened(visible="passive") as node:
            for beam in pair:
                await node.connect(beam.name)
            for there in (at_one, at_two):
                assert await there.take(1) == [(NODEUP, node.name)]
            assert set(node.nodes("visible")) == {Atom(beam.name) for beam in pair}
            assert await nodes(one) == {two.name, node.name.name}
            assert await nodes(two) == {one.name, node.name.name}
            assert await nodes(one, "hidden") == set()
            await names_and_locks_work(pair, "while_we_are_here")
            with trio.fail_after(PROMPT):
                source = "gen_server:multi_call(nodes(), no_such_server, request, infinity)"
                replies, bad = await one.eval(source)
                assert (replies, set(bad)) == ([], {Atom(two.name), node.name})
            assert await at_one.waiting() == await at_two.waiting() == 0
        for there in (at_one, at_two):
            assert await there.take(1) == [(NODEDOWN, node.name)]
        # We are gone: global is as if we had never been there, and nobody was cut off for our sake.
        with trio.fail_after(PROMPT):
            for beam in pair:
                assert await beam.eval("global:sync()") == Atom("ok")
        await names_and_locks_work(pair, "after_we_left")
        assert await nodes(one) == {two.name}
        assert await nodes(two) == {one.name}
        assert await at_one.waiting() == await at_two.waiting() == 0, "one BEAM lost the other"
    for beam in pair:
        assert "overlapping partitions" not in beam.log


@pytest.mark.rule("Visible nodes: global's prevent_overlapping_partitions cuts nobody off")
async def test_a_visible_node_that_only_one_beam_can_see(opened: NodeOpener, pair: tuple[Beam, Beam]) -> None:
    """OTP cuts nodes off that not everybody is connected to, to prevent overlapping partitions; but not for us."""
    one, two = pair
    async with opened(visible="passive", allow=[one.name]) as node:
        await node.connect(one.name)
        assert await two.eval("net_kernel:connect_node(N)", N=node.name) is False
        await names_and_locks_work(pair, "seen_by_one")
        assert await is_among_nodes(one, node.name, "visible")
        await node.disconnect(one.name)
        await has_lost(one, node.name)
        await names_and_locks_work(pair, "seen_by_none")
        await node.connect(one.name)
        assert await is_among_nodes(one, node.name, "visible")
        await names_and_locks_work(pair, "seen_by_one_again")
        assert await nodes(one) == {two.name, node.name.name}
        assert await nodes(two) == {one.name}


@pytest.mark.rule("Visible nodes: a passive node is not introduced to others")
async def test_a_visible_node_is_not_introduced_to_others(opened: NodeOpener, pair: tuple[Beam, Beam]) -> None:
    """Visible nodes make a mesh by way of ``global``, in which we take no part: whom we know is our own affair."""
    one, two = pair
    async with opened(visible="passive") as node:
        await node.connect(one.name)
        await names_and_locks_work(pair, "no_mesh")
        assert node.nodes("connected") == [Atom(one.name)]
        assert await nodes(two) == {one.name}


@pytest.mark.rule("Visible nodes: a hidden node is none of nodes()")
async def test_a_hidden_node_is_not_seen(opened: NodeOpener, pair: tuple[Beam, Beam]) -> None:
    one, two = pair
    async with collecting(one) as visible, collecting(one) as hidden, collecting(one) as every:
        await watch_nodes(visible)
        await watch_nodes(hidden, (Atom("node_type"), Atom("hidden")))
        await watch_nodes(every, (Atom("node_type"), Atom("all")), Atom("nodedown_reason"))
        async with opened() as node:
            for beam in pair:
                await node.connect(beam.name)
            assert await hidden.take(1) == [(NODEUP, node.name, [(Atom("node_type"), Atom("hidden"))])]
            assert await nodes(one) == {two.name}
            assert await nodes(one, "hidden") == {node.name.name}
            assert await nodes(one, "connected") == {two.name, node.name.name}
            await names_and_locks_work(pair, "with_a_hidden_node")
            with trio.fail_after(PROMPT):
                for beam in pair:
                    assert await beam.eval("global:sync()") == Atom("ok")
        ((what, who, _info),) = await hidden.take(1)
        assert (what, who) == (NODEDOWN, node.name)
        ups_and_downs = await every.take(2)
        assert [event[:2] for event in ups_and_downs] == [(NODEUP, node.name), (NODEDOWN, node.name)]
        assert dict(ups_and_downs[1][2])[Atom("nodedown_reason")] == Atom("connection_closed")
        assert await visible.waiting() == 0


@pytest.mark.rule("Node events: monitor_node on the peer tells of this node")
async def test_monitor_node_tells_both_sides(either_node: Node, beam: Beam) -> None:
    node = either_node
    async with collecting(beam) as there, node.monitor_nodes() as events:
        await there.run("erlang", "monitor_node", node.name, True)
        await until(lambda: node.is_connected(beam.name))
        await disconnected_by(beam, node)
        assert await there.take(1) == [(NODEDOWN, node.name)]
        with trio.fail_after(PATIENCE):
            assert [(await anext(events)).name for _ in range(2)] == [Atom(beam.name)] * 2
