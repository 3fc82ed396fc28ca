"""A cluster whose distribution is TLS: a CA, BEAMs and nodes of ours with certificates of it.

OTP 28 comes here without the applications ssl, public_key and asn1; it runs those of the newest earlier OTP that has
them, OTP 27. Those of OTP 29 would not do: the NIF of its asn1 needs a newer emulator.
"""

from __future__ import annotations

import itertools
import secrets
from typing import TYPE_CHECKING, Any

import pytest

from erlang_interop.testing.beam import Beam, find_otp_roots
from tests.certificates import Authority, optfile

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from erlang_interop import Node, TlsOptions
    from erlang_interop.testing.beam import Epmd
    from tests.conftest import BeamFactory, Otp
    from tests.interop.conftest import NodeOpener
    from tests.interop.tls import SecureBeams, SecureNodes

_numbers = itertools.count(1)


def ssl_ebins(root: Path) -> list[Path]:
    """The folders of the applications that TLS distribution needs; none where an OTP lacks them."""
    found = next(root.rglob("inet_tls_dist.beam"), None)
    if found is None:
        return []
    lib = found.parents[2]
    return [next(lib.glob(f"{name}-*/ebin")) for name in ("ssl", "public_key", "asn1")]


@pytest.fixture(scope="module")
def ssl_args(otp: Otp) -> list[str]:
    """What an OTP without ssl of its own is started with, to have another's."""
    if ssl_ebins(otp.root):
        return []
    for release, root in reversed(find_otp_roots().items()):
        ebins = ssl_ebins(root) if release < otp.release else []
        if ebins:
            return [word for path in ebins for word in ("-pa", str(path))]
    pytest.fail(f"OTP {otp.release} has no ssl and there is no earlier one to take it from: run tools/get_otp.py 27")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The CA of the cluster."""
    return Authority(tmp_path_factory.mktemp("tls"))


def secured(ssl_args: list[str], authority: Authority, tls: TlsOptions, *more: Any) -> list[str]:
    """The arguments of a BEAM whose distribution is TLS with these options, from a file."""
    path = optfile(authority.folder / f"dist{next(_numbers)}.conf", tls, *more)
    return [*ssl_args, "-proto_dist", "inet_tls", "-ssl_dist_optfile", str(path)]


@pytest.fixture
def fresh(fresh_beam: BeamFactory, ssl_args: list[str], authority: Authority) -> SecureBeams:
    """BEAMs of the cluster; with options of their own on request, and ``more`` for both sides."""

    def start(tls: TlsOptions | None = None, *more: Any, args: tuple[str, ...] = ()) -> Beam:
        return fresh_beam(args=[*secured(ssl_args, authority, tls or authority.options(), *more), *args])

    return start


@pytest.fixture(scope="module")
def beam(
    otp: Otp, epmd: Epmd, cookie: str, fixtures_ebin: Path, ssl_args: list[str], authority: Authority
) -> Iterator[Beam]:
    """A BEAM of the cluster that lives as long as the tests of this file; it speaks what its OTP does by default."""
    name = f"tls{otp.release}_{secrets.token_hex(3)}@127.0.0.1"
    arguments = secured(ssl_args, authority, authority.options())
    with Beam.start(otp.root, name, cookie, epmd.port, code_paths=[fixtures_ebin], args=arguments) as beam:
        yield beam


@pytest.fixture
def secure(opened: NodeOpener, authority: Authority) -> SecureNodes:
    return lambda tls=None, **options: opened(tls=tls or authority.options(), **options)


@pytest.fixture
async def node(secure: SecureNodes) -> AsyncIterator[Node]:
    async with secure() as node:
        yield node
