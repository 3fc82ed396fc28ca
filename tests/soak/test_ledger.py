"""The rules of the soak test, each broken once: a judge who lets everybody go would be of no use."""

from __future__ import annotations

from typing import Any

import pytest

from erlang_interop import Atom, Pid, Reference, Term
from tests.soak.ledger import Ledger, Wrong, exit_reason
from zenmon_node import messages as m
from zenmon_node.truncator import truncate

NAMES = {key: Atom(f"{key}@host") for key in ("p", "b", "ghost")}
PATH = ("p", "b")


class Case:
    """A path from p to b, proven and undisturbed; processes 1 and 2 on b, 3 has a name there."""

    def __init__(self) -> None:
        self.ledger = Ledger(NAMES, (3, 1024), {"p": ("b",), "b": ()})
        for number, name in ((1, None), (2, None), (3, "alpha")):
            self.begin(number, name)
        self.step()
        self.ledger.proves(PATH)
        self.step()

    def step(self) -> None:
        self.ledger.step += 1

    def begin(self, number: int, name: str | None = None) -> None:
        self.step()
        self.ledger.began(number, "b", Pid(NAMES["b"], number, 0, 1), name)

    def end(self, number: int, kind: str = "plain") -> Term:
        self.step()
        reason = exit_reason(kind, number)
        self.ledger.ends(number, reason)
        return truncate(reason)

    def monitor(self, number: int, target: int | str, *, established: bool = False) -> None:
        self.step()
        self.ledger.made(number, self.ref(number), "p/1", target)
        if established:
            self.step()
            self.ledger.proves(PATH)

    @staticmethod
    def ref(number: int) -> Reference:
        return Reference(NAMES["p"], 1, number.to_bytes(12, "big"))

    def down(self, number: int, reason: Term, *, subscriber: str = "p/1", target: Any = None) -> None:
        monitor = self.ledger.monitor(number)
        assert monitor is not None
        object_ = self.ledger.object_of(monitor.target) if target is None else target
        self.ledger.down(subscriber, (m.DOWN, self.ref(number), m.PROCESS, object_, (m.ZEN_MONITOR, reason)))


@pytest.fixture
def case() -> Case:
    return Case()


@pytest.mark.parametrize("kind", ["plain", "deep", "wide", "binary", "shutdown", "normal", "killed"])
@pytest.mark.parametrize("established", [True, False])
def test_the_reason_of_the_process(case: Case, kind: str, established: bool) -> None:
    case.monitor(1, 1, established=established)
    assert not case.ledger.is_due(case.ledger.active()[0])
    reason = case.end(1, kind)
    assert case.ledger.is_due(case.ledger.active()[0])
    case.down(1, reason)
    assert not case.ledger.active()
    assert case.ledger.outcomes["certain"] == established
    assert case.ledger.outcomes["truncated"] == (kind in ("deep", "wide", "binary"))


def test_no_other_reason(case: Case) -> None:
    case.monitor(1, 1)
    case.monitor(2, 1, established=True)
    other = case.end(2)
    case.end(1)
    for number in (1, 2):
        with pytest.raises(Wrong, match="allowed are"):
            case.down(number, other)


def test_not_while_it_lives(case: Case) -> None:
    case.monitor(1, 1)
    for reason in (exit_reason("plain", 1), m.NOPROC, m.NODEDOWN):
        with pytest.raises(Wrong):
            case.down(1, reason)
        case = Case()
        case.monitor(1, 1)


def test_not_untruncated(case: Case) -> None:
    case.monitor(1, 1)
    case.end(1, "binary")
    with pytest.raises(Wrong, match="allowed are"):
        case.down(1, exit_reason("binary", 1))


def test_truncated_as_at_any_time_since_it_was_told_to_end(case: Case) -> None:
    case.ledger.truncates("b", 2, 64)
    case.monitor(1, 1)
    case.monitor(2, 1)
    case.monitor(3, 1)
    case.end(1, "binary")
    case.step()
    case.ledger.truncates("b", 3, 100)
    reason = exit_reason("binary", 1)
    case.down(1, truncate(reason, depth=2, max_binary_size=64))
    case.down(2, truncate(reason, depth=3, max_binary_size=100))
    with pytest.raises(Wrong, match="allowed are"):
        case.down(3, truncate(reason))  # as it was before


def test_once(case: Case) -> None:
    case.monitor(1, 1)
    reason = case.end(1)
    case.down(1, reason)
    with pytest.raises(Wrong, match="after it has fired"):
        case.down(1, reason)


def test_to_its_subscriber_with_its_target(case: Case) -> None:
    case.monitor(1, 1)
    case.monitor(2, 1)
    reason = case.end(1)
    with pytest.raises(Wrong, match="to p/2"):
        case.down(1, reason, subscriber="p/2")
    with pytest.raises(Wrong, match="the object"):
        case.down(2, reason, target=Pid(NAMES["b"], 2, 0, 1))


def test_nothing_else_comes(case: Case) -> None:
    with pytest.raises(Wrong, match="no DOWN"):
        case.ledger.down("p/1", (m.DEAD, NAMES["b"], []))
    with pytest.raises(Wrong, match="nobody made"):
        case.ledger.down("p/1", (m.DOWN, case.ref(9), m.PROCESS, NAMES["b"], (m.ZEN_MONITOR, m.NOPROC)))


def test_never_after_it_was_taken_back(case: Case) -> None:
    case.monitor(1, 1)
    monitor = case.ledger.monitor(1)
    assert monitor is not None
    case.ledger.took_back(monitor, "keep", 0)
    assert not case.ledger.active()
    with pytest.raises(Wrong, match="taken back"):
        case.down(1, case.end(1))


