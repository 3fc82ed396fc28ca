"""The treatment every incremental parser gets: whole, in portions of every size, with more behind it, cut anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def portions(data: bytes, size: int) -> list[bytes]:
    """Cut ``data`` into pieces of ``size`` bytes; the last may be shorter."""
    return [data[start : start + size] for start in range(0, len(data), size)]


def check_parser(make: Callable[[], Callable[[bytes], list[Any]]], data: bytes, expected: list[Any]) -> None:
    """Feed ``data`` to fresh parsers and compare what comes out with ``expected``.

    Args:
        make: Returns the receive function of a new parser; it takes bytes and returns a list.
        data: Exactly the bytes of ``expected``.
        expected: What must come out, in order, once all of it is in, and not before.
    """
    assert make()(data) == expected, "in one piece"
    for size in range(1, 8):
        receive = make()
        got = [item for portion in portions(data, size) for item in receive(portion)]
        assert got == expected, f"in portions of {size}"
    for cut in range(len(data)):
        receive = make()
        early = receive(data[:cut])
        assert early == expected[: len(early)], f"cut at {cut}"
        assert len(early) < len(expected), f"complete although cut at {cut}"
        assert early + receive(data[cut:]) == expected, f"continued at {cut}"


def frames_of(data: bytes) -> list[bytes]:
    """Cut what a channel wrote into frames, each with its 4-byte length."""
    frames = []
    start = 0
    while start < len(data):
        end = start + 4 + int.from_bytes(data[start : start + 4], "big")
        frames.append(data[start:end])
        start = end
    return frames


def interleaved(messages: list[list[bytes]], choose: Callable[[int], int]) -> list[tuple[int, bytes]]:
    """Put the frames of several messages into one stream, as the scheduler of a node with many senders may do.

    A frame with a distribution header changes the atom cache, so those of all messages stay in order; what follows a
    first fragment may come at any time after it, in its own order.

    Args:
        messages: The frames of each message, in the order in which a channel wrote them.
        choose: Given a number of choices, returns one of them, from 0.

    Returns:
        Each frame with the number of its message.
    """
    stream: list[tuple[int, bytes]] = []
    begun: list[tuple[int, list[bytes]]] = []
    waiting = list(enumerate(messages))
    while waiting or begun:
        chosen = choose(len(begun) + bool(waiting))
        if chosen == len(begun):
            number, (first, *rest) = waiting.pop(0)
            stream.append((number, first))
            if rest:
                begun.append((number, rest))
        else:
            number, rest = begun[chosen]
            stream.append((number, rest.pop(0)))
            if not rest:
                del begun[chosen]
    return stream
