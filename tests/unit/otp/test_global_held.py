"""What is logged of names that BEAMs have registered; with BEAMs in tests/interop/test_global_lost.py."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from erlang_interop import Atom
from erlang_interop.otp._global_calls import Holder
from erlang_interop.otp._global_held import Held
from erlang_interop.testing.cluster import Network, open_cluster

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

    from erlang_interop import Node, Pid

NAME, OTHER = Atom("name"), (1, [b"other"])


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[Node, Held]]:
    """``a@test`` and what it remembers; ``b@test`` is visible and connected, plays the BEAM, and stops last."""
    async with open_cluster("b@test", "a@test", visible=True) as (b, a):
        await a.connect(b.name)
        held = Held()
        a.start_inline(held)
        yield a, held


def new_process(node: Node) -> Pid:
    return node.start_inline(Holder())


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.getMessage() for record in caplog.records if record.name == "erlang_interop.global"]
    caplog.clear()
    return found


async def test_a_beam_that_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    lost = "b@test is lost, and has dropped these global names of this node, until they are registered through it again"
    async with opened() as (node, held):
        pids = [new_process(node) for _ in range(3)]
        held.hold(NAME, pids[0])
        held.hold(NAME, pids[1])  # registered again
        held.hold(OTHER, pids[0])
        held.hold(3, pids[2])
        held.hold(4, pids[2])
        held.release(3)
        held.release(3)
        await node.disconnect("b@test")
        assert lines(caplog) == [f'{lost}: [name,{{1,[<<"other">>]}},4]']
        await node.connect("b@test")
        node.exit(pids[0], Atom("kill"))  # the name is another one's by now
        node.exit(pids[2], Atom("kill"))
        await node.disconnect("b@test")
        assert lines(caplog) == [f"{lost}: [name]"]
        held.release(NAME)
        await node.connect("b@test")
        await node.disconnect("b@test")
        assert lines(caplog) == []


async def test_a_process_that_goes_with_the_beam(caplog: pytest.LogCaptureFixture) -> None:
    async with opened() as (node, held):
        pid, dead = new_process(node), new_process(node)
        node.exit(dead, Atom("kill"))
        held.hold(OTHER, dead)
        held.hold(NAME, pid)
        node.exit(pid, Atom("noconnection"))
        assert lines(caplog) == [
            f"the global name name is free: {pid} has ended with `noconnection`, as a process does that traps no exits "
            f"when the BEAM is lost that has registered it"
        ]
        await node.disconnect("b@test")
        assert lines(caplog) == []


async def test_neither_strangers_nor_hidden_nodes_matter(caplog: pytest.LogCaptureFixture) -> None:
    async with opened() as (node, held):
        held.hold(NAME, new_process(node))
        for message in (
            1,
            (),
            (Atom("DOWN"), node.make_ref(), Atom("process"), held.process.pid, Atom("noconnection")),
        ):
            node.send(held.process.pid, message)
        await node.disconnect("b@test")
        assert len(lines(caplog)) == 1
    network = Network()
    async with (
        open_cluster("hidden@test", network=network) as (hidden,),
        open_cluster("a@test", network=network, visible=True) as (node,),
    ):
        held = Held()
        node.start_inline(held)
        held.hold(NAME, new_process(node))
        await node.connect(hidden.name)
        await node.disconnect(hidden.name)
        assert lines(caplog) == []


async def test_a_node_that_stops_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with opened() as (node, held):
        held.hold(NAME, new_process(node))
    assert any("disconnected" in record.getMessage() for record in caplog.records)
    assert lines(caplog) == []
    held.release(NAME)
