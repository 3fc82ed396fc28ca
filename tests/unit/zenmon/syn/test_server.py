"""A half of a scope as a process: two nodes in memory, one of them often without a scope, or with something else there.

What the members decide is tested in ``test_scope.py`` and ``test_registry.py``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import trio

from erlang_interop import (
    Atom,
    CalleeExited,
    CallError,
    CallTimeout,
    ChildSpec,
    Node,
    NodeDownError,
    NoProcess,
    Pid,
    Process,
    Reference,
    Supervisor,
    Term,
)
from erlang_interop.otp.gen import GEN_CALL
from erlang_interop.testing.cluster import Network, open_cluster, settled
from zenmon_node.pacing import SLICE
from zenmon_node.syn import messages as m
from zenmon_node.syn.registry import Entry, Registry, Resolver
from zenmon_node.syn.server import ScopeServer

SCOPE, NAME, N = Atom("users"), Atom("syn_registry_users"), Atom("n")
KILL, KILLED = Atom("kill"), Atom("killed")
PATIENCE = 20.0


class Half:
    """The registry of the scope on one node."""

    def __init__(self, node: Node, resolver: Resolver | None = None, interval: float = 3600.0) -> None:
        self.node = node
        self.events: list[tuple[Any, ...]] = []
        self.tell: Callable[..., object] = lambda *event: None
        self.server = ScopeServer(
            node, SCOPE, m.REGISTRY, lambda port: Registry(port, resolver), self._tell, discover_interval=interval
        )

    def _tell(self, callback: str, arguments: tuple[Any, ...]) -> None:
        self.events.append((callback, *arguments))
        self.tell(callback, *arguments)

    def start(self) -> Half:
        self.node.start_inline(self.server, name=self.server.name)
        return self

    def lookup(self, name: Term) -> Entry | None:
        service: Any = self.server.service
        found: Entry | None = service.lookup(name)
        return found

    async def register(self, name: Term, pid: Pid, meta: Term = b"", timeout: float | None = 60.0) -> Term:
        return await self.server.request(pid.node, m.REGISTRY.ask_put(self.node.name, name, pid, meta), timeout)


@dataclass
class Two:
    network: Network
    a: Node
    b: Node

    async def connect(self) -> None:
        await self.a.connect(self.b.name)
        await settled()


@pytest.fixture
async def two() -> AsyncIterator[Two]:
    network = Network()
    async with open_cluster("a@test", "b@test", network=network) as (a, b):
        yield Two(network, a, b)


async def idle(process: Process) -> None:
    await process.receive()


@asynccontextmanager
async def member(node: Node) -> AsyncIterator[Process]:
    """What is registered as a scope process on a node without one."""
    async with node.open_process(name=NAME) as process:
        yield process


# ---------------------------------------------------------------------------------------------------------- membership


@pytest.mark.parametrize("late", [False, True])
async def test_members_find_each_other(two: Two, late: bool) -> None:
    a = Half(two.a).start()
    pid = two.a.spawn(idle)
    await a.register(N, pid)
    if late:
        await two.connect()
    b = Half(two.b).start()
    if not late:
        await two.connect()
    await settled()
    assert (a.server.subcluster_nodes(), b.server.subcluster_nodes()) == ([two.b.name], [two.a.name])
    assert b.events == [("on_process_registered", SCOPE, N, pid, b"", m.node_up(SCOPE, two.a.name))]


async def test_who_does_not_look_for_us_is_looked_for_again(two: Two) -> None:
    """A genuine node says nothing to a hidden one, neither when its scope starts nor when that starts again."""
    await two.connect()
    a = Half(two.a, interval=0.01).start()
    for number in range(2):
        async with member(two.b) as process:
            await process.receive(m.discover(a.server.process.pid).__eq__, timeout=PATIENCE)
            process.send((NAME, two.a.name), m.ack_sync(process.pid, [(number, process.pid, b"", 1)]))
            await process.receive(lambda message: message[1] == Atom("ack_sync"), timeout=PATIENCE)
            assert a.server.subcluster_nodes() == [two.b.name]
        await settled()
        assert a.server.subcluster_nodes() == []
    assert [event[0] for event in a.events] == ["on_process_registered", "on_process_unregistered"] * 2


async def test_what_was_meant_for_the_process_before_is_not_heard(two: Two) -> None:
    """Messages go to the name. What was said before the end of the old process was known there may not be true now."""
    async with member(two.b) as process:
        await two.connect()
        a = Half(two.a).start()
        from_, request = await next_request(process)
        assert request == m.SUBCLUSTER_NODES
        process.send((NAME, two.a.name), m.ack_sync(process.pid, [(N, process.pid, b"old", 1)]))
        process.send((NAME, two.a.name), m.discover(process.pid))
        process.send((NAME, two.a.name), (Atom("nodeup"), two.b.name, []))  # the event is late
        await settled()
        assert a.lookup(N) is None
        with pytest.raises(trio.WouldBlock):
            process.receive_nowait()
        await answer(process, from_, [two.a.name])
        await settled()
        assert process.receive_nowait() == m.discover(a.server.process.pid)
        with pytest.raises(trio.WouldBlock):
            process.receive_nowait()  # whoever is asked twice answers twice, and the second answer may be old
        process.send((NAME, two.a.name), m.ack_sync(process.pid, [(N, process.pid, b"new", 1)]))
        await settled()
        entry = a.lookup(N)
        assert entry is not None
        assert entry.meta == b"new"


async def test_a_member_that_answers_no_calls_is_not_waited_for_for_ever(two: Two) -> None:
    async with member(two.b) as process:
        await two.connect()
        a = Half(two.a, interval=0.01).start()
        await process.receive(m.discover(a.server.process.pid).__eq__, timeout=PATIENCE)


async def test_a_node_that_comes_is_spoken_to_at_once(two: Two) -> None:
    a = Half(two.a).start()
    async with member(two.b) as process:
        await two.connect()
        assert process.receive_nowait() == m.discover(a.server.process.pid)


async def test_a_node_goes(two: Two) -> None:
    a, b = Half(two.a).start(), Half(two.b).start()
    await two.connect()
    pid = two.b.spawn(idle)
    await a.register(N, pid)
    assert a.lookup(N) is not None
    await two.a.disconnect(two.b.name)
    await settled()
    assert a.events[-1] == ("on_process_unregistered", SCOPE, N, pid, b"", m.node_down(SCOPE, two.b.name))
    assert not a.server.subcluster_nodes()
    assert b.lookup(N) is not None


async def test_crashes_and_restarts(two: Two) -> None:
    """The old process is seen to end before the new one speaks, or the others would drop the node when it is."""
    a = Half(two.a)
    supervisor = Supervisor(
        [ChildSpec(NAME, lambda: two.a.start_inline(a.server, name=NAME))], intensity=1000, period=1.0
    )
    two.a.start_inline(supervisor)
    b = Half(two.b).start()
    await two.connect()
    pa, pb = two.a.spawn(idle), two.b.spawn(idle)
    await a.register(b"a", pa)
    await b.register(b"b", pb)
    await settled()
    async with two.b.open_process() as watcher:
        for _ in range(20):
            a.events.clear()
            b.events.clear()
            old = a.server.process.pid
            watcher.monitor(old)
            watcher.exit(old, KILL)
            await settled()
            assert a.server.process.pid != old
            assert (a.server.subcluster_nodes(), b.server.subcluster_nodes()) == ([two.b.name], [two.a.name])
            assert [(event[0], event[2], event[-1]) for event in a.events] == [
                ("on_process_unregistered", b"b", m.node_down(SCOPE, two.b.name)),
                ("on_process_registered", b"b", m.node_up(SCOPE, two.b.name)),
            ]
            assert [(event[0], event[2], event[-1]) for event in b.events] == [
                ("on_process_unregistered", b"a", m.node_down(SCOPE, two.a.name)),
                ("on_process_registered", b"a", m.node_up(SCOPE, two.a.name)),
            ]
    two.a.exit(pa, KILL)
    await settled()
    assert b.events[-1] == ("on_process_unregistered", SCOPE, b"a", pa, b"", KILLED)


async def test_dead_while_there_was_no_scope_process(two: Two) -> None:
    a = Half(two.a).start()
    pid = two.a.spawn(idle)
    await a.register(N, pid)
    two.a.exit(a.server.process.pid, KILL)
    two.a.exit(pid, KILL)
    a.start()
    assert a.events[-1] == ("on_process_unregistered", SCOPE, N, pid, b"", m.UNDEFINED)


async def test_processes_that_end(two: Two) -> None:
    a, b = Half(two.a).start(), Half(two.b).start()
    await two.connect()
    pids = [two.a.spawn(idle) for _ in range(2 * SLICE + 1)]
    for number, pid in enumerate(pids):
        await a.register(number, pid)
    for pid in pids:
        two.a.exit(pid, KILL)
    await settled()
    with trio.fail_after(PATIENCE):
        while b.server.service.local_data() or len(b.events) < 2 * len(pids):  # each slice waits for its turn
            await trio.lowlevel.checkpoint()
    assert b.events[len(pids) :] == [
        ("on_process_unregistered", SCOPE, number, pid, b"", KILLED) for number, pid in enumerate(pids)
    ]


# ------------------------------------------------------------------------------------------------------------ requests


async def test_a_request_of_another_node_and_its_answer(two: Two) -> None:
    a, b = Half(two.a).start(), Half(two.b).start()
    pid = two.a.spawn(idle)  # not connected yet: the request does that
    what, stored = await b.register(N, pid, b"meta")
    assert (what, stored[0]) == (m.OK, Atom("on_process_registered"))
    entry = b.lookup(N)
    assert entry is not None
    assert (entry.pid, entry.meta, entry.time) == (pid, b"meta", stored[3])
    assert await b.register(N, two.a.spawn(idle)) == (m.ERROR, m.TAKEN)
    await settled()
    assert (
        [event[:4] for event in a.events]
        == [event[:4] for event in b.events]
        == [("on_process_registered", SCOPE, N, pid)]
    )


async def test_requests_by_hand(two: Two, logged: Callable[[], list[dict[str, Any]]]) -> None:
    a, _b = Half(two.a).start(), Half(two.b).start()
    await two.connect()
    dest = (NAME, two.a.name)
    assert await two.b.call(dest, m.SUBCLUSTER_NODES) == [two.b.name]
    assert not logged()
    assert await two.b.call(dest, b"what") == m.UNDEFINED
    (line,) = logged()
    assert (line["problem"], line["server"]) == ("not a request that syn knows", NAME.name)
    assert await two.b.call(dest, m.REGISTRY.ask_remove(two.b.name, N, two.a.spawn(idle))) == (m.ERROR, m.UNDEFINED)
    async with two.b.open_process() as process:  # as from a release that knows no aliases
        tag = process.make_ref()
        process.send(dest, (GEN_CALL, (process.pid, tag), m.SUBCLUSTER_NODES))
        assert await process.receive(timeout=PATIENCE) == (tag, [two.b.name])
    assert a.server.running


async def test_no_member_there(two: Two) -> None:
    a = Half(two.a).start()
    with pytest.raises(NoProcess, match="syn_registry_users on b@test"):
        await a.register(N, two.b.spawn(idle))


async def test_no_node_there(two: Two) -> None:
    a = Half(two.a).start()
    with pytest.raises(NodeDownError) as error:
        await a.register(N, Pid(Atom("nobody@test"), 1, 0, 1))
    assert error.value.__cause__ is not None


async def test_no_member_here(two: Two) -> None:
    a = Half(two.a)
    pid = two.a.spawn(idle)
    with pytest.raises(NoProcess, match="open the scope again"):
        await a.register(N, pid)
    a.start()
    two.a.exit(a.server.process.pid, KILL)
    with pytest.raises(NoProcess):
        await a.register(N, pid)
    assert not a.server.running


async def answer(process: Process, from_: Any, reply: Term) -> None:
    pid, tag = from_
    process.send(tag.tail if type(tag.tail) is Reference else pid, (tag, reply))


async def next_request(process: Process) -> tuple[Any, Term]:
    """The next call, whatever else has come before it."""
    _call, from_, request = await process.receive(
        lambda message: type(message) is tuple and message[0] == GEN_CALL, timeout=PATIENCE
    )
    return from_, request


STORED = (m.OK, (Atom("on_process_registered"), m.UNDEFINED, b"meta", 7, N, N))


async def test_a_late_answer_is_applied(two: Two) -> None:
    a = Half(two.a).start()
    async with member(two.b) as process:
        with pytest.raises(CallTimeout):
            await a.register(N, process.pid, timeout=0.01)
        from_, request = await next_request(process)
        assert request == m.REGISTRY.ask_put(two.a.name, N, process.pid, b"")
        assert a.lookup(N) is None
        await answer(process, from_, STORED)
        await settled()
        entry = a.lookup(N)
        assert entry is not None
        assert (entry.pid, entry.meta, entry.time) == (process.pid, b"meta", 7)
        await answer(process, from_, STORED)  # and that was that


async def test_an_answer_takes_effect_in_the_order_of_the_wire(two: Two) -> None:
    """What comes behind it is later, even if whoever asked has not had its turn yet."""
    a = Half(two.a).start()
    async with member(two.b) as process, trio.open_nursery() as nursery:
        process.send((NAME, two.a.name), m.ack_sync(process.pid, []))
        nursery.start_soon(a.register, N, process.pid)
        from_, _ = await next_request(process)
        await answer(process, from_, STORED)
        process.send((NAME, two.a.name), m.REGISTRY.say_gone(N, process.pid, b"meta", m.NORMAL))
        await settled()
    assert [event[0] for event in a.events] == ["on_process_registered", "on_process_unregistered"]
    assert a.lookup(N) is None


async def test_the_member_ends_before_it_answers(two: Two) -> None:
    a = Half(two.a).start()

    async def end(process: Process) -> None:
        await next_request(process)
        process.exit(process.pid, N)

    authority = two.b.spawn(end, name=NAME)
    with pytest.raises(CalleeExited) as error:
        await a.register(N, authority)
    assert error.value.reason == N


async def test_our_member_ends_before_it_is_answered(two: Two) -> None:
    a = Half(two.a).start()

    async def kill(process: Process) -> None:
        await next_request(process)
        process.exit(a.server.process.pid, KILL)
        await process.receive(lambda message: message == b"never")

    authority = two.b.spawn(kill, name=NAME)
    with pytest.raises(CalleeExited) as error:
        await a.register(N, authority)
    assert error.value.reason == KILLED


async def test_an_answer_that_is_none(two: Two, logged: Callable[[], list[dict[str, Any]]]) -> None:
    a = Half(two.a).start()
    async with member(two.b) as process, trio.open_nursery() as nursery:

        async def ask() -> None:
            with pytest.raises(CallError, match="not an answer") as error:
                await a.register(N, process.pid)
            assert error.value.reason[0] == Atom("bad_reply")

        nursery.start_soon(ask)
        from_, _ = await next_request(process)
        await answer(process, from_, b"what")
    assert [line["problem"] for line in logged()] == ["not an answer to a request to register, join or update"]
    assert a.server.running


# ----------------------------------------------------------------------------------------------------------- bad input


async def test_malformed_messages_cost_one_line_each(two: Two, logged: Callable[[], list[dict[str, Any]]]) -> None:
    a, b = Half(two.a).start(), Half(two.b).start()
    await two.connect()
    me = Pid(two.b.name, 7, 0, 1)
    ignored: list[Any] = [
        b"hello",
        (m.TAG, Atom("discover"), b"pid"),
        (Atom("2.0"), Atom("discover"), me),
        m.ack_sync(me, [N]),
        m.REGISTRY.say_put(N, b"pid", b"", 1, m.NORMAL),  # type: ignore[arg-type]
        (Atom("$gen_cast"), b"what"),
        (GEN_CALL, b"who", b"what"),
    ]
    harmless: list[Any] = [
        (Atom("DOWN"), two.b.make_ref(), Atom("process"), me, KILLED),
        (Atom("nodeup"), two.b.name, []),
    ]
    for message in 3 * ignored + harmless:
        two.b.send((NAME, two.a.name), message)
    await settled()
    lines = logged()
    assert sorted(line["problem"] for line in lines) == [
        "an ack_sync with what is no {Name, Pid, Meta, Time}",
        "not a message of syn 3",
        "what should be a pid is none",
    ]
    assert all(line["server"] == NAME.name and line["sender"].startswith("<b@test.") for line in lines)
    assert a.server.counters.malformed == 3 * len(ignored)
    assert a.server.subcluster_nodes() == [two.b.name]
    pid = two.a.spawn(idle)
    await b.register(N, pid)
    assert a.lookup(N) is not None


async def test_metadata_of_ten_megabytes(two: Two) -> None:
    a, b = Half(two.a).start(), Half(two.b).start()
    await two.connect()
    pid, meta = two.a.spawn(idle), bytes(10 * 1024 * 1024)
    await b.register(N, pid, meta)
    await a.register(N, pid, [meta])
    with trio.fail_after(PATIENCE):
        while len(b.events) < 2:
            await trio.lowlevel.checkpoint()
    entry = b.lookup(N)
    assert entry is not None
    assert entry.meta == [meta]


async def test_a_handler_that_ends_the_scope_process(two: Two) -> None:
    a = Half(two.a).start()
    a.tell = lambda *_: two.a.exit(a.server.process.pid, KILL)
    reply = await a.register(N, two.a.spawn(idle))
    assert reply[0] == m.OK
    assert not a.server.running


async def test_a_crash_is_told_to_whoever_asked(two: Two, caplog: pytest.LogCaptureFixture) -> None:
    a = Half(two.a).start()

    def crash(*_: Any) -> None:
        raise ZeroDivisionError

    a.tell = crash
    with pytest.raises(CalleeExited, match="ZeroDivisionError"):
        await a.register(N, two.a.spawn(idle))
    assert not a.server.running
    assert "crashed on a message" in caplog.text


# ----------------------------------------------------------------------------------------------------------- long work


async def test_whoever_asks_waits_for_a_resolver_that_takes_its_time(two: Two) -> None:
    asked, said = trio.Event(), trio.Event()
    chosen: list[Any] = []

    async def resolver(scope: Atom, name: Term, remote: Any, local: Any) -> Pid:
        chosen.append((scope, name, remote.pid, local.pid))
        asked.set()
        await said.wait()
        pid: Pid = remote.pid
        return pid

    a = Half(two.a, resolver).start()
    pa, other = two.a.spawn(idle), two.a.spawn(idle)
    await a.register(N, pa, b"a")
    async with member(two.b) as process, trio.open_nursery() as nursery:
        process.send((NAME, two.a.name), m.ack_sync(process.pid, [(N, process.pid, b"b", 1)]))
        process.send((NAME, two.a.name), m.REGISTRY.say_put(b"later", process.pid, b"", 2, m.NORMAL))
        with trio.fail_after(PATIENCE):
            await asked.wait()
        nursery.start_soon(a.register, b"own", other)
        with pytest.raises(CallTimeout):
            await a.register(b"too late", other, timeout=0.01)
        assert [event[2] for event in a.events] == [N]
        said.set()
        await settled()
        assert [(event[0], event[2], event[-1]) for event in a.events[1:4]] == [
            ("on_process_unregistered", N, m.CONFLICT_RESOLUTION),
            ("on_process_registered", N, m.CONFLICT_RESOLUTION),
            ("on_process_registered", b"later", m.NORMAL),
        ]
        assert {event[2] for event in a.events[4:]} == {b"own", b"too late"}
        assert chosen == [(SCOPE, N, process.pid, pa)]
        assert two.a.is_alive(pa)


async def test_the_end_of_the_process_ends_a_resolver(two: Two) -> None:
    asked, ended = trio.Event(), trio.Event()

    async def resolver(*_: Any) -> None:
        asked.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    a = Half(two.a, resolver).start()
    await a.register(N, two.a.spawn(idle))
    async with member(two.b) as process, trio.open_nursery() as nursery:
        process.send((NAME, two.a.name), m.ack_sync(process.pid, [(N, process.pid, b"b", 1)]))
        with trio.fail_after(PATIENCE):
            await asked.wait()

            async def ask() -> None:
                with pytest.raises(CalleeExited):
                    await a.register(b"own", two.a.spawn(idle), timeout=None)

            nursery.start_soon(ask)
            await settled()
            two.a.exit(a.server.process.pid, KILL)
            await ended.wait()
        a.start()
        assert await a.register(b"own", two.a.spawn(idle)) != (m.ERROR, m.TAKEN)


async def test_between_the_slices_of_a_merge_the_node_does_other_things(two: Two) -> None:
    a = Half(two.a).start()
    size = 25 * SLICE  # so that they are checked in slices too
    async with member(two.b) as process:
        data = [(number, process.pid, b"", 1) for number in range(size)]
        process.send((NAME, two.a.name), m.ack_sync(process.pid, data))
        process.send((NAME, two.a.name), m.REGISTRY.say_gone(0, process.pid, b"", m.NORMAL))
        seen = set()
        with trio.fail_after(PATIENCE):
            while len(a.events) <= size:
                seen.add(len(a.events))
                await trio.lowlevel.checkpoint()
        assert len(seen) >= 3  # this task and the one of the slices take turns, in any order
        assert a.events[-1][:3] == ("on_process_unregistered", SCOPE, 0)  # it had to wait


async def test_a_fault_late_in_a_long_ack_sync_changes_nothing(
    two: Two, logged: Callable[[], list[dict[str, Any]]]
) -> None:
    a = Half(two.a).start()
    async with member(two.b) as process:
        data = [(number, process.pid, b"", 1) for number in range(25 * SLICE)]
        process.send((NAME, two.a.name), m.ack_sync(process.pid, [*data, N]))
        with trio.fail_after(PATIENCE):
            while not a.server.counters.malformed:
                await trio.lowlevel.checkpoint()
        assert (a.events, a.server.subcluster_nodes()) == ([], [])
        (line,) = logged()
        assert line["problem"] == "an ack_sync with what is no {Name, Pid, Meta, Time}"
        assert line["sender"].startswith("<b@test.")
        process.send((NAME, two.a.name), m.ack_sync(process.pid, data))
        with trio.fail_after(PATIENCE):
            while len(a.events) < len(data):
                await trio.lowlevel.checkpoint()


async def test_nothing_is_left_behind(two: Two) -> None:
    before = two.a.statistics()
    a, b = Half(two.a).start(), Half(two.b).start()
    await two.connect()
    pids = [two.a.spawn(idle), two.b.spawn(idle)]
    for pid in pids:
        await a.register(pid, pid)
        await b.register((pid, 2), pid)
    for half in (a, b):
        half.node.exit(half.server.process.pid, KILL)
    for pid in pids:
        (two.a if pid.node == two.a.name else two.b).exit(pid, KILL)
    await two.a.disconnect(two.b.name)
    await settled()
    assert two.a.statistics() == before
