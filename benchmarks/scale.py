"""``make scale``: a million monitors and a million subscriptions in one Python node, with BEAMs at the other ends.

    python -m benchmarks.scale [--monitors 1000000] [--nodes 4] [--kills 100000] [--otp 25]
                               [--parts local,proxy,shared,pure] [--json FILE] [--write]

Each part has fresh BEAMs and a fresh node of ours, each an operating-system process. The BEAMs run the stand-in of
``rebar_fixtures/apps/fixture_zen``, unthrottled. A BEAM with a process for each of a million monitors needs about 3 GB
in all, our node up to 2 GB. Exit status: 0 done, 1 a part failed, or a check in it, 2 usage.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from benchmarks.contenders import PROJECT
from benchmarks.contest import built_fixtures, otp_root
from benchmarks.report import amount, as_markdown, as_text
from benchmarks.scale_meter import Phase
from benchmarks.scale_node import COLLECTION, NODEDOWN
from erlang_interop.errors import ErlangInteropError
from erlang_interop.testing.beam import Beam, Epmd
from zenmon_node.memory import BIG
from zenmon_node.memory import PARTS as PARTS_OF_A_TABLE
from zenmon_node.pacing import SLICE

if TYPE_CHECKING:
    from collections.abc import Callable

DOCUMENT: Final = PROJECT / "docs" / "scale.md"
#: The stand-in without its pacing.
_FAST: Final = (
    "#{connector_sweep_interval => 1, batcher_sweep_interval => 1, demand_interval => 1, demand_amount => 1000000}"
)
#: Part -> its title, what runs on the BEAMs, and how they take part; ``pure`` has one.
PARTS: Final = {
    "local": ("Our Local monitors processes of BEAMs", f"zen_proxy:start({_FAST})."),
    "proxy": (
        "Our Proxy is subscribed by BEAMs, one subscription for each process of ours",
        f"zen_local:start({_FAST}), zen_scale:start().",
    ),
    "shared": (
        "The same, each process of ours subscribed by every BEAM",
        f"zen_local:start({_FAST}), zen_scale:start().",
    ),
    "pure": ("Our Proxy alone, one subscriber, casts in one piece", "zen_scale:start()."),
}


class ScaleError(Exception):
    """A part failed; the message has what our node printed."""


@dataclass
class Outcome:
    """What one part gave.

    Attributes:
        phases: In order.
        found: Memory, build and the like.
    """

    phases: list[Phase] = field(default_factory=list)
    found: dict[str, Any] = field(default_factory=dict)


async def run_part(part: str, root: Path, ebin: Path, *, monitors: int, nodes: int, kills: int) -> Outcome:
    """Run one part with fresh BEAMs and a fresh node of ours.

    Args:
        part: One of :data:`PARTS`.
        root: The OTP of the BEAMs: the folder that holds ``bin/erl``.
        ebin: The compiled fixtures.
        monitors: How many in all.
        nodes: How many BEAMs.
        kills: How many processes are killed one by one.

    Raises:
        ScaleError: Our node failed, or found that something was not exactly once.
        BeamDiedError: A BEAM does not start.
    """
    cookie = secrets.token_hex(8)
    most = str(max(262_144, 2 * monitors))
    async with AsyncExitStack() as stack:
        epmd = stack.enter_context(Epmd.start(root))
        beams = []
        for number in range(1 if part == "pure" else nodes):
            beam = await Beam.start_async(
                root,
                f"scale{number + 1}@127.0.0.1",
                cookie,
                epmd.port,
                code_paths=[ebin],
                args=("+S", "1:1", "+P", most),
            )
            stack.callback(beam.close)
            await beam.eval(PARTS[part][1])
            beams.append((beam.name, beam.pid))
        options = {
            "name": "py@127.0.0.1",
            "epmd_port": epmd.port,
            "beams": beams,
            "monitors": monitors,
            "kills": kills,
        }
        return await _run_node(part, options, cookie)


async def _run_node(part: str, options: dict[str, Any], cookie: str) -> Outcome:
    command = [sys.executable, "-m", "benchmarks.scale_node", part, json.dumps(options)]
    with tempfile.TemporaryFile() as log:
        done = await trio.run_process(
            command,
            cwd=PROJECT,
            env=os.environ | {"ZENMON_COOKIE": cookie},
            capture_stdout=True,
            stderr=log,
            check=False,
        )
        log.seek(0)
        said = log.read().decode(errors="replace").strip()
    if done.returncode != 0:
        raise ScaleError(f"part {part}: our node ended with status {done.returncode}\n{said or '(it printed nothing)'}")
    outcome = Outcome()
    for line in done.stdout.decode().splitlines():
        parsed = json.loads(line)
        if "phase" in parsed:
            outcome.phases.append(Phase(**parsed["phase"]))
        else:
            outcome.found |= parsed["found"]
    return outcome


HEAD: Final = ["phase", "items", "seconds", "items/s", "CPU µs each", "stall ms", "of it CPU", "GC ms"]


def table(outcome: Outcome) -> list[list[str]]:
    """The cells of one part's table; the first line is its head."""
    lines = [HEAD]
    for phase in outcome.phases:
        items = max(phase.items, 1)
        lines.append(
            [
                phase.name,
                f"{phase.items:,}",
                f"{phase.seconds:.2f}",
                amount(items / phase.seconds),
                f"{phase.cpu / items * 1e6:.2f}",
                f"{phase.stall_ms:.0f}",
                f"{phase.stall_cpu_ms:.0f}",
                f"{phase.gc_ms:.0f}",
            ]
        )
    return lines


