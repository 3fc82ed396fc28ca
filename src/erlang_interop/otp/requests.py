"""Requests under way: asked without waiting, by ``erpc`` or as ``gen_server`` calls, each alone or many with labels.

.. code-block:: text

    erpc, gen_server             here
    send_request/4, /2           request = node.erpc_send_request(...), node.send_request(...)
    receive_response/2           value = await request.receive_response(timeout)
    wait_response/2              await request.wait_response(timeout)
    reqids_new/0                 requests = Requests()
    reqids_add/3                 requests.add(request, label)
    reqids_size/1                len(requests)
    reqids_to_list/1             requests.labels()
    receive_response/3           label, value = await requests.receive_response(timeout)
    wait_response/3              await requests.wait_response(timeout)
    {abs, Time} for all of them  async for label, outcome in requests.responses(timeout)

A request is a process of its own, which ends with the answer. One that is given up ends too, and its monitor and alias
with it: what comes later is dropped on arrival.

Source: kernel/src/erpc.erl, stdlib/src/gen.erl (receive_response/2,3, wait_response/2,3).
"""

from __future__ import annotations

import math
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import trio

from ..errors import CallError, Exit
from ..runtime.atoms import NORMAL
from ..runtime.inline import InlineServer

if TYPE_CHECKING:
    from typing import Self

    from ..errors import CallTimeout
    from ..terms import Term

L = TypeVar("L")


class _Waiters:
    """Tasks that wait for the same thing."""

    __slots__ = ("_tasks",)

    def __init__(self) -> None:
        self._tasks: set[trio.lowlevel.Task] = set()

    async def wait(self) -> None:
        """Return when this task is woken."""
        task = trio.lowlevel.current_task()
        self._tasks.add(task)

        def abort(_: object) -> trio.lowlevel.Abort:
            self._tasks.discard(task)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def wake(self, task: trio.lowlevel.Task) -> None:
        """Wake one, if it waits."""
        if task in self._tasks:
            self._tasks.remove(task)
            trio.lowlevel.reschedule(task)

    def wake_all(self) -> None:
        """It has come."""
        for task in list(self._tasks):
            self.wake(task)


class Request(InlineServer):
    """A request under way: the process that asks, and waits for the answer. ``CallRequest`` and ``ErpcRequest`` are."""

    def __init__(self) -> None:
        #: The message with the answer, once it is there.
        self._message: Any = None
        #: Given up: the seconds it had, if that was the reason.
        self._given: float | None = None
        self._waiters = _Waiters()
        self._collection: Requests[Any] | None = None

    def handle_message(self, message: Term) -> None:
        """The answer."""
        self._message = message
        raise Exit(NORMAL)

    def terminated(self, reason: Term) -> None:
        """Wake who waits."""
        self._waiters.wake_all()
        if self._collection is not None:
            self._collection._answered(self)

    def abandon(self, after: float | None = None) -> None:
        """Give up: what comes of it is dropped. After the end, nothing.

        Args:
            after: The seconds it was given, for the words of the CallTimeout.
        """
        if self.process.alive:
            self._given = after
            # Its monitor and its alias go with it; exiting as itself is the one signal `normal` that is obeyed.
            self.process.exit(self.process.pid, NORMAL)

    async def wait_response(self, timeout: float | None = None) -> bool:
        """``wait_response/2``: whether the response came within ``timeout`` seconds (None: wait for ever).

        The request stays as it is; ``receive_response`` then has the response without waiting.
        """
        if not self.process.alive:
            await trio.lowlevel.checkpoint()
        elif timeout is None:
            await self._waiters.wait()
        else:
            # A timer of the node's, in its one heap: a cancel scope of its own costs more than the rest of the wait.
            timer = self.node.call_later(timeout, partial(self._waiters.wake, trio.lowlevel.current_task()))
            try:
                await self._waiters.wait()
            finally:
                timer.cancel()
        return self._message is not None

    async def receive_response(self, timeout: float | None = None) -> Term:
        """``receive_response/2``: the answer. The request is given up if that takes too long.

        Args:
            timeout: Seconds to wait; None waits for ever.

        Raises:
            CallTimeout: no response in time, or the request was given up before.
            CallError: what a call that waits would have raised.
        """
        try:
            await self.wait_response(timeout)
            self.abandon(timeout)
        finally:
            self.abandon()
        return self._response()

    def _response(self) -> Term:
        """The response of a request that has ended."""
        if self._message is None:
            given = self._given
            raise self._timed_out("before the request was given up" if given is None else f"within {given} s")
        return self._result(self._message)

    def _enter(self, collection: Requests[Any]) -> None:
        """Tell ``collection`` of the end, now if that was before.

        Raises:
            ValueError: the request is in a collection already.
        """
        if self._collection is not None:
            raise ValueError(f"{self!r} is in a collection already, and has one label")
        self._collection = collection
        if not self.process.alive:
            collection._answered(self)

    def _timed_out(self, when: str) -> CallTimeout:
        """The error of a request without an answer; ``when`` is ``"within 5.0 s"``, or other words in its place."""
        raise NotImplementedError

    def _result(self, message: Any) -> Term:
        """What the message says: a value, or an error that is raised."""
        raise NotImplementedError


