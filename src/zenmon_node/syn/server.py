"""The process of one half of a scope, ``syn_registry_S`` or ``syn_pg_S``: carries out what its core decides.

It handles one thing at a time, and each to its end: a message, a request of this node, the end of processes. What is
long (``scope.Work``) goes in slices, and what comes meanwhile waits behind it, as in the mailbox of a genuine scope
process.

Requests to other nodes are made by this process, not by those who ask: the answer is applied when it arrives, in the
order of the wire, and also when whoever asked has given up, for the authority has told everybody but us.

The tables outlive the process. When it has ended and was started again, it forgets what others had told, watches its
own processes again, and looks for the other members; they have seen its end, and sync.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import trio

from erlang_interop.errors import CalleeExited, CallError, CallTimeout, EncodeError, NodeDownError, NoProcess
from erlang_interop.otp import gen
from erlang_interop.runtime import SENT, InlineServer
from erlang_interop.terms import Atom, ImproperList, Pid, Reference

from ..complaints import Complaints
from ..counters import Counters
from ..pacing import SLICE
from . import messages as m
from .port import ScopePort
from .scope import Engine

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from erlang_interop import Node
    from erlang_interop.runtime import Timer
    from erlang_interop.terms import Term

    from .port import Tell
    from .scope import Port, Service, Work

#: Seconds between two looks for members on connected nodes that have none yet.
DISCOVER_INTERVAL: Final = 1.0

_NODEUP: Final = Atom("nodeup")
_NODEDOWN: Final = Atom("nodedown")
_DOWN: Final = Atom("DOWN")
_NOPROC: Final = Atom("noproc")
_TIMEOUT: Final = Atom("timeout")
_BAD_REPLY: Final = Atom("bad_reply")
_CRASHED: Final = Atom("crashed")


class _Note(enum.Enum):
    """What the process tells itself; no peer can forge it, for it is no term."""

    REBUILD = enum.auto()
    START = enum.auto()
    DEATHS = enum.auto()
    LOOK = enum.auto()


@dataclass(slots=True, eq=False)
class _Resume:
    """Work that was under way goes on."""

    work: Work
    message: Any
    """What it is over, and who sent that."""
    sender: Pid | Atom | None
    value: Any = None
    error: Exception | None = None


@dataclass(slots=True, eq=False)
class _Ask:
    """A request of this node for a process of its own."""

    request: Term
    waiter: _Waiter


class _Waiter:
    """Whoever waits for an answer."""

    __slots__ = ("done", "error", "event", "value")

    def __init__(self) -> None:
        self.done = False
        self.value: Any = None
        self.error: Exception | None = None
        self.event: trio.Event | None = None

    def set(self, value: Term = None, error: Exception | None = None) -> None:
        """The answer, or what is to be raised."""
        self.done, self.value, self.error = True, value, error
        if self.event is not None:
            self.event.set()

    def __enter__(self) -> None:
        """While its answer is made: if that fails, whoever waits is told."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, m.Malformed):
            self.set(error=CallError((_BAD_REPLY, str(error)), f"the answer is {error}"))
        elif error is not None:
            self.set(error=CalleeExited(_CRASHED, f"this node's scope process has ended over it: {error!r}"))

    async def wait(self) -> None:
        """Return when it is there."""
        self.event = trio.Event()
        await self.event.wait()


#: A message, or one of the above; and who sent it.
_Item: TypeAlias = "tuple[Any, Pid | Atom | None]"


