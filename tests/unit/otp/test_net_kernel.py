from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from erlang_interop import Atom, ImproperList, Node

if TYPE_CHECKING:
    from erlang_interop import Term

GEN_CALL = Atom("$gen_call")


async def test_it_is_there_and_says_yes(two_nodes: tuple[Node, Node]) -> None:
    one, two = two_nodes
    assert two.registered() == [Atom(name) for name in ("kernel_sup", "user", "net_kernel", "rex")]
    assert await one.call(("net_kernel", two.name), (Atom("is_auth"), one.name)) == Atom("yes")


async def test_a_caller_with_a_plain_tag_is_answered(one_node: Node) -> None:
    """As libei and JInterface ask: {Pid, Ref}."""
    async with one_node.open_process() as process:
        ref = process.make_ref()
        process.send("net_kernel", (GEN_CALL, (process.pid, ref), (Atom("is_auth"), Atom("x@y"))))
        assert process.receive_nowait() == (ref, Atom("yes"))


@pytest.mark.parametrize(
    "request_", [Atom("what"), (Atom("connect"), Atom("normal"), Atom("a@b")), (1, 2, 3), [], None]
)
async def test_an_unknown_call_is_answered_too(one_node: Node, request_: Term) -> None:
    assert await one_node.call("net_kernel", request_) == (Atom("error"), Atom("unsupported"))


async def test_nothing_that_is_sent_to_it_ends_it(two_nodes: tuple[Node, Node]) -> None:
    one, two = two_nodes
    kernel = ("net_kernel", two.name)
    pid = two.whereis("net_kernel")
    dead_end = ImproperList([Atom("alias")], one.make_ref())
    async with one.open_process() as process:
        for message in [
            1,
            (),
            (GEN_CALL,),
            (GEN_CALL, 1, (Atom("is_auth"), 1)),
            (GEN_CALL, (1, 2), (Atom("is_auth"), 1)),
            (GEN_CALL, (process.pid, dead_end), (Atom("is_auth"), 1)),
            (GEN_CALL, (process.pid,), 1),
            (Atom("$gen_cast"), 1),
            [GEN_CALL, 1, 2],
        ]:
            one.send(kernel, message)
    assert await one.ping(two.name)
    assert two.whereis("net_kernel") == pid
