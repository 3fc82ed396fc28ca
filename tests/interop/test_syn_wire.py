"""What our member of a scope answers word by word, and what it makes of nonsense, big terms and late answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from structlog.testing import capture_logs

from erlang_interop import Atom, CallTimeout, InlineServer, NodeDownError, Pid
from erlang_interop.terms import Export
from tests.interop.collectors import until
from tests.interop.syn_members import (
    ERROR,
    NORMAL,
    OK,
    UNDEFINED,
    BeamMember,
    all_have,
    joined,
    none_has,
    registered,
)
from tests.interop.syn_ours import OurMember
from zenmon_node.syn.handler import EventHandler

if TYPE_CHECKING:
    from tests.interop.syn_members import Cluster

#: ``a`` is ours, and seen by the BEAMs or not.
pytestmark = pytest.mark.parametrize("cluster", ["a-hidden", "a-visible"], indirect=True)

TAG, N, META = Atom("3.0"), Atom("name"), Atom("meta")
REGISTERED, REGISTRY_UPDATED = Atom("on_process_registered"), Atom("on_registry_process_updated")
JOINED, GROUP_UPDATED = Atom("on_process_joined"), Atom("on_group_process_updated")
CALL = "gen_server:call({{list_to_atom(lists:concat([syn_, {service}, '_', S])), N}}, R, 20000)"


def ours_and_theirs(cluster: Cluster) -> tuple[OurMember, BeamMember]:
    ours, theirs = cluster.a, cluster.b
    assert isinstance(ours, OurMember)
    assert isinstance(theirs, BeamMember)
    return ours, theirs


async def ask(cluster: Cluster, service: str, *request: Any) -> Any:
    """What a process of ``b`` gets for a request to our scope process."""
    ours, theirs = ours_and_theirs(cluster)
    source = CALL.format(service=service)
    return await theirs.beam.eval(source, S=ours.scope, N=ours.name, R=(TAG, *map(named, request)))


def named(part: Any) -> Any:
    """A str stands for an atom."""
    return Atom(part) if isinstance(part, str) else part


async def test_answers_of_the_registry(cluster: Cluster) -> None:
    ours, theirs = ours_and_theirs(cluster)
    tables = Atom(f"syn_registry_by_name_{ours.scope.name}"), Atom(f"syn_registry_by_pid_{ours.scope.name}")
    pid, other, dead = await ours.spawn(), await ours.spawn(), await ours.spawn_idle()
    await ours.kill(dead)
    put, remove = "register_or_update_on_node", "unregister_on_node"
    before = await theirs.now()
    answer = await ask(cluster, "registry", put, theirs.name, N, pid, 1)
    time = answer[1][3]
    assert answer == (OK, (REGISTERED, UNDEFINED, 1, time, *tables))
    hour = 3600 * 10**9  # nanoseconds; the clocks of two programs are not one, and may be set meanwhile
    assert before - hour < time < await theirs.now() + hour
    assert await ask(cluster, "registry", put, theirs.name, N, pid, 1) == (Atom("noop"), 1)
    answer = await ask(cluster, "registry", put, theirs.name, N, pid, 1.0)
    assert isinstance(answer[1][2], float)
    assert answer == (OK, (REGISTRY_UPDATED, 1, 1.0, answer[1][3], *tables))
    assert answer[1][3] > time
    marking, refusing = (Export(Atom("fixture_syn_driver"), Atom(name), 2) for name in ("mark", "refuse"))
    answer = await ask(cluster, "registry", put, theirs.name, N, pid, marking)
    assert answer == (OK, (REGISTRY_UPDATED, 1.0, (Atom("marked"), 1.0), answer[1][3], *tables))
    reason = Atom("refused"), (Atom("marked"), 1.0)
    assert await ask(cluster, "registry", put, theirs.name, N, pid, refusing) == (
        Atom("raise"),
        Atom("exit"),
        reason,
        [],
    )
    # A closure is code of a module that only a BEAM can load.
    answer = await theirs.beam.eval(
        CALL.format(service="registry").replace(" R,", " erlang:append_element(R, fun(_, _) -> 1 end),"),
        S=ours.scope,
        N=ours.name,
        R=(TAG, Atom(put), theirs.name, N, pid),
    )
    assert answer[:2] == (Atom("raise"), ERROR)
    assert await ask(cluster, "registry", put, theirs.name, N, other, 1) == (ERROR, Atom("taken"))
    assert await ask(cluster, "registry", put, theirs.name, N, dead, 1) == (ERROR, Atom("not_alive"))
    assert await ask(cluster, "registry", put, theirs.name, Atom("x"), pid, marking) == (ERROR, UNDEFINED)
    assert await ask(cluster, "registry", remove, theirs.name, Atom("x"), pid) == (ERROR, UNDEFINED)
    assert await ask(cluster, "registry", remove, theirs.name, N, other) == (ERROR, Atom("race_condition"))
    assert await ask(cluster, "registry", remove, theirs.name, N, pid) == (OK, tables[1])
    assert set(await ask(cluster, "registry", "subcluster_nodes")) == {theirs.name, cluster.c.name}
    # b was answered and not told, so it has nothing; c was told all.
    assert await theirs.events() == []
    assert [event[0] for event in await told(cluster)] == [
        *("on_process_registered", *(["on_registry_process_updated"] * 4), "on_process_unregistered"),
    ]


async def told(cluster: Cluster) -> Any:
    await cluster.settle()
    return await cluster.events(cluster.c)


async def test_answers_of_the_groups(cluster: Cluster) -> None:
    ours, theirs = ours_and_theirs(cluster)
    tables = Atom(f"syn_pg_by_name_{ours.scope.name}"), Atom(f"syn_pg_by_pid_{ours.scope.name}")
    pid, dead = await ours.spawn(), await ours.spawn_idle()
    await ours.kill(dead)
    put, remove = "join_or_update_on_node", "leave_on_node"
    answer = await ask(cluster, "pg", put, theirs.name, N, pid, META)
    assert answer == (OK, (JOINED, UNDEFINED, META, answer[1][3], *tables))
    assert await ask(cluster, "pg", put, theirs.name, N, pid, META) == (Atom("noop"), META)
    answer = await ask(cluster, "pg", put, theirs.name, N, pid, Export(Atom("fixture_syn_driver"), Atom("mark"), 1))
    assert answer == (OK, (GROUP_UPDATED, META, (Atom("marked"), META), answer[1][3], *tables))
    assert await ask(cluster, "pg", put, theirs.name, N, dead, META) == (ERROR, Atom("not_alive"))
    assert await ask(cluster, "pg", remove, theirs.name, Atom("x"), pid) == (ERROR, Atom("not_in_group"))
    assert await ask(cluster, "pg", remove, theirs.name, N, pid) == (OK, ((Atom("marked"), META), tables[1]))
    assert set(await ask(cluster, "pg", "subcluster_nodes")) == {theirs.name, cluster.c.name}
    assert [event[0] for event in await told(cluster)] == [
        *("on_process_joined", *(["on_group_process_updated"] * 2), "on_process_left"),
    ]


@pytest.mark.parametrize("greater", ["ours", "theirs"])
async def test_two_registrations_of_the_same_time(cluster: Cluster, greater: str) -> None:
    """The greater pid keeps the name, by Erlang's order of terms: all owners decide alike."""
    ours, theirs = ours_and_theirs(cluster)
    own, other = await ours.spawn(), await theirs.spawn()
    if greater == "ours":
        other = Pid(theirs.name, 0, 0, other.creation)
    assert await theirs.beam.eval("A > B", A=own, B=other) is (greater == "ours")
    answer = await ask(cluster, "registry", "register_or_update_on_node", cluster.c.name, N, own, 1)
    message = TAG, Atom("sync_register"), N, other, 2, answer[1][3], NORMAL
    await theirs.beam.eval("{P, N} ! M", P=Atom(f"syn_registry_{ours.scope.name}"), N=ours.name, M=message)
    await cluster.settle()
    assert await ours.call("lookup", N) == ((own, 1) if greater == "ours" else (other, 2))
    assert await ours.is_alive(own) is (greater == "ours")
    # Who has won says so, with a later time. The other registration was made up.
    assert await theirs.call("lookup", N) == ((own, 1) if greater == "ours" else UNDEFINED)


