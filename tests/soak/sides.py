"""The nodes of a soak test, ours and BEAMs, behind one interface."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import trio

from erlang_interop import Atom, Pid, Process, Reference
from erlang_interop.runtime.events import NodeDown
from erlang_interop.runtime.transport import Stream, Transport
from tests.interop.collectors import end_when_told, until, wait_for_ever

from .ledger import exit_reason

if TYPE_CHECKING:
    from erlang_interop import Node, Term
    from erlang_interop.testing.beam import Beam
    from zenmon_node import ZenMonitor

KILL = Atom("kill")
#: ZenMonitor gives up after more than ten crashes within five seconds, of a server, and of all of them.
MOST_HURT = 8
LONG_AGO_S = 5.5


@dataclass
class Seen:
    """What one look at a node has shown."""

    messages: list[tuple[str, Term]] = field(default_factory=list)
    """Subscribers and what came to them since the last look."""
    lost: list[Atom] = field(default_factory=list)
    """Nodes that it has lost since then, where nobody was told at once."""
    rows: set[tuple[Pid, Term]] = field(default_factory=set)
    """Subscribers and targets in the table of its Proxy."""
    connectors: dict[Atom, Pid] = field(default_factory=dict)
    """Its Connectors, by the node they are for."""
    natives: set[tuple[Pid, Term]] = field(default_factory=set)
    """Connectors and names that they watch natively, and perhaps by no subscription."""
    busy: str = ""
    """What it has not finished."""


class Side(Protocol):
    """A node that has targets and subscribers."""

    name: Atom

    async def spawn(self, count: int) -> list[Pid]: ...
    async def register(self, name: Atom) -> Pid: ...
    async def finish(self, kind: str, processes: list[tuple[Pid, int]]) -> None: ...
    async def subscribe(self, subscriber: str) -> None: ...
    async def end_subscriber(self, subscriber: str) -> None: ...
    async def monitor(self, subscriber: str, targets: list[Term]) -> list[Reference]: ...
    async def take_back(self, subscriber: str, refs: list[Reference], how: str) -> list[int]: ...
    async def set(self, setting: str, value: int) -> None: ...
    async def look(self) -> Seen: ...
    async def leftovers(self) -> dict[str, int]: ...


class CuttableTransport(Transport):
    """TCP whose connections can be cut: neither side says a word."""

    def __init__(self) -> None:
        self._streams: dict[str, Stream] = {}

    async def open(self, host: str, port: int, node: str) -> Stream:
        stream = self._streams[node] = await super().open(host, port, node)
        return stream

    def cut(self, node: str) -> bool:
        """End the last connection that we have made to ``node``; False if it is not there any more."""
        stream = self._streams.pop(node, None)
        if stream is None or stream.closed:
            return False
        stream.abort()
        return True


class OurSide:
    """A node of ours with ZenMonitor.

    Args:
        on_loss: Called with the name of a node that was lost, at once.
    """

    def __init__(
        self, node: Node, transport: CuttableTransport, zen: ZenMonitor, on_loss: Callable[[Atom], None]
    ) -> None:
        self.node, self.transport, self.zen = node, transport, zen
        self.name = node.name
        self._subscribers: dict[str, Process] = {}
        self._hurt: list[float] = []
        self._prepared: list[tuple[Any, str]] = []
        self.failures = 0
        node.watch_nodes(lambda event: on_loss(event.name) if isinstance(event, NodeDown) else None)

    async def spawn(self, count: int) -> list[Pid]:
        return [self.node.spawn(end_when_told) for _ in range(count)]

    async def register(self, name: Atom) -> Pid:
        await until(lambda: self.node.whereis(name) is None)  # its last holder may be ending just now
        return self.node.spawn(end_when_told, name=name)

    async def finish(self, kind: str, processes: list[tuple[Pid, int]]) -> None:
        for pid, number in processes:
            if kind == "killed":
                self.node.exit(pid, KILL)
            else:
                self.node.send(pid, (Atom("exit"), exit_reason(kind, number)))

    async def subscribe(self, subscriber: str) -> None:
        begun = trio.Event()

        async def begin(process: Process) -> None:
            self._subscribers[subscriber] = process
            begun.set()
            await wait_for_ever(process)

        self.node.spawn(begin)
        await begun.wait()

    async def end_subscriber(self, subscriber: str) -> None:
        self.node.exit(self._subscribers.pop(subscriber).pid, KILL)

    async def monitor(self, subscriber: str, targets: list[Any]) -> list[Reference]:
        process = self._subscribers[subscriber]
        return [self.zen.monitor(target, subscriber=process) for target in targets]

    async def take_back(self, subscriber: str, refs: list[Reference], how: str) -> list[int]:
        process = self._subscribers[subscriber]
        fired: Counter[Reference] = Counter()
        process.discard_messages(lambda message: bool(fired.update([message[1]])))  # looks at all, and discards none
        for ref in refs:
            self.zen.demonitor(ref, flush=how == "flush", subscriber=process)
        return [fired[ref] for ref in refs]

    async def set(self, setting: str, value: int) -> None:
        self.zen.configure(**{setting: value})

    async def look(self) -> Seen:
        now = self.zen.statistics()
        return Seen(
            messages=[
                (name, process.receive_nowait())
                for name, process in self._subscribers.items()
                for _ in range(len(process.mailbox))
            ],
            rows={
                (subscriber, target)
                for subscriber, rows in self.zen._proxy.core.tables._subscribers.items()
                for target in rows
            },
            connectors={node: server.process.pid for node, server in self.zen._local._servers.items()},
            natives={
                (server.process.pid, name)
                for server in self.zen._local._servers.values()
                for name in server.core._names.targets()
            },
            busy=f"{now}" if now.waiting_instructions or now.waiting_certificates or now.waiting_downs else "",
        )

    async def leftovers(self) -> dict[str, int]:
        now = self.zen.statistics()
        names = ("monitors", "waiting_instructions", "subscriptions", "remote_subscribers", "waiting_certificates")
        return {name: getattr(now, name) for name in names if getattr(now, name)}

    # -- what only a node of ours can do

    async def _not_too_often(self) -> None:
        """Wait if its processes have been hurt so often of late that ZenMonitor would give up."""
        now = trio.current_time()
        self._hurt = [*(time for time in self._hurt if time > now - LONG_AGO_S), now]
        if len(self._hurt) > MOST_HURT:
            await trio.sleep(self._hurt[-MOST_HURT - 1] + LONG_AGO_S - now)

    async def stop(self, name: Atom) -> bool:
        """Kill one of ZenMonitor's processes."""
        await self._not_too_often()
        pid = self.node.whereis(name)
        if pid is not None:
            self.node.exit(pid, KILL)
        return pid is not None

    async def stop_connector(self, remote: Atom) -> bool:
        """Kill a Connector, if there is one."""
        await self._not_too_often()
        server = self.zen._local._servers.get(remote)
        if server is not None:
            self.node.exit(server.process.pid, KILL)
        return server is not None

    async def fail(self, server: str, method: str, remote: Atom | None, on_failure: Callable[[], None]) -> bool:
        """Have the next call of a method raise, if its server is there; see :meth:`repair`."""
        await self._not_too_often()
        servers: dict[str, Any] = {
            "proxy": self.zen._proxy,
            "local": self.zen._local,
            "dispatcher": self.zen._dispatcher.core,
            "connector": self.zen._local._servers.get(remote) if remote is not None else None,
        }
        target = servers[server]
        if target is None or (target, method) in self._prepared:
            return False  # twice within a round is too much: a summary that can not be sent twice is given up

        def fail_once(*_: Any) -> None:
            delattr(target, method)
            self.failures += 1
            on_failure()
            raise RuntimeError(f"{server}.{method} was told to fail")

        setattr(target, method, fail_once)
        self._prepared.append((target, method))
        return True

    def repair(self) -> None:
        """What has not failed by now does not any more."""
        for target, method in self._prepared:
            vars(target).pop(method, None)
        self._prepared.clear()


