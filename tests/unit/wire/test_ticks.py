"""``wire/ticks.py``, against the rules of ``dist_util.erl`` and ``net_kernel.erl``."""

from __future__ import annotations

import math

import pytest

from erlang_interop.wire.ticks import Ticker, TickSchedule, TickVerdict

NOTHING, SEND, TIMEOUT = TickVerdict.NOTHING, TickVerdict.SEND_TICK, TickVerdict.TIMEOUT
LOOK, AUX = (True, False), (False, True)


class Connection:
    """A ticker, and the counters that it looks at; an ordered tick is counted as sent."""

    def __init__(self, *, hidden: bool = False, intensity: int = 4) -> None:
        self.ticker = Ticker(hidden=hidden)
        self.intensity = intensity
        self.received = self.sent = self.pending = 0

    def look(self, received: int = 0, sent: int = 0) -> TickVerdict:
        self.received += received
        self.sent += sent
        verdict = self.ticker.look(self.intensity, self.received, self.sent, self.pending)
        self.sent += verdict is SEND
        return verdict

    def aux(self) -> TickVerdict:
        verdict = self.ticker.aux_tick(self.pending)
        self.sent += verdict is SEND
        return verdict


# -- one connection


def test_a_tick_only_when_nothing_was_sent_since_the_last_look() -> None:
    at = Connection()
    assert [at.look(received=1) for _ in range(3)] == [SEND] * 3
    assert at.look(received=1, sent=1) is NOTHING
    assert at.look(received=1) is SEND


def test_no_tick_behind_a_full_socket() -> None:
    at = Connection()
    at.pending = 100_000
    assert at.look(received=1, sent=5) is NOTHING
    assert [at.look(received=1) for _ in range(5)] == [NOTHING] * 5
    at.pending = 0
    assert at.look(received=1) is SEND


def test_a_silent_hidden_peer_is_ticked_whatever_was_sent() -> None:
    # A C node says something only when it is ticked.
    at = Connection(hidden=True)
    assert at.look(received=1, sent=1) is NOTHING
    assert at.look(sent=1) is SEND
    at.pending = 100_000
    assert at.look(sent=1) is SEND
    assert at.look(received=1) is NOTHING


@pytest.mark.parametrize("intensity", [4, 10, 1000])
@pytest.mark.parametrize("hidden", [False, True])
def test_timeout_after_as_many_silent_looks_as_the_intensity(intensity: int, hidden: bool) -> None:
    at = Connection(intensity=intensity, hidden=hidden)
    # the first look sees the handshake's bytes, as it were; each of the next sees nothing
    assert TIMEOUT not in [at.look() for _ in range(intensity)]
    assert at.look() is TIMEOUT


def test_what_we_send_is_no_sign_of_the_peer_s_life() -> None:
    at = Connection()
    assert [at.look(sent=10) for _ in range(5)] == [NOTHING] * 4 + [TIMEOUT]


def test_one_byte_in_time_keeps_the_connection() -> None:
    at = Connection()
    for i in range(1, 100):  # three silent looks, then a byte
        assert at.look(received=i % 4 == 0) is not TIMEOUT


def test_a_byte_too_late() -> None:
    at = Connection()
    assert at.look(received=1) is SEND
    assert [at.look() for _ in range(3)] == [SEND] * 3
    assert at.look(received=1) is SEND  # in time: at the fourth
    assert [at.look() for _ in range(3)] == [SEND] * 3
    assert at.look() is TIMEOUT


def test_the_auxiliary_ticker_ticks_whatever_was_sent() -> None:
    at = Connection()
    assert at.look(received=1) is SEND
    assert at.aux() is SEND
    at.sent += 10
    assert at.aux() is SEND
    assert at.look(received=1) is NOTHING  # its ticks count as sent
    at.pending = 1
    assert at.aux() is NOTHING
    hidden = Connection(hidden=True)
    hidden.pending = 1
    assert hidden.aux() is SEND


# -- the clock


