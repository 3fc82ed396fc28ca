"""What programs do with a scope, and the other tests of syn have no word for; the other members are BEAMs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from erlang_interop import Atom, Export, RemoteExit
from tests.interop.syn_members import BeamMember
from tests.interop.syn_ours import OurMember
from zenmon_node import InvalidRemoteScope, open_scope

if TYPE_CHECKING:
    from tests.interop.syn_members import Cluster

pytestmark = pytest.mark.parametrize("cluster", ["a-hidden"], indirect=True)

NAME, GROUP = Atom("alice"), Atom("room")


@pytest.fixture
def ours(cluster: Cluster) -> OurMember:
    assert isinstance(cluster.a, OurMember)
    return cluster.a


@pytest.fixture
def theirs(cluster: Cluster) -> BeamMember:
    assert isinstance(cluster.b, BeamMember)
    return cluster.b


async def test_members_of_members_are_found(cluster: Cluster, ours: OurMember) -> None:
    _, b, c = cluster.members
    await cluster.disconnect((ours, c))
    await cluster.connect((b, c))
    assert await ours.joined.connect_members() == [c.name]
    await cluster.are_members()
    assert await ours.joined.connect_members() == []


async def test_a_beam_that_is_not_in_the_scope(ours: OurMember, theirs: BeamMember) -> None:
    pid = await theirs.spawn()
    async with open_scope(ours.node, f"{ours.scope}_alone") as alone:
        for operation in (alone.register, alone.join, alone.leave):
            with pytest.raises(InvalidRemoteScope, match=f"{theirs.name} is not in the scope"):
                await operation(NAME, pid)


async def test_functions_of_a_beam(ours: OurMember, theirs: BeamMember) -> None:
    pid = await theirs.spawn()
    await ours.joined.join(GROUP, pid, 1)
    mark, refuse = (Export(Atom("fixture_syn_driver"), Atom(name), 1) for name in ("mark", "refuse"))
    assert await ours.joined.update_member(GROUP, pid, mark) == (pid, (Atom("marked"), 1))
    with pytest.raises(RemoteExit, match="the function failed there") as refused:
        await ours.joined.update_member(GROUP, pid, refuse)
    assert refused.value.reason == (Atom("refused"), (Atom("marked"), 1))
    assert ours.joined.member(GROUP, pid) == (pid, (Atom("marked"), 1))
