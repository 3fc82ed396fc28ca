"""The BEAM launcher itself: what the other interop tests stand on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from erlang_interop.terms import Atom, Pid
from erlang_interop.testing.beam import Beam, BeamDiedError, BeamError, Epmd, find_erlang

if TYPE_CHECKING:
    from tests.conftest import BeamFactory, Otp


async def test_runs_the_otp_asked_for(beam: Beam, otp: Otp) -> None:
    assert beam.release == otp.release
    assert await beam.eval("list_to_integer(erlang:system_info(otp_release))") == otp.release
    assert await beam.eval("node()") == Atom(beam.name)
    assert await beam.eval("erlang:is_alive()") is True


async def test_fixture_modules_are_on_the_path(beam: Beam) -> None:
    assert await beam.eval("code:ensure_loaded(calculator)") == (Atom("module"), Atom("calculator"))


async def test_bindings_go_in_as_terms(beam: Beam) -> None:
    pid = await beam.eval("self()")
    assert isinstance(pid, Pid)
    assert await beam.eval("{X + 1, is_pid(Pid), node(Pid)}.", X=41, Pid=pid) == (42, True, Atom(beam.name))


@pytest.mark.parametrize(
    ("source", "kind", "reason"),
    [
        ("1 / 0", "error", Atom("badarith")),
        ("throw(thrown)", "throw", Atom("thrown")),
        ("exit(self(), kill), receive never -> ok end", "signal", Atom("killed")),
        ("exit(leaving)", "exit", Atom("leaving")),
    ],
)
async def test_failure_carries_the_erlang_reason(beam: Beam, source: str, kind: str, reason: Atom) -> None:
    with pytest.raises(BeamError, match=kind) as caught:
        await beam.eval(source)
    assert caught.value.kind == kind
    assert caught.value.reason == reason


async def test_syntax_error_says_what_is_wrong(beam: Beam) -> None:
    with pytest.raises(BeamError, match=r"syntax error before: '\)'"):
        await beam.eval("foo(1,).")


async def test_evaluations_run_side_by_side(beam: Beam) -> None:
    """The first waits for the last: in a queue it would wait for ever."""
    answers: list[object] = []

    async def wait() -> None:
        source = "register(launcher_waits, self()), receive Message -> Message after 20000 -> nobody_came end"
        answers.append(await beam.eval(source))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await beam.eval(
            "fun Send(0) -> exit(not_registered);"
            "    Send(N) -> try launcher_waits ! released catch error:badarg -> timer:sleep(1), Send(N - 1) end "
            "end(10000)"
        )
    assert answers == [Atom("released")]


async def test_four_megabytes_there_and_back(beam: Beam) -> None:
    data = bytes(range(256)) * 16384
    assert await beam.eval("{byte_size(Data), Data}", Data=data) == (len(data), data)


async def test_suspended_beam_does_not_answer_until_resumed(fresh_beam: BeamFactory) -> None:
    beam = fresh_beam()
    beam.suspend()
    with pytest.raises(BeamDiedError, match=r"did not answer '1' within 0\.2 s"):
        await beam.eval("1", timeout=0.2)
    beam.resume()
    assert await beam.eval("2") == 2


async def test_killed_beam_fails_who_waits_and_who_comes_later(fresh_beam: BeamFactory) -> None:
    beam = fresh_beam()

    async def wait() -> None:
        with pytest.raises(BeamDiedError, match="exit status -9"):
            await beam.eval("receive never -> ok end")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        beam.kill()
    with pytest.raises(BeamDiedError, match="is gone"):
        await beam.eval("1")


def test_boot_failure_shows_the_log(otp: Otp, epmd: Epmd) -> None:
    with pytest.raises(BeamDiedError, match="nodistribution"):
        Beam.start(otp.root, "no_host_in_this_name", "cookie", epmd.port)


def test_boot_fails_without_epmd(otp: Otp) -> None:
    with pytest.raises(BeamDiedError, match=r"register/listen error: econnrefused"):
        Beam.start(otp.root, "lonely@127.0.0.1", "cookie", 1)


def test_epmd_says_that_its_port_is_taken(otp: Otp, epmd: Epmd) -> None:
    with pytest.raises(BeamDiedError, match=f"does not listen on port {epmd.port}"):
        Epmd.start(otp.root, port=epmd.port)


def test_two_beams_find_each_other(beam: Beam, fresh_beam: BeamFactory) -> None:
    other = fresh_beam(hidden=True)
    assert other.eval_sync("net_adm:ping(Name)", Name=Atom(beam.name)) == Atom("pong")
    assert beam.eval_sync("lists:member(Name, nodes(hidden))", Name=Atom(other.name)) is True


def test_an_erlang_is_found(otp: Otp) -> None:
    found = find_erlang()
    assert found is not None
    assert (found / "bin" / "erl").exists()
