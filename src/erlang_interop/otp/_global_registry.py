"""The names that one node knows of ``global``, each with its process. Pure.

Every node has all names and monitors every process that has one, so that no node has to tell another of an end. A name
that comes without the lock ``global`` is of an exchange or a registration that was given up, and is not kept.

.. code-block:: text

    names     name -> its process, what resolves clashes, the monitor, the node that registered it for a foreign process
              ^key^
    watched   monitor -> name
              ^-key-^
    pids      process -> how many names it has
              ^-key-^

Source: kernel/src/global.erl (``ins_name``, ``insert_global_name``, ``lock_still_set``, ``do_ops``), OTP 25 to 29.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from ._global_locks import LockPort, LockTable
from ._global_messages import GLOBAL, External, Named
from .exact import Exact

if TYPE_CHECKING:
    from ..terms import Atom, Pid, Reference, Term
    from ._global_messages import Ops


class RegistryPort(LockPort, Protocol):
    """What the names ask of the process they are kept in."""

    def is_alive(self, pid: Pid) -> bool:
        """Whether a process of this node lives."""


@dataclass(slots=True)
class _Entry:
    named: Named
    ref: Reference
    #: Of a process that has no ``global`` of its own: the node that has registered it.
    node: Atom | None


class Registry:
    """The names of ``global``, and the locks, one of which they depend on.

    Args:
        me: This node.
        port: What monitors processes.

    Attributes:
        locks: The locks that are held here.
    """

    def __init__(self, me: Atom, port: RegistryPort) -> None:
        self._me: Final = me
        self._port: Final = port
        self.locks: Final = LockTable(port)
        self._names: dict[Exact, _Entry] = {}
        self._watched: dict[Reference, Exact] = {}
        self._pids: Counter[Pid] = Counter()
        #: Whether the last to hold the lock ``global`` ended with it, so that what it has sent counts no more.
        self._lock_was_lost = False

    def __len__(self) -> int:
        return len(self._names)

    def all(self) -> list[Named]:
        """All names."""
        return [entry.named for entry in self._names.values()]

    def external(self) -> list[External]:
        """Those of processes that have no ``global`` of their own."""
        return [
            External(entry.named.name, entry.named.pid, entry.node)
            for entry in self._names.values()
            if entry.node is not None
        ]

    def get(self, name: Term) -> Named | None:
        """Who has a name. Raises TypeError when it is no term."""
        entry = self._names.get(Exact(name))
        return None if entry is None else entry.named

    def whereis(self, name: Term) -> Pid | None:
        """``global:whereis_name/1``. Raises TypeError when ``name`` is no term."""
        named = self.get(name)
        if named is None or (named.pid.node == self._me and not self._port.is_alive(named.pid)):
            return None
        return named.pid

    def has_name(self, pid: Pid) -> bool:
        """Whether a process has any name."""
        return pid in self._pids

    # -- changes

    def register(self, named: Named, node: Atom | None, by: Pid) -> None:
        """``{register, ...}`` or ``{register_ext, ...}`` by a process that should have the lock ``global``.

        Args:
            named: The name, which nobody else has from now on.
            node: For a foreign process, the node that registers it.
            by: The process that asks.
        """
        lock = self.locks.get(GLOBAL)
        self._insert(named, node, allowed=not self._lock_was_lost if lock is None else by in lock.holders)

    def apply(self, ops: Ops, external: list[External], requester: Term) -> None:
        """Do what an exchange has come to, for which ``requester`` should have the lock ``global``."""
        lock = self.locks.get(GLOBAL)
        allowed = not self._lock_was_lost if lock is None else Exact(lock.requester) == Exact(requester)
        registered_by = {(Exact(each.name), each.pid): each.node for each in external}
        for named in ops.insert:
            self._insert(named, registered_by.get((Exact(named.name), named.pid)), allowed=allowed)
        for name in ops.delete:
            self.delete(name)

    def delete(self, name: Term) -> None:
        """Nobody has the name any more. Raises TypeError when it is no term."""
        entry = self._remove(Exact(name))
        if entry is not None:
            del self._watched[entry.ref]
            self._port.demonitor(entry.ref)

    def watch_again(self) -> None:
        """Monitor all anew who have names or locks: the process that did is no more."""
        self._watched.clear()
        for key, entry in self._names.items():
            entry.ref = self._port.monitor(entry.named.pid)
            self._watched[entry.ref] = key
        self.locks.watch_again()

    def down(self, pid: Pid, ref: Reference) -> bool:
        """A process that is monitored has ended, or its node is gone. Whether it was monitored here."""
        was_set = self._is_locked()
        if self.locks.down(pid, ref):
            self._note_lock(was_set, lost=True)
            return True
        key = self._watched.pop(ref, None)
        if key is None:
            return False
        self._remove(key)
        return True

    def drop(self, node: Atom) -> None:
        """Forget the names of a node's processes, and the locks they hold."""
        for named in self.all():
            if named.pid.node == node:
                self.delete(named.name)
        was_set = self._is_locked()
        for lock in self.locks.held:
            for pid in lock.holders:
                if pid.node == node:
                    self.locks.del_lock(lock.resource, lock.requester, pid)
        self._note_lock(was_set, lost=True)

    def del_lock(self, resource: Term, requester: Term, pid: Pid) -> None:
        """``{del_lock, {resource, requester}}`` of a process. Raises TypeError when one is no term."""
        was_set = self._is_locked()
        self.locks.del_lock(resource, requester, pid)
        self._note_lock(was_set, lost=False)

    def _is_locked(self) -> bool:
        return self.locks.get(GLOBAL) is not None

    def _note_lock(self, was_set: bool, *, lost: bool) -> None:
        """The lock ``global`` may have been given back, or lost with who held it."""
        if was_set and not self._is_locked():
            self._lock_was_lost = lost

    def _insert(self, named: Named, node: Atom | None, *, allowed: bool) -> None:
        self.delete(named.name)
        if allowed:
            key = Exact(named.name)
            ref = self._port.monitor(named.pid)
            self._names[key] = _Entry(named, ref, node)
            self._watched[ref] = key
            self._pids[named.pid] += 1

    def _remove(self, key: Exact) -> _Entry | None:
        entry = self._names.pop(key, None)
        if entry is not None:
            self._pids[entry.named.pid] -= 1
            if not self._pids[entry.named.pid]:
                del self._pids[entry.named.pid]
        return entry
