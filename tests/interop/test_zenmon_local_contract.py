"""ZenMonitor's contract, signal by signal: what our Local and its Connectors say, and make of what they hear.

The other node is a socket that plays a Proxy and sees every signal (``zen_peer.py``). What our Local does with a BEAM
is in ``test_zenmon_local.py``. What is expected was observed on genuine nodes of ZenMonitor 2.1.0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
import trio

from erlang_interop import Atom, Exit, Pid
from erlang_interop.flags import OFFERED, DFlag
from erlang_interop.wire.control import NO_PAYLOAD, Op
from tests.interop.zen_peer import FAST, VISIBLE, Dial, ZenPeer, dialling
from tests.interop.zenmon import DIED, NODEDOWN, NOPROC, down, next_message, nothing_left, until
from zenmon_node import Cached, CachedCompatibility, Compatibility, ZenMonitor, open_zen_monitor
from zenmon_node import messages as m

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from erlang_interop import Process
    from erlang_interop.terms import Term
    from erlang_interop.testing.beam import Beam, Epmd
    from tests.interop.conftest import NodeOpener

COMPATIBLE: Final = Compatibility.COMPATIBLE


@pytest.fixture
async def zen(opened: NodeOpener) -> AsyncIterator[ZenMonitor]:
    """ZenMonitor on a visible node of ours, with short intervals."""
    async with opened(visible="passive") as node, open_zen_monitor(node, FAST) as zen:
        yield zen


@pytest.fixture
def long_penalty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute from the first failure on, so that no slow machine sees its end."""
    monkeypatch.setattr("zenmon_node.local.remote.BASE_PENALTY", 60.0)


async def connected(zen: ZenMonitor, peer: ZenPeer) -> Pid:
    """Have our Connector find the peer compatible; gives the Connector."""
    async with trio.open_nursery() as tasks:
        tasks.start_soon(zen.connect, peer.name)
        connector = await peer.answer_ping()
    assert zen.cached_compatibility(peer.name) == CachedCompatibility(Cached.COMPATIBLE)
    return connector


@pytest.mark.parametrize("flags", [OFFERED, VISIBLE], ids=["hidden", "visible"])
async def test_a_connector_says_what_the_original_says(zen: ZenMonitor, me: Process, dial: Dial, flags: DFlag) -> None:
    """A monitor and a ping; then each target once; the last reference takes it back."""
    async with dial(flags=flags) as peer, trio.open_nursery() as tasks:
        tasks.start_soon(zen.connect, peer.name)
        (op, connector, proxy, monitor), _ = await peer.hear()
        assert (op, proxy) == (Op.MONITOR_P, m.PROXY)
        (op, sender, unused, name), (call, (caller, tag), request) = await peer.hear()
        assert (op, sender, unused, name) == (Op.REG_SEND, connector, Atom(""), m.PROXY)
        assert (call, caller, request) == (m.GEN_CALL, connector, m.PING)
        assert monitor in (tag, getattr(tag, "tail", None))
        await peer.tell(connector, (tag, m.PONG))
        await until(lambda: zen.compatibility_for_node(peer.name) is COMPATIBLE, zen)
        first, second = peer.process(2), (Atom("name"), peer.name)
        refs = [zen.monitor(first, subscriber=me) for _ in range(3)]
        control, cast = await peer.hear()
        assert control == (Op.REG_SEND, connector, Atom(""), m.PROXY)
        assert cast == (m.GEN_CAST, (m.PROCESS, connector, [(m.SUBSCRIBE, first)]))
        zen.demonitor(refs[1])
        zen.monitor(first, subscriber=me)
        zen.demonitor(refs[0])
        zen.monitor(second, subscriber=me)
        assert await peer.hear_instructions(1) == [("subscribe", second)]
        assert zen.cached_compatibility(peer.name) == CachedCompatibility(Cached.COMPATIBLE)
        # The monitor on the name is the one that stays: its end is the end of the Proxy.
        await peer.say((Op.PAYLOAD_MONITOR_P_EXIT, m.PROXY, connector, monitor), Atom("killed"))
        await until(lambda: zen.compatibility_for_node(peer.name) is not COMPATIBLE, zen)


