"""Options of TLS distribution, from code or from a file as ``erl -ssl_dist_optfile`` takes it.

The names are those of Erlang's ``ssl``; the defaults are those of OTP 26 and later (both sides verify), except that
TLS 1.3 is spoken with those who can: ``inet_tls_dist`` without ``versions`` offers TLS 1.2 alone.

Source: ssl/src/ssl_dist_sup.erl (the file), ssl/src/inet_tls_dist.erl (what it adds), manual of ``ssl``.
"""

from __future__ import annotations

import dataclasses
import os
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeAlias

from ..errors import TermSyntaxError, TlsOptionsError
from ..etf.text import format_term, parse_term
from ..terms import Atom, Term, text

FilePath: TypeAlias = "str | os.PathLike[str]"
Verify: TypeAlias = Literal["verify_peer", "verify_none"]

_VERSIONS: Final = {"tlsv1.2": ssl.TLSVersion.TLSv1_2, "tlsv1.3": ssl.TLSVersion.TLSv1_3}
#: Options that say how a BEAM does something; taken from a file that BEAMs read as well, and without meaning here.
_WITHOUT_MEANING: Final = frozenset(
    {"handshake_timeout", "hibernate_after", "honor_cipher_order", "honor_ecc_order", "ktls", "log_alert", "log_level"}
    | {"reuse_session", "reuse_sessions", "session_tickets"}
)
#: Options with one value that says what is so anyway.
_FIXED: Final = {"secure_renegotiate": True, "crl_check": False}


