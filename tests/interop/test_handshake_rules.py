"""The handshake, rule by rule: a peer made by hand says the same to a BEAM and to us, and gets the same answers."""

from __future__ import annotations

import contextlib
import logging
import struct
from typing import TYPE_CHECKING

import pytest
import trio

from erlang_interop import (
    Atom,
    ConnectError,
    ConnectRefused,
    ConnectTimeout,
    CookieMismatch,
    EpmdAddress,
    MissingFlags,
    NotAllowed,
)
from erlang_interop.flags import MANDATORY, MANDATORY_25, MANDATORY_26, OFFERED, DFlag
from erlang_interop.runtime.epmd import look_up
from erlang_interop.wire.handshake import digest
from tests.handshaking import (
    NOT_ALLOWED,
    Raw,
    challenge_message,
    complement_message,
    dialling,
    listening,
    name_message,
    old_name_message,
    without,
)
from tests.interop.collectors import PATIENCE, collecting, has_lost, is_among_nodes, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from erlang_interop import Node
    from erlang_interop.testing.beam import Beam, Epmd
    from tests.conftest import BeamFactory
    from tests.interop.conftest import NodeOpener

    Dial = Callable[[str], Awaitable[Raw]]

PEER = "raw_peer@127.0.0.1"


@pytest.fixture
async def dial(epmd: Epmd, beam: Beam) -> AsyncIterator[Dial]:
    """``await dial(node)`` for a node that EPMD knows. The BEAM has no connection to ``PEER`` of an earlier test."""
    async with dialling() as dial_port:

        async def dial(node: str) -> Raw:
            if node == beam.name:
                await has_lost(beam, PEER)
            return await dial_port(await look_up("127.0.0.1", epmd.port, node.partition("@")[0]))

        yield dial


async def answer_to(raw: Raw, *messages: bytes) -> list[bytes]:
    """What comes for these messages, but for the challenges, which are chance; then it must be over, or wait."""
    for message in messages:
        await raw.send(message)
    said: list[bytes] = []
    with trio.move_on_after(PATIENCE) as waiting:
        while (answer := await raw.receive()) is not None:
            said.append(answer[:1] if answer[:1] == b"N" else answer)
            if answer[:1] == b"N":  # it is for us to say something: nothing should come any more
                waiting.deadline = trio.current_time() + 0.3
        said.append(b"<end>")
    return said


async def same_answers(dial: Dial, beam: Beam, node: Node, *messages: bytes) -> list[bytes]:
    """The answer of both, which is the same."""
    theirs = await answer_to(await dial(beam.name), *messages)
    ours = await answer_to(await dial(node.name.name), *messages)
    assert ours == theirs
    return ours


# ------------------------------------------------------------------------------------------------------- names


@pytest.mark.rule("Handshake: bytes behind the name are ignored")
async def test_bytes_behind_the_name(dial: Dial, beam: Beam, node: Node, cookie: str) -> None:
    for name in (beam.name, node.name.name):
        raw = await dial(name)
        await raw.send(name_message(PEER, behind=b"\xffreserved for later"))
        assert await raw.receive() == b"sok"
        assert await raw.finish(cookie)
        await raw.close()


@pytest.mark.rule("Handshake: bytes behind the name are ignored")
async def test_bytes_behind_the_name_in_a_challenge(opened: NodeOpener, beam: Beam, epmd: Epmd, cookie: str) -> None:
    address = EpmdAddress(port=epmd.port)

    async def accept(raw: Raw) -> None:
        await raw.send(b"sok")
        await raw.send(challenge_message(PEER) + b"\xffreserved for later")
        reply = await raw.receive()
        assert reply is not None
        assert reply[5:] == digest(cookie, 1)
        await raw.send(b"a" + digest(cookie, struct.unpack_from(">I", reply, 1)[0]))

    async with opened() as node, listening(address, PEER) as there:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.connect, PEER)
            await accept(await there.accept_name())
        assert node.is_connected(PEER)
        await node.disconnect(PEER)
        await has_lost(beam, PEER)  # that of an earlier test
        async with trio.open_nursery() as nursery:
            nursery.start_soon(beam.eval, f"true = net_kernel:connect_node('{PEER}')")
            await accept(await there.accept_name())


