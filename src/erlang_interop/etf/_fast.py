"""The fast way to decode: recursive, and trusting. :mod:`erlang_interop.etf._decode` says when it is used."""

from __future__ import annotations

from math import isfinite
from struct import Struct
from typing import Any, Final, final

from erlang_interop.errors import DecodeError
from erlang_interop.etf._parts import (
    ATOMS,
    UNKNOWN,
    as_atom,
    atom_from_bytes,
    make_fun,
    make_list,
    make_map,
    make_record,
    new_atom,
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
from erlang_interop.terms import (
    Atom,
    BitString,
    Export,
    Pid,
    Port,
    Reference,
)

_read_u32: Final = Struct(">I").unpack_from
_read_i32: Final = Struct(">i").unpack_from
_read_three_u32: Final = Struct(">III").unpack_from
_read_f64: Final = Struct(">d").unpack_from


@final
class GiveUp(Exception):
    """Sends :func:`decode_terms` the careful way."""


def decode_fast(data: bytes, pos: int, count: int, atoms: list[Any], out: list[Any], depth: int) -> int:
    """Append ``count`` terms from ``pos`` on to ``out``; return the position behind them.

    Raises anything when something is wrong; may read past the end of its frame, but never past ``data``. The tests
    stand in the order of how often a tag occurs on a distribution channel.
    """
    k: int
    items: list[Any]
    if depth < 0:
        raise GiveUp
    for _ in range(count):
        tag: int = data[pos]
        if tag == ATOM_CACHE_REF:
            out.append(atoms[data[pos + 1]])
            pos += 2
        elif tag == SMALL_TUPLE_EXT:
            items = []
            pos = decode_fast(data, pos + 2, data[pos + 1], atoms, items, depth - 1)
            out.append(tuple(items))
        elif tag == NEW_PID_EXT:
            if data[pos + 1] == ATOM_CACHE_REF:
                node = atoms[data[pos + 2]]
                pos += 3
            elif data[pos + 1] == SMALL_ATOM_UTF8_EXT:
                k = data[pos + 2]
                pos += 3
                raw = data[pos : pos + k]
                node = ATOMS.get(raw, UNKNOWN)
                if node is UNKNOWN:
                    node = new_atom(raw, "utf-8")
                pos += k
            else:
                items = []
                pos = decode_fast(data, pos + 1, 1, atoms, items, depth - 1)
                node = items[0]
            if type(node) is not Atom:
                node = as_atom(node)
            out.append(Pid(node, *_read_three_u32(data, pos)))
            pos += 12
        elif tag == SMALL_INTEGER_EXT:
            out.append(data[pos + 1])
            pos += 2
        elif tag == SMALL_ATOM_UTF8_EXT:
            k = data[pos + 1]
            pos += 2
            raw = data[pos : pos + k]
            node = ATOMS.get(raw, UNKNOWN)
            if node is UNKNOWN:
                node = new_atom(raw, "utf-8")
            out.append(node)
            pos += k
        elif tag == BINARY_EXT:
            k = _read_u32(data, pos + 1)[0]
            pos += 5
            out.append(data[pos : pos + k])
            pos += k
        elif tag == LIST_EXT:
            k = _read_u32(data, pos + 1)[0]
            items = []
            pos = decode_fast(data, pos + 5, k, atoms, items, depth - 1)
            if data[pos] == NIL_EXT:
                pos += 1
                out.append(items)
            elif data[pos] == LIST_EXT:
                raise GiveUp  # a list in pieces is rare, and putting them together over and over is slow
            else:
                pos = decode_fast(data, pos, 1, atoms, items, depth - 1)
                out.append(make_list(items))
        elif tag == NIL_EXT:
            items = []
            out.append(items)
            pos += 1
        elif tag == INTEGER_EXT:
            out.append(_read_i32(data, pos + 1)[0])
            pos += 5
        elif tag == NEWER_REFERENCE_EXT:
            k = 4 * u16(data, pos + 1)
            if data[pos + 3] == ATOM_CACHE_REF:
                node = atoms[data[pos + 4]]
                pos += 5
            elif data[pos + 3] == SMALL_ATOM_UTF8_EXT:
                size: int = data[pos + 4]
                pos += 5
                raw = data[pos : pos + size]
                node = ATOMS.get(raw, UNKNOWN)
                if node is UNKNOWN:
                    node = new_atom(raw, "utf-8")
                pos += size
            else:
                items = []
                pos = decode_fast(data, pos + 3, 1, atoms, items, depth - 1)
                node = items[0]
            if k == 0 or k > 20:
                raise DecodeError("a reference has one to five words")
            if type(node) is not Atom:
                node = as_atom(node)
            out.append(Reference(node, _read_u32(data, pos)[0], data[pos + 4 : pos + 4 + k]))
            pos += 4 + k
        elif tag == MAP_EXT:
            items = []
            pos = decode_fast(data, pos + 5, 2 * u32(data, pos + 1), atoms, items, depth - 1)
            out.append(make_map(items))
        elif tag == STRING_EXT:
            k = u16(data, pos + 1)
            pos += 3
            out.append(list(data[pos : pos + k]))
            pos += k
        elif tag == NEW_FLOAT_EXT:
            number: float
            number = _read_f64(data, pos + 1)[0]
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
            pos = decode_fast(data, pos + 5, u32(data, pos + 1), atoms, items, depth - 1)
            out.append(tuple(items))
        elif tag == NEW_FUN_EXT:
            head = data[pos + 1 : pos + 30]
            items = []
            start: int = pos + 1
            pos = decode_fast(data, pos + 30, 4 + u32(data, pos + 26), atoms, items, depth - 1)
            if pos != start + u32(head, 0):
                raise DecodeError("NEW_FUN_EXT is not as long as it says")
            out.append(make_fun(head, items))
        elif tag == RECORD_EXT:
            items = []
            k = data[pos + 5]
            pos = decode_fast(data, pos + 6, 2 + 2 * u32(data, pos + 1), atoms, items, depth - 1)
            out.append(make_record(k, items))
        else:
            pos = _rare(data, pos, tag, atoms, out, depth)
    return pos


def _rare(data: bytes, pos: int, tag: int, atoms: list[Any], out: list[Any], depth: int) -> int:
    """Go on where :func:`decode_fast` ends: the leaves that are seldom seen, and those only older nodes send."""
    k: int
    items: list[Any] = []
    if tag == ATOM_UTF8_EXT:
        k = u16(data, pos + 1)
        pos += 3
        out.append(atom_from_bytes(data[pos : pos + k]))
    elif tag == SMALL_ATOM_EXT:
        k = data[pos + 1]
        pos += 2
        out.append(new_atom(data[pos : pos + k], "latin-1"))
    elif tag == ATOM_EXT:
        k = u16(data, pos + 1)
        pos += 3
        out.append(new_atom(data[pos : pos + k], "latin-1"))
    elif tag == LARGE_BIG_EXT:
        k = u32(data, pos + 1)
        big = int.from_bytes(data[pos + 6 : pos + 6 + k], "little")
        out.append(-big if data[pos + 5] else big)
        pos += 6
    elif tag == BIT_BINARY_EXT:
        k = u32(data, pos + 1)
        bits: int = data[pos + 5]
        pos += 6
        raw = data[pos : pos + k]
        if bits > 8 or (k == 0 and bits != 0) or (k != 0 and bits == 0):
            raise DecodeError("BIT_BINARY_EXT counts more bits, or fewer, than its last byte has")
        out.append(BitString(raw, bits) if 0 < bits < 8 else raw)
    elif tag == EXPORT_EXT:
        pos = decode_fast(data, pos + 1, 2, atoms, items, depth - 1)
        if data[pos] != SMALL_INTEGER_EXT:
            raise DecodeError("the arity of EXPORT_EXT is no byte")
        out.append(Export(as_atom(items[0]), as_atom(items[1]), data[pos + 1]))
        k = 2
    elif tag == V4_PORT_EXT:
        pos = decode_fast(data, pos + 1, 1, atoms, items, depth - 1)
        out.append(Port(as_atom(items[0]), int.from_bytes(data[pos : pos + 8], "big"), u32(data, pos + 8)))
        k = 12
    elif tag == NEW_PORT_EXT:
        pos = decode_fast(data, pos + 1, 1, atoms, items, depth - 1)
        out.append(Port(as_atom(items[0]), u32(data, pos), u32(data, pos + 4)))
        k = 8
    elif tag == PORT_EXT:
        pos = decode_fast(data, pos + 1, 1, atoms, items, depth - 1)
        out.append(Port(as_atom(items[0]), u32(data, pos), data[pos + 4]))
        k = 5
    elif tag == PID_EXT:
        pos = decode_fast(data, pos + 1, 1, atoms, items, depth - 1)
        out.append(Pid(as_atom(items[0]), u32(data, pos), u32(data, pos + 4), data[pos + 8]))
        k = 9
    elif tag == REFERENCE_EXT:
        pos = decode_fast(data, pos + 1, 1, atoms, items, depth - 1)
        out.append(Reference(as_atom(items[0]), data[pos + 4], data[pos : pos + 4]))
        k = 5
    elif tag == NEW_REFERENCE_EXT:
        k = 4 * u16(data, pos + 1)
        if k == 0 or k > 20:
            raise DecodeError("a reference has one to five words")
        pos = decode_fast(data, pos + 3, 1, atoms, items, depth - 1)
        out.append(Reference(as_atom(items[0]), data[pos], data[pos + 1 : pos + 1 + k]))
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
        raise GiveUp
    return pos + k
