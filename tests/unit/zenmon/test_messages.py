"""The wire contract: what is understood, what is built, and that nothing raises."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from erlang_interop.terms import Atom, ImproperList, Pid, Reference, Term
from zenmon_node import messages as m

NODE = Atom("b@host")
SUB = Pid(Atom("a@host"), 5, 0, 1)
TARGET = Pid(NODE, 7, 0, 1)
REF = Reference(Atom("a@host"), 1, b"\0" * 12)
NAMED = (Atom("worker"), NODE)


def test_ping_by_alias_is_answered_to_the_alias() -> None:
    tag = ImproperList([m.ALIAS], REF)
    parsed = m.parse_proxy_message((m.GEN_CALL, (SUB, tag), m.PING))
    assert parsed == m.PingCall(REF, tag)


@pytest.mark.parametrize("tag", [REF, Atom("x"), (1, 2), ImproperList([m.ALIAS], 5), ImproperList([Atom("no")], REF)])
def test_ping_by_any_other_tag_is_answered_to_the_pid(tag: Term) -> None:
    assert m.parse_proxy_message((m.GEN_CALL, (SUB, tag), m.PING)) == m.PingCall(SUB, tag)
    assert m.pong_reply(tag) == (tag, m.PONG)


def test_own_ping_is_understood() -> None:
    assert m.parse_proxy_message(m.ping_call(SUB, REF)) == m.PingCall(SUB, REF)


def test_own_cast_is_understood() -> None:
    instructions: list[m.Instruction] = [(m.SUBSCRIBE, TARGET), (m.UNSUBSCRIBE, NAMED)]
    parsed = m.parse_proxy_message(m.process_cast(SUB, instructions))
    assert parsed == m.ProcessCast(SUB, list(instructions))
    assert [m.parse_instruction(i) for i in instructions] == instructions


def test_legacy_subscribe() -> None:
    parsed = m.parse_proxy_message((m.GEN_CAST, (m.SUBSCRIBE, SUB, [TARGET, NAMED])))
    assert parsed == m.ProcessCast(SUB, [(m.SUBSCRIBE, TARGET), (m.SUBSCRIBE, NAMED)])


def test_improper_list_gives_what_it_has() -> None:
    parsed = m.parse_proxy_message((m.GEN_CAST, (m.PROCESS, SUB, ImproperList([(m.SUBSCRIBE, TARGET)], 1))))
    assert isinstance(parsed, m.ProcessCast)
    assert parsed.instructions == [(m.SUBSCRIBE, TARGET)]
    assert parsed.problem


def test_native_down() -> None:
    message = (m.DOWN, REF, m.PROCESS, NAMED, m.NOPROC)
    assert m.parse_down(message) == (REF, NAMED, m.NOPROC)
    assert m.parse_connector_message(message) == m.Down(REF, NAMED, m.NOPROC)


@pytest.mark.parametrize(
    "message",
    [
        Atom("hello"),
        (),
        (m.GEN_CAST, (m.PROCESS, SUB, TARGET)),
        (m.GEN_CAST, (m.PROCESS, Atom("sub"), [])),
        (m.GEN_CAST, Atom("ping")),
        (m.GEN_CALL, (SUB, REF), Atom("pong")),
        (m.GEN_CALL, SUB, m.PING),
        [m.GEN_CAST],
        {m.GEN_CAST: 1},
    ],
)
def test_malformed_for_the_proxy(message: Term) -> None:
    assert isinstance(m.parse_proxy_message(message), m.Malformed)


@pytest.mark.parametrize("object_", [[], 5, (), (NODE,), (NODE, [1]), None, {}, b"worker"])
def test_a_down_of_what_cannot_be_monitored_is_malformed(object_: Term) -> None:
    message = (m.DOWN, REF, m.PROCESS, object_, m.NOPROC)
    assert isinstance(m.parse_proxy_message(message), m.Malformed)
    assert isinstance(m.parse_connector_message(message), m.Malformed)
    assert isinstance(m.parse_proxy_message((m.DOWN, [REF], m.PROCESS, NAMED, m.NOPROC)), m.Malformed)


@pytest.mark.parametrize(
    "term",
    [
        (m.SUBSCRIBE,),
        (m.SUBSCRIBE, 123),
        (Atom("watch"), TARGET),
        (m.SUBSCRIBE, (Atom("n"), NODE, 1)),
        (m.SUBSCRIBE, (b"n", NODE)),
        5,
        m.SUBSCRIBE,
    ],
)
def test_malformed_instruction(term: Term) -> None:
    assert m.parse_instruction(term) is None


def test_summary() -> None:
    built = m.dead_summary(NODE, [(TARGET, m.NOPROC)])
    assert built == (Atom("dead"), NODE, [(TARGET, Atom("noproc"))])
    assert m.parse_connector_message(built) == m.DeadSummary(NODE, [(TARGET, m.NOPROC)])
    assert isinstance(m.parse_connector_message((m.DEAD, NODE, 5)), m.Malformed)


def test_reply() -> None:
    assert m.parse_connector_message((REF, m.PONG)) == m.Reply(REF, m.PONG)


def test_down_message_is_the_documented_one() -> None:
    assert m.down_message(REF, TARGET, m.NODEDOWN) == (
        Atom("DOWN"), REF, Atom("process"), TARGET, (Atom("zen_monitor"), Atom("nodedown")),
    )  # fmt: skip


atoms = st.sampled_from([m.GEN_CALL, m.GEN_CAST, m.PROCESS, m.SUBSCRIBE, m.DEAD, m.DOWN, m.PING, NODE])
leaves = st.one_of(atoms, st.just(SUB), st.just(REF), st.integers(), st.binary(max_size=3), st.none(), st.booleans())
terms = st.recursive(
    leaves,
    lambda t: st.one_of(
        st.lists(t, max_size=4).map(tuple), st.lists(t, max_size=4), st.dictionaries(atoms, t, max_size=2)
    ),
    max_leaves=12,
)


@given(terms)
def test_nothing_raises(message: Term) -> None:
    m.parse_proxy_message(message)
    m.parse_connector_message(message)
    m.parse_instruction(message)
