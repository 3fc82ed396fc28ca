"""``zenmon-node epmd`` in this process; tests/interop/test_epmd_server.py runs it with genuine nodes."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
import trio

from erlang_interop import AddressInUse, EpmdAddress, EpmdError
from erlang_interop.runtime.epmd import names
from erlang_interop.testing.ports import free_port
from zenmon_node.cli import ExitStatus
from zenmon_node.cli.epmd import serve_epmd

if TYPE_CHECKING:
    from collections.abc import Sequence


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("ERL_EPMD_PORT", "ERL_EPMD_ADDRESS", "ERL_EPMD_RELAXED_COMMAND_CHECK"):
        monkeypatch.delenv(variable, raising=False)


async def until_it_answers(address: EpmdAddress) -> None:
    with trio.fail_after(30):
        while True:
            try:
                assert await names(address) == []
                return
            except EpmdError:
                await trio.lowlevel.checkpoint()


async def ask(port: int, body: bytes) -> bytes:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(len(body).to_bytes(2, "big") + body)
        return bytes(await stream.receive_some())


def run(
    nursery: trio.Nursery, port: int | None, addresses: Sequence[str] = (), *, relaxed: bool = False
) -> list[object]:
    outcome: list[object] = []

    async def body() -> None:
        outcome.append(await serve_epmd(port, addresses, relaxed=relaxed))

    nursery.start_soon(body)
    return outcome


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signals_end_it_as_done(number: signal.Signals) -> None:
    port = free_port()
    async with trio.open_nursery() as nursery:
        outcome = run(nursery, port)
        await until_it_answers(EpmdAddress(port=port))
        signal.raise_signal(number)
    assert outcome == [ExitStatus.DONE]


async def test_kill_ends_it_as_done(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("ERL_EPMD_PORT", str(port))
    async with trio.open_nursery() as nursery:
        outcome = run(nursery, None)
        await until_it_answers(EpmdAddress(port=port))
        assert await ask(port, b"sone") == b""
        assert await ask(port, b"k") == b"OK"
    assert outcome == [ExitStatus.DONE]


async def test_relaxed_and_on_more_addresses() -> None:
    port = free_port()
    async with trio.open_nursery() as nursery:
        outcome = run(nursery, port, ["127.0.0.2"], relaxed=True)
        await until_it_answers(EpmdAddress("127.0.0.2", port))
        await until_it_answers(EpmdAddress("127.0.0.1", port))
        assert await ask(port, b"sone") == b"NOEXISTSTOPPED"
        assert await ask(port, b"k") == b"OK"
    assert outcome == [ExitStatus.DONE]


async def test_where_one_is_there_already() -> None:
    port = free_port()
    async with trio.open_nursery() as nursery:
        run(nursery, port)
        await until_it_answers(EpmdAddress(port=port))
        with pytest.RaisesGroup(AddressInUse, flatten_subgroups=True):
            await serve_epmd(port, (), relaxed=False)
        nursery.cancel_scope.cancel()


async def test_an_address_that_is_none() -> None:
    with pytest.raises(EpmdError, match="'here'; it must be an IP address"):
        await serve_epmd(1, ["here"], relaxed=False)
