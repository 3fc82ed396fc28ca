"""Bytes that are nearly right, in every state of a connection, from either end: each costs its connection alone.

The bytes are changed at random, from a seed that is always the same. The node is connected to a genuine BEAM all the
while, which must not notice (``hostile.attacking``). What the node logs of each connection is one line.
"""

from __future__ import annotations

import random
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING, Any, Final

import pytest
import trio

from erlang_interop import Atom, ConnectError, EpmdAddress, Pid
from erlang_interop.errors import RemoteProtocolError
from erlang_interop.flags import OFFERED
from erlang_interop.runtime import epmd as client
from erlang_interop.wire.channel import DistChannel
from erlang_interop.wire.control import LAYOUTS
from erlang_interop.wire.handshake import Acceptor, State, Verdict
from tests.interop.collectors import PATIENCE, until
from tests.interop.hostile import EVIL, EVIL_PID, Attacked, complaints, say, what_it_says_until_it_hangs_up
from tests.wrong_bytes import (
    HEADERS,
    PAYLOADS,
    any_changes,
    changed,
    fragments_of,
    frame,
    frames_of,
    message,
    messages_of,
)

if TYPE_CHECKING:
    from erlang_interop.testing.beam import Epmd

#: Connections for each state and OTP.
EACH: Final = 150
#: What a line ends with that says where, and against which rule.
PLACE: Final = re.compile(r" at offset \d+ \(.+\)$")
RULE: Final = re.compile(r" \(.+\)$")


async def heard(stream: trio.SocketStream, count: int) -> None:
    """Return when the node has sent ``count`` bytes: it is in its next state then."""
    with trio.fail_after(PATIENCE):
        while count > 0:
            data = await stream.receive_some()
            assert data
            count -= len(data)


# ------------------------------------------------------------------------------------------------ dialled by a stranger

MESSAGES: Final = messages_of(EVIL.name, "somebody@127.0.0.1")
SOK, CHALLENGED = len(message(b"sok")), 2 + 19


async def named(attacked: Attacked, opening: str = "NAME") -> trio.SocketStream:
    """A connection that said its name and was asked for the cookie."""
    stream = await attacked.dial()
    await stream.send_all(message(MESSAGES[opening]))
    await heard(stream, SOK + CHALLENGED + len(attacked.node.name.name))
    return stream


async def asked_whether_it_means_it(attacked: Attacked) -> trio.SocketStream:
    stream = await attacked.dial()
    await stream.send_all(message(messages_of(attacked.friend.beam.name, "")["NAME"]))
    await heard(stream, len(message(b"salive")))
    return stream


#: How each state is reached, and what is right in it.
STATES: Final[dict[str, tuple[Callable[[Attacked], Any], list[str]]]] = {
    "RECV_NAME": (Attacked.dial, ["NAME", "OLD_NAME", "NAME (asking)"]),
    "RECV_ALIVE_ANSWER": (asked_whether_it_means_it, ["STATUS true", "STATUS false"]),
    "RECV_COMPLEMENT": (lambda attacked: named(attacked, "OLD_NAME"), ["COMPLEMENT"]),
    "RECV_REPLY": (named, ["REPLY"]),
}


@pytest.mark.rule("Hostile input: changed bytes in a handshake cost its connection alone")
@pytest.mark.parametrize("state", STATES)
async def test_changed_messages_of_a_handshake(
    attacked: Attacked, caplog: pytest.LogCaptureFixture, state: str
) -> None:
    reach, right = STATES[state]
    numbers = random.Random(state)
    for index in range(EACH):
        # Mostly what is right here with changes, sometimes what is right elsewhere, as it is or twice.
        name = numbers.choice(right) if index % 4 else numbers.choice(list(MESSAGES))
        body = changed(MESSAGES[name], any_changes(numbers))
        length = len(body) if numbers.random() < 0.8 else numbers.choice((0, 1, len(body) + 1, 0xFFFF))
        data = (length.to_bytes(2, "big") + body) * numbers.choice((1, 1, 2))
        caplog.clear()
        stream = await reach(attacked)
        host, port = stream.socket.getsockname()
        await say(stream, data, hang_up=True)
        await what_it_says_until_it_hangs_up(stream)
        await attacked.has_forgotten()
        lines = complaints(caplog)
        assert len(lines) == 1 or (state == "RECV_ALIVE_ANSWER" and not lines), (index, data, lines)
        for line in lines:
            assert line.startswith((f"handshake with {host}:{port} failed: ", "refusing ")), line
            assert RULE.search(line) or "refusing" in line, line
            assert len(line) < 1000


