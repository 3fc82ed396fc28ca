from __future__ import annotations

from collections import deque
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from erlang_interop import Atom, Export, Pid, Reference, Term
from erlang_interop.otp import _global_messages as messages
from erlang_interop.otp._global_core import Cancel, Candidate, Clash, GlobalCore
from erlang_interop.otp._global_messages import (
    GLOBAL,
    PYTHON,
    VERSION,
    CancelConnect,
    Exchange,
    InitConnect,
    InitConnectAck,
    InSync,
    LockSet,
    LostConnection,
    Message,
    Named,
    NewNodes,
    Ops,
    RemoveConnection,
    Resolved,
    parse,
)

HERE, THERE, THIRD, FOURTH = (Atom(f"{name}@test") for name in ("here", "there", "third", "zfourth"))
LOCKER, HIS_LOCKER = Pid(HERE, 1, 0, 1), Pid(THERE, 1, 0, 1)
METHOD = Export(GLOBAL, Atom("random_exit_name"), 3)
HIS_TAG = -77


class Port:
    """Keeps what the core asks for."""

    def __init__(self, core: Callable[[], GlobalCore]) -> None:
        self.sent: list[tuple[Atom, Message]] = []
        self.locker: list[Candidate | Cancel | LockSet] = []
        self.dialled: list[Atom] = []
        self.disconnected: list[Atom] = []
        self.warnings: list[str] = []
        self.clashes: list[tuple[list[Clash], Callable[[list[Term]], None]]] = []
        self.time = 0.0
        self.refs: dict[Reference, Pid] = {}

    def send(self, node: Atom, message: Term) -> None:
        self.sent.append((node, parse(message)))

    def cast(self, node: Atom, message: Term) -> None:
        self.send(node, (Atom("$gen_cast"), message))

    def tell_locker(self, message: Candidate | Cancel | LockSet) -> None:
        self.locker.append(message)

    def resolve(self, clashes: list[Clash], done: Callable[[list[Term]], None]) -> Callable[[], object]:
        asked = (clashes, done)
        self.clashes.append(asked)
        return lambda: self.clashes.remove(asked)

    def reconnect(self, node: Atom) -> None:
        self.disconnect_from(node)
        self.dial(node)

    def dial(self, node: Atom) -> None:
        self.dialled.append(node)

    def disconnect_from(self, node: Atom) -> None:
        self.disconnected.append(node)

    def monitor(self, pid: Pid) -> Reference:
        ref = Reference(HERE, 1, (len(self.refs) + 1).to_bytes(12, "big"))
        self.refs[ref] = pid
        return ref

    def demonitor(self, ref: Reference) -> None:
        pass

    def is_alive(self, pid: Pid) -> bool:
        return True

    def now(self) -> float:
        return self.time

    def warn(self, problem: str) -> None:
        self.warnings.append(problem)

    def taken(self) -> list[tuple[Atom, Message]]:
        sent, self.sent = self.sent, []
        return sent


class One:
    """A core with its port, and a peer that it is told of."""

    def __init__(self, me: Atom = HERE) -> None:
        self.port = Port(lambda: self.core)
        self.core = GlobalCore(me, 1, Pid(me, 1, 0, 1), self.port)
        self.registry = self.core.registry

    @property
    def tag(self) -> int:
        """That of the attempt with THERE which was begun last."""
        return [message for message in self.port.locker if isinstance(message, Candidate)][-1].tag

    def meet(self, *, version: int = VERSION, python: bool = False, known: dict[Atom, int] | None = None) -> None:
        """Up to the moment when both sides are locked and have told their names."""
        self.core.nodeup(THERE)
        self.core.handle(InitConnect(THERE, version, HIS_TAG, HIS_LOCKER, python))
        self.core.locked(THERE, self.tag, messages.requester_of(LOCKER, HIS_LOCKER))

    def join(self, *, python: bool = False, known: dict[Atom, int] | None = None, version: int = VERSION) -> None:
        """THERE is known afterwards, with its side."""
        self.meet(python=python, version=version)
        self.core.handle(Exchange(THERE, [], self.tag))
        self.core.handle(Resolved(THERE, Ops([], []), known or {}, [], self.tag))
        self.port.taken()


