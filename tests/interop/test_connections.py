"""Joining a BEAM, being joined, being lost, coming back."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import trio

from erlang_interop import (
    Atom,
    ConnectRefused,
    CookieMismatch,
    EpmdAddress,
    Node,
    NodeDown,
    NodeUp,
    NoSuchNode,
    NotAllowed,
)
from erlang_interop.runtime import epmd as client
from erlang_interop.testing.ports import free_port
from tests.interop.collectors import (
    PATIENCE,
    collecting,
    disconnected_by,
    has_lost,
    is_among_nodes,
    is_forgotten,
    until,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from erlang_interop import NodeEvent
    from erlang_interop.testing.beam import Beam
    from tests.conftest import BeamFactory
    from tests.interop.conftest import NodeOpener


async def next_event(events: AsyncIterator[NodeEvent]) -> NodeEvent:
    with trio.fail_after(30):
        return await anext(events)


@pytest.mark.rule("Connections: a node that is dialled is connected on both sides")
async def test_dialling_a_beam(either_node: Node, beam: Beam) -> None:
    node = either_node
    async with node.monitor_nodes() as events:
        await node.connect(beam.name)
        await node.connect(beam.name)  # at once: it is there
        assert await next_event(events) == NodeUp(Atom(beam.name), "visible")
        assert node.nodes("visible") == [Atom(beam.name)]
        (row,) = node.connections
        assert (row.name, row.state, row.type) == (Atom(beam.name), "up", "visible")
        kind = "visible" if node.visible else "hidden"
        assert await is_among_nodes(beam, node.name, kind)
        other = "hidden" if node.visible else "visible"
        assert await beam.eval(f"lists:member('{node.name}', nodes({other})).") is False
        assert await node.disconnect(beam.name)
        assert await next_event(events) == NodeDown(Atom(beam.name), "visible", Atom("disconnect"))
        assert node.connections == []
        assert not await node.disconnect(beam.name)


@pytest.mark.rule("Connections: a node that dials is connected on both sides")
async def test_being_dialled_by_a_beam(either_node: Node, beam: Beam) -> None:
    node = either_node
    async with node.monitor_nodes() as events:
        assert await beam.eval(f"net_kernel:connect_node('{node.name}').") is True
        assert await next_event(events) == NodeUp(Atom(beam.name), "visible")
        assert await beam.eval(f"erlang:disconnect_node('{node.name}').") is True
        assert await next_event(events) == NodeDown(Atom(beam.name), "visible", Atom("connection_closed"))


@pytest.mark.rule("Node events: a hidden node is told from a visible one")
async def test_a_hidden_beam_is_hidden_to_us(node: Node, fresh_beam: BeamFactory) -> None:
    beam = fresh_beam(hidden=True)
    await node.connect(beam.name)
    assert node.nodes("hidden") == [Atom(beam.name)]
    assert node.nodes("visible") == []


@pytest.mark.rule("Connections: both dial at once, one connection and one nodeup remain")
async def test_both_dial_at_once_and_have_one_connection(node: Node, beam: Beam) -> None:
    async with node.monitor_nodes() as events:
        for _ in range(20):
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(node.connect, beam.name)
                nursery.start_soon(beam.eval, f"net_kernel:connect_node('{node.name}').")
            assert await next_event(events) == NodeUp(Atom(beam.name), "visible")
            assert len(node.connections) == 1
            await node.disconnect(beam.name)
            assert isinstance(await next_event(events), NodeDown)
            await has_lost(beam, node.name)


@pytest.mark.rule("Node events: nodedown when the peer dies")
async def test_nodedown_when_the_beam_is_killed(node: Node, fresh_beam: BeamFactory) -> None:
    beam = fresh_beam()
    async with node.monitor_nodes() as events, node.open_process() as me:
        me.trap_exit = True
        remote = await beam.eval("plain_processes:spawn_named(doomed).")
        me.link(remote)
        by_pid, by_name = me.monitor(remote), me.monitor(("doomed", beam.name))
        assert await next_event(events) == NodeUp(Atom(beam.name), "visible")
        await beam.eval("plain_processes:await_monitored(doomed, 2, 20000).")
        beam.kill()
        noconnection = Atom("noconnection")
        messages = [await me.receive(timeout=30) for _ in range(3)]
        assert messages[0] == (Atom("EXIT"), remote, noconnection)
        assert messages[1:] == [
            (Atom("DOWN"), by_pid, Atom("process"), remote, noconnection),
            (Atom("DOWN"), by_name, Atom("process"), (Atom("doomed"), Atom(beam.name)), noconnection),
        ]
        event = await next_event(events)
        assert event == NodeDown(Atom(beam.name), "visible", Atom("connection_closed"))
        assert len(me.mailbox) == 0
        await is_forgotten(beam)
        with pytest.raises(NoSuchNode):
            await node.connect(beam.name)


@pytest.mark.rule("Identifiers: the creation tells a node from its former incarnation")
async def test_a_beam_restarted_under_its_name_is_another_one(node: Node, fresh_beam: BeamFactory) -> None:
    first = fresh_beam()
    async with node.monitor_nodes() as events, node.open_process() as me:
        await node.connect(first.name)
        old = await first.eval("plain_processes:spawn_named(worker).")
        (before,) = node.connections
        first.kill()
        assert isinstance(await next_event(events), NodeUp)
        assert isinstance(await next_event(events), NodeDown)
        first.close()
        await is_forgotten(first)
        second = fresh_beam(first.name)
        new = await second.eval("plain_processes:spawn_named(worker).")
        ref_old, ref_new = me.monitor(old), me.monitor(("worker", first.name))
        assert await me.receive(timeout=PATIENCE) == (Atom("DOWN"), ref_old, Atom("process"), old, Atom("noproc"))
        (after,) = node.connections
        assert after.creation != before.creation
        await second.eval("exit(P, kill).", P=new)
        assert (await me.receive(timeout=PATIENCE))[1::3] == (ref_new, Atom("killed"))


@pytest.mark.rule("Node events: the peer sees nodedown when this node ends")
async def test_the_beam_notices_that_we_leave(opened: NodeOpener, beam: Beam) -> None:
    async with opened() as node:
        await node.connect(beam.name)
        pid = node.spawn(_wait, name="leaving")
        await beam.eval("collector:start(leaving_watch).")
        await beam.eval(
            "collector:run(leaving_watch, erlang, monitor, [process, P]), "
            "collector:run(leaving_watch, erlang, monitor_node, [N, true]).",
            P=pid,
            N=node.name,
        )
        await until(lambda: node.statistics()["watchers"] == 1)
    messages = await beam.eval("M = collector:take(leaving_watch, 2, 20000), collector:stop(leaving_watch), M.")
    assert [message[0] for message in messages] == [Atom("DOWN"), Atom("nodedown")]
    assert messages[0][4] == Atom("shutdown")


async def _wait(process: object) -> None:
    await trio.sleep(math.inf)


@pytest.mark.rule("Connections: sending to a node connects to it")
async def test_sending_connects_anew(either_node: Node, beam: Beam) -> None:
    """Whoever sends next dials: a lost connection is nobody's to repair."""
    node = either_node
    async with collecting(beam) as there, node.open_process() as me, node.monitor_nodes() as events:
        for index in range(3):
            me.send((there.name, beam.name), index)
            assert await there.take(1) == [index]
            assert isinstance(await next_event(events), NodeUp)
            await node.disconnect(beam.name)
            assert isinstance(await next_event(events), NodeDown)
            await has_lost(beam, node.name)
            await there.run("erlang", "send", me.pid, index)
            assert await me.receive(timeout=PATIENCE) == index
            assert isinstance(await next_event(events), NodeUp)
            await disconnected_by(beam, node)
            assert isinstance(await next_event(events), NodeDown)
            await has_lost(beam, node.name)
        assert node.connections == []


