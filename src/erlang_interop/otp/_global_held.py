"""Names that BEAMs have registered for processes of this node: what becomes of them is said when a BEAM is lost.

Each BEAM monitors a process that has a name. When it loses the connection to this node it drops the name, for itself
alone; and a node that takes no part in ``global`` exchanges no names with a BEAM that connects, so it stays dropped
there. The BEAM that has registered the process is linked to it besides. None of that is told to who has registered the
name, and another process may be given it meanwhile; so nothing is registered again here, but a line is logged.

Source: kernel/src/global.erl (``register_name_external/3``, ``ins_name_ext/7``, ``dolink_ext/2``, and what is done with
a ``'DOWN'``) of OTP 25 to 29.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ..runtime.atoms import NOCONNECTION
from ..runtime.events import NodeDown
from ..runtime.inline import InlineServer
from ..terms import Reference
from .exact import Exact
from .gen import shown_term

if TYPE_CHECKING:
    from ..runtime.events import NodeEvent
    from ..terms import Pid, Term

log = logging.getLogger("erlang_interop.global")


class Held(InlineServer):
    """Knows these names for as long as their processes live."""

    def __init__(self) -> None:
        self._refs: dict[Exact, Reference] = {}
        self._names: dict[Reference, Exact] = {}

    def started(self) -> None:
        """From now on hear of lost nodes."""
        self._unwatch = self.node.watch_nodes(self._on_event)

    def terminated(self, reason: Term) -> None:
        """The node stops, and loses all others: that is not to be told."""
        self._unwatch()
        self._refs.clear()
        self._names.clear()

    def hold(self, name: Term, pid: Pid) -> None:
        """A BEAM has given this process of the node the name."""
        self.release(name)
        if self.node.is_alive(pid):  # it may have ended while the BEAM was asked
            key, ref = Exact(name), self.process.monitor(pid)
            self._refs[key] = ref
            self._names[ref] = key

    def release(self, name: Term) -> None:
        """The name was taken back."""
        ref = self._refs.pop(Exact(name), None)
        if ref is not None:
            del self._names[ref]
            self.process.demonitor(ref)

    def handle_message(self, message: Term) -> None:
        """A process has ended, and its name is free; whatever a stranger sends is dropped."""
        match message:
            case (_down, ref, _process, pid, reason) if type(ref) is Reference and ref in self._names:
                name = self._names.pop(ref)
                del self._refs[name]
                if reason == NOCONNECTION:
                    log.warning(
                        "the global name %s is free: %s has ended with `noconnection`, as a process does that traps no "
                        "exits when the BEAM is lost that has registered it",
                        shown_term(name.term),
                        pid,
                    )

    def _on_event(self, event: NodeEvent) -> None:
        if isinstance(event, NodeDown) and event.type == "visible" and self._refs:
            log.warning(
                "%s is lost, and has dropped these global names of this node, until they are registered through it "
                "again: %s",
                event.name.name,
                shown_term([name.term for name in self._refs]),
            )
