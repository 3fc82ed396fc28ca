"""``make bench-check``: measure again, compare with ``docs/benchmarks.json``, and name what has fallen.

    python -m benchmarks.check [--rounds 5] [--groups casts_in,calls_in] [--contenders beam,inline] [--run FILE]

What is compared are ratios to the BEAM of the same round. A row has fallen when its median is worse than the stored one
by more than 15 % *and* worse than every stored round: where the stored rounds are far apart, a median among them says
nothing. Such a row's group is measured a second time; only who falls again is named. ``--run`` compares a file as
``docs/benchmarks.json`` instead of measuring. Exit status: 0 nothing fell, 1 something did, or a run failed, 2 usage.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from benchmarks import __main__ as bench
from benchmarks.contenders import CONTENDERS, BenchmarkError
from benchmarks.contest import built_fixtures
from benchmarks.results import Run
from benchmarks.workloads import GROUPS
from erlang_interop.errors import ErlangInteropError

if TYPE_CHECKING:
    from benchmarks.results import MeasuredRow, Spread

#: A ratio may be worse by this much.
TOLERANCE: Final = 0.15
#: Our node's contenders that are measured by default: a BEAM, and the compiled build.
DEFAULT: Final = "beam,inline,mailbox"


@dataclass(frozen=True)
class Change:
    """One contender's ratio in one row, stored and now.

    Attributes:
        row: The stored row.
        title: The contender's.
        stored: Its ratio to the BEAM when the table was written.
        now: The median now.
    """

    row: MeasuredRow
    title: str
    stored: Spread
    now: float

    @property
    def change(self) -> float:
        """By how much it is better now, as a part of what it was; negative: worse. Of times the inverse is compared."""
        return (self.now / self.stored.median if self.row.more_is_better else self.stored.median / self.now) - 1

    @property
    def has_fallen(self) -> bool:
        """Worse by more than the tolerance, and worse than every stored round."""
        rate = self.row.more_is_better
        beyond = self.now < self.stored.least if rate else self.now > self.stored.greatest
        return beyond and self.change < -TOLERANCE

    def __str__(self) -> str:
        median, least, greatest = self.stored
        return (
            f"{self.row.label} {self.row.title} ({self.title}): "
            f"ratio {median:.2f} ({least:.2f} to {greatest:.2f}) stored, {self.now:.2f} now, {self.change:+.0%}"
        )


def changes(stored: Run, now: Run) -> list[Change]:
    """All ratios that both runs have, in the order of the stored table."""
    found: list[Change] = []
    for row in stored.rows:
        for key, figure in row.figures.items():
            measured = now.figure(key, *row.key)
            # Peers in other languages do not fall: they do not change.
            ours = key in CONTENDERS and not CONTENDERS[key].is_library
            if ours and figure.ratio is not None and measured is not None and measured.ratio is not None:
                found.append(Change(row, stored.contenders[key].title, figure.ratio, measured.ratio.median))
    return found


def fallen(stored: Run, now: Run) -> dict[tuple[str, str, str], Change]:
    """What has fallen, by workload, metric and contender."""
    return {(*change.row.key, change.title): change for change in changes(stored, now) if change.has_fallen}


def verdict(fell: list[Change], compared: int) -> str:
    """What is printed in the end: a line for each that fell, and one for all."""
    if not fell:
        return f"{compared} ratios compared with {bench.FIGURES.name}: none fell by more than {TOLERANCE:.0%}"
    return "\n".join(
        [
            *map(str, fell),
            f"{len(fell)} of {compared} ratios fell by more than {TOLERANCE:.0%}, beyond all stored rounds",
        ]
    )


def _measure(arguments: argparse.Namespace, groups: str) -> Run:
    """One run of the benchmarks.

    Raises:
        BenchmarkError, ErlangInteropError: It failed.
    """
    options = ["--contenders", arguments.contenders, "--groups", groups, "--rounds", str(arguments.rounds)]
    if arguments.otp is not None:
        options += ["--otp", str(arguments.otp)]
    ebin = built_fixtures()
    if ebin is None:
        raise BenchmarkError("the Erlang fixtures cannot be built")
    own = bench.arguments_of(options)
    return trio.run(bench._contest, own, ebin).run(own.release, [], 0.0)


def arguments_of(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line; ends the program on nonsense."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often everybody is measured (5)")
    parser.add_argument("--groups", default=",".join(GROUPS), help=f"a list from {','.join(GROUPS)}")
    parser.add_argument(
        "--contenders", default=DEFAULT, help=f"a list from {','.join(CONTENDERS)}, with beam ({DEFAULT})"
    )
    parser.add_argument("--otp", type=int, help="OTP of driver and BEAM peer (the oldest installed)")
    parser.add_argument(
        "--stored", type=Path, default=bench.FIGURES, help="what to compare with (docs/benchmarks.json)"
    )
    parser.add_argument("--run", type=Path, metavar="FILE", help="compare this file; measure nothing")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run; the exit status."""
    arguments = arguments_of(argv)
    try:
        stored = Run.load(arguments.stored)
        now = Run.load(arguments.run) if arguments.run else _measure(arguments, arguments.groups)
        fell = fallen(stored, now)
        if fell and not arguments.run:
            groups = ",".join(dict.fromkeys(change.row.group for change in fell.values()))
            print(f"fallen, and measured again: {groups}", flush=True)
            fell = {key: change for key, change in fallen(stored, _measure(arguments, groups)).items() if key in fell}
    except (BenchmarkError, ErlangInteropError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(verdict(list(fell.values()), len(changes(stored, now))))
    return 1 if fell else 0


if __name__ == "__main__":
    raise SystemExit(main())
