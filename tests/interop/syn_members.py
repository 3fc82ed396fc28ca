"""Three members of a scope of syn, one of them ours: what the tests of ``syn`` share.

The BEAM members run ``fixture_syn``, written from the wire contract. The same scenarios run on a genuine ``syn``:

    SYN_EBIN=folder pytest tests/interop/test_syn_registry.py --otp 25

where ``folder`` holds a compiled ``syn`` (``erlc -o folder src/*.erl``, and ``src/syn.app.src`` as ``syn.app``). Each
scenario then also runs with three BEAMs and none of ours, to show that what it demands is what syn does. Of several
folders, with colons between, each BEAM takes the next one; the stand-in where it is empty.

Every scope has the name of one test, and every callback is kept with all its arguments, on all members.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

import pytest
import trio

from erlang_interop import Atom, Pid
from erlang_interop.otp.exact import exact_key
from erlang_interop.testing.beam import BeamError
from tests.interop.collectors import until
from tests.interop.syn_ours import joined_by_ours

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from erlang_interop import Term
    from erlang_interop.testing.beam import Beam
    from tests.interop.conftest import NodeOpener

#: Where a compiled genuine ``syn`` is, for each BEAM in turn; nothing where all run the stand-in.
GENUINE: Final = os.environ["SYN_EBIN"].split(":") if "SYN_EBIN" in os.environ else []
#: How many names, and memberships, are taken over at once. ``SYN_ENTRIES=100000``, with ``--timeout 600``: a big scope.
ENTRIES: Final = int(os.environ.get("SYN_ENTRIES", "2000"))
#: Seconds that a BEAM may take to make, or show, so many.
_EVAL_LIMIT: Final = 30 + ENTRIES / 500
#: Nothing is connected but what a test connects: ``global`` takes no part, and a send does not dial.
UNCONNECTED: Final = ("-connect_all", "false", "-kernel", "dist_auto_connect", "never")
SERVICES: Final = ("registry", "pg")

OK, ERROR, NORMAL, UNDEFINED, RESOLVED = map(Atom, ("ok", "error", "normal", "undefined", "syn_conflict_resolution"))

#: A callback with its arguments behind the scope.
Event = tuple[Any, ...]

_numbers = itertools.count(1)


def new_scope() -> Atom:
    """A scope's name that no other test of this run has."""
    return Atom(f"scope_{os.getpid()}_{next(_numbers)}")


class Member(Protocol):
    """A node in the scope of a test. Terms are Erlang's, on ours too: results as ``syn`` has them.

    Attributes:
        name: Of the node.
        scope: The test's.
        says_goodbye: Whether it tells all members whom a conflict has cost the name: syn 3.3 does not.
    """

    name: Atom
    scope: Atom
    says_goodbye: bool

    async def call(self, function: str, *arguments: Term) -> Any:
        """``syn:function(Scope, arguments...)``, its result or the exception ``(class, reason)``."""

    async def spawn(self) -> Pid:
        """A process that ends as it is told, and answers a multi_call with ``{Message, Meta}``."""

    async def spawn_idle(self) -> Pid:
        """A process that can only be killed, also while its scope process is down."""

    async def end(self, pid: Pid, reason: Term) -> None:
        """End a process of it from the inside, with this reason."""

    async def kill(self, pid: Pid) -> None:
        """``exit(Pid, kill)``, of any node's process."""

    async def is_alive(self, pid: Pid) -> bool:
        """Whether a process of it lives."""

    async def messages(self, pid: Pid, count: int) -> list[Any]:
        """What a process of :meth:`spawn` was sent, oldest first; returns when there are ``count``."""

    async def register_many(self, count: int) -> None:
        """Register processes of its own as ``{name, 1}``, ``{name, 2}``, ..., with the number as metadata."""

    async def join_many(self, count: int) -> None:
        """Have processes of its own join ``{group, 1}``, ``{group, 2}``, ..., with the number as metadata."""

    async def has_many(self, service: str, count: int) -> bool:
        """Whether it has all that :meth:`register_many` or :meth:`join_many` has made."""

    async def events(self) -> list[Event]:
        """The callbacks there until now."""

    async def now(self) -> int:
        """The time that an entry made now would have."""

    async def leave_scope(self) -> None:
        """``syn:stop()``: the tables go too."""

    async def enter_scope(self) -> None:
        """Come back after :meth:`leave_scope`."""

    async def crash(self, service: str, while_down: Pid | None = None) -> None:
        """Have the scope process end by a crash, and start again; ``while_down`` is killed between."""

    async def resolve_by(self, how: str) -> None:
        """``default``, or ``metadata``: as ``fixture_syn_resolver`` does."""

    async def connect(self, other: Member) -> None: ...

    async def disconnect(self, other: Member) -> None: ...

    async def is_connected(self, other: Member) -> bool: ...

    async def peers(self, service: str) -> set[Atom]:
        """The other members of the scope, as this one knows them."""

    async def await_member(self, other: Member, *, is_member: bool) -> None:
        """Return when both services know of ``other``, or neither does any more."""

    async def mark(self, key: Term) -> Pid:
        """A new process that has a name and is the member of a group, both ``key``."""

    async def await_marks(self, keys: list[Term], *, are_there: bool) -> None:
        """Return when all that :meth:`mark` has made are there, or none is any more."""


