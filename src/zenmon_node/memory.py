"""Tables that may hold a million entries, and that give their memory back.

A dictionary has two bad habits at that size. It grows by copying itself: at 0.7 million entries that takes some 25 ms,
in which the loop stands still, and all tables that hold the same monitors do it at the same moment. And it never
shrinks: one that has held a million monitors keeps its hundred megabytes when they are gone. (The original lets its
processes hibernate after so many sweeps without work; here the tables are looked at then.)
"""

from __future__ import annotations

import math
import sys
from itertools import chain, cycle
from typing import TYPE_CHECKING, Final, Generic, TypeVar, final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from erlang_interop._native import i64

K = TypeVar("K")
V = TypeVar("V")

#: Bytes of a dictionary for each of its entries beyond which it is worth copying. A full one has 40 to 110.
SPARSE: Final = 300
#: Entries allowed to any dictionary, so that small ones are left alone.
SMALL: Final = 64
#: Dictionaries of a big table. Tables get these numbers in turn: those that are filled side by side, such as one for
#: each other node, would grow at the same moments if they had as many parts each.
PARTS: Final = (83, 89, 97, 101)
#: What hashes are divided by. A prime, so that the part that has a key says nothing of the key's place in there.
_RESIDUES: Final = 8191
#: Number of parts -> residue -> part. The last part has twice as many residues as the first, and those between them
#: grow like a geometric series: so no two are filled at the same moment, however evenly the keys are spread (pids come
#: numbered).
_PART_OF: Final = {
    parts: [int(parts * math.log2(1 + residue / _RESIDUES)) for residue in range(_RESIDUES)] for parts in PARTS
}
_in_turn: Final = cycle(PARTS)
#: Entries from which on a table is a big one.
BIG: Final = 10_000


def compacted(table: dict[K, V]) -> dict[K, V]:
    """``table`` itself, or a copy that takes less room. A copy is made only where few entries are left to copy."""
    return dict(table) if sys.getsizeof(table) > SPARSE * (len(table) + SMALL) else table


@final
class Table(Generic[K, V]):
    """A dictionary in parts, so that none of them takes long to grow, or to go.

    Up to ``BIG`` entries it is one, in the order of insertion. Then its entries are spread over one of ``PARTS``.

    Attributes:
        parts: The dictionaries. To be read only.
    """

    __slots__ = ("_part_of", "parts")

    def __init__(self) -> None:
        self.parts: list[dict[K, V]] = [{}]
        self._part_of = _PART_OF[next(_in_turn)]

    def __len__(self) -> int:
        return sum([len(part) for part in self.parts])

    def __bool__(self) -> bool:
        for part in self.parts:  # noqa: SIM110 - this is compiled to less than any()
            if part:
                return True
        return False

    def _part(self, key: K) -> dict[K, V]:
        parts = self.parts
        if len(parts) == 1:
            return parts[0]
        number: i64 = hash(key)
        return parts[self._part_of[number % _RESIDUES]]

    def __contains__(self, key: K) -> bool:
        return key in self._part(key)

    def __getitem__(self, key: K) -> V:
        return self._part(key)[key]

    def __setitem__(self, key: K, value: V) -> None:
        part = self._part(key)
        part[key] = value
        if len(part) > BIG and len(self.parts) == 1:
            self._spread()

    def __delitem__(self, key: K) -> None:
        del self._part(key)[key]

    def __iter__(self) -> Iterator[K]:
        for part in self.parts:
            yield from part

    def get(self, key: K) -> V | None:
        """The value, or None."""
        return self._part(key).get(key)

    def setdefault(self, key: K, value: V) -> V:
        """The value of ``key``; ``value``, which it gets, if it has none."""
        part = self._part(key)
        found = part.setdefault(key, value)
        if len(part) > BIG and len(self.parts) == 1:
            self._spread()
        return found

    def pop(self, key: K, default: V | None = None) -> V | None:
        """Remove ``key``: its value, or ``default`` if it is not there."""
        return self._part(key).pop(key, default)

    def keys(self) -> Iterator[K]:
        """The keys, of each part as they are when it is reached; of the first, and so of a small table, as of now."""
        first, *others = self.parts
        return chain(list(first), chain.from_iterable(map(list, others)))

    def items(self) -> Iterator[tuple[K, V]]:
        """Keys and values."""
        for part in self.parts:
            yield from part.items()

    def values(self) -> Iterator[V]:
        """The values."""
        for part in self.parts:
            yield from part.values()

    def drain(self) -> Iterator[tuple[K, V]]:
        """Keys and values of a table that nobody else uses any more; its memory goes part by part meanwhile."""
        while self.parts:
            yield from self.parts[0].items()
            del self.parts[0]

    def clear(self) -> None:
        """Remove everything."""
        self.parts = [{}]

    def compact(self) -> None:
        """Give back memory that the entries of the past have taken."""
        count = len(self)
        if len(self.parts) > 1 and count < BIG // 2:
            self.parts = [dict(self.items())]
        else:
            self.parts = [compacted(part) for part in self.parts]

    def _spread(self) -> None:
        whole = self.parts[0]
        self.parts = [{} for _ in range(self._part_of[-1] + 1)]
        for key, value in whole.items():
            self._part(key)[key] = value
