"""syn on a node: scopes to open, and what a program does in one.

    async with open_scope(node, "users", handler=MyHandler()) as scope:
        await scope.register(Atom("alice"), pid, {"since": 2024})
        await scope.join("room", pid)
        print(scope.lookup(Atom("alice")), scope.members("room"))

A scope has two processes, ``syn_registry_<scope>`` and ``syn_pg_<scope>`` (``server.py``), under a supervisor. What
they know outlives them: a scope process that has crashed is started again with its tables, as in genuine syn.

What reads is answered at once from this node's tables. What changes something is decided by the node of the process
(``registry.py``, ``pg.py``), here or there, so it is ``async``; when it returns, this node's tables have it.

Both are in ``names.py`` and ``members.py``. Here is what concerns the scope as a whole.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

import structlog
import trio

from erlang_interop import Atom, CallError, CallTimeout, ConnectError, NoProcess
from erlang_interop.otp.supervisor import ChildSpec, Supervisor
from erlang_interop.runtime.signals import atom_of

from . import messages as m
from .asking import TIMEOUT
from .handler import EventHandler, Events
from .members import Members
from .names import Names
from .pg import Groups
from .registry import Registry
from .server import DISCOVER_INTERVAL, ScopeServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from erlang_interop import Node, Term

#: Restarts of a scope's processes within so many seconds that syn puts up with.
RESTARTS: Final = 10
PERIOD: Final = 10.0
SHUTDOWN: Final = Atom("shutdown")

_log = structlog.get_logger("zenmon_node")


class Scope(Names, Members):
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
        self.node = node
        self.name = name
        self.strict = strict
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
        return f"<Scope {self.name.name} of {self.node.name.name}{'' if self.is_open else ' (closed)'}>"

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

    # -- inside

    @property
    def servers(self) -> tuple[ScopeServer, ScopeServer]:
        """Its two processes: the registry's, and that of the groups."""
        return self._names, self._members

    @property
    def is_open(self) -> bool:
        """Whether it has been closed, by :meth:`close` or since its processes crashed too often."""
        return self._supervisor.process.alive


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
