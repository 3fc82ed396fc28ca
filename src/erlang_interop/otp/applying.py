"""What becomes of a call into Python: its value, or its exception as an Erlang one.

===========================================  ===========================================================
the Python function                          is to its caller
===========================================  ===========================================================
returns                                      the value; ``error:{'EncodeError', Text}`` if it is no term
``raise Throw(value)``                       ``throw(Value)``
``raise Exit(reason)``                       ``exit(Reason)``
raises anything else                         ``error:{ClassName, Text}``, with a stack trace
is not exposed, or takes another arity       ``error:undef``
===========================================  ===========================================================

A stack trace is as Erlang's, innermost first: ``{Module, Function, Arity, [{file, File}, {line, Line}]}`` for each
Python function, and at its end the function by its Erlang name.

Source: kernel/src/erpc.erl (execute_call/4, trim_stack/4) for what a result looks like.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ..errors import EncodeError, Exit, Throw
from ..etf import encode
from ..runtime.atoms import APPLY, BADARG, ERLANG, ERROR, UNDEF
from ..runtime.inline import crash_reason
from ..terms import Atom, charlist
from .erpc import EXIT_CLASS, RETURN, THROW

if TYPE_CHECKING:
    from ..runtime.process import Process
    from ..terms import Term

log = logging.getLogger("erlang_interop.rpc")

#: ``(return, Value)``, ``(throw, Value)``, ``(exit, Reason)`` or ``(error, Reason, Stack)``.
Outcome: TypeAlias = "tuple[Atom, Any] | tuple[Atom, Any, list[Any]]"

#: Python functions in a stack trace, the innermost; ``backtrace_depth`` of a BEAM is as much.
STACK_DEPTH: Final = 8
_FILE: Final = Atom("file")
_LINE: Final = Atom("line")
#: Frames between the call and the function that was called.
_OURS: Final = ("erlang_interop.otp.applying", "erlang_interop.runtime.spawning", "trio.", "outcome.", "contextvars")


class BadArg(Exit):
    """Raised by a function for arguments it does not take: ``error:badarg`` to its caller, and nothing in the log."""

    def __init__(self) -> None:
        super().__init__(BADARG)


class CallerGone(Exit):
    """Raised by ``waiting`` of :func:`applied`: nobody is left to be told, so the process just ends."""


async def applied(
    process: Process,
    module: Any,
    function: Any,
    arguments: Any,
    waiting: Callable[[], AbstractContextManager[object]],
) -> Outcome:
    """``apply(Module, Function, Arguments)`` for a caller elsewhere.

    Args:
        process: What it runs as.
        module: As the caller sent it, which may be any term, and so with the other two.
        function: As well.
        arguments: As well.
        waiting: Makes what is entered while an ``async`` function is awaited.

    Raises:
        CallerGone: ``waiting`` raised it.
    """
    if not (is_atom(module) and is_atom(function) and type(arguments) is list):
        return (ERROR, BADARG, [(ERLANG, APPLY, [module, function, arguments], [])])
    exposed = process.node.exposed(module, function, arguments)
    if exposed is None:
        return (ERROR, UNDEF, [(module, function, arguments, [])])
    called: Term = (module, function, len(arguments), [])
    try:
        value = exposed.start(process, arguments)
        if isinstance(value, Awaitable):
            with waiting():
                value = await value
    except CallerGone:
        raise
    except Exception as error:
        return _sendable(_outcome_of(_first(error), called), called)
    return _sendable((RETURN, value), called)


def _sendable(outcome: Outcome, called: tuple[Term, ...]) -> Outcome:
    """The outcome, or the error that no term can carry it."""
    try:
        encode(outcome)
    except EncodeError as error:
        log.warning("%s:%s/%s gave what cannot be sent: %s", *called[:3], error)
        return (ERROR, crash_reason(error), [called])
    return outcome


def _outcome_of(error: Exception, called: tuple[Term, ...]) -> Outcome:
    if isinstance(error, Throw):
        return (THROW, error.value)
    if isinstance(error, BadArg):
        return (ERROR, BADARG, [called])
    if isinstance(error, Exit):
        return (EXIT_CLASS, error.reason)
    log.warning("%s:%s/%s raised, and its caller is told", *called[:3], exc_info=error)
    return (ERROR, crash_reason(error), [*_stack(error), called])


def _stack(error: Exception) -> list[Term]:
    """The Python part of the stack trace."""
    frames = [
        (frame.f_globals.get("__name__", "?"), frame.f_code, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    while frames and frames[0][0].startswith(_OURS):
        del frames[0]
    return [
        (
            Atom(name[:255]),
            Atom(code.co_name[:255]),
            code.co_argcount,
            [(_FILE, charlist(code.co_filename)), (_LINE, line)],
        )
        for name, code, line in reversed(frames[-STACK_DEPTH:])
    ]


def _first(error: Exception) -> Exception:
    """The first exception in a group of groups, as of a nursery."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def is_atom(term: Any) -> bool:
    """Whether it was an atom on its way here: ``true``, ``false`` and ``nil`` decode to values of Python's."""
    return type(term) is Atom or term is None or type(term) is bool
