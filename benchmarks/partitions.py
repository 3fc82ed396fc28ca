"""``make partitions``: nodes and links fail in clusters of BEAMs and nodes of ours; what that does to `global`.

    python -m benchmarks.partitions [--seed 1] [--clusters 0,1] [--modes full,...] [--scenarios "kill beam,..."]
                                    [--registrations 100] [--write]

Every scenario is played in every cluster with the newcomer in each mode, as a BEAM, and left out where it is not the
victim. Exit status: 0 all agreed in the end and no BEAM lost another one because of us, 1 not so, 2 usage.
"""

from __future__ import annotations

import argparse
import os
import secrets
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

import trio

from benchmarks.contenders import PROJECT
from benchmarks.contest import built_fixtures
from benchmarks.report import as_markdown, as_text
from erlang_interop.testing.beam import find_otp_roots
from tests.interop.partition_members import MODES, OURS, MatrixError, Mode
from tests.interop.partition_scenarios import SCENARIOS, Outcome, is_possible, play, time_names
from tests.interop.partitions import Cluster, open_cluster
from zenmon_node.build import describe_build

DOCUMENT: Final = PROJECT / "docs" / "partitions.md"
NET_TICKTIME: Final = 8
#: Clusters of each kind of newcomer in which registrations are timed, in turns.
TURNS: Final = 3
ABSENT: Final = "absent"
#: Column heads: what the newcomers are.
COLUMNS: Final[dict[str, str]] = {ABSENT: "nobody", "beam": "a BEAM", **{mode: f"ours, {mode}" for mode in OURS}}


@dataclass(frozen=True)
class Shape:
    """A cluster: the OTPs of its BEAMs, and the names of the newcomers."""

    releases: tuple[int, ...]
    newcomers: tuple[str, ...]

    @property
    def title(self) -> str:
        """In words."""
        return f"OTP {', '.join(map(str, self.releases))}, and {' and '.join(self.newcomers)}"


CLUSTERS: Final = (
    Shape((25, 29), ("x",)),
    Shape((25, 28, 29), ("a",)),
    Shape((27, 29), ("a", "x")),
)


@dataclass
class Results:
    """What was found.

    Attributes:
        played: Cluster, column and scenario, with its outcome; None: no agreement.
        registering: Cluster and column, with the microseconds of each registration while nothing fails.
        taken_out: Column, and how often a BEAM was taken out and in again because `global` did not exchange names.
        complaints: What must not be.
    """

    played: dict[tuple[Shape, str, str], Outcome | None] = field(default_factory=dict)
    registering: dict[tuple[Shape, str], list[int]] = field(default_factory=dict)
    taken_out: dict[str, int] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)


