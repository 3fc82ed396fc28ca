"""``visible="full"``: a node of ours takes part in ``global`` among genuine BEAMs, as docs/visible.md says."""

from __future__ import annotations

import logging
import secrets
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from erlang_interop import Atom, EpmdAddress
from erlang_interop.otp import node as node_module
from erlang_interop.otp.global_server import GlobalServer
from erlang_interop.runtime.node import Node as RuntimeNode
from erlang_interop.testing.beam import Beam
from tests.interop.collectors import PATIENCE, collecting, has_lost, until, wait_for_ever

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from erlang_interop import Node, Pid, Process, Term
    from erlang_interop.testing.beam import Epmd
    from tests.conftest import BeamFactory
    from tests.interop.conftest import NodeOpener

NO, OK, YES = Atom("no"), Atom("ok"), Atom("yes")
#: Whether a BEAM takes part together with ``Others``, and is connected to them, now or soon.
KNOWS = """polling:until(fun() ->
    Others =:= lists:sort(gen_server:call(global_name_server, get_known)) andalso Others =:= lists:sort(nodes())
end, 20000)."""


def server_of(node: Node) -> GlobalServer:
    assert node.global_server is not None
    return node.global_server


def named(kind: str) -> str:
    """The name of a node: their order decides who resolves a clash."""
    return f"{kind}_{secrets.token_hex(3)}@127.0.0.1"


def is_connected_to(node: Node, others: set[Atom]) -> bool:
    """Whether a node of ours takes part together with these, and is connected to them."""
    return set(server_of(node).known) == set(node.nodes()) == others


async def know_each_other(*members: Node | Beam) -> None:
    """Return when all of them take part, and have nothing to exchange any more."""
    names = sorted(str(member.name) for member in members)
    for member in members:
        others = [Atom(name) for name in names if name != str(member.name)]
        if isinstance(member, Beam):
            assert await member.eval(KNOWS, Others=others, timeout=30) is True
            assert await member.eval("global:sync().", timeout=30) == OK
        else:
            await until(partial(is_connected_to, member, set(others)))
            with trio.fail_after(PATIENCE):
                await server_of(member).wait_synced()


async def has_name(beam: Beam, name: str, pid: Pid | None) -> None:
    """Return when a BEAM knows who has a name."""
    found: Term = Atom("undefined") if pid is None else pid
    source = f"polling:until(fun() -> global:whereis_name({name}) =:= Found end, 20000)."
    assert await beam.eval(source, Found=found, timeout=30) is True


@pytest.mark.rule("Visible nodes: a full node and a BEAM have the same names and locks")
async def test_each_side_has_the_names_and_locks_of_the_other(opened: NodeOpener, fresh_beam: BeamFactory) -> None:
    beam = fresh_beam()
    assert await beam.eval("global:register_name(before, whereis(init)).") == YES
    async with opened(visible="full") as node, node.open_process() as me:
        ours = node.spawn(wait_for_ever)
        await node.global_names.register("ours_before", ours)
        await node.connect(beam.name)
        await know_each_other(node, beam)
        # What each had before they met.
        assert server_of(node).whereis(Atom("before")) == await beam.eval("whereis(init).")
        await has_name(beam, "ours_before", ours)
        # What comes later, and what becomes of it.
        assert await beam.eval("global:register_name(later, P).", P=me.pid, timeout=30) == YES
        assert server_of(node).whereis(Atom("later")) == me.pid
        theirs = await beam.eval("spawn(timer, sleep, [infinity]).")
        await node.global_names.register("theirs", theirs)
        await has_name(beam, "theirs", theirs)
        await beam.eval("exit(P, kill).", P=theirs)
        await until(lambda: server_of(node).whereis(Atom("theirs")) is None)
        me.exit(ours, Atom("kill"))
        await has_name(beam, "ours_before", None)
        await node.global_names.unregister("later")
        await has_name(beam, "later", None)
        assert await beam.eval("global:unregister_name(before).", timeout=30) == OK
        assert server_of(node).names == {}
        # Locks.
        async with collecting(beam) as there:
            lock = (Atom("a_lock"), there.pid)
            assert await there.run("global", "set_lock", lock, [node.name, Atom(beam.name)], 0) is True
            assert [held.holders for held in server_of(node).locks.held] == [(there.pid,)]
            assert not await node.global_names.set_lock(("a_lock", me.pid), retries=0)
        await until(lambda: server_of(node).locks.held == [])
        assert await node.global_names.set_lock(("a_lock", me.pid))
        assert await beam.eval("global:set_lock({a_lock, self()}, [node() | nodes()], 0).", timeout=30) is False
        assert await beam.eval("global:trans({another, self()}, fun() -> done end).", timeout=30) == Atom("done")
        # What others ask by rpc.
        asked = "[rpc:call(N, global, F, A) || {F, A} <- [{whereis_name, [nobody]}, {registered_names, []}]]."
        assert await beam.eval(asked, N=node.name, timeout=30) == [Atom("undefined"), []]