@pytest.mark.rule("Connections: a node that dials anew replaces its old connection")
async def test_a_beam_that_holds_our_last_connection_lets_us_in_anew(opened: NodeOpener, beam: Beam) -> None:
    """As after a crash that it has not noticed: it says `alive`, we mean it, and the old connection gives way."""
    name, port = "reborn@127.0.0.1", beam.epmd_port
    elsewhere = EpmdAddress(port=free_port())
    async with (
        opened(name) as old,
        opened(name, epmd=elsewhere, embedded_epmd=True) as new,
        old.monitor_nodes() as events,
    ):
        short = beam.name.partition("@")[0]
        entry = await client.register(elsewhere, short, await client.look_up("127.0.0.1", port, short), visible=True)
        await old.connect(beam.name)
        assert isinstance(await next_event(events), NodeUp)
        assert await is_among_nodes(beam, name)  # else the new call finds one under way, and is told to wait for it
        await new.connect(beam.name)
        assert await next_event(events) == NodeDown(Atom(beam.name), "visible", Atom("connection_closed"))
        async with collecting(beam) as there, new.open_process() as me:
            me.send(there.pid, me.pid)
            assert await there.take(1) == [me.pid]
        assert await beam.eval("lists:member(N, nodes(hidden))", N=new.name) is True
        entry.stream.close()


@pytest.mark.rule("Handshake: a wrong cookie is named on the side that notices")
async def test_a_wrong_cookie_is_called_a_cookie(opened: NodeOpener, beam: Beam) -> None:
    async with opened(cookie="wrong") as node:
        with pytest.raises(ConnectRefused, match="cookie") as caught:
            await node.connect(beam.name)
        assert isinstance(caught.value.__cause__, CookieMismatch)
        assert await beam.eval(f"net_kernel:connect_node('{node.name}').") is False
        assert node.connections == []


@pytest.mark.rule("Handshake: allow lists, both ways")
async def test_a_node_that_is_not_in_the_list_is_not_let_in(opened: NodeOpener, beam: Beam) -> None:
    async with opened(allow=["friend@127.0.0.1"]) as node:
        assert await beam.eval(f"net_kernel:connect_node('{node.name}').") is False
    async with opened(allow=[beam.name]) as node:
        assert await beam.eval(f"net_kernel:connect_node('{node.name}').") is True


@pytest.mark.rule("Handshake: the peer's not_allowed is named")
async def test_a_beam_that_does_not_let_us_in(node: Node, fresh_beam: BeamFactory) -> None:
    beam = fresh_beam()
    await beam.eval("net_kernel:allow(['friend@127.0.0.1']).")
    with pytest.raises(ConnectRefused, match="does not let us in") as caught:
        await node.connect(beam.name)
    assert isinstance(caught.value.__cause__, NotAllowed)