@dataclass(frozen=True)
class Target:
    """What a phase of the part ``local`` may take, in milliseconds."""

    title: str
    phase: str
    most_ms: float
    figure: Callable[[Phase], float]


TARGETS: Final = (
    Target("a full garbage collection", COLLECTION, 20.0, lambda phase: phase.gc_ms),
    Target("longest stall of the loop during a nodedown of all, unthrottled", NODEDOWN, 25.0, lambda p: p.stall_ms),
    Target("… of it processor time of our node", NODEDOWN, 25.0, lambda phase: phase.stall_cpu_ms),
)


def targets(local: Outcome) -> list[list[str]]:
    """The cells of the table of targets; the first line is its head."""
    lines = [["with all monitors in place", "at most ms", "here ms", ""]]
    for target in TARGETS:
        phases = [phase for phase in local.phases if phase.name == target.phase and phase.items]
        if phases:
            here = target.figure(phases[0])
            verdict = "met" if here <= target.most_ms else "**not met**"
            lines.append([target.title, f"{target.most_ms:.0f}", f"{here:.1f}", verdict])
    return lines


def remarks(outcome: Outcome) -> str:
    """What was found besides, in words."""
    return "; ".join(
        f"{name.replace('_', ' ')}: {value:.0f}" if isinstance(value, float) else f"{value}"
        for name, value in outcome.found.items()
    )


