"""What a phase of work costs the program it runs in: time, memory, and how long its event loop stood still."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from erlang_interop import Reference

if TYPE_CHECKING:
    from collections.abc import Iterator

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_OWN: Final = frozenset({dict, list, tuple, set, deque, Reference})


@dataclass
class Phase:
    """Figures of one phase. Times in seconds, stalls in milliseconds.

    Attributes:
        name: What was done.
        items: To or with how many things.
        seconds: How long it took.
        cpu: Processor time of this program meanwhile.
        stall_ms: The longest pass of the event loop: so long nothing else could run.
        stall_cpu_ms: The most processor time of one pass: a stall of the program's own making, not the machine's.
        gc_ms: The most processor time of one run of Python's garbage collector.
    """

    name: str
    items: int
    seconds: float = 0.0
    cpu: float = 0.0
    stall_ms: float = 0.0
    stall_cpu_ms: float = 0.0
    gc_ms: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class LoopMeter(trio.abc.Instrument):
    """Measures every pass of the event loop, from the end of its wait to the beginning of the next one.

    Add it after the node was opened: what the node writes to its sockets at the end of a pass is part of the pass then.
    """

    def __init__(self) -> None:
        self._began = self._cpu_began = 0.0
        self._gc_began = 0.0
        self._wall = self._cpu = self._gc = 0.0
        self._passing = False

    def after_io_wait(self, timeout: float) -> None:
        """Trio's hook: a pass begins."""
        self._passing = True
        self._began, self._cpu_began = time.perf_counter(), time.thread_time()

    def before_io_wait(self, timeout: float) -> None:
        """Trio's hook: the pass is over."""
        if self._passing:
            self._wall = max(self._wall, time.perf_counter() - self._began)
            self._cpu = max(self._cpu, time.thread_time() - self._cpu_began)

    def _collecting(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._gc_began = time.thread_time()
        else:
            self._gc = max(self._gc, time.thread_time() - self._gc_began)

    @contextmanager
    def phase(self, name: str, items: int) -> Iterator[Phase]:
        """Measure what the block does, and what else runs meanwhile."""
        figures = Phase(name, items)
        # The pass that is running began before the phase.
        self._passing = False
        self._wall = self._cpu = self._gc = 0.0
        gc.callbacks.append(self._collecting)
        began, cpu = time.perf_counter(), time.process_time()
        try:
            yield figures
        finally:
            figures.seconds, figures.cpu = time.perf_counter() - began, time.process_time() - cpu
            self.before_io_wait(0.0)  # the pass in which the phase ended
            gc.callbacks.remove(self._collecting)
            figures.stall_ms, figures.stall_cpu_ms = self._wall * 1000, self._cpu * 1000
            figures.gc_ms = self._gc * 1000


def full_collection(name: str, items: int) -> Phase:
    """What a full garbage collection takes, of nothing that is garbage: the least of three."""
    gc.collect()
    took: list[tuple[float, float]] = []
    for _ in range(3):
        began, cpu = time.perf_counter(), time.thread_time()
        gc.collect()
        took.append((time.thread_time() - cpu, time.perf_counter() - began))
    cpu, seconds = min(took)
    return Phase(name, items, seconds, cpu, stall_ms=seconds * 1000, stall_cpu_ms=cpu * 1000, gc_ms=cpu * 1000)


def resident() -> int:
    """Bytes of this program that are in memory, garbage collected before."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def size_of(root: object, *others: type) -> int:
    """Bytes of the containers and references below ``root``; not of what it shares with the rest of the program.

    Args:
        root: A core or a table.
        others: Terms beside :class:`Reference` that belong to it alone.
    """
    total, seen = 0, set[int]()
    waiting: list[Any] = [root]
    while waiting:
        one = waiting.pop()
        kind = type(one)
        if id(one) in seen or not (kind in _OWN or kind in others or kind.__module__.startswith("zenmon_node.")):
            continue
        seen.add(id(one))
        total += sys.getsizeof(one)
        if kind is Reference and gc.is_tracked(one):  # Python's own class: the C core has the words inside
            total += sys.getsizeof(one.words)
        waiting += gc.get_referents(one)
    return total
