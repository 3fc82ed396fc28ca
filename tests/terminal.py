"""A program on a terminal of its own, as somebody at a keyboard has it."""

from __future__ import annotations

import os
import pty
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

#: Seconds after which a test stops waiting for what should have come at once.
PATIENCE = 60.0


class Terminal:
    """What a program prints.

    Attributes:
        output: All of it so far.
    """

    def __init__(self, process: trio.Process, screen: int) -> None:
        self._process = process
        self._screen = screen
        self.output = ""

    async def until(self, part: str) -> None:
        """Return when it has printed ``part``. Fails if it ends before, or takes too long."""
        with trio.move_on_after(PATIENCE):
            while part not in self.output and await self._read():
                pass
        assert part in self.output

    async def end(self) -> int:
        """Wait for its end; the exit status."""
        with trio.move_on_after(PATIENCE):
            while await self._read():
                pass
            return await self._process.wait()
        raise AssertionError(f"it goes on; it has printed {self.output!r}")

    async def _read(self) -> bool:
        """Read more; False at its end."""
        await trio.lowlevel.wait_readable(self._screen)
        try:
            data = os.read(self._screen, 65536)
        except OSError:  # EIO: nobody has the terminal open any more
            return False
        self.output += data.decode(errors="replace")
        return data != b""


@asynccontextmanager
async def on_a_terminal(
    command: Sequence[str], environment: Mapping[str, str], folder: Path
) -> AsyncIterator[Terminal]:
    """Run a program on a terminal for as long as the block runs; it is killed then.

    Args:
        command: Program and arguments.
        environment: All of it.
        folder: Where it runs.
    """
    screen, device = pty.openpty()
    try:
        process = await trio.lowlevel.open_process(
            command, stdin=device, stdout=device, stderr=device, env=environment, cwd=folder, start_new_session=True
        )
        os.close(device)
        try:
            yield Terminal(process, screen)
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
    finally:
        os.close(screen)
