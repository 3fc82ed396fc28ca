"""Trace tokens and priority on the way out; how the serials count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from erlang_interop.flags import OFFERED, DFlag
from erlang_interop.runtime import InlineServer, Node
from erlang_interop.runtime.peer import Peer
from erlang_interop.runtime.tracing import as_token, next_token, received, send_exit, send_marked
from erlang_interop.terms import Atom, Pid, Reference
from tests.unit.runtime.signals_rig import ME, REMOTE, THERE, Recorder, Sink, new_router

if TYPE_CHECKING:
    from erlang_interop.runtime.signals import Router

LABEL = Atom("label")
TOKEN = (3, LABEL, 7, REMOTE, 6)
ALIAS = Reference(THERE, 9, b"\0\0\0\5" * 3)
NAME = (Atom("name"), THERE)


@pytest.fixture
async def peer() -> Sink:
    return Sink()


@pytest.fixture
async def router(peer: Sink) -> Router:
    return new_router(peer)


@pytest.mark.parametrize(
    "term", [[], (), (1, 2, 3), (1, LABEL, 7.0, REMOTE, 6), (True, 1, 1, 1, 1), Atom("have_dt_utag")], ids=str
)
def test_what_is_no_token(term: Any) -> None:
    assert as_token(term) is None


def test_what_is_one() -> None:
    assert as_token(TOKEN) == TOKEN
    assert as_token((0, [1], 0, Atom("node@h"), 0)) is not None


async def test_how_serials_count(router: Router) -> None:
    """``seq_trace_update_serial()``: from the greatest seen, behind the last received."""
    process = Recorder(router)
    assert next_token(process) is None
    received(process, TOKEN)
    assert process.trace_token == TOKEN
    assert next_token(process) == (3, LABEL, 8, process.pid, 7)
    assert next_token(process) == (3, LABEL, 9, process.pid, 7)
    received(process, (3, Atom("other"), 2, REMOTE, 1))
    assert next_token(process) == (3, Atom("other"), 10, process.pid, 2), "a lower serial does not turn the clock back"


async def test_setting_a_token(router: Router) -> None:
    process = Recorder(router)
    with pytest.raises(ValueError, match=r"'x' is no trace token: \(flags, label, serial, from, prev\) is needed"):
        process.set_trace_token("x")  # type: ignore[arg-type]
    process.set_trace_token((1, LABEL, 20, process.pid, 11))
    assert next_token(process) == (1, LABEL, 21, process.pid, 11)
    process.set_trace_token(None)
    assert next_token(process) is None


@pytest.mark.parametrize("altact", [True, False], ids=["OTP 28", "OTP 27"])
async def test_the_forms_of_messages(router: Router, peer: Sink, altact: bool) -> None:
    peer.altact = altact
    process = Recorder(router)
    me, empty = process.pid, Atom("")
    sent: list[Any] = []
    for token in (None, TOKEN):
        for priority in (False, True):
            for dest in (REMOTE, NAME, ALIAS):
                process.trace_token, process.trace_clock, process.trace_last = token, 7, 7
                send_marked(router, process, dest, "message", priority)
    sent = [control for control, payload in peer.emitted if payload == "message"]
    with_token = (3, LABEL, 8, me, 7)
    send, reg_send = (22, me, REMOTE), (6, me, empty, NAME[0])
    send_tt, reg_send_tt = (23, me, REMOTE, with_token), (16, me, empty, NAME[0], with_token)
    if altact:
        assert sent == [
            *(send, reg_send, (37, 4, me, ALIAS)),
            *((37, 1, me, REMOTE), (37, 9, me, NAME[0]), (37, 5, me, ALIAS)),
            *(send_tt, reg_send_tt, (37, 6, me, ALIAS, with_token)),
            *((37, 3, me, REMOTE, with_token), (37, 11, me, NAME[0], with_token), (37, 7, me, ALIAS, with_token)),
        ]
    else:
        alias_send, alias_send_tt = (33, me, ALIAS), (34, me, ALIAS, with_token)
        assert sent == [send, reg_send, alias_send] * 2 + [send_tt, reg_send_tt, alias_send_tt] * 2


@pytest.mark.parametrize("altact", [True, False], ids=["OTP 28", "OTP 27"])
async def test_the_forms_of_exits(router: Router, peer: Sink, altact: bool) -> None:
    peer.altact = altact
    process = Recorder(router)
    me = process.pid
    for dest, priority in ((REMOTE, False), (REMOTE, True), (ALIAS, False), (ALIAS, True)):
        send_exit(router, process, dest, "reason", priority)
    sent = [control for control, _ in peer.emitted]
    plain = (26, me, REMOTE)
    newer = [plain, (37, 17, me, REMOTE), (37, 20, me, ALIAS), (37, 21, me, ALIAS)]
    assert sent == (newer if altact else [plain, plain])


async def test_the_end_of_a_traced_process(router: Router, peer: Sink) -> None:
    traced, linked = Recorder(router), Recorder(router)
    linked.trap_exit = True
    router.link(traced, REMOTE)
    router.link(traced, linked.pid)
    peer.emitted.clear()
    received(traced, TOKEN)
    bang = Atom("bang")
    router.terminate(traced, bang)
    assert peer.emitted == [((25, traced.pid, REMOTE, (3, LABEL, 8, traced.pid, 7)), bang)]
    assert linked.messages == [((Atom("EXIT"), traced.pid, bang), (3, LABEL, 9, traced.pid, 7), False)]


async def test_on_this_node(router: Router) -> None:
    traced, other = Recorder(router), Recorder(router)
    router.register("other", other.pid)
    alias = router.aliases.add(other, "explicit_unalias", priority=True)
    received(traced, TOKEN)
    for dest in (other.pid, (Atom("other"), ME), alias):
        send_marked(router, traced, dest, 1, False)
    send_marked(router, traced, (Atom("nobody"), ME), 1, False)
    assert other.messages == [(1, (3, LABEL, serial, traced.pid, 7), False) for serial in (8, 9, 10)]
    traced.set_trace_token(None)
    send_marked(router, traced, alias, 2, True)
    send_marked(router, traced, other.pid, 3, True)
    assert other.messages[3:] == [(2, None, True), 3]
    other.trap_exit = True
    send_exit(router, traced, alias, "reason", True)
    send_exit(router, traced, other.pid, "reason", True)
    exit_ = (Atom("EXIT"), traced.pid, "reason")
    assert other.messages[5:] == [(exit_, None, True), exit_]


def test_a_token_that_an_older_node_cannot_read() -> None:
    """Without DFLAG_BIG_SEQTRACE_LABELS only small numbers are labels; the message goes without the token."""
    old = Peer(THERE, [])
    old.agreed = OFFERED & ~DFlag.BIG_SEQTRACE_LABELS
    me = Pid(ME, 1, 0, 5)
    for label, kept in ((17, True), (1 << 27, False), (LABEL, False)):
        token = (3, label, 8, me, 7)
        for control, untraced in (
            ((23, me, REMOTE, token), (22, me, REMOTE)),
            ((16, me, Atom(""), NAME[0], token), (6, me, Atom(""), NAME[0])),
            ((34, me, ALIAS, token), (33, me, ALIAS)),
            ((25, me, REMOTE, token), (24, me, REMOTE)),
        ):
            assert old._in_old_form(control, "x") == (control if kept else untraced, "x")
    old.agreed &= ~(DFlag.EXIT_PAYLOAD | DFlag.SEND_SENDER)
    token = (3, 17, 8, me, 7)
    assert old._in_old_form((25, me, REMOTE, token), "x")[0] == (13, me, REMOTE, token, "x")
    assert old._in_old_form((23, me, REMOTE, token), "x")[0] == (12, Atom(""), REMOTE, token)


# ------------------------------------------------------------------------------------------------------ real processes


async def test_a_process_is_traced_until_an_untraced_message(node: Node) -> None:
    async with node.open_process() as me, node.open_process() as other:
        other.set_trace_token(TOKEN)
        other.send(me.pid, 1)
        other.send(me.pid, 2)
        other.set_trace_token(None)
        other.send(me.pid, 3)
        down = me.monitor("nobody")
        assert me.trace_token is None, "a token counts when its message is received"
        assert await me.receive(lambda message: message == 2) == 2
        assert me.trace_token == (3, LABEL, 9, other.pid, 6)
        assert (await me.receive(lambda message: type(message) is tuple))[1] == down
        assert me.trace_token is not None, "a DOWN is nobody's message"
        assert await me.receive() == 1
        assert me.trace_token == (3, LABEL, 8, other.pid, 6)
        assert await me.receive() == 3
        assert me.trace_token is None
        assert me.mailbox.marked is False


async def test_an_inline_server_is_traced_while_it_handles_the_message(node: Node) -> None:
    seen: list[Any] = []

    class Server(InlineServer):
        def handle_message(self, message: Any) -> None:
            seen.append((message, self.process.trace_token))
            if message == "relay":
                self.process.send("second", "relayed")

    node.start_inline(Server(), name="first")
    node.start_inline(Server(), name="second")
    async with node.open_process() as me:
        me.send("first", "plain")
        me.set_trace_token(TOKEN)
        me.send("first", "relay")
        me.set_trace_token(None)
        me.send("first", "plain")
    first, second = node.whereis("first"), node.whereis("second")
    assert (first, second) != (None, None)
    assert seen == [
        ("plain", None),
        ("relay", (3, LABEL, 8, me.pid, 6)),
        ("relayed", (3, LABEL, 9, first, 8)),
        ("plain", None),
    ]
