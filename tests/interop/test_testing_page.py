"""The tests that docs/testing.md shows are tests that pass."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.conftest import PROJECT, Otp

BLOCKS = re.findall(r"^```python\n(.*?)^```", (PROJECT / "docs" / "testing.md").read_text(), re.MULTILINE | re.DOTALL)


def shown() -> dict[str, Callable[[], Awaitable[None]]]:
    """The test functions of the page; its blocks build on each other."""
    scope: dict[str, Any] = {}
    for block in BLOCKS:
        exec(compile(block, "docs/testing.md", "exec"), scope)
    return {name: value for name, value in scope.items() if name.startswith("test_")}


@pytest.mark.parametrize("name", [name for name in shown() if "beam" not in name])
async def test_a_test_of_the_page_passes(name: str) -> None:
    await shown()[name]()


async def test_the_test_with_a_beam_passes(otp: Otp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{otp.root / 'bin'}:/usr/bin:/bin")
    await shown()["test_a_beam_counts_on_us"]()
