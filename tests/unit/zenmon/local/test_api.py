"""The Local's decisions."""

from __future__ import annotations

import pytest

from erlang_interop.terms import Atom
from tests.unit.zenmon.ports import HERE, THERE, FakeLocalPort, pid, ref
from zenmon_node import messages as m
from zenmon_node.config import Settings
from zenmon_node.local.api import Cached, CachedCompatibility, LocalCore
from zenmon_node.pacing import SLICE

ME, YOU = pid(1), pid(2)
TARGET = pid(10, THERE)


@pytest.fixture
def core() -> LocalCore:
    core = LocalCore(HERE, Settings())
    core.port = FakeLocalPort()
    return core


def port(core: LocalCore) -> FakeLocalPort:
    assert isinstance(core.port, FakeLocalPort)
    return core.port


def test_find_node(core: LocalCore) -> None:
    assert core.find_node(TARGET) == THERE
    assert core.find_node((Atom("x"), THERE)) == THERE
    assert core.find_node(Atom("x")) == HERE


def test_one_connector_a_node_and_one_watch_a_subscriber(core: LocalCore) -> None:
    refs = [core.monitor(TARGET, ME), core.monitor((Atom("x"), THERE), ME), core.monitor(TARGET, YOU)]
    assert len(set(refs)) == 3
    assert list(core.connectors) == [THERE]
    assert port(core).watched == [ME, YOU]
    assert port(core).updates == [THERE]  # once: there was something to send already
    assert core.connectors[THERE].waiting_instructions == 2


def test_a_bare_name_is_one_of_this_node(core: LocalCore) -> None:
    core.monitor(Atom("worker"), ME)
    core.dispatcher.enqueue([((Atom("worker"), HERE), ref(1), m.NOPROC)])
    assert list(core.connectors) == [HERE]
    assert core.dispatcher.deliver(0.0) == [(ME, m.down_message(ref(1), (Atom("worker"), HERE), m.NOPROC))]


def test_demonitor_is_for_the_owner_and_works_once(core: LocalCore) -> None:
    one = core.monitor(TARGET, ME)
    assert not core.demonitor(one, YOU)
    assert core.demonitor(one, ME)
    assert not core.demonitor(one, ME)
    assert not core.demonitor(one)
    assert (len(core.tables), len(core.connectors[THERE])) == (0, 0)


def test_demonitor_silences_a_down_that_waits(core: LocalCore) -> None:
    one, two = core.monitor(TARGET, ME), core.monitor(TARGET, ME)
    connector = core.connectors[THERE]
    connector.message(m.dead_summary(THERE, [(TARGET, m.NOPROC)]), 0.0)
    assert core.demonitor(one)
    assert [message[1] for _, message in core.dispatcher.deliver(0.0)] == [two]


def test_a_dead_subscriber_is_cleaned_up_in_slices(core: LocalCore) -> None:
    for number in range(5_000):
        core.monitor(pid(number, THERE), ME)
    other = core.monitor(TARGET, YOU)
    core.subscriber_down(ME)
    assert core.waiting_cleanups == 5_000
    connector = core.connectors[THERE]
    connector.message(m.dead_summary(THERE, [(pid(4_999, THERE), m.NOPROC), (TARGET, m.NOPROC)]), 0.0)
    steps = 0
    while core.busy:
        core.work()
        steps += 1
    assert steps == 5_000 // SLICE + 1
    assert core.waiting_cleanups == 0
    assert [message[1] for _, message in core.dispatcher.deliver(0.0)] == [other]
    assert (len(core.tables), core.tables.subscribers, len(connector)) == (0, 0, 0)


def test_a_subscriber_that_is_dead_already_leaves_nothing(core: LocalCore) -> None:
    class DeadAtOnce(FakeLocalPort):
        def watch(self, subscriber: object) -> None:
            core.subscriber_down(ME)

    core.port = DeadAtOnce()
    core.monitor(TARGET, ME)
    core.work()
    assert (len(core.tables), len(core.connectors[THERE])) == (0, 0)
    core.monitor(TARGET, ME)  # its pid is watched anew
    core.work()
    assert len(core.tables) == 0


def test_cached_compatibility(core: LocalCore) -> None:
    assert core.cached_compatibility(THERE, 0.0) == CachedCompatibility(Cached.MISS)
    connector = core.connector(THERE)
    assert core.cached_compatibility(THERE, 0.0) == CachedCompatibility(Cached.MISS)
    pings = port(core).ports[THERE].pings
    connector.check()
    connector.sweep(0.0)
    connector.message((pings[-1], Atom("no")), 0.0)
    assert core.cached_compatibility(THERE, 1.9) == CachedCompatibility(Cached.INCOMPATIBLE, 1)
    assert core.cached_compatibility(THERE, 2.1) == CachedCompatibility(Cached.EXPIRED, 1)
    connector.sweep(2.1)
    assert core.cached_compatibility(THERE, 2.1) == CachedCompatibility(Cached.EXPIRED, 1)
    connector.message((pings[-1], m.PONG), 2.2)
    assert core.cached_compatibility(THERE, 2.2) == CachedCompatibility(Cached.COMPATIBLE)
    connector.node_down(1)
    assert core.cached_compatibility(THERE, 2.2) == CachedCompatibility(Cached.UNAVAILABLE)


def test_a_new_process_watches_and_connects_again(core: LocalCore) -> None:
    core.monitor(TARGET, ME)
    fresh = core.port = FakeLocalPort()
    core.restarted()
    assert fresh.watched == [ME]
    assert list(fresh.ports) == [THERE]
    connector = core.connectors[THERE]
    connector.sweep(99.0)
    connector.sweep(100.0)
    connector.message((fresh.ports[THERE].pings[-1], m.PONG), 100.0)
    connector.sweep(100.0)
    assert fresh.ports[THERE].casts == [[(m.SUBSCRIBE, TARGET)]]


def test_settings_reach_every_part(core: LocalCore) -> None:
    core.monitor(TARGET, ME)
    core.configure(Settings(connector_chunk_size=1, demand_amount=1))
    core.monitor(pid(11, THERE), ME)
    connector = core.connectors[THERE]
    connector.sweep(99.0)
    connector.sweep(100.0)
    connector.message((port(core).ports[THERE].pings[-1], m.PONG), 100.0)
    connector.sweep(100.0)
    assert [len(cast) for cast in port(core).ports[THERE].casts] == [1]
    connector.node_down(1)
    assert len(core.dispatcher.deliver(100.0)) == 1
