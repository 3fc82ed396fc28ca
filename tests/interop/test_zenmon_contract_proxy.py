"""ZenMonitor's contract, signal by signal: what our Proxy says, and makes of what it hears.

The other node is a socket that plays a Connector and sees every signal (``zen_peer.py``). What our Proxy does with a
BEAM is in ``test_zenmon_proxy.py``; the signals of our Local are in ``test_zenmon_contract.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from erlang_interop import Atom, Exit, ImproperList, Pid
from erlang_interop.flags import OFFERED, DFlag
from erlang_interop.wire.control import Op
from tests.interop.collectors import collecting
from tests.interop.zen_peer import FAST, VISIBLE, Dial, dialling
from tests.interop.zenmon import DIED, NOPROC, down, next_message, nothing_left, until
from zenmon_node import Compatibility, ZenMonitor, open_zen_monitor
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
async def me(zen: ZenMonitor) -> AsyncIterator[Process]:
    async with zen.node.open_process() as me:
        yield me


@pytest.fixture
def dial(zen: ZenMonitor, epmd: Epmd, cookie: str) -> Dial:
    return lambda **options: dialling(zen.node, epmd.port, cookie, **options)


async def waits(process: Process) -> None:
    """A process that ends with the reason it is told."""
    raise Exit(await process.receive())


async def subscribed(zen: ZenMonitor, count: int) -> None:
    await until(lambda: zen.statistics().subscriptions == count, zen)


@pytest.mark.parametrize("tag", [Atom("tag"), 17, (Atom("a"), 1), [1, 2], b"tag", None], ids=str)
async def test_every_tag_is_echoed(dial: Dial, tag: Any) -> None:
    """Whatever the tag is, the caller gets it back with its pong."""
    async with dial() as peer:
        monitor = peer.reference()
        await peer.say((Op.MONITOR_P, peer.pid, m.PROXY, monitor))
        for shape in (tag, monitor):
            await peer.tell_proxy(m.ping_call(peer.pid, shape))
            control, answer = await peer.hear()
            assert answer == (shape, m.PONG)
            assert (control[0], control[2]) == (Op.SEND_SENDER, peer.pid)
        await peer.say((Op.DEMONITOR_P, peer.pid, m.PROXY, monitor))
        assert await peer.hear_until_pong() == []


@pytest.mark.parametrize(
    ("flags", "op"),
    [(VISIBLE, Op.ALTACT_SIG_SEND), (VISIBLE & ~DFlag.ALTACT_SIG, Op.ALIAS_SEND)],
    ids=["since_28", "before_28"],
)
async def test_an_alias_is_answered(zen: ZenMonitor, dial: Dial, flags: DFlag, op: Op) -> None:
    """A tag ``[alias | Ref]`` asks for the answer at ``Ref``; the form is that of the peer's OTP."""
    async with dial(flags=flags) as peer:
        alias = peer.reference()
        tag = ImproperList([m.ALIAS], alias)
        await peer.tell_proxy(m.ping_call(peer.pid, tag))
        control, answer = await peer.hear()
        assert answer == (tag, m.PONG)
        proxy = zen.node.whereis(m.PROXY)
        assert control == ((op, 4, proxy, alias) if op == Op.ALTACT_SIG_SEND else (op, proxy, alias))


