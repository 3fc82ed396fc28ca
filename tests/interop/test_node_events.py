"""nodeup and nodedown: the same messages that a BEAM's own processes get, and each exactly once for each connection."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import pytest
import trio

from erlang_interop import Atom, InlineServer, NodeDown, NodeUp
from erlang_interop.testing.beam import Beam
from erlang_interop.testing.ports import free_port
from tests.interop.collectors import PATIENCE, collecting, leftovers, until
from tests.interop.strangers import shake_hands

if TYPE_CHECKING:
    from erlang_interop import Node, NodeEvent, Process, Term
    from tests.conftest import BeamFactory
    from tests.interop.collectors import Collector
    from tests.interop.conftest import NodeOpener

NODEUP, NODEDOWN = Atom("nodeup"), Atom("nodedown")
CONNECTION_ID = Atom("connection_id")
#: A visible BEAM that connects to nobody by itself. (Its `global` and `rex` send to each node that came up; where that
#: is gone again already, sending would dial.)
ALONE: Final = ("-connect_all", "false", "-kernel", "dist_auto_connect", "never")

#: What net_kernel:monitor_nodes/2 is given, and what it is called here.
OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "[]": {},
    "[nodedown_reason]": {"nodedown_reason": True},
    "[connection_id]": {"connection_id": True},
    "[{node_type, visible}]": {"node_type": "visible"},
    "[{node_type, hidden}]": {"node_type": "hidden"},
    "[{node_type, all}]": {"node_type": "all"},
    "[{node_type, all}, nodedown_reason]": {"node_type": "all", "nodedown_reason": True},
    "[nodedown_reason, {node_type, all}, connection_id]": {
        "node_type": "all",
        "nodedown_reason": True,
        "connection_id": True,
    },
    "#{}": {"info": "map"},
    "#{node_type => all, nodedown_reason => false}": {"info": "map", "node_type": "all"},
    "#{node_type => all, nodedown_reason => true, connection_id => true}": {
        "info": "map",
        "node_type": "all",
        "nodedown_reason": True,
        "connection_id": True,
    },
}


async def connect(beam: Beam, name: str) -> None:
    assert await beam.eval("net_kernel:connect_node(N)", N=Atom(name)) is True


async def disconnect(beam: Beam, name: str) -> None:
    # False for a moment after the other side is up already.
    assert await beam.eval("polling:until(fun() -> erlang:disconnect_node(N) end, 20000)", N=Atom(name)) is True


async def not_connected(beam: Beam, name: str) -> bool:
    """Whether its net_kernel knows that as well: it learns of a loss behind nodes(), and would not dial before."""
    return await beam.eval("lists:member(N, nodes(connected)) orelse ets:member(sys_dist, N)", N=Atom(name)) is False


def without_numbers(messages: list[Any]) -> list[Any]:
    """The messages, with 1 for the first connection id in them, 2 for the next: each node has its own numbers."""
    numbers: dict[Any, int] = {}

    def shown(pair: tuple[Atom, Any]) -> tuple[Atom, Any]:
        if pair[0] != CONNECTION_ID:
            return pair
        assert isinstance(pair[1], int)
        return pair[0], numbers.setdefault(pair[1], len(numbers) + 1)

    def one(message: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(message) == 2:
            return message
        what, name, info = message
        pairs = [shown(pair) for pair in (info.items() if isinstance(info, dict) else info)]
        return what, name, dict(pairs) if isinstance(info, dict) else pairs

    return [one(message) for message in messages]


def drain(process: Process) -> list[Any]:
    """All that is in its mailbox."""
    messages = []
    while True:
        try:
            messages.append(process.receive_nowait())
        except trio.WouldBlock:
            return messages


class Recorder(InlineServer):
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.got: list[Any] = []

    def handle_message(self, message: Term) -> None:
        self.got.append(message)


@pytest.mark.rule("Node events: messages of monitor_nodes/2 for each set of options")
async def test_the_messages_are_those_of_a_beam(opened: NodeOpener, fresh_beam: BeamFactory) -> None:
    judge, visible, hidden = fresh_beam(args=ALONE), fresh_beam(args=ALONE), fresh_beam(args=ALONE, hidden=True)
    async with opened(visible="passive") as node, AsyncExitStack() as stack:
        there: dict[str, Collector] = {}
        here: dict[str, Process] = {}
        inline: dict[str, Recorder] = {}
        for source, options in OPTIONS.items():
            there[source] = await stack.enter_async_context(collecting(judge))
            assert await there[source].run("net_kernel", "monitor_nodes", True, await judge.eval(source)) == Atom("ok")
            here[source] = await stack.enter_async_context(node.open_process())
            here[source].monitor_nodes(**options)
            inline[source] = Recorder()
            node.start_inline(inline[source])
            inline[source].process.monitor_nodes(**options)
        for target in (visible, hidden):
            for lose in (False, True):
                await connect(judge, target.name)
                await node.connect(target.name)
                if lose:
                    await disconnect(target, judge.name)
                    await disconnect(target, node.name.name)
                else:
                    await disconnect(judge, target.name)
                    await node.disconnect(target.name)
                await until(lambda: not node.connections)
                await until(partial(not_connected, judge, target.name))
                for name in (judge.name, node.name.name):  # else it takes part in the loss of the next connection
                    await until(partial(not_connected, target, name))
        for source in OPTIONS:
            got = drain(here[source])
            assert got == inline[source].got
            await until(partial(has_waiting, there[source], len(got)))
            assert without_numbers(got) == without_numbers(await there[source].take(len(got))), source
            assert len(got) == (8 if "all" in source else 4)


async def has_waiting(collector: Collector, count: int) -> bool:
    return await collector.waiting() == count


@pytest.mark.rule("Node events: a subscription counts as often as it was made, and ends as a whole")
async def test_subscriptions_count_as_on_a_beam(opened: NodeOpener, fresh_beam: BeamFactory) -> None:
    judge, target = fresh_beam(args=ALONE), fresh_beam(args=ALONE)
    script: list[tuple[bool, str]] = [(True, "[]"), (True, "[]"), (True, "[{node_type, all}]"), (False, "#{}")]
    async with opened(visible="passive") as node, node.open_process() as me, collecting(judge) as there:
        for on, source in script:
            assert await there.run("net_kernel", "monitor_nodes", on, await judge.eval(source)) == Atom("ok")
            me.monitor_nodes(on, **OPTIONS[source])
        await connect(judge, target.name)
        await node.connect(target.name)
        assert sorted(drain(me), key=repr) == sorted(await there.take(3), key=repr)
        assert await there.run("net_kernel", "monitor_nodes", False) == Atom("ok")
        me.monitor_nodes(False)
        await disconnect(judge, target.name)
        await node.disconnect(target.name)
        assert drain(me) == await there.take(1)
    assert leftovers(node) == {}


@pytest.mark.rule("Node events: the reason of a nodedown")
async def test_the_reasons_are_those_of_a_beam(opened: NodeOpener, fresh_beam: BeamFactory) -> None:
    judge, killed, suspended = (fresh_beam(args=ALONE) for _ in range(3))
    ours: list[Any] = []
    async with opened(visible="passive") as node, node.open_process() as me, collecting(judge) as there:
        await there.run("net_kernel", "monitor_nodes", True, await judge.eval("[nodedown_reason]"))
        me.monitor_nodes(nodedown_reason=True)
        for beam, lose in ((killed, Beam.kill), (suspended, Beam.suspend)):
            if beam is suspended:  # as late as that: the other one is to be lost because it was killed
                node.set_net_ticktime(1.0, 0)
                await judge.eval("net_kernel:set_net_ticktime(1, 0)")
            await connect(judge, beam.name)
            await node.connect(beam.name)
            lose(beam)
            now = [await me.receive(timeout=PATIENCE) for _ in range(2)]
            assert now == await there.take(2)
            ours += now
        suspended.resume()
    assert [message[2] for message in ours[1::2]] == [
        [(Atom("nodedown_reason"), Atom("connection_closed"))],
        [(Atom("nodedown_reason"), Atom("net_tick_timeout"))],
    ]


@pytest.mark.rule("Node events: a connection on which junk comes is killed")
async def test_junk_is_called_what_a_beam_calls_it(opened: NodeOpener, fresh_beam: BeamFactory, cookie: str) -> None:
    judge, port = fresh_beam(args=ALONE), free_port()
    listens = '{port, Port, _} = erl_epmd:port_please(hd(string:split(atom_to_list(node()), "@")), {127,0,0,1}), Port'
    async with opened(listen_port=port) as node, node.open_process() as me, collecting(judge) as there:
        options = await judge.eval("[nodedown_reason, {node_type, all}]")
        assert await there.run("net_kernel", "monitor_nodes", True, options) == Atom("ok")
        me.monitor_nodes(node_type="all", nodedown_reason=True)
        judge_port = await judge.eval(listens)
        assert isinstance(judge_port, int)
        for name, number in ((judge.name, judge_port), (node.name.name, port)):
            async with await shake_hands(number, name, cookie) as stream:
                await stream.send_all(b"\0\0\0\5junk!")
                with trio.fail_after(PATIENCE):
                    while await stream.receive_some():
                        pass
        assert [await me.receive(timeout=PATIENCE) for _ in range(2)] == await there.take(2)


CYCLES: Final = 100


@pytest.mark.rule("Node events: exactly one nodeup and one nodedown for each connection")
async def test_a_storm_of_connections_is_counted_alike_on_both_sides(
    either_node: Node, fresh_beam: BeamFactory
) -> None:
    node, beam = either_node, fresh_beam(args=ALONE)
    events: list[NodeEvent] = []
    node.watch_nodes(events.append)
    async with node.monitor_nodes() as iterator, node.open_process() as me, collecting(beam) as there:
        me.monitor_nodes(node_type="all", nodedown_reason=True, connection_id=True)
        options = await beam.eval("[{node_type, all}, connection_id]")
        await there.run("net_kernel", "monitor_nodes", True, options)
        for cycle in range(CYCLES):
            if cycle % 2:
                await node.connect(beam.name)
            else:
                await connect(beam, node.name.name)
                await until(lambda: node.is_connected(beam.name))
            if cycle % 4 < 2:
                assert await node.disconnect(beam.name)
            else:
                await disconnect(beam, node.name.name)
            await until(lambda: not node.connections)
            await until(lambda: not_connected(beam, node.name.name))
        reasons = ["disconnect", "disconnect", "connection_closed", "connection_closed"] * (CYCLES // 4)
        name = Atom(beam.name)
        expected: list[NodeEvent] = []
        for reason in reasons:
            expected += [NodeUp(name, "visible"), NodeDown(name, "visible", Atom(reason))]
        assert events == expected
        with trio.fail_after(PATIENCE):
            assert [await anext(iterator) for _ in events] == events
        ids = [event.connection_id for event in events]
        assert ids[::2] == ids[1::2]
        assert len(set(ids)) == CYCLES
        messages = drain(me)
        assert [(message[0], dict(message[2])[CONNECTION_ID]) for message in messages] == [
            (NODEUP if isinstance(event, NodeUp) else NODEDOWN, event.connection_id) for event in events
        ]
        theirs = await there.take(2 * CYCLES)
        assert [message[0] for message in theirs] == [NODEUP, NODEDOWN] * CYCLES
        assert len({dict(message[2])[CONNECTION_ID] for message in theirs}) == CYCLES
        assert await there.waiting() == 0
    assert leftovers(node) == {}


@pytest.mark.rule("Node events: nodeup before the first signal, nodedown after the last")
async def test_nodeup_comes_before_the_first_message_and_nodedown_after_the_last(
    either_node: Node, fresh_beam: BeamFactory
) -> None:
    node, beam = either_node, fresh_beam(args=ALONE)
    up, down = (NODEUP, Atom(beam.name)), (NODEDOWN, Atom(beam.name))
    me_first = Recorder()
    node.start_inline(me_first, name="first")
    me_first.process.monitor_nodes()
    async with node.open_process("sink") as me:
        me.monitor_nodes()
        # Some messages have come for certain; behind the last one comes the disconnection.
        source = """
            Send = fun(I) -> [{Name, Node} ! {message, I} || Name <- [first, sink]] end,
            true = net_kernel:connect_node(Node),
            lists:foreach(Send, lists:seq(1, 10)),
            pong = net_adm:ping(Node),
            lists:foreach(Send, lists:seq(11, 500)),
            polling:until(fun() -> erlang:disconnect_node(Node) end, 20000)
        """
        for _ in range(5):
            assert await beam.eval(source, Node=node.name) is True
            await until(lambda: len(me_first.got) > 0 and me_first.got[-1] == down)
            await until(partial(not_connected, beam, node.name.name))
            for got in (me_first.got, drain(me)):
                numbers = [message[1] for message in got[1:-1]]
                assert (got[0], got[-1]) == (up, down)
                # The BEAM may throw away what its socket had not taken; what arrives, arrives before the nodedown.
                assert len(numbers) >= 10
                assert numbers == list(range(1, len(numbers) + 1))
            me_first.got.clear()


@pytest.mark.rule("Node events: nodedown after the DOWNs and exits of the connection")
async def test_nodedown_comes_after_what_the_loss_costs(node: Node, beam: Beam) -> None:
    async with node.open_process() as me, collecting(beam) as there:
        me.trap_exit = True
        await node.connect(beam.name)
        me.monitor_nodes()
        refs = [me.monitor(there.pid) for _ in range(3)]
        me.link(there.pid)
        await there.round_trip(me)
        await disconnect(beam, node.name.name)
        got = [await me.receive(timeout=PATIENCE) for _ in range(5)]
        lost = Atom("noconnection")
        assert got[-1] == (NODEDOWN, Atom(beam.name))
        assert (Atom("EXIT"), there.pid, lost) in got
        assert [message[1] for message in got if message[0] == Atom("DOWN")] == refs


@pytest.mark.rule("Node events: monitor_node/2 counts, dials, and tells of a node that cannot be reached")
async def test_monitor_node_is_that_of_a_beam(opened: NodeOpener, fresh_beam: BeamFactory) -> None:
    judge, target = fresh_beam(args=("-connect_all", "false")), fresh_beam(args=ALONE)
    nobody = Atom("nobody@127.0.0.1")
    async with opened(visible="passive") as node, node.open_process() as me, collecting(judge) as there:

        async def both(name: str, on: bool) -> None:
            me.monitor_node(name, on)
            assert await there.run("erlang", "monitor_node", Atom(name), on) is True

        await both(nobody.name, True)
        await both(nobody.name, True)
        nothing = (NODEDOWN, nobody)
        assert [await me.receive(timeout=PATIENCE) for _ in range(2)] == await there.take(2) == [nothing] * 2
        await both(target.name, False)  # nobody is dialled for that
        assert node.connections == []
        for on in (True, True, True, False):  # the first one dials
            await both(target.name, on)
        me.monitor_node(node.name)
        assert await there.run("erlang", "monitor_node", Atom(judge.name), True) is True
        await until(lambda: node.is_connected(target.name))
        target.kill()
        down = (NODEDOWN, Atom(target.name))
        assert [await me.receive(timeout=PATIENCE) for _ in range(2)] == await there.take(2) == [down] * 2
        await until(lambda: not node.connections)
        assert (drain(me), await there.waiting()) == ([], 0)
        assert leftovers(node) == {}


@pytest.mark.rule("Node events: a process that ends leaves no subscription and no node monitor")
async def test_a_process_that_ends_leaves_nothing_behind(node: Node, beam: Beam) -> None:
    await node.connect(beam.name)
    for _ in range(1000):
        server = Recorder()
        pid = node.start_inline(server)
        server.process.monitor_nodes()
        server.process.monitor_nodes(node_type="all", nodedown_reason=True)
        server.process.monitor_node(beam.name)
        server.process.monitor_node(beam.name)
        node.exit(pid, Atom("kill"))
    assert leftovers(node) == {}
    await node.disconnect(beam.name)


@pytest.mark.rule("Node events: a BEAM's monitor_nodes and monitor_node tell of this node")
async def test_a_beam_s_processes_are_told_of_this_node(either_node: Node, beam: Beam) -> None:
    node = either_node
    kind = Atom("visible" if node.visible else "hidden")
    async with collecting(beam) as there:
        await there.run("net_kernel", "monitor_nodes", True, await beam.eval("[{node_type, all}, nodedown_reason]"))
        await there.run("erlang", "monitor_node", node.name, True)
        info = [(Atom("node_type"), kind)]
        assert await take_about(there, node.name, 1) == [(NODEUP, node.name, info)]
        await until(lambda: node.is_connected(beam.name))
        await node.disconnect(beam.name)
        down = await take_about(there, node.name, 2)
        closed = (Atom("nodedown_reason"), Atom("connection_closed"))
        assert (NODEDOWN, node.name) in down
        assert (NODEDOWN, node.name, [closed, *info]) in down


async def take_about(collector: Collector, name: Atom, count: int) -> list[Any]:
    """The next messages about one node: the session's BEAM may still lose one of an earlier test."""
    messages: list[Any] = []
    while len(messages) < count:
        messages += [message for message in await collector.take(1) if message[1] == name]
    return messages
