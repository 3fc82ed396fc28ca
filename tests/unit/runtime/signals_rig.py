"""A router without a node, a peer that keeps what it is sent, and processes that keep what they get."""

from __future__ import annotations

from typing import Any

from erlang_interop.flags import OFFERED
from erlang_interop.runtime.peer import Peer
from erlang_interop.runtime.process import LocalProcess
from erlang_interop.runtime.signals import Router
from erlang_interop.terms import Atom, Pid, Reference
from erlang_interop.wire.control import NO_PAYLOAD

ME, THERE = Atom("me@h"), Atom("there@h")
#: A process of the peer, and a reference of its.
REMOTE = Pid(THERE, 2, 0, 9)
REF = Reference(THERE, 9, b"\0\0\0\1\0\0\0\2\0\0\0\3")


class Sink(Peer):
    """A peer that keeps what is emitted."""

    def __init__(self) -> None:
        super().__init__(THERE, [])
        self.agreed = OFFERED
        self.emitted: list[tuple[Any, Any]] = []

    def emit(self, control: tuple[Any, ...], payload: Any = NO_PAYLOAD) -> None:
        self.emitted.append((control, payload))


class Recorder(LocalProcess):
    """Its messages, those that came with something as ``(message, token, priority)``."""

    def __init__(self, router: Router) -> None:
        super().__init__(None, router, router.make_pid())  # type: ignore[arg-type]
        self.messages: list[Any] = []
        #: Who sent those that came with nothing.
        self.senders: list[Any] = []
        router.add(self)

    def deliver(self, message: Any, sender: Any = None) -> None:
        self.messages.append(message)
        self.senders.append(sender)

    def deliver_marked(self, message: Any, token: Any, priority: bool) -> None:
        self.messages.append((message, token, priority))

    def ended(self, reason: Any) -> None:
        self.messages.append(("ended", reason))


def new_router(peer: Sink) -> Router:
    """The router of ``me@h`` in its fifth life, connected to ``there@h``."""
    router = Router(ME, lambda name: peer)
    router.creation = 5
    router.peers[THERE] = peer
    return router
