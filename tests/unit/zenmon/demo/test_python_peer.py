"""What the demo's second Python node answers; the same as the BEAM's script."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from erlang_interop import Atom, CalleeExited, Exit
from tests.unit.zenmon.test_app import subscribed
from zenmon_node import Compatibility
from zenmon_node.demo.peers import SERVER
from zenmon_node.demo.python_peer import DemoServer

if TYPE_CHECKING:
    from erlang_interop import Process
    from tests.unit.zenmon.conftest import Pair

DEST = (SERVER, "there@127.0.0.1")


async def test_workers(pair: Pair) -> None:
    await DemoServer.start(pair.there, name=SERVER)
    workers = await pair.here.call(DEST, (Atom("start_workers"), 5))
    assert len(set(workers)) == 5
    async with pair.zen.watch(workers) as downs:
        assert await pair.zen.connect("there@127.0.0.1") is Compatibility.COMPATIBLE
        await subscribed(pair.there_zen, 5)
        assert await pair.here.call(DEST, Atom("kill_workers")) == Atom("ok")
        with trio.fail_after(60):
            assert [str(down.reason) async for down in downs] == ["killed"] * 5


async def test_watching(pair: Pair) -> None:
    await DemoServer.start(pair.there, name=SERVER)
    here = pair.here
    workers = [here.spawn(_worker) for _ in range(3)]
    alone, nobody = here.spawn(_worker), (Atom("nobody"), here.name)
    native = [alone, nobody]
    assert await here.call(DEST, (Atom("watch"), here.name, native, workers)) == Atom("pong")
    for worker in [*workers, alone]:
        here.send(worker, Atom("stop"))
    downs, summaries = await here.call(DEST, Atom("seen"))
    assert downs == [(nobody, Atom("noproc")), (alone, Atom("done"))]
    assert {one for summary in summaries for one in summary} == {(worker, Atom("done")) for worker in workers}


async def test_anything_else_ends_it(pair: Pair) -> None:
    await DemoServer.start(pair.there, name=SERVER)
    with pytest.raises(CalleeExited, match="bad_call"):
        await pair.here.call(DEST, Atom("nonsense"))


async def _worker(process: Process) -> None:
    await process.receive()
    raise Exit(Atom("done"))
