"""When the reader of a connection lets more come in."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from erlang_interop.runtime.gathering import FLOOD, Gathering


def reads(gathering: Gathering, per_read: int, per_second: float, number: int, sent: int = 0) -> Iterator[bool]:
    now = 100.0
    for _ in range(number):
        now += per_read / per_second
        yield gathering.is_flood(per_read, sent, partial(float, now))


@pytest.mark.parametrize("per_read", [1, 2, 50, 1000])
def test_very_many_signals_a_second(per_read: int) -> None:
    number = 10_000 // per_read
    assert any(reads(Gathering(), per_read, 1.1 * FLOOD, number))
    assert not any(reads(Gathering(), per_read, 0.9 * FLOOD, number))


def test_few_large_ones_are_no_flood() -> None:
    assert not any(reads(Gathering(), 1, 1000, 10_000))


def test_who_answers_is_not_kept_waiting() -> None:
    gathering = Gathering()
    answered = 0
    for now in range(1000):
        answered += 64
        assert not gathering.is_flood(64, answered, partial(float, now / 1e4))


def test_it_goes_on_as_long_as_the_flood_does() -> None:
    found = list(reads(Gathering(), 500, 500_000, 10))
    assert found == [False] + 9 * [True]
