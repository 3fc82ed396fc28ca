"""ZenMonitor on a node: what a program opens and calls. The composition root of Local and Proxy.

The processes run under a supervisor, ``Elixir.ZenMonitor.Supervisor``: the Dispatcher, the Local (to which the
Connectors are linked) and the Proxy. An exception in one of them is contained (``sweeping.py``). What the Local knows
outlives its processes, so no monitor is lost when one of them is killed. A Proxy that is killed starts empty: other
nodes see its name go, and those of ours subscribe anew.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog
import trio

from erlang_interop.errors import ErlangInteropError
from erlang_interop.otp.supervisor import ChildSpec, Supervisor
from erlang_interop.runtime import LocalProcess
from erlang_interop.terms import Atom, Pid

from . import messages as m
from .config import Settings
from .counters import Counters
from .local.api import CachedCompatibility, Compatibility, LocalCore
from .local.remote import State
from .local.servers import Dispatcher, Local
from .pacing import SLICE
from .proxy.server import Proxy
from .status import Down, Remote, Statistics
from .sweeping import PERIOD, RESTARTS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from typing import Self, TypeAlias

    from erlang_interop import Node, Process
    from erlang_interop.terms import Reference, Term

    from .messages import Target

    #: As :data:`messages.Target`, with names as ``str`` too.
    TargetLike: TypeAlias = "Pid | Atom | str | tuple[Atom | str, Atom | str]"

SHUTDOWN = Atom("shutdown")

_log = structlog.get_logger("zenmon_node")


class ZenMonitorStopped(ErlangInteropError):
    """ZenMonitor has given up: its processes have crashed too often. The log says why."""


class ZenMonitor:
    """Monitors processes of other nodes through their Proxies, and serves theirs. Made by :func:`open_zen_monitor`."""

    def __init__(self, node: Node, settings: Settings) -> None:
        self.node = node
        self._settings = settings
        self.counters = Counters()
        self._core = LocalCore(node.name, settings, self.counters)
        self._dispatcher: Dispatcher
        self._local: Local
        self._proxy: Proxy
        self._processes: dict[Pid, LocalProcess] = {}
        self._settled = trio.lowlevel.ParkingLot()
        self._supervisor = _Supervisor(self._children(), self._ended)
        self._left = False
        self._notices: dict[object, Callable[[Atom, CachedCompatibility], None]] = {}

    # -- monitors

    def monitor(self, target: TargetLike, *, subscriber: LocalProcess | Pid) -> Reference:
        """Monitor ``target`` for the process ``subscriber``.

        When the target ends, is not there, or cannot be monitored, the subscriber gets, once,
        ``('DOWN', ref, 'process', object, ('zen_monitor', reason))``: ``object`` is the pid, or ``(name, node)``;
        ``reason`` is the exit reason as the target's node has truncated it, ``noproc``, or ``nodedown`` when that node
        is not connected, is lost, or does not speak ZenMonitor; for a name also when that node's Proxy was restarted,
        since nobody knows then which process the name was bound to. A name is bound after the call, with the next
        sweep: who has it by then is watched, whatever earlier monitors of that name are for. Nothing is ever connected
        for a monitor: see :meth:`connect`.

        Args:
            target: A pid, a name of this node, or ``(name, node)``.
            subscriber: A process of this node.

        Raises:
            TypeError: ``target`` is none of these.
            ValueError: ``subscriber`` is a process of another node.
            ZenMonitorStopped: its processes crashed too often.
        """
        self._require_running()
        if isinstance(subscriber, LocalProcess):
            pid = subscriber.pid
            self._processes[pid] = subscriber
        else:
            pid = subscriber
        if pid.node != self.node.name:
            raise ValueError(f"the subscriber {pid} is a process of {pid.node.name}, not of {self.node.name.name}")
        return self._core.monitor(_target(target), pid)

    def demonitor(
        self,
        ref: Reference,
        *,
        flush: bool = False,
        info: bool = False,
        subscriber: LocalProcess | None = None,
    ) -> bool:
        """Take a monitor back: its DOWN is not delivered any more. A monitor that is not known is none of its business.

        Args:
            ref: What :meth:`monitor` returned.
            flush: If the DOWN has been delivered already, remove it from the subscriber's mailbox.
            info: Accepted and without effect, as in the original.
            subscriber: The process that made the monitor, if the caller knows it: only a monitor of that process is
                taken back then, and flushing looks only into its mailbox, not into those of all subscribers.

        Returns:
            True, as in Erlang.
        """
        active = self._core.demonitor(ref, None if subscriber is None else subscriber.pid)
        if flush and not active:
            for process in [subscriber] if subscriber is not None else list(self._processes.values()):
                if process.discard_message(lambda message: _is_down_of(message, ref)):
                    break
        return True

    @asynccontextmanager
    async def watch(self, targets: Iterable[TargetLike] = ()) -> AsyncIterator[Watch]:
        """Monitor from code that is no process: an async iterator of :class:`Down`.

        It ends when every target has gone; more can be added while it runs. Leaving the block takes back what is left.

        .. code-block:: python

            async with zen.watch([("worker", "beam@127.0.0.1")]) as downs:
                async for down in downs:
                    print(down.target, down.reason)

        Raises:
            TypeError: a target is none.
            ZenMonitorStopped: its processes crashed too often.
        """
        async with self.node.open_process() as process:
            watch = Watch(self, process)
            for number, target in enumerate(targets, start=1):
                watch.add(target)
                if number % SLICE == 0:
                    await trio.lowlevel.checkpoint()
            yield watch

    # -- nodes

    def find_node(self, target: TargetLike) -> Atom:
        """The node of a target; a bare name is one of this node. Raises TypeError if it is no target."""
        return self._core.find_node(_target(target))

    def compatibility(self, target: TargetLike) -> Compatibility:
        """Whether the node of ``target`` is known to speak ZenMonitor; nothing is asked."""
        return self.compatibility_for_node(self.find_node(target))

    def compatibility_for_node(self, name: Atom | str) -> Compatibility:
        """Whether the node ``name`` is known to speak ZenMonitor; nothing is asked."""
        connector = self._core.connectors.get(_atom(name))
        compatible = connector is not None and connector.proxy.state is State.COMPATIBLE
        return Compatibility.COMPATIBLE if compatible else Compatibility.INCOMPATIBLE

    def cached_compatibility(self, name: Atom | str) -> CachedCompatibility:
        """What is known of the node ``name``, in detail; nothing is asked.

        A node on which nothing was monitored for ``hibernation_threshold`` times ``connector_sweep_interval`` is
        forgotten.
        """
        return self._core.cached_compatibility(_atom(name), trio.current_time())

    async def connect(self, name: Atom | str) -> Compatibility:
        """Connect to the node ``name`` and find out whether it speaks ZenMonitor. Many may call; one asks.

        While a node that has failed to answer is under its penalty it is not asked again. If its Proxy has just gone,
        this waits up to two seconds for it to come back.

        Returns:
            COMPATIBLE, or INCOMPATIBLE: no Proxy is registered there, or it did not answer within 5 seconds.

        Raises:
            ConnectError: the node cannot be reached; the message says why.
            ZenMonitorStopped: its processes crashed too often.
        """
        self._require_running()
        remote = _atom(name)
        if remote != self.node.name:
            await self.node.connect(remote)
        connector = self._core.connector(remote)
        connector.check()
        self._local.update_connector(connector)
        await trio.lowlevel.checkpoint()
        while not connector.proxy.settled:
            await self._settled.park()
            self._require_running()
        return Compatibility.COMPATIBLE if connector.proxy.state is State.COMPATIBLE else Compatibility.INCOMPATIBLE

    def watch_compatibility(self, notice: Callable[[Atom, CachedCompatibility], None]) -> Callable[[], None]:
        """Have ``notice(node, compatibility)`` called whenever something else is known of a node than before.

        ``compatibility`` is what :meth:`cached_compatibility` would say. The notice may call anything here. If it
        raises, that is logged and costs nobody else a notice.

        Returns:
            What ends it when called.
        """
        key = object()
        self._notices[key] = notice

        def unwatch() -> None:
            self._notices.pop(key, None)

        return unwatch

    def remotes(self) -> list[Remote]:
        """What is known of each node that is monitored, in the order of their first monitors."""
        now = trio.current_time()
        return [
            Remote(
                node=name,
                compatibility=self._core.cached_compatibility(name, now),
                targets=len(connector),
                waiting_instructions=connector.waiting_instructions,
                batches=connector.batches,
                instructions=connector.instructions,
                summaries=connector.summaries,
                certificates=connector.certificates,
            )
            for name, connector in self._core.connectors.items()
        ]

    @staticmethod
    def now() -> int:
        """Milliseconds, monotonic, as ``ZenMonitor.now/0``."""
        return int(trio.current_time() * 1000)

    # -- settings and statistics

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._settings

    @property
    def maximum_mps(self) -> float:
        """DOWN messages a second that are delivered at most: ``demand_amount`` per ``demand_interval``."""
        return self._settings.demand_amount * 1000 / self._settings.demand_interval

    def configure(self, **changes: int | str | None) -> Settings:
        """Change settings while running; they hold from the next sweep on.

        Args:
            changes: Settings by name.

        Returns:
            The settings now in force.

        Raises:
            SettingsError: an unknown name, or a value out of range; nothing has changed then.
        """
        self._settings = self._settings.changed(**changes)
        self._core.configure(self._settings)
        self._proxy.configure(self._settings)
        self._local.reconfigured()
        self._dispatcher.idle_after(self._core.idle_after())
        self._dispatcher.work_arrived()
        return self._settings

    def statistics(self) -> Statistics:
        """How much there is of everything now."""
        connectors = self._core.connectors.values()
        proxy = self._proxy.core
        return Statistics(
            monitors=len(self._core.tables),
            subscribers=self._core.tables.subscribers,
            connectors=len(self._core.connectors),
            waiting_instructions=sum(connector.waiting_instructions for connector in connectors),
            waiting_downs=self._core.dispatcher.waiting_downs,
            waiting_cleanups=self._core.waiting_cleanups,
            subscriptions=len(proxy.tables),
            subscription_rows=proxy.tables.rows,
            remote_subscribers=proxy.tables.subscribers,
            waiting_remote_instructions=proxy.waiting_instructions,
            waiting_certificates=proxy.waiting_certificates,
            malformed=self.counters.malformed,
        )

    # -- its processes

    def _require_running(self) -> None:
        if not self._local.process.alive:
            raise ZenMonitorStopped(
                f"ZenMonitor on {self.node.name.name} has stopped: its block was left, or its processes crashed more "
                f"than {RESTARTS} times within {PERIOD:.0f} seconds (the log has their tracebacks); open it again"
            )

    async def wait_stopped(self) -> None:
        """Return when its processes have crashed too often, or its block was left. No monitor is active then."""
        await self._supervisor.wait_stopped()

    def _children(self) -> list[ChildSpec]:
        return [
            ChildSpec(m.DISPATCHER, self._start_dispatcher),
            ChildSpec(m.LOCAL, self._start_local),
            ChildSpec(m.PROXY, self._start_proxy),
        ]

    def _ended(self) -> None:
        """All processes have ended. Unless that was wanted, no monitor may be left for which nobody will fire."""
        self._wake_connecting()
        if not self._left:
            for ref, target in list(self._core.tables.rows()):
                row = self._core.tables.take(ref)
                if row is not None:
                    self.node.send(row[0], m.down_message(ref, target, m.NODEDOWN))

    def _start_dispatcher(self) -> Pid:
        self._dispatcher = Dispatcher(self._core.dispatcher, self.counters)
        self._dispatcher.idle_after(self._core.idle_after())
        return self.node.start_inline(self._dispatcher, name=m.DISPATCHER)

    def _start_local(self) -> Pid:
        self._local = Local(
            self._core,
            work_arrived=lambda: self._dispatcher.work_arrived(),
            settled=self._wake_connecting,
            subscriber_gone=self._forget_process,
            verdict_changed=self._tell_verdict,
        )
        return self.node.start_inline(self._local, name=m.LOCAL)

    def _start_proxy(self) -> Pid:
        self._proxy = Proxy(self._settings, self.counters)
        return self.node.start_inline(self._proxy, name=m.PROXY)

    def _wake_connecting(self) -> None:
        self._settled.unpark_all()

    def _tell_verdict(self, node: Atom, verdict: CachedCompatibility) -> None:
        for notice in list(self._notices.values()):
            try:
                notice(node, verdict)
            except Exception:
                _log.exception("a notice of watch_compatibility raised", node=node.name, verdict=verdict.status.value)

    def _forget_process(self, pid: Pid) -> None:
        self._processes.pop(pid, None)


class Watch:
    """What :meth:`ZenMonitor.watch` gives: an async iterator of :class:`Down`, and the way to add to it."""

    def __init__(self, zen: ZenMonitor, process: Process) -> None:
        self._zen = zen
        self._process = process
        self._targets: dict[Reference, TargetLike] = {}

    def __len__(self) -> int:
        """Targets that have not gone."""
        return len(self._targets)

    def add(self, target: TargetLike) -> Reference:
        """Monitor one more target; see :meth:`ZenMonitor.monitor` for what may be wrong with it."""
        ref = self._zen.monitor(target, subscriber=self._process)
        self._targets[ref] = target
        return ref

    def remove(self, ref: Reference) -> bool:
        """Monitor a target no longer; True if its Down had not been returned."""
        self._zen.demonitor(ref, flush=True, subscriber=self._process)
        return self._targets.pop(ref, None) is not None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Down:
        while self._targets:
            match await self._process.receive():
                case (Atom("DOWN"), ref, _, _, (Atom("zen_monitor"), reason)) if ref in self._targets:
                    return Down(ref, self._targets.pop(ref), reason)
        raise StopAsyncIteration


@asynccontextmanager
async def open_zen_monitor(node: Node, settings: Settings | None = None) -> AsyncIterator[ZenMonitor]:
    """ZenMonitor on ``node``, for as long as the block runs.

    It registers ``Elixir.ZenMonitor.Proxy``, ``Elixir.ZenMonitor.Local`` and
    ``Elixir.ZenMonitor.Local.Dispatcher``. Elixir nodes monitor processes here with an unmodified
    ``ZenMonitor.monitor/1`` if this node is visible to them; a hidden one can still monitor theirs. When the block
    ends, monitors end with it and fire no more, and other nodes' monitors of processes here fire ``nodedown``.

    Args:
        node: A running node.
        settings: ZenMonitor's settings; None: its defaults.

    Raises:
        NameAlreadyRegistered: ZenMonitor is open on this node already.
    """
    zen = ZenMonitor(node, settings or Settings())
    supervisor = zen._supervisor
    node.start_inline(supervisor, name=m.SUPERVISOR)
    try:
        yield zen
    finally:
        zen._left = True
        node.exit(supervisor.process.pid, SHUTDOWN)
        with trio.CancelScope(shield=True):
            await supervisor.wait_stopped()


class _Supervisor(Supervisor):
    """``Elixir.ZenMonitor.Supervisor``; it tells when it has ended, and all its children with it."""

    def __init__(self, children: list[ChildSpec], ended: Callable[[], None]) -> None:
        super().__init__(children, intensity=RESTARTS, period=PERIOD)
        self._tell_ended = ended

    def terminated(self, reason: Term) -> None:
        super().terminated(reason)
        self._tell_ended()


def _target(target: TargetLike) -> Target:
    if type(target) is Pid:
        return target
    if type(target) is str:
        return Atom(target)
    if type(target) is tuple and len(target) == 2:
        target = (_atom(target[0]), _atom(target[1]))
    if m.is_target(target):
        return target
    raise TypeError(f"cannot monitor {target!r}: a Pid, a name or (name, node) is needed, names as str or Atom")


def _atom(name: Atom | str) -> Atom:
    if isinstance(name, Atom):
        return name
    if isinstance(name, str):
        return Atom(name)
    raise TypeError(f"a name is a str or an Atom, not {name!r}")


def _is_down_of(message: Term, ref: Reference) -> bool:
    return type(message) is tuple and len(message) == 5 and message[0] == m.DOWN and message[1] == ref
