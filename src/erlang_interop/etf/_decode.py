"""Bytes to terms. Manual: *External Term Format*.

The public face is :mod:`erlang_interop.etf`; ``wire/`` calls :func:`decode_terms`. Two ways through, one result:

* :func:`_fast` recurses, and looks at the end of its frame only when it is done; Python's own bounds checks keep it
  inside the buffer. Whatever displeases it, it raises something.
* :func:`_careful` then does the same work again with an explicit stack, checks every size before it is used, and either
  succeeds (a term nested more than :data:`_FAST_DEPTH` deep is legal) or raises the DecodeError that names the offset.
  It builds leaves with :func:`_fast` and compounds with the same helpers, so each form is spelled out once.

Bad input therefore costs twice the time of good input and is still linear in its length; nothing is allocated on the
word of a length field. One source for mypyc and the interpreter: an ``if MYPY:`` has the compiled reading of some bytes
first and the interpreted one second.
"""

from __future__ import annotations

import zlib
from math import isfinite
from struct import Struct
from typing import Any, Final, final

from erlang_interop._native import i64
from erlang_interop.errors import DecodeError, EncodeError
from erlang_interop.etf.tags import (
    ATOM_CACHE_REF,
    ATOM_EXT,
    ATOM_UTF8_EXT,
    BINARY_EXT,
    BIT_BINARY_EXT,
    COMPRESSED,
    EXPORT_EXT,
    FLOAT_EXT,
    INTEGER_EXT,
    LARGE_BIG_EXT,
    LARGE_TUPLE_EXT,
    LIST_EXT,
    LOCAL_EXT,
    MAP_EXT,
    NAMES,
    NEW_FLOAT_EXT,
    NEW_FUN_EXT,
    NEW_PID_EXT,
    NEW_PORT_EXT,
    NEW_REFERENCE_EXT,
    NEWER_REFERENCE_EXT,
    NIL_EXT,
    PID_EXT,
    PORT_EXT,
    RECORD_EXT,
    REFERENCE_EXT,
    SMALL_ATOM_EXT,
    SMALL_ATOM_UTF8_EXT,
    SMALL_BIG_EXT,
    SMALL_INTEGER_EXT,
    SMALL_TUPLE_EXT,
    STRING_EXT,
    V4_PORT_EXT,
    VERSION,
)
from erlang_interop.terms import (
    INTERN_LIMIT,
    Atom,
    BitString,
    ErlMap,
    Export,
    Fun,
    ImproperList,
    LocalTerm,
    Pid,
    Port,
    Record,
    Reference,
    Term,
)

__all__ = ["MAX_DEPTH", "MAX_SIZE", "atom_from_bytes", "decode", "decode_terms"]

#: True where mypyc compiled this file. mypy and mypyc take the name itself for true and leave the other branches out.
MYPY: Final = not __file__.endswith(".py")

#: Nesting allowed by default, in terms.
MAX_DEPTH: Final = 10_000
#: Size allowed by default to a term after decompression, in bytes. Its Python values may take 64 times as much.
MAX_SIZE: Final = 16 * 1024 * 1024

#: The recursive way goes so deep, far from the end of any stack.
_FAST_DEPTH: Final = 100

_read_u32: Final = Struct(">I").unpack_from
_read_i32: Final = Struct(">i").unpack_from
_read_three_u32: Final = Struct(">III").unpack_from
_read_f64: Final = Struct(">d").unpack_from

if MYPY:
    from librt.strings import read_f64_be, read_i16_be, read_i32_be

    def _u16(data: bytes, pos: i64) -> i64:
        return i64(read_i16_be(data, pos)) & 0xFFFF

    def _u32(data: bytes, pos: i64) -> i64:
        return i64(read_i32_be(data, pos)) & 0xFFFFFFFF
else:

    def _u16(data: bytes, pos: int) -> int:
        return data[pos] << 8 | data[pos + 1]

    def _u32(data: bytes, pos: int) -> int:
        return _read_u32(data, pos)[0]


# -------------------------------------------------------------------------------------------------------------- atoms

_TRUE: Final = Atom("true")
_FALSE: Final = Atom("false")
_NIL: Final = Atom("nil")

