"""``rpc`` and ``erpc``, both ways: a BEAM calls what Python exposes, and Python calls functions of a BEAM."""

from __future__ import annotations

import math
import re
import time
from typing import TYPE_CHECKING, Any, Final

import pytest
import trio

from erlang_interop import (
    Atom,
    BadRpc,
    CallTimeout,
    Exit,
    Node,
    NodeDownError,
    Pid,
    Process,
    RemoteError,
    RemoteExit,
    RemoteThrow,
    Throw,
    charlist,
)
from tests.interop.collectors import PATIENCE, collecting, leftovers, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from erlang_interop.testing.beam import Beam
    from tests.conftest import BeamFactory
    from tests.interop.conftest import NodeOpener

EXIT: Final = Atom("EXIT")
BADRPC: Final = Atom("badrpc")
ERROR: Final = Atom("error")
UNDEF: Final = Atom("undef")
NOBODY: Final = "nobody@127.0.0.1"

#: What an expression of ``C(fun() -> ... end)`` gives, or raises.
CAUGHT: Final = "C = fun(F) -> try {ok, F()} catch Class:Reason -> {Class, Reason} end end, "


def div(one: float, other: float) -> float:
    return one / other


def raise_exit() -> None:
    raise Exit((Atom("my"), Atom("reason")))


def raise_throw() -> None:
    raise Throw(Atom("ball"))


async def later(seconds: float) -> bytes:
    await trio.sleep(seconds)
    return b"later"


@pytest.fixture
async def py(either_node: Node) -> AsyncIterator[Node]:
    """A node of ours, hidden and visible, with a module ``py``; at the end no call has left anything behind."""
    node = either_node
    functions: dict[str, Callable[..., object]] = {
        "add": lambda one, other: one + other,
        "div": div,
        "raise_exit": raise_exit,
        "raise_throw": raise_throw,
        "later": later,
        "same": lambda term: term,
        "no_term": lambda: {1, 2},
        "sqrt": math.sqrt,
    }
    node.expose("py", functions)
    node.expose("threads", {"sleep": time.sleep, "div": div}, thread=True)
    yield node
    await until(lambda: leftovers(node) == {} and node.statistics()["processes"] == 4)


# ------------------------------------------------------------------------------------------------- a BEAM calls Python


@pytest.mark.rule("Spawn: rpc is a spawn request")
@pytest.mark.parametrize("call", ["rpc:call", "rpc:block_call", "erpc:call"])
async def test_values(py: Node, beam: Beam, call: str) -> None:
    for function, arguments, value in (
        ("add", [1, 2], 3),
        ("later", [0.01], b"later"),
        ("same", [{b"key": [None, True, Atom("undefined"), charlist("x")]}], None),
    ):
        answer = await beam.eval(f"{call}(N, py, F, A)", N=py.name, F=Atom(function), A=arguments)
        assert answer == (value or arguments[0])
    assert await beam.eval(f"{call}(N, threads, sleep, [0.01], 20000)", N=py.name) is None


@pytest.mark.parametrize("call", ["rpc:call", "rpc:block_call"])
async def test_failures_of_rpc(py: Node, beam: Beam, call: str) -> None:
    async def failure(module: str, function: str, arguments: list[Any]) -> Any:
        source = f"{call}(N, M, F, A)"
        badrpc, (exit_, reason) = await beam.eval(source, N=py.name, M=Atom(module), F=Atom(function), A=arguments)
        assert (badrpc, exit_) == (BADRPC, EXIT)
        return reason

    for module, function, arguments in (("py", "nothing", [1]), ("py", "add", [1]), ("os", "getpid", [])):
        frame: Any = (Atom(module), Atom(function), arguments, [])
        assert await failure(module, function, arguments) == (UNDEF, [frame])
    assert await failure("py", "raise_exit", []) == (Atom("my"), Atom("reason"))
    (name, text), stack = await failure("py", "div", [1, 0])
    assert (name, text) == (Atom("ZeroDivisionError"), b"division by zero")
    assert [frame[:3] for frame in stack] == [(Atom(__name__), Atom("div"), 2), (Atom("py"), Atom("div"), 2)]
    (name, text), stack = await failure("py", "no_term", [])
    assert (name, stack) == (Atom("EncodeError"), [(Atom("py"), Atom("no_term"), 0, [])])
    assert b"set" in text
    assert await beam.eval(f"{call}(N, py, raise_throw, [])", N=py.name) == Atom("ball")
    source = f"{call}(N, py, same, [{{'EXIT', why}}])"
    assert await beam.eval(source, N=py.name) == (BADRPC, (EXIT, Atom("why")))