@pytest.mark.rule("Handshake: what is no node name is hung up on")
@pytest.mark.parametrize("name", ["", "nobody", "@", "a@", "@h", "a@b@c", "x" * 254 + "@h"])
async def test_what_is_no_name(dial: Dial, beam: Beam, node: Node, name: str) -> None:
    assert await same_answers(dial, beam, node, name_message(name)) == [b"<end>"]


@pytest.mark.rule("Handshake: the old name message with its complement")
async def test_the_old_name_message(dial: Dial, beam: Beam, node: Node, cookie: str) -> None:
    """OTP 25.2 hangs up on it; later releases take it again, and we do (erlang/otp#6625)."""
    for name in (beam.name, node.name.name):
        raw = await dial(name)
        await raw.send(old_name_message(PEER))
        status = await raw.receive()
        if name == beam.name and beam.release == 25:
            assert status is None
            continue
        assert status == b"sok"
        challenge = await raw.receive()
        assert challenge is not None
        await raw.send(complement_message())
        number = struct.unpack_from(">I", challenge, 9)[0]
        await raw.send(struct.pack(">cI16s", b"r", 9, digest(cookie, number)))
        assert await raw.receive() == b"a" + digest(cookie, 9)
        if name == node.name.name:
            await until(lambda: [(row.state, row.creation) for row in node.connections] == [("up", 77)])
            assert node.peer_flags(PEER) == OFFERED


@pytest.mark.rule("Handshake: the old name message with its complement")
async def test_the_old_name_message_without_the_flags(dial: Dial, beam: Beam, node: Node) -> None:
    """Those of the first half are looked for at once, those of the second when it is there."""
    both = [node.name.name] if beam.release == 25 else [beam.name, node.name.name]
    for name in both:
        raw = await dial(name)
        assert await answer_to(raw, old_name_message(PEER, without(DFlag.UTF8_ATOMS))) == [NOT_ALLOWED, b"<end>"]
        raw = await dial(name)
        assert await answer_to(raw, old_name_message(PEER)) == [b"sok", b"N"]
        assert await answer_to(raw, complement_message(0)) == [NOT_ALLOWED, b"<end>"]


# ------------------------------------------------------------------------------------------------------- flags

LACKS_FLAG = pytest.mark.rule("Handshake: a missing mandatory flag is named, and the peer not allowed")


@LACKS_FLAG
@pytest.mark.parametrize("flag", list(MANDATORY), ids=lambda flag: flag.name)
async def test_a_caller_that_lacks_a_flag(
    dial: Dial, beam: Beam, node: Node, flag: DFlag, caplog: pytest.LogCaptureFixture
) -> None:
    message = name_message(PEER, without(flag))
    if flag in MANDATORY_26 and beam.release == 25:
        # OTP 25 does not insist on it; we do, as later ones.
        answer = await answer_to(await dial(node.name.name), message)
    else:
        answer = await same_answers(dial, beam, node, message)
        await until(lambda: f'{PEER}\' rejected since it cannot handle ["{flag.name}"]' in beam.log)
    assert answer == [NOT_ALLOWED, b"<end>"]
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    (line,) = lines
    assert f"{PEER}: it cannot do {flag.name}, without which no connection is possible" in line
    assert node.connections == []


@LACKS_FLAG
async def test_the_digest_flag_stands_for_those_of_otp_25(dial: Dial, beam: Beam, node: Node) -> None:
    message = name_message(PEER, (OFFERED & ~MANDATORY_25) | DFlag.MANDATORY_25_DIGEST)
    assert await same_answers(dial, beam, node, message) == [b"sok", b"N"]


