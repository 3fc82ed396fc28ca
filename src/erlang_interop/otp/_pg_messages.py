"""What the scope processes of ``pg`` say to each other, in both forms that are spoken. Pure.

.. code-block:: text

    OTP 23 to 28 (version 0)                         OTP 29, data_publisher (version 1)
    {discover, Peer}                                 {discover, Peer, 1}
    {'$gen_cast', {sync, Peer, [{Group, Pids}]}}     {'$gen_cast', {local_data, Peer, 1, #{Group => Pids}}}
    {join, Peer, Group, PidOrPids}                   {update, Peer, [{Group, Joined, Left}]}
    {leave, Peer, PidOrPids, Groups}

``Peer`` is the scope process that speaks. Who is sent ``discover`` answers with all that its own processes have joined,
and with a ``discover`` of its own if it did not know the sender.

Who understands what: OTP 23 to 25 end the scope process at ``{discover, Peer, 1}``; OTP 26 to 28 take it for
``{discover, Peer}``; OTP 29 understands all of version 0. So a node that is not known yet is spoken to in version 0.

Source: kernel/src/pg.erl of OTP 25, 27, 28 and 29; kernel/src/data_publisher.erl of OTP 29.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, final

from ..etf._parts import make_map
from ..terms import Atom, ErlMap, Pid, Term
from .exact import Exact, carried
from .gen import GEN_CAST

#: The two forms.
LEGACY: Final = 0
CURRENT: Final = 1

JOIN: Final = Atom("join")
LEAVE: Final = Atom("leave")
_DISCOVER: Final = Atom("discover")
_LOCAL_DATA: Final = Atom("local_data")
_SYNC: Final = Atom("sync")
_UPDATE: Final = Atom("update")


@final
class Group(Exact):
    """The name of a group: any term, told apart from others as Erlang's ``=:=`` does."""

    __slots__ = ()

    @classmethod
    def of(cls, term: Term) -> Group:
        """The group that a user of this node names: as other nodes will see it, so a ``str`` becomes ``bytes``.

        Raises:
            EncodeError: No external term can carry the name, or not one that every OTP release understands.
        """
        return cls(carried(term, "the groups of pg are for nodes of every OTP release"))


#: Group -> its members, a process as often as it has joined.
Groups: TypeAlias = Mapping[Group, "list[Pid]"]


@dataclass(slots=True)
class Change:
    """Processes that joined or left a group, one as often as it did."""

    group: Group
    joined: list[Pid]
    left: list[Pid]


@dataclass(slots=True)
class Discover:
    """A peer asks for all that is there, in the version that it speaks."""

    peer: Pid
    version: int


@dataclass(slots=True)
class Holds:
    """All that the processes of a peer's node have joined; it replaces what was known of that."""

    peer: Pid
    version: int
    groups: Groups


@dataclass(slots=True)
class Changes:
    """What has changed with a peer."""

    peer: Pid
    changes: list[Change]


Message: TypeAlias = Discover | Holds | Changes


class Malformed(Exception):
    """A message is of neither form; the text says what is wrong with it."""


def parse(message: Any) -> Message:
    """What a message of a peer says, in whichever form. Raises Malformed."""
    match message:
        case (Atom("$gen_cast"), cast):
            message = cast  # OTP 29 makes no difference between a cast and a plain message
    try:
        match message:
            case (Atom("discover"), Pid() as peer):
                return Discover(peer, LEGACY)
            case (Atom("discover"), Pid() as peer, version):
                return Discover(peer, LEGACY if version == LEGACY else CURRENT)
            case (Atom("join"), Pid() as peer, group, joined):
                return Changes(peer, [Change(Group(group), _pids(joined), [])])
            case (Atom("leave"), Pid() as peer, left, list() as groups):
                return Changes(peer, [Change(Group(group), [], _pids(left)) for group in groups])
            case (Atom("update"), Pid() as peer, list() as changes):
                return Changes(peer, [Change(Group(group), _list(add), _list(drop)) for group, add, drop in changes])
            case (Atom("sync"), Pid() as peer, list() as pairs):
                return Holds(peer, LEGACY, {Group(group): _list(pids) for group, pids in pairs})
            case (Atom("local_data"), Pid() as peer, _version, dict() | ErlMap() as data):
                return Holds(peer, CURRENT, {Group(group): _list(pids) for group, pids in data.items()})
    except (TypeError, ValueError) as error:  # what was unpacked is no tuple of that size, or no term at all
        raise Malformed(str(error)) from None
    raise Malformed("not a message of pg")


def _pids(term: Any) -> list[Pid]:
    """``PidOrPids``."""
    return [term] if type(term) is Pid else _list(term)


def _list(term: Any) -> list[Pid]:
    if type(term) is not list or not all(type(pid) is Pid for pid in term):
        raise Malformed("a list of pids is needed")
    return term


# ------------------------------------------------------------------------------------------------------------- to say


def discover(me: Pid, version: int) -> Term:
    """Ask for all that is there."""
    return (_DISCOVER, me) if version == LEGACY else (_DISCOVER, me, CURRENT)


def holds(me: Pid, version: int, groups: Iterable[tuple[Group, list[Pid]]]) -> Term:
    """All that the processes of this node have joined."""
    if version == LEGACY:
        return GEN_CAST, (_SYNC, me, [(group.term, pids) for group, pids in groups])
    return GEN_CAST, (_LOCAL_DATA, me, CURRENT, as_map(groups))


def updates(me: Pid, version: int, changes: list[Change]) -> list[Term]:
    """What has changed here: one message, or, in version 0, some."""
    if version != LEGACY:
        return [(_UPDATE, me, [(change.group.term, change.joined, change.left) for change in changes])]
    messages: list[Term] = []
    # A process may leave thousands of groups at once: one message for all that the same processes leave.
    leaves: dict[tuple[Pid, ...], list[Term]] = {}
    for change in changes:
        if change.left:
            leaves.setdefault(tuple(change.left), []).append(change.group.term)
    messages.extend((LEAVE, me, list(pids), groups) for pids, groups in leaves.items())
    messages.extend((JOIN, me, change.group.term, change.joined) for change in changes if change.joined)
    return messages


def as_map(groups: Iterable[tuple[Group, list[Pid]]]) -> Mapping[Any, list[Pid]]:
    """``#{Group => Pids}``: a dict, or an ErlMap if Python would confuse two names."""
    table: Mapping[Any, list[Pid]] = make_map([part for group, pids in groups for part in (group.term, pids)])
    return table
