"""Connections between nodes of ours; the same scenarios run against a BEAM in tests/interop/test_connections.py."""

import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
import trio.testing

from erlang_interop.errors import (
    AddressInUse,
    BadName,
    ConnectRefused,
    ConnectTimeout,
    CookieMismatch,
    EpmdUnavailable,
    HostNotFound,
    NameTaken,
    NodeUnreachable,
    NoSuchNode,
)
from erlang_interop.flags import OFFERED
from erlang_interop.runtime import EpmdAddress, EpmdServer, Node, NodeDown, NodeEvent, NodeUp
from erlang_interop.runtime import distribution as distribution_module
from erlang_interop.runtime.epmd import look_up, register
from erlang_interop.runtime.transport import Stream, listen, open_stream
from erlang_interop.terms import Atom
from erlang_interop.testing.ports import free_port
from erlang_interop.wire.channel import Limits
from erlang_interop.wire.handshake import Established, Initiator, StatusReceived, Verdict

A, B = Atom("a@127.0.0.1"), Atom("b@127.0.0.1")
CLOSED, DISCONNECT, WAIT_PENDING = Atom("connection_closed"), Atom("disconnect"), Atom("wait_pending")


@pytest.fixture
async def epmd(nursery: trio.Nursery) -> EpmdAddress:
    return EpmdAddress(port=await nursery.start(EpmdServer().serve))


@asynccontextmanager
async def two_nodes(epmd: EpmdAddress, **options: object) -> AsyncIterator[tuple[Node, Node]]:
    async with AsyncExitStack() as stack:
        nodes = [Node(name.name, "secret", epmd_address=epmd, **options) for name in (A, B)]  # type: ignore[arg-type]
        for node in nodes:
            await stack.enter_async_context(node.running())
        yield nodes[0], nodes[1]


async def events_of(node: Node, count: int, events: AsyncIterator[NodeEvent]) -> list[NodeEvent]:
    with trio.fail_after(30):
        return [await anext(events) for _ in range(count)]


async def test_nodes_connect_and_part(epmd: EpmdAddress) -> None:
    async with two_nodes(epmd) as (a, b), a.monitor_nodes() as at_a, b.monitor_nodes() as at_b:
        await a.connect(B)
        await a.connect(B)
        assert await events_of(a, 1, at_a) == [NodeUp(B, "hidden")]
        assert await events_of(b, 1, at_b) == [NodeUp(A, "hidden")]
        assert a.nodes("hidden") == [B]
        assert a.nodes() == []
        assert a.is_connected(B)
        assert [row.state for row in a.connections] == ["up"]
        assert await a.disconnect(B)
        assert await events_of(a, 1, at_a) == [NodeDown(B, "hidden", DISCONNECT)]
        assert await events_of(b, 1, at_b) == [NodeDown(A, "hidden", CLOSED)]
        assert a.connections == b.connections == []


async def test_a_dial_storm_ends_with_one_connection_and_one_nodeup(epmd: EpmdAddress) -> None:
    async with two_nodes(epmd) as (a, b), a.monitor_nodes() as at_a, b.monitor_nodes() as at_b:
        for _ in range(50):
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(a.connect, B)
                    nursery.start_soon(b.connect, A)
            assert await events_of(a, 1, at_a) == [NodeUp(B, "hidden")]
            assert await events_of(b, 1, at_b) == [NodeUp(A, "hidden")]
            assert [row.state for row in a.connections] == [row.state for row in b.connections] == ["up"]
            assert await a.disconnect(B)
            assert await events_of(a, 1, at_a) == [NodeDown(B, "hidden", DISCONNECT)]
            assert await events_of(b, 1, at_b) == [NodeDown(A, "hidden", CLOSED)]


async def test_what_was_sent_before_the_connection_was_up_arrives_in_order(epmd: EpmdAddress) -> None:
    async with two_nodes(epmd) as (a, b), b.open_process("sink") as sink, a.open_process() as me:
        for number in range(500):
            me.send(("sink", B), number)
        assert [await sink.receive(timeout=30) for _ in range(500)] == list(range(500))


