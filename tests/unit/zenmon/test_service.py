"""``zenmon-node run``: what it says, how it stays connected, how it ends."""

from __future__ import annotations

import gc
import json
import math
import os
import signal
import weakref
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from erlang_interop import Atom, EpmdAddress, NodeUp, NoProcess, open_node
from erlang_interop.testing.ports import free_port
from tests.command import Command
from zenmon_node import Compatibility, ZenMonitorStopped, open_zen_monitor, service
from zenmon_node import messages as m
from zenmon_node.cli import ExitStatus
from zenmon_node.service import FULL_AFTER, ServiceOptions, run_service, settle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from erlang_interop import Node
    from zenmon_node import Settings, ZenMonitor

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


@pytest.mark.parametrize(("arguments", "kind"), [([], "hidden"), (["--visible"], "visible"), (["--global"], "visible")])
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
            takes_part = peer.call(("global_name_server", SERVICE), Atom("get_protocol_version"))
            if arguments == ["--global"]:
                assert await takes_part == 8
            else:
                with pytest.raises(NoProcess):
                    await takes_part
            done = await running.signal(signal.SIGTERM)
    assert done.status == ExitStatus.DONE
    assert "signal=SIGTERM" in done.err
    assert done.out == ""


@pytest.fixture
def collector() -> Iterator[None]:
    """The garbage collector of this program is afterwards as it was."""
    thresholds = gc.get_threshold()
    assert gc.get_freeze_count() == 0
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


@pytest.mark.usefixtures("collector")
async def test_the_garbage_collector_leaves_its_modules_alone(epmd_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERL_EPMD_PORT", str(epmd_port))
    young, middle, _ = gc.get_threshold()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_service, ServiceOptions(name=SERVICE, cookie=COOKIE, embedded_epmd=True))
        with trio.fail_after(30):
            while not gc.get_freeze_count():  # noqa: ASYNC110 - nothing tells
                await trio.sleep(0.01)
        assert gc.get_threshold() == (young, middle, FULL_AFTER)
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.usefixtures("collector")
def test_the_garbage_collector_still_finds_what_leaks() -> None:
    class Leak:
        def __init__(self) -> None:
            self.itself = self

    gone: list[None] = []
    settle()
    leak = Leak()
    weakref.finalize(leak, gone.append, None)
    del leak
    kept: list[list[None]] = []
    at_most = (FULL_AFTER + 2) * math.prod(gc.get_threshold()[:2])
    while not gone and len(kept) < at_most:
        kept.append([])
    assert gone


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
            missed = json.loads(await running.err.until("knows no node"))
            assert missed["event"] == "not connected"
            async with opened(epmd_port):
                assert json.loads(await running.err.until("node up"))["node"] == PEER
                assert (await running.signal(signal.SIGTERM)).status == ExitStatus.DONE


async def first_peer(epmd_port: int, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
    with trio.CancelScope() as scope:
        async with opened(epmd_port):
            task_status.started(scope)
            await trio.sleep_forever()


async def test_it_takes_the_settings_again_at_sighup(command: Command, tmp_path: Path) -> None:
    config = tmp_path / "zenmon.toml"
    config.write_text("[zen_monitor]\ndemand_amount = 500\n")
    words = ["run", "--log-json", "--name", SERVICE, "--embedded-epmd", "--config", str(config)]
    async with command.started(*words, ZENMON_DEMAND_INTERVAL="50") as running:
        await running.err.until("running")

        async def hang_up(text: str) -> dict[str, str]:
            config.write_text(text)
            running.process.send_signal(signal.SIGHUP)
            line: dict[str, str] = json.loads(await running.err.until("settings"))
            return line

        # The variable still wins over the file.
        line = await hang_up("[zen_monitor]\ndemand_amount = 600\ndemand_interval = 7\nbatcher_chunk_size = 9\n")
        assert (line["event"], line["level"]) == ("settings read again", "info")
        assert line["changed"] == "batcher_chunk_size 5000 -> 9, demand_amount 500 -> 600"
        line = await hang_up("[zen_monitor]\ndemand_amount = 700\nbatcher_chunk_size = 0\n")
        assert (line["event"], line["level"]) == ("the settings stay as they are", "error")
        assert "batcher_chunk_size = 0 is not allowed: it must be a whole number from 1" in line["error"]
        line = await hang_up("[zen_monitor]\n")  # what is written no more is the default again
        assert line["changed"] == "batcher_chunk_size 9 -> 5000, demand_amount 600 -> 1000"
        assert (await hang_up("[zen_monitor]\n"))["changed"] == "nothing"
        config.unlink()
        running.process.send_signal(signal.SIGHUP)
        assert "cannot be read: No such file" in json.loads(await running.err.until("settings"))["error"]
        assert (await running.signal(signal.SIGTERM)).status == ExitStatus.DONE


async def test_without_a_file_of_settings_sighup_ends_it(command: Command) -> None:
    async with command.started("run", "--name", SERVICE, "--embedded-epmd") as running:
        await running.err.until("running")
        assert (await running.signal(signal.SIGHUP)).status == -signal.SIGHUP


async def test_it_serves_metrics(command: Command, epmd_port: int) -> None:
    port = free_port()
    async with opened(epmd_port) as peer:
        words = ["run", "--log-json", "--name", SERVICE, "--connect", peer.name.name]
        async with command.started(*words, "--metrics", f"127.0.0.1:{port}") as running:
            assert json.loads(await running.err.until("running"))["metrics"] == [f"127.0.0.1:{port}"]
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n")
                page = b"".join([part async for part in stream]).decode()
            assert 'zenmon_node_connections{type="hidden"} 1.0' in page
            # Another one cannot have the same port, and does not run without.
            taken = await command("run", "--name", f"second{SERVICE}", "--metrics", f"127.0.0.1:{port}")
            assert (taken.status, taken.out) == (ExitStatus.REFUSED, "")
            assert f"zenmon-node: metrics: cannot listen on 127.0.0.1:{port}: Address already in use" in taken.err
            assert (await running.signal(signal.SIGTERM)).status == ExitStatus.DONE


async def test_it_sends_metrics_to_statsd(command: Command) -> None:
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as statsd:
        await statsd.bind(("127.0.0.1", 0))
        words = ["run", "--name", SERVICE, "--embedded-epmd", "--statsd", f"127.0.0.1:{statsd.getsockname()[1]}"]
        async with command.started(*words) as running:
            await running.err.until("running")
            assert (await running.signal(signal.SIGTERM)).status == ExitStatus.DONE
        with trio.fail_after(30):
            assert "zen_monitor.local.message_queue_len:0|g" in (await statsd.recv(65536)).decode()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metrics", "9568"], "'9568' is no address: write 'host:port'"),
        (["--statsd", "localhost"], "'localhost' is no address: write 'host:port'"),
        (["--report-interval", "0"], "--report-interval 0.0 is not allowed: it must be more than 0 seconds"),
        (["--report-interval", "nan"], "--report-interval nan is not allowed"),
    ],
)
async def test_options_that_cannot_be_used(command: Command, arguments: list[str], message: str) -> None:
    done = await command("run", "--name", SERVICE, *arguments)
    assert (done.status, done.out) == (ExitStatus.USAGE, "")
    assert message in done.err


