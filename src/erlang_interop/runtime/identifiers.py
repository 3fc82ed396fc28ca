"""The numbers of pids and references: where they come from, and what happens when they run out.

They are those of a 64-bit BEAM. A pid there is a number of 28 bits and a serial of 32 (``erl_term.h``:
``_PID_NUM_SIZE``, ``_PID_SER_SIZE``). The place of an ended process in the process table is given to another under a
pid that is greater by the size of the table, modulo all these bits (``erl_ptab.c``): so pids come round, and none is
given twice at a time. Here they are counted one by one, and those of living processes are passed over.

A reference is a counter of 64 bits and the number of a scheduler, in three words of which the first has 18 bits
(``erl_bif_unique.h``: ``erts_set_ref_numbers()``); here the counter has all 82. Identifiers of an earlier life of the
node differ in their creation, which EPMD gives.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from ..terms import Pid, Reference

if TYPE_CHECKING:
    from collections.abc import Container

    from ..terms import Atom

#: The last number of a pid; with the one behind it the serial grows by one.
LAST_NUMBER: Final = (1 << 28) - 1
LAST_SERIAL: Final = (1 << 32) - 1
#: References count so far, and start again.
LAST_REFERENCE: Final = (1 << 18 + 32 + 32) - 1

_WORDS: Final = struct.Struct(">III")


class Identifiers:
    """Gives out the pids and references of one node.

    Args:
        living: The pids that are in use.

    Attributes:
        next_number: Of the next pid, unless that one is in use.
        next_serial: The same.
        next_reference: The counter of the next reference.
    """

    __slots__ = ("_kept", "_living", "next_number", "next_reference", "next_serial")

    def __init__(self, living: Container[Pid]) -> None:
        self._living = living
        self._kept: set[tuple[int, int]] = set()
        self.next_number = 1
        self.next_serial = 0
        self.next_reference = 1

    def pid(self, node: Atom, creation: int) -> Pid:
        """A pid that no living process has."""
        while True:
            number, serial = self.next_number, self.next_serial
            if number < LAST_NUMBER:
                self.next_number = number + 1
            else:
                self.next_number = 1
                self.next_serial = serial + 1 & LAST_SERIAL
            pid = Pid(node, number, serial, creation)
            if pid not in self._living and (number, serial) not in self._kept:
                return pid

    def kept_pid(self, node: Atom, creation: int) -> Pid:
        """A pid that nobody else will ever have, though no process of it is among the living."""
        pid = self.pid(node, creation)
        self._kept.add((pid.id, pid.serial))
        return pid

    def reference(self, node: Atom, creation: int) -> Reference:
        """A reference that was not given out for 2**82 others."""
        number = self.next_reference
        self.next_reference = number + 1 & LAST_REFERENCE
        return Reference(
            node, creation, _WORDS.pack(number & 0x3FFFF, number >> 18 & 0xFFFFFFFF, number >> 50 & 0xFFFFFFFF)
        )
