"""The Erlang terms Python has no type for, and the helpers that go with them.

=====================  ===================================  =====================================================
Erlang                 Python                               notes
=====================  ===================================  =====================================================
integer, float         ``int``, ``float``                   integers of any size
atom                   :class:`Atom`                        not a ``str``: ``Atom("ok") != "ok"``
``true`` ``false``     ``True`` ``False``                   both ways
``nil``                ``None``                             both ways; ``undefined`` stays an :class:`Atom`
binary / bitstring     ``bytes`` / :class:`BitString`       ``str`` is encoded as a UTF-8 binary
list / improper list   ``list`` / :class:`ImproperList`     a charlist is a list of integers, see :func:`charlist`
tuple                  ``tuple``
map                    ``dict`` or :class:`ErlMap`          see there
pid, port, reference   :class:`Pid` :class:`Port` :class:`Reference`
fun, ``fun M:F/A``     :class:`Fun` :class:`Export`         carried, never called
native record          :class:`Record`                      OTP 29
``LOCAL_EXT``          :class:`LocalTerm`                   opaque
=====================  ===================================  =====================================================

Wire forms: *External Term Format* of the manual; :mod:`erlang_interop.etf` reads and writes them.

Atom, Pid, Port and Reference are types of the C core where it was built; mypyc compiles the classes here, and those
whose parts can form no cycle are marked ``acyclic``. Both keeps them out of the garbage collector's lists: a million
monitors then cost a full collection one millisecond instead of 0.2 to 0.5 seconds. The attributes are ``Final``: mypy
refuses an assignment everywhere, the compiled classes at run time too.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from hashlib import blake2b
from struct import pack
from typing import Any, ClassVar, Final, TypeAlias, cast, final

from erlang_interop._identifiers import INTERN_LIMIT, MAX_ATOM_CHARACTERS, Atom, Pid, Port, Reference
from erlang_interop._native import mypyc_attr

__all__ = [
    "INTERN_LIMIT",
    "MAX_ATOM_CHARACTERS",
    "Atom",
    "BitString",
    "ErlMap",
    "Export",
    "Fun",
    "ImproperList",
    "LocalTerm",
    "Pid",
    "Port",
    "Record",
    "Reference",
    "Term",
    "charlist",
    "text",
]

#: Any value of the table above. ``Any``, because a union with invariant lists and dicts of itself in it helps nobody.
Term: TypeAlias = Any


@final
@mypyc_attr(acyclic=True)
class Export:
    """``fun Module:Function/Arity``, ``EXPORT_EXT``."""

    __slots__ = ("arity", "function", "module")
    __match_args__: ClassVar[tuple[str, ...]] = ("module", "function", "arity")

    module: Final[Atom]
    function: Final[Atom]
    #: 0 to 255.
    arity: Final[int]

    def __init__(self, module: Atom, function: Atom, arity: int) -> None:
        self.module = module
        self.function = function
        self.arity = arity

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Export):
            return NotImplemented
        return self.module == other.module and self.function == other.function and self.arity == other.arity

    def __hash__(self) -> int:
        return hash((self.module, self.function, self.arity))

    def __repr__(self) -> str:
        return f"Export({self.module!r}, {self.function!r}, {self.arity})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (Export, (self.module, self.function, self.arity))


@final
class Fun:
    """A fun (closure), ``NEW_FUN_EXT``. Carried exactly; only the node that has the module can call it.

    Args:
        module: The module that implements it.
        index: Which fun of the module.
        uniq: 16 bytes, the MD5 of the significant parts of the BEAM file.
        old_index: As ``index``, of the format before OTP R8.
        old_uniq: A hash of the parse tree, of that format.
        arity: 0 to 255.
        pid: The process in which it was made.
        free_vars: The values it closes over.
    """

    __slots__ = ("arity", "free_vars", "index", "module", "old_index", "old_uniq", "pid", "uniq")

    module: Final[Atom]
    index: Final[int]
    uniq: Final[bytes]
    old_index: Final[int]
    old_uniq: Final[int]
    arity: Final[int]
    pid: Final[Pid]
    free_vars: Final[tuple[Any, ...]]

    def __init__(
        self,
        module: Atom,
        index: int,
        uniq: bytes,
        old_index: int,
        old_uniq: int,
        arity: int,
        pid: Pid,
        free_vars: tuple[Any, ...],
    ) -> None:
        self.module = module
        self.index = index
        self.uniq = uniq
        self.old_index = old_index
        self.old_uniq = old_uniq
        self.arity = arity
        self.pid = pid
        self.free_vars = free_vars

    def _parts(self) -> tuple[Any, ...]:
        return (
            self.module,
            self.index,
            self.uniq,
            self.old_index,
            self.old_uniq,
            self.arity,
            self.pid,
            self.free_vars,
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Fun):
            return NotImplemented
        return self._parts() == other._parts()

    def __hash__(self) -> int:
        return hash((self.module, self.index, self.uniq))  # without free_vars: they may be unhashable

    def __repr__(self) -> str:
        return f"Fun{self._parts()!r}"

    def __reduce__(self) -> tuple[Any, ...]:
        return (Fun, self._parts())


@final
@mypyc_attr(acyclic=True)
class BitString:
    """A bitstring whose length is no multiple of eight, ``BIT_BINARY_EXT``.

    Args:
        data: The bytes; the bits of the last one are its most significant ones, the unused ones are set to zero.
        bits: How many bits of the last byte count, 1 to 7.
    """

    __slots__ = ("bits", "data")
    __match_args__: ClassVar[tuple[str, ...]] = ("data", "bits")

    data: Final[bytes]
    bits: Final[int]

    def __init__(self, data: bytes, bits: int) -> None:
        if not data or not 1 <= bits <= 7:
            raise ValueError(
                f"a BitString has at least one byte and 1 to 7 bits in the last, not {bits}; else use bytes"
            )
        last = data[-1] & (0xFF00 >> bits) & 0xFF
        self.data = data if last == data[-1] else data[:-1] + bytes((last,))
        self.bits = bits

    def __len__(self) -> int:
        """Length in bits."""
        return 8 * (len(self.data) - 1) + self.bits

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BitString):
            return NotImplemented
        return self.bits == other.bits and self.data == other.data

    def __hash__(self) -> int:
        return hash((self.bits, self.data))

    def __repr__(self) -> str:
        return f"BitString({self.data!r}, {self.bits})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (BitString, (self.data, self.bits))


@final
class ImproperList:
    """A list whose tail is no list: ``[1, 2 | Tail]`` is ``ImproperList([1, 2], tail)``.

    A tail that is an improper list itself continues the elements, as in Erlang.

    Raises:
        ValueError: No elements, or the tail is a list: that is an ordinary list.
    """

    __slots__ = ("elements", "tail")
    __match_args__: ClassVar[tuple[str, ...]] = ("elements", "tail")

    #: At least one.
    elements: Final[list[Any]]
    tail: Final[Any]

    def __init__(self, elements: list[Any], tail: Any) -> None:
        if not elements or isinstance(tail, list):
            raise ValueError("an ImproperList has at least one element and a tail that is no list; else use a list")
        if isinstance(tail, ImproperList):
            elements = elements + tail.elements
            tail = tail.tail
        self.elements = elements
        self.tail = tail

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ImproperList):
            return NotImplemented
        return self.elements == other.elements and bool(self.tail == other.tail)

    def __hash__(self) -> int:
        raise TypeError("unhashable type: 'ImproperList'")

    def __repr__(self) -> str:
        return f"ImproperList({self.elements!r}, {self.tail!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (ImproperList, (self.elements, self.tail))


@final
class Record:
    """A native record of OTP 29, ``RECORD_EXT``.

    Args:
        module: The module that defines it.
        name: The record's name.
        exported: Whether other modules may use its fields by name.
        fields: Field name and value, in the order of the definition.

    Raises:
        ValueError: Two fields have the same name.
    """

    __slots__ = ("exported", "fields", "module", "name")

    module: Final[Atom]
    name: Final[Atom]
    exported: Final[bool]
    fields: Final[tuple[tuple[Atom, Any], ...]]

    def __init__(self, module: Atom, name: Atom, exported: bool, fields: tuple[tuple[Atom, Any], ...]) -> None:
        if len({field for field, _ in fields}) != len(fields):
            raise ValueError("a record cannot have the same field twice")
        self.module = module
        self.name = name
        self.exported = exported
        self.fields = fields

    def __getitem__(self, name: str | Atom) -> Any:
        """Return the value of a field, by ``str`` or :class:`Atom`; KeyError if there is none."""
        wanted = name.name if isinstance(name, Atom) else name
        for field, value in self.fields:
            if field.name == wanted:
                return value
        raise KeyError(name)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Record):
            return NotImplemented
        return (
            self.module == other.module
            and self.name == other.name
            and self.exported == other.exported
            and self.fields == other.fields
        )

    def __hash__(self) -> int:
        return hash((self.module, self.name))  # without the values: they may be unhashable

    def __repr__(self) -> str:
        return f"Record({self.module!r}, {self.name!r}, {self.exported!r}, {self.fields!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (Record, (self.module, self.name, self.exported, self.fields))


@final
@mypyc_attr(acyclic=True)
class LocalTerm:
    """``LOCAL_EXT``: a term in a private encoding of the node that made it; only that node can read it.

    Made by ``term_to_binary(Term, [local])``. ``data`` is all that follows the tag.
    """

    __slots__ = ("data",)

    data: Final[bytes]

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LocalTerm):
            return NotImplemented
        return self.data == other.data

    def __hash__(self) -> int:
        return hash(self.data)

    def __repr__(self) -> str:
        return f"LocalTerm({self.data!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (LocalTerm, (self.data,))


def _identity(term: Any) -> bytes:
    """Return a digest of ``term``: two terms have the same exactly when they are ``=:=`` in Erlang.

    Python's ``==`` will not do: ``1 == 1.0 == True``, and it recurses. Here an explicit stack is used, and an ErlMap
    inside keeps its own digest, so that maps as keys of maps as keys of maps cost no more than their size.
    """
    done: list[bytes] = []
    # Each entry is a term to look at or, with its kind and their number, a compound whose parts are done.
    todo: list[tuple[str, Any]] = [("", term)]
    while todo:
        kind, value = todo.pop()
        if kind:
            count: int = value
            parts = done[len(done) - count :]
            del done[len(done) - count :]
            if kind == "map":
                parts = sorted([parts[at] + parts[at + 1] for at in range(0, count, 2)])
            done.append(_digest(kind, b"".join(parts)))
            continue
        split = _split(value)
        if split is None:
            done.append(_leaf_identity(value))
        else:
            inner, children = split
            todo.append((inner, len(children)))
            children.reverse()
            todo.extend([("", child) for child in children])
    return done[0]


def _digest(kind: str, data: bytes) -> bytes:
    return blake2b(data, digest_size=20, person=kind.encode("ascii")).digest()


def _leaf_identity(value: Any) -> bytes:
    if isinstance(value, bool) or value is None:
        return _digest("atom", repr(value).encode("ascii"))
    if isinstance(value, Atom):
        return _digest("atom", value.wire)
    if isinstance(value, int):
        return _digest("integer", value.to_bytes((value.bit_length() >> 3) + 1, "little", signed=True))
    if isinstance(value, float):
        return _digest("float", pack(">d", value))  # 0.0 and -0.0 are two keys since OTP 27
    if isinstance(value, str):
        return _digest("binary", value.encode("utf-8", "surrogatepass"))
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _digest("binary", bytes(value))
    if isinstance(value, (Pid, Port, Reference, Export, BitString, LocalTerm)):
        return _digest("other", repr(value).encode("utf-8"))
    if isinstance(value, ErlMap):
        return value.identity
    raise TypeError(f"not an Erlang term: {type(value).__name__}")


def _split(value: Any) -> tuple[str, list[Any]] | None:
    """Return kind and parts of a compound term, None for all others."""
    if isinstance(value, tuple):
        return "tuple", list(value)
    if isinstance(value, list):
        return "list", list(value)
    if isinstance(value, ImproperList):
        return "improper", [*value.elements, value.tail]
    if isinstance(value, dict):
        parts: list[Any] = []
        for key, item in value.items():
            parts.append(key)
            parts.append(item)
        return "map", parts
    if isinstance(value, Fun):
        return "fun", list(value._parts())
    if isinstance(value, Record):
        parts = [value.module, value.name, value.exported]
        for name, field in value.fields:
            parts.append(name)
            parts.append(field)
        return "record", parts
    return None


@final
class ErlMap:
    """A map that a ``dict`` cannot hold: with keys that Python would merge (1, 1.0, true) or cannot hash (lists, maps).

    The decoder makes one only then. It is a :class:`collections.abc.Mapping`, read-only, keeps the order of its pairs,
    and tells keys apart as Erlang's ``=:=`` does. It equals another mapping with the same pairs by that measure.

    Args:
        pairs: Keys and values.

    Raises:
        ValueError: Two keys are the same in Erlang.
    """

    __slots__ = ("_index", "_pairs", "identity")

    #: For this module's own use.
    identity: Final[bytes]

    def __init__(self, pairs: Iterable[tuple[Any, Any]]) -> None:
        self._pairs: Final = list(pairs)
        self._index: Final[dict[bytes, Any]] = {}
        parts: list[bytes] = []
        for key, value in self._pairs:
            key_identity = _identity(key)
            self._index[key_identity] = value
            parts.append(key_identity + _identity(value))
        if len(self._index) != len(self._pairs):
            raise ValueError("a map cannot have the same key twice")
        parts.sort()
        self.identity = _digest("map", b"".join(parts))

    def pairs(self) -> list[tuple[Any, Any]]:
        """Return keys and values as they came."""
        return list(self._pairs)

    def __getitem__(self, key: Any) -> Any:
        try:
            return self._index[_identity(key)]
        except (KeyError, TypeError):
            raise KeyError(key) from None

    def __iter__(self) -> Iterator[Any]:
        return iter([key for key, _ in self._pairs])

    def __len__(self) -> int:
        return len(self._pairs)

    def items(self) -> ItemsView[Any, Any]:
        """As of any mapping."""
        return ItemsView(cast(Mapping[Any, Any], self))

    def keys(self) -> KeysView[Any]:
        """As of any mapping."""
        return KeysView(cast(Mapping[Any, Any], self))

    def values(self) -> ValuesView[Any]:
        """As of any mapping."""
        return ValuesView(cast(Mapping[Any, Any], self))

    def __contains__(self, key: object) -> bool:
        try:
            self[key]
        except KeyError:
            return False
        return True

    def get(self, key: Any, default: Any = None) -> Any:
        """As of any mapping."""
        try:
            return self[key]
        except KeyError:
            return default

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (ErlMap, dict)):
            return self.identity == _identity(other)
        return NotImplemented

    def __hash__(self) -> int:
        raise TypeError("unhashable type: 'ErlMap'")

    def __repr__(self) -> str:
        return f"ErlMap({self._pairs!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (ErlMap, (self._pairs,))


# Not by inheritance: mypyc 2.4.1 frees a native class with a base of the library's too early, attributes first.
Mapping.register(ErlMap)


def charlist(string: str) -> list[int]:
    """Return ``string`` as Erlang's string, a list of code points: what ``"abc"`` is in Erlang source."""
    return [ord(character) for character in string]


def text(term: Term) -> str:
    """Return the text of a binary (UTF-8) or of a charlist; a ``str`` passes unchanged.

    Raises:
        ValueError: The bytes are no UTF-8, or a number is no code point.
        TypeError: ``term`` is something else.
    """
    if isinstance(term, str):
        return term
    if isinstance(term, bytes):
        return term.decode("utf-8")
    if isinstance(term, list) and all(type(code) is int for code in term):
        try:
            return "".join([chr(code) for code in cast("list[int]", term)])
        except OverflowError as error:
            raise ValueError(f"not a charlist: {error}") from error
    raise TypeError(f"not a binary or charlist: {term!r}")
