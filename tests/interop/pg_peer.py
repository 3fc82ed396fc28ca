"""A scope of genuine ``pg`` on a BEAM, beside one of ours: what the tests of ``pg`` share."""

from __future__ import annotations

import itertools
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from erlang_interop import Atom, Pid
from tests.interop.collectors import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from erlang_interop import Pg, Process, Term
    from erlang_interop.testing.beam import Beam

_numbers = itertools.count(1)


def new_scope() -> Atom:
    """A scope's name that no other test has."""
    return Atom(f"scope_{next(_numbers)}")


async def wait(process: Process) -> None:
    await trio.sleep_forever()


class BeamScope:
    """The scope ``name`` on ``beam``, started by :func:`scope_on` or :meth:`start`."""

    def __init__(self, beam: Beam, name: Atom) -> None:
        self.beam = beam
        self.name = name

    async def start(self) -> Pid:
        started, pid = await self.call("start")
        assert started == Atom("ok")
        assert isinstance(pid, Pid)
        return pid

    async def call(self, function: str, *arguments: Term) -> Any:
        """``pg:function(Scope, Arguments...)``."""
        return await self.beam.eval("apply(pg, F, [S | A])", F=Atom(function), S=self.name, A=list(arguments))

    async def pid(self) -> Any:
        return await self.beam.eval("whereis(S)", S=self.name)

    async def spawn(self, count: int = 1) -> list[Pid]:
        """Processes there that do nothing."""
        source = "[spawn(fun() -> receive stop -> ok end end) || _ <- lists:seq(1, N)]"
        pids = await self.beam.eval(source, N=count)
        assert isinstance(pids, list)
        return pids

    async def kill(self, *pids: Pid) -> None:
        await self.beam.eval("[exit(P, kill) || P <- Ps]", Ps=list(pids))

    async def has(self, group: Term, members: Iterable[Pid]) -> None:
        """Return when the group has exactly these members there."""
        expected = Counter(members)

        async def so() -> bool:
            return Counter(await self.call("get_members", group)) == expected

        await until(so)

    async def has_groups(self, *groups: Term) -> None:
        """Return when exactly these groups are there."""
        source = "lists:sort(pg:which_groups(S)) =:= lists:sort(Gs)"

        async def so() -> bool:
            return await self.beam.eval(source, S=self.name, Gs=list(groups)) is True

        await until(so)


@asynccontextmanager
async def scope_on(beam: Beam, name: Atom | None = None) -> AsyncIterator[BeamScope]:
    """A scope on a BEAM for as long as the block runs; it must be the same process at the end."""
    scope = BeamScope(beam, name or new_scope())
    pid = await scope.start()
    yield scope
    assert await scope.pid() == pid, "pg has crashed there"
    await beam.eval("gen_server:stop(S)", S=scope.name)


async def has(pg: Pg, group: Term, members: Iterable[Pid]) -> None:
    """Return when the group has exactly these members here."""
    expected = Counter(members)
    await until(lambda: Counter(pg.members(group)) == expected)


async def all_have(scopes: Iterable[Pg | BeamScope], group: Term, members: Iterable[Pid]) -> None:
    """Return when the group has exactly these members everywhere."""
    members = list(members)
    for scope in scopes:
        if isinstance(scope, BeamScope):
            await scope.has(group, members)
        else:
            await has(scope, group, members)
