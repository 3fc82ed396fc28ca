"""What the pure cores under test ask of the process they run in, as far as all of them do; and who kills that."""

from __future__ import annotations

from erlang_interop import Atom, InlineServer, Pid, Reference, Term

HERE, THERE = Atom("here@test"), Atom("there@test")


class MonitoringPort:
    """Keeps the monitors of a process of ``HERE``."""

    def __init__(self) -> None:
        self.monitors: dict[Reference, Pid] = {}
        self._made = 0

    def monitor(self, pid: Pid) -> Reference:
        self._made += 1
        ref = Reference(HERE, 1, self._made.to_bytes(12, "big"))
        self.monitors[ref] = pid
        return ref

    def demonitor(self, ref: Reference) -> None:
        del self.monitors[ref]

    def refs_of(self, pid: Pid) -> list[Reference]:
        return [ref for ref, monitored in self.monitors.items() if monitored == pid]

    def fired(self, pid: Pid) -> list[Reference]:
        """The process is dead: the monitors that fire, which are gone by that."""
        refs = self.refs_of(pid)
        for ref in refs:
            del self.monitors[ref]
        return refs


class KillerAtALoss(InlineServer):
    """Kills ``victim`` when the node of ``linked`` is lost, before that one's monitors have fired; then it ends."""

    def __init__(self, linked: Pid, victim: Pid) -> None:
        self._linked = linked
        self._victim = victim

    def started(self) -> None:
        self.process.trap_exit = True
        self.process.link(self._linked)

    def handle_message(self, message: Term) -> None:
        self.process.exit(self._victim, Atom("kill"))
        self.process.exit(self.process.pid, Atom("kill"))
