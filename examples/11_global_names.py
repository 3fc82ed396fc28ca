"""Names and locks that a whole cluster knows, from a hidden node: a BEAM keeps them for it.

Start a BEAM:    erl -name beam@127.0.0.1 -setcookie secret
and run:         ZENMON_COOKIE=secret python examples/11_global_names.py beam@127.0.0.1
then there, or on any other BEAM of the cluster:
                 global:send(py_counter, {add, 40}).
                 global:trans({py_total, self()}, fun() -> global:send(py_counter, {add, 2}), timer:sleep(1000) end).
                 global:send(py_counter, stop).
                 global:whereis_name(py_counter).       % undefined: the name went with the process

You will see     that the name is registered, and taken for others; each sum, the second one once the BEAM has freed
                 the lock; the name's end. When the BEAM is stopped instead, the program says so, and ends.
"""

import sys

import trio

from erlang_interop import Atom, GlobalNameTaken, Process, open_node


async def wait(_process: Process) -> None:
    """A process without a name."""
    await trio.sleep_forever()


async def main(peer: str) -> None:
    """Have a name, add what is sent to it, one at a time in the whole cluster."""
    total = 0
    async with open_node("example11@127.0.0.1") as node, node.open_process() as me:
        await node.connect(peer)
        names = node.global_names
        await names.register("py_counter", me.pid)
        print("py_counter is", await names.whereis("py_counter"), flush=True)
        try:
            await names.register("py_counter", node.spawn(wait))
        except GlobalNameTaken as error:
            print(f"GlobalNameTaken: {error}", flush=True)

        me.trap_exit = True  # the BEAM that keeps the name is linked to this process
        while True:
            match await me.receive():
                case (Atom("add"), int() as number):

                    async def add(number: int = number) -> None:
                        nonlocal total
                        total += number

                    await names.trans(("py_total", me.pid), add)
                    print("total", total, flush=True)
                case Atom("stop"):
                    break
                case (Atom("EXIT"), _pid, reason):
                    print("the BEAM is lost:", reason)
                    break
    print("stopped")


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else "beam@127.0.0.1")