@dataclass(frozen=True, kw_only=True)
class _Side:
    """What both sides of a connection have."""

    cacertfile: FilePath | tuple[FilePath, ...] = ()
    """PEM files of the CAs that the other side's certificate must be signed by."""
    certfile: FilePath | None = None
    """PEM file of the certificate shown to the other side, with intermediate ones behind it."""
    keyfile: FilePath | None = None
    """PEM file of its private key; None: it is in ``certfile`` as well."""
    password: str | None = field(default=None, repr=False)
    """What the private key is encrypted with."""
    verify: Verify = "verify_peer"
    """``verify_none`` lets everybody be whoever they say they are: for experiments alone."""
    versions: tuple[str, ...] = ("tlsv1.2", "tlsv1.3")
    ciphers: tuple[str, ...] = ()
    """OpenSSL's names of TLS 1.2 cipher suites; none: OpenSSL's good ones. Those of TLS 1.3 are not for choosing."""
    depth: int | None = None
    """The most intermediate certificates between the other side's and the CA's; None: as OpenSSL has it."""

    def __post_init__(self) -> None:
        if isinstance(self.cacertfile, (str, os.PathLike)):
            object.__setattr__(self, "cacertfile", (self.cacertfile,))
        if self.verify not in ("verify_peer", "verify_none"):
            raise self._error(f"verify is {self.verify!r}: it is verify_peer or verify_none")
        if self.verify == "verify_peer" and not self.cacertfile:
            raise self._error(
                "verify_peer needs cacertfile: the CAs that sign the certificates of the other nodes "
                "(or verify_none, for an experiment)"
            )
        if self.keyfile is not None and self.certfile is None:
            raise self._error("keyfile without certfile: name the certificate of that key")
        unknown = [version for version in self.versions if version not in _VERSIONS]
        if unknown or not self.versions:
            raise self._error(
                f"versions names {', '.join(unknown) or 'nothing'}: there are {' and '.join(_VERSIONS)} here; "
                f"earlier ones are not safe"
            )
        if self.depth is not None and not 0 <= self.depth <= 255:
            raise self._error(f"depth is {self.depth}: it is a number of certificates, 0 to 255")

    @property
    def side(self) -> str:
        """``server`` or ``client``, as the file calls it."""
        return "server" if isinstance(self, TlsServer) else "client"

    def _error(self, message: str) -> TlsOptionsError:
        return TlsOptionsError(f"TLS options of the {self.side}: {message}")

    @property
    def files(self) -> list[str]:
        """Every file that the options name."""
        assert isinstance(self.cacertfile, tuple)
        return [os.fspath(path) for path in (*self.cacertfile, self.certfile, self.keyfile) if path is not None]

    def _configured(self, context: ssl.SSLContext) -> ssl.SSLContext:
        """What both sides set."""
        chosen = [version for name, version in _VERSIONS.items() if name in self.versions]
        context.minimum_version, context.maximum_version = chosen[0], chosen[-1]
        if self.ciphers:
            self._choose_ciphers(context)
        assert isinstance(self.cacertfile, tuple)
        for path in self.cacertfile:
            self._load("cacertfile", path, context.load_verify_locations)
        if self.certfile is not None:
            self._load_certificate(context)
        return context

    def _choose_ciphers(self, context: ssl.SSLContext) -> None:
        for name in self.ciphers:
            if name.startswith("TLS_"):
                raise self._error(
                    f"ciphers names {name}: it takes OpenSSL's names of TLS 1.2 suites, such as "
                    f"ECDHE-RSA-AES256-GCM-SHA384; of TLS 1.3 Python always offers all"
                )
            if name.replace("-", "").isalnum():  # else an expression such as !aNULL
                self._set_ciphers(context, name)
        self._set_ciphers(context, ":".join(self.ciphers))

    def _set_ciphers(self, context: ssl.SSLContext, names: str) -> None:
        try:
            context.set_ciphers(names)
        except ssl.SSLError as error:
            raise self._error(f"ciphers: OpenSSL has no suite {names}") from error

    def _load(self, option: str, path: FilePath, load: Callable[[str], None]) -> None:
        try:
            load(os.fspath(path))
        except ssl.SSLError as error:
            raise self._error(
                f"{option} {os.fspath(path)!r} holds nothing of that kind in PEM ({error.reason})"
            ) from error
        except OSError as error:
            raise self._error(f"{option} {os.fspath(path)!r} cannot be read: {error.strerror or error}") from error

    def _load_certificate(self, context: ssl.SSLContext) -> None:
        assert self.certfile is not None
        for option, path in (("certfile", self.certfile), ("keyfile", self.keyfile)):
            if path is not None:
                try:
                    Path(path).open("rb").close()
                except OSError as error:
                    raise self._error(f"{option} {os.fspath(path)!r} cannot be read: {error.strerror}") from error
        asked = False

        def password() -> str:  # without this OpenSSL would ask on the terminal
            nonlocal asked
            asked = True
            return self.password or ""

        where = f"certfile {os.fspath(self.certfile)!r}" + (
            f" and keyfile {os.fspath(self.keyfile)!r}" if self.keyfile is not None else ""
        )
        try:
            context.load_cert_chain(self.certfile, self.keyfile, password)
        except (ssl.SSLError, ValueError) as error:
            if asked:
                what = "wrong" if self.password else "missing"
                raise self._error(f"{where}: the key is encrypted and the password is {what}") from error
            reason = getattr(error, "reason", None) or error
            if reason == "KEY_VALUES_MISMATCH":
                raise self._error(f"{where}: the key is not that of the certificate") from error
            raise self._error(f"{where}: not a certificate and its private key in PEM ({reason})") from error


