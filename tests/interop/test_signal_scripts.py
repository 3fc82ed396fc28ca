"""The scripts of tests/property, between a node of ours and a BEAM: what one says, the other has when the script says.

The processes on the BEAM are those of ``signal_driver.erl``. A gate holds the frames of both directions, so that what
crosses what is decided here and not by the machine's load; each frame is read as it passes, and must be the model's.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import trio
from hypothesis import Phase, example, given, settings

from erlang_interop import Atom, EpmdAddress, Pid, Reference
from erlang_interop.otp.node import Node, run_node
from erlang_interop.testing.cluster import settled
from tests.interop.bridge import BEAM, US, GatedTransport
from tests.interop.collectors import PATIENCE, has_lost, is_among_nodes
from tests.signals.model import CROSSINGS, Key, Signal, other
from tests.signals.play import ONCE_WRONG, SHORTEST, Command, Player, parse, scripts
from tests.signals.sides import OurSide, Registry, Side, Tap

if TYPE_CHECKING:
    from erlang_interop.testing.beam import Beam, Epmd

#: A BEAM whose half of a connection is gone has noticed that before the next command reaches it.
_UNREACHED = {"connected anew while the other side has not noticed"}


class BeamSide:
    """Processes on the BEAM."""

    def __init__(self, beam: Beam, registry: Registry) -> None:
        self.beam = beam
        self._registry = registry
        self._pids: dict[Key, Pid] = {}

    @property
    def pids(self) -> list[Pid]:
        return list(self._pids.values())

    async def _tell(self, me: Key, *command: Any) -> Any:
        told = command[0] if len(command) == 1 else tuple(command)
        answer = await self.beam.eval("signal_driver:tell(P, C)", P=self._pids[me], C=told)
        return answer[1] if answer != Atom("ended") else None

    async def spawn(self, key: Key) -> Pid:
        pid = await self.beam.eval("signal_driver:spawn_process()")
        assert isinstance(pid, Pid)
        self._pids[key] = pid
        return pid

    async def link(self, me: Key, you: Pid) -> None:
        await self._tell(me, Atom("link"), you)

    async def unlink(self, me: Key, you: Pid) -> None:
        await self._tell(me, Atom("unlink"), you)

    async def trap(self, me: Key, on: bool) -> None:
        await self._tell(me, Atom("trap_exit"), on)

    async def monitor(self, me: Key, target: Any, mode: str | None) -> Reference:
        ref = await self._tell(me, Atom("monitor"), target, Atom(mode) if mode else None)
        assert isinstance(ref, Reference)
        return ref

    async def demonitor(self, me: Key, ref: Reference, flush: bool) -> None:
        await self._tell(me, Atom("demonitor"), ref, flush)

    async def alias(self, me: Key, mode: str) -> Reference:
        ref = await self._tell(me, Atom("alias"), Atom(mode))
        assert isinstance(ref, Reference)
        return ref

    async def unalias(self, me: Key, ref: Reference) -> None:
        await self._tell(me, Atom("unalias"), ref)

    async def send(self, me: Key, dest: Any, message: Any) -> None:
        await self._tell(me, Atom("send"), dest, message)

    async def exit(self, me: Key, you: Pid, reason: Any) -> None:
        await self._tell(me, Atom("exit"), you, reason)

    async def register(self, me: Key) -> None:
        await self._tell(me, Atom("register"))

    async def unregister(self) -> None:
        await self.beam.eval("unregister(the_name)")

    async def end(self, me: Key, reason: Any) -> None:
        await self.beam.eval("signal_driver:finish(P, R)", P=self._pids[me], R=reason)

    async def look(self) -> dict[Key, dict[str, Any]]:
        found = await self.beam.eval("signal_driver:look(Ps)", Ps=self.pids)
        assert isinstance(found, list)
        return {
            self._registry.keys[pid]: {"inbox": inbox, "links": links, "monitors": monitors, "watchers": watchers}
            for pid, inbox, links, monitors, watchers in found
        }


class GatedWorld:
    """Side a is ours, side b the BEAM's."""

    def __init__(self, node: Node, gate: GatedTransport, beam: Beam) -> None:
        self.registry = Registry({"a": node.name.name, "b": beam.name})
        self._ours, self._theirs = OurSide(node), BeamSide(beam, self.registry)
        self.sides: dict[str, Side] = {"a": self._ours, "b": self._theirs}
        self._gate = gate
        self._marks = 0
        self._taps: dict[str, Tap] = {}
        self._tapped: object = None
        self._seen: dict[str, list[Signal]] = {"a": [], "b": []}

    async def settle(self) -> None:
        await settled()

    def _read_taps(self) -> None:
        wire = self._gate.wire
        assert wire is not None
        if wire is not self._tapped:
            self._tapped = wire
            for side, receiver in (("a", BEAM), ("b", US)):
                log = wire.to(receiver).log
                assert log is not None
                self._taps[side] = Tap(self.registry, side, other(side), log)
        for side, tap in self._taps.items():
            self._seen[side] += tap.signals()

    async def signals(self, side: str, count: int) -> list[Signal]:
        with trio.move_on_after(PATIENCE):
            while True:
                self._read_taps()
                if len(self._seen[side]) >= count:
                    break
                await trio.sleep(0.0005)
        seen, self._seen[side] = self._seen[side], []
        return seen

    async def deliver(self, side: str) -> None:
        assert self._gate.wire is not None
        if side == "b":
            assert self._gate.wire.to(US).deliver(1) == 1
            return
        assert self._gate.wire.to(BEAM).deliver(1) == 1
        self._marks += 1
        sender = self.registry.pids["a", 0]
        await self._gate.send_mark(sender, "signal_driver", (Atom("mark"), self._marks))
        source = "signal_driver:await_mark(N, Ps)"
        await self._theirs.beam.eval(source, N=self._marks, Ps=self._theirs.pids)

    async def cut(self) -> None:
        assert self._gate.wire is not None
        self._gate.wire.cut()
        await has_lost(self._theirs.beam, self._ours.node.name)

    async def disconnect(self, side: str) -> None:
        raise NotImplementedError

    async def look(self, side: str, expected: dict[Key, Any]) -> dict[Key, Any]:
        if side == "a":
            return self.registry.states(await self._ours.look())
        found = self.registry.states(await self._theirs.look())
        # A cascade of exits among processes of the BEAM goes on while this looks.
        with trio.move_on_after(PATIENCE):
            while found != expected:
                await trio.sleep(0.001)
                found = self.registry.states(await self._theirs.look())
        return found


