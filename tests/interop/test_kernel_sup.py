"""A BEAM ends the processes that our node has of its own; docs/processes.md says what becomes of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from erlang_interop import Atom, SupervisorError, open_pg
from erlang_interop.otp import _global_messages as messages
from erlang_interop.otp._global_core import GlobalCore
from tests.interop.collectors import PATIENCE, collecting, has_lost, until, wait_for_ever
from tests.interop.pg_peer import all_have, scope_on
from tests.interop.test_global_full import has_name, know_each_other, server_of

if TYPE_CHECKING:
    from erlang_interop import Node
    from erlang_interop.testing.beam import Beam
    from tests.conftest import BeamFactory
    from tests.interop.collectors import Collector
    from tests.interop.conftest import NodeOpener

DOWN, PROCESS, KILL, KILLED = Atom("DOWN"), Atom("process"), Atom("kill"), Atom("killed")
G, OK, YES = Atom("g"), Atom("ok"), Atom("yes")


async def found_by(there: Collector, node: Node, name: str) -> Any:
    """What a BEAM is told of who has a name on our node."""
    return await there.run("rpc", "call", node.name, Atom("erlang"), Atom("whereis"), [Atom(name)])


async def killed(there: Collector, node: Node, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Have a BEAM kill a process of our node, which is started again, as the log says."""
    old = await found_by(there, node, name)
    ref = await there.monitor(old)
    await there.run("erlang", "exit", old, KILL)
    assert await there.take(1) == [(DOWN, ref, PROCESS, old, KILLED)]
    new = await found_by(there, node, name)
    assert new == node.whereis(name) != old
    assert f"child Atom({name!r}) ended: killed (an exit signal of {there.pid})" in caplog.text


