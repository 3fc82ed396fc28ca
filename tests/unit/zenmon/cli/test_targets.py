"""How processes, nodes and terms are written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from erlang_interop import Atom, Pid
from zenmon_node.cli import UsageError
from zenmon_node.cli.targets import Target, parse_argument, parse_node, parse_target, read_targets

if TYPE_CHECKING:
    from pathlib import Path


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
    "text",
    [
        "",
        "worker",
        "beam@127.0.0.1",
        "@beam@host",
        "worker@@host",
        "<0.85.0>",
        "<x",
        "{worker, beam}",
        "a@b@",
        "x" * 256 + "@a@h",
    ],
)
def test_what_is_no_target(text: str) -> None:
    with pytest.raises(UsageError):
        parse_target(text)


def test_targets_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "targets"
    path.write_bytes("\ufeffworker@beam@h\r\n\n  # <none@h.1.0>\n\t<beam@h.85.0>  \nvägen@beam@h".encode())
    assert read_targets(path) == [parse_target(text) for text in ("worker@beam@h", "<beam@h.85.0>", "vägen@beam@h")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a@b@h\n# c\n\nworker\n", "targets, line 4: 'worker' names no process"),
        (b"a@b@h\n<0.85.0>", "targets, line 2: "),
        (b"\xff@b@h", "targets is not UTF-8"),
    ],
)
def test_what_is_no_file_of_targets(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "targets"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_targets(path)


def test_a_file_of_targets_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="targets cannot be read: No such file"):
        read_targets(tmp_path / "targets")


@pytest.mark.parametrize("text", ["", "beam", "@host", "beam@", "a@b@c"])
def test_what_is_no_node(text: str) -> None:
    with pytest.raises(UsageError, match="no node name"):
        parse_node(text)


def test_terms() -> None:
    assert parse_argument('{hello, [1, 2], <<"x">>}') == (Atom("hello"), [1, 2], b"x")
    assert parse_argument("<beam@127.0.0.1.85.0>") == Pid(Atom("beam@127.0.0.1"), 85, 0, 0)
    with pytest.raises(UsageError, match="column"):
        parse_argument("{hello")
