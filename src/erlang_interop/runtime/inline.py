"""Inline servers: processes whose handler runs right where the signal arrives, synchronously.

System services (``net_kernel``, ZenMonitor's servers) are of this kind: a hop costs a method call instead of a task
switch. A handler runs to completion and is never re-entered: what it sends to an inline server of the same node runs
after it has returned, in the order it was sent.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import Exit
from ..terms import Atom, Pid
from .mailbox import UNCHANGED
from .process import LocalProcess
from .tracing import received

if TYPE_CHECKING:
    from ..terms import Term
    from .node import Node
    from .signals import Router
    from .tracing import Token

log = logging.getLogger("erlang_interop.process")


class InlineServer:
    """Subclass this, override the three hooks, and give it to ``Node.start_inline``.

    Attributes:
        process: The process it runs as: ``self.process.send(...)``, ``.monitor(...)``, ``.send_after(...)``.
    """

    process: InlineProcess

    @property
    def sender(self) -> Pid | Atom | None:
        """Who sent the message that is being handled; only to be asked in :meth:`handle_message`.

        A process; the node, where a peer says no more (``SEND``, as from nodes before OTP 21); or None for what no
        process has sent, a DOWN or a nodeup. Which of its processes it was, a peer can say as it likes.
        """
        return self.process.sender

    @property
    def node(self) -> Node:
        """The node it runs on."""
        return self.process.node

    def started(self) -> None:
        """The process exists and has its name; no message has arrived yet. An exception here is start_inline's."""

    def handle_message(self, message: Term) -> None:
        """One message, DOWN and trapped EXIT included. ``raise Exit(reason)`` ends the process with that reason."""
        raise NotImplementedError

    def terminated(self, reason: Term) -> None:
        """The process has ended: names, links and monitors are gone already."""


class InlineProcess(LocalProcess):
    """The process an :class:`InlineServer` runs as."""

    __slots__ = ("sender", "server")

    def __init__(self, node: Node, router: Router, pid: Pid, server: InlineServer) -> None:
        super().__init__(node, router, pid)
        self.server = server
        self.sender: Pid | Atom | None = None

    def deliver(self, message: Term, sender: Pid | Atom | None = None) -> None:
        """Run the handler now, or behind the one that is running."""
        router = self._router
        if router.running:
            router.ready.append((self, message, sender))
            return
        # `handle` in the same frame: every message of every inline server passes here.
        router.running = True
        try:
            self.sender = sender
            try:
                self.server.handle_message(message)
            except Exception as error:
                self._failed(error)
            if router.ready:
                router.run_ready()
        finally:
            router.running = False

    def deliver_marked(self, message: Term, token: Any, priority: bool) -> None:
        """Run the handler; what it sends carries the trace token on.

        Priority makes no difference: there is no queue of messages that wait to be received.
        """
        if token is None or token is UNCHANGED:
            self.deliver(message)
        elif self._router.running:
            self._router.ready.append((_Traced(self, token), message, None))
        else:
            self._router.running = True
            try:
                self.handle_traced(message, token)
                self._router.run_ready()
            finally:
                self._router.running = False

    def handle_traced(self, message: Term, token: Token) -> None:
        """Run the handler with a trace token."""
        received(self, token)
        try:
            self.handle(message, token[3] if type(token[3]) is Pid else None)
        finally:
            self.trace_token = None

    def handle(self, message: Term, sender: Pid | Atom | None) -> None:
        """Run the handler."""
        self.sender = sender
        try:
            self.server.handle_message(message)
        except Exception as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        """The one place where an exception of the handler becomes an exit reason."""
        if isinstance(error, Exit):
            self._router.terminate(self, error.reason)
        else:
            log.error("%r crashed on a message; it ends", self, exc_info=error)
            self._router.terminate(self, crash_reason(error))

    def ended(self, reason: Term) -> None:
        """Tell the server."""
        try:
            self.server.terminated(reason)
        except Exception:
            log.exception("%r raised in terminated()", self)


class Turn(Protocol):
    """What waits in the router's queue of inline servers that have a message."""

    @property
    def alive(self) -> bool:
        """Whether there is anybody to handle it."""

    def handle(self, message: Term, sender: Pid | Atom | None) -> None:
        """Handle it."""


class _Traced:
    """An inline process in the queue of those that have a message, which came with a trace token."""

    __slots__ = ("_process", "_token")

    def __init__(self, process: InlineProcess, token: Token) -> None:
        self._process = process
        self._token = token

    @property
    def alive(self) -> bool:
        return self._process.alive

    def handle(self, message: Term, sender: Pid | Atom | None) -> None:
        self._process.handle_traced(message, self._token)


def crash_reason(error: BaseException) -> Term:
    """``{ClassName, Text}``: how a Python exception looks as an exit reason."""
    return (Atom(type(error).__name__), str(error))
