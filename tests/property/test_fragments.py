"""Whatever terms go through a connection, however their fragments interleave and the stream is cut, they arrive."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from erlang_interop.flags import OFFERED, DFlag
from erlang_interop.terms import Atom, Pid
from erlang_interop.wire.channel import FRAGMENT_SIZE, DistChannel
from tests.parsing import frames_of, interleaved, portions

HERE, THERE = Atom("a@host"), Atom("b@host")
CONTROL = (22, Pid(HERE, 1, 0, 7), Pid(THERE, 2, 0, 8))

#: Many that are alike, so that slots are used again and taken over, and some of every length and width.
NAMES = st.one_of(
    st.integers(0, 6_000).map(lambda number: f"atom_{number}"),
    st.builds(lambda character, count: character * count, st.sampled_from("xéß中😀"), st.integers(0, 255)),
)
TERMS: st.SearchStrategy[Any] = st.recursive(
    st.one_of(NAMES.map(Atom), NAMES.map(Atom), st.integers(), st.binary(max_size=9), st.booleans(), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=12), st.lists(inner, max_size=12).map(tuple)),
    max_leaves=40,
)


@st.composite
def messages(draw: st.DrawFn) -> Any:
    """A term; one in three is made so long that it is cut."""
    term = draw(TERMS)
    if draw(st.integers(0, 2)):
        return term
    first, last = draw(st.integers(0, 6_000)), draw(st.integers(0, 6_000))
    atoms = [Atom(f"atom_{number}") for number in range(first, last, 7 if first < last else -7)]
    return term, bytes(draw(st.integers(FRAGMENT_SIZE - 100, 4 * FRAGMENT_SIZE))), atoms, term


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(
    st.lists(messages(), min_size=1, max_size=12),
    st.sampled_from([OFFERED, OFFERED & ~DFlag.DIST_HDR_ATOM_CACHE]),
    st.randoms(use_true_random=False),
    st.sampled_from([60, 1_000, FRAGMENT_SIZE, 1 << 20]),
)
def test_terms_survive_interleaving_and_cutting(sent: list[Any], agreed: DFlag, chance: Any, size: int) -> None:
    sender, receiver = DistChannel(agreed, peer=THERE.name), DistChannel(agreed, peer=HERE.name)
    frames = []
    for message in sent:
        sender.send(CONTROL, message)
        frames.append(frames_of(sender.data_to_send()))
    stream = interleaved(frames, chance.randrange)
    received = [
        signal
        for portion in portions(b"".join(frame for _, frame in stream), size)
        for signal in receiver.receive_data(portion)
    ]
    assert receiver.failure is None
    # A message counts when its last frame comes.
    ends = {number: place for place, (number, _) in enumerate(stream)}
    assert received == [(CONTROL, sent[number]) for number in sorted(ends, key=ends.__getitem__)]
    assert receiver.frames_received == len(stream) == sender.frames_sent


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_both_directions_and_three_hundred_atoms_at_once(data: st.DataObject) -> None:
    """Two channels that answer each other: each direction has a cache of its own."""
    a, b = DistChannel(OFFERED, peer=THERE.name), DistChannel(OFFERED, peer=HERE.name)
    answer = (22, Pid(THERE, 2, 0, 8), Pid(HERE, 1, 0, 7))
    for _ in range(data.draw(st.integers(1, 12))):
        start = data.draw(st.integers(0, 5_000))
        count = data.draw(st.sampled_from([1, 2, 24, 25, 254, 255, 256, 300, 600]))
        step = data.draw(st.sampled_from([1, 8, 2048 // 255, 2048]))
        message = [Atom(f"x{number % 7_000}") for number in range(start, start + count * step, step)]
        a.send(CONTROL, message)
        assert b.receive_data(a.data_to_send()) == [(CONTROL, message)]
        b.send(answer, message[::-1])
        assert a.receive_data(b.data_to_send()) == [(answer, message[::-1])]
    assert a.failure is None
    assert b.failure is None
