"""Processes of this node: what they hold, and what they can do.

A :class:`LocalProcess` is a pid with names, links, monitors and aliases. There are two kinds: ``Process``
(``process.py``), whose code is a trio task with a mailbox, and ``InlineProcess`` (``inline.py``), whose handler runs
where the signal arrives.
Everything a process does to others goes through the router (``signals.py``), which knows whether they are here or on a
peer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias

from ..errors import BadName
from ..terms import Atom, Pid, Reference
from ..wire.control import Op, packer
from .atoms import DOWN, LINK, MONITOR, PROCESS, SPAWN_REPLY
from .events import NodeWatch, Subscription, check_node_type
from .mailbox import UNCHANGED
from .observer import Observer
from .signals import atom_of
from .spawning import REPLIES
from .tracing import as_token, send_exit, send_marked
from .watchers import Watchers

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from ..terms import Term
    from ..wire.unlink import Link
    from .events import NodeType
    from .node import Node
    from .peer import Sending
    from .signals import Router
    from .spawning import SpawnRequest
    from .timers import Timer
    from .tracing import Token

_group_leader: Final = packer(Op.GROUP_LEADER)

#: Where a message can go: a pid, an alias, a name here, or a name on a node.
Destination: TypeAlias = "Pid | Reference | Atom | str | tuple[Atom | str, Atom | str]"
#: What can be monitored.
MonitorTarget: TypeAlias = "Pid | Atom | str | tuple[Atom | str, Atom | str]"


class MonitorTable(Protocol):
    """What a process keeps its monitors in: a dict, or what stands in for one where they are very many."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Reference]: ...
    def __setitem__(self, ref: Reference, target: Any, /) -> None: ...

    def pop(self, ref: Reference, default: Any, /) -> Any:
        """As of a dict."""

    def items(self) -> Iterable[tuple[Reference, Any]]:
        """As of a dict."""


