"""Processes of this node: what they hold, what they can do, and the mailbox kind of them.

A :class:`LocalProcess` is a pid with names, links, monitors and aliases. There are two kinds: :class:`Process`, whose
code is a trio task with a mailbox, and ``InlineProcess`` (``inline.py``), whose handler runs where the signal arrives.
Everything a process does to others goes through the router (``signals.py``), which knows whether they are here or on a
peer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import trio

from .atoms import DOWN
from .events import NodeWatch, Subscription, check_node_type
from .mailbox import Mailbox
from .signals import atom_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..terms import Atom, Pid, Reference, Term
    from ..wire.unlink import Link
    from .events import NodeType
    from .node import Node
    from .peer import Sending
    from .signals import Router
    from .timers import Timer

#: Where a message can go: a pid, an alias, a name here, or a name on a node.
Destination: TypeAlias = "Pid | Reference | Atom | str | tuple[Atom | str, Atom | str]"
#: What can be monitored.
MonitorTarget: TypeAlias = "Pid | Atom | str | tuple[Atom | str, Atom | str]"


class LocalProcess:
    """A process of this node. Made by ``Node.spawn``, ``Node.open_process`` and ``Node.start_inline`` only.

    Attributes:
        pid: Its identifier.
        node: The node it runs on.
        trap_exit: ``process_flag(trap_exit, true)``: exit signals arrive as ``('EXIT', from_pid, reason)``.
        alive: False once it has ended; ``exit_reason`` is then the reason.
    """

    __slots__ = (
        "_router",
        "aliases",
        "alive",
        "exit_reason",
        "links",
        "monitors",
        "names",
        "node",
        "node_watch",
        "pid",
        "trap_exit",
        "watchers",
    )

    def __init__(self, node: Node, router: Router, pid: Pid) -> None:
        self.node = node
        self._router = router
        self.pid = pid
        self.trap_exit = False
        self.alive = True
        self.exit_reason: Term = None
        self.names: list[Atom] = []
        #: Linked pid -> the link as this side knows it.
        self.links: dict[Pid, Link] = {}
        #: Monitors this process holds: reference -> what is watched (a pid of this node for local names).
        self.monitors: dict[Reference, Any] = {}
        #: Monitors on this process: reference -> (the watcher, what its DOWN names).
        self.watchers: dict[Reference, tuple[Pid, Term]] = {}
        self.aliases: list[Reference] = []
        #: What it wants to be told of nodes, if it ever asked.
        self.node_watch: NodeWatch | None = None

    def __repr__(self) -> str:
        names = "".join(f" {name.name}" for name in self.names)
        return f"<{type(self).__name__} {self.pid}{names}{'' if self.alive else ' (ended)'}>"

    # -- what the router calls

    def deliver(self, message: Term) -> None:
        """Hand over a message. Synchronous."""
        raise NotImplementedError

    def ended(self, reason: Term) -> None:
        """The process is no more; all its links, monitors and names are dealt with. Synchronous."""
        raise NotImplementedError

    def discard_messages(self, match: Callable[[Term], bool]) -> None:
        """Remove matching messages that were not yet received, where there is such a place."""

    # -- what its code calls

    def send(self, dest: Destination, message: Term) -> Sending:
        """Send ``message``: it is under way when this returns, in order behind all that this process sent before.

        Like Erlang's ``!`` it does not fail when nobody is there. A node that is not connected is dialled; when that
        fails the message is lost, as on a BEAM.

        Returns:
            An awaitable. Nothing needs to be awaited for the message to leave; ``await`` it to be parked while the
            peer's connection holds more than the busy limit (a BEAM suspends the sender there).

        Raises:
            EncodeError: the message has a part that no external term can carry.
        """
        return self._router.send(self.pid, dest, message)

    def link(self, pid: Pid) -> None:
        """``link/1``. A pid that does not exist gives the exit signal ``noproc``."""
        self._router.link(self, pid)

    def unlink(self, pid: Pid) -> None:
        """``unlink/1``: no exit signal from ``pid`` arrives through this link afterwards."""
        self._router.unlink(self, pid)

    def monitor(self, target: MonitorTarget, *, alias: str | None = None) -> Reference:
        """``monitor(process, target)``: one ``('DOWN', ref, 'process', object, reason)`` when ``target`` ends.

        Args:
            target: A pid, a name of this node, or ``(name, node)``. The object is the pid, or ``(name, node)``.
            alias: ``"demonitor"`` or ``"reply_demonitor"`` (or ``"explicit_unalias"``): the reference is also an
                alias of this process, as with the option ``{alias, Mode}``.
        """
        return self._router.monitor(self, target, alias)

    def demonitor(self, ref: Reference, *, flush: bool = False) -> bool:
        """``demonitor/2``: no DOWN for ``ref`` is delivered any more; ``flush`` removes one that already was.

        Returns:
            True if the monitor was active.
        """
        active = self._router.demonitor(self, ref)
        if flush and not active:
            self.discard_messages(
                lambda message: (
                    type(message) is tuple and len(message) == 5 and message[0] == DOWN and message[1] == ref
                )
            )
        return active

    def exit(self, pid: Pid, reason: Term) -> None:
        """``exit/2``: send the exit signal ``reason`` to ``pid`` (``Atom("kill")`` cannot be trapped)."""
        self._router.exit(self.pid, pid, reason)

    def monitor_nodes(
        self,
        on: bool = True,
        *,
        node_type: NodeType | None = None,
        nodedown_reason: bool = False,
        connection_id: bool = False,
        info: Literal["list", "map"] = "list",
    ) -> None:
        """``net_kernel:monitor_nodes/2``: be told of each node that connects, and of each that is lost.

        Without options the messages are ``('nodeup', node)`` and ``('nodedown', node)``, with any of them
        ``('nodeup', node, info)`` and ``('nodedown', node, info)``. A nodeup comes before the first signal from its
        node, a nodedown after the last.

        Args:
            on: True adds a subscription: who subscribes twice is told twice. False ends all with the same options.
            node_type: ``"visible"``, ``"hidden"`` or ``"all"`` nodes; the info has ``node_type``. None: visible ones.
            nodedown_reason: The info of a nodedown has the reason, as in :class:`NodeDown`.
            connection_id: The info has ``connection_id``, the same number in nodeup and nodedown, and in
                ``node.connections``.
            info: ``"list"``: the info is a list of pairs, as for options given as a list; ``"map"``: a dict, as for
                options given as a map, and without any options an empty one.

        Raises:
            ValueError: an option is none of these.
        """
        if node_type is not None:
            check_node_type(node_type)
        if info not in ("list", "map"):
            raise ValueError(f"info is 'list' or 'map', not {info!r}")
        subscription = Subscription(node_type, nodedown_reason, connection_id, info)
        self._watch().monitor_nodes(on, subscription)

    def monitor_node(self, name: Atom | str, on: bool = True) -> None:
        """``erlang:monitor_node/2``: ``('nodedown', node)`` when ``name`` is lost, once for each call.

        A node that is not connected is dialled; if that fails, the nodedown comes then. For this node itself nothing
        happens. There is no order between this message and the DOWNs and exits from the node: where that matters, take
        ``monitor_nodes``.

        Args:
            name: A node.
            on: False takes back one earlier call, if its message has not come yet.

        Raises:
            BadName: ``name`` is neither str nor Atom.
        """
        self._watch().monitor_node(atom_of(name), on)

    def _watch(self) -> NodeWatch:
        if self.node_watch is None:
            self.node_watch = NodeWatch(self, self._router)
        return self.node_watch

    def send_after(self, delay: float, dest: Destination, message: Term) -> Timer:
        """``erlang:send_after/3`` with ``delay`` in seconds. ``.cancel()`` on the result takes it back."""
        return self.node.call_later(delay, lambda: self._router.send(self.pid, dest, message))

    def register(self, name: Atom | str) -> None:
        """Register this process under ``name`` on its node.

        Raises:
            NameAlreadyRegistered: another process has the name.
            BadName: ``undefined``, the empty name, or no atom at all.
        """
        self._router.register(name, self.pid)

    def unregister(self, name: Atom | str) -> None:
        """Give the name back. Raises ``BadName`` if it is not registered."""
        self._router.unregister(name)

    def alias(self, *, reply: bool = False) -> Reference:
        """``alias/1``: a reference that can be sent to. ``reply``: it ends with the first message."""
        return self._router.alias(self, "reply" if reply else "explicit_unalias")

    def unalias(self, ref: Reference) -> bool:
        """``unalias/1``: True if the alias was active."""
        return self._router.unalias(self, ref)

    def make_ref(self) -> Reference:
        """``make_ref/0``."""
        return self._router.make_ref()


class Process(LocalProcess):
    """A process whose code is a task: ``await receive()`` takes messages from its mailbox."""

    __slots__ = ("mailbox", "scope")

    def __init__(self, node: Node, router: Router, pid: Pid) -> None:
        super().__init__(node, router, pid)
        self.mailbox = Mailbox()
        #: Cancelled when an exit signal ends the process.
        self.scope = trio.CancelScope()

    def deliver(self, message: Term) -> None:
        """Put it into the mailbox."""
        self.mailbox.put(message)

    def ended(self, reason: Term) -> None:
        """Stop the task."""
        self.scope.cancel()

    def discard_messages(self, match: Callable[[Term], bool]) -> None:
        """Take matching messages out of the mailbox."""
        self.mailbox.discard(match)

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
