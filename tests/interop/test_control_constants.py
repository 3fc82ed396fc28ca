"""Every operation number of the control table, heard from a genuine BEAM.

OTP keeps the numbers in ``erts/emulator/beam/dist.h`` (``DOP_...``), which no installed OTP carries, and libei's
``ei.h`` lists only the oldest. So the proof is made with the BEAM itself: each signal is provoked by Erlang code, and
what comes must be the row of the table that the code asked for, with the row's arity and kinds of slots (the channel
checks both). Which form a signal takes depends on the flags agreed, so there are several connections, made of nothing
but a socket, ``wire.handshake`` and ``wire.channel``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from erlang_interop.flags import OFFERED, DFlag
from erlang_interop.terms import Atom
from erlang_interop.wire.control import (
    ALTACT_ALIAS,
    ALTACT_EXIT,
    ALTACT_NAME,
    ALTACT_PRIO,
    ALTACT_TOKEN,
    BY_OP,
    Op,
)
from tests.interop.raw_peer import RawPeer, Signal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from erlang_interop.testing.beam import Beam


class RawNode(RawPeer):
    """A raw peer that says rows of the table by name, and expects them. ``ref`` is a reference of it."""

    def __init__(self, beam: Beam, flags: DFlag) -> None:
        super().__init__(beam, flags)
        self.ref = self.reference()

    def say_row(self, op: Op, *slots: Any, **payload: Any) -> None:
        """Send the row of ``op`` with these slots, and the payload by the row's name for it."""
        layout = BY_OP[op]
        assert layout is not None
        self.send(layout.pack(*slots), *payload.values())

    def run(self, source: str, **bindings: Any) -> Any:
        """Evaluate Erlang in the BEAM; ``Pid``, ``Ref`` and ``Node`` are this node's."""
        return super().run(source, Ref=self.ref, Node=self.name, **bindings)

    def expect(self, op: Op) -> Signal:
        """Wait for the next signal, which must be of ``op``."""
        control, payload = self.signal()
        assert Op(control[0]) is op, (control, payload)
        return control, payload


#: Flags that decide which form a signal takes.
MODERN: Final = OFFERED & ~DFlag.ALTACT_SIG
OLD: Final = OFFERED & ~(DFlag.EXIT_PAYLOAD | DFlag.SEND_SENDER | DFlag.ALIAS)
ALTACT: Final = OFFERED
#: Begins a process whose signals carry a trace token.
TRACED: Final = "spawn(fun() -> seq_trace:set_token(label, 17), seq_trace:set_token(send, true), "


@pytest.fixture
def modern(beam: Beam) -> Iterator[RawNode]:
    node = RawNode(beam, MODERN)
    yield node
    node.close()


@pytest.fixture
def old(beam: Beam) -> Iterator[RawNode]:
    node = RawNode(beam, OLD)
    yield node
    node.close()


@pytest.mark.rule("Control messages: the layouts are those a BEAM sends")
def test_messages(modern: RawNode) -> None:
    modern.run("Pid ! hello")
    control, payload = modern.expect(Op.SEND_SENDER)
    assert (control[1].node, control[2], payload) == (Atom(modern.beam.name), modern.pid, Atom("hello"))
    modern.run("{a_name, Node} ! hello")
    control, payload = modern.expect(Op.REG_SEND)
    assert (control[2], control[3], payload) == (Atom(""), Atom("a_name"), Atom("hello"))
    modern.run("Ref ! hello")
    control, payload = modern.expect(Op.ALIAS_SEND)
    assert (control[2], payload) == (modern.ref, Atom("hello"))


@pytest.mark.rule("Control messages: the trace-token forms are those a BEAM sends")
def test_traced_messages(modern: RawNode) -> None:
    modern.run(TRACED + "Pid ! hello, {a_name, Node} ! hello, Ref ! hello end)")
    for op in (Op.SEND_SENDER_TT, Op.REG_SEND_TT, Op.ALIAS_SEND_TT):
        control, payload = modern.expect(op)
        token = control[-1]
        assert (token[1], payload) == (17, Atom("hello"))


@pytest.mark.rule("Control messages: the layouts without SEND_SENDER and EXIT_PAYLOAD are those a BEAM sends")
def test_messages_without_their_sender(old: RawNode) -> None:
    old.run("Pid ! hello")
    assert old.expect(Op.SEND) == ((2, Atom(""), old.pid), Atom("hello"))
    old.run(TRACED + "Pid ! hello end)")
    assert old.expect(Op.SEND_TT)[0][:3] == (12, Atom(""), old.pid)


