"""``pg``: process groups over the whole cluster, with genuine ``pg`` of OTP 25 to 29 on the other nodes.

    async with open_pg(node, scope="pg") as pg:
        pg.join(Atom("workers"), pid)
        for worker in pg.members(Atom("workers")):
            node.send(worker, Atom("hello"))

A scope is a process that is registered under the scope's name on each node that takes part. Those of two connected
nodes find each other and keep each other up to date; there is no leader, and no node hands on what it knows of others.

pg on a BEAM looks for peers when a *visible* node connects, and when it starts, among the visible nodes. It answers
everybody. So this side speaks first, whatever it is: at each nodeup; and where one of the two nodes is hidden, again
every ``discover_interval`` seconds until there is an answer, since nothing else tells it that a scope was started.

What is decided is in ``_pg_core.py``, what is said in ``_pg_messages.py``.

Source: kernel manual, ``pg``; kernel/src/pg.erl of OTP 25, 27, 28 and 29.
"""

from __future__ import annotations

import logging
import math
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import trio

from ..errors import NoProcess
from ..runtime.atoms import DOWN, ERROR, NOPROC, PROCESS, SHUTDOWN
from ..runtime.inline import InlineServer
from ..runtime.signals import atom_of
from ..terms import Atom, Pid, Reference
from ._pg_core import PgCore
from ._pg_messages import JOIN, LEAVE, Group, Malformed, as_map
from .gen import GEN_CALL, is_from, reply, shown_term
from .supervisor import PERIOD, RESTARTS, ChildSpec, Supervisor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping
    from contextlib import AbstractAsyncContextManager

    from ..runtime.node import Node
    from ..runtime.process import LocalProcess
    from ..runtime.timers import Timer
    from ..terms import Term

log = logging.getLogger("erlang_interop.pg")

#: Seconds between two attempts to find the scope of a node that does not look for ours.
DISCOVER_INTERVAL: Final = 5.0
#: Problems that are remembered to be logged once for each node.
MOST_REMEMBERED: Final = 1000

_NODEUP: Final = Atom("nodeup")
_NODEDOWN: Final = Atom("nodedown")
_UNSUPPORTED: Final = (ERROR, Atom("unsupported"))
_VERBS: Final[dict[Literal["join", "leave"], Atom]] = {"join": JOIN, "leave": LEAVE}


@dataclass(frozen=True, slots=True)
class PgJoin:
    """Processes joined a group; one that joined several times is there as often."""

    group: Term
    pids: tuple[Pid, ...]


@dataclass(frozen=True, slots=True)
class PgLeave:
    """Processes left a group: they said so, or ended, or their node or its scope is gone."""

    group: Term
    pids: tuple[Pid, ...]


PgEvent: TypeAlias = PgJoin | PgLeave