async def test_monitor_demonitor_monitor_crosses_as_it_was_said(zen: ZenMonitor, me: Process, dial: Dial) -> None:
    """Nothing is merged; five references of a subscriber that dies are withdrawn as one."""
    async with dial() as peer:
        await connected(zen, peer)
        target = peer.process(2)
        ref = zen.monitor(target, subscriber=me)
        zen.demonitor(ref)
        zen.monitor(target, subscriber=me)
        ops = [op for op, said in await peer.hear_instructions(3) if said == target]
        assert ops == ["subscribe", "unsubscribe", "subscribe"]
        async with zen.node.open_process() as another:
            for _ in range(5):
                zen.monitor(peer.process(3), subscriber=another)
            assert await peer.hear_instructions(1) == [("subscribe", peer.process(3))]
        assert await peer.hear_instructions(1) == [("unsubscribe", peer.process(3))]
        assert zen.statistics().monitors == 1


async def test_12_instructions_in_chunks_of_5(opened: NodeOpener, epmd: Epmd, cookie: str) -> None:
    """What does not fit stays queued, in order, for the next sweeps; an interval lies between them."""
    settings = FAST.changed(connector_sweep_interval=50, connector_chunk_size=5)
    async with opened() as node, open_zen_monitor(node, settings) as zen, dialling(node, epmd.port, cookie) as peer:
        await connected(zen, peer)
        targets = [peer.process(number) for number in range(10, 22)]
        started = trio.current_time()
        async with zen.watch(targets):
            batches = [(await peer.hear())[1][1][2] for _ in range(3)]
            assert [len(batch) for batch in batches] == [5, 5, 2]
            assert [target for batch in batches for _, target in batch] == targets
            assert trio.current_time() - started >= 0.1  # two intervals lie between three casts


NONSENSE: Final[tuple[Any, ...]] = (
    123,
    1.5,
    b"name",
    None,
    True,
    (),
    (Atom("n"),),
    (Atom("n"), b"x"),
    (1, Atom("n")),
    [Atom("n")],
    {},
)


async def test_only_well_formed_instructions_leave(zen: ZenMonitor, me: Process, dial: Dial) -> None:
    """What can be no target is refused where it is said; names as text become atoms; no other node's pid."""
    async with dial() as peer:
        await connected(zen, peer)
        for nonsense in NONSENSE:
            with pytest.raises(TypeError, match=r"cannot monitor|a name is a str or an Atom"):
                zen.monitor(nonsense, subscriber=me)
        elsewhere = zen.monitor(("name", "elsewhere@127.0.0.1"), subscriber=me)
        zen.monitor(("name", peer.name.name), subscriber=me)
        zen.monitor(peer.process(5), subscriber=me)
        said = await peer.hear_instructions(2)
        assert said == [("subscribe", (Atom("name"), peer.name)), ("subscribe", peer.process(5))]
        assert await next_message(me) == down(elsewhere, (Atom("name"), Atom("elsewhere@127.0.0.1")), NODEDOWN)


