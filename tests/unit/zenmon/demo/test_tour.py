"""The tour without a BEAM: a second Python node takes its place."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

import pytest
from rich.console import Console

from erlang_interop.testing.ports import free_port
from zenmon_node.demo import run_demo, tour
from zenmon_node.demo.tour import DemoError
from zenmon_node.demo.view import View


@pytest.fixture(autouse=True)
def nothing_around(monkeypatch: pytest.MonkeyPatch) -> None:
    """No EPMD on the port, and no BEAM to be found."""
    monkeypatch.setenv("ERL_EPMD_PORT", str(free_port()))
    monkeypatch.setattr(tour, "find_erlang", lambda: None)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_the_tour_with_a_second_python_node() -> None:
    out = io.StringIO()
    await run_demo(View(Console(file=out)))
    text = out.getvalue()
    assert "since no BEAM was found" in text
    assert "Reasons: 10,000 times killed." in text
    assert re.search(r"DOWNs, 10,000 of 10,000$", text, re.MULTILINE)
    assert "10,001 subscriptions took 3 messages." in text
    assert re.search(r"had reported 10,000 deaths in \d+ messages?\.$", text, re.MULTILINE)
    assert "{'DOWN', Ref, process, {nobody,'py_" in text
    assert "500 times normal" in text
    assert "its reason is noconnection" in text
    assert "Reasons: 2,000 times nodedown." in text
    (pid,) = re.findall(r"process (\d+) of this machine", text)
    assert not is_running(int(pid))


def test_the_pace_is_that_behind_the_first_batch() -> None:
    assert tour._pace([1000, 1000, 500], [0.5, 0.6, 0.75]) == (
        "2,500 DOWNs in 3 batches, the last after 0.75 s; from the first one on 6,000 a second, "
        "with gaps of at most 0.15 s."
    )
    assert tour._pace([2000], [0.25]) == "2,000 DOWNs in 1 batch, the last after 0.25 s."


async def test_it_gives_up_in_time_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tour, "TIME_LIMIT", 1.5)
    monkeypatch.setattr(tour, "REMOTE_PROCESSES", 200_000)
    out = io.StringIO()
    with pytest.raises(DemoError, match="has not come to its end within"):
        await run_demo(View(Console(file=out)))
    for pid in re.findall(r"process (\d+) of this machine", out.getvalue()):
        assert not is_running(int(pid))


async def test_a_wrong_sight_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tour, "_reason", lambda message: "miracle")
    with pytest.raises(DemoError, match="miracle"):
        await run_demo(View(Console(file=io.StringIO())))


async def test_a_beam_that_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    erl = tmp_path / "bin" / "erl"
    erl.write_text("#!/bin/sh\necho no Erlang here\nexit 1\n")
    erl.chmod(0o755)
    with pytest.raises(Exception, match="no Erlang here"):
        await run_demo(View(Console(file=io.StringIO())), tmp_path)
