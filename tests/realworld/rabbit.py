"""Start a RabbitMQ from Debian's packages on loopback, by its own script, and leave nothing of it behind."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

#: Seconds that starting may take: 5 on a quiet machine.
BOOT_LIMIT: Final = 120.0
ON_LOOPBACK: Final = "-kernel inet_dist_use_interface {127,0,0,1}"
#: What it logs when everything runs.
STARTED: Final = "Server startup complete"


class Broker:
    """A RabbitMQ node.

    Args:
        packages: The folder into which ``tools/get_otp.py --realworld`` unpacked it.
        otp: The OTP it runs on, the folder that holds ``bin/erl``.
        epmd_port: Where an EPMD listens already.
        cookie: The cluster's secret.

    Attributes:
        name: Its node's name.
        pid: The operating system's process.
    """

    def __init__(self, packages: Path, otp: Path, epmd_port: int, cookie: str) -> None:
        self.name = f"rabbit_{secrets.token_hex(3)}@127.0.0.1"
        self._folder = tempfile.TemporaryDirectory(prefix="zenmon-rabbit-")
        home = Path(self._folder.name)
        self._log = home / "log.txt"
        (home / ".erlang.cookie").write_text(cookie)
        (home / ".erlang.cookie").chmod(0o400)
        (home / "advanced.config").write_text("[{rabbit, [{tcp_listeners, []}]}].\n")  # it is a node here, no server
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["sh", str(one(packages.glob("usr/lib/rabbitmq/lib/*/sbin/rabbitmq-server")))],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=home,
                env=self._environment(home, packages, otp, epmd_port),
                start_new_session=True,
            )
        self.pid = self._process.pid

    def _environment(self, home: Path, packages: Path, otp: Path, epmd_port: int) -> dict[str, str]:
        """The whole of it: settings of the user's own shell would change the node."""
        rabbit = {
            "ADVANCED_CONFIG_FILE": home / "advanced.config",
            "ALLOW_INPUT": 1,  # the script then becomes the node, instead of waiting for it
            "CONFIG_FILE": home / "rabbitmq",
            "CONF_ENV_FILE": "/dev/null",
            "ENABLED_PLUGINS_FILE": home / "enabled_plugins",
            "FEATURE_FLAGS_FILE": home / "feature_flags",
            "GENERATED_CONFIG_DIR": home / "config",
            "LOGS": "-",
            "LOG_BASE": home / "log",
            "MNESIA_BASE": home / "mnesia",
            "NODENAME": self.name,
            # It has its name from the beginning: RabbitMQ would take a fixed port where it gives it one.
            "SERVER_ADDITIONAL_ERL_ARGS": f"-noinput -start_epmd false -name {self.name} {ON_LOOPBACK}",
            "USE_LONGNAME": "true",
        }
        return {f"RABBITMQ_{key}": str(value) for key, value in rabbit.items()} | environment(
            home, packages, otp, epmd_port
        )

    def wait_started(self) -> None:
        """Return when it runs.

        Raises:
            RuntimeError: it does not; the message is what it logged.
        """
        limit = time.monotonic() + BOOT_LIMIT
        while STARTED not in self.log:
            if self._process.poll() is not None or time.monotonic() > limit:
                raise RuntimeError(f"RabbitMQ did not start: {self.log}")
            time.sleep(0.05)

    @property
    def log(self) -> str:
        """What it logged."""
        return self._log.read_text(errors="replace")

    @property
    def ended(self) -> bool:
        """Whether the node is no more."""
        return self._process.poll() is not None

    def close(self) -> None:
        """Kill it and the programs that it started."""
        if not self.ended:
            helpers = descendants(self.pid)
            self._process.kill()
            self._process.wait()
            for pid in helpers:
                with suppress(ProcessLookupError):  # most of them end when they can no longer read from it
                    os.kill(pid, signal.SIGKILL)
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def environment(home: Path, packages: Path, otp: Path, epmd_port: int) -> dict[str, str]:
    """Of a program of these packages."""
    return {
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(epmd_port),
        "ERL_LIBS": str(packages / "usr/lib/erlang/lib"),
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "PATH": f"{otp / 'bin'}:/usr/bin:/bin",
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "TERM": "dumb",
    }


def one(paths: Iterable[Path]) -> Path:
    """The only one of them."""
    (path,) = paths
    return path


def descendants(pid: int) -> list[int]:
    """The processes that ``pid`` started, those that these started, and so on."""
    parents = {int(folder.name): status_of(int(folder.name)) for folder in Path("/proc").glob("[0-9]*")}
    found = [pid]
    for parent in found:
        found += [child for child, status in parents.items() if status is not None and status[1] == str(parent)]
    return found[1:]


def is_running(pid: int) -> bool:
    """Whether the process has not ended. One that nobody has waited for yet has."""
    status = status_of(pid)
    return status is not None and status[0] != "Z"


def status_of(pid: int) -> list[str] | None:
    """What ``/proc`` says of a process: its state, its parent, ...; None if there is none."""
    try:
        # pid (name) state parent ...; the name may be anything
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
