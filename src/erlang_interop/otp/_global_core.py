"""What a name server of ``global`` decides: with whom it exchanges names, and whom it knows. Pure.

Two nodes that connect each bring a side, the nodes they know: to begin with none. The lockers (``_global_locker.py``)
lock both sides; then the two name servers do the same things, neither before the other:

.. code-block:: text

    we                                    he
    init_connect ─────────────────────►       with a tag: what he says later has to have it
              ◄───────────────────── init_connect
    init_connect_ack ─────────────────►       both tags; who finds them wrong says cancel_connect, and both begin again
              ◄───────────────────── init_connect_ack
        the lockers lock both sides
    exchange ─────────────────────────►       all names of our side
              ◄───────────────────── exchange
        of two processes with one name the node with the smaller name lets one be chosen
    resolved ─────────────────────────►       what came of it, and the nodes of our side
              ◄───────────────────── resolved
        now he is known here. Those known before are told (new_nodes); the nodes of his side are dialled (in_sync)
        the lockers unlock

An attempt ends without a result when the node is lost, when it begins another one, or when somebody else has brought
both sides together meanwhile (``in_sync``, or the node is of the other side of another attempt).

Where this differs from OTP, which never gives up waiting and so keeps a whole cluster locked for a node that speaks
halfway: an attempt for which the other side does not do its part in time is begun again (:meth:`GlobalCore.timed_out`).

**A lost connection** splits the cluster into parts that overlap. From ``lost_connection`` of a node that has lost one,
all others learn of it; they hand it on, and disconnect from the lost node, which disconnects from the first. So both
are alone afterwards. This node says it of its own losses only when the other one is of this kind as well: a BEAM says
it itself when it loses this node, and then all others let go of this node, and no BEAM of another.

Source: kernel/src/global.erl of OTP 25 and 29.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from . import _global_messages as messages
from ._global_messages import (
    PREVENTING,
    TAGGED,
    VERSION,
    CancelConnect,
    Exchange,
    InitConnect,
    InitConnectAck,
    InSync,
    LockSet,
    LostConnection,
    Named,
    NewNodes,
    Ops,
    RemoveConnection,
    Resolved,
)
from ._global_registry import Registry, RegistryPort

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..terms import Atom, Pid, Reference, Term

#: Seconds for which a lost connection of others is remembered, so that its message is handed on only once.
REMEMBERED: Final = 3600.0

#: A name that two processes have: theirs, and ours.
Clash: TypeAlias = "tuple[Named, Named]"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node with which the locker is to lock both sides."""

    node: Atom
    locker: Pid
    version: int
    tag: int
    his_tag: Term
    #: Attempts before this one that it did not bring to an end.
    failures: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """The locker has nothing more to do for this attempt; if it has locked, it unlocks."""

    node: Atom
    tag: int


class GlobalPort(RegistryPort, Protocol):
    """What the core asks of the process it runs in."""

    def send(self, node: Atom, message: Term) -> None:
        """Send to the name server of a node that is connected; to any other, do nothing."""

    def cast(self, node: Atom, message: Term) -> None:
        """The same, as a cast."""

    def tell_locker(self, message: Candidate | Cancel | LockSet) -> None:
        """Send to this node's locker."""

    def resolve(self, clashes: list[Clash], done: Callable[[list[Term]], None]) -> Callable[[], object]:
        """For each clash call what resolves it, then ``done`` with the results; None where it could not be called.

        Returns:
            What ends that.
        """

    def dial(self, node: Atom) -> None:
        """Connect to it, then cast it ``in_sync``; or call :meth:`GlobalCore.unreachable`."""

    def disconnect_from(self, node: Atom) -> None:
        """Close the connection to it."""

    def reconnect(self, node: Atom) -> None:
        """Let it close the connection, then make another one."""

    def now(self) -> float:
        """Seconds of a clock that never goes back."""

    def warn(self, problem: str) -> None:
        """Tell whoever runs this node."""


class _Attempt:
    """An exchange with one node, from nodeup to the end."""

    __slots__ = ("his_tag", "names", "ops", "requester", "resolved", "stop_resolving", "tag", "version")

    def __init__(self, tag: int) -> None:
        self.tag = tag
        self.his_tag: Term = None
        #: The version that is spoken; 0 until ``init_connect`` has come.
        self.version = 0
        #: What the lock is set for, once both sides are locked.
        self.requester: list[Pid] | None = None
        #: The other side's names, once they have come.
        self.names: list[Named] | None = None
        #: Ends the calls of what resolves clashes, while they run.
        self.stop_resolving: Callable[[], object] | None = None
        #: What is to be done about them here, once that is known.
        self.ops: Ops | None = None
        #: What the other side has found, once that has come.
        self.resolved: Resolved | None = None

    @property
    def waits_for_him(self) -> bool:
        """Whether it is the other side that has to do something."""
        return self.requester is None or self.names is None or (self.ops is not None and self.resolved is None)


