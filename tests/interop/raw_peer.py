"""A node that is nothing but a socket behind a correct handshake: it says any bytes, and sees the bytes it is told."""

from __future__ import annotations

import itertools
import secrets
import socket
import struct
from typing import TYPE_CHECKING, Any, Final, Self

from erlang_interop.etf import encode
from erlang_interop.flags import OFFERED, DFlag
from erlang_interop.terms import Atom, Pid, Reference
from erlang_interop.wire.channel import DistChannel
from erlang_interop.wire.control import NO_PAYLOAD
from erlang_interop.wire.epmd import PortPlease2Reply, PortPlease2Request, ReplyReader, encode_request
from erlang_interop.wire.handshake import Established, Initiator
from tests.interop.collectors import IS_UP

if TYPE_CHECKING:
    from types import TracebackType

    from erlang_interop.testing.beam import Beam

LIMIT_S: Final = 20.0
CREATION: Final = 7
_numbers = itertools.count(1)

Signal = tuple[tuple[Any, ...], Any]

#: What two nodes may have agreed on, as far as the form of frames depends on it.
HEADER: Final = DFlag.DIST_HDR_ATOM_CACHE | DFlag.FRAGMENTS


class HungUp(Exception):
    """The other side closed the connection."""


class RawPeer:
    """Connected to ``beam`` with ``flags``; a context manager.

    Attributes:
        agreed: Flags of both.
        channel: Reads what the BEAM says (:meth:`signal`), and writes what is said in frames (:meth:`send`).
        pid: One of its processes, which exists in name only.
    """

    def __init__(self, beam: Beam, flags: DFlag = OFFERED, *, receive_buffer: int | None = None) -> None:
        self.beam = beam
        self.name = Atom(f"peer{next(_numbers)}_{secrets.token_hex(3)}@127.0.0.1")
        self.pid = Pid(self.name, 1, 0, CREATION)
        self._refs = itertools.count(1)
        self._socket = socket.socket()
        if receive_buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.settimeout(LIMIT_S)
        self._socket.connect(("127.0.0.1", self._port()))
        handshake = Initiator(self.name.name, beam.name, flags, CREATION, beam.cookie, secrets.randbits(32))
        established = None
        while established is None:
            self._socket.sendall(handshake.data_to_send())
            data = self._socket.recv(65536)
            assert data, handshake.connection_lost()
            for event in handshake.receive_data(data):
                if isinstance(event, Established):
                    established = event
        self.agreed = established.agreed
        self.channel = DistChannel(established.agreed, peer=established.peer)
        self._received = established.trailing_data
        self._signals: list[Signal] = []
        self._wait_until_it_knows()

    def _wait_until_it_knows(self) -> None:
        """Return when the BEAM has taken the connection as up.

        Before that it sends what its processes have for us as it does to a node it knows nothing of yet: in one frame,
        however big, with all atoms in full, and in the oldest form.
        """
        assert self.beam.eval_sync(f"polling:until(fun() -> {IS_UP} end, 20000)", N=self.name) is True

    def _port(self) -> int:
        request = PortPlease2Request(self.beam.name.partition("@")[0])
        reader = ReplyReader(request)
        with socket.create_connection(("127.0.0.1", self.beam.epmd_port), LIMIT_S) as epmd:
            epmd.sendall(encode_request(request))
            while (reply := reader.receive_data(epmd.recv(4096))) is None:
                pass
        assert isinstance(reply, PortPlease2Reply)
        assert reply.result == 0
        return reply.port

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def reference(self) -> Reference:
        """One that it has not used before."""
        return Reference(self.name, CREATION, struct.pack(">III", next(self._refs), 0, 0))

    # -- saying

    def say(self, data: bytes) -> None:
        """Send these bytes."""
        try:
            self._socket.sendall(data)
        except ConnectionError as error:
            raise HungUp(str(error)) from error

    def send(self, control: tuple[Any, ...], payload: Any = NO_PAYLOAD) -> None:
        """Send a signal as our node would."""
        self.channel.send(control, payload)
        self.say(self.channel.data_to_send())

    def plain(self, *terms: Any) -> bytes:
        """A frame of these terms in the form agreed on, with all atoms in full."""
        return plain_frame(self.agreed, *terms)

    # -- hearing

    def frame(self) -> bytes:
        """The next frame that is no tick, without its length.

        Raises:
            HungUp: The connection is at its end.
        """
        while True:
            if len(self._received) >= 4:
                end = 4 + int.from_bytes(self._received[:4], "big")
                if len(self._received) >= end:
                    frame, self._received = self._received[4:end], self._received[end:]
                    if frame:
                        return frame
                    continue
            try:
                data = self._socket.recv(1 << 20)
            except ConnectionError as error:
                raise HungUp(str(error)) from error
            if not data:
                raise HungUp("end of file")
            self._received += data

    def signal(self) -> Signal:
        """The next signal."""
        while not self._signals:
            self._signals += self.channel.receive_data(framed(self.frame()))
            assert self.channel.failure is None, self.channel.failure
        return self._signals.pop(0)

    def run(self, source: str, **bindings: Any) -> Any:
        """Evaluate Erlang in the BEAM; ``Pid`` is this node's."""
        return self.beam.eval_sync(source, Pid=self.pid, **bindings)

    def still_heard(self, echo: Pid) -> bool:
        """Whether ``echo`` (``plain_processes:spawn_echo/0``) still answers: all that was said before was taken."""
        marker = self.reference()
        try:
            self.say(self.plain((22, self.pid, echo), (self.pid, marker)))
            while True:
                control, payload = self.signal()
                if control[2] == self.pid and payload == (Atom("echo"), echo, marker):
                    return True
        except HungUp:
            return False


def framed(body: bytes) -> bytes:
    """``body`` with its length in front."""
    return struct.pack(">I", len(body)) + body


def plain_frame(agreed: DFlag, *terms: Any) -> bytes:
    """A frame of these terms in the form agreed on, with all atoms in full."""
    if agreed & HEADER:
        return framed(b"\x83D\0" + b"".join(encode(term)[1:] for term in terms))
    return framed(b"p" + b"".join(encode(term) for term in terms))


def fragment(kind: int, sequence: int, number: int, body: bytes) -> bytes:
    """A frame that is a fragment: ``kind`` is 69 for the first of a message, whose ``body`` begins with the header."""
    return framed(struct.pack(">BBQQ", 131, kind, sequence, number) + body)


def header_of(frame: bytes) -> tuple[int, bool, list[tuple[int, str | None]]]:
    """Read a frame's distribution header, after the drawing in the manual and without any atom cache.

    Returns:
        Where the terms begin, whether the atoms' lengths have 16 bits, and the references: slot, and text of a new one.
    """
    pos = {68: 2, 69: 18}[frame[1]]
    count = frame[pos]
    if count == 0:
        return pos + 1, False, []
    flags = frame[pos + 1 : pos + 2 + count // 2]
    nibbles = [byte >> shift & 15 for byte in flags for shift in (0, 4)]
    long_atoms = bool(nibbles[count] & 1)
    pos += 1 + len(flags)
    references: list[tuple[int, str | None]] = []
    for nibble in nibbles[:count]:
        slot = (nibble & 7) << 8 | frame[pos]
        pos += 1
        text = None
        if nibble & 8:
            size = int.from_bytes(frame[pos : pos + 1 + long_atoms], "big")
            pos += 1 + long_atoms
            text = frame[pos : pos + size].decode()
            pos += size
        references.append((slot, text))
    return pos, long_atoms, references
