"""Processes started by request: by peers on this node, and by processes of this node on peers.

A peer may start what ``expose`` named and nothing else; ``otp/rex.py`` finds here what may be called. As on a BEAM the
answer to a request for anything else is a process that ends at once, as ``undef``: so who asked learns of it in the way
asked for, by link or monitor.

Links and monitors that a request asks for are there before it is answered, and the answer goes out before any exit
signal or DOWN. What the requester has to do for its part waits in a :class:`SpawnRequest` until the answer comes.

Source: ``erlang:spawn_request/5``; erl_dist_protocol, "Spawn Request"; ``erts_net_message()`` and
``erts_parse_spawn_opts()``; ``handle_dist_spawn_reply()`` of ``erl_proc_sig_queue.c``.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import trio

from ..errors import BadName, RemoteProtocolError
from ..terms import Atom, ErlMap, Pid, Reference
from ..wire.control import SPAWN_LINK, SPAWN_MONITOR, Op, describe, packer
from ..wire.unlink import Link
from .aliases import ALIAS_MODES
from .atoms import (
    ABANDONED,
    ALIAS,
    APPLY,
    BADARG,
    BADOPT,
    DOWN,
    ERLANG,
    ERROR,
    LINK,
    MONITOR,
    NOTSUP,
    OK,
    PRIORITY,
    SYSTEM_LIMIT,
    TAG,
    UNDEF,
)
from .tracing import as_token, next_token, received

if TYPE_CHECKING:
    from ..terms import Term
    from .node import Node
    from .peer import Peer
    from .process import LocalProcess, Process
    from .signals import Router

log = logging.getLogger("erlang_interop.process")

_demonitor_p: Final = packer(Op.DEMONITOR_P)
_payload_exit: Final = packer(Op.PAYLOAD_EXIT)
_spawn_reply: Final = packer(Op.SPAWN_REPLY)
_spawn_reply_tt: Final = packer(Op.SPAWN_REPLY_TT)
_spawn_request: Final = packer(Op.SPAWN_REQUEST)
_spawn_request_tt: Final = packer(Op.SPAWN_REQUEST_TT)

#: Which answers the process that asked is told of, for each value of ``reply``: (success, error).
REPLIES: Final = {
    True: (True, True),
    False: (False, False),
    "yes": (True, True),
    "no": (False, False),
    "error_only": (False, True),
    "success_only": (True, False),
}
#: Options with one of a few atoms, with an integer from 0, and the words a BEAM has on the heap for a process at least.
_CHOICES: Final[dict[Atom, frozenset[Any]]] = {
    Atom("priority"): frozenset(map(Atom, ("low", "normal", "high", "max"))),
    Atom("message_queue_data"): frozenset(map(Atom, ("on_heap", "off_heap"))),
    Atom("async_dist"): frozenset((True, False)),
}
_SIZES: Final = frozenset(map(Atom, ("min_heap_size", "min_bin_vheap_size", "fullsweep_after", "scheduler")))
_MAX_HEAP_SIZE: Final = Atom("max_heap_size")
_MIN_HEAP_SIZE: Final = Atom("min_heap_size")
_LEAST_HEAP: Final = 233
_SMALL: Final = 1 << 59


class SpawnOptions:
    """What a list of spawn options asks for, as far as it matters beyond a BEAM's memory and schedulers."""

    __slots__ = ("alias", "link", "link_priority", "monitor", "monitor_priority", "tag")

    def __init__(self) -> None:
        self.link = self.monitor = False
        self.link_priority = self.monitor_priority = False
        self.alias: str | None = None
        self.tag: Term = DOWN

    @classmethod
    def parse(cls, options: Any) -> SpawnOptions | None:
        """None if an option is unknown or malformed, or ``options`` is no list: that is ``badopt``."""
        if type(options) is not list:
            return None
        parsed = cls()
        sizes: dict[Atom, int] = {}
        for option in options:
            if option == LINK:
                parsed.link, parsed.link_priority = True, False
            elif option == MONITOR:
                parsed.monitor, parsed.alias, parsed.tag, parsed.monitor_priority = True, None, DOWN, False
            elif type(option) is not tuple or len(option) != 2 or type(option[0]) is not Atom:
                return None
            elif option[0] == MONITOR:
                if not parsed._monitor_options(option[1]):
                    return None
            elif option[0] == LINK:
                if type(option[1]) is not list or any(word != PRIORITY for word in option[1]):
                    return None
                parsed.link, parsed.link_priority = True, bool(option[1])
            elif option[0] in _CHOICES:
                if not _is_among(option[1], _CHOICES[option[0]]):
                    return None
            else:
                size = _heap_limit(option[1]) if option[0] == _MAX_HEAP_SIZE else option[1]
                if type(size) is not int or not 0 <= size < _SMALL or option[0] not in (*_SIZES, _MAX_HEAP_SIZE):
                    return None
                sizes[option[0]] = size
        limit = sizes.get(_MAX_HEAP_SIZE, 0)
        if limit and limit < max(_LEAST_HEAP, sizes.get(_MIN_HEAP_SIZE, 0)):
            return None
        return parsed

    def _monitor_options(self, options: Any) -> bool:
        """The options of ``monitor/3``. False if there is another among them."""
        if type(options) is not list:
            return False
        self.monitor, self.alias, self.tag, self.monitor_priority = True, None, DOWN, False
        for option in options:
            if option == PRIORITY:
                self.monitor_priority = True
            elif type(option) is not tuple or len(option) != 2:
                return False
            elif option[0] == TAG:
                self.tag = option[1]
            elif option[0] == ALIAS and type(option[1]) is Atom and option[1].name in ALIAS_MODES - {"reply"}:
                self.alias = option[1].name
            else:
                return False
        return True


