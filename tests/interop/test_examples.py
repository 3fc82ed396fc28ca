"""The examples do what their first lines say."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from erlang_interop import Atom
from tests.command import Command, Finished
from tests.conftest import PROJECT

if TYPE_CHECKING:
    from erlang_interop.testing.beam import Beam, Epmd
    from tests.conftest import BeamFactory

EXAMPLES = PROJECT / "examples"


@pytest.fixture
def example(tmp_path: Path, epmd: Epmd, cookie: str) -> Command:
    """Runs ``python examples/<name>``; their node names are the same for all OTPs, each of which has its own EPMD."""
    return Command(tmp_path, epmd.port, cookie, program=(sys.executable,))


def path(name: str) -> str:
    (found,) = EXAMPLES.glob(f"{name}*.py")
    return os.fspath(found)


def expect(done: Finished, *lines: str) -> None:
    """It ended well, said nothing on standard error, and printed these lines, each a pattern, among others."""
    assert (done.status, done.err) == (0, "")
    for line in lines:
        assert re.search(f"^{line}$", done.out, re.MULTILINE), f"no line {line!r} in\n{done.out}"


async def test_01_ping(example: Command, beam: Beam) -> None:
    done = await example(path("01"), beam.name)
    expect(
        done,
        "pong",
        rf"{beam.name}: up, visible, at 127\.0\.0\.1:\d+, \d+ messages in",
        "agreed on .*FRAGMENTS.*",
        "NoSuchNode: EPMD on .* knows no node 'nobody'.*",
    )


async def test_02_send(example: Command, beam: Beam) -> None:
    await beam.eval("collector:start(shell).")
    done = await example(path("02"), beam.name)
    expect(done, rf"sent to <{beam.name}\.\d+\.\d+>")
    got = await beam.eval("M = collector:take(shell, 2, 20000), collector:stop(shell), M.")
    assert (got[0][0], got[0][2]) == (Atom("hello"), b"from Python")
    assert got[0][1].node == Atom("example02@127.0.0.1")
    assert got[1] == (Atom("every_kind"), [42, 2.5, True, None], {Atom("key"): [*b"text"]})


async def test_03_receive(example: Command, beam: Beam) -> None:
    await beam.eval("collector:start(shell).")
    async with example.started(path("03"), beam.name) as running:
        await running.out.until("waiting for {urgent, Pid, Term}")
        await beam.eval(
            "Inbox = {inbox, 'example03@127.0.0.1'}, "
            "Inbox ! {task, 1}, Inbox ! {task, 2}, Inbox ! {urgent, whereis(shell), now}, Inbox ! {what, now}."
        )
        done = await running.end()
    expect(done, "urgent: now", "task 1", "task 2", "not understood: {what,now}", "nothing more came")
    got = await beam.eval("M = collector:take(shell, 1, 20000), collector:stop(shell), M.")
    assert [message[:2] for message in got] == [(Atom("done"), b"now")]


async def test_04_call_a_gen_server(example: Command, beam: Beam) -> None:
    done = await example(path("04"), beam.name)
    expect(
        done,
        r"rex: worker <.*>",
        r"lists:sum\(\[1,2,3\]\) is 6",
        "NoProcess: nobody_has_this_name on .*",
        r"CallTimeout: .*0\.2 s.*",
        "NodeDownError: .*nobody@127.0.0.1.*",
        "BadRpc: .*erlang:hd/1.*badarg.*",
    )


async def test_05_be_a_gen_server(example: Command, beam: Beam) -> None:
    async with example.started(path("05"), beam.name) as running:
        await running.out.until("serving as")
        results = await beam.eval(
            "Counter = {counter, 'example05@127.0.0.1'}, "
            "Call = fun(Request) -> gen_server:call(Counter, Request, 20000) end, "
            "[Call({add, 5}), gen_server:cast(Counter, {add, 10}), Call(get), Call(slow), Call(stop)]."
        )
        assert results == [5, Atom("ok"), 15, 15, 15]
        expect(await running.end(), "added 5: 5", "added 10: 15", "the counter has ended: normal")


async def test_06_links_and_monitors(example: Command, beam: Beam) -> None:
    done = await example(path("06"), beam.name)
    expect(
        done,
        f"nodeup: {beam.name}",
        rf"DOWN: killed, of <{beam.name}\.\d+\.\d+>",
        rf"DOWN: noproc, of {{nobody_has_this_name,'{beam.name}'}}",
        r"EXIT: {bye,42}, of <.*>",
        "EXIT of the worker, with its partner: killed",
        "DOWN: noconnection, since the connection is gone",
        f"nodedown: {beam.name}",
    )


async def test_07_spawned_from_erlang(example: Command, beam: Beam) -> None:
    await beam.eval("collector:start(shell).")
    async with example.started(path("07"), beam.name) as running:
        for line in (" says hello", "and has ended: normal", "waiting to be spawned"):
            await running.out.until(line)
        source = "collector:run(shell, erlang, spawn_monitor, ['example07@127.0.0.1', M, F, A])"
        pids = []
        for module, function, arguments in (
            ("python", "greet", [b"world"]),
            ("python", "square_root", [await beam.eval("whereis(shell)"), 2]),
            ("python", "square_root", [await beam.eval("whereis(shell)"), -1]),
            ("os", "getpid", []),
        ):
            pid, _ = await beam.eval(source, M=Atom(module), F=Atom(function), A=arguments)
            pids.append(pid)
        got = await beam.eval("M = collector:take(shell, 5, 20000), collector:stop(shell), M.")
        await beam.eval("spawn('example07@127.0.0.1', python, stop, []).")
        done = await running.end()
    assert done.status == 0
    roots = [message[1] for message in got if message[0] == Atom("root")]
    reasons = {message[3]: message[4] for message in got if message[0] == Atom("DOWN")}
    assert roots == [2**0.5]
    assert [reasons[pid] for pid in pids[:2]] == [Atom("normal")] * 2
    assert reasons[pids[2]][0] == Atom("ValueError")
    assert reasons[pids[3]] == (Atom("undef"), [(Atom("os"), Atom("getpid"), [], [])])
    for line in ("hello, world", r"square_root\(2\) runs as <.*>", "stopped"):
        assert re.search(f"^{line}$", done.out, re.MULTILINE), done.out


async def test_08_zenmon_pair_with_a_beam(example: Command, beam: Beam) -> None:
    await beam.eval("zen_proxy:start().")
    done = await example(path("08"), beam.name)
    await beam.eval("zen_proxy:stop().")
    expect_the_pair(done, beam.name)


async def test_08_zenmon_pair_of_python_nodes(example: Command) -> None:
    expect_the_pair(await example(path("08")), "example08_right@127.0.0.1")


async def test_09_process_groups(example: Command, beam: Beam) -> None:
    await beam.eval("collector:start(shell), pg:start(pg), collector:run(shell, pg, join, [workers, whereis(shell)]).")
    async with example.started(path("09"), beam.name) as running:
        for member in ("example09@127.0.0.1", beam.name):  # in this order: we join before we connect
            await running.out.until(f"joined: <{member}.")
        work = "[P ! {work, N} || {N, P} <- lists:enumerate(pg:get_members(workers) -- [whereis(shell)])]"
        source = f"polling:until(fun() -> length(pg:get_members(workers)) =:= 2 end, 20000), length({work})"
        assert await beam.eval(source) == 1
        await running.out.until("work 1")
        await beam.eval("collector:run(shell, pg, leave, [workers, whereis(shell)])")
        done = await running.end()
    await beam.eval("collector:stop(shell), gen_server:stop(pg).")
    ours = r"<example09@127\.0\.0\.1\.\d+\.\d+>"
    expect(done, rf"left: <{beam.name}\.\d+\.\d+>", f"members now: {ours}")


async def test_10_rpc(example: Command, beam: Beam) -> None:
    async with example.started(path("10"), beam.name) as running:
        for line in (
            "lists:sum([1,2,3]) is 6",
            "RemoteError: erlang:hd/1 failed on",
            "caught ball",
            "CallTimeout: timer:sleep/1",
            "roots: [2.0, 3.0, 4.0]",
            "waiting to be called",
        ):
            await running.out.until(line)
        mean, sum_, undef, error = await beam.eval(
            "Py = 'example10@127.0.0.1', [rpc:call(Py, python, mean, [[1, 2, 6]]), "
            "rpc:call(Py, python, slow_sum, [[1, 2, 3]]), rpc:call(Py, os, getpid, []), "
            "try erpc:call(Py, python, mean, [[]]) catch error:{exception, {Name, _}, _} -> Name end]."
        )
        assert (mean, sum_, error) == (3.0, 6, Atom("StatisticsError"))
        assert undef[1][1][0] == Atom("undef")
        await beam.eval("rpc:cast('example10@127.0.0.1', python, stop, []).")
        done = await running.end()
    assert done.status == 0
    for line in (r"mean of \[1, 2, 6\]", r"sum of \[1, 2, 3\]", "stopped"):
        assert re.search(f"^{line}$", done.out, re.MULTILINE), done.out


async def test_11_global_names(example: Command, beam: Beam) -> None:
    async with example.started(path("11"), beam.name) as running:
        await running.out.until("py_counter is <example11@127")
        await running.out.until("GlobalNameTaken: ")
        assert (await beam.eval("global:send(py_counter, {add, 40}).")).node == Atom("example11@127.0.0.1")
        await running.out.until("total 40")
        await beam.eval("global:trans({py_total, self()}, fun() -> global:send(py_counter, {add, 2}) end).")
        await running.out.until("total 42")
        await beam.eval("global:send(py_counter, stop).")
        done = await running.end()
    expect(done, "stopped")
    gone = "polling:until(fun() -> global:whereis_name(py_counter) =:= undefined end, 20000)."
    assert await beam.eval(gone) is True


async def test_12_syn(example: Command, beam: Beam) -> None:
    syn = "Syn = fixture_syn_driver:api(), Until = fun(IsSo) -> true = polling:until(IsSo, 20000) end, "
    await beam.eval("fixture_syn_driver:start(), fixture_syn_driver:add_scope(users).")
    try:
        async with example.started(path("12"), beam.name) as running:
            await running.out.until("greeter registered: <example12@")
            await running.out.until("greeters joined: <example12@")
            pid, meta = await beam.eval(
                syn + "Until(fun() -> Syn:lookup(users, greeter) =/= undefined end), Syn:lookup(users, greeter)."
            )
            assert (pid.node, meta) == (Atom("example12@127.0.0.1"), {b"language": b"Python"})
            replies, bad = await beam.eval(
                syn + "Until(fun() -> Syn:member_count(users, greeters) =:= 1 end), "
                "Syn:multi_call(users, greeters, hello, 20000)."
            )
            assert (replies, bad) == ([((pid, Atom("undefined")), (Atom("hello"), Atom("from_python")))], [])
            await beam.eval(
                syn + "Shell = fixture_syn_driver:spawn_process(), "
                "ok = Syn:register(users, shell, Shell, #{version => 1}), ok = Syn:unregister(users, shell)."
            )
            done = await running.end()
    finally:
        await beam.eval("fixture_syn_driver:stop().")
    expect(
        done,
        rf"shell registered: <{beam.name}\.\d+\.\d+>, #{{version => 1}}",
        rf"shell unregistered: <{beam.name}\.\d+\.\d+>, normal",
        f"in the scope with: {beam.name}",
        "groups: greeters",
    )


async def test_13_member_of_global(example: Command, fresh_beam: BeamFactory) -> None:
    one, other = fresh_beam(), fresh_beam()
    assert await one.eval(f"net_kernel:connect_node('{other.name}').") is True
    assert await one.eval("global:sync().", timeout=30) == Atom("ok")
    async with example.started(path("13"), one.name) as running:
        line = await running.out.until("known: ")
        assert line.split()[-2:] == sorted([one.name, other.name])
        await running.out.until("registered")
        assert await other.eval("global:register_name(somebody, whereis(init)).", timeout=30) == Atom("yes")
        asked = "global:send(py_member, {who_is, somebody, self()}), receive Who -> Who =:= whereis(init) end."
        assert await other.eval(asked, timeout=30) is True
        await one.eval("global:send(py_member, leave).")
        done = await running.end()
    expect(done, rf"somebody is <{other.name}\.\d+\.\d+>", f"left: {' '.join(sorted([one.name, other.name]))}")


def expect_the_pair(done: Finished, peer: str) -> None:
    expect(done, f"{peer} is compatible", "the first to go: Down.*noproc.*", "reasons: {'killed': 1000}")
    batches = re.findall(r"^after (\d+\.\d) s: (\d+) DOWNs$", done.out, re.MULTILINE)
    # The example counts by tenths of a second, so a batch may be seen as two, and on a busy machine two as one.
    assert sum(int(count) for _, count in batches) == 1000
    assert float(batches[-1][0]) >= 0.6  # three intervals lie between four batches of 250


def test_every_example_is_tested_and_says_what_to_see() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    for example in EXAMPLES.glob("*.py"):
        assert f'path("{example.name[:2]}")' in source
        text = example.read_text(encoding="utf-8")
        assert "You will see" in text
        assert 30 <= len(text.splitlines()) <= 80
