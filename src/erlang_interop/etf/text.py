"""Terms as Erlang source text: for logs, for people, and for the arguments of the command line. Not compiled.

:func:`format_term` writes every term; :func:`parse_term` reads those that have a source form, and pids, ports and
references as :func:`format_term` writes them. Manual: *Erlang Reference Manual, Data Types*.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice
from typing import Final

from erlang_interop.errors import EncodeError, TermSyntaxError
from erlang_interop.terms import (
    Atom,
    BitString,
    ErlMap,
    Export,
    Fun,
    ImproperList,
    LocalTerm,
    Pid,
    Port,
    Record,
    Reference,
    Term,
)

__all__ = ["format_term", "parse_term"]

_PLAIN_ATOM: Final = re.compile(r"[a-z][A-Za-z0-9_@]*\Z")
# fmt: off
_RESERVED: Final = frozenset((
    "after", "and", "andalso", "band", "begin", "bnot", "bor", "bsl", "bsr", "bxor", "case", "catch", "cond", "div",
    "else", "end", "fun", "if", "let", "maybe", "not", "of", "or", "orelse", "receive", "rem", "try", "when", "xor",
))
# fmt: on
_SPECIAL: Final[dict[object, str]] = {True: "true", False: "false", None: "nil"}
_ESCAPES: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", "\b": "\\b", "\f": "\\f", "\x1b": "\\e"}
_UNESCAPES: Final = {
    "n": "\n", "r": "\r", "t": "\t", "v": "\v", "b": "\b", "f": "\f", "e": "\x1b", "s": " ", "d": "\x7f", "0": "\0",
}  # fmt: skip
#: Integers longer than this many bits are written in base 16: Python refuses to print longer ones in base 10.
_DECIMAL_BITS: Final = 4096
_MAX_DEPTH: Final = 200
#: Of characters: more than any text has.
_NO_LIMIT: Final = 1 << 60
_NO_CREATIONS: Final[Mapping[str, int]] = {}


# ----------------------------------------------------------------------------------------------------------- writing


class _Raw(str):
    """Text that is ready, among terms that are not."""

    __slots__ = ()


_COMMA: Final = _Raw(",")


def format_term(term: Term, limit: int = _NO_LIMIT) -> str:
    """Return ``term`` as Erlang source text, as ``io:format("~tp")`` would on one line, of any depth.

    Args:
        term: What is to be shown.
        limit: Characters at most: a longer text ends in ``...``, and the rest of the term is not even looked at. For
            what a peer sent, which may be of any size.

    A list of printable characters is written as a string, a binary of printable UTF-8 as one, as the shell does. What
    has no source form is written as the shell does, but with the node's name: ``<py@host.12.0>``,
    ``#Ref<py@host.1.2.3>``, ``#Fun<module.0>``. A value that is no term is written as its ``repr``.
    """
    done: list[str] = []
    size = 0
    todo: list[Term] = [term]
    while todo and size <= limit:
        item = todo.pop()
        parts = None if isinstance(item, _Raw) else _parts(item, limit)
        if parts is None:
            done.append(item if isinstance(item, _Raw) else _leaf(item, limit))
            size += len(done[-1])
        else:
            todo.extend(reversed(parts))
    text = "".join(done)
    return text if len(text) <= limit else f"{text[: max(0, limit - 3)]}..."


# Of each compound and leaf the first ``limit`` parts are written: they alone make more text than is shown.


def _parts(term: Term, limit: int) -> list[Term] | None:
    """Return a compound as text and parts in turn, None for a leaf."""
    if isinstance(term, tuple):
        return _joined("{", list(term[: limit + 1]), "}")
    if isinstance(term, list):
        items = term[: limit + 1]
        return None if _is_text(items) else _joined("[", items, "]")
    if isinstance(term, ImproperList):
        return [*_joined("[", term.elements[: limit + 1], "|"), term.tail, _Raw("]")]
    if isinstance(term, (dict, ErlMap)):
        parts: list[Term] = [_Raw("#{")]
        for key, value in islice(term.items(), limit + 1):
            parts += [key, _Raw(" => "), value, _COMMA]
        return _closed(parts, "}")
    if isinstance(term, Record):
        parts = [_Raw(f"#{_atom(term.module)}:{_atom(term.name)}{{")]
        for name, value in term.fields:
            parts += [_Raw(f"{_atom(name)} = "), value, _COMMA]
        return _closed(parts, "}")
    return None


def _joined(opening: str, items: list[Term], closing: str) -> list[Term]:
    parts: list[Term] = [_Raw(opening)]
    for item in items:
        parts += [item, _COMMA]
    return _closed(parts, closing)


def _closed(parts: list[Term], closing: str) -> list[Term]:
    """Put ``closing`` in the place of the last comma, or at the end where there is none."""
    if parts[-1] is _COMMA:
        parts.pop()
    parts.append(_Raw(closing))
    return parts


def _leaf(term: Term, limit: int) -> str:
    if term is None or isinstance(term, bool):
        return _SPECIAL[term]
    if isinstance(term, int):
        if term.bit_length() <= _DECIMAL_BITS:
            return int.__repr__(term)
        excess = max(0, (term.bit_length() + 3) // 4 - limit) * 4  # bits of digits that are not shown
        return f"{'-' if term < 0 else ''}16#{abs(term) >> excess:X}"
    if isinstance(term, float):
        return _float(term)
    if isinstance(term, Atom):
        return _atom(term)
    if isinstance(term, str):
        return _binary(term[: limit + 1].encode("utf-8", "surrogatepass"), limit)
    if isinstance(term, (bytes, bytearray)):
        return _binary(bytes(term[: 4 * limit + 4]), limit)
    if isinstance(term, list):
        return _quoted("".join(map(chr, term[: limit + 1])), '"') if term else "[]"
    if isinstance(term, BitString):
        last = term.data[-1] >> (8 - term.bits)
        return f"<<{''.join(f'{byte},' for byte in term.data[: min(limit, len(term.data) - 1)])}{last}:{term.bits}>>"
    if isinstance(term, (Pid, Port, Reference)):
        return "".join(
            [character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in str(term)]
        )
    if isinstance(term, Export):
        return f"fun {_atom(term.module)}:{_atom(term.function)}/{term.arity}"
    if isinstance(term, Fun):
        return f"#Fun<{_atom(term.module)}.{term.index}>"
    if isinstance(term, LocalTerm):
        return f"#Local<{len(term.data)} bytes>"
    return repr(term)


def _float(number: float) -> str:
    digits = repr(number)
    mantissa, e, exponent = digits.partition("e")
    if "." not in mantissa and mantissa.lstrip("-").isdecimal():
        mantissa += ".0"
    return f"{mantissa}{e}{exponent.removeprefix('+')}"


def _atom(atom: Atom) -> str:
    name = atom.name
    if _PLAIN_ATOM.match(name) and name not in _RESERVED:
        return name
    return _quoted(name, "'")


def _quoted(text: str, quote: str) -> str:
    out = [quote]
    for character in text:
        if character in (quote, "\\"):
            out.append("\\" + character)
        elif character in _ESCAPES:
            out.append(_ESCAPES[character])
        elif character.isprintable():
            out.append(character)
        else:
            out.append(f"\\x{{{ord(character):X}}}")
    return "".join([*out, quote])


def _is_text(items: list[Term]) -> bool:
    """Whether a list is shown as a string: not empty, and printable throughout."""
    return bool(items) and all(
        type(code) is int and 0 <= code <= 0x10FFFF and (chr(code).isprintable() or chr(code) in _ESCAPES)
        for code in items
    )


def _binary(data: bytes, limit: int) -> str:
    text = ""
    # A character that the limit cut in two says nothing about what the binary is.
    for cut in range(len(data), len(data) - (4 if len(data) > 4 * limit else 1), -1):
        try:
            text = data[:cut].decode("utf-8")
            break
        except UnicodeDecodeError:
            continue
    if not text or not all(character.isprintable() or character in _ESCAPES for character in text):
        return f"<<{','.join(map(str, data))}>>"
    return f"<<{_quoted(text, chr(34))}{'' if text.isascii() else '/utf8'}>>"


# ----------------------------------------------------------------------------------------------------------- reading

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
    ``fun module:name/1``, and pids, ports and references as :func:`format_term` writes them.

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
        if name[0] in _RESERVED:
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
