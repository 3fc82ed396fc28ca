"""The node: composition root of the runtime.

It owns the nursery in which everything runs, the listener, the registration with EPMD and the timers, and it is where
processes start. What it does with other nodes is in ``node_connections.py``. Connections are ``distribution.py``'s,
signals the router's (``signals.py``).
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal

import trio

from ..errors import BadName, Exit, LocalProtocolError
from ..terms import Atom
from .access import AllowList, Cookies
from .addresses import Addresses, dist_port_of, split_name
from .atoms import NORMAL, SHUTDOWN
from .distribution import Distribution
from .dynamic_names import UNDEFINED
from .epmd import EpmdAddress
from .handshakes import MAX_HANDSHAKES
from .inline import InlineProcess, InlineServer, crash_reason
from .node_connections import NodeConnections
from .presence import Presence
from .process import Destination, LocalProcess, Process
from .signals import atom_of
from .timers import Timer, Timers
from .transport import Listener, Transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping

    from ..terms import Pid, Reference, Term
    from ..wire.channel import Limits
    from .addresses import AddressLike
    from .peer import Peer, Sending
    from .spawning import Exposed

log = logging.getLogger("erlang_interop.node")

#: The part of ``connect_timeout`` that EPMD may take. It answers in a millisecond, or is stuck, and then an error that
#: says so helps more than one about the handshake.
LOOK_UP_SHARE: Final = 0.75
#: Seconds that leaving the node waits for what its peers have not taken yet.
CLOSE_TIME: Final = 2.0
#: In place of an exit reason: no code has said any.
_CANCELLED: Final = object()


class _FlushAtEndOfPass(trio.abc.Instrument):
    """Offers every socket what was put for it in this pass of the loop, before the loop waits.

    The alternative, a writer task that is woken for each burst, costs a task switch where this costs a call.
    """

    def __init__(self, dirty: list[Peer]) -> None:
        self._dirty = dirty

    def before_io_wait(self, timeout: float) -> None:
        """Trio's hook: the pass is over."""
        if self._dirty:
            peers = self._dirty[:]
            self._dirty.clear()
            for peer in peers:
                peer.flush()


