"""``run --expose``: what is named is found, or it is said why not."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from zenmon_node.exposing import ExposureError, find_exposure

if TYPE_CHECKING:
    from erlang_interop import Node


def test_by_its_own_name() -> None:
    found = find_exposure("math:sqrt")
    assert (found.module, found.name, found.function) == ("math", "sqrt", math.sqrt)
    found = find_exposure("os.path:join")
    assert (found.module, found.name) == ("os.path", "join")


def test_by_another_name() -> None:
    found = find_exposure("Elixir.Files:exists=pathlib:Path.exists")
    assert (found.module, found.name, found.function) == ("Elixir.Files", "exists", Path.exists)


def test_of_the_folder_it_was_started_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "of_this_folder.py").write_text("def three():\n    return 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["/nowhere"])
    assert find_exposure("of_this_folder:three").function() == 3


@pytest.mark.parametrize(
    "text", ["", "math", "math:", ":sqrt", "=math:sqrt", "m=math:sqrt", "m:=math:sqrt", ":f=math:sqrt"]
)
def test_of_another_form(text: str) -> None:
    with pytest.raises(ExposureError, match=r"write package\.module:function"):
        find_exposure(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no_such_module:f", "importing no_such_module failed: ModuleNotFoundError"),
        ("math:no_such", "math has no no_such"),
        ("math:pi", "it is no function but 3.14"),
        (f"m:{'f' * 256}=math:sqrt", "cannot be called from Erlang"),
    ],
)
def test_what_cannot_be_exposed(text: str, message: str) -> None:
    with pytest.raises(ExposureError, match=message):
        find_exposure(text)


def test_a_module_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fails_here.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ExposureError, match="importing fails_here failed: ZeroDivisionError: division by zero"):
        find_exposure("fails_here:f")


async def test_ordinary_functions_run_in_threads(two_nodes: tuple[Node, Node]) -> None:
    one, two = two_nodes
    for text in ("trio.lowlevel:in_trio_run", "trio:sleep"):
        find_exposure(text).on(two)
    assert await one.rpc(two.name, "trio.lowlevel", "in_trio_run", []) is False
    assert trio.lowlevel.in_trio_run() is True
    assert await one.rpc(two.name, "trio", "sleep", [0]) is None
