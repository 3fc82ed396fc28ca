"""A name server of ``global`` that does as it is told, keeps what it was asked, and takes part in nothing else."""

from __future__ import annotations

from typing import Any

from erlang_interop import Atom, InlineServer, Node, Pid, Term
from erlang_interop.otp._global_locks import LockTable
from erlang_interop.otp.gen import GEN_CALL, From, reply
from erlang_interop.otp.passive import GLOBAL_NAME_SERVER
from erlang_interop.runtime.atoms import DOWN


class NameServer(InlineServer):
    """Serve ``set_lock``, ``del_lock``, ``register``, ``unregister`` and ``get_known``.

    Attributes:
        asked: The requests, in this order.
        silent: Whether it leaves those without an answer.
    """

    def __init__(self, node: Node, known: list[Node] | None = None) -> None:
        self.asked: list[Term] = []
        self.silent = False
        self.known: dict[Atom, int] = {other.name: 8 for other in known or [] if other is not node}
        self.names: dict[Any, Pid] = {}
        self.synced = False
        node.start_inline(self, name=GLOBAL_NAME_SERVER)

    def started(self) -> None:
        self.locks = LockTable(self.process)

    def handle_message(self, message: Term) -> None:
        match message:
            case (tag, from_, request) if tag == GEN_CALL:
                self.asked.append(request)
                if not self.silent:
                    reply(self.process, from_, self._answer(from_, request))
            case (tag, ref, _, pid, _) if tag == DOWN:
                self.locks.down(pid, ref)

    def _answer(self, from_: From, request: Term) -> Term:
        match request:
            case (Atom("set_lock"), (resource, requester)):
                return self.locks.set_lock(resource, requester, from_[0])
            case (Atom("del_lock"), (resource, requester)):
                self.locks.del_lock(resource, requester, from_[0])
                return True
            case (Atom("register"), name, pid, _method):
                self.names[name] = pid
                return Atom("yes")
            case (Atom("unregister"), name):
                del self.names[name]
                return Atom("ok")
            case Atom("get_known"):
                return list(self.known)
        raise AssertionError(request)

    def has_name(self, pid: Pid) -> bool:
        return pid in self.names.values()

    @property
    def held(self) -> list[Term]:
        """What is locked."""
        return [lock.resource for lock in self.locks.held]

    def whereis(self, name: Term) -> Pid | None:
        return self.names.get(name)

    async def wait_synced(self) -> None:
        self.synced = True
