"""A Batcher: oldest first, so many at a time, one summary an interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from erlang_interop.terms import Atom, Fun, ImproperList
from tests.unit.zenmon.ports import THERE, pid
from zenmon_node.proxy.batcher import PLAIN_WEIGHT, SUMMARY_WEIGHT, BatcherCore, weigh
from zenmon_node.truncator import TRUNCATED

if TYPE_CHECKING:
    from erlang_interop.terms import Term

SHUTDOWN = Atom("shutdown")


def batcher(count: int, chunk_size: int = 3) -> BatcherCore:
    core = BatcherCore(pid(1, THERE), interval=0.1, chunk_size=chunk_size)
    core.pacer.due(0.0)
    for number in range(count):
        core.enqueue(pid(number), number)
    return core


def test_chunks_oldest_first_one_interval_apart() -> None:
    core = batcher(7)
    assert core.sweep(0.1) == [(pid(0), 0), (pid(1), 1), (pid(2), 2)]
    assert core.sweep(0.15) == []
    assert core.pacer.due(0.15) == 0.2
    assert core.sweep(0.2) == [(pid(3), 3), (pid(4), 4), (pid(5), 5)]
    assert core.sweep(0.3) == [(pid(6), 6)]
    assert len(core) == 0


def test_an_empty_batch_is_none() -> None:
    assert batcher(0).sweep(10.0) == []


def test_chunk_size_may_change() -> None:
    core = batcher(7)
    core.chunk_size = 100
    assert len(core.sweep(1.0)) == 7


def sizes_of_summaries(core: BatcherCore) -> list[int]:
    """How many certificates are in each summary, until none waits."""
    now, sizes = 0.0, []
    while len(core):
        now += 1.0
        sizes.append(len(core.sweep(now)))
    return sizes


def test_a_summary_is_closed_when_it_is_heavy_and_nothing_is_lost() -> None:
    core = batcher(0, 5000)
    reason = (SHUTDOWN, b"x" * (SUMMARY_WEIGHT // 4))
    for number in range(10):
        core.enqueue(pid(number), reason)
    told, now = [], 0.0
    while len(core):
        now += 1.0
        summary = core.sweep(now)
        assert core.weight <= SUMMARY_WEIGHT
        told.append([target for target, _ in summary])
    assert told == [[pid(n) for n in chunk] for chunk in ((0, 1, 2), (3, 4, 5), (6, 7, 8), (9,))]


def test_what_is_too_heavy_for_any_summary_goes_alone() -> None:
    core = batcher(0, 5000)
    for number in range(7):
        core.enqueue(pid(number), (SHUTDOWN, b"x" * 10_000_000) if number in (2, 3) else Atom("normal"))
    assert sizes_of_summaries(core) == [2, 1, 1, 3]


def test_five_thousand_usual_certificates_are_one_summary() -> None:
    core = batcher(0, 5000)
    for number in range(5000):
        core.enqueue(
            (Atom("a_name"), Atom("beam@host.example.org")), (Atom("error"), (Atom("badarg"), [number, b"text"]))
        )
    assert sizes_of_summaries(core) == [5000]


@pytest.mark.parametrize(
    ("term", "least"),
    [
        ((SHUTDOWN, b"x" * 100_000), 100_000),
        ("x" * 100_000, 100_000),
        (2**800_000, 100_000),
        ({b"x" * 100_000: 1}, 100_000),
        ([[1, 2.0, None, True]] * 1000, 4000),
        (ImproperList([1], 2), SUMMARY_WEIGHT),
        (Fun(Atom("m"), 0, bytes(16), 0, 0, 0, pid(1), ()), SUMMARY_WEIGHT),
        (object(), SUMMARY_WEIGHT),
    ],
    ids=["binary", "str", "integer", "map", "lists", "improper", "fun", "object"],
)
def test_weights_are_not_below_the_size(term: Term, least: int) -> None:
    assert weigh(term, SUMMARY_WEIGHT) >= least


def test_weighing_ends_early_and_goes_to_any_depth() -> None:
    endless: list[Term] = []
    endless.append(endless)
    assert weigh(endless, 10_000) > 10_000
    assert 10_000 < weigh([b"x" * 6000] * 1_000_000, 10_000) < 20_000
    assert weigh((pid(1), Atom("normal")), 10_000) == PLAIN_WEIGHT


def test_what_is_put_back_goes_first_and_is_plain() -> None:
    core = batcher(5)
    core.put_back(core.sweep(0.1))
    assert core.sweep(0.2) == [(pid(number), TRUNCATED) for number in range(3)]
    assert core.sweep(0.3) == [(pid(3), 3), (pid(4), 4)]
