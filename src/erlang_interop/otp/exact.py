"""Terms as keys, told apart as Erlang's ``=:=`` does: names of groups, of ``global``'s processes and locks, of syn's.

Python has ``1 == 1.0 == True``, and no dict for keys that are lists or maps.
"""

from __future__ import annotations

from typing import Any, Final

from ..etf._decode import decode
from ..etf._encode import TermWriter
from ..terms import Atom, ErlMap, Pid, Reference, Term

#: Terms that Python tells apart as Erlang does, also as parts of a tuple.
_PLAIN: Final = frozenset((Atom, Pid, Reference, int, bytes))
#: Atoms that arrive as something else.
_NOT_ATOMS: Final = frozenset(("true", "false", "nil"))


def exact_key(term: Term) -> Any:
    """A key for a dict: two terms have the same exactly when they are ``=:=``; most are their own.

    Args:
        term: As it came from a node, or from :func:`carried`.

    Raises:
        TypeError: It is no term.
    """
    kind = type(term)
    if kind in _PLAIN:
        return term
    if kind is tuple:
        for part in term:
            if type(part) not in _PLAIN:
                return tuple([_key_of_part(part) for part in term])
        return term
    return _key_of_part(term)


def _key_of_part(term: Term) -> Any:
    if type(term) in _PLAIN:
        return term
    # No term is a tuple with a class in it.
    return term.encode() if type(term) is str else (ErlMap, ErlMap([(term, None)]).identity)


def _is_carried_as_it_is(term: Term) -> bool:
    """Whether it is the same on its way, and never refused: most names, without a look at their bytes."""
    kind = type(term)
    return term.name not in _NOT_ATOMS if kind is Atom else kind in _PLAIN


def carried(term: Term, why: str = "") -> Term:
    """``term`` as the nodes that it is sent to will see it: a ``str`` is ``bytes``, ``Atom("true")`` is ``True``.

    It has no part in common with ``term`` that can be changed.

    Args:
        term: What a user of this node gives.
        why: If not empty, why no native record may be in it, which only OTP 29 understands; for the error.

    Raises:
        EncodeError: No external term can carry it, or it is too deep to be a part of a message.
    """
    kind = type(term)
    if _is_carried_as_it_is(term):
        return term
    if kind is str and term.isascii():
        return term.encode()
    if kind is tuple:
        for part in term:
            if not _is_carried_as_it_is(part):
                break
        else:
            return term
    writer = TermWriter(why)
    writer.write(b"\x83")
    # As deep as it is in a message that lists it with others.
    writer.write_term((([(term, [])],),))
    (([(seen, _)],),), _end = decode(writer.getvalue())
    return seen


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
        self._key: Any = exact_key(term)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Exact) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.term!r})"
