"""What ``visible="passive"`` costs a cluster: as docs/visible.md says, ``global:sync/0`` waits, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from erlang_interop import Atom
from tests.interop.collectors import is_among_nodes

if TYPE_CHECKING:
    from tests.conftest import BeamFactory
    from tests.interop.conftest import NodeOpener

OK, YES = Atom("ok"), Atom("yes")


@pytest.mark.rule("Visible nodes: global works beside a passive node")
async def test_global_beside_a_passive_node(opened: NodeOpener, fresh_beam: BeamFactory) -> None:
    one, two = fresh_beam(), fresh_beam()
    async with opened(visible="passive") as node:
        await node.connect(one.name)
        assert await one.eval(f"net_kernel:connect_node('{two.name}').") is True
        assert await is_among_nodes(one, node.name, "visible")
        # The mesh does not spread to us.
        assert await two.eval("nodes().") == [Atom(one.name)]
        locked = "global:set_lock({a_lock, self()}, [node() | nodes()], 0)."
        assert await one.eval(locked) is True
        assert await one.eval("global:trans({another, self()}, fun() -> done end).") == Atom("done")
        assert await one.eval("global:register_name(somebody, whereis(init)).") == YES
        init = f"rpc:call('{one.name}', erlang, whereis, [init])"
        found = f"polling:until(fun() -> global:whereis_name(somebody) =:= {init} end, 5000)."
        assert await two.eval(found) is True


@pytest.mark.rule("Visible nodes: global:sync waits for a passive node")
async def test_global_sync_waits_until_a_passive_node_has_gone(opened: NodeOpener, fresh_beam: BeamFactory) -> None:
    beam = fresh_beam()
    await beam.eval("collector:start(sync).")
    start = "spawn(fun() -> sync ! {synced, global:sync()} end)."
    async with opened(visible="passive") as node:
        await node.connect(beam.name)
        # Before it has seen us, there is nobody to wait for.
        assert await beam.eval(f"polling:until(fun() -> lists:member('{node.name}', nodes()) end, 5000).") is True
        await beam.eval(start)
        assert await beam.eval("collector:take(sync, 1, 1000).") == []
    assert await beam.eval("collector:take(sync, 1, 20000).") == [(Atom("synced"), OK)]


@pytest.mark.rule("Visible nodes: global:sync does not wait for a hidden node")
async def test_global_sync_does_not_wait_for_a_hidden_node(opened: NodeOpener, fresh_beam: BeamFactory) -> None:
    beam = fresh_beam()
    async with opened() as node:
        await node.connect(beam.name)
        assert await beam.eval("global:sync().", timeout=20) == OK
