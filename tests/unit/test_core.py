"""``_core.c`` under AddressSanitizer and UndefinedBehaviorSanitizer, against its reference in Python.

The test compiles the core itself, whatever is installed, so it runs the same on both builds. ``tests/core_fuzz.py`` is
what it runs. For longer, with ``ZENMON_FUZZ_SECONDS``: ``make fuzz SECONDS=600``.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent.parent
SECONDS = os.environ.get("ZENMON_FUZZ_SECONDS", "10")
SEED = os.environ.get("ZENMON_FUZZ_SEED", "1")
COMPILER = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g", "-O1"]


def run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, env=environment | variables, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.timeout(600 + 20 * float(SECONDS))
def test_the_core_does_what_its_reference_does_and_nothing_else(tmp_path: Path) -> None:
    """Where nothing can be compiled there is no core, and its reference runs: other tests are about that."""
    core = tmp_path / "_core.so"
    include = f"-I{sysconfig.get_path('include')}"
    try:
        header = run(*COMPILER, "-fsyntax-only", include, "-include", "Python.h", "-x", "c", os.devnull)
    except OSError as error:
        pytest.skip(f"no C compiler {COMPILER[0]} here ({error.strerror}), so nobody has the C core")
    if header.returncode != 0:
        pytest.skip(f"no Python.h here ({include}), so nobody has the C core")
    source = str(PROJECT / "src" / "erlang_interop" / "_core.c")
    done = run(*COMPILER, *SANITIZERS, "-Wall", "-fPIC", "-shared", include, source, "-o", str(core))
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr, done.stderr
    asan = run(*COMPILER, "-print-file-name=libasan.so").stdout.strip()
    assert Path(asan).is_file(), f"{COMPILER[0]} has no AddressSanitizer (Debian: libgcc-12-dev has it)"
    done = run(
        *(sys.executable, str(PROJECT / "tests" / "core_fuzz.py"), str(core), SECONDS, SEED),
        LD_PRELOAD=asan,
        PYTHONMALLOC="malloc",  # each object is a block of its own, with guards around it
        ASAN_OPTIONS="detect_leaks=0",  # the interpreter keeps its own until the end; the program counts instead
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    assert "rounds" in done.stdout
    sys.stdout.write(done.stdout)
