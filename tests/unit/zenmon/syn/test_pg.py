from __future__ import annotations

from typing import Any

import pytest

from erlang_interop import Atom
from erlang_interop.terms import Pid, Term
from tests.unit.zenmon.syn.rig import KILLED, SCOPE, Member, Rig, down, up
from zenmon_node.pacing import SLICE
from zenmon_node.syn import messages as m
from zenmon_node.syn.pg import Groups
from zenmon_node.syn.scope import LOOKS_BEFORE_ASKING_AGAIN

G, H = Atom("g"), Atom("h")
NORMAL, UNDEFINED, NOT_ALIVE, NOT_IN_GROUP = map(Atom, ("normal", "undefined", "not_alive", "not_in_group"))


def joined(group: Term, pid: Pid, meta: Term, reason: Term = NORMAL) -> tuple[Any, ...]:
    return "on_process_joined", group, pid, meta, reason


def updated(group: Term, pid: Pid, previous: Term, meta: Term, reason: Term = NORMAL) -> tuple[Any, ...]:
    return "on_group_process_updated", group, pid, previous, meta, reason


def left(group: Term, pid: Pid, meta: Term, reason: Term = NORMAL) -> tuple[Any, ...]:
    return "on_process_left", group, pid, meta, reason


def join(member: Member, group: Term, pid: Pid, meta: Term = UNDEFINED) -> Term:
    return member.ask(m.PG.ask_put(member.node, group, pid, meta))


def leave(member: Member, group: Term, pid: Pid) -> Term:
    return member.ask(m.PG.ask_remove(member.node, group, pid))


def listed(member: Member, group: Term) -> list[tuple[Pid, Term]]:
    return [(entry.pid, entry.meta) for entry in member.service.members(group)]


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.fixture
def three(rig: Rig) -> list[Member]:
    members = [rig.add(name, Groups) for name in ("a@h", "b@h", "c@h")]
    rig.connect(*members)
    return members


def test_all_members_see_who_joins_and_leaves(rig: Rig, three: list[Member]) -> None:
    a, b, c = three
    pid = a.new_pid()
    assert join(a, G, pid, 1)[0] == m.OK
    assert join(a, G, pid, 1) == (m.NOOP, 1)
    assert join(a, G, pid, 2)[0] == m.OK
    rig.settle()
    for member in three:
        assert member.take_events() == [joined(G, pid, 1), updated(G, pid, 1, 2)]
        assert listed(member, G) == [(pid, 2)]
    assert leave(a, G, pid) == (m.OK, (2, Atom("syn_pg_by_pid_users")))
    assert leave(a, G, pid) == (m.ERROR, NOT_IN_GROUP)
    rig.settle()
    for member in (a, b, c):
        assert member.take_events() == [left(G, pid, 2)]
        assert member.service.names() == []
        assert member.service.count() == 0
    assert a.watched == set()


def test_the_node_of_a_process_is_asked_and_excludes_who_asks(rig: Rig, three: list[Member]) -> None:
    a, b, c = three
    pid = a.new_pid()
    reply = join(b, G, pid, 1)
    # The names are those of the tables into which a genuine member writes.
    tables = (Atom("syn_pg_by_name_users"), Atom("syn_pg_by_pid_users"))
    assert reply == (m.OK, (Atom("on_process_joined"), UNDEFINED, 1, rig.time, *tables))
    assert [node for node, _ in a.sent if _[1] == Atom("sync_join")] == [c.node]
    assert join(b, G, pid, 2)[1][:3] == (Atom("on_group_process_updated"), 1, 2)
    assert leave(b, G, pid)[0] == m.OK
    rig.settle()
    for member in three:
        assert member.take_events() == [joined(G, pid, 1), updated(G, pid, 1, 2), left(G, pid, 2)]
        assert listed(member, G) == []


def test_functions_make_new_metadata(rig: Rig, three: list[Member]) -> None:
    a, b, _ = three
    pid = a.new_pid()
    assert join(a, G, pid, lambda meta: meta) == (m.ERROR, UNDEFINED)
    join(a, G, pid, 1)
    assert join(b, G, pid, lambda meta: meta + 1)[1][1:3] == (1, 2)
    assert join(a, G, pid, lambda meta: meta) == (m.NOOP, 2)
    assert join(a, G, pid, lambda meta: 1 / 0) == (m.RAISE, Atom("error"), Atom("ZeroDivisionError"), [])
    assert listed(b, G) == [(pid, 2)]


