"""nodeup and nodedown: what ``net_kernel:monitor_nodes/2`` and ``erlang:monitor_node/2`` tell.

There are three ways to hear of them. A callback (``watch``) and an async iterator (``subscribe``) get
:class:`NodeUp` and :class:`NodeDown`; a process gets messages, of exactly the forms that a BEAM sends.

The order is the one that the manual promises. A nodeup comes when ``nodes()`` has the node, and before the first signal
of its connection; a nodedown comes when ``nodes()`` has it no more, after the last signal, and after the exits and
DOWNs that the loss causes; the nodedown of one connection comes before the nodeup of the next.

Source: kernel manual, net_kernel(3), ``monitor_nodes/1,2``; ERTS manual, ``monitor_node/2``; erts/emulator/beam/dist.c
(``erts_monitor_nodes``, ``send_nodes_mon_msgs``, ``monitor_node``).
"""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

import trio

from ..terms import Atom
from .peer import PeerState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ..terms import Pid, Term
    from .peer import Peer
    from .process import LocalProcess
    from .signals import Router

NodeKind: TypeAlias = Literal["visible", "hidden"]
NodeType: TypeAlias = Literal["visible", "hidden", "all"]

_CONNECTION_ID: Final = Atom("connection_id")
_NODE_TYPE: Final = Atom("node_type")
_NODEDOWN: Final = Atom("nodedown")
_NODEDOWN_REASON: Final = Atom("nodedown_reason")
_NODEUP: Final = Atom("nodeup")


@dataclass(frozen=True, slots=True)
class NodeUp:
    """A connection came up."""

    name: Atom
    type: NodeKind
    connection_id: int = field(default=0, compare=False)
    """The connection's number, as in ``node.connections``; two events are equal whatever theirs are."""


@dataclass(frozen=True, slots=True)
class NodeDown:
    """A connection was lost."""

    name: Atom
    type: NodeKind
    reason: Term
    """net_kernel's words: ``connection_closed``, ``disconnect``, ``net_tick_timeout``, ``net_kernel_terminated``, or
    ``killed`` when what the node said was no valid signal."""
    connection_id: int = field(default=0, compare=False)
    """The number that its :class:`NodeUp` had."""


NodeEvent: TypeAlias = NodeUp | NodeDown


class Subscription(NamedTuple):
    """The options of one ``monitor_nodes``; two with the same options are one subscription that counts twice."""

    node_type: NodeType | None = None
    nodedown_reason: bool = False
    connection_id: bool = False
    info: Literal["list", "map"] = "list"

    def message(self, event: NodeEvent) -> Term | None:
        """What a process with this subscription is sent; None if it is not meant for it."""
        if event.type == "hidden" and self.node_type not in ("hidden", "all"):
            return None
        if event.type == "visible" and self.node_type == "hidden":
            return None
        what = _NODEUP if type(event) is NodeUp else _NODEDOWN
        if self == _PLAIN:
            return what, event.name
        # In the order in which a BEAM lists them.
        info: list[tuple[Atom, Term]] = []
        if self.connection_id:
            info.append((_CONNECTION_ID, event.connection_id))
        if self.nodedown_reason and type(event) is NodeDown:
            info.append((_NODEDOWN_REASON, event.reason))
        if self.node_type is not None:
            info.append((_NODE_TYPE, Atom(event.type)))
        return what, event.name, dict(info) if self.info == "map" else info


_PLAIN: Final = Subscription()


