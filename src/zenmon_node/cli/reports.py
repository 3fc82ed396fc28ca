"""How ``zenmon-node monitor`` tells what happens where there is no terminal: a line for each, for people or programs.

Lines go to standard output, many at a time and from a thread: while nobody reads them, the node must go on answering
its peers, or they would take it for dead, and it them.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

import trio

from erlang_interop.etf.text import format_term

from .watching import Via

if TYPE_CHECKING:
    from collections.abc import Callable

    from erlang_interop import Term

    from ..local.api import CachedCompatibility
    from .targets import Target
    from .watching import Row, Watching


class Report(Protocol):
    """One way to tell. Each method is called after the event was put into the :class:`Watching`."""

    def monitoring(self) -> None:
        """All targets are being monitored."""

    def down(self, target: Target, row: Row, found: Term, reason: Term) -> None:
        """A target has gone; ``found`` is how Erlang names it."""

    def nodedown(self, row: Row, reason: str) -> None:
        """A node is not connected any more; its targets go one by one."""

    def compatibility(self, row: Row, verdict: CachedCompatibility) -> None:
        """Something else is known of a node's ZenMonitor than before."""

    async def flush(self) -> None:
        """Nothing more happens at this moment."""

    async def show(self) -> None:
        """Runs beside all this until it is cancelled, if there is something to do."""

    async def ended(self, now: float) -> None:
        """All have gone, or the user has had enough."""


class Lines:
    """Lines for standard output that wait to be written."""

    def __init__(self) -> None:
        self._waiting: list[str] = []

    def add(self, line: str) -> None:
        """One more; without its end."""
        self._waiting.append(f"{line}\n")

    async def write(self) -> None:
        """Write those that wait."""
        if self._waiting:
            data = "".join(self._waiting).encode(sys.stdout.encoding, "backslashreplace")
            self._waiting.clear()
            # Left alone when cancelled, since it may be stuck for ever.
            await trio.to_thread.run_sync(_write, sys.stdout.fileno(), data, abandon_on_cancel=True)


def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


class PlainReport:
    """One line for each target that goes; everything else goes to standard error."""

    def __init__(self, watching: Watching) -> None:
        self._watching = watching
        self._out = Lines()

    def monitoring(self) -> None:
        """Say of each node how its targets are monitored."""
        for row in self._watching.rows.values():
            way = "through ZenMonitor" if row.via is Via.ZENMON else "natively, since it does not speak ZenMonitor"
            _remark(f"monitoring {row.targets:,} processes of {row.node} {way}")
        _remark("the interrupt key ends it")

    def down(self, target: Target, row: Row, found: Term, reason: Term) -> None:
        """One line."""
        del row, found
        self._out.add(f"{timestamp()} DOWN {target.text} {format_term(reason)}")

    def nodedown(self, row: Row, reason: str) -> None:
        """A remark."""
        _remark(f"{timestamp()} nodedown {row.node} {reason}")

    def compatibility(self, row: Row, verdict: CachedCompatibility) -> None:
        """A remark."""
        _remark(f"{timestamp()} ZenMonitor of {row.node} is {verdict.status.value}")

    async def flush(self) -> None:
        """Write what there is."""
        await self._out.write()

    async def show(self) -> None:
        """Nothing beside."""

    async def ended(self, now: float) -> None:
        """The summary."""
        await self._out.write()
        _remark(self._watching.summary(now))


class JsonReport:
    """One JSON object a line for everything, on standard output alone.

    Args:
        watching: What is known.
        refresh: Called before the summary: brings the numbers of batches up to date.
    """

    def __init__(self, watching: Watching, refresh: Callable[[], None]) -> None:
        self._watching = watching
        self._refresh = refresh
        self._out = Lines()

    def monitoring(self) -> None:
        """One object for each node."""
        for row in self._watching.rows.values():
            self._add("monitoring", node=row.node, via=row.via.value, targets=row.targets)

    def down(self, target: Target, row: Row, found: Term, reason: Term) -> None:
        """One object."""
        self._add(
            "DOWN",
            target=target.text,
            node=target.node,
            via=row.via.value,
            object=format_term(found),
            reason=format_term(reason),
        )

    def nodedown(self, row: Row, reason: str) -> None:
        """One object."""
        self._add("nodedown", node=row.node, reason=reason)

    def compatibility(self, row: Row, verdict: CachedCompatibility) -> None:
        """One object."""
        self._add("compatibility", node=row.node, status=verdict.status.value, attempts=verdict.attempts)

    async def flush(self) -> None:
        """Write what there is."""
        await self._out.write()

    async def show(self) -> None:
        """Nothing beside."""

    async def ended(self, now: float) -> None:
        """One object with the sums, and what came of each node."""
        self._refresh()
        watching = self._watching
        nodes = {
            row.node: {
                "via": row.via.value,
                "state": row.state,
                "targets": row.targets,
                "gone": row.gone,
                "batches_sent": row.batches_sent,
                "batches_received": row.batches_received,
            }
            for row in watching.rows.values()
        }
        seconds = round(now - watching.started, 3)
        self._add("summary", targets=watching.targets, gone=watching.gone, seconds=seconds, nodes=nodes)
        await self._out.write()

    def _add(self, event: str, **fields: object) -> None:
        self._out.add(json.dumps({"time": timestamp(), "event": event, **fields}, ensure_ascii=False))


def timestamp() -> str:
    """Now, in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _remark(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
