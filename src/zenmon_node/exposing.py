"""``run --expose``: Python functions that other nodes may call, by name."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

from erlang_interop import Atom, EncodeError, ErlangInteropError

if TYPE_CHECKING:
    from erlang_interop import Node


class ExposureError(ErlangInteropError, ValueError):
    """What is to be exposed is not there, or cannot be called; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Exposure:
    """A function, and what it is called in Erlang."""

    module: str
    name: str
    function: Callable[..., object]

    def on(self, node: Node) -> None:
        """Expose it. An ordinary function runs in threads: the node has other things to do meanwhile."""
        thread = not inspect.iscoroutinefunction(self.function)
        node.expose(self.module, {self.name: self.function}, thread=thread)


def find_exposure(text: str) -> Exposure:
    """Import what ``package.module:function`` or ``module:name=package.module:function`` names.

    The folder that the program was started in is searched as well, as ``python -m`` does.

    Raises:
        ExposureError: it has another form, or there is no such function.
    """
    named, equals, where = text.rpartition("=")
    module_name, colon, path = where.partition(":")
    module, own_colon, name = named.partition(":") if equals else (module_name, ":", path)
    if not (module_name and path and colon and module and name and own_colon):
        raise ExposureError(
            f"{text!r} names no function: write package.module:function, or with another name in Erlang "
            f"module:name=package.module:function"
        )
    try:
        Atom(module), Atom(name)
    except EncodeError as error:
        raise ExposureError(f"{text!r} cannot be called from Erlang: {error}") from None
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        function = attrgetter(path)(importlib.import_module(module_name))
    except AttributeError:
        raise ExposureError(f"{text!r} cannot be exposed: {module_name} has no {path}") from None
    except Exception as error:  # whatever the module does while it is imported
        raise ExposureError(
            f"{text!r} cannot be exposed: importing {module_name} failed: {type(error).__name__}: {error}"
        ) from error
    if not callable(function):
        raise ExposureError(f"{text!r} cannot be exposed: it is no function but {function!r:.60}")
    return Exposure(module, name, function)
