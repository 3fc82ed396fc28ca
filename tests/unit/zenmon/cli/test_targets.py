"""How processes, nodes and terms are written."""

from __future__ import annotations

import pytest

from erlang_interop import Atom, Pid
from zenmon_node.cli import UsageError
from zenmon_node.cli.targets import Target, parse_argument, parse_node, parse_target


@pytest.mark.parametrize(
    ("text", "node", "name"),
    [
        ("worker@beam@127.0.0.1", "beam@127.0.0.1", "worker"),
        ("Elixir.MyApp.Worker@a@host.example.org", "a@host.example.org", "Elixir.MyApp.Worker"),
        ("user@home@beam@host", "beam@host", "user@home"),
        ("<beam@127.0.0.1.85.0>", "beam@127.0.0.1", None),
    ],
)
def test_targets(text: str, node: str, name: str | None) -> None:
    assert parse_target(text) == Target(text, node, name)


@pytest.mark.parametrize(
    "text", ["", "worker", "beam@127.0.0.1", "@beam@host", "worker@@host", "<0.85.0>", "<x", "{worker, beam}", "a@b@"]
)
def test_what_is_no_target(text: str) -> None:
    with pytest.raises(UsageError):
        parse_target(text)


@pytest.mark.parametrize("text", ["", "beam", "@host", "beam@", "a@b@c"])
def test_what_is_no_node(text: str) -> None:
    with pytest.raises(UsageError, match="no node name"):
        parse_node(text)


def test_terms() -> None:
    assert parse_argument('{hello, [1, 2], <<"x">>}') == (Atom("hello"), [1, 2], b"x")
    assert parse_argument("<beam@127.0.0.1.85.0>") == Pid(Atom("beam@127.0.0.1"), 85, 0, 0)
    with pytest.raises(UsageError, match="column"):
        parse_argument("{hello")
