"""Ports for tests: free when they are chosen, and free still when something is to listen there."""

from __future__ import annotations

import itertools
import os
import random
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The first port that may be chosen; below are those of well-known services.
_LOWEST: Final = 10_000
#: Says from which port on the system itself chooses, for who binds to port 0 or connects.
_SYSTEM_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
#: Where its choice begins if it is not told.
_USUAL_END: Final = 32_768
#: So many ports are needed, at least.
_FEWEST: Final = 5_000


def free_port() -> int:
    """A TCP port on loopback that nothing listens on now.

    The test listens there later, or has a program do so, and nobody else may be given the port until then. So it is
    none that the system chooses by itself, none of another process of pytest-xdist, and no port is given twice.
    """
    while True:
        port = next(_ports)
        if is_free(port):
            return port


def is_free(port: int) -> bool:
    """Whether nobody listens on this port of 127.0.0.1 now."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def _own_ports() -> Iterator[int]:
    """The ports of this test process, over and over, from any one on: a second test run may go on beside it."""
    end = int(_SYSTEM_RANGE.read_text().split()[0]) if _SYSTEM_RANGE.exists() else _USUAL_END
    if end < _LOWEST + _FEWEST:  # the system takes nearly all of them: there is no safe choice
        end = _USUAL_END
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ports = range(_LOWEST + worker, end, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
    start = random.randrange(len(ports))
    return itertools.cycle([*ports[start:], *ports[:start]])


_ports: Final = _own_ports()
