"""The words of syn's scope processes: as observed between genuine ones, and what is none of them."""

from __future__ import annotations

from typing import Any

import pytest

from erlang_interop.etf.text import parse_term
from erlang_interop.terms import Atom, Export, Fun, Pid, Reference
from zenmon_node.syn import messages as m

SCOPE, NODE, NAME = Atom("users"), Atom("a@test"), Atom("n")
PID = Pid(NODE, 1, 0, 1)
NO_FUNCTIONS: list[Any] = [1, NAME, PID, Reference(NODE, 1, bytes(12)), (len,), b"", None, {}]


def written(text: str) -> Any:
    """A term as it is written in the description of the protocol, with ``p`` in the place of the pid."""

    def filled(term: Any) -> Any:
        if type(term) is tuple:
            return tuple(filled(part) for part in term)
        if type(term) is list:
            return [filled(part) for part in term]
        return PID if term == Atom("p") else term

    return filled(parse_term(text))


def test_words_as_genuine_ones_have_them() -> None:
    said = {
        "{'3.0', discover, p}": m.discover(PID),
        "{'3.0', ack_sync, p, [{n, p, meta, 7}]}": m.ack_sync(PID, [(NAME, PID, Atom("meta"), 7)]),
        "{'3.0', sync_register, n, p, meta, 7, normal}": m.REGISTRY.say_put(NAME, PID, Atom("meta"), 7, m.NORMAL),
        "{'3.0', sync_unregister, n, p, meta, normal}": m.REGISTRY.say_gone(NAME, PID, Atom("meta"), m.NORMAL),
        "{'3.0', sync_join, n, p, meta, 7, normal}": m.PG.say_put(NAME, PID, Atom("meta"), 7, m.NORMAL),
        "{'3.0', sync_leave, n, p, meta, normal}": m.PG.say_gone(NAME, PID, Atom("meta"), m.NORMAL),
        "{'3.0', register_or_update_on_node, 'a@test', n, p, meta}": m.REGISTRY.ask_put(NODE, NAME, PID, Atom("meta")),
        "{'3.0', unregister_on_node, 'a@test', n, p}": m.REGISTRY.ask_remove(NODE, NAME, PID),
        "{'3.0', join_or_update_on_node, 'a@test', n, p, meta}": m.PG.ask_put(NODE, NAME, PID, Atom("meta")),
        "{'3.0', leave_on_node, 'a@test', n, p}": m.PG.ask_remove(NODE, NAME, PID),
        "{'3.0', subcluster_nodes}": m.SUBCLUSTER_NODES,
        "{ok, {on_process_registered, undefined, meta, 7, syn_registry_by_name_users, syn_registry_by_pid_users}}": (
            m.REGISTRY.reply_stored(SCOPE, m.Stored("on_process_registered", m.UNDEFINED, Atom("meta"), 7))
        ),
        "{ok, {on_process_joined, undefined, meta, 7, syn_pg_by_name_users, syn_pg_by_pid_users}}": (
            m.PG.reply_stored(SCOPE, m.Stored("on_process_joined", m.UNDEFINED, Atom("meta"), 7))
        ),
        "{syn_remote_scope_node_up, users, 'a@test'}": m.node_up(SCOPE, NODE),
        "{syn_remote_scope_node_down, users, 'a@test'}": m.node_down(SCOPE, NODE),
        "{syn_resolve_kill, n, meta}": m.resolve_kill(NAME, Atom("meta")),
    }
    for text, term in said.items():
        assert term == written(text), text


def test_names_of_processes() -> None:
    assert m.REGISTRY.process(SCOPE) == Atom("syn_registry_users")
    assert m.PG.process(Atom("Elixir.My.Scope")) == Atom("syn_pg_Elixir.My.Scope")


def test_membership() -> None:
    assert m.parse(m.discover(PID)) == m.Discover(PID)
    assert m.parse(m.ack_sync(PID, [1])) == m.AckSync(PID, [1])
    message = m.PG.say_gone(NAME, PID, 1, m.NORMAL)
    assert m.parse(message) is message