# ------------------------------------------------------------------------------------------------ behind the handshake


@pytest.mark.rule("Hostile input: changed frames cost their connection alone")
@pytest.mark.parametrize("kind", ["whole", "fragments"])
async def test_changed_frames(attacked: Attacked, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    """The wire layer alone says what must come of them; then the node does, and says it in its log."""
    numbers = random.Random(kind)
    # A process that never was, so far away that no flipped bit makes a living one of it.
    nobody = Pid(attacked.node.name, 0x5A5A5A, 3, attacked.node.creation)
    wrong = 0
    for index in range(2 * EACH):
        if kind == "whole":
            layout = LAYOUTS[index % len(LAYOUTS)]
            bodies = [frames_of(layout, HEADERS, EVIL_PID, nobody)[4:]]
        else:
            bodies = fragments_of(PAYLOADS[index % len(PAYLOADS)], 3, EVIL_PID, nobody)
        at = numbers.randrange(len(bodies))
        bodies[at] = changed(bodies[at], any_changes(numbers))
        if numbers.random() < 0.2:
            numbers.shuffle(bodies)
        data = b"".join(map(frame, bodies))
        if numbers.random() < 0.1:
            data = data[: numbers.randrange(len(data))] + numbers.randbytes(20)
        alone = DistChannel(OFFERED, peer=EVIL.name)
        alone.receive_data(data)
        caplog.clear()
        stream = await attacked.shake_hands()
        host, port = stream.socket.getsockname()
        await say(stream, data, hang_up=True)
        await what_it_says_until_it_hangs_up(stream)
        await attacked.has_forgotten()
        lines = complaints(caplog)
        assert len(lines) <= 1, (index, data, lines)
        if alone.failure is not None:
            # Unless what came before it in the same bytes was refused at once: a signal that makes no sense.
            (line,) = lines
            assert line.startswith(f"closing the connection to {EVIL.name} ({host}:{port}): {EVIL.name}: ")
            wrong += line.endswith(str(alone.failure))
        for line in lines:
            assert PLACE.search(line), line
            assert len(line) < 1000
    assert wrong > EACH


# ------------------------------------------------------------------------------------------------ a stranger is dialled


class Rogue:
    """A server that EPMD knows as ``rogue``: it does the first ``steps`` of a handshake rightly, then says ``answer``.

    Steps: 1 is the status, 2 the challenge behind it, 3 the acknowledgement: then the answer comes in the same bytes.
    """

    def __init__(self, name: str, cookie: str) -> None:
        self.name = name
        self.cookie = cookie
        self.steps = 0
        self.answer = b""

    async def serve(self, stream: trio.SocketStream) -> None:
        acceptor = Acceptor(self.name, OFFERED, 5, self.cookie, 4)
        async with stream:
            out = b""
            await self._hear(stream, acceptor, State.AWAIT_VERDICT)
            if self.steps > 0:
                acceptor.accept(Verdict.OK)
                out = acceptor.data_to_send()
                if self.steps == 1:
                    out = message(b"sok")
                else:
                    await stream.send_all(out)
                    await self._hear(stream, acceptor, State.ESTABLISHED)
                    out = acceptor.data_to_send() if self.steps == 3 else b""
            await say(stream, out + self.answer, hang_up=True)
            await what_it_says_until_it_hangs_up(stream)

    async def _hear(self, stream: trio.SocketStream, acceptor: Acceptor, state: State) -> None:
        while acceptor.state is not state:
            data = await stream.receive_some()
            assert data, "it hung up on a correct handshake"
            acceptor.receive_data(data)


@pytest.fixture
async def rogue(attacked: Attacked, epmd: Epmd) -> AsyncIterator[Rogue]:
    server = Rogue("rogue@127.0.0.1", attacked.cookie)
    async with _listening(server) as port:
        entry = await client.register(EpmdAddress(port=epmd.port), "rogue", port, visible=True)
        with closing(entry.stream):
            yield server


@asynccontextmanager
async def _listening(server: Rogue) -> AsyncIterator[int]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, server.serve, [listener])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


