"""Metrics of a running ZenMonitor, by the original's names: served to Prometheus, sent to statsd."""

from .http import serve_metrics
from .prometheus import ZenMonitorCollector
from .statsd import StatsdMissing, StatsdReporter, report_to_statsd, statsd_client
from .table import METRICS, Metric, Snapshot

__all__ = [
    "METRICS",
    "Metric",
    "Snapshot",
    "StatsdMissing",
    "StatsdReporter",
    "ZenMonitorCollector",
    "report_to_statsd",
    "serve_metrics",
    "statsd_client",
]
