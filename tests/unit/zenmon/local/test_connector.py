"""A Connector's decisions: batches, what fires when, when it goes, and what it makes of an exception."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from erlang_interop.terms import Atom, Pid, Reference, Term
from tests.unit.zenmon.local.bench import DIED, ME, NAME, Bench, target
from tests.unit.zenmon.ports import HERE, THERE, FakeConnectorPort, ref
from zenmon_node import messages as m
from zenmon_node.config import Settings
from zenmon_node.local.remote import State
from zenmon_node.pacing import SLICE


def test_the_first_monitor_pings_then_subscribes() -> None:
    bench = Bench()
    bench.monitor(1, 2)
    bench.go(0.1)
    assert len(bench.port.pings) == 1
    assert bench.state.value == "pinging"
    assert bench.port.casts == []
    bench.pong()
    assert bench.state == State.COMPATIBLE
    assert bench.port.casts == [[(m.SUBSCRIBE, target(1)), (m.SUBSCRIBE, target(2))]]
    assert bench.core.next_due(bench.now) is None


def test_only_the_atom_pong_is_compatible() -> None:
    for answer in (Atom("ok"), b"pong", "pong", None):
        bench = Bench()
        bench.monitor(1)
        bench.go(0.1)
        bench.pong(answer)
        assert bench.state is State.INCOMPATIBLE
        assert bench.fired() == [(1, m.NODEDOWN)]
        assert bench.port.released == bench.port.pings


def test_monitors_made_during_a_ping_wait_for_its_outcome() -> None:
    bench = Bench()
    bench.monitor(1)
    bench.go(0.1)
    bench.monitor(2)
    bench.demonitor(1)
    bench.go(1.0)
    assert bench.fired() == []
    bench.pong()
    subscribe_1, subscribe_2 = (m.SUBSCRIBE, target(1)), (m.SUBSCRIBE, target(2))
    assert bench.port.casts == [[subscribe_1, subscribe_2, (m.UNSUBSCRIBE, target(1))]]


def test_a_silent_proxy_is_incompatible_after_five_seconds() -> None:
    bench = Bench()
    bench.monitor(1)
    bench.go(5.0)
    assert bench.fired() == []
    bench.go(0.1)
    assert bench.fired() == [(1, m.NODEDOWN)]
    bench.core.message((bench.port.pings[-1], m.PONG), bench.now)  # too late
    assert bench.state is State.INCOMPATIBLE


def test_back_off_pings_at_the_originals_times() -> None:
    bench = Bench(Settings(hibernation_threshold=1_000_000))
    bench.monitor(1)
    start = bench.now
    pings: list[float] = []
    while len(pings) < 8:
        due = bench.core.next_due(bench.now)
        assert due is not None
        bench.now = due
        bench.core.sweep(due)
        if len(bench.port.pings) > len(pings):
            pings.append(round(bench.now - start, 1))
            bench.proxy_down(m.NOPROC)
    assert pings == [0.0, 2.0, 6.0, 14.0, 30.0, 62.0, 122.0, 182.0]
    assert bench.core.proxy.attempt == 8


def test_during_a_penalty_monitors_fire_and_nothing_is_asked() -> None:
    bench = Bench()
    bench.monitor(1)
    bench.go(0.1)
    bench.proxy_down(m.NOPROC)
    assert bench.fired() == [(1, m.NODEDOWN)]
    assert (bench.state, bench.core.proxy.attempt) == (State.INCOMPATIBLE, 1)
    bench.monitor(2)
    bench.go(1.0)
    assert bench.fired() == [(2, m.NODEDOWN)]
    assert len(bench.port.pings) == 1
    bench.go(1.1)
    assert len(bench.port.pings) == 2
    bench.pong()
    bench.monitor(3)
    bench.go(0.1)
    assert bench.port.casts == [[(m.SUBSCRIBE, target(3))]]
    assert bench.core.proxy.attempt == 0


def test_a_node_that_is_not_connected_is_unavailable_and_not_asked() -> None:
    bench = Bench()
    bench.port.connected = False
    bench.monitor(1)
    bench.go(0.1)
    assert (bench.state, bench.port.pings) == (State.UNAVAILABLE, [])
    assert bench.fired() == [(1, m.NODEDOWN)]
    bench.port.connected = True
    bench.node_up()
    bench.go(0.1)
    bench.pong()
    assert bench.state == State.COMPATIBLE


def test_nodedown_fires_all_sends_nothing_and_forgets_attempts() -> None:
    bench = Bench()
    bench.monitor(1)
    bench.go(0.1)
    bench.proxy_down(m.NOPROC)
    bench.fired()
    bench.node_down()
    assert (bench.state, bench.core.proxy.attempt) == (State.UNAVAILABLE, 0)
    bench.node_up()
    bench.go(0.1)
    bench.pong()
    bench.monitor(2, 3)
    bench.monitor(4, of=target(3))
    bench.go(0.1)
    bench.demonitor(2)
    casts = len(bench.port.casts)
    bench.node_down()
    bench.go(10.0)
    assert bench.fired() == [(3, m.NODEDOWN), (4, m.NODEDOWN)]
    assert len(bench.port.casts) == casts
    assert len(bench.core) == 0


def test_noconnection_of_the_proxy_is_a_disconnect_without_penalty() -> None:
    bench = Bench(compatible=True)
    bench.monitor(1)
    bench.proxy_down(m.NOCONNECTION)
    assert (bench.state, bench.core.proxy.attempt) == (State.UNAVAILABLE, 0)
    bench.node_down()
    assert bench.fired() == [(1, m.NODEDOWN)]


def test_nodeup_after_a_sweep_has_seen_the_connection_asks_no_second_time() -> None:
    bench = Bench()
    bench.monitor(1)
    bench.go(0.1)
    bench.core.node_up(bench.port.number)
    bench.go(1.0)
    assert len(bench.port.pings) == 1
    bench.pong()
    assert bench.state == State.COMPATIBLE


def test_one_subscription_for_many_references() -> None:
    bench = Bench(compatible=True)
    for number in (1, 2, 3):
        bench.monitor(number, of=target(9))
    bench.go(0.1)
    assert bench.port.casts == [[(m.SUBSCRIBE, target(9))]]
    bench.demonitor(2, 1)
    bench.go(0.2)
    assert len(bench.port.casts) == 1
    bench.demonitor(3)
    bench.go(0.2)
    assert bench.port.casts[1:] == [[(m.UNSUBSCRIBE, target(9))]]
    assert len(bench.core) == 0


def test_instructions_keep_their_order_and_are_chunked() -> None:
    bench = Bench(Settings(connector_chunk_size=3), compatible=True)
    bench.monitor(1, 2, 3)
    bench.demonitor(2)
    bench.monitor(4, 5)
    bench.demonitor(1)
    bench.monitor(6, 7)
    bench.monitor(2)
    bench.go(1.0)
    letters = {m.SUBSCRIBE: "s", m.UNSUBSCRIBE: "u"}
    shown = [[f"{letters[op]}{t.id}" for op, t in cast if isinstance(t, Pid)] for cast in bench.port.casts]
    assert shown == [["s1", "s2", "s3"], ["u2", "s4", "s5"], ["u1", "s6", "s7"], ["s2"]]


def test_12000_monitors_cross_as_the_originals_do() -> None:
    bench = Bench(compatible=True)
    bench.go(1.0)
    bench.monitor(*range(12_000))
    start, sizes = bench.now, []
    while bench.core.waiting_instructions:
        due = bench.core.next_due(bench.now)
        assert due is not None
        bench.now = due
        bench.core.sweep(due)
        sizes.append((round(bench.now - start, 2), len(bench.port.casts[-1])))
    assert sizes == [(0.01, 5000), (0.11, 5000), (0.21, 2000)]


def test_a_busy_connection_delays_the_cast() -> None:
    bench = Bench(compatible=True)
    bench.port.busy = True
    bench.monitor(1)
    bench.go(0.5)
    assert bench.port.casts == []
    bench.port.busy = False
    bench.go(0.1)
    assert len(bench.port.casts) == 1


def test_a_summary_fires_every_reference_of_a_target_once() -> None:
    bench = Bench(compatible=True)
    bench.monitor(1)
    bench.monitor(2, of=target(1))
    bench.monitor(3)
    bench.dead((target(1), DIED), (target(1), DIED), (target(77), DIED))
    assert bench.fired() == [(1, DIED), (2, DIED)]
    bench.dead((target(1), DIED))
    assert bench.fired() == []


def test_a_name_and_its_second_life() -> None:
    name = (Atom("worker"), THERE)
    bench = Bench(compatible=True)
    bench.monitor(1, of=name)
    bench.dead((name, DIED))
    bench.monitor(2, of=name)
    bench.go(0.5)
    assert bench.port.casts == [[(m.SUBSCRIBE, name), (m.SUBSCRIBE, name)]]
    bench.dead((name, m.NOPROC))
    assert bench.fired() == [(1, DIED), (2, m.NOPROC)]


def test_a_summary_of_another_node_is_ignored() -> None:
    bench = Bench(compatible=True)
    bench.monitor(1)
    with capture_logs() as logs:
        bench.dead((target(1), DIED), node=HERE)
    assert bench.fired() == []
    assert len(logs) == 1


@pytest.mark.parametrize(
    "message",
    [
        Atom("hello"),
        (m.DEAD, THERE, 5),
        (m.DEAD, THERE, [(target(1), DIED, 3), 5, (5, DIED), ([], DIED)]),
        (ref(5), m.PONG, 1),
    ],
)
def test_nonsense_costs_nobody_a_down(message: Term) -> None:
    bench = Bench(compatible=True)
    bench.monitor(1)
    with capture_logs() as logs:
        bench.core.message(message, bench.now)
    assert logs
    bench.dead((target(1), DIED))
    assert bench.fired() == [(1, DIED)]


def test_an_unknown_reply_is_nothing() -> None:
    bench = Bench()
    bench.monitor(1)
    bench.go(0.1)
    bench.core.message((ref(4711), m.PONG), bench.now)
    assert bench.state == State.PINGING


def test_a_long_summary_goes_in_slices_and_a_nodedown_behind_it_waits() -> None:
    bench = Bench(compatible=True)
    numbers = list(range(1, 5_001))
    bench.monitor(*numbers, 30_000)
    bench.dead(*[(target(number), DIED) for number in numbers])
    bench.node_down()
    bench.node_up()
    bench.monitor(40_000, of=target(4_999))  # of the next life
    assert bench.fan_out() == 5_000 // (SLICE - 1)
    assert bench.fired() == [(number, DIED) for number in numbers] + [(30_000, m.NODEDOWN)]
    assert len(bench.core) == 1


def test_a_demonitor_of_a_lost_target_leaves_the_new_monitor_alone() -> None:
    bench = Bench(compatible=True)
    bench.monitor(1)
    bench.node_down()
    bench.node_up()
    bench.monitor(2, of=target(1))
    bench.demonitor(1)
    assert bench.fired() == []
    assert len(bench.core) == 1


def test_a_new_process_subscribes_anew_and_fires_names() -> None:
    bench = Bench(compatible=True)
    bench.monitor(1, 2)
    bench.monitor(3, of=NAME)
    bench.go(0.1)
    bench.core.restarted()
    assert bench.core.waiting_instructions == 2
    bench.go(0.1)
    bench.pong()
    assert bench.port.casts[1:] == [[(m.SUBSCRIBE, target(1)), (m.SUBSCRIBE, target(2))]]
    assert bench.fired() == [(3, m.NODEDOWN)]


# -- going


def test_it_goes_when_nothing_was_monitored_for_a_while() -> None:
    bench = Bench(Settings(hibernation_threshold=10), compatible=True)
    bench.monitor(1)
    bench.go(5.0)
    bench.demonitor(1)
    bench.go(0.9)
    bench.monitor(2)
    bench.go(5.0)
    bench.dead((target(2), DIED))
    bench.go(0.9)
    assert not bench.port.left
    bench.go(0.2)
    assert bench.port.left


def test_it_stays_while_it_waits_for_an_answer_or_a_penalty() -> None:
    bench = Bench(Settings(hibernation_threshold=1))
    bench.core.check()
    bench.go(4.9)
    assert (bench.state, bench.port.left) == (State.PINGING, False)
    bench.go(0.2)
    assert (bench.state, bench.port.left) == (State.INCOMPATIBLE, False)
    bench.go(1.8)
    assert not bench.port.left
    bench.go(0.2)
    assert (bench.port.left, len(bench.port.pings)) == (True, 1)


def test_it_goes_from_a_node_that_is_gone() -> None:
    bench = Bench(Settings(hibernation_threshold=10), compatible=True)
    bench.monitor(1)
    bench.node_down()
    bench.go(1.1)
    assert bench.port.left


# -- after an exception


class Broken(Exception):
    pass


def test_what_an_exception_has_lost_is_subscribed_to_anew() -> None:
    bench = Bench(compatible=True)
    bench.monitor(1, 2, 3)
    bench.monitor(4, of=target(3))
    bench.monitor(5, of=NAME)
    bench.go(0.1)
    bench.dead((target(1), DIED))
    bench.demonitor(2)
    bench.go(0.2)
    rows = [(ref(3), target(3)), (ref(4), target(3)), (ref(5), NAME), (ref(6), target(6))]
    bench.tables.add(ref(6), ME, target(6))
    bench.core.mend(rows, bench.now)
    assert bench.state is State.UNKNOWN
    bench.go(0.1)
    bench.pong()
    assert bench.port.casts[-1] == [(m.SUBSCRIBE, t) for t in (target(3), NAME, target(6))]
    bench.dead((target(3), DIED), (NAME, DIED))
    assert bench.fired() == [(1, DIED), (3, DIED), (4, DIED), (5, DIED)]


def test_what_is_monitored_no_more_is_unsubscribed_from() -> None:
    bench = Bench(compatible=True)
    bench.monitor(1)
    bench.go(0.1)
    bench.monitor(2)
    bench.core.mend([], bench.now)
    bench.go(0.1)
    bench.pong()
    assert sorted(bench.port.casts[-1], key=str) == [(m.UNSUBSCRIBE, target(1)), (m.UNSUBSCRIBE, target(2))]
    assert len(bench.core) == 0


def test_what_could_not_be_cast_is_withdrawn_all_the_same() -> None:
    class Unable(FakeConnectorPort):
        def cast(self, instructions: list[m.Instruction]) -> None:
            raise Broken

    bench = Bench(compatible=True)
    able = bench.port
    bench.monitor(1)
    bench.go(0.1)
    bench.core.port = Unable()
    bench.core.demonitor(target(1), ref(1))
    with pytest.raises(Broken):
        bench.go(0.1)
    bench.core.port = able
    bench.core.mend([], bench.now)
    bench.go(0.1)
    bench.pong()
    assert able.casts[-1] == [(m.UNSUBSCRIBE, target(1))]


def test_a_summary_that_is_being_fanned_out_goes_on_after_an_exception() -> None:
    bench = Bench(compatible=True)
    numbers = list(range(1, 5_001))
    bench.monitor(*numbers)
    bench.dead(*[(target(number), DIED) for number in numbers])
    rows = [(ref(number), target(number)) for number in numbers[SLICE - 1 :]]  # the others have been fanned out
    bench.core.mend(rows, bench.now)
    bench.fan_out()
    assert sorted(bench.fired()) == [(number, DIED) for number in numbers]


def test_who_cannot_even_be_asked_is_incompatible() -> None:
    class Unable(FakeConnectorPort):
        def ping(self) -> Reference:
            raise Broken

    bench = Bench()
    bench.core.port = Unable()
    bench.monitor(1)
    with pytest.raises(Broken):
        bench.go(0.1)
    bench.core.mend([(ref(1), target(1))], bench.now)
    assert (bench.state, bench.core.proxy.attempt) == (State.INCOMPATIBLE, 1)
    assert bench.fired() == [(1, m.NODEDOWN)]


def test_a_penalty_outlasts_an_exception() -> None:
    bench = Bench()
    bench.monitor(1)
    bench.go(0.1)
    bench.proxy_down(m.NOPROC)
    bench.core.mend([], bench.now)
    assert (bench.state, bench.core.proxy.attempt) == (State.INCOMPATIBLE, 1)


def test_settings_change_while_running() -> None:
    bench = Bench(compatible=True)
    bench.core.configure(Settings(connector_chunk_size=2, connector_sweep_interval=1000))
    bench.monitor(1, 2, 3)
    bench.go(0.5)
    assert [len(cast) for cast in bench.port.casts] == [2] or bench.port.casts == []
    bench.go(2.0)
    assert [len(cast) for cast in bench.port.casts] == [2, 1]
