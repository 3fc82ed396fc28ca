"""Names that a Connector watches natively: every monitor of a name that the remote Proxy may have bound already. Pure.

A certificate says which name it is for, not which process had it. If a name has moved since it was subscribed to, a
further monitor of it must not join that subscription, and to subscribe again would lead to two certificates that nobody
can tell apart. So it is what ``Process.monitor`` is: a native monitor on ``{Name, Node}``, exact at every node.

A name is bound when the signal arrives there. All monitors of it that were made before the signal has left share it, be
it a subscription or a native monitor: with each sweep at most one native monitor of a name leaves, however many
monitors were made.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final, Protocol

from .. import messages as m

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from erlang_interop.terms import Reference

    from ..messages import Instruction, Target

#: Names of which it is remembered that they were subscribed to once. Beyond that all are forgotten: the next monitor
#: of one subscribes again, and may get a certificate that was on its way to the monitor taken back before.
REMEMBERED: Final = 10_000


class NativePort(Protocol):
    """What monitors natively."""

    def monitor(self, target: Target) -> Reference:
        """Monitor natively. The DOWN arrives later, never during the call; ``noproc`` too."""

    def demonitor(self, ref: Reference) -> None:
        """Give a native monitor back, if it has not fired."""

    def held_monitors(self) -> Iterable[Reference]:
        """Those that have neither fired nor been given back."""


class Watch:
    """Monitors of one name that share one native monitor.

    Attributes:
        target: The name.
        native: The native monitor; None until it is set.
        monitors: Who shares it, in the order they were made.
    """

    __slots__ = ("monitors", "native", "target")

    def __init__(self, target: Target) -> None:
        self.target = target
        self.native: Reference | None = None
        self.monitors: dict[Reference, None] = {}


class NativeNames:
    """The names of one remote, as far as they need more than one subscription."""

    def __init__(self) -> None:
        #: Watches that are not set yet: whoever monitors the name joins.
        self._waiting: dict[Target, Watch] = {}
        self._set: dict[Reference, Watch] = {}
        self._watches: dict[Reference, Watch] = {}
        #: Names with a subscription that has not been cast yet.
        self._unsent: set[Target] = set()
        #: Names that nobody monitors by a subscription any more, and of which a certificate may come nevertheless.
        self._left: set[Target] = set()

    def __bool__(self) -> bool:
        return bool(self._watches)

    @property
    def waiting(self) -> int:
        """Native monitors that are to be set."""
        return len(self._waiting)

    def targets(self) -> set[Target]:
        """The names that are watched natively."""
        return {watch.target for watch in (*self._waiting.values(), *self._set.values())}

    # -- subscriptions

    def may_be_bound(self, target: Target, *, subscribed: bool) -> bool:
        """True if the Proxy may have bound this name for us before; ``subscribed``: it is watched by a subscription."""
        return target in self._left or (subscribed and target not in self._unsent)

    def subscribed(self, target: Target) -> None:
        """A name is to be subscribed to."""
        self._unsent.add(target)

    def unsubscribed(self, target: Target) -> None:
        """The subscription of a name is to be withdrawn."""
        if target not in self._unsent:
            self._leave(target)

    def sent(self, instructions: Iterable[Instruction]) -> None:
        """These instructions are on their way to the Proxy."""
        if self._unsent:  # else nothing is new
            for op, target in instructions:
                if type(target) is tuple:
                    self._unsent.discard(target)
                    if op is m.SUBSCRIBE:
                        self._left.discard(target)
                    else:
                        self._leave(target)

    def certified(self, target: Target) -> None:
        """The Proxy has reported the end of a name: what it was subscribed to before is over."""
        self._left.discard(target)

    def _leave(self, target: Target) -> None:
        if len(self._left) >= REMEMBERED:
            self._left.clear()
        self._left.add(target)

    def forgotten(self) -> None:
        """The Proxy has nothing of ours: nothing is subscribed to."""
        self._unsent.clear()
        self._left.clear()

    # -- native monitors

    def add(self, target: Target, ref: Reference) -> bool:
        """Add a monitor of a name that is bound. True if a native monitor is to be set for it."""
        watch = self._waiting.get(target)
        is_new = watch is None
        if watch is None:
            watch = self._waiting[target] = Watch(target)
        watch.monitors[ref] = None
        self._watches[ref] = watch
        return is_new

    def remove(self, ref: Reference, port: NativePort) -> bool:
        """Remove a monitor, and with the last one of a native monitor that too. False if it is none of these."""
        watch = self._watches.pop(ref, None)
        if watch is None:
            return False
        del watch.monitors[ref]
        if not watch.monitors:
            self._drop(watch, port)
        return True

    def _drop(self, watch: Watch, port: NativePort) -> None:
        if watch.native is None:
            del self._waiting[watch.target]
        else:
            del self._set[watch.native]
            port.demonitor(watch.native)

    def send(self, port: NativePort, limit: int) -> None:
        """Set native monitors that wait, ``limit`` at most."""
        for watch in list(islice(self._waiting.values(), limit)):
            watch.native = port.monitor(watch.target)
            self._set[watch.native] = watch
            del self._waiting[watch.target]

    def fired(self, native: Reference) -> Watch | None:
        """A native monitor has fired. Those that shared it are none of ours any more."""
        watch = self._set.pop(native, None)
        if watch is not None:
            self._forget(watch)
        return watch

    def take_waiting(self) -> list[Watch]:
        """Take out what is not set yet."""
        watches = list(self._waiting.values())
        self._waiting.clear()
        for watch in watches:
            self._forget(watch)
        return watches

    def take_all(self) -> list[Watch]:
        """Take out everything, for the process that held the native monitors is gone."""
        watches = list(self._set.values())
        self._set.clear()
        for watch in watches:
            self._forget(watch)
        return watches + self.take_waiting()

    def _forget(self, watch: Watch) -> None:
        for ref in watch.monitors:
            del self._watches[ref]

    # -- after an exception

    def mend(self, wanted: Collection[Reference], port: NativePort) -> None:
        """Keep what is as it should be: watches that are held, or wait, and those of their monitors that are wanted."""
        held = set(port.held_monitors())
        watches = [watch for ref, watch in self._set.items() if ref in held] + list(self._waiting.values())
        self._set = {watch.native: watch for watch in watches if watch.native is not None}
        self._waiting = {watch.target: watch for watch in watches if watch.native is None}
        self._watches = {}
        for watch in watches:
            watch.monitors = {ref: None for ref in watch.monitors if ref in wanted}
            self._watches.update(dict.fromkeys(watch.monitors, watch))
            if not watch.monitors:
                self._drop(watch, port)

    def __contains__(self, ref: Reference) -> bool:
        return ref in self._watches