@pytest.mark.rule("Visible nodes: full nodes hold the cluster in a mesh, and names of all are known to all")
async def test_a_cluster_of_two_beams_and_two_of_ours(opened: NodeOpener, fresh_beam: BeamFactory) -> None:
    one, two = fresh_beam(), fresh_beam()
    async with opened(visible="full") as a, opened(visible="full") as b:
        await a.connect(one.name)
        await b.connect(two.name)
        await know_each_other(a, one)
        await know_each_other(b, two)
        pids = [node.spawn(wait_for_ever) for node in (a, b)]
        await a.global_names.register("of_a", pids[0])
        await b.global_names.register("of_b", pids[1])
        # Two sides of two nodes each become one of four, connected all to all.
        assert await one.eval(f"net_kernel:connect_node('{two.name}').", timeout=30) is True
        await know_each_other(a, b, one, two)
        for beam in (one, two):
            await has_name(beam, "of_a", pids[0])
            await has_name(beam, "of_b", pids[1])
        for node in (a, b):
            assert server_of(node).names == {Atom("of_a"): pids[0], Atom("of_b"): pids[1]}
        assert set(a.nodes()) == {b.name, Atom(one.name), Atom(two.name)}
        assert await two.eval("global:register_name(of_two, whereis(init)).", timeout=30) == YES
        assert {str(name) for name in server_of(a).names} == {"of_a", "of_b", "of_two"}
        # Nobody of those who stay is cut off when one leaves.
        assert set(await server_of(a).disconnect()) == {b.name, Atom(one.name), Atom(two.name)}
        await know_each_other(b, one, two)
        await has_name(one, "of_a", None)
        assert {str(name) for name in server_of(b).names} == {"of_b", "of_two"}
        # And it may come back.
        await a.connect(one.name)
        await know_each_other(a, b, one, two)
        await has_name(two, "of_a", pids[0])


@pytest.mark.parametrize("ours", ["a_smaller", "z_greater"])
@pytest.mark.rule("Visible nodes: of two processes with one global name one is chosen")
async def test_a_name_of_both_sides_is_resolved(opened: NodeOpener, fresh_beam: BeamFactory, ours: str) -> None:
    beam = fresh_beam(named("m_beam"))
    asked: list[tuple[Term, Pid, Pid]] = []

    def keep_mine(name: Term, pid: Pid, pid2: Pid) -> Pid:
        asked.append((name, pid, pid2))
        return pid if pid.node.name.startswith(ours) else pid2

    async with opened(named(ours), visible="full") as node:
        names = ["exit", "notify", "both", "mine"]
        mine, theirs = {}, {}
        methods = ["random_exit_name", "random_notify_name", "notify_all_name"]
        async with node.open_process() as me, collecting(beam) as there:
            for name, method in zip(names, methods, strict=False):
                mine[name] = me.pid if name != "exit" else node.spawn(wait_for_ever)
                await node.global_names.re_register(name, mine[name], method)
                theirs[name] = there.pid if name != "exit" else await beam.eval("spawn(timer, sleep, [infinity]).")
                source = f"global:re_register_name({name}, P, fun global:{method}/3)."
                assert await beam.eval(source, P=theirs[name]) == YES
            mine["mine"] = me.pid
            await node.global_names.re_register("mine", me.pid, keep_mine)
            assert (
                await beam.eval("global:re_register_name(mine, P, fun global:notify_all_name/3).", P=there.pid) == YES
            )
            await node.connect(beam.name)
            await know_each_other(node, beam)
            smaller = mine if ours == "a_smaller" else theirs
            # The node with the smaller name has the method of its process called there.
            expected: dict[str, Pid | None] = {"exit": smaller["exit"], "notify": smaller["notify"], "both": None}
            expected["mine"] = me.pid if ours == "a_smaller" else None
            for name, pid in expected.items():
                assert server_of(node).whereis(Atom(name)) == pid, name
                await has_name(beam, name, pid)
            conflict, mine_lost = Atom("global_name_conflict"), ours == "z_greater"
            await until(lambda: node.is_alive(mine["exit"]) is not mine_lost)
            lives = "polling:until(fun() -> is_process_alive(P) =:= Alive end, 20000)."
            assert await beam.eval(lives, P=theirs["exit"], Alive=mine_lost) is True
            both = (conflict, Atom("both"))
            told_me = {(*both, there.pid)} | (
                {(conflict, Atom("notify")), (conflict, Atom("mine"), there.pid)} if mine_lost else set()
            )
            told_there = {(*both, me.pid)} | (
                {(conflict, Atom("mine"), me.pid)} if mine_lost else {(conflict, Atom("notify"))}
            )
            assert {await me.receive(timeout=PATIENCE) for _ in told_me} == told_me
            assert set(await there.take(len(told_there))) == told_there
            assert asked == ([] if mine_lost else [(Atom("mine"), there.pid, me.pid)])


