"""Faults that were read in other implementations of the protocol, each a test of this one against a genuine BEAM.

The letters are those of a list made when this node was designed: Pyrlang a to l, ergo a to g, then edp-rs, erl_dist,
JInterface, AtomVM and goerlang. Several of them were mended there since; what is shown is that they are not here.
docs/others-bugs.md has the list. What is known from issue trackers is in ``test_others_issues.py``.
"""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import trio

from erlang_interop import Atom, EpmdAddress, NodeDown, NodeUp, Pid, Port
from erlang_interop.flags import MANDATORY, DFlag
from erlang_interop.runtime import epmd as client
from erlang_interop.testing.ports import free_port
from tests.interop.collectors import (
    PATIENCE,
    collecting,
    disconnected_by,
    end_when_told,
    has_lost,
    is_among_nodes,
    leftovers,
    links,
    until,
    wait_for_ever,
)

if TYPE_CHECKING:
    from erlang_interop import Node
    from erlang_interop.testing.beam import Beam
    from tests.conftest import BeamFactory
    from tests.interop.conftest import NodeOpener

DOWN, EXIT, PROCESS = Atom("DOWN"), Atom("EXIT"), Atom("process")
KILLED, NOCONNECTION, NOPROC, NORMAL = map(Atom, ("killed", "noconnection", "noproc", "normal"))


async def spawned(beam: Beam, source: str = "plain_processes:spawn_waiting()", **bindings: Any) -> Pid:
    pid = await beam.eval(source, **bindings)
    assert isinstance(pid, Pid)
    return pid


def since(node: Node, beam: Beam) -> float:
    """When the connection to ``beam`` came up: another time is another connection."""
    (row,) = (row for row in node.connections if row.name == Atom(beam.name))
    assert row.state == "up"
    return row.since


# ------------------------------------------------------------------------------------------------------------- Pyrlang


@pytest.mark.rule("Control messages: MONITOR_P of nobody is answered with MONITOR_P_EXIT noproc")
async def test_pyrlang_a_a_monitor_of_an_unknown_name_is_answered(node: Node, beam: Beam) -> None:
    """Without an answer whoever calls waits for ever: ``gen_server:call``, ``global:set_lock``."""
    async with node.open_process() as gone:
        pass
    for server in ((Atom("no_such_name"), node.name), gone.pid):
        source = "{_, {Reason, _}} = (catch gen_server:call(Server, hello, infinity)), Reason"
        assert await beam.eval(source, Server=server) == NOPROC


@pytest.mark.rule("Control messages: DEMONITOR_P ends exactly its monitor")
async def test_pyrlang_b_demonitor_works_both_ways(node: Node, beam: Beam) -> None:
    pid = node.spawn(end_when_told)
    async with collecting(beam) as there, node.open_process() as me:
        ref = await there.monitor(pid)
        await until(lambda: leftovers(node) == {"watchers": 1, "peer_entries": 1})
        await there.run("erlang", "demonitor", ref)
        await until(lambda: leftovers(node) == {})
        ours = me.monitor(there.pid)
        assert await beam.eval("plain_processes:await_monitored(P, 1, 20000)", P=there.pid) is True
        assert me.demonitor(ours) is True
        assert await beam.eval("plain_processes:await_monitored(P, 0, 20000)", P=there.pid) is True
        node.send(pid, NORMAL)
        await there.round_trip(me)
        assert await there.waiting() == 0


@pytest.mark.rule("Control messages: every monitor of a process has its own MONITOR_P_EXIT")
async def test_pyrlang_c_a_process_that_ends_is_down_once(node: Node, beam: Beam) -> None:
    """A ``'DOWN'`` sent as a message leaves the monitor in place, which fires again at the end of the connection."""
    pid = node.spawn(end_when_told)
    async with collecting(beam) as there:
        ref = await there.monitor(pid)
        await until(lambda: leftovers(node) == {"watchers": 1, "peer_entries": 1})
        node.send(pid, NORMAL)
        assert await there.take(1) == [(DOWN, ref, PROCESS, pid, NORMAL)]
        assert await beam.eval("process_info(P, monitors)", P=there.pid) == (Atom("monitors"), [])
        await disconnected_by(beam, node)
        assert await there.waiting() == 0


