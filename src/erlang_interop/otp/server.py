"""Servers in Python that genuine callers cannot tell from a ``gen_server``.

.. code-block:: python

    class Counter(GenServer):
        def init(self, first: int) -> None:
            self.count = first

        def handle_call(self, request: Term, from_: From) -> Term:
            match request:
                case (Atom("add"), int() as n):
                    self.count += n
                    return self.count                           # the answer
                case Atom("stop"):
                    return Stop(NORMAL, reply=self.count)       # the answer, and the end
            return super().handle_call(request, from_)          # ends the server: bad_call

    pid = await Counter.start(node, 0, name="counter")

Then ``gen_server:call({counter, 'py@host'}, {add, 1})`` works on any node of the cluster. Each callback is a plain
method or an ``async def``; while one runs the server takes no other message. The object is the state.

What a callback does, in gen_server's words:

================================================  =================================================================
``{reply, Reply, State}``                         ``return reply`` from ``handle_call``
``{noreply, State}``                              ``return NO_REPLY`` from ``handle_call``; ``return`` from the others
``gen_server:reply(From, Reply)``                 ``self.reply(from_, reply)``, at any time, from any callback
``{stop, Reason, Reply, State}``                  ``return Stop(reason, reply=reply)``
``{stop, Reason, State}``                         ``return Stop(reason)``, or ``raise Exit(reason)`` anywhere
``{stop, Reason}`` from ``init``                  ``raise Exit(reason)``: ``start`` raises it
a crash                                           any other exception: the exit reason is ``{ClassName, Text}``
================================================  =================================================================

Messages of ``sys`` (``{system, From, Request}``) go to ``handle_info`` like any other.
Source: stdlib/src/gen_server.erl; stdlib manual, gen_server(3).
"""

from __future__ import annotations

import enum
import logging
from dataclasses import dataclass
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, Literal

import trio

from ..errors import Exit
from ..runtime.atoms import EXIT, KILL, NORMAL, SHUTDOWN
from ..runtime.inline import crash_reason
from ..terms import Atom
from . import gen
from .gen import DEFAULT_TIMEOUT, GEN_CALL, GEN_CAST, From, is_from, shown_term

if TYPE_CHECKING:
    from ..runtime.node import Node
    from ..runtime.peer import Sending
    from ..runtime.process import Destination, MonitorTarget, Process
    from ..terms import Pid, Term

log = logging.getLogger("erlang_interop.server")

_BAD_CALL: Final = Atom("bad_call")
_BAD_CAST: Final = Atom("bad_cast")


class NoReply(enum.Enum):
    """The type of :data:`NO_REPLY`."""

    NO_REPLY = "no reply"


#: ``handle_call`` returns it when the answer comes later by ``reply``, or never.
NO_REPLY: Final[Literal[NoReply.NO_REPLY]] = NoReply.NO_REPLY


@dataclass(frozen=True, slots=True)
class Stop:
    """Returned by a callback to end the server with ``reason``; ``handle_call`` may answer first with ``reply``."""

    reason: Term = NORMAL
    reply: Term = NO_REPLY