@dataclass(frozen=True, kw_only=True)
class TlsServer(_Side):
    """Options for connections that other nodes dial: ``{server, [...]}`` of an Erlang optfile."""

    fail_if_no_peer_cert: bool | None = None
    """Whether a node without a certificate is refused; None: yes with ``verify_peer``."""
    dhfile: FilePath | None = None
    """PEM file of Diffie-Hellman parameters, for DHE suites of TLS 1.2."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.certfile is None:
            raise self._error("there is no certfile: a TLS server shows a certificate")
        if self.fail_if_no_peer_cert and self.verify == "verify_none":
            raise self._error("fail_if_no_peer_cert needs verify_peer: with verify_none nobody is asked")

    @property
    def asks_for_certificates(self) -> bool:
        """Whether a node without one is refused."""
        return self.verify == "verify_peer" and self.fail_if_no_peer_cert is not False

    def context(self) -> ssl.SSLContext:
        """Read the files. Raises TlsOptionsError."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if self.verify == "verify_peer":
            context.verify_mode = ssl.CERT_REQUIRED if self.asks_for_certificates else ssl.CERT_OPTIONAL
        context.num_tickets = 0  # a node resumes no session
        # A BEAM that dialled us over TLS 1.2 asks for new keys after 2**28 records (renegotiate_at). OpenSSL refuses
        # that by default, and the BEAM then never sends anything again.
        context.options |= _ALLOW_CLIENT_RENEGOTIATION
        if self.dhfile is not None:
            self._load("dhfile", self.dhfile, context.load_dh_params)
        return self._configured(context)


@dataclass(frozen=True, kw_only=True)
class TlsClient(_Side):
    """Options for connections that this node dials: ``{client, [...]}`` of an Erlang optfile."""

    server_name_indication: str | None = None
    """The host name that the other side's certificate must have; None: what stands behind the ``@`` of the node's name.
    ``"disable"``: any name will do, so every node of the CA can pose as every other."""

    def context(self) -> ssl.SSLContext:
        """Read the files. Raises TlsOptionsError."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.verify == "verify_none" or self.server_name_indication == "disable":
            context.check_hostname = False
        if self.verify == "verify_none":
            context.verify_mode = ssl.CERT_NONE
        return self._configured(context)


#: SSL_OP_ALLOW_CLIENT_RENEGOTIATION of OpenSSL 3, which Python's ``ssl`` has no name for.
_ALLOW_CLIENT_RENEGOTIATION: Final = 1 << 8


@dataclass(frozen=True)
class TlsOptions:
    """How a node speaks TLS: ``open_node(..., tls=TlsOptions(server=TlsServer(...), client=TlsClient(...)))``."""

    server: TlsServer
    client: TlsClient

    @classmethod
    def mutual(
        cls,
        *,
        cacertfile: FilePath | tuple[FilePath, ...],
        certfile: FilePath,
        keyfile: FilePath | None = None,
        password: str | None = None,
    ) -> Self:
        """The usual set-up: one certificate for both sides, and everybody has to show one of ``cacertfile``'s CAs."""
        return cls(
            TlsServer(cacertfile=cacertfile, certfile=certfile, keyfile=keyfile, password=password),
            TlsClient(cacertfile=cacertfile, certfile=certfile, keyfile=keyfile, password=password),
        )

    @classmethod
    def from_optfile(cls, path: FilePath) -> Self:
        """Read a file as ``erl -ssl_dist_optfile`` takes it.

        It holds one term, ``[{server, [{certfile, "..."}, ...]}, {client, [...]}].``, and no expressions. Names of
        files are relative to the working directory, as on a BEAM.

        Raises:
            TlsOptionsError: the file cannot be read, is no such term, or has an option that is not known or wrong.
        """
        shown = os.fspath(path)
        try:
            term = parse_term(_source(Path(path).read_bytes()))
        except OSError as error:
            raise TlsOptionsError(f"{shown}: cannot be read: {error.strerror or error}") from error
        except (TermSyntaxError, UnicodeDecodeError) as error:
            raise TlsOptionsError(f"{shown}: is no Erlang term: {error}") from error
        sides = dict(_pairs(term, shown, "[{server, [...]}, {client, [...]}]"))
        unknown = sides.keys() - {"server", "client"}
        if unknown:
            raise TlsOptionsError(
                f"{shown}: there is no side {', '.join(sorted(unknown))}; there are server and client"
            )
        try:
            return cls(
                TlsServer(**_values(TlsServer, sides.get("server", []), f"{shown}: server")),
                TlsClient(**_values(TlsClient, sides.get("client", []), f"{shown}: client")),
            )
        except TlsOptionsError as error:
            message = str(error)
            raise TlsOptionsError(message if message.startswith(shown) else f"{shown}: {message}") from error


