"""What is measured without the driver's help: the capacity of W1, the memory of an idle node, the start of a program.

*Capacity*: a BEAM that sends W1 live is the limit itself. Here a bare socket joins the peer as a node and sends frames
that were recorded from a BEAM (``recorded/casts_by_name.bin``) in blocks of 64 KiB, as fast as the peer takes them.
That a socket which only reads takes them much faster shows that the sender is no limit (:func:`sender_limit`).
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from benchmarks import bare
from benchmarks.contenders import BenchmarkError, environment_of
from benchmarks.micro import PEER, READ_SIZE, RECORDED, announces_atoms, frames
from erlang_interop.flags import OFFERED
from erlang_interop.terms import Atom, Pid, Reference
from erlang_interop.wire.channel import DistChannel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.contenders import Contender

LIMIT_S: Final = 60.0
WARM_UP_BLOCKS: Final = 30
MOST_STARTS: Final = 9
REG_SEND: Final = 6
_US: Final = Pid(Atom(PEER), 77, 0, bare.CREATION)
_REF: Final = Reference(Atom(PEER), bare.CREATION, bytes(range(12)))
_TICK_US: Final = 1_000_000 // os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Target:
    """The peer that is measured, and what commands need to join it.

    Attributes:
        contender: Who it is.
        name: The node's name.
        port: Where it listens, on the loopback address.
        os_pid: Its operating-system process.
        cookie: The cluster's.
        driver: The name of a BEAM that answers pings.
        epmd_port: Where epmd is.
        root: The BEAM's OTP.
        beam_arguments: What a BEAM is started with.
        seconds: How long a rate is measured.
    """

    contender: Contender
    name: str
    port: int
    os_pid: int
    cookie: str
    driver: str
    epmd_port: int
    root: Path
    beam_arguments: tuple[str, ...]
    seconds: float


Figures = dict[str, dict[str, float]]


# ----------------------------------------------------------------------------------------------------------- capacity
class Load:
    """Recorded casts: what announces their atoms, and blocks of those that need nothing announced."""

    def __init__(self) -> None:
        recorded = frames((RECORDED / "casts_by_name.bin").read_bytes())
        announcing = [frame for frame in recorded if announces_atoms(frame)]
        steady = [frame for frame in recorded if not announces_atoms(frame)]
        times = max(1, READ_SIZE // sum(map(len, steady)))
        self.announcement = b"".join(announcing)
        self.announced = len(announcing)
        self.block = b"".join(steady) * times
        self.casts = len(steady) * times


def capacity(target: Target) -> Figures:
    """How many recorded casts a second the peer takes, from the first byte to its answer that it has counted them."""
    try:
        return {"replayed_casts": _replay(target)}
    except OSError as error:
        raise BenchmarkError(f"{target.contender.title}, recorded casts: {error}") from error


def _replay(target: Target) -> dict[str, float]:
    load = Load()
    with socket.create_connection(("127.0.0.1", target.port), timeout=LIMIT_S) as sock:
        wire = DistChannel(OFFERED, peer=target.name)
        wire.receive_data(bare.join(sock, PEER, target.name, target.cookie))
        report = bare.frame((REG_SEND, _US, Atom(""), Atom("sink")), (Atom("report"), _US, _REF))
        sock.sendall(load.announcement + report)
        _await_count(sock, wire, load.announced)

        def flood(blocks: int) -> float:
            started = time.perf_counter()
            for _ in range(blocks):
                sock.sendall(load.block)
            sock.sendall(report)
            _await_count(sock, wire, blocks * load.casts)
            return time.perf_counter() - started

        blocks = max(WARM_UP_BLOCKS, int(WARM_UP_BLOCKS * target.seconds / flood(WARM_UP_BLOCKS)))
        cpu = cpu_us(target.os_pid)
        seconds = flood(blocks)
        count = blocks * load.casts
        return {
            "count": count,
            "per_second": count / seconds,
            "peer_cpu_us": (cpu_us(target.os_pid) - cpu) / count,
        }


def _await_count(sock: socket.socket, wire: DistChannel, expected: int) -> None:
    while True:
        data = sock.recv(READ_SIZE)
        if not data:
            raise BenchmarkError("the peer closed the connection on which recorded frames came")
        for _control, message in wire.receive_data(data):
            if message != (_REF, expected):
                raise BenchmarkError(f"of {expected} recorded casts the peer counted {message!r}")
            return
        if wire.failure is not None:
            raise wire.failure


def sender_limit(seconds: float) -> float:
    """Casts a second that the sender of :func:`capacity` gets rid of where a socket only reads them."""
    load = Load()
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = (
            "import socket, sys\n"
            "buffer = bytearray(1 << 16)\n"
            "with socket.create_connection(('127.0.0.1', int(sys.argv[1]))) as sock:\n"
            "    while sock.recv_into(buffer): pass\n"
        )
        reader = subprocess.Popen([sys.executable, "-c", code, str(server.getsockname()[1])])
        server.settimeout(LIMIT_S)
        sock, _ = server.accept()
        with sock:
            started = time.perf_counter()
            blocks = 0
            while time.perf_counter() - started < seconds:
                sock.sendall(load.block)
                blocks += 1
            sock.shutdown(socket.SHUT_WR)
            reader.wait(LIMIT_S)
            return blocks * load.casts / (time.perf_counter() - started)


# ------------------------------------------------------------------------------------------------------ size and start
def idle(target: Target) -> Figures:
    """Resident memory of a node that has started, connected to the driver, and done nothing else."""
    status = Path(f"/proc/{target.os_pid}/status").read_text()
    kilobytes = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
    return {"idle_node": {"megabytes": kilobytes / 1024}}


def start(target: Target) -> Figures:
    """From the start of a program to its end, with a ping of the driver in between; the median of some."""
    command, environment = _ping_command(target)
    times: list[float] = []
    while not times or (len(times) < MOST_STARTS and sum(times) < 3000 * target.seconds):
        started = time.perf_counter()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        times.append((time.perf_counter() - started) * 1000)
        if done.returncode != 0 or "pong" not in done.stdout:
            raise BenchmarkError(f"no pong by {command[0]} (exit {done.returncode}): {done.stdout}{done.stderr}")
    return {"ping": {"count": len(times), "p50_ms": median(times)}}


def _ping_command(target: Target) -> tuple[list[str], dict[str, str]]:
    environment = environment_of(target.contender)
    environment |= {"ERL_EPMD_PORT": str(target.epmd_port), "ZENMON_COOKIE": target.cookie}
    if target.contender.process == "beam":
        ping = f"io:put_chars(atom_to_list(net_adm:ping('{target.driver}'))), halt()."
        name = f"ping{target.name}"
        command = [str(target.root / "bin" / "erl"), "-noinput", "-hidden", "-name", name, "-setcookie", target.cookie]
        return [*command, *target.beam_arguments, "-eval", ping], environment
    if target.contender.process == "libei":
        caller = next(target.root.rglob("erl_call"))
        asked = ["-a", 'erlang list_to_atom ["pong"]']
        return [str(caller), "-c", target.cookie, "-name", target.driver, *asked], environment
    return [sys.executable, "-m", "zenmon_node", "ping", target.driver], environment


MEASUREMENTS: Final[Mapping[str, Callable[[Target], Figures]]] = {"idle": idle, "start": start, "capacity": capacity}
"""Group, one of ``workloads.OUTSIDE``, to what measures it."""


def cpu_us(os_pid: int) -> int:
    """User and system time that a process has taken, in microseconds; in steps of 10 ms."""
    fields = Path(f"/proc/{os_pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_US
