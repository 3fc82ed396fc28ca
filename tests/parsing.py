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
