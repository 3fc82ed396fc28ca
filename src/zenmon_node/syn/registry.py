"""The names of a scope: who has which, what follows from what other members say, and what they are to be told. Pure.

The node of a process alone decides about its names, watches it, and tells the others; so what another node says of its
own processes is taken as it is. Only where a process of this node has the same name there is something to decide
(``conflict.py``), and the owner of the other process decides it as well.

.. code-block:: text

    entries   name -> name, pid, metadata, time        nodes   node -> the entries of its processes, by name
              ^key                                             ^key
    own       pid of this node -> its name, or names
              ^-------key--------^

Source: genuine syn 3.3.0 and 3.4.1, observed: what is sent, what is called, and in which order.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

import structlog

from erlang_interop._native import mypyc_attr
from erlang_interop.otp.exact import exact_key

from ..complaints import shortened
from ..pacing import SLICE
from . import messages as m
from .conflict import Claim, Kept, by_choice, by_default
from .scope import FunFailed

if TYPE_CHECKING:
    from erlang_interop.terms import Atom, Pid, Term

    from .scope import Port, Work

#: ``resolver(scope, name, remote, local)``: the pid to keep. Anything else, or an exception, frees the name.
Resolver: TypeAlias = "Callable[[Atom, Any, Claim, Claim], object]"

_WORDS: Final = m.REGISTRY

_NOBODY: Final[frozenset[Atom]] = frozenset()

_log = structlog.get_logger("zenmon_node")


@final
@mypyc_attr(acyclic=True)
class Entry:
    """One registered name.

    Attributes:
        name: Any term.
        pid: Who has it.
        meta: Any term.
        time: When it was registered or updated last, in nanoseconds since 1970 by the clock of the pid's node.
        rivals: Nodes with a process that had the name too, when this node was last told: it may still have it when this
            one has it no more.
    """

    __slots__ = ("key", "meta", "name", "pid", "rivals", "time")

    def __init__(self, key: Any, name: Any, pid: Pid, meta: Any, time: int) -> None:
        self.key = key
        self.name = name
        self.pid = pid
        self.meta = meta
        self.time = time
        self.rivals = _NOBODY

    @property
    def claim(self) -> Claim:
        """For a resolver."""
        return Claim(self.pid, self.meta, self.time)


class Registry:
    """The registry of one scope on one node: a :class:`~zenmon_node.syn.scope.Service`.

    Args:
        port: What carries out the decisions.
        resolver: Says which of two processes keeps a name; None: the later one, and the other is killed. Nobody is
            killed where a resolver decides. It may be async: until it has said, the scope handles nothing else and
            whoever asks it waits. So it is on a genuine node, where the scope process itself runs the resolver; and a
            name whose owner is not decided could neither be told to others nor be taken away.
    """

    name: Final = "registry"

    def __init__(self, port: Port, resolver: Resolver | None = None) -> None:
        self._port: Final = port
        self._resolver: Final = resolver
        self._entries: dict[Any, Entry] = {}
        self._nodes: dict[Atom, dict[Any, Entry]] = {}
        #: Most processes have one name; a dict for each would be most of the memory.
        self._own: dict[Pid, Any] = {}
        #: Node -> names, by their keys, and pids of which only an answer has told, before the node itself did.
        self._doubtful: dict[Atom, dict[Any, tuple[Any, Pid]]] = {}

    # -- reads

    def lookup(self, name: Term) -> Entry | None:
        """Who has a name; a process of this node that has ended has none, whether that is dealt with or not."""
        entry = self._entries.get(exact_key(name))
        if entry is not None and entry.pid.node == self._port.node and not self._port.is_alive(entry.pid):
            return None
        return entry

    def count(self, node: Atom | None = None) -> int:
        """How many names there are, or how many the processes of ``node`` have."""
        return len(self._entries) if node is None else len(self._nodes.get(node, ()))

    def entries(self) -> Iterable[Entry]:
        """All of them, in no particular order."""
        return self._entries.values()

    # -- Service: what is asked

    def requested(self, request: Term) -> Term:
        """See Service."""
        asked = _WORDS.parse_request(request)
        if isinstance(asked, m.PutRequest):
            return self._register(asked.requester, asked.key, asked.pid, asked.meta_or_fun)
        if isinstance(asked, m.RemoveRequest):
            return self._unregister(asked.requester, asked.key, asked.pid)
        return m.UNDEFINED

    def _register(self, requester: Atom, name: Term, pid: Pid, meta_or_fun: Any) -> Term:
        if not self._port.is_alive(pid):
            return m.ERROR, m.NOT_ALIVE
        key = exact_key(name)
        entry = self._entries.get(key)
        if entry is None:
            if m.is_fun(meta_or_fun):
                return m.ERROR, m.UNDEFINED
            entry = Entry(key, name, pid, meta_or_fun, self._port.now())
            self._add(entry)
            self._port.emit("on_process_registered", name, pid, meta_or_fun, m.NORMAL)
            return self._made(requester, entry, "on_process_registered", m.UNDEFINED)
        if entry.pid != pid:
            return m.ERROR, m.TAKEN
        before = entry.meta
        meta = meta_or_fun
        if m.is_fun(meta_or_fun):
            try:
                meta = self._port.apply(meta_or_fun, pid, before)
            except FunFailed as failure:
                return m.RAISE, failure.class_, failure.reason, failure.stack
        if exact_key(meta) == exact_key(before):
            return m.NOOP, before
        entry.meta, entry.time = meta, max(self._port.now(), entry.time + 1)
        self._port.emit("on_registry_process_updated", name, pid, before, meta, m.NORMAL)
        return self._made(requester, entry, "on_registry_process_updated", before)

    def _made(self, requester: Atom, entry: Entry, callback: str, previous: Term) -> Term:
        """Tell the others; what the requester is told."""
        self._say_registered(entry, m.NORMAL, but=requester)
        return _WORDS.reply_stored(self._port.scope, m.Stored(callback, previous, entry.meta, entry.time))

    def _unregister(self, requester: Atom, name: Term, pid: Pid) -> Term:
        entry = self._entries.get(exact_key(name))
        if entry is None:
            return m.ERROR, m.UNDEFINED
        if entry.pid != pid:
            return m.ERROR, m.RACE_CONDITION
        self._remove(entry)
        self._port.emit("on_process_unregistered", name, pid, entry.meta, m.NORMAL)
        self._say_unregistered(entry, m.NORMAL, but=requester)
        return m.OK, _WORDS.table_by_pid(self._port.scope)

    # -- Service: what other members say

    def local_data(self) -> list[Any]:
        """See Service."""
        own = self._nodes.get(self._port.node, {})
        return [(entry.name, entry.pid, entry.meta, entry.time) for entry in own.values()]

    def merge(self, node: Atom, data: list[Any], reason: Term, *, asked_again: bool = False) -> Work:
        """See Service."""
        doubtful = self._doubtful.pop(node, {}) if asked_again else {}
        for done, (name, pid, meta, time) in enumerate(data):
            if done % SLICE == SLICE - 1:
                yield None
            if doubtful:
                doubtful.pop(exact_key(name), None)
            work = self._take(name, pid, meta, time, reason)
            if work is not None:
                yield from work
        for key, (name, pid) in doubtful.items():
            entry = self._entries.get(key)
            if entry is not None:
                self._forget(name, pid, entry.meta, reason)

    def told(self, message: tuple[Any, ...]) -> Work | None:
        """See Service."""
        if _WORDS.is_put(message):
            _, _, name, pid, meta, time, reason = message
            if self._port.knows(pid.node):  # else all of it comes with its ack_sync
                return self._take(name, pid, meta, time, reason)
        else:
            _, _, name, pid, meta, reason = message
            if pid.node != self._port.node:  # of which nobody else can know
                self._forget(name, pid, meta, reason)
        return None

    def answered(self, request: Term, reply: Term) -> Work | None:
        """See Service. The authority tells everybody but the requester, who hears of it in this way."""
        match _WORDS.parse_request(request):
            case m.PutRequest(_, name, pid, _):
                stored = m.parse_stored(reply)
                if stored is not None:
                    if not self._port.has_told(pid.node):
                        self._doubtful.setdefault(pid.node, {})[exact_key(name)] = name, pid
                        self._port.ask_again(pid.node)
                    return self._take(name, pid, stored.meta, stored.time, m.NORMAL)
            case m.RemoveRequest(_, name, pid):
                if m.parse_unregistered(reply):
                    entry = self._entries.get(exact_key(name))
                    if entry is not None:
                        self._forget(name, pid, entry.meta, m.NORMAL)
        return None

    def _take(self, name: Term, pid: Pid, meta: Term, time: int, reason: Term) -> Work | None:
        """A process of another node has a name, as its own node says."""
        key = exact_key(name)
        entry = self._entries.get(key)
        if entry is None:
            self._add(Entry(key, name, pid, meta, time))
            self._port.emit("on_process_registered", name, pid, meta, reason)
        elif entry.pid == pid:
            self._update(entry, meta, time, reason)
        elif entry.pid.node == self._port.node:
            return self._resolve(entry, Entry(key, name, pid, meta, time))
        elif entry.time < time:
            self._replace(entry, Entry(key, name, pid, meta, time), reason)
        else:
            entry.rivals |= {pid.node}
        return None

    def _update(self, entry: Entry, meta: Term, time: int, reason: Term) -> None:
        if time < entry.time:
            return  # 3.4 answers a request at once and tells all others later: it may be overtaken by its answer to us
        before = entry.meta
        entry.meta, entry.time = meta, time
        if exact_key(before) != exact_key(meta):
            self._port.emit("on_registry_process_updated", entry.name, entry.pid, before, meta, reason)

    def _forget(self, name: Term, pid: Pid, meta: Term, reason: Term) -> None:
        entry = self._entries.get(exact_key(name))
        if entry is None:
            return
        if entry.pid != pid:
            entry.rivals -= {pid.node}
            return
        self._remove(entry)
        self._port.emit("on_process_unregistered", name, pid, meta, reason)
        self._ask_again(entry.rivals)

    def _ask_again(self, rivals: Iterable[Atom]) -> None:
        """A name is free, so far as we know; but others had it too, of whom we have kept nothing."""
        for node in rivals:
            self._port.ask_again(node)

    def _replace(self, old: Entry, new: Entry, reason: Term) -> None:
        new.rivals = old.rivals | {old.pid.node}
        self._remove(old)
        self._add(new)
        self._port.emit("on_process_unregistered", old.name, old.pid, old.meta, reason)
        self._port.emit("on_process_registered", new.name, new.pid, new.meta, reason)

    # -- conflicts

    def _resolve(self, local: Entry, remote: Entry) -> Work | None:
        """A process of this node and one of another have the same name."""
        if self._resolver is None:
            self._settle(local, remote, by_default(remote.claim, local.claim), kill=True)
            return None
        try:
            chosen = self._resolver(self._port.scope, local.name, remote.claim, local.claim)
        except Exception:
            self._resolver_failed(local)
            chosen = None
        if isinstance(chosen, Awaitable):
            return self._settle_later(local, remote, chosen)
        self._settle(local, remote, by_choice(chosen, remote.claim, local.claim), kill=False)
        return None

    def _settle_later(self, local: Entry, remote: Entry, choosing: Awaitable[Any]) -> Generator[Any, Any, None]:
        try:
            chosen = yield choosing
        except Exception:
            self._resolver_failed(local)
            chosen = None
        self._settle(local, remote, by_choice(chosen, remote.claim, local.claim), kill=False)

    def _resolver_failed(self, local: Entry) -> None:
        _log.exception(
            "resolve_registry_conflict raised; the name is freed",
            scope=self._port.scope.name,
            name=shortened(local.name),
        )

    def _settle(self, local: Entry, remote: Entry, kept: Kept, *, kill: bool) -> None:
        _log.info(
            "registry conflict",
            scope=self._port.scope.name,
            name=shortened(local.name),
            remote=str(remote.pid),
            local=str(local.pid),
            kept=kept.name.lower(),
        )
        reason = m.CONFLICT_RESOLUTION
        if kept is Kept.LOCAL:
            # The others take it only if it is the later one. A genuine node gives it a new time in any case; with three
            # claims the words of two owners can then cross for ever, each with a time that has been replaced.
            if local.time <= remote.time:
                local.time = max(self._port.now(), remote.time + 1)
            self._say_registered(local, reason)
        elif kept is Kept.REMOTE:
            self._remove(local)
            self._add(remote)
            if kill:
                self._port.kill(local.pid, m.resolve_kill(local.name, local.meta))
            self._port.emit("on_process_unregistered", local.name, local.pid, local.meta, reason)
            self._port.emit("on_process_registered", remote.name, remote.pid, remote.meta, reason)
            # As since 3.4: a member that has the loser from an ack_sync, and never hears of the winner, is rid of it.
            self._say_unregistered(local, reason)
        else:
            self._remove(local)
            self._port.emit("on_process_unregistered", local.name, local.pid, local.meta, reason)
            # To the other owner too. It decides the same, unless a third one has made it free the name before, or it
            # has not heard of ours, and keeps its own.
            self._say_unregistered(local, reason)
            self._port.ask_again(remote.pid.node)

    # -- Service: ends

    def purge(self, node: Atom, reason: Term) -> Work | None:
        """See Service."""
        self._doubtful.pop(node, None)
        return self._purge(node, reason) if node in self._nodes else None

    def _purge(self, node: Atom, reason: Term) -> Work:
        entries = list(self._nodes.get(node, {}).values())
        for done, entry in enumerate(entries):
            if done % SLICE == SLICE - 1:
                yield None
            self._port.emit("on_process_unregistered", entry.name, entry.pid, entry.meta, reason)
        rivals: set[Atom] = set()
        for done, entry in enumerate(entries):
            if done % SLICE == SLICE - 1:
                yield None
            self._remove(entry)
            rivals |= entry.rivals
        self._ask_again(rivals)

    def ended(self, pid: Pid, reason: Term) -> Work | None:
        """See Service."""
        return self._ended(pid, reason) if pid in self._own else None

    def _ended(self, pid: Pid, reason: Term) -> Work:
        for done, entry in enumerate(self._entries_of(pid)):
            if done % SLICE == SLICE - 1:
                yield None
            self._remove(entry)
            self._port.emit("on_process_unregistered", entry.name, pid, entry.meta, reason)
            self._say_unregistered(entry, reason)

    def rebuilt(self) -> Work:
        """See Service."""
        self._doubtful.clear()
        for node in [node for node in self._nodes if node != self._port.node]:
            yield from self._purge(node, m.node_down(self._port.scope, node))
        for done, pid in enumerate(list(self._own)):
            if done % SLICE == SLICE - 1:
                yield None
            if self._port.is_alive(pid):
                self._port.watch(pid)
                continue
            for entry in self._entries_of(pid):
                self._remove(entry)
                # To this node alone: the others were rid of it with the scope process before this one.
                self._port.emit("on_process_unregistered", entry.name, pid, entry.meta, m.UNDEFINED)

    # -- the tables

    def _add(self, entry: Entry) -> None:
        pid, key = entry.pid, entry.key
        self._entries[key] = entry
        node = pid.node
        entries = self._nodes.get(node)
        if entries is None:
            entries = self._nodes[node] = {}
        entries[key] = entry
        if node == self._port.node:
            held = self._own.get(pid)
            if held is None:
                self._own[pid] = entry
                self._port.watch(pid)
            elif type(held) is dict:
                held[key] = entry
            else:
                self._own[pid] = {held.key: held, key: entry}

    def _remove(self, entry: Entry) -> None:
        pid, key = entry.pid, entry.key
        del self._entries[key]
        entries = self._nodes[pid.node]
        del entries[key]
        if not entries:
            del self._nodes[pid.node]
        if pid.node == self._port.node:
            held = self._own[pid]
            if type(held) is dict and len(held) > 1:
                del held[key]
            else:
                del self._own[pid]
                self._port.unwatch(pid)

    def _entries_of(self, pid: Pid) -> list[Entry]:
        held = self._own.get(pid)
        return [] if held is None else list(held.values()) if type(held) is dict else [held]

    def _say_registered(self, entry: Entry, reason: Term, but: Atom | None = None) -> None:
        told = _WORDS.say_put(entry.name, entry.pid, entry.meta, entry.time, reason)
        self._port.broadcast(told, but)

    def _say_unregistered(self, entry: Entry, reason: Term, but: Atom | None = None) -> None:
        self._port.broadcast(_WORDS.say_gone(entry.name, entry.pid, entry.meta, reason), but)