@pytest.mark.rule("Connections: sending to a node connects to it")
async def test_pyrlang_d_a_dead_connection_is_forgotten(node: Node, beam: Beam) -> None:
    """One that stays in the table swallows all that is sent, and nobody connects anew."""
    async with collecting(beam) as there, node.open_process() as me:
        for index in range(3):
            me.send(there.pid, index)
            assert await there.take(1) == [index]
            await disconnected_by(beam, node)
            await until(lambda: node.connections == [])


@pytest.mark.rule("Control messages: UNLINK_ID is acknowledged and leaves nothing behind")
async def test_pyrlang_e_the_first_unlink_has_no_id_of_0(node: Node, beam: Beam) -> None:
    """A BEAM closes the connection for it: ``invalid_message``."""
    remote = await spawned(beam)
    async with node.open_process() as me:
        await node.connect(beam.name)
        before = since(node, beam)
        me.link(remote)
        await until(lambda: links(node) == 1)
        me.unlink(remote)
        await until(lambda: leftovers(node) == {})
        assert since(node, beam) == before


@pytest.mark.rule("Connections: both dial at once, one connection and one nodeup remain")
async def test_pyrlang_f_not_every_name_is_answered_with_ok(opened: NodeOpener, beam: Beam) -> None:
    """Who says ``ok`` to both of two calls that cross has two connections, or none. The greater name's call counts."""
    for name in ("aaa_crossing@127.0.0.1", "zzz_crossing@127.0.0.1"):
        async with opened(name) as node, node.monitor_nodes() as events:
            for _ in range(5):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(beam.eval, f"net_kernel:connect_node('{name}')")
                    await node.connect(beam.name)
                with trio.fail_after(PATIENCE):
                    assert await anext(events) == NodeUp(Atom(beam.name), "visible")
                assert [row.state for row in node.connections] == ["up"]
                assert await is_among_nodes(beam, name)
                assert await beam.eval(f"length([N || N <- nodes(connected), N =:= '{name}'])") == 1
                await disconnected_by(beam, node)
                with trio.fail_after(PATIENCE):
                    assert isinstance(await anext(events), NodeDown)


@pytest.mark.rule("Control messages: signals between two processes keep their order")
async def test_pyrlang_g_messages_keep_their_order(node: Node, beam: Beam) -> None:
    async with node.open_process() as me:
        await beam.eval("[P ! N || N <- lists:seq(1, 20000)], ok", P=me.pid)
        assert [await me.receive(timeout=PATIENCE) for _ in range(20_000)] == list(range(1, 20_001))


@pytest.mark.rule("Fragments and atom cache: a big message travels in fragments, both ways")
async def test_pyrlang_h_a_big_message_costs_what_its_bytes_cost(node: Node, beam: Beam) -> None:
    """64 MB come in a thousand reads. A buffer that each of them copies moves 32 GB: many seconds of work, not one."""
    size = 64 << 20
    async with node.open_process() as me:
        await node.connect(beam.name)
        begun = time.process_time()
        await beam.eval("P ! binary:copy(<<7>>, Size), ok", P=me.pid, Size=size)
        message = await me.receive(timeout=PATIENCE)
        assert time.process_time() - begun < 2.5
        assert message == b"\x07" * size


@pytest.mark.rule("Control messages: MONITOR_P of nobody is answered with MONITOR_P_EXIT noproc")
async def test_pyrlang_i_a_name_is_free_when_its_process_ends(node: Node, beam: Beam) -> None:
    pid = node.spawn(end_when_told, name="short_lived")
    address = (Atom("short_lived"), node.name)
    async with collecting(beam) as there:
        await there.run("erlang", "send", address, NORMAL)
        ref = await there.monitor(address)
        (down,) = await there.take(1)
        assert down[:4] == (DOWN, ref, PROCESS, address)
        assert down[4] in (NORMAL, NOPROC)
        assert node.whereis("short_lived") is None
        async with node.open_process("short_lived") as successor:
            await there.run("erlang", "send", address, Atom("welcome"))
            assert await successor.receive(timeout=PATIENCE) == Atom("welcome")
            assert successor.pid != pid


