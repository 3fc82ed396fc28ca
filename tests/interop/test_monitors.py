"""Monitors between Python processes and BEAM processes: each fires once, with the exact object and reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from erlang_interop import Atom, Node, Pid, Process
from tests.interop.collectors import (
    PATIENCE,
    collecting,
    disconnected_by,
    end_when_told,
    has_lost,
    is_among_nodes,
    leftovers,
    until,
    wait_for_ever,
)

if TYPE_CHECKING:
    from erlang_interop.terms import Reference
    from erlang_interop.testing.beam import Beam
    from tests.interop.conftest import NodeOpener

DOWN, PROCESS = Atom("DOWN"), Atom("process")
KILL, KILLED, NOCONNECTION, NOPROC, NORMAL = map(Atom, ("kill", "killed", "noconnection", "noproc", "normal"))


def down(ref: Reference, watched: Any, reason: Any) -> tuple[Any, ...]:
    return (DOWN, ref, PROCESS, watched, reason)


async def received(process: Process) -> Any:
    return await process.receive(timeout=PATIENCE)


async def waiting(beam: Beam, name: str | None = None) -> Pid:
    source = "plain_processes:spawn_waiting()" if name is None else f"plain_processes:spawn_named({name})"
    pid = await beam.eval(source)
    assert isinstance(pid, Pid)
    return pid


async def monitored_by(beam: Beam, pid: Pid) -> Any:
    """Who monitors a BEAM process, as ``process_info/2`` says."""
    return await beam.eval("plain_processes:monitored_by(P)", P=pid)


async def monitors_of(beam: Beam, pid: Pid) -> Any:
    """What a BEAM process monitors, as ``process_info/2`` says."""
    return await beam.eval("element(2, process_info(P, monitors))", P=pid)


# -------------------------------------------------------------------------------------------------- Python watches BEAM

ENDS: dict[str, tuple[str, Any]] = {
    "normal": ("plain_processes:finish(P, normal)", NORMAL),
    "shutdown": (
        "plain_processes:finish(P, {shutdown, [why, <<0:800000>>]})",
        (Atom("shutdown"), [Atom("why"), bytes(100_000)]),
    ),
    "killed": ("plain_processes:kill(P)", KILLED),
    "exit/2": ("remote_signals:send_exit(P, {because, #{1 => 2}})", (Atom("because"), {1: 2})),
}


@pytest.mark.rule("Control messages: MONITOR_P by pid and by name, of the peer's processes")
@pytest.mark.parametrize(("end", "reason"), ENDS.values(), ids=ENDS)
async def test_the_end_of_a_beam_process(either_node: Node, beam: Beam, end: str, reason: Any) -> None:
    remote = await waiting(beam, "watched")
    async with either_node.open_process() as me:
        by_pid, by_name = me.monitor(remote), me.monitor(("watched", beam.name))
        assert await beam.eval("plain_processes:await_monitored(P, 2, 20000)", P=remote) is True
        assert await monitored_by(beam, remote) == [me.pid, me.pid]
        await beam.eval(end, P=remote)
        downs = [await received(me), await received(me)]
        name = (Atom("watched"), Atom(beam.name))
        assert sorted(downs, key=lambda message: message[3] == name) == [
            down(by_pid, remote, reason),
            down(by_name, name, reason),
        ]
        assert len(me.mailbox) == 0
        assert leftovers(either_node) == {}


@pytest.mark.rule("Control messages: MONITOR_P of nobody is answered with MONITOR_P_EXIT noproc")
async def test_watching_nobody_on_a_beam(node: Node, beam: Beam) -> None:
    dead = await beam.eval("plain_processes:dead_pid()")
    older = Pid(dead.node, dead.id, dead.serial, dead.creation - 1)
    async with node.open_process() as me:
        for target in (dead, older, (Atom("no_such_name"), Atom(beam.name))):
            ref = me.monitor(target)
            assert await received(me) == down(ref, target, NOPROC)
        ref = me.monitor(("no_such_name", beam.name))
        assert await received(me) == down(ref, (Atom("no_such_name"), Atom(beam.name)), NOPROC)
        assert leftovers(node) == {}


@pytest.mark.rule("Control messages: links and monitors of a node that cannot be reached give noconnection")
async def test_watching_on_a_node_that_is_not_there(node: Node) -> None:
    nobody = Atom("nobody@127.0.0.1")
    async with node.open_process() as me:
        for target in (Pid(nobody, 1, 0, 1), (Atom("name"), nobody)):
            ref = me.monitor(target)
            assert await received(me) == down(ref, target, NOCONNECTION)
        assert leftovers(node) == {}


@pytest.mark.rule("Control messages: DEMONITOR_P ends exactly its monitor")
async def test_after_demonitor_there_is_no_down(node: Node, beam: Beam) -> None:
    remote = await waiting(beam, "let_go")
    async with node.open_process() as me:
        kept = me.monitor(remote)
        refs = [me.monitor(remote), me.monitor(("let_go", beam.name))]
        assert await beam.eval("plain_processes:await_monitored(P, 3, 20000)", P=remote) is True
        for ref in refs:
            assert me.demonitor(ref) is True
            assert me.demonitor(ref) is False
        assert await beam.eval("plain_processes:await_monitored(P, 1, 20000)", P=remote) is True
        await beam.eval("plain_processes:kill(P)", P=remote)
        assert await received(me) == down(kept, remote, KILLED)
        assert len(me.mailbox) == 0
        assert leftovers(node) == {}


@pytest.mark.rule("Control messages: DEMONITOR_P ends exactly its monitor")
async def test_demonitor_with_flush_takes_the_down_out_of_the_mailbox(node: Node, beam: Beam) -> None:
    remote = await waiting(beam)
    async with node.open_process() as me:
        first, second, last = (me.monitor(remote) for _ in range(3))
        await beam.eval("plain_processes:await_monitored(P, 3, 20000), plain_processes:kill(P)", P=remote)
        await until(lambda: len(me.mailbox) == 3)
        assert me.demonitor(first, flush=True) is False
        assert me.demonitor(second) is False  # without flush it stays
        assert {(await received(me))[1], (await received(me))[1]} == {second, last}
        assert len(me.mailbox) == 0


@pytest.mark.rule("Control messages: the end of a watcher ends its monitors on the other node")
async def test_the_end_of_the_watcher_ends_its_monitors(node: Node, beam: Beam) -> None:
    remote = await waiting(beam)
    async with node.open_process() as me:
        for _ in range(5):
            me.monitor(remote)
        assert await beam.eval("plain_processes:await_monitored(P, 5, 20000)", P=remote) is True
    assert await beam.eval("plain_processes:await_monitored(P, 0, 20000)", P=remote) is True
    assert leftovers(node) == {}


@pytest.mark.rule("Control messages: every monitor of a process has its own MONITOR_P_EXIT")
async def test_a_thousand_monitors_of_one_beam_process(node: Node, beam: Beam) -> None:
    remote = await waiting(beam)
    async with node.open_process() as me:
        refs = [me.monitor(remote) for _ in range(1000)]
        assert await beam.eval("plain_processes:await_monitored(P, 1000, 20000)", P=remote) is True
        for ref in refs[::2]:
            me.demonitor(ref)
        assert await beam.eval("plain_processes:await_monitored(P, 500, 20000)", P=remote) is True
        await beam.eval("plain_processes:kill(P)", P=remote)
        downs = [await received(me) for _ in range(500)]
        assert {message[1] for message in downs} == set(refs[1::2])
        assert {message[2:] for message in downs} == {(PROCESS, remote, KILLED)}
        assert len(me.mailbox) == 0
        assert leftovers(node) == {}


@pytest.mark.rule("Control messages: every monitor of a process has its own MONITOR_P_EXIT")
async def test_ten_thousand_beam_processes_killed(node: Node, beam: Beam) -> None:
    async with node.open_process() as me:
        pids = await beam.eval("plain_processes:spawn_many(10000)")
        assert isinstance(pids, list)
        watched = {me.monitor(pid): pid for pid in pids}
        assert await beam.eval("plain_processes:await_monitored(P, 1, 20000)", P=pids[-1]) is True
        await beam.eval("plain_processes:kill_all(Ps)", Ps=pids)
        for _ in range(10_000):
            message = await received(me)
            assert message == down(message[1], watched.pop(message[1]), KILLED)
        assert watched == {}
        assert len(me.mailbox) == 0
        assert leftovers(node) == {}


# -------------------------------------------------------------------------------------------------- BEAM watches Python

OUR_ENDS: dict[str, tuple[Any, Any]] = {
    "returns": (NORMAL, NORMAL),
    "normal": ((Atom("exit"), NORMAL), NORMAL),
    "a reason": ((Atom("exit"), (Atom("shutdown"), [1.5, None])), (Atom("shutdown"), [1.5, None])),
    "100 kB": ((Atom("exit"), bytes(100_000)), bytes(100_000)),
    "kill as a mere word": ((Atom("exit"), KILL), KILL),
    "crash": ((Atom("crash"), "no luck"), (Atom("RuntimeError"), b"no luck")),
    "killed": (None, KILLED),
}


@pytest.mark.rule("Control messages: MONITOR_P by pid and by name, of this node's processes")
@pytest.mark.parametrize(("order", "reason"), OUR_ENDS.values(), ids=OUR_ENDS)
async def test_the_end_of_a_python_process(either_node: Node, beam: Beam, order: Any, reason: Any) -> None:
    node = either_node
    pid = node.spawn(end_when_told, name="watched_py")
    async with collecting(beam) as there:
        by_pid = await there.monitor(pid)
        by_name = await there.monitor((Atom("watched_py"), node.name))
        await until(lambda: leftovers(node) == {"watchers": 2, "peer_entries": 2})
        if order is None:
            node.exit(pid, KILL)
        else:
            node.send(pid, order)
        downs = await there.take(2)
        assert downs == [down(by_pid, pid, reason), down(by_name, (Atom("watched_py"), node.name), reason)]
        assert await monitors_of(beam, there.pid) == []
        assert await there.waiting() == 0
        assert node.whereis("watched_py") is None
        assert leftovers(node) == {}


@pytest.mark.rule("Control messages: MONITOR_P of nobody is answered with MONITOR_P_EXIT noproc")
async def test_a_beam_that_watches_nobody_here(either_node: Node, beam: Beam) -> None:
    """An answer at once, whatever is watched: without one a caller on the BEAM waits for ever."""
    node = either_node
    async with node.open_process() as gone:
        pass
    nobodies = [
        gone.pid,
        Pid(node.name, gone.pid.id, gone.pid.serial, node.creation - 1),
        Pid(node.name, 123_456, 7, node.creation),
        (Atom("no_such_name"), node.name),
        (Atom(""), node.name),
        (True, node.name),
    ]
    async with collecting(beam) as there:
        for target in nobodies:
            ref = await there.monitor(target)
            assert await there.take(1) == [down(ref, target, NOPROC)]
        assert await monitors_of(beam, there.pid) == []
        assert leftovers(node) == {}


@pytest.mark.rule("Control messages: DEMONITOR_P ends exactly its monitor")
async def test_a_beam_demonitors(node: Node, beam: Beam) -> None:
    pid = node.spawn(end_when_told, name="let_go_py")
    await node.connect(beam.name)
    assert await is_among_nodes(beam, node.name)  # on its way up, a BEAM loses the demonitor of a monitor by name
    async with collecting(beam) as there, node.open_process() as me:
        kept = await there.monitor(pid)
        for target in (pid, (Atom("let_go_py"), node.name)):
            ref = await there.monitor(target)
            assert await there.run("erlang", "demonitor", ref) is True
        await there.round_trip(me)
        assert leftovers(node) == {"watchers": 1, "peer_entries": 1}
        node.send(pid, NORMAL)
        assert await there.take(1) == [down(kept, pid, NORMAL)]
        flushed = await there.monitor(pid)
        await there.round_trip(me)
        assert await there.run("erlang", "demonitor", flushed, [Atom("flush"), Atom("info")]) is False
        assert await there.waiting() == 0
        assert leftovers(node) == {}


@pytest.mark.rule("Control messages: the end of a watcher ends its monitors on the other node")
async def test_the_end_of_a_beams_watcher_ends_its_monitors(node: Node, beam: Beam) -> None:
    pid = node.spawn(wait_for_ever)
    watcher = await beam.eval("remote_signals:spawn_monitoring(P)", P=pid)
    await until(lambda: leftovers(node) == {"watchers": 1, "peer_entries": 1})
    await beam.eval("plain_processes:kill(P)", P=watcher)
    await until(lambda: leftovers(node) == {})


@pytest.mark.rule("Control messages: every monitor of a process has its own MONITOR_P_EXIT")
async def test_a_thousand_monitors_of_one_python_process(node: Node, beam: Beam) -> None:
    pid = node.spawn(end_when_told)
    collected: list[Any] = []

    async def collect() -> None:
        source = "remote_signals:monitor_many_and_collect(lists:duplicate(1000, P), 1000, 20000)"
        collected.append(await beam.eval(source, P=pid))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(collect)
        await until(lambda: node.statistics()["watchers"] == 1000)
        node.send(pid, (Atom("exit"), Atom("bang")))
    ((refs, downs),) = collected
    assert sorted(downs, key=str) == sorted([down(ref, pid, Atom("bang")) for ref in refs], key=str)
    assert len(set(refs)) == 1000
    assert leftovers(node) == {}


@pytest.mark.rule("Control messages: every monitor of a process has its own MONITOR_P_EXIT")
async def test_two_thousand_python_processes_killed(node: Node, beam: Beam) -> None:
    pids = [node.spawn(wait_for_ever) for _ in range(2_000)]
    async with collecting(beam) as there:
        source = "collector:run(C, lists, map, [fun(P) -> monitor(process, P) end, Ps])"
        refs = await beam.eval(source, C=there.pid, Ps=pids)
        assert isinstance(refs, list)
        await until(lambda: node.statistics()["watchers"] == len(pids))
        for pid in pids:
            node.exit(pid, KILL)
        downs = await there.take(len(pids))
        assert downs == [down(ref, pid, KILLED) for ref, pid in zip(refs, pids, strict=True)]
        assert await there.waiting() == 0
        assert leftovers(node) == {}


# --------------------------------------------------------------------------------------------- lost and new connections


@pytest.mark.rule("Control messages: a lost connection is noconnection to monitors, on both sides")
@pytest.mark.parametrize("who", ["we", "the BEAM"])
async def test_disconnecting_is_noconnection_on_both_sides(node: Node, beam: Beam, who: str) -> None:
    pid = node.spawn(wait_for_ever, name="lost_py")
    async with collecting(beam) as there, node.open_process() as me:
        ours = me.monitor(there.pid), me.monitor((there.name, beam.name))
        theirs = await there.monitor(pid), await there.monitor((Atom("lost_py"), node.name))
        await until(lambda: node.statistics()["watchers"] == 2)
        if who == "we":
            assert await node.disconnect(beam.name)
        else:
            await disconnected_by(beam, node)
        assert [await received(me), await received(me)] == [
            down(ours[0], there.pid, NOCONNECTION),
            down(ours[1], (there.name, Atom(beam.name)), NOCONNECTION),
        ]
        downs = await there.take(2)
        expected = [down(theirs[0], pid, NOCONNECTION), down(theirs[1], (Atom("lost_py"), node.name), NOCONNECTION)]
        assert sorted(downs, key=str) == sorted(expected, key=str)
        assert leftovers(node) == {}
        await node.connect(beam.name)
        assert await monitored_by(beam, there.pid) == []


@pytest.mark.rule("Identifiers: a pid of a former incarnation is nobody's")
async def test_a_pid_of_our_earlier_incarnation_is_nobodys(opened: NodeOpener, beam: Beam) -> None:
    """The same name, id and serial, another creation: neither monitors nor links nor messages reach the new process."""
    async with opened("phoenix@127.0.0.1") as node:
        old = node.spawn(wait_for_ever)
        await node.connect(beam.name)
    await has_lost(beam, node.name)
    async with opened("phoenix@127.0.0.1") as node, collecting(beam) as there:
        new = [node.spawn(fail_on_message) for _ in range(old.id + 1)]
        assert (old.id, old.serial) in {(pid.id, pid.serial) for pid in new}
        assert old not in new
        await node.connect(beam.name)
        await there.trap_exit()
        ref = await there.monitor(old)
        assert await there.take(1) == [down(ref, old, NOPROC)]
        await there.run("erlang", "link", old)
        assert await there.take(1) == [(Atom("EXIT"), old, NOPROC)]
        await there.run("erlang", "send", old, Atom("nobody_takes_this"))
        await there.run("erlang", "exit", old, KILL)
        async with node.open_process() as me:
            await there.round_trip(me)
        assert all(node.is_alive(pid) for pid in new)
        assert leftovers(node) == {}


async def fail_on_message(process: Process) -> None:
    raise AssertionError(await process.receive())


# ------------------------------------------------------------------------------------------- what hangs without answers


@pytest.mark.rule("Control messages: MONITOR_P of nobody is answered with MONITOR_P_EXIT noproc")
@pytest.mark.parametrize(
    "source",
    [
        "gen_server:call({no_such_server, N}, request, infinity)",
        "gen_server:call(P, request, infinity)",
        "gen_event:sync_notify({no_such_server, N}, event)",
        "supervisor:which_children({no_such_server, N})",
    ],
)
async def test_a_call_to_nobody_here_is_noproc_at_once(either_node: Node, beam: Beam, source: str) -> None:
    node = either_node
    async with node.open_process() as gone:
        pass
    caught = f"try {source} catch exit:{{noproc, _}} -> noproc; exit:noproc -> noproc end"
    with trio.fail_after(PATIENCE):  # without an answer the call would wait for ever
        assert await beam.eval(caught, N=node.name, P=gone.pid) == NOPROC


@pytest.mark.rule("Control messages: MONITOR_P of nobody is answered with MONITOR_P_EXIT noproc")
async def test_a_multi_call_counts_us_among_the_bad_nodes_at_once(either_node: Node, beam: Beam) -> None:
    await either_node.connect(beam.name)
    with trio.fail_after(PATIENCE):
        source = "gen_server:multi_call([N], no_such_server, request, infinity)"
        assert await beam.eval(source, N=either_node.name) == ([], [either_node.name])
