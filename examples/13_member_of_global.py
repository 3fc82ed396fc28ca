"""A node that takes part in global: it has the names of the whole cluster, meets all its nodes, and leaves in order.

Start two BEAMs: erl -name beam@127.0.0.1 -setcookie secret
                 erl -name other@127.0.0.1 -setcookie secret        net_adm:ping('beam@127.0.0.1').
and run:         ZENMON_COOKIE=secret python examples/13_member_of_global.py beam@127.0.0.1
then there:      global:register_name(somebody, self()).
                 global:whereis_name(py_member) ! {who_is, somebody, self()}, flush().
                 global:whereis_name(py_member) ! leave.

You will see     the nodes it knows: both, though it was told of one only; who has the name; the nodes that it leaves.
"""

import sys

import trio

from erlang_interop import Atom, Pid, open_node


async def main(peer: str) -> None:
    """Join, answer who has a name, leave."""
    async with open_node("example13@127.0.0.1", visible="full") as node, node.open_process() as me:
        await node.connect(peer)
        with trio.fail_after(60):
            await node.global_names.sync()
        server = node.global_server
        assert server is not None  # it is, on a full node
        print("known:", *sorted(name.name for name in server.known), flush=True)
        await node.global_names.register("py_member", me.pid)
        print("registered", flush=True)
        while True:
            match await me.receive():
                case (Atom("who_is"), name, Pid() as asker):
                    who = server.whereis(name)
                    print(name, "is", who, flush=True)
                    me.send(asker, who if who is not None else Atom("undefined"))
                case Atom("leave"):
                    break
        print("left:", *sorted(name.name for name in await server.disconnect()))


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else "beam@127.0.0.1")
