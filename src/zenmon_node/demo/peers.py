"""Who the demo's Python node meets: a genuine BEAM where one is found, else a second Python node.

Both are processes of the operating system that the demo starts, and that end with it: by their process id when the
demo ends, however it ends, and by the end of the pipe they read should it be killed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Final

import trio

from erlang_interop import Atom, ErlangInteropError
from erlang_interop.runtime.epmd import default_port
from erlang_interop.testing.beam import Beam

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

#: The name that both kinds of peer answer to.
SERVER: Final = Atom("zenmon_demo")
#: What the Python one prints when it does.
READY: Final = "ready"


class PeerError(ErlangInteropError):
    """The demo's other node did not start."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The other node."""

    name: str
    description: str
    """What it is, for people: ``a genuine BEAM (OTP 28)``."""
    short: str
    """In one word: ``BEAM`` or ``Python``."""
    pid: int
    """Its operating-system process id."""
    kill: Callable[[], None]
    """End it with SIGKILL, and wait for that."""


@asynccontextmanager
async def open_peer(erlang: Path | None, name: str, cookie: str) -> AsyncIterator[Peer]:
    """Start the other node; it is gone when the block is left.

    Args:
        erlang: The folder that holds ``bin/erl``; None for a second Python node.
        name: Its node name.
        cookie: The demo's cookie.

    Raises:
        PeerError, BeamDiedError: it did not start; the message has what it printed.
    """
    async with _open_beam(erlang, name, cookie) if erlang is not None else _open_python(name, cookie) as peer:
        yield peer


@asynccontextmanager
async def _open_beam(root: Path, name: str, cookie: str) -> AsyncIterator[Peer]:
    beam = await Beam.start_async(root, name, cookie, default_port())
    try:
        await beam.eval(files(__package__).joinpath("beam_peer.script").read_text(encoding="utf-8"))
        yield Peer(name, f"a genuine BEAM, Erlang/OTP {beam.release}, from {root}", "BEAM", beam.pid, beam.kill)
    finally:
        beam.close()


@asynccontextmanager
async def _open_python(name: str, cookie: str) -> AsyncIterator[Peer]:
    process = subprocess.Popen(  # noqa: ASYNC220 - starting it takes a millisecond; its end is waited for in kill()
        [sys.executable, "-m", f"{__package__}.python_peer", name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"ZENMON_COOKIE": cookie},
        start_new_session=True,  # the interrupt key is for the demo, which ends this one itself
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def kill() -> None:
        process.kill()
        process.wait()

    try:
        if (await trio.to_thread.run_sync(process.stdout.readline)).strip() != READY.encode():
            raise PeerError(f"the second Python node did not start (exit status {process.wait()}); see above")
        yield Peer(name, "a second Python node, a process of its own", "Python", process.pid, kill)
    finally:
        kill()
        process.stdin.close()
        process.stdout.close()