class BeamSide:
    """A BEAM with both roles of the stand-in; ``zen_soak.erl`` does the work there."""

    def __init__(self, beam: Beam) -> None:
        self.beam = beam
        self.name = Atom(beam.name)
        self.running = True
        self.suspended_at: float | None = None

    async def start(self, settings: dict[Atom, int], subscribers: list[str]) -> None:
        names = [Atom(subscriber) for subscriber in subscribers]
        await self.beam.eval("zen_soak:start(Settings, Names)", Settings=settings, Names=names)

    async def spawn(self, count: int) -> list[Pid]:
        pids: list[Pid] = await self._eval("zen_soak:spawn_many(Count)", Count=count)
        return pids

    async def register(self, name: Atom) -> Pid:
        pid: Pid = await self._eval("zen_soak:spawn_named(Name)", Name=name)
        return pid

    async def finish(self, kind: str, processes: list[tuple[Pid, int]]) -> None:
        await self._eval("zen_soak:finish(Kind, Processes)", Kind=Atom(kind), Processes=processes)

    async def subscribe(self, subscriber: str) -> None:
        await self._eval("zen_soak:subscribe(Name)", Name=Atom(subscriber))

    async def end_subscriber(self, subscriber: str) -> None:
        await self._eval("exit(whereis(Name), kill)", Name=Atom(subscriber))

    async def monitor(self, subscriber: str, targets: list[Term]) -> list[Reference]:
        source = "zen_soak:monitor(Name, Targets)"
        refs: list[Reference] = await self._eval(source, Name=Atom(subscriber), Targets=targets)
        return refs

    async def take_back(self, subscriber: str, refs: list[Reference], how: str) -> list[int]:
        options = [Atom("flush")] if how == "flush" else []
        source = "zen_soak:take_back(Name, Refs, Options)"
        delivered: list[int] = await self._eval(source, Name=Atom(subscriber), Refs=refs, Options=options)
        return delivered

    async def set(self, setting: str, value: int) -> None:
        await self._eval("zen_settings:set(Name, Value)", Name=Atom(setting), Value=value)

    async def look(self) -> Seen:
        messages, lost, subscriptions, connectors = await self._eval("zen_soak:look()")
        return Seen(
            messages=[(name.name, message) for name, those in messages for message in those],
            lost=lost,
            rows={(subscriber, target) for target, subscribers in subscriptions for subscriber in subscribers},
            connectors=dict(connectors),
        )

    async def leftovers(self) -> dict[str, int]:
        counts = await self._eval("zen_soak:counts()")
        names = ("subscriptions", "native monitors", "references")
        return {name: count for name, count in zip(names, counts, strict=True) if count}

    async def _eval(self, source: str, **bindings: Any) -> Any:
        return await self.beam.eval(source, timeout=90, **bindings)
