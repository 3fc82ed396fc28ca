"""One handshake of a node while it runs: what it is for, what it waits for, and how it is ended for another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ..wire.handshake import State

if TYPE_CHECKING:
    from ..wire.handshake import Acceptor, Initiator
    from .connections import Row
    from .peer import Peer


class Attempt:
    """One handshake that runs."""

    def __init__(self, address: str = "") -> None:
        #: ``host:port`` of the other end, once there is one.
        self.address = address
        #: Cancelled to end this handshake in favour of another.
        self.scope = trio.CancelScope()
        #: The row that it is for, as soon as there is one: the peer, and the id under which its news count.
        self.peer: Peer | None = None
        self.conn_id = 0
        #: What is awaited now, for the message when time is up.
        self.awaiting = ""
        #: The state of its bytes; None before the first and after the last.
        self.handshake: Initiator | Acceptor | None = None
        #: The connection that it replaces when it is through: it was up when the same node dialled anew.
        self.replaces: Row[Peer] | None = None
        #: Whether the peer has shown the cookie.
        self.proved = False
        #: Whether it was ended for a newcomer.
        self.evicted = False
        #: Whether it became a connection.
        self.up = False

    @property
    def silent(self) -> bool:
        """Whether the peer has not even said who it is."""
        return self.handshake is None or self.handshake.state is State.RECV_NAME

    def owes(self) -> str:
        """What did not come in time, and the state in which it was awaited."""
        if self.handshake is not None and self.handshake.state.owed:
            return f"it still owes {self.handshake.state.owed} ({self.handshake.state.name})"
        return self.awaiting
