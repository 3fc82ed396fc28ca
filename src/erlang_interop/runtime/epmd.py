"""EPMD as a client: register this node and stay registered, look others up.

Where EPMD is: port 4369 or ``ERL_EPMD_PORT``; for registering on this machine, for looking up on the peer's host.
Source: erl_dist_protocol, "EPMD Protocol"; kernel/src/erl_epmd.erl.
"""

from __future__ import annotations

import logging
import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from ..errors import (
    ConnectError,
    EpmdError,
    EpmdUnavailable,
    HostNotFound,
    NameTaken,
    NoSuchNode,
    RemoteProtocolError,
)
from ..wire.epmd import (
    EPMD_PORT,
    Alive2Reply,
    Alive2Request,
    NamesRequest,
    NodeEntry,
    NodeType,
    PortPlease2Reply,
    PortPlease2Request,
    Reply,
    ReplyReader,
    Request,
    TextReply,
    encode_request,
)
from .transport import Stream, open_stream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

log = logging.getLogger("erlang_interop.epmd")

#: Seconds before the first and, at most, between later attempts to register again.
FIRST_RETRY: Final = 0.2
LAST_RETRY: Final = 5.0
#: Seconds that leaving waits, at most, for EPMD to forget the name.
LEAVE_TIME: Final = 1.0


def default_port() -> int:
    """EPMD's port: ``ERL_EPMD_PORT`` or 4369.

    Raises:
        EpmdError: the variable is no port number.
    """
    text = os.environ.get("ERL_EPMD_PORT", "")
    if not text:
        return EPMD_PORT
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise EpmdError(f"ERL_EPMD_PORT is {text!r}; it must be a port number from 1 to 65535")
    return int(text)


@dataclass(frozen=True, slots=True)
class EpmdAddress:
    """Where this machine's EPMD is. Those of other hosts are asked on the same port."""

    host: str = "127.0.0.1"
    port: int = EPMD_PORT

    @classmethod
    def from_environment(cls) -> EpmdAddress:
        """This machine's, on ``ERL_EPMD_PORT`` or 4369."""
        return cls(port=default_port())


@dataclass(slots=True)
class Registration:
    """This node's entry at EPMD: it lasts as long as its stream is open."""

    creation: int
    stream: Stream


async def _ask(stream: Stream, request: Request) -> Reply:
    reader = ReplyReader(request)
    await stream.send_all(encode_request(request))
    while True:
        data = await stream.receive_some()
        if not data:
            return reader.receive_eof()
        reply = reader.receive_data(data)
        if reply is not None:
            return reply


async def register(address: EpmdAddress, name: str, port: int, *, visible: bool) -> Registration:
    """Register ``name`` (without host) as listening on ``port``.

    Raises:
        EpmdUnavailable: no EPMD answers there.
        NameTaken: another node has the name.
    """
    try:
        stream = await open_stream(address.host, address.port)
    except ConnectError as error:
        raise EpmdUnavailable(
            f"no EPMD answers on {address.host}:{address.port}: start one (`epmd -daemon`, or any Erlang node), "
            f"or let the node bring its own (embedded_epmd=True)"
        ) from error
    try:
        request = Alive2Request(port, name, NodeType.NORMAL if visible else NodeType.HIDDEN)
        reply = await _ask(stream, request)
        assert isinstance(reply, Alive2Reply)
        if reply.result != 0:
            raise NameTaken(
                f"EPMD on {address.host}:{address.port} refuses the name {name!r}: one of that name is there already; "
                f"choose another name, or stop that node"
            )
    except (OSError, RemoteProtocolError) as error:
        stream.close()
        raise EpmdUnavailable(
            f"what listens on {address.host}:{address.port} does not register nodes: {error}"
        ) from error
    except BaseException:
        stream.close()
        raise
    # A creation of 0 would say "any incarnation"; EPMD never gives it, an old one might.
    return Registration(reply.creation or new_creation(), stream)


def new_creation() -> int:
    """A creation of our own, 4 to 2**32-1: smaller ones have special meanings."""
    return secrets.randbelow(0xFFFF_FFFC) + 4


async def look_up(host: str, port: int, name: str, *, node: str | None = None) -> int:
    """The port on which the node ``name`` of ``host`` listens.

    Raises:
        HostNotFound: the host name does not resolve.
        EpmdUnavailable: no EPMD answers there.
        NoSuchNode: EPMD does not know the name.
    """
    shown = node or f"{name}@{host}"
    try:
        stream = await open_stream(host, port)
    except HostNotFound:
        raise
    except ConnectError as error:
        raise NoSuchNode(
            f"cannot look {shown} up: no EPMD answers on {host}:{port}; is that node running?", shown
        ) from error
    try:
        reply = await _ask(stream, PortPlease2Request(name))
    except (OSError, RemoteProtocolError) as error:
        raise NoSuchNode(
            f"cannot look {shown} up: {host}:{port} does not answer as EPMD does: {error}", shown
        ) from error
    finally:
        stream.close()
    assert isinstance(reply, PortPlease2Reply)
    if reply.result != 0:
        raise NoSuchNode(
            f"EPMD on {host}:{port} knows no node {name!r}: is it running, and is its name spelt so?", shown
        )
    return reply.port


async def names(address: EpmdAddress) -> list[NodeEntry]:
    """All nodes registered at an EPMD. Raises EpmdUnavailable, HostNotFound."""
    try:
        stream = await open_stream(address.host, address.port)
    except HostNotFound:
        raise
    except ConnectError as error:
        raise EpmdUnavailable(f"no EPMD answers on {address.host}:{address.port}: no Erlang node runs there") from error
    try:
        reply = await _ask(stream, NamesRequest())
    except (OSError, RemoteProtocolError) as error:
        raise EpmdUnavailable(f"{address.host}:{address.port} does not answer as EPMD does: {error}") from error
    finally:
        stream.close()
    assert isinstance(reply, TextReply)
    return reply.names


async def stay_registered(registration: Registration, register_again: Callable[[], Awaitable[Registration]]) -> None:
    """Watch the registration's stream; when EPMD went away register anew, with back-off. Runs until cancelled.

    The creation stays what it was, as on a BEAM: it names this incarnation of the node, not of EPMD.
    """
    try:
        while True:
            try:
                while await registration.stream.receive_some():
                    pass  # EPMD has nothing more to say; only the end of the stream means something
            except OSError as error:
                log.info("the connection to EPMD broke: %s", error)
            registration.stream.close()
            log.warning("EPMD went away; other nodes cannot find this one until it is registered again")
            registration = await _until_registered(register_again)
            log.warning("registered with EPMD again")
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + LEAVE_TIME):
            await _leave(registration.stream)
        registration.stream.close()


async def _leave(stream: Stream) -> None:
    """Give the name back. EPMD has forgotten it when this returns: the next node may have it at once."""
    if stream.closed:
        return
    try:
        stream.end()
        while await stream.receive_some():
            pass
    except OSError as error:
        log.info("the connection to EPMD broke: %s", error)


async def _until_registered(register_again: Callable[[], Awaitable[Registration]]) -> Registration:
    delay = FIRST_RETRY
    while True:
        await trio.sleep(delay)
        try:
            return await register_again()
        except NameTaken as error:
            log.warning("not registered again: %s", error)
        except EpmdError as error:
            log.info("not registered yet: %s", error)
        delay = min(delay * 2, LAST_RETRY)
