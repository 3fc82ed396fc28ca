"""Tables give back what they do not need."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import pytest

from tests.unit.zenmon.ports import HERE, THERE, FakeLocalPort, FakeProxyPort, pid
from zenmon_node import messages as m
from zenmon_node.config import Settings
from zenmon_node.local.api import LocalCore
from zenmon_node.memory import BIG, PARTS, Table, compacted
from zenmon_node.proxy.core import ProxyCore


def size(table: Table[Any, Any]) -> int:
    return sum(map(sys.getsizeof, table.parts))


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


@pytest.mark.parametrize("count", [0, 3, BIG, BIG + 1, 3 * BIG])
def test_a_table_is_a_dictionary_whatever_its_size(count: int) -> None:
    table: Table[m.Target, int] = Table()
    plain: dict[m.Target, int] = {}
    for number in range(count):
        table[pid(number)] = plain[pid(number)] = number
    assert len(table.parts) in ((1,) if count <= BIG else PARTS)
    assert (len(table), bool(table)) == (len(plain), bool(plain))
    assert dict(table.items()) == plain
    assert set(table) == set(table.keys()) == set(plain)
    assert sorted(table.values()) == sorted(plain.values())
    for number in range(count // 2):
        assert table.pop(pid(number)) == plain.pop(pid(number)) == number
    assert pid(0) not in table
    assert table.get(pid(0)) is None
    assert table.pop(pid(0), 7) == 7
    with pytest.raises(KeyError):
        table[pid(0)]
    with pytest.raises(KeyError):
        del table[pid(0)]
    for target, number in plain.items():
        assert target in table
        assert table[target] == table.get(target) == number
    assert dict(table.drain()) == plain
    table.clear()
    assert len(table) == 0
    table[pid(1)] = 1
    del table[pid(1)]
    assert not table


def test_a_table_copies_little_at_a_time_as_it_grows() -> None:
    table: Table[m.Target, None] = Table()
    copied = []
    for number in range(300_000):
        before = sys.getsizeof(part := table._part(pid(number)))
        table[pid(number)] = None
        if len(table.parts) > 1 and sys.getsizeof(part) > before:
            copied.append((number // 1000, len(part)))
    in_a_thousand = Counter[int]()
    for step, count in copied:
        in_a_thousand[step] += count
    assert max(in_a_thousand.values()) < 2 * BIG  # of some 200,000 that a dictionary in one piece copies at once
    assert max(map(len, table.parts)) < 2 * 300_000 / len(table.parts)


def test_tables_that_are_filled_side_by_side_grow_at_different_moments() -> None:
    tables: list[Table[m.Target, None]] = [Table() for _ in PARTS]
    in_a_thousand = Counter[int]()
    for number in range(250_000, 500_000):
        for table in tables:
            before = sys.getsizeof(part := table._part(pid(number)))
            table[pid(number)] = None
            if number > 300_000 and sys.getsizeof(part) > before:
                in_a_thousand[number // 1000] += len(part)
    assert len({len(table.parts) for table in tables}) == len(PARTS)
    assert max(in_a_thousand.values()) < 4 * BIG  # 11 * BIG, if all had as many parts


def test_a_drained_table_goes_part_by_part() -> None:
    table: Table[m.Target, None] = Table()
    for number in range(BIG + 1):
        table[pid(number)] = None
    left = [len(table.parts) for _ in table.drain()]
    assert (left[0] in PARTS, left[-1], len(table.parts)) == (True, 1, 0)


def test_a_big_table_that_has_become_small_is_in_one_part_again() -> None:
    table: Table[m.Target, int] = Table()
    for number in range(2 * BIG):
        table[pid(number)] = number
    before = size(table)
    for number in range(100, 2 * BIG):
        del table[pid(number)]
    table.compact()
    assert (len(table.parts), len(table)) == (1, 100)
    assert size(table) < before / 20
    assert sorted(table.values()) == list(range(100))


@pytest.mark.parametrize("left", [0, 100])
def test_the_tables_of_the_local(left: int) -> None:
    core = LocalCore(HERE, Settings())
    core.port = FakeLocalPort()
    refs = [core.monitor(pid(number, THERE), pid(1)) for number in range(20_000)]
    connector = core.connectors[THERE]
    for ref in refs[left:]:
        core.demonitor(ref)
    before = size(core.tables._owners) + size(connector._monitors.pids)
    core.tables.compact()
    connector.compact()
    assert size(core.tables._owners) + size(connector._monitors.pids) < before / 20
    assert (len(core.tables), len(connector)) == (left, left)


def test_the_tables_of_the_proxy() -> None:
    port = FakeProxyPort()
    core = ProxyCore(HERE, port, port.observer, Settings())
    core.slice_size = 10_000
    targets = [pid(number) for number in range(9_000)]
    port.processes.start(*targets)
    core.handle(m.process_cast(pid(1, THERE), [(m.SUBSCRIBE, target) for target in targets]))
    core.handle(m.process_cast(pid(1, THERE), [(m.UNSUBSCRIBE, target) for target in targets[10:]]))
    before = size(core.tables._subscriptions)
    core.tables.compact()
    assert size(core.tables._subscriptions) < before / 20
    assert len(core.tables) == 10
    core.handle(m.process_cast(pid(1, THERE), [(m.UNSUBSCRIBE, target) for target in targets[:10]]))
    assert len(core.tables) == 0
