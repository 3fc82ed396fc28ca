"""Setting and deleting locks on several name servers; with genuine ones in tests/interop/test_global_names.py."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

import pytest
import trio

from erlang_interop import Atom, Pid
from erlang_interop.otp._global_calls import Holder, ask_all, back_off, del_lock, set_lock, try_lock
from erlang_interop.testing.cluster import Network, open_cluster, settled
from tests.unit.otp.global_peer import NameServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from erlang_interop import Node

LOCK = (Atom("resource"), Atom("me"))
OTHERS = (Atom("resource"), Atom("other"))
NODES = [Atom("a@test"), Atom("b@test"), Atom("c@test")]


class Cluster:
    """Three nodes with a name server each; ``pid`` is a process of the first."""

    def __init__(self, nodes: tuple[Node, ...], network: Network) -> None:
        self.nodes = nodes
        self.network = network
        self.servers = [NameServer(node, list(nodes)) for node in nodes]
        self.node = nodes[0]
        self.pid = self.new_holder()

    def new_holder(self) -> Pid:
        return self.node.start_inline(Holder())

    @property
    def held(self) -> list[list[object]]:
        return [server.held for server in self.servers]


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    network = Network()
    async with open_cluster("a@test", "b@test", "c@test", network=network) as nodes:
        cluster = Cluster(nodes, network)
        for node in nodes[1:]:
            await cluster.node.connect(node.name)
        yield cluster


ALL: Final = [[Atom("resource")]] * 3
NONE: Final[list[list[object]]] = [[], [], []]


async def test_a_lock_is_set_and_freed_on_all_nodes(cluster: Cluster) -> None:
    assert await set_lock(cluster.node, LOCK, NODES, 0, cluster.pid)
    assert cluster.held == ALL
    assert [lock.holders for server in cluster.servers for lock in server.locks.held] == [(cluster.pid,)] * 3
    assert await set_lock(cluster.node, LOCK, NODES, 0, cluster.pid)
    assert not await set_lock(cluster.node, OTHERS, NODES, 0, cluster.new_holder())
    await del_lock(cluster.node, LOCK, NODES, cluster.pid)
    assert cluster.held == NONE


async def test_it_is_set_on_all_or_on_none(cluster: Cluster) -> None:
    assert await set_lock(cluster.node, OTHERS, NODES[2:], 0, cluster.new_holder())
    assert not await set_lock(cluster.node, LOCK, NODES, 0, cluster.pid)
    assert cluster.held == [[], [], [Atom("resource")]]
    assert [lock.requester for lock in cluster.servers[2].locks.held] == [Atom("other")]


async def test_it_is_tried_again(cluster: Cluster, autojump_clock: MockClock) -> None:
    other = cluster.new_holder()
    assert await set_lock(cluster.node, OTHERS, NODES[1:2], 0, other)
    began = trio.current_time()
    assert not await set_lock(cluster.node, LOCK, NODES, 3, cluster.pid)
    assert trio.current_time() > began
    assert cluster.servers[1].asked.count((Atom("set_lock"), LOCK)) == 4
    async with trio.open_nursery() as nursery:
        nursery.start_soon(set_lock, cluster.node, LOCK, NODES, None, cluster.pid)
        await trio.sleep(60)
        await del_lock(cluster.node, OTHERS, NODES, other)
    assert cluster.held == ALL


async def test_the_sleeps_between_attempts(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    monkeypatch.setattr(random, "uniform", lambda _low, high: high)
    for times, longest in enumerate((0.125, 0.25, 0.5, 1, 2, 4, 8, 8, 8)):
        began = trio.current_time()
        await back_off(times)
        assert trio.current_time() - began == pytest.approx(longest)


async def test_nodes_that_cannot_be_asked_have_no_say(cluster: Cluster) -> None:
    cluster.node.exit(cluster.servers[0].process.pid, Atom("kill"))
    assert await try_lock(cluster.node, LOCK, [*NODES, Atom("nobody@test")], cluster.pid)
    assert cluster.held[1:] == ALL[1:]
    assert await ask_all(cluster.node, [*NODES, *NODES], Atom("get_known"), cluster.pid) == {
        NODES[1]: [NODES[0], NODES[2]],
        NODES[2]: [NODES[0], NODES[1]],
    }


async def test_a_node_that_is_lost_meanwhile_holds_up_nobody(cluster: Cluster) -> None:
    cluster.servers[1].silent = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(set_lock, cluster.node, LOCK, NODES, 0, cluster.pid)
        await settled()
        cluster.network.wire("a@test", "b@test").cut()
    assert cluster.held == [[Atom("resource")], [], [Atom("resource")]]


async def test_what_is_cancelled_is_set_nowhere(cluster: Cluster) -> None:
    cluster.network.hold()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(set_lock, cluster.node, LOCK, NODES, 0, cluster.pid)
            await settled()
            assert cluster.held == [[Atom("resource")], [], []]
            scope.cancel()
    cluster.network.release()
    await settled()
    # It was asked for everywhere, and taken back.
    assert [server.asked[-2:] for server in cluster.servers] == [
        [(Atom("set_lock"), LOCK), (Atom("del_lock"), LOCK)]
    ] * 3
    assert cluster.held == NONE
    assert cluster.node.statistics()["monitors"] == 0


async def test_what_is_cancelled_while_a_connection_is_made_is_set_nowhere() -> None:
    network = Network()
    async with open_cluster("a@test", "b@test", network=network) as (a, b):
        server = NameServer(b)
        network.hold()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(set_lock, a, LOCK, [b.name], 0, a.start_inline(Holder()))
                await settled()
                scope.cancel()
        network.release()
        await settled()
        assert server.asked == [(Atom("set_lock"), LOCK), (Atom("del_lock"), LOCK)]
        assert server.held == []


async def test_the_end_of_the_holder_frees_its_locks(cluster: Cluster) -> None:
    assert await set_lock(cluster.node, LOCK, NODES, 0, cluster.pid)
    cluster.node.exit(cluster.pid, Atom("kill"))
    await settled()
    assert cluster.held == NONE


async def test_a_holder_minds_no_message(cluster: Cluster) -> None:
    cluster.node.send(cluster.pid, Atom("hello"))
    await settled()
    assert cluster.node.is_alive(cluster.pid)
