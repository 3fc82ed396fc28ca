"""What can be written on the command line, and what is refused before anything is tried."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from zenmon_node.build import describe_build
from zenmon_node.cli import ExitStatus, main

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nonsense"], "nonsense"),
        (["ping"], "NODE"),
        (["ping", "beam"], "name@host"),
        (["ping", "beam@127.0.0.1", "--timeout", "soon"], "--timeout"),
        (["ping", "beam@127.0.0.1", "--cookie", "secret"], "--cookie"),
        (["ping", "beam@127.0.0.1", "--cookie-file", "/nonexistent"], "/nonexistent"),
        (["monitor"], "TARGET"),
        (["monitor", "worker"], "worker@beam@127.0.0.1"),
        (["monitor", "--targets", "/nonexistent"], "/nonexistent cannot be read"),
        (["monitor", "--targets", "/dev/null"], "/dev/null has none"),
        (["send", "worker@beam@127.0.0.1", "{"], "no Erlang term"),
        (["call", "beam@127.0.0.1", "lists", "sum", "[1,"], "no Erlang term"),
        (["call", "beam@127.0.0.1", "lists"], "FUNCTION"),
        (["call", "beam@127.0.0.1", "lists", "sum", "--timeuot", "3"], "--timeuot"),
        (["ping", "beam@127.0.0.1", "--address", "127.0.0.1"], "'127.0.0.1' is no address"),
        (["ping", "beam@127.0.0.1", "--address", "127.0.0.1:x"], "is no address"),
        (["monitor", "a@one@h", "a@two@h", "--address", "h:1"], "where one node listens, and these are 2"),
        (["epmd", "--port", "many"], "--port"),
        (["syn", "members", "users", "room"], "--connect beam@127.0.0.1"),
        (["syn", "lookup", "users", "{", "--connect", "beam@127.0.0.1"], "no Erlang term"),
        (["syn", "lookup", "users", "alice", "--connect", "beam"], "name@host"),
        (["syn", "watch"], "SCOPE"),
        (["syn", "leave", "users"], "leave"),
        (["run"], "--name"),
        (["run", "--name", "nohost"], "name@host"),
        (["run", "--name", "py@127.0.0.1", "--config", "/nonexistent.toml"], "/nonexistent.toml"),
    ],
)
def test_usage(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZENMON_COOKIE", "secret")
    assert main(words) is ExitStatus.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.startswith("zenmon-node: ")
    assert err.count("\n") == 1


def test_a_secret_is_not_taken_from_the_command_line_nor_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ping", "beam@127.0.0.1", "--cookie", "geheim"]) is ExitStatus.USAGE
    assert "geheim" not in capsys.readouterr().err


def test_settings_are_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "zenmon.toml"
    config.write_text("[zen_monitor]\ndemand_interavl = 5\n")
    assert main(["run", "--name", "py@127.0.0.1", "--config", str(config)]) is ExitStatus.USAGE
    assert "did you mean demand_interval" in capsys.readouterr().err


def test_help_names_every_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")  # whatever terminal this runs on
    assert main(["--help"]) is ExitStatus.DONE
    out = capsys.readouterr().out
    for command in ("run", "demo", "monitor", "ping", "names", "nodes", "send", "call", "epmd", "syn"):
        assert f"│ {command} " in out


@pytest.mark.parametrize("command", ["monitor", "send"])
def test_help_shows_how_a_pid_is_written(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")  # lest it is cut in two
    assert main([command, "--help"]) is ExitStatus.DONE
    assert "'<beam@127.0.0.1.85.0>'" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["syn"]])
def test_nothing_asked_for_is_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) is ExitStatus.USAGE
    assert "Commands" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) is ExitStatus.DONE
    assert capsys.readouterr().out.startswith("zenmon-node ")
    assert main(["--version"]) is ExitStatus.DONE
    assert capsys.readouterr().out.endswith(f" ({describe_build()})\n")


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("zenmon_node.cli.commands.epmd_names", broken)
    with pytest.raises(ZeroDivisionError):
        main(["names"])