class BeamMember:
    """A BEAM that was started by :func:`start_driver`."""

    def __init__(self, beam: Beam, scope: Atom) -> None:
        self.beam = beam
        self.name = Atom(beam.name)
        self.scope = scope
        self.says_goodbye: bool

    async def driver(self, source: str, **bindings: Term) -> Any:
        return await self.beam.eval(f"fixture_syn_driver:{source}", S=self.scope, timeout=_EVAL_LIMIT, **bindings)

    async def call(self, function: str, *arguments: Term) -> Any:
        try:
            return await self.driver("call(F, [S | A])", F=Atom(function), A=list(arguments))
        except BeamError as error:
            return error.kind, error.reason

    async def spawn(self) -> Pid:
        pid: Pid = await self.driver("spawn_process()")
        return pid

    async def spawn_idle(self) -> Pid:
        return await self.spawn()

    async def end(self, pid: Pid, reason: Term) -> None:
        assert await self.driver("end_process(P, R)", P=pid, R=reason) == reason

    async def kill(self, pid: Pid) -> None:
        await self.beam.eval("exit(P, kill)", P=pid)

    async def is_alive(self, pid: Pid) -> bool:
        return await self.beam.eval("is_process_alive(P)", P=pid) is True

    async def messages(self, pid: Pid, count: int) -> list[Any]:
        messages: list[Any] = await self.driver("messages(P, N)", P=pid, N=count)
        return messages

    async def register_many(self, count: int) -> None:
        await self.driver("register_many(S, fixture_syn_driver:spawn_processes(10), N)", N=count)

    async def join_many(self, count: int) -> None:
        await self.driver("join_many(S, fixture_syn_driver:spawn_processes(10), N)", N=count)

    async def has_many(self, service: str, count: int) -> bool:
        missing: int = await self.driver(f"missing({service}, S, N)", N=count)
        return missing == 0

    async def events(self) -> list[Event]:
        noted: list[Any] = await self.beam.eval("fixture_syn_recorder:events(S)", S=self.scope, timeout=_EVAL_LIMIT)
        return [(callback.name, *arguments[1:]) for callback, arguments in noted]

    async def now(self) -> int:
        now: int = await self.beam.eval("erlang:system_time()")
        return now

    async def leave_scope(self) -> None:
        await self.driver("stop()")

    async def enter_scope(self) -> None:
        await self.beam.eval("fixture_syn_driver:start(), fixture_syn_driver:add_scope(S)", S=self.scope)

    async def crash(self, service: str, while_down: Pid | None = None) -> None:
        killing = "fun() -> ok end" if while_down is None else "fun() -> fixture_syn_driver:kill(P) end"
        source = f"crash({service}, S, {killing})"
        assert await self.driver(source, P=while_down or UNDEFINED) is True

    async def resolve_by(self, how: str) -> None:
        await self.driver(f"resolve_by({how})")

    async def connect(self, other: Member) -> None:
        assert await self.beam.eval("net_kernel:connect_node(N)", N=other.name) is True

    async def disconnect(self, other: Member) -> None:
        # False for a moment after messages come through already.
        assert (
            await self.beam.eval("polling:until(fun() -> erlang:disconnect_node(N) end, 20000)", N=other.name) is True
        )

    async def is_connected(self, other: Member) -> bool:
        # net_kernel's row goes last.
        source = "lists:member(N, nodes(connected)) orelse ets:member(sys_dist, N)"
        return await self.beam.eval(source, N=other.name) is True

    async def peers(self, service: str) -> set[Atom]:
        return set(await self.driver(f"subcluster({service}, S)"))

    async def await_member(self, other: Member, *, is_member: bool) -> None:
        assert await self.driver("await_member(S, N, M)", N=other.name, M=is_member) is True

    async def mark(self, key: Term) -> Pid:
        pid: Pid = await self.driver("settle(S, K)", K=key)
        return pid

    async def await_marks(self, keys: list[Term], *, are_there: bool) -> None:
        assert await self.driver("await_settled(S, Ks, T)", Ks=keys, T=are_there) is True