@pytest.mark.rule("Control messages: the layouts are those a BEAM sends")
def test_links(modern: RawNode) -> None:
    modern.run("spawn(fun() -> link(Pid), unlink(Pid), receive stop -> ok end end)")
    control, _ = modern.expect(Op.LINK)
    assert control[2] == modern.pid
    control, _ = modern.expect(Op.UNLINK_ID)
    assert control[1] > 0
    assert control[3] == modern.pid

    linked = modern.run("spawn(fun() -> receive stop -> ok end end)")
    modern.say_row(Op.LINK, modern.pid, linked)
    modern.say_row(Op.UNLINK_ID, 2**64 - 1, modern.pid, linked)
    assert modern.expect(Op.UNLINK_ID_ACK)[0] == (36, 2**64 - 1, linked, modern.pid)


@pytest.mark.rule("Control messages: the layouts are those a BEAM sends")
def test_exits(modern: RawNode) -> None:
    modern.run("spawn(fun() -> link(Pid), exit(boom) end)")
    modern.expect(Op.LINK)
    assert modern.expect(Op.PAYLOAD_EXIT)[1] == Atom("boom")
    modern.run("exit(Pid, boom)")
    assert modern.expect(Op.PAYLOAD_EXIT2)[1] == Atom("boom")
    modern.run(TRACED + "link(Pid), exit(boom) end)")
    modern.expect(Op.LINK)
    control, payload = modern.expect(Op.PAYLOAD_EXIT_TT)
    assert (control[3][1], payload) == (17, Atom("boom"))


@pytest.mark.rule("Control messages: the layouts without SEND_SENDER and EXIT_PAYLOAD are those a BEAM sends")
def test_exits_with_the_reason_inside(old: RawNode) -> None:
    old.run("spawn(fun() -> link(Pid), exit(boom) end)")
    old.expect(Op.LINK)
    assert old.expect(Op.EXIT)[0][2:] == (old.pid, Atom("boom"))
    old.run("exit(Pid, boom)")
    assert old.expect(Op.EXIT2)[0][2:] == (old.pid, Atom("boom"))
    old.run(TRACED + "link(Pid), exit(boom) end)")
    old.expect(Op.LINK)
    control, _ = old.expect(Op.EXIT_TT)
    assert (control[3][1], control[4]) == (17, Atom("boom"))


@pytest.mark.rule("Control messages: a BEAM reads the trace-token forms of EXIT2")
@pytest.mark.parametrize(("flags", "payload"), [(MODERN, True), (OLD, False)], ids=["payload", "inside"])
def test_a_traced_exit_2_is_understood(beam: Beam, flags: DFlag, payload: bool) -> None:
    """A BEAM never sends EXIT2_TT and PAYLOAD_EXIT2_TT, whatever the manual says; it does take them."""
    node = RawNode(beam, flags)
    try:
        target = node.run(TRACED + "Pid ! hello, receive stop -> ok end end)")
        token = node.expect(Op.SEND_SENDER_TT if payload else Op.SEND_TT)[0][3]
        node.say_row(Op.MONITOR_P, node.pid, target, node.ref)
        if payload:
            node.say_row(Op.PAYLOAD_EXIT2_TT, node.pid, target, token, reason=Atom("boom"))
            assert node.expect(Op.PAYLOAD_MONITOR_P_EXIT)[1] == Atom("boom")
        else:
            node.say_row(Op.EXIT2_TT, node.pid, target, token, Atom("boom"))
            assert node.expect(Op.MONITOR_P_EXIT)[0][4] == Atom("boom")
    finally:
        node.close()


@pytest.mark.rule("Control messages: the layouts are those a BEAM sends")
def test_monitors(modern: RawNode) -> None:
    modern.run("demonitor(monitor(process, Pid))")
    monitor, _ = modern.expect(Op.MONITOR_P)
    assert monitor[2] == modern.pid
    assert modern.expect(Op.DEMONITOR_P)[0] == (20, *monitor[1:])
    modern.run("demonitor(monitor(process, {a_name, Node}))")
    assert modern.expect(Op.MONITOR_P)[0][2] == Atom("a_name")
    assert modern.expect(Op.DEMONITOR_P)[0][2] == Atom("a_name")

    watched = modern.run("spawn(fun() -> receive stop -> exit(stopped) end end)")
    modern.say_row(Op.MONITOR_P, modern.pid, watched, modern.ref)
    modern.say_row(Op.SEND_SENDER, modern.pid, watched, message=Atom("stop"))
    assert modern.expect(Op.PAYLOAD_MONITOR_P_EXIT) == ((28, watched, modern.pid, modern.ref), Atom("stopped"))
    modern.say_row(Op.MONITOR_P, modern.pid, Atom("no_such_name"), modern.ref)
    control, payload = modern.expect(Op.PAYLOAD_MONITOR_P_EXIT)
    assert (control[1], payload) == (Atom("no_such_name"), Atom("noproc"))


