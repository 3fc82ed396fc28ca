"""Whatever happens to processes, scopes, nodes and connections: in the end all nodes agree who is in which group.

Three nodes joined in memory, of which one speaks the protocol of OTP 29, with every frame delivered when the script
says. Meanwhile nobody is sent a ``leave`` of what it was not told: a genuine scope process of OTP 25 to 28 would end.
"""

from __future__ import annotations

from collections import Counter
from itertools import combinations, permutations
from typing import TYPE_CHECKING, Any
from unittest import mock

import trio
import trio.lowlevel
from hypothesis import event, example, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from erlang_interop import Atom, Node, Pid, Process, Term
from erlang_interop.errors import ConnectError
from erlang_interop.otp._pg_messages import CURRENT, Changes, parse
from erlang_interop.otp.pg import Pg, PgJoin, _Scope, open_pg
from erlang_interop.testing.cluster import Network, open_cluster, settled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from erlang_interop.otp.pg import PgEvent

NAMES = ("a@test", "b@test", "c@test")
MODERN = "b@test"
GROUPS: tuple[Term, ...] = (Atom("g"), 1, 1.0, [{}])
INTERVAL = 5.0
SEND = _Scope.send

Step = tuple[str, int, int, int]
steps = st.tuples(
    st.sampled_from(
        ["join"] * 5
        + ["leave"] * 4
        + ["end"] * 2
        + ["deliver"] * 10
        + ["connect", "connect", "cut", "disconnect", "scope", "restart", "pass_time"]
    ),
    st.integers(0, 2),
    st.integers(0, 3),
    st.integers(0, 3),
)


class Member:
    """One node of the cluster, with a scope, and what it must have come to."""

    def __init__(self, name: str, network: Network, nursery: trio.Nursery) -> None:
        self.name = name
        self._network = network
        self._nursery = nursery
        self._end = trio.Event()

    async def start(self) -> None:
        self._end = trio.Event()
        await self._nursery.start(self._live)

    async def restart(self) -> None:
        self._end.set()
        while self._network.knows(self.name):
            await trio.lowlevel.checkpoint()
        await self.start()

    async def _live(self, task_status: trio.TaskStatus[None]) -> None:
        async with open_cluster(self.name, network=self._network) as (node,):
            self.node = node
            self.pids = [node.spawn(wait) for _ in range(4)]
            while not self._end.is_set():
                self.truth: Counter[tuple[str, Pid]] = Counter()
                self._scope_ends = trio.Event()
                async with open_pg(node, discover_interval=INTERVAL) as self.pg:
                    check_leaves(self.pg)
                    async with self.pg.watch_scope() as self._events:
                        task_status.started()
                        task_status = trio.TASK_STATUS_IGNORED
                        self.seen: Counter[tuple[str, Pid]] = Counter()
                        async with trio.open_nursery() as both:
                            both.start_soon(self._wait_for, self._end, both.cancel_scope)
                            both.start_soon(self._wait_for, self._scope_ends, both.cancel_scope)

    async def _wait_for(self, end: trio.Event, scope: trio.CancelScope) -> None:
        await end.wait()
        scope.cancel()

    async def reopen_scope(self) -> None:
        old = self.pg
        self._scope_ends.set()
        while self.pg is old:
            await trio.lowlevel.checkpoint()

    def see(self) -> Counter[tuple[str, Pid]]:
        """What the events came to."""
        replay(self._events, self.seen)
        return +self.seen

    def members(self) -> Counter[tuple[str, Pid]]:
        return Counter((repr(group), pid) for group in self.pg.which_groups() for pid in self.pg.members(group))


def replay(events: AsyncIterator[PgEvent], into: Counter[tuple[str, Pid]]) -> None:
    assert isinstance(events, trio.MemoryReceiveChannel)
    while True:
        try:
            happened = events.receive_nowait()
        except trio.WouldBlock:
            return
        for pid in happened.pids:
            into[repr(happened.group), pid] += 1 if type(happened) is PgJoin else -1
            assert into[repr(happened.group), pid] >= 0


async def wait(process: Process) -> None:
    await trio.sleep_forever()


def send_as_otp_29(scope: _Scope, dest: Pid | tuple[Atom, Atom], message: Term) -> None:
    """On one of the nodes say from the first word on which version is spoken."""
    if scope.node.name.name == MODERN and message[0] == Atom("discover"):
        message = (*message[:2], CURRENT)
    SEND(scope, dest, message)


