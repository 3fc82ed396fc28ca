"""A connection is replaced while its loss is being handed out: what a process does then counts for the new one."""

import pytest

from erlang_interop.runtime.signals import Router
from erlang_interop.terms import Atom, Pid
from erlang_interop.wire.control import Op
from tests.unit.runtime.signals_rig import REMOTE, THERE, Recorder, Sink, new_router

EXIT, NOCONNECTION = Atom("EXIT"), Atom("noconnection")
OTHER = Pid(THERE, 3, 0, 9)


@pytest.fixture
async def lost() -> Sink:
    """The peer whose loss is being handed out."""
    return Sink()


@pytest.fixture
async def heir() -> Sink:
    """The connection that the same node has made since."""
    return Sink()


@pytest.fixture
async def router(lost: Sink) -> Router:
    return new_router(lost)


def replace(router: Router, lost: Sink, heir: Sink) -> None:
    lost.emitted.clear()
    lost.down()
    router.peers[THERE] = heir


def hand_out(router: Router, lost: Sink) -> None:
    while not router.connection_lost(lost, NOCONNECTION, 1):
        pass


async def test_a_link_anew_is_another_link(router: Router, lost: Sink, heir: Sink) -> None:
    process = Recorder(router)
    process.trap_exit = True
    router.link(process, REMOTE)
    replace(router, lost, heir)
    router.link(process, REMOTE)
    assert process.messages == [(EXIT, REMOTE, NOCONNECTION)], "the first one broke"
    assert [control[0] for control, _ in heir.emitted] == [Op.LINK]
    hand_out(router, lost)
    assert process.messages == [(EXIT, REMOTE, NOCONNECTION)], "once"
    assert (list(process.links), heir.links) == ([REMOTE], {process.pid: {REMOTE}})


async def test_who_does_not_trap_ends_before_he_links_anew(router: Router, lost: Sink, heir: Sink) -> None:
    process = Recorder(router)
    router.link(process, REMOTE)
    replace(router, lost, heir)
    router.link(process, REMOTE)
    hand_out(router, lost)
    assert (process.messages, heir.emitted, heir.links) == ([("ended", NOCONNECTION)], [], {})


async def test_an_unlink_asks_nothing_of_the_new_connection(router: Router, lost: Sink, heir: Sink) -> None:
    process = Recorder(router)
    router.link(process, REMOTE)
    replace(router, lost, heir)
    router.unlink(process, REMOTE)
    hand_out(router, lost)
    assert (process.alive, process.links, heir.emitted) == (True, {}, [])


async def test_a_link_that_waited_for_its_acknowledgement_is_made_anew(router: Router, lost: Sink, heir: Sink) -> None:
    process = Recorder(router)
    router.link(process, REMOTE)
    router.unlink(process, REMOTE)
    replace(router, lost, heir)
    router.link(process, REMOTE)
    hand_out(router, lost)
    assert process.alive
    assert (list(process.links), heir.links) == ([REMOTE], {process.pid: {REMOTE}})


async def test_an_end_is_told_to_those_linked_over_the_new_connection_alone(
    router: Router, lost: Sink, heir: Sink
) -> None:
    process = Recorder(router)
    router.link(process, REMOTE)
    replace(router, lost, heir)
    router.link(process, OTHER)
    heir.emitted.clear()
    router.terminate(process, Atom("boom"))
    assert [(control[0], control[2]) for control, _ in heir.emitted] == [(Op.PAYLOAD_EXIT, OTHER)]
    hand_out(router, lost)
    assert (lost.emitted, lost.links, heir.links) == ([], {}, {})
