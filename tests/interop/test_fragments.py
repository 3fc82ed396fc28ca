"""Messages in fragments, between us and a BEAM: side by side, cut off, out of order, and of every kind of signal."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final

import pytest
import trio

from erlang_interop import Atom, EncodeError, Exit, Node, Pid, Process, Record
from tests.interop.collectors import PATIENCE, collecting, is_among_nodes, leftovers, until
from tests.interop.raw_peer import RawPeer, framed
from tests.parsing import frames_of, interleaved

if TYPE_CHECKING:
    from erlang_interop.testing.beam import Beam
    from tests.conftest import BeamFactory
    from tests.interop.conftest import NodeOpener

DOWN, EXIT, PROCESS, PIECE, SMALL = map(Atom, ("DOWN", "EXIT", "process", "piece", "small"))

# -------------------------------------------------------------------------------------------------------- side by side

#: What one sender sends, from a little more than one fragment to 4 MB. Atoms: each plan has its own, 300,000 bytes.
SIZES: Final = [("binary", 65_600), ("atoms", 9_000), ("binary", 4 << 20), ("integers", 30_000), ("binary", 300_000)]
PLANS: Final = [
    (number, [(Atom(kind), size + number) for kind, size in random.Random(number).sample(SIZES, len(SIZES))])
    for number in range(8)
]


def build(kind: str, size: int) -> Any:
    """``big_terms:build/2``."""
    if kind == "binary":
        return (bytes(range(251)) * (size // 251 + 1))[:size]
    if kind == "atoms":
        return [Atom(f"fixture_atom_{number}") for number in range(1, size + 1)]
    return [
        number << 200 if number % 100 == 0 else number if number % 2 else -number * number
        for number in range(1, size + 1)
    ]


#: More than a fragment, with more atoms than a header lists; and the same as Erlang.
REASON: Final = (Atom("big"), build("binary", 300_000), [Atom(f"fixture_atom_{number}") for number in range(1, 400)])
REASON_SOURCE: Final = "{big, big_terms:binary(300000), big_terms:atoms(1, 399)}"


@pytest.mark.rule("Fragments and atom cache: fragments of several senders interleave")
async def test_many_processes_of_a_beam_side_by_side(node: Node, beam: Beam) -> None:
    async with node.open_process() as me, trio.open_nursery() as nursery:
        send = "fragment_sender:send_side_by_side(P, Plans)"
        nursery.start_soon(lambda: beam.eval(send, timeout=60, P=me.pid, Plans=PLANS))
        came: dict[int, list[Any]] = {number: [] for number, _ in PLANS}
        for _ in range(len(PLANS) * len(SIZES) * 2):
            word, number, index, *term = await me.receive(timeout=PATIENCE)
            assert word is (PIECE if term else SMALL)
            came[number].append((index, *term))
    for number, terms in PLANS:
        expected = [
            entry
            for index, (kind, size) in enumerate(terms, 1)
            for entry in ((index, build(kind.name, size)), (index,))
        ]
        assert came[number] == expected, f"plan {number}"


@pytest.mark.rule("Fragments and atom cache: fragments of several senders interleave")
async def test_many_processes_of_ours_side_by_side(node: Node, beam: Beam) -> None:
    async def send(process: Process, dest: Pid, number: int, terms: list[tuple[Atom, int]]) -> None:
        for index, (kind, size) in enumerate(terms, 1):
            await process.send(dest, (PIECE, number, index, build(kind.name, size)))
            await process.send(dest, (SMALL, number, index))

    async with collecting(beam) as there:
        for number, terms in PLANS:
            node.spawn(send, there.pid, number, terms)
        check = "fragment_sender:check_side_by_side(P, Plans, 30000)"
        assert await beam.eval(check, timeout=60, P=there.pid, Plans=PLANS) is True


@pytest.mark.rule("Fragments and atom cache: fragments of several senders interleave")
def test_a_beam_does_interleave_and_so_may_we(beam: Beam) -> None:
    """The frames themselves: a BEAM begins one message while others are under way, and takes it from us."""
    with RawPeer(beam, receive_buffer=4096) as peer:
        peer.run(
            "S = [spawn(fun() -> Pid ! {N, big_terms:build(binary, 3000000 + N)} end) || N <- lists:seq(1, 8)], "
            # Nothing is read until several wait for the connection to take more.
            "Suspended = fun() -> [P || P <- S, process_info(P, status) =:= {status, suspended}] end, "
            "true = polling:until(fun() -> length(Suspended()) > 2 end, 20000)"
        )
        under_way: set[bytes] = set()
        most = 0
        received: list[Any] = []
        while len(received) < 8:
            frame = peer.frame()
            if frame[1] in (69, 70):
                under_way.add(frame[2:10])
                most = max(most, len(under_way))
                if int.from_bytes(frame[10:18], "big") == 1:
                    under_way.remove(frame[2:10])
            received += [payload for _, payload in peer.channel.receive_data(framed(frame))]
        assert peer.channel.failure is None
        assert most > 1
        assert sorted(received) == [(number, build("binary", 3_000_000 + number)) for number in range(1, 9)]


@pytest.mark.rule("Fragments and atom cache: an atom announced in a first fragment is known from that frame on")
@pytest.mark.parametrize("seed", range(3))
def test_interleaved_fragments_of_ours_with_atoms_in_all_of_them(beam: Beam, seed: int) -> None:
    chance = random.Random(seed)
    with RawPeer(beam) as peer:
        there = peer.run("collector:start(interleaved)")
        messages = []
        for number in range(40):
            atoms = [Atom(f"fixture_atom_{chance.randrange(1, 5_000)}") for _ in range(chance.choice([1, 40, 300]))]
            size = chance.choice([0, 0, 70_000, 200_000, 500_000])
            messages.append((number, atoms, bytes([number]) * size, atoms[:5]))
        frames = []
        for message in messages:
            peer.channel.send((22, peer.pid, there), message)
            frames.append(frames_of(peer.channel.data_to_send()))
        stream = interleaved(frames, chance.randrange)
        peer.say(b"".join(frame for _, frame in stream))
        ends = {number: place for place, (number, _) in enumerate(stream)}
        in_order = [messages[number] for number in sorted(ends, key=ends.__getitem__)]
        source = "M = collector:take(interleaved, 40, 20000), collector:stop(interleaved), M =:= Expected orelse M"
        assert peer.run(source, Expected=in_order) is True


# --------------------------------------------------------------------------------------------------- cut in the middle


@pytest.mark.rule("Fragments and atom cache: a sender that dies in the middle of a message still sends all of it")
@pytest.mark.parametrize("way", ["exit(S, kill)", "exit(S, boom)"])
def test_a_sender_of_a_beam_dies_in_the_middle(beam: Beam, way: str) -> None:
    with RawPeer(beam, receive_buffer=4096) as peer:
        sender = peer.run("fragment_sender:start_suspended(Pid, {big, big_terms:binary(20000000)}, 20000)")
        assert isinstance(sender, Pid)
        assert peer.run(f"{way}, ok", S=sender) == Atom("ok")
        control, payload = peer.signal()
        assert control == (22, sender, peer.pid)
        assert payload == (Atom("big"), build("binary", 20_000_000))
        assert peer.run("plain_processes:await_gone(S, 20000)", S=sender) is True
        assert peer.still_heard(peer.run("plain_processes:spawn_echo()"))


@pytest.mark.rule("Fragments and atom cache: a sender that dies in the middle of a message still sends all of it")
async def test_a_sender_of_ours_dies_in_the_middle(node: Node, beam: Beam) -> None:
    """Its fragments wait for the socket when it ends; they go all the same, and the exit signal behind them."""
    big = build("binary", 20_000_000)

    async def send_and_end(process: Process, dest: Pid) -> None:
        await process.receive()
        process.send(dest, (Atom("big"), big))
        raise Exit(Atom("boom"))

    async with collecting(beam) as there:
        sender = node.spawn(send_and_end, there.pid)
        ref = await there.monitor(sender)
        await there.run("erlang", "send", sender, Atom("go"))
        source = "[{big, B}, D] = collector:take(P, 2, 20000), {big_terms:binary(20000000) =:= B, D}"
        assert await beam.eval(source, P=there.pid) == (True, (DOWN, ref, PROCESS, sender, Atom("boom")))


@pytest.mark.rule("Fragments and atom cache: a connection lost in the middle of a message leaves nothing held")
def test_a_connection_of_ours_lost_in_the_middle(fresh_beam: BeamFactory) -> None:
    """A BEAM of its own: in that of the session, what other tests have left may be freed at any moment."""
    beam, held = fresh_beam(), 40_000_000
    echo = beam.eval_sync("plain_processes:spawn_echo()")
    before = beam.eval_sync("erlang:memory(binary)")
    with RawPeer(beam) as peer:
        peer.channel.send((22, peer.pid, echo), bytes(held))
        peer.say(b"".join(frames_of(peer.channel.data_to_send())[:-3]))
        assert peer.still_heard(echo)
        assert beam.eval_sync("erlang:memory(binary)") > before + 0.9 * held
    let_go = "polling:until(fun() -> erlang:memory(binary) < Limit end, 20000)"
    assert beam.eval_sync(let_go, Limit=before + held // 10) is True


@pytest.mark.rule("Fragments and atom cache: a connection lost in the middle of a message leaves nothing held")
async def test_a_connection_of_a_beam_lost_in_the_middle(node: Node, beam: Beam) -> None:
    """Of half a message nothing is seen, and the next connection begins anew: caches, sequences and all."""
    cut = """
        S = fragment_sender:start_suspended(P, {lost, binary:copy(<<0>>, 40000000)}, 20000),
        {is_pid(S), erlang:disconnect_node(node(P))}
    """
    async with node.open_process() as me:
        for round_ in range(3):
            await node.connect(beam.name)
            assert await is_among_nodes(beam, node.name)
            # Not awaited: the loop stands still and the node reads nothing, so the sender is suspended for certain.
            assert beam.eval_sync(cut, timeout=60, P=me.pid) == (True, True)
            await until(lambda: not node.is_connected(beam.name))
            await beam.eval(f"P ! {{N, {REASON_SOURCE}}}", P=me.pid, N=round_)
            assert await me.receive(timeout=PATIENCE) == (round_, REASON)
    await until(lambda: leftovers(node) == {})


# ------------------------------------------------------------------------------------------------ signals with reasons


@pytest.mark.rule("Fragments and atom cache: exit signals and DOWNs with big reasons come in fragments, both ways")
async def test_big_reasons_of_a_beam(node: Node, beam: Beam) -> None:
    async with node.open_process() as me, collecting(beam) as there:
        me.trap_exit = True
        pid = await beam.eval("plain_processes:spawn_waiting()")
        me.link(pid)
        ref = me.monitor(pid)
        me.send(pid, (Atom("finish"), REASON))
        ends = [await me.receive(timeout=PATIENCE) for _ in range(2)]
        assert (EXIT, pid, REASON) in ends
        assert (DOWN, ref, PROCESS, pid, REASON) in ends
        await beam.eval(f"collector:run(P, erlang, exit, [Me, {REASON_SOURCE}])", P=there.pid, Me=me.pid)
        assert await me.receive(timeout=PATIENCE) == (EXIT, there.pid, REASON)


@pytest.mark.rule("Fragments and atom cache: exit signals and DOWNs with big reasons come in fragments, both ways")
async def test_big_reasons_of_ours(node: Node, beam: Beam) -> None:
    async def end(process: Process) -> None:
        await process.receive()
        raise Exit(REASON)

    async with node.open_process() as me, collecting(beam) as there:
        await there.trap_exit()
        pid = node.spawn(end)
        await there.run("erlang", "link", pid)
        ref = await there.monitor(pid)
        await there.run("erlang", "send", pid, Atom("go"))
        source = f"""
            R = {REASON_SOURCE},
            [] =:= collector:take(P, 2, 20000) -- [{{'EXIT', Pid, R}}, {{'DOWN', Ref, process, Pid, R}}]
        """
        assert await beam.eval(source, P=there.pid, Pid=pid, Ref=ref) is True
        me.exit(there.pid, REASON)
        source = f"[{{'EXIT', Me, R}}] = collector:take(P, 1, 20000), R =:= {REASON_SOURCE}"
        assert await beam.eval(source, P=there.pid, Me=me.pid) is True


@pytest.mark.rule("Fragments and atom cache: the arguments of a spawn request come in fragments, both ways")
async def test_big_arguments_of_spawn_requests(node: Node, beam: Beam) -> None:
    async def give(process: Process, dest: Pid, *arguments: Any) -> None:
        process.send(dest, (Atom("given"), process.pid, arguments))

    node.expose("py", {"give": give}, with_process=True)
    async with node.open_process() as me, collecting(beam) as there:
        source = f"spawn(N, py, give, [P, {REASON_SOURCE}, 2])"
        child = await beam.eval(source, N=node.name, P=there.pid)
        check = f"[{{given, C, {{R, 2}}}}] = collector:take(P, 1, 20000), R =:= {REASON_SOURCE}"
        assert await beam.eval(check, P=there.pid, C=child) is True
        started, ref = await me.spawn_remote(beam.name, "erlang", "send", [me.pid, REASON], monitor=True)
        came = [await me.receive(timeout=PATIENCE) for _ in range(2)]
        assert came == [REASON, (DOWN, ref, PROCESS, started, Atom("normal"))]


# -------------------------------------------------------------------------------------------------------------- records

RECORD: Final = Record(Atom("geometry"), Atom("point"), True, ((Atom("x"), 1), (Atom("y"), b"2")))


@pytest.mark.rule("Terms: a native record is not sent to a node that knows none, and costs no connection")
async def test_a_native_record_for_any_release(
    opened: NodeOpener, beam: Beam, caplog: pytest.LogCaptureFixture
) -> None:
    """OTP 29 sends it to older nodes all the same, and they close the connection. While a node is being dialled nobody
    knows its flags: what turns out to be unreadable is dropped then, and logged."""
    knows = beam.release >= 29
    async with opened() as node, node.open_process() as me, collecting(beam) as there:
        for connected in (False, True):
            me.send(there.address, 1)
            if connected and not knows:
                with pytest.raises(EncodeError, match=f"#geometry:point cannot be sent: {beam.name} has no flag"):
                    me.send(there.pid, [bytes(100_000), {Atom("key"): RECORD}])
            else:
                me.send(there.pid, [bytes(100_000), {Atom("key"): RECORD}])
            me.send(there.pid, 2)
            source = (
                "[1 | More] = collector:take(P, Count, 20000), {length(More), lists:last(More), collector:waiting(P)}"
            )
            expected = (2, 2, 0) if knows else (1, 2, 0)
            assert await beam.eval(source, P=there.pid, Count=1 + expected[0]) == expected
            assert node.is_connected(beam.name)
        assert len(node.connections) == 1
        (row,) = node.connections
        assert row.state == "up"
    dropped = [record.getMessage() for record in caplog.records if "dropping" in record.getMessage()]
    why = f"the record #geometry:point cannot be sent: {beam.name} has no flag NATIVE_RECORDS (OTP 29)"
    assert dropped == ([] if knows else [f"dropping a message that waited for {beam.name}: {why}"])