#: What the node that dials waits for, the steps before it, and what would be right.
AWAITED: Final[dict[str, tuple[int, list[str]]]] = {
    "RECV_STATUS": (0, [f"STATUS {word}" for word in ("ok", "ok_simultaneous", "nok", "not_allowed", "alive")]),
    "RECV_CHALLENGE": (1, ["NAME (challenge)"]),
    "RECV_ACK": (2, ["ACK"]),
}


@pytest.mark.rule("Hostile input: a node that is dialled and answers wrongly costs its connection alone")
@pytest.mark.parametrize("state", AWAITED)
async def test_a_node_that_answers_with_changed_messages(
    attacked: Attacked, rogue: Rogue, caplog: pytest.LogCaptureFixture, state: str
) -> None:
    node = attacked.node
    rogue.steps, right = AWAITED[state]
    answers = messages_of(node.name.name, rogue.name)
    numbers = random.Random(state)
    for index in range(EACH):
        name = numbers.choice(right) if index % 4 else numbers.choice(list(answers))
        body = changed(answers[name], any_changes(numbers))
        if body in answers.values():
            continue  # what is right may be waited for longer than a test takes
        rogue.answer = message(body)
        caplog.clear()
        with trio.fail_after(PATIENCE), pytest.raises(ConnectError) as caught:
            await node.connect(rogue.name)
        assert isinstance(caught.value.__cause__, RemoteProtocolError), caught.value
        await attacked.has_forgotten()
        (line,) = complaints(caplog)
        assert re.match(rf"handshake with 127\.0\.0\.1:\d+ failed: {rogue.name}: ", line), line
        assert RULE.search(line), line
        assert len(line) < 1000
        if type(caught.value.__cause__) is RemoteProtocolError:
            assert PLACE.search(line), line


@pytest.mark.rule("Hostile input: a node that is dialled and answers wrongly costs its connection alone")
async def test_a_node_that_sends_changed_frames_once_it_is_connected(
    attacked: Attacked, rogue: Rogue, caplog: pytest.LogCaptureFixture
) -> None:
    """Also in the same bytes as its last message of the handshake."""
    node = attacked.node
    rogue.steps = 3
    peer = Pid(Atom(rogue.name), 7, 0, 5)
    nobody = Pid(node.name, 0x5A5A5A, 3, node.creation)
    numbers = random.Random("rogue")
    told = 0
    for index in range(EACH // 2):
        layout = LAYOUTS[index % len(LAYOUTS)]
        body = changed(frames_of(layout, HEADERS, peer, nobody)[4:], any_changes(numbers))
        alone = DistChannel(OFFERED, peer=rogue.name)
        alone.receive_data(frame(body))
        rogue.answer = frame(body)
        caplog.clear()
        await node.connect(rogue.name)
        await until(lambda: not node.is_connected(rogue.name))
        await attacked.has_forgotten()
        lines = complaints(caplog)
        assert len(lines) == 1 if alone.failure is not None else len(lines) <= 1
        for line in lines:
            assert line.startswith(f"closing the connection to {rogue.name} (127.0.0.1:")
            assert PLACE.search(line), line
            told += 1
    assert told > EACH // 8
