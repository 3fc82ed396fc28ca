"""Tables give back what they do not need."""

from __future__ import annotations

import sys

import pytest

from tests.unit.zenmon.ports import HERE, THERE, FakeLocalPort, FakeProxyPort, pid
from zenmon_node import messages as m
from zenmon_node.config import Settings
from zenmon_node.local.api import LocalCore
from zenmon_node.memory import compacted
from zenmon_node.proxy.core import ProxyCore


def test_a_sparse_table_is_copied_and_a_full_one_is_not() -> None:
    full = dict.fromkeys(range(100_000))
    assert compacted(full) is full
    for number in range(99_000):
        del full[number]
    small = compacted(full)
    assert small == full
    assert sys.getsizeof(small) * 20 < sys.getsizeof(full)
    little = {1: 1}
    assert compacted(little) is little


@pytest.mark.parametrize("left", [0, 100])
def test_the_tables_of_the_local(left: int) -> None:
    core = LocalCore(HERE, Settings())
    core.port = FakeLocalPort()
    refs = [core.monitor(pid(number, THERE), pid(1)) for number in range(20_000)]
    connector = core.connectors[THERE]
    for ref in refs[left:]:
        core.demonitor(ref)
    before = sys.getsizeof(core.tables._owners) + sys.getsizeof(connector._monitors)
    core.tables.compact()
    connector.compact()
    assert sys.getsizeof(core.tables._owners) + sys.getsizeof(connector._monitors) < before / 20
    assert (len(core.tables), len(connector)) == (left, left)


def test_the_tables_of_the_proxy() -> None:
    port = FakeProxyPort()
    core = ProxyCore(HERE, port, Settings())
    core.slice_size = 10_000
    targets: list[m.Target] = [pid(number) for number in range(9_000)]
    core.handle(m.process_cast(pid(1, THERE), [(m.SUBSCRIBE, target) for target in targets]))
    core.handle(m.process_cast(pid(1, THERE), [(m.UNSUBSCRIBE, target) for target in targets[10:]]))
    before = sys.getsizeof(core.tables._subscriptions)
    core.tables.compact()
    assert sys.getsizeof(core.tables._subscriptions) < before / 20
    assert len(core.tables) == 10
    core.handle(m.process_cast(pid(1, THERE), [(m.UNSUBSCRIBE, target) for target in targets[:10]]))
    assert len(core.tables) == 0
