"""Programs from Debian's packages on loopback: a RabbitMQ that runs, and tools that are aimed at a node of ours.

They are fetched by ``tools/get_otp.py --realworld``, which ``make test`` runs before; whoever runs these tests alone
waits for that in the first of them.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from erlang_interop import EpmdAddress, open_node
from erlang_interop.testing.beam import Epmd, find_otp_roots
from tests.conftest import PROJECT
from tests.realworld.rabbit import Broker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from erlang_interop import Node

#: The OTP that these packages were made for.
RELEASE = 25

_numbers = itertools.count(1)


def fetched(what: str) -> str:
    """Run ``tools/get_otp.py``, which does nothing for what is there already; what it prints."""
    program = [sys.executable, str(PROJECT / "tools" / "get_otp.py"), what]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="session")
def packages() -> Path:
    """The folder that the packages were unpacked into."""
    return Path(fetched("--realworld"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The OTP that they run on."""
    fetched(str(RELEASE))
    return find_otp_roots()[RELEASE]


@pytest.fixture(scope="session")
def epmd(root: Path) -> Iterator[Epmd]:
    """An EPMD for all that runs here."""
    with Epmd.start(root) as epmd:
        yield epmd


@pytest.fixture
async def node(epmd: Epmd, cookie: str) -> AsyncIterator[Node]:
    """A hidden node of ours."""
    name = f"py{os.getpid()}_real{next(_numbers)}@127.0.0.1"
    async with open_node(name, cookie=cookie, epmd=EpmdAddress(port=epmd.port)) as node:
        yield node


@pytest.fixture
def broker(packages: Path, root: Path, epmd: Epmd, cookie: str) -> Iterator[Broker]:
    """A RabbitMQ that runs."""
    with Broker(packages, root, epmd.port, cookie) as broker:
        broker.wait_started()
        yield broker
