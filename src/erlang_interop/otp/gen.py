"""How a call, a cast and a reply look between processes: OTP's ``gen``.

.. code-block:: text

    call   monitor(process, Dest, [{alias, reply_demonitor}]) -> Mref
           Dest ! {'$gen_call', {Caller, [alias | Mref]}, Request}
           then {[alias | Mref], Reply}, or {'DOWN', Mref, process, _, Reason}
    cast   Dest ! {'$gen_cast', Message}
    reply  Alias ! {Tag, Reply} where the tag holds an alias, else Caller ! {Tag, Reply}

The reference of the monitor is also the alias that the answer goes to. It ends with the first answer and with the
monitor, so an answer that comes after the caller gave up is dropped on arrival and never turns up in a mailbox.

Source: stdlib/src/gen.erl (do_call, send_request, reply); ERTS manual, "Process Aliases".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ..errors import CalleeExited, CallError, CallTimeout, EncodeError, NodeDownError, NoProcess
from ..etf.text import format_term
from ..runtime.atoms import DOWN, NOCONNECTION, NOPROC
from ..runtime.process import Process
from ..terms import Atom, ImproperList, Pid, Reference, Term
from .requests import Request

if TYPE_CHECKING:
    from typing import TypeGuard

    from ..runtime.node import Node
    from ..runtime.peer import Sending
    from ..runtime.process import Destination, LocalProcess, MonitorTarget

#: Who asks, and the tag that the answer must carry: the second element of a ``'$gen_call'``.
From: TypeAlias = tuple[Pid, Term]

#: Seconds a call waits unless told otherwise (``gen_server:call/2``).
DEFAULT_TIMEOUT: Final = 5.0
#: Characters of a term that a message shows; an error has the whole of it in ``.reason``.
SHOWN_REASON: Final = 400

GEN_CALL: Final = Atom("$gen_call")
GEN_CAST: Final = Atom("$gen_cast")
_ALIAS: Final = Atom("alias")
_CALLING_SELF: Final = Atom("calling_self")
_NODEDOWN: Final = Atom("nodedown")
_TIMEOUT: Final = Atom("timeout")


# --------------------------------------------------------------------------------------------------------- the caller


async def call(
    caller: Node | Process,
    dest: MonitorTarget,
    request: Term,
    timeout: float | None = DEFAULT_TIMEOUT,
    *,
    asker: Pid | None = None,
) -> Term:
    """Ask ``dest`` and wait for its answer (``gen_server:call/3``).

    Args:
        caller: The process that asks. A node: a process of its own asks and ends with the answer, so any number of
            tasks may call at once.
        dest: A pid, a name of this node, or ``(name, node)``. A node that is not connected is dialled.
        request: Any term.
        timeout: Seconds to wait; None waits for ever.
        asker: Of a node: the process for which it asks, as ``dest`` sees it; None: the one that asks.

    Raises:
        NoProcess: ``noproc``: nobody has that pid or name.
        CallTimeout: ``timeout``; an answer that comes later is dropped.
        NodeDownError: ``{nodedown, Node}``: the connection was lost, or could not be made; its ``__cause__`` is then
            the ConnectError that says why.
        CalleeExited: the callee ended before it answered; ``reason`` is its exit reason.
        CallError: ``calling_self``: a process calls itself, and could never answer.
        EncodeError: the request has a part that no external term can carry; nothing was sent.
    """
    if isinstance(caller, Process):
        return await _call_as(caller, dest, request, timeout)
    pending = CallRequest(dest, request, asker)
    caller.start_inline(pending)
    return await pending.receive_response(timeout)


class CallRequest(Request):
    """A call under way, made by ``node.send_request``, and the process behind a call from code that is no process.

    An inline server instead of a mailbox and a task of its own: the answer is one method call away from the socket.

    Attributes:
        to: The process that was asked.
    """

    def __init__(self, to: MonitorTarget, request: Term, asker: Pid | None = None) -> None:
        super().__init__()
        self.to = to
        self._request = request
        self._asker = asker

    def started(self) -> None:
        """Ask."""
        self._ref = send_request(self.process, self.to, self._request, asker=self._asker)

    def handle_message(self, message: Term) -> None:
        """The answer, or the DOWN that stands for it; whatever a stranger sends is dropped."""
        if is_response(message, self._ref):
            super().handle_message(message)

    def _timed_out(self, when: str) -> CallTimeout:
        return _timed_out(self.to, when)

    def _result(self, message: Any) -> Term:
        return _result_of(self.node, message, self.to)


async def _call_as(process: Process, dest: MonitorTarget, request: Term, timeout: float | None) -> Term:
    if dest == process.pid or (isinstance(dest, str | Atom) and process.node.whereis(dest) == process.pid):
        raise CallError(
            _CALLING_SELF, f"{process.pid} calls itself, which can never answer: use a method, or send a message"
        )
    waiting = process.mailbox.set_aside()  # the answer is not among these, which may be very many
    try:
        ref = send_request(process, dest, request)
        try:
            message = await process.receive(lambda message: is_response(message, ref), timeout=timeout)
        except BaseException as error:
            # Neither a DOWN nor an answer may turn up later, nor stay if it came between the end of the wait and now.
            process.demonitor(ref)
            process.discard_messages(lambda message: is_response(message, ref))
            if isinstance(error, TimeoutError):
                raise _timed_out(dest, f"within {timeout} s") from None
            raise
    finally:
        process.mailbox.put_back(waiting)
    process.demonitor(ref)  # still there if the answer came to the pid, from a node that knows no aliases
    return _result_of(process.node, message, dest)


def _result_of(node: Node, message: Term, dest: MonitorTarget) -> Term:
    """As ``result``; a NodeDownError has for its cause why the node could not be connected."""
    try:
        return result(message, dest)
    except NodeDownError as error:
        _nodedown, peer = error.reason
        error.__cause__ = node.last_failure(peer)
        raise


def send_request(process: LocalProcess, dest: MonitorTarget, request: Term, *, asker: Pid | None = None) -> Reference:
    """Ask without waiting (``gen_server:send_request/2``): for inline servers, which cannot wait.

    The answer arrives as a message for which ``is_response(message, ref)`` is true; ``result(message, dest)`` is then
    what ``call`` would have returned or raised. ``process.demonitor(ref, flush=True)`` gives up on it.

    Args:
        process: Who asks.
        dest: As for :func:`call`.
        request: Any term.
        asker: As for :func:`call`.

    Returns:
        The request's identifier.
    """
    ref = process.monitor(dest, alias="reply_demonitor")
    try:
        process.send(dest, (GEN_CALL, (asker or process.pid, ImproperList([_ALIAS], ref)), request))
    except BaseException:
        process.demonitor(ref, flush=True)
        raise
    return ref


def is_response(message: Term, ref: Reference) -> bool:
    """Whether ``message`` is the answer to the request ``ref``, or the DOWN that stands for it."""
    if type(message) is not tuple:
        return False
    if len(message) == 2:
        tag = message[0]
        return type(tag) is ImproperList and tag.tail == ref and tag.elements == [_ALIAS]
    return len(message) == 5 and message[0] == DOWN and message[1] == ref


def result(message: Term, dest: MonitorTarget) -> Term:
    """The answer in a message that :func:`is_response` has approved.

    Raises:
        NoProcess, NodeDownError, CalleeExited: as :func:`call`.
    """
    if len(message) == 2:
        return message[1]
    reason = message[4]
    if reason == NOPROC:
        raise NoProcess(reason, _no_process(dest))
    # As gen does, a noconnection of the callee's own (one of its links broke) is not told apart from ours.
    node = dest.node if type(dest) is Pid else Atom(str(dest[1])) if type(dest) is tuple else None
    if reason == NOCONNECTION and node is not None:
        raise NodeDownError(
            (_NODEDOWN, node),
            f"{_shown(dest)} cannot be asked: the connection to {node.name} was lost or could not be made; "
            f"`await node.connect({node.name!r})` says why",
        )
    raise CalleeExited(reason, f"{_shown(dest)} ended before it answered; its exit reason is {shown_term(reason)}")


def cast(caller: Node | LocalProcess, dest: Destination, message: Term) -> Sending:
    """Tell ``dest`` without an answer (``gen_server:cast/2``); it does not fail when nobody is there.

    Returns:
        What ``send`` returns: await it to be parked while the peer is busy.
    """
    return caller.send(dest, (GEN_CAST, message))


# --------------------------------------------------------------------------------------------------------- the callee


def is_from(term: Term) -> TypeGuard[From]:
    """Whether ``term`` can be answered; what arrives as the From of a call may be anything."""
    return type(term) is tuple and len(term) == 2 and type(term[0]) is Pid


def reply(caller: Node | LocalProcess, from_: From, value: Term) -> Sending:
    """Answer a call (``gen_server:reply/2``), now or later, from whichever process.

    Args:
        caller: Who answers; the node stands for nobody in particular.
        from_: What ``handle_call`` was given.
        value: The answer.

    Raises:
        EncodeError: the answer has a part that no external term can carry; nothing was sent.
    """
    pid, tag = from_
    return caller.send(_alias_in(tag) or pid, (tag, value))


def _alias_in(tag: Term) -> Reference | None:
    """The alias of ``[alias | Ref]`` or ``[[alias | Ref] | _]`` (gen.erl: reply/2)."""
    if type(tag) is ImproperList and type(tag.tail) is Reference and tag.elements == [_ALIAS]:
        return tag.tail
    elements = tag.elements if type(tag) is ImproperList else tag
    if type(elements) is list and elements and type(elements[0]) is ImproperList:
        return _alias_in(elements[0])
    return None


# ---------------------------------------------------------------------------------------------------------- in words


def _timed_out(dest: MonitorTarget, when: str) -> CallTimeout:
    return CallTimeout(
        _TIMEOUT,
        f"{_shown(dest)} did not answer {when}: it is busy, stuck, or never replies to this request; "
        f"timeout= allows more (None: for ever)",
    )


def _no_process(dest: MonitorTarget) -> str:
    if type(dest) is Pid:
        return f"{dest} is no living process (any more): ask for its successor by name"
    return f"{_shown(dest)} is not registered there: is the name right, and has the server been started?"


def _shown(dest: MonitorTarget) -> str:
    """``calc on beam@127.0.0.1``, ``calc`` or ``<beam@127.0.0.1.97.0>``."""
    if type(dest) is tuple:
        return f"{dest[0]} on {dest[1]}"
    return str(dest)


def shown_term(term: Term) -> str:
    """A term for a log line or an error message, cut to a readable length."""
    try:
        return format_term(term, limit=SHOWN_REASON)
    except EncodeError:  # between processes of one node any Python value may travel
        text = repr(term)
    return text if len(text) <= SHOWN_REASON else f"{text[: SHOWN_REASON - 3]}..."
