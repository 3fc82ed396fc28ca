"""EPMD: genuine nodes at ours, our node at the genuine one, and every way in which a node is not to be had."""

from __future__ import annotations

import os
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NoReturn

import pytest
import trio

from erlang_interop import (
    AddressInUse,
    Atom,
    ConnectRefused,
    ConnectTimeout,
    EpmdAddress,
    EpmdUnavailable,
    HostNotFound,
    NameTaken,
    NodeUnreachable,
    NoSuchNode,
    open_node,
)
from erlang_interop.runtime import epmd as client
from erlang_interop.testing.beam import Beam, BeamDiedError, Epmd
from erlang_interop.testing.ports import free_port
from tests.interop.collectors import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from erlang_interop import Node
    from tests.conftest import Otp
    from tests.interop.conftest import NodeOpener

#: Every test here takes the OTP's own EPMD, directly or by these; those that need no BEAM are quick.
COOKIE = "epmd test"


class NoNames(trio.abc.HostnameResolver):
    """Knows no host. A machine's own resolver may take long to say so, or know a page for every name there is not."""

    async def getaddrinfo(self, host: bytes | None, *_args: object, **_options: object) -> NoReturn:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def getnameinfo(self, *_args: object) -> NoReturn:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@asynccontextmanager
async def beam_at(root: Path, name: str, port: int) -> AsyncIterator[Beam]:
    """A BEAM at an EPMD that our own loop serves: nothing here may block."""
    beam = await Beam.start_async(root, name, COOKIE, port)
    try:
        yield beam
    finally:
        await trio.to_thread.run_sync(beam.close)


async def genuine_names(otp: Otp, port: int) -> list[str]:
    """The lines of ``epmd -names``."""
    environment = os.environ | {"ERL_EPMD_PORT": str(port)}
    done = await trio.run_process([otp.root / "bin" / "epmd", "-names"], capture_stdout=True, env=environment)
    return done.stdout.decode().splitlines()


async def registered(address: EpmdAddress) -> set[str]:
    return {entry.name for entry in await client.names(address)}


# --------------------------------------------------------------------------------------------------- an EPMD of our own


@pytest.mark.rule("EPMD: the embedded server serves genuine nodes and epmd -names")
async def test_genuine_nodes_at_our_epmd_find_each_other_and_us(otp: Otp) -> None:
    address = EpmdAddress(port=free_port())
    async with (
        open_node("py@127.0.0.1", cookie=COOKIE, epmd=address, embedded_epmd=True) as node,
        beam_at(otp.root, "one@127.0.0.1", address.port) as one,
        beam_at(otp.root, "two@127.0.0.1", address.port) as two,
    ):
        assert await one.eval("net_adm:ping('two@127.0.0.1')") == Atom("pong")
        assert await two.eval("net_adm:ping('py@127.0.0.1')") == Atom("pong")
        assert await node.ping("one@127.0.0.1")
        assert await one.eval("nodes()") == [Atom(two.name)]
        ports = {entry.name: entry.port for entry in await client.names(address)}
        assert set(ports) == {"py", "one", "two"}
        assert await one.eval("{ok, Names} = erl_epmd:names({127, 0, 0, 1}), lists:sort(Names)") == sorted(
            (list(name.encode()), port) for name, port in ports.items()
        )
        port_of_us = await one.eval('{port, Port, 6} = erl_epmd:port_please("py", {127, 0, 0, 1}), Port')
        assert port_of_us == ports["py"]
        head, *lines = await genuine_names(otp, address.port)
        assert head == f"epmd: up and running on port {address.port} with data:"
        assert set(lines) == {f"name {name} at port {port}" for name, port in ports.items()}
        with pytest.raises(BeamDiedError, match="in use by another Erlang node"):
            await Beam.start_async(otp.root, one.name, COOKIE, address.port)
        one.kill()

        async def one_is_forgotten() -> bool:
            return await registered(address) == {"py", "two"}

        await until(one_is_forgotten)
        async with beam_at(otp.root, "one@127.0.0.1", address.port) as again:
            assert await node.ping("one@127.0.0.1")
            assert await again.eval("erlang:system_info(creation)") != 0


