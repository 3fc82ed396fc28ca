"""What the name servers of ``global`` say to each other, in version 8 of their protocol. Pure.

.. code-block:: text

    casts    {init_connect, {Version, Tag}, Node, {locker, no_longer_a_pid, Known, Locker}}
             {lock_set, Locker, IsSet, Known, HisTag}              without the tag before version 8
             {exchange, Node, [{Name, Pid, Method}], [], HisTag}
             {resolved, Node, Ops, Known, unused, NamesExt, HisTag}
             {new_nodes, Node, Ops, NamesExt, Nodes, [{vsn, Version}, {lock, {global, Requester}}]}
             {in_sync, Node, true}
             {async_del_name, _, _}, {async_del_lock, _, _}        of OTP R13; they mean nothing
    infos    {init_connect_ack, Node, HisTag, Tag}, {cancel_connect, Node, HisTag}
             {lost_connection, Node, Incarnation, Number, Lost}, {remove_connection, Node}
             {whereis, Name, From}
    calls    {set_lock, {Resource, Requester}}, {del_lock, ...}    true or false; true
             {register, Name, Pid, Method}, {register_ext, Name, Pid, Method, Node}, {unregister, Name}
             {sync, Nodes}, get_known, get_synced, get_protocol_version, get_names_ext, info

``HisTag`` is the number that the receiver has given the attempt; a message with another one is of an older attempt.
``Ops`` are ``{insert, {Name, Pid, Method}}`` and ``{delete, Name}``, ``NamesExt`` are ``{Name, Pid, Node}`` for names
of processes that ``Node`` has registered for a node that has no ``global`` (a C node). ``Known`` and ``Nodes`` are
``[{Node, Version}]``, before version 7 ``[Node]``.

Two places that no OTP looks at tell nodes of this kind from BEAMs: a key of the map in ``init_connect``, and the last
element of ``in_sync``. What it is good for is said in ``_global_core.py``.

Source: kernel/src/global.erl of OTP 25 to 29.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ..terms import Atom, ErlMap, Pid
from .exact import Exact
from .gen import GEN_CALL, GEN_CAST, From, is_from
from .passive import IN_SYNC
from .term_order import pid_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..terms import Term

#: The version that is spoken here, the oldest that is understood, and the first that can start an attempt over.
VERSION: Final = 8
OLDEST: Final = 6
TAGGED: Final = 8
#: The first whose nodes tell each other of lost connections, and say which versions those speak that they know.
PREVENTING: Final = 7

GLOBAL: Final = Atom("global")
#: The mark by which nodes of this kind know each other.
PYTHON: Final = Atom("zenmon_node")

_CANCEL_CONNECT: Final = Atom("cancel_connect")
_DELETE: Final = Atom("delete")
_EXCHANGE: Final = Atom("exchange")
_INIT_CONNECT: Final = Atom("init_connect")
_INIT_CONNECT_ACK: Final = Atom("init_connect_ack")
_INSERT: Final = Atom("insert")
_LOCK: Final = Atom("lock")
_LOCKER: Final = Atom("locker")
_LOCK_SET: Final = Atom("lock_set")
_LOST_CONNECTION: Final = Atom("lost_connection")
_NEW_NODES: Final = Atom("new_nodes")
_NO_LONGER_A_PID: Final = Atom("no_longer_a_pid")
_REMOVE_CONNECTION: Final = Atom("remove_connection")
_RESOLVED: Final = Atom("resolved")
_UNUSED: Final = Atom("unused")
_VSN: Final = Atom("vsn")


@dataclass(frozen=True, slots=True)
class Named:
    """A name, the process that has it, and what decides when another one has it too."""

    name: Term
    pid: Pid
    method: Term


@dataclass(frozen=True, slots=True)
class External:
    """A name of a process without a ``global`` of its own, and the node that has registered it."""

    name: Term
    pid: Pid
    node: Atom


@dataclass(slots=True)
class Ops:
    """What is to become of a table of names."""

    insert: list[Named]
    delete: list[Term]


@dataclass(frozen=True, slots=True)
class InitConnect:
    """A node wants to exchange names; ``tag`` is its number for this attempt."""

    node: Atom
    version: int
    tag: Term
    locker: Pid
    python: bool


@dataclass(frozen=True, slots=True)
class InitConnectAck:
    """A node has our ``init_connect``: what it takes for our tag, and for its own."""

    node: Atom
    tag: Term
    his_tag: Term


@dataclass(frozen=True, slots=True)
class CancelConnect:
    """A node gives the attempt up and begins another."""

    node: Atom
    tag: Term


@dataclass(frozen=True, slots=True)
class LockSet:
    """A locker has, or has not, locked its side. ``tag`` is None before version 8."""

    locker: Pid
    is_set: bool
    tag: Term


@dataclass(frozen=True, slots=True)
class Exchange:
    """All names of a node's side."""

    node: Atom
    names: list[Named]
    tag: Term


