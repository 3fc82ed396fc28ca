"""Being found: this node's entry at EPMD, an EPMD of its own where none runs, or neither.

A node without EPMD (``epmd=False``) makes its creation itself. So does one with ``dist_port`` where no EPMD takes it:
it listens where everybody looks for it anyway (kernel/src/erl_epmd.erl, ``handle_call({register, ...})``).
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Literal

from ..errors import EpmdError, EpmdUnavailable
from . import epmd
from .epmd import EpmdAddress
from .epmd_server import EpmdServer, epmd_hosts
from .transport import resolve

if TYPE_CHECKING:
    import trio

    from .epmd import Registration

log = logging.getLogger("erlang_interop.epmd")


class Presence:
    """How one node makes itself known on its machine.

    Args:
        name: The part of its name before the ``@``.
        host: The host it listens on; where an EPMD of its own listens as well.
        visible: What it says of itself.
        at: Where EPMD is; False: there is none.
        embedded: Where no EPMD answers, serve as one.
        dist_port: The port that all nodes share; with one, EPMD is dispensable.

    Raises:
        ValueError: ``embedded`` and no EPMD at once.
    """

    def __init__(
        self,
        name: str,
        host: str,
        *,
        visible: bool,
        at: EpmdAddress | Literal[False],
        embedded: bool,
        dist_port: int | None,
    ) -> None:
        if embedded and at is False:
            raise ValueError("epmd=False and embedded_epmd=True contradict each other: leave one of them out")
        self._name = name
        self._host = host
        self._visible = visible
        self._at = at
        self._embedded = embedded
        self._dispensable = dist_port is not None

    async def start(self, tasks: trio.Nursery, port: int) -> int:
        """Make known that the node listens on ``port``, for as long as ``tasks`` run.

        Returns:
            The node's creation.

        Raises:
            EpmdUnavailable: no EPMD answers, and one is needed.
            NameTaken: EPMD has a living node of that name.
        """
        if self._at is False:
            return epmd.new_creation()
        address = self._at

        async def register() -> Registration:
            return await epmd.register(address, self._name, port, visible=self._visible)

        try:
            registration = await self._first(address, tasks, register)
        except EpmdError as error:
            if not self._dispensable:
                raise
            log.info("not registered with EPMD, which nobody needs where all nodes share a port: %s", error)
            return epmd.new_creation()
        tasks.start_soon(epmd.stay_registered, registration, register)
        return registration.creation

    async def _first(self, address: EpmdAddress, tasks: trio.Nursery, register: epmd.Register) -> Registration:
        try:
            return await register()
        except EpmdUnavailable:
            if not self._embedded:
                raise
        server = EpmdServer()
        await tasks.start(server.serve, await self._hosts(address), address.port)
        log.info("no EPMD answered; one of our own serves on %s", ", ".join(server.addresses))
        return await register()

    async def _hosts(self, address: EpmdAddress) -> list[str]:
        """Where this node's own EPMD listens: where others look for this node, unless ``ERL_EPMD_ADDRESS`` tells."""
        ours = [] if os.environ.get("ERL_EPMD_ADDRESS") else [found for _, found in await resolve(self._host)]
        if address.host in EpmdAddress.LOOPBACKS:
            return epmd_hosts(ours)
        return list(dict.fromkeys([address.host, *ours]))
