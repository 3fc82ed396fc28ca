"""Malformed messages: said once for each sender, then only counted.

A peer that sends nonsense may send a lot of it; the log must not be a second way to be flooded.
"""

from __future__ import annotations

import reprlib
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import structlog

from erlang_interop.terms import Atom, Export, ImproperList, Pid, Port, Reference

if TYPE_CHECKING:
    from .counters import Counters

#: Senders and problems remembered; beyond it they are counted but not logged, so memory stays bounded.
MOST_REMEMBERED: Final = 1000

_log = structlog.get_logger("zenmon_node")


#: Terms that are small and show themselves; all other objects show no more than their type.
_SMALL: Final = (Atom, Pid, Port, Reference, Export, float, bool, type(None))


class _Shortened(reprlib.Repr):
    """A repr whose cost does not grow with the message, and which never raises.

    The library's own makes the text of a whole integer or object first, sorts the keys of a map, and Python refuses to
    write integers of thousands of digits.
    """

    def repr_bytes(self, data: bytes, level: int) -> str:
        return repr(data) if len(data) <= 60 else f"{data[:60]!r}... ({len(data)} bytes)"

    def repr_int(self, number: int, level: int) -> str:
        bits = number.bit_length()
        return repr(number) if bits <= 128 else f"<integer of {bits} bits>"

    def repr_dict(self, table: dict[Any, Any], level: int) -> str:
        if level <= 0:
            return "{...}" if table else "{}"
        pairs = [
            f"{self.repr1(key, level - 1)}: {self.repr1(value, level - 1)}"
            for key, value in islice(table.items(), self.maxdict)
        ]
        return "{" + ", ".join([*pairs, "..."] if len(table) > self.maxdict else pairs) + "}"

    def repr_ImproperList(self, term: ImproperList, level: int) -> str:
        if level <= 0:
            return "[...]"
        return f"{self.repr1(term.elements, level)} with the tail {self.repr1(term.tail, level - 1)}"

    def repr_instance(self, what: object, level: int) -> str:
        return super().repr_instance(what, level) if type(what) in _SMALL else f"<{type(what).__name__}>"


_shortened = _Shortened()
_shortened.maxother = 80


def shortened(what: object) -> str:
    """``what`` as a few words of text, however large it is."""
    return _shortened.repr(what)


class Complaints:
    """What one server has had to ignore.

    Args:
        server: Its name, for the log.
        counters: Where each message, or part of one, is counted.
    """

    __slots__ = ("_counters", "_seen", "_server")

    def __init__(self, server: str, counters: Counters) -> None:
        self._server = server
        self._counters = counters
        self._seen: set[tuple[Atom | None, str]] = set()

    def add(self, problem: str, sender: Pid | Atom | None, what: object) -> None:
        """Count one, and log it if this problem is new for this sender's node.

        Args:
            problem: What is wrong, in a few words.
            sender: Who sent it; its node, where no more is known; None if not even that is.
            what: The message or the part of it; shown shortened.
        """
        self._counters.malformed += 1
        node = sender if sender is None or type(sender) is Atom else sender.node
        key = (node, problem)
        if key in self._seen or len(self._seen) >= MOST_REMEMBERED:
            return
        self._seen.add(key)
        _log.warning(
            "ignored a malformed message",
            server=self._server,
            problem=problem,
            sender="not said" if sender is None else sender.name if type(sender) is Atom else str(sender),
            message=shortened(what),
        )
