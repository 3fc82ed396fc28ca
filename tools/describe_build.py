#!/usr/bin/env python3
"""Say in one line which build of zenmon-node this Python's environment holds: compiled, or pure and why.

Exit status: 0 it is what was to be expected here; 1 nothing is installed, or compiling failed although a C compiler is
there (the installed package works, slower; but the tests are meant to run on the compiled build too).
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import sys
import sysconfig
from pathlib import Path


def why_pure() -> str | None:
    """Why nothing could be compiled here, or None if it could have been."""
    if os.environ.get("ZENMON_COMPILE") == "0":
        return "ZENMON_COMPILE=0"
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    if shutil.which(compiler) is None:
        return f"no C compiler {compiler} (Debian: apt install gcc)"
    header = Path(sysconfig.get_path("include")) / "Python.h"
    return None if header.is_file() else f"no {header} (Debian: apt install python3-dev)"


def main() -> int:
    """Print the line; the exit status."""
    spec = importlib.util.find_spec("erlang_interop.terms")
    if spec is None or spec.origin is None:
        print("zenmon-node is not installed", file=sys.stderr)
        return 1
    if not spec.origin.endswith(".py"):
        print("zenmon-node is installed, compiled")
        return 0
    if importlib.util.find_spec("erlang_interop._core") is not None:
        print(
            "zenmon-node is installed with its C core; mypyc failed, ZENMON_COMPILE=1 make venv shows why",
            file=sys.stderr,
        )
        return 1
    why = why_pure()
    if why is None:
        print("zenmon-node is installed, but compiling failed; ZENMON_COMPILE=1 make venv shows why", file=sys.stderr)
        return 1
    print(f"zenmon-node is installed, not compiled: {why}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
