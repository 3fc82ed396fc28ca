"""What ``zenmon-node monitor`` shows on a terminal: a table with a row for each node, and the last that have gone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

import trio
from rich.cells import cell_len
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from erlang_interop.etf.text import format_term

from .reports import timestamp
from .watching import Via

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console, RenderableType

    from erlang_interop import Term

    from ..local.api import CachedCompatibility
    from .targets import Target
    from .watching import Row, Watching

#: Seconds between two pictures.
REFRESH: Final = 0.25
#: Characters of an exit reason that are looked at; a line shows no more.
_REASON: Final = 300
#: Characters between two columns.
_GAP: Final = 2
#: To how many characters the name of a node may be cut so that another column fits.
_SHORTEST_NAME: Final = 16
#: Lines that are always there: the summary, and the heads of the columns with an empty line above them.
_FRAME_LINES: Final = 3
#: Lines of the last that have gone, with the empty line above them, that the nodes leave free if there are many.
_LAST_LINES: Final = 4

_STYLES: Final = {
    "compatible": "green",
    "connected": "green",
    "recovering": "yellow",
    "incompatible": "red",
    "nodedown": "red",
    "done": "dim",
}
_WORDS: Final = {Via.ZENMON: "ZenMonitor", Via.NATIVE: "native"}


@dataclass(frozen=True, slots=True)
class _Column:
    head: str
    cell: Callable[[Row, float], str]
    """The text for a node at a time."""
    rank: int
    """Where there is no room for all, the columns of the highest ranks go first."""
    justify: Literal["left", "right"] = "right"


_STATE: Final = _Column("state", lambda row, _: row.state, 2, "left")
_COLUMNS: Final = (
    _Column("node", lambda row, _: row.node, 0, "left"),
    _Column("how", lambda row, _: _WORDS[row.via], 6, "left"),
    _STATE,
    _Column("targets", lambda row, _: f"{row.targets:,}", 7),
    _Column("alive", lambda row, _: f"{row.alive:,}", 1),
    _Column("gone", lambda row, _: f"{row.gone:,}", 3),
    _Column("batches", lambda row, _: _batches(row), 5),
    _Column("DOWN/s", lambda row, now: f"{row.rate(now):,.0f}", 4),
)


def _batches(row: Row) -> str:
    return f"{row.batches_sent:,} out, {row.batches_received:,} in" if row.via is Via.ZENMON else "-"


class LiveReport:
    """The table, drawn anew in its place a few times a second. The last picture stays.

    Args:
        watching: What is known.
        refresh: Called before each picture: brings the numbers of batches up to date.
        console: A terminal.
    """

    def __init__(self, watching: Watching, refresh: Callable[[], None], console: Console) -> None:
        self._watching = watching
        self._refresh = refresh
        self._console = console

    def monitoring(self) -> None:
        """The table says it."""

    def down(self, target: Target, row: Row, found: Term, reason: Term) -> None:
        """One more line under the table, in the place of the oldest."""
        del row, found
        self._watching.last.append(f"{timestamp()[11:]} {target.text} {format_term(reason, _REASON)}")

    def nodedown(self, row: Row, reason: str) -> None:
        """One more line under the table, beside the state in it."""
        self._watching.last.append(f"{timestamp()[11:]} nodedown {row.node} {reason}")

    def compatibility(self, row: Row, verdict: CachedCompatibility) -> None:
        """The table says it."""

    async def flush(self) -> None:
        """The next picture will have it."""
        await trio.lowlevel.checkpoint()

    async def show(self) -> None:
        """Draw until cancelled, and once more then."""
        with Live(console=self._console, auto_refresh=False) as live:
            try:
                while True:
                    # From a thread: a terminal that was stopped for a while must not stop the node.
                    await trio.to_thread.run_sync(partial(live.update, self._picture(), refresh=True))
                    await trio.sleep(REFRESH)
            finally:
                live.update(self._picture(), refresh=True)

    async def ended(self, now: float) -> None:
        """The last picture has the summary."""

    def _picture(self) -> RenderableType:
        self._refresh()
        return render(self._watching, trio.current_time(), *self._console.size)


def render(watching: Watching, now: float, width: int, height: int) -> RenderableType:
    """The picture at one moment.

    Args:
        watching: What is known.
        now: The time, by the clock that ``watching`` was fed with.
        width: Columns of the terminal. In a narrow one the less important columns are left out.
        height: Its lines. The picture never needs more, so that it can be drawn again in its place.
    """
    rows = list(watching.rows.values())
    room = max(1, height - 1 - _FRAME_LINES - _LAST_LINES)
    shown = rows if len(rows) <= room else rows[: max(1, room - 1)]
    parts: list[RenderableType] = [_line(watching.summary(now), "bold"), Text(), _table(shown, now, width)]
    used = _FRAME_LINES + len(shown)
    if len(shown) < len(rows):
        parts.append(_line(f"... and {len(rows) - len(shown)} more nodes", "dim"))
        used += 1
    free = height - 1 - used - 1
    last = list(watching.last)[-free:] if free > 0 else []
    if last:
        parts += [Text(), *(_line(text) for text in last)]
    return Group(*parts)


def _table(rows: Sequence[Row], now: float, width: int) -> Table:
    cells = {column: [column.cell(row, now) for row in rows] for column in _COLUMNS}
    widths = {column: max(map(cell_len, [column.head, *texts])) for column, texts in cells.items()}
    columns = _fitting(widths, width)
    node = columns[0]
    widths[node] = min(widths[node], width - sum(widths[column] + _GAP for column in columns[1:]))
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column.head, justify=column.justify, width=widths[column], no_wrap=True, overflow="ellipsis")
    for number, row in enumerate(rows):
        styled = {column: Text(cells[column][number]) for column in columns}
        if _STATE in styled:
            styled[_STATE].style = _STYLES[row.state]
        table.add_row(*styled.values())
    return table


def _fitting(widths: dict[_Column, int], width: int) -> list[_Column]:
    """The columns for which there is room, given how wide each would be. The first one always is among them."""
    first, *others = sorted(widths, key=lambda column: column.rank)
    left = width - min(widths[first], _SHORTEST_NAME)
    fitting = {first}
    for column in others:
        left -= widths[column] + _GAP
        if left < 0:
            break
        fitting.add(column)
    return [column for column in _COLUMNS if column in fitting]


def _line(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")
