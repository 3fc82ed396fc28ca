"""``runtime/tls_errors.py``: both sides' words for handshakes that fail, and OpenSSL's that are not easily had."""

from __future__ import annotations

import logging
import ssl
from typing import TYPE_CHECKING

import pytest

from erlang_interop.errors import CertificateError, TlsError
from erlang_interop.runtime.tls import TlsStream, TlsTransport
from erlang_interop.runtime.tls_errors import HandshakeSide, explained, no_tls
from erlang_interop.runtime.tls_options import TlsClient, TlsOptions, TlsServer
from tests.certificates import HOST, Authority, options
from tests.secured import NODE, attempt, pair

if TYPE_CHECKING:
    from pathlib import Path

DIALLING = HandshakeSide(TlsClient(cacertfile=("one.pem", "two.pem")), "beam@one.example", "one.example")
DIALLED = HandshakeSide(TlsServer(cacertfile="ca.pem", certfile="node.pem"))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def verification(code: int, message: str = "") -> ssl.SSLError:
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
        (
            verification(9),
            "the certificate of beam@one.example is not valid yet: are the clocks of both machines right?",
        ),
        (
            verification(18),
            "the certificate of beam@one.example is self-signed: have a CA of cacertfile one.pem, two.pem sign one, or "
            "put it there itself",
        ),
        (verification(23), "the certificate of beam@one.example was revoked"),
        (verification(99, "some reason"), "the certificate of beam@one.example is refused: some reason"),
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


# ------------------------------------------------------------------------------------------------- who is not let in


async def refused(client: TlsOptions, server: TlsOptions, node: str = NODE) -> tuple[str, str]:
    """Both sides' words for why there is no connection. In TLS 1.3 the dialling side hears of it when it reads."""
    one, other = await attempt(TlsTransport(client), TlsTransport(server), node)
    if isinstance(one, TlsStream):
        with pytest.raises((TlsError, OSError)) as caught:
            await one.receive_some()
        one.close()
        one = caught.value
    if isinstance(other, TlsStream):
        with pytest.raises((TlsError, OSError)) as caught:
            await other.receive_some()
        other.close()
        other = caught.value
    assert isinstance(one, TlsError), one
    assert isinstance(other, TlsError), other
    return str(one), str(other)


@pytest.mark.parametrize("version", ["tlsv1.2", "tlsv1.3"])
async def test_the_dialled_node_is_of_another_ca(tmp_path: Path, version: str) -> None:
    ours, theirs = Authority(tmp_path), Authority(tmp_path)
    client, server = await refused(
        options(ours, ours.issue(), versions=(version,)), options(theirs, theirs.issue(), trusted=ours.file)
    )
    assert client == (
        f"the certificate of {NODE} is not signed by a CA of cacertfile {ours.file}: add that CA there, or give that "
        f"node a certificate of one of these"
    )
    assert server == "it does not know the CA of this node's certificate: add that CA to its cacertfile"


@pytest.mark.parametrize("version", ["tlsv1.2", "tlsv1.3"])
async def test_the_dialling_node_is_of_another_ca(tmp_path: Path, version: str) -> None:
    ours, theirs = Authority(tmp_path), Authority(tmp_path)
    client, server = await refused(
        options(ours, ours.issue(), trusted=theirs.file, versions=(version,)), options(theirs, theirs.issue())
    )
    assert client == f"{NODE} does not know the CA of this node's certificate: add that CA to its cacertfile"
    assert server.startswith(f"its certificate is not signed by a CA of cacertfile {theirs.file}: ")


@pytest.mark.parametrize("version", ["tlsv1.2", "tlsv1.3"])
async def test_the_dialling_node_shows_no_certificate(authority: Authority, version: str) -> None:
    server = authority.options()
    client = TlsOptions(server.server, TlsClient(cacertfile=authority.file, versions=(version,)))
    one, other = await refused(client, server)
    if version == "tlsv1.3":
        assert one == f"{NODE} wants a certificate of this node: give certfile and keyfile in the client options"
    else:
        assert "or it wants a certificate of this node (certfile)" in one
    assert other == (
        "it shows no certificate and fail_if_no_peer_cert asks for one: give certfile and keyfile in the client "
        "options there"
    )


async def test_a_certificate_is_asked_for_but_not_demanded(authority: Authority) -> None:
    both = authority.options()
    server = TlsServer(cacertfile=authority.file, certfile=authority.issue(), fail_if_no_peer_cert=False)
    async with pair(TlsOptions(both.server, TlsClient(cacertfile=authority.file)), TlsOptions(server, both.client)) as (
        _,
        accepted,
    ):
        assert accepted.vouches_for("anybody@anywhere")
    stranger = Authority(authority.folder)
    one, _ = await refused(options(stranger, stranger.issue(), trusted=authority.file), TlsOptions(server, both.client))
    assert "does not know the CA of this node's certificate" in one


