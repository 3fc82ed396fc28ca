"""A run as tables: for the terminal, and as ``docs/benchmarks.md``.

Absolute figures belong to one machine at one time; what can be compared is the ratio to BEAM to BEAM of the same run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.genuine import GENUINE
from benchmarks.targets import INTERPRETED, OURS, TARGETS
from benchmarks.workloads import ALL_ROWS, CODEC_ROWS, FOOTPRINT_ROWS, ROWS, SYN_ROWS, ZEN_ROWS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.results import Cost, Figure, MeasuredRow, Run, Spread
    from benchmarks.workloads import Row

REMARKS: Final = Path(__file__).with_name("remarks.md")
LIBRARIES: Final = ("libei", "jinterface")

Lines = list[list[str]]
"""Cells; the first line is the head."""


# -------------------------------------------------------------------------------------------------------------- cells
def amount(value: float | None) -> str:
    """Three significant digits, with k and M for thousands and millions."""
    if value is None:
        return "-"
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            value /= limit
            return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def ratio(spread: Spread | None) -> str:
    """The median, and in brackets the least and the greatest."""
    return "-" if spread is None else f"{spread.median:.2f} ({spread.least:.2f} to {spread.greatest:.2f})"


def _median(figure: Figure | None) -> float | None:
    return None if figure is None else figure.value.median


def _quotient(ours: Figure | None, theirs: Figure | None) -> str:
    return "-" if ours is None or theirs is None else f"{ours.value.median / theirs.value.median:.2f}"


def _measured(run: Run, rows: Iterable[Row]) -> list[MeasuredRow]:
    found = [run.row(row.workload, row.metric) for row in rows]
    return [row for row in found if row is not None]


# ------------------------------------------------------------------------------------------------------------- tables
def target_table(run: Run) -> Lines:
    """Every target, what the run reached, and whether that is enough."""
    lines = [["", "target", "wanted", "this run", "met"]]
    for target in TARGETS:
        reached = target.measure(run)
        wanted = f"at {'least' if target.at_least else 'most'} {target.bound:g} {target.unit}"
        if reached is None:
            lines.append([target.label, target.text, wanted, "-", "not measured"])
            continue
        figure = f"{reached.figure:.0f}" if target.unit == "bytes" else f"{reached.figure:.2f}"
        of = f" ({reached.of})" if reached.of else ""
        met = "yes" if target.is_met_by(reached) else f"no, by {target.missed_by(reached):.0f} %"
        lines.append([target.label, target.text, wanted, figure + of, met])
    return lines


def table(run: Run, rows: Sequence[Row], contenders: Sequence[str]) -> Lines:
    """The figures of ``rows``, those that were measured, and their ratios to the BEAM."""
    shown = [key for key in contenders if key in run.contenders]
    head = ["", "workload", run.contenders["beam"].title if "beam" in run.contenders else "BEAM"]
    for key in shown:
        head += [run.contenders[key].title, "ratio to BEAM"]
    lines = [head]
    for row in _measured(run, rows):
        cells = [row.label, row.title, amount(_median(row.figures.get("beam")))]
        for key in shown:
            figure = row.figures.get(key)
            cells += [amount(_median(figure)), ratio(None if figure is None else figure.ratio)]
        lines.append(cells)
    return lines


def zen_table(run: Run) -> Lines:
    """ZenMonitor's, with the genuine one's published figures beside them."""
    return _beside_genuine(run, table(run, ZEN_ROWS, (OURS, "mailbox")), ZEN_ROWS, "2.1.0")


def syn_table(run: Run) -> Lines:
    """Syn's, the same way."""
    return _beside_genuine(run, table(run, SYN_ROWS, (OURS, INTERPRETED)), SYN_ROWS, "3.3.0")


