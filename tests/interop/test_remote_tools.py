"""Tools of Erlang's that are aimed at a node of ours, or ask all nodes they see: an answer, and never a hang.

Here are those that come with each OTP. ``tests/realworld/test_tools.py`` has etop, observer, recon and iex.
"""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from erlang_interop import Atom
from tests.interop.collectors import is_among_nodes
from tests.terminal import on_a_terminal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from erlang_interop import Node
    from erlang_interop.testing.beam import Epmd
    from tests.conftest import BeamFactory, Otp
    from tests.interop.conftest import NodeOpener
    from tests.terminal import Terminal

#: Evaluates ``F`` in a process whose terminal has rows enough to print all at once; what it printed.
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
