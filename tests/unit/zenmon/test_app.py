"""ZenMonitor between two Python nodes, and within one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
import trio
from structlog.testing import capture_logs

from erlang_interop import Atom, CallTimeout, Exit, NameAlreadyRegistered, NoSuchNode, Pid
from erlang_interop.runtime import InlineServer
from zenmon_node import (
    Cached,
    CachedCompatibility,
    Compatibility,
    Remote,
    SettingsError,
    ZenMonitorStopped,
    open_zen_monitor,
)
from zenmon_node import messages as m

if TYPE_CHECKING:
    from collections.abc import Callable

    from erlang_interop import Process
    from erlang_interop.terms import Reference, Term
    from tests.unit.zenmon.conftest import Pair
    from zenmon_node import ZenMonitor

DIED = Atom("died")


async def waiting(process: Process) -> None:
    """A process that ends with the reason it is told."""
    raise Exit(await process.receive())


def down(ref: Reference, object_: Term, reason: Term) -> Term:
    return (Atom("DOWN"), ref, Atom("process"), object_, (Atom("zen_monitor"), reason))


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two minutes for a Proxy to come back: a machine under load may be late."""
    monkeypatch.setattr("zenmon_node.local.remote.BASE_PENALTY", 60.0)


async def next_message(process: Process) -> Term:
    return await process.receive(timeout=30)


async def until(condition: Callable[[], bool], zen: ZenMonitor | None = None) -> None:
    """Poll: nothing tells when a message to nobody in particular has arrived."""
    with trio.move_on_after(30):
        while not condition():  # noqa: ASYNC110 - see above
            await trio.sleep(0.005)
        return
    pytest.fail(f"did not become true: {zen.statistics() if zen else ''}")


async def nothing_left(*zens: ZenMonitor) -> None:
    """Wait until no table holds anything."""
    for zen in zens:

        def is_empty(zen: ZenMonitor = zen) -> bool:
            now = zen.statistics()
            return not (now.monitors or now.subscriptions or now.waiting_instructions or now.waiting_certificates)

        await until(is_empty, zen)


async def subscribed(zen: ZenMonitor, count: int) -> None:
    """Wait until the Proxy of ``zen`` has so many targets."""
    await until(lambda: zen.statistics().subscriptions == count, zen)


async def test_by_pid_and_by_name(pair: Pair) -> None:
    assert await pair.zen.connect(pair.there.name) is Compatibility.COMPATIBLE
    pid = pair.there.spawn(waiting, name="worker")
    async with pair.here.open_process() as me:
        by_pid = pair.zen.monitor(pid, subscriber=me)
        by_name = pair.zen.monitor(("worker", "there@127.0.0.1"), subscriber=me)
        await subscribed(pair.there_zen, 2)
        me.send(pid, (Atom("shutdown"), [1] * 9))
        got = [await next_message(me) for _ in range(2)]
        reason = (Atom("shutdown"), [1] * 9)
        named = (Atom("worker"), pair.there.name)
        assert sorted(got, key=str) == sorted([down(by_pid, pid, reason), down(by_name, named, reason)], key=str)
    await nothing_left(pair.zen, pair.there_zen)


async def test_the_reason_is_truncated_by_the_node_of_the_dead(pair: Pair) -> None:
    await pair.zen.connect(pair.there.name)
    pid = pair.there.spawn(waiting)
    async with pair.here.open_process() as me:
        ref = pair.zen.monitor(pid, subscriber=me)
        await subscribed(pair.there_zen, 1)
        me.send(pid, (Atom("oops"), b"x" * 2000, [1, 2, 3, 4, 5]))
        assert await next_message(me) == down(ref, pid, (Atom("oops"), b"x" * 1021 + b"...", Atom("truncated")))


async def test_dead_targets(pair: Pair) -> None:
    await pair.zen.connect(pair.there.name)
    nobody = ("nobody", "there@127.0.0.1")
    dead = Pid(pair.there.name, 99_999, 0, pair.there.creation)
    async with pair.here.open_process() as me:
        refs = [pair.zen.monitor(target, subscriber=me) for target in (dead, nobody)]
        assert await next_message(me) == down(refs[0], dead, m.NOPROC)
        assert await next_message(me) == down(refs[1], (Atom("nobody"), pair.there.name), m.NOPROC)
    await nothing_left(pair.zen, pair.there_zen)