def _beside_genuine(run: Run, lines: Lines, rows: Sequence[Row], version: str) -> Lines:
    lines[0] += [f"genuine {version}, published", "ours to that"]
    for row, cells in zip(_measured(run, rows), lines[1:], strict=True):
        genuine = GENUINE.get(row.key)
        ours = row.figures.get(OURS)
        cells += [amount(genuine), "-" if genuine is None or ours is None else f"{ours.value.median / genuine:.2f}"]
    return lines


def library_table(run: Run) -> Lines:
    """Our node beside the libraries, where these can do the work."""
    libraries = [key for key in LIBRARIES if key in run.contenders]
    lines = [["", "workload", "BEAM", "ours", *(run.contenders[key].title for key in libraries)]]
    lines[0] += [f"ours to {run.contenders[key].title.partition(' ')[0]}" for key in libraries]
    for row in _measured(run, ROWS):
        if any(key in row.figures for key in libraries):
            figures = [row.figures.get(key) for key in ("beam", OURS, *libraries)]
            cells = [row.label, row.title, *(amount(_median(figure)) for figure in figures)]
            lines.append(cells + [_quotient(figures[1], figure) for figure in figures[2:]])
    return lines


def interpreted_table(run: Run) -> Lines:
    """The two builds of our node."""
    lines = [["", "workload", "compiled", "interpreted", "interpreted to compiled"]]
    for row in _measured(run, ALL_ROWS):
        ours, pure = row.figures.get(OURS), row.figures.get(INTERPRETED)
        if ours is not None and pure is not None:
            lines.append([row.label, row.title, amount(_median(ours)), amount(_median(pure)), _quotient(pure, ours)])
    return lines


def cpu_table(run: Run) -> Lines:
    """CPU time of either side for one item, in microseconds."""
    lines = [["", "workload", *(f"{info.title}: peer / driver" for info in run.contenders.values())]]
    for row in {row.workload: row for row in reversed(_measured(run, ALL_ROWS))}.values():
        figures = [row.figures.get(key) for key in run.contenders]
        if any(figure is not None and figure.cpu_us is not None for figure in figures):
            lines.insert(1, [row.label, row.workload, *map(_cpu, figures)])
    return lines


def _cpu(figure: Figure | None) -> str:
    if figure is None or figure.cpu_us is None:
        return "-"
    driver = "-" if figure.driver_cpu_us is None else f"{figure.driver_cpu_us:.2f}"
    return f"{figure.cpu_us:.2f} / {driver}"


def micro_table(costs: Sequence[Cost]) -> Lines:
    """The micro benchmark's figures."""
    lines = [["recorded traffic", "bytes each", "receive ns", "send ns"]]
    lines += [[c.name, f"{c.bytes_each:.0f}", f"{c.receive_ns:.0f}", f"{c.send_ns:.0f}"] for c in costs]
    return lines


def as_text(lines: Lines) -> str:
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


def as_markdown(lines: Lines) -> str:
    """A Markdown table."""
    rows = [f"| {' | '.join(line)} |" for line in lines]
    text = 2 if lines[0][0] == "" else 1
    return "\n".join([rows[0], "|---" * text + "|---:" * (len(lines[0]) - text) + "|", *rows[1:]])


# -------------------------------------------------------------------------------------------------------------- texts
def summary(run: Run) -> str:
    """All tables for a terminal."""
    parts = [
        f"Medians of {run.rounds} rounds; ratios within a round: median (least to greatest).",
        "; ".join(f"{info.title}: {info.build}" for info in run.contenders.values()),
        *_missing(run),
    ]
    tables = {
        "Targets": target_table(run),
        "Beside a BEAM": table(run, ROWS, (OURS, "mailbox", INTERPRETED, "pure-mailbox")),
        "Beside the libraries": library_table(run),
        "ZenMonitor": zen_table(run),
        "syn": syn_table(run),
        "Codec": table(run, CODEC_ROWS, (OURS, INTERPRETED)),
        "Start and size": table(run, FOOTPRINT_ROWS, (OURS, "mailbox", INTERPRETED, *LIBRARIES)),
        "Interpreted beside compiled": interpreted_table(run),
        "CPU for one item, µs": cpu_table(run),
    }
    parts += [f"\n{title}\n{as_text(lines)}" for title, lines in tables.items() if len(lines) > 1]
    if run.wire:
        build = "compiled" if run.wire[0].compiled else "interpreted"
        parts.append(f"\nWire alone, {build}, ns for one message\n{as_text(micro_table(run.wire))}")
    return "\n".join(parts)


