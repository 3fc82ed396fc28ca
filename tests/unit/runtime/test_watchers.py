"""The monitors on one process: a dictionary in all but its size."""

from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st

from erlang_interop.runtime.watchers import Watch, Watchers
from erlang_interop.terms import Atom, Pid, Reference

NODE = Atom("a@test")
WATCHES: list[Watch] = [Pid(NODE, 1, 0, 1), (Pid(NODE, 2, 0, 1), (Atom("name"), NODE))]


def ref(number: int) -> Reference:
    return Reference(NODE, 1, number.to_bytes(12, "big"))


@given(st.lists(st.tuples(st.sampled_from(["add", "pop", "get"]), st.integers(0, 4), st.sampled_from(WATCHES))))
def test_it_is_a_dictionary_in_the_order_of_insertion(steps: list[tuple[str, int, Watch]]) -> None:
    watchers, plain = Watchers(), dict[Reference | Pid, Watch]()
    for what, number, watch in steps:
        one = ref(number)
        if what == "add" and one not in plain:
            watchers.add(one, watch)
            plain[one] = watch
        elif what == "pop":
            assert watchers.pop(one) == plain.pop(one, None)
        else:
            assert watchers.get(one) == plain.get(one)
        assert (len(watchers), bool(watchers)) == (len(plain), bool(plain))
        assert [ref(n) in watchers for n in range(5)] == [ref(n) in plain for n in range(5)]
        assert list(watchers.items()) == list(plain.items())
    assert watchers.take() == list(plain.items())
    assert (len(watchers), watchers.items()) == (0, [])


def test_one_takes_little_room() -> None:
    watchers = Watchers()
    watchers.add(ref(1), WATCHES[0])
    assert sys.getsizeof(watchers) < 100 < sys.getsizeof({ref(1): WATCHES[0]})
