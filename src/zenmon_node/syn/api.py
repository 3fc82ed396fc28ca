"""syn on a node: scopes to open, and what a program does in one.

    async with open_scope(node, "users", handler=MyHandler()) as scope:
        await scope.register(Atom("alice"), pid, {"since": 2024})
        await scope.join("room", pid)
        print(scope.lookup(Atom("alice")), scope.members("room"))

A scope has two processes, ``syn_registry_<scope>`` and ``syn_pg_<scope>`` (``server.py``), under a supervisor. What
they know outlives them: a scope process that has crashed is started again with its tables, as in genuine syn.

What reads is answered at once from this node's tables. What changes something is decided by the node of the process
(``registry.py``, ``pg.py``), here or there, so it is ``async``; when it returns, this node's tables have it.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias, cast

import structlog
import trio

from erlang_interop import Atom, CallError, CallTimeout, ConnectError, Export, NoProcess, Pid
from erlang_interop.otp.exact import carried
from erlang_interop.otp.gen import shown_term
from erlang_interop.otp.supervisor import ChildSpec, Supervisor
from erlang_interop.runtime.inline import crash_reason
from erlang_interop.runtime.signals import atom_of

from ..pacing import SLICE
from . import messages as m
from .errors import NameUndefined, NotSelf, invalid_remote_scope, invalid_scope, refusal
from .handler import EventHandler, Events
from .multi_call import Member, Replies, multi_call
from .pg import Groups
from .registry import Entry, Registry
from .scope import FunFailed
from .server import DISCOVER_INTERVAL, ScopeServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from erlang_interop import LocalProcess, Node, Term

#: Seconds that the node of a process may take to decide (``gen_server:call/2``, as in syn).
TIMEOUT: Final = 5.0
#: Restarts of a scope's processes within so many seconds that syn puts up with.
RESTARTS: Final = 10
PERIOD: Final = 10.0
SHUTDOWN: Final = Atom("shutdown")

_log = structlog.get_logger("zenmon_node")

#: Makes new metadata of the old ones.
Update: TypeAlias = "Callable[..., Any] | Export"


class Registered(NamedTuple):
    """Who has a name, with the metadata of the name."""

    pid: Pid
    meta: Any


class Scope:
    """A scope that this node is in. Made by :func:`open_scope` and :func:`add_node_to_scopes`.

    Names, groups and metadata are any terms, told apart as Erlang's ``=:=`` does: ``1``, ``1.0`` and ``True`` are three
    names. ``"alice"`` is Elixir's ``"alice"``, a binary; for an atom write ``Atom("alice")``. Metadata cannot be a
    function.

    Every method raises InvalidScope once the scope is closed. Those that change something raise besides what they list

    * EncodeError: no external term can carry the name, group or metadata, or not one of every OTP release;
    * InvalidRemoteScope: the node of the process is connected, but not in the scope;
    * CallTimeout, NodeDownError, CalleeExited: that node has not answered in time, is gone, or its scope process ended.
      It may have done what it was asked for; if it has, this node hears of it.
    """

    def __init__(
        self, node: Node, name: Atom, handler: EventHandler | None, *, strict: bool, discover_interval: float
    ) -> None:
        self.node: Final = node
        #: Its name.
        self.name: Final = name
        #: Whether processes are only registered, and only join, by themselves; see :func:`open_scope`.
        self.strict: Final = strict
        self._events = Events(node, handler)
        resolver, tell = self._events.resolver, self._events.tell
        self._names = ScopeServer(
            node, name, m.REGISTRY, lambda port: Registry(port, resolver), tell, discover_interval
        )
        self._members = ScopeServer(node, name, m.PG, Groups, tell, discover_interval)
        self._supervisor = _Supervisor(self)
        node.start_inline(self._supervisor)
        _scopes.setdefault(node, {})[name] = self

    def __repr__(self) -> str:
        return f"<Scope {self.name.name} of {self.node.name.name}{'' if self._is_open else ' (closed)'}>"

    # -- the registry

    async def register(
        self,
        name: Term,
        pid: Pid,
        meta: Term = m.UNDEFINED,
        *,
        timeout: float = TIMEOUT,
        caller: LocalProcess | None = None,
    ) -> None:
        """``syn:register/3,4``: give a name to a process, or new metadata to the name that it has.

        Args:
            name: Any term. A process may have many.
            pid: A process of this node, or of any other in the scope; its own node decides.
            meta: Goes with the name to all nodes; Atom("undefined") without it. The same as before: nothing happens.
            timeout: Seconds that the node of the process may take.
            caller: In a strict scope: the process that calls.

        Raises:
            Taken: another process has the name.
            NotAlive: the process has ended.
            NotSelf: the scope is strict, and ``caller`` is not this process.
        """
        self._require_self(pid, caller)
        name = _carried(name)
        reply = await self._ask(
            self._names, pid, m.REGISTRY.ask_put(self.node.name, name, pid, _metadata(meta)), timeout
        )
        _new_meta(reply, "register", name, pid)

    async def unregister(self, name: Term, *, timeout: float = TIMEOUT) -> None:
        """``syn:unregister/2``: take a name back, whoever has it.

        Raises:
            NameUndefined: nobody has it.
            RaceCondition: it has changed hands, and this node has not heard of it yet.
        """
        name = _carried(name)
        entry = self._found(name, "unregister")
        reply = await self._ask(self._names, entry.pid, m.REGISTRY.ask_remove(self.node.name, name, entry.pid), timeout)
        if reply[0] != m.OK:
            raise refusal(reply, "unregister", name, entry.pid, "registry")

    async def update_registry(
        self, name: Term, fun: Update, *, timeout: float = TIMEOUT, caller: LocalProcess | None = None
    ) -> Registered:
        """``syn:update_registry/3``: make new metadata of those that a name has, where nothing can come between.

        Args:
            name: A name.
            fun: ``fun(pid, meta)`` returns the new metadata. It runs on the node of the process: for one of this node
                it is any function that returns at once; for one of another node an external fun, such as
                ``Export(Atom("counters"), Atom("increment"), 2)``, of a module that is there. A Python node has what
                it exposes (``node.expose``).
            timeout: Seconds that the node of the process may take.
            caller: In a strict scope: the process that calls.

        Returns:
            Who has the name, and the metadata now.

        Raises:
            NameUndefined: nobody has the name.
            NotAlive, NotSelf: as :meth:`register`.
            TypeError: ``fun`` cannot be sent to the node of the process.
            RemoteException: ``fun`` raised on another node, or does not exist there.
            Exception: whatever ``fun`` raised on this node.
        """
        name = _carried(name)
        pid = self._found(name, "update").pid
        self._require_self(pid, caller)
        run = self._function(pid, fun)
        reply = await self._ask(self._names, pid, m.REGISTRY.ask_put(self.node.name, name, pid, run.sent), timeout)
        return Registered(pid, _new_meta(reply, "update", name, pid, run=run))

    def lookup(self, name: Term) -> Registered | None:
        """``syn:lookup/2``: who has a name, as far as this node has heard; None for ``undefined``."""
        entry = self._registry.lookup(_carried(name))
        return None if entry is None else Registered(entry.pid, entry.meta)

    def whereis_name(self, name: Term) -> Pid | None:
        """``syn:whereis_name/1``: the process that has a name."""
        entry = self._registry.lookup(_carried(name))
        return None if entry is None else entry.pid

    def send(self, name: Term, message: Term) -> Pid:
        """``syn:send/2``: send to who has a name.

        Returns:
            Who that is.

        Raises:
            NameUndefined: nobody (``badarg`` in syn).
        """
        pid = self._found(_carried(name), "send to").pid
        self.node.send(pid, message)
        return pid

    def registered_names(self, node: Atom | str | None = None) -> list[Any]:
        """The names that there are, or that processes of ``node`` have, in no particular order. Not in syn itself."""
        wanted = None if node is None else atom_of(node)
        return [entry.name for entry in self._registry.entries() if wanted is None or entry.pid.node == wanted]

    def registry_count(self, node: Atom | str | None = None) -> int:
        """``syn:registry_count/1,2``: how many names there are, or how many the processes of ``node`` have."""
        return self._registry.count(None if node is None else atom_of(node))

    def local_registry_count(self) -> int:
        """``syn:local_registry_count/1``: how many names processes of this node have."""
        return self._registry.count(self.node.name)

    # -- groups

    async def join(
        self,
        group: Term,
        pid: Pid,
        meta: Term = m.UNDEFINED,
        *,
        timeout: float = TIMEOUT,
        caller: LocalProcess | None = None,
    ) -> None:
        """``syn:join/3,4``: put a process into a group, or give it new metadata there. It is a member once.

        Args:
            group: Any term. It is there as long as it has members.
            pid: A process of this node, or of any other in the scope; its own node decides.
            meta: Goes with the membership to all nodes; Atom("undefined") without it.
            timeout: Seconds that the node of the process may take.
            caller: In a strict scope: the process that calls.

        Raises:
            NotAlive: the process has ended.
            NotSelf: the scope is strict, and ``caller`` is not this process.
        """
        self._require_self(pid, caller)
        group = _carried(group)
        reply = await self._ask(self._members, pid, m.PG.ask_put(self.node.name, group, pid, _metadata(meta)), timeout)
        _new_meta(reply, "join", group, pid, where="pg")

    async def leave(self, group: Term, pid: Pid, *, timeout: float = TIMEOUT) -> None:
        """``syn:leave/3``: take a process out of a group.

        Raises:
            NotInGroup: it is no member.
        """
        group = _carried(group)
        reply = await self._ask(self._members, pid, m.PG.ask_remove(self.node.name, group, pid), timeout)
        if reply[0] != m.OK:
            raise refusal(reply, "leave", group, pid, "pg")

    async def update_member(
        self, group: Term, pid: Pid, fun: Update, *, timeout: float = TIMEOUT, caller: LocalProcess | None = None
    ) -> Member:
        """``syn:update_member/4``: make new metadata of those that a member has, where nothing can come between.

        Args:
            group: A group.
            pid: A member of it.
            fun: ``fun(meta)`` returns the new metadata; for the rest see :meth:`update_registry`.
            timeout: Seconds that the node of the process may take.
            caller: In a strict scope: the process that calls.

        Returns:
            The member with its metadata now.

        Raises:
            NotInGroup: it is no member (``undefined`` in syn).
            NotAlive, NotSelf, TypeError, RemoteException, Exception: as :meth:`update_registry`.
        """
        self._require_self(pid, caller)
        group = _carried(group)
        run = self._function(pid, fun)
        reply = await self._ask(self._members, pid, m.PG.ask_put(self.node.name, group, pid, run.sent), timeout)
        return Member(pid, _new_meta(reply, "update", group, pid, where="pg", run=run))

    def members(self, group: Term) -> list[Member]:
        """``syn:members/2``: the members on all nodes, in the order of their pids; empty for a group that is none."""
        return [Member(entry.pid, entry.meta) for entry in self._groups.members(_carried(group))]

    def local_members(self, group: Term) -> list[Member]:
        """``syn:local_members/2``: the members on this node, in the order of their pids."""
        return [member for member in self.members(group) if member.pid.node == self.node.name]

    def member(self, group: Term, pid: Pid) -> Member | None:
        """``syn:member/3``: a member with its metadata; None for ``undefined``."""
        entry = self._groups.member(_carried(group), pid)
        return None if entry is None else Member(entry.pid, entry.meta)

    def is_member(self, group: Term, pid: Pid) -> bool:
        """``syn:is_member/3``."""
        return self._groups.member(_carried(group), pid) is not None

    def is_local_member(self, group: Term, pid: Pid) -> bool:
        """``syn:is_local_member/3``: whether it is a member, and of this node."""
        return pid.node == self.node.name and self.is_member(group, pid)

    def member_count(self, group: Term, node: Atom | str | None = None) -> int:
        """``syn:member_count/2,3``: how many members a group has, or has on ``node``."""
        if node is None:
            return self._groups.member_count(_carried(group))
        wanted = atom_of(node)
        return sum(entry.pid.node == wanted for entry in self._groups.members(_carried(group)))

    def local_member_count(self, group: Term) -> int:
        """``syn:local_member_count/2``: how many members a group has on this node."""
        return self.member_count(group, self.node.name)

    def group_names(self, node: Atom | str | None = None) -> list[Any]:
        """``syn:group_names/1,2``: the groups that have members, or members on ``node``, in Erlang's order of terms."""
        return self._groups.names(None if node is None else atom_of(node))

    def local_group_names(self) -> list[Any]:
        """``syn:local_group_names/1``: the groups that have members on this node."""
        return self._groups.names(self.node.name)

    def group_count(self, node: Atom | str | None = None) -> int:
        """``syn:group_count/1,2``: how many groups have members, or members on ``node``."""
        return self._groups.count(None if node is None else atom_of(node))

    def local_group_count(self) -> int:
        """``syn:local_group_count/1``: how many groups have members on this node."""
        return self._groups.count(self.node.name)

    # -- messages to members

    async def publish(self, group: Term, message: Term) -> int:
        """``syn:publish/3``: send a message to all members of a group, as it is.

        Returns:
            How many members there are, 0 for a group that is none.

        Raises:
            EncodeError: no external term can carry the message, and a member is on another node.
        """
        return await self._publish(self.members(group), message)

    async def local_publish(self, group: Term, message: Term) -> int:
        """``syn:local_publish/3``: as :meth:`publish`, to the members on this node."""
        return await self._publish(self.local_members(group), message)

    async def _publish(self, members: list[Member], message: Term) -> int:
        for done, member in enumerate(members, start=1):
            sending = self.node.send(member.pid, message)
            if done % SLICE == 0:
                await sending  # where a peer takes no more for now, and for the others' turn
        await trio.lowlevel.checkpoint()
        return len(members)

    async def multi_call(self, group: Term, message: Term, timeout: float = TIMEOUT) -> Replies:
        """``syn:multi_call/3,4``: ask all members of a group at once, and wait for their answers.

        A member receives ``(Atom("syn_multi_call"), message, caller, meta)``, with the metadata that it has in the
        group, and answers with :func:`multi_call_reply`.

        Args:
            group: A group; of one that is none nobody is asked.
            message: Any term.
            timeout: Seconds that all of them have.

        Returns:
            ``replies``, a list of ``(member, reply)``, and ``bad``, the members that did not answer: they have ended,
            or were not in time.
        """
        return await multi_call(self.node, self.members(group), message, timeout)

    # -- the scope

    def subcluster_nodes(self, service: Literal["registry", "pg"] = "registry") -> list[Atom]:
        """``syn:subcluster_nodes/2``: the other nodes that are in the scope, as far as this one has heard.

        Args:
            service: Which of its two processes has heard; but for moments they know the same.
        """
        if service not in ("registry", "pg"):
            raise ValueError(f"a scope has a 'registry' and a 'pg', and no {service!r}")
        self._require_open()
        return (self._names if service == "registry" else self._members).subcluster_nodes()

    async def connect_members(self, *, timeout: float = TIMEOUT) -> list[Atom]:
        """Connect to the nodes of the scope that connected ones know of, and to those that these know of.

        Members only know what is on nodes that they are connected with, and syn connects none: among visible BEAMs
        that is the work of ``global``, which leaves this node out unless it is opened with ``visible="full"``.

        Args:
            timeout: Seconds that each of them may take to answer.

        Returns:
            The nodes that it has connected; those that cannot be reached are logged.
        """
        self._require_open()
        seen, connected = {self.node.name}, []
        todo = self.node.nodes("connected")
        while todo:
            peer = todo.pop()
            if peer in seen:
                continue
            seen.add(peer)
            try:
                if not self.node.is_connected(peer):
                    await self.node.connect(peer)
                    connected.append(peer)
                known = await self._names.request(peer, m.SUBCLUSTER_NODES, timeout)
            except NoProcess:
                continue  # a node without this scope
            except (ConnectError, CallError) as error:
                _log.warning("a member cannot be reached", scope=self.name.name, node=peer.name, error=str(error))
                continue
            todo += [node for node in known if type(node) is Atom] if type(known) is list else []
        return connected

    async def wait_synced(self, *, timeout: float = TIMEOUT) -> None:
        """Return when the members on all connected nodes have told what they have, as far as they are in the scope.

        Raises:
            CallTimeout: some have not in time; the message says which.
        """
        self._require_open()
        with trio.move_on_after(timeout):
            for server in self.servers:
                await server.wait_synced()
            return
        silent = sorted({node.name for server in self.servers for node in server.silent()})
        raise CallTimeout(
            Atom("timeout"),
            f"{', '.join(silent)} did not tell within {timeout} s what it has in the scope {self.name.name}",
        )

    async def close(self) -> None:
        """Leave the scope: its names and memberships are gone here, and the other nodes see their end as node_down.

        No callback is called for that on this node; those that wait behind an ``async`` one are. A scope of
        :func:`open_scope` is closed at the end of the block; it may be closed before.
        """
        self.node.exit(self._supervisor.process.pid, SHUTDOWN)
        await self._supervisor.wait_stopped()
        await self._events.drain()

    async def wait_closed(self) -> None:
        """Return when the scope is closed, or has given up: its processes crashed more than 10 times in 10 seconds."""
        await self._supervisor.wait_stopped()

    # -- inside

    @property
    def servers(self) -> tuple[ScopeServer, ScopeServer]:
        """Its two processes: the registry's, and that of the groups."""
        return self._names, self._members

    @property
    def _is_open(self) -> bool:
        return self._supervisor.process.alive

    def _require_open(self) -> None:
        if not self._is_open:
            raise invalid_scope(
                self.name, "it was closed, or its processes crashed too often (the log says why); open it again"
            )

    @property
    def _registry(self) -> Registry:
        self._require_open()
        return cast(Registry, self._names.service)

    @property
    def _groups(self) -> Groups:
        self._require_open()
        return cast(Groups, self._members.service)

    def _found(self, name: Term, what: str) -> Entry:
        entry = self._registry.lookup(name)
        if entry is None:
            raise NameUndefined(f"cannot {what} {shown_term(name)}: nobody has the name", m.UNDEFINED)
        return entry

    def _require_self(self, pid: Pid, caller: LocalProcess | None) -> None:
        if type(pid) is not Pid:
            raise TypeError(f"{pid!r} is no pid")
        if self.strict and (caller is None or caller.pid != pid):
            raise NotSelf(
                f"the scope {self.name.name!r} is strict: only {pid} can do that for itself, with caller=process",
                Atom("not_self"),
            )

    def _function(self, pid: Pid, fun: Update) -> _Function:
        if isinstance(fun, Export):
            return _Function(fun, fun)
        if not callable(fun):
            raise TypeError(f"{fun!r} is no function")
        if pid.node != self.node.name:
            raise TypeError(
                f"the metadata of {pid} are updated on {pid.node.name}, and a Python function cannot be sent there: "
                f"give an external fun, as Export(Atom('module'), Atom('function'), arity)"
            )
        return _Function(fun)

    async def _ask(self, server: ScopeServer, pid: Pid, request: Term, timeout: float) -> Any:
        """Let the node of the process decide."""
        self._require_open()
        try:
            return await server.request(pid.node, request, timeout)
        except NoProcess as error:
            self._require_open()
            if not server.running:
                raise invalid_scope(self.name, str(error)) from error
            raise invalid_remote_scope(self.name, pid.node) from error


