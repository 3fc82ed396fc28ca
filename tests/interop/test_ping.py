"""``net_adm:ping`` in both directions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from erlang_interop import Atom, Node

if TYPE_CHECKING:
    from erlang_interop.testing.beam import Beam
    from tests.conftest import BeamFactory
    from tests.interop.conftest import NodeOpener

PONG, PANG = Atom("pong"), Atom("pang")


async def test_python_pings_a_beam(either_node: Node, beam: Beam) -> None:
    assert await either_node.ping(beam.name) is True
    assert either_node.nodes("connected") == [Atom(beam.name)]
    assert await either_node.ping(Atom(beam.name)) is True


async def test_a_beam_pings_python(either_node: Node, beam: Beam) -> None:
    kind = "visible" if either_node.visible else "hidden"
    source = f"{{server_caller:ping(Node), lists:member(Node, nodes({kind})), server_caller:ping(Node)}}"
    assert await beam.eval(source, Node=either_node.name) == (PONG, True, PONG)
    assert either_node.nodes("connected") == [Atom(beam.name)]


async def test_a_hidden_beam_and_python_ping_each_other(node: Node, fresh_beam: BeamFactory) -> None:
    beam = fresh_beam(hidden=True)
    assert await beam.eval("server_caller:ping(Node)", Node=node.name) == PONG
    assert await node.ping(beam.name) is True


@pytest.mark.parametrize("name", ["nobody@127.0.0.1", "nobody@host.invalid"])
async def test_pang_of_a_node_that_is_not_there(node: Node, beam: Beam, name: str) -> None:
    assert await node.ping(name) is False
    assert await beam.eval("server_caller:ping(Node)", Node=Atom(name)) == PANG


async def test_pang_between_different_cookies(node: Node, fresh_beam: BeamFactory) -> None:
    beam = fresh_beam(cookie="another")
    assert await node.ping(beam.name) is False
    assert node.connections == []
    assert await beam.eval("server_caller:ping(Node)", Node=node.name) == PANG
    assert await beam.eval("nodes(connected)") == []


async def test_pang_of_a_python_node_that_has_ended(opened: NodeOpener, beam: Beam) -> None:
    async with opened() as node:
        assert await beam.eval("server_caller:ping(Node)", Node=node.name) == PONG
    assert await beam.eval("server_caller:ping(Node)", Node=node.name) == PANG


async def test_pang_of_a_beam_that_has_been_killed(node: Node, fresh_beam: BeamFactory) -> None:
    beam = fresh_beam()
    assert await node.ping(beam.name) is True
    beam.kill()
    assert await node.ping(beam.name) is False
    assert node.nodes("connected") == []
