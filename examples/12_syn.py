"""Share a scope of syn with a BEAM: a registered process, a group that can be asked, and news of both.

Start a BEAM:    erl -name beam@127.0.0.1 -setcookie secret -pa _build/default/lib/syn/ebin
and there:       syn:start(), syn:add_node_to_scopes([users]).
then run:        ZENMON_COOKIE=secret python examples/12_syn.py beam@127.0.0.1
and there:       syn:lookup(users, greeter).
                 syn:multi_call(users, greeters, hello).
                 syn:register(users, shell, self(), #{version => 1}).
                 syn:unregister(users, shell).

You will see     greeter registered, greeters joined: with our own pid, at once;
                 in the shell, who answers a multi_call and what: a process that lives in Python;
                 shell registered and shell unregistered, with its pid and its metadata;
                 who else is in the scope, and the groups, when the shell has given its name back.
"""

import sys
from typing import Any

import trio

from erlang_interop import Atom, Pid, Process, open_node
from erlang_interop.etf.text import format_term
from zenmon_node import EventHandler, multi_call_reply, open_scope

GREETER, GREETERS, SHELL = Atom("greeter"), Atom("greeters"), Atom("shell")


class Printer(EventHandler):
    """Prints what happens in the scope, on whichever node."""

    def __init__(self) -> None:
        self.shell_is_gone = trio.Event()

    def on_process_registered(self, scope: Atom, name: Any, pid: Pid, meta: Any, reason: Any) -> None:
        """At once, while the scope looks on."""
        print(f"{format_term(name)} registered: {pid}, {format_term(meta)}", flush=True)

    def on_process_joined(self, scope: Atom, group: Any, pid: Pid, meta: Any, reason: Any) -> None:
        """The same for a group."""
        print(f"{format_term(group)} joined: {pid}", flush=True)

    async def on_process_unregistered(self, scope: Atom, name: Any, pid: Pid, meta: Any, reason: Any) -> None:
        """What takes its time is async: the scope does not wait for it, later events do."""
        await trio.sleep(0.1)
        print(f"{format_term(name)} unregistered: {pid}, {format_term(reason)}", flush=True)
        if name == SHELL:
            self.shell_is_gone.set()


async def greet(process: Process) -> None:
    """A member of the group: it answers who asks all of them."""
    while True:
        match await process.receive():
            case (Atom("syn_multi_call"), greeting, caller, _meta):
                multi_call_reply(process, caller, (greeting, Atom("from_python")))


async def main(peer: str) -> None:
    """Take part in the scope until the shell has given its name back."""
    handler = Printer()
    async with open_node("example12@127.0.0.1") as node, open_scope(node, "users", handler=handler) as scope:
        greeter = node.spawn(greet)
        await scope.register(GREETER, greeter, {"language": "Python"})
        await scope.join(GREETERS, greeter)
        await node.connect(peer)
        await handler.shell_is_gone.wait()
        print(f"in the scope with: {', '.join(map(str, scope.subcluster_nodes()))}")
        print(f"groups: {', '.join(map(format_term, scope.group_names()))}")


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else "beam@127.0.0.1")
