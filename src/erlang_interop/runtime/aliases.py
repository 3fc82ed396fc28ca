"""Aliases: references that stand for a process for as long as it wants.

A message sent to an alias arrives while the alias is active and is dropped afterwards, which is what keeps the late
answer to a call that has timed out from its caller's mailbox. How an alias ends is its mode.

Source: ERTS manual, "Process Aliases"; ``erlang:alias/1``, ``erlang:monitor/3``; EEP 76 for the priority ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ..terms import Pid, Reference, Term
    from .process import LocalProcess
    from .signals import Router

#: The modes of an alias that end with its first message, and those that end with its monitor (erlang:monitor/3).
_REPLY_MODES: Final = frozenset({"reply", "reply_demonitor"})
_MONITOR_MODES: Final = frozenset({"demonitor", "reply_demonitor"})
ALIAS_MODES: Final = frozenset({"explicit_unalias", "reply", "demonitor", "reply_demonitor"})


class Aliases:
    """The active aliases of the processes of one node."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._table: dict[Reference, tuple[LocalProcess, str, bool]] = {}

    def __len__(self) -> int:
        return len(self._table)

    def __contains__(self, ref: Reference) -> bool:
        return ref in self._table

    def add(
        self, process: LocalProcess, mode: str, ref: Reference | None = None, *, priority: bool = False
    ) -> Reference:
        """Make ``ref``, or a new reference, an alias of ``process`` (``alias/1``, or with a monitor ``monitor/3``).

        Args:
            priority: Whether priority messages sent to it are received as such.
        """
        if mode not in ALIAS_MODES:
            raise ValueError(f"alias mode {mode!r} is none of {', '.join(sorted(ALIAS_MODES))}")
        ref = ref or self._router.make_ref()
        self._table[ref] = (process, mode, priority)
        process.aliases[ref] = None
        return ref

    def remove(self, process: LocalProcess, ref: Reference) -> bool:
        """End an alias; True if it was one of ``process`` (``unalias/1``)."""
        entry = self._table.get(ref)
        if entry is None or entry[0] is not process:
            return False
        del self._table[ref]
        del process.aliases[ref]
        return True

    def monitor_ended(self, process: LocalProcess, ref: Reference) -> None:
        """The monitor whose reference is ``ref`` has fired or was taken back: so ends its alias, in two modes."""
        entry = self._table.get(ref)
        if entry is not None and entry[1] in _MONITOR_MODES:
            self.remove(process, ref)

    def owner_ended(self, process: LocalProcess) -> None:
        """The process is no more."""
        for ref in process.aliases:
            self._table.pop(ref, None)
        process.aliases.clear()

    def deliver(
        self,
        ref: Reference,
        message: Term,
        token: Any = None,
        priority: bool = False,
        sender: Pid | None = None,
    ) -> None:
        """Hand ``message`` to the process whose alias ``ref`` is; to nobody when it is no alias (any more).

        Args:
            token: The trace token it was sent with, if it was.
            priority: Whether it was sent as a priority message: a priority alias receives it as one.
            sender: Who sent it.
        """
        entry = self._table.get(ref)
        if entry is None:
            return
        process, mode, prioritized = entry
        if mode in _REPLY_MODES:
            self.remove(process, ref)
            if mode in _MONITOR_MODES:
                self._router.demonitor(process, ref)
        if token is None and not (priority and prioritized):
            process.deliver(message, sender)
        else:
            process.deliver_marked(message, token, priority and prioritized)

    def exit(self, sender: Pid, ref: Reference, reason: Term, token: Any = None, priority: bool = False) -> None:
        """``exit/2,3`` to an alias. Unlike a message it leaves an alias of mode ``reply`` active."""
        entry = self._table.get(ref)
        if entry is not None:
            self._router.exit_signal(
                entry[0], sender, reason, linked=False, token=token, priority=priority and entry[2]
            )
