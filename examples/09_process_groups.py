"""Share process groups with a BEAM: members of both nodes, and news of who comes and goes.

Start a BEAM:    erl -name beam@127.0.0.1 -setcookie secret
and there:       pg:start(pg), pg:join(workers, self()).
then run:        ZENMON_COOKIE=secret python examples/09_process_groups.py beam@127.0.0.1
and there:       [P ! {work, N} || {N, P} <- lists:enumerate(pg:get_members(workers) -- [self()])].
                 pg:leave(workers, self()).

You will see     joined and left, with the pids: ours at once, the shell when its node is connected;
                 work 1: a message to a member of the group that lives in Python;
                 the members that are left when the shell has left.
"""

import sys

import trio

from erlang_interop import Atom, PgJoin, Process, open_node, open_pg
from erlang_interop.etf.text import format_term

WORKERS = Atom("workers")


async def worker(process: Process) -> None:
    """A member of the group: it takes what is sent to it."""
    while True:
        match await process.receive():
            case (Atom("work"), what):
                print(f"work {format_term(what)}", flush=True)


async def main(peer: str) -> None:
    """Join, watch the group, and end when the shell has left it."""
    async with open_node("example09@127.0.0.1") as node, open_pg(node, "pg") as pg:
        async with pg.watch(WORKERS) as events:
            pg.join(WORKERS, node.spawn(worker))
            await node.connect(peer)
            async for event in events:
                what = "joined" if isinstance(event, PgJoin) else "left"
                print(f"{what}: {', '.join(map(str, event.pids))}", flush=True)
                if what == "left":
                    break
        print(f"members now: {', '.join(map(str, pg.members(WORKERS)))}")


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else "beam@127.0.0.1")
