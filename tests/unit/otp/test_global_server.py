"""Full nodes among themselves; in ``interop/test_global_full.py`` there are BEAMs."""

from __future__ import annotations

import itertools
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from erlang_interop import Atom, Export, Node, NoProcess, Pid, Process, Reference, Term
from erlang_interop.otp import _global_messages as messages
from erlang_interop.otp._global_locker import EXCHANGE_PATIENCE
from erlang_interop.otp._global_messages import GLOBAL, VERSION, Named
from erlang_interop.otp.gen import GEN_CAST
from erlang_interop.otp.global_server import DIAL_RETRIES, GlobalServer
from erlang_interop.otp.passive import GLOBAL_NAME_SERVER
from erlang_interop.testing.cluster import MemoryAddresses, MemoryTransport, Network, open_cluster, settled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

METHOD = Export(GLOBAL, Atom("random_exit_name"), 3)
UNSUPPORTED = (Atom("error"), Atom("unsupported"))


async def wait(_process: Process) -> None:
    await trio.sleep_forever()


def server(node: Node) -> GlobalServer:
    assert node.global_server is not None
    return node.global_server


@asynccontextmanager
async def full(*names: str, network: Network | None = None) -> AsyncIterator[tuple[Node, ...]]:
    async with open_cluster(*(f"{name}@test" for name in names), visible="full", network=network) as nodes:
        yield nodes


async def joined(*nodes: Node) -> None:
    """Connect them one after the other; all know each other then."""
    for one, other in itertools.pairwise(nodes):
        await one.connect(other.name)
        await server(one).wait_synced()
    await trio.sleep(10)
    assert_members(*nodes)


def assert_members(*nodes: Node) -> None:
    names = {node.name for node in nodes}
    for node in nodes:
        assert {node.name, *server(node).known} == {node.name, *server(node).synced} == names
        assert {node.name, *node.nodes()} == names
        assert server(node).names == server(nodes[0]).names
        assert server(node).locks.held == []


async def test_four_nodes_become_one_cluster(autojump_clock: MockClock) -> None:
    async with full("a", "b", "c", "d") as (a, b, c, d):
        pids = {node.short_name: node.spawn(wait) for node in (a, b, c, d)}
        await joined(a, b)
        await joined(c, d)
        for node in (a, b, c, d):
            await node.global_names.register(node.short_name, pids[node.short_name])
        await b.connect(c.name)
        await trio.sleep(20)
        assert_members(a, b, c, d)
        assert {str(name): pid for name, pid in server(a).names.items()} == pids
        # Each node sees each process end for itself.
        d.exit(pids["a"], Atom("kill"))
        await settled()
        assert {str(name) for name in server(d).names} == {"b", "c", "d"}
        with trio.fail_after(5):
            await server(a).wait_synced()
        assert server(a).whereis(Atom("d")) == pids["d"]
        assert server(a).known == dict.fromkeys((b.name, c.name, d.name), VERSION)
    with pytest.raises(NoProcess):
        await server(a).wait_synced()


@pytest.mark.parametrize(("first", "second"), [("a", "b"), ("b", "a")])
async def test_a_name_that_both_have(autojump_clock: MockClock, first: str, second: str) -> None:
    def keep_second(_name: Term, pid: Pid, pid2: Pid) -> Pid:
        return pid if pid.node.name.startswith(second) else pid2

    def fail(name: Term, pid: Pid, pid2: Pid) -> Pid:
        raise ValueError(name)

    async with full(first, second) as (one, two):
        pids = {node: [node.spawn(wait) for _ in range(4)] for node in (one, two)}
        for node in (one, two):
            ways: list[Any] = [keep_second, "notify_all_name", fail, "random_exit_name"]
            for way, pid in zip(ways, pids[node], strict=True):
                await node.global_names.register(f"{ways.index(way)}", pid, way)
        await joined(one, two)
        smaller, greater = (one, two) if first < second else (two, one)
        # 1: nobody keeps it; 2: nobody could decide, so the process wins whose node was not asked.
        expected = {Atom("0"): pids[two][0], Atom("2"): pids[greater][2], Atom("3"): pids[smaller][3]}
        assert server(one).names == expected
        assert not greater.is_alive(pids[greater][3])


