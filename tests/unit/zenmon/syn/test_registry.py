"""The names of a scope: on three members, what each is told, and what their tables have in the end.

The tests from ``test_register`` to ``test_killed_loser...`` are the rows of the table of callbacks, as observed on
genuine nodes: owner, requester, others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from erlang_interop.terms import (
    Atom,
    BitString,
    ErlMap,
    Export,
    Fun,
    ImproperList,
    Pid,
    Port,
    Record,
    Reference,
    Term,
)
from zenmon_node.pacing import SLICE
from zenmon_node.syn import messages as m
from zenmon_node.syn.registry import Registry, Resolver
from zenmon_node.syn.scope import LOOKS_BEFORE_ASKING_AGAIN

from .rig import KILLED, SCOPE, Member, Rig, down, register, table, unregister, up

if TYPE_CHECKING:
    from collections.abc import Callable

    from zenmon_node.syn.conflict import Claim

N, OLD, NEW = Atom("n"), b"old", {Atom("since"): 1}
RESOLVED = m.CONFLICT_RESOLUTION


def registered(name: Term, pid: Pid, meta: Term, reason: Term = m.NORMAL) -> tuple[Any, ...]:
    return "on_process_registered", name, pid, meta, reason


def updated(name: Term, pid: Pid, before: Term, meta: Term, reason: Term = m.NORMAL) -> tuple[Any, ...]:
    return "on_registry_process_updated", name, pid, before, meta, reason


def unregistered(name: Term, pid: Pid, meta: Term, reason: Term = m.NORMAL) -> tuple[Any, ...]:
    return "on_process_unregistered", name, pid, meta, reason


def three(resolver: Resolver | None = None, *, connected: bool = True) -> tuple[Rig, Member, Member, Member]:
    rig = Rig()
    a, b, c = (rig.add(name, lambda port: Registry(port, resolver)) for name in ("a@test", "b@test", "c@test"))
    if connected:
        rig.connect(a, b, c)
    return rig, a, b, c


def split(rig: Rig, away: Member, *others: Member) -> None:
    for other in others:
        rig.cut(away, other)
    for member in rig.members.values():
        member.take_events()


def told(rig: Rig) -> list[list[tuple[Any, ...]]]:
    """What each member was told since it was last asked, the same tables on all of them provided."""
    rig.settle()
    members = list(rig.members.values())
    tables = [table(member) for member in members]
    assert all(one == tables[0] for one in tables), tables
    return [member.take_events() for member in members]


# ----------------------------------------------------------------------------------------------------------- the rows


@pytest.mark.parametrize("requester", ["a@test", "b@test"])
def test_register_update_and_unregister(requester: str) -> None:
    rig, a, _b, _c = three()
    pid, asking = a.new_pid(), rig.members[Atom(requester)]
    what, (callback, previous, meta, _time, by_name, by_pid) = register(asking, N, pid, OLD)
    assert (what, callback, previous, meta) == (m.OK, Atom("on_process_registered"), m.UNDEFINED, OLD)
    assert (by_name, by_pid) == (Atom("syn_registry_by_name_users"), Atom("syn_registry_by_pid_users"))
    assert told(rig) == [[registered(N, pid, OLD)]] * 3

    assert register(asking, N, pid, OLD) == (m.NOOP, OLD)
    assert told(rig) == [[]] * 3

    assert register(asking, N, pid, NEW)[1][:3] == (Atom("on_registry_process_updated"), OLD, NEW)
    assert told(rig) == [[updated(N, pid, OLD, NEW)]] * 3

    assert register(asking, N, pid, lambda who, meta: (who, meta))[1][2] == (pid, NEW)
    assert told(rig) == [[updated(N, pid, NEW, (pid, NEW))]] * 3

    assert unregister(asking, N, pid) == (m.OK, Atom("syn_registry_by_pid_users"))
    assert told(rig) == [[unregistered(N, pid, (pid, NEW))]] * 3
    assert not a.watched


@pytest.mark.parametrize("requester", ["a@test", "b@test"])
def test_refused(requester: str) -> None:
    rig, a, _b, _c = three()
    pid, dead, asking = a.new_pid(), Pid(a.node, 99, 0, 1), rig.members[Atom(requester)]
    register(a, N, pid, OLD)
    told(rig)
    assert register(asking, N, a.new_pid(), NEW) == (m.ERROR, m.TAKEN)
    assert register(asking, b"other", dead, NEW) == (m.ERROR, m.NOT_ALIVE)
    assert register(asking, b"other", pid, lambda _pid, meta: meta) == (m.ERROR, m.UNDEFINED)
    assert register(asking, N, pid, lambda _pid, _meta: 1 / 0) == (
        m.RAISE,
        Atom("error"),
        Atom("ZeroDivisionError"),
        [],
    )
    assert register(asking, N, pid, lambda _pid, meta: meta) == (m.NOOP, OLD)
    assert unregister(asking, b"other", pid) == (m.ERROR, m.UNDEFINED)
    assert unregister(asking, N, a.new_pid()) == (m.ERROR, m.RACE_CONDITION)
    assert told(rig) == [[]] * 3


@pytest.mark.parametrize("reason", [m.NORMAL, KILLED, (Atom("crash"), [1])])
def test_the_process_ends(reason: Term) -> None:
    rig, a, _b, _c = three()
    pid = a.new_pid()
    register(a, N, pid, OLD)
    register(a, 1, pid, NEW)
    told(rig)
    rig.end(pid, reason)
    assert told(rig) == [[unregistered(N, pid, OLD, reason), unregistered(1, pid, NEW, reason)]] * 3


def test_a_node_goes_and_comes_back() -> None:
    rig, a, b, c = three()
    pa, pc, quits = a.new_pid(), c.new_pid(), c.new_pid()
    register(a, b"a", pa, OLD)
    register(c, b"c", pc, OLD)
    register(c, b"quits", quits, OLD)
    told(rig)
    rig.cut(c, a)
    rig.cut(c, b)
    gone = [unregistered(b"c", pc, OLD, down(c.node)), unregistered(b"quits", quits, OLD, down(c.node))]
    assert (a.take_events(), b.take_events()) == (gone, gone)
    assert c.take_events() == [unregistered(b"a", pa, OLD, down(a.node))]

    register(c, b"c", pc, NEW)  # changed, died and left during the split: as ever there, and only the end is seen here
    rig.end(quits, KILLED)
    assert c.take_events() == [updated(b"c", pc, OLD, NEW), unregistered(b"quits", quits, OLD, KILLED)]
    rig.connect(a, b, c)
    comes = [registered(b"c", pc, NEW, up(c.node))]
    assert told(rig) == [comes, comes, [registered(b"a", pa, OLD, up(a.node))]]


@pytest.mark.parametrize("silently", [False, True])
def test_a_scope_process_crashes(silently: bool) -> None:
    rig, a, b, c = three()
    pids = {member.node: member.new_pid() for member in (a, b, c)}
    for member in (a, b, c):
        register(member, member.node.name.encode(), pids[member.node], OLD)
    dies = a.new_pid()
    register(a, b"dies", dies, OLD)
    told(rig)

    a.alive.discard(dies)  # while there is nobody to see it
    rig.restart(a, silently=silently)
    events_a, *events_others = told(rig)

    def of(member: Member, call: Any, reason: Term) -> tuple[Any, ...]:
        event: tuple[Any, ...] = call(member.node.name.encode(), pids[member.node], OLD, reason)
        return event

    assert sorted(events_a, key=repr) == sorted(
        [
            of(b, unregistered, down(b.node)),
            of(c, unregistered, down(c.node)),
            unregistered(b"dies", dies, OLD, m.UNDEFINED),
            of(b, registered, up(b.node)),
            of(c, registered, up(c.node)),
        ],
        key=repr,
    )
    assert [event[0] for event in events_a] == ["on_process_unregistered"] * 3 + ["on_process_registered"] * 2
    for events in events_others:
        assert events == [
            of(a, unregistered, down(a.node)),
            unregistered(b"dies", dies, OLD, down(a.node)),
            of(a, registered, up(a.node)),
        ]
    assert a.watched == {pids[a.node]}
    rig.end(pids[a.node], KILLED)  # it is watched again
    assert told(rig) == [[of(a, unregistered, KILLED)]] * 3


# ---------------------------------------------------------------------------------------------------------- conflicts


def conflict(rig: Rig, a: Member, b: Member, c: Member, *, newer: Member) -> tuple[Pid, Pid]:
    """``{a, b} | c``, with the name on a and on c."""
    split(rig, c, a, b)
    pa, pc = a.new_pid(), c.new_pid()
    for member, pid, meta in [(c, pc, b"c"), (a, pa, b"a")] if newer is a else [(a, pa, b"a"), (c, pc, b"c")]:
        assert register(member, N, pid, meta)[0] == m.OK
    rig.settle()
    for member in (a, b, c):
        member.take_events()
    return pa, pc


ORDERS = pytest.mark.parametrize("order", ["acb", "bca"])


def heal(rig: Rig, order: str) -> None:
    by_name = {member.node.name[0]: member for member in rig.members.values()}
    rig.connect(by_name[order[0]], by_name[order[1]])
    rig.connect(by_name[order[2]], by_name[order[1]])


@ORDERS
def test_by_default_the_later_stays_and_the_other_is_killed(order: str) -> None:
    rig, a, b, c = three()
    pa, pc = conflict(rig, a, b, c, newer=c)
    heal(rig, order)
    swap = [unregistered(N, pa, b"a", RESOLVED), registered(N, pc, b"c", RESOLVED)]
    on_a, on_b, on_c = told(rig)
    assert (on_a, on_c) == (swap, [])
    # In which order b hears of the two depends on whom it meets first; R is node_up or conflict_resolution.
    assert [(event[0], event[2]) for event in on_b] == [(event[0], event[2]) for event in swap]
    assert a.killed == [(pa, (m.RESOLVE_KILL, N, b"a"))]
    assert not c.killed
    assert pa not in a.alive


@ORDERS
def test_by_default_our_own_stays_if_it_is_the_later(order: str) -> None:
    rig, a, b, c = three()
    pa, pc = conflict(rig, a, b, c, newer=a)
    heal(rig, order)
    assert told(rig) == [[], [], [unregistered(N, pc, b"c", RESOLVED), registered(N, pa, b"a", RESOLVED)]]
    assert c.killed == [(pc, (m.RESOLVE_KILL, N, b"c"))]
    assert not a.killed


def keep(name: bytes) -> tuple[Resolver, list[tuple[Any, ...]]]:
    """A resolver that keeps whose metadata are ``name``, and the calls of it."""
    calls: list[tuple[Any, ...]] = []

    def resolver(scope: Atom, resolved: Term, remote: Claim, local: Claim) -> Term:
        calls.append((scope, resolved, remote.meta, local.meta))
        return next((claim.pid for claim in (remote, local) if claim.meta == name), m.UNDEFINED)

    return resolver, calls


@ORDERS
@pytest.mark.parametrize("waits", [False, True])
def test_a_resolver_keeps_the_earlier_and_nobody_is_killed(order: str, waits: bool) -> None:
    resolver, calls = keep(b"c")

    async def waiting(*arguments: Any) -> Any:
        return resolver(*arguments)

    rig, a, b, c = three(waiting if waits else resolver)
    pa, pc = conflict(rig, a, b, c, newer=a)
    heal(rig, order)
    on_a, on_b, on_c = told(rig)
    assert (on_a, on_c) == ([unregistered(N, pa, b"a", RESOLVED), registered(N, pc, b"c", RESOLVED)], [])
    assert [(event[0], event[2]) for event in on_b] == [(event[0], event[2]) for event in on_a]
    assert sorted(calls) == [(SCOPE, N, b"a", b"c"), (SCOPE, N, b"c", b"a")]
    assert {pa, pc} <= a.alive | c.alive
    assert not a.watched
    rig.end(pa, KILLED)
    assert told(rig) == [[]] * 3


@ORDERS
def test_a_resolver_keeps_our_own(order: str) -> None:
    resolver, calls = keep(b"a")
    rig, a, b, c = three(resolver)
    pa, pc = conflict(rig, a, b, c, newer=a)
    heal(rig, order)
    assert told(rig) == [[], [], [unregistered(N, pc, b"c", RESOLVED), registered(N, pa, b"a", RESOLVED)]]
    assert len(calls) == 2
    assert not a.killed
    assert not c.killed


def raising(*_: Any) -> Any:
    raise ZeroDivisionError


async def raising_later(*_: Any) -> Any:
    raise ZeroDivisionError


@ORDERS
@pytest.mark.parametrize("resolver", [keep(b"nobody")[0], lambda *_: Pid(N, 1, 0, 1), raising, raising_later])
@pytest.mark.parametrize("newer", [0, 2])
def test_a_resolver_that_names_neither_frees_the_name(
    order: str, resolver: Resolver, newer: int, logged: Callable[[], list[dict[str, Any]]]
) -> None:
    rig, a, b, c = three(resolver)
    pa, pc = conflict(rig, a, b, c, newer=(a, b, c)[newer])
    heal(rig, order)
    on_a, on_b, on_c = told(rig)
    assert on_a == [unregistered(N, pa, b"a", RESOLVED)]
    assert on_c == [unregistered(N, pc, b"c", RESOLVED)]
    assert on_b[-1][0] == "on_process_unregistered"
    assert not table(a)
    raised = ["resolve_registry_conflict raised; the name is freed"] * 2 * (resolver in (raising, raising_later))
    assert [line["event"] for line in logged()] == raised
    assert {pa, pc} <= a.alive | c.alive


def test_a_hidden_node_alone_speaks_first_and_both_free_the_name() -> None:
    """A genuine node does not look for a hidden one: each owner must hear of the conflict all the same."""
    rig, a, b, c = three(keep(b"nobody")[0])
    pa, pc = conflict(rig, a, b, c, newer=a)
    rig.join(a, c)
    c.engine.discover(a.node)
    rig.settle()
    assert a.take_events() == [unregistered(N, pa, b"a", RESOLVED)]
    assert c.take_events() == [unregistered(N, pc, b"c", RESOLVED)]


def test_killed_loser_loses_its_other_names() -> None:
    rig, a, b, c = three()
    pa, pc = conflict(rig, a, b, c, newer=a)
    register(c, b"other", pc, b"x")
    c.take_events()
    heal(rig, "acb")
    on_a, on_b, on_c = told(rig)
    killed = unregistered(b"other", pc, b"x", (m.RESOLVE_KILL, N, b"c"))
    assert on_a == [registered(b"other", pc, b"x", up(c.node)), killed]
    assert on_c == [unregistered(N, pc, b"c", RESOLVED), registered(N, pa, b"a", RESOLVED), killed]
    assert on_b in ([], on_a)  # it may have met c after that


def test_the_loser_of_two_with_other_names_is_watched_on() -> None:
    rig, a, b, c = three(keep(b"c")[0])
    pa, _pc = conflict(rig, a, b, c, newer=a)
    register(a, b"other", pa, b"x")
    heal(rig, "acb")
    assert a.watched == {pa}


def test_two_register_at_the_same_moment_while_connected() -> None:
    rig, a, _b, c = three()
    pa, pc = a.new_pid(), c.new_pid()
    register(a, N, pa, b"a")
    register(c, N, pc, b"c")
    rig.settle()
    on_a, on_b, on_c = told(rig)
    swap = [unregistered(N, pa, b"a", RESOLVED), registered(N, pc, b"c", RESOLVED)]
    assert on_a == [registered(N, pa, b"a"), *swap]
    assert on_c == [registered(N, pc, b"c")]
    assert [event[0] for event in on_b][-1] == "on_process_registered"
    assert table(a)[repr(N)][0] == pc


def test_of_the_same_time_both_decide_alike() -> None:
    rig, a, b, c = three()
    split(rig, c, a, b)
    pa, pc = a.new_pid(), c.new_pid()
    for member, pid in ((a, pa), (c, pc)):
        rig.time = 1_800_000_000_000_000_000
        register(member, N, pid, OLD)
    heal(rig, "acb")
    told(rig)
    assert table(a)[repr(N)][0] == max(pa, pc, key=lambda pid: (pid.serial, pid.id, pid.node.name))


# ----------------------------------------------------------------------------------------------- what else may happen

TERMS: list[Any] = [
    *(1, 1.0, True, None, Atom("one"), b"1", b"", BitString(b"1", 4), 1 << 80),
    *([1], [1.0], [], ImproperList([1], 1), (1,), (1.0,), ()),
    *({1: 1}, {1: 1.0}, {}, ErlMap([(1, 1), (1.0, 1)]), Record(N, N, True, ((N, 1),))),
    *(Reference(N, 1, bytes(12)), Port(N, 1, 1)),
]


def test_names_are_told_apart_as_by_erlang() -> None:
    rig, a, b, _c = three()
    names = [*TERMS, Export(N, N, 1), Fun(N, 1, bytes(16), 1, 1, 1, a.new_pid(), ()), a.new_pid()]
    pids = [a.new_pid() for _ in names]
    for name, pid in zip(names, pids, strict=True):
        assert register(b, name, pid, name if not isinstance(name, Fun | Export) else OLD)[0] == m.OK
    told(rig)
    for member in rig.members.values():
        assert [member.service.lookup(name).pid for name in names] == pids
        assert member.service.count() == member.service.count(a.node) == len(names)


@pytest.mark.parametrize(("before", "after"), [(1, 1.0), (1, True), ([1], [1.0]), ({1: 1}, {1: 1.0})])
def test_metadata_differ_exactly(before: Term, after: Term) -> None:
    rig, a, b, _c = three()
    pid = a.new_pid()
    register(b, N, pid, before)
    register(b, N, pid, after)
    assert told(rig)[2] == [registered(N, pid, before), updated(N, pid, before, after)]


def test_a_process_is_watched_once_for_all_its_names() -> None:
    rig, a, _b, _c = three()
    pid = a.new_pid()
    for name in range(3):
        register(a, name, pid, OLD)
    assert unregister(a, 0, pid)[0] == unregister(a, 2, pid)[0] == m.OK
    assert a.watched == {pid}
    rig.end(pid, KILLED)
    assert [event[1:] for event in told(rig)[1] if event[-1] == KILLED] == [(1, pid, OLD, KILLED)]
    assert a.service.count() == a.service.count(a.node) == 0


def test_a_dead_process_of_this_node_has_no_name_before_it_is_known_to_be_dead() -> None:
    _rig, a, _b, _c = three()
    pid = a.new_pid()
    register(a, N, pid, OLD)
    a.alive.discard(pid)
    assert a.service.lookup(N) is None


def test_an_answer_is_applied_by_a_requester_that_does_not_know_the_authority() -> None:
    rig, a, b, c = three(connected=False)
    pid = a.new_pid()
    register(b, N, pid, OLD)
    assert b.take_events() == [registered(N, pid, OLD)]
    assert c.take_events() == []
    rig.join(a, b)
    rig.cut(a, b)  # no DOWN tells b of it, for it knows no scope process of a
    assert b.take_events() == [unregistered(N, pid, OLD, down(a.node))]


def test_an_answer_that_says_what_we_have_is_no_news() -> None:
    rig, a, b, _c = three()
    pid = a.new_pid()
    request = m.REGISTRY.ask_put(b.node, N, pid, OLD)
    reply = a.service.requested(request)
    rig.settle()
    for _ in range(2):
        b.run(b.service.answered(request, reply))
    assert b.take_events() == [registered(N, pid, OLD)]


def test_an_answer_may_be_a_conflict_with_a_process_of_the_requester() -> None:
    """The authority has not heard of that one yet: both owners are to decide, as ever."""
    rig, a, _b, c = three(connected=False)
    pa, pc = a.new_pid(), c.new_pid()
    register(a, N, pa, b"a")
    assert register(a, N, pc, b"c")[0] == m.OK
    assert a.take_events() == [
        registered(N, pa, b"a"),
        unregistered(N, pa, b"a", RESOLVED),
        registered(N, pc, b"c", RESOLVED),
    ]
    rig.connect(*rig.members.values())
    told(rig)
    assert (pa in a.alive, pc in c.alive) == (False, True)


def test_a_word_that_its_successor_has_overtaken_is_no_news() -> None:
    rig, a, b, _c = three()
    pid = a.new_pid()
    for meta in (OLD, NEW):
        register(a, N, pid, meta)
    first, second = (message for node, message in a.sent if node == b.node and message[1] == Atom("sync_register"))
    told(rig)
    b.handle(second)
    b.handle(first)
    assert b.take_events() == []
    assert b.service.lookup(N).meta == NEW


def test_who_is_not_known_is_not_heard() -> None:
    rig, a, b, _c = three()
    stranger = Pid(Atom("x@test"), 1, 0, 1)
    b.handle(m.REGISTRY.say_put(N, stranger, OLD, 1, m.NORMAL))
    b.handle(m.REGISTRY.say_put(N, b.new_pid(), OLD, 1, m.NORMAL))
    assert told(rig) == [[]] * 3
    assert not table(a)


def test_nobody_takes_away_a_name_but_its_owner() -> None:
    rig, a, b, _c = three()
    pid = a.new_pid()
    register(a, N, pid, OLD)
    told(rig)
    a.handle(m.REGISTRY.say_gone(N, pid, OLD, m.NORMAL))  # of whose processes nobody else can know
    b.handle(m.REGISTRY.say_gone(N, a.new_pid(), OLD, m.NORMAL))  # not who has it
    b.handle(m.REGISTRY.say_gone(b"other", pid, OLD, m.NORMAL))
    assert told(rig) == [[]] * 3


def test_a_third_node_keeps_the_later_of_two() -> None:
    rig, a, b, c = three()
    pa, pc = a.new_pid(), c.new_pid()
    b.handle(m.REGISTRY.say_put(N, pa, OLD, 5, m.NORMAL))
    for time in (4, 5):
        b.handle(m.REGISTRY.say_put(N, pc, NEW, time, m.NORMAL))
    assert b.take_events() == [registered(N, pa, OLD)]
    b.handle(m.REGISTRY.say_put(N, pc, NEW, 6, RESOLVED))
    assert b.take_events() == [unregistered(N, pa, OLD, RESOLVED), registered(N, pc, NEW, RESOLVED)]
    assert rig.members[b.node].service.count(a.node) == 0


def look_again(member: Member) -> None:
    """As often as until it asks those once more who are to be asked."""
    for _ in range(LOOKS_BEFORE_ASKING_AGAIN):
        member.engine.look(member.engine.peers)


def test_who_frees_a_name_for_one_that_another_keeps_learns_of_it() -> None:
    """The other owner has not heard of the conflict."""
    rig, a, b, _ = three(lambda *_: None)
    pa, pb = a.new_pid(), b.new_pid()
    register(a, N, pa, OLD)
    a.sent.clear()
    rig.links[a.node, b.node].clear()
    register(b, N, pb, NEW)
    rig.settle()
    assert a.take_events() == [registered(N, pa, OLD), unregistered(N, pa, OLD, RESOLVED)]
    look_again(a)
    rig.settle()
    assert a.take_events() == [registered(N, pb, NEW, up(b.node))]
    assert table(a) == table(b)


def test_three_that_free_a_name_have_it_no_more() -> None:
    """Who has freed its own, and takes the next one for the name of nobody, hears that this one was freed too."""
    rig, a, b, c = three(lambda *_: None)
    for member in (a, b, c):
        register(member, N, member.new_pid(), OLD)
    told(rig)
    assert table(a) == {}


@pytest.mark.parametrize("later", ["a@test", "c@test"])
def test_a_third_node_asks_for_the_other_of_two_when_one_goes(later: str) -> None:
    """The two owners never hear of each other, so none of them gives the name up."""
    rig, a, b, c = three()
    split(rig, a, c)
    winner, loser = (a, c) if later == "a@test" else (c, a)
    pids = {member.node: member.new_pid() for member in (loser, winner)}
    for node, pid in pids.items():
        register(rig.members[node], N, pid, OLD)
        rig.settle()
    b.take_events()
    rig.end(pids[winner.node], KILLED)
    rig.settle()
    assert b.take_events() == [unregistered(N, pids[winner.node], OLD, KILLED)]
    look_again(b)
    rig.settle()
    assert b.take_events() == [registered(N, pids[loser.node], OLD, up(loser.node))]
    assert table(b) == table(loser)


def test_a_third_node_asks_nobody_who_has_said_that_it_gave_the_name_up() -> None:
    rig, a, b, c = three()
    conflict(rig, a, b, c, newer=c)
    heal(rig, "acb")
    told(rig)
    b.sent.clear()
    rig.end(c.service.lookup(N).pid, KILLED)
    rig.settle()
    look_again(b)
    assert b.sent == []


def test_what_an_answer_told_before_the_authority_knew_us_is_asked_for_again() -> None:
    """If it has gone before that, nobody has told us so."""
    rig, a, b, _ = three(connected=False)
    rig.join(a, b)
    stays, goes = a.new_pid(), a.new_pid()
    register(b, N, stays, OLD)
    register(b, b"gone", goes, NEW)
    b.take_events()
    rig.end(goes, KILLED)
    b.engine.look([a.node])
    rig.settle()
    assert b.take_events() == []
    look_again(b)
    rig.settle()
    assert b.take_events() == [unregistered(b"gone", goes, NEW, up(a.node))]
    assert table(a) == table(b)
    b.sent.clear()
    look_again(b)
    assert b.sent == []


def test_a_clock_that_is_behind_does_not_make_the_winner_look_old() -> None:
    rig, a, b, c = three(keep(b"c")[0])
    conflict(rig, a, b, c, newer=a)
    rig.time -= 1_000_000_000
    heal(rig, "acb")
    told(rig)
    entry = c.service.lookup(N)
    register(c, N, entry.pid, b"new")
    told(rig)
    assert b.service.lookup(N).meta == b"new"


@pytest.mark.parametrize(
    "message",
    [
        m.REGISTRY.say_put(N, Atom("pid"), OLD, 1, m.NORMAL),  # type: ignore[arg-type]
        (*m.REGISTRY.say_put(N, Pid(N, 1, 0, 1), OLD, 1, m.NORMAL)[:5], 1.0, m.NORMAL),
        m.REGISTRY.say_gone(N, b"pid", OLD, m.NORMAL),  # type: ignore[arg-type]
        m.PG.say_put(N, Pid(N, 1, 0, 1), OLD, 1, m.NORMAL),
        (m.TAG, Atom("sync_register"), N),
        (m.TAG, Atom("unheard_of")),
    ],
)
def test_malformed_words_change_nothing(message: Any) -> None:
    _rig, a, _b, _c = three()
    with pytest.raises(m.Malformed):
        a.handle(message)
    assert not table(a)


@pytest.mark.parametrize("reply", [b"what", (m.OK, b"what"), (m.OK, (Atom("halt"), 1, 2, 3, N, N)), m.UNDEFINED])
def test_a_malformed_answer_changes_nothing(reply: Any) -> None:
    _rig, a, b, _c = three()
    with pytest.raises(m.Malformed):
        b.service.answered(m.REGISTRY.ask_put(b.node, N, a.new_pid(), OLD), reply)
    assert not table(b)


@pytest.mark.parametrize(
    "request_", [b"what", (m.TAG, Atom("register_or_update_on_node"), N, N, b"pid", OLD), (m.TAG, N), None]
)
def test_what_is_no_request_is_undefined(request_: Any) -> None:
    _rig, a, _b, _c = three()
    assert a.service.requested(request_) == m.UNDEFINED


def test_a_request_for_a_process_of_another_node_is_not_for_this_one() -> None:
    _rig, a, b, _c = three()
    assert a.service.requested(m.REGISTRY.ask_put(b.node, N, b.new_pid(), OLD)) == (m.ERROR, m.NOT_ALIVE)


def test_long_work_goes_in_slices() -> None:
    rig, a, b, _c = three(connected=False)
    pid, size = a.new_pid(), 3 * SLICE
    for number in range(size):
        register(a, (N, number), pid, number)

    def slices(member: Member) -> int:
        done, member.slices = member.slices, 0
        return done

    rig.connect(a, b)
    assert b.take_events() == [registered((N, number), pid, number, up(a.node)) for number in range(size)]
    assert slices(b) == 3
    rig.restart(b)
    rig.settle()
    assert slices(b) == 9  # callbacks, deletion, and all of it anew
    rig.cut(a, b)
    assert slices(b) == 6
    rig.end(pid, KILLED)
    assert slices(a) == 3
    assert not table(a)
    assert not table(b)
