"""What a scope of ``pg`` knows and decides: who is in which group, and whom to tell. Pure.

Each scope process owns the memberships of its own node's processes and tells its peers of them; what a peer has told is
kept apart, by peer, and goes with it. The process that this runs in is in ``pg.py``, the words are in
``_pg_messages.py``.

.. code-block:: text

    local    group -> pid -> how often             joined   pid -> its monitor, its groups
             ^-----key-----^                                ^-key-^
    peers    scope process -> its monitor, the version it speaks, whether it was told, group -> pid -> how often
             ^----key----^

A peer is told of changes only when it has been told all there was before. OTP 25 to 28 make a row for a peer at its
``discover``, before its ``sync`` comes, and a scope process there ends (``badkey``) at a ``leave`` of what the row has
not.

Source: kernel/src/pg.erl of OTP 25, 27, 28 and 29.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias

from ._pg_messages import (
    LEGACY,
    Change,
    Changes,
    Discover,
    Group,
    Groups,
    Holds,
    Malformed,
    discover,
    holds,
    parse,
    updates,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ..terms import Atom, Pid, Reference, Term

#: pid -> how often it has joined; never 0.
Members: TypeAlias = "dict[Pid, int]"
#: Called with what happened, the group, and the processes, one as often as it joined or left.
Tell: TypeAlias = "Callable[[Literal['join', 'leave'], Term, list[Pid]], object]"


class PgPort(Protocol):
    """What the core asks of the process it runs in."""

    def send(self, dest: Pid | tuple[Atom, Atom], message: Term) -> None:
        """Send to a node that is connected; to any other, do nothing."""

    def can_reach(self, node: Atom) -> bool:
        """Whether ``node`` is another node, and connected."""

    def monitor(self, pid: Pid) -> Reference:
        """Monitor a process. The DOWN arrives later, never during the call."""

    def demonitor(self, ref: Reference) -> None:
        """Give a monitor back."""


class Peer:
    """A scope process of another node."""

    __slots__ = ("groups", "ref", "told", "version")

    def __init__(self, ref: Reference, version: int) -> None:
        self.ref = ref
        #: The form of the protocol that it speaks.
        self.version = version
        #: Whether it has all that there is here, so that changes make sense to it.
        self.told = False
        self.groups: dict[Group, Members] = {}


class PgCore:
    """The decisions of one scope.

    Args:
        me: The scope process.
        scope: Its name, which is that of its peers.
        port: What carries out the decisions.

    Attributes:
        peers: Scope processes of other nodes.
    """

    def __init__(self, me: Pid, scope: Atom, port: PgPort) -> None:
        self._me = me
        self._scope: Final = scope
        self._port: Final = port
        self._local: dict[Group, Members] = {}
        self._joined: dict[Pid, tuple[Reference, dict[Group, None]]] = {}
        self.peers: dict[Pid, Peer] = {}
        #: Group, or None for all -> who is told of its changes, by a key of their own.
        self._watchers: dict[Group | None, dict[Any, Tell]] = {}
        #: What they are still to be told, and those who had asked for it by then.
        self._news: deque[tuple[dict[Any, Tell], Any, Literal["join", "leave"], Term, list[Pid]]] = deque()
        self._telling = False

    def take_over(self, me: Pid) -> None:
        """The scope process is ``me`` now; the last one has ended, and its peers have dropped what it had told them.

        What is here stays, also of them: each says all it has when it meets ``me``, and what is not among it goes then.
        """
        self._me = me
        self._joined = {pid: (self._port.monitor(pid), groups) for pid, (_, groups) in self._joined.items()}
        for pid, peer in list(self.peers.items()):
            if self._port.can_reach(pid.node):
                peer.ref, peer.told = self._port.monitor(pid), False
            else:
                self.down(peer.ref, pid)

    # -- what users of this node ask

    def join(self, group: Group, pids: Iterable[Pid]) -> None:
        """Living processes of this node join, each as often as it is listed."""
        joined = list(pids)
        if not joined:
            return
        for pid in joined:
            row = self._joined.get(pid)
            if row is None:
                self._joined[pid] = row = (self._port.monitor(pid), {})
            row[1][group] = None
        self._change_local([Change(group, joined, [])])

    def leave(self, group: Group, pids: Iterable[Pid]) -> bool:
        """Processes leave, each as often as it is listed, at most as often as it has joined; whether any did."""
        members = self._local.get(group, {})
        left = [pid for pid, count in Counter(pids).items() for _ in range(min(count, members.get(pid, 0)))]
        if not left:
            return False
        self._change_local([Change(group, [], left)])
        remaining = self._local.get(group, {})
        for pid in set(left).difference(remaining):
            ref, groups = self._joined[pid]
            groups.pop(group, None)
            if not groups:
                del self._joined[pid]
                self._port.demonitor(ref)
        return True

    def local_members(self, group: Group) -> list[Pid]:
        """Members of this node, each as often as it has joined."""
        return _listed(self._local.get(group, {}))

    def members(self, group: Group) -> list[Pid]:
        """All members, each as often as it has joined."""
        return [pid for table in self._tables() if group in table for pid in _listed(table[group])]

    def local_groups(self) -> list[Group]:
        """Groups with a member on this node."""
        return list(self._local)

    def groups(self) -> list[Group]:
        """Groups with a member anywhere."""
        return list({group: None for table in self._tables() for group in table})

    def _tables(self) -> list[dict[Group, Members]]:
        return [self._local, *(peer.groups for peer in self.peers.values())]

    # -- who is told of changes

    def watch(self, key: Any, group: Group | None, tell: Tell) -> None:
        """Call ``tell`` at each change of a group, or of all; ``key`` ends that."""
        self._watchers.setdefault(group, {})[key] = tell

    def unwatch(self, key: Any) -> bool:
        """Whether there was such a watcher."""
        for group, watchers in self._watchers.items():
            if watchers.pop(key, None) is not None:
                if not watchers:
                    del self._watchers[group]
                return True
        return False

    def _add_news(self, group: Group, joined: list[Pid], left: list[Pid]) -> None:
        for watchers in (self._watchers.get(None), self._watchers.get(group)):
            for key in watchers or ():
                assert watchers is not None
                if joined:
                    self._news.append((watchers, key, "join", group.term, list(joined)))
                if left:
                    self._news.append((watchers, key, "leave", group.term, list(left)))

    def _tell_news(self) -> None:
        """Tell the watchers, once the change is made and the peers were told.

        Who is told may at once do what is news again: that is told after this, to everybody in the same order.
        """
        if self._telling:
            return
        self._telling = True
        try:
            while self._news:
                watchers, key, *what = self._news.popleft()
                tell = watchers.get(key)
                if tell is not None:
                    tell(*what)
        finally:
            self._telling = False

    # -- what the nodes of the cluster do

    def discover(self, nodes: Iterable[Atom]) -> None:
        """Speak first: ask scope processes that may be there. Not those that are known, and have all there is here."""
        told = {pid.node for pid, peer in self.peers.items() if peer.told}
        for node in nodes:
            if node not in told:
                self._port.send((self._scope, node), discover(self._me, LEGACY))

    def handle(self, message: Term) -> None:
        """Take what a peer says.

        Raises:
            Malformed: it is of no form that pg knows; nothing was changed.
        """
        said = parse(message)
        if said.peer.node == self._me.node:
            raise Malformed("the peer that it names is of this node")
        if not self._port.can_reach(said.peer.node):
            return  # not to be dialled for this; when it connects, it is spoken to
        match said:
            case Discover(pid, version):
                self._discovered(pid, version)
            case Holds(pid, version, groups):
                peer = self.peers.get(pid) or self._meet(pid, version)
                # What OTP 29 says in version 0 before it has heard of ours does not tell which it speaks.
                peer.version = max(peer.version, version)
                self._replace(peer, groups)
            case Changes(pid, changes):
                known = self.peers.get(pid)
                if known is not None:  # else all of it comes with its answer to `discover`
                    for change in changes:
                        self._change(known.groups, change)
                    self._tell_news()

    def down(self, ref: Reference, pid: Pid) -> bool:
        """A process that is monitored has ended, or its node is gone. Whether it was one of the core's monitors."""
        row = self._joined.get(pid)
        if row is not None and row[0] == ref:
            del self._joined[pid]
            self._change_local([Change(group, [], [pid] * self._local[group][pid]) for group in row[1]])
            return True
        peer = self.peers.get(pid)
        if peer is not None and peer.ref == ref:
            del self.peers[pid]
            self._replace(peer, {})
            return True
        return False

    def _discovered(self, pid: Pid, version: int) -> None:
        peer = self.peers.get(pid)
        new = peer is None
        if peer is None:
            peer = self._meet(pid, version)
        peer.version = version
        peer.told = True
        everything = [(group, _listed(members)) for group, members in self._local.items()]
        self._port.send(pid, holds(self._me, version, everything))
        if new:
            self._port.send(pid, discover(self._me, version))

    def _meet(self, pid: Pid, version: int) -> Peer:
        self.peers[pid] = peer = Peer(self._port.monitor(pid), version)
        return peer

    # -- changes

    def _change_local(self, changes: list[Change]) -> None:
        """Change what this node's processes have joined, and tell those who know of it."""
        for change in changes:
            self._change(self._local, change)
        messages: dict[int, list[Term]] = {}
        for pid, peer in self.peers.items():
            if peer.told:
                if peer.version not in messages:
                    messages[peer.version] = updates(self._me, peer.version, changes)
                for message in messages[peer.version]:
                    self._port.send(pid, message)
        self._tell_news()

    def _change(self, table: dict[Group, Members], change: Change) -> None:
        """Change one table; what became of it is news: who is no member cannot leave."""
        members = table.get(change.group, {})
        for pid in change.joined:
            members[pid] = members.get(pid, 0) + 1
        left = []
        for pid in change.left:
            count = members.get(pid, 0)
            if count:
                left.append(pid)
                if count > 1:
                    members[pid] = count - 1
                else:
                    del members[pid]
        if members:
            table[change.group] = members
        else:
            table.pop(change.group, None)
        self._add_news(change.group, change.joined, left)

    def _replace(self, peer: Peer, groups: Groups) -> None:
        """Make a peer's table what it says it is."""
        changes = [Change(group, [], _listed(had)) for group, had in peer.groups.items() if group not in groups]
        for group, pids in groups.items():
            now, had = Counter(pids), peer.groups.get(group, {})
            changes.append(Change(group, _listed(_less(now, had)), _listed(_less(had, now))))
        for change in changes:
            self._change(peer.groups, change)
        self._tell_news()


def _less(these: Mapping[Pid, int], those: Mapping[Pid, int]) -> Members:
    """What ``these`` have more than ``those``."""
    return {pid: count - those.get(pid, 0) for pid, count in these.items() if count > those.get(pid, 0)}


def _listed(members: Members) -> list[Pid]:
    """Each as often as it has joined."""
    return [pid for pid, count in members.items() for _ in range(count)]