async def test_via(cluster: Cluster) -> None:
    """A genuine gen_server call by ``{via, syn, {Scope, Name}}`` finds a process of ours."""
    ours, theirs = ours_and_theirs(cluster)

    pid = ours.node.start_inline(Echo())
    assert await ours.call("register", N, pid) == OK
    await cluster.settle()
    via = Atom("via"), await theirs.driver("api()"), (ours.scope, N)
    assert await theirs.beam.eval("gen_server:call(Via, hello, 20000)", Via=via) == (Atom("echo"), Atom("hello"))


async def test_messages_that_are_none(cluster: Cluster) -> None:
    """Each kind of nonsense is one line of the log that says what and from whom; the scope lives on with all it has."""
    ours, theirs = ours_and_theirs(cluster)
    pid = await theirs.spawn()
    for key, each in ((b"theirs", pid), (b"ours", await ours.spawn())):
        for function in ("register", "join"):
            assert await theirs.call(function, key, each, 1) == OK
    await cluster.settle()
    events, processes = await ours.events(), [server.process.pid for server in ours.joined.servers]
    me = Pid(theirs.name, 0xFFFF, 0, 1)
    nonsense: list[Any] = [
        *(b"hello", (TAG,), (Atom("2.0"), Atom("discover"), me), (Atom("$gen_cast"), b"what")),
        *((TAG, Atom("discover"), b"no pid"), (TAG, Atom("discover"))),
        *((TAG, Atom("ack_sync"), b"no pid", []), (TAG, Atom("ack_sync"), me, b"no list")),
        *((TAG, Atom("ack_sync"), me, [b"no entry"]), (TAG, Atom("ack_sync"), me, [(N, b"no pid", 1, 1)])),
        *((TAG, Atom("sync_shout"), N, pid, 1, 1, NORMAL), (TAG, Atom("sync_register"), N, pid)),
        *(
            (TAG, Atom("sync_register"), N, b"no pid", 1, 1, NORMAL),
            (TAG, Atom("sync_join"), N, pid, 1, b"when", NORMAL),
        ),
        *((TAG, Atom("sync_unregister"), N, 5, 1, NORMAL), (TAG, Atom("sync_leave"), N, 5, 1, NORMAL)),
    ]
    names = [server.name for server in ours.joined.servers]
    with capture_logs() as logs:
        source = "[erlang:send({Name, Node}, Message) || Name <- Names, _ <- [1, 2], Message <- Messages]"
        await theirs.beam.eval(source, Names=names, Node=ours.name, Messages=nonsense)
        for service in ("registry", "pg"):
            for request in ((b"hello",), ("join_on_node", theirs.name, N, me, 1, 1), ("unregister_on_node", 1)):
                assert await ask(cluster, service, *request) == UNDEFINED
        await cluster.settle()
    lines = [log for log in logs if log["log_level"] != "debug"]
    assert len(lines) == len({(log["server"], log["problem"]) for log in lines})
    assert {log["server"] for log in lines} == {name.name for name in names}
    assert all(log["sender"].startswith(f"<{theirs.name.name}.") for log in lines)
    malformed = [server.counters.malformed for server in ours.joined.servers]
    assert malformed == [2 * len(nonsense) + 3] * 2
    assert [event for event in await ours.events() if event not in events and event[1][:1] != (Atom("settled"),)] == []
    assert [server.process.pid for server in ours.joined.servers] == processes
    assert await ours.peers("registry") == await ours.peers("pg") == {theirs.name, cluster.c.name}
    await all_have(cluster.members, b"theirs", (pid, 1))


