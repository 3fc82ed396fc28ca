"""What has happened in ZenMonitor since it was opened, counted under the names of the original's metrics. Pure.

Cores add to these as they work; whoever reports them (``metrics``) reads them when it likes. They only ever grow, and
outlive every process and Connector, so a rate taken from them never goes backwards.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """One for each open ZenMonitor, shared by its cores. Names in the original: ``zen_monitor.<name>``."""

    monitors: int = 0
    """``local.monitor``: calls of monitor."""
    demonitors: int = 0
    """``local.demonitor``: calls of demonitor."""
    enqueued_downs: int = 0
    """``local.enqueue``: DOWN messages put into the queue of the Dispatcher."""
    delivered_downs: int = 0
    """``local.dispatcher.events.delivered``: entries of that queue looked at; some were demonitored meanwhile."""
    processed_downs: int = 0
    """``local.dispatcher.events.processed``: DOWN messages sent to their subscribers."""
    enqueued_subscribes: int = 0
    """``local.connector.enqueue``, tag ``op:subscribe``."""
    enqueued_unsubscribes: int = 0
    """``local.connector.enqueue``, tag ``op:unsubscribe``."""
    swept_instructions: int = 0
    """``local.connector.sweep``: instructions sent to remote Proxies."""
    unhandled_messages: int = 0
    """``local.connector.unhandled_info``: messages to a Connector that are none of its business."""
    enqueued_certificates: int = 0
    """``proxy.batcher.enqueue``: death certificates put into Batchers."""
    swept_certificates: int = 0
    """``proxy.batcher.sweep``: certificates sent to remote Connectors."""
    contained_crashes: int = 0
    """Not in the original: exceptions in handlers, after which the process went on."""
    malformed: int = 0
    """Not in the original: messages, or parts of them, that had to be ignored."""
