"""Send messages to a process of a BEAM, by its name and by its pid.

Start a BEAM:    erl -name beam@127.0.0.1 -setcookie secret
in its shell:    register(shell, self()).
and run:         ZENMON_COOKIE=secret python examples/02_send.py beam@127.0.0.1
then there:      flush().

You will see     Shell got {hello,<7110.8.0>,<<"from Python">>}
                 Shell got {every_kind,[42,2.5,true,nil],#{key => "text"}}
                 (the shell prints the pid of the Python process as it names it)
"""

import sys

import trio

from erlang_interop import Atom, charlist, open_node


async def main(peer: str) -> None:
    """Send two messages to ``shell`` on ``peer``."""
    async with open_node("example02@127.0.0.1") as node, node.open_process() as me:
        await node.connect(peer)

        # A tuple is a tuple, a str is a binary (an Elixir string), an Atom is an atom.
        me.send(("shell", peer), (Atom("hello"), me.pid, "from Python"))

        # Lists, maps, true and false are Python's own; None is Elixir's nil; a charlist is a list of numbers.
        message = (Atom("every_kind"), [42, 2.5, True, None], {Atom("key"): charlist("text")})
        pid = await node.rpc(peer, "erlang", "whereis", [Atom("shell")])
        me.send(pid, message)

        # Sending never fails and never waits: like Erlang's `!`. A message to nobody is simply lost.
        me.send(("nobody_has_this_name", peer), Atom("lost"))
        print(f"sent to {pid}")


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else "beam@127.0.0.1")
