from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from erlang_interop import (
    NO_REPLY,
    Atom,
    CalleeExited,
    Exit,
    GenServer,
    ImproperList,
    NameAlreadyRegistered,
    Node,
    NoProcess,
    Process,
    Stop,
)
from tests.servers import Calculator

if TYPE_CHECKING:
    from erlang_interop import From, Pid, Term

NORMAL, EXIT, DOWN, PROCESS = Atom("normal"), Atom("EXIT"), Atom("DOWN"), Atom("process")


class Recorder(GenServer):
    """Tells ``owner`` what happens to it."""

    def init(self, owner: Pid, trap_exit: bool = False, failure: Exception | None = None) -> None:
        self.owner = owner
        self.process.trap_exit = trap_exit
        if failure is not None:
            raise failure

    def handle_call(self, request: Term, from_: From) -> Any:
        if request == "crash in a nursery":
            raise ExceptionGroup("", [ExceptionGroup("", [Exit("from the nursery")])])
        if request == Atom("unencodable"):
            return object()
        return super().handle_call(request, from_)

    def handle_cast(self, message: Term) -> Any:
        if message == "terminate badly":
            self.owner = None  # type: ignore[assignment]
            return Stop(NORMAL)
        return message

    async def terminate(self, reason: Term) -> None:
        await trio.lowlevel.checkpoint()
        self.process.send(self.owner, ("terminated", reason))


async def down(process: Process, pid: Pid) -> Term:
    """The exit reason of a process."""
    ref = process.monitor(pid)
    message = await process.receive(
        lambda message: type(message) is tuple and message[:4] == (DOWN, ref, PROCESS, pid), timeout=30
    )
    return message[4]


async def test_a_server_is_ready_when_start_returns(one_node: Node) -> None:
    pid = await Calculator.start(one_node, name="calc")
    assert one_node.whereis("calc") == pid
    assert await one_node.call("calc", (Atom("add"), 1, 1)) == 2
    assert await one_node.call(pid, Atom("seen")) == []


async def test_answers_can_come_later_and_to_many(one_node: Node) -> None:
    await Calculator.start(one_node, name="calc")
    answers: list[Term] = []

    async def ask() -> None:
        answers.append(await one_node.call("calc", Atom("keep")))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        assert await one_node.call("calc", (Atom("answer_kept"), "now")) == 3
    assert answers == ["now"] * 3


async def test_a_caller_with_a_plain_tag_is_answered_to_its_pid(one_node: Node) -> None:
    """As multi_call, JInterface and libei ask."""
    await Calculator.start(one_node, name="calc")
    async with one_node.open_process() as process:
        tag = (one_node.make_ref(), one_node.name)
        process.send("calc", (Atom("$gen_call"), (process.pid, tag), (Atom("add"), 3, 4)))
        assert await process.receive(timeout=30) == (tag, 7)


async def test_casts_and_other_messages(one_node: Node) -> None:
    pid = await Calculator.start(one_node)
    one_node.cast(pid, (Atom("store"), 1))
    odd = [
        "hello",
        (),
        (Atom("$gen_call"), "no from", 1),
        (Atom("$gen_call"), (pid, 1)),
        (Atom("$gen_cast"),),
        (Atom("system"), (pid, 1), Atom("get_state")),
        (EXIT, pid, NORMAL),
    ]
    for message in odd:
        one_node.send(pid, message)
    assert await one_node.call(pid, Atom("seen")) == [1, *((Atom("info"), message) for message in odd)]


async def test_a_message_nobody_handles_is_logged(one_node: Node, caplog: pytest.LogCaptureFixture) -> None:
    pid = await Recorder.start(one_node, one_node.make_ref())
    one_node.send(pid, "what is this")
    await trio.testing.wait_all_tasks_blocked()
    assert 'has no use for the message <<"what is this">>' in caplog.text
    assert one_node.is_alive(pid)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ((Atom("stop_silent"), Atom("shutdown")), Atom("shutdown")),
        ((Atom("exit"), [1]), [1]),
        ((Atom("crash"), "no"), (Atom("ValueError"), "no")),
        (Atom("unknown"), (Atom("bad_call"), Atom("unknown"))),
    ],
)
async def test_the_ends_of_a_server_as_its_caller_sees_them(one_node: Node, request_: Term, reason: Term) -> None:
    pid = await Calculator.start(one_node, name="calc")
    with pytest.raises(CalleeExited) as error:
        await one_node.call("calc", request_)
    assert error.value.reason == reason
    assert not one_node.is_alive(pid)
    with pytest.raises(NoProcess):
        await one_node.call("calc", 1)


