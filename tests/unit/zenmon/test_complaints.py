"""Complaints: once for each sender's node and problem."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from erlang_interop.terms import Atom, BitString, ErlMap, ImproperList, Pid, Term
from zenmon_node.complaints import MOST_REMEMBERED, Complaints, shortened
from zenmon_node.counters import Counters

ONE = Pid(Atom("a@h"), 1, 0, 1)
SAME_NODE = Pid(Atom("a@h"), 2, 0, 1)
OTHER = Pid(Atom("b@h"), 1, 0, 1)


def test_once_for_each_node_and_problem() -> None:
    counters = Counters()
    complaints = Complaints("Proxy", counters)
    with capture_logs() as logs:
        complaints.add("nonsense", ONE, 1)
        complaints.add("nonsense", SAME_NODE, 2)
        complaints.add("nonsense", OTHER, 3)
        complaints.add("other", ONE, 4)
        complaints.add("nonsense", None, 5)
        complaints.add("nonsense", Atom("c@h"), 6)
        complaints.add("nonsense", OTHER.node, 7)
    assert [(log["sender"], log["problem"], log["message"]) for log in logs] == [
        ("<a@h.1.0>", "nonsense", "1"),
        ("<b@h.1.0>", "nonsense", "3"),
        ("<a@h.1.0>", "other", "4"),
        ("not said", "nonsense", "5"),
        ("c@h", "nonsense", "6"),
    ]
    assert counters.malformed == 7


def test_a_huge_message_is_shown_short() -> None:
    with capture_logs() as logs:
        Complaints("Proxy", Counters()).add("nonsense", ONE, (b"x" * 10_000_000, list(range(1_000_000))))
    assert len(logs[0]["message"]) < 300


@pytest.mark.parametrize(
    ("term", "shown"),
    [
        (7, "7"),
        (2**800_000, "<integer of 800001 bits>"),
        ({1: (Atom("a"), [2**9999])}, "{1: ('a', [<integer of 10000 bits>])}"),
        (dict.fromkeys(range(1_000_000)), "{0: None, 1: None, 2: None, 3: None, ...}"),
        (ImproperList(list(range(1_000_000)), Atom("x")), "[0, 1, 2, 3, 4, 5, ...] with the tail 'x'"),
        (ErlMap([(1, 1), (1.0, 2)]), "<ErlMap>"),
        (BitString(b"x" * 1_000_000 + b"\x80", 1), "<BitString>"),
        ((1.5, True, None, ONE), "(1.5, True, None, <a@h.1.0>)"),
        (object(), "<object>"),
    ],
    ids=["small", "integer", "map", "large_map", "improper", "erlmap", "bits", "others", "object"],
)
def test_what_is_shown_of_a_message(term: Term, shown: str) -> None:
    assert shortened(term) == shown.replace("'a'", repr(Atom("a"))).replace("'x'", repr(Atom("x"))).replace(
        "<a@h.1.0>", repr(ONE)
    )


def test_a_deep_message_is_shown_short() -> None:
    deep: Term = 1
    for _ in range(1_000_000):
        deep = [deep, {1: deep}] if isinstance(deep, int) else (deep,)
    assert len(shortened(deep)) < 100


def test_memory_is_bounded() -> None:
    counters = Counters()
    complaints = Complaints("Proxy", counters)
    with capture_logs() as logs:
        for number in range(MOST_REMEMBERED + 10):
            complaints.add(str(number), ONE, 0)
    assert len(logs) == MOST_REMEMBERED
    assert counters.malformed == MOST_REMEMBERED + 10