@LACKS_FLAG
@pytest.mark.parametrize("flag", list(MANDATORY), ids=lambda flag: flag.name)
async def test_a_node_that_is_called_and_lacks_a_flag(node: Node, beam: Beam, epmd: Epmd, flag: DFlag) -> None:
    """The BEAM that calls it hangs up as we do, and its log names the flag. No BEAM lacks one of those we ask for."""
    async with listening(EpmdAddress(port=epmd.port), PEER) as there:
        refusals: list[ConnectRefused] = []

        async def connect() -> None:
            with pytest.raises(ConnectRefused) as caught:
                await node.connect(PEER)
            refusals.append(caught.value)

        async def connect_beam() -> None:
            await has_lost(beam, PEER)
            assert await beam.eval(f"net_kernel:connect_node('{PEER}')") is False

        callers = [connect] if flag in MANDATORY_26 and beam.release == 25 else [connect, connect_beam]
        for caller in callers:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(caller)
                raw = await there.accept_name()
                await raw.send(b"sok")
                await raw.send(challenge_message(PEER, without(flag)))
                await raw.ended()
        (refusal,) = refusals
        assert isinstance(refusal.__cause__, MissingFlags)
        assert refusal.__cause__.missing == flag
        assert f"{PEER}: it cannot do {flag.name}" in str(refusal)
        if connect_beam in callers:
            await until(lambda: f'{PEER}\' aborted since it cannot handle ["{flag.name}"]' in beam.log)


# ------------------------------------------------------------------------------------------------------- allow

ALLOW = pytest.mark.rule("Handshake: allow lists, both ways")

#: An allow list, and names of which it permits some.
ALLOWED = ["friend@127.0.0.1", "trusted.host", "ops@"]
CALLERS = {
    "friend@127.0.0.1": True,
    "friend@other.host": False,
    "any@trusted.host": True,
    "any@trusted.host.x": False,
    "ops@anywhere": True,
    "opsx@anywhere": False,
    "stranger@127.0.0.1": False,
}


@ALLOW
async def test_the_same_list_permits_the_same_nodes(dial: Dial, fresh_beam: BeamFactory, opened: NodeOpener) -> None:
    beam = fresh_beam()
    async with opened() as node:
        # no names at all: no list yet
        await beam.eval("ok = net_kernel:allow([])")
        node.allow([])
        assert (await same_answers(dial, beam, node, name_message("before@127.0.0.1")))[0] == b"sok"
        for entry in ALLOWED:  # each call adds
            await beam.eval("ok = net_kernel:allow([E])", E=Atom(entry))
            node.allow([entry])
        for name, may in CALLERS.items():
            answer = await same_answers(dial, beam, node, name_message(name))
            assert answer == ([b"sok", b"N"] if may else [NOT_ALLOWED, b"<end>"]), name
        # a node without a name is its host
        for host, may in {"trusted.host": True, "127.0.0.1": False}.items():
            raws = await dial(beam.name), await dial(node.name.name)
            for raw in raws:
                await raw.send(name_message(host, OFFERED | DFlag.NAME_ME, 0))
                status = await raw.receive()
                assert status is not None
                assert status.startswith(b"snamed:") if may else status == NOT_ALLOWED


@ALLOW
async def test_who_is_not_in_the_list_is_neither_let_in_nor_called(
    fresh_beam: BeamFactory, opened: NodeOpener, caplog: pytest.LogCaptureFixture
) -> None:
    beam = fresh_beam()
    async with opened() as node:
        node.allow(["friend@127.0.0.1"])
        assert await beam.eval("net_kernel:connect_node(N)", N=node.name) is False
        assert f"refusing {beam.name}" in caplog.text
        with pytest.raises(ConnectRefused, match=r"node\.allow\(") as caught:
            await node.connect(beam.name)
        assert isinstance(caught.value.__cause__, NotAllowed)
        node.allow([beam.name])
        assert await beam.eval("net_kernel:connect_node(N)", N=node.name) is True
        await node.disconnect(beam.name)
        await has_lost(beam, node.name)
        await beam.eval("ok = net_kernel:allow(['friend@127.0.0.1'])")
        assert await beam.eval("net_kernel:connect_node(N)", N=node.name) is False
        with pytest.raises(ConnectRefused, match="does not let us in") as caught:
            await node.connect(beam.name)
        assert isinstance(caught.value.__cause__, NotAllowed)
        await beam.eval("ok = net_kernel:allow([N])", N=node.name)
        await node.connect(beam.name)


# ------------------------------------------------------------------------------------------------------- cookies


