"""Connections that come and go, silence, rest and names: faults of the original's Local that ours does not have.

The rest of them is in ``test_zenmon_faults.py``; docs/zenmonitor-faults.md has them all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from erlang_interop import Atom
from erlang_interop.runtime.events import NodeDown, NodeUp
from tests.interop.collectors import disconnected_by, has_lost, is_among_nodes
from tests.interop.zen_faults import all_fire, finish, spawn, waits
from tests.interop.zen_peer import FAST, Dial
from tests.interop.zenmon import (
    DIED,
    NODEDOWN,
    NOPROC,
    batchers_gone,
    down,
    next_message,
    nothing_left,
    subscriptions,
    until,
)
from zenmon_node import Cached, CachedCompatibility, Compatibility, ZenMonitor, open_zen_monitor
from zenmon_node import messages as m

if TYPE_CHECKING:
    from erlang_interop import Process
    from erlang_interop.terms import Pid, Reference
    from erlang_interop.testing.beam import Beam
    from tests.conftest import BeamFactory
    from tests.interop.conftest import NodeOpener

COMPATIBLE, INCOMPATIBLE = Compatibility.COMPATIBLE, Compatibility.INCOMPATIBLE


# ----------------------------------------------------------------------------------------------- links that come and go


@pytest.mark.parametrize("whose", ["ours", "theirs"])
async def test_fault_7_11_a_link_that_comes_back_at_once_doubles_nothing(
    zen: ZenMonitor, me: Process, proxy: Beam, whose: str
) -> None:
    """The original: rows of before stay at the Proxy beside the new ones. Here: one DOWN each, with the real reason."""
    (pid,) = await spawn(proxy)
    for _ in range(5):
        ref = zen.monitor(pid, subscriber=me)
        await until(lambda: not zen.statistics().waiting_instructions, zen)
        assert await is_among_nodes(proxy, zen.node.name)
        if whose == "ours":
            await zen.node.disconnect(proxy.name)
        else:
            await disconnected_by(proxy, zen.node)
        assert await next_message(me) == down(ref, pid, NODEDOWN)
        assert await zen.connect(proxy.name) is COMPATIBLE
    ref = zen.monitor(pid, subscriber=me)
    await until(lambda: not zen.statistics().waiting_instructions, zen)
    await finish(proxy, pid)
    await all_fire(me, {ref: pid})
    await nothing_left(zen)
    assert len(me.mailbox) == 0


async def test_fault_7_17_late_news_of_a_lost_link_hits_no_new_monitor(
    zen: ZenMonitor, me: Process, proxy: Beam
) -> None:
    """The original: a monitor made between two messages of one disconnect fires nodedown, though its node is back."""
    lost: list[NodeDown] = []
    watched: list[tuple[Reference, Pid]] = []
    spare = await spawn(proxy, 6)

    def at_once(event: NodeUp | NodeDown) -> None:
        if isinstance(event, NodeDown):
            lost.append(event)
        elif event.name == Atom(proxy.name):
            pid = spare.pop()
            watched.append((zen.monitor(pid, subscriber=me), pid))

    unwatch = zen.node.watch_nodes(at_once)
    for number in range(1, 7):
        assert await is_among_nodes(proxy, zen.node.name)
        if number % 2:
            await disconnected_by(proxy, zen.node)
        else:
            await zen.node.disconnect(proxy.name)
        await has_lost(proxy, zen.node.name)
        await batchers_gone(proxy)
        await zen.node.connect(proxy.name)
        await until(lambda: len(watched) == number, zen)  # noqa: B023 - awaited here
        ref, pid = watched[-1]
        await subscriptions(proxy, 1)
        zen.node.send(m.LOCAL, lost[-1])  # the same news once more, and late
        await finish(proxy, pid)
        assert await next_message(me) == down(ref, pid, DIED)
    unwatch()
    await nothing_left(zen)


async def test_fault_hidden_nodes_can_be_monitored(opened: NodeOpener, fresh_beam: BeamFactory) -> None:
    """The original: a node it sees as hidden fires nodedown, whatever runs there. Here: a connection is enough."""
    beam = fresh_beam(hidden=True)
    await beam.eval("zen_proxy:start(zen_settings:fast())")
    async with (
        opened(visible="passive") as visible,
        open_zen_monitor(visible, FAST) as zen,
        visible.open_process() as me,
    ):
        assert await zen.connect(beam.name) is COMPATIBLE
        (pid,) = await spawn(beam)
        ref = zen.monitor(pid, subscriber=me)
        await subscriptions(beam, 1)
        await finish(beam, pid)
        assert await next_message(me) == down(ref, pid, DIED)


# ---------------------------------------------------------------------------------------------- silence, rest and names


async def test_fault_7_13_a_silent_proxy_raises_nothing_and_holds_up_nobody(
    zen: ZenMonitor, me: Process, proxy: Beam, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The original: ``connect`` exits its caller, the Connector is deaf meanwhile. Here: a verdict for all callers."""
    monkeypatch.setattr("zenmon_node.local.remote.PING_TIMEOUT", 3600.0)
    verdicts: list[Compatibility] = []

    async def connect() -> None:
        verdicts.append(await zen.connect(silent.name))

    async with dial() as silent, trio.open_nursery() as tasks:
        for _ in range(3):
            tasks.start_soon(connect)
        (_, connector, _, _), _ = await silent.hear()
        _, (_, (_, tag), request) = await silent.hear()
        assert request == m.PING
        waiting = zen.monitor(silent.process(2), subscriber=me)
        withdrawn = zen.monitor(silent.process(3), subscriber=me)
        zen.demonitor(withdrawn)
        (pid,) = await spawn(proxy)
        ref = zen.monitor(pid, subscriber=me)
        await subscriptions(proxy, 1)
        await finish(proxy, pid)
        assert await next_message(me) == down(ref, pid, DIED)
        assert verdicts == []
        await silent.tell(connector, (tag, Atom("what")))
        assert await next_message(me) == down(waiting, silent.process(2), NODEDOWN)
    assert verdicts == [INCOMPATIBLE] * 3
    monkeypatch.setattr("zenmon_node.local.remote.PING_TIMEOUT", 0.05)
    monkeypatch.setattr("zenmon_node.local.remote.BASE_PENALTY", 60.0)  # no slow machine sees its end
    async with dial() as silent:
        assert await zen.connect(silent.name) is INCOMPATIBLE
        assert zen.cached_compatibility(silent.name) == CachedCompatibility(Cached.INCOMPATIBLE, 1)


