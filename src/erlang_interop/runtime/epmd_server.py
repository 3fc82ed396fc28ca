"""An EPMD of our own, for machines where none runs. It serves any Erlang node on this machine.

Each connection carries one request, which ``epmd_names.py`` answers as the genuine EPMD does
(erts/epmd/src/epmd_srv.c); one that registers a name stays open, and holds the name until it ends. What is not a
request costs its sender the connection and one line of the log.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import secrets
from typing import TYPE_CHECKING, Final

import trio

from ..errors import AddressInUse, EpmdError, HostNotFound, RemoteProtocolError
from ..wire.epmd import RequestReader
from .epmd_names import EpmdNames
from .transport import Listener, Stream, listen

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from .epmd_names import Answer, Held

log = logging.getLogger("erlang_interop.epmd")

LOOPBACK: Final = "127.0.0.1"
_LOOPBACK_6: Final = "::1"
#: Seconds for a request to arrive, and for its answer to be taken (epmd.c: CLOSE_TIMEOUT).
_PATIENCE: Final = 60.0
#: Connections that may wait at once without having asked anything: half of the files a process usually may open.
_MAX_WAITING: Final = 512


class EpmdServer:
    """The names of one machine. ``serve`` runs until cancelled, or until it is told to end (``epmd -kill``).

    Args:
        relaxed: Let this machine's users end it while nodes are registered, and take names away from nodes
            (``epmd -relaxed_command_check``); None: as ``ERL_EPMD_RELAXED_COMMAND_CHECK`` is set.
    """

    def __init__(self, *, relaxed: bool | None = None) -> None:
        if relaxed is None:
            relaxed = "ERL_EPMD_RELAXED_COMMAND_CHECK" in os.environ
        self.names = EpmdNames(secrets.randbits(32), relaxed=relaxed)
        self.addresses: list[str] = []
        """``host:port`` of each address it listens on."""
        self._waiting: dict[Stream, None] = {}
        self._holders: dict[Held, Stream] = {}

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self.names.port

    async def serve(
        self,
        hosts: str | Collection[str] = LOOPBACK,
        port: int = 0,
        *,
        task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Listen and answer. ``nursery.start`` returns the port.

        Args:
            hosts: The addresses to listen on, and no others; :func:`epmd_hosts` adds those that every EPMD has. An
                IPv6 loopback address that this machine does not have, or where the port is taken, is left out.
            port: The port; 0 takes a free one.

        Raises:
            AddressInUse, HostNotFound: It cannot listen there.
        """
        listeners = await _listen([hosts] if isinstance(hosts, str) else list(hosts), port)
        self.names.port = listeners[0].port
        self.addresses = [address for listener in listeners for address in listener.addresses]
        try:
            async with trio.open_nursery() as nursery:
                task_status.started(self.port)
                for listener in listeners:
                    nursery.start_soon(listener.serve, self._connection, nursery)
        except* _KilledError:
            log.warning("EPMD: told to end; it serves no more on %s", ", ".join(self.addresses))
        finally:
            for listener in listeners:
                listener.close()

    async def _connection(self, stream: Stream) -> None:
        try:
            with trio.fail_after(_PATIENCE):
                answer = await self._one_request(stream)
            if answer is None:
                return
            if answer.refusal:
                log.warning("EPMD: refusing %s %s", stream.address, answer.refusal)
            if answer.held is not None:
                await self._hold(answer.held, answer.reply, stream)
                return
            with trio.fail_after(_PATIENCE):
                await stream.send_all(answer.reply)
            if answer.stopped is not None:
                log.warning("EPMD: %s is forgotten, as %s asked", answer.stopped.name, stream.address)
                self._holders[answer.stopped].abort()
            if answer.killed:
                raise _KilledError(stream.address)
        except RemoteProtocolError as error:
            log.warning("EPMD: closing %s: %s", stream.address, error)
        except OSError as error:
            log.info("EPMD: %s went away: %s", stream.address, error)
        except trio.TooSlowError:
            log.warning("EPMD: closing %s: it did not finish its request within %.0f s", stream.address, _PATIENCE)
        finally:
            stream.close()

    async def _one_request(self, stream: Stream) -> Answer | None:
        """Read a request and answer it. None: the connection ended before there was one."""
        reader = RequestReader()
        self._make_room()
        self._waiting[stream] = None
        try:
            started = False
            while True:
                data = await stream.receive_some()
                if not data:
                    if started:
                        raise RemoteProtocolError("the connection ended within a request", rule="EPMD Protocol")
                    return None
                started = True
                for request in reader.receive_data(data):
                    return self.names.answer(request, local=stream.is_local)
        finally:
            self._waiting.pop(stream, None)

    def _make_room(self) -> None:
        """Who connects and asks nothing keeps nobody out: of too many, the one that has waited longest goes."""
        while len(self._waiting) >= _MAX_WAITING:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            log.warning("EPMD: closing %s: too many connections wait, and this one has longest", oldest.address)
            oldest.abort()

    async def _hold(self, held: Held, reply: bytes, stream: Stream) -> None:
        """Keep the name for as long as the connection lives. More bytes on it end it, as at the genuine one."""
        self._holders[held] = stream
        try:
            with trio.fail_after(_PATIENCE):
                await stream.send_all(reply)
            log.info("EPMD: %s listens on port %d", held.name, held.request.port)
            if await stream.receive_some():
                raise RemoteProtocolError(
                    f"bytes behind the request that registered {held.name!r}, which is forgotten", rule="EPMD Protocol"
                )
        finally:
            del self._holders[held]
            if self.names.release(held):
                log.info("EPMD: %s is gone", held.name)


class _KilledError(Exception):
    """A connection asked the server to end, and may."""


def epmd_hosts(addresses: Iterable[str] = ()) -> list[str]:
    """The addresses an EPMD listens on: the loopback ones, and ``addresses`` or those of ``ERL_EPMD_ADDRESS``.

    Args:
        addresses: IP addresses; where there are any, the variable is not looked at.

    Raises:
        EpmdError: one of them is no IP address.
    """
    given = list(addresses)
    where = "an address to listen on"
    if not given:
        given = os.environ.get("ERL_EPMD_ADDRESS", "").replace(",", " ").split()
        where = "ERL_EPMD_ADDRESS"
    hosts = {LOOPBACK: None, _LOOPBACK_6: None}
    for text in given:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            raise EpmdError(f"{where} is {text!r}; it must be an IP address, for example 192.0.2.1") from None
        if address.is_unspecified:  # all addresses: the loopback one is among them
            hosts.pop(LOOPBACK if address.version == 4 else _LOOPBACK_6, None)
        hosts[str(address)] = None
    return list(hosts)


async def _listen(hosts: list[str], port: int) -> list[Listener]:
    listeners: list[Listener] = []
    try:
        for host in hosts:
            try:
                listener = await listen(host, port)
            except (AddressInUse, HostNotFound) as error:
                if host != _LOOPBACK_6 or not listeners:
                    raise
                log.debug("EPMD: not on %s: %s", host, error)
                continue
            listeners.append(listener)
            port = listener.port
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners
