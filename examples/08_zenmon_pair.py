"""ZenMonitor between two nodes: a thousand processes watched with two messages, their DOWNs in paced batches.

Run:             ZENMON_COOKIE=secret python examples/08_zenmon_pair.py
                 for two Python nodes in one program, or, with a BEAM or another node that runs ZenMonitor:
                 ZENMON_COOKIE=secret python examples/08_zenmon_pair.py beam@127.0.0.1

You will see     compatible, when the other node's Proxy has answered;
                 how many DOWNs came in each batch: at most demand_amount every demand_interval;
                 that a process which is not there fires at once, with noproc.
"""

import math
import sys
from collections import Counter
from contextlib import AsyncExitStack

import trio

from erlang_interop import Atom, Node, Pid, Process, open_node
from zenmon_node import Settings, open_zen_monitor

COUNT = 1000


async def sleep(process: Process) -> None:
    """A process that does nothing."""
    await trio.sleep(math.inf)


async def start_workers(node: Node, peer: str, right: Node | None) -> list[Pid]:
    """Processes of the other node: our own second one, or the BEAM."""
    if right is not None:
        return [right.spawn(sleep) for _ in range(COUNT)]
    arguments = [Atom("timer"), Atom("sleep"), [Atom("infinity")]]
    return [await node.rpc(peer, "erlang", "spawn", arguments) for _ in range(COUNT)]


async def main(peer: str | None = None) -> None:
    """Watch the processes of ``peer``, or of a node of our own, and kill them."""
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(open_node("example08@127.0.0.1", embedded_epmd=True))
        # Slower than the defaults, to be seen: 250 DOWNs every 200 milliseconds.
        zen = await stack.enter_async_context(open_zen_monitor(node, Settings(demand_amount=250, demand_interval=200)))
        right = None
        if peer is None:
            right = await stack.enter_async_context(open_node("example08_right@127.0.0.1"))
            await stack.enter_async_context(open_zen_monitor(right))
            peer = right.name.name
        workers = await start_workers(node, peer, right)
        print(f"{peer} is {(await zen.connect(peer)).value}")

        async with zen.watch([*workers, ("nobody_has_this_name", peer)]) as downs:
            print(f"the first to go: {await anext(downs)}")
            for worker in workers:
                node.exit(worker, Atom("kill"))
            begin, batches, reasons = trio.current_time(), Counter[float](), Counter[str]()
            async for down in downs:
                batches[round(trio.current_time() - begin, 1)] += 1
                reasons[str(down.reason)] += 1
        for seconds, count in batches.items():
            print(f"after {seconds} s: {count} DOWNs")
        print(f"reasons: {dict(reasons)}")


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else None)
