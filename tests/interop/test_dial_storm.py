"""Nodes that dial each other at the same moment, hundreds of times: always one connection, one nodeup, nothing lost."""

from __future__ import annotations

import secrets
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from erlang_interop import Atom, EpmdAddress, Node, NodeUp, Pid, Process
from erlang_interop.runtime.epmd import look_up
from tests.handshaking import dialling, listening
from tests.interop.collectors import PATIENCE, Collector, collecting, has_lost, is_among_nodes, until
from tests.unit.runtime.test_connections import NAMES_IN_ORDER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from erlang_interop import NodeEvent, Term
    from erlang_interop.testing.beam import Beam, Epmd
    from tests.conftest import BeamFactory
    from tests.interop.conftest import NodeOpener

ROUNDS = 200
#: Callers on each side in each round.
CALLERS = 3
SINK = Atom("sink")

ONE_CONNECTION = pytest.mark.rule("Connections: both dial at once, one connection and one nodeup remain")
THREE_NODES = pytest.mark.rule("Connections: three nodes dial one another at once")


class Ours:
    """A node of ours in a storm: what it is told of others, and a process that gets their messages."""

    def __init__(self, node: Node, sink: Process) -> None:
        self.node = node
        self.sink = sink
        self.events: list[NodeEvent] = []
        node.watch_nodes(self.events.append)

    def take_events(self) -> list[tuple[str, Atom]]:
        events = self.events[:]
        self.events.clear()
        return [("up" if isinstance(event, NodeUp) else "down", event.name) for event in events]

    async def dial(self, peers: Sequence[Atom], tag: Term) -> None:
        """As ``dialler:dial_all`` on a BEAM."""

        async def dial_and_send(peer: Atom, number: int) -> None:
            await self.node.connect(peer)
            self.sink.send((SINK, peer), (tag, number))

        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for number in range(1, CALLERS + 1):
                    for peer in peers:
                        nursery.start_soon(dial_and_send, peer, number)

    async def received(self, count: int) -> Counter[object]:
        with trio.fail_after(PATIENCE):
            return Counter([await self.sink.receive() for _ in range(count)])

    async def cut(self, peer: Atom) -> None:
        """Close the socket, as a broken network would."""
        stream = self.node._router.peers[peer].stream
        assert stream is not None
        stream.abort()


@asynccontextmanager
async def ours(opened: NodeOpener, name: str) -> AsyncIterator[Ours]:
    async with opened(name) as node, node.open_process(SINK) as sink:
        yield Ours(node, sink)


class Theirs:
    """A BEAM in a storm: a process that gets messages and one that is told of nodes.

    Args:
        only: The node that is looked at; None looks at all. The BEAM of the session may yet lose those of other tests.
    """

    def __init__(self, beam: Beam, sink: Collector, watcher: Collector, only: Atom | None) -> None:
        self.beam = beam
        self.name = Atom(beam.name)
        self._sink = sink
        self._watcher = watcher
        self._only = only

    async def dial(self, peers: Sequence[Atom], tag: Term) -> None:
        told = await self.beam.eval("dialler:dial_all(N, C, T)", N=list(peers), C=CALLERS, T=tag)
        assert told == [True] * CALLERS * len(peers)

    async def take_events(self, count: int) -> list[tuple[str, Atom]]:
        taken: list[tuple[str, Atom]] = []
        while len(taken) < count:
            taken += self._looked_at(await self._watcher.take(count - len(taken)))
        return taken

    async def take_waiting_events(self) -> list[tuple[str, Atom]]:
        return self._looked_at(await self._watcher.take(await self._watcher.waiting()))

    def _looked_at(self, events: list[Any]) -> list[tuple[str, Atom]]:
        return [(what.name.removeprefix("node"), name) for what, name, _ in events if self._only in (None, name)]

    async def received(self, count: int) -> Counter[object]:
        return Counter(await self._sink.take(count))

    async def connected(self) -> list[list[Atom]]:
        """``nodes(connected)``, and the emulator's connections."""
        views = await self.beam.eval("dialler:connected()")
        return [[name for name in view if self._only in (None, name)] for view in views]


