"""``runtime/tls_options.py``: what options are taken, from code and from files as a BEAM reads them."""

from __future__ import annotations

import dataclasses
import os
import re
import ssl
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from erlang_interop.errors import TlsOptionsError
from erlang_interop.runtime.tls_options import (
    _FIXED,
    _WITHOUT_MEANING,
    TlsClient,
    TlsOptions,
    TlsServer,
    as_options,
)
from tests.certificates import Authority
from tests.conftest import PROJECT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def optfile(folder: Path, text: str | bytes) -> Path:
    path = folder / "dist.conf"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_a_file_as_beams_read_it(tmp_path: Path) -> None:
    path = optfile(
        tmp_path,
        r"""
        %% -*- coding: utf-8 -*-
        [{server, [{cacertfile, "/etc/dist/ca.pem"},   % who may dial us
                   {certfile, "/etc/dist/nöde.pem"},
                   {keyfile, <<"/etc/dist/key.pem">>}, {password, "s3cret"},
                   {verify, verify_peer}, {fail_if_no_peer_cert, true},
                   {secure_renegotiate, true}, {reuse_sessions, true}, {hibernate_after, 5000},
                   {versions, ['tlsv1.2']}, {depth, 2}, {dhfile, "dh.pem"},
                   {ciphers, ["ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-AES128-GCM-SHA256"]}]},
         {client, [{cacertfile, "/etc/dist/ca.pem"}, {server_name_indication, disable}, {ktls, true},
                   {ciphers, "ECDHE-RSA-AES256-GCM-SHA384:!aNULL"}]}].
        """,
    )
    assert TlsOptions.from_optfile(path) == TlsOptions(
        TlsServer(
            cacertfile="/etc/dist/ca.pem",
            certfile="/etc/dist/nöde.pem",
            keyfile="/etc/dist/key.pem",
            password="s3cret",
            fail_if_no_peer_cert=True,
            versions=("tlsv1.2",),
            depth=2,
            dhfile="dh.pem",
            ciphers=("ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-AES128-GCM-SHA256"),
        ),
        TlsClient(
            cacertfile="/etc/dist/ca.pem",
            server_name_indication="disable",
            ciphers=("ECDHE-RSA-AES256-GCM-SHA384", "!aNULL"),
        ),
    )


def test_without_a_word_about_it_a_file_is_latin_1(tmp_path: Path) -> None:
    path = optfile(
        tmp_path, '[{server,[{certfile,"ö"},{verify,verify_none}]},{client,[{cacertfile,"ö"}]}].'.encode("latin-1")
    )
    options = TlsOptions.from_optfile(path)
    assert options.server.certfile == "ö"
    assert options.client.cacertfile == ("ö",)
    assert as_options(path) == as_options(str(path)) == as_options(options) == options


GOOD = '{certfile, "c.pem"}, {cacertfile, "ca.pem"}'


