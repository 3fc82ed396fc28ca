"""Each control message that a peer may send, carried out or refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from erlang_interop.errors import RemoteProtocolError
from erlang_interop.runtime.incoming import Incoming
from erlang_interop.terms import Atom, Pid, Reference
from erlang_interop.wire.control import LAYOUTS, NO_PAYLOAD, Op
from tests.unit.runtime.signals_rig import ME, REF, REMOTE, THERE, Recorder, Sink, new_router

if TYPE_CHECKING:
    from erlang_interop.runtime.signals import Router

BANG, EXIT = Atom("bang"), Atom("EXIT")
TOKEN = (3, Atom("label"), 7, REMOTE, 6)
THIRD = Pid(Atom("third@h"), 1, 0, 3)
OLD = Pid(ME, 1, 0, 4)


@pytest.fixture
async def peer() -> Sink:
    return Sink()


@pytest.fixture
async def router(peer: Sink) -> Router:
    return new_router(peer)


async def test_every_operation_is_handled(router: Router) -> None:
    """Two of them without a handler in between."""
    assert {*Incoming(router)._handlers, Op.REG_SEND, Op.SEND_SENDER} == {layout.op for layout in LAYOUTS}


async def test_messages_in_all_their_forms(router: Router, peer: Sink) -> None:
    process = Recorder(router)
    router.register("name", process.pid)
    alias = router.aliases.add(process, "explicit_unalias")
    name, empty = Atom("name"), Atom("")
    plain = [
        (2, empty, process.pid),
        (22, REMOTE, process.pid),
        (6, REMOTE, empty, name),
        (33, REMOTE, alias),
        (37, 0, REMOTE, process.pid),
        (37, 8, REMOTE, name),
        (37, 4, REMOTE, alias),
        (37, 1, REMOTE, process.pid),
        (37, 1 << 70, REMOTE, process.pid, "more", "elements"),
        (23, REMOTE, process.pid, []),
    ]
    router.dispatch(peer, [(control, index) for index, control in enumerate(plain)])
    assert process.messages == list(range(len(plain)))
    # SEND alone does not say which process it was.
    assert process.senders == [THERE, *[REMOTE] * (len(plain) - 1)]
    process.messages.clear()
    traced = [
        (12, empty, process.pid, TOKEN),
        (23, REMOTE, process.pid, TOKEN),
        (16, REMOTE, empty, name, TOKEN),
        (34, REMOTE, alias, TOKEN),
        (37, 2, REMOTE, process.pid, TOKEN),
        (37, 10, REMOTE, name, TOKEN),
        (37, 6, REMOTE, alias, TOKEN),
        (37, 3, REMOTE, process.pid, TOKEN),
    ]
    router.dispatch(peer, [(control, index) for index, control in enumerate(traced)])
    assert process.messages == [(index, TOKEN, False) for index in range(len(traced))]


async def test_messages_for_nobody_are_dropped(router: Router, peer: Sink) -> None:
    nobody, nowhere, empty = Atom("nobody"), Reference(ME, 5, b"\0\0\0\1" * 3), Atom("")
    for control in (
        (2, empty, OLD),
        (12, empty, OLD, TOKEN),
        (22, REMOTE, OLD),
        (23, REMOTE, OLD, TOKEN),
        (6, REMOTE, empty, nobody),
        (16, REMOTE, empty, nobody, TOKEN),
        (33, REMOTE, nowhere),
        (34, REMOTE, nowhere, TOKEN),
        (37, 0, REMOTE, OLD),
        (37, 8, REMOTE, nobody),
        (37, 21, REMOTE, nowhere),
        (26, REMOTE, OLD),
        (7, REMOTE, OLD),
    ):
        router.dispatch(peer, [(control, BANG)])
    assert peer.emitted == []


@pytest.mark.parametrize(
    "control",
    [
        (37, 4, REMOTE, OLD),
        (37, 8, REMOTE, OLD),
        (37, 12, REMOTE, Atom("name")),
        (37, 0, REMOTE, Atom("name")),
        (37, 1, REMOTE, REF),
        (37, 2, REMOTE, OLD),
    ],
    ids=["alias that is a pid", "name that is a pid", "alias and name", "pid that is a name", "ref", "no token"],
)
async def test_flags_that_do_not_fit(router: Router, peer: Sink, control: tuple[Any, ...]) -> None:
    with pytest.raises(RemoteProtocolError, match=r"ALTACT_SIG_SEND .* has "):
        router.dispatch(peer, [(control, BANG)])


async def test_priority_takes_a_priority_alias(router: Router, peer: Sink) -> None:
    process = Recorder(router)
    process.trap_exit = True
    priority, ordinary = (
        router.aliases.add(process, "explicit_unalias", priority=True),
        router.aliases.add(process, "explicit_unalias"),
    )
    router.dispatch(
        peer,
        [
            ((37, 5, REMOTE, priority), 1),
            ((37, 5, REMOTE, ordinary), 2),
            ((37, 4, REMOTE, priority), 3),
            ((33, REMOTE, priority), 4),
            ((37, 7, REMOTE, priority, TOKEN), 5),
            ((37, 21, REMOTE, priority), 6),
            ((37, 21, REMOTE, ordinary), 7),
            ((37, 17, REMOTE, process.pid), 8),
        ],
    )
    exit_6 = ((EXIT, REMOTE, 6), None, True)
    assert process.messages == [
        (1, None, True),
        2,
        3,
        4,
        (5, TOKEN, True),
        exit_6,
        (EXIT, REMOTE, 7),
        (EXIT, REMOTE, 8),
    ]


async def test_exits_carry_their_token(router: Router, peer: Sink) -> None:
    process = Recorder(router)
    process.trap_exit = True
    message = ((EXIT, REMOTE, BANG), TOKEN, False)
    linked = (1, REMOTE, process.pid), NO_PAYLOAD
    router.dispatch(
        peer, [((18, REMOTE, process.pid, TOKEN, BANG), NO_PAYLOAD), ((27, REMOTE, process.pid, TOKEN), BANG)]
    )
    router.dispatch(peer, [linked, ((13, REMOTE, process.pid, TOKEN, BANG), NO_PAYLOAD)])
    router.dispatch(peer, [linked, ((25, REMOTE, process.pid, TOKEN), BANG)])
    router.dispatch(peer, [((37, 18, REMOTE, process.pid, TOKEN), BANG)])
    assert process.messages == [message] * 5


async def test_a_link_with_priority(router: Router, peer: Sink) -> None:
    process = Recorder(router)
    process.trap_exit = True
    router.link(process, REMOTE, priority=True)
    router.dispatch(peer, [((24, REMOTE, process.pid), BANG)])
    router.link(process, REMOTE, priority=True)
    router.link(process, REMOTE)
    router.dispatch(peer, [((24, REMOTE, process.pid), BANG)])
    assert process.messages == [((EXIT, REMOTE, BANG), None, True), (EXIT, REMOTE, BANG)]


@pytest.mark.parametrize("target", [OLD, THIRD], ids=["old incarnation", "another node"])
async def test_an_exit_for_no_process_of_this_life(router: Router, peer: Sink, target: Pid) -> None:
    with pytest.raises(RemoteProtocolError, match=r"PAYLOAD_EXIT .* is meant for another node, or for an older"):
        router.dispatch(peer, [((24, REMOTE, target), BANG)])
    assert peer.emitted == []


@pytest.mark.parametrize("op", [Op.UNLINK_ID, Op.UNLINK_ID_ACK], ids=lambda op: op.name)
async def test_the_end_of_a_link_for_no_process_of_this_life(router: Router, peer: Sink, op: Op) -> None:
    router.dispatch(peer, [((int(op), 1, REMOTE, OLD), NO_PAYLOAD)])
    with pytest.raises(RemoteProtocolError, match=f"{op.name} .* is meant for another node"):
        router.dispatch(peer, [((int(op), 1, REMOTE, THIRD), NO_PAYLOAD)])
    assert peer.emitted == []


@pytest.mark.parametrize(
    "control",
    [(26, REMOTE, THIRD), (20, REMOTE, THIRD, REF), (28, REMOTE, THIRD, REF), (28, OLD, OLD, REF)],
    ids=["EXIT2", "DEMONITOR_P", "MONITOR_P_EXIT", "MONITOR_P_EXIT of ours"],
)
async def test_what_is_meant_for_another_node(router: Router, peer: Sink, control: tuple[Any, ...]) -> None:
    with pytest.raises(RemoteProtocolError, match="for another node"):
        router.dispatch(peer, [(control, BANG)])


async def test_a_monitor_is_taken_back_as_it_was_set(router: Router, peer: Sink) -> None:
    process = Recorder(router)
    router.register("name", process.pid)
    for target, others in ((process.pid, (Atom("name"), OLD)), (Atom("name"), (process.pid, Atom("other")))):
        router.dispatch(peer, [((19, REMOTE, target, REF), NO_PAYLOAD)])
        for other in others:
            router.dispatch(peer, [((20, REMOTE, other, REF), NO_PAYLOAD)])
        assert len(peer.watched) == len(process.watchers) == 1
        router.dispatch(peer, [((20, REMOTE, target, REF), NO_PAYLOAD)])
        assert not peer.watched
        assert not process.watchers


async def test_a_down_is_for_who_set_the_monitor(router: Router, peer: Sink) -> None:
    process, other = Recorder(router), Recorder(router)
    ref = router.monitor(process, REMOTE)
    router.dispatch(peer, [((28, REMOTE, other.pid, ref), BANG)])
    assert (process.messages, other.messages, len(peer.monitors)) == ([], [], 1)


async def test_a_group_leader(router: Router, peer: Sink) -> None:
    process = Recorder(router)
    router.dispatch(peer, [((7, THIRD, process.pid), NO_PAYLOAD)])
    assert process.group_leader == THIRD
