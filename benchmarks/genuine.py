"""What the genuine ZenMonitor 2.1.0 did, as published figures: it is no part of this project and runs in no test of it.

Two BEAMs of OTP 25 on Debian 12 with two shared cores, each on one core (``+S 1:1``), over the loopback address;
medians of five repetitions with fresh nodes. Rates are of 100,000 targets with settings that let everything through at
once (chunks of a million, sweeps every millisecond, a demand of a million every millisecond). Both sides were genuine,
so a rate is limited by the slower of the two; here only one side is measured. It was the same kind of machine on
another day: a ratio to these figures is no ratio within one run.
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
}
"""Key of a row (workload and metric) to the figure in its unit."""
