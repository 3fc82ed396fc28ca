"""Nodes joined in memory: as users open them, and with deliveries by hand."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from erlang_interop import Atom, NodeDown, NodeUp, Process
from erlang_interop.errors import BadName, ConnectRefused, NameTaken, NodeUnreachable, NoSuchNode
from erlang_interop.testing.cluster import Network, open_cluster, settled

DOWN, EXIT, PROCESS, NOCONNECTION = Atom("DOWN"), Atom("EXIT"), Atom("process"), Atom("noconnection")
A, B, C = "a@test", "b@test", "c@test"


async def echo(process: Process) -> None:
    while True:
        sender, message = await process.receive()
        process.send(sender, message)


async def test_nodes_reach_each_other_by_name() -> None:
    async with open_cluster(A, B, C) as (a, b, c), a.open_process("me") as me:
        for node in (b, c):
            node.spawn(echo, name="echo")
            me.send(("echo", node.name), (me.pid, node.name))
            assert await me.receive(timeout=30) == node.name
        assert await b.ping(C)
        assert sorted(a.nodes("hidden"), key=str) == [b.name, c.name]
        assert [row.address for row in a.connections] == [f"memory:{B}", f"memory:{C}"]


async def test_large_messages_pass_through_the_small_pipe() -> None:
    async with open_cluster(A, B) as (a, b), a.open_process() as me:
        b.spawn(echo, name="echo")
        message = bytes(5_000_000)
        me.send(("echo", B), (me.pid, message))
        assert await me.receive(timeout=30) == message


async def test_a_visible_cluster_is_visible() -> None:
    async with open_cluster(A, B, visible="passive") as (a, b):
        await a.connect(B)
        assert (a.nodes(), b.nodes()) == ([b.name], [a.name])


async def test_a_node_that_leaves_is_noconnection_and_comes_back_as_another() -> None:
    network = Network()
    async with open_cluster(A, network=network) as (a,), a.open_process() as me, a.monitor_nodes() as events:
        async with open_cluster(B, network=network) as (b,):
            before = b.creation
            pid = b.spawn(echo)
            ref = me.monitor(pid)
            await settled()
        assert await me.receive(timeout=30) == (DOWN, ref, PROCESS, pid, Atom("shutdown"))
        with pytest.raises(NoSuchNode):
            await a.connect(B)
        async with open_cluster(B, network=network) as (b,):
            assert b.creation != before
            await a.connect(B)
            with trio.fail_after(30):
                kinds = [type(await anext(events)) for _ in range(3)]
            assert kinds == [NodeUp, NodeDown, NodeUp]


async def test_names_are_checked_and_there_is_one_of_each() -> None:
    with pytest.raises(BadName):
        async with open_cluster("nohost"):
            pass
    with pytest.raises(NameTaken):
        async with open_cluster(A, A):
            pass


async def test_cookies_are_checked() -> None:
    network = Network()
    async with open_cluster(A, network=network, cookie="one") as (a,), open_cluster(B, network=network, cookie="other"):
        with pytest.raises(ConnectRefused, match="cookie"):
            await a.connect(B)


async def test_a_partition_parts_and_heals() -> None:
    network = Network()
    async with open_cluster(A, B, C, network=network) as (a, b, c), a.open_process() as me:
        me.trap_exit = True
        pids = [b.spawn(echo), c.spawn(echo)]
        me.link(pids[0])
        await a.connect(B)
        await a.connect(C)
        network.part(A, B)
        assert await me.receive(timeout=30) == (EXIT, pids[0], NOCONNECTION)
        with pytest.raises(NodeUnreachable):
            await b.connect(A)
        assert (await a.ping(C), await b.ping(C)) == (True, True)
        network.heal(A, B)
        await b.connect(A)


async def test_what_is_held_crosses_frame_by_frame() -> None:
    network = Network()
    async with open_cluster(A, B, network=network) as (a, b), a.open_process() as me:
        me.trap_exit = True
        pid = b.spawn(echo)
        await a.connect(B)
        network.hold()
        wire, links = network.wire(A, B), b.statistics()["links"]
        me.link(pid)
        me.send(pid, (me.pid, 1))
        await settled()
        assert (wire.to(B).frames, b.statistics()["links"]) == (2, links)
        assert wire.to(B).deliver(1) == 1
        await settled()
        assert (b.statistics()["links"], wire.to(A).frames) == (links + 1, 0)
        wire.to(B).deliver()
        await settled()
        assert wire.to(A).frames == 1
        wire.cut()
        assert await me.receive(timeout=30) == (EXIT, pid, NOCONNECTION)
        await settled()
        assert len(me.mailbox) == 0, "the answer was lost with the connection"


async def test_a_handshake_is_held_too_and_released() -> None:
    network = Network()
    network.hold()
    async with open_cluster(A, B, network=network) as (a, b), trio.open_nursery() as nursery:
        nursery.start_soon(a.connect, B)
        await settled()
        wire = network.wire(A, B)
        assert (wire.dialler, wire.acceptor) == (A, B)
        crossed = []
        while not a.is_connected(B):
            for name in (B, A):
                crossed += [name] * wire.to(name).deliver(1)
                await settled()
        # name, status and challenge, challenge reply, challenge ack
        assert crossed == [B, A, A, B, A] or crossed == [B, A, B, A]
        network.release()
        assert await b.ping(A)


async def test_held_signals_go_on_by_themselves_when_released() -> None:
    network = Network()
    async with open_cluster(A, B, network=network) as (a, b), a.open_process() as me:
        b.spawn(echo, name="echo")
        network.hold(handshakes=False)
        me.send(("echo", B), (me.pid, 1))
        await settled()
        assert a.is_connected(B)
        network.release()
        assert await me.receive(timeout=30) == 1


def test_a_wire_that_never_was() -> None:
    with pytest.raises(LookupError, match="never connected"):
        Network().wire(A, B)


def test_time_is_the_tests() -> None:
    async def three_minutes() -> float:
        async with open_cluster(A, B, net_ticktime=4) as (a, _):
            await a.connect(B)
            await trio.sleep(180)
            assert a.is_connected(B), "both nodes have ticked"
            return trio.current_time()

    clock = trio.testing.MockClock(autojump_threshold=0)
    started = clock.current_time()
    assert trio.run(three_minutes, clock=clock) - started == pytest.approx(180)
