"""The tables of ``make partitions``, from outcomes made by hand."""

from __future__ import annotations

from argparse import Namespace

import pytest
from benchmarks.partitions import (
    ABSENT,
    CLUSTERS,
    Results,
    arguments_of,
    cuts_table,
    document,
    members_compared,
    names_table,
    times_table,
)

from tests.interop.partition_members import Down
from tests.interop.partition_scenarios import Outcome

ONE, TWO = CLUSTERS[:2]
LOST = [Down("b", "c", "disconnect"), Down("c", "b", "connection_closed")]


def outcome(micros: list[int], unexplained: list[Down] | None = None) -> Outcome:
    return Outcome(("x",), LOST, unexplained or [], micros, 1.0)


@pytest.fixture
def results() -> Results:
    return Results(
        played={
            (ONE, ABSENT, "kill beam"): outcome([1000]),
            (ONE, "beam", "cut newcomer"): outcome([1000, 3000], LOST),
            (TWO, "beam", "cut newcomer"): outcome([2000, 9_000_000], [Down("c", "b", "disconnect")]),
            (ONE, "full", "cut newcomer"): outcome([1500]),
            (TWO, "full", "cut newcomer"): None,
        },
        registering={(ONE, "full"): [2000, 3000, 4000], (ONE, ABSENT): [1000, 1500, 8000]},
        taken_out={"full": 2},
    )


def test_a_pair_that_lost_each_other_counts_once_in_each_cluster(results: Results) -> None:
    assert cuts_table(results) == [
        ["what happens", "nobody", "a BEAM", "ours, full"],
        ["the link of newcomer and BEAM is cut", "", "2", "0, no agreement 1 times"],
        ["a BEAM is killed, and starts again", "0", "", ""],
    ]


def test_the_longest_of_all_clusters_counts(results: Results) -> None:
    assert times_table(results)[1:] == [
        ["the link of newcomer and BEAM is cut", "", "9000", "2"],
        ["a BEAM is killed, and starts again", "1", "", ""],
    ]


def test_what_registering_costs_is_compared_with_nobody_there(results: Results) -> None:
    assert names_table(results) == [
        ["BEAMs, and newcomers", "nobody", "ours, full"],
        ["OTP 25, 29, and x", "1.50 / 8", "3.00 (2.00) / 4"],
    ]


def test_members_are_compared_with_beams_in_their_place(results: Results) -> None:
    assert members_compared(results) == "(not measured)"
    results.registering |= {(ONE, "beam"): [2000], (TWO, "beam"): [1000, 3000, 2000], (TWO, "full"): [2400]}
    assert members_compared(results) == "1.20 to 1.50 times"


def test_the_page_says_with_what_it_was_made(results: Results) -> None:
    page = document(results, Namespace(shapes=[ONE], seed=7, registrations=10))
    assert "SEED=7" in page
    assert "ours, full: 2" in page
    assert "it takes (not measured) as long with\nours" in page


@pytest.mark.parametrize(
    ("arguments", "why"),
    [(["--modes", "loud"], "loud: none of"), (["--scenarios", "flood"], "flood: none of"), (["--clusters", "9"], "9")],
    ids=["mode", "scenario", "cluster"],
)
def test_nonsense_is_refused(arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        arguments_of(arguments)
    assert ended.value.code == 2
    assert why in capsys.readouterr().err