@asynccontextmanager
async def joined_by_beam(beam: Beam, scope: Atom) -> AsyncIterator[BeamMember]:
    """Start syn, or its stand-in, on a BEAM, and add the scope."""
    member = BeamMember(beam, scope)
    await member.enter_scope()
    member.says_goodbye = await member.driver("version()") >= (3, 4)
    yield member
    await member.leave_scope()


# ---------------------------------------------------------------------------------------------------- what happened


def registered(name: Term, pid: Pid, meta: Term, reason: Term = NORMAL) -> Event:
    return "on_process_registered", name, pid, meta, reason


def unregistered(name: Term, pid: Pid, meta: Term, reason: Term = NORMAL) -> Event:
    return "on_process_unregistered", name, pid, meta, reason


def updated(name: Term, pid: Pid, old: Term, new: Term, reason: Term = NORMAL) -> list[Event]:
    callback = "on_registry_process_updated"
    return [(callback, name, pid, new, reason), (callback, name, pid, old, new, reason)]


def joined(group: Term, pid: Pid, meta: Term, reason: Term = NORMAL) -> Event:
    return "on_process_joined", group, pid, meta, reason


def left(group: Term, pid: Pid, meta: Term, reason: Term = NORMAL) -> Event:
    return "on_process_left", group, pid, meta, reason


def member_updated(group: Term, pid: Pid, old: Term, new: Term, reason: Term = NORMAL) -> list[Event]:
    callback = "on_group_process_updated"
    return [(callback, group, pid, new, reason), (callback, group, pid, old, new, reason)]


def node_up(member: Member) -> Term:
    """The reason of what is learnt from a member when it comes."""
    return Atom("syn_remote_scope_node_up"), member.scope, member.name


def node_down(member: Member) -> Term:
    """The reason of what is forgotten of a member that has gone."""
    return Atom("syn_remote_scope_node_down"), member.scope, member.name


def exact(terms: Iterable[Term]) -> list[Any]:
    """What can be compared in place of terms, or events, as Erlang's ``=:=`` does; and hashed."""
    return list(map(exact_key, terms))


def unordered(events: Iterable[Event]) -> Counter[Any]:
    """Events of which syn does not say in which order they come: of one purge, one sync, one process's end."""
    return Counter(exact(events))


def of_names(events: Iterable[Event]) -> list[Event]:
    """Those of the registry: another process than that of the groups calls them."""
    return [event for event in events if not is_of_group(event)]


def of_groups(events: Iterable[Event]) -> list[Event]:
    return [event for event in events if is_of_group(event)]


def is_of_group(event: Event) -> bool:
    return event[0] in ("on_process_joined", "on_group_process_updated", "on_process_left")


