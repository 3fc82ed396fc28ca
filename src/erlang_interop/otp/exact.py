"""Terms as keys, told apart as Erlang's ``=:=`` does: names of groups, of ``global``'s processes and locks.

Python has ``1 == 1.0 == True``, and no dict for keys that are lists or maps.
"""

from __future__ import annotations

from typing import Any, Final

from ..terms import Atom, ErlMap, Pid, Reference, Term

#: Terms that Python tells apart as Erlang does.
_PLAIN: Final = (Atom, Pid, Reference)


class Exact:
    """A term that can be a key.

    Attributes:
        term: The term itself.

    Raises:
        TypeError: It is no term.
    """

    __slots__ = ("_key", "term")

    def __init__(self, term: Term) -> None:
        self.term = term
        self._key: Any = term if type(term) in _PLAIN else ErlMap([(term, None)]).identity

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Exact) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.term!r})"