@pytest.mark.parametrize("words", [m.REGISTRY, m.PG], ids=lambda words: words.name)
def test_replication(words: m.Words) -> None:
    assert words.is_put(written(f"{{'3.0', {words.put}, n, p, meta, 7, why}}"))
    assert not words.is_put(written(f"{{'3.0', {words.gone}, n, p, meta, why}}"))
    for text in (
        f"{{'3.0', {words.put}, n, p, meta, why}}",
        f"{{'3.0', {words.put}, n, p, meta, 7.0, why}}",
        f"{{'3.0', {words.put}, n, q, meta, 7, why}}",
        f"{{'3.0', {words.gone}, n, 1, meta, why}}",
        f"{{'3.0', {words.gone}, n, p, meta, why, more}}",
        f"{{'3.0', {words.gone}, n, p, meta, 7, why}}",
        "{'3.0', discover}",
        "{'3.0', sync_nothing, n, p, meta, 7, why}",
    ):
        with pytest.raises(m.Malformed):
            words.is_put(written(text))


@pytest.mark.parametrize("words", [m.REGISTRY, m.PG], ids=lambda words: words.name)
def test_requests(words: m.Words) -> None:
    assert words.parse_request(words.ask_put(NODE, NAME, PID, 1)) == m.PutRequest(NODE, NAME, PID, 1)
    assert words.parse_request(words.ask_remove(NODE, NAME, PID)) == m.RemoveRequest(NODE, NAME, PID)
    other = m.PG if words is m.REGISTRY else m.REGISTRY
    for request in (
        other.ask_put(NODE, NAME, PID, 1),
        words.ask_put(NODE, NAME, b"pid", 1),  # type: ignore[arg-type]
        words.ask_remove(b"node", NAME, PID),  # type: ignore[arg-type]
        (Atom("2.0"), words.remove_request, NODE, NAME, PID),
        m.SUBCLUSTER_NODES,
        b"what",
    ):
        assert words.parse_request(request) is None


def test_answers_to_put() -> None:
    stored = m.Stored("on_group_process_updated", 1, 2, 7)
    assert m.parse_stored(m.PG.reply_stored(SCOPE, stored)) == stored
    for text in ("{noop, meta}", "{error, taken}", "{raise, error, why, []}", "{{error, undefined}, undefined}"):
        assert m.parse_stored(written(text)) is None
    for text in (
        "ok",
        "{ok, yes}",
        "{ok, {erase, 1, 2, 7, t, t}}",
        "{ok, {on_process_joined, 1, 2, late, t, t}}",
        "{ok, {on_process_joined, 1, 2, true, t, t}}",
        "{ok, {on_process_joined, 1, 2, 7, 1, 2}}",
        "{raise, why}",
        "undefined",
    ):
        with pytest.raises(m.Malformed):
            m.parse_stored(written(text))


def test_answers_to_remove() -> None:
    assert m.parse_unregistered(written("{ok, table}")) is True
    assert m.parse_unregistered(written("{error, race_condition}")) is False
    assert m.parse_left(written("{ok, {meta, table}}")) == (Atom("meta"),)
    assert m.parse_left(written("{error, not_in_group}")) is None
    for text in ("ok", "{ok, {meta}}", "{ok, 1}", "[]"):
        for parse in (m.parse_unregistered, m.parse_left):
            with pytest.raises(m.Malformed):
                parse(written(text))


def test_an_ack_sync_is_checked_in_slices() -> None:
    good = written("{n, p, meta, 7}")
    assert list(m.check([], NODE)) == []
    assert list(m.check([good], NODE)) == []
    many = [good] * 100_000
    slices = len(list(m.check(many, NODE)))
    assert slices >= 10
    checking = m.check([*many, (NAME, Pid(Atom("b@test"), 1, 0, 1), 1, 7)], NODE)
    for _ in range(slices):
        next(checking)
    with pytest.raises(m.Malformed, match=r"another node, b@test"):
        next(checking)


def test_functions() -> None:
    assert all(m.is_fun(fun) for fun in (Export(NAME, NAME, 1), Fun(NAME, 1, bytes(16), 1, 1, 1, PID, ()), len))
    assert not any(m.is_fun(term) for term in NO_FUNCTIONS)