def test_what_was_delivered_before_it_was_taken_back_stays_without_flush(case: Case) -> None:
    for number in (1, 2):
        case.monitor(number, 1)
    reason = case.end(1)
    for number, how in ((1, "keep"), (2, "flush")):
        monitor = case.ledger.monitor(number)
        assert monitor is not None
        case.ledger.took_back(monitor, how, 1)
    case.down(1, reason)
    with pytest.raises(Wrong, match="taken back"):
        case.down(2, reason)


def test_delivered_twice_before_it_was_taken_back(case: Case) -> None:
    case.monitor(1, 1)
    monitor = case.ledger.monitor(1)
    assert monitor is not None
    with pytest.raises(Wrong, match="twice"):
        case.ledger.took_back(monitor, "flush", 2)


def test_noproc_for_who_had_ended_or_may_have(case: Case) -> None:
    case.monitor(1, 1)
    case.end(1)
    case.monitor(2, 1)
    case.down(1, m.NOPROC)
    case.down(2, m.NOPROC)


def test_no_noproc_for_what_is_established(case: Case) -> None:
    case.monitor(1, 1, established=True)
    case.end(1)
    with pytest.raises(Wrong, match="established"):
        case.down(1, m.NOPROC)


def test_only_noproc_for_who_ended_before_the_path_was_proven(case: Case) -> None:
    reason = case.end(1)
    case.step()
    case.ledger.proves(PATH)
    case.monitor(1, 1)
    case.monitor(2, 1)
    case.down(1, m.NOPROC)
    with pytest.raises(Wrong, match="allowed are"):
        case.down(2, reason)


def test_a_name_is_whoever_has_it(case: Case) -> None:
    case.monitor(1, "b:alpha", established=True)
    case.monitor(2, "b:alpha")
    first = case.end(3)
    case.begin(4, "alpha")
    second = case.end(4)
    with pytest.raises(Wrong, match="allowed are"):
        case.down(1, second)  # it was bound to the first
    case.down(2, second)
    case.monitor(3, "b:alpha")
    case.down(3, first)
    case.step()
    case.ledger.proves(PATH)
    case.monitor(4, "b:alpha")
    with pytest.raises(Wrong, match="allowed are"):
        case.down(4, second)  # known to be over


@pytest.mark.parametrize("when", ["never", "before", "after"])
def test_noproc_for_a_name_that_was_free(case: Case, when: str) -> None:
    if when == "never":
        case.monitor(1, "b:alpha")
        with pytest.raises(Wrong, match="all the time"):
            case.down(1, m.NOPROC)
        return
    if when == "before":
        case.end(3)
        case.step()
        case.ledger.proves(PATH)
        case.begin(4, "alpha")
    case.monitor(1, "b:alpha")
    if when == "after":
        case.end(3)
        case.begin(4, "alpha")
    case.down(1, m.NOPROC)


def test_when_a_name_has_been_free(case: Case) -> None:
    assert not case.ledger.has_been_free("b:alpha", PATH)
    case.end(3)
    assert case.ledger.has_been_free("b:alpha", PATH)
    case.step()
    case.ledger.proves(PATH)
    assert not case.ledger.has_been_free("b:beta", PATH)
    case.begin(4, "alpha")  # nobody had it until now
    assert case.ledger.has_been_free("b:alpha", PATH)
    case.step()
    case.ledger.proves(PATH)
    assert not case.ledger.has_been_free("b:alpha", PATH)


def test_nodedown_only_after_a_disturbance(case: Case) -> None:
    for number in (1, 2, 3):
        case.monitor(number, 1, established=True)
    with pytest.raises(Wrong, match="nothing has happened"):
        case.down(1, m.NODEDOWN)
    case.ledger.disturbs_between("b", "p", "lost")
    case.down(2, m.NODEDOWN)
    case.step()
    case.ledger.proves(PATH)
    with pytest.raises(Wrong, match="nothing has happened"):
        case.down(3, m.NODEDOWN)


def test_a_disturbance_loosens_what_was_established(case: Case) -> None:
    case.monitor(1, 1, established=True)
    case.end(1)
    case.ledger.disturbs_to("b", "Proxy stopped")
    case.down(1, m.NOPROC)


def test_only_nodedown_from_nowhere(case: Case) -> None:
    for number in (1, 2):
        case.monitor(number, "ghost:nobody")
    assert all(case.ledger.is_due(monitor) for monitor in case.ledger.active())
    case.down(1, m.NODEDOWN)
    with pytest.raises(Wrong, match="nothing but nodedown"):
        case.down(2, m.NOPROC)


def test_who_went_with_its_node_left_no_reason(case: Case) -> None:
    case.monitor(1, 1)
    case.monitor(2, 1)
    case.step()
    case.ledger.disturbs_to("b", "killed")
    case.ledger.node_ends("b")
    case.down(1, m.NODEDOWN)
    with pytest.raises(Wrong, match="allowed are"):
        case.down(2, exit_reason("plain", 1))


def test_an_exception_of_the_proxy_may_cost_a_subscription_or_a_reason(case: Case) -> None:
    case.monitor(1, 1, established=True)
    case.monitor(2, 2)
    case.ledger.refuses("b")
    case.down(2, m.NOPROC)
    with pytest.raises(Wrong, match="established"):
        case.down(1, m.NOPROC)
    case = Case()
    case.monitor(1, 1)
    case.ledger.truncates_all("b")
    with pytest.raises(Wrong, match="allowed are"):
        case.down(1, Atom("truncated"))  # it lives
    case.monitor(2, 2)
    case.end(2, "wide")
    case.down(2, Atom("truncated"))


def test_monitors_of_a_subscriber_that_has_ended_are_nobodys_business(case: Case) -> None:
    case.monitor(1, 1)
    case.ledger.subscriber_ends("p/1")
    assert not case.ledger.active()
