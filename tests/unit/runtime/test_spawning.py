"""Spawn requests, asked and answered, without a BEAM: what is sent, in which order, and what is left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from erlang_interop.errors import BadName, EncodeError, RemoteProtocolError, SpawnError
from erlang_interop.flags import OFFERED, DFlag
from erlang_interop.runtime.peer import Peer
from erlang_interop.runtime.signals import Router
from erlang_interop.runtime.spawning import Exposed, SpawnOptions
from erlang_interop.terms import Atom, Pid, Reference
from erlang_interop.wire.channel import DistChannel
from erlang_interop.wire.control import NO_PAYLOAD
from tests.unit.runtime.signals_rig import ME, REF, REMOTE, THERE, Recorder, Sink, new_router

if TYPE_CHECKING:
    from erlang_interop.runtime import Node, Process

LINK, MONITOR, OK, ERROR = Atom("link"), Atom("monitor"), Atom("ok"), Atom("error")
SPAWN_REPLY, DOWN, EXIT, PROCESS, BANG = map(Atom, ("spawn_reply", "DOWN", "EXIT", "process", "bang"))
M, F = Atom("m"), Atom("f")
LEADER = Pid(THERE, 1, 0, 9)
CHILD = Pid(THERE, 77, 0, 9)
PRIORITY = Atom("priority")


@pytest.fixture
async def peer() -> Sink:
    return Sink()


@pytest.fixture
async def router(peer: Sink) -> Router:
    return new_router(peer)


def asked(
    router: Router, process: Recorder, options: list[Any], replies: tuple[bool, bool] = (True, True)
) -> Reference:
    return router.spawning.request(process, THERE, M, F, [1, 2], options, replies, SPAWN_REPLY)


# -------------------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    "options",
    [
        [],
        [LINK, MONITOR, LINK],
        [(LINK, []), (LINK, [PRIORITY]), (MONITOR, [])],
        [(MONITOR, [(Atom("tag"), [1]), (Atom("alias"), Atom("explicit_unalias")), PRIORITY])],
        [(PRIORITY, Atom("max")), (Atom("message_queue_data"), Atom("on_heap")), (Atom("async_dist"), True)],
        [(Atom("min_heap_size"), 0), (Atom("min_bin_vheap_size"), 5), (Atom("fullsweep_after"), 1)],
        [(Atom("max_heap_size"), 0), (Atom("scheduler"), 1)],
        [(Atom("max_heap_size"), {Atom("size"): 1000, Atom("kill"): False, Atom("error_logger"): True})],
    ],
    ids=str,
)
def test_options(options: list[Any]) -> None:
    assert SpawnOptions.parse(options) is not None


@pytest.mark.parametrize(
    "options",
    [
        Atom("link"),
        [Atom("links")],
        [1],
        [(LINK, True)],
        [(LINK, [Atom("urgent")])],
        [(MONITOR, PRIORITY)],
        [(MONITOR, [MONITOR])],
        [(MONITOR, [(Atom("alias"), Atom("reply"))])],
        [(MONITOR, [(Atom("alias"), True)])],
        [(PRIORITY, Atom("urgent"))],
        [(PRIORITY, [])],
        [(Atom("async_dist"), 1)],
        [(Atom("min_heap_size"), -1)],
        [(Atom("min_heap_size"), True)],
        [(Atom("min_heap_size"), 1 << 60)],
        [(Atom("max_heap_size"), 100)],
        [(Atom("max_heap_size"), 1000), (Atom("min_heap_size"), 2000)],
        [(Atom("max_heap_size"), {Atom("kill"): True})],
        [(Atom("max_heap_size"), {Atom("size"): 0, Atom("kill"): 1})],
        [(Atom("reply"), Atom("no"))],
        [(Atom("reply_tag"), 1)],
        [(1, 2)],
        [(LINK,)],
        [{}],
    ],
    ids=str,
)
def test_bad_options(options: Any) -> None:
    assert SpawnOptions.parse(options) is None


def test_the_last_of_two_options_counts() -> None:
    parsed = SpawnOptions.parse([(MONITOR, [(Atom("tag"), 1), PRIORITY]), MONITOR, (LINK, [PRIORITY]), LINK])
    assert parsed is not None
    assert (parsed.tag, parsed.monitor_priority, parsed.link_priority) == (DOWN, False, False)


# -------------------------------------------------------------------------------------------------------------- asking


async def test_what_is_asked(router: Router, peer: Sink) -> None:
    process = Recorder(router)
    low = (PRIORITY, Atom("low"))
    refs = [
        asked(router, process, []),
        asked(router, process, [low, MONITOR, LINK]),
        asked(router, process, [(LINK, [PRIORITY]), (MONITOR, [(Atom("tag"), 1)])]),
    ]
    process.group_leader = LEADER
    refs.append(asked(router, process, []))
    mfa = (M, F, 2)
    assert peer.emitted == [
        ((29, refs[0], process.pid, process.pid, mfa, []), [1, 2]),
        ((29, refs[1], process.pid, process.pid, mfa, [low, LINK, MONITOR]), [1, 2]),
        ((29, refs[2], process.pid, process.pid, mfa, [LINK, MONITOR]), [1, 2]),
        ((29, refs[3], process.pid, LEADER, mfa, []), [1, 2]),
    ]


async def test_a_traced_request_counts_as_two_messages(router: Router, peer: Sink) -> None:
    process = Recorder(router)
    process.set_trace_token((3, Atom("l"), 10, process.pid, 4))
    ref = asked(router, process, [])
    token = (3, Atom("l"), 12, process.pid, 4)
    assert peer.emitted == [((30, ref, process.pid, process.pid, (M, F, 2), [], token), [1, 2])]
    answer = (3, Atom("l"), 12, CHILD, 11)
    router.dispatch(peer, [((32, ref, process.pid, 0, CHILD, answer), NO_PAYLOAD)])
    assert process.messages == [((SPAWN_REPLY, ref, OK, CHILD), answer, False)]


@pytest.mark.parametrize("replies", [(True, True), (True, False), (False, True), (False, False)])
async def test_the_answers_asked_for(router: Router, peer: Sink, replies: tuple[bool, bool]) -> None:
    process = Recorder(router)
    good, bad = asked(router, process, [], replies), asked(router, process, [], replies)
    router.dispatch(
        peer,
        [((31, good, process.pid, 0, CHILD), NO_PAYLOAD), ((31, bad, process.pid, 0, Atom("badopt")), NO_PAYLOAD)],
    )
    told = [(SPAWN_REPLY, good, OK, CHILD), (SPAWN_REPLY, bad, ERROR, Atom("badopt"))]
    assert process.messages == [message for message, wanted in zip(told, replies, strict=True) if wanted]
    assert (peer.spawns, process.spawns) == ({}, {})


async def test_link_and_monitor_of_an_answer(router: Router, peer: Sink) -> None:
    process = Recorder(router)
    process.trap_exit = True
    alias = (Atom("alias"), Atom("demonitor"))
    ref = asked(router, process, [(LINK, [PRIORITY]), (MONITOR, [(Atom("tag"), 1), PRIORITY, alias])])
    assert ref not in router.aliases, "as long as the request is not answered the alias is not active"
    router.dispatch(peer, [((31, ref, process.pid, 3, CHILD), NO_PAYLOAD)])
    assert peer.entries == 2
    assert ref in router.aliases
    router.dispatch(peer, [((24, CHILD, process.pid), BANG), ((28, CHILD, process.pid, ref), BANG)])
    exit_, down = ((EXIT, CHILD, BANG), None, True), (1, ref, PROCESS, CHILD, BANG)
    assert process.messages[:2] == [(SPAWN_REPLY, ref, OK, CHILD), exit_]
    assert process.messages[2][0] == down
    assert process.messages[2][2] is True
    assert (peer.entries, len(router.aliases)) == (0, 0)


async def test_an_answer_nobody_waits_for(router: Router, peer: Sink) -> None:
    """Only for a process that is gone is the monitor taken back (``erts_net_message()``, DOP_SPAWN_REPLY)."""
    process, gone = Recorder(router), Recorder(router)
    router.terminate(gone, BANG)
    unknown = router.make_ref()
    old = Pid(ME, 1, 0, 4)
    for parent in (process.pid, gone.pid, old):
        router.dispatch(peer, [((31, unknown, parent, 3, CHILD), NO_PAYLOAD)])
        router.dispatch(peer, [((31, unknown, parent, 3, BANG), NO_PAYLOAD)])
    assert peer.emitted == [((20, gone.pid, CHILD, unknown), NO_PAYLOAD)]
    assert process.messages == []
    assert peer.entries == 0


async def test_an_answer_for_another_process(router: Router, peer: Sink) -> None:
    process, other = Recorder(router), Recorder(router)
    ref = asked(router, process, [])
    router.dispatch(peer, [((31, ref, other.pid, 0, CHILD), NO_PAYLOAD)])
    assert other.messages == []
    assert ref in peer.spawns


@pytest.mark.parametrize("how", ["abandons", "ends"])
@pytest.mark.parametrize("options", [[], [LINK], [MONITOR], [LINK, MONITOR]], ids=str)
async def test_the_parent_wants_no_child_any_more(router: Router, peer: Sink, how: str, options: list[Any]) -> None:
    process = Recorder(router)
    ref = asked(router, process, options)
    peer.emitted.clear()
    if how == "abandons":
        assert router.spawning.abandon(process, ref) is True
        assert router.spawning.abandon(process, ref) is False
    else:
        router.terminate(process, BANG)
    flags = (LINK in options) | (MONITOR in options) << 1
    router.dispatch(peer, [((31, ref, process.pid, flags, CHILD), NO_PAYLOAD)])
    expected: list[Any] = []
    if how == "ends" and MONITOR in options:
        expected.append(((20, process.pid, CHILD, ref), NO_PAYLOAD))
    if LINK in options:
        expected.append(((24, process.pid, CHILD), Atom("abandoned") if how == "abandons" else BANG))
    assert peer.emitted == expected
    assert process.messages == ([] if how == "abandons" else [("ended", BANG)])
    assert (peer.entries, process.links, len(process.monitors)) == (0, {}, 0)


async def test_only_the_own_request_can_be_abandoned(router: Router, peer: Sink) -> None:
    process, other = Recorder(router), Recorder(router)
    ref = asked(router, process, [])
    assert router.spawning.abandon(other, ref) is False
    router.dispatch(peer, [((31, ref, process.pid, 0, CHILD), NO_PAYLOAD)])
    assert router.spawning.abandon(process, ref) is False


async def test_the_connection_is_lost(router: Router, peer: Sink) -> None:
    process = Recorder(router)
    first, silent = asked(router, process, [LINK]), asked(router, process, [LINK], (True, False))
    abandoned, last = asked(router, process, [LINK]), asked(router, process, [(MONITOR, [PRIORITY])])
    router.spawning.abandon(process, abandoned)
    lost = Atom("noconnection")
    while not router.connection_lost(peer, lost, 1):
        pass
    assert process.messages == [
        (SPAWN_REPLY, first, ERROR, lost),
        ((SPAWN_REPLY, last, ERROR, lost), None, True),
    ]
    assert (peer.spawns, process.spawns) == ({}, {}), silent


async def test_a_peer_that_starts_nothing(router: Router, peer: Sink) -> None:
    peer.wire = DistChannel(OFFERED, peer=THERE.name)  # it is up
    peer.can_spawn = False
    process = Recorder(router)
    ref = asked(router, process, [LINK])
    assert process.messages == [(SPAWN_REPLY, ref, ERROR, Atom("notsup"))]
    assert peer.emitted == []


async def test_a_peer_that_turns_out_to_start_nothing() -> None:
    """The request was made while it was being dialled."""
    peer = Peer(THERE, [])
    router = Router(ME, lambda name: peer)
    process = Recorder(router)
    ref = asked(router, process, [LINK])
    peer.agreed = OFFERED & ~(DFlag.SPAWN | DFlag.ALTACT_SIG)
    peer.altact = peer.can_spawn = False
    peer.release_queue()
    assert process.messages == [(SPAWN_REPLY, ref, ERROR, Atom("notsup"))]
    assert peer.entries == 0


@pytest.mark.parametrize(
    "reply",
    [
        (31, REF, Pid(ME, 1, 0, 5), 0, CHILD),
        (31, Reference(ME, 5, b"\0\0\0\1" * 3), REMOTE, 0, CHILD),
        (31, Reference(ME, 5, b"\0\0\0\1" * 3), Pid(ME, 1, 0, 5), 1 << 27, CHILD),
        (31, Reference(ME, 5, b"\0\0\0\1" * 3), Pid(ME, 1, 0, 5), 0, Pid(ME, 1, 0, 5)),
    ],
    ids=["a reference of theirs", "a parent of theirs", "flags", "a child of ours"],
)
async def test_what_is_no_answer(router: Router, peer: Sink, reply: tuple[Any, ...]) -> None:
    with pytest.raises(RemoteProtocolError, match="is no answer to a spawn request of this node"):
        router.dispatch(peer, [(reply, NO_PAYLOAD)])


async def test_arguments_that_cannot_be_sent(node: Node) -> None:
    async with node.open_process() as me:
        with pytest.raises(EncodeError):
            me.spawn_request("there@127.0.0.1", "m", "f", [{1, 2}])
        assert node.statistics()["peer_entries"] == 0
        with pytest.raises(ValueError, match="reply is True, 'yes', 'no', 'error_only' or 'success_only', not 'maybe'"):
            me.spawn_request(node.name, "m", "f", [], reply="maybe")  # type: ignore[arg-type]
        with pytest.raises(BadName):
            me.spawn_request(node.name, "m", 1, [])  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------------ answering


async def test_a_node_that_is_not_open_starts_nothing(router: Router, peer: Sink) -> None:
    request: Any = (29, REF, REMOTE, LEADER, (M, F, 0), [])
    router.dispatch(peer, [(request, [])])
    router.dispatch(peer, [((30, *request[1:], (3, 1, 9, REMOTE, 5)), [])])
    limit = Atom("system_limit")
    assert peer.emitted == [
        ((31, REF, REMOTE, 0, limit), NO_PAYLOAD),
        ((32, REF, REMOTE, 0, limit, (3, 1, 9, ME, 8)), NO_PAYLOAD),
    ]


class Asked:
    """A node, and a peer of it that only says what it is told."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.router = node._router
        self.peer = Sink()
        self.router.peers[THERE] = self.peer

    def ask(self, module: str, function: str, arguments: Any, *options: Any, token: Any = None) -> Pid:
        """Request a process; returns it, as the answer told."""
        tail = [] if token is None else [token]
        mfa = (Atom(module), Atom(function), 0)
        request: Any = (29 if token is None else 30, REF, REMOTE, LEADER, mfa, list(options), *tail)
        self.peer.emitted.clear()
        self.router.dispatch(self.peer, [(request, arguments)])
        reply, _ = self.peer.emitted.pop(0)
        assert reply[0] == (31 if token is None else 32)
        assert reply[1:3] == (REF, REMOTE)
        assert reply[3] == (LINK in options) | (MONITOR in options) << 1
        child: Pid = reply[4]
        return child


