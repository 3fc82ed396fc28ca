"""What the encoder writes in one piece: atoms, integers, text, and of seldom compounds the head.

:mod:`erlang_interop.etf._encode` says when, and puts the parts of a compound behind its head.
"""

from __future__ import annotations

import enum
from struct import Struct
from typing import Any, Final, final

from erlang_interop.errors import EncodeError
from erlang_interop.etf.tags import (
    ATOM_CACHE_REF,
    BINARY_EXT,
    BIT_BINARY_EXT,
    EXPORT_EXT,
    LARGE_BIG_EXT,
    LARGE_TUPLE_EXT,
    LIST_EXT,
    MAP_EXT,
    NEW_FUN_EXT,
    NEWER_REFERENCE_EXT,
    RECORD_EXT,
    SMALL_BIG_EXT,
    SMALL_INTEGER_EXT,
    SMALL_TUPLE_EXT,
    V4_PORT_EXT,
)
from erlang_interop.terms import Atom, BitString, ErlMap, Export, Fun, ImproperList, LocalTerm, Port, Record, Reference

#: A distribution header lists at most so many atoms.
MAX_ATOM_REFS: Final = 255

_UNSIGNED_32: Final = 0xFFFFFFFF
_MAX_SIZE: Final = 0xFFFFFFFF

_u32: Final = Struct(">I")
_tag_u32: Final = Struct(">BI").pack
SMALL_INTEGERS: Final = [bytes((SMALL_INTEGER_EXT, value)) for value in range(256)]
SMALL_TUPLES: Final = [bytes((SMALL_TUPLE_EXT, arity)) for arity in range(256)]
CACHE_REFS: Final = [bytes((ATOM_CACHE_REF, index)) for index in range(256)]
_REFERENCE_HEADS: Final = [bytes((NEWER_REFERENCE_EXT, 0, words)) for words in range(6)]


class BytesWriter(bytearray):
    """A growing buffer."""

    __slots__ = ()

    write = bytearray.extend

    def getvalue(self) -> bytes:
        """Return a copy."""
        return bytes(self)

    def truncate(self, size: int) -> None:
        """Keep the first ``size`` bytes."""
        del self[size:]


def put_u32(out: BytesWriter, value: int) -> None:
    """Write 32 bits; EncodeError when ``value`` has more, or is negative."""
    if not 0 <= value <= _UNSIGNED_32:
        raise EncodeError(f"not a number of 32 bits: {value}")
    out += _u32.pack(value)


def put_head(out: BytesWriter, tag: int, size: int) -> None:
    """Write a tag and a size of 32 bits."""
    if size > _MAX_SIZE:
        raise EncodeError(f"{size} elements or bytes are more than the format's 32 bits can count")
    out += _tag_u32(tag, size)


def put_atom(out: BytesWriter, atom: Atom, refs: dict[bytes, int] | None) -> None:
    """Write an atom: as a reference into the header where there is one with room, else in full."""
    wire = atom.wire
    if refs is not None:
        index = refs.get(wire)
        if index is None:
            size = len(refs)
            if size < MAX_ATOM_REFS:
                refs[wire] = index = size
        if index is not None:
            out += CACHE_REFS[index]
            return
    out += wire


def put_integer(out: BytesWriter, value: int) -> None:
    """Write an integer that takes more than 32 bits."""
    sign = 0
    if value < 0:
        sign = 1
        value = -value
    size = (value.bit_length() + 7) >> 3
    if size < 256:
        out.write(bytes((SMALL_BIG_EXT, size, sign)))
    else:
        put_head(out, LARGE_BIG_EXT, size)
        out.append(sign)
    out.write(value.to_bytes(size, "little"))


def put_reference(out: BytesWriter, reference: Reference, refs: dict[bytes, int] | None) -> None:
    """Write a reference."""
    words = reference.words
    count: int = len(words) >> 2
    if count < 1 or count > 5 or len(words) & 3:
        raise EncodeError(f"a reference has one to five words of 4 bytes, not {len(words)} bytes")
    out += _REFERENCE_HEADS[count]
    put_atom(out, reference.node, refs)
    put_u32(out, reference.creation)
    out += words


def put_text(out: BytesWriter, string: str) -> None:
    """Write a str as a binary of UTF-8, which is a string to Elixir."""
    try:
        data = string.encode("utf-8")
    except UnicodeEncodeError as error:
        raise EncodeError(f"a str with a lone surrogate has no UTF-8 form: {string[:40]!r}") from error
    put_head(out, BINARY_EXT, len(data))
    out.write(data)


@final
class FunEnd:
    """Stands behind the last part of a fun: now its size is known."""

    def __init__(self, start: int) -> None:
        self.start = start  # position of the size


