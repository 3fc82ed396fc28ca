"""What ``monitor`` knows: counts, rates and states, by a clock that is passed in."""

from __future__ import annotations

import pytest

from erlang_interop import Atom
from zenmon_node import Cached, CachedCompatibility, Remote
from zenmon_node.cli.watching import KEPT, SLOT, WINDOW, Rate, Row, Via, Watching

COMPATIBLE = CachedCompatibility(Cached.COMPATIBLE)


def test_a_rate_is_taken_over_the_last_seconds() -> None:
    rate = Rate(100.0)
    for number in range(60):
        rate.add(100.0 + number / 10)
    assert rate.per_second(106.0) == pytest.approx(10.0, abs=1.0)
    assert rate.per_second(106.0 + WINDOW / 2) == pytest.approx(5.0, abs=1.0)
    assert rate.per_second(106.0 + 2 * WINDOW) == 0


def test_a_young_rate_is_taken_over_the_time_there_was() -> None:
    rate = Rate(100.0)
    assert rate.per_second(100.0) == 0
    for _ in range(500):
        rate.add(100.1)
    assert rate.per_second(100.2) == 500  # over less than a second nothing can be said
    assert rate.per_second(102.0) == 250


def test_a_rate_keeps_no_more_than_its_window() -> None:
    rate = Rate(0.0)
    for number in range(100_000):
        rate.add(number / 100)
    assert len(rate._slots) <= WINDOW / SLOT + 2


def row(via: Via = Via.ZENMON, targets: int = 2) -> Row:
    return Row("beam@127.0.0.1", via, targets, 0.0)


def test_states_of_a_node_with_zen_monitor() -> None:
    node = row()
    assert node.state == "compatible"
    assert not node.found(COMPATIBLE)
    assert node.found(CachedCompatibility(Cached.INCOMPATIBLE, 1))
    assert node.state == "recovering"
    assert node.found(COMPATIBLE)
    assert node.state == "compatible"
    assert node.found(CachedCompatibility(Cached.INCOMPATIBLE, 2))
    assert node.state == "incompatible"
    node.down(1.0)
    node.down(1.0)
    assert (node.gone, node.alive, node.state) == (2, 0, "done")


@pytest.mark.parametrize("via", list(Via))
def test_a_node_that_is_lost_stays_so(via: Via) -> None:
    node = row(via)
    node.lost()
    assert node.state == "nodedown"
    assert not node.found(CachedCompatibility(Cached.UNAVAILABLE))
    assert node.alive == 2  # until their DOWNs come
    node.down(1.0)
    node.down(1.0)
    assert (node.alive, node.state) == (0, "nodedown")


def test_states_of_a_native_node() -> None:
    node = row(Via.NATIVE, targets=1)
    assert not node.found(CachedCompatibility(Cached.EXPIRED, 1))  # what its ZenMonitor does is nothing to it
    assert node.state == "connected"
    node.down(1.0)
    assert node.state == "done"


def test_sums_and_summary() -> None:
    watching = Watching(10.0)
    watching.add("a@h", Via.ZENMON, 3000)
    watching.add("b@h", Via.NATIVE, 500)
    for _ in range(1200):
        watching.rows["a@h"].down(11.0)
    watching.rows["b@h"].down(11.0)
    assert (watching.targets, watching.gone) == (3500, 1201)
    assert watching.rows["a@h"].rate(11.0) == 1200
    assert watching.summary(22.34) == "1,201 of 3,500 gone after 12.3 s, 2,299 left"


def remote(node: str, batches: int, summaries: int) -> Remote:
    return Remote(Atom(node), COMPATIBLE, 1, 0, batches, 10, summaries, 5)


def test_batches_are_those_of_the_remotes_and_stay_when_one_goes() -> None:
    watching = Watching(0.0)
    watching.add("a@h", Via.ZENMON, 1)
    watching.add("b@h", Via.ZENMON, 1)
    watching.update([remote("a@h", 2, 1), remote("stranger@h", 9, 9)])
    watching.update([remote("b@h", 4, 3)])
    assert [(each.batches_sent, each.batches_received) for each in watching.rows.values()] == [(2, 1), (4, 3)]
    assert list(watching.rows) == ["a@h", "b@h"]


def test_only_the_last_lines_are_kept() -> None:
    watching = Watching(0.0)
    for number in range(1000):
        watching.last.append(str(number))
    assert list(watching.last) == [str(number) for number in range(1000 - KEPT, 1000)]
