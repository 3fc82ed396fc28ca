"""The nodes of a cluster that is broken on purpose: BEAMs, and nodes of ours, each an operating-system process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypeAlias

import trio

from erlang_interop import Atom
from erlang_interop.etf.text import format_term
from erlang_interop.testing.beam import Beam
from tests.interop.cuttable import LOOPBACK
from tests.interop.partition_node import as_json

PROJECT: Final = Path(__file__).resolve().parents[2]
#: What a newcomer is. ``beam``: one more BEAM, the truth to compare ours with.
Mode: TypeAlias = Literal["beam", "hidden", "passive", "full"]
OURS: Final[tuple[Mode, ...]] = ("hidden", "passive", "full")
MODES: Final[tuple[Mode, ...]] = ("beam", *OURS)
ANSWER_LIMIT_S: Final = 60.0

Names: TypeAlias = dict[str, tuple[Any, ...]]
Pair: TypeAlias = frozenset[str]


class MatrixError(Exception):
    """A cluster did not become what it should be; the message has what each node saw."""


@dataclass(frozen=True)
class Down:
    """A BEAM's report: it has lost a node."""

    observer: str
    node: str
    reason: str

    @property
    def pair(self) -> Pair:
        return frozenset((self.observer, self.node))


@dataclass(frozen=True)
class View:
    """What a node sees.

    Attributes:
        visible: The nodes of ``nodes()``; of a node of ours all that are connected.
        hidden: Those of ``nodes(hidden)``.
        names: What `global` has registered: name to pid.
        told: The nodes that it has been told to be connected. Its reports of losses before that are complete then.
    """

    visible: frozenset[str]
    hidden: frozenset[str]
    names: Names
    told: frozenset[str]

    @property
    def connected(self) -> frozenset[str]:
        return self.visible | self.hidden


class Member(Protocol):
    """A node of the cluster, and its program."""

    short: str

    @property
    def name(self) -> str: ...

    @property
    def log(self) -> str: ...

    async def start(self) -> None:
        """Be a node, of a new incarnation, which is connected with nobody."""

    async def join(self, peers: Sequence[str]) -> None:
        """Connect to these nodes, as far as that can be done now."""

    async def leave(self) -> None:
        """Leave the cluster; starting again comes next."""

    async def disconnect(self) -> None:
        """Leave `global` and all its members, and be a node still."""

    async def view(self) -> View: ...

    async def hold(self, name: str) -> None: ...

    async def kill(self) -> None: ...

    def suspend(self) -> None: ...

    def resume(self) -> None: ...

    async def close(self) -> None: ...


class BeamMember:
    """A BEAM of the cluster."""

    def __init__(self, short: str, root: Path, cookie: str, epmd_port: int, ebin: Path, net_ticktime: int) -> None:
        self.short = short
        self.root = root
        self._cookie = cookie
        self._epmd_port = epmd_port
        self._ebin = ebin
        self._args = ("+S", "1:1", "-kernel", "net_ticktime", str(net_ticktime))
        self._beam: Beam | None = None

    @property
    def name(self) -> str:
        return f"{self.short}@{LOOPBACK}"

    @property
    def beam(self) -> Beam:
        assert self._beam is not None, f"{self.short} was not started"
        return self._beam

    @property
    def log(self) -> str:
        return "" if self._beam is None else self._beam.log

    async def start(self) -> None:
        await self.close()
        self._beam = await Beam.start_async(
            self.root, self.name, self._cookie, self._epmd_port, code_paths=[self._ebin], args=self._args
        )
        await self._beam.eval("partition_watch:start()")

    async def join(self, peers: Sequence[str]) -> None:
        source = "[net_kernel:connect_node(Peer) || Peer <- Peers]"
        await self.beam.eval(source, timeout=ANSWER_LIMIT_S, Peers=[Atom(peer) for peer in peers])

    async def leave(self) -> None:
        # After global:disconnect/0 in the middle of a handshake the others would dial it: only an end is a leave.
        await self.kill()

    async def disconnect(self) -> None:
        await self.beam.eval("global:disconnect()")

    async def view(self) -> View:
        source = "{nodes(), nodes(hidden), partition_watch:names(), partition_watch:up()}"
        visible, hidden, pids, told = await self.beam.eval(source, timeout=ANSWER_LIMIT_S)
        names = {str(name): tuple(as_json(pid)) for name, pid in pids}
        return View(_shorts(visible), _shorts(hidden), names, _shorts(told))

    async def hold(self, name: str) -> None:
        await self.beam.eval("partition_watch:hold_name(Name)", timeout=ANSWER_LIMIT_S, Name=Atom(name))

    async def downs(self) -> list[Down]:
        """The nodes it has lost since the last call."""
        downs = await self.beam.eval("partition_watch:downs()", timeout=ANSWER_LIMIT_S)
        return [Down(self.short, _short(node), format_term(reason)) for node, reason in downs]

    async def kill(self) -> None:
        self.beam.kill()

    def suspend(self) -> None:
        self.beam.suspend()

    def resume(self) -> None:
        self.beam.resume()

    async def close(self) -> None:
        if self._beam is not None:
            self._beam.close()
            self._beam = None


