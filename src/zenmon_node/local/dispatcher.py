"""What the Dispatcher decides: DOWN messages, at most ``demand_amount`` of them per ``demand_interval``. Pure.

Deaths come in as they are known, of one target with its references or of everything a node held; they wait in one queue
and leave it oldest first. The DOWN messages are made as they are delivered.

A reference fires only if its row can still be taken from the tables, so one that was demonitored while its DOWN waited
stays silent and does not use up demand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..counters import Counters
from ..pacing import SLICE, Pacer
from .steps import DeathQueue

if TYPE_CHECKING:
    from collections.abc import Iterable

    from erlang_interop.terms import Pid, Reference, Term

    from ..config import Settings
    from ..memory import Table
    from ..messages import References, Target
    from .steps import Death
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
        self._queue = DeathQueue()
        #: Messages that are being taken: none of them is lost if that is interrupted by an exception.
        self._taken: list[tuple[Pid, Term]] = []
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
        return self._queue.waiting

    def enqueue(self, deaths: list[Death]) -> None:
        """Targets have died, and these are all their monitors; the list belongs to the Dispatcher from now on."""
        self._counters.enqueued_downs += self._queue.add(deaths)

    def enqueue_lost(self, table: Table[Target, References], reason: Term) -> None:
        """Everything in ``table`` fires with ``reason``. It belongs to the Dispatcher from now on."""
        for rows in filter(None, table.parts):  # each with its own end: to free a million rows at once would take long
            self._counters.enqueued_downs += len(rows)
            self._queue.add_lost(rows, reason)

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
        queue, out = self._queue, self._taken
        found = queue.found
        try:
            looked = queue.take(self._tables, limit, self._left, out)
        finally:
            self._left -= len(out)
        if looked < limit and self._left:
            self._left = 0  # what demand is left is not saved up
        self._taken = []
        self._counters.enqueued_downs += queue.found - found
        self._counters.delivered_downs += looked
        self._counters.processed_downs += len(out)
        if not self._left:
            self._pacer.swept(now, more=self.waiting)
        return out

    def compact(self) -> None:
        """Give back memory that the monitors of the past have taken."""
        self._tables.compact()

    def recover(self) -> None:
        """An exception has interrupted :meth:`deliver`: begin anew with the oldest entry, of which some may be gone."""
        self._queue.restart()

    def references(self) -> Iterable[Reference]:
        """All references in the queue, and perhaps some that have fired just now."""
        return self._queue.references()
