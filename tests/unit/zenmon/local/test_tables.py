"""The Local's rows: the right to fire is taken once."""

from __future__ import annotations

from tests.unit.zenmon.ports import THERE, pid, ref
from zenmon_node.local.tables import LocalTables

ME, YOU = pid(1), pid(2)
TARGET = pid(10, THERE)


def test_a_monitor_is_taken_once() -> None:
    tables = LocalTables()
    tables.add(ref(1), ME, TARGET)
    tables.add(ref(2), ME, TARGET)
    assert tables.owner(ref(1)) == ME
    assert tables.take(ref(1)) == (ME, TARGET)
    assert tables.take(ref(1)) is None
    assert tables.owner(ref(1)) is None
    assert (len(tables), tables.subscribers) == (1, 1)
    assert tables.take(ref(2)) == (ME, TARGET)
    assert (len(tables), tables.subscribers) == (0, 0)


def test_a_dead_subscriber_fires_nothing() -> None:
    tables = LocalTables()
    for number in (1, 2):
        tables.add(ref(number), ME, TARGET)
    tables.add(ref(3), YOU, TARGET)
    rows = tables.take_subscriber(ME)
    assert rows is not None
    assert dict(rows.items()) == {ref(1): TARGET, ref(2): TARGET}
    assert tables.take(ref(1)) is None
    for one in rows:
        tables.forget(one)
    assert (len(tables), tables.subscriber_pids()) == (1, [YOU])
    assert tables.take_subscriber(ME) is None
