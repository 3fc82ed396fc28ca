"""Text as the I/O protocol has it: characters in lists and binaries, and what ``io_lib:format/2`` makes of terms.

A BEAM leaves formatting to the group leader: ``io:format(Format, Args)`` sends ``{put_chars, unicode, io_lib, format,
[Format, Args]}`` as it is, whichever node the group leader is on. So a node that prints must know how.

All control sequences are there. What differs from OTP:

* ``~p`` and ``~P`` write a term on one line, however long. OTP breaks lines at the width of the terminal.
* ``~P`` and ``~W`` write the whole term, whatever the depth; the modifier ``k`` does not sort maps.
* ``~w`` and ``~p`` show characters above 255 with and without the modifier ``t``, and ``~p`` takes all printable
  characters for text, as a BEAM with ``+pc unicode`` does. Pids and references are written with the name of their node.
* ``~f`` writes all digits of numbers above 1.0e20; OTP has zeros behind the 20th.
* Atoms with letters beyond ASCII are in quotes.
* An integer of more than 4096 bits is written in base 16.
* The modifier ``K`` (a fun that orders maps) and fields wider than a million characters are refused.

Source: stdlib manual, io(3), "fwrite"; stdlib manual, unicode(3); io_lib_format.erl for what the manual leaves open.
"""

from __future__ import annotations

import codecs
from typing import Any, Final

from ..etf.text import format_term
from ..terms import Atom, ImproperList, Term

_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_DECIMAL: Final = frozenset(_DIGITS[:10])
_DECIMAL_BITS: Final = 4096
#: Of all fields of one format: a peer is not to make the node's memory its own with ``~999999999c``.
MAX_WIDTH: Final = 1_000_000


class BadFormat(ValueError):
    """The format is wrong, or the arguments do not go with it, as where ``io_lib:format`` fails with ``badarg``."""


# ------------------------------------------------------------------------------------------------------- characters


def characters(data: Term, *, latin1: bool = False) -> str:
    """The text of a ``unicode:chardata()``: a binary, or a list of characters, binaries and such lists.

    Args:
        data: Of any depth.
        latin1: Binaries are Latin-1, and no character is above 255. Otherwise binaries are UTF-8.

    Raises:
        ValueError: ``data`` is something else, or has wrong bytes.
    """
    if type(data) is bytes:
        return data.decode("latin-1" if latin1 else "utf-8")
    highest = 0xFF if latin1 else 0x10FFFF
    # A character of several bytes may begin in one binary and end in the next.
    decoder = codecs.getincrementaldecoder("latin-1" if latin1 else "utf-8")()
    done: list[str] = []
    todo: list[Any] = [data]
    between = True  # not within such a character
    while todo:
        item = todo.pop()
        if type(item) is int:
            # The element of a list; `data` itself may be none.
            if not 0 <= item <= highest or 0xD800 <= item < 0xE000 or not between:
                raise ValueError(f"{item} is no character here")
            done.append(chr(item))
        elif type(item) is list:
            todo.extend(reversed(item))
        elif isinstance(item, ImproperList):
            if type(item.tail) is int:
                raise ValueError(f"{item.tail} is the tail of a list")
            todo.append(item.tail)
            todo.extend(reversed(item.elements))
        elif isinstance(item, (bytes, bytearray, str)):
            done.append(decoder.decode(item.encode() if isinstance(item, str) else item))
            between = not decoder.getstate()[0]
        else:
            raise ValueError(f"a {type(item).__name__} among characters")
    if type(data) is int:
        raise ValueError("a character is not a list of characters")
    done.append(decoder.decode(b"", final=True))
    return "".join(done)


def _printed(data: Term, *, unicode: bool) -> str:
    """The text of what ``~s`` is given, atoms included. With ``t``, a binary that is no UTF-8 is Latin-1."""
    if type(data) in (Atom, bool) or data is None:
        return format_atom(data)
    if not unicode:
        return characters(data, latin1=True)
    if isinstance(data, (bytes, bytearray)):
        try:
            return bytes(data).decode("utf-8")
        except UnicodeDecodeError:
            return bytes(data).decode("latin-1")
    return characters(data)


