"""A RabbitMQ as Debian ships it, called and monitored by a node of ours, which it calls in return."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from erlang_interop import Atom, NodeDown, RemoteError, RemoteThrow
from tests.interop.collectors import until
from tests.realworld.rabbit import descendants, is_running
from zenmon_node import Compatibility, open_zen_monitor

if TYPE_CHECKING:
    from erlang_interop import Node
    from tests.realworld.rabbit import Broker

#: Real programs on machines that have other things to do as well.
PATIENCE = 60.0
DOWN, NORMAL, PROCESS = Atom("DOWN"), Atom("normal"), Atom("process")


@pytest.mark.realworld
async def test_rabbitmq(node: Node, broker: Broker) -> None:
    """One test, since it takes ten seconds to start one: what fails is the step in the traceback."""
    await calls(node, broker)
    await its_errors_are_python_errors(node, broker)
    await what_it_changes_is_there(node, broker)
    await it_calls_in_return(node, broker)
    await it_has_no_zen_monitor(node, broker)
    await a_process_that_is_killed(node, broker)
    await a_node_that_is_stopped(node, broker)


async def calls(node: Node, broker: Broker) -> None:
    rabbit = broker.name
    status = dict(await node.rpc(rabbit, "rabbit", "status", [], PATIENCE))
    assert status[Atom("pid")] == broker.pid
    assert (Atom("rabbit"), bytes(status[Atom("rabbitmq_version")]).decode()) in [
        (application, bytes(version).decode()) for application, _, version in status[Atom("running_applications")]
    ]
    assert await node.erpc_call(rabbit, "rabbit", "is_running", [], PATIENCE) is True
    assert await node.erpc_call(rabbit, "rabbit_nodes", "all_running", [], PATIENCE) == [Atom(rabbit)]
    assert await node.erpc_call(rabbit, "rabbit_vhost", "list_names", [], PATIENCE) == [b"/"]


async def its_errors_are_python_errors(node: Node, broker: Broker) -> None:
    with pytest.raises(RemoteThrow) as caught:
        await node.erpc_call(broker.name, "rabbit_vhost", "assert", [b"no such"], PATIENCE)
    assert caught.value.reason == (Atom("error"), (Atom("no_such_vhost"), b"no such"))
    with pytest.raises(RemoteError) as failed:
        await node.erpc_call(broker.name, "rabbit_misc", "r", [], PATIENCE)
    assert failed.value.reason == Atom("undef")


async def what_it_changes_is_there(node: Node, broker: Broker) -> None:
    """Virtual hosts are added and removed through its own functions, which write to its database."""
    rabbit = broker.name
    await node.erpc_call(rabbit, "rabbit_vhost", "add", [b"of python", b"python"], PATIENCE)
    assert sorted(await node.erpc_call(rabbit, "rabbit_vhost", "list_names", [], PATIENCE)) == [b"/", b"of python"]
    await node.erpc_call(rabbit, "rabbit_vhost", "delete", [b"of python", b"python"], PATIENCE)
    assert await node.erpc_call(rabbit, "rabbit_vhost", "list_names", [], PATIENCE) == [b"/"]


async def it_calls_in_return(node: Node, broker: Broker) -> None:
    node.expose("py", {"add": lambda one, other: one + other})
    assert await node.ping(broker.name)
    assert await node.erpc_call(broker.name, "net_adm", "ping", [node.name], PATIENCE) == Atom("pong")
    call = [node.name, Atom("py"), Atom("add"), [1, 2]]
    assert await node.erpc_call(broker.name, "rpc", "call", call, PATIENCE) == 3
    # As its own tools ask the nodes of a cluster.
    assert await node.erpc_call(broker.name, "rabbit_misc", "rpc_call", call, PATIENCE) == 3


async def a_process_that_is_killed(node: Node, broker: Broker) -> None:
    """Its supervisor starts another one; the monitor on that one is another monitor."""
    name = (Atom("rabbit_disk_monitor"), Atom(broker.name))
    async with node.open_process() as me:
        ref = me.monitor(name)
        first = await node.erpc_call(broker.name, "erlang", "whereis", [name[0]], PATIENCE)
        pid_ref = me.monitor(first)
        node.exit(first, Atom("kill"))
        downs = {message[1]: message for message in [await me.receive(timeout=PATIENCE) for _ in range(2)]}
        assert downs == {
            ref: (DOWN, ref, PROCESS, name, Atom("killed")),
            pid_ref: (DOWN, pid_ref, PROCESS, first, Atom("killed")),
        }

        async def restarted() -> bool:
            found = await node.erpc_call(broker.name, "erlang", "whereis", [name[0]], PATIENCE)
            return found not in (first, Atom("undefined"))

        await until(restarted, PATIENCE)
        ref = me.monitor(name)
        assert me.demonitor(ref)


async def it_has_no_zen_monitor(node: Node, broker: Broker) -> None:
    async with open_zen_monitor(node) as zen:
        assert await zen.connect(broker.name) is Compatibility.INCOMPATIBLE


async def a_node_that_is_stopped(node: Node, broker: Broker) -> None:
    """As ``systemctl stop`` stops it: nothing of it is left."""
    name = (Atom("rabbit_node_monitor"), Atom(broker.name))
    helpers = descendants(broker.pid)
    assert helpers
    async with node.open_process() as me, node.monitor_nodes() as events:
        ref = me.monitor(name)
        node.erpc_cast(broker.name, "rabbit", "stop_and_halt", [])
        down = await me.receive(timeout=PATIENCE)
        assert down[:4] == (DOWN, ref, PROCESS, name)
        assert down[4] in (Atom("shutdown"), Atom("noconnection"))  # whichever of the two is sooner
        with trio.fail_after(PATIENCE):
            event = await anext(events)
        assert isinstance(event, NodeDown)
        assert event.name == Atom(broker.name)
    assert node.nodes("connected") == []
    await until(lambda: broker.ended, PATIENCE)
    await until(lambda: not any(is_running(pid) for pid in helpers), PATIENCE)
