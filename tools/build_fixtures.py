#!/usr/bin/env python3
"""Compile the BEAM side of the tests: ``rebar_fixtures/apps/*/src/*.erl`` into ``rebar_fixtures/_build/ebin``.

``rebar3 compile`` would do too; this needs nothing but ``erlc``. OTP 25's is used, the oldest of the tests, because
every later release loads what it makes. Nothing happens when no source has changed; two runs at once wait for each
other. Prints the folder. Exit status: 0 the folder is current, 1 it is not (it says why, or how to install OTP 25).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

COMPILER_RELEASE = 25
PROJECT = Path(__file__).resolve().parent.parent / "rebar_fixtures"
BUILD = PROJECT / "_build"
OPTIONS = ["-Werror", "+debug_info"]


def sources() -> list[Path]:
    """All that the result depends on: modules, header files, application descriptions."""
    return sorted(
        path
        for pattern in ("src/*.erl", "src/*.app.src", "include/*.hrl")
        for path in PROJECT.glob(f"apps/*/{pattern}")
    )


def digest() -> str:
    """What stands for the present sources and this program."""
    total = hashlib.sha256(Path(__file__).read_bytes())
    for path in sources():
        total.update(f"{path.relative_to(PROJECT)}\n{path.stat().st_size}\n".encode() + path.read_bytes())
    return total.hexdigest()


def find_erlc() -> str | None:
    """The ``erlc`` of OTP 25, where tools/get_otp.py puts it."""
    get_otp = Path(__file__).with_name("get_otp.py")
    root = subprocess.run(
        [sys.executable, str(get_otp), "--print-root", str(COMPILER_RELEASE)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    return shutil.which("erlc", path=os.path.join(root, "bin"))


def compile_all(folder: Path) -> str | None:
    """Compile every module into ``folder``; the compiler's complaints, or None."""
    erlc = find_erlc()
    if erlc is None:
        return f"OTP {COMPILER_RELEASE} is not installed: run tools/get_otp.py {COMPILER_RELEASE}"
    includes = [argument for path in sorted(PROJECT.glob("apps/*/include")) for argument in ("-I", str(path))]
    modules = [str(path) for path in sources() if path.suffix == ".erl"]
    done = subprocess.run(
        [erlc, *OPTIONS, *includes, "-o", str(folder), *modules],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    for path in sources():
        if path.name.endswith(".app.src"):
            shutil.copy(path, folder / path.name.removesuffix(".src"))
    return None if done.returncode == 0 else done.stdout.strip() or f"{erlc}: exit status {done.returncode}"


def main() -> int:
    """Bring the folder up to date; the exit status."""
    BUILD.mkdir(exist_ok=True)
    ebin, stamp = BUILD / "ebin", BUILD / "digest"
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = digest()
        if not (ebin.is_dir() and stamp.is_file() and stamp.read_text() == wanted):
            fresh = BUILD / "ebin.new"
            shutil.rmtree(fresh, ignore_errors=not fresh.exists())
            fresh.mkdir()
            complaint = compile_all(fresh)
            if complaint is not None:
                print(complaint, file=sys.stderr)
                return 1
            stamp.unlink(missing_ok=True)
            shutil.rmtree(ebin, ignore_errors=not ebin.exists())
            fresh.rename(ebin)
            stamp.write_text(wanted)
    print(ebin)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
