"""What a Prometheus reads: checked with the parsers of prometheus-client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from zenmon_node.metrics import METRICS, ZenMonitorCollector
from zenmon_node.metrics.prometheus import Page

if TYPE_CHECKING:
    from tests.unit.zenmon.conftest import Pair


async def test_every_metric_is_on_the_page_with_its_type_and_help(pair: Pair) -> None:
    await pair.here.connect(pair.there.name)
    body, content_type = await Page(pair.zen).render("")
    assert content_type.startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in parse_text(body.decode())}
    for metric in METRICS:
        family = families[metric.name.replace(".", "_")]
        assert (family.type, family.documentation) == (metric.kind, metric.help)
        suffix = "_total" if metric.kind == "counter" else ""
        assert {sample.name for sample in family.samples} == {family.name + suffix}
        assert all(tuple(sample.labels) == metric.labels for sample in family.samples)
    assert "process_resident_memory_bytes" in families


async def test_openmetrics_for_a_client_that_asks_for_it(pair: Pair) -> None:
    body, content_type = await Page(pair.zen).render("application/openmetrics-text; version=1.0.0,text/plain;q=0.5")
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert "zen_monitor_local_monitor" in {family.name for family in parse_openmetrics(body.decode())}  # type: ignore[no-untyped-call]


async def test_in_a_registry_of_ones_own(pair: Pair) -> None:
    registry = CollectorRegistry()
    registry.register(ZenMonitorCollector(pair.zen))
    await pair.zen.connect(pair.there.name)
    async with pair.here.open_process() as me:
        pair.zen.demonitor(pair.zen.monitor(("nobody", pair.there.name), subscriber=me))
    value = registry.get_sample_value
    assert value("zen_monitor_local_monitor_total") == 1
    assert value("zen_monitor_local_connector_enqueue_total", {"op": "unsubscribe"}) == 1
    assert value("zenmon_node_connections", {"type": "hidden"}) == 1
