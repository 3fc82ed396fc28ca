"""The established connection: bytes to signals and signals to bytes.

:class:`DistChannel` cuts the stream into frames, reads the distribution header, decodes control tuple and payload and
checks the former against :mod:`~erlang_interop.wire.control`; in the other direction the same backwards. It owns the
atom caches, the fragments under way and the bytes that wait to be sent. It decides nothing: what a signal means is the
runtime's. Frames are decoded where they lie in the received bytes.

What a peer can send wrong ends up in :attr:`DistChannel.failure`; what was right before it is still returned.
Spec: erl_dist_protocol, "Protocol between Connected Nodes". Compiled.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import Any, Final, final

from .._native import core, i64
from ..errors import DecodeError, EncodeError, RemoteProtocolError
from ..etf._decode import decode_terms
from ..etf._encode import TermWriter
from ..etf.tags import SMALL_INTEGER_EXT, SMALL_TUPLE_EXT, VERSION
from ..flags import DFlag
from ..terms import Atom
from .buffer import PartialFrame
from .control import BY_OP, NO_PAYLOAD, Layout, check
from .fragments import FragmentReader
from .header import HeaderReader, HeaderWriter

__all__ = ["FRAGMENT_SIZE", "NO_PAYLOAD", "DistChannel", "Limits"]

#: What follows the version byte at the start of a frame.
_HEADER: Final[i64] = 68
_FIRST_FRAGMENT: Final[i64] = 69
_FURTHER_FRAGMENT: Final[i64] = 70
#: Start of a frame where no distribution header was agreed on, and of such a frame as we write it.
_PASS_THROUGH: Final[i64] = 112
_PASSING: Final = b"\0\0\0\0\x70\x83"

#: A message of more bytes is cut into fragments of this size, as by a BEAM (``dist.h``: ERTS_DIST_FRAGMENT_SIZE).
FRAGMENT_SIZE: Final = 64 * 1024
#: How many atoms of earlier frames a header may list beside its own: each costs a byte and a half.
_HOT_ATOMS: Final = 24
#: Start of a frame with a header: room for the length, version, tag.
_PREFIX: Final = b"\0\0\0\0\x83\x44"

#: Bytes of a buffer that is let go of rather than used again.
_LARGE: Final = 4 * 1024 * 1024
_TICK: Final = b"\0\0\0\0"
_RULE: Final = "Protocol between Connected Nodes"
_NO_ATOMS: Final[list[Any]] = []

_read_u32: Final = Struct(">I").unpack_from


def read_frames_interpreted(
    data: bytes,
    pos: int,
    headers: dict[bytes, list[Any]],
    peer: Atom,
    max_depth: int,
    signals: list[tuple[tuple[Any, ...], Any]],
) -> int:
    """Decode frames of the most frequent kind as long as no other comes.

    These are: one whole message, a header that announces nothing new and was seen before, and an operation that stands
    where all implementations write it. The C core has the same for the compiled build.

    Args:
        data: What the socket gave.
        pos: Where a frame starts.
        headers: :attr:`HeaderReader.known`.
        peer: Name of the node that sends them.
        max_depth: Nesting of terms allowed.
        signals: Takes control tuples and payloads.

    Returns:
        Where the first frame starts that is of another kind, cut short or in any way wrong; nothing was done for it.
    """
    end = len(data)
    while end - pos > 8:
        start = pos + 4
        behind = start + _read_u32(data, pos)[0]
        if behind > end or behind - start <= 8 or data[start] != VERSION or data[start + 1] != _HEADER:
            break
        at = start + 4 + (data[start + 2] >> 1) + data[start + 2]
        atoms = headers.get(data[start + 2 : at])
        if (
            atoms is None
            or behind - at <= 3
            or data[at] != SMALL_TUPLE_EXT
            or data[at + 2] != SMALL_INTEGER_EXT
            or data[at + 3] >= len(BY_OP)
        ):
            break
        layout = BY_OP[data[at + 3]]
        if layout is None:
            break
        try:
            terms, decoded = decode_terms(data, at, behind, layout.terms, atoms, max_depth)
        except DecodeError:
            break  # it is decoded once more, where the error is reported
        if decoded != behind or not layout.accepts(terms[0], peer):
            break
        signals.append((terms[0], terms[1] if layout.has_payload else NO_PAYLOAD))
        pos = behind
    return pos


read_frames: Final[Any] = read_frames_interpreted if core is None else core.read_frames


@dataclass(frozen=True)
class Limits:
    """What one peer may make us hold."""

    #: Bytes of one message: of a frame, or of all fragments of a payload.
    max_message: int = 1 << 30
    #: Messages under way in fragments: each of a peer's processes may be sending one.
    max_sequences: int = 10_000
    #: Bytes of all of them, with what is decoded of them already.
    max_fragmented: int = 1 << 31
    #: Nesting of terms.
    max_depth: int = 10_000


@final
class DistChannel:
    """One connection after its handshake.

    Args:
        agreed: What both nodes can do, as :class:`~erlang_interop.wire.handshake.Established` says.
        peer: Name of the other node.
        limits: What it may make us hold.

    Attributes:
        failure: Why the connection must be closed: what the peer sent wrong. None as long as all is well.
        frames_received: Frames, ticks among them.
        frames_sent: The same.
        bytes_received: All bytes given to :meth:`receive_data`.
        bytes_sent: All bytes taken by :meth:`data_to_send`.
    """

    def __init__(self, agreed: DFlag, *, peer: str, limits: Limits | None = None) -> None:
        limits = limits or Limits()
        self.failure: RemoteProtocolError | None = None
        self.frames_received: i64 = 0
        self.frames_sent: i64 = 0
        self.bytes_received: i64 = 0
        self.bytes_sent: i64 = 0
        self._peer_name = peer
        self._peer: Atom = Atom(peer)
        self._max_message: i64 = limits.max_message
        self._max_depth = limits.max_depth
        # receiving
        self._partial = PartialFrame()
        self._reader = HeaderReader()
        self._fragments = FragmentReader(limits.max_message, limits.max_sequences, limits.max_fragmented)
        self._start: i64 = 0  # of the frame in hand, in the bytes in hand: offsets are told from there
        # Either flag alone brings the distribution header with it; without an atom cache it lists no atoms.
        self._has_cache = bool(agreed & DFlag.DIST_HDR_ATOM_CACHE)
        self._cut = bool(agreed & DFlag.FRAGMENTS)
        self._has_header = self._has_cache or self._cut
        # sending
        self._headers = HeaderWriter()
        #: Atoms of the last frames and their index in the header that lists them, which is in ``_prefix``.
        self._refs: dict[bytes, int] = {}
        self._prefix: bytes = _PREFIX + b"\0"
        #: What is to be sent: first the chunks, then what is in ``_out``.
        self._chunks: list[bytes] = []
        self._chunked = 0
        self._no_records = "" if agreed & DFlag.NATIVE_RECORDS else f"{peer} has no flag NATIVE_RECORDS (OTP 29)"
        self._out = TermWriter(self._no_records)
        self._sequence = 0

    # ------------------------------------------------------------------------------------------------------ receiving

    def receive_data(self, data: bytes) -> list[tuple[tuple[Any, ...], Any]]:
        """Take what the socket gave, in portions of any size, and return the signals that are complete, in order.

        Returns:
            Control tuples, each with its payload or :data:`~erlang_interop.wire.control.NO_PAYLOAD`. Operation, arity
            and slots are as the row of ``control.LAYOUTS`` says. When :attr:`failure` is set afterwards, the list holds
            what came before the fault; from then on nothing is received any more.
        """
        signals: list[tuple[tuple[Any, ...], Any]] = []
        if self.failure is not None:
            return signals
        self.bytes_received += len(data)
        try:
            self._receive(data, signals)
        except DecodeError as error:
            self._fail(error.message, error.offset, "External Term Format", error)
        except RemoteProtocolError as error:
            self._fail(error.message, error.offset, error.rule, error)
        return signals

    def _fail(self, message: str, offset: int | None, rule: str | None, cause: Exception) -> None:
        """Keep the first fault; its offset counts from the start of the frame, behind the length.

        A payload that came in fragments is decoded as a whole: there it counts from the payload's start. What is wrong
        with a frame as a whole is at its start.
        """
        relative = 0 if offset is None or offset < int(self._start) else offset - int(self._start)
        self.failure = RemoteProtocolError(message, self._peer_name, relative, rule)
        self.failure.__cause__ = cause
        # Nothing is received any more, so what was under way is let go at once.
        self._partial = PartialFrame()
        self._fragments = FragmentReader(0, 0, 0)

    def _receive(self, data: bytes, signals: list[tuple[tuple[Any, ...], Any]]) -> None:
        """Cut ``data`` into frames and decode them: the frequent kind all at once, any other by :meth:`_frame`."""
        pos: int = 0
        end = len(data)
        if self._partial.pending:
            pos = self._complete(data, signals)
        while True:
            before = len(signals)
            pos = read_frames(data, pos, self._reader.known, self._peer, self._max_depth, signals)
            self.frames_received += len(signals) - before
            if end - pos < 4:
                break
            start = pos + 4
            size: int = _read_u32(data, pos)[0]
            if size > end - start:
                self._check_size(size)
                break
            pos = start + size
            self.frames_received += 1
            if size > 0:
                self._start = start
                self._frame(data, start, pos, signals)
        if pos < end:
            self._partial.keep(data, pos)

    def _complete(self, data: bytes, signals: list[tuple[tuple[Any, ...], Any]]) -> i64:
        """Give the frame that was cut what it lacks; return the position in ``data`` behind it."""
        partial = self._partial
        pos: i64 = partial.fill(data, 0)
        if partial.total:
            self._check_size(partial.total - 4)
            if pos < len(data):
                pos = partial.fill(data, pos)
            if partial.pending == partial.total:
                frame = partial.take()
                self.frames_received += 1
                if len(frame) > 4:
                    self._start = 4
                    self._frame(frame, 4, len(frame), signals)
        return pos

    def _check_size(self, size: i64) -> None:
        if size > self._max_message:
            raise RemoteProtocolError(f"a frame of {size} bytes; {self._max_message} are allowed", None, None, _RULE)

    def _frame(self, data: bytes, pos: i64, end: i64, signals: list[tuple[tuple[Any, ...], Any]]) -> None:
        """Decode one frame, ``data[pos:end]``, that is not a tick. Which forms it may have was agreed on."""
        kind: i64 = data[pos]
        if not self._has_header:
            # A BEAM writes 112 here and does not look at it (external.c: erts_prepare_dist_ext).
            if end - pos > 2 and data[pos + 1] == VERSION and not _HEADER <= i64(data[pos + 2]) <= _FURTHER_FRAGMENT:
                self._message(data, pos + 2, end, _NO_ATOMS, signals)
                return
        elif kind == VERSION and end - pos > 2:
            kind = data[pos + 1]
            if kind == _HEADER:
                atoms = self._atoms(data, pos + 2, end)
                self._message(data, self._reader.position, end, atoms, signals)
                return
            if _FIRST_FRAGMENT <= kind <= _FURTHER_FRAGMENT:
                if self._cut:
                    self._fragment(data, pos, end, kind, signals)
                    return
                raise _broken("a fragment, but fragments were not agreed on", pos)
        elif kind == _PASS_THROUGH:
            raise _broken("a frame passed through, but a distribution header was agreed on", pos)
        raise _broken(f"no frame begins with {data[pos : min(pos + 3, end)]!r}", pos)

    def _atoms(self, data: bytes, pos: i64, end: i64) -> list[Any]:
        """Return the atoms of the header at ``pos``; the reader knows where it ends."""
        if not self._has_cache and pos < end and data[pos] != 0:
            raise _broken("a header with atoms, but no atom cache was agreed on", pos)
        return self._reader.read(data, pos, end)

    def _layout(self, control: Any, more: bool, pos: i64) -> Layout:
        """Return the row of a control tuple, which stood at ``pos`` and was followed by ``more`` bytes or not.

        Bytes behind the last term are no fault: a BEAM does not look at them (dist.c: erts_net_message).
        """
        has_payload = False
        if more and isinstance(control, tuple) and control:
            op = control[0]
            if type(op) is int and 0 <= op < 64:
                row = BY_OP[op]
                has_payload = row is not None and row.has_payload
        try:
            return check(control, has_payload, self._peer)
        except RemoteProtocolError as error:
            error.offset = int(pos)
            raise

    def _message(
        self, data: bytes, pos: i64, end: i64, atoms: list[Any], signals: list[tuple[tuple[Any, ...], Any]]
    ) -> None:
        """Decode control tuple and payload, which stand behind each other.

        Without a header each of them has a version byte of its own; that of the first is read already.
        """
        terms, behind = decode_terms(data, pos, end, 1, atoms, self._max_depth)
        control = terms[0]
        payload = NO_PAYLOAD
        if self._layout(control, behind < end, pos).has_payload:
            if not self._has_header:
                if data[behind] != VERSION:
                    raise _broken("the payload has no version byte", behind)
                behind += 1
            terms, behind = decode_terms(data, behind, end, 1, atoms, self._max_depth)
            payload = terms[0]
        signals.append((control, payload))

    def _fragment(self, data: bytes, pos: i64, end: i64, kind: i64, signals: list[tuple[tuple[Any, ...], Any]]) -> None:
        """Take one fragment; with the last the message is decoded."""
        if end - pos < 18:
            raise _broken("a fragment's header is cut short", pos)
        sequence = int.from_bytes(data[pos + 2 : pos + 10], "big")
        fragment = int.from_bytes(data[pos + 10 : pos + 18], "big")
        fragments = self._fragments
        if kind == _FIRST_FRAGMENT:
            fragments.check_first(sequence, fragment)
            atoms = self._atoms(data, pos + 18, end)
            pos = self._reader.position
            if fragment == 1:
                self._message(data, pos, end, atoms, signals)
                return
            terms, behind = decode_terms(data, pos, end, 1, atoms, self._max_depth)
            self._layout(terms[0], True, pos)
            fragments.first(sequence, fragment, terms[0], behind - pos, atoms, data[behind:end])
            return
        body = fragments.further(sequence, fragment, data[pos + 18 : end])
        if body is None:
            return
        self._start = 0
        control = fragments.control
        payload = NO_PAYLOAD
        if self._layout(control, True, 0).has_payload:
            terms, _ = decode_terms(body, 0, len(body), 1, fragments.atoms, self._max_depth)
            payload = terms[0]
        signals.append((control, payload))

    # -------------------------------------------------------------------------------------------------------- sending

    @property
    def pending(self) -> int:
        """Bytes that wait to be sent."""
        return self._chunked + len(self._out)

    def send(self, control: tuple[Any, ...], payload: Any = NO_PAYLOAD) -> None:
        """Append one signal to the out buffer.

        Args:
            control: As ``Layout.pack`` builds it; not checked.
            payload: The message, reason or arguments, for the operations that have one.

        Raises:
            EncodeError: A value has no Erlang form. Out buffer and atom cache are as before.
        """
        if not self._has_cache:
            self._send_without_cache(control, payload)
            return
        # The header is written before it is known which atoms the terms have: it lists those of the frames before, and
        # mostly these are all. A frame with others is put together anew, from the terms as they were written.
        out = self._out
        refs = self._refs
        known = len(refs)
        start = len(out)
        prefix = self._prefix
        if payload is NO_PAYLOAD:
            behind_control: int = out.write_frame(prefix, refs, FRAGMENT_SIZE, control)
        else:
            behind_control = out.write_frame(prefix, refs, FRAGMENT_SIZE, control, payload)
        if behind_control == 0:
            self.frames_sent += 1
            return
        try:
            _check_frame(len(out) - start - 4)
        except EncodeError:
            out.truncate(start)
            while len(refs) > known:
                refs.popitem()
            raise
        self._finish(start, len(prefix), behind_control, len(refs) != known, payload is not NO_PAYLOAD)

    def _finish(self, start: int, prefix: int, behind_control: int, new_atoms: bool, has_payload: bool) -> None:
        """Put a frame together whose header or form is not the one expected; its terms are the end of ``_out``."""
        data = self._take_out()
        body = data[start + prefix :]
        if start:
            self._add(data[:start])
        if new_atoms:
            header = self._headers.header(self._refs)
            # A slot may have been taken over from an atom of this very header: listed once more it would be another's.
            if len(self._refs) > _HOT_ATOMS or not self._headers.knows(self._refs):
                self._refs = {}
            self._prefix = _PREFIX + self._headers.header(self._refs)
        else:
            header = self._prefix[len(_PREFIX) :]
        if len(body) > FRAGMENT_SIZE and has_payload and self._cut:
            self._add_fragments(header, body, behind_control - start - prefix)
        else:
            self._add((2 + len(header) + len(body)).to_bytes(4, "big") + b"\x83\x44" + header)
            self._add(body)
            self.frames_sent += 1

    def _take_out(self) -> bytes:
        """Empty ``_out``; one that has grown large is not kept for the rest of the connection."""
        data = self._out.take()
        if len(data) > _LARGE:
            self._out = TermWriter(self._no_records)
        return data

    def _add(self, chunk: bytes) -> None:
        """Append bytes behind all that is to be sent; ``_out`` is empty then."""
        self._chunks.append(chunk)
        self._chunked += len(chunk)

    def _add_fragments(self, header: bytes, body: bytes, control_size: int) -> None:
        """Append a message in fragments. The control tuple must be wholly in the first."""
        starts = [0, *range(max(FRAGMENT_SIZE, control_size), len(body), FRAGMENT_SIZE)]
        ends = [*starts[1:], len(body)]
        self._sequence += 1
        kind = b"\x83\x45" + self._sequence.to_bytes(8, "big")
        number = len(starts)
        for start, end in zip(starts, ends, strict=True):
            head = kind + number.to_bytes(8, "big") + header
            self._add((len(head) + end - start).to_bytes(4, "big") + head)
            self._add(body[start:end])
            kind = b"\x83\x46" + kind[2:]
            header = b""
            number -= 1
        self.frames_sent += len(starts)

    def _send_without_cache(self, control: tuple[Any, ...], payload: Any) -> None:
        """Append a frame with all atoms in full: behind a header that lists none, or behind none at all.

        Without a header each term has a version byte of its own.
        """
        out = self._out
        start = len(out)
        prefix = self._prefix if self._has_header else _PASSING
        try:
            out.write(prefix)
            out.write_term(control)
            behind_control = len(out)
            if payload is not NO_PAYLOAD:
                if not self._has_header:
                    out.write(b"\x83")
                out.write_term(payload)
            size = len(out) - start - 4
            _check_frame(size)
        except BaseException:
            out.truncate(start)
            raise
        if self._cut and payload is not NO_PAYLOAD and size > FRAGMENT_SIZE:
            self._finish(start, len(prefix), behind_control, False, True)
            return
        out.patch_u32(start, size)
        self.frames_sent += 1

    def send_tick(self) -> None:
        """Append a tick: a frame of length 0."""
        self._out.write(_TICK)
        self.frames_sent += 1

    def data_to_send(self) -> bytes:
        """Return, once, all bytes that wait."""
        data = self._take_out()
        if self._chunks:
            self._chunks.append(data)
            data = b"".join(self._chunks)
            self._chunks = []
            self._chunked = 0
        self.bytes_sent += len(data)
        return data


def _check_frame(size: int) -> None:
    """Refuse what the 32 bits of a frame's length cannot count; the fragments' headers are far below the difference."""
    if size > 0xFFF00000:
        raise EncodeError(f"a message of {size} bytes is more than the 4 GiB of a frame; send it in parts")


def _broken(message: str, pos: i64) -> RemoteProtocolError:
    """Say what is wrong with a frame, and where."""
    return RemoteProtocolError(message, None, int(pos), _RULE)
