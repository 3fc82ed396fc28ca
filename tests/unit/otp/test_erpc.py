"""``erpc``, from one node of ours to another; how both sides do with a BEAM is in tests/interop/test_rpc*.py."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import trio

from erlang_interop import (
    Atom,
    CallTimeout,
    ConnectError,
    EncodeError,
    ErpcError,
    Exit,
    Node,
    NodeDownError,
    Pid,
    Process,
    RemoteError,
    RemoteException,
    RemoteExit,
    RemoteThrow,
    Throw,
)
from tests.unit.otp.rpc_peer import exposed_here, idle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def pair(two_nodes: tuple[Node, Node]) -> AsyncIterator[tuple[Node, Node]]:
    """A node that calls, and one that has something to call; nothing is left on either when the test ends."""
    one, two = two_nodes
    exposed_here(two)
    await one.connect(two.name)
    yield one, two
    for node in two_nodes:
        await idle(node)


async def test_it_returns(pair: tuple[Node, Node]) -> None:
    one, two = pair
    assert await one.erpc_call(two.name, "py", "add", [1, 2]) == 3
    assert await one.erpc_call("two@127.0.0.1", Atom("py"), Atom("later"), (b"x",), timeout=20.0) == b"x"
    assert await two.erpc_call(two.name, "py", "add", [1, 2]) == 3  # on its own node as well


async def test_it_raises_what_was_raised_there(pair: tuple[Node, Node]) -> None:
    one, two = pair
    with pytest.raises(RemoteError, match=r"py:div/2 failed on two@127\.0\.0\.1") as error:
        await one.erpc_call(two.name, "py", "div", [1, 0])
    assert error.value.reason == (Atom("ZeroDivisionError"), b"division by zero")
    assert error.value.stack[-1] == (Atom("py"), Atom("div"), 2, [])
    assert error.value.class_ == "error"
    with pytest.raises(RemoteExit, match="bye") as exit_:
        await one.erpc_call(two.name, "py", "raise_it", [b"exit"])
    assert (exit_.value.reason, exit_.value.signal, exit_.value.class_) == (Atom("bye"), False, "exit")
    with pytest.raises(RemoteThrow, match="threw ball") as thrown:
        await one.erpc_call(two.name, "py", "raise_it", [b"throw"])
    assert (thrown.value.reason, thrown.value.stack, thrown.value.class_) == (Atom("ball"), [], "throw")
    with pytest.raises(RemoteError) as undef:
        await one.erpc_call(two.name, "os", "getpid", [])
    assert (undef.value.reason, undef.value.stack) == (Atom("undef"), [(Atom("os"), Atom("getpid"), [], [])])


async def test_a_process_that_is_ended_there(pair: tuple[Node, Node]) -> None:
    one, two = pair
    with pytest.raises(RemoteExit, match="was ended: killed") as error:
        await one.erpc_call(two.name, "py", "killed", [])
    assert (error.value.reason, error.value.signal) == (Atom("killed"), True)


@pytest.mark.parametrize("reason", [Atom("odd"), (Atom("odd"), Atom("return"), 1), (), []])
async def test_an_exit_reason_of_another_form_is_no_result(pair: tuple[Node, Node], reason: Any) -> None:
    one, two = pair

    def odd(*_: object) -> None:
        raise Exit(reason)

    two.expose("erpc", {"execute_call": odd})
    with pytest.raises(RemoteExit) as error:
        await one.erpc_call(two.name, "py", "add", [1, 2])
    assert (error.value.reason, error.value.signal) == (reason, True)


async def test_a_timeout_leaves_nothing_behind(pair: tuple[Node, Node]) -> None:
    one, two = pair
    with pytest.raises(CallTimeout, match=r"py:stuck/0 did not return within 0\.01 s") as error:
        await one.erpc_call(two.name, "py", "stuck", [], timeout=0.01)
    assert error.value.reason == (Atom("erpc"), Atom("timeout"))
    with trio.move_on_after(0.01) as scope:
        await one.erpc_call(two.name, "py", "stuck", [])
    assert scope.cancelled_caught


async def test_a_node_that_is_not_there(one_node: Node) -> None:
    with pytest.raises(NodeDownError, match=r"py:add/2 cannot be called: .* nobody@127\.0\.0\.1") as error:
        await one_node.erpc_call("nobody@127.0.0.1", "py", "add", [1, 2])
    assert error.value.reason == (Atom("erpc"), Atom("noconnection"))
    assert isinstance(error.value.__cause__, ConnectError)


async def test_a_connection_that_is_lost(pair: tuple[Node, Node]) -> None:
    one, two = pair
    request = one.erpc_send_request(two.name, "py", "stuck", [])
    assert not await request.wait_response(0.01)
    await two.disconnect(one.name)
    with pytest.raises(NodeDownError):
        await request.receive_response()


async def test_arguments_that_are_no_terms(pair: tuple[Node, Node]) -> None:
    one, two = pair
    with pytest.raises(EncodeError):
        await one.erpc_call(two.name, "py", "add", [{1}, 2])
    with pytest.raises(EncodeError):
        one.erpc_cast(two.name, "py", "add", [math.nan, 2])
    with pytest.raises(ErpcError, match="list of terms") as error:
        await one.erpc_call(two.name, "py", "add", "ab")
    assert error.value.reason == Atom("badarg")


async def test_send_request(pair: tuple[Node, Node]) -> None:
    one, two = pair
    slow, quick = (one.erpc_send_request(two.name, "py", "later", [delay]) for delay in (0.1, 0))
    assert quick.called == "py:later/1"
    assert await quick.receive_response(20.0) == 0
    assert await slow.wait_response(20.0) is True
    assert await slow.receive_response() == 0.1
    given_up = one.erpc_send_request(two.name, "py", "stuck", [])
    assert await given_up.wait_response(0) is False
    given_up.abandon()
    with pytest.raises(CallTimeout):
        await given_up.receive_response()


async def test_what_the_function_sends_its_caller_is_no_result(pair: tuple[Node, Node]) -> None:
    one, two = pair

    async def send_strange_things(process: Process) -> int:
        _, caller = process.watchers.items()[0]
        assert isinstance(caller, Pid)
        ref = process.make_ref()
        messages: list[Any] = [1, (), (1, 2, 3, 4), (Atom("DOWN"), ref, Atom("process"), process.pid, Atom("normal"))]
        for message in messages:
            process.send(caller, message)
        return 7

    two.expose("here", {"strange": send_strange_things}, with_process=True)
    assert await one.erpc_call(two.name, "here", "strange", []) == 7


async def test_multicall(pair: tuple[Node, Node]) -> None:
    one, two = pair
    nodes: list[Atom | str] = [two.name, "nobody@127.0.0.1", one.name]
    there, nobody, here = await one.erpc_multicall(nodes, "py", "add", [1, 2])
    assert there == 3
    assert isinstance(nobody, NodeDownError)
    assert isinstance(here, RemoteError)
    (late,) = await one.erpc_multicall([two.name], "py", "stuck", [], timeout=0.01)
    assert isinstance(late, CallTimeout)
    (thrown,) = await one.erpc_multicall([two.name], "py", "raise_it", [b"throw"])
    assert isinstance(thrown, RemoteException)
    assert await one.erpc_multicall([], "py", "add", []) == []


async def test_casts(pair: tuple[Node, Node]) -> None:
    one, two = pair
    done: list[int] = []
    both = trio.Event()

    def note(value: int) -> None:
        done.append(value)
        if len(done) == 2:
            both.set()

    two.expose("here", {"done": note})
    one.erpc_cast(two.name, "here", "done", [1])
    one.erpc_cast(two.name, "here", "nothing", [])
    one.erpc_multicast([two.name, "nobody@127.0.0.1"], "here", "done", [2])
    with trio.fail_after(30):
        await both.wait()
    assert sorted(done) == [1, 2]


def test_throw_is_no_error() -> None:
    assert Throw(None).value is None
    assert not isinstance(Throw(1), RemoteException)
