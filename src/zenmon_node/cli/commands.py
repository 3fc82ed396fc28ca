"""What the commands do, apart from reading their command line and reporting their failures."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Final

import trio

from erlang_interop import Atom, BadRpc, CallTimeout, EpmdAddress
from erlang_interop.etf.text import format_term
from erlang_interop.runtime.epmd import default_port
from erlang_interop.runtime.epmd import names as epmd_names

from .failures import ExitStatus, Refusal
from .joining import joined
from .jsonable import jsonable
from .targets import parse_argument, parse_node, parse_target, present

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .joining import Joining
    from .targets import Target

_NOPROC: Final = Atom("noproc")


async def ping(node_name: str, joining: Joining) -> ExitStatus:
    """Print ``pong``, or raise what keeps it from answering."""
    peer = parse_node(node_name)
    async with joined(joining, [peer]) as node:
        if not await node.ping(peer, timeout=joining.timeout):
            raise Refusal(
                f"pang: {peer} is connected, but its net_kernel did not answer within {joining.timeout} s: "
                f"is the node suspended or overloaded?"
            )
    print("pong")
    return ExitStatus.DONE


async def names(host: str) -> ExitStatus:
    """Print the nodes that an EPMD knows, as ``epmd -names`` does."""
    for entry in await epmd_names(EpmdAddress(host, default_port())):
        print(f"name {entry.name} at port {entry.port}")
    return ExitStatus.DONE


async def nodes(node_name: str, joining: Joining) -> ExitStatus:
    """Print the nodes that a node is connected to, this one left out."""
    peer = parse_node(node_name)
    async with joined(joining, [peer]) as node:
        for kind in ("visible", "hidden"):
            found = await node.rpc(peer, "erlang", "nodes", [Atom(kind)], timeout=joining.timeout)
            for other in sorted(each.name for each in found if each != node.name):
                print(f"{other} {kind}")
    return ExitStatus.DONE


async def call(
    node_name: str, module: str, function: str, args: Sequence[str], joining: Joining, *, as_json: bool
) -> ExitStatus:
    """Print what a function of a node returns."""
    peer = parse_node(node_name)
    arguments = [parse_argument(arg) for arg in args]
    async with joined(joining, [peer], output=_to_stderr) as node:
        try:
            result = await node.rpc(
                peer, module, function, [present(each, node) for each in arguments], timeout=joining.timeout
            )
        except BadRpc as error:
            raise Refusal(_badrpc(error, peer, f"{module}:{function}/{len(arguments)}")) from error
        except CallTimeout as error:
            raise Refusal(
                f"{module}:{function}/{len(arguments)} did not return within {joining.timeout} s on {peer}; "
                f"--timeout allows more"
            ) from error
    print(json.dumps(jsonable(result), ensure_ascii=False) if as_json else format_term(result))
    return ExitStatus.DONE


def _to_stderr(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def _badrpc(error: BadRpc, peer: str, called: str) -> str:
    match error.reason:
        case (Atom("EXIT"), (Atom("undef"), _)):
            return (
                f"{peer} has no function {called}: are module, name and number of arguments right, and is it exported?"
            )
        case (Atom("EXIT"), (reason, list())):
            return f"{called} failed on {peer}: {format_term(reason)}"
        case reason:
            return f"{called} failed on {peer}: {format_term(reason)}"


async def send(target_text: str, message_text: str, joining: Joining) -> ExitStatus:
    """Send one message, and see that there was somebody to send it to.

    Erlang's own ``!`` never fails. Here a monitor goes ahead of the message on the same connection, and a question that
    every node answers follows it: if nobody is there, ``noproc`` comes before the answer.
    """
    target = parse_target(target_text)
    message = parse_argument(message_text)
    async with joined(joining, [target.node]) as node, node.open_process() as process:
        dest = target.on(node)
        ref = process.monitor(dest)
        await process.send(dest, present(message, node))
        if not await node.ping(target.node, timeout=joining.timeout):
            raise Refusal(f"{target.node} did not confirm the message within {joining.timeout} s: is it suspended?")
        try:
            down = process.receive_nowait()
        except trio.WouldBlock:
            return ExitStatus.DONE
        if down[1] == ref and down[4] == _NOPROC:
            raise Refusal(_nobody(target))
    return ExitStatus.DONE


def _nobody(target: Target) -> str:
    if target.name is None:
        return f"{target.text} is no living process (any more)"
    return f"no process is registered as {target.name!r} on {target.node}: is the name right, and has it been started?"
