"""Our Local monitors processes of a BEAM through the BEAM's Proxy, from a hidden node and from a visible one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from erlang_interop import Atom, Node
from tests.interop.collectors import has_lost, is_among_nodes
from tests.interop.zenmon import (
    DIED,
    NODEDOWN,
    NOPROC,
    batchers_gone,
    down,
    next_message,
    nothing_left,
    subscriptions,
    until,
)
from zenmon_node import Cached, CachedCompatibility, Compatibility, Settings, ZenMonitor, open_zen_monitor
from zenmon_node.local import remote

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from erlang_interop.terms import Pid, Term
    from erlang_interop.testing.beam import Beam
    from tests.conftest import BeamFactory

COMPATIBLE, INCOMPATIBLE = Compatibility.COMPATIBLE, Compatibility.INCOMPATIBLE


@pytest.fixture
async def proxy(beam: Beam) -> AsyncIterator[Beam]:
    """The session's BEAM, serving as a Proxy."""
    await beam.eval("zen_proxy:start(#{record => true}).")
    yield beam
    await beam.eval("zen_proxy:stop().")


@pytest.fixture
async def zen(either_node: Node) -> AsyncIterator[ZenMonitor]:
    """ZenMonitor on a hidden node of ours, then on a visible one."""
    async with open_zen_monitor(either_node) as zen:
        yield zen


@pytest.fixture
async def hidden_zen(node: Node) -> AsyncIterator[ZenMonitor]:
    """ZenMonitor on a hidden node, for what does not depend on that."""
    async with open_zen_monitor(node) as zen:
        yield zen


async def disconnected(zen: ZenMonitor, beam: Beam) -> None:
    """Disconnect, and wait until the BEAM has no connection any more."""
    assert await is_among_nodes(beam, zen.node.name)
    await zen.node.disconnect(beam.name)
    await has_lost(beam, zen.node.name)


async def test_by_pid_and_by_name(zen: ZenMonitor, proxy: Beam) -> None:
    assert await zen.connect(proxy.name) is COMPATIBLE
    pid = await proxy.eval("plain_processes:spawn_named(watched).")
    named = (Atom("watched"), Atom(proxy.name))
    async with zen.node.open_process() as me:
        by_pid, by_name = zen.monitor(pid, subscriber=me), zen.monitor(("watched", proxy.name), subscriber=me)
        await subscriptions(proxy, 2)
        await proxy.eval("plain_processes:finish(watched, died).")
        got = [await next_message(me), await next_message(me)]
        assert sorted(got, key=str) == sorted([down(by_pid, pid, DIED), down(by_name, named, DIED)], key=str)
        assert len(me.mailbox) == 0
    await nothing_left(zen)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("plain_processes:finish(Pid, normal)", Atom("normal")),
        ("plain_processes:finish(Pid, shutdown)", Atom("shutdown")),
        ("plain_processes:kill(Pid)", Atom("killed")),
        ("plain_processes:finish(Pid, {shutdown, lists:seq(1, 300)})", (Atom("shutdown"), list(range(1, 301)))),
        ("plain_processes:finish(Pid, {a, {b, {c, d}}})", (Atom("a"), (Atom("b"), (Atom("truncated"),) * 2))),
        ("plain_processes:finish(Pid, noconnection)", Atom("noconnection")),
        ("plain_processes:finish(Pid, <<0:16000>>)", bytes(1021) + b"..."),
    ],
)
async def test_reasons(hidden_zen: ZenMonitor, proxy: Beam, how: str, reason: Term) -> None:
    await hidden_zen.connect(proxy.name)
    pid = await proxy.eval("plain_processes:spawn_waiting().")
    async with hidden_zen.node.open_process() as me:
        ref = hidden_zen.monitor(pid, subscriber=me)
        await subscriptions(proxy, 1)
        await proxy.eval(f"{how}.", Pid=pid)
        assert await next_message(me) == down(ref, pid, reason)


