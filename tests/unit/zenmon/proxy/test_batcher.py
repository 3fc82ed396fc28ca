"""A Batcher: oldest first, so many at a time, one summary an interval."""

from __future__ import annotations

from tests.unit.zenmon.ports import THERE, pid
from zenmon_node.proxy.batcher import BatcherCore


def batcher(count: int) -> BatcherCore:
    core = BatcherCore(pid(1, THERE), interval=0.1, chunk_size=3)
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
