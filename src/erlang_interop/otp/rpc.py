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
    error:{erpc, notsup}                the node's rex is asked, as OTP 23 and 24 did
    error:{erpc, Reason}                {badrpc, Reason}

``{badrpc, Reason}`` is a :class:`BadRpc`, but for the two that have a class of their own.

Source: kernel/src/rpc.erl (call/5, block_call/5, multicall/5, cast/4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..errors import BadRpc, CallError, CallTimeout, ErpcError, NodeDownError, RemoteError, RemoteExit, RemoteThrow
from ..runtime.atoms import EXIT, NOTSUP
from ..runtime.signals import atom_of
from ..terms import Atom
from . import erpc, gen
from .io_server import USER

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..runtime.node import Node
    from ..terms import Term

REX: Final = Atom("rex")
CALL: Final = Atom("call")
BLOCK_CALL: Final = Atom("block_call")
BADRPC: Final = Atom("badrpc")
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
    request = erpc.send_request(node, to, module, function, args)
    answer: Term | CallError
    try:
        answer = await request.receive_response(timeout)
    except CallError as error:
        answer = error
    if isinstance(answer, ErpcError) and answer.reason == NOTSUP:
        return await _ask_rex(node, CALL, to, module, function, args, timeout)
    return _rpcified(answer, request)


async def block_call(
    node: Node,
    to: Atom | str,
    module: Atom | str,
    function: Atom | str,
    args: Sequence[Term],
    timeout: float | None,
) -> Term:
    """``rpc:block_call/5``."""
    return await _ask_rex(node, BLOCK_CALL, to, module, function, args, timeout)


async def multicall(
    node: Node,
    to: Iterable[Atom | str],
    module: Atom | str,
    function: Atom | str,
    args: Sequence[Term],
    timeout: float | None,
) -> tuple[list[Term | BadRpc], list[Atom]]:
    """``rpc:multicall/5``."""
    requests = [erpc.send_request(node, each, module, function, args) for each in to]
    results: list[Term | BadRpc] = []
    bad_nodes: list[Atom] = []
    for request, answer in zip(requests, await erpc.gather(requests, timeout), strict=True):
        try:
            results.append(_rpcified(answer, request))
        except BadRpc as bad:
            results.append(bad)
        except CallError:  # the two that are no BadRpc: the node has not answered
            bad_nodes.append(request.to)
    return results, bad_nodes


async def _ask_rex(
    node: Node,
    what: Atom,
    to: Atom | str,
    module: Atom | str,
    function: Atom | str,
    args: Sequence[Term],
    timeout: float | None,
) -> Term:
    """What a node's ``rex`` server answers, which does not need to know ``erpc``."""
    leader = node.default_group_leader or USER
    module, function, arguments = atom_of(module), atom_of(function), list(args)
    answer = await gen.call(node, (REX, atom_of(to)), (what, module, function, arguments, leader), timeout)
    called = f"{module.name}:{function.name}/{len(arguments)}"
    match answer:
        case (tag, reason) if tag == BADRPC:
            raise _bad(reason, called, atom_of(to))
    return _checked(answer, called, atom_of(to))


def _checked(value: Term, called: str, to: Atom) -> Term:
    """A value, unless it looks like what ``catch`` makes of an exit."""
    if type(value) is tuple and len(value) == 2 and value[0] == EXIT:
        raise _bad(value, called, to)
    return value


def _rpcified(answer: Term | CallError, request: erpc.ErpcRequest) -> Term:
    """What ``rpc`` makes of an answer that ``erpc`` has returned or raised."""
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
        case CallError():
            raise BadRpc(answer.reason, answer.message)
    return _checked(answer, request.called, request.to)


def _bad(reason: Term, called: str, to: Atom) -> BadRpc:
    return BadRpc(reason, f"{called} failed on {to.name}: {gen.shown_term(reason)}")