@pytest.mark.parametrize("expired", ["client", "server"])
async def test_a_certificate_has_expired(authority: Authority, expired: str) -> None:
    good, bad = options(authority, authority.issue()), options(authority, authority.issue(expired=True))
    client, server = await refused(*((bad, good) if expired == "client" else (good, bad)))
    if expired == "client":
        assert server.startswith("its certificate has expired: renew it there")
        assert client == f"{NODE} says that this node's certificate has expired"
    else:
        assert client.startswith(f"the certificate of {NODE} has expired: renew it there")
        assert server == "it says that this node's certificate has expired"


@pytest.mark.parametrize(("node", "issued"), [(NODE, "other.example"), ("node@one.example", "other.example")])
async def test_a_certificate_is_for_another_host(authority: Authority, node: str, issued: str) -> None:
    client, _ = await refused(authority.options(), authority.options(issued), node)
    host = node.partition("@")[2]
    assert client == (
        f"the certificate of {node} is not for {host}, the host in the node's name: issue one for it, or dial the node "
        f"by a name that it is for"
    )


@pytest.mark.parametrize(
    ("node", "issued"),
    [("n@one.example", "one.example"), ("n@a.one.example", "*.one.example"), ("n@short", "short"), (NODE, HOST)],
)
async def test_a_certificate_is_for_the_host_in_the_nodes_name(authority: Authority, node: str, issued: str) -> None:
    """Not for the address that the name leads to, here always the loopback one."""
    one, other = await attempt(TlsTransport(authority.options()), TlsTransport(authority.options(issued)), node)
    assert isinstance(one, TlsStream), one
    assert isinstance(other, TlsStream), other
    one.close()
    other.close()


async def test_another_name_or_none_may_be_looked_for(authority: Authority) -> None:
    server = authority.options("cluster.example")
    for indication in ("cluster.example", "disable"):
        client = TlsClient(cacertfile=authority.file, certfile=authority.issue(), server_name_indication=indication)
        async with pair(TlsOptions(server.server, client), server):
            pass


async def test_verify_none_takes_everybody_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ours, theirs = Authority(tmp_path), Authority(tmp_path)
    client = TlsOptions(ours.options().server, TlsClient(verify="verify_none"))
    server = TlsOptions(
        TlsServer(certfile=theirs.issue("other.example"), verify="verify_none"), theirs.options().client
    )
    caplog.set_level(logging.WARNING)
    async with pair(client, server) as (one, other):
        assert one.vouches_for("anybody@anywhere")
        assert other.vouches_for("anybody@anywhere")
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["TLS", "TLS"]
    assert "the client side verifies nobody" in caplog.text
    assert "the server side verifies nobody" in caplog.text


async def test_certificates_between_the_nodes_and_the_cas(authority: Authority) -> None:
    below = authority.child().child()
    certificate = below.issue()
    for depth, through in ((2, True), (None, True), (1, False)):
        client = TlsClient(cacertfile=authority.file, certfile=authority.issue(), depth=depth)
        server = options(authority, certificate)
        one, other = await attempt(TlsTransport(TlsOptions(server.server, client)), TlsTransport(server))
        if through:
            assert isinstance(one, TlsStream), one
            one.close()
        else:
            assert isinstance(one, CertificateError)
            assert str(one) == (f"the certificate of {NODE} has 2 certificates between it and its CA, and depth is 1")
        if isinstance(other, TlsStream):
            other.close()


async def test_no_version_in_common(authority: Authority) -> None:
    certificate = authority.issue()
    client, server = await refused(
        options(authority, certificate, versions=("tlsv1.2",)), options(authority, certificate, versions=("tlsv1.3",))
    )
    assert client.startswith(
        f"{NODE} and this node have no TLS version or cipher suite in common; this side has tlsv1.2"
    )
    assert server.startswith("it and this node have no TLS version or cipher suite in common; this side has tlsv1.3")


async def test_no_cipher_in_common(authority: Authority) -> None:
    def chosen(cipher: str) -> TlsOptions:
        more = {"versions": ("tlsv1.2",), "ciphers": (cipher,)}
        both = {"cacertfile": authority.file, "certfile": authority.issue()}
        return TlsOptions(TlsServer(**both, **more), TlsClient(**both, **more))  # type: ignore[arg-type]

    client, server = await refused(chosen("ECDHE-ECDSA-AES256-GCM-SHA384"), chosen("ECDHE-ECDSA-AES128-GCM-SHA256"))
    assert "no cipher suite in common" in client
    assert "no TLS version or cipher suite in common" in server
