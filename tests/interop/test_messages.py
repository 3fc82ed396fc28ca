"""Messages between a Python node and a BEAM: every way to send, order, size, atoms, and those nobody takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from erlang_interop import Atom, EncodeError, Node, Pid, Process, Record
from erlang_interop.flags import DFlag
from tests.interop.collectors import PATIENCE, collecting, leftovers

if TYPE_CHECKING:
    from erlang_interop.testing.beam import Beam
    from tests.conftest import Otp

NUMBERED = Atom("numbered")


@pytest.mark.rule("Control messages: SEND_SENDER, REG_SEND and ALIAS_SEND reach pids, names and aliases there")
async def test_sending_to_a_beam_by_pid_name_and_alias(either_node: Node, beam: Beam) -> None:
    async with collecting(beam) as there, either_node.open_process() as me:
        alias = await there.run("erlang", "alias")
        destinations = [there.pid, (there.name, beam.name), (there.name.name, Atom(beam.name)), alias]
        for index, dest in enumerate(destinations):
            me.send(dest, (Atom("hello"), index, me.pid))
        assert await there.take(4) == [(Atom("hello"), index, me.pid) for index in range(4)]


@pytest.mark.rule("Control messages: SEND_SENDER, REG_SEND and ALIAS_SEND reach pids, names and aliases here")
async def test_a_beam_sends_by_pid_name_and_alias(either_node: Node, beam: Beam) -> None:
    async with either_node.open_process("receiver") as me:
        bindings: dict[str, Any] = {"P": me.pid, "Name": (Atom("receiver"), either_node.name), "Alias": me.alias()}
        sent = "[Dest ! {hello, self()} || Dest <- [P, Name, Alias]], self()"
        sender = await beam.eval(sent, **bindings)
        assert [await me.receive(timeout=PATIENCE) for _ in range(3)] == [(Atom("hello"), sender)] * 3


@pytest.mark.rule("Control messages: REG_SEND takes any atom for a name")
async def test_a_name_of_a_node_can_be_true(node: Node, beam: Beam) -> None:
    """The atoms that Python has values of its own for are names as well."""
    async with node.open_process() as me:
        for name in ("true", "false", "nil"):
            source = "register(N, self()), P ! up, receive M -> {N, M} after 20000 -> nothing end"
            async with trio.open_nursery() as nursery:
                nursery.start_soon(expect_value, beam, source, (_value(name), Atom("there")), _value(name), me.pid)
                assert await me.receive(timeout=PATIENCE) == Atom("up")
                me.send((name, beam.name), Atom("there"))


def _value(name: str) -> Any:
    return {"true": True, "false": False, "nil": None}[name]


async def expect_value(beam: Beam, source: str, expected: Any, name: Any, pid: Pid) -> None:
    assert await beam.eval(source, N=name, P=pid) == expected


@pytest.mark.rule("Aliases: reply")
async def test_an_alias_ends_with_its_reply_or_when_it_is_taken_back(node: Node, beam: Beam) -> None:
    async with node.open_process() as me:
        once, taken_back = me.alias(reply=True), me.alias()
        assert me.unalias(taken_back)
        await beam.eval("Once ! first, Once ! second, Gone ! third, P ! last", Once=once, Gone=taken_back, P=me.pid)
        assert [await me.receive(timeout=PATIENCE) for _ in range(2)] == [Atom("first"), Atom("last")]
        assert leftovers(node) == {}


@pytest.mark.rule("Aliases: reply")
async def test_an_alias_of_a_beam_ends_with_its_reply(node: Node, beam: Beam) -> None:
    async with collecting(beam) as there, node.open_process() as me:
        once = await there.run("erlang", "alias", [Atom("reply")])
        for dest, message in ((once, 1), (once, 2), (there.pid, 3)):
            me.send(dest, message)
        assert await there.take(2) == [1, 3]


@pytest.mark.rule("Aliases: reply_demonitor")
async def test_a_reply_to_the_alias_of_a_monitor_ends_both(node: Node, beam: Beam) -> None:
    async with collecting(beam) as there, node.open_process() as me:
        ref = me.monitor(there.pid, alias="reply_demonitor")
        assert await beam.eval("plain_processes:await_monitored(P, 1, 20000)", P=there.pid)
        await there.run("erlang", "send", ref, (ref, Atom("answer")))
        assert await me.receive(timeout=PATIENCE) == (ref, Atom("answer"))
        assert await beam.eval("plain_processes:await_monitored(P, 0, 20000)", P=there.pid)
        await there.run("erlang", "send", ref, Atom("too_late"))
        await there.round_trip(me)
        assert len(me.mailbox) == 0
        assert leftovers(node) == {}


@pytest.mark.rule("Aliases: reply_demonitor")
async def test_our_reply_to_the_alias_of_a_monitor_ends_both(node: Node, beam: Beam) -> None:
    async with collecting(beam) as there, node.open_process() as me:
        options = [(Atom("alias"), Atom("reply_demonitor"))]
        ref = await there.run("erlang", "monitor", Atom("process"), me.pid, options)
        await there.round_trip(me)
        assert leftovers(node) == {"watchers": 1, "peer_entries": 1}
        me.send(ref, (ref, 1))
        me.send(ref, (ref, 2))
        await there.round_trip(me)
        assert await there.take(1) == [(ref, 1)]
        assert await there.waiting() == 0
        assert leftovers(node) == {}


# --------------------------------------------------------------------------------------------------------------- order


@pytest.mark.rule("Control messages: signals between two processes keep their order")
async def test_order_from_each_of_many_senders(node: Node, beam: Beam) -> None:
    senders, each = 20, 1000
    async with node.open_process() as me:
        pids = await beam.eval(f"ordered_sender:send_from_many(P, {senders}, {each})", P=me.pid)
        last = dict.fromkeys(pids, 0)
        for _ in range(senders * each):
            tag, sender, index = await me.receive(timeout=PATIENCE)
            assert (tag, index) == (NUMBERED, last[sender] + 1)
            last[sender] = index
        assert set(last.values()) == {each}


@pytest.mark.rule("Control messages: signals between two processes keep their order")
async def test_order_of_a_hundred_thousand_to_a_beam(node: Node, beam: Beam) -> None:
    async with collecting(beam) as there, node.open_process() as me:
        for index in range(1, 100_001):
            await me.send(there.pid, (NUMBERED, index))
        assert await beam.eval("ordered_sender:is_in_order(P, 100000, 20000)", P=there.pid) is True


@pytest.mark.rule("Control messages: signals between two processes keep their order")
async def test_what_is_sent_before_the_connection_is_up_arrives_in_order(node: Node, beam: Beam) -> None:
    async with collecting(beam) as there, node.open_process() as me:
        assert not node.is_connected(beam.name)
        for index in range(1, 501):  # nothing is awaited: the dial has not begun
            me.send((there.name, beam.name), (NUMBERED, index))
        assert not node.is_connected(beam.name)
        for index in range(501, 10_001):  # awaited: parked above the limit until the connection is up
            await me.send((there.name, beam.name), (NUMBERED, index))
        assert node.is_connected(beam.name)
        assert await beam.eval("ordered_sender:is_in_order(P, 10000, 20000)", P=there.pid) is True


@pytest.mark.rule("Control messages: signals between two processes keep their order")
async def test_messages_exits_and_monitors_of_one_process_keep_their_order(node: Node, beam: Beam) -> None:
    """A DOWN comes behind all messages of the process that ended, both ways."""
    async with node.open_process() as me:
        sender = await beam.eval(
            "spawn(fun() -> receive go -> ordered_sender:send_numbered(P, 1000) end end)", P=me.pid
        )
        ref = me.monitor(sender)
        me.send(sender, Atom("go"))
        messages = [await me.receive(timeout=PATIENCE) for _ in range(1001)]
        assert messages == [
            *((NUMBERED, index) for index in range(1, 1001)),
            (Atom("DOWN"), ref, Atom("process"), sender, Atom("normal")),
        ]

    async def send(process: Process, dest: Pid) -> None:
        await process.receive()
        for index in range(1, 1001):
            process.send(dest, (NUMBERED, index))

    async with collecting(beam) as there:
        pid = node.spawn(send, there.pid)
        ref = await there.monitor(pid)
        await there.run("erlang", "send", pid, Atom("go"))  # it comes behind the monitor, as from us it need not
        assert await there.take(1001) == [
            *((NUMBERED, index) for index in range(1, 1001)),
            (Atom("DOWN"), ref, Atom("process"), pid, Atom("normal")),
        ]


# ------------------------------------------------------------------------------------------------------ size and shape

#: Of each kind so many that the term is 4 MB on the wire; as deep as one may nest.
BIG = {"binary": 4 << 20, "integers": 700_000, "pairs": 120_000, "deep": 9_900, "map": 150_000, "text": 1_700_000}


@pytest.mark.rule("Fragments and atom cache: a big message travels in fragments, both ways")
@pytest.mark.parametrize("kind", BIG)
async def test_four_megabytes_there_and_back(node: Node, beam: Beam, kind: str) -> None:
    size = BIG[kind]
    async with collecting(beam) as there, node.open_process() as me:
        await beam.eval("big_terms:send(P, Kind, Size)", P=me.pid, Kind=Atom(kind), Size=size)
        tag, name, term = await me.receive(timeout=PATIENCE)
        assert (tag, name) == (Atom("big"), Atom(kind))
        (row,) = node.connections
        assert row.bytes_in > (4_000_000 if kind != "deep" else 50_000)
        await me.send(there.pid, term)
        same = "collector:is_equal_to(P, big_terms, build, [Kind, Size], 20000)"
        assert await beam.eval(same, P=there.pid, Kind=Atom(kind), Size=size) is True


@pytest.mark.rule("Fragments and atom cache: fragments of several senders interleave")
async def test_big_messages_do_not_mix_with_small_ones(node: Node, beam: Beam) -> None:
    """Their fragments may lie between other messages; each sender's order is kept all the same."""
    senders = 4
    async with node.open_process() as me:
        await beam.eval(
            "[spawn(fun() -> [begin P ! {N, I, big_terms:binary(300000)}, P ! {N, I, small} end "
            "|| I <- lists:seq(1, 10)] end) || N <- lists:seq(1, Senders)]",
            P=me.pid,
            Senders=senders,
        )
        whole = bytes(index % 251 for index in range(300_000))
        came: dict[int, list[Any]] = {number: [] for number in range(1, senders + 1)}
        for _ in range(senders * 20):
            number, index, body = await me.receive(timeout=PATIENCE)
            came[number].append((index, body == whole or body))
        expected = [(index, body) for index in range(1, 11) for body in (True, Atom("small"))]
        assert came == dict.fromkeys(came, expected)


