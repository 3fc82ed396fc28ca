"""``tests/rules.py``: the page is written as it is read, and a run that shows something else fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import erlang_interop
from tests.rules import Table, area_of, parse, render

PROJECT = Path(__file__).resolve().parent.parent
VERSIONS = {25: ("25.2.3", "13.1.5"), 28: ("28.1", "16.1")}

CONFTEST = """\
import pytest
from tests import rules
from tests.rules import pytest_collection_modifyitems

def pytest_addoption(parser):
    rules.pytest_addoption(parser)
    parser.addoption("--otp", action="append", type=int)

def pytest_configure(config):
    rules.collect_rules(config, config.getoption("--otp") or (25, 28), (25, 28))

def pytest_generate_tests(metafunc):
    if "otp" in metafunc.fixturenames:
        metafunc.parametrize("otp", metafunc.config.getoption("--otp") or (25, 28))
"""

TESTS = """\
import os
import pytest

@pytest.mark.rule("Handshake: cookies")
def test_cookies(otp):
    assert otp == 25 or not os.environ["BROKEN"]

@pytest.mark.rule("Handshake: cookies")
@pytest.mark.rule("Aliases: priority")
def test_both(otp):
    pass

@pytest.mark.rule("Spawn: later", since=28)
@pytest.mark.rule("Spawn: earlier", on=(25,))
def test_later(otp):
    pass

def test_without(otp):
    pass
