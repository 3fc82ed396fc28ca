"""The metrics for Prometheus: a collector for prometheus-client, which knows the formats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from .table import METRICS, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric as Family

    from ..app import ZenMonitor

_FAMILIES: Final = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily}


class ZenMonitorCollector(Collector):
    """The metrics of one ZenMonitor, for a registry of prometheus-client: ``registry.register(...)``.

    Dots become underscores; a counter's name ends in ``_total``. It must be collected from in the node's own thread.

    Args:
        zen: What is to be read.
    """

    def __init__(self, zen: ZenMonitor) -> None:
        self._zen = zen

    def collect(self) -> Iterator[Family]:
        """All metrics, of one moment."""
        snapshot = Snapshot.of(self._zen)
        for metric in METRICS:
            family = _FAMILIES[metric.kind](metric.name.replace(".", "_"), metric.help, labels=metric.labels)
            for labels, value in metric.values(snapshot).items():
                family.add_metric(labels, value)
            yield family


class Page:
    """What is served under ``/metrics``: those of ZenMonitor, and memory, processor time and files of the process.

    Args:
        zen: What is to be read.
    """

    def __init__(self, zen: ZenMonitor) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(ZenMonitorCollector(zen))
        ProcessCollector(registry=self._registry)

    async def render(self, accept: str) -> tuple[bytes, str]:
        """The page in a format that the client takes, and the name of the format.

        Args:
            accept: The client's header ``Accept``; empty where it has sent none.
        """
        encode, content_type = choose_encoder(accept)
        # Reading belongs to the loop's thread. Writing it out takes ten times as long, and with many nodes too long.
        collected = _Collected(list(self._registry.collect()))
        return await trio.to_thread.run_sync(encode, collected), content_type


class _Collected(Collector):
    """Metrics that were read already."""

    def __init__(self, families: list[Family]) -> None:
        self._families = families

    def collect(self) -> list[Family]:
        return self._families
