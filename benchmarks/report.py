"""The results as a table: for the terminal, and for ``docs/benchmarks.md``.

Absolute figures belong to one machine at one time; what can be compared is the ratio to BEAM to BEAM of the same run.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from benchmarks.workloads import ROWS, ZEN_ROWS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.contest import Results
    from benchmarks.micro import Cost
    from benchmarks.workloads import Row


def amount(value: float | None) -> str:
    """Three significant digits, with k and M for thousands and millions."""
    if value is None:
        return "-"
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            value /= limit
            return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def ratio(ratios: list[float]) -> str:
    """The median, and in brackets the least and the greatest."""
    if not ratios:
        return "-"
    return f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def table(results: Results, rows: Sequence[Row]) -> list[list[str]]:
    """The cells of the table of ``rows``, those that were measured; the first line is its head."""
    others = [contender for contender in results.contenders if contender.key != "beam"]
    head = ["", "workload", "BEAM"]
    for contender in others:
        head += [contender.title, "ratio to BEAM"]
    lines = [head]
    for row in rows:
        if not any(results.values(contender.key, row.workload, row.metric) for contender in results.contenders):
            continue
        cells = [row.label, row.title, amount(results.median("beam", row.workload, row.metric))]
        for contender in others:
            cells.append(amount(results.median(contender.key, row.workload, row.metric)))
            cells.append(ratio(results.ratios(contender.key, row)))
        lines.append(cells)
    return lines


def cpu_table(results: Results, rows: Sequence[Row]) -> list[list[str]]:
    """CPU time of either side for one item, in microseconds."""
    lines = [["", "workload", *(f"{c.title}: peer / driver" for c in results.contenders)]]
    for workload in dict.fromkeys(row.workload for row in rows):
        row = next(row for row in rows if row.workload == workload)
        cells = []
        for contender in results.contenders:
            peer = results.median(contender.key, workload, "peer_cpu_us")
            driver = results.median(contender.key, workload, "driver_cpu_us")
            cells.append("-" if peer is None or driver is None else f"{peer:.2f} / {driver:.2f}")
        if any(cell != "-" for cell in cells):
            lines.append([row.label, workload, *cells])
    return lines


def micro_table(costs: Sequence[Cost]) -> list[list[str]]:
    """The micro benchmark's figures."""
    lines = [["recorded traffic", "bytes each", "receive ns", "send ns"]]
    lines += [[c.name, f"{c.bytes_each:.0f}", f"{c.receive_ns:.0f}", f"{c.send_ns:.0f}"] for c in costs]
    return lines


def as_text(lines: list[list[str]]) -> str:
    """Columns padded to the same width; figures to the right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = 2 if lines[0][0] == "" else 1
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < text else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def as_markdown(lines: list[list[str]]) -> str:
    """A Markdown table."""
    rows = [f"| {' | '.join(line)} |" for line in lines]
    text = 2 if lines[0][0] == "" else 1
    return "\n".join([rows[0], "|---" * text + "|---:" * (len(lines[0]) - text) + "|", *rows[1:]])


def zen_section(results: Results) -> str:
    """The part of the document on ZenMonitor."""
    return f"""## ZenMonitor

The peer is a Proxy or a Local with 100,000 distinct targets; the driver is the other side, written for this in
plain Erlang, so that the peer is what is measured. What stands under "BEAM" is the stand-in for ZenMonitor of this
project's tests (`rebar_fixtures/apps/fixture_zen`), with the same work to do. It is not the genuine ZenMonitor, and
nothing here says how fast that is.

For the rates the settings let everything through at once (sweeps and demand every millisecond, up to a million at a
time); for pace and times they are the defaults. Each run checks that every subscription and every monitor has
fired exactly once.

- *Subscriptions* count when their native monitors are in place, certificates and DOWNs when the last one has arrived.
- *One ends*: a single death while nothing else happens, 20 times, at any moment between two sweeps of a hundred
  milliseconds. A BEAM's sweep runs on, work or not; here an idle server sweeps soon after something has come. From a
  death to its DOWN both times add up.
- *Memory* is what all tables of the peer take for each of 100,000: native monitors, references and pids included. BEAM:
  `erlang:memory(total)` after a garbage collection of all processes. Python: `tracemalloc`, bytes of all objects.

{as_markdown(table(results, ZEN_ROWS))}
"""


def document(results: Results, costs: Sequence[Cost]) -> str:
    """The text of ``docs/benchmarks.md``."""
    builds = "; ".join(f"{c.title}: {results.builds[c.key]}" for c in results.contenders)
    return f"""# How fast it is, beside a BEAM

Written by `make bench WRITE=1`. One driver, a BEAM, sends the same load to a BEAM and to this node in turn, on one
machine over the loopback address, each BEAM with one scheduler (`+S 1:1`). Driver and peer are fresh in every run;
the order is reversed in every second round. Medians of {len(results.rounds)} rounds. **Compare the ratios**: they are
formed within a round, the least and the greatest in brackets. The figures themselves belong to the machine of the day.
For rates a ratio above 1 is better than a BEAM, for times and memory one below 1.

The load goes to one process. As an *inline server* its handler runs where the message arrives; with a *mailbox* it is
a task that waits for messages, as most programs have it. Peers: {builds}.

{as_markdown(table(results, ROWS))}

W1 is limited by the sending BEAM: when the peer empties the socket at once, that BEAM writes each message by itself.

{zen_section(results)}
## CPU for one item, in µs

User and system time of the two operating-system processes, counted by the system in steps of 10 ms.

{as_markdown(cpu_table(results, (*ROWS, *ZEN_ROWS)))}

## Codec and wire alone

One message through `DistChannel.receive_data` (recorded frames of a BEAM, 64 KiB at a time) and `DistChannel.send`,
without sockets and without a node; {"compiled" if costs and costs[0].compiled else "interpreted"}.

{as_markdown(micro_table(costs))}
"""
