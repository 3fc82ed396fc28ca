"""What the original's Local loses, leaks or crashes on, shown not to happen with ours: docs/zenmonitor-faults.md.

Each test fails on a Local that behaves as the original was seen to behave. The processes that are monitored live on a
genuine BEAM, which serves them through a Proxy of its own. What concerns connections is in
``test_zenmon_faults_links.py``, our Proxy in ``test_zenmon_faults_proxy.py``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from erlang_interop import Atom
from erlang_interop.testing.cluster import open_cluster
from tests.interop.zen_faults import FailsOnce, all_fire, connector_of, finish, kill, spawn, waits
from tests.interop.zenmon import DIED, NODEDOWN, NOPROC, down, next_message, nothing_left, subscriptions, until
from zenmon_node import Cached, CachedCompatibility, Compatibility, ZenMonitor, open_zen_monitor
from zenmon_node import messages as m
from zenmon_node.local.connector import ConnectorCore
from zenmon_node.local.dispatcher import DispatcherCore

if TYPE_CHECKING:
    from trio.testing import MockClock

    from erlang_interop import Process
    from erlang_interop.testing.beam import Beam
    from tests.conftest import BeamFactory

NEW = Atom("new")
COMPATIBLE, INCOMPATIBLE = Compatibility.COMPATIBLE, Compatibility.INCOMPATIBLE


# ------------------------------------------------------------------------------------------------------------- monitors


async def test_fault_7_1_a_monitor_of_a_bare_local_name_fires(zen: ZenMonitor, me: Process) -> None:
    """The original: it never fires, and its rows stay for ever. Here: as {name, node()}, and nothing is left."""
    pid = zen.node.spawn(waits, name="worker")
    before = zen.node.statistics()["monitors"]
    ref = zen.monitor("worker", subscriber=me)
    await until(lambda: zen.statistics().subscriptions == 1, zen)
    zen.node.exit(pid, DIED)
    named = (Atom("worker"), zen.node.name)
    assert await next_message(me) == down(ref, named, DIED)
    ref = zen.monitor(Atom("worker"), subscriber=me)
    assert await next_message(me) == down(ref, named, NOPROC)
    await nothing_left(zen)
    # Watched stay: the subscriber, by our Local; our Connector and our Proxy, by each other.
    assert zen.node.statistics()["monitors"] == before + 3


async def test_fault_7_4_what_can_be_no_target_costs_nobody_a_down(zen: ZenMonitor, me: Process, proxy: Beam) -> None:
    """The original: ``monitor(123)`` ends the own node's Proxy. Here: TypeError, and nobody else hears of it."""
    (pid,) = await spawn(proxy)
    local = zen.node.spawn(waits)
    monitors = {zen.monitor(target, subscriber=me): target for target in (pid, local)}
    await subscriptions(proxy, 1)
    servers = {name: zen.node.whereis(name) for name in (m.PROXY, m.LOCAL, m.DISPATCHER)}
    nonsense: list[Any] = [123, 1.5, b"name", None, (), ("n",), ("n", b"x"), (1, "n"), ["n"], {}, me.make_ref()]
    for term in nonsense * 10:
        with pytest.raises(TypeError):
            zen.monitor(term, subscriber=me)
    assert zen.statistics().monitors == 2
    await until(lambda: zen.statistics().subscriptions == 1, zen)
    assert {name: zen.node.whereis(name) for name in servers} == servers
    await finish(proxy, pid)
    zen.node.exit(local, DIED)
    await all_fire(me, monitors)


async def test_fault_7_3_a_name_is_followed_by_processes_of_one_node(zen: ZenMonitor, me: Process, proxy: Beam) -> None:
    """The original: all of a node's monitors of a name are for who had it first. Here: each for who had it then."""
    named = (Atom("worker"), Atom(proxy.name))
    old = await proxy.eval("plain_processes:spawn_named(worker)")
    first = zen.monitor(named, subscriber=me)
    await subscriptions(proxy, 1)
    new = await proxy.eval("unregister(worker), plain_processes:spawn_named(worker)")
    second = zen.monitor(named, subscriber=me)
    assert await proxy.eval("plain_processes:await_monitored(New, 1, 20000)", New=new) is True
    await finish(proxy, new, reason=NEW)
    assert await next_message(me) == down(second, named, NEW)
    await finish(proxy, old)
    assert await next_message(me) == down(first, named, DIED)
    await nothing_left(zen)
    assert len(me.mailbox) == 0


