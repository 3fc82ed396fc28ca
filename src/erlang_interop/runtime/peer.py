"""One connection, as the rest of the runtime sees it: where signals for a peer are put, and what it owes on loss.

A :class:`Peer` exists from the first signal meant for a node: while it is dialled its signals wait in a queue; once up
they become frames in the wire's out-buffer. That buffer is tried at the end of each pass of the loop without a task
switch (``flush``); the writer task only finishes what the socket did not take. Compiled.
"""

from __future__ import annotations

import enum
import logging
from typing import TYPE_CHECKING, Any, Final, cast, final

import trio

from .._native import mypyc_attr
from ..errors import EncodeError
from ..etf._encode import encode
from ..flags import DFlag
from ..wire.channel import NO_PAYLOAD, DistChannel
from ..wire.control import Op, without_altact
from .atoms import EMPTY, NOTSUP, UNENCODABLE_REASON

if TYPE_CHECKING:
    from collections.abc import Generator

    from ..terms import Atom, Pid, Reference, Term
    from ..wire.ticks import Ticker
    from .events import NodeKind
    from .spawning import SpawnRequest
    from .transport import Stream

log = logging.getLogger("erlang_interop.process")

#: Bytes waiting for a peer above which its senders are parked: ERTS' default ``+zdbbl``.
BUSY_LIMIT: Final = 1024 * 1024
#: Bytes at which the out-buffer is tried at once instead of at the end of the pass.
FLUSH_AT: Final = 64 * 1024
#: Signals that may wait for a node that is still being dialled before senders are parked.
PENDING_LIMIT: Final = 1000

_NOTHING: Final = memoryview(b"")

#: An iterator that has ended: awaiting it returns at once.
_DONE: Final = cast("Generator[Any, Any, None]", iter(()))

_DOWNGRADED: Final = {
    Op.PAYLOAD_EXIT: Op.EXIT,
    Op.PAYLOAD_EXIT_TT: Op.EXIT_TT,
    Op.PAYLOAD_EXIT2: Op.EXIT2,
    Op.PAYLOAD_MONITOR_P_EXIT: Op.MONITOR_P_EXIT,
}
#: What a node without both flags is not sent (``erts_dsig_send_monitor()``). A monitor on a process of such a node, a
#: simple C node, watches the connection alone.
_MONITORS: Final = DFlag.DIST_MONITOR | DFlag.DIST_MONITOR_NAME
_MONITORING: Final = frozenset({Op.MONITOR_P, Op.DEMONITOR_P, Op.MONITOR_P_EXIT, Op.PAYLOAD_MONITOR_P_EXIT})
#: Where the trace token stands, and what is sent without one.
_UNTRACED: Final = {
    Op.SEND_SENDER_TT: (3, Op.SEND_SENDER),
    Op.REG_SEND_TT: (4, Op.REG_SEND),
    Op.ALIAS_SEND_TT: (3, Op.ALIAS_SEND),
    Op.PAYLOAD_EXIT_TT: (3, Op.PAYLOAD_EXIT),
    Op.SPAWN_REQUEST_TT: (6, Op.SPAWN_REQUEST),
    Op.SPAWN_REPLY_TT: (5, Op.SPAWN_REPLY),
}


def reason_as_text(reason: Term) -> Term:
    """What stands for an exit reason that cannot be encoded: the signal itself must go out."""
    return UNENCODABLE_REASON, repr(reason)[:1024]


class PeerState(enum.Enum):
    """The life of one :class:`Peer` object; it is never reused for a second connection."""

    PENDING = "pending"
    UP = "up"
    DOWN = "down"


@final
class Sending:
    """What ``send`` returns: await it to be parked while the peer is busy. One object for each peer."""

    __slots__ = ("_awaited", "_peer")

    def __init__(self, peer: Peer | None) -> None:
        self._peer = peer
        self._awaited = 0

    def __await__(self) -> Generator[Any, Any, None]:
        peer = self._peer
        if peer is not None and peer.busy:
            return peer.wait_not_busy().__await__()
        # A checkpoint for each message would cost more than the message; one in 64 keeps the loop fair.
        self._awaited += 1
        if self._awaited >= 64:
            self._awaited = 0
            return trio.lowlevel.checkpoint().__await__()  # noqa: ASYNC105 - this is how __await__ awaits
        return _DONE


#: The result of a send that stays on this node.
SENT: Final = Sending(None)


