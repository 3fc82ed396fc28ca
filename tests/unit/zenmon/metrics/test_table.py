"""The table of metrics: the original's names and tags, what each row reads, and the page that documents them."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from erlang_interop import Atom, Exit
from tests.unit.zenmon.test_app import nothing_left, subscribed
from zenmon_node import Cached, CachedCompatibility, Remote, Statistics
from zenmon_node.counters import Counters
from zenmon_node.metrics import METRICS, Snapshot

if TYPE_CHECKING:
    from erlang_interop import Process
    from tests.unit.zenmon.conftest import Pair
    from zenmon_node import ZenMonitor

PAGE = Path(__file__).parents[4] / "docs" / "metrics.md"

#: Name, kind and tags in ZenMonitor 2.1.0: ``metrics.ex``, and every call of ``increment`` in its ``lib``.
ORIGINALS = {
    ("zen_monitor.local.message_queue_len", "gauge", ()),
    ("zen_monitor.proxy.message_queue_len", "gauge", ()),
    ("zen_monitor.local.batch_length", "gauge", ()),
    ("zen_monitor.local.ets.references.size", "gauge", ()),
    ("zen_monitor.proxy.ets.subscribers.size", "gauge", ()),
    ("zen_monitor.local.monitor", "counter", ()),
    ("zen_monitor.local.demonitor", "counter", ()),
    ("zen_monitor.local.enqueue", "counter", ()),
    ("zen_monitor.local.connector.enqueue", "counter", ("op",)),
    ("zen_monitor.local.connector.sweep", "counter", ()),
    ("zen_monitor.local.connector.unhandled_info", "counter", ()),
    ("zen_monitor.local.dispatcher.events.delivered", "counter", ()),
    ("zen_monitor.local.dispatcher.events.processed", "counter", ()),
    ("zen_monitor.proxy.batcher.enqueue", "counter", ()),
    ("zen_monitor.proxy.batcher.sweep", "counter", ()),
}


def read(snapshot: Snapshot) -> dict[str, object]:
    """Name -> value, or values by labels."""
    found: dict[str, object] = {}
    for metric in METRICS:
        values = metric.values(snapshot)
        assert all(len(labels) == len(metric.labels) for labels in values), metric.name
        found[metric.name] = values[()] if metric.labels == () else dict(values)
    return found


def of(zen: ZenMonitor) -> dict[str, object]:
    return read(Snapshot.of(zen))


def test_the_originals_are_all_there_and_ours_are_told_apart() -> None:
    rows = [(metric.name, metric.kind, metric.labels) for metric in METRICS]
    assert len(rows) == len({name for name, _, _ in rows})
    assert {row for row in rows if row[0].startswith("zen_monitor.")} == ORIGINALS
    assert all(name.startswith(("zen_monitor.", "zenmon_node.")) for name, _, _ in rows)


def test_every_row_reads_what_it_says() -> None:
    # Each number is another one, so that no two can be mixed up.
    statistics = Statistics(**{field.name: 100 + number for number, field in enumerate(fields(Statistics))})
    counters = Counters(**{field.name: 200 + number for number, field in enumerate(fields(Counters))})
    remotes = [
        Remote(Atom(f"{status.value}{number}@host"), CachedCompatibility(status), 0, 0, 0, 0, 0, 0)
        for status, count in ((Cached.COMPATIBLE, 3), (Cached.UNAVAILABLE, 2))
        for number in range(count)
    ]
    assert read(Snapshot(statistics, counters, remotes, [])) == {
        "zen_monitor.local.message_queue_len": statistics.waiting_cleanups,
        "zen_monitor.proxy.message_queue_len": statistics.waiting_remote_instructions,
        "zen_monitor.local.batch_length": statistics.waiting_downs,
        "zen_monitor.local.ets.references.size": statistics.monitors,
        "zen_monitor.proxy.ets.subscribers.size": statistics.subscription_rows,
        "zen_monitor.local.monitor": counters.monitors,
        "zen_monitor.local.demonitor": counters.demonitors,
        "zen_monitor.local.enqueue": counters.enqueued_downs,
        "zen_monitor.local.connector.enqueue": {
            ("subscribe",): counters.enqueued_subscribes,
            ("unsubscribe",): counters.enqueued_unsubscribes,
        },
        "zen_monitor.local.connector.sweep": counters.swept_instructions,
        "zen_monitor.local.connector.unhandled_info": counters.unhandled_messages,
        "zen_monitor.local.dispatcher.events.delivered": counters.delivered_downs,
        "zen_monitor.local.dispatcher.events.processed": counters.processed_downs,
        "zen_monitor.proxy.batcher.enqueue": counters.enqueued_certificates,
        "zen_monitor.proxy.batcher.sweep": counters.swept_certificates,
        "zenmon_node.local.subscribers": statistics.subscribers,
        "zenmon_node.local.connectors": statistics.connectors,
        "zenmon_node.local.waiting_instructions": statistics.waiting_instructions,
        "zenmon_node.proxy.targets": statistics.subscriptions,
        "zenmon_node.proxy.subscribers": statistics.remote_subscribers,
        "zenmon_node.proxy.waiting_certificates": statistics.waiting_certificates,
        "zenmon_node.remotes": {
            ("compatible",): 3,
            ("incompatible",): 0,
            ("expired",): 0,
            ("unavailable",): 2,
            ("miss",): 0,
        },
        "zenmon_node.malformed": statistics.malformed,
        "zenmon_node.contained_crashes": counters.contained_crashes,
        "zenmon_node.connections": {("hidden",): 0, ("visible",): 0},
        "zenmon_node.connection.received_bytes": {},
        "zenmon_node.connection.sent_bytes": {},
        "zenmon_node.connection.received_messages": {},
        "zenmon_node.connection.sent_messages": {},
        "zenmon_node.connection.unsent_bytes": {},
    }


async def ending(process: Process) -> None:
    raise Exit(await process.receive())


async def test_they_tell_what_has_happened(pair: Pair) -> None:
    await pair.zen.connect(pair.there.name)
    pids = [pair.there.spawn(ending) for _ in range(5)]
    async with pair.here.open_process() as me:
        refs = [pair.zen.monitor(pid, subscriber=me) for pid in [*pids, pids[0]]]
        await subscribed(pair.there_zen, 5)
        pair.zen.demonitor(refs[1])
        await subscribed(pair.there_zen, 4)
        here, there = of(pair.zen), of(pair.there_zen)
        assert here["zen_monitor.local.ets.references.size"] == 5
        assert here["zenmon_node.local.subscribers"] == 1
        assert here["zenmon_node.remotes"] == dict.fromkeys(((one.value,) for one in Cached), 0) | {("compatible",): 1}
        assert there["zen_monitor.proxy.ets.subscribers.size"] == 4
        assert there["zenmon_node.proxy.subscribers"] == 1
        for pid in pids:
            me.send(pid, Atom("bye"))
        for _ in range(5):
            await me.receive(timeout=10)
    await nothing_left(pair.zen, pair.there_zen)
    here, there = of(pair.zen), of(pair.there_zen)
    assert here["zen_monitor.local.monitor"] == 6
    assert here["zen_monitor.local.demonitor"] == 1
    assert here["zen_monitor.local.connector.enqueue"] == {("subscribe",): 5, ("unsubscribe",): 1}
    assert here["zen_monitor.local.connector.sweep"] == 6
    assert here["zen_monitor.local.enqueue"] == 5
    assert here["zen_monitor.local.dispatcher.events.delivered"] == 5
    assert here["zen_monitor.local.dispatcher.events.processed"] == 5
    assert there["zen_monitor.proxy.batcher.enqueue"] == 4
    assert there["zen_monitor.proxy.batcher.sweep"] == 4
    for name, kind, _ in ORIGINALS:
        if kind == "gauge":
            assert here[name] == there[name] == 0, name


async def test_connections(pair: Pair) -> None:
    assert of(pair.zen)["zenmon_node.connections"] == {("hidden",): 0, ("visible",): 0}
    await pair.here.connect(pair.there.name)
    found = of(pair.zen)
    assert found["zenmon_node.connections"] == {("hidden",): 1, ("visible",): 0}
    (info,) = pair.here.connections
    assert found["zenmon_node.connection.received_bytes"] == {("there@127.0.0.1",): info.bytes_in}
    assert found["zenmon_node.connection.sent_bytes"] == {("there@127.0.0.1",): info.bytes_out}
    assert found["zenmon_node.connection.received_messages"] == {("there@127.0.0.1",): info.messages_in}
    assert found["zenmon_node.connection.sent_messages"] == {("there@127.0.0.1",): info.messages_out}
    assert found["zenmon_node.connection.unsent_bytes"] == {("there@127.0.0.1",): 0}


def test_the_page_lists_them() -> None:
    listed = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `zen")]
    assert listed == [
        f"| `{metric.name}` | {metric.kind} | {', '.join(f'`{label}`' for label in metric.labels)} | {metric.help} |"
        for metric in METRICS
    ]