@pytest.mark.rule("Terms: a term of every kind comes back as it went")
async def test_a_term_of_every_kind_comes_back_as_it_went(node: Node, beam: Beam) -> None:
    """Compared on the BEAM, where 1 and 1.0 differ and a fun is the same fun or is not."""
    source = (
        "Terms = big_terms:every_kind(), P ! {self(), Terms}, "
        "receive {back, Back} -> {length(Back), [{A, B} || {A, B} <- lists:zip(Terms, Back), A =/= B]} "
        "after 20000 -> timeout end"
    )
    async with node.open_process() as me, trio.open_nursery() as nursery:
        nursery.start_soon(expect, beam, source, {"P": me.pid}, (41, []))
        sender, terms = await me.receive(timeout=PATIENCE)
        me.send(sender, (Atom("back"), terms))


@pytest.mark.rule("Terms: a native record comes back as it went", since=29)
async def test_a_native_record_comes_back_as_it_went(node: Node, beam: Beam, otp: Otp) -> None:
    await node.connect(beam.name)
    flags = node.peer_flags(beam.name)
    assert flags is not None
    assert bool(flags & DFlag.NATIVE_RECORDS) == (otp.release >= 29)
    if otp.release < 29:
        return  # it has no such values
    source = (
        "R = records:create(fixture, point, [{x, 1}, {y, 2}], #{is_exported => true}), P ! {self(), R}, "
        "receive {back, B} -> B =:= R after 20000 -> timeout end"
    )
    async with node.open_process() as me, trio.open_nursery() as nursery:
        nursery.start_soon(expect, beam, source, {"P": me.pid}, True)
        sender, record = await me.receive(timeout=PATIENCE)
        assert isinstance(record, Record)
        me.send(sender, (Atom("back"), record))


