"""What two nodes owe their processes, written from the manual and from nothing of ours.

Two sides, "a" and "b", joined by one connection that keeps order; what is under way stands in a queue for each
direction until somebody calls ``deliver``. Everything else happens at once. A process is a key ``("a", 3)``;
references and unlink identifiers are numbers, each used once; reasons are words or pairs.

Sources: ERTS manual, "Processes" (signals, links, monitors, aliases); erl_dist_protocol, "Link Protocol" and "Control
Messages"; erlang(3): link/1, unlink/1, exit/2, monitor/3, demonitor/2, alias/1, unalias/1.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Key: TypeAlias = tuple[str, int]
#: A process, or ``("name", side)``: the process registered there.
Target: TypeAlias = tuple[str, Any]
Signal: TypeAlias = tuple[Any, ...]

SIDES = ("a", "b")
#: Situations that the protocol was made for; a test that plays scripts shows that it met all of them.
CROSSINGS = frozenset(
    {
        "unlink crosses unlink",
        "unlink crosses exit",
        "unlink crosses the end",
        "link crosses unlink",
        "link crosses link",
        "link crosses the end",
        "link again before the acknowledgement",
        "unlink, link, unlink before the first acknowledgement",
        "demonitor crosses DOWN",
        "DOWN crosses demonitor",
        "monitor crosses the end",
        "exit/2 crosses the end",
        "message crosses the end",
        "message crosses unalias",
        "second message to an alias of one",
        "cut with signals under way",
        "cut before the acknowledgement of an unlink",
        "connected anew while the other side has not noticed",
    }
)


def other(side: str) -> str:
    return "b" if side == "a" else "a"


@dataclass
class Proc:
    """A process: what it holds and what it has got."""

    key: Key
    trap: bool = False
    alive: bool = True
    reason: Any = None
    inbox: list[Any] = field(default_factory=list)
    #: The processes it is linked to; a number is the id of an unlink that was not acknowledged yet.
    links: dict[Key, int | None] = field(default_factory=dict)
    monitors: dict[int, Target] = field(default_factory=dict)
    aliases: dict[int, str] = field(default_factory=dict)


class Model:
    """Both nodes and what is between them."""

    def __init__(self) -> None:
        self.procs: dict[Key, Proc] = {}
        self.names: dict[Target, Key] = {}
        #: Monitors by number: who is watched, by whom. Only those that the watched side knows of.
        self.watchers: dict[int, tuple[Key, Key, Target]] = {}
        self.aliases: dict[int, Key] = {}
        self._alias_sides: dict[int, str] = {}
        self.spent: set[int] = set()
        #: Whether a side takes itself for connected.
        self.up = {"a": True, "b": True}
        #: Signals under way, by the side that sent them; ``("END",)`` is the end of the connection.
        self.queue: dict[str, deque[Signal]] = {"a": deque(), "b": deque()}
        #: Signals sent since somebody last looked.
        self.sent: dict[str, list[Signal]] = {"a": [], "b": []}
        self.crossed: Counter[str] = Counter()
        self._numbers = 0
        self._broken: set[str] = set()
        self._dying: deque[tuple[Proc, Any]] = deque()
        self._reaping = False

    # ------------------------------------------------------------------------------------------ what processes do

    def number(self) -> int:
        self._numbers += 1
        return self._numbers

    def spawn(self, side: str) -> Key:
        key = (side, sum(1 for known in self.procs if known[0] == side))
        self.procs[key] = Proc(key)
        return key

    def link(self, me: Key, you: Key) -> None:
        proc = self.procs[me]
        if me == you or (you in proc.links and proc.links[you] is None):
            return
        if you[0] == me[0]:
            if not self.procs[you].alive:
                self._exit_signal(proc, you, "noproc", linked=False)
                return
            proc.links[you] = self.procs[you].links[me] = None
            return
        if you in proc.links:
            self.crossed["link again before the acknowledgement"] += 1
        proc.links[you] = None
        self._send(me[0], ("LINK", me, you))

    def unlink(self, me: Key, you: Key) -> None:
        proc = self.procs[me]
        if proc.links.get(you, 0) is not None:
            return
        if you[0] == me[0]:
            del proc.links[you], self.procs[you].links[me]
            return
        if any(signal[0] == "UNLINK_ID" and signal[2:] == (me, you) for signal in self.queue[me[0]]):
            self.crossed["unlink, link, unlink before the first acknowledgement"] += 1
        proc.links[you] = self.number()
        self._send(me[0], ("UNLINK_ID", proc.links[you], me, you))

    def monitor(self, me: Key, target: Target, mode: str | None = None) -> int:
        proc, ref = self.procs[me], self.number()
        if _side(target) == me[0] and self._find(target) is proc:
            return ref
        if mode is not None:
            self._alias(proc, ref, mode)
        proc.monitors[ref] = target
        if _side(target) != me[0]:
            self._send(me[0], ("MONITOR_P", me, target, ref))
        else:
            watched = self._find(target)
            if watched is None:
                self._down(me, ref, "noproc")
            else:
                self.watchers[ref] = (watched.key, me, target)
        return ref

    def demonitor(self, me: Key, ref: int, *, flush: bool) -> None:
        proc = self.procs[me]
        target = proc.monitors.pop(ref, None)
        self._monitor_ended(proc, ref)
        if target is None:
            if flush:
                proc.inbox = [message for message in proc.inbox if message[:2] != ("DOWN", ref)]
            return
        self._release(me, ref, target)

    def alias(self, me: Key, mode: str) -> int:
        ref = self.number()
        self._alias(self.procs[me], ref, mode)
        return ref

    def is_alias(self, ref: int) -> bool:
        """Whether it is one, or was."""
        return ref in self._alias_sides

    def unalias(self, me: Key, ref: int) -> None:
        if self.procs[me].aliases.pop(ref, None) is not None:
            del self.aliases[ref]

    def send(self, me: Key, dest: Target, number: int) -> None:
        """``dest`` may also be ``("alias", ref)``."""
        message = ("message", number, me)
        if dest[0] == "alias":
            if self._alias_sides[dest[1]] == me[0]:
                self._to_alias(dest[1], message)
            else:
                self._send(me[0], ("ALIAS_SEND", me, dest[1], message))
        elif _side(dest) != me[0]:
            self._send(me[0], ("REG_SEND" if dest[0] == "name" else "SEND", me, dest, message))
        else:
            self._to_process(dest, message)

    def exit(self, me: Key, you: Key, reason: Any) -> None:
        if me[0] != you[0]:
            self._send(me[0], ("EXIT2", me, you, reason))
        elif self.procs[you].alive:
            self._exit_signal(self.procs[you], me, reason, linked=False)

    def register(self, me: Key) -> bool:
        """Take the name of this side; False (``badarg``) if it is taken, or this process has it."""
        name = ("name", me[0])
        if name in self.names:
            return False
        self.names[name] = me
        return True

    def unregister(self, side: str) -> bool:
        return self.names.pop(("name", side), None) is not None

    def end(self, me: Key, reason: Any) -> None:
        """The process ends by itself."""
        self._terminate(self.procs[me], reason)

    # ----------------------------------------------------------------------------------------- what the network does

    def deliver(self, sender: str) -> None:
        """The oldest signal that ``sender`` sent arrives."""
        signal = self.queue[sender].popleft()
        handler = getattr(self, f"_in_{signal[0].lower()}")
        handler(other(sender), *signal[1:])

    def cut(self) -> None:
        """The connection breaks, and both sides notice; what is under way is lost."""
        if any(self.queue.values()):
            self.crossed["cut with signals under way"] += 1
        if any(unlink for proc in self.procs.values() for unlink in proc.links.values()):
            self.crossed["cut before the acknowledgement of an unlink"] += 1
        was_up = [side for side in SIDES if self.up[side]]
        for side in was_up:
            self.up[side] = False
        for queue in self.queue.values():
            queue.clear()
        for side in was_up:
            self._lose(side)

    def disconnect(self, side: str) -> None:
        """``erlang:disconnect_node/1``: the other side gets what is under way to it, and then the end."""
        self.up[side] = False
        self.queue[other(side)].clear()
        self.queue[side].append(("END",))
        self._lose(side)

    def _in_end(self, side: str) -> None:
        self.up[side] = False
        self._lose(side)

    def settle(self) -> None:
        """A side that wrote to a connection that the other has left finds it broken."""
        for side in sorted(self._broken):
            if self.up[side]:
                self.up[side] = False
                self.queue[other(side)].clear()
                self._lose(side)
        self._broken.clear()

    def _send(self, side: str, signal: Signal, *, connects: bool = True) -> None:
        """Only what a process does itself connects; what follows from its end is for those who are connected."""
        if not self.up[side]:
            if not connects:
                return
            if self.up[other(side)]:
                self.crossed["connected anew while the other side has not noticed"] += 1
                self.up[other(side)] = False
                self._lose(other(side))
            for queue in self.queue.values():
                queue.clear()
            self._broken.clear()
            self.up = {"a": True, "b": True}
        elif not self.up[other(side)]:
            self._broken.add(side)
            return
        self.queue[side].append(signal)
        self.sent[side].append(signal)

    def _lose(self, side: str) -> None:
        """Links and monitors over the connection end with ``noconnection``."""
        procs = [proc for proc in self.procs.values() if proc.key[0] == side]
        for ref, (watched, watcher, _) in list(self.watchers.items()):
            if watched[0] == side != watcher[0]:
                del self.watchers[ref]
        for proc in procs:
            for ref, target in list(proc.monitors.items()):
                if _side(target) != side:
                    self._down(proc.key, ref, "noconnection")
        for proc in procs:
            for you, unlinking in list(proc.links.items()):
                if you[0] != side and proc.links.pop(you, 0) is None and unlinking is None:
                    self._exit_signal(proc, you, "noconnection", linked=True)

    # ---------------------------------------------------------------------------------------------- signals that arrive

    def _in_link(self, side: str, sender: Key, me: Key) -> None:
        proc = self.procs[me]
        if not proc.alive:
            self.crossed["link crosses the end"] += 1
            self._send(side, ("EXIT", me, sender, "noproc"), connects=False)
        elif sender in proc.links:
            self.crossed["link crosses link" if proc.links[sender] is None else "link crosses unlink"] += 1
        else:
            proc.links[sender] = None

    def _in_unlink_id(self, side: str, unlink_id: int, sender: Key, me: Key) -> None:
        proc = self.procs[me]
        if not proc.alive:
            self.crossed["unlink crosses the end"] += 1
        elif sender in proc.links:
            if proc.links[sender] is None:
                del proc.links[sender]
            else:
                self.crossed["unlink crosses unlink"] += 1
        self._send(side, ("UNLINK_ID_ACK", unlink_id, me, sender), connects=False)

    def _in_unlink_id_ack(self, side: str, unlink_id: int, sender: Key, me: Key) -> None:
        if self.procs[me].links.get(sender) == unlink_id:
            del self.procs[me].links[sender]

    def _in_exit(self, side: str, sender: Key, me: Key, reason: Any) -> None:
        proc = self.procs[me]
        if not proc.alive or sender not in proc.links:
            return
        if proc.links.pop(sender) is None:
            self._exit_signal(proc, sender, reason, linked=True)
        else:
            self.crossed["unlink crosses exit"] += 1

    def _in_exit2(self, side: str, sender: Key, me: Key, reason: Any) -> None:
        if self.procs[me].alive:
            self._exit_signal(self.procs[me], sender, reason, linked=False)
        else:
            self.crossed["exit/2 crosses the end"] += 1

    def _in_monitor_p(self, side: str, sender: Key, target: Target, ref: int) -> None:
        watched = self._find(target)
        if watched is None:
            self.crossed["monitor crosses the end"] += target[0] != "name"
            self._send(side, ("MONITOR_P_EXIT", target, sender, ref, "noproc"), connects=False)
        else:
            self.watchers[ref] = (watched.key, sender, target)

    def _in_demonitor_p(self, side: str, sender: Key, target: Target, ref: int) -> None:
        if self.watchers.pop(ref, None) is None:
            self.crossed["DOWN crosses demonitor"] += 1

    def _in_monitor_p_exit(self, side: str, target: Target, me: Key, ref: int, reason: Any) -> None:
        if self.procs[me].alive and ref not in self.procs[me].monitors:
            self.crossed["demonitor crosses DOWN"] += 1
        self._down(me, ref, reason)

    def _in_send(self, side: str, sender: Key, dest: Target, message: Any) -> None:
        self.crossed["message crosses the end"] += not self.procs[dest].alive
        self._to_process(dest, message)

    def _in_reg_send(self, side: str, sender: Key, dest: Target, message: Any) -> None:
        self._to_process(dest, message)

    def _in_alias_send(self, side: str, sender: Key, ref: int, message: Any) -> None:
        if ref in self.spent:
            self.crossed["second message to an alias of one"] += 1
        elif ref not in self.aliases:
            self.crossed["message crosses unalias"] += 1
        self._to_alias(ref, message)

    # ----------------------------------------------------------------------------------------------------- what follows

    def _find(self, target: Target) -> Proc | None:
        key = self.names.get(target) if target[0] == "name" else target
        proc = None if key is None else self.procs[key]
        return proc if proc is not None and proc.alive else None

    def _to_process(self, dest: Target, message: Any) -> None:
        proc = self._find(dest)
        if proc is not None:
            proc.inbox.append(message)

    def _alias(self, proc: Proc, ref: int, mode: str) -> None:
        proc.aliases[ref] = mode
        self.aliases[ref] = proc.key
        self._alias_sides[ref] = proc.key[0]

    def _to_alias(self, ref: int, message: Any) -> None:
        key = self.aliases.get(ref)
        if key is None:
            return
        proc = self.procs[key]
        if proc.aliases[ref] in ("reply", "reply_demonitor"):
            mode = proc.aliases[ref]
            self.unalias(key, ref)
            self.spent.add(ref)
            if mode == "reply_demonitor":
                self.demonitor(key, ref, flush=False)
        proc.inbox.append(message)

    def _monitor_ended(self, proc: Proc, ref: int) -> None:
        if proc.aliases.get(ref) in ("demonitor", "reply_demonitor"):
            self.unalias(proc.key, ref)

    def _release(self, me: Key, ref: int, target: Target) -> None:
        if _side(target) == me[0]:
            self.watchers.pop(ref, None)
        else:
            self._send(me[0], ("DEMONITOR_P", me, target, ref), connects=False)

    def _down(self, me: Key, ref: int, reason: Any) -> None:
        proc = self.procs[me]
        target = proc.monitors.pop(ref, None)
        if target is not None and proc.alive:
            self._monitor_ended(proc, ref)
            proc.inbox.append(("DOWN", ref, target, reason))

    def _exit_signal(self, proc: Proc, sender: Key, reason: Any, *, linked: bool) -> None:
        """ERTS manual, "Receiving Exit Signals"."""
        if not proc.alive:
            return
        if reason == "kill" and not linked:
            self._terminate(proc, "killed")
        elif proc.trap:
            proc.inbox.append(("EXIT", sender, reason))
        elif reason != "normal" or sender == proc.key:
            self._terminate(proc, reason)

    def _terminate(self, proc: Proc, reason: Any) -> None:
        if not proc.alive:
            return
        proc.alive, proc.reason = False, reason
        self._dying.append((proc, reason))
        if self._reaping:
            return
        self._reaping = True
        while self._dying:
            self._reap(*self._dying.popleft())
        self._reaping = False

    def _reap(self, proc: Proc, reason: Any) -> None:
        me = proc.key
        self.names = {name: key for name, key in self.names.items() if key != me}
        for ref in list(proc.aliases):
            self.unalias(me, ref)
        monitors, proc.monitors = proc.monitors, {}
        for ref, target in monitors.items():
            self._release(me, ref, target)
        for ref, (watched, watcher, target) in list(self.watchers.items()):
            if watched == me:
                del self.watchers[ref]
                if watcher[0] == me[0]:
                    self._down(watcher, ref, reason)
                else:
                    self._send(me[0], ("MONITOR_P_EXIT", target, watcher, ref, reason), connects=False)
        links, proc.links = proc.links, {}
        for you, unlinking in links.items():
            if you[0] == me[0]:
                if self.procs[you].links.pop(me, 0) is None:
                    self._exit_signal(self.procs[you], me, reason, linked=True)
            elif unlinking is None:
                self._send(me[0], ("EXIT", me, you, reason), connects=False)


def _side(target: Target) -> str:
    """The side of a process or of a name."""
    return target[1] if target[0] == "name" else target[0]