async def test_statsd_without_the_library(command: Command, tmp_path: Path) -> None:
    (tmp_path / "datadog.py").write_text("raise ImportError('not installed')\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = await command("run", "--name", SERVICE, "--statsd", "127.0.0.1:8125", PYTHONPATH=path)
    assert done.status == ExitStatus.USAGE
    assert "pip install 'zenmon-node[statsd]'" in done.err


async def test_it_reports_whether_its_peers_speak_zenmonitor(command: Command, epmd_port: int) -> None:
    async with opened(epmd_port) as peer:
        words = ["run", "--log-json", "--name", SERVICE, "--connect", peer.name.name]
        async with command.started(*words) as running:
            line = json.loads(await running.err.until("compatibility"))
            assert (line["node"], line["status"], line["level"]) == (PEER, "incompatible", "warning")
            await peer.disconnect(SERVICE)
            assert json.loads(await running.err.until("compatibility"))["status"] == "unavailable"
            async with open_zen_monitor(peer):  # before it comes back, or a penalty later
                line = json.loads(await running.err.until('"compatible"'))
                assert (line["event"], line["node"], line["level"]) == ("compatibility", PEER, "info")
                assert (await running.signal(signal.SIGTERM)).status == ExitStatus.DONE


async def test_it_reports_what_waits(command: Command, epmd_port: int) -> None:
    """Nothing in the service monitors by itself: what can wait is what its Proxy has to report."""
    async with opened(epmd_port) as peer, open_zen_monitor(peer) as zen:
        words = ["run", "--log-json", "--name", SERVICE, "--connect", peer.name.name, "--report-interval", "0.05"]
        slow = {"ZENMON_BATCHER_SWEEP_INTERVAL": "3600000", "ZENMON_BATCHER_CHUNK_SIZE": "1"}
        async with command.started(*words, **slow) as running, peer.open_process() as me:
            await running.err.until("running")
            assert await zen.connect(SERVICE) is Compatibility.COMPATIBLE
            for number in range(100):
                zen.monitor((f"nobody{number}", SERVICE), subscriber=me)
            line = json.loads(await running.err.until("waiting"))
            assert (line["event"], line["level"]) == ("waiting", "info")
            assert line["certificates"] > 1
            assert (await running.signal(signal.SIGTERM)).status == ExitStatus.DONE


def test_the_cookie_is_in_no_repr() -> None:
    assert "geheim" not in repr(ServiceOptions(name="py@127.0.0.1", cookie="geheim"))


@pytest.mark.usefixtures("collector")
async def test_it_ends_when_zenmonitor_has_stopped(epmd_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would look alive otherwise, and monitor nothing."""
    opened_ones: list[ZenMonitor] = []

    @asynccontextmanager
    async def noted(node: Node, settings: Settings | None) -> AsyncIterator[ZenMonitor]:
        async with open_zen_monitor(node, settings) as zen:
            opened_ones.append(zen)
            yield zen

    monkeypatch.setattr(service, "open_zen_monitor", noted)
    monkeypatch.setenv("ERL_EPMD_PORT", str(epmd_port))

    async def kill_the_proxies() -> None:
        while not opened_ones:  # noqa: ASYNC110 - nothing tells when it is open
            await trio.sleep(0.01)
        node = opened_ones[0].node
        while (pid := node.whereis(m.PROXY)) is not None:
            node.exit(pid, Atom("kill"))

    with trio.fail_after(30), pytest.RaisesGroup(ZenMonitorStopped, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill_the_proxies)
            await run_service(ServiceOptions(name=SERVICE, cookie=COOKIE, embedded_epmd=True))
