"""Our member of a scope, in the terms of the tests of ``syn``: Erlang's results, and its events."""

from __future__ import annotations

import inspect
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from erlang_interop import Atom, Exit, InlineServer, Pid, RemoteExit
from tests.interop.collectors import until
from zenmon_node.syn.api import open_scope
from zenmon_node.syn.errors import InvalidRemoteScope, InvalidScope, SynError
from zenmon_node.syn.handler import EventHandler
from zenmon_node.syn.multi_call import multi_call_reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from erlang_interop import Node, Process, Term
    from tests.interop.conftest import NodeOpener
    from tests.interop.syn_members import Event, Member
    from zenmon_node.syn.api import Scope
    from zenmon_node.syn.conflict import Claim

OK, ERROR, UNDEFINED, KILL = map(Atom, ("ok", "error", "undefined", "kill"))
END, CALL = Atom("end_with"), Atom("syn_multi_call")
#: What ``open_node`` calls a kind of node of ours.
KINDS: Final = {"hidden": False, "visible": "passive"}
#: Those that return no more than that they were done.
_COMMANDS: Final = ("register", "unregister", "join", "leave")


class Recorder(EventHandler):
    """Keeps every callback with all arguments but the scope, under syn's names."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def _note(self, callback: str, arguments: tuple[Any, ...]) -> None:
        self.events.append((callback, *arguments))

    def on_process_registered(self, scope: Atom, *rest: Any) -> None:
        self._note("on_process_registered", rest)

    def on_registry_process_updated(self, scope: Atom, *rest: Any) -> None:
        self._note("on_registry_process_updated", rest)

    def on_registry_process_updated_from(self, scope: Atom, *rest: Any) -> None:
        self._note("on_registry_process_updated", rest)

    def on_process_unregistered(self, scope: Atom, *rest: Any) -> None:
        self._note("on_process_unregistered", rest)

    def on_process_joined(self, scope: Atom, *rest: Any) -> None:
        self._note("on_process_joined", rest)

    def on_group_process_updated(self, scope: Atom, *rest: Any) -> None:
        self._note("on_group_process_updated", rest)

    def on_group_process_updated_from(self, scope: Atom, *rest: Any) -> None:
        self._note("on_group_process_updated", rest)

    def on_process_left(self, scope: Atom, *rest: Any) -> None:
        self._note("on_process_left", rest)


class Resolver(Recorder):
    """Decides by the metadata, as ``fixture_syn_resolver`` does."""

    def __init__(self, third: Pid) -> None:
        super().__init__()
        self._third = third

    def resolve_registry_conflict(self, scope: Atom, name: Any, remote: Claim, local: Claim) -> Any:
        self._note("resolve_registry_conflict", (name, tuple(remote), tuple(local)))
        match remote.meta, local.meta:
            case (Atom("keep"), Atom("lose")):
                return remote.pid
            case (Atom("lose"), Atom("keep")):
                return local.pid
            case (Atom("third"), _):
                return self._third
            case (Atom("raise"), _):
                raise LookupError("cannot decide")
        return UNDEFINED


class Idle(InlineServer):
    """Does nothing; unlike a process with a task it has ended as soon as it is killed."""

    def handle_message(self, message: Any) -> None:
        raise AssertionError(f"nobody sends it {message!r}")


class Killer(InlineServer):
    """Kills the processes it is told, before anybody learns of it."""

    def handle_message(self, message: Any) -> None:
        for pid in message:
            self.process.exit(pid, KILL)


class OurMember:
    """A node of ours in a scope; made by :func:`joined_by_ours`.

    Attributes:
        joined: The scope, as the program has it.
    """

    says_goodbye = True

    def __init__(self, node: Node, scope: Atom, discover_interval: float) -> None:
        self.node = node
        self.name = node.name
        self.scope = scope
        self.joined: Scope
        self._interval = discover_interval
        self._handler: EventHandler = Recorder()
        self._messages: dict[Pid, list[Any]] = {}

    # -- the scope

    async def enter_scope(self) -> None:
        options: Any = {"handler": self._handler, "discover_interval": self._interval}
        self._opened = open_scope(self.node, self.scope, **options)
        self.joined = await self._opened.__aenter__()

    async def leave_scope(self) -> None:
        await self._opened.__aexit__(None, None, None)

    async def resolve_by(self, how: str) -> None:
        """Here it is said when a scope is opened, so it is opened anew."""
        assert how == "metadata"
        await self.leave_scope()
        self._handler = Resolver(self.node.spawn(self._serve))
        await self.enter_scope()

    def handle_with(self, handler: EventHandler) -> None:
        """Have another handler when the scope is entered next."""
        self._handler = handler

    async def crash(self, service: str, while_down: Pid | None = None) -> None:
        (server,) = (server for server in self.joined.servers if server.service.name == service)
        before = server.process.pid
        # One handler that ends both: the supervisor has its turn when that is done.
        killer = self.node.start_inline(Killer())
        self.node.send(killer, [before, *([] if while_down is None else [while_down])])
        self.node.exit(killer, KILL)
        await until(lambda: self.node.whereis(server.name) not in (None, before))

    async def peers(self, service: str) -> set[Atom]:
        (server,) = (server for server in self.joined.servers if server.service.name == service)
        return set(server.subcluster_nodes())

    async def await_member(self, other: Member, *, is_member: bool) -> None:
        servers, name = self.joined.servers, other.name
        await until(lambda: all((name in server.subcluster_nodes()) is is_member for server in servers))

    async def mark(self, key: Term) -> Pid:
        pid = await self.spawn()
        await self.joined.register(key, pid)
        await self.joined.join(key, pid)
        return pid

    async def await_marks(self, keys: list[Term], *, are_there: bool) -> None:
        scope = self.joined

        def are_done() -> bool:
            seen = [bool(found) for key in keys for found in (scope.lookup(key), scope.members(key))]
            return all(found is are_there for found in seen)

        await until(are_done)

    async def events(self) -> list[Event]:
        assert isinstance(self._handler, Recorder)
        return list(self._handler.events)

    async def call(self, function: str, *arguments: Term) -> Any:
        if function == "multi_call" and len(arguments) == 3:
            arguments = (*arguments[:2], arguments[2] / 1000)
        try:
            value = getattr(self.joined, function)(*arguments)
            if inspect.isawaitable(value):
                value = await value
        except (InvalidScope, InvalidRemoteScope) as error:
            return "error", error.reason
        except SynError as error:
            return ERROR, error.reason
        except RemoteExit as error:
            return "exit", error.reason
        return as_erlang(function, value)

    # -- processes

    async def spawn_idle(self) -> Pid:
        return self.node.start_inline(Idle())

    async def spawn(self) -> Pid:
        return self.node.spawn(self._serve)

    async def _serve(self, process: Process) -> None:
        messages = self._messages.setdefault(process.pid, [])
        while True:
            match await process.receive():
                case (Atom("end_with"), reason):
                    raise Exit(reason)
                case (Atom("syn_multi_call"), Atom("silence"), _, _):
                    pass
                case (Atom("syn_multi_call"), Atom("end"), _, _):
                    return
                case (Atom("syn_multi_call"), message, caller, meta):
                    multi_call_reply(process, caller, (message, meta))
                case message:
                    messages.append(message)

    async def end(self, pid: Pid, reason: Term) -> None:
        self.node.send(pid, (END, reason))
        await until(lambda: not self.node.is_alive(pid))

    async def kill(self, pid: Pid) -> None:
        self.node.exit(pid, KILL)

    async def is_alive(self, pid: Pid) -> bool:
        return self.node.is_alive(pid)

    async def messages(self, pid: Pid, count: int) -> list[Any]:
        await until(lambda: len(self._messages[pid]) >= count)
        return self._messages[pid]

    async def register_many(self, count: int) -> None:
        pids = [await self.spawn() for _ in range(10)]
        for number in range(1, count + 1):
            await self.joined.register((Atom("name"), number), pids[number % 10], number)

    async def join_many(self, count: int) -> None:
        pids = [await self.spawn() for _ in range(10)]
        for number in range(1, count + 1):
            await self.joined.join((Atom("group"), number), pids[number % 10], number)

    async def has_many(self, service: str, count: int) -> bool:
        scope, numbers = self.joined, range(1, count + 1)
        if service == "registry":
            return all((found := scope.lookup((Atom("name"), n))) and found.meta == n for n in numbers)
        return all([meta for _, meta in scope.members((Atom("group"), n))] == [n] for n in numbers)

    async def now(self) -> int:
        return time.time_ns()

    # -- connections

    async def connect(self, other: Member) -> None:
        await self.node.connect(other.name)

    async def disconnect(self, other: Member) -> None:
        await self.node.disconnect(other.name)

    async def is_connected(self, other: Member) -> bool:
        return self.node.is_connected(other.name)


def as_erlang(function: str, value: Any) -> Any:
    """What syn's function returns where ours returns ``value``."""
    if function in _COMMANDS:
        assert value is None
        return OK
    if value is None:
        return UNDEFINED
    match function:
        case "lookup" | "member":
            return tuple(value)
        case "update_registry" | "update_member":
            return OK, tuple(value)
        case "members" | "local_members":
            return list(map(tuple, value))
        case "publish" | "local_publish":
            return OK, value
        case "multi_call":
            return [(tuple(member), reply) for member, reply in value.replies], list(map(tuple, value.bad))
    return value


def mark(*arguments: Any) -> Any:
    """``fixture_syn_driver:mark/1,2``: of a pid, or none, and metadata."""
    return Atom("marked"), arguments[-1]


def refuse(*arguments: Any) -> Any:
    """``fixture_syn_driver:refuse/1,2``."""
    raise Exit((Atom("refused"), arguments[-1]))


@asynccontextmanager
async def joined_by_ours(
    opened: NodeOpener, scope: Atom, kind: str, discover_interval: float
) -> AsyncIterator[OurMember]:
    """A node of ours in the scope; ``kind`` as in :data:`KINDS`."""
    async with opened(visible=KINDS[kind]) as node:
        node.expose("fixture_syn_driver", {"mark": mark, "refuse": refuse})
        member = OurMember(node, scope, discover_interval)
        await member.enter_scope()
        yield member
        await member.leave_scope()
