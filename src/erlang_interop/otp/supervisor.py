"""Supervisors: processes that start others, and start them again when they end.

.. code-block:: python

    supervisor = Supervisor(
        [
            ChildSpec("tables", lambda: node.start_inline(Tables())),
            ChildSpec("reader", lambda: Reader.start_nowait(node, name="reader"), restart="transient", shutdown=2.0),
        ],
        strategy="rest_for_one",
    )
    node.start_inline(supervisor, name="my_sup", link_to=parent)

Strategies, restart types, intensity, the order of starting and stopping are OTP's. What differs, because a
supervisor here runs inline and never blocks: while it waits for a child to end it takes other messages, and keeps
the exits of other children for later; ``terminate_child`` returns when the child was told, not when it is gone.

Source: stdlib/src/supervisor.erl; stdlib manual, supervisor(3); OTP Design Principles, "Supervisor Behaviour".
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import trio

from ..errors import SupervisorError
from ..runtime.atoms import EXIT, KILL, NORMAL, SHUTDOWN, UNDEFINED
from ..runtime.inline import InlineServer
from ..terms import Atom, Pid
from .gen import GEN_CALL, is_from, reply, shown_term

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..runtime.inline import InlineProcess
    from ..runtime.local_process import LocalProcess
    from ..runtime.timers import Timer
    from ..terms import Term

log = logging.getLogger("erlang_interop.supervisor")

Strategy: TypeAlias = Literal["one_for_one", "one_for_all", "rest_for_one"]
Restart: TypeAlias = Literal["permanent", "transient", "temporary"]

#: What the supervisors of this package's own processes allow: so many restarts in so many seconds.
RESTARTS: Final = 10
PERIOD: Final = 10.0

_RESTART: Final = Atom("$restart")
_RESTARTING: Final = Atom("restarting")
_UNSUPPORTED: Final = (Atom("error"), Atom("unsupported"))


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How one child is started, stopped and started again."""

    id: Term
    """Its name within the supervisor; any hashable term, shown by ``which_children``."""
    start: Callable[[], Pid]
    """Starts it and returns its pid at once: ``node.start_inline``, ``node.spawn``, ``GenServer.start_nowait``. The
    supervisor links to it. What it raises is a failed start."""
    restart: Restart = "permanent"
    """``permanent``: always started again; ``transient``: unless it ended as ``normal``, ``shutdown`` or
    ``{shutdown, _}``; ``temporary``: never, and forgotten when it ends."""
    shutdown: float | Literal["brutal_kill", "infinity"] = 5.0
    """Seconds that it may take to end after the exit signal ``shutdown``, until it is killed."""
    type: Literal["worker", "supervisor"] = "worker"
    """For ``which_children`` alone."""


@dataclass(slots=True, eq=False)
class _Child:
    spec: ChildSpec
    pid: Pid | None = None
    #: The process of ``pid``, or of the last one; None if that was gone as soon as it was started.
    process: LocalProcess | None = None
    #: Told to end, by the supervisor; ``timer`` will kill it.
    stopping: bool = False
    #: Its last start failed, and another one is due.
    restarting: bool = False
    timer: Timer | None = None


@dataclass(slots=True)
class _Plan:
    """Children to be stopped one after the other, the last first, and what follows then."""

    to_stop: list[_Child]
    then: Callable[[], None]
    advancing: bool = False


@dataclass(frozen=True, slots=True)
class ChildInfo:
    """One row of ``which_children``."""

    id: Term
    pid: Pid | None
    """None when it does not run: it ended for good, was terminated, or waits for another start."""
    spec: ChildSpec