def _missing(run: Run) -> list[str]:
    return [f"{title} took no part: {why}." for title, why in run.missing.items()]


def document(run: Run) -> str:
    """The text of ``docs/benchmarks.md``."""
    builds = "; ".join(f"{info.title}: {info.build}" for info in run.contenders.values())
    return f"""# How fast it is, beside a BEAM

Written by `make bench WRITE=1`, {run.date}: Python {run.python}, OTP {run.otp}, {run.processors} processors. One
driver, a BEAM, sends the same load to a BEAM and to this node in turn, on one machine over the loopback address, each
BEAM with one scheduler (`+S 1:1`). Driver and peer are fresh in every run; the order is reversed in every second round.
Medians of {run.rounds} rounds. **Compare the ratios**: they are formed within a round, the least and the greatest in
brackets. The figures themselves belong to the machine of the day. For rates a ratio above 1 is better than a BEAM, for
times and memory one below 1. All figures are in [benchmarks.json](benchmarks.json) too.

`make bench-check` measures again and names each ratio that has fallen: its median is worse than here by more than 15 %,
and worse than every round here, for where these are far apart a median among them says nothing. What seems to have
fallen is measured a second time, since other programs may have been in the way.

The load goes to one process. As an *inline server* its handler runs where the message arrives; with a *mailbox* it is
a task that waits for messages, as most programs have it.

Peers: {builds}.

## Targets

Of this node as it is installed, with an inline server. How long the garbage collector and the event loop take with a
million monitors is on a page of its own, [scale.md](scale.md), and so is what more of everything costs:
[growth.md](growth.md).

{as_markdown(target_table(run))}

{REMARKS.read_text(encoding="utf-8").strip()}

## Beside a BEAM

![How many times better than a BEAM](plots/benchmarks.svg)

{as_markdown(table(run, ROWS, (OURS, "mailbox")))}

- W1 live is limited by the sending BEAM: when the peer empties the socket at once, that BEAM writes each message by
  itself. So *recorded ones* are casts that a BEAM sent once, sent again by a bare socket in blocks of 64 KiB; where
  they are only read, that sender gets rid of {amount(run.sender_limit)} a second.
- W4 is the whole way: encoded at one end, sent, decoded at the other, to a process that keeps the last one.

{_library_section(run)}

{_zen_section(run)}

{_syn_section(run)}

## Codec alone

`etf.decode` and `etf.encode` beside `binary_to_term` and `term_to_binary`, in the peer, without a connection; the least
of seven repetitions in each round. The terms are the same, made by the driver; what comes out is checked there.

{as_markdown(table(run, CODEC_ROWS, (OURS, INTERPRETED)))}

## Start and size

- *A program starts, pings a node, ends*: `zenmon-node ping`; for the BEAM `erl -noinput -hidden` which does the same,
  for libei its `erl_call`, which asks for a function's result.
- *Idle node*: resident memory of the peer, connected to the driver, before any load.
- *Bytes* are of 10,000 of them. BEAM: growth of `erlang:memory(total)` after a garbage collection of all processes.
  Python: `tracemalloc`, all objects. A process has its pid in a list besides; nobody keeps the references of monitors.

{as_markdown(table(run, FOOTPRINT_ROWS, (OURS, "mailbox", *LIBRARIES)))}

## Interpreted beside compiled

The same source without a compiler, in the same rounds; both with an inline server. Slower is less than 1 for rates, and
more than 1 for times and memory.

{as_markdown(interpreted_table(run))}

## CPU for one item, in µs

User and system time of the two operating-system processes, counted by the system in steps of 10 ms.

{as_markdown(cpu_table(run))}

## Wire alone

One message through `DistChannel.receive_data` (recorded frames of a BEAM, 64 KiB at a time) and `DistChannel.send`,
without sockets and without a node; {"compiled" if run.wire and run.wire[0].compiled else "interpreted"}.

{as_markdown(micro_table(run.wire))}
"""


