"""What a TLS connection to a BEAM carries, and how it ends."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from erlang_interop import Atom, NodeDown, NodeUp, Process
from erlang_interop.runtime.peer import BUSY_LIMIT
from erlang_interop.testing.beam import BeamDiedError
from tests.certificates import optfile, options
from tests.interop.collectors import PATIENCE, collecting, disconnected_by, has_lost, is_among_nodes
from tests.interop.tls import dialled_by, messages_go_both_ways, next_event

if TYPE_CHECKING:
    from erlang_interop import Node, Pid
    from erlang_interop.testing.beam import Beam
    from tests.certificates import Authority
    from tests.conftest import BeamFactory
    from tests.interop.conftest import NodeOpener
    from tests.interop.tls import SecureBeams, SecureNodes

NORMAL, NOCONNECTION, CONNECTION_CLOSED = Atom("normal"), Atom("noconnection"), Atom("connection_closed")
VERSIONS = ["tlsv1.2", "tlsv1.3"]


# -------------------------------------------------------------------------------------------------------- connecting


@pytest.mark.rule("TLS: a BEAM is dialled")
@pytest.mark.parametrize("version", VERSIONS)
async def test_dialling_a_beam(authority: Authority, fresh: SecureBeams, secure: SecureNodes, version: str) -> None:
    tls = options(authority, authority.issue(), versions=(version,))
    beam = fresh(tls)
    async with secure(tls) as node, node.monitor_nodes() as events:
        await node.connect(beam.name)
        assert await next_event(events) == NodeUp(Atom(beam.name), "visible")
        assert await is_among_nodes(beam, node.name, "hidden")
        await messages_go_both_ways(node, beam)
        assert await node.disconnect(beam.name)
        assert await next_event(events) == NodeDown(Atom(beam.name), "visible", Atom("disconnect"))


@pytest.mark.rule("TLS: a BEAM dials")
@pytest.mark.parametrize("version", VERSIONS)
async def test_being_dialled_by_a_beam(
    authority: Authority, fresh: SecureBeams, secure: SecureNodes, version: str
) -> None:
    tls = options(authority, authority.issue(), versions=(version,))
    beam = fresh(tls)
    async with secure(tls) as node, node.monitor_nodes() as events:
        assert await dialled_by(beam, node)
        assert await next_event(events) == NodeUp(Atom(beam.name), "visible")
        await messages_go_both_ways(node, beam)
        await disconnected_by(beam, node)
        assert await next_event(events) == NodeDown(Atom(beam.name), "visible", CONNECTION_CLOSED)


@pytest.mark.rule("TLS: options are read from the file of -ssl_dist_optfile")
async def test_one_optfile_for_both(
    authority: Authority, fresh_beam: BeamFactory, ssl_args: list[str], secure: SecureNodes, beam: Beam
) -> None:
    path = optfile(authority.folder / "shared.conf", authority.options(), (Atom("secure_renegotiate"), True))
    other = fresh_beam(args=[*ssl_args, "-proto_dist", "inet_tls", "-ssl_dist_optfile", str(path)])
    async with secure(path) as node:
        await node.connect(beam.name)
        assert await dialled_by(other, node)
        await messages_go_both_ways(node, beam)
        await messages_go_both_ways(node, other)


@pytest.mark.rule("TLS: a BEAM with -ssl_dist_opt on its command line")
async def test_a_beam_with_options_on_its_command_line(
    authority: Authority, fresh_beam: BeamFactory, ssl_args: list[str], node: Node
) -> None:
    certificate, ca = str(authority.issue()), str(authority.file)
    words: list[str] = []
    for side in ("server", "client"):
        for option, value in (("certfile", certificate), ("cacertfile", ca), ("verify", "verify_peer")):
            words += ["-ssl_dist_opt", f"{side}_{option}", value]
    beam = fresh_beam(args=[*ssl_args, "-proto_dist", "inet_tls", *words])
    await node.connect(beam.name)
    await messages_go_both_ways(node, beam)
    await node.disconnect(beam.name)
    await has_lost(beam, node.name)
    assert await dialled_by(beam, node)
    await messages_go_both_ways(node, beam)


# ----------------------------------------------------------------------------------------------------------- traffic


@pytest.mark.rule("TLS: messages of 4 MB in fragments, both ways")
@pytest.mark.parametrize("version", VERSIONS)
async def test_big_messages(authority: Authority, fresh: SecureBeams, secure: SecureNodes, version: str) -> None:
    """In both directions at the same time; what is counted are plain bytes."""
    tls = options(authority, authority.issue(), versions=(version,))
    beam = fresh(tls)
    data = os.urandom(4_000_000)
    async with secure(tls) as node, collecting(beam) as there, node.open_process() as me:
        for number in range(3):
            me.send(there.pid, (Atom("big"), number, data))
            await there.run("erlang", "send", me.pid, (number, data))
        for number in range(3):
            assert await me.receive(timeout=PATIENCE) == (number, data)
        assert await there.take(3) == [(Atom("big"), number, data) for number in range(3)]
        await there.round_trip(me)
        (row,) = node.connections
        for count in (row.bytes_in, row.bytes_out):
            assert 12_000_000 < count < 12_010_000


@pytest.mark.rule("TLS: a peer that does not read parks its senders, and no others")
@pytest.mark.parametrize("version", VERSIONS)
async def test_flow_control(
    authority: Authority, fresh: SecureBeams, secure: SecureNodes, version: str, beam: Beam
) -> None:
    slow = fresh(options(authority, authority.issue(), versions=(version,)))
    sent, count = 0, 450

    async def send(process: Process, dest: Pid) -> None:
        nonlocal sent
        for index in range(1, count + 1):
            await process.send(dest, (Atom("numbered"), index, bytes(100_000)))
            sent = index

    async with secure() as node, node.open_process() as me, collecting(beam) as elsewhere:
        await node.connect(slow.name)
        dest: Any = await slow.eval("collector:start(stalled)")
        slow.suspend()
        pid = node.spawn(send, dest)
        ref = me.monitor(pid)
        stopped_at = -1
        while sent != stopped_at or not node.is_busy(slow.name):  # the kernel's buffers grow while they fill
            stopped_at = sent
            assert sent < count, "nobody was parked"
            for _ in range(20):
                await elsewhere.round_trip(me)  # another connection goes on
        (unsent,) = (row.unsent for row in node.connections if row.name.name == slow.name)
        assert BUSY_LIMIT < unsent <= BUSY_LIMIT + 101_000
        assert sent == stopped_at < count
        slow.resume()
        assert await me.receive(timeout=PATIENCE) == (Atom("DOWN"), ref, Atom("process"), pid, NORMAL)
        assert await slow.eval("ordered_sender:is_in_order(stalled, N, 20000)", N=count) is True
        assert not node.is_busy(slow.name)


@pytest.mark.rule("TLS: new keys are agreed on under way")
@pytest.mark.parametrize("way", ["dialled", "dials"])
@pytest.mark.parametrize(
    ("version", "limit"), [("tlsv1.2", ("renegotiate_at", 50)), ("tlsv1.3", ("key_update_at", 100_000))], ids=VERSIONS
)
async def test_new_keys(
    authority: Authority, fresh: SecureBeams, secure: SecureNodes, version: str, limit: tuple[str, int], way: str
) -> None:
    """A BEAM asks for them after 2**28 records, or 2**38 bytes; here much sooner."""
    tls = options(authority, authority.issue(), versions=(version,))
    beam = fresh(tls, (Atom(limit[0]), limit[1]))
    async with secure(tls) as node, node.monitor_nodes() as events:
        await (dialled_by(beam, node) if way == "dials" else node.connect(beam.name))
        async with collecting(beam) as there, node.open_process() as me:
            source = "[begin P ! {I, <<0:40000>>}, timer:sleep(I rem 2) end || I <- lists:seq(1, 400)], done"
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(beam.eval, source, P=me.pid))
                for number in range(400):
                    await me.send(there.pid, (Atom("numbered"), number, bytes(50_000)))
            assert [await me.receive(timeout=PATIENCE) for _ in range(400)] == [
                (number, bytes(5000)) for number in range(1, 401)
            ]
            assert [number for _, number, _ in await there.take(400)] == list(range(400))
        assert await next_event(events) == NodeUp(Atom(beam.name), "visible")
        assert node.is_connected(beam.name)
        await node.disconnect(beam.name)
        assert await next_event(events) == NodeDown(Atom(beam.name), "visible", Atom("disconnect"))


@pytest.mark.slow
@pytest.mark.rule("TLS: ticks keep an idle connection, and end that to a suspended BEAM")
async def test_ticks(fresh: SecureBeams, secure: SecureNodes) -> None:
    # Shorter times would not do: either side may stand still for two seconds when the machine has other things to do.
    beam = fresh(args=("-kernel", "net_ticktime", "3"))
    async with secure(net_ticktime=3.0) as node, node.monitor_nodes() as events:
        await node.connect(beam.name)
        assert await next_event(events) == NodeUp(Atom(beam.name), "visible")
        with trio.move_on_after(4.5):
            pytest.fail(f"an idle connection ended: {await next_event(events)}")
        assert await beam.eval("nodes(hidden)") == [node.name]
        beam.suspend()
        assert await next_event(events) == NodeDown(Atom(beam.name), "visible", Atom("net_tick_timeout"))


@pytest.mark.rule("TLS: the loss of a connection has the reasons that it has over TCP")
@pytest.mark.parametrize("carrier", ["tls", "tcp"])
@pytest.mark.parametrize("end", ["killed", "halted", "disconnected"])
async def test_the_end_of_a_connection(
    carrier: str, end: str, fresh: SecureBeams, fresh_beam: BeamFactory, secure: SecureNodes, opened: NodeOpener
) -> None:
    beam = fresh() if carrier == "tls" else fresh_beam()
    async with (
        secure() if carrier == "tls" else opened() as node,
        node.monitor_nodes() as events,
        node.open_process() as me,
    ):
        await node.connect(beam.name)
        pid: Any = await beam.eval("collector:start(watched)")
        ref = me.monitor(pid)
        me.trap_exit = True
        me.link(pid)
        await node.rpc(beam.name, "erlang", "node", [])  # the link and the monitor are there
        match end:
            case "killed":
                beam.kill()
            case "halted":
                with pytest.raises(BeamDiedError):
                    await beam.eval("erlang:halt(0, [{flush, false}])")
            case _:
                await disconnected_by(beam, node)
        messages = [await me.receive(timeout=PATIENCE) for _ in range(2)]
        assert (Atom("DOWN"), ref, Atom("process"), pid, NOCONNECTION) in messages
        assert (Atom("EXIT"), pid, NOCONNECTION) in messages
        assert await next_event(events) == NodeUp(Atom(beam.name), "visible")
        assert await next_event(events) == NodeDown(Atom(beam.name), "visible", CONNECTION_CLOSED)


@pytest.mark.rule("TLS: a BEAM sees our end of a connection as that of a BEAM")
@pytest.mark.parametrize(("carrier", "reason"), [("tls", "shutdown"), ("tcp", "connection_closed")])
async def test_our_end_of_a_connection(
    carrier: str, reason: str, fresh: SecureBeams, fresh_beam: BeamFactory, secure: SecureNodes, opened: NodeOpener
) -> None:
    beam = fresh() if carrier == "tls" else fresh_beam()
    async with secure() if carrier == "tls" else opened() as node, collecting(beam) as there:
        await there.run(
            "net_kernel", "monitor_nodes", True, [(Atom("node_type"), Atom("all")), Atom("nodedown_reason")]
        )
        await node.connect(beam.name)
        assert [message[:2] for message in await there.take(1)] == [(Atom("nodeup"), node.name)]
        assert await is_among_nodes(beam, node.name)  # a nodeup comes before the last options of the socket are set
        await node.disconnect(beam.name)
        ((_, name, info),) = await there.take(1)
        assert name == node.name
        assert dict(info)[Atom("nodedown_reason")] == Atom(reason)
