"""Processes started by request: by a BEAM on this node, and by this node on a BEAM (``erlang:spawn_request/5``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import trio

from erlang_interop import Atom, Exit, Node, Pid, Process, Reference, SpawnError
from tests.interop.collectors import PATIENCE, collecting, leftovers, until

if TYPE_CHECKING:
    from erlang_interop.testing.beam import Beam

DOWN, EXIT, PROCESS, OK, ERROR = map(Atom, ("DOWN", "EXIT", "process", "ok", "error"))
LINK, MONITOR, NORMAL, UNDEF, SPAWN_REPLY = map(Atom, ("link", "monitor", "normal", "undef", "spawn_reply"))
STAY: Any = (Atom("spawner"), Atom("stay"), [])


async def echo(process: Process, parent: Pid, value: Any) -> None:
    """Exposed: what it was given, whose process it is."""
    process.send(parent, (process.pid, value))


async def obey(process: Process, parent: Pid) -> None:
    """Exposed: tells that it runs, then ends as the next message says."""
    process.send(parent, (Atom("ready"), process.pid))
    how, what = await process.receive()
    if how == Atom("exit"):
        raise Exit(what)
    raise RuntimeError(what.decode())


def expose(node: Node) -> None:
    node.expose("py", {"echo": echo, "obey": obey}, with_process=True)


async def nothing_left(node: Node) -> None:
    """All that was spawned has ended and left nothing."""
    await until(lambda: leftovers(node) == {})


async def message(process: Process, tag: Any) -> Any:
    return await process.receive(lambda m: type(m) is tuple and m[0] == tag, timeout=PATIENCE)


# ---------------------------------------------------------------------------------------------- from Erlang into Python


@pytest.mark.rule("Spawn: spawn/4 of what is exposed")
async def test_spawn(node: Node, beam: Beam) -> None:
    expose(node)
    async with collecting(beam) as there:
        child = await there.run("erlang", "spawn", node.name, Atom("py"), Atom("echo"), [there.pid, [1, b"two"]])
        assert await there.take(1) == [(child, [1, b"two"])]
        assert isinstance(child, Pid)
        assert child.node == node.name
    await nothing_left(node)


@pytest.mark.rule("Spawn: spawn/4 of what is exposed")
async def test_functions_need_no_process_and_no_await(node: Node, beam: Beam) -> None:
    calls: list[Any] = []

    async def later(*arguments: Any) -> None:
        await trio.lowlevel.checkpoint()
        calls.append(arguments)

    node.expose("py", {"now": lambda *arguments: calls.append(arguments), "later": later})
    async with collecting(beam) as there:
        for function in ("now", "later"):
            watched = await there.run("erlang", "spawn_monitor", node.name, Atom("py"), Atom(function), [1, {}])
            assert await there.take(1) == [(DOWN, watched[1], PROCESS, watched[0], NORMAL)]
    assert calls == [(1, {}), (1, {})]


@pytest.mark.rule("Spawn: link and monitor from the start")
@pytest.mark.parametrize("how", ["exit", "crash"])
async def test_spawn_link(node: Node, beam: Beam, how: str) -> None:
    expose(node)
    async with collecting(beam) as there:
        await there.trap_exit()
        child = await there.run("erlang", "spawn_link", node.name, Atom("py"), Atom("obey"), [there.pid])
        assert await there.take(1) == [(Atom("ready"), child)]
        assert await there.run("erlang", "send", child, (Atom(how), b"done")) == (Atom(how), b"done")
        reason = b"done" if how == "exit" else (Atom("RuntimeError"), b"done")
        assert await there.take(1) == [(EXIT, child, reason)]
    await nothing_left(node)


@pytest.mark.rule("Spawn: link and monitor from the start")
async def test_the_end_of_the_parent_ends_the_linked_child(node: Node, beam: Beam) -> None:
    expose(node)
    async with collecting(beam) as there:
        child = await there.run("erlang", "spawn_link", node.name, Atom("py"), Atom("obey"), [there.pid])
        assert node.is_alive(child)
        await beam.eval("collector:stop(P, boom)", P=there.pid)
        await until(lambda: not node.is_alive(child))
    await nothing_left(node)


@pytest.mark.rule("Spawn: link and monitor from the start")
async def test_spawn_monitor(node: Node, beam: Beam) -> None:
    expose(node)
    async with collecting(beam) as there:
        child, ref = await there.run("erlang", "spawn_monitor", node.name, Atom("py"), Atom("obey"), [there.pid])
        assert await there.take(1) == [(Atom("ready"), child)]
        await there.run("erlang", "send", child, (Atom("exit"), Atom("boom")))
        assert await there.take(1) == [(DOWN, ref, PROCESS, child, Atom("boom"))]
    await nothing_left(node)


OPTIONS = """[link, monitor, {priority, high}, {fullsweep_after, 5}, {min_heap_size, 1000}, {min_bin_vheap_size, 1000},
              {max_heap_size, #{size => 0, kill => true}}, {message_queue_data, off_heap}]"""


@pytest.mark.rule("Spawn: all options of spawn_opt/5")
async def test_spawn_opt(node: Node, beam: Beam) -> None:
    expose(node)
    async with collecting(beam) as there:
        await there.trap_exit()
        options = await beam.eval(OPTIONS)
        run = there.run("erlang", "spawn_opt", node.name, Atom("py"), Atom("echo"), [there.pid, 1], options)
        child, ref = await run
        came = await there.take(3)
        assert came[0] == (child, 1)
        assert sorted(came[1:], key=str) == sorted(
            [(DOWN, ref, PROCESS, child, NORMAL), (EXIT, child, NORMAL)], key=str
        )
    await nothing_left(node)


@pytest.mark.rule("Spawn: replies as asked for")
@pytest.mark.parametrize(("reply", "answers"), [("yes", 1), ("no", 0), ("success_only", 1), ("error_only", 0)])
async def test_spawn_request(node: Node, beam: Beam, reply: str, answers: int) -> None:
    expose(node)
    async with collecting(beam) as there:
        options = [(Atom("reply"), Atom(reply)), (Atom("reply_tag"), [Atom("mine"), 1])]
        arguments = [there.pid, Atom("hello")]
        ref = await there.run("erlang", "spawn_request", node.name, Atom("py"), Atom("echo"), arguments, options)
        came = await there.take(answers + 1)
        child = came[-1][0]
        assert came == [([Atom("mine"), 1], ref, OK, child)] * answers + [(child, Atom("hello"))]
    await nothing_left(node)


@pytest.mark.rule("Spawn: the reply comes before EXIT and DOWN")
async def test_the_answer_comes_first(node: Node, beam: Beam) -> None:
    """Also of processes that end the moment they start, and of those that never get that far."""
    node.expose("py", {"nothing": lambda _: None})
    async with collecting(beam) as there:
        await there.trap_exit()
        for function, reason in (("nothing", NORMAL), ("unknown", UNDEF)):
            run = there.run(
                "spawner", "request_many", 300, node.name, Atom("py"), Atom(function), [Atom("link"), MONITOR]
            )
            refs = await run
            came = await there.take(900)
            stories: dict[Reference, list[Any]] = {ref: [] for ref in refs}
            children = {m[3]: m[1] for m in came if m[0] == SPAWN_REPLY}
            for m in came:
                stories[children[m[1]] if m[0] == EXIT else m[1]].append(m[0])
            assert all(story[0] == SPAWN_REPLY and len(story) == 3 for story in stories.values())
            downs = [m[4] for m in came if m[0] == DOWN]
            assert [d if function == "nothing" else d[0] for d in downs] == [reason] * 300
    await nothing_left(node)


@pytest.mark.rule("Spawn: what is not exposed is undef")
@pytest.mark.parametrize(
    ("module", "function", "arguments"),
    [
        ("py", "unknown", [1]),
        ("unknown", "echo", [1, 2]),
        ("py", "echo", [1, 2, 3, 4]),
        ("py", "echo", []),
        ("os", "getpid", []),
    ],
    ids=["function", "module", "too many arguments", "too few", "not even Python's own"],
)
async def test_what_is_not_exposed(
    node: Node, beam: Beam, module: str, function: str, arguments: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Exactly what the BEAM itself says of a function that it does not have."""
    expose(node)
    undefined = Atom("no_such_module")
    async with collecting(beam) as there:
        run = there.run("erlang", "spawn_request", node.name, Atom(module), Atom(function), arguments, [MONITOR])
        ref = await run
        ours = await there.take(2)
        itself = await there.run("erlang", "spawn_request", undefined, Atom(function), arguments, [MONITOR])
        theirs = await there.take(2)

    def told(messages: list[Any], ref: Any) -> list[Any]:
        (tag, ref_1, ok, child), (down, ref_2, process, pid, reason) = messages
        assert (ref_1, ref_2, pid) == (ref, ref, child)
        return [tag, ok, down, process, reason]

    expected = told(theirs, itself)
    assert expected[-1] == (UNDEF, [(undefined, Atom(function), arguments, [])])
    expected[-1] = (UNDEF, [(Atom(module), Atom(function), arguments, [])])
    assert told(ours, ref) == expected
    assert f"{module}:{function}/{len(arguments)} is not exposed" in caplog.text
    await nothing_left(node)


@pytest.mark.rule("Spawn: what is not exposed is undef")
async def test_what_is_exposed_no_more(node: Node, beam: Beam) -> None:
    expose(node)
    async with collecting(beam) as there:
        await there.run("erlang", "spawn", node.name, Atom("py"), Atom("echo"), [there.pid, 1])
        await there.take(1)
        node.unexpose("py")
        await there.run("erlang", "spawn_monitor", node.name, Atom("py"), Atom("echo"), [there.pid, 1])
        ((*_, reason),) = await there.take(1)
        assert reason[0] == UNDEF


@pytest.mark.rule("Spawn: abandoned requests")
async def test_an_abandoned_request_with_a_link(node: Node, beam: Beam) -> None:
    """``spawn_request_abandon/1`` before the answer is there: the child is told, the parent hears nothing."""
    exits: list[Any] = []

    async def waiting(process: Process) -> None:
        try:
            await trio.sleep_forever()
        finally:
            exits.append(process.exit_reason)

    node.expose("py", {"waiting": waiting}, with_process=True)
    async with collecting(beam) as there:
        run = there.run("spawner", "request_then_abandon", node.name, Atom("py"), Atom("waiting"), [], [LINK])
        _, abandoned = await run
        assert abandoned is True
        await until(lambda: exits == [Atom("abandoned")])
        assert await there.waiting() == 0
    await nothing_left(node)


# ---------------------------------------------------------------------------------------------- from Python into Erlang


@pytest.mark.rule("Spawn: asking a BEAM, replies as asked for")
@pytest.mark.parametrize(
    ("reply", "answers"), [(True, 1), ("yes", 1), ("no", 0), (False, 0), ("success_only", 1), ("error_only", 0)]
)
async def test_asking(node: Node, beam: Beam, reply: Any, answers: int) -> None:
    async with node.open_process() as me:
        ref = me.spawn_request(
            beam.name, "spawner", "tell", [me.pid, Atom("hello")], reply=reply, reply_tag=(Atom("my"), 1)
        )
        came = [await me.receive(timeout=PATIENCE) for _ in range(answers + 1)]
        child = came[-1][1]
        assert came == [((Atom("my"), 1), ref, OK, child)] * answers + [(Atom("told"), child, Atom("hello"))]
        assert child.node == Atom(beam.name)
    await nothing_left(node)


@pytest.mark.rule("Spawn: asking a BEAM with link and monitor")
async def test_asking_with_link_and_monitor(node: Node, beam: Beam) -> None:
    async with node.open_process() as me:
        me.trap_exit = True
        ref = me.spawn_request(beam.name, "erlang", "exit", [Atom("boom")], link=True, monitor=True)
        first = await me.receive(timeout=PATIENCE)
        child = first[3]
        assert first == (SPAWN_REPLY, ref, OK, child)
        rest = [await me.receive(timeout=PATIENCE) for _ in range(2)]
        assert sorted(rest, key=str) == sorted(
            [(EXIT, child, Atom("boom")), (DOWN, ref, PROCESS, child, Atom("boom"))], key=str
        )
        assert leftovers(node) == {}


@pytest.mark.rule("Spawn: asking a BEAM with link and monitor")
async def test_what_the_request_set_up_can_be_taken_back(node: Node, beam: Beam) -> None:
    async with node.open_process() as me:
        me.trap_exit = True
        child, ref = await me.spawn_remote(beam.name, *STAY, link=True, monitor=True)
        assert await beam.eval("element(2, process_info(P, links))", P=child) == [me.pid]
        assert await beam.eval("plain_processes:monitored_by(P)", P=child) == [me.pid]
        assert me.demonitor(ref) is True
        me.unlink(child)
        me.send(child, (EXIT, NORMAL))  # behind both; it is not the message that the child waits for
        await until_eval(beam, "{process_info(P, links), plain_processes:monitored_by(P)} =:= {{links, []}, []}", child)
        me.send(child, (Atom("exit"), Atom("boom")))
        assert await beam.eval("plain_processes:await_gone(P, 20000)", P=child) is True
        assert len(me.mailbox) == 0
        await until(lambda: leftovers(node) == {})  # the acknowledgement of the unlink has come in


async def until_eval(beam: Beam, source: str, pid: Pid) -> None:
    async def so() -> bool:
        return bool(await beam.eval(source, P=pid))

    await until(so)


@pytest.mark.rule("Spawn: asking a BEAM with link and monitor")
async def test_monitor_options_of_a_request(node: Node, beam: Beam) -> None:
    async with node.open_process() as me:
        options = [(MONITOR, [(Atom("tag"), Atom("gone")), (Atom("alias"), Atom("demonitor"))])]
        ref = me.spawn_request(beam.name, *STAY, options=options)
        child = (await message(me, SPAWN_REPLY))[3]
        async with collecting(beam) as there:
            await there.run("erlang", "send", ref, Atom("through the alias"))
            assert await me.receive(timeout=PATIENCE) == Atom("through the alias")
        me.send(child, (Atom("exit"), Atom("boom")))
        assert await me.receive(timeout=PATIENCE) == (Atom("gone"), ref, PROCESS, child, Atom("boom"))
        assert leftovers(node) == {}


@pytest.mark.rule("Spawn: errors of a request")
@pytest.mark.parametrize(
    "options",
    [
        [Atom("nonsense")],
        [(Atom("priority"), Atom("urgent"))],
        [(Atom("min_heap_size"), -1)],
        [(MONITOR, [Atom("nonsense")])],
        [(Atom("scheduler"), Atom("one"))],
        [(LINK, 1)],
    ],
    ids=str,
)
async def test_bad_options(node: Node, beam: Beam, options: list[Any]) -> None:
    """As on a BEAM nothing is sent then, and nothing raised."""
    badopt = Atom("badopt")
    async with node.open_process() as me, collecting(beam) as there:
        ref = me.spawn_request(beam.name, *STAY, options=options)
        assert await me.receive(timeout=PATIENCE) == (SPAWN_REPLY, ref, ERROR, badopt)
        theirs = await there.run("erlang", "spawn_request", node.name, *STAY, options)
        assert await there.take(1) == [(SPAWN_REPLY, theirs, ERROR, badopt)]
        me.spawn_request(beam.name, *STAY, options=options, reply="success_only")
        with pytest.raises(SpawnError, match=rf"{beam.name} did not start spawner:stay: badopt"):
            await me.spawn_remote(beam.name, *STAY, options=options)
        assert len(me.mailbox) == 0


@pytest.mark.rule("Spawn: errors of a request")
async def test_no_such_node(node: Node, beam: Beam) -> None:
    async with node.open_process() as me:
        silent = me.spawn_request("nobody@127.0.0.1", *STAY, reply="success_only")
        ref = me.spawn_request("nobody@127.0.0.1", *STAY, link=True, monitor=True)
        assert await me.receive(timeout=PATIENCE) == (SPAWN_REPLY, ref, ERROR, Atom("noconnection"))
        with pytest.raises(SpawnError, match=r"nobody@127\.0\.0\.1 did not start spawner:stay: noconnection") as raised:
            await me.spawn_remote("nobody@127.0.0.1", *STAY)
        assert raised.value.reason == Atom("noconnection")
        assert len(me.mailbox) == 0, silent
        assert leftovers(node) == {}


@pytest.mark.rule("Spawn: errors of a request")
async def test_the_connection_is_lost_before_the_answer(node: Node, fresh_beam: Callable[[], Beam]) -> None:
    beam = fresh_beam()
    async with node.open_process() as me:
        await node.connect(beam.name)
        beam.suspend()
        ref = me.spawn_request(beam.name, *STAY, link=True, monitor=True)
        abandoned = me.spawn_request(beam.name, *STAY, link=True)
        assert me.spawn_request_abandon(abandoned) is True
        assert await node.disconnect(beam.name)
        assert await me.receive(timeout=PATIENCE) == (SPAWN_REPLY, ref, ERROR, Atom("noconnection"))
        assert len(me.mailbox) == 0
        assert leftovers(node) == {}
        beam.resume()


@pytest.mark.rule("Spawn: abandoned requests")
@pytest.mark.parametrize("how", ["abandons", "ends"])
async def test_a_parent_that_wants_no_child_any_more(node: Node, beam: Beam, how: str) -> None:
    """Before the answer is there: a linked child gets the parent's exit reason, or ``abandoned``."""
    async with collecting(beam) as there:
        await there.run("spawner", "watch_new_processes")
        async with node.open_process() as me:
            await node.connect(beam.name)
            if how == "abandons":
                reason = Atom("abandoned")
                ref = me.spawn_request(beam.name, *STAY, link=True, monitor=True)
                assert me.spawn_request_abandon(ref) is True
                assert me.spawn_request_abandon(ref) is False
                await there.round_trip(me)
                assert len(me.mailbox) == 0
            else:
                reason = Atom("worn out")

                async def ending(process: Process) -> None:
                    process.spawn_request(beam.name, *STAY, link=True, monitor=True)
                    raise Exit(reason)

                node.spawn(ending)

        async def told() -> bool:
            # This very question starts processes, and each of them is told of: so all that came are taken at once.
            messages = await there.take_up_to(max(1, await there.waiting()), 5.0)
            return any(m[2:] == (Atom("exit"), reason) for m in messages if m[0] == Atom("trace"))

        await until(told)
    await nothing_left(node)


@pytest.mark.rule("Spawn: asking a BEAM, replies as asked for")
async def test_spawn_remote(node: Node, beam: Beam) -> None:
    async with node.open_process() as me:
        child = await me.spawn_remote(beam.name, *STAY)
        assert isinstance(child, Pid)
        assert await beam.eval("is_process_alive(P)", P=child) is True
        me.exit(child, Atom("kill"))
        assert await me.spawn_remote(beam.name, "spawner", "tell", [me.pid, 1], link=True) != child
        assert (await message(me, Atom("told")))[2] == 1
        with trio.CancelScope() as scope:
            scope.cancel()
            await me.spawn_remote(beam.name, *STAY, link=True)
        assert scope.cancelled_caught
        async with collecting(beam) as there:
            await there.round_trip(me)
        assert len(me.mailbox) == 0
    await nothing_left(node)


@pytest.mark.rule("Spawn: asking a BEAM, replies as asked for")
async def test_a_node_spawns_on_itself(node: Node, beam: Beam) -> None:
    """With the same answers as a BEAM on itself."""
    expose(node)
    async with node.open_process() as me, collecting(beam) as there:
        me.trap_exit = True
        await there.trap_exit()
        ref = me.spawn_request(node.name, "py", "unknown", [1], link=True, monitor=True)
        ours = [await me.receive(timeout=PATIENCE) for _ in range(3)]
        unknown = (Atom("no_such_module"), Atom("unknown"))
        run = there.run("erlang", "spawn_request", *unknown, [1], [LINK, MONITOR])
        theirs_ref, theirs = await run, await there.take(3)
        assert ours[0][:3] == (SPAWN_REPLY, ref, OK)
        assert theirs[0][:3] == (SPAWN_REPLY, theirs_ref, OK)
        assert sorted(m[0].name for m in ours) == sorted(m[0].name for m in theirs) == ["DOWN", "EXIT", "spawn_reply"]
        child = await me.spawn_remote(node.name, "py", "echo", [me.pid, 5])
        assert await me.receive(timeout=PATIENCE) == (child, 5)
    await nothing_left(node)
