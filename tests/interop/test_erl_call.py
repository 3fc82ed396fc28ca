"""``erl_call``, the C node that comes with every OTP, calls Python: libei's handshake and its ``ei_rpc``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from erlang_interop import Atom, Node, Process
from tests.command import Command
from tests.interop.collectors import PATIENCE, leftovers, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from erlang_interop.testing.beam import Epmd
    from tests.conftest import Otp


@pytest.fixture
def erl_call(otp: Otp, tmp_path: Path, epmd: Epmd) -> Command:
    """The program of this OTP."""
    found = next((path for path in otp.root.rglob("erl_call") if path.is_file()), None)
    if found is None:
        pytest.fail(f"{otp.root} has no erl_call: it is in erts-*/bin of a whole OTP", pytrace=False)
    return Command(tmp_path, epmd.port, None, program=(str(found),))


@pytest.fixture
async def py(either_node: Node) -> AsyncIterator[Node]:
    """A node of ours with something to call; nothing may be left of the calls."""
    node = either_node
    node.expose("py", {"add": lambda one, other: one + other, "div": lambda one, other: one / other})
    yield node
    await until(lambda: leftovers(node) == {} and node.statistics()["processes"] == 4)


@pytest.mark.parametrize(
    ("call", "printed"),
    [
        ("py add [1,2]", "3"),
        ("py add [1]", r"{badrpc, {'EXIT', {undef, [{py, add, "),
        ("os getpid []", "{badrpc, {'EXIT', {undef, [{os, getpid, [], []}]}}}"),
        ("py div [1,0]", "{badrpc, {'EXIT', {{'ZeroDivisionError', "),
    ],
)
async def test_calls(py: Node, erl_call: Command, cookie: str, call: str, printed: str) -> None:
    done = await erl_call("-name", py.name.name, "-c", cookie, "-a", call)
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(printed)


async def test_what_is_printed_goes_along(py: Node, erl_call: Command, cookie: str) -> None:
    async def hello(process: Process) -> Atom:
        assert process.group_leader is not None
        request = (Atom("put_chars"), Atom("unicode"), "hello\n")
        process.send(process.group_leader, (Atom("io_request"), process.pid, 1, request))
        await process.receive()
        return Atom("told")

    py.expose("py", {"hello": hello}, with_process=True)
    done = await erl_call("-fetch_stdout", "-name", py.name.name, "-c", cookie, "-a", "py hello []")
    assert (done.status, done.out, done.err) == (0, "hello\ntold", "")


async def test_a_function_is_cancelled_when_it_is_stopped(py: Node, erl_call: Command, cookie: str) -> None:
    started, cancelled = trio.Event(), trio.Event()

    async def stuck() -> None:
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    py.expose("py", {"stuck": stuck})
    with trio.fail_after(PATIENCE):
        async with erl_call.started("-name", py.name.name, "-c", cookie, "-a", "py stuck []") as running:
            await started.wait()
            assert not cancelled.is_set()
            running.process.kill()
            await cancelled.wait()


async def test_it_cannot_stop_the_node_nor_run_code_on_it(py: Node, erl_call: Command, cookie: str) -> None:
    where = ("-name", py.name.name, "-c", cookie)
    await erl_call(*where, "-q")  # erlang:halt/0, for which it waits no answer
    done = await erl_call(*where, "-a", "erlang halt")
    assert done.out.startswith("{badrpc, {'EXIT', {undef, [{erlang, halt, ")
    done = await erl_call(*where, "-a", "py add [20,22]")
    assert done.out == "42"
