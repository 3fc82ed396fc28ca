"""Terms to bytes. Manual: *External Term Format*.

The public face is :mod:`erlang_interop.etf`; ``wire/`` writes frames with a :class:`TermWriter`. As in the decoder
there is a recursive way, :func:`_put`, and a way with an explicit stack for what is nested deeper, :func:`_put_deep`.

What is written is what ``term_to_binary/1`` of OTP 26 and later writes, so that bytes can be compared; 25 differs in
plain atoms alone, which it still writes as ``ATOM_EXT``.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from struct import Struct
from struct import error as StructError
from typing import Any, Final, cast, final

from erlang_interop._native import i32, i64, u8
from erlang_interop.errors import EncodeError
from erlang_interop.etf.tags import (
    ATOM_CACHE_REF,
    BINARY_EXT,
    BIT_BINARY_EXT,
    EXPORT_EXT,
    INTEGER_EXT,
    LARGE_BIG_EXT,
    LARGE_TUPLE_EXT,
    LIST_EXT,
    LOCAL_EXT,
    MAP_EXT,
    NEW_FLOAT_EXT,
    NEW_FUN_EXT,
    NEW_PID_EXT,
    NEWER_REFERENCE_EXT,
    NIL_EXT,
    RECORD_EXT,
    SMALL_BIG_EXT,
    SMALL_INTEGER_EXT,
    SMALL_TUPLE_EXT,
    STRING_EXT,
    V4_PORT_EXT,
    VERSION,
)
from erlang_interop.terms import (
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

__all__ = ["MAX_ATOM_REFS", "MAX_DEPTH", "TermWriter", "encode"]

#: True where mypyc compiled this file. mypy and mypyc take the name itself for true and leave the other branches out.
MYPY: Final = not __file__.endswith(".py")

#: Nesting allowed by default, in terms. A structure that contains itself ends here.
MAX_DEPTH: Final = 10_000
#: A distribution header lists at most so many atoms.
MAX_ATOM_REFS: Final = 255

#: The recursive way goes so deep, far from the end of any stack.
_FAST_DEPTH: Final = 100
_UNSIGNED_32: Final = 0xFFFFFFFF
_MAX_SIZE: Final[i64] = 0xFFFFFFFF

_TRUE: Final = Atom("true")
_FALSE: Final = Atom("false")
_NIL: Final = Atom("nil")

_u32: Final = Struct(">I")
_three_u32: Final = Struct(">III").pack
_u64_u32: Final = Struct(">QI").pack
_tag_u32: Final = Struct(">BI").pack
_tag_i32: Final = Struct(">Bi").pack
_tag_u16: Final = Struct(">BH").pack
_tag_f64: Final = Struct(">Bd").pack
_SMALL_INTEGERS: Final = [bytes((SMALL_INTEGER_EXT, value)) for value in range(256)]
_SMALL_TUPLES: Final = [bytes((SMALL_TUPLE_EXT, arity)) for arity in range(256)]
_REFERENCE_HEADS: Final = [bytes((NEWER_REFERENCE_EXT, 0, words)) for words in range(6)]
_CACHE_REFS: Final = [bytes((ATOM_CACHE_REF, index)) for index in range(256)]

if MYPY:
    from librt.strings import BytesWriter, write_f64_be, write_i32_be
else:

    class BytesWriter(bytearray):
        """The growing buffer of the interpreted build, with the methods of librt's that this file uses."""

        __slots__ = ()

        write = bytearray.extend

        def getvalue(self) -> bytes:
            """Return a copy."""
            return bytes(self)

        def truncate(self, size: int) -> None:
            """Keep the first ``size`` bytes."""
            del self[size:]


def _put_u32(out: BytesWriter, value: int) -> None:
    """Write 32 bits; EncodeError when ``value`` has more, or is negative."""
    if not 0 <= value <= _UNSIGNED_32:
        raise EncodeError(f"not a number of 32 bits: {value}")
    if MYPY:
        number: i64 = value
        write_i32_be(out, i32(number))  # the low 32 bits: a conversion between native integers cuts
    else:
        out += _u32.pack(value)


def _put_head(out: BytesWriter, tag: u8, size: i64) -> None:
    """Write a tag and a size of 32 bits."""
    if size > _MAX_SIZE:
        raise EncodeError(f"{size} elements or bytes are more than the format's 32 bits can count")
    if MYPY:
        out.append(tag)
        write_i32_be(out, i32(size))
    else:
        out += _tag_u32(tag, size)


