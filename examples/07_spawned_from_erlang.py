"""Python functions that Erlang spawns as processes on this node, and a process that Python spawns on the BEAM.

Start a BEAM:    erl -name beam@127.0.0.1 -setcookie secret
and run:         ZENMON_COOKIE=secret python examples/07_spawned_from_erlang.py beam@127.0.0.1
then there:      Py = 'example07@127.0.0.1'.
                 spawn(Py, python, greet, [<<"world">>]).
                 spawn_monitor(Py, python, square_root, [self(), 2]), flush().    % {root,1.414...}, DOWN: normal
                 spawn_monitor(Py, python, square_root, [self(), -1]), flush().   % DOWN: {'ValueError',...}
                 spawn_monitor(Py, os, getpid, []), flush().                      % DOWN: {undef,...}, it is not exposed
                 spawn(Py, python, stop, []).

You will see     what the functions do here, what becomes of the processes there; and before that, how a process that
                 Python spawns on the BEAM sends a message and ends.
"""

import math
import sys

import trio

from erlang_interop import Atom, Pid, Process, open_node


def greet(name: bytes) -> None:
    """An ordinary function: it runs to its end before the node does anything else."""
    print(f"hello, {name.decode()}", flush=True)


async def square_root(process: Process, parent: Pid, number: float) -> None:
    """A function that is given its process; what it raises is what the process ends with."""
    print(f"square_root({number}) runs as {process.pid}", flush=True)
    process.send(parent, (Atom("root"), math.sqrt(number)))


async def main(peer: str) -> None:
    """Spawn there, be spawned here."""
    stopped = trio.Event()
    async with open_node("example07@127.0.0.1") as node, node.open_process(name="main") as me:
        child, ref = await me.spawn_remote(peer, "erlang", "send", [me.pid, Atom("hello")], monitor=True)
        print(f"{child} says {(await me.receive(timeout=5.0)).name}")
        _, _, _, _, reason = await me.receive(lambda message: message[1] == ref, timeout=5.0)
        print(f"and has ended: {reason.name}")

        node.expose("python", {"greet": greet, "stop": stopped.set})
        node.expose("python", {"square_root": square_root}, with_process=True)
        print("waiting to be spawned", flush=True)
        await stopped.wait()
        print("stopped")


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else "beam@127.0.0.1")
