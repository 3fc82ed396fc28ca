"""Names that are watched natively: who shares a native monitor, and what stays of which."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from erlang_interop.terms import Atom
from tests.unit.zenmon.local.bench import DIED, NAME, Bench, target
from tests.unit.zenmon.ports import THERE, FakeConnectorPort, ref
from zenmon_node import messages as m
from zenmon_node.config import Settings
from zenmon_node.local import names
from zenmon_node.local.remote import State

if TYPE_CHECKING:
    from erlang_interop.terms import Reference

OTHER = (Atom("other"), THERE)
SUBSCRIBE, UNSUBSCRIBE = (m.SUBSCRIBE, NAME), (m.UNSUBSCRIBE, NAME)


def subscribed() -> Bench:
    """A bench whose monitor 1 has subscribed to NAME."""
    bench = Bench(compatible=True)
    bench.monitor(1, of=NAME)
    bench.go(0.2)
    assert (bench.port.casts, bench.port.natives) == ([[SUBSCRIBE]], {})
    return bench


def native_down(bench: Bench, reason: object, number: int = 0) -> None:
    native = list(bench.port.natives)[number]
    name = bench.port.natives.pop(native)
    bench.core.message((m.DOWN, native, m.PROCESS, name, reason), bench.now)


def test_all_monitors_before_the_cast_share_the_subscription() -> None:
    bench = Bench(compatible=True)
    bench.port.busy = True
    bench.monitor(1, 2, of=NAME)
    bench.go(5.0)
    bench.monitor(3, of=NAME)
    bench.port.busy = False
    bench.go(0.2)
    assert (bench.port.casts, bench.port.natives) == ([[SUBSCRIBE]], {})
    bench.dead((NAME, DIED))
    assert bench.fired() == [(1, DIED), (2, DIED), (3, DIED)]


def test_a_further_monitor_is_native_and_those_of_one_sweep_share_it() -> None:
    bench = subscribed()
    bench.monitor(*range(2, 1002), of=NAME)
    assert bench.core.waiting_instructions == 1
    bench.go(0.2)
    assert list(bench.port.natives.values()) == [NAME]
    bench.monitor(2000, of=NAME)
    bench.go(0.2)
    assert list(bench.port.natives.values()) == [NAME, NAME]
    assert (len(bench.core), len(bench.port.casts)) == (1, 1)
    # The first owner's end is the first monitor's alone; then that of the second one's, then of the third's.
    bench.dead((NAME, DIED))
    assert bench.fired() == [(1, DIED)]
    native_down(bench, m.NOPROC)
    assert bench.fired() == [(number, m.NOPROC) for number in range(2, 1002)]
    assert len(bench.core) == 1
    native_down(bench, Atom("end"))
    assert bench.fired() == [(2000, Atom("end"))]
    assert len(bench.core) == 0


def test_after_its_certificate_a_name_is_subscribed_to_again() -> None:
    bench = subscribed()
    bench.dead((NAME, DIED))
    bench.monitor(2, of=NAME)
    bench.go(0.2)
    assert (bench.port.casts, bench.port.natives) == ([[SUBSCRIBE], [SUBSCRIBE]], {})


def test_a_name_that_was_unsubscribed_from_is_watched_natively_until_its_certificate() -> None:
    """A certificate that was on its way would be taken for one of the new subscription."""
    bench = subscribed()
    bench.demonitor(1)
    bench.monitor(2, of=NAME)
    bench.go(0.2)
    assert (bench.port.casts, list(bench.port.natives.values())) == ([[SUBSCRIBE], [UNSUBSCRIBE]], [NAME])
    bench.dead((NAME, DIED))
    assert bench.fired() == []
    bench.monitor(3, of=NAME)
    bench.go(0.2)
    assert bench.port.casts[2:] == [[SUBSCRIBE]]


def test_what_was_never_cast_binds_nothing() -> None:
    bench = Bench(compatible=True)
    bench.monitor(1, of=NAME)
    bench.demonitor(1)
    bench.monitor(2, of=NAME)
    bench.go(0.2)
    assert (bench.port.casts, bench.port.natives) == ([[SUBSCRIBE, UNSUBSCRIBE, SUBSCRIBE]], {})
    bench.monitor(3, of=OTHER)
    bench.demonitor(3)
    bench.go(0.2)
    bench.monitor(4, of=OTHER)
    bench.go(0.2)
    assert list(bench.port.natives.values()) == [OTHER]


def test_names_that_were_left_are_remembered_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "REMEMBERED", 1)
    bench = subscribed()
    bench.demonitor(1)
    bench.monitor(2, of=OTHER)
    bench.go(0.2)
    bench.demonitor(2)
    bench.monitor(3, of=NAME)
    bench.monitor(4, of=OTHER)
    bench.go(0.2)
    assert list(bench.port.natives.values()) == [OTHER]


def test_with_the_last_monitor_the_native_one_is_given_back() -> None:
    bench = subscribed()
    bench.monitor(2, 3, of=NAME)
    bench.go(0.2)
    (native,) = bench.port.natives
    bench.demonitor(2)
    assert bench.port.released == []
    bench.demonitor(3)
    assert bench.port.released == [native]
    bench.monitor(4, of=NAME)
    bench.demonitor(4)  # before it was set
    bench.go(0.2)
    assert (bench.port.natives, len(bench.core), bench.core.waiting_instructions) == ({}, 1, 0)
    bench.dead((NAME, DIED))
    assert bench.fired() == [(1, DIED)]


def test_a_demonitor_of_a_native_down_that_waits() -> None:
    bench = subscribed()
    bench.monitor(2, 3, of=NAME)
    bench.go(0.2)
    native_down(bench, DIED)
    bench.demonitor(2)
    assert bench.fired() == [(3, DIED)]
    assert bench.port.released == []


def test_the_reason_of_a_native_down_is_truncated_as_the_settings_say() -> None:
    bench = Bench(Settings(max_binary_size=10), compatible=True)
    bench.monitor(1, of=NAME)
    bench.go(0.2)
    bench.monitor(2, of=NAME)
    bench.go(0.2)
    native_down(bench, (Atom("big"), bytes(100)))
    assert bench.fired() == [(2, (Atom("big"), bytes(7) + b"..."))]


def test_noconnection_and_the_loss_of_the_node_are_one_nodedown() -> None:
    for native_first in (True, False):
        bench = subscribed()
        bench.monitor(2, of=NAME)
        bench.go(0.2)
        bench.monitor(3, of=NAME)  # waits
        if native_first:
            native_down(bench, m.NOCONNECTION)
        bench.node_down()
        if not native_first:
            native_down(bench, m.NOCONNECTION)
        assert sorted(bench.fired()) == [(1, m.NODEDOWN), (2, m.NODEDOWN), (3, m.NODEDOWN)]
        assert (len(bench.core), bench.core.waiting_instructions) == (0, 0)


def test_a_native_monitor_outlives_the_proxy() -> None:
    bench = subscribed()
    bench.monitor(2, of=NAME)
    bench.go(0.2)
    bench.proxy_down(Atom("killed"))
    bench.go(5.0)
    assert bench.state is State.INCOMPATIBLE or bench.state is State.RECOVERING
    assert bench.fired() == [(1, m.NODEDOWN)]
    native_down(bench, DIED)
    assert bench.fired() == [(2, DIED)]


def test_it_keeps_the_connector() -> None:
    bench = Bench(Settings(hibernation_threshold=10), compatible=True)
    bench.monitor(1, of=NAME)
    bench.go(0.2)
    bench.monitor(2, of=NAME)
    bench.demonitor(1)
    bench.go(5.0)
    assert not bench.port.left
    native_down(bench, DIED)
    bench.go(2.0)
    assert bench.port.left


def test_native_monitors_leave_in_chunks_too() -> None:
    bench = Bench(Settings(connector_chunk_size=1), compatible=True)
    bench.monitor(1, of=NAME)
    bench.monitor(2, of=OTHER)
    bench.go(0.5)
    bench.monitor(3, of=NAME)
    bench.monitor(4, of=OTHER)
    bench.go(0.05)
    assert list(bench.port.natives.values()) == [NAME]
    bench.go(0.2)
    assert list(bench.port.natives.values()) == [NAME, OTHER]


def test_a_connector_that_ends_takes_its_native_monitors_with_it() -> None:
    bench = subscribed()
    bench.monitor(2, of=NAME)
    bench.go(0.2)
    bench.monitor(3, of=NAME)
    bench.port.natives.clear()
    bench.core.restarted()
    assert sorted(bench.fired()) == [(1, m.NODEDOWN), (2, m.NODEDOWN), (3, m.NODEDOWN)]


def test_after_an_exception_what_is_held_stays_and_what_is_not_is_monitored_anew() -> None:
    bench = subscribed()
    for number in (2, 3, 4):
        bench.monitor(number, of=NAME)
        bench.monitor(number + 10, of=NAME)
        bench.go(0.2)
    bench.monitor(5, of=NAME)
    kept, unwanted, lost = bench.port.natives
    del bench.port.natives[lost]  # its DOWN was lost
    bench.core.mend([(ref(number), NAME) for number in (1, 2, 4, 5)], bench.now)
    bench.go(0.2)
    bench.pong()
    assert unwanted in bench.port.released
    assert len(bench.port.natives) == 2
    assert next(iter(bench.port.natives)) == kept
    assert bench.port.casts[1:] == [[SUBSCRIBE]]
    bench.dead((NAME, DIED))
    assert bench.fired() == [(1, DIED), (4, DIED)]
    native_down(bench, DIED)
    native_down(bench, m.NOPROC)
    assert bench.fired() == [(2, DIED), (5, m.NOPROC)]


def test_a_native_monitor_that_could_not_be_set_is_set_after_the_exception() -> None:
    class Broken(Exception):
        pass

    class Unable(FakeConnectorPort):
        def monitor(self, target: m.Target) -> Reference:
            raise Broken

    bench = subscribed()
    able, bench.core.port = bench.port, Unable()
    bench.monitor(2, of=NAME)
    with pytest.raises(Broken):
        bench.go(0.2)
    bench.core.port = able
    bench.core.mend([(ref(1), NAME), (ref(2), NAME)], bench.now)
    bench.go(0.2)
    bench.pong()
    assert list(able.natives.values()) == [NAME]


def test_pids_are_never_watched_natively() -> None:
    bench = Bench(compatible=True)
    bench.monitor(1)
    bench.go(0.2)
    bench.monitor(2, of=target(1))
    bench.demonitor(1, 2)
    bench.monitor(3, of=target(1))
    bench.go(0.2)
    assert bench.port.natives == {}