@dataclass(frozen=True, slots=True)
class Resolved:
    """What our side is to do about names of both, and the nodes of the other side."""

    node: Atom
    ops: Ops
    known: dict[Atom, int]
    external: list[External]
    tag: Term


@dataclass(frozen=True, slots=True)
class NewNodes:
    """A node that is known has met others. ``requester`` is what it has set the lock ``global`` for."""

    node: Atom
    ops: Ops
    external: list[External]
    nodes: dict[Atom, int]
    requester: Term


@dataclass(frozen=True, slots=True)
class InSync:
    """A node has our names, by way of somebody else, or needs none."""

    node: Atom
    python: bool


@dataclass(frozen=True, slots=True)
class LostConnection:
    """``node`` has lost its connection to ``lost``; its ``number`` grows within one ``incarnation``."""

    node: Atom
    incarnation: Term
    number: int
    lost: Atom


@dataclass(frozen=True, slots=True)
class RemoveConnection:
    """``node`` asks to be disconnected from."""

    node: Atom


@dataclass(frozen=True, slots=True)
class Whereis:
    """Somebody asks for a name, and can wait until no names are exchanged."""

    name: Term
    from_: From


@dataclass(frozen=True, slots=True)
class Call:
    """A call; what is asked for is in ``request``."""

    from_: From
    request: Any


class Ignored:
    """What old nodes say and nobody has to know."""


Message: TypeAlias = (
    InitConnect
    | InitConnectAck
    | CancelConnect
    | LockSet
    | Exchange
    | Resolved
    | NewNodes
    | InSync
    | LostConnection
    | RemoveConnection
    | Whereis
    | Call
    | Ignored
)


class Malformed(Exception):
    """A message is of no known form; the text says what is wrong with it."""


def parse(message: Any) -> Message:
    """What a message to ``global_name_server`` says. Raises Malformed."""
    try:
        match message:
            case (tag, from_, request) if tag == GEN_CALL and is_from(from_):
                return Call(from_, request)
            case (tag, cast) if tag == GEN_CAST:
                return _parse_cast(cast)
            case (Atom("init_connect_ack"), node, tag, his_tag):
                return InitConnectAck(_node(node), tag, his_tag)
            case (Atom("cancel_connect"), node, tag):
                return CancelConnect(_node(node), tag)
            case (Atom("lost_connection"), node, incarnation, int() as number, lost):
                return LostConnection(_node(node), incarnation, number, _node(lost))
            case (Atom("remove_connection"), node):
                return RemoveConnection(_node(node))
            case (Atom("whereis"), name, from_) if is_from(from_):
                return Whereis(name, from_)
    except (TypeError, ValueError):  # what was unpacked is no tuple of that size, or no term at all
        raise Malformed("a part of it has another form than there should be") from None
    raise Malformed("not a message of global")


def _parse_cast(cast: Any) -> Message:
    match cast:
        case (Atom("init_connect"), (int() as version, tag, *_), node, (Atom("locker"), _, known, Pid() as locker)):
            if version < OLDEST:
                raise Malformed(f"it speaks version {version} of the protocol, and {OLDEST} is the oldest known here")
            python = isinstance(known, dict | ErlMap) and PYTHON in known
            return InitConnect(_node(node), version, tag, locker, python)
        case (Atom("lock_set"), Pid() as locker, bool() as is_set, _known):
            return LockSet(locker, is_set, None)
        case (Atom("lock_set"), Pid() as locker, bool() as is_set, _known, tag):
            return LockSet(locker, is_set, tag)
        case (Atom("exchange"), node, list() as names, _external, tag):
            return Exchange(_node(node), [_named(*each) for each in names], tag)
        case (Atom("resolved"), node, list() as ops, known, _unused, external, tag):
            return Resolved(_node(node), _ops(ops), _versions(known), _external_names(external), tag)
        case (Atom("new_nodes"), node, list() as ops, external, nodes, info):
            return NewNodes(_node(node), _ops(ops), _external_names(external), _versions(nodes), _requester(info))
        case (Atom("in_sync"), node, mark):
            return InSync(_node(node), mark == PYTHON)
        case (Atom("async_del_name") | Atom("async_del_lock"), _, _):
            return Ignored()
    raise Malformed("not a message of global")


def _node(term: Any) -> Atom:
    if type(term) is not Atom or "@" not in term.name:
        raise Malformed("the name of a node is needed")
    return term


