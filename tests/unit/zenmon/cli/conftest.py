"""The program, and a second Python node that it talks to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from erlang_interop import EpmdAddress, Node, open_node
from erlang_interop.testing.ports import free_port
from tests.command import Command

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

COOKIE = "the cookie of these tests"


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment of the tests has under that prefix is no setting of the program."""
    for name in os.environ:
        if name.startswith("ZENMON_"):
            monkeypatch.delenv(name)


@pytest.fixture
def epmd_port() -> int:
    return free_port()


@pytest.fixture
def command(tmp_path: Path, epmd_port: int) -> Command:
    return Command(tmp_path, epmd_port, COOKIE)


@pytest.fixture
async def peer(epmd_port: int) -> AsyncIterator[Node]:
    """The node that the commands talk to; it brings the EPMD of these tests."""
    name = f"peer{os.getpid()}@127.0.0.1"
    async with open_node(name, cookie=COOKIE, epmd=EpmdAddress(port=epmd_port), embedded_epmd=True) as node:
        yield node
