"""The loops of the Proxy, for themselves; what they make of whole messages is in ``test_core.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from erlang_interop.terms import Atom
from tests.unit.zenmon.ports import HERE, THERE, FakeProxyPort, pid
from zenmon_node import messages as m
from zenmon_node.proxy.batcher import BatcherCore
from zenmon_node.proxy.steps import Cast, certify
from zenmon_node.proxy.tables import ProxyTables

if TYPE_CHECKING:
    from erlang_interop.terms import Pid, Term

A, B = pid(1, THERE), pid(2, THERE)
DIED = Atom("died")


def instructions(*numbers: int, op: Atom = m.SUBSCRIBE) -> list[Any]:
    return [(op, pid(number)) for number in numbers]


def test_a_cast_is_carried_out_in_slices() -> None:
    port, tables = FakeProxyPort(), ProxyTables()
    cast = Cast(A, instructions(10, 11, 12), B)
    assert not cast.carry_out(2, HERE, tables, port.observer)
    assert (len(cast), cast.latest, port.watched()) == (1, (m.SUBSCRIBE, pid(11)), [pid(10), pid(11)])
    assert not cast.carry_out(2, HERE, tables, port.observer)
    assert not cast.carry_out(2, HERE, tables, port.observer)
    assert (len(cast), len(tables), tables.rows) == (0, 3, 3)
    cast = Cast(A, instructions(12, 11, 10, 9, op=m.UNSUBSCRIBE), B)
    assert not cast.carry_out(100, HERE, tables, port.observer)
    assert (len(tables), port.watched()) == (0, [])


@pytest.mark.parametrize(
    "other",
    [
        (m.SUBSCRIBE, (Atom("name"), HERE)),
        (m.SUBSCRIBE, pid(10, THERE)),
        (m.SUBSCRIBE, pid(10), 1),
        (Atom("else"), pid(10)),
        [m.SUBSCRIBE, pid(10)],
        None,
    ],
)
def test_what_is_of_another_kind_is_left_to_the_caller(other: Term) -> None:
    port, tables = FakeProxyPort(), ProxyTables()
    cast = Cast(A, [*instructions(20), other, *instructions(21)], None)
    assert cast.carry_out(10, HERE, tables, port.observer)
    assert (cast.latest, len(cast), port.watched()) == (other, 1, [pid(20)])
    assert not cast.carry_out(10, HERE, tables, port.observer)
    assert port.watched() == [pid(20), pid(21)]


class Certifying:
    """Batchers as the core has them."""

    def __init__(self) -> None:
        self.port, self.tables = FakeProxyPort(), ProxyTables()
        self.loaded: dict[Pid, BatcherCore] = {}
        self.refused: list[Pid] = []
        for subscriber, numbers in ((A, (10, 11, 12)), (B, (11, 12))):
            Cast(subscriber, instructions(*numbers), None).carry_out(10, HERE, self.tables, self.port.observer)

    def load(self, subscriber: Pid) -> BatcherCore:
        if subscriber in self.refused:
            raise RuntimeError("no Batcher")
        self.loaded[subscriber] = BatcherCore(subscriber, interval=0.0, chunk_size=100)
        return self.loaded[subscriber]

    def run(self, *, keep_atoms: bool = True) -> int:
        return certify(self.port.observer, self.tables, self.loaded, self.load, lambda *_: Atom("cut"), keep_atoms)

    def waiting(self) -> dict[Pid, list[Any]]:
        return {subscriber: batcher.sweep(1.0) for subscriber, batcher in self.loaded.items()}


@pytest.mark.parametrize("keep_atoms", [True, False])
def test_a_death_is_certified_to_each_subscriber(keep_atoms: bool) -> None:
    made = Certifying()
    made.port.down(pid(12), (DIED, 1))
    made.port.down(pid(10), DIED)
    assert made.run(keep_atoms=keep_atoms) == 3
    cut = Atom("cut")
    assert made.waiting() == {
        A: [(pid(12), cut), (pid(10), DIED if keep_atoms else cut)],
        B: [(pid(12), cut)],
    }
    assert (made.port.observer.deaths, made.tables.rows, len(made.tables)) == ([], 2, 1)


def test_a_death_that_raises_is_not_repeated_and_costs_no_other() -> None:
    made = Certifying()
    made.refused = [B]
    for number in (10, 11, 12):
        made.port.down(pid(number), DIED)
    with pytest.raises(RuntimeError, match="no Batcher"):
        made.run()
    assert made.port.observer.deaths == [(pid(12), DIED)]
    made.refused = []
    assert made.run() == 2
    assert made.waiting()[B] == [(pid(12), DIED)]
