"""Runs of the driver against one contender at a time, and their results side by side.

Driver and peer are fresh in every run, so nobody inherits a grown heap or a full atom cache; the order is turned round
in every second round, so that a machine that grows slower or faster in the meantime favours nobody.
"""

from __future__ import annotations

import os
import platform
import secrets
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date
from itertools import count
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import trio

from benchmarks.contenders import (
    PROJECT,
    BenchmarkError,
    Contender,
    MissingPeerError,
    build_of,
    environment_of,
    library_command,
)
from benchmarks.outside import MEASUREMENTS, Target
from benchmarks.results import ContenderInfo, Figure, MeasuredRow, Run, Spread
from benchmarks.workloads import ALL_ROWS, GROUPS, OUTSIDE
from erlang_interop.errors import ErlangInteropError
from erlang_interop.etf.text import format_term
from erlang_interop.terms import Atom
from erlang_interop.testing.beam import Beam, Epmd, find_otp_roots

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from benchmarks.results import Cost
    from benchmarks.workloads import Row
    from erlang_interop.terms import Term

BEAM_ARGUMENTS: Final = ("+S", "1:1", "-kernel", "connect_all", "false")
"""A BEAM on one core, as our node is, whose `global` stays out of what is measured."""
GROUP_LIMIT_S: Final = 300.0
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


@dataclass
class Results:
    """All figures of all rounds."""

    contenders: Sequence[Contender]
    rounds: list[dict[str, Figures]] = field(default_factory=list)
    builds: dict[str, str] = field(default_factory=dict)
    """Contender to what its peer said of its build."""
    missing: dict[str, str] = field(default_factory=dict)
    """Title of a library whose peer cannot be built here, to why."""

    def values(self, contender: str, workload: str, figure: str) -> list[float]:
        """One figure, a value for each round that has it."""
        found = [figures.get(contender, {}).get(workload, {}).get(figure) for figures in self.rounds]
        return [value for value in found if value is not None]

    def run(self, release: int, wire: list[Cost], sender: float) -> Run:
        """The figures of all rows that were measured, with the rounds put together.

        Args:
            release: The BEAMs' OTP.
            wire: What the micro benchmark measured.
            sender: What :func:`outside.sender_limit` found.
        """
        rows = [
            MeasuredRow(row.label, row.group, row.workload, row.metric, row.title, row.is_rate, figures)
            for row in ALL_ROWS
            if (figures := {c.key: figure for c in self.contenders if (figure := self.figure(c.key, row)) is not None})
        ]
        return Run(
            date=date.today().isoformat(),
            python=platform.python_version(),
            otp=release,
            processors=os.cpu_count() or 1,
            rounds=len(self.rounds),
            contenders={c.key: ContenderInfo(c.title, self.builds[c.key]) for c in self.contenders},
            rows=rows,
            missing=self.missing,
            sender_limit=sender,
            wire=wire,
        )

    def figure(self, contender: str, row: Row) -> Figure | None:
        """One contender's figure in one row; None where nothing was measured."""
        value = Spread.of(self.values(contender, row.workload, row.metric))
        if value is None:
            return None
        ratios = None if contender == "beam" else Spread.of(self.ratios(contender, row))
        cpu = [Spread.of(self.values(contender, row.workload, f"{side}_cpu_us")) for side in ("peer", "driver")]
        return Figure(value, ratios, *(None if spread is None else spread.median for spread in cpu))

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
    syn_entries: int = 100_000,
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
        syn_entries: How many names and members syn's workloads have.
        progress: Called with a line at the start of each run.

    Raises:
        BenchmarkError: A run failed.
        BeamDiedError: A BEAM does not start.
    """
    options = {
        Atom("seconds"): seconds,
        Atom("monitors"): monitors,
        Atom("zen_monitors"): zen_monitors,
        Atom("syn_entries"): syn_entries,
    }
    with Epmd.start(root) as epmd, tempfile.TemporaryDirectory() as folder:
        present: list[Contender] = []
        results = Results(present)
        commands = {}
        for contender in contenders:
            try:
                commands[contender.key] = _command(contender, root, Path(folder))
                present.append(contender)
            except MissingPeerError as error:
                results.missing[contender.title] = str(error)
                progress(f"without {contender.title}: {error}")
        for number in range(rounds):
            results.rounds.append({})
            for contender in present if number % 2 == 0 else reversed(present):
                progress(f"round {number + 1} of {rounds}: {contender.title}")
                run = _Run(root, ebin, epmd.port, contender, commands[contender.key])
                figures, build = await run.measure(
                    [group for group in groups if contender.takes_part_in(group)], options
                )
                results.rounds[-1][contender.key] = figures
                results.builds[contender.key] = build
    return results


def _command(contender: Contender, root: Path, folder: Path) -> list[str]:
    """What starts the contender's peer, but for the node's name; nothing for a BEAM."""
    if contender.process == "beam":
        return []
    if contender.is_library:
        return library_command(contender.process, root, folder)
    return [sys.executable, "-m", "benchmarks.peer", "--process", contender.process]


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

    def __init__(self, root: Path, ebin: Path, epmd_port: int, contender: Contender, command: list[str]) -> None:
        self._root = root
        self._ebin = ebin
        self._epmd_port = epmd_port
        self._contender = contender
        self._command = command
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
            target = await self._target(peer_name, peer.os_pid, driver, float(options[Atom("seconds")]))
            for group in groups:
                if group in OUTSIDE:
                    figures |= await trio.to_thread.run_sync(MEASUREMENTS[group], target)
                    continue
                all_options = {**options, Atom("groups"): [Atom(group)], Atom("peer_os_pid"): peer.os_pid}
                source = f"bench_driver:run('{peer_name}', {format_term(all_options)})."
                for result in await self._evaluate(driver, peer, source):
                    named = {key.name: value for key, value in result.items()}
                    figures[named.pop("workload").name] = named
        return figures, peer.build

    async def _target(self, name: str, os_pid: int, driver: Beam, seconds: float) -> Target:
        alive = name.partition("@")[0]
        port = await driver.eval(f'{{port, Port, _}} = erl_epmd:port_please("{alive}", {{127,0,0,1}}), Port.')
        assert isinstance(port, int)
        return Target(
            self._contender,
            name,
            port,
            os_pid,
            self._cookie,
            driver.name,
            self._epmd_port,
            self._root,
            BEAM_ARGUMENTS,
            seconds,
        )

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
        async with self._program(name) as started:
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
    async def _program(self, name: str) -> AsyncIterator[_Peer]:
        environment = environment_of(self._contender)
        environment |= {"ZENMON_COOKIE": self._cookie, "ERL_EPMD_PORT": str(self._epmd_port)}
        with tempfile.TemporaryFile() as log:
            peer = _start([*self._command, name], environment, log)
            assert peer.stdin is not None
            assert peer.stdout is not None
            try:
                with trio.move_on_after(PEER_START_LIMIT_S):
                    await trio.lowlevel.wait_readable(peer.stdout)
                word, _, build = (peer.stdout.readline() if peer.poll() is None else b"").decode().partition(" ")
                if word.strip() != "ready":
                    raise BenchmarkError("it did not start")
                yield _Peer(peer.pid, build.strip() or build_of(self._contender), peer.stdout)
            except (BenchmarkError, ErlangInteropError) as error:
                log.seek(0)
                said = log.read().decode(errors="replace").strip() or "(nothing)"
                raise BenchmarkError(f"{self._contender.title}: {error}\nIt printed:\n{said}") from error
            finally:
                peer.kill()
                peer.wait()
                peer.stdin.close()
                peer.stdout.close()
