"""The atom caches of a connection with a BEAM, in both directions: slots taken over, long atoms, many atoms."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from erlang_interop import Atom, Node, Pid
from erlang_interop.wire.header import CACHE_SLOTS, MAX_REFS
from tests.interop.collectors import PATIENCE
from tests.interop.raw_peer import RawPeer, framed, header_of
from tests.parsing import frames_of
from tests.property.test_fragments import TERMS

if TYPE_CHECKING:
    from erlang_interop.testing.beam import Beam

ECHO: Final = Atom("echo")

#: Texts of atoms, one for each number: of one to four bytes a character, of 5 to 250 characters, some above 255 bytes.
CHARACTERS: Final = "xéß中€\N{GRINNING FACE}"


def named(number: int) -> str:
    character = CHARACTERS[number % len(CHARACTERS)]
    size = (5, 40, 63, 64, 120, 250)[number % 5 if number % 7 else 5]
    return f"{number}" + character * (size - len(f"{number}"))


@pytest.mark.rule("Fragments and atom cache: slots are taken over in the middle of a stream, both ways")
@pytest.mark.parametrize("seed", range(2))
async def test_thousands_of_atoms_in_a_random_order_there_and_back(node: Node, beam: Beam, seed: int) -> None:
    """Twice as many as there are slots, drawn anew for each message; what a BEAM reads is told by their texts."""
    chance = random.Random(seed)
    messages = [
        [named(chance.randrange(2 * CACHE_SLOTS)) for _ in range(chance.choice([1, 2, 5, 24, 100, 254, 300]))]
        for _ in range(150)
    ]
    source = """
        E = spawn(fun Loop() -> receive {From, Atoms} -> From ! {Atoms, [atom_to_binary(A) || A <- Atoms]}, Loop() end
                  end)
    """
    echo = await beam.eval(source)
    async with node.open_process() as me:
        for texts in messages:
            me.send(echo, (me.pid, [Atom(text) for text in texts]))
        for texts in messages:
            atoms, read = await me.receive(timeout=PATIENCE)
            assert [text.decode() for text in read] == texts
            assert atoms == [Atom(text) for text in texts]
    await beam.eval("exit(E, kill)", E=echo)


@pytest.mark.rule("Fragments and atom cache: a header lists at most 255 atoms, the others are in full")
@pytest.mark.parametrize("count", [252, 253, 254, 255, 256, 300, 700])
def test_more_atoms_in_a_message_than_a_header_lists(beam: Beam, count: int) -> None:
    with RawPeer(beam) as peer:
        atoms = [Atom(f"fixture_atom_{number}") for number in range(1, count + 1)]
        for repetition in range(3):
            peer.run("Pid ! big_terms:atoms(1, Count), ok", Count=count)
            frame = peer.frame()
            _, _, references = header_of(frame)
            assert len(references) <= MAX_REFS
            assert any(text is not None for _, text in references) == (repetition == 0)
            assert [payload for _, payload in peer.channel.receive_data(framed(frame))] == [atoms]
        echo = peer.run("plain_processes:spawn_echo()")
        for _ in range(3):
            peer.channel.send((22, peer.pid, echo), (peer.pid, atoms))
            data = peer.channel.data_to_send()
            (frame,) = frames_of(data)
            assert len(header_of(frame[4:])[2]) <= MAX_REFS
            peer.say(data)
            assert peer.signal()[1] == (ECHO, echo, atoms)


@pytest.mark.rule("Fragments and atom cache: slots are taken over in the middle of a stream, both ways")
def test_what_a_beam_does_with_its_slots(beam: Beam) -> None:
    """It gives each atom one slot. An atom whose slot another has taken is announced again; two of one message that
    need the same slot cannot both have it, and one of them is written in full."""
    with RawPeer(beam) as peer:
        slots: dict[int, str] = {}
        taken_over = in_full = 0
        for start in [*range(1, 12_000, 100), *range(1, 1_000, 100)]:
            peer.run("Pid ! big_terms:atoms(Start, 200), ok", Start=start)
            frame = peer.frame()
            position, _, references = header_of(frame)
            for slot, text in references:
                if text is not None:
                    taken_over += slot in slots
                    slots[slot] = text
            in_full += frame[position:].count(b"fixture_atom_")
            ((_, payload),) = peer.channel.receive_data(framed(frame))
            assert payload == [Atom(f"fixture_atom_{number}") for number in range(start, start + 200)]
        assert taken_over > 1_000
        assert in_full > 0
        assert len(slots) > CACHE_SLOTS // 2


@pytest.mark.rule("Fragments and atom cache: atoms of more than 255 bytes")
def test_headers_with_long_and_short_atoms(beam: Beam) -> None:
    """One atom of more than 255 bytes makes all lengths of its header 16 bits."""
    make = "Pid ! {[list_to_atom(lists:duplicate(L, C)) || {L, C} <- As], now_a_word}, ok"
    every = [(255, 0x1F600), (255, 0x20AC), (255, 0xE9), (128, 0xE9), (127, 0xE9), (255, 0x78), (1, 0x78), (0, 0x78)]
    with RawPeer(beam) as peer:
        echo = peer.run("plain_processes:spawn_echo()")
        slots: dict[int, str] = {}
        kinds = set()
        for picked in ([every[-2]], every[3:5], every[4:6], every, every[::-1], every[5:], [every[0], every[-1]]):
            atoms = [Atom(chr(character) * length) for length, character in picked]
            peer.run(make, As=picked)
            frame = peer.frame()
            position, long_atoms, references = header_of(frame)
            slots.update({slot: text for slot, text in references if text is not None})
            listed = {slots[slot] for slot, _ in references}
            # Of two that need the same slot one is in full: which do is chance, by the atoms that the BEAM has had.
            assert all(atom.name in listed or atom.name.encode() in frame[position:] for atom in atoms)
            assert long_atoms == any(len(text.encode()) > 255 for text in listed)
            kinds.add(long_atoms)
            assert [payload for _, payload in peer.channel.receive_data(framed(frame))] == [(atoms, Atom("now_a_word"))]
            for _ in range(2):
                peer.send((22, peer.pid, echo), (peer.pid, atoms))
                assert peer.signal()[1] == (ECHO, echo, atoms)
        assert kinds == {True, False}


@pytest.mark.rule("Fragments and atom cache: an atom announced in a first fragment is known from that frame on")
async def test_cache_updates_of_a_beam_between_fragments(node: Node, beam: Beam) -> None:
    """Eight processes, whose messages in fragments and small ones announce atoms side by side, slots taken over."""
    send = """
        [spawn(fun() ->
            [begin
                 First = 1 + (N * 20 + I) * 150 rem 6000,
                 Me ! {N, I, big_terms:atoms(First, 150), big_terms:binary(200000), big_terms:atoms(First + 75, 20)},
                 Me ! {N, I, big_terms:atoms(6150 - First, 9)}
             end || I <- lists:seq(1, 20)]
         end) || N <- lists:seq(0, 7)],
        ok
    """
    binary = (bytes(range(251)) * 800)[:200_000]
    async with node.open_process() as me:
        await beam.eval(send, Me=me.pid)
        came: dict[int, list[Any]] = {number: [] for number in range(8)}
        for _ in range(8 * 40):
            number, *message = await me.receive(timeout=PATIENCE)
            came[number].append(message)
    for number in range(8):
        expected: list[Any] = []
        for index in range(1, 21):
            first = 1 + (number * 20 + index) * 150 % 6_000
            expected.append([index, atoms_from(first, 150), binary, atoms_from(first + 75, 20)])
            expected.append([index, atoms_from(6_150 - first, 9)])
        assert came[number] == expected, f"sender {number}"


def atoms_from(first: int, count: int) -> list[Atom]:
    """``big_terms:atoms/2``."""
    return [Atom(f"fixture_atom_{number}") for number in range(first, first + count)]


@pytest.mark.rule("Fragments and atom cache: random terms full of atoms come back as they went")
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(terms=st.lists(TERMS, min_size=1, max_size=30), big=st.integers(0, 200_000))
def test_random_terms_there_and_back(beam: Beam, terms: list[Any], big: int) -> None:
    """Through one connection of the channel alone, every other term in a message of ``big`` bytes more."""
    with RawPeer(beam) as peer:
        echo = peer.run("plain_processes:spawn_echo()")
        sent = [(term, bytes(big) if number % 2 else b"", term) for number, term in enumerate(terms)]
        for message in sent:
            peer.channel.send((22, peer.pid, echo), (peer.pid, message))
        peer.say(peer.channel.data_to_send())
        for message in sent:
            assert peer.signal() == ((22, echo, peer.pid), (ECHO, echo, message))


@pytest.mark.rule("Fragments and atom cache: slots are taken over in the middle of a stream, both ways")
async def test_two_processes_of_ours_and_two_of_a_beam_at_once(node: Node, beam: Beam) -> None:
    """Both caches change at the same time, and have nothing to do with each other."""
    echo = await beam.eval("plain_processes:spawn_echo()")
    assert isinstance(echo, Pid)

    async def exchange(first: int) -> None:
        async with node.open_process() as me:
            for start in range(first, first + 6_000, 300):
                me.send(echo, (me.pid, atoms_from(start, 300)))
                assert await me.receive(timeout=PATIENCE) == (ECHO, echo, atoms_from(start, 300))

    async with trio.open_nursery() as nursery:
        for first in (1, 150):
            nursery.start_soon(exchange, first)
