"""Requests under way, alone and in collections; with genuine servers and ``erpc``: tests/interop/test_requests.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from erlang_interop import (
    Atom,
    CallTimeout,
    EncodeError,
    EpmdAddress,
    InlineServer,
    Node,
    NoProcess,
    RemoteError,
    Requests,
    open_node,
)
from erlang_interop.otp import gen
from tests.unit.otp.rpc_peer import exposed_here, idle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from erlang_interop import From, Request, Term

#: Seconds that a test waits for what should come at once.
PATIENCE = 30.0


class Desk(InlineServer):
    """It answers what it was asked when the test says so."""

    def __init__(self, home: Node) -> None:
        self.home = home
        home.start_inline(self, name="desk")
        self.asked: dict[Term, From] = {}

    def handle_message(self, message: Any) -> None:
        _gen_call, from_, request = message
        self.asked[request] = from_

    def answer(self, *questions: Term) -> None:
        """Answer each with itself and ``!``."""
        for question in questions:
            gen.reply(self.process, self.asked.pop(question), f"{question}!")


@pytest.fixture
async def desk(one_node: Node) -> AsyncIterator[Desk]:
    """A desk on a node that has nothing left of any request in the end."""
    desk = Desk(one_node)
    yield desk
    one_node.exit(desk.process.pid, Atom("kill"))
    await idle(one_node)


def ask(desk: Desk, question: Term) -> Request:
    return desk.home.send_request("desk", question)


def asked(desk: Desk, *labels: str) -> Requests[str]:
    """A collection with a question of that name for each label."""
    requests = Requests[str]()
    for label in labels:
        requests.add(ask(desk, label), label)
    return requests


async def test_one_request(desk: Desk) -> None:
    request = ask(desk, "why")
    assert await request.wait_response(0) is False
    desk.answer("why")
    assert await request.wait_response() is True
    assert await request.receive_response() == "why!"
    with pytest.raises(NoProcess):
        await desk.home.send_request("nobody", 1).receive_response(PATIENCE)
    with pytest.raises(CallTimeout, match=r"desk did not answer within 0\.01 s"):
        await ask(desk, "when").receive_response(0.01)
    given_up = ask(desk, "who")
    given_up.abandon()
    with pytest.raises(CallTimeout, match="desk did not answer before the request was given up"):
        await given_up.receive_response()
    desk.answer("when", "who")  # nobody has these any more


async def test_what_cannot_be_sent_is_no_request(two_nodes: tuple[Node, Node]) -> None:
    one, two = two_nodes
    await one.connect(two.name)
    with pytest.raises(EncodeError):
        one.send_request(("desk", two.name), object())
    await idle(one)


async def test_two_tasks_may_wait_for_one_request(desk: Desk) -> None:
    request = ask(desk, "why")
    there: list[bool] = []

    async def wait(timeout: float | None) -> None:
        there.append(await request.wait_response(timeout))

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            for timeout in (None, 1000.0, None):
                nursery.start_soon(wait, timeout)
            await trio.testing.wait_all_tasks_blocked()
            await wait(0.01)
            assert there == [False]
            desk.answer("why")
    assert there == [False, True, True, True]


async def test_answers_come_with_their_labels_in_their_order(desk: Desk) -> None:
    requests = asked(desk, "a", "b", "c")
    desk.answer("c", "a")
    assert (len(requests), requests.labels()) == (3, ["a", "b", "c"])
    assert await requests.receive_response() == ("c", "c!")
    assert await requests.receive_response(0) == ("a", "a!")
    assert (len(requests), requests.labels()) == (1, ["b"])
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def receive() -> None:
                assert await requests.receive_response() == ("b", "b!")

            await trio.testing.wait_all_tasks_blocked()
            desk.answer("b")
    assert len(requests) == 0


async def test_a_label_is_any_value(desk: Desk) -> None:
    requests = Requests[Any]()
    label = {"not": ["hashable"]}
    for question in ("a", "b"):
        requests.add(ask(desk, question), label)
    requests.add(ask(desk, "c"), None)
    desk.answer("b", "a", "c")
    assert [outcome async for outcome in requests.responses()] == [(label, "b!"), (label, "a!"), (None, "c!")]


async def test_an_error_has_the_label_and_loses_nobody(desk: Desk) -> None:
    requests = asked(desk, "a")
    requests.add(desk.home.send_request("nobody", 1), "wrong name")
    with pytest.raises(NoProcess, match="nobody is not registered") as error:
        await requests.receive_response(PATIENCE)
    assert error.value.label == "wrong name"
    desk.answer("a")
    assert await requests.receive_response(PATIENCE) == ("a", "a!")
    with pytest.raises(NoProcess) as alone:
        await desk.home.call("nobody", 1)
    assert alone.value.label is None


async def test_both_kinds_in_one_collection(two_nodes: tuple[Node, Node]) -> None:
    one, two = two_nodes
    exposed_here(two)
    desk = Desk(two)
    outcomes: dict[str, Any] = {}
    with trio.fail_after(PATIENCE), Requests[str]() as requests:
        requests.add(one.send_request(("desk", two.name), b"why"), "a call")
        requests.add(one.erpc_send_request(two.name, "py", "add", [1, 2]), "an erpc")
        requests.add(one.erpc_send_request(two.name, "py", "div", [1, 0]), "a failure")
        async for label, outcome in requests.responses():
            outcomes[label] = outcome
            if len(requests) == 1:
                assert requests.labels() == ["a call"]
                gen.reply(two, desk.asked[b"why"], b"because")
    assert (outcomes["a call"], outcomes["an erpc"]) == (b"because", 3)
    assert isinstance(outcomes["a failure"], RemoteError)
    assert outcomes["a failure"].label == "a failure"
    two.exit(desk.process.pid, Atom("kill"))
    for node in two_nodes:
        await idle(node)


async def test_the_time_of_all_is_up(desk: Desk) -> None:
    """Who has answered has; each of the others has an error of its own, and its late answer is dropped."""
    requests = asked(desk, "a", "b", "c")
    desk.answer("b")
    outcomes = {label: outcome async for label, outcome in requests.responses(timeout=0.01)}
    desk.answer("a", "c")
    assert outcomes.pop("b") == "b!"
    for label in ("a", "c"):
        late = outcomes.pop(label)
        assert isinstance(late, CallTimeout)
        assert (late.label, late.reason) == (label, Atom("timeout"))
        assert "did not answer within 0.01 s" in str(late)


async def test_a_receive_whose_time_is_up(desk: Desk) -> None:
    requests = asked(desk, "a", "b")
    for label in ("a", "b"):
        with pytest.raises(CallTimeout) as error:
            await requests.receive_response(0.01)
        assert error.value.label == label
        assert desk.home.statistics()["aliases"] == 0
    assert len(requests) == 0


async def test_wait_response_gives_up_nothing(desk: Desk) -> None:
    requests = asked(desk, "a", "b")
    assert await requests.wait_response(0) is False
    assert await requests.wait_response(0.01) is False
    desk.answer("b")
    assert await requests.wait_response() is True
    assert await requests.wait_response() is True
    assert await requests.receive_response(0) == ("b", "b!")
    desk.answer("a")
    assert await requests.receive_response(0) == ("a", "a!")
    assert await requests.wait_response() is False


async def test_no_request_is_left() -> None:
    requests = Requests[str]()
    with pytest.raises(LookupError, match="no request is under way"):
        await requests.receive_response()
    assert [outcome async for outcome in requests.responses()] == []


async def test_leaving_the_block_gives_up_the_rest(desk: Desk) -> None:
    with asked(desk, "a", "b") as requests:
        assert desk.home.statistics()["aliases"] == 2
    assert desk.home.statistics()["aliases"] == 0
    desk.answer("a", "b")  # dropped on arrival
    async for label, outcome in requests.responses():
        assert isinstance(outcome, CallTimeout)
        assert (label, "before the request was given up" in str(outcome)) == (outcome.label, True)
    assert len(requests) == 0


async def test_one_of_them_is_given_up(desk: Desk) -> None:
    requests = Requests[str]()
    first, second = ask(desk, "a"), ask(desk, "b")
    requests.add(first, "a")
    requests.add(second, "b")
    second.abandon()
    with pytest.raises(CallTimeout, match="given up") as error:
        await requests.receive_response(PATIENCE)
    assert error.value.label == "b"
    desk.answer("a")
    assert await requests.receive_response(PATIENCE) == ("a", "a!")


async def test_a_cancelled_receive_takes_nothing(desk: Desk) -> None:
    requests = asked(desk, "a", "b")
    with trio.move_on_after(0.01) as waiting:
        await requests.receive_response()
    assert waiting.cancelled_caught
    desk.answer("a")
    with trio.CancelScope() as scope:
        scope.cancel()
        await requests.receive_response()
    assert scope.cancelled_caught
    assert requests.labels() == ["a", "b"]
    desk.answer("b")
    assert [label async for label, _ in requests.responses()] == ["a", "b"]


async def test_a_request_is_added_when_it_has_its_answer(desk: Desk) -> None:
    request = ask(desk, "a")
    desk.answer("a")
    assert await request.receive_response() == "a!"
    requests = Requests[int]()
    requests.add(request, 1)
    assert await requests.receive_response(0) == (1, "a!")
    for collection in (requests, Requests[int]()):
        with pytest.raises(ValueError, match="in a collection already"):
            collection.add(request, 2)
    assert len(requests) == 0


async def test_requests_that_come_while_others_are_received(desk: Desk) -> None:
    requests = asked(desk, "0")
    seen: list[str] = []
    desk.answer("0")
    async for label, _ in requests.responses(PATIENCE):
        seen.append(label)
        if len(seen) < 5:
            following = str(len(seen))
            requests.add(ask(desk, following), following)
            desk.answer(following)
    assert seen == ["0", "1", "2", "3", "4"]


async def test_several_tasks_share_the_answers(desk: Desk) -> None:
    labels = [str(number) for number in range(50)]
    requests = asked(desk, *labels)
    seen: list[str] = []

    async def receive() -> None:
        async for label, outcome in requests.responses(PATIENCE):
            assert outcome == f"{label}!"
            seen.append(label)

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(receive)
            for number, label in enumerate(labels):
                desk.answer(label)
                if number % 7 == 0:
                    await trio.testing.wait_all_tasks_blocked()
    assert sorted(seen, key=int) == labels


async def test_the_node_is_closed_meanwhile(desk: Desk, epmd_address: EpmdAddress) -> None:
    async with open_node("closed@127.0.0.1", cookie="secret", epmd=epmd_address) as node:
        requests = Requests[int]()
        requests.add(node.send_request(("desk", desk.home.name), b"why"), 1)
    with pytest.raises(CallTimeout, match="given up"):
        await requests.receive_response(PATIENCE)
