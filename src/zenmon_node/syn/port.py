"""What the engine and the services of a scope have done: carried out by their scope process, on a node."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import structlog

from erlang_interop.errors import EncodeError, Exit, Throw
from erlang_interop.otp import gen
from erlang_interop.otp.exact import carried
from erlang_interop.runtime.inline import crash_reason
from erlang_interop.terms import Atom, Export

from ..complaints import shortened
from . import messages as m
from .scope import Engine, FunFailed

if TYPE_CHECKING:
    from erlang_interop import Node
    from erlang_interop.runtime import LocalProcess, Sending
    from erlang_interop.runtime.observer import Observer
    from erlang_interop.terms import Pid, Reference, Term

#: ``tell(callback, arguments)``: the event handler, which raises nothing. The first of the arguments is the scope.
Tell: TypeAlias = "Callable[[str, tuple[Any, ...]], object]"

_BADFUN: Final = Atom("badfun")
_ERROR: Final = Atom("error")
_EXIT: Final = Atom("exit")
_THROW: Final = Atom("throw")
_UNDEF: Final = Atom("undef")
_NOT_AT_ONCE: Final = Atom("function_does_not_return_at_once")

_log = structlog.get_logger("zenmon_node")


class ScopePort:
    """The :class:`~zenmon_node.syn.scope.Port` of a service and the :class:`~zenmon_node.syn.scope.Link` of an engine.

    It lives as long as the service; the process may be another one after a crash.

    Args:
        node: The node.
        scope: The scope's name.
        name: The name of its members of this half, on every node.
        tell: The event handler.

    Attributes:
        sendings: Node -> what is awaited to be parked while that node is busy.
    """

    _process: LocalProcess
    _engine: Engine
    _observer: Observer

    def __init__(self, node: Node, scope: Atom, name: Atom, tell: Tell) -> None:
        self._node: Final = node
        self.node = node.name
        self.scope = scope
        self._name: Final = name
        self._tell: Final = tell
        self._latest = 0
        self._watched: set[Pid] = set()
        self.sendings: dict[Atom, Sending] = {}

    def attach(self, process: LocalProcess, engine: Engine, deaths_wait: Callable[[], object]) -> None:
        """The scope process has been started, or another one: nothing is watched any more.

        Args:
            process: The scope process.
            engine: Its engine.
            deaths_wait: Called when there are deaths to be taken, and were none before.
        """
        self._process = process
        self._engine = engine
        self._observer = process.observe(deaths_wait)
        self._watched.clear()

    # -- Port

    def now(self) -> int:
        """System time; each is greater than the one before, so that no update looks like an old one."""
        self._latest = max(time.time_ns(), self._latest + 1)
        return self._latest

    def is_alive(self, pid: Pid) -> bool:
        """Of this node, and alive."""
        return self._node.is_alive(pid)

    def watch(self, pid: Pid) -> None:
        """Once for each process, whatever it has or is in."""
        if pid not in self._watched:
            self._watched.add(self._observer.watch(pid))

    def unwatch(self, pid: Pid) -> None:
        """A death that is written down already is taken nevertheless."""
        if pid in self._watched:
            self._watched.remove(pid)
            self._observer.release(pid)

    def take_deaths(self) -> list[tuple[Pid, Term]]:
        """Processes that were watched and have ended, in that order, with reasons that can be sent."""
        deaths = self._observer.deaths[:]
        self._observer.deaths.clear()
        self._watched.difference_update([pid for pid, _ in deaths])
        return [(pid, _sendable(reason)) for pid, reason in deaths]

    def knows(self, node: Atom) -> bool:
        """A member."""
        return node in self._engine.peers

    def broadcast(self, message: Term, but: Atom | None = None) -> None:
        """To all other members."""
        self._engine.broadcast(message, but)

    def has_told(self, node: Atom) -> bool:
        """A member of which we have everything."""
        return node in self._engine.told

    def ask_again(self, node: Atom) -> None:
        """At the next look for members."""
        self._engine.ask_again(node)

    def emit(self, callback: str, *arguments: Term) -> None:
        """To the event handler."""
        self._tell(callback, (self.scope, *arguments))

    def kill(self, pid: Pid, reason: Term) -> None:
        """As the scope process."""
        self._process.exit(pid, reason)

    def apply(self, fun: Any, *arguments: Term) -> Term:
        """See Port. A function of this node's program that is named by wire must be an ordinary one: it runs at once.

        A fun by wire is code of a module that only a BEAM can load, unless it is external and was exposed
        (``Node.expose``).
        """
        if isinstance(fun, Export):
            exposed = self._node.exposed(fun.module, fun.function, list(arguments))
            if exposed is None or fun.arity != len(arguments):
                raise FunFailed(_ERROR, _UNDEF, [(fun.module, fun.function, list(arguments), [])])
            function: Any = exposed.start
            arguments = (self._process, list(arguments))
        elif callable(fun):
            function = fun
        else:
            raise FunFailed(_ERROR, (_BADFUN, fun), [])
        try:
            value = function(*arguments)
            if isinstance(value, Awaitable):
                getattr(value, "close", bool)()  # a coroutine would complain that nobody has awaited it
                raise FunFailed(_ERROR, _NOT_AT_ONCE, [])
            return carried(value, m.WHY_NO_RECORDS)
        except FunFailed:
            raise
        except Exception as error:
            if isinstance(fun, Export):
                _log.warning("an update raised, and its caller is told", fun=shortened(fun), exc_info=error)
            raise _failed(error) from error

    # -- Link

    def send(self, node: Atom, message: Term) -> None:
        """By the name of the member, and make no connection for it."""
        if not self._node.is_connected(node):
            return
        try:
            self.sendings[node] = self._process.send((self._name, node), message)
        except EncodeError as error:
            _log.error(
                "a member cannot be told something, and will not know it",
                member=self._name.name,
                node=node.name,
                error=str(error),
                message=shortened(message),
            )

    def can_reach(self, node: Atom) -> bool:
        """Another node, and connected."""
        return self._node.is_connected(node)

    def monitor(self, pid: Pid) -> Reference:
        """Of a scope process elsewhere."""
        return self._process.monitor(pid)

    def monitor_member(self, node: Atom) -> Reference:
        """By its name, whether it is there or not."""
        return self._process.monitor((self._name, node))

    def demonitor(self, ref: Reference) -> None:
        """A DOWN that is on its way finds no member."""
        self._process.demonitor(ref)

    def call_member(self, node: Atom) -> Reference:
        """As ``gen_server:call`` by its name."""
        return gen.send_request(self._process, (self._name, node), m.SUBCLUSTER_NODES)


def _sendable(reason: Term) -> Term:
    """An exit reason as other nodes can be told; most are atoms."""
    if type(reason) is Atom:
        return reason
    try:
        return carried(reason, m.WHY_NO_RECORDS)
    except EncodeError:
        return carried(crash_reason(TypeError(f"the exit reason is no term: {shortened(reason)}")))


def _failed(error: Exception) -> FunFailed:
    if isinstance(error, Throw):
        return FunFailed(_THROW, _sendable(error.value), [])
    if isinstance(error, Exit):
        return FunFailed(_EXIT, _sendable(error.reason), [])
    return FunFailed(_ERROR, _sendable(crash_reason(error)), [])
