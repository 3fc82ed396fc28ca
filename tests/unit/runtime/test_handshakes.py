"""Handshakes of a node of ours with peers made by hand, step by step; BEAMs take part in tests/interop.

What takes too long or comes in crowds is in test_attempts.py, cookies and allow lists are in test_access.py.
"""

from __future__ import annotations

import pytest
import trio
import trio.testing

from erlang_interop.errors import (
    ConnectError,
    ConnectRefused,
    ConnectTimeout,
    CookieMismatch,
    NodeUnreachable,
    NotAllowed,
)
from erlang_interop.flags import DFlag
from erlang_interop.runtime import EpmdAddress, NodeDown, NodeEvent, NodeUp
from erlang_interop.runtime import distribution as distribution_module
from erlang_interop.terms import Atom
from tests.handshaking import (
    NOT_ALLOWED,
    challenge_message,
    listening,
    without,
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


async def test_nok_and_then_no_call(
    epmd: EpmdAddress, nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    async with running(epmd, connect_timeout=0.3) as node, listening(epmd, GREATER.name) as there:
        calls = Calls(node, nursery)
        calls.add(GREATER)
        ours = await there.accept_name()
        await ours.send(b"snok")
        await ours.ended()
        mock_clock.jump(1)
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
        with trio.fail_after(30):
            seen = [await anext(events), await anext(events)]
        assert seen == [NodeDown(SMALLER, "hidden", wait_pending), NodeUp(SMALLER, "hidden")]
        (after,) = node.connections
        assert after.connection_id > before.connection_id
        assert node.handshakes == {("sent", "ok"): 1, ("sent", "alive"): 2}


@pytest.mark.parametrize("what", ["false", "wrong cookie", "nonsense", "end", "silence"])
async def test_a_call_that_is_taken_back_leaves_the_connection_alone(
    epmd: EpmdAddress, dial: Dial, mock_clock: trio.testing.MockClock, what: str
) -> None:
    async with running(epmd, connect_timeout=0.3) as node, connected(epmd, node, dial):
        events: list[NodeEvent] = []
        node.watch_nodes(events.append)
        new = await dial(await port_of(epmd, node))
        assert await new.introduce(SMALLER.name) == "alive"
        if what == "wrong cookie":
            await new.send(b"strue")
            assert not await new.finish("wrong")
        elif what == "end":
            await new.close()
        elif what == "silence":
            mock_clock.jump(1)
        else:
            await new.send(b"s" + what.encode())
        await until(lambda: states(node) == [(SMALLER.name, "up")])
        await trio.testing.wait_all_tasks_blocked()
        assert node.is_connected(SMALLER)
        assert events == []


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
        with trio.fail_after(30):
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


async def test_callers_hear_of_the_end_of_the_node_in_up_pending(
    epmd: EpmdAddress, dial: Dial, nursery: trio.Nursery
) -> None:
    async with running(epmd) as node:
        old = await dial(await port_of(epmd, node))
        assert await old.shake_hands(SMALLER.name, COOKIE) == "ok"
        await until(lambda: states(node) == [(SMALLER.name, "up")])
        new = await dial(await port_of(epmd, node))
        assert await new.introduce(SMALLER.name) == "alive"
        calls = Calls(node, nursery)
        calls.add(SMALLER, 2)
        await trio.testing.wait_all_tasks_blocked()
        assert calls.outcomes == []
    assert {type(outcome) for outcome in await calls.take(2)} == {NodeUnreachable}


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
