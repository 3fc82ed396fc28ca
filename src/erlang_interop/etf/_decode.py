"""Bytes to terms. Manual: *External Term Format*.

The public face is :mod:`erlang_interop.etf`; ``wire/`` calls :func:`decode_terms`. Two ways through, one result:

* :func:`~erlang_interop.etf._fast.decode_fast` recurses, and looks at the end of its frame only when it is done;
  Python's own bounds checks keep it inside the buffer. Whatever displeases it, it raises something.
* :func:`~erlang_interop.etf._careful.decode_carefully` then does the same work again with an explicit stack, checks
  every size before it is used, and either succeeds (a term nested more than :data:`_FAST_DEPTH` deep is legal) or
  raises the DecodeError that names the offset. It builds leaves and compounds with the same functions, so each form is
  spelled out once.

Bad input therefore costs twice the time of good input and is still linear in its length; nothing is allocated on the
word of a length field. Where the C core was built, its ``decode_terms`` stands in for the function here: it is a third
way, in front of the others, which reads the frequent tags itself and calls these two for the rest and for every error.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, Final

from erlang_interop._native import core
from erlang_interop.errors import DecodeError
from erlang_interop.etf._careful import decode_carefully, need
from erlang_interop.etf._fast import decode_fast
from erlang_interop.etf._parts import atom_from_bytes, make_list, make_map, u32
from erlang_interop.etf.tags import COMPRESSED, LOCAL_EXT, VERSION
from erlang_interop.terms import ImproperList, LocalTerm, Term

__all__ = ["MAX_DEPTH", "MAX_SIZE", "atom_from_bytes", "decode", "decode_terms"]

#: Nesting allowed by default, in terms.
MAX_DEPTH: Final = 10_000
#: Size allowed by default to a term after decompression, in bytes. Its Python values may take 64 times as much.
MAX_SIZE: Final = 16 * 1024 * 1024

#: The recursive way goes so deep, far from the end of any stack.
_FAST_DEPTH: Final = 100


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
        behind = decode_fast(data, pos, count, atoms, out, min(_FAST_DEPTH, max_depth))
        if behind <= end:
            return out, behind
    except Exception:
        pass  # whatever it was: the careful way either finds it again and names it, or succeeds
    out = []
    behind = decode_carefully(data, pos, end, count, atoms, out, max_depth)
    return out, behind


if core is not None:
    core.bind(
        atom_from_bytes=atom_from_bytes,
        make_list=make_list,
        make_map=make_map,
        improper_list=ImproperList,
        decode_fast=decode_fast,
        decode_carefully=decode_carefully,
    )
    decode_terms_interpreted = decode_terms  # for the tests, which compare the two
    if not TYPE_CHECKING:
        decode_terms = core.decode_terms


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
    need(5, pos, len(data), COMPRESSED)
    size = u32(data, pos + 1)
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