@pytest.mark.rule("Handshake: cookies per peer")
async def test_each_peer_has_its_own_cookie(
    opened: NodeOpener, fresh_beam: BeamFactory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    common, special = fresh_beam(), fresh_beam(cookie="one of its own")
    async with opened(cookies={special.name: "one of its own"}) as node:
        await node.connect(common.name)
        await node.connect(special.name)
        assert await is_among_nodes(special, node.name)
        await node.disconnect(special.name)
        await has_lost(special, node.name)
        assert await special.eval("net_kernel:connect_node(N)", N=node.name) is True
        await node.disconnect(special.name)
        await has_lost(special, node.name)
        # changed on one side, then on the other
        await special.eval("erlang:set_cookie(N, 'the third one')", N=node.name)
        with pytest.raises(ConnectRefused, match="cookie") as caught:
            await node.connect(special.name)
        assert isinstance(caught.value.__cause__, CookieMismatch)
        assert await special.eval("net_kernel:connect_node(N)", N=node.name) is False
        node.set_cookie(special.name, "the third one")
        await node.connect(special.name)
        assert await is_among_nodes(special, node.name)
        await node.disconnect(special.name)
        await has_lost(special, node.name)
        assert await special.eval("net_kernel:connect_node(N)", N=node.name) is True
        assert node.is_connected(common.name)
        shown = caplog.text + repr(node) + repr(vars(node)) + str(caught.value) + repr(caught.value)
        assert "one of its own" not in shown
        assert "the third one" not in shown
        assert common.cookie not in shown


@pytest.mark.rule("Handshake: cookies per peer")
async def test_a_beam_that_has_a_cookie_for_us_alone(opened: NodeOpener, fresh_beam: BeamFactory) -> None:
    beam = fresh_beam()
    async with opened(cookie="ours alone") as node, collecting(beam) as there, node.open_process() as me:
        with pytest.raises(ConnectRefused, match="cookie"):
            await node.connect(beam.name)
        await beam.eval("erlang:set_cookie(N, 'ours alone')", N=node.name)
        await node.connect(beam.name)
        me.send(there.pid, 1)
        assert await there.take(1) == [1]
        # its own cookie is a matter of its own
        node.set_cookie(node.name, "changed")
        await node.disconnect(beam.name)
        await has_lost(beam, node.name)
        with pytest.raises(ConnectRefused, match="cookie"):
            await node.connect(beam.name)


# --------------------------------------------------------------------------------------- who waits, and how long


@pytest.mark.rule("Connections: all who wait for a connection are answered together")
async def test_fifty_callers_of_a_beam(node: Node, beam: Beam) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(node.connect, beam.name)
    assert sum(node.handshakes.values()) == 1
    assert [row.state for row in node.connections] == ["up"]


@pytest.mark.rule("Handshake: time limits in every state")
async def test_a_suspended_beam_is_given_up(opened: NodeOpener, fresh_beam: BeamFactory, epmd: Epmd) -> None:
    beam = fresh_beam()
    async with opened(connect_timeout=3.0) as node:
        there = f"127.0.0.1:{await look_up('127.0.0.1', epmd.port, beam.name.partition('@')[0])}"
        beam.suspend()
        errors: list[ConnectTimeout] = []

        async def connect() -> None:
            with pytest.raises(ConnectTimeout) as caught:
                await node.connect(beam.name)
            errors.append(caught.value)

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(connect)
            await until(lambda: [(row.state, row.address) for row in node.connections] == [("pending", there)])
        beam.resume()
        assert len({id(error) for error in errors}) == 5
        assert str(errors[0]).startswith(
            f"{beam.name} at {there} did not finish the handshake within 3 s: "
            f"it still owes its answer to our name (RECV_STATUS)"
        )
        assert node.connections == []

        async def connected() -> bool:
            # The BEAM may take the two calls in either order: then the dead one is the younger, and ends the living.
            with contextlib.suppress(ConnectError):
                await node.connect(beam.name)
            return node.is_connected(beam.name)

        await until(connected)


@pytest.mark.rule("Handshake: silent connections do not keep others out")
async def test_a_beam_gets_in_past_silent_strangers(
    opened: NodeOpener, dial: Dial, beam: Beam, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(connect_timeout=60.0) as node:
        strangers = [await dial(node.name.name) for _ in range(128)]
        await until(lambda: len(node._distribution._handshakes._accepting) == 128)
        with trio.fail_after(PATIENCE):
            assert await beam.eval("net_kernel:connect_node(N)", N=node.name) is True
        await strangers[0].ended()
        assert caplog.text.count("128 handshakes are under way already") == 1
