from collections.abc import AsyncIterator

import pytest

from erlang_interop.runtime import EpmdAddress, Node
from tests.support import free_port


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    """One node of its own, with an EPMD of its own."""
    node = Node("one@127.0.0.1", "secret", epmd_address=EpmdAddress(port=free_port()), embedded_epmd=True)
    async with node.running():
        yield node
