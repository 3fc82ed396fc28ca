"""The names of a scope, as a program uses them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

from erlang_interop.otp.gen import shown_term
from erlang_interop.runtime.signals import atom_of

from . import messages as m
from .asking import TIMEOUT, Asking, carried_term, metadata, new_meta
from .errors import NameUndefined, refusal
from .registry import Entry, Registry

if TYPE_CHECKING:
    from erlang_interop import Atom, LocalProcess, Pid, Term

    from .asking import Update
    from .server import ScopeServer


class Registered(NamedTuple):
    """Who has a name, with the metadata of the name."""

    pid: Pid
    meta: Any


class Names(Asking):
    """The half of a ``Scope`` that is its registry."""

    _names: ScopeServer

    async def register(
        self,
        name: Term,
        pid: Pid,
        meta: Term = m.UNDEFINED,
        *,
        timeout: float = TIMEOUT,
        caller: LocalProcess | None = None,
    ) -> None:
        """``syn:register/3,4``: give a name to a process, or new metadata to the name that it has.

        Args:
            name: Any term. A process may have many.
            pid: A process of this node, or of any other in the scope; its own node decides.
            meta: Goes with the name to all nodes; Atom("undefined") without it. The same as before: nothing happens.
            timeout: Seconds that the node of the process may take.
            caller: In a strict scope: the process that calls.

        Raises:
            Taken: another process has the name.
            NotAlive: the process has ended.
            NotSelf: the scope is strict, and ``caller`` is not this process.
        """
        self._require_self(pid, caller)
        name = carried_term(name)
        reply = await self._ask(
            self._names, pid, m.REGISTRY.ask_put(self.node.name, name, pid, metadata(meta)), timeout
        )
        new_meta(reply, "register", name, pid)

    async def unregister(self, name: Term, *, timeout: float = TIMEOUT) -> None:
        """``syn:unregister/2``: take a name back, whoever has it.

        Raises:
            NameUndefined: nobody has it.
            RaceCondition: it has changed hands, and this node has not heard of it yet.
        """
        name = carried_term(name)
        entry = self._found(name, "unregister")
        reply = await self._ask(self._names, entry.pid, m.REGISTRY.ask_remove(self.node.name, name, entry.pid), timeout)
        if reply[0] != m.OK:
            raise refusal(reply, "unregister", name, entry.pid, "registry")

    async def update_registry(
        self, name: Term, fun: Update, *, timeout: float = TIMEOUT, caller: LocalProcess | None = None
    ) -> Registered:
        """``syn:update_registry/3``: make new metadata of those that a name has, where nothing can come between.

        Args:
            name: A name.
            fun: ``fun(pid, meta)`` returns the new metadata. It runs on the node of the process: for one of this node
                it is any function that returns at once; for one of another node an external fun, such as
                ``Export(Atom("counters"), Atom("increment"), 2)``, of a module that is there. A Python node has what
                it exposes (``node.expose``).
            timeout: Seconds that the node of the process may take.
            caller: In a strict scope: the process that calls.

        Returns:
            Who has the name, and the metadata now.

        Raises:
            NameUndefined: nobody has the name.
            NotAlive, NotSelf: as :meth:`register`.
            TypeError: ``fun`` cannot be sent to the node of the process.
            RemoteException: ``fun`` raised on another node, or does not exist there.
            Exception: whatever ``fun`` raised on this node.
        """
        name = carried_term(name)
        pid = self._found(name, "update").pid
        self._require_self(pid, caller)
        run = self._function(pid, fun)
        reply = await self._ask(self._names, pid, m.REGISTRY.ask_put(self.node.name, name, pid, run.sent), timeout)
        return Registered(pid, new_meta(reply, "update", name, pid, run=run))

    def lookup(self, name: Term) -> Registered | None:
        """``syn:lookup/2``: who has a name, as far as this node has heard; None for ``undefined``."""
        entry = self._registry.lookup(carried_term(name))
        return None if entry is None else Registered(entry.pid, entry.meta)

    def whereis_name(self, name: Term) -> Pid | None:
        """``syn:whereis_name/1``: the process that has a name."""
        entry = self._registry.lookup(carried_term(name))
        return None if entry is None else entry.pid

    def send(self, name: Term, message: Term) -> Pid:
        """``syn:send/2``: send to who has a name.

        Returns:
            Who that is.

        Raises:
            NameUndefined: nobody (``badarg`` in syn).
        """
        pid = self._found(carried_term(name), "send to").pid
        self.node.send(pid, message)
        return pid

    def registered_names(self, node: Atom | str | None = None) -> list[Any]:
        """The names that there are, or that processes of ``node`` have, in no particular order. Not in syn itself."""
        wanted = None if node is None else atom_of(node)
        return [entry.name for entry in self._registry.entries() if wanted is None or entry.pid.node == wanted]

    def registry_count(self, node: Atom | str | None = None) -> int:
        """``syn:registry_count/1,2``: how many names there are, or how many the processes of ``node`` have."""
        return self._registry.count(None if node is None else atom_of(node))

    def local_registry_count(self) -> int:
        """``syn:local_registry_count/1``: how many names processes of this node have."""
        return self._registry.count(self.node.name)

    @property
    def _registry(self) -> Registry:
        self._require_open()
        return cast(Registry, self._names.service)

    def _found(self, name: Term, what: str) -> Entry:
        entry = self._registry.lookup(name)
        if entry is None:
            raise NameUndefined(f"cannot {what} {shown_term(name)}: nobody has the name", m.UNDEFINED)
        return entry
