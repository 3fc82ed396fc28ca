"""The Proxy's decisions: the contract for a foreign Proxy, clause by clause, with no trio at all."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest.mock import Mock

import pytest
from structlog.testing import capture_logs

from erlang_interop.terms import Atom, ImproperList, Pid, Term
from tests.unit.zenmon.ports import HERE, THERE, FakeProxyPort, pid, ref
from zenmon_node import messages as m
from zenmon_node.config import Settings
from zenmon_node.counters import Counters
from zenmon_node.pacing import SLICE
from zenmon_node.proxy.core import ProxyCore
from zenmon_node.truncator import TRUNCATED

if TYPE_CHECKING:
    from zenmon_node.messages import Instruction, Target

A, B = pid(1, THERE), pid(2, Atom("other@host"))
T1, T2, T3 = pid(10), pid(11), pid(12)
NAME = (Atom("worker"), HERE)
DIED = Atom("died")


class Bench:
    """A Proxy with a fake port and a clock."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.port = FakeProxyPort()
        self.counters = Counters()
        self.core = ProxyCore(HERE, self.port, self.port.observer, settings or Settings(), self.counters)
        self.now = 100.0

    def cast(self, subscriber: Term, *instructions: Instruction | Term) -> None:
        self.core.handle((m.GEN_CAST, (m.PROCESS, subscriber, list(instructions))))

    def subscribe(self, subscriber: Term, *targets: Target) -> None:
        self.port.processes.start(*[target for target in targets if isinstance(target, Pid)])
        self.cast(subscriber, *[(m.SUBSCRIBE, target) for target in targets])

    def unsubscribe(self, subscriber: Term, *targets: Target) -> None:
        self.cast(subscriber, *[(m.UNSUBSCRIBE, target) for target in targets])

    def dies(self, target: Target, reason: Term = DIED) -> None:
        for message in self.port.down(target, reason):
            self.core.handle(message)
        if not self.core.busy:
            self.core.work()

    def summaries(self) -> list[tuple[Term, list[tuple[Term, Term]]]]:
        """What is sent when every interval has passed."""
        self.port.summaries.clear()
        while (due := self.core.next_due(self.now)) is not None and not self.port.busy:
            self.now = max(self.now, due)
            self.core.work()
            self.core.sweep(self.now)
        return list(self.port.summaries)

    def finish(self) -> int:
        """Slices until no job is left."""
        slices = 0
        while self.core.busy:
            self.core.work()
            slices += 1
        return slices

    def targets_watched(self) -> list[Target]:
        return [target for target in self.port.watched() if target not in (A, B)]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_ping_echoes_any_tag_to_the_alias_or_the_pid(bench: Bench) -> None:
    alias = ImproperList([m.ALIAS], ref(77, THERE))
    bench.core.handle((m.GEN_CALL, (A, alias), m.PING))
    bench.core.handle((m.GEN_CALL, (A, (1, 2)), m.PING))
    assert bench.port.sent == [(ref(77, THERE), (alias, m.PONG)), (A, ((1, 2), m.PONG))]


def test_a_death_is_certified_once_to_each_subscriber(bench: Bench) -> None:
    bench.subscribe(A, T1, T1, T1)
    bench.subscribe(B, T1)
    assert bench.targets_watched() == [T1]
    bench.dies(T1)
    assert bench.summaries() == [(A, [(T1, DIED)]), (B, [(T1, DIED)])]
    assert len(bench.core.tables) == 0
    bench.dies(T1)
    assert bench.summaries() == []


def test_the_subscriber_is_the_pid_in_the_message_even_one_of_this_node(bench: Bench) -> None:
    own = pid(50)
    bench.subscribe(own, T1)
    bench.dies(T1)
    assert bench.summaries() == [(own, [(T1, DIED)])]


def test_a_second_life_needs_a_new_subscription(bench: Bench) -> None:
    bench.subscribe(A, NAME)
    bench.dies(NAME, 1)
    bench.subscribe(A, NAME)
    bench.dies(NAME, 2)
    assert bench.summaries() == [(A, [(NAME, 1), (NAME, 2)])]


