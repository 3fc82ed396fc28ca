"""A Batcher: the death certificates that wait for one subscriber, sent in chunks, oldest first. Pure.

A chunk has a greatest number of certificates, as in the original, and, other than there, a greatest weight: reasons of
the form ``{shutdown, X}`` are not truncated, and 5000 processes may end with the same ten megabytes.

The original runs one process per subscriber and loses what waits in it when that process dies. Here the Batchers are
part of the Proxy: they cannot die alone, and when the Proxy dies its subscribers are told (their monitor on its name).
"""

from __future__ import annotations

from collections import deque
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final

from erlang_interop.terms import Atom, Pid, Port, Reference

from ..messages import TRUNCATED
from ..pacing import Pacer

if TYPE_CHECKING:
    from erlang_interop.terms import Term

    from ..messages import Certificate

#: What one summary may weigh, about its bytes. One certificate alone may weigh more.
SUMMARY_WEIGHT: Final = 4 * 1024 * 1024
#: What each term weighs beside the bytes it is made of. Most of them need less, but time as well.
TERM_WEIGHT: Final = 40
#: A certificate of a pid and an atom, as nearly all are.
PLAIN_WEIGHT: Final = 3 * TERM_WEIGHT
_SMALL: Final = frozenset({Atom, Pid, Reference, Port, float, bool, type(None)})


def weigh(term: Any, most: int) -> int:
    """What ``term`` weighs, roughly: the bytes it has on the wire, or more.

    Args:
        term: Any term.
        most: Beyond this it is not looked at any further, so a huge term costs no more time than this much of it.

    Returns:
        The weight; some number above ``most`` if it is that heavy, or of a rare kind.
    """
    weight = 0
    pending = [term]
    enough = most // TERM_WEIGHT + 1
    while pending and weight <= most:
        term = pending.pop()
        weight += TERM_WEIGHT
        kind = type(term)
        if kind in _SMALL:
            continue
        if kind is bytes or kind is str:
            weight += len(term)
        elif kind is tuple or kind is list:
            pending.extend(islice(term, enough))
        elif kind is int:
            weight += term.bit_length() // 8
        elif kind is dict:
            pending.extend(islice(chain.from_iterable(term.items()), enough))
        else:
            weight += most  # a fun, a record, an object of Python: it may be of any size
    return weight


class BatcherCore:
    """Certificates for one subscriber.

    Attributes:
        subscriber: Who gets the summaries.
        chunk_size: Most certificates in one summary. May be changed at any time.
        pacer: When the next summary may go.
        weight: What the last summary weighed.
        failed: Whether sending it has raised.
    """

    __slots__ = ("_waiting", "chunk_size", "failed", "pacer", "subscriber", "weight")

    def __init__(self, subscriber: Pid, *, interval: float, chunk_size: int) -> None:
        self.subscriber = subscriber
        self.chunk_size = chunk_size
        self.pacer = Pacer(interval)
        self.weight = 0
        self.failed = False
        self._waiting: deque[Any] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def enqueue(self, target: Term, reason: Term) -> None:
        """Add a certificate; ``reason`` is truncated already. The target of a malformed instruction may be anything."""
        self._waiting.append((target, reason))

    def sweep(self, now: float) -> list[Certificate]:
        """Take the certificates of the next summary; none if it is too early or nothing waits."""
        if not self._waiting or not self.pacer.is_due(now):
            return []
        waiting = self._waiting
        count = total = 0
        for target, reason in islice(waiting, self.chunk_size):
            if type(target) is Pid and type(reason) is Atom:
                weight = PLAIN_WEIGHT
            else:
                weight = weigh((target, reason), SUMMARY_WEIGHT)
            if count and total + weight > SUMMARY_WEIGHT:
                break
            total += weight
            count += 1
        self.weight = total
        chunk = [waiting.popleft() for _ in range(count)]
        self.pacer.swept(now, more=bool(waiting))
        return chunk

    def put_back(self, chunk: list[Any]) -> None:
        """Put back what :meth:`sweep` has taken last, for it could not be sent: without what may be the cause of it."""
        plain = [(target, reason if type(reason) is Atom else TRUNCATED) for target, reason in chunk]
        self._waiting.extendleft(reversed(plain))