async def test_dead_targets(zen: ZenMonitor, proxy: Beam) -> None:
    await zen.connect(proxy.name)
    dead = await proxy.eval("plain_processes:dead_pid().")
    async with zen.node.open_process() as me:
        refs = [zen.monitor(target, subscriber=me) for target in (dead, ("nobody", proxy.name))]
        got = [await next_message(me), await next_message(me)]
        expected = [down(refs[0], dead, NOPROC), down(refs[1], (Atom("nobody"), Atom(proxy.name)), NOPROC)]
        assert sorted(got, key=str) == sorted(expected, key=str)
    await nothing_left(zen)


async def test_one_subscription_for_many_references_and_none_after_the_last(zen: ZenMonitor, proxy: Beam) -> None:
    await zen.connect(proxy.name)
    pid = await proxy.eval("plain_processes:spawn_waiting().")
    async with zen.node.open_process() as me:
        refs = [zen.monitor(pid, subscriber=me) for _ in range(3)]
        await subscriptions(proxy, 1)
        for ref in refs[:2]:
            zen.demonitor(ref, flush=True)
        await proxy.eval("plain_processes:finish(Pid, died).", Pid=pid)
        assert await next_message(me) == down(refs[2], pid, DIED)
        other = await proxy.eval("plain_processes:spawn_waiting().")
        ref = zen.monitor(other, subscriber=me)
        await subscriptions(proxy, 1)
        zen.demonitor(ref)
        await subscriptions(proxy, 0)
        assert len(me.mailbox) == 0


async def test_demonitor_with_flush_removes_what_was_delivered(hidden_zen: ZenMonitor, proxy: Beam) -> None:
    await hidden_zen.connect(proxy.name)
    async with hidden_zen.node.open_process() as me:
        ref = hidden_zen.monitor(("nobody", proxy.name), subscriber=me)
        await until(lambda: len(me.mailbox) == 1, hidden_zen)
        hidden_zen.demonitor(ref)
        assert len(me.mailbox) == 1
        hidden_zen.demonitor(ref, flush=True)
        assert len(me.mailbox) == 0


async def test_a_subscriber_that_dies_is_unsubscribed(hidden_zen: ZenMonitor, proxy: Beam) -> None:
    await hidden_zen.connect(proxy.name)
    pids = await proxy.eval("plain_processes:spawn_many(5).")
    async with hidden_zen.node.open_process() as me:
        for pid in pids:
            hidden_zen.monitor(pid, subscriber=me)
        await subscriptions(proxy, 5)
    await subscriptions(proxy, 0)
    await nothing_left(hidden_zen)


async def test_instructions_cross_in_order_and_in_chunks(node: Node, proxy: Beam) -> None:
    async with open_zen_monitor(node, Settings(connector_chunk_size=3)) as zen, node.open_process() as me:
        await zen.connect(proxy.name)
        pids = await proxy.eval("plain_processes:spawn_many(7).")
        started = trio.current_time()
        refs = [zen.monitor(pid, subscriber=me) for pid in pids[:3]]
        zen.demonitor(refs[1])
        for pid in pids[3:5]:
            zen.monitor(pid, subscriber=me)
        zen.demonitor(refs[0])
        for pid in [*pids[5:], pids[1]]:
            zen.monitor(pid, subscriber=me)
        await subscriptions(proxy, 6)
        assert trio.current_time() - started >= 0.3  # three intervals lie between four casts
        recorded = await proxy.eval("zen_proxy:recorded().")
        casts = [instructions for _, (_, _, instructions) in recorded]
        number = {pid: str(index) for index, pid in enumerate(pids, start=1)}
        shown = [[f"{op.name[0]}{number[pid]}" for op, pid in cast] for cast in casts]
        assert shown == [["s1", "s2", "s3"], ["u2", "s4", "s5"], ["u1", "s6", "s7"], ["s2"]]


async def test_ten_thousand_fire_once_each(hidden_zen: ZenMonitor, proxy: Beam) -> None:
    await hidden_zen.connect(proxy.name)
    hidden_zen.configure(demand_amount=5000)
    pids = await proxy.eval("Pids = plain_processes:spawn_many(10000), persistent_term:put(pids, Pids), Pids.")
    async with hidden_zen.watch(pids) as downs:
        await subscriptions(proxy, 10_000)
        await proxy.eval("plain_processes:kill_all(persistent_term:get(pids)), persistent_term:erase(pids).")
        with trio.fail_after(30):
            seen = [(down.target, down.reason) async for down in downs]
    assert len(seen) == 10_000
    assert set(seen) == {(pid, Atom("killed")) for pid in pids}
    await nothing_left(hidden_zen)
    await subscriptions(proxy, 0)


