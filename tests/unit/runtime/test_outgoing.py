"""Where a message goes, and as which control message."""

import pytest

from erlang_interop.errors import BadName
from erlang_interop.runtime.outgoing import atom_of
from erlang_interop.runtime.peer import SENT
from erlang_interop.runtime.signals import Router
from erlang_interop.terms import Atom
from tests.unit.runtime.signals_rig import ME, REF, REMOTE, THERE, Recorder, Sink, new_router

OTHER = Atom("other@h")


@pytest.fixture
async def peer() -> Sink:
    return Sink()


@pytest.fixture
async def router(peer: Sink) -> Router:
    return new_router(peer)


async def test_to_processes_here_by_pid_alias_and_name(router: Router, peer: Sink) -> None:
    sender, process = Recorder(router), Recorder(router)
    router.register("worker", process.pid)
    alias = router.aliases.add(process, "explicit_unalias")
    dests = [process.pid, alias, Atom("worker"), "worker", (Atom("worker"), ME), ("worker", ME.name)]
    for number, dest in enumerate(dests):
        assert router.send(sender.pid, dest, number) is SENT
    assert process.messages == list(range(len(dests)))
    assert process.senders == [sender.pid] * len(dests)
    assert peer.emitted == []


async def test_to_nobody_here(router: Router, peer: Sink) -> None:
    sender, gone = Recorder(router), Recorder(router)
    router.terminate(gone, Atom("normal"))
    alias = router.make_ref()
    for dest in (gone.pid, alias, Atom("nobody"), ("nobody", ME)):
        assert router.send(sender.pid, dest, 1) is SENT
    assert (sender.messages, peer.emitted) == ([], [])


@pytest.mark.parametrize("altact", [True, False])
async def test_to_a_peer_by_pid_alias_and_name(router: Router, peer: Sink, altact: bool) -> None:
    sender = Recorder(router).pid
    peer.altact = altact
    for dest in (REMOTE, REF, (Atom("worker"), THERE), ("worker", THERE.name)):
        assert router.send(sender, dest, "hello") is peer.sending
    to_alias = (37, 4, sender, REF) if altact else (33, sender, REF)
    by_name = (6, sender, Atom(""), Atom("worker"))
    assert peer.emitted == [((22, sender, REMOTE), "hello"), *((c, "hello") for c in (to_alias, by_name, by_name))]


async def test_a_node_without_a_peer_is_dialled_and_the_message_waits() -> None:
    dialled: list[tuple[Atom, Sink]] = []

    def peer_for(name: Atom) -> Sink:
        dialled.append((name, Sink()))
        return dialled[-1][1]

    router = Router(ME, peer_for)
    sender = Recorder(router).pid
    router.send(sender, ("worker", OTHER), 1)
    [(name, peer)] = dialled
    assert name == OTHER
    assert peer.emitted == [((6, sender, Atom(""), Atom("worker")), 1)]


async def test_a_node_that_was_given_another_name_knows_its_processes_by_that(router: Router, peer: Sink) -> None:
    router.name = OTHER
    process = Recorder(router)
    router.register("worker", process.pid)
    router.send(process.pid, process.pid, 1)
    router.send(process.pid, ("worker", OTHER), 2)
    assert (process.messages, peer.emitted) == ([1, 2], [])


@pytest.mark.parametrize("dest", [17, None, ("a", "b", "c"), ("a", 1), [Atom("worker")]])
async def test_what_is_no_destination_is_refused(router: Router, peer: Sink, dest: object) -> None:
    with pytest.raises(BadName):
        router.send(Recorder(router).pid, dest, 1)
    assert peer.emitted == []


def test_names() -> None:
    assert atom_of("a") == atom_of(Atom("a")) == Atom("a")
    with pytest.raises(BadName, match="not 1"):
        atom_of(1)
