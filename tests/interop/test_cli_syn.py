"""``zenmon-node syn`` and ``run --scope`` with a scope of a BEAM."""

from __future__ import annotations

import json
import os
import secrets
import signal
from typing import TYPE_CHECKING, Any

import pytest

from zenmon_node.cli import ExitStatus

if TYPE_CHECKING:
    from erlang_interop import Pid
    from erlang_interop.testing.beam import Beam
    from tests.command import Command

LIMIT_MS = 20_000


@pytest.fixture
async def scope(beam: Beam) -> str:
    """A scope on the BEAM that no other test has."""
    name = f"cli_{secrets.token_hex(4)}"
    await beam.eval(f"fixture_syn_driver:start(), fixture_syn_driver:add_scope({name}).")
    return name


async def spawn(beam: Beam) -> Pid:
    pid: Pid = await beam.eval("plain_processes:spawn_waiting().")
    return pid


def printed(pid: Pid, beam: Beam) -> str:
    return f"<{beam.name}.{pid.id}.{pid.serial}>"


async def test_lookup_and_members(command: Command, beam: Beam, scope: str) -> None:
    pid = await spawn(beam)
    assert await beam.eval(f"fixture_syn:register({scope}, {{user, 1}}, P, #{{since => 2024}}).", P=pid) is not None
    await beam.eval(f'fixture_syn:join({scope}, <<"room">>, P, [1, 2.5]).', P=pid)
    done = await command("syn", "lookup", scope, "{user, 1}", "--connect", beam.name)
    assert (done.status, done.out, done.err) == (ExitStatus.DONE, f"{printed(pid, beam)} #{{since => 2024}}\n", "")
    done = await command("syn", "members", scope, '<<"room">>', "--connect", beam.name, "--json")
    assert (done.status, done.err) == (ExitStatus.DONE, "")
    assert json.loads(done.out) == {"pid": printed(pid, beam), "meta": [1, 2.5]}
    done = await command("syn", "lookup", scope, "{user, 2}", "--connect", beam.name)
    assert (done.status, done.out) == (ExitStatus.REFUSED, "")
    assert f"no process of the scope {scope} is registered as {{user,2}}" in done.err
    done = await command("syn", "lookup", f"{scope}_not", "{user, 1}", "--connect", beam.name)
    assert (done.status, done.out) == (ExitStatus.REFUSED, "")
    assert f"{beam.name} is not in the scope {scope}_not" in done.err


async def test_watch(command: Command, beam: Beam, scope: str) -> None:
    pid = await spawn(beam)
    await beam.eval(f"fixture_syn:join({scope}, room, P).", P=pid)
    async with command.started("syn", "watch", scope, "--connect", beam.name, "--json") as running:

        async def next_event(name: str) -> dict[str, Any]:
            found: dict[str, Any] = json.loads(await running.out.until(f'"event": "{name}"'))
            assert found.pop("pid") == printed(pid, beam)
            del found["time"], found["event"]
            return found

        up = f"{{syn_remote_scope_node_up,{scope},'{beam.name}'}}"
        assert await next_event("joined") == {"group": "room", "meta": "undefined", "reason": up}
        await beam.eval(f"fixture_syn:register({scope}, alice, P, 1).", P=pid)
        assert await next_event("registered") == {"name": "alice", "meta": 1, "reason": "normal"}
        await beam.eval(f"fixture_syn:register({scope}, alice, P, 1.0).", P=pid)
        assert await next_event("registry_updated") == {
            "name": "alice",
            "previous": 1,
            "meta": 1.0,
            "reason": "normal",
        }
        await beam.eval(f"fixture_syn:leave({scope}, room, P).", P=pid)
        assert await next_event("left") == {"group": "room", "meta": "undefined", "reason": "normal"}
        await beam.eval("exit(P, because).", P=pid)
        assert await next_event("unregistered") == {"name": "alice", "meta": 1.0, "reason": "because"}
        done = await running.signal(signal.SIGINT)
    assert done.status == ExitStatus.INTERRUPTED


async def test_run_is_a_member(command: Command, beam: Beam, scope: str) -> None:
    name = f"{scope}_{os.getpid()}@127.0.0.1"
    async with command.started("run", "--name", name, "--connect", beam.name, "--scope", scope) as running:
        await running.err.until("running")
        for half in ("registry", "pg"):
            joined = f"lists:member('{name}', fixture_syn:subcluster_nodes({half}, {scope}))"
            assert await beam.eval(f"polling:until(fun() -> {joined} end, {LIMIT_MS}).") is True
        done = await running.signal(signal.SIGTERM)
    assert done.status == ExitStatus.DONE
    left = f"not lists:member('{name}', fixture_syn:subcluster_nodes(registry, {scope}))"
    assert await beam.eval(f"polling:until(fun() -> {left} end, {LIMIT_MS}).") is True
