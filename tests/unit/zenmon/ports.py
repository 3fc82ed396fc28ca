"""What the pure cores run in during their tests: ports that write down what they were asked to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from erlang_interop.runtime.observer import Observer
from erlang_interop.runtime.watchers import Watchers
from erlang_interop.terms import Atom, Pid, Reference

if TYPE_CHECKING:
    from erlang_interop.terms import Term
    from zenmon_node.local.connector import ConnectorCore
    from zenmon_node.messages import Certificate, Instruction, Target

HERE = Atom("py@host")
THERE = Atom("beam@host")


def pid(number: int, node: Atom = HERE) -> Pid:
    return Pid(node, number, 0, 1)


def ref(number: int, node: Atom = HERE) -> Reference:
    return Reference(node, 1, number.to_bytes(12, "big"))


@dataclass
class Refs:
    made: int = 0

    def make_ref(self) -> Reference:
        self.made += 1
        return ref(self.made)


@dataclass
class FakeProcess:
    """What an observer sees of a process."""

    pid: Pid
    watchers: Watchers = field(default_factory=Watchers)


class FakeProcesses(dict[Pid, Any]):
    """The processes of a node that live; to begin with, those with small numbers."""

    def __init__(self) -> None:
        self.dead: set[Pid] = set()
        self.start(*map(pid, range(60)))

    def start(self, *pids: Pid) -> None:
        """Let them live, but for the dead."""
        for one in pids:
            if one not in self.dead:
                self.setdefault(one, FakeProcess(one))

    def dies(self, observer: Observer, pid: Pid, reason: Term) -> None:
        self.dead.add(pid)
        process = self.pop(pid, None)
        if process is not None and process.watchers.pop(observer.pid) is not None:
            observer.ended(pid, reason)


@dataclass
class FakeProxyPort(Refs):
    """Monitors by reference, and an observer; unreachable and busy nodes are listed."""

    processes: FakeProcesses = field(default_factory=FakeProcesses)
    observer: Observer = field(init=False)
    monitors: dict[Reference, Target] = field(default_factory=dict)
    unreachable: set[Atom] = field(default_factory=set)
    busy: set[Atom] = field(default_factory=set)
    sent: list[tuple[Pid | Reference, Any]] = field(default_factory=list)
    summaries: list[tuple[Pid, list[Certificate]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.observer = Observer(pid(0), self.processes, lambda: None)

    def monitor(self, target: Target) -> Reference:
        ref = self.make_ref()
        self.monitors[ref] = target
        return ref

    def demonitor(self, ref: Reference) -> None:
        self.monitors.pop(ref, None)

    def can_reach(self, node: Atom) -> bool:
        return node not in self.unreachable

    def is_busy(self, node: Atom) -> bool:
        return node in self.busy

    def send(self, dest: Pid | Reference, message: Term) -> None:
        self.sent.append((dest, message))

    def send_summary(self, subscriber: Pid, certificates: list[Certificate]) -> None:
        self.summaries.append((subscriber, certificates))

    def held_monitors(self) -> list[Reference]:
        return list(self.monitors)

    def monitors_of(self, target: Target) -> list[Reference]:
        return [ref for ref, watched in self.monitors.items() if watched == target]

    def watched(self) -> list[Target]:
        """What is watched, as often as it is."""
        return [*self.monitors.values(), *self.observer.watched()]

    def down(self, target: Target, reason: Term, own_node: Atom = HERE) -> list[Term]:
        """``target`` ends: the observer learns of it; the DOWN messages of all monitors on it, which are gone then."""
        if type(target) is Pid:
            self.processes.dies(self.observer, target, reason)
        object_ = (target, own_node) if type(target) is Atom else target
        fired = self.monitors_of(target)
        for ref in fired:
            del self.monitors[ref]
        return [(Atom("DOWN"), ref, Atom("process"), object_, reason) for ref in fired]


@dataclass
class FakeConnectorPort(Refs):
    """One remote; its Proxy answers when the test says so."""

    connected: bool = True
    #: Of the connection, when connected.
    number: int = 1
    left: bool = False
    busy: bool = False
    pings: list[Reference] = field(default_factory=list)
    released: list[Reference] = field(default_factory=list)
    natives: dict[Reference, Target] = field(default_factory=dict)
    casts: list[list[Instruction]] = field(default_factory=list)

    def is_connected(self) -> bool:
        return self.connected

    def connection(self) -> int:
        assert self.connected
        return self.number

    def is_busy(self) -> bool:
        return self.busy

    def leave(self) -> None:
        self.left = True

    def ping(self) -> Reference:
        self.pings.append(ref(900_000 + len(self.pings)))
        return self.pings[-1]

    def monitor(self, target: Target) -> Reference:
        self.natives[ref(800_000 + self.made)] = target
        self.made += 1
        return list(self.natives)[-1]

    def demonitor(self, ref: Reference) -> None:
        self.released.append(ref)
        self.natives.pop(ref, None)

    def held_monitors(self) -> list[Reference]:
        return list(self.natives)

    def cast(self, instructions: list[Instruction]) -> None:
        self.casts.append(instructions)


@dataclass
class FakeLocalPort(Refs):
    """Every Connector gets a port of its own."""

    watched: list[Pid] = field(default_factory=list)
    ports: dict[Atom, FakeConnectorPort] = field(default_factory=dict)
    updates: list[Atom] = field(default_factory=list)

    def watch(self, subscriber: Pid) -> None:
        self.watched.append(subscriber)

    def start_connector(self, core: ConnectorCore) -> None:
        core.port = self.ports[core.remote] = FakeConnectorPort()

    def update_connector(self, core: ConnectorCore) -> None:
        self.updates.append(core.remote)
