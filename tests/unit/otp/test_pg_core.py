from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from erlang_interop import Atom, Pid, Reference, Term
from erlang_interop.otp._pg_core import PgCore
from erlang_interop.otp._pg_messages import CURRENT, LEGACY, Change, Group, Malformed, discover, holds, updates
from tests.unit.otp.monitoring import HERE, THERE, MonitoringPort

SCOPE = Atom("scope")
G, H = Group(Atom("g")), Group(Atom("h"))
ME, PEER = Pid(HERE, 1, 0, 1), Pid(THERE, 1, 0, 1)
ONE, TWO = Pid(HERE, 2, 0, 1), Pid(HERE, 3, 0, 1)
FAR, FURTHER = Pid(THERE, 2, 0, 1), Pid(THERE, 3, 0, 1)


class Port(MonitoringPort):
    """Keeps what the core asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[Pid | tuple[Atom, Atom], Term]] = []
        self.connected = {THERE}

    def send(self, dest: Pid | tuple[Atom, Atom], message: Term) -> None:
        self.sent.append((dest, message))

    def can_reach(self, node: Atom) -> bool:
        return node in self.connected

    def taken(self) -> list[Any]:
        sent, self.sent = self.sent, []
        return sent

    def ref_of(self, pid: Pid) -> Reference:
        (ref,) = self.refs_of(pid)
        return ref


@pytest.fixture
def port() -> Port:
    return Port()


@pytest.fixture
def core(port: Port) -> PgCore:
    return PgCore(ME, SCOPE, port)


@pytest.fixture
def told(core: PgCore) -> list[tuple[Any, ...]]:
    """What a watcher of all groups is told."""
    told: list[tuple[Any, ...]] = []
    core.watch("all", None, lambda *what: told.append(what))
    return told


def meet(core: PgCore, port: Port, version: int = LEGACY) -> None:
    """Both sides know of each other, and the peer has no members."""
    core.handle(discover(PEER, version))
    core.handle(holds(PEER, version, []))
    port.taken()


# -- members of this node


def test_join_and_leave(core: PgCore, port: Port, told: list[Any]) -> None:
    core.join(G, [ONE, TWO, ONE])
    assert sorted(core.members(G), key=str) == sorted([ONE, ONE, TWO], key=str)
    assert core.local_members(G) == core.members(G)
    assert core.leave(G, [ONE])
    assert core.leave(G, [ONE, ONE])
    assert core.members(G) == [TWO]
    assert core.groups() == core.local_groups() == [G]
    assert not core.leave(G, [ONE])
    assert not core.leave(H, [TWO])
    assert core.leave(G, [TWO])
    assert core.groups() == core.local_groups() == core.members(G) == []
    assert not port.monitors
    assert told == [
        ("join", G.term, [ONE, TWO, ONE]),
        ("leave", G.term, [ONE]),
        ("leave", G.term, [ONE]),
        ("leave", G.term, [TWO]),
    ]


def test_joining_nobody_is_nothing(core: PgCore, port: Port, told: list[Any]) -> None:
    meet(core, port)
    core.join(G, [])
    assert core.groups() == told == port.sent == []


def test_a_process_has_one_monitor_until_it_has_left_its_last_group(core: PgCore, port: Port) -> None:
    core.join(G, [ONE, ONE])
    core.join(H, [ONE])
    assert list(port.monitors.values()) == [ONE]
    core.leave(G, [ONE, ONE])
    assert list(port.monitors.values()) == [ONE]
    core.leave(H, [ONE])
    assert not port.monitors


def test_who_ends_has_left(core: PgCore, port: Port, told: list[Any]) -> None:
    meet(core, port, CURRENT)
    core.join(G, [ONE, ONE, TWO])
    core.join(H, [ONE])
    port.taken()
    del told[:]
    assert core.down(port.ref_of(ONE), ONE)
    assert (core.members(G), core.groups()) == ([TWO], [G])
    ((dest, (what, me, changes)),) = port.taken()
    assert (dest, what, me) == (PEER, Atom("update"), ME)
    assert sorted(changes, key=str) == [(G.term, [], [ONE, ONE]), (H.term, [], [ONE])]
    assert sorted(told, key=str) == [("leave", G.term, [ONE, ONE]), ("leave", H.term, [ONE])]
    assert not core.down(Reference(HERE, 1, bytes(12)), TWO), "of another monitor"


# -- peers


def test_who_is_unknown_is_told_everything_and_asked(core: PgCore, port: Port) -> None:
    core.join(G, [ONE])
    for version in (LEGACY, CURRENT):
        peer = Pid(THERE, 50 + version, 0, 1)
        core.handle(discover(peer, version))
        assert port.taken() == [(peer, holds(ME, version, [(G, [ONE])])), (peer, discover(ME, version))]
        core.handle(discover(peer, version))
        assert port.taken() == [(peer, holds(ME, version, [(G, [ONE])]))], "known by now"


def test_a_version_to_come_is_spoken_to_as_the_newest(core: PgCore, port: Port) -> None:
    core.handle((Atom("discover"), PEER, 2))
    assert port.taken() == [(PEER, holds(ME, CURRENT, [])), (PEER, discover(ME, CURRENT))]


def test_the_first_word_to_a_node_is_one_that_every_otp_understands(core: PgCore, port: Port) -> None:
    core.discover([THERE])
    assert port.taken() == [((SCOPE, THERE), (Atom("discover"), ME))]


def test_the_dialogue_with_otp_29_which_was_spoken_to_in_version_0(core: PgCore, port: Port) -> None:
    core.join(G, [ONE])
    core.handle(holds(PEER, LEGACY, [(H, [FAR])]))  # its answer to our {discover, Me}
    assert port.taken() == []
    core.handle(discover(PEER, CURRENT))
    assert port.taken() == [(PEER, holds(ME, CURRENT, [(G, [ONE])]))]
    core.handle(holds(PEER, LEGACY, [(H, [FAR])]))  # to a {discover, Me} of ours that came late
    core.join(G, [TWO])
    assert port.taken() == [(PEER, message) for message in updates(ME, CURRENT, [Change(G, [TWO], [])])]


def test_a_peer_is_told_of_changes_only_when_it_has_everything(core: PgCore, port: Port) -> None:
    """A scope process of OTP 25 to 28 would end at the leave: it has an empty row of us by now."""
    core.join(G, [ONE, TWO])
    core.discover([THERE])
    core.handle(holds(PEER, LEGACY, []))
    port.taken()
    core.leave(G, [ONE])
    assert port.taken() == []
    core.handle(discover(PEER, LEGACY))
    assert port.taken() == [(PEER, holds(ME, LEGACY, [(G, [TWO])]))]
    core.leave(G, [TWO])
    assert port.taken() == [(PEER, (Atom("leave"), ME, [TWO], [G.term]))]


def test_who_has_not_asked_is_looked_for_again(core: PgCore, port: Port) -> None:
    """It may have taken our discover for one of a connection that it has not seen the end of."""
    core.handle(holds(PEER, LEGACY, []))
    core.discover([THERE])
    assert port.taken() == [((SCOPE, THERE), discover(ME, LEGACY))]
    core.handle(discover(PEER, LEGACY))
    port.taken()
    core.discover([THERE])
    assert port.taken() == []


def test_members_of_a_peer(core: PgCore, port: Port, told: list[Any]) -> None:
    meet(core, port)
    core.join(G, [ONE])
    core.handle((Atom("join"), PEER, G.term, [FAR, FAR]))
    core.handle((Atom("join"), PEER, H.term, FURTHER))
    assert core.members(G) == [ONE, FAR, FAR]
    assert core.local_members(G) == [ONE]
    assert (core.groups(), core.local_groups()) == ([G, H], [G])
    core.handle((Atom("leave"), PEER, FAR, [G.term, H.term]))
    assert core.members(G) == [ONE, FAR]
    assert core.members(H) == [FURTHER]
    del told[:]
    assert core.down(port.ref_of(PEER), PEER)
    assert core.members(G) == [ONE]
    assert core.groups() == [G]
    assert sorted(told, key=str) == [("leave", G.term, [FAR]), ("leave", H.term, [FURTHER])]


def test_who_is_no_peer_has_no_members(core: PgCore, port: Port) -> None:
    core.handle((Atom("join"), PEER, G.term, [FAR]))
    assert core.groups() == list(core.peers) == port.sent == []


def test_everything_replaces_what_was_there(core: PgCore, port: Port, told: list[Any]) -> None:
    core.handle(holds(PEER, LEGACY, [(G, [FAR, FAR, FURTHER]), (H, [FAR])]))
    del told[:]
    core.handle(holds(PEER, LEGACY, [(G, [FAR, FURTHER, FURTHER]), (Group(1), [FAR])]))
    assert core.members(G) == [FAR, FURTHER, FURTHER]
    assert core.members(H) == []
    assert told == [
        ("leave", H.term, [FAR]),
        ("join", G.term, [FURTHER]),
        ("leave", G.term, [FAR]),
        ("join", 1, [FAR]),
    ]
    del told[:]
    core.handle(holds(PEER, CURRENT, [(G, [FAR, FURTHER, FURTHER]), (Group(1), [FAR])]))
    assert told == []


def test_who_cannot_be_reached_is_no_peer(core: PgCore, port: Port) -> None:
    port.connected.clear()
    core.handle(discover(PEER, LEGACY))
    core.handle(holds(PEER, LEGACY, [(G, [FAR])]))
    assert core.groups() == list(core.peers) == port.sent == []
    assert not port.monitors


def test_a_peer_of_this_node_is_refused(core: PgCore, port: Port) -> None:
    with pytest.raises(Malformed, match="of this node"):
        core.handle(discover(TWO, LEGACY))
    assert not port.monitors


# -- watchers


def test_a_watcher_of_one_group(core: PgCore, told: list[Any]) -> None:
    mine: list[Any] = []
    core.watch("mine", G, lambda *what: mine.append(what))
    core.join(G, [ONE])
    core.join(H, [ONE])
    assert mine == [("join", G.term, [ONE])]
    assert len(told) == 2
    assert core.unwatch("mine")
    assert not core.unwatch("mine")
    core.leave(G, [ONE])
    assert len(mine) == 1


def test_what_a_watcher_does_is_told_after_what_it_was_told(core: PgCore, port: Port) -> None:
    """And the peers hear of it in that order: a leave before its join would end a scope process of OTP 28."""
    meet(core, port)
    seen: list[Any] = []

    def quick(what: str, group: Term, pids: list[Pid]) -> None:
        if what == "join":
            core.leave(Group(group), pids)

    core.watch("quick", G, quick)
    core.watch("slow", G, lambda *what: seen.append(what))
    core.join(G, [ONE])
    assert seen == [("join", G.term, [ONE]), ("leave", G.term, [ONE])]
    assert [message[0] for _, message in port.sent] == [Atom("join"), Atom("leave")]


def test_who_stops_watching_is_not_told_what_waits(core: PgCore) -> None:
    seen: list[Any] = []
    core.watch("first", G, lambda *_: core.unwatch("second"))
    core.watch("second", G, lambda *what: seen.append(what))
    core.join(G, [ONE])
    assert seen == []


def test_the_lists_that_watchers_get_are_their_own(core: PgCore, told: list[Any]) -> None:
    core.watch("spoiler", None, lambda _what, _group, pids: pids.clear())
    core.watch("spoiler of g", G, lambda _what, _group, pids: pids.clear())
    core.join(G, [ONE])
    core.members(G).clear()
    assert core.members(G) == [ONE]
    assert told[0][2] == [ONE]


# -- two of them


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_cores_find_each_other_whoever_speaks_first(order: tuple[int, int]) -> None:
    names = [Atom("a@test"), Atom("b@test")]
    me = [Pid(name, 1, 0, 1) for name in names]
    ports = [Port(), Port()]
    cores = [PgCore(pid, SCOPE, port) for pid, port in zip(me, ports, strict=True)]
    for at, core in enumerate(cores):
        ports[at].connected = {names[1 - at]}
        core.join(G, [Pid(names[at], 7, 0, 1)])
    for at in order:
        cores[at].discover([names[1 - at]])
        deliver(ports, [core.handle for core in cores])
    assert [sorted(core.members(G), key=str) for core in cores] == [[Pid(name, 7, 0, 1) for name in names]] * 2
    assert all(peer.told for core in cores for peer in core.peers.values())


def deliver(ports: list[Port], handlers: list[Callable[[Term], None]]) -> None:
    under_way: deque[tuple[int, Term]] = deque()
    while True:
        for at, port in enumerate(ports):
            under_way.extend((1 - at, message) for _, message in port.taken())
        if not under_way:
            return
        at, message = under_way.popleft()
        handlers[at](message)


# -- when the scope process has ended


def test_another_process_has_the_members_and_asks_the_peers_anew(core: PgCore, port: Port, told: list[Any]) -> None:
    meet(core, port)
    core.handle(holds(PEER, LEGACY, [(G, [FAR])]))
    core.join(G, [ONE])
    told.clear()
    port.taken()
    port.monitors.clear()  # the process that had them has ended
    new = Pid(HERE, 9, 0, 1)
    core.take_over(new)
    assert (sorted(core.members(G), key=str), told) == ([ONE, FAR], [])
    assert sorted(port.monitors.values(), key=str) == [ONE, PEER]
    core.join(G, [TWO])  # the peer would not understand it
    assert port.taken() == []
    core.discover([THERE])
    assert port.taken() == [((SCOPE, THERE), discover(new, LEGACY))]
    core.handle(discover(PEER, LEGACY))
    assert port.taken() == [(PEER, holds(new, LEGACY, [(G, [ONE, TWO])]))]
    core.handle(holds(PEER, LEGACY, [(G, [FAR, FURTHER])]))
    assert told == [("join", G.term, [TWO]), ("join", G.term, [FURTHER])]
    assert core.down(port.ref_of(PEER), PEER)
    assert core.down(port.ref_of(ONE), ONE)
    assert core.members(G) == [TWO]


def test_a_peer_that_cannot_be_reached_then_is_none(core: PgCore, port: Port, told: list[Any]) -> None:
    meet(core, port)
    core.handle(holds(PEER, LEGACY, [(G, [FAR])]))
    told.clear()
    port.connected.clear()
    port.monitors.clear()
    core.take_over(Pid(HERE, 9, 0, 1))
    assert (core.peers, port.monitors, told) == ({}, {}, [("leave", G.term, [FAR])])
