"""Whatever happens to processes, scopes, nodes and connections: in the end all members of a scope of syn hold the same.

Three nodes joined in memory, and every frame delivered when the script says: what a node sends to another one arrives
in order, but what it sends to two of them may be far apart. Their clocks agree: where they do not, a node may ignore a
registration that it takes for an old one, which no member can prevent. The model of a node is what its own processes
are registered as and have joined, as its API and the ends of processes demand; what other nodes hold of that is
compared once everything has arrived. All the time what a node holds is what its events came to.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import combinations, count, permutations
from random import Random
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
import trio
from hypothesis import event, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from erlang_interop import Atom, ConnectError, ErlangInteropError, Node, Pid, Process, Term
from erlang_interop.otp.term_order import pid_key
from erlang_interop.testing.cluster import Network, open_cluster, settled
from zenmon_node import EventHandler, NameUndefined, NotAlive, NotInGroup, Taken, open_scope
from zenmon_node.syn.pg import Groups
from zenmon_node.syn.port import ScopePort
from zenmon_node.syn.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from zenmon_node import Claim

NODES = ("a@test", "b@test", "c@test")
SCOPE = Atom("s")
KEYS: tuple[Term, ...] = (Atom("n"), 1, 1.0, (Atom("n"), [{}]))
PIDS = 3
#: Seconds between two discovers to a connected node that has not answered.
INTERVAL = 1.0
#: Scope processes may be killed so often in one example: a supervisor gives up at some time.
CRASHES = 4

NORMAL = Atom("normal")
RESOLVED = Atom("syn_conflict_resolution")
NODE_UP = Atom("syn_remote_scope_node_up")

Step = tuple[str, int, int, int, int]
CALM = (
    ["register"] * 6
    + ["unregister"] * 2
    + ["join"] * 5
    + ["leave"] * 2
    + ["update", "update_member", "end", "end", "pass_time"]
)
CALM += ["deliver"] * 12 + ["hold", "release"]
FAULTS = ["part", "part", "heal", "heal", "connect", "connect", "disconnect", "crash", "crash", "reopen", "restart"]
FAULTS += ["converge"]


def steps(kinds: list[str]) -> st.SearchStrategy[list[Step]]:
    return st.lists(
        st.tuples(st.sampled_from(kinds), st.integers(0, 2), st.integers(0, 2), st.integers(0, 3), st.integers(0, 2)),
        min_size=10,
        max_size=60,
    )


# ------------------------------------------------------------------------------------------------------ what is seen
Text = str
"""A name, a group or metadata, as Python writes it: Erlang tells 1 and 1.0 apart, and so must this."""

Names = dict[Text, tuple[Pid, Text]]
Members = dict[tuple[Text, Pid], Text]


class Eyes(EventHandler):
    """All events of one life of a scope on a node, what they came to, and what was wrong with them.

    What a handler raises is only logged, so complaints are kept.
    """

    def __init__(self, node: Atom) -> None:
        self.node = node
        self.names: Names = {}
        self.groups: Members = {}
        self.log: list[tuple[Any, ...]] = []
        self.wrong: list[str] = []
        self._short: tuple[Any, ...] | None = None

    def on_process_registered(self, scope: Atom, name: Term, pid: Pid, meta: Term, reason: Term) -> None:
        key, value = self._note("registered", name, pid, meta, reason)
        self._must(key not in self.names, f"{key} was registered already: {self.names.get(key)}")
        self._must(self._is_reason_to_come(pid, reason), f"{pid} registered for {reason!r}")
        self.names[key] = pid, value

    def on_registry_process_updated(self, scope: Atom, name: Term, pid: Pid, meta: Term, reason: Term) -> None:
        self._short = (*self._note("registry_updated", name, pid, meta, reason), pid, reason)

    def on_registry_process_updated_from(
        self, scope: Atom, name: Term, pid: Pid, previous: Term, meta: Term, reason: Term
    ) -> None:
        key, before, now = repr(name), repr(previous), repr(meta)
        self._must(self._short == (key, now, pid, reason), "the longer update does not follow the shorter one")
        self._short = None
        self._must(self.names.get(key) == (pid, before), f"{key} updated, which was not {before} of {pid}")
        self._must(before != now, "an update without a change")
        self.names[key] = pid, now

    def on_process_unregistered(self, scope: Atom, name: Term, pid: Pid, meta: Term, reason: Term) -> None:
        key, value = self._note("unregistered", name, pid, meta, reason)
        self._must(self.names.get(key) == (pid, value), f"{key} unregistered, which was not {value} of {pid}")
        self._must(self._is_reason_to_go(pid, reason), f"{pid} unregistered for {reason!r}")
        self.names.pop(key, None)

    def on_process_joined(self, scope: Atom, group: Term, pid: Pid, meta: Term, reason: Term) -> None:
        key, value = self._note("joined", group, pid, meta, reason)
        self._must((key, pid) not in self.groups, f"{pid} was in {key} already")
        self._must(reason != RESOLVED and self._is_reason_to_come(pid, reason), f"{pid} joined for {reason!r}")
        self.groups[key, pid] = value

    def on_group_process_updated(self, scope: Atom, group: Term, pid: Pid, meta: Term, reason: Term) -> None:
        self._short = (*self._note("group_updated", group, pid, meta, reason), pid, reason)

    def on_group_process_updated_from(
        self, scope: Atom, group: Term, pid: Pid, previous: Term, meta: Term, reason: Term
    ) -> None:
        key, before, now = repr(group), repr(previous), repr(meta)
        self._must(self._short == (key, now, pid, reason), "the longer update does not follow the shorter one")
        self._short = None
        self._must(self.groups.get((key, pid)) == before, f"{pid} updated in {key}, which was not {before}")
        self._must(before != now, "an update without a change")
        self.groups[key, pid] = now

    def on_process_left(self, scope: Atom, group: Term, pid: Pid, meta: Term, reason: Term) -> None:
        key, value = self._note("left", group, pid, meta, reason)
        self._must(self.groups.get((key, pid)) == value, f"{pid} left {key}, which was not {value}")
        self._must(reason != RESOLVED and self._is_reason_to_go(pid, reason), f"{pid} left for {reason!r}")
        self.groups.pop((key, pid), None)

    def _is_reason_to_come(self, pid: Pid, reason: Term) -> bool:
        """By the table of events: a node's own processes come by being registered, others also with their node."""
        return reason in (NORMAL, RESOLVED) or (reason == (NODE_UP, SCOPE, pid.node) and pid.node != self.node)

    def _is_reason_to_go(self, pid: Pid, reason: Term) -> bool:
        match reason:
            case Atom("normal" | "killed" | "syn_conflict_resolution") | (Atom("syn_resolve_kill"), _, _):
                return True
            case Atom("undefined"):
                return pid.node == self.node
            case (Atom("syn_remote_scope_node_down"), _, node):
                return bool(node == pid.node != self.node)
            case (Atom("syn_remote_scope_node_up"), _, node):
                # With a node a later registration has come, or it turned out that this one had gone.
                return self.node not in (pid.node, node)
        return False

    def _note(self, what: str, key: Term, pid: Pid, meta: Term, reason: Term) -> tuple[Text, Text]:
        self.log.append((what, repr(key), pid, repr(meta), reason))
        return repr(key), repr(meta)

    def _must(self, holds: bool, complaint: str) -> None:
        if not holds:
            self.wrong.append(f"{complaint}; the last events: {self.log[-5:]}")

    def own_names(self) -> Names:
        return {key: entry for key, entry in self.names.items() if entry[0].node == self.node}

    def own_groups(self) -> Members:
        return {key: meta for key, meta in self.groups.items() if key[1].node == self.node}


