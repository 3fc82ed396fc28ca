"""What becomes of a node whose own processes are ended; in ``interop/test_kernel_sup.py`` BEAMs do that."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from erlang_interop import Atom, Node, Pid, Process, SupervisorError
from erlang_interop.otp.supervisor import PERIOD, RESTARTS
from erlang_interop.testing.cluster import Network, open_cluster, settled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

KILL, KILLED = Atom("kill"), Atom("killed")
SIZES = ("processes", "names", "links")
NAMES = ("user", "net_kernel", "rex", "global_name_server")


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Node, Node]]:
    """Two full nodes that are connected."""
    async with open_cluster("a@test", "b@test", visible="full") as (a, b):
        await a.connect(b.name)
        for node in (a, b):
            await node.global_names.sync()
        await settled()
        yield a, b


def pid_of(node: Node, name: str) -> Pid:
    pid = node.whereis(name)
    assert pid is not None
    return pid


@pytest.mark.parametrize("name", NAMES)
async def test_who_is_killed_is_started_again(
    pair: tuple[Node, Node], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Under its name, with one line in the log; who monitors the old one, or is linked to it, hears its reason."""
    a, b = pair
    a.expose("py", {"add": lambda one, two: one + two})
    async with b.open_process() as me:
        me.trap_exit = True
        old, before = pid_of(a, name), a.statistics()
        ref = me.monitor(old)
        me.link(old)
        me.exit(old, KILL)
        with trio.fail_after(20):
            heard = [await me.receive() for _ in range(2)]
        exit_, down = sorted(heard, key=len)
        assert (exit_, down) == ((Atom("EXIT"), old, KILLED), (Atom("DOWN"), ref, Atom("process"), old, KILLED))
        assert pid_of(a, name) != old
        lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert [line for line in lines if "kernel_sup" in line] == [
            f"<InlineProcess {pid_of(a, 'kernel_sup')} kernel_sup>: "
            f"child Atom({name!r}) ended: killed (an exit signal of {me.pid})"
        ]
        assert await b.ping(a.name)
        assert await b.rpc_block_call(a.name, "py", "add", [1, 2]) == 3
        await b.global_names.register("me", me.pid)
        assert await a.global_names.whereis("me") == me.pid
        await settled()
        left = a.statistics()
        assert [left[table] for table in SIZES] == [before[table] for table in SIZES]


async def test_who_crashes_is_started_again(pair: tuple[Node, Node], caplog: pytest.LogCaptureFixture) -> None:
    a, _ = pair
    old = pid_of(a, "rex")
    a.exit(old, (Atom("bad"), "luck"))
    assert pid_of(a, "rex") != old
    assert "child Atom('rex') ended: {bad,<<\"luck\">>}" in caplog.text


async def test_the_new_user_prints_for_the_processes_of_the_old_one() -> None:
    printed: list[str] = []

    async def print_when_told(process: Process) -> None:
        await process.receive()
        leader = process.group_leader
        assert leader is not None
        process.send(leader, (Atom("io_request"), process.pid, 1, (Atom("put_chars"), Atom("unicode"), b"here")))
        await process.receive()

    async def its_own_leader(process: Process) -> None:
        process.group_leader = process.pid
        await trio.sleep_forever()

    async with open_cluster("a@test", output=printed.append) as (a,), a.open_process() as me:
        other = a.spawn(its_own_leader)
        pid = a.spawn(print_when_told)
        await settled()
        a.exit(pid_of(a, "user"), KILL)
        assert a.default_group_leader == a.whereis("user")
        assert a.processes[other].group_leader == other
        me.monitor(pid)
        me.send(pid, 1)
        with trio.fail_after(20):
            await me.receive()
    assert printed == ["here"]


async def test_a_few_deaths_now_and_then_are_no_reason_to_end(autojump_clock: MockClock) -> None:
    async with open_cluster("a@test") as (a,):
        for _ in range(3):
            for _ in range(RESTARTS):
                a.exit(pid_of(a, "rex"), KILL)
            await trio.sleep(PERIOD + 1)
        assert a.whereis("rex") is not None


async def test_the_node_ends_when_they_end_again_and_again(caplog: pytest.LogCaptureFixture) -> None:
    cancelled = False
    with pytest.raises(SupervisorError, match="the node a@test ends, since its own processes have"):
        async with open_cluster("a@test") as (a,):
            for _ in range(RESTARTS):
                a.exit(pid_of(a, "rex"), KILL)
            a.exit(pid_of(a, "net_kernel"), KILL)
            assert a.registered() == []
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                cancelled = True
                raise
    assert cancelled
    assert f"more than {RESTARTS} restarts in {PERIOD} s; it ends" in caplog.text


@pytest.mark.parametrize("reason", ["kill", "shutdown"])
async def test_who_ends_kernel_sup_ends_the_node(reason: str, caplog: pytest.LogCaptureFixture) -> None:
    """Only ``kill`` does: it drops other exit signals of strangers."""
    network = Network()
    async with open_cluster("b@test", network=network) as (b,), b.open_process() as me:
        try:
            async with open_cluster("a@test", network=network) as (a,):
                me.monitor(("kernel_sup", "a@test"))
                me.exit(pid_of(a, "kernel_sup"), Atom(reason))
                assert await b.ping(a.name) is (reason != "kill")
                if reason == "kill":
                    await trio.sleep_forever()
        except SupervisorError:
            assert reason == "kill"
            assert f"ended, and its children with it: killed (an exit signal of {me.pid})" in caplog.text
        with trio.fail_after(20):
            down = await me.receive()
        assert down[4] == (KILLED if reason == "kill" else Atom("shutdown"))


async def test_an_error_of_the_block_goes_before() -> None:
    with pytest.raises(ValueError, match="mine"):
        async with open_cluster("a@test") as (a,):
            a.exit(pid_of(a, "kernel_sup"), KILL)
            raise ValueError("mine")


@pytest.mark.parametrize("how", ["left", "cancelled"])
async def test_a_node_that_ends_starts_nothing_again(how: str, caplog: pytest.LogCaptureFixture) -> None:
    """Also if it is cancelled from outside, when its tasks end before it does."""
    with trio.CancelScope() as scope:
        async with open_cluster("a@test", "b@test", visible="full") as (a, b):
            await a.connect(b.name)
            if how == "cancelled":
                scope.cancel()
                await trio.sleep_forever()
    assert scope.cancelled_caught is (how == "cancelled")
    assert [record.getMessage() for record in caplog.records if record.levelname != "INFO"] == []
