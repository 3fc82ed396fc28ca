"""``zenmon-node run``: what it says, how it stays connected, how it ends."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import pytest
import trio

from erlang_interop import Atom, EpmdAddress, NodeUp, open_node
from tests.command import Command
from tests.support import free_port
from zenmon_node import Compatibility, open_zen_monitor
from zenmon_node.cli import ExitStatus
from zenmon_node.service import ServiceOptions

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from erlang_interop import Node

COOKIE = "the cookie of these tests"
PEER = f"peer{os.getpid()}@127.0.0.1"
SERVICE = f"service{os.getpid()}@127.0.0.1"


@pytest.fixture
def epmd_port() -> int:
    return free_port()


@pytest.fixture
def command(tmp_path: Path, epmd_port: int) -> Command:
    return Command(tmp_path, epmd_port, COOKIE)


def opened(epmd_port: int, name: str = PEER) -> AbstractAsyncContextManager[Node]:
    return open_node(name, cookie=COOKIE, epmd=EpmdAddress(port=epmd_port), embedded_epmd=True)


@pytest.mark.parametrize(("arguments", "kind"), [([], "hidden"), (["--visible"], "visible")])
async def test_it_serves_zenmonitor_until_it_is_told_to_end(
    command: Command, epmd_port: int, arguments: list[str], kind: str
) -> None:
    async with opened(epmd_port) as peer, open_zen_monitor(peer) as zen, peer.monitor_nodes() as events:
        words = ["run", "--name", SERVICE, "--connect", peer.name.name, *arguments]
        async with command.started(*words) as running:
            assert await anext(events) == NodeUp(Atom(SERVICE), kind)  # type: ignore[arg-type]
            line = await running.err.until("running")
            assert f"name={SERVICE}" in line
            assert f"type={kind}" in line
            assert await zen.connect(SERVICE) is Compatibility.COMPATIBLE
            done = await running.signal(signal.SIGTERM)
    assert done.status == ExitStatus.DONE
    assert "signal=SIGTERM" in done.err
    assert done.out == ""


async def test_the_interrupt_key_ends_it_too(command: Command) -> None:
    async with command.started("run", "--name", SERVICE, "--embedded-epmd") as running:
        await running.err.until("running")
        done = await running.signal(signal.SIGINT)
    assert done.status == ExitStatus.DONE
    assert "Traceback" not in done.err


async def test_it_comes_back_to_the_nodes_it_was_told_of(
    command: Command, epmd_port: int, nursery: trio.Nursery
) -> None:
    async with opened(epmd_port, "epmd@127.0.0.1"):
        words = ["run", "--log-json", "--name", SERVICE, "--connect", PEER]
        # A task of its own for the first peer: it ends while the command, which started later, goes on.
        leave = await nursery.start(first_peer, epmd_port)
        async with command.started(*words) as running:
            up = json.loads(await running.err.until("node up"))
            assert (up["node"], up["type"], up["level"]) == (PEER, "hidden", "info")
            leave.cancel()
            down = json.loads(await running.err.until("node down"))
            assert (down["node"], down["reason"], down["level"]) == (PEER, "connection_closed", "warning")
            missed = json.loads(await running.err.until("not connected"))
            assert "knows no node" in missed["error"]
            async with opened(epmd_port):
                assert json.loads(await running.err.until("node up"))["node"] == PEER
                assert (await running.signal(signal.SIGTERM)).status == ExitStatus.DONE


async def first_peer(epmd_port: int, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
    with trio.CancelScope() as scope:
        async with opened(epmd_port):
            task_status.started(scope)
            await trio.sleep_forever()


def test_the_cookie_is_in_no_repr() -> None:
    assert "geheim" not in repr(ServiceOptions(name="py@127.0.0.1", cookie="geheim"))
