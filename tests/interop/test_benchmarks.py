"""ZenMonitor's workloads run, in small, and their checks pass: nothing is lost or doubled on a BEAM or on our node.

How fast either was is not looked at here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from benchmarks.contenders import CONTENDERS
from benchmarks.contest import run_rounds
from benchmarks.workloads import ZEN_ROWS

from erlang_interop.testing.beam import find_otp_roots
from tests.conftest import build, releases_asked_for

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.interop
@pytest.mark.timeout(300)
@pytest.mark.parametrize("group", ["zen_proxy", "zen_local"])
async def test_workloads_of_zenmonitor(pytestconfig: pytest.Config, fixtures_ebin: Path, group: str) -> None:
    root = find_otp_roots()[min(releases_asked_for(pytestconfig))]
    contenders = [CONTENDERS["beam"], CONTENDERS["pure" if build() == "pure" else "inline"]]
    results = await run_rounds(root, fixtures_ebin, contenders, 1, groups=[group], zen_monitors=6000)
    for contender in contenders:
        for row in ZEN_ROWS:
            figures = results.values(contender.key, row.workload, row.metric)
            assert len(figures) == (row.group == group), row
            assert all(figure > 0 for figure in figures), row
