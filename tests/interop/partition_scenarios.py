"""What may happen to a cluster, and what must be true afterwards: test_partitions.py, ``make partitions``.

Each scenario starts from a cluster in agreement, and returns when it agrees again. It says between which nodes
connections may be lost by what it does. While it goes on, a BEAM that nothing is done to registers names with `global`,
one after the other, and takes the time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from erlang_interop import Atom
from tests.interop.partition_members import ANSWER_LIMIT_S, BeamMember, Down, Pair

if TYPE_CHECKING:
    from random import Random

    from tests.interop.partitions import Cluster

#: Joins and leaves in a row.
COMINGS: Final = 20
CONTESTED: Final = "contested"


@dataclass(frozen=True)
class Scenario:
    """One thing that happens.

    Attributes:
        title: What, in words; a newcomer is called so.
        victims: Whom it happens to: ``beam``, ``newcomer``; two for a link.
        run: Does it, and mends it.
    """

    title: str
    victims: tuple[str, ...]
    run: Callable[..., Awaitable[None]]


async def kill(cluster: Cluster, victim: str) -> None:
    """SIGKILL; later the node starts again under its name."""
    await cluster.members[victim].kill()
    await cluster.agree(absent=[victim])
    await cluster.come_back(victim)
    await cluster.agree()


async def restart(cluster: Cluster, victim: str) -> None:
    """SIGKILL, and a start under the same name at once, whether the others know already that it was dead or not."""
    await cluster.members[victim].kill()
    await cluster.start(victim)
    await cluster.agree(mending=[victim])


async def suspend(cluster: Cluster, victim: str) -> None:
    """SIGSTOP until everybody has lost the node, by net_ticktime; then it goes on, and comes back."""
    cluster.members[victim].suspend()
    await cluster.agree(absent=[victim])
    cluster.members[victim].resume()
    # Some reconnect by themselves, as soon as they have something to send.
    await cluster.agree(mending=[victim])


async def suspend_joining(cluster: Cluster, victim: str) -> None:
    """SIGSTOP as soon as it is connected with a BEAM, whose `global` has begun to exchange locks and names with it."""
    await cluster.members[victim].leave()
    await cluster.agree(absent=[victim])
    await cluster.come_back(victim)
    await suspend(cluster, victim)


async def leave(cluster: Cluster, victim: str) -> None:
    """Many joins and leaves in a row; every second time it leaves as soon as the first BEAM has seen it."""
    beams = list(cluster.beams)
    for number in range(COMINGS):
        await cluster.members[victim].leave()
        await cluster.agree(absent=[victim])
        await cluster.come_back(victim)
        if number % 2 == 0 and number < COMINGS - 1:
            await cluster.sees(beams[0], victim)
        else:
            await cluster.agree()


async def cut(cluster: Cluster, one: str, other: str) -> None:
    """The connection is reset, and so is each new one. Both register the same name meanwhile. Then it is mended."""
    cluster.network.link(one, other).cut()
    await _mended(cluster, one, other)


async def silence(cluster: Cluster, one: str, other: str) -> None:
    """Nothing comes through any more, until both have noticed it by net_ticktime. The rest as after a cut."""
    cluster.network.link(one, other).silence()
    await _mended(cluster, one, other)


async def _mended(cluster: Cluster, one: str, other: str) -> None:
    await cluster.have_lost([frozenset((one, other))])
    victims = [one, other]
    if one in cluster.newcomers and not cluster.in_mesh:
        await cluster.has_dropped(other, one)
        victims.remove(other)  # `global` exchanges nothing between these two: to take the BEAM out is no help
    for short in (one, other):
        if short in cluster.beams or cluster.in_mesh:
            await cluster.members[short].hold(CONTESTED)
    cluster.network.link(one, other).heal()
    # `global` has let one of the two processes live, and everybody knows which.
    await cluster.agree(besides=[CONTESTED], mending=victims)
    await bystander(cluster, one, other).beam.eval("global:unregister_name(Name)", Name=Atom(CONTESTED))
    await cluster.agree()


SCENARIOS: Final = {
    "kill newcomer": Scenario("the newcomer is killed, and starts again", ("newcomer",), kill),
    "restart newcomer": Scenario("the newcomer is killed and starts again at once", ("newcomer",), restart),
    "comings": Scenario(f"the newcomer joins and leaves {COMINGS} times", ("newcomer",), leave),
    "cut newcomer": Scenario("the link of newcomer and BEAM is cut", ("newcomer", "beam"), cut),
    "cut newcomers": Scenario("the link of two newcomers is cut", ("newcomer", "newcomer"), cut),
    "suspend newcomer": Scenario("the newcomer is suspended", ("newcomer",), suspend),
    "suspend joining": Scenario("the newcomer is suspended while it joins", ("newcomer",), suspend_joining),
    "silence newcomer": Scenario("the link of newcomer and BEAM goes silent", ("newcomer", "beam"), silence),
    "kill beam": Scenario("a BEAM is killed, and starts again", ("beam",), kill),
    "restart beam": Scenario("a BEAM is killed and starts again at once", ("beam",), restart),
    "suspend beam": Scenario("a BEAM is suspended", ("beam",), suspend),
    "cut beams": Scenario("the link of two BEAMs is cut", ("beam", "beam"), cut),
    "silence beams": Scenario("the link of two BEAMs goes silent", ("beam", "beam"), silence),
}
"""Those last in which BEAMs lose each other."""


def is_possible(scenario: Scenario, newcomers: int, *, in_mesh: bool) -> bool:
    """Whether there are enough newcomers; those beside the mesh have no link with each other."""
    needed = scenario.victims.count("newcomer")
    return needed <= newcomers and (needed < 2 or in_mesh)


@dataclass(frozen=True)
class Outcome:
    """What a scenario gave.

    Attributes:
        victims: The nodes it happened to.
        downs: All connections that BEAMs lost.
        unexplained: Those of them, between two BEAMs, that the scenario does not explain.
        micros: What registering a name took on a BEAM that nothing was done to, each time, in microseconds.
        seconds: How long it took until the cluster agreed again.
    """

    victims: tuple[str, ...]
    downs: list[Down]
    unexplained: list[Down]
    micros: list[int]
    seconds: float

    @property
    def worst_ms(self) -> float:
        return max(self.micros) / 1000


async def play(cluster: Cluster, scenario: Scenario, random: Random) -> Outcome:
    """Let a scenario happen to victims that ``random`` picks.

    Raises:
        MatrixError: the cluster does not agree afterwards.
    """
    beams, newcomers = list(cluster.beams), list(cluster.newcomers)
    random.shuffle(beams)
    random.shuffle(newcomers)
    victims = tuple({"beam": beams, "newcomer": newcomers}[kind].pop() for kind in scenario.victims)
    timer = bystander(cluster, *victims).beam
    await timer.eval("partition_watch:keep_timing()")
    started = trio.current_time()
    await scenario.run(cluster, *victims)
    seconds = trio.current_time() - started
    micros = await timer.eval("partition_watch:timed()", timeout=ANSWER_LIMIT_S)
    downs = await cluster.take_downs()
    return Outcome(victims, downs, cluster.unexplained(downs, explained(cluster, victims)), micros, seconds)


def explained(cluster: Cluster, victims: Sequence[str]) -> list[Pair]:
    """Connections between BEAMs that may be lost by what happens to these nodes, or to their link.

    With a BEAM go its own connections. Two BEAMs that lose each other both tell the others, which then leave both
    (prevent_overlapping_partitions). What happens to a newcomer, or to its link with a BEAM, explains nothing.
    """
    return cluster.pairs_with(*victims) if all(victim in cluster.beams for victim in victims) else []


def bystander(cluster: Cluster, *victims: str) -> BeamMember:
    """A BEAM that nothing is done to; where there are but two and it is their link that fails, one of them."""
    return [*cluster.beams.values(), *(beam for short, beam in cluster.beams.items() if short not in victims)][-1]


async def time_names(cluster: Cluster, count: int) -> list[int]:
    """Microseconds that each of ``count`` registrations took on each BEAM, one BEAM after the other."""
    micros: list[int] = []
    for beam in cluster.beams.values():
        source = "partition_watch:time_names(Count)"
        micros += await beam.beam.eval(source, timeout=ANSWER_LIMIT_S, Count=count)
    return micros