@pytest.mark.parametrize(
    ("server", "match"),
    [
        (
            f'{GOOD}, {{cert_file, "c.pem"}}',
            r"server: there is no option cert_file; there are cacertfile, certfile, key",
        ),
        (
            f"{GOOD}, {{verify_fun, {{a, []}}}}",
            r"there is no option verify_fun; to let in some nodes alone there is allow=",
        ),
        (f"{GOOD}, {{crl_check, true}}", r"server: crl_check can only be false here"),
        (f"{GOOD}, {{secure_renegotiate, false}}", r"secure_renegotiate can only be true here"),
        (
            f"{GOOD}, {{verify, perhaps}}",
            r"TLS options of the server: verify is 'perhaps': it is verify_peer or verify_none",
        ),
        (f"{GOOD}, {{verify, true}}", r"server: verify cannot be true; see the manual of ssl"),
        (f"{GOOD}, {{depth, x}}", r"server: depth cannot be x"),
        (f"{GOOD}, {{depth, true}}", r"server: depth cannot be true"),
        (f"{GOOD}, {{depth, -1}}", r"depth is -1: it is a number of certificates"),
        (f"{GOOD}, {{keyfile, key}}", r"server: keyfile must be a string, not key"),
        (f"{GOOD}, {{keyfile, []}}", r"server: keyfile must be a string, not \[\]"),
        (f"{GOOD}, {{keyfile, [-1]}}", r"server: keyfile must be a string, not \[-1\]"),
        (f"{GOOD}, {{versions, [tlsv1]}}", r"versions names tlsv1: there are tlsv1.2 and tlsv1.3 here; earlier ones"),
        (f"{GOOD}, {{versions, []}}", r"versions names nothing"),
        (f'{GOOD}, {{certfile, "d.pem"}}', r"server: certfile is there twice"),
        (f"{GOOD}, inet6", r"server: element 3 is no option; one is written \{name, Value\}"),
        (f"{GOOD}, {{server_name_indication, disable}}", r"there is no option server_name_indication"),
        (
            '{cacertfile, "ca.pem"}',
            r"TLS options of the server: there is no certfile: a TLS server shows a certificate",
        ),
        ('{certfile, "c.pem"}', r"TLS options of the server: verify_peer needs cacertfile"),
        ('{keyfile, "k.pem"}, {cacertfile, "ca.pem"}', r"keyfile without certfile"),
        (
            '{certfile, "c.pem"}, {verify, verify_none}, {fail_if_no_peer_cert, true}',
            r"fail_if_no_peer_cert needs verify_peer",
        ),
    ],
)
def test_options_that_are_wrong(tmp_path: Path, server: str, match: str) -> None:
    path = optfile(tmp_path, f'[{{server, [{server}]}}, {{client, [{{cacertfile, "ca.pem"}}]}}].')
    with pytest.raises(TlsOptionsError, match=match) as caught:
        TlsOptions.from_optfile(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("[{server, [}].", r"is no Erlang term: .*column \d+"),
        ("server.", r"must be a list \[\{server, \[...\]\}, \{client, \[...\]\}\], not another term"),
        ("[{server, server}].", r"server: must be a list \[\{name, Value\}\], not another term"),
        ("[{serv, []}].", r"there is no side serv; there are server and client"),
        ("[].", r"TLS options of the server: verify_peer needs cacertfile"),
        ('[{server, [{certfile, "c"}, {cacertfile, "ca"}]}].', r"TLS options of the client: verify_peer needs cacertf"),
        (b"%% coding: utf-8\n[\xff].", r"is no Erlang term: .*utf-8"),
    ],
)
def test_files_that_are_wrong(tmp_path: Path, text: str | bytes, match: str) -> None:
    with pytest.raises(TlsOptionsError, match=match):
        TlsOptions.from_optfile(optfile(tmp_path, text))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TlsOptionsError, match=r"gone.conf: cannot be read: No such file or directory"):
        TlsOptions.from_optfile(tmp_path / "gone.conf")


@pytest.mark.parametrize("written", ['{password, "s3cret", 1}', '{"password", "s3cret"}', "{password, {'s3cret'}}"])
def test_a_password_is_never_shown(tmp_path: Path, written: str) -> None:
    assert "s3cret" not in repr(TlsOptions.mutual(cacertfile="ca.pem", certfile="c.pem", password="s3cret"))
    with pytest.raises(TlsOptionsError) as caught:
        TlsOptions.from_optfile(optfile(tmp_path, f"[{{server, [{GOOD}, {written}]}}]."))
    assert "s3cret" not in str(caught.value)


