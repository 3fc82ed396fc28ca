"""What a statsd receives, on a real socket."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from erlang_interop import HostNotFound
from tests.unit.zenmon.test_app import until
from zenmon_node.metrics import METRICS, StatsdMissing, StatsdReporter, report_to_statsd

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.unit.zenmon.conftest import Pair


@pytest.fixture
async def statsd() -> AsyncIterator[trio.socket.SocketType]:
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
        await sock.bind(("127.0.0.1", 0))
        yield sock


@contextmanager
def reporting(pair: Pair, statsd: trio.socket.SocketType) -> Iterator[StatsdReporter]:
    reporter = StatsdReporter(pair.zen, *statsd.getsockname())
    try:
        yield reporter
    finally:
        reporter.close()


async def received(statsd: trio.socket.SocketType, last: str) -> list[str]:
    """The lines of all datagrams up to the one that holds ``last``."""
    lines: list[str] = []
    with trio.fail_after(30):
        while not any(line.startswith(last) for line in lines):
            lines += (await statsd.recv(65536)).decode().splitlines()
    return lines


def last_gauge() -> str:
    """The name of the gauge that is sent last: every report ends with it."""
    return next(metric.name for metric in reversed(METRICS) if metric.kind == "gauge") + ":"


async def test_gauges_as_they_are_counters_as_they_grow(pair: Pair, statsd: trio.socket.SocketType) -> None:
    await pair.zen.connect(pair.there.name)
    async with pair.here.open_process() as me:
        refs = [pair.zen.monitor(("nobody", "here@127.0.0.1"), subscriber=me) for _ in range(7)]
        pair.zen.demonitor(refs[0])
        with reporting(pair, statsd) as reporter:
            reporter.report()
            first = await received(statsd, last_gauge())
            pair.zen.demonitor(refs[1])
            reporter.report()
            second = await received(statsd, last_gauge())
    assert "zen_monitor.local.monitor:7|c" in first
    assert "zen_monitor.local.demonitor:1|c" in first
    assert "zen_monitor.local.connector.enqueue:1|c|#op:subscribe" in first
    assert "zen_monitor.local.ets.references.size:6|g" in first
    assert "zenmon_node.connections:1|g|#type:hidden" in first
    assert "zen_monitor.local.demonitor:1|c" in second
    assert "zen_monitor.local.ets.references.size:5|g" in second
    assert [line for line in second if line.startswith("zen_monitor.local.monitor:")] == []
    assert [line for line in second if line.startswith("zen_monitor.local.connector.enqueue:")] == []
    gauges = {metric.name for metric in METRICS if metric.kind == "gauge"}
    for lines in (first, second):
        assert {line.partition(":")[0] for line in lines if "|g" in line} == gauges


async def test_the_counters_of_a_new_connection_begin_anew(pair: Pair, statsd: trio.socket.SocketType) -> None:
    def sent_bytes(lines: list[str]) -> int:
        (line,) = [line for line in lines if line.startswith("zenmon_node.connection.sent_bytes:")]
        return int(line.partition(":")[2].partition("|")[0])

    async def send(size: int) -> None:
        pair.here.cast(("nobody", "there@127.0.0.1"), b"x" * size)
        await until(lambda: sum(connection.bytes_out for connection in pair.here.connections) > size)

    await pair.here.connect(pair.there.name)
    await send(10_000)
    with reporting(pair, statsd) as reporter:
        reporter.report()
        assert sent_bytes(await received(statsd, last_gauge())) > 10_000
        await pair.here.disconnect(pair.there.name)
        await pair.here.connect(pair.there.name)
        await send(100)
        reporter.report()
        assert 100 < sent_bytes(await received(statsd, last_gauge())) < 10_000


async def test_it_reports_at_intervals_and_at_the_end(pair: Pair, statsd: trio.socket.SocketType) -> None:
    host, port = statsd.getsockname()
    async with pair.here.open_process() as me, trio.open_nursery() as nursery:
        await nursery.start(partial(report_to_statsd, pair.zen, host, port, interval=0.01))
        pair.zen.monitor("nobody", subscriber=me)
        await received(statsd, "zen_monitor.local.monitor:1|c")
        pair.zen.monitor("nobody", subscriber=me)  # and the block ends before the next interval
        nursery.cancel_scope.cancel()
    assert "zen_monitor.local.monitor:1|c" in await received(statsd, "zen_monitor.local.monitor:")


async def test_a_statsd_that_is_away_costs_nothing(pair: Pair, statsd: trio.socket.SocketType) -> None:
    with reporting(pair, statsd) as reporter:
        statsd.close()
        for _ in range(3):
            reporter.report()


async def test_without_the_library_the_error_names_the_command(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datadog.dogstatsd.base", None)
    with pytest.raises(StatsdMissing, match=r"pip install 'zenmon-node\[statsd\]'"):
        await report_to_statsd(pair.zen, "127.0.0.1", 8125)


async def test_a_host_that_is_none(pair: Pair) -> None:
    with pytest.raises(HostNotFound, match="the host name 'no such host' of the statsd does not resolve"):
        await report_to_statsd(pair.zen, "no such host", 8125)
