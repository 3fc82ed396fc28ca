"""The cookie and the name that a command takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from erlang_interop import CookieMissing, TlsOptions, TlsOptionsError
from zenmon_node.cli.joining import default_name, own_name, read_cookie, read_tls_options

if TYPE_CHECKING:
    from pathlib import Path


def test_cookie_files(tmp_path: Path) -> None:
    path = tmp_path / "cookie"
    path.write_text("secret\nsomething else\n")
    assert read_cookie(path) == "secret"
    path.write_text("\n")
    with pytest.raises(CookieMissing, match="empty"):
        read_cookie(path)
    with pytest.raises(CookieMissing, match="cannot be read"):
        read_cookie(tmp_path)
    assert read_cookie(None) is None


def test_options_for_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "dist.conf"
    path.write_text('[{server, [{certfile, "c"}, {cacertfile, "ca"}]}, {client, [{cacertfile, "ca"}]}].')
    monkeypatch.delenv("ZENMON_TLS_OPTFILE", raising=False)
    assert read_tls_options(None) is None
    assert read_tls_options(path) == TlsOptions.from_optfile(path)
    monkeypatch.setenv("ZENMON_TLS_OPTFILE", "")
    assert read_tls_options(None) is None
    monkeypatch.setenv("ZENMON_TLS_OPTFILE", str(path))
    assert read_tls_options(None) == TlsOptions.from_optfile(path)
    with pytest.raises(TlsOptionsError, match="cannot be read"):
        read_tls_options(tmp_path / "gone.conf")


def test_the_name_of_a_node_that_is_given_one() -> None:
    assert own_name("undefined", ["beam@127.0.0.1"]) == "undefined@127.0.0.1"
    assert own_name("undefined@h", ["beam@127.0.0.1"]) == "undefined@h"
    assert own_name("me@h", ["beam@127.0.0.1"]) == "me@h"
    assert own_name(None, ["beam@127.0.0.1"]) == default_name(["beam@127.0.0.1"])


def test_the_default_name_has_a_host_that_the_peer_takes() -> None:
    assert default_name(["beam@127.0.0.1"]).endswith("@127.0.0.1")
    assert default_name(["beam@localhost"]).endswith("@localhost")
    assert "." not in default_name(["beam@elsewhere"]).partition("@")[2]