def _put_atom(out: BytesWriter, atom: Atom, refs: dict[bytes, int] | None) -> None:
    """Write an atom: as a reference into the header where there is one with room, else in full."""
    wire = atom.wire
    if refs is not None:
        index = refs.get(wire)
        if index is None:
            size = len(refs)
            if size < MAX_ATOM_REFS:
                refs[wire] = index = size
        if index is not None:
            if MYPY:
                out.append(ATOM_CACHE_REF)
                out.append(index)
            else:
                out += _CACHE_REFS[index]
            return
    if MYPY:
        out.write(wire)
    else:
        out += wire


def _put_integer(out: BytesWriter, value: int) -> None:
    """Write an integer that takes more than 32 bits."""
    sign = 0
    if value < 0:
        sign = 1
        value = -value
    size = (value.bit_length() + 7) >> 3
    if size < 256:
        out.write(bytes((SMALL_BIG_EXT, size, sign)))
    else:
        _put_head(out, LARGE_BIG_EXT, size)
        out.append(sign)
    out.write(value.to_bytes(size, "little"))


def _is_string(items: list[Any]) -> bool:
    """Whether the BEAM writes this list as STRING_EXT: at most 65,535 integers, each of them a byte."""
    if len(items) > 65535:
        return False
    for item in items:  # noqa: SIM110 - a generator costs more than the loop
        if type(item) is not int or not 0 <= item <= 255:
            return False
    return True


def _put(out: BytesWriter, term: Any, refs: dict[bytes, int] | None, depth: i64) -> None:
    """Append ``term`` to ``out``. Raises EncodeError, or _TooDeep; what was written until then stays.

    The tests stand in the order of how often a type occurs in a message.
    """
    kind = type(term)
    if kind is tuple:
        if depth <= 0:
            raise _TooDeep
        parts = cast(tuple[Any, ...], term)
        arity: i64 = len(parts)
        if arity < 256:
            if MYPY:
                out.append(SMALL_TUPLE_EXT)
                out.append(u8(arity))
            else:
                out += _SMALL_TUPLES[arity]
        else:
            _put_head(out, LARGE_TUPLE_EXT, arity)
        for part in parts:
            _put(out, part, refs, depth - 1)
    elif kind is Atom:
        if MYPY:
            _put_atom(out, cast(Atom, term), refs)
        elif refs is None:
            out += term.wire
        else:
            index = refs.get(term.wire)
            if index is None:
                _put_atom(out, term, refs)
            else:
                out += _CACHE_REFS[index]
    elif kind is int:
        value = cast(int, term)
        if 0 <= value < 256:
            if MYPY:
                out.append(SMALL_INTEGER_EXT)
                out.append(value)
            else:
                out += _SMALL_INTEGERS[value]
        elif -0x80000000 <= value <= 0x7FFFFFFF:
            if MYPY:
                out.append(INTEGER_EXT)
                write_i32_be(out, i32(value))
            else:
                out += _tag_i32(INTEGER_EXT, value)
        else:
            _put_integer(out, value)
    elif kind is Pid:
        pid = cast(Pid, term)
        if MYPY:
            out.append(NEW_PID_EXT)
            _put_atom(out, pid.node, refs)
            _put_u32(out, pid.id)
            _put_u32(out, pid.serial)
            _put_u32(out, pid.creation)
        else:
            out += b"X"
            index = None if refs is None else refs.get(pid.node.wire)
            if index is None:
                _put_atom(out, pid.node, refs)
            else:
                out += _CACHE_REFS[index]
            try:
                out += _three_u32(pid.id, pid.serial, pid.creation)
            except StructError as error:
                raise EncodeError(f"id, serial and creation of a pid have 32 bits each: {pid!r}") from error
    elif kind is bytes:
        data = cast(bytes, term)
        if MYPY:
            _put_head(out, BINARY_EXT, len(data))
            out.write(data)
        else:
            out += _tag_u32(BINARY_EXT, len(data))
            out += data
    elif kind is list:
        if depth <= 0:
            raise _TooDeep
        items = cast(list[Any], term)
        if items:
            if type(items[0]) is int and _is_string(items):
                size: i64 = len(items)
                out.append(STRING_EXT)
                out.append(u8(size >> 8))
                out.append(u8(size & 255))
                out.write(bytes(items))
                return
            _put_head(out, LIST_EXT, len(items))
            for item in items:
                _put(out, item, refs, depth - 1)
        out.append(NIL_EXT)
    elif kind is Reference:
        reference = cast(Reference, term)
        _put_reference(out, reference, refs)
    elif term is None:
        _put_atom(out, _NIL, refs)
    elif kind is bool:
        _put_atom(out, _TRUE if term else _FALSE, refs)
    elif kind is str:
        _put_text(out, cast(str, term))
    elif kind is float:
        number = cast(float, term)
        if number - number != 0.0:
            raise EncodeError(f"Erlang has no float {number!r}; send an atom instead")
        if MYPY:
            out.append(NEW_FLOAT_EXT)
            write_f64_be(out, number)
        else:
            out += _tag_f64(NEW_FLOAT_EXT, number)
    elif kind is dict:
        if depth <= 0:
            raise _TooDeep
        pairs = cast(dict[Any, Any], term)
        _put_head(out, MAP_EXT, len(pairs))
        for key, item in pairs.items():
            _put(out, key, refs, depth - 1)
            _put(out, item, refs, depth - 1)
    else:
        rest = _put_rare(out, term, refs)
        if rest is not None:
            if depth <= 0:
                raise _TooDeep
            for part in rest:
                if type(part) is _FunEnd:
                    _patch_size(out, part.start)
                else:
                    _put(out, part, refs, depth - 1)


