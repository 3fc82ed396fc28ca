"""Trace tokens: what Erlang's ``seq_trace`` passes on from message to message.

A message may carry a token, ``{Flags, Label, Serial, From, Prev}``. Who receives it has the token from then on and
sends it along with all messages, until one without a token is received. So ``seq_trace`` follows a sequence of messages
through processes of this node as well; the counters tell in which order it went. Nothing is printed here: where the
messages are traced to is a matter of the BEAMs they pass.

Messages with something beside them, a token or priority, go out through here; all others never come this way.

Source: kernel, ``seq_trace``; ``seq_trace_update_serial()`` of ``erl_trace.c``; ``erts_dsig_send_msg()`` and
``erts_dsig_send_exit_tt()`` of ``dist.c``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from ..terms import Pid, Reference
from ..wire.control import ALTACT_ALIAS, ALTACT_EXIT, ALTACT_NAME, ALTACT_PRIO, ALTACT_TOKEN, Op, packer
from .peer import SENT

if TYPE_CHECKING:
    from ..terms import Atom, Term
    from .peer import Peer, Sending
    from .process import LocalProcess
    from .signals import Router

#: ``{Flags, Label, Serial, From, Prev}``.
Token: TypeAlias = "tuple[int, Any, int, Any, int]"

_alias_send: Final = packer(Op.ALIAS_SEND)
_alias_send_tt: Final = packer(Op.ALIAS_SEND_TT)
_altact_sig_send: Final = packer(Op.ALTACT_SIG_SEND)
_payload_exit: Final = packer(Op.PAYLOAD_EXIT)
_payload_exit_tt: Final = packer(Op.PAYLOAD_EXIT_TT)
_payload_exit2: Final = packer(Op.PAYLOAD_EXIT2)
_reg_send: Final = packer(Op.REG_SEND)
_reg_send_tt: Final = packer(Op.REG_SEND_TT)
_send_sender: Final = packer(Op.SEND_SENDER)
_send_sender_tt: Final = packer(Op.SEND_SENDER_TT)


def as_token(term: Any) -> Token | None:
    """``term`` if it is a trace token, else None: ``[]`` stands for none, and nothing else is of use to anybody."""
    if type(term) is tuple and len(term) == 5 and type(term[0]) is type(term[2]) is type(term[4]) is int:
        return cast("Token", term)
    return None


def received(process: LocalProcess, token: Token) -> None:
    """``process`` takes a message that was sent with ``token``."""
    process.trace_token = token
    process.trace_last = serial = token[2]
    if process.trace_clock < serial:
        process.trace_clock = serial


def next_token(process: LocalProcess) -> Token | None:
    """The token for what ``process`` sends now, None if it has none: the serial counts on."""
    token = process.trace_token
    if token is None:
        return None
    process.trace_clock += 1
    process.trace_token = token = (token[0], token[1], process.trace_clock, process.pid, process.trace_last)
    return token


def alias_send(peer: Peer, sender: Pid, alias: Reference) -> tuple[Any, ...]:
    """The control tuple of a message to an alias: ``ALTACT_SIG_SEND`` since OTP 28, ``ALIAS_SEND`` before."""
    if peer.altact:
        return _altact_sig_send(ALTACT_ALIAS, sender, alias)
    return _alias_send(sender, alias)


def send_marked(
    router: Router, process: LocalProcess, dest: Pid | Reference | tuple[Atom, Atom], message: Term, priority: bool
) -> Sending:
    """``erlang:send/3`` by a process with a trace token, or of a priority message.

    Args:
        dest: A pid, an alias or ``(name, node)``, here or elsewhere.
    """
    node = dest[1] if type(dest) is tuple else cast("Pid | Reference", dest).node
    token = next_token(process)
    if node != router.name:
        peer = router.peer(node)
        peer.emit(_message_control(peer, process.pid, dest, token, priority), message)
        return peer.sending
    if type(dest) is Reference:
        router.aliases.deliver(dest, message, token, priority, process.pid)
        return SENT
    target = router.processes.get(dest) if type(dest) is Pid else router.names.get(dest[0])
    if target is not None:
        if token is None:
            target.deliver(message, process.pid)
        else:
            target.deliver_marked(message, token, False)
    return SENT


def _message_control(peer: Peer, sender: Pid, dest: Any, token: Token | None, priority: bool) -> tuple[Any, ...]:
    """The control tuple of a message for ``peer``."""
    alias, named = type(dest) is Reference, type(dest) is tuple
    to = dest[0] if named else dest
    if peer.altact and (priority or alias):
        flags = ALTACT_ALIAS if alias else ALTACT_NAME if named else 0
        if priority:
            flags |= ALTACT_PRIO
        if token is None:
            return _altact_sig_send(flags, sender, to)
        return (*_altact_sig_send(flags | ALTACT_TOKEN, sender, to), token)
    if token is None:
        return (_alias_send if alias else _reg_send if named else _send_sender)(sender, to)
    return (_alias_send_tt if alias else _reg_send_tt if named else _send_sender_tt)(sender, to, token)


def send_exit(router: Router, process: LocalProcess, dest: Pid | Reference, reason: Term, priority: bool) -> None:
    """``erlang:exit/2,3`` by ``process``. To another node it goes without a token, as from a BEAM."""
    if dest.node == router.name:
        token = next_token(process)
        if type(dest) is Reference:
            router.aliases.exit(process.pid, dest, reason, token, priority)
        else:
            target = router.processes.get(dest)
            if target is not None:
                router.exit_signal(target, process.pid, reason, linked=False, token=token)
        return
    peer = router.peer(dest.node)
    alias = type(dest) is Reference
    if peer.altact and (priority or alias):
        flags = ALTACT_EXIT | (ALTACT_ALIAS if alias else 0) | (ALTACT_PRIO if priority else 0)
        peer.emit(_altact_sig_send(flags, process.pid, dest), reason)
    elif not alias:  # to an alias of an older node there is no way: a BEAM drops the signal as well
        peer.emit(_payload_exit2(process.pid, dest), reason)


def link_exit(process: LocalProcess, pid: Pid) -> tuple[Any, ...]:
    """The control tuple of the exit signal that ``process``, which has ended, sends through its link to ``pid``."""
    token = next_token(process)
    return _payload_exit(process.pid, pid) if token is None else _payload_exit_tt(process.pid, pid, token)
