"""A gen_server in Python, called from a BEAM.

Start a BEAM:    erl -name beam@127.0.0.1 -setcookie secret
and run:         ZENMON_COOKIE=secret python examples/05_be_a_gen_server.py beam@127.0.0.1
then there:      Counter = {counter, 'example05@127.0.0.1'}.
                 gen_server:call(Counter, {add, 5}).       % 5
                 gen_server:cast(Counter, {add, 10}).      % ok
                 gen_server:call(Counter, get).            % 15
                 gen_server:call(Counter, slow).           % 15, a second later; the server answers others meanwhile
                 gen_server:call(Counter, stop).           % 15, and this program ends

You will see     what the calls return in the shell, and what the server does here.
"""

import sys
from typing import Any

import trio

from erlang_interop import NO_REPLY, Atom, Exit, From, GenServer, Process, Stop, Term, open_node


class Counter(GenServer):
    """Counts. The object is the state."""

    def init(self, first: int) -> None:
        """Start with a number."""
        self.count = first

    def handle_call(self, request: Term, from_: From) -> Any:
        """Answer a call: what is returned is the reply."""
        match request:
            case (Atom("add"), int() as number):
                self.count += number
                print(f"added {number}: {self.count}", flush=True)
                return self.count
            case Atom("get"):
                return self.count
            case Atom("slow"):
                self.node.spawn(self.answer_later, from_)
                return NO_REPLY
            case Atom("stop"):
                return Stop(Atom("normal"), reply=self.count)
        return super().handle_call(request, from_)  # ends the server: bad_call

    def handle_cast(self, message: Term) -> None:
        """A cast has no reply."""
        match message:
            case (Atom("add"), int() as number):
                self.count += number
                print(f"added {number}: {self.count}", flush=True)
            case _:
                raise Exit((Atom("bad_cast"), message))

    async def answer_later(self, process: Process, from_: From) -> None:
        """Another process may answer, when it is ready to."""
        await trio.sleep(1.0)
        self.reply(from_, self.count)


async def main(peer: str) -> None:
    """Serve until the counter is told to stop."""
    async with open_node("example05@127.0.0.1") as node, node.open_process() as me:
        await node.connect(peer)
        me.monitor(await Counter.start(node, 0, name="counter"))
        print(f"serving as {{counter,'{node.name}'}}", flush=True)
        down = await me.receive()
        print(f"the counter has ended: {down[4]}")


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else "beam@127.0.0.1")