async def test_who_never_decides_keeps_nobody_waiting(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def decide_never(_name: Term, _pid: Pid, _pid2: Pid) -> None:
        await trio.sleep_forever()

    async with full("a", "b") as (a, b):
        for node in (a, b):
            await node.global_names.register("x", node.spawn(wait), decide_never)
        await a.connect(b.name)
        await trio.sleep(EXCHANGE_PATIENCE / 2)
        assert server(b).locks.get(GLOBAL) is not None
        await trio.sleep(EXCHANGE_PATIENCE)
        # The one that waits for the other has had enough.
        assert "disconnects a@test" in caplog.text
        assert not a.is_connected(b.name)
        for node in (a, b):
            assert (server(node).known, server(node).locks.held, len(server(node).names)) == ({}, [], 1)


async def test_a_cluster_that_a_node_leaves_stays_whole(autojump_clock: MockClock) -> None:
    async with full("a", "b", "c") as (a, b, c):
        await joined(a, b, c)
        pid = a.spawn(wait)
        await a.global_names.register("x", pid)
        assert set(await server(a).disconnect()) == {b.name, c.name}
        await trio.sleep(10)
        assert_members(b, c)
        assert server(b).names == {}
        assert server(a).known == {}
        assert server(a).names == {Atom("x"): pid}
        await a.connect(c.name)
        await trio.sleep(20)
        assert_members(a, b, c)
        assert server(b).names == {Atom("x"): pid}


async def test_two_nodes_that_lose_each_other_are_let_go_by_the_others(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    network = Network()
    async with full("a", "b", "c", "d", network=network) as (a, b, c, d):
        await joined(a, b, c, d)
        network.part("a@test", "c@test")
        await trio.sleep(10)
        assert_members(a)
        assert_members(c)
        assert_members(b, d)
        assert "lets go of c@test, since a@test has lost its connection to c@test" in caplog.text
        network.heal("a@test", "c@test")
        await a.connect(b.name)
        await c.connect(b.name)
        await trio.sleep(30)
        assert_members(a, b, c, d)


async def test_a_node_that_cannot_be_reached_is_not_known(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    network = Network()
    async with full("a", "b", "c", network=network) as (a, b, c):
        await joined(a, b)
        network.part("a@test", "c@test")
        await b.connect(c.name)
        await trio.sleep(DIAL_RETRIES + 20)
        assert server(a).known == server(c).known == {b.name: VERSION}
        assert "cannot connect to c@test, which others of the cluster know" in caplog.text


async def test_a_passive_and_a_hidden_node_are_no_members(autojump_clock: MockClock) -> None:
    network = Network()
    async with (
        full("a", network=network) as (a,),
        open_cluster("p@test", visible="passive", network=network) as (passive,),
        open_cluster("h@test", network=network) as (hidden,),
    ):
        await passive.connect(a.name)
        await hidden.connect(a.name)
        await server(a).wait_synced()
        await trio.sleep(10)
        assert server(a).known == {}
        assert server(a).synced == [passive.name]


# -- calls


async def test_the_calls_that_are_answered(autojump_clock: MockClock) -> None:
    async with full("a", "b") as (a, b), b.open_process() as me:
        await joined(a, b)
        to = (GLOBAL_NAME_SERVER, a.name)
        name, lock = (b"name", 1), (b"resource", [b"requester"])

        async def call(request: Term) -> Term:
            return await a.call(to, request)

        assert await b.call(to, (Atom("set_lock"), lock)) is True
        assert await b.call(to, (Atom("set_lock"), (b"resource", b"another"))) is True  # its holder was the call itself
        assert await b.call(to, (Atom("del_lock"), lock)) is True
        assert await call((Atom("register"), name, me.pid, METHOD)) == Atom("yes")
        assert await call((Atom("register_ext"), b"c", me.pid, METHOD, b.name)) == Atom("yes")
        assert await call(Atom("get_names_ext")) == [(b"c", me.pid, b.name)]
        assert server(a).names == {name: me.pid, b"c": me.pid}
        assert await call((Atom("unregister"), name)) == Atom("ok")
        assert await call(Atom("get_known")) == await call(Atom("get_synced")) == [b.name]
        assert await call(Atom("get_protocol_version")) == VERSION
        assert await call((Atom("sync"), [a.name, b.name])) == Atom("ok")
        assert await call((Atom("sync"), [Atom("nobody@test")])) == Atom("ok")  # it cannot be reached
        info = await call(Atom("info"))
        assert (Atom("known"), {b.name: VERSION}) in info
        for wrong in (Atom("hello"), (Atom("set_lock"), b"lock"), (Atom("sync"), [1]), (Atom("register"), b"x", 1, 2)):
            assert await call(wrong) == UNSUPPORTED


async def test_who_waits_for_a_node_is_told_when_it_is_lost(autojump_clock: MockClock) -> None:
    network = Network()
    async with full("a", network=network) as (a,), stranger(network) as other, trio.open_nursery() as nursery:
        silent = other.process.node
        await a.connect(silent.name)
        done: list[Any] = []

        async def sync() -> None:
            done.append(await a.call((GLOBAL_NAME_SERVER, a.name), (Atom("sync"), [silent.name]), None))

        nursery.start_soon(sync)
        nursery.start_soon(server(a).wait_synced)
        with pytest.raises(trio.TooSlowError), trio.fail_after(1):
            await server(a).wait_synced()
        assert done == []
        await a.disconnect(silent.name)
        await trio.sleep(1)
        assert done == [Atom("ok")]


async def test_who_waits_is_not_left_waiting_by_a_node_that_is_closed(autojump_clock: MockClock) -> None:
    network = Network()
    async with stranger(network) as other, trio.open_nursery() as nursery:
        async with full("a", network=network) as (a,):
            await a.connect(other.process.node.name)

            async def sync() -> None:
                with pytest.raises(NoProcess, match="closed"):
                    await server(a).wait_synced()

            nursery.start_soon(sync)
            await settled()
        await sync()


async def test_a_name_server_that_is_killed_has_a_successor_that_knows_all(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The other nodes notice nothing; names and locks go with their processes, as before."""
    network = Network()
    async with full("a", "b", "c", network=network) as (a, b, c), c.open_process() as killer:
        await joined(a, b, c)
        ours, theirs, holder = a.spawn(wait), b.spawn(wait), b.spawn(wait)
        await a.global_names.register("ours", ours)
        await b.global_names.register("theirs", theirs)
        assert await b.global_names.set_lock((b"resource", holder))
        first = server(a).process.pid
        killer.exit(first, Atom("kill"))
        await trio.sleep(1)
        assert a.whereis(GLOBAL_NAME_SERVER) == server(a).process.pid != first
        assert f"ended: killed (an exit signal of {killer.pid})" in caplog.text
        assert a.nodes() == [b.name, c.name]

        assert server(a).names == {Atom("ours"): ours, Atom("theirs"): theirs}
        with trio.fail_after(60):
            assert not await a.global_names.set_lock((b"resource", b"another"), retries=0)
            await c.global_names.register("new", killer.pid)
            assert await a.global_names.whereis("new") == killer.pid
            for node, pid in ((a, ours), (b, theirs), (b, holder)):
                node.exit(pid, Atom("kill"))
            await trio.sleep(1)
            assert server(a).names == {Atom("new"): killer.pid}
            assert await a.global_names.set_lock((b"resource", b"another"), retries=0)
            await a.global_names.del_lock((b"resource", b"another"))
            async with full("d", network=network) as (d,):
                await d.connect(a.name)
                await trio.sleep(10)
                assert_members(a, b, c, d)


@pytest.mark.parametrize("turns", [1, 7, 20, *range(27, 37)])
@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("locker", [False, True], ids=["server", "locker"])
async def test_a_name_server_that_is_killed_while_names_are_exchanged(
    autojump_clock: MockClock, victim: int, turns: int, locker: bool
) -> None:
    """After so many turns of the loop, of some 50 that it takes. Who waits for the exchange is told of its end."""
    async with full("a", "b", "c") as (a, b, c), trio.open_nursery() as nursery:
        pids = [await _named(node, f"of_{node.short_name}") for node in (a, b, c)]
        await b.connect(c.name)
        await trio.sleep(10)
        await a.connect(b.name)
        synced = trio.Event()

        async def sync() -> None:
            await server(a).wait_synced()
            synced.set()

        nursery.start_soon(sync)
        await trio.sleep(0.2)  # the locker of `a` has waited for others to begin
        for _ in range(turns):
            await trio.lowlevel.checkpoint()
        node = (a, b)[victim]
        node.exit(_locker(node) if locker else server(node).process.pid, Atom("kill"))
        with trio.fail_after(60):
            await synced.wait()
        await trio.sleep(60)
        assert_members(a, b, c)
        assert sorted(server(a).names.values(), key=str) == sorted(pids, key=str)


def _locker(node: Node) -> Pid:
    (locker,) = [pid for pid in server(node).process.links if not node.processes[pid].trap_exit]
    return locker


async def _named(node: Node, name: str) -> Pid:
    pid = node.spawn(wait)
    await node.global_names.register(name, pid)
    return pid


async def test_a_locker_that_is_killed(autojump_clock: MockClock) -> None:
    async with full("a", "b") as (a, b), b.open_process() as killer:
        await b.connect(a.name)
        locker = _locker(a)
        killer.exit(locker, Atom("kill"))
        await trio.sleep(10)
        assert not a.is_alive(locker)
        assert_members(a, b)


async def test_whereis_waits_until_names_are_agreed_on(autojump_clock: MockClock) -> None:
    async with full("a", "b") as (a, b), b.open_process() as me:
        await joined(a, b)
        await b.global_names.register("x", me.pid)
        assert server(a).locks.set_lock(GLOBAL, b"me", me.pid)
        ref = me.make_ref()
        me.send((GLOBAL_NAME_SERVER, a.name), (Atom("whereis"), Atom("x"), (me.pid, ref)))
        with pytest.raises(TimeoutError):
            await me.receive(timeout=20)
        server(a).locks.del_lock(GLOBAL, b"me", me.pid)
        assert await me.receive(timeout=20) == (ref, me.pid)


async def test_what_is_asked_by_rpc(autojump_clock: MockClock) -> None:
    async with full("a", "b") as (a, b):
        await joined(a, b)
        pid = a.spawn(wait)
        await a.global_names.register("x", pid)
        assert await b.rpc(a.name, "global", "registered_names", []) == [Atom("x")]
        assert await b.rpc(a.name, "global", "whereis_name", [Atom("x")]) == pid
        assert await b.rpc(a.name, "global", "whereis_name", [Atom("y")]) == Atom("undefined")


# -- bad input


class Stranger:
    """A visible node without a name server, whose process says what it likes."""

    def __init__(self, process: Process) -> None:
        self.process = process

    def cast(self, to: Node, message: Term) -> None:
        self.process.send((GLOBAL_NAME_SERVER, to.name), (GEN_CAST, message))


@asynccontextmanager
async def stranger(network: Network) -> AsyncIterator[Stranger]:
    """Its process is the name server of its node, and answers nothing."""
    name = "stranger@test"
    transport, addresses = MemoryTransport(network, name), MemoryAddresses(network)
    node = Node(name, "cluster", visible=True, epmd_address=False, transport=transport, addresses=addresses)
    async with node.running(), node.open_process(name=GLOBAL_NAME_SERVER) as process:
        yield Stranger(process)


def init_connect_of(message: Any) -> tuple[int, Pid]:
    """Tag and locker in an ``init_connect``."""
    tag, (_, (_, number), _, (_, _, _, locker)) = message
    assert tag == GEN_CAST
    return number, locker


async def until_told(process: Process, what: str) -> Any:
    """The next message of that kind that its node's name server is sent; others are dropped."""

    def is_it(message: Any) -> bool:
        inner = message[1] if message[0] == GEN_CAST else message
        return bool(inner[0] == Atom(what))

    return await process.receive(is_it, timeout=1000)


async def test_a_peer_that_begins_and_says_no_more_keeps_nobody_waiting(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    network = Network()
    async with full("a", "b", network=network) as (a, b), stranger(network) as other:
        await joined(a, b)
        await other.process.node.connect(a.name)
        me = other.process
        other.cast(a, messages.init_connect(me.node.name, 1, {}, me.pid))
        other.cast(a, messages.init_connect(me.node.name, 1, {}, me.pid))
        tag, _ = init_connect_of(await until_told(me, "init_connect"))
        longest = 0.0
        for number in range(40):
            pid = b.spawn(wait)
            began = trio.current_time()
            await b.global_names.register(f"name_{number}", pid)
            longest = max(longest, trio.current_time() - began)
            await trio.sleep(5)
        assert longest < 20
        assert len(server(a).names) == 40
        await trio.sleep(60)
        assert server(a).locks.held == server(b).locks.held == []
        assert server(a).known == {b.name: VERSION}
        assert tag


@pytest.mark.parametrize(
    ("version", "problem"), [(8, "stranger@test does not go on"), (7, "disconnects stranger@test")]
)
async def test_a_peer_that_lets_itself_be_locked_and_says_no_more(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, version: int, problem: str
) -> None:
    network = Network()
    async with full("a", "b", network=network) as (a, b), stranger(network) as other:
        await joined(a, b)
        me = other.process
        await me.node.connect(a.name)

        async def speak() -> None:
            """Answer each set_lock, then say that this side is locked, and no more."""
            tag = 0
            while True:
                message: Any = await me.receive()
                match message:
                    case (Atom("$gen_call"), (_, reply_tag), _):
                        me.send(reply_tag.tail, (reply_tag, True))
                    case (Atom("$gen_cast"), (Atom("init_connect"), (_, tag), _, _)):
                        locker: Term = (Atom("locker"), Atom("no_longer_a_pid"), [], me.pid)
                        other.cast(a, (Atom("init_connect"), (version, 7), me.node.name, locker))
                    case (Atom("$gen_cast"), (Atom("lock_set"), *rest)):
                        assert len(rest) == (4 if version == 8 else 3)
                        other.cast(a, messages.lock_set(me.pid, True, [], version, tag))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(speak)
            await trio.sleep(10)
            assert [lock.resource for lock in server(b).locks.held] == [GLOBAL]
            with trio.fail_after(100):
                await b.global_names.register("x", b.spawn(wait))
            assert problem in caplog.text
            nursery.cancel_scope.cancel()


async def test_locks_end_with_their_holder(autojump_clock: MockClock) -> None:
    network = Network()
    async with full("a", "b", network=network) as (a, b), stranger(network) as other:
        await joined(a, b)
        holder = other.process.node.spawn(wait)
        for node in (a, b):
            await other.process.node.connect(node.name)
            server(node).locks.set_lock(GLOBAL, holder, holder)
        with pytest.raises(trio.TooSlowError), trio.fail_after(30):
            await b.global_names.register("x", b.spawn(wait))
        other.process.exit(holder, Atom("kill"))
        with trio.fail_after(30):
            await b.global_names.register("x", b.spawn(wait))


async def test_a_name_that_a_node_cannot_be_told(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    async with full("a", "b") as (a, b):
        pid = a.spawn(wait)
        server(a)._core.registry.register(Named(b"x", pid, object()), None, pid)
        await a.connect(b.name)
        await trio.sleep(10)
        assert "b@test cannot be told of all names" in caplog.text
        assert server(a).process.alive
        assert server(a).whereis(b"x") == pid


GARBAGE: list[Term] = [
    Atom("hello"),
    (GEN_CAST, Atom("hello")),
    (GEN_CAST, (Atom("init_connect"), (8, 1), Atom("b@test"), (Atom("locker"), 0, {}, Pid(Atom("b@test"), 1, 0, 1)))),
    (GEN_CAST, (Atom("init_connect"), (4, 1), Atom("stranger@test"), (Atom("locker"), 0, {}, b"pid"))),
    (GEN_CAST, (Atom("exchange"), Atom("stranger@test"), [1, 2, 3], [], 1)),
    (GEN_CAST, (Atom("resolved"), Atom("stranger@test"), [(Atom("insert"), b"x")], [], 0, [], 1)),
    (GEN_CAST, (Atom("new_nodes"), Atom("stranger@test"), 1, 2, 3, 4)),
    (Atom("lost_connection"), 1, 2, 3, 4),
    (Atom("remove_connection"), Atom("b@test")),
    (Atom("$gen_call"), 1, 2),
    (Atom("DOWN"), 1, 2, 3, 4),
    (Atom("DOWN"), Reference(Atom("a@test"), 1, bytes(12)), Atom("process"), Pid(Atom("a@test"), 1, 0, 1), 1),
    (Atom("nodedown"), 7),
    {b"a": [1, 2]},
]


async def test_garbage_is_logged_once_and_changes_nothing(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    network = Network()
    async with full("a", "b", network=network) as (a, b), stranger(network) as other:
        await joined(a, b)
        await a.global_names.register("x", a.spawn(wait))
        await other.process.node.connect(a.name)
        caplog.set_level(logging.WARNING, "erlang_interop.global")
        for _ in range(3):
            for message in GARBAGE:
                other.process.send((GLOBAL_NAME_SERVER, a.name), message)
        await trio.sleep(20)
        assert_members_without(a, b, other.process.node.name)
        lines = [record.getMessage() for record in caplog.records if record.name == "erlang_interop.global"]
        assert len(lines) == len(set(lines))
        assert 0 < len(lines) <= len(GARBAGE)
        assert all("stranger@test" in line for line in lines)


def assert_members_without(a: Node, b: Node, other: Atom) -> None:
    assert server(a).known == {b.name: VERSION}
    assert server(b).known == {a.name: VERSION}
    assert server(a).names == server(b).names
    assert len(server(a).names) == 1
    assert a.is_connected(other)


# -- whatever happens to the connections


@settings(max_examples=12, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["connect", "cut", "part", "name"]), st.integers(0, 3), st.integers(0, 3), st.floats(0, 4)
        ),
        max_size=15,
    )
)
def test_when_all_is_well_again_they_agree(steps: list[tuple[str, int, int, float]]) -> None:
    async def main() -> None:
        network = Network()
        async with full("a", "b", "c", "d", network=network) as nodes:
            for number, (what, one, other, pause) in enumerate(steps):
                node, peer = nodes[one], nodes[other]
                if what == "name":
                    with trio.move_on_after(1):
                        await node.global_names.re_register(f"name_{number % 3}", node.spawn(wait))
                elif node is not peer:
                    match what:
                        case "connect":
                            network.heal(node.name.name, peer.name.name)
                            await node.ping(peer.name)
                        case "cut":
                            await node.disconnect(peer.name)
                        case "part":
                            network.part(node.name.name, peer.name.name)
                await trio.sleep(pause)
            for node in nodes:
                for peer in nodes:
                    network.heal(node.name.name, peer.name.name)
            with trio.fail_after(3000):
                while True:
                    for node in nodes[1:]:
                        await node.ping(nodes[0].name)
                    await trio.sleep(30)
                    if all(len(server(node).known) == 3 for node in nodes):
                        break
            await trio.sleep(30)
            assert_members(*nodes)

    trio.run(main, clock=MockClock(autojump_threshold=0))
