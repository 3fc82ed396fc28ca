"""Control messages that nobody should send, or that come too late: a genuine BEAM and our node do the same.

A raw peer says the same to both, and each answers, or hangs up. The BEAM of the OTP at hand is the judge in all cases;
those where releases differ are marked by the release from which on they are as we are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import trio

from erlang_interop import Atom, Node, Pid, Reference
from erlang_interop.wire.control import NO_PAYLOAD, Op
from tests.interop.collectors import leftovers, until, wait_for_ever
from tests.interop.raw_peer import HungUp, RawPeer

if TYPE_CHECKING:
    from erlang_interop.testing.beam import Beam
    from tests.conftest import Otp

THIRD = Pid(Atom("third@127.0.0.1"), 1, 0, 3)
THIRD_REF = Reference(THIRD.node, 3, b"\0\0\0\1" * 3)
WORD = Atom("x")
LINK, MONITOR = Atom("link"), Atom("monitor")


@dataclass
class Scene:
    """Who is talked about.

    Attributes:
        me: A process of the peer.
        live: A living process of the node.
        ref: A reference of the peer.
    """

    me: Pid
    live: Pid
    ref: Reference

    def __post_init__(self) -> None:
        node, creation = self.live.node, self.live.creation
        self.dead = Pid(node, 0x7FFF, 0x1F, creation)
        self.old = Pid(node, self.live.id, self.live.serial, creation - 1)
        self.here = Reference(node, creation, b"\0\0\0\1" * 3)
        self.old_here = Reference(node, creation - 1, b"\0\0\0\1" * 3)

    def spawn(self, **given: Any) -> tuple[Any, Any]:
        """A spawn request, with some of its elements replaced."""
        mfa = (Atom("no_such_module"), Atom("f"), 1)
        slots = {"ref": self.ref, "parent": self.me, "leader": self.me, "mfa": mfa, "options": [], "arguments": [1]}
        slots.update(given)
        *control, arguments = slots.values()
        return (29, *control), arguments

    def roles(self, term: Any) -> Any:
        """``term`` with everybody by role, so that what two nodes say can be compared."""
        names = {getattr(self, role): role for role in ("me", "live", "ref", "dead", "old", "here", "old_here")}
        if isinstance(term, (Pid, Reference)):
            return names.get(term, type(term).__name__)
        if isinstance(term, tuple):
            return tuple(self.roles(element) for element in term)
        if isinstance(term, list):
            return [self.roles(element) for element in term]
        return term


Say = Callable[[Scene], list[Any]]


def says(op: Op, *slots: Any, payload: Any = NO_PAYLOAD) -> Say:
    """One signal; a str is an attribute of the scene."""

    def say(scene: Scene) -> list[Any]:
        filled = [getattr(scene, slot) if isinstance(slot, str) else slot for slot in slots]
        return [((int(op), *filled), payload)]

    return say


def third(op: Op, *slots: Any, payload: Any = NO_PAYLOAD) -> Say:
    """The same; None is a process of a third node."""
    return says(op, *(THIRD if slot is None else slot for slot in slots), payload=payload)


def spawns(**given: Any) -> Say:
    def say(scene: Scene) -> list[Any]:
        filled = {key: getattr(scene, value) if isinstance(value, str) else value for key, value in given.items()}
        return [scene.spawn(**filled)]

    return say


def both(*parts: Say) -> Say:
    return lambda scene: [signal for part in parts for signal in part(scene)]


KILL_LIVE = says(Op.PAYLOAD_EXIT2, "me", "live", payload=Atom("kill"))
TOKEN_FLAG, ALIAS_FLAG, NAME_FLAG, EXIT_FLAG = 2, 4, 8, 16

#: No OTP yet. A BEAM closes the connection where dist.c means to drop the signal, which genuine BEAMs send.
NONE = 1000

#: What is said, how many answers that has, and the OTP from which on a BEAM does what we do.
CASES: dict[str, tuple[Say, int, int]] = {
    "LINK of a dead process": (says(Op.LINK, "me", "dead"), 1, 25),
    "LINK of an old incarnation": (says(Op.LINK, "me", "old"), 1, 25),
    "LINK of another node": (third(Op.LINK, "me", None), 0, 25),
    "LINK by another node": (third(Op.LINK, None, "live"), 0, 25),
    "LINK twice": (both(*[says(Op.LINK, "me", "live")] * 2, KILL_LIVE), 1, 25),
    "UNLINK, which OTP 26 removed": (lambda scene: [((4, scene.me, scene.live), NO_PAYLOAD)], 0, 26),
    "UNLINK_ID without a link": (says(Op.UNLINK_ID, 5, "me", "live"), 1, 25),
    "UNLINK_ID of a dead process": (says(Op.UNLINK_ID, 5, "me", "dead"), 1, 25),
    "UNLINK_ID of an old incarnation": (says(Op.UNLINK_ID, 5, "me", "old"), 0, NONE),
    "UNLINK_ID of another node": (third(Op.UNLINK_ID, 5, "me", None), 0, 25),
    "UNLINK_ID 0": (says(Op.UNLINK_ID, 0, "me", "live"), 0, 25),
    "UNLINK_ID 2**64-1": (says(Op.UNLINK_ID, 2**64 - 1, "me", "live"), 1, 25),
    "UNLINK_ID 2**64": (says(Op.UNLINK_ID, 2**64, "me", "live"), 0, 25),
    "UNLINK_ID_ACK without a link": (says(Op.UNLINK_ID_ACK, 5, "me", "live"), 0, 25),
    "UNLINK_ID_ACK of a link": (both(says(Op.LINK, "me", "live"), says(Op.UNLINK_ID_ACK, 5, "me", "live")), 0, 25),
    "UNLINK_ID_ACK 0": (says(Op.UNLINK_ID_ACK, 0, "me", "live"), 0, 25),
    "UNLINK_ID_ACK of a dead process": (says(Op.UNLINK_ID_ACK, 5, "me", "dead"), 0, 25),
    "UNLINK_ID_ACK of an old incarnation": (says(Op.UNLINK_ID_ACK, 5, "me", "old"), 0, NONE),
    "UNLINK_ID_ACK of another node": (third(Op.UNLINK_ID_ACK, 5, "me", None), 0, 25),
    "EXIT without a link": (says(Op.PAYLOAD_EXIT, "me", "live", payload=WORD), 0, 25),
    "EXIT for a dead process": (says(Op.PAYLOAD_EXIT, "me", "dead", payload=WORD), 0, 25),
    "EXIT for an old incarnation": (says(Op.PAYLOAD_EXIT, "me", "old", payload=WORD), 0, 25),
    "EXIT for another node": (third(Op.PAYLOAD_EXIT, "me", None, payload=WORD), 0, 25),
    "EXIT by another node": (third(Op.PAYLOAD_EXIT, None, "live", payload=WORD), 0, 25),
    "EXIT in its old form": (both(says(Op.LINK, "me", "live"), says(Op.EXIT, "me", "live", WORD)), 0, 25),
    "EXIT in its old form for an old incarnation": (says(Op.EXIT, "me", "old", WORD), 0, 25),
    "EXIT with a token": (says(Op.PAYLOAD_EXIT_TT, "me", "live", (0, 1, 1, THIRD, 0), payload=WORD), 0, 25),
    "EXIT2 for a dead process": (says(Op.PAYLOAD_EXIT2, "me", "dead", payload=WORD), 0, 25),
    "EXIT2 for an old incarnation": (says(Op.PAYLOAD_EXIT2, "me", "old", payload=WORD), 0, 25),
    "EXIT2 for another node": (third(Op.PAYLOAD_EXIT2, "me", None, payload=WORD), 0, 25),
    "EXIT2 by another node": (third(Op.PAYLOAD_EXIT2, None, "live", payload=WORD), 0, 25),
    "EXIT2 in its old form": (
        both(says(Op.MONITOR_P, "me", "live", "ref"), says(Op.EXIT2, "me", "live", WORD)),
        1,
        25,
    ),
    "MONITOR of a dead process": (says(Op.MONITOR_P, "me", "dead", "ref"), 1, 25),
    "MONITOR of an old incarnation": (says(Op.MONITOR_P, "me", "old", "ref"), 1, 25),
    "MONITOR of another node": (third(Op.MONITOR_P, "me", None, "ref"), 0, 25),
    "MONITOR by another node": (third(Op.MONITOR_P, None, "live", "ref"), 0, 25),
    "MONITOR of no name": (says(Op.MONITOR_P, "me", Atom("nobody"), "ref"), 1, 25),
    "MONITOR of true": (says(Op.MONITOR_P, "me", True, "ref"), 1, 25),
    "MONITOR of the empty atom": (says(Op.MONITOR_P, "me", Atom(""), "ref"), 1, 25),
    "MONITOR of a name that is no atom": (says(Op.MONITOR_P, "me", b"nobody", "ref"), 0, 25),
    "MONITOR without a reference": (says(Op.MONITOR_P, "me", "live", 5), 0, 25),
    "MONITOR with a reference of another node": (says(Op.MONITOR_P, "me", "live", THIRD_REF), 0, 25),
    "DEMONITOR of no monitor": (says(Op.DEMONITOR_P, "me", "live", "ref"), 0, 25),
    "DEMONITOR of an old incarnation": (says(Op.DEMONITOR_P, "me", "old", "ref"), 0, 25),
    "DEMONITOR of another node": (third(Op.DEMONITOR_P, "me", None, "ref"), 0, 25),
    "DEMONITOR by another node": (third(Op.DEMONITOR_P, None, "live", "ref"), 0, 25),
    "DEMONITOR of no name": (says(Op.DEMONITOR_P, "me", Atom("nobody"), "ref"), 0, 25),
    "DEMONITOR naming another process": (
        both(says(Op.MONITOR_P, "me", "live", "ref"), says(Op.DEMONITOR_P, "me", "dead", "ref"), KILL_LIVE),
        1,
        25,
    ),
    "DEMONITOR naming a name in place of the pid": (
        both(says(Op.MONITOR_P, "me", "live", "ref"), says(Op.DEMONITOR_P, "me", WORD, "ref"), KILL_LIVE),
        1,
        25,
    ),
    "MONITOR_P_EXIT of no monitor": (says(Op.PAYLOAD_MONITOR_P_EXIT, "me", "live", "here", payload=WORD), 0, 25),
    "MONITOR_P_EXIT with a reference of theirs": (
        says(Op.PAYLOAD_MONITOR_P_EXIT, "me", "live", "ref", payload=WORD),
        0,
        25,
    ),
    "MONITOR_P_EXIT for an old incarnation": (
        says(Op.PAYLOAD_MONITOR_P_EXIT, "me", "old", "here", payload=WORD),
        0,
        25,
    ),
    "MONITOR_P_EXIT for another node": (third(Op.PAYLOAD_MONITOR_P_EXIT, "me", None, "here", payload=WORD), 0, 25),
    "MONITOR_P_EXIT of another node": (third(Op.PAYLOAD_MONITOR_P_EXIT, None, "live", "here", payload=WORD), 0, 25),
    "MONITOR_P_EXIT of their own": (says(Op.PAYLOAD_MONITOR_P_EXIT, "dead", "live", "here", payload=WORD), 0, 25),
    "MONITOR_P_EXIT of a name": (says(Op.PAYLOAD_MONITOR_P_EXIT, WORD, "live", "here", payload=WORD), 0, 25),
    "MONITOR_P_EXIT in its old form": (says(Op.MONITOR_P_EXIT, "me", "live", "here", WORD), 0, 25),
    "SEND to an old incarnation": (says(Op.SEND_SENDER, "me", "old", payload=WORD), 0, 25),
    "SEND to another node": (third(Op.SEND_SENDER, "me", None, payload=WORD), 0, 25),
    "SEND by another node": (third(Op.SEND_SENDER, None, "live", payload=WORD), 0, 25),
    "SEND to no pid": (says(Op.SEND_SENDER, "me", WORD, payload=WORD), 0, 25),
    "SEND with a token": (says(Op.SEND_SENDER_TT, "me", "dead", (0, 1, 1, THIRD, 0), payload=WORD), 0, 25),
    "REG_SEND to no name": (says(Op.REG_SEND, "me", Atom(""), Atom("nobody"), payload=WORD), 0, 25),
    "REG_SEND by another node": (third(Op.REG_SEND, None, Atom(""), Atom("nobody"), payload=WORD), 0, 25),
    "ALIAS_SEND to no alias": (says(Op.ALIAS_SEND, "me", "here", payload=WORD), 0, 25),
    "ALIAS_SEND to an old incarnation": (says(Op.ALIAS_SEND, "me", "old_here", payload=WORD), 0, 25),
    "ALIAS_SEND to another node": (says(Op.ALIAS_SEND, "me", THIRD_REF, payload=WORD), 0, 25),
    "ALIAS_SEND to a pid": (says(Op.ALIAS_SEND, "me", "live", payload=WORD), 0, 25),
    "GROUP_LEADER of a dead process": (says(Op.GROUP_LEADER, "me", "dead"), 0, 25),
    "GROUP_LEADER of an old incarnation": (says(Op.GROUP_LEADER, "me", "old"), 0, 25),
    "GROUP_LEADER of another node": (third(Op.GROUP_LEADER, "me", None), 0, 25),
    "GROUP_LEADER that is no pid": (says(Op.GROUP_LEADER, WORD, "live"), 0, 25),
    "ALTACT to no alias": (says(Op.ALTACT_SIG_SEND, 4, "me", "here", payload=WORD), 0, 28),
    "ALTACT to an alias of an old incarnation": (says(Op.ALTACT_SIG_SEND, 5, "me", "old_here", payload=WORD), 0, 28),
    "ALTACT to an alias that is a name": (says(Op.ALTACT_SIG_SEND, 12, "me", "here", payload=WORD), 0, 25),
    "ALTACT to an alias that is a pid": (says(Op.ALTACT_SIG_SEND, 4, "me", "live", payload=WORD), 0, 25),
    "ALTACT to no name": (says(Op.ALTACT_SIG_SEND, 8, "me", Atom("nobody"), payload=WORD), 0, 28),
    "ALTACT to a name that is a pid": (says(Op.ALTACT_SIG_SEND, 8, "me", "live", payload=WORD), 0, 25),
    "ALTACT to a pid that is a name": (says(Op.ALTACT_SIG_SEND, 1, "me", WORD, payload=WORD), 0, 25),
    "ALTACT to a pid that is an alias": (says(Op.ALTACT_SIG_SEND, 1, "me", "here", payload=WORD), 0, 25),
    "ALTACT to a dead process": (says(Op.ALTACT_SIG_SEND, 1, "me", "dead", payload=WORD), 0, 28),
    "ALTACT without its token": (says(Op.ALTACT_SIG_SEND, 6, "me", "here", payload=WORD), 0, 25),
    "ALTACT with negative flags": (says(Op.ALTACT_SIG_SEND, -1, "me", "dead", payload=WORD), 0, 25),
    "ALTACT with flags of 200 bits": (says(Op.ALTACT_SIG_SEND, 1 << 200 | 1, "me", "dead", payload=WORD), 0, 28),
    "ALTACT with more elements": (says(Op.ALTACT_SIG_SEND, 1, "me", "dead", 1, 2, 3, payload=WORD), 0, 28),
    "ALTACT by another node": (third(Op.ALTACT_SIG_SEND, 1, None, "dead", payload=WORD), 0, 28),
    "ALTACT exit of a dead process": (says(Op.ALTACT_SIG_SEND, 17, "me", "dead", payload=WORD), 0, 28),
    "ALTACT exit of a process": (
        both(says(Op.MONITOR_P, "me", "live", "ref"), says(Op.ALTACT_SIG_SEND, 17, "me", "live", payload=WORD)),
        1,
        28,
    ),
    "ALTACT exit of no name": (says(Op.ALTACT_SIG_SEND, 25, "me", Atom("nobody"), payload=WORD), 0, 28),
    "ALTACT exit of no alias": (says(Op.ALTACT_SIG_SEND, 21, "me", "here", payload=WORD), 0, 28),
    "SPAWN_REQUEST of nothing there is": (spawns(options=[MONITOR]), 2, 25),
    "SPAWN_REQUEST with link and monitor": (spawns(options=[LINK, MONITOR]), 3, 25),
    "SPAWN_REQUEST with an unknown option": (spawns(options=[WORD]), 1, 25),
    "SPAWN_REQUEST with an option of the asking side": (spawns(options=[(Atom("reply"), Atom("no"))]), 1, 25),
    "SPAWN_REQUEST with options that are no list": (spawns(options=WORD), 1, 25),
    "SPAWN_REQUEST with a reference of ours": (spawns(ref="here"), 0, 25),
    "SPAWN_REQUEST with a reference of an old incarnation": (spawns(ref="old_here"), 1, 25),
    "SPAWN_REQUEST with a reference of another node": (spawns(ref=THIRD_REF), 1, 25),
    "SPAWN_REQUEST by a process of ours": (spawns(parent="live"), 0, 25),
    "SPAWN_REQUEST with a leader that is no pid": (spawns(leader=WORD), 0, 25),
    "SPAWN_REQUEST with a leader on another node": (spawns(leader=THIRD), 1, 25),
    "SPAWN_REQUEST without an arity": (spawns(mfa=(WORD, WORD)), 0, 25),
    "SPAWN_REQUEST with another arity": (spawns(mfa=(WORD, WORD, 7), options=[MONITOR]), 2, 25),
    "SPAWN_REQUEST with a huge arity": (spawns(mfa=(WORD, WORD, 1 << 70)), 0, 25),
    "SPAWN_REPLY to no request": (says(Op.SPAWN_REPLY, "here", "live", 0, "me"), 0, 25),
    "SPAWN_REPLY with a link to no request": (says(Op.SPAWN_REPLY, "here", "live", 1, "me"), 0, 25),
    "SPAWN_REPLY with a monitor to no request": (says(Op.SPAWN_REPLY, "here", "live", 2, "me"), 0, 25),
    "SPAWN_REPLY to a dead process": (says(Op.SPAWN_REPLY, "here", "dead", 3, "me"), 1, 25),
    "SPAWN_REPLY with an error to a dead process": (says(Op.SPAWN_REPLY, "here", "dead", 3, WORD), 0, 25),
    "SPAWN_REPLY to an old incarnation": (says(Op.SPAWN_REPLY, "here", "old", 3, "me"), 0, 25),
    "SPAWN_REPLY with a reference of an old incarnation": (says(Op.SPAWN_REPLY, "old_here", "live", 3, "me"), 0, 25),
    "SPAWN_REPLY to another node": (third(Op.SPAWN_REPLY, "here", None, 3, "me"), 0, 25),
    "SPAWN_REPLY with a reference of another node": (says(Op.SPAWN_REPLY, THIRD_REF, "live", 3, "me"), 0, 25),
    "SPAWN_REPLY with flags of 28 bits": (says(Op.SPAWN_REPLY, "here", "live", 1 << 27, "me"), 0, 25),
    "SPAWN_REPLY with a child of ours": (says(Op.SPAWN_REPLY, "here", "live", 0, "dead"), 0, 25),
    "SPAWN_REPLY with a child elsewhere": (third(Op.SPAWN_REPLY, "here", "live", 3, None), 0, 25),
}


def outcome(target: Any, live: Pid, say: Say, answers: int) -> list[Any]:
    """What ``target`` answers, by role, and whether it is still there."""
    with RawPeer(target) as peer:
        scene = Scene(peer.pid, live, peer.reference())
        said: list[Any] = []
        try:
            for control, payload in say(scene):
                peer.send(control, payload)
            while len(said) < answers:
                hear(peer, scene, said)
            marker = peer.reference()
            question = (Atom("$gen_call"), (peer.pid, marker), (Atom("is_auth"), peer.name))
            peer.send((int(Op.REG_SEND), peer.pid, Atom(""), Atom("net_kernel")), question)
            while not (said and said[-1] == (marker,)):
                hear(peer, scene, said, marker)
            said[-1] = "open"
        except HungUp:
            said.append("closed")
        return said


class OurNode:
    """Our node as a raw peer knows a BEAM."""

    def __init__(self, node: Node, beam: Beam) -> None:
        self._node = node
        self.name = node.name.name
        self.epmd_port = beam.epmd_port
        self.cookie = beam.cookie

    def eval_sync(self, _source: str, N: Atom) -> bool:
        """The only thing that is asked, from another thread: return when ``N`` is connected."""
        trio.from_thread.run(until, lambda: self._node.is_connected(N))
        return True


def hear(peer: RawPeer, scene: Scene, said: list[Any], marker: Any = None) -> None:
    control, payload = peer.signal()
    if isinstance(payload, tuple) and payload[0] == marker:
        said.append((marker,))
    elif control[0] != Op.REG_SEND:  # a BEAM sends the log of a crash to the node of the group leader
        said.append((scene.roles(control), None if payload is NO_PAYLOAD else scene.roles(payload)))


@pytest.mark.rule("Control messages: odd and late ones, as a BEAM takes them")
@pytest.mark.parametrize(("say", "answers", "since"), CASES.values(), ids=CASES)
async def test_a_beam_and_we_do_the_same(node: Node, beam: Beam, otp: Otp, say: Say, answers: int, since: int) -> None:
    theirs = await beam.eval("plain_processes:spawn_waiting()")
    ours = node.spawn(wait_for_ever)
    we = OurNode(node, beam)
    what_we_do = await trio.to_thread.run_sync(outcome, we, ours, say, answers)
    if otp.release >= since:
        assert what_we_do == await trio.to_thread.run_sync(outcome, beam, theirs, say, answers)
    else:
        what_it_does = await trio.to_thread.run_sync(outcome, beam, theirs, say, 0)
        assert what_it_does != what_we_do, f"OTP {otp.release} does so as well: correct the table"
    await until(lambda: leftovers(node) == {})


@pytest.mark.rule("Spawn: a bad argument list hangs nobody")
@pytest.mark.parametrize("arguments", [WORD, (1, 2), b"12", 7, {}], ids=str)
async def test_an_argument_list_that_is_none(node: Node, beam: Beam, arguments: Any) -> None:
    """The process is there, and ends as the BEAM's does; only the frames of the BEAM's own code differ."""
    mfa = (Atom("spawner"), Atom("stay"), 1)

    def say(scene: Scene) -> list[Any]:
        return [scene.spawn(mfa=mfa, options=[MONITOR], arguments=arguments)]

    def end_of(said: list[Any]) -> Any:
        (reply, _), (down, reason), still = said
        badarg, stack = reason
        return reply, down, badarg, stack[0][:3], still

    theirs = await beam.eval("plain_processes:spawn_waiting()")
    ours = node.spawn(wait_for_ever)
    we = OurNode(node, beam)
    what_we_do = await trio.to_thread.run_sync(outcome, we, ours, say, 2)
    what_it_does = await trio.to_thread.run_sync(outcome, beam, theirs, say, 2)
    assert end_of(what_we_do) == end_of(what_it_does)
    assert end_of(what_we_do)[2] == Atom("badarg")
    await until(lambda: leftovers(node) == {})
