"""TLS distribution, ``-proto_dist inet_tls``: a stream that encrypts, and the transport that makes such streams.

A :class:`TlsStream` has the interface of a plain one: ``receive_nowait`` and ``send_nowait`` never wait. OpenSSL works
on memory alone (``ssl.SSLObject``), so that one read of the socket brings many records, where a TLS socket would make
two system calls for each.

What goes through it differs from plain TCP in one thing: the messages of the distribution handshake have a length of 4
bytes, since ``inet_tls_dist`` sets ``{packet, 4}`` from the beginning.

Source: ssl/src/inet_tls_dist.erl.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import ssl
from typing import TYPE_CHECKING, Any, ClassVar, Final

import trio

from ..errors import TlsError, TlsOptionsError
from .tls_errors import HandshakeSide, explained, no_tls
from .transport import Stream, Transport

if TYPE_CHECKING:
    from .tls_options import TlsClient, TlsOptions, TlsServer

log = logging.getLogger("erlang_interop.tls")

#: Bytes of one read from a socket.
_READ_SIZE: Final = 64 * 1024
#: Plain bytes that are encrypted at once: four full records.
_CHUNK: Final = 64 * 1024
#: The first byte of a record with a handshake message, and of one with an alert.
_HANDSHAKE, _ALERT = 22, 21


class TlsStream(Stream):
    """An encrypted connection.

    Args:
        plain: The connection; it belongs to this object from now on.
        context: Made from the options of that side.
        side: Which one this is, for messages.
        hostname: What the other side's certificate must be for; None: anything.
        raw: 64 KiB to read into, shared by the streams of one loop: nothing stays there.
    """

    __slots__ = (
        "_arrived",
        "_cipher",
        "_incoming",
        "_more",
        "_outgoing",
        "_owed",
        "_raw",
        "_side",
        "_stuck",
        "_tls",
    )

    def __init__(
        self, plain: Stream, context: ssl.SSLContext, side: HandshakeSide, hostname: str | None, raw: memoryview
    ) -> None:
        self._socket = plain._socket
        self.address = plain.address
        self._side = side
        self._raw = raw
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=side.is_server, server_hostname=hostname
        )
        #: The first bytes that came, until the first record is there.
        self._arrived = b""
        #: Encrypted bytes that the socket has not taken.
        self._cipher = memoryview(b"")
        #: Plain bytes that are in ``_cipher`` and were not yet reported as sent: they are offered again, and skipped.
        self._owed = 0
        #: Whether there is something to read without waiting for the socket.
        self._more = False
        #: Set while nothing can be sent before something was read: new keys are being agreed on (TLS 1.2).
        self._stuck: trio.Event | None = None

    # -- the handshake

    async def shake_hands(self) -> None:
        """Do the TLS handshake.

        Raises:
            TlsError: it failed, or the other side does not speak TLS; a CertificateError where certificates are why.
            OSError: the connection broke.
        """
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                try:
                    await self._flush_all()
                    await trio.lowlevel.wait_readable(self._socket)
                    self._fill()
                except ConnectionError as error:
                    raise TlsError(
                        f"{self._side.other} broke the connection in the TLS handshake ({error}): its log may say why, "
                        f"or it does not speak TLS (-proto_dist inet_tls)"
                    ) from error
                self._look_at_first_bytes()
            except ssl.SSLError as error:
                self._flush_last()  # the alert that tells the other side
                raise explained(error, self._side) from error
            else:
                break
        self._check_depth()
        await self._flush_all()
        self._more = bool(self._incoming.pending)

    def _look_at_first_bytes(self) -> None:
        """Refuse what is no TLS at once: OpenSSL's words for it help nobody."""
        if len(self._arrived) < 3:
            return
        if self._arrived[0] not in (_HANDSHAKE, _ALERT) or self._arrived[1] != 3:
            raise no_tls(self._arrived, self._side)

    def _check_depth(self) -> None:
        """OpenSSL can limit the length of the chain, but Python has no call for that."""
        depth = self._side.options.depth
        if depth is None or not self._tls.getpeercert():
            return
        public = getattr(self._tls, "get_verified_chain", None)  # since Python 3.13
        chain: Any = public or self._tls._sslobj.get_verified_chain  # type: ignore[attr-defined]
        between = len(chain()) - 2
        if between > depth:
            raise self._side.certificate_error(
                f"has {between} certificates between it and its CA, and depth is {depth}"
            )

    # -- reading

    def receive_nowait(self, buffer: memoryview) -> int | None:
        """See ``Stream``. The end of the stream with or without a goodbye (close_notify) is the end, as in OTP."""
        room, got = len(buffer), 0
        self._more = False
        while got < room:
            try:
                size: Any = self._tls.read(room - got, buffer[got:] if got else buffer)
            except ssl.SSLWantReadError:
                if got:
                    break
                if not self._fill():
                    got = -1
                    break
                continue
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                size = 0
            except ssl.SSLError:
                self._flush_last()  # the alert that says why
                raise
            if not size:
                self._more = bool(got)  # the next call says that it is the end
                break
            got += size
        else:
            self._more = True
        if self._stuck is not None:
            self._stuck.set()
            self._stuck = None
        if self._outgoing.pending and not self._owed:
            self._flush_last()  # an answer to the peer's wish for new keys
        return None if got < 0 else got

    def _fill(self) -> bool:
        """Give OpenSSL what the socket has; False if it has nothing."""
        try:
            size = self._socket.recv_into(self._raw)
        except (BlockingIOError, InterruptedError):
            return False
        if not size:
            self._incoming.write_eof()
            return True
        if len(self._arrived) < 3:
            self._arrived += bytes(self._raw[: min(size, 512)])
        self._incoming.write(self._raw[:size])
        return True

    async def wait_readable(self) -> None:
        """Return when there is something to read, or the end."""
        if self._more:
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.wait_readable(self._socket)

    # -- writing

    def send_nowait(self, data: bytes | memoryview) -> int:
        """See ``Stream``. What it does not take must be offered again, the same bytes first: some are under way."""
        if len(self._cipher) and not self._flush():
            return 0
        sent, self._owed = self._owed, 0
        size = len(data)
        while sent < size:
            chunk = data[sent : sent + _CHUNK]
            try:
                self._tls.write(chunk)
            except ssl.SSLWantReadError:
                self._stuck = self._stuck or trio.Event()
                self._flush()
                break
            if not self._flush():
                self._owed = len(chunk)
                break
            sent += len(chunk)
        return sent

    def _flush(self) -> bool:
        """Offer the socket what is encrypted; True when it took all of it."""
        while True:
            if not len(self._cipher):
                if not self._outgoing.pending:
                    return True
                self._cipher = memoryview(self._outgoing.read())
            try:
                self._cipher = self._cipher[self._socket.send(self._cipher) :]
            except (BlockingIOError, InterruptedError):
                return False

    def _flush_last(self) -> None:
        """As ``_flush``, for what matters no more if the other side is gone: the next read says so."""
        with contextlib.suppress(OSError):
            self._flush()

    async def _flush_all(self) -> None:
        while not self._flush():
            await trio.lowlevel.wait_writable(self._socket)

    async def wait_writable(self) -> None:
        """Return when data is taken again."""
        if self._stuck is not None:
            await self._stuck.wait()
        await trio.lowlevel.wait_writable(self._socket)

    # -- for the distribution handshake, which explains what goes wrong

    async def receive_some(self, limit: int = 4096) -> bytes:
        """See ``Stream``. Raises TlsError as well: TLS 1.3 refuses a certificate only after the handshake."""
        try:
            return await super().receive_some(limit)
        except ssl.SSLError as error:
            raise explained(error, self._side) from error

    async def send_all(self, data: bytes) -> None:
        """See ``Stream``. Raises TlsError as well."""
        try:
            await super().send_all(data)
        except ConnectionError:
            self._raise_last_alert()
            raise

    def _raise_last_alert(self) -> None:
        """Whoever hung up on us may have said why before."""
        buffer = memoryview(bytearray(4096))
        try:
            while self.receive_nowait(buffer):
                pass
        except ssl.SSLError as error:
            raise explained(error, self._side) from error
        except OSError:
            return  # nothing was said; the caller raises what it has

    def vouches_for(self, node: str) -> bool:
        """Whether the certificate that was shown is one for the host of ``node``; True where none was asked for."""
        certificate = self._tls.getpeercert()
        return not certificate or _is_for(certificate, node.partition("@")[2])

    # -- its end

    def abort(self) -> None:
        """See ``Stream``. Says goodbye (close_notify) if the socket takes it at once."""
        if not self._owed and not self.closed:
            with contextlib.suppress(OSError, ValueError):  # it waits for the answer, or the end came before
                self._tls.unwrap()
            self._flush_last()
        super().abort()

    @property
    def version(self) -> str:
        """``TLSv1.2`` or ``TLSv1.3``."""
        return self._tls.version() or ""


