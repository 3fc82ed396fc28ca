"""Certificates for tests, by trustme, as PEM files."""

from __future__ import annotations

import datetime
import itertools
import os
from typing import TYPE_CHECKING, Any, Final

import trustme

from erlang_interop import Atom, Term, TlsClient, TlsOptions, TlsServer, charlist
from erlang_interop.etf.text import format_term

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOST: Final = "127.0.0.1"
#: 127.0.0.1 as a DNS name: what OTP 25 looks for, whatever the host is. Written so (the last digit is a full-width one,
#: which names are free to use for 1) trustme does not take it for an address.
HOST_AS_NAME: Final = "127.0.0.\uff11"

_numbers = itertools.count(1)


class Authority:
    """A CA that keeps its files in ``folder``."""

    def __init__(self, folder: Path, ca: trustme.CA | None = None) -> None:
        self.folder = folder
        self.ca = ca or trustme.CA(organization_name=f"CA {next(_numbers)}")
        #: Its own certificate.
        self.file = folder / f"ca{next(_numbers)}.pem"
        self.ca.cert_pem.write_to_path(str(self.file))

    def issue(self, *hosts: str, expired: bool = False) -> Path:
        """A certificate for the hosts (without any: for 127.0.0.1), its chain and its key, in one file."""
        yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
        leaf = self.ca.issue_cert(*(hosts or (HOST, HOST_AS_NAME)), not_after=yesterday if expired else None)
        path = self.folder / f"node{next(_numbers)}.pem"
        leaf.private_key_and_cert_chain_pem.write_to_path(str(path))
        return path

    def child(self) -> Authority:
        """A CA whose own certificate is signed by this one."""
        return Authority(self.folder, self.ca.create_child_ca())

    def options(self, *hosts: str) -> TlsOptions:
        """One certificate for both sides; both sides verify."""
        return TlsOptions.mutual(cacertfile=self.file, certfile=self.issue(*hosts))


def options(
    authority: Authority, certificate: Path, *, trusted: Path | None = None, versions: tuple[str, ...] | None = None
) -> TlsOptions:
    """A certificate for both sides, those of ``trusted`` (or of the authority) accepted by both."""
    more: dict[str, Any] = {} if versions is None else {"versions": versions}
    cacertfile = trusted or authority.file
    return TlsOptions(
        TlsServer(cacertfile=cacertfile, certfile=certificate, **more),
        TlsClient(cacertfile=cacertfile, certfile=certificate, **more),
    )


def optfile(path: Path, options: TlsOptions, *more: Term) -> Path:
    """``options`` as a file for ``erl -ssl_dist_optfile``; ``more`` are further ``(name, value)`` of both sides."""
    sides = [(Atom(side.side), [*_terms(side), *more]) for side in (options.server, options.client)]
    path.write_text(f"{format_term(sides)}.\n")
    return path


def _terms(side: TlsServer | TlsClient) -> Iterator[Term]:
    """The options of one side that are not the defaults of a BEAM."""
    assert isinstance(side.cacertfile, tuple)
    yield Atom("verify"), Atom(side.verify)  # before OTP 26 verify_none is the default
    for name, value in (("cacertfile", next(iter(side.cacertfile), None)), ("certfile", side.certfile)):
        if value is not None:
            yield Atom(name), charlist(os.fspath(value))
    if isinstance(side, TlsServer):
        if side.asks_for_certificates:
            yield Atom("fail_if_no_peer_cert"), True
    elif side.server_name_indication is not None:
        yield Atom("server_name_indication"), Atom(side.server_name_indication)
    if len(side.versions) == 1:
        yield Atom("versions"), [Atom(side.versions[0])]
