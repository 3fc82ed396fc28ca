"""What happens in a soak test: a script made from a seed alone, so that it can be played again. Pure.

Everything in it has a name of its own that is known before it exists: processes and monitors have numbers, subscribers
``p1/3`` (the node, a number). A line is an action and its arguments::

    spawn b1 17 4                       processes 17, 18, 19 and 20 on b1
    register b1 21 alpha                process 21 on b1 gets the name, which nobody has
    monitor 210 p1/3 17 18 b1:alpha     monitors 210, 211, 212, for the subscriber p1/3
    demonitor flush 210 212
    fail p1 proxy monitor               the next call of Proxy.monitor on p1 raises an exception
    finish binary 17 18                 they end with a reason of that kind
    die p1/3 p1/4                       the subscriber p1/3 ends, and p1/4 takes its place
    settle b1/7                         all is made well again, everything is looked at, and b1/7 begins

A script goes in rounds, each of which ends with ``settle``. In a *calm* round nothing happens that could excuse a
``nodedown``. What is drawn from is a deck, shuffled anew when it is empty, so nothing is left out for long. An action
whose processes, subscribers or nodes are not there (because lines of a script were taken out) does nothing.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

Argument: TypeAlias = str | int

#: Nodes of ours, hidden and visible; BEAMs.
HIDDEN: Final = "p1"
VISIBLE: Final = "p2"
OURS: Final = (HIDDEN, VISIBLE)
BEAMS: Final = ("b1", "b2")
NODES: Final = (*OURS, *BEAMS)
#: A node that nobody is connected to.
GHOST: Final = "ghost"

NAMES: Final = ("alpha", "beta", "gamma")
#: A name that nobody ever has.
NOBODY: Final = "nobody"

#: Kinds of exit reasons; all but the last two carry the number of their process.
REASONS: Final = ("plain", "deep", "wide", "binary", "huge", "shutdown", "normal", "killed")

#: Subscribers on each node at any time.
SUBSCRIBERS: Final = 3
#: Living processes on each node at most.
MOST_PROCESSES: Final = 600

#: Whose Proxies each node may monitor through; the rest of what it monitors there fires ``nodedown``.
REACHABLE: Final = {
    HIDDEN: (HIDDEN, VISIBLE, *BEAMS),
    VISIBLE: (HIDDEN, VISIBLE, *BEAMS),
    **dict.fromkeys(BEAMS, (VISIBLE,)),  # ZenMonitor on a BEAM does not look at hidden nodes
}

#: Settings and what they are changed to. All are fast: a test has to get somewhere.
SETTINGS: Final[dict[str, tuple[int, ...]]] = {
    "connector_sweep_interval": (5, 20, 60),
    "connector_chunk_size": (20, 300, 5000),
    "batcher_sweep_interval": (5, 20, 60),
    "batcher_chunk_size": (20, 300, 5000),
    "demand_interval": (5, 20, 60),
    "demand_amount": (50, 700, 10_000),
    "max_binary_size": (64, 1024),
    "truncation_depth": (2, 3, 4),
}
#: Settings that BEAMs of the test do not have.
OUR_SETTINGS: Final[dict[str, tuple[int, ...]]] = {"hibernation_threshold": (1, 20, 1000)}

#: What can be made to fail once, by an exception: server and method.
FAILURES: Final = (
    ("proxy", "monitor"),
    ("proxy", "demonitor"),
    ("proxy", "send_summary"),
    ("local", "_bury"),
    ("dispatcher", "deliver"),
    ("connector", "cast"),
    ("connector", "ping"),
    ("connector", "is_connected"),
)

#: Actions of a calm round, and how many of each are in its deck.
CALM: Final = {
    "spawn": 6,
    "register": 4,
    "monitor": 14,
    "demonitor": 4,
    "finish": 10,
    "die": 1,
    "settings": 2,
    "pause": 3,
    "stop_dispatcher": 1,
    "fail": 3,
}
#: What a stormy round has besides.
STORMY: Final = {
    "kill_beam": 1,
    "start_beam": 1,
    "suspend": 2,
    "resume": 2,
    "disconnect": 2,
    "disconnect_by_beam": 2,
    "cut": 2,
    "connect": 3,
    "stop_beam_proxy": 2,
    "stop_proxy": 1,
    "stop_local": 1,
    "stop_connector": 2,
}
#: In every so many decks of stormy rounds, one BEAM hangs until our nodes have given it up: that takes seconds.
HANG_EVERY: Final = 3
KINDS: Final = frozenset(CALM) | frozenset(STORMY) | {"hang", "settle"}


@dataclass(frozen=True, slots=True)
class Action:
    """One line of a script."""

    kind: str
    arguments: tuple[Argument, ...] = ()

    def __str__(self) -> str:
        return " ".join((self.kind, *map(str, self.arguments)))


def parse(text: str) -> list[Action]:
    """A script from its lines; empty ones, and those that begin with ``#``, are passed over."""
    lines = (line.split() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))
    return [Action(kind, tuple(int(word) if word.isdecimal() else word for word in words)) for kind, *words in lines]