def _is_for(certificate: Any, host: str) -> bool:
    """Whether a certificate (``getpeercert``) names ``host``: public_key:pkix_verify_hostname/2, as far as needed."""
    names = certificate.get("subjectAltName", ())
    hosts = [value for kind, value in names if kind == "DNS"]
    if not names:
        hosts = [value for part in certificate.get("subject", ()) for kind, value in part if kind == "commonName"]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return any(_matches(pattern.lower(), host.lower()) for pattern in hosts)
    return any(ipaddress.ip_address(value.strip()) == address for kind, value in names if kind == "IP Address")


def _matches(pattern: str, host: str) -> bool:
    if pattern.startswith("*.") and "." in pattern[2:]:  # not a whole top-level domain, as OpenSSL has it
        return host.partition(".")[2] == pattern[2:]
    return pattern == host


class _Context:
    """The context of one side, made again when one of its files has changed: certificates are renewed under way."""

    def __init__(self, options: TlsServer | TlsClient) -> None:
        self._options = options
        self._context = options.context()
        self._stamps = self._look()

    def get(self) -> ssl.SSLContext:
        """The context for one more connection."""
        stamps = self._look()
        if stamps != self._stamps:
            self._stamps = stamps
            try:
                self._context = self._options.context()
                log.info("TLS: the certificates of the %s side were read again", self._options.side)
            except TlsOptionsError as error:
                log.error("%s; what was read before stays in use", error)
        return self._context

    def _look(self) -> list[tuple[int, int, int] | None]:
        stamps: list[tuple[int, int, int] | None] = []
        for path in self._options.files:
            try:
                found = os.stat(path)
                stamps.append((found.st_mtime_ns, found.st_size, found.st_ino))
            except OSError:
                stamps.append(None)  # it is being replaced: seen when it is there again
        return stamps


