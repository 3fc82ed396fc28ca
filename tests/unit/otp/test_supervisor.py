from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from erlang_interop import (
    Atom,
    ChildSpec,
    Exit,
    GenServer,
    InlineServer,
    Node,
    Process,
    Supervisor,
    SupervisorError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from erlang_interop import Pid, Term

KILL, KILLED, NORMAL, SHUTDOWN = Atom("kill"), Atom("killed"), Atom("normal"), Atom("shutdown")


class Log(list[str]):
    """What children say of themselves, in order."""

    def take(self) -> list[str]:
        said = self[:]
        self.clear()
        return said


class Worker(InlineServer):
    """An inline child: says when it starts and ends."""

    def __init__(self, name: str, log: Log) -> None:
        self.name, self.log = name, log

    def started(self) -> None:
        self.log.append(f"+{self.name}")

    def handle_message(self, message: Term) -> None:
        if message == "crash":
            raise ValueError(self.name)
        raise Exit(message)

    def terminated(self, reason: Term) -> None:
        self.log.append(f"-{self.name}")


class Stubborn(GenServer):
    """A child that traps exits: it ends when it is ready to, or never."""

    def init(self, name: str, log: Log, obedient: bool) -> None:
        self.name, self.log, self.obedient = name, log, obedient
        self.process.trap_exit = True
        log.append(f"+{name}")

    def handle_info(self, message: Term) -> None:
        self.log.append(f"{self.name} asked")
        if self.obedient:
            raise Exit(SHUTDOWN)

    def terminate(self, reason: Term) -> None:
        self.log.append(f"-{self.name}")


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def worker(one_node: Node, log: Log) -> Callable[..., ChildSpec]:
    """A child spec of a :class:`Worker` that is registered under its name."""

    def make(name: str, **options: Any) -> ChildSpec:
        return ChildSpec(name, lambda: one_node.start_inline(Worker(name, log), name=name), **options)

    return make


def start(node: Node, *specs: ChildSpec, **options: Any) -> Supervisor:
    supervisor = Supervisor(specs, **options)
    node.start_inline(supervisor, name="sup")
    return supervisor


def pids(supervisor: Supervisor) -> dict[Term, Pid | None]:
    return {child.id: child.pid for child in supervisor.which_children()}


async def test_children_start_in_order_and_stop_in_reverse(
    one_node: Node, worker: Callable[..., ChildSpec], log: Log
) -> None:
    supervisor = start(one_node, worker("a"), worker("b"), worker("c"))
    assert log.take() == ["+a", "+b", "+c"]
    assert pids(supervisor) == {name: one_node.whereis(name) for name in "abc"}
    assert set(supervisor.process.links) == set(pids(supervisor).values())
    supervisor.stop()
    assert await supervisor.wait_stopped() == SHUTDOWN
    assert log.take() == ["-c", "-b", "-a"]
    assert one_node.registered() == [Atom(name) for name in ("kernel_sup", "user", "net_kernel", "rex")]
    supervisor.stop()  # nothing happens


@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        ("one_for_one", ["-b", "+b"]),
        ("one_for_all", ["-b", "-c", "-a", "+a", "+b", "+c"]),
        ("rest_for_one", ["-b", "-c", "+b", "+c"]),
    ],
)
@pytest.mark.parametrize("death", ["a message", "exit/2", "kill"])
async def test_strategies(
    one_node: Node, worker: Callable[..., ChildSpec], log: Log, strategy: str, said: list[str], death: str
) -> None:
    supervisor = start(one_node, worker("a"), worker("b"), worker("c"), strategy=strategy)
    log.clear()
    before = pids(supervisor)
    assert before["b"] is not None
    if death == "a message":
        one_node.send("b", "crash")
    else:
        one_node.exit(before["b"], KILL if death == "kill" else "enough")
    assert log.take() == said
    after = pids(supervisor)
    assert list(after) == ["a", "b", "c"]
    assert {name for name in "abc" if before[name] != after[name]} == {line[1] for line in said}
    assert after == {name: one_node.whereis(name) for name in "abc"}