async def test_a_process_of_another_node_is_not_ours_to_decide_about(cluster: Cluster) -> None:
    """A genuine scope process would end over a request that was sent to the wrong node."""
    ours, theirs = ours_and_theirs(cluster)
    pid = await theirs.spawn()
    processes = [server.process.pid for server in ours.joined.servers]
    for service, request in (("registry", "register_or_update_on_node"), ("pg", "join_or_update_on_node")):
        assert (await ask(cluster, service, request, theirs.name, N, pid, 1))[0] == ERROR
    await cluster.settle()
    await none_has(cluster.members, N)
    assert [server.process.pid for server in ours.joined.servers] == processes


async def test_metadata_of_ten_megabytes(cluster: Cluster) -> None:
    ours, theirs = ours_and_theirs(cluster)
    meta = bytes(range(256)) * 40_000
    for owner, asker in ((ours, theirs), (theirs, ours)):
        pid, key = await owner.spawn(), (owner.name, b"big")
        assert await asker.call("register", key, pid, meta) == OK
        assert await asker.call("join", key, pid, meta) == OK
        await all_have(cluster.members, key, (pid, meta))
        await cluster.disconnect((ours, theirs))
        await cluster.connect((ours, theirs))
        await all_have(cluster.members, key, (pid, meta))


