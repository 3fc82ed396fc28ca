"""net_kernel's clauses as a decision table."""

import pytest

from erlang_interop.runtime.connections import ConnectionState, ConnectionTable, Row
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
        # net_kernel does not ask who began the attempt that is under way
        (ConnectionState.PENDING, GREATER, False, Verdict.OK_SIMULTANEOUS),
        (ConnectionState.PENDING, SMALLER, False, Verdict.NOK),
        (ConnectionState.UP, SMALLER, True, Verdict.ALIVE),
        (ConnectionState.UP, GREATER, False, Verdict.ALIVE),
        (ConnectionState.UP_PENDING, GREATER, True, None),
        (ConnectionState.UP_PENDING, SMALLER, False, None),
        (ConnectionState.EXITING, SMALLER, True, Verdict.OK),
        (ConnectionState.EXITING, GREATER, False, Verdict.OK),
    ],
)
def test_what_an_incoming_dial_is_answered(
    state: ConnectionState | None, peer: Atom, dialled: bool, verdict: Verdict | None
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


def up_pending(heir: str = "heir") -> tuple[ConnectionTable[str], Row[str]]:
    table = table_with(ConnectionState.UP_PENDING, GREATER, dialled=True)
    row = table.get(GREATER)
    assert row is not None
    row.heir = heir
    return table, row


def test_an_up_pending_row_is_up_again_when_the_dial_is_taken_back() -> None:
    table, row = up_pending()
    assert not table.still_up(row, "somebody else")
    assert table.still_up(row, "heir")
    assert (row.state, row.heir) == (ConnectionState.UP, None)
    assert not table.still_up(row, "heir"), "late news"


def test_a_dial_that_is_taken_back_after_the_loss_changes_nothing() -> None:
    table, row = up_pending()
    assert table.exiting(GREATER, row.conn_id) is row
    assert not table.still_up(row, "heir")
    assert row.state is ConnectionState.EXITING


def test_the_attempt_that_was_to_replace_a_lost_connection_inherits_its_row() -> None:
    table, row = up_pending()
    assert table.exiting(GREATER, row.conn_id) is row
    assert table.incoming(GREATER) is Verdict.OK, "it waits until the losses are handed out"
    heritage = table.remove(row)
    assert heritage is table.get(GREATER)
    assert heritage is not None
    assert (heritage.link, heritage.state, heritage.heir) == ("heir", ConnectionState.PENDING, None)
    assert heritage.conn_id > row.conn_id
    assert table.remove(row) is None, "once"
    assert table.set_node(GREATER, heritage.conn_id)


def test_only_the_latest_attempt_is_pending() -> None:
    table: ConnectionTable[str] = ConnectionTable(ME)
    assert not table.is_pending(GREATER, 1)
    row = table.begin(GREATER, "dial", dialled=True)
    first = row.conn_id
    assert table.is_pending(GREATER, first)
    second = table.supersede(row)
    assert not table.is_pending(GREATER, first)
    assert table.is_pending(GREATER, second)
    assert table.set_node(GREATER, second)
    assert not table.is_pending(GREATER, second), "it is up"


#: In the order of Erlang's atoms; tests/interop/test_dial_storm.py asks each BEAM about the same list.
NAMES_IN_ORDER = ["B@h", "a@g", "a@h", "a@h1", "a@ha", "a_@h", "ab@h", "b@h", "z@h", "z@h.", "\xe5@h", "\xff@h"]


def test_names_compare_as_atoms_do() -> None:
    for me in NAMES_IN_ORDER:
        for other in NAMES_IN_ORDER:
            if me != other:
                table: ConnectionTable[str] = ConnectionTable(me)
                table.begin(Atom(other), "dial", dialled=True)
                greater = NAMES_IN_ORDER.index(me) > NAMES_IN_ORDER.index(other)
                assert table.incoming(Atom(other)) is (Verdict.NOK if greater else Verdict.OK_SIMULTANEOUS)


def test_the_loss_of_a_connection_counts_while_its_node_dials_anew() -> None:
    table = table_with(ConnectionState.UP_PENDING, GREATER, dialled=True)
    row = table.get(GREATER)
    assert row is not None
    assert table.exiting(GREATER, row.conn_id) is row
