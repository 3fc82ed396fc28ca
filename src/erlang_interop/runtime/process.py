"""Processes whose code is a task, with a mailbox. What all processes can do is in ``local_process.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

import trio

from ..errors import SpawnError
from .atoms import DOWN, OK, PROCESS
from .local_process import Destination, LocalProcess, MonitorTarget
from .mailbox import UNCHANGED, Mailbox, Marked
from .signals import atom_of
from .tracing import received

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..terms import Atom, Pid, Reference, Term
    from .node import Node
    from .signals import Router
    from .tracing import Token

__all__ = ["Destination", "LocalProcess", "MonitorTarget", "Process"]


class Process(LocalProcess):
    """A process whose code is a task: ``await receive()`` takes messages from its mailbox."""

    __slots__ = ("mailbox", "scope")

    def __init__(self, node: Node, router: Router, pid: Pid) -> None:
        super().__init__(node, router, pid)
        self.mailbox = Mailbox(self._received)
        #: Cancelled when an exit signal ends the process.
        self.scope = trio.CancelScope()

    def deliver(self, message: Term, sender: Pid | Atom | None = None) -> None:
        """Put it into the mailbox; nobody asks there who sent it."""
        self.mailbox.put(message)

    def deliver_marked(self, message: Term, token: Any, priority: bool) -> None:
        """Put it into the mailbox, with what came with it."""
        self.mailbox.put_marked(Marked(message, token, priority))

    def deliver_down(self, ref: Reference, target: Term, reason: Term) -> None:
        """Put it into the mailbox. It is the system's message: the trace token stays what it is."""
        if self.monitor_options is None and not self.mailbox.marked:
            self.mailbox.put((DOWN, ref, PROCESS, target, reason))
        else:
            tag, priority = (self.monitor_options or {}).pop(ref, (DOWN, False))
            self.mailbox.put_marked(Marked((tag, ref, PROCESS, target, reason), UNCHANGED, priority))

    def set_trace_token(self, token: Token | None) -> None:
        """See LocalProcess."""
        super().set_trace_token(token)
        if token is not None:
            self.mailbox.marked = True

    def _received(self, token: Any) -> bool:
        """A message was taken: the token that came with it is the process's now. Whether it has one."""
        if token is None:
            self.trace_token = None
        elif token is not UNCHANGED:
            received(self, token)
        return self.trace_token is not None

    def ended(self, reason: Term) -> None:
        """Stop the task."""
        self.scope.cancel()

    def discard_message(self, match: Callable[[Term], bool]) -> bool:
        """Take the oldest matching message out of the mailbox."""
        return self.mailbox.discard_first(match)

    def discard_messages(self, match: Callable[[Term], bool]) -> int:
        """Take matching messages out of the mailbox."""
        return self.mailbox.discard(match)

    async def receive(self, match: Callable[[Term], bool] | None = None, *, timeout: float | None = None) -> Term:
        """Take the oldest message, or the oldest for which ``match(message)`` is true; the others stay in order.

        Args:
            match: Called with one message; must not keep or change it.
            timeout: Seconds to wait (Erlang's ``after``); None waits for ever, 0 only looks.

        Raises:
            TimeoutError: none came in time.
        """
        if match is None and self.mailbox.may_take():
            return self.mailbox.get_nowait()
        if timeout is None:
            return await self.mailbox.get(match)
        with trio.move_on_after(timeout):
            return await self.mailbox.get(match)
        raise TimeoutError(f"no message{' that matches' if match else ''} for {self.pid} in {timeout} s")

    def receive_nowait(self) -> Term:
        """The oldest message. Raises ``trio.WouldBlock`` when there is none."""
        return self.mailbox.get_nowait()

    @overload
    async def spawn_remote(
        self,
        node: Atom | str,
        module: Atom | str,
        function: Atom | str,
        args: Sequence[Term],
        *,
        link: bool = ...,
        monitor: Literal[False] = ...,
        options: Sequence[Term] = ...,
    ) -> Pid: ...

    @overload
    async def spawn_remote(
        self,
        node: Atom | str,
        module: Atom | str,
        function: Atom | str,
        args: Sequence[Term],
        *,
        link: bool = ...,
        monitor: Literal[True],
        options: Sequence[Term] = ...,
    ) -> tuple[Pid, Reference]: ...

    async def spawn_remote(
        self,
        node: Atom | str,
        module: Atom | str,
        function: Atom | str,
        args: Sequence[Term],
        *,
        link: bool = False,
        monitor: bool = False,
        options: Sequence[Term] = (),
    ) -> Pid | tuple[Pid, Reference]:
        """``spawn(Node, Module, Function, Args)``, ``spawn_link/4``, ``spawn_monitor/4``: wait until it is started.

        If the waiting is cancelled the request is abandoned (see ``spawn_request_abandon``).

        Returns:
            The process; with ``monitor``, also the monitor's reference.

        Raises:
            SpawnError: there is no process; ``.reason`` says why, as the error answer of ``spawn_request``.
        """
        tag = self.make_ref()  # so that this answer is mistaken for no other, and found by nobody else
        waiting = self.mailbox.set_aside()  # the answer is not among these
        try:
            ref = self.spawn_request(
                node, module, function, args, link=link, monitor=monitor, reply_tag=tag, options=options
            )
            try:
                answer: Any = await self.receive(lambda message: type(message) is tuple and message[:2] == (tag, ref))
            except BaseException:
                self.spawn_request_abandon(ref)
                self.discard_messages(lambda message: type(message) is tuple and message[:2] == (tag, ref))
                raise
        finally:
            self.mailbox.put_back(waiting)
        if answer[2] != OK:
            raise SpawnError(atom_of(node).name, f"{atom_of(module).name}:{atom_of(function).name}", answer[3])
        return (answer[3], ref) if monitor else answer[3]
