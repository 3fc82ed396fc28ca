"""Sequential tracing goes through Python as through a BEAM (kernel, ``seq_trace``).

A driver on the BEAM sends, with a trace token, to a partner, and reports the tokens that come back. The same is done
with a partner on a second BEAM; but for who is who, the tokens must be the same, serial for serial.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from erlang_interop import Atom, Exit, InlineServer, Node, Pid, Process, Reference
from tests.interop.collectors import PATIENCE, Collector, collecting, until

if TYPE_CHECKING:
    from erlang_interop.testing.beam import Beam
    from tests.conftest import Otp

ANSWER, NONE = Atom("answer"), Atom("none")
LABELS: dict[str, Any] = {"a number": 17, "a big one": 1 << 80, "an atom": Atom("label"), "a term": (1, [b"x"])}


async def partner(process: Process) -> None:
    """``traced:partner/0`` in Python."""
    while True:
        sender, how, argument = await process.receive()
        match how.name:
            case "exit":
                raise Exit(argument)
            case "answer":
                process.send(sender, (process.pid, ANSWER))
            case "twice":
                process.send(sender, (process.pid, Atom("first")))
                process.send(sender, (process.pid, Atom("second")))
            case "send":
                process.send(argument, (process.pid, ANSWER))
            case "down":
                process.monitor(argument)
                await process.receive(lambda message: message[0] == Atom("DOWN"))
                process.send(sender, (process.pid, ANSWER))
            case "spawn":
                process.spawn_request(argument, "traced", "report", [sender])
                await process.receive(lambda message: message[0] == Atom("spawn_reply"))
                process.send(sender, (process.pid, Atom("spawned")))


async def report(process: Process, parent: Pid) -> None:
    """``traced:report/1`` in Python."""
    process.send(parent, (process.pid, (Atom("started"), process.trace_token)))


def in_roles(term: Any, roles: dict[Any, str]) -> Any:
    """``term`` with everybody by role; others are told by what they are."""
    if isinstance(term, (Pid, Reference)):
        return roles.get(term, type(term).__name__)
    if isinstance(term, (tuple, list)):
        return [in_roles(element, roles) for element in term]
    return term


async def story(
    beam: Beam, partner: Pid, how: str, argument: Any = NONE, count: int = 1, *, dest: Any = None, label: Any = 17
) -> Any:
    """What the driver got, with tokens; ``dest`` is what the partner is sent to by, if not by its pid."""
    # Connected before: to a node that it is only just dialling, a BEAM sends no token that is more than a number.
    where = dest or partner
    peer = where[1] if isinstance(where, tuple) else where.node
    assert await beam.eval("net_kernel:connect_node(N)", N=peer) is True
    source = "traced:run(Dest, How, Argument, Label, Count)"
    bindings = {"Dest": where, "How": Atom(how), "Argument": argument, "Label": label, "Count": count}
    driver, messages = await beam.eval(source, **bindings)
    assert len(messages) == count, messages
    return in_roles(messages, {driver: "driver", partner: "partner"})


@pytest.fixture
def other(fresh_beam: Callable[[], Beam]) -> Beam:
    """The BEAM whose partner shows how it has to be."""
    return fresh_beam()


#: What the partner is told, with which argument, and how many messages come of it.
STORIES: dict[str, tuple[str, Any, int]] = {
    "an answer": ("answer", NONE, 1),
    "two answers": ("twice", NONE, 2),
    "an answer to a name": ("name", NONE, 1),
    "an answer to an alias": ("alias", NONE, 1),
    "the exit of a linked process": ("exit", Atom("boom"), 1),
    "an untraced message in between": ("untraced", NONE, 1),
}


@pytest.mark.rule("Control messages: trace tokens travel on")
@pytest.mark.parametrize(("how", "argument", "count"), STORIES.values(), ids=STORIES)
async def test_tokens_through_a_process(
    node: Node, beam: Beam, other: Beam, how: str, argument: Any, count: int
) -> None:
    expected = await story(beam, await other.eval("traced:partner()"), how, argument, count)
    assert await story(beam, node.spawn(partner), how, argument, count) == expected
    if how == "untraced":
        assert expected[0][1] == []
    else:
        assert expected[0][1] == [3, 17, 7, "partner", 6], "sent as 6; answered as 7, behind 6"


@pytest.mark.rule("Control messages: trace tokens travel on")
async def test_a_down_does_not_end_the_tracing(node: Node, beam: Beam, other: Beam, otp: Otp) -> None:
    """It is no message that somebody sent. (Receiving one ended it in OTP 25.)"""
    dead = await beam.eval("plain_processes:dead_pid()")
    expected = await story(beam, await other.eval("traced:partner()"), "down", dead)
    came = await story(beam, node.spawn(partner), "down", dead)
    assert came[0][1] == [3, 17, 7, "partner", 6]
    assert (came == expected) is (otp.release > 25)


@pytest.mark.rule("Control messages: trace tokens travel on")
async def test_tokens_of_a_message_to_a_name(node: Node, beam: Beam, other: Beam) -> None:
    name = Atom("the_partner")
    theirs = await other.eval("P = traced:partner(), register(the_partner, P), P")
    expected = await story(beam, theirs, "answer", dest=(name, Atom(other.name)))
    ours = node.spawn(partner, name=name)
    assert await story(beam, ours, "answer", dest=(name, node.name)) == expected


@pytest.mark.rule("Control messages: trace tokens travel on")
async def test_tokens_of_a_message_to_an_alias(node: Node, beam: Beam, other: Beam) -> None:
    theirs, their_alias = await other.eval("traced:partner_alias([])")
    expected = await story(beam, theirs, "answer", dest=their_alias)
    aliases: list[Reference] = []

    async def with_alias(process: Process) -> None:
        aliases.append(process.alias())
        await partner(process)

    ours = node.spawn(with_alias)
    await until(lambda: bool(aliases))
    assert await story(beam, ours, "answer", dest=aliases[0]) == expected


@pytest.mark.rule("Control messages: trace tokens travel on")
async def test_tokens_of_a_spawn_request(node: Node, beam: Beam, other: Beam) -> None:
    """The request counts as two messages; the answer, the child's own message and its exit carry the token back."""
    node.expose("py", {"report": report}, with_process=True)
    nobody = await beam.eval("self()")
    await other.eval("code:ensure_loaded(traced), seq_trace:get_token()")  # loading them would be traced, too
    theirs = await story(beam, nobody, "spawn", (Atom(other.name), Atom("traced"), Atom("report")), 4)
    ours = await story(beam, nobody, "spawn", (node.name, Atom("py"), Atom("report")), 4)
    assert sorted(ours, key=str) == sorted(theirs, key=str)
    assert ours[0] == theirs[0]
    (message, token) = ours[0]
    assert (message[0], token) == (Atom("spawn_reply"), [3, 17, 7, "Pid", 6])


