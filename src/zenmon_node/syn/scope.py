"""A scope of syn on one node: who the other members are, and what its two services are to do. Pure.

A scope has two independent members on each node: ``syn_registry_S`` (names) and ``syn_pg_S`` (groups). Both find
their peers in the same way, which is here; what they keep differs, and that is a :class:`Service` (``registry.py``,
``pg.py``). The process that carries out what both decide is in ``server.py``, the words are in ``messages.py``.

Source: the protocol as genuine syn 3.3.0 and 3.4.1 speak it, observed on the wire.
"""

from __future__ import annotations

from collections.abc import Awaitable, Generator
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from erlang_interop.terms import Atom, Pid, Term

#: Work that is not done at once, as a generator. It yields None after each slice of at most ``pacing.SLICE`` steps, so
#: that the rest of the node has its turn, or something to be awaited, whose value it is sent (or whose exception is
#: thrown into it). No message is handled and no request answered between: whoever asks waits, as for a genuine scope
#: process, which is busy then.
Work: TypeAlias = "Generator[Awaitable[Any] | None, Any, None]"


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

    Attributes:
        name: ``"registry"`` or ``"pg"``.
    """

    name: str

    def local_data(self) -> list[Any]:
        """``[(name or group, pid, meta, time), ...]``: the entries whose pid is of this node, all of them."""

    def merge(self, node: Atom, data: list[Any], reason: Term) -> Work | None:
        """Take what an ``ack_sync`` of ``node`` holds.

        Args:
            node: Whose processes these are.
            data: As :meth:`local_data`, and not checked yet.
            reason: ``{syn_remote_scope_node_up, Scope, Node}``, for the callbacks.

        Raises:
            Malformed: at once, before any change (the check of ``data`` is not part of the work).
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

    def answered(self, request: Term, reply: Term) -> None:
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