class Matrix:
    """Plays everything that was asked for."""

    def __init__(self, arguments: argparse.Namespace, ebin: Path) -> None:
        self._arguments = arguments
        self._ebin = ebin
        self._roots = find_otp_roots()
        self._cookie = secrets.token_hex(8)
        self.results = Results()

    async def run(self) -> None:
        """Play and measure; prints what it finds as it goes."""
        for shape in self._arguments.shapes:
            print(f"== {shape.title}: names", flush=True)
            for _ in range(TURNS):
                for mode in self._arguments.modes:
                    await self._measure(shape, mode)
        for shape in self._arguments.shapes:
            print(f"== {shape.title}: what happens", flush=True)
            for column in (ABSENT, *self._arguments.modes):
                await self._play_all(shape, column)

    async def _measure(self, shape: Shape, mode: Mode) -> None:
        """Register names with the newcomers and without them, over links without relays."""
        roots = [self._roots[release] for release in shape.releases]
        opened = open_cluster(roots, mode, self._ebin, self._cookie, newcomers=shape.newcomers, relayed=False)
        async with opened as cluster:
            with_them = await self._register(cluster, shape, mode)
            for newcomer in shape.newcomers:
                await cluster.members[newcomer].leave()
            await cluster.agree(absent=shape.newcomers)
            without = await self._register(cluster, shape, ABSENT)
        print(f"{mode:8} registering names: {in_ms(with_them)} ms, without {in_ms(without)}", flush=True)

    async def _register(self, cluster: Cluster, shape: Shape, column: str) -> list[int]:
        micros = await time_names(cluster, self._arguments.registrations)
        self.results.registering.setdefault((shape, column), []).extend(micros)
        return micros

    async def _play_all(self, shape: Shape, column: str) -> None:
        """Play scenarios in one cluster; after one without agreement the others get a new one."""
        roots = [self._roots[release] for release in shape.releases]
        newcomers = () if column == ABSENT else shape.newcomers
        random = Random(f"{self._arguments.seed} {shape.title} {column}")
        in_mesh = column in ("beam", "full")
        rest = [
            name for name in self._arguments.scenarios if is_possible(SCENARIOS[name], len(newcomers), in_mesh=in_mesh)
        ]
        while rest:
            opened = open_cluster(
                roots,
                "beam" if column == ABSENT else _mode(column),
                self._ebin,
                self._cookie,
                newcomers=newcomers,
                net_ticktime=NET_TICKTIME,
            )
            try:
                async with opened as cluster:
                    while rest:
                        self._record(shape, column, rest[0], await play(cluster, SCENARIOS[rest[0]], random))
                        del rest[0]
                    self.results.taken_out[column] = self.results.taken_out.get(column, 0) + cluster.taken_out
            except* MatrixError as errors:
                self._record(shape, column, rest.pop(0), None)
                print(*(str(error) for error in errors.exceptions), sep="\n", flush=True)

    def _record(self, shape: Shape, column: str, name: str, outcome: Outcome | None) -> None:
        self.results.played[shape, column, name] = outcome
        if outcome is None:
            found = "no agreement"
        else:
            cuts = ", ".join(f"{down.observer} lost {down.node}" for down in outcome.unexplained)
            found = f"{outcome.seconds:5.1f} s; names {in_ms(outcome.micros)} ms; {cuts or 'no BEAM lost another one'}"
        if column in OURS and (outcome is None or outcome.unexplained):
            self.results.complaints.append(f"{shape.title}, {column}, {name}: {found}")
        print(f"{column:8} {name:18} {found}", flush=True)


def _mode(column: str) -> Mode:
    return next(mode for mode in MODES if mode == column)


def in_ms(micros: Sequence[int]) -> str:
    """The median, and the worst."""
    return f"{statistics.median(micros) / 1000:.1f} / {max(micros) / 1000:.0f}" if micros else "-"


# ------------------------------------------------------------------------------------------------------------ tables
def names_table(results: Results) -> list[list[str]]:
    """The cells of the table of registrations while nothing fails."""
    columns = [column for column in COLUMNS if any(found == column for _shape, found in results.registering)]
    lines = [["BEAMs, and newcomers", *(COLUMNS[column] for column in columns)]]
    for shape in dict.fromkeys(shape for shape, _column in results.registering):
        without = statistics.median(results.registering[shape, ABSENT])
        cells = []
        for column in columns:
            micros = results.registering[shape, column]
            ratio = "" if column == ABSENT else f" ({statistics.median(micros) / without:.2f})"
            cells.append(f"{statistics.median(micros) / 1000:.2f}{ratio} / {max(micros) / 1000:.0f}")
        lines.append([shape.title, *cells])
    return lines


def members_compared(results: Results) -> str:
    """How long registrations take with members of ours, in times of what they take with BEAMs in their place."""
    median = {key: statistics.median(micros) for key, micros in results.registering.items()}
    ratios = sorted(
        median[shape, "full"] / median[shape, "beam"]
        for shape in dict.fromkeys(shape for shape, _column in median)
        if (shape, "full") in median and (shape, "beam") in median
    )
    return f"{ratios[0]:.2f} to {ratios[-1]:.2f} times" if ratios else "(not measured)"


