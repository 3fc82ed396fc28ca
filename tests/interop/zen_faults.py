"""What the tests of the original's faults share: processes that wait, and a mistake of our own program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from erlang_interop import Atom, Exit, Pid
from tests.interop.zenmon import DIED, down, next_message

if TYPE_CHECKING:
    import pytest

    from erlang_interop import Process
    from erlang_interop.terms import Reference
    from erlang_interop.testing.beam import Beam
    from zenmon_node import ZenMonitor

KILL: Final = Atom("kill")


async def waits(process: Process) -> None:
    """A process of ours that ends with the reason it is told."""
    raise Exit(await process.receive())


async def spawn(beam: Beam, count: int = 1) -> list[Pid]:
    """Processes of a BEAM that wait until they are told to end."""
    pids: list[Pid] = await beam.eval(f"plain_processes:spawn_many({count})")
    return pids


async def finish(beam: Beam, *processes: Pid | Atom, reason: Atom = DIED) -> None:
    """Let these processes of a BEAM end."""
    await beam.eval("plain_processes:finish_all(Ps, R)", Ps=list(processes), R=reason)


async def all_fire(me: Process, monitors: dict[Reference, Pid], reason: Atom = DIED) -> None:
    """Take the DOWN of each of these monitors, in any order; no other message may be there."""
    got = [await next_message(me) for _ in monitors]
    assert sorted(got, key=str) == sorted([down(ref, pid, reason) for ref, pid in monitors.items()], key=str)
    assert len(me.mailbox) == 0


async def connector_of(zen: ZenMonitor, beam: Beam, pid: Pid) -> Pid:
    """Which living Connector of ours has subscribed to ``pid`` at the BEAM's Proxy."""
    subscribers = await beam.eval("proplists:get_value(P, zen_proxy:subscriptions())", P=pid)
    (connector,) = [subscriber for subscriber in subscribers if zen.node.is_alive(subscriber)]
    assert isinstance(connector, Pid)
    return connector


def kill(zen: ZenMonitor, process: Pid | Atom) -> None:
    """Kill a process of our node, as somebody's exit signal would."""
    pid = zen.node.whereis(process) if isinstance(process, Atom) else process
    assert pid is not None
    zen.node.exit(pid, KILL)


class FailsOnce:
    """In the place of a method, it raises at the first call and then does what the method does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
        self.failed = False
        method = getattr(owner, name)

        def once(core: Any, *arguments: Any) -> Any:
            if not self.failed:
                self.failed = True
                raise RuntimeError("a mistake in our own program")
            return method(core, *arguments)

        monkeypatch.setattr(owner, name, once)