#: Text of an atom, UTF-8, to its Python value. Bounded: a peer may invent atoms for ever.
_atoms: Final[dict[bytes, Any]] = {b"true": True, b"false": False, b"nil": None}


#: Not ``None``, which is the value of the atom ``nil``.
_UNKNOWN: Final[Any] = object()


def _new_atom(raw: bytes, encoding: str) -> Any:
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
    if encoding == "utf-8" and len(_atoms) < INTERN_LIMIT:
        _atoms[raw] = value
    return value


def atom_from_bytes(raw: bytes) -> Term:
    """Return the value of the atom whose text is ``raw``: an :class:`Atom`, or ``True``, ``False``, ``None``.

    For the atom texts of a distribution header; what it returns goes into the table given to :func:`decode_terms`.

    Args:
        raw: UTF-8, without tag and length.

    Raises:
        DecodeError: Not UTF-8, or more than 255 characters. Without an offset.
    """
    if raw in _atoms:
        return _atoms[raw]
    return _new_atom(raw, "utf-8")


def _as_atom(value: Any) -> Atom:
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


def _make_map(items: list[Any]) -> Any:
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


def _make_list(items: list[Any]) -> Any:
    """Build a list of its elements and, last, its tail."""
    tail = items.pop()
    if isinstance(tail, list):
        if tail:
            items.extend(tail)  # a STRING_EXT as tail is legal, if odd
        return items
    if not items:
        raise DecodeError("a LIST_EXT without elements has a tail that is no list")
    return ImproperList(items, tail)


def _make_fun(head: bytes, items: list[Any]) -> Any:
    """Build a Fun. ``head`` is what stands between the tag and the module; ``items`` is the rest."""
    old_index, old_uniq, pid = items[1], items[2], items[3]
    if type(old_index) is not int or type(old_uniq) is not int or not isinstance(pid, Pid):
        raise DecodeError("NEW_FUN_EXT needs an integer, an integer and a pid behind its module")
    return Fun(
        _as_atom(items[0]),
        int.from_bytes(head[21:25], "big"),
        head[5:21],
        old_index,
        old_uniq,
        head[4],
        pid,
        tuple(items[4:]),
    )


def _make_record(flags: i64, items: list[Any]) -> Any:
    """Build a Record of module, name, field names and values."""
    half = (len(items) - 2) // 2
    if flags > 1:
        raise DecodeError("RECORD_EXT has flags that no OTP release defines")
    names = [_as_atom(name) for name in items[2 : 2 + half]]
    fields = tuple(zip(names, items[2 + half :], strict=True))
    try:
        return Record(_as_atom(items[0]), _as_atom(items[1]), bool(flags & 1), fields)
    except ValueError as error:
        raise DecodeError(str(error)) from error


# ------------------------------------------------------------------------------------------------------- the fast way


@final
class _GiveUp(Exception):
    """Sends :func:`decode_terms` the careful way."""