@pytest.fixture
def one() -> One:
    return One()


def name(text: str, node: Atom, number: int = 5) -> Named:
    return Named(Atom(text), Pid(node, number, 0, 1), METHOD)


# -- two nodes that connect


def test_the_messages_of_an_exchange(one: One) -> None:
    core, port = one.core, one.port
    one.registry.register(name("ours", HERE), None, LOCKER)
    core.nodeup(THERE)
    ((to, begun),) = port.taken()
    assert to == THERE
    assert isinstance(begun, InitConnect)
    assert (begun.node, begun.version, begun.locker, begun.python) == (HERE, VERSION, LOCKER, True)
    core.handle(InitConnect(THERE, VERSION, HIS_TAG, HIS_LOCKER, False))
    tag = begun.tag
    assert port.taken() == [(THERE, InitConnectAck(HERE, HIS_TAG, tag))]
    assert port.locker == [Candidate(THERE, HIS_LOCKER, VERSION, tag, HIS_TAG, 0)]
    core.handle(InitConnectAck(THERE, tag, HIS_TAG))
    core.handle(LockSet(HIS_LOCKER, True, tag))
    assert port.locker.pop() == LockSet(HIS_LOCKER, True, tag)
    core.locked(THERE, tag, [LOCKER, HIS_LOCKER])
    assert port.taken() == [(THERE, Exchange(HERE, [name("ours", HERE)], HIS_TAG))]
    core.handle(Exchange(THERE, [name("theirs", THERE)], tag))
    assert port.taken() == [(THERE, Resolved(HERE, Ops([], []), {}, [], HIS_TAG))]
    assert core.known == {}
    core.handle(Resolved(THERE, Ops([], []), {THIRD: 7}, [], tag))
    assert core.known == {THERE: VERSION, THIRD: 7}
    assert core.synced == {THERE}
    assert port.dialled == [THIRD]
    assert one.registry.whereis(Atom("theirs")) == Pid(THERE, 5, 0, 1)
    end = port.locker.pop()
    assert isinstance(end, Cancel)
    assert (end.node, end.tag) == (THERE, tag)
    assert port.taken() == []  # there was nobody before
    assert not port.warnings


def test_those_known_before_are_told_before_the_lock_is_given_back(one: One) -> None:
    one.join(known={THIRD: 6})
    one.core.nodeup(FOURTH)
    locker = Pid(FOURTH, 1, 0, 1)
    one.core.handle(InitConnect(FOURTH, 9, HIS_TAG, locker, False))
    tag = one.tag
    requester = [LOCKER, locker]
    one.core.locked(FOURTH, tag, requester)
    one.core.handle(Exchange(FOURTH, [name("x", FOURTH)], tag))
    one.port.taken()
    one.port.locker.clear()
    one.core.handle(Resolved(FOURTH, Ops([], [b"gone"]), {}, [], tag))
    ops = Ops([name("x", FOURTH)], [b"gone"])
    assert one.port.taken() == [
        (THERE, NewNodes(HERE, ops, [], {FOURTH: 9}, requester)),
        (THIRD, NewNodes(HERE, ops, [], {FOURTH: 0}, requester)),  # too old to be told the version
    ]
    assert one.port.locker == [Cancel(FOURTH, tag)]


