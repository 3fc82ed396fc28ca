"""Names for nodes that have none: ``erl -name undefined`` asks the first node it connects to for one.

Source: kernel/src/net_kernel.erl (``generate_node_name/2``, ``delete_connection/3``); the manual's *Distributed Erlang,
Dynamic Node Name*.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from ..terms import Atom

if TYPE_CHECKING:
    from collections.abc import Callable

#: What a node is called before it has a name.
UNDEFINED: Final = "undefined"

_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#: A creation is of 32 bits, and greater than those of the old 2-bit form.
_LEAST_CREATION: Final = 4


class DynamicNames:
    """The names that this node gave, and takes back when their connection is lost.

    A name is given again, with the next creation, to the next node of that host: so a node that lost its connection
    and comes back usually has its old name, and nobody takes it for the one that it was.
    """

    def __init__(self) -> None:
        self._free: defaultdict[str, list[tuple[Atom, int]]] = defaultdict(list)

    def take(self, host: str, is_taken: Callable[[Atom], bool]) -> tuple[Atom, int]:
        """A name on ``host`` for which ``is_taken`` is false, and its creation."""
        free = self._free.pop(host, [])
        while free:
            name, creation = free.pop()
            if not is_taken(name):
                if free:
                    self._free[host] = free
                return name, creation
        while True:
            name = Atom(f"{_base_36(1 + secrets.randbelow(1 << 64))}@{host}")
            if not is_taken(name):
                return name, _wrapped(secrets.randbits(32))

    def give_back(self, name: Atom, creation: int) -> None:
        """The connection of the node ``name``, of that creation, is lost."""
        host = name.name.partition("@")[2]
        self._free[host].append((name, _wrapped(creation + 1)))


def _wrapped(creation: int) -> int:
    creation &= 0xFFFFFFFF
    return creation if creation >= _LEAST_CREATION else creation + _LEAST_CREATION


def _base_36(number: int) -> str:
    """``integer_to_list(Number, 36)``."""
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits or "0"
