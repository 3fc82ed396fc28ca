from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from structlog.testing import capture_logs

from erlang_interop import Atom, Node, Pid
from erlang_interop.testing.cluster import open_cluster, settled
from zenmon_node import EventHandler
from zenmon_node.pacing import SLICE
from zenmon_node.syn.handler import Events

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SCOPE, NORMAL = Atom("users"), Atom("normal")
PID = Pid(Atom("a@test"), 1, 0, 1)


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    async with open_cluster("a@test") as (node,):
        yield node


class Told(EventHandler):
    """Keeps what it is told, as it comes; who joins or leaves, when it is let go on."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.gate = trio.Event()

    def on_process_registered(self, *arguments: Any) -> None:
        self.told.append(("registered", *arguments))

    def on_registry_process_updated(self, *arguments: Any) -> None:
        self.told.append(("updated", *arguments))

    def on_registry_process_updated_from(self, *arguments: Any) -> None:
        self.told.append(("updated from", *arguments))

    async def on_process_joined(self, *arguments: Any) -> None:
        self.told.append(("joins", *arguments))
        await self.gate.wait()
        self.told.append(("joined", *arguments))

    async def on_group_process_updated(self, *arguments: Any) -> None:
        raise ValueError("not this one")

    def on_process_unregistered(self, *arguments: Any) -> None:
        raise ValueError(f"nor this: {arguments[1]}")


def about(key: object) -> tuple[Any, ...]:
    return SCOPE, key, PID, 1, NORMAL


async def test_ordinary_methods_are_called_at_once_and_in_both_arities(node: Node) -> None:
    handler = Told()
    events = Events(node, handler)
    events.tell("on_process_registered", about("x"))
    events.tell("on_registry_process_updated", (SCOPE, "x", PID, 1, 2, NORMAL))
    assert handler.told == [
        ("registered", SCOPE, "x", PID, 1, NORMAL),
        ("updated", SCOPE, "x", PID, 2, NORMAL),
        ("updated from", SCOPE, "x", PID, 1, 2, NORMAL),
    ]
    await events.drain()


async def test_what_is_awaited_keeps_the_order_and_holds_up_nobody_else(node: Node) -> None:
    handler = Told()
    events = Events(node, handler)
    events.tell("on_process_joined", about("one"))
    events.tell("on_process_registered", about("two"))
    events.tell("on_process_joined", about("three"))
    await settled()
    assert [told[::2] for told in handler.told] == [("joins", "one", 1)]
    handler.gate.set()
    await events.drain()
    assert [(told[0], told[2]) for told in handler.told] == [
        ("joins", "one"),
        ("joined", "one"),
        ("registered", "two"),
        ("joins", "three"),
        ("joined", "three"),
    ]
    events.tell("on_process_registered", about("four"))
    assert handler.told[-1][2] == "four"


async def test_what_raises_is_logged_once_and_concerns_nobody(node: Node) -> None:
    handler = Told()
    handler.gate.set()
    events = Events(node, handler)
    with capture_logs() as logs:
        for key in ("x", "y"):
            events.tell("on_process_unregistered", about(key))
            events.tell("on_group_process_updated", (SCOPE, key, PID, 1, 2, NORMAL))
            events.tell("on_process_joined", about(key))
        await events.drain()
    assert [(log["callback"], str(log["exc_info"])) for log in logs] == [
        ("on_process_unregistered", "nor this: x"),
        ("on_group_process_updated", "not this one"),
    ]
    assert "'x'" in logs[0]["arguments"]
    assert [told[0] for told in handler.told] == ["joins", "joined"] * 2


async def test_nobody_is_told_where_nobody_listens(node: Node) -> None:
    for handler in (None, EventHandler()):
        events = Events(node, handler)
        events.tell("on_process_joined", about("x"))
        await events.drain()
        assert events.resolver is None


async def test_any_object_with_some_of_the_methods_will_do(node: Node) -> None:
    class Resolver:
        def resolve_registry_conflict(self, *arguments: object) -> object:
            return arguments

    handler: Any = Resolver()
    events = Events(node, handler)
    assert events.resolver is not None
    assert events.resolver(SCOPE, "x", 1, 2) == (SCOPE, "x", 1, 2)  # type: ignore[arg-type]
    events.tell("on_process_joined", about("x"))


async def test_every_method_may_be_left_as_it_is() -> None:
    """Who calls up from an overridden one finds something to call."""
    handler = EventHandler()
    assert handler.on_process_registered(*about("x")) is None
    assert handler.on_registry_process_updated_from(SCOPE, "x", PID, 1, 2, NORMAL) is None


async def test_others_have_their_turn_between_thousands_of_events(node: Node) -> None:
    handler = Told()
    events = Events(node, handler)
    events.tell("on_process_joined", about("x"))
    for number in range(3 * SLICE):
        events.tell("on_process_registered", about(number))
    turns: list[int] = []

    async def another() -> None:
        while len(handler.told) < 3 * SLICE:
            turns.append(len(handler.told))
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(another)
        handler.gate.set()
        await events.drain()
    assert any(SLICE // 2 < told < 3 * SLICE for told in turns)


async def test_what_waits_is_dropped_with_the_node() -> None:
    handler = Told()
    async with open_cluster("a@test") as (node,):
        events = Events(node, handler)
        events.tell("on_process_joined", about("x"))
        events.tell("on_process_registered", about("y"))
        await settled()
    await events.drain()
    assert [told[0] for told in handler.told] == ["joins"]