def test_what_comes_early_waits(one: One) -> None:
    core, port = one.core, one.port
    core.handle(InitConnect(THERE, VERSION, HIS_TAG, HIS_LOCKER, False))
    assert (port.sent, port.locker) == ([], [])
    core.nodeup(THERE)
    tag = one.tag
    assert [type(message) for _, message in port.taken()] == [InitConnect, InitConnectAck]
    # His exchange comes before our locker knows that both sides are locked, and so does what he found.
    core.handle(Exchange(THERE, [], tag))
    core.handle(Resolved(THERE, Ops([], []), {}, [], tag))
    assert port.taken() == []
    assert core.known == {}
    core.locked(THERE, tag, [])
    assert [type(message) for _, message in port.taken()] == [Exchange, Resolved]
    assert core.known == {THERE: VERSION}


def test_what_is_of_another_attempt_changes_nothing(one: One) -> None:
    one.meet()
    one.port.taken()
    tag = one.tag
    before = len(one.port.locker)
    for old in (tag - 1, HIS_TAG, Atom("tag"), None):
        one.core.handle(Exchange(THERE, [name("x", THERE)], old))
        one.core.handle(Resolved(THERE, Ops([name("x", THERE)], []), {}, [], old))
        one.core.handle(CancelConnect(THERE, old))
    one.core.handle(LockSet(HIS_LOCKER, True, tag - 1))
    one.core.locked(THERE, tag - 1, [])
    one.core.timed_out(THERE, tag - 1)
    one.core.handle(Exchange(THIRD, [], tag))
    assert one.port.taken() == []
    assert len(one.registry) == 0
    assert one.port.locker[before:] == []
    assert one.core._attempts[THERE].tag == tag


def test_a_lock_set_without_a_tag_is_for_the_locker_to_judge(one: One) -> None:
    one.core.handle(LockSet(HIS_LOCKER, True, None))
    assert one.port.locker == [LockSet(HIS_LOCKER, True, None)]


def test_names_that_both_have(one: One) -> None:
    ours = [name(text, HERE) for text in ("theirs_wins", "ours_wins", "nobody", "nonsense", "uncallable")]
    theirs = [Named(mine.name, Pid(THERE, 9, 0, 1), METHOD) for mine in ours]
    same = name("same", THIRD)
    for mine in [*ours, same]:
        one.registry.register(mine, None, LOCKER)
    one.meet()
    one.port.taken()
    one.core.handle(Exchange(THERE, [*theirs, same], one.tag))
    clashes, done = one.port.clashes.pop()
    assert clashes == list(zip(theirs, ours, strict=True))
    done([theirs[0].pid, ours[1].pid, Atom("none"), b"what?", None])
    gone = [ours[2].name, ours[3].name]
    assert one.port.taken() == [(THERE, Resolved(HERE, Ops([ours[1]], gone), {}, [], HIS_TAG))]
    one.core.handle(Resolved(THERE, Ops([], []), {}, [], one.tag))
    assert one.registry.all() == [ours[1], same, theirs[0], theirs[4]]


def test_the_node_with_the_greater_name_leaves_clashes_to_the_other() -> None:
    one = One(FOURTH)
    one.registry.register(name("x", FOURTH), None, LOCKER)
    one.meet()
    one.port.taken()
    one.core.handle(Exchange(THERE, [name("x", THERE)], one.tag))
    assert one.port.clashes == []
    assert one.port.taken() == [(THERE, Resolved(FOURTH, Ops([], []), {}, [], HIS_TAG))]
    one.core.handle(Resolved(THERE, Ops([name("x", THERE)], []), {}, [], one.tag))
    assert one.registry.all() == [name("x", THERE)]


def test_nothing_is_decided_any_more_for_a_node_that_is_lost(one: One) -> None:
    one.registry.register(name("x", HERE), None, LOCKER)
    one.meet()
    one.core.handle(Exchange(THERE, [name("x", THERE)], one.tag))
    assert len(one.port.clashes) == 1
    one.core.nodedown(THERE)
    assert one.port.clashes == []
    assert one.registry.all() == [name("x", HERE)]


# -- beginning again


