"""``user``: the process that does input and output for others, over Erlang's I/O protocol.

It is the group leader of the processes of this node, and goes along when they spawn others elsewhere: so what a process
prints that was spawned on a BEAM from here appears here, as between BEAMs.

.. code-block:: text

    {io_request, From, ReplyAs, Request}   ->   From ! {io_reply, ReplyAs, Reply}

    {put_chars, Encoding, Chars}                        ok | {error, put_chars}
    {put_chars, Encoding, io_lib, Function, Args}       ok | {error, Function}: format/2, fwrite/2, write/1, nl/0
    {get_line, ...} {get_chars, ...} {get_until, ...}   eof: there is no input
    {get_password, _}                                   {error, enotsup}
    getopts                                             [{binary, Bool}, {encoding, unicode}]
    {setopts, Opts}                                     ok | {error, enotsup}
    {get_geometry, _}                                   {error, enotsup}: it is no terminal
    {requests, List}                                    the last reply, or the first that is an error
    anything else                                       {error, request}

The forms without an encoding, which are from before OTP R13, mean Latin-1. Functions of other modules, which exist on
the BEAM and not here, are answered ``{error, Function}``; ``io`` on the BEAM makes ``badarg`` of that.

Source: stdlib manual, "The Erlang I/O Protocol"; kernel/src/group.erl and user.erl for the words in errors.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import trio

from ..errors import EncodeError
from ..runtime.atoms import ERROR, OK
from ..runtime.inline import InlineServer
from ..terms import Atom, Pid
from .gen import shown_term
from .io_format import BadFormat, characters, format_text, write

if TYPE_CHECKING:
    from ..terms import Term

log = logging.getLogger("erlang_interop.user")

#: Takes text as it comes, which need not be whole lines; called on the loop.
Output: TypeAlias = Callable[[str], object]

USER: Final = Atom("user")
IO_REQUEST: Final = Atom("io_request")
IO_REPLY: Final = Atom("io_reply")
#: Seconds that a node which ends waits for whoever reads its standard output.
CLOSE_TIME: Final = 2.0

_EOF: Final = Atom("eof")
_LATIN1: Final = Atom("latin1")
UNICODE: Final = Atom("unicode")
_ENCODINGS: Final = (_LATIN1, UNICODE)
PUT_CHARS: Final = Atom("put_chars")
_REQUESTS: Final = Atom("requests")
_IO_LIB: Final = Atom("io_lib")
_BINARY: Final = Atom("binary")
_ENCODING: Final = Atom("encoding")
#: Input requests, with the number of their elements with an encoding; without one they have one less.
_INPUT: Final = {Atom("get_line"): 3, Atom("get_chars"): 4, Atom("get_until"): 6}
_ENOTSUP: Final = (ERROR, Atom("enotsup"))
_UNKNOWN: Final = (ERROR, Atom("request"))
_BROKEN: Final = (ERROR, Atom("terminated"))


class IoServer(InlineServer):
    """The process registered as ``user``.

    Args:
        output: Where text goes; what it raises is logged once, and the request then has ``{error, terminated}`` for an
            answer. None: to ``sys.stdout``, from a thread, so that a reader that stands still (``| less``) holds up
            those who print and not the node. They are answered when the text is written and flushed.
    """

    def __init__(self, output: Output | None = None) -> None:
        self._output = output
        self._binary = False
        self._complained = False
        #: Answers that wait for the text before them to be written: (text, From, ReplyAs, Reply).
        self._waiting: list[tuple[str, Pid, Term, Term]] = []
        self._writing: trio.CancelScope | None = None

    def handle_message(self, message: Term) -> None:
        """Do what an ``io_request`` asks for; drop all else."""
        if type(message) is not tuple or len(message) != 4 or message[0] != IO_REQUEST or type(message[1]) is not Pid:
            log.debug("user drops %s", shown_term(message))
            return
        _, sender, reply_as, request = message
        written: list[str] = []
        reply = self._perform(request, written)
        text = "".join(written)
        if self._output is not None:
            self._answer(sender, reply_as, reply if self._put(self._output, text) else _BROKEN)
        elif text or self._waiting:
            self._waiting.append((text, sender, reply_as, reply))
            if self._writing is None:
                self._writing = trio.CancelScope(shield=True)
                self.node.start_task(self._write, self._writing)
        else:
            self._answer(sender, reply_as, reply)

    def terminated(self, reason: Term) -> None:
        """Give what is not written yet a little time."""
        if self._writing is not None:
            self._writing.deadline = trio.current_time() + CLOSE_TIME

    # -- output

    async def _write(self, scope: trio.CancelScope) -> None:
        """Write what waits, all that is there at a time."""
        with scope:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                text = "".join([text for text, *_ in batch])
                done = await trio.to_thread.run_sync(self._put, _to_stdout, text, abandon_on_cancel=True)
                for text, sender, reply_as, reply in batch:
                    self._answer(sender, reply_as, reply if done or not text else _BROKEN)
        self._writing = None

    def _put(self, output: Output, text: str) -> bool:
        """Whether ``text`` was put out."""
        if not text:
            return True
        try:
            output(text)
        except Exception:
            if not self._complained:
                self._complained = True
                log.exception("what processes print cannot be put out, and is lost; this is said once")
            return False
        return True

    def _answer(self, sender: Pid, reply_as: Term, reply: Term) -> None:
        if not self.process.alive:
            return  # the node ends; nobody is to be dialled for this
        try:
            self.process.send(sender, (IO_REPLY, reply_as, reply))
        except EncodeError as error:
            log.info("%s cannot be sent the answer that it asked for: %s", sender, error)

    # -- requests

    def _perform(self, request: Term, written: list[str]) -> Term:
        """The reply; what is to be written is added to ``written``."""
        reply: Term = OK
        todo: list[Any] = [request]
        while todo:
            single = todo.pop()
            if type(single) is tuple and len(single) == 2 and single[0] == _REQUESTS and type(single[1]) is list:
                todo.extend(reversed(single[1]))
                continue
            reply = self._perform_one(single, written)
            if type(reply) is tuple and reply[0] == ERROR:
                break
        return reply

    def _perform_one(self, request: Any, written: list[str]) -> Term:
        if type(request) is Atom and request.name == "getopts":
            return [(_BINARY, self._binary), (_ENCODING, UNICODE)]
        if type(request) is not tuple or len(request) < 2 or type(request[0]) is not Atom:
            return _UNKNOWN
        tag, *rest = request
        if tag == PUT_CHARS:
            return self._put_chars(rest, written)
        if tag in _INPUT:
            new = len(request) == _INPUT[tag] and rest[0] in _ENCODINGS
            return _EOF if new or len(request) == _INPUT[tag] - 1 else _UNKNOWN
        match request:
            case (Atom("get_password"), encoding) if encoding in _ENCODINGS:
                return _ENOTSUP
            case (Atom("get_geometry"), Atom("columns" | "rows")):
                return _ENOTSUP
            case (Atom("setopts"), list() as options):
                return self._setopts(options)
        return _UNKNOWN

    def _put_chars(self, rest: list[Any], written: list[str]) -> Term:
        """``{put_chars, Encoding, Chars}``, ``{put_chars, Encoding, Module, Function, Args}``, or without Encoding."""
        if len(rest) in (1, 3):
            rest = [_LATIN1, *rest]
        if len(rest) not in (2, 4) or rest[0] not in _ENCODINGS:
            return _UNKNOWN
        try:
            if len(rest) == 2:
                written.append(characters(rest[1], latin1=rest[0] == _LATIN1))
                return OK
            written.append(_apply(*rest[1:]))
        except BadFormat as error:
            log.info("%s: %s", shown_term(tuple(rest[1:])), error)
            return (ERROR, rest[2])
        except ValueError as error:
            log.info("put_chars of %s: %s", shown_term(rest[1]), error)
            return (ERROR, PUT_CHARS)
        return OK

    def _setopts(self, options: list[Any]) -> Term:
        """Whether input is binary or a list can be set, and counts for nothing; the encoding is what it is."""
        binary = self._binary
        for option in options:
            match option:
                case Atom("binary" | "list"):
                    binary = option == _BINARY
                case (Atom("binary"), bool() as wanted):
                    binary = wanted
                case (Atom("list"), bool() as wanted):
                    binary = not wanted
                case Atom("unicode") | (Atom("encoding"), Atom("unicode" | "utf8")):
                    pass
                case _:
                    return _ENOTSUP
        self._binary = binary
        return OK


def _apply(module: Any, function: Any, args: Any) -> str:
    """The text that ``Module:Function(Args...)`` gives, as far as such functions are known here."""
    if module == _IO_LIB and type(args) is list:
        match function, args:
            case Atom("format" | "fwrite"), [format_, arguments]:
                return format_text(format_, arguments)
            case Atom("write"), [term]:
                return write(term)
            case Atom("nl"), []:
                return "\n"
    raise BadFormat("only io_lib:format/2, fwrite/2, write/1 and nl/0 are known here")


def _to_stdout(text: str) -> None:
    stdout = sys.stdout
    try:
        stdout.write(text)
    except UnicodeEncodeError:
        stdout.write(text.encode(stdout.encoding, "backslashreplace").decode(stdout.encoding))
    stdout.flush()
