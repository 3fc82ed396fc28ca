"""What a program is told of a scope: the callbacks of syn, and who calls them.

.. code-block:: python

    class Log(EventHandler):
        def on_process_registered(self, scope, name, pid, meta, reason):
            print(f"{name} is {pid}")

        async def on_process_left(self, scope, group, pid, meta, reason):
            await tell_somebody(group, pid)

    async with open_scope(node, "users", handler=Log()) as scope: ...

A callback is an ordinary method, which runs at once, or an ``async`` one. Those run one after the other, in the order
of the events, and what comes behind one that has not finished waits for it, ordinary ones included; the scope does not
wait. So a handler sees its events one at a time and in order, whatever it is made of.

Source: ``syn_event_handler`` of syn 3.3.0; order and arguments as observed there.
"""

from __future__ import annotations

import inspect
import itertools
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import structlog
import trio

from ..complaints import shortened
from ..pacing import SLICE

if TYPE_CHECKING:
    from erlang_interop import Node
    from erlang_interop.terms import Atom, Pid, Term

    from .conflict import Claim

#: What a callback returns; of an ordinary one nothing is done with it.
Outcome: TypeAlias = "Awaitable[object] | None"

_log = structlog.get_logger("zenmon_node")


class EventHandler:
    """Override what you want to be told; every method may be ``async``.

    Each is called on every node of the scope that has a handler, for the processes of all nodes. ``reason`` is

    =============================================  ===================================================================
    ``normal``                                     somebody has said so: register, join, update, unregister, leave
    any other exit reason (also ``normal``)        the process has ended
    ``(syn_remote_scope_node_up, scope, node)``    the nodes have just met, and told each other what they have
    ``(syn_remote_scope_node_down, scope, node)``  the node of the process is gone, or its scope process
    ``syn_conflict_resolution``                    two nodes had given the name to two processes
    ``undefined``                                  it ended while this node's scope process was being started again
    =============================================  ===================================================================

    all of them as terms: ``Atom("normal")``. What a method raises is logged, and concerns nobody else.
    """

    def on_process_registered(self, scope: Atom, name: Term, pid: Pid, meta: Term, reason: Term) -> Outcome:
        """A process has a name now."""

    def on_registry_process_updated(self, scope: Atom, name: Term, pid: Pid, meta: Term, reason: Term) -> Outcome:
        """The metadata of a name have changed: ``on_registry_process_updated/5``."""

    def on_registry_process_updated_from(
        self, scope: Atom, name: Term, pid: Pid, previous: Term, meta: Term, reason: Term
    ) -> Outcome:
        """The same, with the metadata before: ``on_registry_process_updated/6``. Called directly after the other."""

    def on_process_unregistered(self, scope: Atom, name: Term, pid: Pid, meta: Term, reason: Term) -> Outcome:
        """A process does not have a name any more."""

    def on_process_joined(self, scope: Atom, group: Term, pid: Pid, meta: Term, reason: Term) -> Outcome:
        """A process is in a group now."""

    def on_group_process_updated(self, scope: Atom, group: Term, pid: Pid, meta: Term, reason: Term) -> Outcome:
        """The metadata of a member have changed: ``on_group_process_updated/5``."""

    def on_group_process_updated_from(
        self, scope: Atom, group: Term, pid: Pid, previous: Term, meta: Term, reason: Term
    ) -> Outcome:
        """The same, with the metadata before: ``on_group_process_updated/6``. Called directly after the other."""

    def on_process_left(self, scope: Atom, group: Term, pid: Pid, meta: Term, reason: Term) -> Outcome:
        """A process is not in a group any more."""

    def resolve_registry_conflict(self, scope: Atom, name: Term, remote: Claim, local: Claim) -> Any:
        """Two nodes have given ``name`` to two processes: whose is it? Called on both, each with its own as ``local``.

        Whoever overrides this has the default (the later registration stays, the other process is killed) no more:
        **nobody is killed**, and all nodes of the scope, genuine ones too, must decide alike, or the two owners go on
        resolving for ever.

        Args:
            remote: ``(pid, meta, time)`` of the other node's process, the time in nanoseconds since 1970.
            local: The same of this node's.

        Returns:
            The pid that keeps the name. With anything else, or an exception, neither does. It may be awaited: the
            registry of this scope then takes up nothing else until it is there.
        """