def begins_again(one: One, tag: int) -> None:
    """The attempt ``tag`` is over, the other side is told so, and another one has begun."""
    assert Cancel(THERE, tag) in one.port.locker
    sent = one.port.taken()
    assert (THERE, CancelConnect(HERE, HIS_TAG)) in sent
    begun = sent[-1][1]
    assert isinstance(begun, InitConnect)
    assert begun.tag != tag
    assert one.core._attempts[THERE].tag == begun.tag


def test_wrong_tags_begin_again(one: One) -> None:
    one.meet()
    one.port.taken()
    tag = one.tag
    one.core.handle(InitConnectAck(THERE, tag, HIS_TAG - 1))
    assert (THERE, CancelConnect(HERE, HIS_TAG - 1)) in one.port.sent
    begins_again(one, tag)


def test_the_other_side_begins_again(one: One) -> None:
    one.meet()
    one.registry.register(name("stale", THERE), None, LOCKER)
    one.registry.locks.set_lock(GLOBAL, [LOCKER, HIS_LOCKER], HIS_LOCKER)
    one.port.taken()
    tag = one.tag
    one.core.handle(CancelConnect(THERE, tag))
    begins_again(one, tag)
    # What came of the attempt is void.
    assert (one.registry.all(), one.registry.locks.held) == ([], [])


def test_who_begins_twice_begins_again(one: One) -> None:
    one.meet()
    one.port.taken()
    tag = one.tag
    one.core.handle(InitConnect(THERE, VERSION, HIS_TAG - 1, HIS_LOCKER, False))
    assert (THERE, CancelConnect(HERE, HIS_TAG - 1)) in one.port.sent
    begins_again(one, tag)


def test_old_nodes_cannot_begin_again_and_are_disconnected(one: One) -> None:
    one.meet(version=7)
    one.core.handle(InitConnect(THERE, 7, HIS_TAG - 1, HIS_LOCKER, False))
    assert one.port.disconnected == [THERE]
    one.core.timed_out(THERE, one.tag)
    assert one.port.disconnected == [THERE, THERE]


def test_an_ack_out_of_the_blue_is_refused(one: One) -> None:
    one.registry.register(name("x", THERE), None, LOCKER)
    one.core.handle(InitConnectAck(THERE, 1, HIS_TAG))
    assert one.port.taken() == [(THERE, CancelConnect(HERE, HIS_TAG))]
    assert one.registry.all() == [name("x", THERE)]


def test_who_does_not_go_on_is_begun_with_again(one: One) -> None:
    one.meet()
    one.port.taken()
    tag = one.tag
    one.core.timed_out(THERE, tag)
    begins_again(one, tag)
    (warning,) = one.port.warnings
    assert THERE.name in warning
    one.core.handle(InitConnect(THERE, VERSION, HIS_TAG, HIS_LOCKER, False))
    assert one.port.locker[-1] == Candidate(THERE, HIS_LOCKER, VERSION, one.tag, HIS_TAG, 1)
    # It does better now, and the next time nothing is held against it.
    one.core.locked(THERE, one.tag, [])
    one.core.handle(Exchange(THERE, [], one.tag))
    one.core.handle(Resolved(THERE, Ops([], []), {}, [], one.tag))
    one.core.nodedown(THERE)
    one.meet()
    assert [message.failures for message in one.port.locker if isinstance(message, Candidate)] == [0, 1, 0]


def test_nobody_is_blamed_while_this_node_decides(one: One) -> None:
    one.registry.register(name("x", HERE), None, LOCKER)
    one.meet()
    one.core.handle(Exchange(THERE, [name("x", THERE)], one.tag))
    one.port.taken()
    one.core.timed_out(THERE, one.tag)
    assert one.port.taken() == []
    _, done = one.port.clashes.pop()
    done([Atom("none")])
    one.port.taken()
    # Now it is the other's turn. It may be through, and if so would not begin again.
    one.core.timed_out(THERE, one.tag)
    assert one.port.disconnected == [THERE]
    assert one.port.taken() == []