def document(outcomes: dict[str, Outcome], arguments: argparse.Namespace) -> str:
    """The text of ``docs/scale.md``."""
    processors, memory = os.cpu_count(), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    parts = "\n".join(
        f"## {PARTS[part][0]}\n\n{as_markdown(table(outcome))}\n\n{remarks(outcome)}.\n"
        for part, outcome in outcomes.items()
    )
    of_targets = f"{as_markdown(targets(outcomes['local']))}\n" if "local" in outcomes else ""
    return f"""# A million monitors

{of_targets}
Written by `make scale WRITE=1`. {arguments.monitors:,} monitors and as many subscriptions in one node of ours, with
{arguments.nodes} BEAMs (OTP {arguments.release}, one scheduler each, the stand-in for ZenMonitor of this project's
tests) at the other ends, all on one machine: {processors} processors, {memory:.0f} GB of memory. `make scale
MONITORS=20000 NODES=2` takes half a minute. Each part has fresh BEAMs and a fresh node; in each, every monitor must
have fired exactly once in the end and every table must be empty, or the run fails.

- *Stall*: the longest pass of the event loop, in which nothing else could run. *Of it CPU*: the most processor time of
  one pass. The difference is the machine's: {arguments.nodes + 1} programs share its {processors} processors here.
- *GC*: the longest run of Python's garbage collector, in processor time. It is part of the stall. A *full collection*
  is timed by itself (`gc.collect()`, the least of three), also with no monitors: what the node itself takes.
- *Bytes*: growth of the resident memory for each monitor or subscription, everything included; *of it tables*: the sum
  of `sys.getsizeof` over ZenMonitor's tables and what they alone hold. ZenMonitor 2.1.0 itself takes 305 bytes for a
  monitor in its Local and 329 for a subscription in its Proxy (`erlang:memory(total)`, 100,000 of them, OTP 25).
- Everything is unthrottled (sweeps and demand every millisecond), but for the second that shows the default pace of
  10,000 DOWNs a second. With default settings a node subscribes to 50,000 targets a second at each other node.

{parts}
## What keeps the loop running

- Work that grows with the number of monitors is done in slices of {SLICE:,} steps, and sweeps in chunks
  (`connector_chunk_size`, `batcher_chunk_size`): a chunk of a million is encoded in one go.
- A dictionary grows by copying itself, which takes some 30 ms at 700,000 entries. So tables of more than {BIG:,}
  entries are kept in {min(PARTS_OF_A_TABLE)} to {max(PARTS_OF_A_TABLE)} parts (`zenmon_node.memory.Table`), which
  grow, and are freed, one at a time; tables that are filled side by side grow at different moments.
- Pids and references are invisible to the garbage collector in the compiled build, and so are tables of them: a million
  monitors cost it nothing. Interpreted, each full collection looks at all of them, for half a second.

## What is limiting

- **Processes of our own**: each is half a dozen Python objects, and the garbage collector looks at all of them when it
  makes a full collection: about 1 ms for 1,000 processes. That, not ZenMonitor, would be the longest stall of a Proxy
  with a million processes of its own. A program with very many long-lived processes calls `gc.freeze()` once they are
  started, as the node measured here does with its million.
- **Casts that wait**: with sweeps of a millisecond a million instructions may have come before they are carried out,
  and a full collection looks at each. Python makes one whenever what it looks at has grown by a quarter, which took up
  to 79 ms there; `zenmon-node run` and the node measured here make it after 200 collections of the middle generation
  at the earliest. By default 50,000 instructions a second come.
- **A mailbox that nobody empties** is looked at by the garbage collector, too: take messages as they come.
- **One thread** does everything, so *CPU µs each* is the bound of the rate. Much of it is the runtime, which is not
  compiled: ending a process, handing a message to an inline server.
- **What the program consists of**, its modules and those of its libraries, would take the garbage collector 6 to 20 ms
  more. `zenmon-node run` and the node measured here have it looked at no more (`gc.freeze()`) once they have started.
"""


def arguments_of(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line; ends the program on nonsense."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--monitors", type=int, default=1_000_000, help="monitors, and subscriptions (1000000)")
    parser.add_argument("--nodes", type=int, default=4, help="BEAMs (4)")
    parser.add_argument("--kills", type=int, default=100_000, help="processes killed one by one (100000)")
    parser.add_argument("--otp", type=int, help="OTP of the BEAMs (the oldest installed)")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"a list from {','.join(PARTS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all figures")
    parser.add_argument("--write", action="store_true", help="write docs/scale.md")
    arguments = parser.parse_args(argv)
    arguments.chosen = arguments.parts.split(",")
    if unknown := [part for part in arguments.chosen if part not in PARTS]:
        parser.error(f"{', '.join(unknown)}: none of {', '.join(PARTS)}")
    for name in ("monitors", "nodes", "kills"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name}: at least one")
    arguments.release, arguments.root = otp_root(parser, arguments.otp)
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Run; the exit status."""
    arguments = arguments_of(argv)
    ebin = built_fixtures()
    if ebin is None:
        return 1
    outcomes: dict[str, Outcome] = {}
    for part in arguments.chosen:
        sizes = {name: getattr(arguments, name) for name in ("monitors", "nodes", "kills")}
        try:
            outcomes[part] = trio.run(partial(run_part, part, arguments.root, ebin, **sizes))
        except (ScaleError, ErlangInteropError) as error:
            print(error, file=sys.stderr)
            return 1
        print(f"{PARTS[part][0]}\n{as_text(table(outcomes[part]))}\n{remarks(outcomes[part])}\n", flush=True)
    if arguments.json is not None:
        figures = {
            part: {"phases": [phase.as_dict() for phase in outcome.phases], "found": outcome.found}
            for part, outcome in outcomes.items()
        }
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    if arguments.write:
        DOCUMENT.write_text(document(outcomes, arguments), encoding="utf-8")
        print(f"written: {os.path.relpath(DOCUMENT)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
