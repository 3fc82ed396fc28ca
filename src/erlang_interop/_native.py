"""What is compiled: the C core where there is one, and what mypyc's modules need from mypy.

``core`` is the extension that ``_core.c`` becomes, or None where it was not built. Three modules choose by it between
their own source, which is the reference, and the same in C: ``_identifiers``, ``etf/_decode`` and ``etf/_encode``.

mypyc reads the ``TYPE_CHECKING`` branch, so ``i64`` is the real native type to it. The interpreter reads the other
branch: there it is plain ``int`` and the decorator does nothing. Not compiled itself.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_extensions import i64 as i64
    from mypy_extensions import mypyc_attr as mypyc_attr
else:
    i64 = int

    def mypyc_attr(**_settings: object) -> Callable[[type], type]:
        """Return the class unchanged: only the compiler reads the settings."""
        return lambda cls: cls


__all__ = ["core", "i64", "mypyc_attr"]

core: Any
try:
    core = import_module("erlang_interop._core")
except ModuleNotFoundError:  # one that is there and cannot be loaded is another error, and is not hidden
    core = None