@pytest.mark.parametrize("flags", [OFFERED, OFFERED & ~DFlag.EXIT_PAYLOAD], ids=["payload", "no_payload"])
async def test_the_end_of_the_proxy_has_its_name(opened: NodeOpener, epmd: Epmd, cookie: str, flags: DFlag) -> None:
    """MONITOR_P_EXIT from the *atom*, when it goes and when it is not there; by the flags, 28 or 21."""
    op = Op.PAYLOAD_MONITOR_P_EXIT if flags & DFlag.EXIT_PAYLOAD else Op.MONITOR_P_EXIT
    async with opened() as node, dialling(node, epmd.port, cookie, flags=flags) as peer:
        ref = peer.reference()
        async with open_zen_monitor(node, FAST):
            await peer.say((Op.MONITOR_P, peer.pid, m.PROXY, ref))
            await peer.hear_until_pong()
        for reason in (Atom("shutdown"), NOPROC):
            control, payload = await peer.hear()
            assert control[:4] == (op, m.PROXY, peer.pid, ref)
            assert reason == (payload if op == Op.PAYLOAD_MONITOR_P_EXIT else control[4])
            ref = peer.reference()
            await peer.say((Op.MONITOR_P, peer.pid, m.PROXY, ref))


async def test_certificates(zen: ZenMonitor, dial: Dial) -> None:
    """One for each target as subscribed, none twice; the subscription goes with it."""
    async with dial() as peer:
        pid = zen.node.spawn(waits, name="worker")
        named = (Atom("worker"), zen.node.name)
        await peer.cast(*[(m.SUBSCRIBE, target) for target in (pid, named, pid, named, pid)])
        (op, _watcher, watched, _ref), _ = await peer.hear()
        assert (op, watched) == (Op.MONITOR_P, peer.pid)
        await peer.cast((m.SUBSCRIBE, pid), (m.SUBSCRIBE, named))
        assert await peer.hear_until_pong() == []
        assert zen.statistics().subscriptions == 2
        zen.node.send(pid, DIED)
        assert sorted(await peer.hear_certificates(2), key=str) == sorted([(pid, DIED), (named, DIED)], key=str)
        await nothing_left(zen)
        second = zen.node.spawn(waits, name="worker")
        zen.node.send(second, 1)
        await until(lambda: zen.node.whereis("worker") is None, zen)
        for _ in range(2):  # every time it is asked; twice in one batch is once
            await peer.cast((m.SUBSCRIBE, pid), (m.SUBSCRIBE, named), (m.SUBSCRIBE, pid))
            assert sorted(await peer.hear_certificates(2), key=str) == sorted([(pid, NOPROC), (named, NOPROC)], key=str)
        assert await peer.hear_until_pong() == []


async def test_instructions_are_applied_in_order(zen: ZenMonitor, dial: Dial) -> None:
    """Sub, unsub, sub is subscribed, sub, unsub is not; only of that subscriber; unknown ones are nothing."""
    async with dial() as peer:
        kept, dropped, others = (zen.node.spawn(waits) for _ in range(3))
        second = peer.process(2)
        await peer.cast((m.SUBSCRIBE, others), (m.SUBSCRIBE, dropped), subscriber=second)
        await peer.cast(
            *[(op, kept) for op in (m.UNSUBSCRIBE, m.SUBSCRIBE, m.UNSUBSCRIBE, m.SUBSCRIBE)],
            *[(op, dropped) for op in (m.SUBSCRIBE, m.UNSUBSCRIBE, m.UNSUBSCRIBE)],
            (m.UNSUBSCRIBE, others),
            (m.UNSUBSCRIBE, (Atom("nobody"), zen.node.name)),
        )
        await subscribed(zen, 3)
        for pid in (dropped, others, kept):
            zen.node.exit(pid, DIED)
        heard: dict[Pid, list[Term]] = {peer.pid: [], second: []}
        while sum(map(len, heard.values())) < 3:
            control, payload = await peer.hear()
            if control[0] != Op.MONITOR_P:
                heard[control[2]] += payload[2]
        assert heard == {peer.pid: [(kept, DIED)], second: [(dropped, DIED), (others, DIED)]}
        assert await peer.hear_until_pong() == []


