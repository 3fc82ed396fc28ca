from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from erlang_interop import Atom, Exit, InlineServer, Node, Process, Term
from erlang_interop.testing.cluster import open_cluster, settled
from zenmon_node import Member, multi_call_reply
from zenmon_node.pacing import SLICE
from zenmon_node.syn.multi_call import multi_call

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

CALL = Atom("syn_multi_call")


async def answers(process: Process) -> None:
    match await process.receive():
        case (Atom("syn_multi_call"), message, caller, meta):
            multi_call_reply(process, caller, (message, meta))
            multi_call_reply(process, caller, "once more")


async def dies(process: Process) -> None:
    await process.receive()
    raise Exit(Atom("no"))


async def says_nothing(process: Process) -> None:
    await trio.sleep_forever()


class AnswersAtOnce(InlineServer):
    def handle_message(self, message: Term) -> None:
        _, _, caller, meta = message
        multi_call_reply(self.process, caller, meta)


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Node, Node]]:
    async with open_cluster("a@test", "b@test") as (a, b):
        await a.connect(b.name)
        yield a, b


def members_of(*nodes_and_functions: tuple[Node, Any]) -> list[Member]:
    return [Member(node.spawn(function), number) for number, (node, function) in enumerate(nodes_and_functions)]


async def test_who_answers_and_who_does_not(pair: tuple[Node, Node], autojump_clock: MockClock) -> None:
    a, b = pair
    members = members_of((a, answers), (b, answers), (b, dies), (a, says_nothing), (b, says_nothing), (a, dies))
    before = trio.current_time()
    replies, bad = await multi_call(a, members, Atom("hi"), 2.0)
    assert trio.current_time() - before == pytest.approx(2.0)
    assert replies == [(member, (Atom("hi"), member.meta)) for member in members[:2]]
    assert bad == members[2:]


async def test_it_ends_when_nobody_is_left_to_answer(pair: tuple[Node, Node], autojump_clock: MockClock) -> None:
    a, b = pair
    before = trio.current_time()
    members = members_of((a, dies), (b, dies), (b, answers))
    await settled()
    gone = Member(a.spawn(dies), 3)
    a.exit(gone.pid, Atom("kill"))
    await settled()
    assert len((await multi_call(a, [*members, gone], 1, 5.0)).bad) == 3
    assert await multi_call(a, [], 1, 5.0) == ([], [])
    assert trio.current_time() == before


async def test_members_that_answer_at_once(pair: tuple[Node, Node]) -> None:
    a, _ = pair
    members = [Member(a.start_inline(AnswersAtOnce()), number) for number in range(SLICE + 1)]
    replies, bad = await multi_call(a, members, 1, 60.0)
    assert [reply for _, reply in replies] == list(range(SLICE + 1))
    assert bad == []


async def test_nothing_of_it_is_left_behind(pair: tuple[Node, Node], autojump_clock: MockClock) -> None:
    a, b = pair
    members = members_of((a, says_nothing), (b, says_nothing))
    await settled()
    before = [node.statistics() for node in pair]
    with trio.move_on_after(1):
        await multi_call(a, members, 1, 60.0)
    await multi_call(a, members, 1, 1.0)
    await settled()
    after = [node.statistics() for node in pair]
    for key in ("processes", "monitors"):
        assert [statistics[key] for statistics in after] == [statistics[key] for statistics in before]


async def test_nonsense_is_no_answer(pair: tuple[Node, Node], autojump_clock: MockClock) -> None:
    a, b = pair

    async def nonsense(process: Process) -> None:
        _, _, (caller, ref), _ = await process.receive()
        for message in (Atom("hi"), (Atom("syn_multi_call_reply"), process.make_ref(), 1), (1, ref, 1)):
            process.send(caller, message)
        await trio.sleep_forever()

    members = members_of((b, nonsense))
    assert await multi_call(a, members, 1, 1.0) == ([], members)
