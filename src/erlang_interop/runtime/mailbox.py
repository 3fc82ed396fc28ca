"""The mailbox of one process: unbounded, in arrival order, with selective receive.

A deque and one parked task. A trio memory channel in this place costs a scheduler pass for every message; here
the owner is woken once, however many messages one read from a socket brings.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..terms import Term

#: A receive that finds a message returns without a checkpoint; every so many messages it takes one, so that a
#: process with a full mailbox cannot keep the others from running.
CHECKPOINT_EVERY: Final = 64


class Mailbox:
    """Messages waiting for one process. Only the process's own task receives; anyone on the loop may put."""

    __slots__ = ("_messages", "_served", "_waiter")

    def __init__(self) -> None:
        self._messages: deque[Term] = deque()
        self._waiter: trio.lowlevel.Task | None = None
        self._served = 0

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, message: Term) -> None:
        """Append ``message`` and wake the owner if it waits. Never blocks."""
        self._messages.append(message)
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            trio.lowlevel.reschedule(waiter)

    def get_nowait(self) -> Term:
        """The oldest message.

        Raises:
            trio.WouldBlock: the mailbox is empty.
        """
        if not self._messages:
            raise trio.WouldBlock
        return self._messages.popleft()

    def may_take(self) -> bool:
        """Whether there is a message and the next receive owes no checkpoint: ``get_nowait`` is as good as ``get``."""
        if self._messages and self._served < CHECKPOINT_EVERY - 1:
            self._served += 1
            return True
        return False

    async def get(self, match: Callable[[Term], bool] | None = None) -> Term:
        """Wait for the oldest message for which ``match`` is true; the others stay, in order."""
        self._served += 1
        if self._served >= CHECKPOINT_EVERY:
            self._served = 0
            await trio.lowlevel.checkpoint()  # before a message is taken: a cancelled receive loses none
        messages = self._messages
        if match is None:
            while not messages:
                await self._park()
            return messages.popleft()
        passed_over: deque[Term] = deque()
        try:
            while True:
                while messages:
                    message = messages.popleft()
                    passed_over.append(message)  # so that it stays if ``match`` raises
                    if match(message):
                        passed_over.pop()
                        return message
                await self._park()
        finally:
            messages.extendleft(reversed(passed_over))

    def discard(self, match: Callable[[Term], bool]) -> int:
        """Remove the messages for which ``match`` is true; how many there were."""
        kept = [message for message in self._messages if not match(message)]
        removed = len(self._messages) - len(kept)
        if removed:
            self._messages.clear()
            self._messages.extend(kept)
        return removed

    async def _park(self) -> None:
        if self._waiter is not None:
            raise RuntimeError("two tasks receive from one mailbox: only the process's own task may")
        self._waiter = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._waiter = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
