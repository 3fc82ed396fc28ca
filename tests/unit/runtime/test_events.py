import pytest

from erlang_interop.runtime.events import NodeDown, NodeEvent, NodeEvents, NodeUp
from erlang_interop.terms import Atom

A, B, CLOSED = Atom("a@h"), Atom("b@h"), Atom("connection_closed")


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
