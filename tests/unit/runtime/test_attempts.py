"""Handshakes that take too long, and crowds of them: how an attempt is ended, and what it says of itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from erlang_interop.errors import (
    ConnectTimeout,
    NodeUnreachable,
)
from erlang_interop.flags import OFFERED
from erlang_interop.runtime import EpmdAddress, Node
from erlang_interop.runtime.attempts import Attempt
from erlang_interop.wire.handshake import Acceptor, Initiator
from tests.handshaking import (
    Raw,
    challenge_message,
    listening,
    name_message,
    old_name_message,
)
from tests.unit.runtime.calls import (
    COOKIE,
    GREATER,
    ME,
    SMALLER,
    Calls,
    Dial,
    connected,
    port_of,
    running,
    states,
    until,
)


def test_it_says_what_the_peer_owes() -> None:
    attempt = Attempt("10.0.0.1:4711")
    assert attempt.address == "10.0.0.1:4711"
    assert attempt.silent
    attempt.awaiting = "nothing took the connection"
    assert attempt.owes() == "nothing took the connection"
    attempt.handshake = Acceptor("b@h", OFFERED, 1, "secret", 2)
    assert attempt.silent
    assert attempt.owes() == "it still owes its name (RECV_NAME)"
    attempt.handshake.receive_data(Initiator("a@h", "b@h", OFFERED, 1, "secret", 3).data_to_send())
    assert not attempt.silent
    assert attempt.owes() == "nothing took the connection", "this side decides what to answer: the peer owes nothing"


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
    mock_clock: trio.testing.MockClock,
    begin: Callable[[Raw], Awaitable[None]],
    known: str,
    owed: str,
) -> None:
    async with running(epmd, connect_timeout=0.2) as node:
        raw = await dial(await port_of(epmd, node))
        await begin(raw)
        attempts = node._distribution._handshakes._accepting._attempts
        await until(lambda: any(owed in attempt.owes() for attempt in attempts))
        mock_clock.jump(1)
        await raw.ended()
        await until(lambda: node.connections == [])
        line = f"handshake with {raw.address} failed: {known}it did not finish the handshake within 0.2 s: "
        assert f"{line}it still owes {owed}" in caplog.text


async def test_a_caller_that_falls_silent_after_alive(
    epmd: EpmdAddress, dial: Dial, caplog: pytest.LogCaptureFixture, mock_clock: trio.testing.MockClock
) -> None:
    async with running(epmd, connect_timeout=0.2) as node, connected(epmd, node, dial):
        raw = await dial(await port_of(epmd, node))
        assert await raw.introduce(SMALLER.name) == "alive"
        mock_clock.jump(1)
        await raw.ended()
        assert f"handshake with {raw.address} failed: {SMALLER.name}: it did not finish" in caplog.text
        assert "it still owes whether it means this connection, as another one is up (RECV_ALIVE_ANSWER)" in caplog.text


@pytest.mark.parametrize("state", ["RECV_STATUS", "RECV_CHALLENGE", "RECV_ACK"])
async def test_a_node_that_is_called_and_falls_silent(
    epmd: EpmdAddress, nursery: trio.Nursery, mock_clock: trio.testing.MockClock, state: str
) -> None:
    async with running(epmd, connect_timeout=0.3) as node, listening(epmd, GREATER.name) as there:
        calls = Calls(node, nursery)
        calls.add(GREATER)
        raw = await there.accept_name()
        if state != "RECV_STATUS":
            await raw.send(b"sok")
            await until(lambda: node.handshakes == {("received", "ok"): 1})
        if state == "RECV_ACK":
            await raw.send(challenge_message(GREATER.name))
            assert (await raw.receive() or b"")[:1] == b"r"
        mock_clock.jump(1)
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
