"""What ``visible="passive"`` means to the ``global`` of a cluster, as docs/visible.md says: nobody waits for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from erlang_interop import Atom
from tests.interop.collectors import has_lost, is_among_nodes

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
        assert await is_among_nodes(two, one.name)
        assert await two.eval("nodes().") == [Atom(one.name)]
        locked = "global:set_lock({a_lock, self()}, [node() | nodes()], 0)."
        assert await one.eval(locked) is True
        assert await one.eval("global:trans({another, self()}, fun() -> done end).") == Atom("done")
        assert await one.eval("global:register_name(somebody, whereis(init)).") == YES
        init = f"rpc:call('{one.name}', erlang, whereis, [init])"
        found = f"polling:until(fun() -> global:whereis_name(somebody) =:= {init} end, 20000)."
        assert await two.eval(found) is True


@pytest.mark.rule("Visible nodes: global:sync does not wait for a passive node")
async def test_global_sync_does_not_wait_for_a_passive_node(opened: NodeOpener, fresh_beam: BeamFactory) -> None:
    one, two = fresh_beam(), fresh_beam()
    name = None
    for _ in range(2):  # a BEAM forgets what a node has said when it loses it
        async with opened(name, visible="passive") as node:
            name = node.name.name
            for beam in (one, two):
                await node.connect(beam.name)
                assert await is_among_nodes(beam, node.name, "visible")
                assert await beam.eval("global:sync().", timeout=20) == OK
            # It is no member by that: nobody was told of it, and it is asked for nothing.
            known = "lists:member(N, gen_server:call(global_name_server, get_known, infinity))."
            assert await one.eval(known, N=node.name) is False
        await has_lost(one, node.name)
        await has_lost(two, node.name)


@pytest.mark.rule("Visible nodes: global:sync does not wait for a hidden node")
async def test_global_sync_does_not_wait_for_a_hidden_node(opened: NodeOpener, fresh_beam: BeamFactory) -> None:
    beam = fresh_beam()
    async with opened() as node:
        await node.connect(beam.name)
        assert await beam.eval("global:sync().", timeout=20) == OK
