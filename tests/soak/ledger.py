"""What has become of each monitor, and whether that was allowed. Pure.

The ledger is told what was done (monitors made and taken back, processes and nodes ended, connections disturbed) and
what was delivered, and raises :class:`Wrong` at the first thing that must not be. The rules:

* A monitor fires at most once, to its subscriber, with its target as it was given; never after it was taken back, and
  not at all if it was taken back with ``flush``.
* A *path* leads from the node of the subscriber to the node of the target. It is *proven* when a monitor that was made
  for that purpose has gone all the way: its certificate came behind all earlier ones. From its first disturbance after
  that (a connection lost, a process of the Local or the Proxy stopped) until it is proven again it is *disturbed*.
* ``nodedown`` is allowed on a disturbed path, and where there is none (an unconnected node, one that ZenMonitor on a
  BEAM does not look at).
* A monitor that was active when its path was proven is *established*. On an undisturbed path it fires with the reason
  of the very process it is bound to, truncated as the settings of that process's node were since it was told to end;
  if it is one of a name, perhaps by the settings of the subscriber's node, which may watch a name natively.
* Any other may fire with the reason of a process that ended since the path was last proven, if it is the target or had
  the target's name since then; and with ``noproc`` if the target has ended, or the name was free at some time since.
* ``noproc`` is allowed for what is not established, too, where the Proxy has had an exception when it subscribed,
  and the reason ``truncated`` where it has had one when it sent a summary.
* A monitor must fire when its target has ended; nothing else ends it but its owner and the end of its subscriber.

Steps are the numbers of the script's actions.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from erlang_interop import Atom, Pid, Reference
from zenmon_node import messages as m
from zenmon_node.truncator import TRUNCATED, truncate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from erlang_interop import Term

SOAK: Final = Atom("soak")

#: What can become of monitors, the rarer ways too; a run of some length has seen all of them.
OUTCOMES: Final = frozenset(
    {
        "certain",  # established, on a path that nothing has disturbed
        "nodedown",
        "noproc",
        "reason",
        "truncated",  # a reason of which something is missing
        "outlived a disturbance",
        "died before it was subscribed to",
        "attached to a subscription of one that had died",
        "taken back in time",
        "taken back when it had fired",
        "lost its subscriber",
    }
)

#: A process by its number, or the name ``node:name``.
Target: TypeAlias = "int | str"
#: The node of a subscriber, the node of a target.
Path: TypeAlias = tuple[str, str]


class Wrong(AssertionError):
    """Something that must not be."""


def exit_reason(kind: str, number: int) -> Term:
    """With what a process ends that is told to end so; ``zen_soak:reason/2`` makes the same on a BEAM."""
    match kind:
        case "plain":
            return (SOAK, number)
        case "deep":
            return (SOAK, number, (SOAK, (SOAK, (SOAK, (SOAK, number)))))
        case "wide":
            return (SOAK, number, [1000, 1001, 1002, 1003, 1004])
        case "binary":
            return (SOAK, number, bytes(1500))
        case "huge":
            return (SOAK, number, bytes(300_000))
        case "shutdown":
            return (Atom("shutdown"), (SOAK, number, list(range(1, 301))))
        case "normal" | "killed":
            return Atom(kind)
        case _:
            raise ValueError(f"no kind of reason: {kind!r}")


@dataclass(slots=True)
class Process:
    """A process that may be a target."""

    number: int
    node: str
    pid: Pid
    ended: int | None = None
    """The step at which it was told to end, or its node ended."""
    reason: Term = None
    """With what; None when it went with its node."""


@dataclass(slots=True)
class Monitor:
    """A monitor and what became of it."""

    number: int
    ref: Reference
    subscriber: str
    target: Target
    path: Path
    made: int
    established: Process | None = None
    """The process that it is bound to for certain."""
    taken_back: str | None = None
    """``flush`` or ``keep``."""
    fired: list[Term] = field(default_factory=list)
    """The reasons it has fired with; more than one is wrong."""


@dataclass(slots=True)
class _PathState:
    proven: int = 0
    refused: bool = False
    """A subscription may have been refused since it was proven."""
    truncated: bool = False
    """Certificates may have lost their reasons since then."""
    disturbances: list[tuple[int, str]] = field(default_factory=list)


class Ledger:
    """Everything that is known.

    Args:
        names: The full name of each node, unconnected ones included.
        truncation: ``truncation_depth`` and ``max_binary_size`` that all nodes begin with.
        reachable: The nodes that can be monitored from each node.

    Attributes:
        step: The action that is being done.
        outcomes: What has become of monitors, see :data:`OUTCOMES`.
    """

    def __init__(
        self, names: dict[str, Atom], truncation: tuple[int, int], reachable: dict[str, tuple[str, ...]]
    ) -> None:
        self._names = names
        self.step = 0
        self.outcomes: Counter[str] = Counter()
        self.processes: dict[int, Process] = {}
        self.monitors: dict[Reference, Monitor] = {}
        self._numbers: dict[int, Monitor] = {}
        #: Those that may still fire and have not been seen to.
        self._active: dict[Reference, Monitor] = {}
        self._paths = {(node, there): _PathState() for node, others in reachable.items() for there in others}
        #: ``node:name`` -> who has had it and since when, the last one being its present holder if it lives.
        self._holders: dict[str, list[tuple[int, Process]]] = {}
        self._truncations: dict[str, list[tuple[int, tuple[int, int]]]] = {
            node: [(0, truncation)] for node in reachable
        }

    # -- what was done

    def began(self, number: int, node: str, pid: Pid, name: str | None = None) -> None:
        """A process has begun, perhaps with a name."""
        process = self.processes[number] = Process(number, node, pid)
        if name is not None:
            self._holders.setdefault(f"{node}:{name}", []).append((self.step, process))

    def ends(self, number: int, reason: Term) -> None:
        """A process is told to end. None: its node ends."""
        process = self.processes[number]
        process.ended, process.reason = self.step, reason

    def node_ends(self, node: str) -> None:
        """A BEAM is killed."""
        for process in self.processes.values():
            if process.node == node and process.ended is None:
                self.ends(process.number, None)

    def truncates(self, node: str, depth: int, max_binary_size: int) -> None:
        """The settings of a node have changed."""
        self._truncations[node].append((self.step, (depth, max_binary_size)))

    def made(self, number: int, ref: Reference, subscriber: str, target: Target) -> None:
        """A monitor was made."""
        if ref in self.monitors:
            raise Wrong(f"{ref} is the reference of two monitors")
        node = target.partition(":")[0] if isinstance(target, str) else self.processes[target].node
        path = (subscriber.partition("/")[0], node)
        monitor = Monitor(number, ref, subscriber, target, path, self.step)
        self.monitors[ref] = self._numbers[number] = self._active[ref] = monitor

    def monitor(self, number: int) -> Monitor | None:
        """The monitor of that number, if it was made."""
        return self._numbers.get(number)

    def took_back(self, monitor: Monitor, how: str, delivered: int) -> None:
        """A monitor was taken back by its owner.

        Args:
            delivered: DOWN messages of it in the mailbox just before.
        """
        if delivered + len(monitor.fired) > 1:
            raise Wrong(f"{self.describe(monitor)} has fired twice")
        self.outcomes["taken back when it had fired" if delivered or monitor.fired else "taken back in time"] += 1
        if delivered and how == "keep":
            return  # it has fired, and what was delivered stays
        monitor.taken_back = how
        self._active.pop(monitor.ref, None)

    def subscriber_ends(self, subscriber: str) -> None:
        """A subscriber has ended; its monitors do not concern anyone any more."""
        before = len(self._active)
        self._active = {ref: one for ref, one in self._active.items() if one.subscriber != subscriber}
        self.outcomes["lost its subscriber"] += before - len(self._active)

    def disturbs(self, path: Path, how: str) -> None:
        """Something has happened to a path that may cost its monitors their target."""
        if path in self._paths:
            self._paths[path].disturbances.append((self.step, how))

    def disturbs_between(self, one: str, other: str, how: str) -> None:
        """The same both ways."""
        self.disturbs((one, other), how)
        self.disturbs((other, one), how)

    def disturbs_from(self, node: str, how: str) -> None:
        """The same for all paths that begin at a node: its Local."""
        for path in self._paths:
            if path[0] == node:
                self.disturbs(path, how)

    def disturbs_to(self, node: str, how: str) -> None:
        """The same for all paths that end at a node: its Proxy."""
        for path in self._paths:
            if path[1] == node:
                self.disturbs(path, how)

    def refuses(self, node: str) -> None:
        """A Proxy has an exception when it subscribes: whoever wanted that is told ``noproc`` at once."""
        for path, state in self._paths.items():
            if path[1] == node:
                state.refused = True

    def truncates_all(self, node: str) -> None:
        """A Proxy has an exception when it sends a summary: it sends it anew, without all that may be the cause."""
        for path, state in self._paths.items():
            if path[1] == node:
                state.truncated = True

    # -- what is known for certain now

    @property
    def paths(self) -> list[Path]:
        """All paths."""
        return list(self._paths)

    def is_disturbed(self, path: Path, how: str | None = None) -> bool:
        """Whether something, or just that, has happened since it was last proven; or there is no such path at all."""
        state = self._paths.get(path)
        if state is None or not state.proven:
            return True
        return any(how in (None, happened) for _, happened in state.disturbances)

    def disturbances(self, path: Path) -> int:
        """How often a path was disturbed since it was proven."""
        return len(self._paths[path].disturbances)

    def truncation(self, node: str) -> tuple[int, int]:
        """The settings of a node as they are: ``truncation_depth`` and ``max_binary_size``."""
        return self._truncations[node][-1][1]

    def has_been_free(self, name: str, path: Path) -> bool:
        """Whether ``node:name`` has had no holder at some time since a path to it was proven."""
        state = self._paths.get(path)
        holders = self._holders.get(name, [])
        return (
            state is None
            or any(process.ended is not None and process.ended >= state.proven for _, process in holders)
            or (bool(holders) and holders[-1][0] > state.proven)  # it was free until then
        )

    def proves(self, path: Path) -> None:
        """A monitor went all the way, and nothing disturbed it: what is active now is established."""
        state = self._paths[path]
        first = state.disturbances[0][0] if state.disturbances else math.inf
        state.proven = self.step
        state.disturbances.clear()
        state.refused = state.truncated = False
        for monitor in self._active.values():
            if monitor.path == path:
                self.outcomes["outlived a disturbance"] += monitor.made < first < math.inf
                monitor.established = self._bound_to(monitor.target)

    def _bound_to(self, target: Target) -> Process | None:
        process = self.processes[target] if isinstance(target, int) else self.holder(target)
        return process if process is not None and process.ended is None else None

    def holder(self, name: str) -> Process | None:
        """Who has ``node:name`` now."""
        holders = self._holders.get(name)
        return holders[-1][1] if holders and holders[-1][1].ended is None else None

    def active(self) -> list[Monitor]:
        """Monitors that have not been seen to fire, and may."""
        return list(self._active.values())

    def is_due(self, monitor: Monitor) -> bool:
        """Whether it must fire: its target is no more, or was never to be reached."""
        return monitor.path not in self._paths or self._bound_to(monitor.target) is None

    # -- what was delivered

    def down(self, subscriber: str, message: Any) -> None:
        """A message was in a subscriber's mailbox."""
        match message:
            case (Atom("DOWN"), Reference() as ref, Atom("process"), object_, (Atom("zen_monitor"), reason)):
                pass
            case _:
                raise Wrong(f"{subscriber} got {message!r:.500}, which is no DOWN of ZenMonitor")
        monitor = self.monitors.get(ref)
        if monitor is None:
            raise Wrong(f"{subscriber} got the DOWN of a monitor that nobody made: {message!r:.500}")
        what = f"{self.describe(monitor)} has fired with {reason!r:.200}"
        if monitor.subscriber != subscriber:
            raise Wrong(f"{what}, to {subscriber}")
        if monitor.fired:
            raise Wrong(f"{what}, after it has fired with {monitor.fired[0]!r:.200}")
        if monitor.taken_back:
            raise Wrong(f"{what}, although it was taken back")
        if object_ != self.object_of(monitor.target):
            raise Wrong(f"{what}, and the object {object_!r:.200}")
        monitor.fired.append(reason)
        self._active.pop(ref, None)
        self._judge(monitor, reason, what)

    def object_of(self, target: Target) -> Term:
        """A target as the nodes know it."""
        if isinstance(target, int):
            return self.processes[target].pid
        node, _, name = target.partition(":")
        return (Atom(name), self._names[node])

    def _judge(self, monitor: Monitor, reason: Term, what: str) -> None:
        certain = not self.is_disturbed(monitor.path) and monitor.established is not None
        self.outcomes["certain"] += certain
        if reason == m.NODEDOWN:
            self.outcomes["nodedown"] += 1
            if not self.is_disturbed(monitor.path):
                raise Wrong(f"{what}: nothing has happened to its path since step {self._paths[monitor.path].proven}")
            return
        if monitor.path not in self._paths:
            raise Wrong(f"{what}: nothing but nodedown can come from there")
        if reason == m.NOPROC:
            self.outcomes["noproc"] += 1
            if certain:
                raise Wrong(f"{what}: it was established")
            if not (self._paths[monitor.path].refused or self._may_have_been_gone(monitor)):
                raise Wrong(f"{what}: its target has been there all the time")
            self.outcomes["died before it was subscribed to"] += self._ended_after(monitor)
            return
        self.outcomes["reason"] += 1
        candidates = [monitor.established] if certain else self._candidates(monitor)
        allowed = [one for process in candidates if process is not None for one in self._reasons(process, monitor)]
        if self._paths[monitor.path].truncated and allowed:
            allowed.append(TRUNCATED)
        if reason not in allowed:
            raise Wrong(f"{what}: allowed are {allowed!r:.500}")
        self.outcomes["truncated"] += all(process is None or reason != process.reason for process in candidates)
        if isinstance(monitor.target, int):
            self.outcomes["attached to a subscription of one that had died"] += not self._ended_after(monitor)

    def _ended_after(self, monitor: Monitor) -> bool:
        """Whether the process it is for ended when it had been made."""
        ended = self.processes[monitor.target].ended if isinstance(monitor.target, int) else None
        return ended is not None and ended > monitor.made

    def _since(self, monitor: Monitor) -> int:
        return self._paths[monitor.path].proven

    def _may_have_been_gone(self, monitor: Monitor) -> bool:
        if isinstance(monitor.target, int):
            return self.processes[monitor.target].ended is not None
        holders = self._holders.get(monitor.target, [])
        # There is one at a time, and nobody has the name just before the last one began.
        return (
            self.holder(monitor.target) is None
            or holders[-1][0] > self._since(monitor)
            or self.has_been_free(monitor.target, monitor.path)
        )

    def _candidates(self, monitor: Monitor) -> list[Process]:
        """Processes whose end it may report: those that have ended since its path was last proven."""
        if isinstance(monitor.target, int):
            known = [self.processes[monitor.target]]
        else:
            known = [process for _, process in self._holders.get(monitor.target, [])]
        since = self._since(monitor)
        return [process for process in known if process.ended is not None and process.ended >= since]

    def _reasons(self, process: Process, monitor: Monitor) -> Iterable[Term]:
        """The reason of a process as it may have been truncated, with each setting since it was told to end."""
        if process.ended is None or process.reason is None:
            return
        by_name = isinstance(monitor.target, str)
        for node in {process.node, monitor.path[0]} if by_name else {process.node}:
            settings = self._truncations[node]
            for index, (_, (depth, max_binary_size)) in enumerate(settings):
                if index + 1 == len(settings) or settings[index + 1][0] >= process.ended:
                    yield truncate(process.reason, depth=depth, max_binary_size=max_binary_size)

    def describe(self, monitor: Monitor) -> str:
        """A monitor and all that happened to it, in words."""
        target = monitor.target
        if isinstance(target, int):
            target = f"process {target}"
        state = f", established on process {monitor.established.number}" if monitor.established else ""
        return f"monitor {monitor.number} of {monitor.subscriber} on {target} (made at step {monitor.made}{state})"