async def test_the_older_cast(zen: ZenMonitor, dial: Dial) -> None:
    """{subscribe, Subscriber, [Target]} of a Connector before 2.0 is understood."""
    async with dial() as peer:
        pid = zen.node.spawn(waits)
        await peer.tell_proxy((m.GEN_CAST, (m.SUBSCRIBE, peer.pid, [pid, (Atom("nobody"), zen.node.name)])))
        assert await peer.hear_certificates(1) == [((Atom("nobody"), zen.node.name), NOPROC)]
        zen.node.send(pid, DIED)
        assert await peer.hear_certificates(1) == [(pid, DIED)]


async def test_a_name_is_the_process_that_has_it_now(zen: ZenMonitor, dial: Dial) -> None:
    """Bound at subscribe time; unregistering alive yields nothing, the death of that process does."""
    async with dial() as peer:
        pid = zen.node.spawn(waits, name="worker")
        named = (Atom("worker"), zen.node.name)
        await peer.cast((m.SUBSCRIBE, named))
        await subscribed(zen, 1)
        zen.node.unregister("worker")
        assert [signal for signal in await peer.hear_until_pong() if signal[0][0] != Op.MONITOR_P] == []
        zen.node.send(pid, DIED)
        assert await peer.hear_certificates(1) == [(named, DIED)]


async def test_a_subscriber_that_ends_leaves_nothing(zen: ZenMonitor, dial: Dial) -> None:
    """Told by our monitor on it, from the first subscription on, although nothing has died for it yet."""
    async with dial() as peer:
        before = zen.node.statistics()
        pids = [zen.node.spawn(waits) for _ in range(3)]
        await peer.cast(*[(m.SUBSCRIBE, pid) for pid in pids])
        (_, watcher, _, watch), _ = await peer.hear()
        await subscribed(zen, 3)
        await peer.say((Op.PAYLOAD_MONITOR_P_EXIT, peer.pid, watcher, watch), Atom("killed"))
        await subscribed(zen, 0)
        assert zen.node.statistics()["monitors"] == before["monitors"]


async def test_targets_of_other_nodes(zen: ZenMonitor, dial: Dial, beam: Beam) -> None:
    """Watched if their node is connected, noconnection at once if not; nothing is dialled for them."""
    nowhere = Pid(Atom("nowhere@127.0.0.1"), 1, 0, 1)
    async with dial() as peer, collecting(beam) as there:
        unreachable = [nowhere, (there.name, Atom(beam.name)), there.pid]
        await peer.cast(*[(m.SUBSCRIBE, target) for target in unreachable])
        assert await peer.hear_certificates(3) == [(target, m.NOCONNECTION) for target in unreachable]
        assert [row.name for row in zen.node.connections] == [peer.name]
        await zen.node.connect(beam.name)
        pid = await beam.eval("plain_processes:spawn_named(far_away)")
        named = (Atom("far_away"), Atom(beam.name))
        await peer.cast((m.SUBSCRIBE, pid), (m.SUBSCRIBE, named))
        await subscribed(zen, 2)
        polled = "polling:until(fun() -> {monitored_by, L} = process_info(P, monitored_by), length(L) =:= 2 end, 20000)"
        assert await beam.eval(polled, P=pid) is True
        await beam.eval("plain_processes:finish(P, died)", P=pid)
        assert sorted(await peer.hear_certificates(2), key=str) == sorted([(pid, DIED), (named, DIED)], key=str)


@pytest.mark.parametrize("flags", [OFFERED, VISIBLE], ids=["hidden", "visible"])
async def test_a_cast_in_fragments(zen: ZenMonitor, dial: Dial, flags: DFlag) -> None:
    """6000 targets in one cast are two fragments or more."""
    async with dial(flags=flags) as peer:
        pids = [zen.node.spawn(waits) for _ in range(6000)]
        await peer.cast(*[(m.SUBSCRIBE, pid) for pid in pids])
        await subscribed(zen, 6000)
        for pid in pids:
            zen.node.exit(pid, Atom("kill"))
        heard = await peer.hear_certificates(6000)
        assert heard == [(pid, Atom("killed")) for pid in pids]


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
