"""The client against our own server; tests/interop/test_epmd.py has the genuine one on either side."""

import itertools
import logging

import pytest
import trio
import trio.testing

from erlang_interop.errors import ConnectTimeout, EpmdError, EpmdUnavailable, HostNotFound, NameTaken, NoSuchNode
from erlang_interop.runtime import EpmdAddress, EpmdServer
from erlang_interop.runtime import epmd as client
from erlang_interop.runtime.transport import Stream, listen
from erlang_interop.testing.memory import Wire
from erlang_interop.testing.ports import free_port
from erlang_interop.wire.epmd import EPMD_PORT, Alive2Reply, NodeEntry, encode_alive2_reply


@pytest.fixture
async def address(nursery: trio.Nursery) -> EpmdAddress:
    return EpmdAddress(port=await nursery.start(EpmdServer().serve))


async def test_a_name_is_held_as_long_as_its_stream(address: EpmdAddress) -> None:
    registration = await client.register(address, "one", 4711, visible=False)
    assert registration.creation >= 4
    assert await client.look_up("127.0.0.1", address.port, "one") == 4711
    assert await client.names(address) == [NodeEntry("one", 4711)]
    with pytest.raises(NameTaken, match="refuses the name 'one'"):
        await client.register(address, "one", 4712, visible=False)
    registration.stream.close()
    with trio.fail_after(30):
        while await client.names(address):
            await trio.lowlevel.checkpoint()
    with pytest.raises(NoSuchNode, match="knows no node 'one'"):
        await client.look_up("127.0.0.1", address.port, "one")
    again = await client.register(address, "one", 4711, visible=True)
    assert again.creation != registration.creation
    again.stream.close()


async def test_where_no_epmd_is() -> None:
    nowhere = EpmdAddress(port=free_port())
    with pytest.raises(EpmdUnavailable, match="start one"):
        await client.register(nowhere, "one", 1, visible=False)
    with pytest.raises(EpmdUnavailable, match="no EPMD answers"):
        await client.names(nowhere)
    with pytest.raises(NoSuchNode, match="no EPMD answers"):
        await client.look_up("127.0.0.1", nowhere.port, "one")


