"""Ping a node, and look at the connection that this makes.

Start a BEAM:    erl -name beam@127.0.0.1 -setcookie secret
and run:         ZENMON_COOKIE=secret python examples/01_ping.py beam@127.0.0.1

You will see     pong, then the connection: its type, its address and the flags that both sides announced;
                 and why a node that does not exist cannot be reached.
In the shell     nodes(hidden). shows this node as long as it runs: it is a hidden one, so nodes(). does not.
"""

import sys

import trio

from erlang_interop import ConnectError, open_node


async def main(peer: str) -> None:
    """Ping ``peer``, then a node that is not there."""
    async with open_node("example01@127.0.0.1") as node:
        print("pong" if await node.ping(peer) else "pang")

        for row in node.connections:
            print(f"{row.name}: {row.state}, {row.type}, at {row.address}, {row.messages_in} messages in")
            print(f"agreed on {', '.join(flag.name or '' for flag in row.flags)}")

        # ping says yes or no, as in Erlang; connect says why.
        try:
            await node.connect("nobody@127.0.0.1")
        except ConnectError as error:
            print(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else "beam@127.0.0.1")
