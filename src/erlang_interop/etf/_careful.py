"""The careful way to decode: an explicit stack, and every size checked before it is used.

:mod:`erlang_interop.etf._decode` says when it is used. Leaves are built by
:func:`~erlang_interop.etf._fast.decode_fast` once their size is known to fit.
"""

from __future__ import annotations

from typing import Any, final

from erlang_interop.errors import DecodeError
from erlang_interop.etf._fast import decode_fast
from erlang_interop.etf._parts import (
    make_fun,
    make_list,
    make_map,
    make_record,
    u16,
    u32,
)
from erlang_interop.etf.tags import (
    ATOM_CACHE_REF,
    ATOM_EXT,
    ATOM_UTF8_EXT,
    BINARY_EXT,
    BIT_BINARY_EXT,
    EXPORT_EXT,
    FLOAT_EXT,
    INTEGER_EXT,
    LARGE_BIG_EXT,
    LARGE_TUPLE_EXT,
    LIST_EXT,
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
)


@final
class _Open:
    """A compound that :func:`decode_carefully` has begun."""

    def __init__(self, tag: int, start: int, missing: int) -> None:
        self.tag: int = tag
        self.start: int = start
        self.missing: int = missing  # parts still to come
        self.items: list[Any] = []


def need(size: int, pos: int, end: int, tag: int) -> None:
    """Refuse a form of ``size`` bytes at ``pos`` that does not fit."""
    if size > end - pos:
        name = NAMES.get(tag, "term")
        raise DecodeError(f"truncated {name}: {size} bytes needed, {end - pos} left", pos)


def _atom_size(data: bytes, pos: int, end: int, atoms: list[Any]) -> int:
    """Return the size of the atom at ``pos``, or refuse what stands there."""
    need(1, pos, end, 0)
    tag: int = data[pos]
    if tag == ATOM_CACHE_REF:
        need(2, pos, end, tag)
        if data[pos + 1] >= len(atoms):
            raise DecodeError(
                f"ATOM_CACHE_REF {data[pos + 1]}, but the distribution header lists {len(atoms)} atoms", pos
            )
        return 2
    if tag in (SMALL_ATOM_UTF8_EXT, SMALL_ATOM_EXT):
        need(2, pos, end, tag)
        size: int = 2 + data[pos + 1]
    elif tag in (ATOM_UTF8_EXT, ATOM_EXT):
        need(3, pos, end, tag)
        size = 3 + u16(data, pos + 1)
    else:
        raise DecodeError(f"an atom was expected, not {NAMES.get(tag, f'tag {tag}')}", pos)
    need(size, pos, end, tag)
    return size


def _leaf_size(data: bytes, pos: int, end: int, tag: int, atoms: list[Any]) -> int:
    """Return the size of the leaf at ``pos``, refusing one that does not fit; the value is not looked at."""
    size: int
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
        need(3, pos, end, tag)
        size = 3 + u16(data, pos + 1)
    elif tag == SMALL_BIG_EXT:
        need(3, pos, end, tag)
        size = 3 + data[pos + 1]
    elif tag in (LARGE_BIG_EXT, BIT_BINARY_EXT):
        need(6, pos, end, tag)
        size = 6 + u32(data, pos + 1)
    elif tag == BINARY_EXT:
        need(5, pos, end, tag)
        size = 5 + u32(data, pos + 1)
    elif tag in (NEW_PID_EXT, V4_PORT_EXT):
        size = 13 + _atom_size(data, pos + 1, end, atoms)
    elif tag == NEW_PORT_EXT:
        size = 9 + _atom_size(data, pos + 1, end, atoms)
    elif tag == PID_EXT:
        size = 10 + _atom_size(data, pos + 1, end, atoms)
    elif tag in (PORT_EXT, REFERENCE_EXT):
        size = 6 + _atom_size(data, pos + 1, end, atoms)
    elif tag in (NEWER_REFERENCE_EXT, NEW_REFERENCE_EXT):
        need(3, pos, end, tag)
        size = 3 + 4 * u16(data, pos + 1) + _atom_size(data, pos + 3, end, atoms)
        size += 4 if tag == NEWER_REFERENCE_EXT else 1
    elif tag == EXPORT_EXT:
        size = 1 + _atom_size(data, pos + 1, end, atoms)
        size += _atom_size(data, pos + size, end, atoms)
        size += 2
        need(size, pos, end, tag)
        if data[pos + size - 2] != SMALL_INTEGER_EXT:
            raise DecodeError("the arity of EXPORT_EXT is no byte", pos)
    elif tag in {ATOM_CACHE_REF, SMALL_ATOM_UTF8_EXT, ATOM_UTF8_EXT, SMALL_ATOM_EXT, ATOM_EXT}:
        size = _atom_size(data, pos, end, atoms)
    elif tag in NAMES:
        raise DecodeError(f"{NAMES[tag]} cannot stand here", pos)
    else:
        raise DecodeError(f"unknown tag {tag}", pos)
    need(size, pos, end, tag)
    return size


