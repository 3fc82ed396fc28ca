from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from erlang_interop import Atom, InlineServer, Node, Pid, Process, Term
from erlang_interop.otp import gen
from erlang_interop.otp._global_core import Cancel, Candidate
from erlang_interop.otp._global_locker import FIRST_DELAY, LAST_DELAY, LOCK_PATIENCE, Locker
from erlang_interop.otp._global_locks import LockTable
from erlang_interop.otp._global_messages import GLOBAL, VERSION, LockSet, requester_of
from erlang_interop.otp.passive import GLOBAL_NAME_SERVER
from erlang_interop.testing.cluster import open_cluster, settled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trio.testing import MockClock


TAG, HIS_TAG = 5, -9
SET, DEL = Atom("set_lock"), Atom("del_lock")


class Server(InlineServer):
    """A name server that has locks, and keeps what else it is told.

    Attributes:
        calls: Calls of all servers of the test: node, what, whether it was let in.
        told: Casts.
        silent: Does not answer.
    """

    def __init__(self, calls: list[tuple[str, Term, bool]]) -> None:
        self.calls = calls
        self.told: list[Term] = []
        self.silent = False

    def started(self) -> None:
        self.locks = LockTable(self.process)

    def handle_message(self, message: Any) -> None:
        match message:
            case (Atom("$gen_call"), from_, (what, (resource, requester))):
                done = True
                if what == SET:
                    done = not self.silent and self.locks.set_lock(resource, requester, from_[0])
                else:
                    self.locks.del_lock(resource, requester, from_[0])
                self.calls.append((self.node.short_name, what, done))
                if not self.silent:
                    gen.reply(self.process, from_, done)
            case (Atom("$gen_cast"), cast):
                self.told.append(cast)
            case (Atom("DOWN"), ref, _, pid, _):
                self.locks.down(pid, ref)


class World:
    """A locker on ``m@test``, with name servers there and on ``a@test`` and ``z@test``; it is the locker's port.

    Attributes:
        him: The candidate: of ``a@test``, whose locker is a process there.
    """

    def __init__(self, nodes: tuple[Node, ...], his: Process) -> None:
        self.calls: list[tuple[str, Term, bool]] = []
        self.servers = {node.short_name: Server(self.calls) for node in nodes}
        self.nodes = {node.short_name: node for node in nodes}
        for node in nodes:
            node.start_inline(self.servers[node.short_name], name=GLOBAL_NAME_SERVER)
        self.known: list[Atom] = []
        self.came: list[tuple[Any, ...]] = []
        self.when_locked: Callable[[], object] = lambda: None
        self.his = his
        self.locker = nodes[0].spawn(Locker(self).run)
        self.requester = requester_of(self.locker, his.pid)

    def candidate(self, *, failures: int = 0, version: int = VERSION) -> Candidate:
        return Candidate(self.his.pid.node, self.his.pid, version, TAG, HIS_TAG, failures)

    def tell(self, message: object) -> None:
        self.nodes["m"].send(self.locker, message)

    def held(self) -> dict[str, list[Term]]:
        """Where the lock is held, and by whom."""
        locks = {name: server.locks.get(GLOBAL) for name, server in self.servers.items()}
        return {name: lock.requester for name, lock in locks.items() if lock is not None}

    @property
    def told(self) -> list[Any]:
        """What his name server was told by the locker."""
        return self.servers["a"].told

    # -- LockerPort

    def may_lock(self, requester: Term) -> bool:
        lock = self.servers["m"].locks.get(GLOBAL)
        return lock is None or lock.requester == requester

    def is_locked(self) -> bool:
        return self.servers["m"].locks.get(GLOBAL) is not None

    def locked(self, node: Atom, tag: int, requester: list[Pid]) -> None:
        self.came.append(("locked", node, tag, requester))
        self.when_locked()

    def cast(self, node: Atom, message: Term) -> None:
        gen.cast(self.nodes["m"], (GLOBAL_NAME_SERVER, node), message)

    def warn(self, problem: str) -> None:
        self.came.append(("warned", problem))

    def timed_out(self, node: Atom, tag: int) -> None:
        self.came.append(("timed out", node, tag, trio.current_time()))
        self.tell(Cancel(node, tag))


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with open_cluster("m@test", "a@test", "z@test") as nodes, nodes[1].open_process() as his:
        yield World(nodes, his)