def cuts_table(results: Results) -> list[list[str]]:
    """The cells of the table of connections between BEAMs that were lost and need not have been."""
    return _scenario_table(results, _cuts)


def times_table(results: Results) -> list[list[str]]:
    """The cells of the table of registrations while something fails."""
    return _scenario_table(results, _worst)


def _cuts(outcomes: Sequence[Outcome | None]) -> str:
    failed = sum(outcome is None for outcome in outcomes)
    cuts = sum(len({down.pair for down in outcome.unexplained}) for outcome in outcomes if outcome)
    return f"{cuts}" + (f", no agreement {failed} times" if failed else "")


def _worst(outcomes: Sequence[Outcome | None]) -> str:
    return f"{max((outcome.worst_ms for outcome in outcomes if outcome), default=0):.0f}"


def _scenario_table(results: Results, cell: Callable[[Sequence[Outcome | None]], str]) -> list[list[str]]:
    columns = [column for column in COLUMNS if any(found == column for _shape, found, _name in results.played)]
    lines = [["what happens", *(COLUMNS[column] for column in columns)]]
    for name, scenario in SCENARIOS.items():
        cells = []
        for column in columns:
            outcomes = [outcome for key, outcome in results.played.items() if key[1:] == (column, name)]
            cells.append(cell(outcomes) if outcomes else "")
        if any(cells):
            lines.append([scenario.title, *cells])
    return lines


def document(results: Results, arguments: argparse.Namespace) -> str:
    """The text of ``docs/partitions.md``."""
    clusters = "; ".join(shape.title for shape in arguments.shapes)
    helped = ", ".join(f"{COLUMNS[column]}: {count}" for column, count in results.taken_out.items())
    return f"""# Clusters that break

Does a cluster of BEAMs behave worse because a node of ours is in it? `make partitions` plays this matrix, `make test` a
part of it. BEAMs of several OTPs, with `prevent_overlapping_partitions` on as it is by default, are joined by one or
two *newcomers*: nodes of ours in one of the three modes ([Hidden or visible](visible.md)), or, to see what OTP does,
one or two BEAMs more. Every node has a process with a global name; those of hidden and passive nodes are registered
through BEAMs ([Names of hidden and passive nodes](global.md#names-of-hidden-and-passive-nodes)). Then something fails,
is mended, and in the end all must agree: `nodes()`, `global:registered_names()` and whose the names are, on every BEAM,
and what our node says of all that. A run without agreement fails.

## Which BEAMs lost each other over it?

The number of connections between two BEAMs that were lost though nothing had happened to either of them.

{as_markdown(cuts_table(results))}

When the link between two nodes of OTP breaks, both are up still, and both tell the rest that the other is lost; the
rest leaves both. So when the link of a BEAM and a newcomer breaks, the BEAM loses the others too, if the newcomer is a
BEAM. A node of ours that takes part (`"full"`) does as it is told by others, and does not itself tell BEAMs to leave
one another: who has lost it tells them to leave *it*.

## How long does `global:register_name` take?

While nothing fails: median in milliseconds, in brackets its ratio to the median without newcomers, and behind the
stroke the worst. There are {TURNS} clusters with newcomers of each kind, in turns; {arguments.registrations} names are
registered on each BEAM, and as many after the newcomers have left, over direct connections.

{as_markdown(names_table(results))}

Hidden and passive nodes are not asked, though they have names: with them it takes as long as without. A `"full"` one
is a member, and members are what `global` waits for: it asks each for the lock, to take the name, and to free the lock,
one after the other, and the one with the greatest name once more before all others. So nobody joins for nothing, and a
further BEAM in our place is what a member of ours compares with: it takes {members_compared(results)} as long with
ours. Between a question's arrival and our answer there are 40 to 50 microseconds of Python: about 12 to wake up, 6 to
read, 4 to decode, 10 to 17 to do what is asked, 8 to send.

While something fails, the longest of all, in milliseconds, on a BEAM that nothing is done to (where there are but two,
and it is their link that fails, on one of them). The links are relays here, which cost more than a name server does.

{as_markdown(times_table(results))}

A member that is suspended, or cut off silently, is waited for until `net_ticktime` ({NET_TICKTIME} s here, 60 by
default) has given it up, be it a BEAM or a full node of ours. A hidden or a passive node is waited for by nobody.

## How it is done

Written by `make partitions WRITE=1 SEED={arguments.seed}` ({describe_build()}, {os.cpu_count()} processors).
Clusters: {clusters}.
`global` asks the member with the greatest name for its lock first, so a newcomer is called `x` or `a`. The seed says
whom something happens to.

- Every node has an EPMD of its own, which tells it relays in place of other nodes' ports (`tests/interop/cuttable.py`).
  A link is *cut* by a reset, now and for each new connection; it goes *silent* when its relay carries nothing any more.
- Each BEAM writes down its nodedowns. Those of two BEAMs are explained where one of them was killed, suspended or
  restarted, or was at one end of a link between BEAMs that failed; `global` makes BEAMs leave each other then.
- While a link is down, both ends register the same name, if both are members. Once it is mended, one process must be
  left, the same for all. A BEAM whose link with a hidden or passive newcomer is down must have dropped its name, and no
  other BEAM may have. The newcomer registers it again through each BEAM that comes back ([global](global.md)).
- Mending is connecting again, first each node with one BEAM. Two members that could not reach each other when the rest
  told them of each other's names drop these, and do not exchange them again once they are connected, in OTP and here.
  Then one leaves by `global:disconnect/0` and joins anew. Times it was needed, by what the newcomers were: {helped}.
"""


