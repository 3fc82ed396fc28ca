"""Terms as Erlang source text: for logs, for people, and for the arguments of the command line. Not compiled.

:func:`format_term` writes every term; :func:`parse_term` reads those that have a source form, and pids, ports and
references as :func:`format_term` writes them (``_source.py``). Manual: *Erlang Reference Manual, Data Types*.
"""

from __future__ import annotations

import math
import re
from itertools import islice
from typing import Final

from erlang_interop.etf._source import RESERVED, parse_term
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
_SPECIAL: Final[dict[object, str]] = {True: "true", False: "false", None: "nil"}
_ESCAPES: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", "\b": "\\b", "\f": "\\f", "\x1b": "\\e"}
#: Integers longer than this many bits are written in base 16: Python refuses to print longer ones in base 10.
_DECIMAL_BITS: Final = 4096
_INEXACT: Final = float(1 << 53)
#: Of characters: more than any text has.
_NO_LIMIT: Final = 1 << 60


class _Raw(str):
    """Text that is ready, among terms that are not."""

    __slots__ = ()


_COMMA: Final = _Raw(",")


def format_term(term: Term, limit: int = _NO_LIMIT, *, strings: bool = True) -> str:
    """Return ``term`` as Erlang source text, as ``io:format("~tp")`` would on one line, of any depth.

    Args:
        term: What is to be shown.
        limit: Characters at most: a longer text ends in ``...``, and the rest of the term is not even looked at. For
            what a peer sent, which may be of any size.
        strings: False writes lists and binaries of characters as the numbers they are, as ``~w`` does.

    A list of printable characters is written as a string, a binary of printable UTF-8 as one, as the shell does. What
    has no source form is written as the shell does, but with the node's name: ``<py@host.12.0>``,
    ``#Ref<py@host.1.2.3>``, ``#Fun<module.0>``. A value that is no term is written as its ``repr``.
    """
    done: list[str] = []
    size = 0
    todo: list[Term] = [term]
    while todo and size <= limit:
        item = todo.pop()
        parts = None if isinstance(item, _Raw) else _parts(item, limit, strings)
        if parts is None:
            done.append(item if isinstance(item, _Raw) else _leaf(item, limit, strings))
            size += len(done[-1])
        else:
            todo.extend(reversed(parts))
    text = "".join(done)
    return text if len(text) <= limit else f"{text[: max(0, limit - 3)]}..."


# Of each compound and leaf the first ``limit`` parts are written: they alone make more text than is shown.


def _parts(term: Term, limit: int, strings: bool) -> list[Term] | None:
    """Return a compound as text and parts in turn, None for a leaf."""
    if isinstance(term, tuple):
        return _joined("{", list(term[: limit + 1]), "}")
    if isinstance(term, list):
        items = term[: limit + 1]
        return None if not items or (strings and _is_text(items)) else _joined("[", items, "]")
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


def _leaf(term: Term, limit: int, strings: bool) -> str:
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
        return _binary(term[: limit + 1].encode("utf-8", "surrogatepass"), limit, strings)
    if isinstance(term, (bytes, bytearray)):
        return _binary(bytes(term[: 4 * limit + 4]), limit, strings)
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
    """The shorter of ``1000.0`` and ``1.0e3``, as ``float_to_list(Float, [short])``; of the same length the first.

    From 2 ** 53 on, where not every integer is a float, it is always the second.
    """
    if not math.isfinite(number):
        return repr(number)
    sign, digits, place = _decimal(number)
    exponent = f"{digits[0]}.{digits[1:] or '0'}e{place - 1}"
    if 0 < place < len(digits):
        plain = f"{digits[:place]}.{digits[place:]}"
    elif place <= 0:
        plain = f"0.{'0' * -place}{digits}"
    else:
        plain = f"{digits}{'0' * (place - len(digits))}.0"
    return sign + (plain if len(plain) <= len(exponent) and abs(number) < _INEXACT else exponent)


def _decimal(number: float) -> tuple[str, str, int]:
    """The sign, the fewest digits that tell the number from all others, and where the point is among them."""
    mantissa, _, exponent = repr(abs(number)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    place = int(exponent or "0") + (len(whole) if whole != "0" else len(digits) - len(fraction))
    return "-" if math.copysign(1, number) < 0 else "", digits.rstrip("0") or "0", place if digits.strip("0") else 1


def _atom(atom: Atom) -> str:
    name = atom.name
    if _PLAIN_ATOM.match(name) and name not in RESERVED:
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


def _binary(data: bytes, limit: int, strings: bool) -> str:
    text = ""
    # A character that the limit cut in two says nothing about what the binary is.
    for cut in range(len(data), len(data) - (4 if len(data) > 4 * limit else 1), -1) if strings else ():
        try:
            text = data[:cut].decode("utf-8")
            break
        except UnicodeDecodeError:
            continue
    if not text or not all(character.isprintable() or character in _ESCAPES for character in text):
        return f"<<{','.join(map(str, data))}>>"
    return f"<<{_quoted(text, chr(34))}{'' if text.isascii() else '/utf8'}>>"
