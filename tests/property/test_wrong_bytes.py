"""Wrong bytes in every state of the handshake and in every frame of the channel raise our errors and nothing else.

What is fed is made from what is right in that state: valid messages, cut at every place, with flipped bits, another
length, another tag, said twice, with a tail. Random bytes alone never get far enough to find a fault.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, Final, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from erlang_interop.errors import HandshakeError, LocalProtocolError, RemoteProtocolError
from erlang_interop.flags import OFFERED, DFlag
from erlang_interop.terms import Atom
from erlang_interop.wire.channel import DistChannel, Limits
from erlang_interop.wire.control import LAYOUTS, NO_PAYLOAD, Layout, check
from erlang_interop.wire.handshake import Acceptor, Established, Event, Initiator, State, Verdict
from tests.wrong_bytes import (
    COOKIE,
    FOREIGN,
    HEADERS,
    PASS_THROUGH,
    PAYLOADS,
    PID,
    REF,
    TAGS,
    WHOLE,
    A,
    B,
    changed,
    control_of,
    fragments_of,
    frame,
    frames_of,
    message,
    messages_of,
    payload_of,
)

MESSAGES: Final = messages_of(A, B)
NAME, OLD_NAME, ASKING = MESSAGES["NAME"], MESSAGES["OLD_NAME"], MESSAGES["NAME (asking)"]
CHALLENGE, GIVEN = MESSAGES["NAME (challenge)"], MESSAGES["STATUS named"]
LIMITS: Final = Limits(max_message=100_000, max_sequences=5, max_fragmented=200_000, max_depth=500)
Side: TypeAlias = Initiator | Acceptor


def acceptor(verdict: Verdict | None = None, *said: bytes) -> Acceptor:
    """One that heard ``said`` and answered the name, which is the first, with ``verdict``."""
    side = Acceptor(B, OFFERED, 3, COOKIE, 4)
    for index, body in enumerate(said):
        side.receive_data(message(body))
        if index == 0 and verdict is not None:
            side.accept(verdict)
    return side


def initiator(*said: bytes) -> Initiator:
    side = Initiator(A, B, OFFERED, 1, COOKIE, 2)
    for body in said:
        side.receive_data(message(body))
    return side


def asker(*said: bytes) -> Initiator:
    """A node that has no name yet."""
    side = Initiator("127.0.0.1", B, OFFERED | DFlag.NAME_ME, 1, COOKIE, 2)
    for body in said:
        side.receive_data(message(body))
    return side


def namer() -> Acceptor:
    """One that gave a node its name."""
    side = acceptor(None, ASKING)
    side.give_name("given@127.0.0.1", 9)
    return side


#: Each state in which a message can come, some twice: how it is reached, and the messages that are right in it.
STATES: Final[dict[str, tuple[Callable[[], Side], list[str]]]] = {
    "RECV_NAME": (acceptor, ["NAME", "NAME (asking)", "OLD_NAME"]),
    "AWAIT_VERDICT": (lambda: acceptor(None, NAME), []),
    "AWAIT_VERDICT of a nameless one": (lambda: acceptor(None, ASKING), []),
    "RECV_ALIVE_ANSWER": (lambda: acceptor(Verdict.ALIVE, NAME), ["STATUS true", "STATUS false"]),
    "RECV_COMPLEMENT": (lambda: acceptor(Verdict.OK, OLD_NAME), ["COMPLEMENT"]),
    "RECV_REPLY": (lambda: acceptor(Verdict.OK, NAME), ["REPLY"]),
    "RECV_REPLY of a nameless one": (namer, ["REPLY"]),
    "RECV_STATUS": (initiator, [f"STATUS {word}" for word in Verdict]),
    "RECV_STATUS without a name": (asker, ["STATUS named", "STATUS not_allowed"]),
    "AWAIT_ALIVE_ANSWER": (lambda: initiator(b"salive"), []),
    "RECV_CHALLENGE": (lambda: initiator(b"sok"), ["NAME (challenge)"]),
    "RECV_CHALLENGE with a given name": (lambda: asker(GIVEN), ["NAME (challenge)"]),
    "RECV_ACK": (lambda: initiator(b"sok", CHALLENGE), ["ACK"]),
}
RIGHT: Final = [(state, name) for state, (_, names) in STATES.items() for name in names]


def test_every_state_is_here() -> None:
    assert {name.split()[0] for name in STATES} == {state.name for state in State} - {"ESTABLISHED", "FAILED"}
    for name, (reach, _) in STATES.items():
        assert reach().state.name == name.split()[0]


def feed(side: Side, data: bytes) -> tuple[list[Event], RemoteProtocolError | None]:
    """What comes of ``data``; a fault is ours, says what an operator needs, and ends the handshake."""
    try:
        return side.receive_data(data), None
    except RemoteProtocolError as caught:
        error = caught
    assert side.state is State.FAILED
    assert error.rule
    # A refusal (the cookies differ, a flag is missing, not allowed) has a class; what is malformed has a place.
    assert isinstance(error, HandshakeError) or error.offset is not None, error
    assert error.peer == (side.peer or None)
    assert len(str(error)) < 1000
    with pytest.raises(LocalProtocolError):
        side.receive_data(b"")
    return [], error


def test_the_right_messages_are_taken() -> None:
    for state, name in RIGHT:
        side = STATES[state][0]()
        _, error = feed(side, message(MESSAGES[name]))
        assert side.state.name != state.split()[0], (state, name)
        assert type(error) is not RemoteProtocolError, (state, name)


@pytest.mark.parametrize("state", STATES)
def test_a_tag_that_is_not_due(state: str) -> None:
    reach, right = STATES[state]
    due = {MESSAGES[name][:1] for name in right}
    wrong = {name: body for name, body in MESSAGES.items() if body[:1] not in due}
    assert len(wrong) > 5
    for name, body in wrong.items():
        side = reach()
        events, error = feed(side, message(body))
        assert events == []
        assert error is not None
        assert error.message == f"{name.split()[0]} not allowed in {state.split()[0]}"
        assert error.offset == 0


@pytest.mark.parametrize(("state", "name"), RIGHT, ids=str)
def test_a_message_that_ends_too_early(state: str, name: str) -> None:
    """With a length that says so, and without: then the stream ends."""
    body = MESSAGES[name]
    for size in range(len(body)):
        side = STATES[state][0]()
        events, error = feed(side, message(body[:size]))
        # A shorter word may be another one, and the name of OLD_NAME has no length.
        if body[:size] not in MESSAGES.values() and not (
            name == "OLD_NAME" and size >= len(b"n\0\5" + bytes(4) + b"a@1")
        ):
            assert events == []
            assert error is not None, size
        side = STATES[state][0]()
        assert feed(side, message(body)[: 2 + size]) == ([], None)
        assert isinstance(side.connection_lost(), HandshakeError)
        assert side.state is State.FAILED


@pytest.mark.parametrize(("state", "name"), RIGHT, ids=str)
def test_a_message_that_comes_twice(state: str, name: str) -> None:
    side = STATES[state][0]()
    events, error = feed(side, message(MESSAGES[name]) * 2)
    if error is None:  # behind the last message the stream is the channel's
        assert isinstance(events[-1], Established)
        assert events[-1].trailing_data == message(MESSAGES[name])


CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("flip"), st.integers(0, 10**6), st.integers(0, 7)),
        st.tuples(st.just("set"), st.integers(0, 10**6), st.sampled_from([0, 1, 0x7F, 0x80, 0xFF])),
        st.tuples(st.just("cut"), st.integers(0, 10**6), st.integers(1, 20)),
        st.tuples(st.just("double"), st.integers(0, 10**6), st.integers(1, 20)),
        st.tuples(st.just("tail"), st.binary(max_size=30), st.just(0)),
    ),
    max_size=4,
)


def portions(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(edges)]


LENGTHS = st.one_of(st.none(), st.integers(0, 0xFFFF), st.sampled_from([0, 1, 0xFFFF, 0x1603]))
PLACES = st.lists(st.integers(0, 10**6), max_size=5)


@given(
    st.sampled_from(list(STATES)),
    st.lists(st.tuples(st.sampled_from(list(MESSAGES)), CHANGES, LENGTHS), min_size=1, max_size=3),
    st.booleans(),
    PLACES,
)
@settings(max_examples=1500)
def test_changed_messages_in_any_state(
    state: str, said: list[tuple[str, list[Any], int | None]], begin_rightly: bool, places: list[int]
) -> None:
    reach, right = STATES[state]
    data = b""
    for index, (name, changes, length) in enumerate(said):
        if index == 0 and begin_rightly and right:
            name = right[len(name) % len(right)]
        body = changed(MESSAGES[name], changes)
        data += message(body) if length is None else length.to_bytes(2, "big") + body
    side = reach()
    whole = feed(reach(), data)
    events: list[Event] = []
    error: RemoteProtocolError | None = None
    for portion in portions(data, places):
        more, error = feed(side, portion)
        events += more
        if error is not None or (events and isinstance(events[-1], Established)):
            break
    assert str(error) == str(whole[1]), "how the stream is cut must not matter"
    if side.state not in (State.FAILED, State.ESTABLISHED):
        assert isinstance(side.connection_lost(), HandshakeError)


# --------------------------------------------------------------------------------------------------------- the channel


def received(data: bytes, agreed: DFlag = HEADERS, places: list[int] | None = None) -> tuple[list[Any], str]:
    """The signals in ``data`` and the fault that ended them; both are what the channel promises."""
    channel = DistChannel(agreed, peer=A, limits=LIMITS)
    signals = [signal for portion in portions(data, places or []) for signal in channel.receive_data(portion)]
    for control, payload in signals:
        check(control, payload is not NO_PAYLOAD, Atom(A))
    failure = channel.failure
    if failure is None:
        return signals, ""
    assert type(failure) is RemoteProtocolError
    assert failure.peer == A
    assert failure.rule
    assert failure.offset is not None
    assert 0 <= failure.offset <= len(data)
    assert len(str(failure)) < 2000
    assert channel.receive_data(frames_of(LAYOUTS[0], agreed)) == [], "nothing is taken behind a fault"
    return signals, str(failure)


MODES = pytest.mark.parametrize("agreed", [HEADERS, WHOLE, PASS_THROUGH], ids=["header", "no fragments", "no header"])
EACH_OP = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)


@MODES
@EACH_OP
def test_a_frame_that_ends_too_early(layout: Layout, agreed: DFlag) -> None:
    """Cut anywhere, with a length that says so: the frame behind it is in step, and not taken."""
    whole = frames_of(layout, agreed)
    signals, failure = received(whole, agreed)
    assert (len(signals), failure) == (1, "")
    for size in range(1, len(whole) - 4):
        signals, failure = received(frame(whole[4 : 4 + size]) + whole, agreed)
        assert signals == [], size
        assert failure, size


@EACH_OP
def test_another_tag_in_each_place(layout: Layout) -> None:
    channel = DistChannel(HEADERS, peer=B)
    channel.send(control_of(layout), (Atom("a"), [2.5, 1 << 70], {b"b": PID}) if layout.has_payload else NO_PAYLOAD)
    whole = channel.data_to_send()
    for at in range(4, len(whole)):
        for value in (0, 70, 80, 82, 97, 104, 105, 106, 107, 108, 109, 111, 116, 119, 131, 255):
            received(whole[:at] + bytes((value,)) + whole[at + 1 :] + whole)


@MODES
@EACH_OP
def test_a_control_message_with_an_element_of_another_kind(layout: Layout, agreed: DFlag) -> None:
    """Each element in turn is something else; what is left is a signal that fits its row, or a fault that names it."""
    control = control_of(layout)
    numbers = (0, -1, 1 << 64, 1 << 20_000, 1.5)
    odd: tuple[Any, ...] = (FOREIGN, PID, REF, Atom("x"), True, None, *numbers, b"", [], (), [[[[]]]], payload_of(PID))
    for at in range(len(control)):
        for value in odd:
            other = (*control[:at], value, *control[at + 1 :])
            channel = DistChannel(agreed, peer=B)
            channel.send(other, payload_of(PID) if layout.has_payload else NO_PAYLOAD)
            signals, failure = received(channel.data_to_send(), agreed)
            assert bool(signals) != bool(failure), (at, value)
    for other in (control[:-1], (*control, 1), control[:1], ()):
        channel = DistChannel(agreed, peer=B)
        channel.send(other, payload_of(PID) if layout.has_payload else NO_PAYLOAD)
        signals, failure = received(channel.data_to_send(), agreed)
        assert bool(signals) != bool(failure), other


@pytest.mark.parametrize("layout", PAYLOADS, ids=lambda layout: layout.name)
def test_fragments_that_are_cut_lost_doubled_or_out_of_order(layout: Layout) -> None:
    parts = fragments_of(layout, 4)
    good = b"".join(map(frame, parts))
    signals, failure = received(good)
    assert (signals, failure) == ([(control_of(layout), (Atom("x"), bytes(range(256))))], "")
    for index, part in enumerate(parts):
        for size in range(1, len(part)):
            kept = [*parts[:index], part[:size], *parts[index + 1 :]]
            signals, failure = received(b"".join(map(frame, kept)))
            assert signals == []
            assert failure, (index, size)
        for wrong in (
            parts[:index] + parts[index + 1 :],
            [*parts[: index + 1], part, *parts[index + 1 :]],
            [*parts[:index], *reversed(parts[index:])],
        ):
            signals, failure = received(b"".join(map(frame, wrong)))
            if wrong != parts and wrong != parts[:-1]:
                assert failure or signals == [], index


@pytest.mark.parametrize("length", [100_001, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_a_length_that_is_too_much_is_refused_before_it_is_there(length: int) -> None:
    for data in (length.to_bytes(4, "big"), frames_of(LAYOUTS[0], HEADERS) + length.to_bytes(4, "big") + b"\x83D"):
        for places in ([], [1], [len(data) - 1], [len(data) - 3, len(data) - 4]):
            signals, failure = received(data, places=places)
            assert f"a frame of {length} bytes; 100000 are allowed" in failure
            assert len(signals) == (len(data) > 4)


FRAME_CHANGES = st.one_of(
    CHANGES, st.lists(st.tuples(st.just("set"), st.integers(0, 10**6), st.sampled_from(TAGS)), min_size=1, max_size=3)
)
FRAME_LENGTHS = st.one_of(st.none(), st.none(), st.integers(-3, 3), st.integers(0, 0xFFFFFFFF))
SEEDS: Final[dict[DFlag, list[bytes]]] = {
    agreed: [frames_of(layout, agreed)[4:] for layout in LAYOUTS] for agreed in (HEADERS, PASS_THROUGH)
}
SEEDS[HEADERS] += [part for layout in PAYLOADS for part in fragments_of(layout, 3)]
LONG: Final = DistChannel(HEADERS, peer=B)
LONG.send(control_of(PAYLOADS[0]), [Atom("é" * 200), Atom("è" * 255)])
SEEDS[HEADERS] += [LONG.data_to_send()[4:]]


@given(
    st.sampled_from([HEADERS, PASS_THROUGH]),
    st.lists(st.tuples(st.integers(0, 10**6), FRAME_CHANGES, FRAME_LENGTHS), min_size=1, max_size=6),
    PLACES,
)
@settings(max_examples=1500)
def test_changed_frames(agreed: DFlag, chosen: list[tuple[int, list[Any], int | None]], places: list[int]) -> None:
    data = b""
    for number, changes, length in chosen:
        body = changed(SEEDS[agreed][number % len(SEEDS[agreed])], changes)
        said = len(body) if length is None else max(0, len(body) + length) if -3 <= length <= 3 else length
        data += said.to_bytes(4, "big") + body
    assert received(data, agreed, places) == received(data, agreed), "how the stream is cut must not matter"


@given(st.permutations(range(9)), st.integers(0, 8), CHANGES)
@settings(max_examples=500)
def test_changed_fragments_of_several_messages(order: list[int], which: int, changes: list[Any]) -> None:
    """Three messages in three fragments each, in any order, one of them changed."""
    parts: list[bytes] = []
    for sequence, layout in enumerate(PAYLOADS[:3]):
        ids = (1234 + sequence).to_bytes(8, "big")
        parts += [part[:2] + ids + part[10:] for part in fragments_of(layout, 3)]
    parts[which] = changed(parts[which], changes)
    received(b"".join(frame(parts[index]) for index in order))
