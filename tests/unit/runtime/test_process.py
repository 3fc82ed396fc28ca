"""Processes of one node with each other: the rules of the ERTS manual's chapter "Processes"."""

from collections import deque

import pytest
import trio
import trio.testing

from erlang_interop.errors import BadName, Exit, NameAlreadyRegistered
from erlang_interop.runtime import InlineServer, Node, Process
from erlang_interop.terms import Atom, Pid

DOWN, EXIT, PROCESS = Atom("DOWN"), Atom("EXIT"), Atom("process")
NORMAL, NOPROC, KILLED, KILL = Atom("normal"), Atom("noproc"), Atom("killed"), Atom("kill")


async def wait(process: Process) -> None:
    await process.receive()


async def stop_with(process: Process, reason: object) -> None:
    await process.receive()
    raise Exit(reason)


async def crash(process: Process) -> None:
    await process.receive()
    raise ValueError("boom")


async def test_messages_between_processes_keep_their_order(node: Node) -> None:
    async with node.open_process("me") as me:

        async def sender(process: Process) -> None:
            for number in range(1000):
                await process.send("me", number)

        node.spawn(sender)
        assert [await me.receive(timeout=30) for _ in range(1000)] == list(range(1000))


@pytest.mark.parametrize("token", [None, (1, 7, 0, Pid(Atom("t@h"), 1, 0, 1), 0)], ids=["untraced", "traced"])
async def test_what_is_sent_in_one_loop_comes_in_its_order(
    node: Node, token: tuple[int, int, int, Pid, int] | None
) -> None:
    async with node.open_process() as me, node.open_process() as one, node.open_process() as other:
        async with node.open_process() as gone:
            pass
        me.set_trace_token(token)
        messages = deque([(one.pid, 1), (gone.pid, 2), (other.pid, 3), (one.pid, 4)])
        me.send_local(messages)
        assert not messages
        assert [one.receive_nowait(), one.receive_nowait(), other.receive_nowait()] == [1, 4, 3]
        assert (one.trace_token is None) == (token is None)


async def test_a_receive_with_a_time_limit(node: Node) -> None:
    async with node.open_process() as me:
        with pytest.raises(TimeoutError, match="no message for"):
            await me.receive(timeout=0)
        me.send(me.pid, "here")
        assert await me.receive(timeout=0) == "here"


@pytest.mark.parametrize(
    ("ends", "reason"),
    [
        ((wait,), NORMAL),
        ((stop_with, (Atom("custom"), 1)), (Atom("custom"), 1)),
        ((crash,), (Atom("ValueError"), "boom")),
    ],
)
async def test_a_monitor_fires_once_with_the_reason(node: Node, ends: tuple[object, ...], reason: object) -> None:
    async with node.open_process() as me:
        pid = node.spawn(*ends)  # type: ignore[arg-type]
        by_pid = me.monitor(pid)
        me.send(pid, "go")
        assert await me.receive(timeout=30) == (DOWN, by_pid, PROCESS, pid, reason)
        assert not node.is_alive(pid)
        again = me.monitor(pid)
        assert await me.receive(timeout=30) == (DOWN, again, PROCESS, pid, NOPROC)
        assert len(me.mailbox) == 0


async def test_a_monitor_by_name_names_the_name_and_the_node(node: Node) -> None:
    async with node.open_process() as me:
        pid = node.spawn(wait, name="worker")
        for target in ("worker", Atom("worker"), ("worker", node.name)):
            me.monitor(target)
        me.send("worker", "go")
        objects = [(await me.receive(timeout=30))[3] for _ in range(3)]
        assert objects == [(Atom("worker"), node.name)] * 3
        me.monitor("worker")
        assert (await me.receive(timeout=30))[3:] == ((Atom("worker"), node.name), NOPROC)
        assert node.whereis("worker") is None
        assert not node.is_alive(pid)


