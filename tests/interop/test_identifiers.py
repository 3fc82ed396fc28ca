"""Pids, references and unlink ids at the ends of their numbers: a BEAM takes all of them for what they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from erlang_interop import Atom, Node, Pid, Process
from erlang_interop.runtime.identifiers import LAST_NUMBER, LAST_REFERENCE, LAST_SERIAL
from erlang_interop.wire.unlink import UnlinkIds
from tests.interop.collectors import PATIENCE, collecting, end_when_told, leftovers, until

if TYPE_CHECKING:
    from erlang_interop.testing.beam import Beam

DOWN, EXIT, PROCESS = Atom("DOWN"), Atom("EXIT"), Atom("process")

#: (number, serial) to start from: the two pids after it are one before and one behind a wrap.
WRAPS = {"number": (LAST_NUMBER, 0), "serial": (LAST_NUMBER, LAST_SERIAL), "half": (LAST_NUMBER, (1 << 31) - 1)}


async def forward(process: Process, dest: Pid) -> None:
    while True:
        process.send(dest, await process.receive())


@pytest.mark.rule("Identifiers: pids wrap from their last number and serial")
@pytest.mark.parametrize("start", WRAPS.values(), ids=WRAPS)
async def test_pids_around_a_wrap_are_pids(node: Node, beam: Beam, start: tuple[int, int]) -> None:
    identifiers = node._router.identifiers
    async with collecting(beam) as there, node.open_process() as me:
        await there.trap_exit()
        me.trap_exit = True
        identifiers.next_number, identifiers.next_serial = start
        pids = [node.spawn(end_when_told) for _ in range(3)]
        # Behind the last of all pids the first are passed over: those of the node's services, which live, and mine.
        behind = (1, start[1] + 1) if start[1] < LAST_SERIAL else (me.pid.id + 1, 0)
        assert [(pid.id, pid.serial) for pid in pids[:2]] == [start, behind]
        assert all(pid.creation == node.creation for pid in pids), "what EPMD gave, whatever wraps"
        assert len({*pids, me.pid}) == 4
        # The BEAM gives back what it was given, and orders them as pids of this node.
        assert await beam.eval("{node(hd(Ps)), lists:usort(Ps) -- Ps, length(lists:usort(Ps)), Ps}", Ps=pids) == (
            node.name,
            [],
            3,
            pids,
        )
        for pid in pids:
            await there.run("erlang", "link", pid)
            ref = await there.monitor(pid)
            await there.run("erlang", "send", pid, (Atom("exit"), Atom("done")))
            assert {str(message) for message in await there.take(2)} == {
                str((EXIT, pid, Atom("done"))),
                str((DOWN, ref, PROCESS, pid, Atom("done"))),
            }
        await until(lambda: leftovers(node) == {})


@pytest.mark.rule("Identifiers: pids wrap from their last number and serial")
async def test_messages_from_and_to_a_wrapped_pid(node: Node, beam: Beam) -> None:
    identifiers = node._router.identifiers
    identifiers.next_number, identifiers.next_serial = LAST_NUMBER, LAST_SERIAL
    echo = await beam.eval("plain_processes:spawn_echo()")
    for _ in range(3):
        async with node.open_process() as me:
            me.send(echo, (me.pid, me.pid))
            assert await me.receive(timeout=PATIENCE) == (Atom("echo"), echo, me.pid)


@pytest.mark.rule("Identifiers: the pid of a living process is never given again")
async def test_a_pid_in_use_is_passed_over_when_its_number_comes_round(node: Node, beam: Beam) -> None:
    identifiers = node._router.identifiers
    async with collecting(beam) as there, node.open_process("first") as me:
        await there.monitor(me.pid)
        await there.round_trip(me)
        # Once around: every number that is in use is met again, the node's own among them.
        identifiers.next_number, identifiers.next_serial = 1, 0
        fresh = [node.spawn(end_when_told) for _ in range(20)]
        assert me.pid not in fresh
        assert node._pid not in fresh
        assert len(set(fresh)) == 20
        node.send(fresh[0], (Atom("exit"), Atom("other")))
        await there.round_trip(me)
        assert await there.waiting() == 0, "the end of another is not the end of this one"


@pytest.mark.rule("Identifiers: references wrap in each of their words")
@pytest.mark.parametrize(
    "number", [(1 << 18) - 1, (1 << 50) - 1, LAST_REFERENCE], ids=["first word", "second word", "third word"]
)
async def test_references_around_a_wrap_are_references(node: Node, beam: Beam, number: int) -> None:
    waiting = await beam.eval("plain_processes:spawn_many(4)")
    async with collecting(beam) as there, node.open_process() as me:
        node._router.identifiers.next_reference = number
        refs = [me.monitor(pid) for pid in waiting]
        assert len(set(refs)) == 4
        assert await beam.eval("{length(lists:usort(Rs)), Rs}", Rs=refs) == (4, refs)
        me.demonitor(refs[3])
        for ref, pid in zip(refs[:3], waiting, strict=False):
            me.send(pid, (Atom("finish"), Atom("done")))
            assert await me.receive(timeout=PATIENCE) == (DOWN, ref, PROCESS, pid, Atom("done"))
        me.send(waiting[3], (Atom("finish"), Atom("done")))
        node._router.identifiers.next_reference = number
        aliases = [me.alias() for _ in range(2)]
        for alias in aliases:
            await there.run("erlang", "send", alias, alias)
            assert await me.receive(timeout=PATIENCE) == alias
            assert me.unalias(alias)
        await there.round_trip(me)
        assert len(me.mailbox) == 0
    assert leftovers(node) == {}


@pytest.mark.rule("Identifiers: unlink ids wrap from 2**64-1 to 1")
async def test_unlink_ids_around_their_wrap_are_acknowledged(node: Node, beam: Beam) -> None:
    async with collecting(beam) as there, node.open_process() as me:
        for last in (2**31 - 2, 2**32 - 2, 2**63 - 2, 2**64 - 3):
            node._router._unlink_ids = UnlinkIds(last)
            for _ in range(4):
                me.link(there.pid)
                me.unlink(there.pid)
                assert leftovers(node) != {}, "not forgotten before it is acknowledged"
                await there.round_trip(me)
                assert leftovers(node) == {}
        assert node._router._unlink_ids.next() == 3
        assert await beam.eval("element(2, process_info(P, links))", P=there.pid) == []
