"""``rex`` and ``erpc``: how other nodes call what ``node.expose`` named.

.. code-block:: text

    spawn_request of erpc:execute_call(Ref, M, F, A)           the process ends with {Ref, return, Value}, ...
                     erpc:execute_cast(M, F, A)                nobody is told
    rex:  {'$gen_call', From, {call, M, F, A, Leader}}         reply: Value | {badrpc, Reason}
          {'$gen_call', From, {block_call, M, F, A, Leader}}   the same; one after the other
          {'$gen_cast', {cast, M, F, A, Leader}}               nothing
          {Pid, {call, M, F, A, Leader}}                       Pid ! {rex, Value | {badrpc, Reason}}
          {Pid, features_request}                              Pid ! {features_reply, node(), [erpc]}
          {Pid, {sbcast, Name, Message}}                       Pid ! {rex, node(), node() | {nonexisting_name, Name}}
          {Pid, {send, Name, Message}}                         Name ! {Pid, Message}, or as above if there is none

``rpc:call`` and ``erpc:call`` come as spawn requests; ``rpc:block_call`` as a gen_call, and ``call`` from other
implementations; C and Java nodes send the plain message (``ei_rpc``, ``erl_call``, ``OtpConnection.sendRPC``).
``Leader`` is a pid, ``user``, or ``send_stdout_to_caller``: what is printed then goes to the caller, as
``{rex_stdout, Binary}``.

Each call runs as a process of its own, so a slow one holds up none. What has to wait is ended when its caller has: a
BEAM lets it go on, for nobody. A caller whose time is up is still there, and its function goes on, as on a BEAM.

Another gen_call is answered ``{badrpc, notsup}``, where a BEAM leaves the caller without an answer.

Source: kernel/src/rpc.erl (handle_call, handle_cast, handle_info), kernel/src/erpc.erl (execute_call, execute_cast).
"""

from __future__ import annotations

import logging
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from ..errors import EncodeError, Exit
from ..runtime.atoms import DOWN, EXIT, NOTSUP, SHUTDOWN
from ..runtime.inline import InlineServer, crash_reason
from ..terms import Atom, Pid, Reference
from .applying import CallerGone, Outcome, applied
from .erpc import ERPC, EXECUTE_CALL, EXECUTE_CAST, EXIT_CLASS, RETURN, THROW
from .gen import GEN_CALL, GEN_CAST, From, is_from, reply, shown_term
from .io_server import USER, IoServer
from .rpc import BADRPC, BLOCK_CALL, CALL, REX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..runtime.process import Process
    from ..terms import Term

log = logging.getLogger("erlang_interop.rpc")

_CAST: Final = Atom("cast")
_FEATURES_REQUEST: Final = Atom("features_request")
_FEATURES_REPLY: Final = Atom("features_reply")
_FUNCTION_CLAUSE: Final = Atom("function_clause")
_NONEXISTING_NAME: Final = Atom("nonexisting_name")
_REX_STDOUT: Final = Atom("rex_stdout")
_RPC: Final = Atom("rpc")
_SBCAST: Final = Atom("sbcast")
_SEND: Final = Atom("send")
_SEND_STDOUT: Final = Atom("send_stdout_to_caller")
_SET_GROUP_LEADER: Final = Atom("set_group_leader")


@dataclass(frozen=True, slots=True)
class _Call:
    """A call that came as a message."""

    mfa: tuple[Any, Any, Any]
    """Module, function and arguments as they came: any terms."""
    leader: Any
    caller: Pid | None
    """Who waits; None for a cast."""
    answer: Callable[[Term], object] = lambda _value: None
    """Sends the answer; after the node has begun to end, nothing."""
    in_turn: bool = False
    """Whether calls of this kind run one after the other."""


@dataclass(slots=True)
class _Waiting:
    """A function that waits, and is cancelled when its caller ends."""

    caller: Pid
    scope: trio.CancelScope
    ref: Reference
    """The monitor on the caller."""


