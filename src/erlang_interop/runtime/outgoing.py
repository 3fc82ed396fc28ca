"""Messages to wherever they are to go: to a process here, or to a peer. Compiled.

The other half of ``incoming.py``: all that processes send, but for messages with a trace token or priority
(``tracing.py``), passes here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

from ..errors import BadName
from ..terms import Atom, Pid, Reference
from ..wire.control import Op
from .atoms import EMPTY
from .peer import SENT, Peer, Sending
from .tracing import alias_send

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..terms import Term
    from .aliases import Aliases
    from .signals import Router

_OP_REG_SEND: Final = int(Op.REG_SEND)
_OP_SEND_SENDER: Final = int(Op.SEND_SENDER)


def atom_of(name: Any) -> Atom:
    """A name given as ``str`` or :class:`Atom`, as an atom. Raises ``BadName`` for anything else."""
    if type(name) is Atom:
        return name
    if type(name) is str:
        return Atom(name)
    raise BadName(f"a name is a str or an Atom, not {name!r}")


@final
class Outgoing:
    """What the processes of one node send.

    Args:
        router: The node's, whose name may still change.
        peer_for: The peer of a node name, dialled if it is not there.
    """

    def __init__(self, router: Router, peer_for: Callable[[Atom], Peer]) -> None:
        self._router = router
        self._peer_for = peer_for
        self._peers: dict[Atom, Peer] = router.peers
        self._processes: dict[Pid, Any] = router.processes
        self._names: dict[Atom, Any] = router.names
        self._aliases: Aliases = router.aliases

    def send(self, sender: Pid, dest: Any, message: Term) -> Sending:
        """``Dest ! Message`` on behalf of ``sender``.

        Args:
            sender: A process of this node.
            dest: A :data:`~erlang_interop.runtime.local_process.Destination`; anything else is refused.
            message: Any term.

        Raises:
            BadName: ``dest`` is none.
            EncodeError: ``message`` cannot be sent to another node.
        """
        me = self._router.name
        if type(dest) is Pid:
            node = dest.node
            if node is not me and node != me:
                peer = self._peers.get(node) or self._peer_for(node)
                peer.emit((_OP_SEND_SENDER, sender, dest), message)
                return peer.sending
            process = self._processes.get(dest)
        elif type(dest) is Reference:
            node = dest.node
            if node is not me and node != me:
                peer = self._peers.get(node) or self._peer_for(node)
                peer.emit(alias_send(peer, sender, dest), message)
                return peer.sending
            self._aliases.deliver(dest, message, sender=sender)
            return SENT
        elif type(dest) is tuple and len(dest) == 2:
            name, node = atom_of(dest[0]), atom_of(dest[1])
            if node is not me and node != me:
                peer = self._peers.get(node) or self._peer_for(node)
                peer.emit((_OP_REG_SEND, sender, EMPTY, name), message)
                return peer.sending
            process = self._names.get(name)
        elif type(dest) is str or type(dest) is Atom:
            process = self._names.get(atom_of(dest))
        else:
            raise BadName(f"cannot send to {dest!r}: a Pid, a Reference (alias), a name or (name, node) is needed")
        if process is not None:
            process.deliver(message, sender)
        return SENT
