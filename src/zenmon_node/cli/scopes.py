"""``zenmon-node syn``: look into a scope of syn, and follow what happens in it.

The command is itself a member of the scope for the moment it takes, as a hidden node. A member knows the processes of
those members that it is connected to, so it asks the nodes given who else is one, and connects to all of them.
"""

from __future__ import annotations

import json
import signal
import sys
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final, Literal

import trio

from erlang_interop import Atom, CallTimeout, ConnectError, NoProcess
from erlang_interop.etf.text import format_term

from ..syn.api import open_scope
from ..syn.handler import EventHandler
from .failures import ExitStatus, Refusal, UsageError
from .joining import joined
from .jsonable import jsonable
from .reports import Lines, timestamp
from .targets import parse_argument, parse_node, present

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from typing import TypeAlias

    from erlang_interop import Node, Pid, Term

    from ..syn.api import Scope
    from .joining import Joining

    Half: TypeAlias = Literal["registry", "pg"]

#: Seconds between two looks whether there are members that we do not know, or that were lost.
LOOK_AGAIN: Final = 5.0

_SUBCLUSTER_NODES: Final = (Atom("3.0"), Atom("subcluster_nodes"))
_STATUS: Final = {signal.SIGINT: ExitStatus.INTERRUPTED, signal.SIGTERM: ExitStatus.TERMINATED}


async def lookup(scope: str, name: str, peers: Sequence[str], joining: Joining, *, as_json: bool) -> ExitStatus:
    """Print who has a name, and its metadata."""
    wanted = parse_argument(name)
    async with _in_scope(scope, "registry", peers, joining) as (node, member):
        found = member.lookup(present(wanted, node))
        if found is None:
            raise Refusal(f"no process of the scope {scope} is registered as {format_term(wanted)}")
        print(_shown(*found, as_json=as_json))
    return ExitStatus.DONE


async def members(scope: str, group: str, peers: Sequence[str], joining: Joining, *, as_json: bool) -> ExitStatus:
    """Print the members of a group with their metadata, one a line."""
    wanted = parse_argument(group)
    async with _in_scope(scope, "pg", peers, joining) as (node, member):
        found = member.members(present(wanted, node))
        if not found:
            raise Refusal(f"no process of the scope {scope} is in the group {format_term(wanted)}")
        for pid, meta in found:
            print(_shown(pid, meta, as_json=as_json))
    return ExitStatus.DONE


def _shown(pid: Pid, meta: Term, *, as_json: bool) -> str:
    if as_json:
        return json.dumps({"pid": format_term(pid), "meta": jsonable(meta)}, ensure_ascii=False)
    return f"{format_term(pid)} {format_term(meta)}"


async def watch(scope: str, peers: Sequence[str], joining: Joining, *, as_json: bool) -> ExitStatus:
    """Print each event of a scope, from those of what is there already on, until a signal."""
    report = _Report(as_json=as_json)
    status = ExitStatus.DONE
    with trio.open_signal_receiver(*_STATUS) as signals:
        async with trio.open_nursery() as nursery:

            async def heed() -> None:
                nonlocal status
                status = _STATUS[signal.Signals(await anext(signals))]
                nursery.cancel_scope.cancel()

            nursery.start_soon(heed)
            async with _in_scope(scope, "registry", peers, joining, report) as (node, member):
                known = sorted(each.name for each in member.subcluster_nodes("registry"))
                print(f"watching {scope} on {', '.join(known)}; the interrupt key ends it", file=sys.stderr, flush=True)
                nursery.start_soon(_look_for_more, node, member, peers)
                await report.write_all()
    return status