class Cluster:
    """Members ``a``, ``b`` and ``c`` of one scope, one of which may be ours; connected when a test begins."""

    def __init__(self, a: Member, b: Member, c: Member) -> None:
        self.a, self.b, self.c = a, b, c

    @property
    def members(self) -> list[Member]:
        return [self.a, self.b, self.c]

    async def connect(self, *pairs: tuple[Member, Member]) -> None:
        """Connect each pair, in this order, and wait until both services of both know of each other."""
        for one, other in pairs:
            await one.connect(other)
            await know_each_other(one, other)

    async def disconnect(self, *pairs: tuple[Member, Member]) -> None:
        """Disconnect each pair, and wait until neither knows of the other any more."""
        for one, other in pairs:
            await one.disconnect(other)
            for side, gone in ((one, other), (other, one)):
                await has_lost(side, gone)
                await side.await_member(gone, is_member=False)

    async def are_members(self) -> None:
        """Wait until all know of each other."""
        for one, other in itertools.combinations(self.members, 2):
            await know_each_other(one, other)

    async def isolate_c(self) -> None:
        """The split {a, b} | c."""
        await self.disconnect((self.a, self.c), (self.b, self.c))

    async def heal(self) -> None:
        """End the split, ``a`` first, and wait until all that follows has happened."""
        await self.heal_first(self.a, self.b)

    async def heal_first(self, first: Member, second: Member) -> None:
        """The same, and ``second`` is connected with ``c`` once it has heard what came of that of ``first``."""
        await self.connect((first, self.c))
        await self.settle(first, self.c)
        await self.settle(first, second)
        await self.connect((second, self.c))
        await self.settle()
        await self.settle()

    async def pass_time(self, before: Member, after: Member) -> None:
        """Return when what ``after`` registers has a later time than what ``before`` has registered."""
        passed = await before.now()

        async def is_later() -> bool:
            return await after.now() > passed

        await until(is_later)

    async def settle(self, *members: Member) -> None:
        """Return when all that these members (or all), connected with each other, have said has arrived.

        What one says arrives in order: each says one thing more, and all wait for that. Where the others answer to what
        they hear, as owners of a name do in a conflict, it takes another round.
        """
        members = members or (self.a, self.b, self.c)
        marks: dict[Term, tuple[Member, Pid]] = {}
        for member in members:
            key = Atom("settled"), next(_numbers)
            marks[key] = member, await member.mark(key)
        for member in members:
            await member.await_marks(list(marks), are_there=True)
        for member, pid in marks.values():
            await member.kill(pid)
        for member in members:
            await member.await_marks(list(marks), are_there=False)

    async def events(self, member: Member) -> list[Event]:
        """The callbacks on a member, without those of :meth:`settle`."""
        return [event for event in await member.events() if not is_mark(event[1])]


def is_mark(key: Term) -> bool:
    return isinstance(key, tuple) and key[:1] == (Atom("settled"),)


async def know_each_other(one: Member, other: Member) -> None:
    """Return when both services of both know of each other."""
    await one.await_member(other, is_member=True)
    await other.await_member(one, is_member=True)


async def has_lost(member: Member, gone: Member) -> None:
    """Return when it has no connection to ``gone`` any more."""

    async def so() -> bool:
        return not await member.is_connected(gone)

    await until(so)


async def all_have(members: Iterable[Member], key: Term, entry: tuple[Pid, Term]) -> None:
    """Return when ``key`` is the name of this process, with this metadata, on all members, and its group."""

    async def has(member: Member) -> bool:
        return (await member.call("lookup", key), await member.call("members", key)) == (entry, [entry])

    for member in members:
        await until(lambda: has(member))  # noqa: B023 - it is awaited here


async def none_has(members: Iterable[Member], key: Term) -> None:
    """Return when ``key`` is no name and no group on any of the members."""

    async def has_not(member: Member) -> bool:
        return (await member.call("lookup", key), await member.call("members", key)) == (UNDEFINED, [])

    for member in members:
        await until(lambda: has_not(member))  # noqa: B023 - it is awaited here


# ------------------------------------------------------------------------------------------------- three members


def placed(*places: str) -> pytest.MarkDecorator:
    """Run a test in these places of ours: ``a-hidden``, ``b-visible``, ...

    On a genuine syn in one more, ``nowhere``: three BEAMs, for what the test demands is what they do.
    """
    return pytest.mark.parametrize("cluster", [*places, *(["nowhere"] if GENUINE else [])], indirect=True)


@asynccontextmanager
async def clustered(
    place: str, opened: NodeOpener, beams: Callable[[int], Beam], discover_interval: float
) -> AsyncIterator[Cluster]:
    """Members of a new scope, connected with each other; ``place`` as in :func:`placed`."""
    scope = new_scope()
    role, _, kind = place.partition("-")
    async with AsyncExitStack() as stack:
        roles: dict[str, Member] = {}
        theirs = iter(range(3))
        for each in "abc":
            if each == role:
                roles[each] = await stack.enter_async_context(joined_by_ours(opened, scope, kind, discover_interval))
            else:
                beam = await trio.to_thread.run_sync(beams, next(theirs))
                roles[each] = await stack.enter_async_context(joined_by_beam(beam, scope))
        cluster = Cluster(**roles)
        await cluster.connect((cluster.a, cluster.b), (cluster.a, cluster.c), (cluster.b, cluster.c))
        yield cluster