@pytest.mark.rule("Control messages: the layouts without SEND_SENDER and EXIT_PAYLOAD are those a BEAM sends")
def test_a_monitor_with_the_reason_inside(old: RawNode) -> None:
    old.say_row(Op.MONITOR_P, old.pid, Atom("no_such_name"), old.ref)
    assert old.expect(Op.MONITOR_P_EXIT)[0] == (21, Atom("no_such_name"), old.pid, old.ref, Atom("noproc"))


@pytest.mark.rule("Control messages: the layouts are those a BEAM sends")
def test_group_leader(modern: RawNode) -> None:
    leader = modern.run("group_leader(self(), Pid), self()")
    assert modern.expect(Op.GROUP_LEADER)[0] == (7, leader, modern.pid)


@pytest.mark.rule("Spawn: the layouts of SPAWN_REQUEST and SPAWN_REPLY are those of a BEAM")
def test_spawn_requests(modern: RawNode) -> None:
    modern.run("spawn_request(Node, a_module, a_function, [1, two], [link])")
    control, arguments = modern.expect(Op.SPAWN_REQUEST)
    assert (control[4], control[5], arguments) == (
        (Atom("a_module"), Atom("a_function"), 2),
        [Atom("link")],
        [1, Atom("two")],
    )
    modern.run(TRACED + "spawn_request(Node, a_module, a_function, [], []) end)")
    control, _ = modern.expect(Op.SPAWN_REQUEST_TT)
    token = control[6]
    assert token[1] == 17

    entry = (Atom("timer"), Atom("sleep"), 1)
    modern.say_row(Op.SPAWN_REQUEST, modern.ref, modern.pid, modern.pid, entry, [], arg_list=[1])
    control, _ = modern.expect(Op.SPAWN_REPLY)
    assert control[1:4] == (modern.ref, modern.pid, 0)
    assert control[4].node == Atom(modern.beam.name)
    modern.say_row(Op.SPAWN_REQUEST_TT, modern.ref, modern.pid, modern.pid, entry, [], token, arg_list=[1])
    control, _ = modern.expect(Op.SPAWN_REPLY_TT)
    assert control[1:4] == (modern.ref, modern.pid, 0)
    assert control[5][1] == 17


@pytest.mark.rule("Aliases: ALTACT_SIG_SEND has the layout a BEAM sends", since=28)
def test_aliases_since_otp_28(beam: Beam) -> None:
    """Where both nodes have ALTACT_SIG a message to an alias is an ALTACT_SIG_SEND; before OTP 28 there is none."""
    node = RawNode(beam, ALTACT)
    try:
        node.run("Ref ! hello")
        if beam.release < 28:
            assert not node.agreed & DFlag.ALTACT_SIG
            assert node.expect(Op.ALIAS_SEND)[1] == Atom("hello")
        else:
            control, payload = node.expect(Op.ALTACT_SIG_SEND)
            assert control[1] == ALTACT_ALIAS
            assert (control[3], payload) == (node.ref, Atom("hello"))
            priority = ALTACT_PRIO
            for source, flags, to in (
                ("erlang:send(Ref, hello, [priority])", priority | ALTACT_ALIAS, node.ref),
                ("erlang:send(Pid, hello, [priority])", priority, node.pid),
                ("erlang:send({a_name, Node}, hello, [priority])", priority | ALTACT_NAME, Atom("a_name")),
                ("exit(Ref, hello)", ALTACT_EXIT | ALTACT_ALIAS, node.ref),
                ("exit(Ref, hello, [priority])", priority | ALTACT_EXIT | ALTACT_ALIAS, node.ref),
                ("exit(Pid, hello, [priority])", priority | ALTACT_EXIT, node.pid),
            ):
                node.run(source)
                control, payload = node.expect(Op.ALTACT_SIG_SEND)
                assert (control[1], control[3], payload) == (flags, to, Atom("hello")), source
            node.run(TRACED + "erlang:send(Ref, hello, [priority]) end)")
            control, _ = node.expect(Op.ALTACT_SIG_SEND)
            assert control[1] == priority | ALTACT_ALIAS | ALTACT_TOKEN
            assert control[4][1] == 17
    finally:
        node.close()