async def play(script: list[Command], beam: Beam, cookie: str, epmd: Epmd, number: int) -> Counter[str]:
    name = f"scripted{os.getpid()}_{number}@127.0.0.1"
    async with trio.open_nursery() as tasks:
        gate = GatedTransport(tasks)
        node = Node(name, cookie, epmd_address=EpmdAddress(port=epmd.port), transport=gate)
        async with run_node(node):
            idle = node.statistics()
            driver = await beam.eval("signal_driver:start()")
            await node.connect(beam.name)
            assert await is_among_nodes(beam, node.name)
            crossed = await Player(GatedWorld(node, gate, beam)).play(script)
            assert {**node.statistics(), "peers": 0} == {**idle, "peers": 0}
            # Without a connection there is no table of it. A process that has just ended still clears up.
            empty = "lists:member(N, nodes(connected)) =:= false orelse signal_driver:entries(N) =:= {[], []}"
            assert await beam.eval(f"polling:until(fun() -> {empty} end, 20000)", N=node.name) is True
            await beam.eval("signal_driver:stop(D)", D=driver)
        tasks.cancel_scope.cancel()
    return crossed


@pytest.mark.rule("Aliases: the four ways in which one ends, also while messages cross it")
@pytest.mark.rule("Control messages: links, unlinks, monitors, aliases and exits that cross each other")
def test_scripts_of_signals_go_with_a_beam_as_the_manual_says(beam: Beam, cookie: str, epmd: Epmd) -> None:
    reached: Counter[str] = Counter()

    # The same scripts in every run; not made smaller, which would take a BEAM minutes: the failure tells its story.
    @settings(max_examples=100, derandomize=True, deadline=None, phases=[Phase.explicit, Phase.generate], database=None)
    @given(scripts(80, without=("disconnect",)))
    def run(script: list[Command]) -> None:
        reached.update(trio.run(play, script, beam, cookie, epmd, next_number()))

    numbers = iter(range(10**6))

    def next_number() -> int:
        return next(numbers)

    shortest = [SHORTEST[crossing] for crossing in sorted(CROSSINGS - _UNREACHED)]
    for script in [*shortest, *(script for script in ONCE_WRONG if "disconnect" not in script)]:
        run = example(parse(script))(run)
    run()
    missing = CROSSINGS - _UNREACHED - set(+reached)
    assert not missing, f"not reached: {missing}"