class Supervisor(InlineServer):
    """Give it to ``node.start_inline``, which raises what the start of a child raised.

    It traps exits. An exit signal from its parent makes it stop its children, the last one first, and end with that
    reason. Parent is whoever it is linked to when it starts, and any process of this node that is older than itself:
    the supervisor above it, and the node's own code (``node.exit``). Exit signals of others are dropped, as OTP's
    supervisor does. When children end more than ``intensity`` times within ``period`` seconds it stops them all and
    ends as ``shutdown``.

    Args:
        children: Started in this order.
        strategy: Who is started again when a child has ended: it alone (``one_for_one``), all (``one_for_all``), it
            and those after it (``rest_for_one``).
        intensity: Restarts allowed within ``period``.
        period: Seconds.
    """

    def __init__(
        self,
        children: Iterable[ChildSpec] = (),
        *,
        strategy: Strategy = "one_for_one",
        intensity: int = 1,
        period: float = 5.0,
    ) -> None:
        if strategy not in ("one_for_one", "one_for_all", "rest_for_one"):
            raise ValueError(f"strategy is 'one_for_one', 'one_for_all' or 'rest_for_one', not {strategy!r}")
        if intensity < 0 or period <= 0:
            raise ValueError(f"intensity must not be negative and period must be positive: {intensity}, {period}")
        self._strategy = strategy
        self._intensity = intensity
        self._period = period
        self._children: dict[Term, _Child] = {}
        for spec in children:
            self._add(spec)
        self._plan: _Plan | None = None
        self._restarts: deque[float] = deque()
        #: Messages about children that are not part of the plan under way; they are handled after it.
        self._kept: deque[Term] = deque()
        self._parents: frozenset[Pid] = frozenset()
        self._stopped = trio.Event()
        self._exit_reason: Term = None
        self._ending = False

    # -- what its owner calls

    def start_child(self, spec: ChildSpec) -> Pid:
        """``supervisor:start_child/2``: add a child behind the others and start it.

        Raises:
            SupervisorError: there is a child of that id, or the supervisor is ending.
            Exception: what its start raised; nothing was added.
        """
        self._require_running(f"start {spec.id!r}")
        child = self._add(spec)
        try:
            return self._start(child)
        except BaseException:
            del self._children[spec.id]
            raise

    def restart_child(self, id: Term) -> Pid:  # noqa: A002 - OTP's name
        """``supervisor:restart_child/2``: start a child that does not run.

        Raises:
            SupervisorError: there is none of that id, it runs, or the supervisor is ending.
            Exception: what its start raised.
        """
        self._require_running(f"restart {id!r}")
        child = self._child(id)
        if child.pid is not None or child.restarting:
            raise SupervisorError(f"child {id!r} runs (as {child.pid}); terminate it first")
        return self._start(child)

    def terminate_child(self, id: Term) -> None:  # noqa: A002 - OTP's name
        """``supervisor:terminate_child/2``: tell a child to end; it is not started again. A temporary one is forgotten.

        A child that does not trap exits is gone when this returns, unless a process is ending at this very moment.

        Raises:
            SupervisorError: there is none of that id.
        """
        child = self._child(id)
        child.restarting = False
        if child.pid is None:
            self._forget_temporary(child)
        elif not child.stopping:
            self._stop(child)

    def delete_child(self, id: Term) -> None:  # noqa: A002 - OTP's name
        """``supervisor:delete_child/2``: forget a child that does not run.

        Raises:
            SupervisorError: there is none of that id, or it runs.
        """
        child = self._child(id)
        if child.pid is not None or child.restarting:
            raise SupervisorError(f"child {id!r} runs (as {child.pid}); terminate it first")
        del self._children[id]

    def which_children(self) -> list[ChildInfo]:
        """``supervisor:which_children/1``, in the order of starting."""
        return [ChildInfo(child.spec.id, child.pid, child.spec) for child in self._children.values()]

    def child_pid(self, id: Term) -> Pid | None:  # noqa: A002 - OTP's name
        """The process of a child, or None if it does not run. Raises SupervisorError if there is none of that id."""
        return self._child(id).pid

    def stop(self, reason: Term = SHUTDOWN) -> None:
        """Stop the children, the last one first, and end with ``reason``; :meth:`wait_stopped` waits for that."""
        if self.process.alive:
            self._end(reason)

    async def wait_stopped(self) -> Term:
        """Wait until the supervisor and its children have ended.

        Returns:
            Its exit reason.
        """
        await self._stopped.wait()
        return self._exit_reason

    # -- InlineServer

    def started(self) -> None:
        """Start the children; when one cannot be, those before it are told to end, and its error is the start's."""
        self._parents = frozenset(self.process.links)
        self.process.trap_exit = True
        try:
            for child in list(self._children.values()):
                self._start(child)
        except BaseException:
            for child in reversed(self._children.values()):
                if child.pid is not None:
                    self.process.exit(child.pid, SHUTDOWN)
            raise

    def handle_message(self, message: Term) -> None:
        """The exit of a child or the parent, a restart that is due, or a call."""
        match message:
            case (Atom() as tag, Pid() as pid, reason) if tag == EXIT:
                self._exited(pid, reason)
            case (Atom() as tag, _Child() as child) if tag == _RESTART:
                if self._plan is not None:
                    self._kept.append(message)
                elif child.restarting:
                    self._restart(child)
            case (Atom() as tag, from_, request) if tag == GEN_CALL and is_from(from_):
                reply(self.process, from_, self._answer(request))
            case _:
                log.warning("%r has no use for the message %s", self.process, shown_term(message))

    def terminated(self, reason: Term) -> None:
        """Wake those who wait for it."""
        if not _is_normal(reason):
            log.error("%r ended, and its children with it: %s", self.process, _shown_end(reason, self.process))
        self._exit_reason = reason
        for child in self._children.values():
            if child.timer is not None:
                child.timer.cancel()
        self._stopped.set()

    # -- starting and stopping one

    def _add(self, spec: ChildSpec) -> _Child:
        known = self._children.get(spec.id)
        if known is not None:
            raise SupervisorError(f"there is a child {spec.id!r} (as {known.pid}); delete it first, or use another id")
        child = self._children[spec.id] = _Child(spec)
        return child

    def _child(self, id_: Term) -> _Child:
        child = self._children.get(id_)
        if child is None:
            known = ", ".join(repr(known) for known in self._children) or "none"
            raise SupervisorError(f"there is no child {id_!r}; there are: {known}")
        return child

    def _require_running(self, what: str) -> None:
        process: InlineProcess | None = getattr(self, "process", None)
        if process is None:
            raise SupervisorError(f"cannot {what}: give the supervisor to node.start_inline first")
        if self._ending or not process.alive:
            raise SupervisorError(f"cannot {what}: the supervisor {process.pid} is ending or has ended")

    def _start(self, child: _Child) -> Pid:
        pid = child.pid = child.spec.start()
        child.process = self.node.processes.get(pid)
        child.stopping = child.restarting = False
        self.process.link(pid)  # one that is gone already gives the exit `noproc`
        return pid

    def _stop(self, child: _Child) -> None:
        """Tell a child that runs to end. If it is gone at once, it is dealt with when this returns."""
        assert child.pid is not None
        child.stopping = True
        shutdown = child.spec.shutdown
        pid = child.pid
        if shutdown == "brutal_kill":
            self.process.exit(pid, KILL)
        else:
            if shutdown != "infinity":
                child.timer = self.node.call_later(shutdown, lambda: self._kill(child, pid))
            self.process.exit(pid, SHUTDOWN)
        if child.pid is pid and not self.node.is_alive(pid):
            self._gone(child)  # the EXIT that is still to come is a stranger's

    def _kill(self, child: _Child, pid: Pid) -> None:
        log.warning("%r: child %r did not end in %s s; killed", self.process, child.spec.id, child.spec.shutdown)
        self.process.exit(pid, KILL)

    def _gone(self, child: _Child) -> None:
        child.pid = None
        child.stopping = False
        if child.timer is not None:
            child.timer.cancel()
            child.timer = None
        self._forget_temporary(child)

    def _forget_temporary(self, child: _Child) -> None:
        if child.spec.restart == "temporary":
            self._children.pop(child.spec.id, None)

    # -- stopping several

    def _carry_out(self, plan: _Plan) -> None:
        self._plan = plan
        self._advance()

    def _advance(self) -> None:
        """Go on with the plan as far as it goes without waiting for an EXIT."""
        plan = self._plan
        if plan is None or plan.advancing:
            return
        plan.advancing = True  # outside of a handler, _stop brings the EXIT before it returns
        try:
            while plan.to_stop:
                child = plan.to_stop[-1]
                if child.pid is not None and not child.stopping:
                    self._stop(child)
                if child.pid is not None:
                    return
                plan.to_stop.pop()
        finally:
            plan.advancing = False
        if self._plan is not plan:
            return  # another took its place meanwhile
        self._plan = None
        plan.then()
        while self._kept and self._plan is None:
            self.handle_message(self._kept.popleft())

    def _end(self, reason: Term) -> None:
        self._ending = True
        self._carry_out(_Plan(list(self._children.values()), lambda: self._exit(reason)))

    def _exit(self, reason: Term) -> None:
        # As itself: the one exit signal that no trap_exit and no `normal` stands in the way of is made here.
        self.process.trap_exit = False
        self.process.exit(self.process.pid, reason)

    # -- when a child ends

    def _exited(self, pid: Pid, reason: Term) -> None:
        child = next((child for child in self._children.values() if child.pid == pid), None)
        if child is None:
            if not self._ending and self._is_parent(pid):
                self._end(reason)
        elif child.stopping:
            self._gone(child)
            self._advance()
        elif self._plan is not None and child not in self._plan.to_stop:
            self._kept.append((EXIT, pid, reason))
        else:
            self._ended_by_itself(child, reason)

    def _is_parent(self, pid: Pid) -> bool:
        # A former child, or one that ended while it was being started, is unknown here, but it is younger.
        me = self.process.pid
        return pid in self._parents or (pid.node == me.node and (pid.serial, pid.id) < (me.serial, me.id))

    def _ended_by_itself(self, child: _Child, reason: Term) -> None:
        self._gone(child)
        if self._plan is not None:
            self._advance()
            return
        if self.node.stopping:
            return
        restart = child.spec.restart
        if restart == "permanent" or (restart == "transient" and not _is_normal(reason)):
            log.warning("%r: child %r ended: %s", self.process, child.spec.id, _shown_end(reason, child.process))
            self._restart(child)
        elif not _is_normal(reason):
            end = _shown_end(reason, child.process)
            log.warning("%r: child %r ended: %s; it is not restarted", self.process, child.spec.id, end)

    def _restart(self, child: _Child) -> None:
        """Start a child again, with those that the strategy says; the intensity allowing."""
        if self._ending:
            return
        now = trio.current_time()
        restarts = self._restarts
        restarts.append(now)
        while restarts and restarts[0] < now - self._period:
            restarts.popleft()
        if len(restarts) > self._intensity:
            log.error("%r: more than %d restarts in %s s; it ends", self.process, self._intensity, self._period)
            self._end(SHUTDOWN)
            return
        children = list(self._children.values())
        if self._strategy == "one_for_one":
            group = [child]
        else:
            group = children if self._strategy == "one_for_all" else children[children.index(child) :]
        again = [member for member in group if member.spec.restart != "temporary"]
        for member in again:
            member.restarting = True  # until it runs, or its owner terminates it
        self._carry_out(_Plan(group, lambda: self._start_again(again)))

    def _start_again(self, children: list[_Child]) -> None:
        for child in children:
            if not child.restarting or self._children.get(child.spec.id) is not child:
                continue  # its owner terminated it meanwhile, or deleted it
            try:
                self._start(child)
            except Exception:
                log.exception("%r: child %r cannot be started", self.process, child.spec.id)
                # As OTP does: it counts as one more restart, so that the intensity ends it.
                self.process.send(self.process.pid, (_RESTART, child))
                return

    # -- what others ask

    def _answer(self, request: Term) -> Term:
        """``supervisor:which_children/1`` and ``count_children/1``; a BEAM cannot give us child specs to start."""
        children = list(self._children.values())
        if request == Atom("which_children"):
            return [
                (
                    child.spec.id,
                    child.pid or (_RESTARTING if child.restarting else UNDEFINED),
                    Atom(child.spec.type),
                    [],
                )
                for child in reversed(children)
            ]
        if request == Atom("count_children"):
            workers = sum(child.spec.type == "worker" for child in children)
            return [
                (Atom("specs"), len(children)),
                (Atom("active"), sum(child.pid is not None for child in children)),
                (Atom("supervisors"), len(children) - workers),
                (Atom("workers"), workers),
            ]
        return _UNSUPPORTED


def _is_normal(reason: Term) -> bool:
    return reason in (NORMAL, SHUTDOWN) or (type(reason) is tuple and len(reason) == 2 and reason[0] == SHUTDOWN)


def _shown_end(reason: Term, process: LocalProcess | None) -> str:
    """The reason, and who sent the exit signal, if one did."""
    by = None if process is None else process.ended_by
    return shown_term(reason) + ("" if by is None else f" (an exit signal of {by})")