async def test_stop_with_a_reply(one_node: Node) -> None:
    pid = await Calculator.start(one_node)
    async with one_node.open_process() as process:
        ref = process.monitor(pid)
        assert await one_node.call(pid, (Atom("stop"), "done")) == Atom("stopping")
        assert await process.receive(timeout=30) == (DOWN, ref, PROCESS, pid, "done")


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ((Atom("stop"), NORMAL), NORMAL),
        ("what", (Atom("bad_cast"), "what")),
    ],
)
async def test_casts_that_end_a_server(one_node: Node, message: Term, reason: Term) -> None:
    pid = await Calculator.start(one_node)
    async with one_node.open_process() as process:
        one_node.cast(pid, message)
        assert await down(process, pid) == reason


async def test_an_answer_from_a_cast_is_a_mistake(one_node: Node) -> None:
    pid = await Calculator.start(one_node)
    async with one_node.open_process() as process:
        one_node.cast(pid, (Atom("bad_return"), NO_REPLY))
        one_node.cast(pid, (Atom("bad_return"), 5))
        kind, words = await down(process, pid)
        assert kind == Atom("TypeError")
        assert "Calculator.handle_cast returned 5" in words


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (Stop("a"), "a"),
        (
            5,
            (
                Atom("TypeError"),
                "Recorder.handle_cast returned 5: nobody waits for an answer there; return None or Stop(reason)",
            ),
        ),
    ],
)
async def test_terminate_is_told_the_reason(one_node: Node, message: Term, reason: Term) -> None:
    async with one_node.open_process() as owner:
        pid = await Recorder.start(one_node, owner.pid)
        ref = owner.monitor(pid)
        one_node.cast(pid, message)
        assert await owner.receive(timeout=30) == ("terminated", reason)
        assert await owner.receive(timeout=30) == (DOWN, ref, PROCESS, pid, reason)


async def test_terminate_is_told_the_reason_from_inside_a_nursery(one_node: Node) -> None:
    async with one_node.open_process() as owner:
        pid = await Recorder.start(one_node, owner.pid)
        with pytest.raises(CalleeExited) as error:
            await one_node.call(pid, "crash in a nursery")
        assert error.value.reason == "from the nursery"
        assert await owner.receive(timeout=30) == ("terminated", "from the nursery")


async def test_the_reason_is_that_of_terminate_when_it_crashes(one_node: Node) -> None:
    async with one_node.open_process() as owner:
        pid = await Recorder.start(one_node, owner.pid)
        one_node.cast(pid, "terminate badly")
        reason = await down(owner, pid)
        assert reason[0] == Atom("BadName")
        assert len(owner.mailbox) == 0


async def test_an_answer_that_cannot_be_sent_is_a_crash(two_nodes: tuple[Node, Node]) -> None:
    one, two = two_nodes
    async with two.open_process() as owner:
        pid = await Recorder.start(two, owner.pid)
        with pytest.raises(CalleeExited) as error:
            await one.call(pid, Atom("unencodable"))
        assert error.value.reason[0] == Atom("EncodeError")


async def test_an_exit_signal_ends_it_without_terminate(one_node: Node) -> None:
    async with one_node.open_process() as owner:
        pid = await Recorder.start(one_node, owner.pid)
        ref = owner.monitor(pid)
        one_node.exit(pid, "enough")
        assert await owner.receive(timeout=30) == (DOWN, ref, PROCESS, pid, "enough")
        await trio.testing.wait_all_tasks_blocked()
        assert len(owner.mailbox) == 0


