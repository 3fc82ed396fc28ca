"""What ``zenmon-node run`` says in its log while it runs: nodes, what is known of them, and what waits too long.

Something waits at nearly every moment on a busy node; that is how batches come about. A queue is worth a line when it
holds more than its next sweep may take: then work comes in faster than the settings let it go, or a connection takes
nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import trio

from erlang_interop import NodeDown, NodeUp
from erlang_interop.etf.text import format_term

from .local.api import Cached
from .logs import get_logger
from .pacing import SLICE

if TYPE_CHECKING:
    from erlang_interop import NodeEvent
    from erlang_interop.terms import Atom

    from .app import ZenMonitor
    from .config import Settings
    from .local.api import CachedCompatibility
    from .status import Statistics

log = get_logger("zenmon_node")

#: Queue -> its length, and the most that one sweep takes from it.
QUEUES: Final[dict[str, tuple[Callable[[Statistics], int], Callable[[Settings], int]]]] = {
    "downs": (lambda now: now.waiting_downs, lambda settings: settings.demand_amount),
    "instructions": (lambda now: now.waiting_instructions, lambda settings: settings.connector_chunk_size),
    "certificates": (lambda now: now.waiting_certificates, lambda settings: settings.batcher_chunk_size),
    "cleanups": (lambda now: now.waiting_cleanups, lambda settings: SLICE),
    "remote_instructions": (lambda now: now.waiting_remote_instructions, lambda settings: SLICE),
}


def report_node(event: NodeEvent) -> None:
    """One line for each node that comes or goes."""
    match event:
        case NodeUp(name, type):
            log.info("node up", node=name.name, type=type)
        case NodeDown(name, type, reason):
            log.warning("node down", node=name.name, type=type, reason=format_term(reason))


class CompatibilityReport:
    """For ``watch_compatibility``: one line when a node turns out to speak ZenMonitor, not to, or is not connected.

    That it is asked again after a penalty, in vain, or that it has not been asked for long, is no news.
    """

    def __init__(self) -> None:
        self._said: dict[Atom, Cached] = {}

    def __call__(self, node: Atom, known: CachedCompatibility) -> None:
        """Something else is known of a node."""
        status = known.status
        if status in (Cached.MISS, Cached.EXPIRED) or self._said.get(node) is status:
            return
        if status is Cached.UNAVAILABLE:
            self._said.pop(node, None)
        else:
            self._said[node] = status
        say = log.warning if status is Cached.INCOMPATIBLE else log.info
        say("compatibility", node=node.name, status=status.value)


def backlog(zen: ZenMonitor) -> dict[str, int]:
    """The queues that hold more than their next sweep may take, and how much each holds."""
    now, settings = zen.statistics(), zen.settings
    lengths = {name: (length(now), most(settings)) for name, (length, most) in QUEUES.items()}
    return {name: length for name, (length, most) in lengths.items() if length > most}


async def report_queues(zen: ZenMonitor, interval: float) -> None:
    """Look at the queues every ``interval`` seconds; a line for a backlog, each time, and one when it is gone."""
    before = False
    while True:
        await trio.sleep(interval)
        waiting = backlog(zen)
        if waiting:
            log.info("waiting", **waiting)
        elif before:
            log.info("nothing waits any more")
        before = bool(waiting)
