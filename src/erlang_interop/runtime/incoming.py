"""Signals from peers: each control message carried out, in the order in which it came.

``dispatch`` takes what one read from a socket brought, without an await: that is what keeps the order that Erlang
promises between two processes. What the signals do to processes of this node is the router's (``signals.py``).

Source: ERTS manual, "Processes"; erl_dist_protocol, "Control Messages"; ``erts_net_message()`` of ``dist.c``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ..errors import RemoteProtocolError
from ..terms import Pid, Reference
from ..wire.control import (
    ALTACT_ALIAS,
    ALTACT_EXIT,
    ALTACT_NAME,
    ALTACT_PRIO,
    ALTACT_TOKEN,
    Op,
    describe,
    packer,
)
from ..wire.unlink import Link, LinkState
from .atoms import NOPROC
from .tracing import as_token

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..terms import Atom
    from .peer import Peer
    from .process import LocalProcess
    from .signals import Router
    from .tracing import Token

_payload_exit: Final = packer(Op.PAYLOAD_EXIT)
_payload_monitor_p_exit: Final = packer(Op.PAYLOAD_MONITOR_P_EXIT)
_unlink_id_ack: Final = packer(Op.UNLINK_ID_ACK)

_EXITS_WITHOUT_PAYLOAD: Final = frozenset({Op.EXIT, Op.EXIT_TT, Op.EXIT2, Op.EXIT2_TT})
_EXITS_WITH_TOKEN: Final = frozenset({Op.EXIT_TT, Op.PAYLOAD_EXIT_TT, Op.EXIT2_TT, Op.PAYLOAD_EXIT2_TT})

_OP_MONITOR_P_EXIT: Final = int(Op.MONITOR_P_EXIT)
_OP_REG_SEND: Final = int(Op.REG_SEND)
_OP_SEND_SENDER: Final = int(Op.SEND_SENDER)


class Incoming:
    """What the peers of one node send."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._handlers: dict[int, Callable[[Peer, tuple[Any, ...], Any], None]] = {
            Op.SEND: self._in_send,
            Op.SEND_TT: self._in_send_tt,
            Op.SEND_SENDER_TT: self._in_send_tt,
            Op.REG_SEND_TT: self._in_reg_send_tt,
            Op.ALIAS_SEND: self._in_alias_send,
            Op.ALIAS_SEND_TT: self._in_alias_send_tt,
            Op.ALTACT_SIG_SEND: self._in_altact,
            Op.LINK: self._in_link,
            Op.UNLINK_ID: self._in_unlink_id,
            Op.UNLINK_ID_ACK: self._in_unlink_id_ack,
            Op.EXIT: self._in_exit,
            Op.EXIT_TT: self._in_exit,
            Op.PAYLOAD_EXIT: self._in_exit,
            Op.PAYLOAD_EXIT_TT: self._in_exit,
            Op.EXIT2: self._in_exit2,
            Op.EXIT2_TT: self._in_exit2,
            Op.PAYLOAD_EXIT2: self._in_exit2,
            Op.PAYLOAD_EXIT2_TT: self._in_exit2,
            Op.MONITOR_P: self._in_monitor,
            Op.DEMONITOR_P: self._in_demonitor,
            Op.MONITOR_P_EXIT: self._in_monitor_exit,
            Op.PAYLOAD_MONITOR_P_EXIT: self._in_monitor_exit,
            Op.GROUP_LEADER: self._in_group_leader,
            Op.SPAWN_REQUEST: self._in_spawn_request,
            Op.SPAWN_REQUEST_TT: self._in_spawn_request,
            Op.SPAWN_REPLY: self._in_spawn_reply,
            Op.SPAWN_REPLY_TT: self._in_spawn_reply,
        }

    def dispatch(self, peer: Peer, signals: list[tuple[tuple[Any, ...], Any]]) -> None:
        """Carry out what a peer sent, in order."""
        handlers, names, processes = self._handlers, self._router.names, self._router.processes
        for control, payload in signals:
            op = control[0]
            # Messages are the bulk of all signals: they go to their process without a handler in between.
            if op == _OP_REG_SEND:
                process = names.get(control[3])
                if process is not None:
                    process.deliver(payload, control[1])
                continue
            if op == _OP_SEND_SENDER:
                process = processes.get(control[2])
                if process is not None:
                    process.deliver(payload, control[1])
                continue
            handlers[op](peer, control, payload)

    def _in_send(self, peer: Peer, control: tuple[Any, ...], payload: Any) -> None:
        process = self._router.processes.get(control[2])
        if process is not None:
            process.deliver(payload, peer.name)

    def _in_send_tt(self, peer: Peer, control: tuple[Any, ...], payload: Any) -> None:
        process = self._router.processes.get(control[2])
        if process is not None:
            sender = control[1] if control[0] == Op.SEND_SENDER_TT else peer.name
            _deliver_traced(process, payload, control[3], sender)

    def _in_reg_send_tt(self, peer: Peer, control: tuple[Any, ...], payload: Any) -> None:
        process = self._router.names.get(control[3])
        if process is not None:
            _deliver_traced(process, payload, control[4], control[1])

    def _in_alias_send(self, peer: Peer, control: tuple[Any, ...], payload: Any) -> None:
        self._router.aliases.deliver(control[2], payload, sender=control[1])

    def _in_alias_send_tt(self, peer: Peer, control: tuple[Any, ...], payload: Any) -> None:
        self._router.aliases.deliver(control[2], payload, as_token(control[3]), sender=control[1])

    def _in_altact(self, peer: Peer, control: tuple[Any, ...], payload: Any) -> None:
        """A message or an exit signal, perhaps with priority, to a pid, a name or an alias."""
        router = self._router
        flags, sender, to = control[1], control[2], control[3]
        kind = Reference if flags & ALTACT_ALIAS else Pid
        named = flags & ALTACT_NAME
        if (named and (flags & ALTACT_ALIAS or type(to) in (Pid, Reference))) or (not named and type(to) is not kind):
            raise _refusal(peer, control, "has flags that do not fit its destination", "DOP_ALTACT_SIG_SEND")
        token = None
        if flags & ALTACT_TOKEN:
            if len(control) < 5:
                raise _refusal(peer, control, "has no token", "DOP_ALTACT_SIG_SEND")
            token = as_token(control[4])
        priority = bool(flags & ALTACT_PRIO)
        if flags & ALTACT_ALIAS:
            if flags & ALTACT_EXIT:
                router.aliases.exit(sender, to, payload, token, priority)
            else:
                router.aliases.deliver(to, payload, token, priority, sender)
            return
        # Without a priority alias nobody gives anything priority.
        process = router.names.get(to) if named else router.processes.get(to)
        if process is None:
            return
        if flags & ALTACT_EXIT:
            router.exit_signal(process, sender, payload, linked=False, token=token)
        elif token is None:
            process.deliver(payload, sender)
        else:
            process.deliver_marked(payload, token, False)

    def _in_link(self, peer: Peer, control: tuple[Any, ...], payload: Any) -> None:
        _, from_pid, to_pid = control
        process = self._router.processes.get(to_pid)
        if process is None:
            self._check_node(to_pid, peer, control)
            peer.emit(_payload_exit(to_pid, from_pid), NOPROC)
            return
        link = process.links.get(from_pid)
        if link is not None:
            link.link_received()
        else:
            process.links[from_pid] = Link()
            peer.links.setdefault(to_pid, set()).add(from_pid)

    def _in_unlink_id(self, peer: Peer, control: tuple[Any, ...], payload: Any) -> None:
        _, unlink_id, from_pid, to_pid = control
        process = self._router.processes.get(to_pid)
        link = None if process is None else process.links.get(from_pid)
        if process is not None and link is not None:
            link.unlink_received()
            if link.state is LinkState.GONE:
                self._router.forget_link(peer, process, from_pid)
        elif process is None and self._is_of_older_incarnation(to_pid, peer, control):
            return
        # Before any other signal to that process (erl_dist_protocol#link_protocol).
        peer.emit(_unlink_id_ack(unlink_id, to_pid, from_pid))

    def _in_unlink_id_ack(self, peer: Peer, control: tuple[Any, ...], payload: Any) -> None:
        _, unlink_id, from_pid, to_pid = control
        process = self._router.processes.get(to_pid)
        if process is None:
            self._is_of_older_incarnation(to_pid, peer, control)
            return
        link = process.links.get(from_pid)
        if link is not None:
            link.ack_received(unlink_id)
            if link.state is LinkState.GONE:
                self._router.forget_link(peer, process, from_pid)

    def _in_exit(self, peer: Peer, control: tuple[Any, ...], payload: Any) -> None:
        from_pid, to_pid = control[1], control[2]
        process = self._router.processes.get(to_pid)
        if process is None:
            self._check_incarnation(to_pid, peer, control)
            return
        link = process.links.get(from_pid)
        if link is None:
            return
        counts = link.exit_received()
        self._router.forget_link(peer, process, from_pid)
        if counts:
            reason, token = _reason(control, payload)
            self._router.exit_signal(process, from_pid, reason, linked=True, token=token, priority=link.priority)

    def _in_exit2(self, peer: Peer, control: tuple[Any, ...], payload: Any) -> None:
        process = self._router.processes.get(control[2])
        if process is None:
            self._check_node(control[2], peer, control)
            return
        reason, token = _reason(control, payload)
        self._router.exit_signal(process, control[1], reason, linked=False, token=token)

    def _in_monitor(self, peer: Peer, control: tuple[Any, ...], payload: Any) -> None:
        _, from_pid, to_proc, ref = control
        by_pid = type(to_proc) is Pid
        process = self._router.processes.get(to_proc) if by_pid else self._router.names.get(to_proc)
        if process is None:
            if by_pid:
                self._check_node(to_proc, peer, control)
            peer.emit(_payload_monitor_p_exit(to_proc, from_pid, ref), NOPROC)
            return
        shown = to_proc if by_pid else (to_proc, self._router.name)
        self._router.watch(peer, process, ref, from_pid, shown, control)

    def _in_demonitor(self, peer: Peer, control: tuple[Any, ...], payload: Any) -> None:
        to_proc, ref = control[2], control[3]
        by_pid = type(to_proc) is Pid
        pid = peer.watched.get(ref)
        if pid is None:
            if by_pid:
                self._check_node(to_proc, peer, control)
            return
        # A monitor is taken back in the way it was set: by pid, or by name.
        process = self._router.processes[pid]
        watch = process.watchers.get(ref)
        if by_pid:
            same = pid.id == to_proc.id and pid.serial == to_proc.serial and pid.creation == to_proc.creation
            as_set = same and type(watch) is Pid
        else:
            as_set = type(watch) is tuple and watch[1][0] == to_proc
        if as_set:
            del peer.watched[ref]
            process.watchers.pop(ref)

    def _in_monitor_exit(self, peer: Peer, control: tuple[Any, ...], payload: Any) -> None:
        watched, watcher, ref = control[1], control[2], control[3]
        owner = peer.monitors.get(ref)
        if owner is not None and owner.id == watcher.id and owner.serial == watcher.serial:
            del peer.monitors[ref]
            self._router.fire_down(owner, ref, control[4] if control[0] == _OP_MONITOR_P_EXIT else payload)
            return
        # These come by the million, so it is only here that anybody looks whether it could be meant for us.
        me = self._router.name
        if watcher.node != me or (type(watched) is Pid and watched.node == me):
            raise _refusal(peer, control, "is about a process of ours, or for another node", "DOP_MONITOR_P_EXIT")

    def _in_group_leader(self, peer: Peer, control: tuple[Any, ...], payload: Any) -> None:
        process = self._router.processes.get(control[2])
        if process is not None:
            process.group_leader = control[1]

    def _in_spawn_request(self, peer: Peer, control: tuple[Any, ...], payload: Any) -> None:
        self._router.spawning.requested(peer, control, payload)

    def _in_spawn_reply(self, peer: Peer, control: tuple[Any, ...], payload: Any) -> None:
        self._router.spawning.replied(peer, control)

    def _check_node(self, pid: Pid, peer: Peer, control: tuple[Any, ...]) -> None:
        """A process that is not here may be of an older incarnation; of another node it cannot be.

        The answer would name a process of that node as its sender, and a BEAM would close the connection for it.
        """
        if pid.node != self._router.name:
            raise _refusal(peer, control, "is meant for another node", "external pids")

    def _is_of_older_incarnation(self, pid: Pid, peer: Peer, control: tuple[Any, ...]) -> bool:
        """Whether the end of a link is meant for an older incarnation: then it is dropped, and not answered.

        A BEAM sends that when a process unlinks before it has taken in that the link went with the connection; its
        ``global`` does, when a name is registered again at once. A BEAM that receives it closes the connection, though
        dist.c means to drop it: it looks at the node of the sender there, not at that of the receiver.
        """
        self._check_node(pid, peer, control)
        return pid.creation != self._router.creation

    def _check_incarnation(self, pid: Pid, peer: Peer, control: tuple[Any, ...]) -> None:
        """An exit over a link cannot reach an older incarnation: the link was gone with the connection to it."""
        if pid.creation != self._router.creation or pid.node != self._router.name:
            raise _refusal(peer, control, "is meant for another node, or for an older incarnation", "external pids")


def _deliver_traced(process: LocalProcess, message: Any, token: Any, sender: Pid | Atom) -> None:
    token = as_token(token)
    if token is None:
        process.deliver(message, sender)
    else:
        process.deliver_marked(message, token, False)


def _refusal(peer: Peer, control: tuple[Any, ...], what: str, where: str) -> RemoteProtocolError:
    return RemoteProtocolError(
        f"{describe(control)} {what}", peer=peer.name.name, rule=f"dist.c, erts_net_message(): {where}"
    )


def _reason(control: tuple[Any, ...], payload: Any) -> tuple[Any, Token | None]:
    """Reason and trace token of an EXIT or EXIT2; without a payload the reason is the last element."""
    op = control[0]
    token = as_token(control[3]) if op in _EXITS_WITH_TOKEN else None
    return (control[-1] if op in _EXITS_WITHOUT_PAYLOAD else payload), token
