"""The commands against a second Python node: what they print, what they end with, and what they say when it fails."""

from __future__ import annotations

import signal
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio

from erlang_interop import Atom, BadRpc, EpmdAddress, Exit, Node, open_node
from erlang_interop.testing.ports import free_port
from tests.command import Command
from tests.unit.zenmon.cli.conftest import COOKIE
from zenmon_node.cli import ExitStatus

if TYPE_CHECKING:
    from pathlib import Path

    from erlang_interop import Process, Term


def expose_what_a_beam_has(peer: Node) -> None:
    """As much of a BEAM's modules as these tests call."""

    def hd(elements: list[Term]) -> Term:
        return elements[0]

    peer.expose("lists", {"sum": sum})
    peer.expose("erlang", {"hd": hd})


async def test_ping(command: Command, peer: Node) -> None:
    done = await command("ping", peer.name.name)
    assert (done.status, done.out, done.err) == (ExitStatus.DONE, "pong\n", "")


async def test_ping_from_a_cookie_file(command: Command, peer: Node, tmp_path: Path) -> None:
    (tmp_path / "cookie").write_text(f"{COOKIE}\n")
    done = await command("ping", peer.name.name, "--cookie-file", str(tmp_path / "cookie"), ZENMON_COOKIE="wrong")
    assert (done.status, done.out) == (ExitStatus.DONE, "pong\n")


async def test_ping_from_the_cookie_file_of_the_user(peer: Node, tmp_path: Path, epmd_port: int) -> None:
    (tmp_path / ".erlang.cookie").write_text(COOKIE)
    done = await Command(tmp_path, epmd_port, None)("ping", peer.name.name)
    assert (done.status, done.out) == (ExitStatus.DONE, "pong\n")


async def test_no_cookie_at_all(peer: Node, tmp_path: Path, epmd_port: int) -> None:
    done = await Command(tmp_path, epmd_port, None)("ping", peer.name.name)
    assert done.status == ExitStatus.USAGE
    assert "--cookie-file" in done.err
    assert "ZENMON_COOKIE" in done.err


async def test_a_wrong_cookie(command: Command, peer: Node) -> None:
    done = await command("ping", peer.name.name, ZENMON_COOKIE="geheim")
    assert done.status == ExitStatus.REFUSED
    assert peer.name.name in done.err
    assert "cookie" in done.err
    assert "--cookie-file" in done.err
    assert "geheim" not in done.err
    assert COOKIE not in done.err
    assert done.err.count("\n") == 1


async def test_a_name_that_is_taken(command: Command, peer: Node) -> None:
    for words in (["ping", peer.name.name, "--name", peer.name.name], ["run", "--name", peer.name.name]):
        done = await command(*words)
        assert done.status == ExitStatus.REFUSED
        assert "choose another name" in done.err
        assert peer.name.name.partition("@")[0] in done.err


async def test_a_host_that_does_not_resolve(command: Command, peer: Node) -> None:
    for words in (["ping", "beam@no-such-host.invalid"], ["run", "--name", "py@no-such-host.invalid"]):
        done = await command(*words)
        assert done.status == ExitStatus.REFUSED
        assert "'no-such-host.invalid' does not resolve" in done.err


async def test_a_port_that_is_taken(command: Command, peer: Node) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = await command("run", "--name", "py@127.0.0.1", "--port", str(port))
    assert done.status == ExitStatus.REFUSED
    assert f"127.0.0.1:{port}" in done.err
    assert "another port" in done.err


async def test_a_node_that_nobody_knows(command: Command, peer: Node) -> None:
    for words in (
        ["ping", "nosuch@127.0.0.1"],
        ["nodes", "nosuch@127.0.0.1"],
        ["call", "nosuch@127.0.0.1", "erlang", "node"],
        ["send", "worker@nosuch@127.0.0.1", "hello"],
        ["monitor", "worker@nosuch@127.0.0.1"],
        ["run", "--name", "py@127.0.0.1", "--connect", "nosuch@127.0.0.1"],
    ):
        done = await command(*words)
        assert done.status == ExitStatus.REFUSED
        assert "knows no node 'nosuch'" in done.err
        assert "Traceback" not in done.err


async def test_a_node_that_cannot_be_reached(command: Command, epmd_port: int) -> None:
    """EPMD knows it, but nobody listens on its port any more, as after a crash that EPMD has not noticed."""
    async with open_node("epmd@127.0.0.1", cookie=COOKIE, epmd=EpmdAddress(port=epmd_port), embedded_epmd=True):
        with socket.create_connection(("127.0.0.1", epmd_port)) as registration:
            name = b"gone"
            request = b"x" + free_port().to_bytes(2) + b"M\0" + b"\0\6\0\5" + len(name).to_bytes(2) + name + b"\0\0"
            await trio.to_thread.run_sync(registration.sendall, len(request).to_bytes(2) + request)
            assert (await trio.to_thread.run_sync(registration.recv, 6))[:2] == b"v\0"
            done = await command("ping", "gone@127.0.0.1")
    assert done.status == ExitStatus.REFUSED
    assert "no connection to 127.0.0.1" in done.err


async def test_a_node_that_does_not_answer(command: Command, peer: Node) -> None:
    """Its net_kernel is gone: it is there, but does not answer a ping."""
    net_kernel = peer.whereis("net_kernel")
    assert net_kernel is not None
    peer.unregister("net_kernel")
    async with peer.open_process("net_kernel"):
        # The limit is one for connecting as well, on a slow machine too.
        done = await command("ping", peer.name.name, "--timeout", "3")
    assert done.status == ExitStatus.REFUSED
    assert "did not answer within 3.0 s" in done.err


