"""What the node itself does: start, registration, flushing, leaving. Its connections: test_distribution.py."""

import math

import pytest
import trio

from erlang_interop.errors import LocalProtocolError
from erlang_interop.runtime import EpmdAddress, InlineServer, Node, NodeDown, NodeUp, Process
from erlang_interop.runtime import node as node_module
from erlang_interop.runtime.epmd import look_up, names
from erlang_interop.terms import Atom, Pid, Term
from erlang_interop.testing.cluster import Network, open_cluster, settled
from erlang_interop.testing.ports import free_port
from erlang_interop.wire.epmd import NodeEntry

DOWN, PROCESS, SHUTDOWN = Atom("DOWN"), Atom("process"), Atom("shutdown")


def new_node(name: str, port: int, **options: object) -> Node:
    return Node(name, "secret", epmd_address=EpmdAddress(port=port), embedded_epmd=True, **options)  # type: ignore[arg-type]


async def rest(process: Process) -> None:
    await trio.sleep(math.inf)


async def test_it_is_registered_while_it_runs_and_brings_an_epmd_where_none_is() -> None:
    address = EpmdAddress(port=free_port())
    first, second = new_node("first@127.0.0.1", address.port), new_node("second@127.0.0.1", address.port)
    async with first.running():
        async with second.running():  # this one finds the EPMD of the first
            assert {entry.name for entry in await names(address)} == {"first", "second"}
            assert first.creation not in (0, second.creation)
        with trio.fail_after(30):
            while [entry.name for entry in await names(address)] != ["first"]:
                await trio.lowlevel.checkpoint()


async def test_it_listens_where_it_is_told() -> None:
    port, epmd = free_port(), free_port()
    async with new_node("one@127.0.0.1", epmd, listen_port=port).running():
        assert await look_up("127.0.0.1", epmd, "one") == port
        assert await names(EpmdAddress(port=epmd)) == [NodeEntry("one", port)]


async def test_leaving_ends_its_processes_and_tells_those_who_watch_them() -> None:
    port = free_port()
    outside = new_node("outside@127.0.0.1", port)
    async with outside.running(), outside.monitor_nodes() as events, outside.open_process() as me:
        inside = new_node("inside@127.0.0.1", port)
        async with inside.running():
            pid = inside.spawn(rest, name="worker")
            ref = me.monitor(("worker", inside.name))
            with trio.fail_after(30):
                while not inside.statistics()["watchers"]:
                    await trio.lowlevel.checkpoint()
        assert await me.receive(timeout=30) == (DOWN, ref, PROCESS, (Atom("worker"), inside.name), SHUTDOWN)
        with trio.fail_after(30):
            await anext(events)
            assert await anext(events) == NodeDown(inside.name, "hidden", Atom("connection_closed"))
        assert not inside.is_alive(pid)


async def test_leaving_succeeds_when_connections_are_waited_for_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_module, "CLOSE_TIME", 0.0)
    port = free_port()
    one, other = new_node("one@127.0.0.1", port), new_node("other@127.0.0.1", port)
    async with one.running(), one.monitor_nodes() as events:
        async with other.running():
            await other.connect(one.name)
            with trio.fail_after(30):
                assert isinstance(await anext(events), NodeUp)
        with trio.fail_after(30):
            assert isinstance(await anext(events), NodeDown)


@pytest.mark.parametrize(("dialler", "dialled"), [("one@test", "other@test"), ("other@test", "one@test")])
async def test_a_handshake_that_ends_while_the_node_does_makes_no_connection(dialler: str, dialled: str) -> None:
    """It would come up behind the back of the node, which counts its connections when it begins to end."""
    network = Network()
    async with open_cluster("one@test", "other@test", network=network) as (one, other), trio.open_nursery() as nursery:
        network.hold()
        nursery.start_soon((one if dialler == "one@test" else other).connect, dialled)
        await settled()
        network.wire(dialler, dialled).to(dialled).deliver()
        await settled()
        one._distribution.stopping = True
        nursery.cancel_scope.cancel()  # nobody waits for it any more, but the handshake goes on
        network.release()
        with trio.CancelScope(shield=True):
            await settled()
        assert one.nodes("connected") == []


async def test_what_was_sent_last_still_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_module, "CLOSE_TIME", 30.0)
    port = free_port()
    receiver = new_node("receiver@127.0.0.1", port)
    async with receiver.running(), receiver.open_process("sink") as sink:
        sender = new_node("sender@127.0.0.1", port)
        async with sender.running():
            await sender.connect(receiver.name)
            for number in range(200):
                sender.send(("sink", receiver.name), (number, bytes(20_000)))
        assert [(await sink.receive(timeout=30))[0] for _ in range(200)] == list(range(200))


async def test_a_send_without_an_await_leaves_at_the_end_of_the_pass() -> None:
    port = free_port()
    a, b = new_node("a@127.0.0.1", port), new_node("b@127.0.0.1", port)
    async with a.running(), b.running():
        heard = trio.Event()

        class Listener(InlineServer):
            def handle_message(self, message: Term) -> None:
                heard.set()

        b.start_inline(Listener(), name="listener")
        await a.connect(b.name)
        a.call_later(0, lambda: a.send(("listener", b.name), 1))  # from a callback: no task of its own will flush it
        with trio.fail_after(30):
            await heard.wait()


async def test_outside_of_its_block_it_says_so() -> None:
    node = new_node("one@127.0.0.1", free_port())
    with pytest.raises(LocalProtocolError, match="inside `async with open_node"):
        node.spawn(rest)
    async with node.running():
        node.spawn(rest)
    with pytest.raises(LocalProtocolError, match="inside `async with open_node"):
        node.spawn(rest)
    with pytest.raises(LocalProtocolError, match="runs once"):
        async with node.running():
            pass


async def test_cancelling_the_block_is_an_ordinary_cancellation() -> None:
    with trio.move_on_after(0.05) as scope:
        async with new_node("one@127.0.0.1", free_port()).running():
            await trio.sleep(math.inf)
    assert scope.cancelled_caught


async def test_the_cookie_shows_nowhere() -> None:
    node = Node("one@127.0.0.1", "topsecret", epmd_address=EpmdAddress(port=free_port()), embedded_epmd=True)
    async with node.running():
        assert "topsecret" not in repr(node) + repr(node.connections) + repr(node.statistics())


async def test_a_task_of_the_node_ends_with_it() -> None:
    node = new_node("one@127.0.0.1", free_port())
    ended: list[str] = []

    async def task(word: str) -> None:
        try:
            await trio.sleep(math.inf)
        finally:
            ended.append(word)

    async with node.running():
        node.start_task(task, "done")
        await trio.lowlevel.checkpoint()
        assert node.registered() == []
        assert node.whereis("nobody") is None
        assert not node.is_alive(Pid(node.name, 1000, 0, node.creation))
    assert ended == ["done"]


async def test_its_processes(one_node: Node) -> None:
    processes = one_node.processes
    async with one_node.open_process() as me:
        assert processes[me.pid] is me
        with pytest.raises(TypeError):
            processes[me.pid] = me  # type: ignore[index]
    assert me.pid not in processes