class _Supervisor(Supervisor):
    """Of the two processes of a scope."""

    def __init__(self, scope: Scope) -> None:
        children = [
            ChildSpec(server.name, partial(scope.node.start_inline, server, name=server.name))
            for server in scope.servers
        ]
        super().__init__(children, intensity=RESTARTS, period=PERIOD)
        self._scope = scope

    def terminated(self, reason: Term) -> None:
        super().terminated(reason)
        node, name = self._scope.node, self._scope.name
        if node_scopes(node).get(name) is self._scope:
            del _scopes[node][name]
            if not _scopes[node]:
                del _scopes[node]


#: The scopes that are open. A node and its scopes are forgotten when they end.
_scopes: Final[dict[Node, dict[Atom, Scope]]] = {}


@asynccontextmanager
async def open_scope(
    node: Node,
    scope: Atom | str,
    *,
    handler: EventHandler | None = None,
    strict: bool = False,
    discover_interval: float = DISCOVER_INTERVAL,
) -> AsyncIterator[Scope]:
    """Be in a scope for as long as the block runs.

    A node can be in any number of scopes, which have nothing to do with each other.

    Args:
        node: A running node, hidden or visible; docs/syn.md says what either means for the scope.
        scope: Its name, the same on all nodes: ``"users"`` for ``users``, ``"Elixir.MyApp.Users"`` for a module.
        handler: Is told what happens in the scope, and may decide conflicts.
        strict: Only a process itself may register and join, and update what it has (``strict_mode`` of syn):
            ``scope.register(name, process.pid, caller=process)``. It concerns calls on this node.
        discover_interval: Seconds between two looks for the scope on connected nodes where it was not found. A look
            is one small message to each of them.

    Raises:
        NameAlreadyRegistered: this node is in the scope already.
        BadName, EncodeError: ``scope`` is no name.
        ValueError: ``discover_interval`` is not above 0.
    """
    opened = _open(node, atom_of(scope), handler, strict, discover_interval)
    try:
        yield opened
    finally:
        await opened.close()


