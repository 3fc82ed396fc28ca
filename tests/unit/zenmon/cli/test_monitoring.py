"""``monitor`` against a second Python node, with and without ZenMonitor there."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import termios
from typing import TYPE_CHECKING, Any

import trio

from erlang_interop import Atom, Exit, Node
from tests.command import PROGRAM
from zenmon_node import open_zen_monitor
from zenmon_node.cli import ExitStatus

if TYPE_CHECKING:
    from pathlib import Path

    from erlang_interop import Process
    from tests.command import Command, Finished

KILL = Atom("kill")


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def downs(done: Finished) -> list[tuple[str, str]]:
    """Targets and reasons of the lines of a run without ``--json``."""
    lines = [line.split(" DOWN ")[1] for line in done.out.splitlines()]
    return [(target, reason) for target, _, reason in (line.partition(" ") for line in lines)]


async def test_natively(command: Command, peer: Node) -> None:
    worker = peer.spawn(_worker, name="worker")
    other = peer.spawn(_worker)
    async with command.started("monitor", f"worker@{peer.name}", str(other), f"nobody@{peer.name}") as running:
        await running.err.until(f"monitoring 3 processes of {peer.name} natively")
        assert (await running.out.until("DOWN")).endswith(f" DOWN nobody@{peer.name} noproc")
        peer.send(worker, (Atom("stop"), (Atom("because"), "of ü")))
        assert (await running.out.until("DOWN")).endswith(f' DOWN worker@{peer.name} {{because,<<"of ü"/utf8>>}}')
        peer.exit(other, KILL)
        assert (await running.out.until("DOWN")).endswith(f" DOWN {other} killed")
        done = await running.end()
    assert done.status == ExitStatus.DONE
    assert done.err.splitlines()[-1].startswith("3 of 3 gone after ")


async def test_through_zen_monitor(command: Command, peer: Node, tmp_path: Path) -> None:
    """Several thousand from a file, and two of them on the command line too: one line each."""
    async with open_zen_monitor(peer) as zen:
        workers = [peer.spawn(_worker) for _ in range(2500)]
        path = tmp_path / "targets"
        path.write_text("# of the peer\n" + "\n".join(map(str, workers)) + f"\n\nnobody@{peer.name}\n")
        twice = [str(workers[0]), f"nobody@{peer.name}"]
        async with command.started("monitor", "--targets", str(path), *twice) as running:
            await running.err.until(f"monitoring 2,501 processes of {peer.name} through ZenMonitor")
            await running.out.until(f"nobody@{peer.name} noproc")
            with trio.fail_after(30):
                while zen.statistics().subscriptions < len(workers):  # noqa: ASYNC110 - they send no message
                    await trio.sleep(0.01)
            for worker in workers:
                peer.exit(worker, KILL)
            done = await running.end()
    assert done.status == ExitStatus.DONE
    assert sorted(downs(done)) == sorted((str(worker), "killed") for worker in workers)


async def test_targets_from_standard_input(command: Command, peer: Node) -> None:
    names = [f"nobody_{number}@{peer.name}" for number in range(10)]
    done = await trio.run_process(
        [*PROGRAM, "monitor", "--targets", "-", "--json"],
        stdin="\n".join(names).encode(),
        capture_stdout=True,
        env=command.environment,
    )
    first, *others, summary = objects(done.stdout.decode())
    assert (first["event"], first["node"], first["via"], first["targets"]) == (
        "monitoring",
        peer.name.name,
        "native",
        10,
    )
    assert [each["target"] for each in others] == names
    assert {(each["event"], each["via"], each["reason"]) for each in others} == {("DOWN", "native", "noproc")}
    assert (summary["event"], summary["gone"]) == ("summary", 10)


async def test_the_pace_is_a_setting(command: Command, peer: Node) -> None:
    async with open_zen_monitor(peer):
        done = await command("monitor", f"nobody@{peer.name}", ZENMON_DEMAND_AMOUNT="0")
        assert done.status == ExitStatus.USAGE
        assert "ZENMON_DEMAND_AMOUNT" in done.err


async def test_the_interrupt_key(command: Command, peer: Node) -> None:
    peer.spawn(_worker, name="worker")
    async with command.started("monitor", f"worker@{peer.name}", f"nobody@{peer.name}") as running:
        await running.out.until("noproc")
        done = await running.signal(signal.SIGINT)
    assert (done.status, done.out) == (ExitStatus.INTERRUPTED, "")
    assert done.err.splitlines()[-1].startswith("1 of 2 gone after ")
    assert done.err.endswith(" s, 1 left\n")


async def test_sigterm(command: Command, peer: Node) -> None:
    """What is monitored how is told before anything happens."""
    peer.spawn(_worker, name="worker")
    async with open_zen_monitor(peer), command.started("monitor", "--json", f"worker@{peer.name}") as running:
        assert json.loads(await running.out.until("monitoring"))["via"] == "zenmon"
        done = await running.signal(signal.SIGTERM)
    assert (done.status, done.err) == (ExitStatus.TERMINATED, "")
    (summary,) = objects(done.out)
    assert (summary["event"], summary["targets"], summary["gone"]) == ("summary", 1, 0)


async def test_a_reader_that_has_gone(command: Command, peer: Node) -> None:
    worker = peer.spawn(_worker, name="worker")
    async with command.started("monitor", f"worker@{peer.name}") as running:
        await running.err.until("the interrupt key ends it")
        assert running.process.stdout is not None
        await running.process.stdout.aclose()
        peer.exit(worker, KILL)
        with trio.fail_after(60):
            assert await running.process.wait() == ExitStatus.NO_READER
        assert await running.err.rest() == ""


async def test_a_reader_that_reads_nothing_does_not_stop_the_node(command: Command, peer: Node, tmp_path: Path) -> None:
    """The pipe is full and stays so; a node that stood still now would be taken for dead after a minute."""
    path = tmp_path / "targets"
    path.write_text("\n".join(f"nobody_{number:0200}@{peer.name}" for number in range(2000)))
    async with command.started("monitor", "--targets", str(path)) as running:
        assert isinstance(running.process.stdout, trio.lowlevel.FdStream)
        pipe = running.process.stdout.fileno()
        with trio.fail_after(30):
            while _unread(pipe) < fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) - os.sysconf("SC_PAGESIZE"):  # noqa: ASYNC110
                await trio.sleep(0.01)
        (name,) = peer.nodes("hidden")
        for _ in range(20):
            assert await peer.ping(name, timeout=20)
        running.process.send_signal(signal.SIGINT)
        with trio.fail_after(60):
            assert await running.process.wait() == ExitStatus.INTERRUPTED


def _unread(pipe: int) -> int:
    """Bytes in a pipe."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), "little")


async def _worker(process: Process) -> None:
    message = await process.receive()
    raise Exit(message[1])
