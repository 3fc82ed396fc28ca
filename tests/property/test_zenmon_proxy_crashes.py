"""An exception at any point where the Proxy calls the process it runs in: nobody's DOWN is lost or doubled by it.

A script of casts and deaths is run once to count those calls, and then once for each of them, with that call raising
before or after it has done its work. After each step every subscription is there, was withdrawn, or has been certified.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Any, Literal

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from erlang_interop.terms import Atom, Pid
from tests.unit.zenmon.ports import HERE, THERE, FakeProxyPort, pid
from zenmon_node import messages as m
from zenmon_node.config import Settings
from zenmon_node.proxy.core import ProxyCore

if TYPE_CHECKING:
    from erlang_interop.terms import Reference, Term
    from zenmon_node.messages import Certificate, Instruction, Target

#: Two Connectors, one of another node and our own.
SUBSCRIBERS = [pid(1, THERE), pid(2, HERE)]
TARGETS: list[Target] = [*[pid(number) for number in range(10, 15)], (Atom("alpha"), HERE), pid(5, THERE), Atom("beta")]
NOWHERE = pid(7, Atom("gone@host"))

When = Literal["before", "after"]


class InjectedError(Exception):
    """What the port raises."""


class FailingPort(FakeProxyPort):
    """Raises at its n-th call (0: never), before or after having done what it was asked for."""

    def __init__(self, failing: int, when: When) -> None:
        super().__init__()
        self.failing, self.when = failing, when
        self.calls = 0
        self.kinds: set[str] = set()
        self.dead: set[Target] = set()
        #: DOWNs under way to the Proxy.
        self.inbox: deque[Term] = deque()
        self.unreachable = {NOWHERE.node}

    def _call(self, name: str) -> None:
        self.calls += 1
        self.kinds.add(name)
        self._may_raise("before")

    def _may_raise(self, when: When) -> None:
        if self.calls == self.failing and when == self.when:
            self.failing = -1
            raise InjectedError

    def monitor(self, target: Target) -> Reference:
        self._call("monitor")
        ref = super().monitor(target)
        if target in self.dead:
            self.inbox.extend(self.down(target, m.NOPROC))
        self._may_raise("after")
        return ref

    def demonitor(self, ref: Reference) -> None:
        self._call("demonitor")
        super().demonitor(ref)
        self._may_raise("after")

    def can_reach(self, node: Atom) -> bool:
        self._call("can_reach")
        return super().can_reach(node)

    def is_busy(self, node: Atom) -> bool:
        self._call("is_busy")
        return super().is_busy(node)

    def send_summary(self, subscriber: Pid, certificates: list[Certificate]) -> None:
        self._call(
            "send_summary"
        )  # what has been sent may be sent again: that is no loss, and the Connector ignores it
        super().send_summary(subscriber, certificates)


class Run:
    """One run of a script, and the account of every subscription in it."""

    def __init__(self, failing: int = 0, when: When = "before") -> None:
        self.port = FailingPort(failing, when)
        self.core = ProxyCore(HERE, self.port, self.port.observer, Settings(batcher_chunk_size=2))
        self.core.slice_size = 3
        self.now = 0.0
        self.opened: Counter[tuple[Pid, Target]] = Counter()
        self.withdrawn: Counter[tuple[Pid, Target]] = Counter()
        self.subscriptions: set[tuple[Pid, Target]] = set()

    def guarded(self, step: Any, *arguments: Any) -> None:
        """What the process does with an exception."""
        try:
            step(*arguments)
        except InjectedError:
            self.core.recover()

    def settle(self) -> None:
        """Let everything happen that is under way, and see that it adds up."""
        while True:
            if self.port.inbox:
                self.guarded(self.core.handle, self.port.inbox.popleft())
                continue
            due = self.core.next_due(self.now)
            if due is None:
                break
            self.now = max(self.now, due)
            self.guarded(self.core.work)
            self.guarded(self.core.sweep, self.now)
        certified = Counter((s, target) for s, summary in self.port.summaries for target, _ in summary)
        self.subscriptions = set()
        for pair, opened in self.opened.items():
            left = opened - self.withdrawn[pair] - certified[pair]
            assert left in (0, 1), f"{pair}: certified too often, or not at all"
            assert self.core.tables.is_subscribed(pair[1], pair[0]) == bool(left)
            if left:
                self.subscriptions.add(pair)
        guards = Counter(self.port.watched())
        watched = {target for _, target in self.subscriptions}
        assert {target for target in guards if target not in SUBSCRIBERS} == watched
        assert len(self.core.tables) == len(watched)
        assert self.core.waiting_certificates == 0

    def cast(self, subscriber: Pid, instructions: list[Instruction]) -> None:
        for op, target in instructions:
            pair = subscriber, target
            if op == m.SUBSCRIBE and pair not in self.subscriptions:
                self.opened[pair] += 1
            elif op == m.UNSUBSCRIBE and pair in self.subscriptions:
                self.withdrawn[pair] += 1
        self.guarded(self.core.handle, (m.GEN_CAST, (m.PROCESS, subscriber, instructions)))

    def dies(self, target: Target) -> None:
        self.port.dead.add(target)
        self.port.inbox.extend(self.port.down(target, Atom("died")))

    def lives_again(self, target: Target) -> None:
        self.port.dead.discard(target)
        if isinstance(target, Pid):
            self.port.processes.dead.discard(target)
            self.port.processes.start(target)

    def subscriber_ends(self, subscriber: Pid) -> None:
        """Its subscriptions are nobody's any more, and nobody gets their certificates."""
        self.port.inbox.extend(self.port.down(subscriber, m.NOCONNECTION))
        for pair in self.subscriptions:
            if pair[0] == subscriber:
                self.withdrawn[pair] += 1

    def finish(self) -> int:
        """All ends; how often the port was called."""
        for target in TARGETS:
            self.dies(target)
        self.settle()
        assert not self.subscriptions
        for subscriber in SUBSCRIBERS:
            self.subscriber_ends(subscriber)
        self.settle()
        assert self.port.watched() == []
        assert (len(self.core.tables), self.core.tables.subscribers, self.core.busy) == (0, 0, False)
        return self.port.calls


