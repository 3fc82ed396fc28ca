"""Links, monitors and exit signals between a Python process and processes of a BEAM.

Start a BEAM:    erl -name beam@127.0.0.1 -setcookie secret
and run:         ZENMON_COOKIE=secret python examples/06_links_and_monitors.py beam@127.0.0.1

You will see     DOWN: killed        the monitored process has been killed
                 DOWN: noproc        nobody has that name
                 EXIT: {bye,42}      the linked process ended; trap_exit turns the signal into a message
                 EXIT of the worker  a Python process without trap_exit dies with the process it is linked to
                 nodeup, nodedown    what the node sees of its connections
"""

import math
import sys

import trio

from erlang_interop import Atom, Node, Pid, Process, open_node
from erlang_interop.etf.text import format_term


async def start_sleeper(node: Node, peer: str) -> Pid:
    """A process of the BEAM that does nothing, for long."""
    pid = await node.rpc(peer, "erlang", "spawn", [Atom("timer"), Atom("sleep"), [600_000]])
    assert isinstance(pid, Pid)
    return pid


async def worker(process: Process) -> None:
    """Does nothing, but does not survive what it is linked to."""
    await trio.sleep(math.inf)


async def main(peer: str) -> None:
    """Watch processes of the BEAM end."""
    async with open_node("example06@127.0.0.1") as node, node.open_process() as me, node.monitor_nodes() as events:
        me.trap_exit = True
        sleeper = await start_sleeper(node, peer)
        print(f"nodeup: {(await anext(events)).name}")

        me.monitor(sleeper)
        me.monitor(("nobody_has_this_name", peer))
        me.exit(sleeper, Atom("kill"))
        for _ in range(2):
            _, _ref, _, found, reason = await me.receive(timeout=5.0)
            print(f"DOWN: {format_term(reason)}, of {format_term(found)}")

        linked = await start_sleeper(node, peer)
        me.link(linked)
        me.exit(linked, (Atom("bye"), 42))
        _, found, reason = await me.receive(timeout=5.0)
        print(f"EXIT: {format_term(reason)}, of {format_term(found)}")

        partner = await start_sleeper(node, peer)
        me.monitor(node.spawn(worker, link_to=partner))
        me.exit(partner, Atom("kill"))
        down = await me.receive(timeout=5.0)
        print(f"EXIT of the worker, with its partner: {format_term(down[4])}")

        me.monitor(("kernel_sup", peer))
        await node.disconnect(peer)
        print(f"DOWN: {format_term((await me.receive(timeout=5.0))[4])}, since the connection is gone")
        print(f"nodedown: {(await anext(events)).name}")


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else "beam@127.0.0.1")
