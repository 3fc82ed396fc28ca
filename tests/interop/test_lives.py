"""A hundred thousand lives of Python processes leave nothing behind; nor does a BEAM that dies in the midst of them."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import trio

from erlang_interop import Atom, Exit, InlineServer, Node, Pid, Process
from tests.interop.collectors import leftovers, until

if TYPE_CHECKING:
    from erlang_interop.testing.beam import Beam
    from tests.conftest import BeamFactory
    from tests.interop.conftest import NodeOpener

DOWN, EXIT, NOCONNECTION, DONE = Atom("DOWN"), Atom("EXIT"), Atom("noconnection"), Atom("done")

#: Processes of one kind in one batch, and batches in a round.
BATCH, BATCHES = 5_000, 5
#: Seconds for what ten thousand processes do.
LONG = 60.0


class Mortal(InlineServer):
    """Ends at its first message."""

    def handle_message(self, message: Any) -> None:
        raise Exit(message)


async def mortal(process: Process) -> None:
    raise Exit(await process.receive())


async def live_and_die(node: Node, me: Process, watcher: Pid) -> None:
    """One batch: as many inline servers as tasks."""
    pids = [node.start_inline(Mortal()) for _ in range(BATCH)]
    pids += [node.spawn(mortal) for _ in range(BATCH)]
    me.send(watcher, (Atom("watch"), me.pid, pids))
    assert await me.receive(timeout=LONG) == (Atom("watching"), len(pids))
    assert leftovers(node) == {"links": len(pids), "watchers": len(pids), "peer_entries": 2 * len(pids)}
    for pid in pids:
        node.send(pid, DONE)
    assert await me.receive(timeout=LONG) == (Atom("ended"), {DONE: 2 * len(pids)}, [])


def blocks() -> int:
    """Memory in use, in blocks of Python's allocator."""
    gc.collect()
    return sys.getallocatedblocks()


@pytest.mark.slow
@pytest.mark.rule("Identifiers: 100,000 processes that lived leave no entry behind")
async def test_a_hundred_thousand_lives_leave_nothing_behind(node: Node, beam: Beam) -> None:
    watcher = await beam.eval("life_watcher:start()")
    in_use = []
    async with node.open_process() as me:
        idle = node.statistics()
        for _round in range(2):
            for _ in range(BATCHES):
                await live_and_die(node, me, watcher)
            assert {**node.statistics(), "peers": 0} == {**idle, "peers": 0}
            assert await beam.eval("life_watcher:holds(W)", W=watcher) == ([], [], 0)
            assert await beam.eval("signal_driver:entries(N)", N=node.name) == ([], [])
            in_use.append(blocks())
    # One block for each process that was left behind would be 50,000 more.
    assert in_use[1] < in_use[0] + 5_000, in_use
    await beam.eval("exit(W, kill)", W=watcher)


@pytest.mark.rule("Control messages: each link and monitor fires once when a node is killed")
@pytest.mark.parametrize("heard", [0, 1, 1_000], ids=lambda heard: f"after {heard} signals")
async def test_a_beam_that_is_killed_fires_each_link_and_monitor_once(
    opened: NodeOpener, fresh_beam: BeamFactory, heard: int
) -> None:
    beam = await trio.to_thread.run_sync(fresh_beam)
    count = 5_000
    async with opened() as node, node.open_process() as me:
        me.trap_exit = True
        remote: Any = await beam.eval("plain_processes:spawn_many(N)", N=count)
        watcher = await beam.eval("life_watcher:start()")
        ours = [node.start_inline(Mortal()) for _ in range(count)]
        # Under way at once: its links and monitors on ours, ours on its, and the ends of every other one of its.
        node.send(watcher, (Atom("watch"), me.pid, ours))
        refs = {}
        killed = False

        def has_heard() -> bool:
            """Of so many ends. One message may be the watcher's, which is none."""
            return heard == 0 or len(me.mailbox) > heard

        for number, pid in enumerate(remote):
            me.link(pid)
            refs[me.monitor(pid)] = pid
            if number % 2:
                me.send(pid, (Atom("finish"), DONE))
            if number % 100 == 99:
                await trio.lowlevel.checkpoint()
                if not killed and has_heard():
                    beam.kill()
                    killed = True
        if not killed:
            await until(has_heard, LONG)
            beam.kill()
        downs: Counter[Any] = Counter()
        exits: Counter[Any] = Counter()
        reasons = set()
        await until(lambda: leftovers(node) == {}, LONG)  # which is when all have fired
        while len(me.mailbox):
            match me.receive_nowait():
                case (Atom("DOWN"), ref, _, pid, reason):
                    assert refs[ref] == pid
                    downs[ref] += 1
                    reasons.add(reason)
                case (Atom("EXIT"), pid, reason):
                    exits[pid] += 1
                    reasons.add(reason)
                case other:
                    assert other == (Atom("watching"), count)
        assert downs == Counter(list(refs))
        assert exits == Counter(remote)
        assert reasons == ({DONE, NOCONNECTION} if heard else {NOCONNECTION} | (reasons & {DONE}))
        # Those of ours that it had linked to ended with the connection; the others can be ended still.
        for pid in ours:
            node.send(pid, DONE)
        assert not any(node.is_alive(pid) for pid in ours)
