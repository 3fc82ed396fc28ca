"""A BEAM's Local monitors processes of ours through our Proxy. We are visible: it looks at visible nodes only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from structlog.testing import capture_logs

from erlang_interop import Atom, Exit, Node, Pid
from erlang_interop.terms import Record
from tests.interop.collectors import disconnected_by, is_among_nodes
from tests.interop.zenmon import DIED, NODEDOWN, NOPROC, down, nothing_left, until
from zenmon_node import Settings, ZenMonitor, open_zen_monitor
from zenmon_node import messages as m

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from erlang_interop import Process
    from erlang_interop.terms import Reference, Term
    from erlang_interop.testing.beam import Beam
    from tests.interop.conftest import NodeOpener


@pytest.fixture
async def visible(opened: NodeOpener) -> AsyncIterator[Node]:
    async with opened(visible="passive") as node:
        yield node


@pytest.fixture
async def zen(visible: Node) -> AsyncIterator[ZenMonitor]:
    async with open_zen_monitor(visible) as zen:
        yield zen


class Client:
    """The BEAM's Local, and one process there that holds the monitors."""

    def __init__(self, beam: Beam) -> None:
        self.beam = beam

    async def compatible(self, node: Node, wanted: str = "compatible") -> None:
        source = (
            "polling:until(fun() -> net_kernel:connect_node(N) end, 20000), zen_local:connect(N), "
            f"zen_local:await_compatibility(N, {wanted}, 20000)."
        )
        assert await self.beam.eval(source, N=node.name) is True

    async def monitor(self, *targets: Term) -> list[Reference]:
        refs: list[Reference] = await self.beam.eval("collector:run(w, zen_local, monitor_all, [T]).", T=list(targets))
        return refs

    async def demonitor(self, ref: Reference, options: str = "[]") -> None:
        await self.beam.eval(f"true = collector:run(w, zen_local, demonitor, [R, {options}]).", R=ref)

    async def take(self, count: int, timeout_ms: int = 20_000) -> list[Any]:
        messages: list[Any] = await self.beam.eval(f"collector:take(w, {count}, {timeout_ms}).")
        return messages

    async def waiting(self) -> int:
        count: int = await self.beam.eval("collector:waiting(w).")
        return count


@pytest.fixture
async def client(beam: Beam) -> AsyncIterator[Client]:
    await beam.eval("zen_local:start(#{record => true, ping_timeout => 60000}), collector:start(w).")
    yield Client(beam)
    await beam.eval("collector:stop(w), zen_local:stop().")


async def waits(process: Process) -> None:
    """A process that ends with the reason it is told."""
    raise Exit(await process.receive())


async def crashes(process: Process) -> None:
    """A process that fails as Python code does."""
    await process.receive()
    raise ValueError("no good")


async def subscribed(zen: ZenMonitor, count: int) -> None:
    await until(lambda: zen.statistics().subscriptions == count, zen)


async def test_by_pid_and_by_name(zen: ZenMonitor, client: Client) -> None:
    await client.compatible(zen.node)
    pid = zen.node.spawn(waits, name="watched")
    named = (Atom("watched"), zen.node.name)
    by_pid, by_name = await client.monitor(pid, named)
    await subscribed(zen, 2)
    zen.node.send(pid, DIED)
    got = await client.take(2)
    assert sorted(got, key=str) == sorted([down(by_pid, pid, DIED), down(by_name, named, DIED)], key=str)
    assert await client.waiting() == 0
    await nothing_left(zen)
    assert await client.beam.eval("zen_local:reference_count().") == 0


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (Atom("normal"), Atom("normal")),
        ((Atom("shutdown"), b"x" * 100_000), (Atom("shutdown"), b"x" * 100_000)),
        (b"x" * 5000, b"x" * 1021 + b"..."),
        ([1, 2, 3, 4, 5], Atom("truncated")),
        ("text", b"text"),
        (float("nan"), Atom("truncated")),
        (object(), Atom("truncated")),
        ((Atom("shutdown"), object()), Atom("truncated")),
    ],
    ids=["normal", "shutdown", "binary", "list", "str", "nan", "object", "shutdown_object"],
)
async def test_reasons(zen: ZenMonitor, client: Client, told: Term, reason: Term) -> None:
    await client.compatible(zen.node)
    pid, other = zen.node.spawn(waits), zen.node.spawn(waits)
    ref, other_ref = await client.monitor(pid, other)
    await subscribed(zen, 2)
    zen.node.send(pid, told)
    zen.node.send(other, DIED)
    assert sorted(await client.take(2), key=str) == sorted(
        [down(ref, pid, reason), down(other_ref, other, DIED)], key=str
    )


