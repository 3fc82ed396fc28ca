"""Tools that are aimed at a node of ours, as their users have them: an answer or a refusal, and never a hang."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import trio

from erlang_interop import Atom
from erlang_interop.testing.beam import Beam, BeamError
from tests.interop.collectors import is_among_nodes
from tests.realworld.rabbit import environment, one
from tests.terminal import on_a_terminal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from erlang_interop import Node, Term
    from erlang_interop.testing.beam import Epmd

PATIENCE = 60.0
UNDEF = Atom("undef")

pytestmark = pytest.mark.realworld


@pytest.fixture(scope="module")
def beam(root: Path, packages: Path, epmd: Epmd, cookie: str) -> Iterator[Beam]:
    """A BEAM with the tools on its path: observer and etop are OTP's own, RabbitMQ brings recon and observer_cli."""
    paths = [one(packages.glob(f"usr/lib/**/{name}-*/ebin")) for name in ("observer", "recon", "observer_cli")]
    with Beam.start(root, "tools@127.0.0.1", cookie, epmd.port, code_paths=paths) as beam:
        yield beam


@pytest.fixture
async def target(node: Node, beam: Beam) -> Node:
    """The node that they are aimed at."""
    await node.connect(beam.name)
    assert await is_among_nodes(beam, node.name)
    return node


async def run(beam: Beam, source: str, node: Node) -> Any:
    """What ``source`` gives, where ``Py`` is the node."""
    return await beam.eval(source, timeout=PATIENCE, Py=node.name)


def undef(module: str, function: str, *arguments: Term) -> Term:
    """What ``rpc:call`` returns for what is not there."""
    return (Atom("badrpc"), (Atom("EXIT"), (UNDEF, [(Atom(module), Atom(function), list(arguments), [])])))


@pytest.mark.parametrize("options", ["", ", {tracing, off}"])
async def test_etop(options: str, target: Node, beam: Beam) -> None:
    with pytest.raises(BeamError) as caught:
        await run(beam, f"etop:start([{{node, Py}}{options}])", target)
    assert (caught.value.kind, bytes(caught.value.reason)) == (
        "exit",
        b"Faulty version of runtime_tools on remote node",
    )
    assert await is_among_nodes(beam, target.name)


async def test_observer_shows_what_there_is(target: Node, beam: Beam) -> None:
    """Its own functions, without its windows: from what a node answers they make what is shown, or fail."""
    shown = await run(
        beam,
        """Info = observer_wx:try_rpc(Py, observer_backend, sys_info, []),
        Fields = [{"System", [{"System Version", otp_release}, {"ERTS Version", version}, {"Schedulers", schedulers}]},
                  {"Statistics", right, [{"Up time", {time_ms, uptime}}, {"Processes", process_count}]}],
        observer_lib:fill_info(Fields, Info)""",
        target,
    )
    (_, system), (_, _, statistics) = shown
    text = [(bytes(line[0]), line[1]) for line in system[:2]]
    assert text == [(b"System Version", list(b"zenmon-node, not OTP")), (b"ERTS Version", list(b"none"))]
    assert statistics[1][1] == len(target.processes) + 1  # and the one that answered
    assert [system[2], statistics[0]] == [Atom("undefined"), Atom("undefined")]


async def test_recon(target: Node, beam: Beam) -> None:
    function = "fun() -> recon:proc_count(memory, 3) end"
    (answer,), bad = await run(beam, f"recon:rpc(Py, {function})", target)
    assert (answer[0], answer[1][1][0], bad) == (Atom("badrpc"), UNDEF, [])
    (answer,), bad = await run(beam, f"recon:named_rpc(Py, {function})", target)
    assert (answer[0], answer[1][1][0], bad) == (Atom("badrpc"), UNDEF, [])
    (answer,), bad = await run(beam, "recon:remote_load(Py, recon)", target)
    assert (answer[0], answer[1][1][0], bad) == (Atom("badrpc"), UNDEF, [])
    refused = await run(beam, "rpc:call(Py, recon, proc_count, [memory, 3])", target)
    assert refused == undef("recon", "proc_count", Atom("memory"), 3)


async def test_observer_cli(target: Node, beam: Beam) -> None:
    refused = await run(beam, "observer_cli:start(Py)", target)
    assert refused == undef("observer_cli", "start", 1500)


async def test_iex_remsh(node: Node, packages: Path, root: Path, epmd: Epmd, cookie: str, tmp_path: Path) -> None:
    settings = environment(tmp_path, packages, root, epmd.port) | {"TERM": "xterm"}
    words = ["--name", "iex@127.0.0.1", "--cookie", cookie, "--remsh", node.name.name]
    async with on_a_terminal([str(packages / "usr/lib/elixir/bin/iex"), *words], settings, tmp_path) as terminal:
        assert await terminal.end() != 0
    assert f"Could not find IEx on remote node {node.name.name}. Aborting..." in terminal.output


@pytest.fixture(scope="module")
def scripts(packages: Path) -> Path:
    """The folder of RabbitMQ's tools."""
    return one(packages.glob("usr/lib/rabbitmq/lib/*/sbin"))


async def rabbitmq(program: Path, *words: str, **of_run: Any) -> tuple[int, str]:
    """Run a tool of RabbitMQ's, which are Elixir programs; its exit status and what it printed."""
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(
            ["sh", str(program), "--longnames", *words],
            stderr=subprocess.STDOUT,
            capture_stdout=True,
            check=False,
            **of_run,
        )
    return done.returncode, done.stdout.decode()


async def test_the_tools_of_rabbitmq(
    node: Node, scripts: Path, packages: Path, root: Path, epmd: Epmd, cookie: str, tmp_path: Path
) -> None:
    (tmp_path / ".erlang.cookie").write_text(cookie)
    (tmp_path / ".erlang.cookie").chmod(0o400)
    # Their node has its name from the beginning: the one they would make up needs a host name with a domain.
    named = {"RABBITMQ_CTL_ERL_ARGS": "-name rabbitmqcli@127.0.0.1 -start_epmd false"}
    options = {"env": environment(tmp_path, packages, root, epmd.port) | named}
    status, text = await rabbitmq(scripts / "rabbitmq-diagnostics", "-n", node.name.name, "ping", **options)
    assert (status, "Ping succeeded" in text) == (0, True), text
    status, text = await rabbitmq(scripts / "rabbitmqctl", "-n", node.name.name, "status", **options)
    assert status != 0
    assert "{:undef, [{:rabbit, :is_running, [], []}]}" in text, text