class Requests(Generic[L]):
    """Many requests under way, each with a label, and the next answer of any of them: a ``request_id_collection()``.

    .. code-block:: python

        with Requests[str]() as requests:
            for name in nodes:
                requests.add(node.erpc_send_request(name, "erlang", "memory", []), name)
            async for name, outcome in requests.responses(timeout=5.0):
                print(name, outcome)  # what it returned, or the CallError that says why not

    Each request gives its response once, in the order in which they come. ``erpc`` and ``gen_server`` requests may be
    in the same collection, and more may be added at any time. Leaving the block gives up those that are left.
    """

    def __init__(self) -> None:
        #: All whose response was not received yet.
        self._labels: dict[Request, L] = {}
        #: Those of them that have ended, in that order.
        self._ended: deque[Request] = deque()
        self._waiters = _Waiters()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.abandon()

    def __len__(self) -> int:
        """``reqids_size/1``: how many responses are still to be received."""
        return len(self._labels)

    def labels(self) -> list[L]:
        """The labels of the requests whose response was not received yet, in the order they were added."""
        return list(self._labels.values())

    def add(self, request: Request, label: L) -> None:
        """``reqids_add/3``.

        Args:
            request: From ``node.send_request`` or ``node.erpc_send_request``; it may have its answer already.
            label: Any Python value; several requests may have the same.

        Raises:
            ValueError: the request is in a collection already.
        """
        request._enter(self)
        self._labels[request] = label

    def _answered(self, request: Request) -> None:
        """A request of this collection has ended: it has its answer, or was given up."""
        self._ended.append(request)
        self._waiters.wake_all()

    def abandon(self) -> None:
        """Give up all that are under way; the response of each is then a CallTimeout."""
        for request in self._labels:
            request.abandon()

    async def wait_response(self, timeout: float | None = None) -> bool:
        """``wait_response/3``: whether there is a response within ``timeout`` seconds (None: wait for ever).

        The requests stay as they are; ``receive_response`` then has it without waiting. False at once if no request is
        left.
        """
        return await self._wait(_deadline(timeout))

    async def receive_response(self, timeout: float | None = None) -> tuple[L, Term]:
        """``receive_response/3``: the label and the answer of the request that is answered next.

        When the time is up all requests are given up, as in OTP; here each then has a CallTimeout of its own, which is
        raised by this and the following calls. A cancelled call leaves all as it was.

        Args:
            timeout: Seconds to wait; None waits for ever.

        Raises:
            CallError: what the request's own ``receive_response`` raises, with its ``label``. The others stay.
            LookupError: no request is left (``no_request``).
        """
        answer = await self._next(_deadline(timeout), timeout)
        if answer is None:
            raise LookupError("no request is under way in this collection: len() tells how many are left")
        label, outcome = answer
        if isinstance(outcome, CallError):
            raise outcome
        return label, outcome

    def responses(self, timeout: float | None = None) -> Responses[L]:
        """For ``async for label, outcome in ...``: the responses as they come, until no request is left.

        An outcome is the value, or the CallError that ``receive_response`` would raise.

        Args:
            timeout: Seconds, from now, for all of them together. Those that have not answered then are given up, and
                their outcome is a CallTimeout.
        """
        return Responses(self, timeout)

    async def _next(self, deadline: float, timeout: float | None) -> tuple[L, Term | CallError] | None:
        """The next label and outcome; None if no request is left.

        Args:
            deadline: When all are given up, on the loop's clock.
            timeout: How that was said in seconds.
        """
        if not await self._wait(deadline):
            if not self._labels:
                return None
            for late in self._labels:
                late.abandon(timeout)
        request = self._ended.popleft()
        label = self._labels.pop(request)
        try:
            return label, request._response()
        except CallError as error:
            error.label = label
            return label, error

    async def _wait(self, deadline: float) -> bool:
        """Whether there is a response before the deadline."""
        await trio.lowlevel.checkpoint()
        with trio.move_on_at(deadline):
            while not self._ended and self._labels:  # another task may have taken what this one was woken for
                await self._waiters.wait()
        return bool(self._ended)


class Responses(Generic[L]):
    """What ``Requests.responses`` gives."""

    def __init__(self, requests: Requests[L], timeout: float | None) -> None:
        self._requests = requests
        self._timeout = timeout
        self._deadline = _deadline(timeout)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[L, Term | CallError]:
        answer = await self._requests._next(self._deadline, self._timeout)
        if answer is None:
            raise StopAsyncIteration
        return answer


def _deadline(timeout: float | None) -> float:
    return math.inf if timeout is None else trio.current_time() + timeout
