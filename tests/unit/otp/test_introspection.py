"""What a node answers about itself. What tools make of it is in ``tests/interop/test_remote_tools.py``."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from erlang_interop import Atom, EpmdAddress, Node, Pid, Process, RemoteError, Term, charlist, open_node
from tests.interop.collectors import until

BADARG = Atom("badarg")


@pytest.fixture
def asked(two_nodes: tuple[Node, Node]) -> Node:
    """Who is asked; :func:`ask` lets the other one do it."""
    return two_nodes[1]


@pytest.fixture
def ask(two_nodes: tuple[Node, Node]) -> Any:
    one, two = two_nodes

    async def ask(module: str, function: str, *arguments: Term) -> Term:
        return await one.erpc_call(two.name, module, function, arguments, 20)

    return ask


async def is_badarg(ask: Any, function: str, *arguments: Term) -> None:
    with pytest.raises(RemoteError) as caught:
        await ask("erlang", function, *arguments)
    assert caught.value.reason == BADARG
    assert caught.value.stack[0][:3] == (Atom("erlang"), Atom(function), len(arguments))


async def test_who_and_with_whom(
    asked: Node, ask: Any, two_nodes: tuple[Node, Node], epmd_address: EpmdAddress
) -> None:
    hidden = two_nodes[0].name
    async with open_node("three@127.0.0.1", cookie="secret", epmd=epmd_address, visible="passive") as three:
        await three.connect(asked.name)
        assert await ask("erlang", "node") == asked.name
        assert await ask("erlang", "nodes") == [three.name]
        assert await ask("erlang", "nodes", Atom("hidden")) == [hidden]
        assert await ask("erlang", "nodes", Atom("this")) == [asked.name]
        assert {*await ask("erlang", "nodes", Atom("connected"))} == {hidden, three.name}
        assert {*await ask("erlang", "nodes", Atom("known"))} == {asked.name, hidden, three.name}
        assert await ask("erlang", "nodes", [Atom("this"), Atom("visible"), Atom("this")]) == [asked.name, three.name]
    wrong: Term
    for wrong in (Atom("any"), [Atom("this"), 1], b"this", {}):
        await is_badarg(ask, "nodes", wrong)


async def test_its_processes(asked: Node, ask: Any) -> None:
    async with asked.open_process(name="worker") as worker, asked.open_process() as other:
        worker.link(other.pid)
        worker.trap_exit = True
        worker.send(worker.pid, b"waits")
        assert Atom("worker") in await ask("erlang", "registered")
        assert await ask("erlang", "whereis", Atom("worker")) == worker.pid
        assert {worker.pid, other.pid} <= {*await ask("erlang", "processes")}
        assert await ask("erlang", "is_process_alive", worker.pid) is True
        assert dict(await ask("erlang", "process_info", worker.pid)) == {
            Atom("registered_name"): Atom("worker"),
            Atom("message_queue_len"): 1,
            Atom("links"): [other.pid],
            Atom("trap_exit"): True,
            Atom("group_leader"): asked.whereis("user"),
        }
        name, links = Atom("registered_name"), Atom("links")
        assert name not in dict(await ask("erlang", "process_info", other.pid))
        assert await ask("erlang", "process_info", other.pid, name) == []
        assert await ask("erlang", "process_info", worker.pid, name) == (name, Atom("worker"))
        items = [links, Atom("reductions"), (Atom("dictionary"), Atom("x")), 1, [], name]
        assert await ask("erlang", "process_info", other.pid, items) == [(links, [worker.pid]), (name, [])]
        worker.group_leader = None
        assert Atom("group_leader") not in dict(await ask("erlang", "process_info", worker.pid))
    nobody: Term
    for nobody in (Atom("worker"), True, None):
        assert await ask("erlang", "whereis", nobody) == Atom("undefined")
    assert await ask("erlang", "is_process_alive", worker.pid) is False
    assert await ask("erlang", "process_info", worker.pid) == Atom("undefined")


async def test_an_inline_server_has_no_queue(asked: Node, ask: Any) -> None:
    info = dict(await ask("erlang", "process_info", asked.whereis("rex")))
    assert info[Atom("registered_name")] == Atom("rex")
    assert Atom("message_queue_len") not in info


async def test_it_is_no_otp(asked: Node, ask: Any) -> None:
    for item, answer in (("otp_release", "none"), ("version", "none"), ("machine", "Python")):
        assert await ask("erlang", "system_info", Atom(item)) == charlist(answer)
    assert await ask("erlang", "system_info", Atom("system_version")) == charlist("zenmon-node, not OTP")
    # Its servers, and who runs this call.
    assert await ask("erlang", "system_info", Atom("process_count")) == len(asked.processes) + 1
    assert await ask("erlang", "function_exported", Atom("lists"), Atom("map"), 2) is False
    assert await ask("code", "ensure_loaded", Atom("shell")) == (Atom("error"), Atom("nofile"))
    assert await ask("application", "which_applications") == []
    assert await ask("observer_backend", "get_table_list", Atom("ets"), []) == []
    assert dict(await ask("observer_backend", "sys_info"))[Atom("otp_release")] == charlist("zenmon-node, not OTP")


async def test_its_ticktime(asked: Node, ask: Any) -> None:
    assert await ask("net_kernel", "get_net_ticktime") == 60
    asked.set_net_ticktime(1.5, transition=0)
    assert await ask("net_kernel", "get_net_ticktime") == 2
    asked.set_net_ticktime(30, transition=60)
    assert await ask("net_kernel", "get_net_ticktime") == (Atom("ongoing_change_to"), 30)


async def test_who_watches_applications_has_ended(asked: Node, ask: Any) -> None:
    ok, pid = await ask("appmon_info", "start_link2", asked.whereis("user"), asked.whereis("user"), [])
    assert ok == Atom("ok")
    assert not asked.is_alive(pid)


async def test_wrong_arguments_are_badarg(
    asked: Node, ask: Any, two_nodes: tuple[Node, Node], caplog: pytest.LogCaptureFixture
) -> None:
    wrong: Term
    foreign = two_nodes[0].whereis("rex")
    with caplog.at_level(logging.INFO, "erlang_interop.rpc"):
        for function in ("is_process_alive", "process_info"):
            for wrong in (foreign, Atom("rex"), 1, []):
                await is_badarg(ask, function, wrong)
        for wrong in (Atom("reductions"), Atom("messages"), None, 1, (Atom("dictionary"), 1)):
            await is_badarg(ask, "process_info", asked.whereis("rex"), wrong)
        for wrong in (1, b"rex", asked.whereis("rex")):
            await is_badarg(ask, "whereis", wrong)
        for wrong in (Atom("schedulers"), (Atom("wordsize"), Atom("internal")), [], 1, True):
            await is_badarg(ask, "system_info", wrong)
    assert caplog.records == []  # the caller is told; it is no fault of this node's


async def start_shell(terminal: Process, node: Atom) -> tuple[Pid, Any]:
    """``rpc:call(Node, shell, start, [])`` by a process that is its own group leader: the shell, and what it prints."""
    terminal.group_leader = terminal.pid
    arguments = [Atom("call"), Atom("shell"), Atom("start"), []]
    ref = terminal.spawn_request(node, "erpc", "execute_call", arguments, reply="no", monitor=True)
    first, second = [await terminal.receive(timeout=30) for _ in range(2)]
    down, request = (first, second) if first[1] == ref else (second, first)
    assert down[4][:2] == (Atom("call"), Atom("return"))
    return down[4][2], request


async def test_a_terminal_is_told_that_there_is_no_shell(two_nodes: tuple[Node, Node]) -> None:
    one, two = two_nodes
    async with one.open_process() as terminal:
        shell, (tag, sender, reply_as, request) = await start_shell(terminal, two.name)
        assert (tag, sender) == (Atom("io_request"), shell)
        text = b"two@127.0.0.1 is a node in Python, not Erlang/OTP: it has no shell\n"
        assert request == (Atom("put_chars"), Atom("unicode"), text)
        gone = terminal.monitor(shell)
        terminal.send(shell, (Atom("something"), Atom("else")))
        terminal.send(shell, Atom("else"))
        terminal.send(shell, (Atom("io_reply"), reply_as, Atom("ok")))
        assert await terminal.receive(timeout=30) == (Atom("DOWN"), gone, Atom("process"), shell, Atom("normal"))


async def test_what_is_no_shell_ends_with_its_terminal(two_nodes: tuple[Node, Node]) -> None:
    one, two = two_nodes
    async with one.open_process() as terminal:
        shell, _ = await start_shell(terminal, two.name)
    await until(lambda: not two.is_alive(shell))


async def test_without_a_terminal_there_is_nobody_to_tell(one_node: Node) -> None:
    one_node.default_group_leader = None
    shell = await one_node.erpc_call(one_node.name, "shell", "start", [], 20)
    await until(lambda: not one_node.is_alive(shell))


async def test_it_can_be_taken_back(asked: Node, ask: Any) -> None:
    asked.unexpose("erlang")
    with pytest.raises(RemoteError) as caught:
        await ask("erlang", "node")
    assert caught.value.reason == Atom("undef")


async def test_ones_own_functions_go_before(asked: Node, ask: Any) -> None:
    asked.expose("erlang", {"node": lambda: b"mine"})
    assert await ask("erlang", "node") == b"mine"
    assert await ask("erlang", "nodes", Atom("this")) == [asked.name]
