"""Exactly once: BEAMs and nodes of ours, and everything that may happen to them, at random and by a seed.

Each OTP has a seed of its own. ``docs/testing.md`` says how to play one again, and how to let this run for hours
(``make soak``).
"""

from __future__ import annotations

import os
import secrets
import sys
from collections import deque
from collections.abc import MutableMapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
import structlog
import trio

from tests.soak.ledger import OUTCOMES
from tests.soak.opening import open_world
from tests.soak.script import KINDS, Action, Script, parse
from tests.soak.world import NET_TICKTIME, World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from erlang_interop.testing.beam import Beam, Epmd
    from tests.conftest import BeamFactory, Otp

#: What is done on which OTP, and for how many seconds; on the others only until all has happened.
SEEDS = {25: 1, 27: 2, 28: 3, 29: 4}
SECONDS = {25: 60.0, 29: 60.0}
#: Rounds that are played however slow the machine is, and those within which everything has happened at last.
LEAST_ROUNDS, MOST_ROUNDS = 8, 60
#: Seconds by which it may take longer, before it counts as stuck.
SLACK_S = 900
#: Actions, and lines of the log, shown of a script that failed.
SHOWN = 60


@pytest.fixture
def logged() -> Iterator[deque[str]]:
    """The last of what our nodes have logged, in short: what is told to fail is logged hundreds of times."""
    last: deque[str] = deque(maxlen=SHOWN)

    def keep(_logger: object, _method: str, event: MutableMapping[str, Any]) -> NoReturn:
        last.append(f"{event}: {sys.exc_info()[1]!r}")
        raise structlog.DropEvent

    processors = structlog.get_config()["processors"]
    before = processors[:]
    processors[:] = [keep]  # in place: loggers that are made already have this list
    yield last
    processors[:] = before


@pytest.mark.slow
@pytest.mark.timeout(0)  # it has a limit of its own, according to how long it is told to go on
async def test_every_monitor_fires_exactly_once(
    otp: Otp,
    epmd: Epmd,
    cookie: str,
    fresh_beam: BeamFactory,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    logged: deque[str],
) -> None:
    option = request.config.getoption
    script: str | None = option("--soak-script")
    seed = SEEDS.get(otp.release, otp.release) if option("--soak-seed") is None else option("--soak-seed")
    seconds = SECONDS.get(otp.release, 0.0) if option("--soak-seconds") is None else option("--soak-seconds")

    async def start_beam(name: str) -> Beam:
        args = ("-kernel", "net_ticktime", str(NET_TICKTIME))
        return await trio.to_thread.run_sync(partial(fresh_beam, name, args=args))

    prefix = f"soak{os.getpid()}_{secrets.token_hex(2)}"
    played = f"OTP {otp.release}, " + (f"--soak-seed {seed}" if script is None else f"--soak-script {script}")
    print(played)  # noqa: T201 - whatever becomes of it
    with trio.fail_after(seconds + SLACK_S):
        async with open_world(prefix, cookie, epmd, start_beam) as world:
            try:
                if script is not None:
                    await play_all(world, parse(await trio.Path(script).read_text()))
                else:
                    await play_for(world, seed, seconds)
                await world.finish()
            except Exception as error:
                raise AssertionError(story(world, played, tmp_path / "script", error, logged)) from error
    print(report(world))  # noqa: T201 - what a run of hours was worth
    assert script is not None or not missing(world), f"never happened: {missing(world)}"


async def play_all(world: World, actions: list[Action]) -> None:
    for action in actions:
        await world.play(action)


async def play_for(world: World, seed: int, seconds: float) -> None:
    """Play whole rounds until the time is over, and everything has happened."""
    limit = trio.current_time() + seconds
    actions = Script(seed).actions()
    while (
        (rounds := world.counts["settle"]) < LEAST_ROUNDS
        or trio.current_time() < limit
        or (missing(world) and rounds < MOST_ROUNDS)
    ):
        await play_all(world, [*one_round(actions)])


def missing(world: World) -> set[str]:
    """What has not happened in this world, of all that can."""
    return {*KINDS, *OUTCOMES} - set(+(world.counts + world.ledger.outcomes))


def one_round(actions: Iterator[Action]) -> Iterator[Action]:
    for action in actions:
        yield action
        if action.kind == "settle":
            return


def report(world: World) -> str:
    """How much was done."""
    counts = [f"{count} {what}" for what, count in sorted((world.counts + world.ledger.outcomes).items())]
    failures = sum(side.failures for side in world.ours.values())
    return f"{len(world.ledger.monitors)} monitors: {', '.join(counts)}; {failures} exceptions"


def story(world: World, played: str, whole: Path, error: Exception, logged: deque[str]) -> str:
    """What went wrong, and what was done and logged before that."""
    whole.write_text("".join(f"{action}\n" for action in world.done))
    first = max(0, len(world.done) - SHOWN)
    steps = [f"{number:6} {action!s:.300}" for number, action in enumerate(world.done[first:], start=first)]
    return "\n".join((f"{error}", f"after {played}; the whole script is {whole}:", *steps, "logged:", *logged))