# -- nodes of which others tell


def test_new_nodes_are_dialled_and_names_come_with_them(one: One) -> None:
    one.join()
    requester = [HIS_LOCKER, Pid(FOURTH, 1, 0, 1)]
    one.registry.locks.set_lock(GLOBAL, requester, HIS_LOCKER)
    one.core.handle(NewNodes(THERE, Ops([name("x", FOURTH)], []), [], {FOURTH: 8, THERE: 8, HERE: 8}, requester))
    assert one.core.known == {THERE: 8, FOURTH: 8}
    assert one.port.dialled == [FOURTH]
    assert one.registry.all() == [name("x", FOURTH)]
    one.core.nodeup(FOURTH)  # known already: nothing is to be exchanged
    assert one.port.taken() == []
    one.core.handle(InSync(FOURTH, False))
    assert one.core.synced == {THERE, FOURTH}


def test_somebody_else_brings_both_sides_together(one: One) -> None:
    one.core.nodeup(THIRD)
    one.core.handle(InitConnect(THIRD, VERSION, 3, Pid(THIRD, 1, 0, 1), False))
    tag = one.tag
    one.join(known={THIRD: 8})
    assert THIRD not in one.core._attempts
    assert Cancel(THIRD, tag) in one.port.locker
    assert one.core.known == {THERE: 8, THIRD: 8}
    assert one.port.taken() == []


def test_a_passive_node_is_in_sync_and_no_member(one: One) -> None:
    one.core.nodeup(THERE)
    one.core.handle(InSync(THERE, False))
    assert (one.core.synced, one.core.known) == ({THERE}, {})
    assert one.core._attempts == {}


def test_a_node_that_cannot_be_reached_is_known_no_more(one: One) -> None:
    one.join(known={THIRD: 8})
    one.core.unreachable(THIRD)
    assert one.core.known == {THERE: 8}
    assert one.port.taken() == []  # a BEAM: it says itself that it cannot reach this node
    assert THIRD.name in one.port.warnings[0]


# -- lost connections


LOSS = LostConnection(THERE, 99, 1, THIRD)


def test_the_loss_of_a_beam_is_not_told(one: One) -> None:
    one.join(known={THIRD: 8})
    one.core.nodedown(THIRD)
    assert one.core.known == {THERE: 8}
    assert one.port.taken() == []


def test_the_loss_of_a_node_of_this_kind_is(one: One) -> None:
    one.join(known={THIRD: 8, FOURTH: 6})
    one.core.handle(InSync(THIRD, True))
    one.core.nodedown(THIRD)
    ((to, loss),) = one.port.taken()  # FOURTH is too old
    assert to == THERE
    assert isinstance(loss, LostConnection)
    assert (loss.node, loss.lost) == (HERE, THIRD)
    assert One().core._incarnation != loss.incarnation
    one.core.nodeup(THIRD)
    one.core.nodedown(THIRD)  # it may have been a BEAM this time
    assert [type(message) for _, message in one.port.taken()] == [InitConnect]


def test_losses_of_others_are_handed_on_once_and_the_lost_one_is_let_go(one: One) -> None:
    one.join(known={THIRD: 8, FOURTH: 8})
    one.core.handle(LOSS)
    assert one.port.taken() == [(THIRD, LOSS), (FOURTH, LOSS), (THIRD, RemoveConnection(HERE))]
    assert one.core.known == {THERE: 8, FOURTH: 8}
    one.core.handle(LOSS)
    one.core.handle(LostConnection(THERE, 99, 0, THIRD))
    assert one.port.taken() == []
    newer, other_life = LostConnection(THERE, 99, 2, THIRD), LostConnection(THERE, 98, 1, THIRD)
    for loss in (newer, other_life):
        one.core.handle(loss)
        assert one.port.taken() == [(FOURTH, loss)]
    # When it has gone, there is nothing to tell.
    one.core.handle(InSync(THIRD, True))
    one.core.nodedown(THIRD)
    assert one.port.taken() == []
    (warning,) = one.port.warnings
    assert THIRD.name in warning
    assert THERE.name in warning