async def test_times_that_are_up(py: Node, beam: Beam) -> None:
    """The function goes on, as on a BEAM, for as long as its caller is there; ``py`` sees that all have ended."""
    started, go_on, done = trio.Event(), trio.Event(), trio.Event()

    async def slow() -> None:
        started.set()
        await go_on.wait()
        done.set()

    py.expose("here", {"slow": slow, "stuck": trio.sleep_forever})
    with trio.fail_after(PATIENCE):
        async with collecting(beam) as there:
            milliseconds = 50
            while not started.is_set():  # a call whose time is up before it could begin does not begin
                up = await there.run("rpc", "call", py.name, Atom("here"), Atom("slow"), [], milliseconds)
                assert up == (BADRPC, Atom("timeout"))
                milliseconds *= 2
            go_on.set()
            await done.wait()
        source = f"{CAUGHT} C(fun() -> erpc:call(N, here, stuck, [], 50) end)"
        assert await beam.eval(source, N=py.name) == (ERROR, (Atom("erpc"), Atom("timeout")))
        source = "rpc:block_call(N, here, stuck, [], 50)"
        assert await beam.eval(source, N=py.name) == (BADRPC, Atom("timeout"))


async def test_failures_of_erpc(py: Node, beam: Beam) -> None:
    async def caught(function: str, arguments: list[Any]) -> Any:
        source = f"{CAUGHT} C(fun() -> erpc:call(N, py, F, A, 20000) end)"
        return await beam.eval(source, N=py.name, F=Atom(function), A=arguments)

    exception, signal = Atom("exception"), Atom("exit")
    assert await caught("nothing", [1]) == (ERROR, (exception, UNDEF, [(Atom("py"), Atom("nothing"), [1], [])]))
    assert await caught("raise_exit", []) == (signal, (exception, (Atom("my"), Atom("reason"))))
    assert await caught("raise_throw", []) == (Atom("throw"), Atom("ball"))
    class_, (_, reason, stack) = await caught("sqrt", [-1])
    assert (class_, reason[0], stack) == (ERROR, Atom("ValueError"), [(Atom("py"), Atom("sqrt"), 1, [])])
    source = f"{CAUGHT} C(fun() -> erpc:call(N, fun() -> 1 end) end)"
    class_, (_, reason, ((module, function, arguments, _),)) = await beam.eval(source, N=py.name)
    assert (class_, reason, module, function) == (ERROR, UNDEF, Atom("erlang"), Atom("apply"))
    assert len(arguments) == 2


async def test_erlang_can_print_the_stack(py: Node, beam: Beam) -> None:
    """As its shell does, with file and line."""
    source = (
        "try erpc:call(N, threads, 'div', [1, 0]) catch error:{exception, Reason, Stack} -> "
        "unicode:characters_to_binary(erl_error:format_exception(error, Reason, Stack)) end"
    )
    text = (await beam.eval(source, N=py.name)).decode()
    assert "exception error: {'ZeroDivisionError',<<\"division by zero\">>}" in text
    where = rf"'div'/2 \({re.escape(__file__)}(, line |:){div.__code__.co_firstlineno + 1}\)"
    assert re.search(where, " ".join(text.split()))
    assert "threads:'div'/2" in text


