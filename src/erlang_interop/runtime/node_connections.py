"""The half of a node that is about other nodes: connect, allow, cookies, ticks, nodeup and nodedown.

``node.py`` has the other half, and is where the attributes come from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from .signals import atom_of
from .ticking import DEFAULT_TRANSITION

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from contextlib import AbstractAsyncContextManager

    from ..errors import ConnectError
    from ..flags import DFlag
    from ..terms import Atom
    from .access import AllowList, Cookies
    from .addresses import AddressLike
    from .distribution import ConnectionInfo, Distribution
    from .events import NodeEvent
    from .handshakes import StatusCount
    from .signals import Router
    from .ticking import OngoingChange, SetNetTicktime


class NodeConnections:
    """What a node does with other nodes. Not to be made by itself: it is part of :class:`Node`."""

    name: Atom
    _distribution: Distribution
    _router: Router
    _cookies: Cookies
    _allowed: AllowList

    async def connect(self, peer: Atom | str, *, address: AddressLike | None = None) -> None:
        """Return when ``peer`` is connected; at once if it is. Many callers share one attempt.

        Args:
            peer: Its name.
            address: Where it listens: ``"host:port"``, ``"[::1]:port"`` or ``("host", port)``; no EPMD is asked. Once
                it has led to a connection, it holds for later ones as well. None: what is known of the node
                (``addresses=`` and ``dist_port=`` of ``open_node``), else what EPMD on its host says.

        Raises:
            BadName: it is no node name, or this node's own.
            BadAddress: ``address`` is none.
            ConnectError: why not: NoSuchNode, HostNotFound, NodeUnreachable, ConnectTimeout, or ConnectRefused, whose
                ``__cause__`` is the handshake's error.
        """
        await self._distribution.connect(peer, address)

    async def disconnect(self, peer: Atom | str) -> bool:
        """Close the connection to ``peer`` (``erlang:disconnect_node/1``); nodedown has fired when this returns.

        Returns:
            False if there was none.
        """
        return await self._distribution.disconnect(peer)

    def nodes(self, kind: Literal["visible", "hidden", "connected", "known"] = "visible") -> list[Atom]:
        """``nodes/1``: nodes connected as visible, hidden, or either (``connected``); ``known`` adds pending ones."""
        return self._distribution.nodes(kind)

    @property
    def connections(self) -> list[ConnectionInfo]:
        """The connection table, one row for each peer."""
        return self._distribution.connections

    @property
    def handshakes(self) -> dict[StatusCount, int]:
        """How often each status word decided a handshake since the node was opened.

        ``("sent", "ok_simultaneous")`` counts the calls of others to which this node gave up a call of its own,
        ``("received", "nok")`` its own calls that were given up for one of the other side; and so on for ``ok``,
        ``alive`` and ``not_allowed``.
        """
        return self._distribution.handshakes

    def allow(self, names: Iterable[Atom | str]) -> None:
        """``net_kernel:allow/1``: these nodes may connect, and be dialled; before the first call everybody may.

        Each call adds to the list, and nothing takes a name off it. Connections that are up stay up. No names at all
        change nothing, as on a BEAM.

        Args:
            names: Full node names, hosts (every node there), or ``"name@"`` (nodes of that name on any host).

        Raises:
            BadName: one is none of these.
        """
        self._allowed.add(names if isinstance(names, str) else [str(name) for name in names])

    def set_cookie(self, peer: Atom | str, cookie: str) -> None:
        """``erlang:set_cookie/2``: from now on ``cookie`` is the secret shared with ``peer``.

        With this node's own name it is the cookie of all peers that have none of their own. Connections that are up
        stay up. There is no way to ask a node for its cookies.

        Raises:
            BadName: ``peer`` is no node name, or the cookie is empty, too long, or not Latin-1.
        """
        name = atom_of(peer)
        if name == self.name:
            self._cookies.set_own(cookie)
        else:
            self._cookies.set(name.name, cookie)

    @property
    def net_ticktime(self) -> float:
        """Seconds without a sign of life after which a peer is taken for dead; in a transition, those it leads to."""
        return self._distribution.ticking.net_ticktime

    def get_net_ticktime(self) -> float | OngoingChange:
        """``net_kernel:get_net_ticktime/0``: the seconds, or ``("ongoing_change_to", seconds)`` in a transition."""
        return self._distribution.ticking.get_net_ticktime()

    def set_net_ticktime(self, net_ticktime: float, transition: float = DEFAULT_TRANSITION) -> SetNetTicktime:
        """``net_kernel:set_net_ticktime/2``: change the time of all connections, those to come included.

        No connection is lost by it if every node of the cluster begins the same change within one ``transition``: so
        long this node ticks as often as the shorter of the two times asks for, and gives nobody up before the longer.

        Args:
            net_ticktime: Seconds; more than 0. Rounded up to whole milliseconds between two ticks.
            transition: Seconds; 0 or more.

        Returns:
            ``"change_initiated"``; ``"unchanged"`` if that is the time already; ``("ongoing_change_to", seconds)`` if
            an earlier change still goes on, and then nothing was done.

        Raises:
            ValueError: a number is out of its range.
        """
        return self._distribution.ticking.set_net_ticktime(net_ticktime, transition)

    def last_failure(self, peer: Atom | str) -> ConnectError | None:
        """Why the latest attempt to connect ``peer`` failed; None if it did not, or if that was long ago.

        The failures of the last hundred nodes are kept.
        """
        return self._distribution.failures.get(atom_of(peer))

    def is_connected(self, peer: Atom | str) -> bool:
        """Whether ``peer`` is connected now."""
        return self._router.is_up(atom_of(peer))

    def is_busy(self, peer: Atom | str) -> bool:
        """Whether senders to ``peer`` are parked now."""
        link = self._router.peers.get(atom_of(peer))
        return link is not None and link.busy

    def peer_flags(self, peer: Atom | str) -> DFlag | None:
        """The flags that both sides announced, or None when it is not connected."""
        return self._distribution.peer_flags(peer)

    def monitor_nodes(
        self, node_type: Literal["visible", "hidden", "all"] = "all"
    ) -> AbstractAsyncContextManager[AsyncIterator[NodeEvent]]:
        """``async with node.monitor_nodes() as events: async for event in events`` gives NodeUp and NodeDown."""
        return self._distribution.events.subscribe(node_type)

    def watch_nodes(self, callback: Callable[[NodeEvent], None]) -> Callable[[], None]:
        """Call ``callback(event)`` synchronously, in order with the signals; the result ends that."""
        return self._distribution.events.watch(callback)