class GreatestPid(Eyes):
    """The same choice on all nodes, whatever their clocks say."""

    def resolve_registry_conflict(self, scope: Atom, name: Term, remote: Claim, local: Claim) -> Pid:
        self._must(remote.pid.node != self.node == local.pid.node, f"asked about {remote} and {local}")
        return max(remote.pid, local.pid, key=pid_key)


class GreatestPidLater(Eyes):
    """The same, after a while."""

    async def resolve_registry_conflict(self, scope: Atom, name: Term, remote: Claim, local: Claim) -> Pid:
        await trio.sleep(0.1)
        return max(remote.pid, local.pid, key=pid_key)


class Neither(Eyes):
    """Nobody keeps the name."""

    def resolve_registry_conflict(self, scope: Atom, name: Term, remote: Claim, local: Claim) -> None:
        return None


class Raises(Eyes):
    """So does this, in the end."""

    def resolve_registry_conflict(self, scope: Atom, name: Term, remote: Claim, local: Claim) -> Pid:
        raise RuntimeError("no idea")


HANDLERS = (Eyes, GreatestPid, GreatestPidLater, Neither, Raises)


# ------------------------------------------------------------------------------------------------------------ a node
async def wait(process: Process) -> None:
    await trio.sleep_forever()


class Member:
    """One node of the cluster, with a scope, and what it must hold of its own processes."""

    def __init__(self, name: str, handler: type[Eyes], network: Network, nursery: trio.Nursery) -> None:
        self.name = name
        self._handler = handler
        self._network = network
        self._nursery = nursery
        self._node_ends = trio.Event()
        self._scope_ends = trio.Event()

    async def start(self) -> None:
        self._node_ends = trio.Event()
        await self._nursery.start(self._live)

    async def restart(self) -> None:
        self._node_ends.set()
        while self._network.knows(self.name):
            await trio.lowlevel.checkpoint()
        await self.start()

    async def reopen(self) -> None:
        old = self.scope
        self._scope_ends.set()
        while self.scope is old:
            await trio.lowlevel.checkpoint()
        await settled()

    async def _live(self, task_status: trio.TaskStatus[None]) -> None:
        async with open_cluster(self.name, network=self._network) as (node,):
            self.node = node
            self.pids = [node.spawn(wait) for _ in range(PIDS)]
            while not self._node_ends.is_set():
                self.eyes = self._handler(node.name)
                self._scope_ends = trio.Event()
                async with open_scope(node, SCOPE, handler=self.eyes, discover_interval=INTERVAL) as self.scope:
                    task_status.started()
                    task_status = trio.TASK_STATUS_IGNORED
                    async with trio.open_nursery() as both:
                        both.start_soon(self._end_with, self._node_ends, both.cancel_scope)
                        both.start_soon(self._end_with, self._scope_ends, both.cancel_scope)

    async def _end_with(self, end: trio.Event, scope: trio.CancelScope) -> None:
        await end.wait()
        scope.cancel()

    def crash(self, half: str) -> None:
        pid = self.node.whereis(f"syn_{half}_{SCOPE.name}")
        if pid is not None:
            self.node.exit(pid, Atom("kill"))

    def may_live(self, pid: Pid) -> bool:
        return pid.node != self.node.name or self.node.is_alive(pid)

    def is_busy(self) -> bool:
        """Whether a scope process runs a resolver, or is down."""
        return any(
            not server.running or server._work is not None for server in (self.scope._names, self.scope._members)
        )

    def names(self) -> Names:
        found = {repr(key): self.scope.lookup(key) for key in KEYS}
        return {key: (entry.pid, repr(entry.meta)) for key, entry in found.items() if entry is not None}

    def groups(self) -> Members:
        return {(repr(group), pid): repr(meta) for group in KEYS for pid, meta in self.scope.members(group)}

    def check(self) -> None:
        """What the node holds is what its events came to, and they were such as can be."""
        assert not self.eyes.wrong, self.eyes.wrong
        # Who has died is not found any more, though a scope process that waits for its resolver may not know it yet.
        alive = {key: has for key, has in self.eyes.names.items() if self.may_live(has[0])}
        assert self.names() == alive, self.name
        assert self.is_busy() or alive == self.eyes.names
        assert self.scope.registry_count() == len(self.eyes.names)
        assert self.groups() == self.eyes.groups, self.name
        assert sorted(map(repr, self.scope.group_names())) == sorted({group for group, _ in self.eyes.groups})


