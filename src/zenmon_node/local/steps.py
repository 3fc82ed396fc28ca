"""What a Local does once for each monitor, for each certificate, and for each DOWN. Pure.

All of them may come by the hundred thousand, so these are loops in compiled code (mypyc) that leave what is rare to
``connector.py`` and ``dispatcher.py``.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias, final

from erlang_interop.terms import Pid, Reference

from ..memory import Table
from ..messages import DOWN, PROCESS, ZEN_MONITOR

if TYPE_CHECKING:
    from collections.abc import Iterator

    from erlang_interop._native import i64
    from erlang_interop.terms import Atom, Term

    from ..messages import References, Target
    from .tables import LocalTables

#: A target that has died, its monitors, and why.
Death: TypeAlias = "tuple[Target, References, Term]"


@final
class Monitors:
    """What is monitored on one remote: target -> its monitors. Pids and names differ in what the loss of a Proxy costs.

    Another one takes its place when the remote is lost, so that summaries of before are looked up in what was then.
    """

    __slots__ = ("names", "pids")

    def __init__(self) -> None:
        self.pids: Table[Target, References] = Table()
        self.names: Table[Target, References] = Table()

    def add(self, target: Target, ref: Reference) -> bool:
        """Add a monitor. True if it is the first one of its target."""
        table = self.pids if type(target) is Pid else self.names
        known = table.setdefault(target, ref)
        if known is ref:
            return True
        if type(known) is Reference:
            table[target] = {known: None, ref: None}
        else:
            several: Any = known
            several[ref] = None
        return False

    def remove(self, target: Target, ref: Reference) -> bool:
        """Remove a monitor if it is there. True if it was the last one of its target."""
        table = self.pids if type(target) is Pid else self.names
        known: Any = table.get(target)
        if known is None:
            return False
        if type(known) is Reference:
            if known != ref:
                return False  # of a target that was lost and is monitored anew
        else:
            known.pop(ref, None)
            if known:
                return False
        del table[target]
        return True


@final
class Summary:
    """Certificates that are looked up among the monitors that held when they came, in slices.

    Args:
        monitors: These monitors.
        certificates: Not checked yet.
        sender: Who is to be blamed for what is wrong with them.
    """

    __slots__ = ("_certificates", "_next", "monitors", "sender")

    def __init__(self, monitors: Monitors, certificates: list[Any], sender: Pid | Atom | None) -> None:
        self.monitors = monitors
        self.sender = sender
        self._certificates = certificates
        self._next = 0

    def __len__(self) -> int:
        """Certificates not looked at yet."""
        return len(self._certificates) - self._next

    @property
    def latest(self) -> Any:
        """The certificate looked at last."""
        return self._certificates[self._next - 1]

    def look_up(self, limit: int, deaths: list[Death]) -> bool:
        """Look up the next certificates while they are about pids.

        Args:
            limit: Most certificates to look at.
            deaths: Those that somebody monitors are put here, and are monitored no more.

        Returns:
            True if :attr:`latest` is of another kind: it is the caller's.
        """
        certificates = self._certificates
        pids = self.monitors.pids
        position: i64 = self._next
        stop: i64 = min(len(certificates), self._next + limit)
        while position < stop:
            certificate = certificates[position]
            position += 1
            self._next = position
            if type(certificate) is not tuple or len(certificate) != 2:
                return True
            target = certificate[0]
            if type(target) is not Pid:
                return True
            references = pids.pop(target)
            if references is not None:
                deaths.append((target, references, certificate[1]))
        return False


@final
class DeathQueue:
    """Deaths whose DOWN messages are to be made, oldest first.

    What a whole node held is kept as the table it was: taking in the loss of a node with a million monitors costs one
    append for each part of it. An entry stays in the queue until all its messages are made.

    Attributes:
        waiting: References in the queue, those of demonitored ones too; of a lost node, each target counts once until
            it is its turn.
        found: References of lost nodes that were not counted before their turn.
    """

    __slots__ = ("_common", "_entries", "_next", "_refs", "_rest", "_rows", "found", "waiting")

    def __init__(self) -> None:
        self._entries: deque[list[Any] | Lost] = deque()
        self.waiting = 0
        self.found = 0
        #: Of the oldest entry: rows, and which is next; how to get more; the reason, if all have the same.
        self._rows: list[Any] = []
        self._next = 0
        self._rest: Iterator[Any] | None = None
        self._common: Lost | None = None
        #: Of the row before the next: what is left of its monitors, if it has several.
        self._refs: Iterator[Reference] | None = None

    def __bool__(self) -> bool:
        return len(self._entries) > 0

    def add(self, deaths: list[Death]) -> int:
        """Put deaths into the queue, which owns the list from now on; how many references they have."""
        count: i64 = 0
        for death in deaths:
            references: Any = death[1]
            count += 1 if type(references) is Reference else len(references)
        if deaths:
            self._entries.append(deaths)
            self.waiting += count
        return count

    def add_lost(self, rows: dict[Target, References], reason: Term) -> None:
        """Everything in ``rows`` fires with ``reason``; the queue owns them from now on."""
        self._entries.append(Lost(rows, reason))
        self.waiting += len(rows)

    def take(self, tables: LocalTables, limit: int, most: int, out: list[tuple[Pid, Term]]) -> int:
        """Make the next messages.

        Args:
            tables: Where the right to fire is taken.
            limit: Most references to look at.
            most: Most messages to make.
            out: Receivers and their messages are put here.

        Returns:
            How many references were looked at; if fewer than ``limit`` and not ``most`` messages, the queue is empty.
        """
        looked: i64 = 0
        made: i64 = 0
        while looked < limit and made < most:
            if self._refs is None and self._next == len(self._rows) and not self._more(limit):
                break
            row: Any
            if self._refs is None:
                row = self._rows[self._next]
                self._next += 1
                references: Any = row[1]
                if type(references) is Reference:
                    looked += 1
                    owner = tables.take_owner(references)
                    if owner is not None:
                        made += 1
                        reason = row[2] if self._common is None else self._common.reason
                        out.append((owner, (DOWN, references, PROCESS, row[0], (ZEN_MONITOR, reason))))
                    continue
                if self._common is not None:
                    # Counting these as the node was lost would have meant to look at every row there and then.
                    self.waiting += len(references) - 1
                    self.found += len(references) - 1
                self._refs = iter(references)
            row = self._rows[self._next - 1]
            reason = row[2] if self._common is None else self._common.reason
            several: Any = self._refs
            for ref in several:
                looked += 1
                owner = tables.take_owner(ref)
                if owner is not None:
                    made += 1
                    out.append((owner, (DOWN, ref, PROCESS, row[0], (ZEN_MONITOR, reason))))
                if looked >= limit or made >= most:
                    break
            else:
                self._refs = None
        self.waiting -= looked
        return looked

    def _more(self, limit: int) -> bool:
        """Get the next rows, ``limit`` at most where they are many; False if there are none."""
        while True:
            if self._rest is not None:
                self._rows = list(islice(self._rest, limit))
                self._next = 0
                if self._rows:
                    return True
            if self._next > 0 or self._rest is not None:
                self._entries.popleft()
            self._rest = None
            self._rows = []
            self._next = 0
            if not self._entries:
                return False
            entry: Any = self._entries[0]
            if type(entry) is list:
                self._common = None
                self._rows = entry
                return True
            self._common = entry
            self._rest = iter(entry.rows.items())

    def restart(self) -> None:
        """An exception has interrupted :meth:`take`: begin anew with the oldest entry, of which some may be gone."""
        self._refs = self._rest = None
        self._rows = []
        self._next = 0
        self.waiting = 0
        for entry in self._entries:
            if type(entry) is list:
                for death in entry:
                    self.waiting += 1 if type(death[1]) is Reference else len(death[1])
            else:
                lost: Any = entry
                self.waiting += len(lost.rows)

    def references(self) -> list[Reference]:
        """All references in the queue, and perhaps some that have fired just now."""
        found: list[Reference] = []
        for entry in self._entries:
            several: Any = entry.rows.items() if isinstance(entry, Lost) else entry
            for row in several:
                references: Any = row[1]
                if type(references) is Reference:
                    found.append(references)
                else:
                    found.extend(references)
        return found


@final
class Lost:
    """Rows that all fire with the same reason."""

    __slots__ = ("reason", "rows")

    def __init__(self, rows: dict[Target, References], reason: Term) -> None:
        self.rows = rows
        self.reason = reason
