"""Who the other members are: the handshake, the loss of a member, and what each is sent."""

from __future__ import annotations

from typing import Any

import pytest

from erlang_interop.terms import Atom, Pid, Term
from zenmon_node.pacing import SLICE
from zenmon_node.syn import messages as m

from .rig import KILLED, Member, Rig, down, register, table, up

N = Atom("n")
DISCOVER, ACK_SYNC = Atom("discover"), Atom("ack_sync")


def two() -> tuple[Rig, Member, Member]:
    rig = Rig()
    a, b = rig.add("a@test"), rig.add("b@test")
    rig.join(a, b)
    return rig, a, b


def sent(member: Member) -> list[Atom]:
    """The first words of what a member has sent since it was last asked."""
    words = [message[1] for _, message in member.sent]
    member.sent.clear()
    return words


def known(member: Member) -> dict[Atom, Pid]:
    return {node: peer.pid for node, peer in member.engine.peers.items()}


def hand(member: Member, message: Term) -> None:
    """From somebody who is not in the rig."""
    member.handle(message)


def test_who_speaks_first_is_answered_and_answers() -> None:
    rig, a, b = two()
    a.engine.discover(b.node)
    rig.settle()
    assert (known(a), known(b)) == ({b.node: b.scope_pid}, {a.node: a.scope_pid})
    assert (sent(a), sent(b)) == ([DISCOVER, ACK_SYNC], [ACK_SYNC])


def test_both_speak_first() -> None:
    rig, a, b = two()
    rig.connect(a, b)
    a.engine.discover(b.node)
    b.engine.discover(a.node)
    rig.settle()
    assert (known(a), known(b)) == ({b.node: b.scope_pid}, {a.node: a.scope_pid})
    assert len(rig.monitors) == 2


def test_an_ack_sync_alone_makes_a_member() -> None:
    rig, a, b = two()
    hand(a, m.ack_sync(b.scope_pid, []))
    assert known(a) == {b.node: b.scope_pid}
    assert sent(a) == [ACK_SYNC]
    rig.settle()
    assert known(b) == {a.node: a.scope_pid}
    assert (sent(a), sent(b)) == ([], [ACK_SYNC])


def test_who_is_known_is_answered_again_when_it_asks() -> None:
    rig, a, b = two()
    a.engine.discover(b.node)
    rig.settle()
    b.sent.clear()
    for _ in range(2):
        hand(b, m.discover(a.scope_pid))
        rig.settle()
    assert sent(b) == [ACK_SYNC] * 2
    assert len(rig.monitors) == 2


def test_who_is_there_is_asked_once() -> None:
    """A second answer, made before the first has led to anything there, may bring back what both have given up."""
    rig, a, b = two()
    for _ in range(3):
        a.engine.look([b.node])
        a.engine.discover(b.node)
    assert sent(a) == [DISCOVER]
    rig.settle()
    a.engine.look([b.node])
    assert sent(a) == [ACK_SYNC]
    rig.end(b.scope_pid, KILLED)  # it has a name no more, so whoever has it next is asked
    a.engine.look([b.node])
    assert sent(a) == [DISCOVER]


def test_who_has_ended_before_it_answered_is_asked_again() -> None:
    rig, a, b = two()
    a.engine.look([b.node])
    rig.end(b.scope_pid, KILLED)
    a.engine.look([b.node])
    assert sent(a) == [DISCOVER] * 2


def test_what_is_here_is_said_before_what_comes_is_merged() -> None:
    """Else the other side never hears of a name that both lose."""
    rig, a, b = two()
    pid, other = a.new_pid(), b.new_pid()
    register(a, N, pid, b"a")
    register(b, N, other, b"b")
    hand(a, m.ack_sync(b.scope_pid, b.service.local_data()))
    ((_, message),) = [entry for entry in a.sent if entry[1][1] == ACK_SYNC]
    assert [(name, owner, meta) for name, owner, meta, _ in message[3]] == [(N, pid, b"a")]
    assert table(a)[repr(N)][0] == other  # and then it was merged
    rig.settle()


def test_only_own_entries_are_said() -> None:
    rig, a, b = two()
    c = rig.add("c@test")
    register(a, b"a", a.new_pid(), b"a")
    rig.connect(a, b)
    a.engine.discover(b.node)
    rig.settle()
    assert table(b)
    rig.connect(b, c)
    assert not table(c)


@pytest.mark.parametrize("first", [DISCOVER, ACK_SYNC])
@pytest.mark.parametrize("size", [1, SLICE + 1])
def test_a_new_scope_process_of_a_known_node(first: Atom, size: int) -> None:
    """It was started again, and its end is not known yet: what it had goes, and comes anew."""
    rig, a, b = two()
    pid = b.new_pid()
    for number in range(size):
        register(b, number, pid, b"old")
    rig.connect(a, b)
    a.engine.discover(b.node)
    rig.settle()
    a.take_events()
    old = b.scope_pid
    new = b.new_pid()
    data = [(0, pid, b"new", rig.time + 1)]
    hand(a, m.discover(new) if first == DISCOVER else m.ack_sync(new, data))
    assert known(a) == {b.node: new}
    assert old not in {watched for _, watched in rig.monitors.values()}
    gone = [("on_process_unregistered", number, pid, b"old", down(b.node)) for number in range(size)]
    came = [] if first == DISCOVER else [("on_process_registered", 0, pid, b"new", up(b.node))]
    assert a.take_events() == gone + came
    assert sent(a)[-1] == ACK_SYNC


