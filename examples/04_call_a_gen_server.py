"""Call a gen_server of a BEAM, and tell its failures apart.

Start a BEAM:    erl -name beam@127.0.0.1 -setcookie secret
and run:         ZENMON_COOKIE=secret python examples/04_call_a_gen_server.py beam@127.0.0.1

You will see     the children of kernel_sup, the supervisor of OTP's kernel, which is a gen_server like any other;
                 and the three ways in which a call can fail, each with an exception of its own.
"""

import sys

import trio

from erlang_interop import Atom, BadRpc, CallTimeout, NodeDownError, NoProcess, open_node
from erlang_interop.etf.text import format_term


async def main(peer: str) -> None:
    """Make calls that succeed, and calls that do not."""
    async with open_node("example04@127.0.0.1") as node:
        # gen_server:call({kernel_sup, Node}, which_children)
        children = await node.call(("kernel_sup", peer), Atom("which_children"), timeout=5.0)
        for name, pid, kind, _modules in children:
            print(f"{format_term(name)}: {kind} {format_term(pid)}")

        # rpc:call(Node, lists, sum, [[1, 2, 3]])
        print("lists:sum([1,2,3]) is", await node.rpc(peer, "lists", "sum", [[1, 2, 3]]))

        try:
            await node.call(("nobody_has_this_name", peer), Atom("hello"))
        except NoProcess as error:
            print(f"NoProcess: {error}")

        sleeper = await node.rpc(peer, "erlang", "spawn", [Atom("timer"), Atom("sleep"), [60_000]])
        try:
            await node.call(sleeper, Atom("hello"), timeout=0.2)
        except CallTimeout as error:
            print(f"CallTimeout: {error}")
        node.exit(sleeper, Atom("kill"))

        try:
            await node.call(("kernel_sup", "nobody@127.0.0.1"), Atom("which_children"))
        except NodeDownError as error:
            print(f"NodeDownError: {error}")

        try:
            await node.rpc(peer, "erlang", "hd", [[]])
        except BadRpc as error:
            print(f"BadRpc: {error}")


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else "beam@127.0.0.1")