async def test_nothing_is_connected_for_a_monitor(hidden_zen: ZenMonitor, proxy: Beam) -> None:
    async with hidden_zen.node.open_process() as me:
        ref = hidden_zen.monitor(("x", proxy.name), subscriber=me)
        assert await next_message(me) == down(ref, (Atom("x"), Atom(proxy.name)), NODEDOWN)
    assert hidden_zen.node.connections == []


async def test_disconnect_fires_nodedown_and_reconnecting_resets(zen: ZenMonitor, proxy: Beam) -> None:
    await zen.connect(proxy.name)
    pid = await proxy.eval("plain_processes:spawn_waiting().")
    async with zen.node.open_process() as me:
        ref = zen.monitor(pid, subscriber=me)
        await subscriptions(proxy, 1)
        await disconnected(zen, proxy)
        assert await next_message(me) == down(ref, pid, NODEDOWN)
        assert zen.cached_compatibility(proxy.name) == CachedCompatibility(Cached.UNAVAILABLE)
        again = zen.monitor(pid, subscriber=me)
        assert await next_message(me) == down(again, pid, NODEDOWN)
        assert await zen.connect(proxy.name) is COMPATIBLE
        third = zen.monitor(pid, subscriber=me)
        # The row of the first subscription is still there: such a Proxy drops it only when it has a Batcher.
        await until(lambda: not zen.statistics().waiting_instructions, zen)
        await proxy.eval("plain_processes:finish(Pid, died).", Pid=pid)
        assert await next_message(me) == down(third, pid, DIED)


async def test_nodedown_when_the_beam_is_killed_and_a_new_life_under_its_name(
    hidden_zen: ZenMonitor, fresh_beam: BeamFactory
) -> None:
    zen = hidden_zen
    first = fresh_beam()
    await first.eval("zen_proxy:start().")
    await zen.connect(first.name)
    pids = await first.eval("plain_processes:spawn_many(100).")
    async with zen.watch(pids) as downs:
        await subscriptions(first, 100)
        first.kill()
        with trio.fail_after(30):
            assert {(down.target, down.reason) async for down in downs} == {(pid, NODEDOWN) for pid in pids}
    second = fresh_beam(first.name)
    await second.eval("zen_proxy:start().")
    assert await zen.connect(second.name) is COMPATIBLE
    pid = await second.eval("plain_processes:spawn_waiting().")
    async with zen.watch([pid, pids[0]]) as downs:
        old = await anext(downs)
        assert (old.target, old.reason) == (pids[0], NOPROC)
        await second.eval("plain_processes:finish(Pid, died).", Pid=pid)
        new = await anext(downs)
        assert (new.target, new.reason) == (pid, DIED)


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute instead of two seconds for a Proxy to come back: a machine under load may be late."""
    monkeypatch.setattr(remote, "BASE_PENALTY", 30.0)


#: Kills the Proxy, and the processes Pids while nobody watches them; then the supervisor starts the next one.
KILL_PROXY_AND_PIDS = """
    Supervisor = whereis(zen_proxy_sup), Proxy = whereis('Elixir.ZenMonitor.Proxy'),
    true = erlang:suspend_process(Supervisor),
    Monitors = [monitor(process, Pid) || Pid <- [Proxy | Pids]],
    exit(Proxy, kill), receive {'DOWN', _, process, Proxy, _} -> ok end,
    plain_processes:kill_all(Pids),
    [receive {'DOWN', Monitor, process, _, _} -> ok end || Monitor <- tl(Monitors)],
    true = erlang:resume_process(Supervisor).
