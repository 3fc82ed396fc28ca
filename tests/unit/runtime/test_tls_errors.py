"""``runtime/tls_errors.py``: what test_tls.py does not bring about for real."""

from __future__ import annotations

import ssl

import pytest

from erlang_interop.errors import CertificateError, TlsError
from erlang_interop.runtime.tls_errors import HandshakeSide, explained, no_tls
from erlang_interop.runtime.tls_options import TlsClient, TlsServer

DIALLING = HandshakeSide(TlsClient(cacertfile=("one.pem", "two.pem")), "beam@one.example", "one.example")
DIALLED = HandshakeSide(TlsServer(cacertfile="ca.pem", certfile="node.pem"))


def refused(code: int, message: str = "") -> ssl.SSLError:
    error = ssl.SSLCertVerificationError()
    error.verify_code, error.verify_message = code, message
    return error


def failed(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {reason}] words (_ssl.c:1)")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (refused(9), "the certificate of beam@one.example is not valid yet: are the clocks of both machines right?"),
        (
            refused(18),
            "the certificate of beam@one.example is self-signed: have a CA of cacertfile one.pem, two.pem sign one, or "
            "put it there itself",
        ),
        (refused(23), "the certificate of beam@one.example was revoked"),
        (refused(99, "some reason"), "the certificate of beam@one.example is refused: some reason"),
        (
            failed("SSLV3_ALERT_BAD_CERTIFICATE"),
            "beam@one.example refuses this node's certificate (alert bad_certificate)",
        ),
        (failed("TLSV1_ALERT_ACCESS_DENIED"), "beam@one.example does not let this node's certificate in"),
        (
            failed("SSLV3_ALERT_CERTIFICATE_UNKNOWN"),
            "beam@one.example refuses this node's certificate (alert certificate",
        ),
        (failed("SSLV3_ALERT_UNSUPPORTED_CERTIFICATE"), "beam@one.example cannot use this node's certificate"),
    ],
)
def test_certificates(error: ssl.SSLError, message: str) -> None:
    explanation = explained(error, DIALLING)
    assert isinstance(explanation, CertificateError)
    assert str(explanation).startswith(message)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            failed("TLSV1_UNRECOGNIZED_NAME"),
            "it broke off the TLS handshake (alert unrecognized_name); its log says why",
        ),
        (
            failed("TLSV1_ALERT_INTERNAL_ERROR"),
            "it broke off the TLS handshake (alert internal_error); its log says why",
        ),
        (
            failed("SSLV3_ALERT_HANDSHAKE_FAILURE"),
            "it broke off the TLS handshake (alert handshake_failure): its log says",
        ),
        (failed("UNSAFE_LEGACY_THING"), "the TLS handshake with it failed: unsafe legacy thing"),
        (ssl.SSLEOFError(8, "EOF"), "it hung up in the TLS handshake: does it speak TLS (-proto_dist inet_tls)?"),
    ],
)
def test_other_failures(error: ssl.SSLError, message: str) -> None:
    explanation = explained(error, DIALLED)
    assert not isinstance(explanation, CertificateError)
    assert str(explanation).startswith(message)


def test_who_has_a_certificate_is_not_told_to_give_one() -> None:
    failure = failed("SSLV3_ALERT_HANDSHAKE_FAILURE")
    assert "wants a certificate of this node" in str(explained(failure, DIALLING))
    assert "wants a certificate of this node" not in str(explained(failure, DIALLED))


@pytest.mark.parametrize(
    "arrived",
    [
        b"",
        b"\x00\x15N",
        b"\x00\x15N" + bytes(12) + b"\x00\x06" + b"no\nde@",
        b"\x00\x15N" + bytes(12) + b"\x00\x04" + b"node",
        b"\x00\x0bnab",
    ],
)
def test_bytes_that_name_nobody(arrived: bytes) -> None:
    assert isinstance(no_tls(arrived, DIALLED), TlsError)
    assert str(no_tls(arrived, DIALLED)).startswith(f"it sent {arrived[:16]!r}, which is no TLS")