@pytest.mark.rule("Visible nodes: who loses a full node lets go of it, and no BEAM of another")
async def test_lost_connections(opened: NodeOpener, fresh_beam: BeamFactory) -> None:
    one, two = fresh_beam(), fresh_beam()
    async with opened(visible="full") as node:
        await node.connect(one.name)
        await node.connect(two.name)
        await know_each_other(node, one, two)
        # The BEAM says that it has lost us; the other one lets go of us, and stays with the first.
        await node.disconnect(one.name)
        await until(lambda: node.nodes() == [])
        await know_each_other(one, two)
        assert server_of(node).known == {}
        await node.connect(two.name)
        await know_each_other(node, one, two)
        # Two BEAMs that lose each other: we do as any other node, and do not stay with both. We may stay with one, if
        # the other hears of it from us before it notices itself: then it says nothing of the first.
        assert await one.eval("erlang:disconnect_node(N).", N=Atom(two.name)) is True
        await until(lambda: not {Atom(one.name), Atom(two.name)} <= set(node.nodes()))
        for beam, other in ((one, two), (two, one)):
            await has_lost(beam, other.name)


@asynccontextmanager
async def stranger(epmd: Epmd, cookie: str, kind: str) -> AsyncIterator[Process]:
    """The name server of a visible node that speaks as we like: no more than ``receive`` and ``send`` say."""
    node = RuntimeNode(named(kind), cookie, visible=True, epmd_address=EpmdAddress(port=epmd.port))
    async with node.running(), node.open_process(name="global_name_server") as process:
        yield process


async def speak_halfway(me: Process, to: Node, last: str, reached: trio.Event) -> None:
    """Take part in an exchange up to the message ``last`` of the other side, which is not answered any more."""
    server, tag = (Atom("global_name_server"), to.name), 0
    while True:
        message: Any = await me.receive()
        match message:
            case (Atom("$gen_call"), (_, reply_tag), (Atom(what), _)):
                if what == last:
                    reached.set()
                    continue
                me.send(reply_tag.tail, (reply_tag, True))
            case (Atom("$gen_cast"), (Atom("init_connect"), (_, tag), _, _)):
                locker: Term = (Atom("locker"), Atom("no_longer_a_pid"), {}, me.pid)
                me.send(server, (Atom("$gen_cast"), (Atom("init_connect"), (8, -tag), me.node.name, locker)))
            case (Atom("$gen_cast"), (Atom(what), *_)):
                if what == last:
                    reached.set()
                elif what == "lock_set":
                    me.send(server, (Atom("$gen_cast"), (Atom("lock_set"), me.pid, True, [], tag)))


@pytest.mark.rule("Visible nodes: a peer that speaks global halfway keeps no BEAM waiting")
async def test_peers_that_speak_halfway_keep_no_beam_waiting(
    opened: NodeOpener,
    fresh_beam: BeamFactory,
    epmd: Epmd,
    cookie: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(node_module, "GlobalServer", partial(GlobalServer, lock_patience=0.3, exchange_patience=0.3))
    caplog.set_level(logging.WARNING, "erlang_interop.global")
    beam = fresh_beam()
    async with opened(visible="full") as node:

        async def has_met_the_beam() -> bool:
            await node.connect(beam.name)  # it is disconnected if it takes longer than that
            return Atom(beam.name) in server_of(node).known

        await until(has_met_the_beam)
        await know_each_other(node, beam)
        for last in ("set_lock", "lock_set", "exchange"):
            async with stranger(epmd, cookie, last) as me, trio.open_nursery() as speaking:
                reached = trio.Event()
                speaking.start_soon(speak_halfway, me, node, last, reached)
                await me.node.connect(node.name)
                with trio.fail_after(PATIENCE):
                    await reached.wait()
                # It has come that far, and has the lock of this node's whole side.
                register = f"global:register_name({last}, spawn(timer, sleep, [infinity]))."
                assert await beam.eval(register, timeout=60) == YES
                await until(lambda me=me: me.node.name.name in caplog.text)  # type: ignore[misc]
                speaking.cancel_scope.cancel()
        # Nonsense, and a lock that is never given back: with its holder it goes.
        async with stranger(epmd, cookie, "nonsense") as me:
            holder = me.node.spawn(wait_for_ever)
            server = ("global_name_server", node.name)
            me.send(server, (Atom("$gen_cast"), (Atom("exchange"), me.node.name, [1], [], 7)))
            await until(lambda: "global ignores a message" in caplog.text)

            def has_lock() -> bool:
                me.send(
                    server, (Atom("$gen_call"), (holder, me.make_ref()), (Atom("set_lock"), (Atom("global"), holder)))
                )
                return any(lock.requester == holder for lock in server_of(node).locks.held)

            await until(has_lock)
        assert await beam.eval("global:register_name(last, whereis(init)).", timeout=60) == YES
        await know_each_other(node, beam)
        assert len(server_of(node).names) == 4
