"""From a node's name to where it listens: an address given for it, a port that all nodes share, or EPMD's word.

EPMD is asked on the host that the node's name tells, never on this machine for another's nodes. The shared port is
OTP's kernel parameter ``erl_epmd_node_listen_port`` (before OTP 27.2: the flag ``-erl_epmd_port``): a node with it
listens on that port, and dials all others on it without asking EPMD.

Source: kernel/src/erl_epmd.erl (``address_please/3``, ``port_please/3``, ``listen_port_please/2``).
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Final, TypeAlias

from ..errors import BadAddress, BadName, NoSuchNode
from . import epmd

if TYPE_CHECKING:
    from collections.abc import Mapping

#: ``"host:port"``, ``"[::1]:port"`` or ``("host", port)``.
AddressLike: TypeAlias = "str | tuple[str, int]"

#: The variable that releases made by relx and rebar3 turn into ``erl_epmd_node_listen_port``.
DIST_PORT_VARIABLE: Final = "ERL_DIST_PORT"


class Addresses:
    """Where other nodes listen.

    Args:
        epmd_port: Where the EPMDs of all hosts are asked; None: no EPMD is asked.
        fixed: Nodes whose address is known, with it.
        dist_port: The port on which every other node listens; None: each has its own.
        patience: Seconds that EPMD may take, the connection to it included.

    Raises:
        BadName: A key of ``fixed`` is no node name.
        BadAddress: A value is no address, or ``dist_port`` no port.
    """

    def __init__(
        self,
        epmd_port: int | None,
        *,
        fixed: Mapping[str, AddressLike] | None = None,
        dist_port: int | None = None,
        patience: float = epmd.PATIENCE,
    ) -> None:
        self._epmd_port = epmd_port
        self._fixed: dict[str, tuple[str, int]] = {}
        self._dist_port = dist_port
        self._patience = patience
        for name, address in (fixed or {}).items():
            self.fix(name, address)

    def fix(self, name: str, address: AddressLike | None) -> tuple[str, int] | None:
        """From now on the node ``name`` listens on ``address``; None forgets the one it has.

        Returns:
            The address that was known before.

        Raises:
            BadName: ``name`` is no node name.
            BadAddress: ``address`` is none.
        """
        split_name(name)
        before = self._fixed.get(name)
        if address is not None:
            self._fixed[name] = parse_address(address)
        elif before is not None:
            del self._fixed[name]
        return before

    async def find(self, name: str) -> tuple[str, int]:
        """The host and port on which the node ``name`` listens.

        Raises:
            BadName: it is no node name.
            HostNotFound: its host does not resolve.
            NoSuchNode: no EPMD answers on that host, or it does not know the node, or none may be asked.
            ConnectTimeout: EPMD does not answer.
        """
        short, host = split_name(name)
        if name in self._fixed:
            return self._fixed[name]
        if self._dist_port is not None:
            return host, self._dist_port
        if self._epmd_port is None:
            raise NoSuchNode(
                f"where {name} listens is not known, and this node asks no EPMD (epmd=False): give its address, as in "
                f"connect({name!r}, address='{host}:PORT') or open_node(..., addresses={{{name!r}: '{host}:PORT'}}), "
                f"or the port that all nodes share, dist_port=PORT",
                name,
            )
        return host, await epmd.look_up(host, self._epmd_port, short, node=name, patience=self._patience)

    def source(self, name: str) -> str:
        """Where the address of ``name`` came from, and what follows if it is wrong: the end of an error's message."""
        if name in self._fixed:
            return "that address was given for it: is it the right one?"
        if self._dist_port is not None:
            return (
                f"port {self._dist_port} is the one that all nodes share (dist_port, or {DIST_PORT_VARIABLE}): "
                f"does that node listen on it?"
            )
        if self._epmd_port is None:
            return "is that node running?"
        return "EPMD on its host told that port: the node has just ended, or its entry is out of date"


def parse_address(address: AddressLike) -> tuple[str, int]:
    """``"host:port"``, ``"[::1]:port"`` or ``("host", port)`` as ``("host", port)``.

    Raises:
        BadAddress: it has none of these forms, or the port is not from 1 to 65535.
    """
    match address:
        case (str(host), int(number)) if host:
            return host, _port(number, repr(address))
        case str():
            host, colon, port = address.rpartition(":")
            if host.startswith("[") and host.endswith("]"):
                host = host[1:-1]
            elif ":" in host:
                colon = ""  # which of the colons stands before the port?
            if host and colon and port.isascii() and port.isdecimal():
                return host, _port(int(port), repr(address))
    raise BadAddress(f"{address!r} is no address: write 'host:port', '[::1]:port' or ('host', port)")


def dist_port_of(value: int | None) -> int | None:
    """The port that all nodes share: ``value``, or what ``ERL_DIST_PORT`` says where that is None; 0 is none.

    Raises:
        BadAddress: it is no port.
    """
    if value is not None:
        return _port(value, f"dist_port={value!r}") if value else None
    text = os.environ.get(DIST_PORT_VARIABLE, "")
    if not text or text == "0":
        return None
    if not (text.isascii() and text.isdecimal()):
        raise BadAddress(f"{DIST_PORT_VARIABLE} is {text!r}; it must be a port number from 1 to 65535")
    return _port(int(text), f"{DIST_PORT_VARIABLE}={text}")


def _port(port: int, given: str) -> int:
    if not 0 < port < 65536:
        raise BadAddress(f"{given} has no port: one is a number from 1 to 65535")
    return port


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