@mypyc_attr(allow_interpreted_subclasses=True)
class Peer:
    """A node at the other end. Attributes that describe the connection are None until it is up."""

    def __init__(self, name: Atom, dirty: list[Peer]) -> None:
        self.name = name
        self.state = PeerState.PENDING
        self.conn_id = 0
        self.flags = DFlag(0)
        self.agreed = DFlag(0)
        self.creation = 0
        self.address = ""
        self.since = 0.0
        self.hidden = True
        self.wire: DistChannel | None = None
        self.stream: Stream | None = None
        self.ticker: Ticker | None = None
        #: Why the connection ends, if we end it: read by the reader task when the socket closes.
        self.closing: Term = None
        self.sending = Sending(self)
        #: Set when the attempt has an outcome; ``failure`` is then None or the ConnectError.
        self.settled = trio.Event()
        self.failure: Exception | None = None
        #: Set when nothing more is owed for this connection: a new one may come up.
        self.gone = trio.Event()
        # What this side holds over the connection, so that its loss costs what it owns and not a scan of every process.
        #: Monitors held here on processes there: reference -> who holds it.
        self.monitors: dict[Reference, Pid] = {}
        #: Monitors held there on processes here: reference -> the process here.
        self.watched: dict[Reference, Pid] = {}
        #: Links: process here -> processes there.
        self.links: dict[Pid, set[Pid]] = {}
        #: Spawn requests that it has not answered yet.
        self.spawns: dict[Reference, SpawnRequest] = {}
        #: Whether it understands ALTACT_SIG_SEND. Taken for granted until it is known: see release_queue.
        self.altact = True
        #: Whether it starts processes by request, taken for granted in the same way.
        self.can_spawn = True
        #: Processes here that monitor the node (``monitor_node/2``), and how often.
        self.node_monitors: dict[Pid, int] = {}
        self._queue: list[tuple[tuple[Any, ...], Any]] = []
        self._queued_bytes = 0
        #: The rest of what was offered to the socket last.
        self._tail = _NOTHING
        self._dirty = dirty
        self._is_dirty = False
        self._old_forms = False
        self._unsent = trio.Event()
        self._drained = trio.Event()
        self._waiting = trio.lowlevel.ParkingLot()
        self._token: trio.lowlevel.TrioToken | None = None

    def __repr__(self) -> str:
        return f"<Peer {self.name.name} {self.state.value} conn {self.conn_id}>"

    @property
    def type(self) -> NodeKind:
        """``visible`` if the node is published, as ``nodes/0`` sees it."""
        return "hidden" if self.hidden else "visible"

    @property
    def entries(self) -> int:
        """How many links, monitors and spawn requests the tables above hold."""
        links = sum(len(remotes) for remotes in self.links.values())
        return links + len(self.monitors) + len(self.watched) + len(self.node_monitors) + len(self.spawns)

    # -- sending

    def emit(self, control: tuple[Any, ...], payload: Any = NO_PAYLOAD) -> None:
        """Put one signal under way, behind those before it. After the loss of the connection: nothing happens."""
        wire = self.wire
        if wire is None:
            if self.state is PeerState.PENDING:
                if payload is not NO_PAYLOAD:
                    # What cannot be sent is the sender's error, now and not when the node is there.
                    self._queued_bytes += len(encode(payload))
                self._queue.append((control, payload))
            return
        if self._old_forms:
            if control[0] in _MONITORING and self.agreed & _MONITORS != _MONITORS:
                return
            control, payload = self._in_old_form(control, payload)
        wire.send(control, payload)
        if wire.pending >= FLUSH_AT:
            self.flush()
        elif not self._is_dirty:
            self._is_dirty = True
            self._dirty.append(self)

    def _in_old_form(self, control: tuple[Any, ...], payload: Any) -> tuple[tuple[Any, ...], Any]:
        """The same signal for a peer from before OTP 21 or 22, such as a C node."""
        if control[0] in _UNTRACED and not self.agreed & DFlag.BIG_SEQTRACE_LABELS:
            at, untraced = _UNTRACED[control[0]]
            label = control[at][1]
            if type(label) is not int or not -(1 << 27) <= label < 1 << 27:  # can_send_seqtrace_token() of dist.c
                control = (int(untraced), *control[1:at])
        if control[0] in _DOWNGRADED and not self.agreed & DFlag.EXIT_PAYLOAD:
            return (int(_DOWNGRADED[control[0]]), *control[1:], payload), NO_PAYLOAD
        if control[0] == Op.SEND_SENDER and not self.agreed & DFlag.SEND_SENDER:
            return (int(Op.SEND), EMPTY, control[2]), payload
        if control[0] == Op.SEND_SENDER_TT and not self.agreed & DFlag.SEND_SENDER:
            return (int(Op.SEND_TT), EMPTY, *control[2:]), payload
        return control, payload

    def emit_tick(self) -> None:
        """Send a tick now."""
        if self.wire is not None:
            self.wire.send_tick()
            self.flush()

    def flush(self) -> None:
        """Offer the socket what waits. Never blocks; what it does not take is the writer task's."""
        self._is_dirty = False
        wire, stream = self.wire, self.stream
        if wire is None or stream is None or len(self._tail):
            return
        if wire.pending:
            self._send(stream, wire.data_to_send())
            if len(self._tail) and self._token is not None:
                # From outside a task step (the end of a pass) only this wakes the loop as well as the writer.
                self._token.run_sync_soon(self._unsent.set, idempotent=True)

    def _send(self, stream: Stream, data: bytes | memoryview) -> None:
        """Offer ``data`` to the socket; what it does not take is the tail then."""
        try:
            sent = stream.send_nowait(data)
        except OSError:
            # The reader sees the end of the connection and says why; bytes for a dead peer are nobody's.
            self._tail = _NOTHING
            stream.abort()
            return
        self._tail = _NOTHING if sent == len(data) else memoryview(data)[sent:]

    async def write(self) -> None:
        """The writer task: runs for the life of the connection, busy only while the socket is full."""
        stream, wire = self.stream, self.wire
        assert stream is not None
        assert wire is not None
        while True:
            await self._unsent.wait()
            self._unsent = trio.Event()
            while len(self._tail) or wire.pending:
                if not len(self._tail):
                    self._tail = memoryview(wire.data_to_send())
                await stream.wait_writable()
                self._send(stream, self._tail)
                if not self.busy:
                    self._waiting.unpark_all()
            self._drained.set()

    @property
    def unsent(self) -> int:
        """Bytes that wait for the socket."""
        return len(self._tail) + (self.wire.pending if self.wire is not None else 0)

    @property
    def busy(self) -> bool:
        """Whether senders are parked: more than the busy limit waits."""
        if self.wire is None:
            return len(self._queue) > PENDING_LIMIT or self._queued_bytes > BUSY_LIMIT
        return len(self._tail) + self.wire.pending > BUSY_LIMIT

    async def wait_not_busy(self) -> None:
        """Return when the peer takes data again, or is gone."""
        self.flush()
        while self.busy and self.state is not PeerState.DOWN:
            await self._waiting.park()

    async def drained(self) -> None:
        """Return when the socket has taken everything, or the connection is gone."""
        while self.state is PeerState.UP and self.unsent:
            self.flush()
            if self.unsent:
                self._drained = trio.Event()
                await self._drained.wait()

    # -- its life

    def up(self, stream: Stream, wire: DistChannel, ticker: Ticker) -> None:
        """The handshake is through: what waited becomes frames, in order."""
        self.stream, self.wire, self.ticker = stream, wire, ticker
        self.state = PeerState.UP
        newer = DFlag.EXIT_PAYLOAD | DFlag.SEND_SENDER | DFlag.BIG_SEQTRACE_LABELS | _MONITORS
        self._old_forms = self.agreed & newer != newer
        self.altact = bool(self.agreed & DFlag.ALTACT_SIG)
        self.can_spawn = bool(self.agreed & DFlag.SPAWN)
        self._token = trio.lowlevel.current_trio_token()

    def release_queue(self) -> None:
        """Send what was put here while the connection was being made.

        Only now it is known what the peer can read. A message that it cannot (one with a native record, if it is older
        than OTP 29) was accepted from its sender: it is dropped, and the log says so.
        """
        queue, self._queue, self._queued_bytes = self._queue, [], 0
        for control, payload in queue:
            try:
                self._release(control, payload)
            except EncodeError as error:
                if control[0] in _DOWNGRADED:
                    log.warning("an exit reason cannot be sent to %s: %s; it goes as text", self.name.name, error)
                    self.emit(control, reason_as_text(payload))
                elif not self._spawn_failed(control):
                    log.error("dropping a message that waited for %s: %s", self.name.name, error)
        self._waiting.unpark_all()

    def _release(self, control: tuple[Any, ...], payload: Any) -> None:
        """Send one signal, in a form that the peer knows."""
        op = control[0]
        if op == Op.ALTACT_SIG_SEND and not self.altact:
            older = without_altact(control)
            if older is not None:
                self.emit(older, payload)
        elif self.can_spawn or not self._spawn_failed(control):
            self.emit(control, payload)

    def _spawn_failed(self, control: tuple[Any, ...]) -> bool:
        """Whether ``control`` is a spawn request; it then has failed, as one that the peer does not support."""
        if control[0] not in (Op.SPAWN_REQUEST, Op.SPAWN_REQUEST_TT):
            return False
        request = self.spawns.pop(control[1], None)
        if request is not None:
            request.failed(NOTSUP)
        return True

    def down(self) -> None:
        """The connection (or the attempt) is over. What it owed is handed out by the router."""
        self.state = PeerState.DOWN
        self.wire = None
        self._tail = _NOTHING
        self._queue, self._queued_bytes = [], 0
        self._drained.set()
        self._waiting.unpark_all()
        if self.stream is not None:
            self.stream.close()
