"""How a node that takes part in ``global`` changes names: it locks all that take part, and tells each of them.

.. code-block:: text

    {set_lock, {global, Registrar}}        to the boss (the greatest name), then to all
    {register, Name, Pid, Method} -> yes   to all; a name server takes it only from who holds that lock
    {unregister, Name} -> ok
    {del_lock, {global, Registrar}}        to the others, then to the boss

All begin with the same node, so that of two registrars one gets no further than that. A process that has ended loses
its names on every node by itself: each monitors it.

Source: kernel/src/global.erl (register_name/3, trans_all_known/1, set_lock_known/2, delete_global_lock/2).
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from ..terms import Atom
from ._global_calls import LockId, ask_all, back_off, del_lock, drop_lock, try_lock
from ._global_messages import GLOBAL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from ..runtime.node import Node
    from ..terms import Export, Pid, Term
    from .global_server import GlobalServer

_REGISTER: Final = Atom("register")
_REGISTER_EXT: Final = Atom("register_ext")
_UNREGISTER: Final = Atom("unregister")


class Registrar:
    """Changes the names that the cluster has; one change after the other.

    Args:
        node: This node.
        server: Its part of ``global``.
        holder: Gives a living process of this node, which holds the lock.
    """

    def __init__(self, node: Node, server: GlobalServer, holder: Callable[[], Pid]) -> None:
        self._node = node
        self.server = server
        self._holder = holder
        self._turn = trio.Lock()

    async def register(self, name: Term, pid: Pid, method: Export) -> bool:
        """``global:register_name/3``: False if the name is taken, or the process has another one."""
        async with self._locked() as tell:
            if self.server.whereis(name) is not None or self.server.has_name(pid):
                return False
            await tell((_REGISTER, name, pid, method))
        return True

    async def register_external(self, name: Term, pid: Pid, method: Export) -> bool:
        """``global:register_name_external/3``, for a process whose node takes no part: False if the name is taken."""
        async with self._locked() as tell:
            if self.server.whereis(name) is not None:
                return False
            await tell((_REGISTER_EXT, name, pid, method, self._node.name))
        return True

    async def re_register(self, name: Term, pid: Pid, method: Export) -> None:
        """``global:re_register_name/3``."""
        async with self._locked() as tell:
            await tell((_REGISTER, name, pid, method))

    async def unregister(self, name: Term) -> None:
        """``global:unregister_name/1``."""
        if self.server.whereis(name) is not None:
            async with self._locked() as tell:
                await tell((_UNREGISTER, name))

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[Callable[[Term], Awaitable[object]]]:
        """Lock all that take part; the block is given what tells them. They are freed the boss last."""
        async with self._turn:
            holder = self._holder()
            lock: LockId = (GLOBAL, holder)
            held = nodes = await self._lock_all(lock, holder)
            try:
                yield lambda request: ask_all(self._node, nodes, request, holder)
                await del_lock(self._node, lock, nodes[:-1], holder)
                held = nodes[-1:]
                await del_lock(self._node, lock, held, holder)
                held = []
            finally:
                drop_lock(self._node, lock, held, holder)

    async def _lock_all(self, lock: LockId, holder: Pid) -> list[Atom]:
        """The nodes that are locked now, the boss last."""
        times = 0
        while True:
            known = set(self.server.known)
            nodes = sorted({self._node.name, *known}, key=lambda name: name.name)
            if await try_lock(self._node, lock, nodes[-1:], holder):
                try:
                    # Who came meanwhile would not be told.
                    if await try_lock(self._node, lock, nodes, holder) and known.issuperset(self.server.known):
                        return nodes
                except BaseException:
                    drop_lock(self._node, lock, nodes[-1:], holder)
                    raise
                drop_lock(self._node, lock, nodes, holder)
            await back_off(times)
            times += 1
