"""Why a TLS handshake failed, in words that say what to do. OpenSSL's own are known to few."""

from __future__ import annotations

import os
import re
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..errors import CertificateError, TlsError

if TYPE_CHECKING:
    from .tls_options import TlsClient, TlsServer


@dataclass(frozen=True, slots=True)
class HandshakeSide:
    """What messages need to know of a handshake."""

    options: TlsServer | TlsClient
    """Those of our side."""
    node: str | None = None
    """The node that was dialled; None for an accepted connection, whose node is not known yet."""
    host: str | None = None
    """What its certificate must be for."""

    @property
    def is_server(self) -> bool:
        """Whether the other side dialled."""
        return self.options.side == "server"

    @property
    def certificate(self) -> str:
        """The other side's, in words."""
        return "its certificate" if self.node is None else f"the certificate of {self.node}"

    @property
    def other(self) -> str:
        """The other side, in words."""
        return self.node or "it"

    @property
    def cacertfile(self) -> str:
        """Ours, in words."""
        assert isinstance(self.options.cacertfile, tuple)
        return f"cacertfile {', '.join(os.fspath(path) for path in self.options.cacertfile)}"

    def certificate_error(self, what: str) -> CertificateError:
        """The error that says ``what`` is wrong with the other side's certificate."""
        return CertificateError(f"{self.certificate} {what}")


_UNKNOWN_CA: Final = (
    "is not signed by a CA of {cacertfile}: add that CA there, or give that node a certificate of one of these"
)
_OTHER_HOST: Final = (
    "is not for {host}, the host in the node's name: issue one for it, or dial the node by a name that it is for"
)
#: OpenSSL's X509_V_ERR_*: what is wrong with the other side's certificate.
_VERIFY: Final = {
    2: _UNKNOWN_CA,
    9: "is not valid yet: are the clocks of both machines right?",
    10: "has expired: renew it there (are the clocks of both machines right?)",
    18: "is self-signed: have a CA of {cacertfile} sign one, or put it there itself",
    19: _UNKNOWN_CA,
    20: _UNKNOWN_CA,
    21: _UNKNOWN_CA,
    22: "has too many certificates between it and its CA",
    23: "was revoked",
    26: "is not for this use (extended key usage): a node needs serverAuth to be dialled and clientAuth to dial",
    62: _OTHER_HOST,
    64: _OTHER_HOST,
    66: "has a key that is too short to be safe",
}

#: Alerts with which the other side refuses our certificate.
_REFUSALS: Final = {
    "unknown_ca": "does not know the CA of this node's certificate: add that CA to its cacertfile",
    "certificate_expired": "says that this node's certificate has expired",
    "certificate_revoked": "says that this node's certificate was revoked",
    "certificate_required": "wants a certificate of this node: give certfile and keyfile in the {side} options",
    "bad_certificate": "refuses this node's certificate (alert bad_certificate): is it for the host in this node's "
    "name? its log may say why",
    "certificate_unknown": "refuses this node's certificate (alert certificate_unknown); its log may say why",
    "unsupported_certificate": "cannot use this node's certificate (alert unsupported_certificate): its key or its "
    "extended key usage is not for this, or an extension is marked critical that it does not know",
    "access_denied": "does not let this node's certificate in (alert access_denied)",
}

_NOTHING_IN_COMMON: Final = (
    "{other} and this node have no TLS version or cipher suite in common; this side has {versions}: compare the "
    "options versions and ciphers (a BEAM without versions speaks tlsv1.2 alone)"
)
_LOCAL: Final = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "{other} shows no certificate and fail_if_no_peer_cert asks for one: give "
    "certfile and keyfile in the client options there",
    "NO_CIPHERS_AVAILABLE": _NOTHING_IN_COMMON,
    "NO_PROTOCOLS_AVAILABLE": _NOTHING_IN_COMMON,
    "NO_SHARED_CIPHER": _NOTHING_IN_COMMON,
    "UNSUPPORTED_PROTOCOL": _NOTHING_IN_COMMON,
    "VERSION_TOO_HIGH": _NOTHING_IN_COMMON,
    "VERSION_TOO_LOW": _NOTHING_IN_COMMON,
    "WRONG_SSL_VERSION": _NOTHING_IN_COMMON,
    "WRONG_VERSION_NUMBER": _NOTHING_IN_COMMON,
}

_ALERT: Final = re.compile(r"(?:TLSV?\d*|SSLV3)_(?:ALERT_)?(?P<name>[A-Z_]+)\Z")


def explained(error: ssl.SSLError, side: HandshakeSide) -> TlsError:
    """The error to raise for one of OpenSSL's; the caller chains it."""
    words = {
        "other": side.other,
        "side": side.options.side,
        "host": side.host,
        "cacertfile": side.cacertfile,
        "versions": " and ".join(side.options.versions),
    }
    if isinstance(error, ssl.SSLCertVerificationError):
        what = _VERIFY.get(error.verify_code, f"is refused: {error.verify_message}")
        return side.certificate_error(what.format(**words))
    if isinstance(error, ssl.SSLEOFError):
        return TlsError(f"{side.other} hung up in the TLS handshake: does it speak TLS (-proto_dist inet_tls)?")
    reason = error.reason or "no reason was given"
    if reason in _LOCAL:
        kind = CertificateError if "CERTIFICATE" in reason else TlsError
        return kind(_LOCAL[reason].format(**words))
    match = _ALERT.match(reason)
    if match is None:
        return TlsError(f"the TLS handshake with {side.node or 'it'} failed: {reason.lower().replace('_', ' ')}")
    alert = match["name"].lower()
    if alert in _REFUSALS:
        return CertificateError(f"{side.other} {_REFUSALS[alert].format(**words)}")
    if alert == "protocol_version":
        return TlsError(_NOTHING_IN_COMMON.format(**words))
    if alert == "handshake_failure":
        # What a BEAM says for most things, among them a name in a certificate that is not the one it dialled.
        asked = "" if side.options.certfile is not None else ", or it wants a certificate of this node (certfile)"
        return TlsError(
            f"{side.other} broke off the TLS handshake (alert handshake_failure): its log says why; no cipher suite in "
            f"common, this node's certificate not being for the host in its name{asked}, or a signature it cannot check"
        )
    return TlsError(f"{side.other} broke off the TLS handshake (alert {alert}); its log says why")


def no_tls(arrived: bytes, side: HandshakeSide) -> TlsError:
    """The error to raise for a first portion of bytes that is no TLS record."""
    if not side.is_server:
        return TlsError(
            f"{side.other} does not speak TLS: start it with -proto_dist inet_tls, or open this node without tls="
        )
    name = _plain_name(arrived)
    if name is None:
        return TlsError(f"it sent {arrived[:16]!r}, which is no TLS; this port is that of a node that speaks TLS")
    return TlsError(
        f"{name} dials without TLS, and this node speaks TLS alone: start {name} with -proto_dist inet_tls "
        f"and its certificates, or open this node without tls="
    )


def _plain_name(arrived: bytes) -> str | None:
    """The name in the first message of a plain distribution handshake: 2 bytes of length, then ``N`` or ``n``."""
    end = 2 + int.from_bytes(arrived[:2], "big")
    match arrived[2:3]:
        case b"N" if len(arrived) > 17:
            name = arrived[17 : 17 + int.from_bytes(arrived[15:17], "big")]
        case b"n" if len(arrived) > 9:
            name = arrived[9:end]
        case _:
            return None
    text = name.decode("latin-1")
    return text if text.isprintable() and "@" in text else None
