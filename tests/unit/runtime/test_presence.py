"""How a node makes itself known; tests/interop/test_epmd.py and test_addresses.py have genuine EPMDs and nodes."""

from __future__ import annotations

import logging
import socket

import pytest
import trio
import trio.testing

from erlang_interop.errors import EpmdUnavailable, NameTaken
from erlang_interop.runtime import EpmdAddress, EpmdServer, Node
from erlang_interop.runtime import epmd as client
from erlang_interop.runtime.transport import listen
from erlang_interop.testing.ports import free_port
from erlang_interop.wire.epmd import NodeEntry


async def test_without_epmd_nobody_is_told() -> None:
    """Not even the EPMD of this machine, wherever that is: no connection is made at all."""
    epmd = await listen("127.0.0.1")
    asked: list[str] = []

    async def notice(stream: object) -> None:
        asked.append(repr(stream))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(epmd.serve, notice, nursery)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ERL_EPMD_PORT", str(epmd.port))
            creations = set()
            for _ in range(3):
                node = Node("one@127.0.0.1", "secret", epmd_address=False)
                async with node.running():
                    creations.add(node.creation)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    epmd.close()
    assert asked == []
    assert len(creations) == 3
    assert all(4 <= creation < 2**32 for creation in creations)


def test_no_epmd_and_an_embedded_one_contradict() -> None:
    with pytest.raises(ValueError, match="contradict each other"):
        Node("one@127.0.0.1", "secret", epmd_address=False, embedded_epmd=True)


async def test_where_all_nodes_share_a_port_epmd_is_used_and_not_needed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "erlang_interop.epmd")
    port, epmd = free_port(), EpmdAddress(port=free_port())
    node = Node("one@127.0.0.1", "secret", epmd_address=epmd, dist_port=port)
    async with node.running():
        assert node.creation >= 4
        assert "not registered with EPMD, which nobody needs" in caplog.text
    node = Node("one@127.0.0.1", "secret", epmd_address=epmd, dist_port=port, embedded_epmd=True)
    async with node.running():
        assert await client.names(epmd) == [NodeEntry("one", port)]
        with pytest.raises(NameTaken):
            async with Node("one@127.0.0.2", "secret", epmd_address=epmd).running():
                pytest.fail("the name is taken")
        again = Node("one@127.0.0.2", "secret", epmd_address=epmd, dist_port=port)  # OTP lets it go on as well
        async with again.running():
            assert again.creation != node.creation


async def test_an_explicit_port_goes_before_the_shared_one() -> None:
    port, shared = free_port(), free_port()
    node = Node("one@127.0.0.1", "secret", epmd_address=False, dist_port=shared, listen_port=port)
    async with node.running():
        socket.create_connection(("127.0.0.1", port)).close()
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", shared)).close()


async def test_an_embedded_epmd_serves_where_others_look_for_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """A BEAM elsewhere asks the EPMD of the host in the node's name: on loopback alone, nobody would find the node."""
    monkeypatch.delenv("ERL_EPMD_ADDRESS", raising=False)
    port = free_port()
    async with Node("one@127.0.0.2", "secret", epmd_address=EpmdAddress(port=port), embedded_epmd=True).running():
        for host in ("127.0.0.1", "127.0.0.2"):
            assert [entry.name for entry in await client.names(EpmdAddress(host, port))] == ["one"]
        with pytest.raises(EpmdUnavailable):
            await client.names(EpmdAddress("127.0.0.3", port))


async def test_an_embedded_epmd_listens_on_erl_epmd_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERL_EPMD_ADDRESS", "127.0.0.3")
    port = free_port()
    async with Node("one@127.0.0.2", "secret", epmd_address=EpmdAddress(port=port), embedded_epmd=True).running():
        for host in ("127.0.0.1", "127.0.0.3"):
            assert [entry.name for entry in await client.names(EpmdAddress(host, port))] == ["one"]
        with pytest.raises(EpmdUnavailable):
            await client.names(EpmdAddress("127.0.0.2", port))


async def test_a_node_is_registered_anew_where_its_own_epmd_was_killed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, nursery: trio.Nursery
) -> None:
    monkeypatch.setenv("ERL_EPMD_RELAXED_COMMAND_CHECK", "1")
    monkeypatch.setattr(client, "FIRST_RETRY", 0.01)
    epmd = EpmdAddress(port=free_port())
    async with Node("one@127.0.0.1", "secret", epmd_address=epmd, embedded_epmd=True).running():
        async with await trio.open_tcp_stream("127.0.0.1", epmd.port) as stream:
            await stream.send_all(b"\0\1k")
            assert await stream.receive_some() == b"OK"
            assert await stream.receive_some() == b""
        with trio.fail_after(30):
            while "EPMD: told to end" not in caplog.text:  # it listens no more
                await trio.lowlevel.checkpoint()
        await nursery.start(EpmdServer().serve, "127.0.0.1", epmd.port)
        with trio.fail_after(30):
            while not await client.names(epmd):
                await trio.lowlevel.checkpoint()
    assert "EPMD went away" in caplog.text