def _put_reference(out: BytesWriter, reference: Reference, refs: dict[bytes, int] | None) -> None:
    words = reference.words
    count: i64 = len(words) >> 2
    if count < 1 or count > 5 or len(words) & 3:
        raise EncodeError(f"a reference has one to five words of 4 bytes, not {len(words)} bytes")
    if MYPY:
        out.append(NEWER_REFERENCE_EXT)
        out.append(0)
        out.append(u8(count))
    else:
        out += _REFERENCE_HEADS[count]
    _put_atom(out, reference.node, refs)
    _put_u32(out, reference.creation)
    if MYPY:
        out.write(words)
    else:
        out += words


def _put_text(out: BytesWriter, string: str) -> None:
    """Write a str as a binary of UTF-8, which is a string to Elixir."""
    try:
        data = string.encode("utf-8")
    except UnicodeEncodeError as error:
        raise EncodeError(f"a str with a lone surrogate has no UTF-8 form: {string[:40]!r}") from error
    _put_head(out, BINARY_EXT, len(data))
    out.write(data)


@final
class _TooDeep(Exception):
    """Sends the caller of :func:`_put` to :func:`_put_deep`."""


@final
class _FunEnd:
    """Stands behind the last part of a fun: now its size is known."""

    def __init__(self, start: int) -> None:
        self.start = start  # position of the size


def _patch_size(out: BytesWriter, start: i64) -> None:
    """Put the distance from ``start`` to here into the 32 bits at ``start``."""
    size: i64 = len(out) - start
    if size > _MAX_SIZE:
        raise EncodeError(f"a fun of {size} bytes is more than the format's 32 bits can count")
    out[start] = u8((size >> 24) & 255)
    out[start + 1] = u8((size >> 16) & 255)
    out[start + 2] = u8((size >> 8) & 255)
    out[start + 3] = u8(size & 255)


