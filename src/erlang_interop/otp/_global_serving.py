"""What other nodes may call of ``global`` on a node that takes part: C nodes, and hidden nodes of ours.

The functions do what those of that name do on a BEAM, but that a process registered by ``register_name_external`` is
not linked to this node: it is monitored, as any other.

Source: kernel/src/global.erl; lib/erl_interface/src/global (``ei_global_register``), which calls them by ``rpc``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..runtime.atoms import OK, UNDEFINED
from ..terms import Atom, Export, Pid
from ._global_messages import GLOBAL

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..terms import Term
    from ._global_registrar import Registrar
    from .node import Node

_YES: Final = Atom("yes")
_NO: Final = Atom("no")
_METHOD: Final = Export(GLOBAL, Atom("random_exit_name"), 3)


class Serving:
    """Exposes these functions.

    Args:
        node: This node.
        registrar: What changes names.
    """

    def __init__(self, node: Node, registrar: Registrar) -> None:
        self._registrar = registrar
        server = registrar.server
        served: dict[str, Callable[..., object]] = {
            "register_name": self._register_name,
            "register_name_external": self._register_name_external,
            "re_register_name": self._re_register_name,
            "unregister_name": self._unregister_name,
            "unregister_name_external": self._unregister_name,
            "whereis_name": lambda name: server.whereis(name) or UNDEFINED,
            "registered_names": lambda: list(server.names),
            "sync": self._sync,
        }
        node.expose(GLOBAL, served)

    async def _register_name(self, name: Term, pid: Term, method: Term = _METHOD) -> Atom:
        return _YES if await self._registrar.register(name, _checked(pid), method) else _NO

    async def _register_name_external(self, name: Term, pid: Term, method: Term = _METHOD) -> Atom:
        return _YES if await self._registrar.register_external(name, _checked(pid), method) else _NO

    async def _re_register_name(self, name: Term, pid: Term, method: Term = _METHOD) -> Atom:
        await self._registrar.re_register(name, _checked(pid), method)
        return _YES

    async def _unregister_name(self, name: Term) -> Atom:
        await self._registrar.unregister(name)
        return OK

    async def _sync(self) -> Atom:
        await self._registrar.server.wait_synced()
        return OK


def _checked(pid: Term) -> Pid:
    if type(pid) is not Pid:
        raise TypeError(f"{pid!r} is no pid")
    return pid
