"""``kernel_sup``: it starts the processes that every node has, and starts them again when they end.

.. code-block:: text

    kernel_sup ── user                  a new one; processes of this node whose group leader it was have the new one
              ├── net_kernel            has no state
              ├── rex                   calls that run go on; the new one knows of them
              └── global_name_server    of a "full" node: the new one has the names and locks, and begins exchanges anew

All a process of a BEAM needs to end one of them is its pid: ``exit(rpc:call(Py, erlang, whereis, [rex]), kill)``. On a
BEAM that takes the node down, but for ``user`` from OTP 27 on. Here the node is part of somebody's program, and what
these processes know is not lost with them, so each is started again at once, under its name. Monitors and links of the
old one have fired with the reason by then, as of any process: whoever waits in a call gets that error.

When they end again and again, or somebody ends ``kernel_sup``, the node ends as a BEAM does: a node that has its
connections and answers nobody would be the worse neighbour.

Source: kernel/src/kernel.erl (init/1: one_for_all, intensity 0) of OTP 25 to 29.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from ..errors import SupervisorError
from ..terms import Atom
from .io_server import USER, IoServer
from .net_kernel import NET_KERNEL, NetKernel
from .passive import GLOBAL_NAME_SERVER
from .rex import Rex
from .rpc import REX
from .supervisor import PERIOD, RESTARTS, ChildSpec, Supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..runtime.inline import InlineServer
    from ..terms import Pid, Term
    from .io_server import Output
    from .node import Node

KERNEL_SUP: Final = Atom("kernel_sup")


class KernelSup(Supervisor):
    """The process registered as ``kernel_sup``.

    Args:
        node: The node; its ``global_server`` is among the children if it has one.
        output: See ``open_node``.
    """

    def __init__(self, node: Node, output: Output | None) -> None:
        self._home = node
        self._output = output
        self._block = trio.CancelScope()
        servers: dict[Atom, InlineServer] = {NET_KERNEL: NetKernel(), REX: Rex()}
        if node.global_server is not None:
            servers[GLOBAL_NAME_SERVER] = node.global_server
        children = [ChildSpec(name, partial(node.start_inline, each, name=name)) for name, each in servers.items()]
        super().__init__([ChildSpec(USER, self._start_user), *children], intensity=RESTARTS, period=PERIOD)

    @contextmanager
    def block(self) -> Iterator[None]:
        """The block that the node runs for; it is cancelled when this process ends.

        Raises:
            SupervisorError: it was.
        """
        with self._block:
            yield
        if self._block.cancelled_caught:
            raise SupervisorError(
                f"the node {self._home.name.name} ends, since its own processes have: they were ended more than "
                f"{RESTARTS} times within {PERIOD:g} s, or kernel_sup was; the log says by whom"
            )

    def terminated(self, reason: Term) -> None:
        """End the node; when it was that which ended this one, the block is over already."""
        super().terminated(reason)
        self._block.cancel()

    def _start_user(self) -> Pid:
        node, last = self._home, self._home.default_group_leader
        node.default_group_leader = pid = node.start_inline(IoServer(self._output), name=USER)
        if last is not None:
            for process in node.processes.values():
                if process.group_leader == last:
                    process.group_leader = pid
        return pid