@pytest.mark.parametrize(
    ("restart", "reason", "restarted"),
    [
        ("permanent", NORMAL, True),
        ("permanent", "crash", True),
        ("transient", NORMAL, False),
        ("transient", SHUTDOWN, False),
        ("transient", (SHUTDOWN, 1), False),
        ("transient", "crash", True),
        ("transient", Atom("kill"), True),
        ("temporary", NORMAL, False),
        ("temporary", "crash", False),
    ],
)
async def test_restart_types(
    one_node: Node, worker: Callable[..., ChildSpec], log: Log, restart: str, reason: Term, restarted: bool
) -> None:
    supervisor = start(one_node, worker("a", restart=restart), worker("z"))
    log.clear()
    one_node.send("a", reason)
    assert log.take() == (["-a", "+a"] if restarted else ["-a"])
    if restart == "temporary":
        assert list(pids(supervisor)) == ["z"]
    else:
        assert pids(supervisor)["a"] == one_node.whereis("a")
        assert (pids(supervisor)["a"] is None) is not restarted


async def test_temporary_children_go_with_their_group_and_stay_away(
    one_node: Node, worker: Callable[..., ChildSpec], log: Log
) -> None:
    supervisor = start(one_node, worker("a"), worker("t", restart="temporary"), strategy="one_for_all")
    log.clear()
    one_node.send("a", "crash")
    assert log.take() == ["-a", "-t", "+a"]
    assert list(pids(supervisor)) == ["a"]


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
async def test_more_restarts_than_the_intensity_end_it(
    one_node: Node, worker: Callable[..., ChildSpec], log: Log, strategy: str
) -> None:
    supervisor = start(one_node, worker("a"), worker("b"), strategy=strategy, intensity=2, period=60.0)
    for _ in range(2):
        one_node.send("b", "crash")
    log.clear()
    one_node.send("b", "crash")
    assert await supervisor.wait_stopped() == SHUTDOWN
    assert log.take() == ["-b", "-a"]
    assert one_node.whereis("sup") is None


async def test_old_restarts_do_not_count(
    one_node: Node, worker: Callable[..., ChildSpec], mock_clock: trio.testing.MockClock
) -> None:
    supervisor = start(one_node, worker("a"), intensity=1, period=0.05)
    for _ in range(4):
        one_node.send("a", "crash")
        mock_clock.jump(0.06)
    assert supervisor.process.alive
    one_node.send("a", "crash")
    one_node.send("a", "crash")
    assert not supervisor.process.alive


async def test_a_start_that_fails_stops_those_before_it(
    one_node: Node, worker: Callable[..., ChildSpec], log: Log
) -> None:
    failure = RuntimeError("no")

    def fail() -> Pid:
        raise failure

    with pytest.raises(RuntimeError) as error:
        start(one_node, worker("a"), worker("b"), ChildSpec("c", fail), worker("d"))
    assert error.value is failure
    assert log.take() == ["+a", "+b", "-b", "-a"]
    assert one_node.whereis("sup") is None


async def test_a_restart_that_fails_is_tried_again_within_the_intensity(
    one_node: Node, worker: Callable[..., ChildSpec], log: Log
) -> None:
    failures = 0

    def fails_at_first() -> Pid:
        if 0 < len(attempts) <= failures:
            attempts.append(1)
            raise RuntimeError("not yet")
        attempts.append(1)
        return one_node.start_inline(Worker("x", log), name="x")

    attempts: list[int] = []
    supervisor = start(
        one_node, worker("a"), ChildSpec("x", fails_at_first), worker("b"), strategy="rest_for_one", intensity=5
    )
    log.clear()
    failures = 3
    one_node.send("x", "crash")
    assert log.take() == ["-x", "-b", "+x", "+b"]
    assert len(attempts) == 5
    failures = 1000
    one_node.send("x", "crash")
    assert await supervisor.wait_stopped() == SHUTDOWN
    assert log.take() == ["-x", "-b", "-a"]
    assert len(attempts) == 6  # the sixth restart is one too many