async def test_a_reason_that_the_beam_cannot_read_costs_itself_only(zen: ZenMonitor, client: Client) -> None:
    """A native record, in the place that is not truncated: for nodes before OTP 29 there is no form of it."""
    await client.compatible(zen.node)
    record = Record(Atom("geometry"), Atom("point"), True, ((Atom("x"), 1),))
    reasons: list[Term] = [DIED, (Atom("shutdown"), record), (Atom("error"), 1), (Atom("shutdown"), record), b"last"]
    pids = [zen.node.spawn(waits) for _ in reasons]
    refs = await client.monitor(*pids)
    await subscribed(zen, len(pids))
    for pid, reason in zip(pids, reasons, strict=True):
        zen.node.exit(pid, reason)
    cut = {1, 3} if client.beam.release < 29 else set()
    told = [Atom("truncated") if index in cut else reason for index, reason in enumerate(reasons)]
    assert sorted(await client.take(5), key=str) == sorted(map(down, refs, pids, told), key=str)


async def test_reasons_of_ten_megabytes(zen: ZenMonitor, client: Client) -> None:
    """They arrive whole, each once, with the others around them."""
    await client.compatible(zen.node)
    pids = [zen.node.spawn(waits) for _ in range(6)]
    await client.monitor(*pids)
    await subscribed(zen, 6)
    for pid in pids:
        zen.node.exit(pid, (Atom("shutdown"), b"x" * 10_000_000) if pid in pids[1:4] else DIED)
    sizes = "[{P, case R of {shutdown, B} -> byte_size(B); died -> 0 end} || {_, _, _, P, {_, R}} <- Taken]"
    got = await client.beam.eval(f"Taken = collector:take(w, 6, 60000), {sizes}.", timeout=90)
    assert sorted(got, key=str) == sorted(zip(pids, [0, *[10_000_000] * 3, 0, 0], strict=True), key=str)
    assert await client.waiting() == 0


async def test_an_exception_and_a_kill(zen: ZenMonitor, client: Client) -> None:
    await client.compatible(zen.node)
    failing, killed = zen.node.spawn(crashes), zen.node.spawn(waits)
    refs = await client.monitor(failing, killed)
    await subscribed(zen, 2)
    zen.node.send(failing, 1)
    assert await client.take(1) == [down(refs[0], failing, (Atom("ValueError"), b"no good"))]
    assert await client.beam.eval("exit(Pid, kill).", Pid=killed) is True
    assert await client.take(1) == [down(refs[1], killed, Atom("killed"))]


async def test_dead_targets(zen: ZenMonitor, client: Client) -> None:
    await client.compatible(zen.node)
    dead, nobody = Pid(zen.node.name, 99_999, 0, zen.node.creation), (Atom("nobody"), zen.node.name)
    refs = await client.monitor(dead, nobody)
    got = await client.take(2)
    assert sorted(got, key=str) == sorted([down(refs[0], dead, NOPROC), down(refs[1], nobody, NOPROC)], key=str)
    await nothing_left(zen)


async def test_demonitor_releases_everything(zen: ZenMonitor, client: Client) -> None:
    await client.compatible(zen.node)
    pid = zen.node.spawn(waits)
    before = zen.node.statistics()["monitors"]
    first, second = await client.monitor(pid, pid)
    await subscribed(zen, 1)
    await client.demonitor(first)
    await client.demonitor(second, "[flush]")
    await subscribed(zen, 0)
    # What is left is our monitor on the BEAM's Connector and the Connector's on our Proxy, not one on the target.
    assert zen.node.statistics()["monitors"] <= before + 1
    (third,) = await client.monitor(pid)
    await subscribed(zen, 1)
    zen.node.send(pid, DIED)
    assert await client.take(1) == [down(third, pid, DIED)]
    assert await client.waiting() == 0


