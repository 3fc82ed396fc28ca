"""One side of a script: processes of a node of ours that do what they are told, and are looked at from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import trio

from erlang_interop import Atom, Exit, InlineServer, Node, Pid, Process, Reference
from erlang_interop.flags import OFFERED
from erlang_interop.wire.channel import DistChannel
from erlang_interop.wire.control import Op

if TYPE_CHECKING:
    from erlang_interop.runtime import LocalProcess
    from tests.signals.model import Key, Signal, Target

NAME = Atom("the_name")
_END = Atom("$end")


class Registry:
    """What the model's keys and numbers are in reality."""

    def __init__(self, names: dict[str, str]) -> None:
        self.nodes = {side: Atom(name) for side, name in names.items()}
        self.sides = {node: side for side, node in self.nodes.items()}
        self.pids: dict[Key, Pid] = {}
        self.keys: dict[Pid, Key] = {}
        self.refs: dict[int, Reference] = {}
        self.numbers: dict[Reference, int] = {}
        #: By the two processes, and the identifier that the first sent the second; it counts for these two alone.
        self.unlinks: dict[tuple[Key, Key, int], int] = {}

    def add_pid(self, key: Key, pid: Pid) -> None:
        self.pids[key], self.keys[pid] = pid, key

    def add_ref(self, number: int, ref: Reference) -> None:
        self.refs[number], self.numbers[ref] = ref, number

    def target(self, target: Target) -> Any:
        """What a process or a name of the model is called by a process."""
        if target[0] == "alias":
            return self.refs[target[1]]
        if target[0] == "name":
            return (NAME, self.nodes[target[1]])
        return self.pids[target]

    def term(self, reason: Any) -> Any:
        return Atom(reason) if isinstance(reason, str) else (Atom(reason[0]), reason[1])

    def reason(self, term: Any) -> Any:
        return term.name if isinstance(term, Atom) else (term[0].name, term[1])

    def message(self, term: Any) -> Any:
        """A received message in the words of the model."""
        match term:
            case (Atom("DOWN"), ref, Atom("process"), shown, reason):
                return ("DOWN", self.numbers[ref], self.shown(shown), self.reason(reason))
            case (Atom("EXIT"), pid, reason):
                return ("EXIT", self.keys[pid], self.reason(reason))
            case (Atom("message"), number, pid):
                return ("message", number, self.keys[pid])
        return term

    def shown(self, shown: Any) -> Any:
        if type(shown) is Pid:
            return self.keys.get(shown, shown)
        name, node = shown
        assert name == NAME
        return ("name", self.sides[node])

    def states(self, looked: dict[Key, dict[str, Any]]) -> dict[Key, dict[str, Any]]:
        """What ``Side.look`` found, in the words of the model."""
        return {
            key: {
                **state,
                "inbox": sorted((self.message(message) for message in state["inbox"]), key=repr),
                "links": sorted(self.keys[pid] for pid in state["links"]),
            }
            for key, state in looked.items()
        }

    def signal(self, sender: str, receiver: str, control: tuple[Any, ...], payload: Any) -> Signal:
        """A control message in the words of the model; ``("OTHER", ...)`` for what no process of the script sent."""
        op, rest = Op(control[0]), control[1:]
        key = self.keys.get
        match op:
            case Op.LINK:
                return ("LINK", key(rest[0]), key(rest[1]))
            case Op.UNLINK_ID | Op.UNLINK_ID_ACK:
                return (op.name, rest[0], key(rest[1]), key(rest[2]))
            # A BEAM that dials for a signal does not know yet what the other can do, and writes it in the old form.
            case Op.PAYLOAD_EXIT | Op.EXIT:
                return ("EXIT", key(rest[0]), key(rest[1]), self.reason(payload if len(rest) == 2 else rest[2]))
            case Op.PAYLOAD_EXIT2 | Op.EXIT2:
                return ("EXIT2", key(rest[0]), key(rest[1]), self.reason(payload if len(rest) == 2 else rest[2]))
            case Op.MONITOR_P | Op.DEMONITOR_P:
                return (op.name, key(rest[0]), self._proc(rest[1], receiver), self.numbers.get(rest[2], rest[2]))
            case Op.PAYLOAD_MONITOR_P_EXIT | Op.MONITOR_P_EXIT:
                shown, to_pid, ref = self._proc(rest[0], sender), key(rest[1]), self.numbers.get(rest[2])
                return ("MONITOR_P_EXIT", shown, to_pid, ref, self.reason(payload if len(rest) == 3 else rest[3]))
            case Op.SEND_SENDER | Op.SEND if key(rest[1]) is not None:
                message = self.message(payload)
                return ("SEND", message[2], key(rest[1]), message)
            case Op.REG_SEND if rest[2] == NAME:
                return ("REG_SEND", key(rest[0]), ("name", receiver), self.message(payload))
            case Op.ALIAS_SEND:
                return ("ALIAS_SEND", key(rest[0]), self.numbers[rest[1]], self.message(payload))
            case Op.ALTACT_SIG_SEND if rest[0] == 4:  # OTP 28 sends to aliases so
                return ("ALIAS_SEND", key(rest[1]), self.numbers[rest[2]], self.message(payload))
        return ("OTHER", op.name, rest)

    def _proc(self, proc: Any, side: str) -> Any:
        return self.keys.get(proc, proc) if type(proc) is Pid else ("name", side)