def _fast(data: bytes, pos: i64, count: i64, atoms: list[Any], out: list[Any], depth: i64) -> i64:
    """Append ``count`` terms from ``pos`` on to ``out``; return the position behind them.

    Raises anything when something is wrong; may read past the end of its frame, but never past ``data``. The tests
    stand in the order of how often a tag occurs on a distribution channel.
    """
    k: i64
    if depth < 0:
        raise _GiveUp
    for _ in range(count):
        tag: i64 = data[pos]
        if tag == ATOM_CACHE_REF:
            out.append(atoms[data[pos + 1]])
            pos += 2
        elif tag == SMALL_TUPLE_EXT:
            items: list[Any] = []
            pos = _fast(data, pos + 2, data[pos + 1], atoms, items, depth - 1)
            out.append(tuple(items))
        elif tag == NEW_PID_EXT:
            if data[pos + 1] == ATOM_CACHE_REF:
                node = atoms[data[pos + 2]]
                pos += 3
            elif data[pos + 1] == SMALL_ATOM_UTF8_EXT:
                k = data[pos + 2]
                pos += 3
                raw = data[pos : pos + k]
                node = _atoms.get(raw, _UNKNOWN)
                if node is _UNKNOWN:
                    node = _new_atom(raw, "utf-8")
                pos += k
            else:
                items = []
                pos = _fast(data, pos + 1, 1, atoms, items, depth - 1)
                node = items[0]
            if type(node) is not Atom:
                node = _as_atom(node)
            if MYPY:
                out.append(Pid(node, _u32(data, pos), _u32(data, pos + 4), _u32(data, pos + 8)))
            else:
                out.append(Pid(node, *_read_three_u32(data, pos)))
            pos += 12
        elif tag == SMALL_INTEGER_EXT:
            out.append(data[pos + 1])
            pos += 2
        elif tag == SMALL_ATOM_UTF8_EXT:
            k = data[pos + 1]
            pos += 2
            raw = data[pos : pos + k]
            node = _atoms.get(raw, _UNKNOWN)
            if node is _UNKNOWN:
                node = _new_atom(raw, "utf-8")
            out.append(node)
            pos += k
        elif tag == BINARY_EXT:
            k = _u32(data, pos + 1) if MYPY else _read_u32(data, pos + 1)[0]
            pos += 5
            out.append(data[pos : pos + k])
            pos += k
        elif tag == LIST_EXT:
            k = _u32(data, pos + 1) if MYPY else _read_u32(data, pos + 1)[0]
            items = []
            pos = _fast(data, pos + 5, k, atoms, items, depth - 1)
            if data[pos] == NIL_EXT:
                pos += 1
                out.append(items)
            elif data[pos] == LIST_EXT:
                raise _GiveUp  # a list in pieces is rare, and putting them together over and over is slow
            else:
                pos = _fast(data, pos, 1, atoms, items, depth - 1)
                out.append(_make_list(items))
        elif tag == NIL_EXT:
            items = []
            out.append(items)
            pos += 1
        elif tag == INTEGER_EXT:
            if MYPY:
                out.append(i64(read_i32_be(data, pos + 1)))
            else:
                out.append(_read_i32(data, pos + 1)[0])
            pos += 5
        elif tag == NEWER_REFERENCE_EXT:
            k = 4 * _u16(data, pos + 1)
            if data[pos + 3] == ATOM_CACHE_REF:
                node = atoms[data[pos + 4]]
                pos += 5
            elif data[pos + 3] == SMALL_ATOM_UTF8_EXT:
                size: i64 = data[pos + 4]
                pos += 5
                raw = data[pos : pos + size]
                node = _atoms.get(raw, _UNKNOWN)
                if node is _UNKNOWN:
                    node = _new_atom(raw, "utf-8")
                pos += size
            else:
                items = []
                pos = _fast(data, pos + 3, 1, atoms, items, depth - 1)
                node = items[0]
            if k == 0 or k > 20:
                raise DecodeError("a reference has one to five words")
            if type(node) is not Atom:
                node = _as_atom(node)
            if MYPY:
                out.append(Reference(node, _u32(data, pos), data[pos + 4 : pos + 4 + k]))
            else:
                out.append(Reference(node, _read_u32(data, pos)[0], data[pos + 4 : pos + 4 + k]))
            pos += 4 + k
        elif tag == MAP_EXT:
            items = []
            pos = _fast(data, pos + 5, 2 * _u32(data, pos + 1), atoms, items, depth - 1)
            out.append(_make_map(items))
        elif tag == STRING_EXT:
            k = _u16(data, pos + 1)
            pos += 3
            out.append(list(data[pos : pos + k]))
            pos += k
        elif tag == NEW_FLOAT_EXT:
            number: float
            number = read_f64_be(data, pos + 1) if MYPY else _read_f64(data, pos + 1)[0]
            if number - number != 0.0:
                raise DecodeError("a float is nan or infinite: Erlang has no such float")
            out.append(number)
            pos += 9
        elif tag == SMALL_BIG_EXT:
            k = data[pos + 1]
            big = int.from_bytes(data[pos + 3 : pos + 3 + k], "little")
            out.append(-big if data[pos + 2] else big)
            pos += 3 + k
        elif tag == LARGE_TUPLE_EXT:
            items = []
            pos = _fast(data, pos + 5, _u32(data, pos + 1), atoms, items, depth - 1)
            out.append(tuple(items))
        elif tag == NEW_FUN_EXT:
            head = data[pos + 1 : pos + 30]
            items = []
            start: i64 = pos + 1
            pos = _fast(data, pos + 30, 4 + _u32(data, pos + 26), atoms, items, depth - 1)
            if pos != start + _u32(head, 0):
                raise DecodeError("NEW_FUN_EXT is not as long as it says")
            out.append(_make_fun(head, items))
        elif tag == RECORD_EXT:
            items = []
            k = data[pos + 5]
            pos = _fast(data, pos + 6, 2 + 2 * _u32(data, pos + 1), atoms, items, depth - 1)
            out.append(_make_record(k, items))
        else:
            pos = _rare(data, pos, tag, atoms, out, depth)
    return pos


