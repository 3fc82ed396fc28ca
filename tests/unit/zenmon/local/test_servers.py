"""The processes of the Local: what an exception or a killed process costs, and the module they talk through."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from erlang_interop import Atom
from tests.unit.zenmon.test_app import DIED, down, next_message, nothing_left, subscribed, until, waiting
from zenmon_node import Cached, gen
from zenmon_node import messages as m
from zenmon_node.complaints import Complaints
from zenmon_node.local.api import LocalCore
from zenmon_node.local.connector import ConnectorCore
from zenmon_node.local.dispatcher import DispatcherCore
from zenmon_node.sweeping import RESTARTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from erlang_interop import Process
    from erlang_interop.runtime import LocalProcess
    from erlang_interop.terms import Pid, Reference, Term
    from tests.unit.zenmon.conftest import Pair
    from zenmon_node import ZenMonitor

CRASHED = "a handler crashed; its process mends what it has left and goes on"


class Broken(Exception):
    """What the tests make the servers raise."""


def break_down(monkeypatch: pytest.MonkeyPatch, cls: type, name: str, times: int = 1) -> list[int]:
    """Let the next calls of a method raise. Returns a list with the number of those to come."""
    left = [times]
    original = getattr(cls, name)

    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise Broken
        return original(self, *args, **kwargs)

    monkeypatch.setattr(cls, name, method)
    return left


def processes(zen: ZenMonitor) -> list[Pid | None]:
    """The processes of ZenMonitor on a node, its Connectors among them."""
    connectors = [server.process.pid for server in zen._local._servers.values()]
    return [*(zen.node.whereis(name) for name in (m.LOCAL, m.DISPATCHER, m.PROXY)), *connectors]


async def all_fire(pair: Pair, refs: dict[Reference, Pid], me: Process) -> dict[Reference, Term]:
    """Wait until all have fired; none twice, and nothing is left."""
    reasons: dict[Reference, Term] = {}
    while len(reasons) < len(refs):
        _, ref, _, pid, (_, reason) = await next_message(me)
        assert refs[ref] == pid
        assert ref not in reasons
        reasons[ref] = reason
    await nothing_left(pair.zen, pair.there_zen)
    assert len(me.mailbox) == 0
    return reasons


@pytest.mark.parametrize(
    ("cls", "method"),
    [
        (ConnectorCore, "work"),
        (ConnectorCore, "message"),
        (ConnectorCore, "sweep"),
        (DispatcherCore, "enqueue"),
        (DispatcherCore, "deliver"),
    ],
)
async def test_an_exception_costs_no_down(pair: Pair, monkeypatch: pytest.MonkeyPatch, cls: type, method: str) -> None:
    await pair.zen.connect(pair.there.name)
    watched = [pair.there.spawn(waiting) for _ in range(50)]
    async with pair.here.open_process() as me:
        refs = {pair.zen.monitor(pid, subscriber=me): pid for pid in watched}
        await subscribed(pair.there_zen, 50)
        before = processes(pair.zen)
        left = break_down(monkeypatch, cls, method)
        with capture_logs() as logs:
            late = pair.there.spawn(waiting)
            refs[pair.zen.monitor(late, subscriber=me)] = late  # there is something to sweep
            for pid in [*watched, late]:
                pair.there.exit(pid, DIED)
            reasons = await all_fire(pair, refs, me)
        assert set(reasons.values()) <= {DIED, m.NOPROC}
        assert left == [0]
        assert [log["event"] for log in logs] == [CRASHED]
        assert isinstance(logs[0]["exc_info"], bool)
        assert processes(pair.zen) == before  # so the other side has noticed nothing
        assert pair.zen.counters.contained_crashes == 1


async def test_an_exception_about_a_dead_subscriber_leaves_nothing_of_it(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pair.zen.connect(pair.there.name)
    pid = pair.there.spawn(waiting)
    async with pair.here.open_process() as me:
        kept = pair.zen.monitor(pid, subscriber=me)
        async with pair.here.open_process() as other:
            pair.zen.monitor(pid, subscriber=other)
            pair.zen.monitor(pair.there.spawn(waiting), subscriber=other)
            await subscribed(pair.there_zen, 2)
            break_down(monkeypatch, LocalCore, "subscriber_down")
        await subscribed(pair.there_zen, 1)
        assert pair.zen.statistics().monitors == 1
        assert pair.zen.counters.contained_crashes == 1
        me.send(pid, DIED)
        assert await next_message(me) == down(kept, pid, DIED)
    await nothing_left(pair.zen, pair.there_zen)


async def test_a_forged_down_of_a_subscriber_costs_it_nothing(pair: Pair) -> None:
    await pair.zen.connect(pair.there.name)
    pid = pair.there.spawn(waiting)
    async with pair.here.open_process() as me:
        ref = pair.zen.monitor(pid, subscriber=me)
        await subscribed(pair.there_zen, 1)
        with capture_logs() as logs:
            me.send((m.LOCAL, pair.here.name), (m.DOWN, ref, m.PROCESS, me.pid, DIED))
        assert [log["problem"] for log in logs] == ["no message for the Local"]
        me.send(pid, DIED)
        assert await next_message(me) == down(ref, pid, DIED)


async def test_an_exception_about_a_nodedown_does_not_hide_it(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    await pair.zen.connect(pair.there.name)
    pid = pair.there.spawn(waiting)
    async with pair.here.open_process() as me:
        ref = pair.zen.monitor(pid, subscriber=me)
        await subscribed(pair.there_zen, 1)
        # The monitor on the Proxy tells it first, and then the node's own news.
        left = break_down(monkeypatch, ConnectorCore, "_act", times=2)
        await pair.here.disconnect(pair.there.name)
        assert await next_message(me) == down(ref, pid, m.NODEDOWN)
        assert left == [0]
    await nothing_left(pair.zen, pair.there_zen)


async def test_a_local_that_crashes_too_often_is_restarted_and_loses_nothing(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pair.zen.connect(pair.there.name)
    pid = pair.there.spawn(waiting)
    async with pair.here.open_process() as me:
        ref = pair.zen.monitor(pid, subscriber=me)
        await subscribed(pair.there_zen, 1)
        before = pair.here.whereis(m.LOCAL)
        assert before is not None
        break_down(monkeypatch, Complaints, "add", times=RESTARTS + 1)
        with capture_logs():
            for _ in range(RESTARTS + 1):
                assert pair.here.whereis(m.LOCAL) == before
                me.send(before, Atom("nonsense"))
        assert pair.here.whereis(m.LOCAL) not in (None, before)
        await until(lambda: pair.zen.compatibility(pid).value == "compatible")
        await subscribed(pair.there_zen, 1)
        me.send(pid, DIED)
        assert await next_message(me) == down(ref, pid, DIED)


async def test_a_killed_connector_fires_names_and_keeps_pids(pair: Pair) -> None:
    await pair.zen.connect(pair.there.name)
    pid = pair.there.spawn(waiting, name="worker")
    name = (Atom("worker"), pair.there.name)
    async with pair.here.open_process() as me:
        by_pid, by_name = (pair.zen.monitor(target, subscriber=me) for target in (pid, name))
        await subscribed(pair.there_zen, 2)
        (server,) = pair.zen._local._servers.values()
        pair.here.exit(server.process.pid, Atom("kill"))
        assert await next_message(me) == down(by_name, name, m.NODEDOWN)
        await subscribed(pair.there_zen, 1)
        me.send(pid, DIED)
        assert await next_message(me) == down(by_pid, pid, DIED)
    await nothing_left(pair.zen, pair.there_zen)


# -- gen_module: this module is one

TOLD: list[tuple[Term, Term]] = []
BROKEN = [False]


def call(process: LocalProcess, dest: tuple[Atom, Atom], ref: Reference, request: Term) -> None:
    """As the default, and noted."""
    TOLD.append((dest, request))
    gen.call(process, dest, ref, request)


def cast(process: LocalProcess, dest: tuple[Atom, Atom], request: Term) -> None:
    """As the default, and noted; unless it is broken."""
    if BROKEN[0]:
        raise Broken
    TOLD.append((dest, request))
    gen.cast(process, dest, request)


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    TOLD.clear()
    BROKEN[0] = False


async def test_connectors_talk_through_the_gen_module_from_the_next_sweep_on(pair: Pair) -> None:
    pid = pair.there.spawn(waiting)
    proxy = (m.PROXY, pair.there.name)
    pair.zen.configure(gen_module=__name__)
    await pair.zen.connect(pair.there.name)
    assert TOLD[:] == [(proxy, m.PING)]
    async with pair.here.open_process() as me:
        ref = pair.zen.monitor(pid, subscriber=me)
        await subscribed(pair.there_zen, 1)
        (server,) = pair.zen._local._servers.values()
        assert TOLD[1:] == [(proxy, (m.PROCESS, server.process.pid, [(m.SUBSCRIBE, pid)]))]
        pair.zen.configure(gen_module=None)
        pair.zen.demonitor(ref)
        await subscribed(pair.there_zen, 0)
    assert len(TOLD) == 2


async def test_a_gen_module_that_always_raises_makes_its_remotes_incompatible(pair: Pair) -> None:
    # It soon raises too often, and stays when nothing is monitored.
    pair.zen.configure(gen_module=__name__, connector_sweep_interval=1, hibernation_threshold=1_000_000)
    seen: list[Cached] = []
    pair.zen.watch_compatibility(lambda node, verdict: seen.append(verdict.status))
    await pair.zen.connect(pair.there.name)
    BROKEN[0] = True
    pid = pair.there.spawn(waiting)
    async with pair.here.open_process() as me:
        ref = pair.zen.monitor(pid, subscriber=me)
        local = pair.here.whereis(m.LOCAL)
        with capture_logs() as logs:  # to print a traceback takes longer than all the rest
            assert await next_message(me) == down(ref, pid, m.NODEDOWN)
        assert [log["event"] for log in logs] == [CRASHED] * RESTARTS
        assert Cached.INCOMPATIBLE in seen
        assert pair.zen.counters.contained_crashes == RESTARTS + 1
        assert pair.here.whereis(m.LOCAL) == local
        BROKEN[0] = False
        await until(lambda: pair.zen.compatibility(pid).value == "compatible")
        again = pair.zen.monitor(pid, subscriber=me)
        await subscribed(pair.there_zen, 1)
        me.send(pid, DIED)
        assert await next_message(me) == down(again, pid, DIED)