async def test_demonitor_and_flush(node: Node) -> None:
    async with node.open_process() as me:
        pid = node.spawn(wait)
        ref = me.monitor(pid)
        assert me.demonitor(ref)
        assert not me.demonitor(ref)
        delivered = me.monitor(pid)
        kept = me.monitor(pid)
        node.exit(pid, KILL)
        assert len(me.mailbox) == 2
        assert not me.demonitor(delivered, flush=True)
        assert await me.receive(timeout=30) == (DOWN, kept, PROCESS, pid, KILLED)
        assert len(me.mailbox) == 0
    assert node.statistics()["monitors"] == node.statistics()["watchers"] == 0


async def test_an_exit_signal_ends_those_linked_and_is_a_message_to_those_who_trap(node: Node) -> None:
    async with node.open_process() as me:
        me.trap_exit = True
        first = node.spawn(wait)

        async def linked(process: Process) -> None:
            process.link(first)
            process.send(me.pid, "linked")
            await process.receive()

        second = node.spawn(linked)
        assert await me.receive(timeout=30) == "linked"
        me.link(second)
        me.exit(first, Atom("bang"))
        assert await me.receive(timeout=30) == (EXIT, second, Atom("bang"))
        assert not node.is_alive(first)
        assert not node.is_alive(second)


async def test_a_normal_exit_does_not_end_those_linked(node: Node) -> None:
    async with node.open_process() as me:
        pid = node.spawn(wait)
        me.link(pid)
        ref = me.monitor(pid)
        me.send(pid, "go")
        assert await me.receive(timeout=30) == (DOWN, ref, PROCESS, pid, NORMAL)
        assert me.alive


async def test_kill_cannot_be_trapped_but_killed_can(node: Node) -> None:
    async with node.open_process() as me:
        me.trap_exit = True
        victim = node.spawn(wait, trap_exit=True)
        me.link(victim)
        me.exit(victim, KILL)
        assert await me.receive(timeout=30) == (EXIT, victim, KILLED)


async def test_unlink_takes_the_exit_signal_away(node: Node) -> None:
    async with node.open_process() as me:
        pid = node.spawn(wait)
        me.link(pid)
        me.unlink(pid)
        ref = me.monitor(pid)
        me.exit(pid, Atom("bang"))
        assert (await me.receive(timeout=30))[1] == ref
        assert me.alive


async def test_linking_a_process_that_is_gone_gives_noproc(node: Node) -> None:
    async with node.open_process() as me:
        me.trap_exit = True
        gone = Pid(node.name, 77777, 0, node.creation)
        me.link(gone)
        assert await me.receive(timeout=30) == (EXIT, gone, NOPROC)


async def test_an_exit_signal_from_elsewhere_leaves_the_block_as_exit(node: Node) -> None:
    async def ended() -> None:
        async with node.open_process() as me:
            node.exit(me.pid, Atom("enough"))
            await me.receive()

    with pytest.raises(Exit) as caught:
        await ended()
    assert caught.value.reason == Atom("enough")


async def test_an_exit_of_its_own_ends_the_process_and_nothing_else(node: Node) -> None:
    async with node.open_process() as watcher:
        async with node.open_process() as me:
            ref = watcher.monitor(me.pid)
            raise Exit(Atom("done"))
        assert await watcher.receive(timeout=30) == (DOWN, ref, PROCESS, me.pid, Atom("done"))


async def test_an_error_in_the_block_ends_the_process_and_comes_out(node: Node) -> None:
    async with node.open_process() as watcher:
        refs = []

        async def failing() -> None:
            async with node.open_process() as me:
                refs.append((watcher.monitor(me.pid), me.pid))
                raise KeyError("k")

        with pytest.raises(KeyError):
            await failing()
        ((ref, pid),) = refs
        assert await watcher.receive(timeout=30) == (DOWN, ref, PROCESS, pid, (Atom("KeyError"), "'k'"))