class Pg:
    """A scope that this node takes part in. Use :func:`open_pg`.

    A group is any term, and is there as long as it has members; one that nobody has joined is empty, and no error.
    ``"group"`` is the binary of Elixir's ``"group"``; for Erlang's and Elixir's atoms take ``Atom("group")``.

    Every method raises NoProcess when the scope has ended: the ``open_pg`` block was left, or its process ended again
    and again. When it ends once it is started again, and this node's members and whoever is told of changes stay.
    """

    def __init__(self, server: _Scope, name: Atom) -> None:
        self._server = server
        self.scope = name

    @property
    def pid(self) -> Pid:
        """The scope process."""
        return self._server.process.pid

    def __repr__(self) -> str:
        return f"<Pg {self.scope.name} {self.pid}{'' if self._server.process.alive else ' (ended)'}>"

    @property
    def _core(self) -> PgCore:
        if not self._server.process.alive:
            raise NoProcess(NOPROC, f"the scope {self.scope.name!r} has ended: its groups are gone; open it again")
        return self._server.core

    def join(self, group: Term, pids: Pid | Iterable[Pid]) -> None:
        """``pg:join/3``: processes of this node become members, each as often as it is listed.

        Who joins several times is a member as often, and has to leave as often. A process that has ended does not join.

        Args:
            group: Any term.
            pids: A pid of this node, or some.

        Raises:
            ValueError: one of them is of another node: it has to join there. Nobody has joined then.
            TypeError: one of them is no pid.
            EncodeError: no external term can carry the group, or not one that every OTP release understands.
        """
        core, wanted = self._core, self._local(pids)
        core.join(Group.of(group), [pid for pid in wanted if self._server.node.is_alive(pid)])

    def leave(self, group: Term, pids: Pid | Iterable[Pid]) -> bool:
        """``pg:leave/3``: processes of this node leave, each as often as it is listed.

        Returns:
            False for ``not_joined``: none of them was a member.

        Raises:
            ValueError, TypeError, EncodeError: as for :meth:`join`.
        """
        core, wanted = self._core, self._local(pids)
        return core.leave(Group.of(group), wanted)

    def members(self, group: Term) -> list[Pid]:
        """``pg:get_members/2``: the members on all nodes, in no particular order, each as often as it has joined."""
        return self._core.members(Group.of(group))

    def local_members(self, group: Term) -> list[Pid]:
        """``pg:get_local_members/2``: the members on this node."""
        return self._core.local_members(Group.of(group))

    def which_groups(self) -> list[Term]:
        """``pg:which_groups/1``: the groups that have members."""
        return [group.term for group in self._core.groups()]

    def which_local_groups(self) -> list[Term]:
        """``pg:which_local_groups/1``: the groups that have members on this node."""
        return [group.term for group in self._core.local_groups()]

    def peers(self) -> list[Atom]:
        """The nodes whose scope process is known: those that take part."""
        return [pid.node for pid in self._core.peers]

    # -- changes

    def monitor(self, group: Term, subscriber: LocalProcess) -> tuple[Reference, list[Pid]]:
        """``pg:monitor/2``: send a process ``(ref, Atom("join" or "leave"), group, pids)`` at each change of a group.

        Args:
            group: Any term.
            subscriber: A process of this node. Its subscriptions end with it.

        Returns:
            The reference, and the members up to which nothing will be told.

        Raises:
            ValueError: the process has ended.
        """
        core, named = self._core, Group.of(group)
        return self._server.subscribe(named, subscriber), core.members(named)

    def monitor_scope(self, subscriber: LocalProcess) -> tuple[Reference, Mapping[Any, list[Pid]]]:
        """``pg:monitor_scope/1``: as :meth:`monitor`, for all groups.

        Returns:
            The reference, and the groups with their members.
        """
        core = self._core
        ref = self._server.subscribe(None, subscriber)
        return ref, as_map((group, core.members(group)) for group in core.groups())

    def demonitor(self, ref: Reference) -> bool:
        """``pg:demonitor/2``: end a subscription; its messages that were not received yet are removed.

        Returns:
            False if there was no such subscription (any more).
        """
        if not self._core.unwatch(ref):
            return False
        self._server.unsubscribed(ref)
        return True

    def watch(self, group: Term) -> AbstractAsyncContextManager[AsyncIterator[PgEvent]]:
        """The changes of a group from now on, for code that is no process; none is lost while it is slow.

        ``async with pg.watch(group) as events: async for event in events`` gives PgJoin and PgLeave. ``members()`` as
        the first thing in the block is what they start from. The iteration ends with the scope.
        """
        return self._server.watch(self._core, Group.of(group))

    def watch_scope(self) -> AbstractAsyncContextManager[AsyncIterator[PgEvent]]:
        """As :meth:`watch`, for all groups."""
        return self._server.watch(self._core, None)

    def _local(self, pids: Pid | Iterable[Pid]) -> list[Pid]:
        wanted = [pids] if type(pids) is Pid else list(pids)
        for pid in wanted:
            if type(pid) is not Pid:
                raise TypeError(f"{pid!r} is no pid: processes join and leave groups, by their pid")
            if pid.node != self._server.node.name:
                raise ValueError(
                    f"{pid} is not of this node: a process joins and leaves on its own node, "
                    f"so have pg called on {pid.node.name}"
                )
        return wanted


