"""What the demo shows: sentences, and the DOWNs as they come. Live on a terminal, plain lines otherwise."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Characters of the bar of a full batch, and of the whole.
_BATCH_BAR: Final = 30
_WHOLE_BAR: Final = 36
#: Batches that are shown at once.
_SHOWN: Final = 15


class _Console(Console):
    """A console that leaves a closed pipe to the program, as ``print`` does."""

    def on_broken_pipe(self) -> None:
        raise  # rich calls this where it handles the error


class View:
    """The demo's paper: headings, sentences and counters."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or _Console()
        self._steps = 0

    def title(self, text: str) -> None:
        """The first line, and the last."""
        self._print(text, style="bold")

    def heading(self, text: str) -> None:
        """The next step of the tour."""
        self._steps += 1
        self._print("")
        self._print(f"{self._steps}. {text}", style="bold")

    def say(self, text: str) -> None:
        """A sentence."""
        self._print(f"   {text}")

    def _print(self, text: str, style: str | None = None) -> None:
        # Terms have brackets and numbers of their own: nothing in them is rich's to interpret.
        self._console.print(text, style=style, markup=False, highlight=False, emoji=False, soft_wrap=True)

    @contextmanager
    def counting(self, total: int, what: str) -> Iterator[Counter]:
        """Show how ``total`` things come in, batch by batch."""
        if not self._console.is_terminal:
            yield _PlainCounter(self, total, what)
            return
        with Live(console=self._console, auto_refresh=False) as live:
            yield _LiveCounter(live, total, what)


class Counter:
    """Counts what comes in batches."""

    def __init__(self, total: int, what: str) -> None:
        self._total = total
        self._what = what
        self._count = 0

    def batch(self, size: int, after: float) -> None:
        """``size`` more have come, ``after`` seconds since the beginning."""
        self._count += size
        self._show(size, after)

    def _show(self, size: int, after: float) -> None:
        raise NotImplementedError


class _PlainCounter(Counter):
    def __init__(self, view: View, total: int, what: str) -> None:
        super().__init__(total, what)
        self._view = view

    def _show(self, size: int, after: float) -> None:
        self._view.say(f"after {after:5.2f} s: {size:6,} {self._what}, {self._count:,} of {self._total:,}")


class _LiveCounter(Counter):
    def __init__(self, live: Live, total: int, what: str) -> None:
        super().__init__(total, what)
        self._live = live
        self._batches: list[tuple[int, float]] = []

    def _show(self, size: int, after: float) -> None:
        self._batches.append((size, after))
        largest = max(number for number, _ in self._batches)
        rows = Table.grid(padding=(0, 2))
        for number, seconds in self._batches[-_SHOWN:]:
            bar = Text("█" * max(1, number * _BATCH_BAR // largest), style="cyan")
            rows.add_row(f"   {seconds:5.2f} s", Text(f"{number:6,}", justify="right"), bar)
        done = self._count * _WHOLE_BAR // self._total
        whole = Text.assemble("   ", ("█" * done, "green"), ("░" * (_WHOLE_BAR - done), "dim"))
        whole.append(f" {self._count:,} of {self._total:,} {self._what}")
        self._live.update(Group(rows, whole), refresh=True)
