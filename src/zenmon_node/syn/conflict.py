"""Who keeps a name that two processes of different nodes have: the decision alone. Pure.

It arises when the two nodes could not hear of each other: after a net split, or when both registered at the same
moment. Each of the two owners decides for itself, so both must come to the same end.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, NamedTuple

from erlang_interop.otp.term_order import pid_key
from erlang_interop.terms import Pid

if TYPE_CHECKING:
    from erlang_interop.terms import Term


class Claim(NamedTuple):
    """One of the two: ``{Pid, Meta, Time}``, as a resolver is given it."""

    pid: Pid
    meta: Any
    time: int
    """When it was registered or updated last, in nanoseconds since 1970 by the clock of its node."""


class Kept(enum.Enum):
    """Whose name it is from now on, as one of the owners sees it."""

    REMOTE = enum.auto()
    LOCAL = enum.auto()
    NEITHER = enum.auto()


def by_default(remote: Claim, local: Claim) -> Kept:
    """The later registration stays; of two of the same time the greater pid, by Erlang's order of terms.

    With the same time 3.3.0 lets each owner keep its own, and decides in the round that follows from that; since 3.4.1
    it is decided as here.
    """
    later = max(remote, local, key=lambda claim: (claim.time, pid_key(claim.pid)))
    return Kept.REMOTE if later is remote else Kept.LOCAL


def by_choice(chosen: Term, remote: Claim, local: Claim) -> Kept:
    """What a resolver of the user's has said: one of the two pids, or anything else, which frees the name."""
    if type(chosen) is Pid:
        if chosen == remote.pid:
            return Kept.REMOTE
        if chosen == local.pid:
            return Kept.LOCAL
    return Kept.NEITHER
