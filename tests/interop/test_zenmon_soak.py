"""Exactly once: BEAMs and nodes of ours, and everything that may happen to them, at random and by a seed.

Each OTP has seeds of its own, printed when a script begins; ``docs/testing.md`` says how to play one again, and how to
let this run for hours (``make soak``).
"""

from __future__ import annotations

import os
import secrets
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from tests.soak.script import KINDS, Action, Script, parse
from tests.soak.world import NET_TICKTIME, World, open_world

if TYPE_CHECKING:
    from collections.abc import Iterator

    from erlang_interop.testing.beam import Beam, Epmd
    from tests.conftest import BeamFactory, Otp

#: Seconds without an option: a minute on the oldest and the newest OTP, and on the others until all has occurred once.
SECONDS = {25: 60.0, 29: 60.0}
#: Rounds that are played however slow the machine is; by then every kind of action has occurred.
LEAST_ROUNDS = 10
#: Actions shown of a script that failed.
SHOWN = 60


@pytest.mark.slow
async def test_every_monitor_fires_exactly_once(
    otp: Otp, epmd: Epmd, cookie: str, fresh_beam: BeamFactory, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    option = request.config.getoption
    script: str | None = option("--soak-script")
    seed: int = option("--soak-seed")
    seconds: float | None = option("--soak-seconds")
    if seconds is None:
        seconds = SECONDS.get(otp.release, 0.0)

    async def start_beam(name: str) -> Beam:
        args = ("-kernel", "net_ticktime", str(NET_TICKTIME))
        return await trio.to_thread.run_sync(partial(fresh_beam, name, args=args))

    prefix = f"soak{os.getpid()}_{secrets.token_hex(2)}"
    print(f"OTP {otp.release}, --soak-seed {seed}")  # noqa: T201 - a test that hangs must be replayable too
    async with open_world(prefix, cookie, epmd, start_beam) as world:
        try:
            if script is not None:
                await play_all(world, parse(await trio.Path(script).read_text()))
            else:
                await play_for(world, seed, seconds)
            await world.finish()
        except Exception as error:
            raise AssertionError(story(world, f"--soak-seed {seed}", tmp_path / "script", error)) from error
    print(report(world))  # noqa: T201 - what a run of hours was worth
    if script is None:
        missing = KINDS - set(world.counts)
        assert not missing, f"never happened: {missing}"


async def play_all(world: World, actions: list[Action]) -> None:
    for action in actions:
        await world.play(action)


async def play_for(world: World, seed: int, seconds: float) -> None:
    """Play whole rounds until the time is over."""
    limit = trio.current_time() + seconds
    actions = Script(seed).actions()
    while world.counts["settle"] < LEAST_ROUNDS or trio.current_time() < limit:
        await play_all(world, [*one_round(actions)])


def one_round(actions: Iterator[Action]) -> Iterator[Action]:
    for action in actions:
        yield action
        if action.kind == "settle":
            return


def report(world: World) -> str:
    """How much was done."""
    counts = [f"{count} {what}" for what, count in sorted({**world.counts, **world.ledger.fired}.items())]
    failures = sum(side.failures for side in world.ours.values())
    return f"{len(world.ledger.monitors)} monitors: {', '.join(counts)}; {failures} exceptions"


def story(world: World, seed: str, whole: Path, error: Exception) -> str:
    """What went wrong, and what was done before that."""
    whole.write_text("".join(f"{action}\n" for action in world.done))
    first = max(0, len(world.done) - SHOWN)
    steps = [f"{number:6} {action!s:.300}" for number, action in enumerate(world.done[first:], start=first)]
    return "\n".join((f"{error}", f"after {seed}; the whole script is {whole}:", *steps))
