"""The node's ticker, on a clock that the test turns. With BEAMs: tests/interop/test_ticks.py."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import pytest
import trio
import trio.testing

from erlang_interop.flags import OFFERED
from erlang_interop.runtime.peer import Peer
from erlang_interop.runtime.ticking import NetTicker
from erlang_interop.terms import Atom, Pid
from erlang_interop.wire.channel import DistChannel
from erlang_interop.wire.control import Op

if TYPE_CHECKING:
    from trio.testing import MockClock

    from erlang_interop.runtime.transport import Stream

TICK = bytes(4)
NET_TICK_TIMEOUT = Atom("net_tick_timeout")


class FakeStream:
    """A socket that takes what it has room for, or fails."""

    address = "127.0.0.1:1"

    def __init__(self) -> None:
        self.taken = b""
        self.room = 1 << 30
        self.error: OSError | None = None
        self.aborted = 0

    def send_nowait(self, data: memoryview) -> int:
        if self.error is not None:
            raise self.error
        size = min(len(data), self.room)
        self.taken += data[:size]
        self.room -= size
        return size

    def ticks(self) -> int:
        """How many ticks, and nothing else, were sent since the last call."""
        count, rest = divmod(len(self.taken), len(TICK))
        assert (rest, self.taken) == (0, TICK * count)
        self.taken = b""
        return count

    def abort(self) -> None:
        self.aborted += 1


class Connection:
    """A peer that is up on a fake socket."""

    def __init__(self, ticker: NetTicker, name: str = "there@h", *, hidden: bool = False) -> None:
        self.peer = Peer(Atom(name), [])
        self.peer.agreed, self.peer.hidden = OFFERED, hidden
        self.stream = FakeStream()
        self.wire = DistChannel(OFFERED, peer=name)
        self.peer.up(cast("Stream", self.stream), self.wire, ticker.new_ticker(hidden=hidden))

    def hear(self) -> None:
        """A tick comes from the peer."""
        assert self.wire.receive_data(TICK) == []

    def say(self) -> None:
        self.peer.emit((int(Op.SEND), Atom(""), Pid(self.peer.name, 1, 0, 1)), None)
        self.peer.flush()


class Node:
    """A running ticker, its connections, and the hands of the clock."""

    def __init__(self, clock: MockClock, net_ticktime: float, intensity: int) -> None:
        self._clock = clock
        self.connections: list[Connection] = []
        self.ticker = NetTicker(net_ticktime, lambda: [it.peer for it in self.connections], intensity)

    def connect(self, name: str = "there@h", *, hidden: bool = False) -> Connection:
        self.connections.append(Connection(self.ticker, name, hidden=hidden))
        return self.connections[-1]

    async def after(self, seconds: float) -> None:
        """Let that time pass, and the ticker do what is due then."""
        self._clock.jump(seconds)
        await trio.testing.wait_all_tasks_blocked()


@asynccontextmanager
async def running(clock: MockClock, net_ticktime: float = 60.0, intensity: int = 4) -> AsyncIterator[Node]:
    node = Node(clock, net_ticktime, intensity)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.ticker.run)
        await trio.testing.wait_all_tasks_blocked()
        yield node
        nursery.cancel_scope.cancel()


async def test_all_connections_are_ticked_at_once_as_often_as_the_intensity_says(mock_clock: MockClock) -> None:
    async with running(mock_clock, 60.0, 10) as node:
        first, second = node.connect("a@h"), node.connect("b@h", hidden=True)
        await node.after(5.9)
        assert (first.stream.ticks(), second.stream.ticks()) == (0, 0)
        for _ in range(30):
            first.hear()
            second.hear()
            await node.after(6.0)
            assert (first.stream.ticks(), second.stream.ticks()) == (1, 1)


async def test_a_connection_that_comes_up_between_two_looks_is_looked_at_with_the_others(mock_clock: MockClock) -> None:
    async with running(mock_clock, 60.0) as node:
        await node.after(14.0)
        late = node.connect()
        await node.after(1.0)
        assert late.stream.ticks() == 1


async def test_no_tick_where_something_was_sent(mock_clock: MockClock) -> None:
    async with running(mock_clock, 4.0) as node:
        at = node.connect()
        at.say()
        at.stream.taken = b""
        await node.after(1.0)
        assert at.stream.ticks() == 0
        at.hear()
        await node.after(1.0)
        assert at.stream.ticks() == 1


async def test_a_full_socket_gets_no_ticks_behind_what_waits_and_the_peer_lives_by_what_it_says(
    mock_clock: MockClock,
) -> None:
    async with running(mock_clock, 4.0) as node:
        at = node.connect()
        at.stream.room = 3
        at.say()
        at.stream.taken = b""
        waiting = at.peer.unsent
        assert waiting > 0
        for _ in range(10):
            at.hear()
            await node.after(1.0)
        assert (at.peer.unsent, at.stream.taken, at.peer.closing) == (waiting, b"", None)


async def test_a_silent_peer_alone_is_given_up(mock_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    async with running(mock_clock, 60.0) as node:
        silent, alive = node.connect("silent@h"), node.connect("alive@h")
        await node.after(14.0)
        silent.hear()
        alive.hear()
        for _ in range(4):
            await node.after(15.0)  # at 29, 44, 59, 74: the looks are at 15, 30, 45, 60
            alive.hear()
        assert (silent.peer.closing, silent.stream.aborted) == (None, 0)
        with caplog.at_level(logging.WARNING):
            await node.after(1.0)  # the look at 75
        assert (silent.peer.closing, silent.stream.aborted) == (NET_TICK_TIMEOUT, 1)
        assert [record.getMessage() for record in caplog.records] == [
            "silent@h does not respond: nothing came from it for 60 s (net_ticktime 60 s); closing the connection"
        ]
        # Its reader has not noticed yet, as it were: it is not given up twice.
        await node.after(15.0)
        assert silent.stream.aborted == 1
        assert (alive.peer.closing, alive.stream.aborted) == (None, 0)


async def test_a_peer_that_is_closed_already_keeps_its_reason(mock_clock: MockClock) -> None:
    async with running(mock_clock, 4.0) as node:
        at = node.connect()
        at.peer.closing = Atom("disconnect")
        for _ in range(10):
            await node.after(1.0)
        assert (at.peer.closing, at.stream.aborted) == (Atom("disconnect"), 0)


async def test_a_tick_into_a_broken_socket_is_the_reader_s_to_notice(mock_clock: MockClock) -> None:
    async with running(mock_clock, 4.0) as node:
        broken, whole = node.connect("broken@h"), node.connect("whole@h")
        broken.stream.error = BrokenPipeError("gone")
        await node.after(1.0)
        assert (broken.stream.aborted, broken.peer.closing) == (1, None)
        assert whole.stream.ticks() == 1


async def test_a_peer_that_is_still_dialled_is_left_alone(mock_clock: MockClock) -> None:
    async with running(mock_clock, 4.0) as node:
        at = node.connect()
        at.peer.wire = None
        for _ in range(10):
            await node.after(1.0)
        node.ticker.set_net_ticktime(8.0, 0)
        await node.after(0.1)
        assert (at.stream.taken, at.stream.aborted) == (b"", 0)


async def test_the_answers_of_set_net_ticktime(mock_clock: MockClock) -> None:
    async with running(mock_clock, 60.0) as node:
        ticker = node.ticker
        assert (ticker.get_net_ticktime(), ticker.net_ticktime) == (60.0, 60.0)
        assert ticker.set_net_ticktime(60) == "unchanged"
        assert ticker.set_net_ticktime(8.0, 10.0) == "change_initiated"
        await node.after(0)
        for _ in range(5):
            assert ticker.get_net_ticktime() == ("ongoing_change_to", 8.0)
            assert ticker.set_net_ticktime(100.0) == ("ongoing_change_to", 8.0)
            assert ticker.set_net_ticktime(8.0) == ("ongoing_change_to", 8.0)
            assert ticker.net_ticktime == 8.0
            await node.after(2.0)
        assert ticker.get_net_ticktime() == 8.0
        assert ticker.set_net_ticktime(8) == "unchanged"
        assert ticker.set_net_ticktime(100.0) == "change_initiated"
        await node.after(59.9)
        assert ticker.get_net_ticktime() == ("ongoing_change_to", 100.0)


@pytest.mark.parametrize("new", [8.0, 600.0])
async def test_a_change_begins_while_the_ticker_sleeps(mock_clock: MockClock, new: float) -> None:
    async with running(mock_clock, 60.0) as node:
        at = node.connect()
        assert node.ticker.set_net_ticktime(new, 30.0) == "change_initiated"
        await node.after(0.0)
        assert at.stream.ticks() == 1
        pace = min(new, 60.0) / 4
        for _ in range(int(30 / pace)):
            at.hear()
            await node.after(pace)
            assert at.stream.ticks() >= 1


async def test_while_it_becomes_shorter_the_old_time_counts(mock_clock: MockClock) -> None:
    async with running(mock_clock, 60.0) as node:
        at = node.connect()
        node.ticker.set_net_ticktime(4.0, 200.0)
        for _ in range(74):
            await node.after(1.0)
        assert at.peer.closing is None
        await node.after(1.0)
        assert at.peer.closing == NET_TICK_TIMEOUT


async def test_while_it_becomes_longer_the_new_time_counts(mock_clock: MockClock) -> None:
    async with running(mock_clock, 4.0) as node:
        at = node.connect()
        node.ticker.set_net_ticktime(60.0, 2.0)
        for _ in range(74):
            await node.after(1.0)
        assert at.peer.closing is None
        await node.after(1.0)
        assert at.peer.closing == NET_TICK_TIMEOUT


async def test_a_refused_change_changes_nothing(mock_clock: MockClock) -> None:
    async with running(mock_clock, 60.0) as node:
        for net_ticktime, transition in ((0, 60), (-1, 60), (60, -1), (float("nan"), 1)):
            with pytest.raises(ValueError, match=r"net_ticktime|transition"):
                node.ticker.set_net_ticktime(net_ticktime, transition)
        assert node.ticker.get_net_ticktime() == 60.0


@pytest.mark.parametrize(("net_ticktime", "intensity"), [(0.0, 4), (60.0, 3), (60.0, 1001)])
def test_nonsense_is_refused(net_ticktime: float, intensity: int) -> None:
    with pytest.raises(ValueError, match="net_tick"):
        NetTicker(net_ticktime, list, intensity)