async def test_what_is_no_epmd_is_told_apart() -> None:
    async def http(stream: Stream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        stream.close()

    listener = await listen("127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listener.serve, http, nursery)
        with pytest.raises(EpmdUnavailable, match="does not answer as EPMD does"):
            await client.register(EpmdAddress(port=listener.port), "one", 1, visible=False)
        with pytest.raises(NoSuchNode, match="does not answer as EPMD does"):
            await client.look_up("127.0.0.1", listener.port, "one")
        nursery.cancel_scope.cancel()
    listener.close()


@pytest.mark.parametrize(("value", "port"), [("", EPMD_PORT), ("4711", 4711)])
def test_the_port_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, value: str, port: int) -> None:
    monkeypatch.setenv("ERL_EPMD_PORT", value)
    assert EpmdAddress.from_environment().port == port


@pytest.mark.parametrize("value", ["x", "0", "65536", "-1"])
def test_a_bad_port_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("ERL_EPMD_PORT", value)
    with pytest.raises(EpmdError, match="ERL_EPMD_PORT"):
        EpmdAddress.from_environment()


async def test_a_node_is_registered_again_when_epmd_comes_back(
    monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    monkeypatch.setattr(client, "FIRST_RETRY", 0.01)
    address = EpmdAddress(port=free_port())
    async with trio.open_nursery() as serving:
        await serving.start(EpmdServer().serve, "127.0.0.1", address.port)
        registration = await client.register(address, "one", 4711, visible=False)
        nursery.start_soon(
            client.stay_registered, registration, lambda: client.register(address, "one", 4711, visible=False)
        )
        serving.cancel_scope.cancel()
    await nursery.start(EpmdServer().serve, "127.0.0.1", address.port)
    with trio.fail_after(30):
        while await client.names(address) != [NodeEntry("one", 4711)]:
            await trio.lowlevel.checkpoint()
    nursery.cancel_scope.cancel()


async def test_an_epmd_that_takes_the_connection_and_never_answers(mock_clock: trio.testing.MockClock) -> None:
    async def let_time_pass(stream: Stream) -> None:
        try:
            await stream.receive_some()
            mock_clock.jump(11)
            await trio.sleep_forever()
        finally:
            stream.close()

    listener = await listen("127.0.0.1")
    stuck = EpmdAddress(port=listener.port)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listener.serve, let_time_pass, nursery)
        with pytest.raises(EpmdUnavailable, match=rf"EPMD on {stuck} did not answer within 10 s: is it suspended"):
            await client.register(stuck, "one", 1, visible=False)
        with pytest.raises(
            ConnectTimeout, match=rf"cannot look one@127\.0\.0\.1 up: EPMD on {stuck} did not answer within 3"
        ):
            await client.look_up("127.0.0.1", stuck.port, "one", patience=3)
        with pytest.raises(EpmdUnavailable, match="did not answer"):
            await client.names(stuck)
        nursery.cancel_scope.cancel()
    listener.close()


@pytest.mark.usefixtures("no_dns")
async def test_a_host_that_nobody_knows_is_not_an_epmd_that_is_missing() -> None:
    with pytest.raises(HostNotFound):
        await client.look_up("no-such-host.invalid", 1, "one")
    with pytest.raises(HostNotFound):
        await client.names(EpmdAddress("no-such-host.invalid", 1))


def test_a_node_on_ipv6_registers_there() -> None:
    assert EpmdAddress.from_environment("::1").host == "::1"
    assert EpmdAddress.from_environment("host.example").host == "127.0.0.1"
    assert str(EpmdAddress("::1", 4369)) == "[::1]:4369"


async def test_what_is_logged_when_epmd_goes_and_comes_back(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """One line for each change, however many attempts there are between; they become rarer, and never stop."""
    wires = [Wire("one", "EPMD") for _ in range(2)]
    streams = [wire.end_of("one") for wire in wires]
    answers: list[EpmdError | None] = [
        *(EpmdUnavailable("nobody") for _ in range(20)),
        *(NameTaken("somebody else has it") for _ in range(20)),
        *(EpmdUnavailable("nobody") for _ in range(5)),
        NameTaken("somebody else has it"),
        None,
    ]
    times: list[float] = []

    async def again() -> client.Registration:
        times.append(trio.current_time())
        answer = answers.pop(0)
        if answer is not None:
            raise answer
        return client.Registration(1, streams[1])

    with caplog.at_level(logging.INFO, "erlang_interop.epmd"):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.stay_registered, client.Registration(1, streams[0]), again)
            await trio.sleep(100)
            assert times == [], "nothing is asked while the connection stands"
            wires[0].cut()
            await trio.sleep(1000)
            nursery.cancel_scope.cancel()
    assert not answers
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 4, lines
    assert lines[0].startswith("EPMD went away")
    assert lines[1] == lines[2]
    assert lines[1].endswith("not registered, and tries on: somebody else has it")
    assert lines[3] == "registered with EPMD again"
    waits = [after - before for before, after in itertools.pairwise(times)]
    assert waits[:5] == pytest.approx([0.4, 0.8, 1.6, 3.2, 5.0])
    assert max(waits) == pytest.approx(5.0)


async def test_a_name_is_free_as_soon_as_its_node_has_left(address: EpmdAddress) -> None:
    async def never() -> client.Registration:
        raise AssertionError("EPMD did not go away")

    for port in range(1, 21):
        registration = await client.register(address, "one", port, visible=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.stay_registered, registration, never)
            await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()


async def test_leaving_does_not_wait_for_an_epmd_that_is_stuck(mock_clock: trio.testing.MockClock) -> None:
    async def say_nothing_more(stream: Stream) -> None:
        try:
            await stream.receive_some()
            await stream.send_all(encode_alive2_reply(Alive2Reply(0, 4711)))
            await trio.sleep_forever()
        finally:
            stream.close()

    listener = await listen("127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listener.serve, say_nothing_more, nursery)
        address = EpmdAddress(port=listener.port)
        registration = await client.register(address, "one", 1, visible=False)
        mock_clock.autojump_threshold = 0  # all that comes on the socket has come
        with trio.move_on_after(0):
            await client.stay_registered(registration, lambda: client.register(address, "one", 1, visible=False))
        assert registration.stream.closed
        nursery.cancel_scope.cancel()
    listener.close()