"""


@pytest.mark.usefixtures("patience")
async def test_a_proxy_that_is_restarted_costs_the_living_nothing(zen: ZenMonitor, proxy: Beam) -> None:
    await zen.connect(proxy.name)
    verdicts: list[Cached] = []
    zen.watch_compatibility(lambda node, verdict: verdicts.append(verdict.status))
    pids = await proxy.eval("Pids = plain_processes:spawn_many(1000), persistent_term:put(pids, Pids), Pids.")
    named = await proxy.eval("plain_processes:spawn_named(watched).")
    die, live = pids[:100], pids[100:]
    async with zen.node.open_process() as me:
        refs = {zen.monitor(pid, subscriber=me): pid for pid in pids}
        by_name = zen.monitor(("watched", proxy.name), subscriber=me)
        await subscriptions(proxy, 1001)
        await proxy.eval(KILL_PROXY_AND_PIDS, Pids=die)
        # Which process the name was bound to nobody knows any more.
        assert await next_message(me) == down(by_name, (Atom("watched"), Atom(proxy.name)), NODEDOWN)
        got = [await next_message(me) for _ in die]
        assert sorted(got, key=str) == sorted(
            (down(ref, pid, NOPROC) for ref, pid in refs.items() if pid in die), key=str
        )
        await subscriptions(proxy, len(live))
        assert verdicts == [Cached.INCOMPATIBLE, Cached.COMPATIBLE]
        # The new Proxy serves those that are left, what is new, and the next connection.
        again = zen.monitor(named, subscriber=me)
        await subscriptions(proxy, len(live) + 1)
        await proxy.eval(
            "plain_processes:kill_all([Pid | persistent_term:get(pids)]), persistent_term:erase(pids).", Pid=named
        )
        got = [await next_message(me) for _ in [named, *live]]
        expected = [down(ref, pid, Atom("killed")) for ref, pid in refs.items() if pid not in die]
        assert sorted(got, key=str) == sorted([down(again, named, Atom("killed")), *expected], key=str)
        await nothing_left(zen)
        assert len(me.mailbox) == 0
        await disconnected(zen, proxy)
        await batchers_gone(proxy)
        assert await zen.connect(proxy.name) is COMPATIBLE
        fresh = await proxy.eval("plain_processes:spawn_waiting().")
        ref = zen.monitor(fresh, subscriber=me)
        await subscriptions(proxy, 1)
        await proxy.eval("plain_processes:finish(Pid, died).", Pid=fresh)
        assert await next_message(me) == down(ref, fresh, DIED)


@pytest.mark.usefixtures("patience")
async def test_a_node_that_is_lost_while_its_proxy_is_away(hidden_zen: ZenMonitor, fresh_beam: BeamFactory) -> None:
    zen, there = hidden_zen, fresh_beam()
    await there.eval("zen_proxy:start().")
    await zen.connect(there.name)
    pids = await there.eval("plain_processes:spawn_many(1000).")
    async with zen.watch(pids) as downs:
        await subscriptions(there, 1000)
        await there.eval("zen_proxy:stop().")
        await until(lambda: zen.cached_compatibility(there.name) == CachedCompatibility(Cached.INCOMPATIBLE, 1), zen)
        downs.add(("nobody", there.name))
        there.kill()
        with trio.fail_after(30):
            seen = [(down.target, down.reason) async for down in downs]
    assert len(seen) == 1001
    assert set(seen) == {(target, NODEDOWN) for target in [*pids, ("nobody", there.name)]}
    assert zen.cached_compatibility(there.name) == CachedCompatibility(Cached.UNAVAILABLE)
    await nothing_left(zen)


@pytest.fixture
def short_penalties(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the original's. What those are is in the unit tests, which have a clock of their own."""
    monkeypatch.setattr("zenmon_node.local.remote.BASE_PENALTY", 0.5)


@pytest.mark.usefixtures("short_penalties")
async def test_a_proxy_that_stays_away_costs_all_monitors(hidden_zen: ZenMonitor, proxy: Beam) -> None:
    zen = hidden_zen
    await zen.connect(proxy.name)
    pid = await proxy.eval("plain_processes:spawn_waiting().")
    async with zen.node.open_process() as me:
        ref = zen.monitor(pid, subscriber=me)
        await subscriptions(proxy, 1)
        started = trio.current_time()
        await proxy.eval("zen_proxy:stop().")
        assert await next_message(me) == down(ref, pid, NODEDOWN)
        assert trio.current_time() - started >= 0.9
        assert zen.cached_compatibility(proxy.name).attempts >= 2
        await proxy.eval("zen_proxy:start().")
        await until(lambda: zen.compatibility(pid) is COMPATIBLE, zen)
        again = zen.monitor(pid, subscriber=me)
        await subscriptions(proxy, 1)
        await proxy.eval("plain_processes:finish(Pid, died).", Pid=pid)
        assert await next_message(me) == down(again, pid, DIED)