async def test_children_that_die_while_they_start(one_node: Node, log: Log) -> None:
    """Linked to the supervisor by their start, or not: one exit each, and no restart for a start that raised."""

    class Stillborn(InlineServer):
        def started(self) -> None:
            log.append("+s")
            raise Exit("no")

        def handle_message(self, message: Term) -> None:
            raise AssertionError(message)

    supervisor = start(one_node)
    pid = supervisor.process.pid
    for link_to in (None, pid):
        with pytest.raises(Exit):
            supervisor.start_child(ChildSpec("s", partial(one_node.start_inline, Stillborn(), link_to=link_to)))
    assert supervisor.process.alive
    assert pids(supervisor) == {}

    def dead_on_arrival(link_to: Pid | None) -> Pid:
        child = one_node.start_inline(Worker("d", log), link_to=link_to)
        one_node.exit(child, "gone")
        return child

    for link_to in (None, pid):
        supervisor.start_child(ChildSpec("d", partial(dead_on_arrival, link_to), restart="temporary"))
        await trio.testing.wait_all_tasks_blocked()
        assert supervisor.process.alive
        assert pids(supervisor).get("d") is None


async def test_a_child_that_traps_exits_is_waited_for(
    one_node: Node, worker: Callable[..., ChildSpec], log: Log
) -> None:
    stubborn = ChildSpec("s", lambda: Stubborn.start_nowait(one_node, "s", log, True))
    supervisor = start(one_node, worker("a"), stubborn, worker("b"), strategy="one_for_all")
    await trio.testing.wait_all_tasks_blocked()
    assert log.take() == ["+a", "+b", "+s"]
    one_node.send("b", "crash")
    assert log.take() == ["-b"]
    assert one_node.whereis("a") is not None  # its turn comes when s is gone
    await trio.testing.wait_all_tasks_blocked()
    assert log.take() == ["s asked", "-s", "-a", "+a", "+b", "+s"]
    supervisor.stop("over")
    assert await supervisor.wait_stopped() == "over"
    assert log.take() == ["-b", "s asked", "-s", "-a"]


async def test_other_exits_wait_until_a_group_is_restarted(
    one_node: Node, worker: Callable[..., ChildSpec], log: Log
) -> None:
    stubborn = ChildSpec("s", lambda: Stubborn.start_nowait(one_node, "s", log, True))
    supervisor = start(one_node, worker("a"), worker("b"), stubborn, strategy="rest_for_one", intensity=2)
    await trio.testing.wait_all_tasks_blocked()
    log.clear()
    one_node.send("b", "crash")  # s is told to end, and has not yet
    one_node.send("a", "crash")  # is not of that group
    assert log.take() == ["-b", "-a"]
    await trio.testing.wait_all_tasks_blocked()
    # First b's group is started again, then a's exit is dealt with, which takes the new s before it has begun.
    assert log.take() == ["s asked", "-s", "+b", "-b", "+a", "+b", "+s"]
    assert pids(supervisor) == {"a": one_node.whereis("a"), "b": one_node.whereis("b"), "s": pids(supervisor)["s"]}


async def test_a_failed_restart_waits_until_a_group_is_restarted(
    one_node: Node, worker: Callable[..., ChildSpec], log: Log
) -> None:
    failing = False

    def start_x() -> Pid:
        if failing:
            raise RuntimeError("not yet")
        return one_node.start_inline(Worker("x", log), name="x")

    stubborn = ChildSpec("s", lambda: Stubborn.start_nowait(one_node, "s", log, True))
    supervisor = start(one_node, worker("a"), stubborn, ChildSpec("x", start_x), strategy="rest_for_one", intensity=3)
    await trio.testing.wait_all_tasks_blocked()
    log.clear()

    class Killer(InlineServer):
        """Both exits reach the supervisor before it can try x a second time."""

        def handle_message(self, message: Term) -> None:
            for name in ("x", "a"):
                self.process.send(name, "crash")

    killer = one_node.start_inline(Killer())
    failing = True
    one_node.send(killer, "go")
    assert log.take() == ["-x", "-a"]
    failing = False
    await trio.testing.wait_all_tasks_blocked()
    assert log.take() == ["s asked", "-s", "+a", "+x", "+s"]
    assert pids(supervisor)["x"] == one_node.whereis("x")