async def test_fault_7_3_a_name_that_was_given_back_is_bound_anew(zen: ZenMonitor, me: Process, proxy: Beam) -> None:
    """The original: its Proxy keeps the monitor on the old owner, and a new subscription uses that. Here: the new."""
    named = (Atom("worker"), Atom(proxy.name))
    old = await proxy.eval("plain_processes:spawn_named(worker)")
    first = zen.monitor(named, subscriber=me)
    await subscriptions(proxy, 1)
    # Another Connector's subscription keeps the old monitor at the Proxy, as the original keeps it of itself.
    keep = "gen_server:cast('Elixir.ZenMonitor.Proxy', {process, self(), [{subscribe, {worker, node()}}]})"
    await proxy.eval(keep)
    await subscriptions(proxy, 2)
    zen.demonitor(first, subscriber=me)
    await subscriptions(proxy, 1)
    new = await proxy.eval("unregister(worker), plain_processes:spawn_named(worker)")
    second = zen.monitor(named, subscriber=me)
    assert await proxy.eval("plain_processes:await_monitored(New, 1, 20000)", New=new) is True
    await finish(proxy, old)
    await finish(proxy, new, reason=NEW)
    assert await next_message(me) == down(second, named, NEW)
    await nothing_left(zen)
    assert len(me.mailbox) == 0


BAD = [
    "[P ! M || P <- To]",
    "[gen_server:cast(P, M) || P <- To]",
    "[P ! {'$gen_call', {self(), make_ref()}, M} || P <- To]",
]
TERMS = [
    "hello", "{dead}", "{dead, node(), not_a_list}", "{dead, node(), [{T, died, extra}]}", "{dead, node(), [T | T]}",
    "{dead, node(), [{123, died}, nil, {}, {T}]}", "{dead, other@host, [{T, forged}]}", "{dead, 1, [{T, forged}]}",
    "{make_ref(), pong}", "{pong, pong}", "{'DOWN', make_ref(), process, T, forged}", "{'DOWN', 1, 2, 3, 4}",
    "{'EXIT', T, forged}", "{'EXIT', S, forged}", "{'DOWN', make_ref(), process, S, forged}", "{nodedown, node()}",
    "{nodeup, node()}", "{tick, 1}", "<<0:80000>>", "(1 bsl 20000)", "{monitor, T, make_ref()}", "sweep",
]  # fmt: skip


async def test_fault_7_4_no_message_to_the_local_costs_a_down(zen: ZenMonitor, me: Process, proxy: Beam) -> None:
    """The original: a malformed certificate ends the Connector, and with it its monitors. Here: ignored, said once."""
    pids = await spawn(proxy, 3)
    monitors = {zen.monitor(pid, subscriber=me): pid for pid in pids}
    await subscriptions(proxy, 3)
    connector = await connector_of(zen, proxy, pids[0])
    names = [m.LOCAL, m.DISPATCHER, m.PROXY, m.SUPERVISOR]
    servers = {name: zen.node.whereis(name) for name in names}
    for term in TERMS:
        everywhere: list[Any] = [connector, *[(name, zen.node.name) for name in names]]
        said = f"M = {term}, [begin {', '.join(BAD)} end || _ <- [1, 2]]"
        await proxy.eval(said, To=everywhere, T=pids[0], S=me.pid)
    # What was said last is heard when an answer to it has come.
    assert await proxy.eval("gen_server:call(P, ping, 20000)", P=(m.PROXY, zen.node.name)) == m.PONG
    assert {name: zen.node.whereis(name) for name in servers} == servers
    assert await connector_of(zen, proxy, pids[0]) == connector
    assert zen.cached_compatibility(proxy.name) == CachedCompatibility(Cached.COMPATIBLE)
    assert zen.statistics().malformed > 100
    await finish(proxy, *pids)
    await all_fire(me, monitors)
    await nothing_left(zen)


# -------------------------------------------------------------------------------------------------------------- crashes


