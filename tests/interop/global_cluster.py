"""What tests of ``global`` share: BEAMs that are one cluster, who has a name there, and who a lock."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Final

import trio

from erlang_interop import Atom, Pid, Process
from tests.interop.collectors import until

if TYPE_CHECKING:
    from erlang_interop import Term
    from erlang_interop.testing.beam import Beam

NO: Final = Atom("no")
YES: Final = Atom("yes")
UNDEFINED: Final = Atom("undefined")

#: True as soon as ``N`` takes part in global with this BEAM.
KNOWN: Final = """
    polling:until(fun() -> lists:member(N, gen_server:call(global_name_server, get_known, infinity)) end, 20000)
"""

_numbers = itertools.count(1)


def new_atom(prefix: str = "py_name") -> Atom:
    """A name that no other test has: the BEAMs serve several."""
    return Atom(f"{prefix}_{os.getpid()}_{next(_numbers)}")


async def joined(one: Beam, two: Beam) -> None:
    """Return when two BEAMs have exchanged their names."""
    assert await one.eval("net_kernel:connect_node(N)", N=Atom(two.name)) is True
    for beam, other in ((one, two), (two, one)):
        assert await beam.eval(KNOWN, N=Atom(other.name)) is True


async def whereis(beam: Beam, name: Term) -> Term:
    return await beam.eval("global:whereis_name(N)", N=name)


async def has(beam: Beam, name: Term, pid: Pid | Atom) -> None:
    """Return when ``beam`` finds ``pid`` under ``name``."""

    async def found() -> bool:
        return bool(await whereis(beam, name) == pid)

    await until(found)


async def lock_of(beam: Beam, resource: Term) -> list[tuple[Term, list[Pid]]]:
    """The requester of a lock and who holds it."""
    rows = await beam.eval("ets:lookup(global_locks, R)", R=resource)
    assert isinstance(rows, list)
    return [(requester, [pid for pid, _ref in holders]) for _resource, requester, holders in rows]


async def is_free(beam: Beam, resource: Term) -> None:
    """Return when nobody holds the lock on ``beam``."""

    async def free() -> bool:
        return await lock_of(beam, resource) == []

    await until(free)


async def wait(_process: Process) -> None:
    await trio.sleep_forever()
