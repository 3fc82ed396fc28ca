"""A node of ours beside the session's BEAM, in three kinds, and ZenMonitor on it."""

from __future__ import annotations

import itertools
import os
import secrets
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from erlang_interop import EpmdAddress, Node, open_node
from erlang_interop.testing.beam import Beam
from tests.command import Command
from tests.interop.hostile import Attacked, attacking
from tests.interop.syn_members import GENUINE, UNCONNECTED, Cluster, clustered
from tests.interop.zen_peer import FAST, Dial, dialling
from zenmon_node import Compatibility, ZenMonitor, open_zen_monitor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from erlang_interop import Process
    from erlang_interop.testing.beam import Epmd
    from tests.conftest import Otp

_numbers = itertools.count(1)


class NodeOpener(Protocol):
    """``open_node`` in the test cluster: cookie and EPMD are its own, the name is a new one unless it is given."""

    def __call__(self, name: str | None = None, **options: Any) -> AbstractAsyncContextManager[Node]: ...


@pytest.fixture
def opened(epmd: Epmd, cookie: str) -> NodeOpener:
    """Open nodes of ours beside the BEAMs of the session."""

    def opener(name: str | None = None, **options: Any) -> AbstractAsyncContextManager[Node]:
        name = name or f"py{os.getpid()}_{next(_numbers)}@127.0.0.1"
        return open_node(name, **{"cookie": cookie, "epmd": EpmdAddress(port=epmd.port), **options})

    return opener


@pytest.fixture
async def node(opened: NodeOpener) -> AsyncIterator[Node]:
    """A hidden node of ours."""
    async with opened() as node:
        yield node


@pytest.fixture(params=[False, "passive"], ids=["hidden", "visible"])
async def either_node(request: pytest.FixtureRequest, opened: NodeOpener) -> AsyncIterator[Node]:
    """A node of ours that is hidden, and one that is visible."""
    async with opened(visible=request.param) as node:
        yield node


@pytest.fixture
async def attacked(
    opened: NodeOpener, beam: Beam, epmd: Epmd, cookie: str, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[Attacked]:
    """A node that tests send wrong bytes; at the end the BEAM it is connected to must not have noticed."""
    async with attacking(opened, beam, epmd.port, cookie, caplog) as attacked:
        yield attacked


@pytest.fixture
def command(tmp_path: Path, epmd: Epmd, cookie: str) -> Command:
    """The program, in the test cluster."""
    return Command(tmp_path, epmd.port, cookie)


# -- ZenMonitor; some modules have a ``zen`` of their own: a visible one, or with other intervals


@pytest.fixture(autouse=True)
def patient_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Proxy on a slow machine may be late; tests of the limit itself set another one."""
    monkeypatch.setattr("zenmon_node.local.remote.PING_TIMEOUT", 60.0)


@pytest.fixture
async def zen(node: Node) -> AsyncIterator[ZenMonitor]:
    """ZenMonitor on a hidden node of ours, with short intervals."""
    async with open_zen_monitor(node, FAST) as zen:
        yield zen


@pytest.fixture
async def me(zen: ZenMonitor) -> AsyncIterator[Process]:
    """A process of ours that monitors."""
    async with zen.node.open_process() as me:
        yield me


@pytest.fixture
def dial(zen: ZenMonitor, epmd: Epmd, cookie: str) -> Dial:
    """Connect a socket to our node that plays another one with ZenMonitor."""
    return lambda **options: dialling(zen.node, epmd.port, cookie, **options)


@pytest.fixture
async def proxy(zen: ZenMonitor, beam: Beam) -> AsyncIterator[Beam]:
    """The session's BEAM, serving as a Proxy that our Local has found compatible."""
    await beam.eval("zen_proxy:start(zen_settings:fast())")
    assert await zen.connect(beam.name) is Compatibility.COMPATIBLE
    yield beam
    await beam.eval("zen_proxy:stop()")


# -- syn: two BEAMs for the whole session, which are connected to nobody by themselves


@pytest.fixture(scope="session")
def syn_beam(otp: Otp, epmd: Epmd, cookie: str, fixtures_ebin: Path) -> Iterator[Callable[[int], Beam]]:
    """The BEAMs of the tests of syn by number, from 0; each is started when it is asked for first."""
    started: list[Beam] = []

    def beam(number: int) -> Beam:
        while len(started) <= number:
            name = f"syn{otp.release}_{secrets.token_hex(3)}@127.0.0.1"
            genuine = GENUINE[len(started) % len(GENUINE)] if GENUINE else ""
            paths = [fixtures_ebin, *([Path(genuine)] if genuine else [])]
            started.append(Beam.start(otp.root, name, cookie, epmd.port, code_paths=paths, args=UNCONNECTED))
        return started[number]

    yield beam
    for one in started:
        one.close()


@pytest.fixture
def discover_interval() -> float:
    """How often our member looks for others again; by default it need not, while a test runs."""
    return 60.0


@pytest.fixture
async def cluster(
    request: pytest.FixtureRequest, opened: NodeOpener, syn_beam: Callable[[int], Beam], discover_interval: float
) -> AsyncIterator[Cluster]:
    """Three members of a new scope, connected: two BEAMs and, in the place and of the kind that the test says, ours."""
    async with clustered(request.param, opened, syn_beam, discover_interval) as cluster:
        yield cluster
