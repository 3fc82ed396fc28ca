"""How a command joins the cluster: the name it takes, the cookie it shows, the node it opens for as long as it runs."""

from __future__ import annotations

import ipaddress
import os
import socket
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import Parameter

from erlang_interop import CookieMissing, EpmdAddress, EpmdUnavailable, TlsOptions, open_node
from erlang_interop.runtime import split_name
from erlang_interop.runtime.addresses import dist_port_of
from erlang_interop.runtime.dynamic_names import UNDEFINED

from .failures import UsageError
from .targets import parse_node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from erlang_interop import Node


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Joining:
    """Options of every command that joins the cluster for a moment."""

    name: str | None = None
    """This node's own name, name@host. Default: zenmon-PID@HOST, a hidden node. undefined: the (first) node that is
    talked to gives it one, and it is registered nowhere."""

    cookie_file: Path | None = None
    """File whose first line is the cluster's cookie. Default: ZENMON_COOKIE, else ~/.erlang.cookie."""

    tls_optfile: Path | None = None
    """Speak TLS, with the options of this file (as erl -ssl_dist_optfile). Default: ZENMON_TLS_OPTFILE, else no TLS."""

    timeout: float = 7.0
    """Seconds that connecting may take, and, where something is asked, the answer."""

    address: str | None = None
    """Where the node listens, host:port or [::1]:port; no EPMD is asked then. Default: what EPMD on its host says."""


@asynccontextmanager
async def joined(
    joining: Joining, peers: Iterable[str], output: Callable[[str], object] | None = None
) -> AsyncIterator[Node]:
    """A hidden node that is connected to ``peers``, for as long as the block runs.

    It listens on the loopback address only, since nobody needs to dial a node that lives for a moment. Where no EPMD
    answers it serves as one, so that a machine without Erlang can reach the nodes of others. With ``--address`` or
    ``ERL_DIST_PORT`` there is no EPMD at all.

    Args:
        joining: The options given.
        peers: Nodes by name.
        output: As for ``open_node``.

    Raises:
        BadAddress: ``--address`` or ``ERL_DIST_PORT`` is none.
        UsageError: ``--address`` and several nodes.
        CookieMissing: there is no cookie.
        TlsOptionsError: the options for TLS cannot be used.
        ConnectError: a peer cannot be reached; the message says why.
        EpmdError: the name is taken, or a peer should be on this machine, where no EPMD knows any node.
    """
    peers = list(dict.fromkeys(peers))
    name = own_name(joining.name, peers)
    if joining.address is not None and len(peers) != 1:
        raise UsageError(f"--address is where one node listens, and these are {len(peers)}: {', '.join(peers)}")
    local = [peer for peer in peers if _is_local(split_name(peer)[1])]
    without_epmd = joining.address is not None or dist_port_of(None) is not None
    node = open_node(
        name,
        cookie=read_cookie(joining.cookie_file),
        tls=read_tls_options(joining.tls_optfile),
        listen_host="127.0.0.1",
        listen_port=0,  # not ERL_DIST_PORT, on which the node to be reached may listen
        epmd=False if without_epmd else None,
        embedded_epmd=not (local or without_epmd),
        addresses={peers[0]: joining.address} if joining.address is not None else None,
        connect_timeout=joining.timeout,
        output=output,
        name_from=peers[0] if split_name(name)[0] == UNDEFINED else None,
    )
    async with AsyncExitStack() as stack:
        try:
            opened = await stack.enter_async_context(node)
        except EpmdUnavailable as error:
            if not local:
                raise
            where = EpmdAddress.from_environment()
            raise EpmdUnavailable(
                f"no EPMD answers on {where.host}:{where.port}, so {local[0]} does not run on this machine, "
                f"or its EPMD has another port: then set ERL_EPMD_PORT"
            ) from error
        for peer in peers:
            await opened.connect(peer)
        yield opened


def read_cookie(path: Path | None) -> str | None:
    """The first line of a cookie file; None, for ``open_node``'s own search, without one.

    Raises:
        CookieMissing: the file cannot be read, or is empty.
    """
    if path is None:
        return None
    try:
        text = path.read_text(encoding="latin-1")
    except OSError as error:
        raise CookieMissing(f"the cookie file {path} cannot be read: {error.strerror or error}") from error
    cookie = text.partition("\n")[0].strip()
    if not cookie:
        raise CookieMissing(f"the cookie file {path} is empty: its first line must be the cluster's cookie")
    return cookie


def read_tls_options(path: Path | None) -> TlsOptions | None:
    """The options of a file, or of the one that ``ZENMON_TLS_OPTFILE`` names; None without either.

    Raises:
        TlsOptionsError: the file cannot be read, or has an option that is unknown or wrong.
    """
    named = path or os.environ.get("ZENMON_TLS_OPTFILE")
    return TlsOptions.from_optfile(named) if named else None


def own_name(given: str | None, peers: Sequence[str]) -> str:
    """What ``--name`` says; ``undefined`` alone gets the host of the default name."""
    if given is None:
        return default_name(peers)
    if given == UNDEFINED:
        return f"{UNDEFINED}@{split_name(default_name(peers))[1]}"
    return parse_node(given)


def default_name(peers: Iterable[str]) -> str:
    """A name of one's own: ``zenmon-<process id>@<host>``, with a host that the peers take.

    Peers on this machine see their own host: a BEAM with short names and one with long names are both content. Others
    see this machine's name, with its domain if theirs has one.
    """
    host = "127.0.0.1"
    for peer in peers:
        host = split_name(peer)[1]
        if not _is_local(host):
            host = socket.getfqdn() if "." in host else socket.gethostname().partition(".")[0]
    return f"zenmon-{os.getpid()}@{host}"


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("localhost", socket.gethostname(), socket.gethostname().partition(".")[0])
