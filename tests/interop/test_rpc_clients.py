"""Programs in C and Java call what Python exposes, with the libraries that come with Erlang: libei and JInterface.

They are compiled here. Where there is no C compiler, or no Java, that program takes no part; ``erl_call``, which is
one in C and comes compiled, always does (``test_erl_call.py``).
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from erlang_interop import Atom
from erlang_interop.testing.beam import find_otp_roots
from tests.command import Command
from tests.conftest import PROJECT
from tests.interop.collectors import leftovers, until

if TYPE_CHECKING:
    from erlang_interop import Node
    from erlang_interop.testing.beam import Epmd
    from tests.interop.conftest import NodeOpener

SOURCES = Path(__file__).parent / "clients"
#: Who takes part: the language and the programs that are needed.
CLIENTS = [name for name, needs in (("c", ["gcc"]), ("java", ["java", "javac"])) if all(map(shutil.which, needs))]


def fetch_otp(what: str) -> str:
    """Run ``tools/get_otp.py``, which does nothing for what is there already; what it prints."""
    program = [sys.executable, str(PROJECT / "tools" / "get_otp.py"), what]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def compiled(*command: str | Path) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def in_c(folder: Path, name: str = "rpc_client") -> list[str]:
    """Its libei is that of OTP 25: those of Debian's later suites need a newer libc than many machines have."""
    fetch_otp("25")
    system = find_otp_roots()[25]
    header = next(path for path in system.rglob("ei.h") if (path.parent.parent / "lib" / "libei.a").is_file())
    library = header.parent.parent / "lib" / "libei.a"
    program = folder / name
    compiled("gcc", "-pthread", f"-I{header.parent}", SOURCES / f"{name}.c", "-o", program, library)
    return [str(program)]


def in_java(folder: Path) -> list[str]:
    jar = fetch_otp("--jinterface")
    compiled("javac", "-cp", jar, "-d", folder, SOURCES / "RpcClient.java")
    return ["java", "-cp", f"{jar}:{folder}", "RpcClient"]


@pytest.fixture(scope="session", params=CLIENTS)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command that runs it."""
    folder = tmp_path_factory.mktemp("client")
    return in_c(folder) if request.param == "c" else in_java(folder)


async def test_calls(program: list[str], node: Node, tmp_path: Path, epmd: Epmd, cookie: str) -> None:
    client = Command(tmp_path, epmd.port, cookie, program=program)
    node.expose("py", {"add": lambda one, other: one + other, "div": lambda one, other: one / other})
    arguments = "[1,2]", "[1]", "[1,0]", "[]"
    if program[0] == "java":
        arguments = "1,2", "1", "1,0", ""
    calls = zip(["py", "py", "py", "os"], ["add", "add", "div", "getpid"], arguments, strict=True)
    done = await client(node.name.name, *[word for call in calls for word in call])
    assert (done.status, done.err) == (0, "")
    added, undef, failed, not_exposed = done.out.replace(", ", ",").splitlines()
    assert added == "3"
    assert undef.startswith("{badrpc,{'EXIT',{undef,[{py,add,")
    assert failed.startswith("{badrpc,{'EXIT',{{'ZeroDivisionError',#Bin<")
    assert not_exposed == "{badrpc,{'EXIT',{undef,[{os,getpid,[],[]}]}}}"
    await until(lambda: leftovers(node) == {} and node.statistics()["processes"] == 4)


@pytest.fixture(scope="session", params=[name for name in CLIENTS if name == "c"])
def global_client(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """JInterface knows nothing of ``global``."""
    return in_c(tmp_path_factory.mktemp("client"), "global_client")


async def test_a_name_through_a_full_node(
    global_client: list[str], opened: NodeOpener, tmp_path: Path, epmd: Epmd, cookie: str
) -> None:
    client = Command(tmp_path, epmd.port, cookie, program=global_client)
    async with opened(visible="full") as node:
        names = node.global_names
        done = await client(node.name.name, "c_name")
        assert (done.status, done.out, done.err) == (0, "global_client@127.0.0.1\nc_name\n", "")
        await until(lambda: node.global_server is not None and not node.global_server.names)
        async with client.started(node.name.name, "c_name", "wait") as running:
            await running.out.until("c_name")
            pid = await names.whereis("c_name")
            assert pid is not None
            assert pid.node == Atom("global_client@127.0.0.1")
            await running.signal(signal.SIGTERM)
        await until(lambda: node.global_server is not None and not node.global_server.names)
