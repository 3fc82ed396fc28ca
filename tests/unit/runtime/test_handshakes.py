"""Handshakes of a node of ours with peers made by hand, step by step; BEAMs take part in tests/interop."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from erlang_interop.errors import (
    ConnectError,
    ConnectRefused,
    ConnectTimeout,
    CookieMismatch,
    HandshakeError,
    NodeUnreachable,
    NotAllowed,
)
from erlang_interop.flags import DFlag
from erlang_interop.runtime import EpmdAddress, EpmdServer, Node, NodeDown, NodeUp
from erlang_interop.runtime import distribution as distribution_module
from erlang_interop.runtime.epmd import look_up
from erlang_interop.terms import Atom
from tests.handshaking import (
    NOT_ALLOWED,
    Raw,
    RawListener,
    challenge_message,
    dialling,
    listening,
    name_message,
    old_name_message,
    without,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from erlang_interop.runtime import NodeEvent

    Dial = Callable[[int], Awaitable[Raw]]

ME = Atom("m@127.0.0.1")
SMALLER, GREATER = Atom("a@127.0.0.1"), Atom("z@127.0.0.1")
COOKIE = "open sesame"


@pytest.fixture
async def epmd(nursery: trio.Nursery) -> EpmdAddress:
    return EpmdAddress(port=await nursery.start(EpmdServer().serve))


@pytest.fixture
async def dial() -> AsyncIterator[Dial]:
    async with dialling() as dial:
        yield dial


@asynccontextmanager
async def running(
    epmd: EpmdAddress, name: str = ME.name, cookie: str = COOKIE, **options: object
) -> AsyncIterator[Node]:
    node = Node(name, cookie, epmd_address=epmd, **options)  # type: ignore[arg-type]
    async with node.running():
        yield node


async def port_of(epmd: EpmdAddress, node: Node) -> int:
    return await look_up("127.0.0.1", epmd.port, node.short_name)


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while True:
            if condition():
                return
            await trio.sleep(0.001)


def states(node: Node) -> list[tuple[str, str]]:
    return [(row.name.name, row.state) for row in node.connections]


class Calls:
    """Callers of ``node.connect`` that wait, and what became of them."""

    def __init__(self, node: Node, nursery: trio.Nursery) -> None:
        self._node = node
        self._nursery = nursery
        self.outcomes: list[ConnectError | None] = []

    def add(self, peer: Atom, count: int = 1) -> None:
        for _ in range(count):
            self._nursery.start_soon(self._connect, peer)

    async def _connect(self, peer: Atom) -> None:
        try:
            await self._node.connect(peer)
        except ConnectError as error:
            self.outcomes.append(error)
        else:
            self.outcomes.append(None)

    async def take(self, count: int = 1) -> list[ConnectError | None]:
        await until(lambda: len(self.outcomes) >= count)
        taken, self.outcomes = self.outcomes, []
        return taken


# ----------------------------------------------------------------------------------------------------- who waits


async def test_fifty_callers_share_one_attempt(epmd: EpmdAddress, nursery: trio.Nursery) -> None:
    async with running(epmd) as node, listening(epmd, GREATER.name) as there:
        calls = Calls(node, nursery)
        calls.add(GREATER, 50)
        raw = await there.accept_name()
        assert states(node) == [(GREATER.name, "pending")]
        await raw.send(b"sok")
        await raw.accept_as(GREATER.name, COOKIE)
        assert await calls.take(50) == [None] * 50
        assert there.waiting == 0, "one attempt"
        assert node.handshakes == {("received", "ok"): 1}


async def test_fifty_callers_fail_with_an_error_each(epmd: EpmdAddress, nursery: trio.Nursery) -> None:
    async with running(epmd) as node, listening(epmd, GREATER.name) as there:
        calls = Calls(node, nursery)
        calls.add(GREATER, 50)
        raw = await there.accept_name()
        await raw.send(NOT_ALLOWED)
        outcomes = await calls.take(50)
        assert there.waiting == 0
        assert len({id(outcome) for outcome in outcomes}) == 50
        assert {type(outcome) for outcome in outcomes} == {ConnectRefused}
        assert {str(outcome) for outcome in outcomes} == {str(outcomes[0])}
        assert all(outcome is not None and isinstance(outcome.__cause__, NotAllowed) for outcome in outcomes)
        assert node.connections == []
        failure = node.last_failure(GREATER)
        assert str(failure) == str(outcomes[0])
        # another attempt succeeds, and it is forgotten
        calls.add(GREATER)
        raw = await there.accept_name()
        await raw.send(b"sok")
        await raw.accept_as(GREATER.name, COOKIE)
        assert await calls.take() == [None]
        assert node.last_failure(GREATER) is None


async def test_the_failures_of_many_nodes_are_not_kept_for_ever(epmd: EpmdAddress) -> None:
    async with running(epmd) as node:
        names = [f"nobody{number}@127.0.0.1" for number in range(distribution_module.MAX_FAILURES + 5)]
        for name_ in [*names[:5], *names]:
            with pytest.raises(ConnectError):
                await node.connect(name_)
        assert list(node._distribution.failures) == [Atom(name_) for name_ in names[5:]]


async def test_callers_hear_that_the_node_closes(epmd: EpmdAddress, nursery: trio.Nursery) -> None:
    async with listening(epmd, GREATER.name) as there:
        async with running(epmd) as node:
            calls = Calls(node, nursery)
            calls.add(GREATER, 2)
            await there.accept_name()
        assert [str(outcome) for outcome in await calls.take(2)] == [
            "m@127.0.0.1 is closing, and connects to nobody any more"
        ] * 2
        calls.add(SMALLER)
        assert isinstance((await calls.take())[0], NodeUnreachable)


# ---------------------------------------------------------------------------------------------------- arbitration


async def test_both_dial_and_the_other_name_is_the_greater(
    epmd: EpmdAddress, dial: Dial, nursery: trio.Nursery
) -> None:
    async with running(epmd) as node, listening(epmd, GREATER.name) as there, node.open_process("sink") as sink:
        calls = Calls(node, nursery)
        calls.add(GREATER, 3)
        ours = await there.accept_name()
        sink.send(("sink", GREATER), "waits for whichever connection")
        theirs = await dial(await port_of(epmd, node))
        assert await theirs.introduce(GREATER.name) == "ok_simultaneous"
        assert states(node) == [(GREATER.name, "pending")]
        await ours.ended()  # net_kernel kills its own attempt at once as well
        calls.add(GREATER)
        assert await theirs.finish(COOKIE)
        assert await calls.take(4) == [None] * 4
        (row,) = node.connections
        assert (row.state, row.address) == ("up", theirs.address)
        assert node.handshakes == {("sent", "ok_simultaneous"): 1}
        frame = await theirs.receive_bytes(4)
        assert frame is not None
        assert int.from_bytes(frame, "big") > 0
        assert b"waits for whichever connection" in (await theirs.receive_bytes(int.from_bytes(frame, "big")) or b"")


async def test_who_waited_fails_with_the_other_attempt(epmd: EpmdAddress, dial: Dial, nursery: trio.Nursery) -> None:
    async with running(epmd) as node, listening(epmd, GREATER.name) as there:
        calls = Calls(node, nursery)
        calls.add(GREATER, 3)
        await there.accept_name()
        theirs = await dial(await port_of(epmd, node))
        assert await theirs.introduce(GREATER.name) == "ok_simultaneous"
        assert not await theirs.finish("wrong")
        outcomes = await calls.take(3)
        assert {type(outcome) for outcome in outcomes} == {NodeUnreachable}
        assert all(outcome is not None and isinstance(outcome.__cause__, CookieMismatch) for outcome in outcomes)
        assert node.connections == []


async def test_both_dial_and_our_name_is_the_greater(epmd: EpmdAddress, dial: Dial, nursery: trio.Nursery) -> None:
    async with running(epmd) as node, listening(epmd, SMALLER.name) as there:
        calls = Calls(node, nursery)
        calls.add(SMALLER)
        ours = await there.accept_name()
        theirs = await dial(await port_of(epmd, node))
        assert await theirs.introduce(SMALLER.name) == "nok"
        await theirs.ended()
        assert states(node) == [(SMALLER.name, "pending")]
        await ours.send(b"sok_simultaneous")
        await ours.accept_as(SMALLER.name, COOKIE)
        assert await calls.take() == [None]
        assert node.handshakes == {("sent", "nok"): 1, ("received", "ok_simultaneous"): 1}


async def test_nok_is_followed_by_the_call_of_the_other(epmd: EpmdAddress, dial: Dial, nursery: trio.Nursery) -> None:
    async with running(epmd) as node, listening(epmd, GREATER.name) as there:
        calls = Calls(node, nursery)
        calls.add(GREATER)
        ours = await there.accept_name()
        await ours.send(b"snok")
        await ours.ended()
        assert states(node) == [(GREATER.name, "pending")]
        theirs = await dial(await port_of(epmd, node))
        assert await theirs.shake_hands(GREATER.name, COOKIE) == "ok_simultaneous"
        assert await calls.take() == [None]
        assert node.handshakes == {("received", "nok"): 1, ("sent", "ok_simultaneous"): 1}


async def test_nok_and_then_no_call(epmd: EpmdAddress, nursery: trio.Nursery) -> None:
    async with running(epmd, connect_timeout=0.3) as node, listening(epmd, GREATER.name) as there:
        calls = Calls(node, nursery)
        calls.add(GREATER)
        ours = await there.accept_name()
        await ours.send(b"snok")
        (outcome,) = await calls.take()
        assert isinstance(outcome, ConnectTimeout)
        assert "it calls this node itself, and that call did not come through" in str(outcome)
        assert node.connections == []


@pytest.mark.parametrize(("peer", "answer"), [(GREATER, "ok_simultaneous"), (SMALLER, "nok")])
async def test_a_second_call_while_the_first_is_under_way(
    epmd: EpmdAddress, dial: Dial, peer: Atom, answer: str
) -> None:
    async with running(epmd) as node:
        first, second = [await dial(await port_of(epmd, node)) for _ in range(2)]
        assert await first.introduce(peer.name) == "ok"
        assert await second.introduce(peer.name) == answer
        loser, winner = (first, second) if answer == "ok_simultaneous" else (second, first)
        await loser.ended()
        assert await winner.finish(COOKIE)
        await until(lambda: states(node) == [(peer.name, "up")])


async def test_it_calls_before_our_call_has_begun(
    epmd: EpmdAddress, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row is there with the first signal, the task that dials runs a moment later."""
    async with running(epmd) as node, listening(epmd, GREATER.name) as there, node.open_process() as me:
        raw = await dial(await port_of(epmd, node))
        accept = node._distribution._handshakes._arbitrate

        def arbitrate(name: Atom, acceptor: object, attempt: object) -> None:
            me.send(("somebody", GREATER), 1)
            accept(name, acceptor, attempt)  # type: ignore[arg-type]

        monkeypatch.setattr(node._distribution._handshakes, "_arbitrate", arbitrate)
        assert await raw.introduce(GREATER.name) == "ok_simultaneous"
        assert await raw.finish(COOKIE)
        await until(lambda: states(node) == [(GREATER.name, "up")])
        assert there.waiting == 0