class GlobalCore:
    """The decisions of one name server.

    Args:
        me: This node.
        creation: Its creation.
        locker: The locker's pid.
        port: What carries out the decisions.

    Attributes:
        registry: The names, and the locks that are held here.
        known: The nodes that take part, with the version that each speaks (0: it is not known).
        synced: The nodes that have nothing to exchange with this one any more.
    """

    def __init__(self, me: Atom, creation: int, locker: Pid, port: GlobalPort) -> None:
        self._me: Final = me
        self._locker = locker
        self._port: Final = port
        self.registry: Final = Registry(me, port)
        self.known: dict[Atom, int] = {}
        self.synced: set[Atom] = set()
        self._attempts: dict[Atom, _Attempt] = {}
        #: Nodes whose ``init_connect`` was answered, with their version.
        self._pending: dict[Atom, int] = {}
        #: What came from nodes that are not, or no longer, new here.
        self._early: dict[Atom, InitConnect] = {}
        #: Nodes that were asked to disconnect.
        self._removing: set[Atom] = set()
        #: Connected nodes of this kind.
        self._python: set[Atom] = set()
        #: Attempts that a connected node did not bring to an end.
        self._failures: dict[Atom, int] = {}
        self._numbers = itertools.count(1)
        #: Other lives of this node must not have the same.
        self._incarnation: Final = (random.getrandbits(28) << 32) + creation
        #: (Who has lost, whom) -> incarnation, number, when it came.
        self._losses: dict[tuple[Atom, Atom], tuple[Term, int, float]] = {}

    def _attempt(self, node: Atom, tag: Term) -> _Attempt | None:
        """The attempt that runs with ``node``, if ``tag`` is its tag."""
        attempt = self._attempts.get(node)
        return attempt if attempt is not None and attempt.tag == tag else None

    def take_over(self, locker: Pid) -> None:
        """The process that this runs in is another one, with another locker, since the last one has ended.

        No message of a name server was missed, so what is known of nodes that are in sync holds good. What had begun
        with the last locker, whose locks are gone with it, is begun again; who may be through is connected anew, and
        asked to disconnect for that: if it lost the connection, it would tell others to let go of this node.
        """
        self._locker = locker
        self.registry.watch_again()
        for node, attempt in list(self._attempts.items()):
            if attempt.ops is None:
                self._restart(node)
            else:
                self._port.send(node, messages.remove_connection(self._me))
                self.leave(node)
                self._port.reconnect(node)

    # -- connections

    def nodeup(self, node: Atom) -> None:
        """A visible node is connected: begin, unless it is known already, by way of others."""
        if node in self.known or node in self._attempts:
            return
        self._attempts[node] = attempt = _Attempt(next(self._numbers))
        self._port.cast(node, messages.init_connect(self._me, attempt.tag, self.known, self._locker))
        early = self._early.pop(node, None)
        if early is not None:
            self._init_connect(early)

    def nodedown(self, node: Atom) -> None:
        """A visible node is connected no more; all monitors of its processes have fired."""
        if node in self._removing:
            self._removing.discard(node)
        elif node in self._python:
            loss = messages.lost_connection(self._me, self._incarnation, next(self._numbers), node)
            self._multicast(loss, node)
        self._python.discard(node)
        self._failures.pop(node, None)
        self._forget(node)

    def unreachable(self, node: Atom) -> None:
        """A node of which others have told cannot be connected to."""
        self._port.warn(f"cannot connect to {node.name}, which others of the cluster know")
        self.nodedown(node)

    def leave(self, node: Atom) -> None:
        """It is disconnected from on purpose: nobody has to be told, and what it says until then counts no more."""
        self._removing.add(node)
        self._forget(node)

    def _forget(self, node: Atom) -> None:
        self._end(node, cancel=True)
        self.known.pop(node, None)
        self.synced.discard(node)

    def _multicast(self, message: Term, but: Atom) -> None:
        for node, version in {**self._pending, **self.known}.items():
            if node != but and version >= PREVENTING:
                self._port.send(node, message)

    # -- attempts

    def _end(self, node: Atom, *, cancel: bool = False) -> bool:
        """End an attempt, well or not; whether there was one.

        Args:
            node: The other node.
            cancel: Tell it to begin again.
        """
        self._early.pop(node, None)
        version = self._pending.pop(node, None)
        attempt = self._attempts.pop(node, None)
        if attempt is None:
            return False
        if attempt.stop_resolving is not None:
            attempt.stop_resolving()
        self._port.tell_locker(Cancel(node, attempt.tag))
        if cancel and version is not None and version >= TAGGED:
            self._port.send(node, messages.cancel_connect(self._me, attempt.his_tag))
        return True

    def _restart(self, node: Atom) -> None:
        """Begin again. What the node has set and registered meanwhile is of an attempt that is over."""
        if self._end(node, cancel=True):
            self.registry.drop(node)
            self.nodeup(node)

    def timed_out(self, node: Atom, tag: int) -> None:
        """The locker has waited for long, and both sides may be locked."""
        attempt = self._attempt(node, tag)
        if attempt is None or not attempt.waits_for_him:
            return
        self._failures[node] = self._failures.get(node, 0) + 1
        if attempt.ops is None and attempt.version >= TAGGED:
            self._port.warn(f"{node.name} does not go on with the exchange of names that it has begun; once more")
            self._restart(node)
        else:  # it may be through, or would not understand that it is to begin again
            self._port.warn(f"disconnects {node.name}, which does not end the exchange of names that it has begun")
            self._port.disconnect_from(node)

    def handle(self, message: messages.Message) -> None:
        """Take what another name server says; calls are not the core's."""
        match message:
            case InitConnect():
                self._init_connect(message)
            case InitConnectAck(node, tag, his_tag):
                attempt = self._attempts.get(node)
                # One for an older attempt was under way when he was told of the new one.
                if attempt is None or (attempt.tag == tag and attempt.his_tag != his_tag):
                    self._port.send(node, messages.cancel_connect(self._me, his_tag))
                    self._restart(node)
            case CancelConnect(node, tag):
                if self._attempt(node, tag) is not None:
                    self._restart(node)
            case LockSet(locker, _, tag):
                if tag is None or self._attempt(locker.node, tag) is not None:
                    self._port.tell_locker(message)
            case Exchange(node, names, tag):
                attempt = self._attempt(node, tag)
                if attempt is not None and attempt.names is None:
                    attempt.names = names
                    self._compare(node, attempt)
            case Resolved(node, _, _, _, tag):
                attempt = self._attempt(node, tag)
                if attempt is not None and attempt.resolved is None:
                    attempt.resolved = message
                    self._finish(node, attempt)
            case NewNodes():
                for node in self._add_known(message.nodes):
                    self._port.dial(node)
                self.registry.apply(message.ops, message.external, message.requester)
            case InSync(node, python):
                self._end(node)
                self.synced.add(node)
                if python:
                    self._python.add(node)
            case LostConnection():
                self._lost_connection(message)
            case RemoveConnection(node):
                if node in self.known or node in self._pending:
                    self._port.warn(f"disconnects {node.name}, which asks for that: others have lost one of the two")
                    self._removing.add(node)
                    self._forget(node)
                    self._port.disconnect_from(node)

    def _init_connect(self, message: InitConnect) -> None:
        node = message.node
        if node in self._pending:  # the one before is void: one of the two has missed something
            if message.version < TAGGED:
                self._port.warn(f"disconnects {node.name}, which begins twice and is too old to be told so")
                self._port.disconnect_from(node)
            else:
                self._port.send(node, messages.cancel_connect(self._me, message.tag))
                self._restart(node)
            return
        attempt = self._attempts.get(node)
        if attempt is None:
            self._early[node] = message
            return
        attempt.his_tag, attempt.version = message.tag, min(VERSION, message.version)
        self._pending[node] = message.version
        if message.python:
            self._python.add(node)
        failures = self._failures.get(node, 0)
        self._port.tell_locker(
            Candidate(node, message.locker, attempt.version, attempt.tag, message.tag, failures),
        )
        if message.version >= TAGGED:
            self._port.send(node, messages.init_connect_ack(self._me, message.tag, attempt.tag))

    def locked(self, node: Atom, tag: int, requester: list[Pid]) -> None:
        """The lockers have locked both sides."""
        attempt = self._attempt(node, tag)
        if attempt is not None:
            attempt.requester = requester
            self._port.cast(node, messages.exchange(self._me, self.registry.all(), attempt.his_tag))
            self._compare(node, attempt)

    def _compare(self, node: Atom, attempt: _Attempt) -> None:
        """Find what is to be done about the other side's names, when they have come and both sides are locked."""
        if attempt.requester is None or attempt.names is None:
            return
        ops = Ops([], [])
        clashes: list[Clash] = []
        for theirs in attempt.names:
            ours = self.registry.get(theirs.name)
            if ours is None:
                ops.insert.append(theirs)
            elif ours.pid != theirs.pid and self._me.name < node.name:
                clashes.append((theirs, ours))
        if clashes:
            decided = partial(self._decided, node, attempt, ops, clashes)
            attempt.stop_resolving = self._port.resolve(clashes, decided)
        else:
            self._compared(node, attempt, ops, Ops([], []))

    def _decided(self, node: Atom, attempt: _Attempt, ops: Ops, clashes: list[Clash], answers: list[Term]) -> None:
        """What resolves clashes has been called."""
        attempt.stop_resolving = None
        his_ops = Ops([], [])
        for (theirs, ours), answer in zip(clashes, answers, strict=True):
            if answer is None or answer == theirs.pid:
                ops.insert.append(theirs)
            elif answer == ours.pid:
                his_ops.insert.append(ours)
            else:  # `none`, or what makes no sense
                ops.delete.append(ours.name)
                his_ops.delete.append(ours.name)
        self._compared(node, attempt, ops, his_ops)

    def _compared(self, node: Atom, attempt: _Attempt, ops: Ops, his_ops: Ops) -> None:
        version = self._pending.get(node, 0)
        external = self.registry.external()
        self._port.cast(node, messages.resolved(self._me, his_ops, self.known, version, external, attempt.his_tag))
        attempt.ops = ops
        self._finish(node, attempt)

    def _finish(self, node: Atom, attempt: _Attempt) -> None:
        """Both sides become one, when each has found out what it has to do."""
        resolved, requester = attempt.resolved, attempt.requester
        if attempt.ops is None or resolved is None or requester is None:
            return
        ops = Ops([*attempt.ops.insert, *resolved.ops.insert], [*attempt.ops.delete, *resolved.ops.delete])
        his_side = {
            each: version or self.known.get(each, 0) for each, version in resolved.known.items() if each != self._me
        }
        new = {node: self._pending.get(node, 0), **his_side}
        for other in his_side:
            self._port.dial(other)
        self.registry.apply(ops, resolved.external, requester)
        for other in his_side:
            self._end(other)
        for other, version in self.known.items():  # before the locker gives their locks back, or ends
            self._port.cast(
                other, messages.new_nodes(self._me, ops, resolved.external, new, version, attempt.version, requester)
            )
        self._end(node)
        self._add_known(new)
        self.synced.add(node)
        self._failures.pop(node, None)

    def _add_known(self, nodes: dict[Atom, int]) -> list[Atom]:
        """Know of these nodes; those that were not known."""
        added = [node for node in nodes if node not in self.known and node != self._me]
        for node, version in nodes.items():
            if node != self._me:
                self.known[node] = self.known.get(node) or version
        return added

    # -- lost connections

    def _lost_connection(self, message: LostConnection) -> None:
        now, key = self._port.now(), (message.node, message.lost)
        incarnation, number, _ = self._losses.get(key, (None, 0, 0.0))
        seen = incarnation == message.incarnation and message.number <= number
        if seen or message.node == self._me:
            return
        self._losses = {each: loss for each, loss in self._losses.items() if now - loss[2] < REMEMBERED}
        self._losses[key] = message.incarnation, message.number, now
        loss = messages.lost_connection(message.node, message.incarnation, message.number, message.lost)
        self._multicast(loss, message.node)
        gone = message.node if message.lost == self._me else message.lost
        version = self.known.get(gone, self._pending.get(gone))
        if version is None:
            return
        self._port.warn(
            f"lets go of {gone.name}, since {message.node.name} has lost its connection to {message.lost.name}"
        )
        self._removing.add(gone)
        self._forget(gone)
        if version < PREVENTING:
            self._port.disconnect_from(gone)
        else:
            self._port.send(gone, messages.remove_connection(self._me))

    # -- processes

    def down(self, pid: Pid, ref: Reference) -> None:
        """A process that is monitored has ended."""
        self.registry.down(pid, ref)
