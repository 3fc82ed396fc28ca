"""``rpc``, from one node of ours to another; how both sides do with a BEAM is in tests/interop/test_rpc*.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from erlang_interop import (
    Atom,
    BadRpc,
    CallTimeout,
    ConnectError,
    Exit,
    GenServer,
    Node,
    NodeDownError,
    Throw,
)
from tests.unit.otp.rpc_peer import exposed_here, idle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from erlang_interop import From, Term

EXIT = Atom("EXIT")


@pytest.fixture
async def pair(two_nodes: tuple[Node, Node]) -> AsyncIterator[tuple[Node, Node]]:
    one, two = two_nodes
    exposed_here(two)
    await one.connect(two.name)
    yield one, two
    for node in two_nodes:
        await idle(node)


@pytest.mark.parametrize("call", ["rpc", "rpc_block_call"])
async def test_values_and_failures(pair: tuple[Node, Node], call: str) -> None:
    one, two = pair
    rpc: Any = getattr(one, call)
    assert await rpc("two@127.0.0.1", "py", "add", (1, 2)) == 3
    assert await rpc(two.name, "py", "later", [0.01], timeout=None) == 0.01
    assert await rpc(two.name, "py", "raise_it", [b"throw"]) == Atom("ball")
    with pytest.raises(BadRpc, match=r"py:nothing/1 failed on two@127\.0\.0\.1: \{'EXIT',\{undef") as error:
        await rpc(two.name, Atom("py"), Atom("nothing"), [1])
    assert error.value.reason == (EXIT, (Atom("undef"), [(Atom("py"), Atom("nothing"), [1], [])]))
    with pytest.raises(BadRpc) as error:
        await rpc(two.name, "py", "raise_it", [b"exit"])
    assert error.value.reason == (EXIT, Atom("bye"))
    with pytest.raises(BadRpc) as error:
        await rpc(two.name, "py", "div", [1, 0])
    (_, (reason, stack)) = error.value.reason
    assert reason == (Atom("ZeroDivisionError"), b"division by zero")
    assert stack[-1] == (Atom("py"), Atom("div"), 2, [])
    with pytest.raises(BadRpc) as error:
        await rpc(two.name, "py", "killed", [])
    assert error.value.reason == (EXIT, Atom("killed"))
    with pytest.raises(CallTimeout, match=r"within 0\.01 s") as late:
        await rpc(two.name, "py", "stuck", [], timeout=0.01)
    assert late.value.reason == Atom("timeout")


@pytest.mark.parametrize("thrown", [False, True])
async def test_what_looks_like_an_exit_is_one(pair: tuple[Node, Node], thrown: bool) -> None:
    one, two = pair
    value = (EXIT, Atom("why"))

    def give() -> Term:
        if thrown:
            raise Throw(value)
        return value

    two.expose("py", {"give": give})
    with pytest.raises(BadRpc) as error:
        await one.rpc(two.name, "py", "give", [])
    assert error.value.reason == value
    assert await one.rpc(two.name, "py", "later", [(EXIT, 1, 2)]) == (EXIT, 1, 2)


async def test_a_node_that_is_not_there(one_node: Node) -> None:
    for call in (one_node.rpc, one_node.rpc_block_call):
        with pytest.raises(NodeDownError) as error:
            await call("nobody@127.0.0.1", "py", "add", [1, 2])
        assert error.value.reason == (Atom("nodedown"), Atom("nobody@127.0.0.1"))
        assert isinstance(error.value.__cause__, ConnectError)


class OldRex(GenServer):
    """``rex`` of a node that knows no ``erpc``."""

    def handle_call(self, request: Term, from_: From) -> Term:
        match request:
            case (Atom("call"), Atom("py"), Atom("add"), [one, other], _):
                return one + other
        raise Exit(Atom("oops"))


async def test_a_node_without_spawn_requests_is_asked_by_its_rex(two_nodes: tuple[Node, Node]) -> None:
    one, two = two_nodes
    await one.connect(two.name)
    one._router.peers[two.name].can_spawn = False  # as if it had not agreed to them
    two.unregister("rex")
    with pytest.raises(BadRpc, match=r"rex on two@127\.0\.0\.1 is not registered there") as error:
        await one.rpc(two.name, "py", "add", [1, 2], timeout=7)
    request = (Atom("call"), Atom("py"), Atom("add"), [1, 2], one.default_group_leader)
    call = (Atom("gen_server"), Atom("call"), [(Atom("rex"), two.name), request, 7000])
    assert error.value.reason == (EXIT, (Atom("noproc"), call))
    await OldRex.start(two, name="rex")
    assert await one.rpc(two.name, "py", "add", [1, 2]) == 3
    nodes: list[Atom | str] = [two.name, "nobody@127.0.0.1", one.name]
    results, bad = await one.rpc_multicall(nodes, "py", "add", [1, 2], timeout=None)
    assert (results[0], bad) == (3, [Atom("nobody@127.0.0.1")])
    assert isinstance(results[1], BadRpc)
    with pytest.raises(BadRpc, match=r"rex on two@127\.0\.0\.1 ended before it answered") as error:
        await one.rpc(two.name, "py", "what", [], timeout=None)
    (_, (reason, (*_, arguments))) = error.value.reason
    assert (reason, arguments[2]) == (Atom("oops"), Atom("infinity"))


async def test_a_node_without_room_for_another_process(
    pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = pair
    with monkeypatch.context() as full:
        full.setattr(two._router.spawning, "_new_process", lambda: None)
        with pytest.raises(BadRpc, match=r"py:add/2 was not called on two@127\.0\.0\.1: system_limit") as error:
            await one.rpc(two.name, "py", "add", [1, 2])
    assert error.value.reason == (EXIT, Atom("system_limit"))


async def test_multicall(pair: tuple[Node, Node]) -> None:
    one, two = pair
    nobody = Atom("nobody@127.0.0.1")
    results, bad = await one.rpc_multicall([two.name, nobody, "one@127.0.0.1"], "py", "add", [1, 2])
    assert (results[0], bad) == (3, [nobody])
    assert isinstance(results[1], BadRpc)
    assert results[1].reason == (EXIT, (Atom("undef"), [(Atom("py"), Atom("add"), [1, 2], [])]))
    assert await one.rpc_multicall([two.name], "py", "raise_it", [b"throw"]) == ([Atom("ball")], [])
    assert await one.rpc_multicall([two.name], "py", "stuck", [], timeout=0.01) == ([], [two.name])


async def test_cast(pair: tuple[Node, Node]) -> None:
    one, two = pair
    done = trio.Event()
    two.expose("here", {"done": done.set})
    one.rpc_cast(two.name, "here", "done", [])
    with trio.fail_after(30):
        await done.wait()
