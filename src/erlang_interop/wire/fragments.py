"""Messages that come in fragments: those under way, and what a peer may make us hold of them.

A sequence of fragments begins with one that has the distribution header and the whole control tuple; the last is number
1. Fragments of different sequences interleave, each sequence is in order. ``header.py`` draws their headers.
Spec: erl_ext_dist, "Distribution Header for fragmented messages"; ``erts_net_message()`` of ``dist.c``. Compiled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

from ..errors import RemoteProtocolError
from ..terms import Atom

if TYPE_CHECKING:
    from .._native import i64

__all__ = ["FragmentReader"]

#: What keeping a fragment costs beside its bytes: empty ones are not free.
_PART_COST: Final = 64
#: What a byte of a control tuple may take once it is decoded, and what an atom takes beside its text, which is kept in
#: several forms.
_DECODED_COST: Final = 64
_ATOM_COST: Final = 160

_RULE: Final = "Distribution Header, fragmented messages"
_NO_ATOMS: Final[list[Any]] = []


@final
class _Sequence:
    """A message of which some fragments are here."""

    def __init__(self, control: Any, atoms: list[Any], missing: int) -> None:
        self.control = control
        self.atoms = atoms
        self.parts: list[bytes] = []
        self.size: i64 = 0
        self.cost: i64 = 0
        self.missing = missing


@final
class FragmentReader:
    """The messages of a peer that are under way in fragments; those of several senders interleave.

    Args:
        max_message: Bytes of one message's payload.
        max_sequences: Messages under way at the same time.
        max_bytes: Bytes of all of them, with what is decoded of them already: control tuples and atoms.

    Attributes:
        control: Of the message last completed: its control tuple, decoded.
        atoms: Its header's atoms.
        held: What those under way take, in bytes.
    """

    def __init__(self, max_message: int, max_sequences: int, max_bytes: int) -> None:
        self.control: Any = None
        self.atoms: list[Any] = _NO_ATOMS
        self.held: i64 = 0
        self._max_message: i64 = max_message
        self._max_sequences: i64 = max_sequences
        self._max_bytes: i64 = max_bytes
        self._open: dict[int, _Sequence] = {}

    def __len__(self) -> int:
        """Messages under way."""
        return len(self._open)

    def check_first(self, sequence: int, fragment: int) -> None:
        """Refuse the first fragment of a message that cannot begin now; ``fragment`` is how many it says there are."""
        if fragment == 0:
            raise RemoteProtocolError("fragments are numbered down to 1", None, None, _RULE)
        if sequence in self._open:
            raise RemoteProtocolError(f"sequence {sequence} begins a second time", None, None, _RULE)
        if fragment > 1 and len(self._open) >= self._max_sequences:
            raise RemoteProtocolError(
                f"more than {self._max_sequences} messages under way in fragments", None, None, _RULE
            )

    def first(
        self, sequence: int, fragment: int, control: Any, control_size: int, atoms: list[Any], part: bytes
    ) -> None:
        """Begin a message of ``fragment`` fragments, at least two, that :meth:`check_first` let pass.

        Args:
            sequence: Its id.
            fragment: How many fragments it has.
            control: Its control tuple, decoded.
            control_size: Bytes it was decoded from.
            atoms: Those of its header.
            part: What follows the control tuple.
        """
        message = _Sequence(control, atoms, fragment - 1)
        cost: i64 = control_size * _DECODED_COST
        for atom in atoms:
            cost += _ATOM_COST
            if isinstance(atom, Atom):
                cost += 4 * len(atom.wire)
        self._add(message, part, cost)
        self._open[sequence] = message

    def further(self, sequence: int, fragment: int, part: bytes) -> bytes | None:
        """Add a fragment. Return the whole payload with the last; ``control`` and ``atoms`` then are those of it."""
        message = self._open.get(sequence)
        if message is None:
            raise RemoteProtocolError(f"sequence {sequence} was never begun", None, None, _RULE)
        if fragment != message.missing:
            raise RemoteProtocolError(
                f"fragment {fragment} of sequence {sequence} where {message.missing} is due", None, None, _RULE
            )
        self._add(message, part, 0)
        message.missing -= 1
        if message.missing:
            return None
        del self._open[sequence]
        self.held -= message.cost
        self.control = message.control
        self.atoms = message.atoms
        return b"".join(message.parts)

    def _add(self, message: _Sequence, part: bytes, cost: i64) -> None:
        """Keep a fragment, and count what that takes."""
        cost += len(part) + _PART_COST
        message.parts.append(part)
        message.size += len(part)
        message.cost += cost
        self.held += cost
        if message.size > self._max_message:
            raise RemoteProtocolError(f"a message of more than {self._max_message} bytes", None, None, _RULE)
        if self.held > self._max_bytes:
            raise RemoteProtocolError(f"more than {self._max_bytes} bytes under way in fragments", None, None, _RULE)