class GenServer:
    """Subclass this and override callbacks; made by ``start`` alone, without arguments (``init`` takes them).

    Attributes:
        process: The process it runs as. Set ``self.process.trap_exit = True`` in ``init`` to have ``terminate`` called
            when the process that it was linked to at the start ends, or tells it to.
    """

    process: Process
    _parent: Pid | None = None

    # -- starting

    @classmethod
    async def start(cls, node: Node, *args: Any, name: Atom | str | None = None, link_to: Pid | None = None) -> Pid:
        """Start a server; it has its name, and ``init(*args)`` has returned, when this does.

        Args:
            node: Where it runs.
            args: For ``init``.
            name: Registered before ``init`` runs.
            link_to: Its parent (``start_link``): linked from the start.

        Raises:
            NameAlreadyRegistered, BadName: the name cannot be had.
            Exit: ``init`` raised it, or an exit signal ended the server before ``init`` was through.
            Exception: whatever else ``init`` raised.
        """
        start = _Start()
        pid = cls()._spawn(node, args, name, link_to, start)
        try:
            await start.done.wait()
        except BaseException:
            node.exit(pid, KILL)
            raise
        if start.failure is not None:
            raise start.failure
        return pid

    @classmethod
    def start_nowait(cls, node: Node, *args: Any, name: Atom | str | None = None, link_to: Pid | None = None) -> Pid:
        """Start a server without waiting for ``init``, whose failure is then an exit like any other: for supervisors.

        Messages that arrive before ``init`` is through wait for it. Arguments and errors as for :meth:`start`.
        """
        return cls()._spawn(node, args, name, link_to, _Start())

    def _spawn(
        self, node: Node, args: tuple[Any, ...], name: Atom | str | None, link_to: Pid | None, start: _Start
    ) -> Pid:
        self._parent = link_to
        return node.spawn(self._run, args, start, name=name, link_to=link_to)

    # -- callbacks

    def init(self, *args: Any, **kwargs: Any) -> Any:
        """Set up the state; what it returns is ignored."""

    def handle_call(self, request: Term, from_: From) -> Any:
        """Answer a call: the value returned is the answer, unless it is :data:`NO_REPLY` or a :class:`Stop`.

        This default ends the server with ``{bad_call, Request}``, and the caller with it, as a call for which a
        gen_server has no clause does: a subclass hands on what it does not know.
        """
        raise Exit((_BAD_CALL, request))

    def handle_cast(self, message: Term) -> Any:
        """Take a cast. This default ends the server with ``{bad_cast, Message}``. Returns None or a :class:`Stop`."""
        raise Exit((_BAD_CAST, message))

    def handle_info(self, message: Term) -> Any:
        """Take any other message, DOWN and trapped EXIT included. This default logs it. Returns None or a Stop."""
        log.warning("%r has no use for the message %s", self.process, shown_term(message))

    def terminate(self, reason: Term) -> Any:
        """Clean up; the process ends with ``reason`` when it returns.

        Called after a Stop, an Exit or a crash, and when the parent ends while exits are trapped; as in Erlang not
        when an exit signal ends the process.
        """

    # -- for callbacks

    @property
    def node(self) -> Node:
        """The node it runs on."""
        return self.process.node

    def reply(self, from_: From, value: Term) -> Sending:
        """Answer a call for which ``handle_call`` returned :data:`NO_REPLY`."""
        return gen.reply(self.process, from_, value)

    async def call(self, dest: MonitorTarget, request: Term, timeout: float | None = DEFAULT_TIMEOUT) -> Term:
        """Call another server as this process; see :func:`erlang_interop.otp.gen.call`."""
        return await gen.call(self.process, dest, request, timeout)

    def cast(self, dest: Destination, message: Term) -> Sending:
        """Cast as this process."""
        return gen.cast(self.process, dest, message)

    # -- the process

    async def _run(self, process: Process, args: tuple[Any, ...], start: _Start) -> None:
        self.process = process
        try:
            await self._init(args, start)
        finally:
            if not start.done.is_set():  # an exit signal, or the end of the node, came first
                start.failed(Exit(SHUTDOWN if process.alive else process.exit_reason))
        try:
            await self._serve()
        except Exception as error:
            await _finish(self.terminate(_exit_reason(error)))
            raise

    async def _init(self, args: tuple[Any, ...], start: _Start) -> None:
        if not self.process.alive:
            await trio.lowlevel.checkpoint()  # its scope is cancelled
        try:
            await _finish(self.init(*args))
        except Exception as error:
            start.failed(error)
            # Reported by ``start``; the process ends with the reason and without a second report.
            raise Exit(_exit_reason(error)) from error
        start.done.set()

    async def _serve(self) -> None:
        receive = self.process.receive
        while True:
            message = await receive()
            if type(message) is tuple and message:
                tag = message[0]
                if tag == GEN_CALL and len(message) == 3 and is_from(message[1]):
                    await self._serve_call(message[1], message[2])
                    continue
                if tag == GEN_CAST and len(message) == 2:
                    self._finished("handle_cast", await _finish(self.handle_cast(message[1])))
                    continue
                if tag == EXIT and len(message) == 3 and message[1] == self._parent:
                    raise Exit(message[2])
            self._finished("handle_info", await _finish(self.handle_info(message)))

    async def _serve_call(self, from_: From, request: Term) -> None:
        answer = await _finish(self.handle_call(request, from_))
        if type(answer) is Stop:
            if answer.reply is not NO_REPLY:
                self.reply(from_, answer.reply)
            raise Exit(answer.reason)
        if answer is not NO_REPLY:
            await self.reply(from_, answer)  # parked while the caller's node takes nothing

    def _finished(self, callback: str, outcome: Any) -> None:
        if type(outcome) is Stop:
            raise Exit(outcome.reason)
        if outcome is not None and outcome is not NO_REPLY:
            raise TypeError(
                f"{type(self).__name__}.{callback} returned {outcome!r}: nobody waits for an answer there; "
                f"return None or Stop(reason)"
            )


class _Start:
    """What ``start`` waits for."""

    __slots__ = ("done", "failure")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.failure: Exception | None = None

    def failed(self, error: Exception) -> None:
        self.failure = error
        self.done.set()


async def _finish(outcome: Any) -> Any:
    """The result of a callback, plain or async."""
    if type(outcome) is CoroutineType:
        return await outcome
    return outcome


def _exit_reason(error: Exception) -> Term:
    """The reason that an exception stands for, also from inside a nursery of the callback's own."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error.reason if isinstance(error, Exit) else crash_reason(error)