def _rare(data: bytes, pos: i64, tag: i64, atoms: list[Any], out: list[Any], depth: i64) -> i64:
    """Go on where :func:`_fast` ends: the leaves that are seldom seen, and those only older nodes send."""
    k: i64
    items: list[Any] = []
    if tag == ATOM_UTF8_EXT:
        k = _u16(data, pos + 1)
        pos += 3
        out.append(atom_from_bytes(data[pos : pos + k]))
    elif tag == SMALL_ATOM_EXT:
        k = data[pos + 1]
        pos += 2
        out.append(_new_atom(data[pos : pos + k], "latin-1"))
    elif tag == ATOM_EXT:
        k = _u16(data, pos + 1)
        pos += 3
        out.append(_new_atom(data[pos : pos + k], "latin-1"))
    elif tag == LARGE_BIG_EXT:
        k = _u32(data, pos + 1)
        big = int.from_bytes(data[pos + 6 : pos + 6 + k], "little")
        out.append(-big if data[pos + 5] else big)
        pos += 6
    elif tag == BIT_BINARY_EXT:
        k = _u32(data, pos + 1)
        bits: i64 = data[pos + 5]
        pos += 6
        raw = data[pos : pos + k]
        if bits > 8 or (k == 0 and bits != 0) or (k != 0 and bits == 0):
            raise DecodeError("BIT_BINARY_EXT counts more bits, or fewer, than its last byte has")
        out.append(BitString(raw, bits) if 0 < bits < 8 else raw)
    elif tag == EXPORT_EXT:
        pos = _fast(data, pos + 1, 2, atoms, items, depth - 1)
        if data[pos] != SMALL_INTEGER_EXT:
            raise DecodeError("the arity of EXPORT_EXT is no byte")
        out.append(Export(_as_atom(items[0]), _as_atom(items[1]), i64(data[pos + 1])))
        k = 2
    elif tag == V4_PORT_EXT:
        pos = _fast(data, pos + 1, 1, atoms, items, depth - 1)
        out.append(Port(_as_atom(items[0]), int.from_bytes(data[pos : pos + 8], "big"), _u32(data, pos + 8)))
        k = 12
    elif tag == NEW_PORT_EXT:
        pos = _fast(data, pos + 1, 1, atoms, items, depth - 1)
        out.append(Port(_as_atom(items[0]), _u32(data, pos), _u32(data, pos + 4)))
        k = 8
    elif tag == PORT_EXT:
        pos = _fast(data, pos + 1, 1, atoms, items, depth - 1)
        out.append(Port(_as_atom(items[0]), _u32(data, pos), i64(data[pos + 4])))
        k = 5
    elif tag == PID_EXT:
        pos = _fast(data, pos + 1, 1, atoms, items, depth - 1)
        out.append(Pid(_as_atom(items[0]), _u32(data, pos), _u32(data, pos + 4), i64(data[pos + 8])))
        k = 9
    elif tag == REFERENCE_EXT:
        pos = _fast(data, pos + 1, 1, atoms, items, depth - 1)
        out.append(Reference(_as_atom(items[0]), i64(data[pos + 4]), data[pos : pos + 4]))
        k = 5
    elif tag == NEW_REFERENCE_EXT:
        k = 4 * _u16(data, pos + 1)
        if k == 0 or k > 20:
            raise DecodeError("a reference has one to five words")
        pos = _fast(data, pos + 3, 1, atoms, items, depth - 1)
        out.append(Reference(_as_atom(items[0]), i64(data[pos]), data[pos + 1 : pos + 1 + k]))
        k += 1
    elif tag == FLOAT_EXT:
        try:
            number = float(data[pos + 1 : pos + 32].rstrip(b"\0"))
        except ValueError as error:
            raise DecodeError("FLOAT_EXT holds no decimal number") from error
        if not isfinite(number):
            raise DecodeError("a float is nan or infinite: Erlang has no such float")
        out.append(number)
        pos += 1
        k = 31
    else:
        raise _GiveUp
    return pos + k