def _is_among(value: Any, choices: frozenset[Any]) -> bool:
    return type(value) in (Atom, bool) and value in choices


def _heap_limit(value: Any) -> Any:
    """The size in ``{max_heap_size, Size | #{size := Size, ...}}``; None if there is none."""
    if not isinstance(value, (dict, ErlMap)):
        return value
    switches = [value.get(Atom(name), True) for name in ("kill", "error_logger", "include_shared_binaries")]
    return value.get(Atom("size")) if all(type(switch) is bool for switch in switches) else None


class Exposed:
    """A function that peers may call, and start processes with.

    Args:
        fn: Synchronous or not.
        with_process: Whether its first argument is the process it runs as.
        thread: Whether it runs in a thread of its own.
    """

    def __init__(self, fn: Callable[..., object], *, with_process: bool = False, thread: bool = False) -> None:
        self._fn = fn
        self._with_process = with_process
        self._thread = thread
        try:
            self._signature: inspect.Signature | None = inspect.signature(fn)
        except ValueError:  # some built-in functions have none: what they make of their arguments is seen when called
            self._signature = None

    def takes(self, arguments: list[Any]) -> bool:
        """Whether it can be called with so many arguments."""
        if self._signature is None:
            return True
        try:
            self._signature.bind(*([None] if self._with_process else []), *arguments)
        except TypeError:
            return False
        return True

    def start(self, process: Process, arguments: Sequence[object]) -> object:
        """Call it as the code of ``process``: what it returns, which is to be awaited if that can be done."""
        if self._thread:
            return trio.to_thread.run_sync(self._fn, *arguments, abandon_on_cancel=True)
        return self._fn(process, *arguments) if self._with_process else self._fn(*arguments)

    async def __call__(self, process: Process, *arguments: object) -> None:
        """Run it as the code of ``process``."""
        result = self.start(process, arguments)
        if isinstance(result, Awaitable):
            await result


class SpawnRequest:
    """A request under way to another node.

    Attributes:
        process: The process that asked. It may have ended: ``exit_reason`` is then what it ended with.
        abandoned: ``spawn_request_abandon/1``: nothing that comes of it concerns the process any more.
    """

    __slots__ = ("_error", "_router", "_success", "abandoned", "options", "peer", "process", "ref", "tag")

    def __init__(
        self,
        router: Router,
        peer: Peer,
        process: LocalProcess,
        ref: Reference,
        options: SpawnOptions,
        replies: tuple[bool, bool],
        tag: Term,
    ) -> None:
        self._router = router
        self._success, self._error = replies
        self.peer = peer
        self.process = process
        self.ref = ref
        self.options = options
        self.tag = tag
        self.abandoned = False

    def failed(self, reason: Term, token: Any = None) -> None:
        """There will be no process: the answer was an error, or the connection is lost."""
        process = self.process
        if process.spawns is not None:
            process.spawns.pop(self.ref, None)
        if process.alive and self._error and not self.abandoned:
            message = (self.tag, self.ref, ERROR, reason)
            if token is None and not self.options.monitor_priority:
                process.deliver(message)
            else:
                process.deliver_marked(message, token, self.options.monitor_priority)

    def succeeded(self, child: Pid, flags: int, token: Any = None) -> None:
        """``child`` was started there."""
        process, router, peer, options = self.process, self._router, self.peer, self.options
        if process.spawns is not None:
            process.spawns.pop(self.ref, None)
        if not process.alive:
            if flags & SPAWN_MONITOR:
                peer.emit(_demonitor_p(process.pid, child, self.ref))
            if flags & SPAWN_LINK:
                router.emit_reason(peer, _payload_exit(process.pid, child), process.exit_reason)
            return
        if self.abandoned:
            if flags & SPAWN_LINK:
                peer.emit(_payload_exit(process.pid, child), ABANDONED)
            return
        if flags & SPAWN_LINK:
            process.links[child] = Link(options.link_priority)
            peer.links.setdefault(process.pid, set()).add(child)
        if options.monitor:
            process.monitors[self.ref] = child
            process.set_monitor_options(self.ref, options.tag, options.monitor_priority)
            peer.monitors[self.ref] = process.pid
            if options.alias is not None:
                router.aliases.add(process, options.alias, self.ref)
        if self._success:
            message = (self.tag, self.ref, OK, child)
            if token is None:
                process.deliver(message)
            else:
                process.deliver_marked(message, token, False)