def test_a_loss_of_its_own_that_comes_back_means_nothing(one: One) -> None:
    one.join(known={THIRD: 8})
    one.core.handle(LostConnection(HERE, 99, 1, THIRD))
    assert one.port.taken() == []
    assert THIRD in one.core.known


def test_losses_are_forgotten_after_an_hour(one: One) -> None:
    one.join(known={FOURTH: 8})
    one.core.handle(LOSS)
    one.port.time = 3601.0
    one.core.handle(LostConnection(FOURTH, 1, 1, THIRD))
    one.port.taken()
    one.core.handle(LOSS)
    assert one.port.taken() == [(FOURTH, LOSS)]


def test_who_has_lost_this_node_is_let_go(one: One) -> None:
    one.join(known={THIRD: 8})
    one.core.handle(LostConnection(THERE, 99, 1, HERE))
    assert one.core.known == {THIRD: 8}
    assert (THERE, RemoveConnection(HERE)) in one.port.taken()


def test_an_old_node_is_not_asked_to_disconnect_but_disconnected(one: One) -> None:
    one.join(known={THIRD: 6})
    one.core.handle(LOSS)
    assert one.port.disconnected == [THIRD]
    assert one.port.taken() == []


def test_who_asks_for_it_is_disconnected_from(one: One) -> None:
    one.core.handle(RemoveConnection(THERE))  # a stranger
    assert one.port.disconnected == []
    one.join(python=True)
    one.core.handle(RemoveConnection(THERE))
    assert one.port.disconnected == [THERE]
    assert one.core.known == {}
    one.core.nodedown(THERE)
    assert one.port.taken() == []


def test_who_is_left_on_purpose_is_not_reported(one: One) -> None:
    one.join(python=True, known={THIRD: 8})
    one.core.leave(THERE)
    one.core.handle(RemoveConnection(THERE))  # it has heard of another one that was left
    assert one.port.disconnected == one.port.warnings == []
    one.core.nodedown(THERE)
    assert one.port.taken() == []
    assert one.core.known == {THIRD: 8}


# -- two name servers that talk, with whatever order their messages, and their lockers, may have