def patch_size(out: BytesWriter, start: int) -> None:
    """Put the distance from ``start`` to here into the 32 bits at ``start``."""
    size: int = len(out) - start
    if size > _MAX_SIZE:
        raise EncodeError(f"a fun of {size} bytes is more than the format's 32 bits can count")
    out[start] = (size >> 24) & 255
    out[start + 1] = (size >> 16) & 255
    out[start + 2] = (size >> 8) & 255
    out[start + 3] = size & 255


def put_tuple(out: BytesWriter, parts: tuple[Any, ...]) -> list[Any]:
    """Write the head of a tuple; return its parts."""
    if len(parts) < 256:
        out.write(SMALL_TUPLES[len(parts)])
    else:
        put_head(out, LARGE_TUPLE_EXT, len(parts))
    return list(parts)


def put_rare(out: BytesWriter, term: Any, refs: dict[bytes, int] | None) -> list[Any] | None:
    """Write a term of a seldom type: a leaf whole (then None is returned), of a compound the head.

    Returns:
        The parts still to be written behind the head, in order.
    """
    if isinstance(term, Export):
        if not 0 <= term.arity <= 255:
            raise EncodeError(f"a fun has 0 to 255 arguments, not {term.arity}")
        out.append(EXPORT_EXT)
        put_atom(out, term.module, refs)
        put_atom(out, term.function, refs)
        out.write(SMALL_INTEGERS[term.arity])
        return None
    if isinstance(term, Port):
        if not 0 <= term.id < 1 << 64:
            raise EncodeError(f"the id of a port has 64 bits: {term.id}")
        out.append(V4_PORT_EXT)
        put_atom(out, term.node, refs)
        out.write(term.id.to_bytes(8, "big"))
        put_u32(out, term.creation)
        return None
    if isinstance(term, BitString):
        put_head(out, BIT_BINARY_EXT, len(term.data))
        out.append(term.bits)
        out.write(term.data)
        return None
    if isinstance(term, ImproperList):
        put_head(out, LIST_EXT, len(term.elements))
        return [*term.elements, term.tail]
    if isinstance(term, ErlMap):
        parts: list[Any] = []
        for key, value in term.pairs():
            parts.append(key)
            parts.append(value)
        put_head(out, MAP_EXT, len(term))
        return parts
    if isinstance(term, Fun):
        return _put_fun(out, term, refs)
    if isinstance(term, Record):
        put_head(out, RECORD_EXT, len(term.fields))
        out.append(1 if term.exported else 0)
        return [
            term.module,
            term.name,
            *[name for name, _ in term.fields],
            *[value for _, value in term.fields],
        ]
    if isinstance(term, LocalTerm):
        raise EncodeError("a LocalTerm ends where its data ends, so it cannot be part of another term or of a message")
    return _put_relative(out, term)


def _put_fun(out: BytesWriter, fun: Fun, refs: dict[bytes, int] | None) -> list[Any]:
    """Write the head of a fun; return the rest."""
    if len(fun.uniq) != 16 or not 0 <= fun.arity <= 255:
        raise EncodeError(f"a Fun needs a uniq of 16 bytes and an arity of 0 to 255: {fun!r}")
    out.append(NEW_FUN_EXT)
    start = len(out)
    out.write(b"\0\0\0\0")  # the size, see FunEnd
    out.append(fun.arity)
    out.write(fun.uniq)
    put_u32(out, fun.index)
    put_u32(out, len(fun.free_vars))
    return [fun.module, fun.old_index, fun.old_uniq, fun.pid, *fun.free_vars, FunEnd(start)]


def _put_relative(out: BytesWriter, term: Any) -> list[Any] | None:
    """Write a term whose class descends from one we know, or refuse it.

    Returns:
        As :func:`put_rare`; an integer, float or binary is the one part of no head.
    """
    if isinstance(term, enum.Enum) and not isinstance(term, (int, str, float, bytes)):
        raise EncodeError(f"no Erlang form for {term!r}: send its .value, or an Atom")
    if isinstance(term, int):
        return [int(term)]
    if isinstance(term, float):
        return [float(term)]
    if isinstance(term, str):
        put_text(out, str.__str__(term))
        return None
    if isinstance(term, (bytes, bytearray, memoryview)):
        return [bytes(term)]
    if isinstance(term, tuple):
        return put_tuple(out, term)
    if isinstance(term, list):
        return [list(term)]
    if isinstance(term, dict):
        return [dict(term)]
    hint = _HINTS.get(type(term).__name__, "use the types of erlang_interop.terms, or tuples, lists and dicts")
    raise EncodeError(f"no Erlang form for {type(term).__module__}.{type(term).__qualname__}: {hint}")


_HINTS: Final[dict[str, str]] = {
    "set": "send a list; Erlang's sets are modules, not types",
    "frozenset": "send a list; Erlang's sets are modules, not types",
    "deque": "send a list",
    "generator": "send a list",
    "range": "send a list",
    "complex": "send a tuple of two floats",
    "Decimal": "send a float, or its text",
    "datetime": "send its timestamp, its text, or a tuple as of calendar:universal_time/0",
    "mappingproxy": "send a dict",
}
