"""``zenmon-node monitor`` against BEAMs with and without ZenMonitor, in a pipe and on a terminal."""

from __future__ import annotations

import json
import os
import pty
import secrets
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from erlang_interop import Atom, Pid
from tests.command import LIMIT_S, PROGRAM, Command
from zenmon_node.cli import ExitStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from erlang_interop.testing.beam import Beam, Epmd
    from tests.command import Running
    from tests.conftest import BeamFactory

#: Processes of each kind (named, or by pid) on each BEAM.
EACH = 750
#: The program, which gives a Proxy that is restarted two minutes: a machine under load may be late.
PATIENT = (
    sys.executable,
    "-c",
    "import sys; from zenmon_node import cli; from zenmon_node.local import remote; "
    "remote.BASE_PENALTY = 60.0; sys.exit(cli.main())",
)


@pytest.fixture
def name() -> str:
    """A registered name that no other test has."""
    return f"cli_{secrets.token_hex(4)}"


class Told:
    """What a run with ``--json`` has written so far."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self.objects: list[dict[str, Any]] = []

    async def until(self, event: str, count: int = 1) -> list[dict[str, Any]]:
        """All objects with that event, as soon as there are ``count`` of them."""
        while len(found := [each for each in self.objects if each["event"] == event]) < count:
            self.objects.append(json.loads(await self._running.out.until("")))
        return found

    async def downs(self, count: int) -> set[tuple[str, str]]:
        """Targets and reasons, as soon as there are so many; each target is there once."""
        found = {(each["target"], each["reason"]) for each in await self.until("DOWN", count)}
        assert len({target for target, _ in found}) == len(await self.until("DOWN"))
        return found


async def test_plain(command: Command, fresh_beam: BeamFactory, name: str) -> None:
    beam = fresh_beam()
    await beam.eval(f"plain_processes:spawn_named({name}).")
    pid = await beam.eval("plain_processes:spawn_waiting().")
    assert isinstance(pid, Pid)
    async with command.started("monitor", f"{name}@{beam.name}", str(pid), f"nobody@{beam.name}") as running:
        assert (await running.out.until("DOWN")).endswith(f" DOWN nobody@{beam.name} noproc")
        assert await beam.eval(f"plain_processes:await_monitored({name}, 1, 20000).") is True
        await beam.eval(f"plain_processes:finish({name}, {{shutdown, [1, two]}}).")
        assert (await running.out.until("DOWN")).endswith(f" DOWN {name}@{beam.name} {{shutdown,[1,two]}}")
        await beam.eval("plain_processes:kill(P).", P=pid)
        assert (await running.out.until("DOWN")).endswith(f" DOWN {pid} killed")
        done = await running.end()
    assert (done.status, done.out) == (ExitStatus.DONE, "")
    assert f"3 processes of {beam.name} natively" in done.err
    assert done.err.splitlines()[-1].startswith("3 of 3 gone after ")


async def test_json_until_the_node_is_killed(command: Command, fresh_beam: BeamFactory, name: str) -> None:
    beam = fresh_beam()
    pid = await beam.eval(f"plain_processes:spawn_named({name}).")
    async with command.started("monitor", "--json", str(pid)) as running:
        assert await beam.eval(f"plain_processes:await_monitored({name}, 1, 20000).") is True
        beam.kill()
        (line,) = await Told(running).until("DOWN")
        assert (await running.end()).status == ExitStatus.DONE
    del line["time"]
    assert line == {
        "event": "DOWN",
        "target": str(pid),
        "node": beam.name,
        "via": "native",
        "object": str(pid),
        "reason": "noconnection",
    }


class Half:
    """The targets on one BEAM, by the word that is monitored: half of them by name, half by pid."""

    def __init__(self, beam: Beam, names: list[str], pids: list[Pid]) -> None:
        self.beam = beam
        self.names = names
        self.pids = pids
        self.strangers = [f"nobody_{number}@{beam.name}" for number in range(5)]

    @classmethod
    async def spawn(cls, beam: Beam) -> Half:
        named = await beam.eval('plain_processes:spawn_many_named("worker", N).', N=EACH)
        pids = await beam.eval("plain_processes:spawn_many(N).", N=EACH)
        assert isinstance(named, list)
        assert isinstance(pids, list)
        return cls(beam, [each[0].name for each in named], pids)

    @property
    def words(self) -> list[str]:
        return [f"{name}@{self.beam.name}" for name in self.names] + list(map(str, self.pids))

    async def end(self, which: slice) -> set[tuple[str, str]]:
        """Let some of each kind end. Returns what is to be told of them."""
        names, pids = self.names[which], self.pids[which]
        source = (
            "plain_processes:finish_all([whereis(N) || N <- Names], {shutdown, done}), plain_processes:kill_all(Pids)"
        )
        await self.beam.eval(source, Names=list(map(Atom, names)), Pids=pids)
        return {(f"{name}@{self.beam.name}", "{shutdown,done}") for name in names} | {
            (str(pid), "killed") for pid in pids
        }


async def test_three_thousand_on_two_nodes(command: Command, fresh_beam: BeamFactory, tmp_path: Path) -> None:
    """One node has ZenMonitor and is killed, the other one has not. Every target is told of once."""
    with_zen, without = fresh_beam(), fresh_beam()
    await with_zen.eval("zen_proxy:start().")
    first, second = await Half.spawn(with_zen), await Half.spawn(without)
    path = tmp_path / "targets"
    words = [word for half in (first, second) for word in [*half.strangers, *half.words]]
    path.write_text("\n".join(words))
    async with command.started("monitor", "--json", "--targets", str(path)) as running:
        told = Told(running)
        beginning = {(each["node"], each["via"], each["targets"]) for each in await told.until("monitoring", 2)}
        count = len(words) // 2
        assert beginning == {(with_zen.name, "zenmon", count), (without.name, "native", count)}
        # Nobody has the names of the strangers, which is told at once.
        expected = {(word, "noproc") for half in (first, second) for word in half.strangers}
        assert await told.downs(len(expected)) == expected
        assert await with_zen.eval("zen_proxy:await_subscriptions(N, 20000).", N=2 * EACH) is True
        assert await without.eval("plain_processes:await_monitored(P, 1, 20000).", P=second.pids[-1]) is True

        for half in (first, second):
            expected |= await half.end(slice(500))
        assert await told.downs(len(expected)) == expected

        with_zen.kill()
        gone = {word for word, _ in expected}
        expected |= {(word, "nodedown") for word in first.words if word not in gone}
        assert await told.downs(len(expected)) == expected
        (nodedown,) = await told.until("nodedown")
        assert (nodedown["node"], nodedown["reason"]) == (with_zen.name, "connection_closed")

        expected |= await second.end(slice(500, None))
        assert await told.downs(len(expected)) == expected
        (summary,) = await told.until("summary")
        done = await running.end()
    assert (done.status, done.out, done.err) == (ExitStatus.DONE, "", "")
    assert {target for target, _ in expected} == set(words)
    downs = await told.until("DOWN")
    assert {each["via"] for each in downs if each["node"] == with_zen.name} == {"zenmon"}
    assert {each["via"] for each in downs if each["node"] == without.name} == {"native"}
    assert (summary["targets"], summary["gone"]) == (len(words), len(words))
    one, other = summary["nodes"][with_zen.name], summary["nodes"][without.name]
    assert (one["state"], other["state"]) == ("nodedown", "done")
    assert one["batches_sent"] >= 1
    assert one["batches_received"] >= 2  # of the strangers, and of those that ended


async def test_a_proxy_that_is_killed_costs_no_line(
    tmp_path: Path, epmd: Epmd, cookie: str, fresh_beam: BeamFactory
) -> None:
    command, beam = Command(tmp_path, epmd.port, cookie, program=PATIENT), fresh_beam()
    await beam.eval("zen_proxy:start().")
    pids = await beam.eval("plain_processes:spawn_many(100).")
    assert isinstance(pids, list)
    async with command.started("monitor", "--json", *map(str, pids)) as running:
        told = Told(running)
        assert await beam.eval("zen_proxy:await_subscriptions(100, 20000).") is True
        await beam.eval("zen_proxy:kill().")
        news = await told.until("compatibility", 2)
        assert [each["status"] for each in news] == ["incompatible", "compatible"]
        assert await beam.eval("zen_proxy:await_subscriptions(100, 20000).") is True
        await beam.eval("plain_processes:kill_all(All).", All=pids)
        assert await told.downs(len(pids)) == {(str(pid), "killed") for pid in pids}
        await told.until("summary")
        assert (await running.end()).status == ExitStatus.DONE


class Screen:
    """What a command writes to its terminal."""

    def __init__(self, ours: int, process: subprocess.Popen[bytes]) -> None:
        self._ours = ours
        self.process = process
        self._shown = b""

    async def until(self, *parts: str) -> None:
        """Wait until all of these have been shown at some time."""
        with trio.fail_after(LIMIT_S):
            while not all(part in self.text for part in parts):
                assert await self._read(), f"it ended without {parts}: {self.text[-2000:]}"

    async def end(self) -> int:
        """Wait for the end. Returns the exit status."""
        with trio.fail_after(LIMIT_S):
            while await self._read():
                pass
            return await trio.to_thread.run_sync(self.process.wait)

    async def _read(self) -> bool:
        try:
            data = await trio.to_thread.run_sync(os.read, self._ours, 65536, abandon_on_cancel=True)
        except OSError:  # EIO: the other side is closed
            return False
        self._shown += data
        return bool(data)

    @property
    def text(self) -> str:
        """All of it, with the codes that move the cursor and paint."""
        return self._shown.decode(errors="ignore")

    @property
    def last_picture(self) -> list[str]:
        """The lines of the last table, as a person sees them when it has ended."""
        plain = self.text.replace("\x1b[?25h", "").split("\x1b[2K")[-1]
        return [line.strip() for line in plain.replace("\x1b[0m", "").splitlines()]


@asynccontextmanager
async def on_a_terminal(command: Command, *words: str) -> AsyncIterator[Screen]:
    ours, theirs = pty.openpty()
    environment = {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "30", "NO_COLOR": "1"}
    process = subprocess.Popen(  # noqa: ASYNC220 - starting it takes a millisecond
        [*PROGRAM, *words],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env=command.environment | environment,
    )
    os.close(theirs)
    try:
        yield Screen(ours, process)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


async def test_on_a_terminal(command: Command, fresh_beam: BeamFactory, tmp_path: Path) -> None:
    beam, other = fresh_beam(), fresh_beam()
    await beam.eval("zen_proxy:start().")
    pids = await beam.eval("plain_processes:spawn_many(1500).")
    assert isinstance(pids, list)
    await other.eval("plain_processes:spawn_named(worker).")
    path = tmp_path / "targets"
    path.write_text("\n".join([f"worker@{other.name}", *map(str, pids)]))
    async with on_a_terminal(command, "monitor", "--targets", str(path)) as screen:
        await screen.until(
            "0 of 1,501 gone after", beam.name, "ZenMonitor", "compatible", other.name, "native", "DOWN/s"
        )
        assert await beam.eval("zen_proxy:await_subscriptions(1500, 20000).") is True
        assert await other.eval("plain_processes:await_monitored(worker, 1, 20000).") is True
        await beam.eval("plain_processes:kill_all(All).", All=pids)
        await screen.until("1,500 of 1,501 gone after", "killed")
        other.kill()
        assert await screen.end() == ExitStatus.DONE
    assert screen.text.rstrip().endswith("\x1b[?25h")  # the cursor is there again
    picture = screen.last_picture
    assert "1,501 of 1,501 gone after" in picture[0]
    assert any(line.startswith(beam.name) and "done" in line and "1,500" in line for line in picture)
    assert any(line.startswith(other.name) and "nodedown" in line for line in picture)
    assert any(f"worker@{other.name} noconnection" in line for line in picture)
    assert len(screen.text) < 1_000_000  # it does not draw each of them


async def test_the_interrupt_key_on_a_terminal(command: Command, beam: Beam, name: str) -> None:
    await beam.eval(f"plain_processes:spawn_named({name}).")
    async with on_a_terminal(command, "monitor", f"{name}@{beam.name}", f"nobody@{beam.name}") as screen:
        await screen.until("1 of 2 gone after", "noproc")
        screen.process.send_signal(signal.SIGINT)
        assert await screen.end() == ExitStatus.INTERRUPTED
    assert screen.text.rstrip().endswith("\x1b[?25h")
    assert "1 of 2 gone after" in screen.last_picture[0]
    assert "Traceback" not in screen.text
    await beam.eval(f"plain_processes:kill({name}).")