async def test_no_connection_is_made_for_a_monitor(pair: Pair) -> None:
    async with pair.here.open_process() as me:
        ref = pair.zen.monitor(("worker", "there@127.0.0.1"), subscriber=me)
        assert await next_message(me) == down(ref, (Atom("worker"), pair.there.name), m.NODEDOWN)
    assert pair.here.connections == []
    assert pair.zen.cached_compatibility(pair.there.name) == CachedCompatibility(Cached.UNAVAILABLE)


async def test_processes_of_this_node(pair: Pair) -> None:
    pid = pair.here.spawn(waiting, name="worker")
    async with pair.here.open_process() as me:
        refs = [pair.zen.monitor(target, subscriber=me) for target in (pid, "worker", "nobody")]
        assert await next_message(me) == down(refs[2], (Atom("nobody"), pair.here.name), m.NOPROC)
        me.send(pid, DIED)
        assert await next_message(me) == down(refs[0], pid, DIED)
        assert await next_message(me) == down(refs[1], (Atom("worker"), pair.here.name), DIED)
    await nothing_left(pair.zen)


async def test_demonitor_takes_the_subscription_back_and_the_native_monitor(pair: Pair) -> None:
    await pair.zen.connect(pair.there.name)
    pid = pair.there.spawn(waiting)
    async with pair.here.open_process() as me:
        before = pair.there.statistics()
        refs = [pair.zen.monitor(pid, subscriber=me) for _ in range(3)]
        await subscribed(pair.there_zen, 1)
        for ref in refs:
            assert pair.zen.demonitor(ref)
        await subscribed(pair.there_zen, 0)
        after = pair.there.statistics()
        assert after["monitors"] - before["monitors"] <= 1  # that on our Connector alone
        last = pair.zen.monitor(("nobody", "there@127.0.0.1"), subscriber=me)
        me.send(pid, DIED)
        assert (await next_message(me))[1] == last


async def test_flush_removes_a_delivered_down(pair: Pair) -> None:
    async with pair.here.open_process() as me, pair.here.open_process() as other:
        for subscriber in (me, None):
            ref = pair.zen.monitor("nobody", subscriber=me)
            await until(lambda: len(me.mailbox) == 1)
            assert pair.zen.demonitor(ref)
            assert len(me.mailbox) == 1
            assert pair.zen.demonitor(ref, flush=True, subscriber=other)
            assert len(me.mailbox) == 1
            assert pair.zen.demonitor(ref, flush=True, subscriber=subscriber)
            assert len(me.mailbox) == 0


async def test_a_dead_subscriber_leaves_nothing(pair: Pair) -> None:
    await pair.zen.connect(pair.there.name)
    pid = pair.there.spawn(waiting)
    async with pair.here.open_process() as me:
        for _ in range(5):
            pair.zen.monitor(pid, subscriber=me)
        await subscribed(pair.there_zen, 1)
    await nothing_left(pair.zen, pair.there_zen)


async def test_nodedown_and_back(pair: Pair) -> None:
    await pair.zen.connect(pair.there.name)
    pid = pair.there.spawn(waiting)
    async with pair.here.open_process() as me:
        ref = pair.zen.monitor(pid, subscriber=me)
        await subscribed(pair.there_zen, 1)
        await pair.here.disconnect(pair.there.name)
        assert await next_message(me) == down(ref, pid, m.NODEDOWN)
        assert pair.zen.compatibility(pid) is Compatibility.INCOMPATIBLE
        assert pair.zen.cached_compatibility(pair.there.name).status is Cached.UNAVAILABLE
        await nothing_left(pair.zen, pair.there_zen)  # the Proxy has dropped what we had there
        assert await pair.zen.connect(pair.there.name) is Compatibility.COMPATIBLE
        again = pair.zen.monitor(pid, subscriber=me)
        await subscribed(pair.there_zen, 1)
        me.send(pid, DIED)
        assert await next_message(me) == down(again, pid, DIED)