class Pair:
    """Two cores and what is under way between them. The lockers lock at once when both have a candidate of one attempt.

    Names are registered on both sides before they meet; ``x`` on both.
    """

    def __init__(self) -> None:
        self.names = (HERE, THERE)
        self.ones = [One(HERE), One(THERE)]
        self.queues: list[deque[Message]] = [deque(), deque()]
        for one, node in zip(self.ones, self.names, strict=True):
            for text in ("x", node.name):
                one.registry.register(name(text, node), None, LOCKER)
        self.up = [False, False]
        self.connected = False

    def gather(self) -> None:
        for number, one in enumerate(self.ones):
            for _, message in one.port.taken():
                if self.connected:
                    self.queues[number].append(message)

    def candidate(self, number: int) -> Candidate | None:
        """What the locker of that side waits for."""
        waiting: Candidate | None = None
        for message in self.ones[number].port.locker:
            if isinstance(message, Candidate):
                waiting = message
            elif isinstance(message, Cancel) and waiting is not None and waiting.tag == message.tag:
                waiting = None
        return waiting

    def moves(self) -> list[Callable[[], None]]:
        """What can happen next."""
        able: list[Callable[[], None]] = []
        for number, one in enumerate(self.ones):
            queue = self.queues[1 - number]
            if self.connected and not self.up[number]:
                able.append(lambda number=number: self.bring_up(number))  # type: ignore[misc]
            elif queue:
                able.append(lambda one=one, queue=queue: one.core.handle(queue.popleft()))  # type: ignore[misc]
            if one.port.clashes:
                able.append(lambda one=one: self.decide(one))  # type: ignore[misc]
        mine, his = self.candidate(0), self.candidate(1)
        if mine is not None and his is not None and (mine.tag, mine.his_tag) == (his.his_tag, his.tag):
            for number, candidate in enumerate((mine, his)):
                attempt = self.ones[number].core._attempts[candidate.node]
                if attempt.requester is None:
                    able.append(lambda n=number, c=candidate: self.ones[n].core.locked(c.node, c.tag, [LOCKER]))  # type: ignore[misc]
        return able

    def bring_up(self, number: int) -> None:
        self.up[number] = True
        self.ones[number].core.nodeup(self.names[1 - number])

    def decide(self, one: One) -> None:
        clashes, done = one.port.clashes.pop()
        done([ours.pid for _, ours in clashes])

    def disturb(self, what: int) -> None:
        """An attempt is begun again by one side, or the connection is lost."""
        if what < 2:
            candidate = self.candidate(what)
            if candidate is not None:
                self.ones[what].core.timed_out(candidate.node, candidate.tag)
        if what == 2 or any(one.port.disconnected for one in self.ones):
            for one in self.ones:
                one.port.disconnected.clear()
            self.connected = False
            for number, one in enumerate(self.ones):
                self.queues[number].clear()
                other = self.names[1 - number]
                if self.up[number]:
                    for named in one.registry.all():  # its monitors fire
                        if named.pid.node == other:
                            one.registry.delete(named.name)
                    one.core.nodedown(other)
            self.up = [False, False]
            self.gather()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40)), max_size=40))
def test_two_sides_agree_in_the_end_whatever_the_order(choices: list[tuple[int, int]]) -> None:
    pair = Pair()
    for choice, disturbance in [*choices, *[(0, 40)] * 200]:
        pair.connected = True
        pair.gather()
        able = pair.moves()
        if disturbance < 3:
            pair.disturb(disturbance)
        elif able:
            able[choice % len(able)]()
        pair.gather()
    assert not pair.moves()
    here, there = pair.ones
    assert (here.core.known, there.core.known) == ({THERE: 8}, {HERE: 8})
    assert (here.core.synced, there.core.synced) == ({THERE}, {HERE})
    tables = [{str(named.name): named.pid.node for named in one.registry.all()} for one in pair.ones]
    assert tables[0] == tables[1] == {"x": HERE, HERE.name: HERE, THERE.name: THERE}


def test_the_mark_of_this_kind_is_no_node() -> None:
    assert "@" not in PYTHON.name


# -- when the process has ended, and another one takes over


NEW_LOCKER = Pid(HERE, 9, 0, 1)


def test_who_is_known_is_told_nothing(one: One) -> None:
    one.join(known={THIRD: 6})
    one.port.locker.clear()
    one.core.take_over(NEW_LOCKER)
    assert (one.port.taken(), one.port.locker) == ([], [])
    assert (one.core.known, one.core.synced) == ({THERE: VERSION, THIRD: 6}, {THERE})


def test_an_exchange_is_begun_again_with_the_new_locker(one: One) -> None:
    one.meet()
    one.port.taken()
    one.core.take_over(NEW_LOCKER)
    (_, cancel), (_, begun) = one.port.taken()
    assert isinstance(cancel, messages.CancelConnect)
    assert isinstance(begun, InitConnect)
    assert begun.locker == NEW_LOCKER
    assert one.port.disconnected == []


def test_who_may_be_through_is_connected_anew(one: One) -> None:
    one.meet()
    one.core.handle(Exchange(THERE, [], one.tag))  # what came of it has been sent
    one.port.taken()
    one.core.take_over(NEW_LOCKER)
    assert one.port.taken()[0] == (THERE, RemoveConnection(HERE))  # else it would tell others to let go of this node
    assert (one.port.disconnected, one.port.dialled) == ([THERE], [THERE])