async def test_multicalls(py: Node, beam: Beam) -> None:
    nodes = [py.name, Atom(NOBODY), Atom(beam.name)]
    frame: Any = (Atom("py"), Atom("add"), [1, 2], [])
    results, bad = await beam.eval("rpc:multicall(Ns, py, add, [1, 2])", Ns=nodes)
    assert (results, bad) == ([3, (BADRPC, (EXIT, (UNDEF, [frame])))], [Atom(NOBODY)])
    assert await beam.eval("erpc:multicall(Ns, py, add, [1, 2])", Ns=nodes) == [
        (Atom("ok"), 3),
        (ERROR, (Atom("erpc"), Atom("noconnection"))),
        (ERROR, (Atom("exception"), UNDEF, [frame])),
    ]


async def test_requests(py: Node, beam: Beam) -> None:
    source = (
        "Slow = erpc:send_request(N, py, later, [0.2]), Quick = erpc:send_request(N, py, add, [1, 2]), "
        "[erpc:receive_response(Quick, 20000), erpc:receive_response(Slow, 20000),"
        " rpc:yield(rpc:async_call(N, py, add, [3, 4]))]"
    )
    assert await beam.eval(source, N=py.name) == [3, b"later", 7]
    source = (
        "Send = fun(I, Ids) -> erpc:send_request(N, py, add, [I, I], I, Ids) end,"
        "Ids = lists:foldl(Send, erpc:reqids_new(), [1, 2]),"
        "{R1, L1, Rest} = erpc:receive_response(Ids, 20000, true),"
        "{R2, L2, _} = erpc:receive_response(Rest, 20000, true), lists:sort([{L1, R1}, {L2, R2}])"
    )
    assert await beam.eval(source, N=py.name) == [(1, 2), (2, 4)]


async def test_casts(py: Node, beam: Beam) -> None:
    done: set[int] = set()
    py.expose("here", {"done": done.add})
    for number, cast in enumerate(("rpc:cast(N", "erpc:cast(N", "erpc:multicast([N]", "rpc:eval_everywhere([N]")):
        await beam.eval(f"{cast}, here, done, [I])", N=py.name, I=number)
        await beam.eval(f"{cast}, here, nothing, [])", N=py.name)
    await until(lambda: done == {0, 1, 2, 3})


async def test_what_rex_is_told_and_asked(py: Node, beam: Beam) -> None:
    """The probe of OTP's ``rex`` at a nodeup; a broadcast; the call of a node that knows no ``erpc``."""
    answer = "receive {features_reply, _, _} = A -> A; {rex, _} = A -> A after 20000 -> nothing end"
    asks = f"{{rex, N}} ! {{self(), Q}}, {answer}"
    features = await beam.eval(asks, N=py.name, Q=Atom("features_request"))
    assert features == (Atom("features_reply"), py.name, [Atom("erpc")])
    call, user = Atom("call"), Atom("user")
    mfa: Any = (Atom("py"), Atom("add"), [1, 2])
    assert await beam.eval(asks, N=py.name, Q=(call, *mfa, user)) == (Atom("rex"), 3)
    assert await beam.eval("gen_server:call({rex, N}, Q)", N=py.name, Q=(call, *mfa, user)) == 3
    async with py.open_process("inbox") as inbox:
        told = await beam.eval("rpc:sbcast([N, B], inbox, hello)", N=py.name, B=Atom(NOBODY))
        assert told == ([py.name], [Atom(NOBODY)])
        assert await inbox.receive(timeout=PATIENCE) == Atom("hello")
    assert await beam.eval("rpc:sbcast([N], inbox, hello)", N=py.name) == ([], [py.name])