# --------------------------------------------------------------------------------------------------------- a history
@dataclass
class Asked:
    """An operation: what came of it, if it has come to an end."""

    done: bool = False
    error: Exception | None = None


@dataclass
class Story:
    """One example.

    Attributes:
        kills: Whether the loser of a conflict is killed.
        ended: Processes that the script has ended.
        losers: Processes that had to give a name up.
        calm: Whether all nodes have been connected, and all scope processes alive, all the time.
    """

    network: Network
    members: list[Member]
    nursery: trio.Nursery
    kills: bool
    ended: set[Pid] = field(default_factory=set)
    losers: set[Pid] = field(default_factory=set)
    crashes: int = 0
    calm: bool = True
    held: bool = True

    async def take(self, step: Step) -> None:
        what, at, one, key, two = step
        member, other = self.members[at], self.members[(at + 1 + one % 2) % 3]
        # Mostly a node's own processes: the others' are asked for, which ends when the frames have crossed.
        owner = member if one else other
        term, pid, meta = KEYS[key], owner.pids[two], KEYS[(one + two) % 4]
        match what:
            case "register":
                await self.register(member, term, pid, meta)
            case "unregister":
                await self.unregister(member, term)
            case "update":
                await self.update(member, term, meta)
            case "join":
                await self.join(member, term, pid, meta)
            case "leave":
                await self.leave(member, term, pid)
            case "update_member":
                await self.update_member(member, term, pid, meta)
            case "end":
                await self.end(member, two)
            case "pass_time":
                await trio.sleep(3 * INTERVAL)
            case "hold":
                self.network.hold(handshakes=False)
            case "release":
                self.network.release()
            case "deliver":
                self.deliver(member, other, 1 + two)
            case "converge":
                await self.converge()
            case _:
                self.calm = False
                await self.harm(what, member, other, two)
        await settled()
        self.check()

    def check(self) -> None:
        for member in self.members:
            member.check()

    # -- what a program does

    async def register(self, member: Member, name: Term, pid: Pid, meta: Term) -> None:
        key, own = repr(name), member.eyes.own_names()
        has = member.eyes.names.get(key)
        asked = await self.ask(member, lambda: member.scope.register(name, pid, meta))
        if pid.node == member.node.name and asked is not None:
            taken = has is not None and has[0] != pid
            wanted = NotAlive if not member.node.is_alive(pid) else Taken if taken else type(None)
            assert type(asked.error) is wanted, asked
            assert member.eyes.own_names() == own | ({} if asked.error else {key: (pid, repr(meta))})

    async def unregister(self, member: Member, name: Term) -> None:
        key, own = repr(name), member.eyes.own_names()
        has = member.eyes.names.get(key)
        asked = await self.ask(member, lambda: member.scope.unregister(name))
        if asked is not None and (has is None or key in own):
            assert type(asked.error) is (type(None) if has else NameUndefined), asked
            own.pop(key, None)
            assert member.eyes.own_names() == own

    async def update(self, member: Member, name: Term, meta: Term) -> None:
        key, own = repr(name), member.eyes.own_names()
        if key not in own:
            return  # a function of this program cannot be sent to another node
        asked = await self.ask(member, lambda: member.scope.update_registry(name, lambda pid, old: (old, meta)[1]))
        if asked is not None:
            assert asked.error is None
            assert member.eyes.own_names() == own | {key: (own[key][0], repr(meta))}

    async def join(self, member: Member, group: Term, pid: Pid, meta: Term) -> None:
        own = member.eyes.own_groups()
        asked = await self.ask(member, lambda: member.scope.join(group, pid, meta))
        if pid.node == member.node.name and asked is not None:
            assert type(asked.error) is (type(None) if member.node.is_alive(pid) else NotAlive), asked
            assert member.eyes.own_groups() == own | ({} if asked.error else {(repr(group), pid): repr(meta)})

    async def leave(self, member: Member, group: Term, pid: Pid) -> None:
        own = member.eyes.own_groups()
        asked = await self.ask(member, lambda: member.scope.leave(group, pid))
        if pid.node == member.node.name and asked is not None:
            was = (repr(group), pid) in own
            assert type(asked.error) is (type(None) if was else NotInGroup), asked
            own.pop((repr(group), pid), None)
            assert member.eyes.own_groups() == own

    async def update_member(self, member: Member, group: Term, pid: Pid, meta: Term) -> None:
        own = member.eyes.own_groups()
        if pid.node != member.node.name:
            return
        asked = await self.ask(member, lambda: member.scope.update_member(group, pid, lambda old: (old, meta)[1]))
        if asked is not None:
            was = (repr(group), pid) in own
            wanted = NotAlive if not member.node.is_alive(pid) else type(None) if was else NotInGroup
            assert type(asked.error) is wanted, asked
            assert member.eyes.own_groups() == own | (
                {(repr(group), pid): repr(meta)} if was and not asked.error else {}
            )

    async def ask(self, member: Member, operation: Callable[[], Awaitable[object]]) -> Asked | None:
        """Have something done. None if it has not come to an end, or something else has happened at the same time."""
        busy = member.is_busy()
        asked = Asked()

        async def run() -> None:
            try:
                await operation()
            except ErlangInteropError as error:
                asked.error = error
            asked.done = True

        self.nursery.start_soon(run)
        await settled()
        return None if busy or not asked.done else asked

    async def end(self, member: Member, index: int) -> None:
        pid = member.pids[index]
        names, groups = member.eyes.own_names(), member.eyes.own_groups()
        busy = member.is_busy()
        self.ended.add(pid)
        member.node.exit(pid, Atom("kill"))
        member.pids[index] = member.node.spawn(wait)
        await settled()
        if not busy:
            assert member.eyes.own_names() == {key: has for key, has in names.items() if has[0] != pid}
            assert member.eyes.own_groups() == {key: meta for key, meta in groups.items() if key[1] != pid}

    # -- what happens to a cluster

    def deliver(self, member: Member, other: Member, frames: int) -> None:
        try:
            self.network.wire(member.name, other.name).to(other.name).deliver(frames)
        except LookupError:
            return  # they were never connected

    async def harm(self, what: str, member: Member, other: Member, two: int) -> None:
        match what:
            case "part":
                self.network.part(member.name, other.name)
            case "heal":
                self.network.heal(member.name, other.name)
            case "connect":
                await connect(member.node, other.name)
            case "disconnect":
                with trio.move_on_after(1):
                    await member.node.disconnect(other.name)
            case "crash" if self.crashes < CRASHES:
                self.crashes += 1
                member.crash("registry" if two else "pg")
            case "reopen":
                await member.reopen()
            case "restart":
                self.ended.update(member.pids)
                await member.restart()

    async def converge(self) -> None:
        """All that was cut is healed, all that is under way arrives: then all hold the same, and that is the truth."""
        self.network.release()
        await settled()
        for one, other in combinations(self.members, 2):
            self.network.heal(one.name, other.name)
            await connect(one.node, other.name)
        await trio.sleep(10 * INTERVAL)  # more than any question may take
        await settled()
        self.check()
        for one, other in permutations(self.members, 2):
            assert one.node.is_connected(other.name)
            for half in ("registry", "pg"):
                assert other.node.name in one.scope.subcluster_nodes(half), (one.name, half)
        names: Names = {}
        groups: Members = {}
        for member in self.members:
            for key, (pid, meta) in member.eyes.own_names().items():
                assert key not in names, f"{key} has two owners: {names[key]} and {pid}"
                assert member.node.is_alive(pid)
                names[key] = pid, meta
            groups |= member.eyes.own_groups()
        for member in self.members:
            assert member.names() == names, member.name
            assert member.groups() == groups, member.name
            assert times(member) == times(self.members[0]), member.name
        for member in self.members:
            for pid in member.pids:
                lost = [what for what in member.eyes.log if what[0] == "unregistered" and what[2] == pid]
                if any(reason == RESOLVED for *_, reason in lost):
                    assert member.node.is_alive(pid) != self.kills, f"{pid} has lost {lost}"


