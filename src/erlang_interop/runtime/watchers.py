"""The monitors on one process, as the process itself knows them: mostly none or one, and then it must take little room.

A node may have a million processes, each monitored by one other (ZenMonitor's Proxy); a dictionary with a single entry
takes 232 bytes, and a pair of watcher and name 56 more. Compiled by mypyc.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, final

from erlang_interop._native import mypyc_attr

if TYPE_CHECKING:
    from erlang_interop.terms import Pid, Reference, Term

#: Who watches: a pid, if it watches the process by its pid; if by a name, that pid with ``(name, node)``.
Watch: TypeAlias = "Pid | tuple[Pid, Term]"
#: Under what: the reference of a monitor, or the watcher's own pid where an observer watches (``observer.py``).
Key: TypeAlias = "Reference | Pid"


@final
@mypyc_attr(acyclic=True)
class Watchers:
    """Reference, or the pid of an observer -> who watches; in the order in which the monitors were set."""

    __slots__ = ("_first", "_first_watch", "_more")

    def __init__(self) -> None:
        #: The oldest, while it is there. Another takes its place only when there is none at all.
        self._first: Key | None = None
        self._first_watch: Watch | None = None
        self._more: dict[Key, Watch] | None = None

    def __len__(self) -> int:
        return (self._first is not None) + (len(self._more) if self._more is not None else 0)

    def __contains__(self, ref: object) -> bool:
        return ref == self._first or (self._more is not None and ref in self._more)

    def add(self, ref: Key, watch: Watch) -> None:
        """Enter a monitor."""
        if self._more is not None:
            self._more[ref] = watch
        elif self._first is None:
            self._first, self._first_watch = ref, watch
        else:
            self._more = {ref: watch}

    def get(self, ref: Key) -> Watch | None:
        """Who watches under ``ref``."""
        if ref == self._first:
            return self._first_watch
        return None if self._more is None else self._more.get(ref)

    def pop(self, ref: Key) -> Watch | None:
        """Remove a monitor, if it is there; who watched."""
        if ref == self._first:
            watch, self._first, self._first_watch = self._first_watch, None, None
            return watch
        if self._more is None:
            return None
        found = self._more.pop(ref, None)
        if not self._more:
            self._more = None
        return found

    def take(self) -> list[tuple[Key, Watch]]:
        """Remove all of them; oldest first."""
        found = self.items()
        self._first = self._first_watch = self._more = None
        return found

    def items(self) -> list[tuple[Key, Watch]]:
        """All of them, oldest first."""
        found: list[tuple[Key, Watch]] = []
        if self._first is not None and self._first_watch is not None:
            found.append((self._first, self._first_watch))
        if self._more is not None:
            found.extend(self._more.items())
        return found
