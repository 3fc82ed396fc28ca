"""Two processes with one name: what this node does when the nodes that have them meet, and it is asked to decide.

A name is registered with a method, ``fun Module:Function/3``. When two parts of a cluster join, and both have the name,
one of the two nodes that talk has the method of its own process called, on the node of that process::

    rpc:call(node(Pid2), global, resolve_it, [Method2, Name, Pid, Pid2]) -> Pid | Pid2 | none

Who is returned keeps the name; for any other value neither does. Where the method fails, or cannot be called, the
process of the other node does.

Source: kernel/src/global.erl (exchange_names/4, resolve_it/4, random_exit_name/3 and its relatives).
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final

from ..runtime.atoms import EXIT, KILL
from ..runtime.spawning import Exposed
from ..terms import Atom, Export, Pid
from ._global_messages import GLOBAL
from .applying import applied
from .erpc import RETURN, THROW

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..runtime.node import Node
    from ..runtime.process import Process
    from ..terms import Term

_NAME_CONFLICT: Final = Atom("global_name_conflict")
_NONE: Final = Atom("none")


class Resolving:
    """Serves ``global:resolve_it/4`` on a node, and the methods that global itself has.

    Args:
        node: This node.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._methods: dict[str, Callable[[Term, Pid, Pid], object]] = {
            "random_exit_name": self._random_exit_name,
            "random_notify_name": self._random_notify_name,
            "notify_all_name": self._notify_all_name,
        }
        node.expose(GLOBAL, self._methods)
        node.expose(GLOBAL, {"resolve_it": self._resolve_it}, with_process=True)

    def method_of(self, resolve: str | Callable[[Term, Pid, Pid], object], *, here: bool) -> Export:
        """``fun Module:Function/3`` for what a user gives; a Python function is exposed for it.

        Args:
            here: Whether the process is of this node: a method is called where the process is.

        Raises:
            ValueError: no such method; a Python function that does not take three arguments, or for a process that is
                elsewhere.
        """
        if callable(resolve):
            if not here:
                raise ValueError(f"{resolve!r} cannot resolve for a process of another node: it would be called there")
            if not Exposed(resolve, with_process=False, thread=False).takes([None, None, None]):
                raise ValueError(f"{resolve!r} is to take three arguments: the name, and the pids of the two processes")
            module = getattr(resolve, "__module__", None) or "python"
            function = getattr(resolve, "__qualname__", type(resolve).__qualname__)
            self._node.expose(module[:255], {function[:255]: resolve})
            return Export(Atom(module[:255]), Atom(function[:255]), 3)
        if resolve not in self._methods:
            raise ValueError(
                f"{resolve!r} is no way to resolve a name that two processes have: give one of "
                f"{', '.join(self._methods)}, or a function of the name and the two pids"
            )
        return Export(GLOBAL, Atom(resolve), 3)

    async def _resolve_it(self, process: Process, method: Any, name: Term, pid: Term, pid2: Term) -> Term:
        """``catch Method(Name, Pid, Pid2)``."""
        if type(method) is not Export:
            return (EXIT, (Atom("badfun"), method))
        outcome = await applied(process, method.module, method.function, [name, pid, pid2], nullcontext)
        label, value = outcome[:2]
        if label in (RETURN, THROW):
            return _NONE if value is None else value
        return (EXIT, value)

    # -- global's own

    def _random_exit_name(self, _name: Term, pid: Pid, pid2: Pid) -> Pid:
        """End one of the two."""
        kept, other = _in_order(pid, pid2)
        self._node.exit(other, KILL)
        return kept

    def _random_notify_name(self, name: Term, pid: Pid, pid2: Pid) -> Pid:
        """Tell one of the two that it has lost the name."""
        kept, other = _in_order(pid, pid2)
        self._node.send(other, (_NAME_CONFLICT, name))
        return kept

    def _notify_all_name(self, name: Term, pid: Pid, pid2: Pid) -> Atom:
        """Tell both; neither keeps it."""
        self._node.send(pid, (_NAME_CONFLICT, name, pid2))
        self._node.send(pid2, (_NAME_CONFLICT, name, pid))
        return _NONE


def _in_order(pid: Pid, pid2: Pid) -> tuple[Pid, Pid]:
    """The one that keeps the name, and the other; both nodes that could be asked agree on it."""
    return (pid, pid2) if pid.node.name < pid2.node.name else (pid2, pid)