async def test_where_an_epmd_serves_none_of_ours_is_started(otp: Otp, epmd: Epmd) -> None:
    address = EpmdAddress(port=epmd.port)
    async with open_node("modest@127.0.0.1", cookie=COOKIE, epmd=address, embedded_epmd=True):
        _, *lines = await genuine_names(otp, epmd.port)
        assert any(line.startswith("name modest at port ") for line in lines)


# ------------------------------------------------------------------------------------------------------ the genuine one


@pytest.mark.rule("EPMD: ALIVE2_REQ registers this node, hidden or visible")
@pytest.mark.parametrize("visible", [False, "passive"], ids=["hidden", "visible"])
async def test_we_are_registered_as_what_we_are(opened: NodeOpener, beam: Beam, visible: bool | str) -> None:
    async with opened(visible=visible) as node:
        source = "{ok, Names} = erl_epmd:names({127, 0, 0, 1}), proplists:get_value(Name, Names)"
        port = await beam.eval(source, Name=list(node.short_name.encode()))
        assert port == await client.look_up("127.0.0.1", beam.epmd_port, node.short_name)
        assert 4 <= node.creation < 1 << 32


@pytest.mark.rule("EPMD: ALIVE2_REQ registers this node, hidden or visible")
async def test_epmd_knows_a_hidden_node_from_a_visible_one(opened: NodeOpener, beam: Beam) -> None:
    """The types of the manual: 77 normal, 72 hidden. (A BEAM says 77 even when it is hidden.)"""
    async with opened() as hidden, opened(visible="passive") as visible:
        for name, node_type in ((beam.name, 77), (visible.name.name, 77), (hidden.name.name, 72)):
            short = name.partition("@")[0].encode()
            async with await trio.open_tcp_stream("127.0.0.1", beam.epmd_port) as stream:
                await stream.send_all((len(short) + 1).to_bytes(2, "big") + b"z" + short)
                answer = b""
                with trio.fail_after(PATIENCE):
                    while data := await stream.receive_some():
                        answer += data
            # PORT2_RESP: 119, result, port, type, protocol (0: TCP), highest version, lowest version, ...
            assert (answer[0], answer[1], answer[4], answer[5]) == (119, 0, node_type, 0)
            assert int.from_bytes(answer[6:8], "big") == 6


@pytest.mark.rule("EPMD: a name is free when its node ends")
async def test_a_name_is_free_as_soon_as_its_node_is_closed(
    opened: NodeOpener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "LEAVE_TIME", PATIENCE)  # EPMD may stand still for longer on a machine under test
    creations = set()
    for _ in range(20):
        async with opened("again@127.0.0.1") as node:
            creations.add(node.creation)
    assert len(creations) == 20


@pytest.mark.rule("EPMD: this node registers again when EPMD is back")
async def test_we_are_registered_again_when_epmd_is_back(otp: Otp) -> None:
    port = free_port()
    first = await trio.to_thread.run_sync(lambda: Epmd.start(otp.root, port=port))
    try:
        async with open_node("py@127.0.0.1", cookie=COOKIE, epmd=EpmdAddress(port=port)) as node:
            creation = node.creation
            async with beam_at(otp.root, "one@127.0.0.1", port) as one:
                await node.connect(one.name)
                first.close()
                with pytest.raises(EpmdUnavailable):
                    await client.names(EpmdAddress(port=port))
                with Epmd.start(otp.root, port=port):

                    async def both_are_back() -> bool:
                        return "py" in await registered(EpmdAddress(port=port))

                    await until(both_are_back)
                    assert [row.state for row in node.connections] == ["up"], "EPMD is no part of a connection"
                    assert node.creation == creation
                    async with beam_at(otp.root, "two@127.0.0.1", port) as two:
                        assert await two.eval("net_adm:ping('py@127.0.0.1')") == Atom("pong")
    finally:
        first.close()


# ------------------------------------------------------------------------------------------------ what cannot be opened


