from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from erlang_interop import (
    Atom,
    CalleeExited,
    CallError,
    CallTimeout,
    EncodeError,
    ImproperList,
    InlineServer,
    Node,
    NodeDownError,
    NoProcess,
    NoSuchNode,
    Pid,
    Process,
    Reference,
)
from erlang_interop.otp import gen
from tests.servers import Calculator

if TYPE_CHECKING:
    from erlang_interop import MonitorTarget, Term

NOPROC = Atom("noproc")
CALC = ("calc", "two@127.0.0.1")


async def arrived(*nodes: Node) -> None:
    """All that these nodes have sent each other so far has arrived."""
    for sender in nodes:
        for receiver in nodes:
            async with receiver.open_process() as process:
                sender.send(process.pid, "behind all that was under way")
                await process.receive(timeout=30)


async def assert_nothing_left(*nodes: Node) -> None:
    """No call has left an alias, a monitor or a process behind; user, net_kernel and rex are the processes."""
    await arrived(*nodes)
    for node in nodes:
        left = {key: node.statistics()[key] for key in ("processes", "aliases", "monitors", "watchers")}
        assert left == {"processes": 4, "aliases": 0, "monitors": 0, "watchers": 0}


async def test_call_by_pid_by_name_and_on_the_own_node(two_nodes: tuple[Node, Node]) -> None:
    one, two = two_nodes
    pid = await Calculator.start(two, name="calc")
    places: list[tuple[Node, MonitorTarget]] = [
        (one, pid),
        (one, CALC),
        (two, pid),
        (two, "calc"),
        (two, CALC),
        (two, Atom("calc")),
    ]
    for caller, dest in places:
        assert await caller.call(dest, (Atom("add"), 1, 2)) == 3
    async with one.open_process() as process:
        assert await gen.call(process, pid, (Atom("echo"), process.pid)) == process.pid
        assert len(process.mailbox) == 0
    async with two.open_process() as process:
        assert await gen.call(process, "calc", (Atom("echo"), None)) is None


async def test_the_from_of_a_call_is_otp_s(two_nodes: tuple[Node, Node]) -> None:
    one, two = two_nodes
    await Calculator.start(two, name="calc")
    caller, tag = await one.call(CALC, Atom("from"))
    assert type(caller) is Pid
    assert caller.node == one.name
    assert type(tag) is ImproperList
    assert tag.elements == [Atom("alias")]
    assert type(tag.tail) is Reference
    async with one.open_process() as process:
        assert (await gen.call(process, CALC, Atom("from")))[0] == process.pid


