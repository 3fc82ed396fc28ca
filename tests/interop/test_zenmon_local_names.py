"""Names that processes of one node monitor more than once, on a BEAM and on the own node: each is followed.

That a name which has moved is, is in ``test_zenmon_faults.py``, for the original does not do that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from erlang_interop import Atom
from tests.interop.zen_faults import finish, kill, waits
from tests.interop.zenmon import DIED, NODEDOWN, NOPROC, down, next_message, nothing_left, subscriptions, until

if TYPE_CHECKING:
    import pytest

    from erlang_interop import Process
    from erlang_interop.terms import Reference
    from erlang_interop.testing.beam import Beam
    from tests.conftest import BeamFactory
    from zenmon_node import ZenMonitor

WORKER = Atom("worker")


async def monitored(beam: Beam, name: Atom, count: int) -> None:
    """Wait until so many native monitors are set on a process of the BEAM."""
    assert await beam.eval("plain_processes:await_monitored(Name, Count, 20000)", Name=name, Count=count) is True


async def established(zen: ZenMonitor, me: Process, beam: Beam) -> tuple[Reference, Reference]:
    """A subscription of WORKER and, that being in place, a native monitor of it."""
    name = (WORKER, Atom(beam.name))
    await beam.eval("plain_processes:spawn_named(worker)")
    first = zen.monitor(name, subscriber=me)
    await subscriptions(beam, 1)
    second = zen.monitor(name, subscriber=me)
    await monitored(beam, WORKER, 2)
    return first, second


async def test_a_thousand_monitors_are_one_native_monitor(zen: ZenMonitor, me: Process, proxy: Beam) -> None:
    name = (WORKER, Atom(proxy.name))
    first, second = await established(zen, me, proxy)
    refs = [zen.monitor(name, subscriber=me) for _ in range(1000)]
    await monitored(proxy, WORKER, 3)
    await until(lambda: not zen.statistics().waiting_instructions, zen)
    await monitored(proxy, WORKER, 3)
    assert zen.remotes()[0].targets == 1
    await finish(proxy, WORKER)
    got = [await next_message(me) for _ in range(1002)]
    expected = [down(ref, name, DIED) for ref in (first, second, *refs)]
    assert sorted(got, key=str) == sorted(expected, key=str)
    assert len(me.mailbox) == 0
    await nothing_left(zen)


async def test_a_name_that_nobody_has_any_more_is_noproc(zen: ZenMonitor, me: Process, proxy: Beam) -> None:
    name = (WORKER, Atom(proxy.name))
    first, second = await established(zen, me, proxy)
    owner = await proxy.eval("Owner = whereis(worker), unregister(worker), Owner")
    third = zen.monitor(name, subscriber=me)
    assert await next_message(me) == down(third, name, NOPROC)
    await finish(proxy, owner)
    got = [await next_message(me), await next_message(me)]
    assert sorted(got, key=str) == sorted([down(first, name, DIED), down(second, name, DIED)], key=str)
    await nothing_left(zen)


async def test_the_reason_is_cut_down_here(zen: ZenMonitor, me: Process, proxy: Beam) -> None:
    name = (WORKER, Atom(proxy.name))
    first, second = await established(zen, me, proxy)
    zen.configure(max_binary_size=8)
    await proxy.eval("plain_processes:finish(worker, {big, <<0:16000>>})")
    got = [await next_message(me), await next_message(me)]
    by_proxy, here = (Atom("big"), bytes(1021) + b"..."), (Atom("big"), bytes(5) + b"...")
    assert sorted(got, key=str) == sorted([down(first, name, by_proxy), down(second, name, here)], key=str)


async def test_the_loss_of_the_node_is_one_nodedown_each(zen: ZenMonitor, me: Process, fresh_beam: BeamFactory) -> None:
    beam = fresh_beam()
    await beam.eval("zen_proxy:start(zen_settings:fast())")
    await zen.connect(beam.name)
    name = (WORKER, Atom(beam.name))
    refs = list(await established(zen, me, beam))
    refs.append(zen.monitor(name, subscriber=me))
    await monitored(beam, WORKER, 3)
    refs += [zen.monitor(name, subscriber=me) for _ in range(3)]
    beam.kill()
    got = [await next_message(me) for _ in refs]
    assert sorted(got, key=str) == sorted([down(ref, name, NODEDOWN) for ref in refs], key=str)
    await nothing_left(zen)
    assert len(me.mailbox) == 0


async def test_the_last_demonitor_gives_the_native_monitor_back(zen: ZenMonitor, me: Process, proxy: Beam) -> None:
    name = (WORKER, Atom(proxy.name))
    first, second = await established(zen, me, proxy)
    async with zen.node.open_process() as another:
        others = [zen.monitor(name, subscriber=me), zen.monitor(name, subscriber=another)]
        await monitored(proxy, WORKER, 3)
        zen.demonitor(second, subscriber=me)
        await monitored(proxy, WORKER, 2)
        zen.demonitor(others[0], subscriber=me)
    await monitored(proxy, WORKER, 1)  # the other's owner has ended, and taken it along
    await finish(proxy, WORKER)
    assert await next_message(me) == down(first, name, DIED)
    await nothing_left(zen)
    assert len(me.mailbox) == 0


async def test_a_native_monitor_outlives_the_proxy_but_not_its_connector(
    zen: ZenMonitor, me: Process, proxy: Beam, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zenmon_node.local.remote.BASE_PENALTY", 60.0)  # a slow BEAM has a minute to restart it
    name = (WORKER, Atom(proxy.name))
    first, second = await established(zen, me, proxy)
    await proxy.eval("zen_proxy:kill()")
    assert await next_message(me) == down(first, name, NODEDOWN)
    third = zen.monitor(name, subscriber=me)
    await subscriptions(proxy, 1)
    kill(zen, zen._local._servers[Atom(proxy.name)].process.pid)
    got = [await next_message(me), await next_message(me)]
    assert sorted(got, key=str) == sorted([down(ref, name, NODEDOWN) for ref in (second, third)], key=str)
    await finish(proxy, WORKER)
    await nothing_left(zen)


async def test_names_of_the_own_node_are_followed(zen: ZenMonitor, me: Process) -> None:
    node = zen.node
    name = (WORKER, node.name)
    first_owner = node.spawn(waits, name="worker")
    first = zen.monitor("worker", subscriber=me)
    await until(lambda: zen.statistics().subscriptions == 1, zen)
    node.unregister("worker")
    nobody = zen.monitor(name, subscriber=me)
    assert await next_message(me) == down(nobody, name, NOPROC)
    second_owner = node.spawn(waits, name="worker")
    seconds = [zen.monitor("worker", subscriber=me) for _ in range(3)]
    await until(lambda: not zen.statistics().waiting_instructions, zen)
    zen.demonitor(seconds.pop(), subscriber=me)
    node.exit(second_owner, DIED)
    assert [await next_message(me) for _ in seconds] == [down(ref, name, DIED) for ref in seconds]
    node.exit(first_owner, Atom("first"))
    assert await next_message(me) == down(first, name, Atom("first"))
    await nothing_left(zen)
    assert len(me.mailbox) == 0