@asynccontextmanager
async def open_pg(
    node: Node, scope: Atom | str = "pg", *, discover_interval: float = DISCOVER_INTERVAL
) -> AsyncIterator[Pg]:
    """Take part in a scope of ``pg`` for as long as the block runs; the memberships of this node end with it.

    Args:
        node: This node.
        scope: The scope's name, under which its process is registered on every node; ``pg`` is OTP's own.
        discover_interval: Where this node or the other one is hidden: seconds between two looks for a scope process on
            a connected node on which none has been found.

    Raises:
        NameAlreadyRegistered: this node has a process of that name, or takes part already.
        ValueError: ``discover_interval`` is not above 0.
    """
    if not discover_interval > 0:
        raise ValueError(f"discover_interval is a number of seconds above 0, not {discover_interval!r}")
    server = _Scope(atom_of(scope), discover_interval)
    supervisor = _Supervisor(node, server)
    node.start_inline(supervisor)
    try:
        yield Pg(server, server.name)
    finally:
        node.exit(supervisor.process.pid, SHUTDOWN)


class _Supervisor(Supervisor):
    """Of one scope process."""

    def __init__(self, node: Node, server: _Scope) -> None:
        start = partial(node.start_inline, server, name=server.name)
        super().__init__([ChildSpec(server.name, start)], intensity=RESTARTS, period=PERIOD)
        self._server = server

    def terminated(self, reason: Term) -> None:
        super().terminated(reason)
        self._server.close()