@pytest.mark.parametrize("as_process", [False, True], ids=["from a task", "from a process"])
class TestFailures:
    async def call(self, node: Node, as_process: bool, dest: Any, request: Term, timeout: float | None = 5.0) -> Term:
        if not as_process:
            return await node.call(dest, request, timeout)
        async with node.open_process() as process:
            try:
                return await gen.call(process, dest, request, timeout)
            finally:
                assert len(process.mailbox) == 0

    async def test_noproc(self, two_nodes: tuple[Node, Node], as_process: bool) -> None:
        one, two = two_nodes
        dead = await Calculator.start(two)
        two.exit(dead, Atom("kill"))
        for dest, words in [
            (("nobody", "two@127.0.0.1"), "nobody on two@127.0.0.1"),
            ("nobody", "nobody"),
            (dead, str(dead)),
        ]:
            with pytest.raises(NoProcess) as error:
                await self.call(one, as_process, dest, Atom("from"))
            assert error.value.reason == NOPROC
            assert words in str(error.value)
        await assert_nothing_left(one, two)

    async def test_a_late_answer_is_dropped(self, two_nodes: tuple[Node, Node], as_process: bool) -> None:
        one, two = two_nodes
        calc = await Calculator.start(two, name="calc")
        await one.connect(two.name)
        async with one.open_process() as process:
            caller = process if as_process else one
            with pytest.raises(CallTimeout, match=r"calc on two@127\.0\.0\.1 did not answer within 0\.01 s") as error:
                await gen.call(caller, CALC, Atom("keep"), timeout=0.01)
            assert error.value.reason == Atom("timeout")
            left = one.statistics()
            assert (left["processes"], left["monitors"], left["aliases"]) == (5, 0, 0)
            # Its answer is on the wire before that of this call.
            assert await gen.call(caller, CALC, (Atom("answer_kept"), Atom("late"))) == 1
            assert len(process.mailbox) == 0
        two.exit(calc, Atom("kill"))
        await assert_nothing_left(one, two)

    async def test_the_reason_of_a_callee_that_ends(self, two_nodes: tuple[Node, Node], as_process: bool) -> None:
        one, two = two_nodes
        for request, reason in [
            ((Atom("crash"), "no"), (Atom("ValueError"), b"no")),
            ((Atom("exit"), (Atom("my"), 1)), (Atom("my"), 1)),
            ((Atom("stop_silent"), Atom("normal")), Atom("normal")),
            (Atom("what"), (Atom("bad_call"), Atom("what"))),
        ]:
            pid = await Calculator.start(two)
            with pytest.raises(CalleeExited) as error:
                await self.call(one, as_process, pid, request)
            assert error.value.reason == reason
            assert str(pid) in str(error.value)
        await assert_nothing_left(one, two)

    async def test_nodedown_during_a_call(self, two_nodes: tuple[Node, Node], as_process: bool) -> None:
        one, two = two_nodes
        await Calculator.start(two, name="calc")
        reasons: list[Term] = []

        async def wait_for_the_end() -> None:
            with pytest.raises(NodeDownError, match=r"node\.connect\('two@127\.0\.0\.1'\)") as error:
                await self.call(one, as_process, CALC, Atom("keep"), None)
            reasons.append(error.value.reason)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_for_the_end)
            await one.connect(two.name)
            await one.call(CALC, Atom("seen"))  # behind the call that waits
            await one.disconnect(two.name)
        assert reasons == [(Atom("nodedown"), two.name)]
        assert one.last_failure(two.name) is None, "it was connected, and lost"

    async def test_a_node_that_is_not_there(self, one_node: Node, as_process: bool) -> None:
        with pytest.raises(NodeDownError) as error:
            await self.call(one_node, as_process, ("x", "nowhere@127.0.0.1"), Atom("from"))
        assert error.value.reason == (Atom("nodedown"), Atom("nowhere@127.0.0.1"))
        assert isinstance(error.value.__cause__, NoSuchNode)
        await assert_nothing_left(one_node)

    async def test_what_cannot_be_encoded_is_not_sent(self, two_nodes: tuple[Node, Node], as_process: bool) -> None:
        one, two = two_nodes
        calc = await Calculator.start(two, name="calc")
        await one.connect(two.name)
        with pytest.raises(EncodeError):
            await self.call(one, as_process, CALC, object())
        assert await one.call(CALC, Atom("seen")) == []
        two.exit(calc, Atom("kill"))
        await assert_nothing_left(one, two)

    async def test_a_cancelled_call_leaves_nothing_behind(self, two_nodes: tuple[Node, Node], as_process: bool) -> None:
        one, two = two_nodes
        calc = await Calculator.start(two, name="calc")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.call, one, as_process, CALC, Atom("keep"), None)
            await one.call(CALC, Atom("seen"))
            nursery.cancel_scope.cancel()
        assert await one.call(CALC, (Atom("answer_kept"), 1)) == 1
        await arrived(one, two)
        assert two.statistics()["watchers"] == 0
        two.exit(calc, Atom("kill"))
        await assert_nothing_left(one, two)


async def test_a_process_that_calls_itself_is_told_so(one_node: Node) -> None:
    async with one_node.open_process("me") as process:
        for dest in (process.pid, "me", Atom("me")):
            with pytest.raises(CallError, match="calls itself") as error:
                await gen.call(process, dest, Atom("x"))
            assert error.value.reason == Atom("calling_self")


async def test_an_answer_in_the_moment_of_giving_up_does_not_stay(one_node: Node) -> None:
    async with one_node.open_process("asked") as asked, one_node.open_process() as process:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gen.call, process, "asked", 1)
            _, from_, _ = await asked.receive()
            nursery.cancel_scope.cancel()
            gen.reply(asked, from_, "too late")
            assert len(process.mailbox) == 1
        assert len(process.mailbox) == 0


async def test_messages_before_the_answer_stay_in_order(two_nodes: tuple[Node, Node]) -> None:
    one, two = two_nodes
    await Calculator.start(two, name="calc")
    async with one.open_process() as process:
        for number in range(3):
            process.send(process.pid, number)
        assert await gen.call(process, CALC, (Atom("add"), 2, 2)) == 4
        assert [process.receive_nowait() for _ in range(3)] == [0, 1, 2]


async def test_64_calls_at_once(two_nodes: tuple[Node, Node]) -> None:
    one, two = two_nodes
    calc = await Calculator.start(two, name="calc")
    answers: dict[int, Term] = {}

    async def ask(number: int) -> None:
        for _ in range(10):
            answers[number] = await one.call(CALC, (Atom("echo"), number))

    async with trio.open_nursery() as nursery:
        for number in range(64):
            nursery.start_soon(ask, number)
    assert answers == {number: number for number in range(64)}
    two.exit(calc, Atom("kill"))
    await assert_nothing_left(one, two)


