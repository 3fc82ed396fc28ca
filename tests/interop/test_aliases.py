"""Process aliases, both ways: how each of their modes ends (ERTS manual, "Process Aliases")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from erlang_interop import NO_REPLY, Atom, CallTimeout, GenServer, Node, Process, Reference
from tests.interop.collectors import PATIENCE, Collector, collecting, leftovers, until, wait_for_ever

if TYPE_CHECKING:
    from erlang_interop import From
    from erlang_interop.testing.beam import Beam

DOWN, PROCESS, NOPROC = Atom("DOWN"), Atom("process"), Atom("noproc")
ALIAS, EXPLICIT, REPLY = Atom("alias"), Atom("explicit_unalias"), Atom("reply")


async def through(there: Collector, me: Process, alias: Reference, *messages: Any) -> list[Any]:
    """What of ``messages``, which the BEAM sends to ``alias``, has reached ``me``."""
    for message in messages:
        assert await there.run("erlang", "send", alias, message) == message
    await there.round_trip(me)
    return [me.receive_nowait() for _ in range(len(me.mailbox))]


async def through_theirs(me: Process, there: Collector, alias: Reference, *messages: Any) -> list[Any]:
    """What of ``messages``, which ``me`` sends to ``alias``, has reached the BEAM's process."""
    for message in messages:
        me.send(alias, message)
    await there.round_trip(me)
    return await there.take(await there.waiting())


# -------------------------------------------------------------------------------------------------------------- of ours


@pytest.mark.rule("Aliases: explicit_unalias")
async def test_an_alias_of_ours(node: Node, beam: Beam) -> None:
    async with collecting(beam) as there, node.open_process() as me:
        alias = me.alias()
        assert await through(there, me, alias, 1, 2) == [1, 2]
        assert me.unalias(alias) is True
        assert me.unalias(alias) is False
        assert await through(there, me, alias, 3) == []
        assert leftovers(node) == {}


@pytest.mark.rule("Aliases: reply")
async def test_a_reply_alias_of_ours(node: Node, beam: Beam) -> None:
    async with collecting(beam) as there, node.open_process() as me:
        assert await through(there, me, me.alias(reply=True), 1, 2) == [1]
        assert leftovers(node) == {}


@pytest.mark.rule("Aliases: demonitor")
@pytest.mark.parametrize("how", ["demonitored", "fired"])
async def test_a_demonitor_alias_of_ours(node: Node, beam: Beam, how: str) -> None:
    async with collecting(beam) as there, collecting(beam) as watched, node.open_process() as me:
        alias = me.monitor(watched.pid, alias="demonitor")
        assert await through(there, me, alias, 1, 2) == [1, 2]
        if how == "demonitored":
            assert me.demonitor(alias) is True
        else:
            await beam.eval("collector:stop(P)", P=watched.pid)
            assert (await me.receive(timeout=PATIENCE))[:2] == (DOWN, alias)
        assert await through(there, me, alias, 3) == []
        assert leftovers(node) == {}


@pytest.mark.rule("Aliases: reply_demonitor")
@pytest.mark.parametrize("how", ["demonitored", "fired", "answered"])
async def test_a_reply_demonitor_alias_of_ours(node: Node, beam: Beam, how: str) -> None:
    async with collecting(beam) as there, collecting(beam) as watched, node.open_process() as me:
        alias = me.monitor(watched.pid, alias="reply_demonitor")
        if how == "demonitored":
            assert me.demonitor(alias) is True
        elif how == "fired":
            await beam.eval("collector:stop(P)", P=watched.pid)
            assert (await me.receive(timeout=PATIENCE))[:2] == (DOWN, alias)
        else:
            assert await through(there, me, alias, 1) == [1]
            assert me.demonitor(alias) is False, "the monitor ended with the answer"
            await until_unwatched(beam, watched)
        assert await through(there, me, alias, 2) == []
        assert leftovers(node) == {}


async def until_unwatched(beam: Beam, watched: Collector) -> None:
    async def so() -> bool:
        monitored_by: list[Any] = await beam.eval("plain_processes:monitored_by(P)", P=watched.pid)
        return not monitored_by

    await until(so)


@pytest.mark.rule("Aliases: explicit_unalias")
async def test_an_alias_of_ours_that_outlives_its_monitor(node: Node, beam: Beam) -> None:
    async with collecting(beam) as there, node.open_process() as me:
        alias = me.monitor(("nobody", beam.name), alias="explicit_unalias")
        down = await me.receive(timeout=PATIENCE)
        assert down == (DOWN, alias, PROCESS, (Atom("nobody"), Atom(beam.name)), NOPROC)
        assert await through(there, me, alias, 1, 2) == [1, 2]
        assert me.unalias(alias) is True
        assert leftovers(node) == {}


@pytest.mark.rule("Aliases: of a process that has ended")
async def test_an_alias_of_a_process_of_ours_that_has_ended(node: Node, beam: Beam) -> None:
    async with collecting(beam) as there, node.open_process() as me:
        async with node.open_process() as other:
            alias = other.alias()
        assert await through(there, me, alias, 1) == []
        assert leftovers(node) == {}


