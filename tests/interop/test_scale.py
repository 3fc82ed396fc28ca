"""The measurements at scale, small: that every monitor fires exactly once in them, and nothing stays behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from benchmarks.scale import PARTS, run_part

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Otp


@pytest.mark.parametrize("part", PARTS)
async def test_everything_fires_exactly_once(part: str, otp: Otp, fixtures_ebin: Path) -> None:
    outcome = await run_part(part, otp.root, fixtures_ebin, monitors=6000, nodes=2, kills=1000)
    assert outcome.found["checked"].startswith("every monitor fired exactly once")