async def test_summaries(zen: ZenMonitor, me: Process, dial: Dial) -> None:
    """Taken from any process, about its own node alone; unknown, empty, doubled ones change nothing."""
    async with dial() as peer:
        connector = await connected(zen, peer)
        named = (Atom("name"), peer.name)
        targets: list[Any] = [peer.process(2), named, peer.process(4)]
        refs = [zen.monitor(target, subscriber=me) for target in (*targets, targets[0])]
        await peer.hear_instructions(3)
        everything = [(target, DIED) for target in targets]
        await peer.tell(connector, (m.DEAD, Atom("other@127.0.0.1"), everything))
        await peer.tell(connector, (m.DEAD, peer.name, []))
        await peer.tell(connector, (m.DEAD, peer.name, [(peer.process(99), DIED), (named, 1), (named, 2)]))
        batcher = peer.process(50)
        await peer.say((Op.SEND_SENDER, batcher, connector), (m.DEAD, peer.name, [(targets[0], Atom("first"))]))
        await peer.say((Op.SEND, Atom(""), connector), (m.DEAD, peer.name, everything))
        got = [await next_message(me) for _ in refs]
        first = [down(ref, targets[0], Atom("first")) for ref in (refs[0], refs[3])]
        assert got == [down(refs[1], named, 1), *first, down(refs[2], targets[2], DIED)]
        assert len(me.mailbox) == 0
        await nothing_left(zen)


async def test_what_the_proxy_sends_is_delivered_as_it_is(zen: ZenMonitor, me: Process, dial: Dial) -> None:
    """The Local truncates nothing."""
    async with dial() as peer:
        connector = await connected(zen, peer)
        reason = (Atom("long"), [1, 2, 3, 4, 5, 6], b"x" * 5000, ((((Atom("deep"),),),),))
        ref = zen.monitor(peer.process(2), subscriber=me)
        await peer.hear_instructions(1)
        await peer.tell(connector, (m.DEAD, peer.name, [(peer.process(2), reason)]))
        assert await next_message(me) == down(ref, peer.process(2), reason)


@pytest.mark.parametrize("answer", [Atom("ok"), b"pong", [Atom("pong")], (Atom("ok"), Atom("pong"))])
async def test_not_pong_and_the_monitor_is_given_back(
    zen: ZenMonitor, dial: Dial, long_penalty: None, answer: Term
) -> None:
    """It is incompatible, and nothing of ours stays at the peer; nothing is said during the penalty."""
    async with dial() as peer, trio.open_nursery() as tasks, zen.node.open_process() as me:
        tasks.start_soon(zen.connect, peer.name)
        connector = await peer.answer_ping(answer)
        assert await peer.hear() == ((Op.DEMONITOR_P, connector, m.PROXY, peer.on_proxy), NO_PAYLOAD)
        assert zen.cached_compatibility(peer.name) == CachedCompatibility(Cached.INCOMPATIBLE, 1)
        for _ in range(3):
            ref = zen.monitor(peer.process(2), subscriber=me)
            assert await next_message(me) == down(ref, peer.process(2), NODEDOWN)
        assert await peer.hear_until_pong() == []