@pytest.mark.usefixtures("patience")
async def test_a_proxy_that_is_restarted_costs_no_pid_its_monitor(pair: Pair) -> None:
    await pair.zen.connect(pair.there.name)
    lives, dies = pair.there.spawn(waiting), pair.there.spawn(waiting)
    pair.there.spawn(waiting, name="worker")
    seen: list[tuple[Atom, CachedCompatibility]] = []
    pair.zen.watch_compatibility(lambda node, verdict: seen.append((node, verdict)))
    async with pair.here.open_process() as me:
        by_pid = pair.zen.monitor(lives, subscriber=me)
        gone = pair.zen.monitor(dies, subscriber=me)
        by_name = pair.zen.monitor(("worker", pair.there.name), subscriber=me)
        await subscribed(pair.there_zen, 3)
        proxy = pair.there.whereis(m.PROXY)
        assert proxy is not None
        pair.there.exit(proxy, Atom("kill"))
        pair.there.exit(dies, Atom("kill"))
        # Which process the name was bound to is not known any more.
        assert await next_message(me) == down(by_name, (Atom("worker"), pair.there.name), m.NODEDOWN)
        assert await next_message(me) == down(gone, dies, m.NOPROC)
        await subscribed(pair.there_zen, 1)
        assert pair.zen.compatibility(lives) is Compatibility.COMPATIBLE
        me.send(lives, DIED)
        assert await next_message(me) == down(by_pid, lives, DIED)
    assert [verdict.status for _, verdict in seen] == [Cached.INCOMPATIBLE, Cached.COMPATIBLE]
    await nothing_left(pair.zen, pair.there_zen)


async def test_a_proxy_that_stays_away_costs_all_monitors_and_connect_waits_for_that(pair: Pair) -> None:
    await pair.zen.connect(pair.there.name)
    pid = pair.there.spawn(waiting)
    supervisor = pair.there.whereis(m.SUPERVISOR)
    assert supervisor is not None
    async with pair.here.open_process() as me:
        ref = pair.zen.monitor(pid, subscriber=me)
        await subscribed(pair.there_zen, 1)
        pair.there.exit(supervisor, Atom("shutdown"))
        await until(lambda: pair.zen.cached_compatibility(pair.there.name).status is Cached.INCOMPATIBLE)
        assert await pair.zen.connect(pair.there.name) is Compatibility.INCOMPATIBLE
        assert pair.zen.cached_compatibility(pair.there.name) == CachedCompatibility(Cached.INCOMPATIBLE, 2)
        assert await next_message(me) == down(ref, pid, m.NODEDOWN)


@pytest.mark.usefixtures("patience")
async def test_zenmonitor_may_be_opened_anew_on_the_other_node(pair: Pair) -> None:
    await pair.zen.connect(pair.there.name)
    pid = pair.there.spawn(waiting)
    supervisor = pair.there.whereis(m.SUPERVISOR)
    assert supervisor is not None
    async with pair.here.open_process() as me:
        ref = pair.zen.monitor(pid, subscriber=me)
        await subscribed(pair.there_zen, 1)
        pair.there.exit(supervisor, Atom("shutdown"))
        async with open_zen_monitor(pair.there) as again:
            await subscribed(again, 1)
            me.send(pid, DIED)
            assert await next_message(me) == down(ref, pid, DIED)


async def test_many_connect_and_one_asks(pair: Pair) -> None:
    asked: list[Term] = []

    class Counting(InlineServer):
        def handle_message(self, message: Term) -> None:
            asked.append(message)
            self.process.send(message[1][0], (message[1][1], m.PONG))

    pair.there.unregister(m.PROXY)
    pair.there.start_inline(Counting(), name=m.PROXY)
    results: list[Compatibility] = []

    async def connect() -> None:
        results.append(await pair.zen.connect(pair.there.name))

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(connect)
    assert results == [Compatibility.COMPATIBLE] * 20
    assert len(asked) == 1


