"""The benchmarks' tables, without measuring anything: names exist on both sides, and figures land where they belong."""

from __future__ import annotations

from benchmarks import report
from benchmarks.contenders import CONTENDERS, PROJECT
from benchmarks.contest import Results
from benchmarks.outside import MEASUREMENTS
from benchmarks.workloads import ALL_ROWS, GROUPS, OUTSIDE, ROWS, ZEN_ROWS

DRIVERS = PROJECT / "rebar_fixtures" / "apps" / "fixture_bench" / "src"
DRIVER = "".join((DRIVERS / f"{module}.erl").read_text() for module in ("bench_driver", "bench_zen", "bench_memory"))


def test_driver_knows_every_group_and_workload() -> None:
    groups = DRIVER.partition("\nworkloads() ->")[2].partition("].")[0]
    assert set(groups.replace("[", "").replace(" ", "").replace("\n", "").split(",")) == set(GROUPS) - set(OUTSIDE)
    for row in ALL_ROWS:
        if row.group not in OUTSIDE:
            assert f"%% | {row.workload}" in DRIVER or f", {row.workload}" in DRIVER, row
    assert set(MEASUREMENTS) == set(OUTSIDE)


def test_group_of_proxies_is_measured_once() -> None:
    measured = [key for key, contender in CONTENDERS.items() if contender.takes_part_in("zen_proxy")]
    assert measured == ["beam", "inline", "pure"]
    assert all(contender.takes_part_in("zen_local") != contender.is_library for contender in CONTENDERS.values())


def of_two_rounds() -> Results:
    """A BEAM is as fast in both rounds; our node is twice, then four times as fast, and takes half the memory."""
    results = Results([CONTENDERS["beam"], CONTENDERS["inline"]], builds={"beam": "OTP 25", "inline": "compiled"})
    for speed in (2, 4):
        results.rounds.append(
            {
                "beam": {"zen_downs": {"per_second": 1e5, "peer_cpu_us": 3.0, "driver_cpu_us": 1.0}},
                "inline": {"zen_downs": {"per_second": speed * 1e5, "peer_cpu_us": 2.0, "driver_cpu_us": 1.0}},
            }
        )
        results.rounds[-1]["beam"]["zen_monitor_bytes"] = {"bytes_each": 400.0}
        results.rounds[-1]["inline"]["zen_monitor_bytes"] = {"bytes_each": 200.0}
    return results


def test_table_has_what_was_measured_and_its_ratios() -> None:
    head, downs, memory = report.table(of_two_rounds(), ZEN_ROWS)
    assert head == ["", "workload", "BEAM", "Python, inline server", "ratio to BEAM"]
    assert [downs[0], *downs[2:]] == ["W7", "100 k", "300 k", "3.00 (2.00 to 4.00)"]
    assert [memory[0], *memory[2:]] == ["W7", "400", "200", "0.50 (0.50 to 0.50)"]
    assert report.cpu_table(of_two_rounds(), ZEN_ROWS)[1:] == [["W7", "zen_downs", "3.00 / 1.00", "2.00 / 1.00"]]


def test_table_of_nothing_is_its_head() -> None:
    assert len(report.table(of_two_rounds(), ROWS)) == 1


def test_document_has_a_section_on_zenmonitor() -> None:
    document = report.document(of_two_rounds(), [])
    assert "\n## ZenMonitor\n" in document
    assert "| W7 | … these end: DOWNs to the peer's subscriber, /s | 100 k | 300 k | 3.00 (2.00 to 4.00) |" in document
