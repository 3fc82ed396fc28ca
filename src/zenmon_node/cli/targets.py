"""How the command line names a process: ``name@node`` or ``<node.Number.Serial>``.

``worker@beam@127.0.0.1`` is the process registered as ``worker`` on the node ``beam@127.0.0.1``: the last two parts
between at signs are the node, everything before them is the name, so a name may have at signs of its own. Elixir's
module names are written out: ``Elixir.MyApp.Worker@beam@127.0.0.1``.

``<beam@127.0.0.1.85.0>`` is a pid as :func:`~erlang_interop.etf.text.format_term` writes it. That form does not say
which life of the node is meant; it is taken to be the present one.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from erlang_interop import Atom, BadName, EncodeError, Pid
from erlang_interop.errors import TermSyntaxError
from erlang_interop.etf.text import parse_term
from erlang_interop.runtime import split_name

from .failures import UsageError

if TYPE_CHECKING:
    from erlang_interop import Node, Term

Destination: TypeAlias = "Pid | tuple[Atom, Atom]"

STANDARD_INPUT: Final = Path("-")


@dataclass(frozen=True, slots=True)
class Target:
    """A process of another node, as it was written on the command line."""

    text: str
    node: str
    """The name of its node."""
    name: str | None
    """Its registered name; None for a pid."""

    def on(self, node: Node) -> Destination:
        """The process, as seen from ``node``, which is connected to the target's."""
        if self.name is not None:
            return Atom(self.name), Atom(self.node)
        pid = present(parse_term(self.text), node)
        assert isinstance(pid, Pid)
        return pid


def parse_target(text: str) -> Target:
    """Read a TARGET.

    Raises:
        UsageError: it has neither form.
    """
    if text.startswith("<"):
        try:
            pid = parse_term(text)
        except TermSyntaxError as error:
            raise UsageError(f"{text!r} is no process: {error}") from None
        if not isinstance(pid, Pid):
            raise UsageError(f"{text!r} is no process but another term; a pid is written <beam@127.0.0.1.85.0>")
        return Target(text, parse_node(pid.node.name), None)
    parts = text.rsplit("@", 2)
    if len(parts) != 3 or not all(parts):
        raise UsageError(
            f"{text!r} names no process: write name@node, for example worker@beam@127.0.0.1, "
            f"or a pid, for example '<beam@127.0.0.1.85.0>'"
        )
    name, short, host = parts
    try:
        Atom(name)
    except EncodeError as error:
        raise UsageError(f"{text!r} names no process: {error}") from None
    return Target(text, parse_node(f"{short}@{host}"), name)


def read_targets(path: Path) -> list[Target]:
    """The targets in a file, one a line; empty lines and those that begin with ``#`` are none.

    Args:
        path: ``-`` is standard input.

    Raises:
        UsageError: it cannot be read, or a line is no target; the message has its number.
    """
    where = "standard input" if path == STANDARD_INPUT else str(path)
    try:
        text = (sys.stdin.buffer.read() if path == STANDARD_INPUT else path.read_bytes()).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{where} is not UTF-8: {error}") from None
    except OSError as error:
        raise UsageError(f"{where} cannot be read: {error.strerror or error}") from None
    targets: list[Target] = []
    for number, line in enumerate(map(str.strip, text.split("\n")), start=1):
        if line and not line.startswith("#"):
            try:
                targets.append(parse_target(line))
            except UsageError as error:
                raise UsageError(f"{where}, line {number}: {error}") from None
    return targets


def parse_node(text: str) -> str:
    """Check a NODE.

    Raises:
        UsageError: it is not of the form ``name@host``.
    """
    try:
        split_name(text)
    except BadName as error:
        raise UsageError(str(error)) from None
    return text


def parse_argument(text: str) -> Term:
    """Read a TERM.

    Raises:
        UsageError: it is no Erlang term; the message shows where.
    """
    try:
        return parse_term(text)
    except TermSyntaxError as error:
        hint = f"; a string needs its own quotes, as in '\"{text}\"'" if text[:1].isupper() else ""
        raise UsageError(f"{text!r} is no Erlang term: {error}{hint}") from None


def present(term: Term, node: Node) -> Term:
    """``term`` with each pid that names no life of its node taken to be of the present one.

    Pids of nodes that are not connected stay as they are.
    """
    if isinstance(term, Pid):
        if term.creation == 0:
            for row in node.connections:
                if row.name == term.node and row.creation:
                    return Pid(term.node, term.id, term.serial, row.creation)
        return term
    if type(term) is list:
        return [present(item, node) for item in term]
    if type(term) is tuple:
        return tuple(present(item, node) for item in term)
    if type(term) is dict:
        return {present(key, node): present(value, node) for key, value in term.items()}
    return term