async def test_a_node_without_a_proxy_is_incompatible(pair: Pair) -> None:
    pair.there.unregister(m.PROXY)
    assert await pair.zen.connect(pair.there.name) is Compatibility.INCOMPATIBLE
    async with pair.here.open_process() as me:
        ref = pair.zen.monitor(("x", pair.there.name), subscriber=me)
        assert await next_message(me) == down(ref, (Atom("x"), pair.there.name), m.NODEDOWN)


async def test_connect_says_why_not(pair: Pair) -> None:
    with pytest.raises(NoSuchNode):
        await pair.zen.connect("nowhere@127.0.0.1")


async def test_garbage_costs_the_proxy_nothing(pair: Pair) -> None:
    await pair.zen.connect(pair.there.name)
    pid = pair.there.spawn(waiting)
    async with pair.here.open_process() as me:
        ref = pair.zen.monitor(pid, subscriber=me)
        await subscribed(pair.there_zen, 1)
        proxy = (m.PROXY, pair.there.name)
        with capture_logs() as logs:
            for message in (Atom("x"), (m.GEN_CAST, 5), (m.GEN_CAST, (m.PROCESS, me.pid, [5, (m.SUBSCRIBE, 123)]))):
                for _ in range(10):
                    me.send(proxy, message)
            # The answers to those subscriptions show that all of it has arrived.
            assert await next_message(me) == (m.DEAD, pair.there.name, [(123, m.NOPROC)] * 10)
        assert len(logs) == 3
        with pytest.raises(CallTimeout):
            await pair.here.call(proxy, Atom("what"), timeout=0.05)
        me.send(pid, DIED)
        assert await next_message(me) == down(ref, pid, DIED)
        assert pair.there_zen.statistics().malformed == 42 - 1


@pytest.mark.parametrize("name", [m.LOCAL, m.DISPATCHER])
async def test_a_crashed_server_of_the_local_loses_nothing(pair: Pair, name: Atom) -> None:
    await pair.zen.connect(pair.there.name)
    pid = pair.there.spawn(waiting)
    async with pair.here.open_process() as me:
        ref = pair.zen.monitor(pid, subscriber=me)
        await subscribed(pair.there_zen, 1)
        crashed = pair.here.whereis(name)
        assert crashed is not None
        pair.here.exit(crashed, Atom("kill"))
        assert pair.here.whereis(name) not in (None, crashed)
        assert await pair.zen.connect(pair.there.name) is Compatibility.COMPATIBLE
        await subscribed(pair.there_zen, 1)
        me.send(pid, DIED)
        got = await next_message(me)
        assert got in (down(ref, pid, DIED), down(ref, pid, m.NOPROC))
    await nothing_left(pair.zen, pair.there_zen)


async def test_too_many_crashes_stop_it_and_say_so(pair: Pair) -> None:
    for _ in range(20):
        pid = pair.here.whereis(m.PROXY)
        if pid is not None:
            pair.here.exit(pid, Atom("kill"))
    assert pair.here.whereis(m.SUPERVISOR) is None
    async with pair.here.open_process() as me:
        with pytest.raises(ZenMonitorStopped, match="crashed more than 10 times within 5 seconds"):
            pair.zen.monitor("x", subscriber=me)
    with pytest.raises(ZenMonitorStopped):
        await pair.zen.connect(pair.there.name)


async def test_when_it_stops_by_itself_every_monitor_fires(pair: Pair) -> None:
    await pair.zen.connect(pair.there.name)
    targets = [pair.there.spawn(waiting) for _ in range(3)]
    async with pair.zen.watch(targets) as downs:
        await subscribed(pair.there_zen, 3)
        while (pid := pair.here.whereis(m.PROXY)) is not None:
            pair.here.exit(pid, Atom("kill"))
        await pair.zen.wait_stopped()
        assert {(down.target, down.reason) async for down in downs} == {(target, m.NODEDOWN) for target in targets}
    assert pair.zen.statistics().monitors == 0