@pytest.mark.rule("Control messages: a lost connection is noconnection to monitors, on both sides")
async def test_pyrlang_j_local_watchers_hear_of_a_lost_connection(node: Node, beam: Beam) -> None:
    remote = await spawned(beam)
    async with node.open_process() as me:
        me.trap_exit = True
        ref = me.monitor(remote)
        me.link(remote)
        assert await beam.eval("plain_processes:await_monitored(P, 1, 20000)", P=remote) is True
        await disconnected_by(beam, node)
        heard = [await me.receive(timeout=PATIENCE) for _ in range(2)]
        assert sorted(heard, key=len) == [(EXIT, remote, NOCONNECTION), (DOWN, ref, PROCESS, remote, NOCONNECTION)]


@pytest.mark.rule("EPMD: ALIVE2_REQ registers this node, hidden or visible")
async def test_pyrlang_k_epmd_is_told_the_right_type_of_node(opened: NodeOpener, beam: Beam) -> None:
    """77 is a normal node, 72 a hidden one."""

    async def type_of(name: str) -> int:
        async with await trio.open_tcp_stream("127.0.0.1", beam.epmd_port) as stream:
            short = name.partition("@")[0].encode()
            await stream.send_all((len(short) + 1).to_bytes(2, "big") + b"z" + short)
            answer = b""
            with trio.fail_after(PATIENCE):
                while data := await stream.receive_some():
                    answer += data
        return answer[4]

    async with opened() as hidden, opened(visible="passive") as visible:
        assert await type_of(hidden.name.name) == 72
        assert await type_of(visible.name.name) == await type_of(beam.name) == 77


@pytest.mark.rule("Identifiers: a BEAM's pids, ports and references come home")
async def test_pyrlang_l_ports_are_terms(node: Node, beam: Beam) -> None:
    source = """
        Ports = erlang:ports(), P ! {self(), Ports},
        receive {back, Back} -> {length(Ports), Back =:= Ports} after 20000 -> nothing_came_back end
    """
    answers: list[Any] = []

    async def ask(me: Pid) -> None:
        answers.append(await beam.eval(source, P=me))

    async with node.open_process() as me:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, me.pid)
            asker, got = await me.receive(timeout=PATIENCE)
            me.send(asker, (Atom("back"), got))
        assert all(isinstance(port, Port) for port in got)
        assert answers == [(len(got), True)]
        assert got


# ---------------------------------------------------------------------------------------------------------------- ergo


@pytest.mark.rule("Control messages: UNLINK_ID is acknowledged and leaves nothing behind")
async def test_ergo_a_an_unlink_is_one_that_otp_26_still_knows(node: Node, beam: Beam) -> None:
    """UNLINK (4) went with OTP 26, which closes the connection for it."""
    remote = await spawned(beam)
    async with node.open_process() as me, collecting(beam) as there:
        me.link(remote)
        await there.round_trip(me)
        before = since(node, beam)
        for _ in range(5):
            me.unlink(remote)
            me.link(remote)
        me.unlink(remote)
        await there.round_trip(me)
        await until(lambda: leftovers(node) == {})
        assert since(node, beam) == before
        assert await beam.eval("process_info(P, links)", P=remote) == (Atom("links"), [])


@pytest.mark.rule("Control messages: MONITOR_P of nobody is answered with MONITOR_P_EXIT noproc")
async def test_ergo_b_noproc_is_the_end_of_the_monitor(node: Node, beam: Beam) -> None:
    """Not a message that looks like it: the BEAM has no monitor left, and hears nothing more of it."""
    async with collecting(beam) as there, node.open_process() as me:
        for target in ((Atom("nobody"), node.name), Pid(node.name, 9999, 0, node.creation)):
            ref = await there.monitor(target)
            assert await there.take(1) == [(DOWN, ref, PROCESS, target, NOPROC)]
        assert await beam.eval("process_info(P, monitors)", P=there.pid) == (Atom("monitors"), [])
        await there.round_trip(me)
        await disconnected_by(beam, node)
        assert await there.waiting() == 0