class Rex(InlineServer):
    """The process registered as ``rex``; it serves ``erpc`` too. Started again when it ends, it knows what still runs.

    Who waits for an answer of ``rex`` then gets an error, by its monitor; the function goes on all the same.
    """

    def __init__(self) -> None:
        #: By the monitor.
        self._waiting: dict[Reference, _Waiting] = {}
        self._turn = trio.Lock()
        self._begun = False

    def started(self) -> None:
        """Serve ``erpc``; or watch the callers for whom functions wait already."""
        if self._begun:
            waiting, self._waiting = self._waiting, {}
            for each in waiting.values():
                self._watch_again(each)
            return
        self._begun = True
        served: dict[str, Callable[..., object]] = {
            EXECUTE_CALL.name: self._execute_call,
            EXECUTE_CAST.name: self._execute_cast,
        }
        self.node.expose(ERPC, served, with_process=True)

    def handle_message(self, message: Term) -> None:
        """Begin a call; stop waiting for one whose caller has gone; drop what it does not know."""
        match message:
            case (tag, from_, request) if tag == GEN_CALL and is_from(from_):
                self._called(from_, request)
            case (tag, (what, module, function, arguments, leader)) if tag == GEN_CAST and what == _CAST:
                self._begin(_Call((module, function, arguments), leader, None))
            case (Pid() as caller, (what, module, function, arguments, leader)) if what == CALL:
                answer = partial(self._send, caller)
                self._begin(_Call((module, function, arguments), leader, caller, answer))
            case (Pid() as caller, what) if what == _FEATURES_REQUEST:
                self.process.send(caller, (_FEATURES_REPLY, self.node.name, [ERPC]))
            case (Pid() as caller, (what, name, inner)) if what in (_SBCAST, _SEND):
                self._broadcast(caller, what, name, inner)
            case (tag, Reference() as ref, _, _, _) if tag == DOWN:
                waiting = self._waiting.pop(ref, None)
                if waiting is not None:
                    waiting.scope.cancel()
            case _:
                log.debug("rex drops %s", shown_term(message))

    # -- rex

    def _called(self, from_: From, request: Term) -> None:
        answer = partial(self._reply, from_)
        match request:
            case (what, module, function, arguments, leader) if what in (CALL, BLOCK_CALL):
                mfa = (module, function, arguments)
                self._begin(_Call(mfa, leader, from_[0], answer, in_turn=what == BLOCK_CALL))
            case _:
                log.info("%s asks rex for %s, which it does not know", from_[0], shown_term(request))
                answer((BADRPC, NOTSUP))

    def _reply(self, from_: From, value: Term) -> None:
        if self.process.alive:  # otherwise the node ends; nobody is to be dialled for this
            reply(self.process, from_, value)

    def _send(self, caller: Pid, value: Term) -> None:
        if self.process.alive:
            self.process.send(caller, (REX, value))

    def _begin(self, call: _Call) -> None:
        if type(call.leader) is Pid or call.leader in (USER, _SEND_STDOUT):
            self.node.spawn(self._run, call)
        else:
            where: Term = (_RPC, _SET_GROUP_LEADER, [call.leader], [])
            call.answer((BADRPC, (EXIT, (_FUNCTION_CLAUSE, [where]))))

    async def _run(self, process: Process, call: _Call) -> None:
        """The process of one call."""
        with self._leading(process, call):
            try:
                async with self._turn if call.in_turn else nullcontext():
                    outcome = await applied(process, *call.mfa, partial(self._while_there, call.caller))
            except trio.Cancelled:
                if not process.alive:  # ended by an exit signal
                    self._answer(call, (BADRPC, (EXIT, process.exit_reason)))
                raise
            self._answer(call, _as_rpc(outcome))

    def _answer(self, call: _Call, value: Term) -> None:
        try:
            call.answer(value)
        except EncodeError as error:  # a term that the caller's node is too old for
            call.answer((BADRPC, (EXIT, (crash_reason(error), []))))

    @contextmanager
    def _leading(self, process: Process, call: _Call) -> Iterator[None]:
        """Give ``process`` the group leader that the call asks for."""
        proxy: Pid | None = None
        if call.leader == _SEND_STDOUT and call.caller is not None:
            caller = call.caller
            proxy = self.node.start_inline(IoServer(lambda text: self.node.send(caller, (_REX_STDOUT, text))))
            process.group_leader = proxy
        elif type(call.leader) is Pid:
            process.group_leader = call.leader
        try:
            yield
        finally:
            if proxy is not None:
                self.node.exit(proxy, SHUTDOWN)

    def _broadcast(self, caller: Pid, what: Atom, name: Term, inner: Term) -> None:
        """``rpc:sbcast/3``, and its relative that nobody calls any more."""
        there = type(name) is Atom and self.node.whereis(name) is not None
        if there:
            self.process.send(name, inner if what == _SBCAST else (caller, inner))
        if what == _SBCAST or not there:
            self.process.send(caller, (REX, self.node.name, self.node.name if there else (_NONEXISTING_NAME, name)))

    # -- erpc

    async def _execute_call(self, process: Process, ref: Term, module: Term, function: Term, arguments: Term) -> None:
        """``erpc:execute_call/4``: the result is the exit reason."""
        watchers = process.watchers.items()
        if not watchers:
            raise CallerGone(SHUTDOWN)  # before it could begin
        caller = watchers[0][1]
        assert type(caller) is Pid
        outcome = await applied(process, module, function, arguments, partial(self._while_there, caller))
        raise Exit((ref, *outcome))

    async def _execute_cast(self, process: Process, module: Term, function: Term, arguments: Term) -> None:
        """``erpc:execute_cast/3``; a failure is in the log already."""
        await applied(process, module, function, arguments, nullcontext)

    @contextmanager
    def _while_there(self, caller: Pid | None) -> Iterator[None]:
        """Cancel the block when ``caller`` ends or its node is lost; the process then ends as well."""
        if caller is None or not self.process.alive:
            yield
            return
        if not self._may_be_there(caller):
            raise CallerGone(SHUTDOWN)
        with trio.CancelScope() as scope:
            waiting = _Waiting(caller, scope, self.process.monitor(caller))
            self._waiting[waiting.ref] = waiting
            try:
                yield
            finally:
                self._waiting.pop(waiting.ref, None)
                if self.process.alive:
                    self.process.demonitor(waiting.ref)
        if scope.cancelled_caught:
            raise CallerGone(SHUTDOWN)

    def _may_be_there(self, caller: Pid) -> bool:
        """Whether a monitor tells; to ask for a caller on a node that is lost would dial it."""
        return caller.node == self.node.name or self.node.is_connected(caller.node)

    def _watch_again(self, waiting: _Waiting) -> None:
        if self._may_be_there(waiting.caller):
            waiting.ref = self.process.monitor(waiting.caller)
            self._waiting[waiting.ref] = waiting
        else:
            waiting.scope.cancel()


def _as_rpc(outcome: Outcome) -> Term:
    """What ``rpc:call`` returns for it."""
    label, value, *stack = outcome
    if label in (RETURN, THROW):
        return value
    return (BADRPC, (EXIT, value if label == EXIT_CLASS else (value, *stack)))