# ---------------------------------------------------------------------------------------------------- the careful way


@final
class _Open:
    """A compound that :func:`_careful` has begun."""

    def __init__(self, tag: i64, start: i64, missing: i64) -> None:
        self.tag: i64 = tag
        self.start: i64 = start
        self.missing: i64 = missing  # parts still to come
        self.items: list[Any] = []


def _need(size: i64, pos: i64, end: i64, tag: i64) -> None:
    """Refuse a form of ``size`` bytes at ``pos`` that does not fit."""
    if size > end - pos:
        name = NAMES.get(int(tag), "term")
        raise DecodeError(f"truncated {name}: {size} bytes needed, {end - pos} left", int(pos))


def _atom_size(data: bytes, pos: i64, end: i64, atoms: list[Any]) -> i64:
    """Return the size of the atom at ``pos``, or refuse what stands there."""
    _need(1, pos, end, 0)
    tag: i64 = data[pos]
    if tag == ATOM_CACHE_REF:
        _need(2, pos, end, tag)
        if data[pos + 1] >= len(atoms):
            raise DecodeError(
                f"ATOM_CACHE_REF {data[pos + 1]}, but the distribution header lists {len(atoms)} atoms", int(pos)
            )
        return 2
    if tag in (SMALL_ATOM_UTF8_EXT, SMALL_ATOM_EXT):
        _need(2, pos, end, tag)
        size: i64 = 2 + i64(data[pos + 1])
    elif tag in (ATOM_UTF8_EXT, ATOM_EXT):
        _need(3, pos, end, tag)
        size = 3 + _u16(data, pos + 1)
    else:
        raise DecodeError(f"an atom was expected, not {NAMES.get(int(tag), f'tag {tag}')}", int(pos))
    _need(size, pos, end, tag)
    return size


def _leaf_size(data: bytes, pos: i64, end: i64, tag: i64, atoms: list[Any]) -> i64:
    """Return the size of the leaf at ``pos``, refusing one that does not fit; the value is not looked at."""
    size: i64
    if tag == SMALL_INTEGER_EXT:
        size = 2
    elif tag == INTEGER_EXT:
        size = 5
    elif tag == NEW_FLOAT_EXT:
        size = 9
    elif tag == FLOAT_EXT:
        size = 32
    elif tag == NIL_EXT:
        size = 1
    elif tag == STRING_EXT:
        _need(3, pos, end, tag)
        size = 3 + _u16(data, pos + 1)
    elif tag == SMALL_BIG_EXT:
        _need(3, pos, end, tag)
        size = 3 + i64(data[pos + 1])
    elif tag in (LARGE_BIG_EXT, BIT_BINARY_EXT):
        _need(6, pos, end, tag)
        size = 6 + _u32(data, pos + 1)
    elif tag == BINARY_EXT:
        _need(5, pos, end, tag)
        size = 5 + _u32(data, pos + 1)
    elif tag in (NEW_PID_EXT, V4_PORT_EXT):
        size = 13 + _atom_size(data, pos + 1, end, atoms)
    elif tag == NEW_PORT_EXT:
        size = 9 + _atom_size(data, pos + 1, end, atoms)
    elif tag == PID_EXT:
        size = 10 + _atom_size(data, pos + 1, end, atoms)
    elif tag in (PORT_EXT, REFERENCE_EXT):
        size = 6 + _atom_size(data, pos + 1, end, atoms)
    elif tag in (NEWER_REFERENCE_EXT, NEW_REFERENCE_EXT):
        _need(3, pos, end, tag)
        size = 3 + 4 * _u16(data, pos + 1) + _atom_size(data, pos + 3, end, atoms)
        size += 4 if tag == NEWER_REFERENCE_EXT else 1
    elif tag == EXPORT_EXT:
        size = 1 + _atom_size(data, pos + 1, end, atoms)
        size += _atom_size(data, pos + size, end, atoms)
        size += 2
        _need(size, pos, end, tag)
        if data[pos + size - 2] != SMALL_INTEGER_EXT:
            raise DecodeError("the arity of EXPORT_EXT is no byte", int(pos))
    elif tag in {ATOM_CACHE_REF, SMALL_ATOM_UTF8_EXT, ATOM_UTF8_EXT, SMALL_ATOM_EXT, ATOM_EXT}:
        size = _atom_size(data, pos, end, atoms)
    elif int(tag) in NAMES:
        raise DecodeError(f"{NAMES[int(tag)]} cannot stand here", int(pos))
    else:
        raise DecodeError(f"unknown tag {tag}", int(pos))
    _need(size, pos, end, tag)
    return size


