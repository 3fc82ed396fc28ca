"""The timers of servers that sweep. What the servers do when they sweep is shown in test_app.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from erlang_interop import Node, open_node
from zenmon_node.counters import Counters
from zenmon_node.sweeping import SweepingServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from erlang_interop import Term
    from erlang_interop.runtime.timers import Timer


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    async with open_node("here@127.0.0.1", cookie="secret", epmd=False) as opened:
        yield opened


class Server(SweepingServer):
    """Wants to sweep at the time that a message names, and notes when it has."""

    def __init__(self) -> None:
        super().__init__(Counters())
        self.swept: list[float] = []
        self.done = trio.Event()

    def receive(self, message: Term) -> None:
        self.wake_at(message)

    def tick(self) -> None:
        self.swept.append(self.now())
        self.done.set()


def count_timers(node: Node, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The delays of the timers that ``node`` sets from now on."""
    delays: list[float] = []
    call_later = node.call_later

    def noted(delay: float, callback: Callable[[], object]) -> Timer:
        delays.append(delay)
        return call_later(delay, callback)

    monkeypatch.setattr(node, "call_later", noted)
    return delays


async def test_many_messages_with_the_same_due_set_one_timer(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    pid = node.start_inline(server)
    delays = count_timers(node, monkeypatch)
    due = trio.current_time() + 0.05
    for later in (0.0, 0.0, 0.01, 0.0):
        node.send(pid, due + later)
    assert len(delays) == 1
    await server.done.wait()
    assert server.swept[0] >= due


async def test_an_earlier_due_replaces_a_later_one(node: Node) -> None:
    server = Server()
    pid = node.start_inline(server)
    start = trio.current_time()
    node.send(pid, start + 3600.0)
    node.send(pid, start + 0.01)
    await server.done.wait()
    assert len(server.swept) == 1
