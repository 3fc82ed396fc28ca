"""Complaints: once for each sender's node and problem."""

from __future__ import annotations

from structlog.testing import capture_logs

from erlang_interop.terms import Atom, Pid
from zenmon_node.complaints import MOST_REMEMBERED, Complaints

ONE = Pid(Atom("a@h"), 1, 0, 1)
SAME_NODE = Pid(Atom("a@h"), 2, 0, 1)
OTHER = Pid(Atom("b@h"), 1, 0, 1)


def test_once_for_each_node_and_problem() -> None:
    complaints = Complaints("Proxy")
    with capture_logs() as logs:
        complaints.add("nonsense", ONE, 1)
        complaints.add("nonsense", SAME_NODE, 2)
        complaints.add("nonsense", OTHER, 3)
        complaints.add("other", ONE, 4)
        complaints.add("nonsense", None, 5)
    assert [(log["sender"], log["problem"], log["message"]) for log in logs] == [
        ("<a@h.1.0>", "nonsense", "1"),
        ("<b@h.1.0>", "nonsense", "3"),
        ("<a@h.1.0>", "other", "4"),
        ("not said", "nonsense", "5"),
    ]
    assert complaints.ignored == 5


def test_a_huge_message_is_shown_short() -> None:
    with capture_logs() as logs:
        Complaints("Proxy").add("nonsense", ONE, (b"x" * 10_000_000, list(range(1_000_000))))
    assert len(logs[0]["message"]) < 300


def test_memory_is_bounded() -> None:
    complaints = Complaints("Proxy")
    with capture_logs() as logs:
        for number in range(MOST_REMEMBERED + 10):
            complaints.add(str(number), ONE, 0)
    assert len(logs) == MOST_REMEMBERED
    assert complaints.ignored == MOST_REMEMBERED + 10
