"""What both halves of a scope's interface do: check what they are given, and let the node of a process decide."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from erlang_interop import Atom, Export, NoProcess, Pid
from erlang_interop.otp.exact import carried
from erlang_interop.runtime.inline import crash_reason

from . import messages as m
from .errors import NotSelf, invalid_remote_scope, invalid_scope, refusal
from .scope import FunFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from erlang_interop import LocalProcess, Node, Term

    from .server import ScopeServer

#: Seconds that the node of a process may take to decide (``gen_server:call/2``, as in syn).
TIMEOUT: Final = 5.0

#: Makes new metadata of the old ones.
Update: TypeAlias = "Callable[..., Any] | Export"


class Asking(ABC):
    """What the names and the groups of a scope are asked through; a ``Scope`` is both.

    Attributes:
        node: This node.
        name: The scope's name.
        strict: Whether processes are only registered, and only join, by themselves; see ``open_scope``.
    """

    node: Node
    name: Atom
    strict: bool

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Whether the scope is still there."""

    def _require_open(self) -> None:
        if not self.is_open:
            raise invalid_scope(
                self.name, "it was closed, or its processes crashed too often (the log says why); open it again"
            )

    def _require_self(self, pid: Pid, caller: LocalProcess | None) -> None:
        if type(pid) is not Pid:
            raise TypeError(f"{pid!r} is no pid")
        if self.strict and (caller is None or caller.pid != pid):
            raise NotSelf(
                f"the scope {self.name.name!r} is strict: only {pid} can do that for itself, with caller=process",
                Atom("not_self"),
            )

    def _function(self, pid: Pid, fun: Update) -> Function:
        if isinstance(fun, Export):
            return Function(fun, fun)
        if not callable(fun):
            raise TypeError(f"{fun!r} is no function")
        if pid.node != self.node.name:
            raise TypeError(
                f"the metadata of {pid} are updated on {pid.node.name}, and a Python function cannot be sent there: "
                f"give an external fun, as Export(Atom('module'), Atom('function'), arity)"
            )
        return Function(fun)

    async def _ask(self, server: ScopeServer, pid: Pid, request: Term, timeout: float) -> Any:
        """Let the node of the process decide."""
        self._require_open()
        try:
            return await server.request(pid.node, request, timeout)
        except NoProcess as error:
            self._require_open()
            if not server.running:
                raise invalid_scope(self.name, str(error)) from error
            raise invalid_remote_scope(self.name, pid.node) from error


def carried_term(term: Term) -> Any:
    """A name, a group or metadata as all members will see it. Raises EncodeError."""
    return carried(term, m.WHY_NO_RECORDS)


def metadata(meta: Term) -> Any:
    """Metadata as all members will see them. Raises EncodeError, and TypeError for a function."""
    if m.is_fun(meta):
        raise TypeError(f"metadata cannot be a function, and {meta!r} is one")
    return carried_term(meta)


class Function:
    """A function of the user's that makes new metadata of the old ones.

    Attributes:
        sent: What stands in the request.
        error: What the function has raised.
    """

    def __init__(self, fun: Update, sent: Export | None = None) -> None:
        self._fun: Any = fun
        self.sent: Any = sent or self._run
        self.error: Exception | None = None

    def _run(self, *arguments: Any) -> Any:
        try:
            return metadata(self._fun(*arguments))
        except Exception as error:
            self.error = error
            raise FunFailed(m.ERROR, crash_reason(error), []) from error


def new_meta(
    reply: Any,
    what: str,
    key: Term,
    pid: Pid,
    *,
    where: Literal["registry", "pg"] = "registry",
    run: Function | None = None,
) -> Any:
    """The metadata that an authority has stored, or has had already. Raises what it said instead."""
    stored = m.parse_stored(reply)
    if stored is not None:
        return stored.meta
    if reply[0] == m.NOOP:
        return reply[1]
    raise refusal(reply, what, key, pid, where, None if run is None else run.error)
