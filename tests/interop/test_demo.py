"""``zenmon-node demo``, as its users see it: with each OTP, with and without EPMD, in a pipe and on a terminal."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from erlang_interop.testing.ports import free_port
from tests.command import PROGRAM, Command
from zenmon_node.cli import ExitStatus

if TYPE_CHECKING:
    from pathlib import Path

    from erlang_interop.testing.beam import Epmd
    from tests.conftest import Otp


@pytest.fixture
def command(tmp_path: Path, otp: Otp) -> Command:
    """The program where ``erl`` on PATH is the OTP under test, and nothing is on EPMD's port."""
    command = Command(tmp_path, free_port(), None)
    path = f"{otp.root / 'bin'}{os.pathsep}{command.environment['PATH']}"
    command.environment |= {"PATH": path, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    return command


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def expect_the_tour(text: str, kind: str) -> int:
    """Check what has been told. Returns the process id of the other node."""
    assert f"10,000 {kind} processes, monitored from Python" in text
    # On a quiet machine ten of 1,000; on a busy one two deliveries may be taken at once.
    batches = re.findall(r"after +[\d.]+ s: +([\d,]+) DOWNs, [\d,]+ of 10,000", text)
    assert len(batches) >= 4
    assert sum(int(batch.replace(",", "")) for batch in batches) == 10_000
    # The sums are those of the lines above them.
    assert f"10,000 DOWNs in {len(batches)} batches, the last after " in text
    (messages,) = re.findall(r"10,001 subscriptions took (\d+) messages", text)
    assert int(messages) >= 3  # of at most 5,000 each
    assert re.search(r"reported 10,000 deaths in \d+ message", text)
    assert "Reasons: 10,000 times killed." in text
    assert "{nobody,'py_" in text
    assert '500 times {disk_full,<<"/var">>}' in text
    assert "500 times normal" in text
    assert "its reason is noconnection" in text
    assert "Reasons: 2,000 times nodedown." in text
    assert "is down. The Python node lives on" in text
    (pid,) = re.findall(r"process (\d+) of this machine", text)
    return int(pid)


async def test_in_a_pipe_without_epmd(command: Command, otp: Otp) -> None:
    done = await command("demo")
    assert (done.status, done.err) == (ExitStatus.DONE, "")
    assert f"a genuine BEAM, Erlang/OTP {otp.release}" in done.out
    assert not is_running(expect_the_tour(done.out, "BEAM"))
    assert "\x1b" not in done.out


async def test_beside_an_epmd(command: Command, epmd: Epmd) -> None:
    port = str(epmd.port)
    done = await command("demo", ERL_EPMD_PORT=port)
    assert (done.status, done.err) == (ExitStatus.DONE, "")
    assert f"registered with EPMD on port {port}" in done.out
    assert "py_" not in (await command("names", ERL_EPMD_PORT=port)).out


async def test_the_interrupt_key_leaves_nothing(command: Command) -> None:
    async with command.started("demo") as running:
        line = await running.out.until("of this machine")
        (pid,) = re.findall(r"process (\d+) of this machine", line)
        assert is_running(int(pid))
        await running.out.until("DOWNs, ")
        done = await running.signal(signal.SIGINT)
    assert (done.status, done.err) == (ExitStatus.INTERRUPTED, "")
    assert not is_running(int(pid))


def test_on_a_terminal(command: Command) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*PROGRAM, "demo"],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.PIPE,
        env=command.environment | {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "50"},
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                data = os.read(ours, 65536)
            except OSError:  # EIO: the other side is closed
                break
            if not data:
                break
            shown += data
        assert process.stderr is not None
        assert process.stderr.read() == b""
    os.close(ours)
    assert process.returncode == ExitStatus.DONE
    text = shown.decode()
    assert "\x1b[" in text
    assert "█" in text
    assert "10,000 of 10,000 DOWNs" in text
    assert "Everything that was started has ended." in text


async def test_with_no_beam_at_all(tmp_path: Path) -> None:
    command = Command(tmp_path, free_port(), None)
    done = await command("demo", PATH=str(tmp_path / "empty"), XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert (done.status, done.err) == (ExitStatus.DONE, "")
    assert "since no BEAM was found" in done.out
    assert not is_running(expect_the_tour(done.out, "Python"))