async def expect(beam: Beam, source: str, bindings: dict[str, Any], value: Any) -> None:
    assert await beam.eval(source, **bindings) == value


async def test_what_cannot_be_encoded_costs_its_sender_alone(node: Node, beam: Beam) -> None:
    async with collecting(beam) as there, node.open_process() as me:
        for connected in (False, True):
            assert node.is_connected(beam.name) is connected
            me.send((there.name, beam.name), 1)
            with pytest.raises(EncodeError):
                me.send((there.name, beam.name), [Atom("never_sent"), object()])
            me.send((there.name, beam.name), Atom("never_sent"))
            assert await there.take(2) == [1, Atom("never_sent")]
        assert len(node.connections) == 1


# --------------------------------------------------------------------------------------------------------------- atoms


@pytest.mark.rule("Fragments and atom cache: more atoms than the cache has slots")
@pytest.mark.parametrize("each", [10, 100, 300], ids=lambda each: f"{each} in a message")
async def test_more_atoms_than_the_cache_has_slots(node: Node, beam: Beam, each: int) -> None:
    """5,000 atoms, and all of them again: every slot of either cache is written several times over."""
    first, messages = 10_000 * each, 5_000 // each
    async with collecting(beam) as there, node.open_process() as me:
        for _ in range(2):
            await beam.eval(f"big_terms:send_atom_messages(P, {first}, {messages}, {each})", P=me.pid)
            for index in range(1, messages + 1):
                start = first + (index - 1) * each
                atoms = [Atom(f"fixture_atom_{number}") for number in range(start, start + each)]
                assert await me.receive(timeout=PATIENCE) == (Atom("atoms"), index, atoms)
        for _ in range(2):
            for index in range(1, messages + 1):
                start = first + (index - 1) * each
                atoms = [Atom(f"fixture_atom_{number}") for number in range(start, start + each)]
                await me.send(there.pid, (Atom("atoms"), index, atoms))
            check = f"big_terms:check_atom_messages(P, {first}, {messages}, {each}, 20000)"
            assert await beam.eval(check, P=there.pid) is True