async def test_strange_requests_do_not_hang(py: Node, beam: Beam) -> None:
    source = f"{CAUGHT} C(fun() -> gen_server:call(P, Q, infinity) end)"
    rex: Any = (Atom("rex"), py.name)
    answer = await beam.eval(source, P=rex, Q=(Atom("call"), Atom("py")))
    assert answer == (Atom("ok"), (BADRPC, Atom("notsup")))
    answer = await beam.eval(source, P=rex, Q=(Atom("call"), b"py", 1, Atom("x"), Atom("user")))
    assert answer[1][1][1][0] == Atom("badarg")
    # Task.Supervisor.async({MyApp.Tasks, Node}, Module, Function, Args) of Elixir begins with this call.
    tasks: Any = (Atom("Elixir.MyApp.Tasks"), py.name)
    owner = (Atom("elixir@127.0.0.1"), Atom("owner"), Atom("owner"))
    start_task = (Atom("start_task"), [owner, Atom("monitor")], Atom("temporary"), None)
    class_, (reason, _) = await beam.eval(source, P=tasks, Q=start_task)
    assert (class_, reason) == (Atom("exit"), Atom("noproc"))
    reason = "receive {'DOWN', M, _, _, {R, _}} -> R after 20000 -> late end"
    assert await beam.eval(f"{{_, M}} = spawn_monitor(N, fun() -> ok end), {reason}", N=py.name) == UNDEF


async def test_huge_terms(py: Node, beam: Beam) -> None:
    source = "T = {binary:copy(<<7>>, 5000000), lists:seq(1, 100000)}, T =:= erpc:call(N, py, same, [T])"
    assert await beam.eval(source, N=py.name) is True


async def test_a_slow_call_holds_up_nobody(py: Node, beam: Beam) -> None:
    started, go_on = trio.Event(), trio.Event()

    async def slow() -> int:
        started.set()
        await go_on.wait()
        return 1

    py.expose("here", {"slow": slow})
    async with collecting(beam) as there:
        for what in ("call", "block_call"):
            request: Any = (Atom(what), Atom("here"), Atom("slow"), [], Atom("user"))
            await there.run("gen_server", "send_request", (Atom("rex"), py.name), request)
        await there.run("erpc", "send_request", py.name, Atom("here"), Atom("slow"), [])
        with trio.fail_after(PATIENCE):
            await started.wait()
        await there.run("erpc", "send_request", py.name, Atom("threads"), Atom("sleep"), [0.05])
        assert await beam.eval("[rpc:call(N, py, add, [1, 2]), erpc:call(N, py, add, [1, 2])]", N=py.name) == [3, 3]
        go_on.set()
        assert len(await there.take(4)) == 4


def stuck() -> tuple[trio.Event, trio.Event, Any]:
    """A function that never returns; when it runs, and when it has been cancelled."""
    started, cancelled = trio.Event(), trio.Event()

    async def never_returns() -> None:
        started.set()
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            cancelled.set()
            raise

    return started, cancelled, never_returns


@pytest.mark.parametrize("way", ["erpc", "block_call", "message"])
async def test_a_call_ends_with_the_process_that_called(py: Node, beam: Beam, way: str) -> None:
    started, cancelled, never_returns = stuck()
    py.expose("here", {"stuck": never_returns})
    rex = (Atom("rex"), py.name)
    mfa: Any = (Atom("here"), Atom("stuck"), [])
    with trio.fail_after(PATIENCE):
        async with collecting(beam) as there:
            if way == "erpc":
                await there.run("erpc", "send_request", py.name, *mfa)
            elif way == "block_call":
                await there.run("gen_server", "send_request", rex, (Atom("block_call"), *mfa, Atom("user")))
            else:
                await there.run("erlang", "send", rex, (there.pid, (Atom("call"), *mfa, Atom("user"))))
            await started.wait()
            assert not cancelled.is_set()
        await cancelled.wait()


async def test_a_call_ends_with_the_node_that_called(py: Node, fresh_beam: BeamFactory) -> None:
    beam = fresh_beam()
    started, cancelled, never_returns = stuck()
    py.expose("here", {"stuck": never_returns})
    calls = "erpc:send_request(N, here, stuck, []), rpc:block_call(N, here, stuck, [])"
    await beam.eval(f"spawn(fun() -> {calls} end), ok", N=py.name)
    with trio.fail_after(PATIENCE):
        await started.wait()
        beam.kill()
        await cancelled.wait()
    await until(lambda: not py.is_connected(beam.name))


