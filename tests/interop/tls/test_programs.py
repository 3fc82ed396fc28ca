"""The page about TLS is true, and the command line speaks TLS."""

from __future__ import annotations

import re
import signal
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from tests.certificates import Authority, optfile
from tests.command import Command
from tests.conftest import PROJECT
from tests.interop.collectors import is_among_nodes
from tests.interop.test_readme import blocks
from zenmon_node.cli import ExitStatus

if TYPE_CHECKING:
    from pathlib import Path

    from erlang_interop.testing.beam import Beam, Epmd
    from tests.conftest import BeamFactory

PAGE = PROJECT / "docs" / "tls.md"


@pytest.fixture
def command(tmp_path: Path, epmd: Epmd, cookie: str) -> Command:
    return Command(tmp_path, epmd.port, cookie)


async def test_the_trial_of_the_page(
    fresh_beam: BeamFactory, ssl_args: list[str], epmd: Epmd, cookie: str, tmp_path: Path
) -> None:
    (certificates, commands), (conf,) = blocks(PAGE, "bash"), blocks(PAGE, "erlang")
    make = certificates.strip().replace("python", sys.executable).replace("-d certs", f"-d {tmp_path}").split()
    assert (await trio.run_process(make, capture_stdout=True)).returncode == 0
    path = tmp_path / "dist.conf"
    path.write_text(conf.replace("certs/", f"{tmp_path}/"))
    (erl,) = re.findall(r"^erl .*-setcookie secret (.*) dist.conf$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    beam = fresh_beam(args=[*ssl_args, *erl.split(), str(path)])

    (program,) = blocks(PAGE, "python")
    for what, instead in (('"secret"', f'"{cookie}"'), ("beam@127.0.0.1", beam.name), ("dist.conf", str(path))):
        assert what in program
        program = program.replace(what, instead)
    python = Command(tmp_path, epmd.port, None, program=(sys.executable,))
    done = await python("-c", program)
    assert (done.status, done.out, done.err) == (0, f"{beam.name}\n", "")

    command = Command(tmp_path, epmd.port, cookie)
    ping, export, nodes, _run = (
        commands.replace("beam@127.0.0.1", beam.name).replace("dist.conf", str(path)).splitlines()
    )
    done = await command(*ping.split()[1:])
    assert (done.status, done.out, done.err) == (0, "pong\n", "")
    name, _, value = export.removeprefix("export ").partition("=")
    done = await command(*nodes.split()[1:], **{name: value})
    assert (done.status, done.out, done.err) == (0, "", "")


async def test_run(command: Command, authority: Authority, beam: Beam) -> None:
    """It dials, and is dialled again after it was told to go."""
    path = optfile(authority.folder / "run.conf", authority.options())
    service = f"tls_service_{beam.release}@127.0.0.1"
    words = ("run", "--name", service, "--connect", beam.name, "--tls-optfile", str(path))
    async with command.started(*words) as running:
        await running.err.until("running")
        assert await is_among_nodes(beam, service, "hidden")
        await beam.eval(f"erlang:disconnect_node('{service}')")
        await running.err.until("node down")
        await beam.eval(f"polling:until(fun() -> net_kernel:connect_node('{service}') end, 5000)")
        await running.err.until("node up")
        assert (await running.signal(signal.SIGTERM)).status == ExitStatus.DONE


async def test_without_the_option(command: Command, beam: Beam) -> None:
    done = await command("ping", beam.name)
    assert done.status == ExitStatus.REFUSED
    assert "it speaks TLS (-proto_dist inet_tls) and this node does not: give --tls-optfile, or start" in done.err


async def test_options_that_cannot_be_used(command: Command, beam: Beam, tmp_path: Path) -> None:
    path = tmp_path / "wrong.conf"
    path.write_text('[{server, [{cert_file, "x"}]}, {client, []}].')
    for done in (
        await command("ping", beam.name, "--tls-optfile", str(path)),
        await command("ping", beam.name, ZENMON_TLS_OPTFILE=str(path)),
        await command("run", "--name", "never@127.0.0.1", "--tls-optfile", str(path)),
    ):
        assert done.status == ExitStatus.USAGE
        assert f"{path}: server: there is no option cert_file; there are cacertfile, certfile" in done.err
    done = await command("ping", beam.name, "--tls-optfile", str(tmp_path / "gone.conf"))
    assert done.status == ExitStatus.USAGE
    assert "gone.conf: cannot be read: No such file or directory" in done.err


async def test_a_certificate_that_is_refused(command: Command, beam: Beam, authority: Authority) -> None:
    stranger = Authority(authority.folder)
    path = optfile(authority.folder / "stranger.conf", stranger.options())
    done = await command("ping", beam.name, "--tls-optfile", str(path))
    assert done.status == ExitStatus.REFUSED
    assert f"the certificate of {beam.name} is not signed by a CA of cacertfile {stranger.file}" in done.err