@pytest.mark.rule("Fragments and atom cache: atoms of more than 255 bytes")
async def test_atoms_of_more_than_255_bytes(node: Node, beam: Beam) -> None:
    """255 characters of up to four bytes each, in one header with short ones, with and without the cache."""
    characters = "xåΩ€\U0001f600"
    atoms = [Atom(character * 255) for character in characters] + [Atom(""), Atom("short")]
    make = "[list_to_atom(lists:duplicate(255, C)) || C <- Cs] ++ ['', short]"
    codes = [ord(character) for character in characters]
    async with collecting(beam) as there, node.open_process() as me:
        for repetition in (1, 2, 30):
            await beam.eval(f"P ! lists:append(lists:duplicate(Times, {make}))", P=me.pid, Cs=codes, Times=repetition)
            assert await me.receive(timeout=PATIENCE) == atoms * repetition
            me.send(there.pid, atoms * repetition)
            source = f"collector:take(C, 1, 20000) =:= [lists:append(lists:duplicate(Times, {make}))]"
            assert await beam.eval(source, C=there.pid, Cs=codes, Times=repetition) is True


# ------------------------------------------------------------------------------------------------ what nobody receives


@pytest.mark.rule("Control messages: a message to nobody is dropped")
async def test_messages_that_nobody_takes_are_dropped(node: Node, beam: Beam) -> None:
    async with collecting(beam) as there, node.open_process() as me:
        await node.connect(beam.name)
        dead = await beam.eval("plain_processes:dead_pid()")
        older = Pid(there.pid.node, there.pid.id, there.pid.serial, there.pid.creation - 1)
        stale = await there.run("erlang", "alias")
        await there.run("erlang", "unalias", stale)
        for dest in (dead, older, stale, ("no_such_name", beam.name), ("", beam.name), me.make_ref()):
            me.send(dest, Atom("nobody_takes_this"))
        me.send(there.pid, Atom("somebody_takes_this"))
        assert await there.take(1) == [Atom("somebody_takes_this")]
        assert await there.waiting() == 0

        (before,) = node.connections
        older = Pid(me.pid.node, me.pid.id, me.pid.serial, me.pid.creation - 1)
        unborn = Pid(me.pid.node, me.pid.id + 1_000_000, me.pid.serial, me.pid.creation)
        await beam.eval(
            "[Dest ! nobody_takes_this || Dest <- Dests], P ! somebody_takes_this",
            Dests=[older, unborn, me.make_ref(), (Atom("no_such_name"), node.name), (Atom(""), node.name)],
            P=me.pid,
        )
        assert await me.receive(timeout=PATIENCE) == Atom("somebody_takes_this")
        assert len(me.mailbox) == 0
        (after,) = node.connections
        assert (after.state, after.since) == ("up", before.since)