async def test_watch(pair: Pair) -> None:
    await pair.zen.connect(pair.there.name)
    one, two = pair.there.spawn(waiting), pair.there.spawn(waiting)
    async with pair.zen.watch([one, ("nobody", "there@127.0.0.1")]) as downs:
        ref = downs.add("nobody")
        removed = downs.add(two)
        assert downs.remove(removed)
        assert not downs.remove(removed)
        await subscribed(pair.there_zen, 1)
        pair.there.send(one, DIED)
        seen = [(down.target, down.reason) async for down in downs]
        assert len(downs) == 0
    assert sorted(seen, key=str) == sorted(
        [(one, DIED), (("nobody", "there@127.0.0.1"), m.NOPROC), ("nobody", m.NOPROC)], key=str
    )
    assert ref != removed
    await nothing_left(pair.zen, pair.there_zen)


async def test_leaving_a_watch_takes_its_monitors_back(pair: Pair) -> None:
    await pair.zen.connect(pair.there.name)
    pid = pair.there.spawn(waiting)
    async with pair.zen.watch([pid]):
        await subscribed(pair.there_zen, 1)
    await nothing_left(pair.zen, pair.there_zen)


async def test_ten_thousand_go_in_paced_batches(pair: Pair) -> None:
    await pair.zen.connect(pair.there.name)
    pair.zen.configure(demand_amount=2000)
    pids = [pair.there.spawn(waiting) for _ in range(10_000)]
    async with pair.zen.watch(pids) as downs:
        await subscribed(pair.there_zen, 10_000)
        started = trio.current_time()
        for pid in pids:
            pair.there.exit(pid, DIED)
        with trio.fail_after(60):
            seen = [down.target async for down in downs]
        assert len(seen) == len(set(seen)) == 10_000
        assert trio.current_time() - started >= 0.4
    await nothing_left(pair.zen, pair.there_zen)


async def test_remotes_and_statistics(pair: Pair) -> None:
    assert pair.zen.remotes() == []
    assert pair.zen.maximum_mps == 10_000
    pair.zen.configure(demand_amount=5, demand_interval=1000)
    assert pair.zen.maximum_mps == 5
    await pair.zen.connect(pair.there.name)
    pids = [pair.there.spawn(waiting) for _ in range(20)]
    async with pair.zen.watch(pids):
        await subscribed(pair.there_zen, 20)
        (remote,) = pair.zen.remotes()
        assert remote == Remote(pair.there.name, CachedCompatibility(Cached.COMPATIBLE), 20, 0, 1, 20, 0, 0)
        for pid in pids:
            pair.there.exit(pid, DIED)
        await until(lambda: pair.zen.remotes()[0].certificates == 20)
        (remote,) = pair.zen.remotes()
        assert (remote.targets, remote.batches) == (0, 1)
        assert remote.summaries >= 1
        counters = pair.zen.counters
        assert counters.delivered_downs == counters.processed_downs == 20 - pair.zen.statistics().waiting_downs
    await until(lambda: pair.zen.statistics().waiting_downs == 0)
    assert pair.zen.counters.processed_downs < pair.zen.counters.delivered_downs == 20


async def test_a_notice_that_raises_costs_nobody_else_one(pair: Pair) -> None:
    def broken(node: Atom, verdict: CachedCompatibility) -> None:
        raise RuntimeError("broken notice")

    seen: list[Cached] = []
    unwatch = pair.zen.watch_compatibility(broken)
    pair.zen.watch_compatibility(lambda node, verdict: seen.append(verdict.status))
    with capture_logs() as logs:
        await pair.zen.connect(pair.there.name)
        await until(lambda: len(seen) == 1)
    assert [log["event"] for log in logs] == ["a notice of watch_compatibility raised"]
    unwatch()
    with capture_logs() as logs:
        await pair.here.disconnect(pair.there.name)
    assert (seen, logs) == ([Cached.COMPATIBLE, Cached.UNAVAILABLE], [])


