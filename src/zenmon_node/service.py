"""What ``zenmon-node run`` runs: a node with ZenMonitor that stays connected to its peers until it is told to end."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio

from erlang_interop import ConnectError, NodeDown, NodeUp, open_node
from erlang_interop.etf.text import format_term

from .app import open_zen_monitor
from .logs import get_logger

if TYPE_CHECKING:
    from erlang_interop import Node, NodeEvent, TlsOptions

    from .config import Settings

log = get_logger("zenmon_node")

#: Seconds before the first attempt to reach a peer again, and, after doubling, between all later ones.
FIRST_RETRY: Final = 1.0
LAST_RETRY: Final = 30.0


@dataclass(frozen=True, kw_only=True)
class ServiceOptions:
    """What the service is to be."""

    name: str
    connect: tuple[str, ...] = ()
    """Nodes to be connected to, and to be connected to again after a loss."""
    cookie: str | None = field(default=None, repr=False)
    tls: TlsOptions | None = None
    """Speak TLS with these options."""
    settings: Settings | None = None
    visible: bool = False
    port: int | None = None
    """The port to listen on; None: ``ERL_DIST_PORT``, else a free one."""
    embedded_epmd: bool = False


async def run_service(options: ServiceOptions) -> None:
    """Run until SIGTERM or SIGINT, which end it in an orderly way: monitors, ZenMonitor, connections, registration.

    At the start every peer must be reachable, so that a misspelt name or a wrong cookie is seen at once. A peer that is
    lost later is dialled again, for as long as it takes.

    Raises:
        ConnectError: a peer cannot be reached at the start.
        ErlangInteropError: the node cannot be opened; see ``open_node``.
    """
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_serve, options)
            number = await anext(signals)
            log.info("ending", signal=signal.Signals(number).name)
            nursery.cancel_scope.cancel()


async def _serve(options: ServiceOptions) -> None:
    async with (
        open_node(
            options.name,
            cookie=options.cookie,
            tls=options.tls,
            visible="passive" if options.visible else False,
            listen_port=options.port,
            embedded_epmd=options.embedded_epmd,
        ) as node,
        open_zen_monitor(node, options.settings),
        trio.open_nursery() as nursery,
    ):
        node.watch_nodes(_report)
        for peer in options.connect:
            await node.connect(peer)
            nursery.start_soon(_stay_connected, node, peer)
        log.info(
            "running",
            name=node.name.name,
            type="visible" if options.visible else "hidden",
            connected=[name.name for name in node.nodes("connected")],
        )


def _report(event: NodeEvent) -> None:
    """One line for each node that comes or goes."""
    match event:
        case NodeUp(name, type):
            log.info("node up", node=name.name, type=type)
        case NodeDown(name, type, reason):
            log.warning("node down", node=name.name, type=type, reason=format_term(reason))


async def _stay_connected(node: Node, peer: str) -> None:
    """Dial ``peer`` again whenever it is lost."""
    lost = trio.Event()

    def notice(event: NodeEvent) -> None:
        if isinstance(event, NodeDown) and event.name.name == peer:
            lost.set()

    unwatch = node.watch_nodes(notice)
    try:
        while True:
            if node.is_connected(peer):
                await lost.wait()
            lost = trio.Event()
            await _dial_until_up(node, peer)
    finally:
        unwatch()


async def _dial_until_up(node: Node, peer: str) -> None:
    delay = FIRST_RETRY
    while not node.is_connected(peer):
        await trio.sleep(delay)
        delay = min(2 * delay, LAST_RETRY)
        try:
            await node.connect(peer)
        except ConnectError as error:
            log.warning("not connected", node=peer, error=str(error), next_attempt_in_s=delay)
