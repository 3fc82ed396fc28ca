"""Messages and frames out of a stream that arrives in portions of any size.

The handshake's messages have a 2-byte length (over TLS a 4-byte one), the frames of the established connection a 4-byte
one. The former are few and small (:class:`MessageBuffer`). Of the latter millions come a second: the channel decodes
them where they lie in the received bytes, and only the one frame a portion cuts in two is collected here
(:class:`PartialFrame`). Compiled.
"""

from __future__ import annotations

from typing import Final, final

from .._native import i64, mypyc_attr

__all__ = ["MessageBuffer", "PartialFrame"]

_LENGTH: Final = 4
#: A part of fewer bytes is joined to the next: as an object of its own it would take many times its bytes.
_SMALL: Final = 4096


@final
class MessageBuffer:
    """Messages with a length in front, big-endian.

    Args:
        length_bytes: The bytes of the length: 2, or 4.
    """

    def __init__(self, length_bytes: int = 2) -> None:
        self._data = b""
        self._length_bytes = length_bytes

    def add(self, data: bytes) -> None:
        """Append what was received."""
        self._data += data

    def next(self) -> bytes | None:
        """Return the next message without its length; None while it is not complete."""
        data = self._data
        begin = self._length_bytes
        if len(data) < begin:
            return None
        end = begin + self.announced
        if len(data) < end:
            return None
        self._data = data[end:]
        return data[begin:end]

    @property
    def announced(self) -> int:
        """The length of the message that comes next, as far as it is there; 0 while its length is not."""
        if len(self._data) < self._length_bytes:
            return 0
        return int.from_bytes(self._data[: self._length_bytes], "big")

    def rest(self) -> bytes:
        """Return, once, what lies behind the messages taken."""
        data, self._data = self._data, b""
        return data


@final
@mypyc_attr(acyclic=True)
class PartialFrame:
    """The one frame, with its 4-byte length, that a portion ended in the middle of.

    However small the portions, it takes little more memory than its bytes, and each of these is copied twice, but for
    those of small portions, which are put together to parts of 4 KiB first.

    Attributes:
        pending: Bytes held; 0 when no frame is cut.
        total: Bytes of the whole frame with its length in front; 0 while fewer than four bytes of that are here.
    """

    def __init__(self) -> None:
        self.pending: i64 = 0
        self.total: i64 = 0
        self._parts: list[bytes] = []

    def keep(self, data: bytes, start: int) -> None:
        """Begin with what is behind ``start`` in ``data``. Only when nothing is held."""
        part = data[start:]
        self._parts = [part]
        self.pending = len(part)
        self._read_length(part)

    def fill(self, data: bytes, start: int) -> int:
        """Add from ``data``, beginning at ``start``, what the frame lacks and return the offset behind it.

        The frame is complete when then ``pending == total``. Its length may only just have become known: the caller
        checks ``total`` against its limit and calls again if bytes are left.
        """
        begin: i64 = start
        end: i64 = len(data)
        lacking: i64 = (self.total or _LENGTH) - self.pending
        if end - begin > lacking:
            end = begin + lacking
        part = data[begin:end]
        if self._parts and len(self._parts[-1]) < _SMALL:
            self._parts[-1] += part
        else:
            self._parts.append(part)
        self.pending += end - begin
        if not self.total and self.pending >= _LENGTH:
            self._read_length(self._parts[0])
        return int(end)

    def take(self) -> bytes:
        """Return the bytes held and forget them."""
        frame = b"".join(self._parts)
        self._parts = []
        self.pending = 0
        self.total = 0
        return frame

    def _read_length(self, head: bytes) -> None:
        if len(head) >= _LENGTH:
            self.total = _LENGTH + int.from_bytes(head[:_LENGTH], "big")
