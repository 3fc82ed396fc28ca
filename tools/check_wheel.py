#!/usr/bin/env python3
"""Install a wheel into a fresh virtual environment, and have two nodes of it talk to each other.

    tools/check_wheel.py dist/zenmon_node-0.1.0-py3-none-any.whl interpreted

The second argument is what ``zenmon-node --version`` must say of the build: how it begins. Exit status: 0 it does, and
one node has pinged the other; 1 not.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

LIMIT_S = 60.0


def main(wheel: str, build: str) -> int:
    """Check one wheel; the exit status."""
    with tempfile.TemporaryDirectory(prefix="zenmon-node-wheel-") as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [f"{folder}/bin/pip", "install", "--quiet", "--disable-pip-version-check", str(Path(wheel).resolve())]
        subprocess.run(pip, check=True)
        program = f"{folder}/bin/zenmon-node"
        # Away from the source tree, and without what may point to it, or sets anything.
        ours = ("PYTHON", "ERL_", "ZENMON_")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        environment |= {"ZENMON_COOKIE": secrets.token_hex(8), "ERL_EPMD_PORT": str(free_port())}
        said = subprocess.run([program, "--version"], cwd=folder, text=True, stdout=subprocess.PIPE, check=True).stdout
        print(f"{Path(wheel).name}: {said.strip()}", flush=True)
        if f"({build}" not in said:
            print(f"{wheel}: the build is not {build}", file=sys.stderr)
            return 1
        return ping(program, folder, environment)


def ping(program: str, folder: str, environment: dict[str, str]) -> int:
    """Run a node, and ping it from another; the status of the latter."""
    name = "wheel@127.0.0.1"
    command = [program, "run", "--name", name, "--embedded-epmd"]
    with subprocess.Popen(command, cwd=folder, env=environment, text=True, stderr=subprocess.PIPE) as node:
        try:
            assert node.stderr is not None
            said = []
            for line in node.stderr:
                said.append(line)
                if "running" in line:
                    break
            else:
                print("the node has ended:", *said, file=sys.stderr)
                return 1
            pinged = subprocess.run([program, "ping", name], cwd=folder, env=environment, timeout=LIMIT_S, check=False)
            return pinged.returncode
        finally:
            node.send_signal(signal.SIGTERM)
            node.communicate(timeout=LIMIT_S)


def free_port() -> int:
    """A port that is free on the loopback address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