class Tap:
    """Reads one direction of a connection, as it is written."""

    def __init__(self, registry: Registry, sender: str, receiver: str, log: bytearray) -> None:
        self._channel = DistChannel(OFFERED, peer=registry.nodes[sender].name)
        self._ends = sender, receiver
        self._registry = registry
        self._log = log
        self._read = 0

    def signals(self) -> list[Signal]:
        """Those that came since the last look."""
        data = bytes(self._log[self._read :])
        self._read += len(data)
        signals = [self._registry.signal(*self._ends, *signal) for signal in self._channel.receive_data(data)]
        assert self._channel.failure is None, self._channel.failure
        return signals


class Side(Protocol):
    """What a script does to one side. References are made there; the player tells the registry."""

    async def spawn(self, key: Key) -> Pid: ...
    async def link(self, me: Key, you: Pid) -> None: ...
    async def unlink(self, me: Key, you: Pid) -> None: ...
    async def trap(self, me: Key, on: bool) -> None: ...
    async def monitor(self, me: Key, target: Any, mode: str | None) -> Reference: ...
    async def demonitor(self, me: Key, ref: Reference, flush: bool) -> None: ...
    async def alias(self, me: Key, mode: str) -> Reference: ...
    async def unalias(self, me: Key, ref: Reference) -> None: ...
    async def send(self, me: Key, dest: Any, message: Any) -> None: ...
    async def exit(self, me: Key, you: Pid, reason: Any) -> None: ...
    async def register(self, me: Key) -> None: ...
    async def unregister(self) -> None: ...
    async def end(self, me: Key, reason: Any) -> None: ...
    async def look(self) -> dict[Key, dict[str, Any]]:
        """Each living process: its ``inbox`` (raw terms), ``links``, how many ``monitors`` and ``watchers``."""
        ...


class _Recorder(InlineServer):
    """A process without a mailbox: it keeps what it gets."""

    def __init__(self) -> None:
        self.inbox: list[Any] = []

    def handle_message(self, message: Any) -> None:
        match message:
            case (tag, reason) if tag == _END:
                raise Exit(reason)
        self.inbox.append(message)


class OurSide:
    """Processes of a node of ours: every other one is an inline server, the rest are tasks with a mailbox."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._processes: dict[Key, LocalProcess] = {}
        self._recorders: dict[Key, _Recorder] = {}
        self._ends: dict[Key, trio.Event] = {}
        self._reasons: dict[Key, Any] = {}

    def process(self, key: Key) -> LocalProcess:
        return self._processes[key]

    def has_mailbox(self, key: Key) -> bool:
        return key not in self._recorders

    async def spawn(self, key: Key) -> Pid:
        if key[1] % 2:
            recorder = self._recorders[key] = _Recorder()
            pid = self.node.start_inline(recorder)
            self._processes[key] = recorder.process
            return pid
        self._ends[key] = trio.Event()
        started = trio.Event()

        async def run(process: Process) -> None:
            self._processes[key] = process
            started.set()
            await self._ends[key].wait()
            raise Exit(self._reasons[key])

        pid = self.node.spawn(run)
        await started.wait()
        return pid

    async def link(self, me: Key, you: Pid) -> None:
        self._processes[me].link(you)

    async def unlink(self, me: Key, you: Pid) -> None:
        self._processes[me].unlink(you)

    async def trap(self, me: Key, on: bool) -> None:
        self._processes[me].trap_exit = on

    async def monitor(self, me: Key, target: Any, mode: str | None) -> Reference:
        return self._processes[me].monitor(target, alias=mode)

    async def demonitor(self, me: Key, ref: Reference, flush: bool) -> None:
        self._processes[me].demonitor(ref, flush=flush)

    async def alias(self, me: Key, mode: str) -> Reference:
        return self._processes[me].alias(reply=mode == "reply")

    async def unalias(self, me: Key, ref: Reference) -> None:
        self._processes[me].unalias(ref)

    async def send(self, me: Key, dest: Any, message: Any) -> None:
        self._processes[me].send(dest, message)

    async def exit(self, me: Key, you: Pid, reason: Any) -> None:
        self._processes[me].exit(you, reason)

    async def register(self, me: Key) -> None:
        self._processes[me].register(NAME)

    async def unregister(self) -> None:
        self.node.unregister(NAME)

    async def end(self, me: Key, reason: Any) -> None:
        if me in self._recorders:
            self.node.send(self._processes[me].pid, (_END, reason))
        else:
            self._reasons[me] = reason
            self._ends[me].set()

    async def look(self) -> dict[Key, dict[str, Any]]:
        return {
            key: {
                "inbox": list(self._inbox(key)),
                "links": [pid for pid, link in process.links.items() if link.active],
                "monitors": len(process.monitors),
                "watchers": len(process.watchers),
            }
            for key, process in self._processes.items()
            if process.alive
        }

    def _inbox(self, key: Key) -> Any:
        if key in self._recorders:
            return self._recorders[key].inbox
        process = self._processes[key]
        assert isinstance(process, Process)
        return process.mailbox._messages  # nobody is to receive them: flush looks for its DOWN there
