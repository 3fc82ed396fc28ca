"""The groups of a scope: who is in which, what follows from what other members say, and what they are to be told. Pure.

As with names (``registry.py``) the node of a process alone decides about it, watches it, and tells the others. A group
has room for everybody, a process once, so there is nothing to resolve: what the later word about it says stays.

.. code-block:: text

    groups   group -> its name, pid -> metadata, time        nodes   node -> pid -> its entry, or entries by group
             ^-key-^            ^key                                 ^key    ^key

Source: genuine syn 3.3.0 and 3.4.1, observed: what is sent, what is called, and in which order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from erlang_interop.otp.exact import exact_key
from erlang_interop.otp.term_order import order_key, pid_key

from ..pacing import SLICE
from . import messages as m
from .scope import FunFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from erlang_interop.terms import Atom, Pid, Term

    from .scope import Port, Work


class Group:
    """A group that has members."""

    __slots__ = ("_in_order", "key", "members", "name")

    def __init__(self, key: Any, name: Any) -> None:
        self.key = key
        self.name = name
        self.members: dict[Pid, Entry] = {}
        #: What :meth:`in_order` has found; None since somebody came or went.
        self._in_order: list[Entry] | None = None

    def add(self, entry: Entry) -> None:
        """A member comes."""
        self.members[entry.pid] = entry
        self._in_order = None

    def remove(self, entry: Entry) -> None:
        """A member goes."""
        del self.members[entry.pid]
        self._in_order = None

    def in_order(self) -> list[Entry]:
        """The members in the order of their pids. Not to be changed."""
        if self._in_order is None:
            self._in_order = sorted(self.members.values(), key=lambda entry: pid_key(entry.pid))
        return self._in_order


class Entry:
    """One member of a group.

    Attributes:
        pid: Who.
        meta: Any term.
        time: When it joined or was updated last, in nanoseconds since 1970 by the clock of its node.
    """

    __slots__ = ("group", "meta", "pid", "time")

    def __init__(self, group: Group, pid: Pid, meta: Any, time: int) -> None:
        self.group = group
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

    def members(self, group: Term) -> list[Entry]:
        """The members in the order of their pids; none of a group that is not there."""
        found = self._groups.get(exact_key(group))
        return [] if found is None else found.in_order()

    def member(self, group: Term, pid: Pid) -> Entry | None:
        """One member."""
        return self._find(exact_key(group), pid)

    def member_count(self, group: Term) -> int:
        """How many members a group has."""
        found = self._groups.get(exact_key(group))
        return 0 if found is None else len(found.members)

    def names(self, node: Atom | None = None) -> list[Any]:
        """The groups that have members, or members on ``node``, in Erlang's order of terms."""
        return sorted([group.name for group in self._with_members(node)], key=order_key)

    def count(self, node: Atom | None = None) -> int:
        """How many groups have members, or members on ``node``."""
        return len(self._groups) if node is None else len(self._with_members(node))

    def _with_members(self, node: Atom | None) -> list[Group]:
        if node is None:
            return list(self._groups.values())
        return list({entry.group.key: entry.group for entry in self._entries_on(node)}.values())

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
        entry.meta, entry.time = meta, self._port.now()
        self._port.emit("on_group_process_updated", group, pid, before, meta, m.NORMAL)
        return self._made(requester, entry, "on_group_process_updated", before)

    def _made(self, requester: Atom, entry: Entry, callback: str, previous: Term) -> Term:
        """Tell the others; what the requester is told."""
        told = m.PG.say_put(entry.group.name, entry.pid, entry.meta, entry.time, m.NORMAL)
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
        return [(entry.group.name, entry.pid, entry.meta, entry.time) for entry in self._entries_on(self._port.node)]

    def merge(self, node: Atom, data: list[Any], reason: Term, *, asked_again: bool = False) -> Work | None:
        """See Service."""
        rows = m.rows(data, node)
        return self._merge(rows, self._doubtful.pop(node, {}) if asked_again else {}, reason)

    def _merge(self, rows: Iterator[m.Row], doubtful: dict[tuple[Any, Pid], Any], reason: Term) -> Work:
        for done, row in enumerate(rows):
            if done % SLICE == SLICE - 1:
                yield None
            if doubtful:
                doubtful.pop((exact_key(row.key), row.pid), None)
            self._take(row, reason)
        for (key, pid), group in doubtful.items():
            entry = self._find(key, pid)
            if entry is not None:
                self._forget(group, pid, entry.meta, reason)

    def told(self, message: tuple[Any, ...]) -> Work | None:
        """See Service."""
        match m.PG.parse_told(message):
            case m.Put(group, pid, meta, time, reason):
                if self._port.knows(pid.node):  # else all of it comes with its ack_sync
                    self._take(m.Row(group, pid, meta, time), reason)
            case m.Gone(group, pid, meta, reason):
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
                    self._take(m.Row(group, pid, stored.meta, stored.time), m.NORMAL)
            case m.RemoveRequest(_, group, pid):
                left = m.parse_left(reply)
                if left is not None:
                    self._forget(group, pid, *left, m.NORMAL)
        return None

    def _take(self, row: m.Row, reason: Term) -> None:
        """A process of another node is in a group, as its node says; an older word than the last one is no news."""
        key = exact_key(row.key)
        entry = self._find(key, row.pid)
        if entry is None:
            self._add(key, *row)
            self._port.emit("on_process_joined", row.key, row.pid, row.meta, reason)
        elif row.time > entry.time:
            before = entry.meta
            entry.meta, entry.time = row.meta, row.time
            if exact_key(before) != exact_key(row.meta):
                self._port.emit("on_group_process_updated", row.key, row.pid, before, row.meta, reason)

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
            self._port.emit("on_process_left", entry.group.name, entry.pid, entry.meta, reason)
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
            self._port.emit("on_process_left", entry.group.name, pid, entry.meta, reason)
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
                self._port.emit("on_process_left", entry.group.name, pid, entry.meta, m.UNDEFINED)

    # -- the tables

    def _find(self, key: Any, pid: Pid) -> Entry | None:
        group = self._groups.get(key)
        return None if group is None else group.members.get(pid)

    def _add(self, key: Any, name: Term, pid: Pid, meta: Term, time: int) -> Entry:
        group = self._groups.get(key)
        if group is None:
            self._groups[key] = group = Group(key, name)
        entry = Entry(group, pid, meta, time)
        group.add(entry)
        pids = self._nodes.setdefault(pid.node, {})
        held = pids.get(pid)
        if held is None:
            pids[pid] = entry
            if pid.node == self._port.node:
                self._port.watch(pid)
        elif isinstance(held, Entry):
            pids[pid] = {held.group.key: held, key: entry}
        else:
            held[key] = entry
        return entry

    def _remove(self, entry: Entry) -> None:
        group, pid = entry.group, entry.pid
        group.remove(entry)
        if not group.members:
            del self._groups[group.key]
        pids = self._nodes[pid.node]
        held = pids[pid]
        if not isinstance(held, Entry) and len(held) > 1:
            del held[group.key]
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
        self._port.broadcast(m.PG.say_gone(entry.group.name, entry.pid, entry.meta, reason), but)
