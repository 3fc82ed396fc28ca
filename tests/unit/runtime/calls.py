"""A node of ours between two peers by name, and tasks that wait for connections: for tests of handshakes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from erlang_interop.errors import ConnectError
from erlang_interop.runtime import EpmdAddress, Node
from erlang_interop.runtime.epmd import look_up
from erlang_interop.terms import Atom
from tests.handshaking import Raw

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Dial = Callable[[int], Awaitable[Raw]]

ME = Atom("m@127.0.0.1")
SMALLER, GREATER = Atom("a@127.0.0.1"), Atom("z@127.0.0.1")
COOKIE = "open sesame"


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
    """Wait for it; on a clock that stands still as well."""
    with trio.fail_after(30):
        while not condition():
            await trio.lowlevel.checkpoint()


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


@asynccontextmanager
async def connected(epmd: EpmdAddress, node: Node, dial: Dial, peer: Atom = SMALLER) -> AsyncIterator[Raw]:
    raw = await dial(await port_of(epmd, node))
    assert await raw.shake_hands(peer.name, COOKIE) == "ok"
    await until(lambda: states(node) == [(peer.name, "up")])
    yield raw
    await raw.close()
