"""What goes wrong, as one line for a person and a number for a shell."""

from __future__ import annotations

import enum

from erlang_interop import (
    BadAddress,
    BadName,
    CookieMismatch,
    CookieMissing,
    EncodeError,
    ErlangInteropError,
    TlsOptionsError,
)
from erlang_interop.errors import TermSyntaxError

from ..config import SettingsError
from ..exposing import ExposureError
from ..metrics import StatsdMissing


class ExitStatus(enum.IntEnum):
    """What the command ends with. 0 and 1 are about the cluster, 2 about the command line, the rest is Unix's."""

    DONE = 0
    REFUSED = 1
    """The cluster said no: unreachable, refused, unknown, an error in the function called, a name or port taken."""
    USAGE = 2
    """The command line, the settings or the cookie cannot be used as they are; nothing was tried."""
    INTERRUPTED = 130
    """The interrupt key (128 + SIGINT), except for ``run``, which it is the way to end."""
    TERMINATED = 143
    """SIGTERM, for ``monitor`` and ``syn watch`` (128 + SIGTERM)."""
    NO_READER = 141
    """Whoever read our output has gone (128 + SIGPIPE), as after ``| head``."""


class UsageError(ErlangInteropError):
    """The command line asks for something that makes no sense."""


class Refusal(ErlangInteropError):
    """The cluster said no in a way that is no error of the node's own."""


_USAGE = (
    UsageError,
    BadAddress,
    BadName,
    SettingsError,
    ExposureError,
    StatsdMissing,
    CookieMissing,
    TermSyntaxError,
    EncodeError,
    TlsOptionsError,
)


#: What the library's messages call an argument is an option here.
_OPTIONS = (
    ("pass cookie=,", "give --cookie-file,"),
    ("let the node bring its own (embedded_epmd=True)", "let the node bring its own (run --embedded-epmd)"),
    ("open this one with tls= as well", "give --tls-optfile"),
    ("open this node without tls=", "leave --tls-optfile and ZENMON_TLS_OPTFILE out"),
    ("timeout= allows more (None: for ever)", "--timeout allows more"),
)


def first_error(error: BaseException) -> BaseException:
    """The first exception in a group of groups: tasks that run side by side wrap theirs."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def explain(error: ErlangInteropError) -> tuple[str, ExitStatus]:
    """The line to print and the exit status."""
    status = ExitStatus.USAGE if isinstance(error, _USAGE) else ExitStatus.REFUSED
    text = " ".join(str(error).split())
    for argument, option in _OPTIONS:
        text = text.replace(argument, option)
    if isinstance(error.__cause__, CookieMismatch):
        text += "; give the cluster's cookie with --cookie-file, ZENMON_COOKIE or ~/.erlang.cookie"
    return text, status
