"""The rules of an EPMD; tests/interop/test_epmd_server.py compares the answers with the genuine one's."""

from __future__ import annotations

import pytest

from erlang_interop.errors import RemoteProtocolError
from erlang_interop.runtime.epmd_names import Answer, EpmdNames, Held
from erlang_interop.wire.epmd import (
    Alive2Reply,
    Alive2Request,
    DumpRequest,
    KillRequest,
    NamesRequest,
    PortPlease2Request,
    ReplyReader,
    Request,
    StopRequest,
    TextReply,
    UnfitAlive2Request,
)


def ask(names: EpmdNames, request: Request) -> Answer:
    return names.answer(request, local=True)


def register(names: EpmdNames, name: str, port: int = 4711, version: int = 6) -> tuple[Held, int]:
    """The name that is held now, and the creation that the node was told."""
    request = Alive2Request(port, name, highest_version=version)
    answer = ask(names, request)
    assert answer.held is not None
    reply = ReplyReader(request).receive_data(answer.reply)
    assert isinstance(reply, Alive2Reply)
    assert reply.result == 0
    return answer.held, reply.creation


def test_a_name_is_had_by_one_node_at_a_time() -> None:
    names = EpmdNames(0)
    held, _ = register(names, "one")
    assert len(names) == 1
    refused = ask(names, Alive2Request(4712, "one"))
    assert (refused.reply, refused.held) == (b"v\1\0\0\0c", None)
    assert "'one', which a node has" in refused.refusal
    assert ask(names, Alive2Request(4712, "one", highest_version=5)).reply == b"y\1\0c"
    assert names.release(held)
    assert not names.release(held)
    again, _ = register(names, "one")
    assert not names.release(held), "the name is another node's by now"
    assert list(names) == [again]


def test_no_two_nodes_have_the_same_creation() -> None:
    names = EpmdNames(2**32 - 6)
    creations = []
    for _ in range(10):
        held, creation = register(names, "one")
        names.release(held)
        creations.append(creation)
    assert len(set(creations)) == 10
    assert all(4 <= creation < 2**32 for creation in creations)


def test_nodes_before_otp_23_are_told_creations_they_understand() -> None:
    names = EpmdNames(0)
    assert {register(names, f"old{number}", version=5)[1] for number in range(10)} == {1, 2, 3}


def test_the_newest_name_comes_first_and_former_ones_are_dumped() -> None:
    names = EpmdNames(0)
    names.port = 4369
    held, _ = register(names, "one", 1)
    register(names, "two", 2)
    assert ask(names, NamesRequest()).reply == b"\0\0\x11\x11name two at port 2\nname one at port 1\n"
    names.release(held)
    assert ask(names, NamesRequest()).reply == b"\0\0\x11\x11name two at port 2\n"
    assert ask(names, DumpRequest()).reply == (
        b"\0\0\x11\x11active name     <two> at port 2, fd = -1\n\0old/unused name <one>, port = 1, fd = -1 \n\0"
    )
    register(names, "one", 3)
    assert b"old" not in ask(names, DumpRequest()).reply


def test_former_names_are_forgotten_in_the_end() -> None:
    names = EpmdNames(0)
    for number in range(1500):
        names.release(register(names, f"node{number}")[0])
    assert ask(names, DumpRequest()).reply.count(b"old/unused") == 1000
    assert b"<node1499>" in ask(names, DumpRequest()).reply


def test_what_cannot_be_a_name_is_refused_with_an_answer() -> None:
    assert ask_unfit(6).reply == b"v\1\0\0\0c"
    assert ask_unfit(5).reply == b"y\1\0c"
    assert ask_unfit(6).refusal == "to register a name of 256 characters"


def ask_unfit(version: int) -> Answer:
    return EpmdNames(0).answer(UnfitAlive2Request(version, "a name of 256 characters"), local=True)


def test_kill_is_permitted_while_no_node_is_registered() -> None:
    names = EpmdNames(0)
    assert ask(names, KillRequest()) == Answer(b"OK", killed=True)
    held, _ = register(names, "one")
    refused = ask(names, KillRequest())
    assert (refused.reply, refused.killed) == (b"NO", False)
    assert refused.refusal == "to end while nodes are registered"
    names.release(held)
    assert ask(names, KillRequest()).killed


def test_stop_is_not_permitted() -> None:
    names = EpmdNames(0)
    register(names, "one")
    with pytest.raises(RemoteProtocolError, match="does not permit"):
        ask(names, StopRequest("one"))
    assert len(names) == 1


def test_relaxed_command_check() -> None:
    names = EpmdNames(0, relaxed=True)
    held, _ = register(names, "one")
    register(names, "two")
    assert ask(names, StopRequest("one")) == Answer(b"STOPPED", stopped=held)
    assert not names.release(held), "its connection ends after its name"
    # epmd goes on after NOEXIST as if there had been such a node
    assert ask(names, StopRequest("one")).reply == b"NOEXISTSTOPPED"
    assert ask(names, StopRequest("\udcff")).reply == b"NOEXISTSTOPPED"
    assert ask(names, KillRequest()) == Answer(b"OK", killed=True)


@pytest.mark.parametrize(
    "request_",
    [Alive2Request(1, "one"), UnfitAlive2Request(6, "a name"), DumpRequest(), KillRequest(), StopRequest("one")],
)
def test_from_another_machine_come_look_ups_alone(request_: Request) -> None:
    names = EpmdNames(0, relaxed=True)
    register(names, "here")
    with pytest.raises(RemoteProtocolError, match=f"{type(request_).__name__} from another machine"):
        names.answer(request_, local=False)
    assert names.answer(PortPlease2Request("here"), local=False).reply.startswith(b"w\0")
    reader = ReplyReader(NamesRequest())
    reader.receive_data(names.answer(NamesRequest(), local=False).reply)
    assert reader.receive_eof() == TextReply(0, "name here at port 4711\n")
