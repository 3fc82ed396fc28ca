"""Whatever signals a peer sends, in whatever order: only our own error is raised, and nothing is left behind."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from erlang_interop.errors import RemoteProtocolError
from erlang_interop.flags import OFFERED
from erlang_interop.runtime.peer import Peer, PeerState
from erlang_interop.runtime.process import LocalProcess
from erlang_interop.runtime.signals import Router
from erlang_interop.terms import Atom, Pid, Reference
from erlang_interop.wire.control import LAYOUTS, NO_PAYLOAD, check

ME, THERE = Atom("me@h"), Atom("there@h")
NAMES = [Atom("first"), Atom("nobody"), Atom(""), True, None]

ours = st.sampled_from(
    [*(Pid(ME, number, 0, 5) for number in range(1, 6)), Pid(ME, 1, 0, 4), Pid(Atom("elsewhere@h"), 1, 0, 5)]
)
theirs = st.sampled_from([Pid(THERE, number, 0, 9) for number in range(1, 4)])
refs = st.sampled_from([Reference(node, 9, bytes(11) + bytes((n,))) for node in (ME, THERE) for n in range(4)])
reasons = st.sampled_from([Atom("normal"), Atom("kill"), Atom("boom"), {1: [2]}, [], b""])

#: Values of each kind of slot, in the words of wire/control.py.
KINDS: dict[str, st.SearchStrategy[Any]] = {
    "unused": st.just(Atom("")),
    "term": reasons,
    "pid": ours,
    "peer": theirs,
    "atom": st.sampled_from(NAMES),
    "proc": ours | st.sampled_from(NAMES),
    "ref": refs,
    "dest": ours | refs | st.sampled_from(NAMES),
    "int": st.integers(0, 63),
    "id0": st.integers(0, 2**64 - 1),
    "id": st.integers(1, 4),
    "mfa": st.just((Atom("m"), Atom("f"), 0)),
}

signals = st.sampled_from(LAYOUTS).flatmap(
    lambda layout: st.tuples(
        st.tuples(st.just(layout.op), *(KINDS[kind] for kind in layout.kind_names)),
        reasons if layout.has_payload else st.just(NO_PAYLOAD),
    )
)


class Sink(Peer):
    """A connected peer that drops what is emitted."""

    def __init__(self) -> None:
        super().__init__(THERE, [])
        self.state = PeerState.UP
        self.agreed = OFFERED

    def emit(self, control: tuple[Any, ...], payload: Any = NO_PAYLOAD) -> None:
        check(control, payload is not NO_PAYLOAD, ME)  # a BEAM would close the connection for less


class Silent(LocalProcess):
    def __init__(self, router: Router) -> None:
        super().__init__(None, router, router.make_pid())  # type: ignore[arg-type]
        router.add(self)

    def deliver(self, message: Any, sender: Any = None) -> None:
        pass

    def ended(self, reason: Any) -> None:
        assert not any((self.links, self.monitors, self.watchers, self.aliases))


@settings(deadline=None)
@given(
    script=st.lists(st.one_of(st.lists(signals, max_size=3), st.tuples(st.integers(0, 3), st.integers(0, 5), theirs)))
)
def test_any_signals_in_any_order(script: list[Any]) -> None:
    peer = Sink()
    router = Router(ME, lambda name: peer)
    router.creation = 5
    router.peers[THERE] = peer
    processes = [Silent(router) for _ in range(4)]
    processes[1].trap_exit = True
    router.register("first", processes[0].pid)
    for step in script:
        if isinstance(step, list):  # what came with one read
            try:
                router.dispatch(peer, step)
            except RemoteProtocolError:
                continue
        else:
            act(processes[step[0]], step[1], step[2])
    peer.down()
    while not router.connection_lost(peer, Atom("noconnection"), 2):
        pass
    tables = router.statistics()
    assert [tables[name] for name in ("links", "monitors", "watchers", "peer_entries")] == [0, 0, 0, 0], tables
    for process in processes:
        router.terminate(process, Atom("normal"))
    del router.peers[THERE]
    tables = router.statistics()
    assert not any(tables.values()), tables
    assert peer.entries == 0


def act(process: LocalProcess, number: int, pid: Pid) -> None:
    """Something that a process does by itself meanwhile."""
    if not process.alive:
        return
    if number == 0:
        process.link(pid)
    elif number == 1:
        process.unlink(pid)
    elif number == 2:
        process.monitor(pid)
    elif number == 3:
        for ref in list(process.monitors):
            process.demonitor(ref)
    elif number == 4:
        process.exit(pid, Atom("boom"))
    else:
        process.alias(reply=True)
