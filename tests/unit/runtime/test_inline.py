import pytest

from erlang_interop.errors import Exit
from erlang_interop.runtime import InlineServer, Node
from erlang_interop.terms import Atom, Pid, Term

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
        assert await me.receive(timeout=30) == (DOWN, ref, PROCESS, pid, reason)
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


class Asking(InlineServer):
    """Notes who sent each message; passes on what it is told to."""

    def __init__(self) -> None:
        self.seen: list[tuple[Term, Pid | Atom | None]] = []

    def handle_message(self, message: Term) -> None:
        if isinstance(message, tuple) and message[0] == "pass on":
            self.process.send(message[1], message[2])
            self.process.send(self.process.pid, message[2])
        self.seen.append((message, self.sender))


async def test_the_handler_knows_the_sender(node: Node) -> None:
    server = Asking()
    pid = node.start_inline(server, name="asking")
    alias = server.process.alias()
    async with node.open_process() as me:
        for dest in (pid, "asking", ("asking", node.name), alias):
            me.send(dest, 1)
        me.send(alias, 2, priority=True)
        assert server.seen == [(1, me.pid)] * 4 + [(2, me.pid)]
        ref = server.process.monitor(me.pid)
    assert server.seen[5:] == [((DOWN, ref, PROCESS, me.pid, Atom("normal")), None)]


async def test_the_sender_of_a_message_that_waited(node: Node) -> None:
    """Both wait until the first handler has run: each has its own sender then, and the first one kept its."""
    first, second = Asking(), Asking()
    one, two = node.start_inline(first), node.start_inline(second)
    async with node.open_process() as me:
        me.send(one, ("pass on", two, "text"))
        assert first.seen == [(("pass on", two, "text"), me.pid), ("text", one)]
        assert second.seen == [("text", one)]


async def test_the_sender_of_a_message_with_a_trace_token(node: Node) -> None:
    first, second = Asking(), Asking()
    one, two = node.start_inline(first), node.start_inline(second)
    async with node.open_process() as me:
        me.set_trace_token((1, 0, 0, me.pid, 0))
        me.send(one, ("pass on", two, "text"))
        assert first.seen == [(("pass on", two, "text"), me.pid), ("text", one)]
        assert second.seen == [("text", one)]


async def test_a_token_from_nowhere_gives_no_sender(node: Node) -> None:
    server = Asking()
    node.start_inline(server)
    server.process.deliver_marked(1, (1, 0, 0, [], 0), False)
    assert server.seen == [(1, None)]
