"""The mailbox of one process: unbounded, in arrival order, with selective receive.

A deque and one parked task. A trio memory channel in this place costs a scheduler pass for every message; here
the owner is woken once, however many messages one read from a socket brings.

Most messages lie in the deque as they are. One that came as a priority message, or with a trace token, lies there in a
:class:`Marked`; as long as there is one, ``marked`` is true, and only then anything is done about it. Priority messages
are a queue of their own, before the others.

Source: ERTS manual, "Processes", "Adding Messages to the Message Queue"; EEP 76.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..terms import Term

#: A receive that finds a message returns without a checkpoint; every so many messages it takes one, so that a
#: process with a full mailbox cannot keep the others from running.
CHECKPOINT_EVERY: Final = 64


@final
class _Unchanged:
    """The type of :data:`UNCHANGED`."""

    def __repr__(self) -> str:
        return "UNCHANGED"


#: In place of a token: to receive this message leaves the receiver's trace token as it is. That is so with the messages
#: that the system makes, DOWN among them, while one that was sent without a token takes the receiver's away.
UNCHANGED: Final[Any] = _Unchanged()


@final
class Marked:
    """A message and what came with it.

    Attributes:
        message: The message.
        token: The trace token it was sent with, None, or :data:`UNCHANGED`.
        priority: Whether it goes before all ordinary messages.
    """

    __slots__ = ("message", "priority", "token")

    def __init__(self, message: Term, token: Any, priority: bool) -> None:
        self.message = message
        self.token = token
        self.priority = priority


class Mailbox:
    """Messages waiting for one process. Only the process's own task receives; anyone on the loop may put.

    Args:
        received: Called with the token of each message that is taken while ``marked`` is true (None for one without);
            returns whether the owner has a trace token now.

    Attributes:
        marked: Whether a message in here has something beside it, or the owner has a trace token, which the next
            message may take away.
    """

    __slots__ = ("_first", "_marks", "_messages", "_received", "_served", "_waiter", "marked")

    def __init__(self, received: Callable[[Any], bool] | None = None) -> None:
        self._messages: deque[Any] = deque()
        self._waiter: trio.lowlevel.Task | None = None
        self._served = 0
        self._received = received
        self.marked = False
        #: Priority messages, once one has come, and how many of the others are a Marked.
        self._first: deque[Marked] | None = None
        self._marks = 0

    def __len__(self) -> int:
        return len(self._messages) + (len(self._first) if self._first else 0)

    def put(self, message: Term) -> None:
        """Append ``message`` and wake the owner if it waits. Never blocks."""
        self._messages.append(message)
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            trio.lowlevel.reschedule(waiter)

    def put_marked(self, message: Marked) -> None:
        """As ``put``. A priority message goes behind the priority messages that wait, before all others."""
        self.marked = True
        if message.priority:
            if self._first is None:
                self._first = deque()
            self._first.append(message)
        else:
            self._marks += 1
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
        if self.marked:
            return self._get_marked_nowait()
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
        if match is None:
            messages = self._messages
            while not messages and not self._first:
                await self._park()
            return self.get_nowait()
        # What is looked at is set aside, and what comes meanwhile is looked at next: nothing is looked at twice.
        seen = deque[Any]()
        messages = self.set_aside()
        try:
            while True:
                if self.marked and self._first:
                    for index, first in enumerate(self._first):
                        if match(first.message):
                            del self._first[index]
                            return self._taken(first)
                index = _index(messages, match, self.marked)
                if index >= 0:
                    message = messages[index]
                    del messages[index]
                    return self._taken(message) if self.marked else message
                seen, messages = _joined(seen, messages), deque()
                if not self._messages:
                    await self._park()
                messages = self.set_aside()
        finally:
            self.put_back(_joined(seen, messages))

    def set_aside(self) -> deque[Any]:
        """Take all ordinary messages out, to be given to :meth:`put_back`. It costs the same however many they are.

        Between the two what comes can be received without a look at what was there: for an answer, which can only come
        once the question was asked (a BEAM has its receive markers for that).
        """
        messages, self._messages = self._messages, deque()
        return messages

    def put_back(self, messages: deque[Any]) -> None:
        """Put what was set aside back in front of what has come meanwhile."""
        messages.extend(self._messages)
        self._messages = messages

    def _get_marked_nowait(self) -> Term:
        if self._first:
            return self._taken(self._first.popleft())
        if not self._messages:
            raise trio.WouldBlock
        return self._taken(self._messages.popleft())

    def _taken(self, message: Any) -> Term:
        """What there is to do for a message that was taken out while ``marked`` is true. Returns the bare message."""
        token = None
        if type(message) is Marked:
            if not message.priority:
                self._marks -= 1
            token, message = message.token, message.message
        traced = self._received is not None and self._received(token)
        self.marked = traced or self._marks > 0 or bool(self._first)
        return message

    def discard_first(self, match: Callable[[Term], bool]) -> bool:
        """Remove the oldest message for which ``match`` is true, and look no further; whether there was one."""
        if self._first:
            index = _index(self._first, match, True)
            if index >= 0:
                del self._first[index]
                return True
        index = _index(self._messages, match, self.marked)
        if index < 0:
            return False
        if type(self._messages[index]) is Marked:
            self._marks -= 1
        del self._messages[index]
        return True

    def discard(self, match: Callable[[Term], bool]) -> int:
        """Remove the messages for which ``match`` is true; how many there were."""
        before = len(self)
        kept = [message for message in self._messages if not match(_bare(message))]
        if len(kept) < len(self._messages):
            self._messages.clear()
            self._messages.extend(kept)
            self._marks = sum(type(message) is Marked for message in kept)
        if self._first:
            self._first = deque(message for message in self._first if not match(message.message))
        return before - len(self)

    async def _park(self) -> None:
        if self._waiter is not None:
            raise RuntimeError("two tasks receive from one mailbox: only the process's own task may")
        self._waiter = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._waiter = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)


def _index(messages: deque[Any], match: Callable[[Term], bool], marked: bool) -> int:
    """Where the oldest message is for which ``match`` is true; -1 if there is none."""
    if marked:
        return next((index for index, message in enumerate(messages) if match(_bare(message))), -1)
    for index, message in enumerate(messages):
        if match(message):
            return index
    return -1


def _joined(older: deque[Any], newer: deque[Any]) -> deque[Any]:
    """Both, in one of the two: nothing is copied where nothing is older."""
    if not older:
        return newer
    older.extend(newer)
    return older


def _bare(message: Any) -> Term:
    """The message itself, whatever lies beside it."""
    bare: Term = message.message if type(message) is Marked else message
    return bare
