from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Mapping
from typing import Any
from unittest.mock import ANY

import pytest

from erlang_interop import _identifiers, terms
from erlang_interop._native import core
from erlang_interop.errors import EncodeError
from erlang_interop.terms import (
    Atom,
    BitString,
    ErlMap,
    Export,
    Fun,
    ImproperList,
    LocalTerm,
    Pid,
    Port,
    Record,
    Reference,
    charlist,
    text,
)

#: By mypyc; the identifiers are in the C core.
COMPILED = not str(terms.__file__).endswith(".py")
NODE = Atom("py@host")
PID = Pid(NODE, 12, 0, 3)
SAMPLES: list[Any] = [
    Atom("ok"),
    PID,
    Port(NODE, 1 << 40, 3),
    Reference(NODE, 3, b"\0\0\0\1\0\0\0\2\0\0\0\3"),
    Export(Atom("lists"), Atom("map"), 2),
    Fun(Atom("m"), 1, b"u" * 16, 2, 3, 1, PID, (1, [2])),
    BitString(b"\x80", 1),
    ImproperList([1, [2]], 3),
    Record(Atom("m"), Atom("r"), True, ((Atom("f"), [1]),)),
    LocalTerm(b"\1\2"),
    ErlMap([(1, "a"), (1.0, "b"), ([2], "c")]),
]
each_sample = pytest.mark.parametrize("term", SAMPLES, ids=lambda term: type(term).__name__)


@each_sample
def test_survives_pickle_and_copy(term: Any) -> None:
    for again in (pickle.loads(pickle.dumps(term)), copy.copy(term), copy.deepcopy(term)):
        assert again == term
        assert type(again) is type(term)
        assert repr(again) == repr(term)


@each_sample
def test_equality_is_by_value_and_leaves_the_last_word_to_others(term: Any) -> None:
    assert term == copy.deepcopy(term)
    assert term != object()
    assert term == ANY
    assert [sample for sample in SAMPLES if sample == term] == [term]


@each_sample
def test_hash_agrees_with_equality(term: Any) -> None:
    if isinstance(term, (ImproperList, ErlMap)):
        with pytest.raises(TypeError, match="unhashable"):
            hash(term)
    else:
        assert hash(term) == hash(copy.deepcopy(term))
        assert {term: 1}[copy.deepcopy(term)] == 1


@each_sample
def test_no_attribute_can_be_added(term: Any) -> None:
    with pytest.raises(AttributeError):
        term.something = 1


@each_sample
def test_repr_makes_the_term_again(term: Any) -> None:
    assert eval(repr(term), dict(vars(terms))) == term


def test_only_the_compiled_terms_are_out_of_the_collectors_sight() -> None:
    for term in (Atom("ok"), PID, SAMPLES[2], SAMPLES[3]):
        assert gc.is_tracked(term) is (core is None)
    for term in (SAMPLES[4], SAMPLES[6]):
        assert gc.is_tracked(term) is not COMPILED


def test_the_compiled_terms_are_immutable() -> None:
    """mypy refuses these assignments in both builds."""
    term = copy.deepcopy(PID)
    if core is not None:
        with pytest.raises(AttributeError, match="not writable"):
            term.id = 4  # type: ignore[misc]
    else:
        term.id = 4  # type: ignore[misc]
    assert (term == PID) is (core is not None)