class Echo(InlineServer):
    """Answers every gen_server call."""

    def handle_message(self, message: Any) -> None:
        _gen_call, (caller, tag), request = message
        self.process.send(caller, (tag, (Atom("echo"), request)))


class Breaks(EventHandler):
    """Raises whatever it is told."""

    def on_process_registered(self, *arguments: Any) -> None:
        raise ArithmeticError("no registration, please")

    async def on_process_joined(self, *arguments: Any) -> None:
        raise LookupError("no join, please")


async def test_a_handler_that_raises(cluster: Cluster) -> None:
    ours, theirs = ours_and_theirs(cluster)
    await ours.leave_scope()
    ours.handle_with(Breaks())
    await ours.enter_scope()
    await cluster.are_members()
    pid = await theirs.spawn()
    with capture_logs() as logs:
        for key in (b"one", b"two"):
            for function in ("register", "join"):
                assert await theirs.call(function, key, pid, 1) == OK
        await cluster.settle()
    assert {log["callback"] for log in logs if log["log_level"] == "error"} == {
        *("on_process_registered", "on_process_joined"),
    }
    await all_have(cluster.members, b"two", (pid, 1))


@pytest.mark.parametrize("service", ["registry", "pg"])
async def test_an_answer_that_comes_too_late_is_applied(cluster: Cluster, service: str) -> None:
    """The authority has told everybody but us; so it would be missing here for ever."""
    ours, theirs = ours_and_theirs(cluster)
    pid = await theirs.spawn()
    call, happened = {"registry": (ours.joined.register, registered), "pg": (ours.joined.join, joined)}[service]
    process = Atom(f"syn_{service}_{ours.scope.name}")
    await theirs.beam.eval("sys:suspend(P)", P=process)
    with pytest.raises(CallTimeout):
        await call(N, pid, 1, timeout=0.1)
    assert await ours.events() == []
    await theirs.beam.eval("sys:resume(P)", P=process)
    await cluster.settle()
    for member in cluster.members:
        assert await cluster.events(member) == [happened(N, pid, 1)]


async def test_the_node_is_lost_before_it_answers(cluster: Cluster) -> None:
    ours, theirs = ours_and_theirs(cluster)
    pid = await theirs.spawn()
    process = Atom(f"syn_registry_{ours.scope.name}")
    await theirs.beam.eval("sys:suspend(P)", P=process)
    with trio.fail_after(40):
        async with trio.open_nursery() as nursery:

            async def ask_in_vain() -> None:
                with pytest.raises(NodeDownError):
                    await ours.joined.register(N, pid, timeout=60.0)

            nursery.start_soon(ask_in_vain)

            async def is_asked() -> bool:
                source = "element(2, process_info(whereis(P), message_queue_len)) > 0"
                return await theirs.beam.eval(source, P=process) is True

            await until(is_asked)
            await ours.node.disconnect(theirs.name)
    await theirs.beam.eval("sys:resume(P)", P=process)
    await theirs.await_member(ours, is_member=False)
    assert await theirs.is_alive(pid)
