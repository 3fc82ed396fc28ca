"""Who is measured, and what of it: a BEAM, our node in two builds, and the libraries that come with Erlang.

The peers with libei and JInterface are programs of ours (``peers/``), compiled for the run. They do the work of W1 to
W4 as far as their libraries go; what they need and this machine does not have is named in one line.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal

PROJECT: Final = Path(__file__).resolve().parent.parent
PEERS: Final = PROJECT / "benchmarks" / "peers"
COMPILE_LIMIT_S: Final = 120.0

_LIBRARY_GROUPS: Final = frozenset(("idle", "casts_in", "casts_out", "calls_in", "calls_out", "bulk", "batches"))
"""What the libraries can do. They take no frames with an atom cache, as recorded ones are, and have no monitors."""


class BenchmarkError(Exception):
    """A run failed; the message has what the peer printed, where there is one."""


@dataclass(frozen=True)
class Contender:
    """Who is measured.

    Attributes:
        key: Its name on the command line.
        title: Its name in the table.
        process: What takes the load: a ``beam``'s process, an ``inline`` server or a process with a ``mailbox`` of our
            node, or a program with ``libei`` or ``jinterface``.
        build: Our node's build: ``installed`` (compiled where a compiler was at hand) or ``pure`` (the source tree).
    """

    key: str
    title: str
    process: Literal["beam", "inline", "mailbox", "libei", "jinterface"]
    build: Literal["installed", "pure"] = "installed"

    @property
    def is_library(self) -> bool:
        """Whether it is one of the libraries that come with Erlang."""
        return self.process in ("libei", "jinterface")

    def takes_part_in(self, group: str) -> bool:
        """False where it cannot do the work, or would be another contender once more."""
        if self.is_library:
            return group in _LIBRARY_GROUPS or (group == "start" and self.process == "libei")
        # Proxies and scopes are inline servers in any case; codec and command are the same whoever waits for messages.
        return self.process != "mailbox" or group not in ("zen_proxy", "syn_registry", "syn_pg", "codec", "start")


CONTENDERS: Final = {
    contender.key: contender
    for contender in (
        Contender("beam", "BEAM", "beam"),
        Contender("inline", "Python, inline server", "inline"),
        Contender("mailbox", "Python, mailbox", "mailbox"),
        Contender("pure", "interpreted, inline server", "inline", "pure"),
        Contender("pure-mailbox", "interpreted, mailbox", "mailbox", "pure"),
        Contender("libei", "libei (C)", "libei"),
        Contender("jinterface", "JInterface (Java)", "jinterface"),
    )
}


def environment_of(contender: Contender) -> dict[str, str]:
    """The environment that makes Python take the contender's build of our node."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return environment | ({"PYTHONPATH": str(PROJECT / "src")} if contender.build == "pure" else {})


@cache
def build_of(contender: Contender) -> str:
    """Which build of our node that is. Asked of another process than the peer, which would grow by what it imports."""
    asked = [sys.executable, "-c", "from zenmon_node.build import describe_build as build; print(build())"]
    done = subprocess.run(asked, env=environment_of(contender), stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise BenchmarkError(f"{contender.title}: {sys.executable} has no zenmon_node")
    return done.stdout.strip()


class MissingPeerError(Exception):
    """A library's peer cannot be built here. The message says what is missing, in one line."""


def library_command(process: str, root: Path, folder: Path) -> list[str]:
    """Compile the peer of a library; the command that runs it, to which the node's name is added.

    Args:
        process: ``libei`` or ``jinterface``.
        root: The OTP whose libei it is.
        folder: Where the compiled program goes.

    Raises:
        MissingPeerError: It cannot be compiled here.
    """
    return _libei(root, folder) if process == "libei" else _jinterface(folder)


def _libei(root: Path, folder: Path) -> list[str]:
    header = next(root.rglob("usr/include/ei.h"), None) or next(root.rglob("ei.h"), None)
    library = header.parent.parent / "lib" / "libei.a" if header is not None else root
    if header is None or not library.is_file():
        raise MissingPeerError(f"no ei.h and libei.a below {root} (Debian: erlang-dev)")
    program = folder / "ei_sink"
    source = PEERS / "ei_sink.c"
    # -pthread also makes <ei.h> use the thread-safe erl_errno, which libei.a has.
    _compile(["gcc", "-O2", "-pthread", f"-I{header.parent}", str(source), "-o", str(program), str(library)])
    return [str(program)]


def _jinterface(folder: Path) -> list[str]:
    if shutil.which("java") is None or shutil.which("javac") is None:
        raise MissingPeerError("no java and javac here")
    fetched = subprocess.run(
        [sys.executable, str(PROJECT / "tools" / "get_otp.py"), "--jinterface"],
        capture_output=True,
        text=True,
        check=False,
    )
    if fetched.returncode != 0:
        raise MissingPeerError(fetched.stderr.strip())
    jar = fetched.stdout.strip()
    _compile(["javac", "-cp", jar, "-d", str(folder), str(PEERS / "JavaSink.java")])
    return ["java", "-cp", f"{jar}:{folder}", "JavaSink"]


def _compile(command: list[str]) -> None:
    if shutil.which(command[0]) is None:
        raise MissingPeerError(f"no {command[0]} here")
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_LIMIT_S, check=False)
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        complaint = next((line for line in lines if "error" in line or "undefined" in line), lines[0])
        raise MissingPeerError(f"{command[0]} does not compile its peer: {complaint}")