@pytest.fixture
async def asking(node: Node) -> Any:
    rig = Asked(node)
    yield rig
    del rig.router.peers[THERE]


async def test_what_runs(asking: Asked) -> None:
    ran: list[Any] = []

    async def slow(*arguments: Any) -> None:
        await trio.lowlevel.checkpoint()
        ran.append(arguments)

    async def as_process(process: Process, argument: Any) -> None:
        ran.append((process.pid, process.group_leader, argument))

    asking.node.expose("py", {"quick": lambda *arguments: ran.append(arguments), "slow": slow})
    asking.node.expose(Atom("py"), {"as_process": as_process}, with_process=True)
    child = asking.ask("py", "as_process", [3])
    await trio.testing.wait_all_tasks_blocked()
    assert ran == [(child, LEADER, 3)]
    asking.ask("py", "quick", [1])
    asking.ask("py", "slow", [])
    await trio.testing.wait_all_tasks_blocked()
    assert sorted(ran[1:]) == [(), (1,)]
    assert asking.node.statistics()["peer_entries"] == 0


async def test_link_and_monitor_are_there_before_it_runs(asking: Asked) -> None:
    asking.node.expose("py", {"nothing": lambda: None})
    child = asking.ask("py", "nothing", [], LINK, MONITOR)
    assert (asking.peer.watched, asking.peer.links) == ({REF: child}, {child: {REMOTE}})
    await trio.testing.wait_all_tasks_blocked()
    normal = Atom("normal")
    assert asking.peer.emitted == [((24, child, REMOTE), normal), ((28, child, REMOTE, REF), normal)]
    assert asking.peer.entries == 0


