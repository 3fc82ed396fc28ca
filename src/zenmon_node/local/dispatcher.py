"""What the Dispatcher decides: DOWN messages, at most ``demand_amount`` of them per ``demand_interval``. Pure.

Deaths come in as they are known, of one target with its references or of everything a node held; they wait in one queue
and leave it oldest first. What a whole node held is kept as the table it was: taking in the loss of a node with a
million monitors costs one append, and the DOWN messages are made as they are delivered.

A reference fires only if its row can still be taken from the tables, so one that was demonitored while its DOWN waited
stays silent and does not use up demand.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

from erlang_interop.terms import Reference

from .. import messages as m
from ..counters import Counters
from ..pacing import SLICE, Pacer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from erlang_interop.terms import Pid, Term

    from ..config import Settings
    from ..memory import Table
    from ..messages import References, Target
    from .tables import LocalTables


class DispatcherCore:
    """The queue and its pace.

    Args:
        tables: Where the right to fire is taken.
        settings: ``demand_amount`` and ``demand_interval``.
        counters: What is counted.
    """

    def __init__(self, tables: LocalTables, settings: Settings, counters: Counters | None = None) -> None:
        self._counters = counters if counters is not None else Counters()
        self._tables = tables
        self._queue: deque[tuple[Target, References, Term] | _Lost] = deque()
        #: Their references, beginning with those of the oldest entry, which stays in the queue until it is done.
        self._refs: Iterator[tuple[Reference, Target, Term]] | None = None
        #: Messages that are being taken: none of them is lost if that is interrupted by an exception.
        self._taken: list[tuple[Pid, Term]] = []
        self._waiting = 0
        self._amount = 0
        self._left = 0
        # The first DOWN after a pause has nothing to gather for: it was gathered on its way here.
        self._pacer = Pacer(0.0, gathering=0.0)
        self.configure(settings)

    def configure(self, settings: Settings) -> None:
        """Take other settings from now on."""
        self._amount = settings.demand_amount
        self._left = min(self._left, self._amount)
        self._pacer.interval = settings.demand_interval / 1000

    @property
    def waiting(self) -> bool:
        """True while a death waits to be delivered."""
        return bool(self._queue)

    @property
    def waiting_downs(self) -> int:
        """References in the queue, those of demonitored ones too; of a lost node, each target counts once at first."""
        return self._waiting

    def enqueue(self, target: Target, references: References, reason: Term) -> None:
        """A target has died; ``references`` are all its monitors."""
        count = 1 if type(references) is Reference else len(references)
        self._waiting += count
        self._counters.enqueued_downs += count
        self._queue.append((target, references, reason))

    def enqueue_lost(self, table: Table[Target, References], reason: Term) -> None:
        """Everything in ``table`` fires with ``reason``. It belongs to the Dispatcher from now on."""
        for rows in filter(None, table.parts):  # each with its own end: to free a million rows at once would take long
            self._waiting += len(rows)
            self._counters.enqueued_downs += len(rows)
            self._queue.append(_Lost(rows, reason))

    def next_due(self, now: float) -> float | None:
        """When :meth:`deliver` wants to run; None if nothing waits."""
        if not self.waiting:
            return None
        return now if self._left else self._pacer.due(now)

    def deliver(self, now: float, limit: int = SLICE) -> list[tuple[Pid, Term]]:
        """Take the messages that may go now, at most ``limit``, oldest first.

        Returns:
            Receivers and their DOWN messages. When :meth:`next_due` is not later than ``now`` afterwards, there is
            demand left and the next slice may follow after a turn of the loop.
        """
        if not self._left:
            if not self.waiting or not self._pacer.is_due(now):
                return []
            self._left = self._amount
        out = self._taken
        delivered = 0
        refs = self._refs or self._drain()
        self._refs = refs
        left = self._left
        try:
            for ref, target, reason in islice(refs, limit):
                delivered += 1
                row = self._tables.take(ref)
                if row is not None:
                    out.append((row[0], m.down_message(ref, target, reason)))
                    left -= 1
                    if not left:
                        break
            else:
                if delivered < limit:
                    self._refs = None
                    left = 0  # what demand is left is not saved up
        finally:
            self._left = left
        self._taken = []
        self._waiting -= delivered
        self._counters.delivered_downs += delivered
        self._counters.processed_downs += len(out)
        if not self._left:
            self._pacer.swept(now, more=self.waiting)
        return out

    def compact(self) -> None:
        """Give back memory that the monitors of the past have taken."""
        self._tables.compact()

    def recover(self) -> None:
        """An exception has interrupted :meth:`deliver`: begin anew with the oldest entry, of which some may be gone."""
        self._refs = None
        self._waiting = sum(_size(entry) for entry in self._queue)

    def references(self) -> Iterator[Reference]:
        """All references in the queue, and perhaps some that have fired just now."""
        for entry in self._queue:
            for _, references, _ in _rows(entry):
                if type(references) is Reference:
                    yield references
                else:
                    yield from references

    def _drain(self) -> Iterator[tuple[Reference, Target, Term]]:
        while self._queue:
            entry = self._queue[0]
            for target, references, reason in _rows(entry):
                if type(references) is Reference:
                    yield references, target, reason
                else:
                    if type(entry) is _Lost:
                        # Counting these as the node was lost would have meant to look at every row there and then.
                        self._waiting += len(references) - 1
                        self._counters.enqueued_downs += len(references) - 1
                    for ref in references:
                        yield ref, target, reason
            self._queue.popleft()


class _Lost:
    """A table of which every row fires with the same reason."""

    __slots__ = ("reason", "rows")

    def __init__(self, rows: dict[Target, References], reason: Term) -> None:
        self.rows = rows
        self.reason = reason

    def __iter__(self) -> Iterator[tuple[Target, References, Term]]:
        for target, references in self.rows.items():
            yield target, references, self.reason


def _rows(entry: tuple[Target, References, Term] | _Lost) -> Iterable[tuple[Target, References, Term]]:
    return entry if isinstance(entry, _Lost) else (entry,)


def _size(entry: tuple[Target, References, Term] | _Lost) -> int:
    """How many references an entry counts for when it comes into the queue."""
    if isinstance(entry, _Lost):
        return len(entry.rows)
    return 1 if type(entry[1]) is Reference else len(entry[1])