def check_leaves(pg: Pg) -> None:
    """Be as strict as pg of OTP 25 to 28: what a peer says has left must be there."""
    core: Any = pg._core
    handle = core.handle

    def strict(message: Term) -> None:
        said = parse(message)
        if isinstance(said, Changes) and said.peer in core.peers:
            for change in said.changes:
                had = Counter(core.peers[said.peer].groups.get(change.group, {}))
                assert had >= Counter(change.left), f"{change} to a scope that has {had}"
        handle(message)

    core.handle = strict


class Story:
    """One example."""

    def __init__(self, network: Network, members: list[Member]) -> None:
        self.network = network
        self.members = members

    async def take(self, step: Step) -> None:
        what, at, one, two = step
        member = self.members[at]
        other = self.members[(at + 1 + one % 2) % 3]
        group, pid = GROUPS[one], member.pids[two]
        if what == "join":
            member.pg.join(group, [pid] * (1 + one % 2))
            member.truth[repr(group), pid] += 1 + one % 2
        elif what == "leave":
            left = member.pg.leave(group, [pid] * (1 + two % 2))
            assert left == (member.truth[repr(group), pid] > 0)
            member.truth[repr(group), pid] -= min(1 + two % 2, member.truth[repr(group), pid])
        elif what == "end":
            member.node.exit(pid, Atom("kill"))
            member.pids[two] = member.node.spawn(wait)
            for key in [key for key in member.truth if key[1] == pid]:
                del member.truth[key]
        elif what == "scope":
            await member.reopen_scope()
        elif what == "restart":
            await member.restart()
        elif what == "pass_time":
            await trio.sleep(INTERVAL)
        elif what == "connect":
            await connect(member.node, other.name)
        else:
            await self.do_to_wire(what, member, other, two)
        await settled()

    async def do_to_wire(self, what: str, member: Member, other: Member, count: int) -> None:
        try:
            wire = self.network.wire(member.name, other.name)
        except LookupError:
            return
        if what == "deliver":
            wire.to(other.name).deliver(1 + count)
        elif what == "cut":
            wire.cut()
        else:
            with trio.move_on_after(1):
                await member.node.disconnect(other.name)

    async def converges(self) -> None:
        self.network.release()
        await settled()
        for one, other in combinations(self.members, 2):
            await connect(one.node, other.name)
        await trio.sleep(3 * INTERVAL)
        await settled()
        for one, other in permutations(self.members, 2):
            assert one.node.is_connected(other.name)
        truth = sum([member.truth for member in self.members], Counter[tuple[str, Pid]]())
        for member in self.members:
            assert member.members() == truth, member.name
            assert member.see() == truth, member.name
            mine = member.pg.which_local_groups()
            assert Counter((repr(g), pid) for g in mine for pid in member.pg.local_members(g)) == +member.truth
            # Who is spoken to as OTP 29 speaks answers so, and has said by this that it can.
            spoken = {pid.node.name: peer.version for pid, peer in member.pg._core.peers.items()}
            assert spoken == {name: int(MODERN in (name, member.name)) for name in NAMES if name != member.name}


async def connect(node: Node, name: str) -> None:
    try:
        with trio.move_on_after(60):
            await node.connect(name)
    except ConnectError:
        event("not connected")


async def play(script: list[Step]) -> None:
    network = Network()
    network.hold(handshakes=False)
    async with trio.open_nursery() as nursery:
        members = [Member(name, network, nursery) for name in NAMES]
        for member in members:
            await member.start()
        for one, other in combinations(members, 2):
            await connect(one.node, other.name)
        story = Story(network, members)
        for step in script:
            await story.take(step)
        await story.converges()
        nursery.cancel_scope.cancel()


#: A scope opens, and a process leaves after the answer of its peer has come, and before it was asked by it.
LEAVES_WHILE_MEETING: list[Step] = [
    *[("deliver", 0, 0, 3), ("deliver", 1, 1, 3)] * 6,
    ("scope", 0, 0, 0),
    ("join", 0, 0, 0),
    *[("deliver", 0, 0, 3)] * 2,
    ("deliver", 1, 1, 1),
    ("leave", 0, 0, 0),
]


@example(LEAVES_WHILE_MEETING)
@settings(max_examples=120, derandomize=True)
@given(st.lists(steps, min_size=15, max_size=80))
def test_all_nodes_agree_in_the_end(script: list[Step]) -> None:
    for what in {step[0] for step in script}:
        event(what)
    with mock.patch.object(_Scope, "send", send_as_otp_29):
        trio.run(play, script, clock=MockClock(autojump_threshold=0))