def test_both_sides_verify_unless_told_otherwise(authority: Authority) -> None:
    options = authority.options()
    assert options.server.asks_for_certificates
    assert options.server.context().verify_mode is ssl.CERT_REQUIRED
    client = options.client.context()
    assert (client.verify_mode, client.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert (client.minimum_version, client.maximum_version) == (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


def test_versions_and_ciphers(authority: Authority) -> None:
    chosen: dict[str, Any] = {"versions": ("tlsv1.3",), "ciphers": ("ECDHE-RSA-AES256-GCM-SHA384",)}
    context = TlsClient(cacertfile=authority.file, **chosen).context()
    assert context.minimum_version is context.maximum_version is ssl.TLSVersion.TLSv1_3
    assert [suite["name"] for suite in context.get_ciphers() if suite["protocol"] == "TLSv1.2"] == [
        "ECDHE-RSA-AES256-GCM-SHA384"
    ]


@pytest.mark.parametrize(
    ("cipher", "match"),
    [
        ("ECDHE-RSA-AES999-GCM-SHA384", r"ciphers: OpenSSL has no suite ECDHE-RSA-AES999-GCM-SHA384"),
        ("TLS_AES_256_GCM_SHA384", r"ciphers names TLS_AES_256_GCM_SHA384: .* of TLS 1.3 Python always offers all"),
        ("!ALL", r"ciphers: OpenSSL has no suite"),
    ],
)
def test_ciphers_that_are_not_there(authority: Authority, cipher: str, match: str) -> None:
    with pytest.raises(TlsOptionsError, match=match):
        TlsClient(cacertfile=authority.file, ciphers=("ECDHE-RSA-AES256-GCM-SHA384", cipher)).context()


def test_many_files_of_cas(tmp_path: Path) -> None:
    cas = [Authority(tmp_path) for _ in range(3)]
    client = TlsClient(cacertfile=tuple(ca.file for ca in cas))
    assert client.files == [os.fspath(ca.file) for ca in cas]
    assert len(client.context().get_ca_certs()) == 3


def test_files_that_hold_something_else(authority: Authority, tmp_path: Path) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("no PEM")
    certificate, other = authority.issue(), trustme.CA()
    key = tmp_path / "other.pem"
    other.issue_cert("other").private_key_pem.write_to_path(str(key))
    for options, match in (
        (TlsClient(cacertfile=junk), r"client: cacertfile '.*junk.pem' holds nothing of that kind in PEM \("),
        (TlsClient(cacertfile=tmp_path / "gone.pem"), r"client: cacertfile '.*gone.pem' cannot be read: No such file"),
        (
            TlsClient(cacertfile=authority.file, certfile=junk),
            r"certfile '.*junk.pem': not a certificate and its private",
        ),
        (TlsClient(cacertfile=authority.file, certfile=authority.file), r"not a certificate and its private key"),
        (
            TlsClient(cacertfile=authority.file, certfile=certificate, keyfile=key),
            r"certfile '.*' and keyfile '.*other.pem': the key is not that of the certificate",
        ),
        (
            TlsClient(cacertfile=authority.file, certfile=certificate, keyfile=tmp_path / "gone.pem"),
            r"keyfile '.*gone.pem' cannot be read",
        ),
        (
            TlsServer(cacertfile=authority.file, certfile=certificate, dhfile=junk),
            r"server: dhfile '.*junk.pem' holds nothing",
        ),
    ):
        with pytest.raises(TlsOptionsError, match=match):
            options.context()


def test_the_table_of_options_in_the_docs_is_complete() -> None:
    page = (PROJECT / "docs" / "tls.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (both|server|client) \|", page, re.MULTILINE))
    server = {field.name for field in dataclasses.fields(TlsServer)}
    client = {field.name for field in dataclasses.fields(TlsClient)}
    sides = {
        name: "both" if name in server & client else "server" if name in server else "client"
        for name in server | client
    }
    assert rows == sides
    (without_effect,) = re.findall(r"Some are taken and have no effect(.*?)Names of files", page, re.DOTALL)
    assert set(re.findall(r"`\{?(\w+)", without_effect)) == _WITHOUT_MEANING | _FIXED.keys()


#: A certificate and its key, encrypted with "open sesame".
ENCRYPTED = """\
-----BEGIN CERTIFICATE-----
MIIBdjCCARugAwIBAgIUPlISQc6caXfkUYDTmB0S8+MHyVUwCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEdGVzdDAgFw0yNjExMjEwNTA3MzJaGA8yMTI2MTAyODA1MDcz
MlowDzENMAsGA1UEAwwEdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABDPv
r1TsEe1FsAaevLvZgE94qxsltP7oJOxUwDx/o1pIdVJv1REhWuFx3bGcRowBLvE3
HTcpuDt3FUWYMqoKyoujUzBRMB0GA1UdDgQWBBSnSoD3/aImuDI0RELCjcjA2maA
0DAfBgNVHSMEGDAWgBSnSoD3/aImuDI0RELCjcjA2maA0DAPBgNVHRMBAf8EBTAD
AQH/MAoGCCqGSM49BAMCA0kAMEYCIQD623swFB9OnRjII9v/raX0YjeGmxMwdwkL
NzbOXI7YXQIhAPvlgQGUbBLtABAp2GfapyfxIpnqIVh/LEakLw7u4Qbv
-----END CERTIFICATE-----
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAjDIJDlddMqowICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEECzZGhc3ayUmE4rhHTcaHI8EgZDy
l7z+A3oPSOLfrMefA2BHlLzwCtpa/pSxOn+iiDD0NLf833FYKlKrGPOttqxFJoy7
fKHVVfOTxbPIW3DEgudt8dhKiq3OKILcR8RWh6u306B32pwT/UtPxLQT3nIZOOAe
jcsbBfr9zPuB/tiEgf5PR/CVaHDRKTEdNJ213YRot3NB2d//CqJBRWKKt8m3BXw=
-----END ENCRYPTED PRIVATE KEY-----
"""


def test_a_key_that_is_encrypted(tmp_path: Path) -> None:
    """OpenSSL would ask for the password on the terminal."""
    authority = Authority(tmp_path)
    certificate = tmp_path / "encrypted.pem"
    certificate.write_text(ENCRYPTED)

    def context(password: str | None) -> ssl.SSLContext:
        return TlsClient(cacertfile=authority.file, certfile=certificate, password=password).context()

    assert context("open sesame").verify_mode is ssl.CERT_REQUIRED
    with pytest.raises(TlsOptionsError, match=r"encrypted.pem': the key is encrypted and the password is missing"):
        context(None)
    with pytest.raises(TlsOptionsError, match=r"the key is encrypted and the password is wrong"):
        context("open barley")
