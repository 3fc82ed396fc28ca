"""What a Connector knows of a remote Proxy, and what becomes of its monitors when that goes and comes back."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from erlang_interop.terms import Atom
from tests.unit.zenmon.local.bench import DIED, NAME, Bench, target
from tests.unit.zenmon.ports import FakeConnectorPort, ref
from zenmon_node import messages as m
from zenmon_node.config import Settings
from zenmon_node.local.remote import News, RemoteProxy, State, penalty


@pytest.fixture
def proxy() -> RemoteProxy:
    proxy = RemoteProxy()
    proxy.port = FakeConnectorPort()
    return proxy


def port(proxy: RemoteProxy) -> FakeConnectorPort:
    assert isinstance(proxy.port, FakeConnectorPort)
    return proxy.port


def make_compatible(proxy: RemoteProxy) -> None:
    assert proxy.look(0.0) is News.NONE
    assert proxy.reply(port(proxy).pings[-1], m.PONG, 0.0) is News.COMPATIBLE


def test_penalties_are_the_originals() -> None:
    assert [penalty(n) for n in range(1, 9)] == [2, 4, 8, 16, 32, 60, 60, 60]
    assert penalty(1001) == 60


def test_a_question_is_open_until_it_is_answered(proxy: RemoteProxy) -> None:
    assert (proxy.settled, proxy.due) == (False, None)
    proxy.look(0.0)
    assert (proxy.state, proxy.settled, proxy.is_waiting, proxy.due) == (State.PINGING, False, True, 5.0)
    proxy.reply(port(proxy).pings[-1], m.PONG, 1.0)
    assert (proxy.state, proxy.settled, proxy.is_waiting, proxy.due) == (State.COMPATIBLE, True, False, None)
    proxy.wanted = True
    assert not proxy.settled
    assert proxy.look(2.0) is News.NONE
    assert proxy.settled
    assert len(port(proxy).pings) == 1  # it is known already


def test_answers_and_ends_of_others_are_nothing(proxy: RemoteProxy) -> None:
    make_compatible(proxy)
    assert proxy.reply(ref(1), Atom("no"), 1.0) is News.NONE
    assert proxy.reply(port(proxy).pings[-1], Atom("no"), 1.0) is News.NONE  # it has answered already
    assert proxy.down(ref(1), m.NOPROC, 1.0) is News.NONE
    assert proxy.state is State.COMPATIBLE


def test_a_proxy_that_goes_is_expected_back_for_two_seconds(proxy: RemoteProxy) -> None:
    make_compatible(proxy)
    assert proxy.down(port(proxy).pings[-1], Atom("killed"), 10.0) is News.FORGOTTEN
    assert (proxy.state, proxy.attempt, proxy.due, proxy.wants_look) == (State.RECOVERING, 1, 12.0, True)
    assert proxy.look(10.1) is News.NONE
    assert (proxy.due, proxy.wants_look) == (12.0, False)  # asking does not prolong it
    assert proxy.down(port(proxy).pings[-1], m.NOPROC, 10.1) is News.NONE
    assert proxy.wants_look
    assert proxy.look(12.0) is News.LOST
    assert (proxy.state, proxy.attempt, proxy.due) == (State.INCOMPATIBLE, 2, 16.0)


def test_nothing_is_asked_during_a_penalty_or_without_a_connection(proxy: RemoteProxy) -> None:
    assert proxy.failed(0.0) is News.LOST
    assert proxy.look(1.0) is News.LOST
    port(proxy).connected = False
    assert proxy.look(5.0) is News.LOST
    assert (proxy.state, proxy.attempt) == (State.UNAVAILABLE, 0)
    assert port(proxy).pings == []


def test_news_of_an_older_connection_are_late(proxy: RemoteProxy) -> None:
    port(proxy).number = 7
    make_compatible(proxy)
    assert proxy.node_down(6) is News.NONE
    assert proxy.node_up(7) is News.NONE
    assert proxy.state is State.COMPATIBLE
    assert proxy.node_down(7) is News.LOST
    assert port(proxy).released == port(proxy).pings
    assert proxy.node_down(7) is News.NONE  # the second messenger
    assert proxy.node_up(8) is News.NONE
    assert (proxy.state, proxy.wanted) == (State.UNKNOWN, True)


def test_another_process_has_no_monitor_to_give_back(proxy: RemoteProxy) -> None:
    make_compatible(proxy)
    proxy.process_changed()
    assert (proxy.state, proxy.wanted, port(proxy).released) == (State.UNKNOWN, True, [])


# -- with the tables of a Connector


def test_late_news_of_an_old_proxy_changes_nothing() -> None:
    bench = Bench(compatible=True)
    old = bench.port.pings[-1]
    bench.node_down()
    bench.node_up()
    bench.go(0.1)
    bench.pong()
    bench.monitor(1)
    bench.proxy_down(m.NOCONNECTION, old)
    assert bench.state == State.COMPATIBLE
    assert bench.fired() == []


def test_a_proxy_that_comes_back_gets_all_pids_in_chunks() -> None:
    bench = Bench(Settings(connector_chunk_size=2), compatible=True)
    bench.monitor(1, 2, 3, 4)
    bench.monitor(5, of=NAME)
    bench.go(1.0)
    before = len(bench.port.casts)
    bench.proxy_down(DIED)
    assert (bench.state, bench.core.proxy.settled) == (State.RECOVERING, False)
    assert bench.fired() == [(5, m.NODEDOWN)]  # nobody knows any more who that was
    bench.demonitor(2)
    bench.monitor(6)
    bench.monitor(7, of=NAME)
    bench.core.check()
    bench.go(0.1)
    assert bench.fired() == []
    bench.pong()
    bench.go(1.0)
    assert (bench.state, bench.core.proxy.attempt) == (State.COMPATIBLE, 0)
    assert bench.port.casts[before:] == [
        [(m.SUBSCRIBE, target(1)), (m.UNSUBSCRIBE, target(2))],
        [(m.SUBSCRIBE, target(3)), (m.SUBSCRIBE, target(4))],
        [(m.SUBSCRIBE, target(6)), (m.SUBSCRIBE, NAME)],
    ]
    bench.dead((target(3), m.NOPROC), (NAME, DIED))
    assert bench.fired() == [(3, m.NOPROC), (7, DIED)]


def test_a_proxy_that_comes_back_gets_very_many_pids_in_chunks() -> None:
    bench = Bench(Settings(connector_chunk_size=5000), compatible=True)
    bench.monitor(*range(20_000))
    bench.go(1.0)
    before = len(bench.port.casts)
    bench.proxy_down(DIED)
    bench.demonitor(*range(1000))
    bench.monitor(*range(20_000, 21_000))
    assert bench.core.waiting_instructions == 22_000
    bench.go(0.1)
    bench.pong()
    bench.go(2.0)
    casts = bench.port.casts[before:]
    assert max(map(len, casts)) == 5000
    subscribed = {about for cast in casts for op, about in cast if op is m.SUBSCRIBE}
    assert subscribed == {target(number) for number in range(1000, 21_000)}
    assert bench.core.waiting_instructions == 0
    assert bench.fired() == []


def test_a_proxy_that_comes_back_is_asked_once_a_sweep_and_may_go_again() -> None:
    bench = Bench(compatible=True)
    bench.monitor(1)
    bench.go(0.1)
    bench.proxy_down(DIED)
    start, pings = bench.now, []
    for _ in range(4):
        bench.go(0.1)
        pings.append(len(bench.port.pings) - 1)
        bench.proxy_down(m.NOPROC)  # not registered yet
    assert pings == [1, 2, 3, 4]
    assert bench.fired() == []
    bench.go(0.1)
    bench.pong()
    bench.go(0.1)
    assert bench.port.casts[-1] == [(m.SUBSCRIBE, target(1))]
    bench.proxy_down(DIED)
    assert bench.state is State.RECOVERING
    bench.go(1.9)
    assert bench.fired() == []
    assert bench.now - start > 2.0  # its two seconds begin with the latest loss


def test_a_proxy_that_does_not_come_back_costs_all_monitors_after_two_seconds() -> None:
    bench = Bench(compatible=True)
    bench.monitor(1)
    bench.go(0.1)
    bench.proxy_down(DIED)
    bench.go(1.9)
    assert bench.fired() == []
    bench.go(0.2)  # the ping is not answered
    assert bench.fired() == [(1, m.NODEDOWN)]
    assert (bench.state, bench.core.proxy.attempt) == (State.INCOMPATIBLE, 2)
    assert bench.port.released == bench.port.pings[1:]
    bench.go(3.8)
    assert len(bench.port.pings) == 2
    bench.go(0.2)
    assert len(bench.port.pings) == 3


def test_a_proxy_that_comes_back_as_something_else_is_incompatible_at_once() -> None:
    bench = Bench(compatible=True)
    bench.monitor(1)
    bench.proxy_down(DIED)
    bench.go(0.1)
    bench.pong(Atom("ok"))
    assert bench.fired() == [(1, m.NODEDOWN)]
    assert (bench.state, bench.core.proxy.attempt) == (State.INCOMPATIBLE, 2)


@pytest.mark.parametrize("asked", [False, True])
def test_the_node_goes_while_its_proxy_is_away(asked: bool) -> None:
    bench = Bench(compatible=True)
    bench.monitor(1, 2)
    bench.go(0.1)
    bench.proxy_down(DIED)
    if asked:
        bench.go(0.1)
        bench.port.connected = False
        bench.proxy_down(m.NOCONNECTION)
    bench.node_down()
    bench.go(5.0)
    assert bench.fired() == [(1, m.NODEDOWN), (2, m.NODEDOWN)]
    assert bench.state is State.UNAVAILABLE
    assert bench.core.waiting_instructions == 0


def test_certificates_of_a_proxy_that_has_gone_count_for_pids_alone() -> None:
    bench = Bench(compatible=True)
    bench.monitor(1, 2)
    bench.monitor(3, of=NAME)
    bench.go(0.1)
    bench.proxy_down(DIED)
    bench.monitor(4, of=NAME)  # of whoever has that name when the Proxy is back
    with capture_logs() as logs:
        bench.dead((NAME, DIED), (target(1), DIED), (target(2), DIED, 3))
    assert len(logs) == 1
    assert bench.fired() == [(3, m.NODEDOWN), (1, DIED)]
    bench.go(0.1)
    bench.pong()
    bench.dead((NAME, m.NOPROC))
    assert bench.fired() == [(4, m.NOPROC)]


def test_late_news_of_a_lost_connection_does_not_hit_monitors_of_the_next() -> None:
    """The Proxy's monitor tells of the loss, the next connection is there, and only then comes the nodedown."""
    bench = Bench(compatible=True)
    bench.monitor(1)
    bench.go(0.1)
    lost = bench.port.number
    bench.proxy_down(m.NOCONNECTION)
    assert bench.fired() == [(1, m.NODEDOWN)]
    bench.port.number += 1
    bench.monitor(2)
    bench.core.node_down(lost)  # before the next sweep
    bench.core.node_up(bench.port.number)
    bench.go(0.1)
    bench.pong()
    bench.core.node_down(lost)  # and after
    bench.core.node_up(bench.port.number)
    bench.go(1.0)
    assert (bench.state, bench.fired()) == (State.COMPATIBLE, [])
    assert bench.port.casts[-1] == [(m.SUBSCRIBE, target(2))]
    bench.node_down()
    assert bench.fired() == [(2, m.NODEDOWN)]


def test_a_nodeup_that_no_nodedown_came_before_subscribes_anew() -> None:
    bench = Bench(compatible=True)
    bench.monitor(1)
    bench.monitor(2, of=NAME)
    bench.go(0.1)
    bench.node_up()
    bench.go(0.1)
    bench.pong()
    assert bench.port.casts[-1] == [(m.SUBSCRIBE, target(1))]
    assert bench.fired() == [(2, m.NODEDOWN)]