def test_identifiers_are_final_and_made_of_the_right_parts() -> None:
    for cls, names in {Atom: "name", Pid: "node id serial creation", Reference: "node creation words"}.items():
        assert " ".join(cls.__match_args__) == names  # type: ignore[attr-defined]
    assert Pid(creation=4, serial=3, id=2, node=NODE) == Pid(NODE, 2, 3, creation=4)
    wrong: list[Any] = [
        lambda: Pid(NODE, 1, 2),  # type: ignore[call-arg]
        lambda: Pid(NODE, 1, 2, 3, 4),  # type: ignore[call-arg]
        lambda: Pid(NODE, 1, 2, number=3),  # type: ignore[call-arg]
        lambda: Pid(NODE, 1, 2, node=NODE),  # type: ignore[call-arg, misc]
    ]
    if core is not None:  # only mypy refuses these where the classes are Python's
        wrong += [
            lambda: type("Mine", (Pid,), {}),
            lambda: Pid("py@host", 1, 2, 3),  # type: ignore[arg-type]
            lambda: Pid(NODE, 1.0, 2, 3),  # type: ignore[arg-type]
            lambda: Port(NODE, None, 3),  # type: ignore[arg-type]
            lambda: Reference(NODE, 3, "words"),  # type: ignore[arg-type]
        ]
        with pytest.raises(OverflowError):
            Pid(NODE, 1 << 63, 0, 0)
    for make in wrong:
        with pytest.raises(TypeError):
            make()


def test_atoms_are_interned() -> None:
    assert Atom("ok") is Atom("ok")
    assert Atom("ok") != Atom("error")
    assert Atom("ok") != "ok"
    assert Atom("ok").wire == b"w\x02ok"
    assert str(Atom("ok")) == "ok"


def test_atoms_beyond_the_intern_table_still_work(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"intern test {number}" for number in range(terms.INTERN_LIMIT)]
    table = _identifiers._interned
    known = dict(table)
    try:
        for name in names:
            Atom(name)
        assert len(table) == terms.INTERN_LIMIT
        late, again = Atom("a late atom"), Atom("a late atom")
        assert late is not again
        assert late == again
        assert hash(late) == hash(again)
        assert late != Atom("another late atom")
        assert {late: 1}[again] == 1
        assert len(table) == terms.INTERN_LIMIT
    finally:
        table.clear()
        table.update(known)


@pytest.mark.parametrize("name", ["x" * 256, "\ud800"])
def test_what_is_no_atom_is_refused(name: str) -> None:
    with pytest.raises(EncodeError):
        Atom(name)


def test_the_longest_atom_counts_characters_not_bytes() -> None:
    atom = Atom("€" * 255)
    assert atom.wire == b"v" + (765).to_bytes(2, "big") + "€".encode() * 255


def test_an_atom_is_made_of_a_str() -> None:
    class Name(str):
        __slots__ = ()

    assert type(Atom(Name("a subclass of str")).name) is str
    with pytest.raises(TypeError):
        Atom(1)  # type: ignore[arg-type]


def test_atoms_match_in_case_statements() -> None:
    found = 0
    match (Atom("DOWN"), PID):
        case (Atom("UP"), _):
            found = 1
        case (Atom("DOWN"), Pid(node, number)) if node is NODE:
            found = number
    assert found == 12


def test_identifiers_print_like_the_shells_with_their_node() -> None:
    assert str(PID) == "<py@host.12.0>"
    assert str(Port(NODE, 5, 3)) == "#Port<py@host.5>"
    reference = Reference(NODE, 3, b"\0\0\0\1\0\0\0\2\0\0\0\3")
    assert str(reference) == "#Ref<py@host.3.2.1>"
    assert reference.ids == (1, 2, 3)


def test_pids_differ_in_every_part() -> None:
    others = [Pid(Atom("x@y"), 12, 0, 3), Pid(NODE, 13, 0, 3), Pid(NODE, 12, 1, 3), Pid(NODE, 12, 0, 4)]
    assert all(other != PID for other in others)
    assert len({PID, *others}) == 5


def test_unused_bits_do_not_count() -> None:
    assert BitString(b"\xff\xff", 3) == BitString(b"\xff\xe0", 3)
    assert len(BitString(b"\xff\xff", 3)) == 11
    for data, bits in ((b"", 1), (b"a", 0), (b"a", 8)):
        with pytest.raises(ValueError, match="BitString"):
            BitString(data, bits)


