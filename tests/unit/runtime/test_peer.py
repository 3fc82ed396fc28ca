"""Back-pressure: two nodes, one of which stops reading. With a BEAM: tests/interop/test_flow_control.py."""

import socket
from typing import cast

import pytest
import trio
import trio.testing

from erlang_interop.errors import EncodeError
from erlang_interop.flags import OFFERED, DFlag
from erlang_interop.runtime.peer import BUSY_LIMIT, PENDING_LIMIT, Peer
from erlang_interop.runtime.spawning import SpawnRequest
from erlang_interop.runtime.transport import Stream
from erlang_interop.terms import Atom, Pid, Record, Reference
from erlang_interop.wire.channel import DistChannel
from erlang_interop.wire.control import Op
from erlang_interop.wire.ticks import Ticker

ME, THERE = Atom("me@h"), Atom("there@h")
FROM, TO = Pid(ME, 1, 0, 1), Pid(THERE, 2, 0, 1)


def send(peer: Peer, message: object) -> None:
    peer.emit((int(Op.SEND_SENDER), FROM, TO), message)


def connect(peer: Peer, agreed: DFlag = OFFERED) -> socket.socket:
    """Bring ``peer`` up on a loopback connection that takes little; the other end is returned."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 17)
        near = socket.create_connection(server.getsockname())
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 17)
        far, _ = server.accept()
    peer.agreed = agreed
    peer.up(Stream(near), DistChannel(agreed, peer=THERE.name), Ticker(hidden=True))
    peer.release_queue()
    return far


async def drain(far: socket.socket, into: DistChannel, messages: list[object], until: int) -> None:
    far.setblocking(False)
    while len(messages) < until:
        await trio.lowlevel.wait_readable(far)
        messages += [payload for _, payload in into.receive_data(far.recv(65536))]
        assert into.failure is None


async def test_a_peer_that_does_not_read_parks_senders_and_loses_nothing() -> None:
    peer = Peer(THERE, [])
    far = connect(peer)
    block = bytes(10_000)
    sent = 0
    while not peer.busy:
        send(peer, (sent, block))
        sent += 1
        assert peer.unsent <= BUSY_LIMIT + 2 * len(block)
    received: list[object] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.write)
        parked = trio.Event()

        async def sender() -> None:
            parked.set()
            await peer.sending
            for number in range(sent, sent + 500):
                send(peer, (number, block))
                await peer.sending
            peer.flush()  # a node does so at the end of each pass

        nursery.start_soon(sender)
        await parked.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert peer.busy
        with trio.fail_after(30):
            await drain(far, DistChannel(OFFERED, peer=ME.name), received, sent + 500)
        nursery.cancel_scope.cancel()
    assert [message[0] for message in received] == list(range(sent + 500))  # type: ignore[index]
    peer.down()
    far.close()


async def test_the_loss_of_the_peer_releases_who_is_parked() -> None:
    peer = Peer(THERE, [])
    far = connect(peer)
    while not peer.busy:
        send(peer, bytes(100_000))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.wait_not_busy)
        await trio.testing.wait_all_tasks_blocked()
        peer.down()
    far.close()


async def test_signals_for_a_pending_peer_wait_in_order_and_bounded() -> None:
    peer = Peer(THERE, [])
    for number in range(PENDING_LIMIT + 1):
        send(peer, number)
    assert peer.busy
    far = connect(peer)
    peer.flush()
    received: list[object] = []
    with trio.fail_after(30):
        await drain(far, DistChannel(OFFERED, peer=ME.name), received, PENDING_LIMIT + 1)
    assert received == list(range(PENDING_LIMIT + 1))
    peer.down()
    far.close()


async def test_few_big_signals_for_a_pending_peer_park_senders_too() -> None:
    peer = Peer(THERE, [])
    for _ in range(BUSY_LIMIT // 100_000):
        send(peer, bytes(100_000))
        assert not peer.busy
    send(peer, bytes(100_000))
    assert peer.busy
    peer.down()
    assert not peer.busy


async def test_what_cannot_be_sent_is_the_senders_error_also_while_pending() -> None:
    peer = Peer(THERE, [])
    with pytest.raises(EncodeError):
        send(peer, object())
    far = connect(peer)
    with pytest.raises(EncodeError):
        send(peer, object())
    assert peer.unsent == 0
    peer.down()
    far.close()


RECORD = Record(Atom("geometry"), Atom("point"), True, ((Atom("x"), 1),))


async def test_what_a_peer_cannot_read_is_known_when_it_is_up(caplog: pytest.LogCaptureFixture) -> None:
    """Messages with a native record that waited for an older node are dropped, each with a line in the log; the others,
    and exit signals whatever their reason, are sent in order."""
    old = OFFERED & ~DFlag.NATIVE_RECORDS
    peer = Peer(THERE, [])
    send(peer, 1)
    send(peer, (Atom("point"), RECORD))
    send(peer, 2)
    peer.emit((int(Op.PAYLOAD_EXIT), FROM, TO), [RECORD])
    send(peer, [RECORD])
    send(peer, 3)
    far = connect(peer, old)
    with pytest.raises(EncodeError, match="#geometry:point cannot be sent: there@h has no flag NATIVE_RECORDS"):
        send(peer, RECORD)
    send(peer, 4)
    peer.flush()
    signals: list[tuple[tuple[object, ...], object]] = []
    receiver = DistChannel(old, peer=ME.name)
    far.settimeout(30)
    while len(signals) < 5:
        signals += receiver.receive_data(far.recv(65536))
    exit_reason = (Atom("unencodable_reason"), repr([RECORD]).encode())
    assert [payload for _, payload in signals] == [1, 2, exit_reason, 3, 4]
    assert [control[0] for control, _ in signals] == [22, 22, 24, 22, 22]
    why = "the record #geometry:point cannot be sent: there@h has no flag NATIVE_RECORDS (OTP 29)"
    assert [record.getMessage() for record in caplog.records] == [
        f"dropping a message that waited for there@h: {why}",
        f"an exit reason cannot be sent to there@h: {why}; it goes as text",
        f"dropping a message that waited for there@h: {why}",
    ]
    peer.down()
    far.close()


async def test_a_spawn_request_that_a_peer_cannot_read_has_failed() -> None:
    """Its arguments hold a native record."""
    failures: list[object] = []

    class Request:
        failed = failures.append

    ref = Reference(ME, 1, bytes(12))
    peer = Peer(THERE, [])
    peer.spawns[ref] = cast(SpawnRequest, Request())
    entry = (Atom("m"), Atom("f"), 1)
    peer.emit((int(Op.SPAWN_REQUEST), ref, FROM, FROM, entry, []), [RECORD])
    far = connect(peer, OFFERED & ~DFlag.NATIVE_RECORDS)
    assert failures == [Atom("notsup")]
    assert peer.spawns == {}
    assert peer.unsent == 0
    peer.down()
    far.close()


async def test_older_peers_get_the_older_forms() -> None:
    old = OFFERED & ~(DFlag.EXIT_PAYLOAD | DFlag.SEND_SENDER)
    peer = Peer(THERE, [])
    far = connect(peer, old)
    send(peer, "hello")
    peer.emit((int(Op.PAYLOAD_EXIT), FROM, TO), Atom("bang"))
    peer.flush()
    signals: list[tuple[object, object]] = []
    receiver = DistChannel(old, peer=ME.name)
    far.settimeout(30)
    while len(signals) < 2:
        signals += receiver.receive_data(far.recv(65536))
    assert signals[0] == ((2, Atom(""), TO), b"hello")
    assert signals[1][0] == (3, FROM, TO, Atom("bang"))
    peer.down()
    far.close()


async def test_a_peer_that_knows_no_monitors_is_sent_none() -> None:
    old = OFFERED & ~DFlag.DIST_MONITOR_NAME
    peer = Peer(THERE, [])
    far = connect(peer, old)
    ref = Reference(ME, 3, bytes(12))
    peer.emit((int(Op.MONITOR_P), FROM, TO, ref))
    peer.emit((int(Op.DEMONITOR_P), FROM, TO, ref))
    peer.emit((int(Op.PAYLOAD_MONITOR_P_EXIT), FROM, TO, ref), Atom("bang"))
    send(peer, "hello")
    peer.flush()
    receiver = DistChannel(old, peer=ME.name)
    far.settimeout(30)
    signals: list[tuple[object, object]] = []
    while not signals:
        signals += receiver.receive_data(far.recv(65536))
    assert [payload for _, payload in signals] == [b"hello"]
    peer.down()
    far.close()
