"""The Proxy's rows."""

from __future__ import annotations

from erlang_interop.terms import Atom
from tests.unit.zenmon.ports import HERE, THERE, pid, ref
from zenmon_node.proxy.tables import ProxyTables

A, B = pid(1, THERE), pid(2, THERE)
TARGET = pid(10)
NAME = (Atom("worker"), HERE)


def test_subscribers_of_a_pid_share_its_monitor() -> None:
    tables = ProxyTables()
    assert tables.shared_monitor(TARGET) is None
    tables.add(TARGET, A, ref(1))
    assert tables.shared_monitor(TARGET) == ref(1)
    tables.add(TARGET, B, ref(1))
    assert (len(tables), tables.subscribers) == (1, 2)
    assert tables.remove(TARGET, A) is None
    assert tables.shared_monitor(TARGET) == ref(1)
    assert tables.remove(TARGET, B) == ref(1)
    assert (len(tables), tables.subscribers) == (0, 0)


def test_rows_of_a_name_have_their_own_monitors() -> None:
    tables = ProxyTables()
    tables.add(NAME, A, ref(1))
    assert tables.shared_monitor(NAME) is None
    tables.add(NAME, B, ref(2))
    assert tables.consume(NAME, ref(2)) == [B]
    assert tables.is_subscribed(NAME, A)
    assert tables.remove(NAME, A) == ref(1)
    assert len(tables) == 0


def test_each_row_of_a_name_frees_its_monitor() -> None:
    tables = ProxyTables()
    for number, subscriber in enumerate((A, B, pid(3, THERE)), start=1):
        tables.add(NAME, subscriber, ref(number))
    assert [tables.remove(NAME, s) for s in (B, A, pid(3, THERE))] == [ref(2), ref(1), ref(3)]


def test_consume_takes_all_rows_of_the_monitor_once() -> None:
    tables = ProxyTables()
    for subscriber in (A, B):
        tables.add(TARGET, subscriber, ref(1))
    assert tables.consume(TARGET, ref(2)) == []
    assert tables.consume(TARGET, ref(1)) == [A, B]
    assert tables.consume(TARGET, ref(1)) == []
    assert (len(tables), tables.subscribers) == (0, 0)


def test_removing_what_is_not_there() -> None:
    tables = ProxyTables()
    assert tables.remove(TARGET, A) is None
    tables.add(TARGET, A, ref(1))
    assert tables.remove(TARGET, B) is None
    assert tables.is_subscribed(TARGET, A)


def test_rows_of_a_subscriber_that_is_gone() -> None:
    tables = ProxyTables()
    tables.add(TARGET, A, ref(1))
    tables.add(TARGET, B, ref(1))
    tables.add(NAME, A, ref(2))
    assert tables.rows == 3
    rows = dict(tables.take_rows(A))
    assert tables.rows == 1
    assert rows == {TARGET: ref(1), NAME: ref(2)}
    assert not tables.has_subscriber(A)
    assert tables.consume(TARGET, ref(1)) == [B]  # a death in the middle of the clean-up finds B alone
    assert [tables.release(t, A, r) for t, r in rows.items()] == [ref(1), ref(2)]
    assert len(tables) == 0


def test_rows_are_pairs_of_target_and_subscriber() -> None:
    tables = ProxyTables()
    tables.add(pid(1), pid(10), ref(1))
    tables.add(pid(1), pid(11), ref(1))
    tables.add(pid(2), pid(10), ref(2))
    assert (len(tables), tables.rows) == (2, 3)
