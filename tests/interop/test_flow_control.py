"""A BEAM that does not read: senders wait, memory stays bounded, everybody else goes on, nothing is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from erlang_interop import Atom, Node, Pid, Process
from erlang_interop.runtime import node as node_module
from erlang_interop.runtime.peer import BUSY_LIMIT
from tests.interop.collectors import PATIENCE, collecting, leftovers

if TYPE_CHECKING:
    from erlang_interop import Reference
    from erlang_interop.testing.beam import Beam
    from tests.conftest import BeamFactory
    from tests.interop.conftest import NodeOpener

NUMBERED = Atom("numbered")
NORMAL, NOCONNECTION = Atom("normal"), Atom("noconnection")
#: A message of 100 kB on the wire, at most.
BIGGEST = 101_000

#: Size and number of the messages: 45 MB, more than the buffers of two sockets grow to (37 MB by Linux' defaults).
LOADS = {"small": (300, 150_000), "100 kB": (100_000, 450), "mixed": (None, 900)}


def payload(size: int | None, index: int) -> bytes:
    """Of that size; without one small and big ones in turns."""
    return bytes(size if size is not None else 100_000 if index % 2 else 10)


class Sender:
    """Sends ``{numbered, 1, Payload}``, ``{numbered, 2, Payload}``, ... and is parked with each message."""

    def __init__(self, dest: Pid, size: int | None, count: int) -> None:
        self.sent = 0
        self._dest, self._size, self._count = dest, size, count

    async def __call__(self, process: Process) -> None:
        for index in range(1, self._count + 1):
            await process.send(self._dest, (NUMBERED, index, payload(self._size, index)))
            self.sent = index


async def ended(me: Process, watched: Pid, ref: Reference, reason: Atom = NORMAL) -> None:
    """The process that ``ref`` monitors ends with ``reason``."""
    assert await me.receive(timeout=PATIENCE) == (Atom("DOWN"), ref, Atom("process"), watched, reason)


def unsent(node: Node, beam: Beam) -> int:
    (bytes_waiting,) = (row.unsent for row in node.connections if row.name.name == beam.name)
    return bytes_waiting


@pytest.fixture
async def slow(node: Node, fresh_beam: BeamFactory) -> Beam:
    """A BEAM that is connected and reads when it is told to."""
    beam = fresh_beam()
    await node.connect(beam.name)
    return beam


async def until_parked(node: Node, slow: Beam) -> None:
    """Return when nothing moves any more, and more waits for ``slow`` than the limit."""
    with trio.move_on_after(PATIENCE):
        while True:
            await trio.testing.wait_all_tasks_blocked(0.05)
            if node.is_busy(slow.name):
                return  # else its socket took some more just now, and the senders go on
    (row,) = (row for row in node.connections if row.name.name == slow.name)
    pytest.fail(f"nobody is parked: {row.unsent} bytes of {row.bytes_out} wait")


async def stalled(slow: Beam) -> Pid:
    """A collector of ``slow``, which is suspended from now on."""
    pid = await slow.eval("collector:start(stalled)")
    assert isinstance(pid, Pid)
    slow.suspend()
    return pid


@pytest.mark.rule("Flow control: a sender to a busy connection waits")
@pytest.mark.parametrize(("size", "count"), LOADS.values(), ids=LOADS)
async def test_a_sender_to_a_suspended_beam_waits(
    node: Node, beam: Beam, slow: Beam, size: int | None, count: int
) -> None:
    sender = Sender(await stalled(slow), size, count)
    async with collecting(beam) as elsewhere, node.open_process() as me:
        pid = node.spawn(sender)
        ref = me.monitor(pid)
        await until_parked(node, slow)
        assert sender.sent < count
        assert BUSY_LIMIT < unsent(node, slow) <= BUSY_LIMIT + BIGGEST
        await elsewhere.round_trip(me)  # others, and other connections, go on
        assert not node.is_busy(beam.name)
        assert unsent(node, slow) <= BUSY_LIMIT + BIGGEST
        assert sender.sent < count
        slow.resume()
        await ended(me, pid, ref)
    assert await slow.eval("ordered_sender:is_in_order(stalled, N, 20000)", N=count) is True
    assert unsent(node, slow) == 0
    assert not node.is_busy(slow.name)


@pytest.mark.rule("Flow control: a sender to a busy connection waits")
async def test_many_senders_to_a_suspended_beam_wait(node: Node, slow: Beam) -> None:
    """Each adds one message above the limit at most, and each of them comes through in its own order."""
    dest, senders, each = await stalled(slow), 20, 20

    async def send(process: Process, number: int) -> None:
        for index in range(1, each + 1):
            await process.send(dest, (number, index, bytes(100_000)))

    async with node.open_process() as me:
        refs = {me.monitor(pid): pid for pid in [node.spawn(send, number) for number in range(senders)]}
        await until_parked(node, slow)
        assert BUSY_LIMIT < unsent(node, slow) <= BUSY_LIMIT + senders * BIGGEST
        assert len(me.mailbox) < senders  # the first ones were through before it was full
        slow.resume()
        assert {(await me.receive(timeout=PATIENCE))[1] for _ in refs} == set(refs)
    source = "[{N, I} || {N, I, _} <- collector:take(stalled, Count, 20000)]"
    arrived = await slow.eval(source, Count=senders * each)
    assert isinstance(arrived, list)
    assert sorted(arrived) == [(number, index) for number in range(senders) for index in range(1, each + 1)]
    for number in range(senders):
        assert [index for sender, index in arrived if sender == number] == list(range(1, each + 1))


@pytest.mark.rule("Flow control: senders are released when the connection ends")
@pytest.mark.parametrize("end", ["killed", "disconnected"])
async def test_a_sender_that_waits_is_released_when_the_connection_ends(node: Node, slow: Beam, end: str) -> None:
    dest = await stalled(slow)
    sender = Sender(dest, 100_000, 300)
    async with node.open_process() as me:
        pid = node.spawn(sender)
        reasons = {me.monitor(dest): NOCONNECTION, me.monitor(pid): NORMAL}
        await until_parked(node, slow)
        assert sender.sent < 300
        if end == "disconnected":
            assert await node.disconnect(slow.name)
        slow.kill()
        for _ in range(2):
            _, ref, _, _, reason = await me.receive(timeout=PATIENCE)
            assert reason == reasons.pop(ref)
        assert sender.sent == 300
        assert leftovers(node) == {}


@pytest.mark.rule("Flow control: a node that ends does not wait for a peer that does not read")
async def test_leaving_does_not_wait_for_a_suspended_beam(
    opened: NodeOpener, fresh_beam: BeamFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_module, "CLOSE_TIME", 0.3)
    slow = fresh_beam()
    async with opened() as node:
        await node.connect(slow.name)
        node.spawn(Sender(await stalled(slow), 100_000, 300))
        await until_parked(node, slow)
        left = trio.current_time()
    assert 0.3 <= trio.current_time() - left < PATIENCE


@pytest.mark.rule("Flow control: what was sent before a node ends arrives")
async def test_leaving_waits_for_what_a_beam_has_not_taken_yet(
    opened: NodeOpener, fresh_beam: BeamFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_module, "CLOSE_TIME", PATIENCE)  # a machine under test may stand still for longer
    slow = fresh_beam()
    async with opened() as node:
        await node.connect(slow.name)
        dest = await stalled(slow)
        for index in range(1, 101):
            node.send(dest, (NUMBERED, index, bytes(100_000)))  # not awaited: all of it waits here
        assert unsent(node, slow) > 0
        slow.resume()
    assert await slow.eval("ordered_sender:is_in_order(stalled, 100, 20000)") is True
