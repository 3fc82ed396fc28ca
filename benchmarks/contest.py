"""Runs of the driver against one contender at a time, and their results side by side.

Driver and peer are fresh in every run, so nobody inherits a grown heap or a full atom cache; the order is turned round
in every second round, so that a machine that grows slower or faster in the meantime favours nobody.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import median
from typing import IO, TYPE_CHECKING, Final, Literal

import trio

from benchmarks.workloads import GROUPS, Row
from erlang_interop.errors import ErlangInteropError
from erlang_interop.etf.text import format_term
from erlang_interop.terms import Atom
from erlang_interop.testing.beam import Beam, Epmd, find_otp_roots

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from erlang_interop.terms import Term

PROJECT: Final = Path(__file__).resolve().parent.parent
BEAM_ARGUMENTS: Final = ("+S", "1:1", "-kernel", "connect_all", "false")
"""A BEAM on one core, as our node is, whose `global` stays out of what is measured."""
GROUP_LIMIT_S: Final = 120.0
PEER_START_LIMIT_S: Final = 30.0

Figures = dict[str, dict[str, float]]
"""Workload to the figures of the driver's result: those of ``workloads.Metric``, driver_cpu_us, peer_cpu_us."""

_numbers = count(1)


def otp_root(parser: ArgumentParser, release: int | None) -> tuple[int, Path]:
    """The OTP asked for, or the oldest installed, and its folder; ends the program where there is none."""
    roots = find_otp_roots()
    if not roots or release not in (None, *roots):
        parser.error(f"OTP {release or 25} is not installed: run tools/get_otp.py {release or 25}")
    chosen = release or min(roots)
    return chosen, roots[chosen]


def built_fixtures() -> Path | None:
    """Compile the Erlang fixtures: their folder, or None if that fails, which has been said then."""
    built = subprocess.run(
        [sys.executable, str(PROJECT / "tools" / "build_fixtures.py")], stdout=subprocess.PIPE, text=True, check=False
    )
    return PROJECT / built.stdout.strip() if built.returncode == 0 else None


class BenchmarkError(Exception):
    """A run failed; the message has what the peer printed."""


@dataclass(frozen=True)
class Contender:
    """Who is measured.

    Attributes:
        key: Its name on the command line.
        title: Its name in the table.
        process: The kind of process that takes the load: a ``beam``'s, or ``inline`` or ``mailbox`` of our node.
        build: Our node's build: ``installed`` (compiled where a compiler was at hand) or ``pure`` (the source tree).
    """

    key: str
    title: str
    process: Literal["beam", "inline", "mailbox"]
    build: Literal["installed", "pure"] = "installed"

    def takes_part_in(self, group: str) -> bool:
        """False where it would be another contender once more: a Proxy is an inline server in any case."""
        return self.process != "mailbox" or group != "zen_proxy"


CONTENDERS: Final = {
    contender.key: contender
    for contender in (
        Contender("beam", "BEAM", "beam"),
        Contender("inline", "Python, inline server", "inline"),
        Contender("mailbox", "Python, mailbox", "mailbox"),
        Contender("pure", "interpreted, inline server", "inline", "pure"),
        Contender("pure-mailbox", "interpreted, mailbox", "mailbox", "pure"),
    )
}


@dataclass
class Results:
    """All figures of all rounds."""

    contenders: Sequence[Contender]
    rounds: list[dict[str, Figures]] = field(default_factory=list)
    builds: dict[str, str] = field(default_factory=dict)
    """Contender to what its peer said of its build."""

    def values(self, contender: str, workload: str, figure: str) -> list[float]:
        """One figure, a value for each round that has it."""
        found = [figures.get(contender, {}).get(workload, {}).get(figure) for figures in self.rounds]
        return [value for value in found if value is not None]

    def median(self, contender: str, workload: str, figure: str) -> float | None:
        """The median over the rounds; None where nothing was measured."""
        values = self.values(contender, workload, figure)
        return median(values) if values else None

    def ratios(self, contender: str, row: Row) -> list[float]:
        """``contender`` to BEAM, round by round: what both went through is in both figures of a round."""
        return [
            ours / theirs
            for figures in self.rounds
            if (ours := figures.get(contender, {}).get(row.workload, {}).get(row.metric)) is not None
            and (theirs := figures.get("beam", {}).get(row.workload, {}).get(row.metric))
        ]


async def run_rounds(
    root: Path,
    ebin: Path,
    contenders: Sequence[Contender],
    rounds: int,
    *,
    groups: Sequence[str] = GROUPS,
    seconds: float = 0.5,
    monitors: int = 50_000,
    zen_monitors: int = 100_000,
    progress: Callable[[str], None] = lambda line: None,
) -> Results:
    """Let every contender run ``rounds`` times.

    Args:
        root: The OTP of driver and BEAM peer: the folder that holds ``bin/erl``.
        ebin: The compiled fixtures.
        contenders: In the order of the first round.
        rounds: How many.
        groups: Groups of workloads, as ``bench_driver:workloads/0`` names them.
        seconds: How long each measurement of a rate should take.
        monitors: How many monitors W5 sets.
        zen_monitors: How many monitors and subscriptions ZenMonitor's workloads make.
        progress: Called with a line at the start of each run.

    Raises:
        BenchmarkError: A run failed.
        BeamDiedError: A BEAM does not start.
    """
    results = Results(contenders)
    with Epmd.start(root) as epmd:
        for number in range(rounds):
            results.rounds.append({})
            for contender in contenders if number % 2 == 0 else reversed(contenders):
                progress(f"round {number + 1} of {rounds}: {contender.title}")
                run = _Run(root, ebin, epmd.port, contender)
                figures, build = await run.measure(
                    [group for group in groups if contender.takes_part_in(group)],
                    {Atom("seconds"): seconds, Atom("monitors"): monitors, Atom("zen_monitors"): zen_monitors},
                )
                results.rounds[-1][contender.key] = figures
                results.builds[contender.key] = build
    return results


