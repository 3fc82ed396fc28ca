"""What every node answers about itself: what tools of Erlang's ask of any node they see, as if all were OTPs.

To most of what such a tool asks for the answer is ``undef``; it says so and goes on. Answered is here what is asked by
tools that an ``undef`` harms. In a shell of a BEAM that has a visible node of this kind among its ``nodes()``, ``ni()``
and ``nregs()`` fail for all nodes; ``erl -remsh`` ends as a terminal that does not react; ``observer`` disconnects the
node that it cannot show. ``docs/remote-tools.md`` says what each tool shows.

.. code-block:: text

    erlang:node/0 nodes/0,1 processes/0 registered/0 whereis/1 is_process_alive/1      as on a BEAM
    erlang:process_info/1,2                 of the items of a BEAM those that there are here
    erlang:function_exported/3              false: of modules of Erlang's, which are not here
    erlang:system_info/1                    what is asked for an OTP's version says that this is none; the rest: badarg
    application:which_applications/0        []
    appmon_info:start_link2/3               {ok, Pid} of what has ended by then: there are no applications to watch
    code:ensure_loaded/1                    {error, nofile}: no module of Erlang's is here
    net_kernel:get_net_ticktime/0           as on a BEAM, in whole seconds
    observer_backend:get_table_list/2       []
    observer_backend:sys_info/0             as much as observer needs to show anything
    shell:start/0                           a process that prints that there is no shell, and ends

All of it reads tables of the node and changes nothing. No process is asked: no message and no state is among it.

Source: stdlib/src/c.erl (ni/0, nregs/0), kernel/src/user_drv.erl (init_remote_shell/3), kernel/src/group.erl,
observer/src/observer_sys_wx.erl.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from ..runtime.atoms import ERLANG, ERROR, OK, UNDEFINED
from ..runtime.process import Process
from ..terms import Atom, Pid, charlist
from .applying import BadArg, is_atom
from .io_server import IO_REQUEST, PUT_CHARS, UNICODE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..runtime.local_process import LocalProcess
    from ..runtime.node import Node
    from ..terms import Term

#: In place of a version.
NONE: Final = charlist("none")
NOT_OTP: Final = charlist("zenmon-node, not OTP")
_ONGOING_CHANGE_TO: Final = Atom("ongoing_change_to")
_ALL: Final = object()
_REGISTERED_NAME: Final = Atom("registered_name")
#: What a list of items has of a process without a name; alone it is ``[]``, and where all items are asked for, nothing.
_NAMELESS: Final[tuple[Atom, list[Any]]] = (_REGISTERED_NAME, [])
_VISIBLE: Final = Atom("visible")


class Introspection:
    """The answers of one node; each method is the function of its name."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def expose(self) -> None:
        """Let other nodes ask."""
        names = ["nodes", "processes", "registered", "whereis", "is_process_alive", "process_info", "system_info"]
        functions: dict[str, Callable[..., object]] = {name: getattr(self, name) for name in names}
        functions["node"] = lambda: self._node.name
        functions["function_exported"] = lambda _module, _function, _arity: False
        self._node.expose(ERLANG, functions)
        self._node.expose("application", {"which_applications": lambda _timeout=None: []})
        self._node.expose("appmon_info", {"start_link2": watch_applications}, with_process=True)
        self._node.expose("code", {"ensure_loaded": lambda _module: (ERROR, Atom("nofile"))})
        self._node.expose("net_kernel", {"get_net_ticktime": self.get_net_ticktime})
        self._node.expose("observer_backend", {"sys_info": self.sys_info, "get_table_list": lambda _type, _options: []})
        self._node.expose("shell", {"start": start_shell}, with_process=True)

    def nodes(self, kinds: Term = _VISIBLE) -> list[Atom]:
        """``erlang:nodes/0,1``: ``kinds`` is one, or a list of them."""
        found: dict[Atom, None] = {}
        for kind in kinds if type(kinds) is list else [kinds]:
            found |= dict.fromkeys(self._nodes_of(kind))
        return list(found)

    def _nodes_of(self, kind: Term) -> list[Atom]:
        match kind:
            case Atom("this"):
                return [self._node.name]
            case Atom("known"):
                return [self._node.name, *self._node.nodes("known")]
            case Atom("visible" | "hidden" | "connected" as name):
                return self._node.nodes(name)
        raise BadArg

    def processes(self) -> list[Pid]:
        """``erlang:processes/0``."""
        return list(self._node.processes)

    def registered(self) -> list[Atom]:
        """``erlang:registered/0``."""
        return self._node.registered()

    def whereis(self, name: Term) -> Term:
        """``erlang:whereis/1``."""
        if not is_atom(name):
            raise BadArg
        return (type(name) is Atom and self._node.whereis(name)) or UNDEFINED

    def is_process_alive(self, pid: Term) -> bool:
        """``erlang:is_process_alive/1``, of processes of this node."""
        return self._own(pid) in self._node.processes

    def process_info(self, pid: Term, items: Term = _ALL) -> Term:
        """``erlang:process_info/1,2``, without those items that say what its code does and what it costs.

        Args:
            items: One, or a list of them, of which those are left out that are not here.
        """
        process = self._node.processes.get(self._own(pid))
        if process is None:
            return UNDEFINED
        info = _info_of(process)
        if items is _ALL:
            return [item for item in info.items() if item != _NAMELESS]
        if type(items) is list:
            return [(item, info[item]) for item in items if type(item) is Atom and item in info]
        if type(items) is not Atom or items not in info:
            raise BadArg
        return [] if (items, info[items]) == _NAMELESS else (items, info[items])

    def _own(self, pid: Term) -> Pid:
        if type(pid) is not Pid or pid.node != self._node.name:
            raise BadArg
        return pid

    def system_info(self, item: Term) -> Term:
        """``erlang:system_info/1``."""
        answers = {
            "otp_release": NONE,
            "version": NONE,
            "system_version": NOT_OTP,
            "machine": charlist("Python"),
            "process_count": len(self._node.processes),
        }
        if type(item) is not Atom or item.name not in answers:
            raise BadArg
        return answers[item.name]

    def get_net_ticktime(self) -> Term:
        """``net_kernel:get_net_ticktime/0``."""
        match self._node.get_net_ticktime():
            case (_, seconds):
                return _ONGOING_CHANGE_TO, math.ceil(seconds)
            case seconds:
                return math.ceil(seconds)

    def sys_info(self) -> list[Term]:
        """``observer_backend:sys_info/0``."""
        return _listed(
            {
                "otp_release": NOT_OTP,
                "version": NONE,
                "process_count": len(self._node.processes),
                "alloc_info": [(Atom("system_alloc"), False)],
            }
        )


