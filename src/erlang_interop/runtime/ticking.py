"""One ticker for all connections of a node.

What a tick is, and when a silent peer is given up, is decided by ``wire/ticks.py``; here is the clock.
Source: kernel/src/net_kernel.erl (``ticker/2``), kernel/src/dist_util.erl (``con_loop``).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio

from ..terms import Atom
from ..wire.ticks import Ticker, TickVerdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .peer import Peer

log = logging.getLogger("erlang_interop.node")

_NET_TICK_TIMEOUT: Final = Atom("net_tick_timeout")


class NetTicker:
    """Sends ticks, and ends the connections of peers that are silent.

    Args:
        net_ticktime: Seconds without a sign of life after which a peer is taken for dead.
        peers: Gives the node's peers.
    """

    def __init__(self, net_ticktime: float, peers: Callable[[], Iterable[Peer]]) -> None:
        self.net_ticktime = net_ticktime
        self._peers = peers

    def new_ticker(self, now: float) -> Ticker:
        """What a connection that came up at ``now`` is ticked by."""
        return Ticker(self.net_ticktime, now=now)

    async def run(self) -> None:
        """Tick for as long as the node lives."""
        while True:
            await trio.sleep(self.net_ticktime / 4 / 4)
            now = trio.current_time()
            for peer in list(self._peers()):
                self._tick(peer, now)

    def _tick(self, peer: Peer, now: float) -> None:
        wire, ticker, stream = peer.wire, peer.ticker, peer.stream
        if wire is None or ticker is None or stream is None:
            return
        verdict = ticker.advance(now, wire.bytes_received, wire.bytes_sent - peer.unsent)
        if verdict is TickVerdict.SEND_TICK:
            peer.emit_tick()
        elif verdict is TickVerdict.TIMEOUT:
            log.warning("%s has not been heard of for %.0f s", peer.name.name, self.net_ticktime)
            peer.closing = _NET_TICK_TIMEOUT
            stream.abort()