def add_node_to_scopes(
    node: Node,
    scopes: Iterable[Atom | str],
    *,
    handler: EventHandler | None = None,
    strict: bool = False,
    discover_interval: float = DISCOVER_INTERVAL,
) -> dict[Atom, Scope]:
    """``syn:add_node_to_scopes/1``: be in some scopes until the node ends, or they are closed.

    Args:
        node: A running node.
        scopes: Their names.
        handler, strict, discover_interval: As for :func:`open_scope`, of those that are new.

    Returns:
        The scopes by name; one that this node is in already is returned as it is.

    Raises:
        NameAlreadyRegistered: a process has the name of a scope process. The scopes before that one are open.
        BadName, EncodeError, ValueError: as :func:`open_scope`.
    """
    names = [atom_of(scope) for scope in scopes]
    return {
        name: node_scopes(node).get(name) or _open(node, name, handler, strict, discover_interval) for name in names
    }


def node_scopes(node: Node) -> dict[Atom, Scope]:
    """``syn:node_scopes/0``: the scopes that this node is in, by name."""
    return dict(_scopes.get(node, {}))


def _open(node: Node, name: Atom, handler: EventHandler | None, strict: bool, discover_interval: float) -> Scope:
    if not discover_interval > 0:
        raise ValueError(f"discover_interval is a number of seconds above 0, not {discover_interval!r}")
    return Scope(node, name, handler, strict=strict, discover_interval=discover_interval)