"""


def results() -> Table:
    table = Table((25, 28))
    table.add("Handshake: cookies", 25, "tests/interop/test_b.py", True)
    table.add("Handshake: cookies", 28, "tests/interop/test_b.py", True)
    table.add("Handshake: cookies", 28, "tests/interop/test_a.py", False)
    table.add("Aliases: priority", 28, "tests/interop/test_a.py", True)
    return table


def test_one_failure_fails_the_rule_whatever_comes_behind_it() -> None:
    table = results()
    table.add("Handshake: cookies", 28, "tests/interop/test_b.py", True)
    assert table.cells["Handshake: cookies"] == {25: "passed", 28: "failed"}


def test_the_page() -> None:
    lines = render(results(), VERSIONS).splitlines()
    assert lines[lines.index("| version of | OTP 25 | OTP 28 |") + 2 :] == [
        "| OTP | 25.2.3 | 28.1 |",
        "| erts | 13.1.5 | 16.1 |",
        "",
        "## Handshake",
        "",
        "| rule | OTP 25 | OTP 28 | shown by |",
        "| --- | --- | --- | --- |",
        "| cookies | passed | failed | [test_a.py](../tests/interop/test_a.py), "
        "[test_b.py](../tests/interop/test_b.py) |",
        "",
        "## Aliases",
        "",
        "| rule | OTP 25 | OTP 28 | shown by |",
        "| --- | --- | --- | --- |",
        "| priority | - | passed | [test_a.py](../tests/interop/test_a.py) |",
    ]


def test_the_page_is_read_as_it_was_written() -> None:
    assert parse(render(results(), VERSIONS)) == results()


def test_versions_make_no_difference_but_cells_rows_and_files_do() -> None:
    committed = parse(render(results(), {25: ("25.3", "13.2"), 28: ("28.2", "16.2")}))
    assert committed.differences(results(), (25, 28)) == []
    other = results()
    other.add("Aliases: priority", 28, "tests/interop/test_c.py", False)
    other.add("Ticks: four", 25, "tests/interop/test_c.py", True)
    assert committed.differences(other, (25,)) == ["'Ticks: four' on OTP 25: - in the table, passed in this run"]
    assert committed.differences(other, (25, 28)) == [
        "'Aliases: priority' on OTP 28: passed in the table, failed in this run",
        "'Aliases: priority' is shown by tests/interop/test_a.py, tests/interop/test_c.py",
        "'Ticks: four' on OTP 25: - in the table, passed in this run",
    ]
    assert committed.differences(Table((25,)), (25,)) == [
        "'Handshake: cookies' on OTP 25: passed in the table, - in this run"
    ]


@pytest.mark.parametrize("name", ["cookies", "Handshake cookies", "Handshake: ", "Cookies: per peer", "Ticks: a | b"])
def test_marks_that_are_no_rule(name: str) -> None:
    with pytest.raises(ValueError, match="Area: rule"):
        area_of(name)


def run(folder: Path, *arguments: str, broken: bool = False) -> tuple[int, str]:
    """The exit status and the output of pytest in a small project below ``folder``, with two OTPs that are none."""
    installed = Path(str(erlang_interop.__file__)).parent.parent
    environment = {**os.environ, "PYTHONPATH": f"{PROJECT}{os.pathsep}{installed}"}
    environment["BROKEN"] = "1" if broken else ""
    for release, (version, runtime) in VERSIONS.items():
        erl = folder / str(release) / "bin" / "erl"
        erl.parent.mkdir(parents=True, exist_ok=True)
        erl.write_text(f"#!/bin/sh\necho {version} {runtime}\n")
        erl.chmod(0o755)
        environment[f"ZENMON_OTP_ROOT_{release}"] = str(folder / str(release))
    (folder / "checks").mkdir(exist_ok=True)
    (folder / "checks" / "conftest.py").write_text(CONFTEST)
    (folder / "checks" / "test_it.py").write_text(TESTS)
    (folder / "pytest.ini").write_text("[pytest]\ntestpaths = checks\nmarkers = rule(name): see above\n")
    # Its own folder for temporary files: several runs that end at once get into each other's way in the usual one.
    words = ["-q", "--import-mode=importlib", "-p", "no:cacheprovider", f"--basetemp={folder / 'temporary'}"]
    argv = [sys.executable, "-m", "pytest", *words, *arguments]
    done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_run_writes_the_page_and_another_is_held_against_it(tmp_path: Path) -> None:
    status, output = run(
        tmp_path, "-n", "2", "--dist", "loadgroup", "-m", "rule", "--rules-table", "rules.md", "checks"
    )
    assert status == 0, output
    page = (tmp_path / "rules.md").read_text()
    file = "[test_it.py](../checks/test_it.py)"
    assert f"| cookies | passed | passed | {file} |" in page
    assert f"| priority | passed | passed | {file} |" in page
    assert f"| later | - | passed | {file} |" in page
    assert f"| earlier | passed | - | {file} |" in page
    assert "| OTP | 25.2.3 | 28.1 |" in page

    status, output = run(tmp_path, "--rules-check", "rules.md", "checks")
    assert (status, "rules.md is true of this run" in output) == (0, True), output

    status, output = run(tmp_path, "--rules-table", "rules.md", "checks", broken=True)
    assert status == 1, output
    assert f"| cookies | passed | failed | {file} |" in (tmp_path / "rules.md").read_text()

    status, output = run(tmp_path, "--rules-check", "rules.md", "checks")
    assert status == 1, output
    assert "run 'make rules'" in output
    assert "'Handshake: cookies' on OTP 28: failed in the table, passed in this run" in output

    status, output = run(tmp_path, "--otp", "25", "--rules-check", "rules.md", "checks")
    assert (status, "rules.md is true of this run" in output) == (0, True), output


def test_what_is_not_written_or_compared(tmp_path: Path) -> None:
    status, output = run(tmp_path, "-k", "cookies", "--rules-check", "rules.md", "checks")
    assert (status, "was not compared: only some of the tests ran (-k cookies)" in output) == (0, True), output
    status, output = run(tmp_path, "--rules-check", "nothing.md", "checks")
    assert (status, "nothing.md is missing: run 'make rules'" in output) == (1, True), output
    status, output = run(tmp_path, "--otp", "25", "--rules-table", "rules.md", "checks")
    assert (status, "a column for each of OTP 25, 28" in output) == (4, True), output
    status, output = run(tmp_path, "-k", "both", "--rules-table", "rules.md", "checks")
    assert (status, "rules.md is left as it was" in output) == (1, True), output
