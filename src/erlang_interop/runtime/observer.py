"""Watching very many processes of one's own node: a monitor without a reference and without a message for each.

A monitor costs a reference, an entry of its own at either end, and a DOWN. ZenMonitor's Proxy holds a million of them
by pid, knows each by its pid alone, and takes what has happened in batches. So an inline server may have an *observer*:
it enters nothing but the server's pid at the process that is watched, and writes down who has ended, and why. Compiled
by mypyc.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

from erlang_interop.terms import Atom

if TYPE_CHECKING:
    from collections.abc import Callable

    from erlang_interop.runtime.watchers import Watchers
    from erlang_interop.terms import Pid, Term

#: As in ``atoms.py``, which is not compiled.
NOPROC: Final = Atom("noproc")


@final
class Observer:
    """The processes that one process watches by their pids. Made by ``LocalProcess.observe``.

    Args:
        pid: Who watches.
        processes: The living processes of the node.
        notify: Called when there is a death and there was none before. It must not take it at once.

    Attributes:
        pid: Who watches.
        count: Living processes that are watched.
        deaths: ``(pid, reason)`` of those that have ended, in that order. Whoever has dealt with some removes them.
    """

    __slots__ = ("_notify", "_processes", "count", "deaths", "pid")

    def __init__(self, pid: Pid, processes: dict[Pid, Any], notify: Callable[[], object]) -> None:
        self.pid = pid
        self._processes = processes
        self._notify = notify
        self.count = 0
        self.deaths: list[tuple[Pid, Term]] = []

    def watch(self, pid: Pid) -> Pid:
        """Watch a process of this node; of one that is not there the death is written down, with ``noproc``.

        Args:
            pid: Not watched yet, or what becomes of it is written down twice.

        Returns:
            The pid as the process has it: who keeps that one needs no room for another.
        """
        process = self._processes.get(pid)
        if process is None:
            self._died(pid, NOPROC)
            return pid
        watchers: Watchers = process.watchers
        watchers.add(self.pid, self.pid)
        self.count += 1
        known: Pid = process.pid
        return known

    def release(self, pid: Pid) -> None:
        """Watch it no longer; a death that is written down stays."""
        process = self._processes.get(pid)
        if process is not None:
            watchers: Watchers = process.watchers
            if watchers.pop(self.pid) is not None:
                self.count -= 1

    def ended(self, pid: Pid, reason: Term) -> None:
        """A process that is watched has ended."""
        self.count -= 1
        self._died(pid, reason)

    def _died(self, pid: Pid, reason: Term) -> None:
        self.deaths.append((pid, reason))
        if len(self.deaths) == 1:
            self._notify()

    def watched(self) -> list[Pid]:
        """All that are watched. It takes time for each process of the node."""
        if not self.count:
            return []
        return [process.pid for process in self._processes.values() if self.pid in process.watchers]

    def close(self) -> None:
        """Watch nothing any longer."""
        for pid in self.watched():
            self.release(pid)
        self.count = 0
        self.deaths.clear()
