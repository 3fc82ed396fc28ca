"""All workloads run, in small, and their checks pass: nothing is lost or doubled on a BEAM or on our node.

How fast either was is not looked at here. The programs with other libraries take no part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from benchmarks.contenders import CONTENDERS
from benchmarks.contest import run_rounds
from benchmarks.workloads import ALL_ROWS, GROUPS

from erlang_interop.testing.beam import find_otp_roots
from tests.conftest import build, releases_asked_for

if TYPE_CHECKING:
    from pathlib import Path

OWN_GROUPS = ["zen_proxy", "zen_local", "syn_registry", "syn_pg"]


@pytest.mark.interop
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "groups",
    [[group for group in GROUPS if group not in OWN_GROUPS], *([group] for group in OWN_GROUPS)],
    ids=["node", *OWN_GROUPS],
)
async def test_workloads(pytestconfig: pytest.Config, fixtures_ebin: Path, groups: list[str]) -> None:
    root = find_otp_roots()[min(releases_asked_for(pytestconfig))]
    contenders = [CONTENDERS["beam"], CONTENDERS["pure" if build() == "pure" else "inline"]]
    results = await run_rounds(
        root,
        fixtures_ebin,
        contenders,
        1,
        groups=groups,
        seconds=0.02,
        monitors=2000,
        zen_monitors=6000,
        syn_entries=1000,
    )
    for contender in contenders:
        for row in ALL_ROWS:
            figures = results.values(contender.key, row.workload, row.metric)
            assert len(figures) == (row.group in groups), row
            # How much more memory so few things need may be less than what else is given back meanwhile.
            assert row.metric == "bytes_each" or all(figure > 0 for figure in figures), row