@dataclass(frozen=True)
class _Peer:
    """A peer that runs: its operating-system process, its build, and the output that ends when it does."""

    os_pid: int
    build: str
    output: IO[bytes] | None


def _start(command: list[str], environment: dict[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command, cwd=PROJECT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
    )


async def _cancel_at_end(output: IO[bytes], scope: trio.CancelScope) -> None:
    await trio.lowlevel.wait_readable(output)
    scope.cancel()


class _Run:
    """One driver and one peer, from their start to their end."""

    def __init__(self, root: Path, ebin: Path, epmd_port: int, contender: Contender) -> None:
        self._root = root
        self._ebin = ebin
        self._epmd_port = epmd_port
        self._contender = contender
        self._cookie = secrets.token_hex(8)
        self._number = next(_numbers)

    async def measure(self, groups: Sequence[str], options: Mapping[Atom, float]) -> tuple[Figures, str]:
        """Run the groups one after the other; their figures, and what the peer says of its build.

        Args:
            groups: Their names.
            options: Further options of ``bench_driver:run/2``.
        """
        figures: Figures = {}
        peer_name = f"peer{self._number}@127.0.0.1"
        async with self._peer(peer_name) as peer, self._beam(f"driver{self._number}@127.0.0.1") as driver:
            if await driver.eval(f"net_kernel:connect_node('{peer_name}').") is not True:
                raise BenchmarkError(f"the driver cannot connect to {self._contender.title}")
            for group in groups:
                all_options = {**options, Atom("groups"): [Atom(group)], Atom("peer_os_pid"): peer.os_pid}
                source = f"bench_driver:run('{peer_name}', {format_term(all_options)})."
                for result in await self._evaluate(driver, peer, source):
                    named = {key.name: value for key, value in result.items()}
                    figures[named.pop("workload").name] = named
        return figures, peer.build

    async def _evaluate(self, driver: Beam, peer: _Peer, source: str) -> Term:
        """Evaluate in the driver, for as long as our peer lives."""
        outcome: list[Term] = []
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            if peer.output is not None:
                nursery.start_soon(_cancel_at_end, peer.output, nursery.cancel_scope)
            try:
                outcome.append(await driver.eval(source, timeout=GROUP_LIMIT_S))
            except ErlangInteropError as error:
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if not outcome:
            raise BenchmarkError("it ended while it was measured")
        return outcome[0]

    @asynccontextmanager
    async def _peer(self, name: str) -> AsyncIterator[_Peer]:
        if self._contender.process == "beam":
            async with self._beam(name) as peer:
                await peer.eval("bench_peer:start().")
                yield _Peer(peer.pid, f"OTP {peer.release}", None)
            return
        async with self._python(name) as started:
            yield started

    @asynccontextmanager
    async def _beam(self, name: str) -> AsyncIterator[Beam]:
        # Visible, for ZenMonitor looks at no other nodes.
        beam = await Beam.start_async(
            self._root, name, self._cookie, self._epmd_port, code_paths=[self._ebin], args=BEAM_ARGUMENTS
        )
        try:
            yield beam
        finally:
            beam.close()

    @asynccontextmanager
    async def _python(self, name: str) -> AsyncIterator[_Peer]:
        command = [sys.executable, "-m", "benchmarks.peer", name, "--epmd-port", str(self._epmd_port)]
        command += ["--process", self._contender.process]
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        environment["ZENMON_COOKIE"] = self._cookie
        if self._contender.build == "pure":
            environment["PYTHONPATH"] = str(PROJECT / "src")
        with tempfile.TemporaryFile() as log:
            peer = _start(command, environment, log)
            assert peer.stdin is not None
            assert peer.stdout is not None
            try:
                with trio.move_on_after(PEER_START_LIMIT_S):
                    await trio.lowlevel.wait_readable(peer.stdout)
                word, _, build = (peer.stdout.readline() if peer.poll() is None else b"").decode().partition(" ")
                if word != "ready":
                    raise BenchmarkError("it did not start")
                yield _Peer(peer.pid, build.strip(), peer.stdout)
            except (BenchmarkError, ErlangInteropError) as error:
                log.seek(0)
                said = log.read().decode(errors="replace").strip() or "(nothing)"
                raise BenchmarkError(f"{self._contender.title}: {error}\nIt printed:\n{said}") from error
            finally:
                peer.kill()
                peer.wait()
                peer.stdin.close()
                peer.stdout.close()