async def test_no_epmd(command: Command, epmd_port: int) -> None:
    done = await command("ping", "beam@127.0.0.1")
    assert done.status == ExitStatus.REFUSED
    assert f"no EPMD answers on 127.0.0.1:{epmd_port}" in done.err
    done = await command("names")
    assert done.status == ExitStatus.REFUSED
    done = await command("run", "--name", "py@127.0.0.1")
    assert done.status == ExitStatus.REFUSED
    assert "--embedded-epmd" in done.err


async def test_names(command: Command, peer: Node) -> None:
    done = await command("names")
    assert done.status == ExitStatus.DONE
    (line,) = done.out.splitlines()
    assert line.startswith(f"name {peer.name.name.partition('@')[0]} at port ")


async def test_nodes(command: Command, peer: Node, epmd_port: int) -> None:
    options: dict[str, Any] = {"cookie": COOKIE, "epmd": EpmdAddress(port=epmd_port)}
    async with (
        open_node("seen@127.0.0.1", visible="passive", **options) as seen,
        open_node("unseen@127.0.0.1", **options) as unseen,
    ):
        await seen.connect(peer.name)
        await unseen.connect(peer.name)
        done = await command("nodes", peer.name.name)
    assert (done.status, done.out) == (ExitStatus.DONE, "seen@127.0.0.1 visible\nunseen@127.0.0.1 hidden\n")


async def test_call(command: Command, peer: Node) -> None:
    expose_what_a_beam_has(peer)
    node = peer.name.name
    done = await command("call", node, "lists", "sum", "[1, 2, -3]")
    assert (done.status, done.out, done.err) == (ExitStatus.DONE, "0\n", "")
    worker = peer.spawn(_worker)
    done = await command("call", node, "erlang", "is_process_alive", str(worker))
    assert (done.status, done.out) == (ExitStatus.DONE, "true\n")
    done = await command("call", node, "erlang", "hd", "[]")
    assert (done.status, done.out) == (ExitStatus.REFUSED, "")
    assert "erlang:hd/1 failed on" in done.err
    assert "'IndexError'" in done.err
    done = await command("call", node, "no", "such", "1", "2")
    assert done.status == ExitStatus.REFUSED
    assert "no function no:such/2" in done.err


async def test_call_prints_json(command: Command, peer: Node) -> None:
    peer.expose("py", {"row": lambda n: {Atom("id"): n, b"tags": [Atom("a"), (None, True)]}})
    done = await command("call", peer.name.name, "py", "row", "7", "--json")
    assert (done.status, done.out, done.err) == (ExitStatus.DONE, '{"id": 7, "tags": ["a", [null, true]]}\n', "")
    done = await command("call", "--json", peer.name.name, "py", "row")
    assert (done.status, done.out) == (ExitStatus.REFUSED, "")
    assert "no function py:row/0" in done.err


async def test_what_a_call_prints_is_not_its_result(command: Command, peer: Node) -> None:
    async def prints(process: Process) -> Atom:
        assert process.group_leader is not None
        request = (Atom("put_chars"), Atom("unicode"), "hi\n")
        process.send(process.group_leader, (Atom("io_request"), process.pid, 1, request))
        await process.receive()
        return Atom("printed")

    peer.expose("py", {"prints": prints}, with_process=True)
    done = await command("call", peer.name.name, "py", "prints")
    assert (done.status, done.out, done.err) == (ExitStatus.DONE, "printed\n", "hi\n")


async def test_run_exposes(command: Command, peer: Node, tmp_path: Path) -> None:
    (tmp_path / "my_functions.py").write_text("def twice(n):\n    return 2 * n\n")
    exposed = ["my_functions:twice", "Elixir.Math:root=math:sqrt"]
    words = ["run", "--name", "service@127.0.0.1", "--expose", *exposed, "--connect", peer.name.name]
    async with command.started(*words, PYTHONPATH=f"{tmp_path}:{':'.join(sys.path)}") as running:
        await running.err.until("running")
        assert await peer.rpc("service@127.0.0.1", "my_functions", "twice", [21]) == 42
        assert await peer.rpc("service@127.0.0.1", "Elixir.Math", "root", [4]) == 2.0
        with pytest.raises(BadRpc, match="undef"):
            await peer.rpc("service@127.0.0.1", "math", "sqrt", [4])
        assert (await running.signal(signal.SIGTERM)).status == ExitStatus.DONE


async def test_run_with_nothing_to_expose(command: Command) -> None:
    for named, message in (("no_such_module:f", "importing no_such_module failed"), ("math", "names no function")):
        done = await command("run", "--name", "service@127.0.0.1", "--expose", named)
        assert done.status == ExitStatus.USAGE
        assert message in done.err
        assert done.err.count("\n") == 1


async def test_send(command: Command, peer: Node) -> None:
    async with peer.open_process("inbox") as inbox:
        done = await command("send", f"inbox@{peer.name}", f'{{hello, [1, "abc"], {inbox.pid}}}')
        assert (done.status, done.out, done.err) == (ExitStatus.DONE, "", "")
        assert await inbox.receive(timeout=5) == (Atom("hello"), [1, [97, 98, 99]], inbox.pid)
        done = await command("send", str(inbox.pid), "again")
        assert done.status == ExitStatus.DONE
        assert await inbox.receive(timeout=5) == Atom("again")


async def test_send_to_nobody(command: Command, peer: Node) -> None:
    done = await command("send", f"nobody@{peer.name}", "hello")
    assert done.status == ExitStatus.REFUSED
    assert "no process is registered as 'nobody'" in done.err
    done = await command("send", f"<{peer.name}.99999.0>", "hello")
    assert done.status == ExitStatus.REFUSED
    assert "no living process" in done.err


async def _worker(process: Process) -> None:
    message = await process.receive()
    raise Exit(message[1])
