"""From names to addresses, without a BEAM; tests/interop/test_addresses.py dials genuine ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from erlang_interop.errors import BadAddress, BadName, ConnectTimeout, NodeUnreachable, NoSuchNode
from erlang_interop.runtime import EpmdAddress, EpmdServer, Node
from erlang_interop.runtime import epmd as client
from erlang_interop.runtime.addresses import Addresses, dist_port_of, parse_address, split_name
from erlang_interop.runtime.transport import Stream, listen
from erlang_interop.testing.ports import free_port
from erlang_interop.wire.epmd import Alive2Reply, encode_alive2_reply

if TYPE_CHECKING:
    from erlang_interop.runtime.addresses import AddressLike


@pytest.mark.parametrize(
    ("address", "parsed"),
    [
        ("127.0.0.1:4711", ("127.0.0.1", 4711)),
        ("host.example:1", ("host.example", 1)),
        ("[::1]:4711", ("::1", 4711)),
        (("::1", 65535), ("::1", 65535)),
        (("host", 1), ("host", 1)),
    ],
)
def test_addresses(address: AddressLike, parsed: tuple[str, int]) -> None:
    assert parse_address(address) == parsed


@pytest.mark.parametrize(
    "address",
    [
        "",
        "host",
        "host:",
        ":4711",
        "host:x",
        "::1:4711",
        "[::1]",
        "[]:1",
        "host:4711 ",
        "host:٣",
        ("", 1),
        ("host",),
        (1, "host"),
        4711,
    ],
)
def test_what_is_no_address(address: Any) -> None:
    with pytest.raises(BadAddress, match=r"is no address: write 'host:port', '\[::1\]:port' or \('host', port\)"):
        parse_address(address)


@pytest.mark.parametrize("address", ["host:0", "host:65536", ("host", 0), ("host", -1)])
def test_what_is_no_port(address: AddressLike) -> None:
    with pytest.raises(BadAddress, match="has no port: one is a number from 1 to 65535"):
        parse_address(address)


@pytest.mark.parametrize(
    ("value", "variable", "port"),
    [(None, "", None), (None, "0", None), (None, "4711", 4711), (0, "4711", None), (1, "4711", 1), (4712, "x", 4712)],
)
def test_the_port_that_all_nodes_share(
    monkeypatch: pytest.MonkeyPatch, value: int | None, variable: str, port: int | None
) -> None:
    monkeypatch.setenv("ERL_DIST_PORT", variable)
    assert dist_port_of(value) == port


@pytest.mark.parametrize(
    ("value", "variable", "message"),
    [
        (None, "x", "ERL_DIST_PORT is 'x'; it must be a port number"),
        (None, "65536", "ERL_DIST_PORT=65536 has no port"),
        (65536, "", "dist_port=65536 has no port"),
        (-1, "", "dist_port=-1 has no port"),
    ],
)
def test_a_shared_port_that_is_none(
    monkeypatch: pytest.MonkeyPatch, value: int | None, variable: str, message: str
) -> None:
    monkeypatch.setenv("ERL_DIST_PORT", variable)
    with pytest.raises(BadAddress, match=message):
        dist_port_of(value)


async def test_the_order_of_what_is_known(nursery: trio.Nursery) -> None:
    epmd = EpmdAddress(port=await nursery.start(EpmdServer().serve))
    one = await client.register(epmd, "one", 4711, visible=True)
    addresses = Addresses(epmd.port)
    assert await addresses.find("one@127.0.0.1") == ("127.0.0.1", 4711)
    assert addresses.fix("one@127.0.0.1", "10.0.0.1:1") is None
    assert await addresses.find("one@127.0.0.1") == ("10.0.0.1", 1)
    assert addresses.fix("one@127.0.0.1", None) == ("10.0.0.1", 1)
    assert addresses.fix("one@127.0.0.1", None) is None
    assert await addresses.find("one@127.0.0.1") == ("127.0.0.1", 4711)
    shared = Addresses(epmd.port, dist_port=4712, fixed={"two@127.0.0.1": ("10.0.0.2", 2)})
    assert await shared.find("one@127.0.0.1") == ("127.0.0.1", 4712)
    assert await shared.find("two@127.0.0.1") == ("10.0.0.2", 2)
    assert "was given for it" in shared.source("two@127.0.0.1")
    assert "port 4712 is the one that all nodes share" in shared.source("one@127.0.0.1")
    assert "EPMD on its host told that port" in addresses.source("one@127.0.0.1")
    one.stream.close()


async def test_without_epmd_an_address_is_needed() -> None:
    addresses = Addresses(None, fixed={"one@h": "10.0.0.1:1"})
    assert await addresses.find("one@h") == ("10.0.0.1", 1)
    with pytest.raises(NoSuchNode, match=r"this node asks no EPMD.* connect\('two@h', address='h:PORT'\)") as caught:
        await addresses.find("two@h")
    assert caught.value.peer == "two@h"


def test_names_and_addresses_are_checked_at_once() -> None:
    with pytest.raises(BadName):
        Addresses(None, fixed={"one": "10.0.0.1:1"})
    with pytest.raises(BadAddress):
        Addresses(None, fixed={"one@h": "10.0.0.1"})
    with pytest.raises(BadName):
        split_name("one@two@h")


async def test_pyrlang_17_the_epmd_of_the_peers_host_is_asked(nursery: trio.Nursery) -> None:
    """Pyrlang registers at, and looks up at, 127.0.0.1 whatever host the names tell.

    Two hosts, each with an EPMD of its own that knows a node ``there``: the one that is meant is the one found.
    """
    port = free_port()
    for host in ("127.0.0.1", "127.0.0.2"):
        await nursery.start(EpmdServer().serve, host, port)
    here = await client.register(EpmdAddress("127.0.0.1", port), "there", 1, visible=True)
    there = await client.register(EpmdAddress("127.0.0.2", port), "there", 2, visible=True)
    assert await Addresses(port).find("there@127.0.0.2") == ("127.0.0.2", 2)
    assert await Addresses(port).find("there@127.0.0.1") == ("127.0.0.1", 1)
    here.stream.close()
    there.stream.close()


# ------------------------------------------------------------------------------------------------------- nodes, dialled


def node(name: str, **options: Any) -> Node:
    return Node(name, "secret", **{"epmd_address": False, **options})


async def test_nodes_without_epmd_find_each_other_by_address() -> None:
    port = free_port()
    async with node("one@127.0.0.1", listen_port=port).running():
        two = node("two@127.0.0.1")
        async with two.running():
            with pytest.raises(NoSuchNode, match="asks no EPMD"):
                await two.connect("one@127.0.0.1")
            await two.connect("one@127.0.0.1", address=f"127.0.0.1:{port}")
            assert [row.address for row in two.connections] == [f"127.0.0.1:{port}"]
            await two.disconnect("one@127.0.0.1")
            await two.connect("one@127.0.0.1")  # it is known by now
        async with node("three@127.0.0.1", addresses={"one@127.0.0.1": ("127.0.0.1", port)}).running():
            pass


async def test_an_address_that_led_nowhere_is_forgotten() -> None:
    port, elsewhere = free_port(), free_port()
    async with node("one@127.0.0.1", listen_port=port).running():
        two = node("two@127.0.0.1", addresses={"one@127.0.0.1": f"127.0.0.1:{port}"})
        async with two.running():
            with pytest.raises(
                NodeUnreachable,
                match=rf"one@127\.0\.0\.1: no connection to 127\.0\.0\.1:{elsewhere}: Connection refused; "
                r"that address was given for it",
            ):
                await two.connect("one@127.0.0.1", address=("127.0.0.1", elsewhere))
            await two.connect("one@127.0.0.1")
            with pytest.raises(BadAddress):
                await two.connect("one@127.0.0.1", address="nowhere")


async def test_nodes_that_share_a_port() -> None:
    port, nowhere = free_port(), EpmdAddress(port=free_port())
    one = node("one@127.0.0.1", epmd_address=nowhere, dist_port=port)
    two = node("two@127.0.0.2", epmd_address=nowhere, dist_port=port)
    async with one.running(), two.running():
        await two.connect("one@127.0.0.1")
        await two.disconnect("one@127.0.0.1")
        await one.connect("two@127.0.0.2")
        with pytest.raises(NodeUnreachable, match=rf"Connection refused; port {port} is the one that all nodes share"):
            await one.connect("three@127.0.0.3")


async def test_what_listens_behind_a_wrong_address_is_told(mock_clock: trio.testing.MockClock) -> None:
    """Another service's port: it hangs up, or says something else, or nothing."""

    async def hang_up(stream: Stream) -> None:
        stream.close()

    async def http(stream: Stream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        stream.close()

    async def say_nothing(stream: Stream) -> None:
        try:
            await stream.receive_some()
            mock_clock.jump(1)
            await trio.sleep_forever()
        finally:
            stream.close()

    one = node("one@127.0.0.1", connect_timeout=0.5)
    async with one.running():
        for number, (service, error, message) in enumerate(
            [
                (hang_up, NodeUnreachable, "broke during the handshake: .*; that address was given for it"),
                (http, NodeUnreachable, "broke during the handshake: .*; that address was given for it"),
                (say_nothing, ConnectTimeout, r"within 0\.5 s: .*that address was given for it"),
            ]
        ):
            listener = await listen("127.0.0.1")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(listener.serve, service, nursery)
                with pytest.raises(error, match=message):
                    await one.connect(f"other{number}@127.0.0.1", address=("127.0.0.1", listener.port))
                nursery.cancel_scope.cancel()
            listener.close()


async def test_an_epmd_that_never_answers_is_named_within_the_time_for_connecting(
    mock_clock: trio.testing.MockClock,
) -> None:
    """It took the connection and answered the registration; then it got stuck."""

    async def answer_once(stream: Stream) -> None:
        try:
            request = await stream.receive_some()
            if request[2:3] == b"x":
                await stream.send_all(encode_alive2_reply(Alive2Reply(0, 4711)))
            else:
                mock_clock.jump(0.35)
            await trio.sleep_forever()
        finally:
            stream.close()

    listener = await listen("127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listener.serve, answer_once, nursery)
        one = node("one@127.0.0.1", epmd_address=EpmdAddress(port=listener.port), connect_timeout=0.4)
        async with one.running():
            with pytest.raises(ConnectTimeout, match=r"cannot look two@127\.0\.0\.1 up: EPMD .* answer within 0\.3 s"):
                await one.connect("two@127.0.0.1")
            mock_clock.autojump_threshold = 0  # leaving waits for it as well
        nursery.cancel_scope.cancel()
    listener.close()
