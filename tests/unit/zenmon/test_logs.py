"""Logs: the two kinds of records leave as one kind of line."""

from __future__ import annotations

import io
import json
import logging

import pytest

from zenmon_node import logs


def test_both_kinds_as_text() -> None:
    stream = io.StringIO()
    logs.configure("info", stream=stream)
    logs.get_logger("zenmon_node").info("node up", node="beam@127.0.0.1")
    logging.getLogger("erlang_interop.node").warning("%s does not answer", "beam@127.0.0.1")
    first, second = stream.getvalue().splitlines()
    assert "node up" in first
    assert "node=beam@127.0.0.1" in first
    assert "[warning" in second
    assert "beam@127.0.0.1 does not answer" in second
    assert "erlang_interop.node" in second


def test_both_kinds_as_json() -> None:
    stream = io.StringIO()
    logs.configure("info", as_json=True, stream=stream)
    logs.get_logger("zenmon_node").info("node up", node="beam@127.0.0.1")
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("somebody").exception("it failed")
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (first["event"], first["node"], first["level"], first["logger"]) == (
        "node up",
        "beam@127.0.0.1",
        "info",
        "zenmon_node",
    )
    assert second["event"] == "it failed"
    assert "ValueError: broken" in second["exception"]


@pytest.mark.parametrize(
    ("level", "expected"), [("debug", ["own", "library"]), ("info", ["own"]), ("warning", []), ("error", [])]
)
def test_levels(level: logs.Level, expected: list[str]) -> None:
    stream = io.StringIO()
    logs.configure(level, as_json=True, stream=stream)
    logs.get_logger("zenmon_node").info("own")
    logging.getLogger("erlang_interop.node").info("library")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == expected
