"""The locks that a name server of ``global`` holds for others. Pure.

A lock is of a *resource* and for a *requester*, both any term; *holders* are the processes that have set it. Another
requester is kept out, the same one is let in again, with the same process or another one. The lock is gone when each of
its holders has deleted it or ended.

.. code-block:: text

    locks     resource -> requester, holder -> its monitor       watched   monitor -> resource
              ^-key--^                                                     ^-key-^

Source: kernel manual, ``global:set_lock/3``; kernel/src/global.erl, ``handle_set_lock`` and ``handle_del_lock``; the
same from OTP 25 to 29.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from .exact import Exact

if TYPE_CHECKING:
    from ..terms import Pid, Reference, Term


class LockPort(Protocol):
    """What the table asks of the process it runs in."""

    def monitor(self, pid: Pid) -> Reference:
        """Monitor a process of any node. The DOWN arrives later, never during the call."""

    def demonitor(self, ref: Reference) -> object:
        """Give a monitor back."""


@dataclass(frozen=True, slots=True)
class HeldLock:
    """A lock, for those who look at the table."""

    resource: Term
    requester: Term
    #: In the order in which they have set it.
    holders: tuple[Pid, ...]


class _Lock:
    __slots__ = ("holders", "requester")

    def __init__(self, requester: Exact) -> None:
        self.requester = requester
        self.holders: dict[Pid, Reference] = {}


class LockTable:
    """The locks of one node.

    Args:
        port: What monitors the holders.
    """

    def __init__(self, port: LockPort) -> None:
        self._port: Final = port
        self._locks: dict[Exact, _Lock] = {}
        self._watched: dict[Reference, Exact] = {}

    @property
    def held(self) -> list[HeldLock]:
        """All locks."""
        return [
            HeldLock(resource.term, lock.requester.term, tuple(lock.holders)) for resource, lock in self._locks.items()
        ]

    def get(self, resource: Term) -> HeldLock | None:
        """The lock of a resource. Raises TypeError when that is no term."""
        lock = self._locks.get(Exact(resource))
        return None if lock is None else HeldLock(resource, lock.requester.term, tuple(lock.holders))

    def set_lock(self, resource: Term, requester: Term, pid: Pid) -> bool:
        """``{set_lock, {resource, requester}}`` of a process.

        Returns:
            False: another requester has it.

        Raises:
            TypeError: ``resource`` or ``requester`` is no term.
        """
        key, wanted = Exact(resource), Exact(requester)
        lock = self._locks.get(key)
        if lock is None:
            self._locks[key] = lock = _Lock(wanted)
        elif lock.requester != wanted:
            return False
        if pid not in lock.holders:
            ref = self._port.monitor(pid)
            lock.holders[pid] = ref
            self._watched[ref] = key
        return True

    def del_lock(self, resource: Term, requester: Term, pid: Pid) -> None:
        """``{del_lock, {resource, requester}}`` of a process; nothing, if it does not hold that lock.

        Raises:
            TypeError: ``resource`` or ``requester`` is no term.
        """
        key = Exact(resource)
        lock = self._locks.get(key)
        if lock is not None and lock.requester == Exact(requester) and pid in lock.holders:
            ref = lock.holders[pid]
            self._forget(key, lock, pid, ref)
            self._port.demonitor(ref)

    def watch_again(self) -> None:
        """Monitor all holders anew: the process that did is no more."""
        self._watched.clear()
        for key, lock in self._locks.items():
            for pid in lock.holders:
                ref = self._port.monitor(pid)
                lock.holders[pid] = ref
                self._watched[ref] = key

    def down(self, pid: Pid, ref: Reference) -> bool:
        """A process that is monitored has ended, or its node is gone; whether it was a monitor of this table."""
        key = self._watched.get(ref)
        if key is None:
            return False
        self._forget(key, self._locks[key], pid, ref)
        return True

    def _forget(self, key: Exact, lock: _Lock, pid: Pid, ref: Reference) -> None:
        del lock.holders[pid], self._watched[ref]
        if not lock.holders:
            del self._locks[key]