@pytest.mark.rule("Control messages: EXIT and PAYLOAD_EXIT carry any reason, to the peer")
async def test_ergo_c_a_reason_is_any_term(node: Node, beam: Beam) -> None:
    reason = (Atom("shutdown"), [1, 2.5, b"why", {Atom("key"): (Atom("value"), node.name)}])
    pid = node.spawn(end_when_told)
    async with collecting(beam) as there:
        await there.trap_exit()
        ref = await there.monitor(pid)
        await there.run("erlang", "link", pid)
        await until(lambda: links(node) == 1)
        node.send(pid, (Atom("exit"), reason))
        heard = await there.take(2)
        assert sorted(heard, key=len) == [(EXIT, pid, reason), (DOWN, ref, PROCESS, pid, reason)]


@pytest.mark.rule("Control messages: DEMONITOR_P ends exactly its monitor")
async def test_ergo_d_a_monitor_is_removed_by_its_reference(node: Node, beam: Beam) -> None:
    pid = node.spawn(end_when_told)
    async with collecting(beam) as there, node.open_process() as me:
        first, second, third = [await there.monitor(pid) for _ in range(3)]
        await there.run("erlang", "demonitor", second)
        await there.round_trip(me)
        assert leftovers(node) == {"watchers": 2, "peer_entries": 2}
        node.send(pid, NORMAL)
        assert [down[1] for down in await there.take(2)] == [first, third]
        assert await there.waiting() == 0


@pytest.mark.rule("Spawn: a SPAWN_REQUEST with any options is answered")
async def test_ergo_e_a_spawn_request_with_any_options_is_answered(node: Node, beam: Beam) -> None:
    """Options are atoms and tuples alike, and whoever asked waits for the answer."""
    await node.connect(beam.name)
    before = since(node, beam)
    source = """
        process_flag(trap_exit, true),
        [begin
            ReqId = spawn_request(Node, not_exposed, anything, [1, two], Options),
            receive {spawn_reply, ReqId, Answer, _} -> Answer after 20000 -> nothing end
        end || Options <- [[], [monitor], [link], [link, monitor], [{reply, yes}, monitor],
                           [{priority, high}, {min_heap_size, 999}, monitor], [{monitor, [{tag, mine}]}]]]
    """
    assert await beam.eval(source, Node=node.name) == [Atom("ok")] * 7
    assert since(node, beam) == before


@pytest.mark.rule("Control messages: EXIT2 and PAYLOAD_EXIT2 end or reach a process, to the peer")
async def test_ergo_f_exit_2_needs_no_link(node: Node, beam: Beam) -> None:
    """An EXIT (3) to a process that is not linked is dropped; ``exit/2`` is another signal."""
    remote = await spawned(beam)
    async with node.open_process() as me:
        ref = me.monitor(remote)
        me.exit(remote, Atom("told_to"))
        assert await me.receive(timeout=PATIENCE) == (DOWN, ref, PROCESS, remote, Atom("told_to"))


@pytest.mark.rule("Control messages: signals between two processes keep their order")
async def test_ergo_g_there_is_one_order_of_all_kinds_of_signals(node: Node, beam: Beam) -> None:
    """By pid, by name, by alias; small and in fragments: what one process sends arrives in the order of sending."""
    async with node.open_process("in_order") as me:
        source = """
            Big = binary:copy(<<0>>, 200000),
            [begin
                P ! {N, 1}, Name ! {N, 2}, Alias ! {N, 3}, P ! {N, 4, Big}, Name ! {N, 5}
            end || N <- lists:seq(1, 200)], ok
        """
        await beam.eval(source, P=me.pid, Name=(Atom("in_order"), node.name), Alias=me.alias())
        for number in range(1, 201):
            for part in range(1, 6):
                message: Any = await me.receive(timeout=PATIENCE)
                assert message[:2] == (number, part)


# -------------------------------------------------------------------------------------- edp-rs, erl_dist, JInterface