class Turns(trio.abc.Instrument):
    """Counts the turns of the loop."""

    def __init__(self) -> None:
        self.count = 0

    def after_io_wait(self, timeout: float) -> None:
        self.count += 1


async def test_fault_7_14_idle_servers_do_not_wake(opened: NodeOpener, beam: Beam) -> None:
    """The original: Connectors and Batchers tick for ever, in this test every millisecond. Here: when there is work."""
    settings = FAST.changed(connector_sweep_interval=1, batcher_sweep_interval=1, demand_interval=1)
    await beam.eval("zen_proxy:start(zen_settings:fast())")
    async with (
        opened(visible="passive") as node,
        open_zen_monitor(node, settings) as zen,
        node.open_process() as me,
    ):
        await zen.connect(beam.name)
        dies, stays = await spawn(beam, 2)
        for pid in (dies, stays):
            zen.monitor(pid, subscriber=me)
        local = node.spawn(waits)
        for target in (local, "nobody"):
            zen.monitor(target, subscriber=me)
        await subscriptions(beam, 2)
        await finish(beam, dies)
        assert {(await next_message(me))[4][1] for _ in range(2)} == {DIED, NOPROC}
        turns = Turns()
        trio.lowlevel.add_instrument(turns)
        await trio.sleep(0.5)
        trio.lowlevel.remove_instrument(turns)
        assert turns.count < 100
        assert zen.statistics().monitors == 2
    await beam.eval("zen_proxy:stop()")