class _Scope(InlineServer):
    """The scope process: carries out what its core decides."""

    core: PgCore

    def __init__(self, name: Atom, discover_interval: float) -> None:
        self.name = name
        self._begun = False
        self._interval = discover_interval
        self._timer: Timer | None = None
        #: By what they were given: who they are, and the monitor on them.
        self._subscribers: dict[Reference, tuple[LocalProcess, Reference]] = {}
        #: What they were given, by that monitor.
        self._subscriptions: dict[Reference, Reference] = {}
        self._channels: set[trio.MemorySendChannel[PgEvent]] = set()
        self._complained: set[tuple[Atom | None, str]] = set()

    def started(self) -> None:
        """Look for peers, now and at each nodeup; with all that is known, if another process was there before."""
        if self._begun:
            self.core.take_over(self.process.pid)
            subscribers = [(ref, subscriber) for ref, (subscriber, _) in self._subscribers.items()]
            self._subscriptions.clear()
            for ref, subscriber in subscribers:
                self._watch_subscriber(ref, subscriber)
        else:
            self.core = PgCore(self.process.pid, self.name, self)
        self._begun = True
        self.process.monitor_nodes(node_type="all")
        self.core.discover(self.node.nodes("connected"))
        self._timer = self.node.call_later(self._interval, self._look_again)

    def handle_message(self, message: Term) -> None:
        """A peer speaks, a process has ended, or a node has come or gone."""
        match message:
            case (Atom() as what, Atom() as node, _info) if what == _NODEUP:
                self.core.discover([node])
            case (Atom() as what, Atom(), _info) if what == _NODEDOWN:
                pass  # its scope process is monitored
            case (Atom() as what, Reference() as ref, Atom() as kind, Pid() as pid, _reason) if (
                what == DOWN and kind == PROCESS
            ):
                subscription = self._subscriptions.pop(ref, None)
                if subscription is not None:
                    del self._subscribers[subscription]
                    self.core.unwatch(subscription)
                else:
                    self.core.down(ref, pid)
            case (Atom() as tag, from_, request) if tag == GEN_CALL and is_from(from_):
                # pg's functions call the process of their own node alone; silence would hang who does it by hand.
                log.info("%s calls the scope %s: %s", from_[0], self.name.name, shown_term(request))
                reply(self.process, from_, _UNSUPPORTED)
            case _:
                try:
                    self.core.handle(message)
                except Malformed as problem:
                    self._complain(str(problem), message)

    def terminated(self, reason: Term) -> None:
        """Look for nobody any more."""
        if self._timer is not None:
            self._timer.cancel()

    def close(self) -> None:
        """The scope has ended: nobody is told anything any more."""
        for channel in self._channels:
            channel.close()

    def _look_again(self) -> None:
        """Speak first once more, to nodes that would not: for them, or for us, the other is hidden."""
        self.core.discover(self.node.nodes("hidden" if self.node.visible else "connected"))
        self._timer = self.node.call_later(self._interval, self._look_again)

    def _complain(self, problem: str, message: Term) -> None:
        """One line for each problem with each node."""
        sender = self.sender
        key = (sender.node if type(sender) is Pid else sender, problem)
        if key not in self._complained and len(self._complained) < MOST_REMEMBERED:
            self._complained.add(key)
            log.warning(
                "the scope %s ignores a message from %s (%s): %s", self.name.name, sender, problem, shown_term(message)
            )

    # -- who is told of changes

    def subscribe(self, group: Group | None, subscriber: LocalProcess) -> Reference:
        """Tell a process of this node."""
        if not subscriber.alive:
            raise ValueError(f"{subscriber} cannot be told anything")
        ref = self.process.make_ref()
        self._watch_subscriber(ref, subscriber)

        def tell(what: Literal["join", "leave"], group: Term, pids: list[Pid]) -> None:
            self.process.send(subscriber.pid, (ref, _VERBS[what], group, pids))

        self.core.watch(ref, group, tell)
        return ref

    def _watch_subscriber(self, ref: Reference, subscriber: LocalProcess) -> None:
        monitor = self.process.monitor(subscriber.pid)
        self._subscribers[ref] = subscriber, monitor
        self._subscriptions[monitor] = ref

    def unsubscribed(self, ref: Reference) -> None:
        """Take back what a process was told under ``ref`` and has not received."""
        subscriber, monitor = self._subscribers.pop(ref)
        del self._subscriptions[monitor]
        self.process.demonitor(monitor)
        subscriber.discard_messages(lambda message: type(message) is tuple and len(message) == 4 and message[0] == ref)

    @asynccontextmanager
    async def watch(self, core: PgCore, group: Group | None) -> AsyncIterator[AsyncIterator[PgEvent]]:
        """Tell an async iterator."""
        send, receive = trio.open_memory_channel[PgEvent](math.inf)

        def tell(what: Literal["join", "leave"], group: Term, pids: list[Pid]) -> None:
            send.send_nowait((PgJoin if what == "join" else PgLeave)(group, tuple(pids)))

        core.watch(send, group, tell)
        self._channels.add(send)
        try:
            async with send, receive:
                yield receive
        finally:
            core.unwatch(send)
            self._channels.discard(send)

    # -- PgPort

    def send(self, dest: Pid | tuple[Atom, Atom], message: Term) -> None:
        """Send, but make no connection for it."""
        if self.node.is_connected(dest.node if type(dest) is Pid else dest[1]):
            self.process.send(dest, message)

    def can_reach(self, node: Atom) -> bool:
        """Another node, and connected."""
        return self.node.is_connected(node)

    def monitor(self, pid: Pid) -> Reference:
        """Of a peer, or of a living process of this node: the DOWN is not here before this returns."""
        return self.process.monitor(pid)

    def demonitor(self, ref: Reference) -> None:
        """A DOWN that is on its way finds no row."""
        self.process.demonitor(ref)
