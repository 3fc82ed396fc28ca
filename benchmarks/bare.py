"""A bare socket that joins a node: the handshake, and frames without an atom cache of their own."""

from __future__ import annotations

import secrets
import socket
from typing import TYPE_CHECKING, Final

from erlang_interop import etf
from erlang_interop.flags import OFFERED
from erlang_interop.wire.handshake import Established, Initiator

if TYPE_CHECKING:
    from erlang_interop import Term

CREATION: Final = 7
_HEADER_WITHOUT_ATOMS: Final = bytes([131, 68, 0])


def join(sock: socket.socket, name: str, peer: str, cookie: str) -> bytes:
    """Do the handshake as the node ``name``; what came behind it.

    Raises:
        HandshakeError: The peer refuses, or closes the connection.
    """
    initiator = Initiator(name, peer, OFFERED, CREATION, cookie, secrets.randbits(32))
    while True:
        sock.sendall(initiator.data_to_send())
        data = sock.recv(65536)
        if not data:
            raise initiator.connection_lost()
        for event in initiator.receive_data(data):
            if isinstance(event, Established):
                return event.trailing_data


def frame(control: Term, message: Term) -> bytes:
    """A frame whose atoms are all written out: it leaves the connection's atom cache as it is."""
    body = _HEADER_WITHOUT_ATOMS + etf.encode(control)[1:] + etf.encode(message)[1:]
    return len(body).to_bytes(4, "big") + body