@asynccontextmanager
async def theirs(beam: Beam, *, only: Atom | None = None) -> AsyncIterator[Theirs]:
    await beam.eval("[collector:stop(sink) || whereis(sink) =/= undefined]")  # of a test that failed
    pid = await beam.eval("collector:start(sink)")
    assert isinstance(pid, Pid)
    async with collecting(beam) as watcher:
        await watcher.run("net_kernel", "monitor_nodes", True, [(Atom("node_type"), Atom("all"))])
        yield Theirs(beam, Collector(beam, SINK.name, pid), watcher, only)
    await beam.eval("collector:stop(sink)")


def numbered(tag: Term) -> Counter[object]:
    """What ``CALLERS`` callers send with this tag."""
    return Counter((tag, number) for number in range(1, CALLERS + 1))


@ONE_CONNECTION
@pytest.mark.parametrize("greater", ["ours", "theirs"])
async def test_two_nodes(opened: NodeOpener, beam: Beam, greater: str) -> None:
    name = f"{'zz' if greater == 'ours' else 'aa'}_{secrets.token_hex(3)}@127.0.0.1"
    async with ours(opened, name) as here, theirs(beam, only=here.node.name) as there:
        me = here.node.name
        ends: list[Callable[[], Awaitable[object]]] = [
            lambda: here.node.disconnect(there.name),
            lambda: beam.eval("dialler:disconnect(N)", N=me),
            lambda: here.cut(there.name),
            lambda: beam.eval("dialler:cut(N)", N=me),
        ]
        for round_ in range(ROUNDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(there.dial, [me], round_)
                nursery.start_soon(here.dial, [there.name], round_)
            assert await here.received(CALLERS) == numbered(round_), "what was sent at once arrives, once"
            assert await there.received(CALLERS) == numbered(round_)
            assert [(row.name, row.state) for row in here.node.connections] == [(there.name, "up")]
            assert await there.connected() == [[me], [me]]
            await ends[round_ % len(ends)]()
            await until(lambda: here.node.connections == [])
            assert here.take_events() == [("up", there.name), ("down", there.name)]
            assert await there.take_events(2) == [("up", me), ("down", me)]
            await has_lost(beam, me)  # its net_kernel too, which hears of it besides
        assert await there.take_waiting_events() == []
        counts = here.node.handshakes
        won = counts.get(("received", "ok_simultaneous"), 0) + counts.get(("sent", "nok"), 0)
        lost = counts.get(("sent", "ok_simultaneous"), 0) + counts.get(("received", "nok"), 0)
        # That they dialled at once is chance in each round, and certain in hundreds; whose call then wins is no chance.
        assert (won if greater == "ours" else lost) > 0
        if greater == "ours" or beam.release < 28:
            assert (lost if greater == "ours" else won) == 0
        # else: since OTP 28 a call that net_kernel still prepares (check_pending) gives way whatever the names


@pytest.mark.rule("Connections: a node that dials anew replaces its old connection")
@pytest.mark.parametrize("greater", ["ours", "theirs"])
async def test_two_nodes_that_do_not_wait_for_the_end(opened: NodeOpener, beam: Beam, greater: str) -> None:
    """Both dial anew at once when one has disconnected, whether or not the other has noticed: it may say `alive`."""
    name = f"{'zz' if greater == 'ours' else 'aa'}_{secrets.token_hex(3)}@127.0.0.1"
    async with ours(opened, name) as here, theirs(beam, only=here.node.name) as there:
        me = here.node.name
        await here.node.connect(there.name)
        for _ in range(ROUNDS // 4):
            # Its net_kernel takes a connection for a call under way for a moment, and would have ours wait for that.
            assert await is_among_nodes(beam, me)
            await here.node.disconnect(there.name)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(beam.eval, f"net_kernel:connect_node('{me}')")
                nursery.start_soon(here.node.connect, there.name)
        await until(lambda: [row.state for row in here.node.connections] == ["up"])
        with trio.fail_after(PATIENCE):
            while await there.connected() != [[me], [me]]:
                await trio.lowlevel.checkpoint()
        here.sink.send((SINK, there.name), "still there")
        assert await there.received(1) == Counter([b"still there"])
        ups_and_downs = here.take_events()
        assert [what for what, _ in ups_and_downs] == ["up", "down"] * (len(ups_and_downs) // 2) + ["up"]
        assert len(ups_and_downs) >= ROUNDS // 4 * 2 + 1
        seen_there = await there.take_waiting_events()
        assert [what for what, _ in seen_there] == ["up", "down"] * (len(seen_there) // 2) + ["up"]


async def storm_of_three(nodes: Sequence[Ours | Theirs]) -> None:
    """In each round each dials both others at once; then each has two connections, and two nodeups."""
    names = [node.node.name if isinstance(node, Ours) else node.name for node in nodes]
    others = [[name for name in names if name != mine] for mine in names]
    for round_ in range(ROUNDS // 2):
        async with trio.open_nursery() as nursery:
            for node, mine, peers in zip(nodes, names, others, strict=True):
                nursery.start_soon(node.dial, peers, (round_, mine))
        for node, peers in zip(nodes, others, strict=True):
            expected = sum((numbered((round_, peer)) for peer in peers), Counter[object]())
            assert await node.received(2 * CALLERS) == expected
            if isinstance(node, Ours):
                assert sorted((row.name.name, row.state) for row in node.node.connections) == sorted(
                    (peer.name, "up") for peer in peers
                )
            else:
                assert [set(view) for view in await node.connected()] == [set(peers), set(peers)]
                assert [len(view) for view in await node.connected()] == [2, 2]
        for node, peers in zip(nodes, others, strict=True):
            if isinstance(node, Ours):
                for peer in peers:
                    await node.node.disconnect(peer)
            else:
                await node.beam.eval("dialler:disconnect_all()")
        for node, peers in zip(nodes, others, strict=True):
            if isinstance(node, Ours):
                await until(lambda node=node: node.node.connections == [])  # type: ignore[misc]
                events = node.take_events()
            else:
                events = await node.take_events(4)
            for peer in peers:
                assert [what for what, name in events if name == peer] == ["up", "down"]
                if isinstance(node, Theirs):
                    await has_lost(node.beam, peer)
            assert len(events) == 4
        for node in nodes:
            if isinstance(node, Theirs):
                assert await node.take_waiting_events() == []


@THREE_NODES
async def test_two_beams_and_one_of_ours(opened: NodeOpener, fresh_beam: BeamFactory) -> None:
    """Hidden ones: visible BEAMs have `global` disconnect who is not connected to all others."""
    one, two = fresh_beam(hidden=True), fresh_beam(hidden=True)
    # between the two by name, so that it wins one race and loses the other
    async with ours(opened, one.name.replace("@", "a@")) as here, theirs(one) as first, theirs(two) as second:
        assert sorted([first.name.name, second.name.name, here.node.name.name])[1] == here.node.name.name
        await storm_of_three([here, first, second])


@THREE_NODES
async def test_one_beam_and_two_of_ours(opened: NodeOpener, fresh_beam: BeamFactory) -> None:
    beam = fresh_beam(hidden=True)
    async with ours(opened, "aa@127.0.0.1") as one, ours(opened, "zz@127.0.0.1") as two, theirs(beam) as there:
        await storm_of_three([one, there, two])


# ------------------------------------------------------------------------------------- what chance may leave out


@ONE_CONNECTION
async def test_names_compare_as_on_a_beam(beam: Beam) -> None:
    """The list is the one that the table of connections is tested with."""
    assert await beam.eval("lists:sort(L)", L=[Atom(name) for name in reversed(NAMES_IN_ORDER)]) == [
        Atom(name) for name in NAMES_IN_ORDER
    ]


@pytest.mark.rule("Connections: ok, ok_simultaneous, nok, alive as net_kernel answers them")
@pytest.mark.parametrize("peer", ["a@127.0.0.1", "zz@127.0.0.1"])
async def test_the_same_calls_get_the_same_answers_from_a_beam_and_from_us(
    opened: NodeOpener, fresh_beam: BeamFactory, peer: str, cookie: str
) -> None:
    """One scenario of calls by hand, to a BEAM and to a node of ours; both names are between those of the peers."""
    beam = fresh_beam("m_beam@127.0.0.1")
    async with opened("m_ours@127.0.0.1") as node:

        async def is_up_there() -> bool:
            return await is_among_nodes(beam, peer)

        def is_up_here() -> bool:
            return [row.state for row in node.connections] == ["up"]

        assert await answers(beam.epmd_port, beam.name, peer, cookie, is_up_there) == await answers(
            beam.epmd_port, node.name.name, peer, cookie, is_up_here
        )


async def answers(
    epmd_port: int, node: str, peer: str, cookie: str, is_up: Callable[[], bool | Awaitable[bool]]
) -> list[object]:
    """What ``node`` says when ``peer`` dials it, in every state of their connection; ``is_up`` tells of one."""
    said: list[object] = []
    port = await look_up("127.0.0.1", epmd_port, node.partition("@")[0])
    async with dialling() as dial:
        first, second = await dial(port), await dial(port)
        said.append(await first.introduce(peer))
        said.append(await second.introduce(peer))
        loser, winner = (first, second) if said[-1] == "ok_simultaneous" else (second, first)
        await loser.ended()
        said.append(await winner.finish(cookie))
        await until(is_up)
        third, fourth = await dial(port), await dial(port)
        said.append(await third.introduce(peer))
        said.append(await fourth.introduce(peer))
        await fourth.ended()
        await third.send(b"sfalse")
        said.append(await third.receive())
        await third.close()
        await until(is_up)  # and no call is under way any more
        fifth = await dial(port)
        said.append(await fifth.introduce(peer))
        await fifth.send(b"strue")
        said.append(await fifth.finish("a wrong one"))
        await until(is_up)
        sixth = await dial(port)
        said.append(await sixth.introduce(peer))
        await sixth.send(b"strue")
        said.append(await sixth.finish(cookie))
        await winner.ended()
        # its own name, and names that are none
        for name in (node, "nobody", "a@b@c", "@h", "x" * 254 + "@h"):
            stranger = await dial(port)
            said.append(await stranger.introduce(name))
            await stranger.ended()
    return said


@pytest.mark.rule("Connections: a call that gets nok waits for the call of the other")
async def test_a_beam_whose_call_comes_second(opened: NodeOpener, beam: Beam, epmd: Epmd) -> None:
    """Its call is sure to find ours under way: a peer by hand stands in for it until then."""
    async with opened("a_smaller@127.0.0.1") as node, node.monitor_nodes() as events:
        # Where our call goes at first, nobody answers; EPMD has the BEAM itself under another port.
        async with listening(EpmdAddress(port=epmd.port), "silent@127.0.0.1") as there:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: node.connect(beam.name, address=f"127.0.0.1:{there.port}"), name="our call")
                ours_ = await there.accept_name()
                assert await beam.eval("net_kernel:connect_node(N)", N=node.name) is True
                await ours_.ended()
            assert node.handshakes == {("sent", "ok_simultaneous"): 1}
            assert [(row.name.name, row.state) for row in node.connections] == [(beam.name, "up")]
            with trio.fail_after(PATIENCE):
                assert await anext(events) == NodeUp(Atom(beam.name), "visible")
