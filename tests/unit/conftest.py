"""Nodes of ours for tests without a BEAM: real sockets on loopback, an EPMD of their own on a private port."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from erlang_interop import EpmdAddress, Node, open_node
from erlang_interop.testing.ports import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
def epmd_address() -> EpmdAddress:
    """Where no EPMD runs yet: the first node opened with ``embedded_epmd=True`` brings it."""
    return EpmdAddress(port=free_port())


@pytest.fixture
async def one_node(epmd_address: EpmdAddress) -> AsyncIterator[Node]:
    """``one@127.0.0.1``."""
    async with open_node("one@127.0.0.1", cookie="secret", epmd=epmd_address, embedded_epmd=True) as one:
        yield one


@pytest.fixture
async def two_nodes(one_node: Node, epmd_address: EpmdAddress) -> AsyncIterator[tuple[Node, Node]]:
    """``one@127.0.0.1`` and ``two@127.0.0.1``, not connected yet."""
    async with open_node("two@127.0.0.1", cookie="secret", epmd=epmd_address) as two:
        yield one_node, two
