"""net_kernel's clauses as a decision table."""

import pytest

from erlang_interop.runtime.connections import ConnectionState, ConnectionTable
from erlang_interop.terms import Atom
from erlang_interop.wire.handshake import Verdict

ME = "m@host"
SMALLER = Atom("a@host")
GREATER = Atom("z@host")


def table_with(state: ConnectionState | None, peer: Atom, *, dialled: bool) -> ConnectionTable[str]:
    table: ConnectionTable[str] = ConnectionTable(ME)
    if state is None:
        return table
    row = table.begin(peer, "link", dialled=dialled)
    if state is not ConnectionState.PENDING:
        assert table.set_node(peer, row.conn_id)
    if state is ConnectionState.UP_PENDING:
        assert table.incoming(peer) is Verdict.ALIVE
    if state is ConnectionState.EXITING:
        assert table.exiting(peer, row.conn_id) is row
    return table


@pytest.mark.parametrize(
    ("state", "peer", "dialled", "verdict"),
    [
        (None, GREATER, False, Verdict.OK),
        (ConnectionState.PENDING, GREATER, True, Verdict.OK_SIMULTANEOUS),  # the greater name's dial wins
        (ConnectionState.PENDING, SMALLER, True, Verdict.NOK),
        (ConnectionState.PENDING, GREATER, False, Verdict.NOK),
        (ConnectionState.UP, SMALLER, True, Verdict.ALIVE),
        (ConnectionState.UP, GREATER, False, Verdict.ALIVE),
        (ConnectionState.UP_PENDING, GREATER, True, Verdict.NOK),
        (ConnectionState.EXITING, SMALLER, True, Verdict.OK),
    ],
)
def test_what_an_incoming_dial_is_answered(
    state: ConnectionState | None, peer: Atom, dialled: bool, verdict: Verdict
) -> None:
    assert table_with(state, peer, dialled=dialled).incoming(peer) is verdict


def test_two_nodes_that_dial_each_other_agree_on_one_connection() -> None:
    for me, other in ((ME, GREATER.name), (ME, SMALLER.name)):
        mine: ConnectionTable[str] = ConnectionTable(me)
        theirs: ConnectionTable[str] = ConnectionTable(other)
        mine.begin(Atom(other), "dial", dialled=True)
        theirs.begin(Atom(me), "dial", dialled=True)
        assert {mine.incoming(Atom(other)), theirs.incoming(Atom(me))} == {Verdict.OK_SIMULTANEOUS, Verdict.NOK}


def test_a_superseded_attempt_cannot_come_up() -> None:
    table: ConnectionTable[str] = ConnectionTable(ME)
    row = table.begin(GREATER, "dial", dialled=True)
    old_id = row.conn_id
    new_id = table.supersede(row)
    assert not table.set_node(GREATER, old_id)
    assert table.set_node(GREATER, new_id)
    assert row.state is ConnectionState.UP


def test_late_news_of_a_dead_attempt_is_harmless() -> None:
    table: ConnectionTable[str] = ConnectionTable(ME)
    first = table.begin(GREATER, "first", dialled=True)
    assert table.exiting(GREATER, first.conn_id) is first
    assert table.exiting(GREATER, first.conn_id) is None
    table.remove(first)
    second = table.begin(GREATER, "second", dialled=True)
    assert table.exiting(GREATER, first.conn_id) is None
    assert not table.set_node(GREATER, first.conn_id)
    table.remove(first)
    assert table.get(GREATER) is second


def test_an_up_pending_row_is_up_again_when_the_dial_is_taken_back() -> None:
    table = table_with(ConnectionState.UP_PENDING, GREATER, dialled=True)
    table.still_up(GREATER)
    row = table.get(GREATER)
    assert row is not None
    assert row.state is ConnectionState.UP


def test_the_loss_of_a_connection_counts_while_its_node_dials_anew() -> None:
    table = table_with(ConnectionState.UP_PENDING, GREATER, dialled=True)
    row = table.get(GREATER)
    assert row is not None
    assert table.exiting(GREATER, row.conn_id) is row
