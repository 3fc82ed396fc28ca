"""The connection table: net_kernel's rows and its arbitration, as pure decisions.

One row for each peer. ``conn_id`` makes late news of a dead attempt harmless: whoever reports the end, the loss or
the success of an attempt names its id, and is ignored when the row has moved on. Nothing here touches a socket;
``node.py`` acts on what is decided here.

Source: kernel/src/net_kernel.erl (``accept_pending``, ``handle_info({accept_pending, ...})``, ``setnode``).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from ..wire.handshake import Verdict

if TYPE_CHECKING:
    from ..terms import Atom

T = TypeVar("T")


class ConnectionState(enum.Enum):
    """Where a row stands; the words are net_kernel's."""

    PENDING = "pending"
    #: A handshake runs, dialled or accepted.
    UP = "up"
    UP_PENDING = "up_pending"
    #: Up, while the same node dials anew: it has forgotten the connection that we still hold.
    EXITING = "exiting"
    #: Lost; exits and DOWNs are still being handed out. A new connection waits for that to end.


@dataclass(slots=True)
class Row(Generic[T]):
    """One peer. ``link`` is what the owner of the table keeps for it."""

    peer: Atom
    conn_id: int
    state: ConnectionState
    link: T
    dialled: bool = field(default=False)


class ConnectionTable(Generic[T]):
    """Rows by peer name. ``me`` is this node's name; the greater name's dial wins a race."""

    def __init__(self, me: str) -> None:
        self._me = me
        self._rows: dict[Atom, Row[T]] = {}
        self._last_id = 0

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self) -> list[Row[T]]:
        """All rows, oldest first."""
        return list(self._rows.values())

    def get(self, peer: Atom) -> Row[T] | None:
        """The row of ``peer``."""
        return self._rows.get(peer)

    def begin(self, peer: Atom, link: T, *, dialled: bool) -> Row[T]:
        """A new pending row, replacing what stands there; its ``conn_id`` is new."""
        self._last_id += 1
        row = self._rows[peer] = Row(peer, self._last_id, ConnectionState.PENDING, link, dialled)
        return row

    def supersede(self, row: Row[T]) -> int:
        """The row's pending attempt gives way to another: a new id, so that the old one's news are void."""
        self._last_id += 1
        row.conn_id = self._last_id
        row.dialled = False
        return row.conn_id

    def incoming(self, peer: Atom) -> Verdict:
        """What to answer a node that dials us (net_kernel.erl: accept_pending).

        ``OK``: nothing stands in the way. ``OK_SIMULTANEOUS``: we dial as well, and its name is the greater: its
        attempt wins. ``NOK``: ours wins. ``ALIVE``: a connection is up; the row is now UP_PENDING.
        """
        row = self._rows.get(peer)
        if row is None or row.state is ConnectionState.EXITING:
            return Verdict.OK
        if row.state is ConnectionState.UP:
            row.state = ConnectionState.UP_PENDING
            return Verdict.ALIVE
        if row.state is ConnectionState.UP_PENDING:
            return Verdict.NOK
        if not row.dialled:  # an earlier attempt of the same node is under way; the younger gives way
            return Verdict.NOK
        return Verdict.NOK if self._me > peer.name else Verdict.OK_SIMULTANEOUS

    def set_node(self, peer: Atom, conn_id: int) -> bool:
        """The attempt ``conn_id`` is through (our ``erlang:setnode/3``). False: it was superseded; drop it."""
        row = self._rows.get(peer)
        if row is None or row.conn_id != conn_id or row.state is not ConnectionState.PENDING:
            return False
        row.state = ConnectionState.UP
        return True

    def still_up(self, peer: Atom) -> None:
        """The node that dialled anew gave up: an UP_PENDING row is UP again."""
        row = self._rows.get(peer)
        if row is not None and row.state is ConnectionState.UP_PENDING:
            row.state = ConnectionState.UP

    def exiting(self, peer: Atom, conn_id: int) -> Row[T] | None:
        """The connection ``conn_id`` is lost: its row, once; None for late news."""
        row = self._rows.get(peer)
        if row is None or row.conn_id != conn_id or row.state is ConnectionState.EXITING:
            return None
        row.state = ConnectionState.EXITING
        return row

    def remove(self, row: Row[T]) -> None:
        """All that the lost connection owed is handed out: the row goes, unless a younger one took its place."""
        if self._rows.get(row.peer) is row:
            del self._rows[row.peer]
