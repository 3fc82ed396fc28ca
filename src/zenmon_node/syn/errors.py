"""What can go wrong with a scope, as classes. Each error has in ``reason`` what syn has in its place.

A call to another node can also end as calls do: ``CallTimeout``, ``NodeDownError`` (``{nodedown, Node}``),
``CalleeExited``. What the function of ``update_registry`` or ``update_member`` raises on another node is a
``RemoteException``, on this one it is raised as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from erlang_interop.errors import ErlangInteropError, RemoteError, RemoteException, RemoteExit, RemoteThrow
from erlang_interop.otp.gen import shown_term
from erlang_interop.terms import Atom

from . import messages as m

if TYPE_CHECKING:
    from erlang_interop.terms import Pid, Term


class SynError(ErlangInteropError):
    """An operation on a scope was refused.

    Attributes:
        reason: The term that syn returns, ``{error, Reason}``, or raises: an atom, or a tuple.
    """

    def __init__(self, message: str, reason: Term) -> None:
        """``message`` is complete; ``reason`` is for programs."""
        super().__init__(message, reason)
        self.message = message
        self.reason: Any = reason

    def __str__(self) -> str:
        """The message alone."""
        return self.message


class Taken(SynError):
    """``taken``: another process has the name."""


class NotAlive(SynError):
    """``not_alive``: the process has ended."""


class NotSelf(SynError):
    """``not_self``: the scope is strict, and the caller is not the process itself."""


class NameUndefined(SynError):
    """``undefined``: nobody has the name."""


class RaceCondition(SynError):
    """``race_condition``: the name has changed hands, and this node has not heard of it yet."""


class NotInGroup(SynError):
    """``not_in_group`` (of ``update_member``: ``undefined``): the process is no member of the group."""


class InvalidScope(SynError):
    """``{invalid_scope, Scope}``: this node is not in the scope (any more)."""


class InvalidRemoteScope(SynError):
    """``{invalid_remote_scope, Scope, Node}``: the node of the process is not in the scope."""


def invalid_scope(scope: Atom, why: str) -> InvalidScope:
    """The error for a scope that this node is not in."""
    return InvalidScope(f"this node is not in the scope {scope.name!r}: {why}", (Atom("invalid_scope"), scope))


def invalid_remote_scope(scope: Atom, node: Atom) -> InvalidRemoteScope:
    """The error for a scope that another node is not in."""
    return InvalidRemoteScope(
        f"{node.name} is not in the scope {scope.name!r}, so none of its processes can be: add it to the scope there "
        f"(syn:add_node_to_scopes([{scope.name}]), or open_scope in Python)",
        (Atom("invalid_remote_scope"), scope, node),
    )


_REFUSALS: Final[dict[Any, tuple[type[SynError], str]]] = {
    m.TAKEN: (Taken, "another process has the name: scope.lookup(name) says which"),
    m.NOT_ALIVE: (NotAlive, "the process has ended"),
    m.RACE_CONDITION: (RaceCondition, "another process has got it meanwhile: look it up, and decide again"),
    m.NOT_IN_GROUP: (NotInGroup, "it is no member of the group"),
}


def refusal(
    reply: Any, what: str, key: Term, pid: Pid, where: Literal["registry", "pg"], failure: Exception | None = None
) -> Exception:
    """What the node of a process has answered instead of doing it, as an exception.

    Args:
        reply: The answer.
        what: What it was asked for, for the message: a verb.
        key: The name, or the group.
        pid: The process.
        where: What ``undefined`` is about.
        failure: What the function for new metadata has raised, if it was one of this node.
    """
    asked = f"cannot {what} {shown_term(key)}, {pid}"
    match reply:
        case (verdict, Atom() as reason) if verdict == m.ERROR and reason in _REFUSALS:
            error, why = _REFUSALS[reason]
            return error(f"{asked}: {why}", reason)
        case (verdict, class_, reason, stack) if verdict == m.RAISE:
            if failure is not None:
                return failure
            return _remote_exception(class_, reason, stack, f"{asked}: the function failed there")
        case (verdict, reason) if reason == m.UNDEFINED:  # of 3.3.0 in a form of its own
            if where == "registry":
                return NameUndefined(f"{asked}: it does not have the name (any more)", m.UNDEFINED)
            return NotInGroup(f"{asked}: it is no member of the group", m.UNDEFINED)
    return SynError(f"{asked}: {pid.node.name} says {shown_term(reply)}", reply[1])


def _remote_exception(class_: Term, reason: Term, stack: Any, message: str) -> RemoteException:
    message = f"{message}: {shown_term(class_)}: {shown_term(reason)}"
    if class_ == Atom("exit"):
        return RemoteExit(reason, message)
    if class_ == Atom("throw"):
        return RemoteThrow(reason, message)
    return RemoteError(reason, stack if isinstance(stack, list) else [], message)
