"""ZenMonitor's wire contract as types and pure functions: what a Proxy and a Local say to each other.

Between a *Connector* (one per remote node, on the side of the Local) and the *Proxy* of that node::

    Connector -> Proxy    {'$gen_call', {Connector, Tag}, ping}              answered with {Tag, pong}
    Connector -> Proxy    {'$gen_cast', {process, Connector, [{subscribe, Target} | {unsubscribe, Target}, ...]}}
    (older Connectors)    {'$gen_cast', {subscribe, Connector, [Target, ...]}}
    Proxy -> Connector    {dead, ProxyNode, [{Target, Reason}, ...]}

and at the very end ``{'DOWN', Ref, process, Object, {zen_monitor, Reason}}`` to whoever asked for the monitor. A
``Target`` is a pid, ``{Name, Node}``, or a bare ``Name`` of the Proxy's own node. The subscriber is the pid *in* the
message, not its sender. ZenMonitor 2.1.0 speaks exactly this; it has not changed since 1.0.0.

Parsing never raises: what is not of these forms comes back as :class:`Malformed`, because one bad message from a peer
must not cost anybody else a DOWN. Compiled by mypyc, which knows no patterns like ``Atom("dead")``: guards compare.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeGuard

from erlang_interop.terms import Atom, ImproperList, Pid, Reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from erlang_interop.terms import Term

PROXY: Final = Atom("Elixir.ZenMonitor.Proxy")
LOCAL: Final = Atom("Elixir.ZenMonitor.Local")
DISPATCHER: Final = Atom("Elixir.ZenMonitor.Local.Dispatcher")
SUPERVISOR: Final = Atom("Elixir.ZenMonitor.Supervisor")

GEN_CALL: Final = Atom("$gen_call")
GEN_CAST: Final = Atom("$gen_cast")
PING: Final = Atom("ping")
PONG: Final = Atom("pong")
PROCESS: Final = Atom("process")
SUBSCRIBE: Final = Atom("subscribe")
UNSUBSCRIBE: Final = Atom("unsubscribe")
DEAD: Final = Atom("dead")
DOWN: Final = Atom("DOWN")
ALIAS: Final = Atom("alias")
ZEN_MONITOR: Final = Atom("zen_monitor")
NODEDOWN: Final = Atom("nodedown")
NOPROC: Final = Atom("noproc")
NOCONNECTION: Final = Atom("noconnection")
#: In the place of what was cut off a reason (``truncator.py``, which is not compiled).
TRUNCATED: Final = Atom("truncated")

#: What can be monitored: a pid, ``(name, node)``, or a bare name.
Target: TypeAlias = "Pid | Atom | tuple[Atom, Atom]"
#: The monitors of one target: one, the usual case, or several in the order they were made.
References: TypeAlias = "Reference | dict[Reference, None]"
#: What tells the Proxy of the death of a target: the reference of a monitor, or the target itself, a pid of its node.
Guard: TypeAlias = "Reference | Pid"
#: ``(SUBSCRIBE, target)`` or ``(UNSUBSCRIBE, target)``, in the form in which it travels.
Instruction: TypeAlias = "tuple[Atom, Target]"
#: ``(target, reason)``, in the form in which it travels.
Certificate: TypeAlias = "tuple[Target, Term]"


@dataclass(slots=True)
class PingCall:
    """A Connector asks whether this node speaks ZenMonitor."""

    reply_to: Pid | Reference
    """Where the answer goes: the caller's alias if its tag carries one, else its pid."""
    tag: Any
    """Echoed as it came, whatever it is."""


@dataclass(slots=True)
class ProcessCast:
    """Instructions of one subscriber, to be applied strictly in order."""

    subscriber: Pid
    instructions: list[Any]
    """Not checked yet, one by one: a cast may hold 100,000 of them. See :func:`parse_instruction`."""
    problem: str = ""
    """What was wrong with the message although its instructions can be used; empty when nothing was."""


@dataclass(slots=True)
class DeadSummary:
    """Death certificates from the Proxy of ``node``."""

    node: Any
    certificates: list[Any]
    problem: str = ""


@dataclass(slots=True)
class Down:
    """``{'DOWN', Ref, process, Object, Reason}``: a native monitor has fired."""

    ref: Reference
    object: Target
    reason: Any


@dataclass(slots=True)
class Reply:
    """``{Ref, Answer}``: an answer to a call this process has made."""

    ref: Reference
    answer: Any


@dataclass(slots=True)
class Malformed:
    """A message of no known form."""

    problem: str


def is_target(term: Term) -> TypeGuard[Target]:
    """True for a pid, an atom, or a pair of atoms; ``nil``, ``true`` and ``false`` name no process here."""
    kind = type(term)
    return (
        kind is Pid
        or kind is Atom
        or (kind is tuple and len(term) == 2 and type(term[0]) is Atom and type(term[1]) is Atom)
    )


