"""``make bench``: measure, print the tables, and write ``docs/benchmarks.md`` and ``docs/benchmarks.json`` when asked.

    python -m benchmarks [--rounds 5] [--build both|installed|pure] [--peers libei,jinterface] [--otp 25]
                         [--contenders beam,inline,mailbox] [--groups casts_in,calls_in] [--json FILE] [--write]
    python -m benchmarks --render       writes the page anew from the figures in ``docs/benchmarks.json``

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
from benchmarks.outside import sender_limit
from benchmarks.results import Run
from benchmarks.workloads import ALL_ROWS, GROUPS
from erlang_interop.errors import ErlangInteropError

if TYPE_CHECKING:
    from benchmarks.contenders import Contender

DOCUMENT: Final = PROJECT / "docs" / "benchmarks.md"
FIGURES: Final = DOCUMENT.with_suffix(".json")
PEERS: Final = [key for key, contender in CONTENDERS.items() if contender.is_library]
SENDER_S: Final = 1.0
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
    parser.add_argument("--rounds", type=int, default=5, help="how often everybody is measured (5)")
    parser.add_argument("--build", choices=sorted(DEFAULT_CONTENDERS), default="both", help="of our node")
    parser.add_argument("--peers", default=",".join(PEERS), help=f"libraries beside it, of {','.join(PEERS)}; or none")
    parser.add_argument("--contenders", help=f"instead of --build and --peers, a list from {','.join(CONTENDERS)}")
    parser.add_argument("--groups", default=",".join(GROUPS), help=f"a list from {','.join(GROUPS)}")
    parser.add_argument("--seconds", type=float, default=0.5, help="for each measurement of a rate (0.5)")
    parser.add_argument("--monitors", type=int, default=50_000, help="monitors of W5 (50000)")
    parser.add_argument("--zen-monitors", type=int, default=100_000, help="monitors of ZenMonitor's workloads (100000)")
    parser.add_argument("--syn-entries", type=int, default=100_000, help="names and members of syn's (100000)")
    parser.add_argument("--otp", type=int, help="OTP of driver and BEAM peer (the oldest installed)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all figures of all rounds")
    parser.add_argument(
        "--write",
        action="store_true",
        help="write docs/benchmarks.md and docs/benchmarks.json; of other groups than --groups the figures stay",
    )
    parser.add_argument(
        "--render", action="store_true", help="measure nothing: write the page from docs/benchmarks.json"
    )
    arguments = parser.parse_args(argv)
    peers = [word for word in arguments.peers.split(",") if word not in ("", "none")]
    keys = arguments.contenders.split(",") if arguments.contenders else [*DEFAULT_CONTENDERS[arguments.build], *peers]
    for words, known in ((keys, CONTENDERS), (arguments.groups.split(","), GROUPS)):
        unknown = [word for word in words if word not in known]
        if unknown:
            parser.error(f"{', '.join(unknown)}: none of {', '.join(known)}")
    arguments.chosen = [CONTENDERS[key] for key in keys]
    arguments.release, arguments.root = otp_root(parser, arguments.otp)
    if arguments.rounds < 1:
        parser.error("at least one round")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Run; the exit status."""
    arguments = arguments_of(argv)
    if arguments.render:
        _write(Run.load(FIGURES))
        return 0
    ebin = built_fixtures()
    if ebin is None:
        return 1
    try:
        results = trio.run(_contest, arguments, ebin)
    except (BenchmarkError, ErlangInteropError) as error:
        print(error, file=sys.stderr)
        return 1
    run = results.run(arguments.release, micro.measure(), sender_limit(SENDER_S))
    print(f"\n{report.summary(run)}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"builds": results.builds, "rounds": results.rounds}, indent=1) + "\n")
    if arguments.write:
        if set(arguments.groups.split(",")) < set(GROUPS):
            run = Run.load(FIGURES).with_groups_of(run, [(row.workload, row.metric) for row in ALL_ROWS])
        run.save(FIGURES)
        _write(run)
        print(f"\nwritten: {os.path.relpath(DOCUMENT)}, {os.path.relpath(FIGURES)}")
    return 0


def _write(run: Run) -> None:
    from benchmarks import plots  # its library is in the extra `bench` alone

    DOCUMENT.write_text(report.document(run), encoding="utf-8")
    plots.benchmarks(run)


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
        syn_entries=arguments.syn_entries,
        progress=lambda line: print(line, flush=True),
    )


if __name__ == "__main__":
    raise SystemExit(main())
