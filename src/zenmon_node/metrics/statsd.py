"""The metrics for statsd, as the original sends them: datagrams with its names, and tags as Datadog writes them.

The original reports through ``instruments`` and ``statix``, every 10 seconds by default: gauges as they are, counters
as what they have grown by. The client here is Datadog's own, ``datadog``, since tags (``|#op:subscribe``) are Datadog's
addition to the protocol, and the other statsd client that is kept, ``statsd``, has none. It is an extra:
``pip install 'zenmon-node[statsd]'``.

Source: discord/instruments, ``fast_counter.ex`` and ``probe/runner.ex``; lexmag/statix, ``packet.ex``.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

import trio

from erlang_interop import ErlangInteropError, HostNotFound
from erlang_interop.runtime.transport import resolve

from .table import METRICS, Snapshot

if TYPE_CHECKING:
    from datadog.dogstatsd.base import DogStatsd

    from ..app import ZenMonitor

#: Seconds between two reports.
INTERVAL: Final = 10.0


class StatsdMissing(ErlangInteropError):
    """The library for statsd is not installed."""


class StatsdReporter:
    """Sends the metrics of one ZenMonitor to one statsd.

    Args:
        zen: What is to be read.
        address: The IP address of the statsd.
        port: Its port.

    Raises:
        StatsdMissing: the package was installed without the extra ``statsd``.
    """

    def __init__(self, zen: ZenMonitor, address: str, port: int) -> None:
        self._zen = zen
        # Plain statsd: sent when we say so, and nothing about the client itself.
        self._client = statsd_client()(
            address,
            port,
            disable_buffering=True,
            disable_aggregation=True,
            disable_telemetry=True,
            origin_detection_enabled=False,
        )
        #: What each counter was when it was sent.
        self._sent: dict[tuple[str, tuple[str, ...]], int] = {}

    def report(self) -> None:
        """Send every gauge, and every counter that has grown. What is sent to a statsd that is away is lost."""
        snapshot = Snapshot.of(self._zen)
        sent: dict[tuple[str, tuple[str, ...]], int] = {}
        with self._client as client:  # as few datagrams as hold it all
            for metric in METRICS:
                for labels, value in metric.values(snapshot).items():
                    tags = [f"{name}:{label}" for name, label in zip(metric.labels, labels, strict=True)]
                    if metric.kind == "gauge":
                        client.gauge(metric.name, value, tags=tags)
                        continue
                    key = (metric.name, labels)
                    sent[key] = value
                    before = self._sent.get(key, 0)
                    # The counters of a connection begin anew with each connection to that node.
                    growth = value - before if value >= before else value
                    if growth:
                        client.increment(metric.name, growth, tags=tags)
        self._sent = sent

    def close(self) -> None:
        """Close the socket."""
        self._client.close_socket()


async def report_to_statsd(
    zen: ZenMonitor,
    host: str,
    port: int,
    *,
    interval: float = INTERVAL,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Send the metrics of ``zen`` to the statsd on ``host:port`` until cancelled, and once more then.

    Args:
        zen: What is to be read.
        host: Resolved once, at the start.
        port: The port, for UDP.
        interval: Seconds between two reports.
        task_status: Told when all that can be wrong with the arguments was not.

    Raises:
        StatsdMissing: the package was installed without the extra ``statsd``.
        HostNotFound: the name does not resolve.
    """
    # The client would block the loop while it resolves. An IPv4 address where there is one, as the client prefers.
    addresses = sorted(await _addresses(host), key=lambda found: found[0] != socket.AF_INET)
    reporter = StatsdReporter(zen, addresses[0][1], port)
    task_status.started()
    try:
        while True:
            await trio.sleep(interval)
            reporter.report()
    finally:
        reporter.report()
        reporter.close()


async def _addresses(host: str) -> list[tuple[int, str]]:
    try:
        return await resolve(host)
    except HostNotFound as error:
        raise HostNotFound(f"the host name {host!r} of the statsd does not resolve: {error.__cause__}") from error


def statsd_client() -> type[DogStatsd]:
    """The library's class.

    Raises:
        StatsdMissing: the package was installed without the extra ``statsd``.
    """
    try:
        from datadog.dogstatsd.base import DogStatsd
    except ImportError as error:
        raise StatsdMissing(
            "metrics for statsd need a library that is not installed: pip install 'zenmon-node[statsd]'"
        ) from error
    return DogStatsd
