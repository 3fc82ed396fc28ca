"""Every metric, a row each: its name, its kind, what it means, how it is read. Prometheus and statsd use this table.

The first rows are the original's, by its names and with its tags (ZenMonitor 2.1.0: ``metrics.ex`` for the gauges,
calls of ``increment`` for the counters). The rest begin with ``zenmon_node`` and are our own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from ..local.api import Cached

if TYPE_CHECKING:
    from typing import Self

    from erlang_interop.runtime.distribution import ConnectionInfo

    from ..app import ZenMonitor
    from ..counters import Counters
    from ..status import Remote, Statistics

#: The values of a metric by those of its labels; one without labels has the value of ``()``.
Values: TypeAlias = Mapping[tuple[str, ...], int]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that the metrics are read from, at one moment."""

    statistics: Statistics
    counters: Counters
    remotes: list[Remote]
    connections: list[ConnectionInfo]
    """Those that are up."""

    @classmethod
    def of(cls, zen: ZenMonitor) -> Self:
        """How things are now."""
        up = [connection for connection in zen.node.connections if connection.state == "up"]
        return cls(zen.statistics(), zen.counters, zen.remotes(), up)


@dataclass(frozen=True, slots=True)
class Metric:
    """One row."""

    name: str
    """With dots, as in the original."""
    kind: Literal["gauge", "counter"]
    """A gauge is a number that goes up and down, a counter one that only grows."""
    help: str
    read: Callable[[Snapshot], int | Values]
    labels: tuple[str, ...] = ()
    """Names of its labels (statsd: tags)."""

    def values(self, snapshot: Snapshot) -> Values:
        """Its value for each combination of labels that there is."""
        found = self.read(snapshot)
        return {(): found} if isinstance(found, int) else found


def _by_compatibility(snapshot: Snapshot) -> Values:
    found = Counter(remote.compatibility.status for remote in snapshot.remotes)
    return {(status.value,): found[status] for status in Cached}


def _by_type(snapshot: Snapshot) -> Values:
    found = Counter(connection.type for connection in snapshot.connections)
    return {("hidden",): found["hidden"], ("visible",): found["visible"]}


def _of_connections(read: Callable[[ConnectionInfo], int]) -> Callable[[Snapshot], Values]:
    return lambda snapshot: {(connection.name.name,): read(connection) for connection in snapshot.connections}