async def test_a_call_to_an_inline_server_is_a_checkpoint(one_node: Node) -> None:
    class Echo(InlineServer):
        def handle_message(self, message: Term) -> None:
            gen.reply(self.process, message[1], message[2])

    one_node.start_inline(Echo(), name="echo")
    assert await one_node.call("echo", 7) == 7
    with trio.CancelScope() as scope:
        scope.cancel()
        await one_node.call("echo", 7)
    assert scope.cancelled_caught


async def test_a_request_from_an_inline_server(two_nodes: tuple[Node, Node]) -> None:
    one, two = two_nodes
    await Calculator.start(two, name="calc")
    done = trio.Event()
    outcomes: list[Term] = []

    class Asker(InlineServer):
        def started(self) -> None:
            self.requests = {
                gen.send_request(self.process, dest, (Atom("add"), 20, 3)): dest for dest in (CALC, "nobody")
            }

        def handle_message(self, message: Term) -> None:
            for ref, dest in list(self.requests.items()):
                if gen.is_response(message, ref):
                    try:
                        outcomes.append(gen.result(message, self.requests.pop(ref)))
                    except NoProcess as error:
                        outcomes.append((dest, error.reason))
            if not self.requests:
                done.set()

    one.start_inline(Asker())
    with trio.fail_after(30):
        await done.wait()
    assert outcomes == [("nobody", NOPROC), 23]


async def test_other_messages_are_no_response(one_node: Node) -> None:
    ref, other = one_node.make_ref(), one_node.make_ref()
    tag = ImproperList([Atom("alias")], ref)
    down = (Atom("DOWN"), ref, Atom("process"), 1, 2)
    assert gen.is_response((tag, 1), ref)
    assert gen.is_response(down, ref)
    for message in [1, (), (tag,), (tag, 1, 2), [tag, 1], (ref, 1), (ImproperList([Atom("alia")], ref), 1), down[:4]]:
        assert not gen.is_response(message, ref)
    assert not gen.is_response((tag, 1), other)
    assert not gen.is_response(down, other)


async def test_where_an_answer_goes(one_node: Node) -> None:
    """gen.erl: reply/2 knows three shapes of tag."""
    async with one_node.open_process() as process, one_node.open_process() as other:
        tag: Term
        for make in (
            lambda alias: ImproperList([Atom("alias")], alias),
            lambda alias: [ImproperList([Atom("alias")], alias), 1],
            lambda alias: ImproperList([ImproperList([Atom("alias")], alias)], 1),
        ):
            tag = make(process.alias())
            # The pid is another's: only the alias decides.
            gen.reply(one_node, (other.pid, tag), 5)
            assert process.receive_nowait() == (tag, 5)
        plain: tuple[Term, ...] = (
            one_node.make_ref(),
            (1, 2),
            [],
            [Atom("alias")],
            ImproperList([Atom("alias")], 1),
            b"x",
        )
        for tag in plain:
            gen.reply(process, (other.pid, tag), 6)
            assert other.receive_nowait() == (tag, 6)
        gone = process.alias()
        process.unalias(gone)
        gen.reply(one_node, (process.pid, ImproperList([Atom("alias")], gone)), 7)
        assert len(process.mailbox) == 0


async def test_what_can_be_answered(one_node: Node) -> None:
    async with one_node.open_process() as process:
        assert gen.is_from((process.pid, 1))
        for term in (None, process.pid, (1, 2), (process.pid,), [process.pid, 1], (process.pid, 1, 2)):
            assert not gen.is_from(term)


async def test_cast(two_nodes: tuple[Node, Node]) -> None:
    one, two = two_nodes
    await Calculator.start(two, name="calc")

    async def casting(process: Process) -> None:
        gen.cast(process, CALC, (Atom("store"), 2))

    await one.cast(CALC, (Atom("store"), 1))
    one.spawn(casting)
    one.cast(("nobody", "two@127.0.0.1"), 1)
    await trio.testing.wait_all_tasks_blocked()
    assert await one.call(CALC, Atom("seen")) == [1, 2]


def test_shown_terms_are_cut() -> None:
    assert gen.shown_term(Atom("ok")) == "ok"
    assert len(gen.shown_term([1] * 10_000)) == gen.SHOWN_REASON
    assert "object" in gen.shown_term(object())


async def test_a_call_looks_at_no_message_that_waits(one_node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    await Calculator.start(one_node, name="calc")
    looked_at = []

    def counting(message: Term, ref: Reference) -> bool:
        looked_at.append(message)
        return is_response(message, ref)

    is_response = gen.is_response
    monkeypatch.setattr(gen, "is_response", counting)
    async with one_node.open_process() as me:
        for number in range(1000):
            one_node.send(me.pid, number)
        assert await gen.call(me, "calc", (Atom("add"), 1, 2)) == 3
        assert len(looked_at) == 1
        assert [me.receive_nowait() for _ in range(1000)] == list(range(1000))
