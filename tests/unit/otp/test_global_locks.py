from __future__ import annotations

import pytest

from erlang_interop import Atom, Pid
from erlang_interop.otp._global_locks import HeldLock, LockTable
from tests.unit.otp.monitoring import HERE, THERE, MonitoringPort

ONE, TWO, FAR = Pid(HERE, 2, 0, 1), Pid(HERE, 3, 0, 1), Pid(THERE, 2, 0, 1)
R, ME, OTHER = Atom("resource"), Atom("me"), Atom("other")


class Port(MonitoringPort):
    """Of a process with a table of locks."""

    def end(self, table: LockTable, pid: Pid) -> list[bool]:
        return [table.down(pid, ref) for ref in self.fired(pid)]


@pytest.fixture
def port() -> Port:
    return Port()


@pytest.fixture
def table(port: Port) -> LockTable:
    return LockTable(port)


def test_another_requester_is_kept_out_until_it_is_deleted(table: LockTable, port: Port) -> None:
    assert table.set_lock(R, ME, ONE)
    assert not table.set_lock(R, OTHER, FAR)
    assert not table.set_lock(R, OTHER, ONE)
    assert table.held == [HeldLock(R, ME, (ONE,))]
    table.del_lock(R, ME, ONE)
    assert table.held == []
    assert not port.monitors
    assert table.set_lock(R, OTHER, FAR)


def test_the_same_requester_is_let_in_again(table: LockTable, port: Port) -> None:
    assert table.set_lock(R, ME, ONE)
    assert table.set_lock(R, ME, ONE)
    assert table.set_lock(R, ME, FAR)
    assert table.held == [HeldLock(R, ME, (ONE, FAR))]
    assert list(port.monitors.values()) == [ONE, FAR]
    # Deleted once, however often the process has set it; another holder keeps it.
    table.del_lock(R, ME, ONE)
    assert table.held == [HeldLock(R, ME, (FAR,))]
    assert not table.set_lock(R, OTHER, ONE)
    table.del_lock(R, ME, FAR)
    assert table.held == []
    assert not port.monitors


def test_only_its_own_holder_deletes_a_lock(table: LockTable, port: Port) -> None:
    table.set_lock(R, ME, ONE)
    table.del_lock(R, ME, TWO)
    table.del_lock(R, OTHER, ONE)
    table.del_lock(Atom("unknown"), ME, ONE)
    assert table.held == [HeldLock(R, ME, (ONE,))]
    assert list(port.monitors.values()) == [ONE]


def test_the_end_of_a_holder_frees_all_its_locks(table: LockTable, port: Port) -> None:
    table.set_lock(R, ME, FAR)
    table.set_lock(Atom("second"), OTHER, FAR)
    table.set_lock(Atom("shared"), ME, ONE)
    table.set_lock(Atom("shared"), ME, FAR)
    assert port.end(table, FAR) == [True, True, True]
    assert table.held == [HeldLock(Atom("shared"), ME, (ONE,))]
    assert list(port.monitors.values()) == [ONE]


def test_a_down_of_somebody_elses_monitor_is_not_taken(table: LockTable, port: Port) -> None:
    table.set_lock(R, ME, ONE)
    (ref,) = port.monitors
    table.del_lock(R, ME, ONE)
    assert not table.down(ONE, ref)  # was on its way when the lock was deleted
    table.set_lock(R, ME, ONE)
    assert not table.down(ONE, ref)
    assert table.held == [HeldLock(R, ME, (ONE,))]


def test_resources_and_requesters_are_told_apart_as_erlang_does(table: LockTable) -> None:
    assert table.set_lock(1, ME, ONE)
    assert table.set_lock(1.0, OTHER, ONE)
    assert table.set_lock(True, OTHER, ONE)
    assert not table.set_lock(1, OTHER, ONE)
    assert table.set_lock([{}], [1], ONE)
    assert not table.set_lock([{}], [1.0], ONE)
    table.del_lock(1.0, OTHER, ONE)
    assert [lock.resource for lock in table.held] == [1, True, [{}]]


def test_what_is_no_term_changes_nothing(table: LockTable, port: Port) -> None:
    with pytest.raises(TypeError):
        table.set_lock(R, object(), ONE)
    with pytest.raises(TypeError):
        table.set_lock(object(), ME, ONE)
    assert table.held == []
    assert not port.monitors


def test_another_process_monitors_the_holders_anew(table: LockTable, port: Port) -> None:
    for resource, pid in ((R, ONE), (R, FAR), (Atom("second"), FAR)):
        table.set_lock(resource, ME, pid)
    before, held = list(port.monitors), table.held
    port.monitors.clear()  # the process that had them has ended
    table.watch_again()
    assert table.held == held
    assert not any(table.down(pid, ref) for ref in before for pid in (ONE, FAR))
    assert port.end(table, FAR) == [True, True]
    table.del_lock(R, ME, ONE)
    assert (table.held, port.monitors) == ([], {})
