"""The groups of a scope: who is in which, what follows from what other members say, and what they are to be told. Pure.

As with names (``registry.py``) the node of a process alone decides about it, watches it, and tells the others. A group
has room for everybody, a process once, so there is nothing to resolve: what the later word about it says stays.

.. code-block:: text

    groups   group -> its name, pid -> metadata, time        nodes   node -> pid -> its entry, or entries by group
             ^-key-^            ^key                                 ^key    ^key

Source: genuine syn 3.3.0 and 3.4.1, observed: what is sent, what is called, and in which order.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from erlang_interop._native import mypyc_attr
from erlang_interop.otp.exact import exact_key
from erlang_interop.otp.term_order import order_key, sorted_pids
from erlang_interop.terms import Pid  # noqa: TC001 - mypyc looks up what the fields of Member are

from ..pacing import SLICE
from . import messages as m
from .scope import FunFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from erlang_interop.terms import Atom, Term

    from .scope import Port, Work


class Member(NamedTuple):
    """A member of a group, with the metadata it has there."""

    pid: Pid
    meta: Any


class Group:
    """A group that has members."""

    __slots__ = ("_listed", "members", "name")

    def __init__(self, name: Any) -> None:
        self.name = name
        self.members: dict[Pid, Entry] = {}
        #: What :meth:`listed` has made; None since somebody came, went or has other metadata.
        self._listed: list[Member] | None = None

    def add(self, entry: Entry) -> None:
        """A member comes."""
        self.members[entry.pid] = entry
        self._listed = None

    def update(self, entry: Entry, meta: Any, time: int) -> None:
        """A member has other metadata."""
        entry.meta, entry.time = meta, time
        self._listed = None

    def remove(self, pid: Pid) -> None:
        """A member goes."""
        del self.members[pid]
        self._listed = None

    def listed(self) -> list[Member]:
        """The members in the order of their pids. Not to be changed."""
        if self._listed is None:
            # A garbage collection for every few hundred of them, of which none can be garbage, would take longer than
            # all the rest.
            collecting = gc.isenabled()
            gc.disable()
            try:
                self._listed = [Member(pid, self.members[pid].meta) for pid in sorted_pids(self.members)]
            finally:
                if collecting:
                    gc.enable()
        return self._listed


@final
@mypyc_attr(acyclic=True)
class Entry:
    """One member of a group. It knows its group by name alone, so that it is part of no cycle.

    Attributes:
        key, name: Its group.
        pid: Who.
        meta: Any term.
        time: When it joined or was updated last, in nanoseconds since 1970 by the clock of its node.
    """

    __slots__ = ("key", "meta", "name", "pid", "time")

    def __init__(self, key: Any, name: Any, pid: Pid, meta: Any, time: int) -> None:
        self.key = key
        self.name = name
        self.pid = pid
        self.meta = meta
        self.time = time


class Groups:
    """The groups of one scope on one node: a :class:`~zenmon_node.syn.scope.Service`.

    Args:
        port: What carries out the decisions.
    """

    name: Final = "pg"

    def __init__(self, port: Port) -> None:
        self._port: Final = port
        self._groups: dict[Any, Group] = {}
        #: Most processes are in one group; a dict for each would be much of the memory.
        self._nodes: dict[Atom, dict[Pid, Entry | dict[Any, Entry]]] = {}
        #: Node -> groups, by their keys and pids, of which only an answer has told, before the node itself did.
        self._doubtful: dict[Atom, dict[tuple[Any, Pid], Any]] = {}

    # -- reads

    def members(self, group: Term) -> list[Member]:
        """The members in the order of their pids; none of a group that is not there. Not to be changed."""
        found = self._groups.get(exact_key(group))
        return [] if found is None else found.listed()

    def member(self, group: Term, pid: Pid) -> Entry | None:
        """One member."""
        return self._find(exact_key(group), pid)

    def member_count(self, group: Term, node: Atom | None = None) -> int:
        """How many members a group has, or has on ``node``."""
        found = self._groups.get(exact_key(group))
        if found is None:
            return 0
        return len(found.members) if node is None else sum(pid.node == node for pid in found.members)

    def names(self, node: Atom | None = None) -> list[Any]:
        """The groups that have members, or members on ``node``, in Erlang's order of terms."""
        return sorted(self._with_members(node), key=order_key)

    def count(self, node: Atom | None = None) -> int:
        """How many groups have members, or members on ``node``."""
        return len(self._groups) if node is None else len(self._with_members(node))

    def _with_members(self, node: Atom | None) -> list[Any]:
        if node is None:
            return [group.name for group in self._groups.values()]
        return list({entry.key: entry.name for entry in self._entries_on(node)}.values())

    # -- Service: what is asked

    def requested(self, request: Term) -> Term:
        """See Service."""
        match m.PG.parse_request(request):
            case m.PutRequest(requester, group, pid, meta_or_fun):
                return self._join(requester, group, pid, meta_or_fun)
            case m.RemoveRequest(requester, group, pid):
                return self._leave(requester, group, pid)
        return m.UNDEFINED

    def _join(self, requester: Atom, group: Term, pid: Pid, meta_or_fun: Any) -> Term:
        if not self._port.is_alive(pid):
            return m.ERROR, m.NOT_ALIVE
        key = exact_key(group)
        entry = self._find(key, pid)
        if entry is None:
            if m.is_fun(meta_or_fun):
                return m.ERROR, m.UNDEFINED
            entry = self._add(key, group, pid, meta_or_fun, self._port.now())
            self._port.emit("on_process_joined", group, pid, meta_or_fun, m.NORMAL)
            return self._made(requester, entry, "on_process_joined", m.UNDEFINED)
        before = entry.meta
        meta = meta_or_fun
        if m.is_fun(meta_or_fun):
            try:
                meta = self._port.apply(meta_or_fun, before)
            except FunFailed as failure:
                return m.RAISE, failure.class_, failure.reason, failure.stack
        if exact_key(meta) == exact_key(before):
            return m.NOOP, before
        self._groups[key].update(entry, meta, self._port.now())
        self._port.emit("on_group_process_updated", group, pid, before, meta, m.NORMAL)
        return self._made(requester, entry, "on_group_process_updated", before)

    def _made(self, requester: Atom, entry: Entry, callback: str, previous: Term) -> Term:
        """Tell the others; what the requester is told."""
        told = m.PG.say_put(entry.name, entry.pid, entry.meta, entry.time, m.NORMAL)
        self._port.broadcast(told, requester)
        return m.PG.reply_stored(self._port.scope, m.Stored(callback, previous, entry.meta, entry.time))

    def _leave(self, requester: Atom, group: Term, pid: Pid) -> Term:
        entry = self._find(exact_key(group), pid)
        if entry is None:
            return m.ERROR, m.NOT_IN_GROUP
        self._remove(entry)
        self._port.emit("on_process_left", group, pid, entry.meta, m.NORMAL)
        self._say_left(entry, m.NORMAL, but=requester)
        return m.OK, (entry.meta, m.PG.table_by_pid(self._port.scope))

    # -- Service: what other members say

    def local_data(self) -> list[Any]:
        """See Service."""
        return [(entry.name, entry.pid, entry.meta, entry.time) for entry in self._entries_on(self._port.node)]

    def merge(self, node: Atom, data: list[Any], reason: Term, *, asked_again: bool = False) -> Work:
        """See Service."""
        doubtful = self._doubtful.pop(node, {}) if asked_again else {}
        for done, (group, pid, meta, time) in enumerate(data):
            if done % SLICE == SLICE - 1:
                yield None
            if doubtful:
                doubtful.pop((exact_key(group), pid), None)
            self._take(group, pid, meta, time, reason)
        for (key, pid), group in doubtful.items():
            entry = self._find(key, pid)
            if entry is not None:
                self._forget(group, pid, entry.meta, reason)

    def told(self, message: tuple[Any, ...]) -> Work | None:
        """See Service."""
        if m.PG.is_put(message):
            _, _, group, pid, meta, time, reason = message
            if self._port.knows(pid.node):  # else all of it comes with its ack_sync
                self._take(group, pid, meta, time, reason)
        else:
            _, _, group, pid, meta, reason = message
            if pid.node != self._port.node:  # of which nobody else can know
                self._forget(group, pid, meta, reason)
        return None

    def answered(self, request: Term, reply: Term) -> Work | None:
        """See Service. The authority tells everybody but the requester, who hears of it in this way."""
        match m.PG.parse_request(request):
            case m.PutRequest(_, group, pid, _):
                stored = m.parse_stored(reply)
                if stored is not None:
                    if not self._port.has_told(pid.node):
                        self._doubtful.setdefault(pid.node, {})[exact_key(group), pid] = group
                        self._port.ask_again(pid.node)
                    self._take(group, pid, stored.meta, stored.time, m.NORMAL)
            case m.RemoveRequest(_, group, pid):
                left = m.parse_left(reply)
                if left is not None:
                    self._forget(group, pid, *left, m.NORMAL)
        return None

    def _take(self, group: Term, pid: Pid, meta: Term, time: int, reason: Term) -> None:
        """A process of another node is in a group, as its node says; an older word than the last one is no news."""
        key = exact_key(group)
        entry = self._find(key, pid)
        if entry is None:
            self._add(key, group, pid, meta, time)
            self._port.emit("on_process_joined", group, pid, meta, reason)
        elif time > entry.time:
            before = entry.meta
            self._groups[key].update(entry, meta, time)
            if exact_key(before) != exact_key(meta):
                self._port.emit("on_group_process_updated", group, pid, before, meta, reason)

    def _forget(self, group: Term, pid: Pid, meta: Term, reason: Term) -> None:
        entry = self._find(exact_key(group), pid)
        if entry is not None:
            self._remove(entry)
            self._port.emit("on_process_left", group, pid, meta, reason)

    # -- Service: ends

    def purge(self, node: Atom, reason: Term) -> Work | None:
        """See Service."""
        self._doubtful.pop(node, None)
        return self._purge(node, reason) if node in self._nodes else None

    def _purge(self, node: Atom, reason: Term) -> Work:
        entries = list(self._entries_on(node))
        for done, entry in enumerate(entries):
            if done % SLICE == SLICE - 1:
                yield None
            self._port.emit("on_process_left", entry.name, entry.pid, entry.meta, reason)
        for done, entry in enumerate(entries):
            if done % SLICE == SLICE - 1:
                yield None
            self._remove(entry)

    def ended(self, pid: Pid, reason: Term) -> Work | None:
        """See Service."""
        return self._ended(pid, reason) if pid in self._nodes.get(self._port.node, ()) else None

    def _ended(self, pid: Pid, reason: Term) -> Work:
        for done, entry in enumerate(self._entries_of(pid)):
            if done % SLICE == SLICE - 1:
                yield None
            self._remove(entry)
            self._port.emit("on_process_left", entry.name, pid, entry.meta, reason)
            self._say_left(entry, reason)

    def rebuilt(self) -> Work:
        """See Service."""
        self._doubtful.clear()
        for node in [node for node in self._nodes if node != self._port.node]:
            yield from self._purge(node, m.node_down(self._port.scope, node))
        for done, pid in enumerate(list(self._nodes.get(self._port.node, ()))):
            if done % SLICE == SLICE - 1:
                yield None
            if self._port.is_alive(pid):
                self._port.watch(pid)
                continue
            for entry in self._entries_of(pid):
                self._remove(entry)
                # To this node alone: the others were rid of it with the scope process before this one.
                self._port.emit("on_process_left", entry.name, pid, entry.meta, m.UNDEFINED)

    # -- the tables

    def _find(self, key: Any, pid: Pid) -> Entry | None:
        group = self._groups.get(key)
        return None if group is None else group.members.get(pid)

    def _add(self, key: Any, name: Term, pid: Pid, meta: Term, time: int) -> Entry:
        group = self._groups.get(key)
        if group is None:
            self._groups[key] = group = Group(name)
        entry = Entry(key, name, pid, meta, time)
        group.add(entry)
        node = pid.node
        pids = self._nodes.get(node)
        if pids is None:
            pids = self._nodes[node] = {}
        held = pids.get(pid)
        if held is None:
            pids[pid] = entry
            if node == self._port.node:
                self._port.watch(pid)
        elif isinstance(held, Entry):
            pids[pid] = {held.key: held, key: entry}
        else:
            held[key] = entry
        return entry

    def _remove(self, entry: Entry) -> None:
        key, pid = entry.key, entry.pid
        group = self._groups[key]
        group.remove(pid)
        if not group.members:
            del self._groups[key]
        pids = self._nodes[pid.node]
        held = pids[pid]
        if not isinstance(held, Entry) and len(held) > 1:
            del held[key]
            return
        del pids[pid]
        if not pids:
            del self._nodes[pid.node]
        if pid.node == self._port.node:
            self._port.unwatch(pid)

    def _entries_of(self, pid: Pid) -> list[Entry]:
        held = self._nodes.get(pid.node, {}).get(pid)
        return [] if held is None else [held] if isinstance(held, Entry) else list(held.values())

    def _entries_on(self, node: Atom) -> Iterator[Entry]:
        for held in self._nodes.get(node, {}).values():
            if isinstance(held, Entry):
                yield held
            else:
                yield from held.values()

    def _say_left(self, entry: Entry, reason: Term, but: Atom | None = None) -> None:
        self._port.broadcast(m.PG.say_gone(entry.name, entry.pid, entry.meta, reason), but)