async def test_the_group_leader_is_the_callers(py: Node, beam: Beam) -> None:
    leaders: list[Pid | None] = []

    async def leader(process: Process) -> None:
        leaders.append(process.group_leader)

    py.expose("here", {"leader": leader}, with_process=True)
    async with collecting(beam) as there:
        theirs = await there.run("erlang", "group_leader")
        for module, function in (("rpc", "call"), ("erpc", "call"), ("rpc", "block_call")):
            await there.run(module, function, py.name, Atom("here"), Atom("leader"), [])
    assert leaders == [theirs] * 3


# ------------------------------------------------------------------------------------------------- Python calls a BEAM


async def test_erpc_returns_and_raises(either_node: Node, beam: Beam) -> None:
    node = either_node
    assert await node.erpc_call(beam.name, "lists", "sum", [[1, 2, 3]]) == 6
    assert await node.erpc_call(beam.name, "erlang", "node", (), timeout=PATIENCE) == Atom(beam.name)
    with pytest.raises(RemoteError, match=rf"lists:nothing/1 failed on {beam.name}: undef") as error:
        await node.erpc_call(beam.name, "lists", "nothing", [1])
    assert (error.value.reason, error.value.stack) == (UNDEF, [(Atom("lists"), Atom("nothing"), [1], [])])
    with pytest.raises(RemoteError) as error:
        await node.erpc_call(beam.name, "erlang", "hd", [[]])
    assert (error.value.reason, error.value.stack[0][:3]) == (Atom("badarg"), (Atom("erlang"), Atom("hd"), [[]]))
    with pytest.raises(RemoteExit) as exit_:
        await node.erpc_call(beam.name, "erlang", "exit", [(Atom("my"), 1)])
    assert (exit_.value.reason, exit_.value.signal) == ((Atom("my"), 1), False)
    with pytest.raises(RemoteThrow) as thrown:
        await node.erpc_call(beam.name, "erlang", "throw", [b"ball"])
    assert thrown.value.reason == b"ball"
    with pytest.raises(CallTimeout, match=r"timer:sleep/1 did not return within 0\.05 s"):
        await node.erpc_call(beam.name, "timer", "sleep", [600_000], timeout=0.05)
    with pytest.raises(NodeDownError) as down:
        await node.erpc_call(NOBODY, "erlang", "node", [])
    assert down.value.reason == (Atom("erpc"), Atom("noconnection"))
    await until(lambda: leftovers(node) == {})
    await calls_are_killed(beam, node)  # the one that sleeps


async def calls_are_killed(beam: Beam, node: Node) -> None:
    """Kill the processes of the calls that ``node``, and nobody else, has under way on the BEAM, once there are any."""
    kill = (
        "Of = fun(P) -> {process_info(P, initial_call), process_info(P, parent)} end, "
        "Is = fun({{_, {erpc, execute_call, 4}}, {_, Parent}}) -> is_pid(Parent) andalso node(Parent) =:= Node; "
        "        (_) -> false end, "
        "[exit(P, kill) || P <- processes(), Is(Of(P))] =/= []"
    )

    async def killed() -> bool:
        return bool(await beam.eval(kill, Node=node.name))

    await until(killed)


async def test_a_process_that_is_killed_there(node: Node, beam: Beam) -> None:
    request = node.erpc_send_request(beam.name, "timer", "sleep", [600_000])
    await calls_are_killed(beam, node)
    with pytest.raises(RemoteExit, match="was ended: killed") as error:
        await request.receive_response(PATIENCE)
    assert (error.value.reason, error.value.signal) == (Atom("killed"), True)