@pytest.mark.rule("EPMD: a name that is taken is refused")
async def test_a_name_that_is_taken(opened: NodeOpener, beam: Beam) -> None:
    short = beam.name.partition("@")[0]
    with pytest.raises(NameTaken, match=f"refuses the name '{short}': .*choose another name, or stop that node"):
        async with opened(beam.name):
            pytest.fail("it was let in")
    async with opened() as node:
        with pytest.raises(NameTaken):
            async with opened(node.name.name):
                pytest.fail("it was let in")
        assert await beam.eval("net_adm:ping(N)", N=node.name) == Atom("pong")


async def test_no_epmd(opened: NodeOpener) -> None:
    port = free_port()
    with pytest.raises(EpmdUnavailable, match=rf"no EPMD answers on 127\.0\.0\.1:{port}: start one"):
        async with opened(epmd=EpmdAddress(port=port)):
            pytest.fail("there is none")


async def test_a_host_that_does_not_resolve(opened: NodeOpener) -> None:
    trio.socket.set_custom_hostname_resolver(NoNames())
    with pytest.raises(HostNotFound, match=r"'no-such-host\.invalid' does not resolve"):
        async with opened("py@no-such-host.invalid"):
            pytest.fail("it was found")


async def test_a_port_that_is_taken(opened: NodeOpener, epmd: Epmd) -> None:
    async with opened() as node:
        port = await client.look_up("127.0.0.1", epmd.port, node.short_name)
        with pytest.raises(AddressInUse, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            async with opened(listen_port=port):
                pytest.fail("it listens")


# ------------------------------------------------------------------------------------------------ who cannot be reached


@pytest.mark.rule("EPMD: PORT_PLEASE2_REQ for an unknown node is an error that says so")
async def test_a_node_that_epmd_does_not_know(node: Node) -> None:
    with pytest.raises(NoSuchNode, match="knows no node 'nobody': is it running, and is its name spelt so") as caught:
        await node.connect("nobody@127.0.0.1")
    assert caught.value.peer == "nobody@127.0.0.1"
    assert not await node.ping("nobody@127.0.0.1")
    assert node.connections == []


async def test_a_host_without_an_epmd(node: Node) -> None:
    with pytest.raises(NoSuchNode, match=r"cannot look there@127\.0\.0\.2 up: no EPMD answers on 127\.0\.0\.2:\d+"):
        await node.connect("there@127.0.0.2")


async def test_a_host_that_nobody_knows(node: Node) -> None:
    trio.socket.set_custom_hostname_resolver(NoNames())
    with pytest.raises(HostNotFound, match=r"'no-such-host\.invalid' does not resolve"):
        await node.connect("there@no-such-host.invalid")


async def test_a_node_that_is_registered_and_does_not_listen(node: Node, epmd: Epmd) -> None:
    ghost = await client.register(EpmdAddress(port=epmd.port), "ghost", free_port(), visible=False)
    with pytest.raises(NodeUnreachable, match="Connection refused"):
        await node.connect("ghost@127.0.0.1")
    ghost.stream.close()


async def test_a_node_that_listens_and_says_nothing(opened: NodeOpener, epmd: Epmd) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    mute = await client.register(EpmdAddress(port=epmd.port), "mute", port, visible=False)
    async with listener, opened(connect_timeout=3.0) as node:
        with pytest.raises(ConnectTimeout, match=r"mute@127\.0\.0\.1 .*did not finish the handshake within 3 s"):
            await node.connect("mute@127.0.0.1")
        assert node.connections == []
    mute.stream.close()


@pytest.mark.rule("Handshake: the name in the challenge must be the one dialled")
async def test_an_address_where_another_node_listens(node: Node, beam: Beam) -> None:
    """A stale entry of EPMD: the port is somebody else's by now, and that one says who it is."""
    address = EpmdAddress(port=beam.epmd_port)
    port = await client.look_up("127.0.0.1", beam.epmd_port, beam.name.partition("@")[0])
    stale = await client.register(address, "moved", port, visible=False)
    with pytest.raises(
        ConnectRefused, match=rf"the node at this address calls itself '{beam.name}': dial it by exactly"
    ):
        await node.connect("moved@127.0.0.1")
    stale.stream.close()
