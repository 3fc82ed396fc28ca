"""Opens the world of a soak test, and sees to it that nothing of ours is left when it has closed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from erlang_interop import EpmdAddress
from erlang_interop.otp.node import Node, run_node
from tests.interop.collectors import leftovers, until
from zenmon_node import Settings, open_zen_monitor

from .script import BEAMS, GHOST, NODES, OURS, VISIBLE
from .sides import CuttableTransport
from .world import NET_TICKTIME, PATIENCE_S, START, World

if TYPE_CHECKING:
    from erlang_interop.testing.beam import Beam, Epmd


@asynccontextmanager
async def open_world(
    prefix: str, cookie: str, epmd: Epmd, start_beam: Callable[[str], Awaitable[Beam]]
) -> AsyncIterator[World]:
    """The nodes, not connected yet. When the block ends well, ours must be empty when their ZenMonitor has closed.

    Args:
        prefix: What the names of the nodes begin with.
        start_beam: Starts a BEAM of that full name, with that ``NET_TICKTIME``.
    """
    names = {key: f"{prefix}_{key}@127.0.0.1" for key in (*NODES, GHOST)}
    world = World(names, start_beam)
    async with AsyncExitStack() as nodes:
        async with AsyncExitStack() as monitors:
            for key in OURS:
                transport = CuttableTransport()
                node = Node(
                    names[key],
                    cookie,
                    visible=key == VISIBLE,
                    net_ticktime=NET_TICKTIME,
                    epmd_address=EpmdAddress(port=epmd.port),
                    transport=transport,
                )
                await nodes.enter_async_context(run_node(node))
                zen = await monitors.enter_async_context(open_zen_monitor(node, Settings(**START)))
                await world.add_ours(key, node, transport, zen)
            for key in BEAMS:
                await world.add_beam(key)
            yield world
        for side in world.ours.values():
            await until(partial(_is_clear, side.node), PATIENCE_S)


def _is_clear(node: Node) -> bool:
    return not leftovers(node)
