"""The locker of ``global``: it locks this node's side and the other one's, so that the two can exchange names.

.. code-block:: text

    our locker                              his locker
    locks the boss of our side (its greatest name), then this node and his, then the rest of our side
    lock_set, true ───────────────────────►  locks the boss of his side, then his node, then the rest of it
                   ◄───────────────────────  lock_set, true; or false, if he cannot: we unlock, and try again later
    lock_is_set, to both name servers; and when those have done their part, both lockers unlock, the boss last

Both set the lock for the same requester, their two pids, so that a node of both sides lets both in. Whoever begins has
locked the other node as well, so no third one can lock the other side meanwhile without talking to this one first.

It does one thing after the other. A locker that waits for this one holds the lock of its whole side, so each
``lock_set`` is answered, and nothing here is waited for without end: neither for an answer to ``set_lock``, nor for
``lock_set``, nor for the exchange. A node that did not do its part is begun with later and later; when it begins
itself, it is answered at once.

Source: kernel/src/global.erl (``loop_the_locker``, ``select_node``, ``lock_nodes_safely``) of OTP 25 to 29.
"""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol

import trio

from . import _global_messages as messages
from ._global_calls import del_lock, try_lock
from ._global_core import Cancel, Candidate
from ._global_messages import GLOBAL, LockSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..runtime.process import Process
    from ..terms import Atom, Pid, Term

#: Seconds for name servers to answer, and for the other locker to lock its side.
LOCK_PATIENCE: Final = 5.0
#: Seconds after which an exchange that has not ended is looked at.
EXCHANGE_PATIENCE: Final = 30.0
#: Seconds before it begins with a node that did not do its part, twice as many after each time.
FIRST_DELAY: Final = 10.0
LAST_DELAY: Final = 600.0


class LockerPort(Protocol):
    """What the locker asks of its name server."""

    @property
    def known(self) -> Iterable[Atom]:
        """The other nodes of this side."""

    def may_lock(self, requester: Term) -> bool:
        """Whether the lock ``global`` of this node is free, or is held for ``requester``."""

    def is_locked(self) -> bool:
        """Whether the lock ``global`` of this node is held."""

    def locked(self, node: Atom, tag: int, requester: list[Pid]) -> None:
        """Both sides are locked. ``Cancel`` comes when that is needed no more."""

    def cast(self, node: Atom, message: Term) -> None:
        """Tell the name server of a node that is connected."""

    def warn(self, problem: str) -> None:
        """Tell whoever runs this node."""

    def timed_out(self, node: Atom, tag: int) -> None:
        """The other side has not gone on. If it is its turn, or the attempt is over, ``Cancel`` comes."""


