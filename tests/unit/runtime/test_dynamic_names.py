"""Names given to nodes that have none."""

import re

import pytest

from erlang_interop.runtime import dynamic_names
from erlang_interop.runtime.dynamic_names import DynamicNames
from erlang_interop.terms import Atom


def nobody(_name: Atom) -> bool:
    return False


def test_a_name_is_as_net_kernel_makes_them() -> None:
    names = DynamicNames()
    taken = {names.take("h", nobody) for _ in range(100)}
    assert len({name for name, _ in taken}) == 100
    for name, creation in taken:
        assert re.fullmatch(r"[0-9A-Z]{1,13}@h", name.name)
        assert 4 <= creation < 1 << 32


def test_numbers_are_written_as_integer_to_list_does() -> None:
    shown = [(1, "1"), (35, "Z"), (36, "10"), (46655, "ZZZ"), (1 << 64, "3W5E11264SGSG")]
    assert [(number, dynamic_names._base_36(number)) for number, _ in shown] == shown


def test_a_name_is_given_again_with_the_next_creation() -> None:
    names = DynamicNames()
    first, creation = names.take("h", nobody)
    other, _ = names.take("h", nobody)
    names.give_back(first, creation)
    assert names.take("elsewhere", nobody)[0].name.endswith("@elsewhere")
    assert names.take("h", nobody) == (first, creation + 1 if creation < 0xFFFFFFFF else 4)
    assert names.take("h", nobody)[0] not in (first, other)


def test_a_name_that_is_taken_is_given_to_nobody() -> None:
    names = DynamicNames()
    names.give_back(Atom("A@h"), 7)
    names.give_back(Atom("B@h"), 8)
    assert names.take("h", lambda name: name == Atom("B@h")) == (Atom("A@h"), 8)
    assert names.take("h", nobody)[0] not in (Atom("A@h"), Atom("B@h"))


@pytest.mark.parametrize(("creation", "following"), [(4, 5), (0xFFFFFFFE, 0xFFFFFFFF), (0xFFFFFFFF, 4)])
def test_creations_wrap_past_the_small_ones(creation: int, following: int) -> None:
    names = DynamicNames()
    names.give_back(Atom("A@h"), creation)
    assert names.take("h", nobody) == (Atom("A@h"), following)
