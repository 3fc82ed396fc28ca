"""A scope of syn on one node: who the other members are, and what its two services are to do. Pure.

A scope has two independent members on each node: ``syn_registry_S`` (names) and ``syn_pg_S`` (groups). Both find
their peers in the same way, which is here; what they keep differs, and that is a :class:`Service` (``registry.py``,
``pg.py``). The process that carries out what both decide is in ``server.py``, the words are in ``messages.py``.

A member is known by the pid of its scope process, which is monitored; messages go to its name. Who is not known is not
heard: all it has comes with its ``ack_sync``. A genuine node speaks first to visible nodes alone, at their nodeup and
when its scope starts, and answers everybody. So this side speaks first, whatever it is: at each nodeup, and again every
now and then to connected nodes that are no members, since nothing else tells a hidden node that a scope was started or
started anew there. Whoever is asked is asked once: while its name is monitored it will answer, and a second answer,
made before it has heard of what the first has led to, could bring back a name that both have freed.

Messages go to a name, so a scope process that has just been started may get what was meant for the one before it, and
would take an ``ack_sync`` of old for the truth. So it first asks each member that may be there something, and hears
nothing of it until that is answered: all that follows was said when the end of the old process was known there.

An ``ack_sync`` of a node that was not known is answered with what is here *before* it is merged. A genuine one answers
after that, and then the other side never hears of a conflict that the merge has ended by freeing both names, if only
one of the two has spoken first. Where both have, each has all of the other, and that is what this comes to.

Source: the protocol as genuine syn 3.3.0 and 3.4.1 speak it, observed on the wire.
"""

from __future__ import annotations

from collections.abc import Awaitable, Generator
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeAlias

from . import messages as m

if TYPE_CHECKING:
    from collections.abc import Iterable

    from erlang_interop.terms import Atom, Pid, Reference, Term

#: Work that is not done at once, as a generator. It yields None after each slice of at most ``pacing.SLICE`` steps, so
#: that the rest of the node has its turn, or something to be awaited, whose value it is sent (or whose exception is
#: thrown into it). No message is handled and no request answered between: whoever asks waits, as for a genuine scope
#: process, which is busy then.
Work: TypeAlias = "Generator[Awaitable[Any] | None, Any, None]"


#: Looks for members before one is asked for what it may have told of meanwhile.
LOOKS_BEFORE_ASKING_AGAIN: Final = 5


class FunFailed(Exception):
    """A function that was to make new metadata of old has failed, or cannot be run here.

    Attributes:
        class_, reason, stack: What Erlang's ``catch Class:Reason:Stack`` would have: ``error``, ``exit`` or ``throw``;
            any term; a list. A service answers ``{raise, Class, Reason, Stack}``.
    """

    def __init__(self, class_: Atom, reason: Term, stack: list[Any]) -> None:
        super().__init__(reason)
        self.class_ = class_
        self.reason = reason
        self.stack = stack


class Service(Protocol):
    """The tables and rules of one half of a scope. It outlives the scope process.

    What may be long work is returned as :data:`Work`, to be run to its end before anything else happens to the
    service; who has done all returns None.
    """

    @property
    def name(self) -> str:
        """``"registry"`` or ``"pg"``."""

    def local_data(self) -> list[Any]:
        """``[(name or group, pid, meta, time), ...]``: the entries whose pid is of this node, all of them."""

    def merge(self, node: Atom, data: list[Any], reason: Term, *, asked_again: bool = False) -> Work:
        """Take what an ``ack_sync`` of ``node`` holds.

        Args:
            node: Whose processes these are.
            data: As :meth:`local_data`; it has been checked.
            reason: ``{syn_remote_scope_node_up, Scope, Node}``, for the callbacks.
            asked_again: It is the answer to :meth:`Port.ask_again`. What an answer to a request has told of ``node``
                before it was a member that had told all, and is not in ``data``, has gone while it did not tell us.
        """

    def purge(self, node: Atom, reason: Term) -> Work | None:
        """Forget the processes of ``node``: all callbacks with ``reason`` first, then the deletion."""

    def told(self, message: tuple[Any, ...]) -> Work | None:
        """Take a ``{'3.0', sync_..., ...}`` of another member.

        Raises:
            Malformed: it is of no known form; nothing was changed.
        """

    def requested(self, request: Term) -> Term:
        """Answer a ``{'3.0', ..._on_node, RequesterNode, ...}``, of another node or of this node's own API.

        Returns:
            The reply. ``undefined`` for what is no request of this service.
        """

    def answered(self, request: Term, reply: Term) -> Work | None:
        """The authority has answered a request of ours: apply it. Called in wire order, also when it comes late.

        Raises:
            Malformed: it is of no form known for this request; nothing was changed.
        """

    def ended(self, pid: Pid, reason: Term) -> Work | None:
        """A process of this node that was watched has ended."""

    def rebuilt(self) -> Work | None:
        """The scope process was started again: remote entries are purged, own processes are watched again.

        The callbacks of the purge have ``{syn_remote_scope_node_down, Scope, Node}``, those for own processes that
        have ended meanwhile ``undefined``.
        """


