"""Any bytes, in any state, raise our errors or nothing; how a stream is cut never matters; what is sent is received."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from erlang_interop.errors import RemoteProtocolError
from erlang_interop.flags import OFFERED, DFlag
from erlang_interop.terms import Atom, Pid, Reference
from erlang_interop.wire.channel import DistChannel, Limits
from erlang_interop.wire.control import LAYOUTS, NO_PAYLOAD, Layout
from erlang_interop.wire.epmd import (
    Alive2Request,
    KillRequest,
    NamesRequest,
    PortPlease2Request,
    ReplyReader,
    Request,
    RequestReader,
)
from erlang_interop.wire.handshake import Acceptor, Established, Initiator, NameReceived, State, StatusReceived, Verdict

A, B = "a@h", "b@h"
NO_CACHE = OFFERED & ~DFlag.DIST_HDR_ATOM_CACHE
PASS_THROUGH = NO_CACHE & ~DFlag.FRAGMENTS
AGREED = st.sampled_from([OFFERED, OFFERED & ~DFlag.FRAGMENTS, NO_CACHE, PASS_THROUGH])


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Cut ``data`` at ``places``, which are taken modulo its length."""
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(edges)]


# --------------------------------------------------------------------------------------------------------------- terms

ATOMS = st.one_of(
    st.sampled_from(["ok", "", "a@h", "b@h", "undefined", "true", "x" * 255, "中" * 255]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)
NAMES = ATOMS.map(lambda name: {"true": True, "false": False, "nil": None}.get(name, Atom(name)))
U32 = st.integers(0, 2**32 - 1)


def pids(node: str) -> st.SearchStrategy[Pid]:
    return st.builds(Pid, st.just(Atom(node)), U32, U32, U32)


ANY_PIDS = st.one_of(pids(A), pids(B))
REFS = st.builds(Reference, st.sampled_from([Atom(A), Atom(B)]), U32, st.binary(min_size=12, max_size=12))
TERMS: st.SearchStrategy[Any] = st.recursive(
    st.one_of(NAMES, st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.binary(), ANY_PIDS, REFS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.lists(inner, max_size=4).map(tuple)),
    max_leaves=6,
)
KINDS: dict[str, st.SearchStrategy[Any]] = {
    "unused": NAMES,
    "term": TERMS,
    "pid": ANY_PIDS,
    "peer": pids(A),
    "atom": NAMES,
    "proc": st.one_of(ANY_PIDS, NAMES),
    "ref": REFS,
    "dest": st.one_of(ANY_PIDS, NAMES, REFS),
    "int": st.integers(min_value=0),
    "id": st.integers(1, 2**64 - 1),
    "id0": st.integers(0, 2**64 - 1),
    "mfa": st.tuples(NAMES, NAMES, st.integers(0, 255)),
}


def signals_of(layout: Layout) -> st.SearchStrategy[tuple[tuple[Any, ...], Any]]:
    slots = st.tuples(st.just(layout.op), *(KINDS[kind] for kind in layout.kind_names))
    return st.tuples(slots, TERMS if layout.has_payload else st.just(NO_PAYLOAD))


SIGNALS = st.sampled_from(LAYOUTS).flatmap(signals_of)
PLACES = st.lists(st.integers(0, 10**6), max_size=12)


def exactly(left: Any, right: Any) -> bool:
    """``==`` that tells 1, 1.0 and true apart."""
    return bool(left == right) and repr(left) == repr(right)


# ------------------------------------------------------------------------------------------------------------- channel


@given(AGREED, st.lists(SIGNALS, max_size=5), PLACES)
def test_what_is_sent_is_received_however_it_is_cut(
    agreed: DFlag, signals: list[tuple[tuple[Any, ...], Any]], places: list[int]
) -> None:
    a, b = DistChannel(agreed, peer=B), DistChannel(agreed, peer=A)
    for control, payload in signals:
        a.send(control, payload)
    received = [signal for portion in cut(a.data_to_send(), places) for signal in b.receive_data(portion)]
    assert b.failure is None
    assert exactly(received, signals)


FRAME_HEADS = st.sampled_from(
    [
        b"\x83\x44\x00",
        b"\x83\x44\x02\x80\x00\x01\x01a\x02",
        b"\x83\x44\x01\x08\x01\x01a",
        b"\x83\x44\x01\x00\x01",
        b"\x83\x45\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x02\x00",
        b"\x83\x46\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01",
        b"\x70\x83",
        b"\x83",
        b"",
    ]
)
CONTROL_HEADS = st.builds(
    lambda arity, op: bytes((104, arity, 97, op)), st.integers(0, 9), st.sampled_from([row.op for row in LAYOUTS])
)
TAGS = st.sampled_from([82, 88, 90, 97, 98, 104, 105, 106, 107, 108, 109, 110, 112, 113, 116, 118, 119, 120, 77, 80])
CHOPPED = st.builds(
    lambda head, control, tags, rest: head + control + bytes(tags) + rest,
    FRAME_HEADS,
    st.one_of(CONTROL_HEADS, st.just(b"")),
    st.lists(TAGS, max_size=4),
    st.binary(max_size=40),
)
FRAMES = st.one_of(CHOPPED, st.binary(max_size=60)).map(lambda body: len(body).to_bytes(4, "big") + body)


@given(st.lists(FRAMES, max_size=6), PLACES, AGREED)
@settings(max_examples=500)
def test_any_frames_are_signals_or_a_failure(frames: list[bytes], places: list[int], agreed: DFlag) -> None:
    data = b"".join(frames)
    whole = DistChannel(agreed, peer=A, limits=Limits(max_message=10_000))
    expected = whole.receive_data(data)
    pieces = DistChannel(agreed, peer=A, limits=Limits(max_message=10_000))
    received = [signal for portion in cut(data, places) for signal in pieces.receive_data(portion)]
    assert exactly(received, expected)
    assert str(pieces.failure) == str(whole.failure)
    if whole.failure is not None:
        assert type(whole.failure) is RemoteProtocolError
        assert whole.failure.peer == A
        assert whole.failure.rule


@given(SIGNALS, SIGNALS, st.integers(0, 10**6), st.integers(0, 255))
@settings(max_examples=300)
def test_a_changed_byte_is_another_signal_or_a_failure(
    first: tuple[tuple[Any, ...], Any], second: tuple[tuple[Any, ...], Any], place: int, value: int
) -> None:
    a, b = DistChannel(OFFERED, peer=B), DistChannel(OFFERED, peer=A, limits=Limits(max_message=100_000))
    for control, payload in (first, second):
        a.send(control, payload)
    data = bytearray(a.data_to_send())
    data[place % len(data)] = value
    b.receive_data(bytes(data))
    assert b.failure is None or type(b.failure) is RemoteProtocolError


# ----------------------------------------------------------------------------------------------------------- handshake

MESSAGES = st.one_of(
    st.builds(
        lambda tag, rest: tag + rest,
        st.sampled_from([b"N", b"n", b"s", b"c", b"r", b"a", b"sok", b"salive", b"strue", b"sfalse", b"snamed:"]),
        st.binary(max_size=40),
    ),
    st.binary(max_size=40),
).map(lambda body: len(body).to_bytes(2, "big") + body)


def advanced(role: str, steps: int, verdict: Verdict) -> Initiator | Acceptor:
    """One side of a handshake in which ``steps`` messages, or pairs of them, went to and fro."""
    initiator = Initiator(A, B, OFFERED, 1, "c", 2)
    acceptor = Acceptor(B, OFFERED, 3, "c", 4)
    for step in range(steps):
        data = acceptor.data_to_send() if step % 2 else initiator.data_to_send()
        if step % 2 and data and initiator.state is not State.ESTABLISHED:
            if StatusReceived(Verdict.ALIVE) in initiator.receive_data(data):
                initiator.answer_alive(True)
        elif data and acceptor.state is not State.ESTABLISHED:
            if any(isinstance(event, NameReceived) for event in acceptor.receive_data(data)):
                acceptor.accept(verdict)
    return initiator if role == "initiator" else acceptor


@given(
    st.sampled_from(["initiator", "acceptor"]),
    st.integers(0, 5),
    st.sampled_from([Verdict.OK, Verdict.ALIVE]),
    st.lists(MESSAGES, max_size=4),
    PLACES,
)
@settings(max_examples=500)
def test_any_handshake_message_in_any_state(
    role: str, steps: int, verdict: Verdict, messages: list[bytes], places: list[int]
) -> None:
    side = advanced(role, steps, verdict)
    failure = None
    for portion in cut(b"".join(messages), places):
        if side.state in (State.ESTABLISHED, State.FAILED):
            break
        try:
            events = side.receive_data(portion)
        except RemoteProtocolError as error:
            failure = error
            break
        for event in events:
            if isinstance(event, NameReceived) and isinstance(side, Acceptor):
                side.accept(Verdict.OK)
            elif event == StatusReceived(Verdict.ALIVE) and isinstance(side, Initiator):
                side.answer_alive(False)
    if failure is not None:
        assert side.state is State.FAILED
        assert failure.rule


@given(PLACES, st.sampled_from([Verdict.OK, Verdict.OK_SIMULTANEOUS, Verdict.ALIVE]), st.binary(max_size=20))
def test_a_handshake_however_it_is_cut(places: list[int], verdict: Verdict, trailing: bytes) -> None:
    initiator = Initiator(A, B, OFFERED, 1, "c", 2)
    acceptor = Acceptor(B, OFFERED, 3, "c", 4)
    established: list[Established] = []
    while len(established) < 2:
        for portion in cut(initiator.data_to_send(), places):
            for event in acceptor.receive_data(portion):
                if isinstance(event, NameReceived):
                    acceptor.accept(verdict)
                elif isinstance(event, Established):
                    established.append(event)
        data = acceptor.data_to_send()
        rest = trailing if established else b""
        for portion in cut(data + rest, places):
            if initiator.state is State.ESTABLISHED:
                rest = rest[len(portion) :]
                continue
            for event in initiator.receive_data(portion):
                if event == StatusReceived(Verdict.ALIVE):
                    initiator.answer_alive(True)
                elif isinstance(event, Established):
                    established.append(event)
    assert [event.peer for event in established] == [A, B]
    assert trailing.startswith(established[1].trailing_data)


# ---------------------------------------------------------------------------------------------------------------- EPMD

EPMD_BYTES = st.one_of(
    st.builds(lambda tag, rest: bytes((tag,)) + rest, st.sampled_from([118, 119, 121, 0]), st.binary(max_size=40)),
    st.builds(
        lambda tag, rest: (len(rest) + 1).to_bytes(2, "big") + bytes((tag,)) + rest,
        st.sampled_from([120, 122, 110, 100, 107, 115]),
        st.binary(max_size=40),
    ),
    st.binary(max_size=40),
)


@given(EPMD_BYTES, PLACES)
@settings(max_examples=300)
def test_any_bytes_to_an_epmd_server(data: bytes, places: list[int]) -> None:
    reader = RequestReader()
    with suppress(RemoteProtocolError):
        for portion in cut(data, places):
            reader.receive_data(portion)


@given(
    st.sampled_from([Alive2Request(1, "a"), PortPlease2Request("a"), NamesRequest(), KillRequest()]),
    EPMD_BYTES,
    PLACES,
)
@settings(max_examples=300)
def test_any_bytes_to_an_epmd_client(request: Request, data: bytes, places: list[int]) -> None:
    reader = ReplyReader(request)
    with suppress(RemoteProtocolError):
        for portion in cut(data, places):
            if reader.receive_data(portion) is not None:
                return
        reader.receive_eof()
