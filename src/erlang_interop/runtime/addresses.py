"""From a node's name to the address it listens on.

Source: kernel/src/erl_epmd.erl (``address_please/3``, ``port_please/2``).
"""

from __future__ import annotations

import socket

from ..errors import BadName
from . import epmd


class Addresses:
    """Where other nodes listen.

    Args:
        epmd_port: Where the EPMDs of other hosts are asked.
    """

    def __init__(self, epmd_port: int) -> None:
        self._epmd_port = epmd_port

    async def find(self, name: str) -> tuple[str, int]:
        """The host and port on which the node ``name`` listens.

        Raises:
            BadName: it is no node name.
            HostNotFound: its host does not resolve.
            NoSuchNode: no EPMD answers on that host, or it does not know the node.
        """
        short, host = split_name(name)
        return host, await epmd.look_up(host, self._epmd_port, short, node=name)


def split_name(name: str) -> tuple[str, str]:
    """``"py@host"`` as ``("py", "host")``.

    Raises:
        BadName: it is not of that form.
    """
    short, at, host = name.partition("@")
    if not short or not at or not host or "@" in host:
        example = f"{short or 'py'}@{socket.gethostname()}"
        raise BadName(f"{name!r} is no node name: one has the form name@host, for example {example}")
    return short, host
