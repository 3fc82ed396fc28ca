"""Group leaders, both ways (``erlang:group_leader/2``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from erlang_interop import Atom, Node, Pid, Process
from tests.interop.collectors import PATIENCE, collecting, until, wait_for_ever

if TYPE_CHECKING:
    from erlang_interop.testing.beam import Beam


@pytest.mark.rule("Control messages: GROUP_LEADER")
async def test_a_beam_sets_ours(node: Node, beam: Beam) -> None:
    async with collecting(beam) as there, node.open_process() as me:
        assert me.group_leader == node.whereis("user")
        assert await there.run("erlang", "group_leader", there.pid, me.pid) is True
        await until(lambda: me.group_leader == there.pid)
        # To others it is nothing: who has ended, or was of another incarnation, has none.
        dead = Pid(node.name, 0x7FFF, 0x1F, node.creation)
        assert await there.run("erlang", "group_leader", there.pid, dead) is True
        await there.round_trip(me)
        assert node.is_connected(beam.name)


@pytest.mark.rule("Control messages: GROUP_LEADER")
async def test_we_set_theirs(node: Node, beam: Beam) -> None:
    async with collecting(beam) as there, node.open_process() as me:
        me.set_group_leader(me.pid, there.pid)
        await there.round_trip(me)
        assert await there.run("erlang", "group_leader") == me.pid
        # What it prints comes to us, as a request of the I/O protocol, and it waits for the answer.
        await beam.eval('C ! {collector, self(), tag, {run, io, put_chars, [<<"hello">>]}}, ok', C=there.pid)
        io_request, sender, ref, request = await me.receive(timeout=PATIENCE)
        assert (io_request, sender) == (Atom("io_request"), there.pid)
        assert request == (Atom("put_chars"), Atom("unicode"), b"hello")
        me.send(sender, (Atom("io_reply"), ref, Atom("ok")))
        await there.round_trip(me)


@pytest.mark.rule("Control messages: GROUP_LEADER")
async def test_of_a_process_of_ours(node: Node, beam: Beam) -> None:
    async with node.open_process() as me:
        pid = node.spawn(wait_for_ever)
        me.set_group_leader(pid, me.pid)
        assert me.group_leader == pid


@pytest.mark.rule("Spawn: the group leader goes along")
async def test_a_spawned_process_has_its_parents(node: Node, beam: Beam) -> None:
    leaders: list[Any] = []

    async def tell(process: Process) -> None:
        leaders.append(process.group_leader)

    node.expose("py", {"tell": tell}, with_process=True)
    async with collecting(beam) as there:
        await there.run("erlang", "spawn", node.name, Atom("py"), Atom("tell"), [])
        await until(lambda: bool(leaders))
        assert leaders == [await there.run("erlang", "group_leader")]


@pytest.mark.rule("Spawn: the group leader goes along")
async def test_a_process_that_we_spawn_has_ours(node: Node, beam: Beam) -> None:
    async with node.open_process() as me:
        await me.spawn_remote(beam.name, "spawner", "tell_group_leader", [me.pid])
        assert await me.receive(timeout=PATIENCE) == (Atom("group_leader"), node.whereis("user"))
        leader = node.spawn(wait_for_ever)
        me.set_group_leader(leader, me.pid)
        await me.spawn_remote(beam.name, "spawner", "tell_group_leader", [me.pid])
        assert await me.receive(timeout=PATIENCE) == (Atom("group_leader"), leader)