def test_one_process_by_pid_and_by_name_gives_two_certificates(bench: Bench) -> None:
    bench.subscribe(A, T1, NAME)
    bench.dies(T1)
    bench.dies(NAME)
    assert bench.summaries() == [(A, [(T1, DIED), (NAME, DIED)])]


def test_a_bare_name_is_certified_under_itself(bench: Bench) -> None:
    bench.subscribe(A, Atom("worker"))
    bench.dies(Atom("worker"))
    assert bench.summaries() == [(A, [(Atom("worker"), DIED)])]


def test_a_name_that_has_moved_is_not_shared(bench: Bench) -> None:
    bench.subscribe(A, NAME)
    bench.subscribe(B, NAME)
    old, new = bench.port.monitors_of(NAME)
    bench.core.handle((m.DOWN, old, m.PROCESS, NAME, Atom("old")))
    assert bench.summaries() == [(A, [(NAME, Atom("old"))])]
    bench.core.handle((m.DOWN, new, m.PROCESS, NAME, Atom("new")))
    assert bench.summaries() == [(B, [(NAME, Atom("new"))])]


def test_unsubscribe_is_for_that_subscriber_and_releases_the_monitor_with_the_last(bench: Bench) -> None:
    bench.subscribe(A, T1)
    bench.subscribe(B, T1)
    bench.unsubscribe(A, T1, T2)
    assert bench.targets_watched() == [T1]
    bench.unsubscribe(B, T1)
    assert bench.targets_watched() == []
    assert bench.summaries() == []


def test_instructions_apply_in_order(bench: Bench) -> None:
    bench.cast(A, (m.SUBSCRIBE, T1), (m.UNSUBSCRIBE, T1), (m.SUBSCRIBE, T1), (m.SUBSCRIBE, T2), (m.UNSUBSCRIBE, T2))
    assert bench.targets_watched() == [T1]


def test_legacy_subscribe(bench: Bench) -> None:
    bench.core.handle((m.GEN_CAST, (m.SUBSCRIBE, A, [T1, T2])))
    assert bench.targets_watched() == [T1, T2]


def test_reasons_are_truncated(bench: Bench) -> None:
    bench.subscribe(A, T1, T2)
    bench.dies(T1, [1] * 5)
    bench.dies(T2, (Atom("shutdown"), [1] * 5))
    assert bench.summaries() == [(A, [(T1, TRUNCATED), (T2, (Atom("shutdown"), [1] * 5))])]


def test_summaries_are_chunked_and_paced() -> None:
    bench = Bench(Settings(batcher_chunk_size=1000, batcher_sweep_interval=100))
    targets = [pid(number) for number in range(100, 2600)]
    bench.subscribe(A, *targets)
    bench.finish()
    for target in targets:
        bench.dies(target)
    start, sizes = bench.now, []
    while (due := bench.core.next_due(bench.now)) is not None:
        bench.now = due
        bench.core.sweep(bench.now)
        sizes.append((round(bench.now - start, 3), len(bench.port.summaries[-1][1])))
    assert sizes == [(0.01, 1000), (0.11, 1000), (0.21, 500)]
    assert [c[0] for s in bench.port.summaries for c in s[1]] == targets


def test_a_remote_target_is_watched_if_its_node_is_connected(bench: Bench) -> None:
    there, nowhere = pid(5, THERE), pid(5, Atom("gone@host"))
    bench.port.unreachable.add(nowhere.node)
    bench.subscribe(A, there, nowhere, (Atom("x"), nowhere.node))
    assert bench.targets_watched() == [there]
    assert bench.summaries() == [(A, [(nowhere, m.NOCONNECTION), ((Atom("x"), nowhere.node), m.NOCONNECTION)])]


def test_a_subscriber_that_is_gone_leaves_nothing(bench: Bench) -> None:
    bench.subscribe(A, T1, NAME)
    bench.subscribe(B, T1, T2)
    bench.dies(T2)
    bench.dies(A, m.NOCONNECTION)
    assert bench.targets_watched() == [T1]
    bench.dies(B)
    assert bench.summaries() == []
    assert bench.port.watched() == []
    assert (len(bench.core.tables), bench.core.tables.subscribers, bench.core.waiting_certificates) == (0, 0, 0)