def _close(compound: _Open, data: bytes, pos: i64) -> Any:
    """Build a compound all of whose parts have come; ``pos`` is behind the last."""
    tag = compound.tag
    start = compound.start
    items = compound.items
    if tag == LIST_EXT:
        return _make_list(items)
    if tag == MAP_EXT:
        return _make_map(items)
    if tag == NEW_FUN_EXT:
        if pos != start + 1 + _u32(data, start + 1):
            raise DecodeError("NEW_FUN_EXT is not as long as it says")
        return _make_fun(data[start + 1 : start + 30], items)
    if tag == RECORD_EXT:
        return _make_record(data[start + 5], items)
    return tuple(items)


def _careful(data: bytes, pos: i64, end: i64, count: i64, atoms: list[Any], out: list[Any], max_depth: i64) -> i64:
    """Do what :func:`_fast` does, within ``[pos, end)`` and with every check."""
    stack: list[_Open] = []
    top = _Open(0, pos, count)
    top.items = out
    while True:
        while top.missing == 0:
            if not stack:
                return pos
            done = top
            top = stack.pop()
            try:
                top.items.append(_close(done, data, pos))
            except DecodeError as error:
                raise DecodeError(error.message, int(done.start)) from error
        top.missing -= 1
        _need(1, pos, end, 0)
        tag: i64 = data[pos]
        head: i64
        parts: i64
        if tag == SMALL_TUPLE_EXT:
            head = 2
            _need(head, pos, end, tag)
            parts = data[pos + 1]
        elif tag == LARGE_TUPLE_EXT:
            head = 5
            _need(head, pos, end, tag)
            parts = _u32(data, pos + 1)
        elif tag == LIST_EXT:
            head = 5
            _need(head, pos, end, tag)
            parts = _u32(data, pos + 1) + 1
        elif tag == MAP_EXT:
            head = 5
            _need(head, pos, end, tag)
            parts = _u32(data, pos + 1) * 2
        elif tag == NEW_FUN_EXT:
            head = 30
            _need(head, pos, end, tag)
            parts = _u32(data, pos + 26) + 4
        elif tag == RECORD_EXT:
            head = 6
            _need(head, pos, end, tag)
            parts = _u32(data, pos + 1) * 2 + 2
        else:
            size = _leaf_size(data, pos, end, tag, atoms)
            try:
                _fast(data, pos, 1, atoms, top.items, 1)
            except DecodeError as error:
                raise DecodeError(error.message, int(pos)) from error
            pos += size
            continue
        # Each part takes a byte at least.
        if parts > end - pos - head:
            raise DecodeError(
                f"truncated {NAMES[int(tag)]}: {parts} parts announced, {end - pos - head} bytes left", int(pos)
            )
        if tag == LIST_EXT and top.tag == LIST_EXT and top.missing == 0 and top.items:
            # The tail of a list is a list: that is one list, whose elements go on here.
            top.missing = parts
            pos += head
            continue
        if len(stack) >= max_depth:
            raise DecodeError(f"nested deeper than {max_depth} terms", int(pos))
        stack.append(top)
        top = _Open(tag, pos, parts)
        pos += head


