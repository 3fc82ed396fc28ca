"""What becomes of the global names of processes outside the mesh when BEAMs and links are lost; docs/global.md says it.

A hidden BEAM shows what OTP does. It registers its processes as a hidden and a passive node of ours do, through a BEAM
of the cluster (``global:register_name_external``), and everything happens to the three of them at once.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from erlang_interop import Atom, GlobalNameTaken, Node, Pid
from tests.interop.collectors import PATIENCE, collecting, has_lost, is_among_nodes, until
from tests.interop.global_cluster import NO, UNDEFINED, YES, has, joined, new_atom, wait, whereis

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import pytest

    from erlang_interop import Process, Term
    from erlang_interop.testing.beam import Beam
    from tests.conftest import BeamFactory
    from tests.interop.collectors import Collector
    from tests.interop.conftest import NodeOpener

NOCONNECTION = Atom("noconnection")


@dataclass
class Outsider:
    """A node outside the mesh, with two processes; one traps exits and the other does not."""

    name: str
    pid: Pid
    plain: Pid
    connect: Callable[[str], Awaitable[object]]
    connected: Callable[[], Awaitable[list[Atom]]]
    register: Callable[[Beam, Atom, Pid], Awaitable[bool]]
    alive: Callable[[Pid], Awaitable[bool]]
    exit_signal: Callable[[], Awaitable[Term]]
    #: The names of the two.
    kept: Atom = field(default_factory=new_atom)
    lost: Atom = field(default_factory=new_atom)

    async def cut_from(self, beam: Beam) -> None:
        """Return when both know that the connection is lost."""
        await beam.eval("erlang:disconnect_node(N)", N=Atom(self.name))
        await has_lost(beam, self.name)
        await self.has_lost(beam)

    async def has_lost(self, beam: Beam) -> None:
        async def so() -> bool:
            return Atom(beam.name) not in await self.connected()

        await until(so)

    async def has_ended(self, pid: Pid) -> None:
        async def so() -> bool:
            return not await self.alive(pid)

        await until(so)

    async def is_back(self, beam: Beam) -> None:
        await self.connect(beam.name)
        assert await is_among_nodes(beam, self.name)


async def hidden_beam(beam: Beam, there: Collector) -> Outsider:
    """What OTP does."""
    await there.trap_exit()
    plain = await beam.eval("spawn(fun() -> receive stop -> ok end end)")

    async def connect(name: str) -> object:
        return await beam.eval("true = net_kernel:connect_node(N)", N=Atom(name))

    async def connected() -> list[Atom]:
        return list(await beam.eval("nodes(connected)"))

    async def register(through: Beam, name: Atom, pid: Pid) -> bool:
        source = "rpc:call(Through, global, register_name_external, [N, P])"
        answer = await beam.eval(source, Through=Atom(through.name), N=name, P=pid)
        assert answer in (YES, NO)
        return bool(answer == YES)

    async def alive(pid: Pid) -> bool:
        return await beam.eval("is_process_alive(P)", P=pid) is True

    async def exit_signal() -> Term:
        (message,) = await there.take(1)
        return message

    return Outsider(beam.name, there.pid, plain, connect, connected, register, alive, exit_signal)


async def ours(node: Node, process: Process) -> Outsider:
    process.trap_exit = True

    async def connected() -> list[Atom]:
        return node.nodes("connected")

    async def register(through: Beam, name: Atom, pid: Pid) -> bool:
        try:
            await node.global_names.register(name, pid, through=through.name)
        except GlobalNameTaken:
            return False
        return True

    async def alive(pid: Pid) -> bool:
        return node.is_alive(pid)

    async def exit_signal() -> Term:
        return await process.receive(timeout=PATIENCE)

    return Outsider(
        node.name.name, process.pid, node.spawn(wait), node.connect, connected, register, alive, exit_signal
    )


async def logged(caplog: pytest.LogCaptureFixture, *parts: str) -> None:
    """Return when one line of ours, and no more, has all these parts."""

    def so() -> bool:
        lines = [record.getMessage() for record in caplog.records if record.name == "erlang_interop.global"]
        return sum(all(part in line for part in parts) for line in lines) == 1

    await until(so)


async def test_names_from_outside_are_dropped_as_otp_drops_them(
    opened: NodeOpener, fresh_beam: BeamFactory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "erlang_interop.global")
    one, two, outside = fresh_beam(), fresh_beam(), fresh_beam(hidden=True)
    await joined(one, two)
    async with (
        collecting(outside) as there,
        opened() as hidden,
        hidden.open_process() as of_hidden,
        opened(visible="passive") as passive,
        passive.open_process() as of_passive,
    ):
        outsiders = [await hidden_beam(outside, there), await ours(hidden, of_hidden), await ours(passive, of_passive)]
        for each in outsiders:
            await each.is_back(one)
            await each.is_back(two)
            assert await each.register(one, each.kept, each.pid)
            assert await each.register(one, each.lost, each.plain)
            for beam in (one, two):
                assert await whereis(beam, each.kept) == each.pid
                assert await whereis(beam, each.lost) == each.plain

        # A BEAM that only monitors them loses them: it drops the names for itself, and does not learn them again.
        for each in outsiders:
            await each.cut_from(two)
            await has(two, each.kept, UNDEFINED)
            await each.is_back(two)
            assert await whereis(two, each.kept) == UNDEFINED
            assert await whereis(one, each.kept) == each.pid
            assert not await each.register(one, each.kept, each.pid)
            assert await each.alive(each.plain)
        for each in outsiders[1:]:
            await logged(caplog, f"{two.name} is lost", each.kept.name, each.lost.name)

        # So there another process may be given such a name, on all nodes; nobody is told.
        async with collecting(two) as rival:
            for each in outsiders:
                assert await rival.run("global", "re_register_name", each.kept, rival.pid) == YES
                assert await whereis(one, each.kept) == rival.pid
                assert not await each.register(two, each.kept, each.pid)
        for each in outsiders:
            for beam in (one, two):
                await has(beam, each.kept, UNDEFINED)

        # What helps: to register it through the BEAM that came back.
        for each in outsiders:
            assert await each.register(one, each.kept, each.pid)
            await each.cut_from(two)
            await has(two, each.kept, UNDEFINED)
            assert await each.register(two, each.kept, each.pid)
            for beam in (one, two):
                assert await whereis(beam, each.kept) == each.pid

        # The BEAM through which they were registered is killed: it was linked to them.
        for each in outsiders:
            await two.eval("global:unregister_name(N)", N=each.kept)
            assert await each.register(one, each.kept, each.pid)
            assert await whereis(two, each.lost) == UNDEFINED
        one.kill()
        for each in outsiders:
            await each.has_lost(one)
            tag, server, reason = await each.exit_signal()
            assert (tag, server.node, reason) == (Atom("EXIT"), Atom(one.name), NOCONNECTION)
            await each.has_ended(each.plain)
            assert await whereis(two, each.kept) == each.pid
            assert await whereis(two, each.lost) == UNDEFINED
        for each in outsiders[1:]:
            await logged(caplog, f"{each.lost.name} is free", str(each.plain))
            await logged(caplog, f"{one.name} is lost", each.kept.name)

        # It comes back, and has the names that the others have kept.
        await has_lost(two, one.name)
        again = fresh_beam(one.name)
        await joined(again, two)
        for each in outsiders:
            await has(again, each.kept, each.pid)
            assert not await each.register(again, each.kept, each.pid)
