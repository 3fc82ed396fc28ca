"""TLS distribution with genuine BEAMs (``-proto_dist inet_tls``), dialling and being dialled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import trio

from tests.interop.collectors import collecting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from erlang_interop import Node, NodeEvent, TlsOptions
    from erlang_interop.testing.beam import Beam


class SecureBeams(Protocol):
    """Starts a BEAM with TLS for this test alone."""

    def __call__(self, tls: TlsOptions | None = None, *more: Any, args: tuple[str, ...] = ()) -> Beam: ...


class SecureNodes(Protocol):
    """Opens a node of ours with TLS: one of the cluster, or with options of its own."""

    def __call__(self, tls: TlsOptions | Path | None = None, **options: Any) -> AbstractAsyncContextManager[Node]: ...


async def next_event(events: AsyncIterator[NodeEvent]) -> NodeEvent:
    with trio.fail_after(30):
        return await anext(events)


async def dialled_by(beam: Beam, node: Node) -> bool:
    """``net_kernel:connect_node/1`` on the BEAM."""
    answer = await beam.eval("net_kernel:connect_node(N)", N=node.name)
    assert isinstance(answer, bool)
    return answer


async def messages_go_both_ways(node: Node, beam: Beam) -> None:
    async with collecting(beam) as there, node.open_process() as me:
        await there.round_trip(me)
