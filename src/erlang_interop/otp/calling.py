"""The methods of a node that call functions of other nodes; ``rpc.py`` and ``erpc.py`` have the code.

In all of them a node that is not connected is dialled, names are Atom or str, and ``args`` are the arguments, whose
number is the arity. A function that is given up goes on where it runs, and its result is dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..runtime.node import Node as RuntimeNode
from . import erpc, rpc
from .gen import DEFAULT_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..errors import BadRpc, CallError
    from ..terms import Atom, Term
    from .erpc import ErpcRequest


class CallingNode(RuntimeNode):
    """Part of ``Node``."""

    async def rpc(
        self,
        node: Atom | str,
        module: Atom | str,
        function: Atom | str,
        args: Sequence[Term],
        timeout: float | None = DEFAULT_TIMEOUT,
    ) -> Term:
        """``rpc:call/5``: what ``module:function(*args)`` gives on another node.

        It is called by ``erpc``; a node that has none is asked through its ``rex`` server. As from ``rpc:call``, a
        value that was thrown comes back as if it had been returned.

        Args:
            timeout: Seconds to wait; None waits for ever.

        Raises:
            BadRpc: ``{badrpc, Reason}``: the function failed, or does not exist; ``reason`` is Reason.
            CallTimeout: ``{badrpc, timeout}``: no answer in time.
            NodeDownError: ``{badrpc, nodedown}``: the connection was lost, or could not be made.
            EncodeError: an argument has a part that no external term can carry.
        """
        return await rpc.call(self, node, module, function, args, timeout)

    async def rpc_block_call(
        self,
        node: Atom | str,
        module: Atom | str,
        function: Atom | str,
        args: Sequence[Term],
        timeout: float | None = DEFAULT_TIMEOUT,
    ) -> Term:
        """``rpc:block_call/5``: as :meth:`rpc`, one after the other for all callers of that node, by its ``rex``.

        Raises:
            BadRpc, CallTimeout, NodeDownError, EncodeError: as :meth:`rpc`.
        """
        return await rpc.block_call(self, node, module, function, args, timeout)

    def rpc_cast(self, node: Atom | str, module: Atom | str, function: Atom | str, args: Sequence[Term]) -> None:
        """``rpc:cast/4``: have it run; nothing is known of what becomes of it."""
        erpc.multicast(self, [node], module, function, args)

    async def rpc_multicall(
        self,
        nodes: Iterable[Atom | str],
        module: Atom | str,
        function: Atom | str,
        args: Sequence[Term],
        timeout: float | None = DEFAULT_TIMEOUT,
    ) -> tuple[list[Term | BadRpc], list[Atom]]:
        """``rpc:multicall/5``: the same call on several nodes at once.

        Args:
            timeout: Seconds for all of them together.

        Returns:
            What :meth:`rpc` returns or raises as BadRpc, in the order of ``nodes``, without those that did not answer;
            and these.
        """
        return await rpc.multicall(self, nodes, module, function, args, timeout)

    async def erpc_call(
        self,
        node: Atom | str,
        module: Atom | str,
        function: Atom | str,
        args: Sequence[Term],
        timeout: float | None = None,
    ) -> Term:
        """``erpc:call/5``: what ``module:function(*args)`` returns on another node.

        Args:
            timeout: Seconds to wait; None waits for ever.

        Raises:
            RemoteError: ``error:{exception, Reason, Stack}``, with ``reason`` and ``stack``.
            RemoteExit: ``exit:{exception, Reason}``, or ``exit:{signal, Reason}`` with ``signal`` true.
            RemoteThrow: ``throw:Reason``.
            CallTimeout: ``error:{erpc, timeout}``.
            NodeDownError: ``error:{erpc, noconnection}``: the connection was lost, or could not be made.
            ErpcError: ``error:{erpc, Reason}``: ``notsup``, ``system_limit``, ``badarg``.
            EncodeError: an argument has a part that no external term can carry.
        """
        return await erpc.call(self, node, module, function, args, timeout)

    def erpc_cast(self, node: Atom | str, module: Atom | str, function: Atom | str, args: Sequence[Term]) -> None:
        """``erpc:cast/4``: have it run; nothing is known of what becomes of it."""
        erpc.multicast(self, [node], module, function, args)

    async def erpc_multicall(
        self,
        nodes: Iterable[Atom | str],
        module: Atom | str,
        function: Atom | str,
        args: Sequence[Term],
        timeout: float | None = None,
    ) -> list[Term | CallError]:
        """``erpc:multicall/5``: the same call on several nodes at once.

        Args:
            timeout: Seconds for all of them together.

        Returns:
            In the order of ``nodes``, what :meth:`erpc_call` returns, or the CallError that it raises.
        """
        return await erpc.multicall(self, nodes, module, function, args, timeout)

    def erpc_multicast(
        self, nodes: Iterable[Atom | str], module: Atom | str, function: Atom | str, args: Sequence[Term]
    ) -> None:
        """``erpc:multicast/4``: :meth:`erpc_cast` to several nodes."""
        erpc.multicast(self, nodes, module, function, args)

    def erpc_send_request(
        self, node: Atom | str, module: Atom | str, function: Atom | str, args: Sequence[Term]
    ) -> ErpcRequest:
        """``erpc:send_request/4``: :meth:`erpc_call` without waiting.

        ``await request.receive_response(timeout)`` then returns or raises what it would have,
        ``await request.wait_response(timeout)`` says whether that is there, ``request.abandon()`` gives up. Many
        of them, with labels: :class:`Requests`.

        Raises:
            EncodeError: an argument has a part that no external term can carry.
        """
        return erpc.send_request(self, node, module, function, args)