def due(schedule: TickSchedule, until: float) -> list[tuple[float, tuple[bool, bool]]]:
    """What is due, and when, up to ``until``; the clock is read exactly at each deadline."""
    found = []
    while (now := schedule.next_deadline()) <= until:
        found.append((round(now, 6), schedule.advance(now)))
    return found


@pytest.mark.parametrize(("net_ticktime", "intensity", "interval"), [(60.0, 4, 15.0), (1, 4, 0.25), (60.0, 1000, 0.06)])
def test_as_many_looks_in_the_tick_time_as_the_intensity(net_ticktime: float, intensity: int, interval: float) -> None:
    schedule = TickSchedule(net_ticktime, intensity)
    assert schedule.net_ticktime == net_ticktime
    assert schedule.interval == interval
    schedule.start(100.0)
    assert schedule.advance(100.0 + interval * 0.99) == (False, False)
    assert due(schedule, 100.0 + net_ticktime * 1.0001) == [
        (round(100.0 + interval * i, 6), LOOK) for i in range(1, intensity + 1)
    ]


@pytest.mark.parametrize(
    ("net_ticktime", "intensity", "becomes"), [(0.5, 7, 0.504), (0.001, 4, 0.004), (1e-9, 4, 0.004), (1, 24, 1.008)]
)
def test_the_time_is_rounded_up_to_whole_milliseconds_between_looks(
    net_ticktime: float, intensity: int, becomes: float
) -> None:
    assert TickSchedule(net_ticktime, intensity).net_ticktime == becomes


def test_a_clock_that_was_not_started_has_no_deadline() -> None:
    assert TickSchedule(60.0).next_deadline() == math.inf


def test_late_looks_are_one_look() -> None:
    schedule = TickSchedule(4.0)
    schedule.start(0.0)
    assert schedule.advance(1.3) == LOOK
    assert schedule.next_deadline() == 2.0  # a little late does not move the others
    assert schedule.advance(500.5) == LOOK
    assert schedule.next_deadline() == 501.5
    assert schedule.advance(500.6) == (False, False)


def test_a_longer_time_counts_at_once_and_is_ticked_for_at_the_old_pace() -> None:
    schedule = TickSchedule(4.0)
    schedule.start(0.0)
    assert due(schedule, 1.5) == [(1.0, LOOK)]
    assert schedule.change(12.0, 5.0, 1.5) is True
    assert (schedule.changing, schedule.net_ticktime, schedule.interval) == (True, 12.0, 3.0)
    assert due(schedule, 6.4) == [(1.5, AUX), (2.5, AUX), (3.5, AUX), (4.5, (True, True)), (5.5, AUX)]
    assert schedule.changing
    assert due(schedule, 14.0) == [(6.5, AUX), (7.5, LOOK), (10.5, LOOK), (13.5, LOOK)]
    assert (schedule.changing, schedule.net_ticktime, schedule.interval) == (False, 12.0, 3.0)


def test_a_shorter_time_is_ticked_for_at_once_and_counts_from_the_end() -> None:
    schedule = TickSchedule(12.0)
    schedule.start(0.0)
    assert schedule.change(4.0, 4.5, 1.0) is True
    assert (schedule.changing, schedule.net_ticktime, schedule.interval) == (True, 4.0, 3.0)
    assert due(schedule, 5.9) == [(1.0, AUX), (2.0, AUX), (3.0, (True, True)), (4.0, AUX), (5.0, AUX)]
    assert due(schedule, 8.0) == [(6.0, AUX), (7.0, LOOK), (8.0, LOOK)]
    assert (schedule.changing, schedule.net_ticktime, schedule.interval) == (False, 4.0, 1.0)


def test_a_transition_lasts_as_long_as_it_should_and_less_than_a_tick_longer() -> None:
    for transition in (0.3, 1.0, 1.1, 2.0):
        schedule = TickSchedule(8.0)
        schedule.start(0.0)
        schedule.change(4.0, transition, 0.0)
        times = [now for now, (_, aux) in due(schedule, 20.0) if aux]
        assert times[0] == 0.0
        assert transition <= times[-1] < transition + 1.0


