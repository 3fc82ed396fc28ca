"""Scripts of the soak test: the same for the same seed, complete, and readable again."""

from __future__ import annotations

from itertools import islice

import pytest

from tests.soak.script import CALM, KINDS, STORMY, Action, Script, parse


def first_rounds(seed: int, rounds: int) -> list[Action]:
    actions: list[Action] = []
    for action in Script(seed).actions():
        actions.append(action)
        rounds -= action.kind == "settle"
        if not rounds:
            return actions
    raise AssertionError("a script has no end")


def test_a_seed_makes_one_script() -> None:
    assert first_rounds(7, 5) == first_rounds(7, 5)
    assert first_rounds(7, 5) != first_rounds(8, 5)


def test_a_script_is_read_as_it_was_written() -> None:
    actions = list(islice(Script(3).actions(), 500))
    assert parse("# a comment\n\n" + "\n".join(map(str, actions))) == actions


@pytest.mark.parametrize("seed", range(1, 21))
def test_in_ten_rounds_there_is_everything(seed: int) -> None:
    assert {action.kind for action in first_rounds(seed, 11)} == KINDS


def test_calm_rounds_are_calm() -> None:
    (_, first, *_) = "\n".join(map(str, first_rounds(5, 3))).split("settle")
    assert not {action.kind for action in parse(first)} & set(STORMY)
    assert set() < {action.kind for action in parse(first)} <= set(CALM)


def test_monitors_and_processes_are_never_called_the_same() -> None:
    monitors: list[int] = []
    processes: list[int] = []
    for action in first_rounds(11, 12):
        match action:
            case Action("monitor", (int(first), _, *targets)):
                monitors += range(first, first + len(targets))
            case Action("spawn", (_, int(first), int(count))):
                processes += range(first, first + count)
            case Action("register", (_, int(number), _)):
                processes.append(number)
    assert len(set(monitors)) == len(monitors) > 500
    assert len(set(processes)) == len(processes) > 500


def test_a_subscriber_is_used_while_it_is_there() -> None:
    there = {f"{node}/{number}" for node in ("p1", "p2", "b1", "b2") for number in (1, 2, 3)}
    for action in first_rounds(13, 12):
        match action:
            case Action("monitor", (_, str(subscriber), *_)):
                assert subscriber in there, action
            case Action("die", (str(subscriber), *new)):
                there.remove(subscriber)
                there |= {str(one) for one in new}
            case Action("kill_beam", (node,)):
                there = {subscriber for subscriber in there if not subscriber.startswith(f"{node}/")}
            case Action("start_beam", (_, *new)) | Action("settle", new):
                there |= {str(one) for one in new}
