"""Erlang's order of terms: ``sorted(terms, key=order_key)`` is ``lists:sort(Terms)``.

.. code-block:: text

    number < atom < reference < fun < port < pid < tuple < native record < map < [] < list < bit string

Numbers are compared by value, so ``1`` and ``1.0`` are equal here, except in the keys of maps, where any integer comes
before any float.

Source: Erlang reference manual, "Expressions", Term Comparisons; erts/emulator/beam/utils.c, ``erts_cmp_compound``,
for identifiers: a pid by serial, number, node and creation.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from ..terms import Atom, BitString, ErlMap, Export, Fun, ImproperList, Pid, Port, Record, Reference, Term

if TYPE_CHECKING:
    from collections.abc import Iterable

(_NUMBER, _ATOM, _REFERENCE, _FUN, _PORT, _PID, _TUPLE, _RECORD, _MAP, _NIL, _LIST, _BITS) = range(12)

#: Stands before each element of a list: what is behind an element may be [], the next one, or any other term.
_CONS: Final[Any] = object()


def pid_key(pid: Pid) -> tuple[int, int, str, int]:
    """The order of pids alone."""
    return pid.serial, pid.id, pid.node.name, pid.creation


def sorted_pids(pids: Iterable[Pid]) -> list[Pid]:
    """Pids in their order: four sorts by plain values, in half of the time of one by :func:`pid_key`."""
    found = list(pids)
    for part in ("creation", "node.name", "id", "serial"):
        found.sort(key=attrgetter(part))
    return found


def order_key(term: Term) -> tuple[Any, ...]:
    """What sorts as ``term`` does; equal where Erlang's ``==`` is true.

    Raises:
        TypeError: ``term`` is no term, or one that only the node that made it can read (``LocalTerm``).
    """
    return _key(term, numbers_by_type=False)


def _key(root: Term, *, numbers_by_type: bool) -> tuple[Any, ...]:
    """The key, flat: of a compound its kind and size, then the keys of its parts one after the other.

    Up to where two of them differ they have the same shape, so like is compared with like. Tuples in tuples could not
    be compared to the depth that terms may have.
    """
    key: list[Any] = []
    todo = [root]
    while todo:
        term = todo.pop()
        if term is _CONS:
            key.append(_LIST)
        elif isinstance(term, list):
            if term:
                _put_list(todo, term, [])
            else:
                key.append(_NIL)
        elif isinstance(term, ImproperList):
            _put_list(todo, term.elements, term.tail)
        elif isinstance(term, tuple):
            key += (_TUPLE, len(term))
            todo.extend(reversed(term))
        elif isinstance(term, Record):
            names = [name.name for name, _ in term.fields]
            key += (_RECORD, term.module.name, term.name.name, len(names), *names)
            todo.extend([value for _, value in reversed(term.fields)])
        elif isinstance(term, dict | ErlMap):
            key += (_MAP, len(term))
            pairs = sorted([(_key(name, numbers_by_type=True), value) for name, value in term.items()], key=_first)
            for name, _ in pairs:
                key += name
            todo.extend([value for _, value in reversed(pairs)])
        elif isinstance(term, Fun):
            key += (_FUN, 0, term.module.name, term.index, term.uniq, len(term.free_vars))
            todo.extend(reversed(term.free_vars))
        elif numbers_by_type and isinstance(term, int | float) and not isinstance(term, bool):
            key += (_NUMBER, isinstance(term, float), term)
        else:
            key += _leaf(term)
    return tuple(key)


def _put_list(todo: list[Any], elements: list[Any], tail: Term) -> None:
    todo.append(tail)
    for element in reversed(elements):
        todo += (element, _CONS)


def _first(pair: tuple[Any, Any]) -> Any:
    return pair[0]


def _leaf(term: Term) -> tuple[Any, ...]:
    """The key of a term without parts."""
    if isinstance(term, Atom):
        return _ATOM, term.name
    if term is None:
        return _ATOM, "nil"
    if isinstance(term, bool):
        return _ATOM, "true" if term else "false"
    if isinstance(term, int | float):
        return _NUMBER, term
    if isinstance(term, str):
        term = term.encode()
    if isinstance(term, bytes):
        return _BITS, term, 8 * len(term)
    if isinstance(term, Pid):
        return _PID, *pid_key(term)
    if isinstance(term, Reference):
        # As numbers: what one has less of words is zero. The wire has the least significant one first.
        return _REFERENCE, term.node.name, term.creation, sum(word << 32 * at for at, word in enumerate(term.ids))
    if isinstance(term, Port):
        return _PORT, term.node.name, term.creation, term.id
    if isinstance(term, Export):
        return _FUN, 1, term.module.name, term.function.name, term.arity
    if isinstance(term, BitString):
        return _BITS, term.data, len(term)
    raise TypeError(f"no order is known for {type(term).__name__}")
