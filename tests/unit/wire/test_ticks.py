"""``wire/ticks.py``, against the rules of ``send_tick/2`` in ``dist_util.erl``."""

from __future__ import annotations

import math

import pytest

from erlang_interop.wire.ticks import TICK_SIZE, Ticker, TickVerdict

NOTHING, SEND, TIMEOUT = TickVerdict.NOTHING, TickVerdict.SEND_TICK, TickVerdict.TIMEOUT


def test_a_look_each_quarter_of_the_tick_time() -> None:
    ticker = Ticker(60.0, now=100.0)
    assert ticker.interval == 15.0
    assert ticker.next_deadline() == 115.0
    assert ticker.advance(114.9, 0, 0) is NOTHING
    assert ticker.next_deadline() == 115.0
    assert ticker.advance(115.0, 0, 0) is SEND
    assert ticker.next_deadline() == 130.0


def test_without_a_start_the_first_call_starts_the_clock() -> None:
    ticker = Ticker(8.0)
    assert ticker.next_deadline() == -math.inf
    assert ticker.advance(1000.0, 0, 0) is NOTHING
    assert ticker.next_deadline() == 1002.0


def test_a_tick_only_when_nothing_else_was_sent() -> None:
    ticker = Ticker(4.0, now=0.0)
    assert ticker.advance(1.0, 1, 500) is NOTHING
    assert ticker.advance(2.0, 2, 500) is SEND
    # the tick itself went out and is nothing else
    assert ticker.advance(3.0, 3, 500 + TICK_SIZE) is SEND
    assert ticker.advance(4.0, 4, 600) is NOTHING
    assert ticker.advance(5.0, 5, 600) is SEND


def test_a_tick_that_waits_behind_a_full_socket_does_not_count_as_sent() -> None:
    ticker = Ticker(4.0, now=0.0)
    assert [ticker.advance(float(i), i, 500) for i in (1, 2, 3)] == [NOTHING, SEND, SEND]


@pytest.mark.parametrize("intensity", [4, 10])
def test_timeout_after_as_many_silent_looks_as_the_intensity(intensity: int) -> None:
    ticker = Ticker(float(intensity), intensity, now=0.0)
    verdicts = [ticker.advance(float(i), 77, 10 * i) for i in range(1, intensity + 2)]
    # the first look sees the handshake's bytes; each of the next sees nothing
    assert verdicts == [NOTHING] * intensity + [TIMEOUT]


def test_one_byte_in_time_keeps_the_connection() -> None:
    ticker = Ticker(4.0, now=0.0)
    received = 0
    for i in range(1, 100):
        received += i % 4 == 0  # three silent looks, then a byte
        assert ticker.advance(float(i), received, i) is NOTHING


def test_late_looks_are_one_look() -> None:
    ticker = Ticker(4.0, now=0.0)
    ticker.advance(1.0, 1, 0)
    assert ticker.advance(500.0, 1, 0) is not TIMEOUT
    assert ticker.next_deadline() == 501.0
    assert ticker.advance(500.1, 1, 0) is NOTHING


@pytest.mark.parametrize(("net_ticktime", "intensity"), [(0, 4), (-1, 4), (60, 3), (60, 1001)])
def test_nonsense_is_refused(net_ticktime: float, intensity: int) -> None:
    with pytest.raises(ValueError, match="tick"):
        Ticker(net_ticktime, intensity)
