"""The targets: what our node should reach, and whether a run reached it.

Ratios are to the BEAM of the same round, medians over the rounds, of our node as it is installed with an inline server.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from benchmarks.genuine import GENUINE
from benchmarks.workloads import ROWS, ZEN_ROWS, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from benchmarks.results import Run

OURS: Final = "inline"
INTERPRETED: Final = "pure"


class Reached(NamedTuple):
    """What a run reached of a target; where it is the least of several also of which, and how many are enough."""

    figure: float
    of: str = ""


@dataclass(frozen=True)
class Target:
    """One line of the table of targets.

    Attributes:
        label: The family of its workload.
        text: What is wanted, in words.
        bound: The figure wanted.
        at_least: True: not less than ``bound``; False: not more.
        unit: What follows the figures.
        measure: What a run reached; None where it has not measured it.
    """

    label: str
    text: str
    bound: float
    at_least: bool
    unit: str
    measure: Callable[[Run], Reached | None]

    def is_met_by(self, reached: Reached) -> bool:
        """Whether the figure, rounded as it is shown, is as wanted."""
        shown = round(reached.figure, 2)
        return shown >= self.bound if self.at_least else shown <= self.bound

    def missed_by(self, reached: Reached) -> float:
        """How much is missing, in percent of what is wanted."""
        return 100 * abs(reached.figure - self.bound) / self.bound


def _beside_beam(text: str, workload: str, bound: float, metric: str = "per_second") -> Target:
    row = next(row for row in ROWS if (row.workload, row.metric) == (workload, metric))

    def measure(run: Run) -> Reached | None:
        figure = run.figure(OURS, workload, metric)
        return Reached(figure.ratio.median) if figure is not None and figure.ratio is not None else None

    return Target(row.label, text, bound, row.is_rate, "x BEAM", measure)


def _beside_genuine(text: str, workload: str) -> Target:
    row = next(row for row in ZEN_ROWS if row.workload == workload)

    def measure(run: Run) -> Reached | None:
        figure = run.figure(OURS, workload, row.metric)
        return Reached(figure.value.median / GENUINE[workload, row.metric]) if figure is not None else None

    return Target(row.label, text, 1.0, row.is_rate, "x genuine, as published", measure)


def _bytes(workload: str) -> Target:
    row = next(row for row in ZEN_ROWS if row.workload == workload)

    def measure(run: Run) -> Reached | None:
        figure = run.figure(OURS, workload, row.metric)
        return Reached(figure.value.median) if figure is not None else None

    return Target(row.label, row.title, GENUINE[workload, row.metric], False, "bytes", measure)


def _least_of(text: str, bound: float, one: str, other: str, rows: Iterable[Row], unit: str) -> Target:
    """The workload in which ``one`` is least fast beside ``other``."""

    def measure(run: Run) -> Reached | None:
        found = [
            (ours.value.median / theirs.value.median, row.workload)
            for row in rows
            if row.is_rate
            and (ours := run.figure(one, row.workload, row.metric)) is not None
            and (theirs := run.figure(other, row.workload, row.metric)) is not None
        ]
        if not found:
            return None
        missed = sum(quotient < bound for quotient, _ in found)
        quotient, workload = min(found)
        return Reached(quotient, f"{workload}; {len(found) - missed} of {len(found)} reach it")

    return Target("all", text, bound, True, unit, measure)


TARGETS: Final = (
    _beside_beam("small casts received live", "receive_casts", 1.0),
    _beside_beam("capacity: recorded casts received", "replayed_casts", 1.3),
    _beside_beam("small casts sent", "send_casts", 4.0),
    _beside_beam("one request answered, median time", "answer_calls", 1.15, "p50_us"),
    _beside_beam("one gen_server:call answered, median time", "gen_server_calls", 1.15, "p50_us"),
    _beside_beam("one request made, median time", "make_calls", 1.15, "p50_us"),
    _beside_beam("requests of 64 callers answered", "answer_calls_64", 1.0),
    _beside_beam("gen_server:calls of 64 callers answered", "gen_server_calls_64", 1.0),
    _beside_beam("requests made by 64 callers", "make_calls_64", 1.0),
    _beside_beam("dead summaries received", "receive_bulk", 0.7),
    _beside_beam("dead summaries sent", "send_bulk", 0.7),
    _beside_beam("subscribe batches received", "receive_batches", 1.0),
    _beside_beam("subscribe batches sent", "send_batches", 1.0),
    _beside_beam("monitors set on processes of ours", "set_monitors", 1.0),
    _beside_beam("monitors set by us", "monitor_driver", 1.0),
    _beside_beam("DOWNs sent", "send_downs", 3.0),
    _beside_beam("DOWNs received", "receive_downs", 1.0),
    _least_of(
        "ahead of libei in each rate of W1 to W3 (on W4 it builds no tree)",
        1.0,
        OURS,
        "libei",
        [row for row in ROWS if row.label != "W4"],
        "x libei",
    ),
    _least_of("ahead of JInterface in each rate that it has", 1.0, OURS, "jinterface", ROWS, "x JInterface"),
    _beside_genuine("subscriptions", "zen_subscribe_at_once"),
    _beside_genuine("certificates", "zen_certificates"),
    _beside_genuine("monitors, until the targets are watched", "zen_monitors"),
    _beside_genuine("DOWNs when all targets are killed", "zen_downs"),
    _beside_genuine("DOWNs when their node is lost", "zen_nodedowns"),
    _bytes("zen_subscription_bytes"),
    _bytes("zen_monitor_bytes"),
    _least_of("interpreted, beside compiled, in each rate", 0.25, INTERPRETED, OURS, (*ROWS, *ZEN_ROWS), "x compiled"),
)
