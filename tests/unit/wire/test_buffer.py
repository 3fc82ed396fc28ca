"""``wire/buffer.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from erlang_interop.wire.buffer import MessageBuffer, PartialFrame
from tests.parsing import check_parser, portions

if TYPE_CHECKING:
    from collections.abc import Callable


def read_messages(buffer: MessageBuffer, data: bytes) -> list[bytes]:
    buffer.add(data)
    messages = []
    while (message := buffer.next()) is not None:
        messages.append(message)
    return messages


@pytest.mark.parametrize("length_bytes", [2, 4])
def test_messages_in_any_portions(length_bytes: int) -> None:
    data = b"".join(len(body).to_bytes(length_bytes, "big") + body for body in (b"abc", b"", bytes(260)))

    def make() -> Callable[[bytes], list[Any]]:
        buffer = MessageBuffer(length_bytes)
        return lambda portion: read_messages(buffer, portion)

    check_parser(make, data, [b"abc", b"", bytes(260)])


def test_the_next_length_is_known_before_its_message() -> None:
    buffer = MessageBuffer()
    buffer.add(b"\x12")
    assert buffer.announced == 0
    buffer.add(b"\x34\x00")
    assert buffer.announced == 0x1234
    assert buffer.next() is None


def test_the_rest_is_handed_over_once() -> None:
    buffer = MessageBuffer()
    assert read_messages(buffer, b"\x00\x01a") == [b"a"]
    buffer.add(b"\x00\x00\x00")
    assert buffer.rest() == b"\x00\x00\x00"
    assert buffer.rest() == b""
    assert buffer.next() is None


def collect(data: bytes, size: int) -> list[bytes]:
    """Cut ``data`` into portions, and these into frames, as the channel does."""
    frames, partial = [], PartialFrame()
    for portion in portions(data, size):
        position = 0
        while position < len(portion):
            if not partial.pending:
                partial.keep(portion, position)
                position = len(portion)
                if partial.total and partial.pending >= partial.total:
                    # more than one frame in the portion: give back what is behind the first
                    held = partial.take()
                    end = 4 + int.from_bytes(held[:4], "big")
                    frames.append(held[:end])
                    position -= len(held) - end
                continue
            position = partial.fill(portion, position)
            if partial.total and partial.pending == partial.total:
                frames.append(partial.take())
    return frames


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 64, 1000])
def test_a_frame_in_any_portions(size: int) -> None:
    bodies = [b"", b"a", bytes(3), bytes(range(200)), b"", bytes(1000)]
    frames = [len(body).to_bytes(4, "big") + body for body in bodies]
    assert collect(b"".join(frames), size) == frames


def test_the_length_is_known_from_the_fourth_byte_on() -> None:
    partial = PartialFrame()
    partial.keep(b"xx\x00\x00", 2)
    assert (partial.pending, partial.total) == (2, 0)
    assert partial.fill(b"\x01", 0) == 1
    assert (partial.pending, partial.total) == (3, 0)
    # no more is taken than the length, so that its owner can look at it first
    assert partial.fill(b"..\x02more", 2) == 3
    assert (partial.pending, partial.total) == (4, 4 + 0x102)


def test_many_small_portions_of_a_large_frame_are_cheap() -> None:
    """16 MiB in 4,096 portions: copying all that is held at each one would move 32 GiB."""
    size = 16 * 1024 * 1024
    partial = PartialFrame()
    partial.keep((size - 4).to_bytes(4, "big"), 0)
    portion = bytes(4096)
    for _ in range(size // 4096):
        partial.fill(portion, 0)
    assert partial.pending == partial.total == size
    assert len(partial.take()) == size
    assert (partial.pending, partial.total) == (0, 0)