def test_a_subscriber_that_comes_back_starts_anew(bench: Bench) -> None:
    bench.subscribe(A, T1)
    bench.dies(A, m.NOCONNECTION)
    bench.subscribe(A, T2)
    assert bench.targets_watched() == [T2]
    bench.dies(T2)
    assert bench.summaries() == [(A, [(T2, DIED)])]


def test_nothing_is_sent_to_a_node_that_is_not_connected(bench: Bench) -> None:
    bench.subscribe(A, T1)
    bench.dies(T1)
    bench.port.unreachable.add(THERE)
    assert bench.summaries() == []
    bench.subscribe(pid(9, THERE), T2)
    assert bench.targets_watched() == []


def test_a_busy_connection_delays_the_summary(bench: Bench) -> None:
    bench.subscribe(A, T1)
    bench.dies(T1)
    bench.port.busy.add(THERE)
    bench.core.next_due(bench.now)
    bench.now += 1.0
    bench.core.sweep(bench.now)
    assert bench.port.summaries == []
    assert bench.core.next_due(bench.now) == pytest.approx(bench.now + 0.1)
    bench.port.busy.clear()
    assert bench.summaries() == [(A, [(T1, DIED)])]


@pytest.mark.parametrize(
    "message",
    [
        Atom("hello"),
        (m.GEN_CALL, (A, ref(1)), Atom("what")),
        (m.GEN_CAST, (m.PROCESS, A, Atom("x"))),
        (m.GEN_CAST, (m.PROCESS, A, [(Atom("watch"), T1), T1, None, (m.SUBSCRIBE,), (m.UNSUBSCRIBE, 5)])),
    ],
)
def test_nonsense_is_ignored_and_logged(bench: Bench, message: Term) -> None:
    bench.subscribe(A, T1)
    with capture_logs() as logs:
        bench.core.handle(message)
    assert len(logs) == 1
    assert bench.counters.malformed >= 1
    bench.dies(T1)
    assert bench.summaries() == [(A, [(T1, DIED)])]


def test_the_good_instructions_around_a_bad_one_count(bench: Bench) -> None:
    with capture_logs() as logs:
        message = (m.GEN_CAST, (m.PROCESS, A, ImproperList([(m.SUBSCRIBE, T1), 5, (m.SUBSCRIBE, T2)], 7)))
        bench.core.handle(message, B)
    assert bench.targets_watched() == [T1, T2]
    assert {log["problem"] for log in logs} == {"an improper list", "a malformed instruction"}
    assert [log["sender"] for log in logs] == [str(B), str(B)]


@pytest.mark.parametrize("target", [123, (b"name", HERE), [T1], (Atom("n"), HERE, 1)])
def test_what_cannot_live_is_certified_dead(bench: Bench, target: Term) -> None:
    with capture_logs():
        bench.cast(A, (m.SUBSCRIBE, target))
    assert bench.summaries() == [(A, [(target, m.NOPROC)])]


def test_long_casts_go_in_slices_and_stay_in_order(bench: Bench) -> None:
    targets = [pid(number) for number in range(100, 5_100)]
    bench.subscribe(A, *targets)
    assert 0 < len(bench.core.tables) <= SLICE
    bench.unsubscribe(A, targets[-1])  # must not overtake
    assert bench.core.waiting_instructions == 5_001 - len(bench.core.tables)
    bench.core.handle((m.GEN_CALL, (A, ref(1)), m.PING))  # may
    assert bench.port.sent
    assert bench.finish() == 5_000 // (SLICE - 1)
    assert bench.core.waiting_instructions == 0
    assert bench.targets_watched() == targets[:-1]


def test_long_purges_go_in_slices(bench: Bench) -> None:
    targets = [pid(number) for number in range(100, 5_100)]
    bench.subscribe(A, *targets)
    bench.finish()
    bench.dies(A)
    bench.dies(targets[-1])  # in the middle of the purge: nobody is to be told
    assert 0 < len(bench.core.tables) <= 5_001 - SLICE
    bench.subscribe(B, targets[0])
    assert bench.summaries() == []
    assert bench.targets_watched() == [targets[0]]