async def test_a_late_pong_is_nothing(
    zen: ZenMonitor, me: Process, dial: Dial, long_penalty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When its time is over an answer changes nothing, neither the verdict nor the penalty."""
    monkeypatch.setattr("zenmon_node.local.remote.PING_TIMEOUT", 0.05)
    async with dial() as peer:
        assert await zen.connect(peer.name) is Compatibility.INCOMPATIBLE
        (_, connector, _, monitor), _ = await peer.hear()
        _, (_, (_, tag), _) = await peer.hear()
        assert (await peer.hear())[0] == (Op.DEMONITOR_P, connector, m.PROXY, monitor)
        await peer.tell(connector, (tag, m.PONG))
        ref = zen.monitor(peer.process(2), subscriber=me)
        await peer.hear_until_pong()
        assert await next_message(me) == down(ref, peer.process(2), NODEDOWN)
        assert zen.cached_compatibility(peer.name) == CachedCompatibility(Cached.INCOMPATIBLE, 1)


async def test_one_round_of_penalty_lasts_two_seconds(zen: ZenMonitor, dial: Dial) -> None:
    """The second ping comes 2000 ms after the first failure, and not before."""
    async with dial() as peer, trio.open_nursery() as tasks:
        tasks.start_soon(zen.connect, peer.name)
        answered = trio.current_time()
        await peer.answer_ping(Atom("ok"))
        assert (await peer.hear())[0][0] == Op.DEMONITOR_P
        await peer.answer_ping()
        assert trio.current_time() - answered >= 1.95
        await until(lambda: zen.compatibility_for_node(peer.name) is COMPATIBLE, zen)


async def test_nothing_is_taken_back_on_nodedown(zen: ZenMonitor, me: Process, dial: Dial) -> None:
    """All fire, the queue is dropped, the next life hears a ping and no withdrawal."""
    name = "comes_back@127.0.0.1"
    async with dial(name=name) as peer:
        await connected(zen, peer)
        targets: list[Any] = [peer.process(2), (Atom("name"), peer.name)]
        refs = [zen.monitor(target, subscriber=me) for target in targets]
        await peer.hear_instructions(2)
        await peer.hang_up()
        expected = [down(ref, target, NODEDOWN) for ref, target in zip(refs, targets, strict=True)]
        assert [await next_message(me) for _ in refs] == expected
    for ref in refs:
        zen.demonitor(ref)
    async with dial(name=name) as peer:
        await connected(zen, peer)
        zen.monitor(peer.process(7), subscriber=me)
        assert await peer.hear_instructions(1) == [("subscribe", peer.process(7))]


async def test_a_batcher_s_monitor_of_our_connector(opened: NodeOpener, epmd: Epmd, cookie: str) -> None:
    """It is not answered as long as the Connector lives; when it ends, both monitors end."""
    async with opened() as node, dialling(node, epmd.port, cookie) as peer:
        async with open_zen_monitor(node, FAST) as zen:
            connector = await connected(zen, peer)
            on_proxy, watch = peer.on_proxy, peer.reference()
            await peer.say((Op.MONITOR_P, peer.pid, connector, watch))
            assert await peer.hear_until_pong() == []
        ends = {(await peer.hear())[0] for _ in range(2)}
        assert ends == {
            (Op.PAYLOAD_MONITOR_P_EXIT, connector, peer.pid, watch),
            (Op.DEMONITOR_P, connector, m.PROXY, on_proxy),
        }


async def hold_deliveries(zen: ZenMonitor, me: Process) -> None:
    """Deliver one DOWN, and let no other follow before the interval is another."""
    zen.monitor("nobody", subscriber=me)
    await next_message(me)
    zen.configure(demand_amount=200, demand_interval=3_600_000)


async def test_demand_is_shared_paced_and_in_order(zen: ZenMonitor, me: Process, dial: Dial) -> None:
    """At most demand_amount at once over all remotes, first come first served."""
    await hold_deliveries(zen, me)
    async with dial() as one, dial() as other:
        expected = []
        for peer, count in ((one, 360), (other, 140)):
            connector = await connected(zen, peer)
            targets = [peer.process(number) for number in range(10, 10 + count)]
            expected += [zen.monitor(target, subscriber=me) for target in targets]
            await peer.hear_instructions(count)
            await peer.tell(connector, (m.DEAD, peer.name, [(target, DIED) for target in targets]))
            await until_waiting(zen, len(expected))
        started = trio.current_time()
        zen.configure(demand_interval=50)
        got: list[Any] = []
        while len(got) < len(expected):
            got.append(await next_message(me))
            got += [me.receive_nowait() for _ in range(len(me.mailbox))]
            assert len(got) in (200, 400, 500)  # a whole delivery, or more if this task was late
        assert [message[1] for message in got] == expected
        assert trio.current_time() - started >= 0.09


async def until_waiting(zen: ZenMonitor, count: int) -> None:
    """Wait until so many DOWN messages wait to be delivered."""
    await until(lambda: zen.statistics().waiting_downs == count, zen)


async def test_a_demonitor_frees_its_demand(zen: ZenMonitor, me: Process, dial: Dial) -> None:
    """Of 800 deaths that wait 600 are taken back, and the remaining 200 come in one delivery."""
    async with dial() as peer:
        connector = await connected(zen, peer)
        targets = [peer.process(number) for number in range(10, 810)]
        refs = [zen.monitor(target, subscriber=me) for target in targets]
        await peer.hear_instructions(800)
        await hold_deliveries(zen, me)
        await peer.tell(connector, (m.DEAD, peer.name, [(target, DIED) for target in targets]))
        await until_waiting(zen, 800)
        for ref in (*refs[:100], *refs[300:]):
            zen.demonitor(ref)
        zen.configure(demand_interval=50)
        got = [await next_message(me)]
        got += [me.receive_nowait() for _ in range(len(me.mailbox))]
        assert [message[1] for message in got] == refs[100:300]
        await nothing_left(zen)


async def test_demonitor(zen: ZenMonitor, me: Process, dial: Dial) -> None:
    """Always true; by somebody else, twice, unknown, late; with and without flush; info is accepted."""
    async with dial() as peer, zen.node.open_process() as another:
        connector = await connected(zen, peer)
        ref = zen.monitor(peer.process(2), subscriber=me)
        assert zen.demonitor(ref, subscriber=another) is True
        assert zen.demonitor(peer.reference(), info=True) is True
        assert await peer.hear_instructions(1) == [("subscribe", peer.process(2))]
        await peer.tell(connector, (m.DEAD, peer.name, [(peer.process(2), DIED)]))
        await until(lambda: len(me.mailbox) == 1, zen)
        assert zen.demonitor(ref, flush=True, subscriber=another) is True
        assert zen.demonitor(ref, info=True) is True
        assert len(me.mailbox) == 1
        assert zen.demonitor(ref, flush=True) is True
        assert len(me.mailbox) == 0
        assert zen.demonitor(ref, flush=True) is True


async def waits(process: Process) -> None:
    """A process that ends with the reason it is told."""
    raise Exit(await process.receive())


async def test_processes_of_the_own_node(zen: ZenMonitor, me: Process) -> None:
    """Local pid, {name, node()}: wrapped, truncated and in batches, like all others; noproc if nobody is there."""
    pid = zen.node.spawn(waits, name="worker")
    named, nobody = (Atom("worker"), zen.node.name), (Atom("nobody"), zen.node.name)
    refs = {target: zen.monitor(target, subscriber=me) for target in (pid, named, nobody)}
    assert await next_message(me) == down(refs[nobody], nobody, NOPROC)
    zen.node.send(pid, (DIED, [1, 2, 3, 4, 5]))
    got = [await next_message(me), await next_message(me)]
    expected = [down(refs[target], target, (DIED, Atom("truncated"))) for target in (pid, named)]
    assert sorted(got, key=str) == sorted(expected, key=str)
    await nothing_left(zen)


@pytest.mark.parametrize(
    ("how", "reason"),
    [("{error, boom}", Atom("boom")), ("{throw, ball}", (Atom("nocatch"), Atom("ball"))), ("badmatch", None)],
    ids=["error", "throw", "badmatch"],
)
async def test_errors_of_a_beam(zen: ZenMonitor, me: Process, beam: Beam, how: str, reason: Term) -> None:
    """A raise, a throw and a failed match: the error, and of its stack as much as depth and length allow."""
    await beam.eval("zen_proxy:start(zen_settings:fast()).")
    assert await zen.connect(beam.name) is COMPATIBLE
    pid = await beam.eval(f"plain_processes:spawn_raising({how})")
    ref = zen.monitor(pid, subscriber=me)
    assert await beam.eval("zen_proxy:await_subscriptions(1, 20000)") is True
    await beam.eval("P ! go", P=pid)
    tag, got_ref, _, got_pid, (zen_monitor, (got, stack)) = await next_message(me)
    assert (tag, got_ref, got_pid, zen_monitor) == (m.DOWN, ref, pid, m.ZEN_MONITOR)
    assert got == reason if reason is not None else got[0] == Atom("badmatch")
    truncated = Atom("truncated")
    assert stack == truncated or set(stack) == {(truncated,) * 4}
    await beam.eval("zen_proxy:stop()")