def _named(name: Term, pid: Any, method: Term) -> Named:
    if type(pid) is not Pid:
        raise Malformed("what has a name must be a pid")
    Exact(name)
    return Named(name, pid, method)


def _ops(terms: list[Any]) -> Ops:
    ops = Ops([], [])
    for what, term in terms:
        if what == _INSERT:
            ops.insert.append(_named(*term))
        elif what == _DELETE:
            Exact(term)
            ops.delete.append(term)
        else:
            raise Malformed("names are inserted or deleted, and nothing else")
    return ops


def _external_names(terms: Any) -> list[External]:
    return [External(named.name, named.pid, _node(named.method)) for named in (_named(*each) for each in terms)]


def _versions(terms: Any) -> dict[Atom, int]:
    """``[{Node, Version}]``, or ``[Node]``: then 0, which stands for one that is not known."""
    if type(terms) is not list:
        raise Malformed("a list of nodes is needed")
    nodes: dict[Atom, int] = {}
    for term in terms:
        node, version = term if type(term) is tuple else (term, 0)
        if type(version) is not int:
            raise Malformed("the version of a protocol is a number")
        nodes[_node(node)] = version
    return nodes


def _requester(info: Any) -> Term:
    """That of the lock in the last part of ``new_nodes``; None if it is not there."""
    for what, value in info:
        if what == _LOCK:
            resource, requester = value
            if resource == GLOBAL:
                return requester
    return None


# ------------------------------------------------------------------------------------------------------------- to say


def init_connect(me: Atom, tag: int, known: Mapping[Atom, int], locker: Pid) -> Term:
    """Ask to exchange names."""
    return (_INIT_CONNECT, (VERSION, tag), me, (_LOCKER, _NO_LONGER_A_PID, {**known, PYTHON: VERSION}, locker))


def init_connect_ack(me: Atom, his_tag: Term, tag: int) -> Term:
    """Say that an ``init_connect`` has come."""
    return (_INIT_CONNECT_ACK, me, his_tag, tag)


def cancel_connect(me: Atom, his_tag: Term) -> Term:
    """Give an attempt up."""
    return (_CANCEL_CONNECT, me, his_tag)


def lock_set(locker: Pid, is_set: bool, known: Iterable[Atom], version: int, his_tag: Term) -> Term:
    """Say that this side is, or cannot be, locked."""
    message = (_LOCK_SET, locker, is_set, list(known))
    return message if version < TAGGED else (*message, his_tag)


def exchange(me: Atom, names: Iterable[Named], his_tag: Term) -> Term:
    """Tell all names of this side."""
    return (_EXCHANGE, me, [(named.name, named.pid, named.method) for named in names], [], his_tag)


def resolved(
    me: Atom, ops: Ops, known: Mapping[Atom, int], version: int, external: Iterable[External], his_tag: Term
) -> Term:
    """Tell what the other side has to do about its names, and the nodes of this one."""
    return (_RESOLVED, me, ops_term(ops), nodes_term(known, version), _UNUSED, external_term(external), his_tag)


def new_nodes(
    me: Atom,
    ops: Ops,
    external: Iterable[External],
    nodes: Mapping[Atom, int],
    to: int,
    version: int,
    requester: Term,
) -> Term:
    """Tell a node that speaks version ``to`` of those that were met, with which ``version`` was spoken."""
    info = [(_VSN, version), (_LOCK, (GLOBAL, requester))]
    return (_NEW_NODES, me, ops_term(ops), external_term(external), nodes_term(nodes, to), info)


def in_sync(me: Atom) -> Term:
    """Say that this node has all names."""
    return (IN_SYNC, me, PYTHON)


def lost_connection(me: Atom, incarnation: Term, number: int, lost: Atom) -> Term:
    """Tell of a loss."""
    return (_LOST_CONNECTION, me, incarnation, number, lost)


def remove_connection(me: Atom) -> Term:
    """Ask to be disconnected from."""
    return (_REMOVE_CONNECTION, me)


def ops_term(ops: Ops) -> list[Term]:
    """``Ops``."""
    inserts: list[Term] = [(_INSERT, (named.name, named.pid, named.method)) for named in ops.insert]
    return [*inserts, *((_DELETE, name) for name in ops.delete)]


def external_term(names: Iterable[External]) -> list[Term]:
    """``NamesExt``."""
    return [(each.name, each.pid, each.node) for each in names]


def nodes_term(nodes: Mapping[Atom, int], version: int) -> list[Term]:
    """Nodes as a node of that version expects them."""
    return list(nodes) if version < PREVENTING else list(nodes.items())


def requester_of(locker: Pid, other: Pid) -> list[Term]:
    """What two lockers set the lock for: the same on both sides, so each lets the other in."""
    return sorted([locker, other], key=pid_key)