async def test_a_node_that_calls_itself_as_we_do(
    epmd: EpmdAddress, dial: Dial, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(epmd) as node:
        raw = await dial(await port_of(epmd, node))
        assert await raw.introduce(ME.name) == "nok", "as net_kernel, which gets no connection id for its own name"
        await raw.ended()
        assert f"refusing {raw.address}: it calls itself {ME.name}, which is this node" in caplog.text


# ------------------------------------------------------------------------------------------------- alive, both roles


@asynccontextmanager
async def connected(epmd: EpmdAddress, node: Node, dial: Dial, peer: Atom = SMALLER) -> AsyncIterator[Raw]:
    raw = await dial(await port_of(epmd, node))
    assert await raw.shake_hands(peer.name, COOKIE) == "ok"
    await until(lambda: states(node) == [(peer.name, "up")])
    yield raw
    await raw.close()


async def test_the_old_connection_gives_way_when_the_cookie_is_shown(epmd: EpmdAddress, dial: Dial) -> None:
    async with running(epmd) as node, connected(epmd, node, dial) as old, node.monitor_nodes() as events:
        (before,) = node.connections
        new = await dial(await port_of(epmd, node))
        assert await new.introduce(SMALLER.name) == "alive"
        assert states(node) == [(SMALLER.name, "up_pending")]
        await new.send(b"strue")
        # dist_util sends the challenge, and takes the old connection down only when that was answered
        assert (await new.receive() or b"")[:1] == b"N"
        assert states(node) == [(SMALLER.name, "up_pending")]
        assert node.is_connected(SMALLER)
        third = await dial(await port_of(epmd, node))
        assert await third.introduce(SMALLER.name) is None, "already_pending: it hangs up without a word"
        await new.close()
        await until(lambda: states(node) == [(SMALLER.name, "up")])
        fourth = await dial(await port_of(epmd, node))
        assert await fourth.shake_hands(SMALLER.name, COOKIE) == "alive"
        await old.ended()
        wait_pending = Atom("wait_pending")
        with trio.fail_after(10):
            seen = [await anext(events), await anext(events)]
        assert seen == [NodeDown(SMALLER, "hidden", wait_pending), NodeUp(SMALLER, "hidden")]
        (after,) = node.connections
        assert after.connection_id > before.connection_id
        assert node.handshakes == {("sent", "ok"): 1, ("sent", "alive"): 2}


@pytest.mark.parametrize("what", ["false", "wrong cookie", "nonsense", "end", "silence"])
async def test_a_call_that_is_taken_back_leaves_the_connection_alone(epmd: EpmdAddress, dial: Dial, what: str) -> None:
    async with running(epmd, connect_timeout=0.3) as node, connected(epmd, node, dial), node.monitor_nodes() as events:
        new = await dial(await port_of(epmd, node))
        assert await new.introduce(SMALLER.name) == "alive"
        if what == "wrong cookie":
            await new.send(b"strue")
            assert not await new.finish("wrong")
        elif what == "end":
            await new.close()
        elif what != "silence":
            await new.send(b"s" + what.encode())
        await until(lambda: states(node) == [(SMALLER.name, "up")])
        assert node.is_connected(SMALLER)
        with trio.move_on_after(0.05) as scope:
            pytest.fail(f"{await anext(events)}")
        assert scope.cancelled_caught


async def test_the_old_connection_is_lost_while_the_new_one_is_made(
    epmd: EpmdAddress, dial: Dial, nursery: trio.Nursery
) -> None:
    async with running(epmd) as node, connected(epmd, node, dial) as old, node.monitor_nodes() as events:
        new = await dial(await port_of(epmd, node))
        assert await new.introduce(SMALLER.name) == "alive"
        calls = Calls(node, nursery)
        calls.add(SMALLER, 2)
        await old.close()
        await until(lambda: states(node) == [(SMALLER.name, "pending")])
        node.send(("somebody", SMALLER), "after the loss")
        calls.add(SMALLER)
        assert calls.outcomes == []
        await new.send(b"strue")
        assert await new.finish(COOKIE)
        assert await calls.take(3) == [None] * 3
        assert b"after the loss" in (await new.receive_bytes(76) or b"")
        with trio.fail_after(10):
            seen = [await anext(events), await anext(events)]
        assert seen == [NodeDown(SMALLER, "hidden", Atom("connection_closed")), NodeUp(SMALLER, "hidden")]


async def test_both_connections_are_lost(epmd: EpmdAddress, dial: Dial, nursery: trio.Nursery) -> None:
    async with running(epmd) as node, connected(epmd, node, dial) as old:
        new = await dial(await port_of(epmd, node))
        assert await new.introduce(SMALLER.name) == "alive"
        calls = Calls(node, nursery)
        calls.add(SMALLER)
        await old.close()
        await until(lambda: states(node) == [(SMALLER.name, "pending")])
        calls.add(SMALLER)
        await new.close()
        assert [type(outcome) for outcome in await calls.take(2)] == [NodeUnreachable] * 2
        assert node.connections == []


async def test_callers_wait_for_the_end_of_up_pending(epmd: EpmdAddress, dial: Dial, nursery: trio.Nursery) -> None:
    async with running(epmd) as node, connected(epmd, node, dial):
        new = await dial(await port_of(epmd, node))
        assert await new.introduce(SMALLER.name) == "alive"
        calls = Calls(node, nursery)
        calls.add(SMALLER, 2)
        await trio.testing.wait_all_tasks_blocked()
        assert calls.outcomes == []
        await new.send(b"sfalse")
        assert await calls.take(2) == [None, None]
        assert states(node) == [(SMALLER.name, "up")]


async def test_losses_are_handed_out_before_a_new_connection(
    epmd: EpmdAddress, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row is ``exiting`` meanwhile, and who calls waits for an answer."""
    monkeypatch.setattr(distribution_module, "SLICE", 1)
    async with running(epmd) as node, node.open_process() as me:
        async with connected(epmd, node, dial):
            for _ in range(2000):
                me.monitor(("somebody", SMALLER))
            await until(lambda: node.connections[0].unsent == 0)
        await until(lambda: states(node) == [(SMALLER.name, "exiting")])
        new = await dial(await port_of(epmd, node))
        assert await new.introduce(SMALLER.name) == "ok"
        assert states(node) == [(SMALLER.name, "pending")]
        assert len(me.mailbox) == 2000
        assert await new.finish(COOKIE)


async def test_alive_is_answered_with_true(epmd: EpmdAddress, nursery: trio.Nursery) -> None:
    async with running(epmd) as node, listening(epmd, GREATER.name) as there:
        calls = Calls(node, nursery)
        calls.add(GREATER)
        raw = await there.accept_name()
        await raw.send(b"salive")
        assert await raw.receive() == b"strue"
        await raw.accept_as(GREATER.name, COOKIE)
        assert await calls.take() == [None]
        assert node.handshakes == {("received", "alive"): 1}


# ------------------------------------------------------------------------------------------------------- time limits


async def nothing(raw: Raw) -> None:
    pass


async def name(raw: Raw) -> None:
    await raw.send(name_message(SMALLER.name))


async def old_name(raw: Raw) -> None:
    await raw.send(old_name_message(SMALLER.name))


@pytest.mark.parametrize(
    ("begin", "known", "owed"),
    [
        (nothing, "", "its name (RECV_NAME)"),
        (name, f"{SMALLER.name}: ", "its answer to our challenge (RECV_REPLY)"),
        (old_name, f"{SMALLER.name}: ", "the other half of its flags (RECV_COMPLEMENT)"),
    ],
)
async def test_a_caller_that_falls_silent(
    epmd: EpmdAddress,
    dial: Dial,
    caplog: pytest.LogCaptureFixture,
    begin: Callable[[Raw], Awaitable[None]],
    known: str,
    owed: str,
) -> None:
    async with running(epmd, connect_timeout=0.2) as node:
        raw = await dial(await port_of(epmd, node))
        await begin(raw)
        await raw.ended()
        await until(lambda: node.connections == [])
        line = f"handshake with {raw.address} failed: {known}it did not finish the handshake within 0.2 s: "
        assert f"{line}it still owes {owed}" in caplog.text


async def test_a_caller_that_falls_silent_after_alive(
    epmd: EpmdAddress, dial: Dial, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(epmd, connect_timeout=0.2) as node, connected(epmd, node, dial):
        raw = await dial(await port_of(epmd, node))
        await raw.introduce(SMALLER.name)
        await raw.ended()
        assert f"handshake with {raw.address} failed: {SMALLER.name}: it did not finish" in caplog.text
        assert "it still owes whether it means this connection, as another one is up (RECV_ALIVE_ANSWER)" in caplog.text


@pytest.mark.parametrize("state", ["RECV_STATUS", "RECV_CHALLENGE", "RECV_ACK"])
async def test_a_node_that_is_called_and_falls_silent(epmd: EpmdAddress, nursery: trio.Nursery, state: str) -> None:
    async with running(epmd, connect_timeout=0.3) as node, listening(epmd, GREATER.name) as there:
        calls = Calls(node, nursery)
        calls.add(GREATER)
        raw = await there.accept_name()
        if state != "RECV_STATUS":
            await raw.send(b"sok")
        if state == "RECV_ACK":
            await raw.send(challenge_message(GREATER.name))
        (outcome,) = await calls.take()
        assert isinstance(outcome, ConnectTimeout)
        assert str(outcome).startswith(
            f"{GREATER.name} at 127.0.0.1:{there.port} did not finish the handshake within 0.3 s: it still owes its "
        )
        assert f"({state})" in str(outcome)
        await raw.ended()


# ------------------------------------------------------------------------------------------------- too many at once


async def test_silent_strangers_do_not_keep_newcomers_out(
    epmd: EpmdAddress, dial: Dial, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(epmd, max_handshakes=4) as node:
        port = await port_of(epmd, node)
        strangers = []
        for _ in range(4):
            strangers.append(await dial(port))
            await until(lambda: len(node._distribution._handshakes._accepting) == len(strangers))
        assert "under way" not in caplog.text
        friend = await dial(port)
        assert await friend.shake_hands(SMALLER.name, COOKIE) == "ok"
        await strangers[0].ended()
        assert caplog.text.count("4 handshakes are under way already") == 1
        assert f"closing a connection from {strangers[0].address}: 4 handshakes are under way already" in caplog.text
        # Whoever has said its name outlives those who have not, and they go in the order of their arrival.
        named = await dial(port)
        assert await named.introduce(GREATER.name) == "ok"
        for index in range(1, 4):
            await dial(port)
            await strangers[index].ended()
            assert states(node) == [(SMALLER.name, "up"), (GREATER.name, "pending")]
        assert await named.finish(COOKIE)


async def test_a_handshake_that_gave_its_place_away_is_a_failure_for_who_waited(
    epmd: EpmdAddress, dial: Dial, nursery: trio.Nursery
) -> None:
    async with running(epmd, max_handshakes=1) as node:
        port = await port_of(epmd, node)
        first = await dial(port)
        assert await first.introduce(GREATER.name) == "ok"
        calls = Calls(node, nursery)
        calls.add(GREATER)
        second = await dial(port)
        assert await second.shake_hands(SMALLER.name, COOKIE) == "ok"
        (outcome,) = await calls.take()
        assert isinstance(outcome, NodeUnreachable)
        assert "had not shown the cookie when others needed its place" in str(outcome)
        await first.ended()
        assert states(node) == [(SMALLER.name, "up")]


async def test_a_flood_of_silent_strangers(epmd: EpmdAddress, dial: Dial) -> None:
    """There are always more of them than places; a peer that knows the cookie gets in each time."""
    async with running(epmd, max_handshakes=8) as node, running(epmd, GREATER.name) as peer:
        port = await port_of(epmd, node)

        async def call_again_when_closed() -> None:
            while True:
                stranger = await dial(port)
                await stranger.ended()
                await stranger.close()

        async with trio.open_nursery() as strangers:
            for _ in range(16):
                strangers.start_soon(call_again_when_closed)
            for _ in range(10):
                await peer.connect(ME)
                await peer.disconnect(ME)
                await until(lambda: node.connections == [])
            strangers.cancel_scope.cancel()


async def test_there_is_room_for_one_handshake_at_least() -> None:
    with pytest.raises(ValueError, match="max_handshakes=0"):
        Node(ME.name, COOKIE, max_handshakes=0)


# ----------------------------------------------------------------------------------------------- flags, cookies, allow


async def test_a_node_that_is_called_and_lacks_a_flag(epmd: EpmdAddress, nursery: trio.Nursery) -> None:
    async with running(epmd) as node, listening(epmd, GREATER.name) as there:
        calls = Calls(node, nursery)
        calls.add(GREATER)
        raw = await there.accept_name()
        await raw.send(b"sok")
        await raw.send(challenge_message(GREATER.name, without(DFlag.V4_NC)))
        (outcome,) = await calls.take()
        assert isinstance(outcome, ConnectRefused)
        assert "it cannot do V4_NC" in str(outcome)
        await raw.ended()


async def test_cookies_of_single_peers(epmd: EpmdAddress, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with (
        running(epmd, cookies={GREATER.name: "greater secret"}) as node,
        running(epmd, GREATER.name, "greater secret") as greater,
        running(epmd, SMALLER.name, "smaller secret") as smaller,
    ):
        await node.connect(GREATER)
        await node.disconnect(GREATER)
        await until(lambda: greater.connections == [])
        await greater.connect(ME)
        with pytest.raises(ConnectRefused, match="cookie"):
            await smaller.connect(ME)
        smaller.set_cookie(ME, COOKIE)
        await smaller.connect(ME)
        await smaller.disconnect(ME)
        await until(lambda: states(node) == [(GREATER.name, "up")])
        node.set_cookie(SMALLER, "third secret")
        with pytest.raises(ConnectRefused, match="cookie") as caught:
            await node.connect(SMALLER)
        smaller.set_cookie(ME, "third secret")
        await node.connect(SMALLER)
        node.set_cookie(ME, "fourth secret")
        assert "secret" not in repr(node) + repr(vars(node)) + str(caught.value)
    assert "secret" not in caplog.text
    assert COOKIE not in caplog.text


async def test_a_nodes_own_cookie_is_changed_for_all_others(epmd: EpmdAddress) -> None:
    async with running(epmd) as node, running(epmd, SMALLER.name, "new") as smaller:
        with pytest.raises(ConnectRefused, match="cookie"):
            await smaller.connect(ME)
        node.set_cookie(ME, "new")
        await smaller.connect(ME)


async def test_the_list_of_allowed_nodes_holds_both_ways(epmd: EpmdAddress, caplog: pytest.LogCaptureFixture) -> None:
    async with running(epmd) as node, running(epmd, GREATER.name) as greater, running(epmd, SMALLER.name) as smaller:
        await node.connect(SMALLER)
        node.allow([GREATER])
        assert node.is_connected(SMALLER), "what is up stays up"
        await node.disconnect(SMALLER)
        with pytest.raises(ConnectRefused, match="is not in the list of nodes that this node allows") as caught:
            await node.connect(SMALLER)
        assert isinstance(caught.value.__cause__, NotAllowed)
        assert smaller.connections == [], "it was not even called"
        with pytest.raises(ConnectRefused) as caught:
            await smaller.connect(ME)
        assert isinstance(caught.value.__cause__, NotAllowed)
        assert "refusing a@127.0.0.1" in caplog.text
        await greater.connect(ME)
        node.allow(["127.0.0.1"])
        await smaller.connect(ME)


# ------------------------------------------------------------------------------------------------------ dynamic names


UNDEFINED = "undefined@127.0.0.1"


async def test_one_node_gives_another_its_name(epmd: EpmdAddress) -> None:
    async with running(epmd, visible=True) as node, node.open_process("echo") as echo:
        async with running(epmd, UNDEFINED, name_from=ME.name) as named, named.open_process("me") as me:
            assert named.name.name.endswith("@127.0.0.1")
            assert named.short_name not in ("undefined", "")
            assert (named.name.name, "up") in states(node)
            assert node.nodes("hidden") == [named.name]
            assert named.nodes("hidden") == [ME], "whoever gives a name is hidden to the node that has it"
            assert me.pid.node == named.name
            assert me.pid.creation == named.creation == node.connections[0].creation
            me.send(("echo", ME), me.pid)
            assert await echo.receive(timeout=5) == me.pid
            echo.send(me.pid, "back")
            assert await me.receive(timeout=5) == b"back"
            echo.send(("me", named.name), "by name")
            assert await me.receive(timeout=5) == b"by name"
            first, creation = named.name, named.creation
        await until(lambda: node.connections == [])
        async with (
            running(epmd, UNDEFINED, name_from=ME.name) as again,
            running(epmd, UNDEFINED, name_from=ME.name) as other,
        ):
            assert (again.name, again.creation) == (first, creation + 1)
            assert other.name != again.name
            assert len(node.connections) == 2


async def test_a_node_that_was_named_keeps_its_name(epmd: EpmdAddress) -> None:
    async with (
        running(epmd) as node,
        running(epmd, GREATER.name) as greater,
        running(epmd, UNDEFINED, name_from=ME.name) as named,
    ):
        name = named.name
        await named.connect(GREATER)
        assert greater.nodes("hidden") == [name]
        await named.disconnect(ME)
        assert named.name == name
        assert named.is_connected(GREATER)
        await named.connect(ME)
        assert node.nodes("hidden") == [name]


async def test_a_name_that_another_node_has_by_now_is_not_taken_from_it(
    epmd: EpmdAddress,
) -> None:
    async with (
        running(epmd) as node,
        running(epmd, UNDEFINED, name_from=ME.name, connect_timeout=0.5) as first,
    ):
        await first.disconnect(ME)
        await until(lambda: node.connections == [])
        async with running(epmd, UNDEFINED, name_from=ME.name) as second:
            assert second.name == first.name
            with pytest.raises(ConnectTimeout, match="may have been given to another"):
                await first.connect(ME)
            assert second.is_connected(ME)
            assert states(node) == [(second.name.name, "up")]
        await until(lambda: node.connections == [])
        await first.connect(ME)


async def test_names_nobody_gives(epmd: EpmdAddress) -> None:
    async def opened(**options: object) -> None:
        async with running(epmd, UNDEFINED, **options):  # type: ignore[arg-type]
            pytest.fail("it has no name")

    async with running(epmd, allow=["friend@127.0.0.1"]) as node:
        with pytest.raises(ConnectRefused, match="does not let us in") as caught:
            await opened(name_from=ME.name)
        assert isinstance(caught.value.__cause__, NotAllowed)
        node.allow(["127.0.0.1"])
        with pytest.raises(ConnectRefused, match="cookie"):
            await opened(name_from=ME.name, cookie="wrong")
        await until(lambda: node.connections == [])
    with pytest.raises(ConnectError, match="knows no node"):
        await opened(name_from=ME.name)


@asynccontextmanager
async def asked(epmd: EpmdAddress) -> AsyncIterator[tuple[RawListener, list[BaseException]]]:
    """A node that asks a peer made by hand for a name, and how that ended."""
    outcome: list[BaseException] = []

    async def ask() -> None:
        try:
            async with running(epmd, UNDEFINED, name_from=GREATER.name, connect_timeout=0.5):
                pytest.fail("it has no name")
        except ConnectError as error:
            outcome.append(error)

    async with listening(epmd, GREATER.name) as there, trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        yield there, outcome


async def test_what_asks_for_a_name_says_its_host(epmd: EpmdAddress) -> None:
    async with asked(epmd) as (there, outcome):
        raw = await there.accept()
        message = await raw.receive()
        assert message is not None
        flags = DFlag(int.from_bytes(message[1:9], "big"))
        assert flags & DFlag.NAME_ME
        assert not flags & DFlag.PUBLISHED
        assert message[9:] == b"\0\0\0\0" + b"\0\x09127.0.0.1"
        await raw.send(b"sok")
        await until(lambda: bool(outcome))
    assert "answers 'ok'" in str(outcome[0])


async def test_a_node_that_hangs_up_on_the_request_for_a_name(epmd: EpmdAddress) -> None:
    async with asked(epmd) as (there, outcome):
        raw = await there.accept_name()
        await raw.close()
        await until(lambda: bool(outcome))
    assert "OTP 23 and later give names" in str(outcome[0])
    assert isinstance(outcome[0].__cause__, HandshakeError)


async def test_a_node_that_never_gives_a_name(epmd: EpmdAddress) -> None:
    async with asked(epmd) as (there, outcome):
        await there.accept_name()
        await until(lambda: bool(outcome))
    assert isinstance(outcome[0], ConnectTimeout)


async def test_ordinary_nodes_never_ask_for_a_name(epmd: EpmdAddress, nursery: trio.Nursery) -> None:
    async with running(epmd) as node, listening(epmd, GREATER.name) as there:
        Calls(node, nursery).add(GREATER)
        raw = await there.accept()
        message = await raw.receive()
        assert message is not None
        assert not int.from_bytes(message[1:9], "big") & DFlag.NAME_ME


def test_a_name_is_asked_for_with_name_from_and_undefined_together() -> None:
    with pytest.raises(ValueError, match="name_from='beam@host'"):
        Node(UNDEFINED, COOKIE)
    with pytest.raises(ValueError, match="is for a node without a name"):
        Node(ME.name, COOKIE, name_from=GREATER.name)
    with pytest.raises(ValueError, match="always a hidden one"):
        Node(UNDEFINED, COOKIE, name_from=GREATER.name, visible=True)
    with pytest.raises(ValueError, match="no node name"):
        Node(UNDEFINED, COOKIE, name_from="beam")


async def test_who_gave_the_name_finds_the_servers_of_the_node(epmd: EpmdAddress) -> None:
    """It may send at once, before the block of ``async with`` has begun: nothing of that is lost."""
    async with running(epmd) as node:
        events: list[NodeEvent] = []

        def greet(event: NodeEvent) -> None:
            events.append(event)
            if isinstance(event, NodeUp):
                node.send(("early", event.name), "hello")

        node.watch_nodes(greet)
        async with running(epmd, UNDEFINED, name_from=ME.name) as named, named.open_process("early") as early:
            assert await early.receive(timeout=5) == b"hello"