def times(member: Member) -> dict[Any, int]:
    """When each name was registered, and each membership began, as a node has it; its owner has told it."""
    names = {(repr(entry.name), entry.pid): entry.time for entry in member.scope._registry.entries()}
    groups = member.scope._groups._groups.values()
    return names | {(repr(g.name), pid, "in"): entry.time for g in groups for pid, entry in g.members.items()}


async def connect(node: Node, name: str) -> None:
    with suppress(ConnectError), trio.move_on_after(60):
        await node.connect(name)


def compare_calm(members: list[Member]) -> None:
    """Where nothing was ever lost, all nodes have seen the same of each member, and of the names of one node."""
    logs = []
    owners: dict[Text, set[Atom]] = defaultdict(set)
    for member in members:
        seen: dict[tuple[Any, ...], list[Any]] = defaultdict(list)
        for what, key, pid, *rest in member.eyes.log:
            seen[what in ("joined", "left", "group_updated"), key, pid].append((what, *rest))
            if what == "registered":
                owners[key].add(pid.node)
        logs.append(seen)
    for key in set().union(*logs):
        if key[0] or len(owners[key[1]]) == 1:
            assert logs[0][key] == logs[1][key] == logs[2][key], key


async def play(script: list[Step], handler: type[Eyes]) -> None:
    network = Network()
    async with trio.open_nursery() as nursery:
        members = [Member(name, handler, network, nursery) for name in NODES]
        story = Story(network, members, nursery, kills=handler is Eyes)
        clock = count(1)
        with mock.patch.object(ScopePort, "now", side_effect=clock):
            for member in members:
                await member.start()
            await story.converge()
            network.hold(handshakes=False)
            for step in script:
                await story.take(step)
            await story.converge()
            if story.calm:
                compare_calm(members)
            nursery.cancel_scope.cancel()


