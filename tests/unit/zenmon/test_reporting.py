"""What the service says in its log while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from structlog.testing import capture_logs

from erlang_interop import Atom
from tests.unit.zenmon.test_app import nothing_left
from zenmon_node import Cached, CachedCompatibility, Settings
from zenmon_node.reporting import CompatibilityReport, backlog, report_queues

if TYPE_CHECKING:
    from tests.unit.zenmon.conftest import Pair

THERE = Atom("there@host")


@pytest.mark.parametrize(
    ("status", "level"), [(Cached.COMPATIBLE, "info"), (Cached.UNAVAILABLE, "info"), (Cached.INCOMPATIBLE, "warning")]
)
def test_compatibility(status: Cached, level: str) -> None:
    with capture_logs() as logs:
        CompatibilityReport()(THERE, CachedCompatibility(status))
    assert logs == [{"event": "compatibility", "log_level": level, "node": "there@host", "status": status.value}]


def test_compatibility_that_is_no_news() -> None:
    report = CompatibilityReport()
    with capture_logs() as logs:
        for known in (
            CachedCompatibility(Cached.INCOMPATIBLE, 1),
            CachedCompatibility(Cached.EXPIRED, 1),
            CachedCompatibility(Cached.INCOMPATIBLE, 2),
            CachedCompatibility(Cached.MISS),
            CachedCompatibility(Cached.COMPATIBLE),
            CachedCompatibility(Cached.MISS),
            CachedCompatibility(Cached.COMPATIBLE),
            CachedCompatibility(Cached.UNAVAILABLE),
            CachedCompatibility(Cached.COMPATIBLE),
        ):
            report(THERE, known)
    assert [log["status"] for log in logs] == ["incompatible", "compatible", "unavailable", "compatible"]


async def test_what_a_sweep_may_take_is_no_backlog(pair: Pair) -> None:
    pair.zen.configure(demand_amount=10, demand_interval=3_600_000)
    async with pair.here.open_process() as me:
        for number in range(21):
            pair.zen.monitor((f"worker{number}", pair.there.name), subscriber=me)  # not connected: all fire
        for _ in range(10):
            await me.receive(timeout=10)
        assert backlog(pair.zen) == {"downs": 11}
        pair.zen.configure(demand_amount=11)
        assert backlog(pair.zen) == {}


async def test_a_backlog_is_told_until_it_is_gone(pair: Pair) -> None:
    pair.zen.configure(connector_chunk_size=1, connector_sweep_interval=3_600_000)
    await pair.zen.connect(pair.there.name)
    async with pair.here.open_process() as me, trio.open_nursery() as nursery:
        for number in range(5):
            pair.zen.monitor((f"worker{number}", pair.there.name), subscriber=me)
        with capture_logs() as logs:
            nursery.start_soon(report_queues, pair.zen, 0.01)
            await said(logs, 2)
            assert logs[0]["event"] == logs[1]["event"] == "waiting"
            assert logs[0]["instructions"] in (4, 5)
            pair.zen.configure(**{name: getattr(Settings(), name) for name in ("connector_chunk_size",)})
            await said(logs, 1, "nothing waits any more")
            nursery.cancel_scope.cancel()
    pair.zen.configure(connector_sweep_interval=100)
    await nothing_left(pair.zen)


async def said(logs: list[Any], count: int, event: str | None = None) -> None:
    with trio.fail_after(30):
        while sum(event is None or log["event"] == event for log in logs) < count:  # noqa: ASYNC110 - nothing tells
            await trio.sleep(0.005)