def test_who_has_ended_is_in_no_group(rig: Rig, three: list[Member]) -> None:
    a, b, c = three
    pid = a.new_pid()
    for group in (G, H):
        join(a, group, pid)
    rig.settle()
    for member in three:
        member.take_events()
    rig.end(pid, KILLED)
    rig.settle()
    for member in (a, b, c):
        assert member.take_events() == [left(G, pid, UNDEFINED, KILLED), left(H, pid, UNDEFINED, KILLED)]
    assert join(b, G, pid) == (m.ERROR, NOT_ALIVE)
    assert join(a, G, pid) == (m.ERROR, NOT_ALIVE)


def test_a_process_is_watched_while_it_is_in_any_group(three: list[Member]) -> None:
    a, *_ = three
    pid = a.new_pid()
    for group in (G, H, 1):
        join(a, group, pid)
    for group in (G, 1):
        leave(a, group, pid)
        assert a.watched == {pid}
    leave(a, H, pid)
    assert a.watched == set()


def test_groups_are_told_apart_as_in_erlang(rig: Rig, three: list[Member]) -> None:
    a, b, _ = three
    groups: list[Any] = [1, 1.0, True, b"1", [1], [1.0], (1,), (1.0,), {}, {1: 2}]
    pids = {index: a.new_pid() for index in range(len(groups))}
    for index, group in enumerate(groups):
        join(a, group, pids[index], index)
    rig.settle()
    for member in (a, b):
        for index, group in enumerate(groups):
            assert listed(member, group) == [(pids[index], index)]
        assert member.service.count() == len(groups)
    assert join(a, 1, pids[0], 0.0)[0] == m.OK  # new metadata: 0.0 is not 0


def test_members_are_in_the_order_of_pids_and_groups_in_that_of_terms(rig: Rig, three: list[Member]) -> None:
    a, b, _ = three
    order = [Pid(a.node, 1, 0, 1), Pid(b.node, 1, 0, 1), Pid(a.node, 2, 0, 1), Pid(a.node, 1, 1, 1)]
    for pid in (order[3], order[1], order[0], order[2]):
        rig.members[pid.node].alive.add(pid)
        join(a, G, pid)
    assert [pid for pid, _ in listed(a, G)] == order
    leave(a, G, order[1])
    assert [pid for pid, _ in listed(a, G)] == [order[0], *order[2:]]
    for group in (b"x", [1], Atom("z"), (1,), 2):
        join(a, group, order[0])
    join(b, Atom("elsewhere"), order[1])
    rig.settle()
    assert a.service.names() == [2, Atom("elsewhere"), G, Atom("z"), (1,), [1], b"x"]
    assert a.service.names(b.node) == [Atom("elsewhere")]
    assert (a.service.count(), a.service.count(a.node), a.service.count(b.node), a.service.count(SCOPE)) == (7, 6, 1, 0)
    assert (a.service.member_count(G), a.service.member_count(Atom("nobody"))) == (3, 0)
    assert a.service.member(G, order[1]) is None
    assert a.service.member(Atom("elsewhere"), order[1]).pid == order[1]


def test_nodes_that_meet_tell_each_other_and_forget_when_they_part(rig: Rig) -> None:
    a, b = rig.add("a@h", Groups), rig.add("b@h", Groups)
    of_a, of_b = a.new_pid(), b.new_pid()
    join(a, G, of_a, 1)
    join(b, G, of_b, 2)
    rig.connect(a, b)
    assert a.take_events() == [joined(G, of_a, 1), joined(G, of_b, 2, up(b.node))]
    assert b.take_events() == [joined(G, of_b, 2), joined(G, of_a, 1, up(a.node))]
    rig.cut(a, b)
    assert a.take_events() == [left(G, of_b, 2, down(b.node))]
    assert b.take_events() == [left(G, of_a, 1, down(a.node))]
    assert listed(a, G) == [(of_a, 1)]
    join(a, G, of_a, 3)
    rig.end(of_b, KILLED)
    rig.connect(a, b)
    assert listed(a, G) == listed(b, G) == [(of_a, 3)]
    assert b.take_events() == [left(G, of_b, 2, KILLED), joined(G, of_a, 3, up(a.node))]


def test_an_older_word_is_no_news(three: list[Member]) -> None:
    a, b, _ = three
    pid = a.new_pid()
    join(a, G, pid, 1)
    entry = a.service.member(G, pid)
    b.handle(m.PG.say_put(G, pid, 1, entry.time, NORMAL))
    b.handle(m.PG.say_put(G, pid, 7, entry.time, NORMAL))
    b.handle(m.PG.say_put(G, pid, 7, entry.time - 1, NORMAL))
    assert b.take_events() == [joined(G, pid, 1)]
    b.handle(m.PG.say_put(G, pid, 1, entry.time + 1, NORMAL))
    assert b.take_events() == []
    assert b.service.member(G, pid).time == entry.time + 1
    b.handle(m.PG.say_put(G, pid, 1.0, entry.time + 2, NORMAL))
    assert b.take_events() == [updated(G, pid, 1, 1.0)]


