"""A peer that passes the handshake, and then says what the test says, or nothing."""

from __future__ import annotations

from typing import Final

import trio

from erlang_interop import Atom
from erlang_interop.flags import OFFERED
from erlang_interop.wire.handshake import Established, Initiator

STRANGER: Final = Atom("stranger@127.0.0.1")


async def shake_hands(port: int, node: str, cookie: str) -> trio.SocketStream:
    """A connection of ``STRANGER``, a hidden node, to ``node``, which listens on ``port``."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    initiator = Initiator(STRANGER.name, node, OFFERED, 5, cookie, 12345)
    while True:
        await stream.send_all(initiator.data_to_send())
        data = await stream.receive_some()
        if not data:
            raise initiator.connection_lost()
        for event in initiator.receive_data(data):
            if isinstance(event, Established):
                return stream