class OurMember:
    """A node of ours, in a program of its own (``partition_node.py``)."""

    def __init__(self, short: str, mode: Mode, cookie: str, epmd_port: int, net_ticktime: int) -> None:
        self.short = short
        self.mode = mode
        self._options = {
            "name": self.name,
            "epmd_port": epmd_port,
            "visible": False if mode == "hidden" else mode,
            "net_ticktime": net_ticktime,
        }
        self._cookie = cookie
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - close() closes it
        self._process: trio.Process | None = None
        self._lock = trio.Lock()
        self._buffer = b""

    @property
    def name(self) -> str:
        return f"{self.short}@{LOOPBACK}"

    @property
    def log(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    async def start(self) -> None:
        if self._process is None:
            await self._launch()
        await self._ask("join")

    async def _launch(self) -> None:
        self._buffer = b""
        self._process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "tests.interop.partition_node", json.dumps(self._options)],
            cwd=PROJECT,
            env=os.environ | {"ZENMON_COOKIE": self._cookie},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,
        )

    async def _ask(self, request: str, *arguments: str) -> Any:
        assert self._process is not None, f"{self.short} was not started"
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        async with self._lock:
            with trio.fail_after(ANSWER_LIMIT_S):
                await self._process.stdin.send_all(json.dumps([request, *arguments]).encode() + b"\n")
                while b"\n" not in self._buffer:
                    data = await self._process.stdout.receive_some()
                    if not data:
                        raise MatrixError(f"{self.short} has ended:\n{self.log}")
                    self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        done, value = json.loads(line)
        if not done:
            raise MatrixError(f"{self.short} cannot {request} {' '.join(arguments)}: {value}\n{self.log}")
        return value

    async def join(self, peers: Sequence[str]) -> None:
        await self._ask("join", *peers)

    async def leave(self) -> None:
        await self._ask("leave")

    async def disconnect(self) -> None:
        await self._ask("disconnect")

    async def view(self) -> View:
        nodes = _shorts(Atom(name) for name in await self._ask("nodes"))
        names = {name: tuple(pid) for name, pid in await self._ask("names")}
        return View(nodes, frozenset(), names, nodes)

    async def hold(self, name: str) -> None:
        await self._ask("hold", name)

    async def kill(self) -> None:
        process, self._process = self._process, None
        assert process is not None, f"{self.short} was not started"
        assert process.stdio is not None
        process.kill()
        await process.wait()
        await process.stdio.aclose()

    def suspend(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, f"{self.short} was not started"
        self._process.send_signal(number)

    async def close(self) -> None:
        if self._process is not None:
            await self.kill()
        self._log.close()


def _shorts(nodes: Iterable[Atom]) -> frozenset[str]:
    return frozenset(map(_short, nodes))


def _short(node: Atom) -> str:
    return node.name.partition("@")[0]
