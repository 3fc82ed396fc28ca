"""Links and exit signals between Python processes and BEAM processes (ERTS manual, "Processes")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from erlang_interop import Atom, Exit, Node, Pid, Process
from tests.interop.collectors import (
    PATIENCE,
    Collector,
    collecting,
    disconnected_by,
    end_when_told,
    leftovers,
    links,
    until,
    wait_for_ever,
)

if TYPE_CHECKING:
    from erlang_interop.testing.beam import Beam

DOWN, EXIT, PROCESS = Atom("DOWN"), Atom("EXIT"), Atom("process")
KILL, KILLED, NOCONNECTION, NOPROC, NORMAL = map(Atom, ("kill", "killed", "noconnection", "noproc", "normal"))

#: Reasons that end a process which does not trap exits.
REASONS: dict[str, Any] = {
    "an atom": Atom("boom"),
    "a term": (Atom("shutdown"), [1, b"two", {Atom("three"): 3.5}]),
    "kill as a mere word": KILL,
    "300 kB": (Atom("big"), bytes(300_000)),
}


async def waiting(beam: Beam) -> Pid:
    pid = await beam.eval("plain_processes:spawn_waiting()")
    assert isinstance(pid, Pid)
    return pid


def finish(process: Process, pid: Pid, reason: Any) -> None:
    """A process of ``waiting`` exits with ``reason`` by its own doing. Told by message: it comes behind the links."""
    process.send(pid, (Atom("finish"), reason))


async def links_of(beam: Beam, pid: Pid) -> list[Pid]:
    links = await beam.eval("element(2, process_info(P, links))", P=pid)
    assert isinstance(links, list)
    return links


async def link_arrives(node: Node, there: Collector, pid: Pid) -> None:
    """The collector links to ``pid``, and the link is here."""
    before = node.statistics()["links"]
    await there.run("erlang", "link", pid)
    await until(lambda: node.statistics()["links"] > before)


async def message(process: Process, kind: Atom) -> Any:
    """The oldest message of a kind, EXIT or DOWN."""
    return await process.receive(lambda message: message[0] == kind, timeout=PATIENCE)


# ------------------------------------------------------------------------------------------------- a BEAM process ends


@pytest.mark.rule("Control messages: EXIT and PAYLOAD_EXIT carry any reason, from the peer")
@pytest.mark.parametrize("reason", REASONS.values(), ids=REASONS)
async def test_the_end_of_a_beam_process_reaches_its_links_here(node: Node, beam: Beam, reason: Any) -> None:
    remote = await waiting(beam)
    async with node.open_process() as me:
        me.trap_exit = True
        me.link(remote)
        child = node.spawn(wait_for_ever, link_to=remote)
        grandchild = node.spawn(wait_for_ever, link_to=child)
        refs = me.monitor(child), me.monitor(grandchild)
        finish(me, remote, reason)
        assert await message(me, EXIT) == (EXIT, remote, reason)
        assert await message(me, DOWN) == (DOWN, refs[0], PROCESS, child, reason)
        assert await message(me, DOWN) == (DOWN, refs[1], PROCESS, grandchild, reason)
        assert len(me.mailbox) == 0
        assert leftovers(node) == {}


@pytest.mark.rule("Control messages: EXIT with normal ends only who traps exits")
async def test_a_beam_process_that_ends_as_normal_ends_no_link(node: Node, beam: Beam) -> None:
    remote = await waiting(beam)
    async with node.open_process() as me:
        me.trap_exit = True
        me.link(remote)
        child = node.spawn(wait_for_ever, link_to=remote)
        finish(me, remote, NORMAL)
        assert await message(me, EXIT) == (EXIT, remote, NORMAL)
        await until(lambda: leftovers(node) == {})
        assert node.is_alive(child)


@pytest.mark.rule("Control messages: EXIT and PAYLOAD_EXIT carry any reason, from the peer")
async def test_a_failing_beam_process_shows_its_stack(node: Node, beam: Beam) -> None:
    for how, expected in (
        ((Atom("error"), Atom("oops")), Atom("oops")),
        ((Atom("throw"), Atom("ball")), (Atom("nocatch"), Atom("ball"))),
        (Atom("badmatch"), (Atom("badmatch"), Atom("undefined"))),
    ):
        remote = await beam.eval("plain_processes:spawn_raising(How)", How=how)
        async with node.open_process() as me:
            me.trap_exit = True
            me.link(remote)
            me.send(remote, Atom("go"))
            _, _, (reason, [(module, function, _arity, _where), *_]) = await message(me, EXIT)
            assert (reason, module, function) == (expected, Atom("plain_processes"), Atom("fail"))


@pytest.mark.rule("Control messages: EXIT and PAYLOAD_EXIT carry any reason, from the peer")
async def test_an_exit_signal_cancels_the_block_of_an_open_process(node: Node, beam: Beam) -> None:
    remote = await waiting(beam)
    with pytest.raises(Exit) as caught:
        async with node.open_process() as me:
            me.link(remote)
            finish(me, remote, Atom("boom"))
            await trio.sleep_forever()
    assert caught.value.reason == Atom("boom")


# ----------------------------------------------------------------------------------------------- a Python process ends


@pytest.mark.rule("Control messages: EXIT and PAYLOAD_EXIT carry any reason, to the peer")
@pytest.mark.parametrize("reason", [NORMAL, *REASONS.values()], ids=["normal", *REASONS])
async def test_the_end_of_a_python_process_reaches_its_links_there(node: Node, beam: Beam, reason: Any) -> None:
    pid = node.spawn(end_when_told)
    async with collecting(beam) as there:
        await there.trap_exit()
        await link_arrives(node, there, pid)
        linked = await beam.eval("remote_signals:spawn_linked(P)", P=pid)
        await until(lambda: links(node) == 2)
        node.send(pid, (Atom("exit"), reason))
        assert await there.take(1) == [(EXIT, pid, reason)]
        if reason == NORMAL:
            await beam.eval("P ! {remote_signals, exit, not_before}", P=linked)
        assert await beam.eval("plain_processes:await_gone(P, 20000)", P=linked) is True
        assert leftovers(node) == {}


@pytest.mark.rule("Control messages: EXIT and PAYLOAD_EXIT carry any reason, to the peer")
async def test_a_crash_shows_as_class_and_text(node: Node, beam: Beam) -> None:
    async with collecting(beam) as there:
        await there.trap_exit()
        pid = node.spawn(end_when_told)
        await link_arrives(node, there, pid)
        node.send(pid, (Atom("crash"), "no luck with åäö"))
        assert await there.take(1) == [(EXIT, pid, (Atom("RuntimeError"), "no luck with åäö".encode()))]


@pytest.mark.rule("Control messages: EXIT and PAYLOAD_EXIT carry any reason, to the peer")
async def test_returning_is_normal_and_killing_is_killed(node: Node, beam: Beam) -> None:
    async with collecting(beam) as there:
        await there.trap_exit()
        for pid, end, seen in (
            (node.spawn(end_when_told), lambda pid: node.send(pid, NORMAL), NORMAL),
            (node.spawn(wait_for_ever), lambda pid: node.exit(pid, KILL), KILLED),
        ):
            await link_arrives(node, there, pid)
            end(pid)
            assert await there.take(1) == [(EXIT, pid, seen)]


@pytest.mark.rule("Control messages: EXIT and PAYLOAD_EXIT carry any reason, to the peer")
async def test_a_reason_that_no_term_can_carry_arrives_as_text(node: Node, beam: Beam) -> None:
    async with collecting(beam) as there:
        await there.trap_exit()
        pid = node.spawn(end_unspeakably)
        await link_arrives(node, there, pid)
        ref = await there.monitor(pid)
        await until(lambda: node.statistics()["watchers"] == 1)
        node.send(pid, Atom("go"))
        told = (Atom("unencodable_reason"), b"{<class 'complex'>}")
        assert await there.take(2) == [(EXIT, pid, told), (DOWN, ref, PROCESS, pid, told)]


async def end_unspeakably(process: Process) -> None:
    await process.receive()
    raise Exit({complex})


# -------------------------------------------------------------------------------------------------------- nobody there


@pytest.mark.rule("Control messages: LINK to a process that is gone is answered with EXIT noproc")
async def test_a_link_to_a_dead_beam_process_gives_noproc(node: Node, beam: Beam) -> None:
    dead = await beam.eval("plain_processes:dead_pid()")
    async with node.open_process() as me:
        me.trap_exit = True
        me.link(dead)
        assert await message(me, EXIT) == (EXIT, dead, NOPROC)
        child = node.spawn(wait_for_ever, link_to=dead)
        ref = me.monitor(child)
        assert await message(me, DOWN) == (DOWN, ref, PROCESS, child, NOPROC)
        assert leftovers(node) == {}


@pytest.mark.rule("Control messages: LINK to a process that is gone is answered with EXIT noproc")
async def test_a_link_to_a_dead_python_process_gives_noproc(node: Node, beam: Beam) -> None:
    async with node.open_process() as gone:
        pass
    older = Pid(gone.pid.node, gone.pid.id, gone.pid.serial, gone.pid.creation - 1)
    for dead in (gone.pid, older):
        source = "remote_signals:link_and_collect(P, 1, 20000)"
        _, messages = await beam.eval(source, P=dead)
        assert messages == [(EXIT, dead, NOPROC)]
    assert leftovers(node) == {}


@pytest.mark.rule("Control messages: links and monitors of a node that cannot be reached give noconnection")
async def test_a_link_to_a_node_that_is_not_there_gives_noconnection(node: Node) -> None:
    nobody = Pid(Atom("nobody@127.0.0.1"), 1, 0, 1)
    async with node.open_process() as me:
        me.trap_exit = True
        me.link(nobody)
        assert await message(me, EXIT) == (EXIT, nobody, NOCONNECTION)
        assert leftovers(node) == {}


# -------------------------------------------------------------------------------------------------------------- exit/2


@pytest.mark.rule("Control messages: EXIT2 and PAYLOAD_EXIT2 end or reach a process, to the peer")
@pytest.mark.parametrize(("reason", "seen"), [(Atom("boom"), Atom("boom")), (KILL, KILLED)], ids=["boom", "kill"])
async def test_exit_2_ends_a_beam_process(node: Node, beam: Beam, reason: Atom, seen: Atom) -> None:
    remote = await waiting(beam)
    async with node.open_process() as me:
        ref = me.monitor(remote)
        me.exit(remote, NORMAL)  # which a process that does not trap exits does not notice
        me.exit(remote, reason)
        assert await message(me, DOWN) == (DOWN, ref, PROCESS, remote, seen)


@pytest.mark.rule("Control messages: EXIT2 and PAYLOAD_EXIT2 end or reach a process, to the peer")
async def test_a_beam_process_that_traps_exits_gets_ours_as_messages(node: Node, beam: Beam) -> None:
    async with collecting(beam) as there, node.open_process() as me:
        await there.trap_exit()
        reasons = [NORMAL, *(reason for reason in REASONS.values() if reason != KILL)]
        for reason in reasons:
            me.exit(there.pid, reason)
        assert await there.take(len(reasons)) == [(EXIT, me.pid, reason) for reason in reasons]


@pytest.mark.rule("Control messages: EXIT2 and PAYLOAD_EXIT2 end or reach a process, from the peer")
@pytest.mark.parametrize(("reason", "seen"), [(Atom("boom"), Atom("boom")), (KILL, KILLED)], ids=["boom", "kill"])
async def test_exit_2_ends_a_python_process(node: Node, beam: Beam, reason: Atom, seen: Atom) -> None:
    pid = node.spawn(wait_for_ever)
    async with node.open_process() as me:
        ref = me.monitor(pid)
        await beam.eval("exit(P, normal), remote_signals:send_exit(P, R)", P=pid, R=reason)
        assert await message(me, DOWN) == (DOWN, ref, PROCESS, pid, seen)


@pytest.mark.rule("Control messages: EXIT2 and PAYLOAD_EXIT2 end or reach a process, from the peer")
async def test_a_python_process_that_traps_exits_gets_them_as_messages_but_for_kill(node: Node, beam: Beam) -> None:
    async with node.open_process() as me:
        pid = node.spawn(forward_exits, me.pid, trap_exit=True)
        ref = me.monitor(pid)
        for reason in (NORMAL, Atom("boom"), NOPROC):
            sender = await beam.eval("remote_signals:send_exit(P, R)", P=pid, R=reason)
            assert await message(me, EXIT) == (EXIT, sender, reason)
        await beam.eval("remote_signals:send_exit(P, kill)", P=pid)
        assert await message(me, DOWN) == (DOWN, ref, PROCESS, pid, KILLED)


async def forward_exits(process: Process, dest: Pid) -> None:
    while True:
        process.send(dest, await process.receive())


# -------------------------------------------------------------------------------------------------------------- unlink


@pytest.mark.rule("Control messages: after UNLINK_ID the end of the other is not noticed")
async def test_after_unlink_the_end_of_a_beam_process_is_not_noticed(node: Node, beam: Beam) -> None:
    remote = await waiting(beam)
    async with node.open_process() as me:
        ref = me.monitor(remote)
        me.link(remote)
        me.unlink(remote)
        finish(me, remote, Atom("boom"))
        assert await message(me, DOWN) == (DOWN, ref, PROCESS, remote, Atom("boom"))
        assert len(me.mailbox) == 0
        await until(lambda: leftovers(node) == {})


@pytest.mark.rule("Control messages: after UNLINK_ID the end of the other is not noticed")
async def test_after_unlink_our_end_is_not_noticed(node: Node, beam: Beam) -> None:
    pid = node.spawn(wait_for_ever)
    ended = await beam.eval("remote_signals:unlink_then(P, boom)", P=pid)
    assert isinstance(ended, Pid)
    async with collecting(beam) as there, node.open_process() as me:
        await there.round_trip(me)
        assert node.is_alive(pid), "it was unlinked from the one that ended"
        await there.trap_exit()
        await link_arrives(node, there, pid)
        await there.run("erlang", "unlink", pid)
        node.exit(pid, Atom("boom"))
        ref = await there.monitor(pid)
        assert await there.take(1) == [(DOWN, ref, PROCESS, pid, NOPROC)]
        assert leftovers(node) == {}


@pytest.mark.rule("Control messages: UNLINK_ID is acknowledged and leaves nothing behind")
async def test_unlink_is_acknowledged_and_leaves_nothing_on_either_side(node: Node, beam: Beam) -> None:
    async with collecting(beam) as there, node.open_process() as me:
        for _ in range(3):
            me.link(there.pid)
            await there.round_trip(me)
            assert await links_of(beam, there.pid) == [me.pid]
            me.unlink(there.pid)
            await there.round_trip(me)
            assert await links_of(beam, there.pid) == []
            assert leftovers(node) == {}


@pytest.mark.rule("Control messages: LINK, UNLINK_ID and its ACK may cross, and both sides agree")
async def test_links_and_unlinks_from_both_sides_cross_and_both_agree_at_the_end(node: Node, beam: Beam) -> None:
    async with collecting(beam) as there, node.open_process() as me:
        me.trap_exit = True
        await there.trap_exit()
        for last in ("link", "unlink", "link"):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(link_and_unlink_there, there, me.pid)
                for _ in range(300):
                    me.link(there.pid)
                    me.unlink(there.pid)
                    await trio.lowlevel.checkpoint()
            await there.round_trip(me)  # its last unlink is here: a link from now on does not cross it
            if last == "link":
                me.link(there.pid)
            await there.round_trip(me)
            await there.round_trip(me)  # once more: the other side's acknowledgements have come in as well
            assert await links_of(beam, there.pid) == ([me.pid] if last == "link" else [])
            assert leftovers(node) == ({"links": 1, "peer_entries": 1} if last == "link" else {})
        await beam.eval("collector:stop(P, boom)", P=there.pid)
        assert await message(me, EXIT) == (EXIT, there.pid, Atom("boom"))
        assert len(me.mailbox) == 0, "links are not counted: one exit for all of them"
        assert leftovers(node) == {}


async def link_and_unlink_there(there: Collector, pid: Pid) -> None:
    source = "collector:run(C, lists, foreach, [fun(_) -> link(P), erlang:yield(), unlink(P) end, lists:seq(1, 300)])"
    assert await there.beam.eval(source, C=there.pid, P=pid) == Atom("ok")


# ------------------------------------------------------------------------------------------------------- disconnecting


@pytest.mark.rule("Control messages: a lost connection is noconnection to links, on both sides")
@pytest.mark.parametrize("who", ["we", "the BEAM"])
async def test_disconnecting_is_noconnection_on_both_sides(node: Node, beam: Beam, who: str) -> None:
    async with collecting(beam) as there, node.open_process() as me:
        me.trap_exit = True
        await there.trap_exit()
        me.link(there.pid)
        linked = await beam.eval("remote_signals:spawn_linked(P)", P=me.pid)
        await until(lambda: leftovers(node) == {"links": 2, "peer_entries": 2})
        await there.round_trip(me)  # so that our link is there as well
        if who == "we":
            assert await node.disconnect(beam.name)
        else:
            await disconnected_by(beam, node)
        assert await there.take(1) == [(EXIT, me.pid, NOCONNECTION)]
        assert await beam.eval("plain_processes:await_gone(P, 20000)", P=linked) is True
        exits = [await message(me, EXIT) for _ in range(2)]
        assert sorted(exits, key=str) == sorted([(EXIT, pid, NOCONNECTION) for pid in (there.pid, linked)], key=str)
        assert leftovers(node) == {}
        # The link is gone for good: a new connection does not bring it back.
        await node.connect(beam.name)
        assert await links_of(beam, there.pid) == []
