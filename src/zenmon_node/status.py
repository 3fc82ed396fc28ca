"""What ZenMonitor tells a program: that a process is gone, how much there is of everything, what is known of a node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from erlang_interop.terms import Atom, Reference, Term

    from .local.api import CachedCompatibility


@dataclass(frozen=True, slots=True)
class Down:
    """A monitored process is gone."""

    ref: Reference
    """The monitor."""
    target: Any
    """What was monitored, as it was given."""
    reason: Term
    """Why: an exit reason (truncated by the other node's Proxy), ``noproc`` or ``nodedown``."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """How much there is of everything, at one moment."""

    monitors: int
    """Monitors of processes of this node that have not fired."""
    subscribers: int
    """Processes of this node that hold them."""
    connectors: int
    """Remote nodes that are monitored, or were lately (and this one, if it monitors itself)."""
    waiting_instructions: int
    """Subscriptions and their withdrawals not sent yet."""
    waiting_downs: int
    """DOWN messages not delivered yet, those of monitors taken back meanwhile too."""
    waiting_cleanups: int
    """Monitors of dead subscribers not withdrawn yet."""
    subscriptions: int
    """Targets on this node that other nodes monitor through our Proxy."""
    subscription_rows: int
    """Pairs of such a target and the Connector of a node that monitors it."""
    remote_subscribers: int
    """Connectors that do so."""
    waiting_remote_instructions: int
    """Subscriptions and withdrawals of theirs that have arrived and are not carried out yet."""
    waiting_certificates: int
    """Deaths not reported to them yet."""
    malformed: int
    """Messages, or parts of them, that had to be ignored."""


@dataclass(frozen=True, slots=True)
class Remote:
    """One node of which processes are monitored, or were lately (or this node, if it monitors itself)."""

    node: Atom
    compatibility: CachedCompatibility
    """What is known of it."""
    targets: int
    """Processes and names monitored there, each once however many monitors it has."""
    waiting_instructions: int
    """Subscriptions and their withdrawals not sent to it yet."""
    batches: int
    """Casts sent to its Proxy, since it has been in this list without a break; so with the next three."""
    instructions: int
    """Subscriptions and withdrawals in them."""
    summaries: int
    """Summaries of deaths received from it."""
    certificates: int
    """Deaths in them."""
