"""What the compiled modules need from mypy, without making mypy's packages a dependency of the pure build.

mypyc reads the ``TYPE_CHECKING`` branch, so ``i64`` and friends are the real native types to it. The interpreter reads
the other branch: there the types are plain ``int`` and the decorator does nothing. Not compiled itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_extensions import i32 as i32
    from mypy_extensions import i64 as i64
    from mypy_extensions import mypyc_attr as mypyc_attr
    from mypy_extensions import u8 as u8
else:
    i32 = i64 = u8 = int

    def mypyc_attr(**_settings: object) -> Callable[[type], type]:
        """Return the class unchanged: only the compiler reads the settings."""
        return lambda cls: cls


__all__ = ["i32", "i64", "mypyc_attr", "u8"]
