"""``zenmon-node`` against a BEAM: each command, as its users run it."""

from __future__ import annotations

import re
import secrets
import signal
from typing import TYPE_CHECKING

import pytest

from erlang_interop import Atom
from erlang_interop.testing.ports import free_port
from tests.command import Command
from tests.interop.collectors import is_among_nodes
from zenmon_node.cli import ExitStatus

if TYPE_CHECKING:
    from pathlib import Path

    from erlang_interop.testing.beam import Beam
    from tests.conftest import BeamFactory, Otp


@pytest.fixture
def name() -> str:
    """A registered name that no other test has."""
    return f"cli_{secrets.token_hex(4)}"


async def commands_are_gone(beam: Beam) -> None:
    """Return when the BEAM has no connection to any command: it may learn of their end a little later."""
    gone = 'not lists:any(fun(Node) -> lists:prefix("zenmon-", atom_to_list(Node)) end, nodes(connected))'
    assert await beam.eval(f"polling:until(fun() -> {gone} end, 20000).") is True


async def test_ping(command: Command, beam: Beam) -> None:
    done = await command("ping", beam.name)
    assert (done.status, done.out, done.err) == (ExitStatus.DONE, "pong\n", "")
    await commands_are_gone(beam)


async def test_ping_as_a_node_that_is_given_its_name(command: Command, beam: Beam) -> None:
    done = await command("ping", beam.name, "--name", "undefined")
    assert (done.status, done.out, done.err) == (ExitStatus.DONE, "pong\n", "")
    done = await command("call", beam.name, "erlang", "nodes", "hidden", "--name", "undefined")
    assert re.search(r"'[0-9A-Z]+@127\.0\.0\.1'", done.out)


async def test_ping_with_a_wrong_cookie(command: Command, beam: Beam) -> None:
    done = await command("ping", beam.name, ZENMON_COOKIE="geheim")
    assert done.status == ExitStatus.REFUSED
    assert "cookie" in done.err
    assert beam.name in done.err
    assert "geheim" not in done.err


async def test_ping_under_the_name_of_the_beam(command: Command, beam: Beam) -> None:
    done = await command("ping", beam.name, "--name", beam.name)
    assert done.status == ExitStatus.REFUSED
    assert "choose another name" in done.err


@pytest.mark.parametrize("by", ["--address", "ERL_DIST_PORT"])
async def test_ping_without_any_epmd(otp: Otp, tmp_path: Path, fresh_beam: BeamFactory, cookie: str, by: str) -> None:
    """Neither here nor at the BEAM: the command's port for EPMD is one where nothing listens."""
    port = free_port()
    flag = ["-erl_epmd_port"] if otp.release < 27 else ["-kernel", "erl_epmd_node_listen_port"]
    beam = fresh_beam(args=[*flag, str(port)])
    command = Command(tmp_path, 1, cookie)
    if by == "--address":
        done = await command("ping", beam.name, "--address", f"localhost:{port}")
    else:
        done = await command("ping", beam.name, ERL_DIST_PORT=str(port))
    assert (done.status, done.out, done.err) == (ExitStatus.DONE, "pong\n", "")
    done = await command("ping", beam.name, "--address", "127.0.0.1:1")
    assert done.status == ExitStatus.REFUSED
    assert "127.0.0.1:1: Connection refused; that address was given for it" in done.err


async def test_ping_of_a_beam_that_has_died(command: Command, fresh_beam: BeamFactory) -> None:
    beam = fresh_beam()
    beam.kill()
    done = await command("ping", beam.name)
    assert done.status == ExitStatus.REFUSED
    assert "knows no node" in done.err


async def test_ping_of_a_suspended_beam(command: Command, fresh_beam: BeamFactory) -> None:
    beam = fresh_beam()
    beam.suspend()
    done = await command("ping", beam.name, "--timeout", "3")  # in which EPMD has to answer, on a slow machine too
    beam.resume()
    assert done.status == ExitStatus.REFUSED
    assert "within 3 s" in done.err
    assert beam.name in done.err


async def test_names(command: Command, beam: Beam) -> None:
    for host in ([], ["localhost"]):
        done = await command("names", *host)
        assert done.status == ExitStatus.DONE
        assert any(line.startswith(f"name {beam.name.partition('@')[0]} at port ") for line in done.out.splitlines())


