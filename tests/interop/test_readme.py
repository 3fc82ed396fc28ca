"""The README and the pages of ``docs/`` are true: their first program runs, their links and commands exist."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import pytest

from tests.command import Command
from tests.conftest import PROJECT
from zenmon_node.cli import main

if TYPE_CHECKING:
    from pathlib import Path

    from erlang_interop.testing.beam import Beam, Epmd

README = PROJECT / "README.md"
PAGES = [README, PROJECT / "CHANGELOG.md", *sorted((PROJECT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


async def test_the_first_program(beam: Beam, epmd: Epmd, cookie: str, tmp_path: Path) -> None:
    program = blocks(README, "python")[0]
    assert len(program.splitlines()) <= 15
    for what, instead in (('"secret"', f'"{cookie}"'), ("beam@127.0.0.1", beam.name)):
        assert what in program
        program = program.replace(what, instead)
    await beam.eval(
        "Main = self(), spawn(fun() -> register(shell, self()), Main ! ready,"
        " receive {hello, Pid} -> Pid ! {hi, node()} end end), receive ready -> ok end."
    )
    python = Command(tmp_path, epmd.port, None, program=(sys.executable,))
    done = await python("-c", program)
    assert (done.status, done.out, done.err) == (0, f"(Atom('hi'), Atom('{beam.name}'))\n", "")
    assert await beam.eval("plain_processes:await_gone(shell, 20000).") is True  # others take this name too


async def test_the_programs_of_the_quickstart(beam: Beam, epmd: Epmd, cookie: str, tmp_path: Path) -> None:
    """They are shown in order, and each runs as it stands."""
    python = Command(tmp_path, epmd.port, cookie, program=(sys.executable,))
    await beam.eval("collector:start(shell).")
    programs = blocks(PROJECT / "docs" / "quickstart.md", "python")
    assert len(programs) >= 3
    for program in programs:
        done = await python("-c", program.replace("beam@127.0.0.1", beam.name))
        assert (done.status, done.err) == (0, ""), program
        for line in re.findall(r"# prints (.*)$", program, re.MULTILINE):
            assert line.replace("beam@127.0.0.1", beam.name) in done.out
    messages = await beam.eval("M = collector:take(shell, 1, 20000), collector:stop(shell), M.")
    assert len(messages) == 1


async def test_the_programs_about_node_events(beam: Beam, epmd: Epmd, cookie: str, tmp_path: Path) -> None:
    python = Command(tmp_path, epmd.port, cookie, program=(sys.executable,))
    programs = blocks(PROJECT / "docs" / "node-events.md", "python")
    assert len(programs) == 2
    for program in programs:
        done = await python("-c", program.replace("beam@127.0.0.1", beam.name))
        assert (done.status, done.err) == (0, ""), program
        lines = re.findall(r"# prints (.*)$", program, re.MULTILINE)
        assert done.out.splitlines() == [line.replace("beam@127.0.0.1", beam.name) for line in lines]


async def test_the_programs_about_processes(beam: Beam, epmd: Epmd, cookie: str, tmp_path: Path) -> None:
    python = Command(tmp_path, epmd.port, cookie, program=(sys.executable,))
    programs = blocks(PROJECT / "docs" / "processes.md", "python")
    assert len(programs) == 3
    for program in programs:
        done = await python("-c", program.replace("beam@127.0.0.1", beam.name))
        assert (done.status, done.err) == (0, ""), program
        assert sorted(done.out.splitlines()) == sorted(re.findall(r"# prints (.*)$", program, re.MULTILINE))


async def test_the_programs_about_rpc(beam: Beam, epmd: Epmd, cookie: str, tmp_path: Path) -> None:
    python = Command(tmp_path, epmd.port, cookie, program=(sys.executable,))
    program, requests = blocks(PROJECT / "docs" / "rpc.md", "python")[:2]
    done = await python("-c", program.replace("beam@127.0.0.1", beam.name))
    assert (done.status, done.err) == (0, "")
    six, bad_rpc, remote_error = done.out.splitlines()
    assert six == "6"
    assert "badarg" in bad_rpc
    assert "badarg" in remote_error
    done = await python("-c", requests.replace("beam@127.0.0.1", beam.name))
    assert (done.status, done.err) == (0, "")
    assert sorted(done.out.splitlines()) == sorted(re.findall(r"# prints (.*)$", requests, re.MULTILINE))


async def test_the_program_about_syn(beam: Beam, epmd: Epmd, cookie: str, tmp_path: Path) -> None:
    python = Command(tmp_path, epmd.port, cookie, program=(sys.executable,))
    program = blocks(PROJECT / "docs" / "syn.md", "python")[0]
    done = await python("-c", program.replace("beam@127.0.0.1", beam.name))
    assert (done.status, done.err) == (0, "")
    assert sorted(done.out.splitlines()) == sorted(re.findall(r"# prints (.*)$", program, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each ``zenmon-node COMMAND --option`` in a page's blocks is one that the program has."""
    for block in blocks(page, ""):
        for line in re.findall(r"^(?:\$ )?zenmon-node ([a-z]+)(.*)$", block, re.MULTILINE):
            assert main([line[0], "--help"]) == 0, line
            shown = capsys.readouterr().out
            for option in re.findall(r"(--[a-z-]+)", line[1]):
                assert option in shown, line
