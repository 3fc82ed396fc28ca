"""The loops of the Local: monitors, certificates and deaths one by one, in slices of any size."""

from __future__ import annotations

import pytest

from erlang_interop.terms import Atom, Pid
from tests.unit.zenmon.ports import THERE, pid, ref
from zenmon_node import messages as m
from zenmon_node.local.steps import DeathQueue, Monitors, Summary
from zenmon_node.local.tables import LocalTables

ME, YOU = pid(1), pid(2)
NAME = (Atom("worker"), THERE)
DIED = Atom("died")


def target(number: int) -> Pid:
    return pid(number, THERE)


@pytest.mark.parametrize("watched", [target(1), NAME], ids=["pid", "name"])
def test_the_first_and_the_last_monitor_of_a_target(watched: m.Target) -> None:
    monitors = Monitors()
    assert monitors.add(watched, ref(1))
    assert not monitors.add(watched, ref(2))
    assert not monitors.add(watched, ref(3))
    assert not monitors.remove(watched, ref(2))
    assert not monitors.remove(watched, ref(99))
    assert not monitors.remove(watched, ref(1))
    assert monitors.remove(watched, ref(3))
    assert not monitors.remove(watched, ref(3))
    assert monitors.add(watched, ref(4))
    assert not monitors.remove(watched, ref(5))  # of a target that was lost
    assert monitors.remove(watched, ref(4))
    assert not monitors.pids
    assert not monitors.names


def test_a_summary_goes_in_slices_and_stops_at_what_is_no_certificate_of_a_pid() -> None:
    monitors = Monitors()
    for number in range(1, 6):
        monitors.add(target(number), ref(number))
    odd: list[object] = [(NAME, DIED), (target(1), DIED, 3), 5, (5, DIED), ()]
    known = [(target(number), DIED) for number in (1, 2, 2, 77, 3)]
    summary = Summary(monitors, [*known, *odd, (target(4), DIED)], None)
    deaths: list[tuple[m.Target, m.References, object]] = []
    assert not summary.look_up(2, deaths)
    assert (len(summary), deaths) == (9, [(target(1), ref(1), DIED), (target(2), ref(2), DIED)])
    for number, other in enumerate(odd):
        assert summary.look_up(100, deaths)
        assert (summary.latest, len(summary)) == (other, 5 - number)
    assert not summary.look_up(100, deaths)
    assert [death[1] for death in deaths] == [ref(1), ref(2), ref(3), ref(4)]
    assert (len(summary), list(monitors.pids)) == (0, [target(5)])


def filled(tables: LocalTables) -> tuple[DeathQueue, list[int]]:
    """A queue with all that may be in one, and the numbers of the references in their order."""
    queue = DeathQueue()
    several: m.References = {ref(3): None, ref(2): None}
    assert queue.add([(target(1), ref(1), DIED), (target(2), several, DIED)]) == 3
    queue.add_lost({target(4): ref(4), NAME: {ref(6): None, ref(5): None}, target(7): ref(7)}, m.NODEDOWN)
    assert queue.add([]) == 0
    assert queue.add([(target(8), ref(8), DIED)]) == 1
    for number in range(1, 9):
        tables.add(ref(number), ME if number % 2 else YOU, target(number))
    assert queue.waiting == 7  # the lost name counts once as yet
    return queue, [1, 3, 2, 4, 6, 5, 7, 8]


@pytest.mark.parametrize("most", [1, 2, 3, 100])
@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_messages_are_made_in_order_in_slices_of_any_size(limit: int, most: int) -> None:
    tables = LocalTables()
    queue, order = filled(tables)
    made: list[tuple[Pid, object]] = []
    while True:
        out: list[tuple[Pid, object]] = []
        looked = queue.take(tables, limit, most, out)
        assert looked == len(out) <= min(limit, most)
        made += out
        if looked < limit and len(out) < most:
            break
    reasons = {number: m.NODEDOWN if 4 <= number <= 7 else DIED for number in order}
    objects = {number: target(number) for number in order} | {3: target(2), 5: NAME, 6: NAME}
    assert made == [
        (ME if number % 2 else YOU, m.down_message(ref(number), objects[number], reasons[number])) for number in order
    ]
    assert (bool(queue), queue.waiting, queue.found, len(tables)) == (False, 0, 1, 0)


@pytest.mark.parametrize("before", range(8))
def test_it_may_begin_anew_anywhere(before: int) -> None:
    tables = LocalTables()
    queue, order = filled(tables)
    out: list[tuple[Pid, object]] = []
    if before:
        queue.take(tables, before, 100, out)
    queue.restart()
    assert {*queue.references()} >= {ref(number) for number in order[before:]}
    queue.take(tables, 100, 100, out)
    assert [message[1] for _, message in out if isinstance(message, tuple)] == [ref(number) for number in order]
    assert (bool(queue), queue.waiting) == (False, 0)