def test_a_subscriber_dying_during_its_own_cast_leaves_nothing(bench: Bench) -> None:
    bench.subscribe(A, *[pid(number) for number in range(100, 5_100)])
    bench.dies(A)
    bench.port.unreachable.add(THERE)
    assert bench.summaries() == []
    assert bench.targets_watched() == []
    assert len(bench.core.tables) == 0


def test_settings_change_while_running(bench: Bench) -> None:
    bench.subscribe(A, T1, T2, T3)
    bench.dies(T1)
    bench.core.configure(Settings(batcher_chunk_size=1, truncation_depth=0))
    bench.dies(T2)
    bench.dies(T3)
    assert bench.summaries() == [(A, [(T1, DIED)]), (A, [(T2, TRUNCATED)]), (A, [(T3, TRUNCATED)])]


HEAVY = (Atom("shutdown"), b"x" * 3_000_000)


def test_heavy_summaries_take_turns_with_those_of_others(bench: Bench) -> None:
    bench.subscribe(A, T1, T2, T3)
    bench.subscribe(B, T1)
    for target in (T1, T2, T3):
        bench.dies(target, HEAVY)
    bench.now = 200.0
    bench.core.next_due(bench.now)
    bench.now += 1.0
    sent = []
    for _ in range(2):
        bench.port.summaries.clear()
        bench.core.sweep(bench.now)
        sent.append([(subscriber, [target for target, _ in batch]) for subscriber, batch in bench.port.summaries])
    # The loop has had a turn between the two, and A's next one waits for its interval.
    assert sent == [[(A, [T1])], [(B, [T1])]]
    assert [(s, [target for target, _ in batch]) for s, batch in bench.summaries()] == [(A, [T2]), (A, [T3])]


def test_a_summary_that_cannot_be_sent_costs_itself_only(bench: Bench) -> None:
    class Broken(FakeProxyPort):
        def send_summary(self, subscriber: Pid, certificates: list[tuple[Target, Term]]) -> None:
            tried.append((subscriber, list(certificates)))
            if subscriber == A:
                raise RuntimeError("no")
            super().send_summary(subscriber, certificates)

    tried: list[Term] = []
    bench.port = Broken()
    bench.core = ProxyCore(HERE, bench.port, bench.port.observer, Settings())
    bench.subscribe(A, T1)
    bench.subscribe(B, T1, T2)
    bench.dies(T1, (Atom("error"), 1))
    with capture_logs() as logs:
        while (due := bench.core.next_due(bench.now)) is not None:
            bench.now = max(bench.now, due)
            try:
                bench.core.sweep(bench.now)
            except RuntimeError:
                bench.core.recover()
    assert tried == [(A, [(T1, (Atom("error"), 1))]), (B, [(T1, (Atom("error"), 1))]), (A, [(T1, TRUNCATED)])]
    assert [(log["event"], log["subscriber"], log["certificates"]) for log in logs] == [
        ("a summary is lost: it could not be sent twice", str(A), 1)
    ]
    bench.dies(T2)
    assert bench.summaries() == [(B, [(T2, DIED)])]


def test_deaths_that_wait_outlive_an_exception_and_keep_their_reasons(bench: Bench) -> None:
    bench.subscribe(A, T1, T2)
    bench.port.down(T1, DIED)
    bench.core.recover()
    assert (bench.core.waiting_certificates, bench.core.tables.rows) == (1, 2)
    bench.unsubscribe(A, T2)
    assert bench.summaries() == [(A, [(T1, DIED)])]
    assert (bench.core.tables.rows, bench.targets_watched()) == (0, [])


def test_a_dead_pid_asked_for_twice_in_one_cast_is_certified_once(bench: Bench) -> None:
    bench.port.down(T1, DIED)
    bench.cast(A, (m.SUBSCRIBE, T1), (m.UNSUBSCRIBE, T1), (m.SUBSCRIBE, T1))
    assert bench.summaries() == [(A, [(T1, m.NOPROC)])]
    bench.subscribe(A, T1)
    assert bench.summaries() == [(A, [(T1, m.NOPROC)])]
    assert (bench.core.tables.rows, bench.targets_watched()) == (0, [])