def _library_section(run: Run) -> str:
    missing = "".join(f"{line}\n" for line in _missing(run))
    return f"""## Beside libei and JInterface

The libraries for C and Java that come with Erlang, each in a program of this project that does the same work
(`benchmarks/peers`); medians. Neither takes part in W5 and in `gen_server:call`, for neither has monitors, nor where
recorded frames are sent, for neither has an atom cache. libei builds no tree on W4: it decodes the pids into an array
of structs and encodes from there. JInterface has little time to warm up; it reads, decodes and collects garbage in
several threads, all others have one core.
{missing}
{as_markdown(library_table(run))}"""


def _zen_section(run: Run) -> str:
    return f"""## ZenMonitor

The peer is a Proxy or a Local with 100,000 distinct targets; the driver is the other side, written for this in
plain Erlang, so that the peer is what is measured. What stands under "BEAM" is the stand-in for ZenMonitor of this
project's tests (`rebar_fixtures/apps/fixture_zen`), with the same work to do; it is not the genuine ZenMonitor.

What the genuine ZenMonitor 2.1.0 did stands beside it as it was published: two BEAMs of OTP 25 with one scheduler each,
on Debian 12 with two shared cores, over the loopback address, 100,000 targets, medians of five repetitions. Both sides
were genuine there, so that its rate is the slower side's. It was measured on another day: the last column is no ratio
within one run.

For the rates the settings let everything through at once (sweeps and demand every millisecond, up to a million at a
time); for pace and times they are the defaults. Each run checks that every subscription and every monitor has
fired exactly once.

- *Subscriptions* count when their native monitors are in place, certificates and DOWNs when the last one has arrived.
- *One ends*: a single death while nothing else happens, 20 times, at any moment between two sweeps of a hundred
  milliseconds. A BEAM's sweep runs on, work or not; here an idle server sweeps soon after something has come. From a
  death to its DOWN both times add up.
- *Memory* is what all tables of the peer take for each of 100,000: native monitors, references and pids included. BEAM:
  `erlang:memory(total)` after a garbage collection of all processes. Python: `tracemalloc`, bytes of all objects.

{as_markdown(zen_table(run))}"""


def _syn_section(run: Run) -> str:
    return f"""## syn

The peer is a member of a scope with 100,000 names or members; the driver is the other member, written for this in
plain Erlang with no tables of its own, so that the peer is what is measured. What stands under "BEAM" is the member
of this project's tests (`rebar_fixtures/apps/fixture_syn`), with the same work to do; it is not the genuine syn. Each
run checks that everything arrived.

What the genuine syn 3.3.0 did stands beside it as it was published: two BEAMs as above, both genuine, so that its
rate is the slower side's, and its node up is both sides' time together. It was measured on another day: the last
column is no ratio within one run.

- Rates count until the driver has heard of the last one, where nothing else is said; those of processes of the other
  node are questions one after the other, a round trip each.
- *Node up* is one message with everything; *taken over* when the last entry is in the table. *Forgotten* when the table
  is empty after the driver's scope process has ended. *Longest time without an answer*: another process of the peer is
  asked again and again meanwhile; this is how long all else on the peer has to wait.
- *Memory* as for ZenMonitor: everything that an entry takes but the process itself. The published figure is of the
  tables alone.

{as_markdown(syn_table(run))}"""
