"""Terms to bytes. Manual: *External Term Format*.

The public face is :mod:`erlang_interop.etf`; ``wire/`` writes frames with a :class:`TermWriter`. As in the decoder
there is a recursive way, :func:`_put`, and a way with an explicit stack, :func:`_put_deep`, for what is nested deeper
and for native records, which not every peer can read. What both write in one piece is in ``_heads.py``.

What is written is what ``term_to_binary/1`` of OTP 26 and later writes, so that bytes can be compared; 25 differs in
plain atoms alone, which it still writes as ``ATOM_EXT``.

Where the C core was built, its ``TermWriter`` stands in for the class here. It writes the frequent types itself; for
the rest, and for every error, it calls :func:`_write_part` and :func:`_write_deep`.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from struct import error as StructError
from typing import TYPE_CHECKING, Any, Final, cast, final

from erlang_interop._native import core
from erlang_interop.errors import EncodeError
from erlang_interop.etf._heads import (
    CACHE_REFS,
    MAX_ATOM_REFS,
    SMALL_INTEGERS,
    SMALL_TUPLES,
    BytesWriter,
    FunEnd,
    patch_size,
    put_atom,
    put_head,
    put_integer,
    put_rare,
    put_reference,
    put_text,
    put_tuple,
)
from erlang_interop.etf.tags import (
    BINARY_EXT,
    INTEGER_EXT,
    LARGE_TUPLE_EXT,
    LIST_EXT,
    LOCAL_EXT,
    MAP_EXT,
    NEW_FLOAT_EXT,
    NIL_EXT,
    STRING_EXT,
    VERSION,
)
from erlang_interop.terms import Atom, ErlMap, Fun, ImproperList, LocalTerm, Pid, Record, Reference, Term

__all__ = ["MAX_ATOM_REFS", "MAX_DEPTH", "TermWriter", "encode"]

#: Nesting allowed by default, in terms. A structure that contains itself ends here.
MAX_DEPTH: Final = 10_000

#: The recursive way goes so deep, far from the end of any stack.
_FAST_DEPTH: Final = 100

_TRUE: Final = Atom("true")
_FALSE: Final = Atom("false")
_NIL: Final = Atom("nil")

_u32: Final = Struct(">I")
_three_u32: Final = Struct(">III").pack
_tag_u32: Final = Struct(">BI").pack
_tag_u16: Final = Struct(">BH").pack
_tag_i32: Final = Struct(">Bi").pack
_tag_f64: Final = Struct(">Bd").pack


def _is_string(items: list[Any]) -> bool:
    """Whether the BEAM writes this list as STRING_EXT: at most 65,535 integers, each of them a byte."""
    if len(items) > 65535:
        return False
    for item in items:  # noqa: SIM110 - a generator costs more than the loop
        if type(item) is not int or not 0 <= item <= 255:
            return False
    return True


def _put(out: BytesWriter, term: Any, refs: dict[bytes, int] | None, depth: int) -> None:
    """Append ``term`` to ``out``. Raises EncodeError, or _TheOtherWay; what was written until then stays.

    The tests stand in the order of how often a type occurs in a message.
    """
    kind = type(term)
    if kind is tuple:
        if depth <= 0:
            raise _TheOtherWay
        parts = cast(tuple[Any, ...], term)
        arity = len(parts)
        if arity < 256:
            out += SMALL_TUPLES[arity]
        else:
            put_head(out, LARGE_TUPLE_EXT, arity)
        for part in parts:
            _put(out, part, refs, depth - 1)
    elif kind is Atom:
        if refs is None:
            out += term.wire
        else:
            index = refs.get(term.wire)
            if index is None:
                put_atom(out, term, refs)
            else:
                out += CACHE_REFS[index]
    elif kind is int:
        value = cast(int, term)
        if 0 <= value < 256:
            out += SMALL_INTEGERS[value]
        elif -0x80000000 <= value <= 0x7FFFFFFF:
            out += _tag_i32(INTEGER_EXT, value)
        else:
            put_integer(out, value)
    elif kind is Pid:
        pid = cast(Pid, term)
        out += b"X"
        index = None if refs is None else refs.get(pid.node.wire)
        if index is None:
            put_atom(out, pid.node, refs)
        else:
            out += CACHE_REFS[index]
        try:
            out += _three_u32(pid.id, pid.serial, pid.creation)
        except StructError as error:
            raise EncodeError(f"id, serial and creation of a pid have 32 bits each: {pid!r}") from error
    elif kind is bytes:
        data = cast(bytes, term)
        out += _tag_u32(BINARY_EXT, len(data))
        out += data
    elif kind is list:
        if depth <= 0:
            raise _TheOtherWay
        items = cast(list[Any], term)
        if items:
            if type(items[0]) is int and _is_string(items):
                out += _tag_u16(STRING_EXT, len(items))
                out += bytes(items)
                return
            put_head(out, LIST_EXT, len(items))
            for item in items:
                _put(out, item, refs, depth - 1)
        out.append(NIL_EXT)
    elif kind is Reference:
        reference = cast(Reference, term)
        put_reference(out, reference, refs)
    elif term is None:
        put_atom(out, _NIL, refs)
    elif kind is bool:
        put_atom(out, _TRUE if term else _FALSE, refs)
    elif kind is str:
        put_text(out, cast(str, term))
    elif kind is float:
        number = cast(float, term)
        if number - number != 0.0:
            raise EncodeError(f"Erlang has no float {number!r}; send an atom instead")
        out += _tag_f64(NEW_FLOAT_EXT, number)
    elif kind is dict:
        if depth <= 0:
            raise _TheOtherWay
        pairs = cast(dict[Any, Any], term)
        put_head(out, MAP_EXT, len(pairs))
        for key, item in pairs.items():
            _put(out, key, refs, depth - 1)
            _put(out, item, refs, depth - 1)
    else:
        if isinstance(term, Record):
            raise _TheOtherWay
        rest = put_rare(out, term, refs)
        if rest is not None:
            if depth <= 0:
                raise _TheOtherWay
            for part in rest:
                if type(part) is FunEnd:
                    patch_size(out, part.start)
                else:
                    _put(out, part, refs, depth - 1)


@final
class _TheOtherWay(Exception):
    """Sends the caller of :func:`_put` to :func:`_put_deep`: too deep for a recursion, or a record."""


def _children(out: BytesWriter, term: Any, refs: dict[bytes, int] | None) -> list[Any] | None:
    """Write the head of a compound and return its parts; None for a leaf, which is not written."""
    kind = type(term)
    if kind is tuple:
        return put_tuple(out, cast(tuple[Any, ...], term))
    if kind is list:
        items = cast(list[Any], term)
        if not items or (type(items[0]) is int and _is_string(items)):
            return None
        put_head(out, LIST_EXT, len(items))
        return [*items, []]
    if kind is dict:
        pairs = cast(dict[Any, Any], term)
        put_head(out, MAP_EXT, len(pairs))
        parts: list[Any] = []
        for key, item in pairs.items():
            parts.append(key)
            parts.append(item)
        return parts
    if isinstance(term, (tuple, list, dict, ImproperList, ErlMap, Fun, Record)):
        return put_rare(out, term, refs)
    return None


def _put_deep(out: BytesWriter, term: Any, refs: dict[bytes, int] | None, max_depth: int, no_records: str) -> None:
    """Do what :func:`_put` does with an explicit stack, to any depth up to ``max_depth``, and native records as well.

    ``no_records`` is why these cannot be sent; empty where they can.
    """
    stack: list[Iterator[Any]] = []
    parts: Iterator[Any] = iter([term])
    while True:
        for part in parts:
            if type(part) is FunEnd:
                patch_size(out, part.start)
                continue
            if len(stack) >= max_depth and isinstance(part, (tuple, list, dict, ImproperList, ErlMap, Fun, Record)):
                raise EncodeError(f"nested deeper than {max_depth} terms, or a structure that contains itself")
            if no_records and isinstance(part, Record):
                raise EncodeError(f"the record #{part.module.name}:{part.name.name} cannot be sent: {no_records}")
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

    Args:
        no_records: Why native records cannot be written, for the error that then names the record; empty if they can.
    """

    def __init__(self, no_records: str = "") -> None:
        self._out: Final = BytesWriter()
        self._no_records: Final = no_records

    def __len__(self) -> int:
        """Bytes held."""
        return len(self._out)

    def write(self, data: bytes) -> None:
        """Append ``data`` as it is."""
        self._out.write(data)

    def patch_u32(self, position: int, value: int) -> None:
        """Overwrite the four bytes at ``position``, big-endian: a length that was not known before."""
        if not 0 <= position <= len(self._out) - 4:
            raise IndexError(f"no four bytes at {position}: {len(self._out)} are held")
        _u32.pack_into(self._out, position, value & 0xFFFFFFFF)

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
        except (_TheOtherWay, RecursionError):
            self._undo(size, refs, known)
        except BaseException:
            self._undo(size, refs, known)
            raise
        else:
            return
        try:
            _put_deep(out, term, refs, max_depth, self._no_records)
        except BaseException:
            self._undo(size, refs, known)
            raise

    def write_frame(self, prefix: bytes, refs: dict[bytes, int], limit: int, *terms: Term) -> int:
        """Append a frame: ``prefix``, which begins with four bytes for the length, and one or two terms.

        Args:
            prefix: Length, version, and a header that lists the atoms in ``refs``.
            refs: As of :meth:`write_term`.
            limit: How long a frame may be, without the length itself, to be left as it is.
            terms: Control tuple and payload.

        Returns:
            0 when the frame is complete, its length filled in. Where it is longer than ``limit``, or has atoms that its
            header does not list, the position behind the first term: the rest is the caller's.

        Raises:
            EncodeError: As :meth:`write_term`; nothing is changed then.
        """
        out = self._out
        start = len(out)
        known = len(refs)
        out += prefix
        try:
            self.write_term(terms[0], refs)
            behind_first = len(out)
            for term in terms[1:]:
                self.write_term(term, refs)
        except BaseException:
            self._undo(start, refs, known)
            raise
        size = len(out) - start - 4
        if size > limit or len(refs) != known:
            return behind_first
        _u32.pack_into(out, start, size)
        return 0

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


def _write_part(term: Any, refs: dict[bytes, int] | None, depth: int) -> bytes | None:
    """Return one term within another, for the C core; None when :func:`_write_deep` has to write the whole."""
    out = BytesWriter()
    try:
        _put(out, term, refs, depth)
    except (_TheOtherWay, RecursionError):
        return None
    return bytes(out)


def _write_deep(term: Any, refs: dict[bytes, int] | None, max_depth: int, no_records: str) -> bytes:
    """Return a term that only the way with an explicit stack can write, for the C core."""
    out = BytesWriter()
    _put_deep(out, term, refs, max_depth, no_records)
    return bytes(out)


if core is not None:
    core.bind(encode_part=_write_part, encode_deep=_write_deep, atom_true=_TRUE, atom_false=_FALSE, atom_nil=_NIL)
    TermWriterInterpreted = TermWriter  # for the tests, which compare the two
    if not TYPE_CHECKING:
        TermWriter = core.TermWriter


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
