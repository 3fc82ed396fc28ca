"""Handshakes of a node while they run: what one is for, what it waits for, how it is ended for another; how many."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from ..wire.handshake import State

if TYPE_CHECKING:
    from ..wire.handshake import Acceptor, Initiator
    from .connections import Row
    from .peer import Peer

log = logging.getLogger("erlang_interop.node")


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


class Accepting:
    """Accepted handshakes that are under way, oldest first, and never more than ``limit``.

    Raises:
        ValueError: ``limit`` leaves no room for any.
    """

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"max_handshakes={limit}: at least one handshake must be possible at a time")
        self._limit = limit
        self._attempts: dict[Attempt, None] = {}

    def __len__(self) -> int:
        return len(self._attempts)

    def admit(self, newcomer: Attempt) -> bool:
        """Whether there is a place for one more handshake: the oldest of those that have proved nothing gives way."""
        if len(self._attempts) >= self._limit:
            unproved = [attempt for attempt in self._attempts if not attempt.proved]
            oldest = next((attempt for attempt in unproved if attempt.silent), unproved[0] if unproved else None)
            ended = oldest or newcomer
            log.warning(
                "closing a connection from %s: %d handshakes are under way already, and it has proved nothing yet",
                ended.address,
                len(self._attempts),
            )
            if oldest is None:
                return False
            oldest.evicted = True
            oldest.scope.cancel()
            del self._attempts[oldest]
        self._attempts[newcomer] = None
        return True

    def leave(self, attempt: Attempt) -> None:
        """It is over; one that was evicted is not there any more."""
        self._attempts.pop(attempt, None)
