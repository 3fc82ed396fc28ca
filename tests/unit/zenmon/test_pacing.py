"""A pacer: never two sweeps in one interval, and no waiting for a tick."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from zenmon_node.pacing import Pacer


def test_an_idle_server_gathers_a_tenth_of_the_interval() -> None:
    pacer = Pacer(1.0)
    assert pacer.due(50.0) == 50.1
    assert pacer.due(50.05) == 50.1  # counted from the first work
    assert not pacer.is_due(50.05)
    assert pacer.is_due(50.1)


def test_work_soon_after_a_sweep_waits_for_the_interval() -> None:
    pacer = Pacer(1.0)
    pacer.swept(10.0, more=False)
    assert pacer.due(10.2) == 11.0


def test_work_left_over_goes_after_one_interval() -> None:
    pacer = Pacer(1.0)
    pacer.swept(10.0, more=True)
    assert pacer.due(10.0) == 11.0


def test_hurry() -> None:
    pacer = Pacer(1.0)
    pacer.swept(10.0, more=True)
    pacer.hurry()
    assert pacer.is_due(10.0)


def test_the_interval_may_change() -> None:
    pacer = Pacer(1.0)
    pacer.swept(10.0, more=True)
    pacer.interval = 0.5
    assert pacer.due(10.0) == 10.5


@given(st.lists(st.floats(min_value=0, max_value=3), max_size=50), st.booleans())
def test_never_two_sweeps_in_one_interval(gaps: list[float], more: bool) -> None:
    pacer, now, sweeps = Pacer(1.0), 0.0, []
    for gap in gaps:
        now += gap
        if pacer.is_due(now):
            sweeps.append(now)
            pacer.swept(now, more=more)
    assert all(later - earlier >= 1.0 - 1e-5 for earlier, later in pairwise(sweeps))
