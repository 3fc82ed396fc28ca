"""nodeup and nodedown between nodes of ours. With BEAMs as the judges: tests/interop/test_node_events.py."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from erlang_interop.errors import BadName, Exit
from erlang_interop.runtime import EpmdAddress, EpmdServer, InlineServer, Node
from erlang_interop.runtime.events import NodeDown, NodeEvent, NodeEvents, NodeUp, Subscription
from erlang_interop.terms import Atom, Pid, Term

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from erlang_interop.runtime import Process

A, B, CLOSED = Atom("a@127.0.0.1"), Atom("b@127.0.0.1"), Atom("connection_closed")
NODEUP, NODEDOWN, NOBODY = Atom("nodeup"), Atom("nodedown"), Atom("nobody@127.0.0.1")
TYPE, REASON, ID = Atom("node_type"), Atom("nodedown_reason"), Atom("connection_id")
VISIBLE, HIDDEN = Atom("visible"), Atom("hidden")


@asynccontextmanager
async def two_nodes(**options: Any) -> AsyncIterator[tuple[Node, Node]]:
    """Two nodes; the second is visible, and outlives the first."""
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        epmd = EpmdAddress(port=await nursery.start(EpmdServer().serve))
        a = Node(A.name, "secret", epmd_address=epmd, **options)
        b = Node(B.name, "secret", epmd_address=epmd, visible=True)
        for node in (b, a):
            await stack.enter_async_context(node.running())
        yield a, b
        await stack.aclose()
        nursery.cancel_scope.cancel()


async def take(process: Process, count: int) -> list[Any]:
    """The next messages, and there are no more of them."""
    messages = [await process.receive(timeout=30) for _ in range(count)]
    with pytest.raises(trio.WouldBlock):
        process.receive_nowait()
    return messages


def left(node: Node) -> dict[str, int]:
    tables = node.statistics()
    return {name: tables[name] for name in ("peer_entries", "node_subscriptions") if tables[name]}


# -- callbacks and iterators


async def test_subscribers_get_the_kind_they_asked_for_and_all_of_it() -> None:
    events = NodeEvents()
    fired: list[NodeEvent] = [NodeUp(A, "visible"), NodeUp(B, "hidden"), NodeDown(A, "visible", CLOSED)]
    async with (
        events.subscribe() as everything,
        events.subscribe("visible") as visible,
        events.subscribe("hidden") as hidden,
    ):
        for event in fired:
            events.fire(event)
        assert [await anext(everything) for _ in range(3)] == fired
        assert [await anext(visible) for _ in range(2)] == [fired[0], fired[2]]
        assert await anext(hidden) == fired[1]
    events.fire(fired[0])  # nobody is left


async def test_a_callback_hears_until_it_is_taken_away() -> None:
    events = NodeEvents()
    heard: list[NodeEvent] = []
    stop = events.watch(heard.append)
    events.fire(NodeUp(A, "visible"))
    stop()
    stop()
    events.fire(NodeUp(B, "visible"))
    assert heard == [NodeUp(A, "visible")]


async def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(ValueError, match="'visible', 'hidden' or 'all'"):
        async with NodeEvents().subscribe("published"):  # type: ignore[arg-type]
            pass


async def test_events_tell_the_number_of_their_connection() -> None:
    async with two_nodes() as (a, _), a.monitor_nodes() as events:
        numbers, up = [], None
        for _ in range(3):
            await a.connect(B)
            (row,) = a.connections
            await a.disconnect(B)
            with trio.fail_after(30):
                up, down = await anext(events), await anext(events)
            assert up.connection_id == down.connection_id == row.connection_id
            numbers.append(row.connection_id)
        assert len(set(numbers)) == 3
        assert up == NodeUp(B, "visible")  # whatever its number is


# -- messages: the forms; that a BEAM's are the same is shown in tests/interop/test_node_events.py


@pytest.mark.parametrize(
    ("subscription", "visible_up", "hidden_up", "visible_down"),
    [
        (Subscription(), (NODEUP, A), None, (NODEDOWN, A)),
        (Subscription(info="map"), (NODEUP, A, {}), None, (NODEDOWN, A, {})),
        (Subscription("visible"), (NODEUP, A, [(TYPE, VISIBLE)]), None, (NODEDOWN, A, [(TYPE, VISIBLE)])),
        (Subscription("hidden"), None, (NODEUP, B, [(TYPE, HIDDEN)]), None),
        (
            Subscription("all"),
            (NODEUP, A, [(TYPE, VISIBLE)]),
            (NODEUP, B, [(TYPE, HIDDEN)]),
            (NODEDOWN, A, [(TYPE, VISIBLE)]),
        ),
        (Subscription(nodedown_reason=True), (NODEUP, A, []), None, (NODEDOWN, A, [(REASON, CLOSED)])),
        (Subscription(connection_id=True), (NODEUP, A, [(ID, 7)]), None, (NODEDOWN, A, [(ID, 7)])),
        (
            Subscription("all", nodedown_reason=True, connection_id=True),
            (NODEUP, A, [(ID, 7), (TYPE, VISIBLE)]),
            (NODEUP, B, [(ID, 8), (TYPE, HIDDEN)]),
            (NODEDOWN, A, [(ID, 7), (REASON, CLOSED), (TYPE, VISIBLE)]),
        ),
        (
            Subscription("all", nodedown_reason=True, connection_id=True, info="map"),
            (NODEUP, A, {ID: 7, TYPE: VISIBLE}),
            (NODEUP, B, {ID: 8, TYPE: HIDDEN}),
            (NODEDOWN, A, {ID: 7, REASON: CLOSED, TYPE: VISIBLE}),
        ),
    ],
)
def test_forms_of_the_messages(
    subscription: Subscription, visible_up: Term, hidden_up: Term, visible_down: Term
) -> None:
    assert subscription.message(NodeUp(A, "visible", 7)) == visible_up
    assert subscription.message(NodeUp(B, "hidden", 8)) == hidden_up
    assert subscription.message(NodeDown(A, "visible", CLOSED, 7)) == visible_down


# -- monitor_nodes


async def test_a_process_is_told_as_often_as_it_subscribed() -> None:
    async with two_nodes() as (a, b), a.open_process() as me, b.open_process() as hears_nothing:
        hears_nothing.monitor_nodes()  # the other node is hidden
        me.monitor_nodes()
        me.monitor_nodes()
        me.monitor_nodes(node_type="all", info="map")
        assert left(a) == {"node_subscriptions": 3}
        await a.connect(B)
        assert await take(me, 3) == [(NODEUP, B), (NODEUP, B), (NODEUP, B, {TYPE: VISIBLE})]
        me.monitor_nodes(False, node_type="all")  # there is none with these options: it was given as a map
        assert left(a) == {"node_subscriptions": 3}
        me.monitor_nodes(False)  # both
        await a.disconnect(B)
        assert await take(me, 1) == [(NODEDOWN, B, {TYPE: VISIBLE})]
        me.monitor_nodes(False, node_type="all", info="map")
        me.monitor_nodes(False)
        assert left(a) == {}
        await a.connect(B)
        assert await take(me, 0) == []
        assert await take(hears_nothing, 0) == []


async def test_subscriptions_end_with_their_process() -> None:
    async with two_nodes() as (a, _):
        async with a.open_process() as me:
            me.monitor_nodes(nodedown_reason=True)
            me.monitor_nodes(node_type="hidden")
            await a.connect(B)
            me.monitor_node(B)
            me.monitor_node(B)
            assert left(a) == {"node_subscriptions": 2, "peer_entries": 1}
        assert left(a) == {}
        me.monitor_nodes()  # it is no more: nothing is entered for it
        me.monitor_node(B)
        assert left(a) == {}
        await a.disconnect(B)


@pytest.mark.parametrize("options", [{"node_type": "published"}, {"info": "tuple"}])
async def test_unknown_options_are_errors(node: Node, options: dict[str, Any]) -> None:
    async with node.open_process() as me:
        with pytest.raises(ValueError, match=r"is 'visible'|is 'list'"):
            me.monitor_nodes(**options)
        assert left(node) == {}


class Recorder(InlineServer):
    """Keeps what it is sent; ends at ``ends_at``."""

    def __init__(self, ends_at: Term = None) -> None:
        self.got: list[Term] = []
        self._ends_at = ends_at

    def handle_message(self, message: Term) -> None:
        self.got.append(message)
        if message == self._ends_at:
            raise Exit(Atom("enough"))


async def test_inline_servers_are_told_as_well_and_may_end_of_it() -> None:
    async with two_nodes() as (a, _):
        stays, ends = Recorder(), Recorder(ends_at=(NODEUP, B))
        for server in (stays, ends):
            a.start_inline(server)
            server.process.monitor_nodes()
            server.process.monitor_nodes()
        ends.process.monitor_node(B)
        ends.process.monitor_node(B)
        await a.connect(B)
        assert (stays.got, ends.got) == ([(NODEUP, B)] * 2, [(NODEUP, B)])
        assert not ends.process.alive
        assert left(a) == {"node_subscriptions": 2}
        await a.disconnect(B)
        assert stays.got == [(NODEUP, B)] * 2 + [(NODEDOWN, B)] * 2


async def test_what_is_sent_on_a_nodeup_comes_behind_what_waited_for_it() -> None:
    class Sender(InlineServer):
        def started(self) -> None:
            self.process.monitor_nodes()
            for number in range(3):
                self.process.send(("sink", B), number)

        def handle_message(self, message: Term) -> None:
            self.process.send(("sink", B), message)

    async with two_nodes() as (a, b), b.open_process("sink") as sink:
        a.start_inline(Sender())
        assert await take(sink, 4) == [0, 1, 2, (NODEUP, B)]


async def test_nodedown_comes_after_the_downs_and_exits_and_nodes_has_it_no_more() -> None:
    async with two_nodes() as (a, b), a.open_process() as me:
        me.trap_exit = True
        me.monitor_nodes()

        async def sleeper(_process: Process) -> None:
            await trio.sleep_forever()

        there = b.spawn(sleeper, name="sleeper")
        seen: list[tuple[NodeEvent, list[Atom]]] = []
        stop = a.watch_nodes(lambda event: seen.append((event, a.nodes())))
        await a.connect(B)
        ref = me.monitor(("sleeper", B))
        me.link(there)
        assert await take(me, 1) == [(NODEUP, B)]
        await a.disconnect(B)
        lost = Atom("noconnection")
        target = (Atom("sleeper"), B)
        assert await take(me, 3) == [
            (Atom("EXIT"), there, lost),
            (Atom("DOWN"), ref, Atom("process"), target, lost),
            (NODEDOWN, B),
        ]
        assert seen == [(NodeUp(B, "visible"), [B]), (NodeDown(B, "visible", Atom("disconnect")), [])]
        stop()


async def test_leaving_the_node_is_net_kernel_terminated() -> None:
    seen: list[NodeEvent] = []
    async with two_nodes() as (a, _):
        a.watch_nodes(seen.append)
        await a.connect(B)
    assert seen == [NodeUp(B, "visible"), NodeDown(B, "visible", Atom("net_kernel_terminated"))]


# -- monitor_node


async def test_one_nodedown_for_each_monitor_node() -> None:
    async with two_nodes() as (a, b), a.open_process() as me, a.open_process() as other:
        for _ in range(3):
            me.monitor_node(B.name)  # dials
        other.monitor_node(B)
        me.monitor_node(B, False)
        await a.connect(B)
        assert left(a) == {"peer_entries": 2}
        await b.disconnect(A)
        assert await take(me, 2) == [(NODEDOWN, B)] * 2
        assert await take(other, 1) == [(NODEDOWN, B)]
        assert left(a) == {}
        await a.connect(B)
        await a.disconnect(B)
        assert await take(me, 0) == []


async def test_a_node_that_is_not_there_is_down() -> None:
    async with two_nodes() as (a, _), a.open_process() as me:
        me.monitor_node(NOBODY)
        me.monitor_node(NOBODY)
        me.monitor_node(Atom("no_node_name"))
        messages = [await me.receive(timeout=30) for _ in range(3)]
        assert messages.count((NODEDOWN, NOBODY)) == 2
        assert messages.count((NODEDOWN, Atom("no_node_name"))) == 1
        assert left(a) == {}


async def test_this_node_itself_is_never_down(node: Node) -> None:
    async with node.open_process() as me:
        me.monitor_node(node.name)
        me.monitor_node(node.name, False)
        assert await take(me, 0) == []
        assert left(node) == {}


async def test_taking_back_more_than_there_is_does_nothing() -> None:
    async with two_nodes() as (a, _), a.open_process() as me:
        me.monitor_node(B, False)
        assert a.connections == []  # it dials nobody
        await a.connect(B)
        me.monitor_node(B)
        me.monitor_node(B, False)
        me.monitor_node(B, False)
        assert left(a) == {}
        await a.disconnect(B)
        assert await take(me, 0) == []


async def test_what_is_no_name_cannot_be_monitored(node: Node) -> None:
    async with node.open_process() as me:
        with pytest.raises(BadName):
            me.monitor_node(17)  # type: ignore[arg-type]


async def test_a_node_that_stops_connects_to_nobody() -> None:
    class Last(InlineServer):
        def __init__(self) -> None:
            self.got: list[Term] = []

        def handle_message(self, message: Term) -> None:
            if message == Atom("monitor"):
                self.process.monitor_node(B)
                self.process.monitor_node(B)
            else:
                self.got.append(message)

    async with two_nodes() as (a, _):
        last = Last()
        pid: Pid = a.start_inline(last)
        a._distribution.stopping = True
        a.send(pid, Atom("monitor"))
        assert last.got == [(NODEDOWN, B)] * 2
        assert left(a) == {}


async def test_the_nodedowns_of_many_processes_come_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("erlang_interop.runtime.distribution.SLICE", 10)
    async with two_nodes() as (a, _):
        servers = [Recorder() for _ in range(105)]
        for server in servers:
            a.start_inline(server)
            server.process.monitor_node(B)
        await a.connect(B)
        await a.disconnect(B)
        assert [server.got for server in servers] == [[(NODEDOWN, B)]] * 105
        assert left(a) == {}
