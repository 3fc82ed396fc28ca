"""``global_name_server``: this node's part of ``global``, for ``open_node(..., visible="full")``.

It carries out what ``_global_core.py`` decides, answers calls, and starts the locker. Users have
``node.global_names``; what is here tells how this node stands with the others.

Source: kernel/src/global.erl of OTP 25 to 29 (``handle_call``, ``handle_info``, ``sync_other``, ``resolver``).
"""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING, Any, Final

import trio

from ..errors import BadName, CallError, ConnectError, EncodeError, NoProcess
from ..etf._parts import make_map
from ..runtime.atoms import DOWN, ERROR, NOPROC, OK, UNDEFINED
from ..runtime.inline import InlineServer
from ..terms import Atom, Pid, Reference
from . import _global_messages as messages
from . import gen, rpc
from ._global_core import GlobalCore
from ._global_locker import EXCHANGE_PATIENCE, LOCK_PATIENCE, Locker
from ._global_messages import GLOBAL, Call, Ignored, Malformed, Named, Whereis
from .passive import GLOBAL_NAME_SERVER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..terms import Term
    from ._global_core import Cancel, Candidate, Clash
    from ._global_locks import LockTable
    from ._global_messages import LockSet
    from .gen import From

log = logging.getLogger("erlang_interop.global")

#: Attempts to connect a node of which others have told, after the first one, and seconds before each. Soon over: the
#: names of its processes are dropped while it cannot be reached. Once it is given up, a connection is a new beginning.
DIAL_RETRIES: Final = 5
DIAL_PAUSE: Final = 0.02
#: Seconds, at most, after which a ``whereis`` is looked at again that came while names were exchanged.
WHEREIS_PAUSE: Final = 4.0
#: Seconds for which a node that was asked to disconnect is waited for.
DISCONNECT_PATIENCE: Final = 5.0
#: Problems that are remembered, to be logged once for each node.
MOST_REMEMBERED: Final = 1000

_INFO: Final = Atom("info")
_NODEDOWN: Final = Atom("nodedown")
_NODEUP: Final = Atom("nodeup")
_UNSUPPORTED: Final = (ERROR, Atom("unsupported"))
_YES: Final = Atom("yes")


