"""The unit tests mirror the modules, and an orphan on either side fails.

``src/erlang_interop/wire/epmd.py`` is tested by ``tests/unit/wire/test_epmd.py``, ``src/zenmon_node/local/tables.py``
by ``tests/unit/zenmon/local/test_tables.py``; ``_decode.py`` by ``test_decode.py``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
SOURCES = TESTS.parent / "src"
MIRRORS = {SOURCES / "zenmon_node": TESTS / "unit" / "zenmon", SOURCES / "erlang_interop": TESTS / "unit"}

ELSEWHERE = {
    "erlang_interop/testing/beam.py": "interop/test_beam.py",  # a launcher of BEAMs is tested by launching some
    "erlang_interop/testing/beam_control.py": "interop/test_beam.py",
    # names alone, without a rule of their own: wrong ones fail where they are used
    "erlang_interop/_native.py": "unit/test_terms.py",
    "zenmon_node/counters.py": "unit/zenmon/test_app.py",
    "zenmon_node/status.py": "unit/zenmon/test_app.py",
    "erlang_interop/runtime/atoms.py": "unit/runtime/test_process.py",
    # parts of a module that is one to its users
    "erlang_interop/_identifiers.py": "unit/test_terms.py",
    "erlang_interop/etf/_careful.py": "unit/etf/test_decode.py",
    "erlang_interop/etf/_fast.py": "unit/etf/test_decode.py",
    "erlang_interop/etf/_heads.py": "unit/etf/test_encode.py",
    "erlang_interop/etf/_parts.py": "unit/etf/test_decode.py",
    "erlang_interop/etf/_source.py": "unit/etf/test_text.py",
    "erlang_interop/otp/calling.py": "unit/otp/test_rpc.py",  # and test_erpc.py
    "erlang_interop/runtime/local_process.py": "unit/runtime/test_process.py",
    "erlang_interop/runtime/node_connections.py": "unit/runtime/test_node.py",
    "zenmon_node/syn/asking.py": "unit/zenmon/syn/test_api.py",
    "zenmon_node/syn/members.py": "unit/zenmon/syn/test_api.py",
    "zenmon_node/syn/names.py": "unit/zenmon/syn/test_api.py",
    # shells around tested cores: they are tested where two nodes run them
    "zenmon_node/proxy/server.py": "unit/zenmon/test_app.py",
}
"""Modules whose test is not a unit test, and where it is instead."""


def mirror_of(module: Path) -> Path:
    """The test file of a module."""
    named = ELSEWHERE.get(module.relative_to(SOURCES).as_posix())
    if named is not None:
        return TESTS / named
    package, folder = next((package, folder) for package, folder in MIRRORS.items() if module.is_relative_to(package))
    return folder / module.relative_to(package).parent / f"test_{module.stem.lstrip('_')}.py"


# __init__.py only re-exports, and __main__.py only calls.
MODULES = sorted(path for kind in ("*.py", "*.c") for path in SOURCES.rglob(kind) if not path.stem.startswith("__"))
UNIT_TESTS = sorted((TESTS / "unit").rglob("test_*.py"))


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(SOURCES).as_posix())
def test_module_has_its_test(module: Path) -> None:
    test = mirror_of(module)
    assert test.is_file(), f"{module.relative_to(SOURCES)} has no test: write {test.relative_to(TESTS.parent)}"


@pytest.mark.parametrize("test", UNIT_TESTS, ids=lambda path: path.relative_to(TESTS).as_posix())
def test_unit_test_has_its_module(test: Path) -> None:
    assert test in {mirror_of(module) for module in MODULES}, f"{test.relative_to(TESTS)} mirrors no module"


def test_exceptions_name_what_exists() -> None:
    for module, test in ELSEWHERE.items():
        assert (SOURCES / module).is_file(), module
        assert (TESTS / test).is_file(), test
