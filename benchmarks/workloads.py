"""The workloads, as rebar_fixtures' ``bench_driver`` names and measures them, and what a reader is told about each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Metric = Literal["per_second", "p50_us", "p99_us", "p50_ms", "bytes_each", "ns_each", "megabytes"]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        label: The family of the workload: W1 to W9, "ETF", "start", "memory".
        group: The group that measures it: one of ``bench_driver``, or one of :data:`OUTSIDE`.
        workload: Its name in the driver's results.
        metric: Which figure of the result. More is better for rates, less for times and memory.
        title: In words. "Peer" is the node that is measured; the driver is a BEAM.
    """

    label: str
    group: str
    workload: str
    metric: Metric
    title: str

    @property
    def is_rate(self) -> bool:
        """Whether more is better."""
        return self.metric == "per_second"


ROWS: Final = (
    Row("W1", "casts_in", "receive_casts", "per_second", "small casts to the peer, /s"),
    Row("W1", "capacity", "replayed_casts", "per_second", "… recorded ones from a sender that is no limit, /s"),
    Row("W2", "casts_out", "send_casts", "per_second", "small casts from the peer, /s"),
    Row("W3", "calls_in", "answer_calls", "p50_us", "one request to the peer and its answer, median µs"),
    Row("W3", "calls_in", "answer_calls", "p99_us", "… 99th percentile µs"),
    Row("W3", "calls_in", "answer_calls_64", "per_second", "… by 64 callers side by side, /s"),
    Row("W3", "gen_server_calls", "gen_server_calls", "p50_us", "one gen_server:call to the peer, median µs"),
    Row("W3", "gen_server_calls", "gen_server_calls", "p99_us", "… 99th percentile µs"),
    Row("W3", "gen_server_calls", "gen_server_calls_64", "per_second", "… by 64 callers side by side, /s"),
    Row("W3", "calls_out", "make_calls", "p50_us", "one request by the peer and its answer, median µs"),
    Row("W3", "calls_out", "make_calls", "p99_us", "… 99th percentile µs"),
    Row("W3", "calls_out", "make_calls_64", "per_second", "… by 64 callers side by side, /s"),
    Row("W4", "bulk", "receive_bulk", "per_second", "{Pid, normal} to the peer, 100,000 in a term, items/s"),
    Row("W4", "bulk", "send_bulk", "per_second", "the same from the peer, items/s"),
    Row("W4", "batches", "receive_batches", "per_second", "{subscribe, Pid} to the peer, 5,000 in a cast, items/s"),
    Row("W4", "batches", "send_batches", "per_second", "the same from the peer, items/s"),
    Row("W5", "monitors_out", "set_monitors", "per_second", "monitors set on processes of the peer, /s"),
    Row("W5", "monitors_out", "send_downs", "per_second", "… these end: DOWNs from the peer, /s"),
    Row("W5", "monitors_out", "answer_noproc", "per_second", "… monitors on processes that are gone, DOWNs/s"),
    Row("W5", "monitors_out", "demonitors", "per_second", "… monitor and demonitor in turn, pairs/s"),
    Row("W5", "monitors_in", "monitor_driver", "per_second", "monitors set by the peer, /s"),
    Row("W5", "monitors_in", "receive_downs", "per_second", "… these end: DOWNs to the peer, /s"),
)
"""Names of groups and workloads are those of ``bench_driver``; a name it does not know stops the run."""

CODEC_ROWS: Final = (
    Row("ETF", "codec", "decode_mixed", "ns_each", "decode events of mixed terms, ns each"),
    Row("ETF", "codec", "encode_mixed", "ns_each", "encode them, ns each"),
    Row("ETF", "codec", "decode_dead_summary", "ns_each", "decode a summary of 10,000 {Pid, normal}, ns an item"),
    Row("ETF", "codec", "encode_dead_summary", "ns_each", "encode it, ns an item"),
    Row("ETF", "codec", "decode_batch", "ns_each", "decode a cast of 5,000 {subscribe, Pid}, ns an item"),
    Row("ETF", "codec", "encode_batch", "ns_each", "encode it, ns an item"),
)
"""The codec alone, beside ``binary_to_term`` and ``term_to_binary``."""

FOOTPRINT_ROWS: Final = (
    Row("start", "start", "ping", "p50_ms", "a program starts, pings a node, ends, ms"),
    Row("memory", "idle", "idle_node", "megabytes", "resident memory of an idle node, MB"),
    Row("memory", "memory", "process_bytes", "bytes_each", "an idle process, bytes"),
    Row("memory", "memory", "monitor_bytes", "bytes_each", "a native monitor, where it was set, bytes"),
    Row("memory", "memory", "monitored_bytes", "bytes_each", "a native monitor, where its target is, bytes"),
)
"""Start and size."""