def arguments_of(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line; ends the program on nonsense."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.partitions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=1, help="whom something happens to (1)")
    parser.add_argument("--clusters", default=",".join(map(str, range(len(CLUSTERS)))), help="a list of numbers")
    parser.add_argument("--modes", default=",".join(MODES), help=f"a list from {','.join(MODES)}")
    parser.add_argument("--scenarios", default=",".join(SCENARIOS), help=f"a list from {','.join(SCENARIOS)}")
    parser.add_argument("--registrations", type=int, default=100, help="on each BEAM, each time (100)")
    parser.add_argument("--write", action="store_true", help="write docs/partitions.md")
    arguments = parser.parse_args(argv)
    for name, known in (("modes", MODES), ("scenarios", SCENARIOS)):
        chosen = getattr(arguments, name).split(",")
        if unknown := [each for each in chosen if each not in known]:
            parser.error(f"{', '.join(unknown)}: none of {', '.join(known)}")
        setattr(arguments, name, [each for each in known if each in chosen])
    numbers = arguments.clusters.split(",")
    if unknown := [number for number in numbers if number not in map(str, range(len(CLUSTERS)))]:
        parser.error(f"no cluster {', '.join(unknown)}; there are 0 to {len(CLUSTERS) - 1}")
    arguments.shapes = [CLUSTERS[int(number)] for number in numbers]
    roots = find_otp_roots()
    if missing := {str(release) for shape in arguments.shapes for release in shape.releases if release not in roots}:
        parser.error(f"not installed: run tools/get_otp.py {' '.join(sorted(missing))}")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Run; the exit status."""
    arguments = arguments_of(argv)
    ebin = built_fixtures()
    if ebin is None:
        return 1
    matrix = Matrix(arguments, ebin)
    trio.run(matrix.run)
    results = matrix.results
    for table in (cuts_table, names_table, times_table):
        print(f"\n{as_text(table(results))}")
    if arguments.write:
        DOCUMENT.write_text(document(results, arguments), encoding="utf-8")
        print(f"written: {os.path.relpath(DOCUMENT)}")
    for complaint in results.complaints:
        print(complaint, file=sys.stderr)
    return 1 if results.complaints else 0


if __name__ == "__main__":
    raise SystemExit(main())