async def test_flush_finds_what_our_proxy_has_reported(zen: ZenMonitor, client: Client) -> None:
    await client.compatible(zen.node)
    (ref,) = await client.monitor((Atom("nobody"), zen.node.name))
    assert await client.beam.eval("polling:until(fun() -> collector:waiting(w) =:= 1 end, 20000).") is True
    await client.demonitor(ref)
    assert await client.waiting() == 1
    await client.demonitor(ref, "[flush]")
    assert await client.waiting() == 0


async def test_a_name_and_its_second_life(zen: ZenMonitor, client: Client) -> None:
    await client.compatible(zen.node)
    named = (Atom("lives_twice"), zen.node.name)
    for life in (1, 2):
        pid = zen.node.spawn(waits, name="lives_twice")
        (ref,) = await client.monitor(named)
        await subscribed(zen, 1)
        zen.node.send(pid, life)
        assert await client.take(1) == [down(ref, named, life)]


async def test_summaries_are_chunked_paced_and_in_order(visible: Node, client: Client) -> None:
    async with open_zen_monitor(visible, Settings(batcher_chunk_size=1000)) as zen:
        await client.compatible(visible)
        pids = [visible.spawn(waits) for _ in range(2500)]
        refs = await client.monitor(*pids)
        await subscribed(zen, 2500)
        await client.beam.eval("zen_local:recorded().")
        started = trio.current_time()
        for pid in pids:
            visible.exit(pid, DIED)
        got = await client.take(2500)
        assert {(message[1], message[3]) for message in got} == set(zip(refs, pids, strict=True))
        assert len(got) == 2500
        assert trio.current_time() - started >= 0.2  # two intervals lie between three summaries
        recorded = await client.beam.eval("zen_local:recorded().")
        assert [len(certificates) for _, (_, _, certificates) in recorded] == [1000, 1000, 500]
        assert [target for _, (_, _, certificates) in recorded for target, _ in certificates] == pids
        assert {node for _, (_, node, _) in recorded} == {visible.name}


async def test_leaving_the_node_fires_nodedown(opened: NodeOpener, client: Client) -> None:
    async with opened(visible="passive") as node, open_zen_monitor(node) as zen:
        await client.compatible(node)
        pid = node.spawn(waits)
        (ref,) = await client.monitor(pid)
        await subscribed(zen, 1)
    assert await client.take(1) == [down(ref, pid, NODEDOWN)]


async def test_disconnect_fires_nodedown_drops_the_rows_and_reconnecting_works(zen: ZenMonitor, client: Client) -> None:
    await client.compatible(zen.node)
    pid = zen.node.spawn(waits)
    (ref,) = await client.monitor(pid)
    await subscribed(zen, 1)
    assert await is_among_nodes(client.beam, zen.node.name)
    await disconnected_by(client.beam, zen.node)
    assert await client.take(1) == [down(ref, pid, NODEDOWN)]
    await nothing_left(zen)
    await client.compatible(zen.node)
    (ref,) = await client.monitor(pid)
    await subscribed(zen, 1)
    zen.node.send(pid, DIED)
    assert await client.take(1) == [down(ref, pid, DIED)]


async def test_a_death_after_a_disconnect_reopens_nothing(zen: ZenMonitor, client: Client) -> None:
    await client.compatible(zen.node)
    pid = zen.node.spawn(waits)
    await client.monitor(pid)
    await subscribed(zen, 1)
    assert await is_among_nodes(client.beam, zen.node.name)
    await zen.node.disconnect(client.beam.name)
    zen.node.exit(pid, DIED)
    await nothing_left(zen)
    await trio.sleep(0.3)  # three sweeps in which the original would have dialled
    assert zen.node.connections == []


async def test_a_crash_of_our_proxy_is_seen_and_forgiven(zen: ZenMonitor, client: Client) -> None:
    await client.beam.eval("zen_settings:set(base_penalty, 30000).")  # no slow machine sees its end
    await client.compatible(zen.node)
    pid = zen.node.spawn(waits)
    (ref,) = await client.monitor(pid)
    await subscribed(zen, 1)
    proxy = zen.node.whereis(m.PROXY)
    assert proxy is not None
    zen.node.exit(proxy, Atom("kill"))
    assert await client.take(1) == [down(ref, pid, NODEDOWN)]
    attempt, remaining = await client.beam.eval("zen_local:penalty(N).", N=zen.node.name)
    assert attempt == 1
    assert 0 < remaining <= 60_000
    # A connection that is made anew carries no penalty.
    assert await is_among_nodes(client.beam, zen.node.name)
    await disconnected_by(client.beam, zen.node)
    await client.compatible(zen.node)
    (ref,) = await client.monitor(pid)
    await subscribed(zen, 1)
    zen.node.send(pid, DIED)
    assert await client.take(1) == [down(ref, pid, DIED)]