def _close(compound: _Open, data: bytes, pos: int) -> Any:
    """Build a compound all of whose parts have come; ``pos`` is behind the last."""
    tag = compound.tag
    start = compound.start
    items = compound.items
    if tag == LIST_EXT:
        return make_list(items)
    if tag == MAP_EXT:
        return make_map(items)
    if tag == NEW_FUN_EXT:
        if pos != start + 1 + u32(data, start + 1):
            raise DecodeError("NEW_FUN_EXT is not as long as it says")
        return make_fun(data[start + 1 : start + 30], items)
    if tag == RECORD_EXT:
        return make_record(data[start + 5], items)
    return tuple(items)


def decode_carefully(
    data: bytes, pos: int, end: int, count: int, atoms: list[Any], out: list[Any], max_depth: int
) -> int:
    """Do what :func:`decode_fast` does, within ``[pos, end)`` and with every check."""
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
                raise DecodeError(error.message, done.start) from error
        top.missing -= 1
        need(1, pos, end, 0)
        tag: int = data[pos]
        head: int
        parts: int
        if tag == SMALL_TUPLE_EXT:
            head = 2
            need(head, pos, end, tag)
            parts = data[pos + 1]
        elif tag == LARGE_TUPLE_EXT:
            head = 5
            need(head, pos, end, tag)
            parts = u32(data, pos + 1)
        elif tag == LIST_EXT:
            head = 5
            need(head, pos, end, tag)
            parts = u32(data, pos + 1) + 1
        elif tag == MAP_EXT:
            head = 5
            need(head, pos, end, tag)
            parts = u32(data, pos + 1) * 2
        elif tag == NEW_FUN_EXT:
            head = 30
            need(head, pos, end, tag)
            parts = u32(data, pos + 26) + 4
        elif tag == RECORD_EXT:
            head = 6
            need(head, pos, end, tag)
            parts = u32(data, pos + 1) * 2 + 2
        else:
            size = _leaf_size(data, pos, end, tag, atoms)
            try:
                decode_fast(data, pos, 1, atoms, top.items, 1)
            except DecodeError as error:
                raise DecodeError(error.message, pos) from error
            pos += size
            continue
        # Each part takes a byte at least.
        if parts > end - pos - head:
            raise DecodeError(f"truncated {NAMES[tag]}: {parts} parts announced, {end - pos - head} bytes left", pos)
        if tag == LIST_EXT and top.tag == LIST_EXT and top.missing == 0 and top.items:
            # The tail of a list is a list: that is one list, whose elements go on here.
            top.missing = parts
            pos += head
            continue
        if len(stack) >= max_depth:
            raise DecodeError(f"nested deeper than {max_depth} terms", pos)
        stack.append(top)
        top = _Open(tag, pos, parts)
        pos += head
