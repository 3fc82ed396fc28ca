"""Give back the memory of tables that have become small.

A dictionary never shrinks by itself: one that has held a million monitors keeps its hundred megabytes when they are
gone. The original lets its processes hibernate after so many sweeps without work; here the tables are looked at then.
"""

from __future__ import annotations

import sys
from typing import Final, TypeVar

K = TypeVar("K")
V = TypeVar("V")

#: Bytes of a dictionary for each of its entries beyond which it is worth copying. A full one has 40 to 110.
SPARSE: Final = 300
#: Entries allowed to any dictionary, so that small ones are left alone.
SMALL: Final = 64


def compacted(table: dict[K, V]) -> dict[K, V]:
    """``table`` itself, or a copy that takes less room. A copy is made only where few entries are left to copy."""
    return dict(table) if sys.getsizeof(table) > SPARSE * (len(table) + SMALL) else table
