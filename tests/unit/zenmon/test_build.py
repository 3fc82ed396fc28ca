"""What `zenmon-node --version` says of the build, against what the tests themselves know of it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from zenmon_node import build

INSTALLED = os.environ.get("ZENMON_BUILD") == "installed"


def extensions() -> set[str]:
    """The modules that have an extension beside them, as the files are named."""
    found = set()
    for package in build.PACKAGES:
        module = sys.modules[package]
        assert module.__file__ is not None
        folder = Path(module.__file__).parent
        for path in folder.rglob("*.so"):
            found.add(".".join([package, *path.relative_to(folder).parts[:-1], path.name.partition(".")[0]]))
    return found


def test_what_is_compiled_are_the_extensions() -> None:
    assert set(build.compiled_modules()) == extensions() - {build.CORE}
    if not INSTALLED:
        assert not extensions()
        assert build.describe_build() == "interpreted"


@pytest.mark.parametrize(
    ("core", "modules", "said"),
    [
        (True, 19, "compiled: C core and 19 modules"),
        (False, 19, "compiled: 19 modules"),
        (True, 0, "compiled: C core"),
        (False, 0, "interpreted"),
    ],
)
def test_in_words(monkeypatch: pytest.MonkeyPatch, core: bool, modules: int, said: str) -> None:
    monkeypatch.setattr(build, "compiled_modules", lambda: ["one"] * modules)
    if core:
        monkeypatch.setitem(sys.modules, build.CORE, ModuleType(build.CORE))
    else:
        monkeypatch.delitem(sys.modules, build.CORE, raising=False)
    assert build.describe_build() == said
