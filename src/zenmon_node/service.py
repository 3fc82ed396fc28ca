"""What ``zenmon-node run`` runs: a node with ZenMonitor that stays connected to its peers until it is told to end."""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
import trio

from erlang_interop import ConnectError, NodeDown, open_node

from .app import ZenMonitorStopped, open_zen_monitor
from .config import SettingsError
from .logs import get_logger
from .metrics import report_to_statsd, serve_metrics
from .reporting import CompatibilityReport, report_node, report_queues
from .syn.api import open_scope

if TYPE_CHECKING:
    from erlang_interop import Node, NodeEvent, TlsOptions

    from .app import ZenMonitor
    from .config import Settings
    from .exposing import Exposure

log = get_logger("zenmon_node")

#: Seconds before the first attempt to reach a peer again, and, after doubling, between all later ones.
FIRST_RETRY: Final = 1.0
LAST_RETRY: Final = 30.0
#: Collections of the middle generation (of 7,000 new objects each, by default) before a full garbage collection.
FULL_AFTER: Final = 200


@dataclass(frozen=True, kw_only=True)
class ServiceOptions:
    """What the service is to be."""

    name: str
    connect: tuple[str, ...] = ()
    """Nodes to be connected to, and to be connected to again after a loss."""
    scopes: tuple[str, ...] = ()
    """Scopes of syn to be a member of."""
    cookie: str | None = field(default=None, repr=False)
    tls: TlsOptions | None = None
    """Speak TLS with these options."""
    settings: Settings | None = None
    read_settings: Callable[[], Settings] | None = None
    """Reads the settings anew; called when SIGHUP comes. None: SIGHUP ends the program, as it does by default."""
    visible: Literal[False, "passive", "full"] = False
    port: int | None = None
    """The port to listen on; None: ``ERL_DIST_PORT``, else a free one."""
    embedded_epmd: bool = False
    expose: tuple[Exposure, ...] = ()
    """Functions that other nodes may call."""
    metrics: tuple[str, int] | None = None
    """Host and port on which metrics are served to Prometheus."""
    statsd: tuple[str, int] | None = None
    """Host and port of the statsd to which they are sent."""
    report_interval: float = 5.0
    """Seconds between two looks at the queues, of which a backlog is logged."""


async def run_service(options: ServiceOptions) -> None:
    """Run until SIGTERM or SIGINT, which end it in an orderly way: monitors, ZenMonitor, connections, registration.

    At the start every peer must be reachable, so that a misspelt name or a wrong cookie is seen at once. A peer that is
    lost later is dialled again, for as long as it takes.

    Raises:
        ConnectError: a peer cannot be reached at the start.
        AddressInUse: the metrics cannot be served there.
        StatsdMissing: metrics are to be sent to statsd, and the library for it is not installed.
        ZenMonitorStopped: its processes have crashed too often.
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
            visible=options.visible,
            listen_port=options.port,
            embedded_epmd=options.embedded_epmd,
        ) as node,
        open_zen_monitor(node, options.settings) as zen,
        AsyncExitStack() as stack,
        trio.open_nursery() as nursery,
    ):
        for scope in options.scopes:
            await stack.enter_async_context(open_scope(node, scope))
        for exposure in options.expose:
            exposure.on(node)
        node.watch_nodes(report_node)
        zen.watch_compatibility(CompatibilityReport())
        more: dict[str, Any] = {}
        if options.metrics is not None:
            more["metrics"] = await nursery.start(serve_metrics, zen, *options.metrics)
        if options.statsd is not None:
            await nursery.start(report_to_statsd, zen, *options.statsd)
        nursery.start_soon(report_queues, zen, options.report_interval)
        nursery.start_soon(_end_with, zen)
        if options.read_settings is not None:
            await nursery.start(_read_settings_again, zen, options.read_settings)
        for peer in options.connect:
            await node.connect(peer)
            nursery.start_soon(_stay_connected, zen, peer)
        settle()
        log.info(
            "running",
            name=node.name.name,
            type="visible" if options.visible else "hidden",
            connected=[name.name for name in node.nodes("connected")],
            **more,
        )


def settle() -> None:
    """Keep the pauses of the garbage collector short, once everything that lives on has been made.

    The modules that are loaded now stay: looking at them would be most of each full collection (10 ms), so it looks at
    them no more. Of what is left, Python makes a full collection whenever it has grown by a quarter: while a million
    instructions come in that is often, and each looks at all that wait. So one comes after at least ``FULL_AFTER``
    collections of the middle generation; what leaks until then is 1.4 million objects at most.
    """
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, FULL_AFTER)


async def _end_with(zen: ZenMonitor) -> None:
    """A service that serves nobody any more must not look as if it did: whoever has started it may start it again."""
    await zen.wait_stopped()
    raise ZenMonitorStopped(f"ZenMonitor on {zen.node.name.name} has stopped: its processes crashed too often")


async def _read_settings_again(
    zen: ZenMonitor, read: Callable[[], Settings], *, task_status: trio.TaskStatus[None]
) -> None:
    """At each SIGHUP, take the settings that are written now; one line says what has changed, or why nothing has."""
    with trio.open_signal_receiver(signal.SIGHUP) as hangups:
        task_status.started()
        async for _ in hangups:
            before = msgspec.structs.asdict(zen.settings)
            try:
                wanted = msgspec.structs.asdict(read())
            except SettingsError as error:
                log.error("the settings stay as they are", error=str(error))
                continue
            changes = {name: value for name, value in wanted.items() if value != before[name]}
            zen.configure(**changes)
            told = [f"{name} {before[name]} -> {value}" for name, value in changes.items()]
            log.info("settings read again", changed=", ".join(told) or "nothing")


async def _stay_connected(zen: ZenMonitor, peer: str) -> None:
    """Dial ``peer`` again whenever it is lost. On each connection it is asked whether it speaks ZenMonitor."""
    node = zen.node
    lost = trio.Event()

    def notice(event: NodeEvent) -> None:
        if isinstance(event, NodeDown) and event.name.name == peer:
            lost.set()

    unwatch = node.watch_nodes(notice)
    try:
        while True:
            if node.is_connected(peer):
                with suppress(ConnectError):  # lost at this very moment: we are told below
                    await zen.connect(peer)
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