async def test_names_are_given_once_and_come_free_at_the_end(node: Node) -> None:
    pid = node.spawn(wait, name="only")
    with pytest.raises(NameAlreadyRegistered, match="'only' is registered as"):
        node.spawn(wait, name="only")
    assert node.statistics()["processes"] == 1, "the one that could not have the name must not stay"
    node.exit(pid, KILL)
    assert node.whereis("only") is None
    node.spawn(wait, name="only")
    for bad in ("undefined", ""):
        with pytest.raises(BadName):
            node.spawn(wait, name=bad)


async def test_a_chain_of_links_of_any_length_ends_as_one(node: Node) -> None:
    class Idle(InlineServer):
        def handle_message(self, message: object) -> None:
            raise AssertionError(message)

    previous = node.start_inline(Idle())
    first = previous
    for _ in range(20_000):
        previous = node.start_inline(Idle(), link_to=previous)
    node.exit(first, Atom("bang"))
    assert node.statistics() == {
        "processes": 0,
        "names": 0,
        "aliases": 0,
        "peers": 0,
        "links": 0,
        "monitors": 0,
        "watchers": 0,
        "peer_entries": 0,
        "node_subscriptions": 0,
    }


async def test_aliases_end_as_their_mode_says(node: Node) -> None:
    async with node.open_process() as me:
        plain, reply = me.alias(), me.alias(reply=True)
        for ref in (plain, reply, plain, reply):
            node.send(ref, ref)
        assert [await me.receive(timeout=30) for _ in range(3)] == [plain, reply, plain]
        assert me.unalias(plain)
        assert not me.unalias(reply)
        node.send(plain, "late")
        assert len(me.mailbox) == 0
        worker = node.spawn(wait)
        with_monitor = me.monitor(worker, alias="reply_demonitor")
        node.send(with_monitor, "answer")
        assert await me.receive(timeout=30) == "answer"
        node.exit(worker, KILL)
        assert len(me.mailbox) == 0, "the answer took the monitor with it"
    assert node.statistics()["aliases"] == 0


async def test_send_after_and_its_cancellation(node: Node) -> None:
    async with node.open_process() as me:
        taken_back = me.send_after(0.01, me.pid, "no")
        me.send_after(0.02, me.pid, "yes")
        assert taken_back.cancel()
        assert await me.receive(timeout=30) == "yes"


async def test_sending_to_nobody_is_no_error_and_to_nonsense_is(node: Node) -> None:
    node.send("nobody", 1)
    node.send(Pid(node.name, 4711, 0, node.creation), 1)
    node.send(node.make_ref(), 1)
    with pytest.raises(BadName, match="cannot send to 17"):
        node.send(17, 1)  # type: ignore[arg-type]


async def test_twenty_thousand_processes_come_and_go_without_a_trace(node: Node) -> None:
    async with node.open_process() as me:
        pids = [node.spawn(wait) for _ in range(20_000)]
        refs = {me.monitor(pid) for pid in pids}
        for pid in pids:
            me.send(pid, "go")
        with trio.fail_after(30):
            assert {(await me.receive())[1] for _ in pids} == refs
    assert not any(node.statistics().values())


async def test_the_tag_and_the_priority_of_a_monitor(node: Node) -> None:
    async with node.open_process() as me:
        pid = node.spawn(wait)
        me.send(me.pid, "before")
        tagged = me.monitor(pid, tag=(Atom("my"), 1))
        first = me.monitor(pid, priority=True)
        taken_back = me.monitor(pid, tag=Atom("never"), priority=True)
        assert me.demonitor(taken_back) is True
        at_once = me.monitor("nobody", tag=Atom("no"))
        assert await me.receive(timeout=30) == "before"
        assert (await me.receive(timeout=30))[:2] == (Atom("no"), at_once)
        me.send(me.pid, "before")
        me.send(pid, "end")
        await trio.testing.wait_all_tasks_blocked()
        downs = [await me.receive(timeout=30) for _ in range(3)]
        assert downs == [
            (DOWN, first, PROCESS, pid, NORMAL),
            "before",
            ((Atom("my"), 1), tagged, PROCESS, pid, NORMAL),
        ]
        assert not me.monitor_options


