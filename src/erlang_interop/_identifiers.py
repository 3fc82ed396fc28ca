"""Atoms, pids, ports and references: the terms that identify something. Public as :mod:`erlang_interop.terms`.

Where the C core was built its types stand in for these classes. They do the same in less time and memory, are
invisible to the garbage collector and read-only, and their numbers must fit 64 bits.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any, ClassVar, Final, final

from erlang_interop._native import core
from erlang_interop.errors import EncodeError

__all__ = ["INTERN_LIMIT", "MAX_ATOM_CHARACTERS", "Atom", "Pid", "Port", "Reference"]

#: An atom has at most so many characters (*Efficiency Guide, System Limits*).
MAX_ATOM_CHARACTERS: Final = 255

#: So many atoms are kept for ever, so that a peer cannot fill the memory with new ones. Later ones still work and
#: compare by name, but each ``Atom(name)`` is then a new object.
INTERN_LIMIT: Final = 65536

_interned: Final[dict[str, Atom]] = {}

#: What a hash may be made of without being hashed itself.
_HASH_BITS: Final = (1 << 61) - 1


def _atom_bytes(name: str) -> bytes:
    """Return ``name`` as ``SMALL_ATOM_UTF8_EXT`` or ``ATOM_UTF8_EXT``; EncodeError when it is no atom."""
    if len(name) > MAX_ATOM_CHARACTERS:
        raise EncodeError(
            f"an atom has at most {MAX_ATOM_CHARACTERS} characters, this one {len(name)}: {name[:40]!r}..."
        )
    try:
        raw = name.encode("utf-8")
    except UnicodeEncodeError as error:
        raise EncodeError(f"not an atom, it has no UTF-8 form: {name!r}") from error
    size = len(raw)
    if size < 256:
        return bytes((119, size)) + raw
    return bytes((118, size >> 8, size & 255)) + raw


@final
class Atom:
    """An Erlang atom: ``Atom("ok")``.

    ``Atom("ok") is Atom("ok")`` as long as no more than :data:`INTERN_LIMIT` atoms exist; ``==`` always works. An atom
    is no ``str`` and equals none. ``Atom("true")``, ``Atom("false")`` and ``Atom("nil")`` can be made and are sent as
    those atoms, but they come back as ``True``, ``False`` and ``None``, and do not equal these.

    Raises:
        EncodeError: More than 255 characters, or no UTF-8 form.
    """

    __slots__ = ("name", "wire")
    __match_args__: ClassVar[tuple[str, ...]] = ("name",)

    #: The text between the quotes.
    name: Final[str]
    #: The external form, tag included, without the version byte.
    wire: Final[bytes]

    def __new__(cls, name: str) -> Atom:
        """Return the one object of that name, if it is interned."""
        known = _interned.get(name)
        return known if known is not None else super().__new__(cls)

    def __init__(self, name: str) -> None:
        """Take the name; a ``str`` subclass is reduced to its text."""
        if name in _interned:
            return
        if type(name) is not str:
            if not isinstance(name, str):
                raise TypeError(f"Atom() takes a str, not {type(name).__name__}")
            name = str.__str__(name)
        self.name = name
        self.wire = _atom_bytes(name)
        if len(_interned) < INTERN_LIMIT:
            _interned[name] = self

    def __eq__(self, other: object) -> bool:
        """Equal by name, also beyond the intern table."""
        if self is other:
            return True
        return self.name == other.name if isinstance(other, Atom) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.wire)

    def __repr__(self) -> str:
        return f"Atom({self.name!r})"

    def __str__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[Any, ...]:
        return (Atom, (self.name,))


@final
class Pid:
    """A process identifier, ``NEW_PID_EXT``; ``id``, ``serial`` and ``creation`` use 32 bits each."""

    __slots__ = ("creation", "id", "node", "serial")
    __match_args__: ClassVar[tuple[str, ...]] = ("node", "id", "serial", "creation")

    node: Final[Atom]
    id: Final[int]
    serial: Final[int]
    #: Which life of the node: it changes at each restart.
    creation: Final[int]

    def __init__(self, node: Atom, id: int, serial: int, creation: int) -> None:  # noqa: A002 - the manual's name
        self.node = node
        self.id = id
        self.serial = serial
        self.creation = creation

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Pid):
            return NotImplemented
        return (
            self.id == other.id
            and self.serial == other.serial
            and self.creation == other.creation
            and self.node == other.node
        )

    def __hash__(self) -> int:
        # The node is left out: its creation tells it from others, and == decides.
        return (self.id ^ (self.serial << 20) ^ (self.creation << 29)) & _HASH_BITS

    def __repr__(self) -> str:
        return f"Pid({self.node!r}, {self.id}, {self.serial}, {self.creation})"

    def __str__(self) -> str:
        return f"<{self.node.name}.{self.id}.{self.serial}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return (Pid, (self.node, self.id, self.serial, self.creation))


@final
class Port:
    """A port identifier, ``V4_PORT_EXT``; ``id`` has up to 64 bits."""

    __slots__ = ("creation", "id", "node")
    __match_args__: ClassVar[tuple[str, ...]] = ("node", "id", "creation")

    node: Final[Atom]
    id: Final[int]
    creation: Final[int]

    def __init__(self, node: Atom, id: int, creation: int) -> None:  # noqa: A002 - the manual's name
        self.node = node
        self.id = id
        self.creation = creation

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Port):
            return NotImplemented
        return self.id == other.id and self.creation == other.creation and self.node == other.node

    def __hash__(self) -> int:
        return hash((1, self.id, self.creation))

    def __repr__(self) -> str:
        return f"Port({self.node!r}, {self.id}, {self.creation})"

    def __str__(self) -> str:
        return f"#Port<{self.node.name}.{self.id}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return (Port, (self.node, self.id, self.creation))


@final
class Reference:
    """A reference (also a process alias), ``NEWER_REFERENCE_EXT``: one to five words of 32 bits.

    Args:
        node: The node that made it.
        creation: That node's creation.
        words: The words as on the wire: big-endian, 4 bytes each.
    """

    __slots__ = ("creation", "node", "words")
    __match_args__: ClassVar[tuple[str, ...]] = ("node", "creation", "words")

    node: Final[Atom]
    creation: Final[int]
    words: Final[bytes]

    def __init__(self, node: Atom, creation: int, words: bytes) -> None:
        self.node = node
        self.creation = creation
        self.words = words

    @property
    def ids(self) -> tuple[int, ...]:
        """The words as integers, in wire order."""
        return Struct(f">{len(self.words) // 4}I").unpack(self.words)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Reference):
            return NotImplemented
        return self.words == other.words and self.creation == other.creation and self.node == other.node

    def __hash__(self) -> int:
        return hash(self.words)

    def __repr__(self) -> str:
        return f"Reference({self.node!r}, {self.creation}, {self.words!r})"

    def __str__(self) -> str:
        # The BEAM prints the last word first.
        return f"#Ref<{self.node.name}.{'.'.join(str(word) for word in reversed(self.ids))}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return (Reference, (self.node, self.creation, self.words))


if core is not None:
    core.bind(atom_bytes=_atom_bytes, interned=_interned, intern_limit=INTERN_LIMIT)
    if not TYPE_CHECKING:
        Atom, Pid, Port, Reference = core.Atom, core.Pid, core.Port, core.Reference
