"""The processes of the Local: ``Elixir.ZenMonitor.Local``, its Dispatcher, and one Connector for each remote node.

They carry out what their cores decide. The cores hold all tables and outlive the processes: one that is killed is
replaced by another that goes on where it stopped.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from erlang_interop.errors import Exit
from erlang_interop.runtime.events import NodeDown, NodeUp
from erlang_interop.terms import Atom, Pid

from .. import gen
from .. import messages as m
from ..sweeping import SweepingServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from erlang_interop.terms import Reference, Term

    from ..counters import Counters
    from ..gen import GenModule
    from ..messages import Instruction, Target
    from .api import CachedCompatibility, LocalCore
    from .connector import ConnectorCore
    from .dispatcher import DispatcherCore

#: How a Connector ends that is not needed any more.
NORMAL: Final = Atom("normal")


class Dispatcher(SweepingServer):
    """The process ``Elixir.ZenMonitor.Local.Dispatcher``.

    Args:
        core: The queue; it outlives this process.
        counters: What is counted.
    """

    def __init__(self, core: DispatcherCore, counters: Counters) -> None:
        super().__init__(counters)
        self.core = core
        #: What was taken from the queue and is being sent.
        self._unsent: deque[tuple[Pid, Term]] = deque()

    def started(self) -> None:
        """Go on with what a Dispatcher before this one has left."""
        self.work_arrived()

    def work_arrived(self) -> None:
        """To be called after anything was put into the core's queue."""
        self.wake_at(self.core.next_due(self.now()))

    def idle(self) -> None:
        """Give back memory: by now all that was to fire has fired."""
        self.core.compact()

    def receive(self, message: Term) -> None:
        """Nobody sends it anything; what comes nevertheless is none of its business."""

    def tick(self) -> None:
        """Deliver what may go now."""
        now = self.now()
        self._unsent.extend(self.core.deliver(now))
        self.process.send_local(self._unsent)
        self.wake_at(self.core.next_due(now))

    def recover(self) -> None:
        """Nothing that was taken is lost."""
        self.core.recover()
        self.wake_at(self.now())


class Connector(SweepingServer):
    """The process of one Connector.

    Args:
        core: Its decisions and tables; they outlive the process.
        local: Who has started it, and is told what has changed.
    """

    def __init__(self, core: ConnectorCore, local: Local) -> None:
        super().__init__(local.core.counters)
        self.core = core
        self._local = local
        self.configure()

    def configure(self) -> None:
        """Take the settings that are in force now."""
        self.idle_after(self._local.core.idle_after())
        self._gen: GenModule = gen.load(self._local.core.settings.gen_module)

    def started(self) -> None:
        """Take the core over."""
        self.core.port = self
        self._rearm()

    def update(self) -> None:
        """To be called after anything was done to the core from outside."""
        self._rearm()

    def receive(self, message: Term) -> None:
        """A summary, a pong, or the end of the Proxy."""
        self.core.message(message, self.now(), self.sender)
        self._rearm()

    def tick(self) -> None:
        """Sweep."""
        self.core.sweep(self.now())
        self._rearm()

    def idle(self) -> None:
        """Give back memory."""
        self.core.compact()

    def recover(self) -> None:
        """What is monitored there stands in the tables of the Local."""
        self._local.mend(self.core)

    def _rearm(self) -> None:
        self._local.connector_changed(self.core)
        self.wake_at(self.core.next_due(self.now()))

    # -- ConnectorPort

    @property
    def _is_own(self) -> bool:
        return self.core.remote == self.node.name

    def is_connected(self) -> bool:
        """True if the remote is the own node or connected, hidden or visible."""
        return self._is_own or self.node.is_connected(self.core.remote)

    def connection(self) -> int:
        """The number of the connection to the remote; 0 for the own node."""
        if self._is_own:
            return 0
        return next(row.connection_id for row in self.node.connections if row.name == self.core.remote)

    def is_busy(self) -> bool:
        """True while the connection holds more than it should."""
        return not self._is_own and self.node.is_busy(self.core.remote)

    def ping(self) -> Reference:
        """Monitor the Proxy and ask it."""
        proxy = (m.PROXY, self.core.remote)
        ref = self.process.monitor(proxy)
        try:
            self._gen.call(self.process, proxy, ref, m.PING)
        except BaseException:
            self.process.demonitor(ref)
            raise
        return ref

    def monitor(self, target: Target) -> Reference:
        """Monitor natively."""
        return self.process.monitor(target)

    def demonitor(self, ref: Reference) -> None:
        """Give a native monitor back: one on a name, or the one on the Proxy."""
        self.process.demonitor(ref)

    def held_monitors(self) -> Iterable[Reference]:
        """Those that have neither fired nor been given back."""
        return list(self.process.monitors)

    def cast(self, instructions: list[Instruction]) -> None:
        """Send a batch of instructions."""
        request = m.process_request(self.process.pid, instructions)
        self._gen.cast(self.process, (m.PROXY, self.core.remote), request)

    def leave(self) -> None:
        """End; the Local forgets the core."""
        self._local.connector_leaves(self.core)
        raise Exit(NORMAL)


