"""Connections in memory: bytes on their way between two nodes, under the control of a test.

A :class:`Wire` is one connection: two :class:`Pipe`, and a stream for each node that ends in them. Nothing here knows
what the bytes mean, but for where a frame ends.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import trio

from ..runtime.transport import Stream

__all__ = ["MemoryStream", "Pipe", "Wire"]

#: Bytes that one direction of a connection holds, as the buffers of two sockets do.
CAPACITY: Final = 1024 * 1024
#: The last message of a handshake in each direction: challenge reply and challenge ack (erl_dist_protocol,
#: "Distribution Handshake"). No other message of it begins with one of these, and with them its frames end.
_LAST_TAGS: Final = b"ra"


class Pipe:
    """One direction of a connection.

    Attributes:
        held: Whether what is written waits for :meth:`deliver`.
        holds_handshake: Whether that goes for the handshake as well.
        log: What was written behind the handshake, if it was to be kept: frames, each behind its length of 32 bits.
    """

    def __init__(self, *, keep: bool = False) -> None:
        self.held = False
        self.holds_handshake = True
        self.log: bytearray | None = bytearray() if keep else None
        self._under_way = bytearray()
        self._arrived = bytearray()
        # Positions count all bytes that were ever written.
        self._written = 0
        self._crossed = 0
        #: Where the whole frames under way end, oldest first.
        self._ends: deque[int] = deque()
        self._frame_head = bytearray()
        self._frame_rest = 0
        self._handshake = True
        self._end_under_way = False
        self._ended = False
        self._reader_gone = False
        self._readers = trio.lowlevel.ParkingLot()
        self._writers = trio.lowlevel.ParkingLot()

    # -- what a test does with it

    @property
    def frames(self) -> int:
        """Whole frames under way; the end of the stream, when its writer has closed it, counts as one."""
        return len(self._ends) + self._end_under_way

    @property
    def in_handshake(self) -> bool:
        """Whether the last message of the handshake was not written yet."""
        return self._handshake

    def deliver(self, frames: int | None = None) -> int:
        """Let the oldest frames cross: so many, or (None) all that is under way, half a frame included.

        Returns:
            How many frames did; fewer than asked for when there are no more.
        """
        count = self.frames if frames is None else min(frames, self.frames)
        whole = min(count, len(self._ends))
        if frames is None or count > whole:
            self._cross(len(self._under_way))
        elif whole:
            self._cross(self._ends[whole - 1] - self._crossed)
        if count > whole:
            self._cross_end()
        return count

    def deliver_bytes(self, count: int) -> int:
        """Let ``count`` bytes cross, wherever in a frame that ends. Returns how many did."""
        count = min(count, len(self._under_way))
        self._cross(count)
        return count

    # -- what its two ends do with it

    def write(self, data: bytes | memoryview) -> int:
        """Take what there is room for. Raises BrokenPipeError when nobody will read it."""
        if self._reader_gone or self._ended or self._end_under_way:
            raise BrokenPipeError("the connection is closed")
        part = bytes(data[: max(CAPACITY - len(self._under_way) - len(self._arrived), 0)])
        at_once = not self.held or (self._handshake and not self.holds_handshake)
        self._under_way += part
        self._scan(part)
        if at_once:
            self._cross(len(self._under_way))
        return len(part)

    def end(self) -> None:
        """The writer writes no more: the reader finds the end behind all that is under way."""
        self._end_under_way = not self._ended
        if not self.held:
            self.deliver()

    def cut(self) -> None:
        """What is under way is lost; what arrived, and then the end, is still read."""
        self._under_way.clear()
        self._ends.clear()
        self._crossed = self._written
        self._cross_end()

    def read_into(self, buffer: memoryview) -> int | None:
        """Bytes read; 0 at the end, None when nothing has arrived."""
        size = min(len(buffer), len(self._arrived))
        if not size:
            return 0 if self._ended else None
        buffer[:size] = self._arrived[:size]
        del self._arrived[:size]
        _wake(self._writers)
        return size

    def close_reader(self) -> None:
        """Nobody reads any more."""
        self._reader_gone = True
        _wake(self._writers)
        _wake(self._readers)

    async def wait_readable(self) -> None:
        """Return when there is something to read, or the end. Raises ClosedResourceError when its reader is closed."""
        while not self._arrived and not self._ended:
            if self._reader_gone:
                raise trio.ClosedResourceError("the stream is closed")
            await self._readers.park()
        await trio.lowlevel.checkpoint()

    async def wait_writable(self) -> None:
        """Return when there is room, or nobody reads any more."""
        while not self._reader_gone and len(self._under_way) + len(self._arrived) >= CAPACITY:
            await self._writers.park()
        await trio.lowlevel.checkpoint()

    # -- inside

    def _scan(self, part: bytes) -> None:
        """Find where frames end. Those of the handshake have a length of 16 bits, those behind it one of 32."""
        pos = 0
        while pos < len(part):
            if not self._frame_rest:
                prefix, tag = (2, 1) if self._handshake else (4, 0)  # the tag of a message is its first byte
                step = min(prefix + tag - len(self._frame_head), len(part) - pos)
                self._take(part, pos, pos + step)
                self._frame_head += part[pos : pos + step]
                pos += step
                if len(self._frame_head) < prefix + tag:
                    return
                self._frame_rest = int.from_bytes(self._frame_head[:prefix], "big") - tag
            step = min(self._frame_rest, len(part) - pos)
            self._take(part, pos, pos + step)
            pos += step
            self._frame_rest -= step
            if not self._frame_rest:
                self._ends.append(self._written)
                if self._handshake and self._frame_head[2] in _LAST_TAGS:
                    self._handshake = False
                self._frame_head.clear()

    def _take(self, part: bytes, start: int, end: int) -> None:
        self._written += end - start
        if self.log is not None and not self._handshake:
            self.log += part[start:end]

    def _cross(self, count: int) -> None:
        self._arrived += self._under_way[:count]
        del self._under_way[:count]
        self._crossed += count
        while self._ends and self._ends[0] <= self._crossed:
            self._ends.popleft()
        if count:
            _wake(self._readers)

    @property
    def is_ending(self) -> bool:
        """Whether the end of the stream is under way, or has arrived."""
        return self._end_under_way or self._ended or self._reader_gone

    def _cross_end(self) -> None:
        self._end_under_way, self._ended = False, True
        _wake(self._readers)


def _wake(lot: trio.lowlevel.ParkingLot) -> None:
    """Let those who wait go on, also when this is called at the end of a pass of the loop, just before it sleeps."""
    if lot.statistics().tasks_waiting:
        lot.unpark_all()
        trio.lowlevel.current_trio_token().run_sync_soon(_nothing, idempotent=True)


def _nothing() -> None:
    """What the loop is woken for: it finds the tasks by itself."""


class MemoryStream(Stream):
    """One end of a :class:`Wire`, for a node or for a test that speaks the protocol itself."""

    __slots__ = ("_closed", "_incoming", "_outgoing")

    def __init__(self, incoming: Pipe, outgoing: Pipe, address: str) -> None:
        # Not Stream's own __init__: that one is for a socket, and so is every method that is not below or built on it.
        self._incoming = incoming
        self._outgoing = outgoing
        self._closed = False
        self.address = address

    def receive_nowait(self, buffer: memoryview) -> int | None:
        """See Stream."""
        return self._incoming.read_into(buffer)

    def send_nowait(self, data: bytes | memoryview) -> int:
        """See Stream."""
        return self._outgoing.write(data)

    async def wait_readable(self) -> None:
        """See Stream."""
        await self._incoming.wait_readable()

    async def let_more_come(self) -> None:
        """See Stream. Nothing is gained by waiting here, and the clock may stand still."""
        await trio.lowlevel.checkpoint()

    async def wait_writable(self) -> None:
        """See Stream."""
        await self._outgoing.wait_writable()

    def abort(self) -> None:
        """See Stream."""
        self._incoming.cut()
        self._outgoing.end()

    def end(self) -> None:
        """See Stream."""
        self._outgoing.end()

    @property
    def closed(self) -> bool:
        """See Stream."""
        return self._closed

    def close(self) -> None:
        """See Stream."""
        if not self._closed:
            self._closed = True
            self._outgoing.end()
            self._incoming.close_reader()


class Wire:
    """One connection between two nodes, from the dial on.

    Attributes:
        dialler: Name of the node that made it.
        acceptor: Name of the other.
    """

    def __init__(self, dialler: str, acceptor: str, *, keep: bool = False) -> None:
        self.dialler = dialler
        self.acceptor = acceptor
        self._pipes = {name: Pipe(keep=keep) for name in (dialler, acceptor)}

    def to(self, name: str) -> Pipe:
        """What is under way to the node ``name``."""
        return self._pipes[name]

    def end_of(self, name: str) -> MemoryStream:
        """The stream that the node ``name`` reads from and writes to."""
        other = self.acceptor if name == self.dialler else self.dialler
        return MemoryStream(self._pipes[name], self._pipes[other], f"memory:{other}")

    def cut(self) -> None:
        """End it as when a cable is cut: what is under way is lost both ways, and both nodes find the end."""
        for pipe in self._pipes.values():
            pipe.cut()

    @property
    def is_open(self) -> bool:
        """Whether neither side has ended it."""
        return not any(pipe.is_ending for pipe in self._pipes.values())
