"""A Batcher: the death certificates that wait for one subscriber, sent in chunks, oldest first. Pure.

The original runs one process per subscriber and loses what waits in it when that process dies. Here the Batchers are
part of the Proxy: they cannot die alone, and when the Proxy dies its subscribers are told (their monitor on its name).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from ..pacing import Pacer

if TYPE_CHECKING:
    from erlang_interop.terms import Pid, Term

    from ..messages import Certificate, Target


class BatcherCore:
    """Certificates for one subscriber.

    Attributes:
        subscriber: Who gets the summaries.
        chunk_size: Most certificates in one summary. May be changed at any time.
        pacer: When the next summary may go.
    """

    __slots__ = ("_waiting", "chunk_size", "pacer", "subscriber")

    def __init__(self, subscriber: Pid, *, interval: float, chunk_size: int) -> None:
        self.subscriber = subscriber
        self.chunk_size = chunk_size
        self.pacer = Pacer(interval)
        self._waiting: deque[Certificate] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def enqueue(self, target: Target, reason: Term) -> None:
        """Add a certificate; ``reason`` is truncated already."""
        self._waiting.append((target, reason))

    def sweep(self, now: float) -> list[Certificate]:
        """Take the certificates of the next summary; none if it is too early or nothing waits."""
        if not self._waiting or not self.pacer.is_due(now):
            return []
        waiting = self._waiting
        chunk = [waiting.popleft() for _ in range(min(self.chunk_size, len(waiting)))]
        self.pacer.swept(now, more=bool(waiting))
        return chunk