class Locker:
    """The locker's process: :meth:`run` is its code, what comes from the name server are its messages.

    Args:
        port: The name server.
        lock_patience: Seconds; see ``LOCK_PATIENCE``.
        exchange_patience: Seconds; see ``EXCHANGE_PATIENCE``.
    """

    _process: Process

    def __init__(
        self, port: LockerPort, *, lock_patience: float = LOCK_PATIENCE, exchange_patience: float = EXCHANGE_PATIENCE
    ) -> None:
        self._port = port
        self._lock_patience = lock_patience
        self._exchange_patience = exchange_patience
        #: Node -> the candidate, and when it may be begun with.
        self._waiting: dict[Atom, tuple[Candidate, float]] = {}
        #: There is no reason to wait after a success.
        self._just_synced = False

    async def run(self, process: Process) -> None:
        """Take messages for ever; begin with a node that waits when there was none for a while."""
        self._process = process
        while True:
            pause, self._just_synced = self._pause(), False
            try:
                message = await process.receive(timeout=pause)
            except TimeoutError:
                await self._begin()
            else:
                await self._handle(message)

    def _pause(self) -> float | None:
        """Seconds, enough for the other nodes of this side to have their turn; None without anybody to begin with."""
        if not self._waiting:
            return None
        if self._just_synced:
            return 0.0
        known = len(list(self._port.known))
        usual = min(1.0 + 0.1 * known, 3.0) if known else 0.2
        return max(usual, min(after for _, after in self._waiting.values()) - trio.current_time())

    async def _handle(self, message: Any) -> None:
        match message:
            case Candidate():
                self._put(message)
            case Cancel(node, tag):
                self._remove(node, tag)
            case LockSet(locker, True, tag):
                await self._answer(locker, tag)
            # What else there is comes too late, or from strangers.

    def _put(self, him: Candidate) -> None:
        """From now on he is begun with, at once if nothing is held against him."""
        delay = min(FIRST_DELAY * 2 ** (him.failures - 1), LAST_DELAY) if him.failures else -math.inf
        self._waiting[him.node] = him, trio.current_time() + delay

    def _remove(self, node: Atom, tag: int) -> None:
        if node in self._waiting and self._waiting[node][0].tag == tag:
            del self._waiting[node]

    async def _begin(self) -> None:
        """Lock this side and the node of a candidate, then ask that one to lock its side."""
        if self._port.is_locked():
            return
        known, now = set(self._port.known), trio.current_time()
        self._waiting = {node: row for node, row in self._waiting.items() if node not in known}
        ready = [candidate for candidate, after in self._waiting.values() if after <= now]
        if not ready:
            return
        him = random.choice(ready)
        requester = messages.requester_of(self._process.pid, him.locker)
        try:
            nodes = await self._lock(requester, [him.node])
        except trio.TooSlowError:
            self._port.warn(
                f"a lock that is needed to meet {him.node.name} is neither given nor refused; once more later"
            )
            self._put(replace(him, failures=him.failures + 1))
            return
        if nodes is None:
            return
        self._send_lock_set(him, is_set=True)
        answer: LockSet | Cancel = await self._wait(
            him,
            self._lock_patience,
            lambda message: (
                (type(message) is LockSet and message.locker.node == him.node and message.tag in (None, him.tag))
                or _is_cancel(message, him)
            ),
        )
        if isinstance(answer, LockSet) and answer.is_set:
            await self._exchange(him, requester, nodes)
            return
        await self._unlock(requester, nodes)
        if isinstance(answer, Cancel):
            self._remove(him.node, him.tag)

    async def _answer(self, locker: Pid, tag: Term) -> None:
        """Another locker has locked its side, and waits for this one."""
        him, _ = self._waiting.get(locker.node, (None, 0.0))
        if him is None:
            # Its tag is not known here; the form before version 8 has none, and every locker takes that as well.
            if self._process.node.is_connected(locker.node):
                self._process.send(locker, messages.lock_set(self._process.pid, False, [], messages.OLDEST, None))
            return
        if tag not in (None, him.tag):
            return  # of an attempt that is over, for both
        requester = messages.requester_of(self._process.pid, locker)
        try:
            nodes = await self._lock(requester, [])
        except trio.TooSlowError:
            nodes = None
        self._send_lock_set(him, is_set=nodes is not None)
        if nodes is not None:
            await self._exchange(him, requester, nodes)

    async def _exchange(self, him: Candidate, requester: list[Pid], nodes: list[Atom]) -> None:
        """Both sides are locked: let the name servers do their part, then unlock."""
        self._port.locked(him.node, him.tag, requester)
        await self._wait(him, self._exchange_patience, lambda message: _is_cancel(message, him))
        await self._unlock(requester, nodes)
        self._remove(him.node, him.tag)
        self._just_synced = True

    async def _wait(self, him: Candidate, patience: float, match: Callable[[Term], bool]) -> Any:
        """The next message that matches; meanwhile the name server may find that this takes too long."""
        while True:
            try:
                return await self._process.receive(match, timeout=patience)
            except TimeoutError:
                self._port.timed_out(him.node, him.tag)

    def _send_lock_set(self, him: Candidate, *, is_set: bool) -> None:
        message = messages.lock_set(self._process.pid, is_set, self._port.known, him.version, him.his_tag)
        self._port.cast(him.node, message)

    # -- locking

    async def _lock(self, requester: list[Pid], extra: list[Atom]) -> list[Atom] | None:
        """Lock this side, and ``extra``.

        Returns:
            What is locked now; None if that was not to be had, and nothing is.

        Raises:
            TooSlowError: a node does not answer; nothing is locked then, either.
        """
        process = self._process
        me = process.node.name
        boss = max([me, *self._port.known], key=_name)
        if not self._port.may_lock(requester):
            return None
        locked: list[Atom] = []
        for step in range(3):
            nodes = ([boss], [me, *extra], self._port.known)[step]  # the last is what is known by then
            wanted = [node for node in nodes if node not in locked]
            done = False
            try:
                with trio.fail_after(self._lock_patience):
                    done = await try_lock(process.node, (GLOBAL, requester), wanted, process.pid)
            finally:
                if locked and not done:
                    await self._unlock(requester, locked)
            if not done:
                return None
            locked += wanted
        return locked

    async def _unlock(self, requester: list[Pid], nodes: list[Atom]) -> None:
        """The boss last: who has it gets the others as well. Nobody is dialled for it, since a loss frees the lock."""
        process, lock = self._process, (GLOBAL, requester)
        *others, boss = sorted(nodes, key=_name)
        for some in (others, [boss]):
            there = [node for node in some if node == process.node.name or process.node.is_connected(node)]
            with trio.move_on_after(self._lock_patience):
                await del_lock(process.node, lock, there, process.pid)


def _is_cancel(message: Term, him: Candidate) -> bool:
    return type(message) is Cancel and message.node == him.node and message.tag == him.tag


def _name(node: Atom) -> str:
    return node.name