async def test_nodes(command: Command, beam: Beam, fresh_beam: BeamFactory) -> None:
    visible, hidden = fresh_beam(), fresh_beam(hidden=True)
    for other in (visible, hidden):
        assert await beam.eval(f"net_kernel:connect_node('{other.name}').") is True
    await commands_are_gone(beam)  # those of other tests
    done = await command("nodes", beam.name)
    assert done.status == ExitStatus.DONE
    assert f"{visible.name} visible\n" in done.out
    assert f"{hidden.name} hidden\n" in done.out
    assert "zenmon-" not in done.out


async def test_call(command: Command, beam: Beam) -> None:
    done = await command("call", beam.name, "erlang", "node")
    assert (done.status, done.out, done.err) == (ExitStatus.DONE, f"'{beam.name}'\n", "")
    done = await command("call", beam.name, "maps", "from_list", '[{a, 1.5}, {"b", <<"ü"/utf8>>}]')
    assert (done.status, done.out) == (ExitStatus.DONE, '#{a => 1.5,"b" => <<"ü"/utf8>>}\n')
    done = await command("call", beam.name, "erlang", "max", "-3", "-4")
    assert (done.status, done.out) == (ExitStatus.DONE, "-3\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["erlang", "hd", "[]"], "badarg"),
        (["erlang", "exit", "{my, reason}"], "{my,reason}"),
        (["no_such_module", "f", "1"], "no function no_such_module:f/1"),
        # The limit is one for connecting as well, on a slow machine too.
        (["timer", "sleep", "60000", "--timeout", "3"], "did not return within 3.0 s"),
    ],
)
async def test_call_that_fails(command: Command, beam: Beam, words: list[str], message: str) -> None:
    done = await command("call", beam.name, *words)
    assert (done.status, done.out) == (ExitStatus.REFUSED, "")
    assert message in done.err
    assert done.err.count("\n") == 1


async def test_send(command: Command, beam: Beam, name: str) -> None:
    pid = await beam.eval(f"collector:start({name}).")
    done = await command("send", f"{name}@{beam.name}", '{hello, [1,2|3], "text"}')
    assert (done.status, done.out, done.err) == (ExitStatus.DONE, "", "")
    done = await command("send", str(pid), f"{{to_a_pid, {pid}}}")
    assert done.status == ExitStatus.DONE
    received = await beam.eval(
        f"M = collector:take({name}, 2, 20000), collector:stop({name}), M =:= "
        '[{hello, [1,2|3], "text"}, {to_a_pid, P}].',
        P=pid,
    )
    assert received is True


async def test_send_to_nobody(command: Command, beam: Beam) -> None:
    dead = await beam.eval("plain_processes:dead_pid().")
    for target in ("nobody_has_this_name@" + beam.name, str(dead)):
        done = await command("send", target, "hello")
        assert done.status == ExitStatus.REFUSED
        assert "no " in done.err


@pytest.mark.parametrize(("arguments", "kind"), [([], "hidden"), (["--visible"], "visible")])
async def test_run(command: Command, fresh_beam: BeamFactory, name: str, arguments: list[str], kind: str) -> None:
    """It joins, serves ZenMonitor, reports the loss, and leaves in an orderly way."""
    beam = fresh_beam()
    service = f"{name}@127.0.0.1"
    async with command.started("run", "--name", service, "--connect", beam.name, *arguments) as running:
        assert "type=visible" in await running.err.until("node up")
        assert f"type={kind}" in await running.err.until("running")
        assert await is_among_nodes(beam, service, kind)
        ping = f"gen_server:call({{'Elixir.ZenMonitor.Proxy', '{service}'}}, ping, 20000)."
        assert await beam.eval(ping) == Atom("pong")
        await beam.eval("collector:start(leaving).")
        await beam.eval(f"collector:run(leaving, erlang, monitor_node, ['{service}', true]).")
        done = await running.signal(signal.SIGTERM)
    assert done.status == ExitStatus.DONE
    assert "signal=SIGTERM" in done.err
    assert await beam.eval("collector:take(leaving, 1, 20000).") == [(Atom("nodedown"), Atom(service))]


async def test_run_when_the_peer_is_killed_and_comes_back(command: Command, fresh_beam: BeamFactory, name: str) -> None:
    beam = fresh_beam()
    service = f"{name}@127.0.0.1"
    async with command.started("run", "--name", service, "--connect", beam.name) as running:
        await running.err.until("node up")
        beam.kill()
        assert "reason=connection_closed" in await running.err.until("node down")
        beam.close()
        again = fresh_beam(beam.name)
        assert f"node={beam.name}" in await running.err.until("node up")
        assert await is_among_nodes(again, service, "hidden")
        assert (await running.signal(signal.SIGINT)).status == ExitStatus.DONE