async def test_fault_7_5_a_connector_that_is_killed_loses_nothing(
    zen: ZenMonitor, me: Process, fresh_beam: BeamFactory
) -> None:
    """The original: its monitors never fire, and later ones not on nodedown. Here: pids are subscribed to anew."""
    beam = fresh_beam()
    await beam.eval("zen_proxy:start(zen_settings:fast())")
    await zen.connect(beam.name)
    first, meanwhile, stays = await spawn(beam, 3)
    named = (Atom("named"), Atom(beam.name))
    await beam.eval("plain_processes:spawn_named(named)")
    refs = [zen.monitor(target, subscriber=me) for target in (first, meanwhile, stays, named)]
    await subscriptions(beam, 4)
    old = await connector_of(zen, beam, first)
    kill(zen, old)
    # Which process the name meant is not known any more: that it was lost is said at once.
    assert await next_message(me) == down(refs[3], named, NODEDOWN)
    await finish(beam, meanwhile)
    assert (await next_message(me))[1] == refs[1]  # died, or noproc if it was not subscribed to yet
    new = "[] =/= [S || {T, Ss} <- zen_proxy:subscriptions(), T =:= P, S <- Ss, S =/= Old]"
    assert await beam.eval(f"polling:until(fun() -> {new} end, 20000)", P=first, Old=old) is True
    await finish(beam, first)
    assert await next_message(me) == down(refs[0], first, DIED)
    (later,) = await spawn(beam)
    ref = zen.monitor(later, subscriber=me)
    await until(lambda: not zen.statistics().waiting_instructions, zen)
    beam.kill()
    await all_fire(me, {refs[2]: stays, ref: later}, NODEDOWN)
    await nothing_left(zen)


async def test_fault_7_5_a_proxy_crash_after_a_connector_crash_is_seen(
    zen: ZenMonitor, me: Process, proxy: Beam
) -> None:
    """The original: the new Connector trusts what is cached and watches neither Proxy nor node. Here: it asks again."""
    (pid,) = await spawn(proxy)
    monitors = {zen.monitor(pid, subscriber=me): pid}
    await subscriptions(proxy, 1)
    for rows in (2, 3):  # those of the Connectors that have gone stay there: nothing has died for them yet
        kill(zen, await connector_of(zen, proxy, pid))
        await subscriptions(proxy, rows)
    await proxy.eval("zen_proxy:stop()")
    await all_fire(me, monitors, NODEDOWN)
    await proxy.eval("zen_proxy:start(zen_settings:fast())")


