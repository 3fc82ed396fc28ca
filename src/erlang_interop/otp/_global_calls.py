"""What a process asks of the name servers of ``global`` on several nodes at once, above all to set and delete locks.

.. code-block:: text

    {set_lock, {Resource, Requester}}    true | false      the process that asks holds the lock then
    {del_lock, {Resource, Requester}}    true
    any request                          nodes that cannot be reached, and those without a name server, do not count

A lock is on as many nodes as it was asked of, and given on all of them or on none. There is no queue: who does not get
it tries again later, after a random time, so that two that each have some of it do not meet for ever.

Source: kernel/src/global.erl (set_lock/4, set_lock_on_nodes/2, check_replies/3, random_sleep/1) of OTP 25 to 29.
"""

from __future__ import annotations

import random
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from ..errors import CalleeExited, NodeDownError, NoProcess
from ..runtime.inline import InlineServer
from ..terms import Atom, ImproperList
from . import gen
from .passive import GLOBAL_NAME_SERVER

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..runtime.node import Node
    from ..terms import Pid, Term

#: ``(resource, requester)``.
LockId: TypeAlias = "tuple[Term, Term]"

_ALIAS: Final = Atom("alias")
_SET_LOCK: Final = Atom("set_lock")
_DEL_LOCK: Final = Atom("del_lock")
#: Seconds that the first sleep takes at most; the next ones up to twice as long, and never more than LONGEST_SLEEP.
SHORTEST_SLEEP: Final = 0.125
LONGEST_SLEEP: Final = 8.0


class Holder(InlineServer):
    """A process that holds locks, and is sent nothing: answers go to those who wait for them."""

    def handle_message(self, message: Term) -> None:
        """Whatever a stranger sends is dropped."""


async def ask_all(node: Node, nodes: Iterable[Atom], request: Term, asker: Pid) -> dict[Atom, Term]:
    """``gen_server:multi_call/3``: ask the name servers, all at once, until each has answered or cannot any more.

    Args:
        nodes: Those that are not connected are dialled.
        request: A term that can be sent.
        asker: The process for which they are asked: the one that holds a lock, or registers.

    Returns:
        The answers, without those of nodes that gave none.
    """
    answers: dict[Atom, Term] = {}

    async def ask(name: Atom) -> None:
        with suppress(NoProcess, NodeDownError, CalleeExited):  # who is not there has no say, as in OTP's multi_call
            answers[name] = await gen.call(node, (GLOBAL_NAME_SERVER, name), request, None, asker=asker)

    async with trio.open_nursery() as asking:
        for name in dict.fromkeys(nodes):
            asking.start_soon(ask, name)
    return answers


async def set_lock(node: Node, lock: LockId, nodes: list[Atom], retries: int | None, holder: Pid) -> bool:
    """``global:set_lock/3``: set a lock on all of ``nodes``.

    Args:
        retries: Attempts after the first one; None: until it is set.
        holder: The process of this node that holds it then; its end frees it.

    Returns:
        False: others have had it each time. It is then set nowhere, as after a cancellation.
    """
    attempts = 0
    while not await try_lock(node, lock, nodes, holder):
        if attempts == retries:
            return False
        attempts += 1
        await back_off(attempts)
    return True


async def try_lock(node: Node, lock: LockId, nodes: list[Atom], holder: Pid) -> bool:
    """One attempt: the lock is set on all of ``nodes`` that have a say, or on none."""
    try:
        answers = await ask_all(node, nodes, (_SET_LOCK, lock), holder)
    except BaseException:
        drop_lock(node, lock, nodes, holder)
        raise
    taken = [name for name, answer in answers.items() if answer is True]
    if len(taken) == len(answers):
        return True
    await del_lock(node, lock, taken, holder)
    return False


async def del_lock(node: Node, lock: LockId, nodes: Iterable[Atom], holder: Pid) -> None:
    """``global:del_lock/2``: free a lock, and wait until that is done. When this is cancelled, it was asked for."""
    await ask_all(node, nodes, (_DEL_LOCK, lock), holder)


def drop_lock(node: Node, lock: LockId, nodes: Iterable[Atom], holder: Pid) -> None:
    """Free a lock without waiting; also where it was asked for and the connection is only being made."""
    for name in nodes:
        # The answer is for an alias that nobody has, so it is dropped on arrival.
        from_ = (holder, ImproperList([_ALIAS], node.make_ref()))
        node.send((GLOBAL_NAME_SERVER, name), (gen.GEN_CALL, from_, (_DEL_LOCK, lock)))


async def back_off(times: int) -> None:
    """Sleep for a random time before attempt ``times`` + 1: up to 1/8 s at first, up to 8 s in the end."""
    longest = LONGEST_SLEEP if times > 5 else SHORTEST_SLEEP * 2**times
    await trio.sleep(random.uniform(0.0, longest))
