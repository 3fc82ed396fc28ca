"""What the demo shows: on a terminal and in a pipe."""

from __future__ import annotations

import io

from rich.console import Console

from zenmon_node.demo.view import View


def test_plain_lines() -> None:
    out = io.StringIO()
    view = View(Console(file=out))
    view.title("Title")
    view.heading("First")
    view.say("A term: [1,2] and :smile: " + "x" * 200)
    with view.counting(3000, "DOWNs") as counter:
        counter.batch(1000, 0.1)
        counter.batch(2000, 12.34)
    assert out.getvalue().splitlines() == [
        "Title",
        "",
        "1. First",
        "   A term: [1,2] and :smile: " + "x" * 200,
        "   after  0.10 s:  1,000 DOWNs, 1,000 of 3,000",
        "   after 12.34 s:  2,000 DOWNs, 3,000 of 3,000",
    ]


def test_live() -> None:
    out = io.StringIO()
    view = View(Console(file=out, force_terminal=True, width=80))
    with view.counting(3000, "DOWNs") as counter:
        counter.batch(1000, 0.1)
        half = out.getvalue()
        counter.batch(2000, 0.2)
    assert "1,000 of 3,000 DOWNs" in half
    assert "░" in half
    text = out.getvalue()
    assert "3,000 of 3,000 DOWNs" in text
    assert "\x1b[" in text
    assert max(len(line) for line in text.split("\n")[-2].split("\r")) < 200