def test_a_reason_that_raises_when_it_is_looked_at_is_truncated(bench: Bench) -> None:
    bench.subscribe(A, T1)
    with capture_logs() as logs:
        bench.dies(T1, Mock(spec=str))
    assert bench.summaries() == [(A, [(T1, TRUNCATED)])]
    assert [(log["log_level"], log["target"]) for log in logs] == [("error", repr(T1))]


def test_recovery_makes_the_tables_from_the_rows_of_the_subscribers(bench: Bench) -> None:
    bench.subscribe(A, T1, T2)
    bench.subscribe(B, T1)
    stray = bench.port.monitor(T3)
    bench.core.tables._subscriptions.clear()
    bench.core.recover()
    assert stray not in bench.port.monitors
    assert len(bench.core.tables) == 2
    bench.dies(T1)
    bench.dies(T2)
    assert bench.summaries() == [(A, [(T1, DIED), (T2, DIED)]), (B, [(T1, DIED)])]


def test_deaths_seen_after_the_subscriber_has_gone_leave_no_batcher(bench: Bench) -> None:
    """The subscriber's clean-up waits behind its own long cast; meanwhile a target of it dies."""
    bench.subscribe(A, T1, *[pid(number) for number in range(100, 5_100)])
    bench.dies(A)
    bench.dies(T1)
    assert bench.core.waiting_certificates == 1
    bench.port.unreachable.add(THERE)
    bench.finish()
    assert bench.core.waiting_certificates == 0
    assert bench.core._batchers == {}


def test_instructions_for_a_process_that_cannot_be_reached(bench: Bench) -> None:
    """Dropped, for nobody could be told; and said if it was another process that has sent them."""
    lost = pid(9, Atom("gone@host"))
    bench.port.unreachable.add(lost.node)
    message = (m.GEN_CAST, (m.PROCESS, lost, [(m.SUBSCRIBE, T1)]))
    with capture_logs() as logs:
        bench.core.handle(message, lost)  # its connection was lost when this had been read
        assert logs == []
        bench.core.handle(message, A)
    assert [(log["problem"], log["sender"]) for log in logs] == [
        ("instructions for a process that cannot be reached", str(A))
    ]
    assert (bench.targets_watched(), len(bench.core.tables), bench.core.waiting_certificates) == ([], 0, 0)


@pytest.mark.parametrize("object_", [[], (), (HERE,), 5, None, {}])
def test_a_forged_down_of_nothing_costs_nobody_anything(bench: Bench, object_: Term) -> None:
    bench.subscribe(A, T1)
    with capture_logs() as logs:
        bench.core.handle((m.DOWN, ref(1), m.PROCESS, object_, DIED), B)
    assert [log["sender"] for log in logs] == [str(B)]
    bench.dies(T1)
    assert bench.summaries() == [(A, [(T1, DIED)])]


@pytest.mark.parametrize(
    "target", [None, True, False, (None, HERE), (True, HERE), (Atom("x"), None), 1.5, b"x", {}, []]
)
def test_names_that_are_no_atoms_here_name_nobody(bench: Bench, target: Term) -> None:
    with capture_logs() as logs:
        bench.cast(A, (m.SUBSCRIBE, target), (m.UNSUBSCRIBE, target), (m.SUBSCRIBE, T1))
    assert [log["problem"] for log in logs] == ["a malformed instruction"]
    assert bench.summaries() == [(A, [(target, m.NOPROC)])]
    assert bench.targets_watched() == [T1]


def test_a_death_whose_handling_raised_is_reported_all_the_same(bench: Bench) -> None:
    bench.subscribe(A, T1, T2)
    bench.subscribe(B, T1, NAME)
    for gone in (T1, NAME, B):
        bench.port.down(gone, DIED)  # nothing comes of these messages
    bench.port.observer.deaths.clear()
    bench.core.recover()
    assert bench.summaries() == [(A, [(T1, m.NOPROC)])]
    assert bench.targets_watched() == [T2]
    assert bench.core.tables.rows == 1
    bench.dies(T2)
    assert bench.summaries() == [(A, [(T2, DIED)])]