class LocalProcess:
    """A process of this node. Made by ``Node.spawn``, ``Node.open_process`` and ``Node.start_inline`` only.

    Attributes:
        pid: Its identifier.
        node: The node it runs on.
        trap_exit: ``process_flag(trap_exit, true)``: exit signals arrive as ``('EXIT', from_pid, reason)``.
        alive: False once it has ended; ``exit_reason`` is then the reason, and ``ended_by`` who sent the exit signal
            that has ended it; None if none did.
        group_leader: ``group_leader/0``: who does input and output for it, and for what it spawns elsewhere. To begin
            with, the node's ``user``; of a process that another one spawned, that one's.
        trace_token: What ``seq_trace:get_token/0`` shows: ``(flags, label, serial, from, prev)``, or None. It came with
            the last message received, and goes along with all that is sent; see ``set_trace_token``.
    """

    __slots__ = (
        "_router",
        "aliases",
        "alive",
        "ended_by",
        "exit_reason",
        "group_leader",
        "links",
        "monitor_options",
        "monitors",
        "names",
        "node",
        "node_watch",
        "observer",
        "pid",
        "spawns",
        "trace_clock",
        "trace_last",
        "trace_token",
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
        self.ended_by: Pid | None = None
        #: Keys alone: a name or an alias is taken back without looking at the others, however many there are.
        self.names: dict[Atom, None] = {}
        #: Linked pid -> the link as this side knows it.
        self.links: dict[Pid, Link] = {}
        #: Monitors this process holds: reference -> what is watched (a pid of this node for local names).
        self.monitors: MonitorTable = {}
        #: Monitors on this process.
        self.watchers = Watchers()
        self.aliases: dict[Reference, None] = {}
        self.group_leader: Pid | None = router.default_group_leader
        self.trace_token: Token | None = None
        #: Serials of the last message sent and of the last one received with a token.
        self.trace_clock = self.trace_last = 0
        #: Of the monitors it holds, those with another tag than DOWN, or with priority; None until there is one.
        self.monitor_options: dict[Reference, tuple[Term, bool]] | None = None
        #: Its spawn requests that are not answered yet; None until there is one.
        self.spawns: dict[Reference, SpawnRequest] | None = None
        #: What it wants to be told of nodes, if it ever asked.
        self.node_watch: NodeWatch | None = None
        #: What it watches very many processes with, if it does.
        self.observer: Observer | None = None

    def __repr__(self) -> str:
        names = "".join(f" {name.name}" for name in self.names)
        return f"<{type(self).__name__} {self.pid}{names}{'' if self.alive else ' (ended)'}>"

    # -- what the router calls

    def deliver(self, message: Term, sender: Pid | Atom | None = None) -> None:
        """Hand over a message. Synchronous.

        Args:
            message: Any term.
            sender: Who sent it, or the node where no more is known; None for what the system sends.
        """
        raise NotImplementedError

    def deliver_marked(self, message: Term, token: Any, priority: bool) -> None:
        """Hand over a message with its trace token (None, or ``mailbox.UNCHANGED``, if it has none) and priority."""
        raise NotImplementedError

    def deliver_down(self, ref: Reference, target: Term, reason: Term) -> None:
        """Hand over the DOWN of the monitor ``ref``."""
        if self.monitor_options is None:
            self.deliver((DOWN, ref, PROCESS, target, reason))
        else:
            tag, priority = self.monitor_options.pop(ref, (DOWN, False))
            self.deliver_marked((tag, ref, PROCESS, target, reason), UNCHANGED, priority)

    def set_monitor_options(self, ref: Reference, tag: Term, priority: bool) -> None:
        """The monitor ``ref`` has a tag of its own, or fires with priority."""
        if priority or tag != DOWN:
            if self.monitor_options is None:
                self.monitor_options = {}
            self.monitor_options[ref] = (tag, priority)

    def ended(self, reason: Term) -> None:
        """The process is no more; all its links, monitors and names are dealt with. Synchronous."""
        raise NotImplementedError

    def discard_message(self, match: Callable[[Term], bool]) -> bool:
        """Remove the oldest matching message that was not yet received; whether there was one."""
        return False

    def discard_messages(self, match: Callable[[Term], bool]) -> int:
        """Remove matching messages that were not yet received, where there is such a place; how many there were."""
        return 0

    # -- what its code calls

    def send(self, dest: Destination, message: Term, *, priority: bool = False) -> Sending:
        """Send ``message``: it is under way when this returns, in order behind all that this process sent before.

        Like Erlang's ``!`` it does not fail when nobody is there. A node that is not connected is dialled; when that
        fails the message is lost, as on a BEAM.

        Args:
            priority: A priority message: received through a priority alias (``alias(priority=True)``) it goes before
                all ordinary messages. Any other destination takes it as an ordinary one, and so does a node before
                OTP 28.

        Returns:
            An awaitable. Nothing needs to be awaited for the message to leave; ``await`` it to be parked while the
            peer's connection holds more than the busy limit (a BEAM suspends the sender there).

        Raises:
            EncodeError: the message has a part that no external term can carry.
        """
        if self.trace_token is not None or priority:
            return send_marked(self._router, self, self._where(dest), message, priority)
        return self._router.send(self.pid, dest, message)

    def send_local(self, messages: deque[tuple[Pid, Term]]) -> None:
        """Send messages to processes of this node, in order; what is sent is taken out.

        It is what :meth:`send` does, for one who has thousands to send at once.
        """
        if self.trace_token is not None:
            while messages:
                self.send(*messages.popleft())
            return
        processes, sender = self._router.processes, self.pid
        while messages:
            dest, message = messages.popleft()
            process = processes.get(dest)
            if process is not None:
                process.deliver(message, sender)

    def _where(self, dest: Destination) -> Pid | Reference | tuple[Atom, Atom]:
        """``dest`` with the node of a name, as an atom."""
        if type(dest) is Pid or type(dest) is Reference:
            return dest
        if type(dest) is tuple and len(dest) == 2:
            return atom_of(dest[0]), atom_of(dest[1])
        if type(dest) is str or type(dest) is Atom:
            return atom_of(dest), self._router.name
        raise BadName(f"cannot send to {dest!r}: a Pid, a Reference (alias), a name or (name, node) is needed")

    def link(self, pid: Pid, *, priority: bool = False) -> None:
        """``link/1,2``. A pid that does not exist gives the exit signal ``noproc``.

        Args:
            priority: The ``('EXIT', pid, reason)`` of this link goes before all ordinary messages. A ``link`` without
                it to a process that is linked already takes that back.
        """
        self._router.link(self, pid, priority=priority)

    def unlink(self, pid: Pid) -> None:
        """``unlink/1``: no exit signal from ``pid`` arrives through this link afterwards."""
        self._router.unlink(self, pid)

    def monitor(
        self, target: MonitorTarget, *, alias: str | None = None, tag: Term = DOWN, priority: bool = False
    ) -> Reference:
        """``monitor(process, target)``: one ``('DOWN', ref, 'process', object, reason)`` when ``target`` ends.

        Args:
            target: A pid, a name of this node, or ``(name, node)``. The object is the pid, or ``(name, node)``.
            alias: ``"demonitor"`` or ``"reply_demonitor"`` (or ``"explicit_unalias"``): the reference is also an
                alias of this process, as with the option ``{alias, Mode}``.
            tag: What stands in the place of ``DOWN``, as with the option ``{tag, Tag}``.
            priority: The DOWN goes before all ordinary messages, as with the option ``priority``.
        """
        return self._router.monitor(self, target, alias, tag, priority)

    def demonitor(self, ref: Reference, *, flush: bool = False, info: bool = False) -> bool:
        """``demonitor/2``: no DOWN for ``ref`` is delivered any more; ``flush`` removes one that already was.

        Args:
            flush: Remove the message of the monitor, whatever its tag, from the mailbox.
            info: Let the result tell, with ``flush``, that there was no message to remove. (Without ``flush`` the
                result is what the option ``info`` says in any case.)

        Returns:
            True if the monitor was active. With both options: True if its message neither was nor will be delivered.
        """
        active = self._router.demonitor(self, ref)
        flushed = False
        if flush and not active:
            flushed = self.discard_message(
                lambda message: type(message) is tuple and len(message) == 5 and message[1] == ref
            )
        return not flushed if flush and info else active

    def observe(self, notify: Callable[[], object]) -> Observer:
        """Have an observer, which watches very many processes of this node with less than a monitor for each.

        Args:
            notify: Called when the observer has a death to tell and had none before.

        Raises:
            RuntimeError: it has one.
        """
        if self.observer is not None:
            raise RuntimeError(f"{self!r} has an observer already: take that one")
        self.observer = Observer(self.pid, self._router.processes, notify)
        return self.observer

    def exit(self, pid: Pid | Reference, reason: Term, *, priority: bool = False) -> None:
        """``exit/2,3``: send the exit signal ``reason`` to ``pid`` (``Atom("kill")`` cannot be trapped).

        Args:
            pid: A process, or an alias of one; that needs OTP 28 there, and is dropped by an older node.
            priority: A process that traps exits receives it before all ordinary messages, if ``pid`` is a priority
                alias of it.
        """
        if self.trace_token is not None or priority or type(pid) is Reference:
            send_exit(self._router, self, pid, reason, priority)
        else:
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

    def alias(self, *, reply: bool = False, priority: bool = False) -> Reference:
        """``alias/1``: a reference that can be sent to.

        Args:
            reply: It ends with the first message.
            priority: What is sent to it as a priority message or exit signal goes before all ordinary messages.
        """
        return self._router.aliases.add(self, "reply" if reply else "explicit_unalias", priority=priority)

    def unalias(self, ref: Reference) -> bool:
        """``unalias/1``: True if the alias was active."""
        return self._router.aliases.remove(self, ref)

    def set_group_leader(self, leader: Pid, pid: Pid) -> None:
        """``group_leader(leader, pid)``: ``leader`` does input and output for ``pid``, here or elsewhere."""
        if pid.node != self._router.name:
            self._router.peer(pid.node).emit(_group_leader(leader, pid))
        elif pid in self._router.processes:
            self._router.processes[pid].group_leader = leader

    def set_trace_token(self, token: Token | None) -> None:
        """``seq_trace:set_token/1``: trace what is sent from now on, and what comes of it; None ends that here.

        Args:
            token: ``(flags, label, serial, from, prev)``. The flags add up 1 ``send``, 2 ``receive``, 4 ``print`` and
                8, 16, 32 for timestamps; on a BEAM they say what its system tracer is told.
        """
        self.trace_token = None
        if token is not None:
            if as_token(token) is None:
                raise ValueError(f"{token!r} is no trace token: (flags, label, serial, from, prev) is needed")
            self.trace_token = token
            self.trace_clock, self.trace_last = token[2], token[4]

    def spawn_request(
        self,
        node: Atom | str,
        module: Atom | str,
        function: Atom | str,
        args: Sequence[Term],
        *,
        link: bool = False,
        monitor: bool = False,
        reply: bool | Literal["yes", "no", "error_only", "success_only"] = True,
        reply_tag: Term = SPAWN_REPLY,
        options: Sequence[Term] = (),
    ) -> Reference:
        """``erlang:spawn_request/5``: have ``apply(module, function, args)`` run as a new process of ``node``.

        The answer is a message, ``(reply_tag, ref, 'ok', pid)`` or ``(reply_tag, ref, 'error', reason)``: ``notsup`` of
        a node that starts no processes by request, ``noconnection``, ``badopt``, ``system_limit``. With ``link`` or
        ``monitor`` it comes before any exit signal or DOWN of the new process; ``ref`` is also the monitor's.

        Args:
            reply: Which answers there are to be.
            reply_tag: First element of the answer.
            options: Further options, as ``(Atom("priority"), Atom("low"))``; ``{monitor, MonitorOpts}`` among them.

        Raises:
            BadName: a name is neither str nor Atom.
            EncodeError: an argument has a part that no external term can carry.
            ValueError: ``reply`` is none of these.
        """
        replies = REPLIES.get(reply)
        if replies is None:
            raise ValueError(f"reply is True, 'yes', 'no', 'error_only' or 'success_only', not {reply!r}")
        asked = [*options, *[LINK] * link, *[MONITOR] * monitor]
        names = (atom_of(node), atom_of(module), atom_of(function))
        return self._router.spawning.request(self, *names, list(args), asked, replies, reply_tag)

    def spawn_request_abandon(self, ref: Reference) -> bool:
        """``erlang:spawn_request_abandon/1``: have nothing to do with what comes of the request ``ref``.

        A process may be started nevertheless; if it was to be linked it then gets the exit signal ``abandoned``.

        Returns:
            True if the request was this process's and not answered yet.
        """
        return self._router.spawning.abandon(self, ref)

    def make_ref(self) -> Reference:
        """``make_ref/0``."""
        router = self._router
        return router.identifiers.reference(router.name, router.creation)
