"""The wheel where nothing can be compiled: complete, and one line says why it is slower."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent


def build(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Build a wheel as pip does, by hatchling."""
    return subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=PROJECT,
        env={name: value for name, value in os.environ.items() if name not in ("ZENMON_COMPILE", "CC")} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_without_a_compiler_the_wheel_is_pure_and_one_line_says_so(tmp_path: Path) -> None:
    done = build(tmp_path, CC="/bin/false")
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    warnings = [line for line in (done.stdout + done.stderr).splitlines() if wheel.name not in line and line.strip()]
    assert [line for line in warnings if not line.startswith("[wheel]")] == [
        "zenmon-node: built without compiled modules (slower, but complete): "
        "the C compiler /bin/false does not work (exit status 1)"
    ]
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    assert not list((tmp_path / "site").rglob("*.so"))
    said = subprocess.run(
        [sys.executable, "-m", "zenmon_node", "--version"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.endswith(" (interpreted)\n")


@pytest.mark.slow
def test_a_build_that_must_compile_and_cannot_fails(tmp_path: Path) -> None:
    done = build(tmp_path, CC="/bin/false", ZENMON_COMPILE="1")
    assert done.returncode != 0
    assert "the C compiler /bin/false does not work" in done.stderr
    assert not list(tmp_path.iterdir())
