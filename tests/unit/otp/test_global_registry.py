from __future__ import annotations

import pytest

from erlang_interop import Atom, Export, Pid, Reference
from erlang_interop.otp._global_messages import GLOBAL, External, Named, Ops
from erlang_interop.otp._global_registry import Registry
from tests.unit.otp.monitoring import HERE, THERE, MonitoringPort

ME, FAR, FAR_TOO, LOCKER = Pid(HERE, 2, 0, 1), Pid(THERE, 2, 0, 1), Pid(THERE, 3, 0, 1), Pid(THERE, 4, 0, 1)
METHOD = Export(Atom("global"), Atom("random_exit_name"), 3)
X, Y = Named(Atom("x"), ME, METHOD), Named([1, 1.0], FAR, METHOD)


class Port(MonitoringPort):
    """Of a process with names."""

    def __init__(self) -> None:
        super().__init__()
        self.dead: set[Pid] = set()

    def is_alive(self, pid: Pid) -> bool:
        return pid not in self.dead

    def end(self, registry: Registry, pid: Pid) -> None:
        self.dead.add(pid)
        for ref in self.fired(pid):
            assert registry.down(pid, ref)


@pytest.fixture
def port() -> Port:
    return Port()


@pytest.fixture
def registry(port: Port) -> Registry:
    return Registry(HERE, port)


def test_a_name_lives_as_long_as_its_process(registry: Registry, port: Port) -> None:
    registry.register(X, None, LOCKER)
    registry.register(Y, None, LOCKER)
    assert (registry.whereis(Atom("x")), registry.whereis([1, 1.0]), registry.whereis([1, 1])) == (ME, FAR, None)
    assert len(registry) == 2
    port.end(registry, FAR)
    assert registry.all() == [X]
    registry.delete(X.name)
    registry.delete(X.name)
    assert registry.all() == []
    assert not port.monitors


def test_a_process_has_a_name_until_it_has_lost_its_last(registry: Registry, port: Port) -> None:
    for name in ("x", "y", "y"):
        registry.register(Named(Atom(name), ME, METHOD), None, LOCKER)
    registry.register(Y, None, LOCKER)
    registry.delete(Atom("x"))
    assert registry.has_name(ME)
    registry.register(Named(Atom("y"), FAR, METHOD), None, LOCKER)
    assert not registry.has_name(ME)
    registry.delete(Atom("y"))
    assert registry.has_name(FAR)
    port.end(registry, FAR)
    assert not registry.has_name(FAR)


def test_an_own_process_that_has_ended_is_found_no_more(registry: Registry, port: Port) -> None:
    registry.register(X, None, LOCKER)
    port.dead.add(ME)  # its DOWN is on the way
    assert registry.whereis(X.name) is None
    assert registry.get(X.name) == X


def test_who_registers_a_name_anew_takes_it(registry: Registry, port: Port) -> None:
    registry.register(X, None, LOCKER)
    registry.register(Named(X.name, FAR, METHOD), None, LOCKER)
    assert registry.whereis(X.name) == FAR
    assert list(port.monitors.values()) == [FAR]
    assert not registry.down(ME, Reference(HERE, 1, bytes(12)))


def test_only_who_has_the_lock_registers(registry: Registry, port: Port) -> None:
    assert registry.locks.set_lock(GLOBAL, LOCKER, LOCKER)
    registry.register(X, None, FAR)
    assert registry.whereis(X.name) is None
    registry.register(X, None, LOCKER)
    assert registry.whereis(X.name) == ME
    # A name that is taken from its process by somebody without the lock is free.
    registry.register(X, None, FAR)
    assert registry.whereis(X.name) is None
    registry.del_lock(GLOBAL, LOCKER, LOCKER)
    registry.register(X, None, FAR)
    assert registry.whereis(X.name) == ME


def test_what_was_sent_under_a_lock_that_was_lost_counts_no_more(registry: Registry, port: Port) -> None:
    registry.locks.set_lock(GLOBAL, LOCKER, LOCKER)
    port.end(registry, LOCKER)
    registry.register(X, None, LOCKER)
    registry.apply(Ops([Y], []), [], LOCKER)
    assert registry.all() == []
    # Until the lock is set, and given back, again.
    registry.locks.set_lock(GLOBAL, FAR, FAR)
    registry.del_lock(GLOBAL, FAR, FAR)
    registry.register(X, None, FAR)
    assert registry.all() == [X]


def test_another_lock_that_is_lost_means_nothing(registry: Registry, port: Port) -> None:
    registry.locks.set_lock(b"mine", LOCKER, LOCKER)
    port.end(registry, LOCKER)
    registry.register(X, None, FAR)
    assert registry.all() == [X]


def test_the_result_of_an_exchange_counts_for_the_requester_of_the_lock(registry: Registry) -> None:
    requester = [LOCKER, ME]
    registry.locks.set_lock(GLOBAL, requester, LOCKER)
    registry.apply(Ops([X], []), [], [ME, LOCKER])
    assert registry.all() == []
    registry.apply(Ops([X, Y], []), [External(Y.name, Y.pid, THERE)], requester)
    assert registry.all() == [X, Y]
    assert registry.external() == [External(Y.name, FAR, THERE)]
    registry.apply(Ops([], [Y.name, b"nobody"]), [], requester)
    assert registry.all() == [X]
    assert registry.external() == []


def test_what_belongs_to_a_node_is_dropped(registry: Registry, port: Port) -> None:
    for named in (X, Y):
        registry.register(named, None, LOCKER)
    registry.locks.set_lock(b"theirs", b"they", FAR)
    registry.locks.set_lock(b"shared", b"all", FAR_TOO)
    registry.locks.set_lock(b"shared", b"all", ME)
    registry.drop(THERE)
    assert registry.all() == [X]
    assert [(lock.resource, lock.holders) for lock in registry.locks.held] == [(b"shared", (ME,))]
    assert sorted(port.monitors.values(), key=str) == [ME, ME]


def test_another_process_monitors_all_anew(registry: Registry, port: Port) -> None:
    registry.register(X, None, LOCKER)
    registry.register(Y, None, LOCKER)
    registry.locks.set_lock(GLOBAL, b"requester", FAR_TOO)
    port.monitors.clear()  # the process that had them has ended
    registry.watch_again()
    assert registry.all() == [X, Y]
    port.end(registry, FAR)
    port.end(registry, FAR_TOO)
    assert (registry.all(), registry.locks.held) == ([X], [])
    registry.delete(X.name)
    assert not port.monitors
