"""Pids and references at the ends of their numbers; a BEAM is shown them in tests/interop/test_identifiers.py."""

from __future__ import annotations

from erlang_interop.runtime.identifiers import LAST_NUMBER, LAST_REFERENCE, LAST_SERIAL, Identifiers
from erlang_interop.terms import Atom, Pid

ME = Atom("me@h")


def pid(number: int, serial: int) -> Pid:
    return Pid(ME, number, serial, 7)


def test_the_serial_grows_when_the_numbers_are_used_up() -> None:
    identifiers = Identifiers(set())
    identifiers.next_number = LAST_NUMBER - 1
    assert [identifiers.pid(ME, 7) for _ in range(3)] == [pid(LAST_NUMBER - 1, 0), pid(LAST_NUMBER, 0), pid(1, 1)]


def test_after_the_last_pid_comes_the_first() -> None:
    identifiers = Identifiers(set())
    identifiers.next_number, identifiers.next_serial = LAST_NUMBER, LAST_SERIAL
    assert [identifiers.pid(ME, 7) for _ in range(2)] == [pid(LAST_NUMBER, LAST_SERIAL), pid(1, 0)]


def test_pids_in_use_are_passed_over() -> None:
    living = {pid(LAST_NUMBER, 3), pid(1, 4), pid(2, 4), pid(4, 4)}
    identifiers = Identifiers(living)
    identifiers.next_number, identifiers.next_serial = LAST_NUMBER, 3
    given = [identifiers.pid(ME, 7) for _ in range(2)]
    assert given == [pid(3, 4), pid(5, 4)]
    living.discard(pid(4, 4))
    identifiers.next_number = 3
    living.update(given)
    assert identifiers.pid(ME, 7) == pid(4, 4), "its process has ended, and its number has come round"


def test_a_kept_pid_is_nobody_elses_though_no_process_has_it() -> None:
    identifiers = Identifiers(set())
    kept = identifiers.kept_pid(ME, 7)
    identifiers.next_number = kept.id
    assert identifiers.pid(ME, 7) == pid(kept.id + 1, 0)


def test_the_same_numbers_in_another_incarnation_are_another_pid() -> None:
    identifiers = Identifiers({pid(1, 0)})
    assert identifiers.pid(ME, 8) == Pid(ME, 1, 0, 8) != pid(1, 0)


def test_references_fill_their_words_one_after_the_other() -> None:
    identifiers = Identifiers(set())
    for number, words in (
        (1, (1, 0, 0)),
        ((1 << 18) - 1, ((1 << 18) - 1, 0, 0)),
        (1 << 18, (0, 1, 0)),
        ((1 << 50) - 1, ((1 << 18) - 1, (1 << 32) - 1, 0)),
        (1 << 50, (0, 0, 1)),
        (LAST_REFERENCE, ((1 << 18) - 1, (1 << 32) - 1, (1 << 32) - 1)),
    ):
        identifiers.next_reference = number
        assert identifiers.reference(ME, 7).ids == words
    assert identifiers.reference(ME, 7).ids == (0, 0, 0)
