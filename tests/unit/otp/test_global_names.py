"""``node.global_names`` where nodes of ours play the cluster; with BEAMs in tests/interop/test_global_names.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from erlang_interop import (
    Atom,
    BadRpc,
    EncodeError,
    Export,
    GlobalError,
    GlobalNameTaken,
    Node,
    NodeDownError,
    NoProcess,
    NoVisibleNode,
    Pid,
    Throw,
    TransactionAborted,
)
from erlang_interop.otp._global_calls import Holder
from erlang_interop.testing.cluster import open_cluster, settled
from tests.unit.otp.global_peer import NameServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import trio.testing

    from erlang_interop import Term

NAME = Atom("name")
METHOD = Export(Atom("global"), Atom("random_exit_name"), 3)
LOCK = (Atom("resource"), Atom("me"))


class Through:
    """What a BEAM has as module ``global``, and a name server; it keeps the calls."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.called: list[tuple[Any, ...]] = []
        self.answer: Term = Atom("yes")
        self.holders: list[Term] = []  # what whereis_name answers, as long as there are any
        self.server = NameServer(node)
        names = (
            "register_name_external",
            "register_name",
            "re_register_name",
            "unregister_name",
            "whereis_name",
            "registered_names",
            "sync",
        )
        node.expose("global", {name: self._playing(name) for name in names})

    def _playing(self, name: str) -> Any:
        def play(*arguments: Term) -> Term:
            self.called.append((name, *arguments))
            if name == "whereis_name" and self.holders:
                return self.holders.pop(0)
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

        return play


class Cluster:
    """``a@test`` is ours; ``b@test`` and ``c@test`` are visible and connected, and play BEAMs."""

    def __init__(self, nodes: tuple[Node, ...]) -> None:
        self.node = nodes[0]
        self.names = nodes[0].global_names
        self.b, self.c = Through(nodes[1]), Through(nodes[2])

    def new_process(self) -> Pid:
        return self.node.start_inline(Holder())


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with open_cluster("a@test", "b@test", "c@test", visible=True) as nodes:
        cluster = Cluster(nodes)
        for node in nodes[1:]:
            await cluster.node.connect(node.name)
        yield cluster


def keep_first(_name: Term, pid: Pid, _pid2: Pid) -> Pid:
    return pid


# -- names


async def test_what_is_called_there(cluster: Cluster) -> None:
    names, pid, theirs = cluster.names, cluster.new_process(), cluster.b.server.process.pid
    await names.register("name", pid)
    await names.register("name", theirs, "notify_all_name")  # no BEAM is to be linked to what is not ours
    await names.re_register([1.0], pid, keep_first)
    await names.unregister(b"name")
    assert cluster.b.called == [
        ("register_name_external", NAME, pid, METHOD),
        ("register_name", NAME, theirs, Export(Atom("global"), Atom("notify_all_name"), 3)),
        ("re_register_name", [1.0], pid, Export(Atom(__name__), Atom("keep_first"), 3)),
        ("unregister_name", b"name"),
    ]
    assert cluster.c.called == []


async def test_what_is_answered_there(cluster: Cluster) -> None:
    names, pid = cluster.names, cluster.new_process()
    cluster.b.answer = Atom("undefined")
    assert await names.whereis("name") is None
    with pytest.raises(NoProcess, match="nobody has the global name name"):
        await names.send("name", 1)
    async with cluster.node.open_process() as process:
        cluster.b.answer = process.pid
        assert await names.whereis("name") == await names.send("name", 1) == process.pid
        assert await process.receive(timeout=30) == 1
    cluster.b.answer = [NAME, 1]
    assert await names.registered_names() == [NAME, 1]
    cluster.b.answer = Atom("ok")
    await names.sync()
    cluster.b.answer = (Atom("error"), Atom("why"))
    with pytest.raises(GlobalError, match=r"\{error,why\}"):
        await names.sync()
    cluster.b.answer = Atom("no")
    cluster.b.holders = [pid]
    with pytest.raises(GlobalNameTaken, match=r"cannot be name: a process has that name already$") as taken:
        await names.register("name", pid)
    assert taken.value.name == NAME
    cluster.b.answer = Throw((Atom("EXIT"), Atom("bad")))
    with pytest.raises(BadRpc, match="bad"):
        await names.whereis("name")
    assert cluster.c.called == []