async def test_fault_7_14_a_connector_of_a_node_that_is_gone_goes(zen: ZenMonitor, me: Process, dial: Dial) -> None:
    """The original: one process and one row for every node ever seen. Here: they go, and come back when needed."""
    zen.configure(hibernation_threshold=1)
    processes = zen.node.statistics()["processes"]
    names = []
    for _ in range(20):
        async with dial() as peer:
            ref = zen.monitor(peer.process(2), subscriber=me)
            await peer.answer_ping()
            await peer.hear_instructions(1)
            await peer.hang_up()
            assert await next_message(me) == down(ref, peer.process(2), NODEDOWN)
            names.append(peer.name)
    await until(lambda: zen.statistics().connectors == 0, zen)
    assert zen.remotes() == []
    assert {zen.cached_compatibility(name) for name in names} == {CachedCompatibility(Cached.MISS)}
    await until(lambda: zen.node.statistics()["processes"] == processes, zen)
    async with dial(name=names[0].name) as peer:
        zen.monitor(peer.process(2), subscriber=me)
        await peer.answer_ping()
        assert await peer.hear_instructions(1) == [("subscribe", peer.process(2))]


async def test_fault_7_15_a_name_of_one_underscore_is_a_name(zen: ZenMonitor, me: Process, proxy: Beam) -> None:
    """The original: it matches every name in its tables, and never fires. Here: one name, registered or not."""
    wild, other = (Atom("_"), Atom(proxy.name)), (Atom("other"), Atom(proxy.name))
    await proxy.eval("plain_processes:spawn_named(other)")
    refs = [zen.monitor(target, subscriber=me) for target in (other, wild)]
    assert await next_message(me) == down(refs[1], wild, NOPROC)
    await proxy.eval("plain_processes:spawn_named('_')")
    refs.append(zen.monitor(wild, subscriber=me))
    await subscriptions(proxy, 2)
    await finish(proxy, Atom("other"))
    assert await next_message(me) == down(refs[0], other, DIED)
    await finish(proxy, Atom("_"))
    assert await next_message(me) == down(refs[2], wild, DIED)
    for name in ("$1", "_"):  # and on this node
        local = zen.node.spawn(waits, name=name)
        ref = zen.monitor(name, subscriber=me)
        await until(lambda: zen.statistics().subscriptions == 1, zen)
        zen.node.exit(local, DIED)
        assert await next_message(me) == down(ref, (Atom(name), zen.node.name), DIED)
    await nothing_left(zen)


async def test_fault_7_18_who_is_not_the_owner_is_told_apart(zen: ZenMonitor, me: Process, proxy: Beam) -> None:
    """The original: the demonitor of another process does nothing. Here: so does one that names another process, and
    code that is no process and names none, as the owner's supervisor or a shell, does take it back.
    """
    pids = await spawn(proxy, 2)
    refs = [zen.monitor(pid, subscriber=me) for pid in pids]
    await subscriptions(proxy, 2)
    async with zen.node.open_process() as another:
        assert zen.demonitor(refs[0], flush=True, subscriber=another) is True
    assert zen.demonitor(refs[1]) is True
    await subscriptions(proxy, 1)
    await finish(proxy, *pids)
    await all_fire(me, {refs[0]: pids[0]})
    await nothing_left(zen)


async def test_fault_7_18_nodedowns_come_in_the_order_of_the_monitors(zen: ZenMonitor, me: Process, dial: Dial) -> None:
    """The original: in the order of pids. Here: first monitored, first told."""
    async with dial() as peer, trio.open_nursery() as tasks:
        tasks.start_soon(zen.connect, peer.name)
        await peer.answer_ping()
        numbers = [5, 9, 1, 7, 300, 2]
        refs = [zen.monitor(peer.process(number), subscriber=me) for number in numbers]
        await peer.hear_instructions(len(numbers))
        await peer.hang_up()
        assert [(await next_message(me))[1] for _ in refs] == refs