@pytest.mark.rule("Handshake: no flag is offered that this node does not do")
async def test_edp_rs_flags_that_are_announced_are_spoken(node: Node, beam: Beam) -> None:
    """A flag in the wrong place is a promise: a BEAM takes it up, and the connection ends at the first such signal."""
    await node.connect(beam.name)
    before = since(node, beam)
    agreed = node.peer_flags(beam.name)
    assert agreed is not None
    _, default, *_ = await beam.eval("erts_internal:get_dflags()")
    assert agreed & ~default & ~(DFlag.MANDATORY_25_DIGEST | DFlag.DIST_HDR_ATOM_CACHE | DFlag.PUBLISHED) == 0
    async with collecting(beam) as there, node.open_process("flags") as me:
        # FRAGMENTS, ALIAS or ALTACT_SIG, EXIT_PAYLOAD, UNLINK_ID, DIST_MONITOR_NAME, SEND_SENDER, in this order.
        await there.run("erlang", "send", me.pid, bytes(200_000))
        assert await me.receive(timeout=PATIENCE) == bytes(200_000)
        await there.run("erlang", "send", me.alias(), Atom("by_alias"))
        assert await me.receive(timeout=PATIENCE) == Atom("by_alias")
        me.trap_exit = True
        await there.run("erlang", "exit", me.pid, Atom("reason"))
        assert await me.receive(timeout=PATIENCE) == (EXIT, there.pid, Atom("reason"))
        await there.run("erlang", "link", me.pid)
        await there.run("erlang", "unlink", me.pid)
        await there.monitor((Atom("flags"), node.name))
        await there.round_trip(me)
        assert since(node, beam) == before


@pytest.mark.rule("EPMD: this node stays registered for as long as it lives")
async def test_edp_rs_the_connection_to_epmd_is_kept(node: Node, beam: Beam) -> None:
    """EPMD takes a node for gone when its connection ends. Here it is still known after it was dialled by name."""
    for _ in range(2):
        assert await beam.eval("net_adm:ping(N)", N=node.name) == Atom("pong")
        await disconnected_by(beam, node)
        await until(lambda: node.connections == [])
        source = "{ok, Names} = erl_epmd:names({127, 0, 0, 1}), lists:keymember(Name, 1, Names)"
        assert await beam.eval(source, Name=list(node.short_name.encode())) is True


@pytest.mark.rule("Ticks: ticks alone keep a connection up, and so does data alone")
async def test_edp_rs_an_idle_connection_is_not_cut(opened: NodeOpener, fresh_beam: BeamFactory) -> None:
    """Both sides tick four times in a ticktime; here nothing else is said in one and a half of them.

    Shorter times would not do: either side may stand still for two seconds when the machine has other things to do.
    """
    beam = fresh_beam(args=["-kernel", "net_ticktime", "3"])
    async with opened(net_ticktime=3.0) as node, node.monitor_nodes() as events:
        await node.connect(beam.name)
        assert await anext(events) == NodeUp(Atom(beam.name), "visible")
        with trio.move_on_after(4.5):
            pytest.fail(f"the connection was cut: {await anext(events)}")
        assert await beam.eval("nodes(connected)") == [node.name]


@pytest.mark.rule("Identifiers: the creation tells a node from its former incarnation")
async def test_edp_rs_the_creation_is_the_one_that_epmd_gave(opened: NodeOpener, beam: Beam) -> None:
    """A node that calls itself creation 1 each time is taken for its predecessor."""
    creations = []
    for _ in range(2):
        async with opened("created@127.0.0.1") as node, node.open_process() as me:
            # NEW_PID_EXT: 131, 88, the node as an atom, id, serial and creation of 32 bits each
            source = "Ext = term_to_binary(P), binary:decode_unsigned(binary:part(Ext, byte_size(Ext), -4))"
            creation = await beam.eval(source, P=me.pid)
            assert creation == node.creation > 3
            assert await beam.eval("net_adm:ping(N)", N=node.name) == Atom("pong")
            creations.append(creation)
        await has_lost(beam, node.name)  # else it may ping the second one over the connection to the first
    assert creations[0] != creations[1]


@pytest.mark.rule("Handshake: the flags are those the emulator announces")
async def test_erl_dist_the_digest_flag_is_bit_26(node: Node, beam: Beam) -> None:
    """The manual says bit 36, which is a mark of the emulator's own; both sides announce bit 26."""
    await node.connect(beam.name)
    agreed = node.peer_flags(beam.name)
    assert agreed is not None
    assert DFlag.MANDATORY_25_DIGEST == 1 << 26
    assert agreed & 1 << 26
    assert not agreed & 1 << 36
    assert agreed & MANDATORY == MANDATORY


