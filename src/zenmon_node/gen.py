"""How a Connector talks to a remote Proxy: plain messages, or a module of the user's own (setting ``gen_module``).

In the original ``gen_module`` names what stands in for ``GenServer``, for clusters whose messages take a way of their
own (a relay, a partitioned connection, a tap that counts). Here it is the dotted name of a Python module that has what
this one, the default, has:

``call(process, dest, ref, request)``
    Ask ``dest`` and return at once. The answer has to arrive at ``process`` as the message ``(ref, answer)``, which is
    what a ``gen_server`` makes of it that is sent ``{'$gen_call', {Pid, Ref}, Request}``. The Connector itself monitors
    ``dest`` under ``ref`` and gives up after five seconds.
``cast(process, dest, request)``
    Tell ``dest``. Casts to one ``dest`` must arrive in the order in which they are made.

``process`` is the Connector's, an :class:`~erlang_interop.runtime.LocalProcess`; ``dest`` is ``(name, node)``. Both are
called in the event loop, so they must not wait. An exception in them is one in the Connector.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final, Protocol

from . import messages as m

if TYPE_CHECKING:
    from erlang_interop.runtime import LocalProcess
    from erlang_interop.terms import Atom, Reference, Term

#: What a module must have.
FUNCTIONS: Final = ("call", "cast")


class GenModule(Protocol):
    """A module like this one."""

    def call(self, process: LocalProcess, dest: tuple[Atom, Atom], ref: Reference, request: Term) -> object:
        """Ask."""

    def cast(self, process: LocalProcess, dest: tuple[Atom, Atom], request: Term) -> object:
        """Tell."""


def call(process: LocalProcess, dest: tuple[Atom, Atom], ref: Reference, request: Term) -> None:
    """Send ``{'$gen_call', {Pid, Ref}, Request}``."""
    process.send(dest, m.gen_call(process.pid, ref, request))


def cast(process: LocalProcess, dest: tuple[Atom, Atom], request: Term) -> None:
    """Send ``{'$gen_cast', Request}``."""
    process.send(dest, m.gen_cast(request))


def load(name: str | None) -> GenModule:
    """The module that the setting names; None is this one.

    Raises:
        ImportError: there is no such module, or it cannot be imported; the cause says why.
        TypeError: it lacks one of the functions, or ``name`` is no text.
    """
    if name is None:
        name = __name__
    if not isinstance(name, str):
        raise TypeError("it is no text")
    try:
        module: Any = importlib.import_module(name)
    except Exception as error:  # whatever the code of that module raises
        raise ImportError(f"importing it failed: {type(error).__name__}: {error}") from error
    lacking = [function for function in FUNCTIONS if not callable(getattr(module, function, None))]
    if lacking:
        raise TypeError(f"it has no function {' and no function '.join(lacking)}")
    found: GenModule = module
    return found
