#!/usr/bin/env python3
"""Say in one line which build of zenmon-node this Python's environment holds: compiled, or pure and why that may be."""

from __future__ import annotations

import importlib.util
import os
import sys


def main() -> int:
    """Print the line; exit status 1 when nothing is installed."""
    spec = importlib.util.find_spec("erlang_interop.terms")
    if spec is None or spec.origin is None:
        print("zenmon-node is not installed", file=sys.stderr)
        return 1
    if spec.origin.endswith(".py"):
        why = "ZENMON_COMPILE=0" if os.environ.get("ZENMON_COMPILE") == "0" else "no C compiler, or no Python.h"
        print(f"zenmon-node is installed uncompiled: {why} (Debian: apt install gcc python3-dev)")
    else:
        print("zenmon-node is installed, its codec compiled")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
