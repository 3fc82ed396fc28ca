"""``erpc``: call functions of other nodes. How others call this node's is in ``rex.py``.

.. code-block:: text

    spawn_request(Node, erpc, execute_call, [Ref, M, F, A], [{reply, error_only}, monitor]) -> ReqId
    {spawn_reply, ReqId, error, Reason}                       error:{erpc, Reason}
    {'DOWN', ReqId, process, _, {Ref, return, Value}}         Value
                                {Ref, throw, Value}           throw:Value
                                {Ref, exit, Reason}           exit:{exception, Reason}
                                {Ref, error, Reason, Stack}   error:{exception, Reason, Stack}
                                {Ref, error, {erpc, Reason}}  error:{erpc, Reason}
                                noconnection                  error:{erpc, noconnection}
                                Reason                        exit:{signal, Reason}
    cast: spawn_request(Node, erpc, execute_cast, [M, F, A], [{reply, no}])

The result is the exit reason of the process that ran the function, and comes as the DOWN of its monitor.

Source: kernel/src/erpc.erl (call/5, send_request/4, result/4, execute_call/4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ..errors import CallError, CallTimeout, ErpcError, NodeDownError, RemoteError, RemoteExit, RemoteThrow
from ..runtime.atoms import BADARG, NOCONNECTION, NORMAL
from ..runtime.inline import InlineServer
from ..runtime.signals import atom_of
from ..terms import Atom
from .gen import shown_term
from .requests import Request, Requests

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..runtime.node import Node
    from ..terms import Reference, Term

ERPC: Final = Atom("erpc")
EXECUTE_CALL: Final = Atom("execute_call")
EXECUTE_CAST: Final = Atom("execute_cast")
RETURN: Final = Atom("return")
THROW: Final = Atom("throw")
EXIT_CLASS: Final = Atom("exit")
TIMEOUT: Final = Atom("timeout")


class ErpcRequest(Request):
    """A call under way, made by ``node.erpc_send_request``.

    Attributes:
        to: The node that was asked.
        mfa: What is called: module, function and list of arguments.
        called: ``module:function/arity``, for messages.
    """

    def __init__(self, to: Atom, module: Atom, function: Atom, arguments: list[Term]) -> None:
        super().__init__()
        self.to = to
        self.called = f"{module.name}:{function.name}/{len(arguments)}"
        self.mfa: list[Any] = [module, function, arguments]

    def started(self) -> None:
        """Ask."""
        self._ref: Reference = self.process.make_ref()
        arguments: list[Any] = [self._ref, *self.mfa]
        self._id = self.process.spawn_request(self.to, ERPC, EXECUTE_CALL, arguments, monitor=True, reply="error_only")

    def handle_message(self, message: Term) -> None:
        """The error, or the DOWN. The function knows who its parent is, and may send it anything."""
        if type(message) is tuple and len(message) in (4, 5) and message[1] == self._id:
            super().handle_message(message)

    def _timed_out(self, when: str) -> CallTimeout:
        return CallTimeout(
            (ERPC, TIMEOUT),
            f"{self.called} did not return {when} on {self.to.name}: it is slow, or waits for something itself; "
            f"timeout= allows more (None: for ever)",
        )

    def _result(self, message: Any) -> Term:
        """What the function returned.

        Raises:
            RemoteError, RemoteExit, RemoteThrow: the function raised that.
            NodeDownError: the connection was lost, or could not be made; its ``__cause__`` says why.
            ErpcError: the node does not do such calls (``notsup``), or has no room for another process.
        """
        if len(message) == 4:  # {spawn_reply, ReqId, error, Reason}
            raise self._failure(message[3])
        match message[4]:
            case (ref, label, *rest) if ref == self._ref:
                return self._caught(label, rest)
            case reason if reason == NOCONNECTION:
                raise self._failure(reason)
            case reason:
                text = f"the process that ran {self.called} on {self.to.name} was ended: {shown_term(reason)}"
                raise RemoteExit(reason, text, signal=True)

    def _caught(self, label: Term, rest: list[Any]) -> Term:
        if label == RETURN:
            return rest[0]
        text = f"{self.called} failed on {self.to.name}: {shown_term(rest[0])}"
        if label == THROW:
            raise RemoteThrow(rest[0], f"{self.called} on {self.to.name} threw {shown_term(rest[0])}")
        if label == EXIT_CLASS:
            raise RemoteExit(rest[0], text)
        if len(rest) == 2:
            raise RemoteError(rest[0], rest[1], text)
        raise self._failure(rest[0][1])

    def _failure(self, reason: Term) -> CallError:
        """``error:{erpc, Reason}``."""
        if reason == NOCONNECTION:
            lost = NodeDownError(
                (ERPC, reason),
                f"{self.called} cannot be called: the connection to {self.to.name} was lost or could not be made; "
                f"`await node.connect({self.to.name!r})` says why",
            )
            lost.__cause__ = self.node.last_failure(self.to)
            return lost
        return ErpcError(reason, f"{self.called} was not called on {self.to.name}: {shown_term(reason)}")


def send_request(
    node: Node, to: Atom | str, module: Atom | str, function: Atom | str, args: Sequence[Term]
) -> ErpcRequest:
    """``erpc:send_request/4``: call without waiting."""
    request = ErpcRequest(atom_of(to), atom_of(module), atom_of(function), _listed(args))
    node.start_inline(request)
    return request


async def call(
    node: Node,
    to: Atom | str,
    module: Atom | str,
    function: Atom | str,
    args: Sequence[Term],
    timeout: float | None,
) -> Term:
    """``erpc:call/5``."""
    return await send_request(node, to, module, function, args).receive_response(timeout)


class _Caster(InlineServer):
    """Who casts: a spawn request is some process's."""

    def __init__(self, to: Iterable[Atom], mfa: list[Any]) -> None:
        self._to = to
        self.mfa = mfa

    def started(self) -> None:
        for to in self._to:
            self.process.spawn_request(to, ERPC, EXECUTE_CAST, self.mfa, reply="no")


def multicast(
    node: Node, to: Iterable[Atom | str], module: Atom | str, function: Atom | str, args: Sequence[Term]
) -> None:
    """``erpc:multicast/4``."""
    caster = _Caster([atom_of(each) for each in to], [atom_of(module), atom_of(function), _listed(args)])
    pid = node.start_inline(caster)
    caster.process.exit(pid, NORMAL)


async def multicall(
    node: Node,
    to: Iterable[Atom | str],
    module: Atom | str,
    function: Atom | str,
    args: Sequence[Term],
    timeout: float | None,
) -> list[Term | CallError]:
    """``erpc:multicall/5``."""
    asked = [send_request(node, each, module, function, args) for each in to]
    with Requests[ErpcRequest]() as requests:
        for request in asked:
            requests.add(request, request)
        outcomes = {request: outcome async for request, outcome in requests.responses(timeout)}
    return [outcomes[request] for request in asked]


def _listed(args: Sequence[Term]) -> list[Term]:
    """The arguments as a list; a str is one by mistake.

    Raises:
        ErpcError: ``badarg``.
    """
    if isinstance(args, str | bytes):
        raise ErpcError(BADARG, f"the arguments are a list of terms: write [{args!r}] for one of them")
    return list(args)