def test_the_end_of_an_older_scope_process_costs_nothing() -> None:
    rig, a, b = two()
    a.engine.discover(b.node)
    rig.settle()
    ref = a.engine.peers[b.node].ref
    new = b.new_pid()
    hand(a, m.discover(new))
    a.run(a.engine.down(ref, b.node))
    assert known(a) == {b.node: new}


def test_the_scope_process_ends() -> None:
    rig, a, b = two()
    pid = b.new_pid()
    register(b, N, pid, b"b")
    a.engine.discover(b.node)
    rig.settle()
    rig.end(b.scope_pid, KILLED)
    assert known(a) == {}
    assert a.take_events()[-1] == ("on_process_unregistered", N, pid, b"b", down(b.node))
    register(b, b"later", pid, b"b")
    rig.settle()
    assert not table(a)  # who is not known is not heard


def test_the_node_goes() -> None:
    rig, a, b = two()
    register(b, N, b.new_pid(), b"b")
    rig.connect(a, b)
    a.engine.discover(b.node)
    rig.settle()
    rig.cut(a, b)
    assert not known(a)
    assert not known(b)
    assert not table(a)
    assert not rig.monitors


def test_a_member_that_is_gone_with_its_node_is_no_member_whatever_comes_first() -> None:
    rig, a, b = two()
    a.engine.discover(b.node)
    rig.settle()
    ref = a.engine.peers[b.node].ref
    a.run(a.engine.node_down(b.node))
    a.run(a.engine.down(ref, b.node))
    assert not known(a)


def test_broadcast() -> None:
    rig, a, b = two()
    c = rig.add("c@test")
    rig.connect(a, b, c)
    a.engine.discover(b.node)
    rig.settle()
    a.sent.clear()
    message = m.REGISTRY.say_gone(N, a.new_pid(), b"", m.NORMAL)
    a.engine.broadcast(message)
    a.engine.broadcast(message, b.node)
    assert sorted(node.name for node, _ in a.sent) == [b.node.name, c.node.name, c.node.name]
    assert all(said == message for _, said in a.sent)


def test_who_is_not_connected_any_more_is_not_made_a_member() -> None:
    rig, a, b = two()
    rig.cut(a, b)
    hand(a, m.discover(b.scope_pid))
    hand(a, m.ack_sync(b.scope_pid, []))
    assert not known(a)
    assert not a.sent


@pytest.mark.parametrize("known_before", [False, True])
@pytest.mark.parametrize(
    "data",
    [
        N,
        {},
        [N],
        [(N, 1)],
        [(N, b"pid", b"", 1)],
        [(N, Pid(Atom("b@test"), 1, 0, 1), b"", 1.5)],
        [(N, Pid(Atom("c@test"), 1, 0, 1), b"", 1)],
        [(b"good", Pid(Atom("b@test"), 1, 0, 1), b"", 1), (N,)],
    ],
)
def test_a_malformed_ack_sync_changes_nothing(data: Any, known_before: bool) -> None:
    rig, a, b = two()
    if known_before:
        a.engine.discover(b.node)
        rig.settle()
    before = known(a)
    a.sent.clear()
    with pytest.raises(m.Malformed):
        hand(a, m.ack_sync(b.scope_pid, data))
    assert known(a) == before
    assert not table(a)
    assert not a.sent


@pytest.mark.parametrize(
    "message",
    [
        b"hello",
        (),
        (m.TAG,),
        (m.TAG, DISCOVER, b"pid"),
        (m.TAG, ACK_SYNC, b"pid", []),
        (m.TAG, DISCOVER),
        (Atom("4.0"), DISCOVER, Pid(Atom("b@test"), 1, 0, 1)),
        (Atom("$gen_cast"), N),
    ],
)
def test_malformed_messages(message: Any) -> None:
    _rig, a, _b = two()
    with pytest.raises(m.Malformed):
        hand(a, message)
    assert not known(a)


def test_a_malformed_ack_sync_of_a_new_scope_process_costs_nobody_a_member() -> None:
    rig, a, b = two()
    register(b, N, b.new_pid(), b"")
    rig.connect(a, b)
    a.engine.discover(b.node)
    rig.settle()
    with pytest.raises(m.Malformed):
        hand(a, m.ack_sync(b.new_pid(), [N]))
    assert known(a) == {b.node: b.scope_pid}
    assert table(a)


def test_our_own_node_is_no_other_member() -> None:
    _rig, a, _b = two()
    for message in (m.discover(a.new_pid()), m.ack_sync(a.new_pid(), [])):
        with pytest.raises(m.Malformed):
            hand(a, message)
    assert not known(a)