async def test_a_connector_goes_when_it_is_not_needed_and_comes_back(pair: Pair) -> None:
    seen: list[Cached] = []
    pair.zen.watch_compatibility(lambda node, verdict: seen.append(verdict.status))
    for life in (1, 2):
        assert await pair.zen.connect(pair.there.name) is Compatibility.COMPATIBLE
        pid = pair.there.spawn(waiting)
        async with pair.here.open_process() as me:
            ref = pair.zen.monitor(pid, subscriber=me)
            await subscribed(pair.there_zen, 1)
            pair.zen.configure(hibernation_threshold=1)  # not before there is something to stay for
            assert pair.there_zen.statistics().remote_subscribers == 1
            (server,) = pair.zen._local._servers.values()
            await pair.here.connect(pair.there.name)
            me.send(pid, DIED)
            assert await next_message(me) == down(ref, pid, DIED)
            await until(lambda: not pair.zen.remotes())
            assert not server.process.alive
            await until(lambda: pair.there_zen.statistics().remote_subscribers == 0)
        assert pair.zen.cached_compatibility(pair.there.name) == CachedCompatibility(Cached.MISS)
        assert pair.here.is_connected(pair.there.name)
        assert seen == [Cached.COMPATIBLE, Cached.MISS] * life
        pair.zen.configure(hibernation_threshold=1000)
    await pair.here.disconnect(pair.there.name)  # nobody is there whom that concerns
    assert pair.zen.remotes() == []
    assert pair.here.whereis(m.LOCAL) is not None


async def test_bad_arguments(pair: Pair) -> None:
    async with pair.here.open_process() as me:
        for nonsense in (123, b"x", (1, 2), ("a", "b", "c"), None):
            with pytest.raises(TypeError):
                pair.zen.monitor(nonsense, subscriber=me)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"not of here@127\.0\.0\.1"):
            pair.zen.monitor("x", subscriber=Pid(pair.there.name, 1, 0, 1))
    with pytest.raises(TypeError):
        pair.zen.compatibility_for_node(5)  # type: ignore[arg-type]
    with pytest.raises(SettingsError):
        pair.zen.configure(demand_amuont=1)
    assert pair.zen.statistics().monitors == 0


async def test_find_node_and_now(pair: Pair) -> None:
    assert pair.zen.find_node(("x", "b@h")) == Atom("b@h")
    assert pair.zen.find_node("x") == pair.here.name
    assert isinstance(pair.zen.now(), int)


async def test_open_twice(pair: Pair) -> None:
    with pytest.raises(NameAlreadyRegistered):
        async with open_zen_monitor(pair.here):
            pass


async def test_leaving_tells_the_others_and_frees_the_names(pair: Pair) -> None:
    await pair.zen.connect(pair.there.name)
    async with pair.here.open_process() as me:
        pid = pair.there.spawn(waiting)
        ref = pair.zen.monitor(pid, subscriber=me)
        await subscribed(pair.there_zen, 1)
        supervisor = pair.there.whereis(m.SUPERVISOR)
        assert supervisor is not None
        pair.there.exit(supervisor, Atom("shutdown"))
        assert await next_message(me) == down(ref, pid, m.NODEDOWN)
    assert [pair.there.whereis(name) for name in (m.SUPERVISOR, m.PROXY, m.LOCAL, m.DISPATCHER)] == [None] * 4
    with pytest.raises(ZenMonitorStopped):
        await pair.there_zen.connect(pair.here.name)
    async with open_zen_monitor(pair.there):
        assert pair.there.whereis(m.PROXY) is not None


async def test_memory_is_given_back_when_there_is_nothing_to_do(pair: Pair) -> None:
    await pair.zen.connect(pair.there.name)
    pids = [Pid(pair.there.name, number, 0, 1) for number in range(100_000, 120_000)]
    pair.zen.configure(demand_amount=100_000)
    for zen in (pair.zen, pair.there_zen):
        zen.configure(batcher_chunk_size=100_000, connector_chunk_size=100_000, hibernation_threshold=5)

    def size() -> int:
        return sum(map(sys.getsizeof, pair.zen._core.tables._owners.parts))

    async with pair.here.open_process() as me:
        for pid in pids:
            pair.zen.monitor(pid, subscriber=me)
        before = size()
        await nothing_left(pair.zen, pair.there_zen)
        await until(lambda: size() < before / 20)
        assert len(me.mailbox) == 20_000
