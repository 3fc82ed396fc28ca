"""Run ``zenmon-node`` as its users do: as a program, with an environment of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

#: Seconds after which a test stops waiting for a program; the longest takes ten on a quiet machine.
LIMIT_S = 100.0
PROGRAM = (sys.executable, "-m", "zenmon_node")


@dataclass(frozen=True)
class Finished:
    """A command line that has come to its end."""

    status: int
    out: str
    err: str


class Command:
    """The program and its environment: no cookie and no cluster but those of the test."""

    def __init__(self, home: Path, epmd_port: int, cookie: str | None, *, program: Sequence[str] = PROGRAM) -> None:
        self._program = program
        kept = {key: value for key, value in os.environ.items() if not key.startswith("ZENMON_")}
        self.environment = kept | {"HOME": str(home), "ERL_EPMD_PORT": str(epmd_port), "PYTHONUNBUFFERED": "1"}
        if cookie is not None:
            self.environment["ZENMON_COOKIE"] = cookie

    async def __call__(self, *words: str, **environment: str) -> Finished:
        """Run it to its end."""
        with trio.fail_after(LIMIT_S):
            done = await trio.run_process(
                [*self._program, *words],
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                env=self.environment | environment,
            )
        return Finished(done.returncode, done.stdout.decode(), done.stderr.decode())

    @asynccontextmanager
    async def started(self, *words: str, **environment: str) -> AsyncIterator[Running]:
        """Run it beside the block; it is killed if it still runs at the end."""
        async with trio.open_nursery() as nursery:
            process = await nursery.start(
                partial(
                    trio.run_process,
                    [*self._program, *words],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    check=False,
                    env=self.environment | environment,
                    preexec_fn=_heed_signals,
                )
            )
            yield Running(process)
            nursery.cancel_scope.cancel()


def _heed_signals() -> None:
    """As a shell in the foreground has it: tests that run in the background inherit that these are ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class Running:
    """A command line that has not ended."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self.process = process
        self.out = Lines(process.stdout)
        self.err = Lines(process.stderr)

    async def signal(self, number: int) -> Finished:
        """Send a signal and wait for the end."""
        self.process.send_signal(number)
        return await self.end()

    async def end(self) -> Finished:
        """Wait for the end; what it printed meanwhile comes along."""
        with trio.fail_after(LIMIT_S):
            out, err = await self.out.rest(), await self.err.rest()
            return Finished(await self.process.wait(), out, err)


class Lines:
    """The lines of a stream, as they come."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._buffer = b""

    async def until(self, part: str) -> str:
        """The next line that holds ``part``."""
        with trio.fail_after(LIMIT_S):
            while True:
                line = await self._next()
                if part in line:
                    return line

    async def _next(self) -> str:
        while b"\n" not in self._buffer:
            data = await self._stream.receive_some()
            if not data:
                raise AssertionError(f"the stream ended with {self._buffer!r}")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()

    async def rest(self) -> str:
        """Everything up to the end."""
        async for data in self._stream:
            self._buffer += data
        text, self._buffer = self._buffer.decode(), b""
        return text
