"""``gen_server``: calls and casts to genuine servers, and servers in Python for genuine callers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from erlang_interop import (
    Atom,
    BadRpc,
    CalleeExited,
    CallTimeout,
    ChildSpec,
    ImproperList,
    Node,
    NodeDownError,
    NoProcess,
    Pid,
    Reference,
    Supervisor,
)
from erlang_interop.otp import gen
from tests.interop.collectors import PATIENCE, collecting, leftovers, until
from tests.servers import Calculator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from erlang_interop import Term
    from erlang_interop.testing.beam import Beam
    from tests.conftest import BeamFactory

EXIT, NOPROC, NORMAL, OK = Atom("exit"), Atom("noproc"), Atom("normal"), Atom("ok")
CALLS = "server_caller:call(Dest, Request)"


@pytest.fixture
async def calculator(beam: Beam) -> AsyncIterator[Pid]:
    """A genuine gen_server, registered as ``calculator_here``."""
    pid = await beam.eval("calculator:start(calculator_here)")
    yield pid
    await beam.eval("case is_process_alive(P) of true -> calculator:stop(P); false -> ok end", P=pid)


async def until_nobody_watches(beam: Beam, pid: Pid) -> None:
    async def nobody_watches() -> bool:
        watchers = await beam.eval("process_info(P, monitored_by)", P=pid)
        return bool(watchers == (Atom("monitored_by"), []))

    await until(nobody_watches)


# -- Python asks a BEAM


async def test_call_by_pid_and_by_name(either_node: Node, beam: Beam, calculator: Pid) -> None:
    node = either_node
    for dest in (calculator, ("calculator_here", beam.name), (Atom("calculator_here"), Atom(beam.name))):
        assert await node.call(dest, (Atom("add"), 1, 2)) == 3
        assert await node.call(dest, (Atom("echo"), {"key": [1.5, None]})) == {b"key": [1.5, None]}
        assert await node.call(dest, (Atom("later"), 10, b"x")) == b"x"
        async with node.open_process() as process:
            assert await gen.call(process, dest, (Atom("add"), process.pid.id, 0)) == process.pid.id
            assert len(process.mailbox) == 0
    assert leftovers(node) == {}


@pytest.mark.rule("Aliases: gen_server's calls carry an alias in their tag, both ways")
async def test_the_from_that_a_genuine_server_sees(node: Node, beam: Beam, calculator: Pid) -> None:
    async with node.open_process() as process:
        caller, tag = await gen.call(process, calculator, Atom("from"))
        assert caller == process.pid
        assert isinstance(tag, ImproperList)
        assert tag.elements == [Atom("alias")]
        assert isinstance(tag.tail, Reference)
        assert await beam.eval("From = {P, T}, is_pid(P) andalso is_reference(tl(T))", P=caller, T=tag) is True


@pytest.mark.parametrize("as_process", [False, True], ids=["from a task", "from a process"])
class TestFailuresOfABeam:
    async def call(
        self, node: Node, as_process: bool, dest: Any, request: Term, timeout: float | None = PATIENCE
    ) -> Any:
        if not as_process:
            return await node.call(dest, request, timeout)
        async with node.open_process() as process:
            try:
                return await gen.call(process, dest, request, timeout)
            finally:
                assert len(process.mailbox) == 0

    async def test_noproc(self, node: Node, beam: Beam, as_process: bool) -> None:
        dead = await beam.eval("P = calculator:start(), calculator:stop(P), P")
        for dest in (("nobody_here", beam.name), dead):
            with pytest.raises(NoProcess) as error:
                await self.call(node, as_process, dest, Atom("from"))
            assert error.value.reason == NOPROC
        assert leftovers(node) == {}

    async def test_the_reason_of_a_server_that_ends(self, node: Node, beam: Beam, as_process: bool) -> None:
        for request, reason in [
            ((Atom("exit"), Atom("why")), Atom("why")),
            ((Atom("exit"), (Atom("shutdown"), [1])), (Atom("shutdown"), [1])),
            ((Atom("stop_silent"), NORMAL), NORMAL),
        ]:
            with pytest.raises(CalleeExited) as error:
                await self.call(node, as_process, await beam.eval("calculator:start()"), request)
            assert error.value.reason == reason
        with pytest.raises(CalleeExited) as error:
            await self.call(node, as_process, await beam.eval("calculator:start()"), (Atom("crash"), Atom("boom")))
        what, stack = error.value.reason
        assert what == Atom("boom")
        assert stack[0][:3] == (Atom("calculator"), Atom("handle_call"), 3)
        assert "boom" in str(error.value)
        assert leftovers(node) == {}

    async def test_a_reply_and_the_end_at_once(self, node: Node, beam: Beam, as_process: bool) -> None:
        pid = await beam.eval("calculator:start()")
        assert await self.call(node, as_process, pid, (Atom("stop"), NORMAL)) == Atom("stopping")
        assert leftovers(node) == {}

    async def test_a_late_answer_is_dropped(self, node: Node, beam: Beam, calculator: Pid, as_process: bool) -> None:
        async with node.open_process() as process:
            caller = process if as_process else node
            with pytest.raises(CallTimeout) as error:
                await gen.call(caller, calculator, (Atom("later"), 100, Atom("late")), timeout=0.02)
            assert error.value.reason == Atom("timeout")
            # The late one leaves the BEAM before this one does.
            assert await gen.call(caller, calculator, (Atom("later"), 150, Atom("next"))) == Atom("next")
            assert len(process.mailbox) == 0
        assert leftovers(node) == {}

    async def test_nodedown_during_a_call(self, node: Node, fresh_beam: BeamFactory, as_process: bool) -> None:
        beam = fresh_beam()
        pid = await beam.eval("calculator:start()")
        reasons: list[Term] = []

        async def wait_for_the_end() -> None:
            with pytest.raises(NodeDownError) as error:
                await self.call(node, as_process, pid, (Atom("never"), 1), None)
            reasons.append(error.value.reason)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_for_the_end)
            await until(lambda: node.statistics()["monitors"] == 1)
            assert await node.call(pid, (Atom("add"), 1, 1), PATIENCE) == 2  # behind the call that waits
            beam.kill()
        assert reasons == [(Atom("nodedown"), Atom(beam.name))]
        with pytest.raises(NodeDownError):
            await self.call(node, as_process, pid, Atom("from"))
        assert leftovers(node) == {}


async def test_64_calls_at_once_leave_nothing_behind(node: Node, beam: Beam, calculator: Pid) -> None:
    answers: dict[int, list[Term]] = {number: [] for number in range(64)}

    async def ask(number: int) -> None:
        for index in range(20):
            answers[number].append(await node.call(calculator, (Atom("echo"), (number, index)), PATIENCE))

    async with trio.open_nursery() as nursery:
        for number in answers:
            nursery.start_soon(ask, number)
    assert answers == {number: [(number, index) for index in range(20)] for number in range(64)}
    assert leftovers(node) == {}

    await until_nobody_watches(beam, calculator)


async def test_a_cancelled_call_takes_its_monitor_back(node: Node, beam: Beam, calculator: Pid) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.call, calculator, (Atom("never"), 1), None)
        await until(lambda: node.statistics()["monitors"] == 1)
        assert await node.call(calculator, (Atom("add"), 1, 1)) == 2
        nursery.cancel_scope.cancel()
    assert leftovers(node) == {}

    await until_nobody_watches(beam, calculator)


async def test_casts_to_a_beam(node: Node, beam: Beam, calculator: Pid) -> None:
    async with node.open_process() as process:
        node.cast(calculator, (Atom("store"), 1))
        node.cast(("calculator_here", beam.name), (Atom("store"), 2))
        node.send(calculator, Atom("hello"))
        node.cast(calculator, (Atom("tell"), process.pid, Atom("told")))
        assert await process.receive(timeout=PATIENCE) == Atom("told")
    assert await node.call(calculator, Atom("stored")) == [1, 2, (Atom("info"), Atom("hello"))]


async def test_rpc(either_node: Node, beam: Beam) -> None:
    node = either_node
    assert await node.rpc(beam.name, "lists", "sum", [[1, 2, 3]], PATIENCE) == 6
    assert await node.rpc(beam.name, Atom("erlang"), Atom("node"), []) == Atom(beam.name)
    assert await node.rpc(beam.name, "erlang", "throw", [7]) == 7
    with pytest.raises(BadRpc, match=rf"lists:nothing/1 failed on {beam.name}") as error:
        await node.rpc(beam.name, "lists", "nothing", [1])
    assert error.value.reason[0] == Atom("EXIT")
    assert error.value.reason[1][0] == Atom("undef")
    with pytest.raises(BadRpc) as error:
        await node.rpc(beam.name, "erlang", "exit", [(Atom("my"), Atom("reason"))])
    assert error.value.reason == (Atom("EXIT"), (Atom("my"), Atom("reason")))
    with pytest.raises(CallTimeout):
        await node.rpc(beam.name, "timer", "sleep", [60_000], timeout=0.05)
    with pytest.raises(NodeDownError):
        await node.rpc("nobody@127.0.0.1", "erlang", "node", [])


# -- a BEAM asks Python


async def test_a_beam_calls_by_pid_and_by_name(either_node: Node, beam: Beam) -> None:
    node = either_node
    pid = await Calculator.start(node, name="calc")
    for dest in (pid, (Atom("calc"), node.name)):
        assert await beam.eval(CALLS, Dest=dest, Request=(Atom("add"), 40, 2)) == (OK, 42)
        assert await beam.eval(CALLS, Dest=dest, Request=(Atom("echo"), [b"x"])) == (OK, [b"x"])


@pytest.mark.rule("Aliases: gen_server's calls carry an alias in their tag, both ways")
async def test_the_from_of_a_genuine_caller_is_answered_through_its_alias(node: Node, beam: Beam) -> None:
    pid = await Calculator.start(node)
    _, (caller, tag) = await beam.eval(CALLS, Dest=pid, Request=Atom("from"))
    assert caller.node == Atom(beam.name)
    assert isinstance(tag, ImproperList)
    assert tag.elements == [Atom("alias")]
    assert isinstance(tag.tail, Reference)


async def test_answers_later(node: Node, beam: Beam) -> None:
    pid = await Calculator.start(node)
    answers: list[Term] = []

    async def ask() -> None:
        answers.append(await beam.eval(CALLS, Dest=pid, Request=Atom("keep")))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask)
        kept = 0
        while kept < 3:
            kept += await node.call(pid, (Atom("answer_kept"), Atom("now")))
    assert answers == [(OK, Atom("now"))] * 3


async def test_a_beam_s_callers_see_how_a_python_server_ends(node: Node, beam: Beam) -> None:
    for request, reason in [
        ((Atom("crash"), "no"), (Atom("ValueError"), b"no")),
        ((Atom("exit"), (Atom("my"), 1)), (Atom("my"), 1)),
        ((Atom("stop_silent"), NORMAL), NORMAL),
        (Atom("unknown"), (Atom("bad_call"), Atom("unknown"))),
    ]:
        pid = await Calculator.start(node, name="doomed")
        kind, (why, (module, function, _)) = await beam.eval(CALLS, Dest=pid, Request=request)
        assert (kind, why, module, function) == (EXIT, reason, Atom("gen_server"), Atom("call"))
        for dest in (pid, (Atom("doomed"), node.name)):
            kind, (why, _) = await beam.eval(CALLS, Dest=dest, Request=request)
            assert (kind, why) == (EXIT, NOPROC)
    pid = await Calculator.start(node)
    assert await beam.eval(CALLS, Dest=pid, Request=(Atom("stop"), NORMAL)) == (OK, Atom("stopping"))
    await until(lambda: leftovers(node) == {})


@pytest.mark.rule("Aliases: a late answer to a gen_server call is dropped")
async def test_a_late_answer_of_ours_does_not_reach_a_beam_s_caller(node: Node, beam: Beam) -> None:
    pid = await Calculator.start(node)
    async with collecting(beam) as caller:
        source = "try gen_server:call(P, keep, 20) catch exit:{timeout, _} -> timed_out end"
        fun = f"fun() -> {source} end"
        assert await beam.eval(f"collector:run(Name, erlang, apply, [{fun}, []])", Name=caller.name, P=pid) == Atom(
            "timed_out"
        )
        assert await caller.run("gen_server", "call", pid, (Atom("add"), 1, 1)) == 2  # it comes behind the first
        assert await node.call(pid, (Atom("answer_kept"), Atom("late"))) == 1
        assert await caller.run("gen_server", "call", pid, (Atom("add"), 1, 1)) == 2
        assert await caller.waiting() == 0
    await until(lambda: leftovers(node) == {})


async def test_nodedown_during_a_beam_s_call(node: Node, beam: Beam) -> None:
    pid = await Calculator.start(node)
    answers: list[Any] = []

    async def ask() -> None:
        answers.append(await beam.eval("server_caller:call(P, keep, infinity)", P=pid))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await until(lambda: node.statistics()["watchers"] == 1)
        await node.disconnect(beam.name)
    ((kind, (why, _)),) = answers
    assert (kind, why) == (EXIT, (Atom("nodedown"), node.name))
    await until(lambda: leftovers(node) == {})


async def test_many_callers_of_a_beam(node: Node, beam: Beam) -> None:
    await Calculator.start(node, name="calc")
    dest = (Atom("calc"), node.name)
    assert await beam.eval("server_caller:call_side_by_side(D, 64, 10, 20000)", D=dest) == 640
    assert await beam.eval("server_caller:call_many(D, 200, 20000)", D=dest) == list(range(1, 201))
    await until(lambda: leftovers(node) == {})


async def test_multi_call_and_send_request_of_a_beam(node: Node, beam: Beam) -> None:
    await Calculator.start(node, name="calc")
    answers = await beam.eval("server_caller:multi_call([N], calc, {add, 1, 2}, 20000)", N=node.name)
    assert answers == ([(node.name, 3)], [])
    answers = await beam.eval("server_caller:multi_call([N], nobody, {add, 1, 2}, 20000)", N=node.name)
    assert answers == ([], [node.name])
    source = "gen_server:receive_response(gen_server:send_request({calc, N}, {add, 3, 4}), 20000)"
    assert await beam.eval(source, N=node.name) == (Atom("reply"), 7)
    source = "{error, {Why, _}} = gen_server:receive_response(gen_server:send_request({x, N}, a), 20000), Why"
    assert await beam.eval(source, N=node.name) == NOPROC


async def test_casts_from_a_beam(node: Node, beam: Beam) -> None:
    pid = await Calculator.start(node, name="calc")
    source = (
        "server_caller:cast(P, {store, 1}), server_caller:cast({calc, N}, {store, 2}), {calc, N} ! hello, "
        "gen_server:call(P, seen)"
    )
    assert await beam.eval(source, P=pid, N=node.name) == [1, 2, (Atom("info"), Atom("hello"))]


async def test_the_supervisor_answers_a_beam(node: Node, beam: Beam) -> None:
    supervisor = Supervisor([ChildSpec(Atom("calc"), lambda: Calculator.start_nowait(node, name="calc"))], intensity=5)
    node.start_inline(supervisor, name="python_sup")
    first = supervisor.child_pid(Atom("calc"))
    children = "supervisor:which_children({python_sup, N})"
    assert await beam.eval(children, N=node.name) == [(Atom("calc"), first, Atom("worker"), [])]
    assert await beam.eval("proplists:get_value(active, supervisor:count_children({python_sup, N}))", N=node.name) == 1
    await beam.eval("catch gen_server:call({calc, N}, {exit, enough})", N=node.name)
    ((_, second, _, _),) = await beam.eval(children, N=node.name)
    assert second not in (first, Atom("undefined"))
    assert await beam.eval(CALLS, Dest=(Atom("calc"), node.name), Request=(Atom("add"), 1, 1)) == (OK, 2)
