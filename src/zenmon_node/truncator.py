"""Exit reasons cut down to what a death certificate may carry. Pure.

A reason can be as large as the state of the process that died. ZenMonitor sends a summary of thousands of them, so its
Proxy truncates each one, by the rules below; a Local delivers whatever it receives. *Level 0* is the reason itself and
every container adds one level.

1. ``{shutdown, X}`` as the whole reason passes unchanged, whatever ``X`` is.
2. Everything at level ``depth`` or deeper becomes the atom ``truncated``, be it an atom, ``[]`` or ``{}``.
3. Atoms, pids, references, ports, integers and floats pass.
4. A binary longer than ``max_binary_size`` bytes becomes its first ``max_binary_size - 3`` bytes and ``...``. A
   bitstring becomes the same if it has that many whole bytes, else ``truncated``.
5. Tuples, proper lists and maps of up to four elements are gone through; larger ones, and improper lists, become
   ``truncated``. Keys of maps stay as they are. A map that has an atom under ``'__struct__'`` is an Elixir struct: that
   pair stays and does not count.
6. Funs become ``truncated``, and so does every term the original does not know (records of OTP 29).

The rules and the test vectors are those of ZenMonitor 2.1.0. One thing is added for Python: what cannot be sent at all
(``nan``, an object that is no term) becomes ``truncated`` too, since a summary that cannot be encoded would cost the
other monitors in it their DOWN.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import structlog

from erlang_interop.terms import Atom, BitString, ErlMap, Pid, Port, Reference

from .complaints import shortened
from .messages import TRUNCATED as TRUNCATED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from erlang_interop.terms import Term

    from .config import Settings

SHUTDOWN: Final = Atom("shutdown")
STRUCT: Final = Atom("__struct__")

#: Elements of a tuple or a list, pairs of a map: more than this many and the container goes as a whole.
MAX_ELEMENTS: Final = 4
ELLIPSIS: Final = b"..."

_log = structlog.get_logger("zenmon_node")


def truncate(reason: Term, *, depth: int = 3, max_binary_size: int = 1024) -> Term:
    """Truncate an exit reason.

    Args:
        reason: Any term.
        depth: Levels that are kept; 0 keeps only ``{shutdown, X}``.
        max_binary_size: Bytes a binary may have, at least 3; longer ones are cut to exactly this size.

    Returns:
        ``reason`` itself where nothing is to be cut, else a new term.
    """
    if type(reason) is Atom and depth > 0:
        return reason  # as nearly all are
    if type(reason) is tuple and len(reason) == 2 and reason[0] == SHUTDOWN:
        return reason
    return _truncate(reason, depth, max_binary_size)


def truncate_safely(reason: object, settings: Settings, target: object) -> Term:
    """Truncate whatever a process of any node may have ended with, as the settings say; ``target`` is for the log."""
    try:
        return truncate(reason, depth=settings.truncation_depth, max_binary_size=settings.max_binary_size)
    except Exception:
        # A process written in Python may end with any object, and an object may do anything.
        _log.exception("a reason could not be truncated", target=shortened(target))
        return TRUNCATED


def _truncate(term: Any, levels: int, max_binary_size: int) -> Any:
    """``term``, ``levels`` above the depth at which all becomes ``truncated``; recursion is bounded by it."""
    if levels <= 0:
        return TRUNCATED
    if isinstance(term, Atom | bool | int | Pid | Reference | Port) or term is None:
        return term
    if isinstance(term, bytes | str | bytearray | memoryview):
        return _truncate_binary(term, max_binary_size)
    if isinstance(term, tuple):
        if len(term) > MAX_ELEMENTS:
            return TRUNCATED
        return tuple([_truncate(element, levels - 1, max_binary_size) for element in term])
    if isinstance(term, list):
        if len(term) > MAX_ELEMENTS:
            return TRUNCATED
        return [_truncate(element, levels - 1, max_binary_size) for element in term]
    if isinstance(term, float):
        return term if math.isfinite(term) else TRUNCATED
    if isinstance(term, dict):
        pairs = _truncate_pairs(term.items(), len(term), levels, max_binary_size)
        return TRUNCATED if pairs is None else dict(pairs)
    if isinstance(term, ErlMap):
        pairs = _truncate_pairs(term.items(), len(term), levels, max_binary_size)
        return TRUNCATED if pairs is None else ErlMap(pairs)
    if isinstance(term, BitString):
        # Its last byte is a partial one, so the whole bytes are all but that.
        kept = max_binary_size - len(ELLIPSIS)
        return bytes(term.data[:kept]) + ELLIPSIS if len(term.data) - 1 >= kept else TRUNCATED
    return TRUNCATED


def _truncate_binary(term: bytes | bytearray | memoryview | str, max_binary_size: int) -> bytes | str | Atom:
    try:
        data = term.encode() if isinstance(term, str) else bytes(term)
    except UnicodeEncodeError:
        return TRUNCATED  # half of a surrogate pair
    if len(data) > max_binary_size:
        return data[: max_binary_size - len(ELLIPSIS)] + ELLIPSIS
    return term if isinstance(term, str) else data


def _truncate_pairs(
    pairs: Iterable[tuple[Any, Any]], count: int, levels: int, max_binary_size: int
) -> list[tuple[Any, Any]] | None:
    """The pairs of a map with their values truncated, or None where the map is too large."""
    if count > MAX_ELEMENTS + 1:
        return None
    kept: list[tuple[Any, Any]] = []
    counted = 0
    for key, value in pairs:
        if key == STRUCT and _is_atom(value):
            kept.append((key, value))
        else:
            kept.append((key, _truncate(value, levels - 1, max_binary_size)))
            counted += 1
    return kept if counted <= MAX_ELEMENTS else None


def _is_atom(term: Any) -> bool:
    """True for every atom: ``nil``, ``true`` and ``false`` are atoms too."""
    return term is None or isinstance(term, Atom | bool)