class NodeWatch:
    """What one process has asked to be told of nodes. A process that never asked has none."""

    __slots__ = ("_process", "_router", "peers", "subscriptions")

    def __init__(self, process: LocalProcess, router: Router) -> None:
        self._process = process
        self._router = router
        #: Options of ``monitor_nodes`` -> how often it was called with them.
        self.subscriptions: dict[Subscription, int] = {}
        #: Connections with an unanswered ``monitor_node`` of this process, oldest first; how many, the peer knows.
        self.peers: dict[Peer, None] = {}

    def monitor_nodes(self, on: bool, subscription: Subscription) -> None:
        """``net_kernel:monitor_nodes/2``: subscribe once more, or end all subscriptions with these options."""
        if not self._process.alive:
            return  # its entry would stay for ever
        if on:
            self.subscriptions[subscription] = self.subscriptions.get(subscription, 0) + 1
            self._router.events.watches[self._process.pid] = self
        else:
            self.subscriptions.pop(subscription, None)
            if not self.subscriptions:
                self._router.events.watches.pop(self._process.pid, None)

    def monitor_node(self, name: Atom, on: bool) -> None:
        """``erlang:monitor_node/2``: one nodedown more, or less, when the connection or the attempt at one ends."""
        if not on:
            self._demonitor_node(name)
        elif name != self._router.name and self._process.alive:
            peer = self._router.peer(name)
            if peer.state is PeerState.DOWN:  # this node stops: there is not even an attempt
                self._process.deliver((_NODEDOWN, name))
                return
            pid = self._process.pid
            peer.node_monitors[pid] = peer.node_monitors.get(pid, 0) + 1
            self.peers[peer] = None

    def _demonitor_node(self, name: Atom) -> None:
        """The youngest connection's first: of an older one the nodedown is under way already."""
        pid = self._process.pid
        for peer in reversed(self.peers):
            if peer.name == name:
                peer.node_monitors[pid] -= 1
                if not peer.node_monitors[pid]:
                    del peer.node_monitors[pid]
                    del self.peers[peer]
                return

    def tell(self, event: NodeEvent) -> None:
        """Deliver one event, as often as was asked for."""
        for subscription, count in list(self.subscriptions.items()):
            message = subscription.message(event)
            if message is not None:
                self._deliver(message, count)

    def _deliver(self, message: Term, count: int) -> None:
        process = self._process
        for _ in range(count):
            if process.alive:  # an inline server may end at the first
                process.deliver(message)

    def lost(self, peer: Peer, count: int) -> None:
        """A connection with ``count`` node monitors of this process ended."""
        del self.peers[peer]
        self._deliver((_NODEDOWN, peer.name), count)

    def ended(self) -> None:
        """The process ended: nothing of it stays in any table."""
        pid = self._process.pid
        self._router.events.watches.pop(pid, None)
        for peer in self.peers:
            del peer.node_monitors[pid]
        self.peers.clear()
        self.subscriptions.clear()


class NodeEvents:
    """The subscribers of one node."""

    def __init__(self) -> None:
        self._callbacks: dict[object, Callable[[NodeEvent], None]] = {}
        #: Processes with subscriptions, in the order in which they made their first.
        self.watches: dict[Pid, NodeWatch] = {}

    def watch(self, callback: Callable[[NodeEvent], None]) -> Callable[[], None]:
        """Call ``callback(event)`` synchronously at each event; the result ends that."""
        key = object()
        self._callbacks[key] = callback

        def unwatch() -> None:
            self._callbacks.pop(key, None)

        return unwatch

    def fire(self, event: NodeEvent) -> None:
        """Tell everybody."""
        for callback in list(self._callbacks.values()):
            callback(event)
        for watch in list(self.watches.values()):
            watch.tell(event)

    @property
    def subscriptions(self) -> int:
        """How many subscriptions processes hold."""
        return sum(sum(watch.subscriptions.values()) for watch in self.watches.values())

    @asynccontextmanager
    async def subscribe(self, node_type: NodeType = "all") -> AsyncIterator[AsyncIterator[NodeEvent]]:
        """The events from now on, as an async iterator; none is lost while the block runs slowly."""
        check_node_type(node_type)
        send, receive = trio.open_memory_channel[NodeEvent](math.inf)

        def put(event: NodeEvent) -> None:
            if node_type in ("all", event.type):
                send.send_nowait(event)

        unwatch = self.watch(put)
        try:
            async with receive:
                yield receive
        finally:
            unwatch()


def check_node_type(node_type: object) -> None:
    """Raise ValueError for anything but ``visible``, ``hidden`` and ``all``."""
    if node_type not in ("visible", "hidden", "all"):
        raise ValueError(f"node_type is 'visible', 'hidden' or 'all', not {node_type!r}")