ZEN_ROWS: Final = (
    Row("W6", "zen_proxy", "zen_subscribe", "per_second", "subscriptions to processes of the peer, 5,000 a cast, /s"),
    Row("W6", "zen_proxy", "zen_subscribe_at_once", "per_second", "… all in one cast, /s"),
    Row("W6", "zen_proxy", "zen_subscribe_again", "per_second", "… of what is subscribed already, /s"),
    Row("W6", "zen_proxy", "zen_unsubscribe", "per_second", "… taken back, /s"),
    Row("W6", "zen_proxy", "zen_certificates", "per_second", "… these end: death certificates from the peer, /s"),
    Row("W6", "zen_proxy", "zen_certificate_latency", "p50_ms", "… one ends, until its certificate is here, median ms"),
    Row("W6", "zen_proxy", "zen_subscription_bytes", "bytes_each", "memory of a subscription in the peer, bytes"),
    Row("W7", "zen_local", "zen_monitor_calls", "per_second", "calls of monitor in the peer, /s"),
    Row("W7", "zen_local", "zen_monitors", "per_second", "… until the driver watches all targets, /s"),
    Row("W7", "zen_local", "zen_downs", "per_second", "… these end: DOWNs to the peer's subscriber, /s"),
    Row("W7", "zen_local", "zen_nodedowns", "per_second", "… their node is lost: DOWNs, /s"),
    Row("W7", "zen_local", "zen_pace", "per_second", "… DOWNs at the default pace of 10,000 /s"),
    Row("W7", "zen_local", "zen_down_latency", "p50_ms", "… one ends, until its DOWN is here, median ms"),
    Row("W7", "zen_local", "zen_monitor_bytes", "bytes_each", "memory of a monitor in the peer, bytes"),
)
"""ZenMonitor's: the peer as Proxy, and as Local; the driver is the other side."""

SYN_ROWS: Final = (
    Row("W8", "syn_registry", "syn_register_calls", "per_second", "registrations by the peer, calls returned, /s"),
    Row("W8", "syn_registry", "syn_register", "per_second", "… until the driver has heard of all, /s"),
    Row("W8", "syn_registry", "syn_register_again", "per_second", "… the same names with other metadata, /s"),
    Row("W8", "syn_registry", "syn_register_theirs", "per_second", "registrations of the driver's processes, /s"),
    Row("W8", "syn_registry", "syn_register_asked", "per_second", "the driver registers the peer's processes, /s"),
    Row("W8", "syn_registry", "syn_registered", "per_second", "registrations of the driver heard of, /s"),
    Row("W8", "syn_registry", "syn_lookup", "per_second", "lookups, /s"),
    Row("W8", "syn_registry", "syn_unregister", "per_second", "names unregistered, /s"),
    Row("W8", "syn_registry", "syn_registered_die", "per_second", "registered processes end, /s"),
    Row("W8", "syn_registry", "syn_registry_sync_out", "p50_ms", "node up: 100,000 names sent, ms"),
    Row("W8", "syn_registry", "syn_registry_sync_in", "p50_ms", "node up: 100,000 names taken over, ms"),
    Row("W8", "syn_registry", "syn_registry_sync_stall", "p50_ms", "… longest time without an answer, ms"),
    Row("W8", "syn_registry", "syn_registry_purge", "p50_ms", "node down: 100,000 names forgotten, ms"),
    Row("W8", "syn_registry", "syn_registry_purge_stall", "p50_ms", "… longest time without an answer, ms"),
    Row("W8", "syn_registry", "syn_owner_bytes", "bytes_each", "memory of a name of the peer, bytes"),
    Row("W8", "syn_registry", "syn_replica_bytes", "bytes_each", "memory of a name of the driver in the peer, bytes"),
    Row("W9", "syn_pg", "syn_join_calls", "per_second", "joins of one group by the peer, calls returned, /s"),
    Row("W9", "syn_pg", "syn_join", "per_second", "… until the driver has heard of all, /s"),
    Row("W9", "syn_pg", "syn_join_many", "per_second", "… of 1,000 groups, /s"),
    Row("W9", "syn_pg", "syn_joined", "per_second", "joins of the driver heard of, /s"),
    Row("W9", "syn_pg", "syn_members", "p50_ms", "members of a group of 100,000 listed, ms"),
    Row("W9", "syn_pg", "syn_publish", "p50_ms", "… and sent a message, ms"),
    Row("W9", "syn_pg", "syn_leave", "per_second", "members leave, /s"),
    Row("W9", "syn_pg", "syn_members_die", "per_second", "members end, /s"),
    Row("W9", "syn_pg", "syn_pg_sync_out", "p50_ms", "node up: 100,000 members sent, ms"),
    Row("W9", "syn_pg", "syn_pg_sync_in", "p50_ms", "node up: 100,000 members taken over, ms"),
    Row("W9", "syn_pg", "syn_pg_sync_stall", "p50_ms", "… longest time without an answer, ms"),
    Row("W9", "syn_pg", "syn_pg_purge", "p50_ms", "node down: 100,000 members forgotten, ms"),
    Row("W9", "syn_pg", "syn_pg_purge_stall", "p50_ms", "… longest time without an answer, ms"),
    Row("W9", "syn_pg", "syn_member_bytes", "bytes_each", "memory of a member of the peer, bytes"),
)
"""Syn's: the peer as one member of a scope, the driver as the other."""

ALL_ROWS: Final = (*ROWS, *ZEN_ROWS, *SYN_ROWS, *CODEC_ROWS, *FOOTPRINT_ROWS)

OUTSIDE: Final = ("idle", "start", "capacity")
"""Groups that ``bench_driver`` has no part in: see :mod:`benchmarks.outside`."""

GROUPS: Final = ("idle", *(group for group in dict.fromkeys(row.group for row in ALL_ROWS) if group != "idle"))
"""All groups, in the order in which they are measured. A node is idle before the others."""
