"""The figures of one run of ``make bench`` as data: what ``docs/benchmarks.json`` holds, for plots and for comparisons.

    {"date": "2026-01-31", "python": "3.11.2", "otp": 25, "processors": 2, "rounds": 5,
     "contenders": {"beam": {"title": "BEAM", "build": "OTP 25"}, "inline": {...}, ...},
     "missing": {"JInterface (Java)": "no java and javac here"}, "sender_limit": 41000000.0,
     "rows": [{"label": "W1", "group": "casts_in", "workload": "receive_casts", "metric": "per_second",
               "title": "small casts to the peer, /s", "more_is_better": true,
               "figures": {"beam": {"value": [212000.0, 190000.0, 230000.0], "ratio": null,
                                    "cpu_us": 4.1, "driver_cpu_us": 5.4},
                           "inline": {"value": [...], "ratio": [1.19, 1.06, 1.28], ...}}}],
     "wire": [{"name": "casts_by_name", "bytes_each": 60.0, "receive_ns": 250.0, "send_ns": 200.0, "compiled": true}]}

A spread is ``[median, least, greatest]`` over the rounds. A ratio is to the BEAM of the same round.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Spread(NamedTuple):
    """One figure over the rounds."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self | None:
        """The spread of ``values``, to five significant digits; None where there are none."""
        return cls(*(float(f"{of(values):.5g}") for of in (median, min, max))) if values else None


@dataclass(frozen=True)
class Figure:
    """What one contender did in one row.

    Attributes:
        value: In the unit of the row's metric.
        ratio: To the BEAM of the same round; None for the BEAM itself, and where the BEAM has no figure.
        cpu_us: CPU time of the contender's process for one item, in microseconds (median); None where not counted.
        driver_cpu_us: The same of the driver's process.
    """

    value: Spread
    ratio: Spread | None = None
    cpu_us: float | None = None
    driver_cpu_us: float | None = None


@dataclass(frozen=True)
class Cost:
    """What one recorded message costs in :mod:`benchmarks.micro`, in nanoseconds of CPU time."""

    name: str
    bytes_each: float
    receive_ns: float
    send_ns: float
    compiled: bool


@dataclass(frozen=True)
class MeasuredRow:
    """One line of a table, as ``workloads.Row`` describes it, with the figures of all who took part.

    Attributes:
        label, group, workload, metric, title: As in ``workloads.Row``; workload and metric together are its key.
        more_is_better: True for rates, False for times and memory.
        figures: Contender's key to its figure; "beam" is the one that the ratios are to.
    """

    label: str
    group: str
    workload: str
    metric: str
    title: str
    more_is_better: bool
    figures: dict[str, Figure]

    @property
    def key(self) -> tuple[str, str]:
        """What identifies the row in any run."""
        return self.workload, self.metric


@dataclass(frozen=True)
class ContenderInfo:
    """Who was measured: its title in the tables, and what it said of its build (``compiled ...``, ``OTP 25``)."""

    title: str
    build: str


@dataclass(frozen=True)
class Run:
    """One run of ``make bench``.

    Attributes:
        date: ISO date.
        python: Version of the Python that ran our node.
        otp: Release of the BEAMs.
        processors: How many the machine has.
        rounds: How many rounds the spreads are over.
        contenders: Key to who it is, in the order of the tables.
        rows: In the order of the tables; rows without any figure are left out.
        missing: Title of a library that took no part to why.
        sender_limit: Casts a second that the sender of recorded ones gets rid of where they are only read.
        wire: What :mod:`benchmarks.micro` measured.
    """

    date: str
    python: str
    otp: int
    processors: int
    rounds: int
    contenders: dict[str, ContenderInfo]
    rows: list[MeasuredRow]
    missing: dict[str, str]
    sender_limit: float
    wire: list[Cost]

    def row(self, workload: str, metric: str) -> MeasuredRow | None:
        """The row of that key, if it was measured."""
        return next((row for row in self.rows if row.key == (workload, metric)), None)

    def figure(self, contender: str, workload: str, metric: str) -> Figure | None:
        """One contender's figure in one row, if it was measured."""
        row = self.row(workload, metric)
        return row.figures.get(contender) if row is not None else None

    def with_groups_of(self, later: Self, order: Sequence[tuple[str, str]]) -> Self:
        """This run, with the groups that were measured ``later`` in the place of its own.

        Args:
            later: A run of some groups.
            order: The keys of all rows, in the order of the tables.
        """
        groups = {row.group for row in later.rows}
        rows = {row.key: row for row in [*[row for row in self.rows if row.group not in groups], *later.rows]}
        return replace(
            later,
            rounds=min(self.rounds, later.rounds),
            contenders=self.contenders | later.contenders,
            rows=[rows[key] for key in order if key in rows],
            missing=self.missing,
        )

    def save(self, path: Path) -> None:
        """Write the file described above."""
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            OSError: It cannot be read.
            ValueError: It is no such file; the message says what is wrong with it.
        """
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            contenders = {key: ContenderInfo(**info) for key, info in found.pop("contenders").items()}
            rows = [_row(row) for row in found["rows"]]
            return cls(
                **found | {"contenders": contenders, "rows": rows, "wire": [Cost(**each) for each in found["wire"]]}
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is no file of figures that `make bench WRITE=1` wrote: {error}") from error


def _row(found: dict[str, Any]) -> MeasuredRow:
    figures = {
        contender: Figure(
            Spread(*figure.pop("value")),
            None if (ratio := figure.pop("ratio")) is None else Spread(*ratio),
            **figure,
        )
        for contender, figure in found["figures"].items()
    }
    return MeasuredRow(**found | {"figures": figures})