@pytest.mark.parametrize(
    ("core", "method"),
    [
        (ConnectorCore, "message"),
        (ConnectorCore, "work"),
        (ConnectorCore, "sweep"),
        (ConnectorCore, "_send"),
        (DispatcherCore, "deliver"),
        (DispatcherCore, "enqueue"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
async def test_fault_7_5_an_exception_of_our_own_loses_no_monitor(
    zen: ZenMonitor, me: Process, proxy: Beam, monkeypatch: pytest.MonkeyPatch, core: type, method: str
) -> None:
    """The original: the process ends, its monitors never fire. Here: it is mended, and each fires once."""
    pids = await spawn(proxy, 20)
    monitors = {zen.monitor(pid, subscriber=me): pid for pid in pids}
    await subscriptions(proxy, 20)
    connector = await connector_of(zen, proxy, pids[0])
    failing = FailsOnce(monkeypatch, core, method)
    monitors |= {zen.monitor(pid, subscriber=me): pid for pid in await spawn(proxy, 5)}
    await finish(proxy, *pids[:10])
    await until(lambda: failing.failed, zen)
    await finish(proxy, *monitors.values())
    got = [await next_message(me) for _ in monitors]
    assert {(message[1], message[3]) for message in got} == set(monitors.items())
    # Who was reported by what has failed is found to be dead: not lost, but why it died is.
    assert {message[4][1] for message in got} <= {DIED, NOPROC}
    await nothing_left(zen)
    assert len(me.mailbox) == 0
    (pid,) = await spawn(proxy)
    zen.monitor(pid, subscriber=me)
    await subscriptions(proxy, 1)
    assert await connector_of(zen, proxy, pid) == connector


@pytest.mark.parametrize("name", [m.LOCAL, m.DISPATCHER], ids=["local", "dispatcher"])
async def test_fault_7_6_a_server_that_is_killed_loses_nothing(
    zen: ZenMonitor, me: Process, proxy: Beam, name: Atom
) -> None:
    """The original: a crash of the Local loses all monitors silently. Here: its successor goes on with all of them."""
    pids = await spawn(proxy, 20)
    monitors = {zen.monitor(pid, subscriber=me): pid for pid in pids}
    await subscriptions(proxy, 20)
    old = zen.node.whereis(name)
    kill(zen, name)
    await until(lambda: zen.node.whereis(name) not in (None, old), zen)
    await until(lambda: zen.compatibility(pids[0]) is COMPATIBLE and not zen.statistics().waiting_instructions, zen)
    await finish(proxy, *pids)
    got = [await next_message(me) for _ in monitors]
    assert {(message[1], message[3]) for message in got} == set(monitors.items())
    assert {message[4][1] for message in got} <= {DIED, NOPROC}
    await nothing_left(zen)
    assert len(me.mailbox) == 0


async def test_fault_7_7_a_dispatcher_that_is_killed_delivers_on_at_once(autojump_clock: MockClock) -> None:
    """The original: silence for as long as the node has been up, an hour in this test. Here: delivered at once."""
    async with (
        open_cluster("here@test", "there@test") as (here, there),
        open_zen_monitor(here) as zen,
        open_zen_monitor(there),
        here.open_process() as me,
    ):
        assert await zen.connect(there.name) is COMPATIBLE
        pids = [there.spawn(waits) for _ in range(2)]
        refs = [zen.monitor(pid, subscriber=me) for pid in pids]
        await trio.sleep(3600)
        kill(zen, m.DISPATCHER)
        for ref, pid in zip(refs, pids, strict=True):
            there.exit(pid, DIED)
            killed_at = trio.current_time()
            assert await next_message(me) == down(ref, pid, DIED)
            assert trio.current_time() - killed_at < 1.0  # of the clock of this test, which no slow machine moves


async def test_fault_7_9_a_remote_proxy_that_is_killed_costs_no_monitor_of_a_pid(
    zen: ZenMonitor, me: Process, proxy: Beam, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The original: every monitor of the healthy node fires nodedown, and new ones for 2 s. Here: it is asked again."""
    monkeypatch.setattr("zenmon_node.local.remote.BASE_PENALTY", 60.0)  # a slow BEAM has a minute to restart it
    first, second, meanwhile = await spawn(proxy, 3)
    named = (Atom("named"), Atom(proxy.name))
    await proxy.eval("plain_processes:spawn_named(named)")
    refs = [zen.monitor(target, subscriber=me) for target in (first, second, meanwhile, named)]
    await subscriptions(proxy, 4)
    await proxy.eval("P ! {finish, died}, zen_proxy:kill()", P=meanwhile)
    # The death may have been reported before; which process the name meant is not known any more.
    got = [await next_message(me), await next_message(me)]
    assert {message[1] for message in got} == {refs[2], refs[3]}
    assert down(refs[3], named, NODEDOWN) in got
    assert [message[4][1] for message in got if message[1] == refs[2]] in ([DIED], [NOPROC])
    await subscriptions(proxy, 2)
    assert zen.compatibility(first) is COMPATIBLE
    refs.append(zen.monitor(named, subscriber=me))
    await subscriptions(proxy, 3)
    await finish(proxy, first, Atom("named"))
    got = [await next_message(me), await next_message(me)]
    expected = [down(refs[0], first, DIED), down(refs[4], named, DIED)]
    assert sorted(got, key=str) == sorted(expected, key=str)
    await proxy.eval("zen_proxy:kill()")
    await subscriptions(proxy, 1)
    await finish(proxy, second)
    assert await next_message(me) == down(refs[1], second, DIED)
    await nothing_left(zen)
    assert len(me.mailbox) == 0


# ------------------------------------------------------------------------------------------------------------- the page


def test_the_page_names_each_of_these_tests() -> None:
    here = Path(__file__).resolve()
    page = (here.parents[2] / "docs" / "zenmonitor-faults.md").read_text()
    sources = "".join(path.read_text() for path in here.parent.glob("test_zenmon_faults*.py"))
    tests = set(re.findall(r"^async def (test_fault_\w+)", sources, re.MULTILINE))
    assert set(re.findall(r"`(test_\w+)`", page)) == tests