class Node(NodeConnections):
    """An Erlang node. Use ``open_node``; the arguments are documented there."""

    def __init__(
        self,
        name: str,
        cookie: str,
        *,
        visible: bool = False,
        net_ticktime: float = 60.0,
        net_tickintensity: int = 4,
        epmd_address: EpmdAddress | Literal[False] | None = None,
        embedded_epmd: bool = False,
        listen_host: str | None = None,
        listen_port: int | None = None,
        dist_port: int | None = None,
        allow: Collection[str] | None = None,
        connect_timeout: float = 7.0,
        cookies: Mapping[str, str] | None = None,
        max_handshakes: int = MAX_HANDSHAKES,
        name_from: str | None = None,
        transport: Transport | None = None,
        addresses: Addresses | Mapping[str, AddressLike] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.short_name, self.host = split_name(name)
        self.name = Atom(name)
        self._name_from = _namer(name, name_from, visible=visible)
        self._cookies = Cookies(cookie, cookies)
        self._allowed = AllowList(allow)
        self.visible = visible
        self.creation = 0
        epmd = EpmdAddress.from_environment(self.host) if epmd_address is None else epmd_address
        dist_port = dist_port_of(dist_port)
        self._listen_host = listen_host or self.host
        self._listen_port = (dist_port or 0) if listen_port is None else listen_port
        self._presence = Presence(
            self.short_name, self._listen_host, visible=visible, at=epmd, embedded=embedded_epmd, dist_port=dist_port
        )
        if not isinstance(addresses, Addresses):
            addresses = Addresses(
                epmd.port if epmd else None,
                fixed=addresses,
                dist_port=dist_port,
                patience=LOOK_UP_SHARE * connect_timeout,
            )
        self._dirty: list[Peer] = []
        self._transport = transport or Transport()
        self._distribution = Distribution(
            name,
            self._cookies,
            visible=visible,
            net_ticktime=net_ticktime,
            net_tickintensity=net_tickintensity,
            addresses=addresses,
            transport=self._transport,
            allowed=self._allowed,
            connect_timeout=connect_timeout,
            max_handshakes=max_handshakes,
            limits=limits,
            dirty=self._dirty,
        )
        self._router = self._distribution.router
        self._router.spawning.node = self
        self._timers = Timers()
        self._listener: Listener | None = None
        self._tasks: trio.Nursery | None = None
        self._pid: Pid | None = None
        self._cancelled = False

    def __repr__(self) -> str:
        return f"<Node {self.name.name} creation {self.creation}>"

    # -- its life

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen, register, and serve for as long as the block runs. Errors of the block come out as they are."""
        if self._tasks is not None:
            raise LocalProtocolError("a node runs once; make a new one")
        outcome: BaseException | None = None
        instrument = _FlushAtEndOfPass(self._dirty)
        trio.lowlevel.add_instrument(instrument)
        try:
            async with trio.open_nursery() as tasks:
                self._tasks = tasks
                await self._start(tasks)
                try:
                    yield
                except BaseException as error:  # handed on below, outside of the nursery, which would wrap it
                    outcome = error
                finally:
                    with trio.CancelScope(shield=True):
                        await self._stop()
                    tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            # What fails before the block is the caller's to handle by type; what fails later is a bug of ours.
            if self._pid is None and isinstance(group, ExceptionGroup):
                failure = _first(group)
                raise failure from failure.__cause__
            raise
        finally:
            trio.lowlevel.remove_instrument(instrument)
            if self._listener is not None:
                self._listener.close()
        if outcome is not None:
            raise outcome

    async def _start(self, tasks: trio.Nursery) -> None:
        tasks.start_soon(self._timers.run)
        if self._name_from is not None:
            await self._distribution.start_named_by(tasks, self._name_from)
            # Not an await from here to the block: who was connected finds the servers that start there.
            self.name = self._distribution.name
            self.short_name = split_name(self.name.name)[0]
            self.creation = self._distribution.creation
            self._pid = self._router.identifiers.kept_pid(self.name, self.creation)
            log.info("node %s has its name from %s, and does not listen", self.name.name, self._name_from)
            return
        self._listener = await self._transport.listen(self._listen_host, self._listen_port)
        self.creation = await self._presence.start(tasks, self._listener.port)
        self._distribution.start(tasks, self.creation)
        self._pid = self._router.identifiers.kept_pid(self.name, self.creation)
        tasks.start_soon(self._listener.serve, self._distribution.accept, tasks)
        log.info("node %s listens on %s", self.name.name, ", ".join(self._listener.addresses))

    async def _stop(self) -> None:
        """End the processes (their links and monitors fire as ``shutdown``), then the connections."""
        self._distribution.stopping = True  # who connects now is turned away; the port stays ours to the end
        for process in list(self._router.processes.values()):
            self._router.terminate(process, SHUTDOWN)
        await self._distribution.close(CLOSE_TIME)

    @property
    def stopping(self) -> bool:
        """Whether its end has begun, so that processes that end are no loss."""
        return self._cancelled or self._distribution.stopping

    # -- processes

    def spawn(
        self,
        fn: Callable[..., Awaitable[object]],
        *args: object,
        name: Atom | str | None = None,
        link_to: Pid | None = None,
        trap_exit: bool = False,
    ) -> Pid:
        """Start ``await fn(process, *args)`` as a process; it ends when ``fn`` does.

        Args:
            name: Registered before it runs.
            link_to: A process it is linked to from the start.
            trap_exit: Its flag from the start.

        Raises:
            NameAlreadyRegistered, BadName: the name cannot be had; nothing was started.
        """
        process = self._new_process(name, link_to)
        process.trap_exit = trap_exit
        self._nursery.start_soon(self._run, process, fn, args, name=f"{fn!r} as {process.pid}")
        return process.pid

    def _new_process(self, name: Atom | str | None, link_to: Pid | None) -> Process:
        process = Process(self, self._router, self._router.make_pid())
        self._enter(process, name, link_to)
        return process

    def _enter(self, process: LocalProcess, name: Atom | str | None, link_to: Pid | None) -> None:
        if self._distribution.stopping or self._tasks is None:
            raise LocalProtocolError(
                "the node does not run (any more); processes start inside `async with open_node(...)`"
            )
        self._router.add(process)
        if name is not None:
            try:
                self._router.register(name, process.pid)
            except BaseException:
                del self._router.processes[process.pid]
                raise
        if link_to is not None:
            self._router.link(process, link_to)

    async def _run(self, process: Process, fn: Callable[..., Awaitable[object]], args: tuple[object, ...]) -> None:
        """The wrapper of every spawned process: where an exception becomes an exit reason, and nowhere else."""
        reason: Any = _CANCELLED
        try:
            with process.scope:
                await fn(process, *args)
            reason = NORMAL
        except* Exit as group:
            reason = _first(group).reason  # type: ignore[attr-defined]
        except* Exception as group:
            error = _first(group)
            log.error("%r crashed; it ends", process, exc_info=error)
            reason = crash_reason(error)
        finally:
            if reason is _CANCELLED:  # the whole node is, but the task in its block has not been told yet
                self._cancelled = True
                reason = SHUTDOWN
            self._router.terminate(process, reason)

    def expose(
        self,
        module: Atom | str,
        functions: Mapping[str, Callable[..., object]],
        *,
        with_process: bool = False,
        thread: bool = False,
    ) -> None:
        """Let other nodes call these functions, and start processes here that run them; they can call no others.

        ``rpc:call(Node, Module, Function, Args)`` and ``erpc:call/4`` then return what ``functions[Function](*Args)``
        returns; ``docs/rpc.md`` says what becomes of exceptions. ``spawn(Node, Module, Function, Args)``, with
        ``spawn_link``, ``spawn_monitor``, ``spawn_opt`` and ``spawn_request``, and ``process.spawn_request`` in Python,
        run it as the code of a new process of this node; what it raises is then the exit reason. Anything that was not
        exposed, and a number of arguments that the function cannot take, is ``undef``, as on a BEAM.

        Args:
            module: The Erlang name of the module. Exposing more of a module adds to it.
            functions: Name in Erlang to function. An ordinary function runs to its end before anything else of the
                node does; an ``async`` one may wait.
            with_process: The function's first argument is the process, as with ``spawn``, to receive and send with.
            thread: Ordinary functions run in threads instead, so that one that computes or waits for long holds up
                nobody. They must not touch the node.

        Raises:
            BadName: a name is neither str nor Atom.
            TypeError: a value is not callable; or ``thread``, and it is ``async`` or to have its process.
        """
        named = {atom_of(name): fn for name, fn in functions.items()}
        self._router.spawning.expose(atom_of(module), named, with_process=with_process, thread=thread)

    def exposed(self, module: Term, function: Term, arguments: list[Any]) -> Exposed | None:
        """For ``otp/rex.py``: the function that :meth:`expose` has under this name, if it takes these arguments."""
        return self._router.spawning.exposed(module, function, arguments)

    def unexpose(self, module: Atom | str) -> None:
        """Take back all that was exposed as ``module``; processes that run go on. Raises BadName if nothing was."""
        self._router.spawning.unexpose(atom_of(module))

    def new_process_by_request(self) -> Process | None:
        """For ``spawning.py``: a process that has no code yet. None when the node stops."""
        if self._distribution.stopping or self._tasks is None:
            return None
        return self._new_process(None, None)

    def begin(self, process: Process, fn: Callable[..., Awaitable[object]], args: tuple[object, ...]) -> None:
        """For ``spawning.py``: the code of that process."""
        self._nursery.start_soon(self._run, process, fn, args, name=f"{fn!r} as {process.pid}")

    @asynccontextmanager
    async def open_process(self, name: Atom | str | None = None) -> AsyncIterator[Process]:
        """The running task is a process for as long as the block runs.

        Leaving the block ends the process as ``normal``; ``raise Exit(reason)`` inside it ends it with that reason and
        goes no further. An exit signal from elsewhere cancels the block and is raised from it as ``Exit(reason)``.
        """
        process = self._new_process(name, None)
        reason: Term = NORMAL
        try:
            with process.scope:
                yield process
        except Exit as exit_:
            reason = exit_.reason
        except BaseException as error:
            reason = SHUTDOWN if isinstance(error, trio.Cancelled) else crash_reason(error)
            raise
        finally:
            signalled = not process.alive
            self._router.terminate(process, reason)
        if signalled and process.scope.cancelled_caught:
            raise Exit(process.exit_reason)

    def start_inline(self, server: InlineServer, *, name: Atom | str | None = None, link_to: Pid | None = None) -> Pid:
        """Start an inline server: its ``started()`` has returned when this does.

        Raises:
            NameAlreadyRegistered, BadName: the name cannot be had.
            Exception: whatever ``started()`` raised; the process has ended then.
        """
        process = InlineProcess(self, self._router, self._router.make_pid(), server)
        server.process = process
        self._enter(process, name, link_to)
        try:
            self._router.run_started(process)
        except Exit as exit_:
            self._router.terminate(process, exit_.reason)
            raise
        except BaseException as error:
            self._router.terminate(process, crash_reason(error))
            raise
        return process.pid

    @property
    def _nursery(self) -> trio.Nursery:
        assert self._tasks is not None
        return self._tasks

    # -- what needs no process

    def send(self, dest: Destination, message: Term) -> Sending:
        """Send as nobody in particular; see ``Process.send``."""
        assert self._pid is not None
        return self._router.send(self._pid, dest, message)

    def exit(self, pid: Pid, reason: Term) -> None:
        """Send an exit signal as nobody in particular; see ``Process.exit``."""
        assert self._pid is not None
        self._router.exit(self._pid, pid, reason)

    def register(self, name: Atom | str, pid: Pid) -> None:
        """Give ``name`` to a process of this node. Raises NameAlreadyRegistered, BadName."""
        self._router.register(name, pid)

    def unregister(self, name: Atom | str) -> None:
        """Take a name back. Raises BadName if it is not registered."""
        self._router.unregister(name)

    def whereis(self, name: Atom | str) -> Pid | None:
        """The process registered under ``name`` on this node."""
        return self._router.whereis(name)

    def registered(self) -> list[Atom]:
        """All names registered on this node."""
        return list(self._router.names)

    @property
    def processes(self) -> Mapping[Pid, LocalProcess]:
        """The living processes of this node; a view, not a copy."""
        return MappingProxyType(self._router.processes)

    def is_alive(self, pid: Pid) -> bool:
        """Whether ``pid`` is a living process of this node."""
        return pid in self._router.processes

    def make_ref(self) -> Reference:
        """``make_ref/0``."""
        return self._router.make_ref()

    @property
    def default_group_leader(self) -> Pid | None:
        """The group leader of processes that are started from now on, unless who spawned them gives them its own."""
        return self._router.default_group_leader

    @default_group_leader.setter
    def default_group_leader(self, leader: Pid | None) -> None:
        self._router.default_group_leader = leader

    def statistics(self) -> dict[str, Any]:
        """Sizes of the node's tables; all of processes, links and monitors are zero when nothing is left behind."""
        return self._router.statistics()

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Call ``callback()`` on the loop in ``delay`` seconds; ``.cancel()`` on the result takes it back."""
        return self._timers.call_later(delay, callback)

    def start_task(self, async_fn: Callable[..., Awaitable[object]], *args: object) -> None:
        """Run ``async_fn(*args)`` for as long as the node lives: work in slices, and what belongs to no process."""
        self._nursery.start_soon(async_fn, *args)


def _namer(name: str, name_from: str | None, *, visible: bool) -> str | None:
    """Who is to give the node its name; None if it has one."""
    if split_name(name)[0] != UNDEFINED:
        if name_from is not None:
            raise BadName(f"name_from= is for a node without a name, undefined@host; this one is {name!r} already")
        return None
    if name_from is None:
        raise BadName(
            f"{name!r} is a node without a name: say with name_from='beam@host' which node gives it one, "
            f"or choose a name"
        )
    split_name(name_from)
    if visible:
        raise ValueError("a node that is given its name is always a hidden one: leave visible= out")
    return name_from


def _first(group: BaseExceptionGroup[Exception] | ExceptionGroup[Exception]) -> Exception:
    """The first exception in a group of groups."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Exception)
    return error
