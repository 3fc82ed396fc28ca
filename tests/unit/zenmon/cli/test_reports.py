"""What ``monitor`` writes where there is no terminal."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from erlang_interop import Atom, Pid
from zenmon_node import Cached, CachedCompatibility
from zenmon_node.cli.reports import JsonReport, PlainReport, Report
from zenmon_node.cli.targets import Target
from zenmon_node.cli.watching import Via, Watching

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
A, B = "a@127.0.0.1", "b@127.0.0.1"
WORKER = Target("worker@a@127.0.0.1", A, "worker")
PID = Pid(Atom(B), 85, 0, 1)
OTHER = Target(str(PID), B, None)


async def told(capfd: pytest.CaptureFixture[str], make: Callable[[Watching], Report]) -> tuple[list[str], list[str]]:
    """Tell of one run. Returns the lines of standard output and of standard error."""
    watching = Watching(100.0)
    watching.add(A, Via.ZENMON, 1)
    watching.add(B, Via.NATIVE, 2)
    first, second = watching.rows.values()
    report = make(watching)
    report.monitoring()
    first.down(101.0)
    report.down(WORKER, first, (Atom("worker"), Atom(A)), (Atom("shutdown"), "ü"))
    await report.flush()
    verdict = CachedCompatibility(Cached.INCOMPATIBLE, 1)
    first.found(verdict)
    report.compatibility(first, verdict)
    second.lost()
    report.nodedown(second, "connection_closed")
    second.down(101.0)
    report.down(OTHER, second, PID, Atom("noconnection"))
    await report.show()
    await report.ended(102.5)
    out, err = capfd.readouterr()
    return out.splitlines(), err.splitlines()


async def test_plain(capfd: pytest.CaptureFixture[str]) -> None:
    out, err = await told(capfd, PlainReport)
    assert [TIME.sub("T", line) for line in out] == [
        'T DOWN worker@a@127.0.0.1 {shutdown,<<"ü"/utf8>>}',
        "T DOWN <b@127.0.0.1.85.0> noconnection",
    ]
    assert [TIME.sub("T", line) for line in err] == [
        "monitoring 1 processes of a@127.0.0.1 through ZenMonitor",
        "monitoring 2 processes of b@127.0.0.1 natively, since it does not speak ZenMonitor",
        "the interrupt key ends it",
        "T ZenMonitor of a@127.0.0.1 is incompatible",
        "T nodedown b@127.0.0.1 connection_closed",
        "2 of 3 gone after 2.5 s, 1 left",
    ]


async def test_json(capfd: pytest.CaptureFixture[str]) -> None:
    refreshed: list[int] = []
    out, err = await told(capfd, lambda watching: JsonReport(watching, lambda: refreshed.append(1)))
    assert err == []
    assert refreshed == [1]
    objects: list[dict[str, Any]] = [json.loads(line) for line in out]
    for each in objects:
        assert TIME.fullmatch(each.pop("time"))
    *events, summary = objects
    assert events == [
        {"event": "monitoring", "node": A, "via": "zenmon", "targets": 1},
        {"event": "monitoring", "node": B, "via": "native", "targets": 2},
        {
            "event": "DOWN",
            "target": "worker@a@127.0.0.1",
            "node": A,
            "via": "zenmon",
            "object": "{worker,'a@127.0.0.1'}",
            "reason": '{shutdown,<<"ü"/utf8>>}',
        },
        {"event": "compatibility", "node": A, "status": "incompatible", "attempts": 1},
        {"event": "nodedown", "node": B, "reason": "connection_closed"},
        {
            "event": "DOWN",
            "target": "<b@127.0.0.1.85.0>",
            "node": B,
            "via": "native",
            "object": "<b@127.0.0.1.85.0>",
            "reason": "noconnection",
        },
    ]
    assert (summary["event"], summary["targets"], summary["gone"], summary["seconds"]) == ("summary", 3, 2, 2.5)
    assert summary["nodes"] == {
        A: {"via": "zenmon", "state": "done", "targets": 1, "gone": 1, "batches_sent": 0, "batches_received": 0},
        B: {"via": "native", "state": "nodedown", "targets": 2, "gone": 1, "batches_sent": 0, "batches_received": 0},
    }
