"""``rex``, asked by hand: the messages that other implementations send, and wrong ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from erlang_interop import Atom, CalleeExited, Node, Process
from erlang_interop.otp import gen
from tests.unit.otp.monitoring import KillerAtALoss
from tests.unit.otp.rpc_peer import exposed_here, idle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from erlang_interop import Term

CALL, BLOCK_CALL, REX, USER, PY, ADD = map(Atom, ("call", "block_call", "rex", "user", "py", "add"))
BADRPC, EXIT = Atom("badrpc"), Atom("EXIT")
LIMIT_S = 30.0


@pytest.fixture
async def two(two_nodes: tuple[Node, Node]) -> AsyncIterator[Node]:
    """The node that is asked."""
    one, two = two_nodes
    exposed_here(two)
    await one.connect(two.name)
    yield two
    await idle(two)


@pytest.fixture
async def me(two: Node, one_node: Node) -> AsyncIterator[Process]:
    """A process of the node that asks."""
    async with one_node.open_process() as me:
        yield me


async def test_as_a_c_node_asks(me: Process, two: Node) -> None:
    for leader in (USER, me.pid):
        me.send((REX, two.name), (me.pid, (CALL, PY, ADD, [1, 2], leader)))
        assert await me.receive(timeout=LIMIT_S) == (REX, 3)
    me.send((REX, two.name), (me.pid, (CALL, PY, Atom("nothing"), [], USER)))
    undef: Term = (EXIT, (Atom("undef"), [(PY, Atom("nothing"), [], [])]))
    assert await me.receive(timeout=LIMIT_S) == (REX, (BADRPC, undef))


async def test_features(me: Process, two: Node) -> None:
    me.send((REX, two.name), (me.pid, Atom("features_request")))
    assert await me.receive(timeout=LIMIT_S) == (Atom("features_reply"), two.name, [Atom("erpc")])


async def test_broadcasts(me: Process, two: Node) -> None:
    sbcast, send, nobody = Atom("sbcast"), Atom("send"), Atom("nobody")
    async with two.open_process("inbox") as inbox:
        me.send((REX, two.name), (me.pid, (sbcast, Atom("inbox"), 1)))
        assert await me.receive(timeout=LIMIT_S) == (REX, two.name, two.name)
        me.send((REX, two.name), (me.pid, (send, Atom("inbox"), 2)))
        assert [await inbox.receive(timeout=LIMIT_S) for _ in range(2)] == [1, (me.pid, 2)]
    for what, name in ((sbcast, nobody), (send, nobody), (sbcast, b"x")):
        me.send((REX, two.name), (me.pid, (what, name, 1)))
        assert await me.receive(timeout=LIMIT_S) == (REX, two.name, (Atom("nonexisting_name"), name))


async def test_what_is_printed_goes_to_the_caller(me: Process, two: Node) -> None:
    async def prints(process: Process) -> Atom:
        assert process.group_leader is not None
        request = (Atom("io_request"), process.pid, 1, (Atom("put_chars"), Atom("unicode"), "hellö\n"))
        process.send(process.group_leader, request)
        await process.receive()
        return Atom("printed")

    two.expose("py", {"prints": prints}, with_process=True)
    me.send((REX, two.name), (me.pid, (CALL, PY, Atom("prints"), [], Atom("send_stdout_to_caller"))))
    assert await me.receive(timeout=LIMIT_S) == (Atom("rex_stdout"), "hellö\n".encode())
    assert await me.receive(timeout=LIMIT_S) == (REX, Atom("printed"))


async def test_an_exit_reason_that_is_no_term(me: Process, two: Node) -> None:
    async def ends(process: Process) -> None:
        process.exit(process.pid, {1, 2})
        await trio.sleep_forever()

    two.expose("here", {"ends": ends}, with_process=True)
    request: Term = (CALL, Atom("here"), Atom("ends"), [], USER)
    (badrpc, (_, ((name, text), _))) = await gen.call(me, (REX, two.name), request)
    assert (badrpc, name) == (BADRPC, Atom("EncodeError"))
    assert b"set" in text


async def test_casts(me: Process, two: Node) -> None:
    leaders: list[object] = []
    done = trio.Event()

    async def leader(process: Process) -> None:
        leaders.append(process.group_leader)
        if len(leaders) == 3:
            done.set()

    two.expose("here", {"leader": leader}, with_process=True)
    for given in (USER, me.pid, Atom("send_stdout_to_caller"), Atom("wrong")):
        gen.cast(me, (REX, two.name), (Atom("cast"), Atom("here"), Atom("leader"), [], given))
    with trio.fail_after(LIMIT_S):
        await done.wait()
    user = two.whereis("user")
    assert sorted(map(str, leaders)) == sorted(map(str, (user, me.pid, user)))


async def test_a_slow_call_holds_up_nobody(me: Process, two: Node, one_node: Node) -> None:
    running, ended = trio.Event(), trio.Event()

    async def stuck() -> None:
        running.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    two.expose("here", {"stuck": stuck})
    with trio.fail_after(LIMIT_S):
        async with one_node.open_process() as other:
            for what in (CALL, BLOCK_CALL):
                gen.send_request(other, (REX, two.name), (what, Atom("here"), Atom("stuck"), [], USER))
            other.send((REX, two.name), (other.pid, (CALL, Atom("threads"), Atom("sleep"), [0.05], USER)))
            await running.wait()
            assert await gen.call(me, (REX, two.name), (CALL, PY, ADD, [1, 2], USER)) == 3
            assert await one_node.erpc_call(two.name, "py", "add", [1, 2]) == 3
        await ended.wait()  # with their caller


async def test_block_calls_take_turns(two: Node, one_node: Node) -> None:
    log: list[str] = []

    async def turn() -> None:
        log.append("in")
        await trio.sleep(0.01)
        log.append("out")

    two.expose("here", {"turn": turn})
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(one_node.rpc_block_call, two.name, "here", "turn", [], LIMIT_S)
    assert log == ["in", "out"] * 4


@pytest.mark.parametrize("way", ["erpc", "call", "message"])
@pytest.mark.parametrize("end", ["process", "node"])
async def test_a_call_ends_with_its_caller(two: Node, one_node: Node, way: str, end: str) -> None:
    started, cancelled = trio.Event(), trio.Event()

    async def stuck() -> None:
        started.set()
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            cancelled.set()
            raise

    two.expose("here", {"stuck": stuck})
    mfa: Any = (Atom("here"), Atom("stuck"), [])
    with trio.fail_after(LIMIT_S):
        async with one_node.open_process() as caller:
            if way == "erpc":
                arguments = [caller.make_ref(), *mfa]
                caller.spawn_request(two.name, "erpc", "execute_call", arguments, monitor=True, reply="error_only")
            elif way == "call":
                gen.send_request(caller, (REX, two.name), (CALL, *mfa, USER))
            else:
                caller.send((REX, two.name), (caller.pid, (CALL, *mfa, USER)))
            await started.wait()
            assert not cancelled.is_set()
            if end == "node":
                await one_node.disconnect(two.name)
                await cancelled.wait()
        await cancelled.wait()
        await idle(two)
    assert two.is_connected(one_node.name) is (end == "process"), "nobody is to be dialled for the answer"


async def test_a_caller_without_time_is_still_there(me: Process, two: Node) -> None:
    """As on a BEAM: the function goes on."""
    done = trio.Event()
    go_on = trio.Event()

    async def slow() -> None:
        await go_on.wait()
        done.set()

    two.expose("here", {"slow": slow})
    request = gen.send_request(me, (REX, two.name), (CALL, Atom("here"), Atom("slow"), [], USER))
    me.demonitor(request)
    go_on.set()
    with trio.fail_after(LIMIT_S):
        await done.wait()


async def test_wrong_requests_are_answered(me: Process, two: Node) -> None:
    rex = (REX, two.name)
    unknown: list[Any] = [Atom("what"), (CALL, PY, ADD), (CALL, PY, ADD, [1, 2], USER, 1), [], b"", {}, ((),) * 5]
    for request in unknown:
        assert await gen.call(me, rex, request) == (BADRPC, Atom("notsup"))
    leaders: list[Any] = [Atom("nobody"), [], 1.5, {}]
    for leader in leaders:
        where: Term = (Atom("rpc"), Atom("set_group_leader"), [leader], [])
        answer = (BADRPC, (EXIT, (Atom("function_clause"), [where])))
        assert await gen.call(me, rex, (CALL, PY, ADD, [1, 2], leader)) == answer
    wrong: tuple[Any, ...] = (ADD, (1, 2), {})
    for arguments in wrong:
        (_, (_, (reason, _))) = await gen.call(me, rex, (CALL, PY, ADD, arguments, USER))
        assert reason == Atom("badarg")
    assert await gen.call(me, rex, (CALL, PY, ADD, [1, 2], USER)) == 3


async def test_wrong_messages_are_dropped(me: Process, two: Node) -> None:
    rex = (REX, two.name)
    stranger = me.make_ref()
    messages: list[Any] = [
        Atom("what"),
        (),
        [],
        (me.pid,),
        (me.pid, 1),
        (me.pid, (CALL, PY, ADD)),
        (1, (CALL, PY, ADD, [1, 2], USER)),
        (gen.GEN_CALL, 1, (CALL, PY, ADD, [1, 2], USER)),
        (gen.GEN_CAST, Atom("what")),
        (gen.GEN_CAST, (Atom("cast"), PY, ADD)),
        (Atom("DOWN"), stranger, Atom("process"), me.pid, Atom("normal")),
        {1: 2},
    ]
    for message in messages:
        me.send(rex, message)
    for spawned in ([me.make_ref(), PY, ADD], [1], [], [1, 2, 3, 4, 5]):
        me.spawn_request(two.name, "erpc", "execute_call", spawned, monitor=True, reply=False)
        down = await me.receive(timeout=LIMIT_S)
        assert down[4][0] == Atom("undef")
    assert await gen.call(me, rex, (CALL, PY, ADD, [1, 2], USER)) == 3


async def test_huge_arguments(two: Node, one_node: Node) -> None:
    huge = [b"x" * 5_000_000, list(range(200_000))]
    assert await one_node.erpc_call(two.name, "py", "later", [huge], LIMIT_S) == huge
    assert await one_node.rpc_block_call(two.name, "py", "later", [huge], LIMIT_S) == huge


async def test_what_runs_when_rex_is_killed_goes_on(
    two: Node, one_node: Node, me: Process, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever waits for an answer of that process gets an error. Callers are watched by its successor."""
    started = {way: trio.Event() for way in ("block", "message", "erpc", "gone")}
    ended: dict[str, trio.Event] = {way: trio.Event() for way in started}
    go_on = trio.Event()

    async def slow(way: bytes) -> bytes:
        started[way.decode()].set()
        try:
            await go_on.wait()
        except trio.Cancelled:
            ended[way.decode()].set()
            raise
        return way

    def mfa(way: str) -> Any:
        return (Atom("here"), Atom("slow"), [way])

    two.expose("here", {"slow": slow})
    rex = two.whereis("rex")
    assert rex is not None
    with trio.fail_after(LIMIT_S):
        async with one_node.open_process() as other:
            gone = one_node.spawn(_wait)
            ref = gen.send_request(me, (REX, two.name), (BLOCK_CALL, *mfa("block"), USER))
            other.send((REX, two.name), (other.pid, (CALL, *mfa("message"), USER)))
            other.send((REX, two.name), (gone, (CALL, *mfa("gone"), USER)))
            erpc = one_node.erpc_send_request(two.name, *mfa("erpc"))
            for event in started.values():
                await event.wait()

            me.exit(rex, Atom("kill"))
            message = await me.receive(lambda message: gen.is_response(message, ref))
            with pytest.raises(CalleeExited, match="killed"):
                gen.result(message, (REX, two.name))
            assert two.whereis("rex") not in (rex, None)
            assert f"child Atom('rex') ended: killed (an exit signal of {me.pid})" in caplog.text

            one_node.exit(gone, Atom("kill"))
            await ended["gone"].wait()
            assert await gen.call(me, (REX, two.name), (CALL, PY, ADD, [1, 2], USER)) == 3
            go_on.set()
            assert await other.receive() == (REX, b"message")
            assert await erpc.receive_response() == b"erpc"
    assert {way for way, event in ended.items() if event.is_set()} == {"gone"}


async def test_a_call_ends_with_its_caller_though_rex_is_killed_meanwhile(two: Node, one_node: Node) -> None:
    """The loss of the caller's node is being told then: nobody is dialled to ask for the caller."""
    started, cancelled = trio.Event(), trio.Event()

    async def stuck() -> None:
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    two.expose("here", {"stuck": stuck})
    caller, rex = one_node.spawn(_wait), two.whereis("rex")
    assert rex is not None
    with trio.fail_after(LIMIT_S):
        one_node.send((REX, two.name), (caller, (CALL, Atom("here"), Atom("stuck"), [], USER)))
        await started.wait()
        two.start_inline(KillerAtALoss(caller, rex))
        await one_node.disconnect(two.name)
        await cancelled.wait()
        await idle(two)
    assert two.whereis("rex") not in (rex, None)
    assert two.nodes("connected") == []


async def _wait(_process: Process) -> None:
    await trio.sleep_forever()
