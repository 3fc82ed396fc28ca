"""A node of ours as a program of its own, so that it can be killed and suspended as a BEAM can.

    python -m tests.interop.partition_node '{"name": ..., "epmd_port": ..., "visible": ..., "net_ticktime": ...}'

``ZENMON_COOKIE`` holds the cookie. Each line of its input is one request, ``["join", NODE, ...]``, ``["leave"]``,
``["disconnect"]``, ``["nodes"]``, ``["names"]`` or ``["hold", NAME]``, each line of its output the answer to one:
``[true, VALUE]`` or ``[false, ERROR]``. Names of ``global`` are what ``node.global_names`` says: the node's own server
in the mode "full", and a BEAM in the others. "hold" needs a connection in the mode "full" alone: in the others the name
is registered through each BEAM that connects, which is what docs/global.md advises.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from contextlib import AsyncExitStack
from typing import Any

import trio

from erlang_interop import (
    Atom,
    EpmdAddress,
    GlobalNames,
    GlobalNameTaken,
    Node,
    NodeDownError,
    NoVisibleNode,
    Pid,
    Process,
    open_node,
)
from tests.interop.collectors import wait_for_ever


class Member:
    """The node, while it is in the cluster."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._stack = AsyncExitStack()
        self._node: Node | None = None

    @property
    def node(self) -> Node:
        assert self._node is not None, "it has left"
        return self._node

    async def join(self, *peers: str) -> None:
        if self._node is None:
            opened = open_node(
                self._options["name"],
                visible=self._options["visible"],
                net_ticktime=self._options["net_ticktime"],
                epmd=EpmdAddress(port=self._options["epmd_port"]),
            )
            self._node = await self._stack.enter_async_context(opened)
        for peer in peers:
            await self._node.connect(peer)

    async def leave(self) -> None:
        self._node = None
        await self._stack.aclose()

    async def disconnect(self) -> None:
        assert self.node.global_server is not None
        await self.node.global_server.disconnect()

    async def nodes(self) -> list[str]:
        return [name.name for name in self.node.nodes("connected")]

    async def names(self) -> list[tuple[str, list[Any]]]:
        """All names; none while the BEAM that was asked is being lost, or there is none."""
        names = self.node.global_names
        try:
            atoms = [name for name in await names.registered_names() if type(name) is Atom]
            return [(str(name), as_json(await names.whereis(name))) for name in atoms]
        except (NodeDownError, NoVisibleNode):
            return []

    async def hold(self, name: str) -> None:
        """Keep a name until the node leaves."""
        if self._options["visible"] == "full":
            await self.node.global_names.register(Atom(name), self.node.spawn(wait_for_ever))
        else:
            # The BEAM that has registered it is linked to it.
            self.node.spawn(keep_name, self.node.global_names, Atom(name), trap_exit=True)


async def keep_name(process: Process, names: GlobalNames, name: Atom) -> None:
    """Give this process a name, and give it once more to each BEAM that comes back: it has dropped it."""

    async def register(beam: Atom) -> None:
        # No failure: the BEAM is lost again; it has the name; it knows another process by it.
        with contextlib.suppress(NodeDownError, GlobalNameTaken):
            await names.register(name, process.pid, through=beam)

    process.monitor_nodes()
    for beam in process.node.nodes("visible"):
        await register(beam)
    while True:
        match await process.receive():
            case (Atom("nodeup"), Atom() as beam):
                await register(beam)


def as_json(pid: Any) -> list[Any]:
    """A pid with everything that makes it the same as another: a BEAM's text has no creation."""
    return [pid.node.name, pid.id, pid.serial, pid.creation] if type(pid) is Pid else [repr(pid)]


async def main() -> None:
    member = Member(json.loads(sys.argv[1]))
    buffer = b""
    async with trio.lowlevel.FdStream(0) as requests, trio.lowlevel.FdStream(1) as answers:
        while data := await requests.receive_some():
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                request, *arguments = json.loads(line)
                try:
                    answer = [True, await getattr(member, request)(*arguments)]
                except Exception as error:
                    answer = [False, f"{type(error).__name__}: {error}"]
                await answers.send_all(json.dumps(answer).encode() + b"\n")
    await member.leave()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    trio.run(main)