class GlobalServer(InlineServer):
    """The process registered as ``global_name_server``. It is ``node.global_server``.

    The process may be another one after a while: when it ends it is started again (``kernel_sup.py``), and what it knew
    is kept here. The other nodes notice nothing; who waits for an answer of the old process gets its monitor's DOWN.

    Args:
        lock_patience: Seconds to wait for the locks of other nodes before the attempt is given up for a while.
        exchange_patience: Seconds after which an exchange of names that does not go on is begun again.
    """

    _core: GlobalCore

    def __init__(self, *, lock_patience: float = LOCK_PATIENCE, exchange_patience: float = EXCHANGE_PATIENCE) -> None:
        self._patience = {"lock_patience": lock_patience, "exchange_patience": exchange_patience}
        self._begun = False
        #: Who waits until nodes are in sync, and for which.
        self._syncs: dict[Callable[[], object], set[Atom]] = {}
        self._complained: set[tuple[Atom | None, str]] = set()

    # -- for this node

    @property
    def known(self) -> dict[Atom, int]:
        """The other nodes that take part, with the version of the protocol that each speaks; 0 if it is not known."""
        return dict(self._core.known)

    @property
    def names(self) -> Mapping[Any, Pid]:
        """All names, each with its process: a dict, or an ErlMap if Python would confuse two of them."""
        table: Mapping[Any, Pid] = make_map(
            [part for named in self._core.registry.all() for part in (named.name, named.pid)]
        )
        return table

    @property
    def locks(self) -> LockTable:
        """The locks that are held on this node."""
        return self._core.registry.locks

    @property
    def synced(self) -> list[Atom]:
        """The connected nodes with which there is nothing to exchange any more (``get_synced``)."""
        return list(self._core.synced)

    def whereis(self, name: Term) -> Pid | None:
        """``global:whereis_name/1``. Raises TypeError when ``name`` is no term."""
        return self._core.registry.whereis(name)

    def has_name(self, pid: Pid) -> bool:
        """Whether a process has any name; it is to have one at most."""
        return self._core.registry.has_name(pid)

    async def wait_synced(self) -> None:
        """``global:sync/0``: return when names were exchanged with all visible nodes that are connected now.

        A node that is lost meanwhile is not waited for.

        Raises:
            NoProcess: the name server has ended: the node was closed.
        """
        asked = None
        while self.process.alive and self.process is not asked:  # another one took its place: ask that
            asked = self.process
            done = trio.Event()
            self._sync(self.node.nodes("visible"), done.set)
            try:
                await done.wait()
            finally:
                self._syncs.pop(done.set, None)
        if not self.process.alive:
            raise NoProcess(NOPROC, "the name server of this node has ended: the node was closed")

    async def disconnect(self) -> list[Atom]:
        """``global:disconnect/0``: leave the cluster, without the others losing each other over it.

        Returns:
            The nodes that were disconnected: all visible ones.
        """
        nodes = self.node.nodes("visible")
        for node in nodes:
            self._core.leave(node)
        async with trio.open_nursery() as nursery:
            for node in nodes:
                nursery.start_soon(self.node.disconnect, node)
        return nodes

    # -- the process

    def started(self) -> None:
        """Start the locker, and begin with each node that connects; or go on where the last process ended."""
        locker = self.node.spawn(Locker(self, **self._patience).run, link_to=self.process.pid)
        self._locker_pid = locker
        self.process.monitor_nodes(node_type="visible")
        if self._begun:
            self._core.take_over(locker)
        else:
            self._begun = True
            self._core = GlobalCore(self.node.name, self.node.creation, locker, self)

    def handle_message(self, message: Term) -> None:
        """What other nodes say, and what becomes of them and of processes."""
        match message:
            case (Atom() as what, Atom() as node, _info) if what == _NODEUP:
                self._core.nodeup(node)
            case (Atom() as what, Atom() as node, _info) if what == _NODEDOWN:
                self._core.nodedown(node)
                self._lost(node)
            case (Atom() as what, Atom() as node) if what == _NODEDOWN:  # of a node that is waited for
                self._lost(node)
            case (Atom() as what, Reference() as ref, _kind, Pid() as pid, _reason) if what == DOWN:
                self._core.registry.down(pid, ref)
            case _:
                try:
                    self._told(message)
                except Malformed as problem:
                    self._complain(str(problem), message)
        self._tell_who_waits()

    def terminated(self, reason: Term) -> None:
        """Nobody waits any more for this process."""
        for done in list(self._syncs):
            self._syncs[done] = set()
        self._tell_who_waits()

    def _told(self, message: Term) -> None:
        said = messages.parse(message)
        match said:
            case Call(from_, request):
                self._called(from_, request)
            case Whereis(name, from_):
                if self.is_locked():
                    self.process.send_after(random.uniform(0, WHEREIS_PAUSE), GLOBAL_NAME_SERVER, message)
                else:
                    gen.reply(self.process, from_, self.whereis(name) or UNDEFINED)
            case Ignored():
                pass
            case _:
                node = said.locker.node if isinstance(said, messages.LockSet) else said.node
                sender = self.sender
                spoke = sender.node if type(sender) is Pid else sender
                if spoke != node and not isinstance(said, messages.LostConnection):
                    raise Malformed(f"it is said to come from {node.name}")
                self._core.handle(said)

    def _called(self, from_: From, request: Any) -> None:
        answer: Term
        try:
            answer = self._answer_to(from_, request)
        except (Malformed, TypeError) as problem:  # TypeError: something in it is no term
            self._complain(str(problem), request)
            answer = _UNSUPPORTED
        if answer is not None:
            gen.reply(self.process, from_, answer)

    def _answer_to(self, from_: From, request: Any) -> Term:
        """The answer to a call; None: it comes later."""
        registry = self._core.registry
        match request:
            case (Atom("set_lock"), (resource, requester)):
                return registry.locks.set_lock(resource, requester, from_[0])
            case (Atom("del_lock"), (resource, requester)):
                registry.del_lock(resource, requester, from_[0])
                return True
            case (Atom("register"), name, Pid() as pid, method):
                registry.register(Named(name, pid, method), None, from_[0])
                return _YES
            case (Atom("register_ext"), name, Pid() as pid, method, Atom() as node):
                registry.register(Named(name, pid, method), node, from_[0])
                return _YES
            case (Atom("unregister"), name):
                registry.delete(name)
                return OK
            case (Atom("sync"), list() as nodes) if all(type(node) is Atom for node in nodes):
                self._sync(nodes, lambda: self.process.alive and gen.reply(self.process, from_, OK))
                return None
            case Atom("get_known"):
                return list(self._core.known)
            case Atom("get_synced"):
                return list(self._core.synced)
            case Atom("get_protocol_version"):
                return messages.VERSION
            case Atom("get_names_ext"):
                return messages.external_term(registry.external())
            case Atom("info"):
                return [(GLOBAL_NAME_SERVER, self.node.name), (Atom("known"), dict(self._core.known))]
        raise Malformed("not a call that global knows")

    def _complain(self, problem: str, message: Term) -> None:
        """One line for each problem with each node."""
        sender = self.sender
        key = (sender.node if type(sender) is Pid else sender, problem)
        if key not in self._complained and len(self._complained) < MOST_REMEMBERED:
            self._complained.add(key)
            log.warning("global ignores a message from %s (%s): %s", sender, problem, gen.shown_term(message))

    # -- who waits for nodes

    def _sync(self, nodes: list[Atom], done: Callable[[], object]) -> None:
        """Call ``done`` when all of them are in sync or lost. Those that are not connected are dialled."""
        waiting = set(nodes) - {self.node.name} - self._core.synced
        self._syncs[done] = waiting
        for node in waiting:
            if not self.node.is_connected(node):
                self.process.monitor_node(node)
        self._tell_who_waits()

    def _lost(self, node: Atom) -> None:
        for waiting in self._syncs.values():
            waiting.discard(node)

    def _tell_who_waits(self) -> None:
        for done, waiting in list(self._syncs.items()):
            waiting -= self._core.synced
            if not waiting:
                del self._syncs[done]
                done()

    # -- GlobalPort

    def send(self, node: Atom, message: Term) -> None:
        """See GlobalPort."""
        if self.node.is_connected(node):
            try:
                self.process.send((GLOBAL_NAME_SERVER, node), message)
            except EncodeError as error:  # a name of a newer node, say, and this one is older
                self.warn(f"{node.name} cannot be told of all names: {error}")

    def cast(self, node: Atom, message: Term) -> None:
        """See GlobalPort."""
        self.send(node, (gen.GEN_CAST, message))

    def tell_locker(self, message: Candidate | Cancel | LockSet) -> None:
        """See GlobalPort."""
        self.process.send(self._locker_pid, message)

    def monitor(self, pid: Pid) -> Reference:
        """See GlobalPort."""
        return self.process.monitor(pid)

    def demonitor(self, ref: Reference) -> None:
        """See GlobalPort; a DOWN that is on its way finds no row."""
        self.process.demonitor(ref)

    def is_alive(self, pid: Pid) -> bool:
        """See GlobalPort."""
        return self.node.is_alive(pid)

    def now(self) -> float:
        """See GlobalPort."""
        return trio.current_time()

    def warn(self, problem: str) -> None:
        """See GlobalPort."""
        log.warning("global: %s", problem)

    def disconnect_from(self, node: Atom) -> None:
        """See GlobalPort."""
        self.node.start_task(self.node.disconnect, node)

    def reconnect(self, node: Atom) -> None:
        """See GlobalPort."""
        self.node.start_task(self._reconnect, node)

    async def _reconnect(self, node: Atom) -> None:
        lost = trio.Event()
        if self.node.is_connected(node):
            self._syncs[lost.set] = {node}
            with trio.move_on_after(DISCONNECT_PATIENCE):
                await lost.wait()
            self._syncs.pop(lost.set, None)
            await self.node.disconnect(node)
        try:
            await self.node.connect(node)
        except (ConnectError, BadName) as error:
            self.warn(f"cannot connect to {node.name} again: {error}")

    def dial(self, node: Atom) -> None:
        """See GlobalPort."""
        self.node.start_task(self._dial, node)

    async def _dial(self, node: Atom) -> None:
        for attempt in range(DIAL_RETRIES + 1):
            if attempt:
                await trio.sleep(DIAL_PAUSE)
            if node not in self._core.known:
                return  # others have let go of it meanwhile
            try:
                await self.node.connect(node)
            except (ConnectError, BadName) as error:
                log.info("cannot connect to %s: %s", node.name, error)
            if self.node.is_connected(node):  # it may have dialled as well
                self.cast(node, messages.in_sync(self.node.name))
                return
        if self.process.alive:
            self._core.unreachable(node)
            self._lost(node)
            self._tell_who_waits()

    def resolve(self, clashes: list[Clash], done: Callable[[list[Term]], None]) -> Callable[[], object]:
        """See GlobalPort."""
        scope = trio.CancelScope()
        self.node.start_task(self._resolve, clashes, done, scope)
        return scope.cancel

    async def _resolve(self, clashes: list[Clash], done: Callable[[list[Term]], None], scope: trio.CancelScope) -> None:
        answers: list[Term] = []
        with scope:
            for theirs, ours in clashes:
                asked: list[Term] = [ours.method, ours.name, theirs.pid, ours.pid]
                try:
                    answer = await rpc.call(self.node, ours.pid.node, GLOBAL, "resolve_it", asked, None)
                except CallError as error:
                    log.warning("global: nobody decides who keeps the name %s: %s", gen.shown_term(ours.name), error)
                    answer = None
                answers.append(answer)
            await trio.lowlevel.checkpoint_if_cancelled()
            done(answers)
            self._tell_who_waits()

    # -- LockerPort

    def may_lock(self, requester: Term) -> bool:
        """See LockerPort."""
        lock = self.locks.get(GLOBAL)
        return lock is None or lock.requester == requester

    def is_locked(self) -> bool:
        """See LockerPort."""
        return self.locks.get(GLOBAL) is not None

    def locked(self, node: Atom, tag: int, requester: list[Pid]) -> None:
        """See LockerPort."""
        self._core.locked(node, tag, requester)
        self._tell_who_waits()

    def timed_out(self, node: Atom, tag: int) -> None:
        """See LockerPort."""
        self._core.timed_out(node, tag)