def _put_rare(out: BytesWriter, term: Any, refs: dict[bytes, int] | None) -> list[Any] | None:
    """Write a term of a seldom type: a leaf whole (then None is returned), of a compound the head.

    Returns:
        The parts still to be written behind the head, in order.
    """
    if isinstance(term, Export):
        if not 0 <= term.arity <= 255:
            raise EncodeError(f"a fun has 0 to 255 arguments, not {term.arity}")
        out.append(EXPORT_EXT)
        _put_atom(out, term.module, refs)
        _put_atom(out, term.function, refs)
        out.write(_SMALL_INTEGERS[term.arity])
        return None
    if isinstance(term, Port):
        if not 0 <= term.id < 1 << 64:
            raise EncodeError(f"the id of a port has 64 bits: {term.id}")
        out.append(V4_PORT_EXT)
        _put_atom(out, term.node, refs)
        out.write(term.id.to_bytes(8, "big"))
        _put_u32(out, term.creation)
        return None
    if isinstance(term, BitString):
        _put_head(out, BIT_BINARY_EXT, len(term.data))
        out.append(term.bits)
        out.write(term.data)
        return None
    if isinstance(term, ImproperList):
        _put_head(out, LIST_EXT, len(term.elements))
        return [*term.elements, term.tail]
    if isinstance(term, ErlMap):
        parts: list[Any] = []
        for key, value in term.pairs():
            parts.append(key)
            parts.append(value)
        _put_head(out, MAP_EXT, len(term))
        return parts
    if isinstance(term, Fun):
        return _put_fun(out, term, refs)
    if isinstance(term, Record):
        _put_head(out, RECORD_EXT, len(term.fields))
        out.append(1 if term.exported else 0)
        return [
            term.module,
            term.name,
            *[name for name, _ in term.fields],
            *[value for _, value in term.fields],
        ]
    if isinstance(term, LocalTerm):
        raise EncodeError("a LocalTerm ends where its data ends, so it cannot be part of another term or of a message")
    return _put_relative(out, term, refs)


def _put_fun(out: BytesWriter, fun: Fun, refs: dict[bytes, int] | None) -> list[Any]:
    """Write the head of a fun; return the rest."""
    if len(fun.uniq) != 16 or not 0 <= fun.arity <= 255:
        raise EncodeError(f"a Fun needs a uniq of 16 bytes and an arity of 0 to 255: {fun!r}")
    out.append(NEW_FUN_EXT)
    start = len(out)
    out.write(b"\0\0\0\0")  # the size, see _FunEnd
    out.append(fun.arity)
    out.write(fun.uniq)
    _put_u32(out, fun.index)
    _put_u32(out, len(fun.free_vars))
    return [fun.module, fun.old_index, fun.old_uniq, fun.pid, *fun.free_vars, _FunEnd(start)]


def _put_relative(out: BytesWriter, term: Any, refs: dict[bytes, int] | None) -> list[Any] | None:
    """Write a term whose class descends from one we know, or refuse it. Like :func:`_put_rare`."""
    if isinstance(term, enum.Enum) and not isinstance(term, (int, str, float, bytes)):
        raise EncodeError(f"no Erlang form for {term!r}: send its .value, or an Atom")
    if isinstance(term, int):
        _put(out, int(term), refs, 0)
    elif isinstance(term, float):
        _put(out, float(term), refs, 0)
    elif isinstance(term, str):
        _put_text(out, str.__str__(term))
    elif isinstance(term, (bytes, bytearray, memoryview)):
        _put(out, bytes(term), refs, 0)
    elif isinstance(term, tuple):
        parts = list(term)
        if len(parts) < 256:
            out.write(_SMALL_TUPLES[len(parts)])
        else:
            _put_head(out, LARGE_TUPLE_EXT, len(parts))
        return parts
    elif isinstance(term, list):
        return [list(term)]
    elif isinstance(term, dict):
        return [dict(term)]
    else:
        hint = _HINTS.get(type(term).__name__, "use the types of erlang_interop.terms, or tuples, lists and dicts")
        raise EncodeError(f"no Erlang form for {type(term).__module__}.{type(term).__qualname__}: {hint}")
    return None


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


def _children(out: BytesWriter, term: Any, refs: dict[bytes, int] | None) -> list[Any] | None:
    """Write the head of a compound and return its parts; None for a leaf, which is not written."""
    kind = type(term)
    if kind is tuple:
        parts = list(cast(tuple[Any, ...], term))
        if len(parts) < 256:
            out.write(_SMALL_TUPLES[len(parts)])
        else:
            _put_head(out, LARGE_TUPLE_EXT, len(parts))
        return parts
    if kind is list:
        items = cast(list[Any], term)
        if not items or (type(items[0]) is int and _is_string(items)):
            return None
        _put_head(out, LIST_EXT, len(items))
        return [*items, []]
    if kind is dict:
        pairs = cast(dict[Any, Any], term)
        _put_head(out, MAP_EXT, len(pairs))
        parts = []
        for key, item in pairs.items():
            parts.append(key)
            parts.append(item)
        return parts
    if isinstance(term, (tuple, list, dict, ImproperList, ErlMap, Fun, Record)):
        return _put_rare(out, term, refs)
    return None


