"""The node that users open: the runtime's, with calls, casts, pings, rpc and erpc."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..errors import CallError, CookieMissing
from ..runtime.addresses import split_name
from ..runtime.handshakes import MAX_HANDSHAKES
from ..runtime.signals import atom_of
from ..runtime.tls import TlsTransport
from ..runtime.tls_options import as_options
from . import gen
from ._introspection import Introspection
from .calling import CallingNode
from .gen import DEFAULT_TIMEOUT
from .global_names import GlobalNames
from .global_server import GlobalServer
from .kernel_sup import KERNEL_SUP, KernelSup
from .net_kernel import IS_AUTH, NET_KERNEL, YES
from .passive import let_nobody_wait

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping

    from ..runtime.addresses import AddressLike
    from ..runtime.epmd import EpmdAddress
    from ..runtime.peer import Sending
    from ..runtime.process import Destination, MonitorTarget
    from ..runtime.tls_options import FilePath, TlsOptions
    from ..terms import Atom, Term
    from ..wire.channel import Limits
    from .gen import CallRequest
    from .io_server import Output


class Node(CallingNode):
    """An Erlang node. Use :func:`open_node`."""

    #: Its part of ``global``, if it takes part.
    global_server: GlobalServer | None = None

    @cached_property
    def global_names(self) -> GlobalNames:
        """``global``: the names and locks of the whole cluster."""
        return GlobalNames(self)

    async def call(self, dest: MonitorTarget, request: Term, timeout: float | None = DEFAULT_TIMEOUT) -> Term:
        """``gen_server:call/3``: ask ``dest`` and wait for its answer. Any number of tasks may call at once.

        Args:
            dest: A pid, a name of this node, or ``(name, node)``. A node that is not connected is dialled.
            request: Any term.
            timeout: Seconds to wait; None waits for ever.

        Raises:
            NoProcess: nobody has that pid or name.
            CallTimeout: no answer in time; one that comes later is dropped.
            NodeDownError: the connection was lost, or could not be made.
            CalleeExited: the callee ended before it answered; ``reason`` is its exit reason.
            EncodeError: the request has a part that no external term can carry.
        """
        return await gen.call(self, dest, request, timeout)

    def send_request(self, dest: MonitorTarget, request: Term) -> CallRequest:
        """``gen_server:send_request/2``: :meth:`call` without waiting.

        ``await request.receive_response(timeout)`` of what is given then returns or raises what it would have,
        ``await request.wait_response(timeout)`` says whether that is there, ``request.abandon()`` gives up. Many of
        them, with labels: :class:`Requests`.

        Raises:
            EncodeError: the request has a part that no external term can carry.
        """
        pending = gen.CallRequest(dest, request)
        self.start_inline(pending)
        return pending

    def cast(self, dest: Destination, message: Term) -> Sending:
        """``gen_server:cast/2``: tell ``dest``; nothing is known of what becomes of it."""
        return gen.cast(self, dest, message)

    async def ping(self, name: Atom | str, timeout: float | None = None) -> bool:
        """``net_adm:ping/1``: whether ``name`` can be connected to, and answers.

        Args:
            name: A node.
            timeout: Seconds to wait for the answer. None, as in Erlang: until the connection is lost, which ticks
                notice after ``net_ticktime`` at the latest.

        Returns:
            True for ``pong``. After ``pang`` there is no connection to it, as in Erlang.

        Raises:
            BadName: it is no node name.
        """
        node = atom_of(name)
        split_name(node.name)
        try:
            if await gen.call(self, (NET_KERNEL, node), (IS_AUTH, self.name), timeout) == YES:
                return True
        except CallError:
            pass  # pang is the whole answer; `connect` is there for those who want to know why
        await self.disconnect(node)
        return False


@asynccontextmanager
async def open_node(
    name: str,
    *,
    cookie: str | None = None,
    visible: Literal[False, "passive", "full"] = False,
    net_ticktime: float = 60.0,
    net_tickintensity: int = 4,
    epmd: EpmdAddress | Literal[False] | None = None,
    embedded_epmd: bool = False,
    addresses: Mapping[str, AddressLike] | None = None,
    dist_port: int | None = None,
    listen_port: int | None = None,
    listen_host: str | None = None,
    allow: Collection[str] | None = None,
    connect_timeout: float = 7.0,
    cookies: Mapping[str, str] | None = None,
    max_handshakes: int = MAX_HANDSHAKES,
    name_from: str | None = None,
    tls: TlsOptions | FilePath | None = None,
    limits: Limits | None = None,
    output: Output | None = None,
) -> AsyncIterator[Node]:
    """A node that listens, is registered with EPMD and can connect, for as long as the block runs.

    Args:
        name: Its full name, ``name@host``. ``undefined@host``: the node ``name_from`` gives it one.
        cookie: The cluster's secret; None takes it from ``ZENMON_COOKIE`` or ``~/.erlang.cookie``.
        visible: False: a hidden node, which a BEAM shows under ``nodes(hidden)``. ``"passive"``: a visible one, which
            every BEAM shows under ``nodes()`` and which takes no part in ``global``; nobody there waits for it.
            ``"full"``: a visible one that takes part: it is connected to every node of the cluster, and has the names
            and locks of ``global`` as a BEAM has them.
        net_ticktime: Seconds of silence after which a connection counts as lost; as set on the BEAMs.
        net_tickintensity: Ticks within that time, 4 to 1000: the loss is noticed after 1 to 1 + 1/``net_tickintensity``
            times ``net_ticktime``.
        epmd: Where this machine's EPMD is; None: port 4369 or ``ERL_EPMD_PORT`` of the loopback address. False: this
            node is registered nowhere and asks no EPMD for others; it needs their addresses, or ``dist_port``.
        embedded_epmd: Where no EPMD answers, serve as one.
        addresses: Nodes whose address is known, with it: ``{"beam@host": "host:port"}``; EPMD is not asked for these.
        dist_port: A port on which every node of the cluster listens, this one as well, each on a host of its own: as
            OTP's kernel parameter ``erl_epmd_node_listen_port``. No EPMD is asked, and none is needed. None: what
            ``ERL_DIST_PORT`` says; 0: none, whatever it says.
        listen_port: The port to listen on; 0 takes a free one; None: ``dist_port``, or a free one.
        listen_host: The address to listen on; None takes the host of ``name``.
        allow: Names of the nodes that may connect to this one, and be dialled (see ``Node.allow``); None lets in all
            that have the cookie, an empty list nobody.
        connect_timeout: Seconds that connecting may take, the handshake included.
        cookies: Nodes with which another cookie is shared, with it.
        max_handshakes: Accepted connections that may be in their handshake at once; for one more, the oldest that has
            not shown the cookie is closed.
        name_from: A node that gives this one its name (OTP's dynamic node name, ``erl -name undefined``). It is dialled
            while the node opens; ``node.name`` and ``node.creation`` are what it says. Such a node is hidden, does
            not listen, and is registered nowhere; it dials others as any node does.
        tls: Speak TLS (``-proto_dist inet_tls``), and nothing else: options, or the path of a file as
            ``erl -ssl_dist_optfile`` takes it.
        limits: What each peer may make this node hold: bytes of a message, messages under way in fragments, depth of
            terms. Who goes beyond loses its connection.
        output: Called with what processes print that have this node's ``user`` as their group leader: those of this
            node, and those that they spawned elsewhere. Text comes as it was sent, not in lines. None: it goes to
            standard output.

    Raises:
        BadName: ``name`` is no node name, or ``undefined`` without ``name_from``; or a cookie is none.
        CookieMissing: no cookie was given, and none was found.
        BadAddress: one of ``addresses`` is no address, or ``dist_port`` or ``ERL_DIST_PORT`` no port.
        EpmdUnavailable: no EPMD answers, and neither ``embedded_epmd`` nor ``epmd=False`` was asked for.
        NameTaken: EPMD has a living node of that name.
        HostNotFound: the address to listen on cannot be found.
        AddressInUse: ``listen_port`` is taken.
        ConnectError: ``name_from`` cannot be reached, or gives no name.
        TlsOptionsError: ``tls`` names an option or a file that cannot be used.
        ValueError: ``visible`` is none of these, or a number is out of its range.
        SupervisorError: the node's own processes were ended again and again; the block is cancelled then.
    """
    if visible not in (False, "passive", "full"):
        raise ValueError(
            f"visible={visible!r} means nothing: False makes a hidden node, 'passive' a visible one that takes no part "
            f"in `global`, 'full' one that does"
        )
    node = Node(
        name,
        find_cookie() if cookie is None else cookie,
        visible=bool(visible),
        net_ticktime=net_ticktime,
        net_tickintensity=net_tickintensity,
        epmd_address=epmd,
        embedded_epmd=embedded_epmd,
        addresses=addresses,
        dist_port=dist_port,
        listen_host=listen_host,
        listen_port=listen_port,
        allow=allow,
        connect_timeout=connect_timeout,
        cookies=cookies,
        max_handshakes=max_handshakes,
        name_from=name_from,
        transport=None if tls is None else TlsTransport(as_options(tls)),
        limits=limits,
    )
    async with run_node(node, output, full=visible == "full"):
        yield node


@asynccontextmanager
async def run_node(node: Node, output: Output | None = None, *, full: bool = False) -> AsyncIterator[None]:
    """Run ``node`` with the services that every node has, for as long as the block runs.

    Args:
        output: See :func:`open_node`.
        full: Take part in ``global``; for a visible node.
    """
    async with node.running():
        # Before the first checkpoint, so no peer can be connected yet.
        if full:
            node.global_server = GlobalServer()
        kernel_sup = KernelSup(node, output)
        node.start_inline(kernel_sup, name=KERNEL_SUP)
        Introspection(node).expose()
        if full:
            node.global_names.serve()
        elif node.visible:
            let_nobody_wait(node)
        with kernel_sup.block():
            yield


def find_cookie() -> str:
    """The cookie of this machine's user: ``ZENMON_COOKIE``, else the first line of ``~/.erlang.cookie``.

    Raises:
        CookieMissing: neither is there, or the file cannot be read.
    """
    cookie = os.environ.get("ZENMON_COOKIE")
    if cookie:
        return cookie
    path = Path.home() / ".erlang.cookie"
    advice = f"pass cookie=, set ZENMON_COOKIE, or put the cluster's cookie into {path}"
    try:
        text = path.read_text(encoding="latin-1")
    except FileNotFoundError:
        raise CookieMissing(f"no cookie: ZENMON_COOKIE is not set and {path} does not exist; {advice}") from None
    except OSError as error:
        raise CookieMissing(f"the cookie file {path} cannot be read ({error.strerror}); {advice}") from error
    cookie = text.partition("\n")[0].strip()
    if not cookie:
        raise CookieMissing(f"the cookie file {path} is empty; {advice}")
    return cookie