@pytest.mark.parametrize("shutdown", [0.01, "brutal_kill"])
async def test_a_child_that_does_not_end_is_killed(
    one_node: Node, worker: Callable[..., ChildSpec], log: Log, mock_clock: trio.testing.MockClock, shutdown: Any
) -> None:
    stubborn = ChildSpec("s", lambda: Stubborn.start_nowait(one_node, "s", log, False), shutdown=shutdown)
    supervisor = start(one_node, worker("a"), stubborn)
    await trio.testing.wait_all_tasks_blocked()
    log.clear()
    async with one_node.open_process() as process:
        pid = supervisor.child_pid("s")
        assert pid is not None
        ref = process.monitor(pid)
        supervisor.stop()
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(1)
        assert await process.receive(timeout=30) == (Atom("DOWN"), ref, Atom("process"), pid, KILLED)
    await supervisor.wait_stopped()
    assert log.take() == (["-a"] if shutdown == "brutal_kill" else ["s asked", "-a"])


async def test_dynamic_children(one_node: Node, worker: Callable[..., ChildSpec], log: Log) -> None:
    supervisor = start(one_node, worker("a"))
    assert supervisor.start_child(worker("b")) == one_node.whereis("b") == supervisor.child_pid("b")
    with pytest.raises(SupervisorError, match="there is a child 'b'"):
        supervisor.start_child(worker("b"))
    with pytest.raises(SupervisorError, match="runs"):
        supervisor.delete_child("b")
    with pytest.raises(SupervisorError, match="runs"):
        supervisor.restart_child("b")
    with pytest.raises(SupervisorError, match="no child 'c'; there are: 'a', 'b'"):
        supervisor.terminate_child("c")
    log.clear()
    supervisor.terminate_child("b")
    assert log.take() == ["-b"]
    assert pids(supervisor)["b"] is None
    supervisor.terminate_child("b")
    assert supervisor.restart_child("b") == one_node.whereis("b")
    supervisor.terminate_child("b")
    supervisor.delete_child("b")
    assert list(pids(supervisor)) == ["a"]
    supervisor.start_child(worker("t", restart="temporary"))
    supervisor.terminate_child("t")
    assert list(pids(supervisor)) == ["a"]
    supervisor.stop()
    with pytest.raises(SupervisorError, match="has ended"):
        supervisor.start_child(worker("d"))
    with pytest.raises(SupervisorError, match="start_inline first"):
        Supervisor().start_child(worker("d"))


async def test_children_managed_from_within_a_handler(one_node: Node, worker: Callable[..., ChildSpec]) -> None:
    supervisor = start(one_node)

    class Manager(InlineServer):
        def handle_message(self, message: Term) -> None:
            for _ in range(3):
                supervisor.start_child(worker("w"))
                supervisor.terminate_child("w")
                supervisor.delete_child("w")
            supervisor.start_child(worker("w"))

    one_node.start_inline(Manager(), name="manager")
    one_node.send("manager", "go")
    assert pids(supervisor) == {"w": one_node.whereis("w")}
    assert one_node.whereis("manager") is not None
    assert one_node.whereis("w") is not None
    assert set(supervisor.process.links) == {one_node.whereis("w")}


