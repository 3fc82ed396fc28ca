"""Two nodes of ours in one program, each with ZenMonitor, over a real connection; logging left as it was."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from erlang_interop import EpmdAddress, Node, open_node
from erlang_interop.testing.ports import free_port
from zenmon_node import ZenMonitor, open_zen_monitor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@dataclass
class Pair:
    """``here`` is where tests monitor, ``there`` is where the monitored processes are."""

    here: Node
    there: Node
    zen: ZenMonitor
    there_zen: ZenMonitor


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """The program sets logging up for itself; the tests after these are not to be quieted by it."""
    root, library = logging.getLogger(), logging.getLogger("erlang_interop")
    before = root.handlers[:], root.level, library.level
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    library.setLevel(before[2])


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    epmd = EpmdAddress(port=free_port())
    async with (
        open_node("here@127.0.0.1", cookie="secret", epmd=epmd, embedded_epmd=True) as here,
        open_node("there@127.0.0.1", cookie="secret", epmd=epmd) as there,
        open_zen_monitor(here) as zen,
        open_zen_monitor(there) as there_zen,
    ):
        yield Pair(here, there, zen, there_zen)
