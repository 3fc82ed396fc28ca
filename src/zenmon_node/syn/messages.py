"""What the scope processes of syn say to each other: every message, built and parsed here. Pure.

.. code-block:: text

    membership, of both halves
    {'3.0', discover, ScopePid}                                       who are you, and what have you?
    {'3.0', ack_sync, ScopePid, [{NameOrGroup, Pid, Meta, Time}]}     all that lives on my node

    replication, from the node of Pid
    {'3.0', sync_register, Name, Pid, Meta, Time, Reason}             {'3.0', sync_join, Group, Pid, Meta, Time, Reason}
    {'3.0', sync_unregister, Name, Pid, Meta, Reason}                 {'3.0', sync_leave, Group, Pid, Meta, Reason}

    requests (gen_server:call), to the node of Pid, which alone decides
    {'3.0', register_or_update_on_node, RequesterNode, Name, Pid, MetaOrFun}
    {'3.0', join_or_update_on_node, RequesterNode, Group, Pid, MetaOrFun}
            -> {ok, {Callback, PreviousMeta, Meta, Time, Table, Table}} | {noop, Meta}
             | {error, taken | not_alive | undefined} | {raise, Class, Reason, Stack}
    {'3.0', unregister_on_node, RequesterNode, Name, Pid}  -> {ok, Table} | {error, undefined | race_condition}
    {'3.0', leave_on_node, RequesterNode, Group, Pid}      -> {ok, {Meta, Table}} | {error, not_in_group}
    {'3.0', subcluster_nodes}                              -> [Node]

The tag ``'3.0'`` is the same from 3.0.0 on and no check of versions; the requests have these names since 3.2.0. The
tables in a reply are names of ETS tables into which a genuine caller itself writes; wrong ones crash it. Time is system
time in nanoseconds.

Source: the messages of syn 3.3.0 and 3.4.1, observed on the wire.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from erlang_interop.terms import Atom, Export, Fun, Pid

from ..pacing import SLICE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from erlang_interop.terms import Term

TAG: Final = Atom("3.0")
_DISCOVER: Final = Atom("discover")
_ACK_SYNC: Final = Atom("ack_sync")
_SYNC_REGISTER: Final = Atom("sync_register")
_SYNC_UNREGISTER: Final = Atom("sync_unregister")
_SYNC_JOIN: Final = Atom("sync_join")
_SYNC_LEAVE: Final = Atom("sync_leave")
_REGISTER_OR_UPDATE: Final = Atom("register_or_update_on_node")
_UNREGISTER: Final = Atom("unregister_on_node")
_JOIN_OR_UPDATE: Final = Atom("join_or_update_on_node")
_LEAVE: Final = Atom("leave_on_node")
_SUBCLUSTER_NODES: Final = Atom("subcluster_nodes")

#: Names, groups and metadata are taken from users only if all members can be told.
WHY_NO_RECORDS: Final = "the scopes of syn are for nodes of every OTP release"

OK: Final = Atom("ok")
ERROR: Final = Atom("error")
NOOP: Final = Atom("noop")
RAISE: Final = Atom("raise")
TAKEN: Final = Atom("taken")
NOT_ALIVE: Final = Atom("not_alive")
UNDEFINED: Final = Atom("undefined")
RACE_CONDITION: Final = Atom("race_condition")
NOT_IN_GROUP: Final = Atom("not_in_group")
NORMAL: Final = Atom("normal")
CONFLICT_RESOLUTION: Final = Atom("syn_conflict_resolution")
RESOLVE_KILL: Final = Atom("syn_resolve_kill")
_NODE_UP: Final = Atom("syn_remote_scope_node_up")
_NODE_DOWN: Final = Atom("syn_remote_scope_node_down")

#: What a peer is asked for the nodes of its scope.
SUBCLUSTER_NODES: Final = (TAG, _SUBCLUSTER_NODES)

#: ``{error, undefined}``, as 3.3.0 says it to an update of a name that nobody has.
_OLD_UNDEFINED: Final = ((ERROR, UNDEFINED), UNDEFINED)

#: Callbacks that a reply may name.
_CALLBACKS: Final = frozenset(
    ("on_process_registered", "on_registry_process_updated", "on_process_joined", "on_group_process_updated")
)


_FUNS: Final = (Fun, Export)


class Malformed(Exception):
    """A message is of no form that syn knows; the text says what is wrong with it."""


@dataclass(slots=True)
class Discover:
    """A scope process asks for all that is here."""

    pid: Pid


@dataclass(slots=True)
class AckSync:
    """A scope process says what lives on its node; ``data`` is not checked yet, see :func:`check`."""

    pid: Pid
    data: Any


@dataclass(slots=True)
class PutRequest:
    """``register_or_update_on_node`` or ``join_or_update_on_node``."""

    requester: Atom
    key: Any
    pid: Pid
    meta_or_fun: Any


@dataclass(slots=True)
class RemoveRequest:
    """``unregister_on_node`` or ``leave_on_node``."""

    requester: Atom
    key: Any
    pid: Pid


@dataclass(slots=True)
class Stored:
    """The ``{ok, ...}`` of an authority: what its requester is to store."""

    callback: str
    previous: Any
    """The metadata before; ``undefined`` if there was none."""
    meta: Any
    time: int


@dataclass(frozen=True, slots=True)
class Words:
    """The words of one half of a scope.

    Attributes:
        name: ``registry`` or ``pg``: in the name of its process and of its tables.
        put, gone: First words of its replication messages.
        put_request, remove_request: First words of its requests.
    """

    name: str
    put: Atom
    gone: Atom
    put_request: Atom
    remove_request: Atom

    def process(self, scope: Atom) -> Atom:
        """The name under which its scope process is registered on every node."""
        return Atom(f"syn_{self.name}_{scope.name}")

    def table_by_pid(self, scope: Atom) -> Atom:
        """The table of processes."""
        return _tables(self.name, scope)[1]

    # -- to say

    def say_put(self, key: Term, pid: Pid, meta: Term, time: int, reason: Term) -> Term:
        """``sync_register`` or ``sync_join``."""
        return TAG, self.put, key, pid, meta, time, reason

    def say_gone(self, key: Term, pid: Pid, meta: Term, reason: Term) -> Term:
        """``sync_unregister`` or ``sync_leave``."""
        return TAG, self.gone, key, pid, meta, reason

    def ask_put(self, requester: Atom, key: Term, pid: Pid, meta_or_fun: Term) -> Term:
        """``register_or_update_on_node`` or ``join_or_update_on_node``."""
        return TAG, self.put_request, requester, key, pid, meta_or_fun

    def ask_remove(self, requester: Atom, key: Term, pid: Pid) -> Term:
        """``unregister_on_node`` or ``leave_on_node``."""
        return TAG, self.remove_request, requester, key, pid

    def reply_stored(self, scope: Atom, stored: Stored) -> Term:
        """What the authority answers when it has stored something."""
        return OK, (Atom(stored.callback), stored.previous, stored.meta, stored.time, *_tables(self.name, scope))

    # -- said

    def is_put(self, message: Told) -> bool:
        """Which of the two another member says of a process: it is what :meth:`say_put` has made, or :meth:`say_gone`.

        Raises:
            Malformed: it is neither.
        """
        what, size = message[1], len(message)
        if size == 7 and what == self.put:
            if type(message[5]) is not int:
                raise Malformed("its time is no integer")
        elif size != 6 or what != self.gone:
            raise Malformed(f"not a message of syn's {self.name}")
        _pid(message[3])
        return size == 7

    def parse_request(self, request: Term) -> PutRequest | RemoveRequest | None:
        """What is asked of this node; None if that is no request, or a malformed one: then ``undefined`` is the answer.

        A genuine scope process would end at a pid that is none, and so at one of another node.
        """
        match request:
            case (tag, what, Atom() as requester, key, Pid() as pid, meta_or_fun) if (
                tag == TAG and what == self.put_request
            ):
                return PutRequest(requester, key, pid, meta_or_fun)
            case (tag, what, Atom() as requester, key, Pid() as pid) if tag == TAG and what == self.remove_request:
                return RemoveRequest(requester, key, pid)
        return None


@lru_cache
def _tables(half: str, scope: Atom) -> tuple[Atom, Atom]:
    """The table of names, or of groups, and the one of processes."""
    return Atom(f"syn_{half}_by_name_{scope.name}"), Atom(f"syn_{half}_by_pid_{scope.name}")


REGISTRY: Final = Words("registry", _SYNC_REGISTER, _SYNC_UNREGISTER, _REGISTER_OR_UPDATE, _UNREGISTER)
PG: Final = Words("pg", _SYNC_JOIN, _SYNC_LEAVE, _JOIN_OR_UPDATE, _LEAVE)

Told: TypeAlias = "tuple[Any, ...]"


def discover(me: Pid) -> Term:
    """Ask for all that is there."""
    return TAG, _DISCOVER, me


def ack_sync(me: Pid, data: list[Any]) -> Term:
    """Say all that lives on this node."""
    return TAG, _ACK_SYNC, me, data


def parse(message: Any) -> Discover | AckSync | Told:
    """What has arrived at a scope process: for the scope itself, or the tuple as it came, for its service.

    Raises:
        Malformed: it is no tuple with the tag ``'3.0'``, or lacks the pid of the scope process that speaks.
    """
    if type(message) is not tuple or len(message) < 2 or message[0] != TAG:
        raise Malformed("not a message of syn 3")
    what = message[1]
    if what == _DISCOVER and len(message) == 3:
        return Discover(_pid(message[2]))
    if what == _ACK_SYNC and len(message) == 4:
        return AckSync(_pid(message[2]), message[3])
    return message


def check(data: Any, node: Atom) -> Iterator[None]:
    """See that an ``ack_sync`` holds entries, all of them of processes of the node that sent it, in slices.

    Raises:
        Malformed: it does not.
    """
    if type(data) is not list:
        raise Malformed("an ack_sync without a list")
    for done, entry in enumerate(data, start=1):
        if done % (10 * SLICE) == 0:  # 0.1 us each
            yield None
        if type(entry) is not tuple or len(entry) != 4:
            raise Malformed("an ack_sync with what is no {Name, Pid, Meta, Time}")
        _key, pid, _meta, time = entry
        if type(pid) is not Pid or type(time) is not int:
            raise Malformed("an ack_sync with a pid or a time that is none")
        if pid.node != node:
            raise Malformed(f"an ack_sync with a process of another node, {pid.node}")


def _pid(term: Any) -> Pid:
    if type(term) is not Pid:
        raise Malformed("what should be a pid is none")
    return term


# ------------------------------------------------------------------------------------------------------------- replies


def parse_stored(reply: Any) -> Stored | None:
    """What the authority has stored on our request; None if it has stored nothing: a ``noop``, or an error.

    Raises:
        Malformed: it is no reply to a ``..._or_update_on_node``.
    """
    match reply:
        case (what, (Atom() as callback, previous, meta, int() as time, Atom(), Atom())) if (
            what == OK and callback.name in _CALLBACKS and type(time) is int
        ):
            return Stored(callback.name, previous, meta, time)
        case (what, _) if what in (NOOP, ERROR) or reply == _OLD_UNDEFINED:
            return None
        case (what, _class, _reason, _stack) if what == RAISE:
            return None
    raise Malformed("not an answer to a request to register, join or update")


def parse_unregistered(reply: Any) -> bool:
    """Whether the authority has unregistered. Raises Malformed."""
    match reply:
        case (what, Atom()) if what == OK:
            return True
        case (what, _) if what == ERROR:
            return False
    raise Malformed("not an answer to a request to unregister")


def parse_left(reply: Any) -> tuple[Any] | None:
    """The metadata of what has left, in a tuple, as the authority says; None if nothing has. Raises Malformed."""
    match reply:
        case (what, (meta, Atom())) if what == OK:
            return (meta,)
        case (what, _) if what == ERROR:
            return None
    raise Malformed("not an answer to a request to leave")


# ------------------------------------------------------------------------------------------------------------- reasons


def node_up(scope: Atom, node: Atom) -> Term:
    """Why entries come that were made while the two nodes did not know each other."""
    return _NODE_UP, scope, node


def node_down(scope: Atom, node: Atom) -> Term:
    """Why entries go whose node, or its scope process, has gone."""
    return _NODE_DOWN, scope, node


def resolve_kill(name: Term, meta: Term) -> Term:
    """The exit reason of a process that has lost its name in a conflict."""
    return RESOLVE_KILL, name, meta


def is_fun(term: Any) -> bool:
    """Whether what stands in the place of metadata is a function of the old ones: metadata cannot be one."""
    return type(term) in _FUNS or callable(term)
