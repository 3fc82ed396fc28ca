"""What a scope process does for its engine and its service, on a node."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from erlang_interop import Atom, Exit, InlineServer, Node, Pid, Throw
from erlang_interop.terms import Export, Fun, Record
from erlang_interop.testing.cluster import open_cluster, settled
from zenmon_node.syn.port import ScopePort
from zenmon_node.syn.registry import Registry
from zenmon_node.syn.scope import Engine, FunFailed

SCOPE, NAME, MATHS = Atom("users"), Atom("syn_registry_users"), Atom("maths")
ERROR, KILLED = Atom("error"), Atom("killed")


class Shell(InlineServer):
    """A scope process that does nothing by itself."""

    def __init__(self, node: Node) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.port = ScopePort(node, SCOPE, NAME, lambda callback, arguments: self.told.append((callback, *arguments)))
        self.notices = 0

    def started(self) -> None:
        self.engine = Engine(self.process.pid, SCOPE, self.port, Registry(self.port))
        self.port.attach(self.process, self.engine, self.notice)

    def notice(self) -> None:
        self.notices += 1

    def handle_message(self, message: Any) -> None:
        pass


@pytest.fixture
async def shell() -> AsyncIterator[Shell]:
    async with open_cluster("a@test", "b@test") as (a, b):
        await a.connect(b.name)
        shell = Shell(a)
        a.start_inline(shell, name=NAME)
        yield shell


async def idle(process: Any) -> None:
    await process.receive()


async def ends(reason: Any, process: Any) -> None:
    raise Exit(reason)


async def test_time_never_stands_still(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10, 10, 9, 20])
    monkeypatch.setattr("time.time_ns", lambda: next(clock))
    assert [shell.port.now() for _ in range(4)] == [10, 11, 12, 20]


async def test_events_have_the_scope_in_front(shell: Shell) -> None:
    shell.port.emit("on_process_left", 1, 2, 3, 4)
    assert shell.told == [("on_process_left", SCOPE, 1, 2, 3, 4)]


async def test_a_process_is_watched_once(shell: Shell) -> None:
    pid = shell.node.spawn(idle)
    for _ in range(3):
        shell.port.watch(pid)
    assert shell.port.is_alive(pid)
    shell.port.kill(pid, Atom("why"))
    assert not shell.port.is_alive(pid)
    assert shell.notices == 1
    assert shell.port.take_deaths() == [(pid, Atom("why"))]
    assert shell.port.take_deaths() == []


async def test_a_process_is_watched_no_more(shell: Shell) -> None:
    pid, other = shell.node.spawn(idle), shell.node.spawn(idle)
    shell.port.watch(pid)
    shell.port.watch(other)
    shell.port.unwatch(pid)
    shell.port.unwatch(pid)
    for each in (pid, other):
        shell.port.kill(each, KILLED)
    assert shell.port.take_deaths() == [(other, KILLED)]


async def test_another_process_watches_nothing_to_begin_with(shell: Shell) -> None:
    pid = shell.node.spawn(idle)
    shell.port.watch(pid)
    shell.node.exit(shell.process.pid, KILLED)
    shell.node.start_inline(shell, name=NAME)
    shell.port.watch(pid)
    shell.port.kill(pid, KILLED)
    assert shell.port.take_deaths() == [(pid, KILLED)]


async def test_a_reason_that_nobody_can_be_told_is_told_in_words(shell: Shell) -> None:
    for reason in ({Atom("k"): "text"}, object()):
        shell.port.watch(shell.node.spawn(ends, reason))
        shell.port.watch(shell.node.spawn(lambda process, reason=reason: ends(reason, process)))
    await settled()
    reasons = [reason for _, reason in shell.port.take_deaths()]
    assert {Atom("k"): b"text"} in reasons
    assert any(type(reason) is tuple and reason[0] == Atom("TypeError") for reason in reasons)
    assert len(reasons) == 4


async def test_who_is_not_connected_is_not_dialled(shell: Shell) -> None:
    nobody = Atom("nobody@test")
    shell.port.send(nobody, 1)
    assert not shell.port.can_reach(nobody)
    assert nobody not in shell.node.nodes("known")
    assert shell.port.can_reach(Atom("b@test"))
    assert not shell.port.can_reach(shell.node.name)


async def test_what_cannot_be_sent_is_said_and_costs_nobody_else(
    shell: Shell, logged: Callable[[], list[dict[str, Any]]]
) -> None:
    shell.port.send(Atom("b@test"), (1, object()))
    (line,) = logged()
    assert (line["event"], line["node"]) == ("a member cannot be told something, and will not know it", "b@test")


# --------------------------------------------------------------------------------------------------- functions by wire


def double(meta: Any) -> Any:
    return meta, meta


def throwing(meta: Any) -> Any:
    raise Throw(meta)


def exiting(meta: Any) -> Any:
    raise Exit((Atom("why"), meta))


def failing(meta: Any) -> Any:
    raise ValueError("no")


def unsendable(meta: Any) -> Any:
    return object()


async def slow(meta: Any) -> Any:
    return meta


@pytest.fixture
def exposed(shell: Shell) -> Shell:
    functions = {fn.__name__: fn for fn in (double, throwing, exiting, failing, unsendable, slow)}
    shell.node.expose(MATHS, functions)
    return shell


async def test_a_function_runs(exposed: Shell) -> None:
    assert exposed.port.apply(Export(MATHS, Atom("double"), 1), 7) == (7, 7)
    assert exposed.port.apply(double, "text") == (b"text", b"text")


@pytest.mark.parametrize(
    ("function", "class_", "reason"),
    [
        ("throwing", "throw", 7),
        ("exiting", "exit", (Atom("why"), 7)),
        ("failing", "error", (Atom("ValueError"), b"no")),
        ("slow", "error", Atom("function_does_not_return_at_once")),
        ("nobody_has_exposed_it", "error", Atom("undef")),
    ],
)
async def test_a_function_fails(exposed: Shell, function: str, class_: str, reason: Any) -> None:
    with pytest.raises(FunFailed) as failure:
        exposed.port.apply(Export(MATHS, Atom(function), 1), 7)
    assert (failure.value.class_, failure.value.reason) == (Atom(class_), reason)


@pytest.mark.parametrize("function", [unsendable, lambda meta: Record(SCOPE, SCOPE, True, ())])
async def test_a_result_that_not_every_member_can_be_told(exposed: Shell, function: Callable[[Any], Any]) -> None:
    with pytest.raises(FunFailed) as failure:
        exposed.port.apply(function, 7)
    assert failure.value.reason[0] == Atom("EncodeError")


@pytest.mark.parametrize("arity", [0, 2])
async def test_a_function_of_another_arity_is_another_function(exposed: Shell, arity: int) -> None:
    with pytest.raises(FunFailed) as failure:
        exposed.port.apply(Export(MATHS, Atom("double"), arity), 7)
    assert failure.value.reason == Atom("undef")


async def test_code_of_a_beam_cannot_run_here(exposed: Shell) -> None:
    fun = Fun(MATHS, 1, bytes(16), 1, 1, 1, Pid(Atom("b@test"), 1, 0, 1), ())
    with pytest.raises(FunFailed) as failure:
        exposed.port.apply(fun, 7)
    assert (failure.value.class_, failure.value.reason) == (ERROR, (Atom("badfun"), fun))
