"""The Proxy's rows: who is subscribed to what, and what guards each row, a native monitor or the pid itself. Pure.

Two tables, so that a subscription costs two dictionary entries and no object of its own::

    subscriptions   Target      -> Subscriber            (one subscriber, the usual case)
                                -> {Subscriber: None}    (several)
    subscribers     Subscriber  -> {Target: Guard}
                    ^---key---^    ^------value------^

All rows of one pid share one guard, however many subscribers there are. A name is bound to the process that
has it *at subscribe time*, so each row of a name has a monitor of its own: when the name has moved in between, an old
and a new subscriber watch different processes.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from erlang_interop.terms import Pid

from ..memory import Table, compacted

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from erlang_interop.runtime.observer import Observer

    from ..messages import Guard, Target


class ProxyTables:
    """Subscriptions of one Proxy. Rows are added, removed and consumed; nothing else happens here."""

    __slots__ = ("_subscribers", "_subscriptions")

    def __init__(self) -> None:
        self._subscriptions: Table[Target, Pid | dict[Pid, None]] = Table()
        self._subscribers: dict[Pid, Table[Target, Guard]] = {}

    def __len__(self) -> int:
        """Targets with at least one subscriber."""
        return len(self._subscriptions)

    @property
    def subscribers(self) -> int:
        """Processes with at least one subscription."""
        return len(self._subscribers)

    @property
    def rows(self) -> int:
        """Subscriptions: pairs of a target and a subscriber."""
        return sum(map(len, self._subscribers.values()))

    def has_subscriber(self, subscriber: Pid) -> bool:
        """True if ``subscriber`` has at least one row."""
        return subscriber in self._subscribers

    def is_subscribed(self, target: Target, subscriber: Pid) -> bool:
        """True if the row exists."""
        rows = self._subscribers.get(subscriber)
        return rows is not None and target in rows

    def watch(self, target: Pid, subscriber: Pid, observer: Observer) -> None:
        """Make sure that the row of a pid of this node exists; ``observer`` watches it."""
        row = self._subscriptions.get(target)
        if row is None:
            # The usual case. The tables hold the pid that the process itself has, and the one in the message goes.
            target = observer.watch(target)
            rows = self._subscribers.get(subscriber)
            if rows is None:
                rows = self._subscribers[subscriber] = Table()
            rows[target] = target
            self._subscriptions[target] = subscriber
        elif type(row) is not Pid or row != subscriber:
            self.share(target, subscriber)

    def shared_monitor(self, target: Target) -> Guard | None:
        """The guard a further subscriber of ``target`` can share; never the monitor of a name."""
        if type(target) is not Pid:
            return None
        row = self._subscriptions.get(target)
        if row is None:
            return None
        return self._subscribers[row if type(row) is Pid else next(iter(row))][target]

    def share(self, target: Target, subscriber: Pid) -> bool:
        """Make sure that the row exists if that needs no further native monitor: True if it does exist now."""
        rows = self._subscribers.get(subscriber)
        if rows is not None and target in rows:
            return True
        ref = self.shared_monitor(target)
        if ref is None:
            return False
        self.add(target, subscriber, ref)
        return True

    def add(self, target: Target, subscriber: Pid, ref: Guard) -> None:
        """Add a row that does not exist yet; ``ref`` is the native monitor that will tell of the death."""
        rows = self._subscribers.get(subscriber)
        if rows is None:
            rows = self._subscribers[subscriber] = Table()
        rows[target] = ref
        self._list(target, subscriber)

    def _list(self, target: Target, subscriber: Pid) -> None:
        row = self._subscriptions.get(target)
        if row is None:
            self._subscriptions[target] = subscriber
        elif type(row) is Pid:
            self._subscriptions[target] = {row: None, subscriber: None}
        else:
            row[subscriber] = None

    def remove(self, target: Target, subscriber: Pid) -> Guard | None:
        """Remove a row if it exists.

        Returns:
            The native monitor if no other row needs it any more: it is to be released.
        """
        rows = self._subscribers.get(subscriber)
        ref = rows.pop(target) if rows is not None else None
        if ref is None:
            return None
        if not rows:
            del self._subscribers[subscriber]
        return self._unlist(target, subscriber, ref)

    def consume(self, target: Target, ref: Guard) -> list[Pid]:
        """The native monitor ``ref`` has fired: remove the rows it guards and say whose they were."""
        row = self._subscriptions.get(target)
        if row is None:
            return []
        if type(row) is Pid:
            # The usual case. What is below would do, but look the target up twice more.
            rows = self._subscribers.get(row)
            if rows is None or rows.get(target) != ref:
                return []
            del rows[target]
            if not rows:
                del self._subscribers[row]
            del self._subscriptions[target]
            return [row]
        told: list[Pid] = []
        for subscriber in list(row):
            rows = self._subscribers.get(subscriber)
            if rows is None or rows.get(target) != ref:
                continue
            del rows[target]
            if not rows:
                del self._subscribers[subscriber]
            self._unlist(target, subscriber, ref)
            told.append(subscriber)
        return told

    def take_rows(self, subscriber: Pid) -> Iterator[tuple[Target, Guard]]:
        """Take all rows of a subscriber that is gone. Each must be given to :meth:`release` afterwards."""
        rows = self._subscribers.pop(subscriber, None)
        return iter(()) if rows is None else rows.drain()

    def release(self, target: Target, subscriber: Pid, ref: Guard) -> Guard | None:
        """Finish the removal of one row from :meth:`take_rows`; the result is that of :meth:`remove`."""
        return self._unlist(target, subscriber, ref)

    def guards(self) -> Iterator[Guard]:
        """What guards the rows, those that are shared several times."""
        return chain.from_iterable(rows.values() for rows in self._subscribers.values())

    def unguarded(self, held: Container[Guard]) -> list[tuple[Target, Guard]]:
        """Rows whose native monitor is not among ``held``, for :meth:`consume`: target and monitor."""
        return [(target, ref) for rows in self._subscribers.values() for target, ref in rows.items() if ref not in held]

    def rebuild(self) -> None:
        """Make the table of targets anew from that of subscribers, which is the one that counts."""
        self._subscriptions.clear()
        for subscriber, rows in self._subscribers.items():
            for target in rows:
                self._list(target, subscriber)

    def compact(self) -> None:
        """Give back memory that the rows of the past have taken."""
        self._subscriptions.compact()
        for rows in self._subscribers.values():
            rows.compact()
        self._subscribers = compacted(self._subscribers)

    def _unlist(self, target: Target, subscriber: Pid, ref: Guard) -> Guard | None:
        row = self._subscriptions.get(target)
        if row is None or (type(row) is Pid and row != subscriber):
            return None  # consumed in the meantime
        if type(row) is Pid:
            del self._subscriptions[target]
            return ref
        assert isinstance(row, dict)
        row.pop(subscriber, None)
        if len(row) == 1:
            self._subscriptions[target] = next(iter(row))
        # A pid's monitor is shared by those who stay; a name's belongs to this row alone.
        return None if type(target) is Pid else ref
