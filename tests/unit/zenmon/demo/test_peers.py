"""Starting and ending the demo's second Python node."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from erlang_interop import Atom, EpmdAddress
from zenmon_node.demo.peers import SERVER, PeerError, open_peer

if TYPE_CHECKING:
    from erlang_interop import Node

NAME = f"second{os.getpid()}@127.0.0.1"


@pytest.fixture(autouse=True)
def epmd_of_these_tests(monkeypatch: pytest.MonkeyPatch, epmd_address: EpmdAddress) -> None:
    monkeypatch.setenv("ERL_EPMD_PORT", str(epmd_address.port))


async def test_it_answers_and_dies(one_node: Node) -> None:
    async with one_node.monitor_nodes() as events, open_peer(None, NAME, "secret") as peer:
        assert await one_node.call((SERVER, NAME), (Atom("start_workers"), 3)) != []
        assert (await anext(events)).name == Atom(NAME)
        os.kill(peer.pid, 0)
        peer.kill()
        assert (await anext(events)).name == Atom(NAME)
    with pytest.raises(ProcessLookupError):
        os.kill(peer.pid, 0)


async def test_it_is_killed_when_the_block_fails(one_node: Node) -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_peer(None, NAME, "secret") as peer:
            raise ZeroDivisionError
    with pytest.raises(ProcessLookupError):
        os.kill(peer.pid, 0)


async def test_it_does_not_start(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(PeerError, match="did not start"):
        async with open_peer(None, NAME, "secret"):  # there is no EPMD
            pass
    assert "EpmdUnavailable" in capfd.readouterr().err


async def test_it_ends_with_whoever_started_it(one_node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess.Popen, "kill", lambda process: process.stdin.close())
    async with open_peer(None, NAME, "secret") as peer:
        pass
    with pytest.raises(ProcessLookupError):
        os.kill(peer.pid, 0)