def _put_deep(out: BytesWriter, term: Any, refs: dict[bytes, int] | None, max_depth: i64) -> None:
    """Do what :func:`_put` does with an explicit stack, to any depth up to ``max_depth``."""
    stack: list[Iterator[Any]] = []
    parts: Iterator[Any] = iter([term])
    while True:
        for part in parts:
            if type(part) is _FunEnd:
                _patch_size(out, part.start)
                continue
            if len(stack) >= max_depth and isinstance(part, (tuple, list, dict, ImproperList, ErlMap, Fun, Record)):
                raise EncodeError(f"nested deeper than {max_depth} terms, or a structure that contains itself")
            inner = _children(out, part, refs)
            if inner is not None:
                stack.append(parts)
                parts = iter(inner)
                break
            _put(out, part, refs, 1)
        else:
            if not stack:
                return
            parts = stack.pop()


@final
class TermWriter:
    """A growing buffer for frames: raw bytes and terms are appended, a size can be filled in afterwards.

    Not thread-safe; one for each connection is enough.
    """

    def __init__(self) -> None:
        self._out: Final = BytesWriter()

    def __len__(self) -> int:
        """Bytes held."""
        return len(self._out)

    def write(self, data: bytes) -> None:
        """Append ``data`` as it is."""
        self._out.write(data)

    def write_u32(self, value: int) -> None:
        """Append 32 bits, big-endian."""
        self._out.write(_u32.pack(value))

    def patch_u32(self, position: int, value: int) -> None:
        """Overwrite the four bytes at ``position``, big-endian: a length that was not known before."""
        out = self._out
        at: i64 = position
        number: i64 = value
        out[at] = u8((number >> 24) & 255)
        out[at + 1] = u8((number >> 16) & 255)
        out[at + 2] = u8((number >> 8) & 255)
        out[at + 3] = u8(number & 255)

    def write_term(self, term: Term, refs: dict[bytes, int] | None = None, max_depth: int = MAX_DEPTH) -> None:
        """Append ``term`` without a version byte.

        Args:
            term: Any term of :mod:`erlang_interop.terms`.
            refs: Where given, atoms are written as ``ATOM_CACHE_REF``; this dict takes the ``Atom.wire`` of each, with
                its index in the distribution header, in the order 0, 1, 2...; from the 256th on they are written in
                full. None: every atom is written in full.
            max_depth: Nesting allowed, in terms.

        Raises:
            EncodeError: A value has no Erlang form. The buffer and ``refs`` are then as they were before the call.
        """
        out = self._out
        size = len(out)
        known = 0 if refs is None else len(refs)
        try:
            _put(out, term, refs, min(_FAST_DEPTH, max_depth))
        except (_TooDeep, RecursionError):
            self._undo(size, refs, known)
        except BaseException:
            self._undo(size, refs, known)
            raise
        else:
            return
        try:
            _put_deep(out, term, refs, max_depth)
        except BaseException:
            self._undo(size, refs, known)
            raise

    def _undo(self, size: int, refs: dict[bytes, int] | None, known: int) -> None:
        self._out.truncate(size)
        if refs is not None:
            while len(refs) > known:
                refs.popitem()

    def truncate(self, size: int) -> None:
        """Drop all but the first ``size`` bytes."""
        self._out.truncate(size)

    def getvalue(self) -> bytes:
        """Return a copy of what is held."""
        return self._out.getvalue()

    def take(self) -> bytes:
        """Return what is held, and hold nothing."""
        data = self._out.getvalue()
        self._out.truncate(0)
        return data


def encode(term: Term, *, max_depth: int = MAX_DEPTH) -> bytes:
    """Encode one external term, version byte included, for ``binary_to_term/1``.

    Args:
        term: Any term of :mod:`erlang_interop.terms`; a ``str`` becomes a binary of its UTF-8 form. Subclasses count as
            their base: a NamedTuple is a tuple, an IntEnum an integer.
        max_depth: Nesting allowed, in terms.

    Raises:
        EncodeError: The type has no Erlang form, a float is nan or infinite, or the nesting is too deep.
    """
    if isinstance(term, LocalTerm):
        return bytes((VERSION, LOCAL_EXT)) + term.data
    writer = TermWriter()
    writer.write(_VERSION)
    writer.write_term(term, None, max_depth)
    return writer.getvalue()


_VERSION: Final = bytes((VERSION,))
