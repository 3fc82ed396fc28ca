"""``zenmon-node epmd``: the port mapper as a program of its own, for machines without Erlang."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import trio

from erlang_interop.runtime import EpmdServer
from erlang_interop.runtime.epmd import default_port
from erlang_interop.runtime.epmd_server import epmd_hosts

from ..logs import get_logger
from .failures import ExitStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

log = get_logger("zenmon_node")


async def serve_epmd(port: int | None, addresses: Sequence[str], *, relaxed: bool) -> ExitStatus:
    """Serve until SIGTERM or SIGINT, or until an ``epmd -kill`` that is permitted; all of these end it as done.

    Args:
        port: None: ``ERL_EPMD_PORT``, or 4369.
        addresses: IP addresses beside the loopback ones; none: those of ``ERL_EPMD_ADDRESS``.
        relaxed: Permit KILL while nodes are registered, and STOP. ``ERL_EPMD_RELAXED_COMMAND_CHECK`` does so as well.

    Raises:
        AddressInUse: an EPMD is there already, or an address is not of this machine.
        EpmdError: an address is none.
    """
    server = EpmdServer(relaxed=relaxed or None)
    hosts = epmd_hosts(addresses)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:

            async def serve(task_status: trio.TaskStatus[int]) -> None:
                await server.serve(hosts, default_port() if port is None else port, task_status=task_status)
                nursery.cancel_scope.cancel()

            await nursery.start(serve)
            log.info(f"listening on {', '.join(server.addresses)}")
            number = await anext(signals)
            log.info("ending", signal=signal.Signals(number).name)
            nursery.cancel_scope.cancel()
    return ExitStatus.DONE