def format_atom(atom: Any) -> str:
    """The characters of an atom, ``true``, ``false`` and ``nil`` included, without quotes. Raises ValueError."""
    if type(atom) is Atom:
        return atom.name
    if atom is None or type(atom) is bool:
        return format_term(atom)
    raise ValueError(f"a {type(atom).__name__} in the place of text")


# --------------------------------------------------------------------------------------------------------- formatting


def write(term: Term) -> str:
    """``io_lib:write/1``: ``term`` as Erlang source text, lists of characters as lists."""
    return format_term(term, strings=False)


def format_text(format_: Term, args: Term) -> str:
    """``io_lib:format/2``.

    Args:
        format_: A string, an atom, or a binary, which is Latin-1 as for ``io_lib``.
        args: A list.

    Raises:
        BadFormat: a control sequence is unknown or cut off, or there are too few, too many or the wrong arguments.
    """
    if type(format_) in (Atom, bool) or format_ is None:
        source: Any = format_atom(format_)
    elif isinstance(format_, (bytes, bytearray)):
        source = bytes(format_).decode("latin-1")
    else:
        source = format_
    if not isinstance(source, (list, str)) or type(args) is not list:
        raise BadFormat("a format and a list of arguments are needed")
    done: list[str] = []
    try:
        items = list(source) if isinstance(source, str) else [_item(item) for item in source]
        arguments = _Arguments(args)
        position = width = 0
        while position < len(items):
            if items[position] == "~" and type(items[position]) is str:
                sequence = _Sequence(items, position + 1, arguments)
                width += sequence.width
                if width > MAX_WIDTH:
                    raise BadFormat(f"more than {MAX_WIDTH} characters in fields")
                done.append(sequence.text(arguments))
                position = sequence.end
            else:
                done.append(items[position])
                position += 1
    except (IndexError, UnicodeError, OverflowError) as error:
        raise BadFormat(f"the format ends too early, or has the wrong arguments: {error}") from error
    except ValueError as error:
        raise BadFormat(str(error)) from error
    if arguments.left:
        raise BadFormat(f"{arguments.left} arguments too many")
    return "".join(done)


class _Literal(str):
    """Text in a format in which a tilde is nothing but a tilde: that of a list or binary within the list."""

    __slots__ = ()


def _item(item: Any) -> str:
    text = characters([item])
    return text if type(item) is int else _Literal(text)


class _Arguments:
    def __init__(self, args: list[Any]) -> None:
        self._args = args
        self._taken = 0

    @property
    def left(self) -> int:
        return len(self._args) - self._taken

    def take(self) -> Any:
        """The next one. Raises IndexError."""
        self._taken += 1
        return self._args[self._taken - 1]

    def take_int(self) -> int:
        value = self.take()
        if type(value) is not int:
            raise BadFormat(f"an integer is needed, not {value!r:.80}")
        return value


