"""Nodes of ours in clusters that break: no BEAM loses another one over it, and all agree when it is over.

These are the scenarios of ``make partitions``, which has more clusters and compares with a BEAM in our place
(docs/partitions.md). BEAMs of all OTPs asked for are in one cluster.
"""

from __future__ import annotations

import statistics
from random import Random
from typing import TYPE_CHECKING

import pytest

from erlang_interop.testing.beam import find_otp_roots
from tests.conftest import releases_asked_for
from tests.interop.partition_members import OURS, Mode
from tests.interop.partition_scenarios import SCENARIOS, play, time_names
from tests.interop.partitions import open_cluster

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

OF_THE_NEWCOMER = ("kill newcomer", "comings", "cut newcomer")
#: Of two newcomers, with what waits for net_ticktime.
SLOW = ("cut newcomers", "suspend newcomer", "silence newcomer")
#: Last what makes BEAMs lose each other.
OF_A_BEAM = ("kill beam", "cut beams")
#: Times that a name is registered without us, and with us.
REGISTRATIONS = 50


@pytest.fixture
def roots(request: pytest.FixtureRequest) -> list[Path]:
    """Three BEAMs: the oldest OTP asked for, the newest, and one between."""
    asked = sorted(releases_asked_for(request.config))
    found = find_otp_roots()
    chosen = [asked[0], asked[len(asked) // 2], asked[-1]]
    if missing := set(chosen) - found.keys():
        pytest.fail(f"not installed: run tools/get_otp.py {' '.join(map(str, missing))}", pytrace=False)
    return [found[release] for release in chosen]


async def survives(
    roots: Sequence[Path],
    mode: Mode,
    ebin: Path,
    cookie: str,
    scenarios: Sequence[str],
    *,
    newcomers: Sequence[str],
    net_ticktime: int = 60,
) -> None:
    async with open_cluster(roots, mode, ebin, cookie, newcomers=newcomers, net_ticktime=net_ticktime) as cluster:
        for name in scenarios:
            outcome = await play(cluster, SCENARIOS[name], Random(name))
            assert outcome.unexplained == [], f"{name} {outcome.victims}: a BEAM lost another one\n{cluster.logs()}"
            assert outcome.micros, name


@pytest.mark.parametrize("mode", OURS)
async def test_a_newcomer_fails(roots: list[Path], mode: Mode, fixtures_ebin: Path, cookie: str) -> None:
    await survives(roots, mode, fixtures_ebin, cookie, OF_THE_NEWCOMER, newcomers=["x"])


async def test_a_newcomer_hangs(roots: list[Path], fixtures_ebin: Path, cookie: str) -> None:
    """Two of ours beside two BEAMs; ``global`` asks ``x`` for its lock first, and ``a`` last."""
    await survives(roots[1:], "full", fixtures_ebin, cookie, SLOW, newcomers=["a", "x"], net_ticktime=8)


@pytest.mark.parametrize("mode", OURS)
async def test_a_beam_fails(roots: list[Path], mode: Mode, fixtures_ebin: Path, cookie: str) -> None:
    await survives(roots, mode, fixtures_ebin, cookie, OF_A_BEAM, newcomers=["a"])


@pytest.mark.parametrize("mode", OURS)
async def test_names_are_registered_as_fast(roots: list[Path], mode: Mode, fixtures_ebin: Path, cookie: str) -> None:
    async with open_cluster(roots[:2], mode, fixtures_ebin, cookie, relayed=False) as cluster:
        with_us = await time_names(cluster, REGISTRATIONS)
        await cluster.members["x"].leave()
        await cluster.agree(absent=["x"])
        without = await time_names(cluster, REGISTRATIONS)
    # docs/partitions.md has the figures: a member more costs a fraction of a millisecond. Machines under test stall.
    assert statistics.median(with_us) < 10 * statistics.median(without) + 50_000
