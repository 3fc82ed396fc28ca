"""Plays a script: between two BEAMs and two nodes of ours, with a ledger that is told everything.

After each round all is made well again, and then everything must become as the ledger says: each monitor whose target
has ended has fired, each other one is a row in the right Proxy, and there are no more rows. Three things are tolerated,
for they are in the protocol or in the original, whose ways the BEAMs' stand-in has. They cost a row, never a DOWN:

* a Proxy of the original keeps the rows of a Connector that it lost before the first death for it, and its Connectors
  withdraw nothing when they lose a Proxy: rows between a BEAM and anybody else may stay after a disturbance of their
  path, until their target ends;
* what a Connector has sent to a Proxy that was killed may reach the next one, which knows nothing of it: rows of what
  has fired ``nodedown`` since, or was taken back, stay there until their target ends;
* a certificate for a name says nothing of the subscription it answers, so a monitor that was made anew while one was
  on its way is fired by it, and its own row stays until the name's next holder ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import trio

from erlang_interop import Atom, ConnectError, Pid
from tests.interop.collectors import IS_UP, until
from zenmon_node import Settings
from zenmon_node import messages as m

from .ledger import Ledger, Path, Wrong, exit_reason
from .script import BEAMS, NODES, OURS, REACHABLE, SUBSCRIBERS, Action, Argument
from .sides import BeamSide, OurSide, Side

if TYPE_CHECKING:
    from erlang_interop import Node, Term
    from erlang_interop.testing.beam import Beam

    from .sides import CuttableTransport, Seen

#: Seconds within which everything settles, on the slowest of machines; nothing waits for them to pass.
PATIENCE_S: Final = 60.0
#: Seconds for which a round waits for all paths to be proven; the rest of them stays disturbed.
PROVING_S: Final = 6.0
NET_TICKTIME: Final = 4
#: A BEAM that was suspended for longer may count as lost by some.
HARMLESS_S: Final = 2.0
PROXY_STOPPED: Final = "Proxy stopped"
#: Milliseconds within which a Proxy answers a ping of a BEAM, on the slowest of machines.
PING_MS: Final = 60_000
START: Final[dict[str, Any]] = {"connector_sweep_interval": 20, "batcher_sweep_interval": 20, "demand_interval": 20}


class World:
    """The nodes, and what is known of them.

    Attributes:
        done: The actions played so far.
        counts: Actions by kind, those that found nothing to do left out.
        ledger: The judge.
    """

    def __init__(self, names: dict[str, str], start_beam: Callable[[str], Awaitable[Beam]]) -> None:
        self._names = {key: Atom(name) for key, name in names.items()}
        self._keys = {name: key for key, name in self._names.items()}
        self._start_beam = start_beam
        self.sides: dict[str, Side] = {}
        self.ours: dict[str, OurSide] = {}
        self.beams: dict[str, BeamSide] = {}
        self._settings = Settings(**START)
        limits = (self._settings.truncation_depth, self._settings.max_binary_size)
        self.ledger = Ledger(self._names, limits, REACHABLE)
        self.done: list[Action] = []
        self.counts: Counter[str] = Counter()
        self._subscribers: dict[str, set[str]] = {key: set() for key in NODES}
        self._canaries = count(-1, -1)
        self._tolerated: dict[str, set[tuple[Pid, Term]]] = {key: set() for key in NODES}
        self._rows: dict[str, set[tuple[Pid, Term]]] = {}

    # -- beginning

    async def add_ours(self, key: str, node: Node, transport: CuttableTransport, zen: Any) -> None:
        """Take in a node of ours."""
        self.ours[key] = self.sides[key] = OurSide(node, transport, zen, lambda lost: self._lost(key, lost))
        for subscriber in _first_subscribers(key):
            await self._subscribe(subscriber)

    async def add_beam(self, key: str, subscribers: list[str] | None = None) -> None:
        """Start a BEAM, for the first time or again."""
        side = self.beams[key] = self.sides[key] = BeamSide(await self._start_beam(self._names[key].name))
        settings = {Atom(name): value for name, value in (START | {"ping_timeout": PING_MS}).items()}
        names = _first_subscribers(key) if subscribers is None else [*subscribers, _canary(key)]
        await side.start(settings, names)
        self._subscribers[key] = set(names)
        self.ledger.truncates(key, self._settings.truncation_depth, self._settings.max_binary_size)

    async def _subscribe(self, subscriber: str) -> None:
        key = _node_of(subscriber)
        if subscriber not in self._subscribers[key]:
            await self.sides[key].subscribe(subscriber)
            self._subscribers[key].add(subscriber)

    def _lost(self, key: str, lost: Atom) -> None:
        other = self._keys.get(lost)
        if other is not None:
            self.ledger.disturbs_between(key, other, "lost")

    # -- playing

    async def play(self, action: Action) -> None:
        """Do one action."""
        self.ledger.step = len(self.done)
        self.done.append(action)
        do: Callable[..., Awaitable[bool]] = getattr(self, f"_do_{action.kind}")
        if await do(*action.arguments):
            self.counts[action.kind] += 1

    def _answering(self, key: str) -> Side | None:
        beam = self.beams.get(key)
        return None if beam is not None and (not beam.running or beam.suspended_at is not None) else self.sides[key]

    async def _do_spawn(self, key: str, first: int, number: int) -> bool:
        side = self._answering(key)
        if side is None:
            return False
        for process, pid in enumerate(await side.spawn(number), start=first):
            self.ledger.began(process, key, pid)
        return True

    async def _do_register(self, key: str, number: int, name: str) -> bool:
        side = self._answering(key)
        if side is None or self.ledger.holder(f"{key}:{name}") is not None:
            return False
        self.ledger.began(number, key, await side.register(Atom(name)), name)
        return True

    async def _do_finish(self, kind: str, *numbers: int) -> bool:
        by_node: dict[str, list[int]] = {}
        for number in numbers:
            process = self.ledger.processes.get(number)
            if process is not None and process.ended is None:
                by_node.setdefault(process.node, []).append(number)
        for key, some in by_node.items():
            side = self._answering(key)
            if side is not None:
                for number in some:
                    self.ledger.ends(number, exit_reason(kind, number))
                await side.finish(kind, [(self.ledger.processes[number].pid, number) for number in some])
        return bool(by_node)

    async def _do_monitor(self, first: int, subscriber: str, *targets: Argument) -> bool:
        key = _node_of(subscriber)
        side = self._answering(key)
        if side is None or subscriber not in self._subscribers[key]:
            return False
        known = [
            (number, target)
            for number, target in enumerate(targets, start=first)
            if isinstance(target, str) or target in self.ledger.processes
        ]
        refs = await side.monitor(subscriber, [self.ledger.object_of(target) for _, target in known])
        for (number, target), ref in zip(known, refs, strict=True):
            self.ledger.made(number, ref, subscriber, target)
        return bool(refs)

    async def _do_demonitor(self, how: str, *numbers: int) -> bool:
        by_subscriber: dict[str, list[int]] = {}
        for number in numbers:
            monitor = self.ledger.monitor(number)
            if monitor is not None and monitor.subscriber in self._subscribers[monitor.path[0]]:
                by_subscriber.setdefault(monitor.subscriber, []).append(number)
        for subscriber, some in by_subscriber.items():
            side = self._answering(_node_of(subscriber))
            if side is not None:
                monitors = [one for number in some if (one := self.ledger.monitor(number)) is not None]
                delivered = await side.take_back(subscriber, [monitor.ref for monitor in monitors], how)
                for monitor, times in zip(monitors, delivered, strict=True):
                    self.ledger.took_back(monitor, how, times)
        return bool(by_subscriber)

    async def _do_die(self, subscriber: str, *new: str) -> bool:
        key = _node_of(subscriber)
        side = self._answering(key)
        if side is None or subscriber not in self._subscribers[key]:
            return False
        self._subscribers[key].discard(subscriber)
        self.ledger.subscriber_ends(subscriber)
        await side.end_subscriber(subscriber)
        for one in new:
            await self._subscribe(one)
        return True

    async def _do_settings(self, key: str, setting: str, value: int) -> bool:
        side = self._answering(key)
        if side is None:
            return False
        await side.set(setting, value)
        if setting in ("truncation_depth", "max_binary_size"):
            depth, size = self.ledger.truncation(key)
            self.ledger.truncates(key, *((value, size) if setting == "truncation_depth" else (depth, value)))
        return True

    async def _do_pause(self, milliseconds: int) -> bool:
        await trio.sleep(milliseconds / 1000)
        return True

    async def _do_stop_dispatcher(self, key: str) -> bool:
        return await self.ours[key].stop(m.DISPATCHER)

    async def _do_fail(self, key: str, server: str, method: str, other: str = "") -> bool:
        def on_failure() -> None:
            if (server, method) == ("proxy", "monitor"):
                self.ledger.refuses(key)
            elif (server, method) == ("proxy", "send_summary"):
                self.ledger.truncates_all(key)
            elif (server, method) == ("connector", "ping"):
                self.ledger.disturbs((key, other), "not asked")  # for a while it takes the remote for incompatible

        return await self.ours[key].fail(server, method, self._names.get(other), on_failure)

    # -- what disturbs

    async def _do_kill_beam(self, key: str) -> bool:
        beam = self.beams[key]
        if not beam.running:
            return False
        self.ledger.disturbs_from(key, "killed")
        self.ledger.disturbs_to(key, "killed")
        self.ledger.node_ends(key)
        for subscriber in self._subscribers[key]:
            self.ledger.subscriber_ends(subscriber)
        self._subscribers[key] = set()
        beam.running, beam.suspended_at = False, None
        beam.beam.kill()
        return True

    async def _do_start_beam(self, key: str, *subscribers: str) -> bool:
        if self.beams[key].running:
            return False
        await self.add_beam(key, list(subscribers))
        return True

    async def _do_suspend(self, key: str) -> bool:
        beam = self.beams[key]
        if not beam.running or beam.suspended_at is not None:
            return False
        beam.beam.suspend()
        beam.suspended_at = trio.current_time()
        return True

    async def _do_resume(self, key: str) -> bool:
        beam = self.beams[key]
        if beam.suspended_at is None:
            return False
        beam.beam.resume()
        if trio.current_time() - beam.suspended_at > HARMLESS_S:
            self.ledger.disturbs_from(key, "suspended for long")
            self.ledger.disturbs_to(key, "suspended for long")
        beam.suspended_at = None
        return True

    async def _do_hang(self, key: str) -> bool:
        if not await self._do_suspend(key):
            return False
        self.ledger.disturbs_from(key, "hung")
        self.ledger.disturbs_to(key, "hung")
        name = self._names[key]
        await until(lambda: not any(side.node.is_connected(name) for side in self.ours.values()), PATIENCE_S)
        return await self._do_resume(key)

    async def _do_disconnect(self, key: str, other: str) -> bool:
        return await self.ours[key].node.disconnect(self._names[other])

    async def _do_cut(self, key: str, other: str) -> bool:
        return self.ours[key].transport.cut(self._names[other].name)

    async def _do_disconnect_by_beam(self, key: str, other: str) -> bool:
        if self._answering(key) is None:
            return False
        done = await self.beams[key].beam.eval("erlang:disconnect_node(N)", N=self._names[other])
        return done is True

    async def _do_connect(self, key: str, other: str) -> bool:
        if self._answering(other) is None or self.ours[key].node.is_connected(self._names[other]):
            return False
        return await self._connect(key, other)

    async def _connect(self, key: str, other: str) -> bool:
        try:
            await self.ours[key].node.connect(self._names[other])
        except ConnectError:
            return False  # the other side had not noticed that there is no connection any more, say
        return True

    async def _do_stop_beam_proxy(self, key: str) -> bool:
        if self._answering(key) is None:
            return False
        self.ledger.disturbs_to(key, PROXY_STOPPED)
        await self.beams[key].beam.eval("zen_proxy:kill()")
        return True

    async def _do_stop_proxy(self, key: str) -> bool:
        self.ledger.disturbs_to(key, PROXY_STOPPED)
        return await self.ours[key].stop(m.PROXY)

    async def _do_stop_local(self, key: str) -> bool:
        self.ledger.disturbs_from(key, "Local stopped")
        return await self.ours[key].stop(m.LOCAL)

    async def _do_stop_connector(self, key: str, other: str) -> bool:
        self.ledger.disturbs((key, other), "Connector stopped")
        return await self.ours[key].stop_connector(self._names[other])

    # -- settling

    async def _do_settle(self, *subscribers: str) -> bool:
        await self._heal(subscribers)
        await self._until_settled()
        await self._prove(PROVING_S)
        return True

    async def _heal(self, subscribers: tuple[str, ...] = ()) -> None:
        """All nodes run, are connected, and have their subscribers."""
        for ours in self.ours.values():
            ours.repair()
        for key, beam in self.beams.items():
            await self._do_resume(key)
            if not beam.running:
                await self._do_start_beam(key, *(one for one in subscribers if _node_of(one) == key))
        for subscriber in subscribers:
            await self._subscribe(subscriber)
        await until(self._all_connected, PATIENCE_S)

    async def _all_connected(self) -> bool:
        pairs = [(key, other) for key in OURS for other in NODES if other not in OURS[: OURS.index(key) + 1]]
        for key, other in pairs:
            if not self.ours[key].node.is_connected(self._names[other]):
                await self._connect(key, other)
        ours = [self._names[key] for key in OURS]
        for beam in self.beams.values():
            if await beam.beam.eval(f"lists:all(fun(N) -> {IS_UP} end, Ns)", Ns=ours) is not True:
                return False
        return all(self.ours[key].node.is_connected(self._names[other]) for key, other in pairs)

    async def _look(self) -> dict[str, Seen]:
        """Look at all nodes, and judge what was delivered."""
        seen = {key: await side.look() for key, side in self.sides.items()}
        for key, one in seen.items():
            for lost in one.lost:
                self._lost(key, lost)
        for one in seen.values():
            for subscriber, message in one.messages:
                self.ledger.down(subscriber, message)
        return seen

    async def _until_settled(self) -> None:
        problem: str | None = ""
        with trio.move_on_after(PATIENCE_S):
            while problem is not None:
                problem = self._unsettled(await self._look())
                await trio.sleep(0.01)
            return
        raise Wrong(f"not settled after {PATIENCE_S:.0f} s: {problem}")

    def _unsettled(self, seen: dict[str, Seen]) -> str | None:
        """What is not as it should be, if anything; it may be on its way."""
        for key, one in seen.items():
            if one.busy:
                return f"{key} has not finished: {one.busy}"
        expected: dict[str, dict[tuple[Pid, Term], str]] = {key: {} for key in seen}
        for monitor in self.ledger.active():
            if self.ledger.is_due(monitor):
                return f"{self.ledger.describe(monitor)} has not fired"
            origin, there = monitor.path
            connector = seen[origin].connectors.get(self._names[there])
            if connector is None:
                return f"there is no Connector for {self.ledger.describe(monitor)}"
            row = (connector, self.ledger.object_of(monitor.target))
            expected[there][row] = origin
        current = {pid for one in seen.values() for pid in one.connectors.values()}
        natives = {row for one in seen.values() for row in one.natives}
        for there, rows in expected.items():
            actual = seen[there].rows
            for row in rows.keys() - actual - natives:
                return f"{there} has no subscription of {rows[row]} to {row[1]}"
            left = {row for row in actual - rows.keys() if not self._tolerates(there, row, current)}
            if left:
                connector, target = min(left, key=str)
                state = "" if connector in current else ", which has ended"
                return f"{there} has {len(left)} subscriptions nobody needs: {target} for {connector}{state}"
            self._tolerated[there] = actual - rows.keys()
        return None

    def _tolerates(self, there: str, row: tuple[Pid, Term], current: set[Pid]) -> bool:
        connector, target = row
        if there in OURS and connector not in current:
            return False  # whoever it was for is gone, and our Proxy watches all of them
        if row in self._tolerated[there]:
            return True
        path = (self._keys[connector.node], there)
        if type(target) is tuple and self.ledger.has_been_free(f"{there}:{target[0].name}", path):
            return True
        if self.ledger.is_disturbed(path, PROXY_STOPPED):
            return True
        return (there in BEAMS or path[0] in BEAMS) and self.ledger.is_disturbed(path)

    # -- proving paths

    async def _prove(self, patience: float) -> None:
        """Send a monitor down each path; those on which it goes all the way are undisturbed from now on."""
        limit = trio.current_time() + patience
        unproven = self.ledger.paths
        while unproven:
            unproven = await self._try(unproven)
            if trio.current_time() > limit:
                break
            await trio.sleep(0.05)

    async def _try(self, paths: list[Path]) -> list[Path]:
        """Make, establish and fire one monitor on each path; the paths on which that failed."""
        before = {path: self.ledger.disturbances(path) for path in paths}
        canaries: dict[Path, int] = {}
        for path in paths:
            number = canaries[path] = next(self._canaries)
            origin, there = path
            self.ledger.began(number, there, (await self.sides[there].spawn(1))[0])
            target = self.ledger.object_of(number)
            (ref,) = await self.sides[origin].monitor(_canary(origin), [target])
            self.ledger.made(number, ref, _canary(origin), number)
        await self._until_settled()
        await self._do_finish("plain", *canaries.values())
        await self._until_settled()
        failed = []
        for path, number in canaries.items():
            monitor = self.ledger.monitor(number)
            assert monitor is not None
            proven = monitor.fired == [exit_reason("plain", number)] and self.ledger.disturbances(path) == before[path]
            if proven:
                self.ledger.proves(path)
            else:
                failed.append(path)
        return failed

    # -- the end

    async def finish(self) -> None:
        """Make all well, end everything that may be monitored, and see to it that nothing is left."""
        await self._heal()
        await self._until_settled()
        await self._prove(PATIENCE_S)
        for path in self.ledger.paths:
            if self.ledger.is_disturbed(path):
                raise Wrong(f"{path[0]} cannot monitor what is on {path[1]} any more")
        living = [process.number for process in self.ledger.processes.values() if process.ended is None]
        await self._do_finish("plain", *living)
        await self._until_settled()
        found: dict[str, dict[str, int]] = {}
        with trio.move_on_after(PATIENCE_S):
            while True:
                found = {key: left for key, side in self.sides.items() if (left := await side.leftovers())}
                if not found:
                    break
                await trio.sleep(0.02)
        if found:
            raise Wrong(f"at the end there is still {found}")
        for key in OURS:
            for subscriber in self._subscribers[key]:
                await self.ours[key].end_subscriber(subscriber)


def _node_of(subscriber: str) -> str:
    return subscriber.partition("/")[0]


def _canary(key: str) -> str:
    """The subscriber of the monitors that prove paths."""
    return f"{key}/canary"


def _first_subscribers(key: str) -> list[str]:
    return [*(f"{key}/{number}" for number in range(1, SUBSCRIBERS + 1)), _canary(key)]
