"""nodeup and nodedown: what ``net_kernel:monitor_nodes/2`` tells, as events.

Source: kernel manual, net_kernel(3), monitor_nodes/2. A nodeup comes before the first signal of its connection, a
nodedown after the last, and after the exits and DOWNs that the loss causes.
"""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ..terms import Atom, Term

NodeKind: TypeAlias = Literal["visible", "hidden"]


@dataclass(frozen=True, slots=True)
class NodeUp:
    """A connection came up."""

    name: Atom
    type: NodeKind


@dataclass(frozen=True, slots=True)
class NodeDown:
    """A connection was lost."""

    name: Atom
    type: NodeKind
    reason: Term
    """net_kernel's words: ``connection_closed``, ``disconnect``, ``net_tick_timeout``, ..."""


NodeEvent: TypeAlias = NodeUp | NodeDown


class NodeEvents:
    """The subscribers of one node."""

    def __init__(self) -> None:
        self._callbacks: dict[object, Callable[[NodeEvent], None]] = {}

    def watch(self, callback: Callable[[NodeEvent], None]) -> Callable[[], None]:
        """Call ``callback(event)`` synchronously at each event; the result ends that."""
        key = object()
        self._callbacks[key] = callback

        def unwatch() -> None:
            self._callbacks.pop(key, None)

        return unwatch

    def fire(self, event: NodeEvent) -> None:
        """Tell everybody."""
        for callback in list(self._callbacks.values()):
            callback(event)

    @asynccontextmanager
    async def subscribe(
        self, node_type: Literal["visible", "hidden", "all"] = "all"
    ) -> AsyncIterator[AsyncIterator[NodeEvent]]:
        """The events from now on, as an async iterator; none is lost while the block runs slowly."""
        if node_type not in ("visible", "hidden", "all"):
            raise ValueError(f"node_type is 'visible', 'hidden' or 'all', not {node_type!r}")
        send, receive = trio.open_memory_channel[NodeEvent](math.inf)

        def put(event: NodeEvent) -> None:
            if node_type in ("all", event.type):
                send.send_nowait(event)

        unwatch = self.watch(put)
        try:
            async with receive:
                yield receive
        finally:
            unwatch()
