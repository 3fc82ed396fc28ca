"""``node.global_names`` with the ``global`` of BEAMs: names and locks, of hidden and of visible nodes of ours.

Nodes that take part themselves (``visible="full"``) are in test_global_names_full.py.
"""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Any, Final

import pytest
import trio
import trio.testing

from erlang_interop import (
    Atom,
    GlobalNameTaken,
    Node,
    NodeDownError,
    NoProcess,
    NoVisibleNode,
    Pid,
    TransactionAborted,
)
from erlang_interop.testing.beam import Beam
from tests.interop.collectors import PATIENCE, collecting, has_lost, until
from tests.interop.global_cluster import (
    NO,
    UNDEFINED,
    YES,
    has,
    is_free,
    joined,
    lock_of,
    new_atom,
    wait,
    whereis,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from erlang_interop import Term
    from erlang_interop.testing.beam import Epmd
    from tests.conftest import BeamFactory, Otp
    from tests.interop.conftest import NodeOpener


@pytest.fixture(scope="module")
def two_beams(otp: Otp, epmd: Epmd, cookie: str, fixtures_ebin: Path) -> Iterator[tuple[Beam, Beam]]:
    prefix = f"global{otp.release}_{secrets.token_hex(3)}"
    with (
        Beam.start(otp.root, f"{prefix}_1@127.0.0.1", cookie, epmd.port, code_paths=[fixtures_ebin]) as one,
        Beam.start(otp.root, f"{prefix}_2@127.0.0.1", cookie, epmd.port, code_paths=[fixtures_ebin]) as two,
    ):
        yield one, two


@pytest.fixture
async def pair(two_beams: tuple[Beam, Beam]) -> tuple[Beam, Beam]:
    """Two BEAMs that are one cluster."""
    await joined(*two_beams)
    return two_beams


KINDS: Final = pytest.mark.parametrize("visible", [False, "passive"], ids=["hidden", "visible"])


# -- names, through a BEAM


@pytest.mark.rule("Visible nodes: a name registered through a BEAM goes with its process, its node")
@KINDS
async def test_a_name_is_known_to_all_and_goes_with_its_process(
    opened: NodeOpener, pair: tuple[Beam, Beam], visible: Any
) -> None:
    name = new_atom()
    async with opened(visible=visible) as node, node.open_process() as process:
        await node.connect(pair[0].name)
        names, ours = node.global_names, node.spawn(wait)
        await names.register(name.name, process.pid)
        for beam in pair:
            assert await whereis(beam, name) == process.pid
            assert await beam.eval("global:send(N, {hello, node()})", N=name) == process.pid
            assert await process.receive(timeout=PATIENCE) == (Atom("hello"), Atom(beam.name))
        # Each monitors the process, and so connects to this node.
        await until(lambda: {Atom(beam.name) for beam in pair} <= set(node.nodes("connected")))
        assert await names.whereis(name.name) == process.pid
        assert name in await names.registered_names()
        with pytest.raises(GlobalNameTaken, match=f"cannot be {name.name}: a process has that name"):
            await names.register(name, ours)
        assert await pair[1].eval("global:register_name(N, self())", N=name) == NO
        await names.re_register(name, ours)
        for beam in pair:
            assert await whereis(beam, name) == ours
        node.exit(ours, Atom("kill"))
        for beam in pair:
            await has(beam, name, UNDEFINED)
        await names.register(name, process.pid)
        await names.unregister(name)
        await names.unregister(name)
        for beam in pair:
            assert await whereis(beam, name) == UNDEFINED
        assert process.alive


@pytest.mark.rule("Visible nodes: a name registered through a BEAM goes with its process, its node")
@KINDS
async def test_a_name_goes_with_its_node(opened: NodeOpener, pair: tuple[Beam, Beam], visible: Any) -> None:
    name = new_atom()
    async with opened(visible=visible) as node:
        await node.connect(pair[0].name)
        await node.global_names.register(name, node.spawn(wait))
        assert await whereis(pair[1], name) != UNDEFINED
    for beam in pair:
        await has(beam, name, UNDEFINED)
        await has_lost(beam, node.name)
    async with opened(node.name.name, visible=visible) as node:  # and its next life has nothing of it
        await node.connect(pair[0].name)
        assert await node.global_names.whereis(name) is None


async def test_names_of_processes_elsewhere(node: Node, beam: Beam) -> None:
    name = new_atom()
    await node.connect(beam.name)
    names = node.global_names
    async with collecting(beam) as there:
        await names.register(name, there.pid)
        assert await whereis(beam, name) == there.pid
        assert await names.send(name, Atom("hello")) == there.pid
        assert await there.take(1) == [Atom("hello")]
        with pytest.raises(GlobalNameTaken):  # it has one; where a node registers its own, OTP does not mind
            await names.register(new_atom(), there.pid)
        assert await there.run("global", "unregister_name", name) == Atom("ok")
        assert await names.whereis(name) is None
        assert await there.run("global", "register_name", name, there.pid) == YES
        assert await names.whereis(name) == there.pid
        with pytest.raises(GlobalNameTaken):
            await names.register(name, node.spawn(wait))
    await has(beam, name, UNDEFINED)
    with pytest.raises(NoProcess, match=f"nobody has the global name {name.name}"):
        await names.send(name, 1)
    await names.sync()


async def test_any_term_is_a_name(node: Node, beam: Beam) -> None:
    await node.connect(beam.name)
    names = node.global_names
    part = (os.getpid(), new_atom().name.encode())
    terms: list[Term] = [
        f"ж{part}",  # an atom
        f"ж{part}".encode(),
        (part, 1),
        (part, 1.0),
        (part, True),
        (part, None),
        [*part],
        {part: Atom("value")},
        node.spawn(wait),
    ]
    seen = [Atom(terms[0]), *terms[1:]]
    pids = [node.spawn(wait) for _ in terms]
    for term, pid in zip(terms, pids, strict=True):
        await names.register(term, pid)
    for term, there, pid in zip(terms, seen, pids, strict=True):
        assert await names.whereis(term) == pid
        assert await whereis(beam, there) == pid
    registered = await names.registered_names()
    assert all(any(repr(term) == repr(name) for name in registered) for term in seen)
    for term in terms:
        await names.unregister(term)
        assert await names.whereis(term) is None


async def test_one_process_may_have_several_names_through_a_beam(node: Node, beam: Beam) -> None:
    await node.connect(beam.name)
    one, two = new_atom(), new_atom()
    pid = node.spawn(wait)
    for name in (one, two):
        await node.global_names.register(name, pid)
    node.exit(pid, Atom("kill"))
    for name in (one, two):
        await has(beam, name, UNDEFINED)


async def test_what_cannot_be_done(opened: NodeOpener, beam: Beam) -> None:
    name = new_atom()
    async with opened() as node, opened(visible="passive") as passive:
        names, pid = node.global_names, node.spawn(wait)
        with pytest.raises(NoVisibleNode, match=f"{node.name.name} is hidden, .* none is connected"):
            await names.register(name, pid)
        await node.connect(passive.name)
        for refused in (lambda: names.whereis(name), lambda: names.set_lock((name, Atom("me")))):
            with pytest.raises(NoVisibleNode, match=f"none of {passive.name.name} has `global`"):
                await refused()
        with pytest.raises(NodeDownError):
            await names.register(name, pid, through="nobody@127.0.0.1")
        assert await names.whereis(name, through=beam.name) is None  # dialled
        await names.register(name, pid)
        dead = node.spawn(wait)
        node.exit(dead, Atom("kill"))
        with pytest.raises(NoProcess, match="has ended"):
            await names.re_register(name, dead)
        with pytest.raises(ValueError, match="'toss_a_coin' is no way to resolve"):
            await names.re_register(name, pid, "toss_a_coin")
        assert await names.whereis(name) == pid
        await names.unregister(name)


async def test_a_beam_that_is_lost(opened: NodeOpener, fresh_beam: BeamFactory) -> None:
    """What the docs say of it: the process is told, the other BEAMs have the name, and another one is asked."""
    one, two = fresh_beam(), fresh_beam()
    await joined(one, two)
    name = new_atom()
    async with opened() as node, node.open_process() as process:
        process.trap_exit = True
        names = node.global_names
        await node.connect(one.name)
        await names.register(name, process.pid)
        server = await one.eval("whereis(global_name_server)")
        await node.connect(two.name)
        one.kill()
        assert await process.receive(timeout=PATIENCE) == (Atom("EXIT"), server, Atom("noconnection"))
        assert await whereis(two, name) == process.pid
        assert await names.whereis(name) == process.pid
        await names.unregister(name)
        await names.register(name, process.pid)
        assert await names.whereis(name) == process.pid


async def test_a_beam_that_is_lost_while_it_is_asked(opened: NodeOpener, fresh_beam: BeamFactory) -> None:
    beam = fresh_beam()
    async with opened() as node:
        await node.connect(beam.name)
        await node.global_names.sync()
        beam.suspend()

        async def register() -> None:
            with pytest.raises(NodeDownError):
                await node.global_names.register(new_atom(), node.spawn(wait))

        async def lock() -> None:
            # It has no say any more: the lock is set on all that are left, which are none.
            assert await node.global_names.set_lock((new_atom(), Atom("me")), [beam.name])

        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(register)
                nursery.start_soon(lock)
                await trio.testing.wait_all_tasks_blocked()
                beam.kill()


# -- two parts of a cluster meet


@pytest.mark.parametrize("kept", ["ours", "theirs", None])
async def test_two_processes_with_one_name_meet(opened: NodeOpener, fresh_beam: BeamFactory, kept: str | None) -> None:
    one, two = fresh_beam(), fresh_beam()  # not connected; the first one asks, since its name is smaller
    assert one.name < two.name
    name = new_atom()
    asked: list[tuple[Term, Pid, Pid]] = []

    async def resolve(name: Term, pid: Pid, pid2: Pid) -> Pid | None:
        asked.append((name, pid, pid2))
        return {"ours": pid2, "theirs": pid, None: None}[kept]

    async with opened() as node, collecting(two) as there:
        await node.connect(one.name)
        ours = node.spawn(wait)
        await node.global_names.register(name, ours, resolve)
        assert await there.run("global", "register_name", name, there.pid) == YES
        await joined(one, two)
        winner = ours if kept == "ours" else there.pid if kept == "theirs" else UNDEFINED
        for beam in (one, two):
            await has(beam, name, winner)
        assert set(asked) == {(name, there.pid, ours)}
        assert node.is_alive(ours)


async def test_two_of_ours_with_one_name_meet(opened: NodeOpener, fresh_beam: BeamFactory) -> None:
    """By global's own method one of the two is killed, which is said by nobody but this node."""
    one, two = fresh_beam(), fresh_beam()
    name = new_atom()
    async with opened() as node:
        pids = [node.spawn(wait), node.spawn(wait)]
        for beam, pid in zip((one, two), pids, strict=True):
            await node.global_names.register(name, pid, through=beam.name)
        await joined(one, two)
        await until(lambda: [node.is_alive(pid) for pid in pids].count(True) == 1)
        (left,) = [pid for pid in pids if node.is_alive(pid)]
        for beam in (one, two):
            await has(beam, name, left)


# -- locks


async def test_a_lock_that_a_beam_sets_for_us_is_not_kept(node: Node, beam: Beam) -> None:
    """Why locks are asked for by this node itself: who runs the call holds the lock, and ends."""
    lock = (new_atom("lock"), Atom("me"))
    assert await node.rpc(beam.name, "global", "set_lock", [lock, [Atom(beam.name)], 0]) is True
    await is_free(beam, lock[0])


@pytest.mark.rule("Visible nodes: a lock of a hidden or passive node keeps others out")
@KINDS
async def test_a_lock_keeps_others_out_on_all_nodes(opened: NodeOpener, pair: tuple[Beam, Beam], visible: Any) -> None:
    resource = new_atom("lock")
    async with opened(visible=visible) as node, collecting(pair[1]) as there:
        await node.connect(pair[0].name)
        names = node.global_names
        theirs = (resource, Atom("other"))
        assert await names.set_lock((resource.name, "me"))
        assert await names.set_lock((resource, Atom("me")), retries=0)
        for beam in pair:
            ((requester, (holder,)),) = await lock_of(beam, resource)
            assert (requester, holder.node) == (Atom("me"), node.name)
            assert await there.run("global", "set_lock", theirs, [Atom(beam.name)], 0) is False
        assert not await names.set_lock(theirs, retries=0)
        await names.del_lock((resource, Atom("me")))
        for beam in pair:
            assert await lock_of(beam, resource) == []
        assert await there.run("global", "set_lock", theirs, [Atom(beam.name) for beam in pair], 0) is True
        assert not await names.set_lock((resource, Atom("me")), retries=1)
        await there.run("global", "del_lock", theirs)
        await is_free(pair[0], resource)


@pytest.mark.rule("Visible nodes: a lock is free when who holds it has ended")
async def test_the_end_of_the_requester_frees_its_lock(opened: NodeOpener, pair: tuple[Beam, Beam]) -> None:
    resource = new_atom("lock")
    taking = "spawn(fun() -> true = global:set_lock({R, self()}), Me ! {locked, node()} end), ok"
    async with opened() as observer, observer.open_process() as me, opened() as node:
        await observer.connect(pair[1].name)
        await node.connect(pair[0].name)
        pid = node.spawn(wait)
        assert await node.global_names.set_lock((resource, pid))
        for beam in pair:
            assert await lock_of(beam, resource) == [(pid, [pid])]
        await pair[1].eval(taking, R=resource, Me=me.pid)  # it waits
        node.exit(pid, Atom("kill"))
        assert await me.receive(timeout=PATIENCE) == (Atom("locked"), Atom(pair[1].name))
        for beam in pair:
            await is_free(beam, resource)
        assert await node.global_names.set_lock((resource, Atom("me")))
        await pair[1].eval(taking, R=resource, Me=me.pid)
        for beam in pair:  # that was a lock of the node's own; the node is lost
            await node.disconnect(beam.name)
        assert await me.receive(timeout=PATIENCE) == (Atom("locked"), Atom(pair[1].name))
    for beam in pair:
        await has_lost(beam, node.name)
        await is_free(beam, resource)


async def test_locks_that_others_never_release(node: Node, beam: Beam) -> None:
    resource = new_atom("lock")
    mine, theirs = (resource, Atom("me")), (resource, Atom("other"))
    ran = False

    async def run() -> None:
        nonlocal ran
        ran = True

    await node.connect(beam.name)
    names = node.global_names
    async with collecting(beam) as there:
        assert await there.run("global", "set_lock", theirs, [Atom(beam.name)]) is True
        assert not await names.set_lock(mine, [beam.name], 0)
        with pytest.raises(TransactionAborted, match=rf"\{{{resource.name},me\}} is held by others"):
            await names.trans(mine, run, [beam.name], 1)
        with trio.move_on_after(0.5) as scope:
            await names.set_lock(mine, [beam.name])
        assert scope.cancelled_caught
        assert not ran
        assert await lock_of(beam, resource) == [(Atom("other"), [there.pid])]
        # Another one's lock cannot be freed.
        await names.del_lock(theirs, [beam.name])
        assert await lock_of(beam, resource) == [(Atom("other"), [there.pid])]
    await is_free(beam, resource)  # until who holds it ends
    await names.trans(mine, run, [beam.name])
    assert ran
    await is_free(beam, resource)


async def test_transactions_of_beams_and_ours_exclude_each_other(opened: NodeOpener, pair: tuple[Beam, Beam]) -> None:
    """Each reads a number, and writes what it has read and one more, on both BEAMs."""
    resource, key, turns = new_atom("lock"), new_atom("number"), 3
    async with opened() as node, node.open_process() as me:
        for beam in pair:
            await node.connect(beam.name)
            await beam.eval("persistent_term:put(K, 0)", K=key)
        counting = """
            Put = fun(N) -> [rpc:call(B, persistent_term, put, [K, N]) || B <- Nodes] end,
            Turn = fun() -> N = persistent_term:get(K), timer:sleep(5), Put(N + 1) end,
            spawn(fun() -> [global:trans({R, self()}, Turn, Nodes) || _ <- lists:seq(1, Turns)], Me ! done end), ok
        """
        nodes = [Atom(beam.name) for beam in pair]
        for beam in pair:
            await beam.eval(counting, K=key, R=resource, Nodes=nodes, Turns=turns, Me=me.pid)

        async def turn() -> None:
            number = await node.rpc(pair[0].name, "persistent_term", "get", [key])
            for beam in pair:
                await node.rpc(beam.name, "persistent_term", "put", [key, number + 1])

        for _ in range(turns):
            await node.global_names.trans((resource, me.pid), turn)
        for _ in pair:
            assert await me.receive(timeout=120) == Atom("done")
        for beam in pair:
            assert await beam.eval("persistent_term:get(K)", K=key) == 3 * turns
            await beam.eval("persistent_term:erase(K)", K=key)