METRICS: Final = (
    # The original's gauges.
    Metric(
        "zen_monitor.local.message_queue_len",
        "gauge",
        "Work that waits for the Local: monitors of dead subscribers to be withdrawn. The Local of this node handles a "
        "message when it arrives and has no queue of messages; long clean-ups go in slices, and wait here",
        lambda now: now.statistics.waiting_cleanups,
    ),
    Metric(
        "zen_monitor.proxy.message_queue_len",
        "gauge",
        "Work that waits for the Proxy: instructions that have arrived and are not carried out yet. The Proxy of this "
        "node handles a message when it arrives and has no queue of messages; large casts go in slices, and wait here",
        lambda now: now.statistics.waiting_remote_instructions,
    ),
    Metric(
        "zen_monitor.local.batch_length",
        "gauge",
        "DOWN messages that wait to be delivered, those of monitors taken back meanwhile too",
        lambda now: now.statistics.waiting_downs,
    ),
    Metric(
        "zen_monitor.local.ets.references.size",
        "gauge",
        "Monitors of processes of this node that have not fired",
        lambda now: now.statistics.monitors,
    ),
    Metric(
        "zen_monitor.proxy.ets.subscribers.size",
        "gauge",
        "Subscriptions of other nodes: pairs of a process of this node and a Connector that monitors it",
        lambda now: now.statistics.subscription_rows,
    ),
    # The original's counters.
    Metric("zen_monitor.local.monitor", "counter", "Calls of monitor", lambda now: now.counters.monitors),
    Metric("zen_monitor.local.demonitor", "counter", "Calls of demonitor", lambda now: now.counters.demonitors),
    Metric(
        "zen_monitor.local.enqueue",
        "counter",
        "DOWN messages put into the queue of the Dispatcher",
        lambda now: now.counters.enqueued_downs,
    ),
    Metric(
        "zen_monitor.local.connector.enqueue",
        "counter",
        "Subscriptions and withdrawals put into the queues of the Connectors",
        lambda now: {
            ("subscribe",): now.counters.enqueued_subscribes,
            ("unsubscribe",): now.counters.enqueued_unsubscribes,
        },
        ("op",),
    ),
    Metric(
        "zen_monitor.local.connector.sweep",
        "counter",
        "Subscriptions and withdrawals sent to other nodes' Proxies",
        lambda now: now.counters.swept_instructions,
    ),
    Metric(
        "zen_monitor.local.connector.unhandled_info",
        "counter",
        "Messages to Connectors that are none of their business",
        lambda now: now.counters.unhandled_messages,
    ),
    Metric(
        "zen_monitor.local.dispatcher.events.delivered",
        "counter",
        "Entries of the Dispatcher's queue looked at; those of monitors taken back meanwhile come to nothing",
        lambda now: now.counters.delivered_downs,
    ),
    Metric(
        "zen_monitor.local.dispatcher.events.processed",
        "counter",
        "DOWN messages sent to their subscribers",
        lambda now: now.counters.processed_downs,
    ),
    Metric(
        "zen_monitor.proxy.batcher.enqueue",
        "counter",
        "Death certificates put into the Batchers",
        lambda now: now.counters.enqueued_certificates,
    ),
    Metric(
        "zen_monitor.proxy.batcher.sweep",
        "counter",
        "Death certificates sent to other nodes' Connectors",
        lambda now: now.counters.swept_certificates,
    ),
    # Our own.
    Metric(
        "zenmon_node.local.subscribers",
        "gauge",
        "Processes of this node that have monitors",
        lambda now: now.statistics.subscribers,
    ),
    Metric(
        "zenmon_node.local.connectors",
        "gauge",
        "Connectors: nodes that are monitored, or were lately",
        lambda now: now.statistics.connectors,
    ),
    Metric(
        "zenmon_node.local.waiting_instructions",
        "gauge",
        "Subscriptions and withdrawals not sent yet",
        lambda now: now.statistics.waiting_instructions,
    ),
    Metric(
        "zenmon_node.proxy.targets",
        "gauge",
        "Processes and names of this node that other nodes monitor",
        lambda now: now.statistics.subscriptions,
    ),
    Metric(
        "zenmon_node.proxy.subscribers",
        "gauge",
        "Connectors of other nodes that monitor processes of this one",
        lambda now: now.statistics.remote_subscribers,
    ),
    Metric(
        "zenmon_node.proxy.waiting_certificates",
        "gauge",
        "Deaths not reported to other nodes yet",
        lambda now: now.statistics.waiting_certificates,
    ),
    Metric(
        "zenmon_node.remotes",
        "gauge",
        "Nodes that are monitored, or were lately, by what is known of them",
        _by_compatibility,
        ("compatibility",),
    ),
    Metric(
        "zenmon_node.malformed",
        "counter",
        "Messages, or parts of them, that could not be understood and were ignored",
        lambda now: now.statistics.malformed,
    ),
    Metric(
        "zenmon_node.contained_crashes",
        "counter",
        "Exceptions in ZenMonitor's own processes, after which they went on; the log has the tracebacks",
        lambda now: now.counters.contained_crashes,
    ),
    Metric("zenmon_node.connections", "gauge", "Connected nodes", _by_type, ("type",)),
    Metric(
        "zenmon_node.connection.received_bytes",
        "counter",
        "Bytes received on the present connection to a node",
        _of_connections(lambda connection: connection.bytes_in),
        ("node",),
    ),
    Metric(
        "zenmon_node.connection.sent_bytes",
        "counter",
        "Bytes sent on the present connection to a node",
        _of_connections(lambda connection: connection.bytes_out),
        ("node",),
    ),
    Metric(
        "zenmon_node.connection.received_messages",
        "counter",
        "Messages and signals received on the present connection to a node, ticks included",
        _of_connections(lambda connection: connection.messages_in),
        ("node",),
    ),
    Metric(
        "zenmon_node.connection.sent_messages",
        "counter",
        "Messages and signals sent on the present connection to a node, ticks included",
        _of_connections(lambda connection: connection.messages_out),
        ("node",),
    ),
    Metric(
        "zenmon_node.connection.unsent_bytes",
        "gauge",
        "Bytes that the connection to a node has not taken yet",
        _of_connections(lambda connection: connection.unsent),
        ("node",),
    ),
)
"""All of them."""
