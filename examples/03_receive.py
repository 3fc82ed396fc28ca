"""Receive messages from a BEAM, out of order if need be.

Start a BEAM:    erl -name beam@127.0.0.1 -setcookie secret
and run:         ZENMON_COOKIE=secret python examples/03_receive.py beam@127.0.0.1
then there:      Inbox = {inbox, 'example03@127.0.0.1'}.
                 Inbox ! {task, 1}, Inbox ! {task, 2}, Inbox ! {urgent, self(), now}.
                 flush().

You will see     urgent: now         it is taken first, although it came last
                 task 1, task 2      the others have kept their order
                 nothing more came   after a second without a message
In the shell     Shell got {done,<<"now">>,2}: the urgent work, and what was waiting behind it
"""

import sys

import trio

from erlang_interop import Atom, Term, open_node
from erlang_interop.etf.text import format_term


def is_urgent(message: Term) -> bool:
    """Whether a message is ``{urgent, From, What}``."""
    match message:
        case (Atom("urgent"), _, _):
            return True
    return False


async def main(peer: str) -> None:
    """Wait for an urgent message, then take the rest."""
    async with open_node("example03@127.0.0.1") as node, node.open_process("inbox") as inbox:
        await node.connect(peer)
        print(f"waiting for {{urgent, Pid, Term}} as {{inbox,'{node.name}'}}", flush=True)

        # Selective receive: the first message that matches; what does not stays where it is.
        _, sender, what = await inbox.receive(is_urgent)
        print(f"urgent: {format_term(what)}")
        inbox.send(sender, (Atom("done"), str(what), len(inbox.mailbox)))

        try:
            while True:
                match await inbox.receive(timeout=1.0):
                    case (Atom("task"), number):
                        print(f"task {number}")
                    case other:
                        print(f"not understood: {format_term(other)}")
        except TimeoutError:
            print("nothing more came")


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else "beam@127.0.0.1")
