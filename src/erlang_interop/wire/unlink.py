"""The link between a process here and one on another node, with its ``UNLINK_ID`` dialogue.

One :class:`Link` for each pair of pids; it says which signals to send, its owner sends them. States and transitions are
those of the manual, *Distribution Protocol, Link Protocol*, mandatory since OTP 26::

    no object ─ link(), LINK received ─► ACTIVE ─ unlink() ─► UNLINKING(id) ─ ACK(id) ─► GONE
                                           ▲                       │
                                           └──────── link() ───────┘        ACTIVE ─ UNLINK_ID, EXIT received ─► GONE

The receiver of ``UNLINK_ID`` answers ``UNLINK_ID_ACK`` with the same id, whatever state the link is in and also when
there is none, before it sends anything else to that process. GONE means: forget the object. Compiled, for then the
garbage collector need not look at links, of which there may be very many.
"""

from __future__ import annotations

import enum
from typing import final

from .._native import mypyc_attr

__all__ = ["Link", "LinkState", "UnlinkIds"]


class LinkState(enum.Enum):
    """What one side knows of a link."""

    #: Linked: an exit signal of the other process counts.
    ACTIVE = "active"
    #: Unlinked here, not yet acknowledged: exit signals of the other process are ignored.
    UNLINKING = "unlinking"
    #: Nothing is left to remember.
    GONE = "gone"


class UnlinkIds:
    """Identifiers of ``UNLINK_ID``: 1 to 2**64-1, then from 1 again. 0 makes a BEAM cut the connection."""

    __slots__ = ("_last",)

    def __init__(self, last: int = 0) -> None:
        self._last = last

    def next(self) -> int:
        """Return an id that no unlink of this node has used for 2**64 - 1 unlinks."""
        self._last = self._last + 1 if self._last < 2**64 - 1 else 1
        return self._last


@final
@mypyc_attr(acyclic=True)
class Link:
    """One link as its process here knows it. Made when ``LINK`` is sent or received: it starts ACTIVE."""

    __slots__ = ("priority", "state", "unlink_id")

    def __init__(self, priority: bool = False) -> None:
        self.state = LinkState.ACTIVE
        #: Whether an exit through this link is received as a priority message (``erlang:link/2``).
        self.priority = priority
        #: The id we wait for while UNLINKING; 0 otherwise.
        self.unlink_id = 0

    @property
    def active(self) -> bool:
        """Whether the two count as linked."""
        return self.state is LinkState.ACTIVE

    def link(self) -> bool:
        """The process here calls ``link/1``. Return whether ``LINK`` must be sent."""
        if self.state is LinkState.ACTIVE:
            return False
        # "if we had an outstanding unlink operation we will ignore the result of that operation and enable the link"
        self.state, self.unlink_id = LinkState.ACTIVE, 0
        return True

    def unlink(self, ids: UnlinkIds) -> int:
        """The process here calls ``unlink/1``. Return the id of the ``UNLINK_ID`` to send; 0: send nothing."""
        if self.state is not LinkState.ACTIVE:
            return 0
        self.state, self.unlink_id = LinkState.UNLINKING, ids.next()
        return self.unlink_id

    def link_received(self) -> None:
        """``LINK`` came for a link that exists: "the signal is silently ignored", whatever its state."""

    def unlink_received(self) -> None:
        """``UNLINK_ID`` came. The owner sends ``UNLINK_ID_ACK`` in any case, at once."""
        if self.state is LinkState.ACTIVE:
            self.state = LinkState.GONE

    def ack_received(self, unlink_id: int) -> None:
        """``UNLINK_ID_ACK`` came. One with another id belongs to an unlink that a later ``link()`` overtook."""
        if self.state is LinkState.UNLINKING and unlink_id == self.unlink_id:
            self.state, self.unlink_id = LinkState.GONE, 0

    def exit_received(self) -> bool:
        """An exit signal due to this link came, or the connection is lost. Return whether it counts."""
        counts = self.state is LinkState.ACTIVE
        self.state, self.unlink_id = LinkState.GONE, 0
        return counts
