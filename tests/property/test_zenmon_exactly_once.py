"""Every monitor fires exactly once, or was taken back, or its owner died; and at the end every table is empty.

A Local and two Proxies, the very cores that run in a node, are joined by wires that keep order and nothing else.
Hypothesis decides what happens and in which order it arrives: monitors, demonitors, deaths, lost connections, Proxies
that crash, subscribers that die, Connectors that are killed, go, or lose rows by an exception, and any delay between
cause and effect.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from erlang_interop.runtime.observer import Observer
from erlang_interop.terms import Atom, Pid, Reference, Term
from tests.unit.zenmon.ports import HERE, FakeProcess, pid
from zenmon_node import messages as m
from zenmon_node.config import Settings
from zenmon_node.local.api import LocalCore
from zenmon_node.local.remote import State
from zenmon_node.proxy.core import ProxyCore

if TYPE_CHECKING:
    from zenmon_node.local.connector import ConnectorCore

REMOTES = (Atom("one@host"), Atom("two@host"))
NAMES = (Atom("alpha"), Atom("beta"))
SUBSCRIBERS = [pid(number) for number in (1, 2, 3)]
#: Small, so that slices, chunks and demand run out all the time.
TIGHT = Settings(connector_chunk_size=3, batcher_chunk_size=3, demand_amount=4, hibernation_threshold=50)


class Remote:
    """A node with processes, a Proxy, and a wire in each direction. Its native monitors are those of a BEAM."""

    def __init__(self, world: World, name: Atom) -> None:
        self.world, self.name = world, name
        self.connector = world.new_pid()
        self.connected = False
        self.connection_number = 0
        self.processes: dict[Pid, FakeProcess] = {}
        self.names: dict[Atom, Pid] = {}
        #: Who has ever had a name, and None for each time when nobody had it any more; the last is who has it now.
        self.owners: dict[Atom, list[Pid | None]] = {name: [None] for name in NAMES}
        self.made = 0
        self.faults = 0
        self.to_here: deque[Term] = deque()
        self.to_there: deque[Term] = deque()
        self.watch: Reference | None = None  # our Connector's monitor on the Proxy
        self.natives = Natives(self)
        self.start_proxy()

    def start_proxy(self) -> None:
        self.monitors: dict[Reference, tuple[Pid | None, m.Target]] = {}
        self.inbox: deque[Term] = deque()
        self.observer = Observer(pid(0, self.name), self.processes, lambda: None)
        self.proxy: ProxyCore | None = ProxyCore(self.name, self, self.observer, TIGHT)
        self.proxy.slice_size = 2

    # -- ProxyPort

    def monitor(self, target: m.Target) -> Reference:
        ref = self.world.make_ref()
        if target == self.connector:
            watched: Pid | None = self.connector
        elif isinstance(target, tuple):
            watched = self.names.get(target[0])
        else:
            assert isinstance(target, Pid)
            watched = target if target in self.processes else None
        if watched is None:
            self.inbox.append((m.DOWN, ref, m.PROCESS, target, m.NOPROC))
        else:
            self.monitors[ref] = (watched, target)
        return ref

    def demonitor(self, ref: Reference) -> None:
        self.monitors.pop(ref, None)

    def can_reach(self, node: Atom) -> bool:
        return node == self.name or (node == HERE and self.connected)

    def is_busy(self, node: Atom) -> bool:
        return False

    def send(self, dest: Pid | Reference, message: Term) -> None:
        if self.connected and dest == self.connector:
            self.to_here.append(message)

    def send_summary(self, subscriber: Pid, certificates: list[m.Certificate]) -> None:
        if self.connected and subscriber == self.connector:
            self.to_here.append(m.dead_summary(self.name, certificates))

    def held_monitors(self) -> list[Reference]:
        return list(self.monitors)

    # -- ConnectorPort, for our Connector of this node

    def is_connected(self) -> bool:
        return self.connected

    def connection(self) -> int:
        return self.connection_number

    def leave(self) -> None:
        connector = self.world.local.connectors[self.name]
        assert (len(connector), connector.waiting_instructions, connector.busy) == (0, 0, False)
        self.world.local.forget(connector)
        self.connector_ends()

    def connector_ends(self) -> None:
        """The process of our Connector ends; what was sent to it arrives nowhere, the next one has another pid."""
        self.fire(self.connector, Atom("ended"))
        self.connector = self.world.new_pid()
        self.to_here.clear()
        self.watch = None
        self.natives.held.clear()
        self.natives.bound.clear()

    def ping(self) -> Reference:
        self.watch = self.world.make_ref()
        if self.proxy is None:
            self.to_here.append((m.DOWN, self.watch, m.PROCESS, (m.PROXY, self.name), m.NOPROC))
        else:
            self.to_there.append(m.ping_call(self.connector, self.watch))
        return self.watch

    def cast(self, instructions: list[m.Instruction]) -> None:
        self.to_there.append(m.process_cast(self.connector, instructions))

    # -- what happens

    def fire(self, watched: Pid, reason: Term) -> None:
        self.natives.fire(watched, reason)
        for ref, (process, target) in list(self.monitors.items()):
            if process == watched:
                del self.monitors[ref]
                self.inbox.append((m.DOWN, ref, m.PROCESS, target, reason))

    def dies(self, process: Pid, reason: Term) -> None:
        ended = self.processes.pop(process, None)
        for name in [name for name, holder in self.names.items() if holder == process]:
            del self.names[name]
            self.owners[name].append(None)
        if ended is not None and ended.watchers.pop(self.observer.pid) is not None:
            self.observer.ended(process, reason)
        self.fire(process, reason)

    def crash(self) -> None:
        if self.proxy is not None:
            self.faults += 1
            self.proxy = None
            self.monitors.clear()
            self.observer.close()
            self.inbox.clear()
            if self.connected and self.watch is not None:
                self.to_here.append((m.DOWN, self.watch, m.PROCESS, (m.PROXY, self.name), Atom("crash")))

    def disconnect(self) -> None:
        if self.connected:
            self.connected = False
            self.faults += 1
            self.to_here.clear()
            self.to_there.clear()
            self.watch = None
            self.natives.lost()
            self.fire(self.connector, m.NOCONNECTION)
            connector = self.world.local.connectors.get(self.name)
            if connector is not None:
                connector.node_down(self.connection_number)

    def connect(self) -> None:
        if not self.connected:
            self.connected = True
            self.connection_number += 1
            connector = self.world.local.connectors.get(self.name)
            if connector is not None:
                connector.node_up(self.connection_number)

    # -- steps

    def step_there(self) -> bool:
        if self.proxy is None:
            for signal in self.to_there:
                if isinstance(signal, Bind):
                    self.natives.bind(signal)
            self.to_there.clear()
            return False
        if self.inbox:
            self.proxy.handle(self.inbox.popleft())
        elif self.to_there:
            signal = self.to_there.popleft()
            if isinstance(signal, Bind):
                self.natives.bind(signal)
            else:
                self.proxy.handle(signal)
        else:
            return False
        return True

    def step_here(self) -> bool:
        if not self.to_here:
            return False
        message = self.to_here.popleft()
        if self.natives.arrives(message):
            self.world.local.connectors[self.name].message(message, self.world.now)
        return True


class Bind:
    """A native monitor of a name, on its way."""

    def __init__(self, ref: Reference, target: m.Target) -> None:
        self.ref, self.target = ref, target


class Natives:
    """The native monitors of our Connector on one remote, as the two nodes know them."""

    def __init__(self, remote: Remote) -> None:
        self.remote = remote
        #: As they are known here.
        self.held: dict[Reference, m.Target] = {}
        #: As they are known there, with who is watched.
        self.bound: dict[Reference, tuple[Pid, m.Target]] = {}

    def monitor(self, target: m.Target) -> Reference:
        ref = self.remote.world.make_ref()
        self.held[ref] = target
        self.remote.to_there.append(Bind(ref, target))
        return ref

    def demonitor(self, ref: Reference) -> None:
        """Give back a monitor on a name, or the one on the Proxy."""
        if ref == self.remote.watch:
            self.remote.watch = None
        self.held.pop(ref, None)

    def held_monitors(self) -> list[Reference]:
        return list(self.held)

    def bind(self, signal: Bind) -> None:
        assert isinstance(signal.target, tuple)
        process = self.remote.names.get(signal.target[0])
        if process is None:
            self.down(signal.ref, signal.target, m.NOPROC)
        else:
            self.bound[signal.ref] = (process, signal.target)

    def fire(self, watched: Pid, reason: Term) -> None:
        for ref, (process, target) in list(self.bound.items()):
            if process == watched:
                del self.bound[ref]
                self.down(ref, target, reason)

    def down(self, ref: Reference, target: m.Target, reason: Term) -> None:
        if self.remote.connected:
            self.remote.to_here.append((m.DOWN, ref, m.PROCESS, target, reason))

    def arrives(self, message: Any) -> bool:
        """False for the DOWN of a monitor that was given back: the node lets none through."""
        if message[0] == m.DOWN and message[3] != (m.PROXY, self.remote.name):
            return self.held.pop(message[1], None) is not None
        return True

    def lost(self) -> None:
        """The connection is lost: of all monitors over it that is said here, before anything of a later connection."""
        self.bound.clear()
        self.remote.to_here.extend(
            (m.DOWN, ref, m.PROCESS, target, m.NOCONNECTION) for ref, target in self.held.items()
        )


class World(RuleBasedStateMachine):
    """The local node, the remotes, and the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.refs = self.connectors = 0
        self.now = 1000.0
        self.local = LocalCore(HERE, TIGHT)
        self.local.port = self
        self.local.slice_size = 2
        self.remotes: dict[Atom, Remote] = {}
        self.living = set(SUBSCRIBERS)
        self.expected: dict[Reference, tuple[Pid, m.Target]] = {}
        self.silenced: set[Reference] = set()
        #: Monitors of names, and how many owners the name had had before the one of then.
        self.owners_before: dict[Reference, int] = {}
        #: Monitors made while their node was well, and how many faults it had had by then: nodedown needs a new one.
        self.made_in_health: dict[Reference, int] = {}
        self.delivered: dict[Reference, Term] = {}

    @initialize()
    def start(self) -> None:
        for name in REMOTES:
            remote = self.remotes[name] = Remote(self, name)
            remote.connect()
            for _ in range(3):
                self.spawn(name, None)

    # -- LocalPort

    def new_pid(self) -> Pid:
        self.connectors += 1
        return pid(1000 + self.connectors)

    def make_ref(self) -> Reference:
        self.refs += 1
        return Reference(HERE, 1, self.refs.to_bytes(12, "big"))

    def watch(self, subscriber: Pid) -> None:
        pass

    def start_connector(self, core: ConnectorCore) -> None:
        core.port = _Port(self.remotes[core.remote])
        core.slice_size = 2

    def update_connector(self, core: ConnectorCore) -> None:
        pass

    # -- what may happen

    def spawn(self, node: Atom, name: Atom | None) -> None:
        remote = self.remotes[node]
        remote.made += 1
        process = pid(remote.made, node)
        remote.processes[process] = FakeProcess(process)
        if name is not None:  # if another process has it, it moves
            remote.names[name] = process
            remote.owners[name].append(process)

    @rule(node=st.sampled_from(REMOTES), name=st.sampled_from([None, *NAMES]))
    def a_process_starts(self, node: Atom, name: Atom | None) -> None:
        self.spawn(node, name)

    @rule(
        node=st.sampled_from(REMOTES),
        numbers=st.lists(st.integers(1, 8), min_size=1, max_size=6),
        subscriber=st.sampled_from(SUBSCRIBERS),
    )
    def monitor_pids(self, node: Atom, numbers: list[int], subscriber: Pid) -> None:
        for number in numbers:
            # A pid is that of a process that lives or has lived, or of one that never will.
            self.monitor(pid(number if number <= self.remotes[node].made else 1_000_000 + number, node), subscriber)

    @rule(node=st.sampled_from(REMOTES), name=st.sampled_from(NAMES), subscriber=st.sampled_from(SUBSCRIBERS))
    def monitor_a_name(self, node: Atom, name: Atom, subscriber: Pid) -> None:
        self.monitor((name, node), subscriber)

    def monitor(self, target: m.Target, subscriber: Pid) -> None:
        if subscriber in self.living:
            ref = self.local.monitor(target, subscriber)
            self.expected[ref] = (subscriber, target)
            remote = self.remotes[self.local.find_node(target)]
            if isinstance(target, tuple):
                self.owners_before[ref] = len(remote.owners[target[0]]) - 1
            known_to_be_well = self.local.connectors[remote.name].proxy.state is State.COMPATIBLE and not remote.to_here
            if remote.proxy is not None and remote.connected and known_to_be_well:
                self.made_in_health[ref] = remote.faults

    @rule(data=st.data())
    def demonitor(self, data: st.DataObject) -> None:
        if self.expected:
            ref = data.draw(st.sampled_from(list(self.expected)))
            if self.local.demonitor(ref):
                assert ref not in self.delivered
                self.silenced.add(ref)

    @rule(node=st.sampled_from(REMOTES), data=st.data())
    def processes_die(self, node: Atom, data: st.DataObject) -> None:
        alive = sorted(self.remotes[node].processes, key=str)
        if alive:
            for process in data.draw(st.lists(st.sampled_from(alive), min_size=1, max_size=5, unique=True)):
                self.remotes[node].dies(process, Atom(f"reason_{process.id}"))

    @rule(subscriber=st.sampled_from(SUBSCRIBERS[1:]))
    def a_subscriber_dies(self, subscriber: Pid) -> None:
        self.living.discard(subscriber)
        self.local.subscriber_down(subscriber)

    @rule(node=st.sampled_from(REMOTES))
    def a_connection_is_lost(self, node: Atom) -> None:
        self.remotes[node].disconnect()

    @rule(node=st.sampled_from(REMOTES))
    def a_connection_comes(self, node: Atom) -> None:
        self.remotes[node].connect()

    @rule(node=st.sampled_from(REMOTES))
    def a_proxy_crashes(self, node: Atom) -> None:
        self.remotes[node].crash()

    @rule(node=st.sampled_from(REMOTES))
    def a_proxy_starts(self, node: Atom) -> None:
        if self.remotes[node].proxy is None:
            self.remotes[node].start_proxy()

    @rule(node=st.sampled_from(REMOTES))
    def our_connector_is_killed(self, node: Atom) -> None:
        connector = self.local.connectors.get(node)
        if connector is not None:
            remote = self.remotes[node]
            remote.faults += 1
            remote.connector_ends()
            connector.restarted()

    @rule(node=st.sampled_from(REMOTES), data=st.data())
    def an_exception_costs_rows(self, node: Atom, data: st.DataObject) -> None:
        """What is half done is lost: targets, instructions, what was known of the Proxy. Then it is mended."""
        connector = self.local.connectors.get(node)
        if connector is not None:
            for table in (connector._monitors.pids, connector._monitors.names):
                for target in data.draw(st.sets(st.sampled_from(sorted(table, key=str)))) if table else ():
                    del table[target]
            for _ in range(data.draw(st.integers(0, 3))):
                if connector._instructions:
                    connector._instructions.popleft()
            self.local.dispatcher.recover()
            self.local.mend([connector], self.now)

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.1, 2.0, 6.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(node=st.sampled_from(REMOTES), there=st.booleans(), count=st.integers(1, 4))
    def messages_arrive(self, node: Atom, there: bool, count: int) -> None:
        remote = self.remotes[node]
        for _ in range(count):
            if not (remote.step_there() if there else remote.step_here()):
                break

    @rule(limit=st.integers(1, 3))
    def the_local_runs(self, limit: int) -> None:
        self.run_local(limit)

    @rule(rounds=st.integers(1, 4))
    def all_goes_on(self, rounds: int) -> None:
        """What the other rules do step by step, so that monitors get as far as the Proxy often enough."""
        for _ in range(rounds):
            self.now += 0.1
            for remote in self.remotes.values():
                while remote.step_there() or remote.step_here():
                    pass
                self.run_proxy(remote)
            self.run_local(3)

    @rule(node=st.sampled_from(REMOTES))
    def a_proxy_runs(self, node: Atom) -> None:
        self.run_proxy(self.remotes[node])

    def run_local(self, limit: int) -> None:
        for connector in list(self.local.connectors.values()):
            connector.sweep(self.now)
        self.local.work()
        for subscriber, message in self.local.dispatcher.deliver(self.now, limit):
            self.deliver(subscriber, message)

    def run_proxy(self, remote: Remote) -> None:
        if remote.proxy is not None:
            remote.proxy.work()
            remote.proxy.sweep(self.now)

    def deliver(self, subscriber: Pid, message: Any) -> None:
        tag, ref, kind, object_, (zen_monitor, reason) = message
        assert (tag, kind, zen_monitor) == (m.DOWN, m.PROCESS, m.ZEN_MONITOR)
        assert ref not in self.delivered, "fired twice"
        assert ref not in self.silenced, "fired after it was taken back"
        assert self.expected[ref] == (subscriber, object_)
        assert subscriber in self.living
        if reason == m.NODEDOWN:
            assert self.made_in_health.get(ref) != self.remotes[self.local.find_node(object_)].faults
        if isinstance(object_, Pid):
            if reason == m.NOPROC:
                assert object_ not in self.remotes[object_.node].processes
            elif reason != m.NODEDOWN:
                assert reason == Atom(f"reason_{object_.id}")
        else:
            self.had_the_name(ref, object_, reason)
        self.delivered[ref] = reason

    def had_the_name(self, ref: Reference, name: tuple[Atom, Atom], reason: Term) -> None:
        """The process whose end is reported had the name when it was monitored, or later."""
        owners = self.remotes[name[1]].owners[name[0]][self.owners_before[ref] :]
        if reason == m.NOPROC:
            assert None in owners
        elif reason != m.NODEDOWN:
            assert reason in [Atom(f"reason_{owner.id}") for owner in owners if owner is not None]

    def teardown(self) -> None:
        """Kill everything and let everything arrive: whoever still waits for a DOWN waits in vain."""
        if not self.remotes:
            return
        for remote in self.remotes.values():
            remote.connect()
            if remote.proxy is None:
                remote.start_proxy()
            for process in list(remote.processes):
                remote.dies(process, Atom(f"reason_{process.id}"))
        for _ in range(400):
            self.now += 1.0
            for remote in self.remotes.values():
                while remote.step_there() or remote.step_here():
                    pass
                self.run_proxy(remote)
            self.run_local(1000)
        owed = {
            ref
            for ref, (subscriber, _) in self.expected.items()
            if subscriber in self.living and ref not in self.silenced
        }
        assert owed == set(self.delivered) & owed, "a monitor has not fired"
        assert (len(self.local.tables), self.local.tables.subscribers) == (0, 0)
        assert all(len(connector) == 0 for connector in self.local.connectors.values())
        for remote in self.remotes.values():
            assert remote.proxy is not None
            assert (len(remote.proxy.tables), remote.proxy.waiting_certificates) == (0, 0)
            assert all(watched == remote.connector for watched, _ in remote.monitors.values())
            assert not remote.natives.held


class _Port:
    """A Connector's port: the remote, plus the one question whose answer differs by direction."""

    def __init__(self, remote: Remote) -> None:
        self.is_connected = remote.is_connected
        self.connection = remote.connection
        self.leave = remote.leave
        self.ping = remote.ping
        self.monitor = remote.natives.monitor
        self.demonitor = remote.natives.demonitor
        self.held_monitors = remote.natives.held_monitors
        self.cast = remote.cast

    def is_busy(self) -> bool:
        return False


TestExactlyOnce = World.TestCase
TestExactlyOnce.settings = hypothesis_settings(max_examples=150, stateful_step_count=60, deadline=None)