async def test_it_locks_both_sides_and_unlocks_when_the_exchange_is_over(
    world: World, autojump_clock: MockClock
) -> None:
    world.known = [world.nodes["z"].name]
    world.tell(world.candidate())
    await trio.sleep(2)
    assert world.calls == [("z", SET, True), ("m", SET, True), ("a", SET, True)]
    assert world.held() == dict.fromkeys("maz", world.requester)
    assert world.told == [(Atom("lock_set"), world.locker, True, world.known, HIS_TAG)]
    assert world.came == []
    world.tell(LockSet(world.his.pid, True, TAG))
    await settled()
    assert world.came == [("locked", world.his.pid.node, TAG, world.requester)]
    world.known.append(world.his.pid.node)
    world.tell(Cancel(world.his.pid.node, TAG))
    await trio.sleep(1)
    assert world.held() == {}
    assert [what for _, what, _ in world.calls[3:]] == [DEL] * 3
    assert world.calls[-1] == ("z", DEL, True)  # the boss
    await trio.sleep(100)  # it is not begun with again
    assert len(world.calls) == 6


async def test_who_cannot_lock_its_side_is_asked_again_later(world: World, autojump_clock: MockClock) -> None:
    world.tell(world.candidate())
    await trio.sleep(0.3)
    assert len(world.told) == 1
    world.tell(LockSet(world.his.pid, False, TAG))
    await trio.sleep(0.1)
    assert world.held() == {}
    await trio.sleep(0.3)
    assert len(world.told) == 2


async def test_a_lock_that_others_have_is_waited_for(world: World, autojump_clock: MockClock) -> None:
    async with world.nodes["a"].open_process() as other:
        world.servers["a"].locks.set_lock(GLOBAL, b"other", other.pid)
        world.tell(world.candidate())
        await trio.sleep(3)
        assert world.told == []
        assert set(world.held()) == {"a"}
    await trio.sleep(1)
    assert len(world.told) == 1


async def test_nothing_is_begun_while_this_node_is_locked(world: World, autojump_clock: MockClock) -> None:
    async with world.nodes["z"].open_process() as other:
        world.servers["m"].locks.set_lock(GLOBAL, b"other", other.pid)
        world.tell(world.candidate())
        await trio.sleep(3)
        assert world.calls == []
    await trio.sleep(1)
    assert len(world.told) == 1


async def test_who_does_not_answer_keeps_nothing_locked(world: World, autojump_clock: MockClock) -> None:
    world.known = [world.nodes["z"].name]
    world.servers["a"].silent = True
    world.tell(world.candidate())
    await trio.sleep(1.2)
    assert set(world.held()) == {"m", "z"}
    await trio.sleep(LOCK_PATIENCE)
    assert world.held() == {}
    assert ("a", DEL, True) in world.calls  # should it have been let in meanwhile
    ((what, warning),) = world.came
    assert what == "warned"
    assert "a@test" in warning
    # The next attempt comes later.
    world.calls.clear()
    await trio.sleep(FIRST_DELAY - 1)
    assert world.calls == []
    await trio.sleep(4)
    assert ("z", SET, True) in world.calls


async def test_who_has_locked_its_side_is_answered(world: World, autojump_clock: MockClock) -> None:
    world.tell(world.candidate())
    world.tell(LockSet(world.his.pid, True, TAG))
    world.when_locked = lambda: world.came.append(("held", world.held()))
    await settled()
    await trio.sleep(0.1)
    assert world.told == [(Atom("lock_set"), world.locker, True, [], HIS_TAG)]
    # Not his node: that one is his to lock.
    assert world.came == [("locked", world.his.pid.node, TAG, world.requester), ("held", {"m": world.requester})]
    world.tell(Cancel(world.his.pid.node, TAG))
    await trio.sleep(0.1)
    assert world.held() == {}


async def test_who_has_locked_its_side_is_answered_when_that_is_impossible_here(
    world: World, autojump_clock: MockClock
) -> None:
    async with world.nodes["z"].open_process() as other:
        world.servers["m"].locks.set_lock(GLOBAL, b"other", other.pid)
        world.tell(world.candidate())
        world.tell(LockSet(world.his.pid, True, TAG))
        await trio.sleep(0.1)
        assert world.told == [(Atom("lock_set"), world.locker, False, [], HIS_TAG)]
        assert world.came == []