async def test_a_node_that_is_not_there_costs_links_and_monitors_noconnection(epmd: EpmdAddress) -> None:
    async with two_nodes(epmd) as (a, _), a.open_process() as me:
        ref = me.monitor(("worker", "nobody@127.0.0.1"))
        target = (Atom("worker"), Atom("nobody@127.0.0.1"))
        assert await me.receive(timeout=30) == (Atom("DOWN"), ref, Atom("process"), target, Atom("noconnection"))
        assert a.connections == []


async def test_a_restarted_node_replaces_the_connection_we_still_hold(epmd: EpmdAddress) -> None:
    async with two_nodes(epmd) as (a, b), a.monitor_nodes() as at_a:
        await a.connect(B)
        assert await events_of(a, 1, at_a) == [NodeUp(B, "hidden")]
        stream, event = await dial_as(b.name.name, epmd, "secret", still_wanted=True)
        assert event is not None
        assert await events_of(a, 2, at_a) == [NodeDown(B, "hidden", WAIT_PENDING), NodeUp(B, "hidden")]
        assert [row.creation for row in a.connections] == [77]
        stream.close()
        assert await events_of(a, 1, at_a) == [NodeDown(B, "hidden", CLOSED)]


@pytest.mark.parametrize("cookie", ["secret", "wrong"])
async def test_a_dial_that_is_taken_back_or_fails_leaves_the_connection_alone(epmd: EpmdAddress, cookie: str) -> None:
    async with two_nodes(epmd) as (a, b), a.open_process("here") as here:
        await b.connect(A)
        stream, event = await dial_as(b.name.name, epmd, cookie, still_wanted=cookie == "wrong")
        assert event is None
        stream.close()
        with trio.fail_after(30):
            while [row.state for row in a.connections] != ["up"]:
                await trio.lowlevel.checkpoint()
        b.send(("here", A), 1)
        assert await here.receive(timeout=30) == 1


async def dial_as(
    name: str, epmd: EpmdAddress, cookie: str, *, still_wanted: bool
) -> tuple[Stream, Established | None]:
    """Dial ``a`` by hand under ``name``; None when it hung up."""
    stream = await open_stream("127.0.0.1", await look_up("127.0.0.1", epmd.port, "a"))
    initiator = Initiator(name, A.name, OFFERED, 77, cookie, secrets.randbits(32))
    with trio.fail_after(30):
        while True:
            await stream.send_all(initiator.data_to_send())
            data = await stream.receive_some()
            if not data:
                return stream, None
            for event in initiator.receive_data(data):
                if isinstance(event, Established):
                    return stream, event
                if isinstance(event, StatusReceived) and event.status is Verdict.ALIVE:
                    initiator.answer_alive(still_wanted)
                    if not still_wanted:
                        await stream.send_all(initiator.data_to_send())
                        return stream, None


async def test_a_wrong_cookie_is_called_a_cookie(epmd: EpmdAddress, caplog: pytest.LogCaptureFixture) -> None:
    async with two_nodes(epmd) as (a, _), Node("c@127.0.0.1", "wrong", epmd_address=epmd).running():
        with caplog.at_level(logging.WARNING), pytest.raises(ConnectRefused, match="cookie") as caught:
            await a.connect("c@127.0.0.1")
        assert isinstance(caught.value.__cause__, CookieMismatch)
        assert "handshake with" in caplog.text
        assert "secret" not in caplog.text + str(caught.value)


async def test_every_caller_of_one_attempt_hears_why_it_failed(epmd: EpmdAddress) -> None:
    errors: list[BaseException] = []

    async with two_nodes(epmd) as (a, _):

        async def connect() -> None:
            try:
                await a.connect("nobody@127.0.0.1")
            except NoSuchNode as error:
                errors.append(error)

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(connect)
    assert len(errors) == 5
    assert len(set(map(id, errors))) == 5
    assert "EPMD" in str(errors[0])


