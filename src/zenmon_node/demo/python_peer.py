"""The other side of ``zenmon-node demo`` where there is no BEAM: a second Python node, a process of its own.

It answers what ``beam_peer.script`` answers, and is started as ``python -m zenmon_node.demo.python_peer NAME`` with the
cookie in ``ZENMON_COOKIE``. It ends when its standard input does.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any, Final

import trio

from erlang_interop import NO_REPLY, Atom, GenServer, Pid, open_node
from erlang_interop.otp.gen import cast, reply

from .. import open_zen_monitor
from ..messages import DEAD, NOPROC, PING, PROCESS, PROXY, SUBSCRIBE
from .peers import READY, SERVER

if TYPE_CHECKING:
    from erlang_interop import From, Process, Term

_KILL: Final = Atom("kill")
_OK: Final = Atom("ok")
_SEEN: Final = Atom("seen")


class DemoServer(GenServer):
    """What the demo asks for, each a call; see ``beam_peer.script``."""

    def init(self) -> None:
        """Nothing has been asked for yet."""
        self.workers: list[Pid] = []
        self.watcher: Pid | None = None

    def handle_call(self, request: Term, from_: From) -> Any:
        """One case for each clause of the script's Server."""
        match request:
            case (Atom("start_workers"), int(count)):
                self.workers = [self.node.spawn(_sleep) for _ in range(count)]
                return self.workers
            case Atom("kill_workers"):
                for worker in self.workers:
                    self.process.exit(worker, _KILL)
                self.workers = []
                return _OK
            case (Atom("watch"), Atom() as node, list(natively), list(by_zen_monitor)):
                self.watcher = self.node.spawn(_watch, from_, node, natively, by_zen_monitor)
                return NO_REPLY
            case Atom("seen") if self.watcher is not None:
                self.process.send(self.watcher, (_SEEN, from_))
                return NO_REPLY
        return super().handle_call(request, from_)


async def _sleep(process: Process) -> None:
    await trio.sleep(math.inf)


async def _watch(process: Process, from_: From, node: Atom, natively: list[Any], by_zen_monitor: list[Any]) -> None:
    for target in natively:
        process.monitor(target)
    answer = await process.node.call((PROXY, node), PING)  # type: ignore[attr-defined]
    # A last one, for a name that nobody has, fires at once: then all before it are in force.
    nobody = (Atom("nobody"), node)
    instructions = [(SUBSCRIBE, target) for target in [*by_zen_monitor, nobody]]
    cast(process, (PROXY, node), (PROCESS, process.pid, instructions))
    await process.receive(lambda message: message == (DEAD, node, [(nobody, NOPROC)]))
    reply(process, from_, answer)
    downs: list[Term] = []
    summaries: list[Term] = []
    missing = len(by_zen_monitor)
    while missing or len(downs) < len(natively):
        match await process.receive(lambda message: message[0] != _SEEN):
            case (Atom("DOWN"), _, _, found, reason):
                downs.append((found, reason))
            case (Atom("dead"), sender, list(certificates)) if sender == node:
                summaries.append(certificates)
                missing -= len(certificates)
    asking = await process.receive(lambda message: message[0] == _SEEN)
    reply(process, asking[1], (downs, summaries))


async def _main(name: str) -> None:
    async with open_node(name) as node, open_zen_monitor(node):
        await DemoServer.start(node, name=SERVER)
        print(READY, flush=True)  # noqa: T201 - whoever started this waits for it
        await trio.to_thread.run_sync(sys.stdin.buffer.read)


if __name__ == "__main__":
    trio.run(_main, sys.argv[1])
