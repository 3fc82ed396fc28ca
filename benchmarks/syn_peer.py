"""Our end of syn's workloads: what ``bench_syn_peer`` of rebar_fixtures does, with ``zenmon_node``.

:mod:`benchmarks.peer` hands the requests over; ``bench_syn_peer`` lists them with their answers.
"""

from __future__ import annotations

import time
import tracemalloc
from typing import TYPE_CHECKING, Final

import trio

from benchmarks.zen_peer import OK, memory
from erlang_interop import Atom
from zenmon_node import Scope, open_scope

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from erlang_interop import Node, Pid, Reference, Term

SCOPE: Final = Atom("bench_syn")
NAME: Final = Atom("name")
GROUP: Final = Atom("group")
UNDEFINED: Final = Atom("undefined")
UPDATED: Final = Atom("updated")
LIMIT_S: Final = 60.0
#: Seconds between two looks, as ``polling`` of rebar_fixtures has them.
POLL_S: Final = 0.002


class SynPeer:
    """The requests of ``bench_syn``.

    Args:
        node: The node.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._scope: Scope
        self._closing = trio.Event()
        self._closed = trio.Event()
        self._pids: list[Pid] = []

    def handle(self, sender: Pid, ref: Reference, request: Term) -> None:
        """Have one request carried out and answered."""
        self._node.start_task(self._answer, sender, ref, request)

    async def _answer(self, sender: Pid, ref: Reference, request: Term) -> None:
        answer = await self._carry_out(request)
        self._node.send(sender, (ref, answer))

    async def _carry_out(self, request: Term) -> Term:
        match request:
            case Atom("start"):
                await self._open()
                return OK
            case Atom("stop"):
                self._closing.set()
                await self._closed.wait()
                return OK
            case (Atom("pids"), pids):
                self._pids = pids
                return OK
            case (Atom("all"), what):
                return await self._do_all(what)
            case (Atom("register_theirs"), pids):
                return await microseconds(self._register_theirs, pids)
            case (Atom("lookup"), times):
                return await microseconds(self._look_up, times)
            case Atom("members"):
                start = time.perf_counter_ns()
                count = len(self._scope.members((GROUP, 0)))
                return (time.perf_counter_ns() - start) // 1000, count
            case Atom("publish"):
                start = time.perf_counter_ns()
                count = await self._scope.local_publish((GROUP, 0), Atom("hello"))
                return (time.perf_counter_ns() - start) // 1000, count
            case (Atom("entries"), kind):
                return self._entries(kind)
            case (Atom("await"), Atom("registry"), name, pid):
                await until(lambda: self._scope.lookup(name) == (pid, UNDEFINED))
                return OK
            case (Atom("await"), Atom("pg"), group, pid):
                await until(lambda: self._scope.is_member(group, pid))
                return OK
            case (Atom("await_alone"), kind):
                await until(lambda: not self._scope.subcluster_nodes(kind.name) and self._is_empty(kind))
                return OK
            case Atom("memory_begin"):
                tracemalloc.start()
                return memory()
            case Atom("memory_end"):
                used = memory()
                tracemalloc.stop()
                return used
        raise ValueError(f"no request of bench_syn: {request!r}")

    async def _open(self) -> None:
        """Be in the scope until the driver says that this is enough."""
        opened = trio.Event()
        self._closing, self._closed = trio.Event(), trio.Event()

        async def stay() -> None:
            async with open_scope(self._node, SCOPE) as self._scope:
                opened.set()
                await self._closing.wait()
            self._closed.set()

        self._node.start_task(stay)
        await opened.wait()

    def _entries(self, kind: Atom) -> int:
        scope = self._scope
        if kind.name == "registry":
            return scope.registry_count()
        return sum(scope.member_count(group) for group in scope.group_names())

    def _is_empty(self, kind: Atom) -> bool:
        return not (self._scope.registry_count() if kind.name == "registry" else self._scope.group_count())

    async def _do_all(self, what: Term) -> int:
        scope = self._scope
        match what:
            case Atom("register"):
                return await microseconds(self._for_all, lambda index, pid: scope.register((NAME, index), pid))
            case Atom("update"):
                return await microseconds(self._for_all, lambda index, pid: scope.register((NAME, index), pid, UPDATED))
            case Atom("unregister"):
                return await microseconds(self._for_all, lambda index, pid: scope.unregister((NAME, index)))
            case (Atom("join"), groups):
                return await microseconds(self._for_all, lambda index, pid: scope.join((GROUP, index % groups), pid))
            case (Atom("leave"), groups):
                return await microseconds(self._for_all, lambda index, pid: scope.leave((GROUP, index % groups), pid))
        raise ValueError(f"nothing that is done with all processes: {what!r}")

    async def _for_all(self, work: Callable[[int, Pid], Awaitable[None]]) -> None:
        for index, pid in enumerate(self._pids, start=1):
            await work(index, pid)

    async def _register_theirs(self, pids: list[Pid]) -> None:
        for pid in pids:
            await self._scope.register(pid, pid)

    async def _look_up(self, times: int) -> None:
        for index in range(1, times + 1):
            assert self._scope.lookup((NAME, index)) is not None


async def microseconds(work: Callable[..., Awaitable[None]], *arguments: object) -> int:
    """How long it takes; at least one."""
    start = time.perf_counter_ns()
    await work(*arguments)
    return max(1, (time.perf_counter_ns() - start) // 1000)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for it: no event tells."""
    with trio.fail_after(LIMIT_S):
        while not condition():  # noqa: ASYNC110 - see above
            await trio.sleep(POLL_S)