@pytest.mark.parametrize("name", ["net_kernel", "rex", "user"])
async def test_who_is_killed_serves_again(
    either_node: Node, beam: Beam, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    node = either_node
    node.expose("py", {"add": lambda one, other: one + other})
    async with collecting(beam) as there:
        for _ in range(3):
            await killed(there, node, name, caplog)
            assert await there.run("net_adm", "ping", node.name) == Atom("pong")
            assert await there.run("rpc", "block_call", node.name, Atom("py"), Atom("add"), [1, 2]) == 3
            assert await there.run("io", "put_chars", node.whereis("user"), b"printed") == OK


async def test_who_waits_for_rex_when_it_is_killed_is_told(
    node: Node, beam: Beam, caplog: pytest.LogCaptureFixture
) -> None:
    """Not so the callers of ``rpc:call`` and ``erpc:call``, which do not ask it."""
    started: list[bytes] = []
    go_on = trio.Event()

    async def slow(way: bytes) -> bytes:
        started.append(way)
        await go_on.wait()
        return way

    node.expose("here", {"slow": slow})
    call = "spawn(fun() -> C ! {F, apply(M, F, [N, here, slow, [W]])} end), ok"
    ways = [("rpc", "block_call", b"1"), ("rpc", "call", b"2"), ("erpc", "call", b"3")]
    async with collecting(beam) as answers, collecting(beam) as there:
        for module, function, way in ways:
            await beam.eval(call, C=answers.pid, M=Atom(module), F=Atom(function), N=node.name, W=way)
        await until(lambda: len(started) == len(ways))
        await killed(there, node, "rex", caplog)
        ((function, (badrpc, (exit_, (reason, _)))),) = await answers.take(1)
        assert (function, badrpc, exit_, reason) == (Atom("block_call"), Atom("badrpc"), Atom("EXIT"), KILLED)
        go_on.set()
        assert sorted(answer for _, answer in await answers.take(2)) == [b"2", b"3"]


async def test_a_scope_of_pg_has_its_members_again(
    either_node: Node, beam: Beam, caplog: pytest.LogCaptureFixture
) -> None:
    node = either_node
    async with scope_on(beam) as scope, open_pg(node, scope.name) as pg, collecting(beam) as there:
        await node.connect(beam.name)
        ours = node.spawn(wait_for_ever)
        (theirs, later) = await scope.spawn(2)
        pg.join(G, [ours, ours])
        await scope.call("join", G, theirs)
        await all_have([pg, scope], G, [ours, ours, theirs])
        for _ in range(3):
            await killed(there, node, scope.name.name, caplog)
            await all_have([pg, scope], G, [ours, ours, theirs])
        await scope.call("join", G, later)
        pg.leave(G, ours)
        await all_have([pg, scope], G, [ours, theirs, later])
        node.exit(ours, KILL)
        await scope.kill(theirs)
        await all_have([pg, scope], G, [later])


async def test_a_cluster_does_not_notice_that_our_name_server_is_killed(
    opened: NodeOpener, fresh_beam: BeamFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither those that are members nor one that comes later; names and locks are everywhere, as before."""
    one, two = fresh_beam(), fresh_beam()
    async with opened(visible="full") as node, collecting(one) as there, collecting(two) as watching:
        await node.connect(one.name)
        await node.connect(two.name)
        await know_each_other(node, one, two)
        ours = node.spawn(wait_for_ever)
        await node.global_names.register("ours", ours)
        assert await two.eval("global:register_name(theirs, whereis(init)).", timeout=30) == YES
        assert await watching.run("global", "set_lock", (G, 1), [Atom(two.name), node.name]) is True
        await watching.run("net_kernel", "monitor_nodes", True)
        for _ in range(3):
            await killed(there, node, "global_name_server", caplog)
        for beam in (one, two):
            await has_name(beam, "ours", ours)
            assert await beam.eval("global:sync().", timeout=30) == OK
        assert server_of(node).names == {Atom("ours"): ours, Atom("theirs"): await two.eval("whereis(init).")}
        assert [lock.holders for lock in server_of(node).locks.held] == [(watching.pid,)]
        assert await there.run("global", "set_lock", (G, 2), [node.name], 0) is False
        assert await watching.run("global", "del_lock", (G, 1), [Atom(two.name), node.name]) is True

        assert await one.eval("global:register_name(new, P).", P=there.pid, timeout=30) == YES
        assert server_of(node).whereis(Atom("new")) == there.pid
        await node.global_names.register("new_of_ours", ours := node.spawn(wait_for_ever))
        node.exit(ours, KILL)
        for beam in (one, two):
            await has_name(beam, "new_of_ours", None)
        assert await two.eval("global:unregister_name(theirs).", timeout=30) == OK
        assert {str(name) for name in server_of(node).names} == {"ours", "new"}
        assert await watching.waiting() == 0

        three = fresh_beam()
        assert await three.eval("net_kernel:connect_node(N).", N=node.name, timeout=30) is True
        await know_each_other(node, one, two, three)
        await has_name(three, "new", there.pid)


async def test_a_name_server_that_is_killed_while_it_joins(
    opened: NodeOpener, fresh_beam: BeamFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As soon as it has had the first message of a kind: it joins all the same, and holds up nobody."""
    one, two = fresh_beam(), fresh_beam()
    assert await one.eval("net_kernel:connect_node(N).", N=Atom(two.name), timeout=30) is True
    await know_each_other(one, two)
    assert await two.eval("global:register_name(theirs, whereis(init)).", timeout=30) == YES
    handle = GlobalCore.handle
    for kind in (messages.InitConnect, messages.LockSet, messages.Exchange, messages.Resolved):
        seen = trio.Event()
        async with opened(visible="full") as node:

            def handle_and_die(
                core: GlobalCore,
                message: messages.Message,
                node: Node = node,
                kind: type[Any] = kind,
                seen: trio.Event = seen,
            ) -> None:
                handle(core, message)
                if type(message) is kind and not seen.is_set():
                    seen.set()
                    node.exit(server_of(node).process.pid, KILL)

            monkeypatch.setattr(GlobalCore, "handle", handle_and_die)
            ours = node.spawn(wait_for_ever)
            await node.global_names.register("ours", ours)
            await node.connect(one.name)
            with trio.fail_after(PATIENCE):
                await seen.wait()
            await know_each_other(node, one, two)
            for beam in (one, two):
                await has_name(beam, "ours", ours)
            assert {str(name) for name in server_of(node).names} == {"ours", "theirs"}
            assert await one.eval("global:register_name(more, whereis(init)).", timeout=30) == YES
            assert server_of(node).whereis(Atom("more")) == await one.eval("whereis(init).")
            assert await one.eval("global:unregister_name(more).", timeout=30) == OK
        for beam in (one, two):
            await has_lost(beam, node.name)
            await has_name(beam, "ours", None)
        await know_each_other(one, two)


async def test_a_node_whose_processes_are_killed_again_and_again_ends(opened: NodeOpener, beam: Beam) -> None:
    """As a BEAM does at the first time; the other nodes see it go."""
    kill = """
        Kill = fun Again() ->
            case rpc:call(N, erlang, whereis, [rex]) of
                P when is_pid(P) -> exit(P, kill), Again();
                _Gone -> ok
            end
        end,
        Kill()
    """
    with trio.fail_after(PATIENCE), pytest.raises(SupervisorError, match="its own processes have"):
        async with opened() as node:
            await node.connect(beam.name)
            await beam.eval(kill, N=node.name)
            await trio.sleep_forever()
    await has_lost(beam, node.name)