async def test_a_server_that_traps_exits_ends_with_its_parent(one_node: Node) -> None:
    async with one_node.open_process() as owner:
        parent = one_node.spawn(sleeping)
        pid = await Recorder.start(one_node, owner.pid, True, link_to=parent)
        ref = owner.monitor(pid)
        one_node.exit(parent, "leave")
        assert await owner.receive(timeout=30) == ("terminated", "leave")
        assert await owner.receive(timeout=30) == (DOWN, ref, PROCESS, pid, "leave")


async def test_a_server_that_traps_exits_ends_when_its_parent_says_so(one_node: Node) -> None:
    async with one_node.open_process() as owner:
        owner.trap_exit = True
        pid = await Recorder.start(one_node, owner.pid, True, link_to=owner.pid)
        one_node.exit(pid, "nobody's business")  # goes to handle_info
        owner.exit(pid, "leave")
        assert await owner.receive(timeout=30) == ("terminated", "leave")
        assert await owner.receive(timeout=30) == (EXIT, pid, "leave")


async def sleeping(process: Process) -> None:
    await process.receive()


async def test_start_raises_what_init_raised(one_node: Node) -> None:
    async with one_node.open_process() as owner:
        owner.trap_exit = True
        for failure, reason in [
            (ValueError("no good"), (Atom("ValueError"), "no good")),
            (Exit("stop"), "stop"),
        ]:
            with pytest.raises(type(failure)) as error:
                await Recorder.start(one_node, owner.pid, False, failure, name="r", link_to=owner.pid)
            assert error.value is failure
            assert (await owner.receive(timeout=30))[2] == reason
            assert one_node.whereis("r") is None
        await Recorder.start(one_node, owner.pid, name="r")
        with pytest.raises(NameAlreadyRegistered):
            await Recorder.start(one_node, owner.pid, name="r")


class Slow(GenServer):
    async def init(self) -> None:
        await trio.sleep_forever()


async def test_start_when_init_never_ends(one_node: Node) -> None:
    with trio.move_on_after(0.01):
        await Slow.start(one_node, name="slow")
    assert one_node.whereis("slow") is None
    async with trio.open_nursery() as nursery:

        async def end_it() -> None:
            await trio.testing.wait_all_tasks_blocked()
            pid = one_node.whereis("slow")
            assert pid is not None
            one_node.exit(pid, "no patience")

        nursery.start_soon(end_it)
        with pytest.raises(Exit) as error:
            await Slow.start(one_node, name="slow")
        assert error.value.reason == "no patience"


async def test_one_that_is_ended_before_it_runs(one_node: Node) -> None:
    pid = Calculator.start_nowait(one_node, name="calc")
    one_node.exit(pid, "at once")
    await trio.testing.wait_all_tasks_blocked()
    assert one_node.whereis("calc") is None


async def test_messages_wait_for_init(one_node: Node) -> None:
    pid = Calculator.start_nowait(one_node)
    one_node.cast(pid, (Atom("store"), 1))
    assert await one_node.call(pid, Atom("seen")) == [1]


class Asking(GenServer):
    """Async callbacks, and calls to another server from within one."""

    async def init(self, other: Term) -> None:
        await trio.lowlevel.checkpoint()
        self.other = other

    async def handle_call(self, request: Term, from_: From) -> Term:
        if request == Atom("from"):
            return from_[1]
        return await self.call(self.other, request)

    async def handle_cast(self, message: Term) -> None:
        self.cast(self.other, message)
        await trio.lowlevel.checkpoint()

    async def handle_info(self, message: Term) -> Any:
        await trio.lowlevel.checkpoint()
        return Stop(message)


async def test_async_callbacks(two_nodes: tuple[Node, Node]) -> None:
    one, two = two_nodes
    calc = await Calculator.start(two)
    asking = await Asking.start(one, calc)
    assert await two.call(asking, (Atom("add"), 40, 2)) == 42
    assert type(await two.call(asking, Atom("from"))) is ImproperList
    two.cast(asking, (Atom("store"), Atom("cast")))
    assert await two.call(asking, Atom("seen")) == [Atom("cast")]
    async with two.open_process() as process:
        ref = process.monitor(asking)
        two.send(asking, Atom("bye"))
        assert await process.receive(timeout=30) == (DOWN, ref, PROCESS, asking, Atom("bye"))