@pytest.mark.parametrize("arguments", [[], [1, 2], [1, 2, 3, 4]], ids=len)
async def test_the_number_of_arguments(asking: Asked, arguments: list[Any]) -> None:
    asking.node.expose("py", {"one": lambda a: a})
    child = asking.ask("py", "one", arguments, MONITOR)
    undef: Any = (Atom("undef"), [(Atom("py"), Atom("one"), arguments, [])])
    assert asking.peer.emitted == [((28, child, REMOTE, REF), undef)]


async def test_what_is_not_exposed(asking: Asked) -> None:
    asking.node.expose("py", {"one": lambda a: a})
    asking.node.unexpose("py")
    for arguments, reason in (
        ([1], (Atom("undef"), [(Atom("py"), Atom("one"), [1], [])])),
        (Atom("x"), (Atom("badarg"), [(Atom("erlang"), Atom("apply"), [Atom("py"), Atom("one"), Atom("x")], [])])),
    ):
        child = asking.ask("py", "one", arguments, LINK)
        assert asking.peer.emitted == [((24, child, REMOTE), reason)]
    with pytest.raises(BadName, match="nothing is exposed as 'py'"):
        asking.node.unexpose("py")


async def test_what_cannot_be_exposed(node: Node) -> None:
    with pytest.raises(TypeError, match="py:two is to be a function, not 2"):
        node.expose("py", {"one": print, "two": 2})  # type: ignore[dict-item]
    with pytest.raises(BadName):
        node.unexpose("py")
    with pytest.raises(BadName):
        node.expose(b"py", {})  # type: ignore[arg-type]


