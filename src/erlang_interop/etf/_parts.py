"""What both ways of decoding build alike: atoms, lists, maps, funs, records; and how they read numbers."""

from __future__ import annotations

from struct import Struct
from typing import Any, Final

from erlang_interop.errors import DecodeError, EncodeError
from erlang_interop.terms import INTERN_LIMIT, Atom, ErlMap, Fun, ImproperList, Pid, Record, Term

_read_u32: Final = Struct(">I").unpack_from


def u16(data: bytes, pos: int) -> int:
    """Read 16 bits, big-endian."""
    return data[pos] << 8 | data[pos + 1]


def u32(data: bytes, pos: int) -> int:
    """Read 32 bits, big-endian."""
    value: int = _read_u32(data, pos)[0]
    return value


# -------------------------------------------------------------------------------------------------------------- atoms

_TRUE: Final = Atom("true")
_FALSE: Final = Atom("false")
_NIL: Final = Atom("nil")

#: Text of an atom, UTF-8, to its Python value. Bounded: a peer may invent atoms for ever.
ATOMS: Final[dict[bytes, Any]] = {b"true": True, b"false": False, b"nil": None}


#: Not ``None``, which is the value of the atom ``nil``.
UNKNOWN: Final[Any] = object()


def new_atom(raw: bytes, encoding: str) -> Any:
    """Decode the text of an atom; its errors have no offset, the caller knows that."""
    try:
        atom = Atom(raw.decode(encoding))
    except UnicodeDecodeError as error:
        raise DecodeError(f"the text of an atom is not UTF-8: {raw[:40]!r}") from error
    except EncodeError as error:
        raise DecodeError(str(error)) from error
    value: Any = atom
    if atom == _TRUE:
        value = True
    elif atom == _FALSE:
        value = False
    elif atom == _NIL:
        value = None
    if encoding == "utf-8" and len(ATOMS) < INTERN_LIMIT:
        ATOMS[raw] = value
    return value


def atom_from_bytes(raw: bytes) -> Term:
    """Return the value of the atom whose text is ``raw``: an :class:`Atom`, or ``True``, ``False``, ``None``.

    For the atom texts of a distribution header; what it returns goes into the table given to :func:`decode_terms`.

    Args:
        raw: UTF-8, without tag and length.

    Raises:
        DecodeError: Not UTF-8, or more than 255 characters. Without an offset.
    """
    if raw in ATOMS:
        return ATOMS[raw]
    return new_atom(raw, "utf-8")


def as_atom(value: Any) -> Atom:
    """Return the atom behind ``value`` where only an atom can stand: the node of a pid, the module of a fun."""
    if isinstance(value, Atom):
        return value
    if value is True:
        return _TRUE
    if value is False:
        return _FALSE
    if value is None:
        return _NIL
    raise DecodeError(f"an atom was expected, not a {type(value).__name__}")


# ---------------------------------------------------------------------------------------------------------- compounds


def make_map(items: list[Any]) -> Any:
    """Build a map of keys and values in turn: a dict, or an ErlMap where a dict would lose a key."""
    iterator = iter(items)
    try:
        plain = dict(zip(iterator, iterator, strict=True))
    except (TypeError, RecursionError):  # unhashable, or equal keys nested deeper than Python can compare
        pass
    else:
        if 2 * len(plain) == len(items):
            return plain
    iterator = iter(items)
    try:
        return ErlMap(zip(iterator, iterator, strict=True))
    except ValueError as error:
        raise DecodeError(str(error)) from error


def make_list(items: list[Any]) -> Any:
    """Build a list of its elements and, last, its tail."""
    tail = items.pop()
    if isinstance(tail, list):
        if tail:
            items.extend(tail)  # a STRING_EXT as tail is legal, if odd
        return items
    if not items:
        raise DecodeError("a LIST_EXT without elements has a tail that is no list")
    return ImproperList(items, tail)


def make_fun(head: bytes, items: list[Any]) -> Any:
    """Build a Fun. ``head`` is what stands between the tag and the module; ``items`` is the rest."""
    old_index, old_uniq, pid = items[1], items[2], items[3]
    if type(old_index) is not int or type(old_uniq) is not int or not isinstance(pid, Pid):
        raise DecodeError("NEW_FUN_EXT needs an integer, an integer and a pid behind its module")
    return Fun(
        as_atom(items[0]),
        int.from_bytes(head[21:25], "big"),
        head[5:21],
        old_index,
        old_uniq,
        head[4],
        pid,
        tuple(items[4:]),
    )


def make_record(flags: int, items: list[Any]) -> Any:
    """Build a Record of module, name, field names and values."""
    half = (len(items) - 2) // 2
    if flags > 1:
        raise DecodeError("RECORD_EXT has flags that no OTP release defines")
    names = [as_atom(name) for name in items[2 : 2 + half]]
    fields = tuple(zip(names, items[2 + half :], strict=True))
    try:
        return Record(as_atom(items[0]), as_atom(items[1]), bool(flags & 1), fields)
    except ValueError as error:
        raise DecodeError(str(error)) from error
