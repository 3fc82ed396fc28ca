"""What the original's Proxy loses, leaks or crashes on, shown not to happen with ours: docs/zenmonitor-faults.md.

Each test fails on a Proxy that behaves as the original was seen to behave. The client is a process of a genuine BEAM:
one that speaks to our Proxy by hand, as a Connector does, where the test is about single messages; else the BEAM's
whole Local. The same for our Local is in ``test_zenmon_faults.py``.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from erlang_interop import Atom
from erlang_interop.etf import encode
from erlang_interop.wire.control import Op
from tests.interop.collectors import Collector, collecting, disconnected_by, has_lost, is_among_nodes
from tests.interop.zen_faults import FailsOnce, kill, waits
from tests.interop.zen_peer import FAST, dialling
from tests.interop.zenmon import DIED, NODEDOWN, down, nothing_left, until
from zenmon_node import ZenMonitor, open_zen_monitor
from zenmon_node import messages as m
from zenmon_node.proxy.core import ProxyCore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from erlang_interop.terms import Pid, Reference, Term
    from erlang_interop.testing.beam import Beam, Epmd
    from tests.conftest import BeamFactory
    from tests.interop.conftest import NodeOpener

OLD, NEW = Atom("old"), Atom("new")


@pytest.fixture
async def zen(opened: NodeOpener) -> AsyncIterator[ZenMonitor]:
    """ZenMonitor on a visible node of ours, with short intervals."""
    async with opened(visible="passive") as node, open_zen_monitor(node, FAST) as zen:
        yield zen


class Connector:
    """A process of a BEAM that says by hand what a Connector says, and keeps what it is told."""

    def __init__(self, there: Collector, zen: ZenMonitor) -> None:
        self.there = there
        self.pid = there.pid
        self._zen = zen

    async def subscribe(self, *targets: Term) -> None:
        await self._cast(*[(m.SUBSCRIBE, target) for target in targets])

    async def unsubscribe(self, *targets: Term) -> None:
        await self._cast(*[(m.UNSUBSCRIBE, target) for target in targets])

    async def _cast(self, *instructions: Term) -> None:
        proxy = (m.PROXY, self._zen.node.name)
        await self.there.run("gen_server", "cast", proxy, (m.PROCESS, self.pid, list(instructions)))
        await self.has_been_heard()

    async def has_been_heard(self) -> None:
        """Return when our Proxy has taken in all that was said, and all it has said has come."""
        assert await self.there.run("gen_server", "call", (m.PROXY, self._zen.node.name), m.PING, 20_000) == m.PONG

    async def certificates(self, count: int) -> list[tuple[Any, Any]]:
        """The next certificates, so many of them; no more may be there."""
        got: list[tuple[Any, Any]] = []
        while len(got) < count:
            ((dead, node, certificates),) = await self.there.take(1)
            assert (dead, node) == (m.DEAD, self._zen.node.name)
            got += certificates
        assert len(got) == count
        assert await self.certificates_left() == []
        return got

    async def certificates_left(self) -> list[tuple[Any, Any]]:
        """What it was told beside that."""
        await until(lambda: not self._zen.statistics().waiting_certificates, self._zen)
        await self.has_been_heard()
        left = await self.there.take(await self.there.waiting())
        return [certificate for _, _, certificates in left for certificate in certificates]


@asynccontextmanager
async def speaking(beam: Beam, zen: ZenMonitor) -> AsyncIterator[Connector]:
    """A Connector made by hand on ``beam``, which is connected to our node."""
    await zen.node.connect(beam.name)
    async with collecting(beam) as there:
        yield Connector(there, zen)


@pytest.fixture
async def connector(beam: Beam, zen: ZenMonitor) -> AsyncIterator[Connector]:
    async with speaking(beam, zen) as connector:
        yield connector


def native_monitors(zen: ZenMonitor) -> int:
    """Monitors that the processes of our node hold, the Proxy among them."""
    count: int = zen.node.statistics()["monitors"]
    return count


async def native_monitors_are(zen: ZenMonitor, count: int) -> None:
    await until(lambda: native_monitors(zen) == count, zen)


class Client:
    """The Local of a BEAM, and one process there that holds its monitors."""

    def __init__(self, there: Collector, zen: ZenMonitor) -> None:
        self.there = there
        self.beam = there.beam
        self._zen = zen

    async def connect(self) -> None:
        """Have that Local find our Proxy compatible."""
        source = (
            "polling:until(fun() -> net_kernel:connect_node(N) end, 20000), zen_local:connect(N), "
            "zen_local:await_compatibility(N, compatible, 20000)"
        )
        assert await self.beam.eval(source, N=self._zen.node.name) is True

    async def monitor(self, *targets: Term) -> list[Reference]:
        refs: list[Reference] = await self.there.run("zen_local", "monitor_all", list(targets))
        return refs

    async def penalty(self) -> Term:
        return await self.beam.eval("zen_local:penalty(N)", N=self._zen.node.name)


@pytest.fixture
async def client(beam: Beam, zen: ZenMonitor) -> AsyncIterator[Client]:
    await beam.eval("zen_local:start(zen_settings:fast())")
    async with collecting(beam) as there:
        client = Client(there, zen)
        await client.connect()
        yield client
    await beam.eval("zen_local:stop()")


async def subscribed(zen: ZenMonitor, count: int) -> None:
    await until(lambda: zen.statistics().subscriptions == count, zen)


# ----------------------------------------------------------------------------------------------- subscriptions and rows


async def test_fault_7_1_a_bare_name_over_the_wire_is_certified(zen: ZenMonitor, connector: Connector) -> None:
    """The original: subscribed under the atom, certified under {name, node}: never reported. Here: as it was said."""
    pid = zen.node.spawn(waits, name="worker")
    await connector.subscribe(Atom("worker"))
    zen.node.exit(pid, DIED)
    assert await connector.certificates(1) == [(Atom("worker"), DIED)]
    await connector.subscribe(Atom("nobody"))
    assert await connector.certificates(1) == [(Atom("nobody"), m.NOPROC)]
    await nothing_left(zen)


async def test_fault_7_2_unsubscribe_releases_the_native_monitor(zen: ZenMonitor, connector: Connector) -> None:
    """The original: it stays until the target dies. Here: it goes with the last subscriber, not before."""
    pid = zen.node.spawn(waits, name="worker")
    targets = [pid, (Atom("worker"), zen.node.name), Atom("worker")]
    before = native_monitors(zen)
    async with speaking(connector.there.beam, zen) as other:
        await connector.subscribe(*targets)
        await other.subscribe(pid)
        # Two watch the Connectors, one the pid, which both share, and one each way to name it.
        assert native_monitors(zen) == before + 5
        await connector.unsubscribe(*targets)
        assert native_monitors(zen) == before + 3
        await other.unsubscribe(pid)
        assert native_monitors(zen) == before + 2
        assert zen.statistics().subscriptions == 0
        await connector.subscribe(pid)
        zen.node.exit(pid, DIED)
        assert await connector.certificates(1) == [(pid, DIED)]
        assert await other.certificates_left() == []


async def test_fault_7_2_a_connector_that_dies_before_anything_else_leaves_no_rows(zen: ZenMonitor, beam: Beam) -> None:
    """The original: nobody watches a Connector before its first certificate; its rows stay. Here: from the first on."""
    pids = [zen.node.spawn(waits) for _ in range(10)]
    before = native_monitors(zen)
    async with speaking(beam, zen) as connector:
        await connector.subscribe(*pids, Atom("nobody_yet"), (Atom("worker"), zen.node.name))
        assert zen.statistics().subscriptions == 10
    await subscribed(zen, 0)
    await native_monitors_are(zen, before)


async def test_fault_7_2_a_disconnect_leaves_no_rows(zen: ZenMonitor, connector: Connector) -> None:
    """The original: rows and monitors stay until the targets die. Here: they go with the connection."""
    pids = [zen.node.spawn(waits) for _ in range(10)]
    before = native_monitors(zen)
    await connector.subscribe(*pids)
    assert await is_among_nodes(connector.there.beam, zen.node.name)
    await disconnected_by(connector.there.beam, zen.node)
    await subscribed(zen, 0)
    await native_monitors_are(zen, before)


async def test_fault_7_3_a_name_that_has_moved_is_followed(
    zen: ZenMonitor, connector: Connector, fresh_beam: BeamFactory
) -> None:
    """The original: all subscribers of a name watch who had it first. Here: each watches who had it at its time."""
    named = (Atom("worker"), zen.node.name)
    first = zen.node.spawn(waits, name="worker")
    async with speaking(fresh_beam(), zen) as later:
        await connector.subscribe(named)
        zen.node.unregister("worker")
        second = zen.node.spawn(waits, name="worker")
        await later.subscribe(named)
        zen.node.exit(first, OLD)
        assert await connector.certificates(1) == [(named, OLD)]
        assert await later.certificates_left() == []
        zen.node.exit(second, NEW)
        assert await later.certificates(1) == [(named, NEW)]
        assert await connector.certificates_left() == []
    await nothing_left(zen)


async def test_fault_7_3_who_subscribes_anew_watches_the_new_owner(zen: ZenMonitor, connector: Connector) -> None:
    """The original: unsubscribing keeps the monitor on the old owner, and subscribing uses it. Here: a new monitor."""
    named = (Atom("worker"), zen.node.name)
    first = zen.node.spawn(waits, name="worker")
    await connector.subscribe(named)
    await connector.unsubscribe(named)
    zen.node.unregister("worker")
    second = zen.node.spawn(waits, name="worker")
    await connector.subscribe(named)
    zen.node.exit(first, OLD)
    assert await connector.certificates_left() == []
    zen.node.exit(second, NEW)
    assert await connector.certificates(1) == [(named, NEW)]


# --------------------------------------------------------------------------------------------- bad messages and crashes

BAD = [
    "P ! hello",
    "P ! {some, tuple}",
    "P ! {dead, node(), []}",
    "P ! {'DOWN', make_ref(), process, self(), gone}",
    "P ! {'EXIT', self(), gone}",
    "gen_server:cast(P, what)",
    "gen_server:cast(P, {process, S})",
    "gen_server:cast(P, {process, name, []})",
    "gen_server:cast(P, {process, S, not_a_list})",
    "gen_server:cast(P, {process, S, [{watch, S}]})",
    "gen_server:cast(P, {process, S, [{subscribe, S, S}]})",
    "gen_server:cast(P, {process, S, [nil, <<>>, #{}, 17]})",
    "gen_server:cast(P, {process, S, [{unsubscribe, 123} | tail]})",
    "gen_server:cast(P, {process, S, [{subscribe, 123}]})",
    "gen_server:cast(P, {process, S, [{subscribe, hd(erlang:ports())}]})",
    "gen_server:cast(P, {process, S, [{subscribe, fun lists:map/2}]})",
    "gen_server:cast(P, {process, S, [{subscribe, {a, node(), b}}]})",
    "gen_server:cast(P, {process, S, [{subscribe, {<<\"a\">>, N}}]})",
    "gen_server:cast(P, {subscribe, S, [{1, 2}]})",
    "gen_server:cast(P, {subscribe, S, S})",
    "gen_server:cast(P, {subscribe, S, lists:seq(1, 1000)})",
    "P ! (1 bsl 20000)",
    "P ! binary:copy(<<0>>, 2000000)",
    "gen_server:cast(P, {process, S, [{subscribe, 1 bsl 20000}]})",
    "gen_server:cast(P, {process, S, [lists:foldl(fun(_, Deep) -> [Deep | x] end, [], lists:seq(1, 5000))]})",
    "P ! {'$gen_call', {self(), make_ref()}, unknown}",
    "P ! {'$gen_call', nobody, ping}",
    "P ! {'$gen_call', {nobody, x}, ping}",
]  # fmt: skip


async def test_fault_7_4_no_message_costs_anybody_a_down(zen: ZenMonitor, client: Client, connector: Connector) -> None:
    """The original: one ends the Proxy, 64 of them ZenMonitor; all subscribers fire. Here: ignored, and said once."""
    pid, named = zen.node.spawn(waits), zen.node.spawn(waits, name="worker")
    by_pid, by_name = await client.monitor(pid, (Atom("worker"), zen.node.name))
    await subscribed(zen, 2)
    proxy = zen.node.whereis(m.PROXY)
    said = ", ".join(BAD)
    names: dict[str, Any] = {"P": (m.PROXY, zen.node.name), "N": zen.node.name, "S": connector.pid}
    heard = f"[begin {said} end || _ <- lists:seq(1, 5)], gen_server:call(P, ping, 20000)"
    assert await client.beam.eval(heard, **names) == m.PONG
    assert zen.statistics().malformed >= 5 * (len(BAD) - 2)  # a DOWN that nobody waits for is no mistake
    assert zen.node.whereis(m.PROXY) == proxy
    assert await client.penalty() == Atom("none")
    zen.node.exit(pid, DIED)
    zen.node.exit(named, OLD)
    got = await client.there.take(2)
    expected = [down(by_pid, pid, DIED), down(by_name, (Atom("worker"), zen.node.name), OLD)]
    assert sorted(got, key=str) == sorted(expected, key=str)
    await nothing_left(zen)


@pytest.mark.parametrize("method", ["_take_deaths", "_carry_out", "work", "sweep", "_send_summary"])
async def test_fault_7_4_an_exception_of_our_own_costs_nobody_a_down(
    zen: ZenMonitor, client: Client, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """The original: any exception ends the Proxy, all subscribers fire and wait 2 s. Here: logged, mended, gone on."""
    pids = [zen.node.spawn(waits) for _ in range(20)]
    refs = await client.monitor(*pids)
    await subscribed(zen, 20)
    proxy = zen.node.whereis(m.PROXY)
    failing = FailsOnce(monkeypatch, ProxyCore, method)
    more = zen.node.spawn(waits)
    refs += await client.monitor(more)
    zen.node.exit(pids[0], DIED)
    await until(lambda: failing.failed, zen)
    for pid in (*pids[1:], more):
        zen.node.exit(pid, DIED)
    got = await client.there.take(21)
    assert {message[1] for message in got} == set(refs)
    # What the step that failed was about is not known any more; all else is.
    assert sum(message[4] == (m.ZEN_MONITOR, DIED) for message in got) >= 19
    assert NODEDOWN not in {message[4][1] for message in got}
    assert zen.node.whereis(m.PROXY) == proxy
    assert await client.penalty() == Atom("none")
    await nothing_left(zen)


async def test_fault_7_8_certificates_that_wait_are_not_lost_silently(zen: ZenMonitor, client: Client) -> None:
    """The original: a Batcher that ends takes them with it, and nobody is told. Here: it ends with the Proxy alone."""
    pids = [zen.node.spawn(waits) for _ in range(20)]
    refs = await client.monitor(*pids)
    await subscribed(zen, 20)
    zen.configure(batcher_sweep_interval=3_600_000)  # what dies now waits
    for pid in pids[:10]:
        zen.node.exit(pid, DIED)
    assert zen.statistics().waiting_certificates == 10
    kill(zen, m.PROXY)
    got = await client.there.take(20)
    assert sorted(got, key=str) == sorted(
        [down(ref, pid, NODEDOWN) for ref, pid in zip(refs, pids, strict=True)], key=str
    )
    assert await client.there.waiting() == 0


async def test_fault_7_9_a_proxy_that_is_killed_leaves_nothing_behind(zen: ZenMonitor, connector: Connector) -> None:
    """The original: rows stay as garbage. Here: rows and monitors go with it, and the next one serves at once."""
    pids = [zen.node.spawn(waits) for _ in range(10)]
    before = native_monitors(zen)
    await connector.subscribe(*pids)
    proxy = zen.node.whereis(m.PROXY)
    kill(zen, m.PROXY)
    await until(lambda: zen.node.whereis(m.PROXY) not in (None, proxy), zen)
    await subscribed(zen, 0)
    await native_monitors_are(zen, before)
    await connector.subscribe(*pids)
    assert zen.statistics().subscriptions == 10
    for pid in pids:
        zen.node.exit(pid, DIED)
    assert sorted(await connector.certificates(10), key=str) == sorted([(pid, DIED) for pid in pids], key=str)


# ----------------------------------------------------------------------------------------------- links that come and go


async def test_fault_7_10_a_death_does_not_undo_a_disconnect(
    zen: ZenMonitor, connector: Connector, fresh_beam: BeamFactory
) -> None:
    """The original: a stale row starts a Batcher, whose monitor dials the node that was left. Here: there is none."""
    pid = zen.node.spawn(waits)
    async with speaking(fresh_beam(), zen) as witness:
        await connector.subscribe(pid)
        await witness.subscribe(pid)
        left = connector.there.beam
        assert await is_among_nodes(left, zen.node.name)
        await zen.node.disconnect(left.name)
        await has_lost(left, zen.node.name)
        zen.node.exit(pid, DIED)
        assert await witness.certificates(1) == [(pid, DIED)]  # by now the other one would have been dialled
        assert [row.name.name for row in zen.node.connections] == [witness.there.beam.name]


async def test_fault_7_11_rows_of_a_lost_link_double_nothing(zen: ZenMonitor, client: Client) -> None:
    """The original: rows of before are there still, beside the new ones. Here: one row, one DOWN, the real reason."""
    pid = zen.node.spawn(waits)
    for _ in range(5):
        (ref,) = await client.monitor(pid)
        await subscribed(zen, 1)
        assert await is_among_nodes(client.beam, zen.node.name)
        await disconnected_by(client.beam, zen.node)
        assert await client.there.take(1) == [down(ref, pid, NODEDOWN)]
        await client.connect()
    (ref,) = await client.monitor(pid)
    await until(lambda: zen.statistics().subscription_rows == 1, zen)
    zen.node.exit(pid, DIED)
    assert await client.there.take(1) == [down(ref, pid, DIED)]
    await nothing_left(zen)
    assert await client.there.waiting() == 0


async def test_fault_7_17_a_certificate_in_the_middle_of_a_reconnect_is_not_dropped(
    zen: ZenMonitor, connector: Connector
) -> None:
    """The original: one that is given to a Batcher which is just ending is gone. Here: who subscribes anew is told."""
    beam = connector.there.beam
    for number in range(10):
        first, second = zen.node.spawn(waits), zen.node.spawn(waits)
        await connector.subscribe(first, second)
        zen.node.exit(first, number)
        assert await connector.certificates(1) == [(first, number)]  # it has a Batcher
        assert await is_among_nodes(beam, zen.node.name)
        await disconnected_by(beam, zen.node)
        assert await beam.eval("polling:until(fun() -> net_kernel:connect_node(N) end, 20000)", N=zen.node.name) is True
        await connector.subscribe(second)
        zen.node.exit(second, number)
        assert await connector.certificates(1) == [(second, number)]
    await nothing_left(zen)


# ------------------------------------------------------------------------------------------------------ sizes and names


async def test_fault_7_12_a_summary_is_bounded_in_bytes(zen: ZenMonitor, epmd: Epmd, cookie: str) -> None:
    """The original: 5000 certificates in one, whatever they weigh. Here: a few megabytes, and the rest in the next."""
    async with dialling(zen.node, epmd.port, cookie) as peer:
        pids = [zen.node.spawn(waits) for _ in range(40)]
        await peer.cast(*[(m.SUBSCRIBE, pid) for pid in pids])
        await subscribed(zen, 40)
        for pid in pids:
            zen.node.exit(pid, (Atom("shutdown"), bytes(500_000)))
        told: list[Pid] = []
        while len(told) < 40:
            control, summary = await peer.hear()
            if control[0] != Op.MONITOR_P:
                assert len(encode(summary)) < 5_000_000
                assert {len(reason[1]) for _, reason in summary[2]} == {500_000}
                told += [pid for pid, _ in summary[2]]
        assert told == pids


async def test_fault_7_15_an_underscore_is_certified_once(zen: ZenMonitor, connector: Connector) -> None:
    """The original: it matches all names in its tables, and is certified once for each. Here: it is one name."""
    wild, other = (Atom("_"), zen.node.name), (Atom("worker"), zen.node.name)
    pid = zen.node.spawn(waits, name="worker")
    await connector.subscribe(other, wild)
    assert await connector.certificates(1) == [(wild, m.NOPROC)]
    wild_pid = zen.node.spawn(waits, name="_")
    await connector.subscribe(wild)
    zen.node.exit(pid, OLD)
    assert await connector.certificates(1) == [(other, OLD)]
    zen.node.exit(wild_pid, NEW)
    assert await connector.certificates(1) == [(wild, NEW)]
    await connector.subscribe(wild, other)
    await connector.certificates(2)
    await nothing_left(zen)
