"""The router: every signal between processes, whether both are here or one is on a peer.

A process's ``send``, ``link``, ``monitor`` or ``exit`` comes in here and becomes a call on a local process or a control
message for a peer. What peers send comes in through ``incoming.py``.

Source: ERTS manual, "Processes" (signals, links, monitors, aliases); erl_dist_protocol, "Control Messages".
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from ..errors import BadName, EncodeError, NameAlreadyRegistered, RemoteProtocolError
from ..terms import Atom, Pid, Reference
from ..wire.control import Op, describe, packer
from ..wire.unlink import Link, UnlinkIds
from .aliases import Aliases
from .atoms import DOWN, EMPTY, EXIT, KILL, KILLED, NOCONNECTION, NOPROC, NORMAL, UNDEFINED
from .events import NodeEvents
from .identifiers import Identifiers
from .incoming import Incoming
from .losses import hand_out_loss
from .outgoing import Outgoing
from .outgoing import atom_of as atom_of  # it stands here for all who use the router
from .peer import Peer, PeerState, reason_as_text
from .spawning import Spawning
from .tracing import link_exit, next_token

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..terms import Term
    from .inline import InlineProcess, Turn
    from .process import LocalProcess, MonitorTarget

log = logging.getLogger("erlang_interop.process")


_demonitor_p: Final = packer(Op.DEMONITOR_P)
_link: Final = packer(Op.LINK)
_monitor_p: Final = packer(Op.MONITOR_P)
_payload_exit2: Final = packer(Op.PAYLOAD_EXIT2)
_payload_monitor_p_exit: Final = packer(Op.PAYLOAD_MONITOR_P_EXIT)
_unlink_id: Final = packer(Op.UNLINK_ID)

_MISSING: Final = object()


class Router:
    """Processes, names and aliases of this node, and the peers' ends of its links and monitors.

    Args:
        name: This node.
        peer_for: The peer of a node name, dialled if it is not there (never this node's own name).
    """

    def __init__(self, name: Atom, peer_for: Callable[[Atom], Peer]) -> None:
        self.name = name
        self.creation = 0
        self._peer_for = peer_for
        self.processes: dict[Pid, LocalProcess] = {}
        self.names: dict[Atom, LocalProcess] = {}
        self.aliases = Aliases(self)
        self.spawning = Spawning(self)
        self.peers: dict[Atom, Peer] = {}
        #: The group leader of processes that are started from now on.
        self.default_group_leader: Pid | None = None
        #: Who is told of nodeups and nodedowns.
        self.events = NodeEvents()
        self.identifiers = Identifiers(self.processes)
        self._unlink_ids = UnlinkIds()
        self.running = False
        self.ready: deque[tuple[Turn, Term, Pid | Atom | None]] = deque()
        self._reaping = False
        self._dying: deque[tuple[LocalProcess, Term]] = deque()
        #: Carries out what a peer sent, in order: ``dispatch(peer, signals)``.
        self.dispatch = Incoming(self).dispatch
        #: ``Dest ! Message`` on behalf of a process: ``send(sender, dest, message)``.
        self.send = Outgoing(self, peer_for).send

    def peer(self, name: Atom) -> Peer:
        """The peer of a node name, never this node's own; dialled if it is not there."""
        return self.peers.get(name) or self._peer_for(name)

    # -- identifiers

    def make_pid(self) -> Pid:
        """A pid that no living process of this node has."""
        return self.identifiers.pid(self.name, self.creation)

    def make_ref(self) -> Reference:
        """A reference of this node."""
        return self.identifiers.reference(self.name, self.creation)

    # -- names

    def register(self, name: Atom | str, pid: Pid) -> None:
        """Give ``name`` to ``pid``, a living process of this node (``register/2``)."""
        atom = atom_of(name)
        if atom in (UNDEFINED, EMPTY):
            raise BadName(f"no process can be registered as {atom.name!r}")
        process = self.processes.get(pid)
        if process is None:
            raise BadName(f"cannot register {atom.name!r}: {pid} is not a living process of {self.name.name}")
        holder = self.names.get(atom)
        if holder is not None:
            raise NameAlreadyRegistered(f"{atom.name!r} is registered as {holder.pid}; unregister it first")
        self.names[atom] = process
        process.names[atom] = None

    def unregister(self, name: Atom | str) -> None:
        """Take ``name`` back (``unregister/1``)."""
        atom = atom_of(name)
        process = self.names.pop(atom, None)
        if process is None:
            raise BadName(f"{atom.name!r} is not registered on {self.name.name}")
        del process.names[atom]

    def whereis(self, name: Atom | str) -> Pid | None:
        """The process registered under ``name`` (``whereis/1``)."""
        process = self.names.get(atom_of(name))
        return None if process is None else process.pid

    # -- inline servers

    def run_started(self, process: InlineProcess) -> None:
        """Run ``started()`` under the same rule: what it sends is handled after it."""
        nested, self.running = self.running, True
        try:
            process.server.started()
            if not nested:
                self.run_ready()
        finally:
            self.running = nested

    def run_ready(self) -> None:
        """Run the handlers that came up while another was running."""
        ready = self.ready
        while ready:
            process, message, sender = ready.popleft()
            if process.alive:
                process.handle(message, sender)

    # -- links

    def link(self, process: LocalProcess, pid: Pid, *, priority: bool = False) -> None:
        """``link/1,2`` by ``process``; its exit signal will be a priority message, or no more be one."""
        if pid == process.pid:
            return
        link = process.links.get(pid)
        if link is not None and pid.node != self.name and not self.carries(process.pid, pid):
            # It was made over a connection that is lost, and that loss is being handed out: now it is this one's turn.
            del process.links[pid]
            if link.exit_received():
                self.exit_signal(process, pid, NOCONNECTION, linked=True, priority=link.priority)
                if not process.alive:
                    return
            link = None
        if link is not None:
            link.priority = priority
            if not link.link():
                return
        if pid.node == self.name:
            other = self.processes.get(pid)
            if other is None:
                self.exit_signal(process, pid, NOPROC, linked=False)
                return
            process.links[pid] = Link(priority)
            other.links[process.pid] = Link()
            return
        peer = self.peers.get(pid.node) or self._peer_for(pid.node)
        if link is None:
            process.links[pid] = Link(priority)
        peer.links.setdefault(process.pid, set()).add(pid)
        peer.emit(_link(process.pid, pid))

    def unlink(self, process: LocalProcess, pid: Pid) -> None:
        """``unlink/1`` by ``process``."""
        link = process.links.get(pid)
        if link is None or not link.active:
            return
        if pid.node == self.name:
            del process.links[pid]
            other = self.processes.get(pid)
            if other is not None:
                other.links.pop(process.pid, None)
            return
        peer = self.peers.get(pid.node)
        if peer is None or not self.carries(process.pid, pid):
            del process.links[pid]
            return
        # The link is gone for us when the other side has acknowledged; until then its exit signals are ignored.
        peer.emit(_unlink_id(link.unlink(self._unlink_ids), process.pid, pid))

    def carries(self, pid: Pid, remote: Pid) -> bool:
        """Whether the link between ``pid`` here and ``remote`` is of the connection there is now, not of a lost one.

        A process of a node that dialled anew may act, or end, before the loss of the last connection reaches its link.
        """
        peer = self.peers.get(remote.node)
        return peer is not None and remote in peer.links.get(pid, ())

    def forget_link(self, peer: Peer, process: LocalProcess, pid: Pid) -> None:
        """The link between ``process`` and ``pid`` on ``peer`` is no more, for either table."""
        process.links.pop(pid, None)
        remotes = peer.links.get(process.pid)
        if remotes is not None:
            remotes.discard(pid)
            if not remotes:
                del peer.links[process.pid]

    # -- monitors

    def monitor(
        self,
        process: LocalProcess,
        target: MonitorTarget,
        alias: str | None = None,
        tag: Term = DOWN,
        priority: bool = False,
    ) -> Reference:
        """``monitor/2,3`` by ``process``."""
        ref = self.identifiers.reference(self.name, self.creation)
        item: Any
        if type(target) is Pid:
            node, item = target.node, target
            watched = self.processes.get(target)
            if watched is not None and watched is not process and node == self.name:
                if tag is DOWN and alias is None and not priority:
                    # What is below does the same, in twice the time.
                    process.monitors[ref] = watched.pid
                    watched.watchers.add(ref, process.pid)
                    return ref
        elif type(target) is tuple and len(target) == 2:
            node, item = atom_of(target[1]), atom_of(target[0])
        elif type(target) is str or type(target) is Atom:
            node, item = self.name, atom_of(target)
        else:
            raise BadName(f"cannot monitor {target!r}: a Pid, a name or (name, node) is needed")
        watched = self.processes.get(item) if type(item) is Pid else self.names.get(item)
        if watched is process and node == self.name:
            return ref  # who monitors itself gets a reference and nothing else, on a BEAM too: not even an alias
        if alias is not None:
            self.aliases.add(process, alias, ref)
        if priority or tag is not DOWN:
            process.set_monitor_options(ref, tag, priority)
        if node != self.name:
            peer = self.peers.get(node) or self._peer_for(node)
            process.monitors[ref] = target if type(target) is Pid else (item, node)
            peer.monitors[ref] = process.pid
            peer.emit(_monitor_p(process.pid, item, ref))
            return ref
        shown = item if type(item) is Pid else (item, self.name)
        if watched is None:
            if process.aliases:
                self.aliases.monitor_ended(process, ref)
            process.deliver_down(ref, shown, NOPROC)
            return ref
        process.monitors[ref] = watched.pid
        watched.watchers.add(ref, process.pid if type(item) is Pid else (process.pid, shown))
        return ref

    def demonitor(self, process: LocalProcess, ref: Reference) -> bool:
        """``demonitor/1`` by ``process``; True if the monitor was active."""
        target = process.monitors.pop(ref, _MISSING)
        if process.aliases:
            self.aliases.monitor_ended(process, ref)
        if target is _MISSING:
            return False
        if process.monitor_options is not None:
            process.monitor_options.pop(ref, None)
        self._release_monitor(process, ref, target)
        return True

    def _release_monitor(self, process: LocalProcess, ref: Reference, target: Any) -> None:
        """Tell whoever is watched under ``ref`` that nobody watches any more."""
        node = target.node if type(target) is Pid else target[1]
        if node == self.name:
            watched = self.processes.get(target)
            if watched is not None:
                watched.watchers.pop(ref)
            return
        peer = self.peers.get(node)
        if peer is not None and peer.monitors.pop(ref, None) is not None:
            peer.emit(_demonitor_p(process.pid, target if type(target) is Pid else target[0], ref))

    def fire_down(self, owner: Pid, ref: Reference, reason: Term) -> None:
        """Deliver the DOWN of a monitor that ``owner`` holds; its entry goes."""
        process = self.processes.get(owner)
        if process is None:
            return
        target = process.monitors.pop(ref, _MISSING)
        if target is not _MISSING:
            if process.aliases:
                self.aliases.monitor_ended(process, ref)
            process.deliver_down(ref, target, reason)

    def watch(self, peer: Peer, process: LocalProcess, ref: Reference, watcher: Pid, shown: Term, control: Any) -> None:
        """Enter a monitor that ``watcher`` on ``peer`` sets on ``process``; ``shown`` is what its DOWN names."""
        if ref in peer.watched or ref in process.watchers:
            raise RemoteProtocolError(
                f"{describe(control)} has the reference of another monitor",
                peer=peer.name.name,
                rule="erl_dist_protocol#control_message, MONITOR_P",
            )
        process.watchers.add(ref, watcher if type(shown) is Pid else (watcher, shown))
        peer.watched[ref] = process.pid

    # -- exits

    def exit(self, sender: Pid, pid: Pid, reason: Term) -> None:
        """``exit/2``."""
        if pid.node == self.name:
            process = self.processes.get(pid)
            if process is not None:
                self.exit_signal(process, sender, reason, linked=False)
            return
        peer = self.peers.get(pid.node) or self._peer_for(pid.node)
        peer.emit(_payload_exit2(sender, pid), reason)

    def exit_signal(
        self,
        process: LocalProcess,
        sender: Pid,
        reason: Term,
        *,
        linked: bool,
        token: Any = None,
        priority: bool = False,
    ) -> None:
        """What an exit signal does to its receiver (ERTS manual, "Receiving Exit Signals")."""
        if not process.alive:
            return
        if reason == KILL and not linked:
            process.ended_by = sender
            self.terminate(process, KILLED)
        elif process.trap_exit:
            if token is None and not priority:
                process.deliver((EXIT, sender, reason))
            else:
                process.deliver_marked((EXIT, sender, reason), token, priority)
        elif reason != NORMAL or sender == process.pid:
            process.ended_by = sender
            self.terminate(process, reason)

    def add(self, process: LocalProcess) -> None:
        """Enter a new process; signals reach it from now on."""
        self.processes[process.pid] = process

    def terminate(self, process: LocalProcess, reason: Term) -> None:
        """End a process now: names, links, monitors and aliases are dealt with before anything else happens.

        A chain of linked processes is worked off as a queue, so that it may be of any length. Inline servers that learn
        of it run after that: none meets a process that is half gone, or runs before ``terminated()`` of the dead one.
        """
        if not process.alive:
            return
        process.alive = False
        process.exit_reason = reason
        if self._reaping:
            self._dying.append((process, reason))
            return
        nested, self.running = self.running, True
        self._reaping = True
        try:
            self._reap(process, reason)
            while self._dying:
                self._reap(*self._dying.popleft())
            self._reaping = False
            if self.ready and not nested:
                self.run_ready()
        finally:
            self._reaping = False
            self.running = nested

    def _reap(self, process: LocalProcess, reason: Term) -> None:
        pid = process.pid
        self.processes.pop(pid, None)
        for name in process.names:
            self.names.pop(name, None)
        # Most processes have none of these, and hundreds of thousands may end at once.
        if process.aliases:
            self.aliases.owner_ended(process)
        if process.monitors:
            monitors, process.monitors = process.monitors, {}
            for ref, target in monitors.items():
                self._release_monitor(process, ref, target)
        if process.links:
            links, process.links = process.links, {}
            for other_pid, link in links.items():
                if other_pid.node == self.name:
                    other = self.processes.get(other_pid)
                    theirs = None if other is None else other.links.pop(pid, None)
                    if other is not None and theirs is not None:
                        token = next_token(process)
                        self.exit_signal(other, pid, reason, linked=True, token=token, priority=theirs.priority)
                    continue
                peer = self.peers.get(other_pid.node)
                if peer is not None and self.carries(pid, other_pid):
                    self.forget_link(peer, process, other_pid)
                    if link.active:
                        self.emit_reason(peer, link_exit(process, other_pid), reason)
        if process.watchers:
            for key, watch in process.watchers.take():
                if type(key) is Pid:
                    holder = self.processes.get(key)
                    if holder is not None and holder.observer is not None:
                        holder.observer.ended(pid, reason)
                    continue
                watcher, shown = (watch, pid) if type(watch) is Pid else watch
                peer = self.peers.get(watcher.node)
                if peer is not None:
                    if peer.watched.pop(key, None) is not None:
                        named = shown if type(shown) is Pid else shown[0]
                        self.emit_reason(peer, _payload_monitor_p_exit(named, watcher, key), reason)
                elif watcher.node == self.name:
                    holder = self.processes.get(watcher)
                    if holder is not None and holder.monitors.pop(key, _MISSING) is not _MISSING:
                        if holder.aliases:
                            self.aliases.monitor_ended(holder, key)
                        holder.deliver_down(key, shown, reason)
        if process.node_watch is not None:
            process.node_watch.ended()
        if process.observer is not None:
            process.observer.close()
        process.ended(reason)

    def emit_reason(self, peer: Peer, control: tuple[Any, ...], reason: Term) -> None:
        """A signal that must go out whatever the reason is made of."""
        try:
            peer.emit(control, reason)
        except EncodeError as error:
            log.warning("an exit reason cannot be sent to %s: %s; it goes as text", peer.name.name, error)
            peer.emit(control, reason_as_text(reason))

    # -- the loss of a connection

    def connection_lost(self, peer: Peer, reason: Term, limit: int) -> bool:
        """Hand out what the loss of ``peer`` owes, ``limit`` entries in this call; True when nothing is left."""
        return hand_out_loss(self, peer, reason, limit)

    def statistics(self) -> dict[str, int]:
        """Sizes of the tables, by name."""
        return {
            "processes": len(self.processes),
            "names": len(self.names),
            "aliases": len(self.aliases),
            "peers": len(self.peers),
            "links": sum(len(process.links) for process in self.processes.values()),
            "monitors": sum(
                len(process.monitors) + (process.observer.count if process.observer is not None else 0)
                for process in self.processes.values()
            ),
            "watchers": sum(len(process.watchers) for process in self.processes.values()),
            "peer_entries": sum(peer.entries for peer in self.peers.values()),
            "node_subscriptions": self.events.subscriptions,
        }

    def is_up(self, name: Atom) -> bool:
        """Whether the connection to ``name`` is up."""
        peer = self.peers.get(name)
        return peer is not None and peer.state is PeerState.UP