@pytest.mark.rule("Control messages: trace tokens travel on")
async def test_tokens_of_a_request_that_we_make(node: Node, beam: Beam, other: Beam) -> None:
    here = Atom(beam.name)
    expected = await story(beam, await other.eval("traced:partner()"), "partner_spawn", here, 2)
    came = await story(beam, node.spawn(partner), "partner_spawn", here, 2)
    assert sorted(came, key=str) == sorted(expected, key=str)
    assert all(token for _, token in came)


@pytest.mark.rule("Control messages: trace tokens travel on")
@pytest.mark.parametrize("label", LABELS.values(), ids=LABELS)
async def test_labels(node: Node, beam: Beam, label: Any) -> None:
    ((_, token),) = await story(beam, node.spawn(partner), "answer", label=label)
    assert token == [3, in_roles(label, {}), 7, "partner", 6]


@pytest.mark.rule("Control messages: trace tokens travel on")
async def test_tokens_through_an_inline_server(node: Node, beam: Beam) -> None:
    class Answering(InlineServer):
        def handle_message(self, message: Any) -> None:
            self.process.send(message[0], (self.process.pid, ANSWER))

    server = Answering()
    pid = node.start_inline(server)
    assert await story(beam, pid, "answer") == [[["partner", ANSWER], [3, 17, 7, "partner", 6]]]
    assert server.process.trace_token is None


@pytest.mark.rule("Control messages: what a system tracer sees")
async def test_a_system_tracer(node: Node, beam: Beam, other: Beam) -> None:
    """``seq_trace:set_system_tracer/1`` on the BEAM tells the way through Python in the right order.

    A server of the BEAM that got a token in another test has it until its next message, so this one has its own label.
    """
    label = Atom("tracer")
    async with collecting(beam) as there:
        told = []
        for pid in (await other.eval("traced:partner()"), node.spawn(partner)):
            await beam.eval("traced:set_tracer(P)", P=there.pid)
            ((_, token),) = await story(beam, pid, "answer", label=label)
            assert token == [3, label, 7, "partner", 6]
            events = await take_labelled(there, label, 2)
            await beam.eval("traced:set_tracer(false)")
            told.append([[event[0], event[1], event[2][0], event[2][1]] for event in events])
        seq_trace = Atom("seq_trace")
        assert (
            told[1]
            == told[0]
            == [
                [seq_trace, label, Atom("send"), (2, 6)],
                [seq_trace, label, Atom("receive"), (6, 7)],
            ]
        )


async def take_labelled(there: Collector, label: Atom, count: int) -> list[Any]:
    """The next events with this label."""
    events: list[Any] = []
    while len(events) < count:
        events += [event for event in await there.take(1) if event[1] == label]
    return events


@pytest.mark.rule("Control messages: trace tokens travel on")
async def test_a_trace_that_begins_here(node: Node, beam: Beam) -> None:
    async with collecting(beam) as there, node.open_process() as me:
        echo = await beam.eval("plain_processes:spawn_echo()")
        me.set_trace_token((1, Atom("mine"), 10, me.pid, 4))
        me.send(echo, (me.pid, 1))
        await me.receive(timeout=PATIENCE)
        assert me.trace_token == (1, Atom("mine"), 12, echo, 11)
        await there.run("erlang", "send", me.pid, 2)
        await me.receive(timeout=PATIENCE)
        assert me.trace_token is None, "the collector is not traced"
