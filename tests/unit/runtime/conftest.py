from collections.abc import AsyncIterator

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
async def epmd(nursery: trio.Nursery) -> EpmdAddress:
    """An EPMD of ours; the one in tests/conftest.py is a BEAM's."""
    return EpmdAddress(port=await nursery.start(EpmdServer().serve))


@pytest.fixture
async def dial() -> AsyncIterator[Dial]:
    """``await dial(port)``: a peer made by hand."""
    async with dialling() as dial:
        yield dial