async def test_a_name_of_a_former_life_is_waited_for(cluster: Cluster, autojump_clock: trio.testing.MockClock) -> None:
    """The BEAM has registered a process of it, and not yet learned that it is gone."""
    names, pid = cluster.names, cluster.new_process()
    former = Pid(pid.node, pid.id, pid.serial, pid.creation - 1)
    elsewhere = Pid(Atom("former@test"), 1, 0, 1)
    cluster.b.answer = Atom("no")
    cluster.b.holders = [former, Atom("undefined"), former, elsewhere]
    with pytest.raises(GlobalNameTaken):
        await names.register("name", pid)
    assert [called[0] for called in cluster.b.called] == ["register_name_external", "whereis_name"] * 4


async def test_one_node_is_asked_while_it_is_there(cluster: Cluster) -> None:
    names = cluster.names
    await names.whereis(1)
    await names.whereis(2, through="c@test")
    await names.whereis(3)
    assert [called[1] for called in cluster.b.called] == [1, 3]
    await cluster.node.disconnect("b@test")
    await names.whereis(4)
    await cluster.node.connect("b@test")
    await names.whereis(5)
    assert [called[1] for called in cluster.b.called] == [1, 3]
    assert [called[1] for called in cluster.c.called] == [2, 4, 5]


async def test_nodes_without_global_are_passed_over(cluster: Cluster) -> None:
    cluster.b.node.unexpose("global")
    assert await cluster.names.whereis("name") is None
    cluster.c.node.unexpose("global")
    with pytest.raises(NoVisibleNode, match=r"a@test is passive, .* none of (b@test, c|c@test, b)@test has `global`"):
        await cluster.names.whereis("name")
    with pytest.raises(BadRpc, match="undef"):
        await cluster.names.whereis("name", through="b@test")


async def test_without_a_connection() -> None:
    async with open_cluster("a@test", "b@test") as (a, b):
        through = Through(b)
        with pytest.raises(NoVisibleNode, match=r"a@test is hidden, .* none is connected"):
            await a.global_names.register("name", a.start_inline(Holder()))
        with pytest.raises(NoVisibleNode):
            await a.global_names.set_lock(LOCK)
        await a.connect("b@test")  # hidden as well
        with pytest.raises(NoVisibleNode, match="none is connected"):
            await a.global_names.sync()
        await a.disconnect("b@test")
        await a.global_names.unregister("name", through="b@test")
        assert through.called == [("unregister_name", NAME)]
        with pytest.raises(NodeDownError):
            await a.global_names.unregister("name", through="nobody@test")


async def test_what_cannot_be_registered(cluster: Cluster) -> None:
    names, pid = cluster.names, cluster.new_process()
    cluster.node.exit(pid, Atom("kill"))
    with pytest.raises(NoProcess, match="has ended, and can be given no name"):
        await names.register("name", pid)
    with pytest.raises(NoProcess):
        await names.re_register("name", pid)
    with pytest.raises(TypeError, match="'name' is no pid"):
        await names.register("name", "name")  # type: ignore[arg-type]
    pid = cluster.new_process()
    with pytest.raises(EncodeError):
        await names.register({1, 2}, pid)
    with pytest.raises(EncodeError, match="at most 255 characters"):
        await names.register("n" * 256, pid)
    with pytest.raises(ValueError, match="'coin' is no way to resolve"):
        await names.register("name", pid, "coin")
    with pytest.raises(ValueError, match="process of another node"):
        await names.register("name", cluster.b.server.process.pid, keep_first)
    assert cluster.b.called == cluster.c.called == []