def test_a_node_that_is_no_member_is_not_heard(rig: Rig) -> None:
    a, b = rig.add("a@h", Groups), rig.add("b@h", Groups)
    pid = b.new_pid()
    a.handle(m.PG.say_put(G, pid, 1, 1, NORMAL))
    a.handle(m.PG.say_gone(G, pid, 1, NORMAL))
    assert (a.take_events(), listed(a, G)) == ([], [])


def test_nobody_speaks_for_processes_of_this_node(three: list[Member]) -> None:
    a, *_ = three
    pid = a.new_pid()
    join(a, G, pid, 1)
    a.take_events()
    a.handle(m.PG.say_put(G, pid, 2, 2**63, NORMAL))
    a.handle(m.PG.say_gone(G, pid, 1, NORMAL))
    assert (a.take_events(), listed(a, G)) == ([], [(pid, 1)])


def test_a_scope_process_that_is_started_again(rig: Rig, three: list[Member]) -> None:
    a, b, c = three
    of_a, dead, of_b = a.new_pid(), a.new_pid(), b.new_pid()
    for member, pid in ((a, of_a), (a, dead), (b, of_b)):
        join(member, G, pid)
    rig.settle()
    for member in three:
        member.take_events()
    a.alive.discard(dead)
    rig.restart(a)
    rig.settle()
    assert a.take_events() == [
        left(G, of_b, UNDEFINED, down(b.node)),
        left(G, dead, UNDEFINED, UNDEFINED),
        joined(G, of_b, UNDEFINED, up(b.node)),
    ]
    assert a.watched == {of_a}
    for member in (b, c):
        assert [event for event in member.take_events() if event[2] == dead] == [
            left(G, dead, UNDEFINED, down(a.node)),
        ]
        assert listed(member, G) == listed(a, G)


def test_what_is_malformed_changes_nothing(three: list[Member]) -> None:
    a, b, _ = three
    pid = b.new_pid()
    good = (G, pid, 1, 1)
    wrong: list[Any] = [
        (m.TAG, Atom("sync_join"), G, b"no pid", 1, 1, NORMAL),
        (m.TAG, Atom("sync_join"), G, pid, 1, 1.0, NORMAL),
        (m.TAG, Atom("sync_leave"), G, b"no pid", 1, NORMAL),
        (m.TAG, Atom("sync_register"), G, pid, 1, 1, NORMAL),
        m.ack_sync(b.engine._me, [good, (G, pid, 1)]),
        m.ack_sync(b.engine._me, [good, (G, a.new_pid(), 1, 1)]),
    ]
    for message in wrong:
        with pytest.raises(m.Malformed):
            a.handle(message)
    assert (a.take_events(), a.service.names()) == ([], [])
    assert a.service.requested((m.TAG, Atom("what"), a.node)) == UNDEFINED
    request = m.PG.ask_put(a.node, G, pid, 1)
    for reply in (m.OK, (m.OK, 1), (Atom("what"), 1)):
        with pytest.raises(m.Malformed):
            a.service.answered(request, reply)
    with pytest.raises(m.Malformed):
        a.service.answered(m.PG.ask_remove(a.node, G, pid), m.OK)
    assert a.service.names() == []


def test_long_work_goes_in_slices(rig: Rig) -> None:
    a, b = rig.add("a@h", Groups), rig.add("b@h", Groups)
    pids = [a.new_pid() for _ in range(SLICE + 1)]
    for pid in pids:
        join(a, G, pid)
    rig.connect(a, b)
    assert b.service.member_count(G) == len(pids)
    assert b.slices == 1
    rig.cut(a, b)
    assert b.slices == 3
    for number in range(SLICE + 1):
        join(a, number, pids[0])
    rig.end(pids[0], KILLED)
    assert a.slices == 1
    assert a.service.names() == [G]


def test_what_an_answer_told_before_the_authority_knew_us_is_asked_for_again(rig: Rig) -> None:
    """If it has gone before that, nobody has told us so."""
    a, b = rig.add("a@h", Groups), rig.add("b@h", Groups)
    rig.join(a, b)
    stays, goes = a.new_pid(), a.new_pid()
    for pid in (stays, goes):
        join(b, G, pid, 1)
    b.take_events()
    rig.end(goes, KILLED)
    b.engine.look([a.node])
    rig.settle()
    assert b.take_events() == []
    for _ in range(LOOKS_BEFORE_ASKING_AGAIN):
        b.engine.look([a.node])
    rig.settle()
    assert b.take_events() == [left(G, goes, 1, up(a.node))]
    assert listed(b, G) == [(stays, 1)]