def test_an_improper_list_is_not_a_list() -> None:
    with pytest.raises(ValueError, match="use a list"):
        ImproperList([1], [2])
    with pytest.raises(ValueError, match="use a list"):
        ImproperList([], 2)


def test_an_improper_list_as_tail_is_the_same_list() -> None:
    """As in Erlang, where ``[1 | [2 | 3]]`` is ``[1, 2 | 3]``."""
    assert ImproperList([1], ImproperList([2], 3)) == ImproperList([1, 2], 3)


def test_record_fields_by_name() -> None:
    record = Record(Atom("m"), Atom("r"), False, ((Atom("x"), 1), (Atom("y"), 2)))
    assert record["y"] == record[Atom("y")] == 2
    with pytest.raises(KeyError):
        record["z"]
    with pytest.raises(ValueError, match="same field twice"):
        Record(Atom("m"), Atom("r"), False, ((Atom("x"), 1), (Atom("x"), 2)))


class TestErlMap:
    PAIRS = ((1, "int"), (1.0, "float"), (True, "true"), ([1], "list"), ({1: 2}, "map"), ((1, [2.0]), "tuple"))

    def test_keeps_every_pair_and_its_order(self) -> None:
        mapping = ErlMap(self.PAIRS)
        assert mapping.pairs() == list(mapping.items()) == list(self.PAIRS)
        assert len(mapping) == 6
        assert isinstance(mapping, Mapping)
        assert list(mapping) == list(mapping.keys()) == [key for key, _ in self.PAIRS]
        assert list(mapping.values()) == [value for _, value in self.PAIRS]

    def test_tells_keys_apart_as_erlang_does(self) -> None:
        mapping = ErlMap(self.PAIRS)
        for key, value in self.PAIRS:
            assert mapping[key] == value
            assert key in mapping
        others: list[Any] = [1 + 0j, 2, [1.0], (1, [2]), {1: 2.0}, Atom("true"), {1}, None]
        for other in others:
            assert other not in mapping
            assert mapping.get(other, "default") == "default"
            with pytest.raises(KeyError):
                mapping[other]

    def test_zeros_are_two(self) -> None:
        assert ErlMap([(0.0, 1), (-0.0, 2)])[-0.0] == 2

    def test_equals_a_mapping_of_the_same_pairs_in_any_order(self) -> None:
        assert ErlMap(self.PAIRS) == ErlMap(reversed(self.PAIRS))
        assert ErlMap([(1, [2])]) == {1: [2]}
        assert ErlMap([(1, [2])]) != {1: [2.0]}
        assert ErlMap([(1, [2])]) != {True: [2]}

    def test_refuses_a_key_twice(self) -> None:
        for twice in ([([1], 1), ([1], 2)], [({1: 2, 3: 4}, 1), ({3: 4, 1: 2}, 2)], [("a", 1), (b"a", 2)]):
            with pytest.raises(ValueError, match="same key twice"):
                ErlMap(twice)

    def test_keys_may_be_nested_as_deep_as_you_like(self) -> None:
        deep: Any = 1
        for _ in range(50_000):
            deep = [deep]
        other: Any = 2
        for _ in range(50_000):
            other = [other]
        mapping = ErlMap([(deep, "deep"), (other, "other")])
        assert mapping[deep] == "deep"
        assert mapping[other] == "other"


def test_charlist_and_text() -> None:
    assert charlist("añ€") == [97, 241, 8364]
    assert text([97, 241, 8364]) == text("añ€".encode()) == text("añ€") == "añ€"
    assert text([]) == ""
    for wrong in (Atom("a"), [1.0], [True], None, 1):
        with pytest.raises(TypeError, match="not a binary or charlist"):
            text(wrong)
    for broken in (b"\xff", [-1], [0x110000], [1 << 70]):
        with pytest.raises(ValueError, match=r"."):
            text(broken)