class Port(Protocol):
    """What a service may do; the scope process does it.

    Attributes:
        node: The name of this node.
        scope: The name of the scope.
    """

    node: Atom
    scope: Atom

    def now(self) -> int:
        """System time in nanoseconds; never less than it was before."""

    def is_alive(self, pid: Pid) -> bool:
        """Whether it is a living process of this node."""

    def watch(self, pid: Pid) -> None:
        """Have :meth:`Service.ended` called, once, when a process of this node ends. Once is as good as often."""

    def unwatch(self, pid: Pid) -> None:
        """Watch it no longer; ``ended`` may come nevertheless if it has ended already."""

    def knows(self, node: Atom) -> bool:
        """Whether ``node`` is another member. What others say for processes of a node that is none is not heard."""

    def broadcast(self, message: Term, but: Atom | None = None) -> None:
        """Send to the members of the other nodes, except to the one of ``but``."""

    def has_told(self, node: Atom) -> bool:
        """Whether ``node`` is a member that has told all it has, and tells us of each change."""

    def ask_again(self, node: Atom) -> None:
        """Have the member of ``node`` tell before long all it has, once more."""

    def emit(self, callback: str, *arguments: Term) -> None:
        """Tell the event handler, in order: ``emit("on_process_joined", group, pid, meta, reason)``.

        The scope is put in front. An update is one ``emit`` with ``(group, pid, previous, meta, reason)``: the handler
        gets both arities of it, the shorter one first.
        """

    def kill(self, pid: Pid, reason: Term) -> None:
        """Send a process of this node an exit signal."""

    def apply(self, fun: Any, *arguments: Term) -> Term:
        """Call what came in the place of metadata: a Python callable of this node's API, or an ``Export`` by wire.

        Raises:
            FunFailed: it raised, is not exposed here, or is a fun that only the node that made it can run.
        """


class Link(Protocol):
    """What an :class:`Engine` asks of the scope process that it runs in."""

    def send(self, node: Atom, message: Term) -> None:
        """Send to the member of a node, by its name there; if the node is not connected, do nothing."""

    def can_reach(self, node: Atom) -> bool:
        """Whether ``node`` is another node, and connected."""

    def monitor(self, pid: Pid) -> Reference:
        """Monitor a process of another node. The DOWN arrives later, never during the call."""

    def monitor_member(self, node: Atom) -> Reference:
        """Monitor whoever has the name of the member on another, connected node. The object of the DOWN has both."""

    def demonitor(self, ref: Reference) -> None:
        """Give a monitor back."""

    def call_member(self, node: Atom) -> Reference:
        """Ask the member of another, connected node for its ``subcluster_nodes``; it is monitored until it answers."""


class Peer(NamedTuple):
    """The scope process of another member."""

    pid: Pid
    ref: Reference