def decode_terms(
    data: bytes, pos: int, end: int, count: int, atoms: list[Any], max_depth: int = MAX_DEPTH
) -> tuple[list[Any], int]:
    """Decode ``count`` terms that follow each other without version bytes: the inside of a distribution frame.

    Args:
        data: The buffer; only ``data[pos:end]`` is looked at, and it is not copied except for binaries.
        pos: Where the first term starts.
        end: Where the frame ends. Bytes that are left over are not an error: compare the returned position.
        count: How many terms.
        atoms: What ``ATOM_CACHE_REF i`` stands for: values of :func:`atom_from_bytes`, in the header's order.
        max_depth: Nesting allowed, in terms.

    Returns:
        The terms, and the position behind the last of them.

    Raises:
        DecodeError: Truncated, malformed, or too deep; ``.offset`` counts from the start of ``data``. Nothing else is
            ever raised.
    """
    out: list[Any] = []
    try:
        behind = _fast(data, pos, count, atoms, out, min(_FAST_DEPTH, max_depth))
        if behind <= end:
            return out, behind
    except Exception:
        pass  # whatever it was: the careful way either finds it again and names it, or succeeds
    out = []
    behind = _careful(data, pos, end, count, atoms, out, max_depth)
    return out, behind


def decode(
    data: bytes | bytearray | memoryview, *, offset: int = 0, max_depth: int = MAX_DEPTH, max_size: int = MAX_SIZE
) -> tuple[Term, int]:
    """Decode one external term, as ``term_to_binary/1,2`` makes it. Wire: ``131, Tag, ...``; the version is required.

    Args:
        data: Read from ``offset``; what follows the term is left alone.
        offset: Where the version byte stands.
        max_depth: Nesting allowed, in terms.
        max_size: Size allowed after decompression, in bytes. The size of ``data`` is the caller's to limit.

    Returns:
        The term, and the offset just behind it.

    Raises:
        DecodeError: Truncated, malformed, or over a limit; ``.offset`` is where. Nothing else is ever raised.
    """
    buffer = data if isinstance(data, bytes) else bytes(data)
    if not 0 <= offset < len(buffer):
        raise DecodeError("no term: the data ends before it starts", offset)
    if buffer[offset] != VERSION:
        raise DecodeError(f"an external term starts with {VERSION}, not with {buffer[offset]}", offset)
    pos = offset + 1
    if pos < len(buffer):
        tag = buffer[pos]
        if tag == COMPRESSED:
            return _decode_compressed(buffer, pos, max_depth, max_size)
        if tag == LOCAL_EXT:
            # Nothing outside the node that made it knows where it ends: it is all the rest.
            return LocalTerm(buffer[pos + 1 :]), len(buffer)
    terms, end = decode_terms(buffer, pos, len(buffer), 1, [], max_depth)
    return terms[0], end


def _decode_compressed(data: bytes, pos: int, max_depth: int, max_size: int) -> tuple[Term, int]:
    """Decode ``80, Size:32, Zlib``. Never inflates more than the size announced, nor more than ``max_size``."""
    _need(5, pos, len(data), COMPRESSED)
    size = int(_u32(data, pos + 1))
    if size > max_size:
        raise DecodeError(f"the compressed term announces {size} bytes, more than the {max_size} allowed", pos)
    inflater = zlib.decompressobj()
    try:
        inflated = inflater.decompress(memoryview(data)[pos + 5 :], size + 1)
    except zlib.error as error:
        raise DecodeError(f"the compressed term cannot be inflated: {error}", pos) from error
    if len(inflated) != size or not inflater.eof:
        raise DecodeError(f"the compressed term is not the {size} bytes it announces", pos)
    try:
        terms, end = decode_terms(inflated, 0, size, 1, [], max_depth)
    except DecodeError as error:
        raise DecodeError(f"inside the compressed term, at its byte {error.offset}: {error.message}", pos) from error
    if end != size:
        raise DecodeError(f"the compressed term has {size - end} bytes too many", pos)
    return terms[0], len(data) - len(inflater.unused_data)
