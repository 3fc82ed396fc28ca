"""Signals that fit their rows and make no sense: whatever stands in their slots, only our own error is raised.

The wire layer refuses what does not fit (``test_wrong_bytes.py``); what it lets through is carried out here by a whole
node, with every kind of term in every slot that may hold one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
import trio
import trio.testing

from erlang_interop import open_node
from erlang_interop.errors import RemoteProtocolError
from erlang_interop.etf import encode
from erlang_interop.flags import OFFERED, DFlag
from erlang_interop.runtime.peer import Peer, PeerState
from erlang_interop.runtime.process import LocalProcess
from erlang_interop.terms import Atom, BitString, ErlMap, ImproperList, Pid, Reference
from erlang_interop.wire.control import LAYOUTS, NO_PAYLOAD, Layout, check

if TYPE_CHECKING:
    from erlang_interop import Node

THERE: Final = Atom("there@127.0.0.1")
FOREIGN: Final = Pid(THERE, 7, 0, 9)


class Sink(Peer):
    """A connected peer that checks what it is sent, as a BEAM does, and drops it."""

    def __init__(self) -> None:
        super().__init__(THERE, [])
        self.state = PeerState.UP
        self.agreed = OFFERED | DFlag.SPAWN

    def emit(self, control: tuple[Any, ...], payload: Any = NO_PAYLOAD) -> None:
        check(control, payload is not NO_PAYLOAD)
        encode((control, None if payload is NO_PAYLOAD else payload))


def deep(depth: int) -> Any:
    term: Any = []
    for _ in range(depth):
        term = [term]
    return term


def values(node: Node, process: LocalProcess) -> list[Any]:
    """Terms of every kind, and what spawn options and trace tokens are made of, right and wrong."""
    alias = process.alias()
    words = [
        Atom(word) for word in ("link", "monitor", "reply", "priority", "tag", "alias", "victim", "nobody", "", "kill")
    ]
    return [
        *words,
        True,
        None,
        0,
        1,
        -1,
        31,
        1 << 27,
        1 << 64,
        1 << 20_000,
        1.5,
        b"",
        bytes(1000),
        BitString(b"\xa0", 3),
        [],
        (),
        {},
        [1],
        deep(3000),
        ImproperList([Atom("link")], Atom("monitor")),
        ErlMap([(1, 2), (1.0, 3)]),
        process.pid,
        Pid(node.name, 999_999, 0, node.creation),
        Pid(node.name, process.pid.id, process.pid.serial, node.creation - 1),
        FOREIGN,
        Pid(Atom("elsewhere@h"), 1, 0, 1),
        alias,
        Reference(node.name, node.creation, bytes(12)),
        Reference(THERE, 9, bytes(12)),
        Reference(THERE, 9, bytes(4)),
        *[
            [(word, value)]
            for word in words[:6]
            for value in (1, words[0], [], [words[3]], [(words[4], 1)], [(1, 2, 3)], b"")
        ],
        [words[0], words[1], words[0]],
        [(words[1], ImproperList([1], 2))],
        [((1, 2), 3)],
        [(Atom("min_heap_size"), 1 << 70)],
        [(Atom("max_heap_size"), {Atom("size"): b""})],
        (1, 2, 3, FOREIGN, 4),
        (1, 2, 3, 4, 5),
        (-1, 1 << 80, 0, Atom("x"), [1]),
        (Atom("erlang"), Atom("halt"), 0),
        (Atom("m"), Atom("f"), -1),
        (True, None, 255),
    ]


def signals(layout: Layout, node: Node, process: LocalProcess) -> list[tuple[tuple[Any, ...], Any]]:
    """The row with each of its slots, and its payload, changed in turn."""
    right: dict[str, Any] = {
        "unused": Atom(""),
        "term": [],
        "pid": process.pid,
        "peer": FOREIGN,
        "atom": Atom("victim"),
        "proc": process.pid,
        "ref": Reference(THERE, 9, bytes(range(12))),
        "dest": process.pid,
        "int": 3,
        "id": 7,
        "id0": 7,
        "mfa": (Atom("erlang"), Atom("node"), 0),
    }
    control = (layout.op, *(right[kind] for kind in layout.kind_names))
    payload: Any = [] if layout.has_payload else NO_PAYLOAD
    odd = values(node, process)
    made = [((*control[:at], value, *control[at + 1 :]), payload) for at in range(1, len(control)) for value in odd]
    if layout.has_payload:
        made += [(control, value) for value in odd]
    if layout.open_ended:
        made += [((control[0], flags, *control[2:], value), payload) for flags in range(64) for value in odd[::3]]
    return [signal for signal in made if _fits(*signal)]


def _fits(control: tuple[Any, ...], payload: Any) -> bool:
    try:
        check(control, payload is not NO_PAYLOAD, THERE)
    except RemoteProtocolError:
        return False
    return True


class Victim(LocalProcess):
    """A process without code: it takes what comes until a signal ends it."""

    def __init__(self, node: Node) -> None:
        super().__init__(node, node._router, node._router.make_pid())
        self.trap_exit = True
        node._router.add(self)
        node._router.register("victim", self.pid)

    def deliver(self, message: Any, sender: Any = None) -> None:
        pass

    def deliver_marked(self, message: Any, token: Any, priority: bool) -> None:
        pass

    def ended(self, reason: Any) -> None:
        pass


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
async def test_any_terms_in_the_slots_of_a_signal(layout: Layout) -> None:
    async with open_node("one@127.0.0.1", cookie="secret", epmd=False) as node:
        router = node._router
        idle = router.statistics()
        victim = Victim(node)
        batch = signals(layout, node, victim)
        assert len(batch) > 5
        for index in range(len(batch)):
            if not victim.alive:
                victim = Victim(node)
                batch = signals(layout, node, victim)
            peer = router.peers[THERE] = Sink()
            said = ""
            try:
                # Twice: what came before is in the tables then.
                router.dispatch(peer, [batch[index], batch[index]])
            except RemoteProtocolError as error:
                said = str(error)
            assert len(said) < 2000
            peer.down()
            while not router.connection_lost(peer, Atom("noconnection"), 1000):
                await trio.lowlevel.checkpoint()
            del router.peers[THERE]
        if victim.alive:
            router.terminate(victim, Atom("normal"))
        await trio.testing.wait_all_tasks_blocked()
        left = router.statistics()
        for name in ("links", "monitors", "watchers", "peer_entries"):
            assert left[name] == idle[name], (idle, left)