class TlsTransport(Transport):
    """Distribution over TLS, both ways. Reads the files of the options at once.

    Raises:
        TlsOptionsError: a file cannot be used.
    """

    length_bytes: ClassVar[int] = 4
    doubts: ClassVar[str] = (
        "is the node suspended, does it not speak TLS (-proto_dist inet_tls), or is something else listening there?"
    )

    def __init__(self, options: TlsOptions) -> None:
        self._options = options
        self._server, self._client = _Context(options.server), _Context(options.client)
        self._raw = memoryview(bytearray(_READ_SIZE))
        for side in (options.server, options.client):
            if side.verify == "verify_none":
                log.warning(
                    "TLS: the %s side verifies nobody (verify_none): whoever has the cookie gets in, and whoever is in "
                    "the middle reads along; set verify_peer and cacertfile",
                    side.side,
                )

    async def secure_dialled(self, stream: Stream, node: str) -> Stream:
        """The TLS handshake with a node that was dialled; its certificate must be for the host in its name.

        Raises:
            TlsError: TLS did not come about; a CertificateError where a certificate is why.
            OSError: the connection broke.
        """
        named = self._options.client.server_name_indication or node.partition("@")[2]
        side = HandshakeSide(self._options.client, node, named)
        return await self._secured(stream, self._client, side, named)

    async def secure(self, stream: Stream) -> Stream:
        """The TLS handshake with a node that dialled us. Raises as ``secure_dialled``."""
        return await self._secured(stream, self._server, HandshakeSide(self._options.server), None)

    async def _secured(self, plain: Stream, context: _Context, side: HandshakeSide, hostname: str | None) -> Stream:
        try:
            try:
                stream = TlsStream(plain, context.get(), side, None if hostname == "disable" else hostname, self._raw)
            except ValueError as error:  # UnicodeError as well
                raise TlsError(f"{hostname!r} is no host name that a certificate can have: {error}") from error
            await stream.shake_hands()
        except BaseException:
            plain.close()
            raise
        return stream