def _source(data: bytes) -> str:
    """The text of the file: Latin-1, unless a comment in its first two lines says otherwise (``epp``)."""
    head = b"\n".join(data.split(b"\n", 2)[:2]).decode("latin-1")
    return data.decode("utf-8" if re.search(r"%.*coding[:=]\s*utf-8", head, re.IGNORECASE) else "latin-1")


def _pairs(term: Term, where: str, shape: str) -> list[tuple[str, Term]]:
    """A list of ``{name, Value}``, each name once."""
    pairs: list[tuple[str, Term]] = []
    if not isinstance(term, list):
        raise TlsOptionsError(f"{where}: must be a list {shape}, not another term")
    for number, item in enumerate(term, 1):
        match item:
            case (Atom(name), value):
                if any(name == other for other, _ in pairs):
                    raise TlsOptionsError(f"{where}: {name} is there twice")
                pairs.append((name, value))
            case _:
                # Not shown: it may hold a password.
                raise TlsOptionsError(f"{where}: element {number} is no option; one is written {{name, Value}}")
    return pairs


def _values(side: type[_Side], term: Term, where: str) -> dict[str, Any]:
    """The arguments of ``side`` that the option list means."""
    known = [option.name for option in dataclasses.fields(side)]
    values: dict[str, Any] = {}
    for name, value in _pairs(term, where, "[{name, Value}]"):
        if name in _WITHOUT_MEANING:
            continue
        if name in _FIXED:
            if value is not _FIXED[name]:
                raise TlsOptionsError(f"{where}: {name} can only be {format_term(_FIXED[name])} here")
            continue
        if name not in known:
            hint = "; to let in some nodes alone there is allow=" if name == "verify_fun" else ""
            raise TlsOptionsError(
                f"{where}: there is no option {name}{hint}; there are {', '.join(known)} "
                f"(and without effect {', '.join(sorted(_WITHOUT_MEANING | _FIXED.keys()))})"
            )
        values[name] = _value(name, value, where)
    return values


def _value(name: str, value: Term, where: str) -> Any:
    """``value`` as the option has it in Python."""
    match name, value:
        case ("verify" | "server_name_indication", Atom(word)):
            return word
        case ("fail_if_no_peer_cert", bool()):
            return value
        case ("depth", int()) if not isinstance(value, bool):
            return value
        case ("versions", list()) if all(isinstance(version, Atom) for version in value):
            return tuple(version.name for version in value)
        case ("ciphers", list()) if value and not isinstance(value[0], int):
            return tuple(_text(cipher, name, where) for cipher in value)
        case ("ciphers", _):
            return tuple(_text(value, name, where).split(":"))
        case ("cacertfile" | "certfile" | "keyfile" | "dhfile" | "password" | "server_name_indication", _):
            return _text(value, name, where)
    raise TlsOptionsError(f"{where}: {name} cannot be {format_term(value)}; see the manual of ssl")


def _text(value: Term, name: str, where: str) -> str:
    if isinstance(value, (bytes, list)) and value:
        try:
            return text(value)
        except (TypeError, ValueError):
            pass  # told below, as for everything else that is no text
    raise TlsOptionsError(
        f"{where}: {name} must be a string, not {'a term' if name == 'password' else format_term(value)}"
    )


def as_options(tls: TlsOptions | FilePath) -> TlsOptions:
    """What ``open_node(tls=)`` was given: options, or the path of a file of them. Raises TlsOptionsError."""
    return tls if isinstance(tls, TlsOptions) else TlsOptions.from_optfile(tls)
