"""EPMD as a client: register this node and stay registered, look others up.

Where EPMD is: port 4369 or ``ERL_EPMD_PORT``; for registering on the loopback address of this machine, where every EPMD
listens whatever ``ERL_EPMD_ADDRESS`` says, for looking up on the peer's host.

Source: erl_dist_protocol, "EPMD Protocol"; kernel/src/erl_epmd.erl.
"""

from __future__ import annotations

import logging
import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias

import trio

from ..errors import (
    ConnectError,
    ConnectTimeout,
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
from .transport import Stream, format_address, open_stream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

log = logging.getLogger("erlang_interop.epmd")

#: Seconds in which EPMD must have answered, the connection to it included (erl_epmd.erl waits as long).
PATIENCE: Final = 10.0
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

    LOOPBACKS: ClassVar = ("127.0.0.1", "::1")

    host: str = "127.0.0.1"
    port: int = EPMD_PORT

    @classmethod
    def from_environment(cls, host: str = "") -> EpmdAddress:
        """This machine's, on ``ERL_EPMD_PORT`` or 4369; for a node on an IPv6 ``host`` at ``::1``, as erl_epmd does.

        Raises:
            EpmdError: the variable is no port number.
        """
        return cls("::1" if ":" in host else "127.0.0.1", default_port())

    def __str__(self) -> str:
        """``host:port``."""
        return format_address((self.host, self.port))


@dataclass(slots=True)
class Registration:
    """This node's entry at EPMD: it lasts as long as its stream is open."""

    creation: int
    stream: Stream


#: Registers this node.
Register: TypeAlias = "Callable[[], Awaitable[Registration]]"


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


async def _ask_at(address: EpmdAddress, request: Request) -> tuple[Stream, Reply]:
    """The stream is open; the caller closes it.

    Raises:
        _NotEpmdError: EPMD took the connection, but what came back was nothing, or no answer.
        HostNotFound, ConnectError: it did not take the connection.
    """
    stream = await open_stream(address.host, address.port)
    try:
        return stream, await _ask(stream, request)
    except (OSError, RemoteProtocolError) as error:
        stream.close()
        raise _NotEpmdError(f"what listens on {address} does not answer as EPMD does: {error}") from error
    except BaseException:
        stream.close()
        raise


class _NotEpmdError(Exception):
    """Something listens on EPMD's port and is none."""


async def register(
    address: EpmdAddress, name: str, port: int, *, visible: bool, patience: float = PATIENCE
) -> Registration:
    """Register ``name`` (without host) as listening on ``port``.

    Args:
        address: Where EPMD is.
        name: The part of the node's name before the ``@``.
        port: Where the node listens.
        visible: What it says of itself.
        patience: Seconds that EPMD may take.

    Raises:
        EpmdUnavailable: no EPMD answers there.
        NameTaken: another node has the name.
    """
    request = Alive2Request(port, name, NodeType.NORMAL if visible else NodeType.HIDDEN)
    try:
        with trio.fail_after(patience):
            stream, reply = await _ask_at(address, request)
    except ConnectError as error:
        raise EpmdUnavailable(
            f"no EPMD answers on {address}: start one (`epmd -daemon`, or any Erlang node), "
            f"or let the node bring its own (embedded_epmd=True)"
        ) from error
    except trio.TooSlowError as error:
        raise EpmdUnavailable(f"{_stuck(address, patience)}") from error
    except _NotEpmdError as error:
        raise EpmdUnavailable(f"{error}") from error
    assert isinstance(reply, Alive2Reply)
    if reply.result != 0:
        stream.close()
        raise NameTaken(
            f"EPMD on {address} refuses the name {name!r}: one of that name is there already; "
            f"choose another name, or stop that node"
        )
    # A creation of 0 would say "any incarnation"; EPMD never gives it, an old one might.
    return Registration(reply.creation or new_creation(), stream)


def _stuck(address: EpmdAddress, patience: float) -> str:
    return (
        f"EPMD on {address} did not answer within {patience:g} s: is it suspended or cut off, "
        f"or does another program listen there?"
    )


def new_creation() -> int:
    """A creation of our own, 4 to 2**32-1: smaller ones have special meanings."""
    return secrets.randbelow(0xFFFF_FFFC) + 4


async def look_up(host: str, port: int, name: str, *, node: str | None = None, patience: float = PATIENCE) -> int:
    """The port on which the node ``name`` of ``host`` listens.

    Args:
        host: The host part of the node's name, where its EPMD is.
        port: EPMD's port.
        name: The part of the node's name before the ``@``.
        node: The name for error messages.
        patience: Seconds that EPMD may take.

    Raises:
        HostNotFound: the host name does not resolve.
        NoSuchNode: no EPMD answers there, or it does not know the name.
        ConnectTimeout: something takes the connection, or not even that, and does not answer.
    """
    address = EpmdAddress(host, port)
    shown = node or f"{name}@{host}"
    try:
        with trio.fail_after(patience):
            stream, reply = await _ask_at(address, PortPlease2Request(name))
    except HostNotFound:
        raise
    except ConnectError as error:
        raise NoSuchNode(
            f"cannot look {shown} up: no EPMD answers on {address}; is that node running?", shown
        ) from error
    except trio.TooSlowError as error:
        raise ConnectTimeout(f"cannot look {shown} up: {_stuck(address, patience)}", shown) from error
    except _NotEpmdError as error:
        raise NoSuchNode(f"cannot look {shown} up: {error}", shown) from error
    stream.close()
    assert isinstance(reply, PortPlease2Reply)
    if reply.result != 0:
        raise NoSuchNode(f"EPMD on {address} knows no node {name!r}: is it running, and is its name spelt so?", shown)
    return reply.port


async def names(address: EpmdAddress, *, patience: float = PATIENCE) -> list[NodeEntry]:
    """All nodes registered at an EPMD.

    Raises:
        HostNotFound: the host name does not resolve.
        EpmdUnavailable: no EPMD answers there within ``patience`` seconds.
    """
    try:
        with trio.fail_after(patience):
            stream, reply = await _ask_at(address, NamesRequest())
    except HostNotFound:
        raise
    except ConnectError as error:
        raise EpmdUnavailable(f"no EPMD answers on {address}: no Erlang node runs there") from error
    except trio.TooSlowError as error:
        raise EpmdUnavailable(_stuck(address, patience)) from error
    except _NotEpmdError as error:
        raise EpmdUnavailable(str(error)) from error
    stream.close()
    assert isinstance(reply, TextReply)
    return reply.names


async def stay_registered(registration: Registration, register_again: Register) -> None:
    """Watch the registration's stream; when EPMD went away register anew, with back-off. Runs until cancelled.

    The creation stays what it was, as on a BEAM: it names this incarnation of the node, not of EPMD. One line is logged
    when EPMD goes, one when the node is registered again, and one if somebody else has the name by then.
    """
    try:
        while True:
            try:
                while await registration.stream.receive_some():
                    pass  # EPMD has nothing more to say; only the end of the stream means something
            except OSError as error:
                log.debug("the connection to EPMD broke: %s", error)
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


async def _until_registered(register_again: Register) -> Registration:
    delay = FIRST_RETRY
    taken = False
    while True:
        await trio.sleep(delay)
        try:
            return await register_again()
        except NameTaken as error:
            if not taken:
                log.warning("EPMD is back, but this node is not registered, and tries on: %s", error)
            taken = True
        except EpmdError as error:
            log.debug("not registered yet: %s", error)
            taken = False
        delay = min(delay * 2, LAST_RETRY)
