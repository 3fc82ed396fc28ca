"""``wire/control.py``: each row against the other uses of it, and the reader of frames against its check."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from erlang_interop._native import core
from erlang_interop.errors import RemoteProtocolError
from erlang_interop.etf import decode, encode
from erlang_interop.flags import DFlag
from erlang_interop.terms import Atom, Pid, Reference
from erlang_interop.wire.channel import read_frames
from erlang_interop.wire.control import BY_OP, LAYOUTS, NO_PAYLOAD, Layout, Op, check, describe, without_altact

PEER, ME = Atom("beam@h"), Atom("py@h")
FROM, TO = Pid(PEER, 1, 2, 3), Pid(ME, 4, 5, 6)
REF = Reference(PEER, 3, b"\0\0\0\7" * 3)

#: A good value for each kind of slot, and bad ones.
GOOD: dict[str, list[Any]] = {
    "unused": [Atom(""), Atom("cookie"), None, 7],
    "term": [None, 1, b"x", [Atom("a")]],
    "pid": [TO, FROM],
    "peer": [FROM],
    "atom": [Atom("x"), Atom(""), True, False, None],
    "proc": [FROM, TO, Atom("x"), True, False, None],
    "ref": [REF],
    "dest": [FROM, TO, Atom("x"), True, None, REF],
    "int": [0, 1, 2**70],
    "id": [1, 2**64 - 1],
    "id0": [0, 1, 2**64 - 1],
    "mfa": [(Atom("m"), Atom("f"), 3), (Atom("m"), None, 0)],
}
BAD: dict[str, list[Any]] = {
    "unused": [],
    "term": [],
    "pid": [Atom("x"), 1, REF, None, True, (FROM,)],
    "peer": [TO, Atom("x"), 1, None],
    "atom": [FROM, 1, 0, b"x", REF, [], ()],
    "proc": [REF, 1, b"x", []],
    "ref": [FROM, Atom("x"), b"1234", None],
    "dest": [1, b"x", []],
    "int": [-1, 1.0, True, None, Atom("1")],
    "id": [0, 2**64, -1, True, 1.0, None],
    "id0": [2**64, -1, True, 1.0, None],
    "mfa": [(), (Atom("m"), Atom("f")), (Atom("m"), Atom("f"), Atom("3")), (1, Atom("f"), 3), [Atom("m")], Atom("m")],
}


def good(layout: Layout, choice: int = 0) -> tuple[Any, ...]:
    return (layout.op, *(GOOD[kind][choice % len(GOOD[kind])] for kind in layout.kind_names))


@pytest.fixture(params=LAYOUTS, ids=lambda layout: layout.name)
def layout(request: pytest.FixtureRequest) -> Layout:
    row: Layout = request.param
    return row


def test_every_operation_has_one_row() -> None:
    assert [layout.op for layout in LAYOUTS] == sorted(Op)
    assert [row for row in BY_OP if row is not None] == list(LAYOUTS)


def test_the_manual_s_tuples() -> None:
    """erl_dist_protocol, "Protocol between Connected Nodes", copied out; ALTACT_SIG_SEND from ``dist.c`` of OTP 28."""
    manual = """
        LINK 1 from_pid to_pid | SEND 2 unused to_pid + | EXIT 3 from_pid to_pid reason
        REG_SEND 6 from_pid unused to_name + | GROUP_LEADER 7 from_pid to_pid | EXIT2 8 from_pid to_pid reason
        SEND_TT 12 unused to_pid trace_token + | EXIT_TT 13 from_pid to_pid trace_token reason
        REG_SEND_TT 16 from_pid unused to_name trace_token + | EXIT2_TT 18 from_pid to_pid trace_token reason
        MONITOR_P 19 from_pid to_proc ref | DEMONITOR_P 20 from_pid to_proc ref
        MONITOR_P_EXIT 21 from_proc to_pid ref reason | SEND_SENDER 22 from_pid to_pid +
        SEND_SENDER_TT 23 from_pid to_pid trace_token + | PAYLOAD_EXIT 24 from_pid to_pid +
        PAYLOAD_EXIT_TT 25 from_pid to_pid trace_token + | PAYLOAD_EXIT2 26 from_pid to_pid +
        PAYLOAD_EXIT2_TT 27 from_pid to_pid trace_token + | PAYLOAD_MONITOR_P_EXIT 28 from_proc to_pid ref +
        SPAWN_REQUEST 29 req_id from_pid group_leader mfa opt_list +
        SPAWN_REQUEST_TT 30 req_id from_pid group_leader mfa opt_list trace_token +
        SPAWN_REPLY 31 req_id to_pid flags result | SPAWN_REPLY_TT 32 req_id to_pid flags result trace_token
        ALIAS_SEND 33 from_pid alias + | ALIAS_SEND_TT 34 from_pid alias trace_token +
        UNLINK_ID 35 id from_pid to_pid | UNLINK_ID_ACK 36 id from_pid to_pid
        ALTACT_SIG_SEND 37 flags from_pid to +
    """
    rows = [entry.split() for line in manual.strip().splitlines() for entry in line.split("|")]
    ours = [[row.name, str(row.op), *row.slots, *(["+"] if row.has_payload else [])] for row in LAYOUTS]
    assert ours == rows


def test_pack_and_check(layout: Layout) -> None:
    for choice in range(6):
        control = good(layout, choice)
        named = {slot: value for slot, value in zip(layout.slots, control[1:], strict=True) if slot != "unused"}
        packed = layout.pack(**named)
        assert packed == layout.pack(*named.values())
        assert type(packed[0]) is int
        assert [value for slot, value in zip(layout.slots, packed[1:], strict=True) if slot != "unused"] == list(
            named.values()
        )
        assert all(value == Atom("") for slot, value in zip(layout.slots, packed[1:], strict=True) if slot == "unused")
        assert check(control, layout.has_payload, PEER) is layout
        assert check(packed, layout.has_payload, PEER) is layout


def test_a_wrong_slot_is_named(layout: Layout) -> None:
    for index, kind in enumerate(layout.kind_names):
        for value in BAD[kind]:
            control = list(good(layout))
            control[index + 1] = value
            with pytest.raises(
                RemoteProtocolError, match=f"^beam@h: {layout.name} whose {layout.slots[index]} is"
            ) as e:
                check(tuple(control), layout.has_payload, PEER)
            assert e.value.peer == "beam@h"
            assert e.value.rule is not None
            assert e.value.rule.startswith(f"{layout.name} {{{layout.op}, ")


def test_wrong_arity_and_payload(layout: Layout) -> None:
    control = good(layout)
    with pytest.raises(RemoteProtocolError, match=f"{layout.name} of {len(control) - 1} elements"):
        check(control[:-1], layout.has_payload, PEER)
    if layout.open_ended:
        assert check((*control, Atom("token"), 1), layout.has_payload, PEER) is layout
    else:
        with pytest.raises(RemoteProtocolError, match=f"{layout.name} of {len(control) + 1} elements"):
            check((*control, 1), layout.has_payload, PEER)
    with pytest.raises(RemoteProtocolError, match=r"payload|without its"):
        check(control, not layout.has_payload, PEER)


def test_whose_pids_is_not_asked_without_a_peer(layout: Layout) -> None:
    control = (layout.op, *(TO if kind == "peer" else GOOD[kind][0] for kind in layout.kind_names))
    assert check(control, layout.has_payload) is layout


def test_the_reader_of_frames_checks_the_same(layout: Layout) -> None:
    """The C core has the checks of the frequent kinds once more; frames with others are left to Python."""
    values = [[*GOOD[kind], *BAD[kind]] for kind in layout.kind_names]
    tuples = [(layout.op, *slots) for slots in itertools.islice(itertools.product(*values), 20000)]
    tuples += [(layout.op,), good(layout)[:-1], (*good(layout), 1)]
    header, payload = b"\1\0\7", b"a\5" if layout.has_payload else b""
    seldom = core is not None and not {"int", "id", "id0", "mfa"}.isdisjoint(layout.kind_names)
    for control in tuples:
        body = b"\x83D" + header + encode(control)[1:] + payload
        frame = len(body).to_bytes(4, "big") + body
        signals: list[Any] = []
        behind = read_frames(b"x" + frame, 1, {header: [Atom("unused")]}, PEER, 100, signals)
        accepted = layout.accepts(decode(encode(control))[0], PEER)
        if seldom:
            assert accepted or behind == 1, control
        else:
            assert (behind == 1 + len(frame)) is accepted, control
        assert signals == ([] if behind == 1 else [(control, 5 if payload else NO_PAYLOAD)])


@pytest.mark.parametrize(
    ("control", "match"),
    [
        ((), "no control message"),
        (None, "no control message"),
        ([1, FROM, TO], "no control message"),
        ((Atom("link"), FROM, TO), "no control message"),
        ((True, FROM, TO), "no control message"),
        ((4, FROM, TO), "unknown operation 4, which OTP 26 removed"),
        ((5, FROM, TO), "unknown operation 5"),
        ((64, FROM, TO), "unknown operation 64"),
        ((-1, FROM, TO), "unknown operation -1"),
        ((2**80,), "unknown operation"),
    ],
)
def test_what_is_no_control_message(control: Any, match: str) -> None:
    for has_payload in (False, True):
        with pytest.raises(RemoteProtocolError, match=match):
            check(control, has_payload, PEER)


def test_describe(layout: Layout) -> None:
    line = describe(good(layout), Atom("ok") if layout.has_payload else NO_PAYLOAD)
    words = [layout.name, *(f"{slot}=" for slot in layout.slots if slot != "unused")]
    position = 0
    for word in words:
        position = line.index(word, position)
    assert ("=ok" in line.split()[-1]) == layout.has_payload
    assert "\n" not in line


def test_describe_in_erlang_s_words() -> None:
    control = (Op.REG_SEND, Pid(PEER, 1, 2, 3), Atom(""), Atom("logger"))
    assert describe(control, (Atom("hello"), None)) == (
        "REG_SEND from_pid=<beam@h.1.2> to_name=logger message={hello,nil}"
    )
    assert len(describe(control, list(range(1000, 9000)))) < 300


def test_flags_that_operations_need() -> None:
    needs = {layout.name: layout.needs for layout in LAYOUTS if layout.needs}
    assert needs["PAYLOAD_EXIT"] == DFlag.EXIT_PAYLOAD
    assert needs["ALIAS_SEND"] == DFlag.ALIAS
    assert "SEND" not in needs


@pytest.mark.parametrize(
    ("newer", "older"),
    [
        ((37, 1, TO, FROM), (22, TO, FROM)),
        ((37, 3, TO, FROM, "token"), (23, TO, FROM, "token")),
        ((37, 4, TO, REF), (33, TO, REF)),
        ((37, 7, TO, REF, "token"), (34, TO, REF, "token")),
        ((37, 9, TO, Atom("name")), (6, TO, Atom(""), Atom("name"))),
        ((37, 11, TO, Atom("name"), "token"), (16, TO, Atom(""), Atom("name"), "token")),
        ((37, 17, TO, FROM), (26, TO, FROM)),
        ((37, 21, TO, REF), None),
    ],
)
def test_what_an_altact_signal_is_for_an_older_node(newer: tuple[Any, ...], older: tuple[Any, ...] | None) -> None:
    assert without_altact(newer) == older
    if older is not None:
        check(older, True)