def run(script: list[tuple[Any, ...]], failing: int = 0, when: When = "before") -> int:
    runner = Run(failing, when)
    for name, *arguments in script:
        getattr(runner, name)(*arguments)
        runner.settle()
    return runner.finish()


instructions = st.lists(
    st.tuples(st.sampled_from([m.SUBSCRIBE, m.SUBSCRIBE, m.UNSUBSCRIBE]), st.sampled_from([*TARGETS, NOWHERE])),
    max_size=8,
    unique_by=lambda instruction: str(instruction[1]),
)
steps = st.one_of(
    st.tuples(st.just("cast"), st.sampled_from(SUBSCRIBERS), instructions),
    st.tuples(st.just("cast"), st.sampled_from(SUBSCRIBERS), instructions),
    st.tuples(st.sampled_from(["dies", "lives_again"]), st.sampled_from(TARGETS)),
    st.tuples(st.just("subscriber_ends"), st.sampled_from(SUBSCRIBERS)),
)


@hypothesis_settings(max_examples=60, deadline=None)
@given(script=st.lists(steps, min_size=1, max_size=8))
def test_an_exception_at_any_call_loses_and_doubles_nothing(script: list[tuple[Any, ...]]) -> None:
    calls = run(script)
    for failing in range(1, calls + 1):
        for when in ("before", "after"):
            run(script, failing, when)


def test_all_kinds_of_calls_are_among_them() -> None:
    runner = Run()
    for subscriber in SUBSCRIBERS:
        runner.cast(subscriber, [(m.SUBSCRIBE, target) for target in TARGETS])
        runner.settle()
    runner.cast(SUBSCRIBERS[0], [(m.UNSUBSCRIBE, Atom("beta"))])
    runner.settle()
    runner.finish()
    assert set(runner.port.kinds) == {"monitor", "demonitor", "can_reach", "is_busy", "send_summary"}
