"""``pg`` in clusters: two BEAMs and ours, different releases in one scope, a BEAM that is killed and comes back."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from erlang_interop import Atom, EpmdAddress, Node, open_node, open_pg
from erlang_interop.testing.beam import Beam, BeamDiedError, Epmd, find_otp_roots
from tests.interop.collectors import has_lost, is_among_nodes, until
from tests.interop.pg_peer import BeamScope, all_have, has, new_scope, scope_on, wait

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from erlang_interop import Pg, Pid
    from tests.conftest import BeamFactory, Otp
    from tests.interop.conftest import NodeOpener

G = Atom("g")
#: For each OTP others that its pg gets on with: all pairs but that of 25 and 29.
NEIGHBOURS = {25: (27, 28), 27: (28,), 28: (29,), 29: (27,)}


async def joined(scope: BeamScope) -> Pid:
    """A process there that is in the group."""
    (pid,) = await scope.spawn()
    await scope.call("join", G, pid)
    return pid


async def connected(one: Beam, two: Beam) -> None:
    assert await one.eval("net_kernel:connect_node(N)", N=Atom(two.name)) is True
    assert await is_among_nodes(two, one.name)


@pytest.mark.parametrize("visible", [False, "passive"], ids=["hidden", "visible"])
async def test_a_beam_that_is_killed_and_comes_back(opened: NodeOpener, fresh_beam: BeamFactory, visible: Any) -> None:
    beam = await trio.to_thread.run_sync(fresh_beam)
    name = new_scope()
    async with opened(visible=visible) as node, open_pg(node, name, discover_interval=0.2) as pg:
        ours = node.spawn(wait)
        pg.join(G, ours)
        for _ in range(2):
            there = BeamScope(beam, name)
            await there.start()
            theirs = await joined(there)
            await node.connect(beam.name)
            await all_have([pg, there], G, [ours, theirs])
            beam.kill()
            await has(pg, G, [ours])
            await until(lambda: node.nodes("connected") == [])
            assert pg.peers() == []
            beam.close()
            beam = await trio.to_thread.run_sync(fresh_beam, beam.name)


async def test_two_beams_and_two_of_ours(opened: NodeOpener, fresh_beam: BeamFactory) -> None:
    """One of ours is hidden, one visible. Nobody hands on what others have told: each is connected to each."""
    one, two = fresh_beam(), fresh_beam()
    async with opened() as hidden, opened(visible="passive") as visible, scope_on(one) as at_one:
        async with scope_on(two, at_one.name) as at_two, open_pg(hidden, at_one.name) as pg_hidden:
            async with open_pg(visible, at_one.name) as pg_visible:
                scopes: list[Pg | BeamScope] = [at_one, at_two, pg_hidden, pg_visible]
                await connected(one, two)
                for node in (hidden, visible):
                    for beam in (one, two):
                        await node.connect(beam.name)
                await hidden.connect(visible.name)
                members = [await joined(at_one), await joined(at_two), hidden.spawn(wait), visible.spawn(wait)]
                pg_hidden.join(G, members[2])
                pg_visible.join(G, members[3])
                await all_have(scopes, G, members)
                await hidden.disconnect(one.name)
                await has_lost(one, hidden.name)
                await all_have([at_one], G, [members[0], members[1], members[3]])
                await all_have([pg_hidden], G, members[1:])
                await all_have([at_two, pg_visible], G, members)
                await hidden.connect(one.name)
                await all_have(scopes, G, members)
                for node, pid in ((hidden, members[2]), (visible, members[3])):
                    node.exit(pid, Atom("kill"))
                await at_one.kill(members[0])
                await all_have(scopes, G, [members[1]])


def root_of(release: int) -> Path:
    root = find_otp_roots().get(release)
    if root is None:
        pytest.fail(f"OTP {release} is not installed: run tools/get_otp.py {release}", pytrace=False)
    return root


@pytest.mark.parametrize("visible", [False, "passive"], ids=["hidden", "visible"])
async def test_two_releases_in_one_scope(
    opened: NodeOpener, fresh_beam: BeamFactory, otp: Otp, epmd: Epmd, cookie: str, visible: Any
) -> None:
    for other in NEIGHBOURS[otp.release]:
        one = await trio.to_thread.run_sync(fresh_beam)
        name = f"of{other}_{one.name}"
        with await trio.to_thread.run_sync(Beam.start, root_of(other), name, cookie, epmd.port) as two:
            async with scope_on(one) as at_one, scope_on(two, at_one.name) as at_two, opened(visible=visible) as node:
                async with open_pg(node, at_one.name) as pg:
                    await connected(one, two)
                    for beam in (one, two):
                        await node.connect(beam.name)
                    await get_on(node, pg, at_one, at_two)


async def get_on(node: Node, pg: Pg, at_one: BeamScope, at_two: BeamScope) -> None:
    """Join, leave and end in a scope of three nodes."""
    members = [await joined(at_one), await joined(at_two), node.spawn(wait)]
    pg.join(G, members[2])
    await all_have([at_one, at_two, pg], G, members)
    await at_two.kill(members[1])
    await at_one.call("leave", G, members[0])
    await all_have([at_one, at_two, pg], G, [members[2]])
    assert pg.leave(G, members[2])
    await all_have([at_one, at_two, pg], G, [])


@pytest.fixture(params=[False, "passive"], ids=["hidden", "visible"])
def visible(request: pytest.FixtureRequest) -> Any:
    return request.param


@asynccontextmanager
async def far_apart(cookie: str, visible: Any, *args: str) -> AsyncIterator[tuple[Node, Beam, Beam]]:
    """A node of ours, and BEAMs of OTP 25 and 29 that connect to nobody by themselves."""
    options: dict[str, Any] = {
        "args": ("-connect_all", "false", *args),
        "environment": {"ERL_CRASH_DUMP_SECONDS": "0"},
    }
    with Epmd.start(root_of(25)) as epmd:
        with (
            Beam.start(root_of(25), "old@127.0.0.1", cookie, epmd.port, **options) as old,
            Beam.start(root_of(29), "new@127.0.0.1", cookie, epmd.port, **options) as new,
        ):
            here = EpmdAddress(port=epmd.port)
            async with open_node("py@127.0.0.1", cookie=cookie, epmd=here, visible=visible) as node:
                yield node, old, new


@pytest.mark.interop
async def test_otp_25_and_29_with_ours_between(cookie: str, visible: Any) -> None:
    """Both have a peer in us. With each other they cannot have one: the discover of 29 ends the scope of 25."""
    async with far_apart(cookie, visible) as (node, old, new), scope_on(new) as at_new:
        at_old = BeamScope(old, at_new.name)
        first = await at_old.start()
        async with open_pg(node, at_new.name, discover_interval=0.2) as pg:
            for beam in (old, new):
                await node.connect(beam.name)
            members = [await joined(at_old), await joined(at_new), node.spawn(wait)]
            pg.join(G, members[2])
            await all_have([pg], G, members)
            await all_have([at_old], G, [members[0], members[2]])
            await all_have([at_new], G, members[1:])
            assert await at_old.pid() == first
            await connected(new, old)
            await has(pg, G, members[1:])
            assert await at_old.pid() == Atom("undefined")
            await all_have([at_new], G, members[1:])
            # The scope of OTP 25, started again, has a peer in us as before, as long as 29 stays away.
            assert await is_among_nodes(new, old.name)
            assert await new.eval("erlang:disconnect_node(N)", N=Atom(old.name)) is True
            await has_lost(old, new.name)
            await at_old.start()
            members[0] = await joined(at_old)
            await all_have([pg], G, members)
            await all_have([at_old], G, [members[0], members[2]])


@pytest.mark.interop
async def test_otp_25_ends_when_it_meets_29_and_pg_is_its_kernels(cookie: str, visible: Any) -> None:
    """Whether we are there or not: it was as well with us as with 29, until those two were connected."""
    async with far_apart(cookie, visible, "-kernel", "start_pg", "true") as (node, old, new), open_pg(node) as pg:
        at_old, at_new = BeamScope(old, Atom("pg")), BeamScope(new, Atom("pg"))
        for beam in (old, new):
            await node.connect(beam.name)
        members = [await joined(at_old), await joined(at_new), node.spawn(wait)]
        pg.join(G, members[2])
        await all_have([pg], G, members)
        await all_have([at_old], G, [members[0], members[2]])
        await all_have([at_new], G, members[1:])
        await new.eval("net_kernel:connect_node(N)", N=Atom(old.name))
        await has(pg, G, members[1:])
        with pytest.raises(BeamDiedError):
            await until(lambda: answers_no_more(old))
        await all_have([pg, at_new], G, members[1:])


async def answers_no_more(beam: Beam) -> bool:
    """Raises BeamDiedError when the BEAM has ended."""
    await beam.eval("ok")
    return False