def run(script: list[Step], handler: type[Eyes]) -> None:
    trio.run(play, script, handler, clock=MockClock(autojump_threshold=0))


@settings(max_examples=40, derandomize=True)
@given(steps(CALM), st.sampled_from(HANDLERS))
def test_members_agree_and_have_seen_the_same(script: list[Step], handler: type[Eyes]) -> None:
    for what in {step[0] for step in script}:
        event(what)
    run(script, handler)


@settings(max_examples=120, derandomize=True)
@given(steps(CALM + FAULTS), st.sampled_from(HANDLERS))
def test_members_agree_after_splits_and_crashes(script: list[Step], handler: type[Eyes]) -> None:
    for what in {step[0] for step in script}:
        event(what)
    run(script, handler)


def nothing(*arguments: object, **options: object) -> None:
    """In the place of something that ought to be done."""


def silent_about(word: str) -> Callable[[ScopePort, Any, Atom | None], None]:
    """In the place of ``ScopePort.broadcast``: the others are told everything but that."""
    broadcast = ScopePort.broadcast

    def tell(port: ScopePort, message: Any, but: Atom | None = None) -> None:
        if message[1].name != word:
            broadcast(port, message, but)

    return tell


PLANTED = {
    "who asks for a registration does not apply the answer": (Registry, "answered", nothing),
    "members of a lost node stay": (Groups, "purge", nothing),
    "the loser of a conflict lives on": (ScopePort, "kill", nothing),
    "the winner of a conflict is not told of": (ScopePort, "broadcast", silent_about("sync_register")),
    "an own process that ends is told to nobody": (ScopePort, "broadcast", silent_about("sync_leave")),
    "a scope process that is started again keeps what others had told": (Registry, "rebuilt", nothing),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_faults_are_found(fault: str) -> None:
    random = Random(fault)
    with mock.patch.object(*PLANTED[fault]), pytest.raises((AssertionError, ExceptionGroup)) as found:
        for _ in range(60):
            kinds = CALM + FAULTS
            script = [
                (
                    random.choice(kinds),
                    random.randrange(3),
                    random.randrange(3),
                    random.randrange(4),
                    random.randrange(3),
                )
                for _ in range(40)
            ]
            run(script, Eyes)
    assert isinstance(first_of(found.value), AssertionError)


def first_of(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
