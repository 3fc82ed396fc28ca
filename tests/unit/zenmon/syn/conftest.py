"""What was logged, for tests of what is said of bad input."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs


@pytest.fixture
def logged() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Gives the warnings and errors since it was last asked."""
    with capture_logs() as lines:

        def take() -> list[dict[str, Any]]:
            taken = [dict(line) for line in lines if line["log_level"] in ("warning", "error")]
            lines.clear()
            return taken

        yield take
