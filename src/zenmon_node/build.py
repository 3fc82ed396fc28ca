"""Which build this is: compiled, and how much of it, or interpreted. Asked of Python's own import system."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec

PACKAGES = ("erlang_interop", "zenmon_node")
#: The codec and the identifiers in C; where it cannot be loaded, what it stands in for runs as it is.
CORE = "erlang_interop._core"


def compiled_modules() -> list[str]:
    """The modules of both packages that Python would load from an extension, but for the C core; nothing is loaded."""
    names: list[str] = []
    for package in PACKAGES:
        path = importlib.import_module(package).__path__
        # Only the package itself is imported to be looked into; what cannot be is told where it is used.
        names += [module.name for module in pkgutil.walk_packages(path, f"{package}.") if not module.ispkg]
    return [name for name in names if name != CORE and _is_extension(name)]


def _is_extension(name: str) -> bool:
    spec = find_spec(name)
    return spec is not None and spec.origin is not None and spec.origin.endswith(tuple(EXTENSION_SUFFIXES))


def has_core() -> bool:
    """Whether terms are those of the C core."""
    importlib.import_module("erlang_interop.terms")
    return CORE in sys.modules


def describe_build() -> str:
    """``compiled: C core and 19 modules``, or ``interpreted``."""
    modules = len(compiled_modules())
    parts = ["C core"] * has_core() + ([f"{modules} modules"] if modules else [])
    return f"compiled: {' and '.join(parts)}" if parts else "interpreted"