#: Callback of a service -> the methods that are called for it: those of both arities for an update.
_CALLBACKS: Final = (
    "on_process_registered",
    "on_registry_process_updated",
    "on_registry_process_updated_from",
    "on_process_unregistered",
    "on_process_joined",
    "on_group_process_updated",
    "on_group_process_updated_from",
    "on_process_left",
)


class Events:
    """Calls the handler of one scope.

    Args:
        node: Runs what is to be awaited.
        handler: None: nobody is told.

    Attributes:
        resolver: ``resolve_registry_conflict`` of the handler; None if it has none, and the default goes.
    """

    def __init__(self, node: Node, handler: EventHandler | None) -> None:
        self._node = node
        self._methods: dict[str, Callable[..., Outcome]] = {}
        for name in _CALLBACKS:
            method = _overridden(handler, name)
            if method is not None:
                self._methods[name] = method
        self.resolver: Callable[[Atom, Any, Claim, Claim], object] | None = _overridden(
            handler, "resolve_registry_conflict"
        )
        #: What waits for an ``async`` callback to finish; None when none runs.
        self._waiting: deque[tuple[str, tuple[Any, ...]]] | None = None
        self._drained = trio.lowlevel.ParkingLot()
        self._complained: set[tuple[str, type[BaseException]]] = set()

    def tell(self, callback: str, arguments: tuple[Any, ...]) -> None:
        """Tell the handler. Raises nothing.

        Args:
            callback: As syn calls it.
            arguments: Scope, name or group, pid, metadata, reason. Of an update scope, name or group, pid, the metadata
                before, those now, reason: both arities of the callback are called.
        """
        if not self._methods:
            return
        if len(arguments) == 6:
            scope, key, pid, _, meta, reason = arguments
            self._tell(callback, (scope, key, pid, meta, reason))
            callback = f"{callback}_from"
        self._tell(callback, arguments)

    async def drain(self) -> None:
        """Return when the handler has been told everything."""
        if self._waiting is not None:
            await self._drained.park()

    def _tell(self, name: str, arguments: tuple[Any, ...]) -> None:
        if self._waiting is not None:
            self._waiting.append((name, arguments))
            return
        outcome = self._call(name, arguments)
        if outcome is not None:
            self._waiting = deque()
            self._node.start_task(self._go_on, name, arguments, outcome)

    def _call(self, name: str, arguments: tuple[Any, ...]) -> Awaitable[object] | None:
        """Call one method; what it returns, if that is to be awaited."""
        method = self._methods.get(name)
        if method is None:
            return None
        try:
            outcome = method(*arguments)
        except Exception as error:
            self._complain(name, arguments, error)
            return None
        return outcome if inspect.isawaitable(outcome) else None

    async def _go_on(self, name: str, arguments: tuple[Any, ...], outcome: Awaitable[object] | None) -> None:
        """Await one after the other, until nothing waits."""
        waiting = self._waiting
        assert waiting is not None
        try:
            for done in itertools.count(1):
                if outcome is not None:
                    try:
                        await outcome
                    except Exception as error:
                        self._complain(name, arguments, error)
                if not waiting:
                    break
                if done % SLICE == 0:
                    await trio.lowlevel.checkpoint()
                name, arguments = waiting.popleft()
                outcome = self._call(name, arguments)
        finally:
            self._waiting = None
            self._drained.unpark_all()

    def _complain(self, name: str, arguments: tuple[Any, ...], error: Exception) -> None:
        """Log it with its traceback: once for a callback and a class of exceptions, for they come in thousands."""
        key = (name, type(error))
        if key not in self._complained:
            self._complained.add(key)
            _log.error(
                "a callback of an event handler of syn raised; the scope goes on, and more of this kind is not logged",
                callback=name,
                arguments=shortened(arguments),
                exc_info=error,
            )


def _overridden(handler: EventHandler | None, name: str) -> Callable[..., Any] | None:
    """A method of the handler, unless it is only that of :class:`EventHandler`, which does nothing."""
    method: Callable[..., Any] | None = getattr(handler, name, None)
    return None if getattr(method, "__func__", None) is getattr(EventHandler, name) else method
