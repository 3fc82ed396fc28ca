"""``zenmon-node monitor``: watch any number of processes on any number of nodes until all of them have gone.

Where a node speaks ZenMonitor its processes are monitored through that, elsewhere each by a monitor of its own. All
that happens arrives in the mailbox of one process, in order: DOWNs, nodes that are lost, news of their ZenMonitors, and
the signal that ends it all. What is told of it is in ``reports.py`` and ``live.py``.
"""

from __future__ import annotations

import signal
import sys
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio
from rich.console import Console

from erlang_interop import Atom, NodeDown
from erlang_interop.etf.text import format_term

from ..app import open_zen_monitor
from ..local.api import Compatibility
from ..pacing import SLICE
from .failures import ExitStatus
from .joining import joined
from .live import LiveReport
from .reports import JsonReport, PlainReport
from .watching import Via, Watching

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from erlang_interop import Node, NodeEvent, Process, Reference, Term

    from ..app import ZenMonitor
    from ..config import Settings
    from ..local.api import CachedCompatibility
    from .joining import Joining
    from .reports import Report
    from .targets import Target

#: Seconds that what is still to be written has after a signal. A reader that reads nothing would keep us for ever.
GRACE: Final = 2.0

_STATUS: Final = {signal.SIGINT: ExitStatus.INTERRUPTED, signal.SIGTERM: ExitStatus.TERMINATED}


@dataclass(frozen=True, slots=True)
class _Found:
    """Something else is known of a node's ZenMonitor than before."""

    node: Atom
    verdict: CachedCompatibility


@dataclass(frozen=True, slots=True)
class _Signal:
    """The user has had enough."""


async def monitor(targets: Sequence[Target], joining: Joining, settings: Settings, *, as_json: bool) -> ExitStatus:
    """Tell of each target that goes, once; return when all have, or after a signal.

    Args:
        targets: What to monitor. What is given twice counts once.
        joining: How to join the cluster.
        settings: ZenMonitor's: the size and pace of batches, and the pace at which DOWNs are delivered.
        as_json: Write JSON objects.

    Raises:
        ConnectError: a node cannot be reached at the start; the message says why.
    """
    targets = list(dict.fromkeys(targets))
    counts = Counter(target.node for target in targets)
    async with (
        joined(joining, counts) as node,
        open_zen_monitor(node, settings) as zen,
        node.open_process() as process,
    ):
        ways = await _ways(zen, counts)
        watching = Watching(trio.current_time())
        for peer, count in counts.items():
            watching.add(peer, ways[peer], count)
        report = _report(watching, zen, as_json=as_json)
        return await _Monitoring(node, zen, process, watching, report).run(targets)


async def _ways(zen: ZenMonitor, nodes: Iterable[str]) -> dict[str, Via]:
    """Ask all nodes at once whether they speak ZenMonitor."""
    ways: dict[str, Via] = {}

    async def ask(node: str) -> None:
        compatible = await zen.connect(node) is Compatibility.COMPATIBLE
        ways[node] = Via.ZENMON if compatible else Via.NATIVE

    async with trio.open_nursery() as nursery:
        for node in nodes:
            nursery.start_soon(ask, node)
    return ways


def _report(watching: Watching, zen: ZenMonitor, *, as_json: bool) -> Report:
    def refresh() -> None:
        watching.update(zen.remotes())

    if as_json:
        return JsonReport(watching, refresh)
    console = Console()
    if sys.stdout.isatty() and not console.is_dumb_terminal:
        return LiveReport(watching, refresh, console)
    return PlainReport(watching)


class _Monitoring:
    """One run: its mailbox, and the monitors that have not fired."""

    def __init__(self, node: Node, zen: ZenMonitor, process: Process, watching: Watching, report: Report) -> None:
        self._node = node
        self._zen = zen
        self._process = process
        self._watching = watching
        self._report = report
        self._targets: dict[Reference, Target] = {}
        self._status = ExitStatus.DONE

    async def run(self, targets: Iterable[Target]) -> ExitStatus:
        self._node.watch_nodes(self._note)
        self._zen.watch_compatibility(lambda node, verdict: self._note(_Found(node, verdict)))
        with trio.open_signal_receiver(*_STATUS) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._heed, signals, nursery.cancel_scope)
                nursery.start_soon(self._report.show)
                await self._monitor_all(targets)
                self._report.monitoring()
                await self._report.flush()
                await self._receive_all()
                await self._report.ended(trio.current_time())
                nursery.cancel_scope.cancel()
        return self._status

    async def _heed(self, signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        number = await anext(signals)
        self._status = _STATUS[signal.Signals(number)]
        self._note(_Signal())
        scope.deadline = trio.current_time() + GRACE

    def _note(self, what: NodeEvent | _Found | _Signal) -> None:
        """Put something into the mailbox, behind all DOWNs that came before it."""
        self._node.send(self._process.pid, what)

    async def _monitor_all(self, targets: Iterable[Target]) -> None:
        for number, target in enumerate(targets, start=1):
            destination = target.on(self._node)
            if self._watching.rows[target.node].via is Via.ZENMON:
                ref = self._zen.monitor(destination, subscriber=self._process)
            else:
                ref = self._process.monitor(destination)
            self._targets[ref] = target
            if number % SLICE == 0:
                await trio.lowlevel.checkpoint()

    async def _receive_all(self) -> None:
        while self._targets and self._status is ExitStatus.DONE:
            self._take(await self._process.receive())
            self._take_waiting()
            await self._report.flush()
        # Of a node that was lost last: the news of that comes behind its last DOWN.
        self._take_waiting()

    def _take_waiting(self) -> None:
        for _ in range(SLICE):
            try:
                message = self._process.receive_nowait()
            except trio.WouldBlock:
                return
            self._take(message)

    def _take(self, message: Term | NodeEvent | _Found | _Signal) -> None:
        rows = self._watching.rows
        match message:
            case (Atom("DOWN"), ref, _, found, reason) if ref in self._targets:
                target = self._targets.pop(ref)
                row = rows[target.node]
                row.down(trio.current_time())
                self._report.down(target, row, found, reason[1] if row.via is Via.ZENMON else reason)
            case NodeDown() if message.name.name in rows:
                row = rows[message.name.name]
                row.lost()
                self._report.nodedown(row, format_term(message.reason))
            case _Found() if message.node.name in rows:
                row = rows[message.node.name]
                if row.found(message.verdict):
                    self._report.compatibility(row, message.verdict)
