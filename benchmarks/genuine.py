"""What the genuine ZenMonitor 2.1.0 and syn 3.3.0 did, as published figures: they are no part of this project.

Two BEAMs of OTP 25 on Debian 12 with two shared cores, each on one core (``+S 1:1``), over the loopback address;
medians of five repetitions with fresh nodes. Both sides were genuine, so a rate is limited by the slower of the two;
here only one side is measured. It was the same kind of machine on another day: a ratio to these figures is no ratio
within one run.

ZenMonitor's rates are of 100,000 targets with settings that let everything through at once (chunks of a million, sweeps
every millisecond, a demand of a million every millisecond), syn's of 100,000 processes. Its time of a node's coming up
is from the connection until all is there, what the sender does included; its memory is that of the tables alone.
"""

from __future__ import annotations

from typing import Final

GENUINE: Final = {
    # One cast of 100,000 that came over the loopback address.
    ("zen_subscribe_at_once", "per_second"): 639e3,
    ("zen_subscribe_again", "per_second"): 2.00e6,
    ("zen_unsubscribe", "per_second"): 4.11e6,
    # A loop that kills them, until the last certificate is at the remote subscriber.
    ("zen_certificates", "per_second"): 330e3,
    ("zen_subscription_bytes", "bytes_each"): 329.0,
    ("zen_monitor_calls", "per_second"): 100_000 / 0.212,
    ("zen_monitors", "per_second"): 100_000 / 0.214,
    # Kill all, until the last DOWN.
    ("zen_downs", "per_second"): 100_000 / 0.332,
    ("zen_nodedowns", "per_second"): 100_000 / 0.210,
    ("zen_pace", "per_second"): 100_000 / 10.207,
    ("zen_monitor_bytes", "bytes_each"): 305.0,
    ("syn_register_calls", "per_second"): 78_600.0,
    ("syn_register", "per_second"): 78_400.0,
    ("syn_register_again", "per_second"): 94_100.0,
    # A process of the other node; who asks and who is asked are both genuine.
    ("syn_register_theirs", "per_second"): 21_200.0,
    ("syn_register_asked", "per_second"): 21_200.0,
    ("syn_lookup", "per_second"): 2.35e6,
    ("syn_unregister", "per_second"): 75_600.0,
    ("syn_registered_die", "per_second"): 38_900.0,
    ("syn_registry_sync_in", "p50_ms"): 221.0,
    ("syn_registry_purge", "p50_ms"): 85.0,
    ("syn_owner_bytes", "bytes_each"): 320.0,
    ("syn_replica_bytes", "bytes_each"): 336.0,
    ("syn_join", "per_second"): 95_600.0,
    ("syn_join_many", "per_second"): 68_300.0,
    ("syn_members", "p50_ms"): 13.3,
    ("syn_publish", "p50_ms"): 63.9,
    ("syn_leave", "per_second"): 90_400.0,
    ("syn_pg_sync_in", "p50_ms"): 281.0,
    ("syn_member_bytes", "bytes_each"): 304.0,
}
"""Key of a row (workload and metric) to the figure in its unit."""
