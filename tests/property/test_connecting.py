"""Nodes that connect while signals wait for it: handshakes held, crossed and cut at any message.

Whatever becomes of the connections, every monitor and every link of a living process fires exactly once, what arrives
arrives in order, the nodes agree whether they are connected, and nothing is left behind.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from erlang_interop import Atom, Exit, InlineServer, Node, Pid
from erlang_interop.errors import ConnectError
from erlang_interop.testing.cluster import Network, open_cluster, settled

NAMES = ("a@test", "b@test")
CONNECT_TIMEOUT = 7.0
#: What the examples came to, so that one can see that they are worth something.
reached: Counter[str] = Counter()
DOWN, EXIT, END = Atom("DOWN"), Atom("EXIT"), Atom("$end")

Step = tuple[str, int, int]
steps = st.tuples(
    st.sampled_from(
        ["deliver"] * 8 + ["send", "send", "monitor", "monitor", "link", "link", "connect", "cut", "disconnect", "end"]
    ),
    st.integers(0, 3),
    st.integers(0, 3),
)


class Recorder(InlineServer):
    """Keeps what it gets, in order."""

    def __init__(self) -> None:
        self.inbox: list[Any] = []
        #: What it is owed: the references of its monitors and the processes that it linked to.
        self.monitors: list[Any] = []
        self.links: list[Pid] = []

    def handle_message(self, message: Any) -> None:
        if message == END:
            raise Exit(Atom("ended"))
        self.inbox.append(message)


def start(node: Node) -> Recorder:
    recorder = Recorder()
    node.start_inline(recorder)
    recorder.process.trap_exit = True
    return recorder


class Story:
    """One example: two processes on each node that last, and as many others as they link to and watch."""

    def __init__(self, network: Network, nodes: tuple[Node, ...], tasks: trio.Nursery, clock: MockClock) -> None:
        self._network, self._nodes, self._tasks, self._clock = network, nodes, tasks, clock
        self._lasting = [start(node) for node in nodes for _ in range(2)]
        self._others: list[Recorder] = []
        self._sent = 0

    def _other(self, me: Recorder) -> Recorder:
        other = start(self._nodes[1] if me.node is self._nodes[0] else self._nodes[0])
        self._others.append(other)
        return other

    async def step(self, name: str, i: int, j: int) -> None:
        me = self._lasting[i]
        if name == "deliver":
            waiting = [pipe for wire in self._network.wires for pipe in map(wire.to, NAMES) if pipe.frames]
            if waiting:
                waiting[(2 * i + j) % len(waiting)].deliver(1)
        elif name == "send":
            self._sent += 1
            me.process.send(self._lasting[(i // 2 * 2 + 2 + j % 2) % 4].process.pid, (self._sent, me.process.pid))
        elif name == "monitor":
            me.monitors.append(me.process.monitor(self._other(me).process.pid))
        elif name == "link":
            me.links.append(self._other(me).process.pid)
            me.process.link(me.links[-1])
        elif name == "connect":
            self._tasks.start_soon(self._connect, self._nodes[i % 2], NAMES[1 - i % 2])
        elif name == "cut":
            open_ones = [wire for wire in self._network.wires if wire.is_open]
            if open_ones:
                reached["cut in a handshake" if open_ones[-1].to(NAMES[0]).in_handshake else "cut"] += 1
                open_ones[-1].cut()
        elif name == "disconnect":
            self._tasks.start_soon(self._nodes[i % 2].disconnect, NAMES[1 - i % 2])
        elif self._others:
            end(self._others[(4 * i + j) % len(self._others)])
        await settled()
        if sum(wire.is_open for wire in self._network.wires) > 1:
            reached["two connections at once"] += 1

    async def _connect(self, node: Node, name: str) -> None:
        try:
            await node.connect(name)
        except ConnectError as error:
            reached[type(error).__name__] += 1

    async def finish(self) -> None:
        """Let everything arrive, end everybody, and see who heard of what."""
        self._network.release()
        await settled()
        # Who gave way to the other side's call, which was cut, waits for it until its own time is up.
        self._clock.jump(CONNECT_TIMEOUT + 1)
        await settled()
        assert self._nodes[0].is_connected(NAMES[1]) == self._nodes[1].is_connected(NAMES[0])
        states = [row.state for node in self._nodes for row in node.connections]
        assert set(states) <= {"up"}, states
        for other in self._others:
            end(other)
        await settled()
        for me in self._lasting:
            downs = Counter(message[1] for message in me.inbox if message[0] == DOWN)
            assert downs == Counter(me.monitors), "each monitor fires once"
            exits = Counter(message[1] for message in me.inbox if message[0] == EXIT)
            assert exits == Counter(me.links), "each link fires once"
            by_sender: dict[Pid, list[int]] = {}
            for message in me.inbox:
                if type(message[0]) is int:
                    by_sender.setdefault(message[1], []).append(message[0])
            for numbers in by_sender.values():
                assert numbers == sorted(set(numbers)), "in the order they were sent, none twice"
        for me in self._lasting:
            end(me)
        await settled()


def end(recorder: Recorder) -> None:
    recorder.node.send(recorder.process.pid, END)


async def tell(script: list[Step], clock: MockClock) -> None:
    network = Network()
    network.hold()
    async with open_cluster(*NAMES, network=network, connect_timeout=CONNECT_TIMEOUT) as nodes:
        idle = [node.statistics() for node in nodes]
        async with trio.open_nursery() as tasks:
            story = Story(network, nodes, tasks, clock)
            for step in script:
                await story.step(*step)
            await story.finish()
        for node, before in zip(nodes, idle, strict=True):
            assert {**node.statistics(), "peers": 0} == {**before, "peers": 0}


def test_connections_that_come_and_go_owe_nobody_anything() -> None:
    reached.clear()

    @settings(max_examples=300, derandomize=True, deadline=None)
    @given(st.lists(steps, min_size=10, max_size=90))
    def run(script: list[Step]) -> None:
        clock = MockClock()
        trio.run(tell, script, clock, clock=clock)

    run()
    assert set(reached) >= {"cut in a handshake", "cut", "two connections at once", "ConnectRefused", "NodeUnreachable"}