async def test_a_beam_that_dies_meanwhile(node: Node, fresh_beam: BeamFactory) -> None:
    beam = fresh_beam()
    requests = [node.erpc_send_request(beam.name, "timer", "sleep", [600_000]) for _ in range(3)]
    assert await node.erpc_call(beam.name, "erlang", "node", []) == Atom(beam.name)
    beam.kill()
    for request in requests:
        with pytest.raises(NodeDownError):
            await request.receive_response(PATIENCE)
    await until(lambda: leftovers(node) == {})


async def test_rpc_of_all_kinds(either_node: Node, beam: Beam) -> None:
    node = either_node
    assert await node.rpc_block_call(beam.name, "lists", "sum", [[1, 2, 3]], PATIENCE) == 6
    with pytest.raises(BadRpc) as error:
        await node.rpc_block_call(beam.name, "lists", "nothing", [1], PATIENCE)
    frame: Any = (Atom("lists"), Atom("nothing"), [1], [])
    assert error.value.reason == (EXIT, (UNDEF, [frame]))
    nodes: list[Atom | str] = [beam.name, NOBODY, node.name]
    results, bad = await node.rpc_multicall(nodes, "erlang", "node", [], PATIENCE)
    assert (results, bad) == ([Atom(beam.name), node.name], [Atom(NOBODY)])
    results, bad = await node.rpc_multicall(nodes, "lists", "sum", [[1, 2]], PATIENCE)
    assert (results[0], bad) == (3, [Atom(NOBODY)])
    assert isinstance(results[1], BadRpc)
    one, nobody, own = await node.erpc_multicall(nodes, "lists", "sum", [[1, 2]], PATIENCE)
    assert one == 3
    assert isinstance(nobody, NodeDownError)
    assert isinstance(own, RemoteError)


async def test_a_node_whose_rex_is_gone(node: Node, fresh_beam: BeamFactory) -> None:
    """``{badrpc, _}`` has what it has on the BEAM itself."""
    beam = fresh_beam(hidden=True)
    await beam.eval("true = unregister(rex)")
    call = "rpc:block_call(node(), lists, sum, [[1]], T)"
    for theirs, timeout in ((Atom("infinity"), None), (7000, 7.0)):
        badrpc, (exit_, (reason, (*called, (dest, (*request, _leader), time_)))) = await beam.eval(call, T=theirs)
        with pytest.raises(BadRpc, match=f"rex on {beam.name} is not registered there") as error:
            await node.rpc_block_call(beam.name, "lists", "sum", [[1]], timeout)
        arguments = [dest, (*request, node.default_group_leader), time_]
        assert (badrpc, error.value.reason) == (BADRPC, (exit_, (reason, (*called, arguments))))


async def test_casts_to_a_beam(node: Node, beam: Beam) -> None:
    async with node.open_process() as me:
        for number, cast in enumerate((node.rpc_cast, node.erpc_cast)):
            cast(beam.name, "erlang", "send", [me.pid, number])
            cast(beam.name, "erlang", "error", [Atom("nobody_is_told")])
        node.erpc_multicast([beam.name, NOBODY], "erlang", "send", [me.pid, 2])
        assert {await me.receive(timeout=PATIENCE) for _ in range(3)} == {0, 1, 2}


async def test_requests_to_a_beam(node: Node, beam: Beam) -> None:
    slow = node.erpc_send_request(beam.name, "timer", "sleep", [200])
    quick = node.erpc_send_request(beam.name, "erlang", "node", [])
    assert await quick.receive_response(PATIENCE) == Atom(beam.name)
    assert await slow.wait_response(PATIENCE) is True
    assert await slow.receive_response(0) == Atom("ok")


async def test_what_a_beam_prints_appears_here(opened: NodeOpener, beam: Beam) -> None:
    printed: list[str] = []
    async with opened(output=printed.append) as node:
        for call in (node.rpc, node.erpc_call, node.rpc_block_call):
            assert await call(beam.name, "io", "format", [charlist("hello ~p~n"), [7]], PATIENCE) == Atom("ok")
    assert printed == ["hello 7\n"] * 3
