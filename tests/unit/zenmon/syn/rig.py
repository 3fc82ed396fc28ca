"""A syn scope on some nodes without a node: engines and services joined by queues that a test can cut.

All that is sent goes through the codec and arrives in the order in which it was sent, one member after the other, when
:meth:`Rig.settle` says so. Time stands still unless a test moves it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from erlang_interop.etf import decode, encode
from erlang_interop.terms import Atom, Pid, Reference, Term
from zenmon_node.syn import messages as m
from zenmon_node.syn.registry import Registry
from zenmon_node.syn.scope import Engine, FunFailed, Port, Service, Work

SCOPE = Atom("users")
KILLED = Atom("killed")
#: What stands for ``gen_server:call`` and its answer.
CALL, REPLY = Atom("call"), Atom("reply")


def up(node: Atom) -> Term:
    return m.node_up(SCOPE, node)


def down(node: Atom) -> Term:
    return m.node_down(SCOPE, node)


class Member:
    """One node: the port of its service, the link of its engine, and what a test sees of them."""

    def __init__(self, rig: Rig, name: str, make: Callable[[Port], Service]) -> None:
        self.rig = rig
        self.node = Atom(name)
        self.scope = SCOPE
        #: What the event handler was told.
        self.events: list[tuple[Any, ...]] = []
        #: What was sent: ``(node, message)``.
        self.sent: list[tuple[Atom, Any]] = []
        self.killed: list[tuple[Pid, Term]] = []
        self.slices = 0
        self.alive: set[Pid] = set()
        self.watched: set[Pid] = set()
        self._pids = 0
        self.service: Any = make(self)
        self.start()

    def start(self) -> None:
        """Another scope process."""
        self.scope_pid = self.new_pid()
        self.engine = Engine(self.scope_pid, SCOPE, self, self.service)

    def new_pid(self) -> Pid:
        self._pids += 1
        pid = Pid(self.node, self._pids, 0, 1)
        self.alive.add(pid)
        return pid

    def take_events(self) -> list[tuple[Any, ...]]:
        events, self.events = self.events, []
        return events

    def run(self, work: Work | None) -> None:
        """Do work to its end, and what it waits for, which waits for nothing itself."""
        value: Any = None
        error: Exception | None = None
        while work is not None:
            try:
                stop = work.send(value) if error is None else work.throw(error)
            except StopIteration:
                return
            self.slices += stop is None
            value = error = None
            if stop is not None:
                try:
                    next(stop.__await__())
                except StopIteration as result:
                    value = result.value
                except Exception as failure:
                    error = failure

    def handle(self, message: Any) -> None:
        if message[:1] == (CALL,):
            self.rig.links[self.node, message[1].node].append((REPLY, message[1]))
        elif message[:1] == (REPLY,):
            if self.rig.monitors.pop(message[1], None):
                assert self.engine.answered(message[1])
        else:
            self.run(self.engine.handle(message))

    def ask(self, request: Term) -> Term:
        """A request by this node, of a process of any node: it and its answer keep their places on the wire."""
        authority = self.rig.members[request[4].node]
        if authority is self:
            return self.service.requested(request)
        self.rig.deliver(self, authority)
        reply = _carried(authority.service.requested(_carried(request)))
        self.rig.deliver(authority, self)
        self.run(self.service.answered(request, reply))
        return reply

    # -- Port

    def now(self) -> int:
        self.rig.time += 1
        return self.rig.time

    def is_alive(self, pid: Pid) -> bool:
        return pid in self.alive

    def watch(self, pid: Pid) -> None:
        assert pid.node == self.node
        self.watched.add(pid)

    def unwatch(self, pid: Pid) -> None:
        self.watched.discard(pid)

    def knows(self, node: Atom) -> bool:
        return node in self.engine.peers

    def broadcast(self, message: Term, but: Atom | None = None) -> None:
        self.engine.broadcast(message, but)

    def has_told(self, node: Atom) -> bool:
        return node in self.engine.told

    def ask_again(self, node: Atom) -> None:
        self.engine.ask_again(node)

    def emit(self, callback: str, *arguments: Term) -> None:
        self.events.append((callback, *arguments))

    def kill(self, pid: Pid, reason: Term) -> None:
        self.killed.append((pid, reason))
        self.rig.deaths.append((self, pid, reason))

    def apply(self, fun: Any, *arguments: Term) -> Term:
        try:
            return fun(*arguments)
        except Exception as error:
            raise FunFailed(Atom("error"), Atom(type(error).__name__), []) from error

    # -- Link

    def send(self, node: Atom, message: Term) -> None:
        if self.can_reach(node):
            self.sent.append((node, message))
            self.rig.links[self.node, node].append(_carried(message))

    def can_reach(self, node: Atom) -> bool:
        return (self.node, node) in self.rig.links

    def monitor(self, pid: Pid) -> Reference:
        assert pid.node != self.node
        return self.rig.monitor(self, pid)

    def monitor_member(self, node: Atom) -> Reference:
        assert self.can_reach(node)
        return self.rig.monitor(self, self.rig.members[node].scope_pid)

    def call_member(self, node: Atom) -> Reference:
        ref = self.monitor_member(node)
        self.rig.links[self.node, node].append((CALL, ref))
        return ref

    def demonitor(self, ref: Reference) -> None:
        self.rig.monitors.pop(ref, None)


class Rig:
    """Some members, and what is under way between them."""

    def __init__(self) -> None:
        self.members: dict[Atom, Member] = {}
        #: Sender and receiver -> what is under way. A pair that is not there is not connected.
        self.links: dict[tuple[Atom, Atom], deque[Any]] = {}
        self.monitors: dict[Reference, tuple[Member, Pid]] = {}
        self.deaths: deque[tuple[Member, Pid, Term]] = deque()
        self.time = 1_700_000_000_000_000_000
        self._refs = 0

    def add(self, name: str, make: Callable[[Port], Service] = Registry) -> Member:
        member = Member(self, name, make)
        self.members[member.node] = member
        return member

    def connect(self, *members: Member) -> None:
        """All with all; each speaks first, and all settle."""
        for one in members:
            for other in members:
                if one.node != other.node and (one.node, other.node) not in self.links:
                    self.join(one, other)
                    one.engine.discover(other.node)
                    other.engine.discover(one.node)
        self.settle()

    def join(self, one: Member, other: Member) -> None:
        """Connect two nodes; neither speaks first."""
        self.links[one.node, other.node] = deque()
        self.links[other.node, one.node] = deque()

    def cut(self, one: Member, other: Member) -> None:
        """The connection is lost, with all that is under way."""
        for here, there in ((one, other), (other, one)):
            del self.links[here.node, there.node]
            for ref, (holder, pid) in list(self.monitors.items()):
                if holder is here and pid.node == there.node:
                    del self.monitors[ref]
                    here.run(here.engine.down(ref, there.node))
            here.run(here.engine.node_down(there.node))

    def monitor(self, holder: Member, pid: Pid) -> Reference:
        self._refs += 1
        ref = Reference(holder.node, 1, self._refs.to_bytes(12, "big"))
        self.monitors[ref] = holder, pid
        return ref

    def end(self, pid: Pid, reason: Term) -> None:
        """A process ends."""
        owner = self.members[pid.node]
        owner.alive.discard(pid)
        if pid in owner.watched:
            owner.watched.discard(pid)
            owner.run(owner.service.ended(pid, reason))
        for ref, (holder, watched) in list(self.monitors.items()):
            if watched == pid:
                del self.monitors[ref]
                holder.run(holder.engine.down(ref, pid.node))

    def restart(self, member: Member, *, silently: bool = False) -> None:
        """The scope process crashes and is started again.

        Args:
            silently: Its end is not seen before what the new one says.
        """
        old = member.scope_pid
        member.alive.discard(old)
        member.watched.clear()
        if not silently:
            self.end(old, KILLED)
        for ref, (holder, _) in list(self.monitors.items()):
            if holder is member:
                del self.monitors[ref]
        member.start()
        member.run(member.service.rebuilt())
        member.engine.begin([there for here, there in self.links if here == member.node])

    def deliver(self, sender: Member, receiver: Member) -> None:
        """All that is under way on one link."""
        link = self.links.get((sender.node, receiver.node))
        while link:
            receiver.handle(link.popleft())

    def settle(self) -> None:
        """Deliver all that is under way, one message of each link in turn."""
        for _ in range(10_000):
            busy = [pair for pair, link in self.links.items() if link]
            if not busy and not self.deaths:
                return
            for pair in busy:
                self.members[pair[1]].handle(self.links[pair].popleft())
            while self.deaths:
                _, pid, reason = self.deaths.popleft()
                self.end(pid, reason)
        raise AssertionError("the members go on talking for ever")


def _carried(term: Term) -> Term:
    """As it arrives; what a rig's node alone can run stays what it is."""
    if type(term) is tuple and len(term) == 6 and callable(term[5]):
        return (*_carried(term[:5]), term[5])
    return decode(encode(term))[0]


def table(member: Member) -> dict[Any, tuple[Pid, Term, int]]:
    """What a member's registry holds; names that are dicts or lists by their text."""
    return {repr(entry.name): (entry.pid, entry.meta, entry.time) for entry in member.service.entries()}


def register(member: Member, name: Term, pid: Pid, meta: Term) -> Term:
    return member.ask(m.REGISTRY.ask_put(member.node, name, pid, meta))


def unregister(member: Member, name: Term, pid: Pid) -> Term:
    return member.ask(m.REGISTRY.ask_remove(member.node, name, pid))