class ScopeServer(InlineServer):
    """One half of a scope on one node. Started by ``node.start_inline(server, name=server.name)``, again when it ends.

    Args:
        node: The node.
        scope: The scope's name.
        words: Which half it is: ``messages.REGISTRY`` or ``messages.PG``.
        make: Makes its service.
        tell: The event handler. It is called at once, and must not raise.
        discover_interval: Seconds between two looks for members on connected nodes that have none yet.

    Attributes:
        name: Its name on every node.
        service: What ``make`` made.
        complaints: What is said of malformed messages.
    """

    _engine: Engine

    def __init__(
        self,
        node: Node,
        scope: Atom,
        words: m.Words,
        make: Callable[[Port], Service],
        tell: Tell,
        discover_interval: float = DISCOVER_INTERVAL,
    ) -> None:
        self.scope: Final = scope
        self.name: Final = words.process(scope)
        self.counters: Final = Counters()
        self.complaints: Final = Complaints(self.name.name, self.counters)
        self._port: Final = ScopePort(node, scope, self.name, tell)
        self.service: Final = make(self._port)
        self._interval: Final = discover_interval
        self._home: Final = node
        self._timer: Timer | None = None
        self._begun = False
        self._work: Work | None = None
        self._awaiting: trio.CancelScope | None = None
        self._items: deque[_Item] = deque()
        self._pending: dict[Reference, tuple[Atom, Term, _Waiter]] = {}
        #: Whoever waits until nobody is silent.
        self._heard: Final = trio.lowlevel.ParkingLot()

    # -- what the program of this node asks

    def subcluster_nodes(self) -> list[Atom]:
        """The nodes of the other members."""
        return list(self._engine.peers)

    @property
    def running(self) -> bool:
        """Whether there is a process; between a crash and the next start there is none for a moment."""
        return self._begun and self.process.alive

    async def wait_synced(self) -> None:
        """Return when all members on connected nodes have told what they have.

        Raises:
            NoProcess: this one has been stopped.
        """
        await trio.lowlevel.checkpoint()
        while self.silent():
            await self._heard.park()

    def silent(self) -> set[Atom]:
        """Of whom :meth:`wait_synced` waits to hear. Raises NoProcess: this one has been stopped."""
        self._require_running()
        return self._engine.silent

    def _require_running(self) -> None:
        if not self.running:
            raise NoProcess(_NOPROC, f"{self.name.name} of {self._home.name.name} has ended: open the scope again")

    async def request(self, node: Atom, request: Term, timeout: float | None = gen.DEFAULT_TIMEOUT) -> Term:
        """Ask the member on ``node``, which may be this one, and apply its answer.

        Args:
            node: The node of the process that it is about.
            request: One of the requests of ``messages.py``.
            timeout: Seconds; None waits for ever. An answer that comes later is applied nevertheless.

        Returns:
            The reply.

        Raises:
            NoProcess: there is no such member; or this one has been stopped.
            CallTimeout: no answer in time.
            NodeDownError: the connection was lost, or could not be made.
            CalleeExited: that member, or this one, has ended meanwhile.
            CallError: the answer is none that syn knows; nothing was changed.
            EncodeError: the request cannot be sent to that node.
        """
        self._require_running()
        waiter = _Waiter()
        if node == self._home.name:
            self.process.send(self.process.pid, _Ask(request, waiter))
        else:
            ref = gen.send_request(self.process, (self.name, node), request)
            self._pending[ref] = node, request, waiter
        if waiter.done:
            await self._be_fair()
        else:
            with trio.move_on_after(math.inf if timeout is None else timeout):
                await waiter.wait()
        if not waiter.done:
            raise CallTimeout(
                _TIMEOUT,
                f"{self.name.name} on {node.name} did not answer within {timeout} s; if it does, its answer is "
                f"applied all the same",
            )
        if waiter.error is not None:
            raise waiter.error
        return waiter.value

    async def _be_fair(self) -> None:
        """Let others have their turn now and then, and wait for a node that takes no more."""
        await SENT
        for sending in list(self._port.sendings.values()):
            await sending

    # -- InlineServer

    def started(self) -> None:
        """Forget what others had told, if there was a process before this one; then look for them."""
        self._work = None  # of a process that has ended while it was at it
        self._engine = Engine(self.process.pid, self.scope, self._port, self.service)
        self._port.attach(self.process, self._engine, lambda: self.process.send(self.process.pid, _Note.DEATHS))
        self.process.monitor_nodes(node_type="all")
        again, self._begun = self._begun, True
        if again:
            self._begin(_Note.REBUILD, None)
        else:
            self._begin(_Note.START, None)

    def handle_message(self, message: Term) -> None:
        """Now, or behind the work under way."""
        if self._work is None:
            self._begin(message, self.sender)
        elif type(message) is _Resume and message.work is self._work:
            self._work = None
            self._go_on(message)
        else:
            self._items.append((message, self.sender))
        while self._items and self._work is None:
            self._begin(*self._items.popleft())
        if self._heard and not self._engine.silent:
            self._heard.unpark_all()

    def terminated(self, reason: Term) -> None:
        """Whoever waits is told. What was under way is not finished: what others had told goes, and comes anew."""
        if self._timer is not None:
            self._timer.cancel()
        if self._awaiting is not None:
            self._awaiting.cancel()
        if self._work is not None:
            self._work.close()
        waiters = [waiter for _, _, waiter in self._pending.values()]
        waiters += [item.waiter for item, _ in self._items if type(item) is _Ask]
        self._items.clear()
        self._pending.clear()
        self._heard.unpark_all()
        for waiter in waiters:
            waiter.set(error=CalleeExited(reason, f"{self.name.name} of this node ended: {gen.shown_term(reason)}"))

    # -- one thing at a time

    def _begin(self, message: Any, sender: Pid | Atom | None) -> None:
        try:
            work = self._step(message, sender)
        except m.Malformed as problem:
            self.complaints.add(str(problem), sender, message)
            return
        if work is not None:
            self._go_on(_Resume(work, message, sender))

    def _go_on(self, resume: _Resume) -> None:
        """Do one slice of work."""
        work = resume.work
        try:
            stop = work.send(resume.value) if resume.error is None else work.throw(resume.error)
        except StopIteration:
            return
        except m.Malformed as problem:
            self.complaints.add(str(problem), resume.sender, resume.message)
            return
        self._work = work
        resume.value = resume.error = None
        if stop is None:
            self.process.send_after(0.0, self.process.pid, resume)
        else:
            self.node.start_task(self._wait_for, self.process.pid, resume, stop)

    async def _wait_for(self, me: Pid, resume: _Resume, awaited: Awaitable[Any]) -> None:
        with trio.CancelScope() as self._awaiting:
            try:
                resume.value = await awaited
            except Exception as error:
                resume.error = error
        self._awaiting = None
        self._home.send(me, resume)  # if it is still there

    def _step(self, message: Any, sender: Pid | Atom | None) -> Work | None:
        """Take one message. Raises Malformed."""
        if type(message) is tuple and message and message[0] == m.TAG:
            return self._engine.handle(message)  # most are, and are not to be compared with all that others may be
        match message:
            case _Note():
                return self._note(message)
            case _Ask(request, waiter):
                with waiter:
                    waiter.set(self.service.requested(request))
                return None
            case _Resume():
                return None  # of work that ended with the process before this one
            case (ImproperList() as tag, _reply) if tag.tail in self._pending:
                return self._answered(tag.tail, message)
            case (ImproperList(tail=Reference() as ref), _reply) if self._engine.answered(ref):
                self.process.demonitor(ref)
                return None
            case (Atom() as what, Reference() as ref, _kind, object_, _reason) if what == _DOWN:
                return self._answered(ref, message) if ref in self._pending else self._down(ref, object_)
            case (Atom() as what, Atom() as node, _info) if what == _NODEUP:
                self._engine.discover(node)
                return None
            case (Atom() as what, Atom() as node, _info) if what == _NODEDOWN:
                self._port.sendings.pop(node, None)
                return self._engine.node_down(node)
            case (Atom() as what, from_, request) if what == gen.GEN_CALL and gen.is_from(from_):
                self._reply(from_, request, sender)
                return None
        return self._engine.handle(message)

    def _note(self, note: _Note) -> Work | None:
        if note is _Note.DEATHS:
            return self._bury()
        if note is _Note.REBUILD:
            return self._rebuild()
        connected = self.node.nodes("connected")
        if note is _Note.START:
            self._engine.begin(connected)
        else:
            self._engine.look(connected)
        self._timer = self.process.send_after(self._interval, self.process.pid, _Note.LOOK)
        return None

    def _rebuild(self) -> Work:
        work = self.service.rebuilt()
        if work is not None:
            yield from work
        self._note(_Note.START)

    def _bury(self) -> Work:
        for done, (pid, reason) in enumerate(self._port.take_deaths(), start=1):
            work = self.service.ended(pid, reason)
            if work is not None:
                yield from work
            if done % SLICE == 0:
                yield None

    def _down(self, ref: Reference, watched: Term) -> Work | None:
        match watched:
            case Pid(node=node) | (_, Atom() as node):
                return self._engine.down(ref, node)
        raise m.Malformed("a DOWN of what was never monitored")

    def _reply(self, from_: gen.From, request: Term, sender: Pid | Atom | None) -> None:
        """Answer a request of another node's process."""
        reply: Term = list(self._engine.peers) if request == m.SUBCLUSTER_NODES else self.service.requested(request)
        if reply == m.UNDEFINED:
            self.complaints.add("not a request that syn knows", sender, request)
        if from_[0].node == self.node.name or self.node.is_connected(from_[0].node):
            try:
                gen.reply(self.process, from_, reply)
            except EncodeError as error:
                self.complaints.add(f"its answer cannot be sent: {error}", sender, request)

    def _answered(self, ref: Reference, message: Term) -> Work | None:
        """The member of another node has answered a request of ours, or never will."""
        node, request, waiter = self._pending.pop(ref)
        self.process.demonitor(ref)  # still there if the answer came to the pid and not to the alias
        try:
            reply = gen.result(message, (self.name, node))
        except CallError as error:
            if isinstance(error, NodeDownError):
                error.__cause__ = self.node.last_failure(node)
            waiter.set(error=error)
            return None
        with waiter:
            work = self.service.answered(request, reply)
            if work is None:
                waiter.set(reply)
                return None
        return _then_set(work, waiter, reply)


def _then_set(work: Work, waiter: _Waiter, reply: Term) -> Work:
    with waiter:
        yield from work
        waiter.set(reply)
