"""Erlang source text to terms: the reading half of :mod:`erlang_interop.etf.text`. Not compiled.

Manual: *Erlang Reference Manual, Data Types*.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from erlang_interop.errors import EncodeError, TermSyntaxError
from erlang_interop.terms import (
    Atom,
    BitString,
    ErlMap,
    Export,
    ImproperList,
    Pid,
    Port,
    Reference,
    Term,
)

__all__ = ["RESERVED", "parse_term"]

# fmt: off
RESERVED: Final = frozenset((
    "after", "and", "andalso", "band", "begin", "bnot", "bor", "bsl", "bsr", "bxor", "case", "catch", "cond", "div",
    "else", "end", "fun", "if", "let", "maybe", "not", "of", "or", "orelse", "receive", "rem", "try", "when", "xor",
))
# fmt: on
_UNESCAPES: Final = {
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "b": "\b",
    "f": "\f",
    "e": "\x1b",
    "s": " ",
    "d": "\x7f",
    "0": "\0",
}  # fmt: skip
_MAX_DEPTH: Final = 200
_NO_CREATIONS: Final[Mapping[str, int]] = {}

_SPACE: Final = re.compile(r"(?:\s|%[^\n]*)*")
_NUMBER: Final = re.compile(
    r"(?P<float>\d+(?:_\d+)*\.\d+(?:_\d+)*(?:[eE][+-]?\d+)?)|(?P<base>\d+)#(?P<digits>[0-9a-zA-Z]+(?:_[0-9a-zA-Z]+)*)"
    r"|(?P<integer>\d+(?:_\d+)*)"
)
_NAME: Final = re.compile(r"[^\W\d_][\w@]*")
_PID: Final = re.compile(r"<(?P<node>[^<>\s@]+@[^<>\s]+)\.(?P<id>\d+)\.(?P<serial>\d+)>")
_PORT: Final = re.compile(r"#Port<(?P<node>[^<>\s@]+@[^<>\s]+)\.(?P<id>\d+)>")
#: The host is an IPv4 address or ends in a label that is no number: where the words begin would else be a guess.
_REFERENCE: Final = re.compile(
    r"#Ref<(?P<node>[^<>\s@]+@(?:\d+\.\d+\.\d+\.\d+|(?:[^<>\s.]+\.)*[^<>\s.\d][^<>\s.]*))(?P<ids>(?:\.\d+){1,5})>"
)


def parse_term(source: str, *, creations: Mapping[str, int] = _NO_CREATIONS) -> Term:
    """Read one Erlang term, written as in Erlang source; a full stop at the end is allowed.

    Atoms (quoted where they must be), ``"strings"`` (lists of characters), ``<<"binaries">>``, ``<<1,2:4>>``,
    ``~"utf-8 binaries"``, integers (``-1``, ``16#ff``, ``$a``, ``1_000``), floats, lists, tuples, maps,
    ``fun module:name/1``, and pids, ports and references as :func:`~erlang_interop.etf.text.format_term` writes them.

    Args:
        source: The text.
        creations: The creation of each node that a pid, port or reference may name, by the node's name: it does not
            stand in their text, and the peer announces it when it connects. Without it they get 0, and are then equal
            to nothing that lives.

    Raises:
        TermSyntaxError: Not one term; the message names the column.
    """
    parser = _Parser(source, creations)
    term = parser.term(0)
    if parser.peek() == ".":
        parser.pos += 1
    if parser.peek():
        raise parser.error(f"nothing can follow the term, but there is {parser.peek()!r}")
    return term


class _Parser:
    """A recursive descent over the text; ``pos`` is always in front of what was not read."""

    def __init__(self, source: str, creations: Mapping[str, int]) -> None:
        self.source = source
        self.creations = creations
        self.pos = 0

    def error(self, message: str, pos: int | None = None) -> TermSyntaxError:
        return TermSyntaxError(message, self.pos if pos is None else pos)

    def peek(self) -> str:
        """Skip white space; return the next character, or an empty string at the end."""
        space = _SPACE.match(self.source, self.pos)
        if space is not None:
            self.pos = space.end()
        return self.source[self.pos : self.pos + 1]

    def take(self, token: str) -> bool:
        """Step over ``token`` if it comes next."""
        self.peek()
        if self.source.startswith(token, self.pos):
            self.pos += len(token)
            return True
        return False

    def expect(self, token: str) -> None:
        if not self.take(token):
            raise self.error(f"expected {token!r}, found {self.found()}")

    def found(self) -> str:
        return repr(self.peek()) if self.peek() else "the end"

    def term(self, depth: int) -> Term:
        if depth > _MAX_DEPTH:
            raise self.error(f"nested deeper than {_MAX_DEPTH} terms")
        first = self.peek()
        start = self.pos
        if first == "{":
            self.pos += 1
            return tuple(self.items("}", depth))
        if first == "[":
            self.pos += 1
            return self.list_of(depth)
        if first == '"':
            return [ord(character) for character in self.strings()]
        if first == "'":
            return self.atom(self.quoted("'"), start)
        if first == "~":
            self.pos += 1
            return self.quoted('"').encode("utf-8")
        if self.source.startswith("<<", self.pos):
            return self.binary()
        if first == "<":
            return self.pid()
        if first == "#":
            return self.hash(depth)
        if first in "+-" and first:
            self.pos += 1
            self.peek()
            number = self.number()
            return -number if first == "-" else number
        if first == "$" or first.isdecimal():
            return self.number()
        return self.word(start)

    def items(self, closing: str, depth: int) -> list[Term]:
        """Read terms with commas between them up to ``closing``."""
        items: list[Term] = []
        if self.take(closing):
            return items
        while True:
            items.append(self.term(depth + 1))
            if self.take(closing):
                return items
            if not self.take(","):
                raise self.error(f"expected ',' or {closing!r}, found {self.found()}")

    def list_of(self, depth: int) -> Term:
        items: list[Term] = []
        if self.take("]"):
            return items
        while True:
            items.append(self.term(depth + 1))
            if self.take("]"):
                return items
            if self.take("|"):
                tail = self.term(depth + 1)
                self.expect("]")
                return items + tail if isinstance(tail, list) else ImproperList(items, tail)
            if not self.take(","):
                raise self.error(f"expected ',', '|' or ']', found {self.found()}")

    def hash(self, depth: int) -> Term:
        """Read what begins with ``#``: a map, a port or a reference."""
        start = self.pos
        if self.take("#{"):
            pairs: list[tuple[Term, Term]] = []
            while not self.take("}"):
                if pairs:
                    self.expect(",")
                key = self.term(depth + 1)
                self.expect("=>")
                pairs.append((key, self.term(depth + 1)))
            try:
                whole = ErlMap(pairs)
            except ValueError as error:
                raise self.error(str(error), start) from error
            try:
                plain = dict(pairs)
            except TypeError:
                return whole
            return plain if len(plain) == len(pairs) else whole
        port = _PORT.match(self.source, start)
        if port is not None:
            self.pos = port.end()
            node = self.node(port["node"], start)
            return Port(node, self.limited(port["id"], 64, start), self.creations.get(node.name, 0))
        reference = _REFERENCE.match(self.source, start)
        if reference is not None:
            self.pos = reference.end()
            ids = [self.limited(word, 32, start) for word in reference["ids"][1:].split(".")]
            words = b"".join(word.to_bytes(4, "big") for word in reversed(ids))
            node = self.node(reference["node"], start)
            return Reference(node, self.creations.get(node.name, 0), words)
        raise self.error("expected a map #{...}, or a #Port<name@host.N> or #Ref<name@host.N.N.N>", start)

    def pid(self) -> Term:
        start = self.pos
        found = _PID.match(self.source, start)
        if found is None:
            raise self.error("a pid is written <name@host.Number.Serial>, with the name of its node", start)
        self.pos = found.end()
        number, serial = self.limited(found["id"], 32, start), self.limited(found["serial"], 32, start)
        node = self.node(found["node"], start)
        return Pid(node, number, serial, self.creations.get(node.name, 0))

    def limited(self, digits: str, bits: int, start: int) -> int:
        number = int(digits) if len(digits) <= 20 else 1 << bits
        if number >> bits:
            raise self.error(f"a number of {bits} bits was expected", start)
        return number

    def node(self, name: str, start: int) -> Atom:
        try:
            return Atom(name.strip("'"))
        except EncodeError as error:
            raise self.error(str(error), start) from error

    def word(self, start: int) -> Term:
        """Read an unquoted atom, or ``fun Module:Function/Arity``."""
        name = _NAME.match(self.source, start)
        if name is None or not name[0][0].islower():
            if name is not None or self.peek() == "_":
                raise self.error("a variable cannot stand here; an atom with a capital letter needs 'quotes'", start)
            raise self.error(f"expected a term, found {self.found()}", start)
        self.pos = name.end()
        if name[0] == "fun":
            return self.export()
        if name[0] in RESERVED:
            raise self.error(f"{name[0]} is a reserved word; as an atom it needs 'quotes'", start)
        return self.atom(name[0], start)

    def export(self) -> Term:
        parts: list[Atom] = []
        for separator in (":", "/"):
            self.peek()
            start = self.pos
            if self.peek() == "'":
                parts.append(self.node(self.quoted("'"), start))
            else:
                name = _NAME.match(self.source, start)
                if name is None:
                    raise self.error("an external fun is written fun module:name/arity", start)
                self.pos = name.end()
                parts.append(self.node(name[0], start))
            self.expect(separator)
        self.peek()
        start = self.pos
        arity = self.number()
        if not isinstance(arity, int) or not 0 <= arity <= 255:
            raise self.error("a fun has 0 to 255 arguments", start)
        return Export(parts[0], parts[1], arity)

    def atom(self, name: str, start: int) -> Term:
        if name in ("true", "false"):
            return name == "true"
        if name == "nil":
            return None
        try:
            return Atom(name)
        except EncodeError as error:
            raise self.error(str(error), start) from error

    def number(self) -> int | float:
        start = self.pos
        if self.source.startswith("$", start):
            self.pos += 1
            if self.pos >= len(self.source):
                raise self.error("expected a character after $")
            return ord(self.character())
        found = _NUMBER.match(self.source, start)
        if found is None:
            raise self.error(f"expected a number, found {self.found()}", start)
        self.pos = found.end()
        try:
            if found["float"]:
                number = float(found["float"])
                if number in (float("inf"), float("-inf")):
                    raise self.error("the float is too large", start)
                return number
            if found["base"]:
                base = int(found["base"])
                if not 2 <= base <= 36:
                    raise self.error("the base of an integer is 2 to 36", start)
                return int(found["digits"], base)
            return int(found["integer"])
        except ValueError as error:
            if isinstance(error, TermSyntaxError):
                raise
            raise self.error(f"not an integer: {error}", start) from error

    def strings(self) -> str:
        """Read a string; adjacent ones are one string, as in Erlang."""
        text = self.quoted('"')
        while self.peek() == '"':
            text += self.quoted('"')
        return text

    def quoted(self, quote: str) -> str:
        start = self.pos
        self.expect(quote)
        out: list[str] = []
        while True:
            if self.pos >= len(self.source):
                raise self.error(f"the closing {quote} is missing", start)
            if self.source[self.pos] == quote:
                self.pos += 1
                return "".join(out)
            out.append(self.character())

    def character(self) -> str:
        """Read one character, which may be an escape sequence."""
        source, start = self.source, self.pos
        self.pos += 1
        if source[start] != "\\":
            return source[start]
        escape = re.compile(r"([0-7]{1,3})|x([0-9a-fA-F]{2})|x\{([0-9a-fA-F]{1,6})\}|\^(.)|([^x])", re.DOTALL).match(
            source, self.pos
        )
        if escape is None:
            raise self.error("a \\ needs an escape sequence behind it", start)
        self.pos = escape.end()
        octal, two, many, control, plain = escape.groups()
        if plain:
            return _UNESCAPES.get(plain, plain)
        if control:
            return chr(ord(control) & 31)
        code = int(octal, 8) if octal else int(two or many, 16)
        if code > 0x10FFFF:
            raise self.error("no such character", start)
        return chr(code)

    def binary(self) -> Term:
        start = self.pos
        self.expect("<<")
        value = 0
        bits = 0
        if not self.take(">>"):
            while True:
                segment, size = self.segment()
                value, bits = value << size | segment, bits + size
                if self.take(">>"):
                    break
                if not self.take(","):
                    raise self.error(f"expected ',' or '>>', found {self.found()}")
        size, rest = divmod(bits, 8)
        if rest == 0:
            return value.to_bytes(size, "big")
        if bits > 1 << 20:
            raise self.error("a bitstring this long cannot be read", start)
        return BitString((value << (8 - rest)).to_bytes(size + 1, "big"), rest)

    def segment(self) -> tuple[int, int]:
        """Read one segment of a binary; return its value and its size in bits."""
        first = self.peek()
        start = self.pos
        if first in ('"', "~"):
            self.pos += first == "~"
            text = self.quoted('"')
            utf8 = self.take("/utf8") or first == "~"
            try:
                data = text.encode("utf-8" if utf8 else "latin-1")
            except UnicodeEncodeError as error:
                raise self.error('characters above 255 need /utf8: <<"..."/utf8>>', start) from error
            return int.from_bytes(data, "big"), 8 * len(data)
        sign = -1 if self.take("-") else 1
        number = self.number()
        if not isinstance(number, int):
            raise self.error("a float cannot stand in a binary here", start)
        if self.take("/utf8"):
            data = chr(number).encode("utf-8") if number <= 0x10FFFF else b""
            return int.from_bytes(data, "big"), 8 * len(data)
        size = 8
        if self.take(":"):
            where = self.pos
            given = self.number()
            if not isinstance(given, int) or given > 1 << 16:
                raise self.error("the size of a segment is an integer of at most 65536 bits", where)
            size = given
        return sign * number & ((1 << size) - 1), size