class _Sequence:
    """One control sequence: ``~F.P.PadModC``.

    Attributes:
        end: Where in the format the text after it begins.
        width: Characters that it makes at least.
    """

    def __init__(self, items: list[str], position: int, arguments: _Arguments) -> None:
        self._items = items
        self.end = position
        sign = -1 if self._skip("-") else 1
        field = self._number(arguments)
        self._left = field is not None and field * sign < 0
        self._field = None if field is None else abs(field)
        self._precision: int | None = None
        self._pad = " "
        if self._skip("."):
            self._precision = self._number(arguments)
            if self._skip("."):
                self._pad = chr(arguments.take_int()) if self._skip("*") else self._next()
        if self._precision is not None and self._precision < 0:
            raise BadFormat(f"a precision of {self._precision}")
        self.width = max(self._field or 0, self._precision or 0)
        self._modifiers = ""
        while self.end < len(items) and items[self.end] in ("t", "l", "k"):
            self._modifiers += self._next()
        self._control = self._next()

    def _skip(self, character: str) -> bool:
        found = self.end < len(self._items) and self._items[self.end] == character
        self.end += found
        return found

    def _next(self) -> str:
        self.end += 1
        return self._items[self.end - 1]

    def _number(self, arguments: _Arguments) -> int | None:
        if self._skip("*"):
            return arguments.take_int()
        digits = ""
        while self.end < len(self._items) and self._items[self.end] in _DECIMAL and len(digits) < 10:
            digits += self._next()
        return int(digits) if digits else None

    def text(self, arguments: _Arguments) -> str:
        """What it becomes. Raises ValueError, IndexError, OverflowError."""
        control = self._control
        if control == "~":
            return self._character(0x7E)
        if control == "n":
            if self._left:
                raise BadFormat("~n has nothing to the left of which it could be")
            return "\n" * (1 if self._field is None else self._field)
        value = arguments.take()
        if control == "i":
            return ""
        if control in "pPwW":
            if control in "PW":
                arguments.take_int()
            strings = control in "pP" and "l" not in self._modifiers
            shown = format_term(value, strings=strings)
            return shown if control in "pP" else self._fitted(shown, self._precision)
        if control == "s":
            return self._string(_printed(value, unicode="t" in self._modifiers))
        if control == "c":
            return self._character(value)
        if control in "bB#+xX":
            return self._fitted(self._integer(value, arguments), None)
        if control in "feg":
            return self._fitted(self._float(value), None)
        raise BadFormat(f"there is no ~{control}")

    def _padded(self, text: str, width: int) -> str:
        pad = self._pad * (width - len(text))
        return text + pad if self._left else pad + text

    def _fitted(self, text: str, precision: int | None) -> str:
        """``text`` in the field; asterisks if it is too long."""
        if self._field is None and precision is None:
            return text
        field = precision if self._field is None else self._field
        assert field is not None
        most = min(len(text), field if precision is None else min(precision, field))
        return self._padded("*" * most if len(text) > most else text, field)

    def _string(self, text: str) -> str:
        """``text`` in the field, cut where it is too long."""
        field, precision = self._field, self._precision
        if precision is not None:
            if field is not None and field < precision:
                raise BadFormat(f"{precision} characters do not go into a field of {field}")
            text = text[:precision]
            if field != precision:
                text += self._pad * (precision - len(text))
        return text if field is None else self._padded(text[:field], field)

    def _character(self, value: Any) -> str:
        if type(value) is not int:
            raise BadFormat(f"~c takes a character, not {value!r:.80}")
        text = characters([value if "t" in self._modifiers else value & 0xFF])
        if self._precision is None:
            return text * (1 if self._field is None else self._field)
        if self._field is not None and self._field < self._precision:
            raise BadFormat(f"{self._precision} characters do not go into a field of {self._field}")
        return self._padded(text * self._precision, self._field or 0)

    def _integer(self, value: Any, arguments: _Arguments) -> str:
        base = 10 if self._precision is None else self._precision
        if type(value) is not int or not 2 <= base <= 36:
            raise BadFormat(f"~{self._control} takes an integer, and a base from 2 to 36")
        prefix = ""
        if self._control in "xX":
            given = arguments.take()
            prefix = characters(given) if type(given) is list else format_atom(given)
        elif self._control in "#+":
            prefix = f"{base}#"
        digits = _digits(abs(value), base)
        if self._control in "b+x":
            digits = digits.lower()
        return f"{'-' if value < 0 else ''}{prefix}{digits}"

    def _float(self, value: Any) -> str:
        if type(value) is not float:
            raise BadFormat(f"~{self._control} takes a float, not {value!r:.80}")
        precision = 6 if self._precision is None else self._precision
        control = self._control
        if control == "g":
            # Where the first digit stands; below 0.1 and from 10000 on ~e is shorter.
            place = next((place for place in range(-1, 4) if abs(value) < 10.0 ** (place + 1)), 4)
            if abs(value) < 0.1 or place == 4 or not (precision - 1 > place or (precision <= 1 and place == -1)):
                control, precision = "e", max(2, precision)
            else:
                control, precision = "f", precision - 1 - place
        if precision < (1 if control == "f" else 2) or self._precision == 0:
            raise BadFormat(f"~{self._control} with a precision of {precision}")
        if control == "f":
            return f"{value:.{precision}f}"
        mantissa, _, exponent = f"{value:.{precision - 1}e}".partition("e")
        return f"{mantissa}e{int(exponent):+d}"


def _digits(number: int, base: int) -> str:
    if number.bit_length() > _DECIMAL_BITS or base == 16:
        return f"{number:X}" if base == 16 else f"16#{number:X}"
    if base == 10:
        return int.__repr__(number)
    digits: list[str] = []
    while number or not digits:
        number, digit = divmod(number, base)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