@dataclass
class _Site:
    """What a node has, as far as the script knows."""

    subscribers: list[str] = field(default_factory=list)
    living: list[int] = field(default_factory=list)
    dead: list[int] = field(default_factory=list)
    names: dict[str, int] = field(default_factory=dict)
    running: bool = True
    suspended: bool = False

    @property
    def answers(self) -> bool:
        return self.running and not self.suspended


class Script:
    """An endless script.

    Args:
        seed: The same seed makes the same script.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._processes = self._monitors = 0
        self._next_subscriber = dict.fromkeys(NODES, 0)
        self.sites = {name: _Site() for name in NODES}
        for name in NODES:
            self._new_subscribers(name)
        #: Monitor -> its subscriber, of those that may be active.
        self._active: dict[int, str] = {}
        self._decks: dict[bool, list[str]] = {False: [], True: []}
        self._storms = 0

    def actions(self) -> Iterator[Action]:
        """The actions, without end."""
        yield Action("settle")
        number = 0
        while True:
            yield from self.round(stormy=number % 2 == 1)
            number += 1

    def round(self, *, stormy: bool) -> Iterator[Action]:
        """One round, with ``settle`` at its end."""
        for _ in range(self._random.randint(20, 60)):
            action = self._next(stormy)
            if action is not None:
                yield action
        for site in self.sites.values():
            site.running, site.suspended = True, False
        new = [subscriber for name in NODES for subscriber in self._new_subscribers(name)]
        yield Action("settle", tuple(new))

    def _new_subscribers(self, name: str) -> list[str]:
        """Give a node as many subscribers as it should have; the numbers of the new ones."""
        site = self.sites[name]
        new: list[str] = []
        while len(site.subscribers) + len(new) < SUBSCRIBERS:
            self._next_subscriber[name] += 1
            new.append(f"{name}/{self._next_subscriber[name]}")
        site.subscribers += new
        return new

    # -- drawing

    def _next(self, stormy: bool) -> Action | None:
        deck = self._decks[stormy]
        if not deck:
            cards = {**CALM, **STORMY} if stormy else CALM
            deck += [kind for kind, count in cards.items() for _ in range(count)]
            if stormy:
                deck += ["hang"] * (self._storms % HANG_EVERY == 0)
                self._storms += 1
            self._random.shuffle(deck)
        # The first card that can be played; the others keep their place.
        for index, kind in enumerate(deck):
            draw: Callable[[], Action | None] = getattr(self, f"_draw_{kind}")
            action = draw()
            if action is not None:
                del deck[index]
                return action
        deck.clear()
        return None

    def _several(self, most: int) -> int:
        """A number from 1 to ``most``, one magnitude as likely as another."""
        return min(most, int(math.exp(self._random.uniform(0, math.log(most + 1)))))

    def _sites(self, names: tuple[str, ...] = NODES) -> list[str]:
        return [name for name in names if self.sites[name].answers]

    def _choose_site(self, names: tuple[str, ...] = NODES) -> str | None:
        able = self._sites(names)
        return self._random.choice(able) if able else None

    # -- processes

    def _draw_spawn(self) -> Action | None:
        name = self._choose_site()
        if name is None:
            return None
        site = self.sites[name]
        count = min(self._several(200), MOST_PROCESSES - len(site.living))
        if count < 1:
            return None
        first = self._processes + 1
        self._processes += count
        site.living += range(first, first + count)
        return Action("spawn", (name, first, count))

    def _draw_register(self) -> Action | None:
        free = [(site, name) for site in self._sites() for name in NAMES if name not in self.sites[site].names]
        if not free:
            return None
        where, name = self._random.choice(free)
        self._processes += 1
        self.sites[where].names[name] = self._processes
        return Action("register", (where, self._processes, name))

    def _draw_finish(self) -> Action | None:
        name = self._choose_site()
        if name is None:
            return None
        site = self.sites[name]
        how = self._random.choice(REASONS)
        chosen: list[int] = []
        if site.names and (not site.living or self._random.random() < 0.4):
            chosen.append(site.names.pop(self._random.choice(sorted(site.names))))
        if site.living and (not chosen or self._random.random() < 0.8):
            most = len(site.living) if how != "huge" else min(3, len(site.living))
            for process in self._random.sample(site.living, self._several(most)):
                site.living.remove(process)
                chosen.append(process)
        if not chosen:
            return None
        site.dead = [*site.dead, *chosen][-50:]
        return Action("finish", (how, *chosen))

    # -- monitors

    def _draw_monitor(self) -> Action | None:
        name = self._choose_site()
        if name is None:
            return None
        subscriber = self._random.choice(self.sites[name].subscribers)
        targets = [self._target(name) for _ in range(self._several(200))]
        first = self._monitors + 1
        self._monitors += len(targets)
        self._active.update(dict.fromkeys(range(first, first + len(targets)), subscriber))
        return Action("monitor", (first, subscriber, *targets))

    def _target(self, name: str) -> Argument:
        draw = self._random.random()
        if draw < 0.02:
            return f"{GHOST}:{NOBODY}"
        # Now and then a node that is there and can not be monitored from here.
        where = self._random.choice(REACHABLE[name] if draw < 0.95 else OURS)
        site = self.sites[where]
        draw = self._random.random()
        if draw < 0.15 or not (site.living or site.dead):
            return f"{where}:{self._random.choice(NAMES)}"
        if draw < 0.18:
            return f"{where}:{NOBODY}"
        if site.dead and (draw < 0.26 or not site.living):
            return self._random.choice(site.dead)
        return self._random.choice(site.living)

    def _draw_demonitor(self) -> Action | None:
        able = {subscriber for name in self._sites() for subscriber in self.sites[name].subscribers}
        active = [number for number, subscriber in self._active.items() if subscriber in able]
        if not active:
            return None
        # Mostly of late: what has just been asked for is still on its way.
        if self._random.random() < 0.5:
            active = active[-150:]
        chosen = self._random.sample(active, self._several(min(150, len(active))))
        for number in chosen:
            del self._active[number]
        return Action("demonitor", (self._random.choice(("flush", "keep")), *chosen))

    def _draw_die(self) -> Action | None:
        name = self._choose_site()
        if name is None:
            return None
        subscriber = self._random.choice(self.sites[name].subscribers)
        self._lose_subscribers(name, [subscriber])
        return Action("die", (subscriber, *self._new_subscribers(name)))

    def _lose_subscribers(self, name: str, lost: list[str]) -> None:
        site = self.sites[name]
        site.subscribers = [subscriber for subscriber in site.subscribers if subscriber not in lost]
        self._active = {number: owner for number, owner in self._active.items() if owner not in lost}

    # -- settings and time

    def _draw_settings(self) -> Action | None:
        name = self._choose_site()
        if name is None:
            return None
        known = {**SETTINGS, **OUR_SETTINGS} if name in OURS else SETTINGS
        setting = self._random.choice(sorted(known))
        return Action("settings", (name, setting, self._random.choice(known[setting])))

    def _draw_pause(self) -> Action:
        return Action("pause", (self._random.choice((1, 5, 20, 60, 150)),))

    def _draw_stop_dispatcher(self) -> Action:
        return Action("stop_dispatcher", (self._random.choice(OURS),))

    def _draw_fail(self) -> Action:
        server, method = self._random.choice(FAILURES)
        where = (self._random.choice(NODES),) if server == "connector" else ()
        return Action("fail", (self._random.choice(OURS), server, method, *where))

    # -- what disturbs

    def _draw_kill_beam(self) -> Action | None:
        name = self._choose_site(BEAMS)
        if name is None or len(self._sites(BEAMS)) < len(BEAMS):
            return None
        site = self.sites[name]
        site.running = False
        self._lose_subscribers(name, site.subscribers)
        site.dead = [*site.dead, *site.living, *site.names.values()][-50:]
        site.living, site.names = [], {}
        return Action("kill_beam", (name,))

    def _draw_start_beam(self) -> Action | None:
        for name in BEAMS:
            if not self.sites[name].running:
                self.sites[name].running = True
                return Action("start_beam", (name, *self._new_subscribers(name)))
        return None

    def _draw_suspend(self) -> Action | None:
        name = self._choose_site(BEAMS)
        if name is None or len(self._sites(BEAMS)) < len(BEAMS):
            return None
        self.sites[name].suspended = True
        return Action("suspend", (name,))

    def _draw_resume(self) -> Action | None:
        for name in BEAMS:
            if self.sites[name].suspended:
                self.sites[name].suspended = False
                return Action("resume", (name,))
        return None

    def _draw_hang(self) -> Action | None:
        return Action("hang", (self._random.choice(BEAMS),)) if len(self._sites(BEAMS)) == len(BEAMS) else None

    def _pair(self) -> tuple[str, str]:
        return self._random.choice([(HIDDEN, VISIBLE), *((ours, beam) for ours in OURS for beam in BEAMS)])

    def _draw_disconnect(self) -> Action:
        return Action("disconnect", self._pair())

    def _draw_cut(self) -> Action:
        return Action("cut", self._pair())

    def _draw_connect(self) -> Action | None:
        name = self._choose_site(BEAMS)
        return None if name is None else Action("connect", (self._random.choice(OURS), name))

    def _draw_disconnect_by_beam(self) -> Action | None:
        name = self._choose_site(BEAMS)
        return None if name is None else Action("disconnect_by_beam", (name, self._random.choice(OURS)))

    def _draw_stop_beam_proxy(self) -> Action | None:
        name = self._choose_site(BEAMS)
        return None if name is None else Action("stop_beam_proxy", (name,))

    def _draw_stop_proxy(self) -> Action:
        return Action("stop_proxy", (self._random.choice(OURS),))

    def _draw_stop_local(self) -> Action:
        return Action("stop_local", (self._random.choice(OURS),))

    def _draw_stop_connector(self) -> Action:
        return Action("stop_connector", (self._random.choice(OURS), self._random.choice(NODES)))
