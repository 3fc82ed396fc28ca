"""What a peer may send about processes here, and what is left behind: nothing."""

import logging
from typing import Any

import pytest

from erlang_interop.errors import RemoteProtocolError
from erlang_interop.runtime.signals import Router
from erlang_interop.terms import Atom, Pid, Reference
from erlang_interop.wire.control import NO_PAYLOAD, Op
from tests.unit.runtime.signals_rig import ME, REF, REMOTE, THERE, Recorder, Sink, new_router

NOPROC, NORMAL, BANG = Atom("noproc"), Atom("normal"), Atom("bang")


@pytest.fixture
async def peer() -> Sink:
    return Sink()


@pytest.fixture
async def router(peer: Sink) -> Router:
    return new_router(peer)


async def test_a_monitor_from_there(router: Router, peer: Sink) -> None:
    process = Recorder(router)
    router.register("worker", process.pid)
    by_name = Reference(THERE, 9, b"\0\0\0\2" * 3)
    router.dispatch(
        peer,
        [
            ((19, REMOTE, process.pid, REF), NO_PAYLOAD),
            ((19, REMOTE, Atom("worker"), by_name), NO_PAYLOAD),
        ],
    )
    router.terminate(process, BANG)
    assert peer.emitted == [
        ((28, process.pid, REMOTE, REF), BANG),
        ((28, Atom("worker"), REMOTE, by_name), BANG),
    ]
    assert peer.watched == {}


async def test_a_monitor_on_nobody_is_answered_with_what_it_named(router: Router, peer: Sink) -> None:
    former = Pid(ME, 1, 0, 4)  # of an earlier incarnation of this node
    for target in (former, Atom("nobody"), True, None):
        router.dispatch(peer, [((19, REMOTE, target, REF), NO_PAYLOAD)])
    assert peer.emitted == [((28, target, REMOTE, REF), NOPROC) for target in (former, Atom("nobody"), True, None)]


async def test_a_demonitor_from_there_leaves_nothing(router: Router, peer: Sink) -> None:
    process = Recorder(router)
    router.dispatch(peer, [((19, REMOTE, process.pid, REF), NO_PAYLOAD), ((20, REMOTE, process.pid, REF), NO_PAYLOAD)])
    assert (len(process.watchers), peer.watched) == (0, {})
    router.terminate(process, NORMAL)
    assert peer.emitted == []


async def test_an_unlink_is_acknowledged_whatever_is_there(router: Router, peer: Sink) -> None:
    process = Recorder(router)
    router.dispatch(peer, [((1, REMOTE, process.pid), NO_PAYLOAD)])
    assert process.pid in peer.links
    router.dispatch(peer, [((35, 7, REMOTE, process.pid), NO_PAYLOAD), ((35, 8, REMOTE, process.pid), NO_PAYLOAD)])
    assert peer.emitted == [((36, 7, process.pid, REMOTE), NO_PAYLOAD), ((36, 8, process.pid, REMOTE), NO_PAYLOAD)]
    assert (process.links, peer.links) == ({}, {})


async def test_an_exit_that_crosses_our_unlink_does_not_count(router: Router, peer: Sink) -> None:
    process = Recorder(router)
    router.link(process, REMOTE)
    router.unlink(process, REMOTE)
    assert [control[0] for control, _ in peer.emitted] == [Op.LINK, Op.UNLINK_ID]
    unlink_id = peer.emitted[1][0][1]
    assert unlink_id >= 1
    router.dispatch(peer, [((24, REMOTE, process.pid), BANG)])
    assert process.alive
    router.dispatch(peer, [((36, unlink_id, REMOTE, process.pid), NO_PAYLOAD)])
    assert (process.links, peer.links) == ({}, {})


async def test_a_link_anew_before_the_acknowledgement_counts(router: Router, peer: Sink) -> None:
    process = Recorder(router)
    router.link(process, REMOTE)
    router.unlink(process, REMOTE)
    router.link(process, REMOTE)
    assert [control[0] for control, _ in peer.emitted] == [Op.LINK, Op.UNLINK_ID, Op.LINK]
    router.dispatch(peer, [((36, peer.emitted[1][0][1], REMOTE, process.pid), NO_PAYLOAD)])
    router.dispatch(peer, [((24, REMOTE, process.pid), BANG)])
    assert process.messages == [("ended", BANG)]


async def test_a_link_to_nobody_is_answered_with_an_exit(router: Router, peer: Sink) -> None:
    gone = Pid(ME, 99, 0, 5)
    router.dispatch(peer, [((1, REMOTE, gone), NO_PAYLOAD)])
    assert peer.emitted == [((24, gone, REMOTE), NOPROC)]


async def test_exits_from_there_in_all_their_forms(router: Router, peer: Sink) -> None:
    for signal in (
        ((8, REMOTE, None, BANG), NO_PAYLOAD),
        ((18, REMOTE, None, "token", BANG), NO_PAYLOAD),
        ((26, REMOTE, None), BANG),
        ((27, REMOTE, None, "token"), BANG),
    ):
        process = Recorder(router)
        (op, sender, _, *rest), payload = signal
        router.dispatch(peer, [((op, sender, process.pid, *rest), payload)])
        assert process.messages == [("ended", BANG)]
    for signal in (
        ((3, REMOTE, None, BANG), NO_PAYLOAD),
        ((13, REMOTE, None, "token", BANG), NO_PAYLOAD),
        ((24, REMOTE, None), BANG),
        ((25, REMOTE, None, "token"), BANG),
    ):
        process = Recorder(router)
        (op, sender, _, *rest), payload = signal
        exit_ = ((op, sender, process.pid, *rest), payload)
        router.dispatch(peer, [exit_])
        assert process.messages == [], "without a link it does not count"
        router.dispatch(peer, [((1, REMOTE, process.pid), NO_PAYLOAD), exit_])
        assert process.messages == [("ended", BANG)]
    assert peer.links == {}


