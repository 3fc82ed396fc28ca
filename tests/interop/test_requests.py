"""Many requests at once, ``gen_server`` calls and ``erpc``, to genuine BEAMs that answer in their own time."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest

from erlang_interop import (
    Atom,
    CalleeExited,
    CallError,
    CallTimeout,
    Node,
    NodeDownError,
    NoProcess,
    NoSuchNode,
    RemoteError,
    RemoteExit,
    Requests,
)
from tests.interop.collectors import PATIENCE, Collector, collecting, leftovers, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from erlang_interop import From, Pid
    from erlang_interop.testing.beam import Beam
    from tests.conftest import BeamFactory

NOBODY: Final = "nobody@127.0.0.1"


class Gate:
    """A process of a BEAM that is asked, as a ``gen_server`` is, and answers when the test says so.

    Until then the questions wait in the mailbox of a collector.
    """

    def __init__(self, node: Node, there: Collector) -> None:
        self.node = node
        self.there = there

    def call(self, question: Any) -> Any:
        """Ask it from here."""
        return self.node.send_request(self.there.address, question)

    def erpc(self, question: Any) -> Any:
        """Have a process of the BEAM ask it, by ``erpc``."""
        arguments = [self.there.name, question, Atom("infinity")]
        return self.node.erpc_send_request(self.there.beam.name, "gen_server", "call", arguments)

    async def asked(self, count: int) -> dict[Any, From]:
        """So many questions, once they are there, each with who is to be answered."""
        return {question: from_ for _gen_call, from_, question in await self.there.take(count)}

    async def answer(self, *answers: tuple[From, Any]) -> None:
        """Answer them in this order, by one process."""
        source = "[gen_server:reply(From, Answer) || {From, Answer} <- Answers], ok"
        await self.there.beam.eval(source, Answers=list(answers))

    async def unwatched(self) -> None:
        """Return when nobody waits for an answer any more."""

        async def so() -> bool:
            watchers = await self.there.beam.eval("process_info(P, monitored_by)", P=self.there.pid)
            return bool(watchers == (Atom("monitored_by"), []))

        await until(so)


@asynccontextmanager
async def gate_at(node: Node, beam: Beam) -> AsyncIterator[Gate]:
    """A gate; at the end nothing is left of the requests on the node."""
    alone = node.statistics()["processes"]
    async with collecting(beam) as there:
        yield Gate(node, there)
    await until(lambda: leftovers(node) == {} and node.statistics()["processes"] == alone)


@pytest.fixture
async def calculator(beam: Beam) -> AsyncIterator[Pid]:
    """A genuine gen_server."""
    pid = await beam.eval("calculator:start()")
    yield pid
    await beam.eval("exit(P, kill)", P=pid)


async def test_a_quick_node_and_a_slow_one(node: Node, beam: Beam, calculator: Pid, fresh_beam: BeamFactory) -> None:
    """What the quick one answers comes while the slow one has not answered; that comes in the order of its answers."""
    numbers = range(20)
    async with gate_at(node, fresh_beam(hidden=True)) as gate:
        requests = Requests[tuple[str, int]]()
        for number in numbers:
            requests.add(gate.call(number), ("slow call", number))
            requests.add(node.erpc_send_request(beam.name, "erlang", "abs", [-number]), ("erpc", number))
            requests.add(gate.erpc(b"%d" % number), ("slow erpc", number))
            requests.add(node.send_request(calculator, (Atom("add"), number, 0)), ("call", number))
        quick = [await requests.receive_response(PATIENCE) for _ in range(40)]
        assert sorted(quick) == [((kind, number), number) for kind in ("call", "erpc") for number in numbers]
        assert await requests.wait_response(0) is False
        waiting = await gate.asked(40)
        await gate.answer(*[(waiting[number], number**2) for number in reversed(numbers)])
        for number in reversed(numbers):
            assert await requests.receive_response(PATIENCE) == (("slow call", number), number**2)
        assert requests.labels() == [("slow erpc", number) for number in numbers]
        await gate.answer(*[(from_, question) for question, from_ in waiting.items() if isinstance(question, bytes)])
        outcomes = {label: outcome async for label, outcome in requests.responses(PATIENCE)}
        assert outcomes == {("slow erpc", number): b"%d" % number for number in numbers}
        await gate.unwatched()


async def test_what_fails_has_its_label_and_the_others_go_on(node: Node, beam: Beam, fresh_beam: BeamFactory) -> None:
    dying = fresh_beam(hidden=True)
    lost = Gate(node, Collector(dying, "gate", await dying.eval("collector:start(gate)")))
    async with gate_at(node, beam) as gate:
        requests = Requests[str]()
        for label, request in (
            ("first", gate.call(b"first")),
            ("killed", gate.erpc(b"killed")),
            ("second", gate.erpc(b"second")),
            ("call lost", lost.call(1)),
            ("erpc lost", lost.erpc(2)),
            ("ended", node.send_request(await beam.eval("calculator:start()"), (Atom("stop_silent"), Atom("bye")))),
            ("no process", node.send_request(("nobody_here", beam.name), 1)),
            ("badarg", node.erpc_send_request(beam.name, "erlang", "hd", [[]])),
            ("no node", node.erpc_send_request(NOBODY, "erlang", "node", [])),
        ):
            requests.add(request, label)
        waiting = await gate.asked(3)
        await lost.asked(2)
        await beam.eval("exit(P, kill)", P=waiting[b"killed"][0])
        dying.kill()
        failed: dict[str, CallError] = {}
        for _ in range(7):
            with pytest.raises(CallError) as error:
                await requests.receive_response(PATIENCE)
            failed[error.value.label] = error.value
        assert {label: (type(error), error.reason) for label, error in failed.items()} == {
            "killed": (RemoteExit, Atom("killed")),
            "call lost": (NodeDownError, (Atom("nodedown"), Atom(dying.name))),
            "erpc lost": (NodeDownError, (Atom("erpc"), Atom("noconnection"))),
            "ended": (CalleeExited, Atom("bye")),
            "no process": (NoProcess, Atom("noproc")),
            "badarg": (RemoteError, Atom("badarg")),
            "no node": (NodeDownError, (Atom("erpc"), Atom("noconnection"))),
        }
        assert isinstance(failed["no node"].__cause__, NoSuchNode)
        await gate.answer((waiting[b"second"], 2), (waiting[b"first"], 1))
        outcomes = {label: outcome async for label, outcome in requests.responses(PATIENCE)}
        assert outcomes == {"first": 1, "second": 2}


@pytest.mark.parametrize("way", ["the time of all is up", "the time of one is up", "abandoned", "the block is left"])
async def test_those_given_up_leave_nothing_behind(either_node: Node, beam: Beam, way: str) -> None:
    """The BEAM is told, or is not watched any more; what it answers later is dropped on arrival."""
    async with gate_at(either_node, beam) as gate, either_node.open_process() as me:
        with Requests[int]() as requests:
            for number in range(4):
                requests.add((gate.call, gate.erpc)[number % 2](number), number)
            waiting = await gate.asked(4)
            await gate.answer((waiting.pop(2), b"in time"))
            assert await requests.wait_response(PATIENCE) is True
            late: dict[int, Any] = {}
            if way == "the time of all is up":
                late = {label: outcome async for label, outcome in requests.responses(0.05)}
                assert late.pop(2) == b"in time"
            elif way == "the time of one is up":
                assert await requests.receive_response(0) == (2, b"in time")
                for _ in range(3):
                    with pytest.raises(CallTimeout, match=r"within 0\.05 s") as error:
                        await requests.receive_response(0.05)
                    late[error.value.label] = error.value
            elif way == "abandoned":
                requests.abandon()
        if way in ("abandoned", "the block is left"):
            late = {label: outcome async for label, outcome in requests.responses()}
            assert late.pop(2) == b"in time"
        assert {label: type(outcome) for label, outcome in late.items()} == dict.fromkeys([0, 1, 3], CallTimeout)
        assert {label: outcome.label for label, outcome in late.items()} == {0: 0, 1: 1, 3: 3}
        # Those that ask by erpc go on there, and their answers find nobody here any more.
        answers = [(waiting[number], b"late") for number in (0, 1, 3)]
        source = "[gen_server:reply(From, Answer) || {From, Answer} <- Answers], Me ! done, ok"
        await beam.eval(source, Answers=answers, Me=me.pid)
        assert await me.receive(timeout=PATIENCE) == Atom("done")
        await gate.unwatched()
