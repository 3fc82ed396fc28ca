"""What a Proxy does once for each subscription to a process of its node, and once for each death. Pure.

Both may come by the hundred thousand, so these are loops in compiled code (mypyc) that leave all that is rare, or could
raise, to ``core.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from erlang_interop.terms import Atom, Pid

from ..messages import SUBSCRIBE, UNSUBSCRIBE

if TYPE_CHECKING:
    from collections.abc import Callable

    from erlang_interop._native import i64
    from erlang_interop.runtime.observer import Observer
    from erlang_interop.terms import Term

    from .batcher import BatcherCore
    from .tables import ProxyTables


@final
class Cast:
    """Instructions of one subscriber that are carried out in order, in slices.

    Args:
        subscriber: Whose they are.
        instructions: Not checked yet.
        sender: Who is to be blamed for what is wrong with them.
    """

    __slots__ = ("_instructions", "_next", "sender", "subscriber")

    def __init__(self, subscriber: Pid, instructions: list[Any], sender: Pid | Atom | None) -> None:
        self.subscriber = subscriber
        self.sender = sender
        self._instructions = instructions
        self._next = 0

    def __len__(self) -> int:
        """Instructions not begun yet."""
        return len(self._instructions) - self._next

    @property
    def latest(self) -> Any:
        """The instruction begun last."""
        return self._instructions[self._next - 1]

    def carry_out(self, limit: int, node: Atom, tables: ProxyTables, observer: Observer) -> bool:
        """Carry out the next instructions while they are about pids of ``node``, which ``observer`` watches.

        Args:
            limit: Most instructions to begin.

        Returns:
            True if :attr:`latest` is begun, but of another kind: it is the caller's.
        """
        instructions = self._instructions
        subscriber = self.subscriber
        position: i64 = self._next
        stop: i64 = min(len(instructions), self._next + limit)
        while position < stop:
            term = instructions[position]
            position += 1
            self._next = position
            if type(term) is not tuple or len(term) != 2:
                return True
            target = term[1]
            if type(target) is not Pid or target.node is not node:
                return True
            op = term[0]
            if op is SUBSCRIBE:
                tables.watch(target, subscriber, observer)
            elif op is UNSUBSCRIBE:
                guard = tables.remove(target, subscriber)
                if guard is not None:
                    observer.release(target)
            else:
                return True
        return False


def certify(
    observer: Observer,
    tables: ProxyTables,
    loaded: dict[Pid, BatcherCore],
    load: Callable[[Pid], BatcherCore],
    truncated: Callable[[Pid, Term], Term],
    keep_atoms: bool,
) -> int:
    """Turn the deaths that ``observer`` has written down into certificates, oldest first.

    Args:
        observer: What is dealt with is removed there, whatever happens.
        tables: Whose rows the deaths consume.
        loaded: Batchers with something to send.
        load: Enters the Batcher of a subscriber there.
        truncated: What a reason becomes.
        keep_atoms: Whether an atom stays one; nearly all reasons are atoms.

    Returns:
        How many certificates there are.
    """
    deaths = observer.deaths
    done = count = 0
    try:
        for death in deaths:
            done += 1
            target, reason = death
            told = tables.consume(target, target)
            if not told:
                continue
            if not keep_atoms or type(reason) is not Atom:
                reason = truncated(target, reason)
            for subscriber in told:
                batcher = loaded.get(subscriber)
                if batcher is None:
                    batcher = load(subscriber)
                batcher.enqueue(target, reason)
                count += 1
    finally:
        del deaths[:done]
    return count