def _info_of(process: LocalProcess) -> dict[Atom, Any]:
    """What there is of ``process_info/1``."""
    info: dict[Atom, Any] = {
        _REGISTERED_NAME: next(iter(process.names), []),
        Atom("links"): list(process.links),
        Atom("trap_exit"): process.trap_exit,
    }
    if process.group_leader is not None:
        info[Atom("group_leader")] = process.group_leader
    if isinstance(process, Process):
        info[Atom("message_queue_len")] = len(process.mailbox)
    return info


def watch_applications(process: Process, _starter: Term, _client: Term, _options: Term) -> tuple[Atom, Pid]:
    """``appmon_info:start_link2/3``: whoever it says has started, ends with this call."""
    return OK, process.pid


def start_shell(process: Process) -> Pid:
    """``shell:start/0``, which the terminal of ``erl -remsh`` of OTP 25 calls by rpc: the pid of the shell."""
    return process.node.spawn(_no_shell, process.group_leader)


async def _no_shell(process: Process, terminal: Pid | None) -> None:
    """Print why there is none; the terminal ends with this process, so the text is to be there before."""
    if terminal is None:
        return
    text = f"{process.node.name.name} is a node in Python, not Erlang/OTP: it has no shell\n"
    ref = process.monitor(terminal)
    process.send(terminal, (IO_REQUEST, process.pid, ref, (PUT_CHARS, UNICODE, text)))
    await process.receive(lambda message: type(message) is tuple and message[1:2] == (ref,))  # the reply, or its DOWN


def _listed(items: Mapping[str, Term]) -> list[Term]:
    return [(Atom(name), value) for name, value in items.items()]