async def test_as_a_node_that_takes_part(cluster: Cluster) -> None:
    """Its own name server is asked, unless another node is named."""
    node, pid = cluster.node, cluster.new_process()
    del node.__dict__["global_names"]
    node.global_server = server = NameServer(node, [cluster.b.node])  # type: ignore[assignment]
    names = node.global_names
    await names.register("name", pid)
    assert await names.whereis("name") == pid
    assert await names.registered_names() == [NAME]
    assert cluster.b.server.names == {NAME: pid}
    with pytest.raises(GlobalNameTaken):
        await names.register("name", cluster.new_process())
    other = cluster.new_process()
    await names.re_register("name", other)
    assert await names.send("name", 1) == other
    await names.unregister("name")
    assert await names.whereis("name") is None
    await names.sync()
    assert server.synced
    assert await names.set_lock(LOCK)
    assert server.held == cluster.b.server.held == cluster.c.server.held == [Atom("resource")]
    assert cluster.b.called == []
    await names.whereis("name", through="b@test")
    assert cluster.b.called == [("whereis_name", NAME)]


# -- locks


async def test_locks_are_set_on_all_that_take_part(cluster: Cluster) -> None:
    names = cluster.names
    cluster.b.server.known = {Atom("c@test"): 8}
    assert await names.set_lock(("resource", "me"))
    for server in (cluster.b.server, cluster.c.server):
        assert [(lock.resource, lock.requester) for lock in server.locks.held] == [LOCK]
    assert await names.set_lock(LOCK, retries=0)
    assert not await names.set_lock(("resource", "other"), ["c@test"], 0)
    await names.del_lock(("resource", "other"))
    assert cluster.c.server.held == [Atom("resource")]
    await names.del_lock(LOCK)
    assert cluster.b.server.held == cluster.c.server.held == []
    assert await names.set_lock(LOCK, ["c@test"], 0)
    assert cluster.b.server.held == []


async def test_the_requester_holds_the_lock_and_its_end_frees_it(cluster: Cluster) -> None:
    pid, names = cluster.new_process(), cluster.names
    assert await names.set_lock(("resource", pid))
    assert [lock.holders for lock in cluster.b.server.locks.held] == [(pid,)]
    cluster.node.exit(pid, Atom("kill"))
    await settled()
    assert cluster.b.server.held == []
    with pytest.raises(NoProcess, match="has ended, and can hold no lock"):
        await names.set_lock(("resource", pid))
    await names.del_lock(("resource", pid))
    # Any other requester stands for the node.
    assert await names.set_lock(("resource", cluster.b.server.process.pid))
    (holder,) = cluster.b.server.locks.held[0].holders
    assert holder.node == cluster.node.name
    cluster.node.exit(holder, Atom("kill"))
    await settled()
    assert cluster.b.server.held == []
    assert await names.set_lock(LOCK)  # by a new one
    await cluster.node.disconnect("b@test")
    await settled()
    assert cluster.b.server.held == []


async def test_a_transaction(cluster: Cluster) -> None:
    names = cluster.names

    async def look() -> list[Term]:
        return cluster.b.server.held

    async def fail() -> None:
        raise RuntimeError("inside")

    assert await names.trans(LOCK, look) == [Atom("resource")]
    assert cluster.b.server.held == []
    with pytest.raises(RuntimeError, match="inside"):
        await names.trans(LOCK, fail)
    assert cluster.b.server.held == []
    assert await names.set_lock(LOCK)
    with pytest.raises(TransactionAborted, match=r"\{resource,other\} is held by others"):
        await names.trans(("resource", "other"), fail, retries=0)
    assert cluster.b.server.held == [Atom("resource")]


async def test_what_is_no_lock(cluster: Cluster) -> None:
    for no_lock in ("resource", ("resource",), ["resource", "me"]):
        with pytest.raises(ValueError, match="a lock is a pair"):
            await cluster.names.set_lock(no_lock)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="retries is a number"):
        await cluster.names.set_lock(LOCK, retries=-1)
    with pytest.raises(EncodeError):
        await cluster.names.set_lock(({1, 2}, "me"))
    assert cluster.b.server.asked == []
