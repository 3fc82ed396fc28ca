import socket
from collections.abc import AsyncIterator
from typing import NoReturn

import pytest
import trio

from erlang_interop.runtime import EpmdAddress, EpmdServer, Node
from erlang_interop.testing.ports import free_port
from tests.handshaking import dialling
from tests.unit.runtime.calls import Dial


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    """One node of its own, with an EPMD of its own."""
    node = Node("one@127.0.0.1", "secret", epmd_address=EpmdAddress(port=free_port()), embedded_epmd=True)
    async with node.running():
        yield node


@pytest.fixture
async def no_dns() -> AsyncIterator[None]:
    """No host name leads anywhere, and that is known at once, whatever DNS there is on this machine."""

    class Nowhere(trio.abc.HostnameResolver):
        async def getaddrinfo(self, *_args: object, **_options: object) -> NoReturn:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        async def getnameinfo(self, *_args: object) -> NoReturn:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    before = trio.socket.set_custom_hostname_resolver(Nowhere())
    yield
    trio.socket.set_custom_hostname_resolver(before)


@pytest.fixture
async def epmd(nursery: trio.Nursery) -> EpmdAddress:
    """An EPMD of ours; the one in tests/conftest.py is a BEAM's."""
    return EpmdAddress(port=await nursery.start(EpmdServer().serve))


@pytest.fixture
async def dial() -> AsyncIterator[Dial]:
    """``await dial(port)``: a peer made by hand."""
    async with dialling() as dial:
        yield dial
