"""``syn:multi_call``: ask all members of a group at once, and be one of those who answer.

.. code-block:: text

    Member ! {syn_multi_call, Message, {Caller, Ref}, Meta}        Meta: the member's own, as the caller knows it
    Caller ! {syn_multi_call_reply, Ref, Reply}

Source: syn 3.3.0, observed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import trio

from erlang_interop import InlineServer
from erlang_interop.terms import Atom, Pid, Reference

from ..pacing import SLICE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from erlang_interop import LocalProcess, Node
    from erlang_interop.terms import Term

    from .pg import Member

_CALL: Final = Atom("syn_multi_call")
_REPLY: Final = Atom("syn_multi_call_reply")
_DOWN: Final = Atom("DOWN")
_NORMAL: Final = Atom("normal")

#: Who asks, and for what: the third element of a ``syn_multi_call``.
Caller: TypeAlias = "tuple[Pid, Reference]"


class Replies(NamedTuple):
    """What came of a ``multi_call``, each in the order of the members' pids."""

    replies: list[tuple[Member, Any]]
    """Who has answered, and what."""
    bad: list[Member]
    """Who has not, or has ended before."""


def multi_call_reply(replier: Node | LocalProcess, caller: Caller, reply: Term) -> None:
    """``syn:multi_call_reply/2``: answer a ``multi_call``, from a member of whatever scope.

    .. code-block:: python

        match await process.receive():
            case (Atom("syn_multi_call"), message, caller, meta):
                multi_call_reply(process, caller, answer_to(message))

    Args:
        replier: Who sends it: the member; or the node, for code that is no process.
        caller: The third element of what the member has received.
        reply: Any term.

    Raises:
        EncodeError: no external term can carry the reply; nothing was sent.
    """
    pid, ref = caller
    replier.send(pid, (_REPLY, ref, reply))


async def multi_call(node: Node, members: Iterable[Member], message: Term, timeout: float) -> Replies:
    """Ask some processes; for :meth:`Scope.multi_call`."""
    asking = _Asking(members)
    node.start_inline(asking)
    try:
        with trio.move_on_after(timeout):
            await asking.ask(message)
            await asking.done.wait()
    finally:
        # Its monitors go with it, and what is answered now is dropped.
        asking.process.exit(asking.process.pid, _NORMAL)
    return asking.result()


class _Asking(InlineServer):
    """The process that asks."""

    def __init__(self, members: Iterable[Member]) -> None:
        self._members = list(members)
        self._asked: dict[Reference, Member] = {}
        self._answers: dict[Reference, Any] = {}
        self._ended: set[Reference] = set()
        self.done = trio.Event()

    async def ask(self, message: Term) -> None:
        """Ask each of them, and give others their turn meanwhile."""
        for number, member in enumerate(self._members, start=1):
            ref = self.process.monitor(member.pid)  # for one that has ended, the DOWN may have come by now
            self._asked[ref] = member
            self.process.send(member.pid, (_CALL, message, (self.process.pid, ref), member.meta))
            if number % SLICE == 0:
                await trio.lowlevel.checkpoint()
        self._finish()

    def handle_message(self, message: Term) -> None:
        """An answer, or the end of one who was to give it."""
        match message:
            case (what, Reference() as ref, reply) if what == _REPLY and ref in self._asked and ref not in self._ended:
                self._answers.setdefault(ref, reply)
                self.process.demonitor(ref)
            case (what, Reference() as ref, _, _, _) if what == _DOWN and ref not in self._answers:
                self._ended.add(ref)
        self._finish()

    def _finish(self) -> None:
        if len(self._answers) + len(self._ended) >= len(self._members):
            self.done.set()

    def result(self) -> Replies:
        """Who has answered what by now."""
        replies = [(member, self._answers[ref]) for ref, member in self._asked.items() if ref in self._answers]
        answered = {member.pid for member, _ in replies}
        return Replies(replies, [member for member in self._members if member.pid not in answered])