class Spawning:
    """Spawn requests of one node, both ways.

    Attributes:
        node: Where processes are started; set by the node itself.
    """

    def __init__(self, router: Router) -> None:
        self._router = router
        self._exposed: dict[tuple[Atom, Atom], Exposed] = {}
        self.node: Node | None = None

    # -- what may be spawned here

    def expose(
        self, module: Atom, functions: Mapping[Atom, Callable[..., object]], *, with_process: bool, thread: bool
    ) -> None:
        """See ``Node.expose``."""
        if with_process and thread:
            raise TypeError(
                "thread=True and with_process=True exclude each other: a process belongs to the node's loop"
            )
        for name, fn in functions.items():
            if not callable(fn):
                raise TypeError(f"{module.name}:{name.name} is to be a function, not {fn!r}")
            if thread and inspect.iscoroutinefunction(fn):
                raise TypeError(f"{module.name}:{name.name} is async, and thread=True is for functions that are not")
        for name, fn in functions.items():
            self._exposed[module, name] = Exposed(fn, with_process=with_process, thread=thread)

    def unexpose(self, module: Atom) -> None:
        """See ``Node.unexpose``."""
        keys = [key for key in self._exposed if key[0] == module]
        if not keys:
            raise BadName(f"nothing is exposed as {module.name!r}")
        for key in keys:
            del self._exposed[key]

    def exposed(self, module: Any, function: Any, arguments: list[Any]) -> Exposed | None:
        """What is exposed under that name and takes so many arguments; otherwise None, and a line in the log.

        Args:
            module: An atom, or what decodes from one.
            function: As well.
        """
        exposed = self._exposed.get((module, function))
        if exposed is not None and exposed.takes(arguments):
            return exposed
        log.warning(
            "%s:%s/%d is not exposed%s, and was not run",
            getattr(module, "name", module),
            getattr(function, "name", function),
            len(arguments),
            "" if exposed is None else " with so many arguments",
        )
        return None

    # -- answering

    def requested(self, peer: Peer, control: tuple[Any, ...], arguments: Any) -> None:
        """``SPAWN_REQUEST`` of a process on ``peer``."""
        _, ref, parent, group_leader, (module, function, _), options, *rest = control
        token = as_token(rest[0]) if rest else None
        if ref.node == self._router.name and ref.creation == self._router.creation:
            raise RemoteProtocolError(
                f"{describe(control)} has a reference of our own",
                peer=peer.name.name,
                rule="dist.c, erts_net_message(): DOP_SPAWN_REQUEST",
            )
        asked = SpawnOptions.parse(options)
        child = None if asked is None else self._new_process()
        if asked is None or child is None:
            error = BADOPT if asked is None else SYSTEM_LIMIT
            if token is None:
                peer.emit(_spawn_reply(ref, parent, 0, error))
            else:  # as if the request and this answer had been messages
                answer = (token[0], token[1], token[2], self._router.name, token[2] - 1)
                peer.emit(_spawn_reply_tt(ref, parent, 0, error, answer))
            return
        child.group_leader = group_leader
        flags = 0
        if asked.link:
            flags |= SPAWN_LINK
            child.links[parent] = Link()
            peer.links.setdefault(child.pid, set()).add(parent)
        if asked.monitor:
            flags |= SPAWN_MONITOR
            self._router.watch(peer, child, ref, parent, child.pid, control)
        if token is None:
            peer.emit(_spawn_reply(ref, parent, flags, child.pid))
        else:
            # The request counts as two messages, the second one the arguments; between them the answer is sent.
            received(child, (*token[:2], token[2] - 1, *token[3:]))
            peer.emit(_spawn_reply_tt(ref, parent, flags, child.pid, next_token(child)))
            child.set_trace_token(token)
            received(child, token)
        self._begin(child, module, function, arguments)

    def _new_process(self) -> Process | None:
        """A process without code yet; None when the node takes no more."""
        return None if self.node is None else self.node.new_process_by_request()

    def _begin(self, process: Process, module: Any, function: Any, arguments: Any) -> None:
        """``apply(Module, Function, Arguments)`` as the code of ``process``."""
        if type(arguments) is not list:
            # Nobody may wait for ever for a process whose arguments another implementation sent in a wrong way.
            self._router.terminate(process, (BADARG, [(ERLANG, APPLY, [module, function, arguments], [])]))
            return
        exposed = self.exposed(module, function, arguments)
        if exposed is None:
            self._router.terminate(process, (UNDEF, [(module, function, arguments, [])]))
            return
        assert self.node is not None
        self.node.begin(process, exposed, tuple(arguments))

    # -- asking

    def request(
        self,
        process: LocalProcess,
        node: Atom,
        module: Atom,
        function: Atom,
        arguments: list[Any],
        options: list[Any],
        replies: tuple[bool, bool],
        tag: Term,
    ) -> Reference:
        """``erlang:spawn_request/5`` by ``process``."""
        router = self._router
        ref = router.make_ref()
        asked = SpawnOptions.parse(options)
        if asked is None:
            if replies[1]:
                process.deliver((tag, ref, ERROR, BADOPT))
            return ref
        if node == router.name:
            self._request_here(process, ref, (module, function, arguments), asked, replies, tag)
            return ref
        peer = router.peer(node)
        request = SpawnRequest(router, peer, process, ref, asked, replies, tag)
        if peer.wire is not None and not peer.can_spawn:
            request.failed(NOTSUP)
            return ref
        # What concerns this side alone is not sent.
        plain = [option for option in options if option not in (LINK, MONITOR) and option[0] not in (LINK, MONITOR)]
        plain += [LINK] * asked.link + [MONITOR] * asked.monitor
        leader = process.group_leader or process.pid  # where nobody does output (no `user`), it is asked itself
        mfa = (module, function, len(arguments))
        token = next_token(process)
        if token is None:
            control = _spawn_request(ref, process.pid, leader, mfa, plain)
        else:
            control = _spawn_request_tt(ref, process.pid, leader, mfa, plain, next_token(process))
        peer.emit(control, arguments)  # raises for arguments that no term can carry: then nothing is waited for
        peer.spawns[ref] = request
        if process.spawns is None:
            process.spawns = {}
        process.spawns[ref] = request
        return ref

    def _request_here(
        self,
        process: LocalProcess,
        ref: Reference,
        mfa: tuple[Atom, Atom, list[Any]],
        asked: SpawnOptions,
        replies: tuple[bool, bool],
        tag: Term,
    ) -> None:
        """The same on this node: what is exposed can be spawned here as well."""
        child = self._new_process()
        if child is None:
            if replies[1]:
                process.deliver((tag, ref, ERROR, SYSTEM_LIMIT))
            return
        child.group_leader = process.group_leader
        if asked.link:
            process.links[child.pid] = Link(asked.link_priority)
            child.links[process.pid] = Link()
        if asked.monitor:
            process.monitors[ref] = child.pid
            process.set_monitor_options(ref, asked.tag, asked.monitor_priority)
            child.watchers.add(ref, process.pid)
            if asked.alias is not None:
                self._router.aliases.add(process, asked.alias, ref)
        if replies[0]:
            process.deliver((tag, ref, OK, child.pid))
        self._begin(child, *mfa)

    def abandon(self, process: LocalProcess, ref: Reference) -> bool:
        """``erlang:spawn_request_abandon/1``: True if the request was ``process``'s and unanswered."""
        request = None if process.spawns is None else process.spawns.get(ref)
        if request is None or request.abandoned:
            return False
        request.abandoned = True
        if not request.options.link:
            # With a link it is still waited for: whoever was started is to be told.
            assert process.spawns is not None
            del process.spawns[ref]
            del request.peer.spawns[ref]
        return True

    def replied(self, peer: Peer, control: tuple[Any, ...]) -> None:
        """``SPAWN_REPLY`` of ``peer``."""
        _, ref, parent, flags, result, *rest = control
        me = self._router.name
        if parent.node != me or ref.node != me or flags >= 1 << 27 or (type(result) is Pid and result.node == me):
            raise RemoteProtocolError(
                f"{describe(control)} is no answer to a spawn request of this node",
                peer=peer.name.name,
                rule="dist.c, erts_net_message(): DOP_SPAWN_REPLY",
            )
        request = peer.spawns.get(ref)
        if request is None or request.process.pid != parent:
            self._stale_reply(peer, parent, ref, flags, result)
            return
        del peer.spawns[ref]
        token = as_token(rest[0]) if rest else None
        if type(result) is Pid:
            request.succeeded(result, flags, token)
        else:
            request.failed(result, token)

    def _stale_reply(self, peer: Peer, parent: Pid, ref: Reference, flags: int, result: Any) -> None:
        """An answer nobody waits for. A BEAM drops it; only of a parent that is gone it has the monitor removed."""
        if type(result) is Pid and flags & SPAWN_MONITOR and parent.creation == self._router.creation:
            if parent not in self._router.processes:
                peer.emit(_demonitor_p(parent, result, ref))
