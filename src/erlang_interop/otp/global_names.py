"""``node.global_names``: the names and locks of ``global``, which all nodes of a cluster share.

.. code-block:: text

    this node is         names                                            locks
    hidden, "passive"    a BEAM does it, by rpc: it locks the cluster,    asked of the name servers of the BEAMs by this
                         tells all, and is linked to our process          node itself, for one of its processes
    "full"               its own name server, and those of the others     the same

A BEAM that was asked by rpc to set a lock would not keep it: the process that runs the call holds it, and ends.

Source: kernel manual, ``global``; kernel/src/global.erl of OTP 25 to 29.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ..errors import (
    BadRpc,
    GlobalError,
    GlobalNameTaken,
    NoProcess,
    NoVisibleNode,
    TransactionAborted,
)
from ..runtime.atoms import EXIT, NOPROC, OK, UNDEF
from ..runtime.signals import atom_of
from ..terms import Atom, Pid
from . import gen
from ._global_calls import Holder, LockId, back_off, del_lock, set_lock
from ._global_held import Held
from ._global_messages import GLOBAL
from ._global_registrar import Registrar
from ._global_resolving import Resolving
from ._global_serving import Serving
from .exact import carried
from .gen import shown_term
from .passive import GLOBAL_NAME_SERVER

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from ..terms import Term
    from .node import Node

_GET_KNOWN: Final = Atom("get_known")
_YES: Final = Atom("yes")


class GlobalNames:
    """Names and locks of the whole cluster. Use ``node.global_names``.

    A name is any term; a ``str`` is the atom, as with the names of processes: ``"printer"`` is Erlang's ``printer``.

    A node that takes no part in ``global`` itself, hidden or ``visible="passive"``, has a BEAM do it: one that is
    connected and visible, always the same while it is, or ``through``, which is dialled if it is not connected. A node
    that is ``visible="full"`` does it itself, unless ``through`` is given.

    Nothing here has a timeout, as in Erlang: the cluster answers, or a node that does not is given up by ticks. Where
    that is too long, ``trio.fail_after`` ends the wait. A BEAM that was asked goes on then: the name may be registered.

    All methods that ask a BEAM raise

    - NoVisibleNode: none is connected that takes part in ``global``, and no ``through`` was given;
    - NodeDownError: the connection to it was lost, or ``through`` could not be connected; whether it was done is open;
    - BadRpc: it failed there;
    - EncodeError: a name or lock that no external term can carry.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._resolving: Resolving | None = None
        self._holder: Holder | None = None
        self._held: Held | None = None
        server = node.global_server
        self._registrar = None if server is None else Registrar(node, server, self._own_holder)
        self._last: Atom | None = None

    def serve(self) -> None:
        """For ``open_node``: answer the others what they ask of a node that takes part."""
        assert self._registrar is not None
        self._resolving = Resolving(self._node)
        Serving(self._node, self._registrar)

    # -- names

    async def register(
        self,
        name: Term,
        pid: Pid,
        resolve: str | Callable[[Term, Pid, Pid], object] = "random_exit_name",
        *,
        through: Atom | str | None = None,
    ) -> None:
        """``global:register_name/3``: give a process a name on all nodes. When it ends, or its node, the name is free.

        From a node that is not ``"full"`` the BEAM that registers a process of this node is linked to it
        (``global:register_name_external/3``): when the connection to that BEAM is lost, the process gets an exit signal
        ``noconnection``. Every BEAM that is lost drops the name for itself, and has to be told again when it is back; a
        warning says so (docs/global.md, "Names of hidden and passive nodes").

        Args:
            name: Any term; a ``str`` is an atom.
            pid: The process, of this node or another one.
            resolve: Who keeps the name when two parts of a cluster join and each has it: ``"random_exit_name"`` (one
                is killed), ``"random_notify_name"`` (one gets ``{global_name_conflict, Name}``), ``"notify_all_name"``
                (nobody; both get ``{global_name_conflict, Name, OtherPid}``), or for a process of this node a function
                of the name and the two pids, async or not, that returns one of them, or None for nobody. It is exposed
                to ``rpc`` (``node.expose``) by its module and name.
            through: See the class.

        Raises:
            GlobalNameTaken: a process has that name; or, if not registered through a BEAM or not a process of this
                node, the process has another name.
            NoProcess: ``pid`` is of this node, and has ended.
            TypeError: ``pid`` is no pid.
            ValueError: there is no such ``resolve``.
        """
        name, method = self._checked(name, pid, resolve)
        registrar = self._registrar_unless(through)
        external = registrar is None and pid.node == self._node.name
        if registrar is not None:
            registered = await registrar.register(name, pid, method)
        elif external:
            registered = await self._register_external(through, name, [name, pid, method])
        else:
            registered = await self._ask(through, "register_name", [name, pid, method]) == _YES
        if not registered:
            raise GlobalNameTaken(
                f"{pid} cannot be {shown_term(name)}: a process has that name already"
                + ("" if external else ", or it has another name"),
                name,
            )
        if registrar is None:
            self._remember(name, pid)

    async def _register_external(self, through: Atom | str | None, name: Term, arguments: list[Term]) -> bool:
        """False: a process has the name.

        A process of a former life of this node has it no more. The BEAM is about to learn that: it may have registered
        it while the connection to that life was being lost, and has asked for it over the new one.
        """
        attempts = 0
        while await self._ask(through, "register_name_external", arguments) != _YES:
            holder = await self.whereis(name, through=through)
            if holder is not None and (holder.node != self._node.name or holder.creation == self._node.creation):
                return False
            attempts += 1
            await back_off(attempts)
        return True

    async def re_register(
        self,
        name: Term,
        pid: Pid,
        resolve: str | Callable[[Term, Pid, Pid], object] = "random_exit_name",
        *,
        through: Atom | str | None = None,
    ) -> None:
        """``global:re_register_name/3``: as :meth:`register`, and who has the name loses it. No BEAM is linked then.

        Raises:
            NoProcess, TypeError, ValueError: as :meth:`register`.
        """
        name, method = self._checked(name, pid, resolve)
        registrar = self._registrar_unless(through)
        if registrar is not None:
            await registrar.re_register(name, pid, method)
        else:
            await self._ask(through, "re_register_name", [name, pid, method])
            self._remember(name, pid)

    async def unregister(self, name: Term, *, through: Atom | str | None = None) -> None:
        """``global:unregister_name/1``: the name is free again; nothing, if nobody has it."""
        name = _as_name(name)
        registrar = self._registrar_unless(through)
        if registrar is not None:
            await registrar.unregister(name)
        else:
            await self._ask(through, "unregister_name", [name])
            self._remember(name, None)

    async def whereis(self, name: Term, *, through: Atom | str | None = None) -> Pid | None:
        """``global:whereis_name/1``: who has the name."""
        name = _as_name(name)
        registrar = self._registrar_unless(through)
        if registrar is not None:
            return registrar.server.whereis(name)
        found = await self._ask(through, "whereis_name", [name])
        return found if type(found) is Pid else None

    async def registered_names(self, *, through: Atom | str | None = None) -> list[Term]:
        """``global:registered_names/0``: all names, in no particular order."""
        registrar = self._registrar_unless(through)
        if registrar is not None:
            return list(registrar.server.names)
        names = await self._ask(through, "registered_names", [])
        assert type(names) is list
        return names

    async def send(self, name: Term, message: Term, *, through: Atom | str | None = None) -> Pid:
        """``global:send/2``: send a message to who has the name.

        Returns:
            Who that is.

        Raises:
            NoProcess: nobody has it.
        """
        pid = await self.whereis(name, through=through)
        if pid is None:
            raise NoProcess(NOPROC, f"nobody has the global name {shown_term(_as_name(name))}: nothing was sent")
        await self._node.send(pid, message)
        return pid

    async def sync(self, *, through: Atom | str | None = None) -> None:
        """``global:sync/0``: return when all nodes that are connected have agreed on the names.

        Raises:
            GlobalError: a BEAM's global groups are defined wrongly.
        """
        registrar = self._registrar_unless(through)
        if registrar is not None:
            await registrar.server.wait_synced()
            return
        answer = await self._ask(through, "sync", [])
        if answer != OK:
            raise GlobalError(f"global:sync() gave {shown_term(answer)}")

    # -- locks

    async def set_lock(
        self,
        lock: LockId,
        nodes: Iterable[Atom | str] | None = None,
        retries: int | None = None,
        *,
        through: Atom | str | None = None,
    ) -> bool:
        """``global:set_lock/3``: keep everybody else out of something that all have agreed on a name for.

        Args:
            lock: ``(resource, requester)``, any two terms; a ``str`` is an atom. The same requester is let in again.
                Where the requester is the pid of a process of this node, that process holds the lock: its end frees it.
                Otherwise the node does, until it ends or :meth:`del_lock` is called.
            nodes: Where the lock is set; all who compete must have one of these in common. None: all that take part.
                Those that are not connected are dialled.
            retries: Attempts after the first one, after random times of 0.25 to 8 seconds at most; None: until it is
                set.
            through: The node that is asked for ``nodes``; see the class.

        Returns:
            Whether it is set; if not, it is set nowhere. A cancellation leaves it nowhere too.

        Raises:
            NoProcess: the requester is a process of this node, and has ended.
            ValueError: ``lock`` is no pair, or ``retries`` is below 0.
        """
        lock = _as_lock(lock)
        if retries is not None and retries < 0:
            raise ValueError(f"retries is a number of attempts or None, not {retries!r}")
        holder = self._holder_of(lock)
        if holder is None:
            raise NoProcess(NOPROC, f"{lock[1]} has ended, and can hold no lock")
        return await set_lock(self._node, lock, await self._nodes_for_locks(nodes, through), retries, holder)

    async def del_lock(
        self, lock: LockId, nodes: Iterable[Atom | str] | None = None, *, through: Atom | str | None = None
    ) -> None:
        """``global:del_lock/2``: free a lock that :meth:`set_lock` has set. Nothing, if it is not held by this node.

        Args:
            lock: As given to :meth:`set_lock`.
            nodes: As well.
            through: As well.

        Raises:
            ValueError: ``lock`` is no pair.
        """
        lock = _as_lock(lock)
        holder = self._holder_of(lock)
        if holder is not None:  # else its end has freed it
            await del_lock(self._node, lock, await self._nodes_for_locks(nodes, through), holder)

    async def trans(
        self,
        lock: LockId,
        function: Callable[[], Awaitable[Any]],
        nodes: Iterable[Atom | str] | None = None,
        retries: int | None = None,
        *,
        through: Atom | str | None = None,
    ) -> Any:
        """``global:trans/4``: call an async function while a lock is held; it is freed whatever becomes of that.

        Args:
            lock: As for :meth:`set_lock`, and so with the others.
            function: Called without arguments.

        Returns:
            What it returns; what it raises is raised.

        Raises:
            TransactionAborted: others have held the lock at all ``retries``; the function was not called.
            NoProcess, ValueError: as :meth:`set_lock`.
        """
        where = await self._nodes_for_locks(nodes, through)
        if not await self.set_lock(lock, where, retries):
            raise TransactionAborted(f"the lock {shown_term(_as_lock(lock))} is held by others; nothing was done")
        try:
            return await function()
        finally:
            await self.del_lock(lock, where)

    def _remember(self, name: Term, pid: Pid | None) -> None:
        """A BEAM has given ``pid`` the name, or taken it back; that is for the log, when a BEAM is lost."""
        if self._registrar is not None:
            return  # a node that takes part exchanges its names with each BEAM that comes back
        if pid is not None and pid.node == self._node.name:
            if self._held is None or not self._held.process.alive:
                self._held = Held()
                self._node.start_inline(self._held)
            self._held.hold(name, pid)
        elif self._held is not None:
            self._held.release(name)

    # -- who is asked

    def _registrar_unless(self, through: Atom | str | None) -> Registrar | None:
        """None: a BEAM is to do it."""
        return self._registrar if through is None else None

    async def _ask(self, through: Atom | str | None, function: str, arguments: Sequence[Term]) -> Term:
        """What ``global:function(*arguments)`` returns on a BEAM."""
        return await self._of_one(through, lambda to: self._node.rpc(to, GLOBAL, function, arguments, None))

    async def _of_one(self, through: Atom | str | None, ask: Callable[[Atom], Awaitable[Term]]) -> Term:
        """What ``ask`` gives for ``through``, or for the first node that takes part in ``global``."""
        if through is not None:
            return await ask(atom_of(through))
        visible = self._node.nodes("visible")
        if self._last in visible:
            visible.sort(key=lambda name: name != self._last)
        for to in visible:
            try:
                answer = await ask(to)
            except (BadRpc, NoProcess) as error:
                if isinstance(error, BadRpc) and not _is_undef(error):
                    raise
                continue  # as from a Python node: it takes no part
            self._last = to
            return answer
        raise NoVisibleNode(
            f"{self._node.name.name} is {'passive' if self._node.visible else 'hidden'}, and needs a visible node of "
            f"the cluster to go through: "
            + (f"none of {', '.join(to.name for to in visible)} has `global`" if visible else "none is connected")
            + "; connect to one first, or name it (`through=`)"
        )

    # -- what is given

    def _checked(self, name: Term, pid: Pid, resolve: str | Callable[[Term, Pid, Pid], object]) -> tuple[Term, Any]:
        if type(pid) is not Pid:
            raise TypeError(f"{pid!r} is no pid: a name is given to a process")
        here = pid.node == self._node.name
        if here and not self._node.is_alive(pid):
            raise NoProcess(NOPROC, f"{pid} has ended, and can be given no name")
        if self._resolving is None:
            self._resolving = Resolving(self._node)
        return _as_name(name), self._resolving.method_of(resolve, here=here)

    async def _nodes_for_locks(self, nodes: Iterable[Atom | str] | None, through: Atom | str | None) -> list[Atom]:
        if nodes is not None:
            return [atom_of(name) for name in nodes]
        registrar = self._registrar_unless(through)
        if registrar is not None:
            # Those that take part, and those that are about to: neither is the whole of the other.
            return [self._node.name, *self._node.nodes("visible"), *registrar.server.known]

        async def known_to(name: Atom) -> Term:
            server = (GLOBAL_NAME_SERVER, name)
            return [name, *await gen.call(self._node, server, _GET_KNOWN, None)]

        found: list[Atom] = await self._of_one(through, known_to)
        return found

    def _holder_of(self, lock: LockId) -> Pid | None:
        """The process that holds a lock for its requester; None if that has ended."""
        requester = lock[1]
        if type(requester) is Pid and requester.node == self._node.name:
            return requester if self._node.is_alive(requester) else None
        return self._own_holder()

    def _own_holder(self) -> Pid:
        """A process that is there for this."""
        if self._holder is None or not self._holder.process.alive:
            self._holder = Holder()
            self._node.start_inline(self._holder)
        return self._holder.process.pid


def _as_name(term: Term) -> Term:
    """As the other nodes will see it. Raises BadName, EncodeError."""
    return atom_of(term) if type(term) is str else carried(term)


def _as_lock(lock: LockId) -> LockId:
    if type(lock) is not tuple or len(lock) != 2:
        raise ValueError(f"a lock is a pair of a resource and a requester, not {lock!r}")
    return _as_name(lock[0]), _as_name(lock[1])


def _is_undef(error: BadRpc) -> bool:
    """Whether the node has no such function."""
    match error.reason:
        case (exit_, (undef, [(module, *_), *_])):
            return (exit_, undef, module) == (EXIT, UNDEF, GLOBAL)
        case _:
            return False
