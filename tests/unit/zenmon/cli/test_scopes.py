"""``syn members|lookup|watch`` and ``run --scope`` against Python nodes in a scope."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
import trio

from erlang_interop import Atom, EpmdAddress, Node, open_node
from tests.unit.zenmon.cli.conftest import COOKIE
from zenmon_node import Scope, open_scope
from zenmon_node.cli import ExitStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from erlang_interop import Process
    from tests.command import Command

ALICE, ROOM = Atom("alice"), (Atom("room"), 1)


async def wait(process: Process) -> None:
    await trio.sleep_forever()


@pytest.fixture
async def users(peer: Node) -> AsyncIterator[Scope]:
    async with open_scope(peer, "users") as scope:
        yield scope


@pytest.fixture
async def second(peer: Node, users: Scope, epmd_port: int) -> AsyncIterator[Scope]:
    """The scope on another node, which knows the peer's."""
    epmd = EpmdAddress(port=epmd_port)
    async with (
        open_node(f"second{os.getpid()}@127.0.0.1", cookie=COOKIE, epmd=epmd) as node,
        open_scope(node, "users", discover_interval=0.05) as scope,
    ):
        await node.connect(peer.name)
        await until_known(users, node.name)
        yield scope


async def until_known(scope: Scope, node: Atom) -> None:
    with trio.fail_after(45):
        while node not in scope.subcluster_nodes("registry") or node not in scope.subcluster_nodes("pg"):  # noqa: ASYNC110 - no event tells
            await trio.sleep(0.01)


async def test_lookup_finds_names_of_all_nodes(command: Command, peer: Node, users: Scope, second: Scope) -> None:
    here, there = peer.spawn(wait), second.node.spawn(wait)
    await users.register(ALICE, here, {Atom("since"): 2024})
    await second.register(b"bob", there)
    done = await command("syn", "lookup", "users", "alice", "--connect", peer.name.name)
    assert (done.status, done.out, done.err) == (ExitStatus.DONE, f"{here} #{{since => 2024}}\n", "")
    done = await command("syn", "lookup", "users", '<<"bob">>', "--connect", peer.name.name, "--json")
    assert (done.status, done.err) == (ExitStatus.DONE, "")
    assert json.loads(done.out) == {"pid": str(there), "meta": "undefined"}


async def test_members_are_listed_one_a_line(command: Command, peer: Node, users: Scope, second: Scope) -> None:
    pids = [peer.spawn(wait), second.node.spawn(wait)]
    for scope, pid, meta in zip((users, second), pids, (1, 2.5), strict=True):
        await scope.join(ROOM, pid, meta)
    done = await command("syn", "members", "users", "{room, 1}", "--connect", peer.name.name)
    assert (done.status, done.err) == (ExitStatus.DONE, "")
    assert sorted(done.out.splitlines()) == sorted([f"{pids[0]} 1", f"{pids[1]} 2.5"])
    done = await command("syn", "members", "users", "{room, 1}", "--connect", second.node.name.name, "--json")
    found = [json.loads(line) for line in done.out.splitlines()]
    assert sorted(found, key=str) == sorted(
        ({"pid": str(pid), "meta": meta} for pid, meta in zip(pids, (1, 2.5), strict=True)), key=str
    )


async def test_a_name_may_be_a_pid(command: Command, peer: Node, users: Scope) -> None:
    """As it is printed: the text of a pid does not say which life of its node it is of."""
    pid = peer.spawn(wait)
    await users.register(pid, pid)
    done = await command("syn", "lookup", "users", str(pid), "--connect", peer.name.name)
    assert (done.status, done.out) == (ExitStatus.DONE, f"{pid} undefined\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lookup", "users", "alice"], "no process of the scope users is registered as alice"),
        (["members", "users", "{room, 2}"], "no process of the scope users is in the group {room,2}"),
        (["lookup", "guests", "alice"], "is not in the scope guests: is the scope's name right, and was it added"),
        (["watch", "guests"], "is not in the scope guests"),
    ],
)
async def test_what_is_not_there(command: Command, peer: Node, users: Scope, words: list[str], message: str) -> None:
    done = await command("syn", *words, "--connect", peer.name.name)
    assert (done.status, done.out) == (ExitStatus.REFUSED, "")
    assert message in done.err
    assert done.err.count("\n") == 1


