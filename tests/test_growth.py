"""What measures growth, with few of everything: it runs, and its tables say what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from benchmarks import growth, growth_node
from benchmarks.growth_items import GROUPS, Steps

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("key", GROUPS)
def test_each_group_times_its_steps(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.growth_items.CALLS", 3)
    steps = Steps()
    trio.run(GROUPS[key].run, steps, 12)
    assert steps.cost.keys() == steps.collecting.keys()
    assert steps.cost
    assert all(cost > 0 for cost in steps.cost.values())


@pytest.mark.parametrize(("series", "number"), [("connections", 2), ("monitors", 3), ("processes", 20)])
def test_each_series_measures_messages(series: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth_node, "BURSTS", 2)
    monkeypatch.setattr(growth_node, "REPEATS", 1)
    costs = trio.run(growth_node.run, series, number)
    assert len(costs) >= 3
    assert all(cost > 0 for cost in costs.values())


FLAT = growth.Line("Names", "names", "registered", [10, 1000], [1.0, 1.1], [0.0, 0.0])
STEEP = growth.Line("Names", "names", "searched", [10, 1000], [1.0, 30.0], [0.0, 5.0])
COLLECTED = growth.Line("Links", "links", "set", [10, 1000], [1.0, 3.0], [0.0, 2.0])


def test_tables_and_what_grows() -> None:
    head, flat, steep = growth.table([FLAT, STEEP])
    assert head == ["µs of CPU each; names:", "10", "1,000", "growth", "GC", "without"]
    assert flat == ["registered", "1.00", "1.10", "1.10", "", ""]
    assert steep == ["searched", "1.00", "30.00", "30.00", "5.00", "25.00"]
    document = growth.document([FLAT, STEEP, COLLECTED], "interpreted")
    assert "left out:\n\n- Names: *searched*, 25.0\n\n" in document
    assert document.count("\n## ") == 2


def test_figures_are_kept(tmp_path: Path) -> None:
    growth.save([FLAT, STEEP], tmp_path / "growth.json")
    assert growth.load(tmp_path / "growth.json") == [FLAT, STEEP]
