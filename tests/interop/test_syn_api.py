"""What programs do with a scope, and the other tests of syn have no word for; the other members are BEAMs."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from erlang_interop import Atom, CallTimeout, Export, RemoteExit
from tests.interop.collectors import until
from tests.interop.syn_members import BeamMember
from tests.interop.syn_ours import OurMember
from zenmon_node import InvalidRemoteScope, open_scope

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.interop.syn_members import Cluster

pytestmark = pytest.mark.parametrize("cluster", ["a-hidden"], indirect=True)

NAME, GROUP = Atom("alice"), Atom("room")
SERVICES = ("registry", "pg")


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


@asynccontextmanager
async def suspended(member: BeamMember) -> AsyncIterator[None]:
    """Its scope processes answer nothing for as long as the block runs, and then what they were asked meanwhile."""

    async def tell(what: str) -> None:
        for service in SERVICES:
            await member.beam.eval(f"sys:{what}(N)", N=Atom(f"syn_{service}_{member.scope.name}"))

    await tell("suspend")
    try:
        yield
    finally:
        await tell("resume")


async def test_an_answer_that_comes_late_is_applied(ours: OurMember, theirs: BeamMember) -> None:
    pid = await theirs.spawn()
    async with suspended(theirs):
        with pytest.raises(CallTimeout, match="did not answer within"):
            await ours.joined.register(NAME, pid, 1, timeout=0.1)
        with pytest.raises(CallTimeout):
            await ours.joined.join(GROUP, pid, 1, timeout=0.1)
        assert (ours.joined.lookup(NAME), ours.joined.members(GROUP)) == (None, [])
    await until(lambda: (ours.joined.lookup(NAME), ours.joined.members(GROUP)) == ((pid, 1), [(pid, 1)]))
    assert {event[0] for event in await ours.events()} == {"on_process_registered", "on_process_joined"}


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
