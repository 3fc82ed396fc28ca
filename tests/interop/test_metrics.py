"""Metrics of a node beside a BEAM: what a Prometheus scrapes after processes were monitored and have died."""

from __future__ import annotations

import json
import secrets
import signal
from typing import TYPE_CHECKING

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from erlang_interop import Atom, Node
from erlang_interop.testing.ports import free_port
from tests.command import Command
from tests.interop.collectors import is_among_nodes
from tests.interop.zenmon import DIED, NOPROC, next_message, nothing_left, subscriptions
from zenmon_node import Compatibility, open_zen_monitor
from zenmon_node.cli import ExitStatus
from zenmon_node.metrics import serve_metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from erlang_interop.testing.beam import Beam, Epmd

COUNT = 100


async def scraped(port: int) -> dict[str, float]:
    """The page: ``name{labels}`` -> value."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n")
        answer = b"".join([part async for part in stream]).decode()
    head, _, page = answer.partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200 ")
    return {
        sample.name + "".join(f"{{{name}={value}}}" for name, value in sample.labels.items()): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


@pytest.fixture
async def proxy(beam: Beam) -> AsyncIterator[Beam]:
    """The BEAM, serving as a Proxy."""
    await beam.eval("zen_proxy:start().")
    yield beam
    await beam.eval("zen_proxy:stop().")


@pytest.fixture
async def local(beam: Beam) -> AsyncIterator[Beam]:
    """The BEAM, monitoring through the Proxies of others, with a process ``metrics`` that holds the monitors."""
    await beam.eval("zen_local:start(), collector:start(metrics).")
    yield beam
    await beam.eval("collector:stop(metrics), zen_local:stop().")


async def test_processes_of_the_beam(node: Node, proxy: Beam) -> None:
    beam = proxy
    async with open_zen_monitor(node) as zen, node.open_process() as me, trio.open_nursery() as nursery:
        address = (await nursery.start(serve_metrics, zen, "127.0.0.1", 0))[0]
        port = int(address.rpartition(":")[2])
        assert await zen.connect(beam.name) is Compatibility.COMPATIBLE
        pids = await beam.eval(f"plain_processes:spawn_many({COUNT + 1}).")
        for pid in pids:
            zen.monitor(pid, subscriber=me)
        await subscriptions(beam, COUNT + 1)
        page = await scraped(port)
        assert page["zen_monitor_local_ets_references_size"] == COUNT + 1
        assert page["zenmon_node_remotes{compatibility=compatible}"] == 1
        assert page["zenmon_node_connections{type=visible}"] == 1
        await beam.eval("plain_processes:finish_all(tl(Pids), died).", Pids=pids)
        downs = [await next_message(me) for _ in range(COUNT)]
        assert {down[4] for down in downs} == {(Atom("zen_monitor"), DIED)}
        page = await scraped(port)
        assert page["zen_monitor_local_monitor_total"] == COUNT + 1
        assert page["zen_monitor_local_connector_enqueue_total{op=subscribe}"] == COUNT + 1
        assert page["zen_monitor_local_connector_enqueue_total{op=unsubscribe}"] == 0
        assert page["zen_monitor_local_connector_sweep_total"] == COUNT + 1
        assert page["zen_monitor_local_connector_unhandled_info_total"] == 0
        assert page["zen_monitor_local_enqueue_total"] == COUNT
        assert page["zen_monitor_local_dispatcher_events_delivered_total"] == COUNT
        assert page["zen_monitor_local_dispatcher_events_processed_total"] == COUNT
        assert page["zen_monitor_local_ets_references_size"] == 1
        assert page["zen_monitor_local_batch_length"] == 0
        (info,) = node.connections
        assert page[f"zenmon_node_connection_received_bytes_total{{node={beam.name}}}"] <= info.bytes_in
        assert page[f"zenmon_node_connection_sent_messages_total{{node={beam.name}}}"] >= 1
        await beam.eval("plain_processes:finish(hd(Pids), died).", Pids=pids)
        await next_message(me)
        await nothing_left(zen)
        nursery.cancel_scope.cancel()


async def test_run_whose_processes_a_beam_monitors(local: Beam, epmd: Epmd, cookie: str, tmp_path: Path) -> None:
    """The service has its own processes only: these live, and a hundred others are not there."""
    beam = local
    name, port = f"metrics_{secrets.token_hex(4)}@127.0.0.1", free_port()
    command = Command(tmp_path, epmd.port, cookie)
    words = ["run", "--log-json", "--name", name, "--visible", "--connect", beam.name, "--metrics", f"127.0.0.1:{port}"]
    async with command.started(*words) as running:
        assert json.loads(await running.err.until("running"))["metrics"] == [f"127.0.0.1:{port}"]
        assert await is_among_nodes(beam, name, "visible")
        compatible = "zen_local:connect(N), zen_local:await_compatibility(N, compatible, 20000)."
        assert await beam.eval(compatible, N=Atom(name)) is True
        lives = ["Elixir.ZenMonitor.Local", "Elixir.ZenMonitor.Local.Dispatcher"]
        targets = [(Atom(one), Atom(name)) for one in [*lives, *(f"nobody{number}" for number in range(COUNT))]]
        await beam.eval("collector:run(metrics, zen_local, monitor_all, [Targets]).", Targets=targets)
        downs = await beam.eval(f"collector:take(metrics, {COUNT}, 20000).")
        assert [down[4] for down in downs] == [(Atom("zen_monitor"), NOPROC)] * COUNT
        page = await scraped(port)
        assert page["zen_monitor_proxy_batcher_enqueue_total"] == COUNT
        assert page["zen_monitor_proxy_batcher_sweep_total"] == COUNT
        assert page["zen_monitor_proxy_ets_subscribers_size"] == page["zenmon_node_proxy_targets"] == 2
        assert page["zenmon_node_proxy_subscribers"] == 1
        assert page["zen_monitor_proxy_message_queue_len"] == 0
        assert page["zenmon_node_malformed_total"] == 0
        assert page["process_resident_memory_bytes"] > 1_000_000
        assert (await running.signal(signal.SIGTERM)).status == ExitStatus.DONE