async def test_a_priority_down_and_exit_go_before_what_waits(node: Node) -> None:
    async with node.open_process() as me:
        me.trap_exit = True
        pid = node.spawn(wait)
        me.link(pid, priority=True)
        ref = me.monitor(pid, priority=True)
        me.send(me.pid, "before")
        me.exit(pid, KILL)
        came = [await me.receive(timeout=30) for _ in range(3)]
        assert came == [(EXIT, pid, KILLED), (DOWN, ref, PROCESS, pid, KILLED), "before"]


@pytest.mark.parametrize("tag", [DOWN, (Atom("my"), 1)])
async def test_what_demonitor_tells(node: Node, tag: object) -> None:
    """The options ``flush`` and ``info`` of ``erlang:demonitor/2``."""
    async with node.open_process() as me:
        pid = node.spawn(wait)
        assert me.demonitor(me.monitor(pid)) is True
        assert me.demonitor(me.monitor(pid), flush=True) is True
        assert me.demonitor(me.monitor(pid), flush=True, info=True) is True
        fired = me.monitor("nobody", tag=tag)
        assert me.demonitor(fired) is False
        assert me.demonitor(fired, flush=True, info=True) is False, "a flush was needed"
        assert me.demonitor(fired, flush=True, info=True) is True
        assert me.demonitor(me.make_ref(), flush=True) is False
        assert len(me.mailbox) == 0


async def test_priority_through_an_alias(node: Node) -> None:
    async with node.open_process() as me:
        priority, ordinary = me.alias(priority=True), me.alias()
        for dest, message in ((me.pid, 1), (ordinary, 2), (priority, 3), (me.pid, 4)):
            me.send(dest, message, priority=True)
        me.send(priority, 5)
        assert [await me.receive(timeout=30) for _ in range(5)] == [3, 1, 2, 4, 5]


async def test_an_exit_to_an_alias(node: Node) -> None:
    async with node.open_process() as me:
        aliases = []

        async def worker(process: Process) -> None:
            aliases.append(process.alias())
            await process.receive()

        pid = node.spawn(worker)
        ref = me.monitor(pid)
        await trio.testing.wait_all_tasks_blocked()
        me.exit(aliases[0], Atom("boom"))
        assert await me.receive(timeout=30) == (DOWN, ref, PROCESS, pid, Atom("boom"))
        me.exit(aliases[0], Atom("boom"))  # to nobody any more


async def test_the_group_leader_of_a_process_of_this_node(node: Node) -> None:
    async with node.open_process() as me, node.open_process() as other:
        assert me.group_leader is None
        other.set_group_leader(other.pid, me.pid)
        assert me.group_leader == other.pid
        other.set_group_leader(other.pid, Pid(node.name, 0x7FFF, 1, node.creation))


async def test_a_destination_that_is_none_is_refused_on_every_way(node: Node) -> None:
    async with node.open_process() as me:
        for destination in (7, ("a", "b", "c"), (1, "b"), b"name"):
            for priority in (False, True):
                with pytest.raises(BadName):
                    me.send(destination, 1, priority=priority)  # type: ignore[arg-type]


async def test_who_has_ended_a_process_is_known_afterwards(node: Node) -> None:
    """The sender of the exit signal, as it says; nobody, if it has ended by itself."""
    async with node.open_process() as me:
        pids = {why: node.spawn(wait) for why in ("killed", "told", "linked", "by itself")}
        processes = {why: node.processes[pid] for why, pid in pids.items()}
        me.exit(pids["told"], Atom("why"))
        me.exit(pids["linked"], NORMAL)  # is no reason to end
        processes["linked"].link(pids["killed"])
        me.exit(pids["killed"], KILL)
        me.send(pids["by itself"], 1)
        await trio.testing.wait_all_tasks_blocked()
        assert not any(process.alive for process in processes.values())
        ended_by = {why: process.ended_by for why, process in processes.items()}
        assert ended_by == {"killed": me.pid, "told": me.pid, "linked": pids["killed"], "by itself": None}