def parse_instruction(term: Term) -> Instruction | None:
    """``term`` itself if it is a well-formed instruction, else None."""
    if type(term) is tuple and len(term) == 2 and (term[0] == SUBSCRIBE or term[0] == UNSUBSCRIBE):
        return term if is_target(term[1]) else None
    return None


def parse_down(message: Term) -> tuple[Reference, Target, Term] | None:
    """Reference, object and reason of ``{'DOWN', Ref, process, Object, Reason}``: a native monitor has fired. Or None.

    A Proxy may get very many at once, so there is no object of its own for each.
    """
    if type(message) is not tuple or len(message) != 5 or message[0] != DOWN or message[2] != PROCESS:
        return None
    ref, object_ = message[1], message[3]
    return (ref, object_, message[4]) if type(ref) is Reference and is_target(object_) else None


def parse_proxy_message(message: Term) -> PingCall | ProcessCast | Malformed:
    """What has arrived at the Proxy and is no DOWN, see :func:`parse_down`.

    Args:
        message: Any term at all.
    """
    if type(message) is not tuple:
        return Malformed("neither a call, a cast nor a DOWN")
    match message:
        case (tag, (kind, Pid() as subscriber, instructions)) if tag == GEN_CAST and kind == PROCESS:
            elements, problem = _elements(instructions)
            return Malformed(problem) if elements is None else ProcessCast(subscriber, elements, problem)
        case (tag, (kind, Pid() as subscriber, targets)) if tag == GEN_CAST and kind == SUBSCRIBE:
            elements, problem = _elements(targets)
            if elements is None:
                return Malformed(problem)
            return ProcessCast(subscriber, [(SUBSCRIBE, target) for target in elements], problem)
        case (tag, (Pid() as caller, call_tag), request) if tag == GEN_CALL:
            if request == PING:
                return PingCall(_reply_to(caller, call_tag), call_tag)
            return Malformed("a call the Proxy does not know")
        case (tag, _) if tag == GEN_CAST:
            return Malformed("a cast the Proxy does not know")
        case _:
            return Malformed("neither a call, a cast nor a DOWN")


def parse_connector_message(message: Term) -> DeadSummary | Reply | Down | Malformed:
    """What has arrived at a Connector.

    Args:
        message: Any term at all.
    """
    if type(message) is not tuple:
        return Malformed("no message for a Connector")
    match message:
        case (tag, node, certificates) if tag == DEAD:
            elements, problem = _elements(certificates)
            return Malformed(problem) if elements is None else DeadSummary(node, elements, problem)
        case (Reference() as ref, answer):
            return Reply(ref, answer)
        case _:
            down = parse_down(message)
            return Malformed("no message for a Connector") if down is None else Down(*down)


def gen_call(caller: Pid, tag: Term, request: Term) -> Term:
    """``{'$gen_call', {Caller, Tag}, Request}``."""
    return (GEN_CALL, (caller, tag), request)


def gen_cast(request: Term) -> Term:
    """``{'$gen_cast', Request}``."""
    return (GEN_CAST, request)


def ping_call(caller: Pid, tag: Term) -> Term:
    """``{'$gen_call', {Caller, Tag}, ping}``."""
    return gen_call(caller, tag, PING)


def pong_reply(tag: Term) -> Term:
    """``{Tag, pong}``."""
    return (tag, PONG)


def process_request(subscriber: Pid, instructions: Sequence[Instruction]) -> Term:
    """``{process, Subscriber, Instructions}``, to be cast."""
    return (PROCESS, subscriber, list(instructions))


def process_cast(subscriber: Pid, instructions: Sequence[Instruction]) -> Term:
    """``{'$gen_cast', {process, Subscriber, Instructions}}``."""
    return gen_cast(process_request(subscriber, instructions))


def dead_summary(node: Atom, certificates: Sequence[Certificate]) -> Term:
    """``{dead, Node, Certificates}``; ``node`` is the Proxy's own."""
    return (DEAD, node, list(certificates))


def down_message(ref: Reference, object_: Term, reason: Term) -> Term:
    """``{'DOWN', Ref, process, Object, {zen_monitor, Reason}}``."""
    return (DOWN, ref, PROCESS, object_, (ZEN_MONITOR, reason))


def _elements(term: Term) -> tuple[list[Any] | None, str]:
    """The elements of a list; those of an improper list too, with a word about its tail."""
    if type(term) is list:
        return term, ""
    if type(term) is ImproperList:
        return list(term.elements), "an improper list"
    return None, "no list where one belongs"


def _reply_to(caller: Pid, tag: Term) -> Pid | Reference:
    """``[alias | Ref]`` asks for the answer at the alias ``Ref``; anything else is answered to the pid."""
    if type(tag) is ImproperList and type(tag.tail) is Reference and list(tag.elements) == [ALIAS]:
        return tag.tail
    return caller