def _carried(term: Term) -> Any:
    return carried(term, m.WHY_NO_RECORDS)


def _metadata(meta: Term) -> Any:
    if m.is_fun(meta):
        raise TypeError(f"metadata cannot be a function, and {meta!r} is one")
    return _carried(meta)


# ------------------------------------------------------------------------------------------------- what has come of it


class _Function:
    """A function of the user's that makes new metadata of the old ones.

    Attributes:
        sent: What stands in the request.
        error: What the function has raised.
    """

    def __init__(self, fun: Update, sent: Export | None = None) -> None:
        self._fun: Any = fun
        self.sent: Any = sent or self._run
        self.error: Exception | None = None

    def _run(self, *arguments: Any) -> Any:
        try:
            return _metadata(self._fun(*arguments))
        except Exception as error:
            self.error = error
            raise FunFailed(m.ERROR, crash_reason(error), []) from error


def _new_meta(
    reply: Any,
    what: str,
    key: Term,
    pid: Pid,
    *,
    where: Literal["registry", "pg"] = "registry",
    run: _Function | None = None,
) -> Any:
    """The metadata that an authority has stored, or has had already. Raises what it said instead."""
    stored = m.parse_stored(reply)
    if stored is not None:
        return stored.meta
    if reply[0] == m.NOOP:
        return reply[1]
    raise refusal(reply, what, key, pid, where, None if run is None else run.error)