async def test_a_node_without_zenmonitor_is_incompatible_to_the_beam(visible: Node, client: Client) -> None:
    await client.compatible(visible, "incompatible")
    (ref,) = await client.monitor((Atom("x"), visible.name))
    assert await client.take(1) == [down(ref, (Atom("x"), visible.name), NODEDOWN)]


async def test_a_plain_gen_server_call_is_answered(zen: ZenMonitor, beam: Beam) -> None:
    assert await beam.eval(f"gen_server:call({{'{m.PROXY}', N}}, ping, 20000).", N=zen.node.name) == m.PONG


async def test_garbage_costs_nobody_a_down(zen: ZenMonitor, client: Client) -> None:
    await client.compatible(zen.node)
    pid = zen.node.spawn(waits)
    (ref,) = await client.monitor(pid)
    await subscribed(zen, 1)
    garbage = """
        P = {'Elixir.ZenMonitor.Proxy', N}, S = whereis(w),
        [P ! M || M <- [hello, {'$gen_cast', what}, {'$gen_call', {self(), make_ref()}, what},
            {'$gen_cast', {process, S, [{subscribe, 123}, {watch, x}, nil | tail]}},
            {'$gen_cast', {process, S, not_a_list}},
            {'$gen_cast', {subscribe, S, [hd(erlang:ports())]}}], _ <- lists:seq(1, 5)].
    """
    with capture_logs() as logs:
        await client.beam.eval(garbage, N=zen.node.name)
        await until(lambda: zen.statistics().malformed == 45, zen)
    # Each once, though each came five times.
    assert len(logs) == len({(log["problem"], log["sender"]) for log in logs})
    zen.node.send(pid, DIED)
    while (message := (await client.take(1))[0])[0] != m.DOWN:
        pass  # what it is told of the nonsense
    assert message == down(ref, pid, DIED)
    await nothing_left(zen)
    assert [left for left in await client.take(await client.waiting()) if left[0] == m.DOWN] == []
    assert zen.node.whereis(m.PROXY) is not None


async def test_two_beams_monitor_one_process(zen: ZenMonitor, client: Client, fresh_beam: Any) -> None:
    other = fresh_beam()
    await other.eval("zen_local:start(), collector:start(w).")
    second = Client(other)
    await client.compatible(zen.node)
    await second.compatible(zen.node)
    pid = zen.node.spawn(waits)
    (one,), (two,) = await client.monitor(pid), await second.monitor(pid)
    await until(lambda: zen.statistics().remote_subscribers == 2, zen)
    assert zen.statistics().subscriptions == 1
    zen.node.send(pid, DIED)
    assert await client.take(1) == [down(one, pid, DIED)]
    assert await second.take(1) == [down(two, pid, DIED)]
    (gone,) = await second.monitor(zen.node.spawn(waits))
    assert gone != two
    await subscribed(zen, 1)
    other.kill()
    await nothing_left(zen)


async def test_both_ways_at_once(zen: ZenMonitor, client: Client) -> None:
    beam = client.beam
    await beam.eval("zen_proxy:start().")
    await client.compatible(zen.node)
    ours = [zen.node.spawn(waits) for _ in range(300)]
    theirs = await beam.eval("plain_processes:spawn_many(300).")
    async with zen.watch(theirs) as downs:
        await client.monitor(*ours)
        await subscribed(zen, 300)
        await beam.eval("zen_proxy:await_subscriptions(300, 20000), plain_processes:kill_all(P).", P=theirs)
        for pid in ours:
            zen.node.exit(pid, DIED)
        with trio.fail_after(30):
            assert {down.target async for down in downs} == set(theirs)
    assert {message[3] for message in await client.take(300)} == set(ours)
    await nothing_left(zen)
    await beam.eval("zen_proxy:stop().")