async def test_a_child_that_is_terminated_while_its_group_waits_is_not_restarted(
    one_node: Node, worker: Callable[..., ChildSpec], log: Log
) -> None:
    stubborn = ChildSpec("s", lambda: Stubborn.start_nowait(one_node, "s", log, True))
    supervisor = start(one_node, worker("a"), stubborn, worker("b"), strategy="one_for_all")
    await trio.testing.wait_all_tasks_blocked()
    one_node.send("b", "crash")
    supervisor.terminate_child("b")
    supervisor.terminate_child("s")
    await trio.testing.wait_all_tasks_blocked()
    assert pids(supervisor) == {"a": one_node.whereis("a"), "s": None, "b": None}


async def waiting(process: Process) -> None:
    await process.receive()


async def test_it_ends_with_its_parent_and_takes_its_children_along(
    one_node: Node, worker: Callable[..., ChildSpec], log: Log
) -> None:
    parent = one_node.spawn(waiting)
    supervisor = Supervisor([worker("a"), worker("b")])
    one_node.start_inline(supervisor, link_to=parent)
    log.clear()
    one_node.exit(parent, "leave")
    assert await supervisor.wait_stopped() == "leave"
    assert log.take() == ["-b", "-a"]


async def test_exits_of_strangers_are_dropped(one_node: Node, worker: Callable[..., ChildSpec]) -> None:
    supervisor = start(one_node, worker("a"))
    async with one_node.open_process() as stranger:
        stranger.exit(supervisor.process.pid, "please")
        assert supervisor.process.alive
        stranger.exit(supervisor.process.pid, KILL)
    assert await supervisor.wait_stopped() == KILLED
    assert one_node.whereis("a") is None


async def test_supervisors_in_supervisors(one_node: Node, worker: Callable[..., ChildSpec], log: Log) -> None:
    inner: list[Supervisor] = []

    def start_inner() -> Pid:
        inner.append(Supervisor([worker("x"), worker("y")], intensity=1))
        return one_node.start_inline(inner[-1])

    outer = start(one_node, worker("a"), ChildSpec("inner", start_inner, shutdown="infinity", type="supervisor"))
    assert log.take() == ["+a", "+x", "+y"]
    for _ in range(2):
        one_node.send("y", "crash")
    # Twice is too often for the inner one: it ends, and the outer one starts it again.
    assert log.take() == ["-y", "+y", "-y", "-x", "+x", "+y"]
    assert await inner[0].wait_stopped() == SHUTDOWN
    outer.stop()
    await outer.wait_stopped()
    assert log.take() == ["-y", "-x", "-a"]


async def test_what_supervisor_which_children_asks(
    two_nodes: tuple[Node, Node], worker: Callable[..., ChildSpec]
) -> None:
    one, two = two_nodes
    supervisor = start(one, worker("a"), worker("b", restart="transient"))
    one.send("b", NORMAL)
    a = supervisor.child_pid("a")
    sup = ("sup", one.name)
    assert await two.call(sup, Atom("which_children")) == [
        (b"b", Atom("undefined"), Atom("worker"), []),
        (b"a", a, Atom("worker"), []),
    ]
    assert await two.call(sup, Atom("count_children")) == [
        (Atom("specs"), 2),
        (Atom("active"), 1),
        (Atom("supervisors"), 0),
        (Atom("workers"), 2),
    ]
    assert await two.call(sup, (Atom("start_child"), 1)) == (Atom("error"), Atom("unsupported"))


async def test_other_messages_are_logged(one_node: Node, caplog: pytest.LogCaptureFixture) -> None:
    supervisor = start(one_node)
    one_node.send("sup", "what")
    assert 'has no use for the message <<"what">>' in caplog.text
    assert supervisor.process.alive


async def test_bad_arguments_are_refused(worker: Callable[..., ChildSpec]) -> None:
    with pytest.raises(ValueError, match="one_for_two"):
        Supervisor(strategy="one_for_two")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="intensity"):
        Supervisor(intensity=-1)
    with pytest.raises(ValueError, match="period"):
        Supervisor(period=0.0)
    with pytest.raises(SupervisorError, match="there is a child 'a'"):
        Supervisor([worker("a"), worker("a")])