def test_a_function_without_a_signature_is_tried() -> None:
    assert Exposed(max, with_process=False).takes([1, 2, 3])
    assert not Exposed(lambda process: None, with_process=True).takes([1])


async def test_two_under_one_reference_are_refused(asking: Asked) -> None:
    asking.node.expose("py", {"stay": trio.sleep_forever})
    asking.ask("py", "stay", [], MONITOR)
    with pytest.raises(RemoteProtocolError, match="has the reference of another monitor"):
        asking.ask("py", "stay", [], MONITOR)


async def test_tokens_of_the_child(asking: Asked) -> None:
    seen: list[Any] = []
    asking.node.expose("py", {"look": lambda process: seen.append(process.trace_token)}, with_process=True)
    token = (3, Atom("l"), 12, REMOTE, 4)
    child = asking.ask("py", "look", [], LINK, token=token)
    await trio.testing.wait_all_tasks_blocked()
    assert seen == [token]
    assert asking.peer.emitted == [((25, child, REMOTE, (3, Atom("l"), 13, child, 12)), Atom("normal"))]


async def test_spawning_on_the_own_node(node: Node) -> None:
    async def stay(process: Process) -> None:
        await process.receive()

    node.expose("py", {"stay": stay}, with_process=True)
    async with node.open_process() as me:
        me.trap_exit = True
        child, ref = await me.spawn_remote(node.name, "py", "stay", [], link=True, monitor=True)
        me.send(child, "go")
        assert await me.receive(timeout=30) == (EXIT, child, Atom("normal"))
        assert await me.receive(timeout=30) == (DOWN, ref, PROCESS, child, Atom("normal"))
        with pytest.raises(SpawnError) as raised:
            await me.spawn_remote(node.name, "py", "stay", [], options=[Atom("x")])
        assert (raised.value.peer, raised.value.function) == (node.name.name, "py:stay")
        assert raised.value.reason == Atom("badopt")
        silent = me.spawn_request(node.name, "py", "stay", [], options=[Atom("x")], reply=False)
        assert len(me.mailbox) == 0, silent