async def test_a_down_from_there_fires_once(router: Router, peer: Sink) -> None:
    process = Recorder(router)
    ref = router.monitor(process, (Atom("worker"), THERE))
    assert peer.emitted == [((19, process.pid, Atom("worker"), ref), NO_PAYLOAD)]
    down = ((28, Atom("worker"), process.pid, ref), BANG)
    router.dispatch(peer, [down, down])
    assert process.messages == [(Atom("DOWN"), ref, Atom("process"), (Atom("worker"), THERE), BANG)]
    assert (len(process.monitors), peer.monitors) == (0, {})


async def test_the_end_of_a_process_takes_its_monitors_and_links_along(router: Router, peer: Sink) -> None:
    process = Recorder(router)
    ref = router.monitor(process, REMOTE)
    router.link(process, REMOTE)
    peer.emitted.clear()
    router.terminate(process, BANG)
    assert peer.emitted == [((20, process.pid, REMOTE, ref), NO_PAYLOAD), ((24, process.pid, REMOTE), BANG)]
    assert (peer.monitors, peer.links) == ({}, {})
    assert not any(count for name, count in router.statistics().items() if name != "peers")


async def test_a_lost_connection_hands_out_what_it_owes_in_slices(router: Router, peer: Sink) -> None:
    trapping, plain = Recorder(router), Recorder(router)
    trapping.trap_exit = True
    refs = [router.monitor(trapping, REMOTE) for _ in range(10)]
    router.link(trapping, REMOTE)
    router.dispatch(peer, [((1, REMOTE, plain.pid), NO_PAYLOAD), ((19, REMOTE, trapping.pid, REF), NO_PAYLOAD)])
    gone = Atom("noconnection")
    calls = 1
    while not router.connection_lost(peer, gone, 4):
        calls += 1
    assert calls >= 3
    assert trapping.messages[0] == (Atom("EXIT"), REMOTE, gone)
    assert [message[1] for message in trapping.messages[1:]] == refs
    assert plain.messages == [("ended", gone)]
    assert not trapping.watchers


async def test_a_reason_that_no_term_can_carry_goes_as_text(
    router: Router, peer: Sink, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from erlang_interop.etf import encode

    def strict(control: tuple[Any, ...], payload: Any = NO_PAYLOAD) -> None:
        encode(payload)
        peer.emitted.append((control, payload))

    process = Recorder(router)
    router.dispatch(peer, [((19, REMOTE, process.pid, REF), NO_PAYLOAD)])
    monkeypatch.setattr(peer, "emit", strict)
    with caplog.at_level(logging.WARNING):
        router.terminate(process, {1, 2})
    assert peer.emitted == [((28, process.pid, REMOTE, REF), (Atom("unencodable_reason"), "{1, 2}"))]
    assert "cannot be sent" in caplog.text


async def test_pids_and_references_of_a_node_are_all_different(router: Router) -> None:
    pids = {router.make_pid() for _ in range(1000)}
    assert len(pids) == 1000
    refs = [router.make_ref() for _ in range(1000)]
    assert len(set(refs)) == 1000


@pytest.mark.parametrize("op", [Op.LINK, Op.MONITOR_P], ids=lambda op: op.name)
async def test_a_link_or_monitor_for_another_node_is_refused(router: Router, peer: Sink, op: Op) -> None:
    """Answered, it would have a sender that is not of this node."""
    earlier, elsewhere = Pid(ME, 1, 0, 4), Pid(Atom("elsewhere@h"), 1, 0, 5)

    def control(target: Pid) -> tuple[Any, ...]:
        return {
            Op.LINK: (1, REMOTE, target),
            Op.MONITOR_P: (19, REMOTE, target, REF),
        }[op]

    router.dispatch(peer, [(control(earlier), NO_PAYLOAD)])
    assert len(peer.emitted) == 1
    with pytest.raises(RemoteProtocolError, match=f"{op.name} .* is meant for another node"):
        router.dispatch(peer, [(control(elsewhere), NO_PAYLOAD)])
    assert len(peer.emitted) == 1


async def test_two_monitors_under_one_reference_are_refused(router: Router, peer: Sink) -> None:
    """The second would hide the first, which nobody could end any more."""
    first, second = Recorder(router), Recorder(router)
    router.dispatch(peer, [((19, REMOTE, first.pid, REF), NO_PAYLOAD)])
    for target in (first, second):
        with pytest.raises(RemoteProtocolError, match="has the reference of another monitor"):
            router.dispatch(peer, [((19, REMOTE, target.pid, REF), NO_PAYLOAD)])
    router.terminate(first, BANG)
    assert peer.emitted == [((28, first.pid, REMOTE, REF), BANG)]
    assert not second.watchers
