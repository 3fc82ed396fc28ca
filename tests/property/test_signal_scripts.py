"""Links, monitors, aliases and exits between two nodes of ours, with every signal delivered when the script says."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import trio
from hypothesis import event, example, given, settings

from erlang_interop.testing.cluster import Network, open_cluster, settled
from tests.signals.model import CROSSINGS, Key, Signal, other
from tests.signals.play import ONCE_WRONG, SHORTEST, Command, Player, parse, scripts
from tests.signals.sides import OurSide, Registry, Tap

NAMES = {"a": "a@test", "b": "b@test"}


class MemoryWorld:
    """Both sides are nodes of ours."""

    def __init__(self, network: Network, sides: dict[str, OurSide]) -> None:
        self.registry = Registry(NAMES)
        self.sides: dict[str, OurSide] = sides
        self._network = network
        self._taps: dict[str, Tap] = {}
        self._tapped: object = None

    async def settle(self) -> None:
        await settled()

    async def signals(self, side: str, count: int) -> list[Signal]:
        wire = self._network.wire(*NAMES.values())
        if wire is not self._tapped:
            self._tapped = wire
            for sender in NAMES:
                log = wire.to(NAMES[other(sender)]).log
                assert log is not None
                self._taps[sender] = Tap(self.registry, sender, other(sender), log)
        return self._taps[side].signals()

    async def deliver(self, side: str) -> None:
        assert self._network.wire(*NAMES.values()).to(NAMES[other(side)]).deliver(1) == 1

    async def cut(self) -> None:
        self._network.wire(*NAMES.values()).cut()

    async def disconnect(self, side: str) -> None:
        await self.sides[side].node.disconnect(NAMES[other(side)])

    async def look(self, side: str, expected: dict[Key, Any]) -> dict[Key, Any]:
        return self.registry.states(await self.sides[side].look())


async def play(script: list[Command]) -> Counter[str]:
    network = Network(keep=True)
    async with open_cluster(*NAMES.values(), network=network) as (a, b):
        await a.connect(b.name)
        network.hold(handshakes=False)
        idle = [node.statistics() for node in (a, b)]
        world = MemoryWorld(network, {"a": OurSide(a), "b": OurSide(b)})
        crossed = await Player(world).play(script)
        for node, before in zip((a, b), idle, strict=True):
            assert {**node.statistics(), "peers": 0} == {**before, "peers": 0}
        return crossed


@pytest.mark.parametrize("crossing", sorted(CROSSINGS))
def test_the_shortest_script_of_each_crossing_reaches_it(crossing: str) -> None:
    assert trio.run(play, parse(SHORTEST[crossing]))[crossing] >= 1


def test_scripts_of_signals_go_as_the_manual_says() -> None:
    reached: Counter[str] = Counter()

    @settings(max_examples=500, derandomize=True, deadline=None)
    @given(scripts(80))
    def run(script: list[Command]) -> None:
        crossed = trio.run(play, script)
        reached.update(crossed)
        for crossing in +crossed:
            event(crossing)

    for script in [*SHORTEST.values(), *ONCE_WRONG]:
        run = example(parse(script))(run)
    run()
    assert set(+reached) >= CROSSINGS, f"not reached: {CROSSINGS - set(+reached)}"
