"""Tools of Erlang's that are aimed at a node of ours, or ask all nodes they see: an answer, and never a hang.

Here are those that come with each OTP. ``tests/realworld/test_tools.py`` has etop, observer, recon and iex.
"""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from erlang_interop import Atom
from tests.interop.collectors import is_among_nodes
from tests.terminal import on_a_terminal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from erlang_interop import Node, Term
    from erlang_interop.testing.beam import Beam, Epmd
    from tests.conftest import BeamFactory, Otp
    from tests.interop.conftest import NodeOpener
    from tests.terminal import Terminal

UNDEF = Atom("undef")

#: Calls ``c:Function()`` in a process whose terminal has rows enough to print all at once; what it printed.
PRINTED = """
    Screen = fun Read(Text) ->
        receive
            {io_request, From, As, {get_geometry, rows}} -> From ! {io_reply, As, 1000000}, Read(Text);
            {io_request, From, As, {put_chars, _, M, F, A}} -> From ! {io_reply, As, ok}, Read([Text, apply(M, F, A)]);
            {io_request, From, As, {put_chars, _, Chars}} -> From ! {io_reply, As, ok}, Read([Text, Chars]);
            {'DOWN', _, process, _, Reason} -> {Reason, unicode:characters_to_binary(Text)}
        end
    end,
    Leader = self(),
    spawn_monitor(fun() -> group_leader(Leader, self()), apply(c, Function, []) end),
    Screen([])
"""


@asynccontextmanager
async def remsh(node: Node, otp: Otp, epmd: Epmd, cookie: str, home: Path) -> AsyncIterator[Terminal]:
    """``erl -remsh`` aimed at ``node``."""
    (home / ".erlang.cookie").write_text(cookie)
    (home / ".erlang.cookie").chmod(0o400)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ERL_")}
    environment = kept | {"HOME": str(home), "ERL_EPMD_PORT": str(epmd.port), "TERM": "xterm"}
    name = f"remsh_{os.getpid()}_{node.name.name}"
    command = [str(otp.root / "bin" / "erl"), "-start_epmd", "false", "-name", name, "-remsh", node.name.name]
    async with on_a_terminal(command, environment, home) as terminal:
        yield terminal


async def test_erl_remsh(node: Node, otp: Otp, epmd: Epmd, cookie: str, tmp_path: Path) -> None:
    async with remsh(node, otp, epmd, cookie, tmp_path) as terminal:
        if otp.release == 25:
            await terminal.until(f"{node.name.name} is a node in Python, not Erlang/OTP: it has no shell")
            await terminal.until("Shell process terminated!")
        else:  # the two names are the other way round in what it prints
            assert await terminal.end() != 0
            assert f'Could not load "{node.name.name}" on shell (nofile)' in terminal.output


@pytest.mark.parametrize("function", ["ni", "nregs"])
async def test_the_shell_shows_the_processes_of_all_nodes(
    function: str, opened: NodeOpener, fresh_beam: BeamFactory
) -> None:
    beam = fresh_beam()
    async with opened(visible="passive") as node, node.open_process("a_process_of_python"):
        await node.connect(beam.name)
        assert await is_among_nodes(beam, node.name, "visible")
        reason, printed = await beam.eval(PRINTED, Function=Atom(function))
    assert reason == Atom("normal")
    text = printed.decode()
    assert "a_process_of_python" in text
    assert "net_kernel" in text
    assert node.name.name in text or function == "ni"


async def asked(node: Node, beam: Beam, source: str) -> Any:
    """What ``source`` gives on the BEAM, where ``Py`` is the node."""
    return await beam.eval(source, Py=node.name)


@pytest.fixture
async def target(either_node: Node, beam: Beam) -> Node:
    """A node of ours, hidden and visible, that is connected to the BEAM."""
    await either_node.connect(beam.name)
    assert await is_among_nodes(beam, either_node.name)
    return either_node


async def test_what_observer_asks(target: Node, beam: Beam) -> None:
    """Each answer that is another term ends observer, or has it disconnect this node; the last two must not hang."""
    info = dict(await asked(target, beam, "rpc:call(Py, observer_backend, sys_info, [])"))
    assert info[Atom("otp_release")] == list(b"zenmon-node, not OTP")
    assert info[Atom("alloc_info")] == [(Atom("system_alloc"), False)]
    assert await asked(target, beam, "rpc:call(Py, observer_backend, get_table_list, [ets, []])") == []
    exported = "rpc:call(Py, erlang, function_exported, [observer_backend, get_port_list, 0])"
    assert await asked(target, beam, exported) is False
    assert await asked(target, beam, "rpc:block_call(Py, application, which_applications, [])") == []
    ok, pid = await asked(target, beam, "rpc:call(Py, appmon_info, start_link2, [self(), self(), []])")
    assert (ok, pid.node) == (Atom("ok"), target.name)
    for function, arguments in (("etop_collect", "[self()]"), ("fetch_stats", "[self(), 1000]")):
        source = f"""process_flag(trap_exit, true), Pid = spawn_link(Py, observer_backend, {function}, {arguments}),
        receive {{'EXIT', Pid, {{Reason, _}}}} -> Reason end"""
        assert await asked(target, beam, source) == UNDEF


async def test_what_etop_and_recon_ask(target: Node, beam: Beam) -> None:
    refused: Term = (Atom("badrpc"), (Atom("EXIT"), (UNDEF, [(Atom("observer_backend"), Atom("vsn"), [], [])])))
    assert await asked(target, beam, "rpc:call(Py, observer_backend, vsn, [])") == refused
    (answer,), bad = await asked(target, beam, "rpc:multicall([Py], erlang, apply, [fun() -> node() end, []])")
    assert (answer[0], answer[1][1][0], bad) == (Atom("badrpc"), UNDEF, [])


async def test_it_says_that_it_is_no_otp(target: Node, beam: Beam) -> None:
    for item, answer in (("otp_release", "none"), ("version", "none"), ("machine", "Python")):
        source = f"rpc:call(Py, erlang, system_info, [{item}])"
        assert bytes(await asked(target, beam, source)).decode() == answer
    assert await asked(target, beam, "rpc:call(Py, erlang, node, [])") == target.name
    assert Atom(beam.name) in await asked(target, beam, "rpc:call(Py, erlang, nodes, [])")
    (reason, _) = (await asked(target, beam, "rpc:call(Py, erlang, system_info, [schedulers])"))[1][1]
    assert reason == Atom("badarg")
    pid = await asked(target, beam, "rpc:call(Py, erlang, whereis, [net_kernel])")
    assert await beam.eval("rpc:call(node(P), erlang, is_process_alive, [P])", P=pid) is True
    assert (await beam.eval("rpc:call(node(P), erlang, process_info, [P, registered_name])", P=pid))[1] == Atom(
        "net_kernel"
    )
