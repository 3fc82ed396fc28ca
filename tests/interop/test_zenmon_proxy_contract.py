"""The contract of a Proxy, point by point, seen from a socket: each signal that leaves our node for a Connector.

The Connector is a socket that sees every signal (``zen_peer.py``). What a whole BEAM makes of our Proxy is in
``test_zenmon_proxy.py``. What is expected was observed on genuine Proxies of ZenMonitor 2.1.0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
from structlog.testing import capture_logs

from erlang_interop import Atom, Exit, Pid
from erlang_interop.flags import OFFERED, DFlag
from erlang_interop.terms import ImproperList, Reference
from erlang_interop.wire.control import NO_PAYLOAD, Op
from tests.interop.collectors import collecting, has_lost, is_among_nodes
from tests.interop.zen_peer import FAST, VISIBLE, dialling
from tests.interop.zenmon import DIED, NOPROC, nothing_left, until
from zenmon_node import Settings, open_zen_monitor
from zenmon_node import messages as m

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from erlang_interop import Node, Process
    from erlang_interop.terms import Term
    from erlang_interop.testing.beam import Beam, Epmd
    from tests.conftest import BeamFactory
    from tests.interop.conftest import NodeOpener
    from tests.interop.zen_peer import ZenPeer
    from zenmon_node import ZenMonitor

KILL: Final = Atom("kill")
NOWHERE: Final = Atom("nowhere@127.0.0.1")


@pytest.fixture
async def zen(opened: NodeOpener) -> AsyncIterator[ZenMonitor]:
    """ZenMonitor on a visible node of ours, with short intervals."""
    async with opened(visible="passive") as node, open_zen_monitor(node, FAST) as zen:
        yield zen


@pytest.fixture
async def peer(zen: ZenMonitor, epmd: Epmd, cookie: str) -> AsyncIterator[ZenPeer]:
    """A Connector of another node, connected to ours."""
    async with dialling(zen.node, epmd.port, cookie, flags=VISIBLE) as peer:
        yield peer


async def waits(process: Process) -> None:
    """A process that ends with the reason it is told."""
    raise Exit(await process.receive())


def subscribe(*targets: Term) -> list[Term]:
    return [(m.SUBSCRIBE, target) for target in targets]


def proxy_of(node: Node) -> Pid:
    pid = node.whereis(m.PROXY)
    assert pid is not None
    return pid


async def subscribed(zen: ZenMonitor, count: int) -> None:
    await until(lambda: zen.statistics().subscriptions == count, zen)


async def all_told(zen: ZenMonitor, peer: ZenPeer) -> list[Term]:
    """What our node says until all is said: everything but the monitor on the subscriber."""
    await until(lambda: not (zen.statistics().waiting_certificates or zen.statistics().waiting_instructions), zen)
    return [signal for signal in await peer.hear_until_pong() if signal[0][0] != Op.MONITOR_P]


# -- 1: the name


@pytest.mark.parametrize("flags", [VISIBLE, VISIBLE & ~DFlag.EXIT_PAYLOAD], ids=["payload", "no_payload"])
async def test_1_the_name_can_be_monitored(opened: NodeOpener, epmd: Epmd, cookie: str, flags: DFlag) -> None:
    def gone(peer: ZenPeer, ref: Reference, reason: Term) -> Term:
        if flags & DFlag.EXIT_PAYLOAD:
            return (Op.PAYLOAD_MONITOR_P_EXIT, m.PROXY, peer.pid, ref), reason
        return (Op.MONITOR_P_EXIT, m.PROXY, peer.pid, ref, reason), NO_PAYLOAD

    async with opened(visible="passive") as node, dialling(node, epmd.port, cookie, flags=flags) as peer:
        before, while_there = peer.reference(), peer.reference()
        await peer.say((Op.MONITOR_P, peer.pid, m.PROXY, before))
        assert await peer.hear() == gone(peer, before, NOPROC)
        async with open_zen_monitor(node):
            await peer.say((Op.MONITOR_P, peer.pid, m.PROXY, while_there))
            assert await peer.hear_until_pong() == []
            node.exit(proxy_of(node), KILL)
            assert await peer.hear() == gone(peer, while_there, Atom("killed"))


# -- 2: ping


async def test_2_ping_is_answered_under_its_own_tag(peer: ZenPeer) -> None:
    ref = peer.reference()
    alias = ImproperList([m.ALIAS], ref)
    await peer.tell_proxy(m.ping_call(peer.pid, alias))
    control, answer = await peer.hear()
    # ALTACT_SIG_SEND, which has the alias in the same place, to a node that announces that it knows it.
    assert (control[0] in (Op.ALIAS_SEND, Op.ALTACT_SIG_SEND), control[-1], answer) == (True, ref, (alias, m.PONG))
    tags: list[Term] = [ref, Atom("tag"), (1, [2]), [], b"tag", ImproperList([m.ALIAS], 5), 2**70]
    for tag in tags:
        await peer.tell_proxy(m.ping_call(peer.process(9), tag))
        control, answer = await peer.hear()
        assert (control[0], control[2], answer) == (Op.SEND_SENDER, peer.process(9), (tag, m.PONG))


async def test_2_ping_of_a_node_without_aliases(zen: ZenMonitor, epmd: Epmd, cookie: str) -> None:
    flags = VISIBLE & ~DFlag.ALTACT_SIG
    async with dialling(zen.node, epmd.port, cookie, flags=flags) as peer:
        ref = peer.reference()
        await peer.tell_proxy(m.ping_call(peer.pid, ImproperList([m.ALIAS], ref)))
        control, _ = await peer.hear()
        assert (control[0], control[2]) == (Op.ALIAS_SEND, ref)


# -- 3 to 8: instructions


async def test_3_the_subscriber_is_the_pid_in_the_message_and_is_all_that_is_answered(
    zen: ZenMonitor, peer: ZenPeer
) -> None:
    pid = zen.node.spawn(waits)
    subscriber = peer.process(5)
    await peer.cast(*subscribe(pid), subscriber=subscriber)
    ((control, _),) = await peer.hear_until_pong()
    assert control[:3] == (Op.MONITOR_P, proxy_of(zen.node), subscriber)
    zen.node.send(pid, DIED)
    control, summary = await peer.hear()
    assert (control[0], control[2], summary) == (Op.SEND_SENDER, subscriber, (m.DEAD, zen.node.name, [(pid, DIED)]))
    assert await all_told(zen, peer) == []


async def test_3_the_legacy_cast(zen: ZenMonitor, peer: ZenPeer) -> None:
    pid, nobody = zen.node.spawn(waits), (Atom("nobody"), zen.node.name)
    await peer.tell_proxy((m.GEN_CAST, (m.SUBSCRIBE, peer.pid, [pid, nobody])))
    assert await peer.hear_certificates(1) == [(nobody, NOPROC)]
    zen.node.send(pid, DIED)
    assert await peer.hear_certificates(1) == [(pid, DIED)]


async def test_4_subscribing_is_idempotent_and_the_dead_are_certified_each_time(zen: ZenMonitor, peer: ZenPeer) -> None:
    pid, dead = zen.node.spawn(waits), Pid(zen.node.name, 99_999, 0, zen.node.creation)
    nobody = (Atom("nobody"), zen.node.name)
    for _ in range(2):
        await peer.cast(*subscribe(pid, pid, dead, dead, nobody, nobody))
        assert sorted(await peer.hear_certificates(2), key=str) == sorted([(dead, NOPROC), (nobody, NOPROC)], key=str)
    assert zen.statistics().subscriptions == 1
    zen.node.send(pid, DIED)
    assert await peer.hear_certificates(1) == [(pid, DIED)]
    assert await all_told(zen, peer) == []


async def test_5_unsubscribing(zen: ZenMonitor, peer: ZenPeer) -> None:
    """Only for that subscriber; unknown ones are no matter; the order of one cast is kept."""
    one, two = zen.node.spawn(waits), zen.node.spawn(waits)
    other = peer.process(5)
    await peer.cast(*subscribe(one, two))
    await peer.cast(*subscribe(one, two), subscriber=other)
    await peer.cast((m.UNSUBSCRIBE, one), (m.UNSUBSCRIBE, (Atom("nobody"), zen.node.name)), (m.UNSUBSCRIBE, peer.pid))
    await peer.cast((m.UNSUBSCRIBE, two), (m.SUBSCRIBE, two), (m.UNSUBSCRIBE, two), (m.SUBSCRIBE, two))
    assert [signal for signal in await peer.hear_until_pong() if signal[0][0] != Op.MONITOR_P] == []
    zen.node.exit(one, DIED)
    zen.node.exit(two, DIED)
    told: dict[Pid, list[Term]] = {peer.pid: [], other: []}
    while sum(map(len, told.values())) < 3:
        control, (_, _, certificates) = await peer.hear()
        told[control[2]] += certificates
    assert told == {peer.pid: [(two, DIED)], other: [(one, DIED), (two, DIED)]}


async def test_6_a_certificate_consumes_the_subscription(zen: ZenMonitor, peer: ZenPeer) -> None:
    named = (Atom("lives_twice"), zen.node.name)
    await peer.cast(*subscribe(named))
    assert await peer.hear_certificates(1) == [(named, NOPROC)]
    unseen = zen.node.spawn(waits, name="lives_twice")
    zen.node.exit(unseen, KILL)
    assert await all_told(zen, peer) == []
    pid = zen.node.spawn(waits, name="lives_twice")
    await peer.cast(*subscribe(named))
    await subscribed(zen, 1)
    zen.node.send(pid, DIED)
    assert await peer.hear_certificates(1) == [(named, DIED)]


async def test_7_by_pid_and_by_name_are_two_subscriptions(zen: ZenMonitor, peer: ZenPeer) -> None:
    pid, named = zen.node.spawn(waits, name="both"), (Atom("both"), zen.node.name)
    await peer.cast(*subscribe(pid, named))
    await subscribed(zen, 2)
    zen.node.send(pid, DIED)
    assert sorted(await peer.hear_certificates(2), key=str) == sorted([(pid, DIED), (named, DIED)], key=str)


async def test_8_a_name_means_the_process_that_had_it_when_it_was_subscribed(zen: ZenMonitor, peer: ZenPeer) -> None:
    pid, named = zen.node.spawn(waits, name="given_up"), (Atom("given_up"), zen.node.name)
    await peer.cast(*subscribe(named))
    await subscribed(zen, 1)
    zen.node.unregister("given_up")
    zen.node.exit(zen.node.spawn(waits, name="given_up"), KILL)
    assert await all_told(zen, peer) == []
    zen.node.send(pid, DIED)
    assert await peer.hear_certificates(1) == [(named, DIED)]


# -- 9 to 11: summaries


async def test_10_summaries_are_in_order_in_chunks_and_one_an_interval(
    opened: NodeOpener, epmd: Epmd, cookie: str
) -> None:
    settings = Settings(batcher_chunk_size=4, batcher_sweep_interval=50)
    async with opened(visible="passive") as node, open_zen_monitor(node, settings) as zen:
        async with dialling(node, epmd.port, cookie, flags=VISIBLE) as peer:
            pids = [node.spawn(waits) for _ in range(10)]
            await peer.cast(*subscribe(*pids))
            await subscribed(zen, 10)
            for pid in reversed(pids):
                node.exit(pid, DIED)
            batches: list[list[Term]] = []
            while sum(map(len, batches)) < 10:
                control, payload = await peer.hear()
                if control[0] != Op.MONITOR_P:
                    batches.append([target for target, _ in payload[2]])
            assert batches == [pids[:5:-1], pids[5:1:-1], pids[1::-1]]


@pytest.mark.parametrize("flags", [OFFERED, VISIBLE], ids=["hidden", "visible"])
async def test_11_a_cast_in_fragments(zen: ZenMonitor, epmd: Epmd, cookie: str, flags: DFlag) -> None:
    """6000 targets in one cast are two fragments or more."""
    async with dialling(zen.node, epmd.port, cookie, flags=flags) as peer:
        pids = [zen.node.spawn(waits) for _ in range(6000)]
        await peer.cast(*subscribe(*pids))
        await subscribed(zen, 6000)
        for pid in pids:
            zen.node.exit(pid, KILL)
        heard = await peer.hear_certificates(6000)
        assert heard == [(pid, Atom("killed")) for pid in pids]


async def test_11_a_cast_of_100_000_instructions(zen: ZenMonitor, peer: ZenPeer) -> None:
    """More than a fragment, and than a slice: none is lost, they stay in order, and the loop goes on meanwhile."""
    dead = [Pid(zen.node.name, number, 7, zen.node.creation) for number in range(100_000)]
    await peer.cast(*subscribe(*dead))
    batches: list[list[Term]] = []
    while sum(map(len, batches)) < len(dead):
        control, payload = await peer.hear()
        if control[0] != Op.MONITOR_P:
            batches.append(payload[2])
    assert [certificate for batch in batches for certificate in batch] == [(pid, NOPROC) for pid in dead]
    assert max(map(len, batches)) <= FAST.batcher_chunk_size
    await nothing_left(zen)


async def test_11_huge_reasons_hold_up_neither_the_loop_nor_other_subscribers(zen: ZenMonitor, peer: ZenPeer) -> None:
    """``{shutdown, X}`` passes whole; each of these is a summary of its own, in order with the others."""
    huge = (Atom("shutdown"), b"x" * 10_000_000)
    pids = [zen.node.spawn(waits) for _ in range(5)]
    other = peer.process(5)
    await peer.cast(*subscribe(*pids))
    await peer.cast(*subscribe(pids[-1]), subscriber=other)
    await until(lambda: zen.statistics().remote_subscribers == 2, zen)
    for pid in pids[1:-1]:
        zen.node.exit(pid, huge)
    zen.node.exit(pids[0], DIED)
    zen.node.exit(pids[-1], DIED)
    told: dict[Pid, list[Any]] = {peer.pid: [], other: []}
    while sum(len(batch) for batches in told.values() for batch in batches) < 6:
        control, payload = await peer.hear()
        if control[0] != Op.MONITOR_P:
            told[control[2]].append(payload[2])
    assert told[peer.pid] == [*[[(pid, huge)] for pid in pids[1:-1]], [(pids[0], DIED), (pids[-1], DIED)]]
    assert told[other] == [[(pids[-1], DIED)]]


# -- 12: the end of a subscriber


async def test_12_a_connector_that_dies_leaves_nothing(zen: ZenMonitor, peer: ZenPeer) -> None:
    pid = zen.node.spawn(waits)
    await peer.cast(*subscribe(pid))
    ((control, _),) = await peer.hear_until_pong()
    _, proxy, subscriber, ref = control
    held = zen.node.statistics()["monitors"]
    await peer.say((Op.PAYLOAD_MONITOR_P_EXIT, subscriber, proxy, ref), Atom("shutdown"))
    await subscribed(zen, 0)
    assert zen.node.statistics()["monitors"] == held - 2  # on the target, and on the Connector
    zen.node.exit(pid, DIED)
    assert await peer.hear_until_pong() == []


# -- 13: targets of other nodes


async def test_13_a_target_of_another_node(zen: ZenMonitor, peer: ZenPeer, fresh_beam: BeamFactory) -> None:
    """It is watched while its node is connected, and certified as not reachable when it is not."""
    beam = fresh_beam()
    await zen.node.connect(beam.name)
    one, two = await beam.eval("plain_processes:spawn_many(2)")
    await peer.cast(*subscribe(one, two))
    await subscribed(zen, 2)
    zen.node.exit(one, DIED)  # over the connection, behind the monitor
    assert await peer.hear_certificates(1) == [(one, DIED)]
    assert await is_among_nodes(beam, zen.node.name)
    await zen.node.disconnect(beam.name)
    assert await peer.hear_certificates(1) == [(two, m.NOCONNECTION)]
    await has_lost(beam, zen.node.name)
    await peer.cast(*subscribe(two, (Atom("name"), Atom(beam.name)), Pid(NOWHERE, 1, 0, 1)))
    unreachable = [two, (Atom("name"), Atom(beam.name)), Pid(NOWHERE, 1, 0, 1)]
    assert await peer.hear_certificates(3) == [(target, m.NOCONNECTION) for target in unreachable]
    assert zen.node.nodes("known") == [peer.name]
    await nothing_left(zen)


# -- nothing the Proxy does opens a connection


async def test_a_summary_opens_no_connection(opened: NodeOpener, beam: Beam) -> None:
    """The connection is lost while certificates wait: they are dropped with it, and with its rows."""
    settings = Settings(batcher_sweep_interval=60_000)
    async with opened(visible="passive") as node, open_zen_monitor(node, settings) as zen:
        await node.connect(beam.name)
        pids = [node.spawn(waits) for _ in range(3)]
        source = "gen_server:cast(P, {process, whereis(init), [{subscribe, T} || T <- Ts]})"
        await beam.eval(source, P=(m.PROXY, node.name), Ts=pids)
        await subscribed(zen, 3)
        node.exit(pids[0], DIED)
        node.exit(pids[1], DIED)
        assert zen.statistics().waiting_certificates == 2
        assert await is_among_nodes(beam, node.name)
        await node.disconnect(beam.name)
        await nothing_left(zen)
        node.exit(pids[2], DIED)
        zen.configure(batcher_sweep_interval=1)
        assert node.nodes("known") == []


async def test_a_pong_a_watch_and_a_certificate_open_no_connection(zen: ZenMonitor, peer: ZenPeer) -> None:
    """Asked on behalf of a process of a node that is not connected: nobody is there to be told."""
    third = Pid(NOWHERE, 7, 0, 1)
    pid = zen.node.spawn(waits)
    await peer.tell_proxy(m.ping_call(third, Atom("tag")))
    await peer.tell_proxy(m.ping_call(third, ImproperList([m.ALIAS], Reference(NOWHERE, 1, b"\0" * 12))))
    await peer.cast(*subscribe(pid, third, 123), subscriber=third)
    await peer.cast((m.UNSUBSCRIBE, pid), subscriber=third)
    assert await peer.hear_until_pong() == []
    assert zen.node.nodes("known") == [peer.name]
    assert zen.node.last_failure(NOWHERE) is None
    await nothing_left(zen)


async def test_a_demonitor_opens_no_connection(zen: ZenMonitor, peer: ZenPeer, fresh_beam: BeamFactory) -> None:
    """Withdrawn after the node of the target was lost, before anybody could be told so."""
    beam = fresh_beam()
    await zen.node.connect(beam.name)
    (target,) = await beam.eval("plain_processes:spawn_many(1)")
    await peer.cast(*subscribe(target))
    await subscribed(zen, 1)
    assert await is_among_nodes(beam, zen.node.name)
    await zen.node.disconnect(beam.name)
    await peer.cast((m.UNSUBSCRIBE, target))
    assert await peer.hear_certificates(1) == [(target, m.NOCONNECTION)]
    assert zen.node.nodes("known") == [peer.name]


# -- a subscriber of our own node


async def test_a_subscriber_of_our_own_node(zen: ZenMonitor, peer: ZenPeer) -> None:
    """Whoever says so: it is told, and what is kept for it goes with it."""
    async with zen.node.open_process() as me:
        pid, other = zen.node.spawn(waits), zen.node.spawn(waits)
        await peer.cast(*subscribe(pid, other), subscriber=me.pid)
        await subscribed(zen, 2)
        zen.node.send(pid, DIED)
        assert await me.receive(timeout=30) == (m.DEAD, zen.node.name, [(pid, DIED)])
    await nothing_left(zen)
    await peer.cast(*subscribe(other), subscriber=me.pid)  # it has ended
    assert await peer.hear_until_pong() == []
    await nothing_left(zen)


# -- who sent what is wrong


async def test_what_is_malformed_is_logged_once_with_its_sender(zen: ZenMonitor, peer: ZenPeer, beam: Beam) -> None:
    """A process of a BEAM, one of a peer that names it, one of a peer that does not (``SEND``), and one of ours."""
    proxy = proxy_of(zen.node)
    await zen.node.connect(beam.name)
    with capture_logs() as logs:
        async with collecting(beam) as there, zen.node.open_process() as me:
            for _ in range(3):
                await there.run("erlang", "send", (m.PROXY, zen.node.name), Atom("hello"))
                await there.run("gen_server", "cast", proxy, (m.PROCESS, there.pid, [(Atom("watch"), proxy)]))
                await peer.tell_proxy(Atom("hello"))
                await peer.say((Op.SEND, Atom(""), proxy), (m.GEN_CAST, Atom("what")))
                me.send(m.PROXY, Atom("hello"))
            assert await there.run("gen_server", "call", proxy, m.PING) == m.PONG
            assert await peer.hear_until_pong() == []
            senders = [there.pid, peer.pid, me.pid]
    assert zen.statistics().malformed == 15
    assert {log["server"] for log in logs} == {m.PROXY.name}
    assert sorted((log["problem"], log["sender"]) for log in logs) == sorted(
        [
            *[("neither a call, a cast nor a DOWN", str(sender)) for sender in senders],
            ("a malformed instruction", str(there.pid)),
            ("a cast the Proxy does not know", peer.name.name),
        ]
    )


async def test_a_subscriber_of_a_third_node(zen: ZenMonitor, peer: ZenPeer, beam: Beam) -> None:
    """Subscribed by somebody else: it is told all the same, and what is kept for it goes with it."""
    await zen.node.connect(beam.name)
    pid, other = zen.node.spawn(waits), zen.node.spawn(waits)
    async with collecting(beam) as there:
        await peer.cast(*subscribe(pid, other), subscriber=there.pid)
        await subscribed(zen, 2)
        zen.node.send(pid, DIED)
        assert await there.take(1) == [(m.DEAD, zen.node.name, [(pid, DIED)])]
        assert await all_told(zen, peer) == []
    await nothing_left(zen)
