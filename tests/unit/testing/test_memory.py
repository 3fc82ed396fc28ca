"""Pipes and wires by themselves: what crosses, when, and what is left."""

from __future__ import annotations

import pytest
import trio

from erlang_interop.testing.memory import CAPACITY, Pipe, Wire

#: A handshake of one side, to the last message, and three frames behind it: two bytes, a tick, three bytes.
HANDSHAKE = b"\x00\x02Na" + b"\x00\x03rxy"
FRAMES = [b"\x00\x00\x00\x02AB", b"\x00\x00\x00\x00", b"\x00\x00\x00\x03CDE"]
ALL = HANDSHAKE + b"".join(FRAMES)


def read(pipe: Pipe) -> bytes | None:
    """What has arrived: b"" for the end, None for nothing."""
    buffer = memoryview(bytearray(1000))
    size = pipe.read_into(buffer)
    return None if size is None else bytes(buffer[:size])


def held(written: bytes, step: int) -> Pipe:
    """A pipe that holds what was written in portions of ``step`` bytes."""
    pipe = Pipe(keep=True)
    pipe.held = True
    for start in range(0, len(written), step):
        part = memoryview(written)[start : start + step]
        assert pipe.write(part) == len(part)
    return pipe


def test_what_is_written_arrives_at_once() -> None:
    pipe = Pipe()
    assert read(pipe) is None
    pipe.write(memoryview(b"\x00\x05N"))
    assert read(pipe) == b"\x00\x05N"
    pipe.end()
    assert read(pipe) == b""


@pytest.mark.parametrize("step", [1, 2, 3, 5, 7, 1000])
def test_frames_are_found_however_they_were_written(step: int) -> None:
    pipe = held(ALL, step)
    assert pipe.frames == 5
    assert not pipe.in_handshake
    assert pipe.log == bytearray().join(FRAMES)
    assert read(pipe) is None
    assert pipe.deliver(2) == 2
    assert read(pipe) == HANDSHAKE
    for left, frame in zip((2, 1, 0), FRAMES, strict=True):
        assert pipe.deliver(1) == 1
        assert (read(pipe), pipe.frames) == (frame, left)
    assert pipe.deliver(1) == 0


def test_half_a_frame_is_none() -> None:
    pipe = held(ALL[:-1], 1000)
    assert (pipe.frames, pipe.deliver(9)) == (4, 4)
    assert read(pipe) == ALL[: -len(FRAMES[-1])]
    assert pipe.deliver() == 0
    assert read(pipe) == FRAMES[-1][:-1]
    pipe.write(memoryview(ALL[-1:]))
    assert (pipe.frames, pipe.deliver(1)) == (1, 1)
    assert read(pipe) == ALL[-1:]


def test_bytes_cross_wherever_that_ends() -> None:
    pipe = held(ALL, 1000)
    assert pipe.deliver_bytes(len(HANDSHAKE) + 3) == len(HANDSHAKE) + 3
    assert pipe.frames == 3
    assert pipe.deliver(1) == 1
    assert read(pipe) == HANDSHAKE + FRAMES[0]
    assert pipe.deliver_bytes(1000) == len(FRAMES[1] + FRAMES[2])
    assert pipe.frames == 0


def test_the_end_comes_behind_the_frames_and_counts_as_one() -> None:
    pipe = held(ALL, 1000)
    pipe.end()
    assert (pipe.frames, pipe.deliver(5)) == (6, 5)
    assert (read(pipe), read(pipe)) == (ALL, None)
    assert pipe.deliver(1) == 1
    assert read(pipe) == b""
    with pytest.raises(BrokenPipeError):
        pipe.write(memoryview(b"more"))


def test_a_cut_loses_what_is_under_way_and_nothing_that_arrived() -> None:
    pipe = held(ALL, 1000)
    pipe.deliver(3)
    pipe.cut()
    assert (read(pipe), read(pipe), pipe.frames) == (HANDSHAKE + FRAMES[0], b"", 0)


def test_a_handshake_passes_where_only_what_is_behind_it_is_held() -> None:
    pipe = Pipe()
    pipe.held, pipe.holds_handshake = True, False
    pipe.write(memoryview(HANDSHAKE[:4]))
    assert read(pipe) == HANDSHAKE[:4]
    pipe.write(memoryview(HANDSHAKE[4:]))
    assert read(pipe) == HANDSHAKE[4:]
    pipe.write(memoryview(FRAMES[0]))
    assert read(pipe) is None


async def test_a_pipe_that_is_full_takes_no_more_until_it_is_read() -> None:
    wire = Wire("a", "b")
    here, there = wire.end_of("a"), wire.end_of("b")
    assert here.send_nowait(memoryview(bytes(CAPACITY + 1))) == CAPACITY
    assert here.send_nowait(memoryview(b"x")) == 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.send_all, b"behind it")
        received = b""
        with trio.fail_after(30):
            while len(received) < CAPACITY + 9:
                received += await there.receive_some(300_000)
    assert received.endswith(b"\0behind it")


async def test_both_ends_find_a_cut_and_closing_wakes_who_waits() -> None:
    wire = Wire("a", "b")
    here, there = wire.end_of("a"), wire.end_of("b")
    assert wire.is_open
    assert here.address == "memory:b"
    wire.cut()
    assert not wire.is_open
    assert (await here.receive_some(), await there.receive_some()) == (b"", b"")

    wire = Wire("a", "b")
    here, there = wire.end_of("a"), wire.end_of("b")
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def reader() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await here.wait_readable()

        await trio.testing.wait_all_tasks_blocked()
        here.close()
        here.close()
    assert here.closed
    assert await there.receive_some() == b""
    with pytest.raises(BrokenPipeError):
        there.send_nowait(memoryview(b"x"))


async def test_who_aborts_reads_no_more_and_the_other_reads_to_the_end() -> None:
    wire = Wire("a", "b")
    here, there = wire.end_of("a"), wire.end_of("b")
    await here.send_all(b"last words")
    wire.to("a").held = True
    there.try_send(b"never read")
    here.abort()
    assert await here.receive_some() == b""
    assert (await there.receive_some(), await there.receive_some()) == (b"last words", b"")


async def test_an_end_of_one_direction_leaves_the_other() -> None:
    wire = Wire("a", "b")
    here, there = wire.end_of("a"), wire.end_of("b")
    here.end()
    await there.send_all(b"answer")
    assert (await there.receive_some(), await here.receive_some()) == (b"", b"answer")
