import pytest

from erlang_interop.errors import Exit
from erlang_interop.runtime import InlineServer, Node
from erlang_interop.terms import Atom, Term

DOWN, PROCESS = Atom("DOWN"), Atom("process")


class Recorder(InlineServer):
    def __init__(self) -> None:
        self.seen: list[Term] = []
        self.ended_with: Term = None

    def handle_message(self, message: Term) -> None:
        self.seen.append(message)
        if message == "stop":
            raise Exit(Atom("told"))
        if message == "crash":
            raise ValueError("no")

    def terminated(self, reason: Term) -> None:
        self.ended_with = reason


async def test_a_message_is_handled_before_send_returns(node: Node) -> None:
    server = Recorder()
    node.start_inline(server, name="recorder")
    node.send("recorder", 1)
    assert server.seen == [1]


async def test_a_handler_is_never_entered_again_while_it_runs(node: Node) -> None:
    log: list[str] = []

    class Echo(InlineServer):
        def handle_message(self, message: Term) -> None:
            log.append(f"in {message}")
            if message < 3:
                self.process.send(self.process.pid, message + 1)
                self.process.send("other", message)
            log.append(f"out {message}")

    class Other(InlineServer):
        def handle_message(self, message: Term) -> None:
            log.append(f"other {message}")

    node.start_inline(Other(), name="other")
    pid = node.start_inline(Echo())
    node.send(pid, 1)
    assert log == ["in 1", "out 1", "in 2", "out 2", "other 1", "in 3", "out 3", "other 2"]


@pytest.mark.parametrize(("message", "reason"), [("stop", Atom("told")), ("crash", (Atom("ValueError"), "no"))])
async def test_an_exception_is_an_exit_reason(node: Node, message: str, reason: Term) -> None:
    server = Recorder()
    async with node.open_process() as me:
        pid = node.start_inline(server)
        ref = me.monitor(pid)
        me.send(pid, message)
        assert await me.receive(timeout=5) == (DOWN, ref, PROCESS, pid, reason)
        me.send(pid, "late")
    assert server.seen == [message]
    assert server.ended_with == reason


async def test_what_started_sends_is_handled_after_it(node: Node) -> None:
    log: list[str] = []

    class Starter(InlineServer):
        def started(self) -> None:
            self.process.send(self.process.pid, "first")
            log.append("started")

        def handle_message(self, message: Term) -> None:
            log.append(message)

    node.start_inline(Starter())
    assert log == ["started", "first"]


async def test_a_start_that_fails_leaves_nothing_behind(node: Node) -> None:
    class Broken(InlineServer):
        def started(self) -> None:
            raise RuntimeError("no luck")

    with pytest.raises(RuntimeError, match="no luck"):
        node.start_inline(Broken(), name="broken")
    assert node.whereis("broken") is None
    assert not any(node.statistics().values())


async def test_a_linked_inline_server_ends_with_its_other_half(node: Node) -> None:
    first, second = Recorder(), Recorder()
    pid = node.start_inline(first)
    node.start_inline(second, link_to=pid)
    node.send(pid, "stop")
    assert (first.ended_with, second.ended_with) == (Atom("told"), Atom("told"))


async def test_a_trapped_exit_is_a_message(node: Node) -> None:
    first, second = Recorder(), Recorder()
    pid = node.start_inline(first)
    trapping = node.start_inline(second)
    second.process.trap_exit = True
    second.process.link(pid)
    node.send(pid, "stop")
    assert second.seen == [(Atom("EXIT"), pid, Atom("told"))]
    assert node.is_alive(trapping)