# ----------------------------------------------------------------------------------------------------- being a member
@asynccontextmanager
async def _in_scope(
    scope: str, half: Half, peers: Sequence[str], joining: Joining, handler: EventHandler | None = None
) -> AsyncIterator[tuple[Node, Scope]]:
    """Be a member of a scope, with the entries of all others. Those that cannot be reached are logged.

    Raises:
        UsageError: there are no ``peers``.
        Refusal: a node of ``peers`` is in no such scope, or does not answer in time.
        CallTimeout: a member does not tell in time what it has: what would be shown is not all there is.
        ConnectError: one of ``peers`` cannot be reached.
    """
    peers = [parse_node(peer) for peer in peers]
    if not peers:
        raise UsageError("which node is to be asked? --connect says it, as in --connect beam@127.0.0.1")
    async with joined(joining, peers) as node:
        for peer in peers:
            await _require_scope(node, peer, scope, half, joining.timeout)
        async with open_scope(node, scope, handler=handler) as member:
            await member.connect_members(timeout=joining.timeout)
            await member.wait_synced(timeout=joining.timeout)
            yield node, member


async def _require_scope(node: Node, peer: str, scope: str, half: Half, timeout: float) -> None:
    """Raises Refusal: the node ``peer`` is in no such scope, or does not answer."""
    try:
        await node.call((Atom(f"syn_{half}_{scope}"), Atom(peer)), _SUBCLUSTER_NODES, timeout)
    except NoProcess as error:
        raise Refusal(
            f"{peer} is not in the scope {scope}: is the scope's name right, and was it added there "
            f"(syn:add_node_to_scopes([{format_term(Atom(scope))}]), or run --scope {scope})?"
        ) from error
    except CallTimeout as error:
        raise Refusal(
            f"the scope {scope} on {peer} did not answer within {timeout} s; --timeout allows more"
        ) from error


async def _look_for_more(node: Node, member: Scope, peers: Sequence[str]) -> None:
    """Connect again to the nodes that were given, and to members that have come since."""
    while True:
        await trio.sleep(LOOK_AGAIN)
        for peer in peers:
            if not node.is_connected(peer):
                with suppress(ConnectError):  # the next look may find it
                    await node.connect(peer)
        await member.connect_members()


# ------------------------------------------------------------------------------------------------------------- events
class _Report(EventHandler):
    """Turns events into lines, and writes these.

    Args:
        as_json: JSON objects instead of words.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._lines = Lines()
        self._news = trio.Event()

    def on_process_registered(self, scope: Atom, name: Term, pid: Pid, meta: Term, reason: Term) -> None:
        """A line."""
        self._add("registered", "name", name, pid, reason, meta=meta)

    def on_registry_process_updated_from(
        self, scope: Atom, name: Term, pid: Pid, previous: Term, meta: Term, reason: Term
    ) -> None:
        """A line."""
        self._add("registry_updated", "name", name, pid, reason, previous=previous, meta=meta)

    def on_process_unregistered(self, scope: Atom, name: Term, pid: Pid, meta: Term, reason: Term) -> None:
        """A line."""
        self._add("unregistered", "name", name, pid, reason, meta=meta)

    def on_process_joined(self, scope: Atom, group: Term, pid: Pid, meta: Term, reason: Term) -> None:
        """A line."""
        self._add("joined", "group", group, pid, reason, meta=meta)

    def on_group_process_updated_from(
        self, scope: Atom, group: Term, pid: Pid, previous: Term, meta: Term, reason: Term
    ) -> None:
        """A line."""
        self._add("group_updated", "group", group, pid, reason, previous=previous, meta=meta)

    def on_process_left(self, scope: Atom, group: Term, pid: Pid, meta: Term, reason: Term) -> None:
        """A line."""
        self._add("left", "group", group, pid, reason, meta=meta)

    def _add(self, event: str, kind: str, key: Term, pid: Pid, reason: Term, **metadata: Term) -> None:
        if self._as_json:
            terms = {kind: jsonable(key), "pid": format_term(pid)} | {of: jsonable(m) for of, m in metadata.items()}
            line = {"time": timestamp(), "event": event, **terms, "reason": format_term(reason)}
            self._lines.add(json.dumps(line, ensure_ascii=False))
        else:
            of = " -> ".join(map(format_term, metadata.values()))
            self._lines.add(f"{timestamp()} {event} {format_term(key)} {format_term(pid)} {of} {format_term(reason)}")
        self._news.set()

    async def write_all(self) -> None:
        """Write what there is, and what comes, until cancelled."""
        while True:
            await self._news.wait()
            self._news = trio.Event()
            await self._lines.write()
