"""What the tests of rpc and erpc call, and what must be left of a node when they are through."""

from __future__ import annotations

import time
from typing import Any

import trio

from erlang_interop import Atom, Exit, Node, Process, Throw


async def later(value: Any) -> Any:
    """``value``, after so many seconds if it is a number."""
    await trio.sleep(value if isinstance(value, float) else 0)
    return value


def div(one: int, other: int) -> float:
    return one / other


def raise_it(kind: bytes) -> None:
    raise Exit(Atom("bye")) if kind == b"exit" else Throw(Atom("ball"))


async def killed(process: Process) -> None:
    """Its process is ended while it waits."""
    process.exit(process.pid, Atom("kill"))
    await trio.sleep_forever()


def exposed_here(node: Node) -> None:
    """Expose, as module ``py``, one function of each kind."""
    node.expose(
        "py",
        {
            "add": lambda one, other: one + other,
            "div": div,
            "later": later,
            "raise_it": raise_it,
            "no_term": lambda: {1, 2},
            "stuck": trio.sleep_forever,
        },
    )
    node.expose("py", {"killed": killed}, with_process=True)
    node.expose("threads", {"sleep": time.sleep, "div": div}, thread=True)


async def idle(node: Node) -> None:
    """Return when nothing but the node's own four processes is left, nor any monitor."""
    with trio.fail_after(30):
        while True:
            left = node.statistics()
            if (left["processes"], left["monitors"], left["watchers"], left["aliases"]) == (4, 0, 0, 0):
                return
            await trio.sleep(0.002)
