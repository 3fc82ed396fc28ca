"""The connection table: net_kernel's rows and its arbitration, as pure decisions.

One row for each peer. ``conn_id`` makes late news of a dead attempt harmless: whoever reports the end, the loss or
the success of an attempt names its id, and is ignored when the row has moved on. Nothing here touches a socket;
``handshakes.py`` and ``distribution.py`` act on what is decided here.

::

                     begin                     set_node                   incoming: ALIVE
    (no row) ──────────────────► PENDING ─────────────────► UP ◄──────────────────────────► UP_PENDING
        ▲                        │    ▲                     │      still_up                     │
        │ remove         exiting │    │ remove, with an heir│ exiting                   exiting │
        └────────────────────────┴─ EXITING ◄───────────────┴───────────────────────────────────┘

An attempt in the other direction, or a younger one in the same, may take over a PENDING row (``supersede``).

Source: kernel/src/net_kernel.erl (``accept_pending``, ``is_pending``, ``wait_pending``, ``nodedown``), and
``erlang:setnode/3`` and ``erts_internal:new_connection/1`` in erts/emulator/beam/dist.c.
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
    #: While UP_PENDING: what takes the row over when this connection is lost (``pending_owner``).
    heir: T | None = field(default=None)


class ConnectionTable(Generic[T]):
    """Rows by peer name. ``me`` is this node's name; the greater name's dial wins a race.

    Names compare as the atoms do in Erlang: by code points, and a name is greater than its own beginning.
    """

    def __init__(self, me: str) -> None:
        self.me = me
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

    def incoming(self, peer: Atom) -> Verdict | None:
        """What to answer a node that dials us (net_kernel.erl: accept_pending).

        ``OK``: nothing stands in the way. ``NOK``: an attempt is under way, our own dial or an earlier one of the peer,
        and our name is the greater: that attempt goes on. ``OK_SIMULTANEOUS``: the peer's name is the greater: the row
        is to be superseded. ``ALIVE``: a connection is up; the row is now UP_PENDING, and the caller sets its heir.
        None: that is so already, and the newcomer is hung up on without a word.
        """
        row = self._rows.get(peer)
        if row is None or row.state is ConnectionState.EXITING:
            return Verdict.OK
        if row.state is ConnectionState.UP:
            row.state = ConnectionState.UP_PENDING
            return Verdict.ALIVE
        if row.state is ConnectionState.UP_PENDING:
            return None
        return Verdict.NOK if self.me > peer.name else Verdict.OK_SIMULTANEOUS

    def is_pending(self, peer: Atom, conn_id: int) -> bool:
        """Whether the attempt ``conn_id`` is still the one that counts (net_kernel.erl: is_pending)."""
        row = self._rows.get(peer)
        return row is not None and row.conn_id == conn_id and row.state is ConnectionState.PENDING

    def set_node(self, peer: Atom, conn_id: int) -> bool:
        """The attempt ``conn_id`` is through (our ``erlang:setnode/3``). False: it was superseded; drop it."""
        if not self.is_pending(peer, conn_id):
            return False
        self._rows[peer].state = ConnectionState.UP
        return True

    def still_up(self, row: Row[T], heir: T) -> bool:
        """The node that dialled anew gave up: an UP_PENDING row is UP again, and has no heir.

        Returns:
            False if the connection was lost in the meantime: the heir has inherited, or is about to.
        """
        if row.state is not ConnectionState.UP_PENDING or row.heir is not heir:
            return False
        row.state, row.heir = ConnectionState.UP, None
        return True

    def exiting(self, peer: Atom, conn_id: int) -> Row[T] | None:
        """The connection ``conn_id`` is lost: its row, once; None for late news."""
        row = self._rows.get(peer)
        if row is None or row.conn_id != conn_id or row.state is ConnectionState.EXITING:
            return None
        row.state = ConnectionState.EXITING
        return row

    def remove(self, row: Row[T]) -> Row[T] | None:
        """All that the lost connection owed is handed out: the row goes, unless a younger one took its place.

        Returns:
            The pending row of its heir, which stands in its place (net_kernel.erl: up_pending_nodedown).
        """
        if self._rows.get(row.peer) is not row:
            return None
        del self._rows[row.peer]
        return None if row.heir is None else self.begin(row.peer, row.heir, dialled=False)