# ------------------------------------------------------------------------------------------------------------ of a BEAM


@pytest.mark.rule("Aliases: explicit_unalias")
async def test_an_alias_of_theirs(node: Node, beam: Beam) -> None:
    async with collecting(beam) as there, node.open_process() as me:
        alias = await there.run("erlang", "alias", [EXPLICIT])
        assert await through_theirs(me, there, alias, 1, 2) == [1, 2]
        assert await there.run("erlang", "unalias", alias) is True
        assert await through_theirs(me, there, alias, 3) == []


@pytest.mark.rule("Aliases: reply")
async def test_a_reply_alias_of_theirs(node: Node, beam: Beam) -> None:
    async with collecting(beam) as there, node.open_process() as me:
        alias = await there.run("erlang", "alias", [REPLY])
        assert await through_theirs(me, there, alias, 1, 2) == [1]


@pytest.mark.rule("Aliases: demonitor")
@pytest.mark.parametrize("how", ["demonitored", "fired"])
async def test_a_demonitor_alias_of_theirs(node: Node, beam: Beam, how: str) -> None:
    watched = node.spawn(wait_for_ever)
    async with collecting(beam) as there, node.open_process() as me:
        alias = await there.run("erlang", "monitor", PROCESS, watched, [(ALIAS, Atom("demonitor"))])
        assert await through_theirs(me, there, alias, 1, 2) == [1, 2]
        if how == "demonitored":
            assert await there.run("erlang", "demonitor", alias) is True
        else:
            me.exit(watched, Atom("kill"))
            assert await there.take(1) == [(DOWN, alias, PROCESS, watched, Atom("killed"))]
        assert await through_theirs(me, there, alias, 3) == []
        await until(lambda: leftovers(node) == {})


@pytest.mark.rule("Aliases: reply_demonitor")
async def test_a_reply_demonitor_alias_of_theirs(node: Node, beam: Beam) -> None:
    """The answer ends their monitor on our process as well."""
    watched = node.spawn(wait_for_ever)
    async with collecting(beam) as there, node.open_process() as me:
        alias = await there.run("erlang", "monitor", PROCESS, watched, [(ALIAS, Atom("reply_demonitor"))])
        assert await through_theirs(me, there, alias, 1, 2) == [1]
        await until(lambda: leftovers(node) == {})
        me.exit(watched, Atom("kill"))
        await there.round_trip(me)
        assert await there.waiting() == 0


@pytest.mark.rule("Aliases: of a process that has ended")
async def test_an_alias_of_a_process_of_theirs_that_has_ended(node: Node, beam: Beam) -> None:
    async with collecting(beam) as there, node.open_process() as me:
        async with collecting(beam) as other:
            alias = await other.run("erlang", "alias")
        me.send(alias, 1)
        await there.round_trip(me)
        assert node.is_connected(beam.name)


# ---------------------------------------------------------------------------------------------------- what they are for


class Slow(GenServer):
    """Answers when it is told to."""

    async def init(self) -> None:
        self.waiting: list[From] = []

    async def handle_call(self, request: Any, from_: From) -> Any:
        self.waiting.append(from_)
        return NO_REPLY

    async def handle_cast(self, request: Any) -> None:
        for from_ in self.waiting:
            self.reply(from_, Atom("late"))


@pytest.mark.rule("Aliases: a late answer to a gen_server call is dropped")
async def test_a_late_answer_to_a_beam(node: Node, beam: Beam) -> None:
    await Slow.start(node, name="slow")
    async with collecting(beam) as there, node.open_process() as me:
        server = (Atom("slow"), node.name)
        raised, class_, (timeout, _) = await there.run("gen_server", "call", server, Atom("wait"), 100)
        assert (raised, class_, timeout) == (Atom("raised"), Atom("exit"), Atom("timeout"))
        await there.run("gen_server", "cast", server, Atom("answer"))
        await there.run("gen_server", "cast", server, Atom("answer"))  # once more: an answer to no alias
        await there.round_trip(me)
        assert await there.waiting() == 0


@pytest.mark.rule("Aliases: a late answer to a gen_server call is dropped")
async def test_a_late_answer_of_a_beam(node: Node, beam: Beam) -> None:
    """The BEAM answers to the alias in the call, which is none any more."""
    await node.connect(beam.name)  # that may take longer than the call
    async with collecting(beam) as there, node.open_process() as me:
        with pytest.raises(CallTimeout):
            await node.call(there.pid, Atom("request"), timeout=0.1)
        ((call, from_, request),) = await there.take(1)
        assert (call, request) == (Atom("$gen_call"), Atom("request"))
        await there.run("gen_server", "reply", from_, Atom("late"))
        await there.round_trip(me)
        assert len(me.mailbox) == 0
        assert leftovers(node) == {}
