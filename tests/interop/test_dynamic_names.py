"""Nodes that are given their name by the first node they connect to: ``erl -name undefined``, and ours."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest
import trio

from erlang_interop import Atom, ConnectError, ConnectRefused, NodeDown, NodeUp, NoSuchNode, NotAllowed, Pid
from erlang_interop.runtime import epmd as client
from erlang_interop.runtime.epmd import EpmdAddress
from tests.interop.collectors import PATIENCE, collecting, has_lost, is_among_nodes, leftovers, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from erlang_interop import NodeEvent
    from erlang_interop.testing.beam import Beam, Epmd
    from tests.conftest import BeamFactory, Otp
    from tests.interop.conftest import NodeOpener

UNDEFINED = "undefined@127.0.0.1"

GIVEN = pytest.mark.rule("Handshake: giving a node its name")
ASKED = pytest.mark.rule("Handshake: being given a name")


async def next_event(events: AsyncIterator[NodeEvent]) -> NodeEvent:
    with trio.fail_after(PATIENCE):
        return await anext(events)


# ------------------------------------------------------------------------------------------------ we give the names


@GIVEN
@pytest.mark.parametrize("visible", [False, "passive"], ids=["hidden", "visible"])
async def test_a_beam_asks_us_for_a_name(opened: NodeOpener, fresh_beam: BeamFactory, visible: object) -> None:
    beam = fresh_beam(UNDEFINED)
    assert await beam.eval("node()") == Atom("nonode@nohost")
    async with (
        opened(visible=visible) as node,
        node.monitor_nodes() as events,
        node.open_process("sink") as sink,
        collecting(beam) as there,
    ):
        assert await beam.eval("net_kernel:connect_node(N)", N=node.name) is True
        up = await next_event(events)
        assert isinstance(up, NodeUp)
        assert up.type == "hidden", "a node with such a name is hidden, and those it is connected to are to it"
        name = await beam.eval("node()")
        assert name == up.name
        assert re.fullmatch(r"[0-9A-Z]+@127\.0\.0\.1", name.name)
        assert await beam.eval("{nodes(), nodes(hidden)}") == ([], [node.name])
        assert node.nodes("hidden") == [name]
        (row,) = node.connections
        assert await beam.eval("erlang:system_info(creation)") == row.creation
        # messages both ways, by name and by pid
        sink.send((there.name, name), sink.pid)
        assert await there.take(1) == [sink.pid]
        remote = await beam.eval("plain_processes:spawn_named(worker)")
        assert isinstance(remote, Pid)
        assert (remote.node, remote.creation) == (name, row.creation)
        await beam.eval("{sink, N} ! {by_name, P}", N=node.name, P=remote)
        assert await sink.receive(timeout=PATIENCE) == (Atom("by_name"), remote)
        await beam.eval("P ! by_pid", P=sink.pid)
        assert await sink.receive(timeout=PATIENCE) == Atom("by_pid")
        # monitors both ways
        ref = sink.monitor(remote)
        await beam.eval("plain_processes:await_monitored(worker, 1, 20000)")
        await beam.eval("exit(P, finished)", P=remote)
        expected = (Atom("DOWN"), ref, Atom("process"), remote, Atom("finished"))
        assert await sink.receive(timeout=PATIENCE) == expected
        victim = node.spawn(_until_told)
        watch = await there.monitor(victim)
        await there.run("erlang", "send", victim, Atom("end"))
        assert await there.take(1) == [(Atom("DOWN"), watch, Atom("process"), victim, Atom("normal"))]
        assert node.handshakes == {}, "none of the status words but `named`"


async def _until_told(process: object) -> None:
    await process.receive()  # type: ignore[attr-defined]


@GIVEN
async def test_a_beam_with_short_names_asks_us_for_a_name(
    otp: Otp, opened: NodeOpener, epmd: Epmd, cookie: str, tmp_path: Path
) -> None:
    async with opened("short@localhost") as node, node.monitor_nodes() as events:
        source = f"true = net_kernel:connect_node('{node.name}'), io:format(\"~s\", [node()]), halt()."
        argv = [str(otp.root / "bin" / "erl"), "-noshell", "-sname", "undefined@localhost", "-eval", source]
        settings = {"HOME": str(tmp_path), "ERL_EPMD_PORT": str(epmd.port), "ERL_FLAGS": f"-setcookie {cookie}"}
        with trio.fail_after(PATIENCE):
            done = await trio.run_process(argv, capture_stdout=True, env=os.environ | settings)
        name = Atom(done.stdout.decode())
        assert re.fullmatch(r"[0-9A-Z]+@localhost", name.name)
        assert await next_event(events) == NodeUp(name, "hidden")
        assert isinstance(await next_event(events), NodeDown)


@GIVEN
async def test_a_beam_that_comes_back_has_its_old_name_and_the_next_creation(
    opened: NodeOpener, fresh_beam: BeamFactory
) -> None:
    """As from a BEAM, which the same BEAM asks afterwards. On a lost connection OTP starts its distribution anew."""
    asker, namer = fresh_beam(UNDEFINED), fresh_beam()
    async with opened() as node:
        for name, lose in (
            (node.name.name, lambda asking: node.disconnect(asking)),
            (namer.name, lambda asking: namer.eval("dialler:disconnect(N)", N=asking)),
        ):
            given = []
            for _ in range(3):
                source = (
                    "polling:until(fun() -> whereis(net_kernel) =/= undefined andalso "
                    "true =:= net_kernel:connect_node(N) end, 20000), {node(), erlang:system_info(creation)}"
                )
                given.append(await asker.eval(source, N=Atom(name)))
                await lose(given[-1][0])
                await asker.eval("polling:until(fun() -> node() =:= nonode@nohost end, 20000)")
            (first, creation), *later = given
            assert later == [(first, creation + 1), (first, creation + 2)]


@GIVEN
async def test_each_has_a_name_of_its_own(opened: NodeOpener, fresh_beam: BeamFactory) -> None:
    beams = [fresh_beam(UNDEFINED) for _ in range(3)]
    async with opened() as node, node.monitor_nodes() as events:
        async with trio.open_nursery() as nursery:
            for beam in beams:
                nursery.start_soon(beam.eval, f"true = net_kernel:connect_node('{node.name}')")
        names = {await beam.eval("node()") for beam in beams}
        assert len(names) == 3
        assert set(node.nodes("hidden")) == names
        assert {(await next_event(events)).name for _ in range(3)} == names
        # they are known to one another by these names only through us: nobody can call them
        one = next(iter(names))
        with pytest.raises(ConnectError):
            await node.disconnect(one)
            await node.connect(one)


@GIVEN
async def test_the_loss_of_a_node_that_was_named(opened: NodeOpener, fresh_beam: BeamFactory) -> None:
    beam = fresh_beam(UNDEFINED)
    async with opened() as node, node.monitor_nodes() as events, node.open_process() as me:
        assert await beam.eval("net_kernel:connect_node(N)", N=node.name) is True
        up = await next_event(events)
        remote = await beam.eval("plain_processes:spawn_named(worker)")
        ref = me.monitor(remote)
        await beam.eval("plain_processes:await_monitored(worker, 1, 20000)")
        beam.kill()
        assert await me.receive(timeout=PATIENCE) == (
            Atom("DOWN"),
            ref,
            Atom("process"),
            remote,
            Atom("noconnection"),
        )
        assert await next_event(events) == NodeDown(up.name, "hidden", Atom("connection_closed"))
        assert leftovers(node) == {}


@GIVEN
async def test_a_beam_that_is_not_to_be_named(opened: NodeOpener, fresh_beam: BeamFactory) -> None:
    beam, stranger = fresh_beam(UNDEFINED), fresh_beam(UNDEFINED, cookie="another")
    async with opened(allow=["friend@127.0.0.1"]) as node:
        assert await beam.eval("net_kernel:connect_node(N)", N=node.name) is False
        node.allow(["127.0.0.1"])
        assert await stranger.eval("net_kernel:connect_node(N)", N=node.name) is False
        await until(lambda: node.connections == [])
        assert await beam.eval("net_kernel:connect_node(N)", N=node.name) is True


# ------------------------------------------------------------------------------------------------ we are given one


@ASKED
async def test_a_beam_gives_us_a_name(opened: NodeOpener, beam: Beam, epmd: Epmd) -> None:
    async with (
        opened(UNDEFINED, name_from=beam.name) as node,
        node.open_process("here") as me,
        collecting(beam) as there,
    ):
        assert re.fullmatch(r"[0-9A-Z]+@127\.0\.0\.1", node.name.name)
        assert node.short_name == node.name.name.partition("@")[0]
        assert node.creation > 3
        assert await is_among_nodes(beam, node.name, "hidden")
        assert await beam.eval("lists:member(N, nodes())", N=node.name) is False
        assert node.nodes("hidden") == [Atom(beam.name)], "as on a BEAM: such a connection is a hidden one"
        assert node.name.name.partition("@")[0] not in {
            entry.name for entry in await client.names(EpmdAddress(port=epmd.port))
        }
        assert (me.pid.node, me.pid.creation) == (node.name, node.creation)
        me.send(there.pid, me.pid)
        assert await there.take(1) == [me.pid]
        await there.run("erlang", "send", (Atom("here"), node.name), Atom("by_name"))
        assert await me.receive(timeout=PATIENCE) == Atom("by_name")
        watch = await there.monitor((Atom("here"), node.name))
        ref = me.monitor(there.pid)
        assert await beam.eval("net_adm:ping(N)", N=node.name) == Atom("pong")
        assert await node.ping(beam.name)
        await node.disconnect(beam.name)
        down = (Atom("DOWN"), watch, Atom("process"), (Atom("here"), node.name), Atom("noconnection"))
        assert await there.take(1) == [down]
        assert await me.receive(timeout=PATIENCE) == (
            Atom("DOWN"),
            ref,
            Atom("process"),
            there.pid,
            Atom("noconnection"),
        )
        await has_lost(beam, node.name)
        # nobody can call it, and it calls as the node that it is
        assert await beam.eval("net_kernel:connect_node(N)", N=node.name) is False
        await node.connect(beam.name)
        me.send(there.pid, "again")
        assert await there.take(1) == [b"again"]


@ASKED
async def test_a_node_that_was_named_joins_others(opened: NodeOpener, beam: Beam, fresh_beam: BeamFactory) -> None:
    other = fresh_beam()
    async with opened(UNDEFINED, name_from=beam.name) as node, collecting(other) as there:
        await node.connect(other.name)
        assert await is_among_nodes(other, node.name, "hidden")
        async with node.open_process() as me:
            me.send(there.pid, me.pid)
            assert await there.take(1) == [me.pid]
        await node.disconnect(beam.name)
        # OTP would end this connection as well, and ask for another name; ours keeps both
        assert node.is_connected(other.name)
        assert await other.eval("nodes(hidden)") == [node.name]


@ASKED
async def test_the_next_node_has_the_name_with_the_next_creation(opened: NodeOpener, fresh_beam: BeamFactory) -> None:
    beam = fresh_beam()
    given = []
    for _ in range(3):
        async with opened(UNDEFINED, name_from=beam.name) as node:
            given.append((node.name, node.creation))
            assert await is_among_nodes(beam, node.name)
        await has_lost(beam, node.name)
    (first, creation), *later = given
    assert later == [(first, creation + 1), (first, creation + 2)]


@ASKED
async def test_a_beam_that_gives_no_name(opened: NodeOpener, fresh_beam: BeamFactory) -> None:
    beam = fresh_beam()

    async def opening(**options: object) -> None:
        async with opened(UNDEFINED, **{"name_from": beam.name, **options}):
            pytest.fail("it has no name")

    with pytest.raises(ConnectRefused, match="cookie"):
        await opening(cookie="wrong")
    await beam.eval("net_kernel:allow(['friend@127.0.0.1'])")
    with pytest.raises(ConnectRefused, match="does not let us in") as caught:
        await opening()
    assert isinstance(caught.value.__cause__, NotAllowed)
    with pytest.raises(NoSuchNode):
        await opening(name_from="nobody@127.0.0.1")
    with pytest.raises(ValueError, match="name_from="):
        await opening(name_from=None)
