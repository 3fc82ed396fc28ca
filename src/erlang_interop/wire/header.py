"""The distribution header in front of the terms of a frame: the atom cache of either direction.

::

    131, 68, Refs                    one whole message
    131, 69, Seq:64, Fragment:64, Refs    the first fragment of one; the control tuple is wholly in it
    131, 70, Seq:64, Fragment:64     a further one; fragment numbers count down to 1

    Refs:  N:8, flags: N+1 nibbles in N//2 + 1 bytes, N references          (N = 0: nothing follows)
    reference:  slot's low 8 bits, and if it is new: length (16 bits if LongAtoms, else 8), the atom's text

The nibble of a reference is ``new:1, segment:3``, segment and low bits make a slot of 2,048; the last nibble's lowest
bit is LongAtoms. The terms behind say ``ATOM_CACHE_REF i`` for the i-th reference. The two directions of a connection
have a cache each. Spec: erl_ext_dist, "Distribution Header"; ``erts_prepare_dist_ext()`` of ``external.c``. Compiled.
"""

from __future__ import annotations

from typing import Any, Final, final

from .._native import i64
from ..errors import DecodeError, RemoteProtocolError
from ..etf._decode import atom_from_bytes
from ..etf.tags import ATOM_UTF8_EXT

__all__ = ["CACHE_SLOTS", "MAX_REFS", "HeaderReader", "HeaderWriter"]

#: Slots of an atom cache.
CACHE_SLOTS: Final = 2048
#: References one header can list.
MAX_REFS: Final = 255

#: Headers remembered as read; a peer that never repeats one costs itself time, not us memory.
_MEMO_LIMIT: Final = 4096

_RULE: Final = "Distribution Header"

_NO_ATOMS: Final[list[Any]] = []


@final
class _Unset:
    """The type of what an unused slot holds; None would be the atom ``nil``."""


_UNSET: Final[Any] = _Unset()


@final
class HeaderReader:
    """The atoms a peer has sent us on one connection.

    Attributes:
        position: Where the terms start: the offset behind the header last read.
        known: What :meth:`read` returned for headers without new entries, by their bytes.
    """

    def __init__(self) -> None:
        self.position: i64 = 0
        self._slots: list[Any] = [_UNSET] * CACHE_SLOTS
        # A header without new entries means the same as long as no slot changes.
        self.known: dict[bytes, list[Any]] = {}

    def read(self, data: bytes, pos: i64, end: i64) -> list[Any]:
        """Return the atoms of the references that start (with their number) at ``pos``.

        The list is shared between frames: it is only to be read.

        Raises:
            RemoteProtocolError: Cut short, an unused slot, a malformed atom. ``offset`` counts from the start of
                ``data``.
        """
        if pos >= end:
            raise RemoteProtocolError("the header is cut short", None, int(pos), _RULE)
        count: i64 = data[pos]
        if count == 0:
            self.position = pos + 1
            return _NO_ATOMS
        behind: i64 = pos + 2 + (count >> 1) + count
        known = self.known.get(data[pos:behind])
        if known is not None and behind <= end:
            self.position = behind
            return known
        return self._parse(data, pos, end, count)

    def _parse(self, data: bytes, pos: i64, end: i64, count: i64) -> list[Any]:
        start = pos
        flags: i64 = pos + 1
        pos = flags + (count >> 1) + 1
        if pos + count > end:
            raise RemoteProtocolError(f"the header with {count} references is cut short", None, int(start), _RULE)
        last: i64 = data[pos - 1]
        long_atoms = (last >> 4 if count & 1 else last) & 1
        slots = self._slots
        atoms: list[Any] = []
        changed = False
        i: i64 = 0
        while i < count:
            nibble: i64 = data[flags + (i >> 1)]
            nibble = nibble >> 4 if i & 1 else nibble & 15
            if pos >= end:
                raise RemoteProtocolError("the header is cut short", None, int(pos), _RULE)
            slot: i64 = (nibble & 7) << 8 | i64(data[pos])
            pos += 1
            if nibble & 8:
                if not changed:
                    changed = True
                    self.known.clear()
                if pos + long_atoms >= end:
                    raise RemoteProtocolError("the header is cut short", None, int(pos), _RULE)
                size: i64 = data[pos]
                if long_atoms:
                    size = size << 8 | i64(data[pos + 1])
                pos += 1 + long_atoms
                if pos + size > end:
                    raise RemoteProtocolError("an atom of the header is cut short", None, int(pos), _RULE)
                try:
                    slots[slot] = atom_from_bytes(data[pos : pos + size])
                except DecodeError as error:
                    raise RemoteProtocolError(error.message, None, int(pos), _RULE) from error
                pos += size
            atom = slots[slot]
            if atom is _UNSET:
                raise RemoteProtocolError(f"cache slot {slot} was never filled", None, int(pos) - 1, _RULE)
            atoms.append(atom)
            i += 1
        if not changed and len(self.known) < _MEMO_LIMIT:
            self.known[data[start:pos]] = atoms
        self.position = pos
        return atoms


@final
class HeaderWriter:
    """The atoms we have sent a peer on one connection.

    An atom is known here by its external form, ``Atom.wire``: tag, length, text. When all slots are used, the one
    filled longest ago is filled anew.
    """

    def __init__(self) -> None:
        self._slots: dict[bytes, int] = {}
        self._wires: list[bytes] = []
        self._next: i64 = 0

    def header(self, refs: dict[bytes, int]) -> bytes:
        """Return the ``Refs`` part for the atoms of a frame, and remember what it announces.

        To be called for a frame that is going to be sent, in the order of sending: from now on the peer knows them.

        Args:
            refs: The atoms with their index, in the order of the index; at most :data:`MAX_REFS`.
        """
        if not refs:
            return b"\x00"
        wires = list(refs)
        count: i64 = len(wires)
        slots: list[int] = []
        fresh: list[bool] = []
        long_atoms = False
        for wire in wires:
            slot = self._slots.get(wire, -1)
            fresh.append(slot < 0)
            if slot < 0:
                slot = self._fill(wire)
                long_atoms = long_atoms or wire[0] == ATOM_UTF8_EXT
            slots.append(slot)
        flags = bytearray((count >> 1) + 1)
        references: list[bytes] = []
        i: i64 = 0
        while i < count:
            number: i64 = slots[i]
            nibble = number >> 8
            reference = bytes((number & 255,))
            if fresh[i]:
                nibble |= 8
                wire = wires[i]
                text = wire[3:] if wire[0] == ATOM_UTF8_EXT else wire[2:]
                reference += len(text).to_bytes(2 if long_atoms else 1, "big") + text
            flags[i >> 1] |= nibble << 4 if i & 1 else nibble
            references.append(reference)
            i += 1
        if long_atoms:
            flags[count >> 1] |= 16 if count & 1 else 1
        return bytes((count,)) + bytes(flags) + b"".join(references)

    def knows(self, refs: dict[bytes, int]) -> bool:
        """Return whether all these atoms have slots: their header then announces nothing, and may be repeated."""
        return refs.keys() <= self._slots.keys()

    def _fill(self, wire: bytes) -> int:
        """Give an atom a slot. One in use may be taken over: the reader takes a header's references in their order."""
        slot = int(self._next)
        self._next = (self._next + 1) % CACHE_SLOTS
        if slot < len(self._wires):
            del self._slots[self._wires[slot]]
            self._wires[slot] = wire
        else:
            self._wires.append(wire)
        self._slots[wire] = slot
        return slot