async def test_a_connector_goes_when_nothing_is_monitored_there(node: Node, proxy: Beam) -> None:
    connectors: set[Pid] = set()
    async with open_zen_monitor(node, Settings(hibernation_threshold=3)) as zen, node.open_process() as me:
        await zen.connect(proxy.name)
        for _ in range(3):
            dies, lives = await proxy.eval("plain_processes:spawn_many(2).")
            refs = [zen.monitor(pid, subscriber=me) for pid in (dies, lives)]
            await subscriptions(proxy, 2)
            await proxy.eval("plain_processes:finish(Pid, died).", Pid=dies)
            assert await next_message(me) == down(refs[0], dies, DIED)  # so it has a Batcher
            ((_, (connector,)),) = await proxy.eval("zen_proxy:subscriptions().")
            connectors.add(connector)
            zen.demonitor(refs[1])
            await until(lambda: not zen.remotes(), zen)
            await batchers_gone(proxy)
            await subscriptions(proxy, 0)
            assert zen.cached_compatibility(proxy.name) == CachedCompatibility(Cached.MISS)
            assert node.is_connected(proxy.name)
        await disconnected(zen, proxy)  # of no concern to anybody
        assert await zen.connect(proxy.name) is COMPATIBLE
    assert len(connectors) == 3


@pytest.mark.usefixtures("short_penalties")
async def test_an_incompatible_node_backs_off_until_it_is_compatible(hidden_zen: ZenMonitor, beam: Beam) -> None:
    zen = hidden_zen
    started = trio.current_time()
    assert await zen.connect(beam.name) is INCOMPATIBLE
    pid = await beam.eval("plain_processes:spawn_waiting().")
    async with zen.node.open_process() as me:
        ref = zen.monitor(pid, subscriber=me)
        assert await next_message(me) == down(ref, pid, NODEDOWN)
        await until(lambda: zen.cached_compatibility(beam.name).attempts >= 2, zen)
        assert trio.current_time() - started >= 0.9
        await beam.eval("zen_proxy:start().")
        await until(lambda: zen.compatibility(pid) is COMPATIBLE, zen)
        assert trio.current_time() - started >= 2.9
        ref = zen.monitor(pid, subscriber=me)
        await subscriptions(beam, 1)
    await beam.eval("zen_proxy:stop().")


async def test_reconnecting_ends_a_penalty(hidden_zen: ZenMonitor, beam: Beam, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zenmon_node.local.remote.BASE_PENALTY", 60.0)
    zen = hidden_zen
    assert await zen.connect(beam.name) is INCOMPATIBLE
    await beam.eval("zen_proxy:start().")
    assert await zen.connect(beam.name) is INCOMPATIBLE  # the penalty stands
    await disconnected(zen, beam)
    assert await zen.connect(beam.name) is COMPATIBLE
    await beam.eval("zen_proxy:stop().")


@pytest.mark.parametrize("answer", ["ok", '<<"pong">>', '"pong"'])
async def test_only_pong_is_compatible(hidden_zen: ZenMonitor, beam: Beam, answer: str) -> None:
    await beam.eval(f"zen_proxy:start(#{{ping_answer => {{answer, {answer}}}}}).")
    assert await hidden_zen.connect(beam.name) is INCOMPATIBLE
    await beam.eval("zen_proxy:stop().")


async def test_a_silent_proxy_is_incompatible_after_the_time_for_a_ping(
    hidden_zen: ZenMonitor, beam: Beam, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zenmon_node.local.remote.PING_TIMEOUT", 1.0)
    await beam.eval("zen_proxy:start(#{ping_answer => silent}).")
    started = trio.current_time()
    assert await hidden_zen.connect(beam.name) is INCOMPATIBLE
    assert trio.current_time() - started >= 0.9
    await beam.eval("zen_proxy:stop().")
