"""A term as JSON, for ``call --json``: as ``json:encode`` of OTP 27 has it, and a way for what that refuses.

==================================  =======================================================================
number, ``true``, ``false``         the same
``nil``, ``null``                   ``null``
any other atom                      a string
binary                              a string, if it is UTF-8
list, tuple                         an array; ``"abc"`` is a list of numbers
map                                 an object; what is neither atom nor binary as a key is written as in Erlang
anything else                       a string, written as in Erlang: ``"<beam@127.0.0.1.85.0>"``
==================================  =======================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from erlang_interop import Atom
from erlang_interop.etf.text import format_term

if TYPE_CHECKING:
    from erlang_interop import Term

_NULL: Final = Atom("null")


def jsonable(term: Term) -> Any:
    """``term`` as what :mod:`json` takes. It is for reading: several terms have the same JSON."""
    if term is None or term == _NULL:
        return None
    if isinstance(term, bool | int | float):
        return term
    if isinstance(term, list | tuple):
        return [jsonable(each) for each in term]
    if isinstance(term, Mapping):
        return {_key(key): jsonable(value) for key, value in term.items()}
    return _text(term)


def _key(key: Term) -> str:
    if key is None or isinstance(key, bool):
        return format_term(key)
    return _text(key)


def _text(term: Term) -> str:
    if isinstance(term, Atom):
        return term.name
    if isinstance(term, bytes):
        try:
            return term.decode()
        except UnicodeDecodeError:
            pass
    return format_term(term)