class Local(SweepingServer):
    """The process ``Elixir.ZenMonitor.Local``.

    Args:
        core: Its decisions and tables; they outlive the process.
        work_arrived: Called when a death waits for the Dispatcher.
        settled: Called when the question whether a node is compatible is decided.
        subscriber_gone: Called when a process that had monitors has died.
        verdict_changed: Called when something else is known of a remote node than before; no handler runs meanwhile.

    Attributes:
        make_ref: Makes a new reference.
    """

    make_ref: Callable[[], Reference]

    def __init__(
        self,
        core: LocalCore,
        *,
        work_arrived: Callable[[], None],
        settled: Callable[[], None],
        subscriber_gone: Callable[[Pid], None],
        verdict_changed: Callable[[Atom, CachedCompatibility], None],
    ) -> None:
        super().__init__(core.counters)
        self.core = core
        self._work_arrived = work_arrived
        self._settled = settled
        self._subscriber_gone = subscriber_gone
        self._verdict_changed = verdict_changed
        self._servers: dict[Atom, Connector] = {}
        self._unwatch_nodes: Callable[[], None] | None = None

    def started(self) -> None:
        """Take the core over."""
        self.process.trap_exit = True
        self.make_ref = self.process.make_ref
        self.core.port = self
        pid = self.process.pid
        # As messages to itself, so that they are handled like all others.
        self._unwatch_nodes = self.node.watch_nodes(lambda event: self._note(pid, event))
        self.core.restarted()

    def _note(self, pid: Pid, event: NodeUp | NodeDown) -> None:
        if self.process.alive:
            self.process.send(pid, event)

    def terminated(self, reason: Term) -> None:
        """The Connectors are linked and go too."""
        super().terminated(reason)
        if self._unwatch_nodes is not None:
            self._unwatch_nodes()

    def receive(self, message: Term) -> None:
        """News of nodes, of subscribers and of Connectors."""
        match message:
            case NodeUp() | NodeDown():
                connector = self.core.connectors.get(message.name)
                if connector is None:
                    return
                if isinstance(message, NodeUp):
                    connector.node_up(message.connection_id)
                else:
                    connector.node_down(message.connection_id)
                self.update_connector(connector)
            # What a process has sent is no signal, whatever it looks like.
            case (Atom("DOWN"), _, Atom("process"), Pid() as subscriber, _) if self.sender is None:
                self._bury(subscriber)
                self._go_on()
            case (Atom("EXIT"), Pid() as pid, reason) if self.sender is None:
                self._exited(pid, reason)
            case _Verdict():
                self._verdict_changed(message.node, message.verdict)
            case _:
                self.core.complaints.add("no message for the Local", self.sender, message)

    def _bury(self, subscriber: Pid) -> None:
        self._subscriber_gone(subscriber)
        self.core.subscriber_down(subscriber)

    def _exited(self, pid: Pid, reason: Term) -> None:
        for server in self._servers.values():
            if server.process.pid == pid:
                server.core.restarted()
                if server.has_given_up:
                    server.core.failed(self.now())  # it would only crash again
                self.start_connector(server.core)
                return
        raise Exit(reason)  # the supervisor's

    def recover(self) -> None:
        """News may have been lost: of subscribers, of nodes, of Connectors."""
        for subscriber in self.core.tables.subscriber_pids():
            if not self.node.is_alive(subscriber):
                self._bury(subscriber)
        connectors = list(self.core.connectors.values())
        for connector in connectors:
            server = self._servers.get(connector.remote)
            if server is None or not server.process.alive:
                connector.restarted()
                self.start_connector(connector)
        self.mend(*connectors)
        self._go_on()

    def mend(self, *connectors: ConnectorCore) -> None:
        """An exception has interrupted the work of these Connectors, or for them."""
        self.core.mend(connectors, self.now())
        for connector in connectors:
            self.update_connector(connector)

    def reconfigured(self) -> None:
        """The settings of the cores have changed: their timers may be too late."""
        for server in self._servers.values():
            server.configure()
            server.update()

    def tick(self) -> None:
        """Go on cleaning up."""
        self._go_on()

    def _go_on(self) -> None:
        self.core.work()
        if self.core.busy:
            self.wake_at(self.now())

    # -- LocalPort

    def watch(self, subscriber: Pid) -> None:
        """Monitor a subscriber natively."""
        self.process.monitor(subscriber)

    def start_connector(self, core: ConnectorCore) -> None:
        """Run a Connector, linked: it does not outlive the Local."""
        server = Connector(core, self)
        self._servers[core.remote] = server
        self.node.start_inline(server, link_to=self.process.pid)

    def update_connector(self, core: ConnectorCore) -> None:
        """Something was done to a Connector's core."""
        self._servers[core.remote].update()

    # -- what its Connectors tell

    def connector_changed(self, core: ConnectorCore) -> None:
        """Work may have been put into the Dispatcher, or something else be known of the remote."""
        if self.core.dispatcher.waiting:
            self._work_arrived()
        if core.proxy.settled:
            self._settled()
        self._note_verdict(core.remote)

    def connector_leaves(self, core: ConnectorCore) -> None:
        """Nothing is monitored there: its process ends."""
        self.process.unlink(self._servers.pop(core.remote).process.pid)
        self.core.forget(core)
        self._note_verdict(core.remote)

    def _note_verdict(self, node: Atom) -> None:
        verdict = self.core.changed_verdict(node, self.now())
        if verdict is not None:
            # As a message to itself: whoever is told may call anything, and a handler may be in the middle of its work.
            self.process.send(self.process.pid, _Verdict(node, verdict))


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What a Local sends itself when something else is known of a node than before; no peer can forge it."""

    node: Atom
    verdict: CachedCompatibility