async def test_a_listener_that_says_nothing_is_given_up(epmd: EpmdAddress, mock_clock: trio.testing.MockClock) -> None:
    listener = await listen("127.0.0.1")
    held: list[Stream] = []

    async def hold(stream: Stream) -> None:
        held.append(stream)
        await stream.receive_some()
        mock_clock.jump(1)

    async with two_nodes(epmd, connect_timeout=0.3) as (a, _), trio.open_nursery() as nursery:
        nursery.start_soon(listener.serve, hold, nursery)
        registration = await register(epmd, "silent", listener.port, visible=True)
        with pytest.raises(ConnectTimeout, match="did not finish the handshake"):
            await a.connect("silent@127.0.0.1")
        registration.stream.close()
        nursery.cancel_scope.cancel()
    for stream in held:
        stream.close()
    listener.close()


async def test_a_node_whose_port_is_closed_is_unreachable(epmd: EpmdAddress) -> None:
    async with two_nodes(epmd) as (a, _):
        registration = await register(epmd, "gone", free_port(), visible=True)
        with pytest.raises(NodeUnreachable, match=r"no connection to 127\.0\.0\.1"):
            await a.connect("gone@127.0.0.1")
        registration.stream.close()


async def test_bad_names_say_what_a_name_is(epmd: EpmdAddress) -> None:
    for bad in ("py", "py@", "@host", "a@b@c"):
        with pytest.raises(BadName, match="has the form name@host"):
            Node(bad, "secret", epmd_address=epmd)
    with pytest.raises(BadName, match="cookie is empty"):
        Node("py@127.0.0.1", "", epmd_address=epmd)
    async with two_nodes(epmd) as (a, _):
        with pytest.raises(BadName, match="this node itself"):
            await a.connect(A)
        with pytest.raises(BadName, match="has the form name@host"):
            await a.connect("nonsense")


@pytest.mark.usefixtures("no_dns")
async def test_starting_where_something_is_in_the_way(epmd: EpmdAddress) -> None:
    async with two_nodes(epmd):
        with pytest.raises(NameTaken, match="refuses the name 'a'"):
            async with Node(A.name, "secret", epmd_address=epmd).running():
                pass
    with pytest.raises(EpmdUnavailable, match="no EPMD answers on"):
        async with Node(A.name, "secret", epmd_address=EpmdAddress(port=free_port())).running():
            pass
    with pytest.raises(HostNotFound, match="does not resolve"):
        async with Node("py@no-such-host.invalid", "secret", epmd_address=epmd).running():
            pass
    listener = await listen("127.0.0.1")
    with pytest.raises(AddressInUse, match=f"cannot listen on 127.0.0.1:{listener.port}"):
        async with Node(A.name, "secret", epmd_address=epmd, listen_port=listener.port).running():
            pass
    listener.close()


async def test_an_error_of_the_block_comes_out_as_it_is(epmd: EpmdAddress) -> None:
    with pytest.raises(KeyError):
        async with Node(A.name, "secret", epmd_address=epmd).running():
            raise KeyError("mine")


async def test_the_loss_of_a_node_with_many_monitors_is_handed_out_in_slices(
    epmd: EpmdAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distribution_module, "SLICE", 100)
    async with two_nodes(epmd) as (a, b), a.open_process() as me, b.open_process("target") as target:
        refs = [me.monitor(("target", B)) for _ in range(1000)]
        me.send(("target", B), "all set")
        assert await target.receive(timeout=30) == b"all set"
        await a.disconnect(B)
        downs = [await me.receive(timeout=30) for _ in refs]
        assert [down[1] for down in downs] == refs
        assert {down[4] for down in downs} == {Atom("noconnection")}
        assert len(me.mailbox) == 0
        with trio.fail_after(30):
            while b.statistics()["watchers"]:
                await trio.lowlevel.checkpoint()


async def test_who_goes_beyond_the_limits_loses_its_connection(
    epmd: EpmdAddress, caplog: pytest.LogCaptureFixture
) -> None:
    async with two_nodes(epmd, limits=Limits(max_message=100_000)) as (a, b), b.monitor_nodes() as events:
        async with a.open_process() as me, b.open_process("there") as there:
            me.send(("there", B), bytes(90_000))
            assert await there.receive(timeout=30) == bytes(90_000)
            me.send(("there", B), bytes(110_000))
            assert await events_of(b, 2, events) == [NodeUp(A, "hidden"), NodeDown(A, "hidden", Atom("killed"))]
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert "a@127.0.0.1" in line
    assert "100000" in line
