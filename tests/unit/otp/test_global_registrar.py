"""How a node that takes part in ``global`` changes names; with genuine name servers in interop/test_global_names.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from erlang_interop import Atom, Export
from erlang_interop.otp._global_calls import Holder
from erlang_interop.otp._global_registrar import Registrar
from erlang_interop.testing.cluster import Network, open_cluster, settled
from tests.unit.otp.global_peer import NameServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from erlang_interop import Node, Pid, Term

NAME, OTHER = Atom("name"), Atom("other")
METHOD = Export(Atom("global"), Atom("random_exit_name"), 3)
SET, DEL, REGISTER, UNREGISTER = Atom("set_lock"), Atom("del_lock"), Atom("register"), Atom("unregister")


class Cluster:
    """Three nodes that take part. Ours is ``b@test``, so that it is neither the first nor the boss."""

    def __init__(self, nodes: tuple[Node, ...], network: Network) -> None:
        self.network = network
        self.nodes = nodes
        self.servers = [NameServer(node, list(nodes)) for node in nodes]
        self.node, self.server = nodes[1], self.servers[1]
        self.holder = self.node.start_inline(Holder())
        self.lock = (Atom("global"), self.holder)
        self.registrar = Registrar(self.node, self.server, lambda: self.holder)  # type: ignore[arg-type]

    def spawn(self) -> Pid:
        return self.node.start_inline(Holder())

    def asked(self) -> list[list[Term]]:
        """What each was asked for since."""
        asked = [list(server.asked) for server in self.servers]
        for server in self.servers:
            server.asked.clear()
        return asked

    @property
    def names(self) -> list[dict[Term, Pid]]:
        return [server.names for server in self.servers]

    @property
    def held(self) -> list[Term]:
        return [resource for server in self.servers for resource in server.held]


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    network = Network()
    async with open_cluster("a@test", "b@test", "c@test", network=network) as nodes:
        cluster = Cluster(nodes, network)
        for other in (nodes[0], nodes[2]):
            await cluster.node.connect(other.name)
        yield cluster


async def test_all_are_locked_and_told_the_boss_first_and_last(cluster: Cluster) -> None:
    pid = cluster.spawn()
    cluster.network.hold()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cluster.registrar.register, NAME, pid, METHOD)
        await settled()
        cluster.network.wire("b@test", "c@test").to("c@test").deliver()
        await settled()
        assert cluster.asked() == [[], [], [(SET, cluster.lock)]]  # nobody else before it has answered
        cluster.network.release()
    registered = [(SET, cluster.lock), (REGISTER, NAME, pid, METHOD), (DEL, cluster.lock)]
    assert cluster.asked() == [registered] * 3
    assert cluster.names == [{NAME: pid}] * 3
    assert cluster.held == []


async def test_a_name_that_is_taken(cluster: Cluster) -> None:
    first, second = cluster.spawn(), cluster.spawn()
    assert await cluster.registrar.register(NAME, first, METHOD)
    assert not await cluster.registrar.register(NAME, second, METHOD)
    assert not await cluster.registrar.register(OTHER, first, METHOD)  # it has a name
    assert cluster.names == [{NAME: first}] * 3
    await cluster.registrar.re_register(NAME, second, METHOD)
    assert cluster.names == [{NAME: second}] * 3
    await cluster.registrar.unregister(NAME)
    assert cluster.names == [{}] * 3
    cluster.asked()
    await cluster.registrar.unregister(NAME)
    assert cluster.asked() == [[], [], []]
    assert cluster.held == []


async def test_one_change_at_a_time(cluster: Cluster) -> None:
    """They hold the lock under the same requester: it would let both in."""
    pids = [cluster.spawn() for _ in range(5)]
    registered: list[bool] = []

    async def register(pid: Pid) -> None:
        registered.append(await cluster.registrar.register(NAME, pid, METHOD))

    async with trio.open_nursery() as nursery:
        for pid in pids:
            nursery.start_soon(register, pid)
    assert sorted(registered) == [False] * 4 + [True]
    assert cluster.held == []


async def test_it_waits_while_others_hold_the_lock(cluster: Cluster, autojump_clock: MockClock) -> None:
    pid, other = cluster.spawn(), cluster.nodes[0].start_inline(Holder())
    for at in (2, 0):  # the boss; another one, when the boss is locked already
        cluster.servers[at].locks.set_lock(Atom("global"), Atom("other"), other)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cluster.registrar.re_register, NAME, pid, METHOD)
            await trio.sleep(60)
            assert cluster.names == [{}] * 3
            cluster.servers[at].locks.del_lock(Atom("global"), Atom("other"), other)
        assert cluster.names == [{NAME: pid}] * 3
        assert cluster.held == []
        await cluster.registrar.unregister(NAME)


async def test_who_comes_meanwhile_is_told_as_well(cluster: Cluster, autojump_clock: MockClock) -> None:
    pid, known = cluster.spawn(), dict(cluster.server.known)
    del cluster.server.known[Atom("a@test")]
    cluster.network.hold()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cluster.registrar.register, NAME, pid, METHOD)
        await settled()
        cluster.server.known = known  # ours locks the boss at this moment
        cluster.network.release()
    assert cluster.names == [{NAME: pid}] * 3
    assert cluster.held == []


@pytest.mark.parametrize("silent", [0, 2], ids=["another", "boss"])
async def test_a_node_that_is_lost_meanwhile_holds_up_nobody(cluster: Cluster, silent: int) -> None:
    pid = cluster.spawn()
    cluster.servers[silent].silent = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cluster.registrar.register, NAME, pid, METHOD)
        await settled()
        assert cluster.server.names == {}
        cluster.nodes[silent].exit(cluster.servers[silent].process.pid, Atom("kill"))
    assert cluster.server.names == {NAME: pid}
    assert cluster.held == []


async def test_what_is_cancelled_leaves_no_lock(cluster: Cluster) -> None:
    for silent in (2, 0):  # while the boss is locked; while the others are
        cluster.servers[silent].silent = True
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cluster.registrar.register, NAME, cluster.spawn(), METHOD)
                await settled()
                scope.cancel()
        cluster.servers[silent].silent = False
        cluster.servers[silent].locks.del_lock(*cluster.lock, cluster.holder)  # a silent one sets and frees none
        await settled()
        assert cluster.held == []
        assert cluster.names == [{}] * 3
    assert await cluster.registrar.register(NAME, cluster.spawn(), METHOD)
