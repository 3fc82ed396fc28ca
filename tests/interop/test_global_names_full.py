"""``node.global_names`` of nodes that take part in ``global``; how they join is in test_global_full.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from erlang_interop import Atom, GlobalNameTaken, Node, Pid, TransactionAborted
from tests.interop.collectors import PATIENCE, collecting, until
from tests.interop.global_cluster import (
    KNOWN,
    NO,
    UNDEFINED,
    YES,
    has,
    is_free,
    joined,
    lock_of,
    wait,
    whereis,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from erlang_interop import Term
    from erlang_interop.testing.beam import Beam
    from tests.conftest import BeamFactory
    from tests.interop.conftest import NodeOpener


class Trio:
    """Two BEAMs and a full node of ours, which have exchanged their names."""

    def __init__(self, node: Node, beams: tuple[Beam, Beam]) -> None:
        self.node = node
        self.names = node.global_names
        self.beams = beams

    async def all_have(self, name: Term, pid: Pid | None) -> None:  # not a str: it is a binary there
        """Return when all three find ``pid`` under ``name``."""

        async def found() -> bool:
            return await self.names.whereis(name) == pid

        await until(found)
        for beam in self.beams:
            await has(beam, name, pid or UNDEFINED)


@pytest.fixture
async def trio_of(opened: NodeOpener, fresh_beam: BeamFactory) -> AsyncIterator[Trio]:
    one, two = fresh_beam(), fresh_beam()
    await joined(one, two)
    async with opened(visible="full") as node:
        await node.connect(one.name)
        server = node.global_server
        assert server is not None
        await until(lambda: len(server.known) == 2)
        for beam in (one, two):
            assert await beam.eval(KNOWN, N=node.name) is True
        yield Trio(node, (one, two))


async def test_names_of_a_full_node(trio_of: Trio) -> None:
    one, two = trio_of.beams
    node, names = trio_of.node, trio_of.names
    async with node.open_process() as process, collecting(two) as there:
        await names.register("ours", process.pid)
        await trio_of.all_have(Atom("ours"), process.pid)
        assert await one.eval("global:send(ours, {hello, node()})") == process.pid
        assert await process.receive(timeout=PATIENCE) == (Atom("hello"), Atom(one.name))
        assert await one.eval("global:register_name(ours, self())") == NO
        with pytest.raises(GlobalNameTaken):
            await names.register("ours", node.spawn(wait))
        with pytest.raises(GlobalNameTaken):  # one name each, as on a BEAM
            await names.register("second", process.pid)
        assert await there.run("global", "register_name", Atom("theirs"), there.pid) == YES
        assert await names.send("theirs", Atom("hello")) == there.pid
        assert await there.take(1) == [Atom("hello")]
        assert sorted(name.name for name in await names.registered_names()) == ["ours", "theirs"]
        with pytest.raises(GlobalNameTaken):
            await names.register("theirs", node.spawn(wait))
        taking = node.spawn(wait)
        await names.re_register("theirs", taking)
        await trio_of.all_have(Atom("theirs"), taking)
        node.exit(taking, Atom("kill"))
        await trio_of.all_have(Atom("theirs"), None)
        await names.register([1.0], there.pid)  # a process of another node, and any term
        await trio_of.all_have([1.0], there.pid)
        assert await one.eval("global:whereis_name([1])") == UNDEFINED
        await names.unregister("ours")
        await trio_of.all_have(Atom("ours"), None)
        assert process.alive
        await names.sync()
    await trio_of.all_have([1.0], None)
    assert await names.registered_names() == []


async def test_locks_of_a_full_node(trio_of: Trio) -> None:
    one, two = trio_of.beams
    node, names, resource = trio_of.node, trio_of.names, Atom("resource")
    server = node.global_server
    assert server is not None
    async with collecting(two) as there:
        pid = node.spawn(wait)
        assert await names.set_lock((resource, pid))
        for nodes in ([node.name], [Atom(one.name)], [Atom(two.name)]):
            assert await there.run("global", "set_lock", (resource, Atom("other")), nodes, 0) is False
        node.exit(pid, Atom("kill"))
        for beam in (one, two):
            await is_free(beam, resource)
        await until(lambda: server.locks.held == [])
        assert await there.run("global", "set_lock", (resource, there.pid)) is True
        assert [lock.holders for lock in server.locks.held] == [(there.pid,)]
        with pytest.raises(TransactionAborted):
            await names.trans((resource, "me"), trio.lowlevel.checkpoint, retries=0)
    await until(lambda: server.locks.held == [])  # its holder has ended

    async def look() -> list[Term]:
        return [*server.locks.held, *await lock_of(one, resource), *await lock_of(two, resource)]

    assert len(await names.trans((resource, "me"), look)) == 3
    assert await look() == []


async def test_a_full_node_registers_while_a_beam_is_lost(trio_of: Trio) -> None:
    one, two = trio_of.beams
    pid = trio_of.node.spawn(wait)
    two.suspend()
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio_of.names.register, "name", pid)
            await trio.testing.wait_all_tasks_blocked()
            two.kill()
    assert await trio_of.names.whereis("name") == await whereis(one, Atom("name")) == pid
    assert await one.eval("global:register_name(other, self())") == YES  # no lock is left


async def test_all_register_the_same_names_at_once(trio_of: Trio, opened: NodeOpener) -> None:
    """Both BEAMs, the full node, and a hidden one: each name goes to one of them, and no lock is left."""
    one, two = trio_of.beams
    won = dict.fromkeys(range(1, 7), 0)
    there = """
        [I || I <- lists:seq(1, Count),
              yes =:= global:register_name({n, I}, spawn(fun() -> receive stop -> ok end end))]
    """

    async def register_there(beam: Beam) -> None:
        numbers = await beam.eval(there, timeout=120, Count=len(won))
        assert isinstance(numbers, list)
        for number in numbers:
            won[number] += 1

    async def register(node: Node) -> None:
        for number in won:
            try:
                await node.global_names.register((Atom("n"), number), node.spawn(wait))
            except GlobalNameTaken:
                continue
            won[number] += 1

    async with opened() as hidden:
        await hidden.connect(two.name)
        async with trio.open_nursery() as nursery:
            for beam in (one, two):
                nursery.start_soon(register_there, beam)
            for node in (trio_of.node, hidden):
                nursery.start_soon(register, node)
        assert won == dict.fromkeys(won, 1)
        for number in won:
            name = (Atom("n"), number)
            pid = await trio_of.names.whereis(name)
            assert pid is not None
            assert await whereis(one, name) == await whereis(two, name) == pid
        for beam in (one, two):
            await is_free(beam, Atom("global"))
        server = trio_of.node.global_server
        assert server is not None
        await until(lambda: server.locks.held == [])