async def test_a_node_that_cannot_be_reached(command: Command, users: Scope) -> None:
    done = await command("syn", "lookup", "users", "alice", "--connect", "nobody@127.0.0.1")
    assert (done.status, done.out) == (ExitStatus.REFUSED, "")
    assert "knows no node 'nobody'" in done.err


async def test_watch_tells_what_is_there_and_what_happens(command: Command, peer: Node, users: Scope) -> None:
    pid = peer.spawn(wait)
    await users.register(ALICE, pid)
    async with command.started("syn", "watch", "users", "--connect", peer.name.name) as running:
        node_up = f"{{syn_remote_scope_node_up,users,{name_of(peer)}}}"
        line = await running.out.until(" registered ")
        assert line.endswith(f"Z registered alice {pid} undefined {node_up}")
        assert await running.err.until("watching") == f"watching users on {peer.name.name}; the interrupt key ends it"
        await users.update_registry(ALICE, lambda pid, meta: [1])
        assert (await running.out.until(" registry_updated ")).endswith(f" alice {pid} undefined -> [1] normal")
        await users.join(ROOM, pid, b"x")
        assert (await running.out.until(" joined ")).endswith(f' joined {{room,1}} {pid} <<"x">> normal')
        await users.join(ROOM, pid, b"y")
        assert (await running.out.until(" group_updated ")).endswith(f' {{room,1}} {pid} <<"x">> -> <<"y">> normal')
        await users.leave(ROOM, pid)
        assert (await running.out.until(" left ")).endswith(f' left {{room,1}} {pid} <<"y">> normal')
        peer.exit(pid, Atom("kill"))
        assert (await running.out.until(" unregistered ")).endswith(f" unregistered alice {pid} [1] killed")
        done = await running.signal(signal.SIGINT)
    assert (done.status, done.err) == (ExitStatus.INTERRUPTED, "")


async def test_watch_finds_members_that_come_later(command: Command, peer: Node, users: Scope, epmd_port: int) -> None:
    """Nobody connects a hidden node to them: the command looks for them again and again."""
    async with command.started("syn", "watch", "users", "--connect", peer.name.name, "--json") as running:
        await running.err.until("watching")
        late = f"late{os.getpid()}@127.0.0.1"
        async with (
            open_node(late, cookie=COOKIE, epmd=EpmdAddress(port=epmd_port)) as node,
            open_scope(node, "users") as scope,
        ):
            pid = node.spawn(wait)
            await scope.join(ROOM, pid)
            await node.connect(peer.name)
            event: dict[str, Any] = json.loads(await running.out.until('"event": "joined"'))
            assert event.pop("time").endswith("Z")
            reason = event.pop("reason")
            assert event == {"event": "joined", "group": ["room", 1], "pid": str(pid), "meta": "undefined"}
            assert reason == f"{{syn_remote_scope_node_up,users,{name_of(node)}}}"
        lost = json.loads(await running.out.until('"event": "left"'))
        assert lost["pid"] == str(pid)
        done = await running.signal(signal.SIGTERM)
    assert done.status == ExitStatus.TERMINATED


def name_of(node: Node) -> str:
    return f"'{node.name.name}'"


async def test_run_joins_scopes(command: Command, peer: Node, users: Scope, epmd_port: int) -> None:
    async with open_scope(peer, "guests") as guests:
        name = f"runs{os.getpid()}@127.0.0.1"
        words = ["run", "--name", name, "--connect", peer.name.name, "--scope", "users", "--scope", "guests"]
        async with command.started(*words) as running:
            await running.err.until("running")
            for scope in (users, guests):
                await until_known(scope, Atom(name))
            done = await running.signal(signal.SIGTERM)
    assert done.status == ExitStatus.DONE
