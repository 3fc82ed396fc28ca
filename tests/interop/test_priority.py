"""Priority messages (OTP 28, EEP 76), both ways; to and from an older BEAM they are ordinary ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from erlang_interop import Atom, Node, Pid, Process
from tests.interop.collectors import PATIENCE, Collector, collecting, end_when_told, leftovers, until

if TYPE_CHECKING:
    from erlang_interop.testing.beam import Beam
    from tests.conftest import Otp

DOWN, EXIT, PROCESS, NORMAL = map(Atom, ("DOWN", "EXIT", "process", "normal"))
PRIORITY, REPLY, LINK, MONITOR, KILL = map(Atom, ("priority", "reply", "link", "monitor", "kill"))
BYE = Atom("bye")


@pytest.fixture
def known(otp: Otp) -> bool:
    """Whether this OTP knows priority messages."""
    return otp.release >= 28


def waiting(process: Process) -> list[Any]:
    """All messages in its mailbox, in the order in which they are received."""
    return [process.receive_nowait() for _ in range(len(process.mailbox))]


# ------------------------------------------------------------------------------------------------------------- messages


@pytest.mark.rule("Aliases: priority messages", since=28)
async def test_priority_messages_to_us(node: Node, beam: Beam, known: bool) -> None:
    """What is sent with priority, through a priority alias, goes before all else; among themselves in order."""
    async with collecting(beam) as there, node.open_process() as me:
        priority, ordinary = me.alias(priority=True), me.alias()

        async def send(dest: Any, message: Any, *options: Any) -> None:
            arguments = [dest, message, list(options)] if known else [dest, message]
            await there.run("erlang", "send", *arguments)

        await send(me.pid, "a")
        await send(priority, "first", PRIORITY)
        await send(ordinary, "b", PRIORITY)
        await send(priority, "c")
        await send(me.pid, "d", PRIORITY)
        await send(priority, "second", PRIORITY)
        await there.round_trip(me)
        expected = ["first", "second", "a", "b", "c", "d"] if known else ["a", "first", "b", "c", "d", "second"]
        assert waiting(me) == [message.encode() for message in expected]
        assert me.unalias(priority)
        await send(priority, "third", PRIORITY)
        await there.round_trip(me)
        assert waiting(me) == []


@pytest.mark.rule("Aliases: priority messages", since=28)
async def test_priority_messages_to_a_name_of_ours_are_ordinary(node: Node, beam: Beam, known: bool) -> None:
    async with collecting(beam) as there, node.open_process("somebody") as me:
        options = [[PRIORITY]] if known else []
        await there.run("erlang", "send", me.pid, 1, *options)
        await there.run("erlang", "send", (Atom("somebody"), node.name), 2, *options)
        await there.run("erlang", "send", (Atom("nobody"), node.name), 3, *options)
        await there.round_trip(me)
        assert waiting(me) == [1, 2]


@pytest.mark.rule("Aliases: priority messages", since=28)
async def test_a_priority_alias_that_ends_with_the_answer(node: Node, beam: Beam, known: bool) -> None:
    async with collecting(beam) as there, node.open_process() as me:
        alias = me.alias(reply=True, priority=True)
        options = [[PRIORITY]] if known else []
        for dest, message in ((me.pid, 1), (alias, 2), (alias, 3)):
            await there.run("erlang", "send", dest, message, *options)
        await there.round_trip(me)
        assert waiting(me) == ([2, 1] if known else [1, 2])
        assert leftovers(node) == {}


@pytest.mark.rule("Aliases: priority messages", since=28)
async def test_priority_messages_to_a_beam(node: Node, beam: Beam, known: bool) -> None:
    async with collecting(beam) as there, node.open_process() as me:
        priority = await there.run("erlang", "alias", [PRIORITY] if known else [])
        ordinary = await there.run("erlang", "alias", [])
        name = (there.name, beam.name)
        me.send(there.pid, 1)
        me.send(priority, 2, priority=True)
        me.send(ordinary, 3, priority=True)
        me.send(priority, 4)
        me.send(there.pid, 5, priority=True)
        me.send(name, 6, priority=True)
        me.send(priority, 7, priority=True)
        await there.round_trip(me)
        assert await there.take(7) == ([2, 7, 1, 3, 4, 5, 6] if known else [1, 2, 3, 4, 5, 6, 7])


@pytest.mark.rule("Aliases: priority messages", since=28)
async def test_priority_messages_before_there_is_a_connection(node: Node, beam: Beam, known: bool) -> None:
    """What the other side understands is known only then."""
    async with collecting(beam) as there, node.open_process() as me:
        alias = await there.run("erlang", "alias", [PRIORITY] if known else [])
        assert not node.is_connected(beam.name)
        me.send(there.pid, 1)
        me.send(alias, 2, priority=True)
        me.send((there.name, beam.name), 3, priority=True)
        me.send(alias, 4)
        me.exit(alias, NORMAL, priority=True)
        me.exit(there.pid, NORMAL, priority=True)
        await there.round_trip(me)
        assert await there.take(4) == ([2, 1, 3, 4] if known else [1, 2, 3, 4])


# --------------------------------------------------------------------------------------------------------- exit signals


@pytest.mark.rule("Aliases: priority exit signals", since=28)
async def test_priority_exits_to_us(node: Node, beam: Beam, known: bool) -> None:
    if not known:
        assert not await has_exit_3(beam)
        return
    async with collecting(beam) as there, node.open_process() as me:
        me.trap_exit = True
        priority, ordinary = me.alias(priority=True), me.alias(reply=True)
        for dest, reason in ((me.pid, 1), (priority, 2), (ordinary, 3), (priority, 4)):
            await there.run("erlang", "exit", dest, reason, [PRIORITY])
        await there.run("erlang", "exit", priority, 5)
        await there.run("erlang", "send", ordinary, 6)
        await there.round_trip(me)
        assert waiting(me) == [(EXIT, there.pid, n) for n in (2, 4, 1, 3, 5)] + [6], "an exit ends no reply alias"


async def has_exit_3(beam: Beam) -> bool:
    return bool(await beam.eval("erlang:function_exported(erlang, exit, 3)"))


@pytest.mark.rule("Aliases: priority exit signals", since=28)
async def test_an_exit_to_an_alias_ends_its_process(node: Node, beam: Beam, known: bool) -> None:
    if not known:
        assert not await has_exit_3(beam)
        return
    async with collecting(beam) as there, node.open_process() as me:
        aliases: list[Any] = []

        async def worker(process: Process) -> None:
            aliases.append(process.alias())
            await process.receive()

        pid = node.spawn(worker)
        ref = me.monitor(pid)
        await until(lambda: bool(aliases))
        await there.run("erlang", "exit", aliases[0], BYE)
        assert await me.receive(timeout=PATIENCE) == (DOWN, ref, PROCESS, pid, BYE)


@pytest.mark.rule("Aliases: priority exit signals", since=28)
async def test_priority_exits_to_a_beam(node: Node, beam: Beam, known: bool) -> None:
    async with collecting(beam) as there, node.open_process() as me:
        await there.trap_exit()
        priority = await there.run("erlang", "alias", [PRIORITY] if known else [])
        ordinary = await there.run("erlang", "alias", [])
        me.exit(there.pid, 1, priority=True)
        me.exit(priority, 2, priority=True)
        me.exit(ordinary, 3, priority=True)
        me.exit(priority, 4)
        me.exit(there.pid, 5)
        await there.round_trip(me)
        expected = [2, 1, 3, 4, 5] if known else [1, 5]  # an older BEAM knows of no exit to an alias
        assert await there.take(await there.waiting()) == [(EXIT, me.pid, n) for n in expected]


# --------------------------------------------------------------------------------------------------- monitors and links


async def ended(beam: Beam, pid: Pid) -> None:
    await beam.eval("plain_processes:finish(P, bye), plain_processes:await_gone(P, 20000)", P=pid)


@pytest.mark.rule("Aliases: priority of a monitor's DOWN and of a link's EXIT", since=28)
async def test_a_down_with_priority(node: Node, beam: Beam) -> None:
    async with collecting(beam) as there, node.open_process() as me:
        pid = await beam.eval("plain_processes:spawn_waiting()")
        refs = [
            me.monitor(pid),
            me.monitor(pid, priority=True),
            me.monitor(pid, tag=Atom("gone")),
            me.monitor(pid, priority=True, tag=[1], alias="demonitor"),
        ]
        await there.run("erlang", "send", me.pid, 1)
        me.send(pid, (Atom("finish"), BYE))
        await until(lambda: len(me.mailbox) == 5)
        came = waiting(me)
        assert sorted(came[:2], key=str) == sorted(
            [(DOWN, refs[1], PROCESS, pid, BYE), ([1], refs[3], PROCESS, pid, BYE)], key=str
        )
        assert came[2] == 1
        assert sorted(came[3:], key=str) == sorted(
            [(DOWN, refs[0], PROCESS, pid, BYE), (Atom("gone"), refs[2], PROCESS, pid, BYE)], key=str
        )
        assert leftovers(node) == {}


@pytest.mark.rule("Aliases: priority of a monitor's DOWN and of a link's EXIT", since=28)
@pytest.mark.parametrize(("links", "first"), [([True], True), ([False, True], True), ([True, False], False)])
async def test_an_exit_with_priority(node: Node, beam: Beam, links: list[bool], first: bool) -> None:
    """The last link/2 counts, as on a BEAM."""
    async with collecting(beam) as there, node.open_process() as me:
        me.trap_exit = True
        pid = await beam.eval("plain_processes:spawn_waiting()")
        for priority in links:
            me.link(pid, priority=priority)
        await there.run("erlang", "send", me.pid, 1)
        me.send(pid, (Atom("finish"), BYE))
        await until(lambda: len(me.mailbox) == 2)
        exit_ = (EXIT, pid, BYE)
        assert waiting(me) == ([exit_, 1] if first else [1, exit_])


@pytest.mark.rule("Aliases: priority of a monitor's DOWN and of a link's EXIT", since=28)
@pytest.mark.parametrize("what", ["monitor", "link", "both"])
async def test_the_end_of_a_process_of_ours_with_priority(node: Node, beam: Beam, known: bool, what: str) -> None:
    """The priority is the BEAM's own business: our signals are those of any monitor and link."""
    if not known:
        assert await beam.eval("catch monitor(process, self(), [priority])") != Atom("ok")
        return
    pid = node.spawn(end_when_told)

    async def all_there(there: Collector, count: int) -> bool:
        return await there.waiting() == count

    async with collecting(beam) as there:
        await there.trap_exit()
        expected: list[Any] = []
        if what != "link":
            ref = await there.run("erlang", "monitor", PROCESS, pid, [PRIORITY])
            expected.append((DOWN, ref, PROCESS, pid, BYE))
        if what != "monitor":
            assert await there.run("erlang", "link", pid, [PRIORITY]) is True
            expected.append((EXIT, pid, BYE))
        await there.run("erlang", "send", there.pid, 1)
        await there.run("erlang", "send", pid, (Atom("exit"), BYE))
        await until(lambda: all_there(there, len(expected) + 1))
        *came, last = await there.take(len(expected) + 1)
        assert (sorted(came, key=str), last) == (sorted(expected, key=str), 1)


@pytest.mark.rule("Aliases: priority of a monitor's DOWN and of a link's EXIT", since=28)
async def test_a_spawned_process_with_priority(node: Node, beam: Beam) -> None:
    async with node.open_process() as me:
        me.trap_exit = True
        options: list[Any] = [(LINK, [PRIORITY]), (MONITOR, [PRIORITY])]
        child = await me.spawn_remote(beam.name, "spawner", "stay", [], options=options)
        me.send(me.pid, 1)
        me.send(child, (Atom("exit"), BYE))
        await until(lambda: len(me.mailbox) == 3)
        *came, last = waiting(me)
        assert ({m[0] for m in came}, last) == ({EXIT, DOWN}, 1)
        assert leftovers(node) == {}
