"""``make bench``: measure, print the tables, and write ``docs/benchmarks.md`` when asked.

    python -m benchmarks [--rounds 3] [--build installed|pure|both] [--contenders beam,inline,mailbox]
                         [--groups casts_in,calls_in] [--otp 25] [--json FILE] [--write]

Exit status: 0 done, 1 a run failed, 2 usage.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from benchmarks import micro, report
from benchmarks.contenders import CONTENDERS, PROJECT, BenchmarkError
from benchmarks.contest import Results, built_fixtures, otp_root, run_rounds
from benchmarks.workloads import GROUPS, ROWS, ZEN_ROWS
from erlang_interop.errors import ErlangInteropError

if TYPE_CHECKING:
    from benchmarks.contenders import Contender

DOCUMENT: Final = PROJECT / "docs" / "benchmarks.md"
DEFAULT_CONTENDERS: Final = {
    "installed": ["beam", "inline", "mailbox"],
    "pure": ["beam", "pure", "pure-mailbox"],
    "both": ["beam", "inline", "mailbox", "pure"],
}


def arguments_of(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line; ends the program on nonsense."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often everybody is measured (3)")
    parser.add_argument("--build", choices=sorted(DEFAULT_CONTENDERS), default="installed", help="of our node")
    parser.add_argument("--contenders", help=f"instead of --build, a list from {','.join(CONTENDERS)}")
    parser.add_argument("--groups", default=",".join(GROUPS), help=f"a list from {','.join(GROUPS)}")
    parser.add_argument("--seconds", type=float, default=0.5, help="for each measurement of a rate (0.5)")
    parser.add_argument("--monitors", type=int, default=50_000, help="monitors of W5 (50000)")
    parser.add_argument("--zen-monitors", type=int, default=100_000, help="monitors of ZenMonitor's workloads (100000)")
    parser.add_argument("--otp", type=int, help="OTP of driver and BEAM peer (the oldest installed)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all figures of all rounds")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    arguments = parser.parse_args(argv)
    keys = arguments.contenders.split(",") if arguments.contenders else DEFAULT_CONTENDERS[arguments.build]
    for words, known in ((keys, CONTENDERS), (arguments.groups.split(","), GROUPS)):
        unknown = [word for word in words if word not in known]
        if unknown:
            parser.error(f"{', '.join(unknown)}: none of {', '.join(known)}")
    arguments.chosen = [CONTENDERS[key] for key in keys]
    _, arguments.root = otp_root(parser, arguments.otp)
    if arguments.rounds < 1:
        parser.error("at least one round")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Run; the exit status."""
    arguments = arguments_of(argv)
    ebin = built_fixtures()
    if ebin is None:
        return 1
    try:
        results = trio.run(_contest, arguments, ebin)
    except (BenchmarkError, ErlangInteropError) as error:
        print(error, file=sys.stderr)
        return 1
    costs = micro.measure()
    print(f"\nMedians of {arguments.rounds} rounds; ratios within a round: median (least to greatest).")
    print(*(f"{contender.title}: {results.builds[contender.key]}" for contender in results.contenders), sep="; ")
    measured = arguments.groups.split(",")
    for rows in (ROWS, ZEN_ROWS):
        if not any(row.group in measured for row in rows):
            continue
        print(f"\n{report.as_text(report.table(results, rows))}")
        print(f"\nCPU for one item, µs\n{report.as_text(report.cpu_table(results, rows))}")
    print(f"\nWire alone, {'compiled' if costs[0].compiled else 'interpreted'}, ns for one message")
    print(report.as_text(report.micro_table(costs)))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"builds": results.builds, "rounds": results.rounds}, indent=1) + "\n")
    if arguments.write:
        DOCUMENT.parent.mkdir(exist_ok=True)
        DOCUMENT.write_text(report.document(results, costs), encoding="utf-8")
        print(f"\nwritten: {os.path.relpath(DOCUMENT)}")
    return 0


async def _contest(arguments: argparse.Namespace, ebin: Path) -> Results:
    chosen: list[Contender] = arguments.chosen
    return await run_rounds(
        arguments.root,
        ebin,
        chosen,
        arguments.rounds,
        groups=arguments.groups.split(","),
        seconds=arguments.seconds,
        monitors=arguments.monitors,
        zen_monitors=arguments.zen_monitors,
        progress=lambda line: print(line, flush=True),
    )


if __name__ == "__main__":
    raise SystemExit(main())
