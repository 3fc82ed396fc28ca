"""What a Python function's end is to an Erlang caller."""

from __future__ import annotations

import math
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.lowlevel

from erlang_interop import Atom, Exit, Node, Throw, charlist
from erlang_interop.otp.applying import STACK_DEPTH, BadArg, CallerGone, applied

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractContextManager

    from erlang_interop import Process

PY, F = Atom("py"), Atom("f")
RETURN, THROW, EXIT, ERROR = map(Atom, ("return", "throw", "exit", "error"))


@pytest.fixture
async def process(one_node: Node) -> AsyncIterator[Process]:
    async with one_node.open_process() as process:
        yield process


async def outcome(process: Process, fn: Callable[..., object], *arguments: object, **options: Any) -> Any:
    process.node.expose("py", {"f": fn}, **options)
    return await applied(process, PY, F, list(arguments), nullcontext)


async def test_values(process: Process) -> None:
    async def waits(value: int) -> int:
        await trio.lowlevel.checkpoint()
        return value

    assert await outcome(process, lambda a, b: [a, b], 1, b"x") == (RETURN, [1, b"x"])
    assert await outcome(process, waits, 7) == (RETURN, 7)
    assert await outcome(process, partial(pow, 2), 10) == (RETURN, 1024)
    assert await outcome(process, lambda me: me.pid, with_process=True) == (RETURN, process.pid)
    assert await outcome(process, lambda: None) == (RETURN, None)


async def test_badarg_is_the_callers_fault(process: Process, caplog: pytest.LogCaptureFixture) -> None:
    def refuses(*arguments: object) -> None:
        raise BadArg

    assert await outcome(process, refuses, 1, 2) == (ERROR, Atom("badarg"), [(PY, F, 2, [])])
    assert caplog.records == []


async def test_a_thread(process: Process) -> None:
    in_thread = await outcome(process, lambda: trio.lowlevel.in_trio_run(), thread=True)
    assert in_thread == (RETURN, False)
    assert (await outcome(process, math.sqrt, -1, thread=True))[0] == ERROR


def raise_deep(depth: int) -> None:
    if depth == 0:
        raise KeyError("nothing")
    raise_deep(depth - 1)


async def test_the_stack_is_erlangs(process: Process) -> None:
    label, reason, stack = await outcome(process, raise_deep, 1)
    assert (label, reason) == (ERROR, (Atom("KeyError"), "'nothing'"))
    *frames, last = stack
    assert last == (PY, F, 1, [])
    assert [frame[:3] for frame in frames] == [(Atom(__name__), Atom("raise_deep"), 1)] * 2
    first = raise_deep.__code__.co_firstlineno
    where = [dict(frame[3]) for frame in frames]
    assert [place[Atom("line")] - first for place in where] == [2, 3]
    assert where[0][Atom("file")] == charlist(__file__)
    *frames, last = (await outcome(process, raise_deep, 100))[2]
    assert (len(frames), frames[0][1], last[1]) == (STACK_DEPTH, Atom("raise_deep"), F)
    # What is written in C has no frames.
    assert (await outcome(process, math.sqrt, -1))[2] == [(PY, F, 1, [])]


async def test_exceptions_of_a_nursery_are_its_first(process: Process) -> None:
    async def nursery() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails)

    async def fails() -> None:
        raise ValueError("inner")

    assert (await outcome(process, nursery))[1] == (Atom("ValueError"), "inner")


async def test_classes(process: Process) -> None:
    def raises(error: Exception) -> Callable[[], None]:
        def fn() -> None:
            raise error

        return fn

    assert await outcome(process, raises(Exit((1, 2)))) == (EXIT, (1, 2))
    assert await outcome(process, raises(Throw([]))) == (THROW, [])
    assert (await outcome(process, raises(RuntimeError("x"))))[:2] == (ERROR, (Atom("RuntimeError"), "x"))


@pytest.mark.parametrize("how", ["returned", "exit", "throw"])
async def test_what_is_no_term_is_an_error(process: Process, how: str) -> None:
    def fn() -> object:
        if how == "returned":
            return {1, 2}
        raise (Exit if how == "exit" else Throw)({1, 2})

    label, (name, text), stack = await outcome(process, fn)
    assert (label, name, stack) == (ERROR, Atom("EncodeError"), [(PY, F, 0, [])])
    assert "set" in text


async def test_what_is_not_exposed_is_undef(process: Process) -> None:
    process.node.expose("py", {"f": lambda one: one})
    for module, function, arguments in ((PY, Atom("g"), []), (PY, F, []), (PY, F, [1, 2]), (True, None, [])):
        assert await applied(process, module, function, arguments, nullcontext) == (
            ERROR,
            Atom("undef"),
            [(module, function, arguments, [])],
        )


@pytest.mark.parametrize(
    ("module", "function", "arguments"),
    [(b"py", F, []), ([112, 121], F, []), (PY, 1, []), (PY, {}, []), (PY, F, ()), (PY, F, F), (PY, F, None)],
)
async def test_what_cannot_be_applied_is_badarg(process: Process, module: Any, function: Any, arguments: Any) -> None:
    assert await applied(process, module, function, arguments, nullcontext) == (
        ERROR,
        Atom("badarg"),
        [(Atom("erlang"), Atom("apply"), [module, function, arguments], [])],
    )


async def test_a_caller_that_goes_is_told_nothing(process: Process) -> None:
    class Gone:
        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None:
            raise CallerGone(None)

    def waiting() -> AbstractContextManager[object]:
        return Gone()

    process.node.expose("py", {"f": trio.lowlevel.checkpoint})
    with pytest.raises(CallerGone):
        await applied(process, PY, F, [], waiting)


async def test_only_what_waits_is_waited_for(process: Process) -> None:
    entered: list[str] = []

    def waiting() -> AbstractContextManager[object]:
        entered.append("yes")
        return nullcontext()

    for fn, times in ((lambda: 1, 0), (trio.lowlevel.checkpoint, 1)):
        process.node.expose("py", {"f": fn})
        await applied(process, PY, F, [], waiting)
        assert len(entered) == times


async def test_threads_are_for_functions_without_await(one_node: Node) -> None:
    with pytest.raises(TypeError, match="async"):
        one_node.expose("py", {"f": trio.sleep}, thread=True)
    with pytest.raises(TypeError, match="exclude each other"):
        one_node.expose("py", {"f": print}, thread=True, with_process=True)
