"""Names given to nodes that have none, and nodes of ours that ask for one."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from erlang_interop.errors import (
    ConnectError,
    ConnectRefused,
    ConnectTimeout,
    HandshakeError,
    NotAllowed,
)
from erlang_interop.flags import DFlag
from erlang_interop.runtime import EpmdAddress, Node, NodeEvent, NodeUp, dynamic_names
from erlang_interop.runtime.dynamic_names import DynamicNames
from erlang_interop.terms import Atom
from tests.handshaking import (
    RawListener,
    listening,
)
from tests.unit.runtime.calls import COOKIE, GREATER, ME, Calls, running, states, until


def nobody(_name: Atom) -> bool:
    return False


def test_a_name_is_as_net_kernel_makes_them() -> None:
    names = DynamicNames()
    taken = {names.take("h", nobody) for _ in range(100)}
    assert len({name for name, _ in taken}) == 100
    for name, creation in taken:
        assert re.fullmatch(r"[0-9A-Z]{1,13}@h", name.name)
        assert 4 <= creation < 1 << 32


def test_numbers_are_written_as_integer_to_list_does() -> None:
    shown = [(1, "1"), (35, "Z"), (36, "10"), (46655, "ZZZ"), (1 << 64, "3W5E11264SGSG")]
    assert [(number, dynamic_names._base_36(number)) for number, _ in shown] == shown


def test_a_name_is_given_again_with_the_next_creation() -> None:
    names = DynamicNames()
    first, creation = names.take("h", nobody)
    other, _ = names.take("h", nobody)
    names.give_back(first, creation)
    assert names.take("elsewhere", nobody)[0].name.endswith("@elsewhere")
    assert names.take("h", nobody) == (first, creation + 1 if creation < 0xFFFFFFFF else 4)
    assert names.take("h", nobody)[0] not in (first, other)


def test_a_name_that_is_taken_is_given_to_nobody() -> None:
    names = DynamicNames()
    names.give_back(Atom("A@h"), 7)
    names.give_back(Atom("B@h"), 8)
    assert names.take("h", lambda name: name == Atom("B@h")) == (Atom("A@h"), 8)
    assert names.take("h", nobody)[0] not in (Atom("A@h"), Atom("B@h"))


@pytest.mark.parametrize(("creation", "following"), [(4, 5), (0xFFFFFFFE, 0xFFFFFFFF), (0xFFFFFFFF, 4)])
def test_creations_wrap_past_the_small_ones(creation: int, following: int) -> None:
    names = DynamicNames()
    names.give_back(Atom("A@h"), creation)
    assert names.take("h", nobody) == (Atom("A@h"), following)


# ------------------------------------------------------------------------------------------------------ dynamic names


UNDEFINED = "undefined@127.0.0.1"


async def test_one_node_gives_another_its_name(epmd: EpmdAddress) -> None:
    async with running(epmd, visible=True) as node, node.open_process("echo") as echo:
        async with running(epmd, UNDEFINED, name_from=ME.name) as named, named.open_process("me") as me:
            assert named.name.name.endswith("@127.0.0.1")
            assert named.short_name not in ("undefined", "")
            assert (named.name.name, "up") in states(node)
            assert node.nodes("hidden") == [named.name]
            assert named.nodes("hidden") == [ME], "whoever gives a name is hidden to the node that has it"
            assert me.pid.node == named.name
            assert me.pid.creation == named.creation == node.connections[0].creation
            me.send(("echo", ME), me.pid)
            assert await echo.receive(timeout=30) == me.pid
            echo.send(me.pid, "back")
            assert await me.receive(timeout=30) == b"back"
            echo.send(("me", named.name), "by name")
            assert await me.receive(timeout=30) == b"by name"
            first, creation = named.name, named.creation
        await until(lambda: node.connections == [])
        async with (
            running(epmd, UNDEFINED, name_from=ME.name) as again,
            running(epmd, UNDEFINED, name_from=ME.name) as other,
        ):
            assert (again.name, again.creation) == (first, creation + 1)
            assert other.name != again.name
            assert len(node.connections) == 2


async def test_a_node_that_was_named_keeps_its_name(epmd: EpmdAddress) -> None:
    async with (
        running(epmd) as node,
        running(epmd, GREATER.name) as greater,
        running(epmd, UNDEFINED, name_from=ME.name) as named,
    ):
        name = named.name
        await named.connect(GREATER)
        assert greater.nodes("hidden") == [name]
        await named.disconnect(ME)
        assert named.name == name
        assert named.is_connected(GREATER)
        await named.connect(ME)
        assert node.nodes("hidden") == [name]


async def test_a_name_that_another_node_has_by_now_is_not_taken_from_it(
    epmd: EpmdAddress, nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    async with (
        running(epmd) as node,
        running(epmd, UNDEFINED, name_from=ME.name, connect_timeout=0.5) as first,
    ):
        await first.disconnect(ME)
        await until(lambda: node.connections == [])
        async with running(epmd, UNDEFINED, name_from=ME.name) as second:
            assert second.name == first.name
            calls = Calls(first, nursery)
            calls.add(ME)
            await until(lambda: ("received", "alive") in first.handshakes)
            mock_clock.jump(1)
            (outcome,) = await calls.take()
            assert isinstance(outcome, ConnectTimeout)
            assert "may have been given to another" in str(outcome)
            assert second.is_connected(ME)
            await until(lambda: states(node) == [(second.name.name, "up")])
        await until(lambda: node.connections == [])
        await first.connect(ME)


async def test_names_nobody_gives(epmd: EpmdAddress) -> None:
    async def opened(**options: object) -> None:
        async with running(epmd, UNDEFINED, **options):  # type: ignore[arg-type]
            pytest.fail("it has no name")

    async with running(epmd, allow=["friend@127.0.0.1"]) as node:
        with pytest.raises(ConnectRefused, match="does not let us in") as caught:
            await opened(name_from=ME.name)
        assert isinstance(caught.value.__cause__, NotAllowed)
        node.allow(["127.0.0.1"])
        with pytest.raises(ConnectRefused, match="cookie"):
            await opened(name_from=ME.name, cookie="wrong")
        await until(lambda: node.connections == [])
    with pytest.raises(ConnectError, match="knows no node"):
        await opened(name_from=ME.name)


@asynccontextmanager
async def asked(epmd: EpmdAddress) -> AsyncIterator[tuple[RawListener, list[BaseException]]]:
    """A node that asks a peer made by hand for a name, and how that ended."""
    outcome: list[BaseException] = []

    async def ask() -> None:
        try:
            async with running(epmd, UNDEFINED, name_from=GREATER.name):
                pytest.fail("it has no name")
        except ConnectError as error:
            outcome.append(error)

    async with listening(epmd, GREATER.name) as there, trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        yield there, outcome


async def test_what_asks_for_a_name_says_its_host(epmd: EpmdAddress) -> None:
    async with asked(epmd) as (there, outcome):
        raw = await there.accept()
        message = await raw.receive()
        assert message is not None
        flags = DFlag(int.from_bytes(message[1:9], "big"))
        assert flags & DFlag.NAME_ME
        assert not flags & DFlag.PUBLISHED
        assert message[9:] == b"\0\0\0\0" + b"\0\x09127.0.0.1"
        await raw.send(b"sok")
        await until(lambda: bool(outcome))
    assert "answers 'ok'" in str(outcome[0])


async def test_a_node_that_hangs_up_on_the_request_for_a_name(epmd: EpmdAddress) -> None:
    async with asked(epmd) as (there, outcome):
        raw = await there.accept_name()
        await raw.close()
        await until(lambda: bool(outcome))
    assert "OTP 23 and later give names" in str(outcome[0])
    assert isinstance(outcome[0].__cause__, HandshakeError)


async def test_a_node_that_never_gives_a_name(epmd: EpmdAddress, mock_clock: trio.testing.MockClock) -> None:
    async with asked(epmd) as (there, outcome):
        await there.accept_name()
        mock_clock.jump(10)
        await until(lambda: bool(outcome))
    assert isinstance(outcome[0], ConnectTimeout)


async def test_ordinary_nodes_never_ask_for_a_name(epmd: EpmdAddress, nursery: trio.Nursery) -> None:
    async with running(epmd) as node, listening(epmd, GREATER.name) as there:
        Calls(node, nursery).add(GREATER)
        raw = await there.accept()
        message = await raw.receive()
        assert message is not None
        assert not int.from_bytes(message[1:9], "big") & DFlag.NAME_ME


def test_a_name_is_asked_for_with_name_from_and_undefined_together() -> None:
    with pytest.raises(ValueError, match="name_from='beam@host'"):
        Node(UNDEFINED, COOKIE)
    with pytest.raises(ValueError, match="is for a node without a name"):
        Node(ME.name, COOKIE, name_from=GREATER.name)
    with pytest.raises(ValueError, match="always a hidden one"):
        Node(UNDEFINED, COOKIE, name_from=GREATER.name, visible=True)
    with pytest.raises(ValueError, match="no node name"):
        Node(UNDEFINED, COOKIE, name_from="beam")


async def test_who_gave_the_name_finds_the_servers_of_the_node(epmd: EpmdAddress) -> None:
    """It may send at once, before the block of ``async with`` has begun: nothing of that is lost."""
    async with running(epmd) as node:
        events: list[NodeEvent] = []

        def greet(event: NodeEvent) -> None:
            events.append(event)
            if isinstance(event, NodeUp):
                node.send(("early", event.name), "hello")

        node.watch_nodes(greet)
        async with running(epmd, UNDEFINED, name_from=ME.name) as named, named.open_process("early") as early:
            assert await early.receive(timeout=30) == b"hello"
