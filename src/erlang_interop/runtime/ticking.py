"""One ticker for all connections of a node.

When to look at them, what a tick is, and when a silent peer is given up, is decided by ``wire/ticks.py``; here is the
clock. Source: kernel/src/net_kernel.erl (``ticker/2``), kernel/src/dist_util.erl (``con_loop``).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import trio

from ..terms import Atom
from ..wire.ticks import DEFAULT_INTENSITY, Ticker, TickSchedule, TickVerdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .peer import Peer

log = logging.getLogger("erlang_interop.node")

#: Seconds that ``set_net_ticktime`` gives the other nodes to change as well (net_kernel's default).
DEFAULT_TRANSITION: Final = 60.0
_NET_TICK_TIMEOUT: Final = Atom("net_tick_timeout")

OngoingChange: TypeAlias = tuple[Literal["ongoing_change_to"], float]
"""``{ongoing_change_to, NetTicktime}``: a transition is under way; the time, in seconds, is the one it leads to."""
SetNetTicktime: TypeAlias = Literal["unchanged", "change_initiated"] | OngoingChange
"""What ``set_net_ticktime`` returns."""


class NetTicker:
    """Sends ticks, and ends the connections of peers that are silent.

    Args:
        net_ticktime: Seconds without a sign of life after which a peer is taken for dead.
        peers: Gives the node's peers.
        intensity: Looks at each connection within that time, 4 to 1000.

    Raises:
        ValueError: a number is out of its range.
    """

    def __init__(
        self, net_ticktime: float, peers: Callable[[], Iterable[Peer]], intensity: int = DEFAULT_INTENSITY
    ) -> None:
        self._schedule = TickSchedule(net_ticktime, intensity)
        self._peers = peers
        self._sleep: trio.CancelScope | None = None

    @property
    def net_ticktime(self) -> float:
        """Seconds; during a transition those it leads to."""
        return self._schedule.net_ticktime

    def get_net_ticktime(self) -> float | OngoingChange:
        """See ``Node.get_net_ticktime``."""
        if self._schedule.changing:
            return "ongoing_change_to", self.net_ticktime
        return self.net_ticktime

    def set_net_ticktime(self, net_ticktime: float, transition: float = DEFAULT_TRANSITION) -> SetNetTicktime:
        """See ``Node.set_net_ticktime``."""
        if self._schedule.changing:
            return "ongoing_change_to", self.net_ticktime
        if not self._schedule.change(net_ticktime, transition, trio.current_time()):
            return "unchanged"
        log.info("net_ticktime becomes %g s, in a transition of %g s", self.net_ticktime, transition)
        if self._sleep is not None:
            self._sleep.deadline = self._schedule.next_deadline()
        return "change_initiated"

    def new_ticker(self, *, hidden: bool) -> Ticker:
        """What a connection that has come up is ticked by; its first look is the node's next one."""
        return Ticker(hidden=hidden)

    async def run(self) -> None:
        """Tick for as long as the node lives."""
        self._schedule.start(trio.current_time())
        while True:
            with trio.CancelScope(deadline=self._schedule.next_deadline()) as self._sleep:
                await trio.sleep_forever()
            look, aux = self._schedule.advance(trio.current_time())
            for peer in list(self._peers()):
                if aux:
                    self._aux_tick(peer)
                if look:
                    self._look(peer)

    def _look(self, peer: Peer) -> None:
        wire, ticker, stream = peer.wire, peer.ticker, peer.stream
        if wire is None or ticker is None or stream is None:
            return
        verdict = ticker.look(self._schedule.intensity, wire.bytes_received, wire.frames_sent, peer.unsent)
        if verdict is TickVerdict.SEND_TICK:
            peer.emit_tick()
        elif verdict is TickVerdict.TIMEOUT and peer.closing is None:
            log.warning(
                "%s does not respond: nothing came from it for %g s (net_ticktime %g s); closing the connection",
                peer.name.name,
                self._schedule.interval * self._schedule.intensity,
                self.net_ticktime,
            )
            peer.closing = _NET_TICK_TIMEOUT
            stream.abort()

    def _aux_tick(self, peer: Peer) -> None:
        if peer.ticker is not None and peer.ticker.aux_tick(peer.unsent) is TickVerdict.SEND_TICK:
            peer.emit_tick()
