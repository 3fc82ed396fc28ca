"""The Local's rows: which reference belongs to whom and watches what. Pure.

A monitor costs three dictionary entries (the third is in its Connector) and one reference; there is no object per
monitor, so a million of them are cheap for the garbage collector too::

    owners        Ref         -> Subscriber
    subscribers   Subscriber  -> {Ref: Target}
    ^---------key---------^      ^---value---^

The row in ``owners`` is the right to fire: whoever takes it (the Dispatcher at delivery, ``demonitor``, the clean-up
after a subscriber's death) is the only one who can, and so every monitor fires at most once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..memory import Table, compacted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from erlang_interop.terms import Pid, Reference

    from ..messages import Target


class LocalTables:
    """References of one Local. They outlive its processes, as the original's ETS tables do."""

    __slots__ = ("_owners", "_subscribers")

    def __init__(self) -> None:
        self._owners: Table[Reference, Pid] = Table()
        self._subscribers: dict[Pid, Table[Reference, Target]] = {}

    def __len__(self) -> int:
        """Monitors that have not fired."""
        return len(self._owners)

    @property
    def subscribers(self) -> int:
        """Processes with at least one monitor."""
        return len(self._subscribers)

    def subscriber_pids(self) -> list[Pid]:
        """Processes with at least one monitor."""
        return list(self._subscribers)

    def rows(self) -> Iterator[tuple[Reference, Target]]:
        """All monitors whose subscribers have not died, with their targets."""
        for rows in self._subscribers.values():
            yield from rows.items()

    def add(self, ref: Reference, subscriber: Pid, target: Target) -> None:
        """Add a monitor."""
        self._owners[ref] = subscriber
        rows = self._subscribers.get(subscriber)
        if rows is None:
            rows = self._subscribers[subscriber] = Table()
        rows[ref] = target

    def owner(self, ref: Reference) -> Pid | None:
        """Whose monitor it is; None if it has fired, was given back, or never was."""
        return self._owners.get(ref)

    def take(self, ref: Reference) -> tuple[Pid, Target] | None:
        """Take a monitor out, and with it the right to fire it; None if somebody has done so."""
        owner = self._owners.pop(ref)
        if owner is None:
            return None
        target = self._take_row(ref, owner)
        return None if target is None else (owner, target)

    def take_owner(self, ref: Reference) -> Pid | None:
        """The same, for who knows the target."""
        owner = self._owners.pop(ref)
        return owner if owner is not None and self._take_row(ref, owner) is not None else None

    def _take_row(self, ref: Reference, owner: Pid) -> Target | None:
        rows = self._subscribers.get(owner)
        if rows is None:
            return None  # the owner has died; its rows are being cleaned up
        target = rows.pop(ref)
        assert target is not None  # a row in one table is in both
        if not rows:
            del self._subscribers[owner]
        return target

    def take_subscriber(self, subscriber: Pid) -> Table[Reference, Target] | None:
        """Take all monitors of a process that has died; give each to :meth:`forget`. None of them fires any more."""
        return self._subscribers.pop(subscriber, None)

    def compact(self) -> None:
        """Give back memory that the rows of the past have taken."""
        self._owners.compact()
        for rows in self._subscribers.values():
            rows.compact()
        self._subscribers = compacted(self._subscribers)

    def forget(self, ref: Reference) -> None:
        """Finish the removal of a monitor from :meth:`take_subscriber`."""
        self._owners.pop(ref)
