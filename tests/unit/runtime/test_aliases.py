"""The table of aliases: how each mode ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from erlang_interop.terms import Atom, Reference
from tests.unit.runtime.signals_rig import REMOTE, Recorder, Sink, new_router

if TYPE_CHECKING:
    from erlang_interop.runtime.signals import Router


@pytest.fixture
async def router() -> Router:
    return new_router(Sink())


@pytest.mark.parametrize(
    ("mode", "messages", "monitored", "left"),
    [
        ("explicit_unalias", 2, True, True),
        ("demonitor", 2, True, True),
        ("reply", 1, True, False),
        ("reply_demonitor", 1, False, False),
    ],
)
async def test_what_messages_do(router: Router, mode: str, messages: int, monitored: bool, left: bool) -> None:
    process = Recorder(router)
    ref = router.monitor(process, REMOTE, mode)
    for number in range(2):
        router.aliases.deliver(ref, number)
    assert process.messages == list(range(messages))
    assert (ref in process.monitors) is monitored
    assert (ref in router.aliases) is left
    assert list(process.aliases) == [ref] * left


@pytest.mark.parametrize(
    ("mode", "left"), [("explicit_unalias", True), ("reply", True), ("demonitor", False), ("reply_demonitor", False)]
)
async def test_what_the_end_of_its_monitor_does(router: Router, mode: str, left: bool) -> None:
    process = Recorder(router)
    demonitored, fired = router.monitor(process, REMOTE, mode), router.monitor(process, REMOTE, mode)
    router.demonitor(process, demonitored)
    router.fire_down(process.pid, fired, Atom("gone"))
    at_once = router.monitor(process, "nobody", mode)
    assert [ref in router.aliases for ref in (demonitored, fired, at_once)] == [left] * 3


async def test_an_alias_is_of_one_process(router: Router) -> None:
    mine, other = Recorder(router), Recorder(router)
    ref = router.aliases.add(mine, "explicit_unalias")
    assert router.aliases.remove(other, ref) is False
    assert router.aliases.remove(mine, ref) is True
    assert router.aliases.remove(mine, ref) is False
    with pytest.raises(ValueError, match="alias mode 'sometimes' is none of demonitor, explicit_unalias, reply"):
        router.aliases.add(mine, "sometimes")


async def test_an_exit_ends_no_alias(router: Router) -> None:
    process = Recorder(router)
    process.trap_exit = True
    ref = router.aliases.add(process, "reply")
    router.aliases.exit(REMOTE, ref, Atom("bang"))
    assert ref in router.aliases
    router.terminate(process, Atom("normal"))
    router.aliases.exit(REMOTE, ref, Atom("bang"))
    router.aliases.deliver(ref, 1)
    assert process.messages == [(Atom("EXIT"), REMOTE, Atom("bang")), ("ended", Atom("normal"))]
    assert len(router.aliases) == 0


async def test_a_target_that_cannot_be_monitored_leaves_no_alias(router: Router) -> None:
    process = Recorder(router)
    with pytest.raises(ValueError, match="cannot monitor 7"):
        router.monitor(process, 7, "demonitor")  # type: ignore[arg-type]
    assert len(router.aliases) == 0


class Counted:
    """In place of a reference: counts how often one is compared with another."""

    comparisons = 0

    def __eq__(self, other: object) -> bool:
        Counted.comparisons += 1
        return self is other

    def __hash__(self) -> int:
        return id(self)


async def test_an_alias_ends_without_a_look_at_the_others(router: Router) -> None:
    process, refs = Recorder(router), [Counted() for _ in range(1000)]
    for ref in refs:
        router.aliases.add(process, "explicit_unalias", cast(Reference, ref))
    Counted.comparisons = 0
    for ref in reversed(refs):
        assert router.aliases.remove(process, cast(Reference, ref)) is True
    assert Counted.comparisons < 1000  # a list of them would be searched: half a million
    assert not process.aliases