def test_a_change_without_a_transition_is_one_auxiliary_tick() -> None:
    schedule = TickSchedule(4.0)
    schedule.start(0.0)
    schedule.change(8.0, 0, 0.5)
    assert due(schedule, 3.0) == [(0.5, AUX), (2.5, LOOK)]
    schedule.change(4.0, 0, 3.0)
    assert due(schedule, 5.0) == [(3.0, AUX), (4.0, LOOK), (5.0, LOOK)]


def test_late_auxiliary_ticks_are_one() -> None:
    schedule = TickSchedule(4.0)
    schedule.start(0.0)
    schedule.change(12.0, 2.0, 0.0)
    assert schedule.advance(0.0) == AUX
    assert schedule.advance(50.0) == (True, True)
    assert schedule.next_deadline() == 51.0
    assert schedule.changing
    assert schedule.advance(51.0) == AUX
    assert not schedule.changing


def test_no_change_is_no_transition() -> None:
    schedule = TickSchedule(60.0)
    assert schedule.change(60, 60.0, 0.0) is False
    assert schedule.change(59.9999, 60.0, 0.0) is False  # the same number of milliseconds
    assert not schedule.changing


@pytest.mark.parametrize(
    ("net_ticktime", "intensity"), [(0, 4), (-1, 4), (math.inf, 4), (math.nan, 4), (60, 3), (60, 1001)]
)
def test_nonsense_is_refused(net_ticktime: float, intensity: int) -> None:
    with pytest.raises(ValueError, match="net_tick"):
        TickSchedule(net_ticktime, intensity)


@pytest.mark.parametrize(("net_ticktime", "transition"), [(0, 1), (-1, 1), (math.nan, 1), (2, -1), (2, math.inf)])
def test_a_nonsensical_change_is_refused_and_changes_nothing(net_ticktime: float, transition: float) -> None:
    schedule = TickSchedule(60.0)
    with pytest.raises(ValueError, match=r"net_ticktime|transition"):
        schedule.change(net_ticktime, transition, 0.0)
    assert not schedule.changing
    assert schedule.net_ticktime == 60.0


# -- two nodes that change


@pytest.mark.parametrize(("old", "new"), [(60.0, 8.0), (8.0, 60.0), (2.0, 1.0), (4.0, 400.0)])
@pytest.mark.parametrize("delay", [0.0, 0.4, 0.99])
@pytest.mark.parametrize("hidden", [False, True])
def test_two_nodes_that_change_within_the_transition_keep_an_idle_connection(
    old: float, new: float, delay: float, hidden: bool
) -> None:
    transition = 3 * max(old, new)
    start_of_b = old / 4 * 0.7
    a, b = TickSchedule(old), TickSchedule(old)
    a.start(0.0)
    b.start(start_of_b)
    sides = {a: Connection(hidden=hidden), b: Connection(hidden=hidden)}
    changes = {a: 5 * old, b: 5 * old + delay * transition}
    looks = 0
    while changes or any(schedule.changing for schedule in sides) or looks < 200:
        now, what = min(
            *[(schedule.next_deadline(), schedule) for schedule in sides],
            *[(time, schedule) for schedule, time in changes.items()],
            key=lambda pair: pair[0],
        )
        if changes.get(what) == now:
            del changes[what]
            assert what.change(new, transition, now)
        other = sides[b if what is a else a]
        look, aux = what.advance(now)
        for verdict in (sides[what].aux() if aux else NOTHING, sides[what].look() if look else NOTHING):
            assert verdict is not TIMEOUT, (now, what is a)
            other.received += verdict is SEND
        looks += look
    assert a.net_ticktime == b.net_ticktime == new


def test_a_node_that_does_not_change_is_given_up() -> None:
    ours = TickSchedule(60.0)
    ours.start(0.0)
    at = Connection()
    ours.change(8.0, 10.0, 0.0)
    given_up = None
    for now, (look, _) in due(ours, 100.0):
        at.received += now % 15 < 2  # a tick each 15 s
        if look and at.look() is TIMEOUT:
            given_up = now
            break
    assert given_up is not None
    assert 10 + 8 <= given_up <= 10 + 8 + 15