@pytest.mark.rule("Handshake: ok_simultaneous goes on like ok")
async def test_jinterface_ok_simultaneous_is_an_answer(opened: NodeOpener, beam: Beam) -> None:
    """A BEAM that dials us, and knows us as the greater name, says it to our call.

    It dials a port that never answers, as long as its EPMD says that we are there; so our call finds its own pending.
    """
    name = "zzz_simultaneous@127.0.0.1"
    elsewhere = EpmdAddress(port=free_port())
    (mute,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    short = beam.name.partition("@")[0]
    port = await client.look_up("127.0.0.1", beam.epmd_port, short)
    decoy = await client.register(
        EpmdAddress(port=beam.epmd_port), "zzz_simultaneous", mute.socket.getsockname()[1], visible=False
    )
    answers: list[Any] = []

    async def dial_us() -> None:
        answers.append(await beam.eval(f"net_kernel:connect_node('{name}')"))

    with closing(decoy.stream):
        async with mute, opened(name, epmd=elsewhere, embedded_epmd=True) as node, trio.open_nursery() as nursery:
            entry = await client.register(elsewhere, short, port, visible=True)
            with closing(entry.stream), trio.fail_after(PATIENCE):
                nursery.start_soon(dial_us)
                call = await mute.accept()
                assert await call.receive_some(), "it has introduced itself: its attempt is pending"
                await node.connect(beam.name)
            assert node.handshakes["received", "ok_simultaneous"] == 1
            await call.aclose()
            async with collecting(beam) as there, node.open_process() as me:
                await there.round_trip(me)
    assert answers == [True]


@pytest.mark.rule("Control messages: MONITOR_P by pid and by name, of this node's processes")
async def test_jinterface_a_monitor_does_not_end_the_connection(node: Node, beam: Beam) -> None:
    pid = node.spawn(wait_for_ever, name="watched_here")
    async with collecting(beam) as there, node.open_process() as me:
        await there.round_trip(me)
        before = since(node, beam)
        for target in (pid, (Atom("watched_here"), node.name), (Atom("nobody"), node.name)):
            await there.monitor(target)
        await there.round_trip(me)
        assert since(node, beam) == before


# ---------------------------------------------------------------------------------------------------- AtomVM, goerlang


@pytest.mark.rule("Control messages: EXIT2 and PAYLOAD_EXIT2 end or reach a process, from the peer")
async def test_atomvm_exit_2_an_alias_and_an_unknown_name_leave_the_connection_up(node: Node, beam: Beam) -> None:
    async with collecting(beam) as there, node.open_process() as me:
        await there.round_trip(me)
        before = since(node, beam)
        alias = me.alias()
        await there.run("erlang", "send", alias, Atom("once"))
        assert await me.receive(timeout=PATIENCE) == Atom("once")
        me.unalias(alias)
        await there.run("erlang", "send", alias, Atom("too_late"))
        await there.monitor((Atom("unknown"), node.name))
        (down,) = await there.take(1)
        assert down[4] == NOPROC
        victim = node.spawn(wait_for_ever)
        ref = await there.monitor(victim)
        await there.run("erlang", "exit", victim, Atom("enough"))
        assert await there.take(1) == [(DOWN, ref, PROCESS, victim, Atom("enough"))]
        await there.round_trip(me)
        assert since(node, beam) == before
        assert len(me.mailbox) == 0


@pytest.mark.rule("Visible nodes: global works beside a passive node")
async def test_goerlang_a_lock_is_not_granted_with_a_word_of_its_own(opened: NodeOpener, beam: Beam) -> None:
    """``global:set_lock/3`` matches the answers of all nodes; one it does not know would crash whoever asks."""
    async with opened(visible="passive") as node:
        await node.connect(beam.name)
        source = """
            Id = {goerlang, self()},
            Set = global:set_lock(Id, [node(), Node], 0),
            {Set, global:del_lock(Id, [node(), Node])}
        """
        assert await beam.eval(source, Node=node.name) == (True, True)
