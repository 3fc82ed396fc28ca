from __future__ import annotations

from typing import Any

import pytest

from erlang_interop import Atom, Export, Pid, Reference
from erlang_interop.otp import _global_messages as messages
from erlang_interop.otp._global_messages import (
    Call,
    CancelConnect,
    Exchange,
    External,
    Ignored,
    InitConnect,
    InitConnectAck,
    InSync,
    LockSet,
    LostConnection,
    Malformed,
    Named,
    NewNodes,
    Ops,
    RemoveConnection,
    Resolved,
    Whereis,
    parse,
)

A, B, C = Atom("a@test"), Atom("b@test"), Atom("c@test")
LOCKER, ONE, TWO = Pid(A, 1, 0, 1), Pid(A, 2, 0, 1), Pid(B, 3, 0, 1)
CALL, CAST = Atom("$gen_call"), Atom("$gen_cast")
METHOD = Export(Atom("global"), Atom("random_exit_name"), 3)
X, Y = Named(Atom("x"), ONE, METHOD), Named([b"y", {}], TWO, METHOD)
EXTERNAL = External(Y.name, TWO, C)
FROM = (ONE, Reference(A, 1, bytes(12)))
OPS = Ops([X, Y], [b"gone"])


def cast(message: Any) -> Any:
    return parse((CAST, message))


def test_what_is_said_here_is_understood_here() -> None:
    assert cast(messages.init_connect(A, -5, {B: 8}, LOCKER)) == InitConnect(A, 8, -5, LOCKER, python=True)
    assert parse(messages.init_connect_ack(A, 2**70, 3)) == InitConnectAck(A, 2**70, 3)
    assert parse(messages.cancel_connect(A, -1)) == CancelConnect(A, -1)
    assert cast(messages.lock_set(LOCKER, True, [A], 8, -7)) == LockSet(LOCKER, True, -7)
    assert cast(messages.lock_set(LOCKER, False, [], 7, -7)) == LockSet(LOCKER, False, None)
    assert cast(messages.exchange(A, [X, Y], 4)) == Exchange(A, [X, Y], 4)
    assert cast(messages.resolved(A, OPS, {B: 8, C: 7}, 8, [EXTERNAL], 4)) == Resolved(
        A, OPS, {B: 8, C: 7}, [EXTERNAL], 4
    )
    told = messages.new_nodes(A, OPS, [EXTERNAL], {B: 8}, 8, 8, [LOCKER, TWO])
    assert cast(told) == NewNodes(A, OPS, [EXTERNAL], {B: 8}, [LOCKER, TWO])
    assert cast(messages.in_sync(A)) == InSync(A, python=True)
    assert parse(messages.lost_connection(A, 2**59 + 1, -3, B)) == LostConnection(A, 2**59 + 1, -3, B)
    assert parse(messages.remove_connection(A)) == RemoveConnection(A)


def test_what_a_beam_says() -> None:
    locker = (Atom("locker"), Atom("no_longer_a_pid"), {(Atom("pending"), B): 8}, LOCKER)
    assert cast((Atom("init_connect"), (8, -5), A, locker)) == InitConnect(A, 8, -5, LOCKER, python=False)
    # Newer versions may say more.
    assert cast((Atom("init_connect"), (9, -5, b"more"), A, locker)) == InitConnect(A, 9, -5, LOCKER, python=False)
    assert cast((Atom("in_sync"), A, True)) == InSync(A, python=False)
    assert cast((Atom("new_nodes"), A, [], [], [B, C], [])) == NewNodes(A, Ops([], []), [], {B: 0, C: 0}, None)
    assert parse((Atom("whereis"), b"name", FROM)) == Whereis(b"name", FROM)
    assert parse((CALL, FROM, Atom("get_known"))) == Call(FROM, Atom("get_known"))
    for old in ("async_del_name", "async_del_lock"):
        assert isinstance(cast((Atom(old), b"name", ONE)), Ignored)


def test_nodes_of_older_versions_get_the_forms_they_know() -> None:
    assert messages.nodes_term({A: 8, B: 6}, 6) == [A, B]
    assert messages.nodes_term({A: 8, B: 6}, 7) == [(A, 8), (B, 6)]


def test_both_lockers_lock_for_the_same_requester() -> None:
    # Serial before id, before node: Erlang's order of pids.
    low, high = Pid(B, 9, 0, 1), Pid(A, 1, 1, 1)
    assert messages.requester_of(low, high) == messages.requester_of(high, low) == [low, high]


LOCKER_TERM = (Atom("locker"), 0, 0, LOCKER)


@pytest.mark.parametrize(
    "message",
    [
        Atom("hello"),
        (),
        b"bytes",
        (CAST, Atom("hello")),
        (CAST, (Atom("init_connect"), 8, A, LOCKER_TERM)),
        (CAST, (Atom("init_connect"), (8,), A, LOCKER_TERM)),
        (CAST, (Atom("init_connect"), (5, 1), A, LOCKER_TERM)),
        (CAST, (Atom("init_connect"), (8, 1), Atom("no_node"), LOCKER_TERM)),
        (CAST, (Atom("init_connect"), (8, 1), A, (Atom("locker"), 0, 0, b"pid"))),
        (CAST, (Atom("lock_set"), ONE, Atom("maybe"), [])),
        (CAST, (Atom("exchange"), A, Atom("names"), [], 1)),
        (CAST, (Atom("exchange"), A, [(b"name", b"pid", METHOD)], [], 1)),
        (CAST, (Atom("exchange"), A, [b"name"], [], 1)),
        (CAST, (Atom("exchange"), A, [1], [], 1)),
        (CAST, (Atom("resolved"), A, [(Atom("insert"), 1)], [], 0, [], 1)),
        (CAST, (Atom("resolved"), A, [(Atom("change"), 1)], [], 0, [], 1)),
        (CAST, (Atom("resolved"), A, [], b"known", 0, [], 1)),
        (CAST, (Atom("resolved"), A, [], [(B, Atom("eight"))], 0, [], 1)),
        (CAST, (Atom("resolved"), A, [], [], 0, [(b"name", ONE, b"node")], 1)),
        (CAST, (Atom("new_nodes"), A, [], [], [b"node"], [])),
        (CAST, (Atom("new_nodes"), A, [], [], [B], [1])),
        (CAST, (Atom("new_nodes"), A, [], 7, [B], [])),
        (CAST, (Atom("in_sync"), b"node", True)),
        (Atom("lost_connection"), A, 1, b"number", B),
        (Atom("cancel_connect"), 5, 1),
        (Atom("remove_connection"), Atom("no_node")),
        (Atom("whereis"), b"name", b"from"),
        (CALL, b"from", Atom("get_known")),
    ],
)
def test_what_is_of_no_known_form(message: Any) -> None:
    with pytest.raises(Malformed):
        parse(message)