class Engine:
    """Finds the other members of one half of a scope, and takes what they say. It lives as long as a scope process.

    Args:
        me: The scope process.
        scope: Its scope.
        link: What carries out the decisions.
        service: What the other members' data is for.

    Attributes:
        peers: Node -> the member there.
    """

    def __init__(self, me: Pid, scope: Atom, link: Link, service: Service) -> None:
        self._me: Final = me
        self._scope: Final = scope
        self._link: Final = link
        self._service: Final = service
        self.peers: dict[Atom, Peer] = {}
        #: Nodes that were asked, and did not answer yet -> the monitor of the name there.
        self._asked: dict[Atom, Reference] = {}
        #: Members whose first ack_sync is merged.
        self.told: set[Atom] = set()
        #: Nodes that are to be asked once more -> after how many looks; and those that were.
        self._to_ask_again: dict[Atom, int] = {}
        self._asked_again: set[Atom] = set()
        #: Nodes that are not heard yet -> the call that is to be answered before.
        self._unheard: dict[Atom, Reference] = {}

    def begin(self, nodes: Iterable[Atom]) -> None:
        """The scope process is new: speak first to the members on these nodes, which are connected."""
        for node in nodes:
            if self._link.can_reach(node):
                self._unheard[node] = self._link.call_member(node)

    def answered(self, ref: Reference) -> bool:
        """A member has answered, so all that comes from it now is for this scope process. Whether it was asked."""
        for node, call in self._unheard.items():
            if call == ref:
                del self._unheard[node]
                self.discover(node)
                return True
        return False

    def discover(self, node: Atom) -> None:
        """Speak first to a connected node, unless that was done. Whoever is there answers with all it has."""
        if node not in self._asked and node not in self._unheard and self._link.can_reach(node):
            self._asked[node] = self._link.monitor_member(node)
            self._link.send(node, m.discover(self._me))

    def look(self, nodes: Iterable[Atom]) -> None:
        """Speak first to those of the connected nodes on which no member is known.

        Who has not answered a call until now may have no answers to calls: it is not waited for any longer.
        """
        for call in self._unheard.values():
            self._link.demonitor(call)
        self._unheard.clear()
        for node in nodes:
            if node not in self.peers:
                self.discover(node)
        for node, looks in list(self._to_ask_again.items()):
            if looks > 1 or node not in self.told:
                self._to_ask_again[node] = max(1, looks - 1)
                continue
            del self._to_ask_again[node]
            self._asked_again.add(node)
            self._link.send(node, m.discover(self._me))

    @property
    def silent(self) -> set[Atom]:
        """Members, and connected nodes that may be, which have not told yet what they have."""
        return self._unheard.keys() | self._asked.keys() | (self.peers.keys() - self.told)

    def ask_again(self, node: Atom) -> None:
        """Some looks later, speak once more to a member, or to a node that is one by then.

        Not at once: if it is giving up what it is asked for, it has told of that by then.
        """
        self._to_ask_again[node] = LOOKS_BEFORE_ASKING_AGAIN

    def _forget_asked(self, node: Atom) -> None:
        ref = self._asked.pop(node, None)
        if ref is not None:
            self._link.demonitor(ref)

    def broadcast(self, message: Term, but: Atom | None = None) -> None:
        """Send to all other members, except to that of ``but``."""
        for node in self.peers:
            if node != but:
                self._link.send(node, message)

    def handle(self, message: Term) -> Work | None:
        """Take what another member says.

        Raises:
            Malformed: it is of no form that syn knows; nothing was changed. The work may raise it too, as long as it
                has changed nothing.
        """
        said = m.parse(message)
        if isinstance(said, tuple):
            return self._service.told(said)
        node = said.pid.node
        if node == self._me.node:
            raise m.Malformed("the scope process that it names is of this node")
        if node in self._unheard:
            return None
        return self._meet(said)

    def _meet(self, said: m.Discover | m.AckSync) -> Work:
        """Make who speaks a member; it is told what is here if it asks, or was not known. Then take what it has."""
        node = said.pid.node
        if isinstance(said, m.AckSync):
            yield from m.check(said.data, node)  # before anything is lost over it
        peer = self.peers.get(node)
        if peer is not None and peer.pid != said.pid:
            # It was started anew, and the DOWN of the one before is still to come.
            self._link.demonitor(peer.ref)
            yield from self._lose(node)
            peer = None
        if not self._link.can_reach(node):
            return  # not to be dialled for this; when it connects, it is spoken to
        if peer is None or isinstance(said, m.Discover):
            self._link.send(node, m.ack_sync(self._me, self._service.local_data()))
        if peer is None:
            self._forget_asked(node)
            self.peers[node] = Peer(said.pid, self._link.monitor(said.pid))
        if isinstance(said, m.AckSync):
            again = node in self._asked_again
            yield from self._service.merge(node, said.data, m.node_up(self._scope, node), asked_again=again)
            self.told.add(node)
            self._asked_again.discard(node)

    def _lose(self, node: Atom) -> Work:
        """It is a member as long as there is anything of it."""
        purging = self._service.purge(node, m.node_down(self._scope, node))
        if purging is not None:
            yield from purging
        del self.peers[node]
        self.told.discard(node)
        self._to_ask_again.pop(node, None)
        self._asked_again.discard(node)

    def down(self, ref: Reference, node: Atom) -> Work | None:
        """Who is monitored on a node has ended, or is not there, or the node is gone."""
        for waiting in (self._asked, self._unheard):
            if waiting.get(node) == ref:
                del waiting[node]
        peer = self.peers.get(node)
        return self._lose(node) if peer is not None and peer.ref == ref else None

    def node_down(self, node: Atom) -> Work | None:
        """A node is gone; the DOWN of its scope process came before. Purge what has come of it without one.

        What the process of a node has been asked for is known here before its scope process may be.
        """
        return self._lose(node) if node in self.peers else self._service.purge(node, m.node_down(self._scope, node))
