"""What the ZenMonitor tests share: the BEAM's roles and the form of a DOWN."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from erlang_interop import Atom
from zenmon_node import messages as m

if TYPE_CHECKING:
    from collections.abc import Callable

    from erlang_interop import Process
    from erlang_interop.terms import Reference, Term
    from erlang_interop.testing.beam import Beam
    from zenmon_node import ZenMonitor

DIED = Atom("died")


def down(ref: Reference, object_: Term, reason: Term) -> Term:
    """``{'DOWN', Ref, process, Object, {zen_monitor, Reason}}``."""
    return (Atom("DOWN"), ref, Atom("process"), object_, (Atom("zen_monitor"), reason))


async def next_message(process: Process) -> Term:
    return await process.receive(timeout=30)


async def until(condition: Callable[[], bool], zen: ZenMonitor) -> None:
    """Poll a table of ours: no event tells that a peer's message has arrived."""
    with trio.move_on_after(30):
        while not condition():  # noqa: ASYNC110 - see above
            await trio.sleep(0.005)
        return
    pytest.fail(f"did not become true; {zen.statistics()}")


async def subscriptions(beam: Beam, count: int) -> None:
    """Wait until the BEAM's Proxy has so many subscriptions."""
    assert await beam.eval(f"zen_proxy:await_subscriptions({count}, 20000).") is True


async def batchers_gone(beam: Beam) -> None:
    """Wait until the BEAM's Proxy has seen its Batchers end, as they do when their subscriber's connection is lost.

    With a Batcher it drops all that its subscriber has, also what that has said over the next connection meanwhile.
    """
    assert await beam.eval("polling:until(fun() -> zen_proxy:batcher_count() =:= 0 end, 20000).") is True


async def nothing_left(zen: ZenMonitor) -> None:
    """Wait until our tables are empty."""

    def is_empty() -> bool:
        now = zen.statistics()
        return not (now.monitors or now.subscriptions or now.waiting_instructions or now.waiting_certificates)

    await until(is_empty, zen)


NODEDOWN, NOPROC = m.NODEDOWN, m.NOPROC
