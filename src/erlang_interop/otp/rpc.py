"""``rpc``: call functions of other nodes with the results of ``rpc:call``. How others call this node's: ``rex.py``.

.. code-block:: text

    what erpc gives                     rpc:call
    Value                               Value
    throw:Value                         Value
    {'EXIT', _}, returned or thrown     {badrpc, {'EXIT', _}}
    exit:{exception, Reason}            {badrpc, {'EXIT', Reason}}
    exit:{signal, Reason}               {badrpc, {'EXIT', Reason}}
    error:{exception, Reason, Stack}    {badrpc, {'EXIT', {Reason, Stack}}}
    error:{erpc, noconnection}          {badrpc, nodedown}            NodeDownError
    error:{erpc, timeout}               {badrpc, timeout}             CallTimeout
    error:{erpc, notsup}                the node's rex is asked; when that ends, or is not there:
                                        {badrpc, {'EXIT', {Reason, {gen_server, call, Arguments}}}}
    error:{erpc, Reason}                {badrpc, {'EXIT', Reason}}

``{badrpc, Reason}`` is a :class:`BadRpc`, but for the two that have a class of their own.

Source: kernel/src/rpc.erl (call/5, block_call/5, multicall/5, cast/4, rpcify_exception/2, rpc_check/1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ..errors import (
    BadRpc,
    CalleeExited,
    CallError,
    CallTimeout,
    ErpcError,
    NodeDownError,
    NoProcess,
    RemoteError,
    RemoteExit,
    RemoteThrow,
)
from ..runtime.atoms import EXIT, NOTSUP
from ..runtime.signals import atom_of
from ..terms import Atom
from . import erpc, gen
from .io_server import USER
from .requests import Requests

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..runtime.node import Node
    from ..terms import Pid, Term

REX: Final = Atom("rex")
CALL: Final = Atom("call")
BLOCK_CALL: Final = Atom("block_call")
BADRPC: Final = Atom("badrpc")
_GEN_SERVER: Final = Atom("gen_server")
_INFINITY: Final = Atom("infinity")
_NODEDOWN: Final = Atom("nodedown")


async def call(
    node: Node,
    to: Atom | str,
    module: Atom | str,
    function: Atom | str,
    args: Sequence[Term],
    timeout: float | None,
) -> Term:
    """``rpc:call/5``."""
    ((_, answer),) = await _ask(node, [to], module, function, args, timeout)
    if isinstance(answer, CallError):
        raise answer
    return answer


async def block_call(
    node: Node,
    to: Atom | str,
    module: Atom | str,
    function: Atom | str,
    args: Sequence[Term],
    timeout: float | None,
) -> Term:
    """``rpc:block_call/5``."""
    mfa = [atom_of(module), atom_of(function), list(args)]
    return await _ask_rex(node, BLOCK_CALL, atom_of(to), mfa, timeout).receive_response(timeout)


async def multicall(
    node: Node,
    to: Iterable[Atom | str],
    module: Atom | str,
    function: Atom | str,
    args: Sequence[Term],
    timeout: float | None,
) -> tuple[list[Term | BadRpc], list[Atom]]:
    """``rpc:multicall/5``."""
    results: list[Term | BadRpc] = []
    bad_nodes: list[Atom] = []
    for name, answer in await _ask(node, to, module, function, args, timeout):
        if isinstance(answer, CallTimeout | NodeDownError):
            bad_nodes.append(name)
        else:
            results.append(answer)
    return results, bad_nodes


async def _ask(
    node: Node,
    to: Iterable[Atom | str],
    module: Atom | str,
    function: Atom | str,
    args: Sequence[Term],
    timeout: float | None,
) -> list[tuple[Atom, Term | CallError]]:
    """The nodes in their order, each with what ``rpc:call`` gives: a value, a BadRpc, CallTimeout or NodeDownError."""
    asked = [erpc.send_request(node, each, module, function, args) for each in to]
    answers: dict[erpc.ErpcRequest, Term | CallError] = {}
    with Requests[erpc.ErpcRequest]() as requests:
        for request in asked:
            requests.add(request, request)
        async for request, answer in requests.responses(timeout):
            if isinstance(answer, ErpcError) and answer.reason == NOTSUP:
                requests.add(_ask_rex(node, CALL, request.to, request.mfa, timeout), request)
                continue
            try:
                answers[request] = _rpcified(answer, request)
            except CallError as error:
                answers[request] = error
    return [(request.to, answers[request]) for request in asked]


class _RexRequest(gen.CallRequest):
    """What a node's ``rex`` server is asked, which does not need to know ``erpc``."""

    def __init__(self, what: Atom, to: Atom, mfa: list[Any], leader: Pid | Atom, timeout: float | None) -> None:
        module, function, arguments = mfa
        request = (what, module, function, arguments, leader)
        super().__init__((REX, to), request)
        self._node_asked = to
        self._called = f"{module.name}:{function.name}/{len(arguments)}"
        milliseconds = _INFINITY if timeout is None else round(timeout * 1000)
        #: What gen_server:call/3 of OTP exits with besides the reason.
        self._call: Term = (_GEN_SERVER, CALL, [(REX, to), request, milliseconds])

    def _result(self, message: Any) -> Term:
        try:
            answer = super()._result(message)
        except (NoProcess, CalleeExited) as error:
            raise BadRpc((EXIT, (error.reason, self._call)), error.message) from None
        match answer:
            case (tag, reason) if tag == BADRPC:
                raise _bad(reason, self._called, self._node_asked)
        return _checked(answer, self._called, self._node_asked)


def _ask_rex(node: Node, what: Atom, to: Atom, mfa: list[Any], timeout: float | None) -> _RexRequest:
    request = _RexRequest(what, to, mfa, node.default_group_leader or USER, timeout)
    node.start_inline(request)
    return request


def _checked(value: Term, called: str, to: Atom) -> Term:
    """A value, unless it looks like what ``catch`` makes of an exit."""
    if type(value) is tuple and len(value) == 2 and value[0] == EXIT:
        raise _bad(value, called, to)
    return value


def _rpcified(answer: Term | CallError, request: erpc.ErpcRequest) -> Term:
    """What ``rpc`` makes of an answer that ``erpc`` has given; one of ``rex`` stays what it is."""
    match answer:
        case RemoteThrow():
            return _checked(answer.reason, request.called, request.to)
        case RemoteError():
            raise _bad((EXIT, (answer.reason, answer.stack)), request.called, request.to)
        case RemoteExit():
            raise _bad((EXIT, answer.reason), request.called, request.to)
        case CallTimeout():
            raise CallTimeout(erpc.TIMEOUT, answer.message)
        case NodeDownError():
            raise NodeDownError((_NODEDOWN, request.to), answer.message) from answer.__cause__
        case ErpcError():
            raise BadRpc((EXIT, answer.reason), answer.message)
        case BadRpc():
            raise answer
    return _checked(answer, request.called, request.to)


def _bad(reason: Term, called: str, to: Atom) -> BadRpc:
    return BadRpc(reason, f"{called} failed on {to.name}: {gen.shown_term(reason)}")