async def test_who_has_locked_its_side_is_answered_when_others_here_do_not_answer(
    world: World, autojump_clock: MockClock
) -> None:
    world.known = [world.nodes["z"].name]
    world.servers["z"].silent = True
    world.tell(world.candidate())
    world.tell(LockSet(world.his.pid, True, TAG))
    await trio.sleep(LOCK_PATIENCE + 0.5)
    assert world.told == [(Atom("lock_set"), world.locker, False, world.known, HIS_TAG)]


async def test_a_stranger_who_has_locked_its_side_is_answered(world: World, autojump_clock: MockClock) -> None:
    world.tell(LockSet(world.his.pid, True, HIS_TAG))  # nobody is dialled to be answered
    await world.nodes["m"].connect(world.his.pid.node)
    with pytest.raises(trio.WouldBlock):
        world.his.receive_nowait()
    world.tell(LockSet(world.his.pid, True, HIS_TAG))
    assert await world.his.receive(timeout=1) == (Atom("lock_set"), world.locker, False, [])
    world.tell(LockSet(world.his.pid, False, HIS_TAG))  # no question
    world.tell(world.candidate())
    world.tell(LockSet(world.his.pid, True, TAG + 1))  # of an attempt that is over
    world.tell(b"garbage")
    await trio.sleep(0.1)
    with pytest.raises(trio.WouldBlock):
        world.his.receive_nowait()
    assert world.told == world.came == []
    await trio.sleep(1)
    assert len(world.told) == 1


async def test_a_node_before_version_8_is_told_without_tags(world: World, autojump_clock: MockClock) -> None:
    world.tell(world.candidate(version=7))
    await trio.sleep(0.3)
    assert world.told == [(Atom("lock_set"), world.locker, True, [])]
    world.tell(LockSet(world.his.pid, True, None))
    await settled()
    assert [what for what, *_ in world.came] == ["locked"]


async def test_a_side_that_is_not_locked_in_time(world: World, autojump_clock: MockClock) -> None:
    world.tell(world.candidate())
    await trio.sleep(0.3)
    world.tell(LockSet(world.his.pid, True, TAG + 1))  # of another attempt
    await trio.sleep(LOCK_PATIENCE - 1)
    assert world.came == []
    await trio.sleep(2)
    assert [come[:3] for come in world.came] == [("timed out", world.his.pid.node, TAG)]
    assert world.held() == {}


async def test_an_exchange_that_takes_long_is_looked_at(world: World, autojump_clock: MockClock) -> None:
    world.tell(world.candidate())
    world.tell(LockSet(world.his.pid, True, TAG))
    await trio.sleep(100)
    assert [what for what, *_ in world.came] == ["locked", "timed out"]
    assert world.held() == {}


async def test_who_has_failed_is_begun_with_later_and_later_but_answered_at_once(
    world: World, autojump_clock: MockClock
) -> None:
    for failures, delay in ((1, FIRST_DELAY), (2, 2 * FIRST_DELAY), (50, LAST_DELAY)):
        world.told.clear()
        world.tell(world.candidate(failures=failures))
        await trio.sleep(delay - 1)
        assert world.told == []
        await trio.sleep(2)
        assert len(world.told) == 1
        world.tell(Cancel(world.his.pid.node, TAG))
        await trio.sleep(1)
    world.tell(world.candidate(failures=50))
    world.tell(LockSet(world.his.pid, True, TAG))
    await trio.sleep(0.1)
    assert [what for what, *_ in world.came] == ["locked"]


async def test_who_has_become_known_or_was_cancelled_is_forgotten(world: World, autojump_clock: MockClock) -> None:
    world.tell(world.candidate())
    world.tell(Cancel(world.his.pid.node, TAG - 1))
    world.tell(Cancel(world.nodes["z"].name, TAG))
    await settled()
    world.known = [world.his.pid.node]
    await trio.sleep(3)
    assert world.told == []
    world.known = []
    world.tell(world.candidate())
    world.tell(Cancel(world.his.pid.node, TAG))
    await trio.sleep(3)
    assert world.told == world.calls == []
